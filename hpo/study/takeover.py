"""A study that several drivers may write to: reading what others did, taking over from dead ones.

A driver may die at any moment. The next one, or another one that works on the same study, finds its
trials in storage and deals with each of them:

    running, result written    the result counts; only the final Optuna state was missing
    running, result kept       the driver ran in this process and its storage was away: written now
    running, no result         lost; too many losses in a row make it an error of the config
    lost                       an orphan: continued from its checkpoint as a new trial, with the
                               same config, ask index and seed
    paused                     told lost when it is promoted, and continued as a new trial
    its checkpoints            held until the schedule has no use for them

Trials of drivers that live are left alone. A driver lives as long as its lease does
(:mod:`hpo.study.lease`).

Others may write to the study as well: its owner with `add_trial` and `enqueue_trial`, Optuna's
dashboard, another sampler. :class:`Elsewhere` is what they left:

    finished, fits the space   an observation outside the budget; the order in which it was learned
                               is recorded, so that a resumed study learns it at the same moment
    enqueued                   started in place of the next new config, and counted as one
    anything else              named in one warning
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import SpaceError, StudyError
from hpo.optimizer.ask_tell import Optimizer
from hpo.space import Float, Int, Scale, SearchSpace
from hpo.space.scalars import real, shown
from hpo.study.checkpoints import RunCheckpoints
from hpo.study.storage import EARLIER, FAILED, Asked, Entry, Resumed, StudyStorage
from hpo.trials import Cause, Observation, Report, Status, Trial
from hpo.trials.records import SECONDS

__all__ = [
    "RETRIES",
    "Elsewhere",
    "SharedStudy",
    "completed",
    "failure_cause",
    "keep_unwritten",
    "replay",
    "retried_numbers",
    "seconds_driven",
    "trial_seconds",
    "wanted_params",
]

_MOST_REASONS = 3  # trials that one warning explains

_log = logging.getLogger(__name__)

RETRIES = 2  # attempts after a lost one, before the loss counts as the config's error

# Results that could not be written, with their texts, by lease owner and trial
_unwritten: dict[tuple[str, int], tuple[Observation, str]] = {}


def keep_unwritten(owner: str, observation: Observation, text: str) -> None:
    """Keep a result that storage did not take for the next call in this process, which writes it.

    Args:
        owner: Lease owner of the driver that ends.
        observation: End of a stage of one of its trials.
        text: A traceback or a reason.
    """
    _unwritten[owner, observation.number] = (observation, text)


class SharedStudy:
    """What one driver knows of the study in storage, its own trials and others'.

    Args:
        storage: The study in storage.
        optimizer: Learns what others did; its log is this driver's view of the study.
        checkpoints: Folders that this driver holds.
        owner: Lease owner of this driver.

    Attributes:
        asked: How each trial was asked for, by number, other drivers' trials included.
        confirming: Runs of the recommendation, which are outside the budget.
        orphans: Lost trials that no driver has continued yet, to be continued here.
        driven_before: Seconds of driving by others, before this call.
        enqueued: Trials that somebody enqueued and no driver has started, first come first.
    """

    def __init__(
        self,
        storage: StudyStorage,
        optimizer: Optimizer,
        checkpoints: RunCheckpoints,
        owner: str,
    ) -> None:
        self._storage = storage
        self._optimizer = optimizer
        self._checkpoints = checkpoints
        self._owner = owner
        self._known_others: dict[str, bool] = {}
        self._warned: set[int] = set()
        self.asked: dict[int, Asked] = {}
        self.confirming: set[int] = set()
        self.orphans: deque[Entry] = deque()
        self.driven_before = 0.0
        self.enqueued: deque[FrozenTrial] = deque()

    def note(self, number: int, asked: Asked) -> None:
        """Remember how trial `number` was asked for; a confirming run is never charged."""
        self.asked[number] = asked
        if asked.confirming:
            self.confirming.add(number)
            self._optimizer.ledger.exclude(number)

    def is_ours(self, number: int) -> bool:
        """Return whether this driver asked for trial `number`."""
        return self.asked[number].owner == self._owner

    def others(self) -> dict[str, bool]:
        """Return the other drivers of this study, and whether they live."""
        owners = self._storage.owners()
        owners.pop(self._owner, None)
        return owners

    def others_changed(self) -> bool:
        """Return whether another driver works on this study, or has come or gone since last time.

        A driver alone need not read back what it wrote itself.
        """
        before, self._known_others = self._known_others, self.others()
        return any(self._known_others.values()) or self._known_others != before

    def locked(self) -> frozenset[int]:
        """Return the trials that belong to other drivers which live."""
        others = self.others() if self._optimizer.log.paused else {}
        living = {owner for owner, alive in others.items() if alive}
        if not living:
            return frozenset()
        return frozenset(n for n, asked in self.asked.items() if asked.owner in living)

    def sync_from_storage(self) -> None:
        """Learn what storage holds, and take over from drivers that are gone."""
        entries = self._storage.entries()
        if self._end_abandoned(entries):
            entries = self._storage.entries()
        elsewhere = Elsewhere.read(self._storage, self._optimizer)
        self._learn(entries, elsewhere.recorded)
        self._take_in(elsewhere)
        runs = {entry.number: (entry.asked.driver, entry.asked.ask_index) for entry in entries}
        continued = {  # a clone descends from a run, but does not continue it
            entry.trial.parent
            for entry in entries
            if entry.trial.parent is not None and runs.get(entry.trial.parent) == runs[entry.number]
        }
        orphans = [e for e in entries if e.lost and not e.superseded and e.number not in continued]
        others = self.others() if orphans else {}
        self.orphans = deque(e for e in orphans if not others.get(e.asked.owner))
        self._hold_checkpoints(entries)

    def learn_from_elsewhere(self) -> None:
        """Learn what others than `optimize` have put into the study since the last look."""
        self._take_in(Elsewhere.read(self._storage, self._optimizer))

    def warn_of_enqueued(self) -> None:
        """Name the enqueued trials that the search has left, at its end."""
        if self.enqueued:
            _log.warning(
                "enqueued trials that still wait: %s; the next call with a larger budget runs them "
                "first",
                ", ".join(str(waiting.number) for waiting in self.enqueued),
            )

    def _take_in(self, elsewhere: Elsewhere) -> None:
        """Learn added trials, note the enqueued ones, and name those that cannot be used."""
        log = self._optimizer.log
        new = elsewhere.in_order(log.next_order)
        if new:
            self._storage.record_added(new[0].order, [observation.number for observation in new])
        replay(self._optimizer, (), [*elsewhere.recorded, *new])
        self.enqueued = deque(elsewhere.enqueued)
        unused = {n: why for n, why in elsewhere.unused.items() if n not in self._warned}
        self._warned |= unused.keys()
        if unused:
            reasons = [f"{n}: {why}" for n, why in list(unused.items())[:_MOST_REASONS]]
            _log.warning(
                "trials of the study that were made elsewhere and cannot be used: %s (%s%s)",
                ", ".join(map(str, unused)),
                "; ".join(reasons),
                "; ..." if len(unused) > _MOST_REASONS else "",
            )

    def is_superseded(self, trial: Trial) -> bool:
        """Give up `trial` if another driver has just written a trial that does the same.

        Such a trial has a lower number and the same config; it is running, or continues the same
        lost trial.

        Returns:
            Whether it was given up.
        """
        if not any(self.others().values()):
            return False
        space = self._optimizer.space
        for entry in self._storage.entries():
            if entry.number >= trial.number:
                break
            if entry.asked.owner == self._owner:
                continue
            same_parent = trial.parent is not None and entry.trial.parent == trial.parent
            running = entry.observation is None
            same_config = space.key(entry.trial.config) == space.key(trial.config)
            if same_config and (same_parent or running):
                order = self._optimizer.log.next_order
                self._storage.mark_lost(trial.number, order=order, superseded=True)
                self.sync_from_storage()
                return True
        return False

    def take(self, number: int) -> bool:
        """Mark a paused trial of a dead driver as lost, so that its run can be continued here.

        Returns:
            False if another driver was faster.
        """
        order = self._optimizer.log.next_order
        taken = self._storage.mark_lost(number, order=order)
        if taken:
            self._optimizer.record(Observation.lost(self._optimizer.log.trial(number), order))
        else:
            self.sync_from_storage()
        return taken

    def _end_abandoned(self, entries: Iterable[Entry]) -> bool:
        """Finish running trials of dead drivers: as told, as lost, or as an error; any such?"""
        running = [e for e in entries if e.open and not e.paused and e.asked.owner != self._owner]
        if not running:
            return False
        others = self.others()
        abandoned = [entry for entry in running if not others.get(entry.asked.owner)]
        for entry in abandoned:
            order = 1 + max(e.last_order for e in entries)
            kept = _unwritten.pop((entry.asked.owner, entry.number), None)
            if entry.observation is not None:
                self._storage.finalize(entry.observation)
            elif kept is not None:
                self._write_kept(entry, replace(kept[0], order=order), kept[1])
            elif entry.released or entry.asked.attempt < RETRIES:
                self._storage.mark_lost(entry.number, order=order)
            else:
                failed = replace(Observation.lost(entry.trial, order), cause=Cause.ERROR)
                text = f"lost {RETRIES + 1} times, each time with its driver"
                self._storage.tell(failed, driven=0.0, text=text)
        return bool(abandoned)

    def _write_kept(self, entry: Entry, observation: Observation, text: str) -> None:
        try:
            if observation.status is Status.PAUSED:
                self._storage.pause(observation, len(entry.pauses), driven=entry.driven)
            else:
                self._storage.tell(observation, driven=entry.driven, text=text)
        except StudyError:  # away again
            keep_unwritten(entry.asked.owner, observation, text)
            raise

    def _learn(self, entries: Iterable[Entry], added: Iterable[Observation]) -> None:
        """Note how trials were asked for, and let the optimizer learn what it has not seen."""
        entries = list(entries)
        for entry in entries:
            self.note(entry.number, entry.asked)
        replay(self._optimizer, entries, added)
        driven = seconds_driven(entries)
        driven.pop(self._owner, None)
        self.driven_before = sum(driven.values())

    def _hold_checkpoints(self, entries: Iterable[Entry]) -> None:
        """Hold what drivers that are gone have left, until the schedule has no use for it."""
        lost = {entry.number for entry in self.orphans}
        stored = self._checkpoints.unheld() - lost
        others = {**self.others(), self._owner: True} if stored else {}
        self._checkpoints.take_over(
            (e.number for e in entries if e.number in stored and not others.get(e.asked.owner)),
            (
                e.trial
                for e in entries
                if e.number in lost or (e.open and not e.paused and e.asked.owner != self._owner)
            ),
        )


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a study holds that `optimize` did not ask for.

    Attributes:
        recorded: Added trials whose order is recorded, by it.
        new: Other added trials, by number; their order is still to be set.
        enqueued: Trials that wait to be run, by number.
        unused: Why a trial can be neither learned nor run, by number.
    """

    recorded: list[Observation] = field(default_factory=list)
    new: list[Observation] = field(default_factory=list)
    enqueued: list[FrozenTrial] = field(default_factory=list)
    unused: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, storage: StudyStorage, optimizer: Optimizer) -> Elsewhere:
        """Return what a study holds now and the optimizer has not learned; nothing is written.

        Args:
            storage: The study.
            optimizer: Optimizer with its space and cost.
        """
        trials, orders = storage.made_elsewhere()
        retried = retried_numbers(trials)
        found = cls()
        earlier: set[str] = set()
        for trial in trials:
            number, space = trial.number, optimizer.space
            key = trial.user_attrs.get(EARLIER)
            if key in earlier:  # two drivers gave the same history at once: the first counts
                continue
            if key is not None:
                earlier.add(key)
            if optimizer.log.observation(number) is not None:
                continue
            try:
                if trial.state is TrialState.WAITING:
                    wanted = wanted_params(trial)
                    _check_values(space, wanted)
                    if space.where is not None:
                        completed(optimizer, wanted, {})
                    found.enqueued.append(trial)
                elif not trial.state.is_finished():
                    found.unused[number] = "it has not ended"
                elif number in orders:
                    added = _added(trial, space, optimizer.cost_unit)
                    found.recorded.append(replace(added, order=orders[number]))
                elif number not in retried:
                    found.new.append(_added(trial, space, optimizer.cost_unit))
            except SpaceError as mismatch:
                found.unused[number] = str(mismatch)
        found.recorded.sort(key=lambda observation: observation.order)
        return found

    def in_order(self, order: int) -> list[Observation]:
        """Return the new trials as told one after another from `order` on."""
        return [replace(observation, order=order + k) for k, observation in enumerate(self.new)]


