"""Many pictures, wherever they come from, decoded in parallel and fitted to one size, some at a time."""

from __future__ import annotations

import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from cmcore.errors import Error
from cmcore.run.data.convert import Size, fitted
from cmcore.run.data.unpacking import SPARE
from cmcore.run.pictures import MARK

SIDE = 32
"""The sides of pictures whose size is not asked for."""

MOST_PIXELS = 90_000_000
"""A picture of more is refused; large JPEGs are read at a fraction of their size."""

_LARGE = 16_000_000
"""Pictures of more pixels are decoded one at a time, so that the threads' memory has a bound."""

CHUNK = 2**25
"""How many bytes of decoded pictures are gathered at once, ..."""

MOST_AT_ONCE = 512
"""... and how many pictures at most."""

THREADS = min(32, (os.cpu_count() or 1) + 4)
"""How many pictures are decoded at the same time; more than there are processors, for they wait for the disk as well."""

ORIENTATION = 0x0112
"""EXIF's number for how a picture is turned."""

_one_at_a_time = threading.Lock()


class Own(Exception):
    """A picture that this program made of several, which is none to train on."""


class Pictures(ABC):
    """Pictures that are not decoded yet, in the order in which they are trained on."""

    place: Path
    """The folder or file that holds them, ..."""

    names: Sequence[str]
    """... their names in it, ..."""

    sizes: np.ndarray
    """... how many bytes each takes there, (N,) int64, ..."""

    times: np.ndarray
    """... and what else changes when they do, (N, k) int64: times of files, say."""

    @abstractmethod
    def open(self, index: int) -> BinaryIO:
        """Open a picture; threads do at the same time."""

    def skipped(self) -> list[str]:
        """Return a sentence for each kind of thing that was passed over."""
        return []

    def listed_labels(self) -> bytes | None:
        """Return the content of dataset.json, EDM's and StyleGAN's file of labels, if there is one."""
        return None

    def own_labels(self) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """Return the labels of all pictures, (N,), with the names of the classes if there are any, where they are not in names."""
        return None

    def shown(self, index: int) -> str:
        """Return what to call a picture in a message."""
        return f"{self.place / self.names[index]}"


@dataclass(frozen=True)
class Fitting:
    """What is done to pictures: the size (height, width), how they are brought to it, and whether large JPEGs are read at a
    fraction of theirs."""

    size: Size
    fit: str = "crop"
    fast_jpegs: bool = True


Problems = dict[int, tuple[bool, str]]
"""Pictures that are none to train on, by their number: whether this program made them, and else what is wrong."""

DONE = {
    "turned": "turned as their EXIF says",
    "frame": "taken by their first frame",
    "white": "put on white where they are transparent",
    "cut": "cut to their central part",
    "padded": "padded with white",
    "squashed": "squashed",
    "resized": "resized",
}
"""What may be done to pictures, in this order, and how to say it."""


@dataclass
class Outcome:
    """What decoding came upon: pictures that are none, and how many were changed in which of the ways of `DONE`."""

    problems: Problems = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)


