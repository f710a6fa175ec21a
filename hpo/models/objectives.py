"""Models of several objectives and of constrained values, one Gaussian process each.

Rows are ends of stages: of completed runs, and of runs that paused, at the level they had reached.
The first objective of runs that may pause is modeled from their reports as well
(:class:`hpo.models.dataset.PartialRuns`); what only completed runs tell of the others is read at
the level it was told.

Notation: `Y` objectives, smaller is better; `G` constrained values as excess over their limit, so
that `g <= 0` keeps it. With a limit c > 0 the excess is ln(value / c): sizes and times span orders
of magnitude.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hpo.models.refits import RefitChain
from hpo.space import Fidelity
from hpo.space.encoding import Encoder
from hpo.trials import Observation, RungAssignment, Status, Trial, TrialLog
from hpo.trials.pareto import Constraint, Objectives
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.transforms import Transform, location_scale

__all__ = ["ObjectiveModels"]

_LEAST_SHARE = 1e-3  # of a limit: values below it are as far from it as that


class ObjectiveModels:
    """Processes of the objectives and constraints of one log, each fitted when it is first used.

    Args:
        encoder: Encoder of the rows.
        objectives: What is wanted.

    Attributes:
        objectives: What is wanted.
        X: `n x d`, ends of stages with all values.
        Y: `n x k`, objectives.
        G: `n x m`, excess over the limits.
        ended: `(n,)`, whether a row is that of a completed run.

    Example:
        >>> from hpo.space import Float, SearchSpace
        >>> wanted = Objectives.of({"loss": "minimize", "speed": "maximize"}, {"size": ("<=", 10)})
        >>> space, log = SearchSpace({"x": Float(0, 1)}), TrialLog()
        >>> models = ObjectiveModels(Encoder(space), wanted)
        >>> for n, x in enumerate((0.2, 0.8)):
        ...     _ = log.tell(Observation(
        ...         n, {"x": x}, x, None, Status.COMPLETED, None, n, ask_index=None,
        ...         metrics={"speed": 2 * x, "size": 10.0},
        ...     ))
        >>> models.sync(log)
        >>> models.Y.tolist(), models.G.tolist()
        ([[0.2, -0.4], [0.8, -1.6]], [[0.0], [0.0]])
    """

    def __init__(self, encoder: Encoder, objectives: Objectives) -> None:
        self.objectives = objectives
        self._encoder = encoder
        columns, width = encoder.columns, len(encoder.lower)
        self._fidelity = encoder.space.fidelity
        self._read = 0
        self._levels: dict[int, int] = {}  # by trial, the level up to which it trains now
        self.X = np.zeros((0, width))
        self.Y = np.zeros((0, len(objectives.directions)))
        self.G = np.zeros((0, len(objectives.constraints)))
        self.ended: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._values = {
            transform: [
                RefitChain(GaussianProcess(), columns, transform) for _ in objectives.directions
            ]
            for transform in Transform
        }
        self._limits = [
            RefitChain(GaussianProcess(), columns, Transform.RAW) for _ in objectives.constraints
        ]

    @property
    def fallbacks(self) -> int:
        """Number of times that a process could not be built and an earlier fit of it was used."""
        chains = [*self._limits, *(chain for chains in self._values.values() for chain in chains)]
        return sum(chain.fallbacks for chain in chains)

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Whether each row keeps every limit, `(n,)`."""
        return np.asarray(np.all(self.G <= 0.0, axis=1))

    def sync(self, log: TrialLog) -> None:
        """Add what was told since the last call.

        Args:
            log: Log of the study.
        """
        for event in log.events(self._read):
            self._read += 1
            match event:
                case Trial(assignment=RungAssignment(level)):
                    self._levels[event.number] = level
                case Observation() if event.status in (Status.COMPLETED, Status.PAUSED):
                    self._told(event)

    def _told(self, observation: Observation) -> None:
        values = self.objectives.values(observation)
        if values is None:
            return
        config, ended = observation.config, observation.status is Status.COMPLETED
        if self._fidelity is not None:
            fidelity = self._encoder.space[self._fidelity]
            assert isinstance(fidelity, Fidelity)
            level = self._levels.get(observation.number, config[self._fidelity])
            config = {**config, self._fidelity: min(level, fidelity.high)}
        limits = self.objectives.constraints.items()
        excess = [_excess(limit, values[name]) for name, limit in limits]
        self.X = np.concatenate([self.X, self._encoder.encode([config])])
        self.Y = np.concatenate([self.Y, [self.objectives.losses(values)]])
        self.G = np.concatenate([self.G, np.reshape(excess, (1, -1))])
        self.ended = np.append(self.ended, ended)

    def values(self, transform: Transform) -> list[GPPredictor]:
        """Return one process for each objective, on its transformed values.

        Args:
            transform: Output transform.

        Raises:
            NumericalError: If a process cannot be built.
        """
        chains = self._values[transform]
        return [chain.at(self.X, y) for chain, y in zip(chains, self.Y.T, strict=True)]

    def limits(self) -> list[tuple[GPPredictor, float]]:
        """Return one process for each constraint, and the value that must not be exceeded.

        Raises:
            NumericalError: If a process cannot be built.
        """
        found = []
        for chain, g in zip(self._limits, self.G.T, strict=True):
            location, scale = location_scale(g)
            found.append((chain.at(self.X, g), -location / scale))
        return found


def _excess(constraint: Constraint, value: float) -> float:
    sign = 1.0 if constraint.side == "<=" else -1.0
    if constraint.limit <= 0.0:
        return sign * (value - constraint.limit)
    return sign * math.log(max(value / constraint.limit, _LEAST_SHARE))
