"""A Gaussian process whose prior comes from other tasks."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.models.other_tasks.transfer_process import TaskMean, TransferProcess, features
from surrogates.data import Array, Columns, TrainingData
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.transforms import standardize

COLUMNS = Columns.of_decisions("x", "y")


def bowl(X: Array, best: float, sign: float = 1.0) -> Array:
    """A bowl around (best, best), or a hill."""
    return sign * np.sum((X - best) ** 2, axis=1)


def task(best: float, seed: int, sign: float = 1.0) -> GPPredictor:
    X = np.random.default_rng(seed).random((30, 2))
    return GaussianProcess().fit(TrainingData(X, standardize(bowl(X, best, sign)), COLUMNS))


@pytest.fixture(scope="module")
def process() -> TransferProcess:
    return TransferProcess([task(best, i) for i, best in enumerate((0.3, 0.35, 0.4))], COLUMNS)


def few(loss: Array, X: Array) -> TrainingData:
    return TrainingData(X, standardize(loss), COLUMNS)


X_FEW = np.array([[0.1, 0.2], [0.8, 0.7], [0.4, 0.5], [0.9, 0.1], [0.2, 0.9]])


def test_where_the_target_was_never_run_it_is_predicted_as_the_other_tasks_were(process):
    grid = np.random.default_rng(9).random((200, 2))
    truth = bowl(grid, 0.37)
    data = few(bowl(X_FEW, 0.37), X_FEW)
    plain = GaussianProcess().fit(data).posterior(grid).mean
    learned = process.predictor(data, process.learn(data)).posterior(grid).mean
    assert np.corrcoef(learned, truth)[0, 1] > 0.98
    assert np.corrcoef(learned, truth)[0, 1] > np.corrcoef(plain, truth)[0, 1]


def test_a_target_that_contradicts_all_tasks_is_modeled_without_them(process):
    X = np.random.default_rng(3).random((20, 2))
    data = few(bowl(X, 0.35, sign=-1.0), X)
    theta = process.learn(data)
    predictor = process.predictor(data, theta)
    weights = predictor.prior_mean.weights if isinstance(predictor.prior_mean, TaskMean) else 0.0
    assert np.sum(weights) == 0.0


def test_without_the_tasks_the_process_is_the_plain_one_to_the_last_bit(process):
    X = np.random.default_rng(3).random((20, 2))
    data = few(np.sin(40.0 * X[:, 0]) * np.cos(31.0 * X[:, 1]), X)
    theta = process.learn(data)
    if theta[0]:  # the tasks are kept in spite of it: force the comparison
        theta = np.concatenate([[0.0], theta[1:]])
    plain = GaussianProcess().fit(data)
    assert np.array_equal(process.predictor(data, theta).weights, plain.weights)


def test_a_task_that_misranks_the_target_gets_no_weight():
    tasks = [task(0.3, 0), task(0.35, 1), task(0.35, 2, sign=-1.0)]
    X = np.random.default_rng(4).random((12, 2))
    data = few(bowl(X, 0.33), X)
    process = TransferProcess(tasks, COLUMNS)
    mean = process.predictor(data, process.learn(data)).prior_mean
    assert isinstance(mean, TaskMean)
    assert mean.weights[2] == 0.0
    assert mean.weights[:2].sum() > 0.5


def test_a_task_is_expected_to_follow_the_mean_of_others_that_agree(process):
    assert process.between().slope == pytest.approx(1.0, abs=0.2)


def test_nothing_is_expected_of_tasks_that_have_nothing_in_common():
    rng = np.random.default_rng(0)
    noise = []
    for _ in range(3):
        data = TrainingData(rng.random((30, 2)), standardize(rng.random(30)), COLUMNS)
        noise.append(GaussianProcess().fit(data))
    assert TransferProcess(noise, COLUMNS).between().slope < 0.3


def test_the_prior_mean_has_the_derivative_that_differences_show(process):
    mean = TaskMean(process.tasks, np.array([0.5, 0.0, 0.7]), offset=0.2, scale=1.5)
    X, h = np.array([[0.3, 0.6], [0.9, 0.2]]), 1e-6
    for j in range(2):
        step = np.eye(2)[j] * h
        slope = (mean.value(X + step) - mean.value(X - step)) / (2 * h)
        assert mean.gradient(X)[:, j] == pytest.approx(slope, rel=1e-5)
    expected = 1.5 * (0.2 + features(process.tasks, X) @ [0.5, 0.0, 0.7])
    assert mean.value(X) == pytest.approx(expected)


def test_rows_added_one_by_one_give_the_same_predictor(process):
    data = few(bowl(X_FEW, 0.37), X_FEW)
    theta = process.learn(data)
    whole = process.predictor(data, theta)
    part = process.predictor(TrainingData(X_FEW[:3], data.y[:3], COLUMNS), theta)
    grown = part.condition(X_FEW[3:], data.y[3:])
    assert grown.weights == pytest.approx(whole.weights, rel=1e-8)


def test_one_other_task_is_enough():
    process = TransferProcess([task(0.3, 0)], COLUMNS)
    data = few(bowl(X_FEW, 0.33), X_FEW)
    grid = np.random.default_rng(9).random((100, 2))
    learned = process.predictor(data, process.learn(data)).posterior(grid).mean
    assert np.corrcoef(learned, bowl(grid, 0.33))[0, 1] > 0.98
