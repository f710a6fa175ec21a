"""`optimize` and `load_result`: the way into a study and back to its result.

A call that breaks a rule is refused here, before anything is written. Then it opens the storage,
takes a driver's lease on the study, and lets :mod:`hpo.study.driver` drive until the budget is
used.
"""

from __future__ import annotations

import inspect
import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hpo.errors import BudgetError, SpaceError, StudyError
from hpo.optimizer.ask_tell import Optimizer, wanted_objectives
from hpo.optimizer.result import Result
from hpo.optimizer.trial_table import Attempt
from hpo.scaling.claims import Priors
from hpo.schedulers import Scheduler
from hpo.schedulers.base import check_scheduler
from hpo.space import Direction, DirectionName, Fidelity, Parameter, SearchSpace
from hpo.space.arguments import Count, Flag, Kind, Row
from hpo.space.predicate import Where
from hpo.space.scalars import shown
from hpo.study.callbacks import Callback, StudyState
from hpo.study.checkpoints import LONGEST_FILE_NAME, CheckpointStore, bounded, study_folder
from hpo.study.driver import Driver, StudyOptions, passed_over
from hpo.study.lease import Lease, LeaseRenewer
from hpo.study.process_runner import ProcessRunner
from hpo.study.progress import Progress
from hpo.study.runners import InlineRunner, Runner, Task, TrainFunction
from hpo.study.storage import (
    ForeignStudyError,
    StudyStorage,
    check_texts,
    sqlite_file,
    without_password,
)
from hpo.study.takeover import Elsewhere, replay, seconds_driven
from hpo.trials.budget import Budget
from hpo.trials.default_cost import DefaultCost
from hpo.trials.other_tasks import GivenTasks, changes, fingerprint, read_other_tasks
from hpo.trials.read_runs import History, earlier_runs, read_runs
from hpo.trials.records import UNIT

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

_MOST = 10_000  # workers, and runs of the recommendation
_log = logging.getLogger(__name__)


