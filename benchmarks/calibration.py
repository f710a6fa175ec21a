"""Are intervals right as often as they say, do trees help the search, and what do they cost?

    OMP_NUM_THREADS=1 python -m benchmarks.calibration coverage       # exchangeable data
    OMP_NUM_THREADS=1 python -m benchmarks.calibration prequential    # histories of real searches
    OMP_NUM_THREADS=1 python -m benchmarks.calibration regret --out runs/calibration.csv
    OMP_NUM_THREADS=1 python -m benchmarks.calibration latency

`coverage`: a new draw from the law of the data, 200 of them a repetition. `prequential`: what each
member would have said of each run before it was told, in the order in which `surrogate="auto"`
asked for it. `regret`: of the best config visited, by its loss without noise; rows that are in the
file already are not run again, and Syne Tune's CQR runs in its own environment. `latency`: one
ask + tell on eight continuous dimensions. docs/calibration.md has the figures.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import environments, peers, tasks

Array = NDArray[np.float64]

COVERAGES = (0.5, 0.8, 0.9, 0.95)
HISTORIES = (
    *(f"fcnet/{name}" for name in ("protein_structure", "slice_localization")),
    *(f"hpobench/{name}" for name in ("car", "credit_g", "segment", "vehicle")),
    *(f"lcbench/{name}" for name in ("167168", "189873", "189906", "3945")),
)
FAMILIES = {
    "heteroscedastic": ("synthetic/mixed-{}+hetero=0.1", "synthetic/hartmann6-{}+hetero=0.3"),
    "10 % outliers": ("synthetic/mixed-{}+outliers=0.1", "synthetic/hartmann6-{}+outliers=0.1"),
    "NAS-Bench-201": tuple(
        f"nasbench201/{name}+repeats" for name in ("cifar10", "cifar100", "imagenet")
    ),
    "FCNet": tuple(
        f"fcnet/{name}+repeats"
        for name in (
            "naval_propulsion",
            "parkinsons_telemonitoring",
            "protein_structure",
            "slice_localization",
        )
    ),
}
METHODS = ("scaletune", "scaletune-gp", "scaletune-quantile", "syne-cqr")
FLOOR = 1e-3  # of the range of losses; below it, regrets count as equal
_WARM_UP = 20  # tells before intervals are counted


def heteroscedastic(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    X = rng.random((n, 4))
    return X, _signal(X) + (0.05 + X[:, 1]) * rng.standard_normal(n)


def heavy_tailed(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    X = rng.random((n, 4))
    return X, _signal(X) + 0.2 * rng.standard_t(2, size=n)


def _signal(X: Array) -> Array:
    return np.asarray(np.sin(6.0 * X[:, 0]) + X[:, 2] ** 2)


LAWS = {"heteroscedastic": heteroscedastic, "heavy-tailed": heavy_tailed}


def coverage(repetitions: int, sizes: list[int], members: list[str]) -> None:
    """Marginal coverage of the forest, and of the process at a tenth of the repetitions."""
    print("| law | n | member | repetitions |", " | ".join(f"{c:.0%}" for c in COVERAGES), "|")
    print("|---" * (4 + len(COVERAGES)) + "|")
    for law, draw in LAWS.items():
        for n in sizes:
            for member in members:
                count = repetitions if member == "trees" else repetitions // 10
                hits = np.zeros((count, len(COVERAGES)))
                unbounded = np.zeros(len(COVERAGES), dtype=bool)
                for r in range(count):
                    rng = np.random.default_rng([n, r])
                    (X, y), (new, outcome) = draw(n, rng), draw(200, rng)
                    for k, (low, high) in enumerate(_MEMBERS[member](X, y, new)):
                        hits[r, k] = np.mean((low <= outcome) & (outcome <= high))
                        unbounded[k] |= bool(np.isinf(high).any())
                shown = (
                    f"{100 * hits[:, k].mean():.1f}" + (" unbounded" if unbounded[k] else "")
                    for k in range(len(COVERAGES))
                )
                print(f"| {law} | {n} | {member} | {count} |", " | ".join(shown), "|", flush=True)


def _trees(X: Array, y: Array, new: Array) -> Iterator[tuple[Array, Array]]:
    from surrogates.data import TrainingData
    from surrogates.quantile_forest import LEVELS, QuantileForest

    q = QuantileForest().fit(TrainingData(X, y, _columns(X.shape[1]))).quantiles(new)
    for level in COVERAGES:
        k = int(np.argmin(np.abs(LEVELS - 0.5 * (1.0 - level))))
        yield q[:, k], q[:, -1 - k]


def _process(X: Array, y: Array, new: Array) -> Iterator[tuple[Array, Array]]:
    from surrogates.conformal import Calibration, fold_hyperparameters
    from surrogates.data import TrainingData
    from surrogates.gp import GaussianProcess
    from surrogates.transforms import location_scale

    location, scale = location_scale(y)
    data = TrainingData(X, (y - location) / scale, _columns(X.shape[1]))
    model = GaussianProcess()
    theta = model.learn(data)
    predictor = model.predictor(data, theta)
    belief = predictor.posterior(new)
    sd = np.sqrt(belief.variance + predictor.noise_variance)
    if len(y) <= 128:  # as in hpo/models/surrogate_selector.py
        calibration = Calibration.cross_fitted(
            model, data, fold_hyperparameters(model, data, theta)
        )
    else:
        calibration = Calibration.of(predictor)
    for level in COVERAGES:
        half = calibration.multiplier(level) * sd
        yield location + scale * (belief.mean - half), location + scale * (belief.mean + half)


def _columns(d: int):  # type: ignore[no-untyped-def]  # the type would load SciPy here
    from surrogates.data import ColumnKind, Columns

    names = tuple(f"x{i}" for i in range(d))
    return Columns((ColumnKind.DECISION,) * d, names, np.zeros(d), np.ones(d), (0,) * d)


_MEMBERS = {"trees": _trees, "process": _process}


def prequential(seeds: int, trials: int, surrogate: str) -> None:
    """Coverage of each run by what both members said before it was told."""
    print("| family | member | runs |", " | ".join(f"{c:.0%}" for c in COVERAGES), "| shown 90% |")
    print("|---" * (4 + len(COVERAGES)) + "|")
    hits: dict[tuple[str, str], list[Array]] = defaultdict(list)
    shown: dict[str, list[bool]] = defaultdict(list)
    for name in HISTORIES:
        for seed in range(seeds):
            family = name.split("/")[0]
            followed = _followed(name, seed, trials, surrogate, shown[family])
            for member, found in followed.items():
                hits[family, member].extend(found)
    for (family, member), found in hits.items():
        rates = " | ".join(f"{100 * rate:.1f}" for rate in np.mean(found, axis=0))
        told = f"{100 * np.mean(shown[family]):.1f}" if member == "trees" else ""
        print(f"| {family} | {member} | {len(found)} | {rates} | {told} |", flush=True)


def _followed(
    name: str, seed: int, trials: int, surrogate: str, shown: list[bool]
) -> dict[str, list[Array]]:
    """One search; for each run told, which of the intervals covered it, by member.

    Both members are followed with the engine's own corrections, at each coverage as at the 90 %
    that it shows, whoever answered the ask.
    """
    from hpo import Optimizer
    from hpo.models.fitted import Models
    from hpo.models.surrogate_selector import SurrogateChoice, SurrogateSelector
    from surrogates.conformal import Calibration, OnlineLevel
    from surrogates.quantile_forest import OnlineConformal
    from surrogates.transforms import Transform, location_scale

    task, rng = tasks.load(name), np.random.default_rng([seed, 1])
    optimizer = Optimizer(task.space, seed=seed, surrogate=surrogate)
    models = Models(optimizer.encoder)
    members = SurrogateSelector(models, SurrogateChoice.AUTO)
    hits: dict[str, list[Array]] = {"trees": [], "process": []}
    for number in range(trials):
        trial = optimizer.ask()
        loss = task.evaluate(trial.config, None, rng).loss
        models.sync(optimizer.log)
        members.sync()
        if loss is not None and number >= _WARM_UP and len(models.runs):
            row = optimizer.encoder.encode([trial.config])
            raw, _ = models.value(Transform.RAW)
            belief, (location, scale) = raw.posterior(row), location_scale(models.runs.loss)
            sd = float(np.sqrt(belief.variance[0] + raw.noise_variance))
            strange = abs((loss - location) / scale - float(belief.mean[0])) / sd
            residuals = members.calibration(raw, row, online=True)
            found: dict[str, list[bool]] = {"trees": [], "process": []}
            for c in COVERAGES:
                level, ahead = OnlineLevel.start(1.0 - c), OnlineConformal.start(c)
                for block in members.blocks:
                    for beta in block.betas:
                        level = level.updated(beta)
                    assert block.conformity_scores is not None
                    ahead = ahead.updated(block.conformity_scores)
                low, _, high = ahead.interval(members.forest(), row)
                found["trees"].append(low <= loss <= high)
                half = Calibration(
                    residuals.scores, residuals.weights, {c: level}
                ).finite_multiplier(c)
                found["process"].append(strange <= half)
            for member, covered in found.items():
                hits[member].append(np.array(covered, dtype=float))
            interval = trial.prediction.loss_interval if trial.prediction else None
            if interval is not None:
                shown.append(interval[0] <= loss <= interval[1])
        optimizer.tell(trial, loss, failed=None if loss is not None else "error")
    return hits


def one(method: str, name: str, seed: int, trials: int) -> tuple[float, float]:
    """Smallest regret of a visited config, by its loss without noise, and seconds."""
    task = tasks.load(name)
    peer, rng = peers.make(method, task, seed=seed, trials=trials), np.random.default_rng(seed)
    best, start = np.inf, time.perf_counter()
    for _ in range(trials):
        job = peer.ask()
        if job is None:
            break
        run = task.evaluate(job.config, None, rng)
        peer.tell(job, run)
        if run.loss is not None:
            best = min(best, run.loss if run.true_loss is None else run.true_loss)
    spread = task.bounds.worst - task.bounds.best
    return float((best - task.bounds.best) / spread), time.perf_counter() - start


def regret(methods: list[str], seeds: range, trials: int, out: Path, families: list[str]) -> None:
    """Run what the file lacks, each method in its own environment, then print the table."""
    done = _read(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for family in families:
            for template in FAMILIES[family]:
                for method in methods:
                    key = (method, template, seed, trials)
                    if key in done:
                        continue
                    name = template.format(seed)
                    if method == "syne-cqr":
                        command = [str(environments.python("syne")), "-m", "benchmarks.calibration"]
                        command += ["one", method, name, str(seed), str(trials)]
                        said = subprocess.run(
                            command, stdout=subprocess.PIPE, text=True, check=True
                        )
                        share, seconds = (float(word) for word in said.stdout.split()[-2:])
                    else:
                        share, seconds = one(method, name, seed, trials)
                    done[key] = share
                    with out.open("a", newline="") as file:
                        csv.writer(file).writerow([*key, f"{share:.6g}", f"{seconds:.2f}"])
    print(table(done, trials))


def _read(path: Path) -> dict[tuple[str, str, int, int], float]:
    if not path.exists():
        return {}
    with path.open() as file:
        return {
            (method, name, int(seed), int(trials)): float(share)
            for method, name, seed, trials, share, _ in csv.reader(file)
        }


def table(done: dict[tuple[str, str, int, int], float], trials: int) -> str:
    """Geometric mean regret by family and method over the seeds that all of its rows share.

    The last columns: median over (task, seed) of auto's regret over the better member's, and
    over Syne Tune's where that ran.
    """
    lines = ["| family | " + " | ".join(METHODS) + " | auto / better member | auto / syne-cqr |"]
    lines.append("|---" * (len(METHODS) + 3) + "|")
    for family, templates in FAMILIES.items():
        found: dict[str, dict[tuple[str, int], float]] = {
            method: {
                (name, seed): max(share, FLOOR)
                for (by, name, seed, count), share in done.items()
                if by == method and name in templates and count == trials
            }
            for method in METHODS
        }
        cells = [
            f"{np.exp(np.mean(np.log(list(rows.values())))):.4f} ({len(rows)})" if rows else ""
            for rows in found.values()
        ]
        auto, process, trees, syne = (found[method] for method in METHODS)
        both = [key for key in auto if key in process and key in trees]
        ratios = [auto[key] / min(process[key], trees[key]) for key in both]
        rival = [auto[key] / syne[key] for key in auto if key in syne]
        cells.append(f"{np.median(ratios):.2f}" if ratios else "")
        cells.append(f"{np.median(rival):.2f}" if rival else "")
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def latency(sizes: list[int], asks: int) -> None:
    """Milliseconds of processor time and of wall-clock for one ask + tell, by surrogate."""
    from benchmarks.latency import SPACE, loss, points
    from hpo import Optimizer

    print("| n | surrogate | processor ms | wall ms |\n|---|---|---|---|")
    for n in sizes:
        for surrogate in ("quantile", "gp", "auto"):
            optimizer = Optimizer(SPACE, surrogate=surrogate, seed=0)
            for config in points(n):
                optimizer.tell(config, loss(config))
            for _ in range(3):  # replays the refits of the told runs, loads scikit-learn
                trial = optimizer.ask()
                optimizer.tell(trial, loss(trial.config))
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(asks):
                trial = optimizer.ask()
                optimizer.tell(trial, loss(trial.config))
            used = 1e3 * (time.process_time() - processor) / asks
            passed = 1e3 * (time.perf_counter() - wall) / asks
            print(f"| {n} | {surrogate} | {used:.0f} | {passed:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    part = commands.add_parser("coverage")
    part.add_argument("--repetitions", type=int, default=500)
    part.add_argument("--members", nargs="+", default=list(_MEMBERS), choices=list(_MEMBERS))
    part.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 200, 1000])
    part = commands.add_parser("prequential")
    part.add_argument("--seeds", type=int, default=2)
    part.add_argument("--trials", type=int, default=100)
    part.add_argument("--surrogate", default="auto", choices=("auto", "gp", "quantile"))
    part = commands.add_parser("regret")
    part.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    part.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    part.add_argument("--seeds", type=int, default=5)
    part.add_argument("--trials", type=int, default=100)
    part.add_argument("--out", type=Path, default=Path("runs/calibration.csv"))
    part = commands.add_parser("latency")
    part.add_argument("--sizes", type=int, nargs="+", default=[200, 2000])
    part.add_argument("--asks", type=int, default=10)
    part = commands.add_parser("one")
    part.add_argument("method")
    part.add_argument("task")
    part.add_argument("seed", type=int)
    part.add_argument("trials", type=int)
    given = parser.parse_args()
    run: dict[str, Callable[[], None]] = {
        "coverage": lambda: coverage(given.repetitions, given.sizes, given.members),
        "prequential": lambda: prequential(given.seeds, given.trials, given.surrogate),
        "regret": lambda: regret(
            given.methods, range(given.seeds), given.trials, given.out, given.families
        ),
        "latency": lambda: latency(given.sizes, given.asks),
        "one": lambda: print(*one(given.method, given.task, given.seed, given.trials)),
    }
    run[given.command]()


if __name__ == "__main__":
    main()
