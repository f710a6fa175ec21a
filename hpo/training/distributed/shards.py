"""Checkpoints of a sharded model: each rank writes its part, while training goes on.

Layout beside a trial's own state, which names the newest whole one:

    <checkpoint_dir>/shards-<updates>/    as torch.distributed.checkpoint writes it
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.optim import Optimizer

from hpo.errors import StudyError
from hpo.training.distributed.parallel import Ranks

if TYPE_CHECKING:
    from hpo.study.context import Context

_NAME = "shards-"


class ShardedCheckpoints:
    """Writes and reads the shards of one training.

    Args:
        model: Sharded model.
        optimizers: Its optimizers.
        ranks: The processes.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], ranks: Ranks) -> None:
        self._model, self._optimizers, self._ranks = model, list(optimizers), ranks
        # Of its own, for the thread that writes must not come between the exchanges of training
        self._group = distributed.new_group(backend="gloo")
        self._writing: tuple[Future[Any], Path, dict[str, Any]] | None = None

    def begin(self, ctx: Context, state: Mapping[str, Any], updates: int) -> None:
        """Begin to write; training may go on at once, for what is written is copied before.

        Args:
            ctx: Context of the trial.
            state: What else belongs to the checkpoint.
            updates: Updates done so far.
        """
        self.finish(ctx)
        assert ctx.checkpoint_dir is not None
        folder = ctx.checkpoint_dir / f"{_NAME}{updates}"
        written: Any = async_save(
            self._shards(), checkpoint_id=str(folder), process_group=self._group
        )
        self._writing = written, folder, {**state, "shards": folder.name}

    def finish(self, ctx: Context) -> None:
        """Wait for what is being written, on all ranks, and make it the trial's checkpoint."""
        if self._writing is None:
            return
        (written, folder, state), self._writing = self._writing, None
        written.result()
        ctx.save(state)
        if self._ranks.rank == 0:
            for other in folder.parent.glob(f"{_NAME}*"):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)

    def finish_if_written(self, ctx: Context) -> None:
        """Do what `finish` does if the first rank has written its part; else nothing."""
        if self._writing is not None and self._ranks.agreed(self._writing[0].done()):
            self.finish(ctx)

    def load(self, ctx: Context, name: str) -> None:
        """Load the shards that a checkpoint names; rates and decays stay those of the config.

        Args:
            ctx: Context of the trial.
            name: Name of their folder.

        Raises:
            StudyError: They are missing.
        """
        assert ctx.checkpoint_dir is not None
        folder = ctx.checkpoint_dir / name
        if not folder.is_dir():
            raise StudyError(
                f"{folder} is missing, from which this trial is to go on; delete the checkpoint "
                "folder of the trial to begin again"
            )
        kept = [_settings(group) for group in self._groups()]
        shards = self._shards()
        load(shards, checkpoint_id=str(folder), process_group=self._group)
        set_model_state_dict(self._model, shards["model"])
        set_optimizer_state_dict(self._model, self._optimizers, shards["optimizers"])
        for group, settings in zip(self._groups(), kept, strict=True):
            group.update(settings)

    def _shards(self) -> dict[str, Any]:
        return {
            "model": get_model_state_dict(self._model),
            "optimizers": get_optimizer_state_dict(self._model, self._optimizers),
        }

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}
