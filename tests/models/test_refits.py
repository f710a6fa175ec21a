"""When models are built anew: a log that grew and one read at once give the same model."""

from __future__ import annotations

import numpy as np
import pytest

from hpo import Axis, Float, Optimizer, Scale
from hpo.models import fitted, refits
from hpo.models.refits import RefitChain
from surrogates.data import Columns
from surrogates.gp import GaussianProcess
from surrogates.transforms import Transform
from tests.models.test_fitted import RecordedProcess


def chain(*, read: int) -> RefitChain[object]:
    made = RefitChain(
        GaussianProcess(), Columns.of_decisions("x"), Transform.RAW, max_rows=40, chained=100
    )
    made.read = read
    return made  # type: ignore[return-value]


@pytest.mark.parametrize("read", [0, 120])
def test_grown_and_rebuilt_models_are_equal_also_where_rows_were_read(
    monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    monkeypatch.setattr(refits, "_MOST_FRESH", 7)
    X = np.random.default_rng(0).random((210, 1))
    y = np.sin(6.0 * X[:, 0])
    grown = chain(read=read)
    for n in (5, 101, 131, 210):
        model = grown.at(X[:n], y[:n])
        fresh = chain(read=read).at(X[:n], y[:n])
        at = np.linspace(0.0, 1.0, 5)[:, None]
        assert np.array_equal(model.posterior(at).mean, fresh.posterior(at).mean)
        assert len(model.X) <= 40 + 7  # never many rows beyond those of the last rebuild


def test_a_chain_of_rows_that_were_read_takes_one_fit_and_the_start_of_it() -> None:
    process = RecordedProcess()
    made = RefitChain(process, Columns.of_decisions("x"), Transform.RAW)
    made.read = 210
    X = np.random.default_rng(0).random((220, 1))
    made.at(X[:210], X[:210, 0] ** 2)
    assert process.counts == [100, 206]
    made.at(X, X[:, 0] ** 2)  # between two counts
    assert process.counts == [100, 206]
    made.at(np.tile(X, (2, 1))[:227], np.tile(X[:, 0] ** 2, 2)[:227])
    assert process.counts == [100, 206, 227]  # the next one starts from the one before


def test_a_fit_of_rows_that_were_read_does_not_depend_on_how_many_follow() -> None:
    X = np.random.default_rng(0).random((210, 1))
    y = np.sin(6.0 * X[:, 0])
    grown, whole = chain(read=0), chain(read=210)
    for n in (13, 46, 104, 206):  # nothing is asked between them
        grown.read = n
        grown.theta(X[:n], y[:n], n)
    assert np.array_equal(grown.theta(X, y, 206), whole.theta(X, y, 206))
    assert np.array_equal(grown.theta(X, y, 46), whole.theta(X, y, 46))


def test_of_many_runs_an_answer_is_compared_with_those_the_model_is_built_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = {"lr": Float(1e-4, 1e-1, log=True), "n": Scale(1e5, 1e7, axis=Axis.PARAMS)}
    rng = np.random.default_rng(0)
    rows = [
        {"lr": lr, "n": n, "loss": n**-0.3 + 0.05 * np.log(lr / 3e-3) ** 2}
        for lr, n in zip(10 ** rng.uniform(-4, -1, 60), 10 ** rng.uniform(5, 7, 60), strict=True)
    ]
    optimizer = Optimizer(space)
    optimizer.tell_many(rows)
    models = optimizer.result().models
    assert models.answering is models.runs
    whole = optimizer.result().recommend({"n": 1e8})
    monkeypatch.setattr(fitted, "MANY", 30)
    assert len(models.answering) == 60  # the model holds all of them
    few = optimizer.result().recommend({"n": 1e8})
    assert few.config["lr"] == pytest.approx(whole.config["lr"], rel=0.05)
