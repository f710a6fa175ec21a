"""A trial for a training loop with Accelerate, on one process or several.

::

    def train(config, ctx):
        accelerator = Accelerator()
        model, optimizer, loader = accelerator.prepare(...)
        trial = AcceleratedTrial(ctx, accelerator)
        for epoch in range(trial.resume() + 1, ctx.fidelity + 1):
            loss = train_epoch(...)
            trial.report(step=epoch, loss=loss)
        return loss

Each report is saved as a checkpoint first, so that a trial that pauses there resumes from it. Every
process calls the same methods, and all of them end when the study ends the trial.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from hpo.adapters.amounts import numbers_among
from hpo.adapters.ranks import report_on_all
from hpo.errors import StudyError
from hpo.space.arguments import Kind
from hpo.study.context import Context

__all__ = ["AcceleratedTrial"]

_FOLDER = "accelerate-"


class AcceleratedTrial:
    """Connects the processes of an accelerator to their trial.

    Args:
        ctx: Context of the trial; on every process, as `hpo.connect` returns it.
        accelerator: Accelerator after `prepare`, whose state is saved.

    Example:
        Needs the extra `accelerate`::

            with hpo.connect() as ctx:
                trial = AcceleratedTrial(ctx, accelerator)
                for epoch in range(trial.resume() + 1, ctx.fidelity + 1):
                    trial.report(step=epoch, loss=train_epoch(...))
                ctx.complete(ctx.last_loss)
    """

    def __init__(self, ctx: Context, accelerator: Accelerator) -> None:
        self._ctx = ctx
        self._accelerator = Kind(Accelerator, way_out="pass Accelerator()")(
            accelerator, "`accelerator`"
        )

    def resume(self) -> int:
        """Restore what was saved at the last report.

        Returns:
            Step of that report; 0 if there was none.
        """
        folder = self._ctx.checkpoint_dir
        state = self._ctx.load() if folder is not None else None
        if folder is None or state is None:
            return 0
        saved = folder / f"{_FOLDER}{state['accelerate']}"
        if not saved.is_dir():
            raise StudyError(
                f"{saved} is missing, from which this trial is to go on; delete the checkpoint "
                "folder of the trial to begin again"
            )
        self._accelerator.load_state(str(saved))
        return int(state["accelerate"])

    def report(
        self,
        *,
        step: int,
        loss: float,
        cost: float | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Save the accelerator's state, then report; on every process.

        Args:
            step: Position of the run.
            loss: Loss; that of the first process counts, so gather it before.
            cost: Cost consumed since the run began.
            metrics: Further results, of which numbers are kept.

        Raises:
            Stop: On every process, when the study ends or pauses the trial.
        """
        self._save(step)
        report_on_all(
            self._ctx,
            first=self._accelerator.is_main_process,
            broadcast=self._broadcast,
            step=step,
            loss=loss,
            cost=cost,
            metrics=numbers_among(metrics or {}),
        )

    def _save(self, step: int) -> None:
        ctx, accelerator = self._ctx, self._accelerator
        folder = ctx.checkpoint_dir
        if folder is None:
            return
        accelerator.save_state(str(folder / f"{_FOLDER}{step}"))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process or ctx.ranks > 1:
            ctx.save({"accelerate": step})  # which says that the folder is whole
        if accelerator.is_main_process:
            for path in folder.glob(f"{_FOLDER}*"):
                if path.name != f"{_FOLDER}{step}":
                    shutil.rmtree(path, ignore_errors=True)

    def _broadcast(self, value: Any) -> Any:
        if self._accelerator.num_processes == 1:
            return value
        return broadcast_object_list([value], from_process=0)[0]
