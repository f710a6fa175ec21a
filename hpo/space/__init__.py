"""Search spaces: parameters, their encoding as arrays, and the direction of the loss."""

from hpo.space.parameters import (
    Axis,
    Categorical,
    Choice,
    Fidelity,
    Float,
    Int,
    Parameter,
    Role,
    Scale,
)
from hpo.space.search_space import SearchSpace

__all__ = [
    "Axis",
    "Categorical",
    "Choice",
    "Fidelity",
    "Float",
    "Int",
    "Parameter",
    "Role",
    "Scale",
    "SearchSpace",
]
