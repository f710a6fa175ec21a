"""scikit-learn: tune a model by cross-validation, and maximize an accuracy.

    python examples/16_scikit_learn.py

The training function is any function that returns a number. Here `momentum` exists only with SGD.
"""

import warnings
from typing import Any

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hpo import Budget, Categorical, Context, Float, Int, SearchSpace, optimize

SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1e-1, log=True),
        "alpha": Float(1e-6, 1e-1, log=True),
        "width": Int(8, 64, log=True),
        "solver": Categorical(["adam", "sgd"]),
        "momentum": Float(0.5, 0.99, when=("solver", ["sgd"])),
    }
)
images, labels = load_digits(return_X_y=True)
images, labels = images[:600], labels[:600]


def accuracy(config: dict[str, Any], ctx: Context) -> float:
    """Return the mean accuracy of three folds."""
    network = MLPClassifier(
        [config["width"]],
        solver=config["solver"],
        learning_rate_init=config["lr"],
        alpha=config["alpha"],
        momentum=config.get("momentum", 0.9),
        max_iter=20,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 20 epochs are what we compare at
        scores = cross_val_score(make_pipeline(StandardScaler(), network), images, labels, cv=3)
    return float(scores.mean())


if __name__ == "__main__":
    result = optimize(accuracy, SPACE, budget=Budget(trials=20), direction="maximize")
    print(result)
    first = result.log.observations[0].loss
    print(f"first trial: accuracy {first:.3f}; best of 20: {result.best_observed.loss:.3f}")
