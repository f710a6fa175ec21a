"""Figures of a training run between two reports: losses, gradient norms, activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class RunningMetrics:
    """Training losses and gradient norms since the last report.

    Tensors are collected as they come and read in `gather` only, since reading waits for the
    device.

    Example:
        >>> recent = RunningMetrics()
        >>> for loss, norm in ((3.0, 0.5), (1.0, 1.5)):
        ...     recent.add_loss(torch.tensor(loss))
        ...     recent.add_norm(torch.tensor(norm))
        >>> recent.metrics(clip=1.0)
        {'train_loss': 2.0, 'gradient_norm': 1.0, 'gradient_norm_max': 1.5, 'clipped': 0.5}
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.activations: float | None = None
        self._unread_losses: list[Tensor] = []
        self._unread_norms: list[Tensor] = []

    def add_loss(self, loss: Tensor) -> None:
        """Add the mean training loss of an update, a scalar."""
        self._unread_losses.append(loss)

    def add_norm(self, norm: Tensor) -> None:
        """Add the norm of the gradient before clipping, a scalar."""
        self._unread_norms.append(norm)

    def gather(self) -> None:
        """Read what was added since the last call; waits for the device."""
        if self._unread_losses:
            self.losses += torch.stack(self._unread_losses).tolist()
            self._unread_losses = []
        if self._unread_norms:
            self.norms += torch.stack(self._unread_norms).tolist()
            self._unread_norms = []

    def mean_of_last(self, count: int) -> float:
        """Return the mean of the last `count` losses that were read, or 0 if there are none."""
        last = self.losses[-count:]
        return sum(last) / len(last) if last else 0.0

    def metrics(self, clip: float | None) -> dict[str, float]:
        """Return means and extremes by name.

        Args:
            clip: Largest norm of the gradient, for the share of clipped updates; None leaves out
                all figures of gradients.
        """
        self.gather()
        found: dict[str, float] = {}
        if self.losses:
            found["train_loss"] = sum(self.losses) / len(self.losses)
        if self.norms and clip is not None:
            found["gradient_norm"] = sum(self.norms) / len(self.norms)
            found["gradient_norm_max"] = max(self.norms)
            found["clipped"] = sum(norm > clip for norm in self.norms) / len(self.norms)
        if self.activations is not None:
            found["activation_max"] = self.activations
        return found

    def state(self) -> dict[str, list[float]]:
        """Return what a checkpoint must hold."""
        self.gather()
        return {"losses": list(self.losses), "norms": list(self.norms)}

    @classmethod
    def of(cls, state: Mapping[str, list[float]]) -> RunningMetrics:
        """Restore from the result of `state`."""
        recent = cls()
        recent.losses, recent.norms = list(state["losses"]), list(state["norms"])
        return recent


class ActivationRecorder:
    """Context manager that records the root mean square of each leaf module's output.

    Args:
        model: Model whose modules without children are followed.

    Example:
        >>> recorder = ActivationRecorder(nn.Identity())
        >>> with recorder:
        ...     _ = recorder.model(torch.tensor([3.0, -3.0]))
        >>> recorder.largest()
        3.0
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._squares: list[Tensor] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for module in self.model.modules():
            if not any(True for _ in module.children()):
                self._hooks.append(module.register_forward_hook(self._record))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def largest(self) -> float | None:
        """Return the largest value over all leaf modules, or None if none returned floats."""
        return float(torch.stack(self._squares).max().sqrt()) if self._squares else None

    def _record(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            self._squares.append(output.detach().float().square().mean())
