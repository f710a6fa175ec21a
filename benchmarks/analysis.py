"""Statistics of result tables. Every function takes arrays and returns new ones.

Notation
--------
T, M, S, G      tasks, methods, seeds, points of a grid of budgets
regret          `(T, M, S, G)`: (incumbent - best) / (worst - best), clipped to [0, 1]; 1 before a
                first full run; NaN beyond the end of that study (slower methods may be stopped
                early, and are then compared only up to where they were stopped)
axis            amount spent: full trainings, cost, or seconds of the method's own asks and tells.
                Cost is in mean full trainings of the task if all studies had a budget of cost;
                otherwise it is the share of the smallest total among finished studies of the same
                task and seed, up to which all of them can be compared

Seeds are averaged first; intervals resample tasks, as several runs of one task are not independent
evidence on another task (HPO-B's own diagrams treat 430 runs of 86 tasks as independent).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import END, Record, Study, read

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

__all__ = [
    "BudgetAxis",
    "Comparison",
    "Interval",
    "Latency",
    "Results",
    "TaskFacts",
    "anytime_area",
    "bootstrap",
    "compare",
    "holm",
    "hypervolumes",
    "latency",
    "load",
    "mean_ranks",
    "mean_seconds",
    "percentiles",
    "quick_rivals",
    "ranks",
    "regret_ratio",
    "time_to_target",
    "wilcoxon_holm",
    "win_tie_loss",
]

OURS = "scaletune"
LEVEL = 0.95
_BOOTSTRAPS = 4000
_TIE = 1e-8  # HPO-B's rounding
_CORE = 0.8  # share of the cells that a method must have to be in the main comparison
_REACHED = 1 - 1e-9
_EDGES = (0, 10, 25, 50, 100, 200, 500, 1000, 2000, 5000)  # of the latency's bins, in trials


class BudgetAxis(Enum):
    """The quantity against which a curve is drawn."""

    TRIALS = "trials"
    COST = "cost"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """Properties of a task as stored in `tasks.json`; see `benchmarks.task`."""

    best: float
    worst: float
    unit: str
    full_cost: float
    seen_in_design: bool
    levels: Mapping[str, Any] | None = None

    @property
    def top_level(self) -> int | None:
        """Full fidelity; None on tasks without levels."""
        return None if self.levels is None else int(self.levels["high"])

    def agrees(self, other: TaskFacts) -> bool:
        """Return whether regrets and costs are comparable; last digits may differ by machine."""
        return all(
            math.isclose(mine, theirs, rel_tol=1e-4, abs_tol=1e-9)
            for mine, theirs in (
                (self.best, other.best),
                (self.worst, other.worst),
                (self.full_cost, other.full_cost),
            )
        )

    def regret(self, loss: Array) -> Array:
        """Return the regret of losses of any shape; 1 for NaN, 0 if all losses are equal."""
        width = self.worst - self.best
        scaled = (loss - self.best) / width if width > 0 else np.zeros_like(loss)
        return np.asarray(np.where(np.isnan(loss), 1.0, np.clip(scaled, 0.0, 1.0)))


@dataclass(frozen=True, slots=True)
class Results:
    """Contents of the tables, properties of the tasks, and the records of the runs."""

    records: Mapping[Study, Record]
    tasks: Mapping[str, TaskFacts]
    runs: tuple[Mapping[str, Any], ...]

    @property
    def suites(self) -> tuple[str, ...]:
        """Names of the suites, in the order run."""
        return tuple(dict.fromkeys(study.suite for study in self.records))

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, ours first."""
        return tuple(sorted({s.method for s in self.records}, key=lambda m: (m != OURS, m)))

    def suite(self, name: str) -> Results:
        """Return the studies of one suite that have any row."""
        kept = {s: r for s, r in self.records.items() if s.suite == name and r.outcomes}
        return Results(kept, self.tasks, self.runs)


