"""README's way from nothing to a picture, typed as it stands there; only the training is cut short, of a small network."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from conftest import TRAINABLE
from PIL import Image

import cmcore as cm
from cmcore.run import cli

ROOT = Path(__file__).parents[2]


def first_picture():
    """The lines of the console under "From nothing to a picture"."""
    after = (ROOT / "README.md").read_text().partition("From nothing to a picture")[2]
    console = re.search(r"```console\n(.*?)```", after, re.DOTALL)
    return [line.removeprefix("$ ") for line in console[1].strip().splitlines()]


def test_it_takes_few_lines_and_extras_that_are_there():
    lines = first_picture()
    assert 3 <= len(lines) <= 6
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    *pip, place = shlex.split(lines[0])
    assert pip == ["pip", "install", "-c", "constraints.txt"]
    assert (ROOT / pip[3]).is_file()
    asked = re.fullmatch(r"\.\[(.+)\]", place)[1].split(",")
    for name in ("torch", "jax", "tinygrad"):
        assert {name if one == "torch" else one for one in asked} <= set(extras)


@pytest.mark.parametrize("name", TRAINABLE)
def test_from_nothing_to_a_picture(name, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    _, *commands, last = first_picture()
    for line in commands:
        program, *arguments = shlex.split(re.sub(r"\btorch\b", name, line))
        arguments[arguments.index("--steps") + 1] = "2"
        assert (program, cli.main([*arguments, "--width", "8", "--blocks", "1", "--batch", "8"])) == ("cmcore", 0)
    python, option, code = shlex.split(last)
    assert (python, option) == ("python", "-c")
    with cm.using(name):
        exec(code, {})
    picture = Image.open(tmp_path / "digit.png")
    assert (picture.size, picture.mode) == ((8, 8), "L")
    assert picture.getextrema()[0] < picture.getextrema()[1]
