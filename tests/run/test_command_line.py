"""What a person meets first: help that fits a screen, names that are nearly right, what a run is and what one would take."""

import ast
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TRAINABLE

import cmcore as cm
from cmcore._words import choice, nearest
from cmcore.model import load_model
from cmcore.networks.cost import parameters
from cmcore.run import cli, commands, figures, memory, overview
from cmcore.run.chosen_features import chosen
from cmcore.run.config import Config
from cmcore.run.dry_run import bytes_needed
from cmcore.run.folder import RunFolder

ROOT = Path(__file__).parents[2]
FIRST = TRAINABLE[0] if TRAINABLE else ""
SMALL = ["--steps", "4", "--batch", "8", "--width", "8", "--blocks", "1"]
SMALL += ["--no-compile"] if FIRST == "torch" else []
trains = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")


def run(*arguments):
    """The exit status of a command; argparse leaves by `SystemExit`."""
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as left:
        return left.code


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), y=np.arange(50) % 2)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, points):
    out = tmp_path_factory.mktemp("runs") / "a run"
    assert run("train", "--data", points, "--recipe", "ct", "--classes", "--backend", FIRST, "--out", out, *SMALL) == 0
    return out


def commands_of(parser):
    (sub,) = (action for action in parser._actions if hasattr(action, "choices") and isinstance(action.choices, dict))
    return sub.choices


@pytest.mark.parametrize("asked", [[], ["--help"]])
def test_help_fits_a_screen_and_has_every_command_and_what_to_type_first(asked, capsys):
    assert run(*asked) == 0
    lines = capsys.readouterr().out.splitlines()
    # The last line of a screen is the shell's.
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    listed = [
        line[8:].split()[0] for line in lines[6:] if line[8:9].islower() and not line.startswith(("What", "Exit"))
    ]
    assert sorted(listed) == sorted(commands_of(cli._parser()))
    assert len(overview.FIRST) == 3
    for command in overview.FIRST:
        assert any(command in line for line in lines)
        cli._parser().parse_args(command.split()[1:])


def test_exit_statuses_are_those_that_help_and_docs_tell(monkeypatch, capsys):
    """0, 1 and 2; that Ctrl-C is 130 is seen in a process of its own, in test_cli.py."""
    assert run("recipes") == 0
    assert run("recipes", "no such") == 2

    def fails(args):
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(commands, "list_recipes", fails)
    capsys.readouterr()
    assert run("recipes") == 1
    assert capsys.readouterr().err == "cmcore: RuntimeError: nobody foresaw this. Add --debug to see where.\n"
    page = (ROOT / "docs" / "command-line.md").read_text()
    assert sorted(overview.STATUSES) == [0, 1, 2, 130]
    for status, what in overview.STATUSES.items():
        assert f"{status} {what}" in overview.page({})
        assert f"| {status} | " in page


