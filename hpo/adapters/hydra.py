r"""The Hydra sweeper: spaces from sweep overrides, batches of jobs, results on disk.

    python train.py -m hydra/sweeper=scaletune hydra.sweeper.n_trials=40 \
        'lr=tag(log, interval(1e-4, 1e-1))' 'optimizer=choice(adamw, lion)' 'layers=range(2, 9)'

The job returns its loss, or a dict with "loss" and perhaps "cost". Hydra launches a batch of jobs,
waits for all of them, and has no channel back from a running job, so no job is stopped early.

=======================  ==========================================================================
`choice(a, b)`           Categorical; `tag(ordered, choice(...))` an ordinal. Choices are whatever
                         Hydra reads, lists and dicts too, and keep their types
`range(a, b[, step])`    Int, `b` excluded, as in Python; an ordinal off the multiples of `step`
`interval(a, b)`         Float; `int(interval(a, b))` an Int
tags                     log, logit, ordered, scale, and the roles of `hpo.Role`, such as lr
=======================  ==========================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)
from hydra.core.utils import JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from hpo.errors import SpaceError, StudyError
from hpo.optimizer.ask_tell import Optimizer
from hpo.space import Categorical, Float, Int, Parameter, Role, Scale
from hpo.space.scalars import scalar
from hpo.trials import Cause, Status, Trial

__all__ = ["override_text", "parameter_of", "sweep"]

_KEY_SPECIAL = "\\()[]{}:=, \t"  # what Hydra's grammar escapes by a backslash

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
    choices: dict[str, list[Any]] = {}
    fixed: list[str] = []
    for override in overrides:
        name = override.get_key_element()
        choices.pop(name, None)
        if not override.is_sweep_override():
            space.pop(name, None)  # the command line comes last and wins
            fixed.append(override.input_line or "")
            continue
        space[name] = parameter_of(override)
        value = override.value()
        if isinstance(value, ChoiceSweep):
            choices[name] = [_plain(choice) for choice in value.list]
    if not space:
        raise SpaceError(
            "the sweep has no parameter to search; add an override such as "
            "'lr=tag(log, interval(1e-4, 1e-1))'"
        )
    engine = Optimizer(space, direction=direction, cost=cost, target=target, seed=seed)
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "multirun.yaml")

    def job_config(config: Mapping[str, Any]) -> dict[str, Any]:
        """A config of the engine with the values that jobs get."""
        found = dict(config)
        for name, values in choices.items():
            if name in found:
                found[name] = values[_index(space[name], found[name])]
        return found

    done = failed = 0
    while done < trials:
        batch = [engine.ask() for _ in range(min(jobs, trials - done))]
        returns = launcher.launch(
            [[*fixed, *_overrides(job_config(trial.config))] for trial in batch],
            initial_job_idx=done,
        )
        for trial, job in zip(batch, returns, strict=True):
            failed += not _tell(engine, trial, job)
        done += len(batch)
        if failed > max_failure_rate * done:
            _write(engine, folder / "optimization_results.yaml", target, job_config)
            raise StudyError(
                f"{failed} of {done} jobs have failed, more than max_failure_rate="
                f"{max_failure_rate}; see their logs in {folder}, or raise the rate"
            )
    _write(engine, folder / "optimization_results.yaml", target, job_config)


def parameter_of(override: Override) -> Parameter:
    """Return the parameter that a sweep override describes.

    Choices that :class:`~hpo.Categorical` does not hold, such as lists, or 1 beside true, stand
    there by their texts.

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
        texts = [override_text(choice) for choice in choices]  # refused here, not in the sweep
        if not _categorical(choices):
            choices = texts
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
    if all(isinstance(v, int) for v in (start, stop, step)):
        numbers = range(start, stop, step)
        if start % step == 0:
            return Int(start, numbers[-1], multiple_of=step, hard=hard, role=role)
        return Categorical(list(numbers), ordered=True, role=role)
    first, end, width = (Decimal(str(v)) for v in (start, stop, step))  # 0.1 is a tenth
    count = int(-(-(end - first) // width))
    grid = [float(first + k * width) for k in range(count)]
    return Categorical(grid, ordered=True, role=role)


def override_text(value: Any) -> str:
    """Return what to write after `x=` so that Hydra reads it back as `value`, with its type.

    Args:
        value: None, a bool, number or string, or lists and dicts of such.

    Raises:
        SpaceError: For a value that no override has.

    Example:
        Needs the extra `hydra`::

            override_text("adamw"), override_text("1"), override_text([64, "a,b"])
            # ("adamw", "'1'", "[64,'a,b']")
    """
    for quote in (None, *Quote):  # plain text if that reads back, as for names of config groups
        text = _written(value, quote)
        if _reads_back(text, value):
            return text
    raise SpaceError(
        f"no override of Hydra's has the value {value!r}; name the choices and look their values "
        "up in the job"
    )


def _written(value: Any, quote: Quote | None) -> str:
    """A value in Hydra's grammar; strings in quotes, but for one that stands alone without."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(_written(item, quote or Quote.single) for item in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{_key(k)}:{_written(v, quote or Quote.single)}" for k, v in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, str) and quote is not None:
        return str(QuotedString(value, quote).with_quotes())
    return str(value)


def _key(key: Any) -> str:
    """A key of a dict, which Hydra's grammar escapes instead of quoting."""
    if not isinstance(key, str):
        return _written(key, None)
    return "".join(f"\\{letter}" if letter in _KEY_SPECIAL else letter for letter in key)


def _reads_back(text: str, value: Any) -> bool:
    try:
        read = OverridesParser.create().parse_override(f"x={text}")
    except HydraException:
        return False
    return not read.is_sweep_override() and _same(read.value(), value)


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal and of the same types; NaN is the same as NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return _same([*a], [*b]) and _same([*a.values()], [*b.values()])
    return bool(a == b or (a != a and b != b))


def _plain(choice: Any) -> Any:
    """A parsed choice as the value that a job gets; quoted strings lose their quotes."""
    if isinstance(choice, list):
        return [_plain(item) for item in choice]
    if isinstance(choice, dict):
        return {_plain(key): _plain(item) for key, item in choice.items()}
    return choice.text if isinstance(choice, QuotedString) else choice


def _categorical(choices: Sequence[Any]) -> bool:
    """Whether `Categorical` holds these values themselves."""
    try:
        Categorical(choices)
    except (SpaceError, TypeError):
        return False
    return True


def _index(parameter: Parameter, value: Any) -> int:
    assert isinstance(parameter, Categorical)
    return parameter.index(value)


def _overrides(config: Mapping[str, Any]) -> list[str]:
    return [f"{name}={override_text(scalar(value))}" for name, value in config.items()]


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


def _write(
    engine: Optimizer,
    path: Path,
    target: Mapping[str, float] | None,
    job_config: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> None:
    found: dict[str, Any] = {"name": "scaletune"}
    if any(o.status is Status.COMPLETED for o in engine.log.observations):
        best = engine.result().best
        config = job_config(best.config)
        found |= {"best_params": config, "best_value": best.loss}
        if engine.space.scales:
            found["recommended"] = job_config(engine.recommend(target).config)
        _log.info("best of %d jobs: %s with %s", len(engine.log), best.loss, config)
    else:
        _log.warning("none of %d jobs was completed, so %s has no best", len(engine.log), path.name)
    OmegaConf.save(OmegaConf.create(found), path)
