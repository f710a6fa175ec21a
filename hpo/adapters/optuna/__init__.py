"""scaletune inside Optuna: a sampler and a pruner."""

from hpo.adapters.optuna.attributes import prediction_of
from hpo.adapters.optuna.pruner import ScaleTunePruner
from hpo.adapters.optuna.sampler import ScaleTuneSampler

__all__ = ["ScaleTunePruner", "ScaleTuneSampler", "prediction_of"]
