"""Test whether the learning rate of small models serves a large one, with muP and without.

    python -m examples.studies.scale_up [--minutes 14] [--seed 0] [--out runs/scale_up]

Byte-level transformers that differ only in width learn the source code of Python's standard
library, once in muP and once in standard parametrization. For each, small proxies are searched, the
drift of the best learning rate is measured, settings of a larger target are recommended and its
loss is predicted; then the target is trained. On a CPU the proxies have 30 thousand to
1 million parameters and the target 2 million, on a CUDA device 1 to 60 and 240 million; a timed
probe sets the length of the runs. `--out` receives scale_up.json and a picture of each drift.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.workloads.corpus import spread_sequences, standard_library
from benchmarks.workloads.language_model import transformer_parameters, transformer_work
from hpo import Axis, Budget, Float, MuP, Recommendation, Role, Scale, check_transfer, optimize
from hpo.training.accounting import achieved_flops_per_second
from hpo.training.data import Split, Windows
from hpo.training.devices import best_device, seeded
from hpo.training.optimizers import AdamW
from hpo.training.parametrization import (
    MUP,
    STANDARD,
    ParameterLayout,
    Parametrization,
    Parametrized,
    rescale_,
)
from hpo.training.schedules import Cosine
from hpo.training.trainer import Settings, TorchTrainer, TrainingRun
from hpo.training.transformer import Transformer, TransformerShape, next_byte_loss

SEARCH_SHARE = 0.55  # of the minutes, for both searches; the rest is for the targets and margins
TARGET_SHARE = 0.25  # for both target runs
FEW_UPDATES = 200  # in runs shorter than this, more parameters hardly lower the loss


@dataclass(frozen=True, slots=True)
class Family:
    """Transformers of one depth whose width is a whole number of heads."""

    depth: int
    head_width: int
    smallest: float  # non-embedding parameters
    largest: float
    target: float
    context: int
    batch_size: int

    def shape(self, params: float) -> TransformerShape:
        """Return the shape whose 12 L d^2 is nearest to `params`."""
        heads = max(1, round((params / (12 * self.depth)) ** 0.5 / self.head_width))
        width = heads * self.head_width
        return TransformerShape(width, self.depth, heads, 4 * width)

    def build(self, params: float) -> Transformer:
        """Return a fresh model of about `params` non-embedding parameters."""
        return Transformer(self.shape(params), context=self.context, rng=torch.default_generator)


ON_CPU = Family(2, 16, smallest=3e4, largest=1e6, target=2e6, context=64, batch_size=8)
ON_GPU = Family(6, 64, smallest=1e6, largest=6e7, target=2.4e8, context=256, batch_size=64)


@dataclass(frozen=True, slots=True)
class Plan:
    """Budget of the searches and length of the runs, from what this machine can do in the time."""

    device: str
    flops_per_second: float
    sequences: int  # in every run, whatever its size
    search_flops: float  # of each of the two searches
    search_seconds: float


def trainer(family: Family, rule: Parametrization, sequences: int) -> TorchTrainer:
    """Return a trainer of configs of `params`, `lr` and `weight_decay`."""
    layout = ParameterLayout.of(family.build(family.smallest), family.build(4 * family.smallest))

    def make_model(config: Mapping[str, Any], scale: Mapping[str, float]) -> Transformer:
        model = family.build(config["params"])
        rescale_(model, layout, rule)
        return model

    def make_data(config: Mapping[str, Any], split: Split) -> Any:
        corpus = standard_library()
        if split is Split.TRAIN:
            return Windows(corpus.train, family.context + 1)
        return [spread_sequences(corpus.validation, 256, family.context + 1)]

    def settings(config: Mapping[str, Any]) -> Settings:
        return Settings(
            examples=sequences,
            batch_size=family.batch_size,
            optimizer=AdamW(config["lr"], config["weight_decay"], beta2=0.98),
            schedule=Cosine(warmup=0.1, final=0.0),
        )

    return TorchTrainer(
        make_model,
        make_data,
        next_byte_loss,
        settings,
        groups=Parametrized(rule, layout),
        work=transformer_work,
        count=transformer_parameters,
    )


def plan(family: Family, minutes: float) -> Plan:
    """Time a mid-sized proxy and fit the length of the runs to its speed."""
    device = best_device()
    middle = (family.smallest * family.largest) ** 0.5
    config = {"params": middle, "lr": 1e-3, "weight_decay": 0.01}
    with seeded(0, device):
        run = TrainingRun(trainer(family, STANDARD, 10**9), config, {}, 0, device)

        def step() -> float:
            float(run.update(share=1.0))  # waits for the device
            assert run.work is not None
            return run.work.flops * family.batch_size

        rate = achieved_flops_per_second(step, seconds=3.0)
    model = family.build(family.target)
    per_sequence = transformer_work(model, torch.zeros(1, family.context + 1)).flops
    seconds = 60.0 * minutes
    sequences = round(rate * seconds * TARGET_SHARE / 2 / per_sequence)
    sequences = min(max(sequences, 20 * family.batch_size), 4000 * family.batch_size)
    search = seconds * SEARCH_SHARE / 2
    return Plan(device.type, rate, sequences, rate * search, search)


def main() -> None:
    """Compare both parametrizations up to a trained target."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=14.0, help="minutes in all (default 14)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the searches and the target runs"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/scale_up"), help="folder for results"
    )
    arguments = parser.parse_args()
    console = Console()
    start = time.perf_counter()
    family = ON_GPU if best_device().type == "cuda" else ON_CPU
    chosen = plan(family, arguments.minutes)
    console.print(
        f"{chosen.flops_per_second / 1e9:.0f} GFLOP/s on {chosen.device}: proxies of "
        f"{family.smallest:,.0f} to {family.largest:,.0f} parameters, a target of "
        f"{family.target:,.0f}, {chosen.sequences * family.context:,} bytes each"
    )
    updates = chosen.sequences // family.batch_size
    if updates < FEW_UPDATES:
        console.print(
            f"[yellow]warning[/]: runs of {updates} updates are too short for a reliable scaling "
            f"law; {math.ceil(arguments.minutes * FEW_UPDATES / updates)} minutes would be enough"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"plan": asdict(chosen)}
    rules: dict[str, Parametrization] = {"muP": MUP, "standard": STANDARD}
    for name, rule in rules.items():
        console.print(f"{name}: searching, then training the target ...")
        found = scale_up(family, rule, chosen, seed=arguments.seed, picture=arguments.out / name)
        record[name] = found
        console.print(f"{name}: {found['trials']} proxies; {found['verdict']}")
        for warning in found["recommendation"]["warnings"]:
            console.print(f"[yellow]warning[/]: {warning}")
    console.print(summary(family, record))
    (arguments.out / "scale_up.json").write_text(json.dumps(record, indent=2))
    minutes, seconds = divmod(time.perf_counter() - start, 60)
    console.print(f"{arguments.out} written after {minutes:.0f} min {seconds:.0f} s")


