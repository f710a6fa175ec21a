"""Search spaces: checked mappings from names to parameters, and the configs that belong to them.

A space names what `hpo.space.parameters` leaves nameless, resolves which parameters are active, and
describes itself for storage.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from hpo.errors import SpaceError
from hpo.space.arguments import Flag, Table
from hpo.space.checks import Value
from hpo.space.optuna_distributions import from_distribution, to_distribution
from hpo.space.parameters import (
    Categorical,
    Fidelity,
    Float,
    Int,
    Parameter,
    Scale,
    condition,
)
from hpo.space.predicate import Predicate, Where
from hpo.space.roles import Axis, Role
from hpo.space.scalars import shown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class SearchSpace(Mapping[str, Parameter]):
    """An immutable, checked mapping from names to parameters, in the order given.

    Args:
        parameters: mapping from names to parameters or Optuna distributions, or another
            `SearchSpace`. An Optuna distribution with a step that is not a plain lattice becomes an
            ordinal over its grid (up to 1000 values).
        where: function of a whole config, a dict of its active parameters, that returns True if it
            may run. Only such configs are proposed and recommended. It should depend on nothing
            but its argument. It is not stored with a study: pass it again to resume. Runs that are
            told are learned from, whether they keep it or not. Where `parameters` is a space with a
            `where` of its own, both must hold.

    Raises:
        SpaceError: when a parameter is no parameter, when `when` names an unknown parent, a value
            the parent cannot take, or runs in a circle, when there are two fidelities, and when
            `where` cannot be called.

    Example:
        >>> space = SearchSpace({
        ...     "optimizer": Categorical(["sgd", "adamw"]),
        ...     "momentum": Float(0.0, 0.99, when=("optimizer", ["sgd"])),
        ...     "lr": Float(1e-4, 1e-1, log=True),
        ...     "epochs": Fidelity(1, 81),
        ... })
        >>> list(space)
        ['optimizer', 'momentum', 'lr', 'epochs']
        >>> space["epochs"]
        Fidelity(low=1, high=81)

        A condition that no single parameter can express:

        >>> heads = SearchSpace(
        ...     {"heads": Int(1, 64), "head_dim": Int(16, 256, multiple_of=16)},
        ...     where=lambda c: c["heads"] * c["head_dim"] <= 4096,
        ... )
        >>> [heads.allows({"heads": count, "head_dim": 256}) for count in (16, 32)]
        [True, False]
    """

    __slots__ = ("_depth_order", "_extrapolated", "_parameters", "_where")

    def __init__(
        self,
        parameters: Mapping[str, Parameter | BaseDistribution] | SearchSpace,
        *,
        where: Where | None = None,
    ) -> None:
        if not isinstance(parameters, Mapping):
            raise SpaceError(
                "a search space must be a mapping from names to parameters, got"
                f" {type(parameters).__name__}; write"
                ' {"lr": Float(1e-4, 1e-1, log=True), ...}'
            )
        if not parameters:
            raise SpaceError("a search space must hold at least one parameter, got {}; add one")
        checked: dict[str, Parameter] = {}
        for name, parameter in parameters.items():
            if not isinstance(name, str) or not name:
                raise SpaceError(
                    f"parameter names must be non-empty strings, got {shown(name)}; rename it"
                )
            checked[name] = _as_parameter(name, parameter)
        fidelities = [
            name for name, parameter in checked.items() if isinstance(parameter, Fidelity)
        ]
        if len(fidelities) > 1:
            raise SpaceError(
                f"at most one Fidelity may be in a space, got {fidelities}; keep one and make the"
                " others Int or Scale"
            )
        for name, parameter in checked.items():
            checked[name] = _resolve_when(name, parameter, checked)
        self._parameters = checked
        self._depth_order = _parents_first(checked)
        self._extrapolated = _extrapolated(checked)
        inherited = parameters.where if isinstance(parameters, SearchSpace) else None
        functions = [function for function in (inherited, where) if function is not None]
        self._where = Predicate(*functions) if functions else None

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        where = "" if self._where is None else f", where={self._where}"
        return f"SearchSpace({self._parameters!r}{where})"

    @property
    def decisions(self) -> tuple[str, ...]:
        """Names that are tuned: all but scale axes and fidelity.

        Example:
            >>> SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 9)}).decisions
            ('lr',)
        """
        return tuple(n for n, p in self._parameters.items() if not isinstance(p, Scale | Fidelity))

    @property
    def scales(self) -> tuple[str, ...]:
        """Names of the scale axes.

        Example:
            >>> SearchSpace({"x": Float(0.0, 1.0), "params": Scale(1e6, 1e8)}).scales
            ('params',)
        """
        return tuple(self.scale_axes)

    @property
    def scale_axes(self) -> dict[str, Scale]:
        """Scale axes by name.

        Example:
            >>> SearchSpace({"x": Float(0.0, 1.0), "width": Scale(64, 512)}).scale_axes
            {'width': Scale(low=64.0, high=512.0, axis=<Axis.OTHER: 'other'>)}
        """
        return {n: p for n, p in self._parameters.items() if isinstance(p, Scale)}

    @property
    def extrapolated(self) -> tuple[str, ...]:
        """Names of the settings that may leave their range at a size beyond the runs.

        Where there are scale axes, they are the Floats and Ints that are not `hard`, have more than
        one value, and that no `when` depends on.

        Example:
            >>> lr, params = Float(1e-4, 1e-1, log=True), Scale(1e6, 1e8)
            >>> SearchSpace({"lr": lr, "params": params}).extrapolated
            ('lr',)
            >>> SearchSpace({"lr": lr}).extrapolated
            ()
        """
        return self._extrapolated

    @property
    def fidelity(self) -> str | None:
        """Name of the fidelity, None if the space has none.

        Example:
            >>> SearchSpace({"x": Float(0.0, 1.0), "epochs": Fidelity(1, 9)}).fidelity
            'epochs'
        """
        return next((n for n, p in self._parameters.items() if isinstance(p, Fidelity)), None)

    @property
    def where(self) -> Predicate | None:
        """What a config must satisfy to run; None if every config may.

        Example:
            >>> SearchSpace({"x": Float(0.0, 1.0)}).where is None
            True
        """
        return self._where

    @property
    def parents_first(self) -> tuple[str, ...]:
        """All names, ordered so that a parent comes before its children.

        Example:
            >>> child, parent = Float(0.0, 1.0, when=("kind", ["b"])), Categorical(["a", "b"])
            >>> SearchSpace({"x": child, "kind": parent}).parents_first
            ('kind', 'x')
        """
        return self._depth_order

    def active(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names that are active under a config, in the order of the space.

        Args:
            config: values by name; only those of parents are read.

        Raises:
            SpaceError: when an active parent is missing.

        Example:
            >>> kind = Categorical(["a", "b"])
            >>> space = SearchSpace({"kind": kind, "x": Float(0.0, 1.0, when=("kind", ["b"]))})
            >>> space.active({"kind": "a"}), space.active({"kind": "b"})
            (('kind',), ('kind', 'x'))
        """
        _check_config(config)
        active = set()
        for name in self._depth_order:
            when = condition(self._parameters[name])
            if when is None:
                active.add(name)
                continue
            parent, values = when
            if parent not in active:
                continue
            if parent not in config:
                raise SpaceError(
                    f"`{parent}` is missing from the config, and `{name}` depends on it; add it"
                )
            if self._parameters[parent].check(config[parent], parent) in values:
                active.add(name)
        return tuple(name for name in self._parameters if name in active)

    def allows(self, config: Mapping[str, Any]) -> bool:
        """Return whether a config of the space may run, by `where`.

        Args:
            config: config of the space, which is not checked otherwise.

        Raises:
            SpaceError: if `where` raises, or returns anything but True or False.

        Example:
            >>> space = SearchSpace({"n": Int(1, 9)}, where=lambda c: c["n"] % 2 == 0)
            >>> space.allows({"n": 4}), space.allows({"n": 5})
            (True, False)
        """
        return self._where is None or self._where(config)

    def validate(self, config: Mapping[str, Any], *, extrapolate: bool = False) -> dict[str, Any]:
        """Return a config as a dict of plain Python values in the order of the space.

        Args:
            config: values of all active parameters by name.
            extrapolate: whether scale axes and the settings of `extrapolated` may leave their
                range, as a run at the target does.

        Raises:
            SpaceError: for unknown, missing, inactive or illegal entries.

        Example:
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "batch": Int(8, 64)})
            >>> space.validate({"batch": 16.0, "lr": 1e-3})
            {'lr': 0.001, 'batch': 16}
        """
        _check_config(config)
        extrapolate = Flag()(extrapolate, "`extrapolate`")
        unknown = [name for name in config if name not in self._parameters]
        if unknown:
            raise SpaceError(
                f"every name of a config must be in the space, got unknown {unknown}; "
                f"the space holds {list(self._parameters)}"
            )
        active = self.active(config)
        missing = [name for name in active if name not in config]
        if missing:
            raise SpaceError(
                f"a config must hold every active parameter, got none for {missing}; add them"
            )
        inactive = [name for name in config if name not in active]
        if inactive:
            conditions = "; ".join(
                f"`{n}` needs {_condition_text(self._parameters[n])}" for n in inactive
            )
            raise SpaceError(
                f"a config must not hold inactive parameters, got {inactive} ({conditions}); drop"
                " them"
            )
        return {name: self._check(name, config[name], extrapolate) for name in active}

    def canonical(self, config: Mapping[str, Any], *, extrapolate: bool = False) -> dict[str, Any]:
        """Return `validate(config)` with every value rounded to its canonical one.

        Canonical configs are exact under encoding and decoding.

        Args:
            config: values of all active parameters by name.
            extrapolate: whether scale axes and the settings of `extrapolated` may leave their
                range, as a run at the target does.

        Raises:
            SpaceError: for unknown, missing, inactive or illegal entries.

        Example:
            >>> SearchSpace({"x": Float(0.0, 1.0)}).canonical({"x": 0.1 + 0.2})
            {'x': 0.3}
        """
        valid: dict[str, Any] = self.validate(config, extrapolate=extrapolate)
        return {name: self._canonical(name, value, extrapolate) for name, value in valid.items()}

    def key(self, config: Mapping[str, Any]) -> Hashable:
        """Return a hashable identity of a canonical config, equal exactly for equal configs.

        Args:
            config: canonical config.

        Example:
            >>> SearchSpace({"x": Float(0.0, 1.0), "n": Int(1, 3)}).key({"n": 2, "x": 0.5})
            (('x', 0.5), ('n', 2))
        """
        _check_config(config)
        return tuple((name, config[name]) for name in self._parameters if name in config)

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """Return a description of the space that JSON can hold, to recognize it on resume.

        Example:
            >>> SearchSpace({"epochs": Fidelity(1, 9)}).fingerprint()
            {'epochs': {'kind': 'Fidelity', 'low': 1, 'high': 9}}
        """
        return {name: _describe(parameter) for name, parameter in self._parameters.items()}

    @classmethod
    def from_fingerprint(cls, fingerprint: Mapping[str, Mapping[str, Any]]) -> SearchSpace:
        """Return the space that a fingerprint describes.

        Args:
            fingerprint: what `fingerprint()` returned, perhaps read back from JSON.

        Example:
            >>> space = SearchSpace({"x": Float(0.0, 1.0), "n": Int(1, 9)})
            >>> SearchSpace.from_fingerprint(space.fingerprint()) == space
            True
        """
        described = _FINGERPRINT(fingerprint, "`fingerprint`", SpaceError)
        return cls({name: _from_description(name, d) for name, d in described.items()})

    def difference(self, other: Mapping[str, Mapping[str, Any]]) -> str | None:
        """Return what differs from a stored space, None if nothing does.

        Args:
            other: `fingerprint()` of the stored space.

        Example:
            >>> stored = SearchSpace({"epochs": Fidelity(1, 9)}).fingerprint()
            >>> SearchSpace({"epochs": Fidelity(1, 27)}).difference(stored)
            '`epochs`: high is 27, was 9'
        """
        other = _FINGERPRINT(other, "`other`", SpaceError)
        mine = self.fingerprint()
        found = []
        for name in [*mine, *(n for n in other if n not in mine)]:
            if name not in other:
                found.append(f"`{name}` is new")
            elif name not in mine:
                found.append(f"`{name}` is gone")
            else:
                here, there = _with_defaults(mine[name]), _with_defaults(other[name])
                found.extend(
                    f"`{name}`: {field} is {here.get(field)!r}, was {there.get(field)!r}"
                    for field in dict.fromkeys([*here, *there])
                    if here.get(field) != there.get(field)
                )
        if not found and list(mine) != list(other):
            found.append(f"the order is {list(mine)}, was {list(other)}")
        return "; ".join(found) or None

    def distributions(
        self, config: Mapping[str, Any], box: Mapping[str, tuple[float, float]]
    ) -> dict[str, BaseDistribution]:
        """Return Optuna distributions of the active parameters of a config.

        Logit floats are stored as plain floats.

        Args:
            config: canonical config.
            box: finite range in v that was searched, by name, for unbounded parameters
                (`Encoder.value_box`). It is widened to hold the config's own value, as is any
                range that the config leaves.

        Example:
            >>> SearchSpace({"n": Int(1, 9)}).distributions({"n": 3}, {})
            {'n': IntDistribution(high=9, log=False, low=1, step=1)}
        """
        return {
            name: to_distribution(self._parameters[name], config[name], box.get(name))
            for name in self.active(config)
        }

    def _check(self, name: str, value: object, extrapolate: bool) -> Value:
        parameter = self._parameters[name]
        if isinstance(parameter, Scale):
            return parameter.check(value, name, extrapolate=extrapolate)
        if isinstance(parameter, Float | Int) and name in self._extrapolated:
            return parameter.check(value, name, extrapolate=extrapolate)
        return parameter.check(value, name)

    def _canonical(self, name: str, value: Any, extrapolate: bool) -> Value:
        parameter = self._parameters[name]
        if isinstance(parameter, Float | Int) and name in self._extrapolated:
            return parameter.canonical(value, extrapolate=extrapolate)
        return parameter.canonical(value)


