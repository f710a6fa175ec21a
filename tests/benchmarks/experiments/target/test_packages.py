"""Packages in an environment of their own: asked by JSON, and named where they are missing."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments.target import packages
from benchmarks.experiments.target.question import Array, Foreseen, RivalMissing

TOLD = np.array([[1e8, 1e9], [2e8, 4e9], [4e8, 8e9]])
LOSS = np.array([3.0, 2.8, 2.6])


def _mean(told: Array, loss: Array, asked: Array) -> tuple[Foreseen, dict[str, float]]:
    level = np.full(len(asked), loss.mean())
    return Foreseen(level, level - 0.5, level + 0.5), {"alpha": 0.5, "beta": 0.5}


def test_a_package_that_is_not_here_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCALETUNE_ENVS", str(tmp_path))
    monkeypatch.setitem(packages.PACKAGES, "gone", ("no_such_module", _mean))  # type: ignore[misc]
    with pytest.raises(RivalMissing, match="run `python -m benchmarks env laws`"):
        packages.foresee("gone", TOLD, LOSS, TOLD)


def test_one_that_is_here_answers_at_once_and_by_json_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(packages.PACKAGES, "here", ("numpy", _mean))  # type: ignore[misc]
    found = packages.foresee("here", TOLD, LOSS, TOLD[:2])
    assert found.loss.tolist() == pytest.approx([2.8, 2.8])
    assert packages.exponents("here", TOLD, LOSS) == {"alpha": 0.5, "beta": 0.5}
    question = {"package": "here", "told": TOLD.tolist(), "loss": LOSS.tolist()}
    text = json.dumps(question | {"asked": TOLD[:2].tolist()})
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert packages.main() == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["high"] == pytest.approx(found.high.tolist())
