"""Markdown, pictures and one self-contained HTML page from the same blocks.

A page is a list of blocks (heading, paragraph, bullets, table, picture), written out twice. Every
sentence about which method is ahead is generated from the numbers beside it, for any method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import analysis, figures
from benchmarks.analysis import OURS, Array, BudgetAxis, Comparison, Interval, Latency, Results
from benchmarks.markdown import table_head, table_row

__all__ = ["Bullets", "Heading", "Paragraph", "Picture", "TableBlock", "page", "write"]

SEEN = "°"  # marks tasks that the engine's design has seen
_QUICK = 0.5  # seconds of ask + tell a trial: rivals below are what we are measured against
_FEW = 6  # tasks: with fewer no signed-rank test reaches 5 %
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: #222;
  max-width: 64rem; margin: 2.5rem auto; padding: 0 1.25rem; background: #fff; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.6rem; border-top: 1px solid #ddd;
  padding-top: 1.2rem; font-size: 1.3rem; } h3 { margin: 1.8rem 0 .3rem; font-size: 1.05rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px;
  margin: .6rem 0 1rem; }
th, td { padding: .22rem .7rem .22rem 0; text-align: right; border-bottom: 1px solid #e6e6e6; }
td { white-space: nowrap; }
th { font-weight: 600; color: #444; vertical-align: bottom; } td:first-child, th:first-child
  { text-align: left; } tr.ours td { background: #eef5fb; }
td.best { font-weight: 700; } figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
figcaption { color: #666; font-size: 13px; } .scroll { overflow-x: auto; }
.loses { background: #fdf3ec; border-left: 4px solid #d55e00; padding: .3rem 1rem; }
"""


# --- blocks --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of `level` 1 to 3."""

    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph of plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list; `warns` highlights it, for where we lose."""

    items: tuple[str, ...]
    warns: bool = False


@dataclass(frozen=True, slots=True)
class TableBlock:
    """Rows of texts; `best` holds (row, column) of cells in bold, `ours` the highlighted row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    ours: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure with a caption; `name` is that of its files beside the Markdown."""

    name: str
    figure: Figure
    caption: str


Block = Heading | Paragraph | Bullets | TableBlock | Picture


def write(results: Results, folder: Path) -> Path:
    """Write `report.md`, `report.html` and `figures/` into `folder`; returns the HTML's path."""
    blocks = page(results)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    drawn = {
        block.name: figures.save(block.figure, folder / "figures" / block.name)
        for block in blocks
        if isinstance(block, Picture)
    }
    (folder / "report.md").write_text(markdown(blocks), encoding="utf-8")
    path = folder / "report.html"
    path.write_text(html(blocks, drawn), encoding="utf-8")
    return path


