"""Values that Optuna's own samplers take: ours takes them too, and never raises."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial

from hpo import Axis, Categorical, Float, Scale
from hpo.adapters.optuna import ScaleTuneSampler, prediction_of
from hpo.adapters.optuna.define_by_run import ObservedSpace, parameter_adapters
from hpo.adapters.optuna.space_view import SpaceView
from hpo.space import Parameter

optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(sampler: optuna.samplers.BaseSampler, **settings: Any) -> optuna.Study:
    return optuna.create_study(sampler=sampler, **settings)


# --- choices of any kind --------------------------------------------------------------------------

CHOICES: dict[str, list[Any]] = {
    "lists": [[64], [64, 64], []],
    "dicts": [{"a": 1}, {"a": 2, "b": [3]}, {}],
    "tuples": [(64,), (64, 64), ()],
    "nested tuples": [((1, 2), 3), ((1,), 3), [(4,)]],
    "mixed": [None, "x", [1], {"y": (2,)}, math.nan],
}


def storage_of(kind: str, tmp_path: Path) -> Any:
    if kind == "memory":
        return None
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
    return optuna.storages.JournalStorage(backend)


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
@pytest.mark.parametrize(
    ("kind", "storage"),
    [*((kind, "memory") for kind in CHOICES), ("nested tuples", "sqlite"), ("mixed", "journal")],
)
def test_choices_without_a_hash_are_searched_in_every_storage(
    kind: str, storage: str, tmp_path: Path
) -> None:
    """The last choice but one is best by far: a model finds it, and a draw has it each third."""
    choices = CHOICES[kind]
    best = len(choices) - 2

    def position(value: Any) -> int:
        return [repr(choice) for choice in choices].index(repr(value))

    def objective(trial: optuna.Trial) -> float:
        at = position(trial.suggest_categorical("c", choices))
        return abs(at - best) + (trial.suggest_float("x", 0, 1) - 0.3) ** 2

    study = study_of(ScaleTuneSampler(seed=0), storage=storage_of(storage, tmp_path))
    study.optimize(objective, n_trials=14)
    assert all(prediction_of(trial) is not None for trial in study.trials[1:])
    assert sum(trial.values[0] < 1 for trial in study.trials[-6:]) >= 4
    assert study.best_value < 0.01


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_conditions_on_choices_without_a_hash_are_learned() -> None:
    def objective(trial: optuna.Trial) -> float:
        layers = trial.suggest_categorical("layers", [[64], [64, 64]])
        return trial.suggest_float("dropout", 0, 1) if len(layers) == 2 else 0.5

    study = study_of(optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=10)
    observed = ObservedSpace()
    for trial in study.trials:
        observed.add(trial)
    assert observed.space() == {"layers": None, "dropout": ("layers", ([64, 64],))}
    study.sampler = ScaleTuneSampler(seed=0)
    study.optimize(objective, n_trials=8)
    assert study.best_value < 0.01


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_two_workers_do_not_repeat_each_other_on_choices_without_a_hash() -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    choices: list[Any] = [[1], [1, 2], [3]]
    study.optimize(lambda t: len(t.suggest_categorical("c", choices)), n_trials=1)
    distribution = study.trials[0].distributions
    asked = [study.ask(distribution).params["c"] for _ in range(2)]
    assert asked[0] != asked[1] and study.trials[0].params["c"] not in asked


@pytest.mark.parametrize("name", ["", "scaletune:fidelity", "scaletune:named "])
def test_names_that_the_engine_keeps_for_itself_are_searched(name: str) -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(lambda t: (t.suggest_float(name, 0, 1) - 0.3) ** 2, n_trials=10)
    assert study.best_value < 1e-3


# --- ranges that move -----------------------------------------------------------------------------


def moved(
    declared: dict[str, Parameter] | None,
    wide: BaseDistribution,
    narrow: BaseDistribution,
    first: list[float],
) -> list[FrozenTrial]:
    """Trials of a study that starts with the values `first` of `wide`, then suggests `narrow`."""
    study = study_of(ScaleTuneSampler(declared, seed=0))
    for value in first:
        study.enqueue_trial({"x": value})
    for distribution in [wide] * (len(first) + 3) + [narrow] * 5:
        trial = study.ask({"x": distribution})
        study.tell(trial, trial.params["x"])
    return study.trials


@pytest.mark.parametrize(
    ("declared", "wide", "narrow", "first"),
    [
        (Float(0.5, 0.9999, logit=True), (0.0, 1.0), (0.5, 0.9999), [1.0, 0.0]),
        (Scale(1, 10, axis=Axis.TOKENS), (-1.0, 10.0), (1.0, 10.0), [0.0, -1.0]),
        (None, (-5.0, 1.0), (1e-4, 1.0), [0.0, -5.0]),  # may be meant as a logarithm
        (None, (-1e300, 1e300), (0.0, 1.0), [1e300, -1e300]),
    ],
)
def test_old_values_without_a_place_on_todays_axis_do_not_end_the_study(
    declared: Parameter | None,
    wide: tuple[float, float],
    narrow: tuple[float, float],
    first: list[float],
) -> None:
    """A model of the others proposes."""
    space = None if declared is None else {"x": declared}
    trials = moved(space, FloatDistribution(*wide), FloatDistribution(*narrow), first)
    for trial in trials[-4:]:
        assert prediction_of(trial) is not None
        assert narrow[0] <= trial.params["x"] <= narrow[1]


def test_a_config_has_a_row_exactly_where_every_value_has_a_place_on_its_axis() -> None:
    beta = FloatDistribution(0.5, 0.9999)
    view = SpaceView(
        parameter_adapters({"x": beta}, {}, {"x": Float(0.5, 0.9999, logit=True)}), None
    )
    values = (0.0, 0.1, 0.9, 1.0, 2.0, math.nan, math.inf, "0.9", [0.9])
    trial = create_trial(value=0.0)
    places = [value for value in values if view.engine_config(trial, {"x": value}) is not None]
    assert places == [0.1, 0.9]


finite = st.floats(-1e6, 1e6)


@st.composite
def number_ranges(draw: st.DrawFn) -> BaseDistribution:
    low, high = sorted((draw(finite), draw(finite)))
    kind = draw(st.sampled_from(["float", "int", "step", "int step"]))
    if kind == "float":
        return FloatDistribution(low, high)
    if kind == "step":
        low = math.floor(low)
        return FloatDistribution(low, low + 0.25 * draw(st.integers(0, 40)), step=0.25)
    width = draw(st.integers(0, 10**15))
    whole = IntDistribution(math.floor(low), math.floor(low) + width)
    if kind == "int step":
        step = draw(st.integers(1, 5))
        return IntDistribution(whole.low, whole.low + width // step * step, step=step)
    return whole


@given(
    ranges=st.lists(number_ranges(), min_size=2, max_size=4),
    declared=st.sampled_from(
        [
            None,
            Float(0.5, 0.9999, logit=True),
            Float(0, 1, center=0.5),
            Scale(1, 10),
            Categorical([0, 1]),
        ]
    ),
    seed=st.integers(0, 9),
)
@settings(max_examples=12, deadline=None)
def test_ranges_may_move_anywhere_and_the_sampler_answers_inside_todays(
    ranges: list[BaseDistribution], declared: Parameter | None, seed: int
) -> None:
    study = study_of(ScaleTuneSampler(None if declared is None else {"x": declared}, seed=seed))
    kind = type(ranges[0])
    for distribution in (r for r in ranges if type(r) is kind):
        for _ in range(3):
            trial = study.ask({"x": distribution})
            value = trial.params["x"]
            assert distribution._contains(distribution.to_internal_repr(value))
            study.tell(trial, value)


# --- integers that floats can hardly tell apart ---------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "extra"),
    [
        (1, 10**15, {}),
        (1, 10**15, {"log": True}),
        (0, 7 * 10**15, {"step": 7}),
        (-(10**15), 10**15, {}),
        (1, 2**62, {}),
    ],
)
def test_more_integers_than_can_be_counted_are_all_different(
    low: int, high: int, extra: dict[str, Any]
) -> None:
    """The best value is at a bound, where many floats are one integer."""
    study = study_of(ScaleTuneSampler(seed=0))
    study.optimize(lambda t: abs(t.suggest_int("n", low, high, **extra) - low - 21), n_trials=30)
    values = [trial.params["n"] for trial in study.trials]
    assert len(set(values)) == 30
    assert all((value - low) % extra.get("step", 1) == 0 for value in values)
    assert study.best_value < (high - low) * 1e-3


def test_an_enqueued_integer_is_kept_where_neighbors_would_be_taken() -> None:
    study = study_of(ScaleTuneSampler(seed=0))
    for _ in range(3):
        study.enqueue_trial({"n": 7})
    study.optimize(lambda t: t.suggest_int("n", 1, 10**15), n_trials=3)
    assert [trial.params["n"] for trial in study.trials] == [7, 7, 7]


# --- times ----------------------------------------------------------------------------------------


def test_trials_with_times_in_any_zone_are_read_in_the_order_in_which_they_ended() -> None:
    """Aware and naive times, mixed in one trial or not; the durations are the costs."""
    now = datetime.now()
    aware = now.astimezone(UTC)
    minute = timedelta(minutes=1)
    times: list[tuple[datetime, datetime]] = [
        (now - 3 * minute, now - 2 * minute),
        (aware - 2 * minute, aware - minute),
        (now - minute, aware),
        (aware - minute, now),
    ]
    study = study_of(ScaleTuneSampler(cost="seconds", seed=0))
    for number, (start, end) in enumerate(times):
        trial = create_trial(
            params={"x": 0.25 * number}, distributions={"x": FloatDistribution(0, 1)}, value=1.0
        )
        trial.datetime_start, trial.datetime_complete = start, end
        study.add_trial(trial)
    asked = [study.ask({"x": FloatDistribution(0, 1)}) for _ in range(6)]
    prediction = prediction_of(study.trials[asked[-1].number])
    assert prediction is not None and prediction.cost == pytest.approx(60, rel=0.01)
