"""Predict the loss of a target from proxies that tell one loss at each of several horizons.

    python -m examples.studies.proxy_to_target [--minutes 8] [--seed 0] [--out runs/proxy_to_target]

Byte-level transformers of one depth learn the source code of Python's standard library, with AdamW
and with Muon, in muP and in standard parametrization. For each of the four, proxies of 30 to 200
thousand parameters are searched. Every proxy is one stable run with a cooldown at a quarter, at
half and at the end of its tokens (`TorchTrainer.branch`), so that it tells three losses for less
than two runs. Then two targets of 500 thousand parameters are trained: as recommended, and with the
settings of the best proxy, as one would carry them over by hand. Every run is written as it ends;
the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.jsonlines import append_row, read_rows
from benchmarks.workloads.corpus import spread_sequences, standard_library
from benchmarks.workloads.language_model import transformer_parameters, transformer_work
from examples.studies.scale_up import Family
from hpo import Axis, Float, MuP, Optimizer, Role, Scale
from hpo.training.accounting import achieved_flops_per_second
from hpo.training.data import Split, Windows
from hpo.training.devices import best_device, seeded
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
from hpo.training.trainer import Settings, TorchTrainer, TrainingRun
from hpo.training.transformer import Transformer, next_byte_loss

FAMILY = Family(2, 16, smallest=3e4, largest=2e5, target=5e5, context=64, batch_size=8)
SHARES = (0.25, 0.5, 1.0)  # of the tokens, where cooldowns end
TARGET_SHARE = 0.4  # of the minutes, for two targets of each study; the rest is for the proxies
FEW_UPDATES = 200  # in runs shorter than this, more parameters hardly lower the loss


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
    def rates(self) -> Float:
        """The searched rates."""
        low, high = (3e-3, 0.3) if self.muon else (3e-4, 3e-2)
        return Float(low, high, log=True, role=Role.LR)


STUDIES = (
    Study("AdamW, muP", MUP, muon=False),
    Study("AdamW, standard", STANDARD, muon=False),
    Study("Muon, muP", MUP, muon=True),
    Study("Muon, standard", STANDARD, muon=True),
)


def trainer(study: Study) -> TorchTrainer:
    """Return a trainer of configs of `params`, `tokens` and `lr`."""
    layout = ParameterLayout.of(FAMILY.build(FAMILY.smallest), FAMILY.build(4 * FAMILY.smallest))

    def make_model(config: Mapping[str, Any], scale: Mapping[str, float]) -> Transformer:
        model = FAMILY.build(config["params"])
        rescale_(model, layout, study.rule)
        return model

    def make_data(config: Mapping[str, Any], split: Split) -> Any:
        corpus = standard_library()
        if split is Split.TRAIN:
            return Windows(corpus.train, FAMILY.context + 1)
        return [spread_sequences(corpus.validation, 256, FAMILY.context + 1)]

    def settings(config: Mapping[str, Any]) -> Settings:
        updates = max(1, round(config["tokens"] / FAMILY.context / FAMILY.batch_size))
        return Settings(
            examples=updates * FAMILY.batch_size,
            batch_size=FAMILY.batch_size,
            optimizer=study.optimizer(config["lr"]),
            schedule=WarmupStableDecay(warmup=20, decay=0.3),
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


def plan(minutes: float) -> dict[str, float]:
    """Time a proxy; return the tokens of a whole run and the FLOPs of one search."""
    device = best_device()
    config = {"params": FAMILY.largest, "tokens": 1e9, "lr": 1e-3}
    with seeded(0, device):
        run = TrainingRun(trainer(STUDIES[1]), config, {}, 0, device)

        def step() -> float:
            float(run.update(share=1.0))  # waits for the device
            assert run.work is not None
            return run.work.flops * FAMILY.batch_size

        rate = achieved_flops_per_second(step, seconds=3.0)
    target = FAMILY.build(FAMILY.target)
    flops_per_sequence = transformer_work(target, torch.zeros(1, FAMILY.context + 1)).flops
    seconds = 60.0 * minutes / len(STUDIES)
    sequences = rate * seconds * TARGET_SHARE / 2 / flops_per_sequence
    updates = min(max(round(sequences / FAMILY.batch_size), 40), 20_000)
    tokens = float(updates * FAMILY.batch_size * FAMILY.context)
    return {"flops_per_second": rate, "tokens": tokens, "flops": rate * seconds * 0.5}


def search(study: Study, chosen: Mapping[str, float], path: Path, *, seed: int) -> Optimizer:
    """Search on proxies until the FLOPs are spent; finished runs are read from the file."""
    tokens = chosen["tokens"]
    optimizer = Optimizer(
        {
            "lr": study.rates,
            "params": Scale(FAMILY.smallest, FAMILY.largest, axis=Axis.PARAMS),
            "tokens": Scale(SHARES[0] * tokens, tokens, axis=Axis.TOKENS),
        },
        cost="flops",
        target={"params": FAMILY.target, "tokens": tokens},
        priors=[MuP()] if study.rule is MUP else None,
        seed=seed,
    )
    known = {
        row["proxy"]: row["branches"]
        for row in read_rows(path)
        if row["study"] == study.name and "proxy" in row
    }
    spent, proxy = 0.0, 0
    train = trainer(study)
    while spent < chosen["flops"]:
        trial = optimizer.ask()  # the same ones again when a study goes on
        if proxy not in known:
            known[proxy] = trained(train, trial.config, seed=seed)
            append_row(path, {"study": study.name, "proxy": proxy, "branches": known[proxy]})
        for row in known[proxy]:
            asked = row["config"] == dict(trial.config)
            result = {"failed": "diverged"} if row["loss"] is None else {"loss": row["loss"]}
            optimizer.tell(trial if asked else row["config"], cost=row["cost"], **result)
            spent += row["cost"]
        proxy += 1
    return optimizer


def trained(train: TorchTrainer, config: Mapping[str, Any], *, seed: int) -> list[dict[str, Any]]:
    """Train one proxy; return its losses, the one at the tokens that were asked for last."""
    horizons = [share * config["tokens"] for share in SHARES]
    branches = train.branch(config, seed=seed, tokens=horizons)
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


def predicted_and_trained(
    study: Study, optimizer: Optimizer, chosen: Mapping[str, float], path: Path, *, seed: int
) -> dict[str, Any]:
    """Predict the target's loss, then train it twice; finished targets are read from the file."""
    for row in read_rows(path):
        if row["study"] == study.name and "predicted" in row:
            return row
    advice = optimizer.result().recommend()
    longest = [
        one
        for one in optimizer.log.observations
        if one.loss is not None and one.config["tokens"] >= 0.5 * chosen["tokens"]
    ]
    best = min(longest, key=lambda one: float(one.loss or math.inf)).config["lr"]
    size = {"params": FAMILY.target, "tokens": chosen["tokens"]}
    train = trainer(study)
    row = {
        "study": study.name,
        "losses": len(optimizer.log.observations),
        "lr": advice.config["lr"],
        "predicted": advice.loss,
        "interval": list(advice.loss_interval),
        "trained": train.train({**size, "lr": advice.config["lr"]}, seed=seed)["loss"],
        "lr_by_hand": best,
        "trained_by_hand": train.train({**size, "lr": best}, seed=seed)["loss"],
        "warnings": list(advice.warnings),
    }
    append_row(path, row)
    return row


