"""What sampler and pruner share: an Optuna study read into the engine's own log."""

from __future__ import annotations

import json
import logging
import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.adapters.optuna.define_by_run import ObservedSpace, ParameterAdapter
from hpo.errors import SpaceError
from hpo.optimizer.ask import FRONT_EVERY
from hpo.optimizer.ask_tell import Optimizer
from hpo.schedulers.ladder import Ladder
from hpo.space import Fidelity, Scale, SearchSpace
from hpo.trials import Cause, Prediction, Trial
from hpo.trials.records import SECONDS

if TYPE_CHECKING:
    from optuna.study import Study

_ASKED = "scaletune:asked"
_PLACE = "scaletune:place"
_FAILED = "failed"  # the user attribute that may hold a cause
_FIDELITY = "scaletune:fidelity"  # a name that no parameter of the user has
_LONGEST_VALUE = 2000  # characters that every storage takes
_ENGINES = 32  # engines kept for one study: one for each space and preference met lately
_POOL = 1024  # configs looked at where some values are given
_RUNG = 4  # factor between the fidelities at which a complete trial is looked at
_REASKS = 3  # proposals after one that another worker has just made, too
_APART = 1 << 16  # trials between the random keys of such proposals, and past every start point
_AUGMENTED = 0.05  # share of the plain sum in the Tchebycheff scalarization (Knowles 2006)
_log = logging.getLogger(__name__)
Cached = TypeVar("Cached")


