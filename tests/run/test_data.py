import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cmcore import Error
from cmcore.run.data import Dataset, fashion, load
from cmcore.run.data.convert import resized
from cmcore.run.data.dataset import permutation, split

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def dataset(n=10, labels=False):
    x = np.arange(n, dtype=np.float32)[:, None]
    return Dataset(x, np.arange(n) if labels else None, tuple("abcdefghij"[:n]), None, "numbers", False)


def idx_bytes(array, kind=8):
    return bytes((0, 0, kind, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


# Batches


@settings(max_examples=100)
@given(n=st.integers(2, 10), seed=st.integers(0, 3), step=st.integers(0, 40), size=st.integers(1, 25))
def test_batches_of_an_epoch_visit_every_sample_once(n, seed, step, size):
    data = dataset(n)
    stream = np.concatenate([data.batch(seed, k, size)[0][:, 0] for k in range(step + 1)])
    for start in range(0, len(stream) - n + 1, n):
        assert sorted(stream[start : start + n]) == list(range(n))
    rest = stream[len(stream) - len(stream) % n :]
    assert len(set(rest)) == len(rest)


def test_batch_depends_on_its_arguments_only():
    first = dataset().batch(5, 17, 4)[0]
    data = dataset()
    for step in (3, 99, 17, 0):
        data.batch(5, step, 4)
        data.batch(6, step, 4)
    permutation.cache_clear()
    np.testing.assert_array_equal(first, data.batch(5, 17, 4)[0])


def test_epochs_and_seeds_differ():
    data = Dataset(np.arange(100, dtype=np.float32)[:, None], None, (), None, "numbers", False)
    first, second, other = data.batch(0, 0, 100)[0], data.batch(0, 1, 100)[0], data.batch(1, 0, 100)[0]
    assert (first != second).mean() > 0.8
    assert (first != other).mean() > 0.8
    assert (second != other).mean() > 0.8


def test_labels_follow_their_samples():
    x, labels = dataset(labels=True).batch(0, 3, 7)
    np.testing.assert_array_equal(x[:, 0], labels)
    assert labels.dtype == np.int64
    assert dataset().batch(0, 3, 7)[1] is None


def test_changing_a_batch_leaves_the_data_alone():
    data = dataset()
    data.batch(0, 0, 10)[0][:] = 99
    assert data.x.max() == 9


def test_the_order_of_training_never_changes():
    # Stored runs resume with these numbers.
    assert permutation(0, 0, 8).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert permutation(3, 1, 8).tolist() == [5, 6, 3, 7, 0, 1, 2, 4]


@pytest.mark.parametrize("arguments", [(-1, 0, 1), (0, -1, 1), (0, 0, 0)])
def test_batch_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=r"must be at least .*, got"):
        dataset().batch(*arguments)


def test_split_is_a_partition():
    train, held_out = split(1797, 897)
    assert len(train) == 900
    assert sorted([*train, *held_out]) == list(range(1797))


# The data set itself


@pytest.mark.parametrize("offset", [0, 1000])
def test_sigma_data(offset):
    x = (RNG.normal(size=(1000, 3, 20, 20)) * 2 + offset).astype(np.float32)
    big = np.concatenate([x] * 8)  # more values than one piece holds
    data = Dataset(big, None, (), None, "normal", False)
    assert data.sigma_data == pytest.approx(np.std(big.astype(np.float64)), rel=1e-12)
    assert data.shape == (3, 20, 20)


IMAGES = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": IMAGES[:1]}, "holds 1 sample"),
        ({"x": IMAGES[:0]}, "none of its axes empty"),
        ({"x": IMAGES * np.float32(1.01)}, r"must have values in \[-1, 1\].*from -1.01 to 1.01"),
        ({"x": IMAGES - np.float32(0.01)}, "range from -1.01 to 0.99"),
        ({"x": np.where(IMAGES > 0.99, np.float32("nan"), IMAGES)}, "NaN or infinite"),
        ({"x": np.where(IMAGES > 0.99, np.float32("-inf"), IMAGES)}, "NaN or infinite"),
        ({"x": np.full_like(IMAGES, 0.5)}, "Every value .* is 0.5"),
        ({"x": IMAGES.astype(np.float64)}, "must be float32, got float64"),
        ({"x": IMAGES[:, 0]}, "1 or 3 channels"),
        ({"x": IMAGES.reshape(2, 4, 2, 2)}, "1 or 3 channels"),
        ({"held_out": IMAGES[:, :, :2]}, r"must have shape \(1, 4, 4\) like"),
        ({"held_out": IMAGES * np.float32("nan")}, "held-out part of .* NaN"),
        ({"labels": np.zeros(3, np.int64)}, r"must be \(2,\) int64"),
        ({"labels": np.zeros(2, np.int32)}, r"must be \(2,\) int64"),
        ({"labels": np.array([0, 1])}, r"must lie in \[0, 1\)"),
        ({"labels": np.array([0, -1])}, r"must lie in \[0, 1\)"),
    ],
)
def test_what_cannot_be_trained_on(changes, sentence):
    good = {"x": IMAGES, "labels": None, "classes": ("a",), "held_out": None, "name": "them", "images": True}
    Dataset(**good)
    with pytest.raises(ValueError, match=sentence):
        Dataset(**(good | changes))


