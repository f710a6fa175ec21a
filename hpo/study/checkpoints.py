"""Checkpoints of running trials: one folder per attempt, written atomically.

Layout under the run directory: `<trial number>/state.pt`, beside whatever else the training
function keeps in its folder, and `<trial number>/parent.pt`, which is the state of the run that the
trial descends from and never changes. A folder belongs to one attempt of one trial, and so to
whoever holds that attempt's lease. An attempt that is taken over goes on under a new trial number
with a folder of its own, so a former owner that turns out to be alive writes where nobody reads any
more. `best/state.pt` is what the best finished run saved last, where a study keeps it.

Every folder made here holds a marker, `.scaletune.json`, with the unique id of its study and the
fingerprint of its config; each state repeats both. A folder without the marker of this study is
never written to, read or deleted, whatever its name, and a state of another study or of a config
that the run does not descend from is not loaded.
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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hpo.errors import StudyError

STATE_FILE = "state.pt"
PARENT_FILE = "parent.pt"
MARKER_FILE = ".scaletune.json"
_BEST = "best"
_SAVING = ".saving-"  # a file that is being written, or that a kill has left half written
_SLUG = 40  # characters of a study's name in the name of its folder

_log = logging.getLogger(__name__)

# What `torch.load(weights_only=True)` reads back, tensors aside.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Saved(NamedTuple):
    """A loaded checkpoint.

    `state`: the user's. `seconds`: of training that led to it. `cost`: the last one the user had
    reported by then, in the user's own count. `offset`: what was added to that count to get the
    trial's cost, more than zero once a run had to be restarted.
    """

    state: Any
    seconds: float
    cost: float = 0.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckpointKey:
    """Whose checkpoints a run may write and read.

    `study`: unique id of the study. `config`: fingerprint of the run's config. `ancestors`: those
    of the runs that it descends from, whose states it may load as well.
    """

    study: str
    config: str
    ancestors: frozenset[str] = frozenset()

    def accepts(self, marker: Mapping[str, Any]) -> bool:
        """Whether a folder or state marked so belongs to this run or to one it descends from.

        A config of None was written by a version that kept none.
        """
        config = marker.get("config")
        known = config is None or config == self.config or config in self.ancestors
        return marker.get("study") == self.study and known

    def marker(self) -> dict[str, str]:
        """What is written into the run's folder and into each of its states."""
        return {"study": self.study, "config": self.config}


def fingerprint(config: Mapping[str, Any], *, without: str | None = None) -> str:
    """A short name of a config, equal for equal ones in every process.

    `without`: the fidelity, which grows while the run stays the same.
    """
    values = sorted((name, repr(value)) for name, value in config.items() if name != without)
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


def study_folder(base: Path, name: str, study: str) -> Path:
    """The folder of a study's checkpoints under `base`: readable, unique, and never a path.

    `study`: its unique id, which alone tells it from another study of the same `name`.
    """
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", name)[:_SLUG].strip("-")
    return base / f"{slug or 'study'}-{study[:16]}"


class CheckpointStore:
    """The checkpoint folders of one study, under `root`.

    A folder lives as long as somebody holds it: the stage that trains in it, or whoever may go on
    from it. What was never held here belongs to another driver and is left alone, and so is every
    folder that does not bear the marker of this `study`.
    """

    def __init__(self, root: Path, study: str) -> None:
        self.root = root
        self.study = study
        self._holders: Counter[int] = Counter()

    def folder(self, number: int) -> Path:
        """Folder of trial `number`; it exists once something was saved there."""
        return self.root / str(number)

    def link(self, parent: int, child: int, key: CheckpointKey) -> None:
        """Give trial `child` what `parent` has saved; nothing happens if that is nothing.

        The state is a hard link where the file system has them: the parent's next save replaces
        its own name only. Other files are copied, for nobody promised not to edit them in place.

        `key`: of the child, whose ancestor the parent must be.
        """
        source, destination = self.folder(parent), self.folder(child)
        marker = _marker(source)
        if marker is None or not key.accepts(marker):
            return
        prepare(destination, key)
        shutil.copytree(source, destination, dirs_exist_ok=True, copy_function=_link_state)

    def descend(self, child: int) -> None:
        """Let what trial `child` starts from, linked before, stay readable as its parent's."""
        state = self.folder(child) / STATE_FILE
        if state.exists():
            _link_in_place(state, self.folder(child) / PARENT_FILE)

    def keep_best(self, number: int) -> None:
        """Keep what trial `number` saved last, in place of what was kept; if it saved anything."""
        state = self.folder(number) / STATE_FILE
        if state.exists() and self._is_ours(self.folder(number)):
            prepare(self.root / _BEST, CheckpointKey(self.study, _BEST))
            _link_in_place(state, self.root / _BEST / STATE_FILE)

    def descend_from_best(self, child: int, key: CheckpointKey) -> None:
        """Show trial `child` what is kept as its parent's; nothing happens if there is nothing."""
        best = self.root / _BEST / STATE_FILE
        if best.exists() and self._is_ours(self.root / _BEST):
            prepare(self.folder(child), key)
            _link_in_place(best, self.folder(child) / PARENT_FILE)

    def numbers(self) -> set[int]:
        """Trials that have a folder of this study, whoever holds it."""
        if not self.root.is_dir():
            return set()
        folders = (path for path in self.root.iterdir() if path.name.isdecimal())
        return {int(path.name) for path in folders if self._is_ours(path)}

    def take_over(self, folder: Path) -> None:
        """Take over the trials' folders that a version without markers has left in `folder`.

        Only numbered folders with a state in them are moved; the rest is not known to be ours.
        """
        if not folder.is_dir():
            return
        for path in folder.iterdir():
            states = (path / STATE_FILE, path / PARENT_FILE)
            if not path.name.isdecimal() or not any(state.is_file() for state in states):
                continue
            destination = self.folder(int(path.name))
            if not destination.exists():
                self.root.mkdir(parents=True, exist_ok=True)
                os.replace(path, destination)
                _write_marker(destination, {"study": self.study, "config": None})

    def hold(self, number: int) -> None:
        """Need the folder of trial `number`, once more than before."""
        self._holders[number] += 1

    def release(self, number: int) -> None:
        """Need it once less; with its last holder the folder goes."""
        self._holders[number] -= 1
        if self._holders[number] <= 0:
            del self._holders[number]
            self.remove(number)

    def remove(self, number: int) -> None:
        """Delete the folder of trial `number`, if there is one and it is of this study."""
        if self._is_ours(self.folder(number)):
            shutil.rmtree(self.folder(number), ignore_errors=True)

    def _is_ours(self, folder: Path) -> bool:
        marker = _marker(folder)
        return marker is not None and marker.get("study") == self.study


