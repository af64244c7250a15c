"""Pictures of samples: grids, captioned rows, and files of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from cmcore._files import atomic_write

TILE = 64
"""Images smaller than this many pixels are enlarged to about it, by a whole factor, so that they can be seen."""

PADDING = 2
"""The gap around the images of a grid, in pixels."""

MARK = ("Software", "cmcore")
"""What a PNG says of itself that shows several images, and is none to train on."""

CAPTION = 18
"""The size of captions, in pixels."""


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Turn values in [-1, 1] into uint8: ``127.5 (x + 1)``, rounded and clipped to 0 ... 255. NaN is a `ValueError`."""
    x = np.asarray(x)
    if np.isnan(x).any():
        raise ValueError("The images hold NaN and cannot be shown; the model or its training has diverged.")
    return np.rint(127.5 * (x.astype(np.float64) + 1)).clip(0, 255).astype(np.uint8)


def grid(x: np.ndarray, columns: int | None = None, scale: int | None = None, padding: int = PADDING) -> Image.Image:
    """Lay out images (N, C, H, W) in [-1, 1], grey (C = 1) or RGB (C = 3), row by row on white.

    ``columns`` is by default that of a square; ``scale`` enlarges by a whole factor without smoothing, by default
    to about 64 pixels; ``padding`` is the gap around the images in pixels.
    """
    pixels = as_pixels(x)
    n, height, width, channels = pixels.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else min(columns, n)
    scale = scale_of(height, width) if scale is None else scale
    if columns < 1 or scale < 1 or padding < 0:
        raise ValueError(
            f"A grid needs columns and scale of at least 1 and a padding of at least 0, "
            f"got {columns}, {scale} and {padding}."
        )
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    step_y, step_x = height * scale + padding, width * scale + padding
    canvas = np.full((math.ceil(n / columns) * step_y + padding, columns * step_x + padding, channels), 255, np.uint8)
    for index, image in enumerate(pixels):
        row, column = divmod(index, columns)
        top, left = padding + row * step_y, padding + column * step_x
        canvas[top : top + height * scale, left : left + width * scale] = image
    return Image.fromarray(canvas.squeeze(2) if channels == 1 else canvas)


def scale_of(height: int, width: int) -> int:
    """Return the whole factor by which a grid enlarges images of so many pixels."""
    return max(1, round(TILE / max(height, width)))


def rows(captioned: Sequence[tuple[str, np.ndarray]], columns: int = 16, scale: int | None = None) -> Image.Image:
    """Stack grids of images, each (N, C, H, W) in [-1, 1], under their captions."""
    if not captioned:
        raise ValueError("A picture of rows needs at least one pair of a caption and images, got none.")
    font = ImageFont.load_default(CAPTION)
    grids = [grid(x, columns, scale) for _, x in captioned]
    margin, line = CAPTION // 3, CAPTION * 3 // 2
    width = max(
        max(picture.width, math.ceil(font.getlength(caption)) + 2 * margin)
        for (caption, _), picture in zip(captioned, grids, strict=True)
    )
    height = sum(line + picture.height + margin for picture in grids)
    canvas = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(canvas), 0
    for (caption, _), picture in zip(captioned, grids, strict=True):
        draw.text((margin, top + line // 2), caption, "black", font, anchor="lm")
        canvas.paste(picture, (0, top + line))
        top += line + picture.height + margin
    return canvas


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write a picture as a PNG, whole or not at all, marked so that it is not taken for data."""
    about = PngImagePlugin.PngInfo()
    about.add_text(*MARK)
    atomic_write(path, lambda file: image.save(file, "PNG", pnginfo=about))


def as_images(x: np.ndarray) -> list[Image.Image]:
    """Return images (N, C, H, W) in [-1, 1] as Pillow images; what no picture shows is a `ValueError`."""
    return [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in as_pixels(x)]


def as_pixels(x: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) in [-1, 1] as uint8 (N, H, W, C); what no picture shows is a `ValueError`."""
    x = np.asarray(x)
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(
            f"Only images of shape (N, C, H, W) can be shown, got {x.shape}; save points and other data as .npz."
        )
    if x.shape[1] not in (1, 3):
        raise ValueError(
            f"Only images with 1 channel (grey) or 3 (RGB) can be shown, got {x.shape[1]}; save them as .npz."
        )
    return np.moveaxis(to_uint8(x), 1, 3)
