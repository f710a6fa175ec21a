"""Cost of the built-in trainer, drift of the best learning rate under muP, and methods without one.

    python -m benchmarks training throughput            # minutes
    python -m benchmarks training drift --out runs/drift.jsonl     # five minutes
    python -m benchmarks training lr-free --out runs/lr_free.jsonl # two minutes

`throughput` times updates of the built-in trainer and of a plain loop written by hand, alternately,
on the same model, data and optimizer. `drift` trains perceptrons of several widths on
scikit-learn's digits over a grid of learning rates, in muP and in standard parametrization, and
fits a parabola to the validation loss against log2 of the rate at each width. `lr-free` trains the
same perceptrons in muP with optimizers whose learning rate nobody chose, beside AdamW at the best
rate of a grid; it needs the extra `optimizers`. Both append every run to their file and continue
from there if they were killed. Results are in docs/appendix/training_measured.md.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from benchmarks.jsonlines import append_row, read_rows
from benchmarks.markdown import table_head, table_row
from benchmarks.workloads.corpus import standard_library
from benchmarks.workloads.digits import CLASSES, SIDE, digits
from benchmarks.workloads.language_model import transformer_parameters, transformer_work
from hpo.training.data import Shuffled, Split, Windows
from hpo.training.devices import best_device, peak_flops_per_second, seeded
from hpo.training.optimizers import AdamW, Prodigy, ScheduleFree, UpdateRule
from hpo.training.parametrization import (
    MUP,
    STANDARD,
    ParameterLayout,
    Parametrization,
    Parametrized,
    rescale_,
)
from hpo.training.schedules import Constant, Cosine, LearningRateSchedule, Linear
from hpo.training.trainer import Settings, TorchTrainer, TrainingRun
from hpo.training.transformer import Transformer, next_byte_loss, params_to_shape

BASE_WIDTH = 64
BATCH_SIZE = 32
PARAMETRIZATIONS: Mapping[str, Parametrization] = {"mup": MUP, "standard": STANDARD}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks training`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    throughput = commands.add_parser("throughput", help="updates per second beside a plain loop")
    throughput.add_argument("--rounds", type=int, default=15)
    drift = commands.add_parser("drift", help="the best learning rate against width")
    drift.add_argument("--out", type=Path, default=Path("runs/drift.jsonl"))
    drift.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256, 512])
    drift.add_argument("--seeds", type=int, default=3)
    drift.add_argument("--updates", type=int, default=300)
    lr_free = commands.add_parser("lr-free", help="optimizers whose learning rate nobody chose")
    lr_free.add_argument("--out", type=Path, default=Path("runs/lr_free.jsonl"))
    lr_free.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    lr_free.add_argument("--seeds", type=int, default=3)
    lr_free.add_argument("--updates", type=int, default=300)
    lr_free.set_defaults(action=_lr_free)
    throughput.set_defaults(action=_throughput)
    drift.set_defaults(action=_drift)


def _throughput(given: argparse.Namespace) -> int:
    for line in throughput_lines(rounds=given.rounds):
        print(line, flush=True)
    return 0


def _drift(given: argparse.Namespace) -> int:
    runs = DriftRuns(given.out, updates=given.updates, seeds=range(given.seeds))
    for name in PARAMETRIZATIONS:
        fits = [runs.fit(name, width) for width in given.widths]
        for line in drift_lines(name, given.widths, fits):
            print(line, flush=True)
    return 0


def _lr_free(given: argparse.Namespace) -> int:
    for line in lr_free_lines(
        given.out, widths=given.widths, seeds=range(given.seeds), updates=given.updates
    ):
        print(line, flush=True)
    return 0


# --- throughput ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """Model and batch to time: non-embedding parameters, sequences an update, bytes a sequence."""

    params: float
    batch_size: int
    context: int


CASES = (Case(1e5, 32, 64), Case(1e6, 16, 128), Case(4e6, 8, 128))


def throughput_lines(*, rounds: int, cases: Iterable[Case] = CASES) -> Iterator[str]:
    """Yield a table of median milliseconds of an update by hand and by the trainer."""
    device = best_device()
    peak = peak_flops_per_second(device)
    yield f"device {device.type}, {torch.get_num_threads()} threads"
    columns = ("by hand, ms", "trainer, ms", "ratio", "GFLOP/s", "MFU")
    yield from table_head(["params", "batch x context", *columns])
    for case in cases:
        with seeded(0, device):
            by_hand, flops = _plain_loop(case, device), _flops(case)
            ours = _trainer_loop(case, device)
            first, second = _paired_seconds(by_hand, ours, rounds=rounds)
        ratio = float(np.median(second / first))
        rate = flops / float(np.median(second))
        share = "-" if peak is None else f"{rate / peak:.1%}"
        milliseconds = (f"{1e3 * np.median(seconds):.2f}" for seconds in (first, second))
        size = (f"{case.params:,.0f}", f"{case.batch_size} x {case.context}")
        yield table_row([*size, *milliseconds, f"{ratio:.3f}", f"{rate / 1e9:.1f}", share])


def _flops(case: Case) -> float:
    shape = params_to_shape(case.params)
    model = Transformer(shape, context=case.context, rng=torch.Generator())
    work = transformer_work(model, torch.zeros(1, case.context + 1))
    return work.flops * case.batch_size


def _plain_loop(case: Case, device: torch.device) -> Callable[[], None]:
    """The loop one would write by hand: as fast as the trainer should be."""
    model = Transformer(
        params_to_shape(case.params), context=case.context, rng=torch.default_generator
    ).to(device)
    matrices = [w for w in model.parameters() if w.ndim >= 2]
    gains = [w for w in model.parameters() if w.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": gains, "weight_decay": 0.0}],
        lr=1e-3,
        fused=True,
    )
    text = standard_library().train.to(device)
    weights = list(model.parameters())
    offsets = torch.arange(case.context + 1, device=device)

    def update() -> None:
        starts = torch.randint(len(text) - case.context, (case.batch_size, 1), device=device)
        batch = text[starts + offsets].long()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


def _trainer_loop(case: Case, device: torch.device) -> Callable[[], None]:
    def settings(config: Mapping[str, Any]) -> Settings:
        return Settings(10**9, case.batch_size, AdamW(1e-3), Cosine(warmup=0.0))

    trainer = TorchTrainer(
        make_model=lambda config, scale: Transformer(
            params_to_shape(case.params), context=case.context, rng=torch.default_generator
        ),
        make_data=lambda config, split: Windows(
            standard_library().train.to(device), case.context + 1
        ),
        loss=next_byte_loss,
        settings=settings,
        work=transformer_work,
        count=transformer_parameters,
    )
    run = TrainingRun(trainer, {}, {}, 0, device)

    def update() -> None:
        run.update()

    return update


def _paired_seconds(
    first: Callable[[], None], second: Callable[[], None], *, rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds of an update of each, `(rounds,)`; alternately, so that both see the same load."""
    for update in (first, second, first, second):
        update()
    once = _seconds(first, 1)
    repeats = max(1, round(0.2 / once))
    pairs = []
    for i in range(rounds):
        if i % 2:
            late = _seconds(second, repeats)
            pairs.append((_seconds(first, repeats), late))
        else:
            pairs.append((_seconds(first, repeats), _seconds(second, repeats)))
    found = np.array(pairs)
    return found[:, 0], found[:, 1]


