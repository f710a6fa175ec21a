"""The best setting at any scale, read out of a fitted law."""

import math

import numpy as np
import pytest

from hpo import Axis, Float, MuP, Neutral, Optimizer, Role, Scale, TokenHorizon
from hpo.optimizer.result import Result
from hpo.scaling.scaling_law import FittedLaw

SPACE = {
    "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
    "momentum": Float(0.0, 1.0),
    "params": Scale(1e4, 1e8, axis=Axis.PARAMS),
    "tokens": Scale(1e6, 1e8, axis=Axis.TOKENS),
}
TARGET = {"params": 1e10, "tokens": 1e10}
BENT = 0.03  # of ln lr along ln params, squared


def told(priors, runs: int = 30) -> Result:
    """Return the result of runs whose best lr bends with size."""
    optimizer = Optimizer(SPACE, priors=priors)
    for row in np.random.default_rng(0).random((runs, 4)):
        config = optimizer.space.canonical(optimizer.encoder.decode(row[None])[0])
        D = math.log(config["params"] / 1e6)
        best = math.log(3e-3) - 0.2 * D - 0.5 * BENT * D**2
        loss = 1.8 + 4 * config["params"] ** -0.2 + 0.2 * (math.log(config["lr"]) - best) ** 2
        optimizer.tell(config, loss + 0.3 * (config["momentum"] - 0.6) ** 2)
    return optimizer.result()


def law_of(result: Result) -> FittedLaw:
    assert result.scaling_law is not None
    return result.scaling_law


@pytest.fixture(scope="module", params=["rules", "neutral"])
def result(request):
    return told(Neutral() if request.param == "neutral" else [MuP(), TokenHorizon()])


@pytest.mark.parametrize("at", [TARGET, {"params": 3e5, "tokens": 2e7}])
def test_the_best_setting_is_the_optimum_of_the_loss_model_at_that_scale(result, at):
    predictor = result.models.scaling()[0]
    optimum = predictor.optimum(np.log([at["params"], at["tokens"]]))
    for j, name in enumerate(("lr", "momentum")):
        best = law_of(result).best(name, at)
        assert best.mean == pytest.approx(optimum.mean[j], rel=1e-12)
        assert best.sd == pytest.approx(math.sqrt(optimum.covariance[j, j]), rel=1e-12)
        assert best.prior_sd == pytest.approx(math.sqrt(optimum.prior_covariance[j, j]), rel=1e-12)


def test_the_best_setting_follows_slope_and_bend_from_the_middle_of_the_runs(result):
    law, predictor = law_of(result), result.models.scaling()[0]
    D = np.log([TARGET["params"], TARGET["tokens"]]) - law.coefficients.reference
    bend = predictor.coefficients()[0][predictor.loss.layout.bend].reshape(2, 2)
    for j, (name, width) in enumerate((("lr", math.log(1e3)), ("momentum", 1.0))):
        line = law.optimum(name).mean
        line += sum(
            law.slope(name, a).mean * d for a, d in zip(("params", "tokens"), D, strict=True)
        )
        best = law.best(name, TARGET)
        assert best.mean == pytest.approx(line + width * 0.5 * bend[j] @ D**2, rel=1e-9)
        prior = law.optimum(name).prior_mean
        prior += sum(
            law.slope(name, a).prior_mean * d for a, d in zip(("params", "tokens"), D, strict=True)
        )
        assert best.prior_mean == pytest.approx(prior, rel=1e-9)  # no bend is expected
    # and the runs do show a bend
    straight = law.optimum("lr").mean + law.slope("lr", "params").mean * D[0]
    straight += law.slope("lr", "tokens").mean * D[1]
    assert law.best("lr", TARGET).mean < straight - 0.1


def test_at_the_middle_of_the_runs_it_is_the_optimum_of_the_table(result):
    law = law_of(result)
    at = dict(zip(law.coefficients.axes, np.exp(law.coefficients.reference), strict=True))
    for name in ("lr", "momentum"):
        here, shown = law.best(name, at), law.optimum(name)
        for part in ("mean", "sd", "prior_mean", "prior_sd"):
            assert getattr(here, part) == pytest.approx(getattr(shown, part), rel=1e-9)


def test_the_prior_beside_it_is_the_one_before_the_runs_and_rules_move_it():
    few, none = law_of(told([MuP(), TokenHorizon()])), law_of(told(Neutral()))
    steps = math.log(TARGET["tokens"]) - few.coefficients.reference[1]
    moved = few.best("lr", TARGET).prior_mean - none.best("lr", TARGET).prior_mean
    assert moved == pytest.approx(-0.32 * 0.75 * steps, rel=1e-6)


def test_axes_called_like_our_columns_keep_a_column_of_their_own():
    space = {"lr": Float(1e-4, 1e-1, log=True), "loss": Scale(1e5, 1e7), "compute": Scale(1, 9)}
    optimizer = Optimizer(space, cost="flops")
    for lr, loss, compute in [(1e-3, 1e5, 1), (1e-2, 1e6, 3), (1e-3, 1e7, 9), (1e-2, 1e5, 9)]:
        config = {"lr": lr, "loss": loss, "compute": compute}
        optimizer.tell(config, 2.0 + loss**-0.3 + 1 / compute, 6 * loss * compute)
    law = optimizer.result().scaling_law
    table, best = law.frontier([1e7]), law.allocation(1e7)
    assert table["loss"].tolist() == [best.loss] and table["compute"].tolist() == [1e7]
    assert table["params_loss"].tolist() == [best.scale["loss"]]
    assert table["params_compute"].tolist() == [best.scale["compute"]]


def test_a_compute_for_which_no_size_is_a_number_is_refused():
    optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "n": Scale(1e5, 1e7)}, cost="flops")
    for lr, n in [(1e-3, 1e5), (1e-2, 1e6), (1e-3, 1e7), (1e-2, 1e5)]:
        optimizer.tell({"lr": lr, "n": n}, 2.0 + n**-0.3, 1e-300 * n)
    with pytest.raises(ValueError, match="`compute` must lie nearer to the costs of the runs"):
        optimizer.result().scaling_law.allocation(1e299)


def test_sizes_that_are_missing_unknown_or_not_positive_are_refused(result):
    law = law_of(result)
    with pytest.raises(ValueError, match=r"every scale axis a value, got none for \['tokens'\]"):
        law.best("lr", {"params": 1e9})
    with pytest.raises(
        ValueError, match=r"`at\['tokens'\]` must be a finite number above 0 .*, got 0"
    ):
        law.best("lr", {"params": 1e9, "tokens": 0})
    with pytest.raises(KeyError, match="`.*` must be one of .*, got 'width'"):
        law.best("lr", {**TARGET, "width": 64})
    with pytest.raises(KeyError, match="`parameter` must be one of .*, got 'params'"):
        law.best("params", TARGET)
