"""What is kept from training, what is done to pictures, and what is said of both."""

import numpy as np
import pytest
from conftest import TRAINABLE
from PIL import Image
from toy import make_data

from cmcore import Error
from cmcore.run import augment, cli
from cmcore.run.config import Config
from cmcore.run.data import load
from cmcore.run.folder import RunFolder
from cmcore.run.plan import fingerprint, make_plan
from cmcore.run.train import train

RNG = np.random.default_rng(0)
needs_training = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")


def fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "photos", [f"{kind}/{i}.png" for kind in "ab" for i in range(10)])


def notes_of(source, **options):
    notes = []
    return load(str(source), note=notes.append, **options), notes


def rows(x):
    return {row.tobytes() for row in x}


@pytest.mark.parametrize("cache", ["none", None])
def test_a_share_is_kept_from_training(photos, cache):
    whole = load(str(photos), classes=True, cache=cache)
    data, notes = notes_of(photos, classes=True, cache=cache, held_out=0.25)
    assert (len(data), len(data.held_out)) == (15, 5)
    assert rows(data.x) | rows(data.held_out) == rows(whole.x)
    assert not rows(data.x) & rows(data.held_out)
    by_row = {x.tobytes(): label for x, label in zip(whole.x, whole.labels, strict=True)}
    assert [by_row[x.tobytes()] for x in data.x] == data.labels.tolist()
    assert (
        notes[-1] == "photos: 15 images of 32 x 32, RGB, 5 held out, 2 classes (a 8, b 7)." or "5 held out" in notes[-1]
    )
    again = load(str(photos), cache=cache, held_out="0.25")
    assert again.x.tobytes() == data.x.tobytes()
    assert again.held_out.tobytes() == data.held_out.tobytes()
    assert fingerprint(load(str(photos), held_out=0.25)) != fingerprint(load(str(photos), held_out=0.3))
    assert data.sigma_data == pytest.approx(data.x.astype(np.float64).std(), rel=1e-9)
    for step in range(4):
        assert not rows(data.batch(0, step, 9)[0]) & rows(data.held_out)


def test_a_share_of_what_was_skipped_is_not_held_out(photos):
    (photos / "a" / "5.png").write_bytes(b"nonsense")
    data = load(str(photos), held_out=0.5, skip_broken=True)
    assert (len(data), len(data.held_out)) == (9, 10)
    assert -1 not in {x.max() for x in (*data.x, *data.held_out)}  # black is what stands in for it


def test_a_folder_inside_is_held_out_and_not_trained_on(photos, tmp_path):
    fill(photos, ["test/0.png", "test/1.png"])
    fill(tmp_path / "elsewhere", ["x.png", "y.png"])
    data, notes = notes_of(photos, held_out=str(photos / "test"), size=(6, 5), classes=True)
    assert (len(data), data.held_out.shape, data.classes) == (20, (2, 3, 6, 5), ("a", "b"))
    assert rows(data.held_out) == rows(load(str(photos / "test"), size=(6, 5)).x)
    assert "test is held out, and left out of what is trained on." in notes
    (tmp_path / "link").symlink_to(photos / "test")
    assert len(load(str(photos), held_out=str(tmp_path / "link"))) == 20
    data, notes = notes_of(photos, held_out=str(tmp_path / "elsewhere"))
    assert (len(data), len(data.held_out)) == (22, 2)
    assert notes[-1] == "photos: 22 images of 32 x 32, RGB, 2 held out."


def test_grey_pictures_are_held_out_of_coloured_ones(photos, tmp_path):
    (tmp_path / "grey").mkdir()
    for i in range(2):
        Image.fromarray(RNG.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "grey" / f"{i}.png")
    assert load(str(photos), held_out=str(tmp_path / "grey")).held_out.shape == (2, 3, 32, 32)


def test_what_a_source_itself_holds_out_is_left_alone():
    data, notes = notes_of("digits", held_out=1 / 3, classes=True)
    assert (len(data), len(data.held_out), len(data.labels)) == (600, 300, 600)
    assert not rows(data.held_out) & rows(load("digits").held_out)
    assert "The 897 samples that digits itself holds out are left alone." in notes


@pytest.mark.parametrize(
    ("held_out", "told"),
    [
        ("0", "above 0 and below 1"),
        ("1", "above 0 and below 1"),
        ("10", "above 0 and below 1"),
        ("nan", "above 0 and below 1"),
        ("-0.1", "above 0 and below 1"),
        ("0.99", "leaves 0 of the 20"),
        ("nowhere", "no folder or file 'nowhere'"),
        (".", "holds all of --data"),
        ("..", "holds all of --data"),
    ],
)
def test_what_cannot_be_held_out(photos, monkeypatch, held_out, told):
    monkeypatch.chdir(photos)
    with pytest.raises((Error, ValueError), match=told):
        load(".", held_out=held_out)


