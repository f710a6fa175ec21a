"""`read_runs`: earlier runs from any source, as observations of a space.

Which column is what is a guess from names and contents (:mod:`hpo.trials.read_runs.choose`) that
the caller can override, and every guess is shown with its reason: nothing is assumed silently.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.errors import SpaceError, printable_str
from hpo.space import (
    Categorical,
    DirectionName,
    Fidelity,
    Float,
    Int,
    Parameter,
    Role,
    Scale,
    SearchSpace,
)
from hpo.space.arguments import OneOf, Row, Text
from hpo.space.checks import LARGEST_INT
from hpo.space.parameters import condition
from hpo.trials.default_cost import DefaultCost
from hpo.trials.read_runs.cells import Numbers, at_least
from hpo.trials.read_runs.choose import Choice, Column, ColumnScale, Named, choose, columns_of
from hpo.trials.read_runs.errors import RunFileError, option
from hpo.trials.read_runs.guesses import Guess, Guesses, Use
from hpo.trials.read_runs.outcomes import Outcome, RunState, outcome, state_of
from hpo.trials.read_runs.sources import read_table
from hpo.trials.read_runs.tables import Table, expanded
from hpo.trials.records import Observation, Status

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.distributions import BaseDistribution

__all__ = ["Runs", "read_runs"]

_LINEAR = (Role.DROPOUT,)
_LOGIT = (Role.BETA1, Role.BETA2)
_COUNTS = (Role.BATCH, Role.WARMUP)  # whole numbers, whatever the file says
_WIDE = 10.0  # ratio of largest to smallest from which an unknown positive column is log
_MOST_CHOICES = 50
_LARGEST, _SMALLEST = 1e100, 1e-100  # no setting or size lies beyond; pictures would overflow
_DIGITS = 10  # of a number in a run's identity
_COLUMN = Text(optional=True, way_out="name a column")
_COLUMNS = Row(Text(), way_out="list names of columns")
_DIRECTION = OneOf(("minimize", "maximize"), optional=True, way_out="pick one")
_SHOWN = 3  # rows named in a sentence


@dataclass(frozen=True, slots=True)
class Runs:
    r"""Runs that were read, as an optimizer of the same space can record them.

    `print` shows how many there are and what each column was taken for.

    Attributes:
        space: Space of the columns, each from its least to its largest value, or the one given.
        observations: One per run, in the order of the source; their numbers count from 0.
        direction: Direction of the loss.
        cost_unit: Unit of the costs; None where there are none.
        guesses: What each column was taken for, and why.
        name: Name of the source.

    Example:
        >>> from hpo import Optimizer, read_runs
        >>> runs = read_runs([
        ...     {"lr": 1e-3, "params": "1M", "loss": 2.5},
        ...     {"lr": 1e-2, "params": "1M", "loss": 2.1},
        ...     {"lr": 1e-2, "params": "10M", "loss": 1.7},
        ... ])
        >>> optimizer = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
        >>> for observation in runs.observations:
        ...     optimizer.record(observation)
        >>> optimizer.result().best_observed.loss
        1.7
    """

    space: SearchSpace
    observations: tuple[Observation, ...]
    direction: DirectionName
    cost_unit: str | None
    guesses: Guesses
    name: str

    def __len__(self) -> int:
        return len(self.observations)

    @printable_str
    def __str__(self) -> str:
        return f"{self.guesses.rows[0]}\n{replace(self.guesses, rows=self.guesses.rows[1:])}"

    @property
    def notes(self) -> tuple[str, ...]:
        r"""What was assumed, one sentence a line; `guesses` says why.

        Example:
            >>> from hpo import read_runs
            >>> rows = [{"lr": 0.1, "N": 1e5, "loss": 3}, {"lr": 0.2, "N": 1e6, "loss": "nan"}]
            >>> print("\n".join(read_runs(rows).notes))
            2 runs from the list: 1 completed, 1 diverged
            tuned: lr (log, role lr)
            scale: N (params)
            loss: loss
        """
        lines = list(self.guesses.rows)
        for use in Use:
            if use is not Use.LEFT_OUT:
                for guess in self.guesses:
                    if guess.use is use:
                        kind = f" ({guess.kind})" if use in (Use.TUNED, Use.SCALE) else ""
                        lines.append(f"{use.value}: {guess.column}{kind}")
        left = [guess.column for guess in self.guesses if guess.use is Use.LEFT_OUT]
        return (*lines, *([f"ignored: {', '.join(left)}"] if left else ()))

    @property
    def keys(self) -> tuple[str, ...]:
        """Identity of each run: its config, its result, and how many equal runs came before it.

        It does not depend on the source or on the rows around it: the same runs read again, or
        from another format, have the same keys, and runs appended later have new ones.

        Example:
            >>> from hpo import read_runs
            >>> rows = [{"lr": 0.1, "loss": 3}, {"lr": 0.1, "loss": 3}, {"lr": 0.2, "loss": 2}]
            >>> first, again = read_runs(rows).keys, read_runs([*rows, {"lr": 0.3, "loss": 1}]).keys
            >>> len(set(first)), first == again[:3]
            (3, True)
        """
        return run_keys(self.observations)


def run_keys(observations: Iterable[Observation]) -> tuple[str, ...]:
    """Return the identity of each run; see `Runs.keys`.

    Args:
        observations: Runs in the order of their source.

    Example:
        >>> run = Observation(0, {"lr": 0.1}, 2.5, None, Status.COMPLETED, None, 0, None)
        >>> first, second = run_keys([run, run])
        >>> first.rpartition(":")[0] == second.rpartition(":")[0], second.rpartition(":")[2]
        (True, '1')
    """
    before: Counter[str] = Counter()
    keys = []
    for o in observations:
        config = sorted((name, _identity(value)) for name, value in o.config.items())
        content = repr((config, _identity(o.loss), o.status.value))
        digest = blake2b(content.encode(), digest_size=12).hexdigest()
        keys.append(f"{digest}:{before[digest]}")
        before[digest] += 1
    return tuple(keys)


def _identity(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{float(value):.{_DIGITS}g}"


def read_runs(
    source: str | Path | pd.DataFrame | optuna.Study | Iterable[Any] | Any,
    *,
    params: str | Sequence[str] = (),
    scales: str | Sequence[str] = (),
    loss: str | None = None,
    cost: str | None = None,
    direction: DirectionName | None = None,
    fidelity: str | None = None,
    seconds: str | None = None,
    status: str | None = None,
    ignore: str | Sequence[str] = (),
    space: Mapping[str, Parameter | BaseDistribution] | SearchSpace | None = None,
    study_name: str | None = None,
) -> Runs:
    r"""Read finished runs from a file, a folder, a table, a list, a study or a tracking server.

    Numbers may have units ("125M", "1.4T", "12.5%"), decimal commas and separators of thousands;
    times may be "1:23:45" or "1d 2h". A loss of `nan` or `inf` is a run that diverged. A run that
    crashed, or has no loss, failed: it teaches which settings fail. Runs that are not finished are
    left out. Equal rows are replicates.

    Args:
        source: Path of a CSV, TSV, JSON, JSON lines, Parquet or Excel file, or of a folder of CSV
            or JSON files; a DataFrame; a list of dicts, one a run, or a dict of columns; an Optuna
            study, or a storage or its URL; runs of W&B's or MLflow's API, or
            "wandb:entity/project", or "mlflow:experiment".
        params: Tuned columns as "name", "name:kind" or "name:kind:role", such as "lr:log:lr", with
            a kind of log, linear, logit or choice; none takes those of well-known names.
        scales: Size columns as "name" or "name:axis", such as "N:params"; none as above.
        loss: Name of the column of the loss; None looks for a well-known name.
        cost: Name of the column of the cost, or "seconds" for the wall-clock time; None looks for a
            well-known name of a cost, else takes 6 N D where parameters and tokens are known, else
            the fidelity. "none" takes no cost.
        direction: Direction of the loss; None goes by its name.
        fidelity: Name of the column with the length of each run, such as "epochs".
        seconds: Name of the column of the wall-clock time; None looks for a well-known name.
        status: Name of the column of the state of each run; None looks for a well-known name.
        ignore: Columns to leave out.
        space: Space of the runs, in place of the guesses; its names are looked for among the
            columns. Runs outside it are left out.
        study_name: Name of the study in an Optuna storage; None for the only one.

    Returns:
        The runs with their space, and a table of what was assumed and why.

    Raises:
        RunFileError: If the source or an option cannot be read.
        SpaceError: If there are values that no parameter can take.
        OSError: If a file cannot be opened.
        TypeError: If `source` is of no such kind.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "runs.csv")
        ...     _ = path.write_text("lr,params,loss\n1e-3,1M,2.5\n1e-2,1M,nan\n1e-2,10M,1.7\n")
        ...     runs = read_runs(path)
        >>> print(runs)
        3 runs from runs.csv: 2 completed, 1 diverged
        column  read as              values          because
        lr      tuned, log, role lr  0.001 to 0.01   well-known name of a learning rate
        params  scale, params        1e+06 to 1e+07  well-known name of a number of parameters
        loss    loss, minimized      1.7 to 2.5      well-known name of a result
        >>> [observation.loss for observation in runs.observations]
        [2.5, None, 1.7]
    """
    named = Named(
        params=_listed(params, "`params`"),
        scales=_listed(scales, "`scales`"),
        loss=_COLUMN(loss, "`loss`"),
        cost=_COLUMN(cost, "`cost`"),
        seconds=_COLUMN(seconds, "`seconds`"),
        status=_COLUMN(status, "`status`"),
        fidelity=_COLUMN(fidelity, "`fidelity`"),
        ignore=_listed(ignore, "`ignore`"),
        space=None if space is None else SearchSpace(space),
        direction=_DIRECTION(direction, "`direction`"),
    )
    table = expanded(read_table(source, _COLUMN(study_name, "`study_name`")))
    if not len(table):
        raise RunFileError(f"{table.name} is empty: it needs at least one run, got none")
    if named.cost is None:
        named = replace(named, cost=table.cost)
    if named.space is None and not (named.params or named.scales or named.fidelity):
        named = replace(named, space=table.space)
    reading = _Reading(table, columns_of(table), named)
    return reading.runs()


def _listed(names: str | Sequence[str], argument: str) -> tuple[str, ...]:
    listed: tuple[str, ...] = _COLUMNS((names,) if isinstance(names, str) else names, argument)
    return listed


class _Reading:
    """Reads the rows of one table as it was decided what its columns are."""

    def __init__(self, table: Table, columns: Mapping[str, Column], named: Named) -> None:
        self.table, self.columns, self.named = table, columns, named
        self.choice: Choice = choose(table, columns, named)
        self.guesses = self.choice.guesses
        self.left: dict[int, str] = {}  # why a row is left out

    def runs(self) -> Runs:
        """Return the runs."""
        self._keep_last_of_each_run()
        outcomes = self._outcomes()
        for i, found in enumerate(outcomes):
            if found.status is None:
                self.left.setdefault(i, found.why)
        space, values = self._given() if self.choice.of_space is not None else self._guessed()
        rows = [i for i in range(len(self.table)) if i not in self.left]
        if not rows:
            why = Counter(self.left.values()).most_common(1)[0][0]
            raise RunFileError(
                f"{self.table.name} needs at least one complete row, got none of {len(self.table)}:"
                f" {why}; fill its cells, or name other columns"
            )
        configs = [
            {name: cells[i] for name, cells in values.items() if cells[i] is not _INACTIVE}
            for i in rows
        ]
        costs, unit = self._costs(space, configs, rows)
        seconds = self._amounts(self.choice.seconds, rows, duration=True)
        observations = tuple(
            Observation(
                number=k,
                config=configs[k],
                loss=outcomes[i].loss,
                cost=costs[k],
                status=outcomes[i].status or Status.COMPLETED,
                cause=outcomes[i].cause,
                order=k,
                ask_index=None,
                seconds=seconds[k],
            )
            for k, i in enumerate(rows)
        )
        guesses = Guesses(self._ordered(), self._sentences(outcomes, rows))
        return Runs(space, observations, self.choice.direction, unit, guesses, self.table.name)

    # --- rows ----------------------------------------------------------------------------------

    def _outcomes(self) -> list[Outcome]:
        """Return what became of each row."""
        column, choice = self.columns[self.choice.loss], self.choice
        losses = column.numbers
        if choice.direction and choice.loss in (self.choice.seconds, self.choice.cost):
            losses = column.durations
        states = choice.states or [None] * len(self.table)
        values, missing, text = (
            array.tolist() for array in (losses.values, losses.missing, losses.text)
        )
        found = []
        for i, state in enumerate(states):
            loss: float | None = values[i]
            if missing[i]:
                loss = None
            elif text[i] and state is not RunState.RUNNING:
                cell = str(column.cells[i])
                said = state_of(cell)
                loss = None
                if at_least(cell, column.decimal):
                    loss = math.nan
                elif said is None or said is RunState.COMPLETED:
                    raise RunFileError(
                        f"{self.table.at(i)}: `{column.name}` must be a number, got"
                        f" {_cut(cell)!r}; fix the cell, or name another column with"
                        f" {option('loss', 'COLUMN')}"
                    )
                else:
                    state = said
            found.append(outcome(loss, state, bool(choice.states)))
        return found

    def _keep_last_of_each_run(self) -> None:
        """Leave out all but the last row of each run where a table logs runs step by step."""
        names = [*self.columns]
        ids = [n for n in names if _leaf(n) in _IDS and self.columns[n].distinct]
        steps = [n for n in names if _leaf(n) in _STEP_NAMES and self.columns[n].are_numbers]
        tuned = {*self.choice.settings, *self.choice.sizes, *(self.choice.of_space or {}).values()}
        for name in ids:
            texts = self.columns[name].texts
            if None in texts or len(self.columns[name].distinct) * 2 > len(texts):
                continue
            groups: dict[str, list[int]] = {}
            for i, text in enumerate(texts):
                groups.setdefault(str(text), []).append(i)
            for step in steps:
                if step in tuned or step == self.choice.fidelity:
                    continue
                at = self.columns[step].numbers.values
                if any(len({*at[rows].tolist()}) < len(rows) for rows in groups.values()):
                    continue
                settings = [self.columns[n] for n in self.choice.settings]
                if any(
                    len({column.texts[i] for i in rows}) > 1
                    for column in settings
                    for rows in groups.values()
                ):
                    continue
                loss = self.columns[self.choice.loss].numbers
                for rows in groups.values():
                    told = [i for i in rows if not loss.missing[i]] or rows
                    last = max(told, key=lambda i: at[i])
                    for i in rows:
                        if i != last:
                            self.left[i] = f"an earlier {step} of the same {name}"
                return

    def _need(self, name: str, numbers: Numbers, row: int) -> None:
        """Refuse a cell that must be a finite number."""
        cell = _cut(str(self.columns[name].cells[row]))
        if numbers.text[row]:
            raise RunFileError(
                f"{self.table.at(row)}: `{name}` must be a number, got {cell!r}; fix the cell, or"
                f" say {option('params', f'{name}:choice')} if it is a category"
            )
        raise RunFileError(
            f"{self.table.at(row)}: `{name}` must be a finite number, got {cell!r}; drop that row"
        )

    def _checked(self, name: str) -> Numbers:
        """Return the numbers of a setting or size; rows that lack one are left out."""
        numbers = self.columns[name].numbers
        bad = numbers.text | (
            ~numbers.missing & ~np.isnan(numbers.values) & ~(np.abs(numbers.values) < _LARGEST)
        )
        for i in np.flatnonzero(bad).tolist():
            if i not in self.left:
                self._need(name, numbers, i)
        return numbers

    # --- the space -----------------------------------------------------------------------------

    def _guessed(self) -> tuple[SearchSpace, dict[str, list[Any]]]:
        """Return the space of the columns, and the canonical values of each parameter."""
        choice = self.choice
        names = [*choice.settings, *choice.sizes]
        values: dict[str, list[Any]] = {}
        for name in names:
            scale, _ = choice.settings.get(name, (None, Role.OTHER))
            values[name] = (
                self._categories(name) if scale is ColumnScale.CHOICE else self._numbers(name)
            )
        conditions = self._conditions(values)
        for name, cells in values.items():
            for i, cell in enumerate(cells):
                if cell is None and i not in self.left:
                    if name in conditions:
                        cells[i] = _INACTIVE
                    else:
                        self.left[i] = f"no `{name}`"
        kept = [i for i in range(len(self.table)) if i not in self.left]
        if not kept:
            return SearchSpace({"nothing": Float(0.0, 1.0)}), values
        space: dict[str, Parameter] = {}
        for name, (scale, role) in choice.settings.items():
            inside = [cells for i in kept if (cells := values[name][i]) is not _INACTIVE]
            parameter, said = self._parameter(name, scale, role, inside)
            if parameter is None:
                guess = self.guesses[name]
                self.guesses[name] = replace(
                    guess, use=Use.LEFT_OUT, kind="", reason="one value only"
                )
                continue
            when = conditions.get(name)
            if when is not None and not isinstance(parameter, Scale | Fidelity):
                parameter = replace(parameter, when=when)
                said += f", where {when[0]} is {' or '.join(map(str, when[1]))}"
            space[self._plain(name)] = parameter
            self.guesses[name] = replace(self.guesses[name], kind=said)
        for name, axis in choice.sizes.items():
            sizes = [values[name][i] for i in kept]
            for i, size in zip(kept, sizes, strict=True):
                if size < _SMALLEST:
                    raise RunFileError(
                        f"{self.table.at(i)}: `{name}` must hold positive sizes, got {size:g}; drop"
                        " that row, or leave the column out of the sizes"
                    )
            space[self._plain(name)] = Scale(min(sizes), max(sizes), axis=axis)
        if choice.fidelity is not None:
            self._add_fidelity(choice.fidelity, kept, space, values)
        if not space:
            raise RunFileError(
                f"{self.table.name} needs a tuned column with more than one value, got"
                f" {[*self.columns]}; name one, such as {option('params', 'lr:log:lr')}"
            )
        for name in [*values]:
            if (own := self._plain(name)) != name:
                values[own] = values.pop(name)
        values = {name: cells for name, cells in values.items() if name in space}
        searched = SearchSpace(space)
        return searched, {name: _canonical(searched[name], values[name]) for name in space}

    def _plain(self, name: str) -> str:
        """Return the name of a parameter: that of the study itself, else that of the column."""
        plain = name.removeprefix("params_").removeprefix("user_attrs_")
        if not self.table.declared or plain == name:
            return name
        own = f"params_{plain}" in self.table.declared and name not in self.table.declared
        return name if own else plain

    def _add_fidelity(
        self,
        name: str,
        kept: Sequence[int],
        space: dict[str, Parameter],
        values: dict[str, list[Any]],
    ) -> None:
        cells = self._numbers(name)
        for i in kept:
            level = cells[i]
            if level is None or level < 1 or level != round(level) or level > LARGEST_INT:
                raise RunFileError(
                    f"{self.table.at(i)}: `{name}` must be a whole number of at least 1, got"
                    f" {self.columns[name].cells[i]!r}; fix that row"
                )
        values[name] = [None if cell is None else int(cell) for cell in cells]
        levels = [values[name][i] for i in kept]
        space[name] = Fidelity(min(levels), max(levels))

    def _numbers(self, name: str) -> list[Any]:
        numbers = self._checked(name)
        return [None if math.isnan(value) else value for value in numbers.values.tolist()]

    def _categories(self, name: str) -> list[Any]:
        """Return cells as choices: numbers and yes or no as such, where all are."""
        column, declared = self.columns[name], self.table.declared.get(name)
        if isinstance(declared, Categorical):
            by_text = {str(choice): choice for choice in declared.choices}
            cells: list[Any] = [
                None if text is None else by_text.get(text, text) for text in column.texts
            ]
            if None in declared.choices:  # a choice, not a missing value
                cells = [_NONE if cell is None else cell for cell in column.cells]
            return cells
        low = {text.lower() for text in column.distinct}
        if low <= {"true", "false"}:
            return [None if text is None else text.lower() == "true" for text in column.texts]
        if column.are_numbers and np.isfinite(column.numbers.values).any():
            return [
                None if not math.isfinite(v) else int(v) if v == round(v) else v
                for v in column.numbers.values.tolist()
            ]
        return list(column.texts)

    def _conditions(self, values: Mapping[str, list[Any]]) -> dict[str, tuple[str, list[Any]]]:
        """Return, for settings that some runs lack, the category that says which runs have it."""
        rows = [i for i in range(len(self.table)) if i not in self.left]
        parents = [
            name
            for name, (scale, _) in self.choice.settings.items()
            if scale is ColumnScale.CHOICE and all(values[name][i] is not None for i in rows)
        ]
        found = {}
        for name in self.choice.settings:
            there = {i for i in rows if values[name][i] is not None}
            if not there or len(there) == len(rows):
                continue
            for parent in parents:
                active = {_hashable(values[parent][i]) for i in rows if i in there}
                without = {_hashable(values[parent][i]) for i in rows if i not in there}
                if not active & without:
                    kept = dict.fromkeys(values[parent][i] for i in rows if i in there)
                    found[name] = (parent, [*kept])
                    break
        return {name: (self._plain(parent), choices) for name, (parent, choices) in found.items()}

    def _parameter(
        self, name: str, scale: ColumnScale | None, role: Role, values: Sequence[Any]
    ) -> tuple[Parameter | None, str]:
        """Return the parameter of a column, None for one value only, and what to say of it."""
        said = "" if role is Role.OTHER else f", role {role.value}"
        declared = self.table.declared.get(name)
        if declared is not None and scale is None or isinstance(declared, Categorical):
            assert declared is not None and not isinstance(declared, Scale | Fidelity)
            kind = declared.unit.value if not isinstance(declared, Categorical) else "choice"
            return replace(declared, role=role), kind + said
        if scale is ColumnScale.CHOICE:
            choices = tuple({_hashable(value): value for value in values}.values())
            if len(choices) > _MOST_CHOICES:
                raise RunFileError(
                    f"`{name}` must have at most {_MOST_CHOICES} different values as a choice, got"
                    f" {len(choices)}; say {option('params', f'{name}:log')} or"
                    f" {option('ignore', name)}"
                )
            parameter = Categorical(choices, role=role) if len(choices) > 1 else None
            return parameter, scale.value + said
        low, high = min(values), max(values)
        if scale is None:
            scale = _likely_scale(role, low, high)
        if low == high:
            return None, scale.value + said
        log, logit = scale is ColumnScale.LOG, scale is ColumnScale.LOGIT
        if (log and low <= _SMALLEST) or (logit and not (0 < low and high < 1)):
            inside = "positive" if log else "inside (0, 1)"
            raise RunFileError(
                f"`{name}` must be {inside} to be read as {scale.value}, got {low:g} to {high:g} in"
                f" {self.table.name}; say {option('params', f'{name}:linear')}, or drop those rows"
            )
        if not logit and high <= LARGEST_INT and self._counts(name, role, values):
            return Int(int(low), int(high), log=log, role=role), scale.value + said
        return Float(low, high, log=log, logit=logit, role=role), scale.value + said

    def _counts(self, name: str, role: Role, values: Sequence[float]) -> bool:
        """Return whether a setting counts something, so that only whole numbers are legal."""
        if role in _COUNTS:
            return all(value == round(value) for value in values)
        return role is Role.OTHER and self.columns[name].are_whole

    def _given(self) -> tuple[SearchSpace, dict[str, list[Any]]]:
        """Return the space that the user gave, and the canonical values of each parameter."""
        space, columns = self.named.space, self.choice.of_space
        assert space is not None and columns is not None
        values: dict[str, list[Any]] = {}
        for name in space.parents_first:
            parameter, cells = space[name], self._values_in(name, space[name], columns.get(name))
            when = condition(parameter)
            free = name in space.extrapolated or isinstance(parameter, Scale)
            legal: dict[Any, Any] = {}
            for i, cell in enumerate(cells):
                if i in self.left:
                    continue
                if when is not None and values[when[0]][i] not in when[1]:
                    cells[i] = _INACTIVE
                    continue
                if cell is None:
                    self.left[i] = f"no `{name}`"
                    continue
                if cell not in legal:
                    legal[cell] = _legal(parameter, name, cell, free)
                if isinstance(legal[cell], _Illegal):
                    self.left[i] = legal[cell].why
                else:
                    cells[i] = legal[cell]
            values[name] = cells
        for name, column in columns.items():
            parameter = space[name]
            kind = "choice" if isinstance(parameter, Categorical) else parameter.unit.value
            self.guesses[column] = replace(self.guesses[column], kind=kind)
        return space, {name: values[name] for name in space}

    def _values_in(self, name: str, parameter: Parameter, column: str | None) -> list[Any]:
        """Return what each row says of a parameter; None where it says nothing."""
        count = len(self.table)
        if column is None:
            if isinstance(parameter, Fidelity):
                return [parameter.high] * count
            if isinstance(parameter, Categorical):
                return [parameter.choices[0] if len(parameter.choices) == 1 else None] * count
            return [parameter.low if parameter.low == parameter.high else None] * count
        if not isinstance(parameter, Categorical):
            return self._numbers(column)
        source = self.columns[column]
        by_text = {str(choice).lower(): choice for choice in parameter.choices}
        by_number = {
            float(choice): choice
            for choice in parameter.choices
            if isinstance(choice, int | float) and not isinstance(choice, bool)
        }
        found: list[Any] = []
        for i, text in enumerate(source.texts):
            if text is None:
                found.append(_NONE if None in parameter.choices else None)
                continue
            number = source.numbers.values[i]
            choice = by_text.get(text.lower(), by_number.get(number, text))
            found.append(choice)
        return found

    # --- costs ---------------------------------------------------------------------------------

    def _costs(
        self, space: SearchSpace, configs: Sequence[Mapping[str, Any]], rows: Sequence[int]
    ) -> tuple[list[float | None], str | None]:
        """Return the cost of each run and its unit: as told, else 6 N D, else the fidelity."""
        choice = self.choice
        if choice.cost is not None:
            return self._amounts(choice.cost, rows, duration=choice.cost_unit == "seconds"), (
                choice.cost_unit
            )
        none: list[float | None] = [None] * len(rows)
        if self.named.cost == "none":
            return none, None
        default = DefaultCost.of(space)
        if default is None:
            return none, None
        unit = space.fidelity if default.axes is None else "flops"
        return [default.of_run(config) for config in configs], unit

    def _amounts(
        self, name: str | None, rows: Sequence[int], *, duration: bool
    ) -> list[float | None]:
        """Return numbers >= 0; None where the cell is empty or NaN, or without such a column."""
        if name is None:
            return [None] * len(rows)
        column = self.columns[name]
        numbers = column.durations if duration else column.numbers
        if not duration and numbers.text.any():
            numbers = column.durations
        values = numbers.values
        bad = numbers.text | (values < 0) | np.isinf(values)
        for i in rows:
            if bad[i]:
                cell = _cut(str(column.cells[i]))
                rule = "a number" if numbers.text[i] else "finite and >= 0"
                raise RunFileError(
                    f"{self.table.at(i)}: `{name}` must be {rule}, got {cell!r}; leave the cell"
                    f" empty if it is not known, or say {option('ignore', name)}"
                )
        return [None if math.isnan(values[i]) else float(values[i]) for i in rows]

    # --- words ---------------------------------------------------------------------------------

    def _ordered(self) -> tuple[Guess, ...]:
        places = {name: j for j, name in enumerate(self.columns)}
        uses = [*Use]
        return tuple(
            sorted(self.guesses.values(), key=lambda g: (uses.index(g.use), places[g.column]))
        )

    def _sentences(self, outcomes: Sequence[Outcome], rows: Sequence[int]) -> tuple[str, ...]:
        kinds = Counter(outcomes[i].why or "completed" for i in rows)
        read = ", ".join(f"{count} {why}" for why, count in kinds.items())
        plural = "run" if len(rows) == 1 else "runs"
        sentences = [f"{len(rows)} {plural} from {self.table.name}: {read}", *self.table.notes]
        reasons: dict[str, list[int]] = {}
        for i, why in self.left.items():
            reasons.setdefault(why, []).append(i)
        for why, left in reasons.items():
            places = ", ".join(self.table.where(i) for i in sorted(left)[:_SHOWN])
            more = ", ..." if len(left) > _SHOWN else ""
            sentences.append(
                f"left out {len(left)} of {len(self.table)} rows: {why} ({places}{more})"
            )
        return tuple(sentences)


class _Mark:
    """A value that no cell has."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


