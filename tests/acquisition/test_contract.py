"""Every term of the package against the contract; each inherits what it promises."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from hpo.acquisition import (
    Below,
    CostBelow,
    Improvement,
    ProbabilityOfSuccess,
    SharedLevel,
    Staircase,
    Sum,
    TargetGain,
    Term,
    TrustRegion,
)
from hpo.optimizer.strategies.cost_levels import CostMean
from surrogates.data import TrainingData
from surrogates.quantile_forest import ForestPredictor, QuantileForest
from tests.contracts.acquisition import (
    MIXED,
    SCALED,
    TARGET,
    ConstantThreshold,
    LogProbabilityContract,
    MonotoneContract,
    TermContract,
    cost_model,
    fantasies,
    loss_model,
    rows,
    scaling_models,
    success_model,
)

RADII = np.array([0.2, 1.0, 0.5, 1.0])


class TestImprovement(TermContract, MonotoneContract):
    best = -0.5

    def term(self) -> Term:
        return Improvement(loss_model(), ConstantThreshold((self.best,)))

    def rising_terms(self) -> list[Term]:
        return [Improvement(loss_model(), ConstantThreshold((b,))) for b in (-3.0, -1.0, 0.0, 2.0)]


class TestImprovementThatIsNearlyCertain(TestImprovement):
    best = 1.0


class TestImprovementFarBelowEveryMean(TestImprovement):
    best = -20.0


class TestImprovementOverFantasies(TermContract, MonotoneContract):
    def term(self, lower: float = 0.0) -> Term:
        found = fantasies(5, pending=3)
        best = tuple(b - lower for b in (-0.5, 0.0, -1.0, -3.0, 0.3))
        return Improvement(found.predictor, ConstantThreshold(best), found)

    def rising_terms(self) -> list[Term]:
        return [self.term(lower) for lower in (2.0, 1.0, 0.0, -1.0)]


class TestImprovementOverACostFront(TermContract):
    """The front is a step function of the cost, between whose steps derivatives are taken."""

    def term(self) -> Term:
        known, cost = rows(20, 0), cost_model()
        means = loss_model().training_mean()[:, None]
        front = Staircase.build(cost.posterior(known).mean, means, 12.5, CostMean(cost))
        return Improvement(loss_model(), front)


class TestProbabilityOfSuccess(TermContract, LogProbabilityContract):
    def term(self) -> Term:
        return ProbabilityOfSuccess(success_model())


class TestCostBelow(TermContract, LogProbabilityContract, MonotoneContract):
    log_cap = 13.0

    def term(self) -> Term:
        return CostBelow(cost_model(), self.log_cap)

    def rising_terms(self) -> list[Term]:
        return [CostBelow(cost_model(), log_cap) for log_cap in (9.0, 12.0, 13.0, 16.0)]


class TestCostFarBelowEveryRun(TestCostBelow):
    log_cap = 9.0


class TestCostBelowWithWiderErrors(TestCostBelow):
    def term(self) -> Term:
        return CostBelow(cost_model(), self.log_cap, widening=3.0)


class TestBelow(TermContract, LogProbabilityContract, MonotoneContract):
    def term(self) -> Term:
        return Below(loss_model(), 0.0)

    def rising_terms(self) -> list[Term]:
        return [Below(loss_model(), limit) for limit in (-2.0, -0.5, 0.0, 3.0)]


class TestTrustRegion(TermContract, LogProbabilityContract, MonotoneContract):
    def term(self) -> Term:
        return TrustRegion(rows(3, 6), RADII, MIXED.numeric)

    def rising_terms(self) -> list[Term]:
        return [TrustRegion(rows(3, 6), share * RADII, MIXED.numeric) for share in (0.5, 1.0, 2.0)]


class TestTrustRegionOfDecisionsOnly(TestTrustRegion):
    def term(self) -> Term:
        return TrustRegion(rows(3, 6), RADII, MIXED.decision)


class TestSharedLevel(TermContract, MonotoneContract):
    """Trees are constant between their splits, so every derivative is zero."""

    level = 0.3

    def term(self) -> Term:
        return SharedLevel(forest(), self.level, ConstantThreshold((-0.5,)), scale=0.2)

    def rising_terms(self) -> list[Term]:
        term = self.term()
        return [replace(term, level=level) for level in (0.95, 0.5, 0.05)]


class TestSharedLevelFarAboveTheThreshold(TestSharedLevel):
    def term(self) -> Term:
        return SharedLevel(forest(), self.level, ConstantThreshold((-1e6,)), scale=0.2)


class TestTargetGain(TermContract, MonotoneContract):
    """Its derivatives are differences themselves, so they agree with others up to truncation."""

    columns = SCALED
    step = 1e-4
    gradient_tolerance = 1e-3
    batch_tolerance = 1e-7

    def term(self) -> Term:
        law, cost = scaling_models()
        return TargetGain(law, TARGET, cost)

    def rising_terms(self) -> list[Term]:
        law, cost = scaling_models()
        cheaper = cost.with_targets(cost.y - 1.0)
        return [TargetGain(law, TARGET, each) for each in (cost, cheaper)]


class TestSum(TermContract):
    def term(self) -> Term:
        found = fantasies(4)
        return Sum(
            (
                Improvement(found.predictor, ConstantThreshold((-0.5,) * 4), found),
                ProbabilityOfSuccess(success_model()),
                CostBelow(cost_model(), 13.0),
                TrustRegion(rows(2, 6), np.full(4, 0.3), MIXED.decision),
            )
        )


class TestSumOfNoTerms(TermContract):
    def term(self) -> Term:
        return Sum(())


@cache
def forest() -> ForestPredictor:
    X = rows(60, 8)
    y = np.sin(5.0 * X[:, 0]) + X[:, 2] - 0.4 * X[:, 1]
    return QuantileForest(trees=20).fit(TrainingData(X, y, MIXED))
