"""A trial log as JSON, for tools that keep files rather than an Optuna study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpo.optimizer.ask_tell import Optimizer
from hpo.space.arguments import Kind, Row, Table
from hpo.trials import (
    Observation,
    Prediction,
    Report,
    Reported,
    RungAssignment,
    Trial,
    TrialLog,
)

__all__ = ["events_to_json", "replay"]


def events_to_json(log: TrialLog) -> list[dict[str, Any]]:
    """Return every event of a log in order, as JSON-able values.

    Example:
        >>> from hpo import Float
        >>> from hpo.optimizer.ask_tell import Optimizer
        >>> first, second = (Optimizer({"x": Float(0, 1)}, seed=0) for _ in range(2))
        >>> _ = first.tell(first.ask(), 0.5)
        >>> events = events_to_json(first.log)
        >>> [event["event"] for event in events]
        ['asked', 'told']
        >>> replay(second, events)
        >>> second.log.observations == first.log.observations
        True
    """
    log = Kind(TrialLog, way_out="pass result.log or optimizer.log")(log, "`log`")
    return [_to_json(event) for event in log.events()]


def replay(optimizer: Optimizer, events: Sequence[dict[str, Any]]) -> None:
    """Record in an optimizer with an empty log what `events_to_json` returned.

    Args:
        optimizer: Optimizer with the same arguments as the one whose log it was.
        events: Events in order.
    """
    optimizer = Kind(Optimizer)(optimizer, "`optimizer`")
    events = Row(Table(keys=("event", "number")), way_out="pass what events_to_json returned")(
        events, "`events`"
    )
    log = optimizer.log
    known: set[int] = set()
    for event in events:
        match event["event"]:
            case "asked" if event["number"] in known:
                log.resume(event["number"], event["place"][0] if event["place"] else None)
            case "asked":
                known.add(event["number"])
                optimizer.add_pending(_trial(event))
            case "reported":
                log.report(event["number"], Report.from_json(event["report"]))
            case _:
                optimizer.record(optimizer.as_priced_now(_observation(event, log)))


def _to_json(event: Trial | Reported | Observation) -> dict[str, Any]:
    match event:
        case Trial():
            return {
                "event": "asked",
                "number": event.number,
                "config": event.config,
                "ask_index": event.ask_index,
                "belief": None if event.prediction is None else event.prediction.to_json(),
                "parent": event.parent,
                "place": None if event.assignment is None else event.assignment.to_json(),
            }
        case Reported(number, report):
            return {"event": "reported", "number": number, "report": report.to_json()}
        case Observation():
            return {
                "event": "told",
                "number": event.number,
                "config": event.config,
                "ask_index": event.ask_index,
                **event.to_json(),
            }


def _trial(stored: dict[str, Any]) -> Trial:
    belief, place = stored["belief"], stored["place"]
    return Trial(
        stored["number"],
        stored["config"],
        stored["ask_index"],
        None if belief is None else Prediction.from_json(belief),
        stored["parent"],
        None if place is None else RungAssignment.from_json(place),
    )


def _observation(stored: dict[str, Any], log: TrialLog) -> Observation:
    return Observation.from_json(
        stored,
        number=stored["number"],
        config=stored["config"],
        ask_index=stored["ask_index"],
        reports=log.reports(stored["number"]),
    )
