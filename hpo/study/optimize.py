"""`optimize` and `load_result`: a study from what its user says to its result.

What breaks a rule is refused here, before anything is written. Then a call opens the journal, takes
a driver's lease on it and lets :mod:`hpo.study.driver` drive until the budget is used.
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hpo.errors import BudgetError, SpaceError
from hpo.optimizer.ask_tell import Optimizer, check_surrogate
from hpo.optimizer.recommend import check_target
from hpo.optimizer.result import Result
from hpo.scaling.claims import TransferRule
from hpo.scaling.drift_prior import check_priors, drift_prior
from hpo.schedulers import IterativeDeepening, Scheduler
from hpo.space import DirectionName, Fidelity, Parameter, SearchSpace
from hpo.space.encoding import Encoder
from hpo.study.callbacks import Callback, StudyState
from hpo.study.checkpoints import CheckpointStore, study_folder
from hpo.study.driver import Driver, replay
from hpo.study.lease import Lease, LeaseRenewer
from hpo.study.process_runner import ProcessRunner
from hpo.study.progress import Progress
from hpo.study.runners import InlineRunner, Runner, Task, TrainFunction
from hpo.study.storage import DEFAULT_STORAGE, Journal
from hpo.trials.budget import Budget

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage


def optimize(
    train_fn: TrainFunction,
    space: Mapping[str, Parameter | BaseDistribution] | SearchSpace,
    *,
    budget: Budget,
    cost: str | None = None,
    direction: DirectionName = "minimize",
    target: Mapping[str, float] | None = None,
    confirm: int = 0,
    scheduler: Scheduler | None = None,
    surrogate: str = "auto",
    priors: Sequence[TransferRule] | None = None,
    workers: int = 1,
    runner: Runner | None = None,
    warm_start: bool = False,
    callbacks: Sequence[Callback] = (),
    name: str | None = None,
    storage: str | BaseStorage | None = None,
    seed: int = 0,
) -> Result:
    """Search `space` for the config with which `train_fn` does best, within `budget`.

    Args:
        train_fn: called as `train_fn(config, ctx)`. Returns the loss, or a dict with "loss",
            perhaps "cost" and any other metric. May report on its way with `ctx.report`, and save
            and load its state with `ctx.save` and `ctx.load`.
        space: parameters by name.
        budget: totals over all calls with the same name, and limits of each trial. A running trial
            is told to stop at its next report once the seconds or the cost are used up.
        cost: unit of the costs. None and "seconds" measure wall-clock seconds of each trial, and
            "seconds" (as any scale axis) makes the search weigh them; a "seconds" cost that is
            reported replaces the measured one. Any other unit, such as "flops", must be reported
            by `train_fn`.
        direction: "minimize" or "maximize" the loss.
        target: one value for each scale axis, where the final training will be.
        confirm: runs of the recommendation (at the target) after the search, on top of the
            budget and free of its limits on time and cost; each is learned from before the next.
        scheduler: who starts, pauses, is promoted, stops or is cloned (:mod:`hpo.schedulers`). None
            trains every config to the end.
        surrogate: who models the loss: a Gaussian process ("gp"), conformalized quantile trees
            ("quantile", without scale axes), or both by turns as their forecasts of this study
            deserve ("auto"; see :mod:`hpo.models.surrogate_selector`).
        priors: transfer rules about how the best settings move with scale, such as
            `[MuP(), TokenHorizon()]` (:mod:`hpo.scaling.transfer_rules`); None is the neutral prior, weak and
            zero-mean. Like `target` they are not stored: a resumed study uses those of its call.
        workers: trials at a time. One runs inside this process, unless a limit on its time or
            memory is set; otherwise each trial has its own process.
        runner: where trials run, in place of that choice.
        warm_start: keep what the best finished trial saved last, and show it to each trial that is
            begun afterwards as `ctx.parent_checkpoint`. What a trial makes of it is up to
            `train_fn`. Its loss then depends on the trials before it, which no model here knows of,
            so the best config may not do as well from nothing; runs of `confirm` see none.
        callbacks: told of every step. A live view on a terminal is added unless a `Progress` is
            among them.
        name: makes the study durable; the same name goes on where it ended, with the same budget
            or a larger one.
        storage: an Optuna storage or its URL; by default the SQLite file scaletune.db here.
        seed: of every random choice.

    Returns:
        The result so far, also after Ctrl-C.

    Raises:
        TypeError, ValueError: for an argument, or a return value of `train_fn`, that breaks a rule.
            `SpaceError` and `BudgetError` are ValueErrors.
        StudyError: if the storage cannot be used, or holds a different study under this name; or
            if `train_fn` raised in each of the first 10 trials.
    """
    space = space if isinstance(space, SearchSpace) else SearchSpace(space)
    _check_arguments(train_fn, budget, cost, direction, confirm, scheduler, workers, name, seed)
    if storage is not None and name is None:
        raise ValueError(
            f"storage= needs name=, got storage={storage!r} alone; name the study, so that it can "
            "be found again"
        )
    if target is not None:
        target = check_target(space, target)
    drift_prior(check_priors(priors), space, Encoder(space).columns)  # refused before any writing
    check_surrogate(surrogate, space)
    call = _Call(
        train_fn=train_fn,
        space=space,
        cost=cost,
        direction=direction,
        target=target,
        confirm=confirm,
        scheduler=scheduler,
        priors=priors,
        surrogate=surrogate,
        workers=workers,
        runner=runner,
        warm_start=warm_start,
        callbacks=tuple(callbacks),
        name=name,
        storage=storage,
        seed=seed,
    )
    return call.drive(budget)


@dataclass(frozen=True, slots=True)
class _Call:
    """The checked arguments of `optimize`, so that its result can go on from where it ended.

    `folder`: for the checkpoints of a study in memory, whose name its user never gave.
    """

    train_fn: TrainFunction
    space: SearchSpace
    cost: str | None
    direction: DirectionName
    target: Mapping[str, float] | None
    confirm: int
    scheduler: Scheduler | None
    priors: Sequence[TransferRule] | None
    surrogate: str
    workers: int
    runner: Runner | None
    warm_start: bool
    callbacks: tuple[Callback, ...]
    name: str | None
    storage: str | BaseStorage | None
    seed: int
    folder: _Folder | None = None

    def drive(self, budget: Budget) -> Result:
        """See `optimize`."""
        if self.scheduler is not None:  # refused before any writing
            self.scheduler.begin(self.space, direction=self.direction, seed=self.seed)
        watchers = _watchers(self.callbacks)
        runner = self.runner or _runner_for(budget, self.workers)
        task = Task(self.train_fn, self.space.fidelity, self.space.scales, budget.limits)
        driver: Driver
        runner.open(task, lambda trial, report: driver.decide(trial, report), self.workers)
        folder = self.folder
        if folder is None and self.name is None:
            folder = _Folder()
        try:
            journal = Journal.open(
                name=self.name,
                storage=self.storage,
                space=self.space,
                direction=self.direction,
                cost=self.cost,
                seed=self.seed,
                scheduler=None if self.scheduler is None else _settings(self.scheduler),
            )
            with _leased(journal) as (index, owner):
                base = _checkpoint_base(self.storage) if folder is None else folder.path
                checkpoints = _checkpoints(journal, base, index)
                optimizer = Optimizer(
                    self.space,
                    direction=self.direction,
                    cost=self.cost,
                    budget=budget,
                    target=self.target,
                    priors=self.priors,
                    surrogate=self.surrogate,
                    seed=self.seed,
                    driver=index,
                )
                schedule = None
                if self.scheduler is not None:
                    schedule = self.scheduler.begin(
                        self.space,
                        direction=self.direction,
                        seed=self.seed,
                        forecast=optimizer.forecast,
                    )
                driver = Driver(
                    optimizer=optimizer,
                    journal=journal,
                    runner=runner,
                    run=StudyState(
                        self.name,
                        self.direction,
                        self.cost,
                        self.target,
                        self.workers,
                        optimizer.log,
                        optimizer.ledger,
                    ),
                    watchers=watchers,
                    schedule=schedule,
                    checkpoints=checkpoints,
                    warm_start=self.warm_start,
                    seed=self.seed,
                    index=index,
                    owner=owner,
                )
                result = driver.drive(self.confirm)
        finally:
            runner.close()
            if folder is not None and self.scheduler is None:
                folder.remove()  # else it goes with the last result that could go on from it
        if self.scheduler is None:
            return result
        call = self
        if not journal.durable:
            call = replace(
                self, name=journal.study.study_name, storage=journal.storage, folder=folder
            )
        return replace(result, onward=call.extend)

    def extend(self, max_fidelity: int, budget: Budget | None) -> Result:
        """See `Result.extend`."""
        name = self.space.fidelity
        assert name is not None
        before = self.space[name]
        assert isinstance(before, Fidelity)
        if max_fidelity < before.high:
            raise SpaceError(
                f"`max_fidelity` must be at least the {before.high} that the study had, got "
                f"{max_fidelity}; a fidelity only grows"
            )
        if budget is None and not isinstance(self.scheduler, IterativeDeepening):
            raise BudgetError(
                f"extend() needs a budget under {self.scheduler!r}, which ends with nothing else; "
                "give one, larger than what the study has spent: Budget(cost=...)"
            )
        space = SearchSpace({**self.space, name: Fidelity(before.low, max_fidelity)})
        return replace(self, space=space).drive(budget or Budget())


class _Folder:
    """A temporary folder that goes when it is removed or nobody has this object any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="scaletune-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def load_result(
    name: str,
    *,
    storage: str | BaseStorage | None = None,
    target: Mapping[str, float] | None = None,
    priors: Sequence[TransferRule] | None = None,
) -> Result:
    """What a durable run has found so far, without going on with it; nothing is written.

    Args:
        name, storage: as given to :func:`optimize`.
        target, priors: as there; neither is stored with the run.

    Raises:
        StudyError: if there is no such run, or it cannot be read.
        SpaceError: for a target or priors that do not fit its space.
    """
    journal, header = Journal.read(name=name, storage=storage)
    optimizer = Optimizer(
        SearchSpace.from_fingerprint(header["space"]),
        direction=header["direction"],
        cost=header["cost"],
        target=target,
        priors=priors,
        seed=header["seed"],
    )
    replay(optimizer, journal.entries())
    return replace(optimizer.result(), study=journal.study)


