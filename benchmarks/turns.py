"""Timing of ways to do the same thing, which take turns in one process, so that all of them meet the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles


def take_turns(ways: Mapping[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return the time of a call of each way, a number for each round, in seconds.

    A way's turn is so many calls as last about that long, at least one; the order is reversed from round to round. Each way is
    called twice before, which is not counted.
    """
    calls = {}
    for name, way in ways.items():
        way()
        start = time.perf_counter()
        way()
        calls[name] = max(1, round(seconds / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            start = time.perf_counter()
            for _ in range(calls[name]):
                ways[name]()
            times[name].append((time.perf_counter() - start) / calls[name])
    return times


def table(times: Mapping[str, list[float]], images: int, first: str) -> list[str]:
    """Return a row for each way: images a second, and how many times as fast as the ``first`` it is, with quartiles over rounds."""
    rows = []
    for name, found in times.items():
        ratios = [a / b for a, b in zip(times[first], found, strict=True)]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        rows.append(f"| {name} | {images / median(found):,.1f} | {median(ratios):.2f} ({low:.2f} - {high:.2f}) |")
    return rows
