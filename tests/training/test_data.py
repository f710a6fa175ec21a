import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo.training.data import Shuffled, Source, Windows, examples_in, to_device

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
