"""Checkpoints: whole or absent, never half; a folder per attempt."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo.training.checkpoints import STATE_FILE, CheckpointStore, load_state, save_state


def test_a_saved_state_comes_back_with_its_seconds(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    state = {"model": model.state_dict(), "step": 7, "losses": [1.0, 0.5], "order": (1, 2)}
    save_state(tmp_path / "0", state, seconds=1.5)
    saved = load_state(tmp_path / "0")
    assert saved is not None
    assert saved.seconds == 1.5
    assert saved.state["step"] == 7 and saved.state["order"] == (1, 2)
    assert torch.equal(saved.state["model"]["weight"], model.weight)


def test_loading_from_an_empty_folder_gives_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "nothing") is None


def test_optimizer_and_generator_states_can_be_saved(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = OrderedDict(optimizer=optimizer.state_dict(), rng=torch.get_rng_state())
    save_state(tmp_path, state, seconds=0.0)
    saved = load_state(tmp_path)
    assert saved is not None
    optimizer.load_state_dict(saved.state["optimizer"])


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"lr": np.float64(0.1)}, r"state\['lr'\] is a numpy.float64"),
        ([1, (2, np.zeros(2))], r"state\[1\]\[1\] is a numpy.ndarray"),
        (torch.nn.Linear(1, 1), r"state is a torch.nn.modules.linear.Linear"),
    ],
)
def test_a_state_that_could_not_be_loaded_is_refused_when_saved(
    tmp_path: Path, state: object, where: str
) -> None:
    with pytest.raises(TypeError, match=where):
        save_state(tmp_path, state, seconds=0.0)
    assert list(tmp_path.iterdir()) == []


def test_linking_hands_over_the_state_and_later_saves_stay_apart(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save_state(store.folder(0), "first", seconds=1.0)
    (store.folder(0) / "notes.txt").write_text("mine")
    (store.folder(0) / ".saving-torn").write_text("half a state")
    store.link(0, 3)
    save_state(store.folder(0), "from a former owner", seconds=2.0)
    (store.folder(0) / "notes.txt").write_text("changed")
    saved = load_state(store.folder(3))
    assert saved is not None and saved.state == "first"
    assert sorted(p.name for p in store.folder(3).iterdir()) == ["notes.txt", STATE_FILE]
    assert (store.folder(3) / "notes.txt").read_text() == "mine"


def test_linking_from_and_removing_nothing_does_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run")
    store.link(0, 1)
    store.remove(0)
    store.clear()
    assert not store.folder(1).exists()


def test_a_removed_parent_leaves_the_child_its_state(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save_state(store.folder(0), 42, seconds=0.0)
    store.link(0, 1)
    store.remove(0)
    saved = load_state(store.folder(1))
    assert saved is not None and saved.state == 42


def test_a_kill_while_saving_leaves_a_whole_state(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import torch
        from hpo.training.checkpoints import save_state
        for step in range(10**6):
            state = {"step": step, "weight": torch.full((300_000,), float(step))}
            save_state(Path(sys.argv[1]), state, seconds=0.0)
            if step == 0:
                print("saving", flush=True)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "saving\n"
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    saved = load_state(tmp_path)
    assert saved is not None
    assert torch.equal(saved.state["weight"], torch.full((300_000,), float(saved.state["step"])))
