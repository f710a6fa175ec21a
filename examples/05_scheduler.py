"""A scheduler: start many short runs, and train only the promising ones to the end.

    python examples/05_scheduler.py

A `Fidelity` declares what a run consumes, here epochs. The training function saves its state before
each report, because the report may end this stage. When the scheduler promotes the run, the
function is called again with a higher `ctx.fidelity` and loads what it saved.
"""

from collections import Counter
from typing import Any

import torch

from hpo import ASHA, Budget, Context, Fidelity, Float, SearchSpace, optimize

SPACE = SearchSpace(
    {
        "lr": Float(1e-3, 3.0, log=True),
        "momentum": Float(0.0, 0.99),
        "epochs": Fidelity(1, 27),
    }
)
CURVATURE = torch.tensor([1.0, 0.05])  # of the valley, across and along


def train(config: dict[str, Any], ctx: Context) -> float:
    """Descend into a narrow valley by gradients with momentum; return the height reached."""
    state = ctx.load() or {"epoch": 0, "weights": torch.ones(2), "velocity": 0.0}
    height = float("inf")
    for epoch in range(state["epoch"] + 1, config["epochs"] + 1):
        gradient = CURVATURE * state["weights"]
        velocity = config["momentum"] * state["velocity"] - config["lr"] * gradient
        state = {"epoch": epoch, "weights": state["weights"] + velocity, "velocity": velocity}
        height = float(torch.sum(CURVATURE * state["weights"] ** 2))
        ctx.save(state)  # save first: the report may end this stage
        ctx.report(step=epoch, loss=height)
    return height


if __name__ == "__main__":
    result = optimize(train, SPACE, budget=Budget(trials=30), scheduler=ASHA(eta=3))
    runs = [*result.log.observations, *result.log.paused]
    reached = Counter(max(report.step for report in run.reports) for run in runs if run.reports)
    for epochs in sorted(reached):
        print(f"{epochs:2d} epochs: {reached[epochs]} of 30 configs stopped there")
    total = sum(epochs * count for epochs, count in reached.items())
    print(f"{total} epochs in all; training 30 configs to the end takes {30 * 27}")
    print(f"lowest height {result.best.loss:.2g} with {result.best.config}")
