"""Command line of the benchmarks.

Suites of tasks:

    python -m benchmarks list
    python -m benchmarks run hpob-style --methods scaletune optuna-gp --seeds 10 --out results/hpob
    python -m benchmarks report results/hpob
    python -m benchmarks smoke
    python -m benchmarks record
    python -m benchmarks env smac

The source tree:

    python -m benchmarks structure

Experiments, each described by `python -m benchmarks EXPERIMENT --help`:

    python -m benchmarks {speed,calibration,scale-transfer,target,transfer,latency,training,curves}
    python -m benchmarks {objectives,stopping}
    python -m benchmarks hpob-report runs/hpob-v3-test
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

_DEFAULT_METHODS = ("scaletune", "random", "optuna-tpe", "optuna-gp")
_SMOKE = ["--methods", "scaletune", "random", "optuna-tpe", "--seeds", "2", "--trials", "12"]
_LISTED = 20  # tasks shown of a suite
_NAMED = 4  # names shown that lack the same thing
#: Suite -> start points and seeds of the HPO-B protocol, whose own suites fix five of either.
_PROTOCOL = {"hpob-style": (5, 10), "hpob-v3-test": (5, 5), "hpob-continuous": (5, 5)}
_DEFAULT_PROTOCOL = (0, 10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words after `python -m benchmarks`; by default those of the process.

    Returns:
        The exit status: 0; 1 if a study failed or none could run; 2 if the command was refused;
        130 on Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    given = _parser(words[0] if words else None).parse_args(words)
    given.words = words
    try:
        status: int = given.action(given)
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Declare the options of the chosen command only, so that no other is imported."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare optimizers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (summary, add_arguments) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name == chosen:
            add_arguments(command)
    return parser


# --- options -------------------------------------------------------------------------------------


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", help="a suite, or a name for those given by --tasks")
    parser.add_argument("--tasks", nargs="+", help="instead of the suite's own")
    parser.add_argument("--methods", nargs="+", default=list(_DEFAULT_METHODS))
    parser.add_argument("--seeds", type=int, help="default: 10, of HPO-B's own suites 5")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--trials", type=float, help="full trainings per study; 100 without --budget"
    )
    parser.add_argument(
        "--budget", help='cost per study: a number, or "20x" for mean full trainings'
    )
    parser.add_argument("--seconds-per-study", type=float, help="stop slower methods; is recorded")
    parser.add_argument("--starts", type=int, help="common start points (hpob-*: 5, else 0)")
    parser.add_argument("--workers", type=int, default=1, help="simulated, on a virtual clock")
    parser.add_argument("--processes", type=int, default=1, help="real, in parallel")
    parser.add_argument("--threads", type=int, default=1, help="per process")
    parser.add_argument("--out", type=Path, help="default: runs/SUITE")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(action=_run)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", type=Path, help="what `run --out` named")
    parser.add_argument("--out", type=Path, help="default: report/ in the first folder")
    parser.set_defaults(action=_report)


def _add_smoke(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="default: a temporary folder")
    parser.set_defaults(action=_smoke)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=_list)


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name")
    parser.set_defaults(action=_env)


def _from_module(module: str) -> Callable[[argparse.ArgumentParser], None]:
    """Return a function that lets `module`, imported only then, declare its options."""

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        imported = import_module(module)
        parser.description = imported.__doc__
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        imported.add_arguments(parser)

    return add_arguments


#: Command -> its line in the help, and what declares its options.
_COMMANDS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": ("run a suite into a table, or continue it", _add_run),
    "report": ("write Markdown, pictures and an HTML page", _add_report),
    "smoke": ("run a tiny suite and report it, in seconds", _add_smoke),
    "list": ("list suites, tasks and methods, and what is missing", _add_list),
    "env": ("make the environment of a method", _add_env),
    "structure": (
        "measure the source tree: rooms, arrows, circles, lengths, docstrings",
        _from_module("benchmarks.structure"),
    ),
    "record": (
        "train the curve bank's workloads",
        _from_module("benchmarks.recording.record"),
    ),
    "speed": (
        "time to a good answer of multi-fidelity methods",
        _from_module("benchmarks.experiments.speed"),
    ),
    "calibration": (
        "coverage of intervals, and what the quantile forest adds and costs",
        _from_module("benchmarks.experiments.calibration"),
    ),
    "scale-transfer": (
        "answers for a scale at which nothing was run",
        _from_module("benchmarks.experiments.scale_transfer"),
    ),
    "target": (
        "whether answers at the target are right and honest, beside rivals",
        _from_module("benchmarks.experiments.target.command"),
    ),
    "transfer": (
        "what runs of other tasks are worth, beside rivals",
        _from_module("benchmarks.experiments.transfer.command"),
    ),
    "hpob-report": (
        "HPO-B's own table, beside published results",
        _from_module("benchmarks.experiments.hpob_report"),
    ),
    "latency": (
        "time and memory of one ask + tell",
        _from_module("benchmarks.experiments.latency"),
    ),
    "load": (
        "time, memory and open files of large studies",
        _from_module("benchmarks.experiments.load"),
    ),
    "training": (
        "cost of the trainer, and drift of the best learning rate",
        _from_module("benchmarks.experiments.training"),
    ),
    "objectives": (
        "hypervolume of several objectives, beside rivals",
        _from_module("benchmarks.experiments.objectives"),
    ),
    "stopping": (
        "whether a search that ends by its expected regret has found what it says",
        _from_module("benchmarks.experiments.stopping"),
    ),
    "curves": (
        "coverage and error of learning-curve extrapolation",
        _from_module("benchmarks.experiments.curves"),
    ),
}


# --- actions -------------------------------------------------------------------------------------


def _run(given: argparse.Namespace) -> int:
    from benchmarks import runner, tasks

    if given.tasks is None and given.suite not in tasks.SUITES:
        raise ValueError(
            f"`suite` must be one of {list(tasks.SUITES)}, got {given.suite!r}; or name --tasks"
        )
    starts, seeds = _PROTOCOL.get(given.suite, _DEFAULT_PROTOCOL)
    plan = runner.Plan(
        suite=given.suite,
        tasks=tuple(given.tasks or tasks.SUITES[given.suite]),
        methods=tuple(given.methods),
        seeds=seeds if given.seeds is None else given.seeds,
        first_seed=given.first_seed,
        trials=100.0 if given.trials is None and given.budget is None else given.trials,
        budget=given.budget,
        seconds=given.seconds_per_study,
        workers=given.workers,
        starts=starts if given.starts is None else given.starts,
        processes=given.processes,
        threads=given.threads,
    )
    out = given.out or Path("runs") / given.suite
    summary = runner.run(plan, out, progress=not given.quiet)
    ended = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.ended.items()))
    print(f"{summary.already_done} studies were done; ended now: {ended or 'none'}")
    for names, reason in _by_reason(summary.missing):
        print(f"missing: {names}: {reason}")
    if summary.ended.get("error"):
        print(f"studies that failed say why in {out / runner.LOGS}", file=sys.stderr)
        return 1
    if not summary.ended and not summary.already_done:
        print("nothing of this could run here", file=sys.stderr)
        return 1
    return 0


def _by_reason(missing: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names that share a reason on one line: a suite without its data has dozens."""
    grouped: dict[str, list[str]] = {}
    for name, reason in missing.items():
        grouped.setdefault(reason, []).append(name)
    return [
        (", ".join(names) if len(names) <= _NAMED else f"{names[0]} and {len(names) - 1} more", why)
        for why, names in grouped.items()
    ]


def _report(given: argparse.Namespace) -> int:
    from benchmarks import analysis, report

    results = analysis.load(given.folders)
    print(report.write(results, given.out or given.folders[0] / "report"))
    return 0


def _smoke(given: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        out = given.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        status = main(["run", "smoke", "--out", str(out), *_SMOKE])
        return status or main(["report", str(out)])


def _list(given: argparse.Namespace) -> int:
    from benchmarks import peers, tasks

    for suite, names in tasks.SUITES.items():
        print(f"{suite} ({len(names)} tasks)")
        for name in names[:_LISTED]:
            print(f"  {name}")
        if len(names) > _LISTED:
            print(f"  and {len(names) - _LISTED} more, up to {names[-1]}")
    print("methods")
    for method in peers.PEERS:
        reason = peers.missing(method)
        print(f"  {method}" + (f"  missing: {reason}" if reason else ""))
    return 0


def _env(given: argparse.Namespace) -> int:
    from benchmarks import environments

    print(environments.make(given.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
