"""The command line: ``scaletune COMMAND``, thin wrappers around the Python functions.

A command prints what its function returns. The exit code is 0 whatever was found, 1 for input that
cannot be used, with one line on standard error, and 2 for options that do not exist.
"""

from __future__ import annotations

import io
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hpo.errors import StudyError, printable

try:
    import typer  # evaluates the annotations of the commands, so it must be a global name
except ModuleNotFoundError:
    typer = None  # type: ignore[assignment]  # `main` says how to install it

if TYPE_CHECKING:
    from hpo.optimizer.result import Result
    from hpo.scaling.claims import TransferRule
    from hpo.training.optimizers import UpdateRule
    from hpo.training.parametrization import Parametrization

__all__ = ["command_line", "main"]

_DEFAULT_SIZES = {"width": "64,128,256,512", "depth": "2,4,8,16"}


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit."""
    if typer is None:
        sys.exit("scaletune's command line needs typer; run: pip install 'scaletune[cli]'")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of any encoding, whatever parameters are called
            stream.reconfigure(errors="backslashreplace")
    command_line()()


def command_line() -> typer.Typer:
    """Return the application with all its commands."""
    app = typer.Typer(
        name="scaletune",
        help="Tune the small model, train the big one.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_scaletune)
    app.command("check-transfer")(_check_transfer)
    app.command("coord-check")(_coordinate_check)
    return app


def _scaletune() -> None:
    """Tune the small model, train the big one."""


def _check_transfer(
    csv: Annotated[
        Path | None,
        typer.Argument(help="CSV file, one finished run a row.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of a stored study, in place of a file.", show_default=False),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Its Optuna URL; sqlite:///scaletune.db if left out.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            help="Tuned column as name, name:kind or name:kind:role, such as lr:log:lr; kinds"
            " are log, linear, logit, choice. Left out: well-known names."
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(
            help="Size column as name or name:axis, such as N:params; axes are params, tokens,"
            " width, depth, other. Left out: well-known names."
        ),
    ] = None,
    loss: Annotated[str | None, typer.Option(help="Column of the loss.")] = None,
    cost: Annotated[str | None, typer.Option(help="Column of the cost.")] = None,
    maximize: Annotated[bool, typer.Option(help="Larger is better.")] = False,
    prior: Annotated[
        list[str] | None,
        typer.Option(help="Transfer rule to compare with, such as MuP or TokenHorizon."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(help="Largest exponent e of optimum ~ size^e that still counts as invariant."),
    ] = 0.15,
    picture: Annotated[Path, typer.Option(help="PNG file to write.", dir_okay=False)] = Path(
        "transfer.png"
    ),
) -> None:
    """Say whether each tuned parameter's optimum stays put as the model grows.

    Reads a CSV file of a small sweep, or a stored study by --name.
    """
    from hpo.diagnostics.transfer_check import check_transfer

    with _errors_in_one_line():
        if csv is not None and name is None:
            if storage is not None:
                raise ValueError("--storage goes with --name; leave it out for a CSV file")
            result, notes = _result_of_csv(csv, param, scale, loss, cost, maximize)
        elif name is not None and csv is None:
            if param or scale or loss or cost or maximize:
                raise ValueError(
                    "--param, --scale, --loss, --cost and --maximize describe a CSV file; a stored"
                    " study knows its own, leave them out"
                )
            result, notes = _stored_result(name, storage), ()
        else:
            raise ValueError("give either a CSV file or a stored study by --name")
        twice = [text for text, count in Counter(prior or ()).items() if count > 1]
        if twice:
            raise ValueError(
                f"--prior must name each rule once, got {twice[0]} again; leave one out"
            )
        rules = [_transfer_rule(text) for text in prior] if prior else None
        check = check_transfer(result, priors=rules, tolerance=tolerance)
        for line in (*notes, "", str(check)):
            typer.echo(printable(line))
        check.plot(picture)
        typer.echo(f"picture: {picture}")


def _coordinate_check(
    probe: Annotated[
        str | None,
        typer.Argument(
            help="Your model as package.module:function, of size and seed, which returns a"
            " hpo.training.coordinate_check.Probe. Left out: the built-in transformer.",
            show_default=False,
        ),
    ] = None,
    parametrization: Annotated[
        str,
        typer.Option(help="standard, mup, depth-mup, complete-p, per-layer, ntk or unit-scaled."),
    ] = "mup",
    optimizer: Annotated[str, typer.Option(help="adamw, lion, sgd or muon.")] = "adamw",
    lr: Annotated[
        float | None, typer.Option(help="At the base size; large on purpose if left out.")
    ] = None,
    along: Annotated[str, typer.Option(help="width or depth.")] = "width",
    sizes: Annotated[
        str | None, typer.Option(help="Such as 64,128,256.", show_default=False)
    ] = None,
    updates: Annotated[int, typer.Option(help="Updates before changes are measured.")] = 4,
    seeds: Annotated[int, typer.Option(help="Repeats at each size.")] = 3,
    tolerance: Annotated[float, typer.Option(help="Slope that still counts as flat.")] = 0.25,
    picture: Annotated[Path, typer.Option(help="PNG file to write.", dir_okay=False)] = Path(
        "coordinates.png"
    ),
) -> None:
    """Say whether every layer's output changes equally at all widths or depths.

    A parametrization that fails here will not carry its learning rate to larger models.
    """
    from hpo.training.coordinate_check import coordinate_check, load_probe, transformer_probe

    with _errors_in_one_line():
        if lr is not None and not 0 < lr < math.inf:
            raise ValueError(f"--lr must be finite and > 0, got {lr}; leave it out for the default")
        steps = _whole_numbers(_DEFAULT_SIZES.get(along, "") if sizes is None else sizes)
        if probe is not None:
            make = load_probe(probe)
        else:
            rule, scheme = _update_rule(optimizer, lr), _parametrization(parametrization)
            make = transformer_probe(scheme, rule, along=along, base=min(steps, default=1))
        check = coordinate_check(make, steps, updates=updates, seeds=seeds, tolerance=tolerance)
        typer.echo(str(check))
        check.plot(picture)
        typer.echo(f"picture: {picture}")


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Print errors that the user can fix as one line on standard error, and exit with code 1."""
    try:
        yield
    except (ValueError, StudyError, OSError) as error:
        sys.exit("error: " + printable(" ".join(str(error).split())))


