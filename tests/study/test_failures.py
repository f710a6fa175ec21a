"""Studies whose trials fail, vanish or run over their limits."""

import json
import math
import os
import signal
import time
from pathlib import Path

import optuna
import pytest
import torch

from hpo import (
    Budget,
    Cause,
    Context,
    Limits,
    Result,
    StudyError,
    load_result,
    optimize,
)
from hpo.study.process_runner import ProcessRunner
from hpo.trials.attributes import read
from hpo.trials.failures import failures
from tests.study.studies import SPACE, Config, Recorder, bowl


@pytest.mark.parametrize("returned", [None, "0.5", True, 1j, {"accuracy": 1.0}])
def test_a_returned_value_that_is_no_loss_ends_the_study_and_is_stored(
    returned: object, folder: Path
) -> None:
    recorder = Recorder()
    with pytest.raises((TypeError, ValueError), match="loss"):
        optimize(
            lambda config, ctx: returned,
            SPACE,
            budget=Budget(trials=9),
            name="n",
            callbacks=[recorder],
        )
    (observation,) = recorder.observations
    assert observation.cause is Cause.ERROR
    assert recorder.events[-1][0] == "error"
    assert optuna.load_study(study_name="n", storage="sqlite:///scaletune.db").trials[0].state == (
        optuna.trial.TrialState.FAIL
    )


