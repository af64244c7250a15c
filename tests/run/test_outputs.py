"""What ``sample`` and ``eval`` write: batch by batch, gone on with, readable as data and by evaluators, and never lost."""

import errno
import io
import json
import os
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

import cmcore as cm
from cmcore import generate
from cmcore.model import DataFacts, Model, save_model
from cmcore.networks import ResidualMLP
from cmcore.run import cli, output, samples
from cmcore.run.data import load

N = 10


def model(shape=(3, 4, 4), classes=0, images=True, recipe="ct"):
    architecture = ResidualMLP(shape, width=8, blocks=1, classes=classes)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=s).astype(np.float32) for name, s in architecture.layout().items()}
    facts = DataFacts("toy", shape, images, ("-5", "1", "7")[:classes])
    return Model(cm.recipes.get(recipe), architecture, weights, facts)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "a run").mkdir()
    save_model(model(), tmp_path / "a run" / "model.safetensors")
    return tmp_path / "a run"


def sample(run, out, *more, n=N):
    arguments = ["sample", str(run), "--n", str(n), "--batch", "3", "--backend", "numpy", "--out", str(out), *more]
    return cli.main(arguments)


def whole(model, n=N, **options):
    return generate.generate(model, n, backend=cm.load("numpy"), batch=3, **options)


def visible(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))


def broken_off(monkeypatch, after, stop=KeyboardInterrupt):
    """Make the sampler end after so many batches."""
    original = generate.Sampler._batches

    def some(self, *args):
        for count, batch in enumerate(original(self, *args)):
            if count == after:
                raise stop
            yield batch

    monkeypatch.setattr(generate.Sampler, "_batches", some)


def break_off(monkeypatch, run, out):
    with monkeypatch.context() as patch:
        broken_off(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            sample(run, out)


OUTS = ["x.npz", "folder", "grid.png", "v1.5", "a b/samples.2026-11", "folder/"]


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device", "x"), MemoryError]
)
@pytest.mark.parametrize("out", OUTS)
def test_what_is_done_stays_and_is_gone_on_with(run, tmp_path, monkeypatch, capsys, out, stop):
    assert sample(run, tmp_path / "whole" / out) == 0
    place = f"{tmp_path}/broken/{out}"
    with monkeypatch.context() as patch:
        broken_off(patch, 2, stop)
        if stop is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                sample(run, place)
        else:
            assert sample(run, place) == 2
    told = capsys.readouterr().err
    assert stop is MemoryError or "6 of 10 samples are kept" in told
    seen = []
    original = generate.Sampler._batches
    monkeypatch.setattr(
        generate.Sampler, "_batches", lambda self, *a: (seen.append(b[0]) or b for b in original(self, *a))
    )
    assert sample(run, place) == 0
    assert "Going on after 6 samples" in capsys.readouterr().err
    assert seen == [6, 9]
    files = {p.relative_to(tmp_path / "whole"): p.read_bytes() for p in (tmp_path / "whole").rglob("*") if p.is_file()}
    if "npz" in out:
        a, b = (np.load(tmp_path / w / out)["x"] for w in ("whole", "broken"))
        np.testing.assert_array_equal(a, b)
        assert [p.name for p in (tmp_path / "broken").iterdir()] == [out]
    else:
        again = {
            p.relative_to(tmp_path / "broken"): p.read_bytes() for p in (tmp_path / "broken").rglob("*") if p.is_file()
        }
        assert again == files
    assert sample(run, place) == 2  # nothing is made twice or written over


def test_a_batch_that_was_killed_half_written_is_made_again(run, tmp_path, monkeypatch):
    break_off(monkeypatch, run, tmp_path / "x.npz")
    part = tmp_path / ".x.npz.part"
    part.write_bytes(part.read_bytes()[:-7])
    assert sample(run, tmp_path / "x.npz") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["x"], whole(model()).clip(-1, 1))


