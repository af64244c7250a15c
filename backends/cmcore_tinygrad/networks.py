"""Networks written once, as plain classes: ``nn.state.get_state_dict`` gives and takes their weights by the layout's names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from tinygrad import Tensor
from tinygrad.dtype import DType
from tinygrad.nn.state import get_state_dict

from cmcore.errors import Error
from cmcore.networks import Architecture, Fourier, Layer, LogWeight, SineCosine, generic, picklable
from cmcore_tinygrad.layers import LAYERS


class Constant:
    """A tensor that is no weight: without a ``__dict__``, ``get_state_dict`` passes it by."""

    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Constant:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Constant, (self.value,)


def build(
    architecture: Architecture,
    weights: Mapping[str, np.ndarray],
    device: str,
    dtype: DType,
    compute: DType | None = None,
    recompute: bool = False,
) -> Any:
    """Return the architecture's network with copies of these weights; `ValueError` if they do not fit."""
    if recompute:
        raise Error("tinygrad decides by itself what the backward pass computes again; leave recompute out.")

    def place(value: np.ndarray) -> Tensor:
        return Tensor(np.array(value), device=device, dtype=dtype)

    net = generic.build(architecture, weights, place, LAYERS)
    constants = []
    native: Any
    for _, native in generic.natives(net):
        if (value := _constant(native.layer)) is not None:
            native.constant = Constant(place(value))
            constants.append(native.constant.value)
    if tensors := [*constants, *get_state_dict(net).values()]:
        Tensor.realize(*tensors)
    if compute is not None:
        net.__class__ = _computing_in(compute, type(net))  # type: ignore[arg-type]
    return net


def _constant(layer: Layer) -> np.ndarray | None:
    """What a layer computes with besides weights, float64."""
    if isinstance(layer, (Fourier, LogWeight)):
        return np.array(layer.frequencies)
    return layer.table() if isinstance(layer, SineCosine) else None


@cache
def _computing_in(dtype: DType, cls: Any) -> Any:
    """Return the class with weights and x rounded to the dtype for the computation; what goes in and out keeps its own."""

    def call(self: Any, x: Tensor, *args: Any, **cond: Any) -> Tensor:
        out: Tensor = cls.__call__(_mapped(self, lambda w: w.cast(dtype)), x.cast(dtype), *args, **cond)
        return out.cast(x.dtype)

    own = {"__call__": call, "__module__": cls.__module__, **picklable(_computing_in, dtype, cls)}
    return type(cls.__name__, (cls,), own)


def _mapped(x: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """Return a part with f of its tensors."""
    if isinstance(x, Tensor):
        return f(x) if x.is_floating_point() else x
    if isinstance(x, Constant):
        return Constant(f(x.value))
    if isinstance(x, (list, tuple)):
        return type(x)(_mapped(item, f) for item in x)
    if isinstance(x, dict):
        return {name: _mapped(item, f) for name, item in x.items()}
    if type(x).__module__ == "builtins" or isinstance(x, Layer):
        return x
    other = copy.copy(x)
    vars(other).update({name: _mapped(value, f) for name, value in vars(x).items()})
    return other
