"""Build another search from the same parts: BOHB, kernel densities under Hyperband.

    python -m examples.studies.bohb [--epochs 2000] [--seed 0]

Falkner, Klein and Hutter ("BOHB", ICML 2018, algorithm 2) let Hyperband decide how far a config is
trained, and draw new configs where good runs are dense and bad ones are not. Here that is an
`Optimizer` with its own `propose`; stages, promotions and the log are the engine's. The built-in
search runs for the same number of epochs as a comparison.

A perceptron learns scikit-learn's breast cancer table; paused models stay in memory.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.workloads.tabular import (
    Perceptron,
    PerceptronShape,
    SklearnTable,
    rows,
    tabular_loss,
)
from hpo import Fidelity, Float, Hyperband, Int, Optimizer, Prediction, Role, StagedOptimizer
from hpo.optimizer.ask_tell import Proposal
from hpo.schedulers import Ladder
from hpo.schedulers.run_history import RunIndex
from hpo.space import Parameter
from hpo.trials import Reason, ReasonKind

EPOCHS = Fidelity(1, 27)
SPACE: dict[str, Parameter] = {
    "lr": Float(1e-4, 1.0, log=True, role=Role.LR),
    "momentum": Float(0.0, 0.99),
    "weight_decay": Float(1e-6, 1e-1, log=True),
    "width": Int(4, 128, log=True),
    "epochs": EPOCHS,
}
ETA = 3
BATCH_SIZE = 32

Array = NDArray[np.float64]


class KernelDensities(Optimizer):
    """Draws configs where the density l of good runs is large relative to g, that of the others.

    For spaces of numeric parameters without scale axes.
    """

    good = 0.15  # share of the runs of a rung
    drawn = 64  # candidates from l, of which the best is proposed
    wider = 3.0  # bandwidth of the candidates over that of l
    random = 1 / 3  # share of uniform configs

    def propose(
        self, *, among: Sequence[Mapping[str, Any]] | None = None, index: int | None = None
    ) -> Proposal:
        """Return a config drawn from the densities, or a uniform one."""
        if among is not None:
            raise ValueError("`among` must be None here; densities draw from the whole box")
        index = self.log.next_ask_index if index is None else index
        rng = np.random.default_rng([0, index])
        known = self._largest_rung()
        row, reason = rng.uniform(self.encoder.lower, self.encoder.upper), "uniform"
        if known is not None and rng.random() >= self.random:
            row, reason = self._drawn(*known, rng), f"densities of {len(known[0])} runs"
        [config] = self.encoder.decode(row[None])
        return Proposal(
            config,
            index,
            Prediction(None, None, None, None, 1.0, reason=Reason(ReasonKind.OTHER, text=reason)),
        )

    def _largest_rung(self) -> tuple[Array, Array] | None:
        """Return rows and losses of the highest rung with enough runs to separate good from bad."""
        ladder = Ladder.over(self.space, ETA, "BOHB")
        runs = RunIndex(ladder, self.encoder.loss_sign, self.space.fidelity)
        runs.sync(self.log)
        least = len(self.space) + 2
        for level in reversed(ladder.levels):
            there = [run for run in runs if level in run.losses]
            if len(there) >= least:
                losses = np.array([run.losses[level] for run in there])
                return self.encoder.encode([run.config for run in there]), losses
        return None

    def _drawn(self, X: Array, losses: Array, rng: np.random.Generator) -> Array:
        order = np.argsort(losses)
        count = max(len(self.space), round(self.good * len(X)))
        good, bad = X[order[:count]], X[order[count:]]
        centers = good[rng.integers(len(good), size=self.drawn)]
        steps = self.wider * _bandwidth(good) * rng.standard_normal(centers.shape)
        candidates = np.clip(centers + steps, self.encoder.lower, self.encoder.upper)
        ratio = _log_density(candidates, good) - _log_density(candidates, bad)
        return np.asarray(candidates[np.argmax(ratio)])


def _bandwidth(X: Array) -> Array:
    """Return the bandwidth of Scott's rule per column, with a lower bound where runs agree."""
    n, d = X.shape
    return np.asarray(np.maximum(X.std(axis=0) * float(n) ** (-1 / (d + 4)), 1e-3))


def _log_density(at: Array, X: Array) -> Array:
    kernels = np.asarray(norm.logpdf(at[:, None], X, _bandwidth(X)))
    return np.asarray(np.logaddexp.reduce(kernels.sum(axis=2), axis=1))


class Training:
    """A perceptron in training."""

    def __init__(self, config: Mapping[str, Any], seed: int) -> None:
        torch.manual_seed(seed)
        self.data = rows(SklearnTable.BREAST_CANCER)
        self.epoch = 0
        self.model = Perceptron(
            PerceptronShape(self.data.train_inputs.shape[1], config["width"], 2)
        )
        self.updates = torch.optim.SGD(
            self.model.parameters(),
            lr=config["lr"],
            momentum=config["momentum"],
            weight_decay=config["weight_decay"],
        )

    def up_to(self, epoch: int) -> float:
        """Train up to that many epochs and return the validation loss, in nats."""
        inputs, targets = self.data.train_inputs, self.data.train_targets
        while self.epoch < epoch:
            for batch in torch.split(torch.randperm(len(inputs)), BATCH_SIZE):
                self.updates.zero_grad()
                loss = tabular_loss(self.model, (inputs[batch], targets[batch]))
                torch.autograd.backward(loss)
                self.updates.step()
            self.epoch += 1
        with torch.no_grad():
            held = (self.data.validation_inputs, self.data.validation_targets)
            return float(tabular_loss(self.model, held))


def search(optimizer: Optimizer, epochs: int, seed: int) -> float:
    """Return the lowest loss of a completed run after so many epochs in all."""
    engine = StagedOptimizer(optimizer, Hyperband(eta=ETA), seed=seed)
    running: dict[int, Training] = {}
    spent, best = 0, float("inf")
    while spent < epochs:
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None  # one worker never waits
        if trial.number not in running:
            running[trial.number] = Training(trial.config, seed + trial.number)
        before, level = running[trial.number].epoch, trial.assignment.level
        loss = running[trial.number].up_to(level)
        spent += level - before
        engine.tell(trial, loss, cost=float(level))
        if level == EPOCHS.high:
            best = min(best, loss)
            del running[trial.number]
    return best


def main() -> None:
    """Run both searches and print their best losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=2000, help="training epochs of each search")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, make in (("kernel densities", KernelDensities), ("the engine", Optimizer)):
        best = search(make(SPACE, seed=given.seed), given.epochs, given.seed)
        print(f"{name}: best validation loss {best:.4f} after {given.epochs} epochs")


if __name__ == "__main__":
    main()
