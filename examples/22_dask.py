"""Dask: trials run on the workers of a Dask cluster, here two processes on this machine.

    python examples/22_dask.py

`DaskRunner("tcp://scheduler:8786")` uses a real cluster. Install Dask with `pip install '.[dask]'`
in a clone.
"""

import os
import socket
from typing import Any

from distributed import LocalCluster

from hpo import Budget, Context, Float, optimize
from hpo.adapters.dask import DaskRunner

SPACE = {"lr": Float(1e-4, 1e-1, log=True), "momentum": Float(0.0, 0.99)}


def train(config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Return a stand-in for a loss, and where it was computed."""
    loss = (config["lr"] / 3e-3 - 1) ** 2 + (config["momentum"] - 0.9) ** 2
    return {"loss": loss, "place": f"{socket.gethostname()}, process {os.getpid()}"}


if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        runner = DaskRunner(cluster.scheduler_address)
        result = optimize(train, SPACE, budget=Budget(trials=8), workers=2, runner=runner)
    places = {o.metrics["place"] for o in result.log.observations}
    print(f"{len(result.log)} trials in {len(places)} processes of the cluster")
    print(result.best_observed)
