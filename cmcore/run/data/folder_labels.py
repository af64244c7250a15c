"""The classes of a folder of pictures: its sub-folders, or the labels of a dataset.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cmcore._words import printable, quoted
from cmcore.errors import Error
from cmcore.run.data.walk import LABELS

SPLITS = frozenset({"dev", "eval", "test", "testing", "train", "training", "val", "valid", "validation"})
"""Names of parts of a data set, which are hardly classes."""


def labels(folder: Path, paths: list[Path]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a label for each picture and the names of the classes; without names, labels are the classes' own values.

    What is hardly meant - one class, or classes that are named like splits - is an `Error` with what to type instead.
    """
    if (folder / LABELS).is_file() and (told := _told(folder / LABELS)) is not None:
        return _of_file(folder, paths, told), ()
    relative = [path.relative_to(folder) for path in paths]
    loose = next((path for path in relative if len(path.parts) == 1), None)
    if loose is not None:
        raise Error(
            f"With classes every image must lie in a sub-folder of {folder}, one for each class, but {printable(str(loose))} does not."
        )
    names, indices = np.unique([path.parts[0] for path in relative], return_inverse=True)
    if splits := [name for name in names if name.lower() in SPLITS]:
        raise Error(
            f"The sub-folders of {folder} are named {', '.join(map(printable, names))}, which look like parts of the data and not like classes. "
            f"Is --data {quoted(folder / splits[0])} meant? Otherwise rename them, or leave out --classes."
        )
    if len(names) == 1:
        raise Error(
            f"All pictures of {folder} lie in one sub-folder, {printable(names[0])}, which would be the only class. "
            f"Is --data {quoted(folder / str(names[0]))} meant? Otherwise leave out --classes."
        )
    return indices.astype(np.int64), tuple(str(name) for name in names)


def _told(path: Path) -> dict[str, int] | None:
    """The labels of a dataset.json by path, or None if it has none."""
    try:
        record = json.loads(path.read_bytes())
        rows = record["labels"]
        return None if rows is None else {str(name): _number(label) for name, label in rows}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as unfit:
        raise Error(
            f'{path} cannot be used ({unfit!r}); it should hold {{"labels": [["00000/img00000000.png", 6], ...]}} or '
            '{"labels": null}.'
        ) from unfit


def _number(label: object) -> int:
    if isinstance(label, bool) or not isinstance(label, int) or abs(label) > 2**31:
        raise ValueError(f"the label {label!r} is not a whole number")
    return label


def _of_file(folder: Path, paths: list[Path], told: dict[str, int]) -> np.ndarray:
    names = [path.relative_to(folder).as_posix() for path in paths]
    if lacking := [name for name in names if name not in told]:
        raise Error(
            f"{folder / LABELS} has no label for {len(lacking):,} of the {len(paths):,} pictures, {lacking[0]} among them; "
            "add them, or leave out --classes."
        )
    return np.array([told[name] for name in names], np.int64)