def test_failures_are_told_with_their_cause_and_their_text_and_the_search_continues(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(config: Config, ctx: Context) -> float:
        match ctx.trial.number:
            case 0:
                raise RuntimeError("too wide " * 2000)
            case 1:
                raise MemoryError
            case 2:
                return math.nan
        return 1.0

    result = optimize(train, SPACE, budget=Budget(trials=5), name="n")
    causes = [o.cause for o in result.log.observations]
    assert causes == [Cause.ERROR, Cause.OOM, Cause.DIVERGED, None, None]
    assert "trial 1 failed (oom)" in caplog.text
    told = read(result.study.trials[0].user_attrs, "scaletune:told") if result.study else None
    assert told is not None and told["text"].endswith("too wide \n")
    assert all(
        len(json.dumps(value)) <= 65_535  # bytes of a text in MySQL
        for trial in (result.study.trials if result.study else [])
        for value in trial.user_attrs.values()
    )


def test_a_train_function_with_other_parameters_is_refused() -> None:
    def one(ctx: Context) -> float:
        return 1.0

    def named(config: Config, ctx: Context, *, lr: float) -> float:
        return lr

    for train, message in ((one, "too many positional"), (named, "missing.* argument.* 'lr'")):
        with pytest.raises(TypeError, match=message):
            optimize(train, SPACE, budget=Budget(trials=1))  # type: ignore[arg-type]


def test_a_train_function_that_only_ever_raises_ends_the_search_and_continues_once_fixed(
    folder: Path,
) -> None:
    broken, seen = True, 0

    def train(config: Config, ctx: Context) -> dict[str, float]:
        nonlocal seen
        seen += 1
        if broken:
            raise KeyError("learning_rate")
        return bowl(config, ctx)

    def search() -> Result:
        return optimize(train, SPACE, budget=Budget(cost=20), cost="flops", name="typo")

    with pytest.raises(
        StudyError, match="first 3 trials raised the same .*, the last with .*_rate"
    ):
        search()
    with pytest.raises(StudyError, match=r"at the same line, KeyError at test_failures.py:\d+, "):
        search()
    assert seen == 4
    broken = False
    assert search().best.loss is not None


def test_first_trials_that_raise_different_exceptions_end_the_search_after_ten() -> None:
    count = 0

    def train(config: Config, ctx: Context) -> float:
        nonlocal count
        count += 1
        if count % 2:
            raise KeyError("learning_rate")
        raise ValueError("too wide")

    with pytest.raises(StudyError, match="first 10 trials raised, the last with 'ValueError: too"):
        optimize(train, SPACE, budget=Budget(trials=20))
    assert count == 10


def test_the_same_exception_from_two_lines_is_not_the_same_failure() -> None:
    count = 0

    def train(config: Config, ctx: Context) -> float:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyError("lr")
        raise KeyError("lr")

    optimize(train, SPACE, budget=Budget(trials=5))
    assert count == 5


def test_a_traceback_is_shown_once_for_each_kind_and_kept_with_each_trial(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = 0

    def train(config: Config, ctx: Context) -> float:
        nonlocal count
        count += 1
        if count in (2, 4):
            raise RuntimeError(f"boom {count}")
        if count == 3:
            raise KeyError("lr")
        return 1.0

    result = optimize(train, SPACE, budget=Budget(trials=5), name="kinds")
    assert caplog.text.count("Traceback (most recent call last)") == 2
    assert "trial 3 failed (error): RuntimeError: boom 4" in caplog.text
    for log in (result.log, load_result("kinds").log):
        errors = [o.error.strip().rpartition("\n")[2] for o in log.observations]
        assert errors == ["", "RuntimeError: boom 2", "KeyError: 'lr'", "RuntimeError: boom 4", ""]
        kinds = [(kind.error.split(" at ")[0], kind.numbers) for kind in failures(log.observations)]
        assert kinds == [("RuntimeError", (1, 3)), ("KeyError", (2,))]


def test_raise_on_error_ends_the_study_at_the_first_exception_with_its_traceback(
    folder: Path,
) -> None:
    count = 0

    def train(config: Config, ctx: Context) -> float:
        nonlocal count
        count += 1
        if count == 1:
            raise MemoryError  # the config is too large, which is no fault of the function
        if count == 3:
            raise KeyError("lr")
        return 1.0

    with pytest.raises(StudyError, match="(?s)trial 2 raised, and raise_on_error=True.*in train"):
        optimize(train, SPACE, budget=Budget(trials=5), name="n", raise_on_error=True)
    result = optimize(train, SPACE, budget=Budget(trials=5), name="n", raise_on_error=True)
    assert [o.cause for o in result.log.observations] == [Cause.OOM, None, Cause.ERROR, None, None]


def test_one_trial_that_went_well_or_ran_out_of_memory_keeps_a_search_alive() -> None:
    for first in ("oom", None):
        count = 0

        def train(config: Config, ctx: Context, first: str | None = first) -> float:
            nonlocal count
            count += 1
            if count == 1 and first == "oom":
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            if count > 1:
                raise KeyError("learning_rate")
            return 1.0

        optimize(train, SPACE, budget=Budget(trials=15))
        assert count == 15


def test_a_study_whose_trials_all_fail_has_a_result_without_a_best() -> None:
    count = 0

    def train(config: Config, ctx: Context) -> float:
        nonlocal count
        count += 1
        raise RuntimeError if count % 2 else KeyError

    result = optimize(train, SPACE, budget=Budget(trials=4), confirm=2)
    assert len(result.log) == 4
    with pytest.raises(ValueError, match="no trial was completed"):
        _ = result.best


def test_a_worker_that_always_vanishes_is_tried_three_times_and_then_an_error(
    folder: Path,
) -> None:
    def train(config: Config, ctx: Context) -> float:
        assert ctx.checkpoint_dir is not None
        with open(ctx.checkpoint_dir.parent / "tries", "a") as file:
            file.write(f"{ctx.seed} ")
        os._exit(1)

    result = optimize(
        train, SPACE, budget=Budget(trials=1), runner=ProcessRunner(), name="n", seed=5
    )
    causes = [o.cause for o in result.log.observations]
    assert causes == [Cause.LOST, Cause.LOST, Cause.ERROR]
    assert {o.ask_index for o in result.log.observations} == {0}
    assert [t.parent for t in result.log.trials] == [None, 0, 1]
    (root,) = (folder / "scaletune_checkpoints").glob("n-*")
    tries = (root / "tries").read_text().split()
    assert len(tries) == 3 and len(set(tries)) == 1


def test_a_lost_trial_continues_from_its_checkpoint_and_keeps_its_time(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, float]:
        state = ctx.load() or {"step": 0, "weight": torch.zeros(3)}
        for step in range(state["step"], 4):
            time.sleep(0.1)
            state = {"step": step + 1, "weight": state["weight"] + 1}
            ctx.save(state)
            ctx.report(step=step, loss=1.0)
            if step == 1 and ctx.trial.parent is None:
                os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": float(state["weight"].sum()), "began": float(4 - step)}

    result = optimize(train, SPACE, budget=Budget(trials=1), runner=ProcessRunner(), name="n")
    lost, done = result.log.observations
    assert done.loss == 12.0
    assert [report.step for report in done.reports] == [2, 3]
    assert done.seconds is not None and done.seconds >= 0.4
    (root,) = (folder / "scaletune_checkpoints").glob("n-*")
    assert [p for p in root.iterdir()] == []


def test_limits_run_one_worker_in_a_process_and_kill_it() -> None:
    def train(config: Config, ctx: Context) -> float:
        if ctx.trial.number == 0:
            time.sleep(600)
        return float(os.getpid())

    result = optimize(
        train, SPACE, budget=Budget(trials=2, per_trial=Limits(seconds=0.5)), cost="seconds"
    )
    late, done = result.log.observations
    assert late.cause is Cause.TIMEOUT
    assert late.cost is not None and 0.5 <= late.cost < 3.0
    assert done.loss != float(os.getpid())
