"""`optimize`: drive a study from its budget to its result.

The driver asks the optimizer, writes each trial before it starts, hands it to a runner, answers its
reports, and writes its result before the optimizer learns of it. All that is kept in the journal,
so a driver may die at any moment: the next one replays the journal, gives up the trials whose
driver is gone, and continues each of them from its checkpoint as a new trial with the same config,
ask index and seed.

Ctrl-C and SIGTERM end a study in good order: what has finished is told, what still runs is let go
of and continued by the next call, and `optimize` returns the result so far.
"""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from hpo.budget import Budget
from hpo.callbacks import Callback, Run
from hpo.encoding import Direction, Encoder
from hpo.errors import BudgetError
from hpo.journal import DEFAULT_STORAGE, Asked, Entry, Journal
from hpo.leases import Keeper, Lease
from hpo.observations import Cause, Observation, Report, Status, Trial
from hpo.optimizer import Optimizer
from hpo.priors import Rule, check_priors, drift_prior
from hpo.progress import Progress
from hpo.result import Result, check_target
from hpo.runners import (
    InlineRunner,
    Job,
    Outcome,
    ProcessRunner,
    Runner,
    Task,
    TrainFunction,
)
from hpo.schedulers import Decision, Scheduler
from hpo.space import Parameter, SearchSpace
from hpo.training.checkpoints import CheckpointStore

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

SECONDS = "seconds"  # the cost unit that is measured rather than reported

_RETRIES = 2  # attempts after a lost one, before the loss counts as the config's error
_POLL = 0.5  # seconds between looks at the budget, the leases and Ctrl-C while trials run
_GRACE = 2.0  # seconds that running trials get to finish after Ctrl-C

_log = logging.getLogger(__name__)


def optimize(
    train_fn: TrainFunction,
    space: Mapping[str, Parameter | BaseDistribution] | SearchSpace,
    *,
    budget: Budget,
    cost: str | None = None,
    direction: Direction = "minimize",
    target: Mapping[str, float] | None = None,
    confirm: int = 0,
    scheduler: Scheduler | None = None,
    surrogate: str = "auto",
    priors: Sequence[Rule] | None = None,
    workers: int = 1,
    runner: Runner | None = None,
    callbacks: Sequence[Callback] = (),
    name: str | None = None,
    storage: str | BaseStorage | None = None,
    seed: int = 0,
) -> Result:
    """Search `space` for the config with which `train_fn` does best, within `budget`.

    Args:
        train_fn: called as `train_fn(config, ctx)`. Returns the loss, or a dict with "loss",
            perhaps "cost" and any other metric. May report on its way with `ctx.report`, and save
            and load its state with `ctx.save` and `ctx.load`.
        space: parameters by name.
        budget: totals over all calls with the same name, and limits of each trial. A running trial
            is told to stop at its next report once the seconds or the cost are used up.
        cost: unit of the costs. None and "seconds" measure wall-clock seconds of each trial, and
            "seconds" (as any scale axis) makes the search weigh them; a "seconds" cost that is
            reported replaces the measured one. Any other unit, such as "flops", must be reported
            by `train_fn`.
        direction: "minimize" or "maximize" the loss.
        target: one value for each scale axis, where the final training will be.
        confirm: runs of the recommendation (at the target) after the search, on top of the
            budget and free of its limits on time and cost; each is learned from before the next.
        scheduler: decides at each report whether the trial goes on.
        surrogate: reserved; "auto".
        priors: transfer rules about how the best settings move with scale, such as
            `[MuP(), TokenHorizon()]` (:mod:`hpo.priors`); None is the neutral prior, weak and
            zero-mean. Like `target` they are not stored: a resumed study uses those of its call.
        workers: trials at a time. One runs inside this process, unless a limit on its time or
            memory is set; otherwise each trial has its own process.
        runner: where trials run, in place of that choice.
        callbacks: told of every step. A live view on a terminal is added unless a `Progress` is
            among them.
        name: makes the study durable; the same name goes on where it ended, with the same budget
            or a larger one.
        storage: an Optuna storage or its URL; by default the SQLite file scaletune.db here.
        seed: of every random choice.

    Returns:
        The result so far, also after Ctrl-C.

    Raises:
        TypeError, ValueError: for an argument, or a return value of `train_fn`, that breaks a rule.
            `SpaceError` and `BudgetError` are ValueErrors.
        StudyError: if the storage cannot be used, or holds a different study under this name.
    """
    space = space if isinstance(space, SearchSpace) else SearchSpace(space)
    _check_arguments(train_fn, budget, cost, direction, confirm, scheduler, workers, name, seed)
    if surrogate != "auto":  # declared but not built yet
        raise ValueError(f'surrogate must be "auto" in this version, got {surrogate!r}')
    if storage is not None and name is None:
        raise ValueError(
            f"storage= needs name=, got storage={storage!r} alone; name the study, so that it can "
            "be found again"
        )
    if target is not None:
        target = check_target(space, target)
    drift_prior(check_priors(priors), space, Encoder(space).columns)  # refused before any writing
    watchers = _watchers(callbacks)

    runner = runner or _runner_for(budget, workers)
    task = Task(train_fn, space.fidelity, space.scales, budget.limits)
    with tempfile.TemporaryDirectory(prefix="scaletune-") as temporary:
        driver: _Driver
        runner.open(task, lambda trial, report: driver.decide(trial, report), workers)
        try:
            journal = Journal.open(
                name=name, storage=storage, space=space, direction=direction, cost=cost, seed=seed
            )
            root = Path(temporary) if name is None else _checkpoint_root(name, storage)
            with _leased(journal) as (index, owner):
                optimizer = Optimizer(
                    space,
                    direction=direction,
                    cost=cost,
                    budget=budget,
                    target=target,
                    priors=priors,
                    seed=seed,
                    driver=index,
                )
                driver = _Driver(
                    optimizer=optimizer,
                    journal=journal,
                    runner=runner,
                    run=Run(
                        name, direction, cost, target, workers, optimizer.log, optimizer.ledger
                    ),
                    watchers=watchers,
                    scheduler=scheduler,
                    checkpoints=CheckpointStore(root),
                    seed=seed,
                    index=index,
                    owner=owner,
                )
                return driver.drive(confirm)
        finally:
            runner.close()


