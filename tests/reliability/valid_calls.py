"""A valid call of every public name, and values that hardly any call expects."""

from __future__ import annotations

import inspect
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

import hpo
from hpo import Axis, Budget, Categorical, Cause, Fidelity, Float, Int, Role, Scale, Status
from hpo.schedulers import ASHA
from hpo.space import Parameter

__all__ = ["HOSTILE", "NUMBERS", "Call", "quick_calls", "slow_calls"]


class Unprintable:
    """An object of no use to anyone, whose text is an error."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


#: Values by what they are, each made anew.
HOSTILE: dict[str, Callable[[], Any]] = {
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "1e308": lambda: 1e308,
    "10**400": lambda: 10**400,
    "-(10**400)": lambda: -(10**400),
    "-1": lambda: -1,
    "-0.5": lambda: -0.5,
    "0": lambda: 0,
    "0.0": lambda: 0.0,
    "1.5": lambda: 1.5,
    "True": lambda: True,
    "False": lambda: False,
    "None": lambda: None,
    "''": lambda: "",
    "'0,1'": lambda: "0,1",
    "'nan'": lambda: "nan",
    "b'ab'": lambda: b"ab",
    "[]": lambda: [],
    "[None]": lambda: [None],
    "['a', 1]": lambda: ["a", 1],
    "[1.5]": lambda: [1.5],
    "(nan, nan)": lambda: (math.nan, math.nan),
    "{}": lambda: {},
    "{1: 2}": lambda: {1: 2},
    "{'lr': None}": lambda: {"lr": None},
    "{'lr': 'text'}": lambda: {"lr": "text"},
    "{'params': nan}": lambda: {"params": math.nan},
    "set()": lambda: set(),
    "{'a', 'b'}": lambda: {"a", "b"},
    "generator": lambda: (value for value in (1, 2)),
    "array": lambda: np.ones((2, 2)),
    "empty array": lambda: np.ones(0),
    "object array": lambda: np.array([None, "a"], dtype=object),
    "np.nan": lambda: np.float64("nan"),
    "np.True_": lambda: np.True_,
    "tensor": lambda: torch.ones(3),
    "nan tensor": lambda: torch.tensor(math.nan),
    "complex": lambda: 1j,
    "Decimal('sNaN')": lambda: Decimal("sNaN"),
    "object()": lambda: object(),
    "unprintable": lambda: Unprintable(),
    "type": lambda: int,
    "module": lambda: math,
}

#: A valid number in the types that stand for one.
NUMBERS: dict[str, Callable[[float], Any]] = {
    "np.int64": np.int64,
    "np.float64": np.float64,
    "0-d array": lambda number: np.array(number),
    "1 x 1 array": lambda number: np.array([[number]]),
    "tensor": lambda number: torch.tensor(number),
    "Fraction": lambda number: Fraction(number),
    "Decimal": lambda number: Decimal(number),
}


@dataclass(frozen=True)
class Call:
    """A valid call.

    Attributes:
        name: name as users write it.
        make: returns the callable, made anew, so that calls do not share a state.
        arguments: valid arguments by name.
        any_value: arguments that may be anything.
    """

    name: str
    make: Callable[[], Callable[..., Any]]
    arguments: Callable[[], Mapping[str, Any]]
    any_value: frozenset[str] = frozenset()

    def parameters(self) -> dict[str, inspect.Parameter]:
        found = inspect.signature(self.make()).parameters
        return {n: p for n, p in found.items() if not n.startswith("_")}


def loss_of(config: dict[str, Any], ctx: hpo.Context) -> float:
    """Training function that reports up to its level and returns a loss."""
    for step in range(1, (ctx.fidelity or 1) + 1):
        cost = None if ctx.fidelity is None else float(step)
        ctx.report(step=step, loss=config["lr"] + 1 / step, cost=cost)
    return float(config["lr"])


LR = Float(1e-4, 1e-1, log=True, role=Role.LR)
PLAIN: dict[str, Parameter] = {"lr": LR, "layers": Int(1, 4), "kind": Categorical(["a", "b"])}
SCALED: dict[str, Parameter] = {"lr": LR, "params": Scale(1e5, 1e7, axis=Axis.PARAMS)}
STAGED: dict[str, Parameter] = {"lr": LR, "epochs": Fidelity(1, 9)}
CONFIG = {"lr": 1e-3, "layers": 2, "kind": "a"}


def told(space: Mapping[str, Parameter] = SCALED, cost: str | None = "flops") -> hpo.Optimizer:
    """Optimizer that has seen a few results."""
    optimizer = hpo.Optimizer(space, cost=cost)
    for lr in (1e-4, 1e-3, 1e-2):
        for params in (1e5, 1e6, 1e7):
            config = {"lr": lr, "params": params}
            optimizer.tell(config, 1.0 + lr + params**-0.3, 6e6 * params)
    return optimizer


def trial() -> hpo.Trial:
    return hpo.Trial(0, dict(CONFIG), 0, None)


class Silent:
    """Channel that lets every run continue."""

    def send(self, report: hpo.Report) -> Any:
        from hpo.schedulers import Decision

        return Decision.CONTINUE


def context() -> hpo.Context:
    return hpo.Context(trial(), seed=0, channel=Silent(), checkpoint_dir=_FOLDER / "checkpoints")


_FOLDER = Path(tempfile.mkdtemp(prefix="scaletune-"))


def staged() -> hpo.StagedOptimizer:
    return hpo.StagedOptimizer(hpo.Optimizer(STAGED), ASHA())


def _named(
    name: str, function: Callable[..., Any], any_value: tuple[str, ...] = (), /, **arguments: Any
) -> Call:
    return Call(name, lambda: function, lambda: arguments, frozenset(any_value))


def _method(
    name: str, make: Callable[[], Any], any_value: tuple[str, ...] = (), /, **arguments: Any
) -> Call:
    method = name.split(".")[-1]
    return Call(name, lambda: getattr(make(), method), lambda: arguments, frozenset(any_value))


def core_calls() -> Iterator[Call]:
    """Calls of the names in `hpo`."""
    rules: tuple[str, ...] = (
        "AdamWTimescale",
        "CompleteP",
        "DeepSeekLaw",
        "DepthMuP",
        "KaplanLR",
        "MuP",
    )
    rules += ("PowerScheduler", "ScalingExponents", "StepLaw", "TimeTransfer", "TokenHorizon")
    for name in (*rules, "WeightDecayTransfer"):
        yield _named(name, getattr(hpo, name))
    yield _named("Slope", hpo.Slope, parameter="lr", scale="params", mean=0.0, sd=0.1, given={})
    yield _named("Level", hpo.Level, parameter="lr", at={"params": 1e6}, value=1e-3, sd=0.5)
    yield _named("ASHA", hpo.ASHA)
    yield _named("FreezeThaw", hpo.FreezeThaw)
    yield _named("Hyperband", hpo.Hyperband)
    yield _named("IterativeDeepening", hpo.IterativeDeepening)
    yield _named("MedianStopping", hpo.MedianStopping)
    yield _named("OneEpoch", hpo.OneEpoch)
    yield _named("PASHA", hpo.PASHA)
    yield _named("PBT", hpo.PBT)
    yield _named("SuccessiveHalving", hpo.SuccessiveHalving)
    yield _named("Budget", hpo.Budget)
    yield _named("Limits", hpo.Limits)
    yield _named("Float", hpo.Float, low=1e-3, high=0.5)
    yield _named("Float of log", hpo.Float, low=1e-3, high=0.5, log=True)
    yield _named("Float without bounds", hpo.Float, center=1.0, spread=1.0)
    yield _named("Int", hpo.Int, low=1, high=8)
    yield _named("Categorical", hpo.Categorical, ("center",), choices=["a", "b"])
    yield _named("Scale", hpo.Scale, low=1e5, high=1e7)
    yield _named("Fidelity", hpo.Fidelity, low=1, high=9)
    yield _named("SearchSpace", hpo.SearchSpace, parameters=PLAIN)
    space = hpo.SearchSpace(PLAIN)
    for method in ("active", "validate", "canonical"):
        yield _method(f"SearchSpace.{method}", lambda: space, config=CONFIG)
    yield _method("SearchSpace.key", lambda: space, config=CONFIG)
    yield _method("SearchSpace.difference", lambda: space, other=space.fingerprint())
    yield _named(
        "SearchSpace.from_fingerprint",
        hpo.SearchSpace.from_fingerprint,
        fingerprint=space.fingerprint(),
    )
    yield _named("ProcessRunner", hpo.ProcessRunner, gpus=[0, 1])
    yield _named("Optimizer", hpo.Optimizer, space=PLAIN)
    yield _named("Optimizer with scale", hpo.Optimizer, space=SCALED, target={"params": 1e9})
    rows = [{"lr": 1e-3, "loss": 2.5}, {"lr": 1e-2, "loss": 2.0}]
    yield _named("read_runs", partial(hpo.read_runs, rows))
    yield _method("Optimizer.add_pending", lambda: hpo.Optimizer(PLAIN), trial=trial())
    yield _method("Optimizer.tell", lambda: hpo.Optimizer(PLAIN), ("loss",), trial=CONFIG, loss=1.0)
    done = hpo.Observation(0, dict(CONFIG), 0.4, 2.0, Status.COMPLETED, None, 0, None)
    yield _method("Optimizer.record", lambda: hpo.Optimizer(PLAIN), observation=done)
    yield Call(
        "StagedOptimizer",
        lambda: hpo.StagedOptimizer,
        lambda: {"optimizer": hpo.Optimizer(STAGED), "scheduler": ASHA()},
    )
    yield Call(
        "Context", lambda: hpo.Context, lambda: {"trial": trial(), "seed": 0, "channel": Silent()}
    )
    yield _method("Context.report", context, ("loss",), step=1, loss=0.5)
    yield _method("Context.finish", context, cost=1.0)
    yield _method("Context.save", context, ("state",), state={"step": 1})
    storage = optuna.storages.InMemoryStorage()
    hpo.optimize(loss_of, PLAIN, budget=Budget(trials=1), name="known", storage=storage)
    yield _named("load_result", hpo.load_result, name="known", storage=storage)


def record_calls() -> Iterator[Call]:
    """Calls of the records."""
    yield _named("Trial", hpo.Trial, number=0, config=CONFIG, ask_index=0, prediction=None)
    yield _named("Report", hpo.Report, ("loss",), step=1)
    yield _named(
        "Observation",
        hpo.Observation,
        number=0,
        config=CONFIG,
        loss=0.5,
        cost=1.0,
        status=Status.COMPLETED,
        cause=None,
        order=0,
        ask_index=0,
    )
    yield _named(
        "Observation of a failure",
        hpo.Observation,
        number=0,
        config=CONFIG,
        loss=None,
        cost=1.0,
        status=Status.FAILED,
        cause=Cause.OOM,
        order=0,
        ask_index=0,
    )
    yield _named(
        "Prediction",
        hpo.Prediction,
        loss=0.5,
        loss_interval=(0.4, 0.6),
        cost=None,
        cost_interval=None,
        success=0.5,
    )
    yield _named("Reason", hpo.Reason, kind=hpo.ReasonKind.EXPLORE)
    done = hpo.Observation(0, dict(CONFIG), 0.4, 2.0, Status.COMPLETED, None, 0, None)
    reason = hpo.Reason(hpo.ReasonKind.EXPLORE)
    predicted = hpo.Prediction(0.5, (0.4, 0.6), None, None, 0.5)
    yield _named("Reason.from_json", hpo.Reason.from_json, stored=reason.to_json())
    yield _named("Report.from_json", hpo.Report.from_json, stored=hpo.Report(1, 0.5).to_json())
    yield _named("Prediction.from_json", hpo.Prediction.from_json, stored=predicted.to_json())
    yield _named(
        "Observation.from_json",
        hpo.Observation.from_json,
        stored=done.to_json(),
        number=0,
        config=CONFIG,
        ask_index=0,
        reports=(),
    )
    yield _method("Observation.same_result", lambda: done, other=done)
    yield _named("Observation.lost", hpo.Observation.lost, trial=trial(), order=0)


def training_calls() -> Iterator[Call]:
    """Calls of the names in `hpo.training`."""
    from hpo.training import accounting, data, optimizers, parametrization, schedules, transformer
    from hpo.training.coordinate_check import load_probe
    from hpo.training.optimizers import LayerRole, Step
    from hpo.training.trainer import Settings, TorchTrainer

    for name in ("Constant", "Power", "Cosine", "Linear", "WarmupStableDecay"):
        schedule = getattr(schedules, name)
        yield _named(name, schedule)
        yield _method(f"{name}.share", schedule, done=1.0, total=10.0)
    yield _named("Exponential", schedules.Exponential, start=1e-3)
    yield _method("Exponential.share", lambda: schedules.Exponential(1e-3), done=1.0, total=10.0)
    adam = optimizers.AdamW(1e-3)
    yield _named("AdamW", optimizers.AdamW, lr=1e-3)
    yield _named("SGD", optimizers.SGD, lr=1e-3)
    yield _named("Lion", optimizers.Lion, lr=1e-3)
    for name in ("Muon", "Dion", "Shampoo", "SOAP"):
        yield _named(name, getattr(optimizers, name), lr=1e-3, others=adam)
    for name in ("Scion", "AdamAtan2", "ScheduleFree"):
        yield _named(name, getattr(optimizers, name), lr=1e-3)
    yield _named("Prodigy", optimizers.Prodigy)
    model = torch.nn.Linear(2, 1)
    yield _named("plain_groups", optimizers.plain_groups, model=model, rule=adam)
    group = optimizers.plain_groups(model, adam)[0]
    yield _named(
        "ParameterGroup",
        optimizers.ParameterGroup,
        names=group.names,
        parameters=group.parameters,
        role=group.role,
    )
    yield _method("AdamW.build", lambda: adam, groups=[group])
    yield _method("AdamW.step_of", lambda: adam, role=LayerRole.HIDDEN)
    yield _named("Growth", parametrization.Growth, role=LayerRole.HIDDEN)
    yield _named("Factors", parametrization.Factors)
    yield _named("MaximalUpdate", parametrization.MaximalUpdate)
    yield _named("PerLayer", parametrization.PerLayer)
    exponents = {"a": (0.0, 0.5, 0.5), "b": (0.0, 0.0, 0.0), "c": (0.0, 0.0, 0.0)}
    yield _named("Exponents", parametrization.Exponents, **exponents)
    yield _named(
        "ABCParametrization",
        parametrization.ABCParametrization,
        sgd=parametrization.NTK.sgd,
        adam=parametrization.NTK.adam,
    )
    for make in (
        parametrization.Standard,
        parametrization.MaximalUpdate,
        parametrization.PerLayer,
        parametrization.UnitScaled,
    ):
        growth = parametrization.Growth(LayerRole.HIDDEN)
        yield _method(f"{make.__name__}.factors", make, growth=growth, step=Step.ENTRYWISE)
        yield _method(f"{make.__name__}.branch_factor", make, depth=2.0)
    shape = transformer.params_to_shape(1e4)
    yield _named("params_to_shape", transformer.params_to_shape, n_params=1e4)
    yield _named(
        "TransformerShape", transformer.TransformerShape, width=8, depth=1, heads=2, hidden=16
    )
    yield Call(
        "Transformer",
        lambda: transformer.Transformer,
        lambda: {"shape": shape, "context": 8, "rng": torch.Generator()},
    )
    for name in ("forward_flops_per_token", "training_flops_per_token"):
        yield _named(name, getattr(accounting, name), shape=shape, context=8)
    yield _named("Work", accounting.Work, flops=1.0, tokens=1.0)
    yield _named("ParameterCount", accounting.ParameterCount, rest=1, embedding=1)
    yield _named("count_parameters", accounting.count_parameters, model=model)
    tensors = [torch.arange(8), torch.arange(8)]
    yield _named("Shuffled", data.Shuffled, tensors=tensors)
    yield _method("Shuffled.batch", lambda: data.Shuffled(tensors), first=0, count=2, seed=0)
    text = torch.arange(64, dtype=torch.uint8)
    yield _named("Windows", data.Windows, text=text, length=8)
    yield _method("Windows.batch", lambda: data.Windows(text, 8), first=0, count=2, seed=0)
    yield _named("BatchStream", data.BatchStream, data=data.Windows(text, 8), micro_batch=2, seed=0)
    yield _named("Settings", Settings, examples=8, batch_size=2, optimizer=adam)

    parts = _training_parts()
    yield _named("TorchTrainer", TorchTrainer, **parts)
    yield _named("load_probe", load_probe, path="tests.reliability.valid_calls:loss_of")


def adapter_calls() -> Iterator[Call]:
    """Calls of the names in `hpo.adapters` that need no other library."""
    from hpo.adapters.events import events_to_json, replay
    from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler, prediction_of

    yield _named("ScaleTuneSampler", ScaleTuneSampler, space=PLAIN)
    yield _named(
        "ScaleTunePruner", ScaleTunePruner, scheduler=hpo.MedianStopping(), fidelity=Fidelity(1, 9)
    )
    study = optuna.create_study(sampler=ScaleTuneSampler())
    study.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=1)
    yield _named("prediction_of", prediction_of, trial=study.trials[0])
    yield _named("events_to_json", events_to_json, log=told().log)
    yield Call(
        "replay",
        lambda: replay,
        lambda: {"optimizer": hpo.Optimizer(SCALED), "events": events_to_json(told().log)},
    )


def result_calls() -> Iterator[Call]:
    """Calls that fit models to results, or run a study."""
    result = told().result()
    yield _method("Result.predict", lambda: result)
    yield _method("Result.recommend", lambda: result)
    yield _method("Result.instability", lambda: result)
    yield _method("Result.plot_front", lambda: result, path=_FOLDER / "front.png")
    yield _method("Result.plot_law", lambda: result, path=_FOLDER / "law.png")
    yield _method("Result.plot_slice", lambda: result, path=_FOLDER / "slice.png")
    for picture in ("importance", "curves", "parallel", "calibration", "timeline", "budget"):
        yield _method(f"Result.plot_{picture}", lambda: result, path=_FOLDER / "picture.png")
    yield _method("Result.report", lambda: result, path=_FOLDER / "report.html")
    extended = hpo.optimize(
        loss_of, STAGED, budget=Budget(trials=2), cost="epochs", scheduler=ASHA()
    )
    yield _method(
        "Result.extend", lambda: extended, max_fidelity=27, budget=Budget(trials=2, cost=40.0)
    )
    cost_law = result.cost_law
    yield _method("CostLaw.exponent", lambda: cost_law, name="params")
    yield _method("CostLaw.predict", lambda: cost_law, config={"lr": 1e-3, "params": 1e6})
    law = result.scaling_law
    assert law is not None
    yield _method("FittedLaw.exponent", lambda: law, axis="params")
    yield _method("FittedLaw.slope", lambda: law, parameter="lr", axis="params")
    yield _method("FittedLaw.optimum", lambda: law, parameter="lr")
    yield _method("FittedLaw.best", lambda: law, parameter="lr", at={"params": 1e8})
    yield _method("FittedLaw.allocation", lambda: law, compute=1e16)
    yield _method("FittedLaw.frontier", lambda: law, computes=[1e15, 1e16])
    yield _method("Optimizer.ask", lambda: hpo.Optimizer(PLAIN))
    yield _method("Optimizer.propose", lambda: hpo.Optimizer(PLAIN))
    yield _method("Optimizer.propose_at", told, target={"params": 1e9})
    yield _method("Optimizer.recommend", told)
    yield _method("StagedOptimizer.next_action", staged)
    yield _method("StagedOptimizer.ask", staged)

    def asked(method: str) -> Call:
        made: list[hpo.StagedOptimizer] = []

        def make() -> Callable[..., Any]:
            made[:] = [staged()]
            function: Callable[..., Any] = getattr(made[0], method)
            return function

        def arguments() -> dict[str, Any]:
            now = made[0].ask()
            if method == "report":
                return {"trial": now, "report": hpo.Report(1, 0.5)}
            return {"trial": now, "loss": 1.0}

        return Call(f"StagedOptimizer.{method}", make, arguments)

    yield asked("report")
    yield asked("tell")
    yield _named("optimize", hpo.optimize, train_fn=loss_of, space=PLAIN, budget=Budget(trials=1))
    yield _named(
        "check_continuation",
        hpo.check_continuation,
        train_fn=loss_of,
        space=STAGED,
        config={"lr": 1e-3},
    )
    yield _named("check_transfer", hpo.check_transfer, result=result)
    check = hpo.check_transfer(result)
    yield _method("TransferCheck.drift", lambda: check, parameter="lr", axis="params")
    yield _method("TransferCheck.panel", lambda: check, parameter="lr", axis="params")
    yield _method("TransferCheck.plot", lambda: check, path=_FOLDER / "transfer.png")


def training_runs() -> Iterator[Call]:
    """Calls that train."""
    from hpo.training import optimizers, parametrization
    from hpo.training.coordinate_check import coordinate_check, transformer_probe
    from hpo.training.trainer import TorchTrainer

    adam = optimizers.AdamW(1e-3)
    trainer = TorchTrainer(**_training_parts(), device=torch.device("cpu"))
    yield _method("TorchTrainer.train", lambda: trainer, ("config",), config={})
    yield _method("TorchTrainer.range_test", lambda: trainer, ("config",), config={}, updates=4)
    probe = transformer_probe(parametrization.MaximalUpdate(), adam, base=16)
    yield _named(
        "transformer_probe",
        transformer_probe,
        parametrization=parametrization.MaximalUpdate(),
        rule=adam,
    )
    yield _named(
        "coordinate_check", coordinate_check, make=probe, sizes=[16, 32, 64], updates=1, seeds=2
    )


def _training_parts() -> dict[str, Any]:
    """Return what a `TorchTrainer` needs."""
    from hpo.training import data
    from hpo.training.optimizers import AdamW
    from hpo.training.trainer import Settings

    def make_model(config: Any, scale: Any) -> torch.nn.Module:
        return torch.nn.Linear(1, 1)

    def make_data(config: Any, split: data.Split) -> Any:
        rows = [torch.ones(8, 1), torch.ones(8, 1)]
        return data.Shuffled(rows) if split is data.Split.TRAIN else [tuple(rows)]

    def loss(module: torch.nn.Module, batch: Any) -> torch.Tensor:
        squares: torch.Tensor = (module(batch[0]) - batch[1]) ** 2
        return squares.mean()

    return {
        "make_model": make_model,
        "make_data": make_data,
        "loss": loss,
        "settings": lambda config: Settings(16, 2, AdamW(1e-3)),
    }


def quick_calls() -> list[Call]:
    """Return the calls that take no time."""
    return [*core_calls(), *record_calls(), *training_calls(), *adapter_calls()]


def slow_calls() -> list[Call]:
    """Return the calls that fit models, run a study or train."""
    return [*result_calls(), *training_runs()]
