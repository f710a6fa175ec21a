"""A compute-optimal split of a budget between model size and data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Allocation:
    """How to spend one training run's compute, by the fitted law.

    Attributes:
        compute: that the run may cost, in ``unit``.
        unit: the study's cost unit, or "FLOPs (6 N D)".
        scale: best value of each scale axis. intervals: central 90 % of it.
        exponents: power of compute with which each axis grows. exponent_intervals: 90 % of it.
        loss: of the law there, at the best settings. loss_interval: 90 %, of the laws of loss and
            cost alone.
    """

    compute: float
    unit: str
    scale: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    exponents: dict[str, float]
    exponent_intervals: dict[str, tuple[float, float]]
    loss: float
    loss_interval: tuple[float, float]

    def __str__(self) -> str:
        lines = [f"Best use of {self.compute:.4g} {self.unit}, with 90 % intervals"]
        for name, value in self.scale.items():
            (low, high), (least, most) = self.intervals[name], self.exponent_intervals[name]
            lines.append(
                f"  {name} {value:.4g} ({low:.3g} to {high:.3g}),"
                f" grows as compute^{self.exponents[name]:.2f} ({least:.2f} to {most:.2f})"
            )
        low, high = self.loss_interval
        return "\n".join([*lines, f"  loss {self.loss:.5g} ({low:.5g} to {high:.5g})"])
