"""Studies in storage: what is refused, what is kept, and what Optuna sees."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo import (
    Budget,
    Context,
    Float,
    Int,
    StudyError,
    optimize,
)
from tests.study.studies import SPACE, Config, asks, bowl


@pytest.mark.parametrize("storage", ["sqlite:////nowhere/to/be/found/a.db", "sqlite:///."])
def test_an_unusable_storage_is_refused_with_its_path_and_the_way_out(
    storage: str, folder: Path
) -> None:
    with pytest.raises(StudyError, match=rf"{storage}.*name another one with storage="):
        optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="n", storage=storage)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(folder: Path) -> None:
    (folder / "scaletune.db").write_text("my notes, nothing else " * 100)
    with pytest.raises(StudyError, match="not a database"):
        optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="n")
    assert (folder / "scaletune.db").read_text().startswith("my notes")


def test_a_plain_path_as_storage_is_refused_with_its_url(folder: Path) -> None:
    with pytest.raises(StudyError, match="write storage='sqlite:///runs.db'"):
        optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="n", storage="runs.db")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": SPACE | {"x": Float(-2.0, 1.0)}}, "`x`: low is -2.0, was -1.0"),
        ({"space": SPACE | {"y": Int(1, 2)}}, "`y` is new"),
        ({"direction": "maximize"}, "direction='minimize', got direction='maximize'"),
        ({"cost": "seconds"}, "cost='flops', got cost='seconds'"),
    ],
    ids=["bound", "parameter", "direction", "cost"],
)
def test_a_resumed_study_that_differs_is_refused_and_nothing_is_lost(
    change: dict[str, Any], message: str, folder: Path
) -> None:
    arguments: dict[str, Any] = {
        "train_fn": bowl,
        "space": SPACE,
        "budget": Budget(trials=3),
        "cost": "flops",
        "name": "n",
    }
    before = optimize(**arguments)
    with pytest.raises(StudyError, match=message) as refused:
        optimize(**(arguments | change | {"budget": Budget(trials=5)}))
    assert "another name=" in str(refused.value)
    assert asks(optimize(**arguments)) == asks(before)


def test_a_study_of_a_newer_schema_or_of_another_program_is_refused(folder: Path) -> None:
    url = f"sqlite:///{folder}/scaletune.db"
    optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="newer")
    study = optuna.load_study(study_name="newer", storage=url)
    study.set_user_attr("scaletune:study", study.user_attrs["scaletune:study"] | {"schema": 99})
    with pytest.raises(StudyError, match="newer scaletune .*upgrade"):
        optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="newer")
    foreign = optuna.create_study(study_name="foreign", storage=url)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyError, match="was not made by optimize"):
        optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="foreign")
    assert len(foreign.trials) == 1


def test_a_storage_object_and_several_names_in_one_file_work(folder: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/mine.db")
    first = optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="a", storage=storage)
    second = optimize(
        bowl, SPACE, budget=Budget(trials=3), cost="flops", name="b/c", storage=storage, seed=1
    )
    again = optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="a", storage=storage)
    assert asks(again) == asks(first) != asks(second)[:2]


def test_optuna_sees_values_states_and_reports(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, float]:
        ctx.report(step=5, loss=3.0)
        if ctx.trial.number == 1:
            raise RuntimeError
        return {"loss": 2.0, "cost": 1.0}

    result = optimize(train, SPACE, budget=Budget(trials=2), cost="flops", name="n")
    assert result.study is not None
    done, failed = result.study.trials
    assert (done.state.name, done.value, done.intermediate_values) == ("COMPLETE", 2.0, {5: 3.0})
    assert failed.state.name == "FAIL"
    assert result.study.best_trial.number == 0
    assert set(done.params) == {"x", "kind"}


def test_optuna_keeps_its_verbosity_and_says_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="n")
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")
