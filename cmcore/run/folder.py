"""A run's folder: config.json, model.safetensors, state/, log.csv, samples/ and, for power-function averages, averages/."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cmcore._files import atomic_write, leftovers, placed
from cmcore.errors import Error
from cmcore.model import MODEL, with_todays_names
from cmcore.run.checkpoint import newest_step
from cmcore.run.config import Config
from cmcore.run.csv_file import CsvFile
from cmcore.run.plan import Plan, plan_from_json
from cmcore.run.two_runs import PHASES, teacher_first
from cmcore.workers import workers_of

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
    def by_time(self) -> Path:
        """The table of losses by time."""
        return self.path / "loss_by_time.csv"

    @property
    def board(self) -> Path:
        """What TensorBoard shows."""
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        """The page that `cmcore report` writes."""
        return self.path / "report.html"

    @property
    def samples(self) -> Path:
        """Pictures made during training."""
        return self.path / "samples"

    def picture(self, step: int) -> Path:
        """The picture of samples made after a step."""
        return self.samples / f"step-{step:08d}.png"

    @property
    def averages(self) -> Path:
        """Models with the average as it was at each save, kept if the average is a power function."""
        return self.path / "averages"

    @property
    def starting(self) -> Path:
        """There while a new run is put into the folder, and after a start that was killed."""
        return self.path / ".starting"

    @property
    def phases(self) -> Path:
        """The settings of a teacher and of the student that is here, where one command trains both; see `cmcore.run.phases`."""
        return self.path / PHASES

    def check_free(self) -> None:
        """Raise `Error` if anything is here that a new run would overwrite; a run that never took a step is not."""
        if self.path.is_symlink() and not self.path.exists():
            raise Error(f"{self.path} is a link to nothing; --out must be a new or empty folder.")
        if self.path.exists() and not self.path.is_dir():
            raise Error(f"{self.path} is a file; --out must be a new or empty folder.")
        if self.config.exists() and self.took_a_step():
            raise Error(f"{self.path} holds a run already: add --resume to go on with it, or choose another --out.")
        ours = {self.config.name, *(part.name for part in self._parts())} if self.unfinished() else set()
        if foreign := [name for name in _visible(self.path) if name not in ours]:
            raise Error(
                f"{self.path} is not empty ({foreign[0]}) and holds no run; --out must be a new or empty folder."
            )

    def unfinished(self) -> bool:
        """Whether what is here is of a run that was broken off before its first step, and may be begun anew."""
        return self.starting.exists() or (self.config.exists() and not self.took_a_step())

    def took_a_step(self) -> bool:
        """Whether the run that is here has anything to lose: a state after a step, or a configuration of unknown kind."""
        return newest_step(self.state) > 0 or not any(self.state.glob("step-*.safetensors"))

    def clear(self) -> None:
        """Remove what is here of a run that never took a step, and of two that did not begin; the folder is `check_free`."""
        if self.unfinished():
            self._remove_parts()
        self.phases.unlink(missing_ok=True)

    @contextmanager
    def created(self, config: Config, plan: Plan, versions: Mapping[str, str]) -> Iterator[RunFolder]:
        """Fill the folder, which is held, with a new run.

        config.json is written when the block ends, so that a run is there with all it needs to be resumed, or it is not there
        at all. If the block raises, what it wrote is removed.
        """
        self.check_free()
        try:
            with placed(self.starting):
                self.starting.touch()
            self._remove_parts()
            self._remove_leftovers()
            for folder in (self.state, self.samples):
                folder.mkdir()
            yield self
            self.write(config, plan, versions)
            self.starting.unlink()
        except BaseException:
            with suppress(OSError):
                self._remove_parts()
                self.starting.unlink(missing_ok=True)
            raise

    def write(self, config: Config, plan: Plan, versions: Mapping[str, str]) -> None:
        """Write config.json."""
        record = {"format": FORMAT, "settings": asdict(config), "plan": plan.to_json(), "versions": dict(versions)}
        atomic_write(self.config, (json.dumps(record, indent=2) + "\n").encode())

    def _parts(self) -> tuple[Path, ...]:
        pages = (self.path / "eval.json", self.report, self.board)
        return self.model, self.state, self.log, self.by_time, self.samples, self.averages, *pages

    def _remove_parts(self) -> None:
        # The configuration first: what is left if this is broken off is no run.
        for part in (self.config, *self._parts()):
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)

    def read(self) -> tuple[Config, Plan, dict[str, str]]:
        """Return the settings, plan and versions of the run that is here; `Error` if it is missing or unreadable."""
        if not self.config.is_file():
            if said := teacher_first(self.path):
                raise Error(said)
            raise Error(f"There is no run in {self.path} (no config.json).")
        try:
            with placed(self.config):
                record = json.loads(self.config.read_bytes())
            if not isinstance(record, dict):
                raise ValueError("it does not hold the settings of a run.")
            if record["format"] > FORMAT:
                raise ValueError(f"its format {record['format']} is newer than {FORMAT}, which this cmcore reads.")
            config = Config(
                **{"fast_jpegs": False, **record["settings"]}
            )  # before there was this setting, JPEGs were decoded whole
            return (
                replace(config, options=with_todays_names(config.recipe, config.options)),
                plan_from_json(record["plan"]),
                dict(record["versions"]),
            )
        except KeyError as missing:
            raise Error(f"{self.config} cannot be used: it lacks {missing}.") from missing
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as unfit:
            raise Error(f"{self.config} cannot be used: {unfit}") from unfit

    def clean(self) -> None:
        """Remove what an interrupted start or write left behind."""
        self._remove_leftovers()
        with suppress(OSError):
            self.starting.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        for place in (self.path, self.state, self.samples, self.averages):
            for leftover in leftovers(place):
                with suppress(OSError):
                    leftover.unlink(missing_ok=True)


def _visible(folder: Path) -> list[str]:
    """What a person sees in a folder: no hidden files, and not what each mounted disk has."""
    if not folder.is_dir():
        return []
    return sorted(
        p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name not in ("lost+found", "Thumbs.db")
    )


class Log:
    """log.csv: rows of numbers under the names of the first one; ``seconds`` of training count on across resumptions.

    Without a path the rows are only measured, not written.
    """

    def __init__(self, path: Path | None, step: int, seconds: float = 0.0) -> None:
        """Open the log, cut back to the rows up to a step."""
        self._file = CsvFile(path, step) if path else None
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
        if self._file is not None:
            self._file.add(row)
        return row


def describe_versions(backend: Any) -> dict[str, str]:
    """Return the versions, and the number of devices, that a run's exactness depends on."""
    found = {"cmcore": version("cmcore"), "backend": backend.name, backend.name: backend.version()}
    devices = workers_of(backend).devices
    return found | ({"devices": str(devices)} if devices > 1 else {})
