"""scaletune inside Ray Tune, and Ray clusters as a place to run the trials of `optimize`."""

from hpo.adapters.ray.runner import RayRunner
from hpo.adapters.ray.scheduler import ScaleTuneScheduler
from hpo.adapters.ray.searcher import ScaleTuneSearcher

__all__ = ["RayRunner", "ScaleTuneScheduler", "ScaleTuneSearcher"]
