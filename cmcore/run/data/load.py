"""From what the user typed after ``--data`` to a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cmcore.errors import Error
from cmcore.run.data import convert, digits, emoji, fashion, folder, idx, numpy_files
from cmcore.run.data.convert import Raw
from cmcore.run.data.dataset import Dataset, check_values

NAMED: dict[str, Callable[[int | None], Raw]] = {
    "digits": digits.read,
    "fashion-mnist": fashion.read,
    "emoji": emoji.read,
}


def load(source: str, *, size: int | None = None, channels: int | None = None, classes: bool = False) -> Dataset:
    """Read a data set: "digits", "fashion-mnist", "emoji", a folder of images, or an .npz, .npy or IDX file.

    ``size`` cuts images to their central square and resizes it to ``size`` x ``size``; by default folders and emoji
    are made 32 x 32 and the other sources keep their size. ``channels`` is 1 (luma) or 3 (RGB); by default a folder
    has 3 unless all its pixels are grey, and the other sources keep theirs. ``classes=True`` asks for labels, the names
    of sub-folders or what the source holds; without it there are none.

    What is missing, unreadable or cannot be trained on is a `cmcore.Error` or a `ValueError`. The source is only read.
    """
    if size is not None and size < 1:
        raise ValueError(f"The size of the images must be at least 1, got {size}.")
    if channels not in (None, 1, 3):
        raise ValueError(f"Images can have 1 channel (grey) or 3 (RGB), got channels={channels}.")
    raw, name = _read(source, size, classes)
    if raw.images:
        check_values(raw.x, True, name)
        x = convert.images(raw.x, size, channels)
        held_out = None if raw.held_out is None else convert.images(raw.held_out, size, channels)
    elif size is not None or channels is not None:
        raise ValueError(f"{source} holds points of shape {raw.x.shape[1:]}; a size or channels apply to images only.")
    else:
        x, held_out = raw.x, raw.held_out
    if not classes:
        return Dataset(x, None, (), held_out, name, raw.images)
    if raw.labels is None:
        raise Error(f"{source} has no labels to tell classes apart; train without classes, or give data with labels.")
    return Dataset(x, *convert.classes(raw.labels, raw.names, source), held_out, name, raw.images)


def _read(source: str, size: int | None, classes: bool) -> tuple[Raw, str]:
    if source in NAMED:
        return NAMED[source](size), source
    path = Path(source)
    name = path.resolve().name
    if source and path.is_dir():
        return folder.read(path, size, classes), name
    if path.is_file():
        reader = {".npz": numpy_files.read_npz, ".npy": numpy_files.read_npy}.get(path.suffix.lower(), idx.read)
        return reader(path), name
    raise Error(
        f"There is no folder or file {source!r}; give the path of a folder of images or of an .npz, .npy or IDX file, "
        f"or one of {', '.join(NAMED)}."
    )
