"""Runs of other tools' own records: Optuna studies, W&B runs and MLflow runs."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hpo.errors import SpaceError
from hpo.space import Categorical, Float, Int, Parameter, SearchSpace
from hpo.space.optuna_distributions import from_distribution
from hpo.trials.attributes import read as read_attribute
from hpo.trials.read_runs.errors import RunFileError
from hpo.trials.read_runs.tables import Table, of_frame, of_records

if TYPE_CHECKING:
    import optuna

__all__ = ["is_tracked_run", "of_mlflow", "of_optuna", "of_optuna_storage", "of_tracked_runs"]

PARAMS, ATTRS = "params_", "user_attrs_"  # as in Optuna's `trials_dataframe`
_OURS = "scaletune:"  # attributes of our own studies
_HEADER, _TOLD, _LOST = (f"{_OURS}{name}" for name in ("study", "told", "lost"))


def of_optuna(study: optuna.Study) -> Table:
    """Return the trials of an Optuna study of any sampler, with the parameters it declares.

    Args:
        study: Study with one objective or several.

    Raises:
        RunFileError: If it has no trial, or a distribution without a counterpart.

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study()
        >>> study.optimize(lambda trial: trial.suggest_float("lr", 1e-4, 1e-1, log=True), 3)
        >>> table = of_optuna(study)
        >>> table.declared
        {'params_lr': Float(low=0.0001, high=0.1, log=True, logit=False, center=None, \
spread=None, hard=False, role=<Role.OTHER: 'other'>, when=None)}
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    name = f"study {study.study_name!r}"
    if not trials:
        raise RunFileError(f"{name} has no trials; run some first")
    names = study.metric_names or [f"values_{k}" for k in range(len(study.directions))]
    one = len(study.directions) == 1
    records = []
    for trial in trials:
        values: list[float | None] = list(trial.values or [None] * len(names))
        if one and values[0] is None and trial.state is TrialState.PRUNED:
            steps = trial.intermediate_values
            values[0] = steps[max(steps)] if steps else None
        if one and trial.state is TrialState.FAIL and values[0] is None:
            last = trial.intermediate_values
            if last and not math.isfinite(last[max(last)]):
                values[0] = math.nan  # it diverged before it failed
        records.append(
            {f"{PARAMS}{key}": value for key, value in trial.params.items()}
            | dict(zip(["value"] if one else names, values, strict=True))
            | {"state": trial.state.name, "duration": trial.duration}
            | {
                f"{ATTRS}{key}": value
                for key, value in trial.user_attrs.items()
                if not key.startswith(_OURS)
            }
        )
    if (header := read_attribute(study.user_attrs, _HEADER)) is not None:
        return _of_ours(name, trials, header)
    table = of_records(
        records,
        name,
        lambda i: f"trial {trials[i].number}",
        declared=_declared(name, trials),
        loss="value" if one else None,
        direction=None if not one else study.directions[0].name.lower(),
    )
    columns = {column: cells for column, cells in table.columns.items() if column}
    if not one:
        listed = ", ".join(names)
        table = replace(table, notes=(f"{len(names)} objectives: {listed}",))
    return replace(table, columns=columns)


def _of_ours(name: str, trials: Sequence[Any], header: Mapping[str, Any]) -> Table:
    """Return the trials of a study of `optimize`, with its space; lost attempts are none."""
    records, numbers = [], []
    for trial in trials:
        if _LOST in trial.user_attrs:
            continue
        told = read_attribute(trial.user_attrs, _TOLD)
        state, loss = trial.state.name, trial.values[0] if trial.values else None
        record: dict[str, Any] = {f"{PARAMS}{key}": value for key, value in trial.params.items()}
        if told is not None:
            state, loss = told["cause"] or told["status"], told["loss"]
            record |= {"seconds": told["seconds"], header["cost"] or "cost": told["cost"]}
        elif trial.state.is_finished() and not trial.values:
            continue  # an attempt without a result
        records.append(record | {"value": loss, "state": state})
        numbers.append(trial.number)
    return of_records(
        records,
        name,
        lambda i: f"trial {numbers[i]}",
        space=SearchSpace.from_fingerprint(header["space"]),
        loss="value",
        direction=header["direction"],
        cost=header["cost"] or "none",
    )


