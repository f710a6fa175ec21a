"""Ask and tell: the optimizer without a driver.

An :class:`Optimizer` is a trial log and a pure function of it. Every fitted model is a cache. The
random numbers of an ask are keyed by (seed, driver, index of the ask), so the same log gives the
same ask. :mod:`hpo.optimizer.ask` says which strategy answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.errors import BudgetError, SpaceError, UnknownNameError
from hpo.models.curve_forecast import CurveForecast
from hpo.models.intervals import Expected, cost_forecast, loss_forecast
from hpo.models.log_scale_hedge import InputWarp, LogScaleHedge
from hpo.models.objectives import ObjectiveModels
from hpo.models.stopping import expected_regret
from hpo.models.surrogate_selector import SurrogateChoice
from hpo.optimizer.ask import (
    FRONT_EVERY,
    Ask,
    CostLimits,
    Start,
    Suggestion,
    carry_out,
    whose_turn,
)
from hpo.optimizer.initial_design import start_count, starts
from hpo.optimizer.recommend import Recommendation, check_target
from hpo.optimizer.result import Result
from hpo.optimizer.strategies import STRATEGIES
from hpo.optimizer.strategies.explore import explore
from hpo.optimizer.strategies.objectives import check_botorch
from hpo.scaling.claims import Priors
from hpo.scaling.drift_prior import check_priors
from hpo.scaling.earlier_studies import earlier_studies
from hpo.scaling.rule_mixture import rule_mixture
from hpo.schedulers import Forecast
from hpo.space import Direction, DirectionName, Parameter, SearchSpace
from hpo.space.arguments import Count, Flag, Kind, Member, Row
from hpo.space.encoding import Encoder
from hpo.space.scalars import metric_values, real, scalar, shown, whole
from hpo.trials import (
    BranchLoss,
    Cause,
    Observation,
    Prediction,
    ReasonKind,
    Report,
    Status,
    Trial,
    TrialLog,
)
from hpo.trials.budget import Budget, Ledger
from hpo.trials.default_cost import DefaultCost
from hpo.trials.other_tasks import GivenTasks, read_other_tasks
from hpo.trials.pareto import Objectives
from hpo.trials.read_runs import History, earlier_runs, run_keys
from hpo.trials.records import UNIT
from hpo.trials.serialized import ThreadLock, serialized
from surrogates.data import Array
from surrogates.numerics import radical_inverse, single_threaded
from surrogates.scaling_law.model import ScalingModel

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_ASSUMED = 0.95  # probability of success while nothing has failed
_TARGET_STARTS = 2  # start points where a target is named
_INDEX = Count(0, way_out="0 is usual")
_AMONG = Row(Kind(Mapping), way_out="list the configs that may be run now")
_Outcome = tuple[float | None, float | None, Cause | None]
_STARTS_KEY = 0xC0FFEE  # sets the start design's random key apart from those of the asks


@dataclass(frozen=True, slots=True)
class Proposal:
    """A config to try, before it is a trial of any study.

    Attributes:
        config: Canonical config.
        ask_index: Index of the ask, the key of its random choices.
        prediction: What the models expect of it, with the reason for it.
    """

    config: dict[str, Any]
    ask_index: int
    prediction: Prediction


class Optimizer:
    """Proposes configs and learns from their results.

    Args:
        space: Parameters by name (or Optuna distributions, or a :class:`SearchSpace`).
        direction: "minimize" or "maximize" the loss.
        cost: Unit of the costs told, such as "seconds" or "flops". Naming one makes the search
            cost-aware; so does a scale axis in the space. With neither, only the loss counts.
            Where it is None and no cost is told, a run costs 6 N D if the space has axes of
            parameters and tokens, else its level of the fidelity, else nothing that is known
            (:mod:`hpo.trials.default_cost`); time that is told in `seconds` is recorded only.
        budget: Limits on what a proposal may cost; nothing here stops asking when it is spent.
        target: Scale values of the final training, the default of :meth:`recommend`.
        priors: Transfer rules about how the best settings move with scale
            (:mod:`hpo.scaling.transfer_rules`), which compete: the runs decide how much each
            counts. None lets every published rule compete that finds its roles and axes in the
            space; `Neutral()` leaves the neutral prior alone, weak and zero-mean.
        surrogate: Model of the loss: a Gaussian process ("gp"), a conformalized quantile forest
            ("quantile"), or "auto", which mixes both in proportion to forecast skill (see
            :mod:`hpo.models.surrogate_selector`). With scale axes the scaling model is used alone.
        seed: Non-negative seed of every random choice. The same seed and the same results give
            the same asks; wall-clock time has no part in them unless it is told as a cost.
        driver: Index of this driver among those that share a study.
        other_tasks: Runs of other tasks in the same space by name, from which the search learns
            where they agree with this one: what `read_runs` returns or can read, a
            :class:`Result`, or a list of (config, loss). With scale axes they are one more transfer
            rule (:mod:`hpo.scaling.earlier_studies`).
        objectives: "minimize" or "maximize" by name, for several objectives: the search improves
            the front of them. The first is the loss that is told, and its direction that of the
            search; the others are told among `metrics`, and "cost" is the cost. BoTorch is needed.
        constraints: Pair of "<=" or ">=" and a limit for each constrained value, by its name among
            the metrics, such as `{"memory": ("<=", 80e9)}`. Without `objectives` the loss is the
            only one.

    Attributes:
        space: The space searched.
        encoder: Encoder of its configs, on the declared scaling.
        log: Trials and results; all of the state.
        ledger: What the study has spent.
        target: Scale values of the final training; None if undeclared.
        objectives: Objectives and constraints; None for one loss.
        cost_unit: Unit of the costs; None if undeclared.
        lock: Held while anything is asked, told or read, so that threads may share an optimizer.

    Raises:
        SpaceError: If a space or target cannot be searched, as one whose `where` allows nothing, or
            a transfer rule does not fit it.
        ValueError: If another argument breaks a rule.

    Example:
        >>> from hpo import Float, Optimizer
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True)}, seed=0)
        >>> for _ in range(8):
        ...     trial = optimizer.ask()
        ...     _ = optimizer.tell(trial, loss=(trial.config["lr"] / 3e-3 - 1) ** 2)
        >>> 1e-3 < optimizer.result().best.config["lr"] < 1e-2
        True
    """

    def __init__(
        self,
        space: Mapping[str, Parameter | BaseDistribution] | SearchSpace,
        *,
        direction: DirectionName | Direction = Direction.MINIMIZE,
        cost: str | None = None,
        budget: Budget | None = None,
        target: Mapping[str, float] | None = None,
        priors: Priors = None,
        surrogate: str = "auto",
        seed: int = 0,
        driver: int = 0,
        other_tasks: GivenTasks = None,
        objectives: Mapping[str, str] | None = None,
        constraints: Mapping[str, tuple[str, float]] | None = None,
    ) -> None:
        seed, driver = _INDEX(seed, "`seed`"), _INDEX(driver, "`driver`")
        budget = Kind(Budget, optional=True, way_out="write Budget(trials=60)")(
            budget, "`budget`", TypeError
        )
        self.space = space if isinstance(space, SearchSpace) else SearchSpace(space)
        self.objectives = wanted_objectives(objectives, constraints, direction, self.space)
        if self.objectives is not None:
            direction = self.objectives.directions[self.objectives.first]
            if other_tasks:
                raise ValueError(
                    "`other_tasks` needs one loss without constraints, got objectives"
                    f" {list(self.objectives.directions)}; leave it out"
                )
        self.encoder = Encoder(self.space, direction)
        if self.space.where is not None:
            self.encoder.allowed_rows()  # refuses what allows nothing
        self.cost_unit = cost = UNIT(cost, "`cost`")
        self.target = None if target is None else check_target(self.space, target)
        self.lock = ThreadLock()
        self.log = TrialLog()
        self.ledger = Ledger(budget or Budget())
        if self.ledger.budget.until is not None:
            self._check_until()
        self._default_cost = DefaultCost.of(self.space) if cost is None else None
        self._told_a_cost = False  # while none is declared: then that is the unit
        # results of configs that were never asked, by what is equal where they are told again
        self._unasked: dict[_Outcome, list[Observation]] = {}
        self._seed, self._driver = seed, driver
        self._cost_aware = cost is not None or bool(self.space.scales)
        columns = self.encoder.columns
        tasks = read_other_tasks(other_tasks, self.space, self.encoder.direction)
        earlier = earlier_studies(self.encoder, tasks) if self.space.scales else None
        self._rules = rule_mixture(check_priors(priors), self.space, columns, earlier)
        drift = None if self._rules is None else self._rules.drift
        choice = check_surrogate(surrogate, self.space)
        if self.objectives is not None and choice is SurrogateChoice.QUANTILE:
            raise ValueError(
                "`surrogate` must be 'auto' or 'gp' for several objectives or constraints, got"
                " 'quantile': the volume needs joint posteriors, which trees have not"
            )
        self._hedge = LogScaleHedge(self.encoder, ScalingModel(drift), choice, tasks)
        self._several = (
            None if self.objectives is None else ObjectiveModels(self.encoder, self.objectives)
        )
        self._degraded = 0
        rng = np.random.default_rng([seed, driver, _STARTS_KEY])
        self._starts = starts(self.encoder, start_count(int(self.encoder.free.sum())), rng=rng)
        learned = self._hedge.declared.models.other_tasks
        self._portfolio = () if learned is None else learned.portfolio()
        if self._portfolio:
            rest = max(len(self._starts) - len(self._portfolio), 0)
            rows = [start.row for start in self._portfolio]
            self._starts = np.concatenate([rows, self._starts[:rest]])
        if self.target is not None:  # the law can choose sizes, so start at the smallest
            self._starts = self._starts[:_TARGET_STARTS]
            self._starts[:, self.encoder.columns.scale] = 0.0
        self._starts = self.encoder.repaired(self._starts)

    def _check_until(self) -> None:
        """Refuse a regret where there is no one best config to compare with."""
        way_out = "leave until= out, or use another limit"
        if self.space.scales:
            raise BudgetError(
                "Budget.until needs a space without Scale axes, whose best config differs from"
                f" size to size, got {list(self.space.scales)}; {way_out}"
            )
        if self.objectives is not None:
            raise BudgetError(
                f"Budget.until needs one loss without constraints, got {self.objectives}; {way_out}"
            )

    @serialized
    def ask(self, *, among: Sequence[Mapping[str, Any]] | None = None) -> Trial:
        """Propose a config and make it a pending trial.

        Args:
            among: The only configs that may be run now; see :meth:`propose`.

        Returns:
            The trial, whose `config` is to be run and then told.

        Example:
            >>> from hpo import Int, Optimizer
            >>> optimizer = Optimizer({"layers": Int(1, 4)})
            >>> first, second = optimizer.ask(), optimizer.ask()
            >>> first.config != second.config
            True
        """
        proposal = self.propose(among=among)
        trial = Trial(
            self.log.next_number, proposal.config, proposal.ask_index, proposal.prediction
        )
        self.add_pending(trial)
        return trial

    @serialized
    @single_threaded
    def propose(
        self,
        *,
        among: Sequence[Mapping[str, Any]] | None = None,
        index: int | None = None,
    ) -> Proposal:
        """Return the next config to try, without recording it.

        No numerical error is raised: a model that cannot be fitted falls back to its last good fit,
        and an ask without any model explores. The prediction is then marked as degraded and counts
        the fallbacks.

        Args:
            among: The only configs that may be run now, such as the model shapes that exist or
                those that the rest of a budget can pay for; None for every config of the space. A
                config that was asked before is asked again only when all of them were.
            index: Index of this ask, the key of its random choices. None takes the next one of the
                log. Processes that ask at the same time, with the same log and seed, must each pass
                a different index.

        Returns:
            The config with its index and the models' prediction.

        Raises:
            ValueError: If `among` is empty or `index` negative.
            SpaceError: If a config in `among` does not belong to the space, or `where` forbids it.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)}, seed=1)
            >>> optimizer.propose(among=[{"x": 0.25}]).config
            {'x': 0.25}
        """
        return self._propose(self.target, among=among, index=index, only_target=False)

    @serialized
    @single_threaded
    def propose_at(
        self,
        target: Mapping[str, float],
        *,
        among: Sequence[Mapping[str, Any]] | None = None,
        index: int | None = None,
    ) -> Proposal:
        """Return the config that teaches most about the best one at `target` per unit of cost.

        Unlike :meth:`propose`, it spends no ask on the front of loss against cost.

        Args:
            target: One positive value for each scale axis.
            among: See :meth:`propose`.
            index: See :meth:`propose`.

        Returns:
            The config with its index and the models' prediction.

        Raises:
            ValueError: If `among` is empty or `index` negative.
            SpaceError: If the target or a config in `among` does not fit the space.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
            >>> optimizer = Optimizer(space, seed=0)
            >>> for lr, params in [(1e-3, 1e5), (1e-2, 1e5), (1e-3, 1e6), (1e-2, 1e6)]:
            ...     _ = optimizer.tell({"lr": lr, "params": params}, 2.0 + lr, cost=6.0 * params)
            >>> proposal = optimizer.propose_at({"params": 1e9})
            >>> proposal.prediction.reason.kind.value
            'learn target'
            >>> 1e5 <= proposal.config["params"] <= 1e7  # a small run teaches about the large one
            True
        """
        checked = check_target(self.space, target)
        return self._propose(checked, among=among, index=index, only_target=True)

    def _propose(
        self,
        target: Mapping[str, float] | None,
        *,
        among: Sequence[Mapping[str, Any]] | None,
        index: int | None,
        only_target: bool,
    ) -> Proposal:
        """Return a proposal, falling back to exploring where a model fails."""
        if index is None:
            index = self.log.next_ask_index
        index = Count(0, most=2**53, way_out="None takes the log's next one")(index, "`index`")
        self._hedge.sync(self.log)
        if self._several is not None:
            self._several.sync(self.log)
        degraded = self._degraded + self._fallbacks
        ask = self._ask(target, index, among, only_target)
        try:
            suggestion = carry_out(STRATEGIES[ask.turn](ask), ask)
        except ArithmeticError as fault:
            self._degraded += 1
            suggestion = carry_out(explore(ask), ask)
            failed = replace(suggestion.reason, kind=ReasonKind.MODEL_FAILED, text=str(fault))
            suggestion = replace(suggestion, reason=failed)
        config = ask.encoder.decode(suggestion.row[None, :])[0]
        fallbacks = self._degraded + self._fallbacks
        prediction = self._predict(ask.warp, suggestion, fallbacks > degraded, fallbacks)
        return Proposal(config, index, prediction)

    def _ask(
        self,
        target: Mapping[str, float] | None,
        index: int,
        among: Sequence[Mapping[str, Any]] | None,
        only_target: bool,
    ) -> Ask:
        """Gather what is known for one ask."""
        # configs told without having been asked take the place of start points
        place = index + sum(o.ask_index is None for o in self.log.observations)
        start = self._start(place)
        starting = start is not None
        plain = starting or self._several is not None
        warp = self._hedge.declared if plain else self._hedge.for_ask(index)
        warp.selector.sync()
        encoder, partial = warp.encoder, warp.models.partial_runs
        pending = encoder.encode([partial.at_current_level(trial) for trial in self.log.pending])
        told = [o.config for o in (*self.log.observations, *self.log.paused)]
        asked = [*told, *(trial.config for trial in self.log.pending)]
        cap = self.ledger.cost_cap
        # cost levels are spread evenly over the asks that walk the front
        walk = index if target is None else index // FRONT_EVERY
        return Ask(
            warp=warp,
            turn=whose_turn(
                warp,
                index=index,
                starting=starting,
                has_target=target is not None,
                only_target=only_target,
                objectives=self._several,
            ),
            index=index,
            pending=pending,
            taken=encoder.encode([partial.at_full_fidelity(config) for config in asked]),
            pool=None if among is None else self._pool(encoder, among),
            limits=CostLimits(math.log(cap) if cap else None, radical_inverse(walk + 1, 2)),
            cost_aware=self._cost_aware,
            target=None if target is None else self._target_row(target),
            start=start,
            objectives=self._several,
            rng=np.random.default_rng([self._seed, self._driver, index]),
        )

    @property
    def _fallbacks(self) -> int:
        """Number of times that a model could not be built and an earlier fit of it was used."""
        several = 0 if self._several is None else self._several.fallbacks
        return self._hedge.fallbacks + several

    def _start(self, place: int) -> Start | None:
        """Return the start point at a place; None from where the models choose."""
        if place >= len(self._starts):
            return None
        if place < len(self._portfolio):
            others = self._portfolio[place].other_tasks
            return Start(self._starts[place], place + 1, len(self._portfolio), others)
        if self._portfolio and self._hedge.declared.models.follows_other_tasks:
            return None  # the other tasks stand in for the rest of the design
        return Start(self._starts[place], place + 1, len(self._starts))

    @serialized
    def add_pending(self, trial: Trial) -> None:
        """Record a trial as pending; recording it again changes nothing.

        Args:
            trial: Trial asked here or elsewhere.

        Raises:
            StudyError: If another trial or result has its number.

        Example:
            >>> from hpo import Float, Optimizer
            >>> space = {"x": Float(0, 1)}
            >>> first, second = Optimizer(space, driver=0), Optimizer(space, driver=1)
            >>> trial = first.ask()
            >>> second.add_pending(trial)
            >>> [pending.config == trial.config for pending in second.log.pending]
            [True]
            >>> second.ask().number  # numbers go on after it
            1
        """
        self.log.add(Kind(Trial, way_out="pass what `ask` returned")(trial, "`trial`"))
        self.ledger.register(trial, self.log.carried(trial.number))

    @serialized
    def tell(
        self,
        trial: Trial | int | Mapping[str, Any],
        loss: float | None = None,
        cost: float | None = None,
        *,
        failed: Cause | str | None = None,
        stopped: bool = False,
        seconds: float | None = None,
        reports: Sequence[Report] = (),
        metrics: Mapping[str, Any] | None = None,
        branches: Sequence[Mapping[str, float]] | None = None,
    ) -> Observation:
        """Record a result. Telling the same result twice changes nothing.

        Args:
            trial: Asked trial, its number, or a config that was never asked for; such a config may
                lie beyond the searched scales, as a run at the target does.
            loss: Loss in the user's direction. NaN and infinities are recorded as `diverged`.
            cost: Cost of the run, >= 0, also of a failed one; None if unknown. In a study that
                declares no unit and was told no cost before, it is then derived from the config
                (:mod:`hpo.trials.default_cost`).
            failed: "oom", "diverged", "timeout", "error" or "lost" in place of a loss.
            stopped: Whether the run was ended early on purpose, so that `loss` is not its final
                one.
            seconds: Wall-clock time of the run.
            reports: Reports that the run made, kept with the result.
            metrics: Other numbers or texts, kept with the result; True and False are 1 and 0, None
                is dropped. Of several objectives all but the first are told here, and must be for
                a completed run; one that is not finite makes it `diverged`.
            branches: Losses that the run found on its way as those of runs of other sizes, such as
                `{"tokens": 1e6, "loss": 2.5}`, which the law learns too. `cost` includes what they
                took.

        Returns:
            The observation, or the earlier one that says the same.

        Raises:
            TypeError: If loss, cost or seconds is not a number, or `trial` is of a wrong type.
            ValueError: If the cost is negative or not finite, there is neither loss nor failure, or
                `failed` is not a known cause.
            SpaceError: If a config does not belong to the space.
            KeyError: If a number was never asked.
            StudyError: If the trial already has a different result.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)}, cost="seconds")
            >>> optimizer.tell({"x": 0.5}, loss=1.25, cost=30.0).status.value
            'completed'
            >>> optimizer.tell({"x": 0.9}, failed="oom", cost=2.0).cause.value
            'oom'
        """
        loss, cost = number("loss", loss), number("cost", cost)
        seconds = number("seconds", seconds)
        cause = Member(Cause, optional=True, way_out="pick one")(failed, "`failed`")
        stopped = Flag()(stopped, "`stopped`")
        if cause is None and loss is not None and not math.isfinite(loss):
            cause = Cause.DIVERGED
        if cause is None and loss is None and not stopped:
            raise ValueError("`tell` needs a loss, failed=... or stopped=True; got none of them")
        if cost is not None and not (math.isfinite(cost) and cost >= 0):
            raise ValueError(
                f"`cost` must be finite and >= 0, got {cost}; pass None if it is unknown"
            )
        told, config, ask_index = self._identify(trial)
        done = Status.STOPPED if stopped else Status.COMPLETED
        observation = Observation(
            number=told,
            config=config,
            loss=None if loss is None or not math.isfinite(loss) else loss,
            cost=cost,
            status=done if cause is None else Status.FAILED,
            cause=cause,
            order=self.log.next_order,
            ask_index=ask_index,
            seconds=seconds,
            reports=reports,  # type: ignore[arg-type]  # checked and stored as a tuple
            metrics={} if metrics is None else metric_values(metrics, texts=True),
            branches=BranchLoss.read(branches, self.space.scales),
        )
        if cost is None:
            observation = self._with_default_cost(observation)
        observation = self._with_all_objectives(observation)
        before = self._told_before(observation)
        if before is not None:
            return before
        self.record(observation)
        return observation

    def _with_all_objectives(self, observation: Observation) -> Observation:
        """Return a completed run as it is, or as diverged where an objective is not finite.

        Raises:
            ValueError: If it lacks an objective or a constrained value.
        """
        wanted = self.objectives
        if wanted is None or observation.status is not Status.COMPLETED:
            return observation
        if wanted.missing(observation):
            raise ValueError(
                f"`metrics` must hold {list(wanted.missing(observation))} of a completed run, got"
                f" {sorted(observation.metrics)}; tell(..., metrics={{...}}) or failed=..."
            )
        if wanted.values(observation) is not None:
            return observation
        return replace(observation, status=Status.FAILED, cause=Cause.DIVERGED, loss=None)

    @serialized
    def with_default_cost(self, observation: Observation) -> Observation:
        """Return an observation whose cost was not told with the cost that is derived for it.

        It is unchanged where the study declares a cost, or nothing is known of it.

        Args:
            observation: Result of a trial of the log, or of a config that was never asked, without
                a cost.

        Example:
            >>> from hpo import Fidelity, Float, Observation, Optimizer, Status
            >>> optimizer = Optimizer({"x": Float(0, 1), "epochs": Fidelity(1, 9)})
            >>> config = {"x": 0.5, "epochs": 9}
            >>> told = Observation(0, config, 0.25, None, Status.COMPLETED, None, 0, ask_index=None)
            >>> optimizer.with_default_cost(told).cost
            9.0
        """
        if self._default_cost is None or self._told_a_cost or observation.cause is Cause.LOST:
            return observation
        return replace(observation, cost=self.cost_at(observation, self._level(observation)))

    def cost_at(self, run: Trial | Observation, level: int | None) -> float | None:
        """Return the cost of a run up to a level where the study declares none; else None.

        Args:
            run: Trial or result.
            level: Level of the fidelity; None for that of its config.

        Example:
            >>> from hpo import Fidelity, Float, Optimizer
            >>> space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
            >>> plain, declared = Optimizer(space), Optimizer(space, cost="flops")
            >>> plain.cost_at(plain.ask(), 3), declared.cost_at(declared.ask(), 3)
            (3.0, None)
        """
        return None if self._default_cost is None else self._default_cost.of_run(run.config, level)

    def as_priced_now(self, stored: Observation) -> Observation:
        """Return a stored observation with its cost as it is counted now.

        Earlier versions stored measured seconds as the cost where none was declared.

        Args:
            stored: Observation read from storage.

        Example:
            >>> from hpo import Fidelity, Float, Observation, Optimizer, Status
            >>> optimizer = Optimizer({"x": Float(0, 1), "epochs": Fidelity(1, 9)})
            >>> config = {"x": 0.5, "epochs": 9}
            >>> old = Observation(0, config, 0.25, 1.75, Status.COMPLETED, None, 0, None, 1.75)
            >>> new = optimizer.as_priced_now(old)
            >>> new.cost, new.seconds
            (9.0, 1.75)
        """
        measured = stored.cost is not None and stored.cost == stored.seconds
        if self.cost_unit is not None or not measured:
            return stored
        return self.with_default_cost(replace(stored, cost=None))

    @serialized
    def record(self, observation: Observation) -> None:
        """Record an observation made elsewhere, such as one read back from storage.

        Args:
            observation: Result of a trial of the log, or of a config that was never asked.

        Raises:
            StudyError: If the trial has another config or already a different result.

        Example:
            >>> from hpo import Float, Optimizer
            >>> space = {"x": Float(0, 1)}
            >>> first, second = Optimizer(space), Optimizer(space)
            >>> observation = first.tell({"x": 0.25}, loss=1.5)
            >>> second.record(observation)
            >>> second.result().best.loss
            1.5
        """
        self.log.tell(Kind(Observation)(observation, "`observation`"))
        self.ledger.charge(observation)
        if observation.ask_index is None:
            self._unasked.setdefault(_outcome(observation), []).append(observation)
        if self._default_cost is not None and observation.status is Status.COMPLETED:
            default = self.cost_at(observation, self._level(observation))
            self._told_a_cost |= observation.cost not in (None, default)

    def _with_default_cost(self, observation: Observation) -> Observation:
        """Do the same for what a user tells, who may tell it again after a first cost was told."""
        if self._default_cost is None or observation.cause is Cause.LOST:
            return observation
        default = replace(observation, cost=self.cost_at(observation, self._level(observation)))
        known = self.log.observation(observation.number)
        again = known is not None and known.same_result(default)
        again = again or self._told_before(default) is not None
        return default if again else self.with_default_cost(observation)

    def _level(self, observation: Observation) -> int | None:
        """Return the level up to which a run trained; None for that of its config."""
        if self.space.fidelity is None:
            return None
        level: int = observation.config[self.space.fidelity]
        assignment = self.log.assignment(observation.number)
        if assignment is not None:
            level = min(level, assignment.level)
        if observation.status in (Status.STOPPED, Status.FAILED):  # perhaps before it got there
            reports = self.log.reports(observation.number) or observation.reports
            level = min(level, reports[-1].step) if reports else level
        return level

    @serialized
    def tell_many(self, runs: History) -> int:
        """Record earlier runs, which the budget does not count; no run is told twice.

        A run's identity is its config, its result, and how many equal runs came before it
        (:attr:`Runs.keys`): telling the same source again changes nothing, and of a source that has
        grown the new runs are told. Runs that the space cannot hold are left out with a warning.

        Args:
            runs: What :func:`hpo.read_runs` returned or can read, a `Result`, or observations;
                numbers and orders are given anew.

        Returns:
            How many runs were new.

        Raises:
            SpaceError: If the space can hold none of the runs.
            ValueError: If the runs cannot be read, or have another direction than the search.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True)})
            >>> rows = [{"lr": 1e-3, "loss": 2.5}, {"lr": 1e-2, "loss": 2.1}]
            >>> optimizer.tell_many(rows), optimizer.tell_many(rows)
            (2, 0)
            >>> optimizer.result().best_observed.loss
            2.1
        """
        observations = earlier_runs(runs, self.space, self.encoder.direction, self.cost_unit)
        known = set(run_keys(o for o in self.log.observations if o.ask_index is None))
        new = 0
        for key, observation in zip(run_keys(observations), observations, strict=True):
            if key in known:
                continue
            number, order = self.log.next_number, self.log.next_order
            self.ledger.exclude(number)
            run = replace(observation, number=number, order=order, ask_index=None)
            self.record(run if run.cost is not None else self.with_default_cost(run))
            new += 1
        return new

    @serialized
    def recommend(self, target: Mapping[str, float] | None = None) -> Recommendation:
        """Return the config to train with, at `target` if the space has scale axes.

        Args:
            target: One positive value per scale axis; see :meth:`Result.recommend`.

        Returns:
            The recommended config, with intervals and warnings.

        Raises:
            SpaceError: If the target does not fit the space.
            ValueError: Before any trial was completed.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> for x in (0.1, 0.3, 0.5, 0.7, 0.9):
            ...     _ = optimizer.tell({"x": x}, loss=(x - 0.5) ** 2)
            >>> advice = optimizer.recommend()
            >>> round(advice.config["x"], 1)
            0.5
        """
        return self.result().recommend(target)

    @serialized
    @single_threaded
    def result(self) -> Result:
        """Return the result of the trials so far, as a snapshot that later tells do not change.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> _ = optimizer.tell({"x": 0.1}, loss=0.16)
            >>> before = optimizer.result()
            >>> _ = optimizer.tell({"x": 0.4}, loss=0.01)
            >>> before.best.config, optimizer.result().best.config
            ({'x': 0.1}, {'x': 0.4})
        """
        self._hedge.sync(self.log)
        warp = self._hedge.most_likely()
        warp.selector.sync()
        return Result(
            self.log.snapshot(),
            warp.snapshot(),
            self.target,
            self.cost_unit,
            rules=self._rules,
            budget=self.ledger.budget,
            spent=self.ledger.spent,
            objectives=self.objectives,
        )

    @serialized
    @single_threaded
    def expected_regret(self) -> float | None:
        """Return what is expected to be lost by stopping now, in units of the objective.

        See :attr:`Result.expected_regret`.

        Example:
            >>> from hpo import Float, Optimizer
            >>> optimizer = Optimizer({"x": Float(0, 1)})
            >>> optimizer.expected_regret() is None  # before enough runs
            True
        """
        self._hedge.sync(self.log)
        return expected_regret(self._hedge.most_likely().models)

    @property
    def forecast(self) -> Forecast | None:
        """Forecast of paused and running trials, for a scheduler; None without a fidelity.

        With scale axes each run's own learning curve is extrapolated. Otherwise the model of the
        loss over configs and levels is used.

        Example:
            >>> from hpo import ASHA, Fidelity, Float, Optimizer, StagedOptimizer
            >>> optimizer = Optimizer({"x": Float(0, 1), "epochs": Fidelity(1, 9)}, seed=0)
            >>> staged = StagedOptimizer(optimizer, ASHA())
            >>> for loss in (0.1, 0.9):
            ...     _ = staged.tell(staged.ask(), loss=loss, cost=1.0)
            >>> first, second = optimizer.forecast.probability_of_best(optimizer.log, [0, 1])
            >>> bool(first > second)
            True
        """
        if self.space.fidelity is None:
            return None
        return CurveForecast(self.encoder) if self.space.scales else self._hedge

    def _pool(self, encoder: Encoder, among: Sequence[Mapping[str, Any]]) -> Array:
        """Return `among` as rows."""
        among = _AMONG(among, "`among`")
        if not len(among):
            raise ValueError("`among` must hold at least one config, got none; None allows all")
        configs = [self.space.canonical(config) for config in among]
        for config in configs:
            if not self.space.allows(config):
                raise SpaceError(
                    f"`among` must hold only configs that `where` ({self.space.where}) allows, got"
                    f" {shown(config)}; leave it out"
                )
        return encoder.encode(configs)

    def _target_row(self, target: Mapping[str, float]) -> Array:
        """Return encoded scale values of the target, `(scales,)`."""
        columns = self.encoder.columns
        natural = np.log([target[columns.names[j]] for j in columns.scale])
        return np.asarray((natural - columns.origin[columns.scale]) / columns.width[columns.scale])

    def _predict(
        self, warp: InputWarp, suggestion: Suggestion, degraded: bool, fallbacks: int
    ) -> Prediction:
        """Return what the models expect of a row."""
        models, row = warp.models, suggestion.row[None, :]
        loss: Expected | None = None
        cost: Expected | None = None
        try:
            if len(models.data):
                model = models.loss_at_full_fidelity()
                loss = loss_forecast(warp, row, model=model, forest=suggestion.forest)
            price = models.cost()
            if price is not None:
                cost = cost_forecast(warp, row, model=price)
        except ArithmeticError:
            degraded, fallbacks = True, fallbacks + 1
            self._degraded += 1
        success = models.success()
        return Prediction(
            loss=None if loss is None else loss.mean,
            loss_interval=None if loss is None else loss.interval,
            cost=None if cost is None else cost.mean,
            cost_interval=None if cost is None else cost.interval,
            success=_ASSUMED if success is None else float(success.probability(row)[0]),
            degraded=degraded,
            fallbacks=fallbacks,
            reason=suggestion.reason,
            direction=Direction.of_sign(self.encoder.loss_sign),
        )

    def _identify(
        self, trial: Trial | int | Mapping[str, Any]
    ) -> tuple[int, dict[str, Any], int | None]:
        """Return number, config and ask index of the trial meant; a bare config has no index."""
        if isinstance(trial, Mapping):
            return self.log.next_number, self.space.validate(trial, extrapolate=True), None
        value = scalar(trial)
        number = None if isinstance(value, float) else whole(value)
        if number is None and not isinstance(trial, Trial):
            raise TypeError(
                f"`trial` must be a Trial, its number or a config, got {shown(trial)};"
                " pass what `ask` returned"
            )
        try:
            known = trial if isinstance(trial, Trial) else self.log.trial(number or 0)
        except KeyError:
            raise UnknownNameError(
                f"`trial` must be the number of a trial that was asked, got {shown(trial)}; tell"
                " the config itself if it ran elsewhere"
            ) from None
        return known.number, known.config, known.ask_index

    def _told_before(self, new: Observation) -> Observation | None:
        """Return the observation of a never-asked config that equals `new`, if any."""
        if new.ask_index is not None:
            return None
        same = (old for old in self._unasked.get(_outcome(new), ()) if old.config == new.config)
        return next(same, None)


def _outcome(observation: Observation) -> _Outcome:
    return observation.loss, observation.cost, observation.cause


def number(name: str, value: object) -> float | None:
    """Return `value` as a float; see :func:`hpo.space.scalars.real` for what is a number.

    Args:
        name: Name of the argument, for the message.
        value: A number or None.

    Raises:
        TypeError: If it is anything else, booleans and strings included.

    Example:
        >>> import numpy as np
        >>> number("loss", np.float32(0.5))
        0.5
    """
    if value is None:
        return None
    given = real(value)
    if given is None:
        raise TypeError(f"`{name}` must be one number, got {shown(value)}; return a float")
    return given


def wanted_objectives(
    objectives: Mapping[str, str] | None,
    constraints: Mapping[str, tuple[str, float]] | None,
    direction: DirectionName | Direction,
    space: SearchSpace,
) -> Objectives | None:
    """Return the objectives and constraints that were asked for; None for one loss.

    Args:
        objectives: Direction of each objective by name; None for the loss alone.
        constraints: Side and limit by name; None for none.
        direction: Direction of the loss.
        space: Space to be searched.

    Raises:
        ImportError: If BoTorch cannot be imported.
        SpaceError: If the space has scale axes.
        ValueError: For objectives, constraints or a direction that break a rule.

    Example:
        >>> from hpo import Float
        >>> space = SearchSpace({"x": Float(0, 1)})
        >>> wanted = {"loss": "minimize", "latency": "minimize"}
        >>> print(wanted_objectives(wanted, {"memory": ("<=", 8)}, "minimize", space))
        minimize loss, minimize latency, memory <= 8
    """
    found = Objectives.of(objectives, constraints)
    if found is None:
        return None
    given = Direction.of(direction)
    found = found.with_direction(given)
    first = found.directions[found.first]
    if given is Direction.MAXIMIZE and first is not given:
        raise ValueError(
            f"`direction` must be that of the first objective, {found.first!r}: {first.value!r},"
            f" got {given.value!r}; leave it out"
        )
    if space.scales:
        raise SpaceError(
            "several objectives and constraints need a space without Scale axes, got"
            f" {list(space.scales)}; make them Int or Float, and the cost an objective"
        )
    check_botorch()
    return found


def check_surrogate(name: str, space: SearchSpace) -> SurrogateChoice:
    """Return the surrogates that may model the loss over `space`.

    Args:
        name: "auto", "gp" or "quantile".
        space: Space to be searched.

    Raises:
        ValueError: If the name is unknown.
        SpaceError: If the forest is named for a space with scale axes.
    """
    choice = SurrogateChoice.of(name)
    if not space.scales:
        return choice
    if choice is SurrogateChoice.QUANTILE:
        raise SpaceError(
            f"`surrogate` must be 'auto' or 'gp' for a space with scale axes {list(space.scales)},"
            " got 'quantile': trees do not extrapolate to sizes nobody ran"
        )
    return SurrogateChoice.GP
