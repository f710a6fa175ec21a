from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from benchmarks import analysis
from benchmarks.analysis import BudgetAxis, Results, TaskFacts, compare
from benchmarks.simulate import Outcome
from benchmarks.table import Appender, Note, Record, Study, prepare

FACTS = TaskFacts(best=1.0, worst=3.0, unit="seconds", full_cost=2.0, seen_in_design=False)


def record(
    losses: list[float],
    costs: list[float] | None = None,
    *,
    reason: str = "end:trials",
    seconds: float = 0.1,
) -> Record:
    """One outcome a loss; costs are of each run and 2 by default."""
    prices = costs or [2.0] * len(losses)
    rows = [
        Outcome(
            trial=i,
            number=i,
            level=None,
            loss=loss,
            incumbent=min(losses[: i + 1]),
            run_cost=price,
            cost=sum(prices[: i + 1]),
            effort=i + 1.0,
            time=sum(prices[: i + 1]),
            ask_s=seconds,
            tell_s=0.0,
            status="ok",
        )
        for i, (loss, price) in enumerate(zip(losses, prices, strict=True))
    ]
    return Record(rows, Note(reason, len(losses), sum(prices), seconds * len(losses)))


def results(table: dict[tuple[str, str, int], Record]) -> Results:
    records = {Study("suite", *key): value for key, value in table.items()}
    tasks = {task: FACTS for task, _, _ in table}
    return Results(records, tasks, ())


def test_regret_is_the_share_of_the_known_range_clipped() -> None:
    losses = np.array([1.0, 2.0, 3.0, 0.0, 9.0, np.nan])
    assert FACTS.regret(losses).tolist() == [0.0, 0.5, 1.0, 0.0, 1.0, 1.0]
    flat = TaskFacts(1.0, 1.0, "seconds", 1.0, False)
    assert flat.regret(np.array([1.0, 2.0])).tolist() == [0.0, 0.0]


def test_curves_against_trials_are_the_recorded_incumbents() -> None:
    table = results({("t", "scaletune", 0): record([3.0, 2.0, 2.5, 1.0])})
    found = compare(table, BudgetAxis.TRIALS)
    assert found.grid.tolist() == [1, 2, 3, 4]
    assert found.curve("scaletune").tolist() == [[1.0, 0.5, 0.5, 0.0]]
    assert found.at(3).tolist() == [[0.5]]
    assert found.coverage == ()


def test_cost_runs_to_what_every_finished_study_spent_on_that_task_and_seed() -> None:
    table = results(
        {
            ("t", "scaletune", 0): record([2.0, 1.0], [6.0, 6.0]),
            ("t", "random", 0): record([2.0, 1.0], [1.0, 3.0]),
        }
    )
    found = compare(table, BudgetAxis.COST)
    # 4 is the common cost: ours has finished nothing by then, the other both of its runs.
    assert found.at(1.0).tolist() == [[1.0, 0.0]]
    assert found.at(0.24).tolist() == [[1.0, 1.0]]
    assert found.at(0.25).tolist() == [[1.0, 0.5]]


def test_with_a_budget_of_cost_the_axis_is_in_mean_full_trainings() -> None:
    table = results({("t", "scaletune", 0): record([2.0, 1.0], [2.0, 8.0], reason="end:cost")})
    found = compare(table, BudgetAxis.COST)
    assert found.grid[-1] == pytest.approx(5.0)
    assert found.at(1.0).tolist() == [[0.5]]


def test_against_seconds_a_finished_method_keeps_its_last_regret() -> None:
    table = results(
        {
            ("t", "scaletune", 0): record([2.0, 1.0], seconds=0.01),
            ("t", "random", 0): record([3.0, 2.0], seconds=5.0),
        }
    )
    found = compare(table, BudgetAxis.SECONDS)
    assert found.grid[-1] == pytest.approx(10.0)
    assert found.at(0.015).tolist() == [[0.5, 1.0]]
    assert found.at(10.0).tolist() == [[0.0, 0.5]]


