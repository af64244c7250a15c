"""The tinygrad namespace with its arrays in boxes, for the standard's official test suite only.

The suite asks arrays for what bare Tensors refuse (``bool(x)``, ``float(x)``, ``x.__array_namespace__()``) and needs to
tell arrays of this namespace from others. Operators are tinygrad's own.
"""

from __future__ import annotations

import builtins
import functools
import operator
import sys
from collections.abc import Callable
from typing import Any

from cmcore_tinygrad import namespace
from tinygrad import Tensor


class Boxed:
    """A tensor with the standard's methods."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    dtype = property(lambda self: self.tensor.dtype)
    device = property(lambda self: self.tensor.device)
    shape = property(lambda self: tuple(self.tensor.shape))
    ndim = property(lambda self: self.tensor.ndim)
    size = property(lambda self: self.tensor.numel())
    T = property(lambda self: Boxed(self.tensor.T))

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return sys.modules[__name__]

    def item(self) -> Any:
        return self.tensor.cast(self.tensor.dtype).item()

    def __bool__(self) -> builtins.bool:
        return builtins.bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __getitem__(self, key: Any) -> Boxed:
        return Boxed(self.tensor[_unboxed(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.tensor[_unboxed(key)] = _unboxed(value)

    def __repr__(self) -> str:
        return f"Boxed({self.tensor.tolist()}, {self.dtype})"

    __hash__ = None


def _unboxed(x: Any) -> Any:
    if isinstance(x, Boxed):
        return x.tensor
    if isinstance(x, (list, tuple)):
        return type(x)(_unboxed(item) for item in x)
    return x


def _boxed(x: Any) -> Any:
    if isinstance(x, Tensor):
        return Boxed(x)
    if isinstance(x, (list, tuple)):
        return type(x)(_boxed(item) for item in x)
    return x


def _boxing(f: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _boxed(f(*_unboxed(args), **{name: _unboxed(value) for name, value in kwargs.items()}))

    return call


def _operator(name: str) -> Callable[..., Any]:
    """The operator as Python evaluates it on bare Tensors, a scalar's reflection included."""
    if name in UNARY:
        return lambda self: Boxed(getattr(operator, name)(self.tensor))
    if name.startswith("__r"):
        forward = getattr(operator, f"__{name[3:]}")
        return lambda self, other: Boxed(forward(_unboxed(other), self.tensor))
    forward = getattr(operator, name)
    return lambda self, other: Boxed(forward(self.tensor, _unboxed(other)))


UNARY = ("__neg__",)
BINARY = ("__add__", "__sub__", "__mul__", "__truediv__")
COMPARISONS = ("__eq__", "__ne__", "__lt__", "__gt__", "__le__", "__ge__")
LOGICAL = ("__and__", "__or__", "__xor__")
REFLECTED = tuple(f"__r{name[2:]}" for name in BINARY + LOGICAL)
OPERATORS = (*UNARY, *BINARY, *REFLECTED, *COMPARISONS, *LOGICAL, "__matmul__")

for _name in OPERATORS:
    setattr(Boxed, _name, _operator(_name))

for _name in namespace.__all__:
    _value = getattr(namespace, _name)
    globals()[_name] = _boxing(_value) if _name in namespace.CLAIMED else _value
