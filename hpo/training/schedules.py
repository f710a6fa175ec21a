"""Learning-rate schedules: the share of the peak rate at each moment of a run.

Notation
--------
t  updates done, a real number: t = 0.5 is the middle of the first update
T  updates of the whole run
w  updates of the warm-up, over which the share rises linearly from 0 to 1

A schedule either follows the whole run (`Cosine`, `Linear`, `WarmupStableDecay`): its share depends
on t / T, and a run of another length is another run from its first update on. Or it never looks at
T (`Constant`, `Power`): the first t updates of a long run are exactly a run of t updates, which is
what a fidelity needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from hpo.space.arguments import Number, store

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

    The shape of Shen et al., 2024 ("Power scheduler", arXiv:2408.13359): its base rate depends on
    no horizon.

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
        cosine = 0.5 * (1 + math.cos(math.pi * _decayed(done / total, self.warmup)))
        return self.final + (1 - self.final) * cosine


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
class WarmupStableDecay:
    """Warm-up, the peak rate, then a decay over the last part of the run.

    The decay is 1 - sqrt(x), which did best in Hägele et al., 2024 (arXiv:2405.18392, section 3).
    Before it sets in, the run equals one of `Constant`, so a long run can be continued from its
    stable part.

    Args:
        warmup: Updates of the warm-up, w.
        decay: Share of the run for the decay, in [0, 1]; 0 leaves it out.
        final: Share of the peak rate at the end, in [0, 1].

    Raises:
        ValueError: `warmup` is negative, or `decay` or `final` lies outside [0, 1].

    Example:
        >>> schedule = WarmupStableDecay(warmup=10, decay=0.2)
        >>> [round(schedule.share(t, 100), 2) for t in (5, 10, 80, 85, 100)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """

    warmup: float = 0.0
    decay: float = 0.2
    final: float = 0.0

    def __post_init__(self) -> None:
        store(self, warmup=_UPDATES, decay=_SHARE, final=_SHARE)

    @property
    def follows_length(self) -> bool:
        """Whether there is a decay, whose start depends on the length of the run."""
        return self.decay > 0

    def share(self, done: float, total: float) -> float:
        """Return the share in [0, 1] after `done` of `total` updates."""
        done, total = _DONE(done, "`done`"), _TOTAL(total, "`total`")
        start = (1.0 - self.decay) * total
        if done < self.warmup or done <= start:
            return _rise(done, self.warmup)
        fallen = math.sqrt(min(1.0, (done - start) / (total - start)))
        return 1.0 - (1.0 - self.final) * fallen


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


def _decayed(progress: float, warmup: float) -> float:
    """Return the elapsed part of what follows the warm-up, in [0, 1]; both arguments are shares."""
    return min(1.0, (progress - warmup) / (1 - warmup)) if warmup < 1 else 1.0