def optimize(
    train_fn: TrainFunction,
    space: Mapping[str, Parameter | BaseDistribution] | SearchSpace,
    *,
    budget: Budget,
    where: Where | None = None,
    cost: str | None = None,
    direction: DirectionName = "minimize",
    target: Mapping[str, float] | None = None,
    confirm: int = 0,
    scheduler: Scheduler | None = None,
    surrogate: str = "auto",
    priors: Priors = None,
    workers: int = 1,
    runner: Runner | None = None,
    warm_start: bool = False,
    callbacks: Sequence[Callback] = (),
    name: str | None = None,
    storage: str | BaseStorage | None = None,
    seed: int = 0,
    raise_on_error: bool = False,
    other_tasks: GivenTasks = None,
    history: History = None,
    objectives: Mapping[str, str] | None = None,
    constraints: Mapping[str, tuple[str, float]] | None = None,
) -> Result:
    """Search `space` for the config with which `train_fn` does best, within `budget`.

    Args:
        train_fn: Training function, called as `train_fn(config, ctx)`. It returns the loss, or a
            dict with "loss", perhaps "cost" and any other metric. "branches" lists losses that the
            run found on its way as those of runs of other sizes, `{"tokens": 1e6, "loss": 2.5}`. It
            may report progress with `ctx.report`, and save and load its state with `ctx.save` and
            `ctx.load`; see :class:`hpo.Context`.
        space: Parameters by name.
        budget: Totals over all calls with the same name, and limits of each trial. A running trial
            is told to stop at its next report once the seconds or the cost are used up.
        where: Function of a config that returns True if it may run, such as
            `lambda c: c["heads"] * c["head_dim"] <= 4096`; see :class:`SearchSpace`. Only such
            configs are proposed and recommended. It is not stored: a resumed study uses that of its
            call, and says which stored trials it forbids.
        cost: Unit of the costs. "seconds" measures those of each trial, or takes what it reports;
            any other unit, such as "flops", must be reported by `train_fn`. Naming one (as any
            scale axis) makes the search weigh costs. None derives them from the config, so that
            wall-clock time decides nothing: 6 N D FLOPs where the space has axes of parameters and
            tokens, else the level of the fidelity that was trained, else none
            (:mod:`hpo.trials.default_cost`).
        direction: Direction of the loss, "minimize" or "maximize".
        target: Value of each scale axis at which the final training will be.
        confirm: Number of runs of the recommendation (at the target) after the search, on top of
            the budget and free of its limits on time and cost. Each is learned from before the
            next.
        scheduler: Scheduler that starts, pauses, promotes, stops or clones runs
            (:mod:`hpo.schedulers`). None trains every config to the end.
        surrogate: Model of the loss: "gp" (Gaussian process), "quantile" (conformalized quantile
            forest, without scale axes), or "auto", which mixes both in proportion to their forecast
            skill in this study (:mod:`hpo.models.surrogate_selector`).
        priors: Transfer rules about how the best settings move with scale, such as
            `[MuP(), TokenHorizon()]` (:mod:`hpo.scaling.transfer_rules`). They compete, and the
            runs decide how much each counts (`print(result.scaling_law)`). None lets every
            published rule compete that finds its roles and axes in the space; `Neutral()` leaves
            the neutral prior alone, weak and zero-mean. Like `target` they are not stored: a
            resumed study uses those of its call.
        workers: Number of trials at a time. One runs inside this process, unless a limit on its
            time or memory is set; otherwise each trial has its own process.
        runner: Runner of the trials, in place of that choice.
        warm_start: Whether to keep what the best finished trial saved last, and to show it to each
            trial that is begun afterwards as `ctx.parent_checkpoint`, for `train_fn` to use. The
            loss then depends on the trials before it, which the models do not know, so the best
            config may not do as well from nothing; runs of `confirm` see no such state.
        callbacks: Callbacks, called at every step. A live view on a terminal is added unless a
            `Progress` is among them.
        name: Name that makes the study durable: a call with the same name continues where it ended,
            with the same budget or a larger one.
        storage: Optuna storage or its URL; by default the SQLite file scaletune.db in the current
            folder.
        seed: Seed of every random choice. With `workers=1` the same seed asks for the same configs
            in every run, as long as `train_fn` returns the same; with more, what is asked depends
            on which trial ends first. Measured time decides only under `cost="seconds"` and where
            a limit in seconds is set.
        raise_on_error: Whether the first trial that raises ends the study, with a `StudyError` that
            holds its traceback. False takes it for a failure of its config (cause `error`) and
            continues, unless the first trials all raise. Running out of memory, diverging and
            exceeding a limit never end a study.
        other_tasks: Runs of other tasks in the same space, by a name for each: what `read_runs`
            returns or can read, a :class:`Result`, or a list of (config, loss). The search starts
            with what did best on them and learns from each as far as it agrees with this task
            (:mod:`hpo.models.other_tasks`); reasons say what each contributed. Like `priors` they
            are not stored, and a resumed study uses those of its call; if they changed, it says so.
            In a space with scale axes, the law of each becomes part of one more transfer rule about
            the drift and level of the best settings (:mod:`hpo.scaling.earlier_studies`).
        history: Earlier runs of this very task, to continue from: what `read_runs` returned or can
            read (a path, a DataFrame, an Optuna study), a `Result`, or observations. They are
            stored with the study as trials that were added to it, count as told and not against the
            budget, and are told once, whether the call is repeated or the source has grown. Runs
            that the space cannot hold are left out with a warning.
        objectives: "minimize" or "maximize" by name, for several objectives: `train_fn` returns a
            dict with all of them, and the search improves the front of them
            (docs/several_objectives.md). The first is what schedulers, predictions and pictures
            take for the loss; `direction` is left out.
        constraints: Pair of "<=" or ">=" and a limit by name, such as `{"memory": ("<=", 80e9)}`,
            for values that `train_fn` returns. Without `objectives` the loss is the only one.

    Returns:
        The result so far, also after Ctrl-C; then `result.interrupted` is True.

    Raises:
        TypeError: For an argument, or a return value of `train_fn`, of a wrong type.
        ValueError: For an argument, or a return value of `train_fn`, that breaks a rule.
            `SpaceError` and `BudgetError` are ValueErrors.
        StudyError: If the storage cannot be used, or holds a different study under this name; or
            if `train_fn` raised in each of the first 10 trials, or the same exception at the same
            line in each of the first 3, or in any under `raise_on_error`.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> def train(config, ctx):
        ...     return (config["x"] - 0.3) ** 2
        >>> result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=15), seed=0)
        >>> len(result.log), round(result.best.config["x"], 1)
        (15, 0.3)

        A study with a name is stored, and continues with the next call:

        >>> from optuna.storages import InMemoryStorage
        >>> storage = InMemoryStorage()  # a file by default
        >>> for trials in (2, 5):
        ...     result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=trials),
        ...                       name="mine", storage=storage)
        ...     print(len(result.log))
        2
        5
    """
    searched = space if isinstance(space, SearchSpace) else SearchSpace(space)
    wanted = wanted_objectives(objectives, constraints, direction, searched)
    if wanted is not None:
        direction = wanted.directions[wanted.first].value
    if where is not None:
        searched = SearchSpace(searched, where=where)
    options = StudyOptions(
        train_fn=train_fn,
        space=searched,
        budget=budget,
        cost=cost,
        direction=direction,
        target=target,
        confirm=Count(0, most=_MOST, way_out="0 runs none")(confirm, "`confirm`"),
        scheduler=scheduler,
        surrogate=surrogate,
        priors=priors,
        workers=Count(1, most=_MOST, way_out="1 runs in this process")(workers, "`workers`"),
        runner=runner,
        warm_start=Flag()(warm_start, "`warm_start`"),
        callbacks=_with_progress(callbacks),
        name=name,
        storage=storage,
        seed=Count(0, way_out="0 is usual")(seed, "`seed`"),
        raise_on_error=Flag()(raise_on_error, "`raise_on_error`"),
        other_tasks=read_other_tasks(other_tasks, searched, Direction.of(direction)),
        history=()
        if history is None
        else earlier_runs(history, searched, Direction.of(direction), cost),
        objectives=wanted,
    )
    _check(options)
    return _drive(options)


