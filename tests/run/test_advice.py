"""Advice that can be followed: what any message tells to type is there to be typed."""

import argparse
import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

import cmcore as cm
from cmcore.interchange import OPTIONS as OF_IMPORTS
from cmcore.run import cli

ROOT = Path(cm.__file__).parent.parent
SOURCES = [*(ROOT / "cmcore").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]


def texts():
    """All strings of the sources that are no docstrings, f-strings with {} for what they insert."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        inside = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in ast.walk(node)
            if part is not node
        }
        for node in ast.walk(tree):
            if id(node) in docstrings or id(node) in inside:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield f"{path.name}:{node.lineno}", node.value
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
                yield f"{path.name}:{node.lineno}", "".join(parts)


def parsers():
    (sub,) = (a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return sub.choices


MESSAGES = list(texts())
OPTIONS = {
    option
    for parser in (cli._parser(), *parsers().values())
    for action in parser._actions
    for option in action.option_strings
}
SETTINGS = {name for recipe in cm.recipes.names() for name in cm.recipes.by_name(cm.recipes.get(recipe))} | {
    *OF_IMPORTS
}


def test_there_are_messages():
    assert len(MESSAGES) > 300


def test_options_that_are_named_can_be_typed():
    # pip's, tox's and torchrun's own are theirs.
    named = {(place, o) for place, text in MESSAGES for o in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text)}
    assert {o for _, o in named} > {"--resume", "--batch", "--range", "--kind", "--skip-broken", "--classes"}
    wrong = sorted(
        (place, o)
        for place, o in named
        if o not in {*OPTIONS, "--nproc-per-node"} and not place.startswith("devices.py")
    )
    assert not wrong


def test_settings_that_are_named_can_be_set():
    named = {(place, key) for place, text in MESSAGES for key in re.findall(r"--set ([a-z_]+)=", text)}
    assert len(named) >= 3
    assert not [(place, key) for place, key in named if key not in SETTINGS]


def test_commands_that_are_named_are_there():
    named = {
        (place, c) for place, text in MESSAGES for c in re.findall(r"\bcmcore (train|sample|eval|[a-z]+) [{-]", text)
    }
    assert len(named) >= 3
    assert not [(place, c) for place, c in named if c not in parsers()]


@pytest.mark.parametrize("command", ["train", "sample", "eval", "average", "demo", "info"])
def test_each_option_is_explained(command):
    for action in parsers()[command]._actions:
        assert action.help, action.option_strings


def test_every_setting_of_a_run_can_be_typed():
    typed = {action.dest for action in parsers()["train"]._actions} | {"options", "network_settings"}
    from cmcore.run.config import Config

    assert {field.name for field in fields(Config)} <= typed
