"""Reason of a proposal as data: a kind with its numbers, from which a sentence is made.

Code and tests read the fields; the sentence is for people and nothing depends on its words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, Self

from hpo.errors import printable_str
from hpo.space.arguments import Count, Flag, Kind, Member, Number, Row, Table, Text, store

__all__ = ["Reason", "ReasonKind"]

#: What the argument of every `from_json` is, for its message.
READ_BACK = "pass what to_json returned"


class ReasonKind(Enum):
    """Rule that chose a config.

    Example:
        >>> ReasonKind("improve loss")
        <ReasonKind.IMPROVE_LOSS: 'improve loss'>
    """

    START_POINT = "start point"  # of the initial design
    EXPLORE = "explore"  # far from what was tried, before any run was completed
    RANDOM = "random"  # one in a few under a scheduler
    IMPROVE_LOSS = "improve loss"  # expected improvement over the best loss
    IMPROVE_FRONT = "improve front"  # of loss against cost, at one cost level
    IMPROVE_OBJECTIVES = "improve objectives"  # volume that the front of several dominates
    KEEP_CONSTRAINTS = "keep constraints"  # until some run is expected to keep all of them
    IMPROVE_FULL_FIDELITY = "improve full fidelity"  # of a run that may pause
    LEARN_TARGET = "learn target"  # most information about the best config at the target
    REPLICATE = "replicate"  # measure a member of the front again
    POSTERIOR_SAMPLE = "posterior sample"  # Thompson sampling from the quantile forest
    MODEL_FAILED = "model failed"  # no model could be built, so it explores
    OTHER = "other"  # in words only: of an optimizer of the user's own, or of an earlier version


@dataclass(frozen=True, slots=True)
class Reason:
    """Reason of a proposal; fields that its kind does not use keep their defaults.

    Attributes:
        kind: Rule that chose the config.
        repeated: Whether the config was tried before, because every other one was.
        from_pool: Whether only given configs could be asked (`ask(among=...)`).
        surrogate: Model that answered: "scaling", "quantile forest", or the output transform of the
            Gaussian process, such as "log".
        log_acquisition: Log expected improvement of the config.
        cost_level: Cost near which the front is improved, in the study's unit.
        quantile: Quantile level in (0, 1) that the forest was sampled at.
        forest_share: Share of the asks that the forest answers, in [0, 1]; None where the user
            named the forest.
        expected_regret: Expected regret of the best known config at the target, in units of the
            loss.
        start: Number of the start point, from 1, and the number of all start points.
        log_parameters: Parameters declared linear whose logarithm the model uses.
        other_tasks: Other tasks that the config comes from, each with its share in (0, 1]: of the
            prior of the model or, for a start point, of the tasks that it serves.
        text: Message of the model's error; for kind `OTHER` the whole sentence.

    Example:
        >>> reason = Reason(ReasonKind.START_POINT, start=(1, 4))
        >>> str(reason)
        'start point 1 of 4'
        >>> Reason.from_json(reason.to_json()) == reason
        True
    """

    kind: ReasonKind
    repeated: bool = False
    from_pool: bool = False
    surrogate: str | None = None
    log_acquisition: float | None = None
    cost_level: float | None = None
    quantile: float | None = None
    forest_share: float | None = None
    expected_regret: float | None = None
    start: tuple[int, int] | None = None
    log_parameters: tuple[str, ...] = ()
    other_tasks: tuple[tuple[str, float], ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        flag, number = Flag(), Number(optional=True, infinite=True)
        name = Text(optional=True, empty=True)
        store(
            self,
            kind=Kind(ReasonKind, way_out="write ReasonKind.OTHER or another member"),
            repeated=flag,
            from_pool=flag,
            surrogate=name,
            log_acquisition=number,
            cost_level=number,
            quantile=number,
            forest_share=number,
            expected_regret=number,
            start=Row(Count(0), length=2, optional=True, way_out="write (1, 4)"),
            log_parameters=Row(Text(empty=True)),
            other_tasks=Row(Kind(tuple, way_out='write ("task a", 0.5)')),
            text=Text(empty=True),
        )

    @printable_str
    def __str__(self) -> str:
        sentence = self._tried() if self.repeated else self._sentence()
        notes = []
        if self.log_acquisition is not None:
            notes.append(f"log-EI {self.log_acquisition:.2f}")
        if self.surrogate is not None:
            notes.append(f"{self.surrogate} model" if self.kind is not _FOREST else self._forest())
        if self.log_parameters:
            notes.append(f"in logarithms: {', '.join(self.log_parameters)}")
        if self.other_tasks:
            notes.append(self._learned())
        return f"{sentence} ({'; '.join(notes)})" if notes else sentence

    def _sentence(self) -> str:
        match self.kind:
            case ReasonKind.START_POINT:
                return "start point" + (
                    "" if self.start is None else " {} of {}".format(*self.start)
                )
            case ReasonKind.EXPLORE:
                return "explores: no run has been completed yet"
            case ReasonKind.RANDOM:
                return "random: one new run in four is drawn at random"
            case ReasonKind.IMPROVE_LOSS:
                return "maximizes expected improvement of the best loss"
            case ReasonKind.IMPROVE_FRONT:
                return (
                    f"maximizes expected improvement of the front near cost {self.cost_level:.3g}"
                )
            case ReasonKind.IMPROVE_OBJECTIVES:
                return "maximizes the expected gain of what the front of all objectives dominates"
            case ReasonKind.KEEP_CONSTRAINTS:
                return "most likely keeps every constraint, which no run has yet"
            case ReasonKind.IMPROVE_FULL_FIDELITY:
                return "maximizes expected improvement at full fidelity"
            case ReasonKind.LEARN_TARGET:
                return (
                    "teaches most about the target per cost: the expected regret there is "
                    f"{self.expected_regret:.3g}"
                )
            case ReasonKind.REPLICATE:
                return "repeats a member of the front, whose loss is uncertain because of noise"
            case ReasonKind.POSTERIOR_SAMPLE:
                return f"best posterior sample at quantile level {self.quantile:.2f}"
            case ReasonKind.MODEL_FAILED:
                return f"explores: the model could not be built ({self.text})"
            case ReasonKind.OTHER:
                return self.text

    def _tried(self) -> str:
        return f"every other config of the {'pool' if self.from_pool else 'space'} was tried"

    def _forest(self) -> str:
        if self.forest_share is None:
            return "quantile forest, as asked for"
        return f"quantile forest, used for {self.forest_share:.0%} of the asks by forecast skill"

    def _learned(self) -> str:
        if self.kind is ReasonKind.START_POINT:
            return f"did best on other tasks: {_listed(name for name, _ in self.other_tasks)}"
        return _listed(f"{share:.0%} from {name}" for name, share in self.other_tasks)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values, from which `from_json` restores an equal reason.

        Fields that have their default value are left out.

        Example:
            >>> Reason(ReasonKind.IMPROVE_LOSS, surrogate="log", log_acquisition=-2.5).to_json()
            {'kind': 'improve loss', 'surrogate': 'log', 'log_acquisition': -2.5}
        """
        stored: dict[str, Any] = {"kind": self.kind.value}
        for item in fields(self)[1:]:
            value = getattr(self, item.name)
            if value != item.default:
                stored[item.name] = list(value) if isinstance(value, tuple) else value
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the reason that `to_json` stored.

        Args:
            stored: Values of `to_json`.

        Example:
            >>> reason = Reason.from_json({"kind": "start point", "start": [2, 4]})
            >>> reason.kind, reason.start
            (<ReasonKind.START_POINT: 'start point'>, (2, 4))
        """
        kind, *others = (item.name for item in fields(cls))
        read = Table(keys=(kind,), way_out=READ_BACK)(stored, "`stored`")
        known = {name: _as_tuple(read[name]) for name in others if name in read}
        return cls(Member(ReasonKind)(read[kind], "`kind` in `stored`"), **known)


def _as_tuple(value: Any) -> Any:
    """Return lists, and lists in them, as tuples."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value


def _listed(parts: Iterable[str]) -> str:
    """Return the first parts, and how many more there are."""
    names = list(parts)
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join(names[:_SHOWN] + more)


_FOREST = ReasonKind.POSTERIOR_SAMPLE
_SHOWN = 3  # other tasks that a sentence names
