"""Feasibility terms against the probabilities of their models."""

import numpy as np

from hpo.acquisition import CostBelow, ProbabilityOfSuccess
from tests.contracts.acquisition import cost_model, rows, success_model


def test_feasibility_terms_are_the_logs_of_the_models_probabilities():
    success, cost, X = success_model(), cost_model(), rows(8, 1)
    np.testing.assert_allclose(
        np.exp(ProbabilityOfSuccess(success).value(X)), success.probability(X)
    )
    np.testing.assert_allclose(
        np.exp(CostBelow(cost, 13.0).value(X)),
        np.exp(cost.log_probability_below(X, 13.0)),
        rtol=1e-9,
    )
