"""How far a study is: in a notebook, in a log, and where there is nothing to show."""

from __future__ import annotations

import logging
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from hpo import Budget, Float, optimize
from hpo.study.progress import Progress

SPACE = {"x": Float(0, 1)}


def slow(config: dict[str, Any], ctx: Any) -> float:
    time.sleep(0.15)
    return float(config["x"])


def test_without_a_terminal_a_line_is_logged_at_regular_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="hpo.study.progress"):
        optimize(
            slow,
            SPACE,
            budget=Budget(trials=3),
            direction="maximize",
            callbacks=[Progress(every=0.1)],
        )
    lines = [r.getMessage() for r in caplog.records if r.name == "hpo.study.progress"]
    assert len(lines) >= 2
    for words in (
        "3 / 3 trials",
        "0 running",
        "0 failed",
        "best value",
        "seconds",
        "time to go 0:",
    ):
        assert words in lines[-1]


def test_a_line_goes_to_standard_error_where_no_logging_is_set_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("hpo.study.progress"), "hasHandlers", lambda: False)
    monkeypatch.setattr(logging, "lastResort", logging._StderrHandler(logging.WARNING))  # type: ignore[attr-defined]
    optimize(slow, SPACE, budget=Budget(trials=2), callbacks=[Progress(every=0.1)])
    shown = capsys.readouterr()
    assert "2 / 2 trials" in shown.err and shown.out == ""


def test_a_short_study_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hpo.study.progress"):
        optimize(slow, SPACE, budget=Budget(trials=1))
    assert not [r for r in caplog.records if r.name == "hpo.study.progress"]


def test_in_a_notebook_one_table_is_shown_and_kept_up_to_date(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)

    def display(page: str, display_id: bool) -> SimpleNamespace:
        shown.append(page)
        return handle

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    module = SimpleNamespace(display=display, HTML=str)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    optimize(lambda config, ctx: config["x"], SPACE, budget=Budget(trials=2))
    assert len(shown) >= 2 and "0 / 2" in shown[0] and "2 / 2" in shown[-1]
    assert shown[-1].startswith("<div>") and "best loss" in shown[-1]


def test_a_plain_ipython_terminal_is_no_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    optimize(lambda config, ctx: config["x"], SPACE, budget=Budget(trials=1))
    assert capsys.readouterr().out == ""


def test_a_view_that_is_switched_off_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hpo.study.progress"):
        callbacks = [Progress(every=0.01, enabled=False)]
        optimize(slow, SPACE, budget=Budget(trials=1), callbacks=callbacks)
    assert not [r for r in caplog.records if r.name == "hpo.study.progress"]
