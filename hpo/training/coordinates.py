"""Coordinate check: do activations move by as much in a wide model as in a narrow one?

The test of a parametrization by Yang et al., 2022 (appendix D.1): train a few updates at several
sizes and follow the typical entry of every layer's output. In a right one, both the entries and
their changes since the start stay of one order, so their slopes in log-log against size are zero.
What grows will blow up in a model large enough, what vanishes will not learn there.

Notation
--------
x_t  output of a layer on a fixed batch after t updates, any shape
rms  root mean square over its entries
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hpo.training.devices import seeded
from hpo.training.optimizers import Rule
from hpo.training.parametrization import (
    Layout,
    Parametrization,
    parameter_groups,
    rescale_,
)
from hpo.training.transformer import VOCABULARY, Shape, Transformer, next_byte_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_HEAD_WIDTH = 16
_DEPTH = 2
_NUMBERED = re.compile(r"(.*?)\.(\d+)(\..*|$)")
_TINY = 1e-30  # a change of exactly zero has no logarithm


@dataclass(frozen=True, slots=True)
class Probe:
    """A fresh model to be followed: `loss()` runs it on one fixed batch."""

    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    loss: Callable[[], Tensor]


class Verdict(Enum):
    """What becomes of a layer's output as models grow."""

    FLAT = "flat"
    GROWS = "grows"
    VANISHES = "vanishes"


