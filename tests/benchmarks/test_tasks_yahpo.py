"""YAHPO surrogates: encodings, ranges, curves, and the generic reading of scenarios."""

import copy
import importlib.util
import itertools
import json
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import tasks
from benchmarks.task import DataMissing
from benchmarks.tasks import yahpo
from benchmarks.tasks.data import find

if importlib.util.find_spec("onnxruntime") is None:
    pytest.skip("onnxruntime is not installed (extra `bench`)", allow_module_level=True)

try:
    find("yahpo/lcbench/model.onnx", "")
    find("yahpo/rbv2_rpart/model.onnx", "")
    HAS_MODELS = True
except DataMissing:
    HAS_MODELS = False

with_models = pytest.mark.skipif(
    not HAS_MODELS,
    reason="no YAHPO data; run python -m benchmarks.tasks.yahpo --fetch lcbench rbv2_rpart",
)
#: Output -> what it can be; a network may leave the exact range a little.
RANGES = {
    "val_accuracy": (-1.0, 101.0),
    **dict.fromkeys(("acc", "bac", "auc", "brier", "f1"), (-0.02, 1.1)),
    **dict.fromkeys(("time", "timetrain", "timepredict"), (-0.5, np.inf)),
}
REPORTED = (*tasks.SUITES["lcbench"], *tasks.SUITES["rpart"], *tasks.SUITES["lcbench-design"])


def draws(task, count, seed=0):
    rng = np.random.default_rng(seed)
    return [yahpo._draw(task.space, None, 1.0, rng) for _ in range(count)]


@with_models
@pytest.mark.parametrize("name", REPORTED)
def test_losses_stay_in_range_and_costs_are_positive_and_rise(name):
    task, rng = tasks.load(name), np.random.default_rng(0)
    for config in draws(task, 20):
        run = task.evaluate(config, None, rng)
        assert 0.0 <= run.loss <= 1.0
        assert all(point.cost > 0 for point in run.curve)
        assert all(a.cost <= b.cost for a, b in itertools.pairwise(run.curve))


@with_models
@pytest.mark.parametrize("name", REPORTED)
def test_raw_outputs_are_in_the_range_of_their_names(name):
    task = tasks.load(name)
    top = task._natural(np.full(500, task.levels.high))
    predicted = task.surrogate.predict(draws(task, 500), task.instance, top)
    by_name = dict(zip(task.surrogate.outputs, predicted.T, strict=True))
    checked = RANGES.keys() & by_name.keys()
    assert len(checked) >= 2, "neither loss nor time among the outputs"
    for output in checked:
        low, high = RANGES[output]
        assert low <= by_name[output].min() and by_name[output].max() <= high
        if output.startswith("time"):
            assert np.median(by_name[output]) > 0


@with_models
@pytest.mark.parametrize("name", [*tasks.SUITES["lcbench"], *tasks.SUITES["lcbench-design"]])
def test_the_learning_rate_matters(name):
    """A sweep of lr alone moves the loss by a visible part of what random configs span."""
    task = tasks.load(name)
    spans = []
    for config in draws(task, 10):
        sweep = [config | {"learning_rate": lr} for lr in np.geomspace(1e-4, 0.1, 15)]
        spans.append(np.ptp(task.full_losses(sweep)))
    spread = np.quantile(task.full_losses(draws(task, 500)), [0.05, 0.95])
    assert np.median(spans) > 0.15 * (spread[1] - spread[0])


@with_models
def test_columns_carry_the_right_names():
    """Each column has an effect that only the parameter of its name can have."""
    lcbench = tasks.load("lcbench/7593")
    top = lcbench._natural(np.array([2, 10, 52]))
    config = draws(lcbench, 1)[0]
    seconds = lcbench.surrogate.predict_curve(config, "7593", top)[:, 0]
    assert seconds[2] > 4 * seconds[0]  # epochs cost time
    rpart = tasks.load("rpart/6")
    shallow = {"cp": 0.01, "minbucket": 5, "minsplit": 20, "num.impute.selected.cpo": "impute.mean"}
    losses = rpart.full_losses([shallow | {"maxdepth": depth} for depth in (1, 3, 10)])
    assert losses[0] > losses[1] > losses[2]  # 26 letters cannot be told apart by one split
    pruned = rpart.full_losses([shallow | {"maxdepth": 10, "cp": cp} for cp in (0.001, 1.0)])
    assert pruned[0] < 0.6 and pruned[1] > 0.9  # cp = 1 forbids any split: 1/26 is guessed


@with_models
def test_instances_differ_and_each_is_in_the_encoding():
    config = draws(tasks.load("lcbench/7593"), 1)[0]
    task = tasks.load("lcbench/7593")
    losses = {name: tasks.load(name).full_losses([config])[0] for name in tasks.names("lcbench")}
    assert len(losses) == 34
    assert len(set(losses.values())) == 34
    assert len(tasks.names("rpart")) == 117
    assert task.surrogate.numeric[0] == "epoch"


