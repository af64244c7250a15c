"""What a file claims of itself, checked before memory is taken for it."""

from __future__ import annotations

from typing import Any, BinaryIO

VALUES = 400_000
"""How many values a file may be made of besides the numbers in its tensors; a network of a thousand weights has 60,000."""

VISITS = 100_000
"""How many of its values are looked at for weights, those that are in several places several times."""

NAME = 256
"""How many letters the name of a weight may have."""

_AXES, _LARGEST = 64, 2**48
_LINE, _AT_ONCE = 2**20, 2**16


class Bounded:
    """A file that is not asked for more than it has: Python takes the memory that is asked for before it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, here = file, file.tell()
        self._size = file.seek(0, 2)
        file.seek(here)

    def read(self, count: int) -> bytes:
        """Return so many bytes; `ValueError` if there are fewer."""
        if count > _AT_ONCE and count > self._size - self._file.tell():
            raise ValueError("it ends too early")
        read = self._file.read(count)
        if len(read) < count:
            raise ValueError("it ends too early")
        return read

    def readline(self) -> bytes:
        """Return the bytes to the end of the line; of an endless one the beginning."""
        return self._file.readline(_LINE)


def lengths(claimed: Any) -> tuple[int, ...]:
    """Return a shape, or strides, as whole numbers that can be multiplied safely; `ValueError` for anything else."""
    if not isinstance(claimed, (tuple, list)) or len(claimed) > _AXES:
        raise ValueError(f"a tensor's shape is none, or has more than {_AXES} axes")
    if not all(type(n) is int and 0 <= n < _LARGEST for n in claimed):
        raise ValueError("a tensor's shape or strides are no whole numbers, or no plausible ones")
    return tuple(claimed)
