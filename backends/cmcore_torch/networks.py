"""Networks written once, as torch's own modules: real children, and a ``state_dict`` with the layout's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cmcore.errors import Error
from cmcore.networks import Architecture, Layer, Part, check_weights, methods, picklable, realised
from cmcore_torch.layers import LAYERS, Fourier, SineCosine


def build(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    device: str,
    dtype: torch.dtype,
    compute: torch.dtype | None = None,
    recompute: bool = False,
) -> nn.Module:
    """Return the architecture's module with copies of these weights; `ValueError` if they do not fit."""
    if compute not in (None, dtype, torch.bfloat16, torch.float16):
        raise Error(f"torch computes in bfloat16 or float16 with weights of {dtype}, not in {compute}.")
    check_weights(architecture, weights)
    # On the meta device nothing is initialised, so torch's global generator is not advanced.
    with torch.device("meta"):
        net = realised(architecture.part(), _leaf, _node, partial(_several, recompute))
    tensors = {name: torch.tensor(np.asarray(w), dtype=dtype, device=device) for name, w in weights.items()}
    net.load_state_dict(tensors, assign=True)
    for module in net.modules():
        if isinstance(module, (Fourier, SineCosine)):
            module.place(device, dtype)
    if compute not in (None, dtype):
        net.__class__ = _computing_in(compute, type(net))  # type: ignore[arg-type]
    return net


def lay_out(net: nn.Module) -> None:
    """Lay out the weights of convolutions as evaluations read them fastest: on a CPU, in full precision, channels last.

    Gradients and derivatives gain nothing by it, and narrow convolutions, and those on a GPU, are left as they are.
    """
    if hasattr(net, "computes_in"):
        return
    for p in net.parameters():
        if p.ndim == 4 and p.device.type == "cpu":
            p.data = p.data.contiguous(memory_format=torch.channels_last)


def _leaf(layer: Layer, path: str) -> nn.Module:
    return LAYERS[type(layer)](layer)


def _node(cls: type[Part], attributes: Mapping[str, Any]) -> nn.Module:
    module = _native(cls)()  # type: ignore[arg-type]
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@cache
def _native(cls: type[Part]) -> type[nn.Module]:
    own = methods(cls) | {"split": _split}
    if "__call__" in own:
        own["forward"] = own.pop("__call__")
    return type(cls.__name__, (nn.Module,), {**own, "__module__": cls.__module__, **picklable(_native, cls)})


def _split(self: nn.Module, h: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
    """`cmcore.networks.Part.split` as one operation, whose gradient is one too."""
    return h.chunk(n, dim=2 if h.ndim == 3 else 1)


def _several(recompute: bool, children: list[nn.Module] | dict[str, nn.Module]) -> nn.Module:
    for child in children.values() if isinstance(children, dict) else children:
        if recompute and isinstance(child, nn.Module) and not isinstance(child, (nn.ModuleList, nn.ModuleDict)):
            child.__class__ = _recomputing(type(child))  # type: ignore[arg-type]
    return nn.ModuleDict(children) if isinstance(children, dict) else nn.ModuleList(children)


@cache
def _recomputing(cls: type[nn.Module]) -> type[nn.Module]:
    """Return the class with activations that are computed again in the backward pass instead of kept."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        return checkpoint(partial(cls.forward, self), *args, use_reentrant=False, **kwargs)

    return _like(cls, forward, picklable(_recomputing, cls))


@cache
def _computing_in(dtype: torch.dtype, cls: type[nn.Module]) -> type[nn.Module]:
    """Return the class with matrix products and convolutions in the dtype; what goes in and out keeps its own."""

    def forward(self: nn.Module, x: torch.Tensor, *args: Any, **cond: Any) -> torch.Tensor:
        with torch.autocast(x.device.type, dtype):
            return cls.forward(self, x, *args, **cond).to(x.dtype)

    return _like(cls, forward, {"computes_in": dtype, **picklable(_computing_in, dtype, cls)})


def _like(cls: type[nn.Module], forward: Callable[..., torch.Tensor], more: dict[str, Any]) -> type[nn.Module]:
    own = {"forward": forward, "__module__": cls.__module__, "__doc__": cls.__doc__}
    return type(cls.__name__, (cls,), {**own, **more})
