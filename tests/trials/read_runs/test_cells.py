"""Cells as numbers: units, decimal marks, durations, and what is missing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.trials.read_runs.cells import decimal_mark, is_missing, read_number, read_numbers
from hpo.trials.read_runs.outcomes import RunState, state_of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3e-4", 3e-4), ("125M", 1.25e8), ("130m", 1.3e8), ("1.4T", 1.4e12), ("7B", 7e9),
        ("2.5 bn", 2.5e9), ("2.5B tokens", 2.5e9), ("64k", 64e3), ("12.5%", 0.125), ("12 %", 0.12),
        ("1,000,000", 1e6), ("1,234.5", 1234.5), ("1 000 000", 1e6), ("1'000'000", 1e6),
        ("1_000", 1e3), ("1\u202f000", 1e3), ("2^-7", 2**-7), ("2**10", 1024.0), ("3x10^8", 3e8),
        ("3\u00b710^8", 3e8), ("\u22123", -3.0), ("$12.50", 12.5), ("1e18 FLOPs", 1e18),
        ("312 TFLOPs", 3.12e14), ("tensor(2.5, device='cuda:0')", 2.5), ("np.float64(2.5)", 2.5),
        ("1e400", math.inf), ("-inf", -math.inf), ("\u221e", math.inf), (".5", 0.5), ("+5", 5.0),
    ],
)  # fmt: skip
def test_numbers_are_read_with_their_units(text: str, number: float) -> None:
    assert read_number(text) == pytest.approx(number)
    assert read_number(f" {text} ") == pytest.approx(number)


@pytest.mark.parametrize(
    "text", ["big", "1.2.3", "1,5", "12,34,5", "1-2", "e5", "2026-01-01", "5 apples", "[1, 2]"]
)
def test_other_texts_are_no_numbers(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0,0003", 3e-4),
        ("1.000.000", 1e6),
        ("1.234,5", 1234.5),
        ("3,5e-4", 3.5e-4),
        ("1,5M", 1.5e6),
    ],
)
def test_decimal_commas_are_read_where_the_column_has_them(text: str, number: float) -> None:
    assert read_number(text, decimal=",") == pytest.approx(number)


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["0,1", "0,25"], ","),
        (["1,000", "12,5"], ","),
        (["1,000,000"], "."),
        (["1.234,5"], ","),
        (["1,234.5"], "."),
        (["1.000.000"], ","),
        (["3,392", "2,104"], None),
        (["3.392", "2.1"], "."),
        (["adamw, or so"], "."),
        ([1.5, None], "."),
    ],
)
def test_the_decimal_mark_is_that_of_the_column(cells: list[object], mark: str | None) -> None:
    assert decimal_mark(cells) == mark


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1:23:45", 5025.0), ("0:00:10.5", 10.5), ("83:45", 5025.0), ("1 day, 2:03:04", 93784.0),
        ("0 days 00:01:01.5", 61.5), ("1-02:03:04", 93784.0), ("1d 2h", 93600.0), ("90min", 5400.0),
        ("1h23m", 4980.0), ("45 s", 45.0), ("250ms", 0.25), ("3600", 3600.0), ("2w", 1209600.0),
    ],
)  # fmt: skip
def test_durations_are_read_in_seconds(text: str, seconds: float) -> None:
    assert read_number(text, duration=True) == pytest.approx(seconds)


def test_what_is_missing_is_told_from_what_is_said_to_be_nan() -> None:
    missing = ["", " ", "NA", "n/a", "null", "None", "-", "\u2014", "#N/A", None]
    assert all(map(is_missing, missing))
    said = read_numbers(["nan", "NaN", "-nan", "1.#QNAN", "-1.#IND", float("nan")])
    assert not said.missing.any() and not said.text.any()
    assert all(map(math.isnan, said.values))


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=5))
def test_numbers_are_read_back_as_they_were_written(numbers: list[float]) -> None:
    assert read_numbers([repr(number) for number in numbers]).values.tolist() == numbers
    assert read_numbers(numbers).values.tolist() == numbers
    with_comma = [repr(number).replace(".", ",") for number in numbers]
    assert read_numbers(with_comma, decimal=",").values.tolist() == numbers


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ("finished FINISHED Completed TERMINATED TrialState.COMPLETE success", RunState.COMPLETED),
        ("running RUNNING pending Queued ACTIVE WAITING in-progress", RunState.RUNNING),
        ("failed FAIL crashed ERROR INFEASIBLE", RunState.ERROR),
        ("killed STOPPED Aborted PRUNED cancelled preempted", RunState.ENDED),
        ("OOM out_of_memory CUDA-OOM", RunState.OOM),
        ("timeout TIMED_OUT", RunState.TIMEOUT),
        ("diverged exploded NaN", RunState.DIVERGED),
    ],
)
def test_states_of_other_tools_are_known(words: str, state: RunState) -> None:
    assert [state_of(word) for word in words.split()] == [state] * len(words.split())