def markdown(blocks: Iterable[Block]) -> str:
    """Return the blocks as Markdown."""
    parts = []
    for block in blocks:
        match block:
            case Heading(text, level):
                parts.append(f"{'#' * level} {_plain(text)}")
            case Paragraph(text):
                parts.append(_plain(text))
            case Bullets(items):
                parts.append("\n".join(f"* {_plain(item)}" for item in items))
            case TableBlock(header, rows, best):
                lines = [header, *rows]
                cells = [
                    [
                        f"**{_plain(cell)}**" if (i - 1, j) in best else _plain(cell)
                        for j, cell in enumerate(line)
                    ]
                    for i, line in enumerate(lines)
                ]
                parts.append("\n".join([*table_head(cells[0]), *map(table_row, cells[1:])]))
            case Picture(name, _, caption):
                parts.append(f"![{_plain(caption)}](figures/{name}.svg)\n\n{_plain(caption)}")
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Markdown that shows `text` as it is, one line."""
    text = " ".join(text.split())
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text


def html(blocks: Iterable[Block], drawn: Mapping[str, str]) -> str:
    """Return the blocks as one HTML page that loads nothing else.

    Args:
        blocks: contents of the page.
        drawn: name of each picture -> its SVG.
    """
    parts = []
    title = "scaletune benchmarks"
    for block in blocks:
        match block:
            case Heading(text, level):
                title = text if level == 1 else title
                parts.append(f"<h{level}>{escape(text)}</h{level}>")
            case Paragraph(text):
                parts.append(f"<p>{escape(text)}</p>")
            case Bullets(items, warns):
                mark = ' class="loses"' if warns else ""
                inner = "".join(f"<li>{escape(item)}</li>" for item in items)
                parts.append(f"<div{mark}><ul>{inner}</ul></div>")
            case TableBlock():
                parts.append(_html_table(block))
            case Picture(name, _, caption):
                parts.append(
                    f"<figure>{figures.inline_svg(drawn[name], name)}"
                    f"<figcaption>{escape(caption)}</figcaption></figure>"
                )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _html_table(table: TableBlock) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = []
    for i, row in enumerate(table.rows):
        cells = "".join(
            f'<td class="best">{escape(cell)}</td>'
            if (i, j) in table.best
            else f"<td>{escape(cell)}</td>"
            for j, cell in enumerate(row)
        )
        body.append(f'<tr class="ours">{cells}</tr>' if i == table.ours else f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(body)}</table></div>'


# --- the page ------------------------------------------------------------------------------------


def page(results: Results) -> list[Block]:
    """All blocks: a section per suite, then latency, machine and versions."""
    blocks: list[Block] = [
        Heading("scaletune and its rivals", 1),
        Paragraph(
            "Normalized regret is (best loss so far - best known) / (worst known - best known), on"
            " full-fidelity losses. Seeds are averaged first; intervals are 95 % bootstrap"
            " intervals over tasks. Methods run with their own defaults. Tasks marked"
            f" {SEEN} were seen while the engine was designed: they show that it works, not how it"
            " ranks."
        ),
    ]
    for name in results.suites:
        suite = results.suite(name)
        if suite.records:
            blocks += _suite(suite, name)
    return [*blocks, *_conditions(results)]


def _suite(suite: Results, name: str) -> list[Block]:
    """The section of one suite."""
    trials = analysis.compare(suite, BudgetAxis.TRIALS)
    cost = analysis.compare(suite, BudgetAxis.COST)
    seconds = analysis.compare(suite, BudgetAxis.SECONDS)
    latency = analysis.latency(suite)
    points = checkpoints(trials.grid)
    compared = OURS in trials.methods and len(trials.methods) > 1
    blocks: list[Block] = [Heading(name), _extent(suite, trials)]
    if compared:
        blocks += _headline(suite, trials, points[-2:])
        blocks += _where_we_lose(suite, trials, cost, latency, points)
    blocks += _curves(suite, name, trials, cost, seconds, points)
    if len(trials.methods) > 1:
        blocks += _tests(trials, suite.methods, points[-1])
    if compared:
        blocks += _speed_up(trials, suite.methods)
    blocks += [
        Heading("Other measures", 3),
        _measures(suite, trials),
        *_by_task(suite, name, trials, points[-1]),
    ]
    for method in trials.outside:
        blocks += _beside(suite, trials, method)
    return [*blocks, *_times(latency, name), *_stopped(suite)]


def _extent(suite: Results, trials: Comparison) -> Paragraph:
    """What was run and compared."""
    seen = sum(suite.tasks[t].seen_in_design for t in trials.tasks)
    return Paragraph(
        f"{len(trials.tasks)} tasks ({seen} seen in design), up to {len(trials.seeds)} seeds,"
        f" {trials.runs()} (task, seed) pairs, {trials.grid[-1]:g} full trainings."
        f" Compared: {', '.join(trials.methods)}."
        + "".join(f" {sentence}" for sentence in trials.coverage)
    )


def _where_we_lose(
    suite: Results,
    trials: Comparison,
    cost: Comparison,
    latency: Latency,
    points: Sequence[float],
) -> list[Block]:
    blocks: list[Block] = [Heading("Where scaletune loses", 3)]
    sentences = losses(suite, trials, cost, latency, points)
    lost = _lost_tasks(suite, trials, points[-1])
    if sentences:
        blocks.append(Bullets(sentences, warns=True))
    if lost is not None:
        blocks += lost
    elif not sentences:
        doubt = "Nowhere in this comparison; see the intervals for how sure that is."
        blocks.append(Paragraph(doubt))
    return blocks


def _curves(
    suite: Results,
    name: str,
    trials: Comparison,
    cost: Comparison,
    seconds: Comparison,
    points: Sequence[float],
) -> list[Block]:
    """Regret against trials, against cost and against the methods' own time."""
    methods = suite.methods
    blocks: list[Block] = [
        Heading("Regret against trials", 3),
        _regret_table(trials, points),
    ]
    if OURS in trials.methods:
        blocks.append(
            Paragraph(
                f"Win / tie / loss: tasks on which {OURS} is better, equal or worse after"
                f" {points[-1]:g} trainings, seeds averaged."
            )
        )
    return [
        *blocks,
        Picture(
            f"{name}-trials",
            figures.regret_lines(trials, methods),
            f"Mean normalized regret over {len(trials.tasks)} tasks against full trainings;"
            f" bands: 95 % bootstrap over tasks; drawn from {figures.FLOOR:g}.",
        ),
        Picture(
            f"{name}-ranks",
            figures.rank_lines(trials, methods),
            "Mean rank within each (task, seed), ties averaged.",
        ),
        Heading("Regret against spent cost", 3),
        Paragraph(f"The axis is {cost.label}." + "".join(f" {s}" for s in cost.coverage)),
        Picture(
            f"{name}-cost",
            figures.regret_lines(cost, methods),
            "Mean normalized regret against spent cost.",
        ),
        Heading("Regret against the methods' own time", 3),
        Picture(
            f"{name}-seconds",
            figures.regret_lines(seconds, methods),
            "Mean normalized regret against the seconds spent in ask and tell, evaluations free;"
            " a method that has finished its trials keeps its last regret."
            + "".join(f" {s}" for s in seconds.coverage),
        ),
    ]


