"""What counts as a number, a count and a metric, the same at every door."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from hpo import (
    ASHA,
    PBT,
    Budget,
    Fidelity,
    Float,
    Int,
    Limits,
    Optimizer,
    StagedOptimizer,
    optimize,
)
from hpo.errors import BudgetError, SpaceError
from hpo.schedulers import FreezeThaw, MedianStopping
from hpo.space.scalars import metric_values, real, shown, whole

HALVES = {
    "float": 0.5,
    "fraction": Fraction(1, 2),
    "decimal": Decimal("0.5"),
    "NumPy half": np.float16(0.5),
    "NumPy long double": np.longdouble(0.5),
    "array of no axis": np.array(0.5),
    "array of one axis": np.array([0.5]),
    "array of two axes": np.array([[0.5]]),
    "tensor of no axis": torch.tensor(0.5),
    "tensor of two axes": torch.tensor([[0.5]], dtype=torch.bfloat16),
    "tensor with a gradient": torch.tensor([0.5], requires_grad=True),
}
FLAGS = {
    "bool": True,
    "NumPy bool": np.True_,
    "array": np.array([True]),
    "tensor": torch.tensor(True),
}
TOO_LARGE = {"int": 10**400, "fraction": Fraction(10**400), "decimal": Decimal("1e400")}
SPACE = {"x": Float(0, 1)}
ONE = Budget(trials=1)


def returned(value):
    return optimize(lambda config, ctx: value, SPACE, budget=ONE).log.observations[0]


def reported(value):
    def train(config, ctx):
        ctx.report(step=1, loss=value)
        return ctx.last_loss

    return optimize(train, SPACE, budget=ONE).log.observations[0]


def told(value):
    optimizer = Optimizer(SPACE)
    return optimizer.tell(optimizer.ask(), value)


def told_a_stage(value):
    staged = StagedOptimizer(Optimizer(SPACE | {"epochs": Fidelity(1, 9)}), ASHA())
    return staged.tell(staged.ask(), loss=value)


DOORS = {"return": returned, "report": reported, "tell": told, "stage": told_a_stage}


@pytest.mark.parametrize("value", HALVES.values(), ids=HALVES)
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_every_real_number_is_a_loss_at_every_door(door, value):
    loss = door(value).loss
    assert type(loss) is float and loss == 0.5


@pytest.mark.parametrize("value", TOO_LARGE.values(), ids=TOO_LARGE)
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_loss_too_large_for_a_float_has_diverged(door, value):
    observation = door(value)
    assert (observation.loss, observation.cause.value) == (None, "diverged")


@pytest.mark.parametrize("value", FLAGS.values(), ids=FLAGS)
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_a_truth_value_is_no_loss_at_any_door(door, value):
    with pytest.raises(TypeError, match="loss.* must be (one|a real) number"):
        door(value)


@pytest.mark.parametrize("value", FLAGS.values(), ids=FLAGS)
def test_a_truth_value_is_no_cost(value):
    with pytest.raises(TypeError, match="cost must be a real number"):
        optimize(lambda config, ctx: {"loss": 0.5, "cost": value}, SPACE, budget=ONE)
    optimizer = Optimizer(SPACE)
    with pytest.raises(TypeError, match="`cost` must be one number"):
        optimizer.tell(optimizer.ask(), 0.5, cost=value)


@pytest.mark.parametrize("value", HALVES.values(), ids=HALVES)
def test_every_real_number_is_a_cost_and_a_metric(value):
    optimizer = Optimizer(SPACE)
    done = optimizer.tell(optimizer.ask(), 1.0, cost=value, seconds=value, metrics={"m": value})
    assert (done.cost, done.seconds, done.metrics) == (0.5, 0.5, {"m": 0.5})


@pytest.mark.parametrize("value", FLAGS.values(), ids=FLAGS)
def test_a_truth_value_is_the_metric_one_and_none_is_dropped_at_every_door(value):
    metrics = {"ok": value, "missing": None}

    def train(config, ctx):
        ctx.report(step=1, loss=0.5, metrics=metrics)
        return {"loss": 0.5} | metrics

    result = optimize(train, SPACE, budget=ONE)
    optimizer = Optimizer(SPACE)
    done = optimizer.tell(optimizer.ask(), 0.5, metrics=metrics)
    for kept in (
        result.log.reports(0)[0].metrics,
        result.log.observations[0].metrics,
        done.metrics,
    ):
        assert kept == {"ok": 1.0}


def test_a_metric_that_is_no_number_is_refused_by_its_name():
    for texts in (False, True):
        with pytest.raises(TypeError, match="metric 'grid' must be a real number"):
            metric_values({"grid": [1, 2]}, texts=texts)
    assert metric_values({"note": "warm"}, texts=True) == {"note": "warm"}
    with pytest.raises(TypeError, match="metrics must be a dict of names and numbers"):
        metric_values([0.5], texts=True)


@pytest.mark.parametrize(
    "value", ["0.5", None, [0.5], np.ones(2), np.ones(0), torch.ones(2), 1j, b"1", np.array(["a"])]
)
def test_anything_else_is_no_number_and_no_count(value):
    assert real(value) is None
    assert whole(value) is None


THREES = [np.int64(3), np.uint8(3), np.array(3), np.array([[3]]), torch.tensor([3]), 3.0]


@pytest.mark.parametrize("three", THREES, ids=repr)
def test_every_whole_number_is_a_count_wherever_one_is_asked_for(three):
    counts = [
        Budget(trials=three).trials,
        Limits(memory=three).memory,
        ASHA(eta=three, brackets=three).eta,
        PBT(population=three, interval=three).interval,
        FreezeThaw(floor=three).floor,
        MedianStopping(after=three, among=three).among,
        Int(three, 5).low,
        Fidelity(three, 5).low,
    ]
    assert counts == [3] * len(counts)
    assert {type(count) for count in counts} == {int}
    assert Optimizer(SPACE, seed=three).ask() == Optimizer(SPACE, seed=3).ask()


def test_a_count_of_numpy_gives_the_same_scheduler_as_that_of_python():
    assert repr(ASHA(eta=np.int64(3))) == repr(ASHA(eta=3))


def test_a_study_takes_counts_of_numpy():
    one = np.int64(1)

    def train(config, ctx):
        ctx.report(step=one, loss=config["x"])
        return config["x"]

    plain = optimize(train, SPACE, budget=Budget(trials=2), seed=1, confirm=1)
    counted = optimize(
        train, SPACE, budget=Budget(trials=2 * one), seed=one, workers=one, confirm=one
    )
    configs = [[o.config for o in result.log.observations] for result in (plain, counted)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("value", [np.float32(3), Fraction(3), np.array([3.0]), np.int64(3)])
def test_every_real_number_is_a_limit(value):
    budget = Budget(seconds=value, cost=value, per_trial=value)
    assert (budget.seconds, budget.cost, budget.per_trial) == (3.0, 3.0, 3.0)
    assert type(budget.cost) is float


HUGE = 10**5000  # beyond what Python prints


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Budget(cost=10**400), BudgetError, "Budget.cost must be a finite number above 0"),
        (lambda: Budget(cost=HUGE), BudgetError, "Budget.cost must be a finite number above 0"),
        (lambda: Budget(trials=-HUGE), BudgetError, "Budget.trials must be an int of at least 1"),
        (
            lambda: Budget(seconds=True),
            BudgetError,
            "Budget.seconds must be a finite number above 0",
        ),
        (lambda: ASHA(eta=-HUGE), SpaceError, "`eta` of ASHA must be an int of at least 2"),
        (lambda: ASHA(eta=None), SpaceError, "`eta` of ASHA must be an int of at least 2"),
        (lambda: Float(0, HUGE), SpaceError, "`high` of Float must be finite"),
        (lambda: Optimizer(SPACE, seed=1.5), ValueError, "`seed` must be an int of at least 0"),
        (lambda: Optimizer(SPACE, seed=True), ValueError, "`seed` must be an int of at least 0"),
        (lambda: Optimizer(SPACE, budget=5), TypeError, "`budget` must be a Budget or None"),
    ],
)
def test_a_bad_number_is_refused_in_words_whatever_its_size(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_not_a_number_stays_what_it_is():
    for value in (math.nan, np.float32("nan"), Decimal("nan"), Decimal("snan")):
        assert math.isnan(real(value))


def test_any_value_can_be_shown():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert shown(Broken()) == "a value of type Broken that cannot be printed"
    assert len(shown("x" * 10_000)) < 300