def test_a_slow_method_leaves_the_comparison_of_the_others_whole_and_is_named() -> None:
    table = {
        (task, method, seed): record([2.0, 1.5, 1.0])
        for task, method, seed in itertools.product("ab", ("scaletune", "random"), range(3))
    }
    table["a", "slow", 0] = record([2.0, 1.5, 1.0])
    table["a", "slow", 1] = record([2.0], reason="end:seconds")
    found = compare(results(table), BudgetAxis.TRIALS)
    assert found.methods == ("scaletune", "random")
    assert found.outside == ("slow",)
    assert found.runs() == 6
    assert found.coverage == ("slow got to the end of the axis on 1 of 6 (task, seed) pairs.",)
    pair = compare(results(table), BudgetAxis.TRIALS, ["scaletune", "slow"])
    assert (pair.tasks, pair.seeds, pair.runs()) == (("a",), (0,), 1)
    assert "1 of 6" in pair.coverage[0]


def test_a_method_nearly_complete_restricts_all_to_the_common_runs() -> None:
    table = {
        (task, method, seed): record([2.0 + 0.1 * seed, 1.5])
        for task, method, seed in itertools.product("ab", ("scaletune", "random"), range(5))
    }
    del table["b", "random", 4]
    found = compare(results(table), BudgetAxis.TRIALS)
    assert found.methods == ("scaletune", "random")
    assert found.runs() == 9
    # On b, seed 4 counts for nobody.
    assert found.at(1)[1] == pytest.approx([(1.0 + 0.15) / 2] * 2)


def test_a_used_up_pool_keeps_its_answer() -> None:
    table = results(
        {
            ("t", "scaletune", 0): record([2.0, 1.0], reason="end:method"),
            ("t", "random", 0): record([3.0, 2.0, 1.5, 1.5]),
        }
    )
    found = compare(table, BudgetAxis.TRIALS)
    assert found.curve("scaletune").tolist() == [[0.5, 0.0, 0.0, 0.0]]


def test_before_the_first_full_run_regret_is_one() -> None:
    partial = record([2.0, 2.0])
    partial.outcomes[0] = Outcome(
        **{
            name: getattr(partial.outcomes[0], name)
            for name in Outcome.__dataclass_fields__
            if name != "incumbent"
        },
        incumbent=None,
    )
    found = compare(results({("t", "scaletune", 0): partial}), BudgetAxis.TRIALS)
    assert found.curve("scaletune").tolist() == [[1.0, 0.5]]


def test_the_bootstrap_of_a_mean_has_its_normal_interval() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, size=400)
    interval = analysis.bootstrap(values, rng=np.random.default_rng(0))
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    # A percentile of 4000 draws has an error of about 3 % of the standard error here.
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_bootstrap_of_logs_is_a_geometric_mean() -> None:
    interval = analysis.bootstrap(np.array([0.5, 2.0]), rng=np.random.default_rng(0), log=True)
    assert (interval.value, interval.low, interval.high) == pytest.approx((1.0, 0.5, 2.0))
    same = analysis.bootstrap(np.full(5, 0.3), rng=np.random.default_rng(0))
    assert (same.low, same.high) == pytest.approx((0.3, 0.3))


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4)),
        elements=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    )
)
def test_ranks_average_ties_and_sum_to_the_same_everywhere(regret: np.ndarray) -> None:
    ranked = analysis.ranks(regret)
    count = regret.shape[1]
    assert np.allclose(ranked.sum(axis=1), count * (count + 1) / 2)
    assert np.array_equal(ranked[0, :, 0, 0], stats.rankdata(regret[0, :, 0, 0]))


def test_mean_ranks_leave_out_runs_that_are_not_compared() -> None:
    table = {
        ("a", "scaletune", 0): record([1.0]),
        ("a", "random", 0): record([2.0]),
        ("b", "scaletune", 0): record([2.0]),
        ("b", "random", 0): record([2.0]),
        ("b", "scaletune", 1): record([3.0]),
        ("b", "random", 1): record([2.0]),
    }
    ranks = analysis.mean_ranks(compare(results(table), BudgetAxis.TRIALS))
    # a: 1 against 2; b: 1.5 and 2 against 1.5 and 1.
    assert ranks[:, -1] == pytest.approx([(1 + 1.75) / 2, (2 + 1.25) / 2])


def test_wins_ties_and_losses_are_counted_by_task() -> None:
    at = np.array([[0.1, 0.2], [0.2, 0.2 + 1e-12], [0.3, 0.2], [0.0, 0.5]])
    assert analysis.win_tie_loss(at, 0, 1) == (2, 1, 1)
    assert analysis.win_tie_loss(at, 1, 0) == (1, 1, 2)


