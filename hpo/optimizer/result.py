"""Result of a study: the front, the best config, and the recommendation at a new scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.drawing.plot_data import Measured
from hpo.errors import SpaceError, StudyError
from hpo.models.fitted import Models
from hpo.models.intervals import extrapolation
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.lr_sensitivity import Instability, instability, lr_parameter, sizes
from hpo.models.prediction import predict
from hpo.models.stopping import expected_regret
from hpo.optimizer.law_plot import law_plot
from hpo.optimizer.recommend import (
    SIZES,
    Recommendation,
    check_target,
    doubts,
    recommend,
)
from hpo.optimizer.summary import summary
from hpo.optimizer.trial_table import Attempt, trial_table
from hpo.scaling.cost_law import CostLaw
from hpo.scaling.rule_mixture import RuleMixture
from hpo.scaling.scaling_law import FittedLaw
from hpo.space import Direction, SearchSpace
from hpo.space.arguments import Count, File, Kind, Number, Row, Table, Text
from hpo.trials import Observation, Prediction, Status, TrialLog
from hpo.trials.budget import Budget, Spent
from hpo.trials.pareto import Objectives, front, pareto_set
from hpo.trials.printing import Part, Printed, settings, short
from hpo.trials.records import SECONDS
from hpo.trials.serialized import ThreadLock, serialized
from surrogates.numerics import single_threaded

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from hpo.drawing.picture import Picture


@dataclass(frozen=True, slots=True)
class FrontMember(Printed):
    """One completed trial of the front.

    Attributes:
        number: Number of the trial.
        config: Its config, with the fidelity up to which it was trained.
        loss: Loss as observed, in the user's direction.
        cost: Cost in the study's unit; None if it is not known.
        expected_loss: Posterior mean of the loss at the config. Unlike `loss` it does not take the
            noise of one run at face value.
        direction: Whether the objective is minimized, a loss, or maximized, a value.
    """

    number: int
    config: dict[str, Any]
    loss: float
    cost: float | None
    expected_loss: float
    direction: Direction = field(default=Direction.MINIMIZE, repr=False)

    def parts(self) -> list[Part]:
        """Return what is printed."""
        cost = "" if self.cost is None else f", cost {self.cost:.4g}"
        return [
            f"Trial {self.number}: {self.direction.noun} {self.loss:.5g}, expected"
            f" {self.expected_loss:.5g}{cost}",
            *([settings(self.config)] if self.config else []),
        ]


@dataclass(frozen=True, slots=True)
class ParetoMember(Printed):
    """One completed trial that no other beats in every objective.

    Attributes:
        number: Number of the trial.
        config: Its config, with the fidelity up to which it was trained.
        values: Objectives and constrained values by name, as observed.
    """

    number: int
    config: dict[str, Any]
    values: dict[str, float]

    def parts(self) -> list[Part]:
        """Return what is printed."""
        values = ", ".join(f"{name} {short(value, 5)}" for name, value in self.values.items())
        return [
            f"Trial {self.number}: {values}",
            *([settings(self.config)] if self.config else []),
        ]


@dataclass(frozen=True, slots=True)
class Result(Printed):
    """Result of the trials so far: a snapshot that later trials do not change.

    Losses are in the user's direction. `print` says what was asked, what was spent, which trial is
    the best by the models and as observed, what failed, and what to do next.

    Attributes:
        log: Every trial and observation.
        warp: Models of the losses, under the input scaling that explains them best.
        target: Default scale of :meth:`recommend`.
        cost_unit: Unit of every cost; None if undeclared.
        study: Optuna study behind it, which is live; None for an optimizer without a driver.
        onward: Function that extends the study to a larger fidelity; None without a scheduler.
        rules: Transfer rules that compete; None where none has a say.
        asked: Names and texts of what else was asked for, such as the budget and the seed.
        budget: Budget of the study; None if unknown.
        spent: What it has spent; None if unknown.
        attempts: Function that returns when and by whom each trial was run, by number; None without
            a driver.
        interrupted: Whether Ctrl-C or a signal ended the call before its budget was used up.
        objectives: Objectives and constraints; None for one loss.

    Example:
        >>> from hpo import Float, Optimizer
        >>> optimizer = Optimizer({"x": Float(0, 1)})
        >>> for x in (0.1, 0.4, 0.9):
        ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2)
        >>> result = optimizer.result()
        >>> result.best.config
        {'x': 0.4}
        >>> _ = optimizer.tell({"x": 0.5}, loss=0.0)
        >>> len(result.log), len(optimizer.result().log)
        (3, 4)
    """

    log: TrialLog
    warp: InputWarp = field(repr=False)
    target: dict[str, float] | None = None
    cost_unit: str | None = None
    study: optuna.Study | None = field(default=None, repr=False)
    onward: Callable[[int, Budget | None], Result] | None = field(default=None, repr=False)
    rules: RuleMixture | None = field(default=None, repr=False)
    asked: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    budget: Budget | None = field(default=None, repr=False)
    spent: Spent | None = field(default=None, repr=False)
    attempts: Callable[[], Mapping[int, Attempt]] | None = field(default=None, repr=False)
    interrupted: bool = field(default=False, repr=False)
    objectives: Objectives | None = field(default=None, repr=False)

    @property
    def models(self) -> Models:
        """Surrogates fitted to the log.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> for x in (0.1, 0.4, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2)
            >>> models = optimizer.result().models
            >>> models.runs.numbers, models.fallbacks
            ((0, 1, 2), 0)
        """
        return self.warp.models

    @property
    def lock(self) -> ThreadLock:
        """Held while the models are used, so that threads may share a result."""
        return self.models.lock

    @property
    def space(self) -> SearchSpace:
        """Space that was searched.

        Example:
            >>> from hpo import Float, Int, Optimizer
            >>> list(Optimizer({"x": Float(0, 1), "layers": Int(1, 4)}).result().space)
            ['x', 'layers']
        """
        return self.models.encoder.space

    @property
    def best(self) -> FrontMember:
        """Completed trial with the best posterior mean.

        Where none reached full fidelity, as under PASHA, it is the best of those that trained
        furthest, and its config holds the level they were trained to.

        Raises:
            ValueError: Before any trial was completed or paused.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)}, direction="maximize")
            >>> for x in (0.1, 0.4, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=1 - (x - 0.5) ** 2)
            >>> best = optimizer.result().best
            >>> best.number, best.config, round(best.loss, 2)
            (1, {'x': 0.4}, 0.99)
        """
        members = self._members()
        sign = self.models.encoder.loss_sign
        return min(members, key=lambda member: sign * member.expected_loss)

    @property
    def best_observed(self) -> FrontMember:
        """Completed trial with the best loss as observed.

        Under noise the best of many losses is lower than the config deserves; `best` is chosen by
        what the models expect of it. The two differ where one run was lucky.

        Raises:
            ValueError: Before any trial was completed or paused.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> for x in (0.2, 0.4, 0.6, 0.8):
            ...     for noise in (-0.03, -0.01, 0.01, 0.03):
            ...         _ = optimizer.tell({"x": x}, loss=(x - 0.4) ** 2 + noise)
            >>> _ = optimizer.tell({"x": 0.6}, loss=-0.04)
            >>> result = optimizer.result()
            >>> result.best_observed.config, result.best.config
            ({'x': 0.6}, {'x': 0.4})
        """
        sign = self.models.encoder.loss_sign
        return min(self._members(), key=lambda member: sign * member.loss)

    @serialized
    @single_threaded
    def parts(self) -> list[Part]:
        """Return what is printed: sentences and a table."""
        return summary(self)

    def extend(self, *, max_fidelity: int, budget: Budget | None = None) -> Result:
        """Extend the study to a larger fidelity; every run so far is kept.

        The training function must not depend on the largest fidelity, as under a decaying learning
        rate; see docs/schedulers.md.

        Args:
            max_fidelity: New largest level.
            budget: Limits on the whole study, including what was spent before. None under
                `IterativeDeepening` runs what is missing, whatever it costs.

        Returns:
            The result of the extended study.

        Raises:
            StudyError: If no scheduler has led to this result.
            SpaceError: If the fidelity is smaller, or does not suit the scheduler.
            BudgetError: If there is no budget where only a budget would end the search.

        Example:
            >>> from hpo import Budget, Fidelity, Float, IterativeDeepening, optimize
            >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 3)}
            >>> result = optimize(
            ...     lambda config, ctx: {"loss": config["x"] / ctx.fidelity, "cost": ctx.fidelity},
            ...     space,
            ...     budget=Budget(cost=60.0),
            ...     cost="epochs",
            ...     scheduler=IterativeDeepening(),
            ... )
            >>> longer = result.extend(max_fidelity=9)
            >>> max(o.config["epochs"] for o in longer.log.observations)
            9
        """
        if self.onward is None:
            raise StudyError(
                "only what optimize(..., scheduler=...) has returned can be extended; pass a "
                "scheduler, such as hpo.schedulers.IterativeDeepening()"
            )
        max_fidelity = Count(1, way_out="give the new largest level")(
            max_fidelity, "`max_fidelity`", SpaceError
        )
        budget = Kind(Budget, optional=True, way_out="write Budget(cost=...)")(
            budget, "`budget`", TypeError
        )
        return self.onward(max_fidelity, budget)

    @property
    def pareto_set(self) -> tuple[ParetoMember, ...]:
        """Completed trials that keep every constraint and that no such trial beats, as observed.

        They are in the order of the first objective, the best first. One trial beats another if it
        is as good in every objective and better in one. It is empty for one loss, and where no
        trial keeps the constraints.

        Example:
            >>> from hpo import Float, Optimizer
            >>> objectives = {"loss": "minimize", "latency": "minimize"}
            >>> optimizer = Optimizer({"x": Float(0, 1)}, objectives=objectives)
            >>> for x, latency in ((0.1, 3.0), (0.4, 2.0), (0.9, 2.5)):
            ...     _ = optimizer.tell({"x": x}, loss=x, metrics={"latency": latency})
            >>> [member.values for member in optimizer.result().pareto_set]
            [{'loss': 0.1, 'latency': 3.0}, {'loss': 0.4, 'latency': 2.0}]
        """
        wanted = self.objectives
        if wanted is None:
            return ()
        members = self._feasible()
        kept = pareto_set(np.array([wanted.losses(member.values) for member in members]))
        return tuple(
            sorted(
                (members[i] for i in kept.tolist()),
                key=lambda member: wanted.losses(member.values)[0],
            )
        )

    @property
    @serialized
    @single_threaded
    def expected_regret(self) -> float | None:
        """What is expected to be lost by stopping now, in units of the objective.

        It is how much the models expect the best config of the space to be better than the
        believed best (:mod:`hpo.models.stopping`). None before enough runs were completed, with
        scale axes, and under several objectives or constraints.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)}, seed=0)
            >>> for _ in range(20):
            ...     trial = optimizer.ask()
            ...     _ = optimizer.tell(trial, (trial.config["x"] - 0.3) ** 2)
            >>> 0 <= optimizer.result().expected_regret < 1e-3
            True
        """
        if self.space.scales or self.objectives is not None:
            return None
        return expected_regret(self.models)

    @property
    def front(self) -> tuple[FrontMember, ...]:
        """Completed trials that no other beats in both expected loss and cost, cheapest first.

        Where no cost is known it is the one best trial; it is empty where no trial was completed.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)}, cost="seconds")
            >>> for x in (0.1, 0.4, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2, cost=10 * x)
            >>> [(member.number, member.cost) for member in optimizer.result().front]
            [(0, 1.0), (1, 4.0)]
        """
        candidates = self.candidates()
        members = [member for member in candidates if member.cost is not None]
        if candidates and not members:
            return (self.best,)
        sign = self.models.encoder.loss_sign
        losses = np.array([sign * member.expected_loss for member in members])
        costs = np.array([member.cost for member in members], dtype=np.float64)
        return tuple(members[i] for i in front(losses, costs)) if members else ()

    @property
    @serialized
    @single_threaded
    def scaling_law(self) -> FittedLaw | None:
        """Fitted scaling law, prior and posterior of every coefficient side by side.

        It is None for a space without scale axes, or before any trial was completed.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space)
            >>> for params in (1e5, 3e5, 1e6, 3e6, 1e7):
            ...     _ = optimizer.tell({"lr": 1e-3, "params": params}, loss=100 * params**-0.3)
            >>> exponent = optimizer.result().scaling_law.exponent("params")
            >>> exponent.prior_mean, round(exponent.mean, 1)
            (0.22, 0.3)
        """
        if not self.space.scales or not len(self.models.runs):
            return None
        cost = None if self.cost_unit is None else self.cost_law
        return FittedLaw.of(self.models.encoder, self.models.scaling()[0], cost, self.rules)

    @property
    @serialized
    @single_threaded
    def cost_law(self) -> CostLaw | None:
        """Law of the cost of a run, in the study's unit; None before any positive cost was told.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space, cost="flops")
            >>> for params in (1e5, 1e6, 1e7):
            ...     _ = optimizer.tell({"lr": 1e-3, "params": params}, 2.0, cost=6e6 * params)
            >>> cost, _ = optimizer.result().cost_law.predict({"lr": 1e-3, "params": 1e8})
            >>> print(f"{cost:.0e}")
            6e+14
        """
        cost = self.models.cost()
        unit = self.cost_unit or "cost"
        return None if cost is None else CostLaw(unit, self.models.encoder, cost)

    @property
    def wall_clock_law(self) -> CostLaw | None:
        """Law of the wall-clock time of a run, in seconds; None where no run was timed.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space, cost="flops")
            >>> for params in (1e5, 1e6, 1e7):
            ...     seconds = 0.01 * params**0.5
            ...     _ = optimizer.tell({"lr": 1e-3, "params": params}, 2.0, seconds=seconds)
            >>> law = optimizer.result().wall_clock_law
            >>> law.unit, round(law.exponent("params").mean, 1)
            ('seconds', 0.5)
        """
        if self.cost_unit == SECONDS:
            return self.cost_law
        return CostLaw.of_seconds(self.models.encoder, self.log.observations)

    @serialized
    @single_threaded
    def predict(
        self,
        scale: Mapping[str, float] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Prediction:
        """Predict loss, cost, seconds and success of one run that was never made.

        Args:
            scale: One positive value per scale axis; by default that of `config`, else the default
                of :meth:`recommend`.
            config: Config of the run; by default the one recommended at that scale.

        Returns:
            The prediction, with 90 % intervals of one run.

        Raises:
            SpaceError: If a scale or config does not fit the space.
            ValueError: Before any trial was completed.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> for x in (0.1, 0.3, 0.4, 0.6, 0.8, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2)
            >>> prediction = optimizer.result().predict(config={"x": 0.7})
            >>> low, high = prediction.loss_interval
            >>> low < 0.04 < high
            True
        """
        self._require_runs()
        encoder = self.models.encoder
        scale = Table(optional=True, way_out=SIZES)(scale, "`scale`", SpaceError)
        if scale:
            scale = check_target(self.space, scale, "scale")
        config = Table(optional=True, way_out="pass a dict")(config, "`config`", SpaceError)
        if config is None:
            advice = self.recommend(scale)
            config = {**advice.config, **advice.target}
        elif scale is not None:
            config = {**config, **check_target(self.space, scale, "scale")}
        run = self.space.canonical(config, extrapolate=True)
        fixed = encoder.encode([run])[0, encoder.columns.scale]
        return predict(
            self.warp,
            run,
            cost_unit=self.cost_unit or "cost",
            wall_clock_law=self.wall_clock_law,
            extrapolation=extrapolation(self.models, fixed),
            warnings=doubts(self.models, fixed),
        )

    @serialized
    @single_threaded
    def recommend(self, target: Mapping[str, float] | None = None) -> Recommendation:
        """Return the config expected to do best, with how far to trust it.

        See :mod:`hpo.optimizer.recommend` for how it is found and what its intervals mean.

        Args:
            target: One positive value per scale axis; by default the study's target, else the scale
                of the largest run.

        Returns:
            The config with intervals of the optimum, its predicted loss, and warnings.

        Raises:
            SpaceError: If the target does not fit the space.
            ValueError: Before any trial was completed, and under several objectives or constraints,
                where `pareto_set` has the configs to choose from.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> for x in (0.1, 0.3, 0.4, 0.6, 0.8, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2)
            >>> advice = optimizer.result().recommend()
            >>> low, high = advice.intervals["x"]
            >>> low <= advice.config["x"] <= high
            True
        """
        if self.objectives is not None:
            raise ValueError(
                f"`recommend` needs one loss without constraints, got {self.objectives}: choose a"
                " trial of result.pareto_set"
            )
        self._require_runs()
        example = self.log.observation(self.models.runs.numbers[0])
        assert example is not None
        return recommend(self.warp, self._target(target), example.config)

    @serialized
    @single_threaded
    def instability(
        self,
        target: Mapping[str, float] | None = None,
        *,
        parameter: str | None = None,
        initial_loss: float | None = None,
        rise: float | None = None,
    ) -> Instability:
        """Report how sensitive training is to its lr, and the unstable edge at the target.

        Args:
            target: One positive value per scale axis; see :meth:`recommend`.
            parameter: Name of the learning rate; by default the parameter of role LR.
            initial_loss: Loss of an untrained model; by default that of the worst completed
                run, within limits (see :func:`hpo.models.lr_sensitivity.instability`).
            rise: Rise of the loss that counts as unstable, > 0; by default a tenth of what training
                removes.

        Returns:
            Curves of loss against lr at the scales of the runs and at the target.

        Raises:
            SpaceError: If the target does not fit, or there is no such parameter.
            ValueError: Before any trial was completed, or for a bad initial loss or rise.

        Example:
            >>> from hpo import Float, Optimizer, Role
            >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True, role=Role.LR)})
            >>> for k in range(12):
            ...     lr = 1e-4 * 10 ** (k / 4)
            ...     loss = (k - 5) ** 2 / 25
            ...     _ = optimizer.tell({"lr": lr}, loss=loss)
            >>> report = optimizer.result().instability(initial_loss=3.0)
            >>> report.parameter, len(report.curves)
            ('lr', 1)
        """
        self._require_runs()
        name = lr_parameter(self.models.encoder, parameter)
        initial_loss = Number(optional=True)(initial_loss, "`initial_loss`")
        rise = Number(above=0, optional=True)(rise, "`rise`")
        wanted = self._target(target)
        others = [
            at
            for at in sizes(self.models)
            if not all(math.isclose(at[axis], wanted[axis], rel_tol=1e-6) for axis in wanted)
        ]
        advice = [self.recommend(at) for at in (*others, wanted)]
        configs = [{**a.config, **a.target} for a in advice]
        return instability(self.models, configs, name, initial_loss=initial_loss, rise=rise)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per trial with a result, paused ones last.

        The columns are the number, the parameters, `loss`, `cost`, `seconds`, `status` and `cause`,
        the level of the fidelity that was trained (`trained_level`), what was predicted before the
        run with its 90 % interval (`predicted_loss`, `predicted_loss_low`, `predicted_loss_high`,
        the same for the cost, `predicted_success`) and why (`reason`), when it was `started`, the
        `worker` (index of the `optimize` call, of those that drove the study side by side), the
        number of `attempts`, the `failure` in one line with its `traceback`, and the metrics.

        Under several objectives or constraints `feasible` says whether a completed trial keeps the
        constraints, and `on_front` whether it is in `pareto_set`.

        A metric is what the trial returned or was told with, else what it last reported. Our own
        columns always keep their names: a parameter called `loss` is in the column `params_loss`,
        and a metric whose name is taken in `metrics_...`. Before any trial has a result the table
        has its columns and no row.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> _ = optimizer.tell({"x": 0.25}, loss=1.5, cost=2.0)
            >>> optimizer.result().to_pandas()[["number", "x", "loss", "cost", "status"]]
               number     x  loss  cost     status
            0       0  0.25   1.5   2.0  completed
        """
        attempts = {} if self.attempts is None else self.attempts()
        return trial_table(self.log, self.space, attempts, self.objectives)

    @serialized
    def plot_front(
        self,
        path: str | Path | None = None,
        *,
        measured: Mapping[str, Measured] | None = None,
    ) -> Picture:
        """Plot loss against cost: every trial, the front, and what is predicted beyond it.

        Without a completed trial of positive cost the picture says so and shows no trial. With a
        target, the line beyond the front is the predicted loss of the recommended config at
        scales up to the target, the band its 90 % interval for one run. See
        :func:`hpo.drawing.plots.plot_front`.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.
            measured: Runs made outside the study by name, such as that of the target, drawn as
                stars.

        Returns:
            The figure.

        Example:
            >>> from hpo import Float, Optimizer
            >>> from hpo.drawing.plot_data import Measured
            >>> optimizer = Optimizer({"x": Float(0, 1)}, cost="seconds")
            >>> for x in (0.1, 0.4, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2, cost=10 * x)
            >>> figure = optimizer.result().plot_front(measured={"by hand": Measured(8.0, 0.04)})
            >>> figure.axes[0].get_xlabel()
            'cost (seconds)'
        """
        from hpo.drawing.plots import plot_front
        from hpo.optimizer.pictures import front_plot

        path = File(optional=True)(path, "`path`")
        runs = Table(Kind(Measured), optional=True, way_out="write {'target': Measured(8.0, 0.04)}")
        measured = runs(measured, "`measured`")
        return plot_front(front_plot(self, self.front), path, measured=measured)

    @serialized
    @single_threaded
    def plot_law(
        self, target: Mapping[str, float] | None = None, path: str | Path | None = None
    ) -> Picture:
        """Plot loss and best settings against scale, from the smallest run to the target.

        Args:
            target: One positive value per scale axis; see :meth:`recommend`.
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure; see :func:`hpo.drawing.plots.plot_law`.

        Raises:
            SpaceError: If the space has no scale axes, or the target does not fit it.
            ValueError: Before any trial was completed.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> optimizer = Optimizer({"x": Float(0, 1), "n": Scale(1, 100)})
            >>> for x, n in ((0.2, 1), (0.5, 10), (0.8, 100)):
            ...     _ = optimizer.tell({"x": x, "n": n}, loss=(x - 0.5) ** 2 + 1 / n)
            >>> optimizer.result().plot_law({"n": 1000}).axes[0].get_xlabel()
            'n'
        """
        from hpo.drawing.plots import plot_law

        path = File(optional=True)(path, "`path`")
        if not self.space.scales:
            raise SpaceError(
                f"a picture of the law needs a space with Scale axes, got {list(self.space)}; name"
                " the size of the runs, such as Scale(1e5, 1e7, axis=Axis.PARAMS)"
            )
        return plot_law(law_plot(self.models, self.recommend(target)), path)

    @serialized
    @single_threaded
    def plot_slice(
        self,
        *settings: str,
        target: Mapping[str, float] | None = None,
        path: str | Path | None = None,
    ) -> Picture:
        """Plot the expected loss along one setting or over two, the others as recommended.

        Args:
            settings: One or two names of settings; none for a panel of each.
            target: One positive value per scale axis; see :meth:`recommend`.
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure, whose `data` are :class:`~hpo.drawing.search_data.SlicePlot` or
            :class:`~hpo.drawing.search_data.ContourPlot`.

        Raises:
            SpaceError: For a name that is no setting of the recommended config.
            ValueError: Before any trial was completed.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1), "y": Float(0, 1)})
            >>> for x, y in ((0.2, 0.9), (0.5, 0.1), (0.8, 0.4), (0.6, 0.6)):
            ...     _ = optimizer.tell({"x": x, "y": y}, loss=(x - 0.5) ** 2 + y)
            >>> result = optimizer.result()
            >>> result.plot_slice("x").axes[0].get_xlabel()
            'x'
            >>> result.plot_slice("x", "y").data.loss.shape
            (36, 36)
        """
        from hpo.drawing.search_plots import plot_contour, plot_slice
        from hpo.optimizer.pictures import contour_plot, slice_plot

        path = File(optional=True)(path, "`path`")
        names = Row(Text(), way_out="name one or two settings")(settings, "`settings`", SpaceError)
        advice = self.recommend(target)
        known = [name for name in self.space.decisions if name in advice.config]
        if len(names) > 2 or len(set(names)) < len(names) or set(names) - set(known):
            raise SpaceError(
                f"a slice runs along one or two different settings of the recommended config, got "
                f"{list(names)}; name some of {known}"
            )
        if len(names) == 2:
            x, y = names
            return plot_contour(contour_plot(self, x, y, advice), path)
        slices = [slice_plot(self, name, advice) for name in names or known]
        return plot_slice(tuple(slices), path)

    @serialized
    @single_threaded
    def plot_importance(
        self, target: Mapping[str, float] | None = None, path: str | Path | None = None
    ) -> Picture:
        """Plot how much each setting matters over the searched range, as the model has it.

        Where the model is as unsure as the settings differ, the picture says that there is not
        enough data; see :mod:`hpo.optimizer.pictures`.

        Args:
            target: One positive value per scale axis; see :meth:`recommend`.
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure, whose `data` is an :class:`~hpo.drawing.search_data.ImportancePlot`.

        Raises:
            SpaceError: If the target does not fit the space.
            ValueError: Before any trial was completed.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1), "y": Float(0, 1)})
            >>> for i in range(12):
            ...     x, y = i / 11, (5 * i % 12) / 11
            ...     _ = optimizer.tell({"x": x, "y": y}, loss=3 * x + 0.1 * y)
            >>> data = optimizer.result().plot_importance().data
            >>> data.names, bool(data.share[0] > 0.9)
            (('x', 'y'), True)
        """
        from hpo.drawing.search_plots import plot_importance
        from hpo.optimizer.pictures import importance_plot

        path = File(optional=True)(path, "`path`")
        return plot_importance(importance_plot(self, self.recommend(target)), path)

    @serialized
    @single_threaded
    def plot_curves(self, path: str | Path | None = None) -> Picture:
        """Plot the losses that runs reported, with forecasts of the best that are not complete.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure, whose `data` is a :class:`~hpo.drawing.search_data.CurvesPlot`.
        """
        from hpo.drawing.search_plots import plot_curves
        from hpo.optimizer.pictures import curves_plot

        return plot_curves(curves_plot(self), File(optional=True)(path, "`path`"))

    def plot_parallel(self, path: str | Path | None = None) -> Picture:
        """Plot the settings of all completed trials side by side, one line a trial.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure, whose `data` is a :class:`~hpo.drawing.search_data.ParallelPlot`.
        """
        from hpo.drawing.search_plots import plot_parallel
        from hpo.optimizer.pictures import parallel_plot

        return plot_parallel(parallel_plot(self), File(optional=True)(path, "`path`"))

    def plot_calibration(self, path: str | Path | None = None) -> Picture:
        """Plot what was predicted of each trial before it ran, beside the loss it had.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure, whose `data` is a :class:`~hpo.drawing.search_data.CalibrationPlot`.
        """
        from hpo.drawing.search_plots import plot_calibration
        from hpo.optimizer.pictures import calibration_plot

        return plot_calibration(calibration_plot(self), File(optional=True)(path, "`path`"))

    def plot_timeline(self, path: str | Path | None = None) -> Picture:
        """Plot when each trial of a study ran; nothing for an optimizer without a driver.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure, whose `data` is a :class:`~hpo.drawing.search_data.TimelinePlot`.
        """
        from hpo.drawing.search_plots import plot_timeline
        from hpo.optimizer.pictures import timeline_plot

        return plot_timeline(timeline_plot(self), File(optional=True)(path, "`path`"))

    def plot_budget(self, path: str | Path | None = None) -> Picture:
        """Plot the best loss so far against what was spent.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure, whose `data` is a :class:`~hpo.drawing.search_data.BudgetPlot`.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)}, cost="seconds")
            >>> for x in (0.1, 0.4, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2, cost=10 * x)
            >>> optimizer.result().plot_budget().data.spent.tolist()
            [1.0, 5.0, 14.0]
        """
        from hpo.drawing.search_plots import plot_budget
        from hpo.optimizer.pictures import budget_plot

        return plot_budget(budget_plot(self), File(optional=True)(path, "`path`"))

    @serialized
    def report(self, path: str | Path) -> Path:
        """Write best trial, recommendation, front and all trials as one self-contained HTML page.

        The page of a study without a completed trial has no recommendation and says why.

        Args:
            path: File to write.

        Returns:
            The path.

        Example:
            >>> import tempfile
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> for x in (0.1, 0.4, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     page = optimizer.result().report(Path(folder, "report.html")).read_text()
            >>> "<p>Best of 3 finished trials: trial 1," in page
            True
        """
        from hpo.drawing.html import write_report
        from hpo.optimizer.report_page import report_page

        path = File()(path, "`path`")
        return write_report(report_page(self), path)

    def _require_runs(self) -> None:
        if not len(self.models.runs):
            raise ValueError(
                f"no trial was completed, so nothing can be recommended; {self.why_nothing()}"
            )

    def why_nothing(self) -> str:
        """Return why no trial was completed, and what to do."""
        finished, furthest = len(self.log.runs), self._furthest()
        name = self.space.fidelity
        if furthest and name is not None:
            low, high = (f(o.config[name] for o in self.log.paused) for f in (min, max))
            full = str(high) if low == high else f"{low} to {high}"
            reached = f"{name}={furthest[0].config[name]} of {full}"
            return (
                f"{len(self.log.paused)} are paused, the furthest at {reached}: "
                "give a larger budget, or look at result.best"
            )
        if finished:
            return f"{finished} finished otherwise: look at result.to_pandas()"
        return "none has finished yet: run or tell some first"

    def _members(self) -> list[FrontMember]:
        """Every candidate for the best; ValueError without any.

        Under constraints it is one that keeps them, where any does.
        """
        members = self.candidates()
        if not members:
            self._require_runs()
        if self.objectives is not None and self.objectives.constraints:
            feasible = {member.number for member in self._feasible()}
            members = [m for m in members if m.number in feasible] or members
        return members

    def _feasible(self) -> list[ParetoMember]:
        """Return the completed trials that have told all values and keep every constraint."""
        wanted = self.objectives
        assert wanted is not None
        return [
            ParetoMember(o.number, self._trained(o), values)
            for o in self.log.observations
            if o.status is Status.COMPLETED
            and (values := wanted.values(o)) is not None
            and wanted.feasible(values)
        ]

    @serialized
    @single_threaded
    def candidates(self) -> list[FrontMember]:
        """Every completed trial with its posterior mean; without any, those that came furthest."""
        if not len(self.models.runs):
            return self._furthest()
        runs, sign = self.models.runs, self.models.encoder.loss_sign
        expected = sign * self.models.loss().posterior(runs.X).mean
        members, direction = [], Direction.of_sign(sign)
        for number, mean in zip(runs.numbers, expected.tolist(), strict=True):
            o = self.log.observation(number)
            assert o is not None and o.loss is not None  # completed
            members.append(FrontMember(number, self._trained(o), o.loss, o.cost, mean, direction))
        return members

    def _furthest(self) -> list[FrontMember]:
        """Paused trials at the highest level, with their losses there as they are."""
        levels = {}
        for o in self.log.paused:
            assignment = self.log.trial(o.number).assignment
            if assignment is not None and o.loss is not None:
                levels[o.number] = assignment.level
        top = max(levels.values(), default=0)
        direction = Direction.of_sign(self.models.encoder.loss_sign)
        return [
            FrontMember(o.number, self._trained(o), o.loss, o.cost, o.loss, direction)
            for o in self.log.paused
            if levels.get(o.number) == top and o.loss is not None
        ]

    def full_config(self, number: int) -> dict[str, Any]:
        """Return the whole config of a trial with a result."""
        o = self.log.observation(number)
        assert o is not None
        return o.config

    def _trained(self, o: Observation) -> dict[str, Any]:
        """Return the config with the fidelity up to which the trial was trained."""
        name = self.space.fidelity
        assignment = None if o.ask_index is None else self.log.trial(o.number).assignment
        if name is None or assignment is None:
            return o.config
        return {**o.config, name: min(assignment.level, o.config[name])}

    def _target(self, target: Mapping[str, float] | None) -> dict[str, float]:
        target = Table(optional=True, way_out=SIZES)(target, "`target`", SpaceError)
        if target is not None and (target or self.space.scales):
            return check_target(self.space, target)
        if self.target is not None or not self.space.scales:
            return dict(self.target or {})
        runs, scale = self.models.runs, self.models.encoder.columns.scale
        widths = self.models.encoder.columns.width[scale]
        largest = int(np.argmax(runs.X[:, scale] @ widths))
        o = self.log.observation(runs.numbers[largest])
        assert o is not None
        return {name: float(o.config[name]) for name in self.space.scales}
