"""The colour bitmaps of Google's Noto Color Emoji font (OFL), from the font file of Debian's package."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from cmcore.errors import Error
from cmcore.run.data.convert import Raw, Size, fitted
from cmcore.run.data.dataset import split
from cmcore.run.data.decoding import SIDE, to_rgb

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


def read(size: Size | None = None) -> Raw:
    """Return the font's distinct emoji on white, (N, 3, size, size), by default 32 x 32, with a tenth held out.

    Skin tones are separate emoji, so that many held-out images resemble one to train on.
    """
    height, width = size or (SIDE, SIDE)
    font = Path(os.environ.get("CMCORE_EMOJI_FONT", FONT))
    x = np.stack([_drawn(data, (height, width)) for data in _bitmaps(font)])
    x = np.moveaxis(x, 3, 1)
    train, held_out = split(len(x), len(x) // 10)
    return Raw(x[train], held_out=x[held_out])


def _bitmaps(font: Path) -> list[bytes]:
    try:
        from fontTools.ttLib import TTFont
    except ImportError as error:
        raise Error('The emoji are read with fontTools; install it with pip install "cmcore[emoji]".') from error
    if not font.is_file():
        raise Error(
            f"There is no font {font}; install Debian's package fonts-noto-color-emoji, "
            "or set CMCORE_EMOJI_FONT to a NotoColorEmoji.ttf with bitmaps."
        )
    try:
        with TTFont(font, lazy=True) as file:
            glyphs = [glyph.imageData for strike in file["CBDT"].strikeData for glyph in strike.values()]
    # Damaged tables make fontTools raise nearly anything.
    except Exception as error:
        raise Error(
            f"{font} cannot be read as a font with colour bitmaps, a CBDT table ({error}); "
            "use the font of Debian's package fonts-noto-color-emoji."
        ) from error
    # Some glyphs share one picture; a copy must not be held out.
    return list(dict.fromkeys(glyphs))


def _drawn(data: bytes, size: Size) -> np.ndarray:
    image = to_rgb(Image.open(io.BytesIO(data)))
    square = Image.new("RGB", (max(image.size),) * 2, "white")
    square.paste(image, ((square.width - image.width) // 2, (square.height - image.height) // 2))
    return np.asarray(fitted(square, size, "pad"))
