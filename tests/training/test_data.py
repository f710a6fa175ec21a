from collections import UserDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo.training.data import (
    BatchStream,
    Shuffled,
    Source,
    Windows,
    examples_in,
    part_of,
    to_device,
)

SOURCES: list[Source] = [
    Shuffled([torch.arange(10), torch.arange(10) * 2.0]),
    Windows(torch.arange(50, dtype=torch.uint8), 7),
]


def joined(batches: list[object]) -> list[torch.Tensor]:
    parts = [b if isinstance(b, tuple) else (b,) for b in batches]
    return [torch.cat(list(column)) for column in zip(*parts, strict=True)]


@pytest.mark.parametrize("source", SOURCES)
@given(first=st.integers(0, 40), cuts=st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_examples_do_not_depend_on_how_they_are_cut(
    source: Source, first: int, cuts: list[int]
) -> None:
    whole = joined([source.batch(first, sum(cuts), seed=3)])
    pieces, at = [], first
    for count in cuts:
        pieces.append(source.batch(at, count, seed=3))
        at += count
    assert all(torch.equal(a, b) for a, b in zip(whole, joined(pieces), strict=True))


def test_an_epoch_has_every_row_once_in_a_new_order() -> None:
    source = Shuffled([torch.arange(100)])
    first, second = (source.rows(start, 100, seed=0) for start in (0, 100))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert not torch.equal(first, second)
    assert not torch.equal(first, source.rows(0, 100, seed=1))


def test_rows_of_several_tensors_stay_together() -> None:
    numbers, doubles = SOURCES[0].batch(3, 20, seed=5)
    assert torch.equal(2.0 * numbers, doubles)


def test_windows_are_contiguous_and_reach_both_ends() -> None:
    drawn = Windows(torch.arange(9, dtype=torch.uint8), 4).batch(0, 500, seed=0)
    assert drawn.dtype == torch.int64 and drawn.shape == (500, 4)
    assert torch.equal(drawn - drawn[:, :1], torch.arange(4).expand(500, 4))
    counts = drawn[:, 0].bincount(minlength=6)
    assert len(counts) == 6 and int(counts.min()) > 50  # 83 each, standard deviation 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: Shuffled([]),
        lambda: Shuffled([torch.arange(2), torch.arange(3)]),
        lambda: Windows(torch.arange(3), 4),
    ],
)
def test_invalid_data_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match="must"):
        make()


def test_examples_are_counted_in_nested_batches() -> None:
    batch = {"meta": "x", "inputs": [torch.zeros(4, 2), torch.zeros(4)]}
    assert examples_in(batch) == 4
    assert examples_in(to_device(batch, torch.device("cpu"))) == 4
    with pytest.raises(ValueError, match="a batch must be a tensor"):
        examples_in("text")


# --- batches of a loader


class Loader:
    """Numbers 0 .. `length` - 1 in batches, the last of which may be smaller."""

    def __init__(self, length: int, size: int) -> None:
        self.length, self.size = length, size

    def __iter__(self) -> Any:
        return iter(torch.arange(self.length).split(self.size))


@given(
    length=st.integers(1, 30),
    size=st.integers(1, 12),
    micro=st.integers(1, 12),
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=6),
)
def test_an_update_has_as_many_examples_as_asked_for_whatever_the_loader_gives(
    length: int, size: int, micro: int, counts: list[int]
) -> None:
    stream = BatchStream(Loader(length, size), micro_batch=micro, seed=0)
    seen: list[int] = []
    for count in counts:
        pieces = list(stream.pieces(len(seen), count))
        assert sum(len(batch) for batch, _ in pieces) == count
        assert all(len(batch) <= min(micro, size) for batch, _ in pieces)
        assert all(weight == len(batch) / count for batch, weight in pieces)
        seen += [int(number) for batch, _ in pieces for number in batch]
    assert seen == [i % length for i in range(sum(counts))]


@given(cut=st.integers(0, 6), size=st.integers(1, 5), count=st.integers(1, 7))
def test_a_loader_goes_on_inside_a_batch_after_a_checkpoint(
    cut: int, size: int, count: int
) -> None:
    def numbers(stream: BatchStream, updates: int) -> list[list[int]]:
        return [
            [int(number) for batch, _ in stream.pieces(0, count) for number in batch]
            for _ in range(updates)
        ]

    whole = numbers(BatchStream(Loader(7, size), micro_batch=8, seed=0), 8)
    before = BatchStream(Loader(7, size), micro_batch=8, seed=0)
    first = numbers(before, cut)
    after = BatchStream(Loader(7, size), micro_batch=8, seed=0)
    after.resume(before.state(), torch.device("cpu"))
    assert first + numbers(after, 8 - cut) == whole


def test_a_batch_is_cut_at_any_depth() -> None:
    Pair = namedtuple("Pair", ["x", "y"])  # noqa: PYI024 - as users define them
    rows = torch.arange(4)
    batch = UserDict(
        {"pair": Pair(rows, [rows * 2]), "names": ["a", "b", "c", "d"], "epoch": torch.tensor(3)}
    )
    part = part_of(batch, 1, 3)
    assert part["pair"].x.tolist() == [1, 2] and part["pair"].y[0].tolist() == [2, 4]
    assert part["names"] == ["b", "c"] and part["epoch"] == 3
    moved = to_device(batch, torch.device("cpu"))
    assert isinstance(moved["pair"], Pair) and examples_in(moved) == 4


def test_a_batch_without_one_row_per_example_is_cut_by_nobody() -> None:
    with pytest.raises(ValueError, match=r"one row per example in every tensor.*got 3, 4 rows"):
        part_of({"tokens": torch.zeros(4), "starts": torch.zeros(3)}, 0, 2)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8, np.int32])
def test_windows_are_read_from_a_file_that_is_mapped_into_memory(
    dtype: type, tmp_path: Path
) -> None:
    np.arange(60, dtype=dtype).tofile(tmp_path / "tokens.bin")
    mapped = np.memmap(tmp_path / "tokens.bin", dtype=dtype, mode="r")
    expected = Windows(torch.arange(60), 5).batch(3, 20, seed=1)
    assert torch.equal(Windows(mapped, 5).batch(3, 20, seed=1), expected)
    tensor = torch.from_numpy(np.array(mapped))
    assert torch.equal(Windows(tensor, 5).batch(3, 20, seed=1), expected)


@pytest.mark.parametrize("text", [torch.zeros(9), torch.zeros(3, 3).long(), [1, 2, 3], np.ones(9)])
def test_a_text_is_integers_in_one_dimension(text: Any) -> None:
    with pytest.raises(TypeError, match="`text` must be a tensor or an array of integers"):
        Windows(text, 2)
