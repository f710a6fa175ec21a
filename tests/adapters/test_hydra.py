"""The sweeper in real Hydra applications."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("hydra", reason="pip install 'scaletune[hydra]' to run this")

from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402

from hpo import Categorical, Float, Int, Role, Scale, SpaceError  # noqa: E402
from hpo.adapters.hydra import parameter_of  # noqa: E402
from hpo.space import Parameter  # noqa: E402

pytestmark = pytest.mark.guests
REPOSITORY = Path(__file__).parents[2]

APP = """
import hydra
from omegaconf import DictConfig

@hydra.main(version_base=None, config_name="config", config_path=".")
def train(config: DictConfig):
    if config.lr > 0.9:
        raise RuntimeError("diverged")
    loss = (config.lr - 0.1) ** 2 + (0.0 if config.optimizer == "lion" else 0.3) + config.layers
    return {"loss": loss, "cost": 1.0}

if __name__ == "__main__":
    train()
"""
CONFIG = """
lr: 0.5
optimizer: adamw
layers: 3
defaults:
  - _self_
  - override hydra/sweeper: scaletune
"""


def sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(APP)
    (folder / "config.yaml").write_text(CONFIG)
    return subprocess.run(
        [sys.executable, "app.py", "-m", "hydra.sweep.dir=out", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("rate", ["0.0", "1.0"])
def test_a_sweep_of_which_nothing_was_completed_writes_results_without_a_best(
    tmp_path: Path, rate: str
) -> None:
    sweep(
        tmp_path,
        "lr=nan",
        "layers=range(1,4)",
        "hydra.sweeper.n_trials=2",
        f"hydra.sweeper.max_failure_rate={rate}",
    )
    results = yaml.safe_load((tmp_path / "out/optimization_results.yaml").read_text())
    assert results == {"name": "scaletune"}


def test_a_sweep_finds_the_best_and_survives_jobs_that_fail(tmp_path: Path) -> None:
    done = sweep(
        tmp_path,
        "hydra.sweeper.n_trials=14",
        "hydra.sweeper.n_jobs=2",
        "lr=interval(0.0, 1.0)",
        "optimizer=choice(adamw, lion)",
        "layers=range(1, 4)",
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = yaml.safe_load(
        (tmp_path / "out/optimization_results.yaml").read_text()
    )
    assert results["name"] == "scaletune"
    assert results["best_value"] < 1.4  # the best is 1.0; the middle of the space is 2.5
    assert len(list((tmp_path / "out").glob("*/.hydra"))) == 14


def test_a_sweep_without_parameters_is_refused_in_one_line(tmp_path: Path) -> None:
    done = sweep(tmp_path, "hydra.sweeper.n_trials=2", "lr=0.3")
    assert done.returncode != 0
    assert "no parameter to search" in done.stderr


@pytest.mark.parametrize(
    ("text", "parameter"),
    [
        ("x=interval(0.5, 2)", Float(0.5, 2)),
        ("x=tag(log, lr, interval(1e-4, 1e-1))", Float(1e-4, 1e-1, log=True, role=Role.LR)),
        ("x=tag(logit, interval(0.9, 0.99))", Float(0.9, 0.99, logit=True)),
        ("x=int(interval(1, 8))", Int(1, 8)),
        ("x=tag(scale, interval(1e5, 1e7))", Scale(1e5, 1e7)),
        ("x=range(2, 9)", Int(2, 8)),
        ("x=range(8, 65, 8)", Int(8, 64, multiple_of=8)),
        ("x=range(0.0, 1.0, 0.5)", Categorical([0.0, 0.5], ordered=True)),
        ("x=choice(a, 'b c', 3, 1.5, true)", Categorical(["a", "b c", 3, 1.5, True])),
        ("x=tag(ordered, choice(1, 2, 4))", Categorical([1, 2, 4], ordered=True)),
    ],
)
def test_overrides_become_parameters(text: str, parameter: Parameter) -> None:
    override = OverridesParser.create().parse_override(text)
    assert parameter_of(override) == parameter


@pytest.mark.parametrize(
    "text", ["x=glob(*)", "x=tag(strange, interval(0.0, 1.0))", "x=range(3, 1)"]
)
def test_overrides_without_a_parameter_are_refused(text: str) -> None:
    with pytest.raises(SpaceError, match="`x`"):
        parameter_of(OverridesParser.create().parse_override(text))
