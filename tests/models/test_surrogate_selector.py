"""Which surrogate models the loss, and how its intervals are calibrated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpo import (
    ASHA,
    Budget,
    Categorical,
    Fidelity,
    Float,
    Int,
    Optimizer,
    Scale,
    SpaceError,
    optimize,
)
from hpo.models.fitted import Models
from hpo.models.intervals import loss_forecast
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.surrogate_selector import (
    FULL,
    MARGIN,
    SurrogateChoice,
    SurrogateSelector,
    _joined,
    margin,
    normal_crps,
    share_of_forest,
)
from hpo.optimizer.multi_fidelity import StagedOptimizer
from hpo.space import Parameter, SearchSpace
from hpo.space.encoding import Encoder
from hpo.trials import Observation, ReasonKind, Report, RungAssignment, Status, Trial, TrialLog
from surrogates.conformal import Calibration
from surrogates.gp import GPPredictor
from tests.histories import log_of, models_of, random_configs, replay

SMOOTH: dict[str, Parameter] = {"x": Float(0, 1), "y": Float(0, 1)}
CODES: dict[str, Parameter] = {f"c{i}": Categorical(list("abcd")) for i in range(6)}
MIXED: dict[str, Parameter] = {
    "lr": Float(1e-4, 1.0, log=True),
    "depth": Int(1, 8),
    "kind": Categorical(["a", "b", "c"]),
    "beta": Float(0.9, 0.999, logit=True, when=("kind", ["a", "b"])),
}
PAUSING: dict[str, Parameter] = {
    "x": Float(0, 1),
    "kind": Categorical(["a", "b"]),
    "epochs": Fidelity(1, 9),
}


def bowl(config: dict[str, Any]) -> float:
    return (config["x"] - 0.3) ** 2 + (config["y"] - 0.6) ** 2


def wild(config: dict[str, Any]) -> float:
    """Calm where c0 is a, b or c; where it is d, draws that differ by factors."""
    code = int.from_bytes(str(sorted(config.items())).encode(), "little")
    noise = np.random.default_rng(code % 2**63).standard_normal()
    calm = 0.01 * noise + 0.1 * (config["c1"] == "a")
    return float(calm if config["c0"] != "d" else 1.0 + abs(noise) ** 3)


DRAWN = np.random.default_rng(0).choice(list("abcd"), size=(60, 6))
WILD = [dict(zip(CODES, map(str, codes), strict=True)) for codes in DRAWN]
WILD_LOSSES = [wild(config) for config in WILD]


def informed(space: dict[str, Parameter], loss: Any, count: int, **arguments: Any) -> Optimizer:
    """Return an optimizer that was told `count` random configs."""
    optimizer = Optimizer(space, seed=0, **arguments)
    for config in random_configs(space, count):
        optimizer.tell(config, loss(config))
    return optimizer


def selector_of(models: Models, choice: str = "auto") -> SurrogateSelector:
    selector = SurrogateSelector(models, SurrogateChoice(choice))
    selector.sync()
    return selector


# --- whose turn


def test_on_a_smooth_space_the_process_answers_every_ask():
    asked = []
    for surrogate in ("auto", "gp"):
        optimizer = informed(SMOOTH, bowl, 30, surrogate=surrogate)
        for _ in range(3):  # every output transform
            optimizer.tell(trial := optimizer.ask(), bowl(trial.config))
            assert trial.prediction.reason.kind is ReasonKind.IMPROVE_LOSS
        asked.append([trial.config for trial in optimizer.log.trials])
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    "space, expected",
    [
        (SMOOTH, MARGIN),
        (MIXED, MARGIN),  # three of four
        ({**CODES, "depth": Int(1, 4)}, -0.5 * FULL),  # three steps, nothing between them
        ({**CODES, **SMOOTH, "depth": Int(1, 64, log=False)}, MARGIN / 1.5 - 0.5 * FULL / 3.0),
        ({**CODES, "x": Float(0, 1), "fixed": Float(0.5, 0.5)}, MARGIN * 2 / 7 - FULL * 5 / 14),
        ({"fixed": Float(0.5, 0.5)}, -0.5 * FULL),
    ],
    ids=["smooth", "mixed", "codes", "a third", "one of seven", "nothing varies"],
)
def test_the_margin_falls_with_the_share_of_columns_that_are_not_smooth(space, expected):
    assert margin(Encoder(SearchSpace(space))) == pytest.approx(expected)


def test_without_smooth_columns_each_surrogate_answers_half_until_one_forecasts_better():
    selector = selector_of(Models(Encoder(SearchSpace(CODES))))
    assert selector.share == 0.5
    assert sum(selector.uses_forest(index) for index in range(100)) == 50
    required = margin(Encoder(SearchSpace(CODES)))
    assert share_of_forest(1.0, 0.75, required) == 1.0
    assert share_of_forest(0.75, 1.0, required) == 0.0


def test_the_share_rises_smoothly_with_the_skill_of_the_forest():
    shares = [share_of_forest(1.0, score, MARGIN) for score in np.linspace(1.2, 0.2, 101)]
    assert shares[0] == 0.0 and shares[-1] == 1.0
    steps = np.diff(shares)
    assert np.all(steps >= 0.0) and np.max(steps) <= 0.01 / FULL + 1e-12


def test_a_named_surrogate_answers_every_ask():
    models = models_of(CODES, WILD[:20], WILD_LOSSES[:20])
    assert [selector_of(models, name).share for name in ("gp", "quantile")] == [0.0, 1.0]


@pytest.fixture(scope="module")
def wild_study() -> Optimizer:
    """An optimizer that asked for 60 runs on which the forest forecasts better, and four more."""
    optimizer = Optimizer(CODES, seed=0)
    replay(log_of(WILD, WILD_LOSSES, asked=True).events(), optimizer)
    for _ in range(4):
        optimizer.tell(trial := optimizer.ask(), wild(trial.config))
    return optimizer


def test_a_forest_that_forecasts_better_answers_more_asks_and_the_reason_gives_its_share(
    wild_study,
):
    share = selector_of(models_of(CODES, WILD, WILD_LOSSES, asked=True)).share
    assert share > 0.5
    reasons = [trial.prediction.reason for trial in wild_study.log.trials[-4:]]
    sampled = [reason for reason in reasons if reason.kind is ReasonKind.POSTERIOR_SAMPLE]
    assert sampled
    for reason in sampled:
        assert (reason.surrogate, reason.forest_share) == ("quantile forest", share)


def test_an_optimizer_rebuilt_from_the_log_proposes_the_same(wild_study):
    again = replay(wild_study.log.events(), Optimizer(CODES, seed=0))
    assert again.propose() == wild_study.propose()


# --- scores and intervals are a function of the log


@pytest.mark.parametrize(
    "space, configs, losses, window",
    [
        (SMOOTH, random_configs(SMOOTH, 30), [bowl(c) for c in random_configs(SMOOTH, 30)], None),
        (CODES, WILD, WILD_LOSSES, 2),
    ],
    ids=["all blocks", "a window of two blocks"],
)
def test_a_selector_that_followed_the_log_equals_one_that_reads_it_at_once(
    monkeypatch, space, configs, losses, window
):
    if window is not None:
        monkeypatch.setattr("hpo.models.surrogate_selector.WINDOW", window)
    models = Models(Encoder(SearchSpace(space)))
    followed = SurrogateSelector(models, SurrogateChoice.AUTO)
    for n in range(1, len(losses) + 1):
        models.sync(log_of(configs[:n], losses[:n], asked=True))
        followed.sync()
    fresh = selector_of(models)
    assert len(fresh.blocks) == len(followed.blocks) == (window or 1)
    assert fresh.share == followed.share
    row = models.encoder.encode(configs[:1])
    one, other = (
        loss_forecast(InputWarp(models, selector), row, model=models.loss())
        for selector in (fresh, followed)
    )
    assert one == other
    assert fresh.interval(fresh.forest(), row) == followed.interval(followed.forest(), row)


@pytest.mark.parametrize("count, expected", [(100, 0), (250, 1)])
def test_of_runs_read_from_elsewhere_one_block_is_scored_or_none_where_they_are_few(
    count, expected
):
    configs = random_configs(CODES, count)
    selector = selector_of(models_of(CODES, configs, [wild(config) for config in configs]))
    assert len(selector.blocks) == expected
    assert (selector.share == 0.5) == (not expected)


def test_a_snapshot_stays_as_it_was_when_more_is_told():
    models = models_of(CODES, WILD[:30], WILD_LOSSES[:30], asked=True)
    selector = selector_of(models)
    kept = selector.snapshot(models.snapshot())
    share, rows = kept.share, len(kept.training_data()[1])
    models.sync(log_of(WILD[:45], WILD_LOSSES[:45], asked=True))
    selector.sync()
    assert selector.share != share and len(selector.training_data()[1]) == 45
    assert (kept.share, len(kept.training_data()[1])) == (share, rows)


def test_90_percent_intervals_cover_nine_of_ten_runs_with_heavy_tailed_noise():
    optimizer = Optimizer(SMOOTH, seed=0, surrogate="gp")
    rng = np.random.default_rng(0)
    hits = []
    for i in range(60):
        trial = optimizer.ask(among=random_configs(SMOOTH, 24, seed=i))
        loss = bowl(trial.config) + 0.2 * float(rng.standard_t(2))
        if trial.prediction.loss_interval is not None and len(optimizer.log.observations) > 15:
            low, high = trial.prediction.loss_interval
            hits.append(low <= loss <= high)
        optimizer.tell(trial, loss)
    assert len(hits) == 44
    assert np.mean(hits) == pytest.approx(0.9, abs=0.09)


def test_the_crps_of_a_normal_forecast_is_the_integral_of_its_pinball_losses():
    from scipy.special import ndtri

    tau = (np.arange(20000) + 0.5) / 20000
    q = 1.0 + 2.0 * ndtri(tau)
    for y in (-3.0, 1.0, 4.0):
        pinball = np.where(y >= q, tau, tau - 1.0) * (y - q)
        found = normal_crps(np.array([y]), np.array([1.0]), np.array([2.0]))
        assert found[0] == pytest.approx(2.0 * pinball.mean(), rel=1e-3)


# --- scores of runs that were left out


SIZED: dict[str, Parameter] = {"x": Float(0, 1), "n": Scale(1, 100)}


@pytest.fixture
def sized():
    """Models of 24 runs at three sizes, and their selector."""
    configs = [{**c, "n": 10 ** (i % 3)} for i, c in enumerate(random_configs(SIZED, 24))]
    losses = [(c["x"] - 0.3) ** 2 + c["n"] ** -0.3 for c in configs]
    models = models_of(SIZED, configs, losses, [float(c["n"]) for c in configs])
    return models, selector_of(models)


def row_at(models: Models, n: float) -> np.ndarray:
    return models.encoder.encode([{"x": 0.5, "n": n}])


def test_at_a_size_never_run_runs_are_scored_without_all_others_of_their_size(sized):
    models, selector = sized
    process, sizes = models.loss(), np.arange(24) % 3
    between = selector.calibration(process, row_at(models, 31.0), online=False)
    there = selector.calibration(process, row_at(models, 10.0), online=False)
    np.testing.assert_array_equal(between.scores, Calibration.by_group(process, sizes).scores)
    np.testing.assert_array_equal(there.scores, Calibration.recent(process, 24).scores)
    assert np.abs(between.scores - there.scores).max() > 1e-3


def test_scores_are_kept_for_each_process_and_kind_of_size(sized, monkeypatch):
    models, selector = sized
    calls: list[str] = []
    for name in ("by_group", "recent"):
        own = getattr(Calibration, name)

        def counted(predictor, last, own=own, name=name):
            calls.append(name)
            return own(predictor, last)

        monkeypatch.setattr(Calibration, name, counted)
    loss, cost = models.loss(), models.cost()
    assert isinstance(cost, GPPredictor)
    asked = [(p, row_at(models, n)) for n in (31.0, 10.0) for p in (loss, cost)]
    first = [selector.calibration(p, row, online=False).scores for p, row in asked]
    assert sorted(calls) == ["by_group", "by_group", "recent", "recent"]
    again = [selector.calibration(p, row, online=False).scores for p, row in asked]
    assert len(calls) == 4
    for one, other in zip(first, again, strict=True):
        assert one is other
    # those of one process are not those of the other
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])


def branching_runs(runs: int) -> tuple[Models, SurrogateSelector]:
    """Runs that share an error with their branches, which is larger than what else is random."""
    optimizer = Optimizer({"lr": Float(1e-3, 1e-1, log=True), "tokens": Scale(1e6, 4e6)}, seed=0)
    rng = np.random.default_rng(3)
    for _ in range(runs):
        lr, whole, error = 10 ** rng.uniform(-3, -1), rng.uniform(2e6, 4e6), rng.normal(0, 0.05)
        losses = {
            tokens: 30 * tokens**-0.25 + 0.05 * np.log(lr / 1e-2) ** 2 + error
            for tokens in (0.25 * whole, 0.5 * whole, whole)
        }
        branches = [{"tokens": tokens, "loss": loss} for tokens, loss in losses.items()]
        last = branches.pop()
        optimizer.tell({"lr": lr, "tokens": whole}, last["loss"], branches=branches)
    models = Models(optimizer.encoder)
    models.sync(optimizer.log)
    return models, SurrogateSelector(models, SurrogateChoice.GP)


def test_losses_of_one_run_are_left_out_together():
    models, selector = branching_runs(10)
    law, _ = models.scaling()
    runs = np.repeat(np.arange(10), 3)
    for tokens in (models.law_runs.X[-1, 1], 2.0):  # one that was run, one that was not
        row = np.array([[0.5, tokens]])
        calibration = selector.calibration(law, row, online=False)
        together = Calibration.by_group(law, runs)  # all sizes differ
        np.testing.assert_allclose(calibration.scores, together.scores)
        alone = Calibration.recent(law, 30)
        assert calibration.multiplier(0.8) > alone.multiplier(0.8)


def test_runs_of_one_size_and_losses_of_one_run_are_one_group():
    groups = _joined(np.array([0, 1, 1, 2, 3]), np.array([7, 7, 8, 9, 9]))
    assert groups.tolist() == [0, 0, 0, 1, 1]


def test_scores_of_a_process_that_has_grown_are_computed_anew(sized):
    models, selector = sized
    row, known = row_at(models, 31.0), models.loss()
    before = selector.calibration(known, row, online=False).scores
    grown = known.condition(row_at(models, 10.0), np.array([0.7]))
    after = selector.calibration(grown, row, online=False).scores
    assert len(after) == len(before) + 1
    np.testing.assert_array_equal(selector.calibration(known, row, online=False).scores, before)


# --- the forest by name


@pytest.mark.parametrize("workers", [1, 3])
def test_a_study_with_the_forest_replays_to_the_last_bit(workers):
    def loss(config: dict[str, Any]) -> float:
        return abs(np.log10(config["lr"]) + 2.0) + 0.1 * config["depth"] + (config["kind"] == "a")

    optimizer, running = informed(MIXED, loss, 12, surrogate="quantile"), []
    for _ in range(8):
        running.append(optimizer.ask())
        while len(running) >= workers:
            trial = running.pop(0)
            optimizer.tell(trial, loss(trial.config))
    again = replay(optimizer.log.events(), Optimizer(MIXED, seed=0, surrogate="quantile"))
    assert again.propose() == optimizer.propose()
    last = optimizer.log.trials[-1].prediction
    assert last.reason.kind is ReasonKind.POSTERIOR_SAMPLE
    assert last.reason.forest_share is None  # it was named
    low, high = last.loss_interval
    assert low <= last.loss <= high


def test_the_forest_finds_the_good_codes():
    def wrong(config: dict[str, Any]) -> float:
        return float(sum(config[name] != "b" for name in CODES))

    optimizer = informed(CODES, wrong, 20, surrogate="quantile")
    before = min(o.loss for o in optimizer.log.observations)
    for _ in range(12):
        optimizer.tell(trial := optimizer.ask(), wrong(trial.config))
    assert before >= 3.0
    assert min(o.loss for o in optimizer.log.observations) <= 1.0


def test_the_forest_varies_the_cost_and_stays_below_its_cap():
    def loss(config: dict[str, Any]) -> tuple[float, float]:
        return 1.0 / config["width"] + (config["x"] - 0.5) ** 2, config["width"] / 8.0

    space: dict[str, Parameter] = {"x": Float(0, 1), "width": Int(8, 512, log=True)}
    optimizer = Optimizer(
        space, cost="seconds", budget=Budget(cost=1e4, per_trial=20.0), surrogate="quantile"
    )
    for config in random_configs(space, 16):
        optimizer.tell(config, *loss(config))
    costs = []
    for _ in range(16):
        trial = optimizer.ask()
        value, cost = loss(trial.config)
        costs.append(cost)
        optimizer.tell(trial, value, cost)
    assert np.mean(np.array(costs) <= 20.0) > 0.7
    assert np.ptp(np.log(costs)) > 1.0  # the front is searched at several cost levels


def test_the_forest_learns_from_the_last_report_of_each_partial_run():
    encoder, log = Encoder(SearchSpace(PAUSING)), TrialLog()
    for number, (x, steps) in enumerate([(0.2, (1, 3)), (0.8, (1,))]):
        config = {"x": x, "kind": "a", "epochs": 9}
        log.add(Trial(number, config, number, None, None, RungAssignment(9)))
        for step in steps:
            log.report(number, Report(step, loss=x + 1.0 / step))
    models = Models(encoder)
    models.sync(log)
    X, loss = selector_of(models, "quantile").training_data()
    ends = [{"x": x, "kind": "a", "epochs": 9} for x in (0.2, 0.8)]
    order = np.argsort(X[:, 0])
    np.testing.assert_array_equal(X[order], encoder.encode(ends))
    np.testing.assert_allclose(loss[order], [0.2 + 1.0 / 3.0, 1.8])


def test_partial_runs_are_modeled_by_the_process_unless_the_forest_is_named():
    log = TrialLog()
    config = {"x": 0.5, "kind": "a", "epochs": 9}
    log.add(Trial(0, config, 0, None, None, RungAssignment(1)))
    log.tell(Observation(0, config, 1.0, None, Status.PAUSED, None, 0, ask_index=0))
    models = Models(Encoder(SearchSpace(PAUSING)))
    models.sync(log)
    for name, expected in (("auto", False), ("gp", False), ("quantile", True)):
        selector = selector_of(models, name)
        assert {selector.uses_forest(index) for index in range(9)} == {expected}
        assert selector.blocks == ()


def test_the_forest_prefers_the_better_code_under_a_scheduler():
    engine = StagedOptimizer(Optimizer(PAUSING, surrogate="quantile", seed=0), ASHA(), seed=0)
    asked = []
    for _ in range(24):
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        level = trial.assignment.level
        loss = (trial.config["x"] - 0.3) ** 2 + (trial.config["kind"] == "a") + 1.0 / level
        engine.tell(trial, loss, cost=float(level))
        asked.append(trial)
    sampled = [t for t in asked if t.prediction.reason.kind is ReasonKind.POSTERIOR_SAMPLE]
    assert len(sampled) > 5
    assert np.mean([trial.config["kind"] == "b" for trial in sampled]) > 0.6


# --- at the edges


@pytest.mark.parametrize("surrogate", ["auto", "gp", "quantile"])
@pytest.mark.parametrize(
    "losses",
    [[1.0, 2.0, 3.0], [5.0] * 14, [None] * 5, [1.0, 1e308, -1e308, 0.0]],
    ids=["three", "constant", "all failed", "extreme"],
)
def test_odd_histories_are_answered_without_a_fallback(surrogate, losses):
    optimizer = Optimizer(MIXED, seed=1, surrogate=surrogate)
    history = losses + [losses[-1]] * 8  # beyond the start points
    for config, loss in zip(random_configs(MIXED, len(history)), history, strict=True):
        optimizer.tell(config, loss, failed="oom" if loss is None else None)
    for _ in range(4):  # every output transform
        trial = optimizer.ask()
        assert trial.prediction.reason.kind is not ReasonKind.START_POINT
        assert trial.prediction.fallbacks == 0
        optimizer.tell(trial, losses[-1], failed="oom" if losses[-1] is None else None)


@pytest.mark.parametrize("surrogate", ["auto", "quantile"])
def test_one_config_told_many_times_is_not_asked_again(surrogate):
    optimizer = Optimizer(MIXED, seed=1, surrogate=surrogate)
    config = {"lr": 0.01, "depth": 3, "kind": "c"}
    for i in range(16):  # kinds a and b are never seen
        optimizer.tell(config, 1.0 + 0.01 * i)
    trial = optimizer.ask()
    assert np.isfinite(trial.prediction.loss)
    assert trial.config != config


def test_unknown_surrogates_and_the_forest_on_scales_are_refused():
    with pytest.raises(ValueError, match="`surrogate` must be one of"):
        Optimizer(SMOOTH, surrogate="forest")
    sized: dict[str, Parameter] = {"x": Float(0, 1), "n": Scale(1, 100)}
    with pytest.raises(SpaceError, match="trees do not extrapolate"):
        Optimizer(sized, surrogate="quantile")
    with pytest.raises(ValueError, match="`surrogate` must be one of"):
        optimize(lambda c, ctx: 0.0, SMOOTH, budget=Budget(trials=1), surrogate="forest")
    assert SurrogateChoice.of("gp") is SurrogateChoice.GP


def test_optimize_uses_the_surrogate_that_was_named():
    result = optimize(
        lambda config, ctx: bowl(config), SMOOTH, budget=Budget(trials=14), surrogate="quantile"
    )
    reason = result.log.trials[-1].prediction.reason
    assert (reason.surrogate, reason.forest_share) == ("quantile forest", None)
