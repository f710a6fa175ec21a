"""The sampler and the pruner in studies as users run them."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from hpo import ASHA, Axis, Fidelity, Float, MedianStopping, MuP, Role, Scale, SpaceError
from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler, prediction_of
from hpo.adapters.optuna import sampler as adapter
from hpo.adapters.optuna.define_by_run import ObservedSpace, parameter_adapters
from hpo.adapters.optuna.space_view import SpaceView
from hpo.schedulers import ASHAVariant, Hyperband
from hpo.trials import Reason, ReasonKind

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(sampler: optuna.samplers.BaseSampler, **settings: Any) -> optuna.Study:
    return optuna.create_study(sampler=sampler, **settings)


def reason_of(trial: optuna.trial.FrozenTrial) -> Reason:
    prediction = prediction_of(trial)
    assert prediction is not None and prediction.reason is not None
    return prediction.reason


def bowl(trial: optuna.Trial) -> float:
    x, y = trial.suggest_float("x", -5, 5), trial.suggest_float("y", -5, 5)
    return (x - 1) ** 2 + (y + 2) ** 2


def storage_of(tmp_path: Path) -> optuna.storages.JournalStorage:
    """A fresh connection to one file, as another process would open it."""
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    return optuna.storages.JournalStorage(backend)


def params(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


@pytest.fixture(scope="module")
def bowl_study() -> optuna.Study:
    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(bowl, n_trials=30)
    return study


def test_the_minimum_of_a_bowl_is_found_within_thirty_trials(bowl_study: optuna.Study) -> None:
    assert bowl_study.best_value < 1e-2


def test_maximizing_the_negated_bowl_asks_the_same_as_minimizing(
    bowl_study: optuna.Study,
) -> None:
    study = study_of(ScaleTuneSampler(seed=0), direction="maximize")
    study.optimize(lambda trial: -bowl(trial), n_trials=15)
    assert params(study) == params(bowl_study)[:15]


@pytest.fixture(scope="module")
def uninterrupted() -> optuna.Study:
    study = study_of(ScaleTuneSampler(seed=4))
    study.optimize(bowl, n_trials=12)
    return study


def test_a_study_in_two_parts_and_two_samplers_asks_the_same_as_one(
    uninterrupted: optuna.Study, tmp_path: Path
) -> None:
    study_of(ScaleTuneSampler(seed=4), storage=storage_of(tmp_path), study_name="s").optimize(
        bowl, n_trials=6
    )
    again = optuna.load_study(
        study_name="s", storage=storage_of(tmp_path), sampler=ScaleTuneSampler(seed=4)
    )
    again.optimize(bowl, n_trials=6)
    assert params(again) == params(uninterrupted)


def test_a_pickled_sampler_asks_the_same_as_one_that_was_not(uninterrupted: optuna.Study) -> None:
    sampler = ScaleTuneSampler(seed=4)
    study = study_of(sampler)
    study.optimize(bowl, n_trials=6)
    study.sampler = pickle.loads(pickle.dumps(sampler))
    study.optimize(bowl, n_trials=6)
    assert params(study) == params(uninterrupted)


def test_the_prediction_is_stored_with_its_trial_and_its_interval_mostly_holds_the_loss(
    bowl_study: optuna.Study,
) -> None:
    inside = []
    for trial in bowl_study.trials[10:]:
        prediction = prediction_of(trial)
        assert prediction is not None and prediction.loss_interval is not None
        assert not prediction.degraded
        low, high = prediction.loss_interval
        inside.append(low <= trial.values[0] <= high)
    assert np.mean(inside) > 0.6


# --- what is learned ------------------------------------------------------------------------------


def test_constraints_hold_for_the_best_trial_where_the_optimum_violates_them() -> None:
    def objective(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("sum", x + y - 1.0)
        return -(x + 2 * y)

    study = study_of(ScaleTuneSampler(seed=1))
    study.optimize(objective, n_trials=25)
    feasible = [t for t in study.trials if t.constraints["sum"] <= 0]
    assert len(feasible) >= 10  # the better half of the square is not
    assert study.best_value < -1.95  # the constrained optimum is -2, on the border


def test_failed_trials_keep_the_search_away_from_where_they_failed() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        y = trial.suggest_float("y", 0, 1)
        if x > 0.5:
            raise RuntimeError("out of memory")
        return (x - 0.3) ** 2 + (y - 0.4) ** 2

    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(objective, n_trials=14, catch=(RuntimeError,))
    states = [t.state for t in study.trials[4:]]
    assert states.count(TrialState.FAIL) <= 2  # of 10; half of the square fails
    assert study.best_value < 1e-2


def test_a_trial_that_the_heartbeat_repeated_is_ignored() -> None:
    distribution = FloatDistribution(0, 1)
    study, clean = study_of(ScaleTuneSampler(seed=0)), study_of(ScaleTuneSampler(seed=0))
    for each in (study, clean):
        each.add_trial(create_trial(params={"x": 0.5}, distributions={"x": distribution}, value=1))
    study.add_trial(
        create_trial(state=TrialState.FAIL, params={"x": 0.7}, distributions={"x": distribution})
    )
    study.enqueue_trial({"x": 0.7}, user_attrs={})
    retried = study.trials[-1]
    study._storage.set_trial_system_attr(retried._trial_id, "failed_trial", 1)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 0.3)
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    prediction = prediction_of(study.trials[-1])
    assert prediction is not None
    assert prediction.success == 0.95  # the prior: nothing has failed


def test_pruned_trials_count_at_the_step_they_reached() -> None:
    """With trials of 4 steps out of 16 alone beside two whole ones, the optimum is still found."""
    study = study_of(ScaleTuneSampler({"epochs": Fidelity(1, 16)}, seed=0))
    distribution = FloatDistribution(0, 1)
    for x in (0.05, 0.95):
        curve = {step: (x - 0.3) ** 2 + 1 / step for step in (1, 4, 16)}
        study.add_trial(
            create_trial(
                params={"x": x},
                distributions={"x": distribution},
                value=curve[16],
                intermediate_values=curve,
            )
        )
    for x in (0.1, 0.2, 0.25, 0.35, 0.4, 0.5, 0.6, 0.75):
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED,
                params={"x": x},
                distributions={"x": distribution},
                intermediate_values={step: (x - 0.3) ** 2 + 1 / step for step in (1, 2, 4)},
            )
        )
    asked = [study.ask({"x": distribution}) for _ in range(4)]
    assert min(abs(trial.params["x"] - 0.3) for trial in asked) < 0.08
    prediction = prediction_of(study.trials[-1])
    assert prediction is not None and prediction.loss is not None
    assert prediction.loss < 0.3  # a whole run ends near 1 / 16, one of 4 steps near 1 / 4


def test_a_pruned_trial_whose_last_value_is_nan_counts_as_diverged() -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    distribution = FloatDistribution(0, 1)
    for x in np.linspace(0.0, 1.0, 9):
        broken = bool(x > 0.5)
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if broken else TrialState.COMPLETE,
                params={"x": float(x)},
                distributions={"x": distribution},
                value=None if broken else -float(x),
                intermediate_values={1: math.nan} if broken else {},
            )
        )
    study.ask({"x": distribution})
    prediction = prediction_of(study.trials[-1])
    assert prediction is not None and prediction.success < 0.95


@pytest.mark.parametrize("named", [True, False])
def test_costs_come_from_an_attribute_or_from_durations(named: bool) -> None:
    def objective(trial: optuna.Trial) -> float:
        size = trial.suggest_float("size", 1, 1000, log=True)
        if named:
            trial.set_user_attr("flops", 7 * size)
        return 1 / size

    study = study_of(ScaleTuneSampler(cost="flops" if named else "seconds", seed=0))
    study.optimize(objective, n_trials=16)
    prediction = prediction_of(study.trials[-1])
    assert prediction is not None and prediction.cost is not None
    if named:
        assert prediction.cost == pytest.approx(7 * study.trials[-1].params["size"], rel=0.3)
    else:
        assert 0 < prediction.cost < 10


# --- scale ----------------------------------------------------------------------------------------


def loss_at(lr: float, size: float) -> float:
    """The best lr falls with the root of the size."""
    return float(3 * size**-0.2 + 0.2 * math.log(lr * math.sqrt(size)) ** 2)


def test_scale_may_be_a_suggested_parameter() -> None:
    def objective(trial: optuna.Trial) -> float:
        size = trial.suggest_int("params", 1000, 100_000, log=True)
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        trial.set_user_attr("flops", float(size))
        return loss_at(lr, size)

    space = {
        "params": Scale(1e3, 1e5, axis=Axis.PARAMS),
        "lr": Float(1e-4, 1.0, log=True, role=Role.LR),
    }
    study = study_of(ScaleTuneSampler(space, cost="flops", target={"params": 1e6}, seed=0))
    study.optimize(objective, n_trials=14)
    sizes = [t.params["params"] for t in study.trials]
    assert all(isinstance(size, int) for size in sizes) and len(set(sizes)) > 5
    late = [t.params["lr"] * math.sqrt(t.params["params"]) for t in study.trials[7:]]
    assert np.median(np.abs(np.log(late))) < 0.5  # the optimum is at 1 for every size


def test_for_a_scale_that_is_a_user_attribute_the_sampler_proposes_at_that_scale() -> None:
    """Sizes alternate; the lr proposed for each is near its own best one."""

    def objective(trial: optuna.Trial) -> float:
        size = 1e3 if trial.number % 2 else 1e5
        trial.set_user_attr("params", size)
        return loss_at(trial.suggest_float("lr", 1e-4, 1.0, log=True), size)

    study = study_of(ScaleTuneSampler({"params": Scale(1e3, 1e5)}, seed=0))
    study.optimize(objective, n_trials=20)
    for size in (1e3, 1e5):
        late = [t.params["lr"] for t in study.trials[10:] if t.user_attrs["params"] == size]
        assert abs(np.median(np.log(late)) - math.log(size**-0.5)) < 0.5
    kinds = {reason_of(trial).kind for trial in study.trials[2:]}
    assert kinds == {ReasonKind.LEARN_TARGET}  # no trial explores other sizes


def test_priors_without_their_role_are_refused_at_once() -> None:
    with pytest.raises(SpaceError, match="role"):
        ScaleTuneSampler({"params": Scale(1e3, 1e5, axis=Axis.PARAMS)}, priors=[MuP()])
    with pytest.raises(SpaceError, match="space"):
        ScaleTuneSampler(priors=[MuP()])


def test_a_declared_center_is_tried_first() -> None:
    study = study_of(ScaleTuneSampler({"lr": Float(1e-5, 1, log=True, center=0.02)}, seed=0))
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-5, 1, log=True), n_trials=1)
    assert study.trials[0].params["lr"] == pytest.approx(0.02)


# --- several objectives ---------------------------------------------------------------------------


def test_several_objectives_get_a_better_front_than_random_search() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x, y, z = (trial.suggest_float(name, 0, 1) for name in "xyz")
        off = 10 * ((y - 0.5) ** 2 + (z - 0.2) ** 2)
        return x**2 + off, -(100 - 100 * (x - 1) ** 2 - 100 * off)

    def volume(study: optuna.Study) -> float:
        front = sorted(t.values for t in study.best_trials)
        area, height = 0.0, 0.0
        for first, second in front:
            area += max(1.0 - first, 0) * max(-second - height, 0.0)
            height = max(height, -second)
        return area

    directions = ["minimize", "minimize"]
    ours = study_of(ScaleTuneSampler(seed=0), directions=directions)
    random = study_of(optuna.samplers.RandomSampler(seed=0), directions=directions)
    for study in (ours, random):
        study.optimize(objective, n_trials=20)
    assert volume(ours) > 1.2 * volume(random)
    assert len(ours.best_trials) >= 5


# --- define by run --------------------------------------------------------------------------------


def layered(trial: optuna.Trial) -> float:
    loss = 0.0
    kind = trial.suggest_categorical("kind", ["a", "b"])
    if kind == "a":
        loss += (trial.suggest_float("momentum", 0, 1) - 0.25) ** 2
    else:
        loss += 0.5 + trial.suggest_int("depth", 1, 9) / 9
    for layer in range(trial.suggest_int("layers", 1, 3)):
        loss += (trial.suggest_float(f"units{layer}", 0, 1) - 0.5) ** 2
    return loss


def test_conditions_are_learned_from_what_was_suggested() -> None:
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    study.optimize(layered, n_trials=20)
    observed = ObservedSpace()
    for trial in study.trials:
        observed.add(trial)
    assert observed.space() == {
        "kind": None,
        "momentum": ("kind", ("a",)),
        "depth": ("kind", ("b",)),
        "layers": None,
        "units0": None,
        "units1": ("layers", (2, 3)),
        "units2": ("layers", (3,)),
    }


def observed_of(names: list[str]) -> ObservedSpace:
    """What trials show that suggest the letters of each name; A and B are choices of "kind"."""
    observed = ObservedSpace()
    for number, letters in enumerate(names):
        kinds: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for letter in letters:
            if letter.isupper():
                kinds["kind"], found["kind"] = CategoricalDistribution(["A", "B"]), letter
            else:
                kinds[letter], found[letter] = FloatDistribution(0, 1), 0.5
        trial = create_trial(params=found, distributions=kinds, value=0.0)
        trial.number = number
        observed.add(trial)
    return observed


@pytest.mark.parametrize(
    ("trials", "space", "partial"),
    [
        (["xy", "x", "x"], {"x": None}, {"y": 0}),  # most trials lack y
        (["xy", "x", "xy"], {"x": None, "y": None}, {"y": 0}),  # one ended early
        (["x", "xy", "xy"], {"x": None, "y": None}, {}),  # added to a running study
        (["x"] * 30 + ["xy"], {"x": None, "y": None}, {}),
        (["x"] * 30 + ["xy", "x", "xy"], {"x": None, "y": None}, {"y": 30}),
        (["xy"] * 30 + ["x"] * 9, {"x": None}, {"y": 0}),  # removed from a running study
        (["xy"] * 30 + ["xz"], {"x": None, "y": None, "z": None}, {"y": 0}),  # just renamed
        (["xy"] * 30 + ["xz"] * 9, {"x": None, "z": None}, {"y": 0}),
        (["Ay", "B", "Ay", "B"], {"kind": None, "y": ("kind", ("A",))}, {}),
        (["Ay", "B", "Ay", "B", "A"], {"kind": None, "y": ("kind", ("A",))}, {"y": 0}),
        (["Ay", "B", "Ay", "B", "A", "By"], {"kind": None}, {"y": 0}),  # 3 of 6
    ],
)
def test_the_space_is_what_most_of_the_latest_trials_had(
    trials: list[str], space: dict[str, Any], partial: dict[str, int]
) -> None:
    observed = observed_of(trials)
    assert observed.space() == space
    assert observed.partial() == partial


@pytest.mark.parametrize("how", ["prune", "return", "raise"])
def test_a_trial_that_ends_before_its_last_suggestion_takes_nothing_out_of_the_search(
    how: str,
) -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if trial.number in (3, 8):
            if how == "prune":
                raise optuna.TrialPruned
            if how == "raise":
                raise RuntimeError("early")
            return 9.0
        return x + abs(math.log10(trial.suggest_float("lr", 1e-5, 1, log=True)) + 3)

    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(objective, n_trials=24, catch=(RuntimeError,))
    for trial in study.trials[4:]:
        assert "lr" in trial.system_attrs["scaletune:asked:0"]
    assert study.best_value < 0.15


def test_what_ends_early_still_teaches_the_parameters_that_it_had() -> None:
    """Its config has them alone; what lacks another parameter, or came before y, has no config."""
    distribution = FloatDistribution(0, 1)
    adapters = parameter_adapters({"x": distribution, "y": distribution}, {}, {})
    view = SpaceView(adapters, None, partial={"y": 5})

    def known(number: int, values: dict[str, float]) -> set[str] | None:
        trial = create_trial(value=0.0)
        trial.number = number
        config = view.engine_config(trial, values)
        return None if config is None else set(config) & {"x", "y"}

    assert known(5, {"x": 0.2, "y": 0.3}) == {"x", "y"}
    assert known(6, {"x": 0.2}) == {"x"}
    assert known(6, {"y": 0.2}) is None
    assert known(4, {"x": 0.2}) is None


@pytest.mark.parametrize("declared", [False, True])
def test_a_parameter_added_to_a_running_study_is_searched_from_then_on(declared: bool) -> None:
    """A declared one at once; another from the trial after the first that had it."""

    def objective(trial: optuna.Trial) -> float:
        loss = abs(math.log10(trial.suggest_float("lr", 1e-5, 1, log=True)) + 3)
        if trial.number >= 10:
            loss += 2 + abs(math.log10(trial.suggest_float("wd", 1e-6, 1, log=True)) + 2)
        return loss

    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(objective, n_trials=10)
    study.sampler = ScaleTuneSampler({"wd": Float(1e-6, 1, log=True)} if declared else None, seed=0)
    study.optimize(objective, n_trials=24)
    for trial in study.trials[10 if declared else 11 :]:
        assert "wd" in trial.system_attrs["scaletune:asked:0"]
    best = min(study.trials[10:], key=lambda trial: trial.values[0])
    assert best.values[0] < 2.3


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_first_trials_with_an_added_parameter_keep_the_best_of_the_others(
    direction: str,
) -> None:
    """What was found before it was added is the best guess of the others."""
    sign = 1 if direction == "minimize" else -1

    def objective(trial: optuna.Trial) -> float:
        loss = (trial.suggest_float("x", 0, 1) - 0.7) ** 2
        if trial.number >= 6:
            loss += (trial.suggest_float("y", 0, 1) - 0.2) ** 2
        return sign * loss

    study = optuna.create_study(sampler=ScaleTuneSampler(seed=0), direction=direction)
    study.optimize(objective, n_trials=6)
    best = study.best_params["x"]
    study.sampler = ScaleTuneSampler({"y": Float(0, 1)}, seed=0)
    study.optimize(objective, n_trials=6)
    added = study.trials[6:]
    assert all(trial.params["x"] == best for trial in added[:4])
    assert len({trial.params["y"] for trial in added}) == 6
    assert any(trial.params["x"] != best for trial in added[4:])


def test_a_parameter_that_is_declared_but_never_suggested_does_not_end_the_search(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def objective(trial: optuna.Trial) -> float:
        return (trial.suggest_float("x", 0, 1) - 0.7) ** 2

    study = study_of(ScaleTuneSampler({"x": Float(0, 1), "typo": Float(0, 1)}, seed=0))
    study.optimize(objective, n_trials=14)
    asked = [trial.system_attrs["scaletune:asked:0"] for trial in study.trials]
    assert "typo" in asked[0] and not any("typo" in each for each in asked[1:])
    assert study.best_value < 1e-3
    assert [r.getMessage() for r in caplog.records if "typo" in r.getMessage()] == [
        "'typo' is declared in `space`, but the objective did not suggest it"
    ]


@pytest.mark.parametrize("before", [0, 6])
def test_trials_that_start_together_get_start_points_of_their_own(before: int) -> None:
    study = study_of(ScaleTuneSampler({"x": Float(0, 1)}, seed=0))
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.7) ** 2, n_trials=before)
    study.sampler = ScaleTuneSampler({"x": Float(0, 1), "y": Float(0, 1)}, seed=0)
    trials = [study.ask() for _ in range(4)]
    assert len({trial.suggest_float("y", 0, 1) for trial in trials}) == 4


def test_a_declared_parameter_that_few_trials_had_stays_in_the_search() -> None:
    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        return x + (trial.suggest_float("y", 0, 1) if trial.number % 4 == 0 else 0.0)

    study = study_of(ScaleTuneSampler({"y": Float(0, 1)}, seed=0))
    study.optimize(objective, n_trials=13)
    for trial in study.trials:
        assert "y" in trial.system_attrs["scaletune:asked:0"]


def test_a_conditional_objective_is_searched_together() -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(layered, n_trials=25)
    assert study.best_value < 0.05
    assert all(prediction_of(trial) is not None for trial in study.trials[5:])


def test_ranges_may_move_and_old_trials_still_count() -> None:
    def objective(trial: optuna.Trial) -> float:
        low = 0.0 if trial.number < 12 else 2.0
        return (trial.suggest_float("x", low, low + 4) - 3.5) ** 2

    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(objective, n_trials=20)
    assert all(0 <= t.params["x"] <= 6 for t in study.trials)
    assert all(2 <= t.params["x"] <= 6 for t in study.trials[13:])
    assert study.best_value < 1e-3


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(-10.2, 10.2, step=0.1),
        FloatDistribution(0, 1e6, step=0.25),
        IntDistribution(-7, 8, step=3),
        IntDistribution(-6, 9, step=3),
        IntDistribution(1, 10**15, log=True),
        IntDistribution(3, 1000, log=True),
        CategoricalDistribution([None, 2, 1.5, "2", False]),
    ],
)
def test_values_converted_for_the_engine_and_back_are_the_same(
    distribution: optuna.distributions.BaseDistribution,
) -> None:
    adapter = parameter_adapters({"x": distribution}, {}, {})["x"]
    study = study_of(optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        value = study.ask({"x": distribution}).params["x"]
        back = adapter.to_optuna(adapter.to_engine(value))
        if isinstance(value, float):
            assert back == pytest.approx(value, rel=1e-12, abs=1e-12)
        else:
            assert type(back) is type(value) and back == value


# --- with the rest of Optuna ----------------------------------------------------------------------


def test_enqueued_values_are_kept_and_the_rest_is_proposed_around_them() -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(lambda t: (t.suggest_float("x", 0, 1) - t.suggest_float("y", 0, 1)) ** 2, 20)
    study.enqueue_trial({"x": 0.9})
    trial = study.ask()
    assert trial.suggest_float("x", 0, 1) == 0.9
    assert abs(trial.suggest_float("y", 0, 1) - 0.9) < 0.2  # the best y for this x


def test_fixed_parameters_stay_fixed_and_the_others_are_searched() -> None:
    sampler = ScaleTuneSampler(seed=0)
    study = study_of(sampler)
    study.optimize(bowl, n_trials=8)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.sampler = optuna.samplers.PartialFixedSampler({"y": -2.0}, sampler)
    study.optimize(bowl, n_trials=14)
    assert all(t.params["y"] == -2.0 for t in study.trials[8:])
    assert study.best_value < 1e-2


def test_workers_that_ask_before_anyone_tells_get_different_configs() -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    space: dict[str, Any] = {"x": FloatDistribution(0, 1), "y": IntDistribution(0, 5)}
    asked = [study.ask(space) for _ in range(24)]
    assert len({tuple(t.params.values()) for t in asked}) == 24


def test_two_samplers_of_equal_seed_on_one_storage_do_not_repeat_each_other(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    studies = [
        optuna.create_study(
            sampler=ScaleTuneSampler(seed=0), storage=url, study_name="s", load_if_exists=True
        )
        for _ in range(2)
    ]
    space: dict[str, Any] = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    asked = [studies[i % 2].ask(space) for i in range(10)]
    assert len({tuple(t.params.values()) for t in asked}) == 10


def test_a_trial_that_starts_and_ends_while_another_is_being_asked_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker chooses before it sees the other, which has ended when it looks again."""
    slow, quick = (
        optuna.create_study(
            sampler=ScaleTuneSampler(seed=0),
            storage=storage_of(tmp_path),
            study_name="s",
            load_if_exists=True,
        )
        for _ in range(2)
    )

    def corner(trial: optuna.Trial) -> float:  # whose optimum both would propose
        return trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1)

    write, written_between = adapter.write_attribute, [False]

    def write_late(study: optuna.Study, *stored: Any) -> None:
        if study is slow and not written_between[0]:
            written_between[0] = True
            quick.optimize(corner, n_trials=1)
        write(study, *stored)

    monkeypatch.setattr(adapter, "write_attribute", write_late)
    for _ in range(10):
        written_between[0] = False
        slow.optimize(corner, n_trials=1)
    chosen = []
    for trial in slow.trials:
        drawn_at_random = prediction_of(trial) is None
        if drawn_at_random or reason_of(trial).kind is not ReasonKind.REPLICATE:
            chosen.append(tuple(trial.params.values()))
    assert len(chosen) >= 15
    assert len(set(chosen)) == len(chosen)


