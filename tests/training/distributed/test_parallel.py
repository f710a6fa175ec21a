"""Training in two processes on the CPU: the losses are those of one."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hpo import Context
from hpo.schedulers import Decision
from hpo.study.process_runner import ProcessRunner
from hpo.study.processes.ranks import launch
from hpo.study.runners import InlineRunner
from hpo.training.data import Shuffled, Split
from hpo.training.distributed.parallel import DDP, FSDP, Parallel, Ranks
from hpo.training.optimizers import SGD, AdamW, Muon, UpdateRule
from hpo.training.parametrization import STANDARD, ParameterLayout, Parametrized
from hpo.training.schedules import WarmupStableDecay
from hpo.training.trainer import Settings, TorchTrainer
from hpo.trials import Status
from tests.contracts.runner import Bench, Config
from tests.study.processes.test_ranks import at

SCRIPT = """
import hpo
from tests.training.distributed.test_parallel import trainer_of
from hpo.training.distributed.parallel import DDP, FSDP

with hpo.connect() as ctx:
    parallel = {"ddp": DDP(), "fsdp": FSDP()}[ctx.config["parallel"]]
    trainer = trainer_of(parallel)
    if "examples" in ctx.config:
        ctx.complete(trainer.branch_trial(ctx.config, ctx, examples=[60, 100, 150]))
    else:
        ctx.complete(trainer(ctx.config, ctx))
