from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import peers, runner, tasks
from benchmarks.__main__ import main
from benchmarks.peers.base import Job
from benchmarks.runner import Plan, is_done, limits, run, run_study, start_points
from benchmarks.simulate import Ending, Outcome, StudyLimits
from benchmarks.table import COLUMNS, Appender, Note, Record, Study, prepare, read
from benchmarks.task import Evaluation, Task

ROOT = Path(__file__).resolve().parents[2]
TASK = "synthetic/branin-0"
STUDY = Study("smoke", TASK, "random", 0)


def plan(**changes: object) -> Plan:
    small = Plan("smoke", (TASK,), ("random",), seeds=1, trials=5)
    return dataclasses.replace(small, **changes)  # type: ignore[arg-type]


def events(path: Path) -> dict[Study, list[Outcome]]:
    """What the table holds, without the methods' own times."""
    return {
        study: [dataclasses.replace(o, ask_s=0.0, tell_s=0.0) for o in record.outcomes]
        for study, record in read(path).items()
    }


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks", "run", "smoke", "--out", str(out), "--quiet", *more]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_a_finished_suite_run_again_does_nothing(tmp_path: Path) -> None:
    first = run(plan(seeds=2), tmp_path, progress=False)
    before = (tmp_path / "results.csv").read_bytes()
    again = run(plan(seeds=2), tmp_path, progress=False)
    assert dict(first.ended) == {"trials": 2}
    assert (dict(again.ended), again.already_done) == ({}, 2)
    assert (tmp_path / "results.csv").read_bytes() == before
    assert len(json.loads((tmp_path / "run.json").read_text())) == 1


def test_a_killed_driver_continues_to_the_identical_table(tmp_path: Path) -> None:
    arguments = ("--tasks", TASK, "synthetic/curves-0", "--methods", "scaletune", "random")
    arguments += ("--seeds", "1", "--trials", "10")
    subprocess.run(command(tmp_path / "whole", *arguments), env=environment(), check=True)
    table = tmp_path / "killed" / "results.csv"
    for rows in (4, 17):  # inside the first study, inside the second
        driver = subprocess.Popen(
            command(tmp_path / "killed", *arguments, "--processes", "2"), env=environment()
        )
        while driver.poll() is None:
            if table.exists() and table.read_bytes().count(b"\n") > rows:
                os.kill(driver.pid, signal.SIGKILL)
            time.sleep(0.002)
        assert driver.returncode == -signal.SIGKILL
    subprocess.run(command(tmp_path / "killed", *arguments), env=environment(), check=True)
    whole = events(tmp_path / "whole" / "results.csv")
    assert len(whole) == 4 and all(len(rows) == 10 for rows in whole.values())
    assert events(table) == whole
    text = table.read_text()
    assert "void" not in text, "every method here replays"
    assert text.count(",ok\n") == 4 * 10


def test_a_killed_worker_fails_its_study_only(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        command(tmp_path, "--methods", "scaletune", "--seeds", "1", "--trials", "15"),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    table = tmp_path / "results.csv"
    while not (table.exists() and table.read_bytes().count(b"\n") > 3):
        assert driver.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
    children += [
        child
        for thread in Path(f"/proc/{driver.pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    os.kill(int(children[0]), signal.SIGKILL)
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert "1 error, 2 trials" in output
    notes = [record.note.reason for record in read(table).values() if record.note]
    assert sorted(notes) == ["end:error", "end:trials", "end:trials"]


def test_an_unfinished_last_line_is_dropped_and_run_again(tmp_path: Path) -> None:
    run(plan(), tmp_path, progress=False)
    table = tmp_path / "results.csv"
    whole, expected = table.read_bytes(), events(table)
    lines = whole.splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:4]) + lines[4][:-3])
    assert len(read(table)[STUDY].outcomes) == 3
    run(plan(), tmp_path, progress=False)
    assert events(table) == expected
    assert table.read_bytes().count(b"\n") == whole.count(b"\n")