def test_a_small_grid_is_exhausted_before_anything_repeats() -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(
        lambda t: t.suggest_int("x", 0, 3) + t.suggest_categorical("c", [0, 1, 2]), n_trials=13
    )
    assert len({tuple(t.params.values()) for t in study.trials[:12]}) == 12
    reasons = [reason_of(trial) for trial in study.trials[1:]]
    assert [reason.repeated for reason in reasons] == [False] * 11 + [True]


def test_threads_share_one_sampler() -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(bowl, n_trials=16, n_jobs=4)
    assert len({tuple(p.values()) for p in params(study)}) == 16


# --- the pruner -----------------------------------------------------------------------------------


def run(study: optuna.Study, curves: list[list[float]], first: int = 1) -> list[int]:
    """Steps that each trial, with its values from step `first` on, came to."""
    ends = []
    for curve in curves:
        trial = study.ask()
        for step, value in enumerate(curve, start=first):
            trial.report(value, step)
            if trial.should_prune():
                break
        study.tell(trial, state=TrialState.PRUNED) if step < len(curve) else study.tell(
            trial, curve[-1]
        )
        ends.append(step)
    return ends


def test_asha_stops_trials_outside_the_top_share_of_their_rung() -> None:
    study = study_of(
        optuna.samplers.RandomSampler(seed=0),
        pruner=ScaleTunePruner(ASHA(eta=3, kind=ASHAVariant.STOPPING), Fidelity(1, 9)),
    )
    flat = [[float(level)] * 9 for level in (5, 6, 4, 7, 3)]
    # ceil(n / 3) of the n arrivals at step 1 continue: the first always does, 6 and 7 do not.
    assert run(study, flat) == [9, 1, 9, 1, 9]


