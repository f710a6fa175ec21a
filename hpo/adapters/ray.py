"""The engine as a guest of Ray Tune, and Ray as a place where `optimize` runs its trials.

    searcher = ScaleTuneSearcher(space, scheduler=ASHA(), cost="flops", metric="loss", mode="min")
    tuner = tune.Tuner(
        train,
        tune_config=tune.TuneConfig(
            search_alg=searcher, scheduler=ScaleTuneScheduler(), num_samples=60
        ),
    )

Ray asks a searcher for configs and a scheduler what becomes of results, and knows nothing of their
being one. Here the searcher holds everything: the engine, its log and the schedule over it; the
scheduler finds its searcher in the controller and is the hand that pauses, promotes, clones and
stops Ray's trials. Saved state is JSON: the events of the log.

    optimize(train, space, budget=..., workers=16, runner=RayRunner(gpus=0.5))

runs each trial on whatever machine of the cluster is free, in a process of its own there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.sample import Domain

from hpo.adapters.events import events_to_json, replay
from hpo.adapters.remote import Outcome, RemoteRunner, ReportMessage, Request, host
from hpo.errors import StudyError
from hpo.optimizer.ask_tell import Optimizer
from hpo.optimizer.multi_fidelity import StagedOptimizer
from hpo.scaling.claims import TransferRule
from hpo.schedulers import Clone, Decision, Promote, Schedule, Scheduler, Setup, Start
from hpo.space import Parameter, SearchSpace
from hpo.space.encoding import Direction
from hpo.trials import Cause, Report, Trial, TrialLog
from hpo.trials.records import SECONDS

__all__ = ["RayRunner", "ScaleTuneScheduler", "ScaleTuneSearcher"]


class ScaleTuneSearcher(Searcher):
    """Proposes configs to Ray Tune and learns from every result, failed and stopped ones too.

    Args:
        space: as for `hpo.optimize`; pass no `param_space` for the same names to the tuner.
        metric, mode: the result entry that is the loss, to be brought to its "min" or "max".
        scheduler: who pauses, is promoted, stops or is cloned; give the tuner a
            `ScaleTuneScheduler` to carry it out.
        step: the result entry that counts the fidelity, such as an epoch.
        cost: unit of the costs, and the result entry that holds a trial's so far; "seconds" are
            Ray's `time_total_s` where there is none.
        target, priors, surrogate, seed: as for `hpo.optimize`.

    Raises:
        SpaceError, ValueError: for arguments that `hpo.optimize` would refuse.
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
        priors: Sequence[TransferRule] | None = None,
        surrogate: str = "auto",
        seed: int = 0,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f'`mode` must be "min" or "max", got {mode!r}; say which is better')
        super().__init__(metric=metric, mode=mode)
        self._loss_name = metric
        self._direction: Direction = "minimize" if mode == "min" else "maximize"
        self._space = SearchSpace(space)
        self._scheduler = scheduler
        self._step = step
        self._cost = cost
        self._target = target
        self._priors = priors
        self._surrogate = surrogate
        self._seed = seed
        self._most: int | None = None  # trials at a time
        self._numbers: dict[str, int] = {}  # of the trials that Ray's now carry
        self._stopping: set[str] = set()
        self._engine: Optimizer | None = None
        self._build([])  # refuses bad arguments at once

    # --- what Ray asks ----------------------------------------------------------------------------

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        """Whether the tuner's `param_space` holds constants only; the space to search is ours."""
        return not _is_searched(config)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Count here, because a paused trial must not take up a place."""
        self._most = max_concurrent
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A config; None while other trials must come first; FINISHED when none ever will."""
        if self._most is not None and len(self.log.pending) >= self._most:
            return None
        action = self.peek(may_start=True)
        if action is None and not self.log.pending and not self.log.paused:
            return str(Searcher.FINISHED)
        if not isinstance(action, Start):
            return None
        if self._staged is None:
            assert self._engine is not None
            trial = self._engine.ask()
        else:
            asked = self._staged.ask()
            assert asked is not None  # `peek` looks at the same log by the same rule
            trial = asked
        self._numbers[trial_id] = trial.number
        return dict(trial.config)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Learn of a report."""
        report = self._report(result)
        if report is not None and trial_id in self._numbers:
            self.log.report(self._numbers[trial_id], report)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn how a trial ended."""
        number = self._numbers.get(trial_id)
        if number is None:
            return
        if self.log.observation(number) is not None and not self.rests(trial_id):
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
        """Learn from a run made elsewhere."""
        assert self._engine is not None
        config = {name: parameters[name] for name in self._space if name in parameters}
        failed = Cause.ERROR if error else None
        self._engine.tell(config, None if error else value, failed=failed, stopped=pruned)

    # --- what its scheduler asks ------------------------------------------------------------------

    @property
    def log(self) -> TrialLog:
        """Everything that was asked and told."""
        assert self._engine is not None
        return self._engine.log

    @property
    def optimizer(self) -> Optimizer:
        """The engine, for its `recommend` and `result`."""
        assert self._engine is not None
        return self._engine

    def peek(self, *, may_start: bool) -> Start | Promote | Clone | None:
        """What the schedule would have a free worker do, without doing it."""
        if self._schedule is None:
            return Start(None) if may_start else None
        return self._schedule.next(self.log, may_start=may_start)

    def rests(self, trial_id: str) -> bool:
        """Whether Ray's trial of that id waits to be promoted."""
        number = self._numbers.get(trial_id)
        return number is not None and any(o.number == number for o in self.log.paused)

    def go_on(
        self, ready: Callable[[str], bool], *, may_start: bool
    ) -> tuple[str, Trial, str | None] | None:
        """Resume or clone what the schedule promotes now, if anything.

        `ready`: whether Ray's trial of that id has come to rest, which takes it a moment.

        Returns the id of Ray's trial that carries it on, the trial, and for a clone the id of Ray's
        trial whose checkpoint it starts from.
        """
        action = self.peek(may_start=may_start)
        if self._staged is None or not isinstance(action, Promote | Clone):
            return None
        carriers = {number: trial_id for trial_id, number in self._numbers.items()}
        moved = [action.number] if isinstance(action, Promote) else [action.replaces, action.parent]
        if not all(ready(carriers[number]) for number in moved):
            return None
        if isinstance(action, Promote):
            trial = self._staged.ask(may_start=may_start)
            assert trial is not None
            return carriers[action.number], trial, None
        clone = self._staged.ask(may_start=may_start)
        assert clone is not None
        carrier = carriers[action.replaces]
        self._numbers[carrier] = clone.number
        return carrier, clone, carriers[action.parent]

    def decide(self, trial_id: str, result: dict[str, Any]) -> Decision:
        """What becomes of a running trial after a result; told at once if it rests."""
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
            return Decision.STOP  # at its end, to be told complete
        self._tell(number, loss=report.loss, result=result)
        return Decision.PAUSE

    def give_up(self, trial_id: str) -> None:
        """A promoted trial cannot go on in Ray."""
        self._tell(self._numbers[trial_id], failed=Cause.ERROR, result={})

    # --- state ------------------------------------------------------------------------------------

    def save(self, checkpoint_path: str) -> None:
        """Write the log and Ray's ids as JSON."""
        state = {
            "events": events_to_json(self.log),
            "numbers": self._numbers,
            "stopping": sorted(self._stopping),
        }
        Path(checkpoint_path).write_text(json.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Read what `save` wrote; raises StudyError for anything else."""
        try:
            state = json.loads(Path(checkpoint_path).read_text())
            self._numbers = {str(k): int(v) for k, v in state["numbers"].items()}
            self._stopping = set(state["stopping"])
            events = state["events"]
        except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise StudyError(
                f"{checkpoint_path} holds no state of a ScaleTuneSearcher ({error!r}); restore "
                "from the file or folder that it was saved to"
            ) from error
        self._build(events)

    def __getstate__(self) -> dict[str, Any]:
        """Settings and the log's events: what was fitted is rebuilt."""
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
        """The engine, with what is stored of its log."""
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
            shared = _Shared(self._scheduler)
            self._staged = StagedOptimizer(engine, shared, seed=self._seed)
            self._schedule = shared.begun

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
        teller = self._staged or self._engine
        seconds = _number(result.get("time_total_s"))
        teller.tell(
            self.log.trial(number),
            loss,
            self._paid(result),
            failed=failed,
            stopped=stopped,
            seconds=seconds,
        )

    def _report(self, result: Mapping[str, Any]) -> Report | None:
        step = result.get(self._step)
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or step < 0:
            return None
        return Report(int(step), self._loss(result), self._paid(result))

    def _loss(self, result: Mapping[str, Any]) -> float | None:
        return _number(result.get(self._loss_name))

    def _paid(self, result: Mapping[str, Any]) -> float | None:
        """Cost so far."""
        cost = _number(result.get(self._cost)) if self._cost else None
        if cost is None and self._cost in (None, SECONDS):
            cost = _number(result.get("time_total_s"))
        return cost if cost is not None and math.isfinite(cost) and cost >= 0 else None


class _Shared(Scheduler):
    """A scheduler whose schedule two may ask: what to do next, and what would be next."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.begun: Schedule | None = None

    def schedule(self, setup: Setup) -> Schedule:
        """See `Scheduler`."""
        self.begun = self._scheduler.schedule(setup)
        return self.begun


class ScaleTuneScheduler(TrialScheduler):
    """Carries out what the `scheduler=` of the tuner's `ScaleTuneSearcher` decides.

    Runs pause and are promoted from Ray's own checkpoints: report one with each result. Under `PBT`
    a member that is replaced becomes a clone of another: its checkpoint, a changed config.
    """

    _supports_buffered_results = False

    def __init__(self) -> None:
        self._metric: str | None = None
        super().__init__()
        self._waiting: list[str] = []  # ids of trials to be resumed

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        """Let a restored trial rest again if it did: Ray queues all that had not ended."""
        if trial.status == RayTrial.PENDING and _searcher(tune_controller).rests(trial.trial_id):
            trial.set_status(RayTrial.PAUSED)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        """Nothing: the searcher is told."""

    def on_trial_complete(
        self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]
    ) -> None:
        """Nothing: the searcher is told."""

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        """Nothing: the searcher is told."""

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Continue, pause or stop `trial`."""
        decision = _searcher(tune_controller).decide(trial.trial_id, result)
        answers: dict[Decision, str] = {
            Decision.CONTINUE: TrialScheduler.CONTINUE,
            Decision.PAUSE: TrialScheduler.PAUSE,
            Decision.STOP: TrialScheduler.STOP,
        }
        return answers[decision]

    def choose_trial_to_run(self, tune_controller: Any) -> RayTrial | None:
        """A promoted or cloned trial if there is one, else one that has not started."""
        trials = {trial.trial_id: trial for trial in tune_controller.get_trials()}
        self._waiting = [i for i in self._waiting if trials[i].status == RayTrial.PAUSED]
        searcher = _searcher(tune_controller)
        may_start = not tune_controller.search_alg.is_finished()
        if not self._waiting:
            self._promote(searcher, trials, may_start)
        if self._waiting:
            return trials[self._waiting[0]]
        pending = [t for t in trials.values() if t.status == RayTrial.PENDING]
        if pending:
            return pending[0]
        running = any(t.status == RayTrial.RUNNING for t in trials.values())
        if not running and searcher.peek(may_start=may_start) is None:
            for trial in trials.values():  # nobody is coming that could promote them
                if trial.status == RayTrial.PAUSED:
                    tune_controller.stop_trial(trial)
        return None

    def debug_string(self) -> str:
        """One line for Ray's console."""
        return f"ScaleTuneScheduler: {len(self._waiting)} trials to be resumed"

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept here but what can be asked again."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def _promote(
        self, searcher: ScaleTuneSearcher, trials: Mapping[str, RayTrial], may_start: bool
    ) -> None:
        def ready(trial_id: str) -> bool:
            return trials[trial_id].status != RayTrial.RUNNING and not trials[trial_id].is_saving

        going = searcher.go_on(ready, may_start=may_start)
        if going is None:
            return
        trial_id, trial, parent = going
        carrier = trials[trial_id]
        if carrier.status != RayTrial.PAUSED:
            searcher.give_up(trial_id)  # Ray has ended it, and revives nothing
            return
        if parent is not None:
            _inherit(carrier, trials[parent])
            carrier.set_config({**carrier.config, **trial.config})
        self._waiting.append(trial_id)