"""


class Blocks(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.last = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        out: torch.Tensor = self.last(x)
        return out


def trainer_of(parallel: Parallel | None, rule: UpdateRule | None = None, **more: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(90, 6, generator=generator), torch.randint(3, (90,), generator=generator)
    validation = [(x[i : i + 7], y[i : i + 7]) for i in range(0, 29, 7)]  # the last has one row
    return TorchTrainer(
        make_model=lambda config, scale: Blocks(),
        make_data=lambda config, split: Shuffled([x, y]) if split is Split.TRAIN else validation,
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        measure=lambda model, batch: {
            "hits": (model(batch[0]).argmax(1) == batch[1]).float().mean()
        },
        settings=lambda config: Settings(
            examples=config.get("examples", 150),  # which are no whole batches
            batch_size=16,
            optimizer=rule or AdamW(lr=0.02),
            schedule=WarmupStableDecay(warmup=2, decay=0.3),
            clip=0.5,
            evaluations=config.get("epochs", 4),
            checkpoint_updates=3,
            **more,
        ),
        groups=Parametrized(STANDARD, ParameterLayout.of(Blocks(), Blocks(16))),
        device=torch.device("cpu"),
        parallel=parallel,
    )


MUON = Muon(lr=0.02, others=AdamW(lr=0.01))
BRANCHES = [{"examples": 60.0}, {"examples": 100.0}]
CASES: list[tuple[str, Any, Any]] = [
    ("ddp", None, {}),
    ("ddp accumulates", SGD(lr=0.1), {"micro_batch": 3}),
    ("fsdp", None, {}),
    ("fsdp accumulates", SGD(lr=0.1, momentum=0.9), {"micro_batch": 3}),
    ("ddp muon", MUON, {}),
    ("fsdp muon", MUON, {}),
]


def losses(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    found = []
    for name, rule, more in CASES:
        trainer = trainer_of(FSDP() if name.startswith("fsdp") else DDP(), rule, **more)
        found.append({**trainer.train({}), **ways_of(trainer)})
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def ways_of(trainer: TorchTrainer) -> dict[str, list[float]]:
    """Losses and costs of branches, and the losses of a range test that diverges."""
    branches = trainer.branch({}, examples=[60, 100, 150])
    with warnings.catch_warnings(action="ignore"):  # the loss is lowest at the first rate
        test = trainer.range_test({"examples": 320}, highest=1e6, updates=20)
    return {
        "branches": [one.loss for one in branches],
        "costs": [one.cost for one in branches],
        "range": test.loss.tolist(),
    }


@pytest.mark.engine
def test_two_ranks_train_as_one_process_does_at_the_same_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(losses, args=(str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for (name, rule, more), one, other in zip(CASES, first, second, strict=True):
        trainer = trainer_of(None, rule, **more)
        alone = {**trainer.train({}), **ways_of(trainer)}
        # Muon multiplies in bfloat16, and shards in another order; divergence enlarges that
        rel, of_range = (1e-4, 2e-2) if name == "fsdp muon" else (1e-5, 1e-5)
        for figure in ("loss", "branches", "range"):
            assert one[figure] == other[figure], name
        assert one["range"] == pytest.approx(alone["range"], rel=of_range), name
        for figure in ("loss", "hits", "branches"):
            assert one[figure] == pytest.approx(alone[figure], rel=rel), name
        for figure in ("cost", "examples", "flops", "params", "costs"):
            assert one[figure] == alone[figure], name


@pytest.mark.engine
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_resume_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # the script imports this file
    (tmp_path / "train.py").write_text(SCRIPT)

    def train(config: Config, ctx: Context) -> Any:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        return launch(ctx, [sys.executable, *torchrun, str(tmp_path / "train.py")])

    def run(name: str, pauses: list[int], **more: int) -> list[Any]:
        (tmp_path / name).mkdir()
        bench = Bench(ProcessRunner, tmp_path / name)
        config, axes = {"parallel": parallel, "epochs": 4, **more}, tuple(more)
        for step in pauses:
            (outcome,) = bench.run(train, config, answer=at(step, Decision.PAUSE), axes=axes)
            assert outcome.status is Status.PAUSED, outcome.text
        (outcome,) = bench.run(train, config, axes=axes)
        assert outcome.status is Status.COMPLETED, outcome.text
        bench.runner.close()
        assert [branch.sizes for branch in outcome.branches] == BRANCHES[: 2 * len(more)]
        return [report.loss for _, report in bench.reports if report.loss] + [outcome.loss]

    branches = trainer_of(None).branch({}, examples=[60, 100, 150], seed=100)
    told = run("branches", [1], examples=150)
    assert told == pytest.approx([one.loss for one in branches], rel=1e-5)
    whole, parts = run("whole", []), run("parts", [2])
    assert sorted(set(parts), reverse=True) == sorted(set(whole), reverse=True)
    if parallel == "fsdp":
        (shards,) = (tmp_path / "parts" / "0").glob("shards-*")
        assert len(list(shards.glob("*.distcp"))) == 2


def test_one_process_trains_the_same_with_and_without_parallel() -> None:
    alone = trainer_of(None).train({})
    for parallel in (DDP(), FSDP()):
        assert trainer_of(parallel).train({})["loss"] == alone["loss"]


def test_the_parts_of_all_ranks_are_the_batch_and_their_weighted_mean_is_its_mean() -> None:
    for count, size in ((8, 2), (7, 3), (2, 4), (1, 2)):
        batch, seen, mean = torch.arange(count), list[int](), 0.0
        for rank in range(size):
            ranks = Ranks(None, torch.device("cpu"))
            ranks.rank, ranks.size = rank, size
            part, weight = ranks.part(batch)
            seen += part.tolist() if weight else []
            mean += weight * float(part.float().mean()) / size
        assert seen == batch.tolist()
        assert mean == pytest.approx(float(batch.float().mean()))


def test_only_the_last_of_several_pieces_is_the_last() -> None:
    ranks = Ranks(None, torch.device("cpu"))
    assert list(ranks.with_last("abc")) == [("a", True), ("b", True), ("c", True)]
    ranks.size = 2
    assert list(ranks.with_last("abc")) == [("a", False), ("b", False), ("c", True)]
    assert list(ranks.with_last("")) == []


def test_parallel_that_cannot_be_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`parallel` of TorchTrainer must be .*DDP\(\)"):
        trainer_of("ddp")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`warm_start` must be 0 with FSDP, got 0.5"):
        TorchTrainer(
            make_model=lambda config, scale: nn.Linear(1, 1),
            make_data=lambda config, split: [],
            loss=lambda model, batch: model(batch).mean(),
            settings=lambda config: Settings(1, 1, SGD(0.1)),
            warm_start=0.5,
            parallel=FSDP(),
        )

    class Several(Context):
        ranks = 2  # type: ignore[assignment]

    def train(config: Config, ctx: Context) -> Any:
        ctx.__class__ = Several
        return trainer_of(None)(config, ctx)

    (outcome,) = Bench(InlineRunner, tmp_path).run(train, {})
    assert "ctx must belong to all 1 processes of the training, got that of 2" in outcome.text
