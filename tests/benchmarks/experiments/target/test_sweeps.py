"""Tables of recorded sweeps: what is read, what is told, how each setting is declared."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments.target import sweeps
from benchmarks.experiments.target.chinchilla import Points, split
from benchmarks.experiments.target.sweeps import (
    best_of_cells,
    features,
    ncpl,
    parse_marin,
    winners,
)
from hpo import Axis, Categorical, Float, Int, Role, Scale

COLUMNS = (
    "optimizer",
    "size",
    "chinchilla",
    "beta1",
    "lr",
    "grad_norm",
    "min_lr",
    "batch",
    "warmup",
    "weight_decay",
    "loss",
)


def _rows(*lines: str) -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, line.split(","), strict=True)) for line in lines]


TABLE = _rows(
    "adamw,130m,1,0.9,0.008,1,0,128,2000,0.1,3.529",
    "adamw,130m,8,0.95,0.004,0,0,256,1000,0,3.3",
    "adamw,130m,1,0.98,0.032,1.0,0,128,2000,0.1,>10",
    "adamw,130m,1,0.98,0.016,1,0,128,2000,0.1,NaN",
    "adamw,300m,1,0.9,0.008,1,0,128,2000,0.1,4.2",
    "adamw,300m,4,0.9,0.008,2,0,128,2000,0.2,3.10",
    "adamw,300m,4,0.9,0.004,2,0,128,2000,0.2,3.09",
    "adamw,300m,4,0.9,0.002,2,0,128,2000,0.2,3.11",
    "adamw,1.2b,1,0.9,0.002,2,0,128,2000,0.2,2.9",
)


def test_small_cells_are_told_all_others_asked_and_diverged_runs_are_neither() -> None:
    sweep = parse_marin("adamw", TABLE)
    assert sweep.told.groups == ("130m 1x", "130m 8x")
    assert sweep.told.loss.tolist() == [3.529, 3.3]
    assert sweep.asked.groups == ("300m 4x",) * 3 + ("1.2b 1x",)
    assert sweep.told.configs[1]["tokens"] == 20 * 134217728 * 8


def test_the_cell_trained_in_other_arithmetic_is_left_out_of_soap_alone() -> None:
    rows = [row | {"optimizer": "soap"} for row in TABLE]
    assert "1.2b 1x" not in parse_marin("soap", rows).asked.groups
    assert "1.2b 1x" in parse_marin("adamw", TABLE).asked.groups


def test_settings_that_vary_are_declared_on_their_scale_and_with_their_role() -> None:
    space = parse_marin("adamw", TABLE).space
    assert "min_lr" not in space and "optimizer" not in space
    lr, beta, batch, decay = (space[name] for name in ("lr", "beta1", "batch", "weight_decay"))
    assert isinstance(lr, Float) and lr.log and lr.role is Role.LR
    assert isinstance(beta, Float) and beta.logit and beta.role is Role.BETA1
    assert isinstance(batch, Int) and batch.log and batch.role is Role.BATCH
    assert isinstance(decay, Float) and not decay.log and decay.low == 0.0
    assert space["grad_norm"] == Categorical([0.0, 1.0, 2.0])
    params = space["params"]
    assert isinstance(params, Scale) and params.axis is Axis.PARAMS


def test_rivals_learn_from_one_column_a_setting_on_its_own_scale() -> None:
    sweep = parse_marin("adamw", TABLE)
    table = features(sweep.space, sweep.told)
    names = list(sweep.space)
    assert table.shape == (2, len(names))
    assert table[:, names.index("lr")] == pytest.approx(np.log([0.008, 0.004]))
    assert table[:, names.index("grad_norm")].tolist() == [1.0, 0.0]


def test_only_cells_of_three_runs_or_more_have_a_best() -> None:
    found = best_of_cells(parse_marin("adamw", TABLE).asked)
    assert list(found) == ["300m 4x"] and found["300m 4x"][1] == 3.09
    values = winners([0.01, -0.03])
    assert values["best within .02"] == 0.5 and values["best, bias"] == pytest.approx(-0.01)


def test_the_split_joins_runs_to_their_smoothed_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "steplaw_dense.csv").write_text(
        "N,D,lr,batch_size,steps,loss,last_loss\n"
        "214663680,1000000000,0.001,64,9,2.5,9.9\n"
        "429260800,2000000000,0.002,32,9,2.25,9.9\n"
        "429260800,4000000000,0.004,128,9,2.125,9.9\n"
    )
    (tmp_path / "steplaw_ncpl_split.csv").write_text(
        "N,D,lr,batch_size,split\n"
        "429260800,2000000000,0.002,32,out_of_distribution\n"
        "214663680,1000000000,0.001,64,train\n"
        "429260800,4000000000,0.004,128,train\n"
    )
    monkeypatch.setenv("SCALETUNE_DATA", str(tmp_path))
    ncpl.cache_clear()
    try:
        sweep = ncpl()
    finally:
        ncpl.cache_clear()
    assert sweep.told.loss.tolist() == [2.5, 2.125]
    assert sweep.asked.groups == ("out_of_distribution",)
    assert sweep.asked.configs[0]["batch"] == 32 and sweep.asked.loss.tolist() == [2.25]


def test_a_cut_tells_cheap_runs_asks_of_dearer_ones_and_drops_runs_that_ended_early() -> None:
    cost = np.array([1e19, 2e19, 4e19, 6e19])
    N = np.full(4, 1e8)
    points = Points(N, cost / (6.0 * N), np.array([3.9, 3.0, 2.9, 2.8]))
    cheap, expensive = split(points, 3e19)
    assert cheap.loss.tolist() == [3.0] and expensive.loss.tolist() == [2.8]


def test_scores_of_parts_are_kept_apart() -> None:
    from benchmarks.experiments.target.question import Foreseen

    runs = sweeps.Runs(({}, {}), np.array([1.0, 2.0]), ("a", "b"))
    found = Foreseen(np.array([1.5, 2.0]), np.array([0.0, 1.9]), np.array([0.9, 2.1]))
    values = sweeps.parts(found, runs)
    assert values["mae, a"] == 0.5 and values["mae, b"] == 0.0
    assert values["covered, a"] == 0.0 and values["covered, b"] == 1.0
