"""A folder of images of any size and kind."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cmcore.errors import Error
from cmcore.run.data import walk
from cmcore.run.data.convert import Raw, Size, fitted
from cmcore.run.data.folder_labels import labels as labels_of
from cmcore.run.data.unpacking import SPARE
from cmcore.run.pictures import MARK

SIDE = 32

MOST_PIXELS = 90_000_000
"""A picture of more is refused; large JPEGs are read at a fraction of their size."""

_LARGE = 16_000_000
"""Pictures of more pixels are decoded one at a time, so that the threads' memory has a bound."""

_one_at_a_time = threading.Lock()


class Own(Exception):
    """A picture that this program made of several, which is none to train on."""


def read(
    folder: Path,
    size: Size | None = None,
    classes: bool = False,
    *,
    fit: str = "crop",
    fast_jpegs: bool = True,
    skip_broken: bool = False,
    note: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Raw:
    """Return all images in a folder and below, sorted by path, fitted to a size (height, width), by default 32 x 32.

    The first frame of an animation, turned as its EXIF says, transparent parts on white. The images are RGB, or grey
    if no pixel of any has a colour. Hidden files, files without an image format's ending, run folders and grids of samples are
    passed over, which ``note`` is told; files with such an ending that cannot be decoded are an error that names them, or are
    passed over as well with ``skip_broken``. ``fast_jpegs`` decodes large JPEGs at a fraction of their size. With ``classes`` the sub-folder directly below is the label, or dataset.json
    has it. ``progress`` is called with how many of how many files are decoded.
    """
    found = walk.pictures(folder)
    for sentence in found.skipped():
        note(sentence)
    height, width = size or (SIDE, SIDE)
    pixels = np.empty((len(found.paths), height, width, 3), np.uint8)

    def fill(index: int) -> Exception | None:
        # Damaged files make Pillow's decoders raise nearly anything.
        try:
            pixels[index] = _decoded(found.paths[index], (height, width), fit, fast_jpegs)
        except Exception as problem:
            return problem
        return None

    problems: dict[int, Exception] = {}
    with ThreadPoolExecutor() as pool:
        for index, problem in enumerate(pool.map(fill, range(len(found.paths)))):
            if problem is not None:
                problems[index] = problem
            progress(index + 1, len(found.paths))
    kept = np.array([index not in problems for index in range(len(found.paths))])
    _tell(folder, found.paths, problems, skip_broken, note)
    paths = [path for path, keep in zip(found.paths, kept, strict=True) if keep]
    labels, names = labels_of(folder, paths) if classes else (None, ())
    if problems:
        pixels = pixels[kept]
    grey = all((image == image[..., :1]).all() for image in pixels)
    x = np.moveaxis(pixels[..., :1] if grey else pixels, 3, 1)
    return Raw(np.ascontiguousarray(x), labels=labels, names=names)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into RGB: 16-bit grey scaled to 8, transparent parts on white."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values to 255.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its integer pixels do not fit into 16 bits; convert it to 8 or 16 bits")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; convert it to 8 bits, or use .npz")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _decoded(path: Path, size: Size, fit: str, fast_jpegs: bool) -> np.ndarray:
    with warnings.catch_warnings():
        # Its limit is not ours, which is checked below.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            if file.info.get(MARK[0]) == MARK[1]:
                raise Own
            if fast_jpegs:
                # At half, a quarter or an eighth of the size, but at least eight times what is needed.
                file.draft("RGB", (8 * max(size), 8 * max(size)))
            pixels = file.width * file.height
            # A small file can claim any number; decoding and converting takes some eight bytes for each.
            most = min(MOST_PIXELS, (10 * path.stat().st_size + SPARE) // 8)
            if pixels > most:
                raise ValueError(
                    f"it has {pixels:,} pixels, and at most {most:,} are read from such a file; make it smaller"
                )
            with _one_at_a_time if pixels > _LARGE else nullcontext():
                return np.asarray(fitted(to_rgb(ImageOps.exif_transpose(file)), size, fit))


def _tell(
    folder: Path,
    paths: list[Path],
    problems: dict[int, Exception],
    skip_broken: bool,
    note: Callable[[str], None],
    shown: int = 10,
) -> None:
    """Note what is passed over; an `Error` if that is more than was allowed."""
    own = [index for index, problem in problems.items() if isinstance(problem, Own)]
    if own:
        note(f"Skipped {len(own):,} grids that this program wrote, such as {paths[own[0]].relative_to(folder)}.")
    broken = [f"{paths[i]} ({problem})" for i, problem in problems.items() if i not in set(own)]
    more = f"; and {len(broken) - shown:,} more" if len(broken) > shown else ""
    listed = f"{len(broken):,} of {len(paths):,} files cannot be read as images: {'; '.join(broken[:shown])}{more}."
    if broken and not skip_broken:
        them = "it" if len(broken) == 1 else "them"
        raise Error(f"{listed} Repair {them}, move {them} out of the folder, or add --skip-broken.")
    if broken:
        note(f"Skipped: {listed}")
    if len(problems) == len(paths):
        raise Error(f"The folder {folder} holds no images that can be trained on; its {len(paths):,} were skipped.")
