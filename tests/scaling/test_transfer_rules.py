"""Transfer rules: what each claims, how claims combine, and how they change the search.

How rules compete is tested in `test_rule_mixture`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from hpo import (
    AdamWTimescale,
    Axis,
    Budget,
    Categorical,
    CompleteP,
    DepthMuP,
    Float,
    Int,
    Level,
    MuP,
    Neutral,
    Optimizer,
    PowerScheduler,
    Role,
    Scale,
    ScalingExponents,
    SearchSpace,
    Slope,
    SpaceError,
    StepLaw,
    TimeTransfer,
    TokenHorizon,
    optimize,
)
from hpo.scaling.claims import TransferRule
from hpo.scaling.drift_prior import drift_prior, pooled
from hpo.scaling.transfer_rules import Alignment, Layer, ParametrizationScheme, Update
from hpo.space.encoding import Encoder
from surrogates.scaling_law.prior import E_FOLDS, DriftPrior, LawPrior

LR = Float(1e-4, 1e-1, log=True, role=Role.LR)
BATCH = Int(8, 512, log=True, role=Role.BATCH)
DECAY = Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY)
PARAMS = Scale(1e5, 1e7, axis=Axis.PARAMS)
TOKENS = Scale(1e6, 1e9, axis=Axis.TOKENS)
WIDTH = Scale(64, 1024, axis=Axis.WIDTH)
DEPTH = Scale(2, 32, axis=Axis.DEPTH)


def prior(rules: Sequence[TransferRule], space: Mapping[str, Any]) -> DriftPrior:
    space = SearchSpace(space)
    found = drift_prior(rules, space, Encoder(space).columns)
    assert found is not None
    return found


def claimed(rules: Sequence[TransferRule], space: Mapping[str, Any], parameter: str, scale: str):
    """Return mean and sd of one slope."""
    pooled_prior, space = prior(rules, space), SearchSpace(space)
    i, j = space.decisions.index(parameter), space.scales.index(scale)
    return pooled_prior.mean[i, j], pooled_prior.sd[i, j]


# --- what each rule claims


@pytest.mark.parametrize("rule", [MuP(), DepthMuP(), CompleteP()])
def test_under_mup_the_base_lr_does_not_drift_with_width(rule):
    mean, sd = claimed([rule], {"lr": LR, "width": WIDTH, "depth": DEPTH}, "lr", "width")
    assert mean == 0.0 and sd == pytest.approx(0.2)


def test_only_depth_rules_claim_slopes_in_depth():
    space = {"lr": LR, "width": WIDTH, "depth": DEPTH}
    neutral = LawPrior().drift_sd * E_FOLDS
    assert claimed([MuP()], space, "lr", "depth")[1] == pytest.approx(neutral)
    assert claimed([DepthMuP()], space, "lr", "depth") == (0.0, pytest.approx(0.3))
    assert claimed([CompleteP()], space, "lr", "depth") == (0.0, pytest.approx(0.2))


@pytest.mark.parametrize(
    ("parametrization", "update", "embedding", "hidden", "readout"),
    [  # Everett et al. 2024, full alignment: powers of width in the per-layer lr
        (ParametrizationScheme.STANDARD, Update.SGD, 0.5, -0.5, -1.0),
        (ParametrizationScheme.STANDARD, Update.ADAM, 0.0, -1.0, -1.0),
        (ParametrizationScheme.STANDARD, Update.ADAFACTOR, 0.0, -0.5, -0.5),
        (ParametrizationScheme.NTK, Update.SGD, 0.5, 0.5, 0.0),
        (ParametrizationScheme.NTK, Update.ADAM, 0.0, -0.5, -0.5),
        (ParametrizationScheme.NTK, Update.ADAFACTOR, 0.0, -0.5, -0.5),
        (ParametrizationScheme.MUP, Update.SGD, 0.0, 0.0, 0.0),
        (ParametrizationScheme.MUP, Update.ADAM, -0.5, -1.0, -0.5),
        (ParametrizationScheme.MUP, Update.ADAFACTOR, 0.0, -0.5, 0.0),
        (ParametrizationScheme.MEAN_FIELD, Update.SGD, 1.0, 1.0, 1.0),
        (ParametrizationScheme.MEAN_FIELD, Update.ADAM, 0.0, -0.5, 0.0),
        (ParametrizationScheme.MEAN_FIELD, Update.ADAFACTOR, 0.0, -0.5, 0.0),
    ],
)
def test_scaling_exponents_are_those_of_the_table(
    parametrization, update, embedding, hidden, readout
):
    layers = zip(Layer, (embedding, hidden, readout), strict=True)
    for layer, expected in layers:
        rule = ScalingExponents(parametrization, update, layer=layer)
        assert rule.lr_exponent == expected, layer


def test_without_alignment_hidden_adam_layers_need_half_the_slope():
    rule = ScalingExponents(alignment=Alignment.NONE)
    assert rule.lr_exponent == -0.5
    assert claimed([rule], {"lr": LR, "width": WIDTH}, "lr", "width")[0] == -0.5


def test_adams_epsilon_follows_the_gradient():
    space = {"lr": LR, "eps": Float(1e-12, 1e-4, log=True, role=Role.EPSILON), "width": WIDTH}
    assert claimed([ScalingExponents()], space, "eps", "width")[0] == -0.5
    mup = ScalingExponents(ParametrizationScheme.MUP)
    assert claimed([mup], space, "eps", "width")[0] == -1.0  # CompleteP's table: width^-1


def test_step_law_gives_slopes_and_the_optimum():
    space = {
        "lr": LR,
        "batch": BATCH,
        "params": PARAMS,
        "tokens": Scale(1e9, 1e11, axis=TOKENS.axis),
    }
    drift = prior([StepLaw(sequence_length=2048, lr_sd=0.4)], space)
    np.testing.assert_allclose(drift.mean, [[-0.713, 0.307], [0.0, 0.571]])
    assert drift.anchor is not None
    np.testing.assert_allclose(np.exp(drift.anchor.at), [1e6, 1e10])
    expected = [1.79 * 1e6**-0.713 * 1e10**0.307, 0.58 * 1e10**0.571 / 2048]
    np.testing.assert_allclose(np.exp(drift.anchor.mean), expected)
    np.testing.assert_allclose(drift.anchor.sd, [0.4, 0.7])


def test_step_law_claims_no_level_for_a_batch_of_unknown_unit():
    space = {"lr": LR, "batch": BATCH, "tokens": Scale(1e9, 1e11, axis=Axis.TOKENS)}
    drift = prior([StepLaw(params=1e7)], space)
    assert drift.anchor is not None
    assert np.isfinite(drift.anchor.sd[0]) and np.isinf(drift.anchor.sd[1])


def test_step_law_in_the_wrong_unit_is_refused():
    space = {
        "lr": LR,
        "batch": BATCH,
        "params": PARAMS,
        "tokens": Scale(1e9, 1e11, axis=TOKENS.axis),
    }
    with pytest.raises(SpaceError, match=r"best `batch`.*\[8, 512\].*check the units"):
        prior([StepLaw(sequence_length=1)], space)


def test_a_horizon_lowers_the_lr_at_a_fixed_batch():
    space = {"lr": LR, "tokens": TOKENS}
    assert claimed([TokenHorizon()], space, "lr", "tokens") == (-0.32, pytest.approx(0.15))
    assert claimed([PowerScheduler()], space, "lr", "tokens")[0] == 0.0


def test_where_the_batch_is_tuned_the_lr_follows_it():
    space = {"lr": LR, "batch": BATCH, "tokens": TOKENS}
    loose = LawPrior().drift_sd * E_FOLDS
    mean, sd = claimed([TokenHorizon()], space, "lr", "tokens")
    assert mean == pytest.approx(-0.32) and sd == pytest.approx(np.hypot(0.15, 0.5 * loose))
    batch = Slope("batch", "tokens", 0.4, 0.1)
    mean, sd = claimed([TokenHorizon(), batch], space, "lr", "tokens")
    assert mean == pytest.approx(-0.32 + 0.5 * 0.4) and sd == pytest.approx(np.hypot(0.15, 0.05))


def test_time_transfer_moves_batch_and_lr_together():
    space = {"lr": LR, "batch": BATCH, "params": PARAMS, "tokens": TOKENS}
    assert claimed([TimeTransfer()], space, "batch", "tokens") == (0.5, pytest.approx(0.2))
    assert claimed([TimeTransfer()], space, "batch", "params") == (0.0, pytest.approx(0.1))
    mean, sd = claimed([TimeTransfer()], space, "lr", "tokens")
    assert mean == pytest.approx(0.25) and sd == pytest.approx(np.hypot(0.3, 0.1))


def test_the_adamw_timescale_stays_a_constant_share_of_the_run():
    space = {"lr": LR, "batch": BATCH, "wd": DECAY, "width": WIDTH, "tokens": TOKENS}
    known = [Slope("lr", "tokens", -0.3, 1e-6), Slope("batch", "tokens", 0.5, 1e-6)]
    # batch / (lr wd D) constant
    mean, sd = claimed([AdamWTimescale(), *known], space, "wd", "tokens")
    assert mean == pytest.approx(0.5 + 0.3 - 1.0) and sd == pytest.approx(0.25)
    still = [Slope("lr", "width", 0.0, 1e-6), Slope("batch", "width", 0.0, 1e-6)]
    mup = AdamWTimescale(hidden_lr_exponent=-1.0)
    assert claimed([mup, *still], space, "wd", "width")[0] == pytest.approx(1.0)


def test_the_best_timescale_may_fall_with_tokens_per_parameter():
    space = {"wd": DECAY, "params": PARAMS, "tokens": TOKENS}
    rule = AdamWTimescale(ratio_exponent=-0.5)
    assert claimed([rule], space, "wd", "tokens")[0] == pytest.approx(-0.5)
    assert claimed([rule], space, "wd", "params")[0] == pytest.approx(-0.5)


def test_parameters_stand_in_for_width_and_width_and_depth_for_parameters():
    mean, sd = claimed([ScalingExponents()], {"lr": LR, "params": PARAMS}, "lr", "params")
    assert mean == pytest.approx(-5 / 12) and sd == pytest.approx(np.hypot(0.3, 1 / 12))
    space = {"lr": LR, "batch": BATCH, "width": WIDTH, "depth": DEPTH, "tokens": TOKENS}
    rule = StepLaw(levels=False)
    assert claimed([rule], space, "lr", "width")[0] == pytest.approx(2 * -0.713)
    assert claimed([rule], space, "lr", "depth")[0] == pytest.approx(-0.713)


# --- how claims combine


def test_pooling_rules_that_agree_is_the_product_of_gaussians():
    assert pooled([(-0.3, 0.1), (-0.3, 0.1)]) == (pytest.approx(-0.3), pytest.approx(0.1 / 2**0.5))
    assert pooled([(0.2, 0.3)]) == (pytest.approx(0.2), pytest.approx(0.3))


def test_pooling_rules_in_conflict_covers_both():
    mean, sd = pooled([(-1.0, 0.1), (0.0, 0.1)])
    assert mean == pytest.approx(-0.5) and sd == pytest.approx(0.5)
    mean, sd = pooled([(-1.0, 0.3), (0.0, 0.01)])  # the sharp one does not win by its sharpness
    assert -0.7 < mean < -0.3 and sd > 0.3


def test_pooling_does_not_depend_on_the_order():
    claims = [(-0.3, 0.1), (0.1, 0.2), (0.0, 0.15)]
    assert pooled(claims) == pytest.approx(pooled(claims[::-1]))


def test_a_claim_made_twice_counts_once():
    space = {"lr": LR, "width": WIDTH}
    assert claimed([MuP(), MuP(), CompleteP()], {**space, "depth": DEPTH}, "lr", "width")[
        1
    ] == pytest.approx(0.2)


def test_slopes_without_a_claim_keep_the_neutral_prior():
    space = {"lr": LR, "x": Float(0.0, 2.0), "params": PARAMS, "tokens": TOKENS}
    drift = prior([TokenHorizon()], space)
    np.testing.assert_array_equal(drift.mean, [[0.0, -0.32], [0.0, 0.0]])
    neutral = LawPrior().drift_sd * np.array([[E_FOLDS], [2.0]])
    np.testing.assert_allclose(drift.sd[1], neutral[1].repeat(2))
    assert drift.sd[0, 0] == pytest.approx(neutral[0, 0]) and drift.anchor is None


def test_levels_are_carried_along_the_slopes_to_the_middle():
    space = {"lr": LR, "tokens": TOKENS}
    slope = Slope("lr", "tokens", -0.5, 0.1)
    drift = prior([slope, Level("lr", {"tokens": 1e8}, 1e-3, sd=0.2)], space)
    assert drift.anchor is not None
    step = np.log(10**7.5) - np.log(1e8)
    assert drift.anchor.mean[0] == pytest.approx(np.log(1e-3) - 0.5 * step)
    assert drift.anchor.sd[0] == pytest.approx(np.hypot(0.2, 0.1 * step))


def test_any_object_with_a_claims_method_is_a_rule():
    class Halving:
        def claims(self, space):
            return [Slope("lr", name, -1.0, 0.1) for name in space.scales]

    mean, sd = claimed([Halving()], {"lr": LR, "tokens": TOKENS}, "lr", "tokens")
    assert (mean, sd) == (-1.0, pytest.approx(0.1))


# --- refusals


@pytest.mark.parametrize(
    ("space", "priors", "message"),
    [
        ({"x": Float(0, 1), "width": WIDTH}, [MuP()], r"MuP.* role Role\.LR, got none.*'x'.*leave"),
        ({"lr": LR, "tokens": TOKENS}, [MuP()], r"axis of Axis\.WIDTH, got \['tokens'\].*declare"),
        ({"lr": LR, "params": PARAMS}, [TokenHorizon()], r"axis of Axis\.TOKENS"),
        ({"lr": LR, "tokens": TOKENS}, [TimeTransfer()], r"role Role\.BATCH"),
        ({"lr": Float(0.01, 1, role=Role.LR), "width": WIDTH}, [MuP()], r"`lr` must be .*log=True"),
        (
            {"lr": LR, "b": Categorical([8, 16], ordered=True, role=Role.BATCH), "tokens": TOKENS},
            [TokenHorizon()],
            r"`b` must be a Float or Int with log=True",
        ),
        ({"lr": LR}, [MuP()], "need a space with Scale axes.*declare one"),
        ({"lr": LR, "width": WIDTH}, [MuP], r"got the class MuP; write MuP\(\)"),
        ({"lr": LR, "width": WIDTH}, MuP(), r"must be a list of rules.*write priors=\["),
        ({"lr": LR, "width": WIDTH}, "mup", "must be a list of rules"),
        ({"lr": LR, "width": WIDTH}, [3], r"method claims\(space\), got 3"),
        ({"lr": LR, "width": WIDTH}, [Slope("lr", "d", 0.0, 1.0)], "scale axis .*got 'd'.*width"),
        ({"lr": LR, "width": WIDTH}, [Slope("l", "width", 0.0, 1.0)], "numeric .*got 'l'.*'lr'"),
        (
            {"lr": LR, "b": BATCH, "width": WIDTH},
            [Slope("lr", "width", 0, 1, {"b": 1.0}), Slope("b", "width", 0, 1, {"lr": 1.0})],
            "in a circle, got lr -> b -> lr",
        ),
        (
            {"lr": LR, "tokens": TOKENS},
            [Level("lr", {"tokens": 1e8}, -7.0, 0.5)],
            "not its logarithm",
        ),
    ],
)
def test_a_rule_that_does_not_fit_the_space_is_refused_with_the_way_out(space, priors, message):
    with pytest.raises(SpaceError, match=message):
        Optimizer(space, priors=priors)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Slope("lr", "tokens", 0.0, 0.0),
        lambda: Slope("lr", "tokens", float("nan"), 1.0),
        lambda: Slope("lr", "tokens", 0.0, 1.0, {"lr": 1.0}),
        lambda: Level("lr", {"tokens": 0.0}, 1e-3, 0.5),
        lambda: Level("lr", {"tokens": 1e8}, 1e-3, float("inf")),
        lambda: StepLaw(sequence_length=-1),
    ],
)
def test_an_invalid_claim_is_refused_when_it_is_made(build):
    with pytest.raises(SpaceError, match="got"):
        build()


def test_optimize_refuses_a_bad_rule_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpaceError, match=r"Role\.LR"):
        optimize(
            lambda config, ctx: 0.0,
            {"x": Float(0, 1), "width": WIDTH},
            budget=Budget(trials=1),
            priors=[MuP()],
            name="n",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: o.tell({"lr": 1e-3, "params": 1e6}, 2.0), r"got none for \['tokens'\]"),
        (lambda o: o.tell({"lr": 1e-3, "params": 0.0, "tokens": 1e7}, 2.0), "`params` .*positive"),
        (lambda o: o.tell({"lr": 1e-3, "params": -1e6, "tokens": 1e7}, 2.0), "`params` .*positive"),
        (lambda o: o.recommend({"params": 1e3, "tokens": 1e5}), "below every proxy.*lower"),
        (lambda o: o.recommend({"params": 1e8, "tokens": 0}), "positive and finite, got 0"),
    ],
)
def test_an_impossible_scale_is_refused_by_name(call, message):
    optimizer = Optimizer({"lr": LR, "params": PARAMS, "tokens": TOKENS})
    optimizer.tell({"lr": 1e-3, "params": 1e6, "tokens": 1e7}, 2.0)
    with pytest.raises(SpaceError, match=message):
        call(optimizer)


def test_a_target_below_one_axis_of_the_proxies_is_answered_with_a_warning():
    optimizer = Optimizer({"lr": LR, "params": PARAMS, "tokens": TOKENS})
    optimizer.tell({"lr": 1e-3, "params": 1e6, "tokens": 1e7}, 2.0)
    answer = optimizer.recommend({"params": 1e4, "tokens": 1e9})
    assert answer.target == {"params": 1e4, "tokens": 1e9}


# --- end to end


SPACE = {"lr": LR, "batch": BATCH, "params": PARAMS, "tokens": TOKENS}
TRUTH = -0.32  # d ln lr / d ln tokens
TARGET = {"params": 1e8, "tokens": 1e10}


def lr_at(tokens: float) -> float:
    return 3e-3 * (tokens / 3e7) ** TRUTH


def loss(config: Mapping[str, Any]) -> float:
    bowl = 0.05 * np.log(config["lr"] / lr_at(config["tokens"])) ** 2
    bowl += 0.01 * np.log(config["batch"] / 64) ** 2
    return 1.8 + 400 * config["params"] ** -0.35 + 400 * config["tokens"] ** -0.37 + float(bowl)


def after_runs(priors, n, cost="flops", **changes):
    """Return an optimizer after n random runs."""
    space = SearchSpace(SPACE | changes)
    optimizer = Optimizer(space, cost=cost, priors=priors)
    rng = np.random.default_rng(0)
    for row in rng.random((n, len(space))):
        config = space.canonical(optimizer.encoder.decode(row[None])[0])
        y = loss(config) + 0.01 * rng.standard_normal()
        optimizer.tell(config, y, 6 * config["params"] * config["tokens"])
    return optimizer


def test_a_correct_prior_shortens_the_interval():
    neutral, informed = (
        after_runs(Neutral(), 10),
        after_runs([Slope("lr", "tokens", -0.32, 0.1), MuP()], 10),
    )
    low, high = informed.recommend(TARGET).intervals["lr"]
    wide_low, wide_high = neutral.recommend(TARGET).intervals["lr"]
    assert np.log(high / low) < 0.9 * np.log(wide_high / wide_low)
    assert low < lr_at(TARGET["tokens"]) < high


def test_a_wrong_prior_is_overruled_by_data():
    wrong = after_runs([Slope("lr", "tokens", 0.2, 0.15)], 40)
    slope = wrong.result().scaling_law.slope("lr", "tokens")
    assert slope.prior_mean == pytest.approx(0.75 * 0.2)  # 0.2, or 0 with probability 1/4
    assert slope.mean == pytest.approx(TRUTH, abs=0.1)
    assert wrong.recommend(TARGET).config["lr"] == pytest.approx(lr_at(1e10), rel=0.6)


def test_an_empty_list_of_rules_is_the_neutral_prior():
    assert after_runs(Neutral(), 6).ask().config == after_runs([], 6).ask().config


def test_rules_work_in_optimize_and_on_resume(tmp_path):
    def run(trials):
        return optimize(
            lambda config, ctx: {"loss": loss(config), "cost": config["params"] * config["tokens"]},
            SPACE,
            budget=Budget(trials=trials),
            cost="flops",
            priors=[MuP(), TokenHorizon()],
            name="n",
            storage=f"sqlite:///{tmp_path}/n.db",
        )

    run(2)
    resumed = run(4)
    assert len(resumed.log.observations) == 4
    law = resumed.scaling_law
    assert law.slope("lr", "tokens").prior_mean == pytest.approx(0.75 * -0.32)
    assert [rule.name for rule in law.rules] == ["MuP", "TokenHorizon", "none of them"]


# --- the law, read out


@pytest.fixture(scope="module")
def fitted():
    return after_runs([MuP(), TokenHorizon()], 40)


def test_the_law_shows_prior_and_posterior_side_by_side(fitted):
    law = fitted.result().scaling_law
    text, table = str(law), law.to_pandas()
    line = next(line for line in text.splitlines() if line.startswith("d ln lr / d ln tokens"))
    assert "-0.24 +- 0.27" in line and "%" in line  # -0.32 +- 0.21, or neutral
    assert list(table.columns) == [
        "coefficient",
        "prior",
        "prior_sd",
        "posterior",
        "posterior_sd",
        "informed_by_data",
    ]
    law_alone, rules = text.split("\n\n")
    rows = law_alone.splitlines()[1 : 1 + len(table)]
    assert all(row.startswith(name) for row, name in zip(rows, table["coefficient"], strict=True))
    assert all("+-" in row for row in rows)
    assert "+- one standard error." in law_alone.splitlines()[1 + len(table)]
    assert len(rules.splitlines()) == 1 + len(law.rules)
    assert {"exponent of params", "exponent of tokens", "gamma"} <= set(table["coefficient"])
    assert table["informed_by_data"].between(0.0, 1.0).all() and (table["posterior_sd"] > 0).all()
    with pytest.raises(KeyError, match="`axis` must be one of .*, got 'width'"):
        law.slope("lr", "width")


def test_the_allocation_minimizes_the_law_at_that_compute(fitted):
    result = fitted.result()
    law, compute = result.scaling_law, 1e17
    best = law.allocation(compute)
    N, D = best.scale["params"], best.scale["tokens"]
    assert 6 * N * D == pytest.approx(compute, rel=0.1)  # costs of 6 N D were learned
    predictor = result.models.scaling()[0]
    mean, _ = predictor.coefficients()
    floor = type(predictor.loss)(predictor.loss.layout, predictor.loss.reference, mean).floor
    columns = fitted.encoder.columns

    def loss_with(n):
        X = np.zeros((1, len(columns.kinds)))
        s = np.array([n, np.log(N * D) - n])
        X[0, columns.scale] = (s - columns.origin[columns.scale]) / columns.width[columns.scale]
        return float(floor(X)[0])

    found = minimize_scalar(loss_with, bounds=(np.log(N) - 3, np.log(N) + 3), method="bounded")
    assert found.x == pytest.approx(np.log(N), abs=0.1)
    assert best.loss == pytest.approx(found.fun, abs=1e-4)


def test_the_allocation_is_chinchillas_closed_form_where_gamma_is_one(monkeypatch):
    optimizer = after_runs(None, 40, cost=None)
    predictor = optimizer.result().models.scaling()[0]
    layout, reference = predictor.loss.layout, predictor.loss.reference
    mean, covariance = predictor.coefficients()
    mean = mean.copy()
    mean[layout.log_gamma] = 0.0
    monkeypatch.setattr(type(predictor), "coefficients", lambda self: (mean, covariance))
    best = optimizer.result().scaling_law.allocation(1e17)
    assert best.unit == "FLOPs (6 N D)"
    alpha, beta = np.exp(mean[layout.log_exponent])
    A, B = np.exp(mean[layout.log_reducible] + [alpha, beta] * reference)
    # Hoffmann et al. 2022, eq. 4
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    assert best.scale["params"] == pytest.approx(G * (1e17 / 6) ** (beta / (alpha + beta)))
    assert best.scale["tokens"] == pytest.approx((1e17 / 6) ** (alpha / (alpha + beta)) / G)
    assert best.exponents["params"] == pytest.approx(beta / (alpha + beta))
    E = mean[0] - np.exp(mean[layout.log_reducible]).sum()
    expected = E + A * best.scale["params"] ** -alpha + B * best.scale["tokens"] ** -beta
    assert best.loss == pytest.approx(expected)


def test_the_allocation_finds_the_true_sizes_within_its_intervals(fitted):
    best = fitted.result().scaling_law.allocation(1e17)
    G = (0.35 / 0.37) ** (1 / 0.72)
    truth = {"params": G * (1e17 / 6) ** (0.37 / 0.72), "tokens": (1e17 / 6) ** (0.35 / 0.72) / G}
    for name, size in truth.items():
        assert best.scale[name] == pytest.approx(size, rel=0.6)
        low, high = best.intervals[name]
        assert low < best.scale[name] < high and 0 < best.exponents[name] < 1
    assert sum(best.exponents.values()) == pytest.approx(1.0, abs=0.05)
    assert "params" in str(best) and "compute^" in str(best)


def test_the_allocation_follows_the_direction_of_the_user():
    space = {"lr": LR, "params": PARAMS, "tokens": TOKENS}
    up, down = Optimizer(space, direction="maximize"), Optimizer(space)
    rng = np.random.default_rng(0)
    for row in rng.random((20, 3)):
        config = up.space.canonical(up.encoder.decode(row[None])[0])
        y = loss({**config, "batch": 64})
        up.tell(config, -y)
        down.tell(config, y)
    above, below = (o.result().scaling_law for o in (up, down))
    assert above.allocation(1e16).loss == pytest.approx(-below.allocation(1e16).loss)
    assert above.allocation(1e16).scale == pytest.approx(below.allocation(1e16).scale)
    assert above.rows[-1].estimate.mean == pytest.approx(-below.rows[-1].estimate.mean)


@pytest.mark.parametrize("compute", [0.0, -1.0, float("inf"), float("nan")])
def test_an_allocation_of_no_compute_is_refused(fitted, compute):
    with pytest.raises(ValueError, match="`compute` must be a finite number above 0"):
        fitted.result().scaling_law.allocation(compute)


def test_without_costs_only_parameters_and_tokens_have_an_allocation():
    optimizer = Optimizer({"lr": LR, "width": WIDTH, "tokens": TOKENS})
    optimizer.tell({"lr": 1e-3, "width": 128.0, "tokens": 1e7}, 2.0)
    with pytest.raises(ValueError, match=r"PARAMS and TOKENS, got \['width', 'tokens'\].*cost="):
        optimizer.result().scaling_law.allocation(1e15)
