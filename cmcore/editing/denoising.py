"""A picture with Gaussian noise of known level, or of one that is estimated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmcore._arrays import as_times, check_output, check_state, conditions, to_host
from cmcore._options import check_function
from cmcore.backend import Array
from cmcore.losses import ConsistencyFn
from cmcore.types import Time

NORMAL_MEDIAN = 0.6744897501960817
"""The median of the absolute value of a standard normal number."""


def denoise(f: ConsistencyFn, x: Array, sigma: Time, *, cond: Mapping[str, Array] | None = None) -> Array:
    """Return ``f(x, sigma)``: pictures (B, ...) without their noise of standard deviation sigma, a number or (B,).

    A picture with such noise is a point of the path at time sigma (Song et al. 2023, appendix D). The answer is a likely picture, not
    the mean of all that are, which is the denoiser's.
    """
    check_state(x)
    check_function("The consistency function f", f)
    return check_output(f(x, as_times(sigma, x, "sigma"), **conditions(cond)), x, "The consistency function")


def noise_level(x: Array) -> np.ndarray:
    """Return an estimate of the standard deviation of the noise of each of the images (B, C, H, W), (B,) float64 on the host.

    The median of the absolute values of the finest diagonal differences, ``(a - b - c + d) / 2`` of 2 x 2 pixels, over that of a
    standard normal number (Donoho & Johnstone 1994): edges are few, and the noise is everywhere.
    """
    host = to_host(x, "The images")
    if host.ndim != 4 or min(host.shape[1:], default=0) < 1 or min(host.shape[2:]) < 2:
        raise ValueError(
            f"The noise is estimated of images (B, C, H, W) of at least 2 x 2 pixels, got {tuple(host.shape)}."
        )
    height, width = (side - side % 2 for side in host.shape[2:])
    a, b = host[:, :, 0:height:2, 0:width:2], host[:, :, 0:height:2, 1:width:2]
    c, d = host[:, :, 1:height:2, 0:width:2], host[:, :, 1:height:2, 1:width:2]
    differences = np.abs(a - b - c + d).reshape(len(host), -1) / 2
    return np.asarray(np.median(differences, axis=1) / NORMAL_MEDIAN)
