"""Learning-rate range test (Smith, 2017, arXiv:1506.01186)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpo.training.schedules import Exponential

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpo.training.training_run import TrainingRun

_SMOOTHING = 0.9  # weight of the earlier losses in the moving average
_DIVERGENCE = 3.0  # the test ends once the loss exceeds this many times the first


@dataclass(frozen=True, slots=True)
class RangeTest:
    """Loss against a learning rate that grows from update to update.

    Args:
        rate: Peak rate of the settings, so that `share * rate` is a learning rate.
        share: Factors on the peak rates of the settings, `(n,)`, ascending.
        loss: Smoothed training loss at each of them, `(n,)`.

    Example:
        >>> shares, losses = np.array([0.1, 1.0, 10.0, 100.0]), np.array([4.0, 3.0, 1.0, 2.0])
        >>> test = RangeTest(1e-3, shares, losses)
        >>> test.halfway, test.lowest
        (0.01, 0.01)
        >>> low, high = test.box
        >>> f"{low:.1e} {high:.1e}"
        '3.3e-04 3.0e-02'
    """

    rate: float
    share: NDArray[np.float64]
    loss: NDArray[np.float64]

    @property
    def halfway(self) -> float:
        """The rate at which the loss had fallen halfway to its lowest value."""
        middle = 0.5 * (self.loss[0] + self.loss[self._lowest])
        return float(self.rate * self.share[int(np.argmax(self.loss <= middle))])

    @property
    def lowest(self) -> float:
        """The rate at which the loss was lowest; at higher ones training soon diverges."""
        return float(self.rate * self.share[self._lowest])

    @property
    def box(self) -> tuple[float, float]:
        """The search interval: from a thirtieth of `halfway` to three times `lowest`.

        A rate that is good for a few hundred updates is about the largest that is good for many.
        """
        return self.halfway / 30, 3 * self.lowest

    @property
    def _lowest(self) -> int:
        return max(1, int(np.argmin(self.loss)))


def range_test(run: TrainingRun, lowest: float, highest: float, updates: int) -> RangeTest:
    """Train `run` with a rate that grows from update to update; see `TorchTrainer.range_test`.

    Args:
        run: New training run; it is used up.
        lowest: First factor on the peak rates.
        highest: Last factor on the peak rates.
        updates: Updates from the first to the last; at most all of the run's, over which the rate
            then grows faster.

    Warns:
        UserWarning: The loss was lowest at an end of the range, so that `box` says little.

    Raises:
        ValueError: Fewer than 3 updates were done, since training diverged or `run` is too short.
    """
    rise = Exponential(lowest / highest)
    updates = min(updates, run.settings.updates)
    shares, losses = [], list[float]()
    smooth = 0.0
    for i in range(updates):
        share = highest * rise.share(i, max(updates - 1, 1))
        smooth = _SMOOTHING * smooth + (1 - _SMOOTHING) * float(run.update(share))
        unbiased = smooth / (1 - _SMOOTHING ** (i + 1))
        if not math.isfinite(unbiased) or (losses and unbiased > _DIVERGENCE * abs(losses[0])):
            break
        shares.append(share)
        losses.append(unbiased)
    if len(losses) < 3:
        raise ValueError(
            f"training must survive at least 3 updates, got {len(losses)}; lower `lowest` or "
            "train on more examples"
        )
    test = RangeTest(run.peak_lr, np.array(shares), np.array(losses))
    _warn_of_ends(test, whole=len(losses) == updates)
    return test


def _warn_of_ends(test: RangeTest, *, whole: bool) -> None:
    """Warn if the loss was lowest at an end; `whole` if the rate came to its highest."""
    lowest = int(np.argmin(test.loss))
    rates = test.rate * test.share
    if whole and lowest == len(rates) - 1:
        text = f"at the last rate, {rates[-1]:.2g}, and may fall further; raise `highest`"
    elif lowest == 0:
        text = f"at the first rate, {rates[0]:.2g}, and rose from there; reduce `lowest`"
    else:
        return
    warnings.warn(f"the loss of the range test was lowest {text}", stacklevel=2)
