"""The trial log of a study, stored as an Optuna study.

A trial's config, scale and fidelity are Optuna params, and the losses it reports are intermediate
values. The rest is one JSON attribute per transition, split where a storage holds only short texts
(:mod:`hpo.trials.attributes`):

========================  ======================================================================
study attributes
`scaletune:study`         schema, space, direction, cost unit, seed, scheduler, objectives
`scaletune:other_tasks`   digest of the runs of each other task that the study learns from
`scaletune:call`          how the command line started it: function, budget, workers and the like
`scaletune:where`         name of the input predicate that the study was searched with last
`scaletune:id`            unique id, whatever the study's name, for the checkpoints on disk
`scaletune:driver:<k>`    lease of the driver with index k
`scaletune:wanted:<o>`    index that the driver with lease owner o wants to claim
`scaletune:added:<k>`     numbers of trials that others added, learned as tells k, k + 1, ..
trial attributes
`scaletune:asked`         ask index, driver, owner, parent, attempt, rung ("place"), prediction
                          ("belief"); written with the trial
`scaletune:paused:<k>`    end of stage k, as `told`; the Optuna state stays RUNNING
`scaletune:resumed:<k>`   level of stage k + 1, and how many tells were known
`scaletune:told`          status, cause, loss, cost, order, reports of the last stage, traceback
`scaletune:lost`          order; the attempt has no result, and another one continues it
`scaletune:released`      its driver gave it up cleanly, as after Ctrl-C
`scaletune:earlier`       identity of a run that was given as `history`, an added trial
`scaletune:claimed:<o>`   of an enqueued trial: `asked` and config, by the driver with owner o that
                          tries to start it; whose claim succeeds writes `asked` and the params
========================  ======================================================================

One writer per trial. A trial is created whole, so a crash leaves no empty one. Result first, state
last: a result is written before the Optuna state changes, and a finished trial accepts no more
attributes. Hence the result that is there when the state becomes final is the result, whichever
driver made it final, and a finished trial without one is lost. Nothing is ever counted twice.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import StudyError
from hpo.space import SearchSpace
from hpo.space.scalars import shown
from hpo.study.checkpoints import OWNER_FILE
from hpo.study.lease import DRIVER_KEY, RETURN, Lease, ObserverClock, claim_index
from hpo.trials import Cause, Observation, Prediction, Report, RungAssignment, Status, Trial
from hpo.trials.attributes import read as read_attribute
from hpo.trials.attributes import split as split_attribute
from hpo.trials.pareto import Objectives
from hpo.trials.read_runs import run_keys
from hpo.trials.records import SECONDS

SCHEMA = 2
DEFAULT_STORAGE = "sqlite:///scaletune.db"

_REPORT_INTERVAL = 0.2  # seconds between intermediate values written for one trial
_SQLITE_PATIENCE = 60.0  # seconds to wait for another driver's write
_YIELD = 0.02  # seconds between looks for the unique id
_ID_PATIENCE = 10.0  # seconds to wait for the driver that makes the unique id
_CREATION_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # seconds before creating what others create
_RACE_SIGNS = (  # what databases say of something that another connection is creating
    "already exists",
    "unique",
    "duplicate",
    "locked",
    "deadlock",
    "concurrent",
    "no such table",
    "does not exist",
)
_RETRY_PAUSES = (0.02, 0.2)  # seconds before a call that failed is made again
_SERVER_PATIENCE = 120.0  # seconds to wait for a database server that has gone away
_LONGEST_NAME = 200  # characters
_BAD_LETTERS = re.compile("[\0\ud800-\udfff]")  # NUL, and surrogates without their partner
_SHORTEST_SECRET = 3  # letters; what is shorter stands in many words
_OPTIONS = frozenset(  # of an SQLite URL
    "cache cached_statements check_same_thread detect_types immutable isolation_level mode modeof "
    "nolock psow timeout uri vfs".split()
)
_TRUE = ("true", "t", "yes", "y", "on", "1")  # of an option of a URL
_SQLITE_FILES = ("sqlite", "sqlite+pysqlite")  # schemes of a URL that is a path

T = TypeVar("T")

_log = logging.getLogger(__name__)

_STUDY = "scaletune:study"
_CALL = "scaletune:call"
_ID = "scaletune:id"
_ADDED = "scaletune:added:"
_OTHER_TASKS = "scaletune:other_tasks"
_PREDICATE = "scaletune:where"
_ASKED = "scaletune:asked"
_PAUSED = "scaletune:paused:"
_RESUMED = "scaletune:resumed:"
_TOLD = "scaletune:told"
_LOST = "scaletune:lost"
_RELEASED = "scaletune:released"
EARLIER = "scaletune:earlier"
FAILED = "failed"  # the user attribute of a failed trial that may hold a cause
_CLAIMED = "scaletune:claimed:"

_STATES = {
    Status.COMPLETED: TrialState.COMPLETE,
    Status.STOPPED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}


class ForeignStudyError(StudyError):
    """A study that was not made by `optimize`.

    Args:
        message: What to say where such a study cannot be used.
        study: The study.
    """

    def __init__(self, message: str, study: optuna.Study) -> None:
        super().__init__(message)
        self.study = study


@dataclass(frozen=True, slots=True)
class Asked:
    """What is written when a trial is created.

    Attributes:
        ask_index: Index of the ask among those of the driver.
        driver: Index of the driver that asked.
        owner: Lease owner of that driver.
        after: Number of tells known by then.
        attempt: Number of attempts at this trial that were lost before.
        parent: Trial from whose checkpoint it starts.
        confirming: Whether it is a run of the recommendation, outside the budget.
        prediction: Outcome that the models predicted.
        assignment: Rung of a scheduler.
    """

    ask_index: int
    driver: int
    owner: str
    after: int
    attempt: int = 0
    parent: int | None = None
    confirming: bool = False
    prediction: Prediction | None = None
    assignment: RungAssignment | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is stored; the keys are an interface and keep their first names."""
        return {
            "ask_index": self.ask_index,
            "driver": self.driver,
            "owner": self.owner,
            "after": self.after,
            "attempt": self.attempt,
            "parent": self.parent,
            "confirming": self.confirming,
            "belief": None if self.prediction is None else self.prediction.to_json(),
            "place": None if self.assignment is None else self.assignment.to_json(),
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Asked:
        """Return what `to_json` stored."""
        rest = {key: value for key, value in stored.items() if key not in ("belief", "place")}
        belief, place = stored["belief"], stored.get("place")
        return cls(
            **rest,
            prediction=None if belief is None else Prediction.from_json(belief),
            assignment=None if place is None else RungAssignment.from_json(place),
        )


@dataclass(frozen=True, slots=True)
class Resumed:
    """Resumption of a paused trial.

    Attributes:
        level: Level to train it up to.
        after: Number of tells known by then.
    """

    level: int
    after: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One trial as stored.

    Attributes:
        trial: The trial, with the rung that it was asked for.
        asked: How it was asked for.
        observation: Its result, or None while it runs or is paused; a lost attempt has the cause
            `lost`.
        open: Whether its Optuna state is still RUNNING.
        superseded: Whether it was lost because another trial does the same.
        released: Whether its driver gave it up cleanly.
        driven: Seconds that its owner had been driving when it was told, paused or released.
        pauses: Results of its paused stages, in order.
        resumptions: Its resumptions, one after each pause but perhaps the last.
    """

    trial: Trial
    asked: Asked
    observation: Observation | None
    open: bool
    superseded: bool
    released: bool
    driven: float
    pauses: tuple[Observation, ...] = ()
    resumptions: tuple[Resumed, ...] = ()

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.trial.number

    @property
    def paused(self) -> bool:
        """Whether it is paused, to be resumed."""
        return self.observation is None and len(self.pauses) > len(self.resumptions)

    @property
    def assignment(self) -> RungAssignment | None:
        """Its current rung."""
        assignment = self.trial.assignment
        if assignment is None or not self.resumptions:
            return assignment
        return replace(assignment, level=self.resumptions[-1].level)

    @property
    def last_order(self) -> int:
        """Order of the last tell about it; -1 before any."""
        told = self.observation or (self.pauses[-1] if self.pauses else None)
        return -1 if told is None else told.order

    @property
    def lost(self) -> bool:
        """Whether the attempt was lost."""
        return self.observation is not None and self.observation.cause is Cause.LOST


class StudyStorage:
    """Reads and writes one study. Every method raises `StudyError` if the storage fails.

    Make one with `open` or `read`.

    Attributes:
        study: The Optuna study.
        storage: The Optuna storage that holds it.
        durable: Whether it outlives this process.
        seed: Seed of the call that started it.

    Example:
        >>> from hpo import Float
        >>> space = SearchSpace({"x": Float(0, 1)})
        >>> storage = StudyStorage.open(name=None, storage=None, space=space,
        ...                             direction="minimize", cost=None, seed=0)
        >>> asked = Asked(ask_index=0, driver=0, owner="me", after=0)
        >>> trial = storage.ask(asked, {"x": 0.5}, space.distributions({"x": 0.5}, {}))
        >>> storage.mark_lost(trial.number, order=0)
        True
        >>> [entry.lost for entry in storage.entries()]
        [True]
    """

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, space: SearchSpace, where: _Where
    ) -> None:
        self.study = study
        self._space = space
        self.durable = not isinstance(storage, InMemoryStorage)
        self.storage = storage
        self._where = where
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._ids: dict[int, int] = {}
        self._reported: dict[int, float] = {}
        self._written: dict[int, int] = {}  # reports of a trial that earlier stages have written
        self._closed: dict[int, Entry] = {}
        self._ours: set[int] = set()  # trials that optimize() made or has claimed
        self._clock = ObserverClock()
        self._largest_step = _largest_step(storage)
        self._step_unit = _step_unit(space, self._largest_step)
        self._said_too_large = False
        self.seed = 0

    @classmethod
    def open(
        cls,
        *,
        name: str | None,
        storage: str | BaseStorage | None,
        space: SearchSpace,
        direction: Literal["minimize", "maximize"],
        cost: str | None,
        seed: int,
        scheduler: str | None = None,
        objectives: Objectives | None = None,
    ) -> StudyStorage:
        """Create a study, or open it to continue.

        Under a scheduler the fidelity may have grown since; the rest must be what it was.

        Args:
            name: Name of the study; None keeps it in memory.
            storage: Optuna storage or its URL; None for the default file.
            space: The search space.
            direction: Direction of the loss.
            cost: Declared unit of the costs.
            seed: Seed of the study.
            scheduler: Settings of the scheduler, as text.
            objectives: Objectives and constraints; None for one loss.

        Raises:
            StudyError: If the storage cannot be used, or if the stored study has another space,
                direction or cost unit, comes from a newer scaletune, or was not made by `optimize`.
        """
        where = _Where("memory") if name is None else _Where.of(storage)
        with _storage_errors(where):
            backend = _created(lambda: _backend(name, storage))
            with _quiet_optuna():
                study = _created(
                    lambda: optuna.create_study(
                        storage=backend, study_name=name, load_if_exists=True, direction=direction
                    )
                )
            opened = _repeated(lambda: cls(study, backend, space, where))
            opened.seed = seed
            header = {
                "schema": SCHEMA,
                "space": space.fingerprint(),
                "direction": direction,
                "cost": cost,
                "seed": seed,
                "scheduler": scheduler,
            }
            if objectives is not None:
                header["objectives"] = objectives.to_json()
            # Trials come after the header, which may be written by another driver just now.
            found = bool(_repeated(lambda: study.get_trials(deepcopy=False)))
            attributes = _repeated(lambda: study.user_attrs)
            directions = _repeated(lambda: study.directions)
            with _damage_errors(where, "header"):
                stored = read_attribute(attributes, _STUDY)
                if stored is not None:
                    undeclared = cost == SECONDS and stored["cost"] is None
                    if undeclared and opened._counts_seconds():
                        header |= {"cost": None}  # an earlier version counted them unasked
                    _check_same_study(study.study_name, stored, header, space)
                    header |= {"cost": cost}
            if stored is not None:
                opened.seed = stored["seed"]
                if stored["space"] == header["space"] and stored["cost"] == cost:
                    return opened
                header |= {"seed": stored["seed"]}
            elif found or len(directions) != 1:
                raise StudyError(
                    f"the study {study.study_name!r} in {where} was not made by optimize(); "
                    "choose another name="
                )
            for key, value in split_attribute(_STUDY, header):
                opened._set_study_attribute(key, value)
            return opened

    @classmethod
    def read(
        cls, *, name: str, storage: str | BaseStorage | None
    ) -> tuple[StudyStorage, dict[str, Any]]:
        """Return an existing study and its header.

        The header holds schema, space, direction, cost, seed and objectives.

        Args:
            name: Name of the study.
            storage: Optuna storage or its URL; None for the default file.

        Raises:
            StudyError: If there is none of that name, or it cannot be read here.
        """
        where = _Where.of(storage)
        _require_file(storage)
        with _storage_errors(where):
            backend = _created(lambda: _backend(name, storage))
            try:
                with _quiet_optuna():
                    study = _repeated(lambda: optuna.load_study(study_name=name, storage=backend))
            except KeyError:
                known = sorted(_repeated(lambda: optuna.get_all_study_names(backend)))
                if name in known:
                    raise
                raise StudyError(
                    f"there is no study {name!r} in {where}; it has {known or 'none'}"
                ) from None
            attributes = _repeated(lambda: study.user_attrs)
            with _damage_errors(where, "header"):
                header = read_attribute(attributes, _STUDY)
        if header is None:
            raise ForeignStudyError(
                f"the study {name!r} in {where} was not made by optimize(); name one that was",
                study,
            )
        with _damage_errors(where, "header"):
            _check_schema(name, header)
            space = SearchSpace.from_fingerprint(header["space"])
            kept = ("schema", "space", "direction", "cost", "seed", "objectives")
            header = {key: header.get(key) for key in kept}
        with _storage_errors(where):
            return _repeated(lambda: cls(study, backend, space, where)), header

    def _counts_seconds(self) -> bool:
        """Whether every cost is that of measured seconds, as without cost= in earlier versions."""
        told = [o for entry in self.entries() for o in (*entry.pauses, entry.observation) if o]
        return all(o.cost in (None, o.seconds) for o in told)

    @staticmethod
    def names(storage: str | BaseStorage | None) -> list[str]:
        """Return the names of the studies in a storage, sorted.

        Args:
            storage: Optuna storage or its URL; None for the default file.

        Raises:
            StudyError: If it cannot be read.
        """
        where = _Where.of(storage)
        _require_file(storage)
        with _storage_errors(where):
            return sorted(optuna.get_all_study_names(_backend("", storage)))

    @staticmethod
    def all_studies(storage: str | BaseStorage | None) -> list[optuna.Study]:
        """Return the studies in a storage, by name.

        Args:
            storage: Optuna storage or its URL; None for the default file.

        Raises:
            StudyError: If it cannot be read.
        """
        where = _Where.of(storage)
        _require_file(storage)
        with _storage_errors(where), _quiet_optuna():
            backend = _backend("", storage)
            names = sorted(optuna.get_all_study_names(backend))
            return [optuna.load_study(study_name=name, storage=backend) for name in names]

    @property
    def call(self) -> dict[str, Any] | None:
        """How the command line started the study; None for one that was started in Python."""
        with _damage_errors(self._where, "call"):
            return read_attribute(self._attributes(), _CALL)

    def remember_call(self, call: Mapping[str, Any]) -> None:
        """Store how the command line started the study.

        Args:
            call: What JSON can hold.
        """
        if self.call != call:
            for key, value in split_attribute(_CALL, dict(call)):
                self._set_study_attribute(key, value)

    def entries(self) -> list[Entry]:
        """Return every trial that `optimize` asked for, by number."""
        with _storage_errors(self._where):
            stored = _repeated(lambda: self.study.get_trials(deepcopy=False))
        entries = []
        for trial in stored:
            with _damage_errors(self._where, f"trial {trial.number}"):
                entry = self._closed.get(trial.number) or _entry(trial, self._space)
            if entry is None:
                continue
            if not entry.open:  # it does not change any more
                self._closed[entry.number] = entry
            entries.append(entry)
        return entries

    def starts(self) -> dict[int, datetime]:
        """Return when each trial was started, by number; without those that never were."""
        with _storage_errors(self._where):
            stored = _repeated(lambda: self.study.get_trials(deepcopy=False))
        return {
            trial.number: trial.datetime_start
            for trial in stored
            if trial.datetime_start is not None
        }

    def ask(self, asked: Asked, config: dict[str, Any], distributions: dict[str, Any]) -> Trial:
        """Create a running trial, whole.

        Args:
            asked: How it is asked for.
            config: Its config.
            distributions: Optuna distributions of the config's values.

        Returns:
            The trial, with its number.
        """
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=config,
            distributions=distributions,
            user_attrs=dict(split_attribute(_ASKED, asked.to_json())),
        )
        tried = False

        def create() -> int:
            nonlocal tried
            stored = self._stored(asked) if tried else None
            tried = True
            if stored is not None:  # the connection broke after it was stored
                return stored
            return self.storage.create_new_trial(self._study_id, template_trial=template)

        with _storage_errors(self._where):
            identity = _repeated(create)
            number = _repeated(lambda: self.storage.get_trial_number_from_id(identity))
        self._ids[number] = identity
        return Trial(
            number, config, asked.ask_index, asked.prediction, asked.parent, asked.assignment
        )

    def _stored(self, asked: Asked) -> int | None:
        """Storage id of the trial that this driver created for `asked`, if it did."""
        text = json.dumps(asked.to_json())
        for trial in self.storage.get_all_trials(self._study_id, deepcopy=False):
            ours = json.dumps(read_attribute(trial.user_attrs, _ASKED)) == text
            if ours and trial.number not in self._ids:
                return trial._trial_id
        return None

    def made_elsewhere(self) -> tuple[list[FrozenTrial], dict[int, int]]:
        """Return the trials that `optimize` did not ask for, and the orders of those recorded.

        Returns:
            Trials by number; and by number, the order of its tell, where `record_added` wrote it.
        """
        with _storage_errors(self._where):
            stored = _repeated(lambda: self.study.get_trials(deepcopy=False))
        others = [t for t in stored if t.number not in self._ours and _is_foreign(t)]
        self._ours = {t.number for t in stored} - {t.number for t in others}
        attributes = self._attributes() if others else {}
        orders: dict[int, int] = {}
        for key in attributes:
            first = key.removeprefix(_ADDED)
            if key == first or not first.isdecimal():
                continue
            with _damage_errors(self._where, "record of added trials"):
                numbers = (read_attribute(attributes, key) or {"numbers": []})["numbers"]
            for order, number in enumerate(numbers, int(first)):
                orders[number] = min(order, orders.get(number, order))
        return others, orders

    def add_earlier(self, observations: Sequence[Observation], cost: str | None) -> int:
        """Write earlier runs as trials that were added to the study, each only once.

        A run that is there already, by its identity (`Runs.keys`), is not written again.

        Args:
            observations: Runs in the study's space and cost unit.
            cost: Declared unit of the costs.

        Returns:
            How many were new.
        """
        if not observations:
            return 0
        with _storage_errors(self._where):
            stored = _repeated(lambda: self.study.get_trials(deepcopy=False))
        known = {trial.user_attrs.get(EARLIER) for trial in stored}
        new = 0
        for key, observation in zip(run_keys(observations), observations, strict=True):
            if key in known:
                continue
            template = _earlier_trial(observation, self._space, key, cost)
            with _storage_errors(self._where):
                _repeated(partial(self.storage.create_new_trial, self._study_id, template))
            new += 1
        return new

    def record_added(self, order: int, numbers: Sequence[int]) -> None:
        """Write that trials which others added were learned, in this order.

        Args:
            order: Order of the first tell.
            numbers: Their numbers.
        """
        for key, value in split_attribute(f"{_ADDED}{order}", {"numbers": list(numbers)}):
            self._set_study_attribute(key, value)

    def start_enqueued(
        self,
        waiting: FrozenTrial,
        asked: Asked,
        config: dict[str, Any],
        distributions: dict[str, Any],
    ) -> Trial | None:
        """Start a trial that somebody enqueued, in its place.

        The claim holds all that another driver needs to continue it, and comes first.

        Args:
            waiting: The trial as it waits.
            asked: How it is asked for.
            config: Its whole config.
            distributions: Optuna distributions of the config's values.

        Returns:
            The trial; None if another driver was faster.
        """
        number, identity = waiting.number, waiting._trial_id
        claim = {"asked": asked.to_json(), "config": config}
        with _storage_errors(self._where), _unless_finished():
            self._ids[number] = identity
            for key, value in split_attribute(f"{_CLAIMED}{asked.owner}", claim):
                self._set_attribute(number, key, value)
            if not self.storage.set_trial_state_values(identity, TrialState.RUNNING):
                self._set_attribute(number, f"{_CLAIMED}{asked.owner}", None)
                return None
            for key, value in split_attribute(_ASKED, asked.to_json()):
                self._set_attribute(number, key, value)
            for name, distribution in distributions.items():
                if name not in waiting.params:
                    inner = distribution.to_internal_repr(config[name])
                    self._set_param(identity, name, inner, distribution)
            return Trial(number, config, asked.ask_index, None, None, asked.assignment)
        return None

    def _set_param(self, identity: int, name: str, inner: float, distribution: Any) -> None:
        _repeated(lambda: self.storage.set_trial_param(identity, name, inner, distribution))

    def pause(self, observation: Observation, stage: int, *, driven: float) -> None:
        """Write the end of a stage of a trial that is paused now.

        Args:
            observation: Result of the stage.
            stage: Index of the stage, from 0.
            driven: Seconds that this driver has been driving.
        """
        number = observation.number
        told = self._told(observation, driven=driven, text="")
        self._reported.pop(number, None)
        self._written[number] = len(observation.reports)
        with _storage_errors(self._where), _unless_finished():
            for key, value in split_attribute(f"{_PAUSED}{stage}", told):
                self._set_attribute(number, key, value)

    def resume(self, number: int, stage: int, *, level: int, after: int) -> None:
        """Write that a paused trial is resumed.

        Args:
            number: The trial.
            stage: Index of the stage that paused, from 0.
            level: Level to train up to now.
            after: Number of tells known by now.
        """
        resumed = {"level": level, "after": after}
        with _storage_errors(self._where), _unless_finished():
            self._set_attribute(number, f"{_RESUMED}{stage}", resumed)

    def report(self, number: int, report: Report) -> None:
        """Write the loss of a report as an intermediate value, at most a few a second.

        All reports are written with the result. Intermediate values are what Optuna's tools show:
        under a fidelity with larger steps than the storage holds, theirs are in a larger unit.
        """
        now = time.monotonic()
        if report.loss is None or now < self._reported.get(number, 0.0) + _REPORT_INTERVAL:
            return
        self._reported[number] = now
        step = report.step // self._step_unit
        if step > self._largest_step:
            self._say_too_large(report.step)
            return
        with _storage_errors(self._where), _unless_finished():
            loss, identity = report.loss, self._id(number)
            _repeated(lambda: self.storage.set_trial_intermediate_value(identity, step, loss))

    def _say_too_large(self, step: int) -> None:
        """Say once that intermediate values of large steps are left out."""
        if self._said_too_large:
            return
        self._said_too_large = True
        _log.warning(
            "step=%d is above %d, the largest that %s can show as an intermediate value; such "
            "losses are written with each result alone. Report in a larger unit to see them sooner",
            step,
            self._largest_step,
            self._where,
        )

    def tell(self, observation: Observation, *, driven: float, text: str) -> bool:
        """Write a result and finish its trial.

        Args:
            observation: The result.
            driven: Seconds that this driver has been driving.
            text: A traceback or a reason.

        Returns:
            False if another driver finished the trial before.
        """
        number = observation.number
        told = self._told(observation, driven=driven, text=text)
        self._reported.pop(number, None)
        with _storage_errors(self._where), _unless_finished():
            for key, value in split_attribute(_TOLD, told):
                self._set_attribute(number, key, value)
            self.finalize(observation)
            return True
        return False

    def _told(self, observation: Observation, *, driven: float, text: str) -> dict[str, Any]:
        """A result as JSON, without the reports that earlier stages have written."""
        reports = observation.reports[self._written.get(observation.number, 0) :]
        return {
            **observation.to_json(),
            "reports": [report.to_json() for report in reports],
            "driven": driven,
            "text": self.without_secrets(text),
        }

    def without_secrets(self, text: str) -> str:
        """Return `text` without the secrets of the storage's URL, as of a traceback."""
        return self._where.without_secrets(text)

    def finalize(self, observation: Observation) -> None:
        """Set the Optuna state of a trial to that of its written result."""
        values = None
        if observation.status is not Status.FAILED and observation.loss is not None:
            values = [observation.loss]
        with _storage_errors(self._where), _unless_finished():
            identity, state = self._id(observation.number), _STATES[observation.status]
            _repeated(lambda: self.storage.set_trial_state_values(identity, state, values))

    def mark_lost(
        self, number: int, *, order: int, superseded: bool = False, text: str = ""
    ) -> bool:
        """Finish an attempt without a result.

        Args:
            number: The trial.
            order: Order of this tell.
            superseded: Whether another trial does the same.
            text: What happened, if it is known.

        Returns:
            False if the attempt was finished before, with a result or without. Also if the
            connection broke after this was stored: then neither of two drivers counts as the one
            that did it, and the trial is one that has not been continued yet.
        """
        lost = {"order": order, "superseded": superseded} | ({"text": text} if text else {})
        with _storage_errors(self._where), _unless_finished():
            for key, value in split_attribute(_LOST, lost):
                self._set_attribute(number, key, value)
            identity = self._id(number)
            _repeated(lambda: self.storage.set_trial_state_values(identity, TrialState.FAIL))
            return True
        return False

    def release(self, number: int, *, driven: float) -> None:
        """Give up a running trial cleanly, so that it is continued without counting as lost.

        Args:
            number: The trial.
            driven: Seconds that this driver has been driving.
        """
        with _storage_errors(self._where), _unless_finished():
            self._set_attribute(number, _RELEASED, {"driven": driven})

    def claim(self, lease: Lease) -> int:
        """Take the lowest driver index that no living driver holds, and return it.

        A driver whose lease ended only lately may wait for the storage that has just come back: it
        gets the time to say so.
        """
        now = time.time()
        lapsed = [one for one in self._leases() if not one.holds(now)]
        if any(one.holds(now - _SERVER_PATIENCE) for one in lapsed):
            time.sleep(RETURN)
        index = claim_index(lease, self._attributes, self._set_study_attribute)
        self._clock.renewed()
        return index

    def renew(self, driver: int, lease: Lease) -> int:
        """Write a renewed lease.

        Args:
            driver: Index under which it was written before.
            lease: The lease.

        Returns:
            The index under which it is now: another one if a driver that came meanwhile holds that.
        """
        held = self._attributes().get(f"{DRIVER_KEY}{driver}")
        other = None if held is None else Lease.from_json(held)
        if other is None or other.owner == lease.owner or not other.holds(self._clock.now()):
            self.write_lease(driver, lease)
        else:
            driver = claim_index(
                lease, self._attributes, self._set_study_attribute, self._clock.now
            )
        self._clock.renewed()
        return driver

    def write_lease(self, driver: int, lease: Lease) -> None:
        """Write the lease of the driver with an index."""
        self._set_study_attribute(f"{DRIVER_KEY}{driver}", lease.to_json())

    def owners(self) -> dict[str, bool]:
        """Return the owners that hold or held a lease, and whether they still drive.

        A study in memory is driven by this process alone, though perhaps by several of its threads.
        """
        now, here = self._clock.now(), os.getpid()
        return {
            lease.owner: lease.holds(now) and (self.durable or lease.pid == here)
            for lease in self._leases()
        }

    def _leases(self) -> list[Lease]:
        stored = [v for k, v in self._attributes().items() if k.startswith(DRIVER_KEY)]
        return [Lease.from_json(lease) for lease in stored]

    def identity(self, driver: int) -> str:
        """Return the unique id of this study, made once; two studies of one name differ in it.

        The driver of index 0 makes the id, because that index is held by one driver at a time. If
        it dies before it has, the others do not wait forever.

        Args:
            driver: The index that was claimed.
        """
        until, made = time.monotonic() + _ID_PATIENCE, uuid.uuid4().hex
        while True:
            known: str | None = self._attributes().get(_ID)
            if known is not None:
                return known
            if driver == 0 or time.monotonic() > until:
                self._set_study_attribute(_ID, made)
                return made
            time.sleep(_YIELD)

    def exchange_other_tasks(self, digests: Mapping[str, str]) -> dict[str, str] | None:
        """Store from which other tasks the study learns now, and return from which it did before.

        Args:
            digests: Digest of the runs of each task, by its name.

        Returns:
            What was stored before; None for a study without trials. Nothing is written where it
            never learned from others, or learns from the same.
        """
        attributes = self._attributes()
        with _damage_errors(self._where, "other tasks"):
            before: dict[str, str] = read_attribute(attributes, _OTHER_TASKS) or {}
        if before != digests:
            for key, value in split_attribute(_OTHER_TASKS, digests):
                self._set_study_attribute(key, value)
        with _storage_errors(self._where):
            return before if _repeated(lambda: self.study.get_trials(deepcopy=False)) else None

    def exchange_where(self, text: str | None) -> str | None:
        """Store how the input predicate of this call is called, and return that of the call before.

        Args:
            text: Name of the predicate; None for none, which leaves what is stored.
        """
        before: str | None = self.where
        if text is not None and text != before:
            self._set_study_attribute(_PREDICATE, text)
        return before

    @property
    def where(self) -> str | None:
        """Name of the input predicate with which the study was searched last; None for none."""
        before = self._attributes().get(_PREDICATE)
        return before if isinstance(before, str) else None

    @property
    def has_identity(self) -> bool:
        """Whether the study has a unique id, which versions before 0.2 did not make."""
        return _ID in self._attributes()

    def _attributes(self) -> dict[str, Any]:
        """All attributes of the study, read at once."""
        with _storage_errors(self._where):
            return _repeated(lambda: self.study.user_attrs)

    def _set_study_attribute(self, key: str, value: Any) -> None:
        with _storage_errors(self._where):
            _repeated(lambda: self.storage.set_study_user_attr(self._study_id, key, value))

    def _id(self, number: int) -> int:
        if number not in self._ids:
            self._ids[number] = _repeated(
                lambda: self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            )
        return self._ids[number]

    def _set_attribute(self, number: int, key: str, value: Any) -> None:
        """Set an attribute of a trial."""
        identity = self._id(number)
        _repeated(lambda: self.storage.set_trial_user_attr(identity, key, value))


def _backend(name: str | None, storage: str | BaseStorage | None) -> BaseStorage:
    """The Optuna storage to write to."""
    if isinstance(storage, BaseStorage):
        return storage
    if name is None:
        return InMemoryStorage()
    url = storage or DEFAULT_STORAGE
    if "://" not in url:
        raise StudyError(
            f"storage= must be an Optuna storage or its URL, got {without_password(url)!r}; "
            f"for a file write storage='sqlite:///{without_password(url)}'"
        )
    from sqlalchemy import event

    if url.startswith("sqlite"):
        _make_private_file(url)
        url = _sqlite_url(url)
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _SQLITE_PATIENCE}})
    if without_password(url).endswith("://***"):
        raise StudyError(
            f"storage= cannot be read as a URL, got {without_password(url)}; write it as "
            "dialect://user:password@host:port/database, with every @ : / ? # and % of the "
            "password quoted: urllib.parse.quote(password, safe='')"
        )
    # A connection that the server has dropped is noticed before it is used, and made again.
    storage = RDBStorage(_unformatted(url), engine_kwargs={"pool_pre_ping": True})
    where = _Where.of(url)

    def connect(dialect: Any, record: object, arguments: list[Any], named: dict[str, Any]) -> Any:
        return _connect_patiently(dialect, arguments, named, where)

    event.listen(storage.engine, "do_connect", connect)
    return storage


