"""From pictures that are not decoded yet to arrays: what a folder and an archive have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmcore.run.data.cache import Cache, pictures_of
from cmcore.run.data.convert import Raw, Size
from cmcore.run.data.decoding import SIDE, Fitting, Pictures, said_of, tell
from cmcore.run.data.folder_labels import labels as labels_of


@dataclass(frozen=True)
class Reading:
    """How pictures are read, as `cmcore.run.data.load` describes it, and who is told of it.

    ``without`` is a folder that is held out, wherever it is.
    """

    size: Size | None = None
    classes: bool = False
    fit: str = "crop"
    fast_jpegs: bool = True
    skip_broken: bool = False
    cache: Cache = Cache(None)
    without: Path | None = None
    note: Callable[[str], None] = lambda _: None
    progress: Callable[[int, int], None] = lambda *_: None


def read(pictures: Pictures, how: Reading) -> Raw:
    """Return all pictures, by default as 32 x 32: RGB, or grey if no pixel of any has a colour.

    The first frame of an animation, turned as its EXIF says, transparent parts on white. Files that cannot be decoded are an
    `Error` that names them, or are passed over with ``skip_broken``. With ``classes`` the sub-folder directly below is the label, or
    dataset.json has it. ``progress`` is called with how many of how many files are decoded.
    """
    for sentence in pictures.skipped():
        how.note(sentence)
    fitting = Fitting(how.size or (SIDE, SIDE), how.fit, how.fast_jpegs)
    kept = pictures_of(pictures, fitting, how.cache, how.note, how.progress)
    problems = kept.outcome.problems
    tell(pictures, problems, how.skip_broken, how.note)
    rows = None
    names = pictures.names
    if problems:
        rows = np.delete(np.arange(len(names)), list(problems))
        names = [name for index, name in enumerate(names) if index not in problems]
    if done := said_of(kept.outcome.done, len(names), fitting.size):
        how.note(done)
    labels, classes = _labels(pictures, names, rows) if how.classes else (None, ())
    return Raw(kept.x, labels=labels, names=classes, rows=rows, key=kept.key, decoded=True)


def _labels(pictures: Pictures, names: Sequence[str], rows: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    if (own := pictures.own_labels()) is None:
        return labels_of(pictures.place, names, pictures.listed_labels())
    return own[0] if rows is None else own[0][rows], own[1]
