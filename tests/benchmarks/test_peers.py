"""Every peer that can be imported here keeps the contract of `benchmarks.peers.base`."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import environments, peers
from benchmarks.peers.base import Job, Penalty
from benchmarks.peers.spaces import CodeKind, Translation
from benchmarks.simulate import Ending, Outcome, StudyLimits, draw, simulate
from benchmarks.task import Bounds, Evaluation, Levels, Point
from hpo import Categorical, Float, Int, Scale, SearchSpace

TRIALS = 12
SPACE = SearchSpace(
    {
        "rate": Float(1e-4, 1.0, log=True),
        "momentum": Float(0.5, 0.99, logit=True),
        "units": Int(16, 256, log=True, multiple_of=8),
        "layers": Int(1, 4),
        "batch": Categorical([16, 32, 64, 128], ordered=True),
        "rule": Categorical(["adam", "sgd", "lion"]),
        "clip": Categorical([1.0]),
    }
)
CONDITIONAL = SearchSpace(
    {
        "rule": Categorical(["adam", "sgd"]),
        "beta": Float(0.8, 0.999, when=("rule", ["adam"])),
        "rate": Float(1e-4, 1.0, log=True),
    }
)


@dataclass(frozen=True, slots=True)
class Bowl:
    """A small task: loss falls with the level, cost rises with it."""

    levels: Levels | None = None
    space: SearchSpace = field(default_factory=lambda: SPACE)
    name: str = "tests/bowl"
    unit: str = "seconds"
    pool: tuple[dict[str, Any], ...] | None = None
    bounds: Bounds = Bounds(0.0, 20.0)
    seen_in_design: bool = False

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        config = self.space.canonical(config)
        loss = 0.2 + (np.log10(config["rate"]) + 2.0) ** 2
        loss += {"adam": 0.0, "sgd": 0.3, "lion": 0.6}[config["rule"]]
        if "layers" in config:
            loss += 0.1 * abs(config["layers"] - 3)
        if self.levels is None:
            return Evaluation(loss, 1.0, (Point(1, loss, 1.0),))
        curve = tuple(
            Point(at, loss + 1.0 / at, float(at))
            for at in range(self.levels.low, self.levels.check(level) + 1)
        )
        return Evaluation(curve[-1].loss, curve[-1].cost, curve)

    def other_tasks(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        """Two tasks with random runs, for the method that learns from such."""
        rng = np.random.default_rng(0)
        found: dict[str, list[tuple[dict[str, Any], float]]] = {"a": [], "b": []}
        for runs in found.values():
            for _ in range(15):
                config = draw(self.space, rng)
                loss = self.evaluate(config, None, rng).loss
                assert loss is not None
                runs.append((config, loss))
        return found


def task_of(name: str) -> Bowl:
    return Bowl(Levels("epoch", 1, 27)) if peers.PEERS[name].multi_fidelity else Bowl()


def here(name: str) -> bool:
    """Whether this very interpreter can run the peer."""
    entry = peers.PEERS[name]
    return entry.folder is None and all(find_spec(module) for module in entry.requires)


#: Seconds for each ask.
SLOW = {"botorch", "smac-bb", "hebo", "ax", "carbs"}
#: Of what BoTorch's dependencies call, and of a search that it starts again.
WARNED = (
    pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Optimization failed:RuntimeWarning"),
)
HERE = [
    pytest.param(name, marks=[pytest.mark.slow, *WARNED] * (name in SLOW))
    for name in peers.PEERS
    if here(name)
]


@functools.cache
def first_run(name: str) -> tuple[Job, ...]:
    """The first jobs under seed 3; kept, as some peers take a second for each."""
    jobs = 3 * TRIALS if peers.PEERS[name].multi_fidelity else TRIALS
    return run(name, task_of(name), 3, jobs)


def run(name: str, task: Bowl, seed: int, jobs: int = TRIALS) -> tuple[Job, ...]:
    """The first jobs of a peer with one worker."""
    peer = peers.make(name, task, seed=seed, trials=TRIALS)
    rng = np.random.default_rng(0)
    asked: list[Job] = []
    while len(asked) < jobs:
        job = peer.ask()
        assert job is not None, "with nothing running a peer must have something to ask"
        asked.append(job)
        peer.tell(job, task.evaluate(job.config, job.level, rng))
    return tuple(asked)


@pytest.mark.parametrize("name", HERE)
def test_configs_are_legal_and_canonical(name: str) -> None:
    task = task_of(name)
    for job in first_run(name):
        assert task.space.canonical(job.config) == job.config
        assert job.level is None or task.levels is not None


@pytest.mark.parametrize("name", HERE)
def test_equal_seeds_ask_equal_jobs_and_other_seeds_do_not(name: str) -> None:
    task = task_of(name)
    assert run(name, task, 3, jobs=len(first_run(name))) == first_run(name)
    assert run(name, task, 4, jobs=5) != first_run(name)[:5]


@pytest.mark.parametrize("name", HERE)
def test_numbers_count_up_and_resumed_jobs_go_further_with_the_same_config(name: str) -> None:
    task = task_of(name)
    levels = task.levels
    reached: dict[int, tuple[dict[str, Any], int]] = {}
    for job in first_run(name):
        level = 1 if levels is None else levels.check(job.level)
        if job.number in reached:
            config, before = reached[job.number]
            assert job.resumes and job.config == config and level > before
        else:
            assert job.number == len(reached) and not job.resumes
        reached[job.number] = job.config, level


@pytest.mark.parametrize("name", HERE)
def test_asks_may_overlap_fail_be_swapped_and_start_points_told(name: str) -> None:
    task = task_of(name)
    peer = peers.make(name, task, seed=5, trials=TRIALS)
    rng = np.random.default_rng(5)
    translation = Translation(task.space, peer="test")
    for number in (-2, -1):
        start = Job(number, translation.sample(rng))
        peer.tell(start, task.evaluate(start.config, None, rng))
    running: list[Job] = []
    for step in range(TRIALS):
        job = peer.ask()
        if job is not None:
            running.append(job)
        if len(running) < 3 and job is not None:
            continue
        told = running.pop(0)
        if step == 5 and not told.resumes:
            told = replace(told, config=translation.sample(rng))
        evaluation = task.evaluate(told.config, told.level, rng)
        if step == 7:
            evaluation = Evaluation(None, evaluation.cost, (), "diverged")
        peer.tell(told, evaluation)


@pytest.mark.parametrize(
    "name", [n for n, entry in peers.PEERS.items() if here(n) and entry.multi_fidelity]
)
def test_multi_fidelity_peers_finish_runs_where_a_pool_answers_for_them(name: str) -> None:
    rng = np.random.default_rng(0)
    translation = Translation(SPACE, peer="test")
    pool = tuple(translation.sample(rng) for _ in range(60))
    task = replace(task_of(name), pool=pool)
    *rows, ending = simulate(
        task, peers.make(name, task, seed=0, trials=9), seed=0, limits=StudyLimits(trials=9)
    )
    done = [row for row in rows if isinstance(row, Outcome)]
    levels = [row.level for row in done]
    assert levels.count(27) >= 2 and len(set(levels)) >= 2
    used_up = len({row.number for row in done}) == len(pool)
    rank_rule = name in ("plain-asha", "scaletune-asha")  # it waits for starts the pool lacks
    assert ending is (Ending.METHOD if rank_rule and used_up else Ending.TRIALS)


@pytest.mark.parametrize("name", HERE)
def test_conditional_spaces_are_searched_or_refused(name: str) -> None:
    task = replace(task_of(name), space=CONDITIONAL)
    try:
        jobs = run(name, task, 0)
    except peers.Unsupported as refusal:
        assert "conditional" in str(refusal)
        return
    assert {"beta" in job.config for job in jobs} == {True, False}


@pytest.mark.slow
@pytest.mark.skipif(not here("botorch"), reason="botorch is not installed (extra `bench`)")
def test_torch_is_loaded_before_the_first_ask_so_that_the_seed_reaches_it() -> None:
    code = (
        "import sys; from benchmarks import peers, tasks;"
        "peers.make('botorch', tasks.load('synthetic/branin-0'), seed=0, trials=3);"
        "assert 'torch' in sys.modules"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_multi_fidelity_peers_refuse_tasks_without_levels() -> None:
    name = next(name for name, entry in peers.PEERS.items() if entry.multi_fidelity)
    with pytest.raises(peers.Unsupported, match="no levels"):
        peers.make(name, Bowl(), seed=0, trials=3)


def test_every_peer_runs_or_says_why_not() -> None:
    for name, entry in peers.PEERS.items():
        reason = peers.missing(name)
        if reason is not None:
            assert entry.environment in reason or str(entry.folder) in reason
    assert peers.missing("random") is None


def test_a_folder_from_outside_must_be_named_and_exist(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = next(name for name, entry in peers.PEERS.items() if entry.folder)
    variable = str(peers.PEERS[name].folder)
    monkeypatch.delenv(variable, raising=False)
    assert f"{variable} is not set" in str(peers.missing(name))
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    assert "is no folder" in str(peers.missing(name))


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="random"):
        peers.missing("bogus")
    with pytest.raises(ValueError, match=environments.NAMES[0]):
        environments.make("bogus")


def test_environments_that_were_not_made_are_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCALETUNE_ENVS", str(tmp_path))
    assert environments.python("main") == Path(sys.executable)
    assert environments.python("smac").is_relative_to(tmp_path)
    assert "benchmarks env smac" in str(peers.missing("smac"))


def test_every_peer_names_a_known_environment() -> None:
    assert {entry.environment for entry in peers.PEERS.values()} <= {"main", *environments.NAMES}


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_codes_give_back_the_config(seed: int) -> None:
    for space in (SPACE, CONDITIONAL, SearchSpace({"size": Scale(1e3, 1e6), "b": Int(1, 9)})):
        translation = Translation(space, peer="test", conditional=True)
        config = translation.sample(np.random.default_rng(seed))
        assert space.canonical(config) == config
        again = translation.config(translation.codes(config))
        assert again.keys() == config.keys()
        for name, value in config.items():
            assert again[name] == (
                pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            )
        codes = translation.codes(config)
        for axis in translation.axes:
            if axis.name in codes:
                share = axis.to_unit(codes[axis.name])
                assert 0.0 <= share <= 1.0
                assert axis.from_unit(share) == pytest.approx(codes[axis.name], rel=1e-9, abs=1e-9)


def test_a_sample_takes_every_code_of_a_log_integer() -> None:
    space = SearchSpace({"units": Int(1, 6, log=True)})
    translation = Translation(space, peer="test")
    rng = np.random.default_rng(0)
    drawn = [translation.sample(rng)["units"] for _ in range(2000)]
    counts = np.bincount(drawn, minlength=7)[1:]
    edges = np.log(np.arange(0.5, 7.0))
    expected = 2000 * np.diff(edges) / (edges[-1] - edges[0])
    # Five standard deviations of a binomial count.
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_rivals_see_each_kind_as_what_they_know() -> None:
    axes = {axis.name: axis for axis in Translation(SPACE, peer="test").axes}
    assert "clip" not in axes
    assert (axes["units"].low, axes["units"].high, axes["units"].log) == (2, 32, True)
    assert (axes["batch"].kind, axes["batch"].high) == (CodeKind.INTEGER, 3)
    assert axes["rule"].kind is CodeKind.CATEGORY
    assert axes["momentum"].low == 0.0


def test_unbounded_parameters_are_refused_with_the_way_out() -> None:
    space = SearchSpace({"x": Float(center=0.0, spread=1.0)})
    with pytest.raises(peers.Unsupported, match="`x` lacks one"):
        Translation(space, peer="SMAC")


def test_a_failed_run_is_told_as_the_worst_loss_so_far() -> None:
    penalty = Penalty()
    failure = Evaluation(None, 1.0, (), "oom")
    assert penalty.loss(failure) == 0.0
    assert penalty.loss(Evaluation(-3.0, 1.0, ())) == -3.0
    assert penalty.loss(failure) == -3.0
    assert penalty.loss(Evaluation(2.0, 1.0, ())) == 2.0
    assert penalty.loss(Evaluation(1.0, 1.0, ())) == 1.0
    assert penalty.loss(failure) == 2.0
