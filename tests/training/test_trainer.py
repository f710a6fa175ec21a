"""The trainer: exact resume, accumulation, divergence, memory, what it reports."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hpo import PBT, Budget, Cause, Fidelity, Float, Limits, Role, Scale, Status, optimize
from hpo.diagnostics.resume_check import check_continuation
from hpo.schedulers import Decision
from hpo.study.checkpoints import save_state
from hpo.study.context import Context
from hpo.training.accounting import Quantity
from hpo.training.data import Shuffled, Split, Windows
from hpo.training.metrics import LogitRecorder
from hpo.training.optimizers import (
    SGD,
    SOAP,
    AdamAtan2,
    AdamW,
    Dion,
    Lion,
    Muon,
    Prodigy,
    ScheduleFree,
    Scion,
    Shampoo,
    UpdateRule,
)
from hpo.training.parametrization import STANDARD, ParameterLayout, Parametrized
from hpo.training.schedules import Constant, Cooldown, Cosine, WarmupStableDecay
from hpo.training.trainer import Settings, TorchTrainer
from hpo.training.transformer import Transformer, TransformerShape, next_byte_loss
from hpo.trials import Report, Trial

CPU = torch.device("cpu")
ROWS = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tanh(ROWS @ torch.arange(-2.0, 4.0)[:, None] / 3)
SETTINGS = Settings(
    examples=400, batch_size=10, optimizer=AdamW(1e-2), schedule=Cosine(), micro_batch=4
)


class Killed(BaseException):
    """Represents the end of the process: only what was saved survives."""


class Network(nn.Module):
    """Network with all kinds of state: dropout, running means, several layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.middle = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(torch.relu(self.norm(self.middle(torch.relu(self.first(x))))))
        out: Tensor = self.last(hidden)
        return out


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.mse_loss(model(batch[0]), batch[1])


def data(config: Mapping[str, Any], split: Split) -> Any:
    if split is Split.VALIDATION:
        return [(ROWS[:40], TARGETS[:40]), (ROWS[40:60], TARGETS[40:60])]
    return Shuffled([ROWS, TARGETS])


def loader(config: Mapping[str, Any], split: Split) -> Any:
    if split is Split.VALIDATION:
        return data(config, split)
    return DataLoader(TensorDataset(ROWS, TARGETS), batch_size=10, shuffle=True)


def trainer_for(fixed: Settings = SETTINGS, /, **changes: Any) -> TorchTrainer:
    trainer = TorchTrainer(
        make_model=lambda config, scale: Network(),
        make_data=data,
        loss=squared_error,
        settings=lambda config: fixed,
        device=CPU,
    )
    return dataclasses.replace(trainer, **changes)


@dataclass
class Recorder:
    """Channel that lets every trial continue."""

    reports: list[Report] = field(default_factory=list)

    def send(self, report: Report) -> Decision:
        self.reports.append(report)
        return Decision.CONTINUE


def context(folder: Path | None, seed: int = 0, **fidelity: int) -> tuple[Context, list[Report]]:
    channel = Recorder()
    trial = Trial(number=0, config={}, ask_index=0, prediction=None)
    made = Context(trial, seed=seed, channel=channel, checkpoint_dir=folder, **fidelity)  # type: ignore[arg-type]
    return made, channel.reports


def without_clock(result: Mapping[str, float]) -> dict[str, float]:
    timed = ("seconds", "updates_per_second", "tokens_per_second", "peak_memory")
    return {name: value for name, value in result.items() if name not in timed}


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason="the extra `optimizers` is not installed"
    )


# --- resume --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "make_data"),
    [
        (AdamW(1e-2, 0.1), data),
        (AdamW(1e-2), loader),
        (SGD(1e-2, momentum=0.9, nesterov=True), data),
        (Lion(1e-3), data),
        (Muon(lr=2e-2, others=AdamW(1e-2)), data),
        (Dion(lr=2e-2, others=AdamW(1e-2), rank=0.5), data),
        (Scion(lr=1e-2, radius=2.0, rest_radius=1.0, constrained=True), data),
        *(
            pytest.param(rule, data, marks=needs(module))
            for module, rule in {
                "adam_atan2_pytorch": AdamAtan2(1e-2),
                "schedulefree": ScheduleFree(1e-2),
                "prodigyopt": Prodigy(start=1e-3),
            }.items()
        ),
        *(
            pytest.param(rule, data, marks=needs("pytorch_optimizer"))
            for rule in (
                Shampoo(1e-2, AdamW(1e-2), momentum=0.9),
                SOAP(1e-2, AdamW(1e-2), every=3),
            )
        ),
    ],
    ids=[
        *("adamw", "dataloader", "sgd", "lion", "muon", "dion", "scion"),
        *("adam-atan2", "schedule-free", "prodigy", "shampoo", "soap"),
    ],
)
def test_a_run_killed_at_random_updates_equals_an_uninterrupted_one_to_the_last_bit(
    optimizer: UpdateRule, make_data: Any, tmp_path: Path
) -> None:
    """Each is killed 4 times."""
    layout = ParameterLayout.of(Network(8), Network(12))
    settings = dataclasses.replace(
        SETTINGS, examples=700, optimizer=optimizer, checkpoint_updates=3
    )
    models: list[nn.Module] = []
    losses_left = [10**9]

    def make_model(config: Any, scale: Any) -> nn.Module:
        models.append(Network())
        return models[-1]

    def mortal_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        losses_left[0] -= 1
        if losses_left[0] < 0:
            raise Killed
        return squared_error(model, batch)

    trainer = trainer_for(
        settings,
        make_model=make_model,
        make_data=make_data,
        loss=mortal_loss,
        groups=Parametrized(STANDARD, layout),
    )
    uninterrupted, expected = context(tmp_path / "uninterrupted", seed=7)
    result = trainer(uninterrupted.config, uninterrupted)
    weights = models[-1].state_dict()

    rng = random.Random(str(optimizer))
    reports: list[Report] = []
    for _ in range(4):
        losses_left[0] = rng.randrange(1, 50 if make_data is data else 17)
        ctx, partial = context(tmp_path / "killed", seed=7)
        with pytest.raises(Killed):
            trainer(ctx.config, ctx)
        reports += partial
    losses_left[0] = 10**9
    ctx, partial = context(tmp_path / "killed", seed=7)
    assert without_clock(trainer(ctx.config, ctx)) == without_clock(result)
    for name, weight in models[-1].state_dict().items():
        assert torch.equal(weight, weights[name]), name
    latest = {report.step: report for report in reports + partial}
    for report in expected:
        assert latest[report.step].loss == report.loss
        assert without_clock(latest[report.step].metrics) == without_clock(report.metrics)


