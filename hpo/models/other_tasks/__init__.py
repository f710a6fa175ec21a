"""Models that learn from runs of other tasks in the same space.

`tasks` holds the runs, the start points they suggest and when they are used at all;
`transfer_process` is the Gaussian process whose prior comes from them.
"""

from hpo.models.other_tasks.tasks import LazyProcess, OtherTasks, PortfolioStart

__all__ = ["LazyProcess", "OtherTasks", "PortfolioStart"]