def _by_task(suite: Results, name: str, trials: Comparison, point: float) -> list[Block]:
    return [
        Heading("Task by task", 3),
        _task_table(suite, trials, point),
        Picture(
            f"{name}-tasks",
            figures.task_grid(trials, suite.methods, {t: _marked(suite, t) for t in trials.tasks}),
            "Mean regret over seeds on every task.",
        ),
    ]


def _times(latency: Latency, name: str) -> list[Block]:
    return [
        Heading("Time of one ask + tell", 3),
        Paragraph(
            "Seconds, the mean over trials, as refits that fall on a few trials are part of the"
            " price; one thread unless said below."
        ),
        _latency_table(latency),
        Picture(f"{name}-latency", figures.latency_lines(latency), "Mean seconds of ask + tell."),
    ]


def checkpoints(grid: Array) -> tuple[float, ...]:
    """25, 50 and 100 where the grid gets there, or a quarter, a half and all of it."""
    last = float(grid[-1])
    usual = [p for p in (25.0, 50.0, 100.0) if p <= last]
    if last in usual:
        return tuple(usual)
    if len(usual) >= 2:
        return (*usual, last)
    return tuple(sorted({max(math.floor(last * share), 1.0) for share in (0.25, 0.5, 1.0)}))


def losses(
    suite: Results,
    trials: Comparison,
    cost: Comparison,
    latency: Latency,
    points: Sequence[float],
) -> tuple[str, ...]:
    """One sentence for each figure by which a rival is ahead, worst news first."""
    ours = trials.methods.index(OURS)
    sentences: list[str] = []
    for point in reversed(points):
        at = trials.at(point)
        means = at.mean(axis=0)
        for i in np.argsort(means):
            if means[i] < means[ours]:
                won, tied, lost = analysis.win_tie_loss(at, ours, int(i))
                sentences.append(
                    f"{trials.methods[i]} has a lower mean regret after {point:g} trainings:"
                    f" {_show(means[i])} against {_show(means[ours])}; by task {OURS} wins {won},"
                    f" ties {tied}, loses {lost}."
                )
    ranks = analysis.mean_ranks(trials)
    for point in reversed(points):
        here = ranks[:, int(np.searchsorted(trials.grid, point))]
        sentences += [
            f"{trials.methods[i]} has a better mean rank after {point:g} trainings:"
            f" {here[i]:.2f} against {here[ours]:.2f}."
            for i in np.argsort(here)
            if here[i] < here[ours]
        ]
    if OURS in cost.methods:
        means = cost.at(float(cost.grid[-1])).mean(axis=0)
        here_ours = means[cost.methods.index(OURS)]
        sentences += [
            f"{cost.methods[i]} has a lower mean regret at the same spent cost:"
            f" {_show(means[i])} against {_show(here_ours)}."
            for i in np.argsort(means)
            if means[i] < here_ours
        ]
    areas = analysis.anytime_area(trials).mean(axis=0)
    sentences += [
        f"{trials.methods[i]} has a lower regret averaged over the whole run:"
        f" {_show(areas[i])} against {_show(areas[ours])}."
        for i in np.argsort(areas)
        if areas[i] < areas[ours]
    ]
    volumes = analysis.hypervolumes(suite, trials).mean(axis=0)
    sentences += [
        f"{trials.methods[i]} dominates more of the loss-cost plane: {volumes[i]:.4f} against"
        f" {volumes[ours]:.4f}."
        for i in np.argsort(-volumes)
        if volumes[i] > volumes[ours]
    ]
    return tuple(sentences + _slower(latency))