def decoded(
    pictures: Pictures,
    fitting: Fitting,
    outcome: Outcome,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[np.ndarray]:
    """Return all pictures in order as RGB, uint8 (n, 3, H, W) at a time; black for those that are none.

    What is come upon is noted in ``outcome``.
    """
    height, width = fitting.size
    total = len(pictures.names)
    each = max(1, min(MOST_AT_ONCE, CHUNK // (3 * height * width)))
    # Its threads are waited for neither here nor when the interpreter ends: a disk that does not answer must not keep Ctrl-C.
    with ThreadPool(THREADS) as pool:
        for start in range(0, total, each):
            count = min(each, total - start)
            pixels = np.zeros((count, height, width, 3), np.uint8)

            told = pool.imap(partial(_fill, pictures, fitting), zip(pixels, range(start, start + count), strict=True))
            for index, (problem, done) in enumerate(told, start):
                if problem is not None:
                    outcome.problems[index] = problem
                outcome.done.update(done)
                progress(index + 1, total)
            yield np.ascontiguousarray(np.moveaxis(pixels, 3, 1))


def _fill(
    pictures: Pictures, fitting: Fitting, place: tuple[np.ndarray, int]
) -> tuple[tuple[bool, str] | None, Sequence[str]]:
    """Decode a picture into an array, given with the picture's number; return what is wrong with it, if anything, and what was done."""
    out, index = place
    # Damaged files make Pillow's decoders raise nearly anything.
    try:
        out[:], done = _decoded(pictures, index, fitting)
    except Own:
        return (True, ""), ()
    except Exception as problem:
        return (False, str(problem)), ()
    return None, done


def to_rgb(image: Image.Image, ground: str = "white") -> Image.Image:
    """Turn an image of any mode into RGB: 16-bit grey scaled to 8, transparent parts on a ground of that colour."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values to 255.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its integer pixels do not fit into 16 bits; convert it to 8 or 16 bits")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; convert it to 8 bits, or use .npz")
    if is_transparent(image):
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, ground), layer)
    return image.convert("RGB")


def _decoded(pictures: Pictures, index: int, fitting: Fitting) -> tuple[np.ndarray, Sequence[str]]:
    size = fitting.size
    with warnings.catch_warnings():
        # Its limit is not ours, which is checked below.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pictures.open(index) as content, Image.open(content) as file:
            if file.info.get(MARK[0]) == MARK[1]:
                raise Own
            whole = file.size
            if fitting.fast_jpegs:
                # At half, a quarter or an eighth of the size, but at least eight times what is needed.
                file.draft("RGB", (8 * max(size), 8 * max(size)))
            pixels = file.width * file.height
            # A small file can claim any number; decoding and converting takes some eight bytes for each.
            most = min(MOST_PIXELS, (10 * int(pictures.sizes[index]) + SPARE) // 8)
            if pixels > most:
                raise ValueError(
                    f"it has {pixels:,} pixels, and at most {most:,} are read from such a file; make it smaller"
                )
            with _one_at_a_time if pixels > _LARGE else nullcontext():
                turned = ImageOps.exif_transpose(file)
                pixels_of = np.asarray(fitted(to_rgb(turned), size, fitting.fit))
                return pixels_of, _done(file, turned, whole, fitting)


def is_transparent(image: Image.Image) -> bool:
    """Tell whether an image has transparent parts, or may have."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _done(file: Image.Image, turned: Image.Image, whole: tuple[int, int], fitting: Fitting) -> list[str]:
    """What was done to a picture of a size, (width, height), whose file is open, of the ways of `DONE`."""
    height, width = fitting.size
    other_aspect = turned.width * height != turned.height * width
    said = {
        "turned": file.getexif().get(ORIENTATION, 1) in range(2, 9),
        "frame": _is_animated(file),
        "white": is_transparent(turned),
        {"crop": "cut", "pad": "padded", "squash": "squashed"}[fitting.fit]: other_aspect,
        "resized": sorted(whole) != sorted((width, height)),
    }
    return [way for way, so in said.items() if so]


def _is_animated(file: Image.Image) -> bool:
    # Which looks at further frames, of which a damaged one does no harm.
    try:
        return bool(getattr(file, "is_animated", False))
    except Exception:
        return False


def said_of(done: Counter[str], total: int, size: Size) -> str:
    """Return in a sentence what was done to pictures; empty if nothing was."""
    height, width = size
    ways = {**DONE, "resized": f"resized to {width} x {height}"}
    parts = [f"{'all' if done[way] == total else f'{done[way]:,}'} {how}" for way, how in ways.items() if done[way]]
    return f"Of {total:,} pictures, {', '.join(parts)}." if parts else ""


def tell(
    pictures: Pictures, problems: Problems, skip_broken: bool, note: Callable[[str], None], shown: int = 10
) -> None:
    """Note what is passed over; an `Error` if that is more than was allowed."""
    total = len(pictures.names)
    if own := [index for index, (ours, _) in problems.items() if ours]:
        note(f"Skipped {len(own):,} grids that this program wrote, such as {pictures.names[own[0]]}.")
    broken = [f"{pictures.shown(i)} ({problem})" for i, (ours, problem) in problems.items() if not ours]
    more = f"; and {len(broken) - shown:,} more" if len(broken) > shown else ""
    listed = f"{len(broken):,} of {total:,} files cannot be read as images: {'; '.join(broken[:shown])}{more}."
    if broken and not skip_broken:
        them = "it" if len(broken) == 1 else "them"
        kind = "folder" if pictures.place.is_dir() else "file"
        raise Error(f"{listed} Repair {them}, move {them} out of the {kind}, or add --skip-broken.")
    if broken:
        note(f"Skipped: {listed}")
    if len(problems) == total:
        kind = "folder" if pictures.place.is_dir() else "file"
        raise Error(f"The {kind} {pictures.place} holds no images that can be used; its {total:,} were skipped.")
