"""DEHB: differential evolution with Hyperband's brackets.

Its level is a float, rounded to whole levels here. Promoted configs have the same
`config_id` again and resume. Failed runs are told the worst loss seen, as it has no failures.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import Checkpoints, Job, Penalty, Unsupported
from benchmarks.peers.configspace import config_space
from benchmarks.peers.spaces import Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from dehb import DEHB


class DehbPeer:
    """`DEHB.ask` and `DEHB.tell`; DEHB itself counts one worker, but any number of jobs may run."""

    def __init__(self, dehb: DEHB, translation: Translation) -> None:
        self._dehb = dehb
        self._translation = translation
        self._checkpoints = Checkpoints()
        self._penalty = Penalty()
        self._running: dict[int, dict[str, Any]] = {}

    def ask(self) -> Job | None:
        asked = self._dehb.ask()
        config = self._translation.config(dict(asked["config"]))
        job = self._checkpoints.job(asked["config_id"], config, round(asked["fidelity"]))
        self._running[job.number] = asked
        return job

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        loss = self._penalty.loss(evaluation)
        asked = self._running.pop(job.number, None)
        if asked is None:
            return  # a start point: DEHB takes results of its own configs only
        self._checkpoints.finished(asked["config_id"], job, evaluation)
        self._dehb.tell(asked, {"fitness": loss, "cost": evaluation.cost})


def make(task: Task, *, seed: int, trials: int) -> DehbPeer:
    """See `benchmarks.peers`."""
    from dehb import DEHB
    from loguru import logger

    if task.levels is None:
        raise Unsupported(f"DEHB needs a fidelity, and {task.name} has no levels")
    logger.disable("dehb")
    translation = Translation(task.space, peer="DEHB", conditional=True)
    folder = tempfile.mkdtemp(prefix="dehb-")  # it always writes a log
    dehb = DEHB(
        cs=config_space(translation, seed),
        f=None,
        min_fidelity=task.levels.low,
        max_fidelity=task.levels.high,
        n_workers=1,
        seed=seed,
        output_path=folder,
        save_freq=None,
    )
    return DehbPeer(dehb, translation)
