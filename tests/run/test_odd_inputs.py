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
from cmcore.run.evaluate import Row, to_table


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
