"""What is read back from a study, checkpoint folder or results file never runs as code.

docs/security.md says what holds and names these tests.
"""

import ast
import importlib
import importlib.util
import json
import pickle
import re
import sqlite3
import types
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo import ASHA, Budget, Context, Fidelity, Float, StudyError, load_result, optimize
from hpo.study.checkpoints import load_state
from tests.test_layers import modules, path_of

# Calls that run what they read, and what makes some of them harmless.
RUNS_CODE = {
    "eval": None,
    "exec": None,
    "compile": None,
    "__import__": None,
    "import_module": None,
    "run_path": None,
    "run_module": None,
    "os.system": None,
    "os.popen": None,
    "pickle.load": None,
    "pickle.loads": None,
    "cloudpickle.load": None,
    "cloudpickle.loads": None,
    "Unpickler": None,
    "read_pickle": None,
    "joblib.load": None,
    "marshal.load": None,
    "marshal.loads": None,
    "shelve.open": None,
    "yaml.load": None,
    "yaml.unsafe_load": None,
    "yaml.full_load": None,
    "torch.load": "weights_only=True",
    "np.load": "allow_pickle=False",
    "numpy.load": "allow_pickle=False",
}
# Where they may stand: what they read comes from the call itself, not from a file.
REASONS = {
    ("hpo", "import_module"): "modules of hpo, from a table in its own text",
    ("hpo.cli.space_file", "yaml.load"): "a SafeLoader, which makes plain values only",
    ("hpo.study.by_path", "import_module"): "the user names it, or it is of the user's own folder",
    ("hpo.adapters.loggers.base", "import_module"): "optional packages, named in the loggers",
    ("hpo.training.optimizers.packaged", "import_module"): "optional packages, named in its text",
    ("hpo.study.process_runner", "pickle.loads"): "the driver's own task, through a pipe",
    ("hpo.study.processes.by_value", "pickle.loads"): "a trial's own classes, in what it starts",
    ("hpo.adapters.remote", "pickle.loads"): "the driver's own task, through Ray or Dask",
    ("benchmarks.__main__", "import_module"): "modules of benchmarks, from a table in its text",
    ("benchmarks.tasks", "import_module"): "modules of benchmarks, from a table in its text",
    ("benchmarks.peers", "import_module"): "modules of benchmarks, from a table in its text",
}


def calls_that_run_code(text: str) -> Iterator[str]:
    """Names of the calls in a module's text that run what they read."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {f"{word.arg}={ast.unparse(word.value)}" for word in node.keywords}
        if "shell=True" in options or "allow_pickle=True" in options:
            yield f"{called} with {sorted(options)}"
        for name, harmless in RUNS_CODE.items():
            dotted = "." in name
            same = called == name if dotted else called.split(".")[-1] == name
            if name in ("eval", "exec", "compile"):  # a model's `eval()` is another thing
                same = called == name
            if same and (harmless is None or harmless not in options):
                yield name


def test_no_module_runs_what_it_reads() -> None:
    found = {(m, call) for m in modules() for call in calls_that_run_code(path_of(m).read_text())}
    assert found == set(REASONS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch.load(path)", ["torch.load"]),
        ("torch.load(path, weights_only=True)", []),
        ("np.load(path)", ["np.load"]),
        ("pandas.read_pickle(path)", ["read_pickle"]),
        ("model.eval()", []),
        ("subprocess.run(line, shell=True)", ["subprocess.run with ['shell=True']"]),
    ],
)
def test_the_search_for_such_calls_finds_them(text: str, expected: list[str]) -> None:
    assert list(calls_that_run_code(text)) == expected


class Planted:
    """What runs code when it is unpickled: it makes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.write_text, (self.proof, "was here"))


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """The file that a planted object makes; it can be made."""
    file = tmp_path / "proof"
    pickle.loads(pickle.dumps(Planted(file)))
    assert file.exists()
    file.unlink()
    return file


def as_zip(planted: Planted, path: Path) -> None:
    torch.save({"state": planted, "seconds": 1.0}, path)


def as_legacy(planted: Planted, path: Path) -> None:
    torch.save({"state": planted, "seconds": 1.0}, path, _use_new_zipfile_serialization=False)


def as_pickle(planted: Planted, path: Path) -> None:
    path.write_bytes(pickle.dumps(planted))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [as_zip, as_legacy, as_pickle])
