"""A search space learned from what a define-by-run objective has suggested.

Optuna never sees a whole search space: an objective asks for one value after another, under
conditions that only its code knows and in ranges that may change. From finished trials
:class:`ObservedSpace` learns which parameters there are, in which range each was suggested last, and
which of them depend on another one; :class:`ParameterAdapter` carries values between Optuna and the
engine.

Notation
--------
n, p      a parameter and a possible parent of it
V, W      values of p in trials with n, and in those without; "n is active when p is in V" explains
          n if every trial with n has p, and no value is in both
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, TypeAlias

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial

from hpo.errors import SpaceError
from hpo.space import Categorical, Fidelity, Float, Int, Parameter, Scale
from hpo.space.parameters import LARGEST_INT, condition

__all__ = ["Condition", "ParameterAdapter", "ObservedSpace"]

#: A parent and the values of it, as Optuna gives them, under which a parameter is suggested.
Condition: TypeAlias = tuple[str, tuple[Any, ...]]

_LARGEST_SWITCH = 64  # values of an integer that may switch parameters on, such as a layer count


class ObservedSpace:
    """What finished trials say about the objective's parameters; grows trial by trial."""

    def __init__(self) -> None:
        self.trials = 0
        self.distributions: dict[str, BaseDistribution] = {}
        self._latest: dict[str, int] = {}
        self._count: Counter[str] = Counter()
        # For each possible parent and value of it: how often it was met, and what came with it.
        self._met: dict[str, Counter[Any]] = defaultdict(Counter)
        self._with: dict[str, dict[Any, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def add(self, trial: FrozenTrial) -> None:
        """Learn from a trial whose objective came to its end."""
        self.trials += 1
        for name, distribution in trial.distributions.items():
            if self._latest.get(name, -1) <= trial.number:
                self._latest[name] = trial.number
                self.distributions[name] = distribution
            self._count[name] += 1
            if _switches(distribution):
                value = trial.params[name]
                self._met[name][value] += 1
                self._with[name][value].update(trial.params.keys())

    def space(self) -> dict[str, Condition | None]:
        """Parameters whose presence is understood, by their condition; None for no condition.

        In the order in which they were first suggested.
        """
        found: dict[str, Condition | None] = {}
        for name, count in self._count.items():
            if count == self.trials:
                found[name] = None
                continue
            rule = self._explained(name, [p for p in found if p in self._met])
            if rule is not None:
                found[name] = rule
        return found

    def _explained(self, name: str, parents: Sequence[str]) -> Condition | None:
        """The first rule that explains `name`; choices are tried before integers."""
        categorical = CategoricalDistribution
        for parent in sorted(
            parents, key=lambda p: not isinstance(self.distributions[p], categorical)
        ):
            met = self._met[parent]
            came = {value: self._with[parent][value][name] for value in met}
            if sum(came.values()) != self._count[name]:
                continue
            if any(0 < came[value] < met[value] for value in met):
                continue
            present = [value for value in met if came[value]]
            absent = [value for value in met if not came[value]]
            distribution = self.distributions[parent]
            if isinstance(distribution, IntDistribution):
                present = _one_side(present, absent, distribution)
            if present:
                return parent, tuple(present)
        return None


@dataclass(frozen=True, slots=True)
class ParameterAdapter:
    """One parameter, as Optuna suggests it and as the engine searches it.

    Choices become their indices, so that they may be any objects; so do the values of a grid that
    is no plain lattice. `distribution` is None before anything was suggested.
    """

    distribution: BaseDistribution | None
    parameter: Parameter

    @classmethod
    def of(cls, distribution: BaseDistribution, declared: Parameter | None) -> ParameterAdapter:
        """What Optuna suggests, with role, center and scale axis of what was declared.

        Raises SpaceError for a range that cannot be searched.
        """
        return cls(distribution, _without_condition(_parameter(distribution, declared)))

    def under(self, parent: str, values: Sequence[Any]) -> ParameterAdapter:
        """The same, active when `parent` has one of `values`, as the engine has them."""
        if isinstance(self.parameter, Scale | Fidelity):
            return self
        return replace(self, parameter=replace(self.parameter, when=(parent, tuple(values))))

    def to_engine(self, value: Any) -> Any:
        """A value of Optuna's as the engine has it; it may lie outside of the present range."""
        if self.distribution is None:
            return value
        if isinstance(self.distribution, CategoricalDistribution):
            return int(self.distribution.to_internal_repr(value))
        if self._coded:
            assert isinstance(self.distribution, FloatDistribution | IntDistribution)
            place = (value - self.distribution.low) / (self.distribution.step or 1)
            return round(place) if math.isclose(place, round(place), abs_tol=1e-6) else place
        return value

    def outward(self, value: Any) -> Any:
        """A value of the engine's as a plain Python value of the distribution."""
        distribution = self.distribution
        if distribution is None:
            return value
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[int(value)]
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        if self._coded:  # in decimals: steps of 0.1 give 0.3, not 0.30000000000000004
            start, step = Decimal(repr(distribution.low)), Decimal(repr(distribution.step))
            value = start + int(value) * step
        if isinstance(distribution, IntDistribution):
            return min(max(round(value), distribution.low), distribution.high)
        return min(max(float(value), distribution.low), distribution.high)

    @property
    def _coded(self) -> bool:
        """Whether the engine counts steps from the lower end."""
        step = getattr(self.distribution, "step", None)
        if not isinstance(self.parameter, Int) or step is None:
            return False
        return isinstance(self.distribution, FloatDistribution) or self.parameter.low == 0


def _parameter(distribution: BaseDistribution, declared: Parameter | None) -> Parameter:
    if isinstance(distribution, CategoricalDistribution):
        codes = range(len(distribution.choices))
        if not isinstance(declared, Categorical):
            return Categorical(codes)
        center = None
        if declared.center in distribution.choices:
            center = distribution.choices.index(declared.center)
        return Categorical(codes, ordered=declared.ordered, center=center, role=declared.role)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise SpaceError(f"{distribution!r} has no counterpart; use float, int or categorical")
    low, high = distribution.low, distribution.high
    if isinstance(declared, Scale) and low > 0:
        return Scale(low, high, axis=declared.axis)
    number = _integer(distribution)
    if number is None:
        return _float(float(low), float(high), distribution.log, declared)
    if isinstance(declared, Int | Float):
        number = replace(number, role=declared.role)
        if declared.center is not None and low <= declared.center <= high:
            column = ParameterAdapter(distribution, number)
            number = replace(number, center=number.canonical(column.to_engine(declared.center)))
    return number


def _integer(distribution: FloatDistribution | IntDistribution) -> Int | None:
    """Integers or steps counted from the lower end; None for what is searched as a float."""
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is None or max(abs(low), abs(high)) / step > LARGEST_INT:
        return None
    if isinstance(distribution, IntDistribution):
        if distribution.log:
            return Int(distribution.low, distribution.high, log=True)
        if low != 0 and distribution.low % distribution.step == 0:
            return Int(distribution.low, distribution.high, multiple_of=distribution.step)
    return Int(0, round((high - low) / step))


def _float(low: float, high: float, log: bool, declared: Parameter | None) -> Float:
    if not isinstance(declared, Float):
        return Float(low, high, log=log)
    logit = declared.logit and low > 0 and high < 1
    center = declared.center if declared.center and low <= declared.center <= high else None
    return Float(
        low,
        high,
        log=log and not logit,
        logit=logit,
        center=center,
        spread=None if center is None else declared.spread,
        role=declared.role,
    )


def _without_condition(parameter: Parameter) -> Parameter:
    if condition(parameter) is None or isinstance(parameter, Scale | Fidelity):
        return parameter
    return replace(parameter, when=None)


def _switches(distribution: BaseDistribution) -> bool:
    """Whether a condition on this parameter could be written down."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices) <= _LARGEST_SWITCH
    return (
        isinstance(distribution, IntDistribution)
        and distribution.high - distribution.low < _LARGEST_SWITCH
    )


def _one_side(
    present: Sequence[int], absent: Sequence[int], distribution: IntDistribution
) -> list[int]:
    """All values on the side of `present`, as of the layers 1 .. n; none if both are mixed.

    Any set of integers could be told apart after the fact, so only a threshold is believed.
    """
    whole = range(distribution.low, distribution.high + 1, distribution.step)
    if not absent or min(present) > max(absent):
        return [value for value in whole if value >= min(present)]
    if max(present) < min(absent):
        return [value for value in whole if value <= max(present)]
    return []


def declared_condition(parameter: Parameter | None) -> Condition | None:
    """The `when` that a user declared."""
    when = None if parameter is None else condition(parameter)
    return None if when is None else (when[0], tuple(when[1]))


def columns(
    search_space: Mapping[str, BaseDistribution],
    conditions: Mapping[str, Condition | None],
    declared: Mapping[str, Parameter],
) -> dict[str, ParameterAdapter]:
    """The parameters of `search_space` and those declared beside it, parents known to children.

    A condition on a parameter that is not there is dropped, and so is a range that cannot be
    searched.
    """
    found: dict[str, ParameterAdapter] = {}
    for name, distribution in search_space.items():
        try:
            found[name] = ParameterAdapter.of(distribution, declared.get(name))
        except SpaceError:
            continue
    for name, parameter in declared.items():
        if name not in search_space:
            found[name] = ParameterAdapter(None, _without_condition(parameter))
    for name in list(found):
        rule = declared_condition(declared.get(name)) or conditions.get(name)
        if rule is None or rule[0] not in found:
            continue
        parent, values = rule
        switch = found[parent]
        if not isinstance(switch.parameter, Categorical | Int):
            continue
        legal = [
            code for code in map(switch.to_engine, values) if _is_legal(switch.parameter, code)
        ]
        if legal:
            found[name] = found[name].under(parent, legal)
        else:  # the parent's range has moved to where this one is never suggested
            del found[name]
    return found


def _is_legal(parameter: Categorical | Int, value: Any) -> bool:
    try:
        parameter.check(value)
    except SpaceError:
        return False
    return True
