"""Reading runs from a CSV file: what is guessed, what is said aloud, what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo import Axis, Categorical, Cause, Float, Role, Scale
from hpo.diagnostics.csv_runs import Sweep, SweepError, read_sweep

GRID = "lr,Batch Size,N,tokens,val_loss,flops,comment\n" + "".join(
    f"{lr},{batch},{params},{20 * params},{2 + lr},{120 * params**2},x\n"
    for lr in (1e-3, 1e-2)
    for batch in (32, 64)
    for params in (1e5, 1e6)
)


def read(tmp_path: Path, text: str, **options: object) -> Sweep:
    path = tmp_path / "sweep.csv"
    path.write_bytes(text.encode("utf-8"))
    return read_sweep(path, **options)  # type: ignore[arg-type]


def test_well_known_names_are_guessed_and_said_aloud(tmp_path: Path) -> None:
    sweep = read(tmp_path, GRID)
    space = sweep.result.space
    assert space["lr"] == Float(1e-3, 1e-2, log=True, role=Role.LR)
    assert space["Batch Size"] == Float(32, 64, log=True, role=Role.BATCH)
    assert space["N"] == Scale(1e5, 1e6, axis=Axis.PARAMS)
    assert space["tokens"] == Scale(2e6, 2e7, axis=Axis.TOKENS)
    assert sweep.result.cost_unit == "flops"
    assert sweep.notes == (
        "tuned: lr (log, role lr)",
        "tuned: Batch Size (log, role batch)",
        "scale: N (params)",
        "scale: tokens (tokens)",
        "cost: flops",
        "loss: val_loss",
        "ignored: comment",
    )
    assert len(sweep.result.models.runs) == 8


def test_named_columns_are_taken_as_they_are_named(tmp_path: Path) -> None:
    text = "eta0,kind,w,score\n0.1,a,64,3\n0.2,b,128,4\n0.4,a,128,5\n"
    sweep = read(
        tmp_path,
        text,
        params=["eta0:linear:lr", "kind:choice"],
        scales=["w:width"],
        loss="score",
        direction="maximize",
    )
    space = sweep.result.space
    assert space["eta0"] == Float(0.1, 0.4, role=Role.LR)
    assert space["kind"] == Categorical(("a", "b"))
    assert space["w"] == Scale(64, 128, axis=Axis.WIDTH)
    assert sweep.result.models.runs.loss.tolist() == [-3.0, -4.0, -5.0]


def test_width_and_depth_are_not_guessed_beside_parameters(tmp_path: Path) -> None:
    text = "lr,params,width,layers,loss\n1e-3,1e5,64,2,3\n1e-2,1e6,128,4,2\n"
    assert read(tmp_path, text).result.space.scales == ("params",)
    alone = read(tmp_path, text.replace("params", "heads"))
    assert alone.result.space.scales == ("width", "layers")


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
    sweep = read(tmp_path, text)
    observations = sweep.result.log.observations
    assert [o.cause for o in observations] == [None, Cause.DIVERGED, Cause.DIVERGED, None]
    assert sweep.notes[0] == "left out 1 of 5 rows with empty cells"


def test_a_constant_column_is_set_aside(tmp_path: Path) -> None:
    sweep = read(tmp_path, "lr,wd,N,loss\n1e-3,0.1,1e5,2\n1e-2,0.1,1e6,1\n")
    assert sweep.result.space.decisions == ("lr",)
    assert "wd has one value only and is not judged" in sweep.notes


def test_kinds_follow_the_values_where_nothing_is_said(tmp_path: Path) -> None:
    text = "lr,wd,beta2,dropout,N,loss\n1e-3,0,0.9,0.1,1e5,2\n1e-2,0.1,0.99,0.2,1e6,1\n"
    space = read(tmp_path, text).result.space
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
    with pytest.raises(SweepError, match=message) as refused:
        read(tmp_path, text, **options)
    assert "\n" not in str(refused.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_bytes(b"lr,N,loss\n\xff\xfe")
    with pytest.raises(SweepError, match="UTF-8"):
        read_sweep(path)


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
    path = tmp_path / "sweep.csv"
    path.write_bytes(text.encode("utf-8", errors="replace"))
    try:
        sweep = read_sweep(path)
    except ValueError as refused:
        assert str(refused).strip()
    else:
        assert len(sweep.result.log) >= 1
        assert all(math.isfinite(x) for x in sweep.result.models.runs.loss)
