"""Reading runs from a CSV file: what is guessed and noted, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo import Axis, Categorical, Cause, Float, Optimizer, Role, Scale, Status, check_transfer
from hpo.space.encoding import Encoder
from hpo.trials.read_runs import EarlierRuns, RunFileError, read_runs

GRID = "lr,Batch Size,N,tokens,val_loss,flops,comment\n" + "".join(
    f"{lr},{batch},{params},{20 * params},{2 + lr},{120 * params**2},x\n"
    for lr in (1e-3, 1e-2)
    for batch in (32, 64)
    for params in (1e5, 1e6)
)


def read(tmp_path: Path, text: str, **options: object) -> EarlierRuns:
    path = tmp_path / "runs.csv"
    path.write_bytes(text.encode("utf-8"))
    return read_runs(path, **options)  # type: ignore[arg-type]


def test_well_known_names_are_guessed_and_noted(tmp_path: Path) -> None:
    runs = read(tmp_path, GRID)
    assert runs.space["lr"] == Float(1e-3, 1e-2, log=True, role=Role.LR)
    assert runs.space["Batch Size"] == Float(32, 64, log=True, role=Role.BATCH)
    assert runs.space["N"] == Scale(1e5, 1e6, axis=Axis.PARAMS)
    assert runs.space["tokens"] == Scale(2e6, 2e7, axis=Axis.TOKENS)
    assert runs.cost_unit == "flops"
    assert runs.notes == (
        "tuned: lr (log, role lr)",
        "tuned: Batch Size (log, role batch)",
        "scale: N (params)",
        "scale: tokens (tokens)",
        "cost: flops",
        "loss: val_loss",
        "ignored: comment",
    )
    assert len(runs.observations) == 8
    first = runs.observations[0]
    assert first.config == {"lr": 1e-3, "Batch Size": 32.0, "N": 1e5, "tokens": 2e6}
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


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_and_line_ends_and_a_byte_order_mark_are_read(
    tmp_path: Path, delimiter: str
) -> None:
    text = "\ufeff" + GRID.replace(",", delimiter).replace("\n", "\r\n") + "\r\n\r\n"
    assert read(tmp_path, text).notes == read(tmp_path, GRID).notes


def test_a_loss_of_nan_or_inf_is_a_diverged_run_and_an_empty_one_is_left_out(
    tmp_path: Path,
) -> None:
    text = "lr,N,loss\n1e-3,1e5,2\n1e-2,1e5,nan\n1e-1,1e5,inf\n1e-4,1e6,\n2e-3,1e6,1.5\n"
    runs = read(tmp_path, text)
    assert [o.cause for o in runs.observations] == [None, Cause.DIVERGED, Cause.DIVERGED, None]
    assert [o.loss for o in runs.observations] == [2.0, None, None, 1.5]
    assert runs.notes[0] == "left out 1 of 5 rows with empty cells"


def test_a_column_with_one_value_is_no_parameter(tmp_path: Path) -> None:
    runs = read(tmp_path, "lr,wd,N,loss\n1e-3,0.1,1e5,2\n1e-2,0.1,1e6,1\n")
    assert runs.space.decisions == ("lr",)
    assert "wd has one value only and is not judged" in runs.notes


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
        ("lr,N,loss\n", {}, "at least one complete row"),
        ("lr,N,loss\n1e-3,1e5\n", {}, "line 2: got 2 cells where the header has 3"),
        ("lr,N,loss\n1e-3,big,2\n", {}, "line 2: `N` must be a number, got 'big'"),
        ("lr,N,loss\n1e-3,1e5,2\n1e-2,inf,2\n", {}, "line 3: `N` must be a finite number"),
        ("lr,N,loss\n1e-3,-1,2\n1e-2,1,2\n", {}, "`N` must hold positive sizes"),
        ("lr,N,loss\n0.1,1,2\n0.2,2,x\n", {}, "line 3: `loss` must be a number, got 'x'"),
        ("lr,N,loss,cost\n0.1,1,2,-1\n0.2,1,2,1\n", {}, "`cost` must be finite and >= 0"),
        ("lr,lr,N,loss\n1,1,1,1\n", {}, "names of their own"),
        ("lr,N,error\n0.1,1,2\n", {}, "needs a column with the loss.*--loss"),
        ("lr,loss\n0.1,2\n0.2,2\n", {}, "needs a column with the size"),
        ("x,N,loss\n0.1,1,2\n", {}, "needs a tuned column"),
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
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, text: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RunFileError, match=message) as refused:
        read(tmp_path, text, **options)
    assert "\n" not in str(refused.value)


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(b"lr,N,loss\n\xff\xfe")
    with pytest.raises(RunFileError, match="UTF-8"):
        read_runs(path)


CELLS = st.one_of(
    st.sampled_from(["", "nan", "inf", "-1", "0", "1e-3", "1e5", "1e999", "x", '"', "1,2", "\x00"]),
    st.floats(allow_nan=False).map(repr),
    st.text(max_size=5),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(["lr", "N", "tokens", "loss", "cost", "", "lr:log"]), max_size=5),
    st.lists(st.lists(CELLS, max_size=5), max_size=6),
    st.sampled_from([",", ";", "\t"]),
)
def test_any_text_is_read_or_refused_in_one_line(
    tmp_path: Path, header: list[str], rows: list[list[str]], delimiter: str
) -> None:
    text = "\n".join(delimiter.join(row) for row in [header, *rows])
    path = tmp_path / "runs.csv"
    path.write_bytes(text.encode("utf-8", errors="replace"))
    try:
        runs = read_runs(path)
    except ValueError as refused:
        assert str(refused).strip()
    else:
        assert runs.observations
        rows = Encoder(runs.space).encode([o.config for o in runs.observations])
        assert np.all(np.isfinite(rows))
        for o in runs.observations:
            done = o.status is Status.COMPLETED
            assert (o.loss is not None and math.isfinite(o.loss)) if done else o.loss is None