@pytest.mark.parametrize(
    ("name", "near"), [("EDM", "edm"), ("etc", "ect"), ("meanflo", "meanflow"), ("qqq", None), ("12", None), ("", None)]
)
def test_the_nearest_name_is_found_if_one_is_near(name, near):
    assert nearest(name, cm.recipes.names()) == near
    told = choice(name, cm.recipes.names())
    assert told.startswith(f"did you mean {near!r}? The known" if near else "the known ones are edm, cd")
    assert told.endswith(".")
    assert choice(name, []) == "there are none."


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["trian"], "'train'"),
        (["--versoin"], "--version"),
        (["train", "--otu", "x"], "--out"),
        (["train", "--data", "x", "--out", "x", "--stpes=3"], "--steps"),
        (["train", "--out", "x", "--precision", "bfloat"], "'bfloat16'"),
        (["train", "--out", "x", "--kind", "latent"], "'latents'"),
        (["train", "--out", "x", "--data", "digts", "--backend", FIRST], "'digits'"),
        (["train", "--out", "x", "--data", "{points}", "--backend", "numpi"], "'numpy'"),
        (["train", "--out", "x", "--data", "{points}", "--recipe", "etc", "--backend", FIRST], "'ect'"),
        (["train", "--out", "x", "--data", "{points}", "--set", "ema_dt=3"], "'ema_std'"),
        (["train", "--out", "x", "--data", "{points}", "--network", "unettiny"], "'unet-tiny'"),
        (["train", "--out", "x", "--data", "{points}", "--network", "mlp", "--set-network", "blok=3"], "'blocks'"),
        (["train", "--out", "x", "--data", "{points}", "--network", "unet", "--set-network", "resize=blok"], "'block'"),
        (["recipes", "meanflo"], "'meanflow'"),
        (["networks", "dit-tny"], "'dit-tiny'"),
        (["edit", "x", "--task", "inpant", "--out", "y"], "'inpaint'"),
        (["export", "x", "--to", "difusers", "y"], "'diffusers'"),
        (["import", "x", "--out", "y", "--layout", "openia"], "'openai'"),
    ],
)
@trains
def test_what_is_mistyped_is_told_the_nearest_name(arguments, meant, points, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(*(a.format(points=points) for a in arguments)) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"id you mean {meant}?" in told
    assert told.startswith("cmcore: ")
    assert not list(tmp_path.iterdir())


@trains
def test_classes_features_and_shipped_models_are_told_too(trained, tmp_path, monkeypatch):
    model = load_model(trained)
    with pytest.raises(cm.Error, match="did you mean 'pixels'"):
        chosen("pixel", None, "points", (3,), cm.load("numpy"))
    with pytest.raises(
        ValueError, match=r"There is no class 'ctas'; did you mean 'cats'\? The model's classes are cats, dogs"
    ):
        replace(model, data=replace(model.data, classes=("cats", "dogs"))).label_numbers("ctas", 1)
    monkeypatch.setattr(cm.shipped, "names", lambda: ("fashion",))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cm.Error, match=r"file 'fashoin'; did you mean 'fashion'\? Give the folder"):
        load_model("fashoin")


def test_options_that_are_values_are_not_taken_for_mistyped_ones():
    args = cli._parser().parse_args(["train", "--out", "x", "--range=-1,1", "--accum", "2", "--data", "-"])
    assert (args.range, args.accumulate) == ((-1.0, 1.0), 2)


