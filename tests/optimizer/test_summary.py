"""What a result prints: asked, spent, found, how sure, which bound, what failed, what is next."""

from __future__ import annotations

import html

import pytest

from hpo import Axis, Budget, Fidelity, Float, Int, Optimizer, Role, Scale, optimize
from hpo.optimizer.result import Result
from hpo.optimizer.summary import at_bound


def told(space: dict[str, Float | Int], *, direction: str = "minimize") -> Optimizer:
    return Optimizer(space, direction=direction)  # type: ignore[arg-type]


def test_a_printed_result_says_what_was_asked_spent_and_found_and_what_is_next() -> None:
    def train(config: dict[str, float], ctx: object) -> dict[str, float]:
        return {"loss": (config["x"] - 0.3) ** 2, "cost": 2.0}

    text = str(
        optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=6), cost="flops", name=None)
    )
    first, second, *_ = text.splitlines()
    assert first == "Minimized the loss over 1 setting (x); budget 6 trials."
    assert second.startswith("Spent: 6 trials, all completed")
    assert "12 flops" in second and second.endswith("The budget of 6 trials is used up.")
    assert "searched 0 to 1" in text and "90 % interval of one more run" in text
    assert "Next: to be able to continue a search, give it a name" in text


def test_a_budget_that_is_not_used_up_shows_what_was_spent_of_it() -> None:
    optimizer = Optimizer({"x": Float(0, 1)}, budget=Budget(trials=5))
    optimizer.tell(optimizer.ask(), 1.0)
    assert "that is 1 of 5 trials." in str(optimizer.result())


def maximized() -> Result:
    optimizer = told({"x": Float(0, 1), "depth": Int(1, 4)}, direction="maximize")
    for x in (0.1, 0.4, 0.9):
        optimizer.tell({"x": x, "depth": 4}, 1 - (x - 0.5) ** 2)
    return optimizer.result()


def test_a_maximized_objective_is_a_value_wherever_it_is_printed() -> None:
    result = maximized()
    trial = Optimizer({"x": Float(0, 1)}, direction="maximize")
    for x in (0.1, 0.4, 0.9):
        trial.tell({"x": x}, 1 - (x - 0.5) ** 2)
    for shown in (result, result.best, result.recommend(), result.predict(), trial.ask()):
        text = str(shown)
        assert "value" in text and "loss" not in text
    assert "0.99" in str(result.best) and "-0.99" not in str(result)


@pytest.mark.parametrize(
    ("value", "bound"), [(1e-4, "lower"), (1e-1, "upper"), (1e-2, None), (0.0995, "upper")]
)
def test_a_setting_on_a_bound_of_the_search_is_named(value: float, bound: str | None) -> None:
    optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True)})
    optimizer.tell({"lr": value}, 1.0)
    result = optimizer.result()
    assert at_bound(result.models, {"lr": value}).get("lr") == bound
    assert ("Next: search lr" in str(result)) == (bound is not None)
    if bound is not None:
        assert f"at the {bound} bound" in str(result)


def test_a_physical_bound_is_no_reason_to_search_further() -> None:
    optimizer = Optimizer({"drop": Float(0.0, 0.5, role=Role.DROPOUT)})
    optimizer.tell({"drop": 0.0}, 1.0)
    assert at_bound(optimizer.result().models, {"drop": 0.0}) == {}


def test_with_scale_axes_the_recommendation_is_named_as_the_next_step() -> None:
    space = {"lr": Float(1e-4, 1e-1, log=True), "tokens": Scale(1e4, 1e6, axis=Axis.TOKENS)}
    optimizer = Optimizer(space, target={"tokens": 8e6})
    optimizer.tell({"lr": 1e-3, "tokens": 1e5}, 2.0)
    assert "Next: result.recommend({'tokens': 8e+06})" in str(optimizer.result())


def test_trials_with_equal_losses_are_not_told_apart() -> None:
    optimizer = Optimizer({"x": Float(0, 1)})
    for x in (0.2, 0.4, 0.6):
        optimizer.tell({"x": x}, 1.0)
    assert "best observed" not in str(optimizer.result())


def test_a_notebook_shows_every_object_with_hostile_names_escaped() -> None:
    space = {"<b>x": Float(0, 1), "epochs": Fidelity(1, 9), "n": Scale(1, 100)}
    optimizer = Optimizer(space, cost="<i>")
    for x, n in ((0.2, 1), (0.5, 10), (0.8, 100)):
        optimizer.tell({"<b>x": x, "epochs": 9, "n": n}, (x - 0.5) ** 2 + 1 / n, cost=float(n))
    result = optimizer.result()
    law, cost = result.scaling_law, result.cost_law
    assert law is not None and cost is not None
    for shown in (
        result,
        result.best,
        result.recommend(),
        result.predict(),
        optimizer.ask(),
        result.log.observations[0],
        law,
        cost,
    ):
        page = shown._repr_html_()
        assert "<b>" not in page and "<i>" not in page
        assert html.unescape(page) != str(shown) and len(str(shown)) > 10
