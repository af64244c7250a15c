"""Functions of tensors under TinyJit."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit, dtypes
from tinygrad.tensor import all_tensors

from cmcore_tinygrad.functions.creation import asarray


class Compiled:
    """A function under TinyJit: traced at the second call with tensors of given shapes, replayed from the third on.

    Tensors and NumPy arrays among the arguments, also inside lists, tuples and dicts, are inputs. Anything else is part
    of the program, which is compiled anew for each value of it. Like anything traced, the function must do the same
    operations at every call and return tensors, alone or in lists, tuples and dicts. Results belong to the caller: later
    calls do not overwrite them, as TinyJit's own would be.
    """

    def __init__(self, f: Callable[..., Any], device: str) -> None:
        self._f, self._device = f, device
        self._programs: dict[Hashable, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return ``f(*args, **kwargs)``."""
        tensors: list[Tensor] = []
        structure = self._take_apart((args, kwargs), tensors)
        signature = (structure, tuple((t.shape, t.dtype, t.device) for t in tensors))
        if signature not in self._programs:
            self._programs[signature] = TinyJit(self._program(structure))
        copies: list[Tensor] = []

        def kept(t: Tensor) -> Tensor:
            copies.append(t.clone())
            return copies[-1]

        out = _mapped(self._programs[signature](*owned(tensors)), kept)
        Tensor.realize(*copies)
        return out

    def _program(self, structure: Hashable) -> Callable[..., Any]:
        def run(*tensors: Tensor) -> Any:
            args, kwargs = _put_together(structure, iter(tensors))
            return self._f(*args, **kwargs)

        return run

    def _take_apart(self, x: Any, tensors: list[Tensor]) -> Hashable:
        """Move x's tensors to the list and return what is left, to compare and to put together again."""
        if isinstance(x, (Tensor, np.ndarray, np.generic)):
            tensors.append(x if isinstance(x, Tensor) else asarray(x, device=self._device))
            return _INPUT
        if isinstance(x, dict):
            return dict, tuple((key, self._take_apart(value, tensors)) for key, value in x.items())
        if isinstance(x, (list, tuple)):
            return type(x), tuple(self._take_apart(item, tensors) for item in x)
        return None, type(x), x


_INPUT = "a tensor"


def _put_together(structure: Any, tensors: Iterator[Tensor]) -> Any:
    if structure == _INPUT:
        return next(tensors)
    kind, *content = structure
    if kind is None:
        return content[1]
    if kind is dict:
        return {key: _put_together(value, tensors) for key, value in content[0]}
    return kind(_put_together(item, tensors) for item in content[0])


def _mapped(x: Any, f: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(x, Tensor):
        return f(x)
    if isinstance(x, dict):
        return {key: _mapped(value, f) for key, value in x.items()}
    return type(x)(_mapped(item, f) for item in x)


def owned(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors as TinyJit wants its inputs: computed, each filling memory of its own."""
    if not tensors:
        return []
    Tensor.realize(*tensors, *_behind(tensors))
    seen: set[Any] = set()
    result = []
    for t in tensors:
        # A slice is a view whose place in the memory it shares would be part of the program.
        shares = t.uop.is_virtual or not t.uop.has_buffer_identity() or t.uop.base in seen
        result.append(t.clone() if shares else t)
        seen.add(t.uop.base)
    Tensor.realize(*result)
    return result


def _behind(tensors: list[Tensor]) -> list[Tensor]:
    """Return the tensors that somebody holds and that these are still to be computed from.

    Computed with them they are not computed again: the state of a loop, of which each call is given a multiple, would otherwise
    be a longer expression at each step.
    """
    sources = {source for t in tensors for source in t.uop.backward_slice}
    held = [t for ref in list(all_tensors) if (t := ref()) is not None]
    return [t for t in held if t.uop in sources and dtypes.is_float(t.dtype)]
