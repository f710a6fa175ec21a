"""HPO-B: official files made small, its protocol, and result files in its shape."""

import copy
import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import peers, tasks
from benchmarks.runner import Plan, run
from benchmarks.simulate import Outcome, StudyLimits, simulate
from benchmarks.table import Appender, Study, prepare
from benchmarks.task import DataMissing
from benchmarks.tasks import hpob
from benchmarks.tasks.hpob import FormatError

SPACE, TASK = "5971", "9970"


def table(seed, n=30, d=3):
    rng = np.random.default_rng(seed)
    X = rng.random((n, d)).round(6)
    y = (1 - ((X - 0.4) ** 2).sum(axis=1))[:, None]
    return {"X": X.tolist(), "y": y.tolist()}


FILES = {
    "meta-test-dataset.json": {SPACE: {TASK: table(0), "43": table(1)}},
    "meta-validation-dataset.json": {SPACE: {"7": table(2)}},
    "meta-train-dataset.json": {SPACE: {"8": table(3), "9": table(4)}},
    "bo-initializations.json": {
        SPACE: {
            task: {f"test{s}": [5 * s + i for i in range(5)] for s in range(5)}
            for task in (TASK, "43")
        }
    },
}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALETUNE_DATA", str(tmp_path))
    yield write(tmp_path / "hpob", FILES)
    hpob._split.cache_clear()
    tasks.load.cache_clear()


def test_splits_join_the_files_that_the_versions_are_made_of(folder):
    assert {task for _, task in hpob.read_split(folder, "v3-test")} == {TASK, "43"}
    assert {task for _, task in hpob.read_split(folder, "v3-train")} == {"8", "9"}
    assert {task for _, task in hpob.read_split(folder, "v2")} == {TASK, "43", "7", "8", "9"}
    with pytest.raises(DataMissing, match="augmented"):
        hpob.read_split(folder, "v1")
    with pytest.raises(ValueError, match="one of"):
        hpob.read_split(folder, "v4")


def test_a_discrete_task_answers_with_the_scaled_table(folder):
    task, rng = tasks.load(f"hpob/v3-test/{SPACE}/{TASK}"), np.random.default_rng(0)
    y = np.array(FILES["meta-test-dataset.json"][SPACE][TASK]["y"])[:, 0]
    regrets = (y.max() - y) / (y.max() - y.min())
    losses = [task.evaluate(config, None, rng).loss for config in task.pool]
    assert losses == pytest.approx(regrets.tolist())
    assert (min(losses), max(losses)) == (0.0, 1.0)
    assert not task.seen_in_design
    with pytest.raises(ValueError, match="recorded configs"):
        task.evaluate({"x0": 0.123, "x1": 0.5, "x2": 0.5}, None, rng)
    assert len(tasks.names("hpob")) == 4


def test_the_five_official_starts_belong_to_the_first_five_seeds(folder):
    task = tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    for seed in range(5):
        assert task.starts(seed) == [task.config(5 * seed + i) for i in range(5)]
    with pytest.raises(ValueError, match="seeds 0 to 4"):
        task.starts(5)


