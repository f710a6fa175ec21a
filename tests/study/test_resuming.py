"""A call that finds a study of its name says in one line what it found and what it does."""

import io

import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from hpo import Budget, Float, Result, load_result, optimize
from hpo.study.progress import Progress


def search(trials: int, storage: InMemoryStorage, seed: int = 0) -> Result:
    return optimize(
        lambda config, ctx: config["x"],
        {"x": Float(0, 1)},
        budget=Budget(trials=trials),
        name="mine",
        storage=storage,
        seed=seed,
    )


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return said


def test_a_new_study_says_nothing_and_one_that_goes_on_says_from_where(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = InMemoryStorage()
    search(2, storage)
    assert lines(caplog) == []
    search(4, storage)
    assert lines(caplog) == [
        "study 'mine' continues from 2 trials (2 completed); 2 of 4 trials are spent, "
        "the rest is now"
    ]
    load_result("mine", storage=storage)
    assert lines(caplog) == []


@pytest.mark.parametrize("trials", [2, 3])
def test_a_budget_that_is_used_or_smaller_than_what_is_spent_is_said_with_the_way_out(
    trials: int, caplog: pytest.LogCaptureFixture
) -> None:
    storage = InMemoryStorage()
    search(3, storage)
    assert len(search(trials, storage).log) == 3
    (said,) = lines(caplog)
    assert f"3 of {trials} trials are spent" in said and "no new trial starts" in said
    assert ("more than this budget" in said) == (trials == 2)
    assert "larger budget=" in said and "another name=" in said


def test_another_seed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    storage = InMemoryStorage()
    search(1, storage, seed=4)
    search(2, storage, seed=5)
    (said,) = lines(caplog)
    assert "started with seed=4" in said


def test_the_live_view_shows_it_below_the_table() -> None:
    storage, screen = InMemoryStorage(), io.StringIO()
    search(2, storage)
    view = Progress(console=Console(file=screen, force_terminal=True, width=120))
    optimize(
        lambda config, ctx: config["x"],
        {"x": Float(0, 1)},
        budget=Budget(trials=3),
        name="mine",
        storage=storage,
        callbacks=[view],
    )
    assert "continues from 2 trials" in " ".join(screen.getvalue().split())
