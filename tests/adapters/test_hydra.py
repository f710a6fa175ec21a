"""The sweeper in real Hydra applications."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("hydra", reason="pip install 'scaletune[hydra]' to run this")

from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402

from hpo import Categorical, Float, Int, Role, Scale, SpaceError  # noqa: E402
from hpo.adapters.hydra import override_text, parameter_of  # noqa: E402
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


ECHO = """
import json
from pathlib import Path
import hydra
from omegaconf import DictConfig, OmegaConf

@hydra.main(version_base=None, config_name="config", config_path=".")
def train(config: DictConfig):
    with Path(__file__).with_name("seen.jsonl").open("a") as seen:
        seen.write(json.dumps(OmegaConf.to_container(config)) + "\\n")
    return 0.5

if __name__ == "__main__":
    train()
"""
ECHO_CONFIG = """
y: 0
spare: 1
defaults:
  - _self_
  - override hydra/sweeper: scaletune
"""


def sweep(
    folder: Path, *arguments: str, app: str = APP, config: str = CONFIG
) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(app)
    (folder / "config.yaml").write_text(config)
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
        ("x=a,null,'null'", Categorical(["a", None, "null"])),
        ("x=nan,inf", Categorical(["nan", "inf"])),  # by their texts
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


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=True)
    | st.text()
    | st.text("'\"\\\\{}[](),:= \t\n$%~+-.018eaEnuliftrs_é雪", max_size=8)
    | st.sampled_from(["1", "1_0", "1e3", ".5", "nan", "-inf", "true", "NULL", "", " ", "${a}"])
)
KEYS = st.text("ab_01.-", min_size=1) | st.integers() | st.booleans()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def typed(value: Any) -> str:
    """A value with the types of all its parts, NaN included."""
    return repr(value)


@given(VALUES)
def test_a_job_gets_the_value_and_the_type_that_was_chosen(value: Any) -> None:
    try:
        text = override_text(value)
    except SpaceError:  # such as a key "1", which no text of Hydra's stands for
        assert "{" in repr(value)
        return
    read = OverridesParser.create().parse_override(f"x={text}")
    assert not read.is_sweep_override()
    assert typed(read.value()) == typed(value)


@given(st.lists(st.text(), min_size=1, unique=True))
def test_every_list_of_different_strings_is_a_choice(texts: list[str]) -> None:
    quoted = ",".join(override_text([text])[1:-1] for text in texts)
    override = OverridesParser.create().parse_override(f"x=choice({quoted})")
    assert parameter_of(override) == Categorical(texts)


def test_names_of_config_groups_stay_plain() -> None:
    names = ["adamw", "model/large", "it5", "a b", "v1.2", "C:\\runs", "ünï"]
    assert [override_text(name) for name in names[:-1]] == names[:-1]
    assert override_text(names[-1]) == "'ünï'"  # Hydra has no plain text for it


CHOICES: dict[str, list[Any]] = {
    "'1','2'": ["1", "2"],
    "'true','null'": ["true", "null"],
    "'{a:1}','x'": ["{a:1}", "x"],
    "'a,b','a=b'": ["a,b", "a=b"],
    "\"it's\",'\"'": ["it's", '"'],
    "[128],[64,32]": [[128], [64, 32]],
    "[],['1',null]": [[], ["1", None]],
    "{a:1,b:{c:'2'}},{}": [{"a": 1, "b": {"c": "2"}}, {}],
    "1,true": [1, True],
    "1,1.0,'1'": [1, 1.0, "1"],
    "'','a\\\\'": ["", "a\\"],
    "'a\nb','雪 é'": ["a\nb", "雪 é"],
    "'[1]',[1]": ["[1]", [1]],
    "'07'": ["07"],
    "'${y}','$a'": ["${y}", "$a"],
}


def test_jobs_get_the_choices_as_they_were_written(tmp_path: Path) -> None:
    names = {f"x{k}": choices for k, choices in enumerate(CHOICES)}
    done = sweep(
        tmp_path,
        "hydra.sweeper.n_trials=6",
        "hydra.sweeper.n_jobs=6",
        "y='07'",
        "~spare",
        *(f"+{name}=choice({choices})" for name, choices in names.items()),
        app=ECHO,
        config=ECHO_CONFIG,
    )
    assert done.returncode == 0, done.stderr
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    results = yaml.safe_load((tmp_path / "out/optimization_results.yaml").read_text())
    assert len(seen) == 6
    for config in seen:
        assert config["y"] == "07" and "spare" not in config
    for name, choices in names.items():
        allowed = {typed(value) for value in CHOICES[choices]}
        assert {typed(config[name]) for config in seen} <= allowed, choices
        assert typed(results["best_params"][f"+{name}"]) in allowed


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("range(0, 1, 0.1)", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("range(1, 1.3, 0.1)", [1.0, 1.1, 1.2]),
        ("float(range(1, 4))", [1.0, 2.0, 3.0]),
        ("range(1, 10, 3)", [1, 4, 7]),
    ],
)
def test_ranges_have_the_numbers_that_were_written(text: str, grid: list[float]) -> None:
    override = OverridesParser.create().parse_override(f"x={text}")
    assert typed(parameter_of(override)) == typed(Categorical(grid, ordered=True))
