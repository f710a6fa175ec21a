"""Text of unknown origin is printed without control characters."""

import logging
import pickle
from typing import Any

import pytest

from hpo import (
    Budget,
    BudgetError,
    Categorical,
    Float,
    Optimizer,
    Scale,
    SpaceError,
    StudyError,
    optimize,
)
from hpo.errors import printable

CLEAR = "\x1b[2J\x1b]0;title\x07\r\x9b1A\u202e"  # clears, renames, goes back, turns around


def hostile(text: str) -> bool:
    return any(not (letter.isprintable() or letter in "\n\t") for letter in text)


def test_control_characters_become_escapes_and_all_other_text_stays() -> None:
    assert printable("a\x1b[31m\r\x00\ud800") == r"a\x1b[31m\r\x00\ud800"
    for text in ("plain", "a\nb\tc", "μ 学習率 é 😀", r"C:\new", "[red]"):
        assert printable(text) == text
    assert not hostile(printable(CLEAR))


@pytest.mark.parametrize("kind", [SpaceError, BudgetError, StudyError])
def test_an_error_prints_no_control_characters_and_stays_what_it_is(kind: type[Exception]) -> None:
    error = kind(f"`{CLEAR}` must be")
    assert not hostile(str(error)) and "must be" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.args == error.args


def test_nothing_that_a_study_prints_moves_the_cursor() -> None:
    space: dict[str, Any] = {
        f"lr{CLEAR}": Float(1e-4, 1e-1, log=True),
        f"kind{CLEAR}": Categorical([f"a{CLEAR}", "b"]),
        f"size{CLEAR}": Scale(1e5, 1e7),
    }
    optimizer = Optimizer(space, cost=f"flops{CLEAR}")
    for _ in range(5):
        trial = optimizer.ask()
        optimizer.tell(trial, trial.config[f"lr{CLEAR}"] + 1, cost=trial.config[f"size{CLEAR}"])
    result = optimizer.result()
    assert trial.prediction is not None
    shown = [
        result,
        result.predict(),
        result.recommend(),
        result.scaling_law,
        result.cost_law,
        trial.prediction,
        trial.prediction.reason,
        space,
    ]
    for value in shown:
        assert value is not None and not hostile(str(value)), type(value)


def test_a_log_line_about_a_failure_has_no_control_characters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def train(config: dict[str, Any], ctx: object) -> float:
        raise ValueError(f"bad {CLEAR}")

    optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=1))
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "bad" in line and not hostile(line)
