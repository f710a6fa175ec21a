"""FT-PFN says which runs go on: a forecaster for `FreezeThaw`, where its weights are at hand.

    from hpo.adapters.ftpfn import FTPFN

    optimize(train, space, scheduler=FreezeThaw(forecaster=FTPFN("~/ftpfn")), ...)

The network and the paper are named in :mod:`surrogates.interop.ftpfn`. The weights are not part of the
package `ifbo`, which downloads them when it is told a folder:

    pip install 'scaletune[ftpfn]'
    python -c "from ifbo.surrogate import FTPFN; FTPFN(target_path='$HOME/ftpfn')"

It says only which run goes on; new configs are the engine's to propose, as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hpo.errors import SpaceError
from hpo.models.curve_forecast import CurveForecast
from hpo.schedulers.base import Forecast, Setup
from hpo.schedulers.run_history import Run
from hpo.space.encoding import Encoder
from surrogates.data import Array
from surrogates.interop.ftpfn import COLUMNS, FTPFNetwork, HistogramDistribution
from surrogates.learning_curves import Curve

__all__ = ["FTPFN"]


@dataclass(frozen=True, slots=True)
class FTPFN:
    """The network of Rakotoarison et al. (2024) as a forecaster.

    Args:
        weights: folder that holds them. The file is a pickled module: whoever made it can run code
            here, so take it from its authors only.
    """

    weights: str | Path = field(repr=False)  # where they lie does not change what a study does

    def begin(self, setup: Setup) -> Forecast:
        """The forecast for one study.

        Raises:
            SpaceError: for a space with more than 10 columns beside the fidelity, or without one.
            FileNotFoundError: if the weights are not there.
            ImportError: without the extra `ftpfn`.
        """
        encoder = Encoder(setup.space, "minimize" if setup.sign > 0 else "maximize")
        columns = len(encoder.columns.kinds) - len(encoder.columns.fidelity)
        if columns > COLUMNS:
            raise SpaceError(
                f"FT-PFN reads at most {COLUMNS} columns, this space has {columns}; leave out "
                "parameters or let the engine forecast (`forecaster=None`)"
            )
        return FTPFNForecast(encoder, _network(Path(self.weights).expanduser()))


class FTPFNForecast(CurveForecast):
    """Ends foreseen by the network; see `Forecast`."""

    def __init__(self, encoder: Encoder, network: FTPFNetwork) -> None:
        super().__init__(encoder)
        self._network = network

    def ends(
        self, runs: Sequence[Run], curves: Sequence[Curve], asked: Sequence[int]
    ) -> list[HistogramDistribution]:
        """See `CurveForecast`."""
        X = self._columns([run.config for run in runs])
        return self._network.predict_ends(X, curves, np.array(asked), self.high)

    def _columns(self, configs: Sequence[Mapping[str, Any]]) -> Array:
        """Configs as the network reads them: in [0, 1], categories in equal steps, no fidelity."""
        columns = self.encoder.columns
        X = self.encoder.encode(configs)
        X[:, columns.categorical] /= np.maximum(
            np.array(columns.categories)[columns.categorical] - 1, 1
        )
        return np.delete(X, columns.fidelity, axis=1)


@cache
def _network(folder: Path) -> FTPFNetwork:
    return FTPFNetwork(folder)
