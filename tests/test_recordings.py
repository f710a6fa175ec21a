"""Recorded studies are asked again, to the last bit: see tests/recordings/record.py.

A change that is meant to alter what is asked for records again and says so; any other change that
fails here has altered it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.engine


def _load() -> ModuleType:
    path = Path(__file__).parent / "recordings" / "record.py"
    spec = importlib.util.spec_from_file_location("recorded_studies", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


record = _load()
HERE, THERE = record.environment(), record.recorded_environment()
OTHER = [
    f"{name} is {HERE[name]}, was {THERE[name]}" for name in THERE if HERE[name] != THERE[name]
]


@pytest.mark.skipif(bool(OTHER), reason=f"recorded elsewhere, last bits differ: {OTHER}")
@pytest.mark.parametrize("name", record.STUDIES)
def test_a_recorded_study_is_asked_again_to_the_last_bit(name: str) -> None:
    difference = record.difference(name, record.replay(name))
    assert difference is None, difference


def test_every_study_is_recorded_and_every_recording_has_a_study() -> None:
    files = {path.stem for path in record.FOLDER.glob("*.json")} - {"environment"}
    assert files == set(record.STUDIES)


def test_a_changed_bit_is_found() -> None:
    rows = record.recorded("plain_floats")
    assert record.difference("plain_floats", rows) is None
    assert "row 0" in record.difference(
        "plain_floats", [rows[0].replace("0.", "0.0", 1), *rows[1:]]
    )
    assert "rows were recorded" in record.difference("plain_floats", rows[:-1])
