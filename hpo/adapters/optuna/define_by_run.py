"""A search space learned from what a define-by-run objective has suggested.

Optuna never sees a whole search space: an objective asks for one value after another, under
conditions that only its code knows and in ranges that may change. From finished trials
:class:`ObservedSpace` learns which parameters there are, in which range each was suggested last,
and which of them depend on another one. A trial may end before its last suggestion, and code may
change while a study runs; so where no rule holds for all trials, the latest ones decide.
:class:`ParameterAdapter` converts values between Optuna and the engine.

Notation
--------
n, p      a parameter and a possible parent of it
V, W      values of p in trials with n, and in those without; the condition "p is in V" explains n
          if every trial with n has p, and no value is in both V and W
latest    the last `_LATEST` trials, without those before n was first suggested

Choices may be objects of any kind, without a hash, or lists where a storage gives back what were
tuples. So everything here is counted by their positions in the list of choices.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
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
from hpo.space.checks import as_float, as_int
from hpo.space.parameters import LARGEST_INT, condition

__all__ = ["Condition", "ObservedSpace", "ParameterAdapter", "parameter_adapters"]

#: A parent and the values of it, as Optuna gives them, under which a parameter is suggested.
Condition: TypeAlias = tuple[str, tuple[Any, ...]]

_LATEST = 16  # trials that say what the objective suggests today
_MOST_BESIDE = 1000  # of the values next to one that was tried
_MOST_PARENT_VALUES = 64  # of a parameter that others may depend on, such as a layer count


class ObservedSpace:
    """Parameters that finished trials have shown, with their ranges and conditions.

    Attributes:
        trials: Number of trials read.
        distributions: Distribution of each parameter when it was suggested last.

    Example:
        >>> import optuna
        >>> from hpo.adapters.optuna.define_by_run import ObservedSpace
        >>> def objective(trial):
        ...     if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
        ...         trial.suggest_float("momentum", 0, 1)
        ...     return 0.0
        >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        >>> study.optimize(objective, n_trials=8)
        >>> observed = ObservedSpace()
        >>> for trial in study.trials:
        ...     observed.add(trial)
        >>> observed.space()
        {'optimizer': None, 'momentum': ('optimizer', ('sgd',))}
    """

    def __init__(self) -> None:
        self.trials = 0
        self.distributions: dict[str, BaseDistribution] = {}
        self._latest: dict[str, int] = {}
        self._count: Counter[str] = Counter()
        self._first: dict[str, int] = {}  # trials read when a name was first suggested
        self._since: dict[str, int] = {}  # least number of a trial with a name
        # What the latest trials suggested, possible parents with their values, others with None.
        self._recent: deque[tuple[int, dict[str, int | None]]] = deque(maxlen=_LATEST)
        # For each possible parent and value of it, a choice by its position: trials with it, and
        # parameters in those trials.
        self._values: dict[str, Counter[int]] = defaultdict(Counter)
        self._with: dict[str, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def add(self, trial: FrozenTrial) -> None:
        """Read a trial whose objective came to its end."""
        self.trials += 1
        suggested: dict[str, int | None] = {}
        self._recent.append((self.trials, suggested))
        for name, distribution in trial.distributions.items():
            suggested[name] = None
            self._first.setdefault(name, self.trials)
            self._since[name] = min(self._since.get(name, trial.number), trial.number)
            if self._latest.get(name, -1) <= trial.number:
                self._latest[name] = trial.number
                self.distributions[name] = distribution
            self._count[name] += 1
            if _may_be_parent(distribution):
                suggested[name] = value = _code(distribution, trial.params[name])
                self._values[name][value] += 1
                self._with[name][value].update(trial.params.keys())

    def space(self) -> dict[str, Condition | None]:
        """Return the condition of each parameter whose presence is understood.

        In the order in which they were first suggested; None stands for no condition. First come
        rules without an exception, then what most of the latest trials had.
        """
        return {name: when for name, (when, _) in self._understood().items()}

    def contradicts(self, name: str, condition: Condition) -> bool:
        """Return whether a trial suggested `name` although a condition says that it has no place.

        One that lacks it where it has its place is no contradiction: it may have ended before.
        """
        parent, values = condition
        distribution = self.distributions.get(parent)
        if distribution is None:
            return False
        return any(
            names[name] and distribution.to_external_repr(code) not in values
            for code, names in self._with[parent].items()
        )

    def partial(self) -> dict[str, int]:
        """Return the parameters that trials lack without a rule, although others had them before.

        By name, the number of the first trial that had it: earlier ones had another objective.
        """
        understood = self._understood()
        return {
            name: number
            for name, number in self._since.items()
            if (name not in understood or not understood[name][1])
            and self._count[name] <= self.trials - self._first[name]
        }

    def began(self) -> int:
        """Return the number of the first trial that had all of today's unconditional parameters."""
        whole = [n for n, (when, exact) in self._understood().items() if when is None and not exact]
        return max((self._since[name] for name in whole), default=0)

    def _understood(self) -> dict[str, tuple[Condition | None, bool]]:
        """The condition of each parameter, and whether it holds for all trials."""
        found: dict[str, tuple[Condition | None, bool]] = {}
        for name, count in self._count.items():
            if count == self.trials:
                found[name] = None, True
                continue
            parents = [p for p in found if p in self._values]
            when = self._condition(name, parents)
            if when is not None:
                found[name] = when, True
                continue
            latest = self._usual(name, parents)
            if latest is not None:
                found[name] = latest[0], False
        return found

    def _usual(self, name: str, parents: Sequence[str]) -> tuple[Condition | None] | None:
        """The condition with the fewest exceptions in the latest trials, alone in a tuple.

        None if even under that one most of them lack the parameter.
        """
        latest = [trial for number, trial in self._recent if number >= self._first[name]]
        having = [trial for trial in latest if name in trial]
        best: Condition | None = None
        expected = len(latest)  # trials that should have it
        for parent in parents:
            values = [trial.get(parent) for trial in having]
            if not values or None in values:
                continue
            distribution = self.distributions[parent]
            present = list(dict.fromkeys(value for value in values if value is not None))
            if isinstance(distribution, IntDistribution):
                others = {trial[parent] for trial in latest if parent in trial} - set(present)
                present = _threshold(present, [v for v in others if v is not None], distribution)
            under = sum(trial.get(parent) in present for trial in latest)
            if present and under < expected:
                expected = under
                best = parent, tuple(map(distribution.to_external_repr, present))
        return (best,) if 2 * len(having) > expected else None

    def _condition(self, name: str, parents: Sequence[str]) -> Condition | None:
        """The first condition that explains `name`; choices are tried before integers."""
        categorical = CategoricalDistribution
        for parent in sorted(
            parents, key=lambda p: not isinstance(self.distributions[p], categorical)
        ):
            trials = self._values[parent]
            with_name = {value: self._with[parent][value][name] for value in trials}
            if sum(with_name.values()) != self._count[name]:
                continue
            if any(0 < with_name[value] < trials[value] for value in trials):
                continue
            present = [value for value in trials if with_name[value]]
            absent = [value for value in trials if not with_name[value]]
            distribution = self.distributions[parent]
            if isinstance(distribution, IntDistribution):
                present = _threshold(present, absent, distribution)
            if present:
                return parent, tuple(map(distribution.to_external_repr, present))
        return None