def load_result(
    name: str,
    *,
    storage: str | BaseStorage | None = None,
    target: Mapping[str, float] | None = None,
    priors: Priors = None,
    other_tasks: GivenTasks = None,
    where: Where | None = None,
) -> Result:
    """Return what a durable study has found so far, without continuing it; nothing is written.

    A study that was made with Optuna and another sampler is read as `read_runs` does.

    Args:
        name: Name of the study, as given to `optimize` or to Optuna.
        storage: Its storage, as given to `optimize`.
        target: Value of each scale axis of the final training; it is not stored with a study.
        priors: Transfer rules; they are not stored with a study.
        other_tasks: Runs of other tasks; they are not stored with a study.
        where: Function of a config that returns True if it may be recommended; it is not stored
            with a study, and a warning says so if the search had one.

    Raises:
        StudyError: If there is no such study, or it cannot be read.
        SpaceError: For a target or priors that do not fit its space.

    Example:
        >>> from hpo import Budget, Float, load_result, optimize
        >>> from optuna.storages import InMemoryStorage
        >>> storage = InMemoryStorage()
        >>> result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
        ...                   budget=Budget(trials=3), name="mine", storage=storage)
        >>> load_result("mine", storage=storage).best == result.best
        True
    """
    if name is None:
        raise ValueError("`name` must be the name of a study, got None; pass that of `optimize`")
    check_texts(name, storage)
    try:
        stored, header = StudyStorage.read(name=name, storage=storage)
    except ForeignStudyError as found:
        runs = read_runs(found.study)
        engine = Optimizer(
            SearchSpace(runs.space, where=where),
            direction=runs.direction,
            cost=runs.cost_unit,
            target=target,
            priors=priors,
        )
        engine.tell_many(runs)
        return replace(engine.result(), study=found.study)
    if where is None and stored.where is not None:
        _log.warning(
            "the study %r was searched with where=%s, which is not stored with it: pass where= so"
            " that recommendations keep it",
            name,
            stored.where,
        )
    optimizer = _read_back(
        stored,
        header,
        Budget(),
        where=where,
        target=target,
        priors=priors,
        other_tasks=other_tasks,
        **(header["objectives"] or {}),
    )
    attempts = partial(_attempts, stored)
    asked = (("seed", str(header["seed"])),)
    return replace(optimizer.result(), study=stored.study, attempts=attempts, asked=asked)


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored study as it is now.

    Attributes:
        state: What callbacks see of it, with its direction, log and what it has spent.
        drivers: Number of `optimize` calls that drive it now.
        running: Number of trials that they run.
        study: The Optuna study.
    """

    state: StudyState
    drivers: int
    running: int
    study: optuna.Study


def look_at(
    name: str, *, storage: str | BaseStorage | None = None, budget: Budget | None = None
) -> Stored:
    """Return how a study of `optimize` stands now; no model is fitted and nothing is written.

    Args:
        name: Name of the study.
        storage: Its storage, as given to `optimize`.
        budget: Budget to count against; it is not stored with a study.

    Raises:
        StudyError: If `optimize` made no such study, or it cannot be read.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> from optuna.storages import InMemoryStorage
        >>> storage = InMemoryStorage()
        >>> _ = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
        ...              budget=Budget(trials=3), name="mine", storage=storage)
        >>> now = look_at("mine", storage=storage)
        >>> now.state.ledger.spent.trials, now.drivers
        (3, 0)
    """
    check_texts(name, storage)
    stored, header = StudyStorage.read(name=name, storage=storage)
    optimizer = _read_back(stored, header, budget or Budget())
    living = {owner for owner, alive in stored.owners().items() if alive}
    running = [
        entry
        for entry in stored.entries()
        if entry.observation is None and not entry.paused and entry.asked.owner in living
    ]
    state = StudyState(
        name,
        header["direction"],
        header["cost"],
        None,
        len(running),
        optimizer.log,
        optimizer.ledger,
    )
    return Stored(state, len(living), len(running), stored.study)


def _read_back(
    stored: StudyStorage,
    header: Mapping[str, Any],
    budget: Budget,
    *,
    where: Where | None = None,
    **options: Any,
) -> Optimizer:
    """Return an optimizer that has learned all that a stored study holds."""
    optimizer = Optimizer(
        SearchSpace(SearchSpace.from_fingerprint(header["space"]), where=where),
        direction=header["direction"],
        cost=header["cost"],
        seed=header["seed"],
        budget=budget,
        **options,
    )
    elsewhere = Elsewhere.read(stored, optimizer)
    entries = stored.entries()
    for entry in entries:
        if entry.asked.confirming:
            optimizer.ledger.exclude(entry.number)
    replay(optimizer, entries, elsewhere.recorded)
    replay(optimizer, (), elsewhere.in_order(optimizer.log.next_order))
    optimizer.ledger.set_elapsed(sum(seconds_driven(entries).values()))
    return optimizer


def only_study(storage: str | BaseStorage | None) -> str:
    """Return the name of the only study in a storage.

    Args:
        storage: Optuna storage or its URL; None for the default file.

    Raises:
        StudyError: If there is none or another, or the storage cannot be read.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> from optuna.storages import InMemoryStorage
        >>> storage = InMemoryStorage()
        >>> _ = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
        ...              budget=Budget(trials=1), name="mine", storage=storage)
        >>> only_study(storage)
        'mine'
    """
    names = StudyStorage.names(storage)
    if len(names) != 1:
        raise StudyError(
            f"{without_password(storage)} must hold one study to go without a name, got"
            f" {names or 'none'}; name the study"
        )
    return names[0]


class _Folder:
    """A temporary folder that is deleted when it is removed or this object is no longer used."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="scaletune-"))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _drive(options: StudyOptions, folder: _Folder | None = None) -> Result:
    """Open a study, drive it until its budget is used, and return its result.

    Args:
        options: Checked arguments of the call.
        folder: Folder for the checkpoints of a study in memory that is continued.
    """
    engine = options.engine(driver=0)  # refuses what cannot be searched, before anything is written
    runner = options.runner or _runner_for(options)
    space, budget = options.space, options.budget
    task = Task(options.train_fn, space.fidelity, space.scales, budget.limits, options.objectives)
    runner.open(task, options.workers)
    if folder is None and options.name is None:
        folder = _Folder()
    try:
        storage = StudyStorage.open(
            name=options.name,
            storage=options.storage,
            space=space,
            direction=options.direction,
            cost=options.cost,
            seed=options.seed,
            scheduler=None if options.scheduler is None else _settings(options.scheduler),
            objectives=options.objectives,
        )
        _say_changed_tasks(options, storage)
        storage.add_earlier(options.history, options.cost)
        with _leased(storage) as (index, owner):
            base = _checkpoint_base(options.storage) if folder is None else folder.path
            store = _checkpoints(storage, base, index)
            if index > 0:  # others drive this study, too; each draws numbers of its own
                engine = options.engine(index)
            driver = Driver(options, engine, storage, runner, store, index=index, owner=owner)
            result = replace(driver.drive(), attempts=partial(_attempts, storage))
    finally:
        runner.close()
        if folder is not None and options.scheduler is None:
            folder.remove()  # else it goes with the last result that can be extended
    result = replace(result, asked=_asked(options))
    if options.scheduler is None:
        return result
    if not storage.durable:
        options = replace(options, name=storage.study.study_name, storage=storage.storage)
    return replace(result, onward=partial(_extend, options, folder))


