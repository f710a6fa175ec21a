"""FT-PFN through the real package, with weights whose answer is known: the last value of each run.

The trained weights cannot be had here. The stand-in is a module in the file the package loads, so
everything but the trained network is real: tokens, readings, histograms, ids of runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ifbo", reason="pip install 'scaletune[ftpfn]' to run this")

import torch  # noqa: E402
from ifbo.bar_distribution import FullSupportBarDistribution  # noqa: E402
from ifbo.download import FILENAME, WEIGHTS_FINAL_NAME  # noqa: E402

from hpo import (  # noqa: E402
    Budget,
    Categorical,
    Context,
    Fidelity,
    Float,
    FreezeThaw,
    Scale,
    SearchSpace,
    SpaceError,
    optimize,
)
from hpo.adapters.ftpfn import FTPFN, FTPFNForecast  # noqa: E402
from hpo.schedulers import Forecast  # noqa: E402
from hpo.schedulers.base import Setup  # noqa: E402
from hpo.space import Direction  # noqa: E402
from hpo.trials import Observation, RungAssignment, Status, Trial, TrialLog
from surrogates.interop.ftpfn import FTPFNetwork  # noqa: E402
from surrogates.learning_curves import Curve  # noqa: E402

pytestmark = pytest.mark.guests
HIGH = 27
SPACE = SearchSpace(
    {
        "x": Float(0.0, 1.0),
        "kind": Categorical(["a", "b", "c"]),
        "epochs": Fidelity(1, HIGH),
    }
)


class LastValue(torch.nn.Module):
    """All mass on the bar of the run's value at its highest level; all bars without one."""

    def __init__(self) -> None:
        super().__init__()
        self.criterion = FullSupportBarDistribution(torch.linspace(0.0, 1.0, 1001))

    def forward(
        self, told: tuple[torch.Tensor, torch.Tensor], single_eval_pos: int
    ) -> torch.Tensor:
        x, y = told[0][:, 0], told[1][:, 0]
        logits = torch.zeros(len(x) - single_eval_pos, 1, 1000)
        for row, asked in enumerate(x[single_eval_pos:]):
            assert asked[1] == 1.0
            mine = (x[:single_eval_pos, 0] == asked[0]).nonzero()[:, 0]
            if len(mine):
                assert torch.equal(x[mine[0], 2:], asked[2:])
                last = mine[x[mine, 1].argmax()]
                logits[row, 0, min(int(1000 * y[last]), 999)] = 50.0
        return logits


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / ".model").mkdir()
    (tmp_path / ".model" / FILENAME("0.0.1")).touch()
    torch.save(LastValue(), tmp_path / ".model" / WEIGHTS_FINAL_NAME("0.0.1"))
    return tmp_path


def curves(*values: Sequence[float]) -> list[Curve]:
    return [Curve(np.arange(1.0, len(v) + 1.0), np.array(v)) for v in values]


def test_ends_come_back_in_the_units_of_the_losses(weights: Path) -> None:
    told = curves([900.0, 700.0, 500.0], [900.0, 800.0], [910.0, 600.0, 400.0])
    X = np.array([[0.1], [0.5], [0.9]])
    ends = FTPFNetwork(weights).predict_ends(X, told, np.array([2, 0]), 3)
    for end, last in zip(ends, (400.0, 500.0), strict=True):
        assert end.quantile(0.5)[0] == pytest.approx(last, abs=1.0)
        assert end.quantile(0.05)[0] <= end.quantile(0.95)[0]
        assert end.probability_below(last + 5.0)[0] == pytest.approx(1.0, abs=1e-3)
        assert end.probability_below(last - 5.0)[0] == pytest.approx(0.0, abs=1e-3)


def test_a_run_without_reports_gets_a_wide_interval(weights: Path) -> None:
    told = curves([0.9, 0.5], [])
    end = FTPFNetwork(weights).predict_ends(np.array([[0.1], [0.5]]), told, np.array([1]), 9)[0]
    low, high = end.quantile(0.05)[0], end.quantile(0.95)[0]
    assert high - low > 0.8 * (0.9 - 0.5)


def test_more_runs_and_reports_than_fit_keep_those_asked_about(weights: Path) -> None:
    values = [list(np.linspace(5.0, 1.0 + 7 * i % 1500 / 1500, 12)) for i in range(1500)]
    asked = np.array([3, 1400])
    ends = FTPFNetwork(weights).predict_ends(
        np.linspace(0, 1, 1500)[:, None], curves(*values), asked, 12
    )
    for run, end in zip(asked, ends, strict=True):
        assert end.quantile(0.5)[0] == pytest.approx(values[run][-1], abs=0.01)