def _largest_step(storage: BaseStorage) -> int:
    """Largest step that a storage holds: an integer of the database has 64 bits, or 32."""
    engine = getattr(getattr(storage, "_backend", storage), "engine", None)  # behind a cache
    short = engine is not None and engine.dialect.name != "sqlite"
    return 2**31 - 1 if short else 2**63 - 1


def _step_unit(space: SearchSpace, largest: int) -> int:
    """Smallest power of ten in which a storage holds every step of the fidelity."""
    unit = 1
    if space.fidelity is not None:
        while space[space.fidelity].limits[1] // unit > largest:
            unit *= 10
    return unit


def sqlite_file(storage: str | BaseStorage | None) -> Path | None:
    """Return the file that a storage opens; None for one that is no SQLite file.

    A path in a URL means itself, whatever letters it has, as in `f"sqlite:///{path}"`. Only a file
    that is there already may be written with its letters quoted.

    Args:
        storage: Optuna storage or its URL; None for the default file.

    Example:
        >>> sqlite_file("sqlite:///what?/100%20/{a}.db?timeout=5").as_posix()
        'what?/100%20/{a}.db'
    """
    if isinstance(storage, BaseStorage):
        return None
    scheme, _, rest = (storage or DEFAULT_STORAGE).partition("://")
    path, _ = _split_options(rest[1:])
    if (
        scheme not in _SQLITE_FILES
        or rest[:1] != "/"
        or path.startswith((":", "file:"))
        or not path
    ):
        return None
    written, unquoted = Path(path), Path(unquote(path))
    return unquoted if unquoted.exists() and not written.exists() else written


