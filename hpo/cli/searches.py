"""``scaletune optimize`` and ``resume``: search from the command line."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from hpo.cli.options import (
    AsJSON,
    BudgetOptions,
    ExitCode,
    Prior,
    Storage,
    StudyOptions,
    Target,
    print_json,
    refuse,
)
from hpo.cli.results import result_as_json, shell_words
from hpo.cli.sources import amounts, target_of, transfer_rules
from hpo.errors import StudyError, printable

if TYPE_CHECKING:
    from hpo.schedulers import Scheduler
    from hpo.space import SearchSpace
    from hpo.study.callbacks import StudyState
    from hpo.trials.budget import Budget

__all__ = ["Call", "optimize", "resume", "scheduler_of"]

_SCHEDULERS = (
    "ASHA", "FreezeThaw", "Hyperband", "IterativeDeepening", "MedianStopping", "OneEpoch", "PASHA",
    "PBT", "SuccessiveHalving",
)  # fmt: skip

SchedulerName = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(_SCHEDULERS)}, perhaps with arguments as in Python, such as"
        " 'ASHA(eta=4)'. Left out: every run is trained to its end.",
        show_default=False,
        autocompletion=lambda incomplete: [n for n in _SCHEDULERS if n.startswith(incomplete)],
    ),
]
Workers = Annotated[int, typer.Option("--workers", "-w", help="Number of trials at a time.")]


@dataclass(frozen=True, slots=True)
class Call:
    """What a search was told beyond what the study itself stores; stored for `resume`.

    Attributes:
        function: Path of the training function, as package.module:function.
        budget: Limits of the study by name.
        per_trial: Limits of each trial by name.
        metric: Key of the returned dict that is the objective; None for "loss".
        target: Sizes of the final run.
        scheduler: Scheduler as the command line names it.
        priors: Names of transfer rules; None for all that fit.
        workers: Number of trials at a time.
        confirm: Number of runs of the recommendation.
    """

    function: str
    budget: dict[str, float] = field(default_factory=dict)
    per_trial: dict[str, float] = field(default_factory=dict)
    metric: str | None = None
    target: dict[str, float] | None = None
    scheduler: str | None = None
    priors: list[str] | None = None
    workers: int = 1
    confirm: int = 0

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Call:
        """Return the call that was stored; what a later version has added is left out.

        Raises:
            StudyError: If it is damaged.
        """
        known = {found.name for found in fields(cls)}
        try:
            call = cls(**{name: value for name, value in stored.items() if name in known})
            call.limits()
        except (TypeError, ValueError) as error:
            raise StudyError(
                f"how the study was started cannot be read ({error}); continue it with scaletune"
                " optimize and all its options"
            ) from None
        return call

    def limits(self) -> Budget:
        """Return the budget."""
        from hpo.trials.budget import Budget, Limits

        given: dict[str, Any] = dict(self.budget)
        if self.per_trial:
            given["per_trial"] = Limits(**self.per_trial)  # type: ignore[arg-type]  # checked there
        return Budget(**given)


@dataclass(frozen=True, slots=True)
class _ByMetric:
    """Training function whose objective is one of the metrics that it returns."""

    train: Callable[[dict[str, Any], Any], Any]
    metric: str

    def __call__(self, config: dict[str, Any], ctx: Any) -> dict[str, Any]:
        returned = self.train(config, ctx)
        if not isinstance(returned, Mapping) or self.metric not in returned:
            got = sorted(map(str, returned)) if isinstance(returned, Mapping) else repr(returned)
            raise ValueError(
                f"train_fn must return a dict with {self.metric!r}, which --metric names, got {got}"
            )
        rest = {("returned_loss" if k == "loss" else k): v for k, v in returned.items()}
        return {**rest, "loss": returned[self.metric]}


def optimize(
    function: Annotated[
        str,
        typer.Argument(
            help="Training function as module:function, called as function(config, ctx). Its module"
            " is imported from the working directory.",
            show_default=False,
        ),
    ],
    space: Annotated[
        str,
        typer.Option(
            "--space",
            "-s",
            help="Search space: a YAML file, or module:NAME of a dict in Python.",
            show_default=False,
        ),
    ],
    limits: BudgetOptions,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name under which the study is stored, and continued by the next call. Left out:"
            " FUNCTION.",
            show_default=False,
        ),
    ] = None,
    storage: Storage = None,
    workers: Workers = 1,
    scheduler: SchedulerName = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Key of the returned dict that is the objective; `loss` if left out.",
            show_default=False,
        ),
    ] = None,
    maximize: Annotated[bool, typer.Option("--maximize", help="Larger is better.")] = False,
    cost: Annotated[
        str | None,
        typer.Option(
            help="Unit of the costs: seconds, which are measured, or what the function reports,"
            " such as flops.",
            show_default=False,
        ),
    ] = None,
    target: Target = None,
    prior: Prior = None,
    confirm: Annotated[
        int, typer.Option(help="Runs of the recommendation after the search, beside the budget.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    raise_on_error: Annotated[
        bool, typer.Option("--raise-on-error", help="End at the first trial that raises.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Search for the settings with which a training function does best.

    The study is stored; the same command, or `scaletune resume`, continues it.

    Example: scaletune optimize train:train --space space.yaml --budget trials=50
    """
    from hpo.study.by_path import found_by_path

    train = found_by_path(function, "FUNCTION")
    searched = _space(space)
    sizes = target_of(target, searched)
    call = Call(
        function, metric=metric, target=sizes, scheduler=scheduler, priors=prior, workers=workers,
        confirm=confirm,
    )  # fmt: skip
    _search(
        train,
        searched,
        _with_limits(call, limits),
        name=function if name is None else name,
        storage=storage,
        as_json=as_json,
        direction="maximize" if maximize else "minimize",
        cost=cost,
        seed=seed,
        raise_on_error=raise_on_error,
    )


