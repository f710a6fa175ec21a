"""The Ray scheduler: carries out what the searcher decides about Ray's trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler

from hpo.adapters.ray.searcher import ScaleTuneSearcher
from hpo.errors import StudyError
from hpo.schedulers import Decision

__all__ = ["ScaleTuneScheduler"]

_ANSWERS: dict[Decision, str] = {
    Decision.CONTINUE: TrialScheduler.CONTINUE,
    Decision.PAUSE: TrialScheduler.PAUSE,
    Decision.STOP: TrialScheduler.STOP,
}


class ScaleTuneScheduler(TrialScheduler):
    """Carries out what the `scheduler=` of the tuner's `ScaleTuneSearcher` decides.

    Runs pause and resume by Ray's own checkpoints: report one with each result. Under `PBT` a
    member that is replaced becomes a clone of another, with its checkpoint and a changed config.

    Example:
        Needs the extra `ray`::

            searcher = ScaleTuneSearcher(space, scheduler=ASHA(), metric="loss", mode="min")
            config = tune.TuneConfig(search_alg=searcher, scheduler=ScaleTuneScheduler())
            tune.Tuner(train, tune_config=config).fit()
    """

    _supports_buffered_results = False

    def __init__(self) -> None:
        self._metric: str | None = None
        super().__init__()
        self._to_resume: list[str] = []  # ids of trials

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        """Pause a restored trial again if it was paused: Ray queues all that had not ended."""
        searcher = _searcher(tune_controller)
        if trial.status == RayTrial.PENDING and searcher.is_paused(trial.trial_id):
            trial.set_status(RayTrial.PAUSED)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """Do nothing: the searcher is told."""

    def on_trial_complete(
        self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]
    ) -> None:
        """Do nothing: the searcher is told."""

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        """Do nothing: the searcher is told."""

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Return whether `trial` continues, pauses or stops."""
        return _ANSWERS[_searcher(tune_controller).decide(trial.trial_id, result)]

    def choose_trial_to_run(self, tune_controller: Any) -> RayTrial | None:
        """Return a promoted or cloned trial if there is one, else one that has not started."""
        trials = {trial.trial_id: trial for trial in tune_controller.get_trials()}
        self._to_resume = [i for i in self._to_resume if trials[i].status == RayTrial.PAUSED]
        searcher = _searcher(tune_controller)
        may_start = not tune_controller.search_alg.is_finished()
        if not self._to_resume:
            self._resume(searcher, trials, may_start)
        if self._to_resume:
            return trials[self._to_resume[0]]
        pending = [t for t in trials.values() if t.status == RayTrial.PENDING]
        if pending:
            return pending[0]
        running = any(t.status == RayTrial.RUNNING for t in trials.values())
        if not running and searcher.next_action(may_start=may_start) is None:
            for trial in trials.values():  # no result is to come that could promote them
                if trial.status == RayTrial.PAUSED:
                    tune_controller.stop_trial(trial)
        return None

    def debug_string(self) -> str:
        """Return one line for Ray's console."""
        return f"ScaleTuneScheduler: {len(self._to_resume)} trials to be resumed"

    def save(self, checkpoint_path: str) -> None:
        """Write an empty state: everything here can be asked again."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing; see `save`."""

    def _resume(
        self, searcher: ScaleTuneSearcher, trials: Mapping[str, RayTrial], may_start: bool
    ) -> None:
        """Queue the trial that the searcher promotes or clones now, if any."""

        def ready(trial_id: str) -> bool:
            return trials[trial_id].status != RayTrial.RUNNING and not trials[trial_id].is_saving

        resumed = searcher.resume(ready, may_start=may_start)
        if resumed is None:
            return
        carrier = trials[resumed.trial_id]
        if carrier.status != RayTrial.PAUSED:
            searcher.fail(resumed.trial_id)  # Ray has ended the trial and cannot resume it
            return
        if resumed.checkpoint_of is not None:
            _inherit(carrier, trials[resumed.checkpoint_of])
            carrier.set_config({**carrier.config, **resumed.trial.config})
        self._to_resume.append(resumed.trial_id)


def _searcher(tune_controller: Any) -> ScaleTuneSearcher:
    """The searcher behind a controller, through limiters and repeaters."""
    searcher = getattr(tune_controller.search_alg, "searcher", None)
    while searcher is not None and not isinstance(searcher, ScaleTuneSearcher):
        searcher = getattr(searcher, "searcher", None)
    if searcher is None:
        raise StudyError(
            "ScaleTuneScheduler needs a ScaleTuneSearcher beside it; pass "
            "TuneConfig(search_alg=ScaleTuneSearcher(space, scheduler=...))"
        )
    return searcher


def _inherit(child: RayTrial, parent: RayTrial) -> None:
    """Let `child` start from `parent`'s checkpoint, as Ray's own PBT does it."""
    manager = parent.run_metadata.checkpoint_manager
    child.run_metadata.checkpoint_manager._latest_checkpoint_result = (
        manager._latest_checkpoint_result
    )
