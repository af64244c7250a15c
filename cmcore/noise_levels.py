"""Other grids of times than Karras's, for samplers: increasing, float64, on the host, as `cmcore.grids.karras_host` has them."""

from __future__ import annotations

import math

import numpy as np

from cmcore._options import check_kind
from cmcore.grids import T_MAX, T_MIN, check_range


def exponential(n: int, t_min: float = T_MIN, t_max: float = T_MAX) -> np.ndarray:
    """Return n points equally spaced in log t, (n,): `polyexponential` with rho = 1, and Karras's grid with rho = inf."""
    return polyexponential(n, t_min, t_max)


def polyexponential(n: int, t_min: float = T_MIN, t_max: float = T_MAX, rho: float = 1.0) -> np.ndarray:
    """Return n points whose logarithms are a power of equally spaced numbers, (n,), the end points exact.

    ``log t_i = log t_min + (i / (n - 1))^rho (log t_max - log t_min)``, as k-diffusion has it: rho above 1 spends more points
    on small times.
    """
    _check_points(n)
    check_range(t_min, t_max)
    if not (t_min > 0 and 0 < rho < math.inf):
        raise ValueError(f"A grid of logarithms needs t_min > 0 and a finite rho > 0, got {t_min} and {rho}.")
    low, high = math.log(t_min), math.log(t_max)
    grid = np.exp(low + np.linspace(0.0, 1.0, n) ** rho * (high - low))
    grid[0], grid[-1] = t_min, t_max
    return grid


def vp(n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps: float = 1e-3) -> np.ndarray:
    """Return the noise levels of n equally spaced times of the VP SDE from ``eps`` to 1, (n,).

    ``sigma = sqrt(exp(beta_d s^2 / 2 + beta_min s) - 1)`` (Song et al., 2021, arXiv:2011.13456; Karras et al., 2022, table 1). They
    reach 152 by default.
    """
    _check_points(n)
    if not (0 < eps < 1 and beta_d >= 0 and beta_min >= 0 and 0 < beta_d + beta_min < math.inf):
        raise ValueError(
            f"The VP SDE needs eps in (0, 1), and beta_d and beta_min of at least 0 and not both 0, got {eps}, {beta_d} and {beta_min}."
        )
    s = np.linspace(eps, 1.0, n)
    return np.sqrt(np.expm1(beta_d * s**2 / 2 + beta_min * s))


def _check_points(n: int) -> None:
    check_kind("The number of points", n, int)
    if n < 2:
        raise ValueError(f"A grid has at least its two ends, got n={n}.")
