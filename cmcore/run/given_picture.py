"""A picture that somebody gives, of any size and mode, brought to the size and mode that a model has."""

from __future__ import annotations

import warnings
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from cmcore.errors import Error
from cmcore.run.data.convert import Size, fitted
from cmcore.run.data.decoding import MOST_PIXELS, to_rgb
from cmcore.run.report import either


def opened(
    content: BinaryIO,
    name: object,
    size: Size,
    mode: str,
    resampling: Image.Resampling,
    most: int = MOST_PIXELS,
    ground: str = "white",
) -> tuple[Image.Image, str]:
    """Return a picture of a size, (height, width), and mode, "L" or "RGB", and what was done to it, in words.

    Transparent parts are laid on a ground of that colour.
    What is no picture, damaged, or of more than ``most`` pixels is an `Error` that calls it by its name.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's limit is not ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(content) as file:
                if file.width * file.height > most:
                    raise ValueError(f"it has {file.width * file.height:,} pixels, and at most {most:,} are read")
                turned = ImageOps.exif_transpose(file)
                rgb = to_rgb(turned, ground)
                was = turned.mode, turned.size
    except UnidentifiedImageError as problem:
        raise Error(f"{name} is no picture of a kind that can be read, such as a PNG or a JPEG.") from problem
    except OSError as problem:
        # Pillow's own of damaged pictures have no number.
        if problem.errno is not None:
            raise
        raise Error(f"{name} cannot be read as a picture ({problem}).") from problem
    except Exception as problem:  # damaged files make Pillow's decoders raise nearly anything
        raise Error(f"{name} cannot be read as a picture ({problem}).") from problem
    image, done = rgb.convert(mode), []
    if was[0] not in (mode, "P", "1") or (mode == "RGB" and was[0] == "1"):
        done.append(f"turned from {was[0]} to {mode}")
    height, width = size
    if was[1] != (width, height):
        if was[1][0] * height != was[1][1] * width:
            done.append("cut to its central part")
        done.append(f"resized from {was[1][0]} x {was[1][1]} to {width} x {height}")
        image = fitted(image, size, "crop", resampling=resampling)
    return image, either(done).replace(" or ", " and ") if done else ""
