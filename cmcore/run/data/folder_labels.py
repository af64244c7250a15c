"""The classes of a folder of pictures: its sub-folders, or the labels of a dataset.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmcore._words import printable, quoted
from cmcore.errors import Error
from cmcore.run.data.walk import LABELS

SPLITS = frozenset({"dev", "eval", "test", "testing", "train", "training", "val", "valid", "validation"})
"""Names of parts of a data set, which are hardly classes."""


def labels(folder: Path, names: Sequence[str], listed: bytes | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a label for each picture and the names of the classes; without names, labels are the classes' own values.

    The pictures are named as in their folder or archive; ``listed`` is the content of its dataset.json, if it has one.

    What is hardly meant - one class, or classes that are named like splits - is an `Error` with what to type instead.
    """
    if listed is not None and (told := _told(folder / LABELS, listed)) is not None:
        return _of_file(folder, names, told), ()
    loose = next((name for name in names if "/" not in name), None)
    if loose is not None:
        raise Error(
            f"With classes every image must lie in a sub-folder of {folder}, one for each class, but {printable(loose)} does not."
        )
    classes, indices = np.unique([name.partition("/")[0] for name in names], return_inverse=True)
    if splits := [name for name in classes if name.lower() in SPLITS]:
        raise Error(
            f"The sub-folders of {folder} are named {', '.join(map(printable, classes))}, which look like parts of the data and not like classes. "
            f"Is --data {quoted(folder / splits[0])} meant? Otherwise rename them, or leave out --classes."
        )
    if len(classes) == 1:
        raise Error(
            f"All pictures of {folder} lie in one sub-folder, {printable(classes[0])}, which would be the only class. "
            f"Is --data {quoted(folder / str(classes[0]))} meant? Otherwise leave out --classes."
        )
    return indices.astype(np.int64), tuple(str(name) for name in classes)


def _told(path: Path, listed: bytes) -> dict[str, int] | None:
    """The labels of a dataset.json by path, or None if it has none."""
    try:
        record = json.loads(listed)
        rows = record["labels"]
        return None if rows is None else {str(name): _number(label) for name, label in rows}
    except (ValueError, KeyError, TypeError, RecursionError) as unfit:
        raise Error(
            f'{path} cannot be used ({unfit!r}); it should hold {{"labels": [["00000/img00000000.png", 6], ...]}} or '
            '{"labels": null}.'
        ) from unfit


def _number(label: object) -> int:
    if isinstance(label, bool) or not isinstance(label, int) or abs(label) > 2**31:
        raise ValueError(f"the label {label!r} is not a whole number")
    return label


def _of_file(folder: Path, names: Sequence[str], told: dict[str, int]) -> np.ndarray:
    if lacking := [name for name in names if name not in told]:
        raise Error(
            f"{folder / LABELS} has no label for {len(lacking):,} of the {len(names):,} pictures, {lacking[0]} among them; "
            "add them, or leave out --classes."
        )
    return np.array([told[name] for name in names], np.int64)
