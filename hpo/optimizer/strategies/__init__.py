"""Ways to answer an ask: each turns an `Ask` into a `Search` (see :mod:`hpo.optimizer.ask`)."""

from collections.abc import Callable

from hpo.optimizer.ask import Ask, Search, Turn
from hpo.optimizer.strategies.explore import explore, random_config, start_point
from hpo.optimizer.strategies.forest import sample_forest
from hpo.optimizer.strategies.front import improve_front
from hpo.optimizer.strategies.objectives import improve_objectives
from hpo.optimizer.strategies.partial_runs import improve_full_fidelity
from hpo.optimizer.strategies.target import learn_target

__all__ = ["STRATEGIES"]

STRATEGIES: dict[Turn, Callable[[Ask], Search]] = {
    Turn.START: start_point,
    Turn.EXPLORE: explore,
    Turn.RANDOM: random_config,
    Turn.PARTIAL_RUNS: improve_full_fidelity,
    Turn.FOREST: sample_forest,
    Turn.OBJECTIVES: improve_objectives,
    Turn.TARGET: learn_target,
    Turn.FRONT: improve_front,
}
