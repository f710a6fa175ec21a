"""Command line of the benchmarks.

python -m benchmarks list
python -m benchmarks run hpob-style --methods scaletune optuna-gp --seeds 10 --out results/hpob
python -m benchmarks report results/hpob
python -m benchmarks smoke
python -m benchmarks record
python -m benchmarks env smac
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_DEFAULT_METHODS = ("scaletune", "random", "optuna-tpe", "optuna-gp")
_SMOKE = ["--methods", "scaletune", "random", "optuna-tpe", "--seeds", "2", "--trials", "12"]
_LISTED = 20  # tasks shown of a suite
_NAMED = 4  # names shown that lack the same thing
#: Suite -> start points and seeds of the HPO-B protocol, whose own suites fix five of either.
_PROTOCOL = {"hpob-style": (5, 10), "hpob-v3-test": (5, 5), "hpob-continuous": (5, 5)}
_DEFAULT_PROTOCOL = (0, 10)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 when a study failed or none could run; 2 when refused; 130 on Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # `record` reads its own options; argparse.REMAINDER would refuse one that comes first.
    own = words[:1] if words[:1] == ["record"] else words
    given = _parser().parse_args(own)
    given.rest = words[len(own) :]
    try:
        status: int = given.command(given)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare optimizers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a suite into a table, or go on with it")
    run.add_argument("suite", help="a suite, or a name for those given by --tasks")
    run.add_argument("--tasks", nargs="+", help="instead of the suite's own")
    run.add_argument("--methods", nargs="+", default=list(_DEFAULT_METHODS))
    run.add_argument("--seeds", type=int, help="default: 10, of HPO-B's own suites 5")
    run.add_argument("--first-seed", type=int, default=0)
    run.add_argument("--trials", type=float, help="full trainings per study; 100 without --budget")
    run.add_argument("--budget", help='cost per study: a number, or "20x" for mean full trainings')
    run.add_argument("--seconds-per-study", type=float, help="stop slower methods; is recorded")
    run.add_argument("--starts", type=int, help="common start points (hpob-*: 5, else 0)")
    run.add_argument("--workers", type=int, default=1, help="simulated, on a virtual clock")
    run.add_argument("--processes", type=int, default=1, help="real, in parallel")
    run.add_argument("--threads", type=int, default=1, help="per process")
    run.add_argument("--out", type=Path, help="default: runs/SUITE")
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    run.set_defaults(command=_run)

    report = commands.add_parser("report", help="Markdown, pictures and an HTML page")
    report.add_argument("folders", nargs="+", type=Path, help="what `run --out` named")
    report.add_argument("--out", type=Path, help="default: report/ in the first folder")
    report.set_defaults(command=_report)

    smoke = commands.add_parser("smoke", help="run a tiny suite and report it, in seconds")
    smoke.add_argument("--out", type=Path, help="default: a temporary folder")
    smoke.set_defaults(command=_smoke)

    listing = commands.add_parser("list", help="suites, tasks and methods, and what is missing")
    listing.set_defaults(command=_list)

    env = commands.add_parser("env", help="make the environment of a method")
    env.add_argument("name")
    env.set_defaults(command=_env)

    record = commands.add_parser("record", help="train the curve bank's workloads", add_help=False)
    record.set_defaults(command=_record)
    return parser


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


def _record(given: argparse.Namespace) -> int:
    from benchmarks import recording

    return recording.main(given.rest)


if __name__ == "__main__":
    sys.exit(main())