@with_models
@pytest.mark.parametrize("name", ["lcbench/7593", "rpart/12"])
def test_one_call_for_a_curve_equals_single_predictions(name):
    task = tasks.load(name)
    config = draws(task, 1)[0]
    levels = task._natural(np.array([3, 20, 50]))
    at_once = task.surrogate.predict_curve(config, task.instance, levels)
    single = task.surrogate.predict([config] * 3, task.instance, levels)
    assert at_once == pytest.approx(single, rel=1e-4, abs=1e-5)


@with_models
def test_a_curve_starts_at_epoch_two_and_a_tree_has_one_point():
    rng = np.random.default_rng(0)
    lcbench, rpart = tasks.load("lcbench/7593"), tasks.load("rpart/3")
    curve = lcbench.evaluate(draws(lcbench, 1)[0], 10, rng).curve
    assert [point.level for point in curve] == list(range(2, 11))
    assert (rpart.levels.low, rpart.levels.high, rpart.levels.continues) == (3, 100, False)
    assert len(rpart.evaluate(draws(rpart, 1)[0], 30, rng).curve) == 1
    with pytest.raises(ValueError, match="level"):
        lcbench.evaluate(draws(lcbench, 1)[0], 1, rng)


@with_models
@pytest.mark.parametrize("name", ["lcbench/7593", "lcbench/126026", "rpart/12"])
def test_a_fresh_random_sample_stays_within_the_shipped_bounds(name):
    task = tasks.load(name)
    assert name in yahpo._stored_bounds()
    losses = task.full_losses(draws(task, 3000, seed=99))
    assert task.bounds.best <= losses.min() + 1e-6
    assert task.bounds.worst >= losses.max() - 1e-6


@with_models
def test_the_search_for_bounds_is_repeatable_and_a_larger_one_is_no_worse():
    task = tasks.load("rpart/3")
    small = yahpo.search_bounds(task, samples=300, rounds=3)
    assert small == yahpo.search_bounds(task, samples=300, rounds=3)
    assert task.bounds.best <= small.best + 1e-6 and task.bounds.worst >= small.worst - 1e-6


@with_models
def test_every_reported_surrogate_task_has_shipped_bounds():
    assert set(REPORTED) <= set(yahpo._stored_bounds())


@with_models
def test_an_evaluation_takes_milliseconds():
    task, rng = tasks.load("lcbench/7593"), np.random.default_rng(0)
    configs = draws(task, 30)
    seconds = []
    for config in configs:
        start = time.process_time()
        task.evaluate(config, None, rng)
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.005


@with_models
@pytest.mark.parametrize(
    "name", ["lcbench/1", "rpart/x", "yahpo/lcbench/1", "yahpo/none/3", "yahpo", "lcbench"]
)
def test_unknown_instances_are_refused_with_one_line(name):
    with pytest.raises(ValueError) as caught:
        yahpo.load(name)
    assert "\n" not in str(caught.value)


def scenario(folder, hyperparameters, conditions, codes, name="rbv2_ranger"):
    folder.mkdir(exist_ok=True)
    space = {"hyperparameters": hyperparameters, "conditions": conditions, "forbiddens": []}
    (folder / "config_space.json").write_text(json.dumps(space))
    (folder / "encoding.json").write_text(json.dumps(codes))
    return yahpo.Surrogate(name, folder)


def real(name, low, high, log=False):
    return {"name": name, "type": "uniform_float", "log": log, "lower": low, "upper": high}


def whole(name, low, high, log=False):
    return {"name": name, "type": "uniform_int", "log": log, "lower": low, "upper": high}


def choice(name, *choices):
    return {"name": name, "type": "categorical", "choices": list(choices)}


RANGER = [
    whole("num.trees", 1, 2000),
    real("sample.fraction", 0.1, 1.0),
    real("mtry.power", 0, 1),
    whole("min.node.size", 1, 100),
    whole("num.random.splits", 1, 100, log=True),
    real("trainsize", 0.03, 1.0),
    whole("repl", 1, 10),
    choice("task_id", "40", "3"),
    choice("respect.unordered.factors", "ignore", "order"),
    choice("splitrule", "gini", "extratrees"),
    choice("num.impute.selected.cpo", "impute.mean"),
]
CODES = {
    "task_id": {"#na#": 0, "3": 1, "40": 2},
    "respect.unordered.factors": {"#na#": 0, "ignore": 1, "order": 2},
    "splitrule": {"#na#": 0, "extratrees": 1, "gini": 2},
    "num.impute.selected.cpo": {"#na#": 0, "impute.mean": 1},
}
SPLITS = {
    "child": "num.random.splits",
    "parent": "splitrule",
    "type": "EQ",
    "value": "extratrees",
}


def test_a_scenario_is_read_with_its_conditions_logs_and_levels(tmp_path):
    surrogate = scenario(tmp_path / "a", RANGER, [SPLITS], CODES)
    space = surrogate.space
    assert space["num.random.splits"].when == ("splitrule", ("extratrees",))
    assert space["num.random.splits"].log and not space["num.trees"].log
    assert {"trainsize", "repl", "task_id"}.isdisjoint(space)
    assert surrogate.fixed == {"trainsize": 1.0, "repl": 10}
    assert surrogate.instances == ("3", "40")
    assert (surrogate.levels.low, surrogate.levels.high) == (3, 100)
    assert surrogate.categorical == (
        "task_id",
        "respect.unordered.factors",
        "splitrule",
        "num.impute.selected.cpo",
    )
    assert surrogate.numeric[-2:] == ("trainsize", "repl")


