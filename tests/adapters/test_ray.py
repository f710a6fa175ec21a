"""The searcher and the scheduler on a real local Ray cluster."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="pip install 'scaletune[ray]' to run this")
tune = pytest.importorskip("ray.tune", reason="pip install 'scaletune[ray]' to run this")

from hpo import (  # noqa: E402  after the skip
    ASHA,
    PBT,
    Cause,
    Fidelity,
    Float,
    Status,
    StudyError,
)
from hpo.adapters.ray import ScaleTuneScheduler, ScaleTuneSearcher  # noqa: E402

pytestmark = [pytest.mark.guests, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings

REPOSITORY = Path(__file__).parents[2]
SPACE: dict[str, Any] = {"lr": Float(1e-3, 1.0, log=True), "epochs": Fidelity(1, 9)}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=True)
    yield
    ray.shutdown()


def train(config: dict[str, Any]) -> None:
    """Epochs with a checkpoint each; the checkpoint knows the lr that every epoch was run with."""
    start, path = 0, []
    checkpoint = tune.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            state = json.loads(Path(folder, "state.json").read_text())
            start, path = state["epoch"], state["path"]
    for epoch in range(start + 1, config["epochs"] + 1):
        path = [*path, config["lr"]]
        loss = (config["lr"] - 0.1) ** 2 + 1 / epoch
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "state.json").write_text(json.dumps({"epoch": epoch, "path": path}))
            tune.report(
                {"loss": loss, "epoch": epoch, "flops": 10.0 * epoch, "path": list(path)},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def fit(
    searcher: ScaleTuneSearcher, folder: Path, samples: int, *, scheduler: Any = None, most: int = 2
) -> Any:
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=samples,
            max_concurrent_trials=most,
            reuse_actors=True,  # a start of a process takes seconds
            metric="loss",
            mode="min",
        ),
        run_config=tune.RunConfig(name="run", storage_path=str(folder), verbose=0),
    )
    return tuner.fit()


def test_a_searcher_alone_records_every_run(tmp_path: Path) -> None:
    searcher = ScaleTuneSearcher(
        {"lr": Float(1e-3, 1.0, log=True), "epochs": Fidelity(1, 2)},
        cost="flops",
        step="epoch",
        metric="loss",
        mode="min",
    )
    results = fit(searcher, tmp_path, 6)
    assert len(results) == 6 and not results.errors
    told = searcher.log.observations
    assert [o.status for o in told] == [Status.COMPLETED] * 6
    assert {o.cost for o in told} == {20.0}
    assert len({o.config["lr"] for o in told}) == 6


def test_runs_pause_at_their_rungs_and_are_promoted_from_their_checkpoints(
    tmp_path: Path,
) -> None:
    searcher = ScaleTuneSearcher(
        SPACE, scheduler=ASHA(eta=3), step="epoch", cost="flops", metric="loss", mode="min"
    )
    results = fit(searcher, tmp_path, 9, scheduler=ScaleTuneScheduler())
    assert len(results) == 9 and not results.errors
    lengths = sorted(len(result.metrics["path"]) for result in results)
    assert set(lengths) <= {1, 3, 9} and lengths.count(1) >= 4
    assert 3 in lengths or 9 in lengths
    for result in results:  # nothing was trained twice: each epoch once, in order
        assert result.metrics["epoch"] == len(result.metrics["path"])
    resumed = [searcher.log.resumed(trial.number) for trial in searcher.log.trials]
    assert max(resumed) >= 1
    assert not searcher.log.pending and not searcher.log.paused


def test_a_population_clones_its_best_members(tmp_path: Path) -> None:
    searcher = ScaleTuneSearcher(
        SPACE,
        scheduler=PBT(population=3, interval=4, share=0.34),
        step="epoch",
        metric="loss",
        mode="min",
    )
    results = fit(searcher, tmp_path, 3, scheduler=ScaleTuneScheduler(), most=3)
    assert len(results) == 3
    clones = [t for t in searcher.log.trials if t.parent is not None]
    assert clones
    paths = [result.metrics["path"] for result in results]
    mixed = [path for path in paths if len(set(path)) > 1]
    assert mixed  # trained with its parent's lr first, then with its own
    handed = {(searcher.log.trial(t.parent).config["lr"], t.config["lr"]) for t in clones}
    for path in mixed:
        changes = {(a, b) for a, b in zip(path, path[1:], strict=False) if a != b}
        assert changes <= handed


def test_a_saved_searcher_asks_the_same_as_one_that_was_not(tmp_path: Path) -> None:
    searcher = ScaleTuneSearcher(SPACE, scheduler=ASHA(), metric="loss", mode="min", step="epoch")
    for index in range(3):
        assert isinstance(searcher.suggest(f"t{index}"), dict)
    for index in range(3):
        searcher.decide(f"t{index}", {"epoch": 1, "loss": 1.0 + index, "time_total_s": 1.0})
    searcher.save(str(tmp_path / "state.json"))
    restored = ScaleTuneSearcher(SPACE, scheduler=ASHA(), step="epoch", metric="loss", mode="min")
    restored.restore(str(tmp_path / "state.json"))
    pickled = pickle.loads(pickle.dumps(searcher))
    moves = []
    for each in (searcher, restored, pickled):
        resumed = each.resume(lambda _: True, may_start=True)
        moved = None if resumed is None else (resumed.trial_id, resumed.trial.number)
        moves.append((moved, each.suggest("next")))
    assert moves[0] == moves[1] == moves[2]
    assert moves[0][0] is not None  # one of three is promoted


def test_a_file_that_holds_no_state_is_refused(tmp_path: Path) -> None:
    for text in ("", "[]", '{"events": 3}', "\x80\x04"):
        (tmp_path / "state").write_text(text)
        with pytest.raises(StudyError, match="holds no state"):
            ScaleTuneSearcher(SPACE, metric="loss", mode="min").restore(str(tmp_path / "state"))


def test_no_file_that_a_searcher_restores_runs_as_code(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.write_text, (tmp_path / "proof", "was here"))

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "state").write_bytes(pickle.dumps(Planted(), protocol))
        with pytest.raises(StudyError, match="holds no state"):
            ScaleTuneSearcher(SPACE, metric="loss", mode="min").restore(str(tmp_path / "state"))
    assert not (tmp_path / "proof").exists()


DYING = """
import ray, sys, time
from pathlib import Path
from hpo import ASHA
from hpo.adapters.ray import ScaleTuneScheduler, ScaleTuneSearcher
from tests.adapters.test_ray import SPACE, fit, train