def test_holm_matches_the_worked_example_and_never_reorders() -> None:
    # Four tests: 4 x 0.01, 3 x 0.02, 2 x 0.03, 1 x 0.04, then the running maximum.
    assert analysis.holm(np.array([0.03, 0.01, 0.04, 0.02])) == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert analysis.holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])
    assert len(analysis.holm(np.array([]))) == 0


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(0, 1)))
def test_holm_is_the_closed_test_by_bonferroni(p: np.ndarray) -> None:
    # Marcus, Peritz & Gabriel (1976): a hypothesis falls when every intersection with it does.
    subsets = [
        list(chosen)
        for size in range(1, len(p) + 1)
        for chosen in itertools.combinations(range(len(p)), size)
    ]
    expected = [
        max(min(len(chosen) * p[chosen].min(), 1.0) for chosen in subsets if i in chosen)
        for i in range(len(p))
    ]
    assert analysis.holm(p) == pytest.approx(expected, abs=1e-12)


def test_wilcoxon_is_symmetric_and_that_of_scipy_times_holms_factor() -> None:
    at = np.random.default_rng(0).random((12, 2))
    at[:, 1] += 0.2
    p = analysis.wilcoxon_holm(at)
    raw = stats.wilcoxon(np.round(at[:, 0] - at[:, 1], 8)).pvalue
    assert p[0, 1] == p[1, 0] == pytest.approx(raw)
    three = analysis.wilcoxon_holm(np.column_stack([at, at[:, 0]]))
    assert three[0, 2] == 1.0, "equal columns cannot be told apart"
    assert np.allclose(three, three.T)
    assert three[0, 1] == pytest.approx(min(3 * raw, 1.0))


def test_time_to_target_is_the_ratio_of_speeds() -> None:
    grid = np.arange(1.0, 101.0)
    slow = np.exp(-grid / 50)[None]
    fast = np.exp(-2 * grid / 50)[None]
    ratio = analysis.time_to_target(fast, slow, grid)
    assert ratio == pytest.approx([0.5])
    assert analysis.time_to_target(slow, fast, grid) == pytest.approx([2.0])
    assert analysis.time_to_target(slow, slow, grid) == pytest.approx([1.0])
    # Starts reach the target before the first trial: no division by nothing.
    assert np.isfinite(analysis.time_to_target(0 * slow, slow, grid - 1.0)).all()


def test_the_anytime_area_is_the_mean_of_the_curve() -> None:
    table = results({("t", "scaletune", 0): record([3.0, 2.0, 1.0, 1.0])})
    assert analysis.anytime_area(compare(table, BudgetAxis.TRIALS)).tolist() == [[0.375]]


def test_hypervolume_of_a_hand_made_front() -> None:
    table = results({("t", "scaletune", 0): record([2.0, 1.5, 1.0], [1.0, 2.0, 4.0])})
    # Regrets 0.5, 0.25, 0 at a quarter, half and all of the dearest cost; the last adds nothing.
    found = analysis.hypervolumes(table, compare(table, BudgetAxis.TRIALS))
    assert found[0, 0] == pytest.approx(0.25 * 0.5 + 0.5 * 0.75)


def test_latency_is_a_mean_over_trials_by_bins() -> None:
    slow = record([2.0] * 30, seconds=1.0)
    table = results({("t", "scaletune", 0): record([2.0] * 30), ("t", "random", 0): slow})
    found = analysis.latency(table)
    assert found.methods == ("scaletune", "random")
    assert found.labels == ("1 to 10", "11 to 25", "26 to 30")
    assert found.seconds == pytest.approx(np.array([[0.1] * 3, [1.0] * 3]))


def test_random_search_has_the_regret_of_sampling_without_replacement(tmp_path: Path) -> None:
    """E[min of k of N without replacement] in closed form, on a pool, through the whole chain."""
    rng = np.random.default_rng(0)
    pool = np.sort(rng.random(50))
    k, seeds = 10, 400
    expected = sum(
        value * (math.comb(50 - i - 1, k - 1) / math.comb(50, k)) for i, value in enumerate(pool)
    )
    table = {
        ("t", "random", s): record((1 + 2 * rng.permutation(pool)[:k]).tolist())
        for s in range(seeds)
    }
    found = compare(results(table), BudgetAxis.TRIALS)
    runs = found.regret[0, 0, :, -1]
    assert abs(runs.mean() - expected) < 4 * runs.std() / math.sqrt(seeds)


