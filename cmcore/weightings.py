"""How much each time counts in a loss: ``weighting(pair, sigma_data) -> (B,)``, non-negative.

``pair`` is a `cmcore.grids.TimePair`, ``sigma_data`` the data's standard deviation. Powers of 1 / t are taken at the
larger time of the pair, as the reference code of Song et al. (2023) does.
"""

from __future__ import annotations

from typing import Annotated

from cmcore._annotations import Called
from cmcore._door import check_arguments
from cmcore.backend import namespace
from cmcore.options import DEVIATION
from cmcore.types import PerSample, TimePair
from cmcore.types import Weighting as Weighting

DataDeviation = Annotated[float, Called("sigma_data, the data's standard deviation,"), DEVIATION]


def uniform(pair: TimePair, sigma_data: float) -> PerSample:
    """Return 1, the paper's lambda."""
    return namespace(pair.t).ones_like(pair.t)


def snr(pair: TimePair, sigma_data: float) -> PerSample:
    """Return the signal-to-noise ratio ``1 / t^2``."""
    return pair.t**-2


def snr_plus_one(pair: TimePair, sigma_data: float) -> PerSample:
    """Return ``1 / t^2 + 1``."""
    return pair.t**-2 + 1.0


def truncated_snr(pair: TimePair, sigma_data: float) -> PerSample:
    """Return ``max(1 / t^2, 1)`` (Salimans & Ho 2022)."""
    return namespace(pair.t).maximum(pair.t**-2, namespace(pair.t).ones_like(pair.t))


def karras(pair: TimePair, sigma_data: DataDeviation) -> PerSample:
    """Return ``1 / t^2 + 1 / sigma_data^2``: every time's denoising loss is equally large at the start of training.

    It equals EDM's ``(t^2 + sd^2) / (t sd)^2`` (Karras et al. 2022, table 1).
    """
    return pair.t**-2 + sigma_data**-2


def inverse_gap(pair: TimePair, sigma_data: float) -> PerSample:
    """Return ``1 / (t - r)`` (iCT, ECT): it keeps the gradient's size as the grid is refined."""
    return 1.0 / pair.gap


def inverse_root_gap(pair: TimePair, sigma_data: float) -> PerSample:
    """Return ``1 / sqrt(t - r)``, one of the weights that programs for TCM offer."""
    return pair.gap**-0.5


def inverse_c_out(pair: TimePair, sigma_data: DataDeviation) -> PerSample:
    """Return ``1 / c_out(t)`` of EDM's scalings, the root of `karras`: one of the weights that programs for TCM offer."""
    return karras(pair, sigma_data) ** 0.5


check_arguments(__name__)
