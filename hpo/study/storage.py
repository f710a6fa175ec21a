"""The trial log, kept as an Optuna study.

A trial's config, scale and fidelity are Optuna params and its losses on the way intermediate
values. The rest is one JSON attribute per transition, split where a storage holds only short texts:

========================  ======================================================================
study attributes
`scaletune:study`         schema, space, direction, cost unit, seed, scheduler
`scaletune:id`            unique id, whatever the study's name, for the checkpoints on disk
`scaletune:driver:<k>`    lease of the driver with index k
trial attributes
`scaletune:asked`         ask index, driver, owner, parent, attempt, place, belief; written with the
                          trial
`scaletune:paused:<k>`    end of stage k: as told; the Optuna state stays RUNNING
`scaletune:resumed:<k>`   level of stage k + 1, and how many tells were known
`scaletune:told`          status, cause, loss, cost, order, reports of the last stage, traceback
`scaletune:lost`          order; the attempt came to nothing and another one continues it
`scaletune:released`      its driver let go of it in good order
========================  ======================================================================

One writer per trial. A trial is created whole, so a crash leaves no empty one. A result is written
first and the Optuna state is changed last; a finished trial accepts no more attributes. Hence the
result that is there when the state becomes final is the result, whoever made it final, and a
finished trial without one is lost. Nothing is ever counted twice.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from hpo.errors import StudyError
from hpo.space import SearchSpace
from hpo.study.lease import Lease
from hpo.trials import Cause, Observation, Prediction, Report, RungAssignment, Status, Trial

SCHEMA = 2
DEFAULT_STORAGE = "sqlite:///scaletune.db"

_LONGEST_VALUE = 2000  # characters; some databases cut or refuse texts above 2045
_REPORT_INTERVAL = 0.2  # seconds between intermediate values written for one trial
_SQLITE_PATIENCE = 60.0  # seconds to wait for another driver's write
_YIELD = 0.02  # seconds between looks at others who want the same driver index
_ID_PATIENCE = 10.0  # seconds to wait for the driver that names the study
_SERVER_PATIENCE = 120.0  # seconds to wait for a database server that has gone away

T = TypeVar("T")

_log = logging.getLogger(__name__)

_STUDY = "scaletune:study"
_ID = "scaletune:id"
_DRIVER = "scaletune:driver:"
_WANTED = "scaletune:wanted:"
_ASKED = "scaletune:asked"
_PAUSED = "scaletune:paused:"
_RESUMED = "scaletune:resumed:"
_TOLD = "scaletune:told"
_LOST = "scaletune:lost"
_RELEASED = "scaletune:released"

_STATES = {
    Status.COMPLETED: TrialState.COMPLETE,
    Status.STOPPED: TrialState.PRUNED,
    Status.FAILED: TrialState.FAIL,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is written when a trial is created.

    `driver`, `owner`: index and lease of who asked. `after`: number of tells known by then.
    `attempt`: how many attempts at this trial were lost before. `confirming`: a run of the
    recommendation, outside the budget. `assignment`: where a scheduler put it.
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
        rest = {key: value for key, value in stored.items() if key not in ("belief", "place")}
        belief, place = stored["belief"], stored.get("place")
        return cls(
            **rest,
            prediction=None if belief is None else Prediction.from_json(belief),
            assignment=None if place is None else RungAssignment.from_json(place),
        )


@dataclass(frozen=True, slots=True)
class Resumed:
    """A paused trial went on, to `level`, when `after` tells were known."""

    level: int
    after: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One trial as stored.

    `observation`: its result, or None while it runs; an attempt that came to nothing has the cause
    `lost`. `pauses`, `resumptions`: in order, one after the other. `open`: whether its Optuna state
    still is RUNNING. `superseded`: lost because another trial does the same. `released`: let go of
    by its driver. `driven`: seconds its owner had been driving when it was told or released.
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
        return self.trial.number

    @property
    def paused(self) -> bool:
        """Whether it rests, to be resumed."""
        return self.observation is None and len(self.pauses) > len(self.resumptions)

    @property
    def assignment(self) -> RungAssignment | None:
        """Where it was put last."""
        place = self.trial.assignment
        if place is None or not self.resumptions:
            return place
        return replace(place, level=self.resumptions[-1].level)

    @property
    def last_order(self) -> int:
        """Order of the last tell about it; -1 before any."""
        told = self.observation or (self.pauses[-1] if self.pauses else None)
        return -1 if told is None else told.order

    @property
    def lost(self) -> bool:
        return self.observation is not None and self.observation.cause is Cause.LOST


class Journal:
    """Reads and writes one study. Every method raises StudyError if the storage fails."""

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, space: SearchSpace, where: str
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
    ) -> Journal:
        """Create the study `name`, or open it to go on.

        Under a scheduler the fidelity may have grown since; the rest must be what it was.

        Raises StudyError if the storage cannot be used, or if the stored study has another space,
        direction or cost unit, comes from a newer scaletune, or is not one of ours.
        """
        where = _where(storage) if name is not None else "memory"
        with _told_as_study_error(where):
            backend = _backend(name, storage)
            with _quiet_optuna():
                study = optuna.create_study(
                    storage=backend, study_name=name, load_if_exists=True, direction=direction
                )
            journal = cls(study, backend, space, where)
            header = {
                "schema": SCHEMA,
                "space": space.fingerprint(),
                "direction": direction,
                "cost": cost,
                "seed": seed,
                "scheduler": scheduler,
            }
            with _damage_as_study_error(where, "header"):
                stored = _read(study.user_attrs, _STUDY)
                if stored is not None:
                    _check_same_study(study.study_name, stored, header, space)
            if stored is not None:
                if stored["space"] == header["space"]:
                    return journal
                header |= {"seed": stored["seed"]}
            elif study.get_trials(deepcopy=False) or len(study.directions) != 1:
                raise StudyError(
                    f"the study {study.study_name!r} in {where} was not made by optimize(); "
                    "choose another name="
                )
            for key, value in _split(_STUDY, header):
                backend.set_study_user_attr(journal._study_id, key, value)
            return journal

    @classmethod
    def read(
        cls, *, name: str, storage: str | BaseStorage | None
    ) -> tuple[Journal, dict[str, Any]]:
        """An existing study and its header: schema, space, direction, cost, seed.

        Raises StudyError if there is none of that name, or it cannot be read here.
        """
        where = _where(storage)
        _require_file(storage)
        with _told_as_study_error(where):
            backend = _backend(name, storage)
            try:
                with _quiet_optuna():
                    study = optuna.load_study(study_name=name, storage=backend)
            except KeyError:
                known = sorted(optuna.get_all_study_names(backend))
                raise StudyError(
                    f"there is no study {name!r} in {where}; it has {known or 'none'}"
                ) from None
            with _damage_as_study_error(where, "header"):
                header = _read(study.user_attrs, _STUDY)
        if header is None:
            raise StudyError(
                f"the study {name!r} in {where} was not made by optimize(); name one that was"
            )
        with _damage_as_study_error(where, "header"):
            _check_schema(name, header)
            space = SearchSpace.from_fingerprint(header["space"])
            header = {key: header[key] for key in ("schema", "space", "direction", "cost", "seed")}
        return cls(study, backend, space, where), header

    def entries(self) -> list[Entry]:
        """Every trial that was asked for here, by number."""
        with _told_as_study_error(self._where):
            stored = _repeated(lambda: self.study.get_trials(deepcopy=False))
        entries = []
        for trial in stored:
            with _damage_as_study_error(self._where, f"trial {trial.number}"):
                entry = self._closed.get(trial.number) or _entry(trial, self._space)
            if entry is None:
                continue
            if not entry.open:  # nothing of it changes any more
                self._closed[entry.number] = entry
            entries.append(entry)
        return entries

    def ask(self, asked: Asked, config: dict[str, Any], distributions: dict[str, Any]) -> Trial:
        """Create a running trial, whole."""
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=config,
            distributions=distributions,
            user_attrs=dict(_split(_ASKED, asked.to_json())),
        )
        tried = False

        def create() -> int:
            nonlocal tried
            stored = self._stored(asked) if tried else None
            tried = True
            if stored is not None:  # the server went away after it was stored, before it said so
                return stored
            return self.storage.create_new_trial(self._study_id, template_trial=template)

        with _told_as_study_error(self._where):
            identity = _repeated(create)
            number = _repeated(lambda: self.storage.get_trial_number_from_id(identity))
        self._ids[number] = identity
        return Trial(
            number, config, asked.ask_index, asked.prediction, asked.parent, asked.assignment
        )

    def _stored(self, asked: Asked) -> int | None:
        """Storage id of the trial of ours that was created as `asked` says, if it was."""
        text = json.dumps(asked.to_json())
        for trial in self.storage.get_all_trials(self._study_id, deepcopy=False):
            ours = json.dumps(_read(trial.user_attrs, _ASKED)) == text
            if ours and trial.number not in self._ids:
                return trial._trial_id
        return None

    def pause(self, observation: Observation, stage: int, *, driven: float) -> None:
        """Write the end of stage `stage`, from 0, of a trial that rests now."""
        number = observation.number
        told = self._told(observation, driven=driven, text="")
        self._reported.pop(number, None)
        self._written[number] = len(observation.reports)
        with _told_as_study_error(self._where), _unless_finished():
            for key, value in _split(f"{_PAUSED}{stage}", told):
                self._keep(number, key, value)

    def resume(self, number: int, stage: int, *, level: int, after: int) -> None:
        """Write that a trial of ours goes on after stage `stage`."""
        resumed = {"level": level, "after": after}
        with _told_as_study_error(self._where), _unless_finished():
            self._keep(number, f"{_RESUMED}{stage}", resumed)

    def report(self, number: int, report: Report) -> None:
        """Keep the loss of a report as an intermediate value, but not more than a few a second.

        All reports are written with the result.
        """
        now = time.monotonic()
        if report.loss is None or now < self._reported.get(number, 0.0) + _REPORT_INTERVAL:
            return
        self._reported[number] = now
        with _told_as_study_error(self._where), _unless_finished():
            loss, identity = report.loss, self._id(number)
            _repeated(
                lambda: self.storage.set_trial_intermediate_value(identity, report.step, loss)
            )

    def tell(self, observation: Observation, *, driven: float, text: str) -> bool:
        """Write a result and finish its trial; False if another driver finished it before."""
        number = observation.number
        told = self._told(observation, driven=driven, text=text)
        self._reported.pop(number, None)
        with _told_as_study_error(self._where), _unless_finished():
            for key, value in _split(_TOLD, told):
                self._keep(number, key, value)
            self.settle(observation)
            return True
        return False

    def _told(self, observation: Observation, *, driven: float, text: str) -> dict[str, Any]:
        """A result as JSON, without the reports that earlier stages have written."""
        reports = observation.reports[self._written.get(observation.number, 0) :]
        return {
            **observation.to_json(),
            "reports": [report.to_json() for report in reports],
            "driven": driven,
            "text": text,
        }

    def settle(self, observation: Observation) -> None:
        """Make the Optuna state of a trial say what its written result says."""
        values = None
        if observation.status is not Status.FAILED and observation.loss is not None:
            values = [observation.loss]
        with _told_as_study_error(self._where), _unless_finished():
            identity, state = self._id(observation.number), _STATES[observation.status]
            _repeated(lambda: self.storage.set_trial_state_values(identity, state, values))

    def lose(self, number: int, *, order: int, superseded: bool = False) -> bool:
        """Give up an attempt; False if someone finished it before, with a result or without.

        Also False if the server went away after it was stored, before it said so: of two drivers
        none may then think that it was the one, and the trial is one that nobody has continued.
        """
        lost = {"order": order, "superseded": superseded}
        with _told_as_study_error(self._where), _unless_finished():
            for key, value in _split(_LOST, lost):
                self._keep(number, key, value)
            identity = self._id(number)
            _repeated(lambda: self.storage.set_trial_state_values(identity, TrialState.FAIL))
            return True
        return False

    def release(self, number: int, *, driven: float) -> None:
        """Let go of a running trial, so that it is continued without counting as lost."""
        with _told_as_study_error(self._where), _unless_finished():
            self._keep(number, _RELEASED, {"driven": driven})

    def claim(self, lease: Lease) -> int:
        """Take the lowest driver index that no living driver holds, and return it.

        Of several who want one index at once the one of the smallest owner gets it. Each first says
        under a key of its own that it wants it, then looks: of two, at least one sees the other.
        """
        for driver in count():
            self._want(lease, driver)
            while True:
                held, rivals = self._claims(driver, but=lease.owner)
                if held or any(owner < lease.owner for owner in rivals):
                    break
                if not rivals:
                    self.keep(driver, lease)
                    self._want(lease, None)
                    return driver
                time.sleep(_YIELD)  # they will see the smaller owner, or have it already
        raise AssertionError("count() does not end")

    def identity(self, driver: int) -> str:
        """Unique id of this study, made once; two studies of one name have different ones.

        `driver`: the index that was claimed. The driver of index 0 makes the id, for that index is
        held by one at a time; if it dies before it has, the others do not wait for ever.
        """
        until, made = time.monotonic() + _ID_PATIENCE, uuid.uuid4().hex
        while True:
            with _told_as_study_error(self._where):
                known: str | None = _repeated(lambda: self.study.user_attrs).get(_ID)
                if known is not None:
                    return known
                if driver == 0 or time.monotonic() > until:
                    _repeated(lambda: self.storage.set_study_user_attr(self._study_id, _ID, made))
                    return made
            time.sleep(_YIELD)

    @property
    def has_identity(self) -> bool:
        """Whether the study was given a unique id, which versions before 0.2 did not do."""
        with _told_as_study_error(self._where):
            return _ID in _repeated(lambda: self.study.user_attrs)

    def _want(self, lease: Lease, driver: int | None) -> None:
        with _told_as_study_error(self._where):
            wanted = {"driver": driver, "lease": lease.to_json()}
            key = f"{_WANTED}{lease.owner}"
            _repeated(lambda: self.storage.set_study_user_attr(self._study_id, key, wanted))

    def _claims(self, driver: int, *, but: str) -> tuple[bool, list[str]]:
        """Whether a living owner holds the index, and the living owners that want it.

        Read at once: who has it keeps wanting it until that is written.
        """
        with _told_as_study_error(self._where):
            attributes = _repeated(lambda: self.study.user_attrs)
        stored = attributes.get(f"{_DRIVER}{driver}")
        held = None if stored is None else Lease.from_json(stored)
        wanted = [v for k, v in attributes.items() if k.startswith(_WANTED)]
        rivals = [Lease.from_json(v["lease"]) for v in wanted if v["driver"] == driver]
        living = [rival.owner for rival in rivals if rival.owner != but and rival.alive]
        return held is not None and held.owner != but and held.alive, living

    def keep(self, driver: int, lease: Lease) -> None:
        """Write the lease of driver `driver`: renewed, or released."""
        with _told_as_study_error(self._where):
            key, held = f"{_DRIVER}{driver}", lease.to_json()
            _repeated(lambda: self.storage.set_study_user_attr(self._study_id, key, held))

    def owners(self) -> dict[str, bool]:
        """Owners that hold or held a lease, and whether they still drive."""
        with _told_as_study_error(self._where):
            attributes = _repeated(lambda: self.study.user_attrs)
        leases = [Lease.from_json(v) for k, v in attributes.items() if k.startswith(_DRIVER)]
        return {lease.owner: lease.alive for lease in leases}

    def _id(self, number: int) -> int:
        if number not in self._ids:
            self._ids[number] = _repeated(
                lambda: self.storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
            )
        return self._ids[number]

    def _keep(self, number: int, key: str, value: Any) -> None:
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
            f"storage= must be an Optuna storage or its URL, got {url!r}; "
            f"for a file write storage='sqlite:///{url}'"
        )
    from sqlalchemy import event

    if url.startswith("sqlite"):
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _SQLITE_PATIENCE}})
    # A connection that the server has dropped is noticed before it is used, and made again.
    storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    event.listen(storage.engine, "do_connect", _connect_patiently)
    return storage


def _connect_patiently(
    dialect: Any, record: object, arguments: list[Any], named: dict[str, Any]
) -> Any:
    """Connect again to a server that answered before, waiting for it if it is away.

    So between two statements; for an outage in the middle of one see `_repeated`.
    """
    until = time.monotonic() + _SERVER_PATIENCE
    while True:
        try:
            return dialect.connect(*arguments, **named)
        except dialect.loaded_dbapi.OperationalError as error:
            if time.monotonic() > until:
                raise
            _log.warning("the database does not answer, trying again: %s", str(error).strip())
            time.sleep(1.0)


def _repeated(call: Callable[[], T]) -> T:
    """What `call` returns, made again when the server goes away in the middle of it.

    Whether the first try was stored is not known then, so only for what may happen twice: reads,
    writes that set something to a value, and what looks first whether it was stored.
    """
    until = time.monotonic() + _SERVER_PATIENCE
    while True:
        try:
            return call()
        except Exception as error:
            if not _cut_off(error) or time.monotonic() > until:
                raise
            _log.warning("the database went away in the middle of a call, trying again")
            time.sleep(1.0)


def _cut_off(error: BaseException | None) -> bool:
    """Whether a call failed because its connection broke.

    Optuna may try something else on the same connection before it gives up, hence the context.
    """
    from sqlalchemy.exc import DBAPIError

    while error is not None:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return True
        error = error.__cause__ or error.__context__
    return False


def _where(storage: str | BaseStorage | None) -> str:
    """A storage as messages name it, without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(str(storage or DEFAULT_STORAGE)).render_as_string(hide_password=True)
    except ArgumentError:
        return str(storage)


