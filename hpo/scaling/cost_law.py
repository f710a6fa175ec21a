"""Law of what a run costs, in FLOPs or seconds, in its scales and settings.

Notation as in `surrogates.cost`. For one run with scales s_a (ln N, ln D, ..) and settings z_j in
natural units (ln batch, ln width, ..)::

    ln C = k + sum_a c_a s_a + sum_j w_j z_j + offsets + f + e

c are the exponents of cost. Their prior is 1 +- 0.3: 6 N D has both at 1, and seconds fall short of
it where small models leave the machine idle. w are elasticities: the effect on the time at one size
of a setting that changes the shape of the computation, such as the batch or the depth. f is what
the straight line misses near the runs, so it counts in a prediction and not in the coefficients.
All are natural logarithms: c = 0.8 means that ten times the parameters cost 10^0.8 as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.errors import UnknownNameError, printable_str
from hpo.scaling.coefficient_table import Coefficient, as_frame, as_grid, as_text
from hpo.space.arguments import OneOf
from hpo.space.encoding import Encoder
from hpo.trials import Observation, Status
from hpo.trials.printing import as_html
from hpo.trials.records import SECONDS
from surrogates.basis_gp import BasisKernel
from surrogates.cost import CostModel, CostPredictor, LinearBasis, LinearMean
from surrogates.data import Array, TrainingData
from surrogates.gp import representative
from surrogates.numerics import bounded_exp, normal_half_width, single_threaded
from surrogates.scaling_law.coefficients import Estimate

if TYPE_CHECKING:
    import pandas as pd

_NINETY = normal_half_width(0.9)  # in standard deviations
_MAX_ROWS = 2000  # runs used in a fit
_LARGEST_LOG = 700.0  # exp overflows beyond 709


@dataclass(frozen=True, slots=True)
class CostLaw:
    """Exponents of cost with standard errors, and the predicted cost of any config.

    `result.cost_law` and `result.wall_clock_law` hold one.

    Attributes:
        unit: unit of the costs, such as "seconds" or "flops".

    Example:
        >>> from hpo import Float, Optimizer, Scale
        >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
        >>> optimizer = Optimizer(space, cost="flops")
        >>> for lr, params in [(1e-3, 1e5), (1e-2, 1e6), (1e-3, 1e7), (1e-2, 1e5)]:
        ...     _ = optimizer.tell({"lr": lr, "params": params}, 2.0, 6e6 * params)
        >>> law = optimizer.result().cost_law
        >>> round(law.exponent("params").mean, 1)
        1.0
        >>> cost, (low, high) = law.predict({"lr": 1e-3, "params": 1e8})
        >>> print(f"{cost:.0e} {law.unit}", low < 6e14 < high)
        6e+14 flops True
    """

    unit: str
    _encoder: Encoder = field(repr=False)
    _predictor: CostPredictor = field(repr=False)

    @classmethod
    @single_threaded
    def of_seconds(cls, encoder: Encoder, observations: Sequence[Observation]) -> CostLaw | None:
        """Fit the wall-clock time of completed runs.

        Args:
            encoder: encoder of the space.
            observations: results, of which those with `seconds` count.

        Returns:
            Law in seconds, None if no run was timed.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space)
            >>> for lr, params in [(1e-3, 1e5), (1e-2, 1e6), (1e-3, 1e7), (1e-2, 1e5)]:
            ...     _ = optimizer.tell({"lr": lr, "params": params}, 2.0, seconds=params / 1e4)
            >>> encoder = Encoder(optimizer.space)
            >>> law = CostLaw.of_seconds(encoder, optimizer.log.observations)
            >>> law.unit, round(law.exponent("params").mean, 1)
            ('seconds', 1.0)
        """
        timed = [o for o in observations if o.status is Status.COMPLETED and o.seconds]
        if not timed:
            return None
        X = encoder.encode([o.config for o in timed])
        y = np.log(np.array([o.seconds for o in timed], dtype=np.float64))
        rows = representative(X[:, encoder.columns.numeric], y, _MAX_ROWS)
        data = TrainingData(X[rows], y[rows], encoder.columns)
        return cls(SECONDS, encoder, CostModel().fit(data))

    def exponent(self, name: str) -> Estimate:
        """Return d ln cost / d ln scale.

        Args:
            name: name of a scale axis, the fidelity or a numeric setting. A setting has a slope per
                natural unit (ln batch, log-odds of beta2, dropout itself).

        Raises:
            KeyError: for any other name.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space, cost="flops")
            >>> for lr, params in [(1e-3, 1e5), (1e-2, 1e6), (1e-3, 1e7), (1e-2, 1e5)]:
            ...     _ = optimizer.tell({"lr": lr, "params": params}, 2.0, 6e6 * params)
            >>> law = optimizer.result().cost_law
            >>> exponent = law.exponent("params")
            >>> round(exponent.mean, 1), exponent.sd < exponent.prior_sd
            (1.0, True)
        """
        found = self._estimates()
        return found[OneOf(tuple(found))(name, "`name`", UnknownNameError)]

    @property
    def rows(self) -> tuple[Coefficient, ...]:
        """Every coefficient with a prior, scales first.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space, cost="flops")
            >>> for lr, params in [(1e-3, 1e5), (1e-2, 1e6), (1e-3, 1e7), (1e-2, 1e5)]:
            ...     _ = optimizer.tell({"lr": lr, "params": params}, 2.0, 6e6 * params)
            >>> law = optimizer.result().cost_law
            >>> [row.name for row in law.rows]
            ['exponent of params', 'd ln flops / d ln lr']
        """
        space, columns = self._encoder.space, self._encoder.columns
        found = self._estimates()
        axes = [columns.names[i] for i in (*columns.scale, *columns.fidelity)]
        settings = [columns.names[i] for i in columns.decision]
        return (
            *(Coefficient(f"exponent of {axis}", found[axis]) for axis in axes),
            *(
                Coefficient(f"d ln {self.unit} / d {space[name].unit.label(name)}", found[name])
                for name in settings
            ),
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per coefficient.

        Columns: coefficient, prior, prior_sd, posterior, posterior_sd, informed_by_data.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space, cost="flops")
            >>> for lr, params in [(1e-3, 1e5), (1e-2, 1e6), (1e-3, 1e7), (1e-2, 1e5)]:
            ...     _ = optimizer.tell({"lr": lr, "params": params}, 2.0, 6e6 * params)
            >>> law = optimizer.result().cost_law
            >>> law.to_pandas()["coefficient"].tolist()
            ['exponent of params', 'd ln flops / d ln lr']
        """
        return as_frame(self.rows)

    @printable_str
    def __str__(self) -> str:
        return as_text(self.rows) + "\n+- one standard error."

    def _repr_html_(self) -> str:
        return as_html([as_grid(self.rows), "+- one standard error."])

    @single_threaded
    def predict(self, config: Mapping[str, Any]) -> tuple[float, tuple[float, float]]:
        """Return the cost of one run of a config and its central 90 % interval.

        Args:
            config: values of every active parameter, scales included, which may lie beyond the
                runs.

        Raises:
            SpaceError: for a config that does not belong to the space.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space, cost="flops")
            >>> for lr, params in [(1e-3, 1e5), (1e-2, 1e6), (1e-3, 1e7), (1e-2, 1e5)]:
            ...     _ = optimizer.tell({"lr": lr, "params": params}, 2.0, 6e6 * params)
            >>> law = optimizer.result().cost_law
            >>> cost, (low, high) = law.predict({"lr": 1e-3, "params": 1e9})  # beyond the runs
            >>> print(f"{cost:.0e}", low < 6e15 < high)
            6e+15 True
        """
        config = self._encoder.space.canonical(config, extrapolate=True)
        posterior = self._predictor.posterior(self._encoder.encode([config]))
        mean = float(posterior.mean[0])
        half = _NINETY * math.sqrt(float(posterior.variance[0]) + self._predictor.noise_variance)
        return bounded_exp(mean), (bounded_exp(mean - half), bounded_exp(mean + half))

    def lines(self, row: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return k and c of ln C = k + c . s at the settings of one row, and draws of them.

        Args:
            row: `(d,)`, encoded; its scale entries do not matter.
            count: number of posterior draws.
            rng: generator of the draws.

        Returns:
            k `(1 + count,)` and c `(1 + count) x axes` over the scale axes. The first entry is the
            posterior mean. f is left out.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space, cost="flops")
            >>> for lr, params in [(1e-3, 1e5), (1e-2, 1e6), (1e-3, 1e7), (1e-2, 1e5)]:
            ...     _ = optimizer.tell({"lr": lr, "params": params}, 2.0, 6e6 * params)
            >>> law = optimizer.result().cost_law
            >>> row = Encoder(optimizer.space).encode([{"lr": 1e-3, "params": 1e5}])[0]
            >>> k, c = law.lines(row, 100, np.random.default_rng(0))
            >>> k.shape, c.shape, round(float(c[0, 0]), 1)  # the posterior mean, then 100 draws
            ((101,), (101, 1), 1.0)
        """
        columns = self._encoder.columns
        scale = columns.scale
        rows = np.repeat(row[None, :], 1 + len(scale), axis=0)
        rows[:, scale] = 0.0
        rows[1 + np.arange(len(scale)), scale] = 1.0
        mean, covariance = self._weights()
        root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(mean)))
        draws = mean + rng.standard_normal((count, len(mean))) @ root.T
        weights = np.concatenate([mean[None, :], draws])
        log_cost = self._mean.value(rows) + weights @ self._basis.value(rows).T
        c = (log_cost[:, 1:] - log_cost[:, :1]) / columns.width[scale]
        return log_cost[:, 0] - c @ columns.origin[scale], c

    @property
    def _basis(self) -> LinearBasis:
        kernel = self._predictor.kernel
        assert isinstance(kernel, BasisKernel) and isinstance(kernel.basis, LinearBasis)
        return kernel.basis

    @property
    def _mean(self) -> LinearMean:
        assert isinstance(self._predictor.prior_mean, LinearMean)
        return self._predictor.prior_mean

    def _weights(self) -> tuple[Array, Array]:
        """Return posterior mean `(p,)` and covariance of the weights, N(0, I) a priori."""
        phi = self._basis.value(self._predictor.X)
        half = self._predictor.factor.half_solve(np.asfortranarray(phi))
        return phi.T @ self._predictor.weights, np.eye(phi.shape[1]) - half.T @ half

    def _estimates(self) -> dict[str, Estimate]:
        """Return the slope of ln cost in each numeric column, per natural unit, by name."""
        columns, basis = self._encoder.columns, self._basis
        mean, covariance = self._weights()
        sd = np.sqrt(np.maximum(np.diagonal(covariance), 0.0))
        found = {}
        for i, column in enumerate(columns.numeric):
            width, prior_sd = float(columns.width[column]), float(basis.sd[i])
            prior = float(self._mean.slope[column])
            found[columns.names[column]] = Estimate(
                (prior + prior_sd * float(mean[1 + i])) / width,
                prior_sd * float(sd[1 + i]) / width,
                prior / width,
                prior_sd / width,
            )
        return found