@needs("schedulefree")
def test_a_schedule_free_run_saves_what_it_evaluates_and_trains_on_as_if_it_had_not(
    tmp_path: Path,
) -> None:
    settings = dataclasses.replace(
        SETTINGS, optimizer=ScheduleFree(1e-2), schedule=Constant(warmup=5)
    )
    ends = set()
    for evaluations in (1, 8):
        models: list[nn.Module] = []

        def make_model(config: Any, scale: Any, made: list[nn.Module] = models) -> nn.Module:
            made.append(nn.Linear(6, 1))
            return made[-1]

        trainer = trainer_for(
            dataclasses.replace(settings, evaluations=evaluations), make_model=make_model
        )
        ctx, reports = context(tmp_path / str(evaluations), fidelity=evaluations)
        trainer(ctx.config, ctx)
        ends.add(tuple(models[0].state_dict()["weight"].flatten().tolist()))
        saved = ctx.load()
        evaluated = nn.Linear(6, 1)
        evaluated.load_state_dict(saved["model"])
        loss = float(squared_error(evaluated, (ROWS[:60], TARGETS[:60])).detach())
        assert loss == pytest.approx(reports[-1].loss, rel=1e-5)
        assert torch.equal(saved["trained"][0], models[0].state_dict()["weight"])
        assert not torch.equal(saved["trained"][0], saved["model"]["weight"])
    assert len(ends) == 1


