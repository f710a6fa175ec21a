"""`scaletune optimize` and `resume`."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from hpo import ASHA, PBT, Budget, Float, load_result, optimize
from hpo.cli.searches import scheduler_of
from hpo.schedulers import ASHAVariant
from hpo.study.storage import StudyStorage
from tests.cli.conftest import Scaletune

# First words of printed lines that do not depend on what was found.
LABELS = {
    *("Maximized", "Spent:", "trial", "value", "expected", "next", "C", "kernel", "Next:"),
    *("scaletune", "trials", "seconds", "now", "best", "front", "setting", "predicted"),
    *("chosen", "error:"),
}
SEARCH = ("optimize", "my_training:train", "--space", "space.yaml")


def test_a_search_is_stored_and_the_same_command_continues_it(scaletune: Scaletune) -> None:
    first = scaletune(*SEARCH, "--budget", "trials=4", "--seed", 3)
    assert first.code == 0
    assert (
        "4 trials, all completed" in first.out and "scaletune report my_training:train" in first.out
    )
    again = scaletune(*SEARCH, "--budget", "trials=6", "--seed", 3)
    assert "6 trials, all completed" in again.out
    whole = scaletune(*SEARCH, "--budget", "trials=6", "--seed", 3, "--name", "whole")
    assert whole.code == 0
    halves, at_once = load_result("my_training:train"), load_result("whole")
    assert [o.config for o in halves.log.runs] == [o.config for o in at_once.log.runs]


def test_a_resumed_study_needs_nothing_but_its_larger_budget(scaletune: Scaletune) -> None:
    arguments = ("--metric", "accuracy", "--maximize", "--cost", "seconds", "--confirm", 0)
    assert scaletune(*SEARCH, *arguments, "-b", "trials=3", "--name", "a b").code == 0
    ended = scaletune("resume", "--budget", "trials=5,seconds=1h", "--json")
    assert ended.code == 0
    said = json.loads(ended.out)
    assert said["trials"] == {"completed": 5} and said["direction"] == "maximize"
    assert said["budget"] == {"trials": 5, "seconds": 3600}
    result = load_result("a b")
    losses = [o.loss for o in result.log.runs if o.loss is not None]
    assert all(0 < loss < 0.14 for loss in losses)  # exp(-2) at best: the accuracy
    assert said["best_observed"]["loss"] == max(losses)
    assert {"accuracy", "returned_loss"} == {name for o in result.log.runs for name in o.metrics}


def test_trials_in_processes_of_their_own_find_the_module_in_the_working_directory(
    scaletune: Scaletune,
) -> None:
    ended = scaletune(*SEARCH, "-b", "trials=2", "--per-trial", "seconds=5min,memory=64G")
    assert ended.code == 0 and "2 trials, all completed" in ended.out


def test_an_interrupted_search_does_not_end_with_0_and_can_be_resumed(
    scaletune: Scaletune,
) -> None:
    ended = scaletune("optimize", "my_training:interrupted", "-s", "space.yaml", "-b", "trials=5")
    assert ended.code == 130
    assert "to continue: scaletune resume my_training:interrupted" in ended.err
    assert "3 trials (2 completed, 1 running)" in ended.out
    resumed = scaletune("resume", "--function", "my_training:train")
    assert resumed.code == 0 and "5 trials, all completed" in resumed.out


def test_a_search_without_a_completed_trial_has_an_exit_code_of_its_own(
    scaletune: Scaletune,
) -> None:
    ended = scaletune("optimize", "my_training:diverging", "-s", "space.yaml", "-b", "trials=2")
    assert ended.code == 3
    assert "No trial was completed" in ended.out


def test_a_space_may_be_a_dict_of_the_module_and_a_scheduler_take_arguments(
    folder: Path, scaletune: Scaletune
) -> None:
    module = folder / "my_training.py"
    module.write_text(
        module.read_text()
        + "from hpo import Fidelity, Float\n"
        + 'SPACE = {"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 4)}\n'
    )
    staged = ("optimize", "my_training:staged", "--space", "my_training:SPACE", "-b", "trials=6")
    assert scaletune(*staged, "--scheduler", "asha(eta=2)").code == 0
    result = load_result("my_training:staged")
    assert len(result.log.paused) + len(result.log.runs) == 6 and result.log.paused


def test_a_scheduler_is_written_as_in_python() -> None:
    assert scheduler_of("asha") == ASHA()
    stopping = scheduler_of("ASHA(eta=4, kind='stopping')")
    assert stopping == ASHA(eta=4, kind=ASHAVariant.STOPPING)
    assert scheduler_of("PBT(population=4, mutate=('lr',))") == PBT(population=4, mutate=("lr",))
    assert scheduler_of(None) is None


def test_a_study_of_python_is_resumed_with_its_function_named(scaletune: Scaletune) -> None:
    space = {"lr": Float(1e-4, 1e-1, log=True), "optimizer": Float(0, 1)}
    optimize(lambda config, ctx: config["lr"], space, budget=Budget(trials=2), name="python")
    refused = scaletune("resume", "python", "--budget", "trials=3")
    assert refused.code == 1 and "--function must name its training function" in refused.err
    given = ("resume", "python", "--function", "my_training:train", "--budget", "trials=3")
    assert scaletune(*given).code == 0


@pytest.mark.parametrize("function", ["antigravity:train", "json.tool:main", "nowhere:f", "", "x"])
def test_a_planted_function_of_elsewhere_is_not_imported(
    scaletune: Scaletune, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    assert scaletune(*SEARCH, "-b", "trials=1", "--name", "theirs").code == 0
    StudyStorage.read(name="theirs", storage=None)[0].remember_call({"function": function})
    ended = scaletune("resume", "theirs", "-b", "trials=2")
    assert ended.code == 1 and "whose module is not in this folder" in ended.err
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "call", [{}, {"function": "a:b", "budget": 3}, {"function": "a:b", "per_trial": {"x": 1}}]
)
def test_a_damaged_call_is_refused(scaletune: Scaletune, call: dict[str, object]) -> None:
    assert scaletune(*SEARCH, "-b", "trials=1", "--name", "theirs").code == 0
    StudyStorage.read(name="theirs", storage=None)[0].remember_call(call)
    for command in ("resume", "status"):
        ended = scaletune(command, "theirs")
        assert ended.code == 1 and "how the study was started cannot be read" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere:train",), "there is no module 'nowhere'; change to the folder"),
        (("my_training:fit",), "has no 'fit'; correct the name"),
        (("my_training",), "write train:train"),
        (("broken:train",), "ZeroDivisionError at broken.py:2, correct that"),
        (("wrong:train",), "SyntaxError at wrong.py:1, correct that"),
        (("my_training:not_callable",), "train_fn must be callable"),
        (("my_training:text",), "the loss returned by train_fn must be a real number"),
        (("my_training:raising",), "raised the same exception at the same line"),
        (("my_training:train", "--budget", "tries=3"), "--budget must name each of ['trials'"),
        (("my_training:train", "--budget", "trials"), "--budget must look like trials=50"),
        (("my_training:train", "--budget", "trials=0.5"), "Budget.trials must be an int"),
        (("my_training:train", "--per-trial", "trials=1"), "--per-trial must name each of"),
        (("my_training:train", "--scheduler", "hyper"), "--scheduler must be one of"),
        (("my_training:train", "--scheduler", "ASHA(4)"), "with arguments by name"),
        (("my_training:train", "--scheduler", "ASHA(etas=4)"), "must have arguments among ['eta'"),
        (("my_training:train", "--scheduler", "ASHA"), "ASHA needs a fidelity"),
        (("my_training:train", "--target", "N=7e9"), "--target needs runs of several sizes"),
        (("my_training:train", "--prior", "NuP"), "--prior must be one of"),
        (("my_training:train", "--workers", "0"), "`workers` must be an int of at least 1"),
        (("my_training:train", "--space", "none.yaml"), "No such file"),
        (("my_training:train", "--space", "my_training:SPACE"), "at least one parameter"),
        (("my_training:train", "--metric", "f1"), "a dict with 'f1', which --metric names"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    folder: Path, scaletune: Scaletune, arguments: tuple[str, ...], said: str
) -> None:
    (folder / "broken.py").write_text("def train(config, ctx): ...\n1 / 0\n")
    (folder / "wrong.py").write_text("def train(config, ctx:\n")
    for option, value in (("--budget", "trials=5"), ("--space", "space.yaml")):
        arguments += () if option in arguments else (option, value)
    ended = scaletune("optimize", *arguments)
    assert ended.code == 1 and ended.out == ""
    last = ended.err.rstrip().splitlines()[-1]
    assert last.startswith("error: ") and said in last


def test_a_search_without_a_limit_is_refused(scaletune: Scaletune) -> None:
    ended = scaletune(*SEARCH)
    assert ended.code == 1 and "write --budget trials=50" in ended.err


def test_an_option_that_does_not_exist_ends_with_2(scaletune: Scaletune) -> None:
    assert scaletune(*SEARCH, "--trials", 5).code == 2


def test_the_commands_of_the_documentation_print_what_it_shows(
    folder: Path, scaletune: Scaletune, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "command_line.md").read_text()
    monkeypatch.delitem(sys.modules, "train", raising=False)
    code, space = (
        re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)[0] for kind in ("python", "yaml")
    )
    (folder / "train.py").write_text(code.replace("load_digits()", "load_digits(n_class=2)"))
    (folder / "space.yaml").write_text(space)
    shown = re.findall(r"```\n\$ scaletune (.*?)\n(.*?)```", page, re.DOTALL)
    assert len(shown) == 7
    for command, expected in shown:
        ended = scaletune(*shlex.split(re.sub(r"trials=2(\d)", r"trials=4", command)))
        assert ended.code == ("error:" in expected), ended.err
        printed = {line.split()[0] for line in f"{ended.out}{ended.err}".splitlines() if line}
        labels = {line.split()[0] for line in expected.splitlines()} & LABELS
        assert labels <= printed, command
