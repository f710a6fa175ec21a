"""What tests of studies share: a space, a training function, and what to read from a result."""

import sys
from typing import Any

import cloudpickle

from hpo import (
    Categorical,
    Context,
    Float,
    Observation,
    Report,
    Result,
    Trial,
)
from hpo.study.callbacks import Callback, StudyState

# Workers then need not import this file and what it imports, which takes seconds.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Config = dict[str, Any]
SPACE = {"x": Float(-1.0, 1.0), "kind": Categorical(["a", "b"])}


def bowl(config: Config, ctx: Context) -> dict[str, float]:
    return {"loss": config["x"] ** 2 + (config["kind"] == "b"), "cost": 2.0}


class Recorder(Callback):
    """Callback that notes its calls, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_start(self, run: StudyState) -> None:
        self.events.append(("start", run.ledger.spent.trials))

    def on_trial_start(self, run: StudyState, trial: Trial) -> None:
        self.events.append(("trial", trial.number))

    def on_report(self, run: StudyState, trial: Trial, report: Report) -> None:
        self.events.append(("report", report.step))

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        self.events.append(("end", observation))

    def on_error(self, run: StudyState, error: BaseException) -> None:
        self.events.append(("error", type(error)))

    def on_finish(self, run: StudyState, result: Result) -> None:
        self.events.append(("finish", run.ledger.spent.trials))

    @property
    def observations(self) -> list[Observation]:
        return [what for event, what in self.events if event == "end"]


def asks(result: Result) -> list[tuple[int | None, Config]]:
    return [(o.ask_index, o.config) for o in result.log.observations if o.cause is None]
