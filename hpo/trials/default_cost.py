"""Cost of a run in a study that declares none: known from its config, the same on every machine.

Measured seconds differ between two runs of one config, so they must not decide what is asked next
unless a user wants that, by cost="seconds". Where no cost is declared, a run costs

    6 N D               in FLOPs, where the space has one scale axis of parameters N and one of
                        tokens D; of a shorter run the share that its level has of the fidelity
    its level           where the space has a fidelity but not both of these axes
    nothing known       else

(Kaplan et al. 2020, arXiv 2001.08361, section 2.1, has 6 N D.)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from hpo.space import Axis, Fidelity, SearchSpace


@dataclass(frozen=True, slots=True)
class DefaultCost:
    """What a run costs where no cost is declared.

    Attributes:
        axes: Names of the axes of parameters and of tokens; None where the space lacks either.
        fidelity: Name of the fidelity; None without one.
        high: Highest level of the fidelity; 1 without one.

    Example:
        >>> from hpo.space import Scale
        >>> sizes = {"N": Scale(1e5, 1e7, axis=Axis.PARAMS), "D": Scale(1e6, 1e8, axis=Axis.TOKENS)}
        >>> DefaultCost.of(SearchSpace(sizes)).of_run({"N": 1e6, "D": 2e7})
        120000000000000.0
        >>> epochs = DefaultCost.of(SearchSpace({"epochs": Fidelity(1, 9)}))
        >>> epochs.of_run({"epochs": 9}), epochs.of_run({"epochs": 9}, level=3)
        (9.0, 3.0)
    """

    axes: tuple[str, str] | None
    fidelity: str | None
    high: int

    @classmethod
    def of(cls, space: SearchSpace) -> Self | None:
        """Return that of a space; None where nothing is known of its costs.

        Example:
            >>> from hpo.space import Float
            >>> DefaultCost.of(SearchSpace({"x": Float(0.0, 1.0)})) is None
            True
        """
        params, tokens = (
            [name for name, scale in space.scale_axes.items() if scale.axis is axis]
            for axis in (Axis.PARAMS, Axis.TOKENS)
        )
        axes = (params[0], tokens[0]) if len(params) == len(tokens) == 1 else None
        fidelity = None if space.fidelity is None else space[space.fidelity]
        if axes is None and fidelity is None:
            return None
        high = fidelity.high if isinstance(fidelity, Fidelity) else 1
        return cls(axes, space.fidelity, high)

    def of_run(self, config: Mapping[str, Any], level: int | None = None) -> float:
        """Return the cost of a run from its start.

        Args:
            config: Config of the run.
            level: Level of the fidelity up to which it trained; None for that in the config.
        """
        if level is None:
            level = 1 if self.fidelity is None else config[self.fidelity]
        if self.axes is None:
            return float(level)
        params, tokens = (float(config[name]) for name in self.axes)
        return min(6.0 * params * tokens, sys.float_info.max) * (level / self.high)
