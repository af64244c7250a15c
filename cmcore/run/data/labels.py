"""From labels as people store them to numbers of classes, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cmcore._words import printable
from cmcore.errors import Error


def classes(labels: np.ndarray, names: tuple[str, ...], source: object) -> tuple[np.ndarray, tuple[str, ...]]:
    """Turn labels into (N,) int64 indices and the names of the classes.

    Labels are integers, booleans, strings, bytes of UTF-8 or whole floats, (N,) or (N, 1), or one-hot rows (N, K). With ``names`` they are
    indices already; without, the classes are the distinct labels in increasing order. A mark for "no label" among them,
    -1 beside other numbers or NaN, is an `Error`, and so is a single class.
    """
    labels = _one_each(labels, source)
    values, indices = np.unique(labels, return_inverse=True)
    if not names and values.dtype.kind in "if" and len(values) and values[0] == -1 and values.tolist() != [-1, 1]:
        raise Error(
            f"{(labels == -1).sum()} of the {len(labels)} labels of {source} are -1, which marks samples without a label. "
            "Remove those samples or give them a class of their own, or train on all of them without --classes."
        )
    if len(values) == 1:
        raise Error(
            f"All {len(labels):,} labels of {source} are {printable(str(names[values[0]] if names else values[0]))}, "
            "which would be the only class. Leave out --classes, or give data of more classes."
        )
    if names:
        return labels.astype(np.int64), names
    return indices.astype(np.int64), tuple(str(value) for value in values)


def named(numbers: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Turn numbers of classes into labels as the data has them: integers or booleans where the names are such, else strings."""
    values = np.array(names)
    if set(names) <= {"False", "True"}:
        values = values == "True"
    elif all(re.fullmatch(r"-?\d{1,18}", name) and name == str(int(name)) for name in names):
        values = values.astype(np.int64)
    chosen: np.ndarray = values[numbers]
    return chosen


def _one_each(labels: np.ndarray, source: object) -> np.ndarray:
    if labels.dtype == object:
        raise Error(
            f"The labels of {source} are Python objects, which are never loaded; store them as texts or whole numbers, "
            "such as y.astype(str), or train without --classes."
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "surrogateescape")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and _one_hot(labels):
        labels = labels.argmax(axis=1)
    if labels.ndim == 1 and labels.dtype.kind == "f":
        if np.isnan(labels).any():
            raise Error(f"Some labels of {source} are NaN; remove those samples, or train without --classes.")
        if (labels == np.rint(labels)).all() and np.abs(labels).max(initial=0) < 2**53:
            labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "biuU":
        raise ValueError(
            f"The labels of {source} must be one integer or string for each sample, or one-hot rows, got an array of shape "
            f"{labels.shape} and dtype {labels.dtype}."
        )
    return labels


def _one_hot(rows: np.ndarray) -> bool:
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all())