def _lost_tasks(suite: Results, trials: Comparison, point: float) -> list[Block] | None:
    """Tasks on which a rival has the lowest mean regret, the widest gap first; None if none."""
    at, ours = trials.at(point), trials.methods.index(OURS)
    last = trials.regret[..., int(np.searchsorted(trials.grid, point))]
    found = []
    for t, task in enumerate(trials.tasks):
        winner = int(np.argmin(at[t]))
        gap = float(at[t, ours] - at[t, winner])
        if gap <= 1e-8:
            continue
        apart = np.round(last[t, ours] - last[t, winner], 8)
        apart = apart[~np.isnan(apart)]
        ahead = int((at[t] < at[t, ours] - 1e-8).sum())
        row = [
            _marked(suite, task),
            _show(at[t, ours]),
            f"{_show(at[t, winner])} ({trials.methods[winner]})",
            str(ahead),
            f"{int((apart > 0).sum())} of {len(apart)}",
        ]
        found.append((gap, row))
    if not found:
        return None
    found.sort(key=lambda item: -item[0])
    header = ("task", OURS, "the best (who)", "rivals ahead", "seeds on which the best is ahead")
    return [
        Paragraph(
            f"On {len(found)} of {len(trials.tasks)} tasks a rival has the lowest mean regret after"
            f" {point:g} trainings; the widest gap comes first."
        ),
        _table(header, [row for _, row in found], []),
    ]


def _headline(suite: Results, trials: Comparison, points: Sequence[float]) -> list[Block]:
    """Our mean regret over that of the best quick rival, and of each rival; and what asks cost."""
    rng = np.random.default_rng(0)
    ours = trials.methods.index(OURS)
    seconds = dict(zip(suite.methods, analysis.mean_seconds(suite).tolist(), strict=True))
    quick = [trials.methods.index(m) for m in analysis.quick_rivals(suite, trials, _QUICK)]
    at = [trials.at(point) for point in points]
    rivals = [(trials.methods[m], [m]) for m in range(len(trials.methods)) if m != ours]
    if quick:
        rivals.insert(0, (f"the best below {_QUICK:g} s a trial", quick))
    rows = []
    for name, columns in rivals:
        row = [name]
        for values in at:
            ratio = analysis.regret_ratio(values, ours, columns, rng=rng)
            best = min(columns, key=lambda m: values[:, m].mean())
            who = f", {trials.methods[best]}" if columns is quick else ""
            row.append(f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}){who}")
        one = None if columns is quick else seconds[name]
        row += ["", ""] if one is None else [f"{1e3 * one:.3g}", f"{one / seconds[OURS]:.3g}"]
        rows.append(row)
    header = ["rival", *(f"regret ratio at {p:g} (95 %)" for p in points)]
    header += ["ms of ask + tell", f"times {OURS}'s"]
    return [
        Heading("In one table", 3),
        Paragraph(
            f"Regret ratio: mean regret of {OURS} over the rival's, below 1 where {OURS} is better;"
            " intervals resample tasks, and the first row finds the best rival anew in each"
            f" resample. {OURS} itself takes {1e3 * seconds[OURS]:.3g} ms of ask + tell a trial."
        ),
        _table(header, rows, []),
    ]


def _slower(latency: Latency) -> list[str]:
    if OURS not in latency.methods:
        return []
    ours = latency.seconds[latency.methods.index(OURS)]
    quicker = [
        method
        for method, seconds in zip(latency.methods, latency.seconds, strict=True)
        if seconds[-1] < ours[-1]
    ]
    if not quicker:
        return []
    return [f"Quicker per trial at trials {latency.labels[-1]}: {', '.join(quicker)}."]


# --- tables --------------------------------------------------------------------------------------


