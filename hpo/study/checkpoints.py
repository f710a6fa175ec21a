"""Checkpoints of running trials: one folder per attempt, written atomically.

Layout under the folder of a study:

    <trial number>/state.pt    what the trial saved last, beside whatever else it keeps there
    <trial number>/parent.pt   state of the run that the trial descends from; never changes
    best/state.pt              what the best finished run saved last, where a study keeps it

A folder belongs to one attempt of one trial, and so to the driver that holds its lease. An attempt
that is taken over is continued under a new trial number with a folder of its own, so a former owner
that turns out to be alive writes where nothing is read any more.

Every folder made here holds a marker, `.scaletune.json`, with the unique id of its study and the
fingerprint of its config; each state repeats both. A folder without the marker of this study is
never written to, read or deleted, whatever its name, and a state of another study or of a config
that the run does not descend from is not loaded. A state is read without running any code that it
may hold, and folders and files are for their owner only, whatever the umask.

Three levels: `save_state` and `load_state` handle one file, `CheckpointStore` the folders of a
study, and `RunCheckpoints` decides which folders one driver keeps.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from hpo.errors import StudyError
from hpo.schedulers import Schedule
from hpo.trials import Cause, Observation, Status, Trial, TrialLog

STATE_FILE = "state.pt"
PARENT_FILE = "parent.pt"
MARKER_FILE = ".scaletune.json"
OWNER_FOLDER, OWNER_FILE = 0o700, 0o600  # permissions for the owner only
LONGEST_FILE_NAME = 255  # bytes of a name, on all common file systems
_BEST = "best"
_SAVING = ".saving-"  # a file that is being written, or that a kill has left half written
_NEW = ".new-"  # and a number: a folder that is being made or deleted, or that a kill has left
_SLUG = 40  # characters of a study's name in the name of its folder
_UNIQUE = 16  # characters of its unique id there

_log = logging.getLogger(__name__)

# What `torch.load(weights_only=True)` reads back, tensors aside.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Saved(NamedTuple):
    """A loaded checkpoint.

    Attributes:
        state: State that the user saved.
        seconds: Training time that led to it.
        cost: Last cost that the user had reported by then, in the user's own count.
        offset: Amount that was added to that count to get the trial's cost; more than zero once a
            run had to be restarted.
    """

    state: Any
    seconds: float
    cost: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckpointKey:
    """Identity of a run, which says whose checkpoints it may write and read.

    Attributes:
        study: Unique id of the study.
        config: Fingerprint of the run's config.
        ancestors: Fingerprints of the runs that it descends from, whose states it may load as well.

    Example:
        >>> key = CheckpointKey("study", "b", ancestors=frozenset({"a"}))
        >>> key.accepts({"study": "study", "config": "a"})
        True
        >>> key.accepts({"study": "another", "config": "b"})
        False
    """

    study: str
    config: str
    ancestors: frozenset[str] = frozenset()

    def accepts(self, marker: Mapping[str, Any]) -> bool:
        """Return whether a folder or state belongs to this run or to one it descends from.

        Args:
            marker: Content of the folder's marker; a config of None was written by a version that
                kept none.
        """
        config = marker.get("config")
        known = config is None or config == self.config or config in self.ancestors
        return marker.get("study") == self.study and known

    def marker(self) -> dict[str, str]:
        """Return what is written into the run's folder and into each of its states."""
        return {"study": self.study, "config": self.config}


def fingerprint(config: Mapping[str, Any], *, without: str | None = None) -> str:
    """Return a short name of a config, equal for equal configs in every process.

    Args:
        config: Values by parameter name.
        without: Name of the fidelity, which grows while the run stays the same.

    Example:
        >>> fingerprint({"lr": 0.1, "epochs": 3}, without="epochs") == fingerprint({"lr": 0.1})
        True
    """
    values = sorted((name, repr(value)) for name, value in config.items() if name != without)
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def study_folder(base: Path, name: str, study: str) -> Path:
    """Return the folder of a study's checkpoints: readable, unique, and always below `base`.

    Args:
        base: Folder of all studies.
        name: Name of the study, whatever it contains.
        study: Unique id of the study, which tells it from another one of the same name.

    Example:
        >>> study_folder(Path("runs"), "../my study", "0123456789abcdef0123").as_posix()
        'runs/my-study-0123456789abcdef'
    """
    slug, unique = (re.sub(r"[^A-Za-z0-9_]+", "-", text) for text in (name, study[:_UNIQUE]))
    return base / f"{slug[:_SLUG].strip('-') or 'study'}-{unique}"


