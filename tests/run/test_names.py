"""Names of folders, files and classes that hold what breaks a line or cannot be printed; counts of one thing."""

import os
import subprocess

import numpy as np
import pytest
from conftest import TRAINABLE
from PIL import Image
from test_model_object import make_model

import cmcore as cm
from cmcore._words import counted, printable, quoted
from cmcore.errors import sentence
from cmcore.interchange.card import card
from cmcore.model import load_model
from cmcore.run import cli
from cmcore.run.data import load
from cmcore.run.data.labels import classes

NAMES = [
    "a\nb",
    "\x1b[31mred",
    "tab\there",
    "\r over",
    "back\\slash",
    "it's $HOME `x`",
    b"\xff\xfe".decode("utf-8", "surrogateescape"),
    "line\u2028separator",
    "left\u202eright",
    "café 猫 🐈",
]


def fill(folder, count=2):
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_in_a_line_and_can_be_told_from_others(name):
    shown = printable(name)
    assert shown.isprintable()
    shown.encode()
    assert (shown == name) == name.isprintable()
    assert len({printable(n) for n in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_is_advised_is_what_a_shell_reads(name):
    typed = quoted(name)
    assert typed.isprintable()
    read = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True)
    assert read.stdout == os.fsencode(name)


@pytest.mark.parametrize("name", NAMES)
def test_classes_of_any_name_are_told_in_one_line(tmp_path, name):
    fill(tmp_path / "pets" / name)
    fill(tmp_path / "pets" / "dog")
    said = []
    data = load(str(tmp_path / "pets"), classes=True, note=said.append)
    assert set(data.classes) == {name, "dog"}
    assert said[-1].isprintable()
    assert f"{printable(name)} 2" in said[-1]


@pytest.mark.parametrize(
    "folders", [["a\nb"], ["\x1b[31mtrain", "train"], ["a\nb", "\udcff"]], ids=["one", "a split", "two"]
)
def test_questions_about_folders_are_one_line(tmp_path, folders, capsys):
    for folder in folders:
        fill(tmp_path / "data" / folder)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "data" / folders[0] / "\x1b[2Jbad.png")
    (tmp_path / "data" / folders[0] / "\x1b[2Jbad.png").write_bytes(b"text")
    out = ["--out", str(tmp_path / "run")]
    assert cli.main(["train", "--data", str(tmp_path / "data"), "--classes", *out]) == 2
    assert "cannot be read as images" in (told := capsys.readouterr().err)
    assert "\x1b" not in told
    assert (
        cli.main(["train", "--data", str(tmp_path / "data"), "--classes", "--skip-broken", "--steps", "0", *out]) == 2
    )
    assert "\x1b" not in capsys.readouterr().err
    if len(folders) == 1:
        with pytest.raises(cm.Error, match=r"All pictures .* a\\nb, which would be the only class"):
            load(str(tmp_path / "data"), classes=True, skip_broken=True)


@pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
def test_a_run_with_classes_of_any_name(tmp_path, capsys):
    names = sorted(["a\nb", "\udcff", "x|y", "\x1b[31mred"])
    for name in names:
        fill(tmp_path / "da\nta" / name)
    small = ["--backend", TRAINABLE[0], "--steps", "1", "--width", "8", "--blocks", "1", "--batch", "4", "--no-compile"]
    run, made = tmp_path / "ru\nn", tmp_path / "x.npz"
    command = ["train", "--data", str(tmp_path / "da\nta"), "--size", "4", "--classes", *small, "--out", str(run)]
    assert cli.main(command) == 0, capsys.readouterr().err
    told = capsys.readouterr().err
    assert r"cmcore sample $'" in told
    assert r"ru\012n' --out" in told
    assert rf"Reading {tmp_path}/da\nta ..." in told
    model = load_model(run)
    assert list(model.data.classes) == names
    assert cli.main(["sample", str(run), "--n", "1", "--label", "\udcff", "--out", str(made)]) == 0
    told += capsys.readouterr().err
    with np.load(made) as samples:
        assert samples["labels"].tolist() == ["\udcff"]
    assert cli.main(["sample", str(run), "--label", "\x1bno", "--out", str(tmp_path / "y.npz")]) == 2
    assert cli.main(["eval", str(run), "--n", "2", "--steps", "1"]) == 0
    said = capsys.readouterr()
    for line in (told + said.err + said.out).splitlines():
        assert line.isprintable()
    text = card(model, "edm")
    text.encode()
    (row,) = (line for line in text.splitlines() if line.startswith("| data |"))
    assert all(shown in row for shown in (r"a\nb", r"\udcff", r"x\|y", r"\x1b[31mred"))


def test_a_file_that_the_system_refuses_is_told_in_one_line():
    assert sentence(FileNotFoundError(2, "No such file", "a\nb\x1b")) == r"No such file: a\nb\x1b."
    assert sentence(ValueError("of \x1b[2J,\nwell")) == r"of \x1b[2J, well."


# Counts


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.full(4, 7.0), np.array(["a\nb"] * 4), np.eye(3)[[1, 1, 1, 1]]])
def test_a_single_class_in_an_array_is_questioned(tmp_path, labels):
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(4, 2)), y=labels)
    with pytest.raises(
        cm.Error, match=r"All 4 labels of .* are \S+, which would be the only class\. Leave out --classes"
    ):
        load(str(tmp_path / "a.npz"), classes=True)
    assert load(str(tmp_path / "a.npz")).labels is None


def test_a_single_class_of_several_that_have_names_is_questioned():
    with pytest.raises(cm.Error, match=r"All 3 labels of x are dog, which would be the only class"):
        classes(np.array([1, 1, 1]), ("cat", "dog"), "x")
    assert classes(np.array([], int), (), "x")[1] == ()
    assert classes(np.array([1, 0, 1]), ("cat", "dog"), "x")[0].tolist() == [1, 0, 1]


def test_a_single_class_in_a_dataset_json_is_questioned(tmp_path):
    fill(tmp_path / "data" / "00000")
    (tmp_path / "data" / "dataset.json").write_text('{"labels": [["00000/0.png", 3], ["00000/1.png", 3]]}')
    with pytest.raises(cm.Error, match=r"All 2 labels of .* are 3, which would be the only class"):
        load(str(tmp_path / "data"), classes=True)


def test_one_thing_is_one():
    assert [counted(n, "class", "classes") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert [counted(n, "step") for n in (1, 1000)] == ["1 step", "1,000 steps"]
    assert ", 1 class, step" in repr(make_model(classes=("only",)))
    assert "1 class (only)" in card(make_model(classes=("only",)), "edm")
