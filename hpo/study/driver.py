"""The loop that drives a study: start trials, answer reports, write results, end cleanly.

A driver asks the optimizer, writes each trial before it starts, hands it to a runner, answers its
reports, and writes its result before the optimizer learns of it. Everything is kept in storage, so
a driver may die at any moment: the next one replays what is stored and takes over from there
(:mod:`hpo.study.takeover`). What a free worker does is decided by `StagedOptimizer`.

Ctrl-C, SIGTERM and SIGHUP end a study cleanly: what has finished is told, and what still runs is
released, to be continued by the next call.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.errors import StudyError, printable
from hpo.optimizer.ask_tell import Optimizer
from hpo.optimizer.multi_fidelity import (
    CloneTrial,
    ContinueTrial,
    ResumeTrial,
    StagedOptimizer,
    StartTrial,
)
from hpo.optimizer.result import Result
from hpo.scaling.claims import Priors
from hpo.schedulers import Decision, Scheduler
from hpo.space import Direction, DirectionName, SearchSpace
from hpo.study.callbacks import Callback, StudyState
from hpo.study.checkpoints import CheckpointStore, RunCheckpoints
from hpo.study.context import Consumed
from hpo.study.progress import continued
from hpo.study.runners import Job, Outcome, Runner, TrainFunction, priced
from hpo.study.storage import Asked, Entry, StudyStorage
from hpo.study.takeover import RETRIES, SharedStudy, completed, keep_unwritten, wanted_params
from hpo.trials import Cause, Observation, Report, Status, Trial
from hpo.trials.budget import Budget
from hpo.trials.failures import last_line, where_raised
from hpo.trials.other_tasks import OtherTask
from hpo.trials.pareto import Objectives
from hpo.trials.records import SECONDS

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_ALL_FAILED = 10  # first trials that all raised
_SAME_FAILURE = 3  # first trials that all raised the same exception at the same line
_MOST_SHOWN = 5  # numbers of trials that one warning names
_POLL = 0.5  # seconds between looks at the budget, the leases and Ctrl-C while trials run
_GRACE = 2.0  # seconds that running trials get to finish after Ctrl-C

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """The arguments of `optimize`, which explains each of them."""

    train_fn: TrainFunction
    space: SearchSpace
    budget: Budget
    cost: str | None
    direction: DirectionName
    target: Mapping[str, float] | None
    confirm: int
    scheduler: Scheduler | None
    surrogate: str
    priors: Priors
    workers: int
    runner: Runner | None
    warm_start: bool
    callbacks: tuple[Callback, ...]
    name: str | None
    storage: str | BaseStorage | None = field(repr=False)  # it may hold a password
    seed: int
    raise_on_error: bool = False
    other_tasks: tuple[OtherTask, ...] = field(default=(), repr=False)
    history: tuple[Observation, ...] = field(default=(), repr=False)
    objectives: Objectives | None = None

    def engine(self, driver: int) -> StagedOptimizer:
        """Return the optimizer of the driver with an index, with its scheduler at work.

        Nothing is read or written, so what cannot be searched is refused before any storage is
        opened.

        Raises:
            SpaceError: For a space, target, rule or scheduler that do not fit together.
            ValueError: For any other bad argument.
        """
        optimizer = Optimizer(
            self.space,
            direction=self.direction,
            cost=self.cost,
            budget=self.budget,
            target=self.target,
            priors=self.priors,
            surrogate=self.surrogate,
            seed=self.seed,
            driver=driver,
            other_tasks=self.other_tasks,
            **({} if self.objectives is None else self.objectives.to_json()),
        )
        return StagedOptimizer(optimizer, self.scheduler, seed=self.seed, driver=driver)


@dataclass(slots=True)
class _Running:
    """A trial of this driver that is running."""

    trial: Trial
    asked: Asked
    started: float


class Driver:
    """One `optimize` call at work; `drive` runs it to its end.

    Args:
        options: Arguments of the call.
        engine: Decides what a free worker does; its log is this driver's view of the study.
        storage: The study in storage.
        runner: Runs the trials; it is open.
        store: Checkpoint folders of the study.
        index: Index of this driver among those of the study.
        owner: Owner of the lease on that index.
    """

    def __init__(
        self,
        options: StudyOptions,
        engine: StagedOptimizer,
        storage: StudyStorage,
        runner: Runner,
        store: CheckpointStore,
        *,
        index: int,
        owner: str,
    ) -> None:
        optimizer = engine.optimizer
        self._options = options
        self._engine = engine
        self._optimizer = optimizer
        self._log = optimizer.log
        self._ledger = optimizer.ledger
        self._storage = storage
        self._runner = runner
        self._index = index
        self._owner = owner
        self._checkpoints = RunCheckpoints(
            store,
            optimizer.log,
            engine.schedule,
            fidelity=optimizer.space.fidelity,
            warm_start=options.warm_start,
            sign=Direction(options.direction).sign,
        )
        self._shared = SharedStudy(storage, optimizer, self._checkpoints, owner)
        self._state = StudyState(
            options.name,
            options.direction,
            options.cost,
            optimizer.target,
            options.workers,
            optimizer.log,
            optimizer.ledger,
        )
        self._running: dict[int, _Running] = {}
        self._unanswered: dict[int, Exception] = {}  # by trial: what went wrong at its report
        self._shown: set[str] = set()  # kinds of failures whose traceback was shown
        self._began = time.monotonic()
        self._interrupts = Interrupts()
        self._interrupted = False
        self._judged = -1, False  # completed runs, and whether they are good enough

    # --- the loop --------------------------------------------------------------------------------

    def drive(self) -> Result:
        """Search until the budget is used, confirm the recommendation, and return the result."""
        with self._interrupts:
            try:
                self._run()
            except BaseException as error:
                for callback in self._options.callbacks:
                    callback.on_error(self._state, error)
                raise
            finally:
                self._release()
            result = replace(
                self._optimizer.result(),
                study=self._storage.study,
                interrupted=self._interrupted,
            )
            for callback in self._options.callbacks:
                callback.on_finish(self._state, result)
            return result

    def _run(self) -> None:
        """Search and confirm, or end cleanly after an interrupt."""
        try:
            self._shared.sync_from_storage()
            self._announce()
            for callback in self._options.callbacks:
                callback.on_start(self._state)
            self._search()
            self._confirm(self._options.confirm)
        except KeyboardInterrupt:
            _log.warning("interrupted; the result so far is returned")
            self._stop_running()

    def _announce(self) -> None:
        """Say what earlier calls have left and what this one does; a log line that is shown."""
        self._spent_out()  # counts the seconds that others have driven
        found, seed = continued(self._state), self._storage.seed
        self._say_forbidden()
        if found is None:
            return
        if seed != self._options.seed:
            found += f"; it was started with seed={seed}, new trials draw from this call's"
        _log.warning("%s", found)

    def _say_forbidden(self) -> None:
        """Say which trials of the study `where` forbids, or that this call has none any more."""
        space, log = self._optimizer.space, self._log
        now = None if space.where is None else str(space.where)
        before = self._storage.exchange_where(now)
        if now is None:
            if before is not None:
                _log.warning(
                    "the study was searched with where=%s before; this call has none, so any config"
                    " of the space may be proposed: pass where= to keep it",
                    before,
                )
            return
        runs = {run.number: run.config for run in (*log.observations, *log.paused)}
        runs |= {trial.number: trial.config for trial in log.pending}
        forbidden = [number for number, config in runs.items() if not space.allows(config)]
        if forbidden:
            first = ", ".join(map(str, forbidden[:_MOST_SHOWN]))
            _log.warning(
                "where=%s forbids %d of the %d trials that the study holds (%s%s): they are learned"
                " from, and those under way go on; no new trial is like them",
                space.where,
                len(forbidden),
                len(runs),
                first,
                ", ..." if len(forbidden) > _MOST_SHOWN else "",
            )

    def _search(self) -> None:
        while True:
            self._interrupts.check()
            if self._shared.others_changed():
                self._shared.sync_from_storage()
            else:
                self._shared.learn_from_elsewhere()
            self._fill()
            if not self._running:
                self._shared.warn_of_enqueued()
                return
            self._collect()

    def _confirm(self, runs: int) -> None:
        """Train `runs` times with the recommendation, learning from each; never twice on resume."""
        done = 0
        for observation in reversed(self._log.observations):
            if observation.cause is Cause.LOST or observation.ask_index is None:
                continue
            if observation.number not in self._shared.confirming:
                break
            done += 1
        for _ in range(done, runs):
            if not any(o.status is Status.COMPLETED for o in self._log.observations):
                _log.warning("nothing to confirm: no trial was completed")
                return
            best = self._optimizer.recommend(self._optimizer.target)
            config = self._optimizer.space.canonical(
                {**best.config, **best.target}, extrapolate=True
            )
            self._add(self._asked(self._log.next_ask_index, confirming=True), config)
            while self._running:
                self._collect()
                self._interrupts.check()
                self._fill()

    def _fill(self) -> None:
        """Start what may start: first orphans, then what the scheduler and the optimizer choose."""
        orphans = self._shared.orphans
        while len(self._running) < self._options.workers:
            spent = self._spent_out()
            if orphans and self._may_continue(orphans[0], spent):
                self._continue_lost(orphans.popleft())
            elif spent is not None or not self._take_action():
                return

    def _may_continue(self, orphan: Entry, spent: str | None) -> bool:
        """Return whether the budget allows it; what builds on earlier runs takes no new trial."""
        builds = self._log.carried(orphan.number) is not None  # a stage, or a clone of another run
        return orphan.asked.confirming or (
            spent is None and (builds or self._ledger.remaining_trials != 0)
        )

    def _collect(self) -> None:
        """Wait a moment for results, and record those that came."""
        if self._runner.interruptible:
            with self._interrupts.exposed():
                outcomes = self._runner.poll(_POLL, self._decide)
        else:
            outcomes = self._runner.poll(_POLL, self._decide)
        for outcome in sorted(outcomes, key=lambda outcome: outcome.refusal is not None):
            if outcome.number not in self._unanswered:
                self._finish(outcome)  # first what ends no study
        for error in self._unanswered.values():
            raise error

    def _stop_running(self) -> None:
        """After an interrupt: let running trials stop, and record those that still finish."""
        self._interrupted = True
        if self._runner.interruptible:
            return  # the interrupt has ended its trial
        until = time.monotonic() + _GRACE
        while self._running and time.monotonic() < until:
            for outcome in self._runner.poll(_GRACE / 10, self._decide):
                if outcome.status is not Status.STOPPED and outcome.cause is not Cause.LOST:
                    self._finish(outcome)

    def _release(self) -> None:
        """End what still runs, whatever happened, so that another call can continue it.

        If the storage is away the trials stay as they are until this driver's lease ends.
        """
        self._runner.close()
        for number in self._running:
            with passed_over(f"trial {number} could not be released: %s"):
                self._storage.release(number, driven=self._driven())

    # --- starting trials -------------------------------------------------------------------------

    def _take_action(self) -> bool:
        """Do what the engine says is next; False when there is nothing to do now."""
        action = self._engine.next_action(
            may_start=self._trials_left(),
            locked=self._shared.locked(),
            may_resume=lambda trial, level: self._shared.is_ours(trial.number),
        )
        match action:
            case StartTrial():
                asked = self._asked(action.ask_index)
                if self._shared.enqueued:
                    self._start_enqueued(self._shared.enqueued.popleft(), asked, action)
                    return True
                asked = replace(asked, prediction=action.prediction, assignment=action.assignment)
                self._add(asked, action.config)
            case ResumeTrial():
                self._resume(action)
            case ContinueTrial():
                self._continue_promoted(action)
            case CloneTrial():
                self._clone(action)
        return action is not None

    def _asked(self, ask_index: int, *, confirming: bool = False) -> Asked:
        return Asked(
            ask_index,
            self._index,
            self._owner,
            after=self._log.next_order,
            confirming=confirming,
        )

    def _resume(self, action: ResumeTrial) -> None:
        number, level = action.number, action.level
        stage = self._log.resumed(number)
        self._storage.resume(number, stage, level=level, after=self._log.next_order)
        self._checkpoints.resume(number)
        self._start(self._log.resume(number, level), self._shared.asked[number])

    def _continue_promoted(self, action: ContinueTrial) -> None:
        """Continue a promoted run as a new trial.

        A paused trial of a driver that is gone is first told lost, which only one driver can do.
        """
        number = action.parent.number
        if action.paused and not self._shared.take(number):
            return
        asked = replace(
            self._shared.asked[number],
            owner=self._owner,
            after=self._log.next_order,
            attempt=0,
            parent=number,
            assignment=action.assignment,
        )
        self._add(asked, action.config)

    def _clone(self, action: CloneTrial) -> None:
        if action.stopped is not None:
            text = "replaced by a clone"
            if not self._storage.tell(action.stopped, driven=self._driven(), text=text):
                self._shared.sync_from_storage()
                return
            self._optimizer.record(action.stopped)
            self._checkpoints.retire()
        asked = self._asked(action.ask_index)
        self._add(replace(asked, parent=action.parent, assignment=action.assignment), action.config)

    def _start_enqueued(self, waiting: FrozenTrial, asked: Asked, action: StartTrial) -> None:
        """Start a trial that somebody enqueued, in place of the config of `action`.

        What it leaves open is as in that config. The fidelity is the scheduler's.
        """
        params, asked = wanted_params(waiting), replace(asked, assignment=action.assignment)
        if action.assignment is not None and self._optimizer.space.fidelity is not None:
            params.pop(self._optimizer.space.fidelity, None)
        config = completed(self._optimizer, params, action.config)
        distributions = self._distributions(config)
        trial = self._storage.start_enqueued(waiting, asked, config, distributions)
        if trial is not None:  # else another driver was faster
            self._shared.note(trial.number, asked)
            self._begin(trial, asked)

    def _continue_lost(self, entry: Entry) -> None:
        """Start a lost trial again, from its checkpoint."""
        asked = replace(
            entry.asked,
            owner=self._owner,
            after=self._log.next_order,
            attempt=entry.asked.attempt + (0 if entry.released else 1),
            parent=entry.number,
            assignment=entry.assignment,
        )
        self._add(asked, entry.trial.config)

    def _add(self, asked: Asked, config: dict[str, Any]) -> None:
        """Write a new trial and start it, unless another driver is at the same config."""
        trial = self._storage.ask(asked, config, self._distributions(config))
        self._shared.note(trial.number, asked)
        if not self._shared.is_superseded(trial):
            self._begin(trial, asked)

    def _distributions(self, config: dict[str, Any]) -> dict[str, BaseDistribution]:
        """Optuna distributions of a config's values."""
        encoder = self._optimizer.encoder
        box = encoder.value_box((encoder.lower, encoder.upper))
        return self._optimizer.space.distributions(config, box)

    def _begin(self, trial: Trial, asked: Asked) -> None:
        """Start a new trial that is written and no other driver's."""
        self._optimizer.add_pending(trial)
        self._checkpoints.begin(trial, confirming=asked.confirming)
        self._start(trial, asked)

    def _start(self, trial: Trial, asked: Asked) -> None:
        """Hand a stage of a written trial to the runner."""
        self._running[trial.number] = _Running(trial, asked, time.monotonic())
        for callback in self._options.callbacks:
            callback.on_trial_start(self._state, trial)
        seed = np.random.SeedSequence([self._options.seed, asked.driver, asked.ask_index])
        job = Job(
            trial,
            int(seed.generate_state(1)[0]),
            self._checkpoints.folder(trial.number),
            asked.confirming,
            self._consumed(trial),
            self._checkpoints.key(trial),
        )
        try:
            self._runner.submit(job)
        except StudyError:
            self._interrupts.check()  # Ctrl-C also ends a fork server that is just starting
            raise

    def _consumed(self, trial: Trial) -> Consumed:
        """What earlier stages of `trial` have used, its parent's included."""
        carried = self._log.carried(trial.number)
        if carried is None:
            return Consumed()
        step = carried.reports[-1].step if carried.reports else -1
        return Consumed(carried.cost or 0.0, carried.seconds or 0.0, step)

    # --- reports and results ---------------------------------------------------------------------

    def _decide(self, trial: Trial, report: Report) -> Decision:
        """Answer a report of a running trial.

        What goes wrong here is not the trial's fault: it is stopped, to be continued by the next
        call, and the error ends the study.
        """
        with self._interrupts.shielded():
            try:
                return self._answer(trial, report)
            except Exception as error:
                self._unanswered[trial.number] = error
                return Decision.STOP

    def _answer(self, trial: Trial, report: Report) -> Decision:
        """Record a report, and say whether its trial continues."""
        running = self._running[trial.number]
        self._log.report(trial.number, report)
        self._storage.report(trial.number, report)
        for callback in self._options.callbacks:
            callback.on_report(self._state, trial, report)
        if self._interrupted:
            return Decision.STOP
        if not running.asked.confirming and self._spends_too_much(running, report):
            return Decision.STOP
        if running.asked.confirming:
            return Decision.CONTINUE
        return self._engine.schedule.on_report(running.trial, report, self._log)

    def _finish(self, outcome: Outcome) -> None:
        """Write how a trial of this driver ended, then let the optimizer learn it."""
        running = self._running[outcome.number]  # released if its end cannot be written
        outcome = priced(outcome, self._options.cost)
        if outcome.cause is Cause.LOST and running.asked.attempt < RETRIES:
            why = last_line(self._storage.without_secrets(outcome.text))
            _log.warning("trial %d was lost (%s); trying again", outcome.number, why)
            self._storage.mark_lost(outcome.number, order=self._log.next_order, text=outcome.text)
            del self._running[outcome.number]
            self._shared.sync_from_storage()
            return
        if outcome.cause is Cause.LOST and outcome.refusal is not None:
            raise outcome.refusal
        if outcome.cause is Cause.LOST:
            outcome = replace(
                outcome, cause=Cause.ERROR, text=f"lost {RETRIES + 1} times: {outcome.text}"
            )
        observation = self._observed(running.trial, outcome)
        if self._options.cost is None:
            observation = self._optimizer.with_default_cost(observation)
        written = self._write(observation, outcome.text)
        del self._running[outcome.number]
        if not written:
            _log.warning("another driver has taken over trial %d", outcome.number)
            self._shared.sync_from_storage()
            return
        if not running.asked.confirming:
            self._checkpoints.keep_if_best(observation, but=self._shared.confirming)
        self._optimizer.record(observation)
        self._checkpoints.end(outcome.number)
        if observation.cause is not None:
            self._say_failed(observation)
        for callback in self._options.callbacks:
            callback.on_trial_end(self._state, running.trial, observation)
        if outcome.refusal is not None:
            raise outcome.refusal
        if observation.cause is Cause.ERROR:
            self._stop_if_broken(observation)

    def _say_failed(self, failed: Observation) -> None:
        """Log a failure in one line, and its traceback where it is the first of its kind."""
        assert failed.cause is not None
        where, text = where_raised(failed.error), last_line(failed.error)
        if where is not None and where not in self._shown:
            self._shown.add(where)
            text = f"{text}\n{printable(failed.error.rstrip())}"
        _log.warning("trial %d failed (%s): %s", failed.number, failed.cause.value, text)

    def _stop_if_broken(self, failed: Observation) -> None:
        """Raise StudyError where `train_fn` is to blame rather than the config."""
        text = failed.error.rstrip()
        if self._options.raise_on_error:
            raise StudyError(
                f"trial {failed.number} raised, and raise_on_error=True ends the study there; fix "
                f"train_fn and call again\n\n{text}"
            )
        told = [o for o in self._log.observations if o.ask_index is not None]
        if any(o.cause is not Cause.ERROR for o in told):
            return
        kinds, way_out = {where_raised(o.error) for o in told}, "fix train_fn and call again"
        if len(told) >= _ALL_FAILED:
            raise StudyError(
                f"all of the first {_ALL_FAILED} trials raised, the last with "
                f"{last_line(text)!r}; {way_out}\n\n{text}"
            )
        if len(told) >= _SAME_FAILURE and len(kinds) == 1 and None not in kinds:
            raise StudyError(
                f"the first {_SAME_FAILURE} trials raised the same exception at the same line, "
                f"{kinds.pop()}, the last with {last_line(text)!r}; {way_out}, or return "
                f'float("nan") for a config that cannot be run\n\n{text}'
            )

    def _observed(self, trial: Trial, outcome: Outcome) -> Observation:
        return Observation(
            number=outcome.number,
            config=trial.config,
            loss=outcome.loss,
            cost=outcome.cost,
            status=outcome.status,
            cause=outcome.cause,
            order=self._log.next_order,
            ask_index=trial.ask_index,
            seconds=outcome.seconds,
            reports=self._log.reports(outcome.number),
            metrics=dict(outcome.metrics),
            branches=outcome.branches,
            error=self._storage.without_secrets(outcome.text) if outcome.cause is not None else "",
        )

    def _write(self, observation: Observation, text: str) -> bool:
        """Write the end of a stage; False if another driver has finished the trial before.

        If the storage is away, the next call in this process writes it.
        """
        try:
            if observation.status is Status.PAUSED:
                stage = self._log.resumed(observation.number)
                self._storage.pause(observation, stage, driven=self._driven())
                return True
            return self._storage.tell(observation, driven=self._driven(), text=text)
        except StudyError:
            keep_unwritten(self._owner, observation, text)
            raise

    # --- the budget ------------------------------------------------------------------------------

    def _driven(self) -> float:
        """Seconds that this call has been driving."""
        return time.monotonic() - self._began

    def _spent_out(self) -> str | None:
        self._ledger.set_elapsed(self._shared.driven_before + self._driven())
        return self._ledger.spent_out()

    def _trials_left(self) -> bool:
        """Whether another trial fits beside those that are running, and may still be worth it."""
        if self._is_good_enough():
            return False
        left = self._ledger.remaining_trials
        if left is None:
            return True
        pending = [t.number for t in self._log.pending if not self._ledger.counts(t.number)]
        return sum(number not in self._shared.confirming for number in pending) < left

    def _is_good_enough(self) -> bool:
        """Whether the expected regret of stopping is as small as the budget asks for.

        It is worked out once for each number of completed runs, from the log alone.
        """
        until = self._ledger.budget.until
        if until is None:
            return False
        completed = sum(o.status is Status.COMPLETED for o in self._log.observations)
        if completed != self._judged[0]:
            regret = self._optimizer.expected_regret()
            self._judged = completed, regret is not None and regret <= until.tolerance
        return self._judged[1]

    def _seconds(self, running: _Running) -> float:
        """Seconds that a running stage has trained, without those that it waited if that is known.

        A trial may wait in its runner for a GPU, and its process for what it has to load.
        """
        began = getattr(self._runner, "began", lambda number: None)(running.trial.number)
        return time.monotonic() - (running.started if began is None else float(began))

    def _spends_too_much(self, running: _Running, report: Report) -> bool:
        """Whether a trial has reached its own cost limit, or the study one of its totals."""
        ledger = self._ledger
        ledger.set_elapsed(self._shared.driven_before + self._driven())
        if ledger.remaining_seconds == 0.0:
            return True
        cost, before = report.cost, self._consumed(running.trial).cost
        if cost is None and self._options.cost == SECONDS:
            cost = before + self._seconds(running)
        elif cost is None:
            cost = self._optimizer.cost_at(running.trial, report.step)
        if cost is None:
            return False
        limit, left = ledger.budget.limits.cost, ledger.remaining_cost
        return (limit is not None and cost >= limit) or (left is not None and cost - before >= left)


