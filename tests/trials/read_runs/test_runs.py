"""Reading runs: what is guessed and noted, what can be overridden, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo import (
    Axis,
    Categorical,
    Cause,
    Fidelity,
    Float,
    Int,
    Optimizer,
    Role,
    Runs,
    Scale,
    Status,
    check_transfer,
    read_runs,
)
from hpo.trials.read_runs import RunFileError, Use

GRID = "lr,Batch Size,N,tokens,val_loss,flops,comment\n" + "".join(
    f"{lr},{batch},{params},{20 * params},{2 + lr},{120 * params**2},x\n"
    for lr in (1e-3, 1e-2)
    for batch in (32, 64)
    for params in (1e5, 1e6)
)


def read(tmp_path: Path, text: str, **options: object) -> Runs:
    path = tmp_path / "runs.csv"
    path.write_bytes(text.encode("utf-8"))
    return read_runs(path, **options)  # type: ignore[arg-type]


def test_well_known_names_are_guessed_and_noted(tmp_path: Path) -> None:
    runs = read(tmp_path, GRID)
    assert runs.space["lr"] == Float(1e-3, 1e-2, log=True, role=Role.LR)
    assert runs.space["Batch Size"] == Int(32, 64, log=True, role=Role.BATCH)
    assert runs.space["N"] == Scale(1e5, 1e6, axis=Axis.PARAMS)
    assert runs.space["tokens"] == Scale(2e6, 2e7, axis=Axis.TOKENS)
    assert runs.cost_unit == "flops"
    assert runs.notes == (
        "8 runs from runs.csv: 8 completed",
        "tuned: lr (log, role lr)",
        "tuned: Batch Size (log, role batch)",
        "scale: N (params)",
        "scale: tokens (tokens)",
        "loss: val_loss",
        "cost: flops",
        "ignored: comment",
    )
    assert len(runs.observations) == 8
    first = runs.observations[0]
    assert first.config == {"lr": 1e-3, "Batch Size": 32, "N": 1e5, "tokens": 2e6}
    assert (first.loss, first.cost, first.status) == (2.001, 1.2e12, Status.COMPLETED)


def test_an_optimizer_records_what_was_read(tmp_path: Path) -> None:
    runs = read(tmp_path, GRID, direction="maximize")
    optimizer = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
    for observation in runs.observations:
        optimizer.record(observation)
    result = optimizer.result()
    assert result.log.observations == runs.observations
    assert result.models.runs.loss.tolist() == [-o.loss for o in runs.observations if o.loss]
    assert result.cost_unit == "flops"
    assert {(d.parameter, d.axis) for d in check_transfer(result).drifts} == {
        (parameter, axis) for parameter in ("lr", "Batch Size") for axis in ("N", "tokens")
    }


def test_named_columns_are_taken_as_they_are_named(tmp_path: Path) -> None:
    text = "eta0,kind,w,score\n0.1,a,64,3\n0.2,b,128,4\n0.4,a,128,5\n"
    runs = read(
        tmp_path,
        text,
        params=["eta0:linear:lr", "kind:choice"],
        scales=["w:width"],
        loss="score",
        direction="maximize",
    )
    assert runs.space["eta0"] == Float(0.1, 0.4, role=Role.LR)
    assert runs.space["kind"] == Categorical(("a", "b"))
    assert runs.space["w"] == Scale(64, 128, axis=Axis.WIDTH)
    assert [o.loss for o in runs.observations] == [3.0, 4.0, 5.0]
    assert runs.direction == "maximize"


def test_width_and_depth_are_not_guessed_beside_parameters(tmp_path: Path) -> None:
    text = "lr,params,width,layers,loss\n1e-3,1e5,64,2,3\n1e-2,1e6,128,4,2\n"
    assert read(tmp_path, text).space.scales == ("params",)
    alone = read(tmp_path, text.replace("params", "heads"))
    assert alone.space.scales == ("width", "layers")


def test_a_column_with_one_value_is_no_parameter(tmp_path: Path) -> None:
    runs = read(tmp_path, "lr,wd,N,loss\n1e-3,0.1,1e5,2\n1e-2,0.1,1e6,1\n")
    assert runs.space.decisions == ("lr",)
    assert runs.guesses["wd"].reason == "one value only"


def test_scales_of_settings_follow_role_and_values_where_none_is_named(tmp_path: Path) -> None:
    text = "lr,wd,beta2,dropout,N,loss\n1e-3,0,0.9,0.1,1e5,2\n1e-2,0.1,0.99,0.2,1e6,1\n"
    space = read(tmp_path, text).space
    assert space["wd"] == Float(0, 0.1, role=Role.WEIGHT_DECAY)  # zero has no logarithm
    assert space["beta2"] == Float(0.9, 0.99, logit=True, role=Role.BETA2)
    assert space["dropout"] == Float(0.1, 0.2, role=Role.DROPOUT)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("lr,N,loss\n", {}, "is empty: it needs at least one run"),
        ("lr,N,loss\n1e-3,1e5\n", {}, "line 2: got 2 cells where the header has 3"),
        ("lr,N,loss\n1e-3,1e5,2,7\n", {}, "line 2: got 4 cells where the header has 3"),
        ('lr,N,loss\n1e-3,1e5,2\n1e-3,"1e5,3\n', {}, "line 3: cannot be read as CSV"),
        ("0.1,1e6,2\n0.2,1e6,3\n", {}, "line 1: the header must name the columns"),
        ("lr,params,loss\n1e-3,big,2\n1,2,3\n2,3,4\n", {}, "line 2: `params` must be a number"),
        ("lr,N,loss\n1e-3,1e5,2\n1e-2,inf,2\n", {}, "line 3: `N` must be a finite number"),
        ("lr,params,loss\n1e-3,-1,2\n1e-2,1,2\n", {}, "line 2: `params` must hold positive"),
        ("lr,N,loss\n0.1,1,2\n0.2,2,x\n0.2,2,1\n", {}, "line 3: `loss` must be a number"),
        (
            "lr,N,loss\n1e400,1e6,2\n1,1e6,2\n",
            {},
            "line 2: `lr` must be a finite number, got '1e400'",
        ),
        ("lr,N,loss,cost\n0.1,1,2,-1\n0.2,1,2,1\n", {}, "`cost` must be finite and >= 0"),
        ("lr,N,speed\n0.1,1,2\n", {}, "needs a column with the loss.*--loss"),
        ("lr,loss\n0.1,2\n0.1,2\n", {}, "needs a tuned column"),
        (
            "lr,N,loss\n-1,1,2\n1,1,2\n",
            {"params": ["lr:log"]},
            "must be positive to be read as log",
        ),
        ("lr,N,loss\n1,1,2\n2,1,2\n", {"params": ["lr:logit"]}, "inside \\(0, 1\\)"),
        ("lr,N,loss\n1,1,2\n", {"params": ["x"]}, "--param must name a column"),
        ("lr,N,loss\n1,1,2\n", {"params": ["lr:log:lr:x"]}, "name:kind:role"),
        ("lr,N,loss\n1,1,2\n", {"params": ["lr:cubic"]}, "must be one of"),
        ("lr,N,loss\n1,1,2\n", {"scales": ["N:lr"]}, "must be one of"),
        ("lr,N,loss\n1,1,2\n", {"scales": ["loss"]}, "named for two purposes"),
        ("lr,N,loss\n1,1,2\n", {"cost": "seconds"}, "needs a column with the time of each run"),
        ("lr,N,loss\n1,1,2\n", {"space": {"wd": Float(0, 1)}}, "needs a column for `wd`"),
        ("lr,wd,loss\n,1,2\n1,,2\n,2,2\n2,,1\n", {}, "complete row, got none of 4: no `lr`"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, text: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RunFileError, match=message) as refused:
        read(tmp_path, text, **options)
    assert "\n" not in str(refused.value)


def test_units_are_read(tmp_path: Path) -> None:
    text = (
        "lr,params,tokens,loss,runtime\n3e-4,125M,2.5B,12.5%,1:23:45\n1e-3,1.3B,1.4T,10 %,1d 2h\n"
    )
    runs = read(tmp_path, text)
    assert runs.space["params"].limits == (1.25e8, 1.3e9)
    assert runs.space["tokens"].limits == (2.5e9, 1.4e12)
    assert [o.loss for o in runs.observations] == [0.125, 0.1]
    assert [o.seconds for o in runs.observations] == [5025.0, 93600.0]


def test_without_a_cost_column_it_is_six_times_parameters_times_tokens(tmp_path: Path) -> None:
    text = "lr,N,D,loss,seconds\n0.1,1e6,2e7,2,60\n0.2,1e6,1e7,1,\n"
    runs = read(tmp_path, text)
    assert runs.cost_unit == "flops"
    assert [o.cost for o in runs.observations] == [1.2e14, 6e13]
    assert [o.seconds for o in runs.observations] == [60.0, None]
    timed = read(tmp_path, text, cost="seconds")
    assert timed.cost_unit == "seconds"
    assert [o.cost for o in timed.observations] == [60.0, None]
    assert read(tmp_path, text, cost="none").cost_unit is None


def test_a_fidelity_that_is_named_is_the_cost_of_last_resort(tmp_path: Path) -> None:
    runs = read(tmp_path, "lr,epochs,loss\n0.1,3,2\n0.2,9,1\n", fidelity="epochs")
    assert runs.space["epochs"] == Fidelity(3, 9)
    assert (runs.cost_unit, [o.cost for o in runs.observations]) == ("epochs", [3.0, 9.0])
    assert read(tmp_path, "lr,epochs,loss\n0.1,3,2\n0.2,9,1\n").cost_unit is None


def test_states_and_losses_together_say_what_became_of_a_run(tmp_path: Path) -> None:
    text = (
        "State,lr,N,loss\nfinished,.1,1000,2\ncrashed,.2,1000,\ncrashed,.3,1000,5\n"
        "running,.4,1000,3\nkilled,.5,1000,4\nkilled,.6,1000,\nfinished,.7,1000,\n"
        "finished,.8,1000,NaN\nOOM,.9,1000,\nfailed,.25,1000,inf\n"
    )
    runs = read(tmp_path, text)
    assert [
        (o.config["lr"], o.status.name, o.cause and o.cause.name) for o in runs.observations
    ] == [
        (0.1, "COMPLETED", None),
        (0.2, "FAILED", "ERROR"),
        (0.3, "FAILED", "ERROR"),
        (0.5, "STOPPED", None),
        (0.8, "FAILED", "DIVERGED"),
        (0.9, "FAILED", "OOM"),
        (0.25, "FAILED", "DIVERGED"),
    ]
    assert "left out 1 of 10 rows: still running (line 5)" in runs.notes


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "-nan", "inf", "-Infinity", "diverged", ">10", "1e400"]
)
def test_a_loss_that_is_no_number_in_words_is_a_run_that_diverged(
    tmp_path: Path, word: str
) -> None:
    runs = read(tmp_path, f"lr,N,loss\n0.1,1000,2\n0.5,1000,{word}\n0.2,1000,2\n")
    assert [o.cause for o in runs.observations] == [None, Cause.DIVERGED, None]


@pytest.mark.parametrize("word", ["", "NA", "null", "None", "-", "#N/A"])
def test_a_run_without_a_loss_failed(tmp_path: Path, word: str) -> None:
    runs = read(tmp_path, f"lr,N,loss\n0.1,1000,2\n0.5,1000,{word}\n0.2,1000,2\n")
    assert [o.cause for o in runs.observations] == [None, Cause.ERROR, None]


def test_a_column_of_yes_and_no_tells_which_runs_diverged(tmp_path: Path) -> None:
    runs = read(tmp_path, "lr,N,loss,diverged\n0.1,1000,2,False\n0.5,1000,8,True\n")
    assert [o.cause for o in runs.observations] == [None, Cause.DIVERGED]


def test_equal_rows_are_replicates(tmp_path: Path) -> None:
    runs = read(tmp_path, "lr,N,seed,loss\n0.1,1000,0,2\n0.1,1000,1,2\n0.2,1000,0,3\n")
    assert len(runs.observations) == 3
    assert "replicates" in runs.guesses["seed"].reason


def test_the_identity_of_a_run_is_its_content_and_how_many_equal_ones_came_before() -> None:
    rows = [{"lr": 0.1, "N": 1000, "loss": 2.0}] * 2 + [{"lr": 0.2, "N": 1e6, "loss": 1.0}]
    keys = read_runs(rows).keys
    assert len(set(keys)) == 3
    more = read_runs([*rows, {"lr": 0.1, "N": "1k", "loss": "2,0"}, {"lr": 0.9, "N": 1, "loss": 9}])
    assert more.keys[:3] == keys and len(set(more.keys)) == 5
    text = "loss;N;lr;who\n2;1000;0,1;a\n2;1K;1e-1;b\n1,0;1000000;0,2;c\n"
    assert read_runs_of_text(text).keys == keys


def read_runs_of_text(text: str) -> Runs:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return read(Path(folder), text)


def test_a_setting_that_some_runs_lack_is_conditional_where_a_category_says_which(
    tmp_path: Path,
) -> None:
    text = "optimizer,momentum,lr,loss\nsgd,.9,.1,2\nadam,,.01,1\nsgd,.5,.2,3\nadam,,.1,2\n"
    runs = read(tmp_path, text)
    assert runs.space["momentum"].when == ("optimizer", ("sgd",))  # type: ignore[union-attr]
    assert runs.observations[1].config == {"optimizer": "adam", "lr": 0.01}
    without = read(tmp_path, text.replace("sgd,.5", "sgd,"))
    assert "left out 1 of 4 rows: no `momentum` (line 4)" in "".join(without.notes) or (
        "momentum" not in without.space
    )


def test_a_space_says_what_the_columns_are(tmp_path: Path) -> None:
    text = "config.optimizer.lr,model_size,kind,val/loss\n1e-3,1M,b,2\n5,1M,a,3\n1e-2,1M,c,4\n"
    space = {
        "lr": Float(1e-4, 1e-1, log=True, hard=True, role=Role.LR),
        "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
        "kind": Categorical(["a", "b"]),
    }
    runs = read(tmp_path, text, space=space)
    assert [o.config for o in runs.observations] == [{"lr": 1e-3, "params": 1e6, "kind": "b"}]
    assert runs.space["lr"] == space["lr"]
    assert any("`lr` must lie in" in note and "line 3" in note for note in runs.notes)
    assert any("`kind` must be one of" in note and "line 4" in note for note in runs.notes)


def test_accuracies_are_maximized_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    text = "lr,N,val/accuracy\n0.1,1000,90%\n0.2,1000,0.95\n"
    assert read(tmp_path, text).direction == "maximize"
    assert read(tmp_path, text, direction="minimize").direction == "minimize"


def test_the_table_of_guesses_says_what_was_taken_and_why(tmp_path: Path) -> None:
    runs = read(tmp_path, GRID, ignore=["flops"])
    assert runs.guesses["flops"].reason == "ignored by you"
    assert runs.guesses["lr"].use is Use.TUNED
    table = str(runs.guesses)
    assert "lr          tuned, log, role lr" in table
    assert "well-known name of a learning rate" in table
    assert str(runs).splitlines()[0] == "8 runs from runs.csv: 8 completed"


def test_of_a_log_of_steps_the_last_row_of_each_run_counts(tmp_path: Path) -> None:
    text = "run,step,lr,loss\na,1,.1,5\na,2,.1,4\nb,1,.2,3\nb,2,.2,2\n"
    runs = read(tmp_path, text)
    assert [o.loss for o in runs.observations] == [4.0, 2.0]
    assert any("an earlier step of the same run" in note for note in runs.notes)