def test_maximizing_stops_trials_with_low_values() -> None:
    study = study_of(
        optuna.samplers.RandomSampler(seed=0),
        direction="maximize",
        pruner=ScaleTunePruner(ASHA(eta=3, kind=ASHAVariant.STOPPING), Fidelity(1, 9)),
    )
    assert run(study, [[5.0] * 9, [4.0] * 9, [6.0] * 9]) == [9, 1, 9]


def test_a_trial_that_asks_rarely_is_judged_at_every_rung_it_has_passed() -> None:
    study = study_of(
        optuna.samplers.RandomSampler(seed=0),
        pruner=ScaleTunePruner(ASHA(eta=3, kind=ASHAVariant.STOPPING), Fidelity(1, 9)),
    )
    run(study, [[1.0] * 9])
    trial = study.ask()
    for step in (1, 2, 3, 4, 5):
        trial.report(2.0, step)
    assert trial.should_prune()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_ends_a_trial_at_once(value: float) -> None:
    study = study_of(
        optuna.samplers.RandomSampler(seed=0), pruner=ScaleTunePruner(MedianStopping())
    )
    trial = study.ask()
    assert not trial.should_prune()
    trial.report(value, 0)
    assert trial.should_prune()


def test_median_stopping_agrees_with_its_definition() -> None:
    study = study_of(
        optuna.samplers.RandomSampler(seed=0), pruner=ScaleTunePruner(MedianStopping(among=3))
    )
    good = [[3.0] * 4, [2.0] * 4, [4.0] * 4]
    assert run(study, [*good, [3.5] * 4, [1.0] * 4]) == [4, 4, 4, 1, 4]


