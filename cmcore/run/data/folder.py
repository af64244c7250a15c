"""A folder of images of any size and kind."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from cmcore.run.data import walk
from cmcore.run.data.decoding import Pictures


class Folder(Pictures):
    """All images in a folder and below, sorted by their names in it.

    Hidden files, files without an image format's ending, run folders and grids of samples are passed over, and so is a folder
    ``without`` that is held out; `Error` if that is the folder itself.
    """

    def __init__(self, folder: Path, without: Path | None = None) -> None:
        self._found = walk.pictures(folder, without)
        self.place, self.names = folder, self._found.names
        table = self._found.table()
        self.sizes, self.times = table[:, 0], table[:, 1:]

    def open(self, index: int) -> BinaryIO:
        """Open a file."""
        return (self.place / self.names[index]).open("rb")

    def skipped(self) -> list[str]:
        """Return a sentence for each kind of thing that was passed over."""
        return self._found.skipped()

    def listed_labels(self) -> bytes | None:
        """Return the content of dataset.json, if it is there."""
        file = self.place / walk.LABELS
        return file.read_bytes() if file.is_file() else None
