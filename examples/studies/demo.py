"""Tune a transformer on small runs, then train it with eight times the compute.

    python -m examples.studies.demo [--minutes 3.5] [--seed 0] [--out runs/demo]

A byte-level transformer learns the source code of Python's standard library. The search uses small
runs only. The target has four times the parameters and twice the tokens of the largest of them; it
is trained once with the recommended settings and once with common defaults. A timed probe fits all
sizes to the machine. `--out` receives front.png and demo.json, which records everything that was
measured and chosen.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.workloads.language_model import (
    LanguageModelRecipe,
    measured_flops_per_second,
    train_language_model,
    train_transformer,
)
from hpo import Axis, Budget, Float, Int, Recommendation, Result, Role, Scale, SearchSpace, optimize
from hpo.drawing.plot_data import Measured
from hpo.training.devices import best_device

SEARCH_SHARE = 0.65  # of the minutes; the rest is for the two target runs and for startup
REFERENCE_FLOPS = 1.4e12  # of a search that suits the sizes below: about sixty trials
SMALLEST = {"params": 1.5e3, "tokens": 48e3}
LARGEST = {"params": 12e3, "tokens": 384e3}
TARGET_OVER_LARGEST = {"params": 4.0, "tokens": 2.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """Budget of the search and matching sizes, from what this machine can do in the time."""

    device: str
    flops_per_second: float
    search_seconds: float
    search_flops: float
    growth: float  # factor on every size axis, relative to the reference sizes

    def size(self, reference: dict[str, float]) -> dict[str, float]:
        """Return reference sizes scaled to this machine."""
        return {name: value * self.growth for name, value in reference.items()}

    @property
    def target(self) -> dict[str, float]:
        """Sizes of the target."""
        largest = self.size(LARGEST)
        return {name: largest[name] * factor for name, factor in TARGET_OVER_LARGEST.items()}


def plan(minutes: float) -> Plan:
    """Time a mid-sized proxy for two seconds and fit the sizes to its speed."""
    device = best_device()
    if device.type == "cpu":
        # Models this small gain a quarter from a second thread, and lose most of their speed when
        # another program needs its core.
        torch.set_num_threads(1)
    middle = math.sqrt(SMALLEST["params"] * LARGEST["params"])
    rate = measured_flops_per_second(middle, LanguageModelRecipe(batch_size=8), seconds=2.0)
    seconds = 60.0 * minutes * SEARCH_SHARE
    # Compute is parameters times tokens, so each axis grows as its square root; in powers of two,
    # so that machines of one kind get the same sizes; below 1000 parameters there is no shape.
    growth = math.sqrt(max(0.5, 2.0 ** round(math.log2(rate * seconds / REFERENCE_FLOPS))))
    return Plan(device.type, rate, seconds, rate * seconds, growth)


def search_space(smallest: dict[str, float], largest: dict[str, float]) -> SearchSpace:
    """Return the space of settings and proxy sizes."""
    return SearchSpace(
        {
            "lr": Float(1e-4, 1e-1, log=True, center=3e-3, role=Role.LR),
            "weight_decay": Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY),
            "warmup": Float(0.0, 0.3, role=Role.WARMUP),
            "batch_size": Int(4, 64, log=True, role=Role.BATCH),
            "beta2": Float(0.9, 0.999, logit=True, role=Role.BETA2),
            "dropout": Float(0.0, 0.1, role=Role.DROPOUT),
            "params": Scale(smallest["params"], largest["params"], axis=Axis.PARAMS),
            "tokens": Scale(smallest["tokens"], largest["tokens"], axis=Axis.TOKENS),
        }
    )


def main() -> None:
    """Search on proxies, recommend, train the target and compare."""
    arguments = parse_arguments()
    console = Console()
    start = time.perf_counter()
    chosen = plan(arguments.minutes)
    show_plan(console, chosen)

    space = search_space(chosen.size(SMALLEST), chosen.size(LARGEST))
    budget = Budget(cost=chosen.search_flops, seconds=chosen.search_seconds)
    result = optimize(
        train_language_model,
        space,
        budget=budget,
        cost="flops",
        target=chosen.target,
        seed=arguments.seed,
    )
    advice = result.recommend()
    show_front(console, result)
    show_advice(console, advice)

    measured = {}
    for name, config in {
        "recommended": advice.config,
        "usual defaults": {**chosen.target, **asdict(LanguageModelRecipe())},
    }.items():
        with console.status(f"training the target: {name}"):
            measured[name] = train_transformer(config, seed=arguments.seed)
    show_outcome(console, advice, measured)

    arguments.out.mkdir(parents=True, exist_ok=True)
    stars = {name: Measured(run["cost"], run["loss"]) for name, run in measured.items()}
    result.plot_front(arguments.out / "front.png", measured=stars)
    record = {"plan": asdict(chosen), "recommendation": asdict(advice), "target runs": measured}
    (arguments.out / "demo.json").write_text(json.dumps(record, indent=2))
    minutes, seconds = divmod(time.perf_counter() - start, 60)
    console.print(
        f"\n{arguments.out}/front.png, demo.json written after {minutes:.0f} min {seconds:.0f} s"
    )


def parse_arguments() -> argparse.Namespace:
    """Return the command-line arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=3.5, help="minutes in all (default 3.5)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the search and the target runs"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for results")
    return parser.parse_args()


