import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import TRAINABLE
from PIL import Image

import cmcore as cm
from cmcore.model import load_model
from cmcore.run import cli
from cmcore.run.data import load
from cmcore.run.folder import RunFolder

pytestmark = [
    pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part"),
    pytest.mark.usefixtures("as_we_found_it"),
]
FIRST = TRAINABLE[0] if TRAINABLE else ""
SMALL = ["--steps", "4", "--batch", "8", "--width", "8", "--blocks", "1"]
# torch.compile takes longer than these runs.
SMALL += ["--no-compile"] if FIRST == "torch" else []


def run(*arguments):
    """The exit status of a command; argparse leaves by `SystemExit`."""
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as left:
        return left.code


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of mixed sizes and modes, in two folders."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i, (mode, size) in enumerate([("RGB", (20, 30)), ("L", (16, 16)), ("RGBA", (40, 17)), ("P", (18, 18))] * 2):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).convert(mode).save(root / "ab"[i % 2] / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory, points):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run("train", "--data", points, "--recipe", "ct", "--backend", FIRST, "--out", out, *SMALL) == 0
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory, folder):
    out = tmp_path_factory.mktemp("runs") / "images"
    extra = ["--size", "8", "--classes", "--set", "lr=1e-3", "--seed", "3"]
    assert run("train", "--data", folder, "--recipe", "edm", "--backend", FIRST, "--out", out, *SMALL, *extra) == 0
    return out


def test_training_remembers_what_was_typed(images, folder):
    config, plan, _ = RunFolder(images).read()
    assert (config.data, config.size, config.seed, config.steps) == (str(folder), 8, 3, 4)
    assert plan.recipe.optimizer.lr == 1e-3
    assert plan.data.shape == (3, 8, 8)
    assert load_model(images).data.classes == ("a", "b")
    assert any((images / "samples").iterdir())


def test_samples_go_where_they_are_asked_for(images, tmp_path, capsys):
    base = ["sample", images, "--n", "5", "--backend", "numpy"]
    assert run(*base, "--out", tmp_path / "grid.png") == 0
    assert run(*base, "--out", tmp_path / "samples.npz", "--label", "b") == 0
    assert run(*base, "--out", tmp_path / "folder", "--label", "1") == 0
    assert run(*base, "--out", tmp_path / "new" / "again.npz", "--label", "b", "--batch", "2") == 0
    assert Image.open(tmp_path / "grid.png").width > 16
    a, b = (np.load(tmp_path / name)["x"] for name in ("samples.npz", "new/again.npz"))
    assert a.shape == (5, 3, 8, 8)
    assert np.abs(a - b).max() <= 1e-6
    assert sorted(p.name for p in (tmp_path / "folder").glob("[!.]*")) == [f"{i:06d}.png" for i in range(5)]
    # The same picture must not be written over.
    before = (tmp_path / "grid.png").read_bytes()
    assert run(*base, "--out", tmp_path / "grid.png", "--seed", "1") == 2
    assert run(*base, "--out", tmp_path / "folder") == 2
    assert (tmp_path / "grid.png").read_bytes() == before
    assert "not overwritten" in capsys.readouterr().err


def test_evaluation_prints_a_table(trained, images, points, capsys):
    assert run("eval", trained, "--n", "20", "--backend", "numpy") == 0
    out = capsys.readouterr().out
    assert "1 step " in out
    assert "2 steps" in out
    assert run("eval", images / "model.safetensors", "--n", "4", "--steps", "2", "--backend", "numpy") == 2
    assert "--data" in capsys.readouterr().err
    assert run("eval", trained / "model.safetensors", "--n", "20", "--data", points, "--backend", "numpy") == 0


def test_a_search_prints_times_that_sampling_takes(trained, tmp_path, capsys):
    assert run("eval", trained, "--search", "2", "--steps", "1", "--n", "20", "--backend", "numpy") == 0
    first, _, *rows = capsys.readouterr().out.splitlines()
    times = re.fullmatch(r"Best times for 2 steps: (80 [\d.]+) \(Frechet distance to .* [\d.]+\)", first)[1]
    assert [row.split("  ")[0] for row in rows if row[:1].isdigit()] == ["1 step", f"80 {float(times.split()[1]):.3g}"]
    out = tmp_path / "x.npz"
    assert run("sample", trained, "--n", "2", "--times", *times.split(), "--backend", "numpy", "--out", out) == 0
    assert run("eval", trained, "--search", "0", "--n", "20", "--backend", "numpy") == 2
    assert "at least one step" in capsys.readouterr().err


