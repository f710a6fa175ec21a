"""A study that several drivers may write to: reading what others did, taking over from dead ones.

A driver may die at any moment. The next one, or another one that works on the same study, finds its
trials in storage and deals with each of them:

    running, result written    the result counts; only the final Optuna state was missing
    running, no result         lost; too many losses in a row make it an error of the config
    lost                       an orphan: continued from its checkpoint as a new trial, with the
                               same config, ask index and seed
    paused                     told lost when it is promoted, and continued as a new trial
    its checkpoints            held until the schedule has no use for them

Trials of drivers that live are left alone. A driver lives as long as its lease does
(:mod:`hpo.study.lease`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from hpo.optimizer.ask_tell import Optimizer
from hpo.study.checkpoints import RunCheckpoints
from hpo.study.storage import Asked, Entry, Resumed, StudyStorage
from hpo.trials import Cause, Observation, Trial

__all__ = ["RETRIES", "SharedStudy", "replay"]

RETRIES = 2  # attempts after a lost one, before the loss counts as the config's error


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
        self.asked: dict[int, Asked] = {}
        self.confirming: set[int] = set()
        self.orphans: deque[Entry] = deque()
        self.driven_before = 0.0

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
        """Return the other drivers of this study, and whether they live; none in memory."""
        owners = self._storage.owners() if self._storage.durable else {}
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
        self._learn(entries)
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
            if entry.observation is not None:
                self._storage.finalize(entry.observation)
            elif entry.released or entry.asked.attempt < RETRIES:
                self._storage.mark_lost(entry.number, order=order)
            else:
                failed = replace(Observation.lost(entry.trial, order), cause=Cause.ERROR)
                text = f"lost {RETRIES + 1} times, each time with its driver"
                self._storage.tell(failed, driven=0.0, text=text)
        return bool(abandoned)

    def _learn(self, entries: Iterable[Entry]) -> None:
        """Note how trials were asked for, and let the optimizer learn what it has not seen."""
        entries = list(entries)
        driven: dict[str, float] = {}
        for entry in entries:
            owner = entry.asked.owner
            driven[owner] = max(entry.driven, driven.get(owner, 0.0))
            self.note(entry.number, entry.asked)
        replay(self._optimizer, entries)
        driven.pop(self._owner, None)
        self.driven_before = sum(driven.values())

    def _hold_checkpoints(self, entries: Iterable[Entry]) -> None:
        """Hold what drivers that are gone have left, until the schedule has no use for it."""
        stored = self._checkpoints.unheld() - {entry.number for entry in self.orphans}
        others = {**self.others(), self._owner: True} if stored else {}
        self._checkpoints.take_over(
            entry.number
            for entry in entries
            if entry.number in stored and not others.get(entry.asked.owner)
        )


def replay(optimizer: Optimizer, entries: Iterable[Entry]) -> None:
    """Let an optimizer learn what it has not seen, in the order in which it happened.

    Args:
        optimizer: Optimizer whose log holds a part of the study, or nothing.
        entries: Every trial of the study, as stored.
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
    for (_, _, number), event in sorted(events, key=lambda event: event[0]):
        match event:
            case Trial():
                optimizer.add_pending(event)
            case Resumed(level, _):
                log.resume(number, level)
            case Observation():
                optimizer.record(event)