def _make_private_file(url: str) -> None:
    """Make the file of an SQLite URL for its owner only, unless it is there or cannot be made.

    SQLite would make it as the umask has it; its journal gets the same permissions.
    """
    file = sqlite_file(url)
    if file is None:
        file = _uri_file(url)
    if file is None:
        return
    with suppress(OSError):  # SQLite says better what is wrong
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_FILE))
        file.chmod(OWNER_FILE)  # where the umask takes rights from the owner, too


def _uri_file(url: str) -> Path | None:
    """File that a URL such as "sqlite:///file:runs.db?uri=true" lets SQLite make, or None."""
    scheme, _, rest = url.partition("://")
    path, options = _split_options(rest[1:])
    makes = options.get("mode", "rwc") == "rwc" and options.get("uri", "").lower() in _TRUE
    if scheme not in _SQLITE_FILES or not path.startswith("file:") or not makes:
        return None
    file = unquote(urlsplit(path).path)
    return Path(file) if file and not file.startswith(":") else None


def _split_options(path: str) -> tuple[str, dict[str, str]]:
    """Path of an SQLite URL, and its options: a `?` with anything else belongs to the path."""
    file, _, text = path.rpartition("?")
    options = dict(parse_qsl(text, keep_blank_values=True))
    return (file, options) if file and options and options.keys() <= _OPTIONS else (path, {})


