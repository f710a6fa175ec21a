"""Search spaces as YAML files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo import Axis, Categorical, Fidelity, Float, Int, Role, Scale, SearchSpace, SpaceError
from hpo.cli.space_file import read_space, space_of

EVERYTHING = """
# every kind of parameter
lr:        {type: float, low: 1e-4, high: 1e-1, log: true, role: lr, center: 3e-3}
beta2:     {type: float, low: 0.9, high: 0.9999, logit: true}
batch:     {type: int, low: 8, high: 512, log: true, multiple_of: 8, role: batch}
optimizer: {type: categorical, choices: [adamw, sgd, 1e-3, 2, null]}
momentum:
  type: float
  low: 0
  high: 0.99
  when: {optimizer: sgd}
heads:     {type: categorical, choices: [1, 2, 4], ordered: true, when: {optimizer: [adamw, sgd]}}
params:    {type: scale, low: 1e5, high: 1E7, axis: params}
epochs:    {type: fidelity, low: 1, high: 81}
"""


def test_every_kind_of_parameter_can_be_written() -> None:
    assert space_of(EVERYTHING) == SearchSpace(
        {
            "lr": Float(1e-4, 1e-1, log=True, role=Role.LR, center=3e-3),
            "beta2": Float(0.9, 0.9999, logit=True),
            "batch": Int(8, 512, log=True, multiple_of=8, role=Role.BATCH),
            "optimizer": Categorical(["adamw", "sgd", 1e-3, 2, None]),
            "momentum": Float(0, 0.99, when=("optimizer", ["sgd"])),
            "heads": Categorical([1, 2, 4], ordered=True, when=("optimizer", ["adamw", "sgd"])),
            "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
            "epochs": Fidelity(1, 81),
        }
    )


def test_json_is_yaml() -> None:
    assert space_of('{"x": {"type": "float", "low": 0, "high": 1}}')["x"] == Float(0, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "one parameter by name a line"),
        ("[1, 2]", "one parameter by name a line"),
        ("x: {type: float", "it must be YAML"),
        ("x: !!python/object/apply:os.system ['true']", "it must be YAML"),
        ("x: 3", "`type` of `x` must be one of ['float', 'int', 'categorical'"),
        ("x: {low: 0, high: 1}", "`type` of `x` must be one of"),
        ("x: {type: floats, low: 0, high: 1}", "got 'floats'"),
        ("x: {type: float, min: 0, high: 1}", "got ['min']; rename or drop"),
        ("x: {type: fidelity, low: 1}", "`x` needs ['high']"),
        ("x: {type: float, low: 2, high: 1}", "in `x`: "),
        ("x: {type: float, low: 0, high: 1, role: speed}", "`role` of `x` must be one of ['lr'"),
        ("x: {type: scale, low: 1, high: 9, axis: size}", "`axis` of `x` must be one of"),
        ("x: {type: float, low: 0, high: 1, when: [a, 1]}", "write when: {optimizer: [sgd]}"),
        ("x: {type: float, low: 0, high: 1, when: {a: 1}}", "must name a parameter of the space"),
        ("x: {type: float, low: 0, high: 1}\nx: {type: int, low: 0, high: 1}", "line 2: 'x' is"),
        ("3: {type: float, low: 0, high: 1}", "names must be non-empty strings"),
    ],
)
def test_what_is_no_space_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(SpaceError) as refused:
        read_space(path)
    assert said in str(refused.value) and str(path) in str(refused.value)