def of_optuna_storage(storage: Any, study_name: str | None) -> Table:
    """Return the trials of a study in an Optuna storage.

    Args:
        storage: Storage or its URL.
        study_name: Name of the study; None for the only one.

    Raises:
        RunFileError: If the storage cannot be read, or has no such study.

    Example:
        >>> import optuna
        >>> storage = optuna.storages.InMemoryStorage()
        >>> study = optuna.create_study(storage=storage, study_name="mine")
        >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1), 2)
        >>> len(of_optuna_storage(storage, None))
        2
    """
    import optuna
    from optuna.exceptions import StorageInternalError

    shown = _without_password(storage)
    try:
        if isinstance(storage, str) and storage.startswith("sqlite:///"):
            _check_file(storage)
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
        if study_name is None and len(names) == 1:
            study_name = names[0]
        if study_name is None or study_name not in names:
            wanted = "needs a study name" if study_name is None else f"has no study {study_name!r}"
            raise RunFileError(f"{shown} {wanted}; it has {names}, name one with study_name=")
        return of_optuna(optuna.load_study(study_name=study_name, storage=storage))
    except RunFileError:
        raise
    except (StorageInternalError, ImportError, ValueError, KeyError, RuntimeError) as error:
        raise RunFileError(f"{shown} cannot be read as an Optuna storage: {error}") from None
    except Exception as error:  # databases have many
        if type(error).__module__.startswith("sqlalchemy"):
            said = str(error).splitlines()[0]
            raise RunFileError(f"{shown} cannot be read as an Optuna storage: {said}") from None
        raise


def is_tracked_run(run: object) -> bool:
    """Return whether this is a run of W&B's or MLflow's API.

    Example:
        >>> from types import SimpleNamespace
        >>> is_tracked_run(SimpleNamespace(config={"lr": 0.1}, summary={"loss": 2.5}))
        True
    """
    if isinstance(run, Mapping | str):
        return False
    wandb = hasattr(run, "config") and hasattr(run, "summary")
    return wandb or (hasattr(run, "data") and hasattr(run, "info"))


def of_tracked_runs(runs: Iterable[Any], name: str) -> Table:
    """Return the table of runs as W&B's `Api().runs(..)` or MLflow's client has them.

    Args:
        runs: Runs of one of the two.
        name: Name of the source.

    Example:
        >>> from types import SimpleNamespace
        >>> run = SimpleNamespace(
        ...     config={"lr": 0.1}, summary={"val/loss": 2.5}, state="finished", name="blue-sea-1"
        ... )
        >>> of_tracked_runs([run], "x").columns
        {'Name': ['blue-sea-1'], 'State': ['finished'], 'config.lr': [0.1], 'val/loss': [2.5]}
    """
    runs = list(runs)
    return of_records(map(_record, runs), name, lambda i: f"run {_name(runs[i], i)}")


def of_wandb(path: str) -> Table:
    """Return the runs of a W&B project, `entity/project`."""
    try:
        import wandb
    except ImportError:
        raise RunFileError(
            f"wandb:{path} needs W&B's package; run: pip install wandb, or export the runs as CSV"
        ) from None
    try:
        runs = list(wandb.Api().runs(path))
    except Exception as error:  # of the network, the login or the project
        raise RunFileError(f"wandb:{path} cannot be read: {error}") from None
    if not runs:
        raise RunFileError(f"wandb:{path} has no runs; write wandb:entity/project")
    return of_tracked_runs(runs, f"wandb:{path}")


