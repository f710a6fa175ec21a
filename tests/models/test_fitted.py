"""Fitted models of a log: what a long study replays when it is resumed, and calibrated ends."""

from __future__ import annotations

import numpy as np
import pytest

from hpo import Axis, Float, Optimizer, Scale
from hpo.models.fitted import Models, _calibration_of_ends
from hpo.models.refits import RefitChain, refits_up_to
from surrogates.data import ColumnKind, Columns
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.kernels import MaternHamming
from surrogates.transforms import Transform

COLUMNS = Columns((ColumnKind.DECISION,) * 2, ("a", "b"), np.zeros(2), np.ones(2), (0, 0))
_CHAINED = 110
_ROWS = 340  # enough for a restart, at 187, and fits that start from it
_CHECKED = (100, 111, 135, 150, 211, _ROWS)


def history(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    return X, np.sin(9.0 * X[:, 0]) + X[:, 1] ** 2 + 0.1 * rng.standard_normal(n)


class RecordedProcess(GaussianProcess):
    """A Gaussian process that notes the numbers of rows at which it learns."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "counts", [])

    def learn(self, data, warm=None, cold=True):
        self.counts.append(len(data))
        return super().learn(data, warm, cold)


def chain(surrogate: GaussianProcess | None = None, chained: int | None = _CHAINED) -> RefitChain:
    surrogate = surrogate or GaussianProcess()
    return RefitChain(surrogate, COLUMNS, Transform.WINSOR, chained=chained)


@pytest.fixture(scope="module")
def followed() -> tuple[RefitChain, dict[int, GPPredictor]]:
    """A chain that saw the rows one at a time, and its predictors at some counts."""
    X, y = history(_ROWS)
    one_by_one, predictors = chain(), {}
    for n in range(1, _ROWS + 1):
        predictor = one_by_one.at(X[:n], y[:n])
        if n in _CHECKED:
            predictors[n] = predictor
    return one_by_one, predictors


def test_models_are_built_anew_at_a_tenth_more_rows():
    assert refits_up_to(17) == [*range(1, 12), 13, 15, 17]
    assert refits_up_to(0) == []


@pytest.mark.parametrize("n", _CHECKED)
def test_a_chain_grown_row_by_row_equals_one_that_sees_all_rows_at_once(followed, n):
    X, y = history(_ROWS)
    grown = followed[1][n].posterior(X[:5])
    fresh = chain().at(X[:n], y[:n]).posterior(X[:5])
    assert np.array_equal(fresh.mean, grown.mean)
    assert np.array_equal(fresh.variance, grown.variance)


def test_of_a_long_history_only_an_early_part_and_the_last_fits_are_learned():
    X, y = history(_ROWS)
    process = RecordedProcess()
    chain(process).at(X, y)
    late = [count for count in process.counts if count > 100]
    assert 1 <= len(late) <= 4
    assert min(late) > _CHAINED


def test_without_an_end_of_the_chain_every_fit_is_learned_in_order():
    X, y = history(170)
    process = RecordedProcess()
    chain(process, chained=None).at(X, y)
    assert process.counts == refits_up_to(170)


def test_a_history_shorter_than_the_chain_is_learned_at_every_count():
    X, y = history(60)
    few, all_ = chain(), chain(chained=None)
    assert np.array_equal(few.at(X, y).weights, all_.at(X, y).weights)


@pytest.mark.parametrize("count", [1, 100, 134, 246, 334])
def test_hyperparameters_at_a_count_do_not_depend_on_the_rows_told_later(followed, count):
    X, y = history(_ROWS)
    count = refits_up_to(count)[-1]
    expected = chain().theta(X, y, count)
    assert np.array_equal(followed[0].theta(X, y, count), expected)


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_predicted_ends_are_calibrated_by_the_residuals_of_known_ends(noise):
    X, y = history(40)
    y += noise * np.random.default_rng(1).standard_normal(40)
    kernel = MaternHamming(COLUMNS.numeric, COLUMNS.categorical, 0.3, np.log([0.6, 0.6]), y[:0])
    process = GPPredictor.build(kernel, X, y, 0.5)
    ended = np.arange(40) % 2 == 0
    left_out = process.leave_one_out()
    scores = np.sort((np.abs(y - left_out.mean) / np.sqrt(left_out.variance))[ended])
    expected = scores[17 - 1] / 1.2815515655446004  # the ceil(21 * 0.8)-th of 20
    assert _calibration_of_ends(process, ended) == pytest.approx(expected)
    assert (expected > 1.0) == (noise == 3.0)


def test_fewer_than_ten_ends_do_not_calibrate_others():
    X, y = history(40)
    kernel = MaternHamming(COLUMNS.numeric, COLUMNS.categorical, 0.3, np.log([0.6, 0.6]), y[:0])
    process = GPPredictor.build(kernel, X, y, 0.5)
    assert _calibration_of_ends(process, np.arange(40) < 9) == 1.0


def branching(*, branches: bool, failed: bool = False, runs: int = 4) -> Optimizer:
    optimizer = Optimizer(
        {"lr": Float(1e-3, 1e-1, log=True), "tokens": Scale(1e6, 4e6, axis=Axis.TOKENS)},
        direction="maximize",
        cost="flops",
    )
    for k, lr in enumerate([3e-3, 1e-2, 3e-2, 5e-3][:runs]):
        found = [{"tokens": 1e6, "loss": 1.0 + k}, {"tokens": 2e6, "loss": 2.0 + k}]
        optimizer.tell(
            {"lr": lr, "tokens": 4e6},
            None if failed else 3.0 + k,
            cost=5.0,
            failed="diverged" if failed else None,
            branches=found if branches else [],
        )
    return optimizer


def test_the_law_is_learned_from_branches_each_before_the_loss_of_its_run():
    models = branching(branches=True).result().models
    assert models.law_runs.loss[:6].tolist() == [-1.0, -2.0, -3.0, -2.0, -3.0, -4.0]
    assert models.law_runs.numbers == tuple(n for n in range(4) for _ in range(3))
    tokens = models.law_runs.X[:3, models.encoder.columns.scale[0]]
    np.testing.assert_allclose(tokens, [0.0, 0.5, 1.0])
    assert np.isnan(models.law_runs.log_cost[:2]).all()
    assert len(models.runs) == 4 and len(models.scaling()[1]) == 12


def test_runs_without_branches_teach_the_law_as_they_are():
    models = branching(branches=False).result().models
    assert models.law_runs is models.runs


def test_branches_of_failed_runs_are_learned_too_and_their_cost_is_counted_once():
    optimizer = branching(branches=True, failed=True)
    models = Models(optimizer.encoder)
    models.sync(optimizer.log)
    assert (len(models.runs), len(models.law_runs)) == (0, 8)
    assert optimizer.ledger.spent.cost == 20.0
    assert 1e6 <= optimizer.ask().config["tokens"] <= 4e6


def test_a_law_grown_run_by_run_equals_one_that_reads_all_branches_at_once():
    grown, source = branching(branches=True, runs=0), branching(branches=True)
    for observation in source.log.observations:
        grown.record(observation)
        grown.result().models.scaling()
    at = {"tokens": 1e7}
    assert grown.result().predict(at).loss == source.result().predict(at).loss