# Named sets


def test_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    data = load("digits", classes=True)
    assert data.x.shape == (900, 1, 8, 8)
    assert data.held_out.shape == (897, 1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert load("digits").labels is None
    pixels, labels = datasets.load_digits(return_X_y=True)
    rows = {(*row, label) for row, label in zip(pixels.tolist(), labels, strict=True)}
    ours = {(*row, label) for row, label in zip(((data.x + 1) * 8).reshape(900, 64).tolist(), data.labels, strict=True)}
    assert ours <= rows
    both = np.concatenate([data.x, data.held_out]).reshape(-1, 64)
    assert len(np.unique(both, axis=0)) == len(np.unique(pixels, axis=0))
    assert (data.x.min(), data.x.max()) == (-1, 1)
    assert data.sigma_data == pytest.approx(0.7522393161760362, rel=1e-12)


def test_named_sets_take_a_size_and_channels():
    pytest.importorskip("sklearn.datasets")
    data = load("digits", size=16, channels=3)
    assert data.x.shape == (900, 3, 16, 16)
    assert data.held_out.shape == (897, 3, 16, 16)
    np.testing.assert_array_equal(data.x[:, 0], data.x[:, 2])


@pytest.mark.parametrize("size", [8, 24])
def test_resizing_a_ramp_gives_a_ramp(size):
    y, x = np.mgrid[-1:1:17j, -1:1:17j][:, :-1, :-1] + 1 / 16
    y, x = resized(np.stack([y, x])[None].astype(np.float32), (size, size))[0]
    inner, centres = slice(size // 4, -size // 4), (np.arange(size) + 0.5) * 2 / size - 1
    np.testing.assert_allclose(y[inner, inner], np.broadcast_to(centres[inner, None], y[inner, inner].shape), atol=5e-3)
    np.testing.assert_allclose(x[inner, inner], np.broadcast_to(centres[inner], x[inner, inner].shape), atol=5e-3)


def test_fashion_mnist_from_a_folder_of_ones_own(tmp_path, monkeypatch):
    train, test, labels = noise(5, 28, 28), noise(3, 28, 28), np.array([0, 9, 1, 1, 5], np.uint8)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(train))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(test)))
    monkeypatch.setenv("CMCORE_FASHION_MNIST", str(tmp_path))
    data = load("fashion-mnist", classes=True)
    np.testing.assert_allclose(data.x[:, 0], train / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(data.held_out[:, 0], test / 127.5 - 1, atol=1e-6)
    assert [data.classes[label] for label in data.labels] == [
        "T-shirt/top", "Ankle boot", "Trouser", "Trouser", "Sandal",
    ]  # fmt: skip
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(Error, match=r"holds no t10k-images-idx3-ubyte.*dataset-fashion-mnist"):
        load("fashion-mnist")


@pytest.mark.skipif(not Path(fashion.FOLDER).is_dir(), reason="not installed")
def test_fashion_mnist():
    data = load("fashion-mnist", classes=True)
    assert data.x.shape == (60000, 1, 28, 28)
    assert data.held_out.shape == (10000, 1, 28, 28)
    assert np.bincount(data.labels).tolist() == [6000] * 10


def test_emoji():
    pytest.importorskip("fontTools")
    try:
        data = load("emoji", size=16)
    except Error as error:
        pytest.skip(str(error))
    n = len(data.x) + len(data.held_out)
    assert n > 1000
    assert len(data.held_out) == n // 10
    assert data.shape == (3, 16, 16)
    assert data.x[:, :, 0].mean() > 0.7  # white above the emoji


def test_emoji_font_missing_or_damaged(tmp_path, monkeypatch):
    pytest.importorskip("fontTools")
    font = tmp_path / "font.ttf"
    monkeypatch.setenv("CMCORE_EMOJI_FONT", str(font))
    with pytest.raises(Error, match="fonts-noto-color-emoji"):
        load("emoji")
    font.write_bytes(b"\0\1\0\0" + bytes(50))
    with pytest.raises(Error, match="cannot be read as a font with colour bitmaps"):
        load("emoji")


@pytest.mark.parametrize(("module", "source"), [("sklearn.datasets", "digits"), ("fontTools.ttLib", "emoji")])
def test_optional_package_missing(module, source, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Error, match=rf'pip install "cmcore\[{source}\]"'):
        load(source)


# Folders


def test_folder_of_every_mode_and_format(tmp_path):
    colour = noise(20, 30, 3)
    grey16 = RNG.integers(0, 65536, (20, 20), dtype=np.uint16)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    Image.fromarray(colour).save(tmp_path / "rgb.png")
    Image.fromarray(colour).save(tmp_path / "deep" / "rgb.JPG", "JPEG")
    Image.fromarray(colour).save(tmp_path / "deep" / "er" / "rgb.webp")
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.bmp")
    Image.fromarray(noise(20, 20, 4)).save(tmp_path / "rgba.png")
    Image.fromarray(noise(20, 20, 2), "LA").save(tmp_path / "la.png")
    Image.fromarray(colour).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(noise(20, 20, 4)).save(tmp_path / "cmyk.tif")
    Image.fromarray(noise(20, 20, 4), "CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(colour[..., 0] > 99).save(tmp_path / "bits.png")
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    Image.fromarray(grey16).save(tmp_path / "grey16.tif")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.png").write_text("not an image")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    data = load(str(tmp_path))
    assert data.x.shape == (12, 3, 32, 32)
    assert data.held_out is None
    assert data.name == tmp_path.name
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def one(tmp_path, image, *, name="a.png", **saving):
    """What a folder makes of an image: uint8 (size, size, C), next to a coloured image of the same size."""
    image.save(tmp_path / name, **saving)
    Image.fromarray(noise(*image.size[::-1], 3)).save(tmp_path / "z.png")
    x = load(str(tmp_path), size=min(image.size)).x[0]
    return np.rint((np.moveaxis(x, 0, 2) + 1) * 127.5).astype(np.uint8)


def test_pixels_are_exact_without_a_resize(tmp_path):
    pixels = noise(9, 9, 3)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(pixels)), pixels)


