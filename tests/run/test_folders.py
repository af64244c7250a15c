"""Folders as people have them: their own output beside the pictures, phones' formats, splits, damaged files, any size."""

import io
import json
import struct
import warnings
import zlib

import numpy as np
import pytest
from conftest import TRAINABLE
from PIL import Image

import cmcore as cm
from cmcore.model import load_model
from cmcore.run import cli
from cmcore.run.config import Config
from cmcore.run.data import decoding, load
from cmcore.run.data.convert import fitted
from cmcore.run.plan import make_plan

RNG = np.random.default_rng(0)
needs_training = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")


def picture(size=(8, 8)):
    return Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8))


def fill(folder, names, size=(8, 8)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(size).save(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "photos", [f"{i}.png" for i in range(6)])


def notes_of(source, **options):
    notes = []
    data = load(str(source), note=notes.append, **options)
    return data, "\n".join(notes)


# Its own output


def training(data, out, *more):
    arguments = ["train", "--data", str(data), "--out", str(out), "--steps", "2", "--save-every", "1", "--batch", "4"]
    return cli.main([*arguments, "--size", "4", "--width", "8", "--blocks", "1", "--no-compile", *more])


@needs_training
@pytest.mark.parametrize("place", ["runs/x", "x", "a b/c/x", "link/x"])
def test_runs_inside_the_data_are_not_data(photos, monkeypatch, capsys, place):
    if place.startswith("link"):
        (photos / "link").symlink_to(photos)
    monkeypatch.chdir(photos)
    assert training(".", place, "--backend", TRAINABLE[0]) == 0
    assert "--out lies inside --data" in capsys.readouterr().err
    (photos / place / "model.safetensors").unlink()
    assert cli.main(["train", "--out", place, "--resume"]) == 0
    assert training(photos, photos / "second", "--backend", TRAINABLE[0]) == 0
    assert "6 images of 4 x 4" in (told := capsys.readouterr().err)
    assert "Skipped what this program wrote" in told
    for wrong in (place, photos / place):
        assert training(wrong, photos.parent / "third") == 2
        assert "is the folder of a run" in capsys.readouterr().err
    assert cli.main(["sample", place, "--n", "3", "--backend", "numpy", "--out", "made"]) == 0
    assert cli.main(["sample", place, "--n", "3", "--backend", "numpy", "--out", "grid.png"]) == 0
    data, notes = notes_of(photos, size=4)
    assert len(data.x) == 6
    assert "made" in notes
    assert "1 grids that this program wrote, such as grid.png" in notes
    # Asked for, samples are data.
    assert len(load("made", size=4).x) == 3


def test_what_is_no_run_of_ours_is_data(photos):
    fill(photos / "other", ["a.png"])
    for content in ("{}", "[]", "nonsense", '{"format": 1}', "[" * 100_000):
        (photos / "other" / "config.json").write_text(content)
        assert len(load(str(photos)).x) == 7


# What was read


def test_a_line_says_what_was_read_and_what_was_not(photos):
    for name in ("a.HEIC", "b.heic", "notes.txt", "movie.mp4", "Thumbs.db", ".DS_Store", "no ending"):
        (photos / name).write_bytes(b"x")
    (photos / "__MACOSX").mkdir()
    (photos / "__MACOSX" / "0.png").write_bytes(b"x")
    notes = notes_of(photos)[1]
    assert notes.splitlines()[-1] == "photos: 6 images of 32 x 32, RGB."
    assert "Skipped 2 .heic: Pillow reads them after pip install pillow-heif." in notes
    assert "Skipped 1 .txt: no picture's ending." in notes
    assert "Skipped 1 without an ending" in notes
    assert "Thumbs" not in notes


def test_classes_and_what_is_held_out_are_told(tmp_path):
    fill(tmp_path / "pets", ["cat/0.png", "cat/1.png", "dog/0.png"])
    assert "2 classes (cat 2, dog 1)" in notes_of(tmp_path / "pets", classes=True)[1]
    assert notes_of("digits", classes=True)[1].startswith(
        "digits: 900 images of 8 x 8, grey, 897 held out, 10 classes (0"
    )
    fill(tmp_path / "many", [f"{i}/0.png" for i in range(30)])
    assert "30 classes (0 1, 1 1," in (told := notes_of(tmp_path / "many", classes=True)[1])
    assert told.endswith(", ...).")
    np.savez(tmp_path / "a.npz", RNG.normal(size=(9, 3)))
    assert notes_of(tmp_path / "a.npz")[1] == "a.npz: 9 samples of shape (3,)."


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["train/0.png", "test/0.png"], r"--data .*/test meant|--data .*/train meant"),
        (["Training/a/0.png", "Validation/a/0.png"], "look like parts of the data"),
        (["val/0.png", "cat/0.png"], "look like parts of the data"),
        (["00000/0.png", "00000/1.png"], "would be the only class"),
        (["images/a/0.png", "images/b/1.png"], r"Is --data .*images meant"),
    ],
)
def test_classes_that_are_hardly_meant_are_questions(tmp_path, names, told):
    fill(tmp_path / "root", names)
    with pytest.raises(cm.Error, match=told):
        load(str(tmp_path / "root"), classes=True)
    assert len(load(str(tmp_path / "root")).x) == len(names)