class _PerStudy(Generic[Cached]):
    """Settings that travel between processes, beside caches by study that stay behind."""

    _lock: threading.RLock
    _studies: weakref.WeakKeyDictionary[Any, dict[int, Cached]]  # by storage and study

    def __getstate__(self) -> dict[str, Any]:
        """Settings only: caches are rebuilt, and a lock cannot travel."""
        state = self.__dict__.copy()
        del state["_lock"], state["_studies"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._studies = weakref.WeakKeyDictionary()


def prediction_of(trial: FrozenTrial) -> Prediction | None:
    """What the sampler believed of a trial when it proposed it; None if it did not."""
    asked = _read(trial.system_attrs, _ASKED)
    return None if asked is None else Prediction.from_json(asked["belief"])


class _Known:
    """What one study has said so far: its finished trials in the order in which they ended."""

    def __init__(self) -> None:
        self.witness = ObservedSpace()
        self.finished: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        self.retried: set[int] = set()  # numbers of trials that Optuna's heartbeat has repeated
        self.sizes: dict[str, float] = {}  # last value of each scale that is a user attribute
        self.proposals: dict[int, dict[str, Any]] = {}
        self.announced: set[str] = set()
        self.mirrors: OrderedDict[Any, _Mirror] = OrderedDict()
        self._seen: set[int] = set()
        self._pruned = False
        self._longest = 0
        self._complete = 0

    def take_in(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Learn what is new among all `trials` of the study; returns these and the running."""
        self.running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        news = [t for t in trials if t.state.is_finished() and t.number not in self._seen]
        news.sort(key=lambda t: (t.datetime_complete is not None, t.datetime_complete, t.number))
        for trial in news:
            self._seen.add(trial.number)
            self.finished.append(trial)
            self.proposals.pop(trial.number, None)
            before = trial.system_attrs.get("failed_trial")
            if before is not None:
                self.retried.add(before)
            if trial.state is TrialState.FAIL:
                continue  # it may have failed before it had suggested everything
            self.witness.add(trial)
            for name, value in trial.user_attrs.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self.sizes[name] = float(value)
            if trial.state is TrialState.COMPLETE:
                self._complete += 1
                self._longest = max([self._longest, *trial.intermediate_values])
            elif any(math.isfinite(v) for v in trial.intermediate_values.values()):
                self._pruned = True
        for trial in self.running:
            before = trial.system_attrs.get("failed_trial")
            if before is not None:
                self.retried.add(before)
        return news + self.running

    def top(self, declared: Fidelity | None) -> int | None:
        """The last step of a whole run, once shorter ones are to be compared with it."""
        if not self._pruned:
            return None
        return declared.high if declared is not None else max(self._longest, 2)

    def preference(self, number: int, objectives: int) -> _Preference | None:
        """Among several objectives, what trial `number` is to be good at."""
        if objectives == 1:
            return None
        weights = _weights(number % (4 * objectives), objectives)
        settled = 1 << max(self._complete.bit_length() - 1, 0)  # 1, 2, 4, .. so it changes rarely
        values = [t.values for t in self.finished if t.state is TrialState.COMPLETE]
        finite = [v for v in values if v and all(map(math.isfinite, v))][:settled]
        return _Preference(weights, tuple(map(tuple, finite)))


@dataclass(frozen=True, slots=True)
class _Preference:
    """One way to trade objectives off: `weights` sum to 1; `seen` fixes the units, m x k."""

    weights: tuple[float, ...]
    seen: tuple[tuple[float, ...], ...]

    def loss(self, values: Sequence[float], signs: Sequence[float]) -> float:
        """Augmented Tchebycheff scalarization of `values`, to be minimized."""
        turned = np.asarray(signs) * np.asarray(values)
        seen = np.asarray(signs) * np.array(self.seen).reshape(-1, len(signs))
        if len(seen):
            ideal = seen.min(axis=0)
            width = np.median(seen, axis=0) - ideal
            width = np.where(width > 0, width, seen.max(axis=0) - ideal)
            turned = (turned - ideal) / np.where(width > 0, width, 1.0)
        weighted = np.asarray(self.weights) * turned
        return float(weighted.max() + _AUGMENTED * weighted.sum())


def _weights(index: int, count: int) -> tuple[float, ...]:
    """The `index`-th preference: gaps of sorted low-discrepancy points, even on the simplex."""
    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)
    points = sorted(_halton(index + 1, primes[axis % len(primes)]) for axis in range(count - 1))
    return tuple(float(gap) for gap in np.diff([0.0, *points, 1.0]))


def _halton(index: int, base: int) -> float:
    value, denominator = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        denominator *= base
        value += digit / denominator
    return value


@dataclass(frozen=True, slots=True)
class _Run:
    """What one trial teaches: a run at one fidelity, None for the whole one."""

    fidelity: int | None
    loss: float | None
    cost: float | None
    seconds: float | None
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class _Reading:
    """How trials of one study are read; `top` is the last step of a whole run, if it matters."""

    cost: str | None
    directions: tuple[StudyDirection, ...]
    retried: frozenset[int]
    preference: _Preference | None
    top: int | None

    @property
    def engine_direction(self) -> Any:
        single = len(self.directions) == 1
        return "maximize" if single and self._signs[0] < 0 else "minimize"

    @property
    def _signs(self) -> list[float]:
        return [-1.0 if d is StudyDirection.MAXIMIZE else 1.0 for d in self.directions]

    def runs(self, trial: FrozenTrial) -> list[_Run]:
        """The runs of a finished trial, the whole one last."""
        seconds = None if trial.duration is None else trial.duration.total_seconds()
        cost = _amount(trial.user_attrs.get(self.cost)) if self.cost else None
        if cost is None and self.cost in (None, SECONDS):
            cost = seconds
        finite = {s: v for s, v in trial.intermediate_values.items() if math.isfinite(v)}
        loss, cause, fidelity = self._outcome(trial, finite)
        whole = _Run(fidelity, loss if cause is None else None, cost, seconds, cause)
        if cause is None and loss is None:
            return []
        if cause is not None or self.top is None or trial.state is not TrialState.COMPLETE:
            return [whole]
        shorter: list[_Run] = []
        for level in Ladder.geometric(1, self.top, _RUNG).levels[:-1]:
            step = min((s for s in finite if level <= s < self.top), default=None)
            if step is not None and all(run.fidelity != step for run in shorter):
                shorter.append(_Run(step, finite[step], None, None, None))
        return [*shorter, whole]

    def _outcome(
        self, trial: FrozenTrial, finite: Mapping[int, float]
    ) -> tuple[float | None, Cause | None, int | None]:
        """Loss, or cause of failure, and the fidelity if it is not the whole one."""
        if trial.number in self.retried:
            return None, Cause.LOST, None
        if trial.state is TrialState.FAIL:
            return None, _told_cause(trial), None
        if any(value > 0 for value in trial.constraints.values()):
            return None, Cause.ERROR, None
        if trial.state is TrialState.COMPLETE:
            assert trial.values is not None
            if not all(map(math.isfinite, trial.values)):
                return None, Cause.DIVERGED, None
            if self.preference is not None:
                return self.preference.loss(trial.values, self._signs), None, None
            return trial.values[0], None, None
        last = trial.last_step
        if last is None:
            return None, None, None
        if last not in finite:
            return None, Cause.DIVERGED, None
        return finite[last], None, min(max(last, 1), self.top or 1)


def _amount(value: Any) -> float | None:
    """A cost that was written down, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _told_cause(trial: FrozenTrial) -> Cause:
    told = trial.user_attrs.get(_FAILED)
    return Cause(told) if told in [cause.value for cause in Cause] else Cause.ERROR


class _View:
    """The part of a study's trials that one engine sees: the parameters it searches together."""

    def __init__(self, columns: dict[str, ParameterAdapter], fidelity: Fidelity | None) -> None:
        self.columns = columns
        self._fidelity = fidelity
        self._top: int | None = None
        self.space = SearchSpace({n: c.parameter for n, c in columns.items()})

    def with_fidelity(self, top: int | None) -> _View:
        """The same with the step as a fidelity, if runs of several lengths are to be compared."""
        if top is None:
            return self
        view = _View(self.columns, self._fidelity)
        view._top = top
        view.space = SearchSpace({**self.space, _FIDELITY: Fidelity(1, top)})
        return view

    def key(self) -> tuple[Any, ...]:
        """Equal for views of equal spaces."""
        return tuple((n, repr(c.distribution), repr(c.parameter)) for n, c in self.columns.items())

    def to_engine(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as the engine has them, of the parameters that are in view."""
        return {n: c.to_engine(values[n]) for n, c in self.columns.items() if n in values}

    def outward(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """An engine's config as Optuna's values."""
        return {n: c.outward(config[n]) for n, c in self.columns.items() if n in config}

    def to_json(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's values as any storage holds them: choices may be objects, so by their index."""
        inner: dict[str, float] = {}
        declared: dict[str, Any] = {}
        for name, value in params.items():
            distribution = self.columns[name].distribution
            if distribution is None:
                declared[name] = value
            else:
                inner[name] = distribution.to_internal_repr(value)
        return {"inner": inner, "declared": declared}

    def proposed(self, trial: FrozenTrial) -> dict[str, Any]:
        """What a sampler of this kind, perhaps elsewhere, proposed for a trial."""
        asked = _read(trial.system_attrs, _ASKED) or {"inner": {}, "declared": {}}
        values: dict[str, Any] = {}
        for name, column in self.columns.items():
            if column.distribution is None:
                if name in asked["declared"]:
                    values[name] = asked["declared"][name]
            elif name in asked["inner"]:
                inner = asked["inner"][name]
                if isinstance(column.distribution, CategoricalDistribution):
                    values[name] = column.distribution.choices[int(inner)]
                else:
                    values[name] = column.distribution.to_external_repr(inner)
        return values

    def config(self, trial: FrozenTrial, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The engine's config of a trial with `values`; None if some of it is not known."""
        merged = dict(values)
        for name, column in self.columns.items():
            if isinstance(column.parameter, Scale) and name not in merged:
                size = _amount(trial.user_attrs.get(name))
                if size:
                    merged[name] = size
        config = self.to_engine(merged)
        if self._top is not None:
            config[_FIDELITY] = self._top
        try:
            active = self.space.active(config)
        except SpaceError:  # a parent is missing, or has a value it had in another range only
            return None
        if any(name not in config for name in active):
            return None
        return {name: config[name] for name in active}


class _Mirror:
    """An engine whose log follows a study.

    `sized`: its scales are set by the user, trial by trial. Then every ask serves the size at hand
    and none walks the front, as every `FRONT_EVERY`-th index does.
    """

    def __init__(self, view: _View, engine: Optimizer, *, sized: bool) -> None:
        self.view = view
        self.pending: dict[int, Trial] = {}  # by number in the study
        self.exhausted = False  # whether the last proposal was made before
        self._engine = engine
        self._stride = FRONT_EVERY if sized else 1
        self._sized = sized
        self._learned = 0

    def sync(
        self,
        finished: Sequence[FrozenTrial],
        running: Sequence[FrozenTrial],
        reading: _Reading,
        *,
        asking: int,
    ) -> None:
        """Take in what has ended, and what runs now beside trial `asking`."""
        for trial in finished[self._learned :]:
            self._learn(trial, reading)
        self._learned = len(finished)
        there = {trial.number for trial in running} - {asking}
        for number in set(self.pending) - there:
            self._drop(number)
        self._wait_for([trial for trial in running if trial.number != asking])

    def met(self, params: dict[str, Any], others: Sequence[FrozenTrial], *, beside: int) -> bool:
        """Whether another trial got `params` while they were being chosen for trial `beside`.

        Both workers write before they look, so at least one of two sees the other. A trial that was
        known to have them does not count: then the engine means to repeat it.
        """
        for other in others:
            theirs, known = self._config(other), self.pending.get(other.number)
            if other.number == beside or theirs is None:
                continue
            if (known is None or known.config != theirs) and self.view.outward(theirs) == params:
                return True
        return False

    def _config(self, trial: FrozenTrial) -> dict[str, Any] | None:
        """What a trial has, or will have; None if some of it is not known."""
        settled = trial.system_attrs.get("fixed_params", {})
        return self.view.config(trial, {**self.view.proposed(trial), **settled, **trial.params})

    def _wait_for(self, running: Sequence[FrozenTrial]) -> None:
        """Make what is known of running trials pending."""
        for trial in running:
            config = self._config(trial)
            before = self.pending.get(trial.number)
            if config is None or (before is not None and before.config == config):
                continue
            if before is not None:
                self._drop(trial.number)
            self.pending[trial.number] = self._adopt(trial.number, config)

    def propose(
        self, number: int, given: Mapping[str, Any], attempt: int, *, seed: int
    ) -> tuple[dict[str, Any], Prediction]:
        """A config for trial `number` that holds what is `given`, and the engine's belief.

        Random choices are keyed by the number, which Optuna gives once, and by the `attempt`:
        workers of one seed that look at the same moment see the same log.
        """
        among = None
        if self._sized:
            self._engine.target = {name: given[name] for name in self._engine.space.scales}
        if given:
            rng = np.random.default_rng([seed, number, attempt, len(self._engine.log.observations)])
            among = self._around(given, rng)
        index = max(self._stride * (number - 1) + 1, 0) + attempt * self._stride * _APART
        proposal = self._engine.propose(among=among, index=index)
        self.exhausted = "was tried" in str(proposal.prediction.reason)
        return proposal.config, proposal.prediction

    def _around(self, given: Mapping[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
        """Configs that hold what is `given`, the rest spread over the space."""
        from scipy.stats import qmc

        encoder, space = self._engine.encoder, self._engine.space
        U = qmc.Sobol(len(encoder.lower), scramble=True, rng=rng).random(_POOL)
        configs = encoder.decode(encoder.from_unit(U, (encoder.lower, encoder.upper)))
        found: dict[Any, dict[str, Any]] = {}
        neutral = encoder.decode(encoder.center[None])[0]
        for config in configs:
            held = {**neutral, **config}
            for name in space.parents_first:  # values may switch others on and off
                if name in given:
                    held[name] = given[name]
            try:
                held = {n: held[n] for n in space.active(held)}
                held = space.canonical(held)
            except (SpaceError, KeyError):
                continue
            found.setdefault(space.key(held), held)
        return list(found.values()) or configs

    def _learn(self, trial: FrozenTrial, reading: _Reading) -> None:
        config = self.view.config(trial, trial.params)
        waiting = self.pending.pop(trial.number, None)
        runs = [] if config is None else reading.runs(trial)
        same = config is not None and waiting is not None and waiting.config == config
        if waiting is not None and not (same and runs):
            self._engine.tell(waiting, failed=Cause.LOST)
            waiting = None
        for run in runs:
            assert config is not None
            told = config if run.fidelity is None else config | {_FIDELITY: run.fidelity}
            if _FIDELITY in told and reading.top is None:
                del told[_FIDELITY]
            here = waiting if waiting is not None and told == config else None
            self._engine.tell(
                here or self._adopt(trial.number, told),
                run.loss,
                run.cost,
                failed=run.cause,
                seconds=run.seconds,
            )
            waiting = None if here is not None else waiting
        if waiting is not None:
            self._engine.tell(waiting, failed=Cause.LOST)

    def _adopt(self, number: int, config: dict[str, Any]) -> Trial:
        """A trial of the engine's for one of the study's."""
        trial = Trial(self._engine.log.next_number, config, self._stride * number, None)
        self._engine.add_pending(trial)
        return trial

    def _drop(self, number: int) -> None:
        self._engine.tell(self.pending.pop(number), failed=Cause.LOST)


def _fitted(value: Any, distribution: BaseDistribution) -> Any | None:
    """`value` as the distribution has it; None if it is not in it."""
    try:
        inner = distribution.to_internal_repr(value)
        if not distribution._contains(inner):
            return None
    except (ValueError, TypeError):
        return None
    return distribution.to_external_repr(inner)


def _write(study: Study, trial: FrozenTrial, key: str, value: dict[str, Any]) -> None:
    """Store a value as system attributes that are short enough for every database."""
    text = json.dumps(value)
    chunks = [text[i : i + _LONGEST_VALUE] for i in range(0, len(text), _LONGEST_VALUE)]
    for index, chunk in enumerate(chunks):
        study._storage.set_trial_system_attr(trial._trial_id, f"{key}:{index}", chunk)
    study._storage.set_trial_system_attr(trial._trial_id, key, len(chunks))


def _read(attributes: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """What `_write` stored; None if it is not there, whole."""
    count = attributes.get(key)
    if count is None:
        return None
    try:
        value: dict[str, Any] = json.loads("".join(attributes[f"{key}:{i}"] for i in range(count)))
    except (KeyError, ValueError):
        return None  # another worker is just writing it anew
    return value