@pytest.mark.parametrize("shape", [(8, 13), (13, 8)])
def test_cuts_the_central_square(tmp_path, shape):
    pixels = noise(*shape, 3)
    top, left = ((side - 8) // 2 for side in shape)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(pixels)), pixels[top : top + 8, left : left + 8])


def test_16_bit_grey_is_scaled(tmp_path):
    pixels = RNG.integers(0, 65536, (9, 9), dtype=np.uint16)
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(pixels))[..., 1], np.rint(pixels / 257))


def test_transparent_parts_are_white(tmp_path):
    pixels = noise(9, 9, 4)
    pixels[:4, :, 3], pixels[4:8, :, 3] = 0, 255
    seen = one(tmp_path, Image.fromarray(pixels))
    assert (seen[:4] == 255).all()
    np.testing.assert_array_equal(seen[4:8], pixels[4:8, :, :3])
    alpha = pixels[8:, :, 3:] / 255
    np.testing.assert_allclose(seen[8:], pixels[8:, :, :3] * alpha + 255 * (1 - alpha), atol=1)


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_a_transparent_colour_is_white(tmp_path, mode):
    image = Image.new("RGB", (9, 9), "red").convert(mode)
    transparent = image.getpixel((0, 0))
    image.putpixel((4, 4), Image.new("RGB", (1, 1), "black").convert(mode).getpixel((0, 0)))
    seen = one(tmp_path, image, transparency=transparent)
    assert (seen[0] == 255).all()
    assert (seen[4, 4] == 0).all()