def _sqlite_url(url: str) -> str:
    """URL that SQLAlchemy, after Optuna has formatted it, reads as the file that `url` means."""
    from sqlalchemy.engine import URL, make_url

    file = sqlite_file(url)
    if file is None:
        return _unformatted(url)
    scheme, _, rest = url.partition("://")
    path, options = _split_options(rest[1:])
    path = path if file == Path(path) else unquote(path)
    quoted = url
    if make_url(url).database != path:
        quoted = URL.create(scheme, database=path, query=options).render_as_string()
    if make_url(quoted).database != path:
        raise StudyError(
            f"storage= names a file that this SQLAlchemy cannot open, {path!r}; upgrade it, or "
            "rename the file without ? and %"
        )
    return _unformatted(quoted)


def _unformatted(url: str) -> str:
    """`url`, so that Optuna's `str.format` returns it; its own field stays one."""
    return url if "{SCHEMA_VERSION}" in url else url.replace("{", "{{").replace("}", "}}")


def _created(make: Callable[[], T]) -> T:
    """Result of `make`, which creates what is not there yet.

    Drivers that start at the same moment race for tables, rows and studies. One of them wins; to
    the others this looks like an error, and the next try finds what they need.
    """
    for pause in _CREATION_PAUSES:
        try:
            return _repeated(make)
        except Exception as error:
            if not _is_race(error):
                raise
            time.sleep(pause * (1.0 + random.random()))  # noqa: S311  only a delay
    return _repeated(make)


