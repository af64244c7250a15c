"""A reader of the pages: what lies in their folder, and how what they type is done in no time."""

import importlib.util
import re
import shlex
import tomllib

import numpy as np
from pages import ROOT
from PIL import Image

import cmcore as cm
from cmcore.interchange import export_model
from cmcore.model import DataFacts, Model
from cmcore.networks import ResidualMLP
from cmcore.run import cli

QUICK = {
    "train": "--steps 2 --batch 4 --width 8 --blocks 1",
    "sample": "--n 4",
    "eval": "--n 12",
    "classifier": "--epochs 1",
    "demo": "--steps 2 --small",
}
"""What is typed after a command, for the last of an option's values counts."""

SPEC = importlib.util.spec_from_file_location("small", ROOT / "tests" / "interchange" / "small.py")
small = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(small)

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS, GROUPS = PYPROJECT["project"]["optional-dependencies"], PYPROJECT["dependency-groups"]


def furnish(folder):
    """Put into a folder what a reader has before reading: pictures, points, a run and other people's checkpoints."""
    rng = np.random.default_rng(0)

    def picture(size=(8, 10), channels=3):
        x = rng.integers(0, 256, (*size, channels), np.uint8)
        return Image.fromarray(x if channels > 1 else x[..., 0])

    for kind in ("", "cats", "dogs"):
        place = folder / ("labelled" if kind else "photos") / kind
        place.mkdir(parents=True)
        for i in range(24):
            picture().save(place / f"{i}.png")
    for name in ("a", "b", "painted", "noisy"):
        picture().save(folder / f"{name}.png")
    picture((2, 2)).save(folder / "small.png")
    picture(channels=1).save(folder / "grey.png")
    mask = np.zeros((8, 10), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save(folder / "m.png")
    np.save(folder / "points.npy", rng.standard_normal((64, 2)).astype(np.float32))
    np.savez(folder / "cifar10.npz", x=rng.integers(0, 256, (16, 8, 8, 3), np.uint8))
    network = ResidualMLP((3, 8, 8), width=8, blocks=1)
    model = Model(cm.recipes.get("cd"), network, network.init(0), DataFacts("toy", (3, 8, 8), True))
    model.save(folder / "RUN")
    export_model(small.MODELS["openai"](), "openai", folder / "cd_imagenet64_l2.pt")
    export_model(small.MODELS["diffusers-epsilon"](), "diffusers", folder / "ddpm-cifar10-32")


def cmcore(arguments):
    """Run the program with what makes it quick; its answer must be 0."""
    command = next((word for word in arguments if word in QUICK), "")
    quick = [] if "--resume" in arguments else shlex.split(QUICK.get(command, ""))
    if "--network" in arguments:
        # A network by name has its own settings, which the page makes small by a comment.
        quick = quick[:4]
    assert cli.main([*arguments, *quick]) == 0, shlex.join(arguments)


def python(arguments):
    """Run a line of Python; a file is one of the examples or benchmarks, which have tests of their own."""
    if arguments[0] == "-c":
        exec(arguments[1], {})
    else:
        assert (ROOT / arguments[0]).is_file(), arguments[0]


def pip(arguments):
    """See that what is to be installed is here by that name."""
    assert arguments[0] == "install"
    for word in arguments[1:]:
        if found := re.fullmatch(r"(?:\.|cmcore)\[(.+)\]", word):
            assert set(found[1].split(",")) <= set(EXTRAS), word
        elif arguments[arguments.index(word) - 1] == "--group":
            assert word in GROUPS, word
        elif word.endswith(".txt"):
            assert (ROOT / word).is_file(), word


def tox(arguments):
    """See that there are such environments."""
    text = (ROOT / "tox.ini").read_text()
    known = re.split(r",\s*", re.search(r"env_list = (.*)", text)[1]) + re.findall(r"\[testenv:(\w+)\]", text)
    if arguments:
        assert set(arguments[arguments.index("-e") + 1].split(",")) <= set(known), arguments


def pytest(arguments):
    """See that the tests are there."""
    for word in arguments:
        assert word.startswith("-") or word.isdecimal() or (ROOT / word).exists(), word


def tool(arguments):
    """Nothing to be seen: the tool is of the group dev, and what it does is tested as such."""


PROGRAMS = {
    "cmcore": cmcore,
    "python": python,
    "pip": pip,
    "tox": tox,
    "pytest": pytest,
    "mkdocs": tool,
    "pre-commit": tool,
}


def typed(line):
    """Do what a reader does who types a line in a shell."""
    words = shlex.split(line, comments=True)
    variables = [word for word in words if re.fullmatch(r"[A-Z_]+=.*", word)]
    program, *arguments = words[len(variables) :]
    PROGRAMS[program](arguments)
