"""What the commands about runs share: the source, the options that describe it, and its result."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.errors import StudyError, printable

if TYPE_CHECKING:
    from hpo.optimizer.result import Result
    from hpo.scaling.claims import TransferRule
    from hpo.space import SearchSpace
    from hpo.trials.read_runs import Runs

__all__ = [
    "Cost",
    "Ignore",
    "JSONText",
    "Loss",
    "Maximize",
    "Name",
    "Param",
    "Prior",
    "Scale",
    "Source",
    "SourceOptions",
    "State",
    "Storage",
    "Target",
    "errors_in_one_line",
    "read",
    "target_of",
    "transfer_rules",
]

_DESCRIBED = "How the source is read"
_PIPE_CLOSED = 141  # as a shell reports SIGPIPE

Source = Annotated[
    str | None,
    typer.Argument(
        help="Runs: a CSV, JSON, Parquet or Excel file, a folder of them, the URL or SQLite file of"
        " an Optuna storage, wandb:entity/project, or mlflow:experiment.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="Name of a stored study, in place of a file.", show_default=False),
]
Storage = Annotated[
    str | None, typer.Option(help="Its Optuna URL; sqlite:///scaletune.db if left out.")
]
Param = Annotated[
    list[str] | None,
    typer.Option(
        help="Tuned column as name, name:kind or name:kind:role, such as lr:log:lr; kinds"
        " are log, linear, logit, choice. Left out: well-known names.",
        rich_help_panel=_DESCRIBED,
    ),
]
Scale = Annotated[
    list[str] | None,
    typer.Option(
        help="Size column as name or name:axis, such as N:params; axes are params, tokens,"
        " width, depth, other. Left out: well-known names.",
        rich_help_panel=_DESCRIBED,
    ),
]
Loss = Annotated[str | None, typer.Option(help="Column of the loss.", rich_help_panel=_DESCRIBED)]
Cost = Annotated[
    str | None,
    typer.Option(
        help="Column of the cost; `seconds` for the wall-clock time, `none` for no cost. Left out:"
        " a well-known name, else 6 N D.",
        rich_help_panel=_DESCRIBED,
    ),
]
State = Annotated[
    str | None,
    typer.Option("--status", help="Column of the runs' states.", rich_help_panel=_DESCRIBED),
]
Ignore = Annotated[
    list[str] | None, typer.Option(help="Column to leave out.", rich_help_panel=_DESCRIBED)
]
Maximize = Annotated[
    bool, typer.Option("--maximize", help="Larger is better.", rich_help_panel=_DESCRIBED)
]
Target = Annotated[
    str | None,
    typer.Option(
        help="Sizes of the final run, such as params=7e9,tokens=1.4T, by column or by axis. Left"
        " out: those of the largest run.",
        show_default=False,
    ),
]
Prior = Annotated[
    list[str] | None,
    typer.Option(
        help="Published transfer rule, such as MuP or TokenHorizon. Left out: all that fit compete."
    ),
]
JSONText = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where the runs are, and what the user says of their columns.

    Attributes:
        source: File, folder, URL or tracking server; None for a study by its name.
        name: Name of a stored study.
        storage: Storage of that study.
        columns: Arguments of `read_runs` by name.
    """

    source: str | None
    name: str | None = None
    storage: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: str | None,
        name: str | None,
        storage: str | None,
        *,
        param: Sequence[str] | None,
        scale: Sequence[str] | None,
        loss: str | None,
        cost: str | None,
        status: str | None,
        ignore: Sequence[str] | None,
        maximize: bool,
    ) -> SourceOptions:
        """Return the options of one command."""
        given = {
            "params": param,
            "scales": scale,
            "loss": loss,
            "cost": cost,
            "status": status,
            "ignore": ignore,
            "direction": "maximize" if maximize else None,
        }
        return cls(source, name, storage, {key: value for key, value in given.items() if value})


def read(
    options: SourceOptions, priors: Sequence[TransferRule] | None = None
) -> tuple[Result, Runs | None]:
    """Return the result of the runs, and how they were read; None for a study of `optimize`.

    Args:
        options: What the user said.
        priors: Transfer rules; None lets the published ones compete.

    Raises:
        ValueError: If the options do not go together, or the source cannot be read.
        StudyError: If there is no such study.
    """
    if options.source is None:
        if options.name is None:
            raise ValueError("give either a CSV file or a stored study by --name")
        if options.columns:
            raise ValueError(
                "--param, --scale, --loss, --cost, --status, --ignore and --maximize describe a CSV"
                " file; a stored study knows its own, leave them out"
            )
        from hpo.study.optimize import load_result

        return load_result(options.name, storage=options.storage, priors=priors), None
    if options.storage is not None:
        raise ValueError("--storage goes with --name; leave it out for a CSV file")
    url = _storage_url(options.source)
    if url is None and options.name is not None:
        raise ValueError(
            "give either a CSV file or a stored study by --name; for a study in another storage"
            " give its URL and its name"
        )
    if url is not None and not options.columns:
        from hpo.study.optimize import load_result, only_study

        name = only_study(url) if options.name is None else options.name
        return load_result(name, storage=url, priors=priors), None
    from hpo.optimizer.ask_tell import Optimizer
    from hpo.trials.read_runs import read_runs

    runs = read_runs(url or options.source, study_name=options.name, **options.columns)
    engine = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit, priors=priors)
    engine.tell_many(runs)
    return engine.result(), runs


