"""Games and studies on known families, played small."""

import numpy as np
import pytest

from benchmarks.experiments.target import transfer
from benchmarks.experiments.target.question import RivalMissing


def test_a_study_measures_coverage_and_widths_beside_the_oracles() -> None:
    values = transfer._measure_families("right, quadratic", "scaletune", 0)
    for name in ("lr", "batch", "drift"):
        assert 0.0 <= values[f"{name} inside"] <= 1.0
        assert values[f"{name} width"] > 0.0 and values[f"{name} oracle"] > 0.0
    assert values["gap"] >= 0.0


def test_the_ends_of_a_mean_enclose_it_and_close_in_on_more_rows() -> None:
    rng = np.random.default_rng(0)
    rows = [{"gap": float(value)} for value in rng.exponential(1.0, 200)]
    low, high = (transfer.resampled("gap", level)(rows) for level in (0.05, 0.95))
    few = [transfer.resampled("gap", level)(rows[:20]) for level in (0.05, 0.95)]
    assert low < np.mean([row["gap"] for row in rows]) < high
    assert high - low < few[1] - few[0]


def test_a_rival_without_its_checkout_says_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCALETUNE_CARBS", raising=False)
    with pytest.raises(RivalMissing, match="SCALETUNE_CARBS is not set"):
        transfer.maker("CARBS")


def test_the_formula_is_asked_once_and_only_our_engine_confirms() -> None:
    assert not transfer._dense_skipped("1x: target 1", "formula", 0)
    assert transfer._dense_skipped("1x: target 1", "formula", 1)
    assert transfer._dense_skipped("1x, 3 confirmed: target 1", "GP", 0)
    assert not transfer._dense_skipped("1x, 3 confirmed: target 1", "scaletune", 0)