def test_a_new_pruner_for_each_trial_decides_as_one_for_all(tmp_path: Path) -> None:
    def pruner() -> ScaleTunePruner:
        return ScaleTunePruner(ASHA(eta=3, kind=ASHAVariant.STOPPING), Fidelity(1, 9))

    curves = [[float(level)] * 9 for level in (5, 6, 4, 7, 3, 8, 2)]
    undisturbed = run(study_of(optuna.samplers.RandomSampler(seed=0), pruner=pruner()), curves)
    ends = []
    for curve in curves:  # each trial has its own pruner
        study = optuna.create_study(
            storage=storage_of(tmp_path), study_name="s", load_if_exists=True, pruner=pruner()
        )
        ends += run(study, [curve])
    assert ends == undisturbed


def test_a_scheduler_that_must_pause_is_refused_with_the_way_out() -> None:
    for scheduler in (ASHA(), Hyperband()):
        with pytest.raises(SpaceError, match="ASHAVariant.STOPPING"):
            ScaleTunePruner(scheduler, Fidelity(1, 9))
    with pytest.raises(SpaceError, match="fidelity"):
        ScaleTunePruner(ASHA(kind=ASHAVariant.STOPPING))


def test_sampler_and_pruner_together_find_the_optimum_for_less() -> None:
    def objective(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        for step in range(1, 10):
            value = (x - 0.3) ** 2 + (y - 0.6) ** 2 + 1 / step
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study = study_of(
        ScaleTuneSampler({"epochs": Fidelity(1, 9)}, seed=0),
        pruner=ScaleTunePruner(ASHA(eta=3, kind=ASHAVariant.STOPPING), Fidelity(1, 9)),
    )
    study.optimize(objective, n_trials=24)
    states = [t.state for t in study.trials]
    assert states.count(TrialState.PRUNED) >= 4
    assert study.best_value < 1 / 9 + 0.01