_FINGERPRINT = Table(Table(), way_out="pass what fingerprint() returned")


def _check_config(config: object) -> None:
    if not isinstance(config, Mapping):
        raise SpaceError(
            f"a config must be a mapping from names to values, got {shown(config)}"
            f" ({type(config).__name__}); pass a dict"
        )


# --- conditions ----------------------------------------------------------------------------------


def _condition_text(parameter: Parameter) -> str:
    when = condition(parameter)
    assert when is not None
    parent, values = when
    return f"`{parent}` in {list(values)!r}"


def _resolve_when(name: str, parameter: Parameter, space: Mapping[str, Parameter]) -> Parameter:
    """Return `parameter` with the values of its `when` as the parent has them, in its order."""
    when = condition(parameter)
    if when is None or isinstance(parameter, Scale | Fidelity):
        return parameter
    parent_name, values = when
    parent = space.get(parent_name)
    if parent is None:
        raise SpaceError(
            f"`when` of `{name}` must name a parameter of the space, got {parent_name!r}; the space"
            f" holds {list(space)}"
        )
    if not isinstance(parent, Categorical | Int):
        raise SpaceError(
            f"`when` of `{name}` must name a Categorical or Int, got `{parent_name}`, a"
            f" {type(parent).__name__}; add a Categorical that switches it"
        )
    known = {parent.check(value, f"{parent_name}` in `when` of `{name}") for value in values}
    if isinstance(parent, Categorical):
        return replace(
            parameter, when=(parent_name, tuple(c for c in parent.choices if c in known))
        )
    return replace(parameter, when=(parent_name, tuple(sorted(known))))  # type: ignore[type-var]  # all int here


