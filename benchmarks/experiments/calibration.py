"""Coverage of intervals, what the quantile forest adds to the search, and what it costs.

    OMP_NUM_THREADS=1 python -m benchmarks calibration coverage       # exchangeable data
    OMP_NUM_THREADS=1 python -m benchmarks calibration prequential    # histories of real searches
    OMP_NUM_THREADS=1 python -m benchmarks calibration regret --out runs/calibration.jsonl
    OMP_NUM_THREADS=1 python -m benchmarks calibration latency

The members are the two surrogates of `surrogate="auto"`: "trees", the quantile forest, and
"process", the Gaussian process.

`coverage`: share of new draws from the distribution of the data inside the interval, 200 draws a
repetition. `prequential`: the same for each run of a search, by the intervals that each member gave
before the run was told, in the order in which `surrogate="auto"` asked for the runs. `regret`: of
the best config visited, by its loss without noise; what the file holds is not run again, and Syne
Tune's CQR runs in its own environment. `latency`: one ask + tell on eight continuous dimensions.
docs/appendix/calibration.md has the figures.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import environments, peers, tasks
from benchmarks.jsonlines import append_row, read_rows
from benchmarks.markdown import table_head, table_row

if TYPE_CHECKING:
    from hpo.models.fitted import Models
    from hpo.models.surrogate_selector import SurrogateSelector
    from surrogates.data import Columns

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
_ROW = ("method", "task", "seed", "trials")
Row = tuple[str, str, int, int]


def heteroscedastic(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw `n` rows and outcomes with Gaussian noise that grows along the second column."""
    X = rng.random((n, 4))
    return X, _signal(X) + (0.05 + X[:, 1]) * rng.standard_normal(n)


