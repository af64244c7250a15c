"""What a framework raises while it computes, as a sentence."""

from __future__ import annotations

_OUT_OF_MEMORY = (
    "out of memory",
    "out_of_memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "failed to allocate",
    "alloc_failed",
    "resource_exhausted",
    "array is too big",
    "maximum allowed dimension exceeded",
    "std::bad_alloc",
)
"""Words of memory that is too small, in whatever framework, driver or library."""


def out_of_memory(failure: BaseException) -> bool:
    """Tell whether something failed for want of memory, here or in what caused it."""
    text = str(failure).lower()
    if isinstance(failure, MemoryError) or any(words in text for words in _OUT_OF_MEMORY):
        return True
    return failure.__cause__ is not None and out_of_memory(failure.__cause__)


def unexpected(failure: BaseException) -> str:
    """Return what nobody foresaw as a sentence: its kind and the first line that says something."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    said = f": {lines[0].rstrip('.')}" if lines else ""
    return f"{type(failure).__name__}{said}. Add --debug to see where."
