"""Your own surrogate: replace the model behind the asks, keep the rest of the engine.

    python examples/08_own_surrogate.py

An `Optimizer` is a log of trials and a method `propose`. Here `propose` fits a random forest to the
log and takes the candidate of highest expected improvement, as SMAC does. Ask and tell, results and
schedulers (`StagedOptimizer`) work on it as on the built-in one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.ensemble import RandomForestRegressor

from hpo import Categorical, Float, Optimizer, Prediction, Reason, ReasonKind, SearchSpace
from hpo.optimizer.ask_tell import Proposal

BEST_LR = {"adam": 1e-3, "sgd": 3e-2, "lion": 3e-4}
SPACE = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "optimizer": Categorical(list(BEST_LR))})
STARTS = 6  # random configs before the first forest


class ForestOptimizer(Optimizer):
    """Proposes by expected improvement under a random forest."""

    def propose(
        self, *, among: Sequence[Mapping[str, Any]] | None = None, index: int | None = None
    ) -> Proposal:
        """Return the most promising of 500 random configs, or of `among`."""
        index = self.log.next_ask_index if index is None else index
        unit = np.random.default_rng(index).random((500, len(self.encoder.lower)))
        X = self.encoder.first_rows(unit) if among is None else self.encoder.encode(among)
        runs = [o for o in self.log.observations if o.loss is not None]
        best, expected, why = 0, None, "random start"
        if len(runs) >= STARTS:
            y = self.encoder.loss_sign * np.array([o.loss for o in runs])
            forest = RandomForestRegressor(50, random_state=index)
            forest.fit(self.encoder.encode([o.config for o in runs]), y)
            trees = np.stack([tree.predict(X) for tree in forest.estimators_])
            mean, sd = trees.mean(axis=0), trees.std(axis=0) + 1e-9
            z = (y.min() - mean) / sd
            best = int(np.argmax(sd * (z * norm.cdf(z) + norm.pdf(z))))
            expected, why = float(self.encoder.loss_sign * mean[best]), "expected improvement"
        reason = Reason(ReasonKind.OTHER, text=why)
        prediction = Prediction(expected, None, None, None, None, reason=reason)
        return Proposal(self.encoder.decode(X[best : best + 1])[0], index, prediction)


if __name__ == "__main__":
    optimizer = ForestOptimizer(SPACE)
    for _ in range(30):
        trial = optimizer.ask()
        lr, best_lr = trial.config["lr"], BEST_LR[trial.config["optimizer"]]
        optimizer.tell(trial, loss=float(np.log10(lr / best_lr) ** 2) + 100.0 * best_lr)
    assert trial.prediction is not None
    print(f"last trial: {trial.prediction.reason}, expected loss {trial.prediction.loss:.3f}")
    best_run = optimizer.result().best
    print(f"best of 30 trials: loss {best_run.loss:.3f} with {best_run.config}")
