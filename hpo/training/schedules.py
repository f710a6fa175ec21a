"""Learning-rate schedules: the share of the peak rate at each moment of a run.

Notation
--------
t  updates done, a real number: t = 0.5 is the middle of the first update
T  updates of the whole run
w  updates of the warm-up, over which the share rises linearly from 0 to 1

A schedule either follows the whole run (`Cosine`, `Linear`, `OneCycle`, `WarmupStableDecay`): its
share depends on t / T, and a run of another length is another run from its first update on. Or it
never looks at T (`Constant`, `Power`, `Cyclical`): the first t updates of a long run are exactly a
run of t updates, which is what a fidelity needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from hpo.space.arguments import Interface, Member, Number, store

SCHEDULE = Interface("a schedule such as Cosine()", ("share",))
_SHARE = Number(least=0, most=1, way_out="it is a share, not a count of updates")
_UPDATES = Number(least=0, way_out="0 leaves it out")
_DONE = Number(least=0, way_out="count the updates from 0")
_TOTAL = Number(above=0, way_out="give the updates of the whole run")


class LearningRateSchedule(Protocol):
    """Share of the peak learning rate as a function of the updates done.

    Example:
        >>> schedule: LearningRateSchedule = Constant()
        >>> schedule.share(3, 10)
        1.0
    """

    @property
    def follows_length(self) -> bool:
        """Whether `share` depends on `total`."""
        ...

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` of `total` updates."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Warm-up, then the peak rate.

    Args:
        warmup: Updates of the warm-up, w.

    Raises:
        ValueError: `warmup` is negative.

    Example:
        >>> [Constant(warmup=4).share(t, 8) for t in (0, 2, 4, 8)]
        [0.0, 0.5, 1.0, 1.0]
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        store(self, warmup=_UPDATES)

    @property
    def follows_length(self) -> bool:
        """False: a longer run begins with the same updates."""
        return False

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` updates; `total` has no effect."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        return _rise(done, self.warmup)


@dataclass(frozen=True, slots=True)
class Power:
    """Warm-up, then (1 + (t - w) / unit)^-exponent.

    The shape of Shen et al., 2024 ("Power scheduler", arXiv:2408.13359, equation 5): its base rate
    depends on no horizon. There the rate is proportional to the batch size, and time is counted in
    tokens: `Power.in_tokens`, with an `lr` of base rate times batch size.

    Args:
        exponent: Exponent of the decay, at least 0.
        warmup: Updates of the warm-up, w.
        unit: Updates after which the decay sets in, such as those of one epoch.

    Raises:
        ValueError: `exponent` or `warmup` is negative, or `unit` is not positive.

    Example:
        >>> [Power(exponent=0.5, unit=10).share(t, 100) for t in (0, 30, 80)]
        [1.0, 0.5, 0.3333333333333333]
    """

    exponent: float = 0.5
    warmup: float = 0.0
    unit: float = 1.0

    def __post_init__(self) -> None:
        unit = Number(above=0, way_out="count it in updates")
        store(self, exponent=_UPDATES, warmup=_UPDATES, unit=unit)

    @classmethod
    def in_tokens(
        cls, exponent: float, *, warmup: float, unit: float, tokens_per_update: float
    ) -> Power:
        """Return the schedule that is the same function of tokens at any batch size.

        Args:
            exponent: Exponent of the decay, 0.51 in the paper.
            warmup: Tokens of the warm-up.
            unit: Tokens after which the decay sets in.
            tokens_per_update: Batch size times tokens of an example.

        Raises:
            ValueError: `tokens_per_update` is not positive, or the schedule is not valid.

        Example:
            >>> schedule = Power.in_tokens(0.5, warmup=0, unit=1e6, tokens_per_update=1e5)
            >>> schedule.share(30, 100)
            0.5
        """
        tokens = Number(above=0, way_out="it is batch size times tokens of an example")
        tokens_per_update = tokens(tokens_per_update, "`tokens_per_update`")
        warmup, unit = _UPDATES(warmup, "`warmup`"), Number(above=0)(unit, "`unit`")
        return cls(exponent, warmup / tokens_per_update, unit / tokens_per_update)

    @property
    def follows_length(self) -> bool:
        """False: a longer run begins with the same updates."""
        return False

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` updates; `total` has no effect."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        if done < self.warmup:
            return _rise(done, self.warmup)
        return float((1.0 + (done - self.warmup) / self.unit) ** -self.exponent)


@dataclass(frozen=True, slots=True)
class Cosine:
    """Warm-up, then half a cosine down to a final share at the end of the run.

    Args:
        warmup: Share of the run for the warm-up, w / T in [0, 1].
        final: Share of the peak rate at the end, in [0, 1].

    Raises:
        ValueError: `warmup` or `final` lies outside [0, 1].

    Example:
        >>> schedule = Cosine(warmup=0.2, final=0.1)
        >>> [round(schedule.share(t, 100), 2) for t in (10, 20, 60, 100)]
        [0.5, 1.0, 0.55, 0.1]
    """

    warmup: float = 0.05
    final: float = 0.1

    def __post_init__(self) -> None:
        store(self, warmup=_SHARE, final=_SHARE)

    @property
    def follows_length(self) -> bool:
        """True: the whole curve stretches with the run."""
        return True

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` of `total` updates."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        if done < self.warmup * total:
            return _rise(done, self.warmup * total)
        return _falling(_cosine, _decayed(done / total, self.warmup), self.final)


@dataclass(frozen=True, slots=True)
class Linear:
    """Warm-up, then a straight line down to a final share at the end of the run.

    Args:
        warmup: Share of the run for the warm-up, w / T in [0, 1].
        final: Share of the peak rate at the end, in [0, 1].

    Raises:
        ValueError: `warmup` or `final` lies outside [0, 1].

    Example:
        >>> schedule = Linear(warmup=0.2, final=0.1)
        >>> [round(schedule.share(t, 100), 2) for t in (10, 20, 60, 100)]
        [0.5, 1.0, 0.55, 0.1]
    """

    warmup: float = 0.05
    final: float = 0.0

    def __post_init__(self) -> None:
        store(self, warmup=_SHARE, final=_SHARE)

    @property
    def follows_length(self) -> bool:
        """True: the whole line stretches with the run."""
        return True

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` of `total` updates."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        if done < self.warmup * total:
            return _rise(done, self.warmup * total)
        return 1.0 - (1.0 - self.final) * _decayed(done / total, self.warmup)


@dataclass(frozen=True, slots=True)
class OneCycle:
    """Linear rise from a small share to the peak, cosine down to next to nothing.

    Smith & Topin, 2018 (arXiv:1708.07120), in the form that deep-learning libraries use.

    Args:
        rise: Share of the run for the rise, in [0, 1].
        start: Share of the peak rate at the start, in [0, 1].
        final: Share of the peak rate at the end, in [0, 1].

    Raises:
        ValueError: A value lies outside [0, 1].

    Example:
        >>> schedule = OneCycle(rise=0.5, start=0.2, final=0.0)
        >>> [round(schedule.share(t, 100), 2) for t in (0, 25, 50, 75, 100)]
        [0.2, 0.6, 1.0, 0.5, 0.0]
    """

    rise: float = 0.3
    start: float = 0.04
    final: float = 4e-6

    def __post_init__(self) -> None:
        store(self, rise=_SHARE, start=_SHARE, final=_SHARE)

    @property
    def follows_length(self) -> bool:
        """True: the cycle is as long as the run."""
        return True

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` of `total` updates."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        if done < self.rise * total:
            return self.start + (1.0 - self.start) * done / (self.rise * total)
        return _falling(_cosine, _decayed(done / total, self.rise), self.final)


@dataclass(frozen=True, slots=True)
class Cyclical:
    """Triangles between a low share and a peak that may fall from cycle to cycle.

    Smith, 2017 (arXiv:1506.01186): "triangular", and with `shrink=0.5` "triangular2".

    Args:
        period: Updates of one cycle, positive.
        low: Share of the peak rate at the start and the end of a cycle, in [0, 1].
        shrink: Factor on the height of each cycle over that of the last, in [0, 1].

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> schedule = Cyclical(period=10, low=0.2, shrink=0.5)
        >>> [round(schedule.share(t, 100), 2) for t in (0, 5, 10, 15)]
        [0.2, 1.0, 0.2, 0.6]
    """

    period: float
    low: float = 0.1
    shrink: float = 1.0

    def __post_init__(self) -> None:
        period = Number(above=0, way_out="count it in updates")
        store(self, period=period, low=_SHARE, shrink=_SHARE)

    @property
    def follows_length(self) -> bool:
        """False: a longer run begins with the same updates."""
        return False

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` updates; `total` has no effect."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        cycle, inside = divmod(done / self.period, 1.0)
        height = (1.0 - abs(2.0 * inside - 1.0)) * self.shrink**cycle
        return float(self.low + (1.0 - self.low) * height)


class Cooldown(Enum):
    """How the rate falls at the end of a `WarmupStableDecay`; x is the elapsed part of it.

    Hägele et al., 2024 (arXiv:2405.18392, section 3 and appendix), Dremov et al., 2025
    (arXiv:2508.01483, figure 2).

    Example:
        >>> Cooldown("sqrt")
        <Cooldown.SQRT: 'sqrt'>
    """

    SQRT = "sqrt"  # 1 - sqrt(x)
    LINEAR = "linear"  # 1 - x
    COSINE = "cosine"  # (1 + cos(pi x)) / 2
    MIRROR_COSINE = "mirror cosine"  # 2 (1 - x) - (1 + cos(pi x)) / 2
    SQUARE = "square"  # 1 - x^2
    EXPONENTIAL = "exponential"  # 2^(-10 x) down to 0


@dataclass(frozen=True, slots=True)
class WarmupStableDecay:
    """Warm-up, the peak rate, then a cooldown over the last part of the run.

    Before the cooldown sets in, the run equals one of `Constant`, so a long run can be continued
    from its stable part, and several horizons can branch off from one: `TorchTrainer.branch`.

    Args:
        warmup: Updates of the warm-up, w.
        decay: Share of the run for the cooldown, in [0, 1]; 0 leaves it out.
        final: Share of the peak rate at the end, in [0, 1].
        shape: How the rate falls; 1 - sqrt(x) did best in Hägele et al., 2024 (arXiv:2405.18392).
        beta2: Decay of the second moment in Adam during the cooldown, in [0, 1); None keeps that of
            the optimizer. A larger one did better in Dremov et al., 2025 (arXiv:2508.01483).

    Raises:
        ValueError: `warmup` is negative, or another value lies outside its range.

    Example:
        >>> schedule = WarmupStableDecay(warmup=10, decay=0.2)
        >>> [round(schedule.share(t, 100), 2) for t in (5, 10, 80, 85, 100)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
        >>> linear = WarmupStableDecay(decay=0.2, shape=Cooldown.LINEAR)
        >>> [round(linear.share(t, 100), 2) for t in (80, 85, 100)]
        [1.0, 0.75, 0.0]
    """

    warmup: float = 0.0
    decay: float = 0.2
    final: float = 0.0
    shape: Cooldown = Cooldown.SQRT
    beta2: float | None = None

    def __post_init__(self) -> None:
        beta2 = Number(least=0, below=1, optional=True, way_out="None keeps that of the optimizer")
        store(
            self, warmup=_UPDATES, decay=_SHARE, final=_SHARE, shape=Member(Cooldown), beta2=beta2
        )

    @property
    def follows_length(self) -> bool:
        """Whether there is a cooldown, whose start depends on the length of the run."""
        return self.decay > 0

    def cools(self, done: float, total: float) -> bool:
        """Return whether the cooldown has set in after `done` of `total` updates.

        Example:
            >>> [WarmupStableDecay(decay=0.2).cools(t, 100) for t in (80, 80.5)]
            [False, True]
        """
        return done >= self.warmup and done > (1.0 - self.decay) * total

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` of `total` updates."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        if not self.cools(done, total):
            return _rise(done, self.warmup)
        start = (1.0 - self.decay) * total
        return _falling(_SHAPES[self.shape], min(1.0, (done - start) / (total - start)), self.final)


@dataclass(frozen=True, slots=True)
class Rewarmed:
    """Rise from where an earlier run ended back to the peak rate, then another schedule.

    For continued pre-training on new data: re-warming and re-decaying, Ibrahim et al., 2024
    (arXiv:2403.08763, section 4.1).

    Args:
        start: Share of the peak rate at which the earlier run ended, in [0, 1].
        rise: Updates of the rise, at least 0.
        then: Schedule of the rest of the run, without a warm-up of its own.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> schedule = Rewarmed(start=0.1, rise=10, then=Cosine(warmup=0.0, final=0.1))
        >>> [round(schedule.share(t, 110), 2) for t in (0, 5, 10, 60, 110)]
        [0.1, 0.55, 1.0, 0.55, 0.1]
    """

    start: float
    rise: float
    then: LearningRateSchedule

    def __post_init__(self) -> None:
        store(self, start=_SHARE, rise=_UPDATES, then=SCHEDULE)

    @property
    def follows_length(self) -> bool:
        """Whether the schedule of the rest does."""
        return self.then.follows_length

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` of `total` updates."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        if done < self.rise:
            return self.start + (1.0 - self.start) * done / self.rise
        return self.then.share(done - self.rise, total - self.rise)


@dataclass(frozen=True, slots=True)
class Exponential:
    """Exponential rise to the peak rate over the whole run, as in a learning-rate range test.

    Args:
        start: Share of the peak rate at the start, in (0, 1).

    Raises:
        ValueError: `start` lies outside (0, 1).

    Example:
        >>> [round(Exponential(1e-4).share(t, 100), 6) for t in (0, 50, 100)]
        [0.0001, 0.01, 1.0]
    """

    start: float

    def __post_init__(self) -> None:
        store(self, start=Number(above=0, below=1, way_out="it is low / high"))

    @property
    def follows_length(self) -> bool:
        """True: the whole curve stretches with the run."""
        return True

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` of `total` updates."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        return float(self.start ** (1.0 - min(1.0, done / total)))


def _rise(done: float, warmup: float) -> float:
    return done / warmup if done < warmup else 1.0


def _falling(shape: Callable[[float], float], x: float, final: float) -> float:
    """`final` plus the rest times what is left of a `shape` that falls from 1 to 0."""
    return final + (1.0 - final) * shape(x)


def _cosine(x: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * x))


_SHAPES: Mapping[Cooldown, Callable[[float], float]] = {
    Cooldown.SQRT: lambda x: 1.0 - math.sqrt(x),
    Cooldown.LINEAR: lambda x: 1.0 - x,
    Cooldown.COSINE: _cosine,
    Cooldown.MIRROR_COSINE: lambda x: 2.0 * (1.0 - x) - _cosine(x),
    Cooldown.SQUARE: lambda x: 1.0 - x * x,
    Cooldown.EXPONENTIAL: lambda x: (2.0 ** (-10.0 * x) - 2.0**-10) / (1.0 - 2.0**-10),
}


def _decayed(progress: float, warmup: float) -> float:
    """Return the elapsed part of what follows the warm-up, in [0, 1]; both arguments are shares."""
    return min(1.0, (progress - warmup) / (1 - warmup)) if warmup < 1 else 1.0
