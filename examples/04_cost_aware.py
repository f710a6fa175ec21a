"""Cost-aware search: find the best loss at every cost, within a budget in that unit.

    python examples/04_cost_aware.py

With `cost=` the search models what a run costs and spreads over cheap and expensive configs. The
result is a front: trials that no other trial beats in both loss and cost.
"""

from typing import Any

from hpo import Budget, Context, Float, Int, SearchSpace, optimize

SPACE = SearchSpace(
    {
        "width": Int(8, 1024, log=True),
        "steps": Int(100, 10_000, log=True),
        "lr": Float(1e-4, 1e-1, log=True),
    }
)
GIGAFLOPS = 40.0  # for the whole search; the largest single run costs 10


def train(config: dict[str, Any], ctx: Context) -> dict[str, float]:
    """Return a stand-in for a training: larger and longer runs are better and cost more."""
    width, steps = config["width"], config["steps"]
    miss = config["lr"] / (0.3 / width**0.5) - 1.0
    loss = 1.0 + 2.0 * width**-0.4 + 8.0 * steps**-0.5 + 0.1 * miss**2
    return {"loss": loss, "cost": 1e-6 * width * steps}


if __name__ == "__main__":
    result = optimize(train, SPACE, budget=Budget(cost=GIGAFLOPS, trials=40), cost="gigaflops")
    spent = sum(o.cost or 0.0 for o in result.log.observations)
    print(f"{len(result.log.observations)} trials, {spent:.0f} of {GIGAFLOPS:.0f} gigaflops spent")
    print("  gigaflops   loss  width  steps")
    for member in result.front:
        config = member.config
        print(f"{member.cost:11.3f} {member.loss:6.3f} {config['width']:6d} {config['steps']:6d}")
