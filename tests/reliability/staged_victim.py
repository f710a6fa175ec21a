"""A study of runs that pause, killed again and again; a script of test_kill_and_promote.py."""

import time

from hpo import Budget, Context, Fidelity, Float, IterativeDeepening, optimize


def train(config: dict[str, object], ctx: Context) -> dict[str, float]:
    x, last = float(config["x"]), int(config["epochs"])  # type: ignore[arg-type, call-overload]
    state = ctx.load() or {"epoch": 0}
    for epoch in range(state["epoch"] + 1, last + 1):
        time.sleep(0.02)
        ctx.save({"epoch": epoch})
        ctx.report(step=epoch, loss=x + 1.0 / epoch, cost=float(epoch))
    return {"loss": x + 1.0 / last, "cost": float(last)}


if __name__ == "__main__":
    optimize(
        train,
        {"x": Float(0.0, 1.0), "epochs": Fidelity(1, 9)},
        budget=Budget(cost=1e9),
        cost="epochs",
        scheduler=IterativeDeepening(),
        name="victim",
        seed=1,
    )