KILLED = """
    import os, random, signal, sys, threading
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    import torch
    import torch.utils.flop_counter  # loaded at the first update; every child would load it again
    torch.set_num_threads(1)
    from test_trainer import SETTINGS, context, dataclasses, trainer_for, without_clock
    folder = Path(sys.argv[1])
    settings = dataclasses.replace(SETTINGS, examples=8_000, checkpoint_updates=7)

    def train(name, patience):
        # In a child of its own; returns what it wrote, or None if it was killed.
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            ctx, _ = context(folder / name, seed=7)
            if patience > 0:
                threading.Timer(patience, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
            result = without_clock(trainer_for(settings)(ctx.config, ctx))
            line = str(sorted((key, value.hex()) for key, value in result.items()))
            os.write(write, line.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            return None
        assert status == 0 and text, status
        return text

    uninterrupted = train("uninterrupted", 0.0)
    rng, kills = random.Random(0), 0
    while kills < 20:
        result = train("killed", rng.uniform(0.05, 0.4))
        kills += result is None
        if result is not None:  # the run ended: start another
            assert result == uninterrupted
            for file in (folder / "killed").iterdir():
                file.unlink()
    assert train("killed", 0.0) == uninterrupted
    print(kills)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the process that is killed")
def test_twenty_real_kills_change_nothing(tmp_path: Path) -> None:
    """One process loads torch and forks a child for each run, which dies by SIGKILL."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLED)]
    done = subprocess.run(
        [*command, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["20"]


def test_a_run_in_stages_equals_the_run_in_one_go() -> None:
    """The check that a study itself makes before it lets a scheduler pause runs."""
    space = {"lr": Float(1e-3, 1e-1, log=True), "epochs": Fidelity(1, 4)}

    def settings(config: Mapping[str, Any]) -> Settings:
        return dataclasses.replace(
            SETTINGS,
            examples=90 * config["epochs"],
            evaluations=config["epochs"],
            optimizer=AdamW(config["lr"]),
            schedule=Constant(warmup=5),
        )

    trainer = trainer_for(settings=settings)
    found = check_continuation(trainer, space, {"lr": 1e-2, "epochs": 4})
    assert found.passed and found.resumed and found.difference == 0, str(found)


def test_a_clone_continues_with_its_own_rates(tmp_path: Path) -> None:
    """The parent's checkpoint must not undo what population-based training changed."""
    short = dataclasses.replace(SETTINGS, evaluations=1, schedule=Constant())
    ctx, _ = context(tmp_path, fidelity=1)
    trainer_for(short)(ctx.config, ctx)
    seen: list[float] = []
    changed = dataclasses.replace(
        short, evaluations=2, examples=800, optimizer=AdamW(5e-3, weight_decay=0.0)
    )

    def watched(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return squared_error(model, batch)

    class Watching(AdamW):
        def build(self, groups: Any) -> tuple[torch.optim.Optimizer, ...]:
            (optimizer,) = AdamW.build(self, groups)
            optimizer.register_step_pre_hook(
                lambda rule, *_: seen.extend(g["lr"] for g in rule.param_groups)
            )
            return (optimizer,)

    clone = dataclasses.replace(changed, optimizer=Watching(5e-3))
    ctx, _ = context(tmp_path, fidelity=2)
    trainer_for(clone, loss=watched)(ctx.config, ctx)
    assert set(seen) == {5e-3}


def test_another_length_is_refused_if_the_schedule_follows_the_length(tmp_path: Path) -> None:
    ctx, _ = context(tmp_path, fidelity=4)
    trainer_for()(ctx.config, ctx)
    longer = dataclasses.replace(SETTINGS, examples=800)
    ctx, _ = context(tmp_path, fidelity=4)
    with pytest.raises(ValueError, match="depends on the length"):
        trainer_for(longer)(ctx.config, ctx)


def test_evaluations_other_than_the_level_are_refused(tmp_path: Path) -> None:
    ctx, _ = context(tmp_path, fidelity=3)
    with pytest.raises(ValueError, match="evaluations must be the level"):
        trainer_for()(ctx.config, ctx)


# --- what an update is ---------------------------------------------------------------------------


def test_accumulated_gradients_equal_those_of_the_whole_batch() -> None:
    def plain(config: Any, scale: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()

    def precise(config: Any, split: Split) -> Any:
        if split is Split.VALIDATION:
            return [(ROWS.double(), TARGETS.double())]
        return Shuffled([ROWS.double(), TARGETS.double()])

    losses = {
        trainer_for(
            dataclasses.replace(SETTINGS, micro_batch=micro, optimizer=SGD(0.1)),
            make_model=plain,
            make_data=precise,
        ).train({})["loss"]
        for micro in (None, 1, 3, 7)
    }
    assert max(losses) == pytest.approx(min(losses), rel=1e-12)


def test_training_equals_a_plain_loop() -> None:
    """With the same data and rates, a loop in plain torch gives the same weights."""
    settings = dataclasses.replace(SETTINGS, micro_batch=None, examples=95)
    models: list[nn.Module] = []

    def make_model(config: Any, scale: Any) -> nn.Module:
        models.append(nn.Linear(6, 1))
        return models[-1]

    trainer_for(settings, make_model=make_model).train({}, seed=3)
    torch.manual_seed(3)
    model = nn.Linear(6, 1)
    optimizer = torch.optim.AdamW(
        [{"params": [model.weight], "weight_decay": 0.01}, {"params": [model.bias]}],
        lr=1e-2,
        weight_decay=0.0,
        fused=True,
    )
    source = Shuffled([ROWS, TARGETS])
    for step in range(10):
        count = 10 if step < 9 else 5  # the last update takes what is left
        loss = squared_error(model, source.batch(10 * step, count, seed=3))  # type: ignore[arg-type]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * Cosine().share(step + 0.5 * count / 10, 9.5)
        optimizer.step()
    assert torch.equal(model.weight, models[-1].weight)
    assert torch.equal(model.bias, models[-1].bias)


def test_the_seed_determines_the_run_and_global_generators_are_restored() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index,union-attr]
    once, again, other = (without_clock(trainer_for().train({}, seed=s)) for s in (0, 0, 1))
    assert once == again
    assert once["loss"] != other["loss"]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index,union-attr]
    assert random.getstate() == before[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")  # in torch
def test_a_compiled_model_learns_equally_well() -> None:
    plain, compiled = (
        trainer_for(
            # Pieces of one size, since every new size is compiled again.
            dataclasses.replace(SETTINGS, micro_batch=5),
            compile=compiled,
            make_model=lambda config, scale: nn.Linear(6, 1),
        ).train({})["loss"]
        for compiled in (False, True)
    )
    assert compiled == pytest.approx(plain, rel=1e-3)


def test_bfloat16_is_close_to_float32() -> None:
    from hpo.training.trainer import Precision

    exact, rough = (
        trainer_for(precision=precision).train({})["loss"]
        for precision in (Precision.FLOAT32, Precision.BFLOAT16)
    )
    assert exact != rough
    assert rough == pytest.approx(exact, rel=0.2)


# --- what is reported ----------------------------------------------------------------------------


def test_reports_number_the_evaluations_and_carry_all_figures() -> None:
    ctx, reports = context(None)
    result = trainer_for(
        measure=lambda model, batch: {"bias": (model(batch[0]) - batch[1]).mean()}
    )(ctx.config, ctx)
    assert [report.step for report in reports] == [1, 2, 3, 4]
    for name in ("train_loss", "gradient_norm", "gradient_norm_max", "clipped", "weight_norm"):
        assert all(math.isfinite(report.metrics[name]) for report in reports)
    last = reports[-1]
    assert last.loss == result["loss"] and last.cost == result["cost"]
    assert last.metrics["bias"] == result["bias"]
    assert last.metrics["activation_max"] > 0
    assert [report.metrics["examples"] for report in reports] == [100, 200, 300, 400]


def test_reports_carry_the_size_of_weights_and_of_their_last_update() -> None:
    ctx, reports = context(None)
    models: list[nn.Module] = []

    def make_model(config: Any, scale: Any) -> nn.Module:
        models.append(nn.Linear(6, 1))
        return models[-1]

    rate = 1e-2
    settings = dataclasses.replace(SETTINGS, optimizer=Lion(rate, 0.0), schedule=Constant())
    trainer_for(settings, make_model=make_model, peak_flops=1e3)(ctx.config, ctx)
    last = reports[-1].metrics
    # Lion moves every entry by the learning rate.
    assert last["update_rms_input"] == pytest.approx(rate, rel=1e-4)
    assert last["update_rms_vector"] == pytest.approx(rate, rel=1e-4)
    weight = models[0].weight.detach()
    assert last["weight_rms_input"] == pytest.approx(float(weight.square().mean().sqrt()))
    assert last["readout_norm"] == pytest.approx(float(weight.norm() * 6**0.5))
    work = last["flops"] / last["examples"]
    assert last["mfu"] == pytest.approx(last["tokens_per_second"] * work / 1e3)
    with pytest.raises(
        ValueError, match="`peak_flops` of TorchTrainer must be a finite number above 0"
    ):
        trainer_for(peak_flops=0.0)


def test_reports_carry_the_logits_of_attention_and_the_normalizer_of_the_output() -> None:
    """Computed by hand from what the model is given; masked logits do not count."""
    q, k = torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[3.0], [50.0]]]])
    recorder = LogitRecorder()
    with recorder:
        F.scaled_dot_product_attention(q, k.clone(), k.clone(), is_causal=True, scale=0.5)
        F.cross_entropy(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1]))
    assert recorder.metrics()["attention_logit_max"] == 50.0  # 2 x 50 / 2, not 1 x 50 / 2
    assert recorder.metrics()["log_z"] == pytest.approx(math.log(2) + 0.5)
    mask = torch.tensor([[True, False], [True, False]])
    masked = LogitRecorder()
    with masked:
        F.scaled_dot_product_attention(q, k, k, attn_mask=mask, scale=-1.0)
    assert masked.metrics() == {"attention_logit_max": 6.0}

    shape = TransformerShape(width=16, depth=1, heads=2, hidden=32)
    text = torch.randint(0, 256, (200,), generator=torch.Generator().manual_seed(0))
    ctx, reports = context(None)
    trainer_for(
        make_model=lambda c, s: Transformer(shape, context=8, rng=torch.Generator().manual_seed(0)),
        make_data=lambda c, split: (
            Windows(text, 9) if split is Split.TRAIN else [text[:180].view(-1, 9)]
        ),
        loss=next_byte_loss,
    )(ctx.config, ctx)
    assert reports[-1].metrics["attention_logit_max"] > 0
    assert 4 < reports[-1].metrics["log_z"] < 12


