"""Any file is read, or refused in one line; what is read can be fitted."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hpo import Optimizer, SpaceError, Status, read_runs
from hpo.space.encoding import Encoder
from hpo.trials.read_runs import RunFileError

NAMES = [
    "lr", "lr", "learning_rate", "N", "params", "tokens", "D", "loss", "val/loss", "cost",
    "runtime", "state", "optimizer", "momentum", "config.lr", "run", "step", "seed", "", "lr:log",
    "x y", "Größe",
]  # fmt: skip
WORDS = [
    "", "nan", "NaN", "-nan", "1.#QNAN", "NA", "null", "None", "inf", "-inf", "1e400", "-1e400",
    "1e-400", "0", "-1", "1", "3e-4", "0,0003", "1,5", "1,000", "1.000", "1.000.000", "1,000,000",
    "1 000", "125M", "1.4T", "7B", "12.5%", "1:23:45", "1d 2h", "5m", ">10", "big", "adamw", "sgd",
    "finished", "crashed", "running", "True", "False", "2^-7", "2**4000", "3x10^8", '"', "'",
    "\x00", "\ud7ff", "1e5", "9" * 400, "1_000", "∞", "−3", "²", "tensor(2.5)", "$12", "{}", "[1]",
]  # fmt: skip
CELLS = st.one_of(st.sampled_from(WORDS), st.floats(allow_nan=False).map(repr), st.text(max_size=4))
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1", "cp1252"]


USUAL = {
    "lr": ["1e-3", "3e-4", "0.01", "0,003", "1.5e-2", "1E-2"],
    "N": ["125M", "1e6", "350000000", "1.3B", "1,000,000", "2.000.000", "10 000"],
    "loss": ["2.5", "3", "2,75", "1e1", "nan", "", "NA", "inf", "diverged", "12.5%"],
    "State": ["finished", "crashed", "running", "killed", "", "odd"],
    "optimizer": ["adamw", "sgd", "lion"],
    "momentum": ["0.9", "", "0.5", "nan"],
    "Runtime": ["60", "1:23:45", "", "1d 2h", "5m"],
    "epochs": ["1", "3", "9", "27"],
}  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> bytes:
    usual = draw(st.lists(st.sampled_from([*USUAL]), max_size=5, unique=True))
    names = ["loss", "lr", *(name for name in usual if name not in ("loss", "lr"))]
    header = draw(st.permutations(names + draw(st.lists(st.sampled_from(NAMES), max_size=2))))
    noise = draw(st.sampled_from([0, 0, 30, 5]))  # one cell in so many is anything
    rows = []
    for _ in range(draw(st.integers(0, 8))):
        row = []
        for name in header:
            odd = name not in USUAL or (noise and draw(st.integers(1, noise)) == 1)
            row.append(draw(CELLS if odd else st.sampled_from(USUAL[name])))
        rows.append(row)
    if rows and noise == 5 and draw(st.booleans()):
        rows[-1] = rows[-1][: draw(st.integers(0, len(header)))]
    rows += draw(st.lists(st.sampled_from(rows), max_size=3)) if rows else []
    delimiter = draw(st.sampled_from([";", "\t", ",", "|"]))
    if draw(st.integers(1, 8)) == 1:
        text = "\n".join(delimiter.join(row) for row in [header, *rows])
    else:
        out = io.StringIO()
        quoting: Literal[0, 1] = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        csv.writer(out, delimiter=delimiter, quoting=quoting).writerows([header, *rows])
        text = out.getvalue()
    if draw(st.integers(1, 4)) == 1:
        start = f"sep={delimiter}\n"
        text = draw(st.sampled_from([start, "# runs\n", "\n\n", " "])) + text
    return text.encode(draw(st.sampled_from(ENCODINGS)), errors="replace")


def is_read_or_refused(path: Path) -> bool:
    try:
        runs = read_runs(path)
    except (RunFileError, SpaceError) as refused:
        message = str(refused)
        assert message.strip() and "\n" not in message and len(message) < 2000
        return False
    assert runs.observations and str(runs) and len(set(runs.keys)) == len(runs)
    assert np.all(np.isfinite(Encoder(runs.space).encode([o.config for o in runs.observations])))
    optimizer = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
    for o in runs.observations:
        optimizer.record(o)
        if o.status is Status.COMPLETED:
            assert o.loss is not None and math.isfinite(o.loss)
        elif o.status is Status.FAILED:
            assert o.loss is None
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(files())
@example(b"\xff\xfe\x00")
@example(b"lr,N,loss\n\xff\xfe")
@example("lr;loss\n0,1;2\n0,2;3\n".encode("utf-32"))
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(data)
    is_read_or_refused(path)


@pytest.mark.engine
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(files())
def test_thousands_of_files_are_read_or_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(data)
    is_read_or_refused(path)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.engine
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(JSON, max_size=5), st.booleans(), st.sampled_from(["", "{", ",", "\n"]))
def test_any_json_is_read_or_refused_in_one_line(
    tmp_path: Path, values: list[object], lines: bool, more: str
) -> None:
    import json

    path = tmp_path / "runs.json"
    text = "\n".join(map(json.dumps, values)) if lines else json.dumps(values)
    path.write_text(text + more)
    is_read_or_refused(path)
