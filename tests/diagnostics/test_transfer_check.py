"""Verdicts on synthetic laws whose drift is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo import (
    Axis,
    Categorical,
    Float,
    MuP,
    Optimizer,
    Role,
    Scale,
    Slope,
    SpaceError,
    check_transfer,
)
from hpo.diagnostics.transfer_reason import TransferReason, TransferReasonKind, TransferVerdict
from hpo.optimizer.result import Result

LR = Float(1e-4, 1e-1, log=True, role=Role.LR)
MOVES = TransferReasonKind.MOVES
PARAMS = Scale(1e5, 1e7, axis=Axis.PARAMS)
SPACE = {"lr": LR, "params": PARAMS}


def grid_result(
    drift: float,
    space: dict[str, Any] | None = None,
    *,
    sizes: tuple[float, ...] = (1e5, 1e6, 1e7),
    lrs: tuple[float, float] = (1e-4, 1e-1),
    **options: Any,
) -> Result:
    """Runs on a grid; the best lr is 3e-3 at 1e6 parameters and follows them with this slope."""
    optimizer = Optimizer(space or SPACE, **options)
    rng = np.random.default_rng(0)
    for params in sizes:
        for lr in np.geomspace(*lrs, 9):
            t = math.log(lr / 3e-3) - drift * math.log(params / 1e6)
            loss = 1.5 + 20 * params**-0.3 + 0.05 * t**2 + 0.003 * rng.standard_normal()
            sign = -1.0 if options.get("direction") == "maximize" else 1.0
            optimizer.tell({"lr": float(lr), "params": params}, sign * loss)
    return optimizer.result()


@pytest.mark.parametrize("drift", [-0.5, 0.3])
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_drifting_optimum_gets_the_verdict_drifts_with_its_slope(
    drift: float, direction: str
) -> None:
    found = check_transfer(grid_result(drift, direction=direction)).drift("lr", "params")
    assert found.verdict is TransferVerdict.DRIFTS
    assert found.interval[0] < drift < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.2
    reason = found.reason
    assert (reason.kind, reason.parameter, reason.axis) == (MOVES, "lr", "params")
    assert reason.ln_factor == pytest.approx(found.slope.mean * math.log(10.0))
    assert reason.log_odds is None and reason.difference is None


def test_an_optimum_that_stays_put_is_invariant() -> None:
    found = check_transfer(grid_result(0.0)).drift("lr", "params")
    assert found.verdict is TransferVerdict.INVARIANT
    assert -0.15 < found.interval[0] < 0.0 < found.interval[1] < 0.15
    assert found.unit == "ln lr" and found.tolerance == 0.15


def test_a_drift_below_the_tolerance_counts_as_none_and_above_a_smaller_one_does_not() -> None:
    result = grid_result(0.08)
    assert (
        check_transfer(result, tolerance=0.2).drift("lr", "params").verdict
        is TransferVerdict.INVARIANT
    )
    assert (
        check_transfer(result, tolerance=0.01).drift("lr", "params").verdict
        is TransferVerdict.DRIFTS
    )


def test_one_size_identifies_nothing() -> None:
    found = check_transfer(grid_result(-0.5, sizes=(1e6,))).drift("lr", "params")
    assert found.verdict is TransferVerdict.UNKNOWN
    assert found.reason == TransferReason(TransferReasonKind.ONE_SIZE, "lr", "params")


@pytest.mark.parametrize(
    ("lrs", "kind"),
    [
        ((1e-4, 5e-4), TransferReasonKind.NONE_ABOVE),
        ((2e-2, 1e-1), TransferReasonKind.NONE_BELOW),
    ],
)
def test_runs_on_one_side_of_the_optimum_identify_nothing(
    lrs: tuple[float, float], kind: TransferReasonKind
) -> None:
    found = check_transfer(grid_result(0.0, lrs=lrs)).drift("lr", "params")
    assert found.verdict is TransferVerdict.UNKNOWN
    assert found.reason == TransferReason(kind, "lr", "params")


def test_one_value_of_a_parameter_identifies_nothing() -> None:
    found = check_transfer(grid_result(0.0, lrs=(3e-3, 3e-3))).drift("lr", "params")
    assert found.verdict is TransferVerdict.UNKNOWN
    assert found.reason.kind is TransferReasonKind.ONE_VALUE


def test_axes_that_grew_together_are_named() -> None:
    optimizer = Optimizer({**SPACE, "tokens": Scale(2e6, 2e8, axis=Axis.TOKENS)})
    for params in (1e5, 1e6, 1e7):
        for lr in np.geomspace(1e-4, 1e-1, 9):
            loss = 1.5 + 20 * params**-0.3 + 0.05 * math.log(lr / 3e-3) ** 2
            optimizer.tell({"lr": float(lr), "params": params, "tokens": 20 * params}, loss)
    found = check_transfer(optimizer.result()).drift("lr", "params")
    assert found.verdict is TransferVerdict.UNKNOWN
    assert found.reason.kind is TransferReasonKind.CONFOUNDED
    assert (found.reason.axis, found.reason.other_axis) == ("params", "tokens")


def test_a_narrow_wrong_rule_is_shown_and_does_not_change_the_verdict() -> None:
    alone = check_transfer(grid_result(-0.5)).drift("lr", "params")
    ruled = check_transfer(grid_result(-0.5, priors=[MuP(sd=0.02)])).drift("lr", "params")
    assert alone.with_rules is None
    assert ruled.with_rules is not None
    assert (ruled.with_rules.prior_mean, ruled.with_rules.prior_sd) == pytest.approx((0.0, 0.02))
    assert abs(ruled.with_rules.mean) < abs(ruled.slope.mean)
    assert ruled.slope == alone.slope and ruled.verdict is TransferVerdict.DRIFTS
    given = check_transfer(grid_result(-0.5), priors=[MuP(sd=0.02)])
    assert given.drift("lr", "params").with_rules == ruled.with_rules


def test_rules_are_shown_only_for_the_pairs_they_cover() -> None:
    space = {**SPACE, "tokens": Scale(1e6, 1e8, axis=Axis.TOKENS)}
    optimizer = Optimizer(space)
    for row in np.random.default_rng(1).random((12, 3)):
        config = optimizer.space.canonical(optimizer.encoder.decode(row[None])[0])
        optimizer.tell(config, config["params"] ** -0.3)
    check = check_transfer(optimizer.result(), priors=[Slope("lr", "tokens", -0.3, 0.1)])
    assert check.drift("lr", "params").with_rules is None
    assert check.drift("lr", "tokens").with_rules is not None
    table = check.to_pandas()
    assert table["rule_prior"].isna().tolist() == [True, False]
    assert "rules said -0.300 +- 0.1" in str(check)


def test_a_linear_parameter_is_judged_in_shares_of_its_range() -> None:
    optimizer = Optimizer({"dropout": Float(0.0, 0.7), "params": PARAMS})
    for params in (1e5, 1e6, 1e7):
        for dropout in np.linspace(0.0, 0.7, 8):
            best = 0.35 + 0.05 * math.log10(params / 1e6)
            loss = 1.5 + 20 * params**-0.3 + (float(dropout) - best) ** 2
            optimizer.tell({"dropout": float(dropout), "params": params}, loss)
    found = check_transfer(optimizer.result()).drift("dropout", "params")
    assert found.tolerance == pytest.approx(0.15 * 0.1)
    assert found.slope.mean == pytest.approx(0.05 / math.log(10), abs=0.005)
    assert found.reason.kind is MOVES
    assert found.reason.difference == pytest.approx(0.05, abs=0.005 * math.log(10))
    assert found.reason.ln_factor is None and found.reason.log_odds is None


def test_a_logit_parameter_is_judged_in_log_odds() -> None:
    optimizer = Optimizer({"beta2": Float(0.8, 0.999, logit=True), "params": PARAMS})
    for params in (1e5, 1e6, 1e7):
        for odds in np.linspace(math.log(4.0), math.log(999.0), 8):
            best = 4.0 + 0.4 * math.log(params / 1e6)
            loss = 1.5 + 20 * params**-0.3 + 0.05 * (float(odds) - best) ** 2
            optimizer.tell({"beta2": 1.0 / (1.0 + math.exp(-odds)), "params": params}, loss)
    check = check_transfer(optimizer.result())
    found = check.drift("beta2", "params")
    assert (found.unit, found.tolerance) == ("logit beta2", 0.15)
    assert found.reason.kind is MOVES
    assert found.reason.log_odds == pytest.approx(0.4 * math.log(10.0), rel=0.05)
    panel = check.panel("beta2", "params")
    assert (panel.label, panel.log) == ("logit beta2", False)


def test_choices_are_not_judged_and_failures_are_counted() -> None:
    optimizer = Optimizer({**SPACE, "optimizer": Categorical(["adamw", "lion"])})
    for lr in (1e-3, 1e-2):
        optimizer.tell({"lr": lr, "params": 1e6, "optimizer": "lion"}, 2.0)
    optimizer.tell({"lr": 1e-1, "params": 1e6, "optimizer": "lion"}, math.nan)
    optimizer.tell({"lr": 1e-1, "params": 1e5, "optimizer": "lion"}, failed="lost")
    check = check_transfer(optimizer.result())
    assert list(check.not_judged) == ["optimizer"]
    assert (check.runs, check.used, check.failed) == (2, 2, 1)
    assert str(check).startswith("2 completed and 1 failed runs;")
    assert "optimizer: not judged" in str(check)


def test_of_many_runs_those_near_the_bottom_are_used() -> None:
    optimizer = Optimizer(SPACE)
    rng = np.random.default_rng(0)
    for row in rng.random((120, 2)):
        config = optimizer.space.canonical(optimizer.encoder.decode(row[None])[0])
        t = math.log(config["lr"] / 3e-3) + 0.4 * math.log(config["params"] / 1e6)
        # a wall on the right that no bowl describes, less steep in large models
        wall = max(t - 1.0, 0.0) ** 2 * (config["params"] / 1e5) ** -0.3
        optimizer.tell(config, 1.5 + 20 * config["params"] ** -0.3 + 0.05 * t**2 + wall)
    check = check_transfer(optimizer.result())
    assert (check.runs, check.used) == (120, 60)
    assert "the best 60 used" in str(check)
    found = check.drift("lr", "params")
    assert found.verdict is TransferVerdict.DRIFTS and found.slope.mean == pytest.approx(
        -0.4, abs=0.05
    )


def test_the_picture_has_a_panel_for_each_pair(tmp_path: Path) -> None:
    check = check_transfer(grid_result(-0.5))
    figure = check.plot(tmp_path / "check.png")
    assert (tmp_path / "check.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert axes.get_title().startswith("drifts")
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("params", "lr", "log")
    panel = check.panel("lr", "params")
    assert len(panel.scale) == len(panel.setting) == 27
    assert len(panel.best) == 3  # one a size
    slope = np.polyfit(panel.line_scale, panel.line, 1)[0]
    assert slope == pytest.approx(check.drift("lr", "params").slope.mean)
    assert np.all((panel.low < panel.line) & (panel.line < panel.high))
    with pytest.raises(KeyError, match="width"):
        check.panel("lr", "width")


def test_what_cannot_be_checked_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="`tolerance` must be a finite number above 0"):
        check_transfer(grid_result(0.0), tolerance=0.0)
    with pytest.raises(SpaceError, match="needs scale axes"):
        check_transfer(Optimizer({"lr": LR}).result())
    with pytest.raises(ValueError, match="needs completed runs"):
        check_transfer(Optimizer(SPACE).result())
    with pytest.raises(SpaceError, match="needs a numeric parameter"):
        check_transfer(Optimizer({"kind": Categorical(["a", "b"]), "params": PARAMS}).result())


@pytest.mark.parametrize(
    ("reason", "verdict", "words"),
    [
        ({"kind": MOVES, "ln_factor": -math.log(4)}, "drifts", ["falls", "factor of 4", "tenfold"]),
        ({"kind": MOVES, "log_odds": 0.5}, "drifts", ["rises by 0.5 in log-odds"]),
        ({"kind": MOVES, "difference": 0.5}, "drifts", ["rises by 0.5 when"]),
        (
            {"kind": TransferReasonKind.WITHIN_TOLERANCE, "tolerance": 0.15},
            "invariant within tolerance",
            ["+-0.15"],
        ),
        ({"kind": TransferReasonKind.CONFOUNDED, "other_axis": "tokens"}, None, ["tokens"]),
        ({"kind": TransferReasonKind.WIDE_INTERVAL, "tolerance": 0.15}, None, ["+-0.15", "add"]),
        ({"kind": TransferReasonKind.FEW_RUNS}, None, ["add"]),
        ({"kind": TransferReasonKind.NONE_ABOVE}, None, ["above"]),
        ({"kind": TransferReasonKind.NONE_BELOW}, None, ["below"]),
        ({"kind": TransferReasonKind.ONE_SIZE}, None, ["params"]),
        ({"kind": TransferReasonKind.ONE_VALUE}, None, ["same lr"]),
    ],
)
def test_every_kind_of_reason_has_a_verdict_and_a_sentence(
    reason: dict[str, Any], verdict: str | None, words: list[str]
) -> None:
    made = TransferReason(parameter="lr", axis="params", **reason)
    assert made.verdict.value == (verdict or "not identified by these runs")
    assert all(word in str(made) for word in words)
