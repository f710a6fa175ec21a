"""Several objectives and constraints: what is asked, told, refused and reported."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import ASHA, Fidelity, Float, Optimizer, ReasonKind, Scale, SpaceError, StagedOptimizer
from hpo.models.objectives import ObjectiveModels
from hpo.space import SearchSpace
from hpo.space.encoding import Encoder
from hpo.trials import Observation, Status
from hpo.trials.pareto import Objectives, pareto_set
from tests.histories import replay

SPACE = {"x": Float(0, 1), "y": Float(0, 1)}
BOTH = {"loss": "minimize", "speed": "maximize"}
LIMIT = {"memory": ("<=", 0.6)}


def outcome(config):
    """The best loss is at x = 0.8, the best speed at x = 0; memory forbids x > 0.6."""
    x, y = config["x"], config["y"]
    return (x - 0.8) ** 2 + y, {"speed": 1.0 - x, "memory": x}


def searched(optimizer, asks):
    for _ in range(asks):
        trial = optimizer.ask()
        loss, metrics = outcome(trial.config)
        optimizer.tell(trial, loss, metrics=metrics)
    return optimizer


@pytest.fixture(scope="module")
def optimizer():
    return searched(Optimizer(SPACE, objectives=BOTH, constraints=LIMIT, seed=0), 9)


@pytest.fixture(scope="module")
def result(optimizer):
    return optimizer.result()


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12))
def test_the_pareto_set_is_what_no_other_point_dominates(points):
    kept = set(pareto_set(np.array(points, dtype=float).reshape(-1, 3)).tolist())
    for i, point in enumerate(points):
        dominated = any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points
        )
        assert (i in kept) == (not dominated and point not in points[:i])


def test_asks_after_the_start_improve_all_objectives(optimizer):
    kinds = [trial.prediction.reason.kind for trial in optimizer.log.trials]
    assert kinds[:4] == [ReasonKind.START_POINT] * 4
    assert set(kinds[4:]) == {ReasonKind.IMPROVE_OBJECTIVES}
    assert not any(trial.prediction.degraded for trial in optimizer.log.trials)


def test_most_asks_keep_the_constraint_and_the_unhelpful_setting_goes_to_its_bound(optimizer):
    later = [observation.config for observation in optimizer.log.observations[4:]]
    assert np.mean([config["x"] <= 0.65 for config in later]) >= 0.6
    assert min(config["y"] for config in later) < 0.1


def test_the_same_log_gives_the_same_ask_to_the_last_bit(optimizer):
    again = Optimizer(SPACE, objectives=BOTH, constraints=LIMIT, seed=0)
    replay(optimizer.log.events(), again)
    assert again.propose().config == optimizer.propose().config


def test_the_front_holds_only_feasible_trials_in_order_of_the_first_objective(result):
    members = result.pareto_set
    assert members
    assert all(member.values["memory"] <= 0.6 for member in members)
    losses = [member.values["loss"] for member in members]
    assert losses == sorted(losses)
    assert [m.values["speed"] for m in members] == sorted(m.values["speed"] for m in members)
    assert result.best.config["x"] <= 0.6
    assert result.best_observed.number == members[0].number


def test_the_table_says_what_is_feasible_and_on_the_front(result):
    table = result.to_pandas()
    on_front = set(table[table["on_front"]]["number"])
    assert on_front == {member.number for member in result.pareto_set}
    assert (table["feasible"] == (table["memory"] <= 0.6)).all()


def test_print_shows_every_objective_of_the_front(result):
    text = str(result)
    assert text.startswith("Minimized loss and maximized speed with memory <= 0.6 over 2 settings")
    assert f"Front: {len(result.pareto_set)} of 9 completed trials." in text
    assert "speed" in str(result.pareto_set[0])


def test_the_report_has_the_front_and_a_picture_of_two_objectives(result, tmp_path):
    page = result.report(tmp_path / "report.html").read_text()
    assert "minimize loss, maximize speed, memory &lt;= 0.6" in page
    assert "loss against speed" in page
    assert "breaks a constraint" in page


def test_there_is_no_single_recommendation(result):
    with pytest.raises(ValueError, match=r"choose a trial of result\.pareto_set"):
        result.recommend()


def test_a_single_loss_under_a_constraint_needs_no_objectives():
    optimizer = searched(Optimizer(SPACE, constraints=LIMIT, seed=1), 8)
    result = optimizer.result()
    [best] = result.pareto_set
    assert best.values["memory"] <= 0.6
    assert result.best.config["x"] <= 0.6
    assert "Best of 8 completed trials within the constraints" in str(result)


def test_where_nothing_is_feasible_yet_the_search_goes_on_and_says_so():
    optimizer = Optimizer(SPACE, objectives=BOTH, constraints={"memory": ("<=", 0.01)}, seed=0)
    for x in (0.9, 0.7, 0.5, 0.4):
        loss, metrics = outcome({"x": x, "y": 0.5})
        optimizer.tell({"x": x, "y": 0.5}, loss, metrics=metrics)
    trial = optimizer.ask()
    assert trial.prediction.reason.kind is ReasonKind.KEEP_CONSTRAINTS
    assert trial.config["x"] < 0.4
    result = optimizer.result()
    assert result.pareto_set == ()
    assert "None of the 4 completed trials keeps every constraint (memory <= 0.01)" in str(result)


def test_failed_trials_teach_and_an_objective_that_is_not_finite_is_one():
    optimizer = Optimizer(SPACE, objectives=BOTH, seed=0)
    told = optimizer.tell({"x": 0.9, "y": 0.1}, 1.0, metrics={"speed": math.nan})
    assert told.cause.value == "diverged"
    optimizer.tell({"x": 0.95, "y": 0.1}, failed="oom")
    for x in (0.1, 0.3):
        optimizer.tell({"x": x, "y": 0.5}, x, metrics={"speed": x})
    trial = optimizer.ask()
    assert trial.prediction.success != 0.95  # what is assumed before any failure
    assert trial.config["x"] < 0.9
    assert len(optimizer.result().pareto_set) == 2


def test_a_completed_run_must_tell_every_value():
    optimizer = Optimizer(SPACE, objectives=BOTH, constraints=LIMIT)
    with pytest.raises(ValueError, match=r"`metrics` must hold \['memory'\] of a completed run"):
        optimizer.tell({"x": 0.5, "y": 0.5}, 1.0, metrics={"speed": 2.0})
    assert not len(optimizer.log.observations)


def test_the_cost_may_be_an_objective():
    wanted = {"loss": "minimize", "cost": "minimize"}
    optimizer = Optimizer(SPACE, objectives=wanted, cost="flops")
    optimizer.tell({"x": 0.5, "y": 0.5}, 1.0, cost=3.0)
    optimizer.tell({"x": 0.6, "y": 0.5}, 2.0, cost=4.0)
    assert [m.values for m in optimizer.result().pareto_set] == [{"loss": 1.0, "cost": 3.0}]


def test_runs_pause_by_the_first_objective_and_the_others_are_learned_at_their_level():
    space = {**SPACE, "epochs": Fidelity(1, 9)}
    engine = StagedOptimizer(Optimizer(space, objectives=BOTH, seed=0), ASHA(), seed=0)
    for _ in range(12):
        trial = engine.ask()
        loss, metrics = outcome(trial.config)
        engine.tell(trial, loss + 1.0 / trial.assignment.level, metrics=metrics)
    kinds = {trial.prediction.reason.kind for trial in engine.log.trials}
    assert ReasonKind.IMPROVE_OBJECTIVES in kinds
    assert len(engine.log.paused) > 0
    assert any(o.status is Status.COMPLETED for o in engine.log.observations)


def test_models_read_a_limit_by_its_side_and_scale():
    wanted = Objectives.of(
        {"loss": "maximize"}, {"memory": ("<=", 100.0), "speed": (">=", 10.0), "slack": ("<=", 0.0)}
    )
    models = ObjectiveModels(Encoder(SearchSpace({"x": Float(0, 1)})), wanted)
    log = Optimizer({"x": Float(0, 1)}).log
    metrics = {"memory": 200.0, "speed": 20.0, "slack": -3.0}
    told = Observation(
        0, {"x": 0.5}, 7.0, None, Status.COMPLETED, None, 0, ask_index=None, metrics=metrics
    )
    log.tell(told)
    models.sync(log)
    assert models.Y.tolist() == [[-7.0]]
    np.testing.assert_allclose(models.G, [[math.log(2.0), -math.log(2.0), -3.0]])
    assert models.feasible.tolist() == [False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"objectives": {"loss": "minimise", "b": "minimize"}}, r"`objectives\['loss'\]` must be"),
        ({"objectives": {}}, "must name at least one"),
        ({"objectives": {"loss": "minimize"}}, "needs a second objective or `constraints`"),
        ({"objectives": ["loss", "b"]}, "`objectives` must be a dict of names"),
        ({"constraints": {"m": 5}}, r"`constraints\['m'\]` must be a pair of a side and a limit"),
        ({"constraints": {"m": ("<", 5)}}, r"the side of `constraints\['m'\]` must be one of"),
        ({"constraints": {"m": ("<=", math.inf)}}, "the limit of `constraints"),
        (
            {"objectives": BOTH, "surrogate": "quantile"},
            "`surrogate` must be 'auto' or 'gp' for sev",
        ),
        ({"objectives": BOTH, "direction": "maximize"}, "`direction` must be that of the first"),
        (
            {"objectives": BOTH, "other_tasks": {"a": [({"x": 0.5}, 1.0)]}},
            "`other_tasks` needs one",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Optimizer(SPACE, **arguments)


def test_without_botorch_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "surrogates.interop.botorch", None)
    with pytest.raises(ImportError, match="need BoTorch, .* run: pip install botorch"):
        Optimizer(SPACE, objectives=BOTH)
    Optimizer(SPACE)  # which one loss does not need


def test_scale_axes_are_refused():
    with pytest.raises(SpaceError, match="need a space without Scale axes"):
        Optimizer({**SPACE, "params": Scale(1e5, 1e7)}, objectives=BOTH)
