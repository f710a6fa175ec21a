"""JSON values as attributes, whole or in chunks."""

import json
import random

import pytest

from hpo.trials.attributes import read, read_if_whole, split, split_numbered

LONGEST = 65_535  # bytes of a text in MySQL


@pytest.mark.parametrize("size", [0, 2500, 20_000, 60_000, 200_000])
def test_long_attributes_are_split_below_the_limit_and_read_back(size: int) -> None:
    rng = random.Random(size)
    value = {"text": "".join(rng.choice('a"\\\n\u00e9') for _ in range(size))}
    parts = split("key", value)
    assert parts[-1][0] == "key"
    assert all(len(json.dumps(part)) <= LONGEST for _, part in parts)
    assert read(dict(parts), "key") == value
    counted = split_numbered("key", value)
    assert all(len(json.dumps(part)) <= LONGEST for _, part in counted)
    assert counted[-1] == ("key", len(counted) - 1)
    assert read(dict(counted), "key") == value


def test_a_long_value_takes_few_attributes_for_each_is_a_transaction() -> None:
    reports = [{"step": step, "loss": 0.123456789, "cost": None} for step in range(20_000)]
    length = len(json.dumps(reports))
    assert len(split("told", {"reports": reports})) < 5 + 2 * length / LONGEST * 1.2


def test_what_earlier_versions_stored_is_read() -> None:
    assert read({"told": {"loss": 0.5}}, "told") == {"loss": 0.5}
    chunks = {"told:0": '{"lo', "told:1": 'ss": 1}'}
    assert read(chunks | {"told": {"chunks": 2}}, "told") == {"loss": 1}
    assert read(chunks | {"told": 2}, "told") == {"loss": 1}
    assert read({}, "told") is None


def test_a_value_that_is_half_written_is_an_error_or_nothing_as_asked() -> None:
    half = {"asked:0": '{"lo', "asked": 2}
    with pytest.raises(KeyError):
        read(half, "asked")
    assert read_if_whole(half, "asked") is None
    assert read_if_whole(half | {"asked:1": "other"}, "asked") is None
