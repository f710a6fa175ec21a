"""BoTorch with what its own tutorials and Ax's mixed-space method put together.

Sobol starts, 2 (d + 1) of them (BoTorch has no default of its own) or half the trials if that is
fewer; `SingleTaskGP`, or `MixedSingleTaskGP` where there are categories, with their default priors
on standardized losses; qLogExpectedImprovement with running configs as `X_pending`; on a
continuous space `optimize_acqf`, else `optimize_acqf_mixed_alternating`, which searches integers
and categories as such rather than rounding. Failed runs are left out of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import FullRuns, Job
from benchmarks.peers.seeding import seeded
from benchmarks.peers.spaces import CodeKind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from torch import Tensor

# As in BoTorch's tutorials for `optimize_acqf`, which has no defaults for them.
_RESTARTS = 10
_RAW_SAMPLES = 512


class BotorchPeer(FullRuns):
    """Rows are [0, 1] for numbers and codes for categories."""

    def __init__(self, task: Task, *, seed: int, trials: int) -> None:
        # Not later: a torch that were loaded under `seeded` would escape its seed.
        import torch  # noqa: F401
        from scipy.stats.qmc import Sobol

        super().__init__()
        self._translation = Translation(task.space, peer="BoTorch")
        axes = self._translation.axes
        self._starts = max(min(2 * (len(axes) + 1), trials // 2), 2)
        self._sobol = Sobol(len(axes), rng=seed)
        self._seed = seed
        self._rows: list[list[float]] = []
        self._losses: list[float] = []
        self._running: dict[int, list[float]] = {}

    def suggest(self, number: int) -> dict[str, Any]:
        enough = len(self._losses) >= 2 and number >= self._starts
        if enough:
            with seeded(self._seed, number):
                row = self._best_row()
        else:
            row = [
                share * axis.size - 0.5 if axis.kind is CodeKind.CATEGORY else share
                for axis, share in zip(
                    self._translation.axes, self._sobol.random(1)[0].tolist(), strict=True
                )
            ]
        config = self._config(row)
        self._running[number] = self._row(config)
        return config

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        self._running.pop(job.number, None)
        if evaluation.loss is not None:
            self._rows.append(self._row(job.config))
            self._losses.append(evaluation.loss)

    def _best_row(self) -> list[float]:
        import torch
        from botorch.acquisition.logei import qLogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models.gp_regression import SingleTaskGP
        from botorch.models.gp_regression_mixed import MixedSingleTaskGP
        from botorch.optim.optimize import optimize_acqf
        from botorch.optim.optimize_mixed import optimize_acqf_mixed_alternating
        from gpytorch.mlls import ExactMarginalLogLikelihood

        axes = self._translation.axes
        X = torch.tensor(self._rows, dtype=torch.double)
        Y = -torch.tensor(self._losses, dtype=torch.double)[:, None]
        codes = [i for i, axis in enumerate(axes) if axis.kind is CodeKind.CATEGORY]
        model = MixedSingleTaskGP(X, Y, cat_dims=codes) if codes else SingleTaskGP(X, Y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        running = list(self._running.values())
        pending: Tensor | None = torch.tensor(running, dtype=torch.double) if running else None
        acquisition = qLogExpectedImprovement(model, best_f=Y.max(), X_pending=pending)
        high = [float(a.size - 1) if a.kind is CodeKind.CATEGORY else 1.0 for a in axes]
        bounds = torch.tensor([[0.0] * len(axes), high], dtype=torch.double)
        if all(axis.kind is CodeKind.REAL for axis in axes):
            best, _ = optimize_acqf(
                acquisition, bounds, q=1, num_restarts=_RESTARTS, raw_samples=_RAW_SAMPLES
            )
        else:
            best, _ = optimize_acqf_mixed_alternating(
                acquisition,
                bounds,
                discrete_dims={
                    i: [a.to_unit(code) for code in range(int(a.low), int(a.high) + 1)]
                    for i, a in enumerate(axes)
                    if a.kind is CodeKind.INTEGER
                },
                cat_dims={i: [float(code) for code in range(axes[i].size)] for i in codes},
            )
        row: list[float] = best[0].tolist()
        return row

    def _row(self, config: Mapping[str, Any]) -> list[float]:
        codes = self._translation.codes(config)
        return [
            float(codes[a.name]) if a.kind is CodeKind.CATEGORY else a.to_unit(codes[a.name])
            for a in self._translation.axes
        ]

    def _config(self, row: list[float]) -> dict[str, Any]:
        return self._translation.config(
            {
                axis.name: value if axis.kind is CodeKind.CATEGORY else axis.from_unit(value)
                for axis, value in zip(self._translation.axes, row, strict=True)
            }
        )


def make(task: Task, *, seed: int, trials: int) -> BotorchPeer:
    """See `benchmarks.peers`."""
    return BotorchPeer(task, seed=seed, trials=trials)
