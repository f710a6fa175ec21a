"""Wide linear ranges are also modeled on a logarithmic scale, as far as the losses support it."""

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
from tests.histories import log_of, random_configs

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
def test_configs_survive_a_logarithmic_column(parameter: Parameter, shares: list[float]) -> None:
    space = SearchSpace({"p": parameter})
    encoder = Encoder(space, log_axes=["p"])
    X = np.array(shares)[:, None]
    configs = encoder.decode(X)
    for config in configs:
        assert space.canonical(config) == config
    assert encoder.decode(encoder.encode(configs)) == configs
    ends = [{"p": parameter.low}, {"p": parameter.high}]  # type: ignore[union-attr]
    assert encoder.encode(ends).ravel().tolist() == pytest.approx([0.0, 1.0])


def test_the_middle_of_a_logarithmic_column_is_the_geometric_mean() -> None:
    encoder = Encoder(DECAY, log_axes=["decay"])
    [config] = encoder.decode(np.array([[0.5, 0.5]]))
    assert config["decay"] == pytest.approx(1e-3)
    assert config["x"] == 0.0


def hedge_of(loss: Any, count: int, *, seed: int = 0) -> LogScaleHedge:
    """Return the hedge after `count` runs spread over both scalings."""
    rng = np.random.default_rng(seed)
    encoders = [Encoder(DECAY), Encoder(DECAY, log_axes=["decay"])]
    configs = [encoders[i % 2].decode(rng.random((1, 2)))[0] for i in range(count)]
    hedge = LogScaleHedge(Encoder(DECAY), ScalingModel(), SurrogateChoice.GP)
    hedge.sync(log_of(configs, [loss(config) for config in configs]))
    return hedge


def in_logarithms(config: dict[str, Any]) -> float:
    return (math.log10(config["decay"]) + 3.5) ** 2 + config["x"] ** 2


def as_declared(config: dict[str, Any]) -> float:
    return 100.0 * (config["decay"] - 0.06) ** 2 + config["x"] ** 2


@pytest.mark.parametrize(
    ("loss", "log_share"), [(in_logarithms, 1.0 - FLOOR), (as_declared, FLOOR)]
)
def test_the_scaling_of_simple_losses_answers_all_asks_but_the_floor(
    loss: Any, log_share: float
) -> None:
    hedge = hedge_of(loss, 30)
    turns = [hedge.for_ask(index) is hedge.all[1] for index in range(300)]
    assert np.mean(turns) == pytest.approx(log_share, abs=0.01)
    assert hedge.most_likely() is hedge.all[int(log_share > 0.5)]


def test_beyond_the_evidence_rows_the_scaling_they_favor_answers_every_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hpo.models.log_scale_hedge.EVIDENCE_ROWS", 20)
    monkeypatch.setattr("hpo.models.refits.EVIDENCE_ROWS", 20)
    told = 0

    def changing(config: dict[str, Any]) -> float:
        nonlocal told
        told += 1
        return in_logarithms(config) if told <= 20 else as_declared(config)

    hedge = hedge_of(changing, 60)
    assert all(hedge.for_ask(index) is hedge.all[1] for index in range(30))
    assert hedge.most_likely() is hedge.all[1]


def test_before_any_loss_the_declared_scaling_answers_every_ask() -> None:
    hedge = LogScaleHedge(Encoder(DECAY), ScalingModel(), SurrogateChoice.AUTO)
    hedge.sync(TrialLog())
    assert all(hedge.for_ask(index) is hedge.declared for index in range(20))
    assert hedge.most_likely() is hedge.declared
    optimizer = Optimizer(DECAY, seed=0)
    for _ in range(8):
        prediction = optimizer.ask().prediction
        assert prediction is not None and prediction.reason is not None
        assert prediction.reason.log_parameters == ()


@pytest.mark.parametrize(
    "space",
    [
        {"decay": Float(1e-5, 0.1, log=True), "x": Float(0, 1)},
        {"decay": Float(1e-5, 0.1), "size": Scale(1.0, 100.0)},
    ],
)
def test_there_is_one_scaling_where_nothing_is_wide_or_the_space_has_scale_axes(
    space: dict[str, Parameter],
) -> None:
    hedge = LogScaleHedge(Encoder(SearchSpace(space)), ScalingModel(), SurrogateChoice.GP)
    assert [warp.log_parameters for warp in hedge.all] == [()]


@pytest.mark.parametrize("with_fidelity", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_a_wide_range_that_was_declared_linear_is_found(
    seed: int, with_fidelity: bool
) -> None:
    space: dict[str, Parameter] = dict(DECAY)
    if with_fidelity:
        space["epochs"] = Fidelity(1, 9)
    optimizer = Optimizer(space, seed=seed)
    for config in random_configs(DECAY, 12, seed=seed):
        whole = {"epochs": 9} if with_fidelity else {}
        optimizer.tell({**config, **whole}, in_logarithms(config))
    before = min(observation.config["decay"] for observation in optimizer.log.observations)
    seen = set()
    for _ in range(10):
        trial = optimizer.ask()
        optimizer.tell(trial, in_logarithms(trial.config))
        assert trial.prediction is not None and trial.prediction.reason is not None
        seen.add(trial.prediction.reason.log_parameters)
    result = optimizer.result()
    assert before > 2e-3  # random draws on the declared scale do not come near 10^-3.5
    assert result.best.config["decay"] == pytest.approx(10**-3.5, rel=0.2)
    assert ("decay",) in seen
    assert result.space == optimizer.space and not result.space["decay"].log  # type: ignore[union-attr]


def test_every_config_of_a_pool_is_asked_once_whatever_the_scaling() -> None:
    optimizer = Optimizer(DECAY, seed=0)
    pool = [{"decay": 10.0**-k, "x": x} for k in (1, 2, 3, 4, 5) for x in (-0.5, 0.0, 0.5)]
    asked = []
    for _ in range(15):
        trial = optimizer.ask(among=pool)
        optimizer.tell(trial, in_logarithms(trial.config))
        asked.append(trial.config)
    assert sorted(map(str, asked)) == sorted(map(str, pool))
