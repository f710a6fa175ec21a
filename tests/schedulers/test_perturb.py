"""Perturbed configs: valid, changed, and only where they may."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpo import Categorical, Float, Int, SearchSpace
from hpo.schedulers.perturb import perturb

SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1.0, log=True),
        "dropout": Float(0.1, 0.9, logit=True),
        "width": Int(2, 64, multiple_of=2),
        "depth": Int(1, 100, log=True),
        "kind": Categorical(["p", "q", "r"]),
    }
)
CONFIG = {"lr": 0.01, "dropout": 0.5, "width": 8, "depth": 10, "kind": "p"}


@given(st.sets(st.sampled_from(["lr", "dropout", "width", "depth"]), min_size=1), st.integers(0))
def test_only_the_named_parameters_change_and_stay_in_the_space(names: set[str], seed: int) -> None:
    changed = perturb(SPACE, CONFIG, tuple(sorted(names)), rng=np.random.default_rng(seed))
    assert changed == SPACE.canonical(changed)
    assert changed != CONFIG
    assert {name for name in CONFIG if changed[name] != CONFIG[name]} <= names


def test_a_number_is_multiplied_or_sometimes_resampled() -> None:
    rng = np.random.default_rng(0)
    ratios = [perturb(SPACE, CONFIG, ("lr",), rng=rng)["lr"] / CONFIG["lr"] for _ in range(400)]
    steps = [ratio for ratio in ratios if np.isclose(ratio, 0.8) or np.isclose(ratio, 1.2)]
    assert 0.65 < len(steps) / len(ratios) < 0.85


def test_odds_are_multiplied_where_the_scale_is_a_logit() -> None:
    rng = np.random.default_rng(0)
    values = {perturb(SPACE, CONFIG, ("dropout",), rng=rng)["dropout"] for _ in range(20)}
    assert any(np.isclose(value, 0.8 / 1.8) for value in values)  # odds of 1 times 0.8


def test_a_config_that_cannot_change_comes_back_as_it_is() -> None:
    unchanged = perturb(SPACE, CONFIG, (), rng=np.random.default_rng(0))
    assert unchanged == CONFIG and unchanged is not CONFIG
