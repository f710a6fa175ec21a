"""Trials that others add to or enqueue in the study of `optimize`: each is used, or named."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState, create_trial

from hpo import (
    ASHA,
    PBT,
    Budget,
    Categorical,
    Cause,
    Context,
    Fidelity,
    Float,
    FreezeThaw,
    Hyperband,
    Optimizer,
    Result,
    SearchSpace,
    Status,
    load_result,
    optimize,
)
from hpo.schedulers import MedianStopping, OneEpoch, Scheduler
from hpo.space import Parameter
from hpo.study.callbacks import Callback, StudyState
from hpo.study.lease import Lease
from hpo.study.storage import Asked, StudyStorage
from hpo.study.takeover import Elsewhere
from hpo.trials.attributes import LONGEST_VALUE
from tests.study.studies import Config, asks

SPACE: dict[str, Parameter] = {"x": Float(0, 1)}
X = FloatDistribution(0, 1)


def bowl(config: Config, ctx: Context) -> float:
    return float((config["x"] - 0.3) ** 2)


def run(storage: BaseStorage | str, trials: int, **options: Any) -> Result:
    options = {"space": SPACE, "name": "a", **options}
    space = options.pop("space")
    train = options.pop("train", bowl)
    return optimize(train, space, budget=Budget(trials=trials), storage=storage, **options)


def study_in(storage: BaseStorage | str) -> optuna.Study:
    return optuna.load_study(study_name="a", storage=storage)


def done(x: float, value: float, **rest: Any) -> optuna.trial.FrozenTrial:
    return create_trial(params={"x": x}, distributions={"x": X}, value=value, **rest)


# --- added trials --------------------------------------------------------------------------------


def test_a_trial_added_by_hand_is_an_observation_outside_the_budget() -> None:
    storage = InMemoryStorage()
    run(storage, 4)
    study_in(storage).add_trial(done(0.31, -5.0))
    result = run(storage, 8)
    assert len(result.log) == 9
    assert result.best_observed.loss == result.study.best_value == -5.0
    assert result.best.expected_loss < 0.0  # of its neighbor, or of what was added itself
    assert result.best_observed.number == 4
    assert [o.ask_index for o in result.log.observations if o.number == 4] == [None]
    table = result.to_pandas()
    assert list(table["loss"]) == [t.value for t in result.study.trials]


def test_it_is_learned_before_the_next_ask() -> None:
    at = 0.9
    near = []
    for added in (False, True):
        storage = InMemoryStorage()
        run(storage, 4)
        if added:
            for k in range(4):
                study_in(storage).add_trial(done(at + 0.01 * k, -5.0 - k))
        asked = [o.config["x"] for o in run(storage, 10).log.observations if o.ask_index]
        near.append(sum(abs(x - at) < 0.1 for x in asked[3:]))
    assert near[0] <= 1 and near[1] >= 3


def test_a_resumed_study_learns_it_at_the_same_moment() -> None:
    results = []
    for stops in ((4, 9), (4, 5, 7, 9)):
        storage = InMemoryStorage()
        for trials in stops:
            result = run(storage, trials)
            if trials == 4:
                study = study_in(storage)
                study.add_trial(done(0.7, 0.5))
                study.add_trial(done(0.35, 0.01))
        results.append(result)
        again = load_result("a", storage=storage)
        assert again.log.observations == result.log.observations
    first, second = results
    assert asks(first) == asks(second)
    assert [o.number for o in first.log.observations] == list(range(11))


def test_looking_at_a_study_shows_it_too_and_writes_nothing() -> None:
    storage = InMemoryStorage()
    run(storage, 3)
    study = study_in(storage)
    study.add_trial(done(0.31, -5.0))
    before = study.user_attrs
    assert load_result("a", storage=storage).best.loss == -5.0
    assert study.user_attrs == before


def test_pruned_failed_and_infinite_trials_are_read_for_what_they_are() -> None:
    storage = InMemoryStorage()
    run(storage, 2)
    study = study_in(storage)
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            params={"x": 0.8},
            distributions={"x": X},
            intermediate_values={1: 3.0, 2: 2.5},
        )
    )
    for attributes in ({}, {"failed": "oom"}):
        study.add_trial(
            create_trial(
                state=TrialState.FAIL,
                params={"x": 0.9},
                distributions={"x": X},
                user_attrs=attributes,
            )
        )
    study.add_trial(done(0.95, float("inf")))
    seen = {o.number: o for o in run(storage, 4).log.observations}
    assert (seen[2].status, seen[2].loss) == (Status.STOPPED, 2.5)
    assert [report.step for report in seen[2].reports] == [1, 2]
    assert [seen[n].cause for n in (3, 4, 5)] == [Cause.ERROR, Cause.OOM, Cause.DIVERGED]


def test_the_cost_is_that_of_the_attribute_and_never_a_time_that_was_not_measured() -> None:
    storage = InMemoryStorage()
    train = lambda config, ctx: {"loss": bowl(config, ctx), "cost": 2.0}  # noqa: E731
    run(storage, 2, train=train, cost="flops")
    study = study_in(storage)
    study.add_trial(done(0.5, 0.04, user_attrs={"flops": np.float64(7.0).item()}))
    study.add_trial(done(0.6, 0.09, user_attrs={"flops": -1.0}))
    costs = {o.number: o.cost for o in run(storage, 3, train=train, cost="flops").log.observations}
    assert (costs[2], costs[3]) == (7.0, None)
    storage = InMemoryStorage()
    run(storage, 2, cost="seconds")
    study_in(storage).add_trial(done(0.5, 0.04))
    assert {o.number: o.cost for o in run(storage, 3, cost="seconds").log.observations}[2] is None


def test_trials_of_another_sampler_in_the_same_study_are_learned() -> None:
    storage = InMemoryStorage()
    run(storage, 3)
    study = optuna.load_study(
        study_name="a", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=5)
    result = run(storage, 6)
    assert len(result.log) == len(result.study.trials) == 11


def test_what_does_not_fit_is_named_once_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = InMemoryStorage()
    run(storage, 3)
    study = study_in(storage)
    wide = FloatDistribution(0, 5)
    study.add_trial(create_trial(params={"x": 3.0}, distributions={"x": wide}, value=-1.0))
    study.add_trial(create_trial(params={}, distributions={}, value=-2.0))
    study.add_trial(
        create_trial(params={"x": 0.5, "z": 0.5}, distributions={"x": X, "z": X}, value=-3.0)
    )
    study.add_trial(create_trial(state=TrialState.FAIL))
    study.ask({"x": X})  # runs, and will never end
    with caplog.at_level(logging.WARNING):
        result = run(storage, 6)
    assert len(result.log) == 6
    (text,) = [r.getMessage() for r in caplog.records if "made elsewhere" in r.getMessage()]
    assert "3, 4, 5, 6, 7" in text
    assert "`x` must lie in [0.0, 1.0], got 3.0" in text
    assert "no 'z'" in text


def test_inactive_values_do_not_keep_a_trial_out() -> None:
    space = {"kind": Categorical(["a", "b"]), "x": Float(0, 1, when=("kind", ["b"]))}
    train = lambda config, ctx: config.get("x", 0.5)  # noqa: E731
    storage = InMemoryStorage()
    run(storage, 2, space=space, train=train)
    study_in(storage).add_trial(
        create_trial(
            params={"kind": "a", "x": 0.5},
            distributions={"kind": CategoricalDistribution(("a", "b")), "x": X},
            value=0.5,
        )
    )
    log = run(storage, 3, space=space, train=train).log
    assert {o.number: o.config for o in log.observations}[2] == {"kind": "a"}


def test_the_recommendation_is_not_confirmed_again_because_a_trial_was_added() -> None:
    storage = InMemoryStorage()
    run(storage, 6, confirm=2)
    study_in(storage).add_trial(done(0.31, 0.1))
    result = run(storage, 6, confirm=2)
    assert len(result.log) == 6 + 2 + 1


# --- enqueued trials -----------------------------------------------------------------------------


def test_an_enqueued_trial_is_the_next_one_and_counts() -> None:
    storage = InMemoryStorage()
    run(storage, 3)
    study = study_in(storage)
    study.enqueue_trial({"x": 0.31}, user_attrs={"why": "paper"})
    study.enqueue_trial({"x": np.float64(0.29)})
    result = run(storage, 7)
    assert [o.number for o in result.log.observations] == list(range(7))
    assert [o.config["x"] for o in result.log.observations[3:5]] == [0.31, 0.29]
    trials = result.study.trials
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    assert trials[3].params == {"x": 0.31} and trials[3].user_attrs["why"] == "paper"
    assert [o.ask_index for o in result.log.observations] == list(range(7))


def test_a_study_with_enqueued_trials_continues_as_if_never_interrupted() -> None:
    results = []
    for stops in ((3, 7), (3, 4, 6, 7)):
        storage = InMemoryStorage()
        for trials in stops:
            result = run(storage, trials)
            if trials == 3:
                for x in (0.31, 0.29):
                    study_in(storage).enqueue_trial({"x": x})
        results.append(asks(result))
    assert results[0] == results[1]


def test_what_an_enqueued_trial_leaves_open_is_proposed() -> None:
    space = {
        "x": Float(0, 1),
        "kind": Categorical(["a", "b"]),
        "y": Float(1e-4, 1e-2, log=True, when=("kind", ["b"])),
    }
    storage = InMemoryStorage()
    run(storage, 2, space=space)
    study = study_in(storage)
    for wanted in ({"x": 0.31}, {"kind": "b"}, {"kind": "a", "y": 1e-3}, {"y": 2e-4, "kind": "b"}):
        study.enqueue_trial(wanted)
    configs = [o.config for o in run(storage, 6, space=space).log.observations[2:]]
    checked = SearchSpace(space)
    assert all(checked.validate(config) == config for config in configs)
    assert configs[0]["x"] == 0.31
    assert configs[1]["kind"] == "b" and 1e-4 <= configs[1]["y"] <= 1e-2
    assert configs[2]["kind"] == "a" and "y" not in configs[2]
    assert configs[3]["y"] == 2e-4


def test_an_enqueued_trial_that_does_not_fit_is_named_and_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = InMemoryStorage()
    run(storage, 3)
    study = study_in(storage)
    for wanted in ({"x": 7.0}, {"z": 0.5}, {"x": "large"}, {"x": None}, {"x": [1]}):
        study.enqueue_trial(wanted)
    with caplog.at_level(logging.WARNING):
        result = run(storage, 6)
    assert len(result.log) == 6
    (text,) = [r.getMessage() for r in caplog.records if "made elsewhere" in r.getMessage()]
    assert "3, 4, 5, 6, 7" in text
    assert [t.state for t in result.study.trials[3:8]] == [TrialState.WAITING] * 5


def test_enqueued_trials_beyond_the_budget_are_named_and_run_by_the_next_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = InMemoryStorage()
    run(storage, 3)
    for x in (0.1, 0.2, 0.4):
        study_in(storage).enqueue_trial({"x": x})
    with caplog.at_level(logging.WARNING):
        run(storage, 4)
    assert "enqueued trials that still wait: 4, 5;" in caplog.text
    log = run(storage, 6).log
    assert [o.config["x"] for o in log.observations[3:]] == [0.1, 0.2, 0.4]


def test_a_trial_enqueued_while_the_study_runs_is_the_next_one() -> None:
    storage = InMemoryStorage()

    class Enqueue(Callback):
        def on_trial_end(self, run: StudyState, trial: Any, observation: Any) -> None:
            if trial.number == 2:
                study_in(storage).enqueue_trial({"x": 0.123})

    log = run(storage, 6, callbacks=[Enqueue()]).log
    assert [o.number for o in log.observations if o.config["x"] == 0.123] == [3]


def steps(config: Config, ctx: Context) -> float:
    loss = 1.0
    for epoch in range(1, (ctx.fidelity or 1) + 1):
        loss = (config["x"] - 0.3) ** 2 + 1 / epoch
        ctx.report(step=epoch, loss=loss)
    return loss


@pytest.mark.parametrize(
    "scheduler",
    [None, ASHA(), Hyperband(), FreezeThaw(), PBT(population=3), MedianStopping(), OneEpoch()],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_every_scheduler_learns_and_runs_them(scheduler: Scheduler | None) -> None:
    space: dict[str, Parameter] = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
    storage = InMemoryStorage()
    first = 1 if isinstance(scheduler, PBT) else 3  # its members start in the beginning only
    options: dict[str, Any] = {"space": space, "train": steps, "scheduler": scheduler}
    run(storage, first, **options)
    study = study_in(storage)
    study.enqueue_trial({"x": 0.31})
    study.enqueue_trial({"x": 0.9, "epochs": 3})
    curve = {1: 0.9, 3: 0.5, 9: 0.2, 100: 0.1}
    study.add_trial(done(0.4, 0.2, intermediate_values=curve))
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            params={"x": 0.8},
            distributions={"x": X},
            intermediate_values={1: 3.0},
        )
    )
    result = run(storage, 9, **options)
    asked = {trial.config["x"] for trial in result.log.trials}
    assert {0.31, 0.9} <= asked
    told = {o.number: o for o in result.log.observations if o.ask_index is None}
    assert [o.status for o in told.values()] == [Status.COMPLETED, Status.STOPPED]
    assert [[r.step for r in o.reports] for o in told.values()] == [[1, 3, 9], [1]]
    assert result.to_pandas().shape[0] >= 2 and str(result)


# --- drivers that die or race --------------------------------------------------------------------


def opened(storage: BaseStorage) -> StudyStorage:
    return StudyStorage.open(
        name="a",
        storage=storage,
        space=SearchSpace(SPACE),
        direction="minimize",
        cost=None,
        seed=0,
    )


def test_one_of_two_drivers_gets_an_enqueued_trial(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    run(storage, 2)
    study_in(storage).enqueue_trial({"x": 0.31})
    config, space = {"x": 0.31}, SearchSpace(SPACE)
    taken = []
    for owner in ("first", "second"):
        handle = opened(storage)
        (waiting,) = [t for t in study_in(storage).trials if t.number == 2]
        if owner == "second":  # it had looked before the first one started
            waiting.state = TrialState.WAITING
        asked = Asked(2, 0, owner, after=2)
        taken.append(handle.start_enqueued(waiting, asked, config, space.distributions(config, {})))
    assert taken[0] is not None and taken[0].number == 2
    assert taken[1] is None
    (entry,) = [entry for entry in opened(storage).entries() if entry.number == 2]
    assert entry.asked.owner == "first" and entry.trial.config == config


@pytest.mark.parametrize("written", ["set_trial_state_values", "set_trial_param"])
@pytest.mark.parametrize("before", [True, False])
def test_a_driver_that_dies_while_it_starts_one_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, written: str, before: bool
) -> None:
    storage = InMemoryStorage()
    run(storage, 2)
    study_in(storage).enqueue_trial({"x": 0.31})
    handle, lease = opened(storage), Lease.take()
    real = getattr(storage, written)

    def die(*arguments: Any) -> Any:
        if not before:
            real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, written, die)
    trials, _ = handle.made_elsewhere()
    space = SearchSpace(SPACE)
    with pytest.raises(KeyboardInterrupt):
        handle.start_enqueued(
            trials[0],
            Asked(2, 0, lease.owner, after=2),
            {"x": 0.31},
            space.distributions({"x": 0.31}, {}),
        )
    monkeypatch.undo()
    result = run(storage, 5)
    assert [o.config["x"] for o in result.log.observations if o.loss is not None].count(0.31) == 1
    assert len([o for o in result.log.observations if o.loss is not None]) == 5
    assert not any(trial.state is TrialState.RUNNING for trial in result.study.trials)


def test_an_added_trial_that_two_drivers_recorded_counts_once() -> None:
    storage = InMemoryStorage()
    run(storage, 2)
    study_in(storage).add_trial(done(0.4, 0.01))
    handle = opened(storage)
    handle.record_added(3, [2])
    handle.record_added(2, [2])
    _, orders = handle.made_elsewhere()
    assert orders == {2: 2}
    log = run(storage, 4).log
    assert sum(o.number == 2 for o in log.observations) == 1


def test_thousands_of_added_trials_are_recorded_in_few_attributes() -> None:
    storage = InMemoryStorage()
    run(storage, 2)
    study = study_in(storage)
    for k in range(3000):
        storage.create_new_trial(study._study_id, done(k / 3000, k / 3000))
    handle = opened(storage)
    handle.record_added(2, range(2, 3002))
    assert all(len(repr(value)) <= LONGEST_VALUE for value in study.user_attrs.values())
    found = Elsewhere.read(handle, Optimizer(SPACE))
    assert len(found.recorded) == 3000 and not found.new
    assert [o.order for o in found.recorded[:3]] == [2, 3, 4]
