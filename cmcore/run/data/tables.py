"""Parquet files, and the Arrow files of Hugging Face's datasets: a column of encoded images, and perhaps one of labels."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cmcore.errors import Error
from cmcore.run.data.decoding import Pictures
from cmcore.run.data.unpacking import check_size

IMAGES = ("image", "img", "images", "jpg", "png", "jpeg", "webp", "picture")
LABELS = ("label", "labels", "class", "fine_label", "cls", "target")
"""What the columns may be called."""

ENDINGS = (".parquet", ".arrow")

SPLITS = ("train", "training")


class Tables(Pictures):
    """The images of tables, in their order, each stored as bytes or as a structure that has ``bytes``."""

    def __init__(self, place: Path, files: Sequence[Path]) -> None:
        _check_installed()
        self.place, self._parts = place, [part for file in files for part in _parts(file)]
        names, numbers = [], []
        for part in self._parts:
            stat = part.file.stat()
            names += [f"{part.file.name}:{part.first + row}" for row in range(part.count)]
            numbers += [(stat.st_size // max(1, part.count), stat.st_mtime_ns, stat.st_ctime_ns)] * part.count
        if not names:
            raise Error(f"The tables of {place} hold no images.")
        table = np.array(numbers, np.int64)
        self.names, self.sizes, self.times = names, table[:, 0], table[:, 1:]
        self._starts = np.cumsum([0, *(part.count for part in self._parts)])
        self._lock, self._read = threading.Lock(), dict[int, Any]()

    def open(self, index: int) -> BinaryIO:
        """Open an image."""
        number = int(np.searchsorted(self._starts, index, "right")) - 1
        with self._lock:
            if number not in self._read:
                if len(self._read) > 1:  # two, for threads are at the end of one while others begin the next
                    del self._read[min(self._read)]
                self._read[number] = self._parts[number].images()
            value = self._read[number][index - int(self._starts[number])].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError("the table has no bytes for it")
        return io.BytesIO(content)

    def own_labels(self) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """Return the labels with the names of their classes, as far as the tables tell; None if they have none."""
        if any(part.label is None for part in self._parts):
            return None
        values = [value for part in self._parts for value in part.labels()]
        if any(value is None for value in values):
            raise Error(f"Some pictures of {self.place} have no label; train without --classes, or remove them.")
        names = self._parts[0].classes
        labels = np.array(values)
        if names and labels.dtype.kind in "iu":
            if labels.min() < 0 or labels.max() >= len(names):
                raise Error(f"The labels of {self.place} must lie in [0, {len(names)}), the number of its classes.")
            return labels.astype(np.int64), names
        return labels, ()


class Part:
    """So many rows of a table, which are read at once."""

    def __init__(self, file: Path, first: int, count: int, schema: Any, read: Any) -> None:
        self.file, self.first, self.count, self._read = file, first, count, read
        columns = schema.names
        column = next((name for name in IMAGES if name in columns), None)
        if column is None:
            raise Error(
                f"{file} has no column of images, {', '.join(IMAGES[:-1])} or {IMAGES[-1]}; it has {', '.join(columns)}."
            )
        self._column = column
        self.label = next((name for name in LABELS if name in columns), None)
        self.classes = _classes(schema, self.label)

    def images(self) -> Any:
        """Read the column of images."""
        return self._read(self._column)

    def labels(self) -> list[Any]:
        """Read the column of labels."""
        values: list[Any] = self._read(self.label).to_pylist()
        return values


def files_of(folder: Path) -> list[Path]:
    """Return the tables of a folder of a data set: those of training, where files or folders are named for splits."""
    if (folder / "dataset_dict.json").is_file():
        folder = next((folder / name for name in SPLITS if (folder / name).is_dir()), folder)
    found: list[Path] = []
    for ending in ENDINGS:
        # A data set that was saved, or as it lies in a repository.
        found = found or sorted(folder.glob(f"*{ending}")) or sorted(folder.glob(f"data/*{ending}"))
    training = [file for file in found if file.name.startswith(SPLITS)]
    return training or found


def _check_installed() -> None:
    if find_spec("pyarrow") is None:
        raise Error('Parquet and Arrow files are read with pyarrow; install it with pip install "cmcore[parquet]".')


def _parts(file: Path) -> list[Part]:
    try:
        return _of_parquet(file) if file.suffix.lower() == ".parquet" else _of_arrow(file)
    except Error:
        raise
    # Damaged files make pyarrow raise nearly anything.
    except Exception as error:
        raise Error(
            f"{file} cannot be read as a table ({error}); it is truncated, damaged or of another kind."
        ) from error


def _of_parquet(file: Path) -> list[Part]:
    import pyarrow.parquet as parquet

    table = parquet.ParquetFile(file)
    check_size(file, sum(table.metadata.row_group(n).total_byte_size for n in range(table.num_row_groups)))

    def reader(group: int) -> Any:
        return lambda column: table.read_row_group(group, [column], use_threads=False)[column].combine_chunks()

    parts, first = [], 0
    for group in range(table.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        parts.append(Part(file, first, count, table.schema_arrow, reader(group)))
        first += count
    return parts


def _of_arrow(file: Path) -> list[Part]:
    import pyarrow as arrow

    with arrow.memory_map(str(file)) as content:
        try:
            table = arrow.ipc.open_stream(content).read_all()  # what is mapped is not read
        except arrow.ArrowInvalid:
            table = arrow.ipc.open_file(content).read_all()
    return [Part(file, 0, table.num_rows, table.schema, lambda column: table[column])]


def _classes(schema: Any, label: str | None) -> tuple[str, ...]:
    """The names of the classes as the datasets library writes them into a table; empty where it wrote none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
        return tuple(map(str, names)) if isinstance(names, list) else ()
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