def _settings(scheduler: Scheduler) -> str:
    """How a scheduler is told from another one in storage."""
    text = repr(scheduler)
    return type(scheduler).__qualname__ if " object at 0x" in text else text


@contextmanager
def _leased(journal: Journal) -> Iterator[tuple[int, str]]:
    """Hold a driver's lease on the study; gives the driver's index and the lease's owner."""
    lease = Lease.take()
    index = journal.claim(lease)
    keeper = LeaseRenewer(lambda: journal.keep(index, lease.renewed()))
    try:
        with keeper if journal.durable else nullcontext():
            yield index, lease.owner
    finally:
        journal.keep(index, lease.released())


def _runner_for(budget: Budget, workers: int) -> Runner:
    """Inline where nothing speaks for processes."""
    limits = budget.limits
    if workers == 1 and limits.seconds is None and limits.memory is None:
        return InlineRunner()
    return ProcessRunner()


def _checkpoints(journal: Journal, base: Path, driver: int) -> CheckpointStore:
    """The store of a study under `base`; `driver` is the index that was claimed."""
    name, unnamed = journal.study.study_name, not journal.has_identity
    identity = journal.identity(driver)
    store = CheckpointStore(study_folder(base, name, identity), identity)
    before = quote(name, safe="")
    if unnamed and driver == 0 and before not in (".", "..") and journal.entries():
        store.take_over(base / before)  # where 0.1 kept them
    return store


