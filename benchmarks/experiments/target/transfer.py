"""Settings for a size at which nothing was run: games on Step Law's cells and on known families.

Recorded games are those of `benchmarks.experiments.scale_transfer`: a method buys proxies of at
most a quarter of the target's compute and answers with a learning rate and a batch size. The gap is
the percent by which the loss there exceeds the best. Studies of intervals are told random runs.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

import hpo
from benchmarks.experiments import scale_transfer
from benchmarks.experiments.scale_transfer import CONFIRMED, Maker, Problem, Scaletune, play
from benchmarks.experiments.target import families
from benchmarks.experiments.target.laws import NINETY
from benchmarks.experiments.target.question import (
    OURS,
    Array,
    Figure,
    Limit,
    Question,
    Reduce,
    RivalMissing,
    mean,
    median,
    worst,
)
from hpo import Optimizer
from hpo.scaling.claims import TransferRule
from hpo.scaling.transfer_rules.published import PUBLISHED

NEUTRAL = "neutral prior"
WITHOUT = "without Step Law's rule"
RULES = ("StepLaw", "TimeTransfer", "TokenHorizon", "PowerScheduler", "DeepSeekLaw", "KaplanLR")
_ALONE = {f"{name} alone": name for name in RULES}
_RIVALS = {
    "formula": "rule: Step Law",
    "copy best": "random, best copied",
    "GP": "random, then GP",
    "CARBS": "CARBS",
}
TOLD = 60  # random runs behind each interval
PLATEAU = ("lr", "batch")
_RESAMPLES = 2000


def maker(method: str) -> Maker:
    """Return the constructor of a method of these games.

    Args:
        method: `scaletune` with the priors it has by default, one of its variants, or a rival.

    Raises:
        RivalMissing: for a rule that this version lacks, or a rival whose checkout is not named.
    """
    if method == OURS:
        return _with(None)
    if method == NEUTRAL:
        return _with(hpo.Neutral())
    if method == WITHOUT:
        return _without_step_law
    if method in _ALONE:
        name = _ALONE[method]
        if not hasattr(hpo, name):
            raise RivalMissing(f"this version has no rule {name}")
        rule = hpo.StepLaw(levels=False) if name == "StepLaw" else getattr(hpo, name)()
        return _with([rule])
    if method == "CARBS" and not os.environ.get("SCALETUNE_CARBS"):
        raise RivalMissing(
            "SCALETUNE_CARBS is not set; docs/appendix/benchmarks_peers.md says which folder it"
            " names"
        )
    return scale_transfer.METHODS[_RIVALS[method]]


def _with(priors: Any) -> Maker:
    return lambda problem, budget, seed: Scaletune(problem, budget, seed, priors)


def _without_step_law(problem: Problem, budget: float, seed: int) -> Scaletune:
    rules = [rule for rule in PUBLISHED if not isinstance(rule, hpo.StepLaw)]
    return Scaletune(problem, budget, seed, [rule for rule in rules if _fits(rule, problem)])


def _fits(rule: TransferRule, problem: Problem) -> bool:
    try:
        rule.claims(problem.space())
    except hpo.SpaceError:
        return False
    return True


def _played(problem: Problem, method: str, budget: float, seed: int, confirmed: int) -> Any:
    try:
        return play(problem, maker(method), budget, seed, confirmed)
    except ImportError as error:
        raise RivalMissing(f"{method} cannot be imported: {error}") from error


# --- Step Law's cells ----------------------------------------------------------------------------

TARGETS = 6
GAMES = {"1x": (1.0, 0), "0.5x": (0.5, 0), "1x, 3 confirmed": (1.0, CONFIRMED)}
_VARIANTS = (WITHOUT, NEUTRAL, *_ALONE)
DENSE = (OURS, *_VARIANTS, *_RIVALS)


@functools.cache
def _targets() -> list[Problem]:
    return scale_transfer.recorded(design=False)


@functools.cache
def _left_out() -> list[Problem]:
    return scale_transfer.left_out()


def _dense_case(game: str, place: int) -> str:
    return f"{game}: target {place + 1}"


def _measure_dense(case: str, method: str, seed: int) -> Mapping[str, float]:
    game, _, place = case.partition(": target ")
    budget, confirmed = GAMES[game]
    score = _played(_targets()[int(place) - 1], method, budget, seed, confirmed)
    values = {"gap": score.gap, "runs": score.runs, "ask ms": score.ask_ms}
    if not math.isnan(score.inside):
        values |= {"covered": score.inside, "ape": score.ape}
    return values


def _dense_skipped(case: str, method: str, seed: int) -> bool:
    """The formula draws and buys nothing; confirmed runs are bought by our engine alone."""
    if method == "formula":
        return seed > 0 or not case.startswith("1x:")
    return "confirmed" in case and method not in (OURS, WITHOUT, NEUTRAL)


def resampled(name: str, level: float) -> Reduce:
    """Return the reduction to a quantile of the mean of `name` over rows drawn again.

    Args:
        name: value to average.
        level: quantile, such as 0.05 for the low end of a 90 % interval.
    """

    def reduce(rows: Sequence[Mapping[str, float]]) -> float:
        values = np.array([row[name] for row in rows if name in row])
        drawn = np.random.default_rng(0).choice(values, (_RESAMPLES, len(values)))
        return float(np.quantile(drawn.mean(axis=1), level))

    return reduce


def _dense_figures() -> tuple[Figure, ...]:
    cases = {game: tuple(_dense_case(game, i) for i in range(TARGETS)) for game in GAMES}
    once, half, confirmed = cases["1x"], cases["0.5x"], cases["1x, 3 confirmed"]
    alone = (NEUTRAL, *_ALONE)
    gap = mean("gap")
    return (
        Figure("1x: gap %, mean", gap, Limit(high=0.15), once),
        Figure("1x: low end of the mean", resampled("gap", 0.05), cases=once),
        Figure("1x: high end of the mean", resampled("gap", 0.95), cases=once),
        Figure("1x: gap %, most", worst("gap"), Limit(high=0.6), once),
        Figure("1x: gap %, over the best single rule", gap, Limit(high=1.15, of=alone), once),
        Figure("1x, without Step Law's rule: gap %", gap, Limit(high=0.20), once, WITHOUT),
        Figure("1x, neutral: gap %", gap, Limit(high=0.33), once, NEUTRAL),
        Figure("0.5x: gap %, mean", gap, Limit(high=0.20), half),
        Figure("0.5x: high end of the mean", resampled("gap", 0.95), cases=half),
        Figure("1x, 3 confirmed: gap %, mean", gap, Limit(high=0.06), confirmed),
        Figure("1x: covered", mean("covered"), cases=once),
        Figure("1x: ms an ask", mean("ask ms"), cases=once),
    )


# --- intervals -----------------------------------------------------------------------------------


def told_at_random(problem: Problem, seed: int, priors: Any = None) -> tuple[Any, Array, Array]:
    """Return our result after random runs, and where these lay.

    Args:
        problem: cells to draw from.
        seed: seed of the draw.
        priors: rules in place of the default ones; None for these.

    Returns:
        The result, ln (lr, batch) of the runs, `(n, 2)`, and ln (N, D), `(n, 2)`.
    """
    runs = [
        (config, float(loss), cell.cost)
        for cell in problem.sources
        for config, loss in zip(cell.configs, cell.loss, strict=True)
    ]
    target = problem.target.size
    optimizer = Optimizer(problem.space(), cost="flops", target=target, priors=priors)
    chosen = np.random.default_rng(seed).choice(len(runs), TOLD, replace=False)
    for place in chosen:
        optimizer.tell(runs[place][0], *runs[place][1:])
    configs = [runs[place][0] for place in chosen]
    settings = np.log([[config[name] for name in families.SETTINGS] for config in configs])
    sizes = np.log([[config[name] for name in families.AXES] for config in configs])
    return optimizer.result(), settings, sizes


def _priors(method: str) -> Any:
    if method == OURS:
        return None
    return hpo.Neutral()


def _measure_families(case: str, method: str, seed: int) -> Mapping[str, float]:
    """Coverage and widths, natural logs, of what is asked at the target."""
    drift, bowl = case.split(", ")
    made = families.study(drift, bowl, seed)
    size = made.problem.target.size
    result, settings, sizes = told_at_random(made.problem, seed, _priors(method))
    answer = result.recommend(size)
    truth, widths = made.best(size), made.oracle(settings, sizes - families.ORIGIN, size)
    gap = made.problem.gap(answer.config)
    loss = made.problem.best * (1.0 + gap / 100.0)
    low, high = answer.loss_interval
    values = {"gap": gap, "loss inside": float(low <= loss <= high)}
    for name, true, oracle in zip(families.SETTINGS, truth, widths[:2], strict=True):
        low, high = np.log(answer.intervals[name]).tolist()
        values |= {
            f"{name} inside": float(low <= true <= high),
            f"{name} width": high - low,
            f"{name} oracle": float(oracle),
        }
    law, true_drift = result.scaling_law, made.problem.drift
    assert law is not None and true_drift is not None
    slopes = [law.slope(name, axis) for name, axis in product(families.SETTINGS, families.AXES)]
    inside = [
        abs(slope.mean - true) <= NINETY * slope.sd
        for slope, true in zip(slopes, true_drift.ravel().tolist(), strict=True)
    ]
    return values | {
        "drift inside": float(np.mean(inside)),
        "drift width": 2.0 * NINETY * float(np.median([slope.sd for slope in slopes])),
        "drift oracle": float(np.median(widths[2:])),
    }


def ratio(above: str, below: str) -> Reduce:
    """Return the reduction to the median of one value over the median of another."""
    one, other = median(above), median(below)
    return lambda rows: one(rows) / other(rows)


def _family_figures() -> tuple[Figure, ...]:
    figures = []
    for name in ("lr", "batch", "drift"):
        inside = mean(f"{name} inside")
        figures += [
            Figure(f"{name}: covered", inside, Limit(0.86, 0.94)),
            Figure(f"{name}: median width, ln", median(f"{name} width")),
            Figure(f"{name}: oracle's median width, ln", median(f"{name} oracle")),
            Figure(
                f"{name}: width over the oracle's",
                ratio(f"{name} width", f"{name} oracle"),
                Limit(high=1.5),
            ),
        ]
        for words in (*families.DRIFTS, *families.BOWLS):
            cases = tuple(case for case in FAMILIES if words in case.split(", "))
            figures.append(Figure(f"{name}, {words}: covered", inside, cases=cases))
            width = median(f"{name} width")
            figures.append(Figure(f"{name}, {words}: median width, ln", width, cases=cases))
    return (
        *figures,
        Figure("loss of the answer: covered", mean("loss inside")),
        Figure("gap of the answer, %", mean("gap")),
    )


FAMILIES = tuple(f"{drift}, {bowl}" for drift in families.DRIFTS for bowl in families.BOWLS)


def _measure_rules(case: str, method: str, seed: int) -> Mapping[str, float]:
    drift, bowl = case.split(", ")
    score = _played(families.study(drift, bowl, seed).problem, method, 1.0, seed, 0)
    return {"gap": score.gap}


def _rule_figures() -> tuple[Figure, ...]:
    figures = []
    for drift in families.DRIFTS:
        cases = tuple(case for case in FAMILIES if case.startswith(f"{drift}, "))
        limit = Limit(high=1.15, of=(NEUTRAL,)) if drift == "wrong" else Limit()
        figures.append(Figure(f"{drift}: gap %, mean", mean("gap"), limit, cases))
    return tuple(figures)


def _measure_left_out(case: str, method: str, seed: int) -> Mapping[str, float]:
    """One recorded cell left out: its plateau within 0.1 % of the best must meet the intervals."""
    problem = _left_out()[int(case.removeprefix("cell ")) - 1]
    result, _, _ = told_at_random(problem, seed, _priors(method))
    answer = result.recommend(problem.target.size)
    gap = problem.gap(answer.config)
    loss = problem.best * (1.0 + gap / 100.0)
    low, high = answer.loss_interval
    values = {
        "gap": gap,
        "loss inside": float(low <= loss <= high),
        "loss width": high - low,
        "error": 100.0 * abs(answer.loss / loss - 1.0),
    }
    for name, (least, most) in problem.plateau().items():
        low, high = answer.intervals[name]
        values[f"{name} inside"] = float(low <= most and least <= high)
        values[f"{name} width"] = math.log(high / low)
    return values


CELLS = 17
QUESTIONS = (
    Question(
        "dense",
        tuple(_dense_case(game, i) for game in GAMES for i in range(TARGETS)),
        DENSE,
        _dense_figures(),
        _measure_dense,
        seeds=20,
        skipped=_dense_skipped,
    ),
    Question(
        "left-out",
        tuple(f"cell {i + 1}" for i in range(CELLS)),
        (OURS, NEUTRAL),
        (
            Figure("gap of the answer, %", mean("gap"), Limit(high=0.06)),
            Figure("loss: covered", mean("loss inside")),
            Figure("loss: median width", median("loss width")),
            Figure("error of the predicted loss, median %", median("error")),
            Figure("lr: interval meets the plateau", mean("lr inside")),
            Figure("lr: median width, ln", median("lr width")),
            Figure("batch: interval meets the plateau", mean("batch inside")),
            Figure("batch: median width, ln", median("batch width")),
        ),
        _measure_left_out,
        seeds=3,
    ),
    Question("families", FAMILIES, (OURS, NEUTRAL), _family_figures(), _measure_families, seeds=17),
    Question(
        "families-rules",
        FAMILIES,
        (OURS, NEUTRAL, *_ALONE, "formula", "copy best", "GP"),
        _rule_figures(),
        _measure_rules,
        seeds=5,
    ),
)
