"""FT-PFN as the forecaster of `FreezeThaw`: a trained network predicts how learning curves end.

    from hpo.adapters.ftpfn import FTPFN

    optimize(train, space, scheduler=FreezeThaw(forecaster=FTPFN("~/ftpfn")), ...)

It only decides which paused run resumes; new configs still come from the engine. The network and
its paper are named in :mod:`surrogates.interop.ftpfn`. The weights are not part of the package `ifbo`,
which downloads them into a folder:

    pip install 'scaletune[ftpfn]'
    python -c "from ifbo.surrogate import FTPFN; FTPFN(target_path='$HOME/ftpfn')"
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

__all__ = ["FTPFN", "FTPFNForecast"]


@dataclass(frozen=True, slots=True)
class FTPFN:
    """The network of Rakotoarison et al. (2024) as a forecaster.

    Args:
        weights: Folder that holds the weights. The file is a pickled module: loading it runs code
            of whoever made it, so take it from its authors only.

    Example:
        Needs the extra `ftpfn` and the weights::

            scheduler = FreezeThaw(forecaster=FTPFN("~/ftpfn"))
            optimize(train, space, scheduler=scheduler, budget=Budget(cost=500), cost="epochs")
    """

    weights: str | Path = field(repr=False)  # the folder's name does not change a study

    def begin(self, setup: Setup) -> Forecast:
        """Return the forecast for one study.

        Args:
            setup: Search space and direction of the study.

        Raises:
            SpaceError: For a space without a fidelity, or with more than 10 columns beside it.
            FileNotFoundError: If the weights are not in the folder.
            ImportError: Without the extra `ftpfn`.
        """
        encoder = Encoder(setup.space, setup.direction)
        columns = len(encoder.columns.kinds) - len(encoder.columns.fidelity)
        if columns > COLUMNS:
            raise SpaceError(
                f"FT-PFN reads at most {COLUMNS} columns, this space has {columns}; leave out "
                "parameters, or use the engine's own forecast (`forecaster=None`)"
            )
        return FTPFNForecast(encoder, _network(Path(self.weights).expanduser()))


class FTPFNForecast(CurveForecast):
    """Final losses predicted by the network; a :class:`~hpo.schedulers.Forecast`.

    Args:
        encoder: Encoder of the study's space.
        network: Loaded network.
    """

    def __init__(self, encoder: Encoder, network: FTPFNetwork) -> None:
        super().__init__(encoder)
        self._network = network

    def ends(
        self, runs: Sequence[Run], curves: Sequence[Curve], asked: Sequence[int]
    ) -> list[HistogramDistribution]:
        """Return the predicted end of each run in `asked`; see `CurveForecast.ends`."""
        X = self.columns([run.config for run in runs])
        return self._network.predict_ends(X, curves, np.array(asked), self.high)

    def columns(self, configs: Sequence[Mapping[str, Any]]) -> Array:
        """Return configs as the network reads them, `n x d` in [0, 1].

        Categories are in equal steps, and the fidelity is left out.
        """
        columns = self.encoder.columns
        X = self.encoder.encode(configs)
        X[:, columns.categorical] /= np.maximum(
            np.array(columns.categories)[columns.categorical] - 1, 1
        )
        return np.delete(X, columns.fidelity, axis=1)


@cache
def _network(folder: Path) -> FTPFNetwork:
    return FTPFNetwork(folder)
