"""What the page asks for, read from JSON and checked; what is wrong with it is a sentence."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from cmcore._words import choice
from cmcore.errors import Error
from cmcore.run.page import EDITS, MOST_PICTURES, TASKS

MOST_STEPS = 100
"""More, and somebody else's request would wait for long."""

LARGEST_SEED = 2**53 - 1
"""The largest whole number that a browser has exactly."""


@dataclass(frozen=True)
class Request:
    """One request: ``model`` is its number; of ``seed_b`` and ``share`` interpolation makes use, of ``picture`` and ``mask``, files of
    pictures, edits; None means the default.
    """

    task: str
    model: int = 0
    seed: int = 0
    seed_b: int = 1
    share: float = 0.0
    n: int = 1
    steps: int | None = None
    times: tuple[float, ...] | None = None
    label: str | None = None
    factor: int = 2
    picture: bytes | None = None
    mask: bytes | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise Error(f"There is no task {self.task!r}; {choice(self.task, TASKS, 'the tasks are')}")
        _between("The number of the run", self.model, 0, LARGEST_SEED)
        _between("The seed", self.seed, 0, LARGEST_SEED)
        _between("The second seed", self.seed_b, 0, LARGEST_SEED)
        _between("The number of pictures", self.n, 1, MOST_PICTURES)
        _between("The factor", self.factor, 2, 64)
        if self.steps is not None:
            _between("The number of steps", self.steps, 1, MOST_STEPS)
        if self.times is not None and len(self.times) > MOST_STEPS + 1:
            raise Error(f"There can be at most {MOST_STEPS + 1} times, got {len(self.times)}.")
        if not 0 <= self.share <= 1:
            raise Error(f"The share of the second seed is from 0 to 1, got {self.share:g}.")
        if self.task in EDITS and self.picture is None:
            raise Error("An edit needs a picture: open one, or sample one first.")
        if self.task == "inpaint" and self.mask is None:
            raise Error("Inpainting needs a mask: paint over what is to be drawn anew.")


def read(content: Any) -> Request:
    """Return the request of decoded JSON; `Error` for what is none."""
    if not isinstance(content, Mapping):
        raise Error("A request is a JSON object with a task.")
    known = {f.name for f in fields(Request)}
    if unknown := [name for name in content if name not in known]:
        raise Error(f"A request has no {unknown[0]!r}; {choice(unknown[0], sorted(known), 'it can have')}")
    if "task" not in content:
        raise Error(f"A request says its task: {', '.join(TASKS)}.")
    return Request(**{name: _READ[name](name, value) for name, value in content.items() if value is not None})


def _between(what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise Error(f"{what} is from {least} to {most}, got {value}.")


def _whole(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Error(f"{name} must be a whole number, got {str(value)[:40]!r}.")
    return value


def _number(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise Error(f"{name} must be a number, got {str(value)[:40]!r}.")
    return float(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Error(f"{name} must be a text, got {str(value)[:40]!r}.")
    return value


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or not value:
        raise Error(f"{name} must be a list of numbers, got {str(value)[:40]!r}.")
    return tuple(_number(name, one) for one in value)


def _bytes(name: str, value: Any) -> bytes:
    try:
        return base64.b64decode(_text(name, value), validate=True)
    except (binascii.Error, ValueError):
        raise Error(f"{name} must be the base64 of a file.") from None


_READ: dict[str, Callable[[str, Any], Any]] = {
    "task": _text,
    "model": _whole,
    "seed": _whole,
    "seed_b": _whole,
    "share": _number,
    "n": _whole,
    "steps": _whole,
    "times": _numbers,
    "label": _text,
    "factor": _whole,
    "picture": _bytes,
    "mask": _bytes,
}