def test_flops_are_counted_by_torch_without_changing_the_run() -> None:
    from hpo.training.accounting import Work

    counted = trainer_for().train({})
    given = trainer_for(work=lambda model, batch: Work(1.0, 1.0)).train({})
    assert counted["loss"] == given["loss"]
    # Three layers, 6 x 8, 8 x 8 and 8 x 1; no gradient of the inputs of the first.
    assert counted["flops"] == 400 * 2 * (3 * (48 + 64 + 8) - 48)


@pytest.mark.parametrize("quantity", [q for q in Quantity if q is not Quantity.ENERGY])
def test_every_quantity_may_be_the_cost(quantity: Quantity) -> None:
    result = trainer_for(cost=quantity).train({})
    if quantity not in (Quantity.SECONDS, Quantity.PEAK_MEMORY):
        assert result["cost"] == result[quantity.value]
    assert result["cost"] > 0


def test_energy_without_a_meter_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there may be one")
    with pytest.raises(ValueError, match="nvidia-ml-py"):
        trainer_for(cost=Quantity.ENERGY).train({})


def test_everything_is_stored_on_the_trial() -> None:
    result = optimize(
        trainer_for(settings=lambda c: dataclasses.replace(SETTINGS, optimizer=AdamW(c["lr"]))),
        {"lr": Float(1e-3, 1e-1, log=True, role=Role.LR)},
        budget=Budget(trials=2),
        cost="flops",
    )
    for observation in result.log.observations:
        assert observation.cost == observation.metrics["flops"]
        assert observation.metrics["params"] == 6 * 8 + 8 + 8 * 8 + 8 + 16 + 8 + 1
        assert observation.metrics["seconds"] > 0
        assert observation.metrics["peak_memory"] > 1e6


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_run_that_overflows_ends_early_as_diverged() -> None:
    wild = dataclasses.replace(SETTINGS, examples=4000, optimizer=SGD(1e3, momentum=0.0), clip=None)
    result = trainer_for(wild).train({})
    assert math.isnan(result["loss"])
    assert result["examples"] < 1000
    recorded = optimize(
        trainer_for(wild), {"x": Float(0, 1)}, budget=Budget(trials=1), cost="flops"
    )
    assert recorded.log.observations[0].cause is Cause.DIVERGED


