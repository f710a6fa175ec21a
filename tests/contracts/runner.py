"""What every runner must do, checked with small training functions.

Derive a test class from `RunnerContract` and override the fixture `make`:

    class TestInlineRunner(RunnerContract):
        @pytest.fixture
        def make(self) -> Callable[[], Runner]:
            return InlineRunner
"""

import asyncio
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo.errors import Stop, StudyError
from hpo.schedulers import Decision
from hpo.study.checkpoints import PARENT_FILE, STATE_FILE, load_state, save_state
from hpo.study.context import Context
from hpo.study.runners import Job, Outcome, Runner, Task
from hpo.trials import Cause, Report, Status, Trial
from hpo.trials.budget import Limits

Config = dict[str, Any]
PATIENCE = 120.0  # seconds until a runner counts as one that does not answer
_POLL = 0.1  # seconds


def job(number: int, folder: Path, *, confirming: bool = False, **config: Any) -> Job:
    trial = Trial(number, config, ask_index=number, prediction=None)
    return Job(trial, 100 + number, folder / str(number), confirming)


def continues(trial: Trial, report: Report) -> Decision:
    return Decision.CONTINUE


class Bench:
    """Runs functions through a runner and returns their outcomes."""

    def __init__(self, make: Callable[[], Runner], folder: Path) -> None:
        self.folder = folder
        self.runner = make()
        self.reports: list[tuple[int, Report]] = []

    def run(
        self,
        train: Callable[[Config, Context], Any],
        *configs: Config,
        answer: Callable[[Trial, Report], Decision] = continues,
        limits: Limits = Limits(),  # noqa: B008  a frozen value
        confirming: bool = False,
        axes: tuple[str, ...] = (),
    ) -> list[Outcome]:
        """One outcome per config, in their order; several configs run side by side."""

        def on_report(trial: Trial, report: Report) -> Decision:
            self.reports.append((trial.number, report))
            return answer(trial, report)

        self.runner.open(Task(train, None, axes, limits), workers=len(configs))
        for number, config in enumerate(configs):
            self.runner.submit(job(number, self.folder, confirming=confirming, **config))
        outcomes: list[Outcome] = []
        until = time.monotonic() + PATIENCE
        while len(outcomes) < len(configs):
            assert time.monotonic() < until, "the runner did not answer"
            outcomes += self.runner.poll(_POLL, on_report)
        return sorted(outcomes, key=lambda outcome: outcome.number)