def test_resuming_takes_everything_from_the_folder(trained, tmp_path, points, capsys):
    assert run("train", "--out", trained, "--resume") == 2
    assert "is finished" in capsys.readouterr().err
    assert run("train", "--out", trained, "--resume", "--steps", "9", "--recipe", "ect") == 2
    assert "--recipe ct there, ect here; --steps 4 there, 9 here" in capsys.readouterr().err
    assert run("train", "--out", trained, "--data", points) == 2
    assert "--resume" in capsys.readouterr().err
    assert run("train", "--out", tmp_path / "none", "--resume") == 2
    assert not (tmp_path / "none").exists()


def test_other_settings_are_told_as_they_are_typed(trained, capsys):
    base = ["train", "--out", trained, "--resume"]
    typed = ["--set", "lr=0.1", "--set", "betas=0.5,0.9", "--set", "decay=true", "--seed", "1"]
    assert run(*base, *typed) == 2
    told = (
        "depend on: --seed 0 there, 1 here; --set lr=0.1 here only; --set betas=0.5,0.9 here only; "
        "--set decay=true here only. It is finished"
    )
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "told"), [("{}", "it lacks 'format'."), ("[]", "not hold the settings"), ("", "cannot be used")]
)
def test_settings_that_are_not_ours_are_a_sentence(tmp_path, content, told, capsys):
    (tmp_path / "config.json").write_text(content)
    assert run("train", "--out", tmp_path, "--resume") == 2
    err = capsys.readouterr().err
    assert "cannot be used: " in err
    assert told in err


def test_an_option_for_classes_may_be_named_where_it_does_nothing(points, tmp_path):
    out = ["--out", tmp_path / "run", "--backend", FIRST, *SMALL]
    assert run("train", "--data", points, "--recipe", "edm", "--set", "label_dropout=0", *out) == 0


def test_samples_keep_their_classes_when_they_become_data(tmp_path):
    """By name where classes have names; numbers stay numbers, in whose order 10 comes after 9."""
    rng = np.random.default_rng(0)
    numbers, names = np.arange(44) % 11, np.array(["cat", "ant", "bee"])[np.arange(44) % 3]
    for i, (y, expected) in enumerate([(numbers, tuple(map(str, range(11)))), (names, ("ant", "bee", "cat"))]):
        np.savez(tmp_path / f"{i}.npz", x=rng.normal(size=(44, 3)).astype(np.float32), y=y)
        out = ["--out", tmp_path / f"run {i}", "--backend", FIRST, *SMALL]
        assert run("train", "--data", tmp_path / f"{i}.npz", "--recipe", "edm", "--classes", *out) == 0
        for extra in ([], ["--label", expected[-1]]):
            made = tmp_path / f"samples {i} {len(extra)}.npz"
            assert run("sample", out[1], "--n", 44, "--steps", 2, "--backend", "numpy", "--out", made, *extra) == 0
            if extra:
                with np.load(made) as samples:
                    assert set(map(str, samples["labels"])) == set(expected[-1:])
                with pytest.raises(cm.Error, match="the only class"):
                    load(str(made), classes=True)
            else:
                data = load(str(made), classes=True)
                assert data.classes == expected
                assert (data.labels == np.arange(44) % len(expected)).all()
                assert load(str(made)).labels is None