def test_more_trials_continue_from_the_recorded_ones(tmp_path: Path) -> None:
    run(plan(), tmp_path, progress=False)
    start = (tmp_path / "results.csv").read_bytes()
    run(plan(trials=8), tmp_path, progress=False)
    assert (tmp_path / "results.csv").read_bytes().startswith(start)
    assert [o.trial for o in read(tmp_path / "results.csv")[STUDY].outcomes] == list(range(8))


def test_a_folder_keeps_one_protocol(tmp_path: Path) -> None:
    run(plan(), tmp_path, progress=False)
    with pytest.raises(ValueError, match="`workers` must stay 1"):
        run(plan(workers=4), tmp_path, progress=False)
    (tmp_path / "results.csv").write_text("something,else\n")
    with pytest.raises(ValueError, match="not a result table"):
        run(plan(), tmp_path, progress=False)


def test_two_drivers_never_write_to_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LOCK_PATIENCE", 0.1)
    with (
        runner._locked(tmp_path / ".lock"),
        pytest.raises(RuntimeError, match="another run is writing"),
    ):
        run(plan(), tmp_path, progress=False)


class Fickle:
    """A method that asks something else every time it is made."""

    made = 0

    def __init__(self) -> None:
        Fickle.made += 1
        self._asked = 0

    def ask(self) -> Job:
        self._asked += 1
        return Job(self._asked - 1, {"x0": Fickle.made + 0.1 * self._asked, "x1": 1.0})

    def tell(self, job: Job, evaluation: Evaluation) -> None: ...


def test_a_method_that_cannot_be_replayed_starts_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(name: str, task: Task, *, seed: int, trials: int) -> Fickle:
        return Fickle()

    monkeypatch.setattr(peers, "make", make)
    path, task = tmp_path / "results.csv", tasks.load(TASK)
    prepare(path)
    with Appender(path) as table:
        half = run_study(STUDY, plan(), Record(), table, task=task)
        first = [next(half), next(half)]
        rest = [*run_study(STUDY, plan(), read(path)[STUDY], table, task=task)]
    assert rest[-1] is Ending.TRIALS
    record = read(path)[STUDY]
    assert record.outcomes == rest[:-1] and len(record.outcomes) == 5
    assert record.outcomes[:2] != first
    assert path.read_text().count("void") == 1
    assert record.note is not None and record.note.effort == 5


def outcome(**changes: object) -> Outcome:
    plain = Outcome(0, 0, 3, 0.1, 0.1, 1.0, 1.0, 1.0, 1.0, 0.5, 0.25, "ok")
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def test_rows_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    prepare(path)
    rows = [
        outcome(loss=1 / 3, cost=1e-300),
        outcome(trial=1, loss=None, incumbent=None, level=None, status="oom"),
    ]
    study = Study("a, b", 'task "x"', "method", 3)
    with Appender(path) as table:
        for row in rows:
            table.outcome(study, row)
        table.note(study, Record(rows), "end:seconds")
    record = read(path)[study]
    assert record.outcomes == rows
    assert record.note == Note("end:seconds", 1.0, 1.0, 1.5)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("note", "done"),
    [
        (None, False),
        (Note("end:trials", 100, 7.0, 1.0), True),
        (Note("end:trials", 50, 7.0, 1.0), False),
        (Note("end:seconds", 3, 7.0, 61.0), True),
        (Note("end:seconds", 3, 7.0, 31.0), False),
        (Note("end:method", 3, 7.0, 1.0), True),
        (Note("end:error", 3, 7.0, 1.0), True),
    ],
)
def test_a_study_is_done_when_it_meets_todays_limits(note: Note | None, done: bool) -> None:
    assert is_done(note, StudyLimits(trials=100, seconds=60)) is done


def test_a_budget_in_full_trainings_scales_with_the_task() -> None:
    task = tasks.load("synthetic/curves-0")
    one, three = (limits(plan(budget=b, trials=None), task).cost for b in ("1x", "3x"))
    assert one is not None and three == pytest.approx(3 * one)
    assert limits(plan(budget=7.0), task).cost == 7.0


