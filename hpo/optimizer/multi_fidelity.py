"""Ask and tell for runs that pause: an optimizer proposes, a scheduler decides.

What `optimize` does with a driver, for whoever runs the stages: a simulation under a virtual clock,
a queue, another tool.

    engine = StagedOptimizer(Optimizer(space, cost="seconds"), ASHA())
    while (trial := engine.ask()) is not None:
        loss, cost = train(trial.config, start=..., end=trial.assignment.level)
        engine.tell(trial, loss, cost)

A trial is asked again, under the same number and with a higher level in its place, when it is
promoted. One with a `parent` starts from that trial's checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hpo.optimizer.ask_tell import Optimizer
from hpo.schedulers import Clone, Decision, Promote, Scheduler, Start
from hpo.schedulers.perturb import perturb
from hpo.space import Fidelity
from hpo.trials import Cause, Observation, Report, Status, Trial, TrialLog
from hpo.trials.budget import Ledger

__all__ = ["StagedOptimizer"]


class StagedOptimizer:
    """Runs of one log, stage by stage.

    Args:
        optimizer: proposes configs; its log is the only state.
        scheduler: says what to do with them; hears the optimizer's forecast of runs on their way.
        seed: of the scheduler's choices and the changes in clones.

    Raises:
        SpaceError: for a scheduler that does not suit the optimizer's space.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        scheduler: Scheduler,
        *,
        seed: int = 0,
    ) -> None:
        space = optimizer.space
        self.optimizer = optimizer
        self._fidelity = space.fidelity
        self._seed = seed
        self._schedule = scheduler.begin(
            space, direction=optimizer.encoder.direction, seed=seed, forecast=optimizer.forecast
        )

    @property
    def log(self) -> TrialLog:
        """Every trial, report and result."""
        return self.optimizer.log

    @property
    def ledger(self) -> Ledger:
        """What the study has spent."""
        return self.optimizer.ledger

    def ask(
        self, *, may_start: bool = True, among: Sequence[Mapping[str, Any]] | None = None
    ) -> Trial | None:
        """The next stage to run: train `trial.config` up to `trial.assignment.level`.

        None when every worker should wait for those that run, or at the end if none does.

        Args:
            may_start: False when no new config may start any more, and runs are only finished.
            among: the only configs that may be started now; see `Optimizer.propose`.
        """
        match self._schedule.next(self.log, may_start=may_start):
            case Start(assignment):
                proposal = self.optimizer.propose(among=among)
                return self._added(
                    Trial(
                        self.log.next_number,
                        proposal.config,
                        proposal.ask_index,
                        proposal.prediction,
                        assignment=assignment,
                    )
                )
            case Promote(number, level):
                return self._promoted(number, level)
            case Clone() as clone:
                return self._cloned(clone)
            case _:
                return None

    def report(self, trial: Trial, report: Report) -> Decision:
        """What becomes of a running trial after `report`; tell it when told to pause or stop."""
        self.log.report(trial.number, report)
        return self._schedule.on_report(trial, report, self.log)

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
        """Record how a stage ended; arguments as for `Optimizer.tell`.

        `loss` is the one at `trial.assignment.level`. `cost`, `seconds`: of the whole run up to there.
        Below the config's own fidelity the trial rests afterwards, unless it failed or stopped.
        """
        for report in reports:
            self.log.report(trial.number, report)
        rests = (
            failed is None
            and not stopped
            and loss is not None
            and bool(np.isfinite(loss))
            and self._fidelity is not None
            and trial.assignment is not None
            and trial.assignment.level < trial.config[self._fidelity]
        )
        if not rests:
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
            metrics=dict(metrics or {}),
        )
        self.optimizer.record(paused)
        return paused

    def _added(self, trial: Trial) -> Trial:
        self.optimizer.add_pending(trial)
        return trial

    def _promoted(self, number: int, level: int) -> Trial:
        before, trial = self.log.observation(number), self.log.trial(number)
        assert before is not None and trial.assignment is not None and self._fidelity is not None
        if before.status is Status.PAUSED and level <= trial.config[self._fidelity]:
            return self.log.resume(number, level)
        grown = self.optimizer.space[self._fidelity]
        assert isinstance(grown, Fidelity)
        return self._added(
            replace(
                trial,
                number=self.log.next_number,
                config={**trial.config, self._fidelity: grown.high},
                parent=number,
                assignment=replace(trial.assignment, level=level),
            )
        )

    def _cloned(self, clone: Clone) -> Trial:
        replaced = self.log.observation(clone.replaces)
        if replaced is not None and replaced.status is Status.PAUSED:
            stopped = replace(replaced, status=Status.STOPPED, order=self.log.next_order)
            self.optimizer.record(stopped)
        index = self.log.next_ask_index
        rng = np.random.default_rng([self._seed, index])
        parent = self.log.trial(clone.parent)
        config = perturb(self.optimizer.space, parent.config, clone.mutate, rng=rng)
        return self._added(
            Trial(self.log.next_number, config, index, None, clone.parent, clone.assignment)
        )