def load_result(
    name: str,
    *,
    storage: str | BaseStorage | None = None,
    target: Mapping[str, float] | None = None,
    priors: Sequence[Rule] | None = None,
) -> Result:
    """What a durable run has found so far, without going on with it; nothing is written.

    Args:
        name, storage: as given to :func:`optimize`.
        target, priors: as there; neither is stored with the run.

    Raises:
        StudyError: if there is no such run, or it cannot be read.
        SpaceError: for a target or priors that do not fit its space.
    """
    journal, header = Journal.read(name=name, storage=storage)
    optimizer = Optimizer(
        SearchSpace.from_fingerprint(header["space"]),
        direction=header["direction"],
        cost=header["cost"],
        target=target,
        priors=priors,
        seed=header["seed"],
    )
    _replay(optimizer, journal.entries())
    return replace(optimizer.result(), study=journal.study)


@dataclass(slots=True)
class _Running:
    """A trial of ours that is under way, with what it has reported."""

    trial: Trial
    asked: Asked
    reports: list[Report]
    started: float


class _Driver:
    """One `optimize` call at work; `drive` is its whole life."""

    def __init__(
        self,
        *,
        optimizer: Optimizer,
        journal: Journal,
        runner: Runner,
        run: Run,
        watchers: Sequence[Callback],
        scheduler: Scheduler | None,
        checkpoints: CheckpointStore,
        seed: int,
        index: int,
        owner: str,
    ) -> None:
        self._optimizer = optimizer
        self._journal = journal
        self._runner = runner
        self._run = run
        self._watchers = watchers
        self._scheduler = scheduler
        self._checkpoints = checkpoints
        self._seed = seed
        self._index = index
        self._owner = owner
        self._limits = run.ledger.budget.limits
        self._running: dict[int, _Running] = {}
        self._orphans: deque[Entry] = deque()
        self._confirming: set[int] = set()
        self._known_others: dict[str, bool] = {}
        self._driven_before = 0.0
        self._began = time.monotonic()
        self._interrupts = _Interrupts()
        self._interrupted = False

    # --- the loop --------------------------------------------------------------------------------

    def drive(self, confirm: int) -> Result:
        """Search until the budget is used, confirm, and say what was found."""
        with self._interrupts:
            try:
                self._catch_up()
                for watcher in self._watchers:
                    watcher.on_start(self._run)
                self._search()
                self._confirm(confirm)
            except KeyboardInterrupt:
                _log.warning("interrupted; the result so far is returned")
                self._wind_down()
            except BaseException as error:
                for watcher in self._watchers:
                    watcher.on_error(self._run, error)
                raise
            finally:
                self._let_go()
            result = replace(self._optimizer.result(), study=self._journal.study)
            for watcher in self._watchers:
                watcher.on_finish(self._run, result)
            return result

    def _search(self) -> None:
        while True:
            self._interrupts.check()
            if self._others_changed():
                self._catch_up()
            self._fill()
            if not self._running:
                return
            self._collect()

    def _confirm(self, runs: int) -> None:
        """Train `runs` times with the recommendation, learning from each; never twice on resume."""
        done = 0
        for observation in reversed(self._run.log.observations):
            if observation.cause is Cause.LOST:
                continue
            if observation.number not in self._confirming:
                break
            done += 1
        for _ in range(done, runs):
            if not any(o.status is Status.COMPLETED for o in self._run.log.observations):
                _log.warning("nothing to confirm: no trial was completed")
                return
            best = self._optimizer.recommend(self._run.target)
            config = self._optimizer.space.canonical(
                {**best.config, **best.target}, extrapolate=True
            )
            self._ask(config, self._run.log.next_ask_index, confirming=True)
            while self._running:
                self._collect()
                self._interrupts.check()
                self._fill()

    def _fill(self) -> None:
        """Start what may start: first what was lost, then what the optimizer proposes."""
        while len(self._running) < self._run.workers:
            spent = self._exhausted()
            if self._orphans and (spent is None or self._orphans[0].asked.confirming):
                self._continue(self._orphans.popleft())
            elif spent is None and self._trials_left():
                proposal = self._optimizer.propose()
                self._ask(proposal.config, proposal.ask_index, belief=proposal.belief)
            else:
                return

    def _collect(self) -> None:
        """Wait a moment for results, and take in those that came."""
        if isinstance(self._runner, InlineRunner):
            with self._interrupts.exposed():
                outcomes = self._runner.poll(_POLL)
        else:
            outcomes = self._runner.poll(_POLL)
        for outcome in outcomes:
            self._finish(outcome)

    def _wind_down(self) -> None:
        """After an interrupt: let running trials stop, and keep what still comes to an end."""
        self._interrupted = True
        if isinstance(self._runner, InlineRunner):
            return  # the interrupt has ended its trial
        until = time.monotonic() + _GRACE
        while self._running and time.monotonic() < until:
            for outcome in self._runner.poll(_GRACE / 10):
                if outcome.status is not Status.STOPPED and outcome.cause is not Cause.LOST:
                    self._finish(outcome)

    def _let_go(self) -> None:
        """Whatever happened: end what runs, so that another call can continue it."""
        self._runner.close()
        for number in self._running:
            self._journal.release(number, driven=self._driven())

    # --- trials ----------------------------------------------------------------------------------

    def _ask(
        self,
        config: dict[str, Any],
        ask_index: int,
        *,
        belief: Any = None,
        confirming: bool = False,
    ) -> None:
        """Write a new trial and start it, unless another driver is at the same config."""
        asked = Asked(
            ask_index,
            self._index,
            self._owner,
            after=self._run.log.next_order,
            confirming=confirming,
            belief=belief,
        )
        self._write_and_start(asked, config)

    def _continue(self, entry: Entry) -> None:
        """Start a lost trial again, from its checkpoint."""
        asked = replace(
            entry.asked,
            owner=self._owner,
            after=self._run.log.next_order,
            attempt=entry.asked.attempt + (0 if entry.released else 1),
            parent=entry.number,
        )
        self._write_and_start(asked, entry.trial.config)

    def _write_and_start(self, asked: Asked, config: dict[str, Any]) -> None:
        encoder = self._optimizer.encoder
        box = encoder.value_box((encoder.lower, encoder.upper))
        distributions = self._optimizer.space.distributions(config, box)
        trial = self._journal.ask(asked, config, distributions)
        if asked.confirming:
            self._exempt(trial.number)
        if any(self._others().values()) and self._superseded(trial):
            return
        self._optimizer.adopt(trial)
        if asked.parent is not None:
            self._inherit(trial)
        self._running[trial.number] = _Running(trial, asked, [], time.monotonic())
        for watcher in self._watchers:
            watcher.on_trial_start(self._run, trial)
        seed = np.random.SeedSequence([self._seed, asked.driver, asked.ask_index])
        self._runner.submit(
            Job(
                trial,
                int(seed.generate_state(1)[0]),
                self._checkpoints.folder(trial.number),
                asked.confirming,
            )
        )

    def _superseded(self, trial: Trial) -> bool:
        """Give `trial` up if another driver wrote one that does the same just before.

        That is one with a lower number which continues the same lost trial, or which is under way
        with the same config.
        """
        space = self._optimizer.space
        for entry in self._journal.entries():
            if entry.number >= trial.number:
                break
            if entry.asked.owner == self._owner:
                continue
            same_parent = trial.parent is not None and entry.trial.parent == trial.parent
            running = entry.observation is None
            if same_parent or (
                running and space.key(entry.trial.config) == space.key(trial.config)
            ):
                self._journal.lose(trial.number, order=self._run.log.next_order, superseded=True)
                self._catch_up()
                return True
        return False

    def _finish(self, outcome: Outcome) -> None:
        """Write how a trial of ours ended, then let the optimizer learn it."""
        running = self._running.pop(outcome.number)
        outcome = self._priced(outcome, running)
        if outcome.cause is Cause.LOST and running.asked.attempt < _RETRIES:
            _log.warning("trial %d was lost (%s); trying again", outcome.number, outcome.text)
            self._journal.lose(outcome.number, order=self._run.log.next_order)
            self._catch_up()
            return
        if outcome.cause is Cause.LOST:
            outcome = replace(
                outcome, cause=Cause.ERROR, text=f"lost {_RETRIES + 1} times: {outcome.text}"
            )
        observation = Observation(
            number=outcome.number,
            config=running.trial.config,
            loss=outcome.loss,
            cost=outcome.cost,
            status=outcome.status,
            cause=outcome.cause,
            order=self._run.log.next_order,
            ask_index=running.trial.ask_index,
            seconds=outcome.seconds,
            reports=tuple(running.reports),
            metrics=dict(outcome.metrics),
        )
        if not self._journal.tell(observation, driven=self._driven(), text=outcome.text):
            _log.warning("another driver has taken over trial %d", outcome.number)
            self._catch_up()
            return
        self._optimizer.absorb(observation)
        for number in self._lineage(running.trial):
            self._checkpoints.remove(number)
        if observation.cause is not None:
            last_line = outcome.text.strip().rpartition("\n")[2]
            _log.warning(
                "trial %d failed (%s): %s", outcome.number, observation.cause.value, last_line
            )
        for watcher in self._watchers:
            watcher.on_trial_end(self._run, running.trial, observation)
        if outcome.refusal is not None:
            raise outcome.refusal

    def _priced(self, outcome: Outcome, running: _Running) -> Outcome:
        """`outcome` with its cost in the study's unit, or as the error of a missing one."""
        unit = self._run.cost
        if unit is None and outcome.cost is not None:
            return _refused(
                outcome,
                BudgetError(
                    f"train_fn reported cost={outcome.cost!r}, but optimize() was given no unit "
                    'for it; add cost="flops" or another name, or leave the cost out to count '
                    "seconds"
                ),
                cost=outcome.seconds,
            )
        if unit in (None, SECONDS):
            return outcome if outcome.cost is not None else replace(outcome, cost=outcome.seconds)
        if outcome.cost is None and outcome.status is not Status.FAILED:
            return _refused(
                outcome,
                BudgetError(
                    f"cost={unit!r} must be reported by train_fn, but trial {outcome.number} "
                    'reported none; return {"loss": ..., "cost": ...} or call '
                    'ctx.report(cost=...), or measure time with cost="seconds"'
                ),
                cost=None,
            )
        return outcome

    def decide(self, trial: Trial, report: Report) -> Decision:
        """Answer a report of a running trial."""
        with self._interrupts.shielded():
            running = self._running[trial.number]
            running.reports.append(report)
            self._journal.report(trial.number, report)
            for watcher in self._watchers:
                watcher.on_report(self._run, trial, report)
            if self._interrupted:
                return Decision.STOP
            if not running.asked.confirming and self._spends_too_much(running, report):
                return Decision.STOP
            if self._scheduler is None or running.asked.confirming:
                return Decision.CONTINUE
            return self._scheduler.on_report(trial, report, self._run.log)

    # --- the budget ------------------------------------------------------------------------------

    def _driven(self) -> float:
        """Seconds that this call has been driving."""
        return time.monotonic() - self._began

    def _exhausted(self) -> str | None:
        self._run.ledger.drove(self._driven_before + self._driven())
        return self._run.ledger.exhausted()

    def _trials_left(self) -> bool:
        """Whether another trial fits beside those that are under way."""
        left = self._run.ledger.remaining_trials
        if left is None:
            return True
        return sum(t.number not in self._confirming for t in self._run.log.pending) < left

    def _spends_too_much(self, running: _Running, report: Report) -> bool:
        """Whether a trial has reached its own cost limit, or the study one of its totals."""
        ledger = self._run.ledger
        ledger.drove(self._driven_before + self._driven())
        if ledger.remaining_seconds == 0.0:
            return True
        cost = report.cost
        if cost is None and self._run.cost in (None, SECONDS):
            cost = time.monotonic() - running.started
        return ledger.cost_cap is not None and cost is not None and cost >= ledger.cost_cap

    def _exempt(self, number: int) -> None:
        self._confirming.add(number)
        self._run.ledger.exempt(number)

    # --- the journal -----------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Take in what the journal holds, and give up trials whose driver is gone."""
        entries = self._journal.entries()
        if self._give_up_abandoned(entries):
            entries = self._journal.entries()
        self._take_in(entries)
        continued = {entry.trial.parent for entry in entries}
        orphans = [e for e in entries if e.lost and not e.superseded and e.number not in continued]
        others = self._others() if orphans else {}
        self._orphans = deque(e for e in orphans if not others.get(e.asked.owner))

    def _others(self) -> dict[str, bool]:
        """Other drivers of this study, and whether they live; none of a study in memory."""
        owners = self._journal.owners() if self._journal.durable else {}
        owners.pop(self._owner, None)
        return owners

    def _others_changed(self) -> bool:
        """Whether another driver works on this study, or has come or gone since the last look.

        A driver alone need not read back what it wrote itself.
        """
        before, self._known_others = self._known_others, self._others()
        return any(self._known_others.values()) or self._known_others != before

    def _give_up_abandoned(self, entries: Iterable[Entry]) -> bool:
        """Finish running trials of dead drivers: as told, as lost, or as an error; any such?"""
        running = [e for e in entries if e.open and e.asked.owner != self._owner]
        if not running:
            return False
        others = self._others()
        abandoned = [entry for entry in running if not others.get(entry.asked.owner)]
        for entry in abandoned:
            order = 1 + max((e.observation.order for e in entries if e.observation), default=-1)
            if entry.observation is not None:
                self._journal.settle(entry.observation)
            elif entry.released or entry.asked.attempt < _RETRIES:
                self._journal.lose(entry.number, order=order)
            else:
                failed = Observation(
                    number=entry.number,
                    config=entry.trial.config,
                    loss=None,
                    cost=None,
                    status=Status.FAILED,
                    cause=Cause.ERROR,
                    order=order,
                    ask_index=entry.trial.ask_index,
                )
                text = f"lost {_RETRIES + 1} times, each time with its driver"
                self._journal.tell(failed, driven=0.0, text=text)
        return bool(abandoned)

    def _take_in(self, entries: Iterable[Entry]) -> None:
        """Let the optimizer know what it has not seen, in the order in which it happened."""
        entries = list(entries)
        driven: dict[str, float] = {}
        for entry in entries:
            owner = entry.asked.owner
            driven[owner] = max(entry.driven, driven.get(owner, 0.0))
            if entry.asked.confirming:
                self._exempt(entry.number)
        _replay(self._optimizer, entries)
        driven.pop(self._owner, None)
        self._driven_before = sum(driven.values())

    def _lineage(self, trial: Trial) -> Iterator[int]:
        """Numbers of `trial` and of the lost trials it goes back to, newest first."""
        yield trial.number
        while trial.parent is not None:
            trial = self._run.log.trial(trial.parent)
            yield trial.number

    def _inherit(self, trial: Trial) -> None:
        """Link the newest checkpoint of the lost trials that `trial` continues."""
        for number in list(self._lineage(trial))[1:]:
            if self._checkpoints.folder(number).is_dir():
                self._checkpoints.link(number, trial.number)
                return


