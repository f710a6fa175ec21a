"""The registry, the contract every task keeps, synthetic tasks and wrappers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import tasks
from benchmarks.task import Bounds, Evaluation, Levels
from benchmarks.tasks.synthetic import PROBLEMS, Curves, Drift, crossing, curves, drift
from benchmarks.tasks.wrappers import Failing, Noisy
from hpo import Optimizer, SpaceError
from hpo.space.encoding import Encoder


def draw(space, rng):
    """A random config: encoded coordinates uniform in the search box."""
    encoder = Encoder(space)
    row = rng.uniform(encoder.lower, encoder.upper)[None]
    return encoder.decode(encoder.snap(row))[0]


@pytest.mark.parametrize("suite", ["smoke", "synthetic"])
def test_every_task_of_a_built_in_suite_keeps_the_contract(suite):
    rng = np.random.default_rng(0)
    for name in tasks.SUITES[suite]:
        task = tasks.load(name)
        assert task.name == name
        assert task.bounds.best < task.bounds.worst
        assert task.space.fidelity is None
        for _ in range(20):
            config = draw(task.space, rng)
            run = task.evaluate(config, None, rng)
            assert run.cost >= 0
            if run.failed is None:
                assert run.curve[-1].loss == run.loss
                assert run.curve[-1].cost == run.cost
            levels = [point.level for point in run.curve]
            assert levels == sorted(set(levels))
            assert all(a.cost <= b.cost for a, b in itertools.pairwise(run.curve))


def test_an_optimizer_accepts_every_built_in_space():
    for name in tasks.SUITES["synthetic"]:
        task = tasks.load(name)
        assert task.evaluate(Optimizer(task.space).ask().config, None, np.random.default_rng(0))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "branin",
        "synthetic",
        "synthetic/",
        "synthetic/branin",
        "synthetic/branin--1",
        "synthetic/sphere-0",
        "unknown/thing",
        "synthetic/branin-0+noise",
        "synthetic/branin-0+noise=much",
        "synthetic/branin-0+noise=-1",
        "synthetic/branin-0+failures=1",
        "synthetic/branin-0+repeats",
        "synthetic/branin-0+heat=1",
    ],
)
def test_an_unknown_name_is_refused_with_one_line(name):
    with pytest.raises(ValueError) as caught:
        tasks.load(name)
    assert "\n" not in str(caught.value)


def test_listed_synthetic_names_load_and_suites_name_no_task_twice():
    for name in tasks.names("synthetic"):
        assert tasks.load(name).name == name
    for names in tasks.SUITES.values():
        assert len(set(names)) == len(names)


def test_the_report_suites_hold_no_lcbench_task_seen_in_design():
    seen = {"lcbench/167168", "lcbench/189873", "lcbench/189906", "lcbench/3945"}
    assert not seen & set(tasks.SUITES["lcbench"])
    assert seen == set(tasks.SUITES["lcbench-design"])


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_random_config_beats_the_known_minimum_of_a_function(name):
    rng = np.random.default_rng(1)
    task = tasks.load(f"synthetic/{name}-7")
    losses = [task.evaluate(draw(task.space, rng), None, rng).loss for _ in range(300)]
    assert min(losses) >= -1e-9
    assert task.bounds.regret(min(losses)) < 1.0


@pytest.mark.parametrize("seed", range(5))
def test_curves_bounds_hold_for_random_configs_and_the_best_is_reached(seed):
    task, rng = curves(seed), np.random.default_rng(seed)
    assert task.evaluate(task.best, None, rng).loss == pytest.approx(task.bounds.best, abs=1e-12)
    for _ in range(200):
        run = task.evaluate(draw(task.space, rng), None, rng)
        if run.failed is None:
            assert task.bounds.best - 1e-12 <= run.loss <= task.bounds.worst + 1e-12


def test_curves_begin_equal_end_at_the_final_loss_and_cross():
    task, rng = curves(0), np.random.default_rng(0)
    runs = []
    while len(runs) < 40:
        config = draw(task.space, rng)
        run = task.evaluate(config, None, rng)
        if run.failed is None:
            assert run.curve[0].loss == pytest.approx(1.5)
            assert run.loss == pytest.approx(task.final_loss(config))
            runs.append([point.loss for point in run.curve])
    early, last = np.array(runs)[:, 2], np.array(runs)[:, -1]
    assert np.any(np.argsort(early) != np.argsort(last))


@pytest.mark.parametrize("seed", range(4))
def test_where_curves_cross_what_ends_best_stands_among_the_last_at_first(seed):
    task, rng = crossing(seed), np.random.default_rng(0)
    configs = [draw(task.space, rng) for _ in range(200)]
    losses = np.array([[p.loss for p in task.evaluate(c, None, rng).curve] for c in configs])
    assert np.all(np.diff(losses, axis=1) < 0)
    best = np.argsort(losses[:, -1])[:20]
    early, late = (np.argsort(np.argsort(losses[:, epoch])) / 200 for epoch in (0, 26))
    assert np.mean(early[best]) > 0.8 and np.mean(late[best]) < 0.1
    assert losses[:, -1] == pytest.approx([0.1 + 0.8 * task.badness(c) for c in configs])
    bounds = task.bounds
    assert task.evaluate(task.best, None, rng).loss == pytest.approx(bounds.best, abs=1e-9)
    assert bounds.best < losses[:, -1].min() and losses[:, -1].max() <= bounds.worst


@pytest.mark.parametrize("make", [curves, crossing])
def test_a_run_to_a_lower_level_is_the_beginning_of_the_longer_one(make):
    task, rng = make(0), np.random.default_rng(0)
    config = task.best
    long, short = task.evaluate(config, None, rng), task.evaluate(config, 9, rng)
    assert long.curve[:9] == short.curve
    assert short.cost == pytest.approx(long.cost * 9 / task.levels.high)


def test_a_level_outside_the_range_is_refused():
    task, rng = curves(0), np.random.default_rng(0)
    for level in (0, 28, -1):
        with pytest.raises(ValueError, match="`level` must lie in"):
            task.evaluate(task.best, level, rng)
    with pytest.raises(ValueError, match="must be None"):
        tasks.load("synthetic/branin-0").evaluate({"x0": 0.0, "x1": 0.0}, 1, rng)
    with pytest.raises(SpaceError):
        task.evaluate({"lr": 0.1}, None, rng)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_optimum_of_drift_moves_by_its_known_slopes(seed):
    task = drift(seed)
    small, large = task.optimum(1e6, 1e9), task.optimum(1e8, 1e9)
    assert math.log(large["lr"] / small["lr"]) / math.log(100) == pytest.approx(task.lr_slopes[0])
    more = task.optimum(1e6, 1e10)
    assert math.log(more["batch"] / small["batch"]) / math.log(10) == pytest.approx(
        task.batch_slopes[1]
    )


@pytest.mark.parametrize("seed", range(3))
def test_drift_costs_six_n_d_and_stays_within_its_bounds(seed):
    task, rng = drift(seed), np.random.default_rng(seed)
    failed = 0
    for _ in range(300):
        config = draw(task.space, rng)
        run = task.evaluate(config, None, rng)
        if run.failed is None:
            assert run.cost == pytest.approx(6 * config["params"] * config["tokens"])
            assert task.bounds.best <= run.loss <= task.bounds.worst
        else:
            failed += 1
    assert 0 < failed < 200


def test_noise_has_the_declared_size_and_the_true_loss_is_kept():
    task, rng = tasks.load("synthetic/branin-0+noise=0.1"), np.random.default_rng(0)
    config = {"x0": 1.0, "x1": 2.0}
    runs = [task.evaluate(config, None, rng) for _ in range(2000)]
    clean = tasks.load("synthetic/branin-0").evaluate(config, None, rng).loss
    errors = np.array([run.loss for run in runs]) - clean
    sd = 0.1 * (task.bounds.worst - task.bounds.best)
    assert all(run.true_loss == clean for run in runs)
    assert abs(errors.mean()) < 4 * sd / math.sqrt(2000)
    assert errors.std() == pytest.approx(sd, rel=4 / math.sqrt(2 * 2000))


def test_failures_happen_at_the_declared_rate_and_half_as_often_at_half_the_level():
    task = Failing(curves(0), 0.4)
    rng = np.random.default_rng(0)
    full = np.mean(
        [task.evaluate(curves(0).best, None, rng).failed is not None for _ in range(2000)]
    )
    half = np.mean([task.evaluate(curves(0).best, 13, rng).failed is not None for _ in range(2000)])
    assert full == pytest.approx(0.4, abs=4 * math.sqrt(0.24 / 2000))
    assert half == pytest.approx(0.4 * 13 / 27, abs=4 * math.sqrt(0.16 / 2000))


@given(st.integers(0, 10_000), st.integers(1, 27))
@settings(max_examples=60, deadline=None)
def test_wrapped_runs_repeat_their_beginning_under_an_equal_stream(seed, level):
    task = Failing(Noisy(curves(0), 0.05), 0.5)
    config = curves(0).best
    full = task.evaluate(config, None, np.random.default_rng(seed))
    part = task.evaluate(config, level, np.random.default_rng(seed))
    assert part.curve == full.curve[: len(part.curve)]
    if part.failed is not None:
        assert part == full
    else:
        assert part.curve[-1].level == level
        assert full.failed is None or full.cost >= part.cost


def test_evaluations_bounds_and_levels_refuse_nonsense():
    with pytest.raises(ValueError, match="exactly for failed"):
        Evaluation(None, 1.0, ())
    with pytest.raises(ValueError, match="must be one of"):
        Evaluation(None, 1.0, (), "tired")
    with pytest.raises(ValueError, match="finite"):
        Evaluation(1.0, math.inf, ())
    with pytest.raises(ValueError, match="finite"):
        Evaluation(math.nan, 1.0, ())
    with pytest.raises(ValueError, match="best <= worst"):
        Bounds(1.0, 0.0)
    assert Bounds(1.0, 1.0).regret(1.0) == 0.0
    assert Bounds(0.0, 2.0).regret(5.0) == 1.0
    assert Levels("epoch", 1, 9).check(None) == 9


def test_seeds_move_the_synthetic_optimum():
    assert isinstance(curves(0), Curves)
    assert isinstance(drift(0), Drift)
    assert curves(0).best != curves(1).best
    assert drift(0).lr_slopes != drift(1).lr_slopes
