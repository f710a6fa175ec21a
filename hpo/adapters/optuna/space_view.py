"""The parameters that one engine searches together, between Optuna's values and the engine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from hpo.adapters.amounts import amount_or_none
from hpo.adapters.optuna.attributes import ASKED, read_attribute
from hpo.adapters.optuna.define_by_run import ParameterAdapter
from hpo.errors import SpaceError
from hpo.space import Fidelity, Scale, SearchSpace

__all__ = ["FIDELITY", "SpaceView"]

FIDELITY = "scaletune:fidelity"  # a name that no parameter of the user has


class SpaceView:
    """The part of every trial that one engine sees.

    Args:
        adapters: Parameters by name, those that others depend on included.
        full_step: Last step of a whole run; None if all runs count as whole.

    Attributes:
        adapters: Parameters by name.
        space: Search space of the engine, with the step as its fidelity if `full_step` is given.
    """

    def __init__(
        self, adapters: Mapping[str, ParameterAdapter], full_step: int | None = None
    ) -> None:
        self.adapters = dict(adapters)
        self._full_step = full_step
        parameters = {name: adapter.parameter for name, adapter in adapters.items()}
        if full_step is None:
            self.space = SearchSpace(parameters)
        else:
            self.space = SearchSpace({**parameters, FIDELITY: Fidelity(1, full_step)})

    def key(self) -> tuple[Any, ...]:
        """Return a value that is equal for views of equal parameters."""
        return tuple((n, repr(a.distribution), repr(a.parameter)) for n, a in self.adapters.items())

    def to_engine(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return Optuna's values as the engine has them, without parameters not in view."""
        return {n: a.to_engine(values[n]) for n, a in self.adapters.items() if n in values}

    def to_optuna(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the engine's config as Optuna's values."""
        return {n: a.to_optuna(config[n]) for n, a in self.adapters.items() if n in config}

    def to_json(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return Optuna's values as any storage holds them; choices may be objects, so by index."""
        inner: dict[str, float] = {}
        declared: dict[str, Any] = {}
        for name, value in params.items():
            distribution = self.adapters[name].distribution
            if distribution is None:
                declared[name] = value
            else:
                inner[name] = distribution.to_internal_repr(value)
        return {"inner": inner, "declared": declared}

    def proposed(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return the values that a `ScaleTuneSampler`, perhaps elsewhere, proposed for a trial."""
        asked = read_attribute(trial.system_attrs, ASKED) or {"inner": {}, "declared": {}}
        values: dict[str, Any] = {}
        for name, adapter in self.adapters.items():
            if adapter.distribution is None:
                if name in asked["declared"]:
                    values[name] = asked["declared"][name]
            elif name in asked["inner"]:
                inner = asked["inner"][name]
                if isinstance(adapter.distribution, CategoricalDistribution):
                    values[name] = adapter.distribution.choices[int(inner)]
                else:
                    values[name] = adapter.distribution.to_external_repr(inner)
        return values

    def engine_config(self, trial: FrozenTrial, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the engine's config of a trial with `values`; None if a part is unknown.

        Scales that are missing in `values` are read from user attributes of their names.
        """
        merged = dict(values)
        for name, adapter in self.adapters.items():
            if isinstance(adapter.parameter, Scale) and name not in merged:
                scale = amount_or_none(trial.user_attrs.get(name))
                if scale:
                    merged[name] = scale
        config = self.to_engine(merged)
        if self._full_step is not None:
            config[FIDELITY] = self._full_step
        try:
            active = self.space.active(config)
        except SpaceError:  # a parent is missing, or has a value it had in another range only
            return None
        if any(name not in config for name in active):
            return None
        return {name: config[name] for name in active}