def _is_race(error: BaseException) -> bool:
    """Whether a creation failed because another driver creates the same."""
    from sqlalchemy.exc import DBAPIError

    for one in _chain(error):
        if isinstance(one, DBAPIError) and any(
            sign in str(one.orig).lower() for sign in _RACE_SIGNS
        ):
            return True
        if isinstance(one, DuplicatedStudyError | KeyError | AssertionError):
            return True  # a row that was not there a moment before, or not yet
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that led to it; an error that is raised again may lead to itself."""
    seen = set[int]()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _connect_patiently(
    dialect: Any, arguments: list[Any], named: dict[str, Any], where: _Where
) -> Any:
    """Connect again to a server that answered before, waiting for it if it is away.

    This covers an outage between two statements; for one in the middle of a call see `_repeated`.
    """
    until = time.monotonic() + _SERVER_PATIENCE
    while True:
        try:
            return dialect.connect(*arguments, **named)
        except dialect.loaded_dbapi.OperationalError as error:
            if time.monotonic() > until:
                raise
            _log.warning("the database does not answer, trying again: %s", where.told(error))
            time.sleep(1.0)


def _repeated(call: Callable[[], T]) -> T:
    """Result of `call`, repeated when the server goes away in the middle of it or it fails at all.

    Whether the first try was stored is not known then. So this is only for calls that may happen
    twice: reads, writes that set something to a value, and calls that first look whether they were
    stored. A server is waited for; another error of a storage, whatever its type, is given a few
    more tries.
    """
    until, pauses = time.monotonic() + _SERVER_PATIENCE, iter(_RETRY_PAUSES)
    while True:
        try:
            return call()
        except (UpdateFinishedTrialError, StudyError, ImportError):
            raise  # answers, not faults
        except Exception as error:
            if _cut_off(error) and time.monotonic() <= until:
                _log.warning("the database went away in the middle of a call, trying again")
                time.sleep(1.0)
                continue
            pause = next(pauses, None)
            if pause is None:
                raise
            _log.info("the storage failed (%s), trying again", type(error).__name__)
            time.sleep(pause)


def _cut_off(error: BaseException) -> bool:
    """Whether a call failed because its connection broke.

    Optuna may try something else on the same connection before it gives up: hence the context is
    searched as well.
    """
    from sqlalchemy.exc import DBAPIError

    return any(isinstance(one, DBAPIError) and one.connection_invalidated for one in _chain(error))


def check_texts(name: object, storage: object) -> None:
    """Refuse a name or URL that no database or file system can hold.

    Args:
        name: Name of a study, or None.
        storage: Optuna storage or its URL, or None.

    Raises:
        TypeError: For a storage of another type.
        ValueError: For a bad name, or letters that UTF-8 does not have.
    """
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME):
        raise ValueError(
            f"name must be a text of 1 to {_LONGEST_NAME} characters or None, got {shown(name)}; "
            "None keeps the study in memory"
        )
    if storage is not None and not isinstance(storage, str | BaseStorage):
        raise TypeError(
            "storage must be an Optuna storage, its URL or None, got a "
            f"{type(storage).__name__}; for a file write 'sqlite:///runs.db'"
        )
    for argument, text in (("name", name), ("storage", storage)):
        if isinstance(text, str) and (bad := _BAD_LETTERS.search(text)):
            raise ValueError(
                f"{argument} must not hold the letter {bad.group()!r}, which no database can "
                "store; leave it out"
            )


def without_password(storage: str | BaseStorage | None) -> str:
    """Return a storage as every message, log line and repr names it: without its password.

    Args:
        storage: Optuna storage or its URL; None for the default file.

    Example:
        >>> without_password("postgresql://me:secret@host/runs?sslpassword=secret")
        'postgresql://me:***@host/runs?sslpassword=***'
        >>> without_password("me:secret@host/runs?token=secret")
        '***@host/runs?token=***'
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if isinstance(storage, BaseStorage):
        behind = _url_of(storage)
        return type(storage).__name__ if behind is None else without_password(behind)
    text = storage or DEFAULT_STORAGE
    scheme, separator, rest = text.partition("://")
    if not separator:
        _, at, place = text.rpartition("@")
        name, equals, _ = place.partition("=")  # of an option, as in "host/runs?password=secret"
        return f"{'***@' * bool(at)}{name}{equals}{'***' * bool(equals)}"
    if scheme in _SQLITE_FILES and rest.startswith("/"):  # a path, without an account
        return text
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        return f"{scheme}://***"
    if "@" in f"{url.host}{url.database}":  # the end of a password that was not quoted
        return f"{scheme}://***"
    options = "&".join(f"{name}=***" for name in url.query)
    plain = url.set(query={}).render_as_string(hide_password=True)
    return f"{plain}?{options}" if options else plain


