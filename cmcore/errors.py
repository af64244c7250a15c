"""The one exception of our own: something is wrong with the user's set-up or files, and the message says what to do."""

from __future__ import annotations

import errno

from cmcore._words import printable


class Error(Exception):
    """A problem the user can mend, told in a sentence: a missing framework, an unreadable checkpoint, a bad data folder."""


_ADVICE = {
    "ENOSPC": "Free some space there",
    "EDQUOT": "Free some of your quota there",
    "EROFS": "Choose a place that can be written to",
    "EACCES": "Change its permissions, or choose another place",
    "EPERM": "Change its permissions, or choose another place",
    "EMFILE": "Allow more open files (ulimit -n)",
}


def sentence(problem: BaseException) -> str:
    """Return what is wrong as a sentence; of an operating system's error, with the place and what to do."""
    if isinstance(problem, OSError) and problem.strerror:
        where = f": {problem.filename}" if problem.filename else ""
        advice = _ADVICE.get(errno.errorcode.get(problem.errno or 0, ""))
        return printable(f"{problem.strerror}{where}." + (f" {advice}." if advice else ""))
    text = printable(" ".join(str(problem).split())) or type(problem).__name__
    # A command at the end is to be copied as it is.
    command = ". " not in text.rpartition(": cmcore ")[2] and ": cmcore " in text
    return text if command or text.endswith((".", "!", "?")) else text + "."
