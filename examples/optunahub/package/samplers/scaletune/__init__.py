from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler, prediction_of

__all__ = ["ScaleTunePruner", "ScaleTuneSampler", "prediction_of"]
