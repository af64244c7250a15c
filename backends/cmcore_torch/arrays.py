"""Between host arrays and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def dtype_of(name: str | torch.dtype) -> torch.dtype:
    """Return the dtype of that name; `ValueError` if torch has none."""
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch has no dtype {name!r}; give a name such as 'float32', 'float64' or 'bfloat16'.")
    return dtype


def to_tensor(host: Any, device: str | torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return host data or a tensor on the device, without a copy where none is needed."""
    if isinstance(host, torch.Tensor):
        return host.to(device, dtype, non_blocking=True)
    if isinstance(host, np.ndarray):
        # Tensors know neither read-only memory nor negative strides nor foreign byte orders.
        host = np.require(host, host.dtype.newbyteorder("="), ["C", "W"])
    return torch.as_tensor(host, dtype=dtype).to(device, non_blocking=True)


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """Return a tensor's values as a host array that shares no memory with it."""
    host = x.detach().to("cpu", torch.float32 if x.dtype == torch.bfloat16 else x.dtype, copy=True)
    return host.numpy()
