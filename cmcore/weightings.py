"""How much each time counts in a loss: ``weighting(pair, sigma_data) -> (B,)``, non-negative.

``pair`` is a `cmcore.grids.TimePair`, ``sigma_data`` the data's standard deviation. Powers of 1 / t are taken at the
larger time of the pair, as the reference code of Song et al. (2023) does.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cmcore.backend import Array, namespace
from cmcore.grids import TimePair, check_pair

Weighting = Callable[[TimePair, float], Array]
"""``weighting(pair, sigma_data) -> (B,)``."""


def uniform(pair: TimePair, sigma_data: float) -> Array:
    """Return 1, the paper's lambda."""
    check_pair(pair)
    return namespace(pair.t).ones_like(pair.t)


def snr(pair: TimePair, sigma_data: float) -> Array:
    """Return the signal-to-noise ratio ``1 / t^2``."""
    check_pair(pair)
    return pair.t**-2


def snr_plus_one(pair: TimePair, sigma_data: float) -> Array:
    """Return ``1 / t^2 + 1``."""
    check_pair(pair)
    return pair.t**-2 + 1.0


def truncated_snr(pair: TimePair, sigma_data: float) -> Array:
    """Return ``max(1 / t^2, 1)`` (Salimans & Ho 2022)."""
    check_pair(pair)
    return namespace(pair.t).maximum(pair.t**-2, uniform(pair, sigma_data))


def karras(pair: TimePair, sigma_data: float) -> Array:
    """Return ``1 / t^2 + 1 / sigma_data^2``: every time's denoising loss is equally large at the start of training.

    It equals EDM's ``(t^2 + sd^2) / (t sd)^2`` (Karras et al. 2022, table 1).
    """
    check_pair(pair)
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"sigma_data, the data's standard deviation, must be positive and finite, got {sigma_data}.")
    return pair.t**-2 + sigma_data**-2


def inverse_gap(pair: TimePair, sigma_data: float) -> Array:
    """Return ``1 / (t - r)`` (iCT, ECT): it keeps the gradient's size as the grid is refined."""
    check_pair(pair)
    return 1.0 / pair.gap


def inverse_root_gap(pair: TimePair, sigma_data: float) -> Array:
    """Return ``1 / sqrt(t - r)``, one of the weights that programs for TCM offer."""
    check_pair(pair)
    return pair.gap**-0.5


def inverse_c_out(pair: TimePair, sigma_data: float) -> Array:
    """Return ``1 / c_out(t)`` of EDM's scalings, the root of `karras`: one of the weights that programs for TCM offer."""
    return karras(pair, sigma_data) ** 0.5