@pytest.mark.parametrize("other", [["--seed", "1"], ["--steps", "2"], ["--dtype", "uint8"], ["--times", "80", "1"]])
def test_another_command_does_not_go_on_with_it(run, tmp_path, monkeypatch, capsys, other):
    for out in ("x.npz", "folder"):
        break_off(monkeypatch, run, tmp_path / out)
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        assert sample(run, tmp_path / out, *other) == 2
        assert "another command" in capsys.readouterr().err
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_folder_takes_more_samples(run, tmp_path):
    assert sample(run, tmp_path / "folder") == 0
    assert sample(run, tmp_path / "folder", n=14) == 0
    assert visible(tmp_path / "folder") == [f"{i:06d}.png" for i in range(14)]
    assert sample(run, tmp_path / "whole", n=14) == 0
    for name in visible(tmp_path / "whole"):
        assert (tmp_path / "folder" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_processes_do_not_write_to_one_place(run, tmp_path, capsys):
    from cmcore.run.lock import held, locked

    with held(tmp_path / "folder"):
        assert sample(run, tmp_path / "folder") == 2
    with locked(tmp_path / ".x.npz.lock", "writing"):
        assert sample(run, tmp_path / "x.npz") == 2
    assert capsys.readouterr().err.count("Another process is writing samples to") == 2


@pytest.mark.parametrize(("n", "digits"), [(1, 6), (1_000_000, 6), (1_000_001, 7)])
def test_names_sort_as_numbers(tmp_path, n, digits):
    with samples.into_folder(tmp_path / "folder", n, {}) as sink:
        sink.add(0, np.zeros((1, 2, 2, 1), np.uint8))
    assert visible(tmp_path / "folder") == ["0" * digits + ".png"]


def test_memory_does_not_grow_with_the_number(tmp_path):
    """Samples are never together in memory, not even when the .npz is made."""
    import tracemalloc

    event, n, held = (64, 64, 3), 2000, np.full((50, 64, 64, 3), 7, np.uint8)
    out = tmp_path / "x.npz"
    tracemalloc.start()
    with samples.into_file(
        out, n, event, "uint8", {}, lambda x: samples.write_npz(out, x, "arr_0", {"arr_1": np.arange(n)})
    ) as sink:
        for start in range(0, n, 50):
            sink.add(start, held)
        sink.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * 64 * 64 * 3 / 4
    with np.load(out) as file:
        assert file["arr_0"].shape == (n, *event)
        assert (file["arr_0"] == 7).all()
        assert file["arr_1"].tolist() == list(range(n))
    assert zipfile.ZipFile(out).testzip() is None


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("classes", [0, 3])
def test_samples_are_data_again_and_what_evaluators_read(tmp_path, dtype, classes):
    made = model(classes=classes)
    save_model(made, tmp_path / "model.safetensors")
    assert sample(tmp_path / "model.safetensors", tmp_path / "x.npz", "--dtype", dtype) == 0
    raw = whole(made)
    assert np.abs(raw).max() > 1  # what is clipped
    with np.load(tmp_path / "x.npz") as file:
        names = {"float32": ("x", "labels"), "uint8": ("arr_0", "arr_1")}[dtype]
        assert set(file) == set(names[: 2 if classes else 1])
        x = file[names[0]]
        if classes:
            assert file[names[1]].tolist() == [-5, 1, 7, -5, 1, 7, -5, 1, 7, -5]
    if dtype == "uint8":
        assert (x.dtype, x.shape) == (np.uint8, (N, 4, 4, 3))
        np.testing.assert_array_equal(x, np.moveaxis(np.rint((raw.astype(float).clip(-1, 1) + 1) * 127.5), 1, 3))
    else:
        np.testing.assert_array_equal(x, raw.clip(-1, 1))
    data = load(str(tmp_path / "x.npz"), classes=bool(classes))
    assert np.abs(data.x - raw.clip(-1, 1)).max() <= 0.51 / 127.5
    assert data.classes == made.data.classes
    assert sample(tmp_path / "model.safetensors", tmp_path / "pictures") == 0
    assert np.abs(load(str(tmp_path / "pictures"), size=4).x - raw.clip(-1, 1)).max() <= 0.51 / 127.5


def test_points_are_not_clipped(tmp_path):
    made = model((5,), images=False)
    save_model(made, tmp_path / "model.safetensors")
    assert sample(tmp_path / "model.safetensors", tmp_path / "x.npz") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["x"], whole(made))
    for wrong in ("x.png", "folder"):
        assert sample(tmp_path / "model.safetensors", tmp_path / wrong) == 2


@pytest.mark.parametrize(
    ("recipe", "times"),
    [
        ("ct", "500"),
        ("ct", "80.001 1"),
        ("ct", "80 0.0001"),
        ("ct", "nan"),
        ("ct", "inf 1"),
        ("ct", "80 80"),
        ("ct", "-1"),
        ("edm", "80"),
        ("edm", "100 1 0"),
        ("tcm", "80 0.01"),
    ],
)
def test_times_that_the_network_does_not_know_are_sentences(tmp_path, capsys, recipe, times):
    save_model(model(recipe=recipe), tmp_path / "model.safetensors")
    assert sample(tmp_path / "model.safetensors", tmp_path / "x.npz", "--times", *times.split()) == 2
    assert "times" in capsys.readouterr().err
    assert visible(tmp_path) == ["model.safetensors"]


