"""scaletune inside Optuna: a sampler and a pruner."""

from hpo.adapters.optuna.engine import belief_of
from hpo.adapters.optuna.pruner import ScaleTunePruner
from hpo.adapters.optuna.sampler import ScaleTuneSampler

__all__ = ["ScaleTunePruner", "ScaleTuneSampler", "belief_of"]
