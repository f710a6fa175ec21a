from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.workloads.corpus import (
    SEPARATOR,
    is_held_out,
    sample_sequences,
    spread_sequences,
    standard_library,
    standard_library_files,
)


def test_files_come_in_one_order_without_tests_or_packages() -> None:
    files = standard_library_files()
    assert files == sorted(files, key=Path.as_posix)
    assert Path("argparse.py") in files
    parts = {part for path in files for part in path.parts}
    assert parts.isdisjoint({"site-packages", "test", "tests", "__pycache__"})


def test_tests_only_add_files() -> None:
    assert set(standard_library_files()) < set(standard_library_files(tests=True))


def test_a_tenth_of_the_files_is_held_out() -> None:
    files = standard_library_files()
    share = sum(map(is_held_out, files)) / len(files)
    assert 0.06 < share < 0.14  # three standard deviations at 600 files


@given(st.lists(st.sampled_from("abc/."), min_size=1).map("".join), st.floats(0, 1))
def test_a_file_stays_held_out_when_more_are(name: str, fraction: float) -> None:
    path = Path(name)
    assert not is_held_out(path, fraction=0.0)
    assert is_held_out(path, fraction=1.0)
    assert is_held_out(path, fraction=fraction) <= is_held_out(path, fraction=(1 + fraction) / 2)


def test_every_file_is_in_exactly_one_text() -> None:
    corpus = standard_library()
    train = corpus.train.numpy().tobytes().split(SEPARATOR)
    validation = corpus.validation.numpy().tobytes().split(SEPARATOR)
    assert len(train) + len(validation) == len(standard_library_files())
    argparse = next(text for text in train + validation if b"class ArgumentParser" in text)
    assert (argparse in validation) == is_held_out(Path("argparse.py"))


def test_sequences_are_stretches_of_the_text_drawn_from_the_generator() -> None:
    text = torch.arange(200, dtype=torch.uint8)
    first = sample_sequences(text, 50, 9, rng=torch.Generator().manual_seed(3))
    again = sample_sequences(text, 50, 9, rng=torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert first.shape == (50, 9) and first.dtype == torch.int64
    assert torch.equal(first - first[:, :1], torch.arange(9).expand(50, 9))


def test_sampling_reaches_both_ends_of_the_text() -> None:
    text = torch.arange(5, dtype=torch.uint8)
    drawn = sample_sequences(text, 200, 4, rng=torch.Generator().manual_seed(0))
    assert set(drawn[:, 0].tolist()) == {0, 1}


def test_evaluation_set_spans_the_whole_text() -> None:
    text = torch.arange(101, dtype=torch.uint8)
    rows = spread_sequences(text, 5, 5)
    assert rows[:, 0].tolist() == [0, 24, 48, 72, 96]
    assert rows[-1, -1] == 100
