"""What a shell completes: commands and options, and the names that these take; by argcomplete, an extra: ``pip install "cmcore[completion]"``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from typing import Any

from cmcore import backend, networks, recipes, shipped
from cmcore.run.data.load import NAMED
from cmcore.run.defaults import UNASKED
from cmcore.run.edit import TASKS
from cmcore.run.network_settings import choices, of_name, settings_of


def offer(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may follow, and end the process; where no shell asks, do nothing."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    for sub in (a for a in parser._actions if isinstance(a, argparse._SubParsersAction)):
        for name, command in sub.choices.items():
            for action in command._actions:
                _tell(name, action, argcomplete.completers.FilesCompleter())
    argcomplete.autocomplete(parser)


def _tell(command: str, action: Any, files: Callable[..., Iterable[str]]) -> None:
    """Give an option or argument the names that it takes; files are offered by default."""
    by_option = {
        ("recipes", "name"): lambda **_: recipes.names(),
        ("networks", "name"): lambda **_: choices(),
        ("train", "recipe"): lambda **_: recipes.names(),
        ("train", "network"): lambda **_: choices(),
        ("train", "set"): _options,
        ("train", "set_network"): _settings,
        ("edit", "task"): lambda **_: TASKS,
    }
    by_name = {
        "backend": lambda **_: backend.names(),
        "run": lambda **asked: [*shipped.names(), *files(**asked)],
        "data": lambda **asked: [*NAMED, *files(**asked)],
    }
    if found := by_option.get((command, action.dest)) or by_name.get(action.dest):
        action.completer = found


def _options(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    recipe = getattr(parsed_args, "recipe", None)
    names = UNASKED if recipe is None else (recipe,) if recipe in recipes.names() else ()
    return sorted({f"{option}=" for name in names for option in recipes.by_name(recipes.get(name))})


def _settings(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    network = getattr(parsed_args, "network", None)
    names = [network] if network in choices() else networks.names()
    return sorted({f"{setting}=" for name in names for setting in settings_of(of_name(name))})
