import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.training.schedules import (
    Constant,
    Cooldown,
    Cosine,
    Cyclical,
    Exponential,
    LearningRateSchedule,
    Linear,
    OneCycle,
    Power,
    Rewarmed,
    WarmupStableDecay,
)

ALL: list[LearningRateSchedule] = [
    Constant(warmup=5),
    Power(0.7, warmup=5, unit=3),
    Cosine(0.1, 0.2),
    Linear(0.1, 0.2),
    WarmupStableDecay(warmup=5, decay=0.3, final=0.1),
    Exponential(1e-3),
    OneCycle(),
    Cyclical(7, low=0.1, shrink=0.5),
    Rewarmed(0.1, 5, Constant()),
    *(WarmupStableDecay(decay=0.3, final=0.1, shape=shape) for shape in Cooldown),
]


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (Cosine(warmup=0.2, final=0.1), {0: 0.0, 10: 0.5, 20: 1.0, 60: 0.55, 100: 0.1}),
        (Cosine(warmup=0.0, final=0.1), {0: 1.0, 50: 0.55}),
        (Cosine(warmup=1.0, final=0.1), {50: 0.5}),
        (Linear(warmup=0.2, final=0.1), {10: 0.5, 20: 1.0, 60: 0.55, 100: 0.1}),
        (Constant(warmup=20), {10: 0.5, 20: 1.0, 99: 1.0}),
        (Power(0.5, warmup=20, unit=10), {10: 0.5, 20: 1.0, 50: 0.5}),
        (
            WarmupStableDecay(warmup=10, decay=0.2, final=0.1),
            {5: 0.5, 10: 1.0, 80: 1.0, 85: 0.55, 100: 0.1},
        ),
        (WarmupStableDecay(warmup=10, decay=0.0), {5: 0.5, 100: 1.0}),
        (Exponential(1e-4), {0: 1e-4, 50: 1e-2, 100: 1.0}),
        (OneCycle(rise=0.2, start=0.1, final=0.0), {0: 0.1, 10: 0.55, 20: 1.0, 60: 0.5, 100: 0.0}),
        (Cyclical(40, low=0.2), {0: 0.2, 20: 1.0, 30: 0.6, 40: 0.2, 60: 1.0}),
        (Cyclical(40, low=0.0, shrink=0.5), {20: 1.0, 60: 0.5, 100: 0.25}),
        (Rewarmed(0.2, 20, Linear(warmup=0.0, final=0.1)), {0: 0.2, 10: 0.6, 20: 1.0, 60: 0.55}),
        (Power.in_tokens(0.5, warmup=200, unit=100, tokens_per_update=10), {10: 0.5, 50: 0.5}),
        (WarmupStableDecay(decay=0.5, shape=Cooldown.LINEAR), {50: 1.0, 75: 0.5, 100: 0.0}),
        (WarmupStableDecay(decay=0.5, shape=Cooldown.SQUARE), {50: 1.0, 75: 0.75, 100: 0.0}),
        (WarmupStableDecay(decay=0.5, shape=Cooldown.COSINE), {50: 1.0, 75: 0.5, 100: 0.0}),
        (
            WarmupStableDecay(decay=0.5, shape=Cooldown.MIRROR_COSINE),
            {50: 1.0, 62.5: 0.646447, 75: 0.5, 100: 0.0},
        ),
        (WarmupStableDecay(decay=0.5, shape=Cooldown.EXPONENTIAL), {50: 1.0, 75: 0.0303, 100: 0.0}),
    ],
)
def test_shares_match_hand_computed_values(
    schedule: LearningRateSchedule, shares: dict[float, float]
) -> None:
    for done, share in shares.items():
        assert schedule.share(done, 100) == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("schedule", ALL)
@given(progress=st.floats(0, 1), total=st.floats(1, 1e6))
def test_a_share_lies_between_zero_and_one(
    schedule: LearningRateSchedule, progress: float, total: float
) -> None:
    assert 0 <= schedule.share(progress * total, total) <= 1 + 1e-12


@pytest.mark.parametrize("schedule", [s for s in ALL if not s.follows_length])
@given(done=st.floats(0, 100))
def test_schedules_that_do_not_follow_the_length_ignore_it(
    schedule: LearningRateSchedule, done: float
) -> None:
    assert schedule.share(done, 100) == schedule.share(done, 1e6)


@pytest.mark.parametrize("schedule", [s for s in ALL if s.follows_length])
def test_schedules_that_follow_the_length_depend_on_it(schedule: LearningRateSchedule) -> None:
    assert schedule.share(90, 100) != schedule.share(90, 200)


def test_without_decay_the_schedule_does_not_follow_the_length() -> None:
    assert not WarmupStableDecay(decay=0.0).follows_length


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Cosine(warmup=1.5), "warmup"),
        (lambda: Linear(final=-0.1), "final"),
        (lambda: Constant(warmup=-1), "warmup"),
        (lambda: Power(exponent=math.nan), "exponent"),
        (lambda: Power(unit=0), "unit"),
        (lambda: WarmupStableDecay(decay=2), "decay"),
        (lambda: Exponential(1.0), "start"),
    ],
)
def test_a_setting_out_of_range_is_named(make: object, name: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=f"`{name}`"):
        make()
