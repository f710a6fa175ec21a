from dataclasses import replace

import numpy as np

from surrogates.scaling_law import map_fit
from surrogates.scaling_law.map_fit import descend, ridge_start
from surrogates.scaling_law.parametric_loss import ParametricLoss, ThetaLayout
from surrogates.scaling_law.prior import LawPrior, LossUnits, Reach, whitening
from tests.surrogates.scaling_law.families import LLM, LOW, WIDTH, Family


def test_ridge_start_finds_the_drift_of_a_noiseless_quadratic_bowl():
    rng = np.random.default_rng(5)
    layout = ThetaLayout.of(LLM, 0)
    reference = LOW[2:] + 0.5 * WIDTH[2:]
    X = rng.random((400, 4))
    units, reach = LossUnits(3.0, 0.3), Reach.of(LLM, X[:0], np.zeros(0))
    prior = whitening(layout, LLM, reference, units, reach, LawPrior(), None)
    theta = prior.mean.copy()
    theta[layout.log_curvature] = np.log([3.0, 2.0])
    theta[layout.drift] = [-0.05, -0.02, 0.01, 0.06]
    truth = ParametricLoss(layout, reference, theta)
    start = prior.theta(ridge_start(X, truth.value(X), prior, truth, reach))
    np.testing.assert_allclose(start[layout.drift], theta[layout.drift], atol=0.03)
    np.testing.assert_allclose(start[layout.optimum], 0.5, atol=0.03)


def test_descent_ends_where_the_gradient_of_the_posterior_vanishes():
    data = Family(1).runs(60)
    layout = ThetaLayout.of(LLM, 28)
    reference = layout.scales(data.X).mean(axis=0)
    units, reach = LossUnits.of(data.y), Reach.of(LLM, data.X, data.y)
    prior = whitening(layout, LLM, reference, units, reach, LawPrior(), None)
    blank = ParametricLoss(layout, reference, prior.mean)
    sd = np.full(60, 0.02)
    start = ridge_start(data.X, data.y, prior, blank, reach)
    mode = descend(start, data.X, data.y, prior, blank, sd)
    law = replace(blank, theta=prior.theta(mode.u))
    pull = prior.root.T @ law.jacobian(data.X).T @ ((data.y - law.value(data.X)) / sd**2)
    np.testing.assert_allclose(pull, mode.u, atol=0.05)


def test_a_law_with_more_coefficients_than_runs_descends_to_the_same_mode(monkeypatch):
    data = Family(2).runs(8)
    layout = ThetaLayout.of(LLM, 28)
    reference = layout.scales(data.X).mean(axis=0)
    units, reach = LossUnits.of(data.y), Reach.of(LLM, data.X, data.y)
    prior = whitening(layout, LLM, reference, units, reach, LawPrior(), None)
    blank = ParametricLoss(layout, reference, prior.mean)
    sd = np.full(8, 0.02)
    start = ridge_start(data.X, data.y, prior, blank, reach)
    assert len(start) > 2 * len(data.y)
    by_coefficients = descend(start, data.X, data.y, prior, blank, sd)
    monkeypatch.setattr(map_fit, "_WIDE", 0)
    by_rows = descend(start, data.X, data.y, prior, blank, sd)
    np.testing.assert_allclose(by_rows.u, by_coefficients.u, atol=1e-5)
