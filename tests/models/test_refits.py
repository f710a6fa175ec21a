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


def chain(*, read: bool) -> RefitChain[object]:
    made = RefitChain(
        GaussianProcess(), Columns.of_decisions("x"), Transform.RAW, max_rows=40, chained=100
    )
    made.read = read
    return made  # type: ignore[return-value]


@pytest.mark.parametrize("read", [False, True])
def test_grown_and_rebuilt_models_are_equal_also_where_rows_were_read(
    monkeypatch: pytest.MonkeyPatch, read: bool
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


def test_fits_of_rows_that_were_read_skip_most_of_the_early_counts() -> None:
    learned = []

    class Counting(GaussianProcess):
        def learn(self, data, warm=None, cold=True):  # type: ignore[no-untyped-def]
            learned.append(len(data))
            return super().learn(data, warm, cold)

    X = np.random.default_rng(0).random((210, 1))
    for read in (False, True):
        learned.clear()
        made = RefitChain(Counting(), Columns.of_decisions("x"), Transform.RAW, 40, chained=100)
        made.read = read
        made.at(X, X[:, 0] ** 2)
        if not read:
            before = len(learned)
    assert len(learned) < before / 2


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