def bounded(stem: str, ending: str) -> str:
    """Return the name `stem` + `ending` of a file or folder, shortened to what file systems take.

    Args:
        stem: Beginning, of any length.
        ending: End, which is kept.

    Example:
        >>> bounded("runs", "_checkpoints")
        'runs_checkpoints'
        >>> len(bounded("長" * 80, "_checkpoints").encode()) <= LONGEST_FILE_NAME
        True
    """
    whole = stem.encode(errors="surrogateescape")  # UTF-8 in every locale: the longest there is
    if len(whole) + len(ending.encode()) <= LONGEST_FILE_NAME:
        return stem + ending
    ending = f"-{hashlib.sha256(whole).hexdigest()[:16]}{ending}"
    room = LONGEST_FILE_NAME - len(ending.encode())
    return whole[:room].decode(errors="ignore") + ending


class CheckpointStore:
    """The checkpoint folders of one study.

    A folder is kept as long as it is held: by the stage that trains in it, or for a run that may be
    continued from it. A folder that was never held here belongs to another driver and is left
    alone, and so is every folder without the marker of this study.

    Args:
        root: Folder of the study.
        study: Unique id of the study.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = CheckpointStore(Path(folder), "study")
        ...     save_state(store.folder(0), {"step": 3}, seconds=1.0,
        ...                key=CheckpointKey("study", "config"))
        ...     store.hold(0)
        ...     print(store.numbers())
        ...     store.release(0)
        ...     print(store.numbers())
        {0}
        set()
    """

    def __init__(self, root: Path, study: str) -> None:
        self.root = root
        self.study = study
        self._holders: Counter[int] = Counter()

    def folder(self, number: int) -> Path:
        """Return the folder of trial `number`, which exists once something was saved there."""
        return self.root / str(number)

    def link(self, parent: int, child: int, key: CheckpointKey, *, clone: bool = False) -> None:
        """Give trial `child` what `parent` has saved; do nothing if that is nothing.

        The state is a hard link where the file system has them: the parent's next save replaces
        its own name only. Other files are copied, because they may be edited in place. The child's
        folder appears whole: a kill on the way leaves none, and the parent's is looked at again.

        Args:
            parent: Number of the trial that saved.
            child: Number of the trial that starts from it.
            key: Key of the child, whose ancestor the parent must be.
            clone: Whether the state is readable as that of the child's parent, too.
        """
        source, destination = self.folder(parent), self.folder(child)
        marker = _marker(source)
        if marker is None or not key.accepts(marker):
            return
        with _appearing(destination) as folder:
            _write_marker(folder, key.marker())
            try:
                shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=_link_state)
            except OSError:
                if source.exists():
                    raise  # else it was deleted meanwhile, with what was saved
            if clone and (folder / STATE_FILE).exists():
                _link_in_place(folder / STATE_FILE, folder / PARENT_FILE)

    def keep_best(self, number: int) -> None:
        """Keep what trial `number` saved last as the best, if it saved anything."""
        state = self.folder(number) / STATE_FILE
        if state.exists() and self._is_ours(self.folder(number)):
            prepare(self.root / _BEST, CheckpointKey(self.study, _BEST))
            _link_in_place(state, self.root / _BEST / STATE_FILE)

    def descend_from_best(self, child: int, key: CheckpointKey) -> None:
        """Show trial `child` the best state as its parent's; do nothing if none is kept."""
        best = self.root / _BEST / STATE_FILE
        if best.exists() and self._is_ours(self.root / _BEST):
            prepare(self.folder(child), key)
            _link_in_place(best, self.folder(child) / PARENT_FILE)

    def numbers(self) -> set[int]:
        """Return the trials that have a folder of this study, whichever driver holds it."""
        try:
            folders = list(self.root.iterdir())
        except FileNotFoundError:
            return set()
        whole = (path for path in folders if path.name.isdecimal() and self._is_ours(path))
        begun = (path.name.removeprefix(_NEW) for path in folders if path.name.startswith(_NEW))
        return {int(path.name) for path in whole} | {int(n) for n in begun if n.isdecimal()}

    def take_over(self, folder: Path) -> None:
        """Move the trials' folders that a version without markers has left in `folder`.

        Only numbered folders with a state in them are moved; the rest may belong to anyone.
        """
        if not folder.is_dir():
            return
        for path in folder.iterdir():
            states = (path / STATE_FILE, path / PARENT_FILE)
            if not path.name.isdecimal() or not any(state.is_file() for state in states):
                continue
            destination = self.folder(int(path.name))
            if not destination.exists():
                make_private(self.root)
                os.replace(path, destination)
                destination.chmod(OWNER_FOLDER)
                _write_marker(destination, {"study": self.study, "config": None})

    def hold(self, number: int) -> None:
        """Hold the folder of trial `number`, once more than before."""
        self._holders[number] += 1

    def release(self, number: int) -> None:
        """Hold the folder of trial `number` once less; delete it with its last hold."""
        self._holders[number] -= 1
        if self._holders[number] <= 0:
            del self._holders[number]
            self.remove(number)

    def remove(self, number: int) -> None:
        """Delete the folder of trial `number`, if there is one and it is of this study.

        It changes its name first: one that a kill leaves half deleted, without its marker, would
        be nobody's under the old name.
        """
        folder = self.folder(number)
        shutil.rmtree(_new(folder), ignore_errors=True)  # what a kill has left
        if self._is_ours(folder):
            with suppress(OSError):
                os.replace(folder, _new(folder))
            for path in (_new(folder), folder):  # the latter where it could not be renamed
                shutil.rmtree(path, ignore_errors=True)

    def _is_ours(self, folder: Path) -> bool:
        marker = _marker(folder)
        return marker is not None and marker.get("study") == self.study