def resume(
    study: StudyOptions,
    limits: BudgetOptions,
    function: Annotated[
        str | None,
        typer.Option(
            help="Training function as module:function; needed for a study started in Python.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", help="Number of trials at a time.", show_default=False),
    ] = None,
    scheduler: SchedulerName = None,
    as_json: AsJSON = False,
) -> None:
    """Continue a stored study: after an interrupt, or with a larger budget.

    What is left out is as it was in the call before.

    Example: scaletune resume train:train --budget trials=100
    """
    from hpo.space import SearchSpace
    from hpo.study.by_path import found_by_path, is_module_here
    from hpo.study.optimize import only_study
    from hpo.study.storage import StudyStorage

    name = only_study(study.storage) if study.name is None else study.name
    stored, header = StudyStorage.read(name=name, storage=study.storage)
    before = stored.call
    if before is None and function is None:
        raise ValueError(
            f"the study {name!r} was started in Python, so --function must name its training"
            " function; write --function module:function, and --budget"
        )
    call = Call("") if before is None else Call.from_json(before)
    if function is None and not is_module_here(call.function):
        raise ValueError(
            f"the study {name!r} names the function {call.function!r}, whose module is not in this"
            " folder; change to its folder, or write --function module:function if you trust it"
        )
    given: dict[str, Any] = {"function": function, "workers": workers, "scheduler": scheduler}
    given = {key: value for key, value in given.items() if value is not None}
    call = replace(call, **given)
    _search(
        found_by_path(call.function, "FUNCTION"),
        SearchSpace.from_fingerprint(header["space"]),
        _with_limits(call, limits),
        name=name,
        storage=study.storage,
        as_json=as_json,
        direction=header["direction"],
        cost=header["cost"],
        seed=header["seed"],
    )


