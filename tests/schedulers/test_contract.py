"""Every scheduler keeps the contract; what identifies them in storage stays the same."""

from collections.abc import Callable

import pytest

from hpo import Float, FreezeThaw, SearchSpace, SpaceError
from hpo.schedulers import (
    ASHA,
    PASHA,
    PBT,
    ASHAVariant,
    Hyperband,
    IterativeDeepening,
    MedianStopping,
    OneEpoch,
    Scheduler,
    SuccessiveHalving,
    Variant,
)
from tests.contracts.scheduler import SchedulerContract, Subject, XIsBest, space

SUBJECTS = [
    Subject(SuccessiveHalving(configs=7), keeps_all=True),
    Subject(SuccessiveHalving(), keeps_all=True),
    Subject(Hyperband(), keeps_all=True),
    Subject(IterativeDeepening(), keeps_all=True),
    Subject(IterativeDeepening(max_fidelity="auto"), keeps_all=True),
    Subject(IterativeDeepening(variant=Variant.DISCARDING, max_fidelity="auto"), keeps_all=True),
    Subject(IterativeDeepening(variant=Variant.PRESERVING, max_fidelity="auto"), keeps_all=True),
    Subject(ASHA()),
    Subject(ASHA(brackets=3)),
    Subject(ASHA(kind=ASHAVariant.STOPPING)),
    Subject(ASHA(confidence=0.7), XIsBest(), keeps_next=False),
    Subject(PASHA()),
    Subject(OneEpoch(keep=2, screen=7)),
    Subject(PBT(population=4, interval=5), keeps_all=True),
    Subject(MedianStopping()),
    Subject(FreezeThaw()),
    Subject(FreezeThaw(breadth=0.5), XIsBest()),
    Subject(FreezeThaw(continues=False), XIsBest()),
]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
class TestContract(SchedulerContract):
    """Every scheduler, in the settings that decide differently."""


@pytest.mark.parametrize(
    ("scheduler", "stored"),
    [
        (SuccessiveHalving(), "SuccessiveHalving(eta=3, configs=None)"),
        (Hyperband(), "Hyperband(eta=3)"),
        (
            IterativeDeepening(),
            "IterativeDeepening(eta=3, variant=<Variant.EFFICIENT: 'efficient'>, "
            "max_fidelity=None)",
        ),
        (
            ASHA(),
            "ASHA(eta=3, kind=<Kind.PROMOTION: 'promotion'>, brackets=1, confidence=None)",
        ),
        (PASHA(), "PASHA(eta=3)"),
        (OneEpoch(), "OneEpoch(keep=1, screen=None)"),
        (PBT(), "PBT(population=10, interval=None, share=0.2, mutate=None)"),
        (MedianStopping(), "MedianStopping(after=1, among=4)"),
        (
            FreezeThaw(),
            "FreezeThaw(eta=3, breadth=1.0, floor=4, price=0.5, continues=True, forecaster=None)",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Scheduler) else "",
)
def test_studies_in_databases_recognize_their_scheduler(scheduler: Scheduler, stored: str) -> None:
    assert repr(scheduler) == stored


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (lambda: ASHA(eta=1), "`eta` of ASHA must be an int of at least 2"),
        (lambda: ASHA(brackets=0), "`brackets` of ASHA must be an int of at least 1"),
        (lambda: ASHA(brackets=9).begin(space(1, 81)), "must not exceed the 5 levels"),
        (lambda: ASHA().begin(SearchSpace({"x": Float(0, 1)})), "ASHA needs a fidelity"),
        (lambda: IterativeDeepening().begin(space(1, 80)), "make it 27 or 81"),
        (lambda: IterativeDeepening(max_fidelity="81"), "Fidelity\\(1, 243\\)"),
        (lambda: PBT(mutate=("y",)).begin(space()), "choose among \\['x'\\]"),
        (lambda: OneEpoch(keep=0), "`keep` of OneEpoch must be"),
        (lambda: OneEpoch().begin(SearchSpace({"x": Float(0, 1)})), "OneEpoch needs a fidelity"),
        (lambda: PBT().begin(SearchSpace({"x": Float(0, 1)})), "PBT needs a fidelity"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    scheduler: Callable[[], object], message: str
) -> None:
    with pytest.raises(SpaceError, match=message):
        scheduler()
