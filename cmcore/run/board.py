"""Events for TensorBoard: a run's numbers and pictures, from any backend, by TensorBoard's own writer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, final

from PIL.Image import Image

from cmcore.errors import Error


class Board:
    """Where numbers and pictures are shown besides the run's own files; this one shows nothing."""

    def row(self, row: Mapping[str, float], by_time: Mapping[str, float | None]) -> None:
        """A row was added to log.csv and one to loss_by_time.csv."""

    def picture(self, step: int, image: Image) -> None:
        """Samples were drawn after a step."""

    def close(self) -> None:
        """Training is over, by whatever cause."""


def opened(log: str | None, folder: Path, step: int) -> Board:
    """Return the board that a run asked for; of one that is resumed, what lies after the step is shown no more."""
    return TensorBoard(folder, step) if log else Board()


def check_installed(log: str | None) -> None:
    """Raise `Error` if a run asks for a board that is not installed."""
    if log:
        _tensorboard()


def _tensorboard() -> Any:
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as missing:
        raise Error(
            f'--log tensorboard needs the package tensorboard ({missing}): pip install "cmcore[tensorboard]".'
        ) from missing
    return EventFileWriter, event_pb2, summary_pb2


@final
class TensorBoard(Board):
    """An event file in a run's folder for each time that the run is started or resumed."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open a new event file that holds from a step on."""
        writer, self._event, self._summary = _tensorboard()
        self._writer = writer(str(folder))
        # By this TensorBoard forgets what was written after the step by the process that was broken off.
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step + 1, session_log=start))

    def row(self, row: Mapping[str, float], by_time: Mapping[str, float | None]) -> None:
        """Write the numbers."""
        named = {name: value for name, value in row.items() if name != "step"}
        named |= {f"loss_by_time/{name}": v for name, v in by_time.items() if name != "step" and v is not None}
        values = [self._summary.Summary.Value(tag=name, simple_value=value) for name, value in named.items()]
        self._add(int(row["step"]), values)

    def picture(self, step: int, image: Image) -> None:
        """Write the picture."""
        file = BytesIO()
        image.save(file, "PNG")
        shown = self._summary.Summary.Image(
            height=image.height,
            width=image.width,
            colorspace=len(image.getbands()),
            encoded_image_string=file.getvalue(),
        )
        self._add(step, [self._summary.Summary.Value(tag="samples", image=shown)])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, step: int, values: list[Any]) -> None:
        summary = self._summary.Summary(value=values)
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, summary=summary))
