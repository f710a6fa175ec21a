"""Tools that people use beside Optuna: its visualizations, its dashboard, its hub."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from hpo import ASHA, Budget, Context, Fidelity, Float, MedianStopping, optimize
from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler

pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Plotly in Optuna
]
HUB = Path(__file__).parents[2] / "examples" / "optunahub" / "package"

optuna.logging.set_verbosity(optuna.logging.ERROR)


def sampler_study() -> optuna.Study:
    """Trials of every state, with conditions, from `study.optimize`."""

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if trial.suggest_categorical("kind", ["a", "b"]) == "a":
            x += trial.suggest_int("k", 0, 3)
        if trial.number == 4:
            raise RuntimeError("broken")
        for step in range(1, 5):
            trial.report(x + 1 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return x

    study = optuna.create_study(
        sampler=ScaleTuneSampler(seed=0), pruner=ScaleTunePruner(MedianStopping())
    )
    study.optimize(objective, n_trials=16, catch=(RuntimeError,))
    return study


def optimize_study() -> optuna.Study:
    """The study behind `optimize`, with pauses and promotions."""

    def train(config: dict[str, Any], ctx: Context) -> float:
        for epoch in range(1, ctx.fidelity + 1):  # type: ignore[operator]
            loss = (config["lr"] - 0.3) ** 2 + 1 / epoch
            ctx.report(step=epoch, loss=loss)
        return float(loss)

    space = {"lr": Float(0, 1), "wd": Float(1e-4, 1, log=True), "epochs": Fidelity(1, 9)}
    result = optimize(train, space, budget=Budget(trials=24), scheduler=ASHA())
    study = result.study
    assert isinstance(study, optuna.Study)
    return study


@pytest.fixture(scope="module")
def plotly() -> Any:
    return pytest.importorskip("plotly", reason="pip install plotly to run this")


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return pytest.importorskip(
        "optuna_dashboard", reason="pip install optuna-dashboard to run this"
    )


@pytest.fixture(scope="module", params=[sampler_study, optimize_study])
def study(request: pytest.FixtureRequest) -> optuna.Study:
    made: optuna.Study = request.param()
    return made


def drawn(name: str, study: optuna.Study, *more: Any) -> list[Any]:
    """Traces of one of Optuna's figures."""
    return list(getattr(optuna.visualization, name)(study, *more).data)


def points(trace: Any) -> int:
    return 0 if trace.x is None else len(trace.x)


def complete_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(states=[TrialState.COMPLETE])


def parameter_names(study: optuna.Study) -> set[str]:
    return {name for trial in study.trials for name in trial.params}


@pytest.mark.parametrize("name", ["plot_contour", "plot_rank"])
def test_plots_of_two_parameters_have_a_point_for_each_complete_trial(
    plotly: Any, study: optuna.Study, name: str
) -> None:
    scatters = [trace for trace in drawn(name, study) if trace.type == "scatter"]
    assert max(map(points, scatters)) == len(complete_trials(study))


def test_the_slice_plot_has_a_panel_for_each_parameter(plotly: Any, study: optuna.Study) -> None:
    having = [
        sum(name in trial.params for trial in complete_trials(study))
        for name in parameter_names(study)
    ]
    assert sorted(map(points, drawn("plot_slice", study))) == sorted(having)


def test_the_parallel_coordinates_have_a_line_for_each_complete_trial(
    plotly: Any, study: optuna.Study
) -> None:
    axes_and_lines = drawn("plot_parallel_coordinate", study)
    assert len(axes_and_lines) == 1 + len(complete_trials(study))


def test_the_history_shows_the_losses_of_complete_trials(plotly: Any, study: optuna.Study) -> None:
    (history,) = [
        trace for trace in drawn("plot_optimization_history", study) if "Objective" in trace.name
    ]
    assert list(history.y) == [trial.value for trial in complete_trials(study)]


def test_the_distribution_plot_ends_at_one(plotly: Any, study: optuna.Study) -> None:
    (curve,) = drawn("plot_edf", study)
    assert max(curve.y) == 1.0
    assert min(curve.x) == study.best_value


