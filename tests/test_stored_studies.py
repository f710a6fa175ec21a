"""Databases that an earlier version wrote are read, resumed and finished by this one.

tests/fixtures/studies/ holds four SQLite files and, in expected.json, what was known when each was
written. They were made by this file (`python tests/test_stored_studies.py`), with the training
functions and spaces below; making them again would defeat their purpose.

=============  ====================================================================================
plain          `optimize`, 8 trials, one of which raised, and metrics of the user's own
asha           `optimize` under ASHA, interrupted in the middle of a run: paused trials at several
               levels, one trial cut short after its checkpoint, budget left
scaled         `optimize` with scale axes, a target, transfer rules and a declared cost in FLOPs
optuna         an Optuna study with `ScaleTuneSampler` and `ScaleTunePruner`, some trials pruned
=============  ====================================================================================

Host names and paths in them were replaced; leases have expired. `next` in expected.json is what
the version that wrote them ran when it went on; on a machine that rounds like the one of then
(tests/recordings/environment.json) it is run again to the last bit.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sqlite3
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from hpo import (
    ASHA,
    Axis,
    Budget,
    Categorical,
    Context,
    Fidelity,
    Float,
    MuP,
    Result,
    Role,
    Scale,
    Status,
    TokenHorizon,
    load_result,
    optimize,
)
from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler
from hpo.schedulers import ASHAVariant as ASHAKind

optuna.logging.set_verbosity(optuna.logging.ERROR)
FOLDER = Path(__file__).parent / "fixtures" / "studies"
Config = dict[str, Any]
Train = Callable[[Config, Context], Any]

PLAIN = {"lr": Float(1e-4, 1.0, log=True), "kind": Categorical(["a", "b"])}
STAGED = {"x": Float(0.0, 1.0), "epochs": Fidelity(1, 9)}
SCALED = {
    "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
    "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    "tokens": Scale(1e6, 1e9, axis=Axis.TOKENS),
}
TARGET = {"params": 1e8, "tokens": 1e10}


# --- training functions, which note what they do in `done` ---------------------------------------


def plain(done: list[Any]) -> Train:
    """A bowl with a cost of 2, a metric, and an error where lr > 0.1."""

    def train(config: Config, ctx: Context) -> dict[str, Any]:
        done.append([config, 0])
        if config["lr"] > 0.1:
            raise RuntimeError("the loss is not finite")
        loss = (math.log10(config["lr"]) + 2.0) ** 2 + 0.5 * (config["kind"] == "b")
        return {"loss": loss, "cost": 2.0, "accuracy": 1.0 / (1.0 + loss), "steps": 17}

    return train


def in_epochs(done: list[Any], interrupt_after: int | None = None) -> Train:
    """Resumable; each epoch costs 1 and is noted. `interrupt_after` so many, Ctrl-C comes."""

    def train(config: Config, ctx: Context) -> dict[str, Any]:
        state = ctx.load() or {"epoch": 0}
        for epoch in range(state["epoch"] + 1, config["epochs"] + 1):
            loss = config["x"] + 1.0 / epoch
            done.append([{"x": config["x"]}, epoch])
            ctx.save({"epoch": epoch})
            ctx.report(step=epoch, loss=loss, cost=float(epoch))
            if len(done) == interrupt_after:
                raise KeyboardInterrupt
        return {"loss": config["x"] + 1.0 / config["epochs"], "cost": float(config["epochs"])}

    return train


def scaled(done: list[Any]) -> Train:
    """A power law whose best lr falls with size; cost is 6 N D."""

    def train(config: Config, ctx: Context) -> dict[str, Any]:
        done.append([config, 0])
        params, tokens = config["params"], config["tokens"]
        miss = math.log(config["lr"]) + 5.0 + 0.3 * math.log(tokens / 1e8)
        loss = 1.7 + 400.0 / params**0.4 + 500.0 / tokens**0.4 + 0.05 * miss**2
        return {"loss": loss, "cost": 6.0 * params * tokens}

    return train


def objective(trial: optuna.Trial) -> float:
    """A define-by-run run of up to 9 steps whose cost is declared."""
    x, kind = trial.suggest_float("x", 0.0, 1.0), trial.suggest_categorical("kind", ["a", "b"])
    y = trial.suggest_float("y", -1.0, 1.0) if kind == "b" else 0.0
    loss = 0.0
    for step in range(1, 10):
        trial.set_user_attr("epochs", float(step))
        loss = (x - 0.3) ** 2 + y**2 + 0.1 * (kind == "a") + (1.0 + x) / step
        trial.report(loss, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return loss


# --- studies -------------------------------------------------------------------------------------


def run_plain(url: str, trials: int, done: list[Any]) -> Result:
    return optimize(
        plain(done),
        PLAIN,
        budget=Budget(trials=trials),
        cost="flops",
        name="plain",
        storage=url,
        seed=1,
    )


def run_asha(url: str, trials: int, done: list[Any], interrupt_after: int | None = None) -> Result:
    return optimize(
        in_epochs(done, interrupt_after),
        STAGED,
        budget=Budget(trials=trials),
        cost="epochs",
        scheduler=ASHA(),
        name="asha",
        storage=url,
        seed=2,
    )


def run_scaled(url: str, trials: int, done: list[Any]) -> Result:
    return optimize(
        scaled(done),
        SCALED,
        budget=Budget(trials=trials),
        cost="flops",
        target=TARGET,
        priors=[MuP(), TokenHorizon()],
        name="scaled",
        storage=url,
        seed=3,
    )


def optuna_study(url: str) -> optuna.Study:
    fidelity = Fidelity(1, 9)
    return optuna.create_study(
        study_name="optuna",
        storage=url,
        sampler=ScaleTuneSampler({"step": fidelity}, cost="epochs", seed=4),
        pruner=ScaleTunePruner(ASHA(kind=ASHAKind.STOPPING), fidelity),
        load_if_exists=True,
    )


def told(result: Result) -> dict[str, Any]:
    """What is known of each trial, by number as JSON has it."""
    observations = (*result.log.observations, *result.log.paused)
    return {
        str(o.number): {
            "config": o.config,
            "loss": o.loss,
            "cost": o.cost,
            "status": o.status.value,
            "cause": None if o.cause is None else o.cause.value,
            "metrics": o.metrics,
            "reports": [[report.step, report.loss, report.cost] for report in o.reports],
        }
        for o in observations
    }


def trials_of(study: optuna.Study) -> list[Any]:
    """What an Optuna study holds, as JSON has it."""
    return [
        [t.number, t.params, t.state.name, t.values, sorted(t.intermediate_values.items())]
        for t in study.trials
    ]


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def same_rounding() -> bool:
    """Whether this machine rounds like the one on which the fixtures were made."""
    path = Path(__file__).parent / "recordings" / "record.py"
    spec = importlib.util.spec_from_file_location("recorded_studies", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return bool(module.environment() == module.recorded_environment())


def assert_as_before(name: str, ran: Any) -> None:
    """What ran after the study was resumed is what ran then."""
    if same_rounding():
        assert as_json(ran) == EXPECTED[name]["next"]


EXPECTED: dict[str, Any] = (
    json.loads((FOLDER / "expected.json").read_text()) if FOLDER.is_dir() else {}
)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A copy of the database named in the test's parameter, with its checkpoints."""
    shutil.copytree(FOLDER, tmp_path / "studies")
    return f"sqlite:///{tmp_path / 'studies' / request.param}.sqlite"


