"""Predict the loss of a target from proxies, train the target, and compare; many seeds.

    python -m examples.studies.proxy_to_target [--minutes 90] [--sizes small large]
        [--studies "AdamW, muP" ...] [--seeds 20] [--again] [--out runs/proxy_to_target]

Byte-level transformers of one depth learn the source code of Python's standard library, with AdamW
and with Muon, in muP and in standard parametrization. A search trains proxies; every proxy is one
stable run with a cooldown at half and at the end of its tokens (`TorchTrainer.branch`), so that it
tells two losses for little more than one run. Then the target is trained with the recommended
learning rate, and with that of the best proxy, carried over by hand by the rules of muP. Per size
and study, rates spread evenly over the searched range are trained at the target once: from them
follows what a random search of equal compute would find. Each run has a seed of its own. Whatever
ends is written at once; the same command continues from there. With `--again` nothing is trained,
and the losses of finished targets are predicted once more from the proxies in the file.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.jsonlines import append_row, read_rows
from benchmarks.workloads.corpus import spread_sequences, standard_library
from benchmarks.workloads.language_model import transformer_parameters, transformer_work
from examples.studies.scale_up import Family
from hpo import Axis, Float, MuP, Optimizer, Role, Scale, Trial
from hpo.drawing.conventions import BLUE, GRAY, GREEN, ORANGE, PURPLE
from hpo.drawing.picture import Picture
from hpo.training.data import Split, Windows
from hpo.training.optimizers import AdamW, Muon, UpdateRule
from hpo.training.parametrization import (
    MUP,
    STANDARD,
    ParameterLayout,
    Parametrization,
    Parametrized,
    rescale_,
)
from hpo.training.schedules import WarmupStableDecay
from hpo.training.trainer import Settings, TorchTrainer
from hpo.training.transformer import Transformer, next_byte_loss

SHARES = (0.5, 1.0)  # of the tokens, where cooldowns end
SHORTEST = 0.8  # tokens of the shortest proxy over those of the target
FORMULA_SEEDS = 3  # targets trained with the rate of each published formula
RUNS_OF_A_SEED = 1000  # more than a search has proxies; the last one's seed is the target's


@dataclass(frozen=True, slots=True)
class Size:
    """Scale of a search and of its target.

    Args:
        name: Name in the tables.
        family: Models, from the smallest proxy to the target.
        updates: Updates of the target.
        compute: FLOPs of a search, in runs of the target.
        seeds: Seeds of every study.
        rates: Rates at which the target is trained for the random search.
    """

    name: str
    family: Family
    updates: int
    compute: float
    seeds: int
    rates: int

    @property
    def tokens(self) -> float:
        """Tokens of the target."""
        return float(self.updates * self.family.batch_size * self.family.context)

    @property
    def target(self) -> dict[str, float]:
        """Scale of the target."""
        return {"params": self.family.target, "tokens": self.tokens}


# Widths of 24 to 48 for 64, 24 to 88 for 144, and 128 to 640 for 1,152; the last was never run.
SIZES = (
    Size("small", Family(2, 8, 13_824, 55_296, 98_304, 32, 8), 400, 3, seeds=20, rates=8),
    Size("large", Family(2, 8, 13_824, 185_856, 497_664, 32, 8), 400, 1.5, seeds=3, rates=6),
    Size("GPU", Family(6, 64, 1_179_648, 29_491_200, 95_551_488, 256, 64), 4000, 2, 3, 6),
)


@dataclass(frozen=True, slots=True)
class Study:
    """One of the four: an optimizer and a parametrization."""

    name: str
    rule: Parametrization
    muon: bool

    def optimizer(self, lr: float) -> UpdateRule:
        """Return the optimizer at a rate; Muon's embeddings and output layer take a tenth of it."""
        adam = AdamW(lr / 10 if self.muon else lr, 0.01, beta2=0.98)
        return Muon(lr=lr, others=adam, weight_decay=0.01) if self.muon else adam

    @property
    def rates(self) -> tuple[float, float]:
        """Ends of the searched rates."""
        return (5e-3, 0.15) if self.muon else (1e-3, 3e-2)

    def carried(self, lr: float, params: float, target: float) -> float:
        """Return the rate at the target by the rules of muP, from the best one at `params`.

        In muP it stays. In standard parametrization Adam's falls with the width (Yang et al., 2022,
        table 3), and Muon's, whose updates have a fixed spectral norm, stays.
        """
        falls = self.rule is STANDARD and not self.muon
        return lr * (params / target) ** 0.5 if falls else lr


