"""Spaces and known laws that the tests of the loss model share."""

import numpy as np

from surrogates.data import ColumnKind, Columns, TrainingData
from surrogates.scaling_law.parametric_loss import ParametricLoss, ThetaLayout

LOW = np.array([np.log(1e-4), np.log(8.0), np.log(1e5), np.log(1e6)])
WIDTH = np.array([np.log(1e3), np.log(64.0), np.log(30.0), np.log(30.0)])
LLM = Columns(
    (ColumnKind.DECISION, ColumnKind.DECISION, ColumnKind.SCALE, ColumnKind.SCALE),
    ("lr", "batch", "N", "D"),
    LOW,
    WIDTH,
    (0,) * 4,
    (True,) * 4,
)
MIXED = Columns(
    (ColumnKind.DECISION,) * 3
    + (
        ColumnKind.SCALE,
        ColumnKind.SCALE,
        ColumnKind.CATEGORICAL,
        ColumnKind.ACTIVITY,
        ColumnKind.FIDELITY,
    ),
    tuple("abcNDoie"),
    np.array([0.0, -1.0, 3.0, 11.0, 14.0, 0.0, 0.0, 0.0]),
    np.array([1.0, 2.0, 0.5, 3.0, 4.0, 1.0, 1.0, 4.4]),
    (0, 0, 0, 0, 0, 3, 2, 0),
)


def mixed_rows(n, rng):
    X = rng.random((n, 8))
    X[:, 5], X[:, 6] = rng.integers(0, 3, n), rng.integers(0, 2, n)
    return X


def random_loss(columns, seed=0):
    rng = np.random.default_rng(seed)
    layout = ThetaLayout.of(columns, 28)
    theta = 0.5 * rng.standard_normal(layout.size)
    theta[layout.asymmetry] = np.linspace(-1.5, 3.0, 2 * len(layout.decisions))
    return ParametricLoss(layout, layout.origin + 0.4 * layout.unit, theta)


class Family:
    """Losses of a known law: a drifting, asymmetric bowl over a Chinchilla floor."""

    def __init__(self, seed):
        rng = self.rng = np.random.default_rng(seed)
        layout = ThetaLayout.of(LLM, 28)
        theta = np.zeros(layout.size)
        theta[0] = rng.uniform(2.5, 3.5)
        theta[layout.log_reducible] = np.log([0.5, 0.6]) + 0.4 * rng.standard_normal(2)
        theta[layout.log_exponent] = np.log(0.3) + 0.3 * rng.standard_normal(2)
        theta[layout.log_curvature] = np.log([2.0, 1.0]) + 0.5 * rng.standard_normal(2)
        theta[layout.asymmetry] = np.tile([2.0, 0.0] + 0.5 * rng.standard_normal(2), 2)
        theta[layout.optimum] = 0.5 + 0.1 * rng.standard_normal(2)
        self.slopes = np.array([[-0.3, -0.1], [0.0, 0.3]]) + 0.15 * rng.standard_normal((2, 2))
        theta[layout.drift] = (self.slopes / WIDTH[:2, None]).ravel()
        theta[layout.couplings] = -0.3 + 0.1 * rng.standard_normal()
        reference = LOW[2:] + 0.5 * WIDTH[2:]
        self.loss = ParametricLoss(layout, reference, theta)
        # eight times the compute of the largest proxy, shared between N and D
        self.target = LOW[2:] + WIDTH[2:] + 0.5 * np.log(8.0)

    def runs(self, n, noise=0.01):
        X = self.rng.random((n, 4))
        y = self.loss.value(X) + noise * self.rng.standard_normal(n)
        return TrainingData(X, y, LLM)

    @property
    def best(self):
        """The optimum at the target, a row."""
        z = self.loss.optimum_at(self.target[None, :])[0]
        return np.concatenate([z, (self.target - LOW[2:]) / WIDTH[2:]])[None, :]
