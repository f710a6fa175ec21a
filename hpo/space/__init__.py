"""Search spaces: parameters and their units, encoding as arrays, direction of the objective."""

from hpo.space.direction import Direction, DirectionName
from hpo.space.parameters import (
    Categorical,
    Choice,
    Fidelity,
    Float,
    Int,
    Parameter,
    Scale,
)
from hpo.space.roles import Axis, Role
from hpo.space.search_space import SearchSpace
from hpo.space.units import Unit

__all__ = [
    "Axis",
    "Categorical",
    "Choice",
    "Direction",
    "DirectionName",
    "Fidelity",
    "Float",
    "Int",
    "Parameter",
    "Role",
    "Scale",
    "SearchSpace",
    "Unit",
]