def _seconds(update: Callable[[], None], repeats: int) -> float:
    """Processor time on a CPU, which other programs do not lengthen much; else wall-clock."""
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    for _ in range(repeats):
        update()
    if on_gpu:
        torch.cuda.synchronize()
    return (clock() - start) / repeats


# --- drift of the best learning rate -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fit:
    """Parabola through the mean losses at the best rate of one width and two rates either side.

    Attributes:
        optimum: log2 of the best rate.
        interval: 90 % interval of the optimum, by the jackknife over seeds.
        losses: log2 of the rate -> mean loss, of all rates that were run.
    """

    optimum: float
    interval: tuple[float, float]
    losses: Mapping[int, float]


class DriftRuns:
    """Trained perceptrons, each run once and kept in a file."""

    def __init__(self, path: Path, *, updates: int, seeds: Iterable[int]) -> None:
        self.path, self.updates, self.seeds = path, updates, tuple(seeds)
        self._known: dict[tuple[Any, ...], float] = {
            tuple(row["key"]): math.nan if row["loss"] is None else row["loss"]
            for row in read_rows(path)
        }

    def loss(self, name: str, width: int, exponent: int, seed: int) -> float:
        """Return the validation loss of the run at rate 2^`exponent`; infinite if it diverged."""
        key = (name, width, exponent, seed, self.updates)
        if key not in self._known:
            loss = train(name, width, 2.0**exponent, updates=self.updates, seed=seed)
            self._known[key] = loss
            append_row(self.path, {"key": key, "loss": loss if math.isfinite(loss) else None})
        loss = self._known[key]
        return loss if math.isfinite(loss) else math.inf

    def fit(self, name: str, width: int, *, start: int = -7) -> Fit:
        """Run rates until the best one has two others on either side, then fit."""
        losses: dict[int, list[float]] = {}
        best = start
        while True:
            missing = [e for e in range(best - 2, best + 3) if e not in losses]
            if not missing:
                break
            for exponent in missing:
                losses[exponent] = [self.loss(name, width, exponent, s) for s in self.seeds]
            best = min(losses, key=lambda e: float(np.mean(losses[e])))
        near = [e for e in range(best - 2, best + 3) if np.isfinite(losses[e]).all()]
        table = np.array([losses[e] for e in near])  # rates x seeds
        optimum = vertex(near, table.mean(axis=1))
        count = len(self.seeds)
        left = [vertex(near, np.delete(table, i, axis=1).mean(axis=1)) for i in range(count)]
        spread = math.sqrt((count - 1) * float(np.var(left)))
        half = float(stats.t.ppf(0.95, count - 1)) * spread
        mean = {e: float(np.mean(found)) for e, found in sorted(losses.items())}
        return Fit(optimum, (optimum - half, optimum + half), mean)


