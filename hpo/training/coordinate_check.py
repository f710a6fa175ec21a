"""Coordinate check: do activations change by as much in a wide model as in a narrow one?

The test of a parametrization by Yang et al., 2022 (appendix D.1): train a few updates at several
sizes and follow the typical entry of every layer's output. In a correct parametrization, both the
entries and their changes since the start keep their order of magnitude, so their log-log slopes
against size are zero. A layer that grows will diverge in a model that is large enough, and a layer
that vanishes will not learn there.

Notation
--------
x_t  output of a layer on a fixed batch after t updates, any shape
rms  root mean square over its entries
"""

from __future__ import annotations

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

from hpo.errors import printable_str
from hpo.space.arguments import Count, File, Function, Interface, Number, Row
from hpo.space.scalars import shown
from hpo.study.by_path import found_by_path
from hpo.training.devices import seeded
from hpo.training.optimizers import UPDATE_RULE, UpdateRule
from hpo.training.parametrization import (
    ParameterLayout,
    Parametrization,
    parameter_groups,
    rescale_,
)
from hpo.training.transformer import VOCABULARY, Transformer, TransformerShape, next_byte_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_HEAD_WIDTH = 16
_DEPTH = 2
_NUMBERED = re.compile(r"(.*?)\.(\d+)(\..*|$)")
_TINY = 1e-30  # a change of exactly zero has no logarithm


@dataclass(frozen=True, slots=True)
class Probe:
    """Model with new weights whose layers are followed over a few updates.

    Args:
        model: Model.
        optimizers: Optimizers of all its parameters.
        loss: Function that runs the model on one fixed batch and returns the loss, a scalar.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> sgd = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> probe = Probe(layer, [sgd], lambda: layer(torch.ones(2, 1)).mean())
        >>> probe.loss().ndim
        0
    """

    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    loss: Callable[[], Tensor]


class CoordinateVerdict(Enum):
    """Whether a layer's output keeps its order of magnitude as models grow.

    Example:
        >>> CoordinateVerdict("flat")
        <CoordinateVerdict.FLAT: 'flat'>
    """

    FLAT = "flat"
    GROWS = "grows"
    VANISHES = "vanishes"


@dataclass(frozen=True, slots=True)
class Trace:
    """Result for one layer; T is the last update.

    Args:
        layer: Name of the module.
        change: rms(x_T - x_0) at each size and seed, `(k, seeds)`.
        size: rms(x_T), `(k, seeds)`.
        slope: Estimate of d ln change / d ln size.
        interval: Its 90 % interval, from the scatter over seeds and sizes.
        size_slope: Estimate of d ln rms(x_T) / d ln size.
        size_interval: Its 90 % interval.
        verdict: Whether the layer is flat, grows or vanishes.

    Example:
        >>> ones = np.ones((3, 2))  # three sizes, two seeds
        >>> flat = CoordinateVerdict.FLAT
        >>> Trace("head", ones, ones, 0.0, (-0.1, 0.1), 0.0, (-0.1, 0.1), flat).verdict.value
        'flat'
    """

    layer: str
    change: NDArray[np.float64]
    size: NDArray[np.float64]
    slope: float
    interval: tuple[float, float]
    size_slope: float
    size_interval: tuple[float, float]
    verdict: CoordinateVerdict