@pytest.mark.parametrize("url", ["plain"], indirect=True)
def test_a_plain_study_goes_on_where_it_ended(url: str) -> None:
    before = EXPECTED["plain"]["told"]
    assert as_json(told(load_result("plain", storage=url))) == before
    assert [t["cause"] for t in before.values()].count("error") == 1

    done: list[Any] = []
    result = run_plain(url, 14, done)
    assert_as_before("plain", done)
    after = as_json(told(result))
    assert {number: after[number] for number in before} == before
    assert len(after) == 14 and len(done) == 6
    earlier = [trial["config"] for trial in before.values()]
    assert all(config not in earlier for config, _ in done)
    assert as_json(told(load_result("plain", storage=url))) == after


@pytest.mark.parametrize("url", ["plain"], indirect=True)
def test_a_budget_that_was_used_up_runs_nothing(url: str) -> None:
    done: list[Any] = []
    result = run_plain(url, 8, done)
    assert done == [] and as_json(told(result)) == EXPECTED["plain"]["told"]


@pytest.mark.parametrize("url", ["asha"], indirect=True)
def test_paused_and_interrupted_runs_go_on_from_their_checkpoints(url: str) -> None:
    before, trained = EXPECTED["asha"]["told"], EXPECTED["asha"]["done"]
    loaded = load_result("asha", storage=url)
    assert as_json(told(loaded)) == before
    assert [trial.number for trial in loaded.log.pending] == EXPECTED["asha"]["pending"] != []
    assert len({len(o.reports) for o in loaded.log.paused}) >= 2  # they stand at several levels

    done: list[Any] = []
    result = run_asha(url, 16, done)
    assert_as_before("asha", done)
    everything = [*trained, *as_json(done)]
    assert done and all(everything.count(epoch) == 1 for epoch in everything)
    assert result.log.pending == ()
    assert len({json.dumps(config) for config, _ in everything}) == 16

    after = as_json(told(result))
    successors = {trial.parent: trial for trial in result.log.trials if trial.parent is not None}
    for number, trial in before.items():
        if after[number]["status"] == "failed":  # handed over to the driver of today
            assert successors[int(number)].config == trial["config"]
        else:
            assert after[number]["reports"][: len(trial["reports"])] == trial["reports"]
            assert after[number] == trial
    assert any(o.status is Status.COMPLETED for o in result.log.observations)
    assert as_json(told(load_result("asha", storage=url))) == after


