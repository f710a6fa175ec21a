"""The command line: ``scaletune COMMAND``, thin wrappers around the Python functions.

A command prints what the function returns. It ends with exit code 0 whatever was found, 1 with one
line on standard error for input that cannot be used, and 2 for options that do not exist.
"""

# Annotations here must be evaluated at once: typer reads them, and is imported inside a function.

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from hpo.errors import StudyError

if TYPE_CHECKING:
    import typer

    from hpo.scaling.claims import TransferRule
    from hpo.training.optimizers import UpdateRule
    from hpo.training.parametrization import Parametrization


def main() -> None:
    """Entry point of ``scaletune``."""
    try:
        import typer  # noqa: F401
    except ModuleNotFoundError:
        sys.exit("scaletune's command line needs typer; run: pip install 'scaletune[cli]'")
    command_line()()


def command_line() -> "typer.Typer":
    """The application with all its commands; another one is a function decorated alike."""
    import typer

    app = typer.Typer(
        name="scaletune",
        help="Tune the small model, train the big one.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def scaletune() -> None:
        """Tune the small model, train the big one."""

    @app.command("check-transfer")
    def check_transfer_(
        csv: Annotated[
            Path | None,
            typer.Argument(help="CSV file, one finished run a row.", show_default=False),
        ] = None,
        name: Annotated[
            str | None, typer.Option(help="Durable run, in place of a file.", show_default=False)
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
            typer.Option(
                help="TransferRule to show beside the verdicts, such as MuP or TokenHorizon."
            ),
        ] = None,
        tolerance: Annotated[
            float, typer.Option(help="E-folds per e-fold that still count as invariant.")
        ] = 0.15,
        picture: Annotated[Path, typer.Option(help="PNG file to write.", dir_okay=False)] = Path(
            "transfer.png"
        ),
    ) -> None:
        """Say whether each tuned parameter's optimum stays put as the model grows.

        Reads a CSV file of a small sweep, or a durable run by --name.
        """

        from hpo.diagnostics.transfer_check import check_transfer
        from hpo.optimizer.ask_tell import Optimizer
        from hpo.study.optimize import load_result
        from hpo.trials.read_runs import read_runs

        with _errors_in_one_line():
            if (csv is None) == (name is None):
                raise ValueError("name either a CSV file or a durable run by --name")
            notes: tuple[str, ...] = ()
            if name is not None:
                if param or scale or loss or cost or maximize:
                    raise ValueError(
                        "--param, --scale, --loss, --cost and --maximize describe a CSV file; a"
                        " durable run knows its own, leave them out"
                    )
                result = load_result(name, storage=storage)
            elif csv is not None:
                if storage is not None:
                    raise ValueError("--storage goes with --name; leave it out for a CSV file")
                runs = read_runs(
                    csv,
                    params=param or (),
                    scales=scale or (),
                    loss=loss,
                    cost=cost,
                    direction="maximize" if maximize else "minimize",
                )
                engine = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
                for observation in runs.observations:
                    engine.record(observation)
                result, notes = engine.result(), runs.notes
            rules = [_rule(text) for text in prior] if prior else None
            check = check_transfer(result, priors=rules, tolerance=tolerance)
            for line in (*notes, "", str(check)):
                typer.echo(line)
            check.plot(picture)
            typer.echo(f"picture: {picture}")

    @app.command("coord-check")
    def coord_check_(
        probe: Annotated[
            str | None,
            typer.Argument(
                help="Your model as package.module:function, of size and seed, which returns a"
                " hpo.training.coordinate_check.Probe. Left out: the built-in transformer.",
                show_default=False,
            ),
        ] = None,
        parametrization: Annotated[
            str, typer.Option(help="standard, mup, depth-mup, complete-p or per-layer.")
        ] = "mup",
        optimizer: Annotated[str, typer.Option(help="adamw, lion, sgd or muon.")] = "adamw",
        lr: Annotated[
            float | None, typer.Option(help="At the base size; large on purpose if left out.")
        ] = None,
        along: Annotated[str, typer.Option(help="width or depth.")] = "width",
        sizes: Annotated[
            str | None, typer.Option(help="Such as 64,128,256.", show_default=False)
        ] = None,
        updates: Annotated[int, typer.Option(help="After which changes are judged.")] = 4,
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
            defaults = {"width": "64,128,256,512", "depth": "2,4,8,16"}
            steps = _sizes(sizes or defaults.get(along, ""))
            if probe is not None:
                make = load_probe(probe)
            else:
                rule, scheme = _rule_of_updates(optimizer, lr), _parametrization(parametrization)
                make = transformer_probe(scheme, rule, along=along, base=min(steps, default=1))
            check = coordinate_check(make, steps, updates=updates, seeds=seeds, tolerance=tolerance)
            typer.echo(str(check))
            check.plot(picture)
            typer.echo(f"picture: {picture}")

    return app


def _sizes(text: str) -> list[int]:
    """Whole numbers between commas."""
    try:
        return [int(part) for part in text.split(",") if part]
    except ValueError:
        raise ValueError(f"--sizes must be whole numbers and commas, got {text!r}") from None


def _parametrization(name: str) -> "Parametrization":
    from hpo.training import parametrization as schemes

    known: dict[str, Parametrization] = {
        "standard": schemes.STANDARD,
        "mup": schemes.MUP,
        "depth-mup": schemes.DEPTH_MUP,
        "complete-p": schemes.COMPLETE_P,
        "per-layer": schemes.PerLayer(),
    }
    if name not in known:
        raise ValueError(f"--parametrization must be one of {[*known]}, got {name!r}; pick one")
    return known[name]


def _rule_of_updates(name: str, lr: float | None) -> "UpdateRule":
    """An optimizer by its name, by default with a rate that is large on purpose."""
    from hpo.training.optimizers import SGD, AdamW, Lion, Muon

    known: dict[str, Callable[[], UpdateRule]] = {
        "adamw": lambda: AdamW(lr or 1e-2),
        "lion": lambda: Lion(lr or 3e-3),
        "sgd": lambda: SGD(lr or 0.1, momentum=0.0),
        "muon": lambda: Muon(lr=lr or 0.05, others=AdamW(1e-2)),
    }
    if name not in known:
        raise ValueError(f"--optimizer must be one of {[*known]}, got {name!r}; pick one")
    return known[name]()


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """What a user can put right goes to standard error in one line, with exit code 1."""
    try:
        yield
    except (ValueError, StudyError, OSError) as error:
        sys.exit("error: " + " ".join(str(error).split()))


def _rule(name: str) -> "TransferRule":
    """A published rule by its name, with its usual widths."""
    from hpo.scaling import transfer_rules as priors

    rules: dict[str, Callable[[], TransferRule]] = {
        "AdamWTimescale": priors.AdamWTimescale,
        "CompleteP": priors.CompleteP,
        "DepthMuP": priors.DepthMuP,
        "MuP": priors.MuP,
        "PowerScheduler": priors.PowerScheduler,
        "ScalingExponents": priors.ScalingExponents,
        "TimeTransfer": priors.TimeTransfer,
        "TokenHorizon": priors.TokenHorizon,
    }
    # its levels depend on the unit of the batch, which the command line does not know
    if name == "StepLaw":
        return priors.StepLaw(levels=False)
    if name not in rules:
        raise ValueError(f"--prior must be one of {[*rules, 'StepLaw']}, got {name!r}; pick one")
    return rules[name]()