@dataclass(frozen=True, slots=True)
class ParameterAdapter:
    """One parameter, as Optuna suggests it and as the engine searches it.

    Choices become their indices, so that they may be any objects. So do the values of a grid with
    steps that are not multiples of an integer.

    Attributes:
        distribution: Optuna's distribution; None for a parameter that was never suggested.
        parameter: The engine's parameter.

    Example:
        >>> from optuna.distributions import FloatDistribution
        >>> from hpo.adapters.optuna.define_by_run import ParameterAdapter
        >>> adapter = ParameterAdapter.of(FloatDistribution(0, 1, step=0.1), None)
        >>> adapter.to_engine(0.3), adapter.to_optuna(3)
        (3, 0.3)
    """

    distribution: BaseDistribution | None
    parameter: Parameter

    @classmethod
    def of(cls, distribution: BaseDistribution, declared: Parameter | None) -> ParameterAdapter:
        """Return the adapter of a distribution, with role, center and scale axis as declared.

        Raises:
            SpaceError: For a range that cannot be searched.
        """
        return cls(distribution, without_condition(_parameter(distribution, declared)))

    def under(self, parent: str, values: Sequence[Any]) -> ParameterAdapter:
        """Return a copy that is active when `parent` has one of `values`, given as the engine's."""
        if isinstance(self.parameter, Scale | Fidelity):
            return self
        return replace(self, parameter=replace(self.parameter, when=(parent, tuple(values))))

    def to_engine(self, value: Any) -> Any:
        """Return a value of Optuna's as the engine has it; it may lie outside the present range.

        Raises:
            SpaceError: For a value that is no choice, or no finite number.
        """
        if self.distribution is None:
            return value
        if isinstance(self.distribution, CategoricalDistribution):
            return _code(self.distribution, value)
        value = as_int(value, "a value") if isinstance(value, int) else as_float(value, "a value")
        if self._indexed:
            assert isinstance(self.distribution, FloatDistribution | IntDistribution)
            steps = (value - self.distribution.low) / (self.distribution.step or 1)
            return round(steps) if math.isclose(steps, round(steps), abs_tol=1e-6) else steps
        return value

    def to_optuna(self, value: Any) -> Any:
        """Return a value of the engine's as a plain Python value of the distribution."""
        distribution = self.distribution
        if distribution is None:
            return value
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[int(value)]
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        if self._indexed:
            value = _on_grid(distribution, int(value))
        elif not isinstance(self.parameter, Int) and (distribution.step or 1) != 1:
            # more steps than can be counted: searched as a float, so the grid is met here
            steps = (Decimal(repr(value)) - Decimal(repr(distribution.low))) / Decimal(
                repr(distribution.step)
            )
            value = _on_grid(distribution, round(steps))
        if isinstance(distribution, IntDistribution):
            return min(max(round(value), distribution.low), distribution.high)
        return min(max(float(value), distribution.low), distribution.high)

    def beside(self, value: Any) -> Iterator[Any]:
        """Yield the values of Optuna's nearest to `value`, which the engine cannot tell from it.

        There are some where the distribution has more values than the engine can count, so that
        numbers that differ for the engine may be one for Optuna.
        """
        distribution = self.distribution
        if not isinstance(distribution, FloatDistribution | IntDistribution):
            return
        if isinstance(self.parameter, Int) or distribution.step is None:
            return
        low, high = distribution.low, distribution.high
        step = max(distribution.step, math.ulp(float(high)))  # Optuna stores floats
        for distance in range(1, _MOST_BESIDE):
            for other in (value + distance * step, value - distance * step):
                if low <= other <= high:
                    yield self.to_optuna(other)

    @property
    def _indexed(self) -> bool:
        """Whether the engine counts steps from the lower end."""
        step = getattr(self.distribution, "step", None)
        if not isinstance(self.parameter, Int) or step is None:
            return False
        return isinstance(self.distribution, FloatDistribution) or self.parameter.low == 0