class RunCheckpoints:
    """Decides which checkpoint folders of a study one driver keeps, and which a trial starts from.

    A running trial's folder is held, and so is that of an ended or paused trial as long as the
    schedule may continue its run.

    Args:
        store: Folders of the study.
        log: Log of the study.
        schedule: Schedule that says which checkpoints may be needed again.
        fidelity: Name of the fidelity in a config, if there is one.
        warm_start: Whether the best finished run's state is kept and shown to new trials.
        sign: 1 if the loss is minimized, -1 if it is maximized.
    """

    def __init__(
        self,
        store: CheckpointStore,
        log: TrialLog,
        schedule: Schedule,
        *,
        fidelity: str | None,
        warm_start: bool,
        sign: float,
    ) -> None:
        self._store = store
        self._log = log
        self._schedule = schedule
        self._fidelity = fidelity
        self._warm_start = warm_start
        self._sign = sign
        self._ended: set[int] = set()  # ended and paused trials whose folder we hold
        self._awaited: set[int] = set()  # those from which a trial without a folder is to start

    def folder(self, number: int) -> Path:
        """Return the folder of trial `number`."""
        return self._store.folder(number)

    def key(self, trial: Trial) -> CheckpointKey:
        """Return whose checkpoints `trial` may read: its own and those it descends from."""
        prints = [
            fingerprint(self._log.trial(number).config, without=self._fidelity)
            for number in self._lineage(trial)
        ]
        return CheckpointKey(self._store.study, prints[0], frozenset(prints[1:]))

    def begin(self, trial: Trial, *, confirming: bool) -> None:
        """Hold the folder of a new trial, and put there what the trial starts from."""
        self._store.hold(trial.number)
        with _disk_errors(self._store.root):
            if trial.parent is not None:
                self._inherit(trial)
            elif self._warm_start and not confirming:
                self._store.descend_from_best(trial.number, self.key(trial))
        self._awaited.difference_update(self._lineage(trial))

    def resume(self, number: int) -> None:
        """Note that a paused trial runs again."""
        self._ended.discard(number)

    def end(self, number: int) -> None:
        """Note that a trial ended or paused: its folder stays as long as its run may continue."""
        self._ended.add(number)
        self.retire()

    def keep_if_best(self, observation: Observation, *, but: Iterable[int]) -> None:
        """Under `warm_start`, keep the state of a finished trial that did better than all others.

        Args:
            observation: The trial's result, which is not in the log yet.
            but: Trials to leave out of the comparison.
        """
        if not self._warm_start or observation.loss is None:
            return
        others, loss = set(but), observation.loss
        if observation.status is Status.COMPLETED and all(
            self._sign * loss < self._sign * other.loss
            for other in self._log.observations
            if other.status is Status.COMPLETED
            and other.loss is not None
            and other.number not in others
        ):
            with _disk_errors(self._store.root):
                self._store.keep_best(observation.number)

    def unheld(self) -> set[int]:
        """Return the ended and running trials that have a folder, without those held as ended."""
        with _disk_errors(self._store.root):
            return self._store.numbers() - self._ended

    def take_over(self, numbers: Iterable[int], unfinished: Iterable[Trial]) -> None:
        """Hold what drivers that are gone have left, until the schedule has no use for it.

        Args:
            numbers: Ended and paused trials of drivers that are gone.
            unfinished: Trials that run elsewhere or are to be continued. One that was written, but
                whose driver was killed before it had a folder, still needs that of its ancestors.
        """
        self._awaited = {
            number
            for trial in unfinished
            if not self._store.folder(trial.number).is_dir()
            for number in list(self._lineage(trial))[1:]
        }
        for number in numbers:
            self._store.hold(number)
            self._ended.add(number)
        self.retire()

    def retire(self) -> None:
        """Release the folders from which no run will be continued."""
        kept = self._schedule.checkpoints_to_keep(self._log) if self._ended else frozenset()
        kept |= self._awaited
        for number in self._ended - kept:
            self._store.release(number)
        self._ended &= kept

    def _lineage(self, trial: Trial) -> Iterator[int]:
        """Numbers of `trial` and of those whose checkpoints it goes back to, newest first."""
        yield trial.number
        while trial.parent is not None:
            trial = self._log.trial(trial.parent)
            yield trial.number

    def _inherit(self, trial: Trial) -> None:
        """Link the newest checkpoint that `trial` can continue, and release lost attempts'."""
        lineage = list(self._lineage(trial))[1:]
        clone = self._log.trial(lineage[0]).ask_index != trial.ask_index  # a run of its own
        for number in lineage:
            if self._store.folder(number).is_dir():
                self._store.link(number, trial.number, self.key(trial), clone=clone)
                break
        for number in lineage:
            observation = self._log.observation(number)
            if observation is not None and observation.cause is Cause.LOST:
                self._ended.discard(number)
                self._store.release(number)


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Raise errors of the disk as StudyError, with the place and the way out."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StudyError(
            f"the checkpoints in {root} cannot be kept: {reason}; make room there, or make it "
            "readable and writable, and call again. What was told before is still there"
        ) from error


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner only.

    A folder that is there keeps its permissions.

    Args:
        folder: Folder to make.

    Example:
        >>> with tempfile.TemporaryDirectory() as base:
        ...     make_private(Path(base, "study", "0"))
        ...     oct(Path(base, "study").stat().st_mode & 0o777)
        '0o700'
    """
    if folder.is_dir():
        return
    make_private(folder.parent)
    try:
        folder.mkdir(mode=OWNER_FOLDER)
    except FileExistsError:  # another driver was faster
        if not folder.is_dir():
            raise
    else:
        folder.chmod(OWNER_FOLDER)  # where the umask takes rights from the owner, too


def prepare(folder: Path, key: CheckpointKey) -> None:
    """Make the folder of a run, with its marker.

    Args:
        folder: Folder of the run.
        key: Key of the run.

    Raises:
        StudyError: For a folder that is not the run's and holds something.
    """
    marker = _marker(folder)
    if marker is not None and key.accepts(marker):
        return
    if folder.is_dir() and any(not path.name.startswith(_SAVING) for path in folder.iterdir()):
        raise StudyError(
            f"{folder} is where this run keeps its checkpoints, but it holds files of another "
            "study, of another config, or that scaletune did not make; move that folder away"
        )
    if folder.is_dir():
        _write_marker(folder, key.marker())
        return
    with _appearing(folder) as new:
        _write_marker(new, key.marker())


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A new folder that takes its name once it is whole; a kill leaves it under another name."""
    new = _new(folder)
    shutil.rmtree(new, ignore_errors=True)
    make_private(new)
    yield new
    os.replace(new, folder)