def test_start_points_are_the_same_for_all_methods_and_differ_by_seed() -> None:
    task = tasks.load(TASK)
    assert start_points(task, 5, 0) == start_points(task, 5, 0)
    assert start_points(task, 5, 0) != start_points(task, 5, 1)


def test_studies_come_seed_by_seed() -> None:
    seeds: Sequence[int] = [s.seed for s in plan(seeds=3, methods=("a", "b")).studies()]
    assert seeds == sorted(seeds)


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "nonsense", "--out", str(tmp_path)]) == 2
    assert "`suite` must be one of" in capsys.readouterr().err
    assert main(["run", "smoke", "--methods", "nobody", "--out", str(tmp_path)]) == 2
    assert "nobody" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "`suite` must be one of"),
        (["smoke", "--methods", "bogus"], "a peer is one of"),
        (["x", "--tasks", "bogus/1"], "a task name starts with one of"),
        (["x", "--tasks", "hpobench/bogus"], "got 'hpobench/bogus'"),
        (["x", "--tasks", f"{TASK}+bogus"], "a wrapper of"),
        (["smoke", "--seeds", "0"], "`seeds` must be >= 1"),
        (["smoke", "--first-seed", "-1"], "`first_seed` must be >= 0"),
        (["smoke", "--starts", "-1"], "`starts` must be >= 0"),
        (["smoke", "--workers", "0"], "`workers` must be >= 1"),
        (["smoke", "--processes", "0"], "`processes` must be >= 1"),
        (["smoke", "--threads", "0"], "`threads` must be >= 1"),
        (["smoke", "--trials", "nan"], "`trials` must be > 0 and finite"),
        (["smoke", "--seconds-per-study", "-3"], "`seconds` must be > 0"),
        (["smoke", "--budget", "abc"], "`budget` must be a cost > 0"),
        (["smoke", "--budget", "0x"], "`budget` must be a cost > 0"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line_before_a_folder_is_made(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    methods = [] if "--methods" in arguments else ["--methods", "random"]
    assert main(["run", *arguments, *methods, "--out", str(out), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not out.exists()


def test_a_budget_is_a_cost_or_a_number_of_full_trainings() -> None:
    assert plan(budget=3.0).budget_on(5.0) == 3.0
    assert plan(budget="3").budget_on(5.0) == 3.0
    assert plan(budget="3x").budget_on(5.0) == 15.0
    assert plan().budget_on(5.0) is None


def test_names_given_twice_are_run_once() -> None:
    assert plan(tasks=(TASK, TASK), methods=("random", "random")).studies() == [STUDY]


def test_a_suite_without_its_data_is_missing_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCALETUNE_DATA", str(tmp_path))
    tasks.load.cache_clear()
    names = [f"hpob/v3-test/5971/{i}" for i in range(9)]
    given = ["run", "mine", "--tasks", *names, "--methods", "random", "--out", str(tmp_path / "o")]
    assert main([*given, "--quiet"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "missing" in line]
    assert len(lines) == 1
    assert lines[0].startswith("missing: hpob/v3-test/5971/0 and 8 more: `hpob/")


def test_the_protocol_of_hpo_b_is_the_default_of_its_suites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    def remember(plan: Plan, out: Path, *, progress: bool) -> runner.Summary:
        plans.append(plan)
        return runner.Summary({"trials": 1}, 0, {})

    monkeypatch.setattr(runner, "run", remember)
    for suite in ("hpob-v3-test", "hpob-continuous", "hpob-style", "lcbench"):
        assert main(["run", suite, "--out", str(tmp_path)]) == 0
    assert [(p.starts, p.seeds, p.trials) for p in plans] == [
        (5, 5, 100.0),
        (5, 5, 100.0),
        (5, 10, 100.0),
        (0, 10, 100.0),
    ]
