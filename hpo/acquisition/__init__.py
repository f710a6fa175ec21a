"""Terms that add up to one log acquisition, and its maximizer over a mixed space."""

from hpo.acquisition.base import Sum, Term
from hpo.acquisition.feasibility import Below, CostBelow, ProbabilityOfSuccess
from hpo.acquisition.improvement import (
    Improvement,
    Staircase,
    Threshold,
    expected_improvement_log,
    knowledge_gradient,
)
from hpo.acquisition.maximize import Maximum, Region, Rows, maximize
from hpo.acquisition.target_information import TargetGain
from hpo.acquisition.thompson import SharedLevel
from hpo.acquisition.trust_region import TrustRegion

__all__ = [
    "Below",
    "CostBelow",
    "Improvement",
    "Maximum",
    "ProbabilityOfSuccess",
    "Region",
    "Rows",
    "SharedLevel",
    "Staircase",
    "Sum",
    "TargetGain",
    "Term",
    "Threshold",
    "TrustRegion",
    "expected_improvement_log",
    "knowledge_gradient",
    "maximize",
]
