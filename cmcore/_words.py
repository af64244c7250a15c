"""How names and counts are written into sentences."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
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


def nearest(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that is most like one that was given, capitals aside, or None if none is; numbers are like no other."""
    if not any(c.isalpha() for c in str(name)):
        return None
    text, lower = str(name).lower(), {one.lower(): one for one in known}
    found = get_close_matches(text, lower)
    # The same letters in another order are the likelier slip.
    swapped = [one for one in found if sorted(one) == sorted(text)]
    return lower[[*swapped, *found][0]] if found else None


def meant(name: object, known: Iterable[str], then: str) -> str:
    """Return how a sentence on an unknown name ends, after its semicolon: with the nearest known one, if any, and ``then``."""
    near = nearest(name, known)
    return f"did you mean {near!r}? {then[:1].upper()}{then[1:]}" if near else then


def choice(name: object, known: Iterable[str], lead: str = "the known ones are", more: str = "") -> str:
    """Return the same, with all known names after ``lead``, such as "choose one of", and ``more`` after them."""
    names = list(known)
    return meant(name, names, f"{lead} {', '.join(names)}{more}." if names else "there are none.")
