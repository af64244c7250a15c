"""What people do that nobody asked for: pipes among pictures, numbers for names, commands that fail before they begin."""

import os
import re
from shlex import split

import numpy as np
import pytest
from PIL import Image
from test_model_object import make_model

import cmcore as cm
from cmcore.run.cli import main
from cmcore.run.data import load
from cmcore.run.data.ranges import scaled
from cmcore.run.figures import Row, to_table


def pictures(folder, count=3):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.fromarray(np.full((4, 4), 60 * i, np.uint8)).save(folder / f"{i}.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.timeout(60)
def test_a_pipe_among_pictures_is_not_waited_for(tmp_path):
    pictures(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "pipe.png")
    said = []
    assert len(load(str(tmp_path / "data"), note=said.append).x) == 3
    assert any("Skipped 1 pipes, sockets, devices or links, such as pipe.png" in line for line in said)


@pytest.mark.parametrize("out", ["samples.npz", "x y'.npz", "folder"])
def test_a_command_that_made_nothing_is_in_nobodys_way(tmp_path, out, capsys):
    make_model().save(tmp_path / "run")
    command = ["sample", str(tmp_path / "run"), "--n", "2", "--backend", "numpy", "--out", str(tmp_path / out)]
    assert main([*command, "--seed", "-1"]) == 2
    assert "seed must be at least 0" in capsys.readouterr().err
    assert main([*command, "--seed", "1"]) == 0, capsys.readouterr().err


def test_what_is_in_the_way_is_named_so_that_it_can_be_typed(tmp_path, capsys):
    make_model().save(tmp_path / "run")
    part, record = tmp_path / ".x y.npz.part", tmp_path / ".x y.npz.json"
    part.write_bytes(b"something")
    record.write_text("{}")
    assert main(["sample", str(tmp_path / "run"), "--backend", "numpy", "--out", str(tmp_path / "x y.npz")]) == 2
    told = capsys.readouterr().err
    named = re.search(r"remove (.*), or choose", told).group(1)
    assert split(named) == [str(part), "and", str(record)]


def test_where_names_are_numbers_a_label_is_a_name():
    model = make_model(classes=("1", "10", "20"))
    assert model.label_numbers("10", 1) == [1]
    for other in ("0", "2"):
        with pytest.raises(ValueError, match=f"There is no class '{other}'; the model's classes are 1, 10, 20"):
            model.label_numbers(other, 1)
    assert make_model().label_numbers("2", 1) == [2]


def test_small_and_large_distances_are_told():
    rows = [Row("one step", 1, 1.9e-6, 3e-30, 0.5), Row("two steps", 2, 1e30, 12.3456, None)]
    text = to_table(rows)
    for said in ("1.9e-06", "3e-30", "1e+30", "12.35"):
        assert said in text
    assert max(map(len, text.splitlines())) < 90


@pytest.mark.parametrize(
    ("low", "high", "suggested"),
    [
        (-128, 126, "-128,127"),
        (0, 4094, "0,4095"),
        (0, 60000, "0,65535"),
        (-1656, 711, "-1656,711"),
    ],
)
def test_the_range_that_is_suggested_holds_the_values_and_fits_them(low, high, suggested):
    kind = np.int32 if isinstance(low, int) else np.float64
    x = np.linspace(low, high, 64).astype(kind).reshape(1, 1, 8, 8)
    with pytest.raises(cm.Error, match=f"--range={suggested}[.;]"):
        scaled(x, None, "x", print)
    a, b = map(float, suggested.split(","))
    said = []
    y = scaled(x, (a, b), "x", said.append).whole()
    assert not said
    assert y.max() - y.min() > 0.45


@pytest.mark.parametrize("x", [[[0.1, 2.0]], [[0.1, 2.0], [0.1, 3.0], [0.1, 2.5]]], ids=["one sample", "a constant"])
def test_points_that_are_alike_are_not_said_to_be_too_close(tmp_path, x):
    np.savez(tmp_path / "data.npz", x=np.array(x, np.float64))
    if len(x) == 1:
        with pytest.raises((cm.Error, ValueError), match="at least 2"):
            load(str(tmp_path / "data.npz"))
    else:
        assert len(load(str(tmp_path / "data.npz")).x) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch", "0"], "batch size must be at least 1, got 0"),
        (["--times", "80", "--steps", "5"], "the number of steps or the times, not both"),
        (["--steps", "100000000"], "at most 10,000 steps"),
    ],
)
def test_what_would_do_nothing_or_never_end_is_refused(tmp_path, arguments, sentence, capsys):
    make_model().save(tmp_path / "run")
    assert (
        main(["sample", str(tmp_path / "run"), "--backend", "numpy", "--out", str(tmp_path / "x.npz"), *arguments]) == 2
    )
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


