"""Saves by the clock, beside those by the number of steps: a slow run must not lose hours."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST = 60.0
"""Seconds until the first save, which shows that saving works while somebody still looks."""


class SaveTimer:
    """Tells when a save is due: first after a minute, then every so many minutes; a clock that is set back changes nothing."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = 60 * minutes, clock
        self._due = clock() + min(FIRST, self._every)

    def due(self) -> bool:
        """Tell whether the time has come."""
        return self._clock() >= self._due

    def restart(self) -> None:
        """Count from now, for something has been saved."""
        self._due = self._clock() + self._every