def _check_same_study(
    name: str, stored: dict[str, Any], header: dict[str, Any], space: SearchSpace
) -> None:
    """Raise StudyError unless a stored study may go on under `header`."""
    rest = "give it another name=, or pass what it was started with; nothing stored was changed"
    _check_schema(name, stored)
    before = stored["space"]
    if header["scheduler"] is not None:
        before = _grown(before, space)
    difference = space.difference(before)
    if difference is not None:
        raise StudyError(f"the study {name!r} has another space: {difference}; {rest}")
    for key in ("direction", "cost", "scheduler"):
        if stored.get(key) != header[key]:
            raise StudyError(
                f"the study {name!r} has {key}={stored.get(key)!r}, got {key}={header[key]!r}; "
                f"{rest}"
            )


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
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if storage is not None and not isinstance(storage, str):
        return
    try:
        url = make_url(storage or DEFAULT_STORAGE)
    except ArgumentError:
        return  # refused with the way out where the storage is opened
    if url.drivername.startswith("sqlite") and url.database and not Path(url.database).exists():
        raise StudyError(
            f"there is no file {url.database}; go to the folder of the run, or name its storage, "
            "such as storage='sqlite:////path/to/scaletune.db'"
        )


def _entry(stored: FrozenTrial, space: SearchSpace) -> Entry | None:
    """A stored trial as an entry; None for one that optimize() did not ask for."""
    attributes = stored.user_attrs
    asked_json = _read(attributes, _ASKED)
    if asked_json is None:
        return None
    asked = Asked.from_json(asked_json)
    config = {name: stored.params[name] for name in space if name in stored.params}
    trial = Trial(
        stored.number, config, asked.ask_index, asked.prediction, asked.parent, asked.assignment
    )
    pauses, resumptions = _stages(attributes, trial)
    told, lost = _read(attributes, _TOLD), _read(attributes, _LOST) or {}
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
            for written in (told, released, _read(attributes, f"{_PAUSED}{len(pauses) - 1}"))
        ),
        pauses=pauses,
        resumptions=resumptions,
    )


