"""FT-PFN: in-context prediction of the ends of runs by a network pretrained on synthetic curves.

Rakotoarison, Adriaensen, Mallik, Garibov, Bergman and Hutter ("In-context freeze-thaw Bayesian
optimization for hyperparameter optimization", ICML 2024). One forward pass reads all reports of all
runs together with their configs and returns a histogram for each run asked about; nothing is
fitted. The network is the authors' (package `ifbo`), and so are its weights.

It takes values and levels in [0, 1], larger values being better, at most `RUNS` runs and `COLUMNS`
columns. Here::

    level   t / high
    value   1 - (y - floor) / (top - floor), cut at 0 and 1

`floor` lies below the best report by a tenth of the distance from it to `top`, the 90 % quantile of
the reports, so that there is room for better ones and a diverged run does not press all others
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surrogates.data import Array, IntArray
from surrogates.learning_curves import Curve

if TYPE_CHECKING:
    import torch

RUNS = 1000  # number of runs the network can tell apart
COLUMNS = 10  # number of columns of a config
_REPORTS = 1000  # in one context, as long as those it was trained on
_VERSION = "0.0.1"
_ROOM = 0.1  # below the best report, in distances from it to the top
_TOP = 0.9  # quantile of the reports at which the scale ends


@dataclass(frozen=True, slots=True)
class UnitScaling:
    """The map `1 - (y - floor) / (top - floor)` from losses to the network's values.

    Args:
        floor: loss of value 1.
        top: loss of value 0.

    Example:
        >>> scaling = UnitScaling(floor=0.0, top=2.0)
        >>> scaling.apply(np.array([0.5, 9.0])).tolist(), scaling.invert(np.array([0.75])).tolist()
        ([0.75, 0.0], [0.5])
    """

    floor: float
    top: float

    @classmethod
    def of(cls, values: Array) -> UnitScaling:
        """Return the scaling of finite values, at least one."""
        best, high = (float(v) for v in np.quantile(values, [0.0, _TOP]))
        width = high - best
        if not width > 1e-12 * max(abs(best), abs(high)):
            width = float(np.max(values)) - best or abs(best) or 1.0
        return cls(best - _ROOM * width, best + width)

    def apply(self, y: Array) -> Array:
        """Return the network's values of losses `y`, cut at 0 and 1."""
        return np.clip(1.0 - (y - self.floor) / (self.top - self.floor), 0.0, 1.0)

    def invert(self, value: Array) -> Array:
        """Return the losses of the network's values."""
        return np.asarray(self.floor + (1.0 - value) * (self.top - self.floor))


@dataclass(frozen=True, slots=True)
class HistogramDistribution:
    """Predictive distribution of one number: a histogram whose outer bars have half-normal tails.

    Args:
        logits: `1 x bars`, logits of the bars.
        bars: bars of the network, with their own distribution function.
        scaling: map from losses to the network's values.

    Example:
        >>> class Uniform:  # stands in for the network's bars
        ...     def icdf(self, logits, p):
        ...         import torch
        ...         return torch.tensor([p])
        >>> end = HistogramDistribution(None, Uniform(), UnitScaling(0.0, 2.0))
        >>> end.quantile(0.25).tolist()
        [0.5]
    """

    logits: torch.Tensor
    bars: Any
    scaling: UnitScaling

    def probability_below(self, value: float) -> Array:
        """Return P(y < value), `(1,)`."""
        import torch

        read = self.scaling.apply(np.array([value]))
        with torch.no_grad():
            above = self.bars.pi(self.logits, torch.tensor(read, dtype=torch.float32))
        return np.asarray(above, dtype=np.float64)

    def quantile(self, p: float) -> Array:
        """Return the p-quantile of y, `(1,)`.

        Raises:
            ValueError: unless 0 < p < 1.
        """
        import torch

        if not 0.0 < p < 1.0:
            raise ValueError(f"`0 < p < 1` must hold, got {p!r}; quantiles at 0 and 1 are infinite")
        with torch.no_grad():
            value = self.bars.icdf(self.logits, 1.0 - p).numpy()
        return self.scaling.invert(value.astype(np.float64))