def test_a_planted_state_is_left_alone_by_name_and_runs_nothing(
    write: Callable[[Planted, Path], None],
    proof: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(Planted(proof), tmp_path / "state.pt")
    assert load_state(tmp_path) is None
    assert "state.pt is damaged, or not a state that scaletune has written" in caplog.text
    assert not proof.exists()


def keeping(config: dict[str, Any], ctx: Context) -> float:
    assert ctx.fidelity is not None
    state = ctx.load() or {"epoch": 0}
    _ = ctx.parent_checkpoint
    for epoch in range(state["epoch"] + 1, ctx.fidelity + 1):
        ctx.save({"epoch": epoch})
        ctx.report(step=epoch, loss=config["x"] + 1 / epoch)
    return float(config["x"] + 1 / ctx.fidelity)


def test_no_file_in_a_checkpoint_folder_runs_when_its_study_goes_on(
    proof: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"x": Float(0.0, 1.0), "epochs": Fidelity(1, 3)}

    def run(trials: int) -> None:
        budget = Budget(trials=trials)
        optimize(keeping, space, budget=budget, scheduler=ASHA(), warm_start=True, name="s")

    run(5)
    planted = list((tmp_path / "scaletune_checkpoints").rglob("*.pt"))
    assert len(planted) > 2
    for path in planted:
        as_zip(Planted(proof), path)
        as_zip(Planted(proof), path.with_name("parent.pt"))
        as_pickle(Planted(proof), path.with_name(".saving-left"))
    with suppress(StudyError):
        run(9)
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["python", "pickle"])
def test_no_text_in_a_database_runs_when_its_study_is_read_or_goes_on(
    kind: str, proof: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = {"x": Float(0.0, 1.0)}
    optimize(lambda c, ctx: c["x"], space, budget=Budget(trials=2), name="s")
    code = f"__import__('pathlib').Path({str(proof)!r}).write_text('')"
    planted = code if kind == "python" else pickle.dumps(Planted(proof), 0).decode()
    with closing(sqlite3.connect("scaletune.db")) as database:
        columns = (
            ("study_user_attributes", "value_json"),
            ("trial_user_attributes", "value_json"),
            ("trial_params", "distribution_json"),
        )
        for table, column in columns:
            for text in (planted, json.dumps(planted)):
                database.execute(f"UPDATE {table} SET {column} = {quoted(text)}")
                database.commit()
                with suppress(StudyError, ValueError):  # ours, or Optuna's on damaged JSON
                    load_result("s")
                with suppress(StudyError, ValueError):
                    optimize(lambda c, ctx: c["x"], space, budget=Budget(trials=3), name="s")
    assert not proof.exists()


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def test_an_id_that_was_planted_in_a_study_is_no_path_to_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    space = {"x": Float(0.0, 1.0)}

    def saving(config: dict[str, Any], ctx: Context) -> float:
        ctx.save(1)
        return float(config["x"])

    optimize(saving, space, budget=Budget(trials=1), name="s")
    with closing(sqlite3.connect("scaletune.db")) as database:
        changed = json.dumps("/../../../../x")
        database.execute(
            f"UPDATE study_user_attributes SET value_json = {quoted(changed)}"
            " WHERE key = 'scaletune:id'"
        )
        database.commit()
    optimize(saving, space, budget=Budget(trials=2), name="s")
    assert {path.name for path in inside.iterdir()} == {"scaletune.db", "scaletune_checkpoints"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_table_of_a_benchmark_runs_nothing(
    proof: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = importlib.import_module("benchmarks.tasks.tables")
    name = tables.names()[0]
    source = tables.SOURCES[name.partition("/")[0]]
    file = tmp_path / "datasets" / source.folder / f"{name.partition('/')[2]}.pkl"
    file.parent.mkdir(parents=True)
    as_pickle(Planted(proof), file)
    package = types.SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    with pytest.raises(pickle.UnpicklingError, match="plain values only"):
        tables.load(name)
    assert not proof.exists()


def test_a_recording_of_learning_curves_and_a_file_of_results_run_nothing(
    proof: Path, tmp_path: Path
) -> None:
    curve_bank: Any = importlib.import_module("benchmarks.tasks.curve_bank")
    hpob: Any = importlib.import_module("benchmarks.tasks.hpob")
    bank, results = tmp_path / "bank.npz", tmp_path / "results.json"
    np.savez(bank, provenance=np.array([Planted(proof)], dtype=object))
    as_pickle(Planted(proof), results)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        curve_bank.read_bank(bank, sha256=None)
    with pytest.raises(ValueError):
        hpob.read_results(results)
    assert not proof.exists()


def test_a_table_of_runs_is_text_whatever_it_looks_like(proof: Path, tmp_path: Path) -> None:
    from hpo.trials.read_runs import read_runs

    code = f"__import__('pathlib').Path({str(proof)!r}).write_text('')"
    file = tmp_path / "runs.csv"
    rows = [f'1e-3,"{code}",1.0,1e6', "1e-2,=cmd|calc!A1,0.5,1e6", "1e-1,b,0.7,1e7"]
    file.write_text("\n".join(["lr,kind,loss,params", *rows]))
    runs = read_runs(file, params=["lr:log", "kind:choice"])
    assert {o.config["kind"] for o in runs.observations} == {code, "=cmd|calc!A1", "b"}
    assert not proof.exists()


def test_each_promise_of_the_page_on_security_names_a_test_that_exists() -> None:
    page = Path(__file__).parents[1] / "docs" / "security.md"
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page.read_text())
    assert len(named) > 15
    for file, test in named:
        assert f"def {test}(" in (page.parents[1] / file).read_text(), f"{file}::{test}"