def _stages(
    attributes: Mapping[str, Any], trial: Trial
) -> tuple[tuple[Observation, ...], tuple[Resumed, ...]]:
    """The pauses of a stored trial, and how it went on after them."""
    pauses: tuple[Observation, ...] = ()
    resumptions: list[Resumed] = []
    while (told := _read(attributes, f"{_PAUSED}{len(pauses)}")) is not None:
        resumed = attributes.get(f"{_RESUMED}{len(pauses)}")
        pauses = (*pauses, _observation(told, trial, pauses))
        if resumed is not None:
            resumptions.append(Resumed(**resumed))
    return pauses, tuple(resumptions)


def _observation(
    told: Mapping[str, Any], trial: Trial, pauses: tuple[Observation, ...]
) -> Observation:
    """A written result; the reports of earlier stages come from their `pauses`."""
    before = pauses[-1].reports if pauses else ()
    return Observation.from_json(
        told,
        number=trial.number,
        config=trial.config,
        ask_index=trial.ask_index,
        reports=(*before, *(Report.from_json(report) for report in told["reports"])),
    )


def _split(key: str, value: dict[str, Any]) -> list[tuple[str, Any]]:
    """Attributes that together hold `value`: itself if it is short, else chunks of its JSON.

    The one under `key` comes last, so that it vouches for the others.
    """
    text = json.dumps(value)
    if len(text) <= _LONGEST_VALUE:
        return [(key, value)]
    # Each chunk is a JSON text inside a JSON value; escapes may double it, hence half the length.
    width = _LONGEST_VALUE // 2 - 1
    chunks = [text[start : start + width] for start in range(0, len(text), width)]
    numbered = [(f"{key}:{index}", chunk) for index, chunk in enumerate(chunks)]
    return [*numbered, (key, {"chunks": len(chunks)})]


def _read(attributes: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """What `_split` wrote; None if it is not there."""
    value = attributes.get(key)
    if value is None or list(value) != ["chunks"]:
        return value
    text = "".join(attributes[f"{key}:{index}"] for index in range(value["chunks"]))
    whole: dict[str, Any] = json.loads(text)
    return whole


@contextmanager
def _told_as_study_error(where: str) -> Iterator[None]:
    """Storage errors as StudyError, with the place and the way out."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        cause = error.__cause__ or error
        raise StudyError(
            f"the storage {where} cannot be used: {str(cause).splitlines()[0]}; make sure that "
            "its folder exists and can be written, or name another one with storage=. "
            "What was stored before is still there"
        ) from error


@contextmanager
def _damage_as_study_error(where: str, part: str) -> Iterator[None]:
    """What cannot have been written here, as StudyError with the place and the way out."""
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
    """Let go quietly when another driver has finished the trial."""
    try:
        yield
    except UpdateFinishedTrialError:
        pass


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing the study, and leave its verbosity as it was."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
