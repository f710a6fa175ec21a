"""Quickstart: tune four settings of a small network and read the recommendation.

    python examples/01_quickstart.py

`optimize` calls the training function with one config after another and learns from each loss.
`recommend` then names the config expected to do best, with an interval for each setting.
"""

import warnings
from typing import Any

from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import scale

from hpo import Budget, Categorical, Context, Float, Int, SearchSpace, optimize

SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1e-1, log=True),
        "weight_decay": Float(1e-5, 1.0, log=True),
        "width": Int(4, 64, log=True),
        "activation": Categorical(["relu", "tanh"]),
    }
)


def train(config: dict[str, Any], ctx: Context) -> float:
    """Return the loss on held-out wines after 40 epochs."""
    X, y = load_wine(return_X_y=True)
    X, X_test, y, y_test = train_test_split(scale(X), y, test_size=0.5, random_state=0, stratify=y)
    model = MLPClassifier(
        hidden_layer_sizes=(config["width"],),
        activation=config["activation"],
        learning_rate_init=config["lr"],
        alpha=config["weight_decay"],
        max_iter=40,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 40 epochs are a choice
        model.fit(X, y)
    return float(log_loss(y_test, model.predict_proba(X_test)))


if __name__ == "__main__":
    result = optimize(train, SPACE, budget=Budget(trials=20))
    first, best = result.log.observations[0], result.best
    print(f"first trial: loss {first.loss:.3f}; best of 20: loss {best.loss:.3f}")
    advice = result.recommend()
    for name, value in advice.config.items():
        shown = f"{value:.3g}" if isinstance(value, float) else value
        low_high = advice.intervals.get(name)
        doubt = "" if low_high is None else f"  (90 %: {low_high[0]:.3g} to {low_high[1]:.3g})"
        print(f"recommended {name}: {shown}{doubt}")