def _searcher(tune_controller: Any) -> ScaleTuneSearcher:
    """The searcher behind a controller, through limiters and repeaters."""
    searcher = getattr(tune_controller.search_alg, "searcher", None)
    while searcher is not None and not isinstance(searcher, ScaleTuneSearcher):
        searcher = getattr(searcher, "searcher", None)
    if searcher is None:
        raise StudyError(
            "ScaleTuneScheduler works with a ScaleTuneSearcher alone; pass "
            "TuneConfig(search_alg=ScaleTuneSearcher(space, scheduler=...))"
        )
    return searcher


def _inherit(child: RayTrial, parent: RayTrial) -> None:
    """Let `child` start from `parent`'s checkpoint, in the way Ray's own PBT does it."""
    manager = parent.run_metadata.checkpoint_manager
    child.run_metadata.checkpoint_manager._latest_checkpoint_result = (
        manager._latest_checkpoint_result
    )


def _is_searched(config: Mapping[str, Any]) -> bool:
    """Whether a `param_space` holds anything to be searched, which is not ours to sample."""
    return any(
        isinstance(value, Domain)
        or (isinstance(value, Mapping) and ("grid_search" in value or _is_searched(value)))
        for value in config.values()
    )


def _number(value: Any) -> float | None:
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        value = item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


