"""The Optuna sampler.

    study = optuna.create_study(
        sampler=ScaleTuneSampler({"params": Scale(1e5, 1e7, axis=Axis.PARAMS)}, cost="flops"),
        pruner=ScaleTunePruner(ASHA(kind=ASHAVariant.STOPPING), Fidelity(1, 81)),
    )
    study.optimize(objective, n_trials=100)

Storage, heartbeat and dashboards stay Optuna's; the sampler keeps nothing but caches. What it
proposed for a trial and what it predicted are one system attribute of that trial
(`scaletune:asked`, in chunks), so that other workers see a running trial's parameters before they
are suggested.

How a study becomes the engine's log:

=====================================  ============================================================
complete trial                         completed run at full fidelity
its intermediate values                runs of lower fidelity, once trials have been pruned
pruned trial                           completed run at the fidelity of its last finite value;
                                       unknown if that step is beyond the declared fidelity
value or last report infinite or NaN   failed: diverged
a constraint above 0                   failed: the search learns where constraints hold
failed trial                           failed; user attribute "failed" may say oom, timeout, ...;
                                       lost, which is ignored, if Optuna has retried it
running trial                          pending
=====================================  ============================================================
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from hpo.adapters.amounts import amount_or_none
from hpo.adapters.optuna.attributes import ASKED, write_attribute
from hpo.adapters.optuna.define_by_run import (
    Condition,
    ParameterAdapter,
    declared_condition,
    parameter_adapters,
    without_condition,
)
from hpo.adapters.optuna.engine import SyncedOptimizer
from hpo.adapters.optuna.space_view import SpaceView, engine_name
from hpo.adapters.optuna.study_cache import PerStudy, StudyCache
from hpo.adapters.optuna.trial_reader import TrialReader, engine_direction, limit_name
from hpo.errors import SpaceError
from hpo.optimizer.ask_tell import Optimizer, check_surrogate
from hpo.optimizer.recommend import check_target
from hpo.scaling.claims import Priors
from hpo.scaling.drift_prior import check_priors
from hpo.scaling.rule_mixture import rule_mixture
from hpo.space import Fidelity, Float, Parameter, Scale, SearchSpace
from hpo.space.arguments import Count
from hpo.space.encoding import Encoder
from hpo.space.parameters import condition
from hpo.trials.records import UNIT

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["ScaleTuneSampler"]

_KEEPING = 4  # first trials with a parameter that was added, which keep the other values
_MOST_OPTIMIZERS = 32  # kept for one study: one for each space and scalarization met lately
_RETRIES = 3  # proposals after one that another worker has made at the same moment
_log = logging.getLogger(__name__)


class ScaleTuneSampler(BaseSampler):
    """Samples all parameters of a trial together, from a model of loss, cost and failure.

    The search space is learned from what the objective suggests, conditions included: a parameter
    that is suggested only under some choices of another, or from some count on, is modeled so.
    What cannot be foreseen, such as everything in a first trial, is drawn at random and logged
    once.

    Several objectives and their constraints are modeled each on its own, and a trial is to add most
    to the volume that the front dominates (docs/several_objectives.md). With scale axes they are
    searched for one scalarization at a time: each trial minimizes an augmented Tchebycheff norm
    whose weights follow a low-discrepancy sequence (ParEGO, Knowles, IEEE TEC 2006). Of the
    constraints of a single objective only the sign is used, not how far above 0 they are.

    Args:
        space: Parameters of which something is known beforehand: their role, center, log-odds scale
            or condition, and which are scale axes. A `Scale` that is not suggested is read from a
            user attribute of its name; set it before the first `suggest` and the sampler proposes
            for that scale. A `Fidelity` gives the range of steps that are reported; without one it
            reaches to the last step of any complete trial.
        cost: Unit of the costs, and the user attribute that holds a trial's; "seconds" are measured
            where there is no such attribute. Naming one makes the search cost-aware. None derives
            costs from the config (:mod:`hpo.trials.default_cost`): durations never decide.
        target: Scale values to train at in the end.
        priors: Transfer rules (:mod:`hpo.scaling.transfer_rules`); their roles must be in `space`.
        surrogate: Model of the loss, as for `hpo.optimize`.
        seed: Seed of every random choice; None draws one.

    Raises:
        SpaceError: For a space, target or rule that does not fit.
        ValueError: For a negative seed or an unknown surrogate.

    Example:
        >>> import optuna
        >>> from hpo.adapters.optuna import ScaleTuneSampler
        >>> def objective(trial):
        ...     x, y = trial.suggest_float("x", -5, 5), trial.suggest_float("y", -5, 5)
        ...     return (x - 1) ** 2 + (y + 2) ** 2
        >>> study = optuna.create_study(sampler=ScaleTuneSampler(seed=0))
        >>> study.optimize(objective, n_trials=12)
        >>> study.best_value < 1.0
        True
    """

    def __init__(
        self,
        space: Mapping[str, Parameter] | None = None,
        *,
        cost: str | None = None,
        target: Mapping[str, float] | None = None,
        priors: Priors = None,
        surrogate: str = "auto",
        seed: int | None = None,
    ) -> None:
        if isinstance(space, SearchSpace) and space.where is not None:
            raise SpaceError(
                f"`space` must have no `where`, got {space.where}: parameters are suggested one by"
                " one, so nobody checks a whole config; raise optuna.TrialPruned for those that"
                " may not run, or call hpo.optimize"
            )
        undeclared = space is None or (isinstance(space, Mapping) and not space)
        declared = {} if undeclared else dict(SearchSpace(space))  # type: ignore[arg-type]
        if declared:
            known = SearchSpace(declared)
            rule_mixture(check_priors(priors), known, Encoder(known).columns)
            target = None if target is None else check_target(known, target)
        elif check_priors(priors) or not (target is None or target == {}):
            raise SpaceError("`target` and `priors` need `space`; declare the scale axes and roles")
        # Without anything declared, one parameter stands for all: only the name is checked.
        check_surrogate(surrogate, SearchSpace(declared or {"x": Float(0, 1)}))
        seed = Count(0, optional=True, way_out="pass a seed such as 0")(seed, "`seed`")
        fidelities = [p for p in declared.values() if isinstance(p, Fidelity)]
        self._fidelity = fidelities[0] if fidelities else None
        self._declared = {n: p for n, p in declared.items() if not isinstance(p, Fidelity)}
        self._cost = UNIT(cost, "`cost`")
        self._target = target
        self._priors = priors
        self._surrogate = surrogate
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._caches: PerStudy[StudyCache] = PerStudy()

    def reseed_rng(self) -> None:
        """Do nothing: random choices are keyed by the seed and the trial's number."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return every parameter suggested so far that is declared or whose presence is understood.

        Understood are rules that all trials follow, and what most of the latest trials had.
        """
        with self._caches.lock:
            observed = self._updated_cache(study).observed
            declared = (name for name in self._declared if name in observed.distributions)
            return {
                name: observed.distributions[name]
                for name in dict.fromkeys([*observed.space(), *declared])
                if not observed.distributions[name].single()
            }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return values for the active parameters of `search_space`, chosen together."""
        with self._caches.lock:
            cache = self._updated_cache(study)
            adapters = self._adapters(search_space, cache)
            if not adapters:
                return {}
            scales = self._given_scales(trial, adapters, cache)
            began = self._began(trial.number, adapters, cache)
            kept = self._kept(study, trial.number, began, adapters, cache)
            given = SpaceView(adapters).to_engine(kept | _settled(trial)) | scales
            for attempt in range(1 + _RETRIES):
                optimizer = self._optimizer(study, cache, adapters, trial.number, scales)
                proposal = optimizer.propose(
                    trial.number, given, attempt, began=began, seed=self._seed
                )
                params = optimizer.params(proposal, given)
                asked = optimizer.view.to_json(params)
                asked["belief"] = proposal.prediction.to_json()
                write_attribute(study, trial, ASKED, asked)
                cache.proposals[trial.number] = asked
                others = cache.update(study.get_trials(deepcopy=False))
                reason = proposal.prediction.reason
                everything_tried = reason is not None and reason.repeated
                if everything_tried or not optimizer.taken(params, others, by=trial.number):
                    break
            # Optuna compares the choices of a storage with the objective's, so choices that JSON
            # changes, such as tuples, are handed out by their positions in `sample_independent`.
            return {
                name: params[name]
                for name, distribution in search_space.items()
                if name in params and _is_plain(distribution)
            }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a declared parameter as it was proposed, and any other one at random."""
        with self._caches.lock:
            cache = self._cache(study)
            proposed = cache.proposals.get(trial.number, {"inner": {}, "declared": {}})
            inner = proposed["inner"].get(param_name)
            if inner is None and param_name in proposed["declared"]:
                inner = _inner(param_distribution, proposed["declared"][param_name])
            if inner is not None and param_distribution._contains(inner):
                return param_distribution.to_external_repr(inner)
            if cache.observed.trials and param_name not in cache.warned:
                cache.warned.add(param_name)
                if not param_distribution.single() and param_name not in self._declared:
                    _log.warning(
                        "%r is drawn at random in trial %d: its range or condition could not be "
                        "foreseen from earlier trials; declare it with space={%r: ...}",
                        param_name,
                        trial.number,
                        param_name,
                    )
        key = [self._seed, trial.number, zlib.crc32(param_name.encode())]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def _cache(self, study: Study) -> StudyCache:
        """What was read of `study` at the last look."""
        return self._caches.get(study, StudyCache)

    def _updated_cache(self, study: Study) -> StudyCache:
        """What was read of `study`, with what is new in it."""
        cache = self._cache(study)
        for trial in cache.update(study.get_trials(deepcopy=False)):
            self._check_steps(trial, cache)
        return cache

    def _check_steps(self, trial: FrozenTrial, cache: StudyCache) -> None:
        """Say once that steps are reported which the declared fidelity does not have."""
        last, fidelity = trial.last_step, self._fidelity
        if fidelity is None or last is None or last <= fidelity.high or cache.warned_of_steps:
            return
        cache.warned_of_steps = True
        _log.warning(
            "trial %d reports step %d, but the declared fidelity ends at %d: what pruned trials of "
            "such steps have reached is not used; report in the unit of the fidelity, or declare "
            "it in the unit of the steps",
            trial.number,
            last,
            fidelity.high,
        )

    def _adapters(
        self, search_space: Mapping[str, BaseDistribution], cache: StudyCache
    ) -> dict[str, ParameterAdapter]:
        """Parameters to search together: those of `search_space`, and declared ones never seen."""
        observed = cache.observed
        unseen = {
            name: parameter
            for name, parameter in self._declared.items()
            if name not in observed.distributions
            and (isinstance(parameter, Scale) or name not in cache.unsuggested)
        }
        for name in cache.unsuggested - observed.distributions.keys() - cache.warned:
            if name in self._declared and name not in unseen:
                cache.warned.add(name)
                _log.warning(
                    "%r is declared in `space`, but the objective did not suggest it", name
                )
        declared: dict[str, Parameter] = {
            **{n: p for n, p in self._declared.items() if n in search_space},
            **unseen,
        }
        for name, parameter in declared.items():
            when = declared_condition(parameter)
            if when is not None and observed.contradicts(name, when):
                declared[name] = without_condition(parameter)
                self._warn_of_condition(cache, name, when)
        return parameter_adapters(search_space, cache.observed.space(), declared)

    def _warn_of_condition(self, cache: StudyCache, name: str, when: Condition) -> None:
        """Say once that trials contradict a declared `when`."""
        if name not in cache.warned_of_condition:
            cache.warned_of_condition.add(name)
            _log.warning(
                "%r was suggested where its declared when=%r says that it has no place; when it is "
                "active is learned from the trials instead: correct `when` in space=, or leave it "
                "out",
                name,
                when,
            )

    def _began(
        self, number: int, adapters: Mapping[str, ParameterAdapter], cache: StudyCache
    ) -> int:
        """Number of the first trial over the space of `adapters`, at most `number`."""
        for adapter in adapters.values():
            new = adapter.distribution is None and not isinstance(adapter.parameter, Scale)
            if new and condition(adapter.parameter) is None:
                return min(1 + max((trial.number for trial in cache.finished), default=-1), number)
        return min(cache.observed.began(), number)

    def _kept(
        self,
        study: Study,
        number: int,
        began: int,
        adapters: Mapping[str, ParameterAdapter],
        cache: StudyCache,
    ) -> dict[str, Any]:
        """Values of the best earlier trial that the first trials over a larger space keep.

        What was found before a parameter was added is the best guess with it: first the new one is
        varied alone.
        """
        if len(study.directions) > 1 or number - began >= _KEEPING:
            return {}
        best = cache.best_before(began, engine_direction(study.direction).sign)
        return {} if best is None else {n: v for n, v in best.params.items() if n in adapters}

    def _optimizer(
        self,
        study: Study,
        cache: StudyCache,
        adapters: Mapping[str, ParameterAdapter],
        number: int,
        scales: Mapping[str, float],
    ) -> SyncedOptimizer:
        """The engine for trial `number`, told everything that is known.

        `scales`: values that the user has set for this trial.
        """
        scaled = any(isinstance(adapter.parameter, Scale) for adapter in adapters.values())
        reader = TrialReader(
            cost=self._cost,
            directions=tuple(study.directions),
            retried=frozenset(cache.retried),
            scalarization=cache.scalarization(number, len(study.directions)) if scaled else None,
            full_step=cache.full_step(self._fidelity),
            furthest=None if self._fidelity is None else self._fidelity.high,
        )
        view = SpaceView(adapters, reader.full_step, cache.observed.partial())
        given_scales = bool(scales) and set(scales) == set(view.space.scales)
        several = reader.objectives is not None
        limits = tuple(limit_name(name) for name in cache.constraints) if several else ()
        key = (view.key(), reader.scalarization, reader.full_step, given_scales, limits)
        optimizer = cache.optimizers.get(key)
        if optimizer is None:
            engine = Optimizer(
                view.space,
                direction=reader.direction,
                cost=self._cost,
                target=scales if given_scales else self._target,
                priors=self._priors,
                surrogate=self._surrogate,
                seed=self._seed,
                objectives=reader.objectives,
                constraints=dict.fromkeys(limits, ("<=", 0.0)) or None,
            )
            optimizer = SyncedOptimizer(view, engine, given_scales=given_scales)
            cache.optimizers[key] = optimizer
            while len(cache.optimizers) > _MOST_OPTIMIZERS:
                cache.optimizers.popitem(last=False)
        cache.optimizers.move_to_end(key)
        optimizer.sync(cache.finished, cache.running, reader, asking=number)
        return optimizer

    def _given_scales(
        self, trial: FrozenTrial, adapters: Mapping[str, ParameterAdapter], cache: StudyCache
    ) -> dict[str, float]:
        """Scales that are user attributes: the trial's own, else those of the last trial."""
        scales = {}
        for name, adapter in adapters.items():
            if adapter.distribution is not None or not isinstance(adapter.parameter, Scale):
                continue
            scale = amount_or_none(trial.user_attrs.get(name, cache.last_numbers.get(name)))
            if scale:
                low, high = adapter.parameter.limits
                scales[engine_name(name)] = min(max(scale, low), high)
        return scales


def _settled(trial: FrozenTrial) -> dict[str, Any]:
    """Values that were enqueued or suggested before the sampler is asked."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _inner(distribution: BaseDistribution, value: Any) -> float | None:
    """`value` as Optuna stores it; None if it is of another kind."""
    try:
        return float(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return None


def _is_plain(distribution: BaseDistribution) -> bool:
    """Whether the distribution equals itself once a storage has held it as JSON."""
    if not isinstance(distribution, CategoricalDistribution):
        return True
    return all(isinstance(choice, str | int | float | None) for choice in distribution.choices)