def _replay(optimizer: Optimizer, entries: Iterable[Entry]) -> None:
    """Let an optimizer know what it has not seen, in the order in which it happened."""
    events: list[tuple[tuple[int, int, int], Entry]] = []
    for entry in entries:
        if optimizer.log.observation(entry.number) is not None:
            continue
        # A trial asked after k tells comes before tell k, which has order k.
        events.append(((entry.asked.after, 0, entry.number), entry))
        if entry.observation is not None:
            events.append(((entry.observation.order, 1, entry.number), entry))
    for (_, told, _), entry in sorted(events, key=lambda event: event[0]):
        if not told:
            optimizer.adopt(entry.trial)
        elif entry.observation is not None:
            optimizer.absorb(entry.observation)


class _Interrupts:
    """Turns Ctrl-C and SIGTERM into KeyboardInterrupt where it does no harm.

    Inside user code run inline it is raised at once; in the driver's own code, which must not be
    cut off between two writes, at the next `check`. A second signal is raised wherever it hits.
    Handlers that the user has set, and threads other than the main one, are left alone.
    """

    def __init__(self) -> None:
        self._pending = False
        self._exposed = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, default in (
                (signal.SIGINT, signal.default_int_handler),
                (signal.SIGTERM, signal.SIG_DFL),
            ):
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
        """Let a signal raise at once."""
        self.check()
        self._exposed = True
        try:
            yield
        finally:
            self._exposed = False

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Back in the driver's own code: hold a signal until the end of this."""
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


