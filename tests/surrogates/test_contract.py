"""Every surrogate of the package against the contract; each inherits what it promises."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from surrogates.base import Posterior, PosteriorGradient, Rescaled
from surrogates.basis_gp import BasisKernel
from surrogates.cost import CostModel, CostPredictor
from surrogates.data import Array, ColumnKind, Columns, TrainingData
from surrogates.feasibility import FeasibilityModel
from surrogates.gp import GaussianProcess
from surrogates.learning_curves import Curve, CurveModel
from surrogates.quantile_forest import QuantileForest, moments
from surrogates.scaling_law.model import ScalingModel
from surrogates.transforms import location_scale
from tests.contracts.surrogate import (
    ConditionContract,
    GradientContract,
    JointContract,
    OrderContract,
    RefitContract,
    SurrogateContract,
    UnitsContract,
)


class Learned(SurrogateContract):
    """A surrogate with `learn` and `predictor`."""

    surrogate: Any

    def learn(self, data: TrainingData) -> Array:
        return self.surrogate.learn(data)

    def predictor(self, data: TrainingData, theta: Array) -> Any:
        return self.surrogate.predictor(data, theta)

    def test_fit_is_learn_then_predictor(self):
        data, X = self.data(), self.rows(5, 5)
        found = self.surrogate.fit(data).posterior(X)
        expected = self.surrogate.predictor(data, self.surrogate.learn(data)).posterior(X)
        np.testing.assert_array_equal(found.mean, expected.mean)
        np.testing.assert_array_equal(found.variance, expected.variance)


class TestGaussianProcess(Learned, JointContract, RefitContract, GradientContract, OrderContract):
    """Of standardized targets: it promises nothing about other units."""

    surrogate = GaussianProcess()

    def targets(self, X: Array, rng: np.random.Generator) -> Array:
        y = super().targets(X, rng)
        return (y - 1.0) / 0.7


class TestRescaledGaussianProcess(
    SurrogateContract, JointContract, RefitContract, GradientContract, OrderContract, UnitsContract
):
    """The process of losses as they are, standardized on the way in and read back on the way out.

    Its hyperparameters are location, scale and those of the process.
    """

    def learn(self, data: TrainingData) -> Any:
        location, scale = location_scale(data.y)
        inner = TrainingData(data.X, (data.y - location) / scale, data.columns)
        return location, scale, GaussianProcess().learn(inner)

    def predictor(self, data: TrainingData, theta: Any) -> Rescaled:
        location, scale, inner = theta
        scaled = TrainingData(data.X, (data.y - location) / scale, data.columns)
        return Rescaled(GaussianProcess().predictor(scaled, inner), location, scale)

    def rounding(self, predictor: Rescaled) -> float:
        return super().rounding(predictor.predictor)


class TestCostModel(
    Learned, JointContract, RefitContract, GradientContract, OrderContract, UnitsContract
):
    """Of ln cost: another unit of cost is a shift, and the level has a vague prior about it."""

    surrogate = CostModel()
    units = ((1.0, np.log(60.0)), (1.0, -20.0))

    def rebuilt(self, predictor: CostPredictor, data: TrainingData, theta: Array) -> CostPredictor:
        # level and reference of the law are taken from the rows that were learned from
        assert isinstance(predictor.kernel, BasisKernel)
        return CostPredictor.build(
            predictor.kernel, data.X, data.y, predictor.noise_variance, predictor.prior_mean
        )


class TestScalingModel(
    Learned, JointContract, RefitContract, GradientContract, OrderContract, UnitsContract
):
    """Of losses as they are; a loss moved by a constant is another law, so only factors count."""

    surrogate = ScalingModel()
    # powers of two, so that only the order of rounding differs; the search for the law stops within
    # its tolerances at a slightly different place
    units = ((8.0, 0.0), (0.25, 0.0))
    units_tolerance = 2e-2

    def targets(self, X: Array, rng: np.random.Generator) -> Array:
        return 3.0 + super().targets(X, rng)


class TestScalingModelOfPartialRuns(
    Learned, JointContract, RefitContract, GradientContract, OrderContract
):
    """The same with a fidelity column and without categories."""

    surrogate = ScalingModel()
    columns = Columns(
        (ColumnKind.DECISION, ColumnKind.SCALE, ColumnKind.FIDELITY),
        ("lr", "params", "epochs"),
        np.array([-9.0, 12.0, 0.0]),
        np.array([7.0, 5.0, 4.4]),
        (0, 0, 0),
    )


class TestQuantileForest(SurrogateContract, ConditionContract, UnitsContract):
    """Trees are grown on bootstrap samples by position, so the order of the rows matters to them.

    Splits depend on ranks and leaves keep the targets, so units change nothing but rounding.
    """

    units_tolerance = 1e-9

    def learn(self, data: TrainingData) -> None:
        return None

    def predictor(self, data: TrainingData, theta: None) -> Any:
        return QuantileForest(trees=20).fit(data, rng=np.random.default_rng(0))

    def posterior(self, predictor: Any, X: Array) -> Posterior:
        return moments(predictor, X)

    test_no_rows_can_be_asked_about = None  # not promised: it is always asked about candidates


class TestFeasibilityModel(SurrogateContract, GradientContract, OrderContract):
    """Of labels: the mean is P(success), the variance that of the label; logarithms have slopes."""

    def learn(self, data: TrainingData) -> None:
        return None

    def predictor(self, data: TrainingData, theta: None) -> Any:
        return FeasibilityModel().fit(data)

    def targets(self, X: Array, rng: np.random.Generator) -> Array:
        y = super().targets(X, rng)
        return (y < np.median(y) + 1e-9).astype(float)

    def posterior(self, predictor: Any, X: Array) -> Posterior:
        p = predictor.probability(X)
        return Posterior(p, p * (1.0 - p))

    def differentiated(self, predictor: Any, X: Array) -> Posterior:
        return Posterior(predictor.log_probability(X), np.zeros(len(X)))

    def posterior_gradient(self, predictor: Any, X: Array) -> PosteriorGradient:
        value, slope = predictor.log_probability_gradient(X)
        return PosteriorGradient(value, np.zeros(len(X)), slope, np.zeros(slope.shape))


class TestCurveModel(SurrogateContract, OrderContract, UnitsContract):
    """Of runs: a row is a run of power-law curve, `x` its exponent; it is asked about its end.

    Targets are what a run ends at. Only the first half of the runs has reported its end.
    """

    columns = Columns.of_decisions("exponent")
    size = 12
    levels = np.arange(1.0, 28.0)
    units = ((8.0, 0.0), (40.0, -300.0))

    def targets(self, X: Array, rng: np.random.Generator) -> Array:
        return 0.3 + 0.1 * rng.random(len(X))

    def curve(self, x: float, end: float, unit: float, reports: int) -> Curve:
        shape = self.levels ** -(0.4 + x)
        fall = (shape - shape[-1]) / (shape[0] - shape[-1])
        return Curve(self.levels[:reports], (end + unit * fall)[:reports])

    def learn(self, data: TrainingData) -> None:
        return None

    def predictor(self, data: TrainingData, theta: None) -> Any:
        unit = float(np.std(data.y)) or 0.03
        curves = [
            self.curve(x, y, 10.0 * unit, 27 if x < 0.5 else 9)
            for x, y in zip(data.X[:, 0], data.y, strict=True)
        ]
        middle = float(np.mean(data.y))
        return CurveModel(1.0, 27.0, steps=2).fit(curves), middle, unit

    def posterior(self, predictor: Any, X: Array) -> Posterior:
        model, middle, unit = predictor
        ends = [
            model.predict(self.curve(x, middle, 10.0 * unit, 5), 27.0).posterior() for x in X[:, 0]
        ]
        return Posterior(
            np.array([float(end.mean[0]) for end in ends]),
            np.array([float(end.variance[0]) for end in ends]),
        )


class TestBoTorchModel(SurrogateContract, JointContract, ConditionContract, GradientContract):
    """A BoTorch model of fixed hyperparameters, in numeric columns."""

    columns = Columns.of_decisions("x", "y")

    def learn(self, data: TrainingData) -> None:
        return None

    def predictor(self, data: TrainingData, theta: None) -> Any:
        with warnings.catch_warnings():
            # linear_operator still calls torch.jit.script when it is loaded; and BoTorch wants
            # other standardized targets and more rows than these tests have
            warnings.simplefilter("ignore")
            from botorch.models import SingleTaskGP

            from surrogates.interop.botorch import BoTorchPredictor, tensor

            n = len(data)
            noise = tensor(np.full((n, 1), 1e-3))
            model = SingleTaskGP(
                tensor(data.X), tensor(data.y)[:, None], noise, outcome_transform=None
            )
            model.eval()
            return BoTorchPredictor(model, (0, 1))

    def rounding(self, predictor: Any) -> float:
        return 1e-5  # it factorizes with a jitter of its own
