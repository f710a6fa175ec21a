"""``scaletune check-transfer`` and ``coord-check``: will settings of a small model carry over?"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.options import AsJSON, SourceOptions, print_json
from hpo.cli.sources import read, transfer_rules
from hpo.errors import printable

if TYPE_CHECKING:
    from hpo.training.optimizers import UpdateRule
    from hpo.training.parametrization import Parametrization

__all__ = ["check_transfer", "coordinate_check"]

_DEFAULT_SIZES = {"width": "64,128,256,512", "depth": "2,4,8,16"}


def check_transfer(
    options: SourceOptions,
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
    as_json: AsJSON = False,
) -> None:
    """Say whether each tuned parameter's optimum stays put as the model grows.

    Reads the runs of a small sweep, or a stored study by --name.
    """
    from hpo.diagnostics.transfer_check import check_transfer as check_of

    rules = transfer_rules(prior)
    result, runs = read(options)
    check = check_of(result, priors=rules, tolerance=tolerance)
    check.plot(picture)
    if as_json:
        rows = check.to_pandas().to_dict("records")
        print_json({"verdicts": rows, "picture": str(picture)})
        return
    for line in (*(() if runs is None else runs.notes), "", str(check)):
        typer.echo(printable(line))
    typer.echo(f"picture: {picture}")


def coordinate_check(
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
    from hpo.training.coordinate_check import coordinate_check as check_of
    from hpo.training.coordinate_check import load_probe, transformer_probe

    if lr is not None and not 0 < lr < math.inf:
        raise ValueError(f"--lr must be finite and > 0, got {lr}; leave it out for the default")
    steps = _whole_numbers(_DEFAULT_SIZES.get(along, "") if sizes is None else sizes)
    if probe is not None:
        make = load_probe(probe)
    else:
        rule, scheme = _update_rule(optimizer, lr), _parametrization(parametrization)
        make = transformer_probe(scheme, rule, along=along, base=min(steps, default=1))
    check = check_of(make, steps, updates=updates, seeds=seeds, tolerance=tolerance)
    typer.echo(str(check))
    check.plot(picture)
    typer.echo(f"picture: {picture}")


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