def _new(folder: Path) -> Path:
    """Name of a run's folder until it is whole; one process at a time makes it."""
    return folder.with_name(f"{_NEW}{folder.name}")


def save_state(
    folder: Path,
    state: Any,
    *,
    seconds: float,
    cost: float = 0.0,
    offset: float = 0.0,
    key: CheckpointKey | None = None,
) -> None:
    """Write `state` to `folder` so that a kill at any moment leaves the old or the new file whole.

    Args:
        folder: Folder of the run.
        state: Tensors, plain Python values, and dicts, lists and tuples of them.
        seconds: Training time that led to the state.
        cost: Cost that led to the state, in the user's own count.
        offset: Amount to add to that count; see `Saved`.
        key: Key of the run; None outside of a study.

    Raises:
        TypeError: For anything that `load_state` would refuse to read back.
        StudyError: For a folder that is not the run's.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_state(Path(folder), {"step": 3}, seconds=1.5)
        ...     load_state(Path(folder))
        Saved(state={'step': 3}, seconds=1.5, cost=0.0, offset=0.0)
    """
    import torch

    _check_loadable(state, "state")
    if key is None:
        make_private(folder)
    else:
        prepare(folder, key)
    with _replacing(folder / STATE_FILE) as file:
        whole = {"state": state, "seconds": seconds, "cost": cost, "offset": offset}
        torch.save(whole | ({} if key is None else key.marker()), file)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, for its owner only, that takes the place of `path` once it is on the disk."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_SAVING)
    os.chmod(temporary, OWNER_FILE)  # where the umask takes rights from the owner, too
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        for cause in causes(error):
            if isinstance(cause, OSError) and cause is not error:
                raise cause from None  # torch raises an error of its own for it
        raise


