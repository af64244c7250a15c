"""What is done to the pictures of a batch at random, anew at each step; it depends on the seed, the step and their place in it alone."""

from __future__ import annotations

import numpy as np

from cmcore.run.resample import mapped

FLIPS, MAPS = 1, 2
"""The streams that are drawn from."""

TOLD = 9
"""How many numbers tell the network how a picture was augmented."""

SPREAD = 0.2
"""The standard deviation of scaling and stretching, in factors of 2, ..."""

SHIFT = 0.125
"""... and of shifts, in widths and heights."""

_DRAWS = 16


def flipped(x: np.ndarray, seed: int, step: int, rows: np.ndarray | None = None) -> np.ndarray:
    """Return pictures (B, C, H, W) with each of them, at even odds, turned left to right.

    ``rows``, (B,), are their places in the batch, where they are only some of it.
    """
    turned = (_words(seed, step, FLIPS, _places(x, rows)) >> np.uint64(63)).astype(bool)
    out = x.copy()
    out[turned] = x[turned, :, :, ::-1]
    return out


def augmented(
    x: np.ndarray, seed: int, step: int, p: float, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures (B, C, H, W) float32, augmented, and the numbers (B, 9) float32 that tell how; zeros for not at all.

    EDM's augmentation, which does not leak into samples since the network is told of it (Karras et al. 2022, appendix F.2, after
    Karras et al. 2020): half of the pictures are turned left to right; each of the following is done with probability ``p``: at
    even odds turned upside down, scaled by 2^N(0, 0.2^2), rotated by any angle, stretched along one axis by such a factor and
    shrunk by it across (at even odds a slanted axis), shifted by N(0, 0.125^2) widths and heights. What comes in from beyond
    the edges is reflected. ``rows`` is as for `flipped`.
    """
    height, width = x.shape[2:]
    draws = _words(seed, step, MAPS, _places(x, rows), _DRAWS) >> np.uint64(11)
    u = np.reshape(draws * 2.0**-53, (len(x), _DRAWS)).T
    zeros = np.zeros(len(x))
    left, upside = u[0] < 0.5, (u[1] < p) & (u[2] < 0.5)
    scale = np.where(u[3] < p, _normals(u[4], u[5])[0], zeros)
    angle = np.where(u[6] < p, np.pi * (2 * u[7] - 1), zeros)
    stretch = np.where(u[8] < p, _normals(u[11], u[12])[0], zeros)
    axis = np.where(u[9] < 0.5, np.pi * (2 * u[10] - 1), zeros)
    shift = np.where(u[13] < p, _normals(u[14], u[15]), zeros)
    out = x.copy()
    out[left] = out[left, :, :, ::-1]
    out[upside] = out[upside, :, ::-1]
    # Undone in the order in which they are not done: the first is undone last.
    linear = _scaled(-scale, -scale) @ _rotated(-angle) @ _rotated(axis) @ _scaled(-stretch, stretch) @ _rotated(-axis)
    offset = -linear @ (shift * SHIFT * np.array([[width], [height]])).T[:, :, None]
    moved = (scale != 0) | (angle != 0) | (stretch != 0) | (shift != 0).any(axis=0)
    if moved.any():
        out[moved] = mapped(out[moved], np.concatenate([linear, offset], axis=2)[moved])
    slant = stretch * np.cos(axis), stretch * np.sin(axis)
    told = np.stack([left, upside, scale, np.cos(angle) - 1, np.sin(angle), *slant, *shift], axis=1)
    return out, told.astype(np.float32)


def _places(x: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    return np.arange(len(x)) if rows is None else rows


def _words(seed: int, step: int, stream: int, places: np.ndarray, each: int = 1) -> np.ndarray:
    """Return uint64 Philox words, ``each`` for each place in the batch, one after the other.

    NumPy promises to keep this stream; orders are drawn from other ones.
    """
    count = each * (int(places.max()) + 1)
    words = np.asarray(np.random.Philox(np.random.SeedSequence((seed, step, stream))).random_raw(count))
    chosen: np.ndarray = words.reshape(-1, each)[places]
    return chosen.reshape(-1)


def _normals(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two standard normals (2, B) of two uniforms, after Box and Muller."""
    radius = np.sqrt(-2 * np.log1p(-u))
    return np.stack([radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)])


def _scaled(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Matrices (B, 2, 2) that scale the axes by 2^(0.2 across) and 2^(0.2 down)."""
    out = np.zeros((len(across), 2, 2))
    out[:, 0, 0], out[:, 1, 1] = np.exp2(SPREAD * across), np.exp2(SPREAD * down)
    return out


def _rotated(angle: np.ndarray) -> np.ndarray:
    """Matrices (B, 2, 2) that rotate from x to y."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