def prepare(folder: Path, key: CheckpointKey) -> None:
    """Make the folder of a run, with its marker.

    Raises StudyError for a folder that is not the run's and holds something.
    """
    marker = _marker(folder)
    if marker is not None and key.accepts(marker):
        return
    if folder.is_dir() and any(not path.name.startswith(_SAVING) for path in folder.iterdir()):
        raise StudyError(
            f"{folder} is where this run keeps its checkpoints, but it holds files of another "
            "study, of another config, or that scaletune did not make; move that folder away"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _write_marker(folder, key.marker())


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

    `state`: tensors, plain Python values, and dicts, lists and tuples of them.
    `seconds`, `cost`, `offset`: as in `Saved`, kept so that the trial's cost can go on from them.
    `key`: of the run; None outside of a study.

    Raises TypeError for anything that `load_state` would refuse to read back, and StudyError for a
    folder that is not the run's.
    """
    import torch

    _check_loadable(state, "state")
    if key is None:
        folder.mkdir(parents=True, exist_ok=True)
    else:
        prepare(folder, key)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=_SAVING)
    try:
        with os.fdopen(handle, "wb") as file:
            whole = {"state": state, "seconds": seconds, "cost": cost, "offset": offset}
            torch.save(whole | ({} if key is None else key.marker()), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / STATE_FILE)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_state(
    folder: Path, file: str = STATE_FILE, *, key: CheckpointKey | None = None
) -> Saved | None:
    """Read what `save_state` wrote to `folder`, on the CPU; None if nothing was saved.

    `file`: `STATE_FILE`, or `PARENT_FILE` for the run that this one descends from.
    `key`: of the run; a state of another study, or of a config that the run does not descend from,
    then counts as nothing, which is said in a warning. None outside of a study takes any state.
    """
    import torch

    path = folder / file
    if not path.exists():
        return None
    stored = torch.load(path, weights_only=True, map_location="cpu")
    if key is not None and not _is_of(stored, folder, file, key):
        _log.warning(
            "%s was saved by another study or with another config; it is not loaded, and the run "
            "starts from the beginning",
            path,
        )
        return None
    return Saved(
        stored["state"], stored["seconds"], stored.get("cost", 0.0), stored.get("offset", 0.0)
    )


def _is_of(stored: Mapping[str, Any], folder: Path, file: str, key: CheckpointKey) -> bool:
    """Whether a state belongs to the run of `key`; its own folder vouches for an unmarked one.

    A parent's state may have any config: it is the run's to start from, not to go on with.
    """
    marker = stored if "study" in stored else _marker(folder)
    if marker is None or not (file == PARENT_FILE or key.accepts(marker)):
        return False
    return bool(marker.get("study") == key.study)


def _marker(folder: Path) -> dict[str, Any] | None:
    """What the marker in `folder` says; None without one that can be read."""
    try:
        marker = json.loads((folder / MARKER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _write_marker(folder: Path, marker: Mapping[str, str | None]) -> None:
    """Write a marker whole: a kill leaves the old one, the new one or none."""
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=_SAVING)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(marker, file)
    os.replace(temporary, folder / MARKER_FILE)


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
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=_SAVING) as folder:
        temporary = Path(folder) / destination.name
        try:
            os.link(source, temporary)
        except OSError:  # a file system without links
            shutil.copy2(source, temporary)
        os.replace(temporary, destination)


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