def _regret_table(comparison: Comparison, points: Sequence[float]) -> TableBlock:
    rng = np.random.default_rng(0)
    ranks = analysis.mean_ranks(comparison)
    header = ["method"]
    for point in points:
        header += [f"regret at {point:g} (95 %)", "rank"]
    if OURS in comparison.methods:
        header.append("win / tie / loss")
    columns: list[Array] = []
    rows: list[list[str]] = [[method] for method in comparison.methods]
    for point in points:
        at = comparison.at(point)
        rank = ranks[:, int(np.searchsorted(comparison.grid, point))]
        for m, row in enumerate(rows):
            interval = analysis.bootstrap(at[:, m], rng=rng)
            row += [f"{_show(interval.value)} ({_range(interval)})", f"{rank[m]:.2f}"]
        columns += [at.mean(axis=0), rank]
    if OURS in comparison.methods:
        ours, at = comparison.methods.index(OURS), comparison.at(points[-1])
        for m, row in enumerate(rows):
            won = analysis.win_tie_loss(at, ours, m)
            row.append("" if m == ours else " / ".join(map(str, won)))
    return _table(header, rows, columns)


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[Array]
) -> TableBlock:
    """`columns`: the numbers behind columns 1, 2, ..., the smallest of each set in bold."""
    best = {
        (int(i), j + 1)
        for j, values in enumerate(columns)
        if not np.isnan(values).all()
        for i in np.flatnonzero(values <= np.nanmin(values) + 1e-12)
    }
    ours = next((i for i, row in enumerate(rows) if row[0] == OURS), None)
    return TableBlock(tuple(header), tuple(tuple(row) for row in rows), frozenset(best), ours)


def _tests(trials: Comparison, methods: Sequence[str], point: float) -> list[Block]:
    at = trials.at(point)
    p = analysis.wilcoxon_holm(at)
    ranks = dict(zip(trials.methods, analysis.mean_ranks(trials)[:, -1].tolist(), strict=True))
    blocks: list[Block] = [
        Heading("Which differences are real", 3),
        Paragraph(
            f"Wilcoxon's signed-rank test over {len(trials.tasks)} tasks on regret after {point:g}"
            " trainings, all pairs, p-values adjusted by Holm."
            + (
                " With so few tasks no pair can come out significant."
                if len(trials.tasks) < _FEW
                else ""
            )
        ),
        Picture(
            f"{trials.suite}-critical-difference",
            figures.critical_difference(ranks, p, methods),
            "Mean ranks; a bar joins methods that the tests cannot tell apart at 5 %.",
        ),
    ]
    header = ("p", *trials.methods)
    rows = [
        [name, *("" if i == j else f"{p[i, j]:.2g}" for j in range(len(p)))]
        for i, name in enumerate(trials.methods)
    ]
    return [*blocks, _table(header, rows, [])]


def _speed_up(trials: Comparison, methods: Sequence[str]) -> list[Block]:
    rng = np.random.default_rng(0)
    ours = trials.curve(OURS)
    ratios: dict[str, Interval] = {}
    for method in trials.methods:
        if method != OURS:
            ratio = analysis.time_to_target(ours, trials.curve(method), trials.grid)
            ratios[method] = analysis.bootstrap(ratio, rng=rng, log=True)
    return [
        Heading("Trials to the same regret", 3),
        Picture(
            f"{trials.suite}-time-to-target",
            figures.ratio_dots(ratios, methods, "trials that scaletune needs / the rival needs"),
            "Until both have the worse of their two final regrets on a task; geometric mean over"
            " tasks, 95 % bootstrap interval. Left of 1 scaletune is faster.",
        ),
        _table(
            ("rival", "ratio", "95 % interval"),
            [[m, f"{r.value:.2f}", f"{r.low:.2f} to {r.high:.2f}"] for m, r in ratios.items()],
            [],
        ),
    ]


def _measures(suite: Results, trials: Comparison) -> TableBlock:
    areas = analysis.anytime_area(trials).mean(axis=0)
    volumes = analysis.hypervolumes(suite, trials).mean(axis=0)
    rows = [
        [method, _show(area), f"{volume:.4f}"]
        for method, area, volume in zip(trials.methods, areas, volumes, strict=True)
    ]
    header = ("method", "regret, mean over the run", "hypervolume of the loss-cost front")
    return _table(header, rows, [areas, -volumes])


