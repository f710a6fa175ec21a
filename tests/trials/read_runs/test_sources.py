"""Every source gives the same runs: files in other dialects, frames, lists, folders and studies."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest

from hpo import (
    Axis,
    Budget,
    Cause,
    Float,
    Int,
    Role,
    Runs,
    Scale,
    Status,
    optimize,
    read_runs,
)
from hpo.trials.read_runs import RunFileError

ROWS = [
    {"lr": lr, "params": params, "loss": 2.0 + lr + 1e5 / params}
    for params in (1e6, 1e7)
    for lr in (1e-3, 3e-3, 1e-2)
]
PLAIN = "lr,params,loss\n" + "".join(f"{r['lr']},{r['params']},{r['loss']}\n" for r in ROWS)


def semicolons(text: str) -> str:
    return text.replace(",", ";").replace(".", ",")


def written(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", "  "),
        semicolons(PLAIN),
        "sep=;\r\n" + semicolons(PLAIN).replace("\n", "\r\n"),
        "\ufeff" + PLAIN + "\r\n\r\n",
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("\n", ",,\n") + ",,,,\n",
        "# a comment\n" + PLAIN,
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.replace("loss", "loss,Größe").replace("\n2", "\n2").encode("latin-1"),
        "".join(f"{'' if i == 0 else i - 1},{line}\n" for i, line in enumerate(PLAIN.splitlines())),
        PLAIN.replace("1000000.0", '"1,000,000"').replace("10000000.0", '"10,000,000"'),
        PLAIN.replace("1000000.0", "1M").replace("10000000.0", "10 M"),
        PLAIN.replace(",", '","').replace("\n", '"\n"')[:-1].join(('"', "")),
    ],
    ids=str,
)
def test_dialects_of_text_files_are_one_table(tmp_path: Path, data: str | bytes) -> None:
    if isinstance(data, bytes) and "Größe".encode("latin-1") in data:
        data = b"\n".join(
            line + b",1" if k else line for k, line in enumerate(data.strip().split(b"\n"))
        )
    runs = read_runs(written(tmp_path / "runs.csv", data))
    assert same_runs(runs)


def same_runs(runs: Runs) -> bool:
    assert runs.keys == read_runs(ROWS).keys
    assert runs.space["lr"] == Float(1e-3, 1e-2, log=True, role=Role.LR)
    assert runs.space["params"] == Scale(1e6, 1e7, axis=Axis.PARAMS)
    return True


def test_frames_lists_and_columns_are_the_same_table(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS)
    assert same_runs(read_runs(frame))
    assert same_runs(read_runs(frame.to_dict("list")))
    assert same_runs(read_runs(iter(ROWS)))
    frame.to_csv(tmp_path / "runs.csv")
    assert same_runs(read_runs(tmp_path / "runs.csv"))
    frame.to_csv(tmp_path / "runs.tsv.gz", sep="\t", index=False)
    assert same_runs(read_runs(str(tmp_path / "runs.tsv.gz")))


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
def test_json_of_pandas_is_read_in_every_orientation(tmp_path: Path, orient: Any) -> None:
    pd.DataFrame(ROWS).to_json(tmp_path / "runs.json", orient=orient)
    assert same_runs(read_runs(tmp_path / "runs.json"))


def test_json_lines_and_folders_are_read(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"config": r, "metrics": {"loss": r["loss"]}}) for r in ROWS)
    assert len(read_runs(written(tmp_path / "runs.jsonl", lines))) == 6
    one = tmp_path / "one_file_a_run"
    one.mkdir()
    for k, row in enumerate(ROWS):
        written(one / f"{k}.json", json.dumps(row))
    assert same_runs(read_runs(one))
    nested = tmp_path / "one_folder_a_run"
    for k, row in enumerate(ROWS):
        folder = nested / f"trial_{k}"
        folder.mkdir(parents=True)
        written(folder / "params.json", json.dumps({"lr": row["lr"], "model": {"params": "1M"}}))
        written(
            folder / "result.json",
            "\n".join(
                json.dumps({"loss": row["loss"] + left, "epoch": 2 - left}) for left in (1, 0)
            ),
        )
    runs = read_runs(nested)
    assert [o.loss for o in runs.observations] == [row["loss"] for row in ROWS]
    assert list(runs.space) == ["params.lr", "params.model.params"]


def test_a_parquet_file_is_read_or_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    try:
        pd.DataFrame(ROWS).to_parquet(path)
    except ImportError:
        written(path, b"PAR1....")
        with pytest.raises(RunFileError, match="runs.parquet needs a package") as refused:
            read_runs(path)
        assert "\n" not in str(refused.value)
    else:
        assert same_runs(read_runs(path))


def test_a_wandb_export_keeps_its_crashed_runs(tmp_path: Path) -> None:
    header = "Name,State,Created,Runtime,config.optimizer.lr,config.model.width,_step,val/loss\n"
    rows = [
        f"run-{k},{'crashed' if k == 5 else 'finished'},2026-01-01T00:00:00Z,{100 + k},"
        f"{lr},{width},1000,{'' if k == 5 else 2 + k / 10}\n"
        for k, (lr, width) in enumerate((lr, w) for w in (64, 128) for lr in (1e-3, 1e-2, 1e-1))
    ]
    runs = read_runs(written(tmp_path / "wandb.csv", header + "".join(rows)))
    assert list(runs.space) == ["config.optimizer.lr", "config.model.width"]
    assert runs.space["config.optimizer.lr"].role is Role.LR  # type: ignore[union-attr]
    assert [o.cause for o in runs.observations] == [None] * 5 + [Cause.ERROR]
    assert runs.observations[0].seconds == 100.0
    named = read_runs(tmp_path / "wandb.csv", params="lr", scales="width", loss="val_loss")
    assert named.keys == runs.keys
    assert runs.guesses["val/loss"].reason == "well-known name of a result"


def wandb_run(k: int, **more: Any) -> SimpleNamespace:
    row = ROWS[k]
    summary = {"val/loss": row["loss"], "_runtime": 60.0, "_step": 9, "_wandb": {"runtime": 60}}
    fields = {"config": {"optimizer": {"lr": row["lr"]}, "n_params": row["params"], "_wandb": {}}}
    return SimpleNamespace(
        **{**fields, "summary": summary, "state": "finished", "name": f"run-{k}"} | more
    )


def test_runs_of_wandbs_api_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [wandb_run(k) for k in range(5)] + [wandb_run(5, state="crashed", summary={})]
    runs = read_runs(found)
    assert list(runs.space) == ["config.optimizer.lr", "config.n_params"]
    assert [o.status for o in runs.observations] == [Status.COMPLETED] * 5 + [Status.FAILED]
    assert runs.observations[0].seconds == 60.0
    module = ModuleType("wandb")
    asked = []

    def runs_of(path: str) -> Any:
        asked.append(path)
        return iter(found)

    module.Api = lambda: SimpleNamespace(runs=runs_of)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    assert read_runs("wandb:me/mine").keys == runs.keys
    assert asked == ["me/mine"]


def test_runs_of_mlflow_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        SimpleNamespace(
            info=SimpleNamespace(
                run_id=str(k),
                status="FAILED" if k == 5 else "FINISHED",
                start_time=0,
                end_time=5000,
            ),
            data=SimpleNamespace(
                params={"lr": str(row["lr"]), "n_params": str(row["params"])},
                metrics={} if k == 5 else {"val_loss": row["loss"]},
            ),
        )
        for k, row in enumerate(ROWS)
    ]
    runs = read_runs(found)
    assert list(runs.space) == ["params.lr", "params.n_params"]
    assert [o.cause for o in runs.observations] == [None] * 5 + [Cause.ERROR]
    assert runs.observations[0].seconds == 5.0
    module = ModuleType("mlflow")
    frame = pd.DataFrame(
        [
            {
                "run_id": str(k),
                "status": "FINISHED",
                "params.lr": str(row["lr"]),
                "params.n_params": str(row["params"]),
                "metrics.val_loss": row["loss"],
            }
            for k, row in enumerate(ROWS)
        ]
    )
    module.search_runs = lambda experiment_names: frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    assert len(read_runs("mlflow:mine")) == 6


@pytest.mark.parametrize(("source", "package"), [("wandb:a/b", "wandb"), ("mlflow:a", "mlflow")])
def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, source: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RunFileError, match=f"pip install {package}"):
        read_runs(source)


def objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam"])
    momentum = trial.suggest_float("momentum", 0.0, 0.9) if optimizer == "sgd" else 0.0
    trial.suggest_int("layers", 1, 4)
    trial.set_user_attr("flops", 1e9)
    trial.report(lr, 0)
    if trial.number == 3:
        raise optuna.TrialPruned
    if trial.number == 4:
        raise ValueError
    return lr + momentum


def test_a_study_of_another_sampler_is_read_with_the_space_it_declares(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler, study_name="mine", storage=storage)
    study.optimize(objective, 12, catch=ValueError)
    study.ask()
    runs = read_runs(study)
    assert runs.space["lr"] == Float(1e-4, 1e-1, log=True, role=Role.LR)
    assert runs.space["layers"] == Int(1, 4)
    assert runs.space["momentum"].when == ("optimizer", ("sgd",))  # type: ignore[union-attr]
    assert len(runs) == 12
    assert [o.number for o in runs.observations if o.status is Status.STOPPED] == [3]
    assert [o.number for o in runs.observations if o.cause is Cause.ERROR] == [4]
    assert runs.cost_unit == "flops" and runs.observations[0].cost == 1e9
    assert runs.observations[0].seconds is not None
    for again in (
        read_runs(storage),
        read_runs(storage, study_name="mine"),
        read_runs(tmp_path / "optuna.db"),
    ):
        assert again.keys == runs.keys
    with pytest.raises(RunFileError, match=r"has no study 'other'; it has \['mine'\]"):
        read_runs(storage, study_name="other")
    with pytest.raises(RunFileError, match="there is no file"):
        read_runs(f"sqlite:///{tmp_path / 'none.db'}")


def test_a_study_of_optimize_is_read_with_its_own_space_and_costs(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'ours.db'}"
    space: dict[str, Any] = {
        "lr": Float(1e-4, 1e-1, log=True),
        "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    }

    def train(config: dict[str, Any], ctx: Any) -> dict[str, float]:
        if config["lr"] > 0.03:
            raise ValueError("too fast")
        return {"loss": config["lr"], "cost": 6 * config["params"]}

    result = optimize(
        train, space, budget=Budget(trials=8), cost="gpu", name="ours", storage=storage
    )
    runs = read_runs(storage)
    assert runs.space == result.space and runs.cost_unit == "gpu"
    for read, told in zip(runs.observations, result.log.observations, strict=True):
        assert (read.config, read.loss, read.cost, read.cause) == (
            told.config, told.loss, told.cost, told.cause
        )  # fmt: skip


def test_a_table_of_trials_of_optuna_is_read(tmp_path: Path) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, 12, catch=ValueError)
    path = tmp_path / "trials.csv"
    study.trials_dataframe().to_csv(path)
    for source in (study.trials_dataframe(), path):
        runs = read_runs(source)
        assert set(runs.space) == {
            "params_lr", "params_optimizer", "params_momentum", "params_layers"
        }  # fmt: skip
        assert [o.loss for o in runs.observations if o.status is Status.COMPLETED] == [
            o.loss for o in read_runs(study).observations if o.status is Status.COMPLETED
        ]


def test_of_several_objectives_one_has_to_be_named() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), 1.0), 3)
    with pytest.raises(RunFileError, match="needs a column with the loss"):
        read_runs(study)
    assert len(read_runs(study, loss="values_0")) == 3


def test_what_is_no_source_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a file"):
        read_runs(7)
    with pytest.raises(RunFileError, match="the list, item 1: every run must be a mapping"):
        read_runs([{"lr": 1.0, "loss": 2.0}, 3])
    with pytest.raises(RunFileError, match="at least one run"):
        read_runs([])
    with pytest.raises(FileNotFoundError):
        read_runs("none.csv")


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="holds no JSON or CSV files"):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "My sweep of July\n\n" + PLAIN,
        "|",
        "config,loss\n"
        + "".join(
            f'"{{""lr"": {r["lr"]}, ""params"": {r["params"]}}}",{r["loss"]}\n' for r in ROWS
        ),
        "config_lr,config_params,loss\n" + PLAIN.partition("\n")[2],
        "params,loss\n"
        + "".join(
            f"\"{{'lr': {r['lr']}, 'params': '{r['params']:.0f}'}}\",{r['loss']}\n" for r in ROWS
        ),
    ],
    ids=["title", "markdown", "json cells", "config_", "dict cells"],
)  # fmt: skip
def test_odd_tables_are_read(tmp_path: Path, text: str) -> None:
    if text.startswith("|"):
        lines = [f"| {line.replace(',', ' | ')} |" for line in PLAIN.splitlines()]
        text = "\n".join([lines[0], "|---|:--:|---|", *lines[1:]])
    runs = read_runs(written(tmp_path / "runs.csv", text))
    assert [o.loss for o in runs.observations] == [row["loss"] for row in ROWS]
    assert [sorted(o.config.values()) for o in runs.observations] == [
        sorted([row["lr"], row["params"]]) for row in ROWS
    ]
    assert len(runs.space.scales) == 1


def test_a_grid_search_of_scikit_learn_is_maximized() -> None:
    results = {
        "mean_fit_time": [0.1, 0.2, 0.1],
        "param_alpha": [0.1, 1.0, 10.0],
        "params": [{"alpha": 0.1}, {"alpha": 1.0}, {"alpha": 10.0}],
        "mean_test_score": [0.8, 0.9, 0.7],
        "std_test_score": [0.1, 0.1, 0.1],
        "rank_test_score": [2, 1, 3],
    }
    runs = read_runs(results)
    assert runs.direction == "maximize"
    assert list(runs.space) == ["param_alpha"]
    assert [o.loss for o in runs.observations] == [0.8, 0.9, 0.7]
