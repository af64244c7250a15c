"""From what the user typed after ``--data`` to a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmcore._words import choice, counted, meant, printable, quoted
from cmcore.errors import Error
from cmcore.run.data import (
    archive,
    convert,
    digits,
    emoji,
    fashion,
    folder,
    idx,
    labels,
    listed,
    numpy_files,
    reading,
    tables,
)
from cmcore.run.data.cache import cache as cache_of
from cmcore.run.data.cache import key_of_file, known
from cmcore.run.data.convert import Raw, Size
from cmcore.run.data.dataset import Dataset
from cmcore.run.data.decoding import Pictures
from cmcore.run.data.held_out import part_of, parted, share_of
from cmcore.run.data.ranges import scaled
from cmcore.run.data.reading import Reading
from cmcore.run.data.samples import Samples
from cmcore.run.data.walk import endings

NAMED: dict[str, Callable[[Size | None], Raw]] = {
    "digits": digits.read,
    "fashion-mnist": fashion.read,
    "emoji": emoji.read,
}

FITS = ("crop", "pad", "squash")
"""How images are brought to another aspect."""


def load(
    source: str,
    *,
    size: int | Size | None = None,
    channels: int | None = None,
    classes: bool = False,
    fit: str = "crop",
    fast_jpegs: bool = True,
    value_range: tuple[float, float] | None = None,
    latents: bool = False,
    skip_broken: bool = False,
    cache: str | None = None,
    held_out: float | str | None = None,
    note: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Read a data set: a name such as "digits", or a folder or file, as `cmcore.run.data` lists them.

    ``size``, a side or (height, width), resizes images, ``fit`` says how: "crop" cuts what is too long, "pad" adds white, "squash"
    changes the proportions. By default what is decoded is made 32 x 32, and arrays keep their size. ``fast_jpegs`` decodes large
    ones at a fraction of their size, for all but the last bits. ``channels`` is 1 (luma) or 3 (RGB); by default what is decoded
    has 3 unless all its pixels are grey, and arrays keep theirs. ``classes=True`` asks for labels, the names of sub-folders or
    what the source holds; without it there are none. ``value_range`` (low, high) says which values are black and white: by default 0
    and 255 in uint8 and -1 and 1 in floats, where that is plausible. ``latents`` takes arrays (N, C, H, W) for what they are
    rather than for pictures. ``skip_broken`` goes on without files that cannot be read. ``cache`` is a folder for decoded
    pictures, by default below the user's cache folder, or "none". ``held_out`` keeps samples from training, in place of those
    that the source itself may hold out: a share of them, drawn by their order alone, or another source, whose samples are made
    as large. ``note`` is called with sentences that a user should read, the last of which says what was read, and ``progress``
    with how many of how many files are.

    What is missing, unreadable or cannot be trained on is a `cmcore.Error` or a `ValueError`. The source is only read.
    """
    sides = _sides(size, channels, fit)
    say = note or (lambda _: None)
    count, place = progress or (lambda *_: None), cache_of(cache)
    without = None if held_out is None or share_of(held_out) is not None else Path(str(held_out))
    how = Reading(sides, classes, fit, fast_jpegs, skip_broken, place, without, say, count)
    raw, name = _read(source, latents, how)
    for sentence in _idle(raw, source, how):
        say(sentence)
    if not raw.images and (size is not None or channels is not None or value_range is not None):
        raise ValueError(
            f"{source} does not hold images but samples of shape {raw.x.shape[1:]}; "
            "a size, channels or a range apply to images only."
        )

    def taken(part: np.ndarray, rows: np.ndarray | None = None) -> Samples:
        if not raw.images:
            return Samples(part)
        return _fitted(replace(scaled(part, value_range, name, say), rows=rows), sides, channels, fit)

    x, kept_out = taken(raw.x, raw.rows), None if raw.held_out is None else taken(raw.held_out)
    if classes and raw.labels is None:
        raise Error(f"{source} has no labels to tell classes apart; train without --classes, or give data with labels.")
    numbers, names = labels.classes(raw.labels, raw.names, source) if classes and raw.labels is not None else (None, ())
    if held_out is not None and kept_out is not None:
        say(f"The {len(kept_out):,} samples that {name} itself holds out are left alone.")
    share = share_of(held_out)
    if share is not None:
        rows, others = parted(len(x), share, name)
        x, kept_out = part_of(x, rows), known(part_of(x, others), place, raw.key, count)
        numbers = None if numbers is None else numbers[rows]
    elif held_out is not None:
        sides, channels = ((x.shape[1], x.shape[2]), x.shape[0]) if raw.images else (None, None)
        kept_out = load(
            str(held_out),
            size=sides,
            channels=channels,
            fit=fit,
            fast_jpegs=fast_jpegs,
            value_range=value_range,
            latents=latents,
            skip_broken=skip_broken,
            cache=cache,
            note=say,
            progress=progress,
        ).samples
    data = Dataset(known(x, place, raw.key, count), numbers, names, kept_out, name, raw.images)
    say(described(data))
    return data