def test_turned_as_exif_says(tmp_path):
    pixels = noise(9, 9, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(one(tmp_path, Image.fromarray(pixels), exif=exif), np.rot90(pixels, -1))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue")]
    seen = one(tmp_path, frames[0], name="a.gif", save_all=True, append_images=frames[1:])
    assert (seen == (255, 0, 0)).all()


def test_resizes_with_a_filter(tmp_path):
    board = np.kron(np.indices((64, 64)).sum(0) % 2, np.ones((1, 1))) * 255
    Image.fromarray(np.repeat(board[..., None], 3, 2).astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(noise(64, 64, 3)).save(tmp_path / "b.png")
    inner = load(str(tmp_path), size=16).x[0, :, 2:-2, 2:-2]
    assert np.abs(inner).max() < 0.05  # nearest neighbour would give -1 or 1


def test_grey_only_if_every_pixel_is(tmp_path):
    for i in range(3):
        Image.fromarray(noise(8, 8)).convert("RGB" if i else "L").save(tmp_path / f"{i}.png")
    assert load(str(tmp_path)).shape == (1, 32, 32)
    assert load(str(tmp_path), channels=3).shape == (3, 32, 32)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0, 0] = 200
    Image.fromarray(pixels).save(tmp_path / "3.png")
    assert load(str(tmp_path)).shape == (3, 32, 32)
    grey = load(str(tmp_path), channels=1, size=8).x
    assert grey.shape[1:] == (1, 8, 8)
    assert grey[3, 0, 0, 0] == pytest.approx(200 * 0.299 / 127.5 - 1, abs=1e-6)


def test_sub_folders_are_classes_and_the_order_is_that_of_paths(tmp_path):
    for name, value in (("b/x", 10), ("a/2", 20), ("a/10", 30), ("a/deep/1", 240), ("c", None)):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if value:
            Image.new("L", (4, 4), value).save(path)
    (tmp_path / "empty").mkdir()
    data = load(str(tmp_path), size=4, classes=True)
    assert np.rint((data.x[:, 0, 0, 0] + 1) * 127.5).tolist() == [30, 20, 240, 10]
    assert data.labels.tolist() == [0, 0, 0, 1]
    assert data.classes == ("a", "b")
    plain = load(str(tmp_path), size=4)
    assert (plain.labels, plain.classes) == (None, ())
    Image.new("L", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(Error, match=r"in a sub-folder .* loose\.png does not"):
        load(str(tmp_path), classes=True)


def test_linked_folders_are_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "data").mkdir()
    for i in range(2):
        Image.new("L", (4, 4), 90 * i).save(tmp_path / "real" / f"{i}.png")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "data")
    assert len(load(str(tmp_path / "data")).x) == 2


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "webp", "tif", "bmp"])
def test_a_corrupt_image_is_named(tmp_path, kind):
    for i in range(3):
        Image.fromarray(noise(64, 64, 3)).save(tmp_path / f"{i}.{kind}")
    truncated(tmp_path / f"1.{kind}")
    with pytest.raises(Error, match=rf"1 of 3 files cannot be read as images: .*1\.{kind}"):
        load(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(Error, match=r"cannot be read as images: .*a\.png"):
        load(str(tmp_path))


def test_float_and_32_bit_pixels_are_refused(tmp_path):
    for array in (np.ones((4, 4), np.float32), np.full((4, 4), 2**20, np.int32)):
        Image.fromarray(array).save(tmp_path / "a.tif")
        with pytest.raises(Error, match=r"cannot be read as images: .*a\.tif .* 8 "):
            load(str(tmp_path))


def test_folders_without_images(tmp_path):
    with pytest.raises(Error, match="holds no images: none of its 0 files"):
        load(str(tmp_path))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(Error, match="holds no images: none of its 1 files"):
        load(str(tmp_path))


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(Error, match=r"cannot be read \(Permission denied\)"):
        load(str(tmp_path))


def test_a_folder_of_one_image_or_one_colour(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="holds 1 sample"):
        load(str(tmp_path))
    Image.new("L", (4, 4), 0).save(tmp_path / "a.png")
    Image.new("L", (4, 4), 0).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="Every value"):
        load(str(tmp_path))


