"""A run's folder: config.json, model.safetensors, state/, log.csv, samples/ and, for power-function averages, averages/."""

from __future__ import annotations

import csv
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from glob import escape
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

from cmcore._files import atomic_write
from cmcore.errors import Error
from cmcore.model import MODEL
from cmcore.run.config import Config, as_typed, differing
from cmcore.run.plan import Plan, plan_from_json

try:
    import fcntl
except ModuleNotFoundError:
    fcntl = None  # type: ignore[assignment]

FORMAT = 1


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files are. The folder is made by `created`; nothing else makes or overwrites a run."""

    path: Path

    @property
    def config(self) -> Path:
        """All settings, what they amounted to, and versions."""
        return self.path / "config.json"

    @property
    def model(self) -> Path:
        """The averaged weights with their manifest."""
        return self.path / MODEL

    @property
    def state(self) -> Path:
        """What resuming needs."""
        return self.path / "state"

    @property
    def teacher(self) -> Path:
        """The run's own copy of its teacher, so that it can be resumed whatever becomes of the teacher's run."""
        return self.state / "teacher.safetensors"

    @property
    def log(self) -> Path:
        """The table of losses."""
        return self.path / "log.csv"

    @property
    def samples(self) -> Path:
        """Pictures made during training."""
        return self.path / "samples"

    @property
    def averages(self) -> Path:
        """Models with the average as it was at each save, kept if the average is a power function."""
        return self.path / "averages"

    def check_free(self) -> None:
        """Raise `Error` if anything is here that a new run would overwrite."""
        if self.config.exists():
            raise Error(f"{self.path} holds a run already: add --resume to go on with it, or choose another --out.")
        if self.path.exists() and not self.path.is_dir():
            raise Error(f"{self.path} is a file; --out must be a new folder.")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise Error(f"{self.path} is not empty and holds no run; --out must be a new folder.")

    @contextmanager
    def created(self, config: Config, plan: Plan, versions: Mapping[str, str]) -> Iterator[RunFolder]:
        """Give a folder beside this one, config.json in it, to be filled; it becomes this one when the block ends.

        So a run is there with all it needs to be resumed, or it is not there at all.
        """
        self.check_free()
        place = self.path.absolute()
        place.parent.mkdir(parents=True, exist_ok=True)
        for leftover in place.parent.glob(f".{escape(place.name)}.*.tmp"):
            shutil.rmtree(leftover)
        draft = RunFolder(place.with_name(f".{place.name}.{os.getpid()}.tmp"))
        try:
            for folder in (draft.path, draft.state, draft.samples):
                folder.mkdir()
            record = {"format": FORMAT, "settings": asdict(config), "plan": plan.to_json(), "versions": dict(versions)}
            atomic_write(draft.config, (json.dumps(record, indent=2) + "\n").encode())
            yield draft
            draft.path.replace(place)
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)

    def read(self) -> tuple[Config, Plan, dict[str, str]]:
        """Return the settings, plan and versions of the run that is here; `Error` if it is missing or unreadable."""
        if not self.config.is_file():
            raise Error(f"There is no run in {self.path} (no config.json).")
        try:
            record = json.loads(self.config.read_bytes())
            if not isinstance(record, dict):
                raise ValueError("it does not hold the settings of a run.")
            if record["format"] > FORMAT:
                raise ValueError(f"its format {record['format']} is newer than {FORMAT}, which this cmcore reads.")
            return Config(**record["settings"]), plan_from_json(record["plan"]), dict(record["versions"])
        except KeyError as missing:
            raise Error(f"{self.config} cannot be used: it lacks {missing}.") from missing
        except (ValueError, TypeError, AttributeError) as unfit:
            raise Error(f"{self.config} cannot be used: {unfit}") from unfit

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from training in the folder meanwhile; `Error` if one does. A killed holder lets go."""
        with (self.path / ".lock").open("w") as lock:
            try:
                if fcntl:  # Windows has none
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Error(f"Another process is training in {self.path}; wait until it ends, or stop it.") from None
            yield

    def clean(self) -> None:
        """Remove what an interrupted write left behind."""
        for place in (self.path, self.state, self.samples, self.averages):
            for leftover in place.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)


def check_same_settings(folder: RunFolder, config: Config) -> None:
    """Raise `Error`, naming the difference, unless a run to resume was started with these settings."""
    there, here = as_typed(folder.read()[0]), as_typed(config)
    if there == here:
        return
    named = differing(there, here)
    raise Error(
        f"The run in {folder.path} was started with other settings, and the schedules depend on all of them: {named} "
        f"Resume it as it was (--out {folder.path} --resume), or start a new run from its weights with --init."
    )


class Log:
    """log.csv: rows of numbers under the names of the first one; ``seconds`` of training count on across resumptions.

    Without a path the rows are only measured, not written.
    """

    def __init__(self, path: Path | None, step: int, seconds: float = 0.0) -> None:
        """Open the log, cut back to the rows up to a step."""
        self._path, self._names = path, _cut_back(path, step) if path else []
        self._start = time.perf_counter() - seconds
        self._last_step, self._last_seconds = step, seconds

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self._start

    def add(self, step: int, loss: float, scalars: Mapping[str, float], batch: int) -> dict[str, float]:
        """Write and return the row of a step."""
        seconds = self.seconds
        rate = (step - self._last_step) * batch / max(seconds - self._last_seconds, 1e-9)
        self._last_step, self._last_seconds = step, seconds
        row = {"step": step, "loss": loss, **scalars}
        row |= {"images_per_second": round(rate, 1), "seconds": round(seconds, 3)}
        if self._path is not None:
            self._append(self._path, row)
        return row

    def _append(self, path: Path, row: Mapping[str, float]) -> None:
        text = StringIO()
        writer = csv.DictWriter(text, self._names or list(row), lineterminator="\n")
        if not self._names:
            writer.writeheader()
            self._names = list(row)
        writer.writerow(row)
        with path.open("a", encoding="utf-8") as file:
            file.write(text.getvalue())


def _cut_back(path: Path, step: int) -> list[str]:
    """Drop the rows past a step and a half-written last line; return the names of the columns, empty without any."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    names = lines[0].strip().split(",") if lines and lines[0].endswith("\n") else []
    kept = [line for line in lines[1:] if line.endswith("\n") and _step_of(line) <= step] if names else []
    atomic_write(path, "".join(lines[: bool(names)] + kept).encode())
    return names


def _step_of(line: str) -> int | float:
    text = line.partition(",")[0]
    return int(text) if text.isdecimal() else float("inf")


def describe_versions(backend: Any) -> dict[str, str]:
    """Return the versions that a run's exactness depends on."""
    return {"cmcore": version("cmcore"), "backend": backend.name, backend.name: backend.version()}