def _url_of(storage: BaseStorage) -> str | None:
    """URL of an Optuna storage; None for one that has none."""
    inner = getattr(storage, "_backend", storage)  # behind Optuna's cache or journal
    url = getattr(inner, "url", getattr(inner, "_url", None))
    return url if isinstance(url, str) else None


def _secrets(storage: str | BaseStorage | None) -> frozenset[str]:
    """What the URL of a storage holds and `without_password` does not, as written and unquoted."""
    url = _url_of(storage) if isinstance(storage, BaseStorage) else storage
    if url is None or without_password(url) == url:
        return frozenset()
    rest = url.partition("://")[2] or url
    account, at, _ = rest.rpartition("@")
    written = {account.partition(":")[2]} if at else set()
    written |= {option.partition("=")[2] for option in rest.partition("?")[2].split("&")}
    read = {unquote(text) for text in written} | {unquote_plus(text) for text in written}
    # An option may hold a whole list of them, as ODBC's "DSN=runs;PWD=secret" does.
    texts = {part for text in written | read for part in (text, *re.split("[@:/?&;=]", text))}
    return frozenset(text for text in texts if len(text) >= _SHORTEST_SECRET)


@dataclass(frozen=True, slots=True)
class _Where:
    """A storage as messages name it.

    Attributes:
        name: The storage without its password, as `without_password` gives it.
        secrets: What its name leaves out, and no message of another library may tell.
    """

    name: str
    secrets: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, storage: str | BaseStorage | None) -> _Where:
        return cls(without_password(storage), _secrets(storage))

    def __str__(self) -> str:
        return self.name

    def told(self, error: BaseException) -> str:
        """First line of another library's error, or its type if it says nothing."""
        details = getattr(error, "details", None)  # of gRPC, whose first line is a heading
        text = str(details() if callable(details) else error)
        return next(iter(self.without_secrets(text).splitlines()), type(error).__name__)

    def without_secrets(self, text: str) -> str:
        """`text` with every secret gone, longest first."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def _check_same_study(
    name: str, stored: dict[str, Any], header: dict[str, Any], space: SearchSpace
) -> None:
    """Raise StudyError unless a stored study may continue under `header`."""
    rest = "give it another name=, or pass what it was started with; nothing stored was changed"
    _check_schema(name, stored)
    before = stored["space"]
    if header["scheduler"] is not None:
        before = _grown(before, space)
    difference = space.difference(before)
    if difference is not None:
        raise StudyError(f"the study {name!r} has another space: {difference}; {rest}")
    before, now = (_wanted(each.get("objectives")) for each in (stored, header))
    if before != now:
        raise StudyError(f"the study {name!r} is to {before}, got {now}; {rest}")
    for key in ("direction", "cost", "scheduler"):
        if stored.get(key) != header[key]:
            raise StudyError(
                f"the study {name!r} has {key}={stored.get(key)!r}, got {key}={header[key]!r}; "
                f"{rest}"
            )


def _wanted(objectives: dict[str, Any] | None) -> str:
    """Return stored objectives and constraints as text, in order."""
    return "optimize the loss" if objectives is None else str(Objectives.of(**objectives))


def _grown(stored: dict[str, Any], space: SearchSpace) -> dict[str, Any]:
    """A stored space with its fidelity as high as it is in `space`, if it was lower."""
    name = space.fidelity
    if name is None or name not in stored:
        return stored
    now = space.fingerprint()[name]
    before = stored[name]
    if before.get("kind") != now.get("kind") or before["high"] >= now["high"]:
        return stored
    return stored | {name: before | {"high": now["high"]}}


def _check_schema(name: str, stored: dict[str, Any]) -> None:
    """Raise StudyError for a study that only a later version understands."""
    if stored["schema"] > SCHEMA:
        raise StudyError(
            f"the study {name!r} was written by a newer scaletune (schema {stored['schema']}, this "
            f"one reads up to {SCHEMA}); upgrade scaletune, or choose another name="
        )


def _require_file(storage: str | BaseStorage | None) -> None:
    """Raise StudyError for an SQLite file that is not there: opening it would create it."""
    file = sqlite_file(storage)
    if file is not None and not file.exists():
        raise StudyError(
            f"there is no file {file}; go to the folder of the run, or name its storage, "
            "such as storage='sqlite:////path/to/scaletune.db'"
        )


def _entry(stored: FrozenTrial, space: SearchSpace) -> Entry | None:
    """Entry of a stored trial; None for one that optimize() did not ask for."""
    attributes = stored.user_attrs
    asked_json, params = read_attribute(attributes, _ASKED), stored.params
    claims = [] if stored.state is TrialState.WAITING else _claims(attributes)
    if asked_json is None and claims:  # its driver died before it could write more
        asked_json = claims[0]["asked"]
    if asked_json is None:
        return None
    asked = Asked.from_json(asked_json)
    for claim in claims:
        if claim["asked"]["owner"] == asked.owner:
            params = claim["config"]
    config = {name: params[name] for name in space if name in params}
    trial = Trial(
        stored.number, config, asked.ask_index, asked.prediction, asked.parent, asked.assignment
    )
    pauses, resumptions = _stages(attributes, trial)
    told, lost = read_attribute(attributes, _TOLD), read_attribute(attributes, _LOST) or {}
    released = attributes.get(_RELEASED)
    observation = None
    if told is not None:
        observation = _observation(told, trial, pauses)
    elif stored.state.is_finished():
        observation = Observation.lost(trial, lost.get("order", asked.after))
    return Entry(
        trial=trial,
        asked=asked,
        observation=observation,
        open=not stored.state.is_finished(),
        superseded=lost.get("superseded", False),
        released=released is not None,
        driven=max(
            (written or {"driven": 0.0})["driven"]
            for written in (
                told,
                released,
                read_attribute(attributes, f"{_PAUSED}{len(pauses) - 1}"),
            )
        ),
        pauses=pauses,
        resumptions=resumptions,
    )


def _earlier_trial(
    observation: Observation, space: SearchSpace, key: str, cost: str | None
) -> FrozenTrial:
    """Return an earlier run as a finished trial."""
    attributes: dict[str, Any] = {EARLIER: key}
    if cost is not None and observation.cost is not None:
        attributes[cost] = observation.cost
    if observation.cause is not None:
        attributes[FAILED] = observation.cause.value
    losses = {report.step: report.loss for report in observation.reports if report.loss is not None}
    if observation.status is Status.STOPPED and observation.loss is not None:
        losses[max(losses, default=0)] = observation.loss
    trial = optuna.trial.create_trial(
        state=_STATES[observation.status],
        value=observation.loss if observation.status is Status.COMPLETED else None,
        params=observation.config,
        distributions=space.distributions(observation.config, {}),
        user_attrs=attributes,
        intermediate_values=losses,
    )
    if observation.seconds and trial.datetime_complete is not None:
        trial.datetime_start = trial.datetime_complete - timedelta(seconds=observation.seconds)
    return trial


def _is_foreign(stored: FrozenTrial) -> bool:
    """Whether somebody else made a trial, and no driver has claimed it."""
    if _ASKED in stored.user_attrs:
        return False
    return stored.state is TrialState.WAITING or not _claims(stored.user_attrs)


def _claims(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What drivers wrote before they tried to start an enqueued trial; in most trials nothing."""
    keys = [key for key in attributes if key.startswith(_CLAIMED)]
    owned = [key for key in keys if ":" not in key.removeprefix(_CLAIMED)]
    return [claim for key in owned if (claim := read_attribute(attributes, key)) is not None]