def show_plan(console: Console, chosen: Plan) -> None:
    """Print the plan."""
    largest = chosen.size(LARGEST)
    console.print(
        f"[bold]Probe[/]: {chosen.flops_per_second / 1e9:.0f} GFLOP/s on {chosen.device}\n"
        f"[bold]Budget[/]: {chosen.search_flops:.2g} FLOPs or {chosen.search_seconds:.0f} s"
        " of search\n"
        f"[bold]Proxies[/]: up to {sizes(largest)}\n"
        f"[bold]Target[/]: {sizes(chosen.target)}, 8x the compute of the largest proxy\n"
    )


def show_front(console: Console, result: Result) -> None:
    """Print the front of loss against cost."""
    table = Table(title=f"Front of loss against cost after {len(result.log.observations)} trials")
    for column in ("trial", "FLOPs", "loss", "expected", "params", "tokens", "lr", "batch"):
        table.add_column(column, justify="right", no_wrap=True)
    for member in result.front:
        config = member.config
        table.add_row(
            str(member.number),
            f"{member.cost:.1e}",
            f"{member.loss:.3f}",
            f"{member.expected_loss:.3f}",
            f"{config['params']:,.0f}",
            f"{config['tokens']:,.0f}",
            f"{config['lr']:.1e}",
            str(config["batch_size"]),
        )
    console.print(table)


def show_advice(console: Console, advice: Recommendation) -> None:
    """Print the recommendation and its warnings."""
    table = Table(title=f"Recommendation for {sizes(advice.target)}")
    for column in ("setting", "value", "90 % interval of the optimum"):
        table.add_column(column, justify="right")
    for name, (low, high) in advice.intervals.items():
        table.add_row(name, f"{advice.config[name]:.3g}", f"{low:.3g} to {high:.3g}")
    console.print(table)
    low, high = advice.loss_interval
    console.print(
        f"predicted loss {advice.loss:.3f} nats/byte, 90 % interval {low:.3f} to {high:.3f}"
    )
    for warning in advice.warnings:
        console.print(f"[yellow]warning[/]: {warning}")


def show_outcome(
    console: Console, advice: Recommendation, measured: dict[str, dict[str, float]]
) -> None:
    """Print the two target runs and whether the predicted interval holds."""
    table = Table(title="The target, trained")
    for column in ("settings", "validation loss (nats/byte)", "FLOPs", "seconds"):
        table.add_column(column, justify="right")
    for name, run in measured.items():
        table.add_row(name, f"{run['loss']:.4f}", f"{run['cost']:.3g}", f"{run['seconds']:.0f}")
    console.print(table)
    loss, usual = measured["recommended"]["loss"], measured["usual defaults"]["loss"]
    low, high = advice.loss_interval
    console.print(
        f"recommended settings {'win' if loss < usual else 'lose'} by {abs(usual - loss):.3f};"
        f" their loss lies {'inside' if low <= loss <= high else 'outside'} the predicted interval"
    )


def sizes(scale: dict[str, Any]) -> str:
    """Return the values of all scale axes in words."""
    return ", ".join(f"{value:,.0f} {name}" for name, value in scale.items())


if __name__ == "__main__":
    main()
