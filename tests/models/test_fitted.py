"""The fitted models of a log: what a long study replays when it is taken up again."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.models.fitted import _calibration_of_ends
from hpo.models.refits import RefitChain, refits_up_to
from surrogates.data import ColumnKind, Columns
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.kernels import MaternHamming
from surrogates.transforms import Transform

COLUMNS = Columns((ColumnKind.DECISION,) * 2, ("a", "b"), np.zeros(2), np.ones(2), (0, 0))
_CHAINED = 110


def history(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.random((n, 2))
    return X, np.sin(9.0 * X[:, 0]) + X[:, 1] ** 2 + 0.1 * rng.standard_normal(n)


def chain(chained: int | None = _CHAINED) -> RefitChain:
    return RefitChain(GaussianProcess(), COLUMNS, Transform.WINSOR, chained=chained)


def test_models_are_built_anew_at_a_tenth_more_rows():
    assert refits_up_to(17) == [*range(1, 12), 13, 15, 17]
    assert refits_up_to(0) == []


def test_a_chain_that_saw_every_row_believes_what_one_does_that_sees_them_all_at_once():
    X, y = history(420)
    lived = chain()
    for n in range(1, 421):
        here = lived.at(X[:n], y[:n])
        if n in (100, 111, 135, 150, 211, 300, 420):
            fresh = chain().at(X[:n], y[:n])
            assert np.array_equal(fresh.posterior(X[:5]).mean, here.posterior(X[:5]).mean)
            assert np.array_equal(fresh.posterior(X[:5]).variance, here.posterior(X[:5]).variance)


def test_of_a_long_history_only_an_early_part_and_the_last_fits_are_learned():
    X, y = history(420)
    fresh = chain()
    fresh.at(X, y)
    late = [count for count in fresh._learned if count > 100]
    assert 1 <= len(late) <= 4
    assert min(late) > _CHAINED
    everything = chain(chained=None)
    everything.at(X, y)
    assert list(everything._learned) == refits_up_to(420)


def test_a_short_history_is_learned_as_it_always_was():
    X, y = history(60)
    few, all_ = chain(), chain(chained=None)
    assert np.array_equal(few.at(X, y).weights, all_.at(X, y).weights)


@pytest.mark.parametrize("count", [1, 100, 134, 246, 400])
def test_hyperparameters_hold_from_one_count_until_the_next_at_which_they_are_learned(count):
    X, y = history(420)
    count = refits_up_to(count)[-1]
    asked = chain().theta(X, y, count)
    lived = chain()
    for n in refits_up_to(count):
        lived.at(X[:n], y[:n])
    assert np.array_equal(lived.theta(X, y, count), asked)


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_ends_are_as_uncertain_as_those_known_were_when_left_out(noise):
    X, y = history(40)
    y += noise * np.random.default_rng(1).standard_normal(40)
    kernel = MaternHamming(COLUMNS.numeric, COLUMNS.categorical, 0.3, np.log([0.6, 0.6]), y[:0])
    process = GPPredictor.build(kernel, X, y, 0.5)
    ended = np.arange(40) % 2 == 0
    left_out = process.leave_one_out()
    strange = np.sort((np.abs(y - left_out.mean) / np.sqrt(left_out.variance))[ended])
    expected = strange[17 - 1] / 1.2815515655446004  # the ceil(21 * 0.8)-th of 20
    assert _calibration_of_ends(process, ended) == pytest.approx(expected)
    assert (expected > 1.0) == (noise == 3.0)


def test_nine_ends_are_too_few_to_calibrate_others():
    X, y = history(40)
    kernel = MaternHamming(COLUMNS.numeric, COLUMNS.categorical, 0.3, np.log([0.6, 0.6]), y[:0])
    process = GPPredictor.build(kernel, X, y, 0.5)
    assert _calibration_of_ends(process, np.arange(40) < 9) == 1.0