def test_times_of_the_ends_are_known(tmp_path):
    for recipe, times in (("ct", "80 0.002"), ("edm", "80 1 0"), ("edm", "80 0.002 0"), ("ct", "79.99999 0.821")):
        sampler = generate.Sampler(model(recipe=recipe), cm.load("numpy"))
        assert sampler.times(None, [float(t) for t in times.split()])


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("x.jpg", "a .png, an .npz or a folder"),
        ("x.npy", "a .png, an .npz or a folder"),
        ("there.npz", "not overwritten"),
        ("there/", "not an empty folder"),
        ("model.safetensors", "a .png, an .npz or a folder"),
        ("file/x.npz", "file"),
        ("n" * 300, "name too long"),
    ],
)
def test_places_that_cannot_be_are_sentences(run, tmp_path, capsys, out, told):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("precious")
    (tmp_path / "there.npz").write_text("precious")
    (tmp_path / "file").write_text("precious")
    assert sample(run, f"{tmp_path}/{out}") == 2
    assert told in capsys.readouterr().err
    for precious in ("there/mine", "there.npz", "file"):
        assert (tmp_path / precious).read_text() == "precious"


def test_a_grid_that_nobody_can_look_at_is_refused(run, tmp_path, capsys):
    assert sample(run, tmp_path / "x.png", n=10_000_000) == 2
    assert "a folder or NAME.npz" in capsys.readouterr().err


def test_large_samples_are_made_fewer_at_once():
    assert generate.fitting_batch((1, 8, 8)) == 256
    assert generate.fitting_batch((3, 64, 64)) == 85
    assert generate.fitting_batch((3, 4096, 4096)) == 1


# Evaluations


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "データ.npz", np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3), dtype=np.uint8))
    return tmp_path / "データ.npz"


def evaluated(run, data, *more):
    return cli.main(["eval", str(run), "--data", str(data), "--n", "6", "--backend", "numpy", *more])


class Encoded(io.TextIOWrapper):
    """A pipe of some encoding, which keeps what is written."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding)

    def text(self):
        self.flush()
        return self.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_a_pipe_cannot_encode_is_escaped(run, data, monkeypatch, encoding):
    out, err = Encoded(encoding), Encoded(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert evaluated(run, data) == 0
    assert b"1 step" in out.text()
    assert ("データ" if encoding == "utf-8" else "\\u30c7").encode() in out.text()
    assert evaluated(run, "無い") == 2
    assert b"There is no folder or file" in err.text()


class Full(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_results_are_on_disk_before_they_are_on_the_screen(run, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())
    assert evaluated(run, data) == 2
    told = capsys.readouterr().err
    assert "The results are in" in told
    kept = json.loads((run / "eval.json").read_text())
    assert [row["name"] for row in kept["rows"]] == ["1 step", "2 steps", "real data"]
    assert kept["rows"][0]["sliced"] > 0
    assert evaluated(run, data, "--search", "2", "--out", str(tmp_path / "new" / "e.json")) == 2
    assert len(json.loads((tmp_path / "new" / "e.json").read_text())["search"]["times"]) == 2


@pytest.mark.parametrize("out", ["a run/model.safetensors", "there.json", "table.txt"])
def test_results_overwrite_nothing(run, data, tmp_path, capsys, out):
    (tmp_path / "there.json").write_text("precious")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert evaluated(run, data, "--out", str(tmp_path / out)) == 2
    assert "a new .json file" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_results_that_cannot_be_kept_are_printed(run, data, monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system", "eval.json")

    monkeypatch.setattr("cmcore.run.commands.atomic_write", refuse)
    assert evaluated(run, data) == 0
    out, err = capsys.readouterr()
    assert "1 step" in out
    assert "not kept" in err
    assert evaluated(run, data, "--out", "x.json") == 2
    assert '"rows"' in capsys.readouterr().out


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_no_stream_at_all(run, data, monkeypatch, stream):
    monkeypatch.setattr(sys, stream, None)
    assert evaluated(run, data) == 0
    assert (run / "eval.json").exists()


def test_a_full_screen_is_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())
    assert cli.main(["backends"]) == 2
    assert "cannot be printed" in capsys.readouterr().err


def test_grids_are_marked_and_samples_are_not(run, tmp_path):
    assert sample(run, tmp_path / "x.png") == 0
    assert Image.open(tmp_path / "x.png").info["Software"] == "cmcore"
    assert sample(run, tmp_path / "folder") == 0
    assert "Software" not in Image.open(tmp_path / "folder" / "000000.png").info


@pytest.mark.parametrize(
    ("out", "folder"),
    [
        ("a.npz", False),
        ("a.PNG", False),
        ("a", True),
        ("v1.5", True),
        ("a.b.npz", False),
        ("x.png/", True),
        (".hidden", True),
    ],
)
def test_what_is_a_folder(out, folder):
    assert output.is_folder(out) == folder