def _stages(
    attributes: Mapping[str, Any], trial: Trial
) -> tuple[tuple[Observation, ...], tuple[Resumed, ...]]:
    """Pauses of a stored trial, and its resumptions."""
    pauses: tuple[Observation, ...] = ()
    resumptions: list[Resumed] = []
    while (told := read_attribute(attributes, f"{_PAUSED}{len(pauses)}")) is not None:
        resumed = attributes.get(f"{_RESUMED}{len(pauses)}")
        pauses = (*pauses, _observation(told, trial, pauses))
        if resumed is not None:
            resumptions.append(Resumed(**resumed))
    return pauses, tuple(resumptions)


def _observation(
    told: Mapping[str, Any], trial: Trial, pauses: tuple[Observation, ...]
) -> Observation:
    """Observation of a written result; reports of earlier stages come from their `pauses`."""
    before = pauses[-1].reports if pauses else ()
    return Observation.from_json(
        told,
        number=trial.number,
        config=trial.config,
        ask_index=trial.ask_index,
        reports=(*before, *(Report.from_json(report) for report in told["reports"])),
    )


@contextmanager
def _storage_errors(where: _Where) -> Iterator[None]:
    """Raise storage errors as StudyError, with the place and the way out."""
    try:
        yield
    except (StudyError, UpdateFinishedTrialError):
        raise
    except Exception as error:  # storages raise whatever their libraries do
        refused = StudyError(
            f"the storage {where} cannot be used: {where.told(error.__cause__ or error)}; "
            + _way_out(error)
            + ". What was stored before is still there"
        )
        chain = "".join(traceback.format_exception(error))
        raise refused from (error if where.without_secrets(chain) == chain else None)


def _way_out(error: Exception) -> str:
    """What to do about a storage that fails."""
    if isinstance(error, ImportError):
        return "install the driver of its database, or name another one with storage="
    if isinstance(error, UnicodeError):
        return "set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or give its file a name in ASCII"
    return "make sure that its folder exists and can be written, or name another one with storage="


@contextmanager
def _damage_errors(where: _Where, part: str) -> Iterator[None]:
    """Raise errors of damaged content as StudyError, with the place and the way out."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise StudyError(
            f"the {part} of the study in {where} is not what scaletune wrote "
            f"({type(error).__name__}: {' '.join(str(error).split())}); restore the storage from a "
            "copy, or choose another name="
        ) from error


@contextmanager
def _unless_finished() -> Iterator[None]:
    """Do nothing further if another driver has finished the trial."""
    try:
        yield
    except UpdateFinishedTrialError:
        pass


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing the study; restore its verbosity afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