@contextmanager
def passed_over(message: str) -> Iterator[None]:
    """Log a StudyError in place of raising it, where what ended the study before says more.

    Args:
        message: Message to log, with a `%s` for the error.
    """
    try:
        yield
    except StudyError as error:
        _log.warning(message, error)


class Interrupts:
    """Defers SIGINT, SIGTERM and SIGHUP, and raises them as KeyboardInterrupt between two writes.

    Inside user code that runs inline a signal is raised at once. In the driver's own code, which
    must not be cut off between two writes, it is raised at the next `check`. A second signal is
    raised wherever it arrives. Handlers that the user has set, and threads other than the main one,
    are left alone.
    """

    def __init__(self) -> None:
        self._pending = False
        self._exposed = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            ends: dict[signal.Signals, Any] = {
                signal.SIGINT: signal.default_int_handler,
                signal.SIGTERM: signal.SIG_DFL,
            }
            if sys.platform != "win32":
                ends[signal.SIGHUP] = signal.SIG_DFL  # the terminal is closed
            for number, default in ends.items():
                if signal.getsignal(number) is default:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._pending:
            raise KeyboardInterrupt

    @contextmanager
    def exposed(self) -> Iterator[None]:
        """Let a signal raise at once inside this block, where user code runs."""
        self.check()
        self._exposed = True
        try:
            yield
        finally:
            self._exposed = False

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold a signal until the end of this block, where the driver's own code runs."""
        before, self._exposed = self._exposed, False
        try:
            yield
        finally:
            self._exposed = before
        if before:
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._pending = self._pending, True
        if self._exposed or again:
            raise KeyboardInterrupt
