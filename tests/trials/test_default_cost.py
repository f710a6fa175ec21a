"""What a run costs where no cost is declared."""

from hpo.space import Axis, Fidelity, Float, Scale, SearchSpace
from hpo.trials.default_cost import DefaultCost

SIZES = {"N": Scale(1e5, 1e7, axis=Axis.PARAMS), "D": Scale(1e6, 1e9, axis=Axis.TOKENS)}


def default(**space) -> DefaultCost | None:
    return DefaultCost.of(SearchSpace({"x": Float(0, 1), **space}))


def test_axes_of_parameters_and_tokens_give_six_n_d():
    cost = default(**SIZES)
    assert cost is not None and cost.of_run({"x": 0.5, "N": 2e6, "D": 3e7}) == 6 * 2e6 * 3e7


def test_a_shorter_run_costs_its_share_of_six_n_d():
    cost = default(**SIZES, epochs=Fidelity(1, 8))
    assert cost is not None
    config = {"x": 0.5, "N": 2e6, "D": 3e7, "epochs": 8}
    assert cost.of_run(config) == 4 * cost.of_run(config, level=2) == 6 * 2e6 * 3e7


def test_without_both_axes_a_run_costs_the_level_that_it_trained_to():
    for axes in ({}, {"N": SIZES["N"]}, {"D": SIZES["D"]}, {"n": Scale(1e5, 1e7)}):
        cost = default(**axes, epochs=Fidelity(1, 8))
        assert cost is not None
        assert cost.of_run({**dict.fromkeys(axes, 1e6), "epochs": 8}) == 8.0
        assert cost.of_run({**dict.fromkeys(axes, 1e6), "epochs": 8}, level=3) == 3.0


def test_nothing_is_known_of_other_spaces():
    unmarked = {"params": Scale(1e5, 1e7), "tokens": Scale(1e6, 1e9)}
    twice = {**SIZES, "seen": Scale(1e6, 1e9, axis=Axis.TOKENS)}
    for axes in ({}, {"N": SIZES["N"]}, {"D": SIZES["D"]}, unmarked, twice):
        assert default(**axes) is None


def test_a_run_too_large_for_a_float_has_a_finite_cost():
    cost = default(**SIZES)
    assert cost is not None and 1e308 < cost.of_run({"x": 0.5, "N": 1e200, "D": 1e200}) < 1e309