def test_a_loss_that_grows_without_overflow_counts_as_divergence() -> None:
    """The loss is bounded by a sigmoid, so it is never infinite; it rises and stays high."""

    class Level(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.level = nn.Parameter(torch.tensor([-2.0]))

        def forward(self, x: Tensor) -> Tensor:
            height = torch.sigmoid(self.level).mean()
            return 2 * height.detach() - height  # the height, with the opposite gradient

    trainer = trainer_for(
        dataclasses.replace(SETTINGS, examples=4000, optimizer=SGD(1.0), schedule=Constant()),
        make_model=lambda config, scale: Level(),
        loss=lambda model, batch: model(batch[0]),
    )
    result = trainer.train({})
    assert math.isnan(result["loss"])
    assert result["examples"] < 4000


HUNGRY = """
    import resource
    import torch
    from torch import nn
    from hpo.training.data import Shuffled, Split, Windows
    from hpo.training.optimizers import SGD
    from hpo.training.trainer import Settings, TorchTrainer

    rows = torch.randn(64, 32)

    def data(config, split):
        return Shuffled([rows]) if split is Split.TRAIN else [(rows[:8],)]

    class Wide(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.grow = nn.Linear(32, width)

        def forward(self, x):
            y = self.grow(x)
            return (y[:, :, None] * y[:, None, :64]).square().mean()

    trainer = TorchTrainer(
        make_model=lambda config, scale: Wide(config["width"]),
        make_data=data,
        loss=lambda model, batch: model(batch[0]),
        settings=lambda config: Settings(32, 32, SGD(1e-3), evaluations=1),
    )
    trainer.train({"width": 64})  # torch loads some modules at the first update
    status = open("/proc/self/status").read()
    used = 1024 * int(status.split("VmData:")[1].split()[0])
    resource.setrlimit(resource.RLIMIT_DATA, (used + 500 * 2**20, resource.RLIM_INFINITY))
    for _ in range(2):
        try:
            trainer.train({"width": 200_000})  # 1.6 GB for the product alone
            print("no limit")
        except MemoryError as error:
            print("oom" if "out of memory on cpu" in str(error) else error)
        print(trainer.train({"width": 10_000})["loss"] > 0)  # 80 MB and its gradients
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits data segments as Linux does")
def test_memory_is_free_again_after_running_out_of_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HUNGRY)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["oom", "True"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="limits data segments as Linux does")
def test_a_trial_over_its_memory_limit_is_recorded_as_out_of_memory() -> None:
    result = optimize(
        trainer_for(make_model=lambda config, scale: Network(60_000)),
        {"x": Float(0, 1)},
        budget=Budget(trials=1, per_trial=Limits(memory=2**30)),
    )
    (observation,) = result.log.observations
    assert observation.status is Status.FAILED
    assert observation.cause is Cause.OOM


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_device_memory_is_free_again_after_running_out_of_it() -> None:
    free, _ = torch.cuda.mem_get_info()
    width = math.isqrt(free // 4)
    hungry = trainer_for(
        dataclasses.replace(SETTINGS, micro_batch=None),
        make_model=lambda config, scale: nn.Sequential(
            nn.Linear(6, width), nn.Linear(width, width)
        ),
        device=torch.device("cuda"),
    )
    with pytest.raises(MemoryError, match="out of memory on cuda"):
        hungry.train({})
    assert torch.cuda.memory_allocated() < 2**20


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"examples": 0}, "`examples`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"micro_batch": 0}, "`micro_batch`"),
        ({"clip": 0.0}, "`clip`"),
        ({"divergence": 1.0}, "`divergence`"),
    ],
)
def test_a_setting_out_of_range_is_named(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(SETTINGS, **change)


def test_unusable_data_is_refused() -> None:
    with pytest.raises(TypeError, match="Shuffled"):
        trainer_for(make_data=lambda config, split: 5).train({})
    with pytest.raises(ValueError, match="return a list"):
        trainer_for(
            make_data=lambda config, split: data(config, split) if split is Split.TRAIN else []
        ).train({})


# --- branches ------------------------------------------------------------------------------------


def _branching(optimizer: UpdateRule, make_data: Any = data, **changes: Any) -> TorchTrainer:
    schedule = WarmupStableDecay(warmup=5, decay=0.2, beta2=0.99, shape=Cooldown.LINEAR)

    def settings(config: Mapping[str, Any]) -> Settings:
        return dataclasses.replace(
            SETTINGS, examples=config["examples"], optimizer=optimizer, schedule=schedule, **changes
        )

    return trainer_for(settings=settings, make_data=make_data)


@pytest.mark.parametrize(
    ("optimizer", "make_data"),
    [(AdamW(1e-2, 0.1), data), (AdamW(1e-2), loader), (SGD(1e-2, momentum=0.9), data)],
    ids=["adamw", "dataloader", "sgd"],
)
def test_branches_equal_separate_runs_to_the_last_bit(
    optimizer: UpdateRule, make_data: Any
) -> None:
    trainer = _branching(optimizer, make_data, evaluations=3)
    horizons = [158, 400, 210, 306]
    branches = trainer.branch({}, examples=horizons, seed=4)
    assert [branch.horizon for branch in branches] == sorted(horizons)
    for branch in branches:
        alone = trainer.train({"examples": branch.horizon}, seed=4)
        assert branch.loss == alone["loss"]
        assert branch.metrics["examples"] == alone["examples"] == branch.horizon


def test_a_branch_costs_what_it_took_beyond_the_ones_before() -> None:
    """Four horizons: the stable part of the longest, and every cooldown."""
    trainer = dataclasses.replace(_branching(AdamW(1e-2)), cost=Quantity.EXAMPLES)
    branches = trainer.branch({}, examples=[100, 200, 300, 400])
    assert [branch.cost for branch in branches] == [80 + 20, 80 + 40, 80 + 60, 80 + 80]
    assert sum(branch.cost for branch in branches) == 0.8 * 400 + 0.2 * 1000
    assert sum(branch.cost for branch in branches) <= 0.6 * 1000


def test_branches_end_with_the_run_that_diverged() -> None:
    trainer = _branching(SGD(1e3), clip=None)
    (only,) = trainer.branch({}, examples=[100, 200])
    assert math.isnan(only.loss) and only.cost > 0


def test_runs_that_are_no_part_of_each_other_have_no_branches() -> None:
    trainer = _branching(AdamW(1e-2))
    with pytest.raises(ValueError, match="one axis must be given"):
        trainer.branch({})
    with pytest.raises(ValueError, match="`examples` must be a list or tuple that is not empty"):
        trainer.branch({}, examples=[])
    with pytest.raises(ValueError, match="need the schedule WarmupStableDecay"):
        trainer_for().branch({}, examples=[100])
    batches = dataclasses.replace(
        trainer,
        settings=lambda c: dataclasses.replace(trainer.settings(c), batch_size=c["examples"]),
    )
    with pytest.raises(ValueError, match="must differ in `examples` alone"):
        batches.branch({}, examples=[100, 200])


HORIZONS = [158, 210, 400]
LAYERS = Parametrized(STANDARD, ParameterLayout.of(Network(), Network(16)))


def _trial_of_branches(trainer: TorchTrainer, folder: Path) -> tuple[dict[str, Any], list[Report]]:
    """What `branch_trial` returns, and its reports."""
    trial = Trial(0, {"examples": HORIZONS[-1]}, ask_index=0, prediction=None)
    channel = Recorder()
    ctx = Context(trial, seed=4, channel=channel, checkpoint_dir=folder)
    return trainer.branch_trial(ctx.config, ctx, examples=HORIZONS), channel.reports


@pytest.mark.parametrize(
    "rule", [AdamW(1e-2, 0.1), Muon(1e-2, others=AdamW(1e-2))], ids=["adamw", "muon"]
)
def test_a_trial_tells_its_branches_also_when_it_was_killed_on_the_way(
    rule: UpdateRule, tmp_path: Path
) -> None:
    trainer = dataclasses.replace(
        _branching(rule, checkpoint_updates=7), cost=Quantity.EXAMPLES, groups=LAYERS
    )
    expected = trainer.branch({}, examples=HORIZONS, seed=4)
    whole, reports = _trial_of_branches(trainer, tmp_path / "whole")
    assert whole["branches"] == [
        {"examples": one.horizon, "loss": one.loss} for one in expected[:2]
    ]
    assert whole["loss"] == expected[-1].loss
    assert whole["cost"] == sum(one.cost for one in expected)
    assert [report.loss for report in reports] == [one.loss for one in expected[:2]]

    losses_left = [0]

    def mortal_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        losses_left[0] -= 1
        if losses_left[0] < 0:
            raise Killed
        return squared_error(model, batch)

    mortal = dataclasses.replace(trainer, loss=mortal_loss)
    for losses_left[0] in (10, 40, 40, 40, 35):  # in stable parts and in cooldowns
        with pytest.raises(Killed):
            _trial_of_branches(mortal, tmp_path / "killed")
    losses_left[0] = 10**9
    killed, _ = _trial_of_branches(mortal, tmp_path / "killed")
    assert without_clock(killed) == without_clock(whole)


def test_branches_of_a_trial_are_kept_in_its_study_and_charged_once() -> None:
    trainer = dataclasses.replace(_branching(AdamW(1e-2)), cost=Quantity.EXAMPLES)
    whole = dataclasses.replace(
        trainer, settings=lambda c: trainer.settings({"examples": 10 * round(c["examples"] / 10)})
    )

    def train(config: dict[str, Any], ctx: Context) -> dict[str, Any]:
        length = config["examples"]
        return whole.branch_trial(config, ctx, examples=[length / 4, length / 2, length])

    space = {"x": Float(0, 1), "examples": Scale(200, 400)}
    result = optimize(train, space, cost="examples", budget=Budget(trials=2))
    for told in result.log.observations:
        length = told.config["examples"]
        assert [one.sizes for one in told.branches] == [
            {"examples": length / 4},
            {"examples": length / 2},
        ]
        assert told.cost is not None and told.cost < 1.2 * length
    assert len(result.models.law_runs) == 6


def test_a_trial_without_a_horizon_of_its_own_has_no_branches(tmp_path: Path) -> None:
    trainer = _branching(AdamW(1e-2))
    trial = Trial(0, {"examples": 400}, ask_index=0, prediction=None)
    ctx = Context(trial, seed=0, channel=None)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="largest value of `examples` must be the trial's own, 400"
    ):
        trainer.branch_trial(ctx.config, ctx, examples=[100, 200])
    ctx = Context(trial, seed=0, channel=None, fidelity=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must run to its end, got the fidelity 3"):
        trainer.branch_trial(ctx.config, ctx, examples=[100, 400])


def test_a_trial_that_diverges_tells_the_branches_before(tmp_path: Path) -> None:
    trainer = _branching(SGD(1e3), clip=None)
    told, _ = _trial_of_branches(trainer, tmp_path)
    assert math.isnan(told["loss"]) and told["branches"] == [] and told["cost"] > 0


def test_how_often_a_run_is_evaluated_does_not_change_it() -> None:
    """Although a loader of validation data draws from the global generator."""

    def shuffled(config: Any, split: Split) -> Any:
        return DataLoader(TensorDataset(ROWS, TARGETS), batch_size=10, shuffle=True)

    losses = {
        trainer_for(dataclasses.replace(SETTINGS, evaluations=n), make_data=shuffled).train({})[
            "loss"
        ]
        for n in (1, 2, 8)
    }
    assert len(losses) == 1


# --- range test ----------------------------------------------------------------------------------


def test_a_range_test_finds_the_rates_at_which_training_succeeds() -> None:
    """On a quadratic bowl plain gradient descent is stable up to 2 / curvature."""
    trainer = trainer_for(
        dataclasses.replace(
            SETTINGS,
            examples=10_000,
            optimizer=SGD(1e-3, momentum=0.0),
            clip=None,
            micro_batch=None,
        ),
        make_model=lambda config, scale: nn.Linear(6, 1),
    )
    found = trainer.range_test({}, lowest=1e-2, highest=1e5, updates=200)
    # The mean of squares has curvature 2 E[x^2], about 2 in each of six directions.
    assert 0.001 < found.halfway < found.lowest < 2.0
    low, high = found.box
    assert low < found.halfway < found.lowest < high
    assert len(found.share) == len(found.loss) < 200  # it ended where training diverged
    assert found.loss[0] > found.loss.min()


def _bowl(examples: int) -> TorchTrainer:
    return trainer_for(
        dataclasses.replace(
            SETTINGS,
            examples=examples,
            optimizer=SGD(1e-3, momentum=0.0),
            clip=None,
            micro_batch=None,
        ),
        make_model=lambda config, scale: nn.Linear(6, 1),
    )


def test_a_range_test_of_a_short_run_covers_the_whole_range_of_rates() -> None:
    batch = SETTINGS.batch_size
    short = _bowl(40 * batch).range_test({}, lowest=1e-2, highest=1e5, updates=200)
    whole = _bowl(400 * batch).range_test({}, lowest=1e-2, highest=1e5, updates=200)
    assert len(short.loss) < 40  # it came to where training diverged
    assert 0.2 < short.lowest / whole.lowest < 5


@pytest.mark.parametrize(
    ("lowest", "highest", "message"),
    [
        (1e-2, 1.0, r"lowest at the last rate, 0\.001, and may fall further; raise `highest`"),
        (900.0, 1800.0, r"lowest at the first rate, 0\.9, and rose from there; reduce `lowest`"),
    ],
)
def test_a_range_test_that_has_its_minimum_at_an_end_says_so(
    lowest: float, highest: float, message: str
) -> None:
    with pytest.warns(UserWarning, match=message):
        _bowl(100 * SETTINGS.batch_size).range_test({}, lowest=lowest, highest=highest)


def test_a_loader_of_any_batch_size_gives_the_updates_that_the_settings_ask_for() -> None:
    """And what is counted is what was trained on."""

    def from_loader(size: int) -> dict[str, float]:
        def make_data(config: Any, split: Split) -> Any:
            return DataLoader(TensorDataset(ROWS, TARGETS), batch_size=size)

        settings = dataclasses.replace(SETTINGS, examples=240, batch_size=20, micro_batch=None)
        linear = trainer_for(
            settings, make_data=make_data, make_model=lambda config, scale: nn.Linear(6, 1)
        )
        return linear.train({})

    expected = from_loader(20)
    assert expected["examples"] == 240
    for size in (5, 10, 16, 60):
        found = from_loader(size)
        assert found["examples"] == 240 and found["flops"] == expected["flops"]
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)


# --- weights of an earlier run -------------------------------------------------------------------


def _studied(trainer: TorchTrainer, seen: list[Any] | None = None, **how: Any) -> Any:
    def train(config: Any, ctx: Context) -> dict[str, float]:
        if seen is not None:
            seen.append(ctx.parent_checkpoint)
        return trainer(config, ctx)

    space = {"lr": Float(1e-4, 1e-1, log=True, role=Role.LR)}
    return optimize(train, space, budget=Budget(trials=4), cost="flops", **how)


def _warm_trainer(share: float, **changes: Any) -> TorchTrainer:
    def settings(config: Mapping[str, Any]) -> Settings:
        return dataclasses.replace(SETTINGS, optimizer=AdamW(config["lr"]))

    return trainer_for(settings=settings, warm_start=share, **changes)


def test_a_warm_start_starts_from_the_weights_of_the_best_run_so_far() -> None:
    begun: list[dict[str, Tensor]] = []

    def watched(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        if model.training and len(begun) < len(parents):
            begun.append({name: w.clone() for name, w in model.state_dict().items()})
        return squared_error(model, batch)

    parents: list[Any] = []
    trainer = _warm_trainer(1.0, loss=watched)
    result = _studied(trainer, parents, warm_start=True)
    assert parents[0] is None and all(parent is not None for parent in parents[1:])
    done = result.log.observations
    assert [o.metrics["warm_started"] for o in done] == [0.0, 1.0, 1.0, 1.0]
    for parent, weights in zip(parents[1:], begun[1:], strict=True):
        for name, weight in parent["model"].items():
            assert torch.equal(weight, weights[name]) or not weight.is_floating_point()
    assert min(o.loss for o in done[1:]) < done[0].loss


def test_the_parent_is_the_best_in_the_users_direction() -> None:
    def train(config: Mapping[str, Any], ctx: Context) -> float:
        parents.append(ctx.parent_checkpoint)
        ctx.save(config["x"])
        return float(config["x"])

    parents: list[float | None] = []
    result = optimize(
        train,
        {"x": Float(0, 1)},
        budget=Budget(trials=8),
        direction="maximize",
        warm_start=True,
        confirm=1,
    )
    losses = [o.loss for o in result.log.observations]
    best = [max(losses[:n]) for n in range(1, 8)]
    assert parents == [None, *best, None]  # a confirmation run has no parent


def test_a_resumed_study_still_has_the_best_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def train(config: Mapping[str, Any], ctx: Context) -> float:
        parents.append(ctx.parent_checkpoint)
        ctx.save(config["x"])
        return float(config["x"])

    parents: list[float | None] = []
    for trials in (3, 4):
        budget = Budget(trials=trials)
        result = optimize(train, {"x": Float(0, 1)}, budget=budget, warm_start=True, name="n")
    assert len(parents) == 4
    assert parents[3] == min(o.config["x"] for o in result.log.observations[:3])


def test_without_the_option_no_trial_sees_another() -> None:
    parents: list[Any] = []
    _studied(_warm_trainer(1.0), parents)
    assert parents == [None] * 4


def test_only_weights_of_the_same_name_and_shape_are_copied(tmp_path: Path) -> None:
    wide = Network(width=12)
    save_state(tmp_path, {"model": wide.state_dict()}, seconds=1.0)
    (tmp_path / "state.pt").rename(tmp_path / "parent.pt")
    ctx, _ = context(tmp_path)
    found = trainer_for(warm_start=1.0)(ctx.config, ctx)
    shared = 1  # the bias of the output layer is the only tensor that does not grow
    assert found["warm_started"] == shared / sum(w.numel() for w in Network().parameters())


def test_a_partial_warm_start_shrinks_and_perturbs_the_parents_weights(tmp_path: Path) -> None:
    models: list[Network] = []

    def make_model(config: Any, scale: Any) -> Network:
        models.append(Network())
        fresh.append({name: w.clone() for name, w in models[-1].state_dict().items()})
        return models[-1]

    fresh: list[dict[str, Tensor]] = []
    parent = Network()
    save_state(tmp_path, {"model": parent.state_dict()}, seconds=1.0)
    (tmp_path / "state.pt").rename(tmp_path / "parent.pt")
    ctx, _ = context(tmp_path)
    still = dataclasses.replace(SETTINGS, optimizer=SGD(1e-30))
    trainer_for(still, make_model=make_model, warm_start=0.4)(ctx.config, ctx)
    expected = 0.6 * fresh[0]["first.weight"] + 0.4 * parent.first.weight
    assert torch.allclose(models[0].first.weight, expected)


def test_a_warm_start_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match="warm_start"):
        trainer_for(warm_start=1.5)


def test_a_clone_sees_its_parents_checkpoint_even_after_its_own_first_save() -> None:
    def train(config: Mapping[str, Any], ctx: Context) -> float:
        begun = ctx.load()
        state = dict(begun or {"run": ctx.trial.number, "epochs": 0})
        if begun is not None and begun["run"] != ctx.trial.number:  # a clone's first stage
            assert ctx.parent_checkpoint == begun
            cloned.append(ctx.trial.number)
            state["run"] = ctx.trial.number
        elif ctx.parent_checkpoint is not None:  # a later stage of it
            assert ctx.parent_checkpoint["run"] != ctx.trial.number
            later.append(ctx.trial.number)
        for epoch in range(state["epochs"] + 1, config["epochs"] + 1):
            state["epochs"] = epoch
            ctx.save(state)
            ctx.report(step=epoch, loss=abs(config["x"] - 0.3) + 1 / epoch)
        return abs(float(config["x"]) - 0.3) + 1 / state["epochs"]

    cloned: list[int] = []
    later: list[int] = []
    space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
    optimize(train, space, budget=Budget(trials=100), scheduler=PBT(population=4, interval=2))
    assert later and set(later) <= set(cloned)