STUDIES = (
    Study("AdamW, muP", MUP, muon=False),
    Study("AdamW, standard", STANDARD, muon=False),
    Study("Muon, muP", MUP, muon=True),
    Study("Muon, standard", STANDARD, muon=True),
)

# Rates that others published for AdamW in standard parametrization, at N parameters and D tokens.
FORMULAS: dict[str, Callable[[float, float], float]] = {
    "Step Law": lambda n, d: 1.79 * n**-0.713 * d**0.307,  # Li et al., 2025 (arXiv:2503.04715)
    "DeepSeek": lambda n, d: 0.3118 * (6 * n * d) ** -0.125,  # Bi et al., 2024 (arXiv:2401.02954)
    "Kaplan": lambda n, d: 0.003239 - 0.0001395 * math.log(n),  # 2020 (arXiv:2001.08361), app. D.6
}


def trainer(size: Size, study: Study) -> TorchTrainer:
    """Return a trainer of configs of `params`, `tokens` and `lr`.

    The warm-up is the same in all runs and lies within the shortest.
    """
    family = size.family
    layout = ParameterLayout.of(family.build(family.smallest), family.build(4 * family.smallest))
    schedule = WarmupStableDecay(
        warmup=min(20.0, size.updates * SHORTEST * SHARES[0] / 4), decay=0.3
    )

    def make_model(config: Mapping[str, Any], scale: Mapping[str, float]) -> Transformer:
        model = family.build(config["params"])
        rescale_(model, layout, study.rule)
        return model

    def make_data(config: Mapping[str, Any], split: Split) -> Any:
        corpus = standard_library()
        if split is Split.TRAIN:
            return Windows(corpus.train, family.context + 1)
        return [spread_sequences(corpus.validation, 256, family.context + 1)]

    def settings(config: Mapping[str, Any]) -> Settings:
        updates = max(1, round(config["tokens"] / family.context / family.batch_size))
        return Settings(
            examples=updates * family.batch_size,
            batch_size=family.batch_size,
            optimizer=study.optimizer(config["lr"]),
            schedule=schedule,
            evaluations=1,
        )

    return TorchTrainer(
        make_model,
        make_data,
        next_byte_loss,
        settings,
        groups=Parametrized(study.rule, layout),
        work=transformer_work,
        count=transformer_parameters,
    )