def of_mlflow(experiment: str) -> Table:
    """Return the runs of an MLflow experiment, by its name."""
    try:
        import mlflow
    except ImportError:
        raise RunFileError(
            f"mlflow:{experiment} needs MLflow; run: pip install mlflow, or export the runs as CSV"
        ) from None
    try:
        frame = mlflow.search_runs(experiment_names=[experiment])
    except Exception as error:  # of the network, the login or the experiment
        raise RunFileError(f"mlflow:{experiment} cannot be read: {error}") from None
    if not len(frame):
        raise RunFileError(f"mlflow:{experiment} has no runs; name an experiment with some")
    return of_frame(frame, f"mlflow:{experiment}")


def _record(run: Any) -> dict[str, Any]:
    if hasattr(run, "data"):  # of MLflow
        info, data = run.info, run.data
        start, end = (getattr(info, key, None) for key in ("start_time", "end_time"))
        timed = {} if start is None or not end else {"duration": (end - start) / 1000.0}
        params = {f"params.{key}": value for key, value in dict(data.params).items()}
        metrics = {f"metrics.{key}": value for key, value in dict(data.metrics).items()}
        state = getattr(info, "status", None)
        return {"run_id": getattr(info, "run_id", None), "status": state} | params | metrics | timed
    summary = getattr(run.summary, "_json_dict", run.summary)
    record: dict[str, Any] = {"Name": getattr(run, "name", None)}
    record["State"] = getattr(run, "state", None)
    record |= {f"config.{key}": value for key, value in dict(run.config).items() if key[:1] != "_"}
    for key, value in dict(summary).items():
        if key == "_runtime":
            record["Runtime"] = value
        elif key == "_wandb":
            record.setdefault("Runtime", dict(value).get("runtime"))
        elif key[:1] != "_":
            record[key] = value
    return record


def _name(run: Any, place: int) -> str:
    for holder in (run, getattr(run, "info", None)):
        for attribute in ("name", "run_name", "id", "run_id"):
            if isinstance(name := getattr(holder, attribute, None), str) and name:
                return name
    return str(place)


def _declared(name: str, trials: Iterable[Any]) -> dict[str, Parameter]:
    """Return the parameters of the trials' distributions, as wide as any of them."""
    found: dict[str, Parameter] = {}
    for trial in trials:
        for key, distribution in trial.distributions.items():
            column = f"{PARAMS}{key}"
            try:
                parameter = from_distribution(distribution)
            except SpaceError as error:
                raise RunFileError(f"{name}: `{key}`: {error}") from None
            known = found.get(column)
            found[column] = parameter if known is None else _wider(known, parameter)
    return found


def _wider(first: Parameter, second: Parameter) -> Parameter:
    """Return the parameter that has the values of both."""
    if first == second:
        return first
    if isinstance(first, Categorical) and isinstance(second, Categorical):
        more = [choice for choice in second.choices if choice not in first.choices]
        return replace(first, choices=(*first.choices, *more))
    if (isinstance(first, Float) and isinstance(second, Float)) or (
        isinstance(first, Int) and isinstance(second, Int)
    ):
        ends = (*first.limits, *second.limits)
        changes: dict[str, Any] = {"low": min(ends), "high": max(ends)}
        changes["log"] = first.log and second.log
        if isinstance(first, Int):
            changes["multiple_of"] = 1
        return replace(first, **changes)
    return second


def _without_password(storage: object) -> str:
    if not isinstance(storage, str):
        return f"the {type(storage).__name__}"
    scheme, mark, rest = storage.partition("://")
    if "@" in rest:
        rest = f"...@{rest.rpartition('@')[2]}"
    return f"{scheme}{mark}{rest.partition('?')[0]}"


def _check_file(url: str) -> None:
    """Refuse an SQLite file that does not exist: opening it would make one."""
    from pathlib import Path

    path = url.removeprefix("sqlite:///").partition("?")[0]
    if path and path != ":memory:" and not Path(path).is_file():
        raise RunFileError(f"there is no file {path}; give the URL of a storage with studies")


def is_optuna(source: object, name: str) -> bool:
    """Return whether `source` is an instance of a class of Optuna, which is not imported for it."""
    optuna = sys.modules.get("optuna")
    if optuna is None:
        return False
    kind = optuna.Study if name == "Study" else optuna.storages.BaseStorage
    return isinstance(source, kind)
