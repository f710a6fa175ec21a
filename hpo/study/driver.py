"""The loop that drives a study: who starts, what is told, what is written, when it ends.

A driver asks the optimizer, writes each trial before it starts, hands it to a runner, answers its
reports, and writes its result before the optimizer learns of it. All that is kept in the journal,
so a driver may die at any moment: the next one replays the journal, gives up the trials whose
driver is gone, and continues each of them from its checkpoint as a new trial with the same config,
ask index and seed.

    running    a trial of ours, handed to the runner and not told yet
    orphan     a lost trial that nobody has continued yet
    resting    a trial that ended or is paused, whose checkpoint we hold for the schedule

Ctrl-C and SIGTERM end a study in good order: what has finished is told, what still runs is let go
of and continued by the next call.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hpo.errors import BudgetError, StudyError
from hpo.optimizer.ask_tell import Optimizer
from hpo.optimizer.result import Result
from hpo.schedulers import Action, Clone, Decision, Promote, Schedule, Start
from hpo.schedulers.perturb import perturb
from hpo.space import Direction, Fidelity
from hpo.study.callbacks import Callback, StudyState
from hpo.study.checkpoints import CheckpointKey, CheckpointStore, fingerprint
from hpo.study.context import Paid
from hpo.study.interrupts import Interrupts
from hpo.study.runners import InlineRunner, Job, Outcome, Runner
from hpo.study.storage import Asked, Entry, Journal, Resumed
from hpo.trials import Cause, Observation, Report, RungAssignment, Status, Trial
from hpo.trials.records import SECONDS

_RETRIES = 2  # attempts after a lost one, before the loss counts as the config's error
_HOPELESS = 10  # first trials that all raised
_POLL = 0.5  # seconds between looks at the budget, the leases and Ctrl-C while trials run
_GRACE = 2.0  # seconds that running trials get to finish after Ctrl-C

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    """A trial of ours that is under way, with what it has reported."""

    trial: Trial
    asked: Asked
    started: float


class Driver:
    """One `optimize` call at work; `drive` is its whole life."""

    def __init__(
        self,
        *,
        optimizer: Optimizer,
        journal: Journal,
        runner: Runner,
        run: StudyState,
        watchers: Sequence[Callback],
        schedule: Schedule | None,
        checkpoints: CheckpointStore,
        warm_start: bool,
        seed: int,
        index: int,
        owner: str,
    ) -> None:
        self._optimizer = optimizer
        self._journal = journal
        self._runner = runner
        self._run = run
        self._watchers = watchers
        self._schedule = schedule
        self._checkpoints = checkpoints
        self._warm_start = warm_start
        self._seed = seed
        self._index = index
        self._owner = owner
        self._limits = run.ledger.budget.limits
        self._running: dict[int, _Running] = {}
        self._orphans: deque[Entry] = deque()
        self._asked: dict[int, Asked] = {}  # by trial, other drivers' included
        self._resting: set[int] = set()  # ended stages whose checkpoints we hold
        self._confirming: set[int] = set()
        self._known_others: dict[str, bool] = {}
        self._driven_before = 0.0
        self._began = time.monotonic()
        self._interrupts = Interrupts()
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
            spent = self._spent_out()
            if self._orphans and self._may_continue(self._orphans[0], spent):
                self._continue(self._orphans.popleft())
            elif spent is not None or not self._act():
                return

    def _may_continue(self, orphan: Entry, spent: str | None) -> bool:
        counted = self._run.ledger.counts(orphan.number)
        return orphan.asked.confirming or (
            spent is None and (counted or self._run.ledger.remaining_trials != 0)
        )

    def _act(self) -> bool:
        """Start, promote or clone as the schedule says; False when there is nothing to do now."""
        may_start = self._trials_left()
        if self._schedule is None:
            action: Action | None = Start(None) if may_start else None
        else:
            action = self._schedule.next(self._run.log, may_start=may_start, locked=self._held())
        match action:
            case Start(assignment):
                proposal = self._optimizer.propose()
                self._ask(
                    proposal.config,
                    proposal.ask_index,
                    prediction=proposal.prediction,
                    assignment=assignment,
                )
            case Promote(number, level):
                self._promote(number, level)
            case Clone():
                self._clone(action)
        return action is not None

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
        prediction: Any = None,
        confirming: bool = False,
        parent: int | None = None,
        assignment: RungAssignment | None = None,
    ) -> None:
        """Write a new trial and start it, unless another driver is at the same config."""
        asked = Asked(
            ask_index,
            self._index,
            self._owner,
            after=self._run.log.next_order,
            parent=parent,
            confirming=confirming,
            prediction=prediction,
            assignment=assignment,
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
            assignment=entry.assignment,
        )
        self._write_and_start(asked, entry.trial.config)

    def _promote(self, number: int, level: int) -> None:
        """Let a resting run go on: in place if the trial is ours and allows it, else as a new one.

        A trial of a driver that is gone is first told lost, which only one driver can do.
        """
        log, fidelity = self._run.log, self._optimizer.space.fidelity
        before, trial = log.observation(number), log.trial(number)
        assert before is not None and fidelity is not None and trial.assignment is not None
        asked = self._asked[number]
        if asked.owner == self._owner and before.status is Status.PAUSED:
            stage = log.resumed(number)
            self._journal.resume(number, stage, level=level, after=log.next_order)
            self._resting.discard(number)
            self._start(log.resume(number, level), asked)
            return
        if before.status is Status.PAUSED and not self._give_up(number):
            return
        config = trial.config
        if level > config[fidelity]:  # it has grown since
            grown = self._optimizer.space[fidelity]
            assert isinstance(grown, Fidelity)
            config = config | {fidelity: grown.high}
        onward = replace(
            asked,
            owner=self._owner,
            after=log.next_order,
            attempt=0,
            parent=number,
            assignment=replace(trial.assignment, level=level),
        )
        self._write_and_start(onward, config)

    def _clone(self, clone: Clone) -> None:
        """Start a changed copy of a run in place of another."""
        log = self._run.log
        replaced = log.observation(clone.replaces)
        if replaced is not None and replaced.status is Status.PAUSED:
            stopped = replace(replaced, status=Status.STOPPED, order=log.next_order)
            if not self._journal.tell(stopped, driven=self._driven(), text="replaced by a clone"):
                self._catch_up()
                return
            self._optimizer.record(stopped)
            self._retire()
        index = log.next_ask_index
        rng = np.random.default_rng([self._seed, self._index, index])
        space, parent = self._optimizer.space, log.trial(clone.parent)
        config = perturb(space, parent.config, clone.mutate, rng=rng)
        self._ask(config, index, parent=clone.parent, assignment=clone.assignment)

    def _give_up(self, number: int) -> bool:
        """Tell a paused trial of a driver that is gone lost, to go on from it; False if taken."""
        order = self._run.log.next_order
        taken = self._journal.lose(number, order=order)
        if taken:
            self._optimizer.record(Observation.lost(self._run.log.trial(number), order))
        else:
            self._catch_up()
        return taken

    def _held(self) -> frozenset[int]:
        """Trials that belong to other drivers which live."""
        others = self._others() if self._run.log.paused else {}
        living = {owner for owner, alive in others.items() if alive}
        if not living:
            return frozenset()
        return frozenset(n for n, asked in self._asked.items() if asked.owner in living)

    def _write_and_start(self, asked: Asked, config: dict[str, Any]) -> None:
        encoder = self._optimizer.encoder
        box = encoder.value_box((encoder.lower, encoder.upper))
        distributions = self._optimizer.space.distributions(config, box)
        trial = self._journal.ask(asked, config, distributions)
        if asked.confirming:
            self._excluded(trial.number)
        if any(self._others().values()) and self._superseded(trial):
            return
        self._asked[trial.number] = asked
        self._optimizer.add_pending(trial)
        self._checkpoints.hold(trial.number)
        if asked.parent is not None:
            self._inherit(trial)
        elif self._warm_start and not asked.confirming:
            self._checkpoints.descend_from_best(trial.number, self._checkpoint_key(trial))
        self._start(trial, asked)

    def _start(self, trial: Trial, asked: Asked) -> None:
        """Hand a stage of a written trial to the runner."""
        self._running[trial.number] = _Running(trial, asked, time.monotonic())
        for watcher in self._watchers:
            watcher.on_trial_start(self._run, trial)
        seed = np.random.SeedSequence([self._seed, asked.driver, asked.ask_index])
        self._runner.submit(
            Job(
                trial,
                int(seed.generate_state(1)[0]),
                self._checkpoints.folder(trial.number),
                asked.confirming,
                self._paid(trial),
                self._checkpoint_key(trial),
            )
        )

    def _checkpoint_key(self, trial: Trial) -> CheckpointKey:
        """Whose checkpoints `trial` may read: its own, and those of every run it descends from."""
        fidelity = self._optimizer.space.fidelity
        prints = [
            fingerprint(self._run.log.trial(number).config, without=fidelity)
            for number in self._lineage(trial)
        ]
        return CheckpointKey(self._checkpoints.study, prints[0], frozenset(prints[1:]))

    def _paid(self, trial: Trial) -> Paid:
        """What earlier stages of `trial` have used, its parent's included."""
        carried = self._run.log.carried(trial.number)
        if carried is None:
            return Paid()
        step = carried.reports[-1].step if carried.reports else -1
        return Paid(carried.cost or 0.0, carried.seconds or 0.0, step)

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
            same_config = space.key(entry.trial.config) == space.key(trial.config)
            if same_config and (same_parent or running):
                self._journal.lose(trial.number, order=self._run.log.next_order, superseded=True)
                self._catch_up()
                return True
        return False

    def _finish(self, outcome: Outcome) -> None:
        """Write how a trial of ours ended, then let the optimizer learn it."""
        running = self._running.pop(outcome.number)
        outcome = self._priced(outcome, running)
        log = self._run.log
        if outcome.cause is Cause.LOST and running.asked.attempt < _RETRIES:
            _log.warning("trial %d was lost (%s); trying again", outcome.number, outcome.text)
            self._journal.lose(outcome.number, order=log.next_order)
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
            order=log.next_order,
            ask_index=running.trial.ask_index,
            seconds=outcome.seconds,
            reports=log.reports(outcome.number),
            metrics=dict(outcome.metrics),
        )
        if observation.status is Status.PAUSED:
            stage = log.resumed(outcome.number)
            self._journal.pause(observation, stage, driven=self._driven())
        elif not self._journal.tell(observation, driven=self._driven(), text=outcome.text):
            _log.warning("another driver has taken over trial %d", outcome.number)
            self._catch_up()
            return
        if self._warm_start and not running.asked.confirming and self._is_best(observation):
            self._checkpoints.keep_best(outcome.number)
        self._optimizer.record(observation)
        self._resting.add(outcome.number)
        self._retire()
        if observation.cause is not None:
            last_line = outcome.text.strip().rpartition("\n")[2]
            _log.warning(
                "trial %d failed (%s): %s", outcome.number, observation.cause.value, last_line
            )
        for watcher in self._watchers:
            watcher.on_trial_end(self._run, running.trial, observation)
        if outcome.refusal is not None:
            raise outcome.refusal
        if observation.cause is Cause.ERROR and self._hopeless():
            raise StudyError(
                f"all of the first {_HOPELESS} trials raised, the last with {last_line!r}; mend "
                "train_fn and call again"
            )

    def _hopeless(self) -> bool:
        """Whether trials have only ever raised, which says more of `train_fn` than of configs."""
        told = self._run.log.observations
        return len(told) >= _HOPELESS and all(o.cause is Cause.ERROR for o in told)

    def _is_best(self, observation: Observation) -> bool:
        """Whether no finished trial that is known has done as well."""
        if observation.status is not Status.COMPLETED or observation.loss is None:
            return False
        sign = Direction(self._run.direction).sign
        return all(
            sign * observation.loss < sign * other.loss
            for other in self._run.log.observations
            if other.status is Status.COMPLETED
            and other.loss is not None
            and other.number not in self._confirming
        )

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
            self._run.log.report(trial.number, report)
            self._journal.report(trial.number, report)
            for watcher in self._watchers:
                watcher.on_report(self._run, trial, report)
            if self._interrupted:
                return Decision.STOP
            if not running.asked.confirming and self._spends_too_much(running, report):
                return Decision.STOP
            if self._schedule is None or running.asked.confirming:
                return Decision.CONTINUE
            return self._schedule.on_report(running.trial, report, self._run.log)

    # --- the budget ------------------------------------------------------------------------------

    def _driven(self) -> float:
        """Seconds that this call has been driving."""
        return time.monotonic() - self._began

    def _spent_out(self) -> str | None:
        self._run.ledger.set_elapsed(self._driven_before + self._driven())
        return self._run.ledger.spent_out()

    def _trials_left(self) -> bool:
        """Whether another trial fits beside those that are under way."""
        left = self._run.ledger.remaining_trials
        if left is None:
            return True
        counts = self._run.ledger.counts
        pending = [t.number for t in self._run.log.pending if not counts(t.number)]
        return sum(number not in self._confirming for number in pending) < left

    def _spends_too_much(self, running: _Running, report: Report) -> bool:
        """Whether a trial has reached its own cost limit, or the study one of its totals."""
        ledger = self._run.ledger
        ledger.set_elapsed(self._driven_before + self._driven())
        if ledger.remaining_seconds == 0.0:
            return True
        cost, paid = report.cost, self._paid(running.trial).cost
        if cost is None and self._run.cost in (None, SECONDS):
            cost = paid + time.monotonic() - running.started
        if cost is None:
            return False
        limit, left = ledger.budget.limits.cost, ledger.remaining_cost
        return (limit is not None and cost >= limit) or (left is not None and cost - paid >= left)

    def _excluded(self, number: int) -> None:
        self._confirming.add(number)
        self._run.ledger.exclude(number)

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
        self._take_checkpoints(entries)

    def _take_checkpoints(self, entries: Iterable[Entry]) -> None:
        """Hold what drivers that are gone have left, until the schedule has no use for it."""
        stored = self._checkpoints.numbers() - self._resting
        stored -= {entry.number for entry in self._orphans}
        others = {**self._others(), self._owner: True} if stored else {}
        for entry in entries:
            if entry.number in stored and not others.get(entry.asked.owner):
                self._checkpoints.hold(entry.number)
                self._resting.add(entry.number)
        self._retire()

    def _retire(self) -> None:
        """Let go of the checkpoints that nobody will go on from."""
        kept: frozenset[int] = frozenset()
        if self._schedule is not None and self._resting:
            kept = self._schedule.checkpoints_to_keep(self._run.log)
        for number in self._resting - kept:
            self._checkpoints.release(number)
        self._resting &= kept

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
        running = [e for e in entries if e.open and not e.paused and e.asked.owner != self._owner]
        if not running:
            return False
        others = self._others()
        abandoned = [entry for entry in running if not others.get(entry.asked.owner)]
        for entry in abandoned:
            order = 1 + max(e.last_order for e in entries)
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
            self._asked[entry.number] = entry.asked
            if entry.asked.confirming:
                self._excluded(entry.number)
        replay(self._optimizer, entries)
        driven.pop(self._owner, None)
        self._driven_before = sum(driven.values())

    def _lineage(self, trial: Trial) -> Iterator[int]:
        """Numbers of `trial` and of those whose checkpoints it goes back to, newest first."""
        yield trial.number
        while trial.parent is not None:
            trial = self._run.log.trial(trial.parent)
            yield trial.number

    def _inherit(self, trial: Trial) -> None:
        """Link the newest checkpoint that `trial` can go on from, and let go of lost attempts'."""
        log = self._run.log
        lineage = list(self._lineage(trial))[1:]
        for number in lineage:
            if self._checkpoints.folder(number).is_dir():
                self._checkpoints.link(number, trial.number, self._checkpoint_key(trial))
                break
        assert trial.parent is not None
        if log.trial(trial.parent).ask_index != trial.ask_index:  # a clone: a run of its own
            self._checkpoints.descend(trial.number)
        for number in lineage:
            observation = log.observation(number)
            if observation is not None and observation.cause is Cause.LOST:
                self._resting.discard(number)
                self._checkpoints.release(number)


def replay(optimizer: Optimizer, entries: Iterable[Entry]) -> None:
    """Let an optimizer know what it has not seen, in the order in which it happened."""
    log = optimizer.log
    events: list[tuple[tuple[int, int, int], Trial | Resumed | Observation]] = []
    for entry in entries:
        number = entry.number
        known = log.observation(number)
        if known is not None and known.status.finished:
            continue
        # A trial asked after k tells comes before tell k, which has order k.
        # One that another driver did, too, is in nobody's way.
        trial = replace(entry.trial, assignment=None) if entry.superseded else entry.trial
        events.append(((entry.asked.after, 0, number), trial))
        resumed = log.resumed(number)
        paused = resumed + (known is not None)
        for resumption in entry.resumptions[resumed:]:
            events.append(((resumption.after, 0, number), resumption))
        told = (*entry.pauses[paused:], *([entry.observation] if entry.observation else []))
        events.extend(((observation.order, 1, number), observation) for observation in told)
    for (_, _, number), event in sorted(events, key=lambda event: event[0]):
        match event:
            case Trial():
                optimizer.add_pending(event)
            case Resumed(level, _):
                log.resume(number, level)
            case Observation():
                optimizer.record(event)


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