@contextmanager
def _leased(journal: Journal) -> Iterator[tuple[int, str]]:
    """Hold a driver's lease on the study; gives the driver's index and the lease's owner."""
    lease = Lease.take()
    index = journal.claim(lease)
    keeper = Keeper(lambda: journal.keep(index, lease.renewed()))
    try:
        with keeper if journal.durable else nullcontext():
            yield index, lease.owner
    finally:
        journal.keep(index, lease.released())


def _refused(outcome: Outcome, refusal: Exception, cost: float | None) -> Outcome:
    """`outcome` as an error that ends the study; an earlier refusal stands."""
    return replace(
        outcome,
        status=Status.FAILED,
        cause=Cause.ERROR,
        loss=None,
        cost=cost,
        text=str(refusal),
        refusal=outcome.refusal or refusal,
    )


def _runner_for(budget: Budget, workers: int) -> Runner:
    """Inline where nothing speaks for processes."""
    limits = budget.limits
    if workers == 1 and limits.seconds is None and limits.memory is None:
        return InlineRunner()
    return ProcessRunner()


def _checkpoint_root(name: str, storage: str | BaseStorage | None) -> Path:
    """Folder for the checkpoints of a named run: beside an SQLite file, else in the current one."""
    from sqlalchemy.engine import make_url

    folder = quote(name, safe="")
    if storage is None or isinstance(storage, str):
        url = make_url(storage or DEFAULT_STORAGE)
        if url.drivername.startswith("sqlite") and url.database:
            file = Path(url.database).absolute()
            return file.with_name(f"{file.stem}_checkpoints") / folder
    return Path("scaletune_checkpoints").absolute() / folder