def _on_grid(distribution: FloatDistribution | IntDistribution, steps: int) -> Decimal:
    """The value `steps` above the lower end, in decimals: 0.3, not 0.30000000000000004."""
    return Decimal(repr(distribution.low)) + steps * Decimal(repr(distribution.step))


def _code(distribution: BaseDistribution, value: Any) -> int:
    """Position of a choice, the value itself of an integer.

    Storages hold choices as JSON, so that a tuple comes back as a list: both are one choice.

    Raises:
        SpaceError: For a value that is no choice.
    """
    try:
        return int(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        stored = _as_stored(value)
        for position, choice in enumerate(getattr(distribution, "choices", ())):
            if stored is not None and _as_stored(choice) == stored:
                return position
    raise SpaceError(f"{value!r} is no value of {distribution!r}; enqueue and add only its values")


def _as_stored(value: Any) -> str | None:
    """A value as JSON; None for one that JSON cannot hold."""
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return None


def _parameter(distribution: BaseDistribution, declared: Parameter | None) -> Parameter:
    if isinstance(distribution, CategoricalDistribution):
        indices = range(len(distribution.choices))
        if not isinstance(declared, Categorical):
            return Categorical(indices)
        center = None
        if declared.center in distribution.choices:
            center = distribution.choices.index(declared.center)
        return Categorical(indices, ordered=declared.ordered, center=center, role=declared.role)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise SpaceError(
            f"{distribution!r} cannot be searched; suggest a float, an int or a categorical value"
        )
    low, high = distribution.low, distribution.high
    if isinstance(declared, Scale) and low > 0:
        return Scale(low, high, axis=declared.axis)
    number = _integer(distribution)
    if number is None:
        return _float(float(low), float(high), distribution.log, declared)
    if isinstance(declared, Int | Float):
        number = replace(number, role=declared.role, hard=declared.hard)
        if declared.center is not None and low <= declared.center <= high:
            adapter = ParameterAdapter(distribution, number)
            number = replace(number, center=number.canonical(adapter.to_engine(declared.center)))
    return number


def _integer(distribution: FloatDistribution | IntDistribution) -> Int | None:
    """Integer parameter, of values or of steps from the lower end; None to search a float."""
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
        hard=declared.hard,
        role=declared.role,
    )


