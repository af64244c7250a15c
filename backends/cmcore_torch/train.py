"""The train step: draws, the compiled loss and its gradient, torch's optimisers, moving averages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from cmcore.backend import of
from cmcore.training import TrainSpec
from cmcore_torch.arrays import to_tensor
from cmcore_torch.compiling import compile_lazily, eager_where_compiling_fails
from cmcore_torch.streams import Stream

# Each optimiser in the form with the fewest kernel launches that torch has for it.
_OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "radam": (torch.optim.RAdam, {"foreach": True}),
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
}

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What each of these optimisers keeps for a parameter."""


class TrainStep:
    """A copy of a module with its optimiser and averages; see `cmcore.backend.TrainStep`.

    torch's own dropout and the like, in a network that has them, draw from torch's global generator as ever.
    """

    def __init__(self, net: nn.Module, spec: TrainSpec, frozen: Mapping[str, Any], device: str) -> None:
        if not isinstance(net, nn.Module):
            raise TypeError(f"The torch trainer trains an nn.Module, got {type(net).__name__}.")
        self._spec, self._device = spec, device
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._online = copy.deepcopy(net).to(device).train()
        named = {name: p for name, p in self._online.named_parameters() if p.requires_grad}
        if not named:
            raise TypeError(
                f"The torch trainer trains parameters, and {type(net).__name__} has none that require a gradient."
            )
        self._names, self._parameters = list(named), list(named.values())
        self._ema = [p.detach().clone() for p in self._parameters]
        self._target = copy.deepcopy(self._online).requires_grad_(False) if spec.keep_target else None
        self._target_parameters = [self._target.get_parameter(name) for name in named] if spec.keep_target else []

        optimizer = spec.optimizer
        method, options = _OPTIMIZERS[optimizer.algorithm]
        self._optimizer = method(
            self._parameters,
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            **options,
        )

        nets = {"online": self._online, "target": self._online if self._target is None else self._target}
        nets |= {name: _frozen(other, device) for name, other in frozen.items()}

        def mean_loss(*batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
            mean, each = spec.mean_and_each(nets, *batch)
            return mean, each.detach()

        self._eager = self._differentiate = self._with_gradients(mean_loss)
        if spec.compiled:
            fast = self._with_gradients(compile_lazily(mean_loss))
            self._differentiate = eager_where_compiling_fails(fast, self._eager)

    def __call__(self, index: int, x0: Any, scalars: Mapping[str, float], cond: Mapping[str, Any]) -> torch.Tensor:
        """Take one optimisation step and return the mean loss, a 0-d tensor that is not waited for."""
        x0 = to_tensor(x0, self._device)
        of(x0)  # remembered from here on: torch.compile cannot trace the search for an array's backend
        cond = {name: to_tensor(value, self._device) for name, value in cond.items()}
        stream = Stream(self._spec.seed, index, self._device)
        z, tau = self._spec.draw(stream, x0.shape, x0.dtype, torch.promote_types(x0.dtype, torch.float32))
        # One transfer for all of them; as tensors, their values are no reason to compile again.
        values = torch.tensor(list(scalars.values()), dtype=x0.dtype).to(self._device, non_blocking=True)
        named = dict(zip(scalars, values.unbind(), strict=True))
        # The very first step is taken as it is: what fails does so at once, and not after minutes of compiling.
        differentiate = self._differentiate if index else self._eager
        value, self.seen = differentiate(list(self._spec.parts(x0, z, tau, cond)), named)

        if self._spec.optimizer.clip:
            nn.utils.clip_grad_norm_(self._parameters, self._spec.optimizer.clip)
        self._optimizer.param_groups[0]["lr"] = float(scalars["lr"])
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._ema, self._parameters, 1 - scalars["ema_decay"])
            if self._target is not None:
                torch._foreach_lerp_(self._target_parameters, self._parameters, 1 - scalars["target_decay"])
        return value

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return all tensors of the state, sharing memory with the step's own."""
        moments = {
            f"{name}/{key}": value
            for name, p in zip(self._names, self._parameters, strict=True)
            for key, value in self._optimizer.state[p].items()
        }
        return self._networks() | {"optimizer": moments}

    def expected(self, names: Collection[str]) -> dict[str, dict[str, torch.Tensor]]:
        """Return tensors like those of a state with these names: a parameter has moments from its first gradient on."""
        moments = {
            f"{name}/{key}": torch.zeros(()) if key == "step" else p
            for name, p in zip(self._names, self._parameters, strict=True)
            for key in _MOMENTS
            if f"optimizer/{name}/step" in names
        }
        return self._networks() | {"optimizer": moments}

    def restore(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put back a state."""
        with torch.no_grad():
            for group, tensors in self._networks().items():
                for name, tensor in tensors.items():
                    tensor.copy_(torch.as_tensor(state[group][name]))
        moments = state["optimizer"]
        copies = {
            i: {key: torch.tensor(moments[f"{name}/{key}"]) for key in _MOMENTS}
            for i, name in enumerate(self._names)
            if f"{name}/step" in moments
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": copies, "param_groups": groups})

    def _with_gradients(self, mean_loss: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Callable[..., Any]:
        share = 1 / self._spec.accumulate

        def differentiate(parts: Sequence[tuple[Any, ...]], scalars: dict[str, torch.Tensor]) -> tuple[Any, list[Any]]:
            for p in self._parameters:
                p.grad = None
            mean: Any = 0.0
            seen = []
            for x0, z, tau, cond in parts:
                value, each = mean_loss(x0, z, tau, scalars, cond)
                value = share * value
                value.backward()
                mean = mean + value.detach()
                seen.append((each, tau))
            return mean, seen

        return differentiate

    def _networks(self) -> dict[str, dict[str, torch.Tensor]]:
        """The weights and their averages, sharing memory with the step's own."""
        groups = {"online": self._online.state_dict(), "ema": dict(zip(self._names, self._ema, strict=True))}
        return groups if self._target is None else groups | {"target": self._target.state_dict()}


def _frozen(net: Callable[..., torch.Tensor], device: str) -> Callable[..., torch.Tensor]:
    """Return a module in evaluation mode, without gradients, that shares the weights of the one given."""
    if not isinstance(net, nn.Module):
        return net
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in net.parameters()}
    return copy.deepcopy(net, shared).to(device).eval()
