"""Studies with a known law, bowl and drift, and the interval of an oracle that knows their form.

A family is a drift (what published rules say of it) and a bowl (how the loss rises away from the
best lr). theta: numbers of the law, see `NAMES`. steps: ln (N, D) less their origin, `(2,)`.
z: ln (lr, batch) less the best there, `(n, 2)`.

    L = E + r_N e^(-alpha steps_N) + r_D e^(-beta steps_D) + bowl(z)
    z = ln (lr, batch) - start - drift steps

The oracle knows this form and the noise, and not theta: its interval is that of least squares, from
the Fisher information of the runs told at the true theta. No method can be right as often with
much narrower intervals unless it knows more than the runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.experiments.scale_transfer import SHARE, Cell, Problem
from benchmarks.experiments.target.laws import NINETY
from benchmarks.experiments.target.question import Array

AXES = ("params", "tokens")
SETTINGS = ("lr", "batch")
ORIGIN = np.log([2e8, 4e9])  # N, D
#: Places of theta. `drift lr N` is d ln lr / d ln N; `steep` and `lean` bend the linex bowl.
NAMES = (
    "E",
    "ln r_N",
    "ln r_D",
    "alpha",
    "beta",
    "lr",
    "batch",
    "drift lr N",
    "drift lr D",
    "drift batch N",
    "drift batch D",
    "ln c_lr",
    "ln c_batch",
    "steep",
    "lean",
)
_START = slice(NAMES.index("lr"), NAMES.index("batch") + 1)
_DRIFT = slice(NAMES.index("drift lr N"), NAMES.index("drift batch D") + 1)
_WEAK = 3.0  # sd of the oracle's prior of each number, which only keeps its equations solvable

Bowl = Callable[[Array, Array], Array]

#: d ln (lr, batch) / d ln (N, D), 2 x 2. Published exponents of lr lie in -0.71 to 0 along N and
#: -0.33 to 0.31 along D, of the batch in 0 to 0.57 along D.
DRIFTS: Mapping[str, Array] = {
    "right": np.array([[-0.713, 0.307], [0.0, 0.571]]),  # Step Law
    "half right": np.array([[-0.713, 0.307], [-0.2, -0.3]]),
    "wrong": np.array([[0.3, 0.6], [-0.2, -0.3]]),
    "neutral": np.zeros((2, 2)),  # of a study: drawn around this
}
_SPREAD = {"neutral": 0.25}  # sd of a study's drift around its family's; else 0.03


def linex(z: Array, theta: Array) -> Array:
    """Return a bowl steeper above the best lr than below, whose best lr leans on the batch.

    Args:
        z: `(n, 2)`.
        theta: numbers of the law, `(p,)`.
    """
    c_lr, c_batch = np.exp(theta[11:13])
    steep, lean = theta[13:15]
    t = z[:, 0] - lean * z[:, 1]
    w = steep * t
    curve = np.where(np.abs(w) < 1e-3, 0.5 + w / 6, (np.expm1(w) - w) / np.where(w == 0, 1, w) ** 2)
    return np.asarray(c_lr * t**2 * curve + 0.5 * c_batch * z[:, 1] ** 2)


def quadratic(z: Array, theta: Array) -> Array:
    """Return a bowl symmetric in ln lr and ln batch. Arguments as `linex`."""
    return np.asarray(0.5 * z**2 @ np.exp(theta[11:13]))


def saturating(z: Array, theta: Array) -> Array:
    """Return (lr / lr* - 1)^2, flat where nothing is learned and exploding above.

    Arguments as `linex`.
    """
    c_lr, c_batch = np.exp(theta[11:13])
    return np.asarray(0.5 * c_lr * np.expm1(z[:, 0]) ** 2 + 0.5 * c_batch * z[:, 1] ** 2)


BOWLS: Mapping[str, Bowl] = {"linex": linex, "quadratic": quadratic, "saturating": saturating}


@dataclass(frozen=True, slots=True)
class Study:
    """A problem whose truth is known.

    Attributes:
        problem: cells to buy from, and the target.
        theta: numbers of the law, `(p,)`, by place in `NAMES`.
        bowl: name in `BOWLS`.
        noise: sd of one run's loss.
    """

    problem: Problem
    theta: Array
    bowl: str
    noise: float

    def best(self, size: Mapping[str, float]) -> Array:
        """Return the true ln (best lr, best batch) at a size, `(2,)`."""
        return _best(self.theta, _steps(size))

    def loss(self, log_settings: Array, size: Mapping[str, float]) -> Array:
        """Return the loss without noise.

        Args:
            log_settings: ln lr and ln batch, `(n, 2)`.
            size: params and tokens.
        """
        return _loss(self.theta, self.bowl, log_settings, _steps(size))

    def oracle(self, log_settings: Array, steps: Array, size: Mapping[str, float]) -> Array:
        """Return the widths of the oracle's 90 % intervals, `(6,)`.

        Args:
            log_settings: ln lr and ln batch of the runs told, `(n, 2)`.
            steps: ln (N, D) of those runs less `ORIGIN`, `(n, 2)`.
            size: size at which the best settings are asked.

        Returns:
            Widths for ln lr and ln batch at that size, then of the four drifts in the order of
            `NAMES`.
        """
        used = self._used()

        def losses(theta: Array) -> Array:
            return _loss(theta, self.bowl, log_settings, steps)

        J = _jacobian(losses, self.theta)[:, used]
        precision = J.T @ J / self.noise**2 + np.eye(len(used)) / _WEAK**2
        covariance = np.zeros((len(NAMES), len(NAMES)))
        covariance[np.ix_(used, used)] = np.linalg.inv(precision)
        G = _jacobian(lambda theta: _best(theta, _steps(size)), self.theta)
        of_best = np.einsum("ij,jk,ik->i", G, covariance, G)
        variances = np.append(of_best, np.diag(covariance)[_DRIFT])
        return np.asarray(2.0 * NINETY * np.sqrt(variances))

    def _used(self) -> list[int]:
        """Places of theta on which the loss depends."""
        bent = ("steep", "lean")
        return [i for i, name in enumerate(NAMES) if self.bowl == "linex" or name not in bent]


def study(drift: str, bowl: str, seed: int) -> Study:
    """Return one study of a family, recorded on a grid like Step Law's.

    Args:
        drift: name in `DRIFTS`.
        bowl: name in `BOWLS`.
        seed: seed of its numbers and noise.

    Example:
        >>> made = study("right", "quadratic", 0)
        >>> size = made.problem.target.size
        >>> made.problem.gap(dict(zip(SETTINGS, np.exp(made.best(size)), strict=True))) < 1e-9
        True
    """
    rng = np.random.default_rng([0xFA417, list(DRIFTS).index(drift), list(BOWLS).index(bowl), seed])
    start = np.log([rng.uniform(1e-3, 3e-3), rng.uniform(60, 200)])
    true = DRIFTS[drift] + _SPREAD.get(drift, 0.03) * rng.standard_normal((2, 2))
    theta = np.array(
        [
            rng.uniform(1.3, 2.2),
            math.log(rng.uniform(0.2, 0.6)),
            math.log(rng.uniform(0.2, 0.6)),
            *rng.uniform(0.25, 0.45, 2),
            *start,
            *true.ravel(),
            *np.log(rng.uniform(0.5, 1.5) * np.array([0.03, 0.02])),
            *((rng.uniform(0.2, 0.8), rng.uniform(0.0, 0.5)) if bowl == "linex" else (0.0, 0.0)),
        ]
    )
    noise = float(rng.uniform(0.001, 0.003))
    sizes = [(2.1e8, 4e9), (2.7e8, 5e9), (2.1e8, 1.1e10), (4.3e8, 8e9), (2.7e8, 1.4e10)]
    sizes += [(2.1e8, 2e10), (5.4e8, 1e10), (4e8, 6e10) if seed % 2 else (1.1e9, 2e10)]
    # The grid lies around the best settings of the middle of the cells, as a person would choose.
    middle = _best(theta, np.mean([np.log(size) - ORIGIN for size in sizes[:-1]], axis=0))
    sides = (np.linspace(-1.9, 1.9, 12) + middle[0], np.linspace(-2.0, 2.0, 10) + middle[1])
    grid = np.stack([side.ravel() for side in np.meshgrid(*sides)], axis=1)
    cells = []
    for params, tokens in sizes:
        steps = np.log([params, tokens]) - ORIGIN
        seen = _loss(theta, bowl, grid, steps) + noise * rng.standard_normal(len(grid))
        configs = tuple(
            {"lr": lr, "batch": batch, "params": params, "tokens": tokens}
            for lr, batch in np.exp(grid).tolist()
        )
        cells.append(Cell(configs, seen, 6.0 * params * tokens))
    *sources, target = cells
    at = _steps(target.size)

    def loss_at(log_lr: Array, log_batch: Array) -> Array:
        return _loss(theta, bowl, np.stack([log_lr, log_batch], axis=-1), at)

    problem = Problem(
        f"{drift}, {bowl}, {seed}",
        tuple(cell for cell in sources if cell.cost <= SHARE * target.cost),
        target,
        loss_at,
        float(loss_at(*_best(theta, at)[:, None])[0]),
        true,
    )
    return Study(problem, theta, bowl, noise)


def _steps(size: Mapping[str, float]) -> Array:
    return np.asarray(np.log([size[axis] for axis in AXES]) - ORIGIN)


def _best(theta: Array, steps: Array) -> Array:
    """Ln of the best settings; `steps` is `(2,)` or `(n, 2)`, and so is the result."""
    return np.asarray(theta[_START] + steps @ theta[_DRIFT].reshape(2, 2).T)


def _loss(theta: Array, bowl: str, log_settings: Array, steps: Array) -> Array:
    E, ln_N, ln_D, alpha, beta = theta[:5]
    by_size = np.exp(ln_N - alpha * steps[..., 0]) + np.exp(ln_D - beta * steps[..., 1])
    return np.asarray(E + by_size + BOWLS[bowl](log_settings - _best(theta, steps), theta))


def _jacobian(function: Callable[[Array], Array], theta: Array) -> Array:
    """Central differences, `(outputs, p)`."""
    columns = []
    for i in range(len(theta)):
        step = np.zeros(len(theta))
        step[i] = 1e-5
        columns.append((function(theta + step) - function(theta - step)) / 2e-5)
    return np.stack(columns, axis=1)
