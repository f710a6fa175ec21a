"""States of Ray searchers on disk: several in one folder, of one experiment or of several."""

import json
import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.tune", reason="pip install 'scaletune[ray]' to run this")

from ray.tune.search import ConcurrencyLimiter  # noqa: E402
from ray.tune.search.search_generator import SearchGenerator  # noqa: E402

from hpo import ASHA, Categorical, Fidelity, Float, Status, StudyError  # noqa: E402
from hpo.adapters.ray import ScaleTuneSearcher  # noqa: E402

pytestmark = [pytest.mark.guests, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings

SPACE: dict[str, Any] = {"lr": Float(1e-3, 1.0, log=True), "epochs": Fidelity(1, 9)}
EARLY, LATE = "2026-01-31_23-59-59", "2026-02-01_00-00-00"


def searcher(space: dict[str, Any] | None = None, **options: Any) -> ScaleTuneSearcher:
    options = {"metric": "loss", "mode": "min", "step": "epoch", **options}
    return ScaleTuneSearcher(space or SPACE, **options)


def ran(trials: int, **options: Any) -> ScaleTuneSearcher:
    made = searcher(**options)
    for k in range(trials):
        config = made.suggest(f"t{k}")
        assert isinstance(config, dict)
        made.on_trial_complete(f"t{k}", {"epoch": 9, "loss": 1.0 + k, "time_total_s": 1.0})
    return made


def test_the_state_of_the_last_start_is_restored_whatever_the_files_own_times(
    tmp_path: Path,
) -> None:
    ran(5).save_to_dir(str(tmp_path), LATE)
    ran(2).save_to_dir(str(tmp_path), EARLY)  # copied later
    restored = searcher()
    restored.restore_from_dir(str(tmp_path))
    assert len(restored.log) == 5
    assert restored.suggest("next") == ran(5).suggest("next")


def test_a_state_saved_by_hand_counts_by_its_time(tmp_path: Path) -> None:
    ran(1).save_to_dir(str(tmp_path))
    (by_hand,) = tmp_path.iterdir()
    ran(3).save_to_dir(str(tmp_path), LATE)
    for age, expected in ((-60, 3), (60, 1)):
        now = (tmp_path / f"searcher-state-{LATE}.pkl").stat().st_mtime
        os.utime(by_hand, (now + age, now + age))
        restored = searcher()
        restored.restore_from_dir(str(tmp_path))
        assert len(restored.log) == expected


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"space": {"lr": Float(1e-3, 2.0, log=True), "epochs": Fidelity(1, 9)}}, "space"),
        ({"space": {"width": Float(0, 1), "epochs": Fidelity(1, 9)}}, "space"),
        ({"metric": "accuracy"}, "metric"),
        ({"mode": "max"}, "mode"),
        ({"cost": "flops"}, "cost"),
    ],
)
def test_the_state_of_another_experiment_in_the_folder_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: dict[str, Any], named: str
) -> None:
    ran(2).save_to_dir(str(tmp_path), EARLY)
    foreign = searcher(**other)
    foreign.save_to_dir(str(tmp_path), LATE)
    restored = searcher()
    with caplog.at_level(logging.WARNING):
        restored.restore_from_dir(str(tmp_path))
    assert len(restored.log) == 2
    assert f"another {named}" in caplog.text
    with pytest.raises(StudyError, match=f"of a searcher with another {named}"):
        searcher().restore(str(tmp_path / f"searcher-state-{LATE}.pkl"))


def test_the_state_of_another_library_is_passed_over_and_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "trapped"),)

    (tmp_path / f"searcher-state-{LATE}.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(StudyError, match="holds no state"):
        searcher().restore_from_dir(str(tmp_path))
    ran(2).save_to_dir(str(tmp_path), EARLY)
    restored = searcher()
    restored.restore_from_dir(str(tmp_path))
    assert len(restored.log) == 2
    assert not (tmp_path / "trapped").exists()


def test_a_refused_state_leaves_the_searcher_as_it_was(tmp_path: Path) -> None:
    kept = ran(3)
    before = kept.optimizer.log.observations
    searcher({"width": Float(0, 1)}).save(str(tmp_path / "other"))
    with pytest.raises(StudyError):
        kept.restore(str(tmp_path / "other"))
    assert kept.optimizer.log.observations == before
    assert isinstance(kept.suggest("next"), dict)


def test_a_state_of_an_earlier_version_is_restored(tmp_path: Path) -> None:
    ran(2).save(str(tmp_path / "state"))
    state = json.loads((tmp_path / "state").read_text())
    del state["searched"]
    (tmp_path / "state").write_text(json.dumps(state))
    restored = searcher()
    restored.restore(str(tmp_path / "state"))
    assert len(restored.log) == 2


def test_rays_own_generator_and_limiter_restore_the_last_of_two_starts(tmp_path: Path) -> None:
    for session, trials in ((EARLY, 1), (LATE, 4)):
        generator = SearchGenerator(ConcurrencyLimiter(ran(trials), max_concurrent=2))
        generator.save_to_dir(str(tmp_path), session)
    inner = searcher()
    SearchGenerator(ConcurrencyLimiter(inner, max_concurrent=2)).restore_from_dir(str(tmp_path))
    assert len(inner.log) == 4


def test_an_empty_folder_and_a_searcher_without_a_trial_are_states_as_well(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="holds no state"):
        searcher().restore_from_dir(str(tmp_path))
    empty = searcher(scheduler=ASHA())
    empty.save_to_dir(str(tmp_path), EARLY)
    restored = searcher(scheduler=ASHA())
    restored.restore_from_dir(str(tmp_path))
    assert len(restored.log) == 0 and restored.optimizer.result().to_pandas().empty
    assert restored.suggest("a") == searcher(scheduler=ASHA()).suggest("a")


def test_choices_of_every_kind_come_back_from_a_state(tmp_path: Path) -> None:
    space = {"c": Categorical([None, True, 2, 2.5, "null", "é\n"]), "x": Float(0, 1)}
    made = searcher(space)
    for k in range(12):
        config = made.suggest(f"t{k}")
        assert isinstance(config, dict)
        failed = k % 3 == 0
        made.on_trial_complete(f"t{k}", {"loss": float("nan") if failed else 1.0, "epoch": 1})
    made.save(str(tmp_path / "state"))
    restored = searcher(space)
    restored.restore(str(tmp_path / "state"))
    told = [(o.config, o.status, type(o.config["c"])) for o in restored.log.observations]
    assert told == [(o.config, o.status, type(o.config["c"])) for o in made.log.observations]
    assert Status.FAILED in {status for _, status, _ in told}


def test_a_step_is_any_whole_number_within_the_fidelity(caplog: pytest.LogCaptureFixture) -> None:
    import numpy as np

    for scheduler in (None, ASHA()):
        made = searcher(scheduler=scheduler)
        made.suggest("a")
        for step in (1.0, np.int64(2), np.array([3])):
            made.on_trial_result("a", {"epoch": step, "loss": 0.5})
        assert [report.step for report in made.log.reports(0)] == [1, 2, 3]
        with pytest.raises(ValueError, match="`epochs` up to 9, got step=100"):
            made.on_trial_result("a", {"epoch": 100, "loss": 0.5})
        with caplog.at_level(logging.WARNING):
            for step in (None, 1.5, "4", True, -1):
                made.on_trial_result("a", {"epoch": step, "loss": 0.5})
        assert [report.step for report in made.log.reports(0)] == [1, 2, 3]
    assert sum("without a step" in text for text in caplog.messages) == 2  # once each