def heavy_tailed(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw `n` rows and outcomes with noise from Student's t with two degrees of freedom."""
    X = rng.random((n, 4))
    return X, _signal(X) + 0.2 * rng.standard_t(2, size=n)


def _signal(X: Array) -> Array:
    return np.asarray(np.sin(6.0 * X[:, 0]) + X[:, 2] ** 2)


Draw = Callable[[int, np.random.Generator], tuple[Array, Array]]
DISTRIBUTIONS: Mapping[str, Draw] = {
    "heteroscedastic": heteroscedastic,
    "heavy-tailed": heavy_tailed,
}


def coverage(repetitions: int, sizes: Sequence[int], members: Sequence[str]) -> None:
    """Print the marginal coverage of the forest, and of the process at a tenth of the repetitions.

    Args:
        repetitions: data sets drawn for the forest.
        sizes: numbers of rows in a data set.
        members: names out of "trees" and "process".
    """
    shares = [f"{c:.0%}" for c in COVERAGES]
    _show(table_head(["distribution", "n", "member", "repetitions", *shares]))
    for (name, draw), n, member in product(DISTRIBUTIONS.items(), sizes, members):
        count = repetitions if member == "trees" else repetitions // 10
        rates, unbounded = _coverage(draw, n, member, count)
        shown = (
            f"{100 * rate:.1f}" + (" unbounded" if infinite else "")
            for rate, infinite in zip(rates, unbounded, strict=True)
        )
        _show([table_row([name, n, member, count, *shown])])


def _coverage(draw: Draw, n: int, member: str, repetitions: int) -> tuple[Array, NDArray[np.bool_]]:
    """Mean coverage at each of `COVERAGES`, and whether any interval there had no end."""
    hits = np.zeros((repetitions, len(COVERAGES)))
    unbounded = np.zeros(len(COVERAGES), dtype=bool)
    for r in range(repetitions):
        rng = np.random.default_rng([n, r])
        (X, y), (new, outcome) = draw(n, rng), draw(200, rng)
        for k, (low, high) in enumerate(_MEMBERS[member](X, y, new)):
            hits[r, k] = np.mean((low <= outcome) & (outcome <= high))
            unbounded[k] |= bool(np.isinf(high).any())
    return np.array([hit.mean() for hit in hits.T]), unbounded


def _show(lines: Sequence[str]) -> None:
    print("\n".join(lines), flush=True)


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


def _columns(d: int) -> Columns:
    from surrogates.data import ColumnKind, Columns

    names = tuple(f"x{i}" for i in range(d))
    return Columns((ColumnKind.DECISION,) * d, names, np.zeros(d), np.ones(d), (0,) * d)


_MEMBERS = {"trees": _trees, "process": _process}


def prequential(seeds: int, trials: int, surrogate: str) -> None:
    """Print how often both members' intervals, given before each run was told, covered it."""
    shares = [f"{c:.0%}" for c in COVERAGES]
    _show(table_head(["family", "member", "runs", *shares, "shown 90%"]))
    hits: dict[tuple[str, str], list[Array]] = defaultdict(list)
    shown: dict[str, list[bool]] = defaultdict(list)
    for name, seed in product(HISTORIES, range(seeds)):
        family = name.split("/")[0]
        for member, found in _followed(name, seed, trials, surrogate, shown[family]).items():
            hits[family, member].extend(found)
    for (family, member), found in hits.items():
        rates = (f"{100 * rate:.1f}" for rate in np.mean(found, axis=0))
        of_trial = f"{100 * np.mean(shown[family]):.1f}" if member == "trees" else ""
        _show([table_row([family, member, len(found), *rates, of_trial])])


def _followed(
    name: str, seed: int, trials: int, surrogate: str, shown: list[bool]
) -> dict[str, list[Array]]:
    """Run one search; return for each run which of the intervals covered it, by member.

    `shown` is extended by whether the interval that the trial itself carried covered the loss.
    """
    from hpo import Optimizer
    from hpo.models.fitted import Models
    from hpo.models.surrogate_selector import SurrogateChoice, SurrogateSelector

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
            for member, covered in _covered(models, members, row, loss).items():
                hits[member].append(np.array(covered, dtype=float))
            interval = trial.prediction.loss_interval if trial.prediction else None
            if interval is not None:
                shown.append(interval[0] <= loss <= interval[1])
        optimizer.tell(trial, loss, failed=None if loss is not None else "error")
    return hits


def _covered(
    models: Models, members: SurrogateSelector, row: Array, loss: float
) -> dict[str, list[bool]]:
    """Whether each member's interval at each of `COVERAGES` holds the loss of the run at `row`.

    Both members get the engine's own corrections, at each coverage as at the 90 % that it shows,
    whichever of them answered the ask.
    """
    from surrogates.conformal import Calibration, OnlineLevel
    from surrogates.quantile_forest import OnlineConformal
    from surrogates.transforms import Transform, location_scale

    raw, _ = models.value(Transform.RAW)
    belief, (location, scale) = raw.posterior(row), location_scale(models.runs.loss)
    sd = float(np.sqrt(belief.variance[0] + raw.noise_variance))
    score = abs((loss - location) / scale - float(belief.mean[0])) / sd
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
        calibration = Calibration(residuals.scores, residuals.weights, {c: level})
        half = calibration.finite_multiplier(c)
        found["process"].append(score <= half)
    return found


def one(method: str, name: str, seed: int, trials: int) -> tuple[float, float]:
    """Run one study; return the smallest regret of a visited config, and seconds.

    Regret is a share of the task's range of losses, by the config's loss without noise.
    """
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


def regret(
    methods: Sequence[str], seeds: range, trials: int, out: Path, families: Sequence[str]
) -> None:
    """Run what the file lacks, each method in its own environment, then print the table."""
    done: dict[Row, float] = {
        (row["method"], row["task"], row["seed"], row["trials"]): row["regret"]
        for row in read_rows(out)
    }
    templates = [template for family in families for template in FAMILIES[family]]
    for seed, template, method in product(seeds, templates, methods):
        key = (method, template, seed, trials)
        if key in done:
            continue
        run = _in_its_environment if method == "syne-cqr" else one
        done[key], seconds = run(method, template.format(seed), seed, trials)
        measured = {"regret": float(f"{done[key]:.6g}"), "seconds": round(seconds, 2)}
        append_row(out, dict(zip(_ROW, key, strict=True)) | measured)
    print(table(done, trials))


def _in_its_environment(method: str, name: str, seed: int, trials: int) -> tuple[float, float]:
    """Run `one` with the interpreter of Syne Tune's environment."""
    command = [str(environments.python("syne")), "-m", "benchmarks", "calibration", "one"]
    command += [method, name, str(seed), str(trials)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    share, seconds = (float(word) for word in printed.split()[-2:])
    return share, seconds


def table(done: Mapping[Row, float], trials: int) -> str:
    """Return the geometric mean regret by family and method, as Markdown.

    The last columns are the median over (task, seed) of auto's regret over the better member's, and
    over Syne Tune's where that ran.

    Args:
        done: regret by method, task template, seed and trials.
        trials: number of trials of the rows that count.
    """
    lines = table_head(["family", *METHODS, "auto / better member", "auto / syne-cqr"])
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
        lines.append(table_row([family, *cells]))
    return "\n".join(lines)


def latency(sizes: Sequence[int], asks: int) -> None:
    """Print milliseconds of processor time and of wall-clock for one ask + tell, by surrogate."""
    _show(table_head(["n", "surrogate", "processor ms", "wall ms"]))
    for n, surrogate in product(sizes, ("quantile", "gp", "auto")):
        used, passed = _latency(n, surrogate, asks)
        _show([table_row([n, surrogate, f"{used:.0f}", f"{passed:.0f}"])])


def _latency(n: int, surrogate: str, asks: int) -> tuple[float, float]:
    """Milliseconds of processor time and of wall-clock after `n` told runs."""
    from benchmarks.experiments.latency import SPACE, loss, points
    from hpo import Optimizer

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
    return used, 1e3 * (time.perf_counter() - wall) / asks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks calibration`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    part = commands.add_parser("coverage", help="on exchangeable data")
    part.set_defaults(action=_run(lambda g: coverage(g.repetitions, g.sizes, g.members)))
    part.add_argument("--repetitions", type=int, default=500)
    part.add_argument("--members", nargs="+", default=list(_MEMBERS), choices=list(_MEMBERS))
    part.add_argument("--sizes", type=int, nargs="+", default=[30, 60, 200, 1000])
    part = commands.add_parser("prequential", help="on histories of real searches")
    part.set_defaults(action=_run(lambda g: prequential(g.seeds, g.trials, g.surrogate)))
    part.add_argument("--seeds", type=int, default=2)
    part.add_argument("--trials", type=int, default=100)
    part.add_argument("--surrogate", default="auto", choices=("auto", "gp", "quantile"))
    part = commands.add_parser("regret", help="of the best config visited, beside Syne Tune's CQR")
    part.set_defaults(
        action=_run(lambda g: regret(g.methods, range(g.seeds), g.trials, g.out, g.families))
    )
    part.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    part.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    part.add_argument("--seeds", type=int, default=5)
    part.add_argument("--trials", type=int, default=100)
    part.add_argument("--out", type=Path, default=Path("runs/calibration.jsonl"))
    part = commands.add_parser("latency", help="of one ask + tell by surrogate")
    part.set_defaults(action=_run(lambda g: latency(g.sizes, g.asks)))
    part.add_argument("--sizes", type=int, nargs="+", default=[200, 2000])
    part.add_argument("--asks", type=int, default=10)
    part = commands.add_parser("one", help="one study of `regret`: prints regret and seconds")
    part.set_defaults(action=_run(lambda g: print(*one(g.method, g.task, g.seed, g.trials))))
    part.add_argument("method")
    part.add_argument("task")
    part.add_argument("seed", type=int)
    part.add_argument("trials", type=int)


def _run(experiment: Callable[[Any], None]) -> Callable[[argparse.Namespace], int]:
    """Make an action of a function that prints its results."""

    def action(given: argparse.Namespace) -> int:
        experiment(given)
        return 0

    return action