def vertex(x: Sequence[float], y: NDArray[np.float64]) -> float:
    """Return where the least-squares parabola through the points is lowest."""
    square, linear, _ = np.polyfit(x, y, 2)
    return float(-linear / (2 * square))


def drift_lines(name: str, widths: Sequence[int], fits: Sequence[Fit]) -> list[str]:
    """Return the optima, and by how much they move over all widths, as lines of text."""
    lines = [f"{name}:"]
    for width, fit in zip(widths, fits, strict=True):
        low, high = fit.interval
        losses = ", ".join(f"2^{e}: {loss:.3f}" for e, loss in fit.losses.items())
        lines.append(
            f"  width {width}: best log2 lr {fit.optimum:+.2f} ({low:+.2f} to {high:+.2f}); "
            + losses
        )
    optima = [fit.optimum for fit in fits]
    slope = float(np.polyfit(np.log2(widths), optima, 1)[0])
    lines.append(
        f"  from narrowest to widest {optima[-1] - optima[0]:+.2f} grid steps, largest distance "
        f"{max(optima) - min(optima):.2f}, slope {slope:+.2f} per doubling"
    )
    return lines


def train(name: str, width: int, lr: float, *, updates: int, seed: int) -> float:
    """Return the validation cross-entropy of one run in nats; NaN if it diverged."""
    rule = AdamW(lr, weight_decay=0.0, beta2=0.95)
    return train_with(
        rule, Linear(warmup=0.1), PARAMETRIZATIONS[name], width, updates=updates, seed=seed
    )