def test_labels_of_a_dataset_json(tmp_path):
    root = fill(tmp_path / "root", ["00000/img0.png", "00000/img1.png", "00001/img2.png"])
    rows = [["00000/img1.png", 6], ["00001/img2.png", 10], ["00000/img0.png", 6]]
    (root / "dataset.json").write_text(json.dumps({"labels": rows}))
    data = load(str(root), classes=True)
    assert (data.classes, data.labels.tolist()) == (("6", "10"), [0, 0, 1])
    assert load(str(root)).labels is None
    (root / "dataset.json").write_text(json.dumps({"labels": rows[:2]}))
    with pytest.raises(cm.Error, match=r"no label for 1 of the 3 pictures, 00000/img0\.png"):
        load(str(root), classes=True)
    (root / "dataset.json").write_text('{"labels": null}')
    assert load(str(root), classes=True).classes == ("00000", "00001")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"labels": 3}', '{"labels": [["a"]]}', '{"labels": [["a", "b"]]}', "[" * 100_000]
)
def test_a_dataset_json_of_another_kind_is_a_sentence(photos, content):
    (photos / "dataset.json").write_text(content)
    with pytest.raises(cm.Error, match=r"dataset\.json cannot be used"):
        load(str(photos), classes=True)
    assert len(load(str(photos)).x) == 6


# Damaged files


def test_all_damaged_files_are_told_and_can_be_skipped(photos):
    for i in range(13):
        (photos / f"bad{i:02d}.png").write_bytes(b"text")
    (photos / "half.jpg").write_bytes(b"\xff\xd8\xff")
    (photos / "a folder.png").mkdir()
    (photos / "gone.png").symlink_to(photos / "nowhere")
    with pytest.raises(cm.Error, match=r"15 of 21 files cannot be read .*bad00\.png.*bad07.*and 5 more.*--skip-broken"):
        load(str(photos))
    data, notes = notes_of(photos, skip_broken=True)
    assert len(data.x) == 6
    assert "Skipped: 15 of 21 files" in notes
    assert "6 images of 32 x 32" in notes
    whole = {p.name: p for p in photos.iterdir() if p.name[0].isdigit()}
    assert len(whole) == 6
    for path in whole.values():
        path.unlink()
    with pytest.raises(cm.Error, match="no images that can be used"):
        load(str(photos), skip_broken=True)


def test_labels_follow_what_is_kept(tmp_path):
    root = fill(tmp_path / "root", ["a/0.png", "a/1.png", "b/2.png"])
    (root / "a" / "0.png").write_bytes(b"text")
    data = load(str(root), classes=True, skip_broken=True)
    assert data.labels.tolist() == [0, 1]


def test_reading_counts(photos):
    seen = []
    load(str(photos), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 6) for i in range(6)]


def test_names_of_any_bytes(tmp_path, capsys):
    name = b"\xff\xfe caf\xe9\n.png".decode("utf-8", "surrogateescape")
    fill(tmp_path / "p", [name, "b.png"])
    assert len(load(str(tmp_path / "p")).x) == 2
    (tmp_path / "p" / name).write_bytes(b"text")
    assert cli.main(["train", "--data", str(tmp_path / "p"), "--out", str(tmp_path / "run")]) == 2
    assert "1 of 2 files" in capsys.readouterr().err


# Large pictures and bombs