def load_state(
    folder: Path, file: str = STATE_FILE, *, key: CheckpointKey | None = None
) -> Saved | None:
    """Read what `save_state` wrote to `folder`, onto the CPU; None if nothing was saved.

    Args:
        folder: Folder of the run.
        file: `STATE_FILE`, or `PARENT_FILE` for the run that this one descends from.
        key: Key of the run. A state of another study, or of a config that the run does not descend
            from, then counts as nothing, with a warning. None, outside of a study, takes any state.

    Returns:
        What was saved. None also for a file that is damaged or that `save_state` has not written,
        with a warning: no code in it is run, and training again is all that can be done.

    Raises:
        OSError: If the file is there but cannot be read.
    """
    import torch

    path = folder / file
    if not path.exists():
        return None
    try:
        stored = torch.load(path, weights_only=True, map_location="cpu")
        saved = Saved(
            stored["state"], stored["seconds"], stored.get("cost", 0.0), stored.get("offset", 0.0)
        )
    except FileNotFoundError:  # deleted since
        return None
    except (OSError, MemoryError):
        raise  # it may be whole
    except Exception as error:  # whatever a file that is damaged or made by others leads to
        if "memory" in str(error):
            raise
        _log.warning(
            "%s is damaged, or not a state that scaletune has written (%s); it is not loaded, and "
            "the run starts from the beginning",
            path,
            type(error).__name__,  # torch suggests to load it without its guard
        )
        return None
    if key is not None and not _is_of(stored, folder, file, key):
        _log.warning(
            "%s was saved by another study or with another config; it is not loaded, and the run "
            "starts from the beginning",
            path,
        )
        return None
    return saved


def _is_of(stored: Mapping[str, Any], folder: Path, file: str, key: CheckpointKey) -> bool:
    """Whether a state belongs to the run of `key`; an unmarked one has its folder's marker.

    A parent's state may have any config: the run starts from it, but does not continue it.
    """
    marker = stored if "study" in stored else _marker(folder)
    if marker is None or not (file == PARENT_FILE or key.accepts(marker)):
        return False
    return bool(marker.get("study") == key.study)


def _marker(folder: Path) -> dict[str, Any] | None:
    """Content of the marker in `folder`; None without one that can be read."""
    try:
        marker = json.loads((folder / MARKER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _write_marker(folder: Path, marker: Mapping[str, str | None]) -> None:
    """Write a marker atomically: a kill leaves the old one, the new one or none."""
    with _replacing(folder / MARKER_FILE) as file:
        file.write(json.dumps(marker).encode())


def _link_state(source: str, destination: str) -> None:
    """Hard-link finished states, leave half-written ones and the marker behind, copy the rest."""
    name = os.path.basename(source)
    if name.startswith(_SAVING) or name == MARKER_FILE:
        return
    if name in (STATE_FILE, PARENT_FILE):
        try:
            os.link(source, destination)
            return
        except OSError:
            pass  # another device, or a file system without links: copy
    shutil.copy2(source, destination)


def _link_in_place(source: Path, destination: Path) -> None:
    """Give a finished state one more name, in one step, whatever had that name before."""
    make_private(destination.parent)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=_SAVING) as folder:
        temporary = Path(folder) / destination.name
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copy2(source, temporary)
        os.replace(temporary, destination)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, what it was raised from, and so on.

    Args:
        error: The error that came last.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _check_loadable(state: Any, where: str) -> None:
    """Refuse at save time what would only fail after a crash, when it is too late.

    Raises TypeError naming the entry.
    """
    import torch

    if type(state) in _PLAIN or isinstance(
        state, torch.Tensor | torch.dtype | torch.device | torch.Size
    ):
        return
    if type(state) in (dict, OrderedDict, Counter):
        for key, value in state.items():
            _check_loadable(key, f"a key of {where}")
            _check_loadable(value, f"{where}[{key!r}]")
        return
    if type(state) in (list, tuple, set):
        for index, value in enumerate(state):
            _check_loadable(value, f"{where}[{index}]")
        return
    raise TypeError(
        "a checkpoint may hold tensors, plain Python values, and dicts, lists, tuples and sets of "
        f"them, but {where} is a {type(state).__module__}.{type(state).__qualname__}; convert it "
        "first, for instance with torch.as_tensor(...), float(...) or .state_dict()"
    )
