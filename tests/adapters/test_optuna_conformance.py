"""Every class of Optuna's public conformance tests that applies to a sampler of several objectives.

`SingleOnlySamplerTestCase` is for samplers that refuse several objectives, which ours does not.
"""

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from hpo.adapters.optuna import ScaleTuneSampler


class TestScaleTuneSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase
):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: ScaleTuneSampler(seed=0)
