"""From what the user typed after ``--data`` to a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cmcore.errors import Error
from cmcore.run.data import convert, digits, emoji, fashion, folder, idx, labels, numpy_files
from cmcore.run.data.convert import Raw
from cmcore.run.data.dataset import Dataset
from cmcore.run.data.ranges import scaled

NAMED: dict[str, Callable[[int | None], Raw]] = {
    "digits": digits.read,
    "fashion-mnist": fashion.read,
    "emoji": emoji.read,
}


def load(
    source: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: bool = False,
    value_range: tuple[float, float] | None = None,
    latents: bool = False,
    note: Callable[[str], None] | None = None,
) -> Dataset:
    """Read a data set: "digits", "fashion-mnist", "emoji", a folder of images, or an .npz, .npy or IDX file.

    ``size`` cuts images to their central square and resizes it to ``size`` x ``size``; by default folders and emoji
    are made 32 x 32 and the other sources keep their size. ``channels`` is 1 (luma) or 3 (RGB); by default a folder
    has 3 unless all its pixels are grey, and the other sources keep theirs. ``classes=True`` asks for labels, the names
    of sub-folders or what the source holds; without it there are none. ``value_range`` (low, high) says which values are black
    and white: by default 0 and 255 in uint8 and -1 and 1 in floats, where that is plausible. ``latents`` takes arrays
    (N, C, H, W) for what they are rather than for pictures. ``note`` is called with sentences that a user should read.

    What is missing, unreadable or cannot be trained on is a `cmcore.Error` or a `ValueError`. The source is only read.
    """
    if size is not None and size < 1:
        raise ValueError(f"The size of the images must be at least 1, got {size}.")
    if channels not in (None, 1, 3):
        raise ValueError(f"Images can have 1 channel (grey) or 3 (RGB), got channels={channels}.")
    say = note or (lambda _: None)
    raw, name = _read(source, size, classes, latents)
    if raw.images:
        x, held_out = (
            None if part is None else convert.images(scaled(part, value_range, name, say), size, channels)
            for part in (raw.x, raw.held_out)
        )
    elif size is not None or channels is not None or value_range is not None:
        raise ValueError(
            f"{source} does not hold images but samples of shape {raw.x.shape[1:]}; "
            "a size, channels or a range apply to images only."
        )
    else:
        x, held_out = raw.x, raw.held_out
    assert x is not None
    if not classes:
        return Dataset(x, None, (), held_out, name, raw.images)
    if raw.labels is None:
        raise Error(f"{source} has no labels to tell classes apart; train without --classes, or give data with labels.")
    return Dataset(x, *labels.classes(raw.labels, raw.names, source), held_out, name, raw.images)


def _read(source: str, size: int | None, classes: bool, latents: bool) -> tuple[Raw, str]:
    path = Path(source)
    name = path.resolve().name
    reader = {".npz": numpy_files.read_npz, ".npy": numpy_files.read_npy}.get(path.suffix.lower())
    if source not in NAMED and path.is_file() and reader:
        return reader(path, latents), name
    if latents:
        raise ValueError(f"Latents are read from .npz and .npy files, and {source} is none.")
    if source in NAMED:
        return NAMED[source](size), source
    if source and path.is_dir():
        return folder.read(path, size, classes), name
    if path.is_file():
        return idx.read(path), name
    raise Error(
        f"There is no folder or file {source!r}; give the path of a folder of images or of an .npz, .npy or IDX file, "
        f"or one of {', '.join(NAMED)}."
    )