def scale_up(
    family: Family, rule: Parametrization, chosen: Plan, *, seed: int, picture: Path
) -> dict[str, Any]:
    """Search on proxies, then train the target once as recommended."""
    train = trainer(family, rule, chosen.sequences)
    result = optimize(
        train,
        {
            "lr": Float(3e-4, 1e-1, log=True, role=Role.LR),
            "weight_decay": Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY),
            "params": Scale(family.smallest, family.largest, axis=Axis.PARAMS),
        },
        budget=Budget(cost=chosen.search_flops, seconds=chosen.search_seconds),
        cost="flops",
        target={"params": family.target},
        priors=[MuP()] if rule is MUP else None,
        seed=seed,
    )
    check = check_transfer(result)
    check.plot(picture.with_suffix(".png"))
    drift = next(drift for drift in check.drifts if drift.parameter == "lr")
    advice: Recommendation = result.recommend()
    outcome = train.train(advice.config, seed=seed)
    return {
        "trials": len(result.log.observations),
        "drift": drift.slope.mean,
        "drift_interval": drift.interval,
        "verdict": f"how the best lr moves with the parameters: {drift.verdict.value}",
        "recommendation": asdict(advice),
        "target_run": outcome,
    }


def summary(family: Family, record: Mapping[str, Any]) -> Table:
    """Return the findings as a table with a column for each parametrization."""
    table = Table(title=f"The target of {family.target:,.0f} parameters")
    for column in ("with 90 % intervals", "muP", "standard"):
        table.add_column(column, justify="left" if column[0] == "w" else "right", no_wrap=True)
    names = ("drift of the best lr *", "lr", "predicted loss", "loss it got", "inside")
    for cells in zip(names, described(record["muP"]), described(record["standard"]), strict=True):
        table.add_row(*cells)
    table.caption = "* change of ln lr per unit of ln parameters"
    return table


def described(found: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of one column."""
    low, high = found["drift_interval"]
    advice, outcome = found["recommendation"], found["target_run"]
    bottom, top = advice["loss_interval"]
    return (
        f"{found['drift']:+.2f} ({low:+.2f} to {high:+.2f})",
        f"{advice['config']['lr']:.2g}",
        f"{advice['loss']:.3f} ({bottom:.3f} to {top:.3f})",
        f"{outcome['loss']:.3f}",
        "yes" if bottom <= outcome["loss"] <= top else "no",
    )


if __name__ == "__main__":
    main()
