"""Levels of a fidelity at which runs are compared.

A geometric ladder starts from r_min, never from R: where R grows, all levels but a top off the grid
stay what they were, and so do the rungs that hold results. Everything is counted in integers; a
logarithm of a ratio loses a rung through rounding (243 / 1 with eta = 3 gives 4.9999).

Notation
--------
r_j      level of rung j, j = 0..K, strictly growing; r_0 = r_min, r_K = R
eta      integer >= 2; in a geometric ladder r_(j+1) = eta r_j, except that R may lie nearer
q_j      share of rung j that is promoted, r_j / r_(j+1): 1 / eta on the geometric grid
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from hpo.errors import SpaceError
from hpo.space import Fidelity, SearchSpace
from hpo.space.arguments import Count, Row, store

#: Rule of a reduction factor.
ETA = Count(2, way_out="3 is usual")
_MAKERS = "see Ladder.geometric and Ladder.evenly_spaced"


@dataclass(frozen=True, slots=True)
class Ladder:
    """Strictly growing levels of a fidelity, one for each rung.

    Args:
        levels: integers of at least 1, the lowest first.

    Raises:
        SpaceError: for no levels, or levels that do not grow strictly from at least 1.

    Example:
        >>> ladder = Ladder.geometric(1, 50, eta=3)
        >>> ladder.levels, ladder.top
        ((1, 3, 9, 27, 50), 4)
        >>> ladder.rung(10)
        2
    """

    levels: tuple[int, ...]

    def __post_init__(self) -> None:
        store(self, SpaceError, levels=Row(Count(None), way_out=_MAKERS))
        steps = zip((0, *self.levels), self.levels, strict=False)
        if not self.levels or not all(below < level for below, level in steps):
            raise SpaceError(
                f"`levels` must grow strictly from at least 1, got {self.levels}; {_MAKERS}"
            )

    @classmethod
    def geometric(cls, low: int, high: int, eta: int) -> Ladder:
        """Return the levels `low`, `low eta`, `low eta^2`, ... below `high`, and `high`.

        Args:
            low: integer level of the lowest rung, at least 1.
            high: integer level of the highest rung, at least `low`.
            eta: ratio of successive levels, an integer of at least 2.

        Raises:
            SpaceError: for arguments that break these rules.

        Example:
            >>> Ladder.geometric(2, 54, eta=3)
            Ladder(levels=(2, 6, 18, 54))
        """
        eta = ETA(eta, "`eta`", SpaceError)
        low, high = _levels(low, high)
        levels = [low]
        while levels[-1] * eta < high:
            levels.append(levels[-1] * eta)
        if levels[-1] < high:
            levels.append(high)
        return cls(tuple(levels))

    @classmethod
    def evenly_spaced(cls, low: int, high: int, interval: int) -> Ladder:
        """Return the levels `low`, `low + interval`, ... below `high`, and `high`.

        Args:
            low: integer level of the lowest rung, at least 1.
            high: integer level of the highest rung, at least `low`.
            interval: difference of successive levels, an integer of at least 1.

        Raises:
            SpaceError: for arguments that break these rules.

        Example:
            >>> Ladder.evenly_spaced(1, 10, interval=4)
            Ladder(levels=(1, 5, 9, 10))
        """
        interval = Count(1)(interval, "`interval`", SpaceError)
        low, high = _levels(low, high)
        return cls((*range(low, high, interval), high))

    @classmethod
    def over(cls, space: SearchSpace, eta: int, scheduler: str) -> Ladder:
        """Return the geometric ladder over the fidelity of `space`.

        Args:
            space: search space with a fidelity.
            eta: ratio of successive levels, an integer of at least 2.
            scheduler: name for the error message.

        Raises:
            SpaceError: if the space has no fidelity.

        Example:
            >>> from hpo import Fidelity, Float, SearchSpace
            >>> space = SearchSpace({"lr": Float(0.0, 1.0), "epochs": Fidelity(1, 27)})
            >>> Ladder.over(space, 3, "ASHA")
            Ladder(levels=(1, 3, 9, 27))
        """
        fidelity = fidelity_of(space, scheduler)
        return cls.geometric(fidelity.low, fidelity.high, eta)

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def low(self) -> int:
        """r_min, the lowest level."""
        return self.levels[0]

    @property
    def high(self) -> int:
        """R, the highest level."""
        return self.levels[-1]

    @property
    def top(self) -> int:
        """K, the index of the highest rung."""
        return len(self.levels) - 1

    def ends_on_grid(self, eta: int) -> bool:
        """Return whether R is r_min times a power of `eta`, so that it stays a rung if R grows.

        For a geometric ladder.

        Example:
            >>> [Ladder.geometric(1, high, eta=3).ends_on_grid(3) for high in (27, 28)]
            [True, False]
        """
        return self.top == 0 or self.levels[-1] == self.levels[-2] * eta

    def up_to(self, rung: int) -> Ladder:
        """Return the part of the ladder with `rung` at its top.

        Example:
            >>> Ladder((1, 3, 9, 27)).up_to(1)
            Ladder(levels=(1, 3))
        """
        return Ladder(self.levels[: rung + 1])

    def rung(self, level: int) -> int:
        """Return the index of the highest rung at or below `level`, -1 if there is none.

        Example:
            >>> [Ladder((2, 6, 18)).rung(level) for level in (1, 2, 17, 99)]
            [-1, 0, 1, 2]
        """
        return bisect_right(self.levels, level) - 1

    def promotion_quota(self, count: int, rung: int) -> int:
        """Return floor(q_j `count`): how many of the `count` runs in `rung` may be promoted.

        Example:
            >>> Ladder((1, 3, 9)).promotion_quota(7, rung=0)
            2
        """
        return count * self.levels[rung] // self.levels[rung + 1]

    def hyperband_size(self, bracket: int, eta: int) -> int:
        """Return n = ceil((K + 1) / (s + 1) eta^s), the configs of a bracket of Hyperband.

        The bracket starts at rung `bracket` = K - s (Li et al., JMLR 18, 2018, algorithm 1).

        Example:
            >>> ladder = Ladder.geometric(1, 81, eta=3)
            >>> [ladder.hyperband_size(bracket, eta=3) for bracket in range(len(ladder))]
            [81, 34, 15, 8, 5]
        """
        s = self.top - bracket
        share: int = eta**s
        return -(-(self.top + 1) * share // (s + 1))

    def sizes(self, bracket: int, starters: int) -> tuple[int, ...]:
        """Return the number of runs in each rung from `bracket` up.

        That is `starters` in the first, then floor(n r_b / r_j), at least 1.

        Example:
            >>> Ladder((1, 3, 9, 27)).sizes(bracket=1, starters=12)
            (12, 4, 1)
        """
        start = self.levels[bracket]
        return tuple(max(1, starters * start // level) for level in self.levels[bracket:])


def fidelity_of(space: SearchSpace, scheduler: str) -> Fidelity:
    """Return the fidelity of `space`, which `scheduler` needs.

    Raises:
        SpaceError: if the space has none.

    Example:
        >>> from hpo import Float, SearchSpace
        >>> fidelity_of(SearchSpace({"lr": Float(0.0, 1.0)}), "ASHA")
        Traceback (most recent call last):
        ...
        hpo.errors.SpaceError: ASHA needs a fidelity, and the space has none; declare the resource \
that one run consumes, such as "epochs": Fidelity(1, 81)
    """
    parameter = None if space.fidelity is None else space[space.fidelity]
    if not isinstance(parameter, Fidelity):
        raise SpaceError(
            f"{scheduler} needs a fidelity, and the space has none; declare the resource that "
            'one run consumes, such as "epochs": Fidelity(1, 81)'
        )
    return parameter


def _levels(low: int, high: int) -> tuple[int, int]:
    count = Count(None, way_out="declare the levels as Fidelity(low, high)")
    low, high = count(low, "`low`", SpaceError), count(high, "`high`", SpaceError)
    if not 1 <= low <= high:
        raise SpaceError(
            f"`1 <= low <= high` must hold for the levels, got {low}, {high}; "
            "declare them as Fidelity(low, high)"
        )
    return low, high
