"""Which numbers dropout keeps: a hash in 31 bits, so that every framework, integers of 32 bits alone, gives the same ones."""

from __future__ import annotations

from typing import Any

from cmcore.types import Array

_FACTORS = (0x6F35, 0x5D3B, 0x7A25, 0x4E6D, 0x6C8F, 0x58B1)
"""Odd, below 2^15: a product with 16 bits has at most 31, which no 32-bit integer overflows."""
_CONSTANTS = (0x1F3D, 0x2B97, 0x0E5B, 0x3C71, 0x1A89, 0x27E3)


def kept(key: Array, layer: int, sample: Array, element: Array, rate: float) -> Array:
    """Return whether each number is kept, bool, of the shape that ``sample`` and ``element`` broadcast to.

    key, (), sample and element are int32 of at least 0; ``sample`` is the place in the batch, ``element`` that within the
    sample, ``layer`` the layer's number. A number is dropped where the upper 24 bits of a hash of all of them are below
    ``rate 2^24``.
    """
    high, low = _mixed(*_halves(element), *_halves(key))
    high, low = _mixed(high, low, *_halves(layer * 0x9E37 & 0x7FFFFFFF))
    high, low = _mixed(high, low, *_halves(sample))
    # 16 bits of one half and 8 of the other.
    return high * 256 + (low >> 8) >= round(rate * 2**24)


def _halves(x: Any) -> tuple[Any, Any]:
    return x >> 16, x & 0xFFFF


def _mixed(high: Array, low: Array, first: Any, second: Any) -> tuple[Array, Array]:
    """A Feistel network on two halves of 16 bits, each round keyed by one of two words."""
    for i, (factor, constant) in enumerate(zip(_FACTORS, _CONSTANTS, strict=True)):
        word = (first, second)[i % 2]
        keyed = (low ^ word) & 0xFFFF
        product = keyed * factor + constant
        high, low = low, high ^ ((product >> 9 ^ product) & 0xFFFF)
    return high, low
