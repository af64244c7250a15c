"""Timing of ways to do the same thing, which take turns in one process, so that all of them meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any


def take_turns(
    ways: Mapping[str, Callable[[], Any]], rounds: int, seconds: float, wait: Callable[[Any], object] = lambda out: None
) -> dict[str, list[float]]:
    """Return the time of a call of each way, a number for each round, in seconds.

    A way's turn is so many calls as last about that long, at least one; the order is reversed from round to round. Each way is
    called twice before, which is not counted. ``wait`` is given what the last call of a turn returned, and waits for the device.
    """

    def turn(name: str, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            out = ways[name]()
        wait(out)
        return (time.perf_counter() - start) / calls

    calls = {}
    for name in ways:
        turn(name, 1)
        calls[name] = max(1, round(seconds / turn(name, 1)))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            times[name].append(turn(name, calls[name]))
    return times


def table(times: Mapping[str, list[float]], images: int, first: str) -> list[str]:
    """Return a row for each way: images a second, and how many times as fast as the ``first`` it is, with quartiles over rounds."""
    rows = []
    for name, found in times.items():
        ratios = [a / b for a, b in zip(times[first], found, strict=True)]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        rows.append(f"| {name} | {images / median(found):,.1f} | {median(ratios):.2f} ({low:.2f} - {high:.2f}) |")
    return rows