class FTPFNetwork:
    """The network with its weights.

    Args:
        folder: folder with what `ifbo.surrogate.FTPFN(target_path=folder)` downloads: `.model/`
            with an archive and a file of weights. The file is a pickled module, so trust it only as
            far as its source.

    Raises:
        FileNotFoundError: without them; nothing is downloaded from here.
        ImportError: without the package `ifbo`.

    Example:
        Given weights in the folder "weights"::

            network = FTPFNetwork(Path("weights"))
            ends = network.predict_ends(X, curves, np.array([0, 1]), high=50)
            median = ends[0].quantile(0.5)
    """

    def __init__(self, folder: Path) -> None:
        from ifbo.download import FILENAME, WEIGHTS_FINAL_NAME
        from ifbo.surrogate import FTPFN

        for name in (FILENAME(_VERSION), WEIGHTS_FINAL_NAME(_VERSION)):
            if not (folder / ".model" / name).is_file():
                raise FileNotFoundError(
                    f"{folder / '.model' / name} is missing; where there is a network, "
                    f"`ifbo.surrogate.FTPFN(target_path={str(folder)!r})` downloads it"
                )
        self._network = FTPFN(target_path=folder, version=_VERSION)

    def predict_ends(
        self, X: Array, curves: Sequence[Curve], asked: IntArray, high: float
    ) -> list[HistogramDistribution]:
        """Return the predictive distributions of what the runs `asked` report at level `high`.

        With more than `RUNS` runs, those asked about and then the longest are read; with more than
        1,000 reports, each run at equally many levels, evenly in log level.

        Args:
            X: `n x d`, numeric columns in [0, 1] (cut there), d <= `COLUMNS`.
            curves: reports of the n runs; at least one must hold a report, none beyond `high`.
            asked: `(m,)`, indices of runs.
            high: level of a complete run.

        Raises:
            ValueError: for more columns than the network has, or without any report.
        """
        import torch

        if X.shape[1] > COLUMNS:
            raise ValueError(f"FT-PFN reads at most {COLUMNS} columns, got {X.shape[1]}")
        read_runs = [i for i in self._selected(curves, asked) if len(curves[i])]
        if not read_runs:
            raise ValueError("`curves` must hold a finite report; wait for the first one")
        read = [curves[i].thinned(max(_REPORTS // len(read_runs), 1)) for i in read_runs]
        values = np.concatenate([curve.values for curve in read])
        scaling = UnitScaling.of(values)
        places = {run: place for place, run in enumerate(read_runs, start=1)}
        lengths = [len(curve) for curve in read]
        context = _tokens(
            np.repeat(np.arange(1, len(read_runs) + 1), lengths),
            np.concatenate([curve.levels for curve in read]) / high,
            np.repeat(X[read_runs], lengths, axis=0),
        )
        # 0 marks a run without reports
        ids = np.array([places.get(int(run), 0) for run in asked])
        query = _tokens(ids, np.ones(len(asked)), X[asked])
        y = torch.tensor(scaling.apply(values), dtype=torch.float32)
        with torch.no_grad():
            logits = self._network(x_train=context, y_train=y, x_test=query)
        bars = self._network.model.criterion
        return [HistogramDistribution(row.reshape(1, -1), bars, scaling) for row in logits]

    @staticmethod
    def _selected(curves: Sequence[Curve], asked: IntArray) -> list[int]:
        if len(curves) <= RUNS:
            return list(range(len(curves)))
        first = dict.fromkeys(int(run) for run in asked)
        longest = sorted(range(len(curves)), key=lambda run: (-len(curves[run]), run))
        return list((first | dict.fromkeys(longest)).keys())[:RUNS]


def _tokens(ids: IntArray, levels: Array, X: Array) -> torch.Tensor:
    """Return what the network reads of each report: id of the run, level, config."""
    import torch

    rows = np.column_stack([ids, np.clip(levels, 0.0, 1.0), np.clip(X, 0.0, 1.0)])
    return torch.tensor(rows, dtype=torch.float32)
