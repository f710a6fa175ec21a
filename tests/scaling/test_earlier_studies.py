"""Earlier studies across scale as one more rule about the next one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpo import Axis, Float, Neutral, Optimizer, Role, Scale
from hpo.scaling.earlier_studies import EarlierStudies, earlier_studies, new_study
from hpo.space import Direction, SearchSpace
from hpo.space.encoding import Encoder
from hpo.trials.other_tasks import OtherTask, read_other_tasks
from tests.histories import Config

SPACE = SearchSpace(
    {
        "lr": Float(1e-5, 1e-1, log=True, role=Role.LR),
        "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    }
)
SLOPE, LEVEL = 0.4, math.log(3e-3)  # no published rule says that the lr rises with size


def best(params: float, slope: float = SLOPE, level: float = LEVEL) -> float:
    return level + slope * math.log(params / 1e6)


def runs(
    seed: int, slope: float = SLOPE, level: float = LEVEL, count: int = 30, largest: float = 1e7
) -> list[tuple[Config, float]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        params = math.exp(rng.uniform(math.log(1e5), math.log(largest)))
        optimum = best(params, slope, level)
        lr = min(max(math.exp(optimum + rng.normal()), 1e-5), 1e-1)
        loss = 2.0 + 10.0 * params**-0.2 + 0.05 * (math.log(lr) - optimum) ** 2
        found.append(({"lr": lr, "params": params}, loss + 0.002 * rng.standard_normal()))
    return found


def given(slopes: tuple[float, ...]) -> tuple[OtherTask, ...]:
    named = {f"study {i}": runs(i, slope) for i, slope in enumerate(slopes)}
    return read_other_tasks(named, SPACE, Direction.MINIMIZE)


def test_the_next_study_lies_where_nine_tenths_of_such_studies_lie():
    """Studies drawn around a mean with a known spread, each with its own error."""
    rng, tau, inside = np.random.default_rng(0), 0.2, []
    for _ in range(400):
        truth = rng.normal(0.3, tau, size=6)
        sds = rng.uniform(0.05, 0.2, size=5)
        estimates = list(zip((truth[:5] + sds * rng.standard_normal(5)).tolist(), sds, strict=True))
        mean, sd = new_study(estimates, tau=0.2)
        inside.append(abs(truth[5] - mean) < 1.645 * sd)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.06)


def test_one_study_is_as_uncertain_as_its_error_and_the_spread_of_two_studies():
    mean, sd = new_study([(0.5, 0.1)], tau=0.2)
    assert (mean, sd) == pytest.approx((0.5, math.sqrt(0.1**2 + 2 * 0.2**2)))


def test_studies_that_disagree_make_a_wider_claim():
    agree, disagree = (new_study([(m, 0.05) for m in ms], 0.1)[1] for ms in ((0, 0), (-1, 1)))
    assert disagree > 3 * agree


def test_slopes_and_levels_of_the_studies_are_found():
    rule = earlier_studies(Encoder(SPACE), given((0.35, 0.4, 0.45)))
    assert rule is not None
    [slope], [level] = rule.slopes, rule.levels
    assert slope.mean == pytest.approx(0.4, abs=0.1)
    assert math.log(level.value) == pytest.approx(best(level.at["params"]), abs=0.3)
    assert 0.05 < slope.sd < 0.15  # the studies differ by 0.05
    assert 0.3 < level.sd < 1.0


def test_runs_that_cannot_show_a_slope_claim_none():
    one_size = [({"lr": lr, "params": 1e6}, 2.0 + math.log(lr / 3e-3) ** 2) for lr in (1e-3, 1e-2)]
    tasks = read_other_tasks({"a": one_size}, SPACE, Direction.MINIMIZE)
    rule = earlier_studies(Encoder(SPACE), tasks)
    assert rule is None or not rule.slopes


def test_a_study_of_few_small_runs_answers_nearer_at_the_target_with_earlier_studies():
    errors, sds = [], []
    for tasks in (None, {f"s{i}": runs(i) for i in range(3)}):
        optimizer = Optimizer(SPACE, seed=0, other_tasks=tasks)
        for config, loss in runs(50, count=6, largest=1e6):
            optimizer.tell(config, loss)
        advice = optimizer.recommend({"params": 1e8})
        errors.append(abs(math.log(advice.config["lr"]) - best(1e8)))
        law = optimizer.result().scaling_law
        assert law is not None
        sds.append(law.slope("lr", "params").sd)
        weights = {rule.name: (rule.before, rule.after) for rule in law.rules}
        assert ("EarlierStudies" in weights) == (tasks is not None)
        if tasks is not None:
            before, after = weights["EarlierStudies"]
            assert after > 2 * before
    assert errors[1] < errors[0]
    assert sds[1] < sds[0]


def test_earlier_studies_speak_also_where_no_published_rule_may():
    tasks = {"a": runs(0), "b": runs(1)}
    optimizer = Optimizer(SPACE, priors=Neutral(), other_tasks=tasks)
    optimizer.tell(*runs(2)[0])
    law = optimizer.result().scaling_law
    assert law is not None
    assert [rule.name for rule in law.rules] == ["EarlierStudies", "none of them"]


def test_each_earlier_study_counts_as_much_as_a_published_source():
    rule = EarlierStudies((), (), studies=4)
    assert (rule.studies, rule.source) == (4, "4 other tasks")
    assert rule.claims(SPACE) == ()
