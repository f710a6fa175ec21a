"""Improve the front of several objectives, under constraints.

It maximizes `qLogNEHVI` of BoTorch over one Gaussian process for each objective and constraint
(Daulton, Balandat & Bakshy 2021; Ament et al. 2023). The volume is measured in transformed
objectives, standardized, whose transform changes from ask to ask as for a single loss. Where runs
may pause the first objective is that at full fidelity, learned from reports too. Until some run is
expected to keep all constraints, the probability that they are kept is maximized instead.

Notation: `M` posterior means of the objectives at the rows of the front and beside it, smaller is
better; `E` those of the excess over the limits, `<= 0` where they are kept.
"""

from __future__ import annotations

import numpy as np

from hpo.acquisition import Below, Region, Sum, Term
from hpo.models.objectives import ObjectiveModels
from hpo.optimizer.ask import Ask, Search
from hpo.optimizer.strategies.cost_levels import requirements
from hpo.optimizer.strategies.search_region import CENTERS, GLOBAL_SHARE, radii
from hpo.space.encoding import Encoder
from hpo.trials import Reason, ReasonKind
from hpo.trials.pareto import pareto_set
from surrogates.data import Array, IntArray
from surrogates.transforms import CYCLE

__all__ = ["check_botorch", "improve_objectives"]

_CANDIDATES = 256  # rows scored in the first stage: each takes a joint posterior with the baseline
_SAMPLES = 32
_BASELINE = 16  # most rows whose front is improved
_MARGIN = 0.1  # of the range of the front: volume counts up to there beyond its worst values


def check_botorch() -> None:
    """Raise ImportError, with the way out, where BoTorch cannot be imported."""
    try:
        import surrogates.interop.botorch  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"`objectives` and `constraints` need BoTorch, which cannot be imported ({error});"
            " run: pip install botorch"
        ) from error


def improve_objectives(ask: Ask) -> Search:
    """Maximize the volume that a run is expected to add to what the front dominates.

    Raises:
        ArithmeticError: If no model can be built.
    """
    from surrogates.interop.botorch import HypervolumeImprovement

    encoder, models = ask.encoder, ask.objectives
    assert models is not None
    transform = CYCLE[ask.index % len(CYCLE)]
    values, limits = models.values(transform), models.limits()
    if ask.models.uses_partial_runs:  # reports tell more than the ends of stages
        values[0] = ask.models.value(transform)[0]
    X = _rows(encoder, models)
    M = np.stack([value.posterior(X).mean for value in values], axis=1)
    E = np.zeros((len(X), len(limits)))
    for j, (process, limit) in enumerate(limits):
        E[:, j] = process.posterior(X).mean - limit
    best = _best_first(M, E)[:_BASELINE]
    some = bool(np.any(np.all(E <= 0.0, axis=1)))
    if some:
        terms: list[Term] = [
            HypervolumeImprovement.of(
                values,
                X[best],
                _reference(M[best], E[best], M),
                numeric=tuple(encoder.columns.numeric.tolist()),
                limits=limits,
                pending=_at_top(encoder, ask.pending),
                samples=_SAMPLES,
                rng=ask.rng,
            )
        ]
    else:  # first something that is allowed
        terms = [Below(process, limit) for process, limit in limits]
    centers = X[best[:CENTERS]]
    region = Region(
        *encoder.box(centers),
        centers=centers,
        radii=radii(values[0], encoder, 1.0),
        extra=X[:0],
        global_share=GLOBAL_SHARE,
        candidates=_CANDIDATES,
        smooth=not some,  # gradients of the volume cost more than further rows
    )
    kind = ReasonKind.IMPROVE_OBJECTIVES if some else ReasonKind.KEEP_CONSTRAINTS
    why = Reason(kind, surrogate=transform.value if some else None)
    return Search(Sum((*terms, *requirements(ask.models, ask.limits))), region, why)


def _rows(encoder: Encoder, models: ObjectiveModels) -> Array:
    """Return the distinct completed rows or, without any, the others as if they were completed."""
    rows = models.X[models.ended] if models.ended.any() else models.X
    return np.asarray(np.unique(_at_top(encoder, rows), axis=0))


def _at_top(encoder: Encoder, X: Array) -> Array:
    """Return rows at full fidelity."""
    moved = X.copy()
    moved[:, encoder.columns.fidelity] = 1.0
    return moved


def _best_first(M: Array, E: Array) -> IntArray:
    """Return all rows by the front they are on, those that exceed a limit last and by how much."""
    exceeded = np.sum(np.maximum(E, 0.0), axis=1)
    kept, order = np.flatnonzero(exceeded == 0.0), []
    while len(kept):
        front = pareto_set(M[kept])
        order.extend(kept[front].tolist())
        kept = np.delete(kept, front)
    rest = np.flatnonzero(exceeded > 0.0)
    order.extend(rest[np.argsort(exceeded[rest], kind="stable")].tolist())
    return np.array(order, dtype=np.intp)


def _reference(M: Array, E: Array, everything: Array) -> Array:
    """Return the values beyond which no volume counts, `(k,)`: somewhat beyond the front's worst.

    An objective in which the front has one value takes its range from all rows.
    """
    kept = M[np.all(E <= 0.0, axis=1)]
    front = kept[pareto_set(kept)] if len(kept) else everything
    spread, whole = np.ptp(front, axis=0), np.ptp(everything, axis=0)
    spread = np.where(spread > 1e-9, spread, np.maximum(whole, 1.0))
    return np.asarray(np.max(front, axis=0) + _MARGIN * spread)