_INACTIVE, _NONE = _Mark("inactive"), _Mark("none")
_IDS = ("run_id", "trial_id", "run", "run_name", "name", "id", "trial", "trial_name", "uuid")
_STEP_NAMES = ("step", "global_step", "epoch", "iteration", "iter", "training_iteration", "steps")


@dataclass(frozen=True, slots=True)
class _Illegal:
    why: str


def _legal(parameter: Parameter, name: str, cell: Any, extrapolate: bool) -> Any:
    """Return the canonical value of a cell, or why there is none."""
    value = None if cell is _NONE else cell
    try:
        if extrapolate and isinstance(parameter, Float | Int):
            checked: Any = parameter.check(value, name, extrapolate=True)
            return parameter.canonical(checked, extrapolate=True)
        if isinstance(parameter, Scale):
            return parameter.canonical(parameter.check(value, name, extrapolate=True))
        return parameter.canonical(parameter.check(value, name))  # type: ignore[arg-type]
    except SpaceError as error:
        return _Illegal(str(error).split("; ")[0])


def _canonical(parameter: Parameter, cells: Sequence[Any]) -> list[Any]:
    """Return canonical values, as the space stores them."""
    known: dict[Any, Any] = {}
    found = []
    for cell in cells:
        if cell is None or cell is _INACTIVE:
            found.append(cell)
            continue
        key = _hashable(cell)
        if key not in known:
            value = None if cell is _NONE else cell
            if isinstance(parameter, Categorical):
                known[key] = value
            else:
                known[key] = parameter.canonical(value)  # type: ignore[arg-type]
        found.append(known[key])
    return found


def _hashable(value: Any) -> Any:
    return (type(value) is bool, value)


def _likely_scale(role: Role, low: float, high: float) -> ColumnScale:
    if role in _LOGIT and 0 < low and high < 1:
        return ColumnScale.LOGIT
    if low < _SMALLEST or role in _LINEAR or role in _LOGIT:
        return ColumnScale.LINEAR
    wide = role is not Role.OTHER or high / low >= _WIDE
    return ColumnScale.LOG if wide else ColumnScale.LINEAR


def _leaf(name: str) -> str:
    from hpo.trials.read_runs.names import spellings

    return spellings(name)[-1].lstrip("_")


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