def test_a_finished_run_is_not_advised_to_be_resumed(tmp_path):
    from conftest import TRAINABLE
    from test_signals import DATA, config

    from cmcore.run.train import train

    if not TRAINABLE:
        pytest.skip("no backend that can train takes part")
    out = tmp_path / "run"
    train(config(), DATA, out=out)
    with pytest.raises(cm.Error, match=r"is finished; to train on, start a new run from its weights with --init"):
        train(config(steps=30), DATA, out=out, resume=True)


def test_resumed_with_data_that_do_not_fit_it_is_advised_to_bring_the_runs_own(tmp_path, capsys):
    from conftest import TRAINABLE

    if not TRAINABLE:
        pytest.skip("no backend that can train takes part")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", x=rng.standard_normal((8, 2)), y=np.arange(8) % 2)
    np.savez(tmp_path / "b.npz", x=rng.standard_normal((8, 2)))
    out = ["--out", str(tmp_path / "run")]
    settings = ["--classes", "--steps", "2", "--width", "8", "--blocks", "1", "--batch", "4", "--backend", TRAINABLE[0]]
    assert main(["train", "--data", str(tmp_path / "a.npz"), *settings, "--no-compile", *out]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", "--data", str(tmp_path / "b.npz"), *out]) == 2
    told = capsys.readouterr().err
    assert "Resuming needs the data that the run was trained on" in told
    assert "--device" not in told


def stored(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return str(tmp_path / "a.npz")


POINTS = np.random.default_rng(0).normal(size=(4, 2))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([b"cat", b"dog", b"cat", b"ant"]), ("ant", "cat", "dog")),
        (np.array([[b"cat"], [b"dog"], [b"cat"], [b"dog"]]), ("cat", "dog")),
        (np.array(["caf\xe9".encode(), b"\xff", b"a", b"a"]), ("a", "caf\xe9", "\udcff")),
    ],
    ids=["bytes", "a column", "of any encoding"],
)
def test_labels_of_bytes_are_texts(tmp_path, labels, classes):
    data = load(stored(tmp_path, x=POINTS, y=labels), classes=True)
    assert data.classes == classes
    for label, number in zip(labels.reshape(-1), data.labels, strict=True):
        assert classes[number].encode("utf-8", "surrogateescape") == label


@pytest.mark.parametrize(
    "names",
    [
        ("X", "Y"),
        ("X", "y"),
        ("features", "targets"),
        ("Features", "Targets"),
        ("data", "target"),
        ("X_train", "Y_train"),
    ],
)
def test_the_usual_names_of_arrays_are_known(tmp_path, names):
    source = stored(tmp_path, **{names[0]: POINTS, names[1]: np.array([3, 5, 5, 3]), "other": np.zeros((2, 2))})
    data = load(source, classes=True)
    np.testing.assert_allclose(data.x, POINTS, rtol=1e-6)
    assert data.classes == ("3", "5")


def test_an_exact_name_goes_before_one_in_other_letters(tmp_path):
    source = stored(tmp_path, X=POINTS + 9, x=POINTS, X_TEST=POINTS[:2], Y=np.arange(4), y=np.array([1, 1, 2, 2]))
    data = load(source, classes=True)
    np.testing.assert_allclose(data.x, POINTS, rtol=1e-6)
    assert (data.classes, len(data.held_out)) == (("1", "2"), 2)


