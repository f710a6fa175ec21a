"""Train the curve bank's workloads and pack their curves into one table.

    python -m benchmarks record [--configs 64] [--workers 1] [--work DIR] [--out FILE]

Every run is a file of its own in the work folder, written under another name and then renamed, and
never changed again: killed at any moment, the command loses the runs in flight and continues from
there when it is called again. One config is run at all sizes before the next one starts, so a
stopped recording is a smaller bank, not an incomplete one; only configs with all sizes are packed.

Losses depend on the seed alone (on one machine, with one thread). Seconds are processor time of the
training process, evaluation included, so that other programs on the machine hardly count.

The table is an `.npz` with, for workload `w`, S sizes, n configs and 27 levels:

    w/loss, w/error, w/train_loss, w/flops, w/seconds    S x n x 27 float32, cost cumulative
    w/parameters          S, parameters as built, ascending
    w/config/<name>       n float64, NaN where inactive; position of the choice where categorical
    provenance            JSON: command, dates, versions, machines

A run that diverged has NaN as the loss of the level it diverged in and nothing but NaN beyond it;
the cost of that level is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recording.workloads import LEVELS, WORKLOADS, Workload
from hpo import Categorical, Float, Int, SearchSpace
from hpo.space import Parameter

CURVES = ("loss", "error", "train_loss", "flops", "seconds")
_DESIGN_SEED = 0
_DIGITS = 4  # significant, of sampled settings: readable, and exactly what is stored


@dataclass(frozen=True, slots=True)
class RecordingJob:
    """One run: config `number` of a workload at the size of index `size`; the seed is `number`."""

    workload: str
    number: int
    size: int
    config: dict[str, Any]

    def path(self, work: Path) -> Path:
        return work / self.workload / f"{self.number:04d}-{self.size}.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks record`."""
    parser.add_argument("--configs", type=int, default=64, help="per workload (default 64)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--work", type=Path, default=Path("runs/curve_bank"), help="run files")
    parser.add_argument("--out", type=Path, help="table (default: curve_bank.npz in --work)")
    parser.add_argument(
        "--pack-only", action="store_true", help="train nothing, pack what is there"
    )
    parser.set_defaults(action=_record)


def _record(given: argparse.Namespace) -> int:
    chosen = [WORKLOADS[name] for name in given.workloads]
    jobs = plan(chosen, given.configs)
    if not given.pack_only:
        record(jobs, given.work, workers=given.workers)
    command = " ".join(["python -m benchmarks", *given.words])
    arrays = pack(chosen, jobs, given.work, command=command)
    out = given.out or given.work / "curve_bank.npz"
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, allow_pickle=False, **arrays)
    print(
        f"{out}: {out.stat().st_size} bytes, sha256 {hashlib.sha256(out.read_bytes()).hexdigest()}"
    )
    return 0


def plan(workloads: Sequence[Workload], count: int) -> list[RecordingJob]:
    """Return all runs, `count` configs of each workload at its three sizes, config by config."""
    configs = {w.name: design(w.space, count) for w in workloads}
    return [
        RecordingJob(w.name, number, size, configs[w.name][number])
        for number in range(count)
        for w in workloads
        for size in range(len(w.sizes))
    ]


def design(space: SearchSpace, count: int) -> list[dict[str, Any]]:
    """Return the first `count` configs of a scrambled Sobol sequence."""
    from scipy.stats import qmc

    sobol = qmc.Sobol(len(space), rng=np.random.default_rng(_DESIGN_SEED))
    points = sobol.random_base2(max(1, math.ceil(math.log2(max(1, count)))))[:count]
    configs = []
    for point in points:
        config = {
            name: _value(parameter, u)
            for (name, parameter), u in zip(space.items(), point.tolist(), strict=True)
        }
        active = space.active(config)
        configs.append(space.canonical({name: config[name] for name in active}))
    return configs