def summary(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the findings, one study a row."""
    table = Table(title=f"The target of {FAMILY.target:,.0f} parameters")
    columns = ("study", "losses", "lr", "predicted (90 %)", "trained", "inside", "best proxy's lr")
    for column in columns:
        table.add_column(column, justify="left" if column == "study" else "right", no_wrap=True)
    for row in rows:
        low, high = row["interval"]
        table.add_row(
            row["study"],
            str(row["losses"]),
            f"{row['lr']:.2g}",
            f"{row['predicted']:.3f} ({low:.3f} to {high:.3f})",
            f"{row['trained']:.3f}",
            "yes" if low <= row["trained"] <= high else "no",
            f"{row['lr_by_hand']:.2g}: {row['trained_by_hand']:.3f}",
        )
    return table


def main() -> None:
    """Run the four studies, or what is left of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="minutes in all (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of searches, weights and data")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/proxy_to_target"), help="folder for results"
    )
    arguments = parser.parse_args()
    console = Console()
    start = time.process_time()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / f"plan_{arguments.seed}.json"
    if not kept.exists():
        kept.write_text(json.dumps(plan(arguments.minutes)))
    chosen = json.loads(kept.read_text())
    updates = round(chosen["tokens"] / FAMILY.context / FAMILY.batch_size)
    console.print(
        f"{chosen['flops_per_second'] / 1e9:.0f} GFLOP/s: whole runs of {chosen['tokens']:,.0f} "
        f"bytes in {updates} updates, told at {', '.join(f'{share:.0%}' for share in SHARES)}"
    )
    if updates < FEW_UPDATES:
        console.print(
            f"[yellow]warning[/]: runs of {updates} updates are too short for a reliable scaling "
            f"law; {math.ceil(arguments.minutes * FEW_UPDATES / updates)} minutes would be enough"
        )
    path = arguments.out / f"runs_{arguments.seed}.jsonl"
    rows = []
    for study in STUDIES:
        optimizer = search(study, chosen, path, seed=arguments.seed)
        row = predicted_and_trained(study, optimizer, chosen, path, seed=arguments.seed)
        rows.append(row)
        for warning in row["warnings"]:
            console.print(f"{study.name}: [yellow]warning[/]: {warning}")
    console.print(summary(rows))
    console.print(f"{path}: {(time.process_time() - start) / 60:.1f} processor minutes")


if __name__ == "__main__":
    main()
