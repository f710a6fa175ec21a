"""The engine as a guest of Optuna: a sampler and a pruner for `study.optimize`.

    study = optuna.create_study(
        sampler=ScaleTuneSampler({"params": Scale(1e5, 1e7, axis=Axis.PARAMS)}, cost="flops"),
        pruner=ScaleTunePruner(ASHA(kind=ASHAVariant.STOPPING), Fidelity(1, 81)),
    )
    study.optimize(objective, n_trials=100)

The storage, its heartbeat and its dashboards stay Optuna's; the sampler keeps nothing but caches.
What it proposed for a trial, and what it believed of it, is one system attribute of that trial
(`scaletune:asked`, in chunks), so that other workers see a running trial's parameters before they
are suggested.

How a study becomes the engine's log:

=====================================  ============================================================
complete trial                         completed run at full fidelity
its intermediate values                runs of lower fidelity, once trials have been pruned
pruned trial                           completed run at the fidelity of its last finite value
value or last report infinite or NaN   failed: diverged
a constraint above 0                   failed: the search learns where constraints hold
failed trial                           failed; user attribute "failed" may say oom, timeout, ...;
                                       lost, which teaches nothing, if Optuna retried it
running trial                          pending
=====================================  ============================================================
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from hpo.adapters.optuna.define_by_run import columns
from hpo.adapters.optuna.engine import (
    _ASKED,
    _ENGINES,
    _REASKS,
    _amount,
    _fitted,
    _Known,
    _log,
    _Mirror,
    _PerStudy,
    _Reading,
    _View,
    _write,
)
from hpo.errors import SpaceError
from hpo.optimizer.ask_tell import Optimizer, check_surrogate
from hpo.scaling.claims import TransferRule
from hpo.scaling.drift_prior import check_priors, drift_prior
from hpo.space import Fidelity, Float, Parameter, Scale, SearchSpace
from hpo.space.encoding import Encoder

if TYPE_CHECKING:
    from optuna.study import Study


class ScaleTuneSampler(_PerStudy["_Known"], BaseSampler):
    """Samples all parameters of a trial together, from a model of loss, cost and failure.

    The search space is learned from what the objective suggests, conditions included: a parameter
    that is suggested only under some choices of another, or from some count on, is modeled so.
    What cannot be foreseen, such as everything in a first trial, is drawn at random, and said in
    the log once.

    Several objectives are searched for one scalarization at a time: each trial is to do well by an
    augmented Tchebycheff norm whose weights follow a low-discrepancy sequence (ParEGO, Knowles,
    IEEE TEC 2006). Of constraints the sign is used, not how far above 0 they are.

    Args:
        space: what is known of some parameters beforehand: their role, center, log-odds scale or
            condition, and which are scale axes. A `Scale` that is not suggested is read from a
            user attribute of its name; set it before the first `suggest` and the sampler proposes
            for that scale. A `Fidelity` gives the range of steps that are reported; without one it
            reaches to the last step of any complete trial.
        cost: unit of the costs, and the user attribute that holds a trial's; "seconds" are measured
            where there is no such attribute. Naming one makes the search cost-aware.
        target: scale values the user will finally train at.
        priors: transfer rules (:mod:`hpo.scaling.transfer_rules`); their roles must be in `space`.
        surrogate: who models the loss, as for `hpo.optimize`.
        seed: of every random choice; None draws one.

    Raises:
        SpaceError: for a space, target or rule that does not fit.
        ValueError: for a negative seed or an unknown surrogate.
    """

    def __init__(
        self,
        space: Mapping[str, Parameter] | None = None,
        *,
        cost: str | None = None,
        target: Mapping[str, float] | None = None,
        priors: Sequence[TransferRule] | None = None,
        surrogate: str = "auto",
        seed: int | None = None,
    ) -> None:
        declared = dict(SearchSpace(space)) if space else {}
        if declared:
            known = SearchSpace(declared)
            drift_prior(check_priors(priors), known, Encoder(known).columns)
        elif priors or target:
            raise SpaceError("`target` and `priors` need `space`; declare the scale axes and roles")
        # Without anything declared, one parameter stands for all: the choice is what is checked.
        check_surrogate(surrogate, SearchSpace(declared or {"x": Float(0, 1)}))
        if seed is not None and seed < 0:
            raise ValueError(f"`seed` must be >= 0 or None, got {seed}")
        fidelities = [p for p in declared.values() if isinstance(p, Fidelity)]
        self._fidelity = fidelities[0] if fidelities else None
        self._declared = {n: p for n, p in declared.items() if not isinstance(p, Fidelity)}
        self._cost = cost
        self._target = target
        self._priors = priors
        self._surrogate = surrogate
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._forget()

    def reseed_rng(self) -> None:
        """Nothing to do: random choices are keyed by the seed and the trial's number."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Everything that has been suggested so far and whose presence is understood."""
        with self._lock:
            witness = self._known(study).witness
            return {
                name: witness.distributions[name]
                for name in witness.space()
                if not witness.distributions[name].single()
            }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values for the parameters of `search_space` that are active together."""
        with self._lock:
            known = self._known(study)
            witness = known.witness
            beside = {
                name: parameter
                for name, parameter in self._declared.items()
                if name not in witness.distributions
            }
            declared = {n: p for n, p in self._declared.items() if n in search_space} | beside
            if not search_space and not beside:
                return {}
            view = _View(columns(search_space, witness.space(), declared), self._fidelity)
            given = view.to_engine(self._settled(trial))
            sizes = self._sizes(trial, view, known)
            given |= sizes
            for attempt in range(1 + _REASKS):
                mirror = self._mirror(study, known, view, trial.number, sizes)
                config, belief = mirror.propose(trial.number, given, attempt, seed=self._seed)
                params = mirror.view.outward(config)
                asked = mirror.view.to_json(params)
                _write(study, trial, _ASKED, asked | {"belief": belief.to_json()})
                known.proposals[trial.number] = params
                news = known.take_in(study.get_trials(deepcopy=False))
                if mirror.exhausted or not mirror.met(params, news, beside=trial.number):
                    break
            return {name: params[name] for name in search_space if name in params}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A declared parameter as it was proposed; any other one at random."""
        with self._lock:
            known = self._remembered(study)
            proposed = known.proposals.get(trial.number, {})
            if param_name in proposed:
                value = _fitted(proposed[param_name], param_distribution)
                if value is not None:
                    return value
            if known.witness.trials and param_name not in known.announced:
                known.announced.add(param_name)
                if not param_distribution.single():
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

    def _known(self, study: Study) -> _Known:
        """What was learned of `study` so far, after taking in what is new in it."""
        known = self._remembered(study)
        known.take_in(study.get_trials(deepcopy=False))
        return known

    def _remembered(self, study: Study) -> _Known:
        """What was learned of `study` at the last look."""
        storage, identity = study._storage, study._study_id  # samplers are given no other way
        return self._studies.setdefault(storage, {}).setdefault(identity, _Known())

    def _mirror(
        self, study: Study, known: _Known, view: _View, number: int, sizes: Mapping[str, float]
    ) -> _Mirror:
        """The engine for `view` with all that is known, and running trials pending.

        `sizes`: of scales that are not for the sampler to choose.
        """
        reading = _Reading(
            cost=self._cost,
            directions=tuple(study.directions),
            retried=frozenset(known.retried),
            preference=known.preference(number, len(study.directions)),
            top=known.top(self._fidelity),
        )
        view = view.with_fidelity(reading.top)
        sized = bool(sizes) and set(sizes) == set(view.space.scales)
        key = (view.key(), reading.preference, reading.top, sized)
        mirror = known.mirrors.get(key)
        if mirror is None:
            engine = Optimizer(
                view.space,
                direction=reading.engine_direction,
                cost=self._cost,
                target=sizes if sized else self._target,
                priors=self._priors,
                surrogate=self._surrogate,
                seed=self._seed,
            )
            mirror = known.mirrors[key] = _Mirror(view, engine, sized=sized)
            while len(known.mirrors) > _ENGINES:
                known.mirrors.popitem(last=False)
        known.mirrors.move_to_end(key)
        mirror.sync(known.finished, known.running, reading, asking=number)
        return mirror

    def _settled(self, trial: FrozenTrial) -> dict[str, Any]:
        """Values that were enqueued or suggested before the sampler is asked."""
        return {**trial.system_attrs.get("fixed_params", {}), **trial.params}

    def _sizes(self, trial: FrozenTrial, view: _View, known: _Known) -> dict[str, float]:
        """Scales that are user attributes: the trial's, else those of the last trial."""
        sizes = {}
        for name, column in view.columns.items():
            if column.distribution is not None or not isinstance(column.parameter, Scale):
                continue
            size = _amount(trial.user_attrs.get(name, known.sizes.get(name)))
            if size:
                low, high = column.parameter.limits
                sizes[name] = min(max(size, low), high)
        return sizes


# --- the log --------------------------------------------------------------------------------------


# --- the engine -----------------------------------------------------------------------------------