def test_the_regret_ratio_is_that_of_means_against_the_best_rival() -> None:
    at = np.array([[0.1, 0.2, 0.4], [0.3, 0.6, 0.1]])
    rng = np.random.default_rng(0)
    assert analysis.regret_ratio(at, 0, [1], rng=rng).value == pytest.approx(0.5)
    assert analysis.regret_ratio(at, 0, [2], rng=rng).value == pytest.approx(0.8)
    both = analysis.regret_ratio(at, 0, [1, 2], rng=rng)
    assert both.value == pytest.approx(0.8)
    # Two tasks resample to (1, 1), (1, 2), (2, 2); the best rival is found anew in each.
    assert (both.low, both.high) == pytest.approx((0.5, 3.0))


def test_a_ratio_of_nothing_to_nothing_is_one_and_of_something_infinite() -> None:
    rng = np.random.default_rng(0)
    nothing = analysis.regret_ratio(np.zeros((3, 2)), 0, [1], rng=rng)
    assert (nothing.value, nothing.low, nothing.high) == (1.0, 1.0, 1.0)
    something = analysis.regret_ratio(np.array([[0.5, 0.0]] * 3), 0, [1], rng=rng)
    assert (something.value, something.low, something.high) == (math.inf,) * 3


def test_quick_rivals_are_those_below_the_limit_and_not_ours() -> None:
    table = {
        ("t", method, 0): record([2.0, 1.0], seconds=seconds)
        for method, seconds in {
            "scaletune": 0.1,
            "scaletune-cost": 0.1,
            "quick": 0.4,
            "slow": 0.6,
        }.items()
    }
    found = results(table)
    assert analysis.mean_seconds(found) == pytest.approx([0.1, 0.4, 0.1, 0.6])
    assert analysis.quick_rivals(found, compare(found, BudgetAxis.TRIALS), 0.5) == ("quick",)


def folder(path: Path, method: str, *, starts: int = 0, best: float = 1.0) -> Path:
    """A run of one method on one task, as the runner leaves it."""
    path.mkdir()
    prepare(path / "results.csv")
    study, made = Study("suite", "t", method, 0), record([2.0, 1.5])
    with Appender(path / "results.csv") as table:
        for outcome in made.outcomes:
            table.outcome(study, outcome)
        table.note(study, made, "end:trials")
    facts = {"best": best, "worst": 3.0, "unit": "s", "full_cost": 2.0, "seen_in_design": False}
    (path / "tasks.json").write_text(json.dumps({"t": facts | {"levels": None}}))
    plan = {"suite": "suite", "workers": 1, "starts": starts}
    (path / "run.json").write_text(json.dumps([{"plan": plan}]))
    return path


def test_folders_are_merged_where_they_go_together(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "1", "scaletune"), folder(tmp_path / "2", "random")
    both = analysis.load([one, two])
    assert both.methods == ("scaletune", "random") and len(both.runs) == 2
    assert both.records[Study("suite", "t", "random", 0)].note == Note("end:trials", 2.0, 4.0, 0.2)
    assert not both.tasks["t"].seen_in_design
    assert analysis.load([one, one]).methods == ("scaletune",)
    with pytest.raises(ValueError, match="more than one of the folders"):
        analysis.load([one, folder(tmp_path / "3", "scaletune")])
    with pytest.raises(ValueError, match="5 start points in"):
        analysis.load([one, folder(tmp_path / "4", "tpe", starts=5)])
    with pytest.raises(ValueError, match="regrets do not compare"):
        analysis.load([one, folder(tmp_path / "5", "tpe", best=0.5)])


def test_folders_without_a_result_and_damaged_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results in"):
        analysis.load([tmp_path])
    prepare(tmp_path / "results.csv")
    with pytest.raises(ValueError, match="no finished job in"):
        analysis.load([tmp_path])
    one = folder(tmp_path / "1", "scaletune")
    for file, content in (
        ("tasks.json", "{"),
        ("tasks.json", "[1]"),
        ("tasks.json", '{"t": {}}'),
        ("run.json", "3"),
        ("run.json", "[{}]"),
    ):
        before = (one / file).read_text()
        (one / file).write_text(content)
        with pytest.raises(ValueError, match=file):
            analysis.load([one])
        (one / file).write_text(before)
    (one / "tasks.json").write_text("{}")
    with pytest.raises(ValueError, match="says nothing of t"):
        analysis.load([one])