class RunnerContract:
    """Tests of one runner."""

    @pytest.fixture
    def make(self) -> Callable[[], Runner]:
        """Makes the runner under test."""
        raise NotImplementedError

    @pytest.fixture
    def bench(self, make: Callable[[], Runner], tmp_path: Path) -> Iterator[Bench]:
        bench = Bench(make, tmp_path)
        yield bench
        bench.runner.close()

    def test_a_function_sees_its_config_its_seed_and_its_folder(self, bench: Bench) -> None:
        def train(config: Config, ctx: Context) -> dict[str, Any]:
            assert ctx.checkpoint_dir is not None
            (ctx.checkpoint_dir / "note").write_text("here")
            config["x"] = "changed"
            return {
                "loss": ctx.config["x"],
                "cost": 7,
                "seed": ctx.seed,
                "kind": "test",
                "ok": True,
            }

        (outcome,) = bench.run(train, {"x": 3.5})
        assert (outcome.loss, outcome.cost) == (3.5, 7.0)
        assert outcome.metrics == {"seed": 100.0, "kind": "test", "ok": True}
        assert (bench.folder / "0" / "note").read_text() == "here"

    def test_reports_arrive_in_order_and_repeated_steps_are_ignored(self, bench: Bench) -> None:
        def train(config: Config, ctx: Context) -> float:
            for step in (0, 1, 1, 0, 2):
                rate = {"lr": np.float64(0.1)}
                ctx.report(step=step, loss=1.0 - step, cost=10 * step, metrics=rate)
            return -1.0

        (outcome,) = bench.run(train, {})
        assert [report for _, report in bench.reports] == [
            Report(step, 1.0 - step, 10.0 * step, {"lr": 0.1}) for step in range(3)
        ]
        assert outcome.cost == 20.0

    def test_a_trial_told_to_stop_keeps_its_last_loss_whatever_it_catches(
        self, bench: Bench
    ) -> None:
        def train(config: Config, ctx: Context) -> float:
            for step in range(1000):
                try:
                    ctx.report(step=step, loss=5.0 - step)
                except Exception:  # the habit that Stop must survive
                    pass
            return 0.0

        def answer(trial: Trial, report: Report) -> Decision:
            return Decision.STOP if report.step == 2 else Decision.CONTINUE

        (outcome,) = bench.run(train, {}, answer=answer)
        assert (outcome.status, outcome.loss, outcome.cause) == (Status.STOPPED, 3.0, None)
        assert len(bench.reports) == 3

    def test_a_trial_told_to_pause_keeps_its_last_loss(self, bench: Bench) -> None:
        def train(config: Config, ctx: Context) -> float:
            ctx.report(step=0, loss=5.0)
            return 0.0

        (outcome,) = bench.run(train, {}, answer=lambda trial, report: Decision.PAUSE)
        assert (outcome.status, outcome.loss, outcome.cause) == (Status.PAUSED, 5.0, None)

    def test_a_function_that_cleans_up_after_stop_may_still_return(self, bench: Bench) -> None:
        def train(config: Config, ctx: Context) -> float:
            try:
                ctx.report(step=0, loss=5.0)
            except Stop:
                assert ctx.should_stop
                return 4.0
            return 0.0

        (outcome,) = bench.run(train, {}, answer=lambda trial, report: Decision.STOP)
        assert (outcome.status, outcome.loss) == (Status.STOPPED, 4.0)

    def test_an_error_is_the_trials_own_and_keeps_its_cost(self, bench: Bench) -> None:
        def train(config: Config, ctx: Context) -> float:
            ctx.report(step=0, cost=2.0)
            raise RuntimeError("the layer is too wide")

        (outcome,) = bench.run(train, {})
        assert (outcome.status, outcome.cause, outcome.cost) == (Status.FAILED, Cause.ERROR, 2.0)
        assert "RuntimeError: the layer is too wide" in outcome.text
        assert outcome.loss is None and outcome.refusal is None

    def test_a_wrong_report_is_refused_and_not_just_a_failed_trial(self, bench: Bench) -> None:
        def train(config: Config, ctx: Context) -> float:
            ctx.report(step=0, loss="low")  # type: ignore[arg-type]
            return 0.0

        (outcome,) = bench.run(train, {})
        assert isinstance(outcome.refusal, TypeError)
        assert "loss must be a real number, got 'low'" in str(outcome.refusal)

    @pytest.mark.parametrize(
        "error", [RuntimeError, OSError, EOFError, BrokenPipeError, SystemExit, Stop]
    )
    def test_what_the_driver_raises_at_a_report_is_raised_there_and_is_no_outcome(
        self, bench: Bench, error: type[BaseException]
    ) -> None:
        def train(config: Config, ctx: Context) -> float:
            try:
                ctx.report(step=0, loss=5.0)
            except Exception:  # the habit that it must survive
                pass
            return 0.0

        def answer(trial: Trial, report: Report) -> Decision:
            raise error("the database is gone")

        with pytest.raises(error, match="the database is gone"):
            bench.run(train, {}, answer=answer)

    def test_a_checkpoint_that_cannot_be_written_says_nothing_of_the_config(
        self, bench: Bench
    ) -> None:
        def train(config: Config, ctx: Context) -> float:
            ctx.report(step=0, loss=5.0, cost=2.0)
            try:
                ctx.save({"step": 0})
            except OSError as error:
                if config["rescued"]:
                    return 4.0
                raise RuntimeError("so much for that") from error
            return 0.0

        (bench.folder / "file").touch()
        bench.folder = bench.folder / "file"  # below which no folder can be made
        (outcome,) = bench.run(train, {"rescued": False})
        assert (outcome.status, outcome.cause, outcome.cost) == (Status.FAILED, Cause.LOST, 2.0)
        assert isinstance(outcome.refusal, StudyError) and str(bench.folder) in outcome.text
        (outcome,) = bench.run(train, {"rescued": True})
        assert (outcome.status, outcome.loss, outcome.refusal) == (Status.COMPLETED, 4.0, None)

    @pytest.mark.parametrize("content", [b"", b"torn", b"PK\x03\x04" + b"\0" * 64, "half"])
    def test_a_damaged_checkpoint_counts_as_none(self, bench: Bench, content: bytes | str) -> None:
        def train(config: Config, ctx: Context) -> float:
            started = ctx.load() is None and ctx.parent_checkpoint is None
            ctx.save({"step": 1})
            return float(started)

        save_state(bench.folder / "0", {"step": 1}, seconds=0.0)
        for name in (STATE_FILE, PARENT_FILE):
            whole = (bench.folder / "0" / STATE_FILE).read_bytes()
            damaged = content if isinstance(content, bytes) else whole[: len(whole) // 2]
            (bench.folder / "0" / name).write_bytes(damaged)
        (outcome,) = bench.run(train, {})
        assert (outcome.status, outcome.loss) == (Status.COMPLETED, 1.0)
        saved = load_state(bench.folder / "0")
        assert saved is not None and saved.state == {"step": 1}

    def test_errors_of_disks_and_networks_are_the_machines_and_others_are_the_configs(
        self, bench: Bench
    ) -> None:
        def train(config: Config, ctx: Context) -> float:
            assert ctx.checkpoint_dir is not None
            match config["what"]:
                case "full":
                    raise OSError(errno.ENOSPC, "No space left on device")
                case "reset":
                    raise RuntimeError("no data") from ConnectionResetError("by peer")
                case "torch":
                    raise RuntimeError("PytorchStreamWriter failed writing file data/0")
                case "loader":
                    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
                case "vanished":
                    folder = ctx.checkpoint_dir
                    shutil.rmtree(folder)
                    (folder / "mine").write_text("")
                case "missing":
                    (ctx.checkpoint_dir / "mine").read_text()
                case "cancelled":
                    raise asyncio.CancelledError

                case "mute":

                    class Mute(Exception):
                        def __init__(self) -> None:
                            self.lock = threading.Lock()

                        def __str__(self) -> str:
                            raise AttributeError

                    raise Mute
                case "value":

                    class Lazy(dict[str, Any]):
                        def get(self, *arguments: Any) -> Any:
                            raise RuntimeError("CUDA error: device-side assert triggered")

                    return Lazy(loss=0.5)  # type: ignore[return-value]
            return 0.0

        machine, config = (
            ["full", "reset", "torch", "loader", "vanished"],
            [
                "missing",
                "cancelled",
                "mute",
                "value",
            ],
        )
        causes = {}
        for what in machine + config:
            (outcome,) = bench.run(train, {"what": what})
            causes[what] = outcome.cause
            assert (outcome.refusal is None) is (what in config)
        assert causes == dict.fromkeys(machine, Cause.LOST) | dict.fromkeys(config, Cause.ERROR)

    def test_a_refusal_of_a_class_of_the_users_own_arrives_in_plain(self, bench: Bench) -> None:
        def train(config: Config, ctx: Context) -> Any:
            class Odd(ValueError):
                def __init__(self, message: str) -> None:
                    super().__init__(message)
                    self.lock = threading.Lock()

            class Loss(dict[str, Any]):
                def get(self, *arguments: Any) -> Any:
                    raise Odd("no such cost")

            return Loss(loss=0.5)

        (outcome,) = bench.run(train, {})
        assert type(outcome.refusal) is ValueError and str(outcome.refusal) == "no such cost"

    def test_a_checkpoint_carries_the_time_that_led_to_it(
        self, bench: Bench, make: Callable[[], Runner]
    ) -> None:
        def train(config: Config, ctx: Context) -> float:
            state = ctx.load()
            time.sleep(0.1)
            ctx.save({"visits": 1 if state is None else state["visits"] + 1})
            return 0.0 if state is None else float(state["visits"])

        (first,) = bench.run(train, {})
        bench.runner.close()
        bench.runner = make()
        (second,) = bench.run(train, {})
        assert (first.loss, second.loss) == (0.0, 1.0)
        assert 0.1 <= first.seconds < second.seconds and second.seconds >= 0.2

    def test_it_is_interruptible_exactly_if_it_runs_functions_in_the_driver(
        self, bench: Bench
    ) -> None:
        (outcome,) = bench.run(lambda config, ctx: {"loss": 0.0, "pid": os.getpid()}, {})
        assert (outcome.metrics["pid"] == os.getpid()) is bench.runner.interruptible

    def test_closing_twice_does_nothing(self, bench: Bench) -> None:
        bench.run(lambda config, ctx: 0.0, {})
        bench.runner.close()
        bench.runner.close()