def _task_table(suite: Results, trials: Comparison, point: float) -> TableBlock:
    at = trials.at(point)
    rows = [
        [_marked(suite, task), *(_show(v) for v in at[t])] for t, task in enumerate(trials.tasks)
    ]
    best = frozenset(
        (t, int(m) + 1)
        for t in range(len(at))
        for m in np.flatnonzero(at[t] <= at[t].min() + 1e-12)
    )
    return TableBlock(
        (f"regret at {point:g}", *trials.methods), tuple(tuple(row) for row in rows), best
    )


def _beside(suite: Results, trials: Comparison, method: str) -> list[Block]:
    """A method with too few studies for the main comparison, on its own subset."""
    pair = analysis.compare(suite, BudgetAxis.TRIALS, [*trials.methods, method])
    heading = Heading(f"{method}, on what it finished", 3)
    if not pair.tasks:
        return [heading, Paragraph(f"{method} finished no study that the others finished too.")]
    seconds = analysis.compare(suite, BudgetAxis.SECONDS, [*trials.methods, method])
    sentence = (
        f"{len(pair.tasks)} tasks, {pair.runs()} (task, seed) pairs: compare within this table"
        " only."
    )
    return [
        heading,
        Paragraph(sentence),
        _regret_table(pair, checkpoints(pair.grid)),
        Picture(
            f"{suite.suites[0]}-seconds-{method}",
            figures.regret_lines(seconds, suite.methods),
            f"Mean normalized regret against seconds of ask and tell, where {method} ran.",
        ),
    ]


def _latency_table(latency: Latency) -> TableBlock:
    rows = [
        [method, *("" if math.isnan(s) else f"{s:.2g}" for s in seconds)]
        for method, seconds in zip(latency.methods, latency.seconds, strict=True)
    ]
    return _table(("trials", *latency.labels), rows, list(latency.seconds.T))


def _stopped(suite: Results) -> list[Block]:
    """Studies that did not end at their limit."""
    reasons = {
        "end:seconds": "stopped because the method took too long",
        "end:error": "failed",
        "end:unsupported": "not run, as the method cannot search the task",
    }
    count: dict[tuple[str, str], int] = {}
    for study, record in suite.records.items():
        if record.note is not None and record.note.reason in reasons:
            key = (study.method, reasons[record.note.reason])
            count[key] = count.get(key, 0) + 1
    if not count:
        return []
    items = tuple(f"{method}: {n} studies {why}." for (method, why), n in sorted(count.items()))
    return [Heading("Studies cut short", 3), Bullets(items)]


def _conditions(results: Results) -> list[Block]:
    """Machine, versions, commands, and what could not be had."""
    blocks: list[Block] = [Heading("How this was made")]
    machines = _distinct(run["machine"] for run in results.runs)
    blocks += [
        Paragraph(
            f"{m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB, {m['system']}, Python"
            f" {m['python']}."
        )
        for m in machines
    ]
    threads = sorted({t for run in results.runs for t in run["threads"].values()})
    blocks.append(Paragraph(f"Threads per process: {', '.join(threads)}."))
    blocks.append(Bullets(tuple(_distinct(run["command"] for run in results.runs))))
    missing = {name: why for run in results.runs for name, why in run["missing"].items()}
    ran = set(results.methods)
    absent = tuple(f"{name}: {why}" for name, why in missing.items() if name not in ran)
    if absent:
        blocks += [Heading("Missing here", 3), Bullets(absent)]
    versions: dict[str, dict[str, str]] = {}
    for run in results.runs:
        for interpreter, packages in run["versions"].items():
            versions.setdefault(interpreter, {}).update(packages)
    rows = [
        [interpreter, ", ".join(f"{name} {version}" for name, version in packages.items())]
        for interpreter, packages in versions.items()
    ]
    return [*blocks, Bullets(tuple(f"{place}: {text}" for place, text in rows))]


def _distinct(values: Iterable[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _marked(suite: Results, task: str) -> str:
    return task + (SEEN if suite.tasks[task].seen_in_design else "")


def _show(value: float) -> str:
    """Four decimals, or as many digits as a small number needs."""
    return f"{value:.4f}" if value == 0 or value >= 1e-3 else f"{value:.1e}"


def _range(interval: Interval) -> str:
    return f"{_show(interval.low)} to {_show(interval.high)}"
