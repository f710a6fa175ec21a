"""The parameters that one engine searches together, between Optuna's values and the engine's."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from hpo.adapters.amounts import amount_or_none
from hpo.adapters.optuna.attributes import ASKED, read_attribute
from hpo.adapters.optuna.define_by_run import ParameterAdapter
from hpo.errors import SpaceError
from hpo.space import Fidelity, Int, Parameter, Scale, SearchSpace
from hpo.space.encoding import Encoder, wide_parameters
from hpo.space.parameters import condition

__all__ = ["FIDELITY", "SpaceView", "engine_name"]

_FARTHEST = 1e9  # entry of a row: so many widths from today's range, a value tells nothing
_OURS = "scaletune:"  # what names begin with that no parameter of the user has in the engine
FIDELITY = f"{_OURS}fidelity"


class SpaceView:
    """The part of every trial that one engine sees.

    Args:
        adapters: Parameters by name, those that others depend on included.
        full_step: Last step of a whole run; None if all runs count as whole.
        partial: Parameters that a trial may lack although it should have them: by name, the number
            of the first trial that may. Earlier ones count where they do not need the parameter.

    Attributes:
        adapters: Parameters by name.
        space: Search space of the engine, with the step as its fidelity if `full_step` is given.
    """

    def __init__(
        self,
        adapters: Mapping[str, ParameterAdapter],
        full_step: int | None = None,
        partial: Mapping[str, int] | None = None,
    ) -> None:
        self.adapters = dict(adapters)
        self._full_step = full_step
        self._encoders: tuple[Encoder, Encoder] | None = None
        parameters = {engine_name(n): _renamed(a.parameter) for n, a in adapters.items()}
        # A parameter that a trial may lack hangs on a constant. The engine always proposes it, and
        # in the row of a trial without it, it is inactive.
        self._constants: dict[str, int] = {}
        self._since: dict[str, int] = {}
        for name, since in (partial or {}).items():
            parameter = parameters.get(engine_name(name))
            if parameter is None or isinstance(parameter, Scale | Fidelity):
                continue
            constant = f"{_OURS}had {name}"
            self._constants[constant] = 1
            self._since[constant] = since
            parameters[constant] = Int(1, 1, when=parameter.when)
            parameters[engine_name(name)] = replace(parameter, when=(constant, (1,)))
        if full_step is None:
            self.space = SearchSpace(parameters)
        else:
            self.space = SearchSpace({**parameters, FIDELITY: Fidelity(1, full_step)})

    def key(self) -> tuple[Any, ...]:
        """Return a value that is equal for views of equal parameters."""
        known = ((n, repr(a.distribution), repr(a.parameter)) for n, a in self.adapters.items())
        return (*known, *self._since.items())

    def to_engine(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return Optuna's values as the engine has them.

        Without parameters that are not in view, and without values that no parameter has.
        """
        found: dict[str, Any] = {}
        for name, adapter in self.adapters.items():
            if name in values:
                with contextlib.suppress(SpaceError):
                    found[engine_name(name)] = adapter.to_engine(values[name])
        return found

    def to_optuna(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the engine's config as Optuna's values."""
        named = {n: (a, engine_name(n)) for n, a in self.adapters.items()}
        return {n: a.to_optuna(config[inner]) for n, (a, inner) in named.items() if inner in config}

    def apart(
        self, params: dict[str, Any], tried: Iterable[Mapping[str, Any]], given: Collection[str]
    ) -> dict[str, Any]:
        """Return `params`, or the nearest to them that differ from all that was tried.

        Configs that differ for the engine may be one for Optuna where a distribution has more
        values than the engine can count.

        Args:
            params: Optuna's values of one config.
            tried: The engine's configs so far.
            given: The engine's names of values that may not move.
        """
        movable = {
            name: list(self.adapters[name].beside(value))
            for name, value in params.items()
            if engine_name(name) not in given
        }
        if not any(movable.values()):
            return params
        taken = [self.to_json(self.to_optuna(config)) for config in tried]
        near = ({**params, n: other} for n, others in movable.items() for other in others)
        apart = (p for p in itertools.chain([params], near) if self.to_json(p) not in taken)
        return next(apart, params)

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

        A value from outside today's range counts where it has a place on the parameter's axis: 0
        has none on a log scale, nor has 1 in log-odds.

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
        known = self._known(config | self._constants, trial.number)
        if known is None or not set(known) - {*self._constants, FIDELITY}:
            return None
        return known if self._has_place(known) else None

    def _known(self, config: Mapping[str, Any], number: int) -> dict[str, Any] | None:
        """The active entries of `config`; None if trial `number` lacks one that it must have."""
        active: set[str] = set()
        for name in self.space.parents_first:
            when = condition(self.space[name])
            if when is not None:
                parent, values = when
                if parent not in active:
                    continue
                try:
                    if self.space[parent].check(config[parent], parent) not in values:
                        continue
                except SpaceError:  # a value it had in another range only
                    return None
            if name in config:
                active.add(name)
            elif when is None or number < self._since.get(when[0], math.inf):
                return None
        return {name: config[name] for name in self.space if name in active}

    def _has_place(self, config: Mapping[str, Any]) -> bool:
        """Whether every entry of the config's row is near enough to compare, on either scaling."""
        if self._encoders is None:
            wide = wide_parameters(self.space)
            self._encoders = (Encoder(self.space), Encoder(self.space, log_axes=wide))
        with np.errstate(all="ignore"):
            try:
                rows = [encoder.encode([config]) for encoder in self._encoders]
            except (ValueError, TypeError, OverflowError):  # a declared value of a wrong type
                return False
            return all(bool((np.abs(row) <= _FARTHEST).all()) for row in rows)


def engine_name(name: str) -> str:
    """Return the engine's name of a parameter: Optuna also takes an empty one, and ours.

    Example:
        >>> engine_name("lr"), engine_name("")
        ('lr', 'scaletune:named ')
    """
    return f"{_OURS}named {name}" if not name or name.startswith(_OURS) else name


def _renamed(parameter: Parameter) -> Parameter:
    """`parameter` with its parent as the engine names it."""
    when = condition(parameter)
    if when is None or isinstance(parameter, Scale | Fidelity):
        return parameter
    return replace(parameter, when=(engine_name(when[0]), when[1]))
