"""Whatever is typed or stored: a result, or one clear line; never a traceback.

Damaged files of HPO-B and YAHPO are in tests/benchmarks, damaged CSV files in tests/test_sweep.py.
"""

import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from hpo import (
    Axis,
    Budget,
    Categorical,
    Fidelity,
    Float,
    Int,
    Role,
    Scale,
    SearchSpace,
    SpaceError,
    StudyError,
    load_result,
    optimize,
)
from hpo.cli import main

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

WORDS = st.one_of(
    st.sampled_from(
        ["check-transfer", "coord-check", "--name", "--storage", "--param", "--scale", "--loss"]
        + ["--cost", "--maximize", "--prior", "--tolerance", "--picture", "--help", "--sizes"]
        + ["sweep.csv", "none.csv", "folder", "lr", "lr:log:lr", "N:params", "MuP", "0.1", "nan"]
        + ["-1", "sqlite:///none.db", "sqlite:////no/where.db", "postgresql://x", "://", "", "--"]
        + ["module:function", "os:path", "json:loads"]
    ),
    st.text(max_size=8).filter(lambda text: "\x00" not in text),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "sweep.csv").write_text("lr,N,loss\n0.1,1e5,3.0\n0.2,1e6,nan\n,,\n")
    return tmp_path


@FUZZ
@given(st.lists(WORDS, max_size=6))
def test_any_command_line_ends_in_a_result_or_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["scaletune", *words])
    try:
        main()
    except SystemExit as end:  # typer's own refusals are several lines in a frame
        if isinstance(end.code, str):
            assert end.code.startswith("error: ") and "\n" not in end.code
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["schema", "space", "x", "kind", "status", "chunks"]), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


STUDY = optimize(
    lambda config, ctx: config["x"],
    {"x": Float(0, 1)},
    budget=Budget(trials=2),
    name="whole",
    storage=InMemoryStorage(),
).study


@FUZZ
@given(VALUES, st.sampled_from(["scaletune:study", "scaletune:asked", "scaletune:told"]))
def test_a_damaged_study_is_read_or_refused_in_one_line(value: Any, key: str) -> None:
    """One attribute of a whole study is replaced by anything."""
    assert isinstance(STUDY, optuna.Study)
    storage = InMemoryStorage()
    copy = optuna.create_study(study_name="copy", storage=storage)
    for name, content in STUDY.user_attrs.items():
        copy.set_user_attr(name, value if name == key else content)
    for trial in STUDY.trials:
        attributes = {k: value if k == key else v for k, v in trial.user_attrs.items()}
        copy.add_trial(
            optuna.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=attributes,
                value=trial.value,
            )
        )
    try:
        load_result("copy", storage=storage)
    except StudyError as refused:
        assert str(refused).strip() and "\n" not in str(refused)


ARGUMENT = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.one_of(st.none(), st.integers(0, 3), st.text(max_size=2)), max_size=3),
    st.sampled_from([Role.LR, Axis.PARAMS, ("a", [1]), ("b", ["x"]), {"a": 1}, object()]),
)


@FUZZ
@given(
    st.lists(
        st.tuples(
            st.sampled_from([Float, Int, Categorical, Scale, Fidelity]),
            st.lists(ARGUMENT, max_size=2),
            st.dictionaries(
                st.sampled_from(["log", "logit", "center", "spread", "role", "when", "axis"]),
                ARGUMENT,
                max_size=2,
            ),
        ),
        max_size=3,
    )
)
def test_any_space_is_taken_or_refused_as_a_space(parts: list[tuple[Any, list[Any], Any]]) -> None:
    """TypeError is Python's own, for an argument that a kind does not have."""
    space: dict[Any, Any] = {}
    for name, (kind, positional, named) in zip("abc", parts, strict=False):
        try:
            space[name] = kind(*positional, **named)
        except SpaceError as refused:
            assert str(refused).strip()
            return
        except TypeError as error:
            assert "argument" in str(error)
            return
    try:
        SearchSpace(space)
    except SpaceError as refused:
        assert str(refused).strip()
