"""Callbacks and the live view."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from hpo import (
    Budget,
    Context,
    Observation,
    Trial,
    optimize,
)
from hpo.study.callbacks import Callback, StudyState
from hpo.study.progress import Progress
from tests.study.studies import SPACE, Config, Recorder, bowl


def test_callbacks_are_called_at_every_step_in_order() -> None:
    def train(config: Config, ctx: Context) -> float:
        ctx.report(step=0, loss=2.0)
        return 1.0

    recorder = Recorder()
    optimize(train, SPACE, budget=Budget(trials=2), callbacks=[recorder])
    assert [event for event, _ in recorder.events] == [
        "start", *["trial", "report", "end"] * 2, "finish"
    ]  # fmt: skip


def test_an_error_in_a_callback_ends_the_study_with_everything_told_in_place(
    folder: Path,
) -> None:
    class Faulty(Callback):
        def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
            if trial.number == 1:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimize(bowl, SPACE, budget=Budget(trials=5), cost="flops", name="n", callbacks=[Faulty()])
    result = optimize(bowl, SPACE, budget=Budget(trials=5), cost="flops", name="n")
    assert [o.number for o in result.log.observations] == list(range(5))


def test_the_live_view_shows_trials_loss_spend_front_and_time_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open(os.devnull, "w") as nowhere:
        console = Console(force_terminal=True, width=100, file=nowhere, record=True)
        optimize(
            bowl,
            SPACE,
            budget=Budget(trials=3, cost=60.0),
            cost="flops",
            callbacks=[Progress(console=console)],
        )
        shown = console.export_text()
    for words in (
        "trials",
        "3 / 3",
        "cost",
        "6 / 60",
        "0 failed",
        "best loss",
        "front",
        "time to go",
    ):
        assert words in shown
    optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", callbacks=[Progress()])
    assert capsys.readouterr().out == ""
