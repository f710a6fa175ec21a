"""An engine whose log follows an Optuna study."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from hpo.adapters.optuna.space_view import FIDELITY, SpaceView
from hpo.adapters.optuna.trial_reader import TrialReader
from hpo.errors import SpaceError
from hpo.optimizer.ask_tell import Optimizer, Proposal
from hpo.trials import Cause, Trial

__all__ = ["SyncedOptimizer"]

_POOL_SIZE = 1024  # configs to choose from where some values are given
_RETRY_STRIDE = 1 << 16  # between the ask indices of two attempts, and past every start point


class SyncedOptimizer:
    """An optimizer that is told every finished trial of a study and holds the running ones pending.

    Args:
        view: Parameters that it searches.
        optimizer: Optimizer over `view.space` with an empty log.
        given_scales: Whether the user sets all scale values of each trial; then every proposal
            serves the scales of its own trial.

    Attributes:
        view: Parameters that it searches.
        pending: The optimizer's trials for running ones, by their number in the study.
    """

    def __init__(self, view: SpaceView, optimizer: Optimizer, *, given_scales: bool) -> None:
        self.view = view
        self.pending: dict[int, Trial] = {}
        self._optimizer = optimizer
        self._given_scales = given_scales
        self._told = 0  # finished trials

    def sync(
        self,
        finished: Sequence[FrozenTrial],
        running: Sequence[FrozenTrial],
        reader: TrialReader,
        *,
        asking: int,
    ) -> None:
        """Tell what has finished, and hold pending what runs beside trial `asking`."""
        for trial in finished[self._told :]:
            self._tell(trial, reader)
        self._told = len(finished)
        others = [trial for trial in running if trial.number != asking]
        for number in set(self.pending) - {trial.number for trial in others}:
            self._drop(number)
        for trial in others:
            self._update_pending(trial)

    def propose(
        self, number: int, given: Mapping[str, Any], attempt: int, *, began: int = 0, seed: int
    ) -> Proposal:
        """Propose a config for trial `number`.

        Random choices are keyed by the number, which Optuna gives once, and by the attempt: workers
        of one seed that ask at the same moment have the same log.

        Args:
            number: Number of the trial in the study.
            given: Values that the config must hold, as the engine has them.
            attempt: Count of earlier proposals for this trial.
            began: Number of the first trial over this space, whose turn the first start point is.
            seed: Seed of the sampler.
        """
        among = None
        if given:
            told = len(self._optimizer.log.observations)
            among = self._configs_with(given, np.random.default_rng([seed, number, attempt, told]))
        index = number - began + attempt * _RETRY_STRIDE
        if not self._given_scales:
            return self._optimizer.propose(among=among, index=index)
        scales = {name: given[name] for name in self._optimizer.space.scales}
        return self._optimizer.propose_at(scales, among=among, index=index)

    def params(self, proposal: Proposal, given: Collection[str]) -> dict[str, Any]:
        """Return a proposal as Optuna's values, apart from those of other trials.

        Where values beside a tried one cannot be told from it, one of them repeats it as well.

        Args:
            proposal: What was proposed.
            given: Names of the values that it had to hold.
        """
        log = self._optimizer.log
        tried = [trial.config for trial in log.observations]
        tried += [trial.config for trial in log.pending]
        return self.view.apart(self.view.to_optuna(proposal.config), tried, given)

    def taken(self, params: Mapping[str, Any], others: Sequence[FrozenTrial], *, by: int) -> bool:
        """Return whether another trial got `params` while they were chosen for trial `by`.

        Both workers write before they look, so at least one of two sees the other. A trial that was
        known to have them does not count: then the engine repeats it on purpose.
        """
        for other in others:
            theirs, known = self._config(other), self.pending.get(other.number)
            if other.number == by or theirs is None:
                continue
            if known is not None and known.config == theirs:
                continue
            if self.view.to_json(self.view.to_optuna(theirs)) == self.view.to_json(params):
                return True
        return False

    def _config(self, trial: FrozenTrial) -> dict[str, Any] | None:
        """Config that a trial has or will have; None if a part is unknown."""
        fixed = trial.system_attrs.get("fixed_params", {})
        values = {**self.view.proposed(trial), **fixed, **trial.params}
        return self.view.engine_config(trial, values)

    def _update_pending(self, trial: FrozenTrial) -> None:
        config = self._config(trial)
        before = self.pending.get(trial.number)
        if config is None or (before is not None and before.config == config):
            return
        if before is not None:
            self._drop(trial.number)
        self.pending[trial.number] = self._add_pending(trial.number, config)

    def _configs_with(
        self, given: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """Configs that hold the `given` values, the others spread over the space."""
        from scipy.stats import qmc

        encoder, space = self._optimizer.encoder, self._optimizer.space
        U = qmc.Sobol(len(encoder.lower), scramble=True, rng=rng).random(_POOL_SIZE)
        configs = encoder.decode(encoder.from_unit(U, (encoder.lower, encoder.upper)))
        found: dict[Any, dict[str, Any]] = {}
        neutral = encoder.decode(encoder.center[None])[0]
        for config in configs:
            held = {**neutral, **config}
            for name in space.parents_first:  # values may switch others on and off
                if name in given:
                    held[name] = given[name]
            try:
                held = {n: held[n] for n in space.active(held)}
                held = space.canonical(held)
            except (SpaceError, KeyError):
                continue
            found.setdefault(space.key(held), held)
        return list(found.values()) or configs

    def _tell(self, trial: FrozenTrial, reader: TrialReader) -> None:
        """Tell the runs of a finished trial; its pending one ends with them, else as lost."""
        config = self.view.engine_config(trial, trial.params)
        waiting = self.pending.pop(trial.number, None)
        runs = [] if config is None else reader.runs(trial)
        same = config is not None and waiting is not None and waiting.config == config
        if waiting is not None and not (same and runs):
            self._optimizer.tell(waiting, failed=Cause.LOST)
            waiting = None
        for run in runs:
            assert config is not None
            told = config if run.fidelity is None else config | {FIDELITY: run.fidelity}
            if FIDELITY in told and reader.full_step is None:
                del told[FIDELITY]
            here = waiting if waiting is not None and told == config else None
            self._optimizer.tell(
                here or self._add_pending(trial.number, told),
                run.loss,
                run.cost,
                failed=run.cause,
                seconds=run.seconds,
                metrics=run.metrics,
            )
            waiting = None if here is not None else waiting
        if waiting is not None:
            self._optimizer.tell(waiting, failed=Cause.LOST)

    def _add_pending(self, number: int, config: dict[str, Any]) -> Trial:
        """Trial of the optimizer for trial `number` of the study."""
        trial = Trial(self._optimizer.log.next_number, config, number, None)
        self._optimizer.add_pending(trial)
        return trial

    def _drop(self, number: int) -> None:
        self._optimizer.tell(self.pending.pop(number), failed=Cause.LOST)
