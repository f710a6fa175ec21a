"""The transfer benchmark: its histories, its tables, and a study with and without other tasks."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import tasks
from benchmarks.experiments.transfer import command
from benchmarks.experiments.transfer.command import (
    BEGIN,
    END,
    inserted,
    load,
    measure,
    one,
    ratio_table,
    regret_table,
)
from benchmarks.experiments.transfer.histories import (
    DESIGN,
    FAMILIES,
    KINDS,
    ROWS,
    UNRELATED,
    family,
    history,
)
from benchmarks.task import DataMissing

TASK = "nasbench201/cifar10"


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_half_of_the_tasks_of_every_family_are_held_out():
    for members in FAMILIES.values():
        held_out = [task for task in members if task not in DESIGN]
        assert len(members) / 2 <= len(held_out) < len(members)


def test_related_tasks_are_those_of_the_family_without_the_task_itself():
    found = history("related", TASK, 0)
    assert set(found) == {task for task in FAMILIES["NAS-Bench-201"] if task != TASK}
    space = tasks.load(TASK).space
    for runs in found.values():
        assert len(runs) == ROWS
        assert all(space.canonical(config) == config for config, _ in runs)
    assert found == history("related", TASK, 0) != history("related", TASK, 1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "related"])
def test_unrelated_tasks_are_five_in_the_space_of_the_task(kind):
    try:
        found = history(kind, TASK, 0)
    except DataMissing:
        pytest.skip("a family has no data here")
    assert len(found) == UNRELATED
    space = tasks.load(TASK).space
    for runs in found.values():
        assert all(space.canonical(config) == config for config, _ in runs)


def test_shuffled_tasks_keep_their_losses_and_lose_their_order():
    for name, runs in history("shuffled", TASK, 0).items():
        assert len({loss for _, loss in runs}) > ROWS / 2, name
    first = history("shuffled", TASK, 0)["shuffled 0"]
    original = {tuple(c.values()): loss for c, loss in history("related", TASK, 0).popitem()[1]}
    assert [loss for _, loss in first] != list(original.values())


@pytest.mark.parametrize("method", ["random", "scaletune", "scaletune-alone", "optuna-tpe", "rgpe"])
def test_a_study_of_each_method_never_gets_worse(method):
    kind = "none" if method in command._BLIND else "related"
    curve = one(method, TASK, 0, kind, trials=5)
    assert len(curve) == 5
    assert all(np.diff(curve) <= 0)


def test_what_was_measured_is_not_run_again(tmp_path, monkeypatch):
    out, ran = tmp_path / "rows.jsonl", []
    monkeypatch.setattr(command, "one", lambda *key, trials: ran.append(key) or [0.5] * trials)
    for kinds in (["related"], ["related", "shuffled"]):
        measure(["scaletune", "random"], [TASK], range(2), kinds, trials=25, out=out)
    assert len(ran) == len(set(ran)) == 6  # random search serves every kind of history
    assert load(out)["random", TASK, 1, "none"] == [0.5] * 25


def rows():
    """Ours is at a tenth of the regret without other tasks."""
    found = {}
    for task in FAMILIES["NAS-Bench-201"]:
        found["scaletune", task, 0, "related"] = [0.01] * 25
        found["scaletune-alone", task, 0, "none"] = [0.1] * 25
        found["rgpe", task, 0, "related"] = [0.05] * 25
    return found


def test_the_tables_show_ratio_regret_and_rank():
    lines = ratio_table(rows()).splitlines()
    assert [cells(line)[:3] for line in lines[2:]] == [
        ["related", "design", "1"],
        ["related", "held out", "2"],
        ["related", "all", "3"],
    ]
    assert cells(lines[-1])[-1] == "0.0100 / 0.1000 = 0.10"
    table = regret_table(rows(), "related").splitlines()[2:5]
    shown = {cells(line)[1]: cells(line)[2:] for line in table}
    assert shown["scaletune"][-1] == "1.00, 1.00"
    assert shown["rgpe"][-1] == "2.00, 2.00"
    assert shown["scaletune-alone"][-2] == "0.1000"


def test_only_studies_that_every_method_ran_are_compared():
    some = rows()
    del some["rgpe", TASK, 0, "related"]
    assert "NAS-Bench-201 (2 studies)" in regret_table(some, "related")


def test_tables_are_put_between_the_marks_of_a_page():
    page = f"a\n{BEGIN}\nold\n{END}\nb\n"
    assert inserted(page, "new") == f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"
    with pytest.raises(ValueError, match="must hold the lines"):
        inserted("a", "new")


def test_every_task_has_a_family():
    assert {family(task) for members in FAMILIES.values() for task in members} == set(FAMILIES)