def without_condition(parameter: Parameter) -> Parameter:
    """The parameter without its `when`."""
    if condition(parameter) is None or isinstance(parameter, Scale | Fidelity):
        return parameter
    return replace(parameter, when=None)


def _may_be_parent(distribution: BaseDistribution) -> bool:
    """Whether other parameters may depend on one with this distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices) <= _MOST_PARENT_VALUES
    return (
        isinstance(distribution, IntDistribution)
        and distribution.high - distribution.low < _MOST_PARENT_VALUES
    )


def _threshold(
    present: Sequence[int], absent: Sequence[int], distribution: IntDistribution
) -> list[int]:
    """All values on the side of `present`, such as 3 layers or more; none if no threshold divides.

    Any two sets of integers can be told apart after the fact, so only a threshold counts.
    """
    whole = range(distribution.low, distribution.high + 1, distribution.step)
    if not absent or min(present) > max(absent):
        return [value for value in whole if value >= min(present)]
    if max(present) < min(absent):
        return [value for value in whole if value <= max(present)]
    return []


def parameter_adapters(
    search_space: Mapping[str, BaseDistribution],
    conditions: Mapping[str, Condition | None],
    declared: Mapping[str, Parameter],
) -> dict[str, ParameterAdapter]:
    """Return adapters of the parameters in `search_space` and of those only declared.

    A condition on a parameter that is not there is dropped, and so is a range that cannot be
    searched.

    Args:
        search_space: Distributions by name.
        conditions: Conditions learned from earlier trials; a declared one takes precedence.
        declared: Parameters that the user has declared.
    """
    found: dict[str, ParameterAdapter] = {}
    for name, distribution in search_space.items():
        try:
            found[name] = ParameterAdapter.of(distribution, declared.get(name))
        except SpaceError:
            continue
    for name, parameter in declared.items():
        if name not in search_space:
            found[name] = ParameterAdapter(None, without_condition(parameter))
    for name in list(found):
        when = declared_condition(declared.get(name)) or conditions.get(name)
        if when is None or when[0] not in found:
            continue
        parent, values = when
        adapter = found[parent]
        if not isinstance(adapter.parameter, Categorical | Int):
            continue
        legal = _legal(adapter, values)
        if legal:
            found[name] = found[name].under(parent, legal)
        else:  # the parent's range has moved to where this one is never suggested
            del found[name]
    return found


def declared_condition(parameter: Parameter | None) -> Condition | None:
    """The `when` that a user declared."""
    when = None if parameter is None else condition(parameter)
    return None if when is None else (when[0], tuple(when[1]))


def _legal(adapter: ParameterAdapter, values: Sequence[Any]) -> list[Any]:
    """Those of Optuna's `values` that the parameter has today, as the engine has them."""
    assert isinstance(adapter.parameter, Categorical | Int)
    found = []
    for value in values:
        try:
            converted = adapter.to_engine(value)
            adapter.parameter.check(converted)
        except SpaceError:
            continue
        found.append(converted)
    return found
