"""Ask and tell for runs that pause: an optimizer proposes configs, a scheduler decides on runs.

This is the one place where a scheduler's action becomes a trial. `StagedOptimizer.next_action` says
what a free worker should do, as a value, and changes nothing:

    StartTrial      train a new config
    ResumeTrial     promote a paused trial in place: same number, higher level
    ContinueTrial   promote a run as a new trial, which starts from its checkpoint
    CloneTrial      start a changed copy of a run from its checkpoint, in place of another run

`ask` carries the action out at once, for a caller that runs the stages itself: a simulation under a
virtual clock, a queue, another tool. The driver of `optimize` (:mod:`hpo.study.driver`) writes it
to storage first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from hpo.optimizer.ask_tell import Optimizer, number
from hpo.schedulers import Action, Clone, Decision, Promote, Schedule, Scheduler, Start
from hpo.schedulers.base import check_scheduler
from hpo.schedulers.perturb import perturb
from hpo.space import Fidelity
from hpo.space.arguments import Count, Flag, Function, Kind, Row
from hpo.space.scalars import metric_values, shown, whole
from hpo.trials import (
    Cause,
    FurthestStep,
    Observation,
    Prediction,
    Report,
    RungAssignment,
    Status,
    Trial,
    TrialLog,
)
from hpo.trials.budget import Ledger
from hpo.trials.serialized import ThreadLock, serialized

__all__ = [
    "CloneTrial",
    "ContinueTrial",
    "ResumeTrial",
    "StagedOptimizer",
    "StartTrial",
    "TrialAction",
]

_TRIAL = Kind(Trial, way_out="pass what `ask` returned")


@dataclass(frozen=True, slots=True)
class StartTrial:
    """Train a new config from scratch.

    Attributes:
        config: The proposed config.
        ask_index: Index of this ask, the key of its random draws.
        prediction: What the models expected of the config.
        assignment: Rung of the scheduler; None trains to the end.
    """

    config: dict[str, Any]
    ask_index: int
    prediction: Prediction
    assignment: RungAssignment | None

    def trial(self, number: int) -> Trial:
        """Return the trial to add, as `number`."""
        return Trial(
            number, self.config, self.ask_index, self.prediction, assignment=self.assignment
        )


@dataclass(frozen=True, slots=True)
class ResumeTrial:
    """Promote a paused trial in place.

    Attributes:
        number: The paused trial.
        level: Level to train it up to now.
    """

    number: int
    level: int


@dataclass(frozen=True, slots=True)
class ContinueTrial:
    """Promote a run as a new trial: it keeps the ask index and starts from the old checkpoint.

    Attributes:
        parent: The trial that carries the run so far.
        config: Its config, with the fidelity as high as the space allows now.
        assignment: Its rung, with the level to train up to.
        paused: Whether the parent is paused, rather than finished.
    """

    parent: Trial
    config: dict[str, Any]
    assignment: RungAssignment
    paused: bool

    def trial(self, number: int) -> Trial:
        """Return the trial to add, as `number`."""
        return replace(
            self.parent,
            number=number,
            config=self.config,
            parent=self.parent.number,
            assignment=self.assignment,
        )


@dataclass(frozen=True, slots=True)
class CloneTrial:
    """Start a changed copy of a run from its checkpoint.

    Attributes:
        parent: Number of the trial that is copied.
        config: The changed config.
        ask_index: Index of this ask, the key of the change.
        assignment: Rung of the clone.
        stopped: The result to tell first: the paused trial that the clone replaces, as stopped.
            None if it is not paused.
    """

    parent: int
    config: dict[str, Any]
    ask_index: int
    assignment: RungAssignment
    stopped: Observation | None

    def trial(self, number: int) -> Trial:
        """Return the trial to add, as `number`."""
        return Trial(number, self.config, self.ask_index, None, self.parent, self.assignment)


TrialAction: TypeAlias = StartTrial | ResumeTrial | ContinueTrial | CloneTrial


class StagedOptimizer:
    """Asks for the runs of one log stage by stage, as a scheduler decides.

    A trial is asked again, under the same number and with a higher level in its assignment, when it
    is promoted. One with a `parent` starts from that trial's checkpoint.

    Args:
        optimizer: Proposes configs; its log is the only state.
        scheduler: Decides on runs, with the optimizer's forecast of those that are partly trained.
            None trains every config to the end.
        seed: Seed of the scheduler's choices and of the changes in clones.
        driver: Index of this driver among those that share a study, part of the random key of its
            clones. None outside of a study.

    Raises:
        SpaceError: For a scheduler that does not suit the optimizer's space.

    Example:
        >>> from hpo import ASHA, Fidelity, Float, Optimizer
        >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 3)}
        >>> engine = StagedOptimizer(Optimizer(space, seed=0), ASHA())
        >>> for _ in range(4):
        ...     trial = engine.ask()
        ...     level = trial.assignment.level
        ...     _ = engine.tell(trial, loss=trial.config["x"] / level, cost=float(level))
        ...     print(trial.number, level)
        0 1
        1 1
        2 1
        1 3
    """

    def __init__(
        self,
        optimizer: Optimizer,
        scheduler: Scheduler | None,
        *,
        seed: int = 0,
        driver: int | None = None,
    ) -> None:
        optimizer = Kind(Optimizer, way_out="write Optimizer(space)")(optimizer, "`optimizer`")
        check_scheduler(scheduler)
        seed = Count(0)(seed, "`seed`")
        driver = Count(0, optional=True)(driver, "`driver`")
        space = optimizer.space
        self.optimizer = optimizer
        self._fidelity = space.fidelity
        self._clone_key = (seed,) if driver is None else (seed, driver)
        self.schedule: Schedule = (
            _WholeRuns()
            if scheduler is None
            else scheduler.begin(
                space,
                direction=optimizer.encoder.direction,
                seed=seed,
                forecast=optimizer.forecast,
                ledger=optimizer.ledger,
            )
        )

    @property
    def lock(self) -> ThreadLock:
        """Lock of the optimizer, held while anything is asked or told."""
        return self.optimizer.lock

    @property
    def log(self) -> TrialLog:
        """Every trial, report and result.

        Example:
            >>> from hpo import ASHA, Fidelity, Float, Optimizer, StagedOptimizer
            >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
            >>> engine = StagedOptimizer(Optimizer(space), ASHA())
            >>> _ = engine.tell(engine.ask(), loss=0.5)
            >>> _ = engine.ask()
            >>> len(engine.log.paused), len(engine.log.pending)
            (1, 1)
        """
        return self.optimizer.log

    @property
    def ledger(self) -> Ledger:
        """Trials, time and cost that the study has spent.

        Example:
            >>> from hpo import ASHA, Fidelity, Float, Optimizer, StagedOptimizer
            >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
            >>> engine = StagedOptimizer(Optimizer(space), ASHA())
            >>> for _ in range(2):
            ...     _ = engine.tell(engine.ask(), loss=0.5, cost=1.5)
            >>> engine.ledger.spent.cost
            3.0
        """
        return self.optimizer.ledger

    @serialized
    def next_action(
        self,
        *,
        may_start: bool = True,
        among: Sequence[Mapping[str, Any]] | None = None,
        locked: frozenset[int] = frozenset(),
        may_resume: Callable[[Trial, int], bool] | None = None,
    ) -> TrialAction | None:
        """Return what a free worker should do, without recording it.

        Args:
            may_start: Whether new configs may still start, rather than only runs be finished.
            among: The only configs that may be started now; see `Optimizer.propose`.
            locked: Trials that must be left alone, such as those of another living driver.
            may_resume: Whether a paused trial can be promoted in place to a level; one that cannot
                is continued as a new trial. By default it can if its config allows the level.

        Returns:
            The action; None to wait for runs that are under way, or at the end if there are none.

        Example:
            >>> from hpo import ASHA, Fidelity, Float, Optimizer, StagedOptimizer
            >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
            >>> engine = StagedOptimizer(Optimizer(space), ASHA())
            >>> for loss in (0.3, 0.2, 0.4):
            ...     _ = engine.tell(engine.ask(), loss=loss)
            >>> engine.next_action()
            ResumeTrial(number=1, level=3)
            >>> type(engine.next_action(locked=frozenset({1}))).__name__
            'StartTrial'
        """
        may_start = Flag()(may_start, "`may_start`")
        if not isinstance(locked, set | frozenset) or any(whole(n) is None for n in locked):
            raise ValueError(
                f"`locked` must be a set of numbers of trials, got {shown(locked)}; frozenset()"
                " locks none"
            )
        may_resume = Function("may_resume(trial, level)", optional=True)(may_resume, "`may_resume`")
        match self.schedule.next(self.log, may_start=may_start, locked=locked):
            case Start(assignment):
                proposal = self.optimizer.propose(among=among)
                return StartTrial(
                    proposal.config, proposal.ask_index, proposal.prediction, assignment
                )
            case Promote(number, level):
                return self._promotion(number, level, may_resume or self._config_allows)
            case Clone() as clone:
                return self._clone(clone)
            case _:
                return None

    @serialized
    def ask(
        self, *, may_start: bool = True, among: Sequence[Mapping[str, Any]] | None = None
    ) -> Trial | None:
        """Return the next stage to run: train `trial.config` up to `trial.assignment.level`.

        Args:
            may_start: Whether new configs may still start, rather than only runs be finished.
            among: The only configs that may be started now; see `Optimizer.propose`.

        Returns:
            The trial, recorded as pending. None when every worker should wait for the runs that are
            under way, or at the end if there are none.

        Example:
            >>> from hpo import ASHA, Fidelity, Float, Optimizer, StagedOptimizer
            >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
            >>> engine = StagedOptimizer(Optimizer(space), ASHA())
            >>> for loss in (0.3, 0.2, 0.4):
            ...     _ = engine.tell(engine.ask(), loss=loss)
            >>> trial = engine.ask()
            >>> trial.number, trial.assignment.level
            (1, 3)
            >>> engine.ask(may_start=False) is None
            True
        """
        action = self.next_action(may_start=may_start, among=among)
        if action is None:
            return None
        if isinstance(action, ResumeTrial):
            return self.log.resume(action.number, action.level)
        if isinstance(action, CloneTrial) and action.stopped is not None:
            self.optimizer.record(action.stopped)
        trial = action.trial(self.log.next_number)
        self.optimizer.add_pending(trial)
        return trial

    @serialized
    def report(self, trial: Trial, report: Report) -> Decision:
        """Record a report of a running trial, and decide whether the trial continues.

        Args:
            trial: The trial, as asked.
            report: What it reported.

        Returns:
            `CONTINUE`, or `PAUSE` or `STOP`: then end the stage and `tell` its result.

        Raises:
            ValueError: For a step beyond the fidelity.

        Example:
            >>> from hpo import ASHA, Fidelity, Float, Optimizer, Report
            >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
            >>> engine = StagedOptimizer(Optimizer(space), ASHA())
            >>> engine.report(engine.ask(), Report(step=1, loss=0.5)).value
            'continue'
        """
        trial, report = _TRIAL(trial, "`trial`"), Kind(Report)(report, "`report`")
        self._check_step(trial, report)
        self.log.report(trial.number, report)
        return self.schedule.on_report(trial, report, self.log)

    def _check_step(self, trial: Trial, report: Report) -> None:
        """Refuse a report beyond the fidelity of the trial."""
        furthest = FurthestStep.of(trial, self._fidelity)
        if furthest is not None:
            furthest.check(report.step)

    @serialized
    def tell(
        self,
        trial: Trial,
        loss: float | None = None,
        cost: float | None = None,
        *,
        failed: Cause | str | None = None,
        stopped: bool = False,
        seconds: float | None = None,
        reports: Sequence[Report] = (),
        metrics: Mapping[str, Any] | None = None,
    ) -> Observation:
        """Record how a stage ended; further arguments as for `Optimizer.tell`.

        Below the config's own fidelity the trial is paused, unless it failed or was stopped.

        Args:
            trial: The trial, as asked.
            loss: Loss at `trial.assignment.level`, in the user's direction.
            cost: Cost of the whole run up to there; None if unknown, and then derived as by
                `Optimizer.tell`.
            failed: Cause of a failure, in place of a loss.
            stopped: Whether the run was ended early on purpose.
            seconds: Wall-clock time of the whole run up to there.
            reports: Reports that were not handed to `report`.
            metrics: Further results to keep.

        Returns:
            The recorded observation; of status `PAUSED` if the trial may be promoted later.

        Example:
            >>> from hpo import ASHA, Fidelity, Float, Optimizer, StagedOptimizer
            >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
            >>> engine = StagedOptimizer(Optimizer(space), ASHA())
            >>> engine.tell(engine.ask(), loss=0.5, cost=1.0).status.value
            'paused'
            >>> engine.tell(engine.ask(), failed="oom", cost=0.1).status.value
            'failed'
        """
        trial, stopped = _TRIAL(trial, "`trial`"), Flag()(stopped, "`stopped`")
        loss, cost = number("loss", loss), number("cost", cost)
        seconds = number("seconds", seconds)
        reports = Row(Kind(Report))(reports, "`reports`")
        for report in reports:
            self._check_step(trial, report)
        for report in reports:
            self.log.report(trial.number, report)
        pauses = (
            failed is None
            and not stopped
            and loss is not None
            and math.isfinite(loss)
            and self._fidelity is not None
            and trial.assignment is not None
            and trial.assignment.level < trial.config[self._fidelity]
        )
        if not pauses:
            return self.optimizer.tell(
                trial,
                loss,
                cost,
                failed=failed,
                stopped=stopped,
                seconds=seconds,
                reports=self.log.reports(trial.number),
                metrics=metrics,
            )
        paused = Observation(
            number=trial.number,
            config=trial.config,
            loss=loss,
            cost=cost,
            status=Status.PAUSED,
            cause=None,
            order=self.log.next_order,
            ask_index=trial.ask_index,
            seconds=seconds,
            reports=self.log.reports(trial.number),
            metrics={} if metrics is None else metric_values(metrics, texts=True),
        )
        if cost is None:
            paused = self.optimizer.with_default_cost(paused)
        self.optimizer.record(paused)
        return paused

    def _config_allows(self, trial: Trial, level: int) -> bool:
        assert self._fidelity is not None
        highest: int = trial.config[self._fidelity]
        return level <= highest

    def _promotion(
        self, number: int, level: int, may_resume: Callable[[Trial, int], bool]
    ) -> ResumeTrial | ContinueTrial:
        before, trial = self.log.observation(number), self.log.trial(number)
        assert before is not None and trial.assignment is not None and self._fidelity is not None
        paused = before.status is Status.PAUSED
        if paused and may_resume(trial, level):
            return ResumeTrial(number, level)
        config = self._reaching(trial, level)
        return ContinueTrial(trial, config, replace(trial.assignment, level=level), paused)

    def _reaching(self, trial: Trial, level: int) -> dict[str, Any]:
        """The config of a trial that trains on to `level`, though the fidelity has grown since."""
        if self._fidelity is None or self._config_allows(trial, level):
            return trial.config
        grown = self.optimizer.space[self._fidelity]
        assert isinstance(grown, Fidelity)
        return trial.config | {self._fidelity: grown.high}

    def _clone(self, clone: Clone) -> CloneTrial:
        stopped = None
        replaced = self.log.observation(clone.replaces)
        if replaced is not None and replaced.status is Status.PAUSED:
            stopped = replace(replaced, status=Status.STOPPED, order=self.log.next_order)
        index = self.log.next_ask_index
        rng = np.random.default_rng([*self._clone_key, index])
        parent = self.log.trial(clone.parent)
        whole = self._reaching(parent, clone.assignment.level)
        config = perturb(self.optimizer.space, whole, clone.mutate, rng=rng)
        return CloneTrial(clone.parent, config, index, clone.assignment, stopped)


@dataclass(frozen=True, slots=True)
class _WholeRuns:
    """Schedule that trains every config to the end."""

    def next(
        self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
    ) -> Action | None:
        return Start(None) if may_start else None

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        return Decision.CONTINUE

    def checkpoints_to_keep(self, log: TrialLog) -> frozenset[int]:
        return frozenset()