def train_with(
    optimizer: UpdateRule,
    schedule: LearningRateSchedule,
    rule: Parametrization,
    width: int,
    *,
    updates: int,
    seed: int,
) -> float:
    """Return the validation cross-entropy of one run in nats; NaN if it diverged."""
    layout = ParameterLayout.of(_perceptron(BASE_WIDTH), _perceptron(2 * BASE_WIDTH))

    def make_model(config: Mapping[str, Any], scale: Mapping[str, float]) -> nn.Module:
        model = _perceptron(width)
        rescale_(model, layout, rule)
        return model

    def make_data(config: Mapping[str, Any], split: Split) -> Any:
        data = digits()
        if split is Split.TRAIN:
            return Shuffled([data.train_images.flatten(1), data.train_labels])
        return [(data.validation_images.flatten(1), data.validation_labels)]

    trainer = TorchTrainer(
        make_model=make_model,
        make_data=make_data,
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        settings=lambda config: Settings(
            examples=BATCH_SIZE * updates,
            batch_size=BATCH_SIZE,
            optimizer=optimizer,
            schedule=schedule,
            evaluations=1,
        ),
        groups=Parametrized(rule, layout),
    )
    return trainer.train({}, seed=seed)["loss"]


# --- optimizers whose learning rate nobody chose -------------------------------------------------

#: Settings that come with the methods; rates of AdamW are those of the grid and its usual 1e-3.
LR_FREE: Mapping[str, tuple[UpdateRule, LearningRateSchedule]] = {
    "Prodigy, constant": (Prodigy(weight_decay=0.0), Constant()),
    "Prodigy, cosine": (Prodigy(weight_decay=0.0), Cosine(warmup=0.0, final=0.0)),
    "schedule-free at 2.5e-3": (ScheduleFree(2.5e-3, weight_decay=0.0), Constant(warmup=30)),
    "AdamW at 1e-3": (AdamW(1e-3, weight_decay=0.0, beta2=0.95), Linear(warmup=0.1)),
}
GRID = tuple(range(-11, -4))  # log2 of the rates of AdamW that a search would try


def lr_free_lines(
    path: Path, *, widths: Sequence[int], seeds: Iterable[int], updates: int
) -> Iterator[str]:
    """Yield a table of mean validation losses; runs are kept in a file."""
    seeds = tuple(seeds)
    methods = dict(LR_FREE)
    for exponent in GRID:
        adam = AdamW(2.0**exponent, weight_decay=0.0, beta2=0.95)
        methods[f"AdamW at 2^{exponent}"] = (adam, Linear(warmup=0.1))
    known = {tuple(row["key"]): row["loss"] for row in read_rows(path)}
    yield from table_head(["method", *(f"width {width}" for width in widths), "trainings"])
    means: dict[str, list[float]] = {}
    for name, (rule, schedule) in methods.items():
        means[name] = []
        for width in widths:
            losses = []
            for seed in seeds:
                key = (name, width, seed, updates)
                if key not in known:
                    loss = train_with(rule, schedule, MUP, width, updates=updates, seed=seed)
                    known[key] = loss if math.isfinite(loss) else None
                    append_row(path, {"key": key, "loss": known[key]})
                losses.append(math.inf if known[key] is None else known[key])
            means[name].append(float(np.mean(losses)))
        if name in LR_FREE:
            yield table_row([name, *(f"{loss:.4f}" for loss in means[name]), "1"])
    grid = [means[f"AdamW at 2^{exponent}"] for exponent in GRID]
    at_base = min(range(len(GRID)), key=lambda i: grid[i][0])
    best = [min(row[i] for row in grid) for i in range(len(widths))]
    yield table_row(["AdamW, best of the grid", *(f"{loss:.4f}" for loss in best), str(len(GRID))])
    carried = [f"{loss:.4f}" for loss in grid[at_base]]
    name = f"AdamW at 2^{GRID[at_base]}, the best at width {widths[0]}"
    yield table_row([name, *carried, f"{len(GRID)} at the first width"])


def _perceptron(width: int) -> nn.Sequential:
    """Three hidden layers; the read-out starts at zero, as muP recommends."""
    layers = [nn.Linear(SIDE**2, width), nn.GELU()]
    for _ in range(2):
        layers += [nn.Linear(width, width), nn.GELU()]
    head = nn.Linear(width, CLASSES)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(*layers, head)
