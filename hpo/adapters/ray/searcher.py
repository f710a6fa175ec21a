"""The Ray searcher: the engine, its log and the schedule over it.

    searcher = ScaleTuneSearcher(space, scheduler=ASHA(), cost="flops", metric="loss", mode="min")
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=searcher, scheduler=ScaleTuneScheduler(), num_samples=60
        ),
    )

Ray asks a searcher for configs and a scheduler what becomes of results, and does not know that the
two belong together. Here the searcher holds everything, and the scheduler finds its searcher in
Ray's controller and carries out its decisions. Saved state is JSON: the events of the log.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ray.tune.search import Searcher
from ray.tune.search.sample import Domain

from hpo.adapters.amounts import amount_or_none, number_or_none
from hpo.adapters.events import events_to_json, replay
from hpo.errors import StudyError
from hpo.optimizer.ask_tell import Optimizer
from hpo.optimizer.multi_fidelity import StagedOptimizer
from hpo.scaling.claims import Priors
from hpo.schedulers import Clone, Decision, Promote, Schedule, Scheduler, Setup, Start
from hpo.space import Direction, Parameter, SearchSpace
from hpo.space.scalars import shown, whole
from hpo.trials import Cause, FurthestStep, Report, Trial, TrialLog
from hpo.trials.records import SECONDS

__all__ = ["Resumption", "ScaleTuneSearcher"]

_DATED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")  # Ray's name for a session

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resumption:
    """A paused trial of Ray that trains on.

    Attributes:
        trial_id: Ray's id of it.
        trial: Engine's trial that it carries from now on.
        checkpoint_of: Ray's id of the trial whose checkpoint a clone starts from; None if it
            continues from its own.
    """

    trial_id: str
    trial: Trial
    checkpoint_of: str | None


class ScaleTuneSearcher(Searcher):
    """Proposes configs to Ray Tune and learns from every result, failed and stopped ones too.

    Args:
        space: Search space as for `hpo.optimize`; give the tuner no `param_space` of these names.
        metric: Result entry that is the objective.
        mode: Direction of the objective, "min" or "max".
        scheduler: Scheduler that pauses, promotes, stops and clones trials; give the tuner a
            `ScaleTuneScheduler` to carry it out.
        step: Result entry that counts the fidelity, such as an epoch.
        cost: Unit of the costs, and the result entry that holds a trial's cost so far; "seconds"
            are Ray's `time_total_s` where there is none. None derives costs from the config
            (:mod:`hpo.trials.default_cost`).
        target: Scale values to train at in the end, as for `hpo.optimize`.
        priors: Transfer rules, as for `hpo.optimize`.
        surrogate: Model of the loss, as for `hpo.optimize`.
        seed: Seed of every random choice.

    Raises:
        SpaceError: For a space, target or rule that `hpo.optimize` would refuse.
        ValueError: For any other argument that it would refuse.

    Example:
        Needs the extra `ray`::

            searcher = ScaleTuneSearcher(space, metric="loss", mode="min", cost="flops")
            config = tune.TuneConfig(search_alg=searcher, num_samples=60)
            tune.Tuner(train, tune_config=config).fit()
            searcher.optimizer.recommend()
    """

    def __init__(
        self,
        space: Mapping[str, Parameter],
        *,
        metric: str,
        mode: Literal["min", "max"],
        scheduler: Scheduler | None = None,
        step: str = "training_iteration",
        cost: str | None = None,
        target: Mapping[str, float] | None = None,
        priors: Priors = None,
        surrogate: str = "auto",
        seed: int = 0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f'`mode` must be "min" or "max", got {mode!r}; say which is better')
        super().__init__(metric=metric, mode=mode)
        self._loss_name = metric
        self._direction = Direction.MINIMIZE if mode == "min" else Direction.MAXIMIZE
        self._space = SearchSpace(space)
        self._scheduler = scheduler
        self._step = step
        self._cost = cost
        self._target = target
        self._priors = priors
        self._surrogate = surrogate
        self._seed = seed
        self._max_concurrent: int | None = None
        self._numbers: dict[str, int] = {}  # engine's trial that each of Ray's carries, by its id
        self._stopping: set[str] = set()  # ids of trials that the schedule has stopped
        self._warned = False  # of results without a step
        self._engine: Optimizer | None = None
        self._build([])  # refuses bad arguments at once

    # --- questions of Ray -------------------------------------------------------------------------

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Return whether the tuner's `param_space` holds only constants, as it must."""
        return not _is_searched(config)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Return True: the limit is kept here, where paused trials do not count."""
        self._max_concurrent = max_concurrent
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return a config, None to wait for other trials, or FINISHED when no more will come."""
        if self._max_concurrent is not None and len(self.log.pending) >= self._max_concurrent:
            return None
        action = self.next_action(may_start=True)
        if action is None and not self.log.pending and not self.log.paused:
            return str(Searcher.FINISHED)
        if not isinstance(action, Start):
            return None
        if self._staged is None:
            assert self._engine is not None
            trial = self._engine.ask()
        else:
            asked = self._staged.ask()
            assert asked is not None  # `next_action` asks the same schedule about the same log
            trial = asked
        self._numbers[trial_id] = trial.number
        return dict(trial.config)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record a report.

        Raises:
            ValueError: For a step beyond the fidelity.
        """
        report = self._report(result)
        if report is None or trial_id not in self._numbers:
            return
        number = self._numbers[trial_id]
        furthest = FurthestStep.of(self.log.trial(number), self._space.fidelity)
        if furthest is not None:
            furthest.check(report.step)
        self.log.report(number, report)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record how a trial ended."""
        number = self._numbers.get(trial_id)
        if number is None:
            return
        if self.log.observation(number) is not None and not self.is_paused(trial_id):
            return
        if error:
            self._tell(number, failed=Cause.ERROR, result=result or {})
            return
        loss = self._loss(result or {})
        stopped = trial_id in self._stopping or result is None
        if loss is None and not stopped:
            self._tell(number, failed=Cause.ERROR, result=result or {})
        else:
            self._tell(number, loss=loss, stopped=stopped, result=result or {})

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Record a run made elsewhere."""
        assert self._engine is not None
        config = {name: parameters[name] for name in self._space if name in parameters}
        failed = Cause.ERROR if error else None
        self._engine.tell(config, None if error else value, failed=failed, stopped=pruned)

    # --- questions of the scheduler ---------------------------------------------------------------

    @property
    def log(self) -> TrialLog:
        """Every trial, report and result."""
        assert self._engine is not None
        return self._engine.log

    @property
    def optimizer(self) -> Optimizer:
        """The engine, for its `recommend` and `result`."""
        assert self._engine is not None
        return self._engine

    def next_action(self, *, may_start: bool) -> Start | Promote | Clone | None:
        """Return what a free worker should do next, without doing it.

        Args:
            may_start: Whether a new config may start.
        """
        if self._schedule is None:
            return Start(None) if may_start else None
        return self._schedule.next(self.log, may_start=may_start)

    def is_paused(self, trial_id: str) -> bool:
        """Return whether Ray's trial of that id is paused until it is promoted."""
        number = self._numbers.get(trial_id)
        return number is not None and any(o.number == number for o in self.log.paused)

    def resume(self, ready: Callable[[str], bool], *, may_start: bool) -> Resumption | None:
        """Resume or clone the trial that the schedule promotes now.

        Args:
            ready: Whether Ray's trial of an id has finished pausing, which takes it a moment.
            may_start: Whether a new config may start.

        Returns:
            The trial that trains on; None if there is none, or it is not ready.
        """
        action = self.next_action(may_start=may_start)
        if self._staged is None or not isinstance(action, Promote | Clone):
            return None
        carriers = {number: trial_id for trial_id, number in self._numbers.items()}
        moved = [action.number] if isinstance(action, Promote) else [action.replaces, action.parent]
        if not all(ready(carriers[number]) for number in moved):
            return None
        trial = self._staged.ask(may_start=may_start)
        assert trial is not None  # the schedule has just named it
        if isinstance(action, Promote):
            return Resumption(carriers[action.number], trial, None)
        carrier = carriers[action.replaces]
        self._numbers[carrier] = trial.number
        return Resumption(carrier, trial, carriers[action.parent])

    def decide(self, trial_id: str, result: dict[str, Any]) -> Decision:
        """Return what becomes of a running trial after a result; record its stage if it pauses."""
        report = self._report(result)
        number = self._numbers.get(trial_id)
        if report is None or number is None or self._staged is None:
            return Decision.CONTINUE
        trial = self.log.trial(number)
        if report.loss is not None and not math.isfinite(report.loss):
            self._tell(number, failed=Cause.DIVERGED, result=result)
            return Decision.STOP
        decision = self._staged.report(trial, report)
        level = None if trial.assignment is None else trial.assignment.level
        if decision is Decision.CONTINUE and (level is None or report.step < level):
            return Decision.CONTINUE
        if decision is Decision.STOP:
            self._stopping.add(trial_id)
            return decision
        fidelity = self._space.fidelity
        assert fidelity is not None and level is not None
        if level >= trial.config[fidelity]:
            return Decision.STOP  # at its end; Ray then reports it complete
        self._tell(number, loss=report.loss, result=result)
        return Decision.PAUSE

    def fail(self, trial_id: str) -> None:
        """Record that a promoted trial could not be resumed."""
        self._tell(self._numbers[trial_id], failed=Cause.ERROR, result={})

    # --- state ------------------------------------------------------------------------------------

    def save(self, checkpoint_path: str) -> None:
        """Write the log, Ray's ids and what is searched as JSON."""
        state = {
            "searched": {**self._searched, "space": self._space.fingerprint()},
            "events": events_to_json(self.log),
            "numbers": self._numbers,
            "stopping": sorted(self._stopping),
        }
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Read what `save` wrote.

        Raises:
            StudyError: For any other file, or one of a searcher with another space, metric, mode or
                cost.
        """
        try:
            state = json.loads(Path(checkpoint_path).read_text())
            numbers = {str(k): int(v) for k, v in state["numbers"].items()}
            stopping, events = set(state["stopping"]), state["events"]
            searched = state.get("searched")  # not in files of earlier versions
            difference = None if searched is None else self._difference(searched)
        except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise StudyError(
                f"{checkpoint_path} holds no state of a ScaleTuneSearcher ({error!r}); restore it "
                "from the file that `save` wrote"
            ) from error
        if difference is not None:
            raise StudyError(
                f"{checkpoint_path} is of a searcher with another {difference}; restore it with "
                "the arguments that it was made with, or keep each experiment in its own folder"
            )
        self._build(events)
        self._numbers, self._stopping = numbers, stopping

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Restore the newest state in a folder that is of a searcher like this one.

        An experiment writes a file for each time it was started. A folder may hold those of other
        experiments and searchers, too; they are passed over.

        Raises:
            RuntimeError: If there is no file.
            StudyError: If no file can be restored.
        """
        files = _newest_first(Path(checkpoint_dir).glob(self.CKPT_FILE_TMPL.format("*")))
        if not files:
            raise RuntimeError(f"{checkpoint_dir} holds no state of a searcher")
        refusals: list[str] = []
        for file in files:
            try:
                self.restore(str(file))
            except StudyError as refusal:
                refusals.append(str(refusal))
            else:
                for refusal_text in refusals:
                    _log.warning("%s was restored instead: %s", file.name, refusal_text)
                return
        raise StudyError("; ".join(refusals))

    @property
    def _searched(self) -> dict[str, Any]:
        """What a stored state must have in common with this searcher, the space apart."""
        return {"metric": self._loss_name, "mode": self._mode, "cost": self._cost}

    def _difference(self, searched: Mapping[str, Any]) -> str | None:
        """What a stored state has otherwise; None if it belongs here."""
        space = self._space.difference(searched["space"])
        if space is not None:
            return f"space: {space}"
        for name, mine in self._searched.items():
            if searched[name] != mine:
                return f"{name}: {searched[name]!r}, here {mine!r}"
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Settings and the log's events; everything fitted is rebuilt."""
        state = self.__dict__.copy()
        state["_events"] = events_to_json(self.log)
        for name in ("_engine", "_staged", "_schedule"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        events = state.pop("_events")
        self.__dict__.update(state)
        self._build(events)

    def _build(self, events: Sequence[dict[str, Any]]) -> None:
        """Make the engine and replay the stored events of its log."""
        engine = Optimizer(
            self._space,
            direction=self._direction,
            cost=self._cost,
            target=self._target,
            priors=self._priors,
            surrogate=self._surrogate,
            seed=self._seed,
        )
        replay(engine, events)
        self._engine = engine
        self._staged: StagedOptimizer | None = None
        self._schedule: Schedule | None = None
        if self._scheduler is not None:
            keeper = _ScheduleKeeper(self._scheduler)
            self._staged = StagedOptimizer(engine, keeper, seed=self._seed)
            self._schedule = keeper.kept

    def _tell(
        self,
        number: int,
        *,
        loss: float | None = None,
        failed: Cause | None = None,
        stopped: bool = False,
        result: Mapping[str, Any],
    ) -> None:
        assert self._engine is not None
        seconds = number_or_none(result.get("time_total_s"))
        (self._staged or self._engine).tell(
            self.log.trial(number),
            loss,
            self._cost_so_far(result),
            failed=failed,
            stopped=stopped,
            seconds=seconds,
        )

    def _report(self, result: Mapping[str, Any]) -> Report | None:
        step = whole(result.get(self._step))
        if step is None or step < 0:
            self._warn_of_step(result)
            return None
        return Report(step, self._loss(result), self._cost_so_far(result))

    def _warn_of_step(self, result: Mapping[str, Any]) -> None:
        """Say once that a result tells nothing of the fidelity that was reached."""
        if not self._warned:
            self._warned = True
            _log.warning(
                "a result without a step is not used as a report: its %r is %s; report a whole "
                "number of at least 0 under that name, or name another entry with step=",
                self._step,
                shown(result.get(self._step)),
            )

    def _loss(self, result: Mapping[str, Any]) -> float | None:
        return number_or_none(result.get(self._loss_name))

    def _cost_so_far(self, result: Mapping[str, Any]) -> float | None:
        cost = number_or_none(result.get(self._cost)) if self._cost else None
        if cost is None and self._cost == SECONDS:
            cost = number_or_none(result.get("time_total_s"))
        return amount_or_none(cost)


class _ScheduleKeeper(Scheduler):
    """A scheduler that keeps the schedule it begins, so that it can be asked without acting."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.kept: Schedule | None = None

    def schedule(self, setup: Setup) -> Schedule:
        """Begin the schedule and keep it; see `Scheduler`."""
        self.kept = self._scheduler.schedule(setup)
        return self.kept


def _newest_first(files: Iterable[Path]) -> list[Path]:
    """Files of states, the newest first.

    Ray names them by the time at which the experiment was started. That order outlives a copy, the
    files' own times do not; these count only for a file that somebody has named otherwise.
    """
    found = list(files)
    dated = sorted((f for f in found if _DATED.search(f.name)), key=lambda f: f.name)
    others = sorted((f for f in found if f not in dated), key=lambda f: (f.stat().st_mtime, f.name))
    order: list[Path] = []
    while dated or others:
        named = not others or (dated and dated[-1].stat().st_mtime >= others[-1].stat().st_mtime)
        order.append((dated if named else others).pop())
    return order


def _is_searched(config: Mapping[str, Any]) -> bool:
    """Whether a `param_space` holds anything to be searched."""
    return any(
        isinstance(value, Domain)
        or (isinstance(value, Mapping) and ("grid_search" in value or _is_searched(value)))
        for value in config.values()
    )