def _watchers(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks, with a live view unless one is among them."""
    watchers = list(callbacks)
    for callback in watchers:
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks must derive from hpo.callbacks.Callback, got {callback!r}; "
                "derive from it and override what you need"
            )
    if not any(isinstance(callback, Progress) for callback in watchers):
        watchers.append(Progress())
    return watchers


def _check_arguments(
    train_fn: object,
    budget: object,
    cost: object,
    direction: object,
    confirm: object,
    scheduler: object,
    workers: object,
    name: object,
    seed: object,
) -> None:
    """Refuse what breaks a rule, with the way out."""
    if not callable(train_fn):
        raise TypeError(
            f"train_fn must be callable as train_fn(config, ctx), got {train_fn!r}; "
            "pass the function itself"
        )
    if not isinstance(budget, Budget):
        raise TypeError(f"budget must be a Budget, got {budget!r}; write Budget(trials=60)")
    if not budget.bounded:
        raise BudgetError(
            f"a budget needs at least one of trials, seconds and cost to end, got {budget}; "
            "write Budget(trials=60)"
        )
    if cost is not None and (not isinstance(cost, str) or not cost):
        raise TypeError(
            f'cost must be None or the name of a unit, got {cost!r}; write cost="seconds" or '
            'cost="flops"'
        )
    if direction not in ("minimize", "maximize"):
        raise ValueError(f'direction must be "minimize" or "maximize", got {direction!r}')
    _check_count("confirm", confirm, 0)
    _check_count("workers", workers, 1)
    _check_count("seed", seed, 0)
    if scheduler is not None and not callable(getattr(scheduler, "on_report", None)):
        raise TypeError(
            f"scheduler must have a method on_report(trial, report, log), got {scheduler!r}; "
            "see hpo.schedulers.Scheduler"
        )
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= 200):
        raise ValueError(
            f"name must be a text of 1 to 200 characters or None, got {name!r}; "
            "None keeps the study in memory"
        )


def _check_count(argument: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{argument} must be an int of at least {least}, got {value!r}")
