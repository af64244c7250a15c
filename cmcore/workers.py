"""The processes that train together, each with its own part of every batch, and what they have to agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmcore._words import counted
from cmcore.errors import Error


@dataclass(frozen=True)
class Workers:
    """How one process sees those that train together; by default it is alone, with one device.

    ``rank`` is this process's number of ``count``, ``devices`` how many devices all of them have together. What is written is
    written by the process of rank 0. ``sharded``: the state of a train step is spread over the processes, so that all of them have to
    ask for it together. A backend whose processes talk to each other derives a class of its own.
    """

    rank: int = 0
    count: int = 1
    devices: int = 1
    sharded: bool = False

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def check(self, batch: int, parts: int = 1) -> None:
        """Raise `Error` unless each part of a batch can be divided equally over the devices."""
        if batch % (self.devices * parts):
            pieces = self.devices * parts
            raise Error(
                f"A batch of {batch:,} cannot be divided over {counted(self.devices, 'device')}"
                + (f" in {parts} parts" if parts > 1 else "")
                + f": --batch must be a multiple of {pieces}, such as {max(1, round(batch / pieces)) * pieces:,}."
            )

    def rows(self, batch: int, parts: int = 1) -> np.ndarray:
        """Return which samples of a batch are this process's, (batch / count,) int64: an equal run of each of its parts."""
        part, own = batch // parts, batch // parts // self.count
        return (np.arange(parts)[:, None] * part + self.rank * own + np.arange(own)).reshape(-1)

    def agreed(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each number over all processes, which is waited for: every process has to ask."""
        return list(values)

    def lost(self, failure: BaseException) -> bool:
        """Tell whether something failed because another process is not there any more."""
        return False


ALONE = Workers()
"""One process with one device."""


def workers_of(backend: Any) -> Workers:
    """Return the processes that train together by a backend: it is alone unless it says otherwise."""
    found: Workers = getattr(backend, "workers", ALONE)
    return found