def test_the_intermediate_values_are_those_reported(plotly: Any, study: optuna.Study) -> None:
    reported = {
        f"Trial{trial.number}": list(trial.intermediate_values.values())
        for trial in study.trials
        if trial.intermediate_values
    }
    curves = {trace.name: list(trace.y) for trace in drawn("plot_intermediate_values", study)}
    assert curves == reported


def test_the_importances_are_shares_of_the_parameters(plotly: Any, study: optuna.Study) -> None:
    (bars,) = drawn("plot_param_importances", study)
    assert set(bars.y) <= parameter_names(study)
    assert sum(bars.x) == pytest.approx(1.0)


def test_the_timeline_has_a_bar_for_each_trial(plotly: Any, study: optuna.Study) -> None:
    assert sum(map(points, drawn("plot_timeline", study))) == len(study.trials)


@pytest.fixture(scope="module")
def two_objectives() -> optuna.Study:
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=ScaleTuneSampler(seed=0)
    )
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)), 8)
    return study


def test_the_pareto_plot_separates_the_best_trials(
    plotly: Any, two_objectives: optuna.Study
) -> None:
    beaten, best = drawn("plot_pareto_front", two_objectives)
    assert points(best) == len(two_objectives.best_trials)
    assert points(beaten) == 8 - len(two_objectives.best_trials)


def test_the_hypervolume_grows_with_the_trials(plotly: Any, two_objectives: optuna.Study) -> None:
    (curve,) = drawn("plot_hypervolume_history", two_objectives, [1.0, 0.0])
    assert len(curve.y) == 8
    assert np.all(np.diff(curve.y) >= 0) and curve.y[-1] > 0


def served(app: Any, path: str) -> tuple[str, bytes]:
    """Status and body that a WSGI app answers to GET `path`."""
    answered: dict[str, str] = {}

    def start(status: str, headers: Any, exc_info: Any = None) -> None:
        answered["status"] = status

    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }
    body = b"".join(app(environ, start))
    return answered["status"], body


@pytest.mark.filterwarnings("ignore")  # the dashboard's own
def test_the_dashboard_serves_our_studies(dashboard: Any, study: optuna.Study) -> None:
    app = dashboard.wsgi(study._storage)
    status, body = served(app, "/api/studies")
    assert status.startswith("200")
    (summary,) = json.loads(body)["study_summaries"]
    status, body = served(app, f"/api/studies/{summary['study_id']}")
    assert status.startswith("200")
    detail = json.loads(body)
    assert len(detail["trials"]) == len(study.trials)
    assert {p["name"] for p in detail["union_search_space"]} == parameter_names(study)
    status, page = served(app, "/dashboard")
    assert status.startswith("200") and b"<html" in page.lower()


@pytest.mark.filterwarnings("ignore")  # imports of others
def test_the_hub_package_loads_and_samples() -> None:
    optunahub = pytest.importorskip("optunahub", reason="pip install 'scaletune[hub]' to run this")
    module = optunahub.load_local_module(package="samplers/scaletune", registry_root=str(HUB))
    study = optuna.create_study(sampler=module.ScaleTuneSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=6)
    assert study.best_value < 0.3


def test_the_hub_package_has_the_files_and_headings_that_the_registry_asks_for() -> None:
    folder = HUB / "samplers" / "scaletune"
    assert {"LICENSE", "README.md", "__init__.py", "example.py"} <= {
        path.name for path in folder.iterdir()
    }
    front, _, text = (folder / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    keys = [line.partition(":")[0] for line in front.splitlines()]
    assert keys == ["author", "title", "description", "tags", "optuna_versions", "license"]
    assert "sampler" in front
    for heading in ("Abstract", "APIs", "Installation", "Example"):
        assert f"\n## {heading}\n" in text
    assert "<" not in text.replace("<2", "")  # the registry takes no HTML


def test_the_hub_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (HUB / "samplers" / "scaletune" / "example.py").read_text()
    pytest.importorskip("optunahub", reason="pip install 'scaletune[hub]' to run this")
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(text, "example.py", "exec"), names)
    study = optuna.create_study(sampler=ScaleTuneSampler(cost="flops", seed=0))
    study.optimize(names["objective"], n_trials=8)
    assert len(study.trials) == 8
