"""Chinchilla's points: the allocation they imply, larger runs foreseen, and outliers.

N: parameters. D: tokens. C = 6 N D: FLOPs. The points were read off a figure by Epoch AI; five of
the 245 are runs that ended early. Besiroglu et al. 2024 leave those out and find N* ~ C^0.513 and
N* = 7e10 at Chinchilla's own 5.76e23 FLOPs.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.target import packages
from benchmarks.experiments.target.laws import PowerLaw, huber, process, trees
from benchmarks.experiments.target.question import (
    OURS,
    Array,
    Figure,
    Foreseen,
    Limit,
    Question,
    mean,
    worst,
)
from benchmarks.tasks.data import find
from hpo import Axis, Optimizer, Result, Scale

CUTS = (3e19, 1e20, 3e20)  # FLOPs below which runs are told
APART = 1.5  # times the cut from which on runs are asked about
HIGHEST = 3.7  # loss from which on a point ended early
COMPUTE = 5.76e23  # FLOPs of Chinchilla itself
OUTLIERS = (0, 3, 10)  # percent
HUBER = "Chinchilla + Huber"
LAWS = (OURS, HUBER, "simple-scaling-laws", "chinchilla (PyPI)")
METHODS = (*LAWS, "scaling-audit", "GP", "trees")
_ALL, _SOUND = ("245 points",), ("240 points",)


@dataclass(frozen=True, slots=True)
class Points:
    """Final losses of runs without settings, `(n,)` each.

    Attributes:
        N: parameters.
        D: tokens.
        loss: final loss.
    """

    N: Array
    D: Array
    loss: Array

    @property
    def cost(self) -> Array:
        """FLOPs of each run."""
        return 6.0 * self.N * self.D

    @property
    def sizes(self) -> Array:
        """N and D, `(n, 2)`."""
        return np.stack([self.N, self.D], axis=1)

    def where(self, kept: NDArray[np.bool_]) -> Points:
        """Return the points where a mask is true."""
        return Points(self.N[kept], self.D[kept], self.loss[kept])


@functools.cache
def recorded() -> Points:
    """Return all 245 points."""
    path = find("chinchilla.csv", "it is Epoch AI's `analyzing-chinchilla` table")
    with path.open() as file:
        rows = [[float(row[name]) for name in ("N", "D", "loss")] for row in csv.DictReader(file)]
    return Points(*np.array(rows).T)


def split(points: Points, cut: float) -> tuple[Points, Points]:
    """Return the points that cost less than `cut` and those of at least 1.5 times that.

    Args:
        points: points; those that ended early are left out.
        cut: FLOPs.
    """
    sound = points.where(points.loss < HIGHEST)
    return sound.where(sound.cost < cut), sound.where(sound.cost >= APART * cut)


def synthetic(seed: int, outliers: int) -> tuple[Points, float]:
    """Return the recorded sizes with losses of a known law, and the exponent of its allocation.

    L = E + A N^-alpha + B D^-beta with noise of 0.3 %; the law and its noise depend on the seed
    alone. Of the outliers, four in five ended 5 to 50 % too high and one has a wrong decimal.

    Args:
        seed: seed of law, noise and outliers.
        outliers: percent of the points.
    """
    sizes = recorded()
    rng = np.random.default_rng([0xC417, seed])
    alpha, beta = rng.uniform(0.28, 0.42, 2)
    E, at_N, at_D = rng.uniform(1.5, 2.0), rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8)
    loss = E + at_N * (sizes.N / 5e8) ** -alpha + at_D * (sizes.D / 1e10) ** -beta
    loss *= np.exp(0.003 * rng.standard_normal(len(loss)))
    places = rng.permutation(len(loss))[: round(len(loss) * outliers / 100)]
    for i, place in enumerate(places):
        loss[place] *= 10.0 ** rng.choice([-1, 1]) if i % 5 == 4 else 1.0 + rng.uniform(0.05, 0.5)
    return Points(sizes.N, sizes.D, loss), float(beta / (alpha + beta))


def told(points: Points, bounds: Points | None = None) -> Result:
    """Return our result after all points were told.

    Args:
        points: runs that were made.
        bounds: points whose sizes bound the space; by default those told.
    """
    box = points if bounds is None else bounds
    space = {
        "params": Scale(float(box.N.min()), float(box.N.max()), axis=Axis.PARAMS),
        "tokens": Scale(float(box.D.min()), float(box.D.max()), axis=Axis.TOKENS),
    }
    optimizer = Optimizer(space, cost="flops", seed=0, target={"params": 7e10, "tokens": 1.4e12})
    for N, D, loss in zip(points.N.tolist(), points.D.tolist(), points.loss.tolist(), strict=True):
        optimizer.tell({"params": N, "tokens": D}, loss, cost=6.0 * N * D)
    return optimizer.result()


def foresee(cheap: Points, expensive: Points) -> Foreseen:
    """Return our predictions of the expensive runs from the cheap ones."""
    result = told(cheap)
    found = [
        result.predict({"params": N, "tokens": D})
        for N, D in zip(expensive.N.tolist(), expensive.D.tolist(), strict=True)
    ]
    ends = np.array([prediction.loss_interval for prediction in found])
    return Foreseen(np.array([prediction.loss for prediction in found]), *ends.T)


@dataclass(frozen=True, slots=True)
class Split:
    """How model size grows with compute.

    Attributes:
        exponent: a of N* ~ C^a.
        interval: 90 % interval of it; NaN without one.
        size: N* at `COMPUTE`.
        size_interval: 90 % interval of it; NaN without one.
    """

    exponent: float
    interval: tuple[float, float] = (math.nan, math.nan)
    size: float = math.nan
    size_interval: tuple[float, float] = (math.nan, math.nan)


def allocate(points: Points) -> Split:
    """Return our split of Chinchilla's compute."""
    law = told(points).scaling_law
    assert law is not None
    best = law.allocation(COMPUTE)
    return Split(
        best.exponents["params"],
        best.exponent_intervals["params"],
        best.scale["params"],
        best.intervals["params"],
    )


