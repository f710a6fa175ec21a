"""What a study found: the front, the best config, and the answer at a scale nobody ran yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.acquisition import ProbabilityOfSuccess, Sum, Term
from hpo.errors import StudyError
from hpo.models.fitted import Models
from hpo.models.lr_sensitivity import Instability, instability, lr_parameter, sizes
from hpo.models.prediction import predict
from hpo.optimizer.recommend import (
    _FAR,
    _KEY,
    _ONE_SIDED,
    NINETY,
    Recommendation,
    _at_scale,
    _Cautious,
    _drawn_bounds,
    _law_bounds,
    _law_optimum,
    _minimize,
    check_target,
)
from hpo.scaling.cost_law import CostLaw
from hpo.scaling.scaling_law import FittedLaw
from hpo.space import Float, Int, SearchSpace
from hpo.trials import Prediction, TrialLog
from hpo.trials.pareto import front
from hpo.trials.records import SECONDS
from surrogates.base import Predictor
from surrogates.data import Array
from surrogates.numerics import single_threaded
from surrogates.scaling import ScalingPredictor
from surrogates.transforms import location_scale

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.figure import Figure

    from hpo.trials.budget import Budget


@dataclass(frozen=True, slots=True)
class FrontMember:
    """One completed trial of the front.

    Attributes:
        loss: as observed. cost: in the study's unit, None if never told.
        expected_loss: posterior mean at the config, free of the luck of its one run.
    """

    number: int
    config: dict[str, Any]
    loss: float
    cost: float | None
    expected_loss: float


@dataclass(frozen=True, slots=True)
class Result:
    """What is known after the trials so far; losses in the user's direction.

    Attributes:
        log: every trial and observation.
        models: surrogates fitted to it.
        target: default scale of :meth:`recommend`.
        cost_unit: of every cost, None if undeclared.
        study: the Optuna study behind it, None for an optimizer without a driver.
        onward: how to go on with a larger fidelity, None without a scheduler.
    """

    log: TrialLog
    models: Models = field(repr=False)
    target: dict[str, float] | None = None
    cost_unit: str | None = None
    study: optuna.Study | None = field(default=None, repr=False)
    onward: Callable[[int, Budget | None], Result] | None = field(default=None, repr=False)

    @property
    def space(self) -> SearchSpace:
        return self.models.encoder.space

    @property
    def best(self) -> FrontMember:
        """The completed trial of best posterior mean.

        Where none came to full fidelity, as under PASHA, the best of those that came furthest.

        Raises:
            ValueError: before any trial was completed or paused.
        """
        members = self._members()
        sign = self.models.encoder.loss_sign
        return min(members, key=lambda member: sign * member.expected_loss)

    def extend(self, *, max_fidelity: int, budget: Budget | None = None) -> Result:
        """Go on with the study and a larger fidelity; everything that was run counts.

        The training function must not depend on the largest fidelity, as under a decaying learning
        rate; see docs/schedulers.md.

        Args:
            max_fidelity: the new largest level.
            budget: totals of the study, what was spent before included. None under
                `IterativeDeepening` runs what is missing, whatever it costs.

        Raises:
            StudyError: for a result that no scheduler has led to.
            SpaceError: for a smaller fidelity, or one that does not suit the scheduler.
            BudgetError: for no budget where only a budget would end the search.
        """
        if self.onward is None:
            raise StudyError(
                "only what optimize(..., scheduler=...) has returned can be extended; pass a "
                "scheduler, such as hpo.schedulers.IterativeDeepening()"
            )
        return self.onward(max_fidelity, budget)

    @property
    def front(self) -> tuple[FrontMember, ...]:
        """Trials that no other beats in both expected loss and cost, cheapest first."""
        members = [member for member in self._members() if member.cost is not None]
        sign = self.models.encoder.loss_sign
        losses = np.array([sign * member.expected_loss for member in members])
        costs = np.array([member.cost for member in members], dtype=np.float64)
        return tuple(members[i] for i in front(losses, costs)) if members else ()

    @property
    @single_threaded
    def scaling_law(self) -> FittedLaw | None:
        """The fitted law, prior and posterior of every coefficient side by side.

        None for a space without scale axes, or before any trial was completed.
        """
        if not self.space.scales or not len(self.models.runs):
            return None
        cost = None if self.cost_unit is None else self.cost_law
        return FittedLaw.of(self.models.encoder, self.models.scaling()[0], cost)

    @property
    @single_threaded
    def cost_law(self) -> CostLaw | None:
        """What a run costs, in the study's unit; None before any positive cost was told."""
        cost = self.models.cost()
        unit = self.cost_unit or "cost"
        return None if cost is None else CostLaw(unit, self.models.encoder, cost)

    @property
    def wall_clock_law(self) -> CostLaw | None:
        """How many seconds a run takes; None where none was timed."""
        if self.cost_unit == SECONDS:
            return self.cost_law
        return CostLaw.of_seconds(self.models.encoder, self.log.observations)

    @single_threaded
    def predict(
        self,
        scale: Mapping[str, float] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Prediction:
        """Loss, cost, seconds and survival of one run that was never made, with intervals.

        Args:
            scale: one positive value per scale axis; by default that of `config`, else as for
                :meth:`recommend`.
            config: of the run; by default the one recommended at that scale.

        Raises:
            SpaceError: for a scale or config that does not fit the space.
            ValueError: before any trial was completed.
        """
        self._require_runs()
        encoder = self.models.encoder
        if config is None:
            advice = self.recommend(scale)
            config = {**advice.config, **advice.target}
        elif scale is not None:
            config = {**config, **check_target(self.space, scale)}
        run = self.space.canonical(config, extrapolate=True)
        fixed = encoder.encode([run])[0, encoder.columns.scale]
        return predict(
            self.models,
            run,
            cost_law=self.cost_law,
            wall_clock_law=self.wall_clock_law,
            extrapolation=self._extrapolation(fixed),
            warnings=self._warnings(fixed),
        )

    @single_threaded
    def recommend(self, target: Mapping[str, float] | None = None) -> Recommendation:
        """The config expected to do best, with how far to trust it.

        The posterior mean plus one standard deviation is minimized over the searched box, so that
        the answer stays where the model knows something. Intervals say where the optimum lies: by
        the law's posterior for its drifting optimum where there are scale axes, widened by how far
        the recommended value is from it, else by joint posterior draws, each of which has an
        optimum of its own. They always hold the recommended value.

        Args:
            target: one positive value per scale axis; by default the study's target, else the scale
                of the dearest run.

        Raises:
            SpaceError: for a target that does not fit the space.
            ValueError: before any trial was completed.
        """
        runs, encoder = self.models.runs, self.models.encoder
        self._require_runs()
        at = self._target(target)
        model, sign = self.models.loss(), encoder.loss_sign
        scale = encoder.columns.scale
        fixed = encoder.encode([{**self._example(), **at}])[0, scale]
        rng = np.random.default_rng([_KEY, len(runs)])
        unit = float(np.median(runs.loss) - np.min(runs.loss)) or location_scale(runs.loss)[1]
        score = _Cautious(model, scale, fixed, unit)
        visited = encoder.snap(_at_scale(runs.X, scale, fixed), keep_scale=True)
        order = np.argsort(-score.value(visited), kind="stable")[:5]
        row = _minimize(encoder, self._terms(score), visited[order], rng)
        row = _at_scale(row[None, :], scale, fixed)
        posterior = model.posterior(row)
        half = NINETY * math.sqrt(float(posterior.variance[0]) + model.noise_variance)
        mean = sign * float(posterior.mean[0])
        config = encoder.decode(row)[0]
        return Recommendation(
            config=config,
            intervals=self._intervals(model, row, fixed, rng),
            informed_by_data=self._informed_by_data(model, row, fixed),
            loss=mean,
            loss_interval=(mean - half, mean + half),
            target=at,
            extrapolation=self._extrapolation(fixed),
            warnings=(*self._warnings(fixed), *self._one_sided(model)),
        )

    @single_threaded
    def instability(
        self,
        target: Mapping[str, float] | None = None,
        *,
        parameter: str | None = None,
        initial_loss: float | None = None,
        rise: float | None = None,
    ) -> Instability:
        """How sensitive training is to its lr at each scale, and the unstable edge at the target.

        Args:
            target: as for :meth:`recommend`.
            parameter: the learning rate; by default the one of role LR.
            initial_loss, rise: see :func:`hpo.models.lr_sensitivity.instability`.

        Raises:
            SpaceError: for a target that does not fit, or no such parameter.
            ValueError: before any trial was completed, or for a bad initial loss or rise.
        """
        self._require_runs()
        name = lr_parameter(self.models.encoder, parameter)
        places = [at for at in sizes(self.models) if at != self._target(target)]
        advice = [self.recommend(at) for at in (*places, self._target(target))]
        configs = [{**a.config, **a.target} for a in advice]
        return instability(self.models, configs, name, initial_loss=initial_loss, rise=rise)

    def to_pandas(self) -> pd.DataFrame:
        """One row a finished trial: number, params, loss, cost, status, cause and belief."""
        import pandas as pd

        rows = []
        for o in self.log.observations:
            trial = None if o.ask_index is None else self.log.trial(o.number)
            belief = None if trial is None else trial.prediction
            rows.append(
                {
                    "number": o.number,
                    **o.config,
                    "loss": o.loss,
                    "cost": o.cost,
                    "seconds": o.seconds,
                    "status": o.status.value,
                    "cause": None if o.cause is None else o.cause.value,
                    "believed_loss": None if belief is None else belief.loss,
                    "believed_cost": None if belief is None else belief.cost,
                    "reason": None if belief is None else str(belief.reason),
                }
            )
        return pd.DataFrame(rows)

    def plot_front(self, path: str | Path | None = None) -> Figure:
        """Losses against costs with the front; see :func:`hpo.drawing.plots.plot_front`."""
        from hpo.drawing.plots import plot_front

        return plot_front(self, path)

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML page; see :func:`hpo.drawing.html.write_report`."""
        from hpo.drawing.html import write_report

        return write_report(self, path)

    def _require_runs(self) -> None:
        if not len(self.models.runs):
            raise ValueError(
                "no trial was completed, so nothing can be recommended; "
                f"{len(self.log.observations)} finished otherwise: look at result.to_pandas()"
            )

    @single_threaded
    def _members(self) -> list[FrontMember]:
        """Every completed trial with its posterior mean; without any, those that came furthest."""
        if not len(self.models.runs) and (furthest := self._furthest()):
            return furthest
        self._require_runs()
        runs, sign = self.models.runs, self.models.encoder.loss_sign
        expected = sign * self.models.loss().posterior(runs.X).mean
        members = []
        for number, mean in zip(runs.numbers, expected.tolist(), strict=True):
            o = self.log.observation(number)
            assert o is not None and o.loss is not None  # completed
            members.append(FrontMember(number, o.config, o.loss, o.cost, mean))
        return members

    def _furthest(self) -> list[FrontMember]:
        """Paused trials at the highest level, with their losses there as they are."""
        levels = {}
        for o in self.log.paused:
            place = self.log.trial(o.number).assignment
            if place is not None and o.loss is not None:
                levels[o.number] = place.level
        top = max(levels.values(), default=0)
        return [
            FrontMember(o.number, o.config, o.loss, o.cost, o.loss)
            for o in self.log.paused
            if levels.get(o.number) == top and o.loss is not None
        ]

    def _terms(self, score: Term) -> Term:
        success = self.models.success()
        return score if success is None else Sum((score, ProbabilityOfSuccess(success)))

    def _target(self, target: Mapping[str, float] | None) -> dict[str, float]:
        if target is not None:
            return check_target(self.space, target)
        if self.target is not None or not self.space.scales:
            return dict(self.target or {})
        runs, scale = self.models.runs, self.models.encoder.columns.scale
        widths = self.models.encoder.columns.width[scale]
        dearest = int(np.argmax(runs.X[:, scale] @ widths))
        o = self.log.observation(runs.numbers[dearest])
        assert o is not None
        return {name: float(o.config[name]) for name in self.space.scales}

    def _example(self) -> dict[str, Any]:
        """Any completed config; its scale values are then replaced."""
        o = self.log.observation(self.models.runs.numbers[0])
        assert o is not None
        return o.config

    def _intervals(
        self, model: Predictor, row: Array, fixed: Array, rng: np.random.Generator
    ) -> dict[str, tuple[float, float]]:
        encoder = self.models.encoder
        config = encoder.decode(row)[0]
        numeric = [
            name
            for name in self.space.decisions
            if isinstance(self.space[name], Float | Int) and name in config
        ]
        columns = np.array([encoder.index(name) for name in numeric], dtype=np.intp)
        if isinstance(model, ScalingPredictor):
            low, high = _law_bounds(encoder, model, row, fixed)
        else:
            low, high = _drawn_bounds(encoder, model, row, rng)
        low, high = np.minimum(low, row[0]), np.maximum(high, row[0])
        # each bound is decoded in the recommended config, so that conditions stay as they are
        bounds = {}
        for name, column in zip(numeric, columns, strict=True):
            ends = np.repeat(row, 2, axis=0)
            ends[:, column] = low[column], high[column]
            first, last = encoder.decode(ends)
            bounds[name] = (float(first[name]), float(last[name]))
        return bounds

    def _informed_by_data(self, model: Predictor, row: Array, fixed: Array) -> dict[str, float]:
        if not isinstance(model, ScalingPredictor):
            return {}
        optimum = _law_optimum(self.models.encoder, model, row, fixed)
        left = np.diagonal(optimum.covariance) / np.diagonal(optimum.prior_covariance)
        names = (self.models.encoder.columns.names[j] for j in self.models.encoder.columns.decision)
        return dict(zip(names, np.clip(1.0 - left, 0.0, 1.0).tolist(), strict=True))

    def _one_sided(self, model: Predictor) -> tuple[str, ...]:
        """Parameters with nearly all runs on one side of the best value at their own scale."""
        if not isinstance(model, ScalingPredictor):
            return ()
        above = np.mean(model.loss.displacement(self.models.runs.X) > 0.0, axis=0)
        warnings = []
        for j, share in zip(model.loss.layout.decisions, above.tolist(), strict=True):
            side = "above" if share > 0.5 else "below"
            if min(share, 1.0 - share) < _ONE_SIDED:
                warnings.append(
                    f"nearly all runs had {model.columns.names[j]} {side} what seems best at their"
                    " scale: where the best lies is a guess"
                )
        return tuple(warnings)

    def _extrapolation(self, fixed: Array) -> float:
        columns = self.models.encoder.columns
        if not len(fixed):
            return 1.0
        reached = self.models.runs.X[:, columns.scale] @ columns.width[columns.scale]
        distance = fixed @ columns.width[columns.scale] - float(np.max(reached))
        return math.exp(min(float(distance), 700.0))

    def _warnings(self, fixed: Array) -> tuple[str, ...]:
        """What stands against trusting the answer, in plain words."""
        warnings = []
        columns, runs = self.models.encoder.columns, self.models.runs
        tuned = len(columns.decision)
        if len(runs) < 2 * (tuned + len(columns.categorical) + 1):
            warnings.append(f"only {len(runs)} completed trials for {tuned} parameters")
        for column, x in zip(columns.scale, fixed, strict=True):
            name, seen = columns.names[column], runs.X[:, column]
            if float(np.ptp(seen)) * columns.width[column] < math.log(1.5):
                warnings.append(
                    f"every run had nearly the same {name}: its law comes from the prior"
                )
            elif x < float(np.min(seen)):
                warnings.append(f"the target's {name} lies below every run")
        if (bold := self._extrapolation(fixed)) > _FAR * 1.01:
            warnings.append(f"the target is {bold:.3g} times the compute of the dearest run")
        if self.models.fallbacks:
            warnings.append(f"models fell back to an earlier fit {self.models.fallbacks} times")
        return tuple(warnings)
