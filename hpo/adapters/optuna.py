"""The engine as a guest of Optuna: a sampler and a pruner for `study.optimize`.

    study = optuna.create_study(
        sampler=ScaleTuneSampler({"params": Scale(1e5, 1e7, axis=Axis.PARAMS)}, cost="flops"),
        pruner=ScaleTunePruner(ASHA(kind=Kind.STOPPING), Fidelity(1, 81)),
    )
    study.optimize(objective, n_trials=100)

The storage, its heartbeat and its dashboards stay Optuna's; the sampler keeps nothing but caches.
What it proposed for a trial, and what it believed of it, is one system attribute of that trial
(`scaletune:asked`, in chunks), so that other workers see a running trial's parameters before they
are suggested.

How a study becomes the engine's log:

=====================================  ============================================================
complete trial                         completed run at full fidelity
its intermediate values                runs of lower fidelity, once trials have been pruned
pruned trial                           completed run at the fidelity of its last finite value
value or last report infinite or NaN   failed: diverged
a constraint above 0                   failed: the search learns where constraints hold
failed trial                           failed; user attribute "failed" may say oom, timeout, ...;
                                       lost, which teaches nothing, if Optuna retried it
running trial                          pending
=====================================  ============================================================
"""

from __future__ import annotations

import json
import logging
import math
import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.adapters.define_by_run import Suggested, Witness, columns
from hpo.encoding import Direction, Encoder
from hpo.errors import SpaceError
from hpo.observations import Belief, Cause, Observation, Place, Report, Status, Trial, TrialLog
from hpo.optimizer import Optimizer, check_surrogate
from hpo.priors import Rule, check_priors, drift_prior
from hpo.schedulers import ASHA, Decision, Kind, Schedule, Scheduler, Start, StoppingRule
from hpo.schedulers.levels import Ladder
from hpo.schedulers.median import MedianStopping
from hpo.search import FRONT_EVERY
from hpo.space import Categorical, Fidelity, Float, Parameter, Scale, SearchSpace

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["ScaleTunePruner", "ScaleTuneSampler", "belief_of"]

SECONDS = "seconds"

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
_AUGMENTED = 0.05  # share of the plain sum in the Tchebycheff scalarisation (Knowles 2006)

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