def _sides(size: int | Size | None, channels: int | None, fit: str) -> Size | None:
    """The size as (height, width); `ValueError` for one, or channels or a way of fitting, that cannot be."""
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and min(sides) < 1:
        raise ValueError(f"The size of the images must be at least 1, got {size}.")
    if fit not in FITS:
        raise ValueError(f"Images cannot be fitted by {fit!r}; {choice(fit, FITS)}")
    if channels not in (None, 1, 3):
        raise ValueError(f"Images can have 1 channel (grey) or 3 (RGB), got channels={channels}.")
    return sides


def described(data: Dataset, shown: int = 10) -> str:
    """Return in a line what a data set holds."""
    shape = data.shape
    if data.images:
        kind = f"images of {shape[1]} x {shape[2]}, {'grey' if shape[0] == 1 else 'RGB'}"
    else:
        kind = f"samples of shape {shape}"
    said = [f"{len(data):,} {kind}"]
    if data.kept_out is not None:
        said.append(f"{len(data.kept_out):,} held out")
    if data.labels is not None:
        counts = np.bincount(data.labels, minlength=len(data.classes))
        each = [f"{printable(name)} {count:,}" for name, count in zip(data.classes[:shown], counts, strict=False)]
        more = ", ..." if len(data.classes) > shown else ""
        said.append(f"{counted(len(data.classes), 'class', 'classes')} ({', '.join(each)}{more})")
    return f"{printable(data.name)}: {', '.join(said)}."


def _idle(raw: Raw, source: str, how: Reading) -> list[str]:
    """What was asked for and does nothing to such data; not refused, for runs were begun so."""
    files = [("--whole-jpegs", not how.fast_jpegs), ("--skip-broken", how.skip_broken)]
    said = [f"{option} does nothing here: it acts on files of pictures" for option, asked in files if asked]
    idle = [] if raw.decoded else said
    if how.fit != FITS[0] and not raw.images:
        idle.append(f"--fit {how.fit} does nothing here: it acts on pictures")
    return [f"{sentence}, and {source} holds none." for sentence in idle]


def _fitted(samples: Samples, size: Size | None, channels: int | None, fit: str) -> Samples:
    """Samples of the size and channels asked for: float32 where that takes arithmetic, else as they are stored."""
    stored = samples.stored
    if channels == 1 and stored.shape[1] == 3:
        return Samples(convert.images(samples.whole(), size, channels, fit))
    if size is not None and stored.shape[2:] != size:
        out, start = np.empty((len(samples), channels or stored.shape[1], *size), np.float32), 0
        for piece in samples.floats():  # so that what is larger need not be in memory
            out[start : start + len(piece)] = convert.images(piece, size, channels, fit)
            start += len(piece)
        return Samples(out)
    if channels == 3 and stored.shape[1] == 1:
        stored = np.broadcast_to(stored, (len(stored), 3, *stored.shape[2:]))
    return replace(samples, stored=stored)


def _read(source: str, latents: bool, how: Reading) -> tuple[Raw, str]:
    path = Path(source)
    name = path.resolve().name
    reader = {".npz": numpy_files.read_npz, ".npy": numpy_files.read_npy}.get(path.suffix.lower())
    if source not in NAMED and path.is_file() and reader:
        return replace(reader(path, latents), key=key_of_file(path)), name
    if latents:
        raise ValueError(f"Latents are read from .npz and .npy files, and {source} is none.")
    if source in NAMED:
        return NAMED[source](how.size), source
    if source and (pictures := _pictures(path, how)) is not None:
        return reading.read(pictures, how), name
    if path.is_file() and path.suffix.lower() in endings():
        raise Error(
            f"{source} is a single picture, and --data takes a folder of pictures; "
            f"is --data {quoted(path.resolve().parent)} meant?"
        )
    if path.is_file():
        return replace(idx.read(path), key=key_of_file(path)), name
    raise Error(
        f"There is no folder or file {source!r}; "
        + meant(
            source,
            NAMED,
            "give the path of a folder of images or of an .npz, .npy or IDX file, "
            f"or one of {', '.join(NAMED)}; or of a .zip, .tar, .csv or .parquet file of images.",
        )
    )


def _pictures(path: Path, how: Reading) -> Pictures | None:
    """The pictures that a folder, an archive or a table holds; None if the path is none of these."""
    if path.is_dir():
        try:
            return folder.Folder(path, how.without)
        except Error:  # there are no images in it
            if files := tables.files_of(path):
                return tables.Tables(path, files)
            raise
    if not path.is_file():
        return None
    name = path.name.lower()
    if name.endswith(archive.ENDINGS):
        return archive.Archive(path)
    if name.endswith(listed.ENDINGS):
        return listed.Listed(path)
    return tables.Tables(path.parent, [path]) if name.endswith(tables.ENDINGS) else None