@needs_training
def test_a_run_evaluates_with_what_it_held_out(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", ["test/0.png", "test/1.png", "test/2.png"])
    options = ["--steps", "2", "--batch", "4", "--size", "4", "--width", "8", "--blocks", "1", "--no-compile", "--flip"]
    for held_out, count in (("0.25", 6), ("photos/test", 3)):
        out = f"run{count}"
        start = ["train", "--data", "photos", "--out", out, "--backend", TRAINABLE[0], "--held-out", held_out]
        assert cli.main([*start, *options]) == 0
        assert cli.main(["eval", out, "--n", "4", "--steps", "1", "--backend", "numpy"]) == 0
        assert f"against {count} held-out samples" in capsys.readouterr().out
        assert RunFolder(tmp_path / out).read()[0].flip
    monkeypatch.chdir(photos)  # whatever folder a run goes on in
    assert cli.main(["eval", "../run3", "--n", "4", "--steps", "1", "--backend", "numpy"]) == 0
    assert "against 3 held-out samples" in capsys.readouterr().out
    (tmp_path / "run6" / "model.safetensors").unlink()
    resume = ["train", "--out", "../run6", "--resume"]
    assert cli.main([*resume, "--held-out", "0.5"]) == 2
    assert "with the same --held-out" in capsys.readouterr().err
    assert cli.main(resume) == 0
    (photos / "test").rename(tmp_path / "moved")
    (tmp_path / "run3" / "model.safetensors").unlink()
    assert cli.main(["train", "--out", "../run3", "--resume", "--held-out", "../moved"]) == 0


# Flips


def test_half_of_the_pictures_are_flipped_and_which_depends_on_the_step_alone():
    x = RNG.uniform(-1, 1, (1000, 3, 4, 5)).astype(np.float32)
    first = augment.flipped(x, 3, 7)
    turned = (first == x[..., ::-1]).all(axis=(1, 2, 3))
    assert ((first == x).all(axis=(1, 2, 3)) ^ turned).all()
    assert 440 < turned.sum() < 560
    assert augment.flipped(x, 3, 7).tobytes() == first.tobytes()
    np.testing.assert_array_equal(augment.flipped(x[:10], 3, 7), first[:10])
    for other in ((3, 8), (4, 7)):
        agree = (augment.flipped(x, *other) == first).all(axis=(1, 2, 3)).mean()
        assert 0.4 < agree < 0.6


def test_data_that_are_no_pictures_are_not_flipped():
    with pytest.raises(Error, match="--flip turns pictures"):
        make_plan(Config(flip=True), make_data((4,)))


@needs_training
def test_flips_are_trained_on_and_resumed_exactly(tmp_path):
    data = make_data()
    seen = []
    config = Config(flip=True, steps=6, batch=8, width=8, blocks=1, compiled=False, save_every=2, backend=TRAINABLE[0])
    weights = train(config, data).weights
    plain = train(Config(**{**vars(config), "flip": False}), data).weights
    assert any((weights[name] != plain[name]).any() for name in weights)
    original = augment.flipped

    def stopped(x, seed, step, rows):
        seen.append(step)
        if step == 5 and len(seen) == 6:
            raise KeyboardInterrupt
        return original(x, seed, step, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cmcore.run.loop.flipped", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config, data, out=tmp_path / "run")
        resumed = train(config, data, out=tmp_path / "run", resume=True).weights
    assert seen == [0, 1, 2, 3, 4, 5, 4, 5]
    assert all((resumed[name] == weights[name]).all() for name in weights)


# What is said


def test_what_was_done_to_pictures_is_said_in_a_line(tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "0.png")
    Image.fromarray(RNG.integers(0, 256, (16, 16, 4), np.uint8)).save(folder / "1.png")
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).save(folder / "2.png")
    with Image.open(folder / "0.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(folder / "3.png", exif=exif)
        image.save(folder / "4.gif", save_all=True, append_images=[image.rotate(90)])
    for cache in ("none", None, None):
        notes = notes_of(folder, size=8, cache=cache)[1]
        assert notes[-2] == (
            "Of 5 pictures, 1 turned as their EXIF says, 1 taken by their first frame, 1 put on white where they are "
            "transparent, 1 cut to their central part, 2 resized to 8 x 8."
        )
    assert "all resized to 4 x 4." in notes_of(folder, size=4)[1][-2]
    assert "1 padded with white," in notes_of(folder, size=8, fit="pad")[1][-2]
    for name in ("1.png", "2.png", "3.png", "4.gif"):
        (folder / name).unlink()
    Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "1.png")
    assert not any(note.startswith("Of ") for note in notes_of(folder, size=8)[1])
