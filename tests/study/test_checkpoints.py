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
import optuna
import pytest
import torch
from optuna.storages import BaseStorage, InMemoryStorage

from hpo import ASHA, Budget, Context, Fidelity, Float, optimize
from hpo.errors import StudyError
from hpo.study.checkpoints import (
    MARKER_FILE,
    PARENT_FILE,
    STATE_FILE,
    CheckpointKey,
    CheckpointStore,
    fingerprint,
    load_state,
    prepare,
    save_state,
    study_folder,
)
from tests.study.studies import SPACE, Config

KEY = CheckpointKey("study", "config")


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
    store = CheckpointStore(tmp_path, "study")
    save_state(store.folder(0), "first", seconds=1.0, key=KEY)
    (store.folder(0) / "notes.txt").write_text("mine")
    (store.folder(0) / ".saving-torn").write_text("half a state")
    store.link(0, 3, KEY)
    save_state(store.folder(0), "from a former owner", seconds=2.0, key=KEY)
    (store.folder(0) / "notes.txt").write_text("changed")
    saved = load_state(store.folder(3), key=KEY)
    assert saved is not None and saved.state == "first"
    names = sorted(p.name for p in store.folder(3).iterdir())
    assert names == [MARKER_FILE, "notes.txt", STATE_FILE]
    assert (store.folder(3) / "notes.txt").read_text() == "mine"


def test_linking_from_and_removing_nothing_does_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run", "study")
    store.link(0, 1, KEY)
    store.remove(0)
    assert not store.folder(1).exists()


def test_a_folder_that_a_kill_left_half_deleted_is_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path / "study", "id")
    save_state(store.folder(3), {"epoch": 1}, seconds=0.0, key=CheckpointKey("id", "print"))

    class Killed(BaseException):
        pass

    def kill_on_the_way(path: Path, ignore_errors: bool = False) -> None:
        for file in Path(path).glob("*"):
            file.unlink()
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("shutil.rmtree", kill_on_the_way)
        store.remove(3)
    assert store.numbers() == {3}
    store.remove(3)
    assert not list((tmp_path / "study").iterdir())


def test_a_removed_parent_leaves_the_child_its_state(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, "study")
    save_state(store.folder(0), 42, seconds=0.0, key=KEY)
    store.link(0, 1, KEY)
    store.remove(0)
    assert not store.folder(0).exists()
    saved = load_state(store.folder(1), key=KEY)
    assert saved is not None and saved.state == 42


def test_a_clone_may_load_what_its_parent_saved_and_an_unrelated_run_may_not(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path, "study")
    save_state(store.folder(0), 42, seconds=0.0, key=KEY)
    clone = CheckpointKey("study", "changed", frozenset({"config"}))
    store.link(0, 1, clone)
    saved = load_state(store.folder(1), key=clone)
    assert saved is not None and saved.state == 42
    store.link(0, 2, CheckpointKey("study", "unrelated"))
    assert not store.folder(2).exists()


@pytest.mark.parametrize(
    "unrelated", [CheckpointKey("other", "config"), CheckpointKey("study", "b")]
)
def test_a_state_of_another_study_or_config_is_not_loaded(
    tmp_path: Path, unrelated: CheckpointKey, caplog: pytest.LogCaptureFixture
) -> None:
    save_state(tmp_path / "0", 42, seconds=0.0, key=KEY)
    assert load_state(tmp_path / "0", key=unrelated) is None
    assert str(tmp_path / "0") in caplog.text


def test_a_parents_state_may_have_another_config_but_not_another_study(tmp_path: Path) -> None:
    save_state(tmp_path, 42, seconds=0.0, key=KEY)
    (tmp_path / STATE_FILE).rename(tmp_path / PARENT_FILE)
    assert load_state(tmp_path, PARENT_FILE, key=CheckpointKey("study", "b")) is not None
    assert load_state(tmp_path, PARENT_FILE, key=CheckpointKey("other", "config")) is None


def test_a_folder_that_scaletune_did_not_make_is_neither_written_nor_deleted(
    tmp_path: Path,
) -> None:
    store = CheckpointStore(tmp_path, "study")
    for number, key in ((0, None), (1, CheckpointKey("other", "config"))):
        folder = store.folder(number)
        folder.mkdir()
        if key is not None:
            prepare(folder, key)
        (folder / "precious.txt").write_text("thesis")
        with pytest.raises(StudyError, match="did not make; move that folder away"):
            save_state(folder, 42, seconds=0.0, key=KEY)
        store.hold(number)
        store.release(number)
        store.remove(number)
        store.link(number, 7, KEY)
        assert (folder / "precious.txt").read_text() == "thesis"
    assert store.numbers() == set()
    assert not store.folder(7).exists()


def test_a_folder_that_a_kill_left_without_its_marker_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / ".saving-torn").write_text("half a marker")
    save_state(tmp_path / "0", 42, seconds=0.0, key=KEY)
    assert load_state(tmp_path / "0", key=KEY) is not None


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../..", "/", "a/../../b", "\\..\\x", "名" * 120, "%2e%2e", "~", "\0"]
)
def test_a_name_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    folder = study_folder(tmp_path, name, "0123456789abcdef")
    assert folder.parent == tmp_path and len(folder.name.encode()) < 100
    assert folder.name not in (".", "..") and folder.resolve().parent == tmp_path.resolve()


