"""The grid of levels: r_min, r_min eta, r_min eta^2, ... below R, and R.

It hangs on r_min, never on R: where R grows, all levels but a top off the grid stay what they were,
and so do the rungs that hold results. Everything is counted in integers; a logarithm of a ratio
loses a rung through rounding (243 / 1 with eta = 3 gives 4.9999).

Notation
--------
r_j      level of rung j, j = 0..K, strictly growing; r_K = R
eta      integer >= 2; r_(j+1) = eta r_j, except that R may lie nearer
q_j      share of rung j that goes on, r_j / r_(j+1): 1 / eta on the grid
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from hpo.errors import SpaceError
from hpo.space import Fidelity, SearchSpace


@dataclass(frozen=True, slots=True)
class Ladder:
    """The levels between `low` and `high` for the reduction factor `eta`.

    Raises `SpaceError` unless 1 <= low <= high and eta >= 2, all integers.
    """

    low: int
    high: int
    eta: int
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_eta(self.eta)
        if not 1 <= self.low <= self.high:
            raise SpaceError(
                f"`1 <= low <= high` must hold for the levels, got {self.low}, {self.high}; "
                "declare them as Fidelity(low, high)"
            )
        levels = [self.low]
        while levels[-1] * self.eta < self.high:
            levels.append(levels[-1] * self.eta)
        if levels[-1] < self.high:
            levels.append(self.high)
        object.__setattr__(self, "levels", tuple(levels))

    @classmethod
    def over(cls, space: SearchSpace, eta: int, scheduler: str) -> Ladder:
        """The ladder of a space's fidelity; SpaceError with the way out if it has none."""
        parameter = None if space.fidelity is None else space[space.fidelity]
        if not isinstance(parameter, Fidelity):
            raise SpaceError(
                f"{scheduler} needs a fidelity, and the space has none; declare the resource that "
                'one run consumes, such as "epochs": Fidelity(1, 81)'
            )
        return cls(parameter.low, parameter.high, eta)

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def top(self) -> int:
        """K, the index of the last rung."""
        return len(self.levels) - 1

    @property
    def on_grid(self) -> bool:
        """Whether R is r_min times a power of eta, so that it stays a rung when R grows."""
        return self.top == 0 or self.levels[-1] == self.levels[-2] * self.eta

    def up_to(self, rung: int) -> Ladder:
        """The part of the grid with `rung` at its top."""
        return Ladder(self.low, self.levels[rung], self.eta)

    def rung(self, level: int) -> int:
        """Index of the highest rung at or below `level`; -1 below all of them."""
        return bisect_right(self.levels, level) - 1

    def promotable(self, count: int, rung: int) -> int:
        """floor(q_j count): how many of the `count` in `rung` may go on to the next."""
        return count * self.levels[rung] // self.levels[rung + 1]

    def hyperband_size(self, bracket: int) -> int:
        """n = ceil((K + 1) / (s + 1) eta^s), the configs of the bracket that starts at rung K - s.

        Li et al. (JMLR 18, 2018), algorithm 1.
        """
        s = self.top - bracket
        share: int = self.eta**s
        return -(-(self.top + 1) * share // (s + 1))

    def sizes(self, bracket: int, starters: int) -> tuple[int, ...]:
        """Runs in each rung from `bracket` up: `starters`, then floor(n r_b / r_j), at least 1."""
        start = self.levels[bracket]
        return tuple(max(1, starters * start // level) for level in self.levels[bracket:])


def check_eta(eta: object) -> None:
    """SpaceError unless `eta` is an int of at least 2."""
    if isinstance(eta, bool) or not isinstance(eta, int) or eta < 2:
        raise SpaceError(f"`eta` must be an int of at least 2, got {eta!r}; 3 is usual")


def check_count(argument: str, value: object, least: int = 1) -> None:
    """SpaceError unless `value` is an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SpaceError(f"`{argument}` must be an int of at least {least}, got {value!r}")