ray.init(address=sys.argv[1], log_to_driver=False)
searcher = ScaleTuneSearcher(
    SPACE, scheduler=ASHA(eta=3), step="epoch", cost="flops", metric="loss", mode="min"
)
fit(searcher, Path(sys.argv[2]), 9, scheduler=ScaleTuneScheduler())
"""


def test_a_tuner_whose_driver_was_killed_is_restored_and_trains_every_epoch_once(
    tmp_path: Path,
) -> None:
    """`Tuner.restore` finds the searcher's own file in the experiment's folder."""
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "-c", DYING, address, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TUNE_GLOBAL_CHECKPOINT_S": "0.5"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    searcher = ScaleTuneSearcher(
        SPACE, scheduler=ASHA(eta=3), step="epoch", cost="flops", metric="loss", mode="min"
    )
    try:
        until = time.monotonic() + 120
        while len(searcher.log.paused) < 2:  # so that there is something to be promoted
            assert driver.poll() is None and time.monotonic() < until
            time.sleep(0.1)
            with suppress(RuntimeError, StudyError):  # no file yet, or half a one
                searcher.restore_from_dir(str(tmp_path / "run"))
    finally:
        driver.kill()
        driver.wait()
    before = searcher.log
    results = tune.Tuner.restore(str(tmp_path / "run"), trainable=train).fit()
    searcher.restore_from_dir(str(tmp_path / "run"))
    log = searcher.log
    assert len(results) == 9 and not results.errors
    lengths = sorted(len(result.metrics["path"]) for result in results)
    assert set(lengths) <= {1, 3, 9} and lengths.count(1) >= 4 and 9 in lengths
    for result in results:
        assert result.metrics["epoch"] == len(result.metrics["path"])
    assert len(log.trials) == 9 and not log.pending and not log.paused
    assert [t.config for t in log.trials][: len(before.trials)] == [t.config for t in before.trials]
    for trial in log.trials:
        steps = [report.step for report in log.reports(trial.number)]
        assert steps == list(range(1, len(steps) + 1))
    assert sorted(len(log.reports(t.number)) for t in log.trials) == lengths


def test_failed_and_diverged_trials_are_recorded_with_their_cause() -> None:
    searcher = ScaleTuneSearcher(SPACE, scheduler=ASHA(), metric="loss", mode="min", step="epoch")
    searcher.suggest("a")
    searcher.suggest("b")
    searcher.on_trial_complete("a", {"epoch": 1}, error=True)
    assert searcher.decide("b", {"epoch": 1, "loss": float("nan")}).value == "stop"
    searcher.on_trial_complete("b", {"epoch": 1, "loss": float("nan")})
    assert [o.cause for o in searcher.log.observations] == [Cause.ERROR, Cause.DIVERGED]


def test_a_scheduler_without_our_searcher_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="ScaleTuneSearcher"):
        tune.Tuner(
            train,
            param_space={"lr": 0.1, "epochs": 1},
            tune_config=tune.TuneConfig(scheduler=ScaleTuneScheduler(), metric="loss", mode="min"),
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        ).fit()