def test_equal_names_of_different_studies_have_different_folders(tmp_path: Path) -> None:
    assert study_folder(tmp_path, "n", "0" * 32) != study_folder(tmp_path, "n", "1" * 32)


def test_a_fingerprint_tells_configs_apart_but_not_how_far_they_train() -> None:
    config = {"x": 0.1, "kind": "a", "epochs": 3}
    assert fingerprint(config, without="epochs") == fingerprint(
        {"epochs": 9, "kind": "a", "x": 0.1}, without="epochs"
    )
    assert fingerprint(config) != fingerprint({**config, "epochs": 9})
    assert fingerprint(config) != fingerprint({**config, "x": np.nextafter(0.1, 1.0).item()})


def test_states_that_an_earlier_version_left_are_taken_over_and_nothing_else(
    tmp_path: Path,
) -> None:
    old, store = tmp_path / "n", CheckpointStore(tmp_path / "n-id", "study")
    save_state(old / "4", 42, seconds=1.0)
    (old / "5").mkdir()
    (old / "5" / "precious.txt").write_text("thesis")
    (old / "notes").mkdir()
    store.take_over(old)
    saved = load_state(store.folder(4), key=KEY)
    assert saved is not None and saved.state == 42
    assert store.numbers() == {4}
    assert (old / "5" / "precious.txt").exists() and (old / "notes").is_dir()


def test_a_kill_while_saving_leaves_a_whole_state(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import torch
        from hpo.study.checkpoints import save_state
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


# --- in studies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["..", ".", "../..", "0", "a/b", "名" * 120])
def test_no_name_of_a_study_touches_folders_of_its_user(folder: Path, name: str) -> None:
    home = folder / "deep" / "home"
    for place in (folder, home.parent, home):
        for number in ("0", "1", "2"):
            (place / number).mkdir(parents=True)
            (place / number / "precious.txt").write_text("thesis")

    def train(config: Config, ctx: Context) -> float:
        ctx.save({"x": config["x"]})
        return float(config["x"])

    storage = f"sqlite:///{home / 'runs.db'}"
    result = optimize(train, SPACE, budget=Budget(trials=3), name=name, storage=storage)
    assert all(o.cause is None for o in result.log.observations)
    assert len(list(folder.rglob("precious.txt"))) == 9
    assert not list(folder.rglob("state.pt"))  # what was made for the runs went with them


def test_a_study_begun_again_under_an_old_name_never_loads_an_old_checkpoint(
    folder: Path,
) -> None:
    mistaken: list[int] = []

    def train(config: Config, ctx: Context) -> float:
        state = ctx.load() or {"epochs": 0, "x": config["x"]}
        if state["x"] != config["x"]:
            mistaken.append(ctx.trial.number)
        assert ctx.fidelity is not None
        for epoch in range(state["epochs"] + 1, ctx.fidelity + 1):
            state["epochs"] = epoch
            ctx.save(state)
            ctx.report(step=epoch, loss=(state["x"] - 0.3) ** 2 + 1 / epoch)
        return float((state["x"] - 0.3) ** 2 + 1 / ctx.fidelity)

    def begin(seed: int, storage: str | BaseStorage | None = None) -> list[Path]:
        space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
        optimize(
            train,
            space,
            budget=Budget(trials=4),
            scheduler=ASHA(),
            name="s",
            seed=seed,
            storage=storage,
        )
        return list(folder.rglob("state.pt"))

    assert begin(1)  # some runs are paused, so there is something to mistake
    (folder / "scaletune.db").unlink()
    begin(2)
    optuna.delete_study(study_name="s", storage="sqlite:///scaletune.db")
    begin(3)
    begin(4, InMemoryStorage())
    begin(5, InMemoryStorage())
    begin(6, optuna.storages.RDBStorage("sqlite:///a.db"))
    begin(7, optuna.storages.RDBStorage("sqlite:///b.db"))
    begin(8, "sqlite:///x.db")
    begin(9, "sqlite:///x.sqlite3")
    assert mistaken == []


def test_a_paused_run_still_continues_from_its_checkpoint_in_the_next_call(folder: Path) -> None:
    begun: dict[int, list[int]] = {}

    def train(config: Config, ctx: Context) -> float:
        done = (ctx.load() or {"epochs": 0})["epochs"]
        begun.setdefault(ctx.trial.ask_index, []).append(done)
        ctx.save({"epochs": ctx.fidelity})
        return float((config["x"] - 0.3) ** 2 + 1 / (ctx.fidelity or 1))

    space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
    for cost in (4.0, 40.0):
        optimize(
            lambda config, ctx: {"loss": train(config, ctx), "cost": float(config["epochs"])},
            space,
            budget=Budget(cost=cost),
            cost="epochs",
            scheduler=ASHA(),
            name="s",
        )
    assert any(len(starts) > 1 for starts in begun.values())
    assert all(starts in ([0], [0, 1], [0, 1, 3]) for starts in begun.values())
