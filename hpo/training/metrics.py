"""Figures of a training run between two reports: losses, norms, activations, logits.

Notation
--------
W  weight of the read-out, vocabulary x width: the last `nn.Linear` of the model
Z  normalizer of the softmax over the vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hpo.training.optimizers import ParameterGroup


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
        self.logits: dict[str, float] = {}
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
        return found | self.logits

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


class LogitRecorder(TorchFunctionMode):
    """Context manager that records the logits of attention and of the read-out.

    It watches calls of `F.scaled_dot_product_attention` and `F.cross_entropy`, so it sees models
    that use these, compiled code excepted. A growth of either with scale foretells instability
    (Wortsman et al., 2023, arXiv:2309.14322, sections 3.1 and 3.2).

    Example:
        >>> recorder = LogitRecorder()
        >>> with recorder:
        ...     _ = F.cross_entropy(torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64))
        >>> round(recorder.metrics()["log_z"], 4)  # ln 8
        2.0794
    """

    def __init__(self) -> None:
        super().__init__()
        self._attention: list[Tensor] = []
        self._log_z: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, and record what goes into it if it is one of the two."""
        named = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            self._record_attention(*args[:2], *args[3:], **named)
        elif func is F.cross_entropy:
            logits = args[0] if args else named.get("input")
            if isinstance(logits, Tensor) and logits.ndim:
                classes = 0 if logits.ndim == 1 else 1
                self._log_z.append(logits.detach().float().logsumexp(classes).mean())
        return func(*args, **named)

    def metrics(self) -> dict[str, float]:
        """Return `attention_logit_max` and the mean `log_z`, those that were seen."""
        found: dict[str, float] = {}
        if self._attention:
            found["attention_logit_max"] = float(torch.stack(self._attention).max())
        if self._log_z:
            found["log_z"] = float(torch.stack(self._log_z).mean())
        return found

    @torch.no_grad()
    def _record_attention(
        self,
        query: Tensor,
        key: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
        **_: Any,
    ) -> None:
        """Record the largest absolute logit that no mask leaves out, of the first sequence."""
        query, key = query[:1].float(), key[:1].float()
        if enable_gqa:
            key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        logits = query @ key.transpose(-2, -1)
        logits *= query.shape[-1] ** -0.5 if scale is None else scale
        if is_causal:
            logits = logits.tril()
        elif attn_mask is not None and attn_mask.dtype is torch.bool:
            logits = logits.masked_fill(~attn_mask[:1] if attn_mask.ndim > 2 else ~attn_mask, 0.0)
        self._attention.append(logits.abs().max())


@torch.no_grad()
def weight_metrics(
    model: nn.Module, groups: Sequence[ParameterGroup], before: Sequence[Tensor] | None = None
) -> dict[str, float]:
    """Return root mean squares of weights and of their last update by role, and norms.

    The norm of the read-out is max_i sqrt(width) |W_i|, the largest output for an input of root
    mean square one. It stays the same at the best settings of every scale, Filatov et al., 2025
    (arXiv:2510.03871).

    Args:
        model: Model.
        groups: Parameter groups of it, of which those of one role are joined.
        before: The groups' weights before the last update, in order; None leaves that update out.

    Example:
        >>> from hpo.training.optimizers import SGD, plain_groups
        >>> layer = nn.Linear(4, 2, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 0.5)
        >>> weight_metrics(layer, plain_groups(layer, SGD(0.1)))
        {'weight_rms_input': 0.5, 'weight_norm': 1.4142135381698608, 'readout_norm': 2.0}
    """
    weights = [weight for group in groups for weight in group.parameters]
    roles = [group.role.value for group in groups for _ in group.parameters]
    found: dict[str, Tensor] = {}
    for role in dict.fromkeys(roles):
        chosen = [i for i, each in enumerate(roles) if each == role]
        root = math.sqrt(sum(weights[i].numel() for i in chosen))
        found[f"weight_rms_{role}"] = nn.utils.get_total_norm([weights[i] for i in chosen]) / root
        if before is not None:
            updates = [weights[i] - before[i] for i in chosen]
            found[f"update_rms_{role}"] = nn.utils.get_total_norm(updates) / root
    found["weight_norm"] = nn.utils.get_total_norm(weights)
    readout = next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)
    if readout is not None:
        rows = readout.weight.float().norm(dim=1)
        found["readout_norm"] = rows.max() * math.sqrt(readout.in_features)
    return dict(
        zip(found, torch.stack([value.float() for value in found.values()]).tolist(), strict=True)
    )
