"""Ray: trials run as tasks of a Ray cluster, here one of two cores on this machine.

    python examples/21_ray.py

`ray.init("auto")` connects to a real cluster. Install Ray with `pip install '.[ray]'` in a clone.
"""

import os
import socket
from typing import Any

import ray

from hpo import Budget, Context, Float, optimize
from hpo.adapters.ray import RayRunner

SPACE = {"lr": Float(1e-4, 1e-1, log=True), "momentum": Float(0.0, 0.99)}


def train(config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Return a stand-in for a loss, and where it was computed."""
    loss = (config["lr"] / 3e-3 - 1) ** 2 + (config["momentum"] - 0.9) ** 2
    return {"loss": loss, "place": f"{socket.gethostname()}, process {os.getpid()}"}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    result = optimize(train, SPACE, budget=Budget(trials=8), workers=2, runner=RayRunner(cpus=1))
    places = {o.metrics["place"] for o in result.log.observations}
    print(f"{len(result.log)} trials in {len(places)} processes of the cluster")
    print(result.best_observed)
    ray.shutdown()
