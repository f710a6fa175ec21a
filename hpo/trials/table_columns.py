"""Names of the columns of a table that holds our own columns beside what users named."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["column_names"]


def column_names(
    ours: Iterable[str], params: Iterable[str], metrics: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the column of each parameter and of each metric, no two columns alike.

    Our own columns always keep their names, so that code which reads them works for every study.
    A parameter or metric keeps its name where that is free; else it is put behind `params_` or
    `metrics_`, as in Optuna's tables.

    Args:
        ours: Our own columns.
        params: Names of parameters.
        metrics: Names of metrics.

    Returns:
        Column by name of the parameters, and of the metrics.

    Example:
        >>> column_names(["number", "loss"], ["lr", "loss"], ["lr", "accuracy"])
        ({'lr': 'lr', 'loss': 'params_loss'}, {'lr': 'metrics_lr', 'accuracy': 'accuracy'})
    """
    taken = set(ours)
    columns = []
    for names, prefix in ((params, "params_"), (metrics, "metrics_")):
        distinct = list(dict.fromkeys(names))
        found = {name: name for name in distinct if name not in taken}
        taken.update(found)
        for name in distinct:
            if name not in found:
                column = name
                while column in taken:
                    column = prefix + column
                found[name] = column
                taken.add(column)
        columns.append({name: found[name] for name in distinct})
    return columns[0], columns[1]
