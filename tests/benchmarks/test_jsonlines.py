"""Rows that survive a kill, and files that belong to something else."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.jsonlines import append_row, read_rows

ROWS = st.lists(st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text()))


@settings(max_examples=30)
@given(ROWS)
def test_rows_come_back_in_the_order_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "folder" / "rows.jsonl"
    assert read_rows(path) == []
    for row in rows:
        append_row(path, row)
    assert read_rows(path) == rows


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_cut_off_by_a_kill_costs_only_itself(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl"
    for number in range(2):
        append_row(path, {"number": number})
    path.write_bytes(path.read_bytes()[:-cut])
    append_row(path, {"number": 2})
    whole = cut == 1  # only the line break is lost
    assert read_rows(path) == [{"number": n} for n in ((0, 1, 2) if whole else (0, 2))]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("problem,method\na,b\n")
    with pytest.raises(ValueError, match="one JSON object a line"):
        read_rows(path)
