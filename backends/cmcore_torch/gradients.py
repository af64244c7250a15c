"""The loss as a module, and how its gradients become the whole batch's: of one process, which has all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn


class Loss(nn.Module):
    """The batch's mean loss as one module, so that what wraps it sees each evaluation of the network within."""

    def __init__(self, online: nn.Module, compute: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> None:
        super().__init__()
        self.online, self.compute = online, compute

    def forward(self, *batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss, (), and each sample's, (B,)."""
        return self.compute(*batch)


class Whole:
    """One process: its tensors are whole, and its gradients the batch's.

    Others do the same for one of several processes, whose tensors may be spread over all of them.
    """

    def place(self, net: nn.Module) -> None:
        """Spread a network's weights."""

    def wrap(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> None:
        """Take the loss to be differentiated, `loss`, over these parameters."""
        self.loss: Callable[..., Any] = loss

    def part(self, last: bool) -> AbstractContextManager[Any]:
        """Return the context of the gradients of one of the batch's parts, of which the last one completes the batch's."""
        return nullcontext()

    def finish(self) -> None:
        """Make the gradients those of the whole batch, once all parts are through."""

    def all_of(self, each: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the numbers of all samples of each part of a batch, each (B / parts,), from this process's."""
        return each

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return this process's share of a tensor, in the tensor's own memory."""
        return tensor

    def spread(self, own: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        """Return each process's own share as a tensor that is spread as another one is."""
        return own

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return all of a tensor."""
        return tensor

    def scattered(self, whole: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor, the same in each process, spread as another one is."""
        return whole

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape and type of all of another one."""
        return tensor