def _value(parameter: Parameter, u: float) -> Any:
    """The value at share `u` in [0, 1) of a parameter's range, in its natural unit."""
    if isinstance(parameter, Categorical):
        return parameter.choices[int(u * len(parameter.choices))]
    low, high = parameter.limits
    if isinstance(parameter, Int):
        # Equal shares for the integers on a linear scale; ends half as wide on a log scale.
        if not parameter.log:
            return low + int(u * (high - low + 1))
        return round(math.exp(math.log(low) + u * math.log(high / low)))
    assert isinstance(parameter, Float)
    if parameter.log:
        value = math.exp(math.log(low) + u * math.log(high / low))
    elif parameter.logit:
        ends = [math.log(p / (1 - p)) for p in (low, high)]
        value = 1 / (1 + math.exp(-(ends[0] + u * (ends[1] - ends[0]))))
    else:
        value = low + u * (high - low)
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def record(jobs: Sequence[RecordingJob], work: Path, *, workers: int) -> None:
    """Run every job whose file is not in `work` yet, in order, in `workers` processes."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    missing = [job for job in jobs if read(job, work) is None]
    names = tuple({job.workload for job in missing})
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(
            workers, mp_context=context, initializer=_prepare, initargs=(names,)
        ) as pool,
    ):
        bar = progress.add_task("recording", total=len(jobs), completed=len(jobs) - len(missing))
        running = [pool.submit(run, job, work) for job in missing]
        try:
            for future in as_completed(running):
                future.result()
                progress.advance(bar)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _prepare(workloads: tuple[str, ...]) -> None:
    """One thread; imports and data are loaded, so that no run is charged for them."""
    import torch

    torch.set_num_threads(1)
    for workload in (WORKLOADS[name] for name in workloads):
        next(workload.train(workload.sizes[0], design(workload.space, 1)[0], 0))


def run(job: RecordingJob, work: Path) -> None:
    """Train one job through all levels, or to the one it diverges in, and write its file."""
    workload = WORKLOADS[job.workload]
    curves: dict[str, list[float]] = {name: [] for name in CURVES}
    readings = workload.train(workload.sizes[job.size], job.config, job.number)
    start = time.process_time()
    for reading in islice(readings, LEVELS):
        for name in ("loss", "error", "train_loss", "flops"):
            curves[name].append(getattr(reading, name))
        curves["seconds"].append(time.process_time() - start)
    document = {
        "workload": job.workload,
        "number": job.number,
        "size": job.size,
        "config": job.config,
        "parameters": workload.parameters(workload.sizes[job.size]),
        "curves": curves,
        "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "machine": _machine(),
    }
    path = job.path(work)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(document))
    draft.replace(path)


def read(job: RecordingJob, work: Path) -> dict[str, Any] | None:
    """Return the record of a job, or None; raises `ValueError` if it holds another config."""
    path = job.path(work)
    if not path.exists():
        return None
    document: dict[str, Any] = json.loads(path.read_text())
    if document["config"] != job.config:
        raise ValueError(
            f"{path} must hold the planned config, got {document['config']} for {job.config}; it is"
            " of an older plan: name another --work folder"
        )
    return document


def pack(
    workloads: Sequence[Workload], jobs: Sequence[RecordingJob], work: Path, *, command: str
) -> dict[str, NDArray[Any]]:
    """Return the table's arrays, from the configs of which every size is recorded.

    Raises:
        ValueError: if a workload has no such config.
    """
    arrays: dict[str, NDArray[Any]] = {}
    everything: list[dict[str, Any]] = []
    for workload in workloads:
        sizes = len(workload.sizes)
        grid: dict[int, dict[int, dict[str, Any]]] = {}
        for job in jobs:
            if job.workload == workload.name and (document := read(job, work)) is not None:
                grid.setdefault(job.number, {})[job.size] = document
        complete = [grid[number] for number in sorted(grid) if len(grid[number]) == sizes]
        if not complete:
            raise ValueError(
                f"{work} must hold a config of {workload.name} at all sizes; record it"
            )
        arrays |= _pack_workload(workload, complete)
        everything += [document for by_size in complete for document in by_size.values()]
    provenance = {
        "command": command,
        "runs": len(everything),
        "first": min(d["recorded"] for d in everything),
        "last": max(d["recorded"] for d in everything),
        "versions": _distinct(d["versions"] for d in everything),
        "machines": _distinct(d["machine"] for d in everything),
        "seconds": "processor time of one thread, evaluation included",
    }
    arrays["provenance"] = np.array(json.dumps(provenance))
    return arrays


def _pack_workload(
    workload: Workload, complete: Sequence[Mapping[int, dict[str, Any]]]
) -> dict[str, NDArray[Any]]:
    name, sizes, count = workload.name, len(workload.sizes), len(complete)
    arrays: dict[str, NDArray[Any]] = {}
    for curve in CURVES:
        cube = np.full((sizes, count, LEVELS), np.nan, dtype=np.float32)
        for i, by_size in enumerate(complete):
            for size, document in by_size.items():
                found = document["curves"][curve]
                cube[size, i, : len(found)] = found
        arrays[f"{name}/{curve}"] = cube
    built = {tuple(by_size[s]["parameters"] for s in range(sizes)) for by_size in complete}
    if len(built) > 1:
        raise ValueError(f"{name} must have one set of sizes, got {sorted(built)}; record it again")
    arrays[f"{name}/parameters"] = np.array(built.pop())
    for column, parameter in workload.space.items():
        values = np.full(count, np.nan)
        for i, by_size in enumerate(complete):
            if column in (config := by_size[0]["config"]):
                value = config[column]
                values[i] = parameter.index(value) if isinstance(parameter, Categorical) else value
        arrays[f"{name}/config/{column}"] = values
    return arrays


def _distinct(items: Any) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _versions() -> dict[str, str]:
    import sklearn
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def _machine() -> str:
    """Processor and operating system, without the host's name."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass  # not Linux: what `platform` says must do
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"