def _asked(options: StudyOptions) -> tuple[tuple[str, str], ...]:
    """Return what a report says was asked for, beside what a result knows itself."""
    scheduler = options.scheduler
    return (
        ("seed", str(options.seed)),
        ("workers", str(options.workers)),
        ("scheduler", "" if scheduler is None else type(scheduler).__name__),
    )


def _attempts(storage: StudyStorage) -> dict[int, Attempt]:
    """When and by whom each trial was run; empty where the storage cannot be read any more."""
    try:
        starts = storage.starts()
        asked = {entry.number: entry.asked for entry in storage.entries()}
    except StudyError as error:
        _log.warning("when trials were started is not known: %s", error)
        return {}
    found = {number: Attempt(started) for number, started in starts.items()}
    for number, how in asked.items():
        found[number] = Attempt(starts.get(number), how.driver, how.attempt + 1)
    return found


def _extend(
    options: StudyOptions, folder: _Folder | None, max_fidelity: int, budget: Budget | None
) -> Result:
    """Continue a study with a larger fidelity; see `Result.extend`."""
    name = options.space.fidelity
    assert name is not None
    before = options.space[name]
    assert isinstance(before, Fidelity)
    if max_fidelity < before.high:
        raise SpaceError(
            f"`max_fidelity` must be at least the {before.high} that the study had, got "
            f"{max_fidelity}; a fidelity only grows"
        )
    if budget is None and not (options.scheduler is not None and options.scheduler.ends_by_itself):
        raise BudgetError(
            f"extend() needs a budget under {options.scheduler!r}, which ends with nothing else; "
            "give one, larger than what the study has spent: Budget(cost=...)"
        )
    grown = {**options.space, name: Fidelity(before.low, max_fidelity)}
    space = SearchSpace(grown, where=options.space.where)
    options = replace(options, space=space, budget=budget or Budget(), history=())
    return _drive(options, folder)