def test_unknown_names_are_told_by_one_function():
    """No message lists known names by itself: the nearest would be missing from it."""
    of_ours = ("known ones are", "choose one of", "its options are", "its settings are")
    found = []
    for path in [*(ROOT / "cmcore").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
                if any(f"{words} {{}}" in text for words in of_ours):
                    found.append(f"{path.name}:{node.lineno} {text}")
    assert not found


@trains
def test_info_tells_what_a_run_is_and_what_to_type_next(trained, points, tmp_path, monkeypatch, capsys):
    model = load_model(trained)
    assert run("info", trained) == 0
    out = capsys.readouterr().out
    for said in (
        "ct: ",
        f"mlp, {parameters(model.architecture):,} parameters",
        f"points of 3; 2 classes (0, 1), from {points}",
        "4 of 4",
        f"{FIRST} on cpu, batches of 8, seed 0",
        f"{FIRST} {cm.load(FIRST).version()}",
        " at step 4, after ",
        f"cmcore sample '{trained}' --label CLASS --out samples.npz",
        f"To measure it: cmcore eval '{trained}'",
    ):
        assert said in out, said
    assert "To go on" not in out
    loss = float(out.split("loss ")[1].split()[0])
    assert loss == pytest.approx(float((trained / "log.csv").read_text().splitlines()[-1].split(",")[1]), rel=1e-3)

    # A run that is not over goes on; what was measured is shown.
    config = json.loads((trained / "config.json").read_text())
    config["settings"]["steps"] = 9
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.safetensors", "log.csv"):
        (other / name).write_bytes((trained / name).read_bytes())
    (other / "config.json").write_text(json.dumps(config))
    about = {"n": 30, "features": "pixels"}
    (other / "eval.json").write_text(figures.to_json([figures.Row("1 step", 1, 0.25, 0.5, 1.0)], None, about))
    assert run("info", other) == 0
    out = capsys.readouterr().out
    assert f"To go on: cmcore train --out {other} --resume" in out
    assert "Evaluated with 30 samples by pixels:" in out
    assert "0.25" in out
    assert "To measure it" not in out
    (other / "eval.json").write_text("{")
    assert run("info", other) == 0
    assert "make it again with cmcore eval" in capsys.readouterr().out

    # A file, and a model that comes with the package.
    assert run("info", trained / "model.safetensors") == 0
    assert "cmcore train --init" in capsys.readouterr().out
    monkeypatch.setattr(cm.shipped, "names", lambda: ("fashion",))
    monkeypatch.setattr(cm.shipped, "path", lambda name: trained / "model.safetensors")
    assert run("info", "fashion") == 0
    assert "cmcore sample fashion --label CLASS" in capsys.readouterr().out


def everything(*places):
    return {path: path.stat().st_mtime_ns for place in places for path in sorted(place.rglob("*"))}


@trains
def test_a_dry_run_tells_the_plan_and_writes_nothing(points, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setenv("HOME", str(home))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    from PIL import Image

    for i in range(4):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(pictures / f"{i}.png")
    before = everything(tmp_path)
    out = tmp_path / "run"
    typed = ["train", "--data", pictures, "--recipe", "ict", "--backend", FIRST, "--out", out, "--size", "8", *SMALL]
    assert run(*typed, "--dry-run") == 0
    told = capsys.readouterr().out
    assert everything(tmp_path) == before
    net = cm.networks.ResidualMLP((1, 8, 8), width=8, blocks=1)
    for said in (
        "4 images of 1 x 8 x 8",
        "ict: ",
        f"mlp, {parameters(net):,} parameters",
        "4 of 8 samples",
        f"{FIRST} on cpu",
        "by an estimate",
        "optimiser (two moments)",
        "averages",
        "activations",
        "steps taken here",
        "without --dry-run",
    ):
        assert said in told, said
    # What cannot be trained is told as without it, and a run is not gone on with.
    assert run(*typed, "--dry-run", "--recipe", "cd") == 2
    assert run("train", "--out", out, "--resume", "--dry-run") == 2
    assert not out.exists()
    # A network that the machine has no memory for is not tried.
    monkeypatch.setattr(memory, "of_machine", lambda: 1000)
    if cm.load(FIRST).devices() == ("cpu",):
        capsys.readouterr()
        assert run(*typed, "--dry-run") == 0
        assert "not measured" in capsys.readouterr().out


@trains
def test_memory_counts_what_a_trainer_holds(trained):
    """Against the arrays that a trainer has: weights, averages, two moments."""
    plan = RunFolder(trained).read()[1]
    needed = bytes_needed(plan, Config(batch=8))
    backend = cm.load(FIRST)
    trainer = cm.Trainer(
        backend, backend.network(plan.architecture, seed=0), plan.recipe.train_spec(seed=0, compiled=False)
    )
    scalars = plan.recipe.scalars(0, 4)
    x, label = np.zeros((8, 3), np.float32), np.zeros(8, np.int32)
    trainer.step(0, backend.asarray(x), scalars, {"label": backend.asarray(label)})
    held = {}
    for name, array in trainer.state().items():
        held[name.partition("/")[0]] = held.get(name.partition("/")[0], 0) + array.nbytes
    assert needed["weights"] == held["online"]
    assert needed["averages"] == held["ema"] + held.get("target", 0)
    assert needed["optimiser (two moments)"] == pytest.approx(held["optimizer"], rel=0.02)
    parts = bytes_needed(plan, Config(batch=8, accumulate=4, precision="bfloat16"))
    assert parts["activations"] * 8 == needed["activations"]


def completed(line):
    """What bash is offered for a line, in a process of its own, as argcomplete's function asks for it."""
    pytest.importorskip("argcomplete")
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "IFS": "\013"}
    code = "import os, sys; from cmcore.__main__ import main; sys.exit(main())"
    with tempfile.TemporaryDirectory() as folder:
        # In place of descriptor 8, which the shell's function reads.
        found = Path(folder) / "found"
        environment = {**os.environ, **asked, "_ARGCOMPLETE_STDOUT_FILENAME": str(found)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
        return done.returncode, [word.strip() for word in found.read_text().split("\013")]


def test_a_shell_is_offered_commands_options_and_names():
    assert completed("cmcore trai") == (0, ["train"])
    assert completed("cmcore train --recipe ict --set ema_s")[1] == ["ema_std="]
    assert completed("cmcore networks dit-t")[1] == ["dit-tiny"]