def seconds_driven(entries: Iterable[Entry]) -> dict[str, float]:
    """Return how long each driver of a study has been driving, by the owner of its lease.

    Args:
        entries: Trials of the study.
    """
    driven: dict[str, float] = {}
    for entry in entries:
        owner = entry.asked.owner
        driven[owner] = max(entry.driven, driven.get(owner, 0.0))
    return driven


def wanted_params(waiting: FrozenTrial) -> dict[str, Any]:
    """Return the params that somebody wants for a trial that waits."""
    return {**waiting.params, **waiting.system_attrs.get("fixed_params", {})}


def completed(optimizer: Optimizer, params: Mapping[str, Any], rest: Mapping[str, Any]) -> Any:
    """Return the config with all of `params` that are active; the others are as in `rest`.

    A parameter that `rest` lacks is at its center. Where `where` forbids that config, the others
    are as in the nearest one with `params` that it allows.

    Args:
        optimizer: Optimizer with the space.
        params: Values that somebody wants.
        rest: A whole config of the space.

    Raises:
        SpaceError: For a value that the space does not have, or if `where` allows no config with
            `params` that can be found.

    Example:
        >>> from hpo import Float, Optimizer
        >>> optimizer = Optimizer({"x": Float(0, 1), "y": Float(0, 1)})
        >>> completed(optimizer, {"x": 0.5}, {"x": 0.1, "y": 0.2})
        {'x': 0.5, 'y': 0.2}
    """
    space, encoder = optimizer.space, optimizer.encoder
    _check_values(space, params)

    def with_rest(rest: Mapping[str, Any]) -> dict[str, Any]:
        merged = {**rest, **params}
        center = encoder.decode(encoder.encode([merged]))[0]
        active = space.active(center | merged)
        config = {name: merged.get(name, center.get(name)) for name in active}
        return space.canonical(config, extrapolate=True)

    config = with_rest(rest)
    if space.allows(config):
        return config
    pool = encoder.allowed_rows()
    nearest = np.argsort(np.sum((pool - encoder.encode([config])) ** 2, axis=1), kind="stable")
    others = (with_rest(other) for other in encoder.decode(pool[nearest]))
    allowed = next((other for other in others if space.allows(other)), None)
    if allowed is None:
        raise SpaceError(f"`where` ({space.where}) forbids {shown(dict(params))}")
    return allowed