def _say_changed_tasks(options: StudyOptions, storage: StudyStorage) -> None:
    """Store which other tasks the study learns from, and say so if they were others before."""
    now = fingerprint(options.other_tasks)
    before = storage.exchange_other_tasks(now)
    if before is not None and (said := changes(before, now)):
        _log.warning(
            "the study %r learned from other runs of other tasks before: %s; its next trials follow"
            " those of this call",
            options.name,
            said,
        )


def _settings(scheduler: Scheduler) -> str:
    """Text by which a scheduler is told from another one in storage."""
    text = repr(scheduler)
    return type(scheduler).__qualname__ if " object at 0x" in text else text


@contextmanager
def _leased(storage: StudyStorage) -> Iterator[tuple[int, str]]:
    """Hold a driver's lease on the study; gives the driver's index and the lease's owner."""
    lease = Lease.take()
    try:
        index = place = storage.claim(lease)

        def renew() -> None:
            nonlocal place
            place = storage.renew(place, lease.renewed())

        try:
            with LeaseRenewer(renew) if storage.durable else nullcontext():
                yield index, lease.owner
        finally:
            with passed_over("the lease could not be given up and ends by itself: %s"):
                storage.write_lease(place, lease.released())
    finally:
        lease.end()


def _runner_for(options: StudyOptions) -> Runner:
    """Run inline unless trials run side by side or may have to be killed."""
    limits = options.budget.limits
    if options.workers == 1 and limits.seconds is None and limits.memory is None:
        return InlineRunner()
    return ProcessRunner()


