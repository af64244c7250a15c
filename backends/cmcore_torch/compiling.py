"""`torch.compile` where it works, eager execution where it does not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, wraps
from types import FunctionType
from typing import Any

import torch


def compiled_or_eager(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return f compiled for the shapes it is called with; from the first failing compilation on, f itself."""
    return eager_where_compiling_fails(compile_lazily(f), f)


def compile_lazily(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return f under `torch.compile`, compiled at its first call; f itself where this torch cannot compile."""
    try:
        return torch.compile(_with_own_code(f), dynamic=False)
    except RuntimeError as unsupported:
        _say_eager(unsupported)
        return f


def _with_own_code(f: Callable[..., Any]) -> Callable[..., Any]:
    """Return f as a function that shares no code object with any other.

    torch counts compilations by code object and runs eagerly from the ninth on: nine trainers of one process would do.
    """
    if not isinstance(f, FunctionType):
        return f
    own = FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    own.__kwdefaults__ = f.__kwdefaults__
    return own


def eager_where_compiling_fails(fast: Callable[..., Any], eager: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fast``, which compiles as it runs, giving way to ``eager`` for good once it alone has failed.

    What ``eager`` raises too is the caller's own mistake: it passes through and settles nothing.
    """

    chosen: Callable[..., Any]

    def first(*args: Any, **kwargs: Any) -> Any:
        nonlocal chosen
        with warnings.catch_warnings():
            # Said of array-api-compat's caches, which hold constants; a user can do nothing about it.
            warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`", UserWarning)
            result = fast(*args, **kwargs)
        chosen = fast
        return result

    chosen = first

    @wraps(eager)
    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal chosen
        try:
            return chosen(*args, **kwargs)
        except Exception as error:
            failure = error  # of whichever class: compiled code can fail as it runs
        result = eager(*args, **kwargs)
        chosen = eager
        _say_eager(failure)
        return result

    return run


def _say_eager(failure: BaseException) -> None:
    cause = getattr(failure, "inner_exception", failure)
    reason = str(cause).strip().partition("\n")[0].rstrip(".") or type(cause).__name__
    _warn_once(
        f"torch.compile failed ({reason}), so this runs eagerly, slower but with the same results; "
        "compiling needs a C++ compiler, or Triton on a GPU."
    )


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