def _check_values(space: SearchSpace, params: Mapping[str, Any]) -> None:
    """Raise SpaceError for a name or value that the space does not have."""
    unknown = [name for name in params if name not in space]
    if unknown:
        raise SpaceError(f"the space has no {', '.join(map(repr, unknown))}")
    for name, value in params.items():
        parameter = space[name]
        if isinstance(parameter, Scale) or (
            isinstance(parameter, Float | Int) and name in space.extrapolated
        ):
            parameter.check(value, name, extrapolate=True)
        else:
            parameter.check(value, name)


def _added(trial: FrozenTrial, space: SearchSpace, cost: str | None) -> Observation:
    """The observation that a finished trial of somebody else is.

    Raises:
        SpaceError: If it does not fit the space, or says nothing.
    """
    unknown = [name for name in trial.params if name not in space]
    if unknown:
        raise SpaceError(f"the space has no {', '.join(map(repr, unknown))}")
    params = dict(trial.params)
    if space.fidelity is not None:
        params.setdefault(space.fidelity, space[space.fidelity].limits[1])
    active = space.active(params)
    config = space.validate({n: params[n] for n in active if n in params}, extrapolate=True)
    highest = math.inf if space.fidelity is None else config[space.fidelity]
    reports = tuple(
        Report(step, loss)
        for step, loss in sorted(trial.intermediate_values.items())
        if 0 <= step <= highest
    )
    status, loss, cause = Status.COMPLETED, None, None
    if trial.state is TrialState.COMPLETE:
        loss = trial.value
    elif trial.state is TrialState.PRUNED:
        status, loss = Status.STOPPED, reports[-1].loss if reports else None
        if loss is None:
            raise SpaceError("it was pruned before it had reported a loss")
    else:
        cause = failure_cause(trial)
    if cause is None and (loss is None or not math.isfinite(loss)):
        cause, loss = Cause.DIVERGED, None
    seconds = trial_seconds(trial) or None  # 0 was not measured
    paid = seconds if cost == SECONDS else None
    told = real(trial.user_attrs.get(cost)) if cost else None
    if told is not None and math.isfinite(told) and told >= 0:
        paid = told
    return Observation(
        number=trial.number,
        config=config,
        loss=loss,
        cost=paid,
        status=status if cause is None else Status.FAILED,
        cause=cause,
        order=0,
        ask_index=None,
        seconds=seconds,
        reports=reports,
    )


