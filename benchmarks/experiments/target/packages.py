"""Rivals from PyPI that fit a law of parameters and tokens, in an environment of their own.

`python -m benchmarks env laws` makes it. Where a package can be imported it is used at once;
otherwise that environment's interpreter runs this module, which reads a question on its standard
input and writes the answer, both as JSON.

* `simple-scaling-laws`: E + A N^-alpha + B D^-beta with bootstrap draws; intervals of a new run.
* `chinchilla`: the same law by BFGS from a grid, here with its log Huber loss.
* `scaling-audit`: its log-linear regression, held to equal exponents of N and D.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks import environments
from benchmarks.experiments.target.question import Array, Foreseen, RivalMissing

ENVIRONMENT = "laws"
_GRID = {
    "e": (0.3, 0.7),
    "a": (3.0, 6.0, 9.0),
    "b": (3.0, 6.0, 9.0),
    "alpha": (0.3, 0.5),
    "beta": (0.3, 0.5),
}  # natural logs of E, A and B


def foresee(package: str, told: Array, loss: Array, asked: Array) -> Foreseen:
    """Return what a package foresees.

    Args:
        package: name in `PACKAGES`.
        told: N and D of the runs told, `(n, 2)`.
        loss: their losses, `(n,)`.
        asked: N and D to predict at, `(m, 2)`.

    Raises:
        RivalMissing: if the package is neither importable nor in its environment.
    """
    answer = _answered(package, told, loss, asked)
    return Foreseen(*(np.array(answer[name], dtype=np.float64) for name in ("loss", "low", "high")))


def exponents(package: str, told: Array, loss: Array) -> dict[str, float]:
    """Return "alpha", "beta" and what else identifies the law: "E", "ln_A" and "ln_B".

    Arguments and errors as `foresee`.
    """
    answer = _answered(package, told, loss, told[:1])
    return {name: float(value) for name, value in answer["law"].items()}


def _answered(package: str, told: Array, loss: Array, asked: Array) -> Mapping[str, Any]:
    question = {
        "package": package,
        "told": told.tolist(),
        "loss": loss.tolist(),
        "asked": asked.tolist(),
    }
    module, _ = PACKAGES[package]
    if find_spec(module) is not None:
        return _answer(question)
    if not environments.is_made(ENVIRONMENT):
        raise RivalMissing(
            f"{package} is not installed; run `python -m benchmarks env {ENVIRONMENT}`"
        )
    run = subprocess.run(
        [environments.python(ENVIRONMENT), "-m", __spec__.name],
        input=json.dumps(question),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    told, loss, asked = (np.array(question[name]) for name in ("told", "loss", "asked"))
    _, ask = PACKAGES[question["package"]]
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        found, law = ask(told, loss, asked)
    ends = ((name, getattr(found, name).tolist()) for name in ("loss", "low", "high"))
    return {**dict(ends), "law": law}


Asked = tuple[Foreseen, dict[str, float]]


def _simple_scaling_laws(told: Array, loss: Array, asked: Array) -> Asked:
    import polars as pl
    from simple_scaling_laws import fit

    names = ("model_size__n_params", "dataset_size__n_tokens")
    sizes = dict(zip(names, told.T.tolist(), strict=True))
    runs = [f"run{i}" for i in range(len(loss))]
    frame = pl.DataFrame(
        {
            "training_run_id": runs,
            "train_set_id": ["one"] * len(loss),
            "test_set_id": ["one"] * len(loss),
            "optimizer_seed": list(range(len(loss))),
            **sizes,
            "test_loss__nats": loss.tolist(),
        }
    )
    model = fit(frame, law="separable-power", seed=0)
    points = pl.DataFrame(dict(zip(names, asked.T.tolist(), strict=True)))
    found = model.predict(points, kind="new-run", quantiles=[0.05, 0.5, 0.95])
    columns = [f"test_loss__nats__{end}" for end in ("median", "q050", "q950")]
    params, scales = model.params("test_loss__nats"), model.observed_domain
    alpha, beta = params["alpha"], params["beta"]
    # Its amplitudes are those at a reference size.
    ln_N, ln_D = (float(np.log(scales[name]["reference"])) for name in names)
    law = {
        "E": params["E"],
        "ln_A": float(np.log(params["A"])) + alpha * ln_N,
        "alpha": alpha,
        "ln_B": float(np.log(params["B"])) + beta * ln_D,
        "beta": beta,
    }
    return Foreseen(*(found[column].to_numpy() for column in columns)), law


def _chinchilla(told: Array, loss: Array, asked: Array) -> Asked:
    import pandas as pd
    from chinchilla import Chinchilla
    from chinchilla._metrics import log_huber

    with tempfile.TemporaryDirectory() as folder:
        law = Chinchilla(folder, param_grid=_GRID, loss_fn=log_huber, log_level=50)
        law.database.df = pd.DataFrame(
            {"C": 6.0 * told[:, 0] * told[:, 1], "N": told[:, 0], "D": told[:, 1], "loss": loss}
        )
        law.fit(parallel=False)
        found = np.asarray(law.predict_loss(asked[:, 0], asked[:, 1]), dtype=np.float64)
    known = {"E": law.E, "ln_A": np.log(law.A), "alpha": law.alpha}
    known |= {"ln_B": np.log(law.B), "beta": law.beta}
    return Foreseen.points(found), {name: float(value) for name, value in known.items()}


def _scaling_audit(told: Array, loss: Array, asked: Array) -> Asked:
    from scaling_audit import ConstrainedLinearRegression

    model = ConstrainedLinearRegression(constraint=[[0.0, 1.0, -1.0]], rhs=[0.0])
    model.fit(np.log(told), np.log(loss))
    found = np.exp(np.asarray(model.predict(np.log(asked)), dtype=np.float64))
    return Foreseen.points(found), {}


#: Package -> the module that it installs, and what asks it.
PACKAGES: Mapping[str, tuple[str, Callable[[Array, Array, Array], Asked]]] = {
    "simple-scaling-laws": ("simple_scaling_laws", _simple_scaling_laws),
    "chinchilla (PyPI)": ("chinchilla", _chinchilla),
    "scaling-audit": ("scaling_audit", _scaling_audit),
}


def main(arguments: Sequence[str] = ()) -> int:
    """Answer the question on standard input; the last line printed is the answer."""
    print(json.dumps(_answer(json.loads(sys.stdin.read()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
