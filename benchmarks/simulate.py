"""Simulate a study on a recorded task under a virtual clock: 64 workers take no real time.

A job occupies one of n workers for a time equal to its cost (in any unit), so the method gets its
results in the order of a real cluster and must ask while other jobs still run. Only the method's
own ask and tell take real time, which is measured.

Notation
--------
run cost   cost of one config from scratch up to its level, in `Task.unit`
cost       total of the study so far; a job that resumes pays only the increment, unless the task's
           levels cannot be continued (`Levels.continues`), when it pays for the whole run
effort     the same in full trainings: a job from level a to b pays (b - a) / high, or b / high if
           levels cannot be continued; start points are free in it, as the HPO-B protocol does not
           count them
time       the virtual clock at which a job ended, in the unit of cost
incumbent  loss of the full-fidelity run whose observed loss is lowest; without its noise if the
           task knows it, so that a lucky draw does not count
"""

from __future__ import annotations

import heapq
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.base import Job, Peer, PoolRuns
from benchmarks.task import Evaluation, Task
from hpo import Categorical, Fidelity, Float, Int, Scale, SearchSpace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpo.space import Parameter

__all__ = [
    "Ending",
    "StudyLimits",
    "Outcome",
    "Pool",
    "ReplayError",
    "draw",
    "full_cost",
    "simulate",
]

_ROUNDING = 1e-9  # relative: efforts are sums of fractions


class Ending(Enum):
    """The reason why a study ended."""

    TRIALS = "trials"  # the wanted number of full trainings was spent
    COST = "cost"  # the wanted cost was spent
    SECONDS = "seconds"  # the method itself took too long: stopped early
    METHOD = "method"  # the method had nothing more to ask, or the pool was used up


class ReplayError(RuntimeError):
    """The method asked for another job than in the recorded run, although told the same results."""


@dataclass(frozen=True, slots=True)
class StudyLimits:
    """Limits of a study: `trials` full trainings, `cost` units, `seconds` of asks and tells."""

    trials: float | None = None
    cost: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.trials is None and self.cost is None:
            raise ValueError("one of `trials` and `cost` must be given, got None for both; give it")
        for name in ("trials", "cost", "seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be > 0, got {value!r}; None sets no limit")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished job; the module's notation defines the other attributes.

    Attributes:
        trial: position in the order in which jobs end; start points count down to -1, so trial 0
            is the method's first.
        number: number that the method gave to the config.
        level: level of the job; None on tasks without levels.
        loss: observed loss, None if the job failed.
        status: "ok" or the kind of failure.
    """

    trial: int
    number: int
    level: int | None
    loss: float | None
    incumbent: float | None
    run_cost: float
    cost: float
    effort: float
    time: float
    ask_s: float
    tell_s: float
    status: str

    def agrees(self, other: Outcome) -> bool:
        """Return whether both record the same event; the method's own time may differ."""
        return replace(self, ask_s=0.0, tell_s=0.0) == replace(other, ask_s=0.0, tell_s=0.0)


