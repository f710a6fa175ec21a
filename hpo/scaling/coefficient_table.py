"""Table of fitted coefficients, one line each, with the prior beside the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpo.trials.printing import Grid
from surrogates.scaling_law.coefficients import Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One line of a fitted law.

    Args:
        name: name of the coefficient, as printed.
        estimate: prior and posterior mean and standard deviation.

    Example:
        >>> from surrogates.scaling_law.coefficients import Estimate
        >>> estimate = Estimate(mean=-0.3, sd=0.05, prior_mean=-0.32, prior_sd=0.1)
        >>> round(Coefficient("d ln lr / d ln tokens", estimate).informed_by_data, 2)
        0.75
    """

    name: str
    estimate: Estimate

    @property
    def informed_by_data(self) -> float:
        """Share of the prior variance that the runs removed, from 0 to 1."""
        share = 1.0 - (self.estimate.sd / self.estimate.prior_sd) ** 2
        return min(max(share, 0.0), 1.0)


def as_text(rows: Sequence[Coefficient]) -> str:
    """Return a heading and one line per coefficient.

    Args:
        rows: coefficients to print, at least one.

    Example:
        >>> from surrogates.scaling_law.coefficients import Estimate
        >>> print(as_text([Coefficient("gamma", Estimate(0.5, 0.1, 0.4, 0.2))]))
                             prior            posterior  from data
        gamma       0.4 +- 0.2           0.5 +- 0.1            75%
    """
    width = max(len(row.name) for row in rows)
    heading = f"{'':{width}}  {'prior':>19}  {'posterior':>19}  from data"
    lines = [
        f"{row.name:{width}}  {_show(e.prior_mean, e.prior_sd)}  {_show(e.mean, e.sd)}"
        f"  {row.informed_by_data:9.0%}"
        for row in rows
        for e in [row.estimate]
    ]
    return "\n".join([heading, *lines])


def as_grid(rows: Sequence[Coefficient]) -> Grid:
    """Return the same as a table of texts.

    Args:
        rows: coefficients to print.
    """
    cells = [
        (
            row.name,
            _show(row.estimate.prior_mean, row.estimate.prior_sd).strip(),
            _show(row.estimate.mean, row.estimate.sd).strip(),
            f"{row.informed_by_data:.0%}",
        )
        for row in rows
    ]
    return Grid(("", "prior", "posterior", "from data"), cells)


def as_frame(rows: Sequence[Coefficient]) -> pd.DataFrame:
    """Return one row per coefficient: prior, prior_sd, posterior, posterior_sd, informed_by_data.

    Args:
        rows: coefficients to list.
    """
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
