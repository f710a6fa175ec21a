"""Every numbered example runs from a fresh folder and prints what it promises."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
LINES = 60  # of the longest example

Run = Callable[..., str]


def numbers(pattern: str, printed: str) -> list[float]:
    """Return the groups of the first match as numbers."""
    match = re.search(pattern, printed)
    assert match is not None, f"{pattern!r} is not in:\n{printed}"
    return [float(group) for group in match.groups()]


GUESTS = {  # what each example of another tool needs
    "18": "hydra",
    "19": "lightning",
    "20": "transformers",
    "21": "ray",
    "22": "distributed",
}


@pytest.fixture
def printed(request: pytest.FixtureRequest, run: Run) -> str:
    """Return what the example named by the test prints: `test_01_..` runs `01_*.py`."""
    number = request.node.name.split("_")[1]
    [path] = FOLDER.glob(f"{number}_*.py")
    if number in GUESTS:  # whose own warnings are not ours to mend
        pytest.importorskip(GUESTS[number], reason="run `make test-guests` for this")
        return run(str(path))
    return run("-W", "error", str(path))


def test_01_quickstart_improves_on_its_first_trial(printed: str) -> None:
    first, best = numbers(r"first trial: loss (\S+); best of 20: loss (\S+)", printed)
    assert best < first
    assert re.search(r"recommended lr: \S+  \(90 %: \S+ to \S+\)", printed)


def test_02_resume_trains_no_trial_twice(printed: str) -> None:
    assert re.findall(r"trial (\d+) trains", printed) == ["0", "1", "2", "3", "4", "5"]
    assert "6 trials on record" in printed


def test_03_parallel_trials_overlap(printed: str) -> None:
    # wall-clock depends on the machine, and workers take seconds to start on a busy one
    worked, _ = numbers(r"12 trials of (\S+) s in all took (\S+) s with two workers", printed)
    assert worked >= 12 * 0.5
    assert "12 different configs" in printed


def test_04_cost_aware_search_keeps_its_budget_and_prints_a_front(printed: str) -> None:
    spent, budget = numbers(r"(\d+) of (\d+) gigaflops spent", printed)
    assert spent <= budget
    rows = [line.split() for line in printed.splitlines()[2:]]
    losses = [float(row[1]) for row in rows]
    assert len(rows) > 3 and losses[-1] < losses[0]


def test_05_scheduler_trains_few_configs_to_the_end(printed: str) -> None:
    stopped, count = numbers(r" 1 epochs: (\d+) of (\d+) configs", printed)
    ended, _ = numbers(r"27 epochs: (\d+) of (\d+) configs", printed)
    assert stopped > count / 2 > ended >= 1
    used, whole = numbers(
        r"(\d+) epochs in all; training 30 configs to the end takes (\d+)", printed
    )
    assert used < whole / 2


def test_06_scale_transfer_interval_holds_the_best_rate(printed: str) -> None:
    low, high, best = numbers(r"interval (\S+) to (\S+); the true best is (\S+)", printed)
    assert low <= best <= high
    low, high = numbers(r"predicted loss \S+ \((\S+) to (\S+)\)", printed)
    [loss] = numbers(r"true loss there: (\S+)", printed)
    assert low <= loss <= high


def test_07_optuna_learns_the_conditional_space(printed: str) -> None:
    [value] = numbers(r"best value (\S+) with", printed)
    assert value < 0.3  # the best that adam can do; sgd with its momentum does better
    assert "'momentum'" in printed and "why it was proposed" in printed


def test_08_own_surrogate_makes_the_last_proposal(printed: str) -> None:
    assert "last trial: expected improvement" in printed
    [loss] = numbers(r"best of 30 trials: loss (\S+) with", printed)
    assert loss < 0.1  # only lion reaches it


def test_09_ask_tell_intervals_mostly_hold(printed: str) -> None:
    inside, predicted = numbers(r"(\d+) of (\d+) losses lay inside", printed)
    assert inside >= 0.7 * predicted
    assert "maximizes expected improvement" in printed


def test_10_failures_lower_the_probability_of_success(printed: str) -> None:
    safe, diverges, too_large = (
        numbers(rf"at {at}: (\d+)%", printed)[0]
        for at in ("lr 0.01, batch size 128", "lr 0.5, batch size 128", "lr 0.01, batch size 2048")
    )
    assert safe > 50 > max(diverges, too_large)


def test_15_other_tasks_are_worth_more_than_the_first_trials(printed: str) -> None:
    assert "did best on other tasks: " in printed
    assert re.search(r"\d+% from (reviews|tweets|news)", printed)
    for trials in (1, 8):
        learned, alone = numbers(rf"best of {trials}: (\S+), alone (\S+)", printed)
        assert learned <= alone


def test_every_example_is_short_and_has_a_test() -> None:
    tested = {name.split("_")[1] for name in globals() if name.startswith("test_")}
    for path in FOLDER.glob("*.py"):
        if path.name != "__init__.py":
            assert path.name.split("_")[0] in tested, f"{path.name} needs a test here"
            assert len(path.read_text().splitlines()) <= LINES, f"{path.name} is too long"


def recommended(printed: str) -> tuple[float, float, float]:
    """Return the ends of the interval of the lr, and the true best lr."""
    low, high = numbers(r"lr +\S+ +(\S+) to (\S+)", printed[printed.index("Recommended") :])
    [best] = numbers(r"the true best lr there is (\S+)", printed)
    return low, high, best


def test_11_runs_from_csv_tell_the_best_rate_of_a_larger_model(printed: str) -> None:
    assert "36 runs from sweep.csv: 30 completed, 6 failed" in printed
    low, high, best = recommended(printed)
    assert low <= best <= high


def test_12_runs_from_pandas_are_gone_on_from(printed: str) -> None:
    assert "16 runs, 8 of them from the table" in printed
    before, now = numbers(r"best loss before (\S+), now (\S+)", printed)
    assert now < before


def test_13_runs_from_wandb_keep_their_crashes(printed: str) -> None:
    assert "15 runs from wandb_export.csv: 14 completed, 1 failed" in printed
    assert "left out 1 of 16 rows: still running" in printed
    low, high, best = recommended(printed)
    assert low <= best <= high


def test_14_runs_from_optuna_get_a_law(printed: str) -> None:
    assert "Spent: 40 trials, all completed" in printed
    low, high, best = recommended(printed)
    assert low <= best <= high


def test_16_scikit_learn_improves_an_accuracy(printed: str) -> None:
    first, best = numbers(r"first trial: accuracy (\S+); best of 20: (\S+)", printed)
    assert best >= first
    assert "Maximized the value over 5 settings" in printed


def test_17_mup_keeps_the_rate_of_the_narrow_model(printed: str) -> None:
    names = re.findall(r"(muP|standard): best lr at width 32", printed)
    wide = [float(loss) for loss in re.findall(r"loss (\S+), that of width 32", printed)]
    losses = dict(zip(names, wide, strict=True))
    assert losses["muP"] < losses["standard"]
    assert "passed is True" in printed


@pytest.mark.guests
def test_18_hydra_writes_the_best_job(printed: str) -> None:
    [best] = numbers(r"best_value: (\S+)", printed)
    assert best < 0.5
    assert "optimizer: lion" in printed


@pytest.mark.guests
def test_19_lightning_trains_few_configs_to_the_end(printed: str) -> None:
    ended, best = numbers(r"9 configs, (\d+) trained for 9 epochs; best loss (\S+)", printed)
    assert 1 <= ended < 9 and best < 0.1


@pytest.mark.guests
def test_20_hugging_face_learns_something(printed: str) -> None:
    [loss] = numbers(r"best of 6 configs: .* validation loss (\S+)", printed)
    assert loss < 5.0  # ln 256 is that of a model that knows nothing


@pytest.mark.guests
def test_21_ray_runs_trials_in_processes_of_the_cluster(printed: str) -> None:
    assert "8 trials in 8 processes of the cluster" in printed


@pytest.mark.guests
def test_22_dask_runs_trials_in_processes_of_the_cluster(printed: str) -> None:
    assert "8 trials in 8 processes of the cluster" in printed
