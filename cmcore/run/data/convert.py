"""What the readers have in common: pixels to float32 in [-1, 1], channel order, crop and resize."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from cmcore.editing.transforms import LUMA

Size = tuple[int, int]
"""(height, width)"""


@dataclass(frozen=True)
class Raw:
    """What a reader found: images as (N, C, H, W), in whatever numbers, or float32; labels as they were.

    ``rows`` says which of x are meant, by default all; ``key`` tells apart what x was read from, so that what is known of it is
    found again. ``decoded`` says that they were files of pictures.
    """

    x: np.ndarray
    images: bool = True
    held_out: np.ndarray | None = None
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    rows: np.ndarray | None = None
    key: str = ""
    decoded: bool = False


def from_bytes(x: np.ndarray) -> np.ndarray:
    """Turn uint8 into float32 in [-1, 1]: 0 becomes -1 and 255 becomes 1, exactly."""
    out = x.astype(np.float32, order="C")
    out /= np.float32(127.5)
    out -= np.float32(1)
    return out


def channels_first(x: np.ndarray, source: object) -> np.ndarray:
    """Order (N, H, W), (N, H, W, C) or (N, C, H, W) as (N, C, H, W) and put uint8 RGBA on white; else `ValueError`.

    Where both axes could be the channels, the second is taken for them, unless only the other reading makes images square.
    """
    if x.ndim == 3:
        return x[:, None]
    counts = (1, 3, 4)
    if x.ndim != 4 or not (x.shape[1] in counts or x.shape[3] in counts):
        raise ValueError(
            f"{source} must hold images (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels, "
            f"or points (N, D), or with --kind latents arrays (N, C, H, W); it holds an array of shape {x.shape}."
        )
    square = x.shape[1] == x.shape[2] != x.shape[3] in counts
    if x.shape[1] not in counts or square:
        x = np.moveaxis(x, 3, 1)
    return on_white(x) if x.shape[1] == 4 and x.dtype == np.uint8 else x


def on_white(x: np.ndarray) -> np.ndarray:
    """Composite uint8 RGBA images (N, 4, H, W) on white: (N, 3, H, W) uint8."""
    out = np.empty((len(x), 3, *x.shape[2:]), np.uint8)
    for start in range(0, len(x), 256):  # so that the floats stay few
        piece = x[start : start + 256]
        colour, alpha = piece[:, :3].astype(np.float32), piece[:, 3:].astype(np.float32) / 255
        out[start : start + 256] = np.rint(colour * alpha + 255 * (1 - alpha))
    return out


def images(x: np.ndarray, size: Size | None, channels: int | None, fit: str = "crop") -> np.ndarray:
    """Give images (N, C, H, W) in [-1, 1] the size and channels asked for; None leaves them as they are."""
    if channels == 1 and x.shape[1] == 3:
        # Rounding could take white past 1.
        x = np.tensordot(x, np.asarray(LUMA, np.float32), axes=([1], [0]))[:, None].clip(-1, 1)
    if size is not None and x.shape[2:] != size:
        x = resized(x, size, fit)
    if channels == 3 and x.shape[1] == 1:
        x = np.repeat(x, 3, axis=1)
    return x


def resized(x: np.ndarray, size: Size, fit: str = "crop") -> np.ndarray:
    """Fit images (N, C, H, W) to a size with a Lanczos filter, and clip what it overshoots."""
    out = np.empty((*x.shape[:2], *size), np.float32)
    for index in np.ndindex(*x.shape[:2]):
        out[index] = np.asarray(fitted(Image.fromarray(np.ascontiguousarray(x[index])), size, fit, white=1))
    return out.clip(-1, 1, out=out)


def fitted(
    image: Image.Image,
    size: Size,
    fit: str,
    white: Any = "white",
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Resize an image to a size, by default with a Lanczos filter.

    ``fit`` is "crop", which cuts the sides that are too long, "pad", which adds white at those that are too short, or
    "squash", which keeps everything and changes the proportions.
    """
    height, width = size
    if fit == "pad":
        scale = min(width / image.width, height / image.height)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        canvas = Image.new(image.mode, (width, height), white)
        canvas.paste(image.resize(inner, resampling), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return canvas
    box = None if fit == "squash" else central(image.width, image.height, width / height)
    return image.resize((width, height), resampling, box)


def central(width: int, height: int, aspect: float) -> tuple[int, int, int, int]:
    """Return the largest central part of an image with an aspect, width / height, as Pillow's box (left, top, right, bottom)."""
    wide, high = min(width, max(1, round(height * aspect))), min(height, max(1, round(width / aspect)))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high
