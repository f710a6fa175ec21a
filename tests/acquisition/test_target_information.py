"""The gain of a run about the target against the regret after it."""

import numpy as np

from hpo.acquisition import TargetGain
from tests.contracts.acquisition import TARGET, scaling_models


def test_the_gain_of_a_run_is_the_reduction_of_the_regret_at_the_target():
    law, _ = scaling_models()
    gain = TargetGain(law, TARGET, None)
    X = np.random.default_rng(1).random((20, 2))
    # a design assumes a larger error than the fit, which is divided out here
    conditioned = [law.condition(x[None], law.posterior(x[None]).mean) for x in X]
    own = np.array([after.row_noise[-1] + law.noise_variance for after in conditioned])
    lost = np.array([gain.regret - TargetGain(after, TARGET, None).regret for after in conditioned])
    variance = law.posterior(X).variance
    assumed = law.error_variance(X, 0.5)
    expected = np.log(lost * (variance + own) / (variance + assumed))
    np.testing.assert_allclose(gain.value(X), expected, rtol=1e-4, atol=1e-6)


def test_the_gain_is_divided_by_the_predicted_cost():
    law, cost = scaling_models()
    X = np.random.default_rng(2).random((9, 2))
    per_cost, plain = TargetGain(law, TARGET, cost), TargetGain(law, TARGET, None)
    np.testing.assert_allclose(plain.value(X) - per_cost.value(X), cost.posterior(X).mean)
