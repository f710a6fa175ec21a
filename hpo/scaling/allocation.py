"""A compute-optimal split of a budget between model size and data."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.trials.printing import Part, Printed


@dataclass(frozen=True, slots=True)
class Allocation(Printed):
    """How to spend one training run's compute, by the fitted laws.

    Attributes:
        compute: cost of the run, in `unit`.
        unit: cost unit of the study, or "FLOPs (6 N D)".
        scale: best value of each scale axis.
        intervals: central 90 % interval of each best value.
        exponents: power of compute with which each axis grows.
        exponent_intervals: central 90 % interval of each power.
        loss: loss of the law there at the best settings, in the user's direction.
        loss_interval: central 90 % interval of one run there: the uncertainty of both laws, the
            law's error beyond the runs, and noise.

    Example:
        >>> best = Allocation(
        ...     compute=1e18,
        ...     unit="FLOPs (6 N D)",
        ...     scale={"params": 9e7, "tokens": 1.85e9},
        ...     intervals={"params": (4e7, 2e8), "tokens": (8e8, 4e9)},
        ...     exponents={"params": 0.5, "tokens": 0.5},
        ...     exponent_intervals={"params": (0.4, 0.6), "tokens": (0.4, 0.6)},
        ...     loss=3.1,
        ...     loss_interval=(3.0, 3.2),
        ... )
        >>> print(best)
        Best use of 1e+18 FLOPs (6 N D), with 90 % intervals
          params 9e+07 (4e+07 to 2e+08), grows as compute^0.50 (0.40 to 0.60)
          tokens 1.85e+09 (8e+08 to 4e+09), grows as compute^0.50 (0.40 to 0.60)
          loss 3.1 (3 to 3.2)
    """

    compute: float
    unit: str
    scale: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    exponents: dict[str, float]
    exponent_intervals: dict[str, tuple[float, float]]
    loss: float
    loss_interval: tuple[float, float]

    def parts(self) -> list[Part]:
        """Return what is printed."""
        lines: list[Part] = [f"Best use of {self.compute:.4g} {self.unit}, with 90 % intervals"]
        for name, value in self.scale.items():
            (low, high), (least, most) = self.intervals[name], self.exponent_intervals[name]
            lines.append(
                f"  {name} {value:.4g} ({low:.3g} to {high:.3g}),"
                f" grows as compute^{self.exponents[name]:.2f} ({least:.2f} to {most:.2f})"
            )
        low, high = self.loss_interval
        return [*lines, f"  loss {self.loss:.5g} ({low:.5g} to {high:.5g})"]
