"""Fitted coefficients as people read them: a line each, prior beside posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpo.space import Float, Int, Parameter
from surrogates.scaling_law.model import Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One line of a law: what it is, and its :class:`~surrogates.scaling.Estimate`."""

    name: str
    estimate: Estimate

    @property
    def informed_by_data(self) -> float:
        """Share of the prior variance that the runs removed, 0 to 1."""
        share = 1.0 - (self.estimate.sd / self.estimate.prior_sd) ** 2
        return min(max(share, 0.0), 1.0)


def natural_name(name: str, parameter: Parameter) -> str:
    """How the natural unit of a parameter is written: ``ln lr``, ``logit beta2``, ``dropout``."""
    if isinstance(parameter, Float) and parameter.logit:
        return f"logit {name}"
    linear = isinstance(parameter, Float | Int) and not parameter.log
    ordinal = not isinstance(parameter, Float | Int) and hasattr(parameter, "choices")
    return name if linear or ordinal else f"ln {name}"


def as_text(rows: Sequence[Coefficient]) -> str:
    """A heading and one line a coefficient."""
    width = max(len(row.name) for row in rows)
    heading = f"{'':{width}}  {'prior':>19}  {'posterior':>19}  told by data"
    lines = [
        f"{row.name:{width}}  {_show(e.prior_mean, e.prior_sd)}  {_show(e.mean, e.sd)}"
        f"  {row.informed_by_data:12.0%}"
        for row in rows
        for e in [row.estimate]
    ]
    return "\n".join([heading, *lines])


def as_frame(rows: Sequence[Coefficient]) -> pd.DataFrame:
    """One row a coefficient: prior, prior_sd, posterior, posterior_sd, informed_by_data."""
    import pandas as pd

    return pd.DataFrame(
        {
            "coefficient": row.name,
            "prior": row.estimate.prior_mean,
            "prior_sd": row.estimate.prior_sd,
            "posterior": row.estimate.mean,
            "posterior_sd": row.estimate.sd,
            "informed_by_data": row.informed_by_data,
        }
        for row in rows
    )


def _show(mean: float, sd: float) -> str:
    return f"{mean:>8.4g} +- {sd:<7.2g}"
