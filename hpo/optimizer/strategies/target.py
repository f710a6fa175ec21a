"""Learn about the best config at the target: what a run teaches per unit of cost."""

from __future__ import annotations

import numpy as np

from hpo.acquisition import Region, Sum, TargetGain
from hpo.optimizer.ask import Ask, Search
from hpo.optimizer.strategies.cost_levels import requirements
from hpo.optimizer.strategies.search_region import (
    CANDIDATES,
    CENTERS,
    GLOBAL_SHARE,
    WITHOUT_LENGTHS,
    scale_moves,
)
from hpo.trials import Reason, ReasonKind


def learn_target(ask: Ask) -> Search:
    """Minimize the expected regret at the target per unit of cost.

    The asks in between walk the front up to the most expensive proxies, without which the law would
    be learned from the cheapest alone.

    Raises:
        ArithmeticError: If no model can be built.
    """
    models, encoder = ask.models, ask.encoder
    predictor, rows = models.scaling()
    at = np.ones((1, len(encoder.lower)))  # at full fidelity
    at[0, encoder.columns.scale] = ask.target
    posterior = predictor
    if len(ask.pending):  # what a run teaches does not depend on its loss, so any will do
        posterior = predictor.condition(ask.pending, predictor.posterior(ask.pending).mean)
    gain = TargetGain(posterior, posterior.loss.layout.scales(at)[0], models.cost())
    terms = [gain, *requirements(models, ask.limits)]
    members = np.argsort(predictor.training_mean(), kind="stable")[:CENTERS]
    centers = models.law_runs.X[rows[members]]
    region = Region(
        *encoder.box(centers),
        centers=centers,
        radii=np.full(len(encoder.lower), WITHOUT_LENGTHS),
        extra=scale_moves(encoder, predictor, centers, ask.rng),
        global_share=GLOBAL_SHARE,
        candidates=CANDIDATES,
    )
    why = Reason(ReasonKind.LEARN_TARGET, expected_regret=float(gain.regret))
    return Search(Sum(tuple(terms)), region, why)