def _parents_first(space: Mapping[str, Parameter]) -> tuple[str, ...]:
    ordered: dict[str, None] = {}
    for name in space:
        chain = [name]
        while (when := condition(space[chain[-1]])) is not None and when[0] not in ordered:
            if when[0] in chain:
                raise SpaceError(
                    f"`when` must not run in a circle, got {' -> '.join([*chain, when[0]])}; break"
                    " it at one of them"
                )
            chain.append(when[0])
        ordered.update(dict.fromkeys(reversed(chain)))
    return tuple(ordered)


def _extrapolated(space: Mapping[str, Parameter]) -> tuple[str, ...]:
    if not any(isinstance(parameter, Scale) for parameter in space.values()):
        return ()
    parents = {when[0] for p in space.values() if (when := condition(p)) is not None}
    return tuple(
        name
        for name, p in space.items()
        if isinstance(p, Float | Int) and name not in parents and p.physical_limits != p.limits
    )


# --- storage -------------------------------------------------------------------------------------


def _describe(parameter: Parameter) -> dict[str, Any]:
    def jsonable(value: object) -> object:
        if isinstance(value, Enum):
            return value.name
        return [jsonable(v) for v in value] if isinstance(value, tuple) else value

    described = {
        field.name: jsonable(getattr(parameter, field.name)) for field in fields(parameter)
    }
    if described.get("hard") is False:
        del described["hard"]  # as in studies stored before there was such an argument
    return {"kind": type(parameter).__name__} | described


