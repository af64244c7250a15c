"""What ``cmcore --help`` says: all commands in groups on one screen of 24 lines of 80, three first ones to type, exit statuses."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS = {
    "Train": ("train", "average", "import", "demo"),
    "Use": ("sample", "edit", "play", "export"),
    "Judge": ("info", "eval", "report", "classifier"),
    "Choose": ("recipes", "networks", "backends"),
}
"""The commands by what they are for."""

FIRST = {
    "cmcore demo": "see how it works, on digits",
    "cmcore train --data photos/ --out runs/one": "of your own pictures",
    "cmcore sample runs/one --out new.png": "new ones, from nothing",
}
"""What to type first, and what comes of it."""

STATUSES = {0: "done", 1: "a fault of cmcore", 2: "yours to mend", 130: "stopped by Ctrl-C"}
"""The exit statuses, and what each means."""


def page(commands: Mapping[str, str]) -> str:
    """Return the page for these commands with a line each; those in no group, such as a new one's, come last."""
    known = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "More": tuple(name for name in commands if name not in known)}
    width = max(map(len, FIRST)) + 3
    lines = ["cmcore: consistency models, from images to a generator of one or two evaluations", ""]
    lines += _group("First", [f"{command:{width}}{what}" for command, what in FIRST.items()])
    lines += [""]
    for title, names in groups.items():
        lines += _group(title, [f"{name:12}{commands[name]}" for name in names if name in commands])
    statuses = ", ".join(f"{status} {what}" for status, what in STATUSES.items())
    lines += ["What a command takes: cmcore COMMAND --help. The version: cmcore --version.", f"Exit: {statuses}."]
    return "\n".join(lines) + "\n"


def _group(title: str, lines: list[str]) -> list[str]:
    return [f"{title if not i else '':8}{line}" for i, line in enumerate(lines)]