def load(folders: Sequence[Path]) -> Results:
    """Load the results in the folders of one or more runs.

    Raises:
        FileNotFoundError: for a folder without a table.
        ValueError: if there is no finished job, if a file is damaged, or if the folders cannot be
            compared: a study in two of them, or a suite run under two protocols.
    """
    records: dict[Study, Record] = {}
    runs: list[Mapping[str, Any]] = []
    facts: dict[str, TaskFacts] = {}
    protocols: dict[str, list[int]] = {}
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        path = folder / "results.csv"
        if not path.exists():
            raise FileNotFoundError(f"no results in {folder}; make them: python -m benchmarks run")
        here = read(path)
        for study, record in here.items():
            if study in records:
                raise ValueError(f"{study} is in more than one of the folders; report them apart")
            records[study] = record
        if not any(record.outcomes for record in here.values()):
            continue  # a run that was stopped at once has not written the other files either
        made, described = _beside(folder)
        for run in made:
            suite, *protocol = (run["plan"][name] for name in ("suite", "workers", "starts"))
            if protocols.setdefault(suite, protocol) != protocol:
                raise ValueError(
                    f"{suite} was run with {protocol[0]} workers and {protocol[1]} start points in"
                    f" {folder}, otherwise elsewhere; report the folders apart"
                )
        runs += made
        for name, fact in described.items():
            if not facts.setdefault(name, fact).agrees(fact):
                raise ValueError(
                    f"best, worst or cost of {name} differ between the folders, so their regrets do"
                    " not compare; report them apart"
                )
    if not any(record.outcomes for record in records.values()):
        raise ValueError(f"no finished job in {', '.join(map(str, folders))}; run it again first")
    unknown = sorted({study.task for study in records} - facts.keys())
    if unknown:
        raise ValueError(f"tasks.json says nothing of {', '.join(unknown)}; run it again first")
    return Results(records, facts, tuple(runs))


