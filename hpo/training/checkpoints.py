"""Checkpoints of running trials: one folder per attempt, written atomically.

Layout under the run directory: `<trial number>/state.pt`, beside whatever else the training
function keeps in its folder, and `<trial number>/parent.pt`, which is the state of the run that the
trial descends from and never changes. A folder belongs to one attempt of one trial, and so to
whoever holds that attempt's lease. An attempt that is taken over goes on under a new trial number
with a folder of its own, so a former owner that turns out to be alive writes where nobody reads any
more. `best/state.pt` is what the best finished run saved last, where a study keeps it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

STATE_FILE = "state.pt"
PARENT_FILE = "parent.pt"
_BEST = "best"

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


class CheckpointStore:
    """The checkpoint folders of one study, under `root`.

    A folder lives as long as somebody holds it: the stage that trains in it, or whoever may go on
    from it. What was never held here belongs to another driver and is left alone.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._holders: Counter[int] = Counter()

    def folder(self, number: int) -> Path:
        """Folder of trial `number`; it exists once something was saved there."""
        return self.root / str(number)

    def link(self, parent: int, child: int) -> None:
        """Give trial `child` what `parent` has saved; nothing happens if that is nothing.

        The state is a hard link where the file system has them: the parent's next save replaces
        its own name only. Other files are copied, for nobody promised not to edit them in place.
        """
        source, destination = self.folder(parent), self.folder(child)
        if not source.is_dir():
            return
        shutil.copytree(source, destination, dirs_exist_ok=True, copy_function=_link_state)

    def descend(self, child: int) -> None:
        """Let what trial `child` starts from, linked before, stay readable as its parent's."""
        state = self.folder(child) / STATE_FILE
        if state.exists():
            _link_in_place(state, self.folder(child) / PARENT_FILE)

    def keep_best(self, number: int) -> None:
        """Keep what trial `number` saved last, in place of what was kept; if it saved anything."""
        state = self.folder(number) / STATE_FILE
        if state.exists():
            _link_in_place(state, self.root / _BEST / STATE_FILE)

    def descend_from_best(self, child: int) -> None:
        """Show trial `child` what is kept as its parent's; nothing happens if there is nothing."""
        best = self.root / _BEST / STATE_FILE
        if best.exists():
            _link_in_place(best, self.folder(child) / PARENT_FILE)

    def numbers(self) -> set[int]:
        """Trials that have a folder, whoever holds it."""
        if not self.root.is_dir():
            return set()
        return {int(path.name) for path in self.root.iterdir() if path.name.isdigit()}

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
        """Delete the folder of trial `number`, if there is one."""
        shutil.rmtree(self.folder(number), ignore_errors=True)

    def clear(self) -> None:
        """Delete every folder of the run."""
        shutil.rmtree(self.root, ignore_errors=True)


def save_state(
    folder: Path, state: Any, *, seconds: float, cost: float = 0.0, offset: float = 0.0
) -> None:
    """Write `state` to `folder` so that a kill at any moment leaves the old or the new file whole.

    `state`: tensors, plain Python values, and dicts, lists and tuples of them.
    `seconds`, `cost`, `offset`: as in `Saved`, kept so that the trial's cost can go on from them.

    Raises TypeError for anything that `load_state` would refuse to read back.
    """
    import torch

    _check_loadable(state, "state")
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=".saving-")
    try:
        with os.fdopen(handle, "wb") as file:
            whole = {"state": state, "seconds": seconds, "cost": cost, "offset": offset}
            torch.save(whole, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, folder / STATE_FILE)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_state(folder: Path, file: str = STATE_FILE) -> Saved | None:
    """Read what `save_state` wrote to `folder`, on the CPU; None if nothing was saved.

    `file`: `STATE_FILE`, or `PARENT_FILE` for the run that this one descends from.
    """
    import torch

    path = folder / file
    if not path.exists():
        return None
    stored = torch.load(path, weights_only=True, map_location="cpu")
    return Saved(
        stored["state"], stored["seconds"], stored.get("cost", 0.0), stored.get("offset", 0.0)
    )


def _link_state(source: str, destination: str) -> None:
    """Hard-link finished states, leave half-written ones behind, copy everything else."""
    name = os.path.basename(source)
    if name.startswith(".saving-"):
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
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".saving-") as folder:
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