# Files


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 1, 5, 7), (6, 5, 7, 1), (6, 3, 5, 7), (6, 5, 7, 3)])
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8"])
def test_npz_images(tmp_path, shape, dtype):
    bytes_ = noise(*shape)
    values = bytes_ / 127.5 - 1
    np.savez(tmp_path / "a.npz", bytes_ if dtype == "u1" else values.astype(dtype))
    data = load(str(tmp_path / "a.npz"))
    channels = {5: 1, 1: 1, 3: 3}[shape[1] if shape[-1] == 7 else shape[-1]]
    expected = values[:, None] if len(shape) == 3 else values if shape[1] == channels else np.moveaxis(values, 3, 1)
    assert data.x.shape == (6, channels, 5, 7)
    np.testing.assert_allclose(data.x, expected, atol=1e-3 if dtype == "f2" else 1e-6)
    assert load(str(tmp_path / "a.npz"), size=4, channels=1).shape == (1, 4, 4)


def test_npz_rgba_goes_on_white(tmp_path):
    pixels = noise(3, 8, 8, 4)
    pixels[..., 3] = 255
    pixels[:, :4, :, 3] = 0
    np.savez(tmp_path / "a.npz", pixels)
    x = load(str(tmp_path / "a.npz")).x
    assert (x[:, :, :4] == 1).all()
    np.testing.assert_allclose(np.moveaxis(x, 1, 3)[:, 4:], pixels[:, 4:, :, :3] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4"])
def test_points_are_kept(tmp_path, dtype):
    points = (RNG.normal(size=(50, 2)) * 40).astype(dtype)
    np.save(tmp_path / "a.npy", points)
    data = load(str(tmp_path / "a.npy"))
    assert not data.images
    assert data.x.dtype == np.float32
    np.testing.assert_allclose(data.x, points, rtol=1e-6)
    with pytest.raises(ValueError, match="apply to images only"):
        load(str(tmp_path / "a.npy"), size=8)


@pytest.mark.parametrize("name", ["x", "images", "arr_0", "mine"])
@pytest.mark.parametrize("label", ["y", "labels"])
def test_npz_names_and_labels(tmp_path, name, label):
    arrays = {name: noise(4, 8, 8), label: np.array([7, 3, 7, 5])}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    data = load(str(tmp_path / "a.npz"), classes=True)
    assert data.classes == ("3", "5", "7")
    assert data.labels.tolist() == [2, 0, 2, 1]
    assert load(str(tmp_path / "a.npz")).labels is None


def test_npz_labels_may_be_strings(tmp_path):
    np.savez(tmp_path / "a.npz", x=noise(3, 8, 8), y=np.array(["cat", "ant", "cat"]))
    data = load(str(tmp_path / "a.npz"), classes=True)
    assert (data.classes, data.labels.tolist()) == (("ant", "cat"), [1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"a": noise(4, 8, 8), "b": noise(4, 8, 8)}, "it holds a, b"),
        ({"x": noise(4, 8, 8), "y": np.zeros(3, int)}, "one label for each sample"),
        ({"x": noise(4, 8, 8), "y": np.zeros((4, 2), int)}, "one integer or string for each"),
        ({"x": noise(4, 8, 8), "y": np.full(4, 0.5)}, "one integer or string for each"),
        ({"x": np.array(3.0)}, r"holds an array of shape \(\)"),
        ({"x": noise(4, 5, 6, 7)}, r"holds an array of shape \(4, 5, 6, 7\)"),
        ({"x": noise(4, 3, 6, 7, 8)}, "holds an array of shape"),
        ({"x": noise(4, 8, 8).astype(int)}, "--range=0,255"),
        ({"x": noise(4, 8, 8).astype(float)}, "--range=0,255"),
        ({"x": np.ones((4, 8), complex)}, "must hold real numbers"),
        ({"x": np.ones((4, 8), bool)}, "there is nothing to learn"),
        ({"x": np.array(["a", "b"])}, "must hold real numbers"),
        ({"x": np.array([{}, []], object)}, "are Python objects, which are never loaded"),
        ({"x": np.array([[1, np.nan], [2, 3]])}, "NaN or infinite"),
        ({"x": np.array([[1, 1e300], [2, 3]])}, "too large for single precision"),
        ({"x": np.linspace(-1, 1, 1024, dtype=np.float32).reshape(4, 8, 8, 4)}, "1 or 3 channels"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_npz_that_cannot_be_used(tmp_path, arrays, sentence):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    before = path.read_bytes()
    with pytest.raises((Error, ValueError), match=sentence):
        load(str(path), classes="y" in arrays)
    assert path.read_bytes() == before


def test_resizing_does_not_hide_values_out_of_range(tmp_path):
    np.savez(tmp_path / "a.npz", noise(4, 8, 8).astype(float))
    with pytest.raises(Error, match="--range"):
        load(str(tmp_path / "a.npz"), size=4)


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_idx(tmp_path, gzipped, labelled):
    images, labels = noise(5, 6, 6), np.array([4, 2, 2, 4, 0], np.uint8)
    end, pack = (".gz", gzip.compress) if gzipped else ("", bytes)
    path = tmp_path / f"my-images-idx3-ubyte{end}"
    path.write_bytes(pack(idx_bytes(images)))
    if labelled:
        (tmp_path / f"my-labels-idx1-ubyte{end}").write_bytes(pack(idx_bytes(labels)))
        data = load(str(path), classes=True)
        assert [data.classes[label] for label in data.labels] == ["4", "2", "2", "4", "0"]
    else:
        data = load(str(path))
        with pytest.raises(Error, match="has no labels"):
            load(str(path), classes=True)
    np.testing.assert_allclose(data.x[:, 0], images / 127.5 - 1, atol=1e-6)


def test_idx_that_cannot_be_used(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(noise(5, 6, 6).astype(">i4"), 0x0C))
    with pytest.raises(Error, match="must hold images of unsigned bytes"):
        load(str(path))
    path.write_bytes(idx_bytes(noise(5, 6, 6)))
    (tmp_path / "labels").write_bytes(idx_bytes(noise(4)))
    with pytest.raises(Error, match="holds 5 images, but the labels"):
        load(str(path))


@pytest.mark.parametrize("kind", ["npz", "compressed.npz", "npy", "idx", "idx.gz"])
@pytest.mark.parametrize("fraction", [0, 0.01, 0.3, 0.9, 0.999])
def test_truncated_files(tmp_path, kind, fraction):
    path, x = tmp_path / f"a.{kind}", noise(9, 20, 20)
    if kind == "npz":
        np.savez(path, x)
    elif kind == "compressed.npz":
        np.savez_compressed(path, x)
    elif kind == "npy":
        np.save(path, x)
    else:
        path.write_bytes(gzip.compress(idx_bytes(x)) if kind.endswith("gz") else idx_bytes(x))
    load(str(path))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(Error, match=r"a\..*(cannot be read|not an IDX|truncated)"):
        load(str(path))


def complaint(path):
    try:
        load(str(path))
    except (Error, ValueError) as error:
        return str(error)
    return ""


@settings(max_examples=200)
@given(data=st.data(), kind=st.sampled_from(["npz", "npy", "idx", "gz"]))
def test_damaged_files_raise_sentences_only(tmp_path_factory, data, kind):
    path, x = tmp_path_factory.mktemp("damaged") / f"a.{kind}", np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    if kind in ("npz", "npy"):
        (np.savez if kind == "npz" else np.save)(path, x)
    else:
        path.write_bytes(gzip.compress(idx_bytes(x)) if kind == "gz" else idx_bytes(x))
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    assert complaint(path)[-1:] in (".", "")


@pytest.mark.parametrize("source", ["", "nowhere", "nowhere.npz"])
def test_missing_source(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Error, match=r"There is no folder or file .* digits, fashion-mnist, emoji"):
        load(source)


def test_other_files_are_refused(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a picture", "png")
    with pytest.raises(Error, match=r"not an IDX file.* images come as a folder"):
        load(str(tmp_path / "a picture"))
    np.save(tmp_path / "a.npy", noise(4, 8, 8))
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npy").read_bytes())
    with pytest.raises(Error, match=r"give it the ending \.npy"):
        load(str(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", noise(4, 8, 8))
    (tmp_path / "d.npy").write_bytes((tmp_path / "c.npz").read_bytes())
    with pytest.raises(Error, match=r"give it the ending \.npz"):
        load(str(tmp_path / "d.npy"))


@pytest.mark.parametrize(("option", "sentence"), [({"size": 0}, "at least 1"), ({"channels": 2}, r"1 channel .* or 3")])
def test_bad_options(option, sentence):
    with pytest.raises(ValueError, match=sentence):
        load("digits", **option)


def test_importing_loads_no_optional_package():
    program = "import sys, cmcore.run.data, cmcore.run.pictures; print({'sklearn', 'fontTools'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