def test_a_run_with_seeds_beyond_the_official_ones_is_refused_before_it_begins(folder, tmp_path):
    name = f"hpob/v3-test/{SPACE}/{TASK}"
    plan = Plan("mine", (name,), ("random",), seeds=6, starts=5)
    with pytest.raises(ValueError, match="seeds 0 to 4, got 5"):
        run(plan, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_config_recorded_twice_answers_with_either_record(folder):
    content = copy.deepcopy(FILES["meta-test-dataset.json"])
    content[SPACE][TASK]["X"][1] = content[SPACE][TASK]["X"][0]
    write(folder, {"meta-test-dataset.json": content})
    task, rng = tasks.load(f"hpob/v3-test/{SPACE}/{TASK}"), np.random.default_rng(0)
    assert len(task.pool) == 29
    answers = {task.evaluate(task.config(0), None, rng).loss for _ in range(50)}
    assert answers == {1 - task.data.scaled[0], 1 - task.data.scaled[1]}


class InOrder:
    """Suggests the points of a diagonal; the pool gives its nearest free member instead."""

    def __init__(self, dimensions):
        self.dimensions, self.number = dimensions, -1

    def ask(self):
        from benchmarks.peers.base import Job

        self.number += 1
        value = (self.number % 10) / 10
        return Job(self.number, {f"x{j}": value for j in range(self.dimensions)})

    def tell(self, job, evaluation):
        pass


def test_a_simulated_run_gives_an_official_result_file(folder, tmp_path):
    task = tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    rows = list(
        simulate(task, InOrder(3), seed=0, limits=StudyLimits(trials=100), starts=task.starts(0))
    )[:-1]
    starts = [row.loss for row in rows if row.number < 0]
    losses = [row.loss for row in rows if row.number >= 0]
    assert len(losses) == 25  # the pool is exhausted, so the optimum was found
    curve = hpob.official_curve(starts, losses)
    assert len(curve) == 101
    assert curve[0] == 1 - min(starts)
    assert curve[-1] == 1.0
    hpob.write_results(tmp_path / "out.json", {SPACE: {TASK: {"test0": curve}}})
    assert hpob.read_results(tmp_path / "out.json")[SPACE][TASK]["test0"] == curve


def test_methods_that_can_are_asked_among_the_rows_that_are_left(folder):
    task = tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    for name in ("scaletune", "random", "optuna-tpe"):
        peer, asked = peers.make(name, task, seed=0, trials=12), []
        among = peer.ask_among

        def record(configs, among=among, asked=asked):
            job = among(configs)
            assert job.config in configs
            asked.append(job.config)
            return job

        peer.ask_among = record
        rows = list(
            simulate(task, peer, seed=0, limits=StudyLimits(trials=12), starts=task.starts(0))
        )[:-1]
        assert len(asked) == len({tuple(config.values()) for config in asked}) == 12, name
        assert not [config for config in asked if config in task.starts(0)]
        told = [row.loss for row in rows if row.number >= 0]
        rng = np.random.default_rng(0)
        assert told == [task.evaluate(config, None, rng).loss for config in asked]


def test_tpe_takes_the_row_of_highest_density_ratio(folder):
    """Good rows lie at 0.4: once some are known, the rows nearest to them come next."""
    task = tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    peer = peers.make("optuna-tpe", task, seed=0, trials=20)
    list(simulate(task, peer, seed=0, limits=StudyLimits(trials=10), starts=task.starts(0)))
    far = {"x0": 0.99, "x1": 0.99, "x2": 0.99}
    near = {"x0": 0.4, "x1": 0.4, "x2": 0.4}
    assert peer.suggest_among(10, [far, near, far]) == near


def test_the_other_tasks_of_a_space_are_its_meta_train_tables(folder):
    task = tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    found = task.other_tasks()
    assert set(found) == {"8", "9"}
    y = np.array(FILES["meta-train-dataset.json"][SPACE]["8"]["y"])[:, 0]
    assert sorted(loss for _, loss in found["8"]) == pytest.approx(
        sorted((y.max() - y) / (y.max() - y.min()))
    )
    write(folder, {"meta-train-dataset-augmented.json": {SPACE: {"10": table(5)}}})
    hpob._split.cache_clear()
    assert set(task.other_tasks()) == {"10"}
    assert {t for _, t in hpob.read_split(folder, "v3-train-augmented")} == {"10"}


def test_the_transfer_setting_starts_near_the_best_rows_of_the_other_tasks(folder):
    task = tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    peer = peers.make("scaletune-transfer", task, seed=0, trials=5)
    first = peer.ask_among(task.pool).config
    losses = sorted(task.evaluate(c, None, np.random.default_rng(0)).loss for c in task.pool)
    assert task.evaluate(first, None, np.random.default_rng(0)).loss <= losses[5]
    with pytest.raises(peers.Unsupported, match="needs runs of other tasks"):
        peers.make("scaletune-transfer", tasks.load("synthetic/branin-0"), seed=0, trials=5)


def test_incumbents_that_fall_are_made_to_rise_and_counted(tmp_path):
    results = {SPACE: {TASK: {"test0": [0.5, 0.7, 0.6, 0.9], "test1": [0.1, 0.2, 0.2, 0.2]}}}
    path = tmp_path / "RF.json"
    path.write_text(json.dumps(results))
    made, fell = hpob.risen(hpob.read_results(path))
    assert made[SPACE][TASK] == {"test0": [0.5, 0.7, 0.7, 0.9], "test1": [0.1, 0.2, 0.2, 0.2]}
    assert fell == 1


def test_the_hundredth_trial_counts():
    curve = hpob.official_curve([0.9] * 5, [0.5] * 99 + [0.1])
    assert curve[99] == 0.5
    assert curve[100] == 0.9


def test_an_unfinished_run_is_refused_unless_it_found_the_optimum():
    with pytest.raises(ValueError, match="finish the run"):
        hpob.official_curve([0.9] * 5, [0.5] * 50)
    with pytest.raises(ValueError, match="start_losses"):
        hpob.official_curve([0.9] * 4, [0.5] * 100)
    assert hpob.official_curve([0.9] * 5, [0.5, 0.0])[2:] == [1.0] * 99


@pytest.mark.parametrize(
    "results",
    [
        {SPACE: []},
        {SPACE: {TASK: [0.1]}},
        {SPACE: {TASK: {"test0": [0.5] * 100}}},
        {SPACE: {TASK: {"test0": [0.5] * 100 + [0.4]}}},
        {SPACE: {TASK: {"test0": [0.5] * 100 + [1.4]}}},
        {SPACE: {TASK: {"test0": [0.5] * 100 + ["x"]}}},
    ],
)
def test_results_of_another_shape_are_refused(results, tmp_path):
    with pytest.raises(FormatError):
        hpob.write_results(tmp_path / "x.json", results)
    assert not (tmp_path / "x.json").exists()


BROKEN = {
    "X of other length": lambda t: t["X"].pop(),
    "ragged X": lambda t: t["X"][3].pop(),
    "text": lambda t: t["X"][0].__setitem__(0, "a"),
    "missing y": lambda t: t.pop("y"),
    "NaN": lambda t: t["y"][0].__setitem__(0, float("nan")),
    "null": lambda t: t["y"].__setitem__(0, None),
    "outside the cube": lambda t: t["X"][0].__setitem__(0, 7.0),
    "empty": lambda t: (t["X"].clear(), t["y"].clear()),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_table_gives_one_line_with_its_place(how, folder):
    content = copy.deepcopy(FILES["meta-test-dataset.json"])
    BROKEN[how](content[SPACE][TASK])
    write(folder, {"meta-test-dataset.json": content})
    with pytest.raises(FormatError) as caught:
        tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    assert "\n" not in str(caught.value)
    assert f"{SPACE}/{TASK}" in str(caught.value)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [0, 1, 2, 3, 3], [0, 1, 2, 3, 30], [0.0] * 5, None])