def foresee_by(method: str, cheap: Points, expensive: Points) -> Foreseen:
    """Return a method's predictions of the expensive runs from the cheap ones.

    Args:
        method: one of `METHODS`.
        cheap: runs told.
        expensive: runs to foresee.
    """
    if method == OURS:
        return foresee(cheap, expensive)
    if method == HUBER:
        return Foreseen.points(
            huber(cheap.N, cheap.D, cheap.loss).predict(expensive.N, expensive.D)
        )
    if method in packages.PACKAGES:
        return packages.foresee(method, cheap.sizes, cheap.loss, expensive.sizes)
    rival = process if method == "GP" else trees
    return rival(np.log(cheap.sizes), cheap.loss, np.log(expensive.sizes))


def allocate_by(method: str, points: Points) -> Split:
    """Return a method's split of Chinchilla's compute; methods without a law have none."""
    if method == OURS:
        return allocate(points)
    if method == HUBER:
        law = huber(points.N, points.D, points.loss)
    else:
        law = PowerLaw(**packages.exponents(method, points.sizes, points.loss))
    return Split(law.exponent, size=law.best_size(COMPUTE))


def _measure_all(case: str, method: str, seed: int) -> Mapping[str, float]:
    points = recorded()
    if case == "240 points":
        points = points.where(points.loss < HIGHEST)
    return _of_split(allocate_by(method, points), 0.513)


def _of_split(found: Split, truth: float) -> dict[str, float]:
    low, high = found.interval
    values = {"exponent": found.exponent, "error": abs(found.exponent - truth), "N*": found.size}
    if math.isfinite(low):
        values |= {"low": low, "high": high, "inside": float(low <= truth <= high)}
        values |= {"N* low": found.size_interval[0], "N* high": found.size_interval[1]}
    return values


def _measure_cut(case: str, method: str, seed: int) -> Mapping[str, float]:
    cheap, expensive = split(recorded(), float(case.removeprefix("C < ")))
    return foresee_by(method, cheap, expensive).against(expensive.loss)


def _measure_outliers(case: str, method: str, seed: int) -> Mapping[str, float]:
    """Exponent with and without the outliers, of the same law and noise."""
    share = int(case.removesuffix(" % outliers"))
    points, truth = synthetic(seed, share)
    values = _of_split(allocate_by(method, points), truth)
    if share:
        clean = allocate_by(method, synthetic(seed, 0)[0])
        values["moved"] = abs(values["exponent"] - clean.exponent)
    return values


def _cut_figures() -> tuple[Figure, ...]:
    figures = []
    for cut in CUTS:
        case = (_cut(cut),)
        figures += [
            Figure(f"{case[0]}: covered", mean("covered"), Limit(0.80, 0.97), case),
            Figure(f"{case[0]}: rmse", mean("rmse"), Limit(high=1.1, of=(HUBER,)), case),
            Figure(f"{case[0]}: median half width", mean("half width"), cases=case),
        ]
    return tuple(figures)


def _cut(cut: float) -> str:
    return f"C < {cut:.0e}"


def _outlier_figures() -> tuple[Figure, ...]:
    figures = []
    for share in OUTLIERS:
        case = (f"{share} % outliers",)
        if share:
            figures += [
                Figure(f"{case[0]}: exponent moved, mean", mean("moved"), Limit(high=0.01), case),
                Figure(f"{case[0]}: exponent moved, most", worst("moved"), cases=case),
            ]
        figures += [
            Figure(f"{case[0]}: error of the exponent", mean("error"), cases=case),
            Figure(f"{case[0]}: truth inside the interval", mean("inside"), cases=case),
        ]
    return tuple(figures)


QUESTIONS = (
    Question(
        "chinchilla",
        ("245 points", "240 points"),
        LAWS,
        (
            Figure("245 points: exponent of N*", mean("exponent"), Limit(0.46, 0.54), _ALL),
            Figure("245 points: low end", mean("low"), Limit(high=0.513), _ALL),
            Figure("245 points: high end", mean("high"), Limit(low=0.513), _ALL),
            Figure("245 points: N* at 5.76e23 FLOPs", mean("N*"), Limit(3.5e10, 1.4e11), _ALL),
            Figure("245 points: N*, low end", mean("N* low"), cases=_ALL),
            Figure("245 points: N*, high end", mean("N* high"), cases=_ALL),
            Figure("without the five highest: exponent of N*", mean("exponent"), cases=_SOUND),
            Figure("without the five highest: N*", mean("N*"), cases=_SOUND),
        ),
        _measure_all,
    ),
    Question("chinchilla-cuts", tuple(map(_cut, CUTS)), METHODS, _cut_figures(), _measure_cut),
    Question(
        "chinchilla-outliers",
        tuple(f"{share} % outliers" for share in OUTLIERS),
        (OURS, HUBER),
        _outlier_figures(),
        _measure_outliers,
        seeds=10,
    ),
)
