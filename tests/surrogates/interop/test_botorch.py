"""BoTorch models as predictors, our Gaussian processes as BoTorch models, several objectives."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from surrogates.base import Rescaled

with warnings.catch_warnings():  # linear_operator still calls torch.jit.script when it is loaded
    warnings.simplefilter("ignore", DeprecationWarning)
    from surrogates.interop.botorch import (
        BoTorchPredictor,
        GaussianModel,
        HypervolumeImprovement,
        map_saas,
        tensor,
    )
from surrogates.data import Array, ColumnKind, Columns, TrainingData
from surrogates.gp import GPPredictor
from surrogates.kernels import MaternHamming


def columns(d: int, codes: int = 0) -> Columns:
    kinds = (ColumnKind.DECISION,) * d + (ColumnKind.CATEGORICAL,) * (codes > 0)
    names = tuple(f"x{i}" for i in range(len(kinds)))
    categories = (0,) * d + (codes,) * (codes > 0)
    return Columns(kinds, names, np.zeros(len(kinds)), np.ones(len(kinds)), categories)


def process(X: Array, y: Array, codes: int = 0, noise: float = 1e-3) -> GPPredictor:
    meaning = columns(X.shape[1] - (codes > 0), codes)
    p, q = len(meaning.numeric), len(meaning.categorical)
    kernel = MaternHamming(
        meaning.numeric, meaning.categorical, 0.3, np.log(np.full(p, 0.6)), np.zeros(q)
    )
    return GPPredictor.build(kernel, X, y, noise)


def mixed_rows(n: int, rng: np.random.Generator) -> Array:
    return np.column_stack([rng.random((n, 2)), rng.integers(0, 3, n)])


@pytest.fixture(scope="module")
def ours() -> GPPredictor:
    rng = np.random.default_rng(0)
    X = mixed_rows(12, rng)
    return process(X, np.sin(4.0 * X[:, 0]) + X[:, 1] + 0.3 * X[:, 2], codes=3)


@pytest.fixture(scope="module")
def theirs() -> BoTorchPredictor:
    from botorch.models import SingleTaskGP

    rng = np.random.default_rng(1)
    X = rng.random((10, 2))
    y = np.sin(4.0 * X[:, 0]) + X[:, 1]
    noise = tensor(np.full((10, 1), 1e-4))
    model = SingleTaskGP(tensor(X), tensor(y)[:, None], noise)
    model.eval()
    return BoTorchPredictor(model, (0, 1))


def test_our_process_gives_botorch_its_posterior(ours):
    rows = mixed_rows(5, np.random.default_rng(2))
    for negated, sign in ((False, 1.0), (True, -1.0)):
        posterior = GaussianModel(Rescaled(ours, 2.0, 3.0), negated=negated).posterior(tensor(rows))
        joint = ours.joint_posterior(rows)
        assert_allclose(posterior.mean.numpy()[:, 0], sign * (2.0 + 3.0 * joint.mean), rtol=1e-10)
        assert_allclose(
            posterior.distribution.covariance_matrix.numpy(), 9.0 * joint.covariance, atol=1e-6
        )


def test_nested_units_are_undone_in_order(ours):
    rows = mixed_rows(3, np.random.default_rng(2))
    nested = Rescaled(Rescaled(ours, 1.0, 2.0), 10.0, 5.0)
    posterior = GaussianModel(nested).posterior(tensor(rows))
    assert_allclose(posterior.mean.numpy()[:, 0], nested.posterior(rows).mean, rtol=1e-12)


def test_derivatives_of_the_joint_posterior_agree_with_finite_differences(ours):
    rows = tensor(mixed_rows(3, np.random.default_rng(3)))
    model = GaussianModel(ours)

    def posterior(numeric: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = model.posterior(torch.cat([numeric, rows[:, 2:]], dim=1))
        return found.mean, found.distribution.covariance_matrix

    assert torch.autograd.gradcheck(posterior, (rows[:, :2].clone().requires_grad_(),), atol=1e-6)


def test_batches_are_read_one_by_one(ours):
    rows = tensor(mixed_rows(8, np.random.default_rng(4))).reshape(2, 2, 2, 3)
    model = GaussianModel(ours)
    together = model.posterior(rows).mean
    assert together.shape == (2, 2, 2, 1)
    assert_allclose(together[1, 0].numpy(), model.posterior(rows[1, 0]).mean.numpy())


def test_observation_noise_is_added_once(ours):
    rows = tensor(mixed_rows(2, np.random.default_rng(4)))
    model = GaussianModel(ours)
    more = model.posterior(rows, observation_noise=True).variance - model.posterior(rows).variance
    assert_allclose(more.numpy(), ours.noise_variance, rtol=1e-6)


def test_an_acquisition_of_botorch_runs_on_our_process(ours):
    from botorch.acquisition import LogExpectedImprovement

    from hpo.acquisition import Improvement, Staircase

    rows = mixed_rows(6, np.random.default_rng(5))
    best = float(np.min(ours.training_mean()))
    theirs = LogExpectedImprovement(GaussianModel(ours), best_f=best, maximize=False)
    threshold = Staircase.build(np.zeros(1), np.array([[best]]), 0.0, None)
    found = theirs(tensor(rows)[:, None, :]).detach().numpy()
    assert_allclose(found, Improvement(ours, threshold).value(rows), rtol=1e-3)


def test_what_is_no_gaussian_process_is_refused(theirs):
    with pytest.raises(TypeError, match="must be a Gaussian process"):
        GaussianModel(theirs)


def test_a_botorch_model_learns_from_another_run(theirs):
    row = np.array([[0.5, 0.5]])
    grown = theirs.condition(row, np.array([4.0]))
    assert grown.posterior(row).mean[0] > theirs.posterior(row).mean[0] + 0.5


def test_noise_is_what_a_new_run_adds():
    from botorch.models import SingleTaskGP

    rng = np.random.default_rng(7)
    X = rng.random((10, 2))
    y = (X[:, 0] - X[:, 0].mean()) / X[:, 0].std(ddof=1)
    model = SingleTaskGP(tensor(X), tensor(y)[:, None], outcome_transform=None)
    model.likelihood.noise = 0.25
    model.eval()
    assert BoTorchPredictor(model, (0, 1)).noise_variance == pytest.approx(0.25, rel=1e-3)


def test_saas_finds_the_columns_that_matter():
    rng = np.random.default_rng(0)
    X = rng.random((30, 12))
    y = 5.0 + 100.0 * np.sin(4.0 * X[:, 3])
    found = map_saas(TrainingData(X, y, columns(12)))
    new = rng.random((50, 12))
    truth = 5.0 + 100.0 * np.sin(4.0 * new[:, 3])
    error = found.posterior(new).mean - truth
    assert np.sqrt(np.mean(error**2)) < 0.2 * np.std(truth)
    joint = found.joint_posterior(new[:4])
    assert_allclose(joint.mean, found.posterior(new[:4]).mean, rtol=1e-3)
    assert_allclose(np.diagonal(joint.covariance), found.posterior(new[:4]).variance, rtol=1e-2)
    slope = np.abs(found.posterior_gradient(new).d_mean).mean(axis=0)
    assert np.argmax(slope) == 3


def test_saas_with_a_single_row_is_refused():
    with pytest.raises(ValueError, match="two rows"):
        map_saas(TrainingData(np.zeros((1, 2)), np.zeros(1), columns(2)))


def objectives(X: Array) -> list[GPPredictor]:
    """Distances from three corners: every point of their triangle is on the front."""
    corners = np.array([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]])
    return [process(X, np.sum((X - corner) ** 2, axis=1)) for corner in corners]


def test_three_objectives_prefer_the_front_and_what_is_new():
    X = np.array([[0.2, 0.2], [0.05, 0.95], [0.95, 0.95], [0.9, 0.05], [0.4, 0.3]])
    term = HypervolumeImprovement.of(
        objectives(X),
        X,
        np.ones(3),
        numeric=(0, 1),
        samples=32,
        rng=np.random.default_rng(0),
    )
    inside, far, seen = term.value(np.array([[0.6, 0.45], [0.02, 0.98], [0.2, 0.2]]))
    assert inside > far and inside > seen


def test_the_slope_of_the_hypervolume_agrees_with_finite_differences():
    X = np.random.default_rng(1).random((6, 2))
    term = HypervolumeImprovement.of(
        objectives(X)[:2], X, np.ones(2), numeric=(0,), samples=16, rng=np.random.default_rng(0)
    )
    rows = np.array([[0.5, 0.4], [0.3, 0.6]])
    value, slope = term.gradient(rows)
    assert_allclose(value, term.value(rows))
    step = np.array([1e-5, 0.0])
    by_hand = (term.value(rows + step) - term.value(rows - step)) / 2e-5
    assert_allclose(slope[:, 0], by_hand, rtol=1e-3, atol=1e-4)
    assert np.all(slope[:, 1] == 0.0)


def test_the_engine_maximizes_a_hypervolume_over_a_mixed_space():
    from hpo import Categorical, Float, SearchSpace
    from hpo.acquisition.maximize import Region, maximize
    from hpo.space.encoding import Encoder

    encoder = Encoder(SearchSpace({"x": Float(0, 1), "kind": Categorical(["a", "b", "c"])}))
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.random(10), rng.integers(0, 3, 10)])
    loss = process(X, (X[:, 0] - 0.3) ** 2 + 0.5 * (X[:, 1] != 1.0), codes=3)
    latency = process(X, X[:, 0] + 0.5 * (X[:, 1] != 1.0), codes=3)
    term = HypervolumeImprovement.of(
        [loss, latency], X, np.full(2, 2.0), numeric=(0,), samples=16, rng=rng
    )
    where = Region(encoder.lower, encoder.upper, X[:2], np.full(2, 0.25), X[:0], 0.5, candidates=8)
    choice = maximize(term, encoder, where, X, rng=rng)
    assert choice.row[1] == 1.0  # the kind that is better in both


def test_one_objective_and_a_reference_of_another_length_are_refused():
    X = np.random.default_rng(1).random((4, 2))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="two objectives"):
        HypervolumeImprovement.of(objectives(X)[:1], X, np.ones(1), numeric=(0, 1), rng=rng)
    with pytest.raises(ValueError, match="one value an objective"):
        HypervolumeImprovement.of(objectives(X), X, np.ones(2), numeric=(0, 1), rng=rng)
