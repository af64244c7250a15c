"""What the readers have in common: pixels to float32 in [-1, 1], channel order, crop and resize."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601, what Pillow uses to turn RGB into grey."""


@dataclass(frozen=True)
class Raw:
    """What a reader found: images as (N, C, H, W), in whatever numbers, or float32; labels as they were."""

    x: np.ndarray
    images: bool = True
    held_out: np.ndarray | None = None
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()


def from_bytes(x: np.ndarray) -> np.ndarray:
    """Turn uint8 into float32 in [-1, 1]: 0 becomes -1 and 255 becomes 1, exactly."""
    return x.astype(np.float32) / np.float32(127.5) - np.float32(1)


def channels_first(x: np.ndarray, source: object) -> np.ndarray:
    """Order (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W) and put uint8 RGBA on white; else `ValueError`.

    Where both axes could be the channels, the second is taken for them.
    """
    if x.ndim == 3:
        return x[:, None]
    counts = (1, 3, 4)
    if x.ndim != 4 or not (x.shape[1] in counts or x.shape[3] in counts):
        raise ValueError(
            f"{source} must hold images (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels, "
            f"or points (N, D), or with --latents arrays (N, C, H, W); it holds an array of shape {x.shape}."
        )
    if x.shape[1] not in counts:
        x = np.moveaxis(x, 3, 1)
    return on_white(x) if x.shape[1] == 4 and x.dtype == np.uint8 else x


def on_white(x: np.ndarray) -> np.ndarray:
    """Composite uint8 RGBA images (N, 4, H, W) on white: (N, 3, H, W) uint8."""
    colour, alpha = x[:, :3].astype(np.float32), x[:, 3:].astype(np.float32) / 255
    return np.rint(colour * alpha + 255 * (1 - alpha)).astype(np.uint8)


def images(x: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
    """Give images (N, C, H, W) in [-1, 1] the size and channels asked for; None leaves them as they are."""
    if channels == 1 and x.shape[1] == 3:
        # Rounding could take white past 1.
        x = np.tensordot(x, np.asarray(LUMA, np.float32), axes=([1], [0]))[:, None].clip(-1, 1)
    if size is not None and x.shape[2:] != (size, size):
        x = resized(x, size)
    if channels == 3 and x.shape[1] == 1:
        x = np.repeat(x, 3, axis=1)
    return x


def resized(x: np.ndarray, size: int) -> np.ndarray:
    """Resize the central square of images (N, C, H, W) with a Lanczos filter, and clip what it overshoots."""
    box = central_square(x.shape[3], x.shape[2])
    out = np.empty((*x.shape[:2], size, size), np.float32)
    for index in np.ndindex(*x.shape[:2]):
        plane = Image.fromarray(np.ascontiguousarray(x[index]))
        out[index] = np.asarray(plane.resize((size, size), Image.Resampling.LANCZOS, box))
    return out.clip(-1, 1, out=out)


def central_square(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the largest central square of an image as Pillow's box (left, top, right, bottom)."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
