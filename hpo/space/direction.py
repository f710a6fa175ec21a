"""The direction of the objective and the only place of its sign.

Inside, every loss is minimized: a maximized objective is multiplied by -1 on its way in and once
more on its way out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

from hpo.space.scalars import shown

__all__ = ["Direction", "DirectionName"]

#: What users write.
DirectionName: TypeAlias = Literal["minimize", "maximize"]


class Direction(StrEnum):
    """Whether the objective is minimized or maximized.

    `Direction("maximize")` converts the user's word, and a `Direction` stays as it is. Members are
    strings, so they compare equal to the user's word and are stored as it.

    Raises:
        ValueError: for any other word.

    Example:
        >>> Direction("maximize").sign
        -1.0
        >>> Direction.MINIMIZE == "minimize"
        True
        >>> Direction("max")
        Traceback (most recent call last):
        ...
        ValueError: `direction` must be "minimize" or "maximize", got 'max'; pick one
    """

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    @property
    def sign(self) -> float:
        """+1 to minimize, -1 to maximize: the factor that turns an objective into a loss."""
        return 1.0 if self is Direction.MINIMIZE else -1.0

    @property
    def noun(self) -> str:
        """What the objective is called: a loss if it is minimized, else a value."""
        return "loss" if self is Direction.MINIMIZE else "value"

    @classmethod
    def of_sign(cls, sign: float) -> Direction:
        """Return the direction of a sign."""
        return cls.MINIMIZE if sign > 0 else cls.MAXIMIZE

    @classmethod
    def of(cls, value: object) -> Direction:
        """Return the direction that the user named, or refuse a value of any type."""
        return cls(value) if isinstance(value, str) else cls._missing_(value)

    @classmethod
    def _missing_(cls, value: object) -> Direction:
        raise ValueError(
            f'`direction` must be "minimize" or "maximize", got {shown(value)}; pick one'
        )
