"""A run that was paused against the run that was never paused."""

from __future__ import annotations

from typing import Any

import pytest

from hpo import Context, Fidelity, Float, SpaceError, StudyError, check_continuation

SPACE = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}


def descend(config: dict[str, Any], ctx: Context, *, decay: bool, save: bool) -> float:
    """Gradient descent on a quadratic, with a constant or a linearly decaying rate."""
    state = (ctx.load() if save else None) or {"epoch": 0, "w": 1.0}
    w = state["w"]
    for epoch in range(state["epoch"] + 1, config["epochs"] + 1):
        rate = 0.3 * (1.0 - (epoch - 1) / config["epochs"] if decay else 1.0)
        w -= rate * w
        if save:
            ctx.save({"epoch": epoch, "w": w})
        ctx.report(step=epoch, loss=w * w)
    return float(w * w)


@pytest.mark.parametrize("save", [True, False])
def test_a_constant_rate_passes_with_and_without_checkpoints(save: bool) -> None:
    found = check_continuation(
        lambda c, ctx: descend(c, ctx, decay=False, save=save), SPACE, {"x": 0.5}, low=3, high=9
    )
    assert found.passed and found.difference == 0.0 and found.resumed is save
    assert ("ctx.load is unused" in str(found)) is not save
    assert set(found.straight) == set(found.paused) == set(range(1, 10))


def test_a_rate_that_decays_towards_the_last_level_does_not_pass() -> None:
    found = check_continuation(
        lambda c, ctx: descend(c, ctx, decay=True, save=True), SPACE, {"x": 0.5}, low=3, high=9
    )
    assert not found.passed and found.difference > found.tolerance
    assert "DISAGREES" in str(found)


def test_levels_are_the_lowest_and_three_times_it_by_default() -> None:
    found = check_continuation(
        lambda c, ctx: descend(c, ctx, decay=False, save=True), SPACE, {"x": 0.5}
    )
    assert (found.low, found.high) == (1, 3)


def test_a_check_that_cannot_be_made_is_refused_with_the_reason() -> None:
    def fails(config: dict[str, Any], ctx: Context) -> float:
        raise RuntimeError("no data")

    with pytest.raises(SpaceError, match="space with a fidelity"):
        check_continuation(fails, {"x": Float(0, 1)}, {"x": 0.5})
    with pytest.raises(SpaceError, match="`low < high` must hold"):
        check_continuation(fails, SPACE, {"x": 0.5}, low=9, high=3)
    with pytest.raises(StudyError, match="no data"):
        check_continuation(fails, SPACE, {"x": 0.5})
