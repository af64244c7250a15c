"""Line plots and points as inline SVG, whose colours are the page's."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 10, 34
POINTS = 300
"""How many points a line has at most; of more, neighbours are averaged."""


@dataclass(frozen=True)
class Series:
    """A line's name and values, NaN where there are none.

    ``tone`` is the page's name of its colour: "s0", "s1", "faint" for what lies behind another, or "r0" to "r7" for an order.
    """

    name: str
    y: np.ndarray
    tone: str = "s0"
    dots: bool = False
    dashed: bool = False


def plot(title: str, about: str, x: np.ndarray, series: Sequence[Series], label: str, log_y: bool = False) -> str:
    """Return a figure of lines over the same x; ``about`` is what it shows, in words. Empty without a value to show."""
    shown = np.concatenate([s.y for s in series])
    shown = shown[np.isfinite(shown)]
    if not len(shown) or not len(x):
        return ""
    log_y = log_y and bool(shown.min() > 0) and shown.max() > 3 * shown.min()
    across, up = _Axis(x, LEFT, WIDTH - RIGHT), _Axis(shown, HEIGHT - BOTTOM, TOP, log_y)
    parts = [_grid(across, up, label)]
    for s in series:
        dash = " dashed" if s.dashed else ""
        parts += [f'<path class="line {s.tone}{dash}" d="{d}"/>' for d in _paths(across(x), up(s.y))]
        if s.dots:
            parts += [
                f'<circle class="dot {s.tone}" cx="{a:.1f}" cy="{b:.1f}" r="4"/>'
                for a, b in zip(across(x), up(s.y), strict=True)
                if math.isfinite(b)
            ]
    named = [s for s in series if s.tone != "faint"]
    told = {"x": x.tolist(), "px": across(x).round(1).tolist(), "label": label}
    told["series"] = [
        {"name": s.name, "y": [float(f"{v:.4g}") if math.isfinite(v) else None for v in s.y]} for s in named
    ]
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about)}">{"".join(parts)}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg>'
    )
    return (
        f'<figure class="plot"><figcaption><h3>{escape(title)}</h3><output aria-hidden="true"></output></figcaption>{svg}'
        f'{_legend(named) if len(named) > 1 else ""}<script type="application/json">{safe_json(told)}</script></figure>'
    )


def thinned(x: np.ndarray, *columns: np.ndarray) -> list[np.ndarray]:
    """Return x and columns over it with at most `POINTS` values, means of neighbours."""
    parts = np.array_split(np.arange(len(x)), min(POINTS, max(1, len(x))))
    return [np.array([_mean(column[p]) for p in parts]) for column in (x, *columns)]


def smoothed(y: np.ndarray) -> np.ndarray:
    """Return y averaged over neighbours, a fiftieth of all to either side."""
    reach = len(y) // 50
    return np.array([_mean(y[max(0, i - reach) : i + reach + 1]) for i in range(len(y))])


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


class _Axis:
    """From values to pixels, and the round values that are named."""

    def __init__(self, values: np.ndarray, start: float, end: float, log: bool = False) -> None:
        self._start, self._end, self._log = start, end, log
        low, high = float(np.min(values)), float(np.max(values))
        if log:
            self._low, self._high = math.log10(low), math.log10(high)
            decades = range(math.floor(self._low), math.ceil(self._high) + 1)
            steps = (1,) if self._high - self._low > 4 else (1, 3) if self._high - self._low > 1.2 else (1, 2, 5)
            self.ticks = [m * 10.0**d for d in decades for m in steps if low * 0.999 <= m * 10.0**d <= high * 1.001]
            pad = 0.04 * (self._high - self._low)
            self._low, self._high = self._low - pad, self._high + pad
            return
        if low == high:
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        step = _round_step((high - low) / 5)
        self.ticks = [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
        pad = 0.04 * (high - low) if end < start else 0.0
        self._low, self._high = low - pad, high + pad

    def __call__(self, values: np.ndarray) -> np.ndarray:
        v = np.asarray(values, np.float64)
        v = np.log10(v, where=v > 0, out=np.full_like(v, math.nan)) if self._log else v
        return self._start + (v - self._low) / (self._high - self._low) * (self._end - self._start)


def _round_step(step: float) -> float:
    size = 10.0 ** math.floor(math.log10(step))
    return size * next(m for m in (1, 2, 5, 10) if m * size >= step * 0.999)


def _grid(across: _Axis, up: _Axis, label: str) -> str:
    bottom = HEIGHT - BOTTOM
    lines = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{_said(t)}</text>'
        for t in up.ticks
        for y in [float(up(np.array(t)))]
    ]
    lines += [
        f'<text class="tick" text-anchor="{"end" if x > WIDTH - RIGHT - 20 else "middle"}" x="{x:.1f}" y="{bottom + 17}">{_said(t)}</text>'
        for t in across.ticks
        for x in [float(across(np.array(t)))]
    ]
    axis = f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
    name = f'<text class="tick" text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}">{escape(label)}</text>'
    return "".join([*lines, axis, name])


def _said(value: float) -> str:
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.10g}"


def _paths(x: np.ndarray, y: np.ndarray) -> list[str]:
    """The pieces of a line between values that are missing."""
    pieces: list[list[str]] = [[]]
    for a, b in zip(x, y, strict=True):
        if math.isfinite(b):
            pieces[-1].append(f"{a:.1f} {b:.1f}")
        elif pieces[-1]:
            pieces.append([])
    return ["M" + "L".join(piece) for piece in pieces if len(piece) > 1]


def _legend(series: Sequence[Series]) -> str:
    keys = (f'<li><i class="key {s.tone}"></i>{escape(s.name)}</li>' for s in series)
    return f'<ul class="legend">{"".join(keys)}</ul>'


def safe_json(data: object) -> str:
    """JSON that no HTML parser takes for a tag."""
    return json.dumps(data).replace("<", "\\u003c")