def retried_numbers(trials: Iterable[FrozenTrial]) -> set[int]:
    """Return the numbers of failed trials that Optuna's heartbeat has repeated.

    Args:
        trials: All trials of a study; a repetition names every attempt before it.

    Example:
        >>> import optuna
        >>> again = optuna.trial.create_trial(
        ...     state=optuna.trial.TrialState.WAITING,
        ...     system_attrs={"failed_trial": 3, "retry_history": [3, 4]},
        ... )
        >>> retried_numbers([again])
        {3, 4}
    """
    found: set[int] = set()
    for trial in trials:
        attributes = trial.system_attrs
        if "failed_trial" in attributes:
            found |= {attributes["failed_trial"], *attributes.get("retry_history", ())}
    return found


def trial_seconds(trial: FrozenTrial) -> float | None:
    """Return the wall-clock time of a trial; None where it is unknown or its clocks disagree.

    Optuna gives a trial that never ran the same start and end, so its time is 0.

    Args:
        trial: Trial of an Optuna study, finished.

    Example:
        >>> import optuna
        >>> trial_seconds(optuna.trial.create_trial(value=1.0))
        0.0
    """
    start, end = trial.datetime_start, trial.datetime_complete
    if start is None or end is None:
        return None
    if (start.tzinfo is None) != (end.tzinfo is None):  # a time without a zone is local
        start, end = start.astimezone(), end.astimezone()
    seconds = (end - start).total_seconds()
    return seconds if seconds >= 0 else None


