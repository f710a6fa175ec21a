"""Scale transfer: tune on cheap runs, then recommend settings for one that is never searched.

    python examples/06_scale_transfer.py

A `Scale` axis is a size whose effect the model learns. The best learning rate here falls as runs
get longer; a scaling law fitted to runs of up to 1 million tokens extrapolates it to 8 million.
Published rules such as `MuP()` and `TokenHorizon()` compete; `priors=` narrows or removes them.
"""

from typing import Any

from hpo import Axis, Budget, Context, Float, Role, Scale, SearchSpace, optimize

SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
        "tokens": Scale(1e4, 1e6, axis=Axis.TOKENS),
    }
)
TARGET = {"tokens": 8e6}


def best_lr(tokens: float) -> float:
    """Return the truth that the search has to find out."""
    return float(3e-3 * (tokens / 1e5) ** -0.3)


def loss_at(lr: float, tokens: float) -> float:
    """Return a stand-in for the loss of a run on so many tokens."""
    return float(1.5 + 30.0 * tokens**-0.3 + 0.1 * (lr / best_lr(tokens) - 1.0) ** 2)


def train(config: dict[str, Any], ctx: Context) -> dict[str, float]:
    """Return loss and cost of one run."""
    return {"loss": loss_at(config["lr"], config["tokens"]), "cost": config["tokens"]}


if __name__ == "__main__":
    result = optimize(train, SPACE, budget=Budget(trials=30), cost="flops", target=TARGET)
    advice = result.recommend()
    low, high = advice.intervals["lr"]
    print(f"recommended lr at 8 million tokens: {advice.config['lr']:.2e}")
    print(f"  90 % interval {low:.2e} to {high:.2e}; the true best is {best_lr(8e6):.2e}")
    print(f"  share informed by data rather than the prior: {advice.informed_by_data['lr']:.0%}")
    low, high = advice.loss_interval
    print(f"predicted loss {advice.loss:.3f} ({low:.3f} to {high:.3f})")
    print(f"  the true loss there: {loss_at(advice.config['lr'], 8e6):.3f}")
    for warning in advice.warnings:
        print(f"warning: {warning}")
