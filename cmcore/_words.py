"""How names and counts are written into sentences."""

from __future__ import annotations

import os
from shlex import quote


def printable(text: str) -> str:
    """Return a text with what would break a line or cannot be printed, as names of files may hold it, written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(path: object) -> str:
    """Return a path as it is typed in a shell; where it cannot be typed as it is, in the form ``$'a\\nb'``."""
    text = str(path)
    if text.isprintable():
        return quote(text)
    escaped = (chr(b) if 0x20 <= b < 0x7F and b not in b"\\'" else f"\\{b:03o}" for b in os.fsencode(text))
    return f"$'{''.join(escaped)}'"


def counted(n: int, one: str, many: str = "") -> str:
    """Return a number of things in words: "1 class", "1,000 classes"; without ``many`` they end in s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