def test_a_backend_is_chosen_and_named(points, tmp_path, capsys):
    assert run("train", "--data", points, "--out", tmp_path / "run", *SMALL) == 0
    first = cm.available()[0]
    assert f"cmcore: using {first}" in capsys.readouterr().err
    assert RunFolder(tmp_path / "run").read()[0].backend == first


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["train"], "--out"),
        (["train", "--out", "{new}"], "needs --data"),
        (["train", "--out", "{new}", "--data", "{new}/nowhere"], "no folder or file"),
        (
            ["train", "--out", "{new}", "--data", "{points}", "--recipe", "magic", "--backend", FIRST],
            "no recipe named 'magic'",
        ),
        (["train", "--out", "{new}", "--data", "{points}", "--backend", "abacus"], "no backend named 'abacus'"),
        (["train", "--out", "{new}", "--data", "{points}", "--backend", "numpy"], "no gradients"),
        (["train", "--out", "{new}", "--data", "{points}", "--device", "tpu:9", "--backend", FIRST], "no device"),
        (["train", "--out", "{new}", "--data", "{points}", "--set", "lr"], "KEY=VALUE"),
        (["train", "--out", "{new}", "--data", "{points}", "--set", "wings=2"], "no option 'wings'"),
        (["train", "--out", "{new}", "--data", "{points}", "--set", "lr=-1", "--backend", FIRST], "must be positive"),
        (["train", "--out", "{new}", "--data", "{points}", "--steps", "0"], "--steps must be at least 1"),
        (["train", "--out", "{new}", "--data", "{points}", "--steps", "many"], "invalid int value"),
        (["train", "--out", "{new}", "--data", "{points}", "--classes", "--backend", FIRST], "no labels"),
        (["train", "--out", "{new}", "--data", "{points}", "--recipe", "cd", "--backend", FIRST], "needs --teacher"),
        (["train", "--out", "{new}", "--data", "{points}", "--init", "{new}/x", "--backend", FIRST], "no run folder"),
        (["train", "--out", "{new}", "--data", "{points}", "--network", "conv", "--backend", FIRST], "shape"),
        (["sample", "{new}/none", "--out", "{new}/a.png"], "no run folder or model file"),
        (
            ["train", "--out", "{new}", "--data", "{points}", "--recipe", "cd", "--teacher", "nosuch"],
            "'nosuch'; give the folder that cmcore train wrote",
        ),
        (["train", "--out", "{new}", "--data", ""], "--data: an empty text names no file or folder"),
        (["train", "--out", "{new}", "--data", "{points}", "--teacher", ""], "--teacher: an empty text"),
        (["train", "--out", "{new}", "--data", "{points}", "--init", ""], "--init: an empty text"),
        (["train", "--out", "", "--data", "{points}"], "--out: an empty text"),
        (["sample", "", "--out", "{new}/a.npz"], "RUN: an empty text"),
        (
            ["train", "--out", "{new}", "--data", "{points}", "--recipe", "cd", "--set", "guidance=2"],
            "--set guidance=2.0 was given; add --classes",
        ),
        (
            ["train", "--out", "{new}", "--data", "{points}", "--recipe", "edm", "--set", "label_dropout=.1"],
            "label_dropout acts on classes",
        ),
        (
            ["train", "--out", "{new}", "--data", "{points}", "--recipe", "imf", "--set", "guidance_mix=.1"],
            "guidance_mix acts on classes",
        ),
        (["sample", "{run}", "--out", "{new}/a.png"], "not images"),
        (["sample", "{run}", "--out", "{new}/a.jpeg"], "not to a.jpeg"),
        (["sample", "{run}", "--out", "{new}/a.npz", "--n", "0", "--backend", "numpy"], "at least 1"),
        (["sample", "{run}", "--out", "{new}/a.npz", "--label", "0", "--backend", "numpy"], "without classes"),
        (["sample", "{run}", "--out", "{new}/a.npz", "--times", "1", "2", "--backend", "numpy"], "must decrease"),
        (["sample", "{run}", "--out", "{new}/a.npz", "--seed", "-1", "--backend", "numpy"], "seed"),
        (["eval", "{run}", "--n", "1", "--backend", "numpy"], "at least 2"),
        (["paint"], "invalid choice"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(arguments, match, trained, points, tmp_path, capsys):
    places = {"run": trained, "points": points, "new": tmp_path / "new"}
    assert run(*(a.format(**places) for a in arguments)) == 2
    err = capsys.readouterr().err
    assert match in err
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("cmcore: ")
    assert last.endswith(".")
    assert not (tmp_path / "new" / "config.json").exists()


def test_help_version_and_backends(capsys):
    assert run() == 0
    assert "train" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out == f"cmcore {cm.__version__}\n"
    assert run("backends") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cm.backend.names())
    assert cm.load("numpy").version() in out


def test_a_missing_program_is_named_with_what_it_is_for(monkeypatch, capsys):
    monkeypatch.setattr(type(cm.load("numpy")), "programs", {"no-such-tool": "to count", "python3": "to be there"})
    assert run("backends") == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("no-such-tool, to count: apt install no-such-tool")


def test_a_missing_framework_is_named_with_what_to_type(monkeypatch, capsys):
    from cmcore import backend

    def missing(name):
        raise cm.Error(f'The backend {name!r} needs the package "x": pip install "cmcore[{name}]".')

    monkeypatch.setattr(backend, "load", missing)
    assert run("backends") == 0
    assert 'pip install "cmcore[jax]"' in capsys.readouterr().out


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(cm.Error):
        run("sample", tmp_path, "--out", tmp_path / "a.png", "--debug")


def test_ctrl_c_during_the_imports_is_one_line():
    """In a process of its own, by the entry point that is installed, with the interrupt at a place that is sure to come."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["cmcore"].split(":")
    for imported in ("cmcore.run.cli", "PIL"):
        code = f"""
import sys
class CtrlC:
    def find_spec(self, name, *_):
        if name == {imported!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, CtrlC())
from {module} import {function}
sys.exit({function}())
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "cmcore: interrupted.\n")


def test_ctrl_c_saves_and_says_how_to_go_on(points, tmp_path):
    """In a process of its own, as from a terminal."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cmcore", "train", "--data", str(points), "--backend", FIRST, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command += [*SMALL, "--steps", "1000000", "--save-every", "20"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 120
    while not (out / "model.safetensors").exists() or load_model(out).step == 0:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert f"To go on: cmcore train --out {out} --resume" in err
    assert "Traceback" not in err
    step = int(err.split("Saved after step ")[1].split(".")[0].replace(",", ""))
    assert load_model(out).step == step