def _checkpoint_base(storage: str | BaseStorage | None) -> Path:
    """Folder for the checkpoints of named runs: beside an SQLite file, else in the current one."""
    from sqlalchemy.engine import make_url

    if storage is None or isinstance(storage, str):
        url = make_url(storage or DEFAULT_STORAGE)
        file = url.database
        if url.drivername.startswith("sqlite") and file and not file.startswith((":", "file:")):
            path = Path(file).absolute()
            return path.with_name(f"{path.stem}_checkpoints")
    return Path("scaletune_checkpoints").absolute()


def _watchers(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks, with a live view unless one is among them."""
    watchers = list(callbacks)
    for callback in watchers:
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks must derive from hpo.study.callbacks.Callback, got {callback!r}; "
                "derive from it and override what you need"
            )
    if not any(isinstance(callback, Progress) for callback in watchers):
        watchers.append(Progress())
    return watchers


def _check_arguments(
    train_fn: object,
    budget: object,
    cost: object,
    direction: object,
    confirm: object,
    scheduler: object,
    workers: object,
    name: object,
    seed: object,
) -> None:
    """Refuse what breaks a rule, with the way out."""
    if not callable(train_fn):
        raise TypeError(
            f"train_fn must be callable as train_fn(config, ctx), got {train_fn!r}; "
            "pass the function itself"
        )
    try:
        signature = inspect.signature(train_fn)
    except ValueError:  # some callables written in C have none
        pass
    else:
        try:
            signature.bind({}, None)
        except TypeError as mismatch:
            raise TypeError(
                f"train_fn must be callable as train_fn(config, ctx), got {train_fn!r}, for which "
                f"{mismatch}; change its parameters"
            ) from None
    if not isinstance(budget, Budget):
        raise TypeError(f"budget must be a Budget, got {budget!r}; write Budget(trials=60)")
    if not budget.bounded:
        raise BudgetError(
            f"a budget needs at least one of trials, seconds and cost to end, got {budget}; "
            "write Budget(trials=60)"
        )
    if cost is not None and (not isinstance(cost, str) or not cost):
        raise TypeError(
            f'cost must be None or the name of a unit, got {cost!r}; write cost="seconds" or '
            'cost="flops"'
        )
    if direction not in ("minimize", "maximize"):
        raise ValueError(f'direction must be "minimize" or "maximize", got {direction!r}')
    _check_count("confirm", confirm, 0)
    _check_count("workers", workers, 1)
    _check_count("seed", seed, 0)
    if scheduler is not None and not callable(getattr(scheduler, "begin", None)):
        raise TypeError(
            f"scheduler must be one of hpo.schedulers, such as ASHA(eta=3), got {scheduler!r}; "
            "derive your own stopping rule from hpo.schedulers.StoppingRule"
        )
    if name is not None and (not isinstance(name, str) or not 0 < len(name) <= 200):
        raise ValueError(
            f"name must be a text of 1 to 200 characters or None, got {name!r}; "
            "None keeps the study in memory"
        )


def _check_count(argument: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{argument} must be an int of at least {least}, got {value!r}")
