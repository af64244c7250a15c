"""Other grids of times than Karras's, for samplers: increasing, float64, on the host, as `cmcore.grids.karras_host` has them."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from cmcore._annotations import Called, Rule
from cmcore._door import check_arguments
from cmcore.grids import T_MAX, T_MIN, Last

Points = Annotated[
    int, Called("The number of points"), Rule(lambda n: n >= 2, "A grid has at least its two ends, got n={n}.")
]
PowerOfLogarithms = Annotated[
    float,
    Rule(
        lambda t_min, rho: t_min > 0 and 0 < rho < math.inf,
        "A grid of logarithms needs t_min > 0 and a finite rho > 0, got {t_min} and {rho}.",
    ),
]
StartOfVP = Annotated[
    float,
    Rule(
        lambda beta_d, beta_min, eps: (
            0 < eps < 1 and beta_d >= 0 and beta_min >= 0 and 0 < beta_d + beta_min < math.inf
        ),
        "The VP SDE needs eps in (0, 1), and beta_d and beta_min of at least 0 and not both 0, got {eps}, {beta_d} and {beta_min}.",
    ),
]


def exponential(n: Points, t_min: float = T_MIN, t_max: Last = T_MAX) -> np.ndarray:
    """Return n points equally spaced in log t, (n,): `polyexponential` with rho = 1, and Karras's grid with rho = inf."""
    return _polyexponential(n, t_min, t_max, 1.0)


def polyexponential(n: Points, t_min: float = T_MIN, t_max: Last = T_MAX, rho: PowerOfLogarithms = 1.0) -> np.ndarray:
    """Return n points whose logarithms are a power of equally spaced numbers, (n,), the end points exact.

    ``log t_i = log t_min + (i / (n - 1))^rho (log t_max - log t_min)``, as k-diffusion has it: rho above 1 spends more points
    on small times.
    """
    return _polyexponential(n, t_min, t_max, rho)


def vp(n: Points, beta_d: float = 19.9, beta_min: float = 0.1, eps: StartOfVP = 1e-3) -> np.ndarray:
    """Return the noise levels of n equally spaced times of the VP SDE from ``eps`` to 1, (n,).

    ``sigma = sqrt(exp(beta_d s^2 / 2 + beta_min s) - 1)`` (Song et al., 2021, arXiv:2011.13456; Karras et al., 2022, table 1). They
    reach 152 by default.
    """
    s = np.linspace(eps, 1.0, n)
    return np.sqrt(np.expm1(beta_d * s**2 / 2 + beta_min * s))


def _polyexponential(n: int, t_min: float, t_max: float, rho: float) -> np.ndarray:
    low, high = math.log(t_min), math.log(t_max)
    grid = np.exp(low + np.linspace(0.0, 1.0, n) ** rho * (high - low))
    grid[0], grid[-1] = t_min, t_max
    return grid


check_arguments(__name__)
