"""Hold out the largest runs, predict them from the smaller ones, and compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.optimizer.ask_tell import Optimizer
from hpo.optimizer.result import Result
from hpo.trials import Observation, Status

__all__ = ["HeldOut", "HoldoutCheck", "hold_out"]

_SHARE = 3  # of the sizes one in so many, the largest, is held out
_MOST_SIZES = 5
_CROWD = 3  # runs of a size from which the best of them is compared with the recommendation
_MOST_RUNS = 200


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One size whose runs were held out.

    Attributes:
        size: Value of every scale axis.
        runs: Number of completed runs there.
        recommended: Settings recommended from the smaller runs.
        best: Settings of its best run; None with fewer than three runs.
        predicted: Loss predicted for the recommended settings.
        interval: Its central 90 % interval.
        observed: Loss of its best run.
    """

    size: Mapping[str, float]
    runs: int
    recommended: Mapping[str, Any]
    best: Mapping[str, Any] | None
    predicted: float
    interval: tuple[float, float]
    observed: float


@dataclass(frozen=True, slots=True)
class HoldoutCheck:
    """Prediction of the largest runs from the others.

    Attributes:
        known: Number of completed runs that were learned from.
        sizes: Sizes held out, the smallest first.
        compared: Number of held-out runs that were predicted one by one.
        inside: How many of them lay in their 90 % intervals.
        error: Median of |predicted - observed| loss over those runs.
    """

    known: int
    sizes: tuple[HeldOut, ...]
    compared: int
    inside: int
    error: float

    def __str__(self) -> str:
        held = sum(size.runs for size in self.sizes)
        lines = [
            f"Held out: {held} runs at the {len(self.sizes)} largest sizes shown, predicted from"
            f" {self.known} smaller runs"
        ]
        names = [*self.sizes[0].recommended]
        header = ["size", *(f"{name} (best run)" for name in names), "loss predicted", "best run"]
        table = [header]
        for found in self.sizes:
            low, high = found.interval
            row = [", ".join(f"{axis} {value:.3g}" for axis, value in found.size.items())]
            for name in names:
                best = "" if found.best is None else f" ({_short(found.best.get(name))})"
                row.append(f"{_short(found.recommended[name])}{best}")
            row += [f"{found.predicted:.4g} ({low:.4g} to {high:.4g})", f"{found.observed:.4g}"]
            table.append(row)
        widths = [max(len(row[j]) for row in table) for j in range(len(header))]
        lines += [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        lines.append(
            f"{self.inside} of {self.compared} held-out runs in their 90 % intervals; median error"
            f" of the loss {self.error:.3g}"
        )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values."""
        sizes = [
            {
                "size": found.size,
                "runs": found.runs,
                "recommended": found.recommended,
                "best_run": found.best,
                "loss": found.predicted,
                "loss_interval": found.interval,
                "best_loss": found.observed,
            }
            for found in self.sizes
        ]
        return {
            "known_runs": self.known,
            "sizes": sizes,
            "compared": self.compared,
            "inside": self.inside,
            "median_error": self.error,
        }


def hold_out(result: Result) -> HoldoutCheck:
    """Return how well the runs at the largest sizes are predicted from the others.

    A third of the sizes is held out, the largest by their product.

    Args:
        result: Result of runs of at least three sizes.

    Raises:
        ValueError: If there are fewer sizes.

    Example:
        >>> from hpo import Axis, Float, Scale
        >>> params = Scale(1e5, 1e8, axis=Axis.PARAMS)
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "params": params})
        >>> for n in (1e5, 1e6, 1e7, 1e8):
        ...     for lr in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        ...         distance = math.log(lr / 3e-3) + 0.2 * math.log(n / 1e6)
        ...         loss = 1.5 + 20 * n**-0.3 + 0.05 * distance**2
        ...         _ = optimizer.tell({"lr": lr, "params": n}, loss=loss)
        >>> check = hold_out(optimizer.result())
        >>> check.known, [found.size for found in check.sizes], check.compared
        (15, [{'params': 100000000.0}], 5)
    """
    axes = result.space.scales
    groups: dict[tuple[float, ...], list[Observation]] = {}
    for o in result.log.observations:
        if o.status is Status.COMPLETED:
            groups.setdefault(tuple(float(o.config[axis]) for axis in axes), []).append(o)
    sizes = sorted(groups, key=lambda size: sum(map(math.log, size)))
    if len(sizes) < 3 or not axes:
        raise ValueError(
            f"--holdout needs runs of at least three sizes, got {len(sizes) if axes else 0}; leave"
            " it out"
        )
    held = sizes[len(sizes) - max(1, len(sizes) // _SHARE) :]
    hidden = {o.number for size in held for o in groups[size]}
    known = [
        o
        for o in result.log.observations
        if o.number not in hidden and tuple(float(o.config[axis]) for axis in axes) not in held
    ]
    engine = Optimizer(
        result.space, direction=result.models.encoder.direction, cost=result.cost_unit
    )
    engine.tell_many(known)
    smaller = engine.result()
    chosen = [
        held[i] for i in np.unique(np.linspace(0, len(held) - 1, _MOST_SIZES).round()).astype(int)
    ]
    sign = result.models.encoder.loss_sign
    found = []
    for size in chosen:
        at = dict(zip(axes, size, strict=True))
        advice = smaller.recommend(at)
        best = min(groups[size], key=lambda o: sign * _loss(o))
        settings = [n for n in advice.config if n not in axes]
        found.append(
            HeldOut(
                size=at,
                runs=len(groups[size]),
                recommended={name: advice.config[name] for name in settings},
                best=None if len(groups[size]) < _CROWD else best.config,
                predicted=advice.loss,
                interval=advice.loss_interval,
                observed=_loss(best),
            )
        )
    runs = [o for size in held for o in groups[size]]
    runs = [
        runs[i] for i in np.unique(np.linspace(0, len(runs) - 1, _MOST_RUNS).round()).astype(int)
    ]
    errors, inside = [], 0
    for o in runs:
        prediction = smaller.predict(config=o.config)
        assert prediction.loss is not None and prediction.loss_interval is not None
        low, high = prediction.loss_interval
        inside += low <= _loss(o) <= high
        errors.append(abs(prediction.loss - _loss(o)))
    completed = sum(o.status is Status.COMPLETED for o in known)
    return HoldoutCheck(completed, tuple(found), len(runs), inside, float(np.median(errors)))


def _loss(o: Observation) -> float:
    assert o.loss is not None  # it was completed
    return o.loss


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
