"""One optimizer, one result, one study, and several threads."""

import pickle
import threading
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from hpo import ASHA, Categorical, Fidelity, Float, Optimizer, StagedOptimizer
from hpo.adapters.optuna import ScaleTuneSampler
from surrogates.numerics import single_threaded

SPACE = {"x": Float(0, 1), "y": Float(-1, 1), "kind": Categorical(["a", "b"])}


def together(*tasks: Callable[[], None]) -> None:
    """Run each task in a thread of its own; raise what any of them raised."""
    faults: list[BaseException] = []
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], None]) -> None:
        barrier.wait()
        try:
            task()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def blas() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def loss(config: dict) -> float:
    return (config["x"] - 0.3) ** 2 + config["y"] ** 2 + (config["kind"] == "b")


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_blas_has_its_threads_back_after_calls_that_overlap(first_to_end):
    with threadpool_limits(2, user_api="blas"):
        before = blas()
        inside = threading.Barrier(2)
        ended = [threading.Event(), threading.Event()]

        @single_threaded
        def call(place: int) -> None:
            inside.wait()
            assert set(blas()) == {1}
            if place != first_to_end:
                ended[first_to_end].wait()
                assert set(blas()) == {1}

        def task(place: int) -> Callable[[], None]:
            def run() -> None:
                call(place)
                ended[place].set()

            return run

        together(task(0), task(1))
        assert blas() == before


def test_blas_has_its_threads_back_after_a_call_that_raises_inside_another():
    with threadpool_limits(2, user_api="blas"):
        before = blas()

        @single_threaded
        def fails() -> None:
            raise ValueError("as planned")

        @single_threaded
        def outer() -> None:
            with pytest.raises(ValueError, match="as planned"):
                fails()
            assert set(blas()) == {1}

        outer()
        assert blas() == before


def test_four_threads_share_an_optimizer():
    optimizer = Optimizer(SPACE, seed=0)

    def work() -> None:
        for i in range(4):
            trial = optimizer.ask()
            optimizer.tell(trial, loss(trial.config))
            if i == 2:
                assert optimizer.result().best.loss == pytest.approx(min_told(optimizer), abs=2.0)

    def min_told(optimizer: Optimizer) -> float:
        return min(o.loss for o in optimizer.log.observations if o.loss is not None)

    together(*[work] * 4)
    assert sorted(o.number for o in optimizer.log.observations) == list(range(16))
    assert sorted(o.order for o in optimizer.log.observations) == list(range(16))
    assert [t.ask_index for t in optimizer.log.trials] == list(range(16))
    assert optimizer.ledger.spent.trials == 16


def test_threads_that_told_in_one_order_leave_what_one_thread_would():
    shared = Optimizer(SPACE, seed=3)

    def work() -> None:
        for _ in range(4):
            with shared.lock:
                trial = shared.ask()
                shared.tell(trial, loss(trial.config))

    together(*[work] * 2)
    alone = Optimizer(SPACE, seed=3)
    for _ in range(8):
        trial = alone.ask()
        alone.tell(trial, loss(trial.config))
    assert shared.log.trials == alone.log.trials


def test_threads_share_an_optimizer_of_stages():
    engine = StagedOptimizer(Optimizer({**SPACE, "epochs": Fidelity(1, 9)}, seed=0), ASHA())

    def work() -> None:
        for _ in range(6):
            trial = engine.ask()
            assert trial is not None and trial.assignment is not None
            engine.tell(trial, loss(trial.config) + 1.0 / trial.assignment.level)

    together(*[work] * 4)
    assert not engine.log.pending
    assert len(engine.log.paused) + len(engine.log) == len(engine.log.trials)


def test_a_result_can_be_read_by_threads_while_others_tell():
    optimizer = Optimizer(SPACE, seed=1)
    for _ in range(8):
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.config))
    result = optimizer.result()
    again = optimizer.result()
    expected = (again.best, again.recommend().config, again.front, str(again))
    seen = []

    def read() -> None:
        seen.append((result.best, result.recommend().config, result.front, str(result)))

    def tell() -> None:
        for _ in range(6):
            trial = optimizer.ask()
            optimizer.tell(trial, loss(trial.config))
            str(optimizer.result())

    together(read, read, tell)
    assert seen == [expected] * 2 and len(result.log) == 8


def test_what_holds_a_lock_can_be_pickled():
    optimizer = Optimizer(SPACE, seed=2)
    optimizer.tell({"x": 0.5, "y": 0.0, "kind": "a"}, 1.0)
    same = pickle.loads(pickle.dumps(optimizer))
    assert same.ask() == optimizer.ask()
    assert same.lock is not optimizer.lock


def test_a_sampler_serves_four_threads_of_one_study():
    study = optuna.create_study(sampler=ScaleTuneSampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", -1, 1)
        return loss({"x": x, "y": y, "kind": trial.suggest_categorical("kind", ["a", "b"])})

    study.optimize(objective, n_trials=16, n_jobs=4)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 16
    assert len({tuple(t.params.values()) for t in study.trials}) == 16
    assert np.isfinite(study.best_value)
