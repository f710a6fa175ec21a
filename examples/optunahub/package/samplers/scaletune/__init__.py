from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler, belief_of

__all__ = ["ScaleTunePruner", "ScaleTuneSampler", "belief_of"]
