"""Laws of norms and logits: known laws are found, and verdicts follow their meaning."""

import math

import numpy as np
import pytest

from hpo import Axis, Float, Optimizer, Scale, SpaceError
from hpo.diagnostics.norms import READOUT, NormVerdict, check_norms
from hpo.optimizer.result import Result
from hpo.trials import Report

SIZES = [1e5, 3e5, 1e6, 3e6, 1e7]


def result_with(noise: float = 0.0, *, direction: str = "minimize") -> Result:
    """Best runs follow known laws; worse ones, with a higher rate, lie far from them."""
    space = {
        "lr": Float(1e-4, 1e-1, log=True),
        "params": Scale(1e5, 1e8, axis=Axis.PARAMS),
        "tokens": Scale(1e6, 1e9, axis=Axis.TOKENS),
    }
    optimizer = Optimizer(space, direction=direction)
    rng = np.random.default_rng(0)
    sign = -1.0 if direction == "maximize" else 1.0
    for n in SIZES:
        for tokens in (1e7, 1e8):
            for lr in (1e-3, 1e-2):
                jitter = math.exp(noise * rng.standard_normal())
                far = lr / 1e-3
                optimizer.tell(
                    {"lr": lr, "params": n, "tokens": tokens},
                    sign * (5 * n**-0.1 + 3 * tokens**-0.1 + lr),
                    metrics={
                        "attention_logit_max": 3 * (n / 1e5) ** 0.5 * far * jitter,
                        READOUT: 7.0 * jitter * far,
                        "log_name": "text",
                    },
                    reports=[Report(1, 3.0, metrics={"gradient_norm_max": n**-0.25 * far})],
                )
    return optimizer.result()


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_law_is_that_of_the_best_runs(direction: str) -> None:
    check = check_norms(result_with(direction=direction), {"params": 1e9, "tokens": 1e10})
    law = check.law("attention_logit_max")
    assert law.slopes == pytest.approx({"params": 0.5, "tokens": 0.0}, abs=1e-6)
    assert law.at_target == pytest.approx(3 * 1e4**0.5) and law.sizes == 10
    assert law.verdict is NormVerdict.BELOW
    assert check.law("gradient_norm_max").slopes["params"] == pytest.approx(-0.25)


@pytest.mark.parametrize(
    ("params", "verdict"),
    [(1e8, NormVerdict.BELOW), (1e12, NormVerdict.MAY_CROSS), (1e18, NormVerdict.CROSSES)],
)
def test_a_limit_is_crossed_where_the_interval_says_so(params: float, verdict: NormVerdict) -> None:
    check = check_norms(result_with(0.1), {"params": params, "tokens": 1e8})
    assert check.law("attention_logit_max").verdict is verdict
    assert verdict.value in str(check)


def test_a_limit_may_be_given_and_a_metric_that_nobody_told_is_named() -> None:
    target = {"params": 1e8, "tokens": 1e9}
    check = check_norms(result_with(0.1), target, limits={"attention_logit_max": 1.0, "z": 2.0})
    assert check.law("attention_logit_max").verdict is NormVerdict.CROSSES
    assert check.missing == {"z": "no run told it as a positive number"}
    with pytest.raises(KeyError, match="no run told it"):
        check.law("z")
    table = check.to_pandas()
    assert (
        set(table["axis"]) == {"params", "tokens"} and (table["slope_low"] <= table["slope"]).all()
    )


def test_the_norm_of_the_readout_is_constant_at_the_best_settings() -> None:
    assert check_norms(result_with(0.01)).law(READOUT).verdict is NormVerdict.CONSTANT
    assert check_norms(result_with(2.0)).law(READOUT).verdict is NormVerdict.UNCLEAR
    optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e8)})
    for n in SIZES:
        optimizer.tell({"lr": 1e-3, "params": n}, 5 * n**-0.1, metrics={READOUT: n**0.3})
    assert check_norms(optimizer.result()).law(READOUT).verdict is NormVerdict.DRIFTS


def test_too_few_sizes_and_axes_that_grow_together_have_no_law() -> None:
    space = {
        "params": Scale(1e5, 1e8),
        "tokens": Scale(1e6, 1e9),
        "lr": Float(1e-4, 1e-1, log=True),
    }
    optimizer = Optimizer(space)
    for i, n in enumerate(SIZES):
        config = {"params": n, "tokens": 20 * n, "lr": 1e-3}
        optimizer.tell(config, 5 * n**-0.1, metrics={READOUT: 1.0, **({"z": 1.0} if i < 2 else {})})
    check = check_norms(optimizer.result(), limits={"z": 3.0})
    assert check.missing["z"] == "told at 2 sizes; 4 are needed"
    assert "grow together" in check.missing[READOUT]


def test_a_space_without_scale_axes_is_refused() -> None:
    optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True)})
    with pytest.raises(SpaceError, match="must have scale axes"):
        check_norms(optimizer.result())