def _checkpoints(storage: StudyStorage, base: Path, driver: int) -> CheckpointStore:
    """The store of a study under `base`; `driver` is the index that was claimed."""
    name, unnamed = storage.study.study_name, not storage.has_identity
    identity = storage.identity(driver)
    store = CheckpointStore(study_folder(base, name, identity), identity)
    before = quote(name, safe="")
    allowed = before not in (".", "..") and len(before) <= LONGEST_FILE_NAME
    if unnamed and driver == 0 and allowed and storage.entries():
        store.take_over(base / before)  # where 0.1 kept them
    return store


def _checkpoint_base(storage: str | BaseStorage | None) -> Path:
    """Folder for the checkpoints of named runs: beside an SQLite file, else in the current one."""
    file = sqlite_file(storage)
    try:
        if file is None:
            return Path("scaletune_checkpoints").absolute()
        return file.absolute().with_name(bounded(file.stem, "_checkpoints"))
    except FileNotFoundError as error:
        raise StudyError(
            "there is no place for checkpoints, because the working directory of this process has "
            "been deleted; change to one that exists (os.chdir) and call again"
        ) from error


def _with_progress(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    """The callbacks, with a live view unless one is among them."""
    way_out = "derive from hpo.study.callbacks.Callback and override what you need"
    given: tuple[Callback, ...] = Row(Kind(Callback), way_out=way_out)(
        callbacks, "`callbacks`", TypeError
    )
    if any(isinstance(callback, Progress) for callback in given):
        return given
    return (*given, Progress())


def _check(options: StudyOptions) -> None:
    """Refuse what breaks a rule that neither the space nor the optimizer checks."""
    _check_train_function(options.train_fn)
    budget = Kind(Budget, way_out="write Budget(trials=60)")(options.budget, "`budget`", TypeError)
    if not budget.bounded:
        raise BudgetError(
            f"a budget needs at least one of trials, seconds and cost to end, got {budget!r}; "
            "write Budget(trials=60)"
        )
    if options.confirm and options.objectives is not None:
        raise ValueError(
            f"`confirm` needs one loss without constraints, got confirm={options.confirm} with"
            f" {options.objectives}: there is no single best config to confirm; leave it out"
        )
    UNIT(options.cost, "`cost`", TypeError)
    Direction.of(options.direction)
    check_scheduler(options.scheduler)
    runner: object = options.runner
    if runner is not None and not all(
        callable(getattr(runner, name, None)) and not isinstance(runner, type)
        for name in ("open", "submit", "poll", "kill", "close")
    ):
        raise TypeError(
            f"`runner` must be a runner such as ProcessRunner(), or None, got {shown(runner)}; None"
            " picks one"
        )
    limits = {"cost": budget.cost, "per_trial": budget.limits.cost}
    counted = [f"{name}={value!r}" for name, value in limits.items() if value is not None]
    if counted and options.cost is None and DefaultCost.of(options.space) is None:
        raise BudgetError(
            f"Budget({', '.join(counted)}) needs a cost to count, but optimize() was given none; "
            'add cost="flops" or another unit that train_fn reports, or cost="seconds" to measure '
            "time, or limit Budget(trials=...) or Budget(seconds=...) instead"
        )
    check_texts(options.name, options.storage)
    if options.storage is not None and options.name is None:
        raise ValueError(
            f"storage= needs name=, got storage={without_password(options.storage)!r} alone;"
            " name the study, so that it can be found again"
        )


def _check_train_function(train_fn: object) -> None:
    """Refuse what cannot be called as `train_fn(config, ctx)`."""
    if not callable(train_fn):
        raise TypeError(
            f"train_fn must be callable as train_fn(config, ctx), got {shown(train_fn)}; "
            "pass the function itself"
        )
    try:
        signature = inspect.signature(train_fn)
    except ValueError:  # some callables written in C have none
        return
    try:
        signature.bind({}, None)
    except TypeError as mismatch:
        raise TypeError(
            f"train_fn must be callable as train_fn(config, ctx), got {train_fn!r}, for which "
            f"{mismatch}; change its parameters"
        ) from None
