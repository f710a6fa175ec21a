"""Parametrizations: learning rate, decay, epsilon and initial scale by width and depth.

    layout = ParameterLayout.of(build(width=64), build(width=128))      # which dimensions grow
    model = build(width=1024)
    rescale_(model, layout, MUP)                               # once, on new weights
    trainer = TorchTrainer(..., groups=Parametrized(MUP, layout))

A parametrization is a table of factors relative to a base model, for which all factors are one. It
acts through the initial weights and through optimizer groups only: no tensor gets an attribute and
the forward pass is unchanged, so compiled and sharded models work. What a forward multiplier would
do (1 / width on the output layer in Yang et al., 2022, table 8) is moved into weights and learning
rates by their lemma J.1; that is table 3 of the same paper. Two things remain in the model:
attention logits divided by the head width, not by its root, where heads themselves widen, the
factor on residual branches of a parametrization in depth, `branch_factor`, and, where one weight is
both embedding and output layer, the factor on the logits, `readout_factor`.

Notation
--------
m_in, m_out  a weight's fan-in and fan-out over those of the base model, 1 where they do not grow
m_L          depth over the base model's
alpha        residual branches are multiplied by m_L^-alpha

`rules`      `MUP` and its rules in depth, `STANDARD`, `PerLayer`
`abc_rules`  `NTK`, `MEAN_FIELD` and any other abc-parametrization; `UNIT_SCALED`
`layout`     which dimensions of which parameters grow
`groups`     parameter groups and initial weights by such a rule
"""

from hpo.training.parametrization.abc_rules import (
    MEAN_FIELD,
    NTK,
    UNIT_SCALED,
    ABCParametrization,
    Exponents,
    UnitScaled,
)
from hpo.training.parametrization.groups import Parametrized, parameter_groups, rescale_
from hpo.training.parametrization.layout import ParameterLayout
from hpo.training.parametrization.rules import (
    COMPLETE_P,
    DEPTH_MUP,
    MUP,
    STANDARD,
    Factors,
    Growth,
    MaximalUpdate,
    Parametrization,
    PerLayer,
    Standard,
)

__all__ = [
    "COMPLETE_P",
    "DEPTH_MUP",
    "MEAN_FIELD",
    "MUP",
    "NTK",
    "STANDARD",
    "UNIT_SCALED",
    "ABCParametrization",
    "Exponents",
    "Factors",
    "Growth",
    "MaximalUpdate",
    "ParameterLayout",
    "Parametrization",
    "Parametrized",
    "PerLayer",
    "Standard",
    "UnitScaled",
    "parameter_groups",
    "rescale_",
]