def failure_cause(trial: FrozenTrial) -> Cause:
    """Return the cause that the user named in the attribute "failed", else an error.

    Args:
        trial: Failed trial of an Optuna study.

    Example:
        >>> import optuna
        >>> failed = optuna.trial.create_trial(
        ...     state=optuna.trial.TrialState.FAIL, user_attrs={"failed": "oom"}
        ... )
        >>> failure_cause(failed)
        <Cause.OOM: 'oom'>
    """
    named = trial.user_attrs.get(FAILED)
    return Cause(named) if named in [cause.value for cause in Cause] else Cause.ERROR


def replay(
    optimizer: Optimizer, entries: Iterable[Entry], added: Iterable[Observation] = ()
) -> None:
    """Let an optimizer learn what it has not seen, in the order in which it happened.

    Args:
        optimizer: Optimizer whose log holds a part of the study, or nothing.
        entries: Every trial of the study, as stored.
        added: Trials that others added to the study; they are outside the budget.
    """
    log = optimizer.log
    events: list[tuple[tuple[int, int, int], Trial | Resumed | Observation]] = []
    for entry in entries:
        number = entry.number
        known = log.observation(number)
        if known is not None and known.status.finished:
            continue
        # A trial asked after k tells comes before tell k, which has order k.
        # One that is superseded by another driver's identical trial does not occupy a rung.
        trial = replace(entry.trial, assignment=None) if entry.superseded else entry.trial
        events.append(((entry.asked.after, 0, number), trial))
        resumed = log.resumed(number)
        paused = resumed + (known is not None)
        for resumption in entry.resumptions[resumed:]:
            events.append(((resumption.after, 0, number), resumption))
        told = (*entry.pauses[paused:], *([entry.observation] if entry.observation else []))
        events.extend(((observation.order, 1, number), observation) for observation in told)
    for observation in added:
        if log.observation(observation.number) is None:
            optimizer.ledger.exclude(observation.number)
            events.append(((observation.order, 1, observation.number), observation))
    for (_, _, number), event in sorted(events, key=lambda event: event[0]):
        match event:
            case Trial():
                optimizer.add_pending(event)
            case Resumed(level, _):
                log.resume(number, level)
            case Observation():
                optimizer.record(optimizer.as_priced_now(event))
