"""`optimize` called from threads, coroutines, training functions, forked and daemonic processes."""

import asyncio
import multiprocessing
import os
import sys
import threading
from typing import Any

import cloudpickle
import pytest

from hpo import Budget, Context, InlineRunner, ProcessRunner, StudyError, optimize
from tests.study.studies import SPACE, Config, bowl

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # else each worker imports this file


def told(runner: Any = None, workers: int = 1) -> int:
    budget = Budget(trials=2)
    result = optimize(bowl, SPACE, budget=budget, cost="flops", runner=runner, workers=workers)
    return sum(o.cause is None for o in result.log.observations)


def test_threads_that_start_processes_at_the_same_time_leave_the_main_module_alone() -> None:
    main, results = sys.modules["__main__"], []
    threads = [
        threading.Thread(target=lambda: results.append(told(ProcessRunner(), workers=2)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2, 2, 2]
    assert sys.modules["__main__"] is main


@pytest.mark.parametrize("runner", [InlineRunner, ProcessRunner])
def test_a_coroutine_may_call_it_directly_and_in_a_thread(runner: Any) -> None:
    async def both() -> tuple[int, int]:
        return told(runner()), await asyncio.to_thread(told, runner())

    assert asyncio.run(both()) == (2, 2)


@pytest.mark.parametrize("outer", [InlineRunner, ProcessRunner])
def test_a_training_function_may_search_itself(outer: Any) -> None:
    def train(config: Config, ctx: Context) -> float:
        return float(told(ProcessRunner()))

    result = optimize(train, SPACE, budget=Budget(trials=1), runner=outer())
    assert [o.loss for o in result.log.observations] == [2.0]


def test_a_forked_child_starts_processes_of_its_own() -> None:
    assert told(ProcessRunner()) == 2  # the parent has a fork server
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if told(ProcessRunner()) == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert told(ProcessRunner()) == 2  # and still has it


def test_a_daemonic_process_is_told_what_to_use_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with pytest.raises(StudyError, match="ProcessPoolExecutor, or run inline"):
        told(ProcessRunner())
    assert told(InlineRunner()) == 2