class ScaleTuneSampler(_PerStudy["_Known"], BaseSampler):
    """Samples all parameters of a trial together, from a model of loss, cost and failure.

    The search space is learned from what the objective suggests, conditions included: a parameter
    that is suggested only under some choices of another, or from some count on, is modelled so.
    What cannot be foreseen, such as everything in a first trial, is drawn at random, and said in
    the log once.

    Several objectives are searched for one scalarisation at a time: each trial is to do well by an
    augmented Tchebycheff norm whose weights follow a low-discrepancy sequence (ParEGO, Knowles,
    IEEE TEC 2006). Of constraints the sign is used, not how far above 0 they are.

    Args:
        space: what is known of some parameters beforehand: their role, center, log-odds scale or
            condition, and which are scale axes. A `Scale` that is not suggested is read from a
            user attribute of its name; set it before the first `suggest` and the sampler proposes
            for that scale. A `Fidelity` gives the range of steps that are reported; without one it
            reaches to the last step of any complete trial.
        cost: unit of the costs, and the user attribute that holds a trial's; "seconds" are measured
            where there is no such attribute. Naming one makes the search cost-aware.
        target: scale values the user will finally train at.
        priors: transfer rules (:mod:`hpo.priors`); their roles must be in `space`.
        surrogate: who models the loss, as for `hpo.optimize`.
        seed: of every random choice; None draws one.

    Raises:
        SpaceError: for a space, target or rule that does not fit.
        ValueError: for a negative seed or an unknown surrogate.
    """

    def __init__(
        self,
        space: Mapping[str, Parameter] | None = None,
        *,
        cost: str | None = None,
        target: Mapping[str, float] | None = None,
        priors: Sequence[Rule] | None = None,
        surrogate: str = "auto",
        seed: int | None = None,
    ) -> None:
        declared = dict(SearchSpace(space)) if space else {}
        if declared:
            known = SearchSpace(declared)
            drift_prior(check_priors(priors), known, Encoder(known).columns)
        elif priors or target:
            raise SpaceError("`target` and `priors` need `space`; declare the scale axes and roles")
        # Without anything declared, one parameter stands for all: the choice is what is checked.
        check_surrogate(surrogate, SearchSpace(declared or {"x": Float(0, 1)}))
        if seed is not None and seed < 0:
            raise ValueError(f"`seed` must be >= 0 or None, got {seed}")
        fidelities = [p for p in declared.values() if isinstance(p, Fidelity)]
        self._fidelity = fidelities[0] if fidelities else None
        self._declared = {n: p for n, p in declared.items() if not isinstance(p, Fidelity)}
        self._cost = cost
        self._target = target
        self._priors = priors
        self._surrogate = surrogate
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._forget()

    def reseed_rng(self) -> None:
        """Nothing to do: random choices are keyed by the seed and the trial's number."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Everything that has been suggested so far and whose presence is understood."""
        with self._lock:
            witness = self._known(study).witness
            return {
                name: witness.distributions[name]
                for name in witness.space()
                if not witness.distributions[name].single()
            }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for the parameters of `search_space` that are active together."""
        with self._lock:
            known = self._known(study)
            witness = known.witness
            beside = {
                name: parameter
                for name, parameter in self._declared.items()
                if name not in witness.distributions
            }
            declared = {n: p for n, p in self._declared.items() if n in search_space} | beside
            if not search_space and not beside:
                return {}
            view = _View(columns(search_space, witness.space(), declared), self._fidelity)
            given = view.inward(self._settled(trial))
            sizes = self._sizes(trial, view, known)
            given |= sizes
            for attempt in range(1 + _REASKS):
                mirror = self._mirror(study, known, view, trial.number, sizes)
                config, belief = mirror.propose(trial.number, given, attempt, seed=self._seed)
                params = mirror.view.outward(config)
                asked = mirror.view.to_json(params)
                _write(study, trial, _ASKED, asked | {"belief": belief.to_json()})
                known.proposals[trial.number] = params
                news = known.take_in(study.get_trials(deepcopy=False))
                if mirror.exhausted or not mirror.met(params, news, beside=trial.number):
                    break
            return {name: params[name] for name in search_space if name in params}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A declared parameter as it was proposed; any other one at random."""
        with self._lock:
            known = self._remembered(study)
            proposed = known.proposals.get(trial.number, {})
            if param_name in proposed:
                value = _fitted(proposed[param_name], param_distribution)
                if value is not None:
                    return value
            if known.witness.trials and param_name not in known.announced:
                known.announced.add(param_name)
                if not param_distribution.single():
                    _log.warning(
                        "%r is drawn at random in trial %d: its range or condition could not be "
                        "foreseen from earlier trials; declare it with space={%r: ...}",
                        param_name,
                        trial.number,
                        param_name,
                    )
        key = [self._seed, trial.number, zlib.crc32(param_name.encode())]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def _known(self, study: Study) -> _Known:
        """What was learned of `study` so far, after taking in what is new in it."""
        known = self._remembered(study)
        known.take_in(study.get_trials(deepcopy=False))
        return known

    def _remembered(self, study: Study) -> _Known:
        """What was learned of `study` at the last look."""
        storage, identity = study._storage, study._study_id  # samplers are given no other way
        return self._studies.setdefault(storage, {}).setdefault(identity, _Known())

    def _mirror(
        self, study: Study, known: _Known, view: _View, number: int, sizes: Mapping[str, float]
    ) -> _Mirror:
        """The engine for `view` with all that is known, and running trials pending.

        `sizes`: of scales that are not for the sampler to choose.
        """
        reading = _Reading(
            cost=self._cost,
            directions=tuple(study.directions),
            retried=frozenset(known.retried),
            preference=known.preference(number, len(study.directions)),
            top=known.top(self._fidelity),
        )
        view = view.with_fidelity(reading.top)
        sized = bool(sizes) and set(sizes) == set(view.space.scales)
        key = (view.key(), reading.preference, reading.top, sized)
        mirror = known.mirrors.get(key)
        if mirror is None:
            engine = Optimizer(
                view.space,
                direction=reading.engine_direction,
                cost=self._cost,
                target=sizes if sized else self._target,
                priors=self._priors,
                surrogate=self._surrogate,
                seed=self._seed,
            )
            mirror = known.mirrors[key] = _Mirror(view, engine, sized=sized)
            while len(known.mirrors) > _ENGINES:
                known.mirrors.popitem(last=False)
        known.mirrors.move_to_end(key)
        mirror.sync(known.finished, known.running, reading, asking=number)
        return mirror

    def _settled(self, trial: FrozenTrial) -> dict[str, Any]:
        """Values that were enqueued or suggested before the sampler is asked."""
        return {**trial.system_attrs.get("fixed_params", {}), **trial.params}

    def _sizes(self, trial: FrozenTrial, view: _View, known: _Known) -> dict[str, float]:
        """Scales that are user attributes: the trial's, else those of the last trial."""
        sizes = {}
        for name, column in view.columns.items():
            if column.distribution is not None or not isinstance(column.parameter, Scale):
                continue
            size = _amount(trial.user_attrs.get(name, known.sizes.get(name)))
            if size:
                low, high = column.parameter.limits
                sizes[name] = min(max(size, low), high)
        return sizes


