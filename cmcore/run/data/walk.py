"""Which files of a folder are pictures to train on, and what else is there, so that nothing is skipped in silence."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from stat import S_ISREG

import numpy as np
from PIL import Image

from cmcore.errors import Error

# Formats Pillow recognises but cannot decode by itself.
UNDECODABLE = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})

PLUGINS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".avif": "pillow-avif-plugin", ".jxl": "pillow-jxl-plugin"}
"""Pictures that Pillow reads with another package."""

_MODULES = {"pillow-heif": "pillow_heif", "pillow-avif-plugin": "pillow_avif", "pillow-jxl-plugin": "pillow_jxl"}

LABELS = "dataset.json"
"""EDM's and StyleGAN's file of labels, beside the pictures."""

NOT_CONTENT = frozenset({"__MACOSX", "@eaDir", "lost+found"})
"""Folders of systems' own, in folders and archives."""

_KNOWN_OTHERS = frozenset({LABELS, "Thumbs.db", "desktop.ini"})


@dataclass
class Found:
    """The names of a folder's or an archive's pictures in it, with their sizes and times, and what was passed over and why."""

    folder: Path
    names: list[str] = field(default_factory=list)
    numbers: list[tuple[int, ...]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    runs: list[Path] = field(default_factory=list)
    held_out: Path | None = None
    special: list[str] = field(default_factory=list)

    def sort(self, name: str, numbers: tuple[int, ...]) -> bool:
        """Take a file, with its size and its times, for a picture or for something else, by its name; tell which."""
        ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 - of very many
        if ending in endings():
            self.names.append(name)
            self.numbers.append(numbers)
            return True
        if name.rpartition("/")[2] not in _KNOWN_OTHERS:
            self.others[ending] += 1
        return False

    def check(self, kind: str, count: int) -> None:
        """Raise `Error` if there is no picture among so many files of a folder or archive, ``kind``."""
        if not self.names:
            raise Error(
                f"The {kind} {self.folder} holds no images: none of its {count} files ends like an image format "
                f"(.png, .jpg, .webp, ...). {' '.join(self.skipped())}".rstrip()
            )

    def table(self) -> np.ndarray:
        """Return the sizes and times, (N, k) int64."""
        return np.array(self.numbers, np.int64).reshape(len(self.names), -1)

    def skipped(self) -> list[str]:
        """Return a sentence for each kind of thing that was passed over."""
        said = []
        for ending, count in self.others.most_common():
            package = PLUGINS.get(ending)
            why = f"Pillow reads them after pip install {package}" if package else "no picture's ending"
            said.append(f"Skipped {count:,} {ending or 'without an ending'}: {why}.")
        if self.special:
            said.append(
                f"Skipped {len(self.special):,} pipes, sockets or devices, such as {self.special[0].rpartition('/')[2]}."
            )
        if self.held_out:
            said.append(f"{self.held_out.relative_to(self.folder)} is held out, and left out of what is trained on.")
        if self.runs:
            where = ", ".join(str(run.relative_to(self.folder)) for run in self.runs[:3])
            more = f" and {len(self.runs) - 3} more" if len(self.runs) > 3 else ""
            said.append(f"Skipped what this program wrote: {where}{more}.")
        return said


def pictures(folder: Path, without: Path | None = None) -> Found:
    """Return the pictures in a folder and below. Hidden files, run folders, folders of samples and one ``without`` are passed over.

    Linked folders are followed, each real folder once. `Error` if there are none, or the folder is a run's itself or the one
    to be without.
    """
    left_out = None if without is None else os.path.realpath(without)
    if left_out is not None and Path(left_out) in (folder.resolve(), *folder.resolve().parents):
        raise Error(f"--held-out {without} holds all of --data {folder}, so that there is nothing to train on.")
    if is_run(folder):
        raise Error(f"{folder} is the folder of a run, and --data takes a folder of pictures.")
    found = Found(folder)
    files = sorted(_files(folder, found, left_out))
    for name in files:
        stat = _stat(f"{folder}/{name}")
        if stat is not None and not S_ISREG(stat.st_mode):
            # Reading would wait for another program, as that of a pipe does.
            found.special.append(name)
        else:
            found.sort(name, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) if stat else (0, 0, 0))
    found.check("folder", len(files))
    return found


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run's, by its config.json."""
    try:
        record = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and {"format", "settings", "plan", "versions"} <= record.keys()


def _files(folder: Path, found: Found, left_out: str | None) -> Iterator[str]:
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        real, place = os.path.realpath(here), Path(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if real == left_out:
            found.held_out = place
            folders.clear()
            continue
        if place != folder and (is_run(place) or ".samples.json" in files):
            found.runs.append(place)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in NOT_CONTENT)
        inside = place.relative_to(folder).as_posix()
        before = "" if inside == "." else f"{inside}/"
        yield from (before + name for name in files if not name.startswith("."))


def _stat(path: str) -> os.stat_result | None:
    """The state of a file; of a link to nothing there is none, which is told when it is read."""
    try:
        return os.stat(path)  # noqa: PTH116 - of very many
    except OSError:
        return None


def _unreadable(error: OSError) -> None:
    raise Error(f"The folder {error.filename} cannot be read ({error.strerror}).") from error


@cache
def endings() -> frozenset[str]:
    """Return the endings of the names of pictures that can be read, such as ".png"."""
    for package in dict.fromkeys(PLUGINS.values()):
        try:
            plugin = import_module(_MODULES[package])
        except ImportError:
            continue
        if hasattr(plugin, "register_heif_opener"):
            plugin.register_heif_opener()
    registered = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in registered if kind in Image.OPEN and kind not in UNDECODABLE)
