"""Learning-rate schedules: the share of the peak rate at each moment of a run.

Notation
--------
t  updates done, a real number: half an update counts, so that the middle of a step can be asked for
T  updates of the whole run
w  updates of the warm-up, over which the share rises linearly from 0 to 1

A schedule either follows the whole run (`Cosine`, `Linear`, `WarmupStableDecay`), so that t / T
matters and another length is another run; or it never looks at T (`Constant`, `Power`), and then
the first t updates of a long run are exactly a run of t updates, which is what a fidelity needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """What share of the peak learning rate to use."""

    @property
    def follows_length(self) -> bool:
        """Whether `share` depends on `total`."""
        ...

    def share(self, done: float, total: float) -> float:
        """The share in [0, 1] after `done` of `total` updates."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Warm-up over `warmup` updates, then the peak rate for ever."""

    warmup: float = 0.0

    def __post_init__(self) -> None:
        _check_at_least_zero(warmup=self.warmup)

    @property
    def follows_length(self) -> bool:
        return False

    def share(self, done: float, total: float) -> float:
        return _rise(done, self.warmup)


@dataclass(frozen=True, slots=True)
class Power:
    """Warm-up over `warmup` updates, then (1 + (t - w) / unit)^-exponent.

    The shape of Shen et al., 2024 ("Power scheduler", arXiv:2408.13359): its base rate depends on
    no horizon. `unit`: updates after which the fall sets in, such as those of one epoch.
    """

    exponent: float = 0.5
    warmup: float = 0.0
    unit: float = 1.0

    def __post_init__(self) -> None:
        _check_at_least_zero(exponent=self.exponent, warmup=self.warmup)
        if not self.unit > 0:
            raise ValueError(f"`unit` must be positive, got {self.unit}; count it in updates")

    @property
    def follows_length(self) -> bool:
        return False

    def share(self, done: float, total: float) -> float:
        if done < self.warmup:
            return _rise(done, self.warmup)
        return float((1.0 + (done - self.warmup) / self.unit) ** -self.exponent)


@dataclass(frozen=True, slots=True)
class Cosine:
    """Warm-up over a share `warmup` of the run, then half a cosine down to `final`."""

    warmup: float = 0.05
    final: float = 0.1

    def __post_init__(self) -> None:
        _check_shares(warmup=self.warmup, final=self.final)

    @property
    def follows_length(self) -> bool:
        return True

    def share(self, done: float, total: float) -> float:
        if done < self.warmup * total:
            return _rise(done, self.warmup * total)
        cosine = 0.5 * (1 + math.cos(math.pi * _decayed(done / total, self.warmup)))
        return self.final + (1 - self.final) * cosine


@dataclass(frozen=True, slots=True)
class Linear:
    """Warm-up over a share `warmup` of the run, then a straight line down to `final`."""

    warmup: float = 0.05
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_shares(warmup=self.warmup, final=self.final)

    @property
    def follows_length(self) -> bool:
        return True

    def share(self, done: float, total: float) -> float:
        if done < self.warmup * total:
            return _rise(done, self.warmup * total)
        return 1.0 - (1.0 - self.final) * _decayed(done / total, self.warmup)


@dataclass(frozen=True, slots=True)
class WarmupStableDecay:
    """Warm-up over `warmup` updates, the peak rate, then a fall over the last `decay` of the run.

    The fall is 1 - sqrt(x), which did best in Hägele et al., 2024 (arXiv:2405.18392, section 3),
    to `final`. Up to where it sets in, the run is one of `Constant`: so a long run can be continued
    from its stable part, and `decay=0` leaves out the fall altogether.
    """

    warmup: float = 0.0
    decay: float = 0.2
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_at_least_zero(warmup=self.warmup)
        _check_shares(decay=self.decay, final=self.final)

    @property
    def follows_length(self) -> bool:
        return self.decay > 0

    def share(self, done: float, total: float) -> float:
        start = (1.0 - self.decay) * total
        if done < self.warmup or done <= start:
            return _rise(done, self.warmup)
        fallen = math.sqrt(min(1.0, (done - start) / (total - start)))
        return 1.0 - (1.0 - self.final) * fallen


@dataclass(frozen=True, slots=True)
class Exponential:
    """From `start` up to 1 along an exponential over the whole run: a learning-rate range test."""

    start: float

    def __post_init__(self) -> None:
        if not 0 < self.start < 1:
            raise ValueError(f"`start` must lie in (0, 1), got {self.start}; it is low / high")

    @property
    def follows_length(self) -> bool:
        return True

    def share(self, done: float, total: float) -> float:
        return float(self.start ** (1.0 - min(1.0, done / total)))


def _rise(done: float, warmup: float) -> float:
    return done / warmup if done < warmup else 1.0


def _decayed(progress: float, warmup: float) -> float:
    """How much of what follows a warm-up of that share is over."""
    return min(1.0, (progress - warmup) / (1 - warmup)) if warmup < 1 else 1.0


def _check_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` must lie in [0, 1], a share of the run, got {value}")


def _check_at_least_zero(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"`{name}` must be at least 0, got {value}")
