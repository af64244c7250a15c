"""Random numbers from explicit streams, drawn on the host: tinygrad's own generator is one per process."""

from __future__ import annotations

from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType, to_dtype

from cmcore_tinygrad.functions.creation import asarray


class HostStream:
    """The random stream number ``index`` of ``seed``: NumPy's counter-based Philox, whose numbers go to the device."""

    def __init__(self, seed: int, index: int, device: str) -> None:
        if seed < 0 or index < 0:
            raise ValueError(f"A stream's seed and index cannot be negative, got seed {seed} and index {index}.")
        self._device = device
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index))))

    def normal(self, shape: tuple[int, ...], dtype: str | DType = "float32") -> Tensor:
        """Draw standard normal numbers of the given shape."""
        return self._placed(self._generator.standard_normal(shape, _precision(dtype)), dtype)

    def uniform(self, shape: tuple[int, ...], dtype: str | DType = "float32") -> Tensor:
        """Draw numbers uniform in [0, 1) of the given shape."""
        return self._placed(self._generator.random(shape, _precision(dtype)), dtype)

    def _placed(self, host: np.ndarray | float, dtype: str | DType) -> Tensor:
        return asarray(np.asarray(host), device=self._device).cast(to_dtype(dtype))


def _precision(dtype: str | DType) -> Any:
    """Return the NumPy type to draw in: no narrower than float32."""
    return "float64" if to_dtype(dtype) == dtypes.float64 else "float32"