class Pool:
    """The members of a finite task that were not evaluated yet.

    A method that can choose among them (`PoolRuns`) is asked to. Any other that proposes a config
    that is no member gets the nearest one instead: by squared distance over
    numbers scaled to [0, 1] in the parameter's own transform (log, logit, rank), plus 1 for each
    category that differs and each parameter active in one of the two only.
    """

    def __init__(self, space: SearchSpace, members: Sequence[Mapping[str, Any]]) -> None:
        self._space = space
        self._members = [dict(member) for member in members]
        self._rows = np.array([self._row(member) for member in self._members])
        self._is_code = np.array([_is_code(space[name]) for name in space])
        self._free = np.ones(len(self._members), dtype=bool)

    def __len__(self) -> int:
        return int(self._free.sum())

    @property
    def free(self) -> list[dict[str, Any]]:
        """Members that were not evaluated yet, in their order."""
        return [self._members[i] for i in np.flatnonzero(self._free)]

    def take(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Remove and return the nearest member (the first of equals).

        Raises:
            LookupError: if no member is left.
        """
        if not len(self):
            raise LookupError("every member of the pool was evaluated; ask no more")
        apart = self._rows - self._row(config)
        one_sided = np.isnan(self._rows) != np.isnan(self._row(config))
        square = np.where(self._is_code, apart != 0, apart**2)
        square = np.where(one_sided, 1.0, np.where(np.isnan(apart), 0.0, square))
        distance = np.where(self._free, square.sum(axis=1), np.inf)
        best = int(np.argmin(distance))
        self._free[best] = False
        return dict(self._members[best])

    def _row(self, config: Mapping[str, Any]) -> NDArray[np.float64]:
        """`(d,)`: numbers in [0, 1], categories as codes, NaN where inactive."""
        return np.array(
            [_unit(self._space[n], config[n]) if n in config else math.nan for n in self._space]
        )


def simulate(
    task: Task,
    peer: Peer,
    *,
    seed: int,
    limits: StudyLimits,
    workers: int = 1,
    starts: Sequence[Mapping[str, Any]] = (),
    recorded: Sequence[Outcome] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Outcome | Ending]:
    """Run `peer` on `task`; yields each new outcome after it was told, and at last the ending.

    Args:
        task: task to tune.
        peer: method to run.
        seed: seed of the task's noise, which is equal for equal (seed, task, config number), so
            that methods get equal noise.
        limits: when the study ends.
        workers: number of jobs running at once.
        starts: configs evaluated and told first, under negative numbers, which no method gives.
        recorded: outcomes of an interrupted run of the same study. The method is asked and told
            again through all of them; they are not yielded again, and their recorded times count.

    Raises:
        ReplayError: if the method does not repeat the recorded jobs.
    """
    if workers < 1:
        raise ValueError(f"`workers` must be >= 1, got {workers!r}; 1 runs one job at a time")
    study = _Study(task, peer, seed, clock, list(recorded))
    for index, config in enumerate(starts):
        study.launch(Job(index - len(starts), dict(config)), 0.0)
        yield from study.finish_next()
    while True:
        ending = study.reached(limits)
        if ending is None and study.running < workers:
            if study.ask():
                continue
            ending = Ending.METHOD if not study.running else None
        if study.running:
            yield from study.finish_next()
        elif ending is not None:
            if study.left:
                raise ReplayError(f"{study.left} recorded jobs were not asked for again")
            yield ending
            return


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    evaluation: Evaluation
    price: float
    effort: float
    ask_s: float


class _Study:
    """The state of one simulated study."""

    def __init__(
        self,
        task: Task,
        peer: Peer,
        seed: int,
        clock: Callable[[], float],
        recorded: list[Outcome],
    ) -> None:
        self._task, self._peer, self._seed, self._clock = task, peer, seed, clock
        self._recorded = recorded
        self._pool = None if task.pool is None else Pool(task.space, task.pool)
        self._configs: dict[int, dict[str, Any]] = {}
        self._paid: dict[int, tuple[float, int]] = {}  # by config: run cost and level so far
        self._queue: list[tuple[float, int, _Running]] = []
        self._launched = self._finished = 0
        self._asked_effort = self._asked_cost = 0.0
        self._cost = self._effort = self._seconds = self._now = 0.0
        self._jobs = 0  # finished ones that the method asked for
        self._best: tuple[float, float] | None = None  # observed, true

    @property
    def running(self) -> int:
        return len(self._queue)

    @property
    def left(self) -> int:
        """Recorded outcomes that were not replayed yet."""
        return max(len(self._recorded) - self._finished, 0)

    def reached(self, limits: StudyLimits) -> Ending | None:
        """The limit that was reached, if any."""
        if limits.trials is not None and self._asked_effort >= limits.trials * (1 - _ROUNDING):
            return Ending.TRIALS
        if limits.cost is not None and self._asked_cost >= limits.cost * (1 - _ROUNDING):
            return Ending.COST
        if limits.seconds is not None and self._seconds >= limits.seconds and not self.left:
            return Ending.SECONDS
        return None

    def ask(self) -> bool:
        """Ask the method and start its job; False if it has none at the moment."""
        used_up = self._pool is not None and not self._pool
        if used_up and self._task.levels is None:
            return False
        start = self._clock()
        among = self._pool is not None and self._task.levels is None
        if among and isinstance(self._peer, PoolRuns):
            assert self._pool is not None
            job: Job | None = self._peer.ask_among(self._pool.free)
        else:
            job = self._peer.ask()
        seconds = self._clock() - start
        # Runs of a used-up pool can still continue to higher levels; a new config cannot start.
        if job is None or (used_up and job.number not in self._configs):
            # There is no row to put it on, but the method did take the time.
            self._seconds += seconds
            return False
        self.launch(job, seconds)
        return True

    def launch(self, job: Job, ask_s: float) -> None:
        """Start `job`; a negative number means a start point."""
        job = replace(job, config=self._config(job))
        rng = np.random.default_rng(
            [self._seed, zlib.crc32(self._task.name.encode()), job.number % 2**32]
        )
        evaluation = self._task.evaluate(job.config, job.level, rng)
        levels = self._task.levels
        level = 1 if levels is None else levels.check(job.level)
        goes_on = job.resumes and levels is not None and levels.continues
        paid, paid_level = self._paid.get(job.number, (0.0, 0)) if goes_on else (0.0, 0)
        price = max(evaluation.cost - paid, 0.0)
        share = (level - paid_level) / (1 if levels is None else levels.high)
        effort = share if job.number >= 0 else 0.0
        self._paid[job.number] = (evaluation.cost, level)
        self._asked_effort += effort
        self._asked_cost += price
        running = _Running(job, evaluation, price, effort, ask_s)
        heapq.heappush(self._queue, (self._now + price, self._launched, running))
        self._launched += 1

    def finish_next(self) -> Iterator[Outcome]:
        """Move the clock to the next job that ends and tell it; yields it unless recorded."""
        self._now, _, ended = heapq.heappop(self._queue)
        start = self._clock()
        self._peer.tell(ended.job, ended.evaluation)
        tell_s = self._clock() - start
        outcome = self._outcome(ended, tell_s)
        index = self._finished
        self._finished += 1
        if index < len(self._recorded):
            if not outcome.agrees(self._recorded[index]):
                raise ReplayError(
                    f"job {index} was recorded as {self._recorded[index]}, but the method's replay"
                    f" gives {outcome}; start the study again"
                )
            outcome = self._recorded[index]
        else:
            yield outcome
        self._seconds += outcome.ask_s + outcome.tell_s

    def _config(self, job: Job) -> dict[str, Any]:
        if self._pool is None:
            return dict(job.config)
        if job.number not in self._configs:
            self._configs[job.number] = self._pool.take(job.config)
        return self._configs[job.number]

    def _outcome(self, ended: _Running, tell_s: float) -> Outcome:
        job, evaluation, levels = ended.job, ended.evaluation, self._task.levels
        self._cost += ended.price
        self._effort += ended.effort
        is_full = levels is None or levels.check(job.level) == levels.high
        if is_full and evaluation.loss is not None:
            observed = evaluation.loss
            if self._best is None or observed < self._best[0]:
                true = evaluation.true_loss
                self._best = (observed, observed if true is None else true)
        trial = job.number
        if job.number >= 0:
            trial, self._jobs = self._jobs, self._jobs + 1
        return Outcome(
            trial=trial,
            number=job.number,
            level=None if levels is None else levels.check(job.level),
            loss=evaluation.loss,
            incumbent=None if self._best is None else self._best[1],
            run_cost=evaluation.cost,
            cost=self._cost,
            effort=self._effort,
            time=self._now,
            ask_s=ended.ask_s,
            tell_s=tell_s,
            status=evaluation.failed or "ok",
        )


def full_cost(task: Task, *, count: int = 32, seed: int = 0) -> float:
    """Return the mean cost of a full training over random configs, the unit of "20x" budgets."""
    rng = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    costs = []
    for _ in range(count):
        config = (
            draw(task.space, rng)
            if task.pool is None
            else dict(task.pool[int(rng.integers(len(task.pool)))])
        )
        costs.append(task.evaluate(config, None, rng).cost)
    return float(np.mean(costs))


def draw(space: SearchSpace, rng: np.random.Generator) -> dict[str, Any]:
    """Draw a config, uniform in each parameter's own transform; all must have bounds."""
    config: dict[str, Any] = {}
    for name in space.parents_first:
        when = getattr(space[name], "when", None)
        if when is None or (when[0] in config and config[when[0]] in when[1]):
            config[name] = _value(space[name], float(rng.random()))
    return space.canonical(config)


def _is_code(parameter: Parameter) -> bool:
    return isinstance(parameter, Categorical) and not parameter.ordered


def _unit(parameter: Parameter, value: Any) -> float:
    """`value` on [0, 1] in the parameter's own transform; the position of a category."""
    if isinstance(parameter, Categorical):
        position = parameter.index(value)
        steps = max(len(parameter.choices) - 1, 1) if parameter.ordered else 1
        return position / steps
    low, high = _limits(parameter)
    low, high, at = (_natural(parameter, v) for v in (low, high, value))
    return (at - low) / (high - low) if high > low else 0.0


def _value(parameter: Parameter, unit: float) -> Any:
    """A value of the parameter for `unit` in [0, 1), equally likely steps for integers."""
    if isinstance(parameter, Categorical):
        return parameter.choices[int(unit * len(parameter.choices))]
    low, high = _limits(parameter)
    if isinstance(parameter, Int) and not parameter.log:
        step = parameter.multiple_of
        return int(low) + step * int(unit * ((int(high) - int(low)) // step + 1))
    low, high = _natural(parameter, low), _natural(parameter, high)
    at = low + unit * (high - low)
    if isinstance(parameter, Float) and parameter.logit:
        return 1.0 / (1.0 + math.exp(-at))
    value = math.exp(at) if _is_log(parameter) else at
    return parameter.canonical(value)


def _limits(parameter: Float | Int | Scale | Fidelity) -> tuple[float, float]:
    if isinstance(parameter, Float | Int) and not parameter.bounded:
        raise ValueError(
            f"benchmark tasks need bounded parameters, got {parameter!r}; give `low` and `high`"
        )
    return parameter.limits


def _is_log(parameter: Float | Int | Scale | Fidelity) -> bool:
    return isinstance(parameter, Scale) or (isinstance(parameter, Float | Int) and parameter.log)


def _natural(parameter: Float | Int | Scale | Fidelity, value: float) -> float:
    if isinstance(parameter, Float) and parameter.logit:
        return math.log(value / (1.0 - value))
    return math.log(value) if _is_log(parameter) else float(value)
