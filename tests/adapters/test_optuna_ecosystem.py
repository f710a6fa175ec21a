"""What people use beside Optuna: its visualisations, its dashboard, its hub."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo import ASHA, Budget, Context, Fidelity, Float, MedianStopping, optimize
from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler

HUB = Path(__file__).parents[2] / "examples" / "optunahub" / "package"

optuna.logging.set_verbosity(optuna.logging.ERROR)


def guest_study() -> optuna.Study:
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


def house_study() -> optuna.Study:
    """The study behind `optimize`, with pauses and promotions."""

    def train(config: dict[str, Any], ctx: Context) -> float:
        for epoch in range(1, ctx.fidelity + 1):  # type: ignore[operator]
            loss = (config["lr"] - 0.3) ** 2 + 1 / epoch
            ctx.report(step=epoch, loss=loss)
        return float(loss)

    space = {"lr": Float(0, 1), "wd": Float(1e-4, 1, log=True), "epochs": Fidelity(1, 9)}
    result = optimize(train, space, budget=Budget(trials=48), scheduler=ASHA())
    study = result.study
    assert isinstance(study, optuna.Study)
    return study


@pytest.fixture(scope="module", params=[guest_study, house_study])
def study(request: pytest.FixtureRequest) -> optuna.Study:
    made: optuna.Study = request.param()
    return made


PLOTS = [
    "plot_contour",
    "plot_edf",
    "plot_intermediate_values",
    "plot_optimization_history",
    "plot_parallel_coordinate",
    "plot_param_importances",
    "plot_rank",
    "plot_slice",
    "plot_timeline",
]


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Plotly in Optuna
def test_every_visualisation_of_optuna_draws_our_studies(study: optuna.Study, name: str) -> None:
    pytest.importorskip("plotly")
    figure = getattr(optuna.visualization, name)(study)
    assert figure.data


@pytest.mark.parametrize("name", ["plot_pareto_front", "plot_hypervolume_history"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_visualisations_of_several_objectives_draw_ours(name: str) -> None:
    pytest.importorskip("plotly")
    study = optuna.create_study(
        directions=["minimize", "maximize"], sampler=ScaleTuneSampler(seed=0)
    )
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)), 8)
    more = [[1.0, 0.0]] if name == "plot_hypervolume_history" else []
    figure = getattr(optuna.visualization, name)(study, *more)
    assert figure.data


def served(app: Any, path: str) -> tuple[str, bytes]:
    """Status and body that a WSGI app answers to GET `path`."""
    import io

    said: dict[str, str] = {}

    def start(status: str, headers: Any, exc_info: Any = None) -> None:
        said["status"] = status

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
    return said["status"], body


@pytest.mark.filterwarnings("ignore")  # the dashboard's own
def test_the_dashboard_serves_our_studies(study: optuna.Study) -> None:
    dashboard = pytest.importorskip(
        "optuna_dashboard", reason="pip install optuna-dashboard to run this"
    )
    app = dashboard.wsgi(study._storage)
    status, body = served(app, "/api/studies")
    assert status.startswith("200")
    (summary,) = json.loads(body)["study_summaries"]
    status, body = served(app, f"/api/studies/{summary['study_id']}")
    assert status.startswith("200")
    detail = json.loads(body)
    assert len(detail["trials"]) == len(study.trials)
    assert {p["name"] for p in detail["union_search_space"]} == {
        n for t in study.trials for n in t.params
    }
    page, html = served(app, "/dashboard")
    assert page.startswith("200") and b"<html" in html.lower()


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