def _beside(folder: Path) -> tuple[list[Mapping[str, Any]], dict[str, TaskFacts]]:
    """Read the files beside a table; raises `ValueError` naming a damaged one."""
    path = folder / "run.json"
    try:
        runs = list(json.loads(path.read_text(encoding="utf-8")))
        for run in runs:
            _ = run["plan"]["suite"], run["plan"]["workers"], run["plan"]["starts"]
        path = folder / "tasks.json"
        entries = dict(json.loads(path.read_text(encoding="utf-8")))
        described = {
            name: TaskFacts(**{f.name: entry[f.name] for f in fields(TaskFacts)})
            for name, entry in entries.items()
        }
    except (ValueError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged ({reason}); run the suite again first") from None
    return runs, described


# --- curves --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods on the studies that all of them have: `regret` is NaN outside of those.

    `coverage`: sentences on what was left out. `outside`: methods with too few studies to be
    compared.
    """

    suite: str
    axis: BudgetAxis
    label: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    grid: Array
    regret: Array
    coverage: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()

    def at(self, budget: float) -> Array:
        """Return the regret at the last grid point up to `budget`, seeds averaged, `(T, M)`."""
        index = int(np.searchsorted(self.grid, budget * (1 + 1e-9), side="right")) - 1
        return np.asarray(np.nanmean(self.regret[..., index], axis=2))

    def curve(self, method: str) -> Array:
        """Return the regret of one method, seeds averaged, `(T, G)`."""
        return np.asarray(np.nanmean(self.regret[:, self.methods.index(method)], axis=1))

    def runs(self) -> int:
        """Return the number of (task, seed) pairs that are compared."""
        return int((~np.isnan(self.regret[:, 0, :, -1])).sum())


def compare(results: Results, axis: BudgetAxis, methods: Sequence[str] | None = None) -> Comparison:
    """Compare the regret of one suite's methods on their common studies.

    Args:
        results: results of the suite.
        axis: quantity against which regret is taken.
        methods: names of the methods to compare; by default every method that has at least 80 % of
            the studies that any method has, so that one slow method does not restrict the
            comparison of all others.
    """
    names = results.methods
    tasks = tuple(dict.fromkeys(study.task for study in results.records))
    seeds = tuple(sorted({study.seed for study in results.records}))
    label, spent = _spent(results, axis)
    grid = _grid(axis, results.records, spent)
    regret = np.full((len(tasks), len(names), len(seeds), len(grid)), np.nan)
    for study, record in results.records.items():
        incumbent = _floats(o.incumbent for o in record.outcomes)
        curve = results.tasks[study.task].regret(_step(spent[study], incumbent, grid))
        if not _exhausted(record, axis):
            curve[grid * _REACHED > spent[study][-1]] = np.nan
        cell = tasks.index(study.task), names.index(study.method), seeds.index(study.seed)
        regret[cell] = curve
    return _common(results.suites[0], axis, label, tasks, names, seeds, grid, regret, methods)


def _floats(values: Iterable[float | None]) -> Array:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)


def _spent(results: Results, axis: BudgetAxis) -> tuple[str, dict[Study, Array]]:
    """The axis' label, and `(n,)` spent after each job of every study."""
    records = results.records
    if axis is BudgetAxis.TRIALS:
        return "full trainings", {
            s: _floats(o.effort for o in r.outcomes) for s, r in records.items()
        }
    if axis is BudgetAxis.SECONDS:
        return "seconds of ask + tell", {
            s: np.cumsum(_floats(o.ask_s + o.tell_s for o in r.outcomes))
            for s, r in records.items()
        }
    cost = {s: _floats(o.cost for o in r.outcomes) for s, r in records.items()}
    if "trials" not in {_ended(r) for r in records.values()}:
        return "cost, in mean full trainings", {
            s: c / (results.tasks[s.task].full_cost or 1.0) for s, c in cost.items()
        }
    shared: dict[tuple[str, int], float] = {}
    for study, record in records.items():
        if _ended(record) in ("trials", "cost"):
            key = study.task, study.seed
            shared[key] = min(shared.get(key, math.inf), float(cost[study][-1]))
    return "cost, as a share of what every finished study spent", {
        s: c / (shared.get((s.task, s.seed), float(c[-1])) or 1.0) for s, c in cost.items()
    }


def _ended(record: Record) -> str | None:
    return None if record.note is None else record.note.reason.removeprefix(END)


def _exhausted(record: Record, axis: BudgetAxis) -> bool:
    """Whether the study's last incumbent is its answer at any larger budget on this axis."""
    reason = _ended(record)
    return reason == "method" or (axis is BudgetAxis.SECONDS and reason in ("trials", "cost"))


def _grid(axis: BudgetAxis, records: Mapping[Study, Record], spent: Mapping[Study, Array]) -> Array:
    """Budgets up to the largest that every study reached that ran to its limit.

    On seconds, the answer of studies that ended for another reason is final, so the axis ends where
    methods were stopped for slowness, or else with the slowest.
    """
    reasons = ("seconds",) if axis is BudgetAxis.SECONDS else ("trials", "cost")
    ends = [float(spent[s][-1]) for s, r in records.items() if _ended(r) in reasons]
    last = min(ends) if ends else max(float(s[-1]) for s in spent.values())
    if axis is BudgetAxis.TRIALS:
        has_starts = any(r.outcomes[0].trial < 0 for r in records.values())
        return np.arange(0.0 if has_starts else 1.0, math.floor(last + 1e-6) + 1.0)
    if axis is BudgetAxis.COST:
        return np.linspace(last / 100, last, 100)
    return np.geomspace(1e-3, max(last, 1e-2), 100)


def _step(spent: Array, incumbent: Array, grid: Array) -> Array:
    """`(G,)` last incumbent bought by each budget; NaN before the first."""
    index = np.searchsorted(spent, grid * (1 + 1e-9), side="right")
    return np.concatenate([[np.nan], incumbent])[index]


def _common(
    suite: str,
    axis: BudgetAxis,
    label: str,
    tasks: tuple[str, ...],
    names: tuple[str, ...],
    seeds: tuple[int, ...],
    grid: Array,
    regret: Array,
    methods: Sequence[str] | None,
) -> Comparison:
    there: Mask = np.logical_not(np.isnan(regret[..., -1]))  # (T, M, S)
    union = int(there.any(axis=1).sum())
    count = there.sum(axis=(0, 2))
    chosen = [
        i
        for i, name in enumerate(names)
        if (name in methods if methods is not None else count[i] >= _CORE * union)
    ]
    if not chosen:  # no method got far: take the one that got farthest
        chosen = [int(np.argmax(count))]
    shared: Mask = np.asarray(there[:, chosen].all(axis=1))  # (T, S)
    kept_tasks: Mask = np.asarray(shared.any(axis=1))
    kept_seeds: Mask = np.asarray(shared.any(axis=0))
    regret = np.where(shared[:, None, :, None], regret[:, chosen], np.nan)
    outside = tuple(n for i, n in enumerate(names) if i not in chosen)
    sentences = []
    if shared.sum() < union:
        sentences.append(
            f"Compared on the {int(shared.sum())} of {union} (task, seed) pairs on which all of"
            f" {', '.join(names[i] for i in chosen)} got to the end of the axis."
        )
    sentences += [
        f"{', '.join(alike)} got to the end of the axis on {reached} of {union} (task, seed) pairs."
        for reached in sorted({int(c) for c in count if c < union})
        for alike in [[name for i, name in enumerate(names) if count[i] == reached]]
    ]
    return Comparison(
        suite=suite,
        axis=axis,
        label=label,
        tasks=tuple(t for t, kept in zip(tasks, kept_tasks, strict=True) if kept),
        methods=tuple(names[i] for i in chosen),
        seeds=tuple(s for s, kept in zip(seeds, kept_seeds, strict=True) if kept),
        grid=grid,
        regret=regret[kept_tasks][:, :, kept_seeds],
        coverage=tuple(sentences),
        outside=outside,
    )


# --- statistics ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and its bootstrap interval at `LEVEL`."""

    value: float
    low: float
    high: float


def bootstrap(
    values: Array, *, rng: np.random.Generator, log: bool = False, level: float = LEVEL
) -> Interval:
    """Return the mean of `values` `(T,)` and its percentile interval; geometric mean if `log`."""
    values = np.log(values) if log else np.asarray(values, dtype=np.float64)
    if not len(values):
        return Interval(math.nan, math.nan, math.nan)
    picks = rng.integers(len(values), size=(_BOOTSTRAPS, len(values)))
    figures = (float(values.mean()), *percentiles(values[picks].mean(axis=1), level))
    return Interval(*(math.exp(v) if log else v for v in figures))


def percentiles(draws: Array, level: float = LEVEL, *, finite: bool = True) -> tuple[float, float]:
    """Return the ends of the central interval that holds a share `level` of `draws` `(n,)`.

    Args:
        draws: resampled figures.
        level: share of the draws inside.
        finite: whether all draws are finite. If not, each end is a draw, because interpolation
            between an infinite and a finite one is undefined.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="linear" if finite else "nearest")
    return float(low), float(high)


def quick_rivals(results: Results, comparison: Comparison, limit: float) -> tuple[str, ...]:
    """Return the compared rivals, ours excluded, whose mean ask + tell is below `limit` seconds."""
    seconds = dict(zip(results.methods, mean_seconds(results), strict=True))
    return tuple(m for m in comparison.methods if not m.startswith(OURS) and seconds[m] < limit)


def mean_seconds(results: Results) -> Array:
    """Return the mean ask + tell of a trial, over all of a method's trials, `(M,)`."""
    seconds: dict[str, list[float]] = {method: [] for method in results.methods}
    for study, record in results.records.items():
        seconds[study.method] += [o.ask_s + o.tell_s for o in record.outcomes if o.trial >= 0]
    return np.array([np.mean(s) if s else math.nan for s in seconds.values()])


def regret_ratio(
    at: Array, ours: int, rivals: Sequence[int], *, rng: np.random.Generator
) -> Interval:
    """Return the mean of column `ours` of `at` `(T, M)` over the smallest mean of the `rivals`.

    The best rival is chosen again in every resample of tasks, so that the interval includes this
    choice. The ratio is 1 if both means are 0, and infinite if only the rivals' is.
    """
    picks = rng.integers(len(at), size=(_BOOTSTRAPS, len(at)))
    drawn = np.concatenate([at[None], at[picks]]).mean(axis=1)  # (1 + bootstraps, M)
    above, below = drawn[:, ours], drawn[:, list(rivals)].min(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where((above == 0) & (below == 0), 1.0, above / below)
    return Interval(float(ratios[0]), *percentiles(ratios[1:], finite=False))


def ranks(regret: Array) -> Array:
    """Return ranks along axis 1 (methods), 1 the best, ties averaged after rounding to 8 digits."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(np.round(regret, 8), axis=1, nan_policy="propagate"))


def mean_ranks(comparison: Comparison) -> Array:
    """Return ranks within each (task, seed), averaged over seeds, then tasks, `(M, G)`."""
    return np.asarray(np.nanmean(ranks(comparison.regret), axis=2).mean(axis=0))


def win_tie_loss(at: Array, ours: int, theirs: int) -> tuple[int, int, int]:
    """Count tasks on which column `ours` of `at` `(T, M)` is below, equal to, above `theirs`."""
    apart = at[:, theirs] - at[:, ours]
    won, lost = int((apart > _TIE).sum()), int((apart < -_TIE).sum())
    return won, len(apart) - won - lost, lost


def holm(p: Array) -> Array:
    """Return Holm's step-down adjustment of `(k,)` p-values: max over j <= i of (k - j) p_(j)."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def wilcoxon_holm(at: Array) -> Array:
    """Return adjusted two-sided p-values `(M, M)` of all pairs of columns of `at` `(T, M)`.

    Wilcoxon's signed-rank test over tasks; ties count half to either side (Pratt's rule would drop
    them from the sum of ranks, and equal columns then have no test).
    """
    from scipy.stats import wilcoxon

    count = at.shape[1]
    pairs = list(itertools.combinations(range(count), 2))
    raw = []
    for i, j in pairs:
        apart = np.round(at[:, i] - at[:, j], 8)
        raw.append(float(wilcoxon(apart, zero_method="zsplit").pvalue) if apart.any() else 1.0)
    matrix = np.ones((count, count))
    for (i, j), p in zip(pairs, holm(np.array(raw)), strict=True):
        matrix[i, j] = matrix[j, i] = p
    return matrix


def time_to_target(ours: Array, theirs: Array, grid: Array) -> Array:
    """Return the budget that curve `ours` needs to a target over that of `theirs`, `(T,)`.

    Below 1, ours is faster. The target of a task is the worse of the two final regrets, which both
    reach, so that no ratio is censored.

    Args:
        ours: regret of our method, `(T, G)`.
        theirs: regret of the rival, `(T, G)`.
        grid: budgets, `(G,)`.
    """
    target = np.maximum(ours[:, -1], theirs[:, -1])[:, None]
    positive = np.maximum(grid, grid[grid > 0][0])
    first = [positive[np.argmax(curve <= target, axis=1)] for curve in (ours, theirs)]
    return np.asarray(first[0] / first[1])


def anytime_area(comparison: Comparison) -> Array:
    """Return the mean regret over the grid, seeds averaged, `(T, M)`."""
    return np.asarray(np.nanmean(comparison.regret, axis=2).mean(axis=2))


def hypervolumes(results: Results, comparison: Comparison) -> Array:
    """Return the area dominated by the front of full runs' regret against their cost, `(T, M)`.

    Costs are shares of the most expensive run of any method on the task; the reference point is
    regret 1 at that cost, so 1 would be the best loss at no cost. Only compared studies count.
    """
    from hpo.trials.pareto import hypervolume

    full = {
        study: [o for o in record.outcomes if o.status == "ok" and o.level in (None, top)]
        for study, record in results.records.items()
        for top in [results.tasks[study.task].top_level]
    }
    highest: dict[str, float] = {}
    for study, outcomes in full.items():
        costs = [highest.get(study.task, 0.0), *(o.run_cost for o in outcomes)]
        highest[study.task] = max(costs)
    volumes = np.full(comparison.regret.shape[:3], np.nan)
    cells = itertools.product(
        enumerate(comparison.tasks), enumerate(comparison.methods), enumerate(comparison.seeds)
    )
    for (t, task), (m, method), (s, seed) in cells:
        if np.isnan(comparison.regret[t, m, s, -1]):
            continue
        outcomes = full[Study(comparison.suite, task, method, seed)]
        regret = results.tasks[task].regret(_floats(o.loss for o in outcomes))
        share = _floats(o.run_cost for o in outcomes) / (highest[task] or 1.0)
        volumes[t, m, s] = hypervolume(regret, share, (1.0, 1.0))
    return np.asarray(np.nanmean(volumes, axis=2))


@dataclass(frozen=True, slots=True)
class Latency:
    """`seconds` `(M, B)`: mean ask + tell of a trial in each bin of trials; NaN where none."""

    methods: tuple[str, ...]
    bins: tuple[tuple[int, int], ...]
    seconds: Array

    @property
    def labels(self) -> tuple[str, ...]:
        """ "1 to 10" and so on, counting from 1."""
        return tuple(f"{low + 1} to {high}" for low, high in self.bins)


def latency(results: Results) -> Latency:
    """Return the mean time of ask + tell by bins of trials.

    Not the median, because refits that fall on a few trials are part of the cost.
    """
    seconds: dict[str, list[tuple[int, float]]] = {method: [] for method in results.methods}
    for study, record in results.records.items():
        rows = [(o.trial, o.ask_s + o.tell_s) for o in record.outcomes if o.trial >= 0]
        seconds[study.method] += rows
    most = max((trial + 1 for rows in seconds.values() for trial, _ in rows), default=1)
    edges = [e for e in _EDGES if e < most] + [most]
    bins = tuple(itertools.pairwise(edges))
    means = np.full((len(seconds), len(bins)), np.nan)
    for m, rows in enumerate(seconds.values()):
        for b, (low, high) in enumerate(bins):
            here = [s for trial, s in rows if low <= trial < high]
            means[m, b] = np.mean(here) if here else math.nan
    return Latency(tuple(seconds), bins, means)