def _storage_url(source: str) -> str | None:
    """Return the URL of an Optuna storage that the source is; None for other sources."""
    if "://" in source:
        return source
    try:
        with open(source, "rb") as file:
            sqlite = file.read(16).startswith(b"SQLite format 3")
    except OSError:
        return None
    return f"sqlite:///{source}" if sqlite else None


def target_of(text: str | None, space: SearchSpace) -> dict[str, float] | None:
    """Return the sizes of `--target`, by the names of the space's scale axes.

    Args:
        text: Such as "params=7e9,tokens=1.4T"; a name is that of a column or of its axis.
        space: Space of the runs.

    Raises:
        ValueError: For a name that is neither, or a size that is no number.

    Example:
        >>> from hpo.space import Axis, Scale, SearchSpace
        >>> space = SearchSpace({"N": Scale(1e6, 1e9, axis=Axis.PARAMS)})
        >>> target_of("params=7B", space), target_of("N=7e9", space)
        ({'N': 7000000000.0}, {'N': 7000000000.0})
    """
    if text is None:
        return None
    from hpo.trials.read_runs.cells import read_number

    if not space.scales:
        raise ValueError(
            "--target needs runs of several sizes, got no size column; name one with --scale, such"
            " as --scale N:params"
        )
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, size = (piece.strip() for piece in part.partition("="))
        number = read_number(size) if size else None
        if not equals or number is None:
            raise ValueError(
                f"--target must look like params=7e9,tokens=1.4e12, got {part!r}; give a size for"
                f" each of {list(space.scales)}"
            )
        axis = _axis_named(name, space)
        if axis in found:
            raise ValueError(f"--target must name each size once, got `{axis}` twice; keep one")
        found[axis] = number
    return found


def _axis_named(name: str, space: SearchSpace) -> str:
    from hpo.trials.read_runs.names import AXES, known_as, spellings

    if name in space.scales:
        return name
    axes = space.scale_axes
    wanted = spellings(name)[0]
    meaning = known_as(name, AXES)
    for matches in (
        [n for n in axes if wanted in spellings(n)],
        [n for n, scale in axes.items() if scale.axis.value == wanted],
        [n for n, scale in axes.items() if meaning is not None and scale.axis is meaning[0]],
    ):
        if len(matches) == 1:
            return matches[0]
    known = ", ".join(f"{n} ({scale.axis.value})" for n, scale in axes.items())
    raise ValueError(f"--target must name the size columns, {known}, got {name!r}; rename it")


def transfer_rules(names: Sequence[str] | None) -> list[TransferRule] | None:
    """Return published transfer rules by their names, with their default widths.

    Raises:
        ValueError: For an unknown name, or one given twice.
    """
    if not names:
        return None
    from hpo.scaling import transfer_rules as rules

    known = {
        name: getattr(rules, name)
        for name in (
            "AdamWTimescale", "CompleteP", "DeepSeekLaw", "DepthMuP", "KaplanLR", "MuP",
            "PowerScheduler", "ScalingExponents", "TimeTransfer", "TokenHorizon",
            "WeightDecayTransfer",
        )
    }  # fmt: skip
    # Its levels depend on the unit of the batch, which the command line does not know
    known["StepLaw"] = lambda: rules.StepLaw(levels=False)
    for place, name in enumerate(names):
        if name not in known:
            raise ValueError(f"--prior must be one of {[*known]}, got {name!r}; pick one")
        if name in names[:place]:
            raise ValueError(f"--prior must name each rule once, got {name} again; leave one out")
    return [known[name]() for name in names]


def as_json(value: Any) -> str:
    """Return values as JSON; NaN and infinities, which it lacks, are null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        if isinstance(value, float) and not abs(value) < float("inf"):
            return None
        return value

    return json.dumps(plain(value), indent=2, ensure_ascii=False, default=str)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Print errors that the user can fix as one line on standard error, and exit with code 1.

    Where nobody reads the output any more, as behind `| head`, nothing is said.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):  # it is no file
            pass
        sys.exit(_PIPE_CLOSED)
    except (ValueError, StudyError, OSError) as error:
        sys.exit("error: " + printable(" ".join(str(error).split())))