@dataclass(frozen=True, slots=True)
class Trace:
    """One layer. `change[i, s]`: rms(x_T - x_0) at size i and seed s after the last update T.

    `size[i, s]`: rms(x_T). `slope`, `interval`: d ln change / d ln size, with its 90 % interval
    from the scatter over seeds and sizes. `size_slope`, `size_interval`: the same of rms(x_T).
    """

    layer: str
    change: NDArray[np.float64]
    size: NDArray[np.float64]
    slope: float
    interval: tuple[float, float]
    size_slope: float
    size_interval: tuple[float, float]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CoordinateCheck:
    """What `coordinate_check` found; `str` is a table, `plot` a picture.

    `sizes`: `(k,)`, ascending. `tolerance`: slope that still counts as flat.
    """

    sizes: tuple[int, ...]
    updates: int
    traces: tuple[Trace, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every layer is flat."""
        return all(trace.verdict is Verdict.FLAT for trace in self.traces)

    def __str__(self) -> str:
        widest = max(len(trace.layer) for trace in self.traces)
        lines = [
            f"{'layer':{widest}}  change, slope (90 %)      size, slope (90 %)        verdict",
        ]
        for trace in self.traces:
            lines.append(
                f"{trace.layer:{widest}}  {_slope(trace.slope, trace.interval)}  "
                f"{_slope(trace.size_slope, trace.size_interval)}  {trace.verdict.value}"
            )
        bad = [trace for trace in self.traces if trace.verdict is not Verdict.FLAT]
        lines.append(
            f"passed: all slopes within {self.tolerance} of zero"
            if not bad
            else f"failed: {len(bad)} of {len(self.traces)} layers are not flat"
        )
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Change of every layer against size; see `hpo.drawing.plots.plot_coordinates`."""
        from hpo.drawing.plots import plot_coordinates

        return plot_coordinates(self, path)


def coordinate_check(
    make: Callable[[int, int], Probe],
    sizes: Sequence[int],
    *,
    updates: int = 4,
    seeds: int = 3,
    tolerance: float = 0.25,
) -> CoordinateCheck:
    """Follows `make(size, seed)` for a few updates at each size.

    Args:
        make: a fresh probe; called with the global random streams seeded with `seed`.
        sizes: widths or depths, at least three, over a factor of four at least.
        updates: after which changes are judged.
        seeds: repeats at each size; 0, 1, ...
        tolerance: a layer grows where the slope of its change, or of its size, exceeds it and the
            interval excludes zero; it vanishes where the slope of its change falls below minus it.

    Layers are modules without children that put out a tensor. Where sizes differ in depth, the last
    member of each list stands for all, as "blocks.-1": early blocks of a deep model see a smaller
    part of its sum. Raises `ValueError` for too few sizes, updates or seeds.
    """
    sizes = sorted(set(sizes))
    if len(sizes) < 3 or sizes[-1] < 4 * sizes[0]:
        raise ValueError(
            f"`sizes` must be at least three over a factor of four, got {sizes}; such as 64 .. 512"
        )
    if updates < 1 or seeds < 2:
        raise ValueError(
            f"`updates` must be at least 1 and `seeds` at least 2, got {updates} and {seeds}"
        )
    found = [[_follow(make, size, seed, updates) for seed in range(seeds)] for size in sizes]
    if len({frozenset(run) for row in found for run in row}) > 1:
        found = [[_last_of_lists(run) for run in row] for row in found]
    layers = [name for name in found[0][0] if all(name in run for row in found for run in row)]
    traces = []
    for layer in layers:
        change, size = (
            np.array([[run[layer][part] for run in row] for row in found]) for part in (0, 1)
        )
        slope, interval = _fit(sizes, change)
        size_slope, size_interval = _fit(sizes, size)
        grows = (slope > tolerance and interval[0] > 0) or (
            size_slope > tolerance and size_interval[0] > 0
        )
        vanishes = slope < -tolerance and interval[1] < 0
        verdict = Verdict.GROWS if grows else Verdict.VANISHES if vanishes else Verdict.FLAT
        traces.append(
            Trace(layer, change, size, slope, interval, size_slope, size_interval, verdict)
        )
    return CoordinateCheck(tuple(sizes), updates, tuple(traces), tolerance)


def transformer_probe(
    parametrization: Parametrization, rule: Rule, *, along: str = "width", base: int = 64
) -> Callable[[int, int], Probe]:
    """`make` for the built-in transformer, on random bytes.

    `along`: "width", with two blocks and heads of 16, or "depth", at a width of 64. `base`: the
    size at which the rule's factors are one. Raises `ValueError` for anything else.
    """
    if along not in ("width", "depth"):
        raise ValueError(f"`along` must be 'width' or 'depth', got {along!r}")

    def build(width: int, depth: int) -> Transformer:
        start = base if along == "depth" else _DEPTH
        factor = parametrization.branch_factor(depth / start) if along == "depth" else None
        shape = Shape(width, depth, heads=width // _HEAD_WIDTH, hidden=4 * width)
        rng = torch.default_generator
        return Transformer(shape, context=16, branch_factor=factor, rng=rng)

    width, depth = (base, _DEPTH) if along == "width" else (64, base)
    layout = Layout.of(build(width, depth), build(2 * width, depth))
    text = torch.randint(VOCABULARY, (8, 17), generator=torch.Generator().manual_seed(0))

    def make(size: int, seed: int) -> Probe:
        model = build(size, depth) if along == "width" else build(width, size)
        rescale_(model, layout, parametrization)
        groups = parameter_groups(model, layout, parametrization, rule)
        return Probe(model, rule.build(groups), lambda: next_byte_loss(model, text))

    return make


def load_probe(path: str) -> Callable[[int, int], Probe]:
    """`make` by its place, `package.module:function`. Raises `ValueError` where there is none."""
    module, _, name = path.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"the probe must be named as package.module:function, got {path!r}: {error}"
        ) from None
    if not callable(make):
        raise ValueError(f"{path} must be a function of size and seed, got {make!r}")
    found: Callable[[int, int], Probe] = make
    return found


def _follow(
    make: Callable[[int, int], Probe], size: int, seed: int, updates: int
) -> dict[str, tuple[float, float]]:
    """rms(x_T - x_0) and rms(x_T) of every layer."""
    with seeded(seed, torch.device("cpu")):
        probe = make(size, seed)
        before = _outputs(probe)
        for _ in range(updates):
            for optimizer in probe.optimizers:
                optimizer.zero_grad(set_to_none=True)
            probe.loss().backward()  # type: ignore[no-untyped-call]  # unannotated in torch
            for optimizer in probe.optimizers:
                optimizer.step()
        after = _outputs(probe)
    return {name: (_rms(x - before[name]), _rms(x)) for name, x in after.items()}


@torch.no_grad()
def _outputs(probe: Probe) -> dict[str, Tensor]:
    """What every leaf module puts out on the fixed batch; the last time, if it runs twice."""
    outputs: dict[str, Tensor] = {}

    def noting(name: str) -> Callable[[nn.Module, object, object], None]:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                outputs[name] = output.detach().float()

        return note

    leaves = [(n, m) for n, m in probe.model.named_modules() if not any(True for _ in m.children())]
    hooks = [module.register_forward_hook(noting(name)) for name, module in leaves]
    try:
        probe.loss()
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _last_of_lists(run: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Layers outside lists, and those of the last member of each list under the number -1."""
    last: dict[str, int] = {}
    for name in run:
        if found := _NUMBERED.match(name):
            last[found[1]] = max(last.get(found[1], 0), int(found[2]))
    kept = {}
    for name, figures in run.items():
        found = _NUMBERED.match(name)
        if found is None:
            kept[name] = figures
        elif int(found[2]) == last[found[1]]:
            kept[f"{found[1]}.-1{found[3]}"] = figures
    return kept


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def _fit(sizes: Sequence[int], values: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    """Least-squares slope of ln `values`, `(k, seeds)`, in ln size, and its 90 % interval."""
    from scipy.special import stdtrit

    # An overflow counts as huge, so that it shows as growth.
    logs = np.log(np.clip(np.nan_to_num(values, nan=np.inf), _TINY, 1e30))
    x = np.repeat(np.log(sizes), values.shape[1])
    y = logs.ravel()
    centerd = x - x.mean()
    spread = float(centerd @ centerd)
    slope = float(centerd @ y) / spread
    residual = y - y.mean() - slope * centerd
    error = math.sqrt(float(residual @ residual) / (len(y) - 2) / spread)
    half = float(stdtrit(len(y) - 2, 0.95)) * error
    return slope, (slope - half, slope + half)


def _slope(slope: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{slope:+6.2f} ({low:+6.2f} to {high:+6.2f})"