@pytest.mark.parametrize("url", ["scaled"], indirect=True)
def test_a_study_over_scales_goes_on_and_answers_at_its_target(url: str) -> None:
    before = EXPECTED["scaled"]["told"]
    loaded = load_result("scaled", storage=url, target=TARGET, priors=[MuP(), TokenHorizon()])
    assert as_json(told(loaded)) == before
    assert loaded.recommend().target == TARGET

    done: list[Any] = []
    result = run_scaled(url, 12, done)
    assert_as_before("scaled", done)
    after = as_json(told(result))
    assert {number: after[number] for number in before} == before
    assert len(after) == 12 and len(done) == 4
    assert all(config not in [trial["config"] for trial in before.values()] for config, _ in done)
    assert result.recommend().target == TARGET
    assert as_json(told(load_result("scaled", storage=url))) == after


@pytest.mark.parametrize("url", ["optuna"], indirect=True)
def test_an_optuna_study_goes_on_with_sampler_and_pruner(url: str) -> None:
    before = EXPECTED["optuna"]["trials"]
    study = optuna_study(url)
    assert as_json(trials_of(study)) == before
    assert any(state == "PRUNED" for _, _, state, _, _ in before)
    study.optimize(objective, n_trials=8)
    after = as_json(trials_of(study))
    assert after[: len(before)] == before
    assert len(after) == len(before) + 8
    assert_as_before("optuna", after[len(before) :])
    assert all(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in study.trials)
    completed = [params for _, params, state, _, _ in before if state == "COMPLETE"]
    assert all(params not in completed for _, params, _, _, _ in after[len(before) :])


# --- how they were made --------------------------------------------------------------------------


def _anonymous(file: Path) -> None:
    """Replace host names and absolute paths in a database, and make it small."""
    root = str(Path(__file__).resolve().parent.parent)
    with sqlite3.connect(file) as database:
        for table in ("study_user_attributes", "trial_user_attributes"):
            for key, text in database.execute(f"SELECT rowid, value_json FROM {table}").fetchall():
                value = json.loads(text)
                leases = [value, value.get("lease")] if isinstance(value, dict) else []
                for lease in leases:
                    if isinstance(lease, dict) and "machine" in lease:
                        lease |= {"machine": "host", "expires": 0.0}
                fresh = json.dumps(value).replace(root + "/", "")
                database.execute(f"UPDATE {table} SET value_json = ? WHERE rowid = ?", (fresh, key))
    database.close()
    with sqlite3.connect(file, isolation_level=None) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("VACUUM")
    database.close()


def _make() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    expected: dict[str, Any] = {}

    def url_of(name: str) -> str:
        return f"sqlite:///{FOLDER / name}.sqlite"

    expected["plain"] = {"told": told(run_plain(url_of("plain"), 8, []))}
    done: list[Any] = []
    result = run_asha(url_of("asha"), 14, done, interrupt_after=30)
    pending = [trial.number for trial in result.log.pending]
    expected["asha"] = {"told": told(result), "done": done, "pending": pending}
    expected["scaled"] = {"told": told(run_scaled(url_of("scaled"), 8, []))}
    study = optuna_study(url_of("optuna"))
    study.optimize(objective, n_trials=14)
    expected["optuna"] = {"trials": trials_of(study)}
    for name in expected:
        _anonymous(FOLDER / f"{name}.sqlite")
    _note_what_comes_next(expected)
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def _note_what_comes_next(expected: dict[str, Any]) -> None:
    """Go on with copies of the databases."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = shutil.copytree(FOLDER, Path(temporary) / "studies")
        for name, run, trials in (
            ("plain", run_plain, 14),
            ("asha", run_asha, 16),
            ("scaled", run_scaled, 12),
        ):
            expected[name]["next"] = []
            run(f"sqlite:///{folder / name}.sqlite", trials, expected[name]["next"])
        study = optuna_study(f"sqlite:///{folder / 'optuna'}.sqlite")
        told_before = len(study.trials)
        study.optimize(objective, n_trials=8)
        expected["optuna"]["next"] = trials_of(study)[told_before:]


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _make()