def jpeg(width, height):
    y, x = np.mgrid[0:height, 0:width]
    out = io.BytesIO()
    Image.fromarray(
        np.stack(
            [x * 255 // width, y * 255 // height, 255 * np.sin(np.pi * x / width) * np.sin(np.pi * y / height)], 2
        ).astype(np.uint8)
    ).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize("orientation", [1, 6, 8])
@pytest.mark.parametrize("size", [(2000, 1500), (1111, 2222)])
def test_large_jpegs_look_the_same_when_they_are_read_small(tmp_path, size, orientation, monkeypatch):
    with Image.open(io.BytesIO(jpeg(*size))) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        (tmp_path / "p").mkdir()
        image.save(tmp_path / "p" / "a.jpg", exif=exif, quality=95)
    fill(tmp_path / "p", ["b.png"])
    small = load(str(tmp_path / "p"), size=32, cache="none").x[0]
    with monkeypatch.context() as patch:
        patch.setattr("PIL.JpegImagePlugin.JpegImageFile.draft", lambda *_: None)
        whole = load(str(tmp_path / "p"), size=32, cache="none").x[0]
    assert np.abs(small - whole).max() < 0.05
    assert np.abs(small - whole).mean() < 0.005
    assert (small != whole).any()
    np.testing.assert_array_equal(load(str(tmp_path / "p"), size=32, fast_jpegs=False).x[0], whole)


def png_claiming(width, height):
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(7_000, 7_000), (10_000, 10_000), (30_000, 30_000), (2**31 - 1, 2)])
def test_pictures_that_claim_too_many_pixels_are_refused(photos, size):
    (photos / "bomb.png").write_bytes(png_claiming(*size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(cm.Error, match=r"1 of 7 files .*bomb\.png"):
            load(str(photos))


# Sizes


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(8, 8), (4, 8), (8, 3)])
def test_pictures_are_fitted(tmp_path, fit, size):
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (10, 0, 30, 20))
    x = np.asarray(fitted(image, size, fit)).astype(int)
    assert x.shape == (*size, 3)
    corner = x[0, 0].tolist()
    middle = x[size[0] // 2, size[1] // 2]
    assert middle[2] > 200
    if fit == "squash":
        assert corner[0] > 150
        assert corner[1] < 50
    if fit == "pad" and size != (4, 8):
        assert corner == [255, 255, 255]
    if fit == "crop" and size == (8, 8):
        assert (x[..., 2] > 200).all()


@needs_training
@pytest.mark.parametrize("size", ["50", "17", "63", "16x24", "33x50"])
def test_any_size_trains_and_samples(tmp_path, photos, size):
    fill(photos, ["wide.png"], (20, 60))
    arguments = [
        "train",
        "--data",
        str(photos),
        "--size",
        size,
        "--backend",
        TRAINABLE[0],
        "--no-compile",
        "--steps",
        "1",
    ]
    arguments += ["--network", "conv", "--width", "8", "--blocks", "1", "--batch", "2", "--sample-every", "5"]
    assert cli.main([*arguments, "--recipe", "ect", "--out", str(tmp_path / "run")]) == 0
    sides = tuple(int(side) for side in size.split("x"))
    model = load_model(tmp_path / "run")
    assert model.data.shape == (3, *(sides * 2)[:2])
    out = tmp_path / "x.npz"
    assert cli.main(["sample", str(tmp_path / "run"), "--n", "2", "--backend", TRAINABLE[0], "--out", str(out)]) == 0
    assert np.load(out)["x"].shape == (2, *model.data.shape)


def test_a_network_is_made_for_every_size():
    for height in range(16, 71):
        for width in (height, 16, 47, 64):
            x = np.linspace(-1, 1, 2 * height * width, dtype=np.float32).reshape(2, 1, height, width)
            data = cm.run.data.Dataset(x, None, (), None, "toy", True)
            levels = len(make_plan(Config(), data).architecture.multipliers)
            assert levels == 3 or height % 2**levels or width % 2**levels
            assert not height % 2 ** (levels - 1)
            assert not width % 2 ** (levels - 1)


@pytest.mark.parametrize("wrong", ["0", "8x0", "8x8x8", "big", ""])
def test_sizes_that_cannot_be_are_sentences(photos, tmp_path, wrong, capsys):
    try:
        status = training(photos, tmp_path / "run", "--size", wrong)
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert "--size" in capsys.readouterr().err


def test_options_of_pictures_are_refused_elsewhere(tmp_path):
    with pytest.raises(ValueError, match="crop, pad, squash"):
        load("digits", fit="stretch")
    assert decoding.SIDE == 32