def _with_defaults(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `_describe` returned with what it left out."""
    return {"hard": False} | dict(described)


def _from_description(name: str, described: Mapping[str, Any]) -> Parameter:
    """Return the parameter that `_describe` described under a name."""
    try:
        return _described(described)
    except (KeyError, TypeError, ValueError) as error:
        raise SpaceError(
            f"`fingerprint` must describe parameters as fingerprint() does, got"
            f" {shown(described)} for {name!r} ({error}); pass what it returned"
        ) from None


def _described(described: Mapping[str, Any]) -> Parameter:
    arguments = {name: value for name, value in described.items() if name != "kind"}
    if "role" in arguments:
        arguments["role"] = Role[arguments["role"]]
    if "axis" in arguments:
        arguments["axis"] = Axis[arguments["axis"]]
    if arguments.get("when") is not None:
        parent, values = arguments["when"]
        arguments["when"] = (parent, values)
    kinds = {kind.__name__: kind for kind in (Float, Int, Categorical, Scale, Fidelity)}
    parameter: Parameter = kinds[described["kind"]](**arguments)
    return parameter


# --- Optuna --------------------------------------------------------------------------------------


def _as_parameter(name: str, parameter: object) -> Parameter:
    if isinstance(parameter, Float | Int | Categorical | Scale | Fidelity):
        return parameter
    # An object can be an Optuna distribution only if Optuna has been imported.
    distributions = sys.modules.get("optuna.distributions")
    if distributions is None or not isinstance(parameter, distributions.BaseDistribution):
        raise SpaceError(
            f"`{name}` must be a Float, Int, Categorical, Scale, Fidelity or an Optuna"
            f" distribution, got {shown(parameter)} ({type(parameter).__name__}); a constant"
            " is Categorical([value])"
        )
    try:
        return from_distribution(parameter)
    except SpaceError as error:
        raise SpaceError(f"in `{name}`: {error}") from None
