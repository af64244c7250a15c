"""Random numbers from explicit streams."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from cmcore_torch.arrays import dtype_of


class Stream:
    """The random stream number ``index`` of ``seed``, on a device; torch's global generator is left alone."""

    def __init__(self, seed: int, index: int, device: str) -> None:
        if seed < 0 or index < 0:
            raise ValueError(f"A stream's seed and index cannot be negative, got seed {seed} and index {index}.")
        self._device = device
        self._generator = torch.Generator(device)
        self._generator.manual_seed(_mix(seed, index))

    def normal(self, shape: tuple[int, ...], dtype: str | torch.dtype = "float32") -> torch.Tensor:
        """Draw standard normal numbers of the given shape."""
        return torch.randn(shape, generator=self._generator, dtype=dtype_of(dtype), device=self._device)

    def uniform(self, shape: tuple[int, ...], dtype: str | torch.dtype = "float32") -> torch.Tensor:
        """Draw numbers uniform in [0, 1) of the given shape."""
        return torch.rand(shape, generator=self._generator, dtype=dtype_of(dtype), device=self._device)


def _mix(seed: int, index: int) -> int:
    """Return a generator's seed whose low 32 bits differ for any two indices of a seed.

    torch's CPU generator keeps no more than these, so a plain hash would repeat noise within one long run.
    """
    before, after, high = _keys(seed, index >> 32)
    return high << 32 | _scramble(index & 0xFFFFFFFF ^ before) ^ after


@lru_cache(maxsize=64)
def _keys(seed: int, era: int) -> tuple[int, ...]:
    return tuple(int(word) for word in np.random.SeedSequence((seed, era)).generate_state(3))


def _scramble(word: int) -> int:
    """A bijection of 32-bit words: the finaliser of MurmurHash3 (Appleby, public domain)."""
    word = (word ^ word >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    word = (word ^ word >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return word ^ word >> 16
