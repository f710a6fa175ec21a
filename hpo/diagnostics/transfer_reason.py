"""What a transfer check finds, as data: a verdict, and the reason for it with its numbers.

Code and tests read the fields; the sentence is for people and nothing depends on its words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from hpo.errors import printable_str

__all__ = ["TransferReason", "TransferReasonKind", "TransferVerdict"]

_LOG_LIMIT = 700.0  # exp overflows beyond 709


class TransferVerdict(Enum):
    """Whether the best value of one parameter is the same along one scale axis.

    Example:
        >>> TransferVerdict("drifts")
        <TransferVerdict.DRIFTS: 'drifts'>
    """

    INVARIANT = "invariant within tolerance"
    DRIFTS = "drifts"
    UNKNOWN = "not identified by these runs"


class TransferReasonKind(Enum):
    """Why a verdict was reached; all but the first two leave the slope unidentified.

    Example:
        >>> TransferReasonKind.ONE_SIZE.verdict
        <TransferVerdict.UNKNOWN: 'not identified by these runs'>
    """

    WITHIN_TOLERANCE = "within tolerance"  # the interval lies inside the tolerance
    MOVES = "moves"  # the interval excludes zero
    ONE_SIZE = "one size"  # every run had nearly the same size
    ONE_VALUE = "one value"  # every run had the same setting
    NONE_ABOVE = "none above"  # hardly any run had a setting above its best
    NONE_BELOW = "none below"  # hardly any run had one below it
    CONFOUNDED = "confounded"  # two scale axes grew together
    FEW_RUNS = "few runs"  # the runs removed little of the prior's variance
    WIDE_INTERVAL = "wide interval"  # it holds zero and slopes beyond the tolerance

    @property
    def verdict(self) -> TransferVerdict:
        """The verdict that goes with it.

        Example:
            >>> TransferReasonKind.MOVES.verdict.value
            'drifts'
        """
        if self is TransferReasonKind.WITHIN_TOLERANCE:
            return TransferVerdict.INVARIANT
        moves = self is TransferReasonKind.MOVES
        return TransferVerdict.DRIFTS if moves else TransferVerdict.UNKNOWN


@dataclass(frozen=True, slots=True)
class TransferReason:
    """Why a verdict was reached; what a kind has no use for is None.

    Attributes:
        kind: Kind of reason.
        parameter: Name of the parameter.
        axis: Name of the scale axis.
        tolerance: Largest slope that counts as invariant.
        other_axis: Name of the scale axis that grew together with `axis`.
        ln_factor: Logarithm of the factor by which the best value changes when the axis grows
            tenfold, for a parameter on a log scale.
        log_odds: Change of its log-odds, for a parameter on a logit scale.
        difference: Change of the value, for a linear parameter.

    Example:
        >>> reason = TransferReason(
        ...     TransferReasonKind.MOVES, "lr", "params", ln_factor=-0.5 * math.log(10)
        ... )
        >>> str(reason)
        'the best lr falls by a factor of 3.16 when params grows tenfold'
    """

    kind: TransferReasonKind
    parameter: str
    axis: str
    tolerance: float | None = None
    other_axis: str | None = None
    ln_factor: float | None = None
    log_odds: float | None = None
    difference: float | None = None

    @property
    def verdict(self) -> TransferVerdict:
        """The verdict that goes with it.

        Example:
            >>> TransferReason(TransferReasonKind.ONE_VALUE, "lr", "params").verdict.name
            'UNKNOWN'
        """
        return self.kind.verdict

    @printable_str
    def __str__(self) -> str:
        parameter, axis = self.parameter, self.axis
        match self.kind:
            case TransferReasonKind.WITHIN_TOLERANCE:
                return f"within +-{self.tolerance:.2g} of no drift"
            case TransferReasonKind.MOVES:
                return self._movement()
            case TransferReasonKind.ONE_SIZE:
                return f"one size only: every run had nearly the same {axis}"
            case TransferReasonKind.ONE_VALUE:
                return f"every run had the same {parameter}"
            case TransferReasonKind.NONE_ABOVE:
                return f"all runs are on one side: none had a {parameter} above its best"
            case TransferReasonKind.NONE_BELOW:
                return f"all runs are on one side: none had a {parameter} below its best"
            case TransferReasonKind.CONFOUNDED:
                return f"{axis} and {self.other_axis} grew together; vary one at a fixed other"
            case TransferReasonKind.FEW_RUNS:
                return f"the runs say little about it; add some at both ends of {axis}"
            case TransferReasonKind.WIDE_INTERVAL:
                return (
                    f"the interval holds both no drift and drifts beyond +-{self.tolerance:.2g};"
                    f" add runs near the best, at both ends of {axis}"
                )

    def _movement(self) -> str:
        change = next(x for x in (self.ln_factor, self.log_odds, self.difference) if x is not None)
        verb = "rises" if change > 0 else "falls"
        if self.ln_factor is not None:
            amount = f"a factor of {math.exp(min(abs(change), _LOG_LIMIT)):.3g}"
        else:
            amount = f"{abs(change):.3g}{'' if self.log_odds is None else ' in log-odds'}"
        return f"the best {self.parameter} {verb} by {amount} when {self.axis} grows tenfold"
