"""Closed forms in plain arithmetic, independent of cmcore, for arrays of any library; x is (B, D) and t (B,)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmcore.backend import Array

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
"""Runs a test in both precisions."""

TOLERANCE = {"float32": 2e-5, "float64": 1e-11}
"""Relative rounding error that a handful of operations may leave."""


def gaussian_denoiser(mean: float, std: float) -> Any:
    """``E[x_0 | x_0 + t z]`` for data N(mean, std^2) in every coordinate."""
    return lambda x, t: mean + std**2 / (std**2 + t[:, None] ** 2) * (x - mean)


def gaussian_flow(mean: float, std: float) -> Any:
    """Where the probability-flow ODE of ``x_0 + t z`` carries (x, t) at time s, for data N(mean, std^2)."""
    return lambda x, t, s: mean + (x - mean) * ((std**2 + s**2) / (std**2 + t[:, None] ** 2)) ** 0.5


def mixture_denoiser(x: np.ndarray, t: np.ndarray, means: np.ndarray, stds: np.ndarray, weights: np.ndarray):
    """``E[x_0 | x_0 + t z]`` for a one-dimensional mixture, coordinate by coordinate, on the host."""
    variance = stds**2 + t[..., None] ** 2
    log_joint = np.log(weights) - 0.5 * np.log(variance) - 0.5 * (x[..., None] - means) ** 2 / variance
    share = np.exp(log_joint - log_joint.max(-1, keepdims=True))
    share /= share.sum(-1, keepdims=True)
    return (share * (means + stds**2 / variance * (x[..., None] - means))).sum(-1)


def close(lib: Any, got: Array, expected: Any, dtype: str, scale: float | None = None) -> None:
    """Assert that an array has the dtype and, up to rounding (relative to ``scale``), the values that are expected."""
    host = lib.to_numpy(got)
    assert str(host.dtype) == dtype
    expected = np.broadcast_to(np.asarray(expected, np.float64), host.shape)
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(host, expected, rtol=tolerance, atol=0.0 if scale is None else tolerance * scale)
