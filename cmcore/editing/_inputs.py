"""Pictures and masks as they are given to an editor, checked, and as its network knows them."""

from __future__ import annotations

import numpy as np

from cmcore.data_facts import DataFacts


def picture(data: DataFacts, image: np.ndarray, noisy: bool = False) -> np.ndarray:
    """A picture as the network knows it, (1, \\*shape)."""
    x, shape = numbers(data, image, noisy), data.shape
    if x.shape != shape:
        raise ValueError(f"The picture must have the shape of the model's data, {shape}, got {x.shape}.")
    if not np.isfinite(x).all():
        raise ValueError("The picture must hold finite numbers, but it holds NaN or infinite ones.")
    return data.standardized(x[None])


def numbers(data: DataFacts, image: np.ndarray, noisy: bool = False) -> np.ndarray:
    """A picture as float32; `ValueError` for bytes, or for an image beyond [-1, 1] that is not said to be noisy."""
    x = np.asarray(image)
    if data.images:
        if x.dtype.kind != "f":
            raise ValueError(f"Pictures are floating-point numbers from -1 to 1, bytes / 127.5 - 1, got {x.dtype}.")
        if not noisy and np.abs(x).max(initial=0) > 1 + 1e-3:
            raise ValueError(f"Pictures are of numbers from -1 to 1, got {x.min():g} to {x.max():g}.")
    return x.astype(np.float32)


def mask(data: DataFacts, given: np.ndarray) -> np.ndarray:
    """A mask as numbers, (1, \\*shape): 1 where the picture is to be made anew."""
    given, shape = np.asarray(given), data.shape
    if given.dtype != bool:
        raise ValueError(f"The mask must hold True, where to draw anew, and False, got {given.dtype}.")
    try:
        whole = np.broadcast_to(given, shape)
    except ValueError:
        raise ValueError(f"The mask must broadcast against the data, {shape}, got {given.shape}.") from None
    if not whole.any():
        raise ValueError("The mask must be True somewhere, for nothing is to be made anew otherwise; got all False.")
    return whole[None].astype(np.float32)


def unit(data: DataFacts) -> float:
    """How much one of the network's units is of the data's, for noise; `ValueError` where it differs between columns."""
    scale = set(data.scale)
    if len(scale) > 1:
        raise ValueError("The data's columns have scales of their own, so noise is no single number there; got one.")
    return scale.pop() if scale else 1.0
