from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.recording.record import RecordingJob, design, pack, plan, read, run
from benchmarks.recording.workloads import LEVELS, WORKLOADS
from benchmarks.task import DataMissing
from benchmarks.tasks import curve_bank
from hpo import SpaceError

RNG = np.random.default_rng(0)
MLP = WORKLOADS["mlp"]
QUICK = RecordingJob(
    "mlp", 0, 0, {**design(MLP.space, 2)[1], "batch_size": 256, "lr": 0.1, "decay": 0.0}
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with one config of the perceptron at all sizes and a half-done second one."""
    work = tmp_path_factory.mktemp("work")
    for size in range(3):
        run(RecordingJob("mlp", 0, size, QUICK.config), work)
    run(RecordingJob("mlp", 1, 0, QUICK.config), work)
    return work


def test_the_bank_holds_three_workloads_at_three_sizes() -> None:
    bank = curve_bank.read_bank()
    assert set(bank.tables) == set(WORKLOADS)
    runs = sum(table.loss.shape[0] * table.loss.shape[1] for table in bank.tables.values())
    assert runs >= 300
    assert runs == bank.provenance["runs"]
    assert all(table.loss.shape[2] == 27 for table in bank.tables.values())
    assert curve_bank.BANK.stat().st_size < 2e6


def test_the_bank_says_where_it_comes_from() -> None:
    provenance = curve_bank.read_bank().provenance
    assert "record" in provenance["command"]
    assert provenance["machines"] and provenance["versions"][0]["torch"]
    assert provenance["first"] < provenance["last"]


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_costs_grow_and_only_failed_runs_have_gaps(name: str) -> None:
    table = curve_bank.read_bank().tables[name]
    ended = np.isnan(table.flops).sum(axis=2)  # levels that were never run
    for cost in (table.flops, table.seconds):
        steps = np.diff(cost, axis=2)
        assert np.all(steps[np.isfinite(steps)] > 0)
        assert np.array_equal(np.isnan(cost).sum(axis=2), ended)
    lost = np.isnan(table.loss).sum(axis=2)
    assert np.array_equal(lost, np.where(lost > 0, ended + 1, 0))


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_recorded_flops_are_those_of_the_formula(name: str) -> None:
    from benchmarks.workloads.digits import digits, mlp_shape_for, resnet_shape_for

    shape_for = {"mlp": mlp_shape_for, "resnet": resnet_shape_for}[name]
    table = curve_bank.read_bank().tables[name]
    for size, parameters in enumerate(table.parameters):
        shape = shape_for(parameters)
        assert shape.parameters == parameters
        expected = len(digits().train_labels) * shape.training_flops
        np.testing.assert_allclose(table.flops[size, :, 0], expected, rtol=1e-6)


def test_transformer_costs_six_flops_a_parameter_and_byte_at_least() -> None:
    table = curve_bank.read_bank().tables["transformer"]
    per_byte = table.flops[:, 0, 0] / 6144
    assert np.all(per_byte > 6.0 * np.array(table.parameters))


def test_a_recorded_run_can_be_had_again() -> None:
    table = curve_bank.read_bank().tables["mlp"]
    # Neither idle nor wild: rounding differs between machines, and wild runs amplify it.
    row = int(np.argsort([config["lr"] for config in table.configs])[len(table.configs) // 2])
    readings = list(islice(MLP.train(MLP.sizes[0], table.configs[row], row), 2))
    recorded = table.loss[0, row, :2]
    np.testing.assert_allclose([r.loss for r in readings], recorded, rtol=1e-3)


def test_some_runs_diverge_and_some_curves_cross() -> None:
    tables = curve_bank.read_bank().tables
    assert any(np.isnan(table.loss).any() for table in tables.values())
    for table in tables.values():
        early, late = table.loss[-1, :, 3], table.loss[-1, :, -1]
        better_early = early[:, None] < early[None, :]
        worse_late = late[:, None] > late[None, :]
        assert np.mean(better_early & worse_late) > 0.02


@pytest.mark.parametrize("name", curve_bank.names())
def test_best_and_worst_are_those_of_the_pool(name: str) -> None:
    task = curve_bank.load(name)
    losses = [task.evaluate(config, None, RNG).loss for config in task.pool]
    finished = [loss for loss in losses if loss is not None]
    assert (min(finished), max(finished)) == (task.bounds.best, task.bounds.worst)
    assert task.bounds.worst > task.bounds.best + 0.1
    assert len({task.space.key(config) for config in task.pool}) == len(task.pool)


@pytest.mark.parametrize("name", curve_bank.names())
def test_pool_members_are_canonical(name: str) -> None:
    task = curve_bank.load(name)
    assert all(task.space.canonical(config) == config for config in task.pool)


@pytest.mark.parametrize("name", curve_bank.names())
def test_a_shorter_run_is_the_beginning_of_a_longer_one(name: str) -> None:
    task = curve_bank.load(name)
    for config in task.pool[::7]:
        full = task.evaluate(config, None, RNG)
        for level in (1, 9):
            short = task.evaluate(config, level, RNG)
            assert short.curve == full.curve[:level]
            if short.failed is None:
                assert short.loss == full.curve[level - 1].loss
                assert short.cost == full.curve[level - 1].cost


def test_a_failed_run_costs_what_it_took_to_fail() -> None:
    task = curve_bank.load("curve-bank/mlp")
    failures = [(c, e) for c in task.pool if (e := task.evaluate(c, None, RNG)).failed]
    assert failures
    for config, evaluation in failures:
        assert evaluation.loss is None and evaluation.failed == "diverged"
        reached = len(evaluation.curve)
        per_level = evaluation.cost / (reached + 1)
        assert [p.cost for p in evaluation.curve] == pytest.approx(
            [per_level * (i + 1) for i in range(reached)]
        )
        if reached:
            assert task.evaluate(config, reached, RNG).failed is None


def test_the_scale_task_holds_the_large_task() -> None:
    scaled, large = (curve_bank.load(f"curve-bank/resnet{suffix}") for suffix in ("", "-large"))
    assert scaled.space.scales == ("params",) and large.space.scales == ()
    top = max(config["params"] for config in scaled.pool)
    for config in large.pool:
        whole = scaled.evaluate({**config, "params": top}, None, RNG)
        assert whole == large.evaluate(config, None, RNG)


def test_what_was_not_recorded_is_refused() -> None:
    task = curve_bank.load("curve-bank/transformer")
    config = task.pool[0]
    with pytest.raises(SpaceError, match="in the pool"):
        task.evaluate({**config, "dropout": 0.123456}, None, RNG)
    with pytest.raises(ValueError, match="`level`"):
        task.evaluate(config, 28, RNG)
    with pytest.raises(ValueError, match="`name` must be one of"):
        curve_bank.load("curve-bank/lstm")


def test_a_damaged_bank_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "bank.npz"
    with pytest.raises(DataMissing, match="benchmarks record"):
        curve_bank.read_bank(other)
    other.write_bytes(curve_bank.BANK.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="sha256"):
        curve_bank.read_bank(other)


def test_a_design_is_legal_and_grows_without_changing() -> None:
    for workload in WORKLOADS.values():
        configs = design(workload.space, 20)
        assert configs == design(workload.space, 33)[:20]
        assert all(workload.space.canonical(config) == config for config in configs)


def test_a_plan_finishes_one_config_at_all_sizes_before_the_next() -> None:
    jobs = plan([MLP, WORKLOADS["resnet"]], 2)
    assert [(job.workload, job.number, job.size) for job in jobs[:4]] == [
        ("mlp", 0, 0),
        ("mlp", 0, 1),
        ("mlp", 0, 2),
        ("resnet", 0, 0),
    ]
    assert len(jobs) == 12


def test_a_run_is_written_whole_and_repeats_to_the_bit(recorded: Path, tmp_path: Path) -> None:
    run(QUICK, tmp_path)
    again, first = (read(QUICK, work) for work in (tmp_path, recorded))
    assert again is not None and first is not None
    assert len(first["curves"]["loss"]) == LEVELS
    for curve in ("loss", "error", "train_loss", "flops"):
        assert first["curves"][curve] == again["curves"][curve]
    assert not list(tmp_path.rglob("*.tmp"))


def test_runs_of_another_plan_are_not_taken_over(recorded: Path) -> None:
    with pytest.raises(ValueError, match="older plan"):
        read(RecordingJob("mlp", 0, 0, {**QUICK.config, "lr": 0.2}), recorded)
    assert read(RecordingJob("mlp", 5, 0, QUICK.config), recorded) is None


def test_only_configs_with_all_sizes_are_packed(recorded: Path, tmp_path: Path) -> None:
    jobs = [
        RecordingJob("mlp", number, size, QUICK.config) for number in range(2) for size in range(3)
    ]
    arrays = pack([MLP], jobs, recorded, command="test")
    assert arrays["mlp/loss"].shape == (3, 1, LEVELS)
    np.savez_compressed(tmp_path / "bank.npz", allow_pickle=False, **arrays)
    bank = curve_bank.read_bank(tmp_path / "bank.npz", None)
    assert bank.tables["mlp"].configs == (QUICK.config,)
    assert bank.provenance["runs"] == 3
    document = read(jobs[0], recorded)
    assert document is not None
    assert bank.tables["mlp"].loss[0, 0].tolist() == pytest.approx(document["curves"]["loss"])
    with pytest.raises(ValueError, match="at all sizes"):
        pack([WORKLOADS["resnet"]], plan([WORKLOADS["resnet"]], 1), recorded, command="test")


def test_recording_continues_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = plan([MLP], 1)
    run(first, tmp_path)
    run(third, tmp_path)
    before = first.path(tmp_path).read_bytes()
    cut_off = second.path(tmp_path).with_suffix(".1.tmp")  # of a run that was killed
    cut_off.write_text('{"config"')
    arguments = ["record", "--configs", "1", "--workloads", "mlp", "--work", str(tmp_path)]
    assert main(arguments) == 0
    assert first.path(tmp_path).read_bytes() == before
    table = curve_bank.read_bank(tmp_path / "curve_bank.npz", None).tables["mlp"]
    assert table.configs == (first.config,)
    packed = capsys.readouterr().out
    assert main([*arguments, "--pack-only"]) == 0
    assert "sha256" in packed
