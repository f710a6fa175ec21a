r"""The Hydra sweeper: spaces from sweep overrides, batches of jobs, results on disk.

    python train.py -m hydra/sweeper=scaletune hydra.sweeper.n_trials=40 \
        'lr=tag(log, interval(1e-4, 1e-1))' 'optimizer=choice(adamw, lion)' 'layers=range(2, 9)'

The job returns its loss, or a dict with "loss" and perhaps "cost". Hydra launches a batch of jobs,
waits for all of them, and has no channel back from a running job, so no job is stopped early.

=======================  ==========================================================================
`choice(a, b)`           Categorical; `tag(ordered, choice(...))` an ordinal
`range(a, b[, step])`    Int, `b` excluded, as in Python; an ordinal off the multiples of `step`
`interval(a, b)`         Float; `int(interval(a, b))` an Int
tags                     log, logit, ordered, scale, and the roles of `hpo.Role`, such as lr
=======================  ==========================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from hpo.errors import SpaceError, StudyError
from hpo.optimizer.ask_tell import Optimizer
from hpo.space import Categorical, Float, Int, Parameter, Role, Scale
from hpo.trials import Cause, Status, Trial

__all__ = ["parameter_of", "sweep"]

_log = logging.getLogger(__name__)


def sweep(
    arguments: Sequence[str],
    *,
    params: Mapping[str, str],
    context: HydraContext,
    config: DictConfig,
    launcher: Launcher,
    trials: int,
    jobs: int,
    direction: Literal["minimize", "maximize"],
    cost: str | None,
    target: Mapping[str, float] | None,
    seed: int,
    max_failure_rate: float,
) -> None:
    """Run a sweep and write `optimization_results.yaml` in its folder.

    Args:
        arguments: Overrides of the command line; they take precedence over `params`.
        params: Sweep overrides of the sweeper's config, by parameter name.
        context: Hydra's context.
        config: Hydra's config of the sweep.
        launcher: Launcher of the jobs.
        trials: Number of jobs.
        jobs: Number of jobs in a batch.
        direction: Direction of the loss.
        cost: Unit of the costs; None if they do not matter.
        target: Scale values to train at in the end.
        seed: Seed of every random choice.
        max_failure_rate: Share of failed jobs above which the sweep ends with an error.

    Raises:
        SpaceError: For an override that describes no parameter.
        StudyError: When more than `max_failure_rate` of the jobs so far have failed.
    """
    texts = [*(f"{name}={value}" for name, value in params.items()), *arguments]
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(texts)
    space: dict[str, Parameter] = {}
    fixed: list[str] = []
    for override in overrides:
        name = override.get_key_element()
        if override.is_sweep_override():
            space[name] = parameter_of(override)
        else:
            space.pop(name, None)  # the command line comes last and wins
            fixed.append(f"{name}={override.get_value_element_as_str()}")
    if not space:
        raise SpaceError(
            "the sweep has no parameter to search; add an override such as "
            "'lr=tag(log, interval(1e-4, 1e-1))'"
        )
    engine = Optimizer(space, direction=direction, cost=cost, target=target, seed=seed)
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")
    done = failed = 0
    while done < trials:
        batch = [engine.ask() for _ in range(min(jobs, trials - done))]
        returns = launcher.launch(
            [[*fixed, *_overrides(trial)] for trial in batch], initial_job_idx=done
        )
        for trial, job in zip(batch, returns, strict=True):
            failed += not _tell(engine, trial, job)
        done += len(batch)
        if failed > max_failure_rate * done:
            _write(engine, folder / "optimization_results.yaml", target)
            raise StudyError(
                f"{failed} of {done} jobs have failed, more than max_failure_rate="
                f"{max_failure_rate}; see their logs in {folder}, or raise the rate"
            )
    _write(engine, folder / "optimization_results.yaml", target)


def parameter_of(override: Override) -> Parameter:
    """Return the parameter that a sweep override describes.

    Args:
        override: Override such as `x=interval(0.0, 1.0)`, parsed by Hydra.

    Raises:
        SpaceError: For a sweep that has no parameter, such as `glob(*)`, or an unknown tag.

    Example:
        Needs the extra `hydra`::

            parser = OverridesParser.create()
            parameter_of(parser.parse_override("lr=tag(log, lr, interval(1e-4, 1e-1))"))
            # Float(0.0001, 0.1, log=True, role=Role.LR)
    """
    value, name = override.value(), override.get_key_element()
    tags = set(getattr(value, "tags", ()))
    roles = {role.value: role for role in Role}
    role = next((roles[tag] for tag in tags if tag in roles), Role.OTHER)
    unknown = tags - {"log", "logit", "hard", "ordered", "scale", *roles}
    if unknown:
        raise SpaceError(
            f"`{name}` has unknown tags {sorted(unknown)}; use log, logit, hard, "
            f"ordered, scale or one of {sorted(roles)}"
        )
    if isinstance(value, ChoiceSweep):
        choices = [_plain(choice) for choice in value.list]
        return Categorical(choices, ordered="ordered" in tags, role=role)
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if "scale" in tags:
            return Scale(low, high)
        if isinstance(low, int) and isinstance(high, int):
            return Int(low, high, log="log" in tags, hard="hard" in tags, role=role)
        return Float(
            low, high, log="log" in tags, logit="logit" in tags, hard="hard" in tags, role=role
        )
    if isinstance(value, RangeSweep):
        return _range(value, name, role, hard="hard" in tags)
    raise SpaceError(
        f"`{name}` must be choice(...), range(...) or interval(...), got "
        f"{override.get_value_element_as_str()}; tags go around it: tag(log, interval(1e-4, 1e-1))"
    )


def _range(value: RangeSweep, name: str, role: Role, *, hard: bool) -> Parameter:
    start, stop, step = value.start, value.stop, value.step
    if start is None or stop is None or step <= 0 or start >= stop:
        raise SpaceError(f"`{name}` must be range(start, stop, step) with start < stop, step > 0")
    count = int(-(-(stop - start) // step))
    grid = [start + k * step for k in range(count)]
    if all(isinstance(v, int) for v in (start, stop, step)) and start % step == 0:
        return Int(start, grid[-1], multiple_of=step, hard=hard, role=role)
    return Categorical(grid, ordered=True, role=role)


def _plain(choice: Any) -> Any:
    """A parsed choice as the value it stands for; quoted strings lose their quotes."""
    text = getattr(choice, "text", choice)
    if not isinstance(text, str | int | float | bool | None):
        raise SpaceError(
            f"choices must be strings, numbers, booleans or null, got {choice!r}; use strings"
        )
    return text


def _overrides(trial: Trial) -> list[str]:
    return [f"{name}={_text(value)}" for name, value in trial.config.items()]


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tell(engine: Optimizer, trial: Trial, job: Any) -> bool:
    """Tell how a job ended; return whether it has a loss."""
    if job.status is not JobStatus.COMPLETED:
        engine.tell(trial, failed=Cause.ERROR)
        return False
    returned = job.return_value
    loss, cost = returned, None
    if isinstance(returned, Mapping):
        loss, cost = returned.get("loss"), returned.get("cost")
    if loss is None:
        raise StudyError(
            f"the job must return its loss, got {returned!r}; end it with `return loss` or "
            '`return {"loss": loss, "cost": cost}`'
        )
    return engine.tell(trial, loss, cost).cause is None


def _write(engine: Optimizer, path: Path, target: Mapping[str, float] | None) -> None:
    found: dict[str, Any] = {"name": "scaletune"}
    if any(o.status is Status.COMPLETED for o in engine.log.observations):
        best = engine.result().best
        found |= {"best_params": best.config, "best_value": best.loss}
        if engine.space.scales:
            found["recommended"] = engine.recommend(target).config
        _log.info("best of %d jobs: %s with %s", len(engine.log), best.loss, best.config)
    else:
        _log.warning("none of %d jobs was completed, so %s has no best", len(engine.log), path.name)
    OmegaConf.save(OmegaConf.create(found), path)