@pytest.mark.parametrize(
    "values", [[0.5, 0.5, 0.5], [0.0, 0.0], [-3.0], [1e300, 1e-300], [2.0, 2.0, 1.0]]
)
def test_constant_and_extreme_losses_are_read(weights: Path, values: list[float]) -> None:
    end = FTPFNetwork(weights).predict_ends(np.array([[0.5]]), curves(values), np.array([0]), 9)[0]
    assert np.isfinite(end.quantile(0.5)[0])
    assert 0.0 <= end.probability_below(values[-1])[0] <= 1.0


def placed(log: TrialLog, config: dict[str, object], level: int, loss: float) -> int:
    config = {**config, "epochs": HIGH}
    trial = Trial(log.next_number, config, log.next_ask_index, None, None, RungAssignment(level))
    log.add(trial)
    status = Status.COMPLETED if level == HIGH else Status.PAUSED
    log.tell(
        Observation(trial.number, config, loss, 1.0, status, None, log.next_order, trial.ask_index)
    )
    return trial.number


def begun(weights: Path, direction: Direction = Direction.MINIMIZE) -> Forecast:
    return FTPFN(weights).begin(Setup(SPACE, direction, 0, None))


@pytest.mark.parametrize("direction", Direction)
def test_the_run_that_will_beat_the_best_is_probably_the_best_in_either_direction(
    weights: Path, direction: Direction
) -> None:
    log = TrialLog()
    for x, loss in ((0.1, 1.0), (0.2, 1.2), (0.3, 0.9)):
        placed(log, {"x": x, "kind": "c"}, HIGH, direction.sign * loss)
    better = placed(log, {"x": 0.4, "kind": "a"}, 9, direction.sign * 0.8)
    worse = placed(log, {"x": 0.5, "kind": "b"}, 9, direction.sign * 1.1)
    assert begun(weights, direction).probability_of_best(log, [better, worse]) == pytest.approx(
        [1.0, 0.0], abs=0.01
    )


def train(config: dict[str, Any], ctx: Context) -> dict[str, float]:
    start = ctx.load() or 0
    assert ctx.fidelity is not None
    loss = 1.0
    for epoch in range(start + 1, ctx.fidelity + 1):
        loss = (config["x"] - 0.7) ** 2 + 0.1 * (config["kind"] != "b") + 1.0 / epoch
        ctx.report(step=epoch, loss=loss, cost=float(epoch))
    ctx.save(ctx.fidelity)
    return {"loss": loss, "cost": float(ctx.fidelity)}


def test_a_study_with_its_forecasts_finds_a_good_config(weights: Path) -> None:
    scheduler = FreezeThaw(forecaster=FTPFN(weights))
    assert str(weights) not in repr(scheduler)
    result = optimize(
        train, SPACE, scheduler=scheduler, cost="epochs", budget=Budget(cost=80), seed=1
    )
    assert result.best.loss is not None and result.best.loss < 0.3


def test_spaces_and_weights_that_cannot_be_read_are_refused(weights: Path, tmp_path: Path) -> None:
    many = SearchSpace({f"x{i}": Float(0, 1) for i in range(11)} | {"epochs": Fidelity(1, 9)})
    with pytest.raises(SpaceError, match="at most 10 columns, this space has 11"):
        FTPFN(weights).begin(Setup(many, Direction.MINIMIZE, 0, None))
    with pytest.raises(SpaceError, match="Fidelity"):
        FTPFN(weights).begin(Setup(SearchSpace({"x": Float(0, 1)}), Direction.MINIMIZE, 0, None))
    with pytest.raises(FileNotFoundError, match="downloads it"):
        FTPFN(tmp_path / "elsewhere").begin(Setup(SPACE, Direction.MINIMIZE, 0, None))
    with pytest.raises(ValueError, match="finite report"):
        FTPFNetwork(weights).predict_ends(np.zeros((1, 1)), curves([]), np.array([0]), 9)


def test_scale_values_are_columns_of_the_network(weights: Path) -> None:
    space = SearchSpace({**SPACE, "params": Scale(1e5, 1e7)})
    forecast = FTPFN(weights).begin(Setup(space, Direction.MINIMIZE, 0, None))
    assert isinstance(forecast, FTPFNForecast)
    configs = [
        {"x": x, "kind": kind, "params": params, "epochs": HIGH}
        for x, kind, params in ((0.25, "a", 1e5), (1.0, "b", 1e6), (0.5, "c", 1e7))
    ]
    columns = forecast.columns(configs)
    assert columns.shape == (3, 3)  # x, kind and params; the fidelity is not a column
    assert sorted(map(tuple, columns.T.round(6))) == [
        (0.0, 0.5, 1.0),  # kind
        (0.0, 0.5, 1.0),  # ln params
        (0.25, 1.0, 0.5),  # x
    ]