class ScaleTunePruner(_PerStudy["_Race"], BasePruner):
    """Stops trials by the rule of a scheduler.

    Optuna cannot pause a trial and go on with it later, so only schedulers that stop for good can
    be used: `ASHA(kind=Kind.STOPPING)`, `MedianStopping()`, or a `StoppingRule` of your own.

    A NaN or infinite value ends a trial at once, whatever the rule.

    Args:
        scheduler: the rule.
        fidelity: range of the steps that are reported, which gives ASHA its rungs.

    Raises:
        SpaceError: for a scheduler that needs a fidelity or its own driver.
    """

    def __init__(self, scheduler: Scheduler, fidelity: Fidelity | None = None) -> None:
        stops = isinstance(scheduler, StoppingRule | MedianStopping) or (
            isinstance(scheduler, ASHA) and scheduler.kind is Kind.STOPPING
        )
        if not stops:
            raise SpaceError(
                f"`scheduler` must only stop trials, for Optuna cannot go on with a paused one, got"
                f" {scheduler!r}; use ASHA(kind=Kind.STOPPING) or MedianStopping(), or run it with "
                "hpo.optimize(..., scheduler=...)"
            )
        self._scheduler = scheduler
        self._space = SearchSpace({_FIDELITY: fidelity or Categorical([0])})
        scheduler.begin(self._space)
        self._forget()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether `trial` should end after what it reported."""
        last = trial.last_step
        if last is None:
            return False
        if not math.isfinite(trial.intermediate_values[last]):
            return True
        with self._lock:
            races = self._studies.setdefault(study._storage, {})
            race = races.get(study._study_id)
            if race is None:
                direction: Direction = (
                    "maximize" if study.direction is StudyDirection.MAXIMIZE else "minimize"
                )
                schedule = self._scheduler.begin(self._space, direction=direction)
                race = races[study._study_id] = _Race(schedule, self._space)
            others = study.get_trials(deepcopy=False)
            race.follow([other for other in others if other.number != trial.number])
            place = race.enter(trial)
            if place is not None:
                _write(study, trial, _PLACE, {"place": place.to_json()})
            return race.ends(trial)


class _Race:
    """A schedule and its log, kept up with one study."""

    def __init__(self, schedule: Schedule, space: SearchSpace) -> None:
        self._schedule = schedule
        self._log = TrialLog()
        top = space[_FIDELITY]
        self._config = {_FIDELITY: top.high if isinstance(top, Fidelity) else 0}
        self._entered: set[int] = set()
        self._judged: dict[int, int] = {}  # last step that was judged

    def follow(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what other trials have reported and how they ended."""
        for trial in trials:
            if not trial.intermediate_values:
                continue
            told = self._log.observation(trial.number)
            if told is not None:
                continue
            self.enter(trial)
            for step in sorted(trial.intermediate_values):
                self._log.report(trial.number, Report(step, trial.intermediate_values[step]))
            if trial.state.is_finished():
                self._log.tell(self._ended(trial))

    def enter(self, trial: FrozenTrial) -> Place | None:
        """Give a trial its place, unless it has one; returns a place that is new."""
        if trial.number in self._entered:
            return None
        self._entered.add(trial.number)
        stored = _read(trial.system_attrs, _PLACE)
        if stored is not None:
            place: Place | None = Place.from_json(stored["place"])
            new = None
        else:
            start = self._schedule.next(self._log)
            assert isinstance(start, Start)  # a rule that only stops never does anything else
            place = new = start.place
        self._log.add(Trial(trial.number, self._config, trial.number, None, place=place))
        return new

    def ends(self, trial: FrozenTrial) -> bool:
        """Whether any report that was not judged yet ends the trial."""
        entered = self._log.trial(trial.number)
        before = self._judged.get(trial.number, -1)
        for step in sorted(s for s in trial.intermediate_values if s > before):
            report = Report(step, trial.intermediate_values[step])
            self._log.report(trial.number, report)
            if self._schedule.on_report(entered, report, self._log) is not Decision.CONTINUE:
                return True
            self._judged[trial.number] = step
        return False

    def _ended(self, trial: FrozenTrial) -> Observation:
        loss = trial.value if trial.state is TrialState.COMPLETE else None
        if loss is not None and not math.isfinite(loss):
            loss = None
        done = trial.state is TrialState.PRUNED or loss is not None
        status = Status.STOPPED if trial.state is TrialState.PRUNED else Status.COMPLETED
        return Observation(
            number=trial.number,
            config=self._config,
            loss=loss,
            cost=None,
            status=status if done else Status.FAILED,
            cause=None if done else Cause.ERROR,
            order=self._log.next_order,
            ask_index=trial.number,
        )


def belief_of(trial: FrozenTrial) -> Belief | None:
    """What the sampler believed of a trial when it proposed it; None if it did not."""
    asked = _read(trial.system_attrs, _ASKED)
    return None if asked is None else Belief.from_json(asked["belief"])


# --- the log --------------------------------------------------------------------------------------


class _Known:
    """What one study has said so far: its finished trials in the order in which they ended."""

    def __init__(self) -> None:
        self.witness = Witness()
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
        """Augmented Tchebycheff scalarisation of `values`, to be minimised."""
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
        for level in Ladder(1, self.top, _RUNG).levels[:-1]:
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


# --- the engine -----------------------------------------------------------------------------------


class _View:
    """The part of a study's trials that one engine sees: the parameters it searches together."""

    def __init__(self, columns: dict[str, Suggested], fidelity: Fidelity | None) -> None:
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

    def inward(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as the engine has them, of the parameters that are in view."""
        return {n: c.inward(values[n]) for n, c in self.columns.items() if n in values}

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
        config = self.inward(merged)
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
    ) -> tuple[dict[str, Any], Belief]:
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
        self.exhausted = "was tried" in proposal.belief.reason
        return proposal.config, proposal.belief

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
        self._engine.adopt(trial)
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