# --- Ray as a runner ------------------------------------------------------------------------------


class RayRunner(RemoteRunner):
    """Runs each trial on a machine of a Ray cluster, in a process of its own there.

    Limits on time and memory hold as with local processes. Checkpoints are files, so the folder of
    the run must be one that all machines see.

    Args:
        cpus, gpus: that one trial takes; a fraction of a GPU lets several share it.
        address: of the cluster, as in `ray.init`; None uses the one that is connected, or starts
            one here.
    """

    def __init__(self, *, cpus: float = 1.0, gpus: float = 0.0, address: str | None = None) -> None:
        super().__init__()
        self._resources = {"num_cpus": cpus, "num_gpus": gpus}
        self._address = address
        self._ours = False  # whether the connection is ours to end
        self._mail: Any = None
        self._references: dict[int, Any] = {}

    def _connect(self, workers: int) -> None:
        if not ray.is_initialized():
            ray.init(address=self._address, include_dashboard=False, log_to_driver=False)
            self._ours = True
        # Zero CPUs, or the mailbox would take a trial's place on a small cluster.
        self._mail = ray.remote(num_cpus=0)(_MailActor).remote()

    def _launch(self, number: int, request: Request) -> None:
        options = {**self._resources, "max_retries": 0}
        run = ray.remote(**options)(_run_under_ray)
        self._references[number] = run.remote(request, self._mail)

    def _letters(self) -> list[ReportMessage]:
        letters: list[ReportMessage] = ray.get(self._mail.collect.remote())
        return letters

    def _answer(self, letter: ReportMessage, decision: Decision) -> None:
        self._mail.answer.remote(letter.number, decision)

    def _ended(self, timeout: float) -> dict[int, Outcome | Exception]:
        numbers = {reference: number for number, reference in self._references.items()}
        done, _ = ray.wait(list(numbers), num_returns=1, timeout=timeout)
        ended: dict[int, Outcome | Exception] = {}
        for reference in done:
            number = numbers[reference]
            try:
                ended[number] = ray.get(reference)
            except ray.exceptions.RayError as error:
                ended[number] = error
            self._references.pop(number)
        return ended

    def _out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, ray.exceptions.OutOfMemoryError)

    def _end(self, number: int) -> None:
        reference = self._references.pop(number, None)
        if reference is not None:
            ray.cancel(reference, force=True)

    def _disconnect(self) -> None:
        if self._mail is not None:
            ray.kill(self._mail)
            self._mail = None
        if self._ours:
            ray.shutdown()
            self._ours = False


class _MailActor:
    """Letters from trials to their driver, and its answers."""

    def __init__(self) -> None:
        self._letters: list[ReportMessage] = []
        self._answers: dict[int, Decision] = {}

    def send(self, letter: ReportMessage) -> None:
        self._letters.append(letter)

    def collect(self) -> list[ReportMessage]:
        letters, self._letters = self._letters, []
        return letters

    def answer(self, number: int, decision: Decision) -> None:
        self._answers[number] = decision

    def fetch(self, number: int) -> Decision | None:
        return self._answers.pop(number, None)


class _RayMailbox:
    """The trial's end of the mail."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def send(self, letter: ReportMessage) -> None:
        ray.get(self._actor.send.remote(letter))

    def fetch(self, number: int) -> Decision | None:
        decision: Decision | None = ray.get(self._actor.fetch.remote(number))
        return decision

    def killed(self) -> bool:
        return False  # Ray kills this process, and the trial's goes with it


def _run_under_ray(request: Request, mail: Any) -> Outcome:
    return host(request, _RayMailbox(mail))