@dataclass(frozen=True, slots=True)
class CoordinateCheck:
    """Result of `coordinate_check`; `str` gives a table, `plot` a figure.

    Args:
        sizes: Widths or depths, `(k,)`, ascending.
        updates: Updates that the changes are over.
        traces: Results of the layers.
        tolerance: Largest slope that counts as flat.

    Example:
        >>> def make(width, seed):  # one layer whose output moves with the square root of width
        ...     layer = nn.Linear(1, 1)
        ...     sgd = torch.optim.SGD(layer.parameters(), lr=0.01 * width**0.5)
        ...     return Probe(layer, [sgd], lambda: layer(torch.ones(2, 1)).mean())
        >>> print(str(coordinate_check(make, [4, 16, 64], updates=1)).splitlines()[-1])
        failed: 1 of 1 layers are not flat
    """

    sizes: tuple[int, ...]
    updates: int
    traces: tuple[Trace, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether all layers are flat."""
        return all(trace.verdict is CoordinateVerdict.FLAT for trace in self.traces)

    @printable_str
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
        bad = [trace for trace in self.traces if trace.verdict is not CoordinateVerdict.FLAT]
        lines.append(
            f"passed: all slopes within {self.tolerance} of zero"
            if not bad
            else f"failed: {len(bad)} of {len(self.traces)} layers are not flat"
        )
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the change of every layer against size.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure.
        """
        from hpo.drawing.plots import plot_coordinates

        path = File(optional=True)(path, "`path`")
        return plot_coordinates(
            self.sizes,
            {trace.layer: trace.change for trace in self.traces},
            path,
            slopes={trace.layer: trace.slope for trace in self.traces},
            verdicts={trace.layer: trace.verdict.value for trace in self.traces},
            updates=self.updates,
        )


def coordinate_check(
    make: Callable[[int, int], Probe],
    sizes: Sequence[int],
    *,
    updates: int = 4,
    seeds: int = 3,
    tolerance: float = 0.25,
) -> CoordinateCheck:
    """Train `make(size, seed)` for a few updates at each size and compare the layers' outputs.

    Layers are modules without children that return a tensor. Where sizes differ in depth, the last
    member of each list represents all, as "blocks.-1": early blocks of a deep model receive a
    smaller part of its residual sum.

    Args:
        make: Function of size and seed that returns a new probe; called with the global generators
            seeded with the seed.
        sizes: Widths or depths, at least three, over a factor of at least four.
        updates: Number of updates after which changes are judged.
        seeds: Number of repeats at each size, with seeds 0, 1, ...
        tolerance: Slope that separates the verdicts. A layer grows if the slope of its change, or
            of its size, exceeds it and the interval excludes zero; it vanishes if the slope of its
            change is below `-tolerance` and the interval excludes zero.

    Returns:
        Slopes and verdict of every layer.

    Raises:
        ValueError: There are too few sizes, updates or seeds.

    Example:
        >>> def make(width, seed):  # one layer whose output moves with the square root of width
        ...     layer = nn.Linear(1, 1)
        ...     sgd = torch.optim.SGD(layer.parameters(), lr=0.01 * width**0.5)
        ...     return Probe(layer, [sgd], lambda: layer(torch.ones(2, 1)).mean())
        >>> check = coordinate_check(make, [4, 16, 64], updates=1)
        >>> round(check.traces[0].slope, 3), check.passed
        (0.5, False)
    """
    make = Function("make(size, seed)")(make, "`make`")
    sizes = sorted(set(Row(Count(1), way_out="such as [64, 128, 256]")(sizes, "`sizes`")))
    updates = Count(1, most=10**6)(updates, "`updates`")
    seeds = Count(2, most=10**4)(seeds, "`seeds`")
    tolerance = Number(least=0, way_out="0.25 is usual")(tolerance, "`tolerance`")
    if len(sizes) < 3 or sizes[-1] < 4 * sizes[0]:
        raise ValueError(
            f"`sizes` must be at least three over a factor of four, got {sizes}; such as 64 .. 512"
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
        verdict = (
            CoordinateVerdict.GROWS
            if grows
            else CoordinateVerdict.VANISHES
            if vanishes
            else CoordinateVerdict.FLAT
        )
        traces.append(
            Trace(layer, change, size, slope, interval, size_slope, size_interval, verdict)
        )
    return CoordinateCheck(tuple(sizes), updates, tuple(traces), tolerance)


def transformer_probe(
    parametrization: Parametrization, rule: UpdateRule, *, along: str = "width", base: int = 64
) -> Callable[[int, int], Probe]:
    """Return the `make` of `coordinate_check` for the built-in transformer on random bytes.

    Args:
        parametrization: Parametrization to check.
        rule: Optimizer with its base rate.
        along: "width", with two blocks and heads of 16, or "depth", at a width of 64.
        base: Size for which the factors of the parametrization are one.

    Raises:
        ValueError: `along` is neither "width" nor "depth".

    Example:
        >>> from hpo.training.optimizers import AdamW
        >>> from hpo.training.parametrization import MUP
        >>> make = transformer_probe(MUP, AdamW(1e-2), base=16)
        >>> round(float(make(32, 0).loss().detach()), 4)  # ln 256, since the head starts at zero
        5.5452
    """
    if not isinstance(along, str) or along not in ("width", "depth"):
        raise ValueError(f"`along` must be 'width' or 'depth', got {shown(along)}; pick one")
    rule = UPDATE_RULE(rule, "`rule`")
    parametrization = Interface("a parametrization such as MUP", ("factors", "branch_factor"))(
        parametrization, "`parametrization`"
    )
    base = Count(1, most=2**20)(base, "`base`")
    if along == "width" and (base % _HEAD_WIDTH or base < _HEAD_WIDTH):
        raise ValueError(
            f"`base` must be a multiple of {_HEAD_WIDTH}, the width of a head, got {base}; 64 is"
            " usual"
        )

    def build(width: int, depth: int) -> Transformer:
        start = base if along == "depth" else _DEPTH
        factor = parametrization.branch_factor(depth / start) if along == "depth" else None
        shape = TransformerShape(width, depth, heads=width // _HEAD_WIDTH, hidden=4 * width)
        rng = torch.default_generator
        return Transformer(shape, context=16, branch_factor=factor, rng=rng)

    width, depth = (base, _DEPTH) if along == "width" else (64, base)
    layout = ParameterLayout.of(build(width, depth), build(2 * width, depth))
    text = torch.randint(VOCABULARY, (8, 17), generator=torch.Generator().manual_seed(0))

    def make(size: int, seed: int) -> Probe:
        model = build(size, depth) if along == "width" else build(width, size)
        rescale_(model, layout, parametrization)
        groups = parameter_groups(model, layout, parametrization, rule)
        return Probe(model, rule.build(groups), lambda: next_byte_loss(model, text))

    return make


def load_probe(path: str) -> Callable[[int, int], Probe]:
    """Return the `make` of `coordinate_check` that a path names.

    Args:
        path: Path of the function, as `package.module:function`.

    Raises:
        ValueError: There is no such function.

    Example:
        >>> load_probe("hpo.training.coordinate_check:transformer_probe").__name__
        'transformer_probe'
    """
    make = found_by_path(path, "`path` of the probe")
    if not callable(make):
        raise ValueError(f"{path} must be a function of size and seed, got {make!r}")
    found: Callable[[int, int], Probe] = make
    return found


def _follow(
    make: Callable[[int, int], Probe], size: int, seed: int, updates: int
) -> dict[str, tuple[float, float]]:
    """Return rms(x_T - x_0) and rms(x_T) of every layer."""
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
    """Return the output of every leaf module on the fixed batch; the last, if it runs twice."""
    outputs: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                outputs[name] = output.detach().float()

        return record

    leaves = [(n, m) for n, m in probe.model.named_modules() if not any(True for _ in m.children())]
    hooks = [module.register_forward_hook(recorder(name)) for name, module in leaves]
    try:
        probe.loss()
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def _last_of_lists(run: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return layers outside lists, and those of each list's last member under the number -1."""
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
    """Fit the slope of ln `values`, `(k, seeds)`, in ln size; return it with its 90 % interval."""
    from scipy.special import stdtrit

    # An overflow counts as huge, so that it shows as growth.
    logs = np.log(np.clip(np.nan_to_num(values, nan=np.inf), _TINY, 1e30))
    x = np.repeat(np.log(sizes), values.shape[1])
    y = logs.ravel()
    centered = x - x.mean()
    spread = float(centered @ centered)
    slope = float(centered @ y) / spread
    residual = y - y.mean() - slope * centered
    error = math.sqrt(float(residual @ residual) / (len(y) - 2) / spread)
    half = float(stdtrit(len(y) - 2, 0.95)) * error
    return slope, (slope - half, slope + half)


def _slope(slope: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{slope:+6.2f} ({low:+6.2f} to {high:+6.2f})"