@pytest.mark.parametrize("large", [False, True])
def test_python_objects_are_refused_where_they_are_needed_and_else_left_alone(tmp_path, large):
    labels = np.array(["a", "b", "a", "b"] * (50_000 if large else 1), object)
    x = np.tile(POINTS, (len(labels) // 4, 1))
    source = stored(tmp_path, x=x, y=labels, about=np.array([{"a": 1}], object))
    assert load(source).labels is None
    with pytest.raises(
        cm.Error, match=r"The labels of .*a\.npz are Python objects, which are never loaded; .* y\.astype\(str\)"
    ):
        load(source, classes=True)
    with pytest.raises(cm.Error, match=r"The samples in .*a\.npz are Python objects, which are never loaded"):
        load(stored(tmp_path, x=x.astype(object)))
    np.save(tmp_path / "a.npy", x.astype(object))
    with pytest.raises(cm.Error, match="Python objects"):
        load(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("name", ["photo.jpg", "photo 1.PNG", "x.webp"])
def test_a_single_picture_is_no_folder(tmp_path, name, monkeypatch):
    pictures(tmp_path / "my pictures")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "my pictures" / name)
    with pytest.raises(
        cm.Error, match=r"single picture, and --data takes a folder of pictures; is --data '.*my pictures' meant"
    ):
        load(str(tmp_path / "my pictures" / name))
    monkeypatch.chdir(tmp_path / "my pictures")
    with pytest.raises(cm.Error, match=r"is --data '.*my pictures' meant"):
        load(name)


@pytest.mark.parametrize("kind", ["points", "pixels", "digits", "folder"])
def test_options_that_do_nothing_to_such_data_are_told(tmp_path, kind):
    shape = (9, 2) if kind == "points" else (9, 8, 8)
    source = stored(tmp_path, x=np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    if kind == "folder":
        pictures(tmp_path / "folder")
    source = {"digits": "digits", "folder": str(tmp_path / "folder")}.get(kind, source)
    said = []
    asked = {"fit": "pad", "fast_jpegs": False, "skip_broken": True}
    load(source, note=said.append, **asked)
    told = {re.match(r"(--\S+).* does nothing here", line).group(1) for line in said if "does nothing" in line}
    files = {"--whole-jpegs", "--skip-broken"}
    assert told == {"points": files | {"--fit"}, "pixels": files, "digits": files, "folder": set()}[kind]
    said.clear()
    load(source, note=said.append)
    assert not any("does nothing" in line for line in said)


@pytest.fixture
def unread(monkeypatch):
    """Data that must not be read."""

    def read(*_, **__):
        raise AssertionError("the data were read")

    monkeypatch.setattr("cmcore.run.data.load", read)


@pytest.mark.parametrize(
    ("recipe", "arguments", "told"),
    [
        ("edm", ["--steps", "1"], "The ODE sampler needs at least 2 steps, got 1"),
        ("edm", ["--steps", "18", "1"], "at least 2 steps, got 1"),
        ("ect", ["--steps", "0"], "at least one step, got 0"),
        ("ect", ["--steps", "20000"], "at most 10,000 steps, got 20,000"),
        ("ect", ["--n", "1"], "at least 2 samples, got 1"),
        ("ect", ["--batch", "0"], "at least 1 samples at once, got 0"),
        ("ect", ["--seed", "-1"], "seed must be at least 0, got -1"),
        ("ect", ["--search", "0"], "at least one step and fewer than 40, got 0"),
        ("ect", ["--search", "40"], "at least one step and fewer than 40, got 40"),
        ("edm", ["--search", "2"], "multistep consistency sampling, which 'edm' does not use"),
        ("ect", ["--backend", "nothing"], "nothing"),
    ],
)
def test_an_evaluation_that_cannot_be_is_told_before_the_data_are_read(
    tmp_path, unread, recipe, arguments, told, capsys
):
    make_model(recipe=recipe).save(tmp_path / "run")
    assert main(["eval", str(tmp_path / "run"), "--data", "digits", "--backend", "numpy", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--recipe", "cd"], "The recipe 'cd' needs --teacher"),
        (["--recipe", "ect", "--teacher", "MODEL"], "takes no teacher"),
        (["--recipe", "tcm", "--teacher", "MODEL"], "must be trained with the recipe 'ect'; this one was with 'edm'"),
        (["--recipe", "cd", "--teacher", "nowhere"], "no run folder or model file 'nowhere'"),
        (["--init", "nowhere"], "no run folder or model file 'nowhere'"),
    ],
)
def test_a_run_without_its_teacher_is_told_before_the_data_are_read(tmp_path, unread, arguments, told, capsys):
    from conftest import TRAINABLE

    if not TRAINABLE:
        pytest.skip("no backend that can train takes part")
    make_model(recipe="edm").save(tmp_path / "model")
    arguments = [str(tmp_path / "model") if a == "MODEL" else a for a in arguments]
    command = ["train", "--data", "digits", "--backend", TRAINABLE[0], "--out", str(tmp_path / "run"), *arguments]
    assert main(command) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_number_of_steps_that_is_asked_for_twice_is_one_row(tmp_path, capsys):
    make_model(shape=(2,), images=False).save(tmp_path / "run")
    command = ["eval", str(tmp_path / "run"), "--data", stored(tmp_path, x=POINTS), "--backend", "numpy", "--n", "4"]
    assert main([*command, "--steps", "2", "1", "2", "1"]) == 0, capsys.readouterr().err
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row for row in rows if "step" in row] == ["2 steps", "1 step"]


def test_one_sample_is_too_few_for_any_command(tmp_path, capsys):
    make_model(shape=(2,), images=False).save(tmp_path / "run")
    source = stored(tmp_path, x=POINTS[:1])
    assert main(["eval", str(tmp_path / "run"), "--data", source, "--backend", "numpy"]) == 2
    told = capsys.readouterr().err
    assert "holds 1 sample, and at least 2 are needed." in told
    assert "train" not in told