def _result_of_csv(
    csv: Path,
    params: Sequence[str] | None,
    scales: Sequence[str] | None,
    loss: str | None,
    cost: str | None,
    maximize: bool,
) -> tuple[Result, tuple[str, ...]]:
    """The runs of a CSV file, and notes on how its columns were read."""
    from hpo.optimizer.ask_tell import Optimizer
    from hpo.trials.read_runs import read_runs

    runs = read_runs(
        csv,
        params=params or (),
        scales=scales or (),
        loss=loss,
        cost=cost,
        direction="maximize" if maximize else "minimize",
    )
    engine = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
    for observation in runs.observations:
        engine.record(observation)
    return engine.result(), runs.notes


def _stored_result(name: str, storage: str | None) -> Result:
    from hpo.study.optimize import load_result

    return load_result(name, storage=storage)


def _whole_numbers(text: str) -> list[int]:
    """The numbers of `--sizes`."""
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError:
        raise ValueError(f"--sizes must be whole numbers and commas, got {text!r}") from None


def _parametrization(name: str) -> Parametrization:
    from hpo.training import parametrization as schemes

    known: dict[str, Parametrization] = {
        "standard": schemes.STANDARD,
        "mup": schemes.MUP,
        "depth-mup": schemes.DEPTH_MUP,
        "complete-p": schemes.COMPLETE_P,
        "per-layer": schemes.PerLayer(),
        "ntk": schemes.NTK,
        "unit-scaled": schemes.UNIT_SCALED,
    }
    if name not in known:
        raise ValueError(f"--parametrization must be one of {[*known]}, got {name!r}; pick one")
    return known[name]


def _update_rule(name: str, lr: float | None) -> UpdateRule:
    """An optimizer by its name; its default learning rate is large on purpose."""
    from hpo.training.optimizers import SGD, AdamW, Lion, Muon

    known: dict[str, Callable[[], UpdateRule]] = {
        "adamw": lambda: AdamW(1e-2 if lr is None else lr),
        "lion": lambda: Lion(3e-3 if lr is None else lr),
        "sgd": lambda: SGD(0.1 if lr is None else lr, momentum=0.0),
        "muon": lambda: Muon(lr=0.05 if lr is None else lr, others=AdamW(1e-2)),
    }
    if name not in known:
        raise ValueError(f"--optimizer must be one of {[*known]}, got {name!r}; pick one")
    return known[name]()


def _transfer_rule(name: str) -> TransferRule:
    """A published transfer rule by its name, with its default widths."""
    from hpo.scaling import transfer_rules

    rules: dict[str, Callable[[], TransferRule]] = {
        "AdamWTimescale": transfer_rules.AdamWTimescale,
        "CompleteP": transfer_rules.CompleteP,
        "DeepSeekLaw": transfer_rules.DeepSeekLaw,
        "DepthMuP": transfer_rules.DepthMuP,
        "KaplanLR": transfer_rules.KaplanLR,
        "MuP": transfer_rules.MuP,
        "PowerScheduler": transfer_rules.PowerScheduler,
        "ScalingExponents": transfer_rules.ScalingExponents,
        "TimeTransfer": transfer_rules.TimeTransfer,
        "TokenHorizon": transfer_rules.TokenHorizon,
        "WeightDecayTransfer": transfer_rules.WeightDecayTransfer,
    }
    # Its levels depend on the unit of the batch, which the command line does not know
    if name == "StepLaw":
        return transfer_rules.StepLaw(levels=False)
    if name not in rules:
        raise ValueError(f"--prior must be one of {[*rules, 'StepLaw']}, got {name!r}; pick one")
    return rules[name]()
