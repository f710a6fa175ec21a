"""Every public constructor, function and method refuses what it cannot use, in one clear line.

Allowed are a result, or one error that names the argument and its value: one of ours, a ValueError
or a TypeError. An error from inside is none, and neither is a value of a wrong type that is taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo import BudgetError, SpaceError, Stop, StudyError
from hpo.space.scalars import real, whole
from hpo.trials.read_runs.errors import RunFileError
from tests.reliability.valid_calls import HOSTILE, NUMBERS, Call, quick_calls, slow_calls

pytestmark = pytest.mark.filterwarnings("ignore")

OURS = (BudgetError, SpaceError, StudyError, RunFileError)

#: Arguments that mean more than their type says.
INFINITE = re.compile(
    "Prediction.extrapolation|Reason.|Settings.clip|Settings.divergence"
    "|TorchTrainer.checkpoint_seconds|Optimizer.tell|StagedOptimizer.tell|Context.report|Report.loss"
)
_MAPPINGS = ("Mapping", "dict", "Config", "Scale", "GivenTasks", "History")
FUNCTION = re.compile("Callable|TrainFunction|Where")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fits(annotation: str, value: Any) -> bool:
    """Return whether a value is of a type that an annotation names."""
    plain = re.sub(r"\[[^\[\]]*(\[[^\[\]]*(\[[^\[\]]*\])*[^\[\]]*\])*[^\[\]]*\]", "", annotation)
    kinds = [kind.strip() for kind in plain.split("|")]
    if value is None:
        return bool(
            {"None", "Any", "object", "Priors", "Choice", "Channel", "GivenTasks", "History"}
            & set(kinds)
        )
    number = real(value)
    return any(
        {
            "Any": True,
            "object": True,
            "Channel": hasattr(value, "send"),
            "float": number is not None and math.isfinite(number),
            "int": whole(value) is not None,
            "bool": isinstance(value, bool | np.bool_),
            "str": isinstance(value, str),
            "Path": isinstance(value, str),
            "Interval": isinstance(value, list | tuple) and len(value) == 2,
            "frozenset": isinstance(value, set | frozenset)
            and all(whole(item) is not None for item in value),
            "Choice": isinstance(value, str | int | float | bool | np.generic),
        }.get(kind, False)
        or (
            kind in ("Mapping", "dict", "Config", "Scale", "GivenTasks", "History")
            and isinstance(value, Mapping)
        )
        or (
            kind in ("Sequence", "tuple", "Priors", "list")
            and isinstance(value, list | tuple | np.ndarray)
        )
        or (bool(FUNCTION.match(kind)) and callable(value))
        for kind in kinds
    )


def outcome(call: Call, argument: str, value: Any) -> str | None:
    """Return what is wrong with how a call ends, None if nothing is."""
    function = call.make()
    arguments = {**call.arguments(), argument: value}
    if FUNCTION.match(str(call.parameters()[argument].annotation)) and isinstance(value, type):
        return None  # it can be called, and what comes of that is its own
    try:
        function(**arguments)
    except (*OURS, ValueError, TypeError, OSError) as error:
        try:
            message = str(error)
        except Exception as inside:
            return f"a message that cannot be read: {inside!r}"
        if isinstance(error, OURS) and message:
            return None
        words = (argument, argument.removesuffix("s"), argument.replace("_", " "))
        return None if any(word in message for word in words) else f"{error!r} from inside"
    except Stop:
        return None
    except Exception as error:
        return f"{error!r} from inside"
    name = f"{call.name}.{argument}"
    annotation = str(call.parameters()[argument].annotation)
    infinite = bool(INFINITE.match(name)) and real(value) is not None
    if argument in call.any_value or infinite or fits(annotation, value):
        return None
    return f"a value that is no {annotation} was taken"


def faults(calls: list[Call]) -> list[str]:
    """Return every fault of calls, each argument replaced by each hostile value."""
    found = []
    for call in calls:
        for argument in call.parameters():
            for text, make in HOSTILE.items():
                wrong = outcome(call, argument, make())
                if wrong is not None:
                    found.append(f"{call.name}({argument}={text}): {wrong}")
    return found


def test_every_public_call_refuses_what_it_cannot_use_in_one_clear_line() -> None:
    assert faults(quick_calls()) == []


@pytest.mark.engine
def test_calls_that_fit_run_or_train_refuse_it_as_well() -> None:
    assert faults(slow_calls()) == []


def test_a_number_may_be_of_any_type_that_stands_for_one() -> None:
    found = []
    for call in quick_calls():
        given_values = call.arguments()
        for argument, parameter in call.parameters().items():
            number = given_values.get(argument, parameter.default)
            kinds = str(parameter.annotation).split(" | ")
            if type(number) not in (int, float) or not {"int", "float"} & set(kinds):
                continue
            for text, make in NUMBERS.items():
                if isinstance(number, float) and not number.is_integer() and text == "np.int64":
                    continue
                value = make(int(number) if text == "np.int64" else number)
                if real(value) == number:  # single precision holds it
                    try:
                        call.make()(**{**call.arguments(), argument: value})
                    except Exception as error:
                        found.append(f"{call.name}({argument}={text}): {error!r}")
    assert found == []


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.binary(max_size=4)
    | st.sampled_from(sorted(HOSTILE)).map(lambda name: HOSTILE[name]()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["lr", "params", "step", "loss"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(
    "new",
    [pytest.param(False, marks=pytest.mark.engine), pytest.param(True, marks=pytest.mark.slow)],
)
def test_every_public_call_meets_anything(new: bool) -> None:
    """The same examples in every run, and `new` ones."""
    calls = quick_calls()

    @settings(
        max_examples=3000 if new else 1000,
        derandomize=not new,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(calls), st.data())
    def meets(call: Call, data: st.DataObject) -> None:
        arguments = sorted(call.parameters())
        if arguments:
            argument = data.draw(st.sampled_from(arguments))
            assert outcome(call, argument, data.draw(ANYTHING)) is None

    meets()