def _search(
    train: Callable[..., Any],
    space: SearchSpace,
    call: Call,
    *,
    name: str,
    storage: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Search, print the result, and exit with a code that says how it ended."""
    from rich.console import Console

    from hpo.study.callbacks import Callback
    from hpo.study.optimize import optimize
    from hpo.study.progress import Progress
    from hpo.study.storage import StudyStorage

    class Remember(Callback):
        """Stores the call as soon as the study is open, so that a killed one can be resumed."""

        def on_start(self, run: StudyState) -> None:
            StudyStorage.read(name=name, storage=storage)[0].remember_call(asdict(call))

    try:
        result = optimize(
            train if call.metric is None else _ByMetric(train, call.metric),
            space,
            budget=call.limits(),
            target=call.target,
            scheduler=scheduler_of(call.scheduler),
            priors=transfer_rules(call.priors),
            workers=call.workers,
            confirm=call.confirm,
            name=name,
            storage=storage,
            callbacks=[Remember(), Progress(console=Console(stderr=True))],
            **options,
        )
    except TypeError as error:  # of an argument, or of what the function returned
        refuse(error)
    study = shell_words(name, storage)
    if as_json:
        print_json(result_as_json(result))
    else:
        typer.echo(printable(f"{result}\nNext: scaletune report {study} writes a page."))
    if result.interrupted:
        typer.echo(printable(f"interrupted; to continue: scaletune resume {study}"), err=True)
        raise SystemExit(ExitCode.INTERRUPTED)
    if not result.candidates():
        raise SystemExit(ExitCode.NOTHING_COMPLETED)


def _space(text: str) -> SearchSpace:
    """The space of `--space`: of a YAML file, or of an object in Python."""
    from hpo.cli.space_file import read_space
    from hpo.space import SearchSpace
    from hpo.study.by_path import found_by_path

    if ":" in text and not Path(text).exists():
        found = found_by_path(text, "--space", "NAME")
        return found if isinstance(found, SearchSpace) else SearchSpace(found)
    return read_space(Path(text))


def _with_limits(call: Call, limits: BudgetOptions) -> Call:
    """A call with the limits that were given; a new budget replaces the one before."""
    if limits.budget:
        budget = _limits(limits.budget, "--budget", "trials=50,seconds=8h", "trials seconds cost")
        call = replace(call, budget=budget)
    if limits.per_trial:
        parts = _limits(limits.per_trial, "--per-trial", "seconds=20min", "seconds cost memory")
        call = replace(call, per_trial=parts)
    if not call.budget:
        raise ValueError("--budget must limit the study, got none; write --budget trials=50")
    return call


def _limits(texts: list[str], said: str, example: str, names: str) -> dict[str, float]:
    """The parts of `--budget` or `--per-trial`; whole numbers are ints."""
    known, found = names.split(), {}
    for name, value in amounts(
        texts, said, example, f"its parts are {known}", durations=["seconds"]
    ):
        if name not in known or name in found:
            raise ValueError(
                f"{said} must name each of {known} at most once, got {name!r}; write {example}"
            )
        found[name] = int(value) if value.is_integer() and name != "cost" else value
    return found


def scheduler_of(text: str | None) -> Scheduler | None:
    """Return the scheduler that `--scheduler` names.

    Args:
        text: Name of the class, perhaps with arguments as in Python.

    Raises:
        ValueError: For an unknown name, or arguments that it does not take.

    Example:
        >>> scheduler_of("asha").eta, scheduler_of("ASHA(eta=4)").eta
        (3, 4)
    """
    if text is None:
        return None
    import hpo.schedulers as schedulers

    known = {name.lower(): getattr(schedulers, name) for name in _SCHEDULERS}
    name, arguments = _called(text)
    if name.lower() not in known:
        raise ValueError(f"--scheduler must be one of {[*_SCHEDULERS]}, got {text!r}; pick one")
    kind = known[name.lower()]
    hints = get_type_hints(kind)
    for argument, value in arguments.items():
        enum = hints.get(argument)
        if isinstance(enum, type) and issubclass(enum, Enum) and isinstance(value, str):
            from hpo.space.arguments import Member

            arguments[argument] = Member(enum)(value, f"`{argument}` of {kind.__name__}")
    try:
        made: Scheduler = kind(**arguments)
    except TypeError:
        raise ValueError(
            f"--scheduler {kind.__name__} must have arguments among"
            f" {[found.name for found in fields(kind)]}, got {[*arguments]}; rename or drop them"
        ) from None
    return made


def _called(text: str) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments of a call in Python."""
    try:
        found = ast.parse(text.strip(), mode="eval").body
        if isinstance(found, ast.Name):
            return found.id, {}
        if isinstance(found, ast.Call) and isinstance(found.func, ast.Name) and not found.args:
            return found.func.id, {
                str(keyword.arg): ast.literal_eval(keyword.value) for keyword in found.keywords
            }
    except (SyntaxError, ValueError):
        pass
    raise ValueError(
        f"--scheduler must be a name, perhaps with arguments by name, got {text!r}; write ASHA or"
        " 'ASHA(eta=4)'"
    )
