"""Competing rules: which can hold together, how likely each is, and how the law shows it."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hpo.scaling.rule_mixture as module
from hpo import (
    AdamWTimescale,
    Axis,
    CompleteP,
    DeepSeekLaw,
    Float,
    Int,
    KaplanLR,
    Level,
    MuP,
    Neutral,
    Optimizer,
    Role,
    Scale,
    ScalingExponents,
    SearchSpace,
    Slope,
    SpaceError,
    StepLaw,
    TimeTransfer,
    TokenHorizon,
    WeightDecayTransfer,
)
from hpo.scaling.drift_prior import check_priors, drift_prior
from hpo.scaling.rule_mixture import NEUTRAL, RuleAbout, rule_mixture
from hpo.scaling.rule_table import RuleWeight, rules_as_text
from hpo.scaling.scaling_law import FittedLaw
from hpo.scaling.transfer_rules import PUBLISHED, Alignment
from hpo.space.encoding import Encoder
from surrogates.scaling_law.model import ScalingPredictor
from surrogates.scaling_law.prior import E_FOLDS, LawPrior

LR = Float(1e-4, 1e-1, log=True, role=Role.LR)
BATCH = Int(8, 512, log=True, role=Role.BATCH)
DECAY = Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY)
PARAMS = Scale(1e5, 1e7, axis=Axis.PARAMS)
TOKENS = Scale(1e6, 1e9, axis=Axis.TOKENS)
WIDTH = Scale(64, 1024, axis=Axis.WIDTH)
SMALL = {"lr": LR, "params": PARAMS, "tokens": TOKENS}
LLM = {"lr": LR, "batch": BATCH, "params": PARAMS, "tokens": TOKENS}
DECAYING = {"lr": LR, "decay": DECAY, "params": PARAMS, "tokens": TOKENS}
FULL = {**LLM, "decay": DECAY}


def mixture(priors, space):
    space = SearchSpace(space)
    return rule_mixture(check_priors(priors), space, Encoder(space).columns)


def names(found):
    return [rule.name for rule in found.rules]


# --- which rules hold together


def test_rules_about_different_slopes_may_hold_together():
    found = mixture([MuP(), TokenHorizon()], SMALL)
    assert found.holds.tolist() == [[True, True], [True, False], [False, True], [False, False]]
    # independent, each with all the mass that the neutral prior leaves
    np.testing.assert_allclose(found.drift.weights, np.outer([0.75, 0.25], [0.75, 0.25]).ravel())


def test_rules_about_one_slope_exclude_each_other():
    found = mixture([MuP(), KaplanLR()], SMALL)
    assert found.holds.tolist() == [[True, False], [False, True], [False, False]]
    np.testing.assert_allclose(found.drift.weights, [0.375, 0.375, 0.25])


def test_a_component_holds_the_claims_of_its_rules_and_the_neutral_prior_elsewhere():
    found = mixture([MuP(), TokenHorizon()], SMALL)
    both, alone, horizon, none = found.drift.priors
    neutral = LawPrior().drift_sd * E_FOLDS
    np.testing.assert_allclose(both.mean, [[0.0, -0.32]])
    np.testing.assert_allclose(both.sd, [[0.2, 0.15]])
    np.testing.assert_allclose(alone.sd, [[0.2, neutral]])
    np.testing.assert_allclose(horizon.sd, [[neutral, 0.15]])
    assert none is None


def test_slopes_that_a_user_states_are_one_rule():
    stated = [Slope("lr", "tokens", -0.3, 0.1), Slope("lr", "params", -0.2, 0.1)]
    level = Level("lr", {"tokens": 1e8}, 1e-3, 0.3)
    found = mixture([stated[0], MuP(), stated[1], level], SMALL)
    assert names(found) == ["MuP", "your slopes and levels"]
    assert found.holds.tolist() == [[True, False], [False, True], [False, False]]
    yours = found.drift.priors[1]
    np.testing.assert_allclose(yours.mean, [[-0.2, -0.3]])
    assert yours.anchor is not None


def test_a_rule_given_twice_counts_once():
    assert names(mixture([MuP(), MuP()], SMALL)) == ["MuP"]


def test_a_rule_that_claims_nothing_has_no_weight():
    @dataclass(frozen=True)
    class Silent:
        def claims(self, space):
            return ()

    assert names(mixture([Silent(), MuP()], SMALL)) == ["MuP"]
    assert mixture([Silent()], SMALL) is None


# --- prior weights


def test_every_published_source_counts_the_same_where_it_competes():
    # five sources on each slope of the lr, three on those of the batch
    found, known, shares = mixture(None, LLM), SearchSpace(LLM), {"lr": 0.15, "batch": 0.25}
    by_source: dict[tuple[str, str], float] = {}
    for rule in found.rules:
        (about,) = {claim.parameter for r in rule.rules for claim in r.claims(known)}
        by_source.setdefault((rule.source, about), 0.0)
        by_source[rule.source, about] += rule.weight
    for (source, about), weight in by_source.items():
        assert weight == pytest.approx(shares[about]), (source, about)
    # both alignments of Everett et al. are one source
    assert len({source for source, _ in by_source}) == 8


def test_rules_of_the_decay_share_three_quarters_of_their_own():
    decay = {AdamWTimescale.source, WeightDecayTransfer.source}
    weights = [rule.weight for rule in mixture(None, DECAYING).rules if rule.source in decay]
    assert weights == pytest.approx([0.375, 0.375])


@pytest.mark.parametrize("scale", ["params", "tokens"])
@pytest.mark.parametrize("parameter", ["lr", "batch"])
def test_on_each_slope_the_neutral_prior_keeps_a_quarter(parameter, scale):
    space = SearchSpace(LLM)
    found = mixture(None, LLM)
    claims = [
        any(
            c.parameter == parameter and c.scale == scale
            for r in rule.rules
            for c in r.claims(space)
        )
        for rule in found.rules
    ]
    silent = ~found.holds[:, claims].any(axis=1)
    assert found.drift.weights[silent].sum() == pytest.approx(NEUTRAL)


@pytest.mark.parametrize("space, count", [(SMALL, 16), (DECAYING, 48), (LLM, 88)])
def test_the_default_has_as_many_components_as_rules_can_hold_together(space, count):
    assert len(mixture(None, space).holds) == count


# --- what one rule says of several parameters


def test_by_default_what_a_rule_says_of_each_parameter_competes_separately():
    found, space = mixture(None, LLM), SearchSpace(LLM)
    parts = [rule.rules[0] for rule in found.rules if isinstance(rule.rules[0], RuleAbout)]
    assert [(type(part.rule), part.parameter) for part in parts] == [
        (TimeTransfer, "batch"),
        (TimeTransfer, "lr"),
        (StepLaw, "lr"),
        (StepLaw, "batch"),
        (DeepSeekLaw, "lr"),
        (DeepSeekLaw, "batch"),
    ]
    for part in parts:
        assert {claim.parameter for claim in part.claims(space)} == {part.parameter}
    for whole in PUBLISHED:  # every claim is made by one part, and by one only
        own = [part for part in parts if part.rule == whole]
        if own:
            together = [claim for part in own for claim in part.claims(space)]
            assert sorted(map(repr, together)) == sorted(map(repr, whole.claims(space)))
    assert {"DeepSeekLaw, lr", "DeepSeekLaw, batch"} < set(names(found))


def test_a_law_of_the_batch_may_hold_with_any_rule_of_the_lr_and_alone():
    found = mixture(None, LLM)
    batch, lr, other = (
        found.holds[:, names(found).index(name)]
        for name in ("DeepSeekLaw, batch", "DeepSeekLaw, lr", "MuP")
    )
    assert (batch & lr).any() and (batch & other).any()
    assert (batch & (found.holds.sum(axis=1) == 1)).any()
    # and is as likely with one as without: the two questions are independent
    p = found.drift.weights
    assert p @ (batch & lr) == pytest.approx((p @ batch) * (p @ lr), rel=1e-6)


def test_a_part_keeps_the_neutral_prior_of_the_other_parameter():
    found, space = mixture(None, LLM), SearchSpace(LLM)
    column = names(found).index("DeepSeekLaw, batch")
    alone = np.flatnonzero(found.holds[:, column] & (found.holds.sum(axis=1) == 1))
    prior = found.drift.priors[int(alone[0])]
    whole = drift_prior([DeepSeekLaw()], space, Encoder(space).columns)
    np.testing.assert_allclose(prior.mean, [[0.0, 0.0], whole.mean[1]])
    np.testing.assert_allclose(prior.sd, [[LawPrior().drift_sd * E_FOLDS] * 2, whole.sd[1]])


def test_a_rule_that_the_user_names_holds_as_a_whole_or_not_at_all():
    found = mixture([DeepSeekLaw(), StepLaw(levels=False)], LLM)
    assert names(found) == ["DeepSeekLaw", "StepLaw(levels=False)"]
    assert found.holds.tolist() == [[True, False], [False, True], [False, False]]


def test_a_rule_about_one_parameter_of_the_space_keeps_its_name():
    assert "DeepSeekLaw" in names(mixture(None, SMALL))


def test_what_a_rule_says_of_a_parameter_it_does_not_know_is_nothing():
    assert RuleAbout(DeepSeekLaw(), "decay").claims(SearchSpace(LLM)) == ()


def test_variants_of_one_paper_share_its_weight():
    rules = [ScalingExponents(), ScalingExponents(alignment=Alignment.NONE), MuP()]
    found = mixture(rules, SMALL)
    assert names(found)[1] == "ScalingExponents(alignment=NONE)"
    assert [rule.weight for rule in found.rules] == pytest.approx([0.1875, 0.1875, 0.375])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.frozensets(st.sampled_from("abcde"), min_size=1, max_size=3), min_size=1, max_size=7
    )
)
def test_the_weights_of_rules_are_those_asked_for(answers):
    weights = module._shares(answers, (rules := range(len(answers))), dict.fromkeys(rules, 1))
    holds, probability = module._hypotheses(answers, weights)
    assert probability.sum() == pytest.approx(1.0) and (probability > 0).all()
    np.testing.assert_allclose(probability @ holds, weights, atol=1e-6)
    assert not holds[-1].any() and holds[:-1].any(axis=1).all()
    for row in holds:
        asked = [q for i in np.flatnonzero(row) for q in answers[i]]
        assert len(asked) == len(set(asked))


def test_very_many_hypotheses_are_cut_to_the_likeliest_and_keep_the_weights():
    answers = [frozenset([i]) for i in range(9)]  # 512 sets
    holds, probability = module._hypotheses(answers, np.full(9, 0.75))
    assert 100 < len(holds) <= 128 and not holds[-1].any()
    assert holds[0].all() and probability.argmax() == 0
    np.testing.assert_allclose(probability @ holds, np.full(9, 0.75), atol=1e-3)
    assert holds.any(axis=0).all()


# --- what competes by default, and what removes it


def test_by_default_every_published_rule_that_fits_competes():
    assert set(names(mixture(None, {"lr": LR, "params": PARAMS}))) == {
        "MuP",
        "ScalingExponents",
        "ScalingExponents(alignment=NONE)",
        "KaplanLR",
        "DeepSeekLaw",
    }
    spoken = {rule.source for rule in mixture(None, FULL).rules}
    assert spoken == {rule.source for rule in PUBLISHED}
    assert not mixture(None, FULL).chosen and mixture([MuP()], FULL).chosen


@pytest.mark.parametrize(
    "space",
    [
        {"lr": LR},
        {"x": Float(0, 1), "params": PARAMS},
        {"lr": Float(1e-4, 1e-1, log=True), "params": PARAMS},
        {"lr": LR, "scale": Scale(1, 100)},
    ],
)
def test_without_roles_or_axes_no_rule_has_a_say(space):
    assert mixture(None, space) is None


@pytest.mark.parametrize("priors", [Neutral(), [Neutral()], []])
def test_neutral_removes_every_rule(priors):
    assert check_priors(priors) == () and mixture(priors, FULL) is None


def test_beside_a_rule_neutral_changes_nothing():
    assert check_priors([Neutral(), MuP()]) == (MuP(),)


def test_a_rule_that_the_user_names_must_fit():
    with pytest.raises(SpaceError, match="role Role.BATCH"):
        mixture([TimeTransfer()], SMALL)
    with pytest.raises(SpaceError, match="Neutral\\(\\) or None, got 'mup'.*Neutral\\(\\) for no"):
        mixture("mup", SMALL)


def test_the_levels_of_a_rule_reach_its_components():
    space = {
        "lr": LR,
        "batch": BATCH,
        "params": PARAMS,
        "tokens": Scale(1e9, 1e11, axis=Axis.TOKENS),
    }
    with_levels, none = mixture([StepLaw()], space).drift.priors
    assert with_levels.anchor is not None and none is None
    assert all(p is None or p.anchor is None for p in mixture(None, space).drift.priors)


# --- new rules


def test_deepseeks_exponent_of_compute_is_the_slope_in_both_of_its_factors():
    space = SearchSpace({"lr": LR, "batch": BATCH, "params": PARAMS, "tokens": TOKENS})
    drift = drift_prior([DeepSeekLaw()], space, Encoder(space).columns)
    np.testing.assert_allclose(drift.mean, [[-0.125, -0.125], [0.3271, 0.3271]])
    # at fixed N, the batch grows as C with D
    C = np.array([1e18, 1e20])
    batch = 0.2920 * C**0.3271
    assert np.log(batch[1] / batch[0]) / np.log(C[1] / C[0]) == pytest.approx(drift.mean[1, 1])


def test_kaplans_slope_is_that_of_the_line_at_the_middle_of_the_axis():
    space = SearchSpace({"lr": LR, "params": PARAMS})
    (slope,) = KaplanLR().claims(space)
    ln_lr = lambda s: np.log(0.003239 - 0.0001395 * s)  # noqa: E731  # equation D.1
    middle, step = np.log(1e6), 1e-4
    expected = (ln_lr(middle + step) - ln_lr(middle - step)) / (2 * step)
    assert slope.mean == pytest.approx(expected, rel=1e-6)


def test_kaplans_slope_stays_finite_beyond_the_models_it_was_fitted_to():
    slopes = [
        KaplanLR(params=N).claims(SearchSpace({"lr": LR, "width": WIDTH}))[0].mean
        for N in (1e8, 1.5e9, 1e12)
    ]
    assert slopes[0] > slopes[1] == slopes[2] > -2.0  # twice that of ln N
    with pytest.raises(SpaceError, match="exactly one scale axis of Axis.PARAMS.*params=1e8"):
        KaplanLR().claims(SearchSpace({"lr": LR, "width": WIDTH}))
    with pytest.raises(SpaceError, match="finite number above 0 or None, got 0"):
        KaplanLR(params=0)


def test_lr_times_decay_of_the_hidden_layers_is_the_same_at_every_width():
    space = SearchSpace({"lr": LR, "decay": DECAY, "width": WIDTH})
    known = Slope("lr", "width", -0.3, 1e-9)
    for hidden in (-1.0, 0.0):
        rules = [WeightDecayTransfer(hidden_lr_exponent=hidden), known]
        drift = drift_prior(rules, space, Encoder(space).columns)
        lr, decay = drift.mean[:, 0]
        assert lr + hidden + decay == pytest.approx(0.0)
        assert drift.sd[1, 0] == pytest.approx(0.3)


@pytest.mark.parametrize("rule", PUBLISHED)
def test_every_published_rule_names_its_paper(rule):
    assert "arXiv:" in rule.source and rule.source.split("arXiv:")[1] in (type(rule).__doc__ or "")


def test_no_published_slope_is_narrower_than_a_tenth():
    space = SearchSpace(FULL)
    for rule in PUBLISHED:
        assert min(claim.sd for claim in rule.claims(space)) >= 0.1, rule


# --- shown beside the law


def told(priors):
    optimizer = Optimizer(SMALL, priors=priors)
    rng = np.random.default_rng(0)
    for row in rng.random((8, 3)):
        config = optimizer.space.canonical(optimizer.encoder.decode(row[None])[0])
        bowl = 0.05 * np.log(config["lr"] / 3e-3) ** 2
        optimizer.tell(config, 1.8 + 400 * config["params"] ** -0.35 + float(bowl))
    return optimizer.result()


class Weighed:
    """A predictor that has learned which component holds."""

    def __init__(self, predictor: ScalingPredictor, weights: np.ndarray) -> None:
        self._predictor, self.rule_weights = predictor, weights

    def __getattr__(self, name: str) -> object:
        return getattr(self._predictor, name)


def test_the_law_says_which_rule_holds_before_and_after_the_runs():
    result = told([MuP(), TokenHorizon(), Slope("lr", "params", -0.5, 0.1)])
    # sets: muP + horizon, muP, horizon + yours, horizon, yours, none
    holds = [tuple(row) for row in result.rules.holds.astype(int).tolist()]
    assert holds == [(1, 1, 0), (1, 0, 0), (0, 1, 1), (0, 1, 0), (0, 0, 1), (0, 0, 0)]
    after = np.array([0.5, 0.2, 0.1, 0.1, 0.06, 0.04])
    predictor = Weighed(result.models.scaling()[0], after)
    law = FittedLaw.of(result.models.encoder, predictor, None, result.rules)
    assert [rule.name for rule in law.rules] == [
        "MuP",
        "TokenHorizon",
        "your slopes and levels",
        "none of them",
    ]
    assert [rule.after for rule in law.rules] == pytest.approx([0.7, 0.7, 0.16, 0.04])
    assert [rule.before for rule in law.rules[:3]] == pytest.approx([0.375, 0.75, 0.375])
    assert law.rules[0].source == MuP.source
    text = str(law)
    assert text.index("irreducible loss") < text.index("which published rule holds")
    assert text.splitlines()[-1].split() == ["none", "of", "them", "6%", "4%"]


def test_without_rules_the_law_has_no_such_table():
    law = told(Neutral()).scaling_law
    assert law.rules == () and "which published rule" not in str(law)


def test_the_table_puts_the_likeliest_rule_first_and_none_last():
    rows = [RuleWeight(n, "", 0.3, after) for n, after in (("a", 0.1), ("b", 0.2), ("c", 0.1))]
    lines = rules_as_text([*rows, RuleWeight("none of them", "", 0.1, 0.6)]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["b", "a", "c", "none"]


def test_completep_competes_with_mup_and_not_with_a_horizon():
    found = mixture([MuP(), CompleteP(), TokenHorizon()], SMALL)
    assert not (found.holds[:, 0] & found.holds[:, 1]).any()
    assert (found.holds[:, 1] & found.holds[:, 2]).any()
