"""Runs from a source, and the texts of the options `--target`, `--prior` and `--budget`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.cli.options import SourceOptions

if TYPE_CHECKING:
    from hpo.optimizer.result import Result
    from hpo.scaling.claims import TransferRule
    from hpo.space import SearchSpace
    from hpo.trials.read_runs import Runs

__all__ = ["amounts", "read", "target_of", "transfer_rules"]


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
    source, name = options.source, options.name
    if source is not None and name is None and _is_stored(source, options.storage):
        source, name = None, source
    if source is None:
        if name is None:
            raise ValueError("give either a CSV file or a stored study by --name")
        if options.columns:
            raise ValueError(
                "--param, --scale, --loss, --cost, --status, --ignore and --maximize describe a CSV"
                " file; a stored study knows its own, leave them out"
            )
        from hpo.study.optimize import load_result

        return load_result(name, storage=options.storage, priors=priors), None
    if options.storage is not None:
        raise ValueError("--storage goes with --name; leave it out for a CSV file")
    url = _storage_url(source)
    if url is None and name is not None:
        raise ValueError(
            "give either a CSV file or a stored study by --name; for a study in another storage"
            " give its URL and its name"
        )
    if url is not None and not options.columns:
        from hpo.study.optimize import load_result, only_study

        name = only_study(url) if name is None else name
        return load_result(name, storage=url, priors=priors), None
    from hpo.optimizer.ask_tell import Optimizer
    from hpo.trials.read_runs import read_runs

    runs = read_runs(url or source, study_name=name, **options.columns)
    engine = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit, priors=priors)
    engine.tell_many(runs)
    return engine.result(), runs


def _is_stored(source: str, storage: str | None) -> bool:
    """Whether a source is the name of a stored study rather than a place where runs are."""
    if "://" in source or Path(source).exists():
        return False
    if storage is not None:
        return True
    from hpo.errors import StudyError
    from hpo.study.storage import StudyStorage

    try:
        return source in StudyStorage.names(None)
    except StudyError:  # there is no default file
        return False


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
    if not space.scales:
        raise ValueError(
            "--target needs runs of several sizes, got no size column; name one with --scale, such"
            " as --scale N:params"
        )
    found: dict[str, float] = {}
    way_out = f"give a size for each of {list(space.scales)}"
    for name, size in amounts([text], "--target", "params=7e9,tokens=1.4e12", way_out):
        axis = _axis_named(name, space)
        if axis in found:
            raise ValueError(f"--target must name each size once, got `{axis}` twice; keep one")
        found[axis] = size
    return found


def amounts(
    texts: Sequence[str], said: str, example: str, way_out: str, *, durations: Sequence[str] = ()
) -> list[tuple[str, float]]:
    """Return the names and numbers of an option such as `--budget trials=50,seconds=8h`.

    Args:
        texts: Values of the option, each with parts between commas.
        said: The option, for the message.
        example: What it must look like, for the message.
        way_out: What to do instead, for the message.
        durations: Names whose number may be a duration, which is returned in seconds.

    Raises:
        ValueError: For a part that is no name with a number.

    Example:
        >>> amounts(["trials=50", "seconds=8h,cost=1e18"], "--budget", "trials=50", "",
        ...         durations=["seconds"])
        [('trials', 50.0), ('seconds', 28800.0), ('cost', 1e+18)]
    """
    from hpo.trials.read_runs.cells import read_number

    found = []
    for part in filter(None, (part.strip() for text in texts for part in text.split(","))):
        name, _, size = (piece.strip() for piece in part.partition("="))
        number = read_number(size, duration=name in durations) if size else None
        if number is None:
            raise ValueError(f"{said} must look like {example}, got {part!r}; {way_out}")
        found.append((name, number))
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
