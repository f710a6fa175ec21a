"""Optimizers as plain settings, which turn parameter groups into torch optimizers.

    AdamW(lr=3e-3, weight_decay=0.1).build(groups)

A `ParameterGroup` lists parameters that share factors on the base values of the optimizer:
`parametrization` makes groups by width and depth, `plain_groups` those of a model that follows no
such rule. Weight decay acts on matrices only, not on biases and norms. The `lr` of the groups as
built are peak rates; a schedule multiplies them.

`base`              groups, roles, and what every optimizer has
`first_order`       AdamW, SGD, Lion, Muon
`packaged`          Adam-atan2, schedule-free, Prodigy, Shampoo, SOAP by the packages that have them
`norm_constrained`  Dion, Scion
`averaging`         weights to evaluate, where an optimizer trains others
"""

from hpo.training.optimizers.base import (
    UPDATE_RULE,
    LayerRole,
    ParameterGroup,
    Step,
    UpdateRule,
    plain_groups,
)
from hpo.training.optimizers.first_order import SGD, AdamW, Lion, Muon
from hpo.training.optimizers.norm_constrained import Dion, Scion
from hpo.training.optimizers.packaged import SOAP, AdamAtan2, Prodigy, ScheduleFree, Shampoo

__all__ = [
    "SGD",
    "SOAP",
    "UPDATE_RULE",
    "AdamAtan2",
    "AdamW",
    "Dion",
    "LayerRole",
    "Lion",
    "Muon",
    "ParameterGroup",
    "Prodigy",
    "ScheduleFree",
    "Scion",
    "Shampoo",
    "Step",
    "UpdateRule",
    "plain_groups",
]
