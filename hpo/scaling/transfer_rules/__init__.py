"""Published transfer rules as priors on how the best settings drift with scale.

Every rule for carrying hyperparameters across scale gives the value model one thing: the slope, and
sometimes the level, of the optimum z* of a parameter along a scale axis. A rule is a small frozen
object that turns a search space into such claims. Rules that contradict each other compete, and the
runs decide between them (`hpo.scaling.rule_mixture`); `result.scaling_law` shows how much weight
each rule had before and after the runs. ::

    optimize(...)                                       # every published rule that fits the space
    optimize(..., priors=[MuP(), TokenHorizon()])       # these rules only
    optimize(..., priors=Neutral())                     # no rule at all

Notation
--------
z*_j     best value of parameter j in natural units: ln lr, ln batch, log-odds of beta2
s_a      ln of scale axis a: ln N (parameters), ln D (tokens), ln width, ln depth
slope    dz*_j / ds_a. -0.3 means that the best lr falls by 10^-0.3, to one half, in ten times D
sd       one standard deviation of the slope: how far the rule may be off in a setting it was not
         fitted in, judged from the spread between papers; no paper states it

Rules are sorted by topic: `model_size`, `width_exponents`, `horizon`, `weight_decay` and
`language_models`; `published` lists those that compete by default.
"""

from hpo.scaling.transfer_rules.horizon import PowerScheduler, TimeTransfer, TokenHorizon
from hpo.scaling.transfer_rules.language_models import DeepSeekLaw, KaplanLR, StepLaw
from hpo.scaling.transfer_rules.model_size import CompleteP, DepthMuP, MuP
from hpo.scaling.transfer_rules.published import PUBLISHED
from hpo.scaling.transfer_rules.weight_decay import AdamWTimescale, WeightDecayTransfer
from hpo.scaling.transfer_rules.width_exponents import (
    Alignment,
    Layer,
    ParametrizationScheme,
    ScalingExponents,
    Update,
)

__all__ = [
    "PUBLISHED",
    "AdamWTimescale",
    "Alignment",
    "CompleteP",
    "DeepSeekLaw",
    "DepthMuP",
    "KaplanLR",
    "Layer",
    "MuP",
    "ParametrizationScheme",
    "PowerScheduler",
    "ScalingExponents",
    "StepLaw",
    "TimeTransfer",
    "TokenHorizon",
    "Update",
    "WeightDecayTransfer",
]
