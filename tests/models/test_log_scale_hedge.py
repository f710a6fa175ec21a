"""Wide linear ranges are looked at in logarithms, too, as far as the losses ask for it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo import Categorical, Fidelity, Float, Int, Optimizer, Scale, SearchSpace
from hpo.models.log_scale_hedge import FLOOR, LogScaleHedge
from hpo.models.surrogate_selector import SurrogateChoice
from hpo.space import Parameter
from hpo.space.encoding import Encoder, wide_parameters
from hpo.trials import TrialLog
from surrogates.scaling_law.model import ScalingModel

DECAY = SearchSpace({"decay": Float(1e-5, 0.1), "x": Float(-1.0, 1.0)})


def test_only_linear_ranges_of_two_orders_of_magnitude_are_wide() -> None:
    space = SearchSpace(
        {
            "decay": Float(1e-5, 0.1),
            "units": Int(1, 512),
            "tenths": Float(0.01, 0.99),
            "from zero": Float(0.0, 1.0),
            "signed": Float(-1.0, 1000.0),
            "log": Float(1e-5, 0.1, log=True),
            "logit": Float(1e-5, 0.1, logit=True),
            "free": Float(center=1.0, spread=1.0),
            "steps": Int(8, 1024, multiple_of=8),
            "kind": Categorical(["a", "b"]),
            "size": Scale(1.0, 1e6),
            "epochs": Fidelity(1, 1000),
        }
    )
    assert wide_parameters(space) == ("decay", "units", "steps")


@st.composite
def wide(draw: st.DrawFn) -> Parameter:
    if draw(st.booleans()):
        low = draw(st.floats(1e-300, 1e250))
        return Float(low, low * draw(st.floats(100.0, 1e50)))
    step = draw(st.integers(1, 64))
    low = step * draw(st.integers(1, 100))
    return Int(low, low * draw(st.integers(100, 10**6)), multiple_of=step)


@given(wide(), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5))
def test_configs_survive_logarithmic_axes(parameter: Parameter, shares: list[float]) -> None:
    space = SearchSpace({"p": parameter})
    encoder = Encoder(space, log_axes=["p"])
    X = np.array(shares)[:, None]
    configs = encoder.decode(X)
    for config in configs:
        assert space.canonical(config) == config
    assert encoder.decode(encoder.encode(configs)) == configs
    ends = [{"p": parameter.low}, {"p": parameter.high}]  # type: ignore[union-attr]
    assert encoder.encode(ends).ravel().tolist() == pytest.approx([0.0, 1.0])


def test_the_middle_of_a_logarithmic_axis_is_the_geometric_mean() -> None:
    encoder = Encoder(DECAY, log_axes=["decay"])
    [config] = encoder.decode(np.array([[0.5, 0.5]]))
    assert config["decay"] == pytest.approx(1e-3)
    assert config["x"] == 0.0


def views_of(loss: Any, count: int, *, seed: int = 0) -> LogScaleHedge:
    """After `count` runs spread over both axes."""
    optimizer = Optimizer(DECAY, seed=seed)
    rng = np.random.default_rng(seed)
    encoders = [Encoder(DECAY), Encoder(DECAY, log_axes=["decay"])]
    for i in range(count):
        [config] = encoders[i % 2].decode(rng.random((1, 2)))
        optimizer.tell(config, loss(config))
    views = LogScaleHedge(Encoder(DECAY), ScalingModel(), SurrogateChoice.GP)
    views.sync(optimizer.log)
    return views


def in_logarithms(config: dict[str, Any]) -> float:
    return (math.log10(config["decay"]) + 3.5) ** 2 + config["x"] ** 2


def as_declared(config: dict[str, Any]) -> float:
    return 100.0 * (config["decay"] - 0.06) ** 2 + config["x"] ** 2


def test_asks_go_where_the_losses_are_simple_and_some_elsewhere() -> None:
    for loss, log_share in ((in_logarithms, 1.0 - FLOOR), (as_declared, FLOOR)):
        views = views_of(loss, 30)
        turns = [views.at(index) is views.all[1] for index in range(300)]
        assert np.mean(turns) == pytest.approx(log_share, abs=0.01)
        assert views.most_likely() is views.all[int(log_share > 0.5)]


def test_once_enough_is_told_the_likelier_view_has_all_asks_whatever_comes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hpo.models.log_scale_hedge.JUDGED", 20)
    monkeypatch.setattr("hpo.models.refits.JUDGED", 20)
    monkeypatch.setattr("hpo.models.fitted.JUDGED", 20, raising=False)
    told = 0

    def changing(config: dict[str, Any]) -> float:
        nonlocal told
        told += 1
        return in_logarithms(config) if told <= 20 else as_declared(config)

    views = views_of(changing, 60)
    assert all(views.at(index) is views.all[1] for index in range(30))
    assert views.most_likely() is views.all[1]


def test_before_any_loss_the_axes_are_those_declared() -> None:
    views = LogScaleHedge(Encoder(DECAY), ScalingModel(), SurrogateChoice.AUTO)
    views.sync(TrialLog())
    assert all(views.at(index) is views.declared for index in range(20))
    assert views.most_likely() is views.declared
    optimizer = Optimizer(DECAY, seed=0)
    reasons = [optimizer.ask().prediction for _ in range(8)]
    assert not any("logarithms" in belief.reason for belief in reasons if belief is not None)


@pytest.mark.parametrize(
    "space",
    [
        {"decay": Float(1e-5, 0.1, log=True), "x": Float(0, 1)},
        {"decay": Float(1e-5, 0.1), "size": Scale(1.0, 100.0)},
    ],
)
def test_where_nothing_is_wide_or_a_law_is_fitted_there_is_one_view(
    space: dict[str, Parameter],
) -> None:
    assert (
        len(LogScaleHedge(Encoder(SearchSpace(space)), ScalingModel(), SurrogateChoice.GP).all) == 1
    )


@pytest.mark.parametrize("staged", [False, True])
def test_a_decay_that_was_declared_linear_is_found(staged: bool) -> None:
    space: dict[str, Parameter] = dict(DECAY)
    if staged:
        space["epochs"] = Fidelity(1, 9)
    for seed in range(3):
        optimizer = Optimizer(space, seed=seed)
        reasons = []
        for _ in range(40):
            trial = optimizer.ask()
            optimizer.tell(trial, in_logarithms(trial.config))
            assert trial.prediction is not None
            reasons.append(trial.prediction.reason)
        result = optimizer.result()
        assert result.best.config["decay"] == pytest.approx(10**-3.5, rel=0.2)
        assert any("(in logarithms: decay)" in reason for reason in reasons)
        assert result.space == optimizer.space and not result.space["decay"].log  # type: ignore[union-attr]


def test_a_pool_is_asked_on_either_axis() -> None:
    optimizer = Optimizer(DECAY, seed=0)
    pool = [{"decay": 10.0**-k, "x": x} for k in (1, 2, 3, 4, 5) for x in (-0.5, 0.0, 0.5)]
    asked = []
    for _ in range(15):
        trial = optimizer.ask(among=pool)
        optimizer.tell(trial, in_logarithms(trial.config))
        asked.append(trial.config)
    assert sorted(map(str, asked)) == sorted(map(str, pool))
