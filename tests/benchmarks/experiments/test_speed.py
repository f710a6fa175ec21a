"""Times to a regret, speeds and their intervals against closed forms; the table and the page."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import tasks
from benchmarks.__main__ import main
from benchmarks.experiments import speed
from benchmarks.experiments.speed import (
    HORIZON,
    RegretCurve,
    SpeedStudy,
    compare,
    enough_for,
    follow,
    pooled,
    read,
)

ENDS = st.floats(0.0, 1.0, allow_nan=False)
TINY = ["--tasks", "synthetic/crossing-1", "--workers", "1", "--seeds", "1"]


def curve(*changes: tuple[float, float], ending: str = "horizon") -> RegretCurve:
    """From (clock, regret) pairs."""
    clock, regret = zip(*changes, strict=True) if changes else ((), ())
    return RegretCurve(clock, regret, ending)


@st.composite
def falling(draw: st.DrawFn) -> RegretCurve:
    regrets = sorted(draw(st.sets(ENDS, min_size=0, max_size=5)), reverse=True)
    clocks = sorted(
        draw(
            st.sets(
                st.floats(0.01, HORIZON, allow_nan=False),
                min_size=len(regrets),
                max_size=len(regrets),
            )
        )
    )
    return curve(*zip(clocks, regrets, strict=True))


def against_random(
    ours: list[RegretCurve], random: list[RegretCurve], draws: int = 20
) -> speed.SpeedComparison:
    rng = np.random.default_rng(0)
    return compare("t", {"ours": ours, "random": random}, "ours", ["random"], rng, draws)


def test_regret_is_one_before_the_first_full_run_and_then_the_last_that_was_reached() -> None:
    two = curve((2.0, 0.5), (10.0, 0.1))
    assert two.at(np.array([0.0, 1.99, 2.0, 9.0, 10.0, 40.0])).tolist() == [
        1,
        1,
        0.5,
        0.5,
        0.1,
        0.1,
    ]


def test_a_target_is_reached_at_the_first_change_that_is_no_worse() -> None:
    two = curve((2.0, 0.5), (10.0, 0.1))
    assert two.first(np.array([0.7, 0.5, 0.49, 0.1])).tolist() == [2.0, 2.0, 10.0, 10.0]


def test_a_target_never_reached_counts_with_the_whole_horizon() -> None:
    assert curve((2.0, 0.5)).first(np.array([0.4])).tolist() == [HORIZON]
    assert curve().first(np.array([0.4])).tolist() == [HORIZON]


def test_the_target_is_the_median_end_and_speed_the_ratio_of_median_times() -> None:
    # Ends .2 .3 .4: the target is .3, which random has at 12, 30 and never, ours at 1, 3 and 8.
    random = [curve((12.0, 0.2)), curve((30.0, 0.3)), curve((5.0, 0.4))]
    ours = [curve((1.0, 0.3)), curve((3.0, 0.25), (9.0, 0.0)), curve((2.0, 0.5), (8.0, 0.1))]
    found = against_random(ours, random)
    assert (found.target, found.theirs, found.ours, found.reached) == (0.3, 30.0, 3.0, 1.0)
    assert math.exp(found.log_speeds[0]) == pytest.approx(10.0)


def test_of_an_even_number_of_seeds_the_lower_of_the_middle_two_counts() -> None:
    random = [curve((c, r)) for c, r in ((9.0, 0.1), (8.0, 0.2), (7.0, 0.3), (6.0, 0.4))]
    found = against_random(random[:1], random)
    assert (found.target, found.theirs) == (0.2, 9.0)


def test_a_method_whose_median_never_gets_there_is_counted_and_not_dropped() -> None:
    random = [curve((10.0, 0.2))] * 3
    ours = [curve((1.0, 0.1)), curve((1.0, 0.21)), curve((1.0, 0.3))]
    found = against_random(ours, random)
    assert (found.ours, found.reached) == (HORIZON, pytest.approx(1 / 3))
    assert math.exp(found.log_speeds[0]) == pytest.approx(10.0 / HORIZON)


def test_the_best_rival_has_the_lowest_end_and_of_equals_the_earliest() -> None:
    rng = np.random.default_rng(0)
    curves = {
        "ours": [curve((2.0, 0.1))],
        "late": [curve((20.0, 0.1))],
        "early": [curve((8.0, 0.3), (10.0, 0.1))],
        "worse": [curve((1.0, 0.2))],
    }
    found = compare("t", curves, "ours", ["worse", "late", "early"], rng, 5)
    assert (found.setter, found.target, found.theirs, found.ours) == ("early", 0.1, 10.0, 2.0)


@given(st.lists(falling(), min_size=1, max_size=6))
def test_who_sets_a_target_has_reached_it_by_its_end(curves: list[RegretCurve]) -> None:
    found = against_random(curves, curves)
    assert found.theirs == found.ours and found.log_speeds[0] == 0.0
    half = math.ceil(len(curves) / 2) / len(curves)
    assert found.reached >= half


@given(st.lists(falling(), min_size=1, max_size=6), st.floats(0.1, 1.0))
def test_a_clock_that_runs_at_a_share_of_the_time_divides_the_speed_by_it(
    curves: list[RegretCurve], share: float
) -> None:
    quick = [RegretCurve(tuple(share * c for c in one.clock), one.regret) for one in curves]
    found = against_random(quick, curves)
    if found.target < 1.0:  # else nothing was finished, and nothing is a share of the horizon
        assert np.exp(found.log_speeds[0]) == pytest.approx(1.0 / share)


def test_speeds_are_pooled_by_their_geometric_mean_over_tasks() -> None:
    random = [curve((20.0, 0.1))]
    races = [against_random([curve((clock, 0.1))], random) for clock in (1.0, 5.0)]
    found = pooled(races, np.random.default_rng(0))
    assert found.value == pytest.approx(math.sqrt(20.0 * 4.0))
    assert (found.low, found.high) == pytest.approx((4.0, 20.0))
    same = pooled([races[0]] * 3, np.random.default_rng(0))
    assert (same.low, same.high) == pytest.approx((20.0, 20.0))


def test_the_interval_holds_the_choice_of_seeds() -> None:
    ours = [curve((clock, 0.0)) for clock in (1.0, 2.0, 4.0)]
    found = pooled([against_random(ours, [curve((8.0, 0.1))], 2000)], np.random.default_rng(0))
    assert found.value == pytest.approx(4.0)
    assert (found.low, found.high) == pytest.approx((2.0, 8.0))


def test_enough_is_the_lowest_quantile_of_any_other_method_of_the_same_task_and_workers() -> None:
    ends = {"random": (0.5, 0.3), "dehb": (0.2, 0.4), "asha": (0.1,)}
    done = {
        SpeedStudy(4, "t", method, seed): curve((1.0, end))
        for method, of in ends.items()
        for seed, end in enumerate(of)
    }
    done[SpeedStudy(64, "t", "random", 0)] = curve((1.0, 0.0))
    done[SpeedStudy(4, "other", "random", 0)] = curve((1.0, 0.0))
    asked = SpeedStudy(4, "t", "scaletune-levels", 0)
    assert enough_for(asked, done, 0.0) == pytest.approx(0.1)
    assert enough_for(SpeedStudy(4, "t", "asha", 1), done, 0.0) == pytest.approx(0.2)
    assert enough_for(SpeedStudy(4, "t", "asha", 1), done, 0.5) == pytest.approx(0.3)
    assert enough_for(SpeedStudy(4, "new", "asha", 1), done, 0.0) is None


def test_a_study_stopped_early_is_the_beginning_of_the_whole_one() -> None:
    study = SpeedStudy(2, "synthetic/crossing-1", "random", 0)
    whole = follow(study)
    short = follow(study, enough=whole.regret[1])
    assert whole.ending == "horizon" and short.ending == "enough"
    assert (short.clock, short.regret) == (whole.clock[:2], whole.regret[:2])
    assert 36.0 < whole.end <= HORIZON


def test_random_search_trains_about_forty_times_a_worker() -> None:
    jobs = [follow(SpeedStudy(4, "synthetic/crossing-0", "random", seed)).jobs for seed in range(5)]
    assert 0.85 * 160 < np.mean(jobs) < 1.15 * 160


def test_a_method_that_breaks_down_keeps_what_it_had_and_is_on_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = SpeedStudy(1, "synthetic/crossing-1", "random", 0)
    whole = follow(study)
    make = speed.peers.make

    def fragile(*names: object, **given: int) -> object:
        peer = make(*names, **given)  # type: ignore[arg-type]  # passed on as it came
        ask, asked = peer.ask, iter(range(9))
        monkeypatch.setattr(peer, "ask", lambda: (next(asked), ask())[1])
        return peer

    monkeypatch.setattr(speed.peers, "make", fragile)
    broken = follow(study)
    assert broken.ending == "error" and "StopIteration" in capsys.readouterr().err
    assert broken.regret == whole.regret[: len(broken.regret)] and broken.regret


def test_a_second_run_adds_nothing_and_a_damaged_line_is_run_again(tmp_path: Path) -> None:
    table = tmp_path / speed.TABLE
    words = ["speed", "run", "--out", str(tmp_path), *TINY, "--methods", "random", "one-epoch"]
    assert main(words) == 0
    first = table.read_text()
    assert main(words) == 0 and table.read_text() == first
    assert {study.method for study in read(table)} == {"random", "one-epoch"}
    table.write_text(first[: first.index("\n") + 20] + "\n")
    assert len(read(table)) == 1 and main(words) == 0
    again = read(table)
    assert {s: (c.clock, c.regret) for s, c in again.items()} == {
        SpeedStudy(1, "synthetic/crossing-1", m, 0): (c.clock, c.regret)
        for m in ("random", "one-epoch")
        for c in [follow(SpeedStudy(1, "synthetic/crossing-1", m, 0))]
    }


def test_a_study_stopped_early_is_run_again_only_when_more_is_asked() -> None:
    study, other = SpeedStudy(1, "synthetic/crossing-1", "asha", 0), curve((1.0, 0.2))
    done = {study: curve((1.0, 0.15), ending="enough")}
    random = SpeedStudy(1, "synthetic/crossing-1", "random", 0)
    assert not list(speed.waiting({**done, random: other}, [study], 0.0))
    assert list(speed.waiting({**done, random: curve((1.0, 0.1))}, [study], 0.0))
    assert list(speed.waiting({**done, random: other}, [study], None)) == [(study, None)]


def test_a_study_stopped_for_slowness_is_run_again_only_when_more_seconds_are_given() -> None:
    study = SpeedStudy(1, "synthetic/crossing-1", "asha", 0)
    done = {study: RegretCurve((1.0,), (0.5,), "seconds", 2.0, 9, 61.0)}
    again = [list(speed.waiting(done, [study], None, seconds)) for seconds in (60.0, 120.0, None)]
    assert again == [[], [(study, None)], [(study, None)]]


def test_a_pool_no_larger_than_the_workers_is_left_out() -> None:
    planned = [
        SpeedStudy(workers, "curve-bank/resnet-large", "random", 0) for workers in (4, 39, 64)
    ]
    assert [study.workers for study, _ in speed.waiting({}, planned, None)] == [4]


def test_the_page_has_a_row_for_every_family_method_and_task(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for task in (*tasks.SUITES["crossing"], *tasks.SUITES["rpart"]):
        for method in ("random", "dehb", "asha", "mine"):
            for seed in range(3):
                clock, end = rng.uniform(1.0, 40.0), rng.uniform(0.0, 0.5)
                speed.append(
                    tmp_path / speed.TABLE, SpeedStudy(4, task, method, seed), curve((clock, end))
                )
    page, figure = tmp_path / "page.md", tmp_path / "speed.svg"
    words = ["speed", "report", str(tmp_path), "--ours", "mine"]
    assert main([*words, "--page", str(page), "--figure", str(figure)]) == 0
    text = page.read_text()
    for row in ("| crossing | 4 |", "| rpart | 8 |", "| all | 12 |", "| rpart/3 |", "| dehb | 3 |"):
        assert row in text
    assert "over that of `asha`" in text and "nan" not in text
    assert figure.read_text().count("<path") > 50


def test_a_report_on_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "report", str(tmp_path)]) == 2
    assert "no studies" in capsys.readouterr().err