def test_broken_start_points_are_refused(rows, folder):
    content = copy.deepcopy(FILES["bo-initializations.json"])
    content[SPACE][TASK]["test2"] = rows
    write(folder, {"bo-initializations.json": content})
    with pytest.raises(FormatError, match="test2"):
        tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")


def official_table(path, *studies):
    """A result table of finished runs whose first start point is the optimum."""
    prepare(path)
    row = Outcome(-5, -5, None, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, "ok")
    with Appender(path) as appender:
        for study in studies:
            for number in range(-5, 0):
                appender.outcome(study, replace(row, trial=number, number=number))
    return path


def test_only_the_official_seeds_and_one_mode_make_a_result_file(tmp_path, capsys):
    study = Study("s", f"hpob/v3-test/{SPACE}/{TASK}", "random", 0)
    good = official_table(
        tmp_path / "good.csv", study, replace(study, task=study.task + "+noise=1")
    )
    out = tmp_path / "out.json"
    command = ["--method", "random", "--out", str(out), "--table"]
    assert hpob.main([*command, str(good)]) == 0
    assert hpob.read_results(out)[SPACE][TASK]["test0"] == [1.0] * 101
    seeds = official_table(tmp_path / "seeds.csv", replace(study, seed=5))
    other = replace(study, task=f"hpob/continuous/{SPACE}/{TASK}")
    modes = official_table(tmp_path / "modes.csv", study, other)
    for path, said in ((seeds, "seeds 0 to 4"), (modes, "modes"), (tmp_path / "none", "none")):
        assert hpob.main([*command, str(path)]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_to_the_files_is_either_harmless_or_a_format_error(tmp_path, data):
    """One node of a file replaced by anything, or the bytes of the file cut or overwritten."""
    content = {SPACE: {TASK: table(0, n=6, d=2)}}
    starts = {SPACE: {TASK: {f"test{s}": [0, 1, 2, 3, 4] for s in range(5)}}}
    target = data.draw(st.sampled_from([content, starts]))
    node, depth = target, data.draw(st.integers(0, 4))
    for _ in range(depth):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        child = node[data.draw(st.sampled_from(keys))] if keys else None
        if not isinstance(child, dict | list):
            break
        node = child
    if node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        node[data.draw(st.sampled_from(keys))] = data.draw(json_values)
    folder = write(tmp_path, {"meta-test-dataset.json": content, "bo-initializations.json": starts})
    if data.draw(st.booleans()):
        path = folder / data.draw(
            st.sampled_from(["meta-test-dataset.json", "bo-initializations.json"])
        )
        raw = path.read_bytes()
        at = data.draw(st.integers(0, len(raw)))
        path.write_bytes(raw[:at] + data.draw(st.binary(max_size=3)))
    try:
        split = hpob.read_split(folder, "v3-test")
        for (space, task), found in split.items():
            assert found.X.shape[0] == len(found.y) > 0
            hpob.read_starts(folder, space, task, len(found.y))
    except FormatError as error:
        assert "\n" not in str(error)


def test_missing_files_and_wrong_names_say_what_to_do(tmp_path, monkeypatch, folder):
    (folder / "bo-initializations.json").unlink()
    with pytest.raises(DataMissing, match="README"):
        tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    for name in ("hpob", "hpob/v3-test/5971", f"hpob/v9/{SPACE}/{TASK}", "hpob/v3-test/1/2"):
        with pytest.raises(ValueError):
            tasks.load(name)
    monkeypatch.setattr(hpob.data, "folders", lambda: (tmp_path / "none",))
    with pytest.raises(DataMissing, match="SCALETUNE_DATA"):
        tasks.load(f"hpob/v3-test/{SPACE}/{TASK}")
    assert tasks.names("hpob") == ()


def continuous(folder):
    key = f"surrogate-{SPACE}-{TASK}"
    write(
        folder / "saved-surrogates",
        {"summary-stats.json": {key: {"y_min": 0.0, "y_max": 0.8}}, f"{key}.json": {}},
    )
    return tasks.load(f"hpob/continuous/{SPACE}/{TASK}")


def test_continuous_start_points_answer_from_the_table_scaled_by_the_surrogate(folder):
    task, rng = continuous(folder), np.random.default_rng(0)
    y = np.array(FILES["meta-test-dataset.json"][SPACE][TASK]["y"])[:, 0]
    for row, config in enumerate(task.starts(0)):
        expected = 1 - np.clip(y[row] / 0.8, 0, 1)
        assert task.evaluate(config, None, rng).loss == pytest.approx(expected)
    assert task.pool is None


def test_continuous_mode_without_xgboost_or_surrogates_says_so(folder):
    with pytest.raises(DataMissing, match="summary-stats"):
        tasks.load(f"hpob/continuous/{SPACE}/{TASK}")
    task = continuous(folder)
    if importlib.util.find_spec("xgboost") is None:
        with pytest.raises(DataMissing, match="pip install xgboost"):
            task.evaluate({"x0": 0.5, "x1": 0.5, "x2": 0.5}, None, np.random.default_rng(0))


def test_the_suite_lists_the_86_tasks_of_16_spaces():
    names = tasks.SUITES["hpob-v3-test"]
    assert len(names) == 86
    assert len({name.split("/")[2] for name in names}) == 16
