"""The types that signatures share, each alias once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Array = Any
"""An array of any framework: NumPy, PyTorch, JAX, tinygrad, array-api-strict, or a third party's."""

Network = Callable[..., Array]
"""Any callable ``net(x, c_noise, **cond) -> array shaped like x``."""

Loss = Callable[..., Array]
"""``loss(nets, x0, z, tau, scalars, cond) -> (B,)``: what a train step minimises the mean of. See `cmcore.TrainSpec`."""