@dataclass(frozen=True, slots=True)
class Experiment:
    """One study at one size: its runs, kept in a file.

    Args:
        size: Scale of the search and the target.
        study: Optimizer and parametrization.
        path: File of all rows.
    """

    size: Size
    study: Study
    path: Path

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """Return the finished rows that have a field `kind`."""
        keys = {"size": self.size.name, "study": self.study.name}
        return [row for row in read_rows(self.path) if kind in row and keys.items() <= row.items()]

    def keep(self, row: Mapping[str, Any], started: float) -> None:
        """Write a row with the processor time that it took."""
        keys = {"size": self.size.name, "study": self.study.name}
        seconds = time.process_time() - started
        append_row(self.path, {**keys, **row, "seconds": round(seconds, 2)})

    @property
    def flops(self) -> float:
        """FLOPs of the target."""
        family = self.size.family
        work = transformer_work(family.build(family.target), spread_sequences_of(family))
        return work.flops * self.size.updates * family.batch_size

    def target_loss(self, lr: float, seed: int) -> float:
        """Train the target once."""
        config = {**self.size.target, "lr": lr}
        return float(trainer(self.size, self.study).train(config, seed=seed)["loss"])

    def optimizer(self, seed: int) -> Optimizer:
        """Return the optimizer of a search, which knows nothing yet."""
        family, tokens = self.size.family, self.size.tokens
        return Optimizer(
            {
                "lr": Float(*self.study.rates, log=True, role=Role.LR),
                "params": Scale(family.smallest, family.largest, axis=Axis.PARAMS),
                "tokens": Scale(SHORTEST * tokens, tokens, axis=Axis.TOKENS),
            },
            cost="flops",
            target=self.size.target,
            priors=[MuP()] if self.study.rule is MUP else None,
            seed=seed,
        )

    def proxies(self, seed: int) -> dict[int, dict[str, Any]]:
        """Return the finished proxies of a seed by number."""
        return {row["proxy"]: row for row in self.rows("proxy") if row["seed"] == seed}

    def search(self, seed: int) -> Optimizer:
        """Search on proxies until the FLOPs are spent; finished ones are read from the file."""
        optimizer, known = self.optimizer(seed), self.proxies(seed)
        left, proxy = self.size.compute * self.flops, 0
        while left > 0:
            started = time.process_time()
            trial = optimizer.ask()  # the same ones again when a study goes on
            if proxy not in known:
                branches = self.trained(trial.config, seed=seed * RUNS_OF_A_SEED + proxy)
                known[proxy] = {"seed": seed, "proxy": proxy, "branches": branches}
                self.keep(known[proxy], started)
            left -= tell(optimizer, trial, known[proxy]["branches"])
            proxy += 1
        return optimizer

    def predict_again(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of a target with the prediction that follows from its proxies today."""
        optimizer = self.optimizer(row["seed"])
        for proxy in self.proxies(row["seed"]).values():
            tell(optimizer, proxy["branches"][-1]["config"], proxy["branches"])
        found = optimizer.result().predict(self.size.target, config={"lr": row["lr"]})
        return {**row, "predicted": found.loss, "interval": found.loss_interval}

    def trained(self, config: Mapping[str, Any], *, seed: int) -> list[dict[str, Any]]:
        """Train one proxy; return its losses, that at the asked tokens last."""
        horizons = [share * config["tokens"] for share in SHARES]
        branches = trainer(self.size, self.study).branch(config, seed=seed, tokens=horizons)
        if len(branches) < len(horizons):  # it diverged, and so it would have at the end
            branches = [*branches[:-1], replace(branches[-1], horizon=horizons[-1])]
        return [
            {
                "config": {**config, "tokens": branch.horizon},
                "loss": branch.loss if math.isfinite(branch.loss) else None,
                "cost": branch.cost,
            }
            for branch in branches
        ]

    def predict_and_train(self, seed: int) -> None:
        """Search, predict the target's loss, then train it twice, unless the file has it."""
        if any(row["seed"] == seed for row in self.rows("predicted")):
            return
        optimizer = self.search(seed)
        started = time.process_time()
        advice = optimizer.result().recommend()
        longest = [
            one
            for one in optimizer.log.observations
            if one.loss is not None and one.config["tokens"] >= SHORTEST * self.size.tokens
        ]
        best = min(longest, key=lambda one: float(one.loss or math.inf)).config
        by_hand = self.study.carried(best["lr"], best["params"], self.size.family.target)
        own = (seed + 1) * RUNS_OF_A_SEED - 1
        row = {
            "seed": seed,
            "losses": sum(1 + len(one.branches) for one in optimizer.log.observations),
            "lr": advice.config["lr"],
            "predicted": advice.loss,
            "interval": list(advice.loss_interval),
            "trained": self.target_loss(advice.config["lr"], own),
            "lr_by_hand": by_hand,
            "by_hand": self.target_loss(by_hand, own),
            "warnings": list(advice.warnings),
        }
        self.keep(row, started)

    def spread_rates(self) -> None:
        """Train the target at rates spread evenly over the range, those that the file lacks."""
        done = {row["rate"] for row in self.rows("rate")}
        low, high = self.study.rates
        for index in set(range(self.size.rates)) - done:
            started = time.process_time()
            share = (index + 0.5) / self.size.rates
            lr = low ** (1 - share) * high**share
            loss = self.target_loss(lr, 10**6 + index)
            self.keep({"rate": index, "lr": lr, "loss": loss}, started)

    def published(self) -> None:
        """Train the target with the rates of the formulas, where they apply."""
        if self.study.muon or self.study.rule is not STANDARD:
            return
        done = {(row["formula"], row["seed"]) for row in self.rows("formula")}
        for name, formula in FORMULAS.items():
            lr = formula(self.size.family.target, self.size.tokens)
            for seed in range(FORMULA_SEEDS):
                if (name, seed) not in done:
                    started = time.process_time()
                    loss = self.target_loss(lr, (seed + 1) * RUNS_OF_A_SEED - 1)
                    self.keep({"formula": name, "seed": seed, "lr": lr, "loss": loss}, started)


def tell(
    optimizer: Optimizer, trial: Trial | Mapping[str, Any], losses: Sequence[Mapping[str, Any]]
) -> float:
    """Tell the losses of one proxy, the one at its own tokens last; return what it cost."""
    *shorter, whole = losses
    cost = float(sum(row["cost"] for row in losses))
    branches = [
        {"tokens": row["config"]["tokens"], "loss": row["loss"]}
        for row in shorter
        if row["loss"] is not None
    ]
    failed = "diverged" if whole["loss"] is None else None
    optimizer.tell(trial, whole["loss"], cost, failed=failed, branches=branches)
    return cost


def spread_sequences_of(family: Family) -> Any:
    """Return one sequence of the length that a family trains on."""
    return spread_sequences(standard_library().validation, 1, family.context + 1)


@dataclass(frozen=True, slots=True)
class Findings:
    """What the targets of one experiment came to.

    Args:
        size: Name of the size.
        study: Name of the study.
        predicted: `(n,)`, predicted losses of the n seeds.
        low: `(n,)`, lower ends of the 90 % intervals.
        high: `(n,)`, upper ends.
        trained: `(n,)`, losses with the recommended rate.
        by_hand: `(n,)`, losses with the rate carried over.
        at_random: Mean loss of a random search of equal compute; NaN if its runs are missing.
        formulas: Mean loss by formula.
    """

    size: str
    study: str
    predicted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    trained: np.ndarray
    by_hand: np.ndarray
    at_random: float
    formulas: Mapping[str, float]

    @classmethod
    def of(cls, experiment: Experiment, *, again: bool = False) -> Findings | None:
        """Read them from the file, perhaps predict again; None if no target was trained yet."""
        rows = experiment.rows("predicted")
        if not rows:
            return None
        if again:
            rows = [experiment.predict_again(row) for row in rows]
        columns = {name: np.array([row[name] for row in rows], dtype=float) for name in _COLUMNS}
        intervals = np.array([row["interval"] for row in rows], dtype=float)
        formulas: dict[str, list[float]] = {}
        for row in experiment.rows("formula"):
            formulas.setdefault(row["formula"], []).append(row["loss"])
        spread = [row["loss"] for row in experiment.rows("rate")]
        whole = len(spread) == experiment.size.rates
        return cls(
            experiment.size.name,
            experiment.study.name,
            **columns,
            low=intervals[:, 0],
            high=intervals[:, 1],
            at_random=best_of(spread, experiment.size.compute + 1) if whole else math.nan,
            formulas={name: float(np.mean(losses)) for name, losses in formulas.items()},
        )

    @property
    def inside(self) -> np.ndarray:
        """`(n,)`, whether the trained loss lies in its interval."""
        return (self.low <= self.trained) & (self.trained <= self.high)


_COLUMNS = ("predicted", "trained", "by_hand")


def best_of(losses: Sequence[float], draws: float) -> float:
    """Return the mean of the smallest of `draws` losses drawn with replacement.

    Example:
        >>> best_of([1.0, 2.0], 2)
        1.25
    """
    ordered = np.sort(np.nan_to_num(losses, nan=math.log(256)))  # of a diverged run: a guess
    above = np.linspace(1.0, 0.0, len(ordered) + 1) ** draws
    return float(ordered @ (above[:-1] - above[1:]))


def mean_and_error(values: np.ndarray) -> str:
    """Return a mean with the half-width of its 90 % interval over seeds; empty if not known."""
    if np.isnan(values).any():
        return ""
    if len(values) < 2:
        return f"{values.mean():+.4f}"
    half = stats.t.ppf(0.95, len(values) - 1) * stats.sem(values)
    return f"{values.mean():+.4f} ± {half:.4f}"


def calibration(found: Sequence[Findings]) -> Table:
    """Return what was predicted against what was trained."""
    table = Table(title="The target's loss: predicted and trained")
    for column in ("size", "study", "inside", "half-width", "trained - predicted", "RMS", "z RMS"):
        left = column in ("size", "study")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for one in found:
        errors, half = one.trained - one.predicted, (one.high - one.low) / 2
        table.add_row(
            one.size,
            one.study,
            f"{one.inside.sum()} of {len(one.inside)}",
            f"{np.median(half):.3f}",
            mean_and_error(errors),
            f"{np.sqrt(np.mean(errors**2)):.3f}",
            f"{np.sqrt(np.mean((errors / half * 1.645) ** 2)):.2f}",
        )
    table.caption = "half-width: median; z: errors in standard deviations of the interval"
    return table


def comparison(found: Sequence[Findings]) -> Table:
    """Return losses as recommended, and how much worse the others are."""
    table = Table(title="The target's loss as recommended, and what others lose to it")
    for column in ("size", "study", "recommended", "by hand", "random search", *FORMULAS):
        left = column in ("size", "study")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for one in found:
        table.add_row(
            one.size,
            one.study,
            f"{one.trained.mean():.4f}",
            mean_and_error(one.by_hand - one.trained),
            mean_and_error(one.at_random - one.trained),
            *(
                f"{one.formulas[name] - one.trained.mean():+.4f}" if name in one.formulas else ""
                for name in FORMULAS
            ),
        )
    table.caption = "means over seeds, ± half of the 90 % interval; + is worse than recommended"
    return table


def draw(found: Sequence[Findings]) -> Picture:
    """Return errors of the predictions beside their intervals, and losses by method."""
    sizes = list(dict.fromkeys(one.size for one in found))
    picture = Picture(found, (10.0, 3.4 * len(sizes)))
    for axes, size in zip(picture.subplots(len(sizes), 2, squeeze=False), sizes, strict=True):
        ticks, middle, start = [], [], 0.0
        for row, one in enumerate(each for each in found if each.size == size):
            order = np.argsort(one.trained - one.predicted)
            x = start + np.arange(len(order))
            middle.append(float(x.mean()))
            ticks.append(one.study.replace(", ", "\n"))
            start = x[-1] + 3
            low, high = (one.low - one.predicted)[order], (one.high - one.predicted)[order]
            axes[0].vlines(x, low, high, color=GRAY, linewidth=2, alpha=0.5)
            for inside, color in ((True, BLUE), (False, ORANGE)):
                shown = one.inside[order] == inside
                errors = (one.trained - one.predicted)[order]
                axes[0].plot(x[shown], errors[shown], "o" if inside else "X", color=color, ms=5)
            marks = {
                "recommended": (one.trained, BLUE, "o"),
                "best proxy, by hand": (one.by_hand, ORANGE, "s"),
                "random search": (np.array([one.at_random]), GREEN, "D"),
                "published formulas": (np.array(list(one.formulas.values())), PURPLE, "^"),
            }
            for shift, (label, (losses, color, marker)) in enumerate(marks.items()):
                if not len(losses):
                    continue
                spread = np.linspace(-0.06, 0.06, len(losses)) if len(losses) > 3 else 0.0
                place = row + 0.2 * (shift - 1.5) + spread + np.zeros(len(losses))
                known = label in axes[1].get_legend_handles_labels()[1]
                name = None if known else label
                axes[1].plot(place, losses, marker, color=color, ms=4, alpha=0.6, label=name)
                axes[1].hlines(losses.mean(), place[0] - 0.08, place[-1] + 0.08, color=color)
        axes[0].axhline(0.0, color=GRAY, linewidth=0.8)
        axes[0].set_xticks(middle, ticks)
        axes[0].set(
            title=f"{size}: error and 90 % interval of the prediction", ylabel="nats per byte"
        )
        axes[1].set_xticks(range(len(ticks)), ticks)
        axes[1].set(title=f"{size}: loss of the trained target", ylabel="nats per byte")
        axes[1].legend(fontsize=7)
    return picture


def main() -> None:
    """Run what is chosen and not done yet, then show everything that the file holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    names, studies = [size.name for size in SIZES], [study.name for study in STUDIES]
    parser.add_argument("--minutes", type=float, default=90.0, help="processor minutes in all")
    parser.add_argument("--sizes", nargs="*", choices=names, default=names[:2], help="which sizes")
    parser.add_argument("--studies", nargs="*", choices=studies, default=studies, help="which ones")
    parser.add_argument("--seeds", type=int, help="seeds of each study, at most those of its size")
    parser.add_argument("--again", action="store_true", help="train nothing, predict again")
    parser.add_argument("--out", type=Path, default=Path("runs/proxy_to_target"), help="folder")
    arguments = parser.parse_args()
    console, path = Console(width=120), arguments.out / "runs.jsonl"
    every = [Experiment(size, study, path) for size in SIZES for study in STUDIES]
    chosen = [
        one
        for one in every
        if one.size.name in arguments.sizes and one.study.name in arguments.studies
    ]
    jobs: list[Callable[[], None]] = []
    for one in chosen:
        seeds = min(one.size.seeds, arguments.seeds or one.size.seeds)
        jobs += [partial(one.predict_and_train, seed) for seed in range(seeds)]
        jobs += [one.spread_rates, one.published]
    before = sum(row["seconds"] for row in read_rows(path))
    for job in () if arguments.again else jobs:
        if before + time.process_time() > 60 * arguments.minutes:
            console.print("[yellow]stopped[/]: the minutes are spent; more --minutes go on")
            break
        job()
    each = [Findings.of(one, again=arguments.again) for one in every]
    found = [one for one in each if one is not None]
    for table in (calibration(found), comparison(found)):
        console.print(table)
    draw(found).savefig(arguments.out / "proxy_to_target.png", dpi=130)
    spent = sum(row["seconds"] for row in read_rows(path))
    console.print(f"{path}: {spent / 60:.1f} processor minutes")


if __name__ == "__main__":
    main()
