"""The grids that a run drew, one after the other, and the single pictures in one."""

from __future__ import annotations

import base64
import re
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from cmcore._files import placed
from cmcore.errors import Error
from cmcore.run.html.plots import safe_json
from cmcore.run.pictures import PADDING, scale_of

FRAMES = 60
"""How many grids a film shows at most, of more, evenly chosen ones and the last."""


def grids(folder: Path) -> list[tuple[int, Path]]:
    """Return the steps at which samples were drawn, and the pictures, in order."""
    found = [(m, p) for p in folder.glob("step-*.png") if (m := re.fullmatch(r"step-(\d+)\.png", p.name))]
    return sorted((int(m[1]), p) for m, p in found)


def film(pictures: list[tuple[int, Path]], count: int) -> str:
    """Return a figure to scrub through the grids, each of ``count`` samples; empty if there is none."""
    if not pictures:
        return ""
    chosen = sorted({round(i) for i in np.linspace(0, len(pictures) - 1, min(FRAMES, len(pictures)))})
    frames = [{"step": step, "src": _inline(path)} for step, path in (pictures[i] for i in chosen)]
    last, end = frames[-1], len(frames) - 1
    alt = escape(f"Grid of {count} samples after step {last['step']:,}")
    bar = (
        '<div class="controls"><button type="button" id="play" aria-label="Play the film">&#9654;</button>'
        f'<input type="range" id="scrub" min="0" max="{end}" value="{end}" step="1" aria-label="Training step" '
        f'aria-valuetext="step {last["step"]:,}"><output id="at" for="scrub">step {last["step"]:,}</output></div>'
    )
    return (
        f'<figure class="film" id="film"><img id="frame" alt="{alt}" data-count="{count}" src="{last["src"]}">'
        f'{bar if end else ""}<script type="application/json" id="frames">{safe_json(frames)}</script></figure>'
    )


def tiles(path: Path, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Return the first ``count`` pictures of a grid that `cmcore.run.pictures.grid` laid out, (count, H, W, C) uint8."""
    channels, height, width = shape
    scale = scale_of(height, width)
    with placed(path), Image.open(path) as image:
        canvas = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(image.height, image.width, channels)
    down, right = height * scale + PADDING, width * scale + PADDING
    columns, rows = (canvas.shape[1] - PADDING) // right, (canvas.shape[0] - PADDING) // down
    if (rows * down + PADDING, columns * right + PADDING) != canvas.shape[:2] or not rows * columns:
        raise Error(f"{path} is not a grid of pictures of {height} x {width} pixels.")
    inner = canvas[PADDING:, PADDING:].reshape(rows, down, columns, right, channels).swapaxes(1, 2)
    return inner.reshape(-1, down, right, channels)[:count, : height * scale : scale, : width * scale : scale]


def inline_png(pixels: np.ndarray) -> str:
    """Return a picture, (H, W, C) uint8, as an address that holds it."""
    file = BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return _address(file.getvalue())


def _inline(path: Path) -> str:
    with placed(path):
        return _address(path.read_bytes())


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