def test_a_categorical_replication_column_moves_behind_the_categorical_ones(tmp_path):
    codes = CODES | {"repl": {"#na#": 0, "10": 1}}
    assert scenario(tmp_path / "b", RANGER, [SPLITS], codes).categorical[-1] == "repl"


def test_nested_conditions_collapse_to_the_deepest_and_independent_ones_are_refused(tmp_path):
    on_factor = {
        "child": "splitrule",
        "parent": "respect.unordered.factors",
        "type": "EQ",
        "value": "order",
    }
    both = {
        "child": "num.random.splits",
        "type": "AND",
        "conditions": [
            SPLITS,
            {**on_factor, "child": "num.random.splits", "type": "IN", "values": ["order"]},
        ],
    }
    nested = scenario(tmp_path / "c", RANGER, [on_factor, both], CODES)
    assert nested.space["num.random.splits"].when == ("splitrule", ("extratrees",))
    with pytest.raises(ValueError, match="independent parents"):
        _ = scenario(tmp_path / "d", RANGER, [both], CODES).space


def test_files_of_another_release_are_refused(tmp_path):
    with pytest.raises(ValueError, match="differ in"):
        _ = scenario(tmp_path / "e", [*RANGER, real("extra", 0, 1)], [], CODES).numeric


def test_missing_data_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(yahpo.data, "folders", lambda: (tmp_path,))
    yahpo._surrogate.cache_clear()
    with pytest.raises(DataMissing, match="--fetch lcbench"):
        yahpo.load("lcbench/7593")
    with pytest.raises(DataMissing, match="clone"):
        yahpo.load("yahpo/nb301/CIFAR10")
    assert yahpo.names() == ()
    yahpo._surrogate.cache_clear()


@with_models
def test_shared_files_have_the_checksums_that_fetch_demands(monkeypatch, tmp_path):
    import io

    def opened(url):
        scenario_name, file = url.split("/")[-2:]
        return io.BytesIO(find(f"yahpo/{scenario_name}/{file}", "").read_bytes())

    monkeypatch.setenv("SCALETUNE_DATA", str(tmp_path))
    monkeypatch.setattr(yahpo.urllib.request, "urlopen", opened)
    folder = find("yahpo/lcbench", "")
    assert {path.name for path in yahpo.fetch("lcbench").iterdir()} == set(yahpo._FILES)
    assert folder != tmp_path / "yahpo" / "lcbench"
    monkeypatch.setattr(yahpo.urllib.request, "urlopen", lambda url: io.BytesIO(b"else"))
    with pytest.raises(ValueError, match="sha256"):
        yahpo.fetch("rbv2_rpart")
    assert not list((tmp_path / "yahpo" / "rbv2_rpart").iterdir())
    with pytest.raises(ValueError, match="clone"):
        yahpo.fetch("nb301")


def damaged(data, target):
    """`target` with one node replaced by anything."""
    node = target
    for _ in range(data.draw(st.integers(0, 3))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        child = node[data.draw(st.sampled_from(keys))] if keys else None
        if not isinstance(child, dict | list):
            break
        node = child
    if node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        node[data.draw(st.sampled_from(keys))] = data.draw(
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
                ),
                max_leaves=4,
            )
        )
    return target


@given(data=st.data())
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_to_the_files_is_either_harmless_or_a_format_error(tmp_path, data):
    space = {"hyperparameters": RANGER, "conditions": [SPLITS], "forbiddens": []}
    whole_files = {"config_space.json": space, "encoding.json": CODES}
    file = data.draw(st.sampled_from(sorted(whole_files)))
    for name, content in whole_files.items():
        content = damaged(data, copy.deepcopy(content)) if name == file else content
        (tmp_path / name).write_text(json.dumps(content))
    if data.draw(st.booleans()):
        raw = (tmp_path / file).read_bytes()
        at = data.draw(st.integers(0, len(raw)))
        (tmp_path / file).write_bytes(raw[:at] + data.draw(st.binary(max_size=3)))
    surrogate = yahpo.Surrogate("rbv2_ranger", tmp_path)
    try:
        surrogate.check()
    except yahpo.FormatError as error:
        assert "\n" not in str(error)


def test_a_broken_network_is_a_format_error(tmp_path):
    surrogate = scenario(tmp_path / "f", RANGER, [SPLITS], CODES)
    surrogate.check()
    (tmp_path / "f" / "model.onnx").write_bytes(b"no network")
    with pytest.raises(yahpo.FormatError, match="does not hold what YAHPO ships") as caught:
        _ = surrogate.outputs
    assert "\n" not in str(caught.value)


def test_commands_that_cannot_be_done_say_so_in_one_line(capsys):
    assert yahpo.main(["--fetch", "nb301"]) == 2
    said = capsys.readouterr().err
    assert "checksums are known for" in said and said.count("\n") == 1
