import numpy as np
import pytest
from PIL import Image

from cmcore.run import pictures
from cmcore.run.data import load

RNG = np.random.default_rng(0)


def images(n, channels=3, height=8, width=8):
    return RNG.uniform(-1, 1, (n, channels, height, width)).astype(np.float32)


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_to_uint8_undoes_what_loading_does(dtype, tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    np.savez(tmp_path / "a.npz", levels)
    x = load(str(tmp_path / "a.npz")).x.astype(dtype)
    np.testing.assert_array_equal(pictures.to_uint8(x)[:, 0], levels)


def test_to_uint8_rounds_and_clips():
    x = np.array([-9, -1, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0, 1, 1.001, np.inf, -np.inf])
    assert pictures.to_uint8(x).tolist() == [0, 0, 0, 1, 128, 255, 255, 255, 0]
    with pytest.raises(ValueError, match="hold NaN"):
        pictures.to_uint8(np.array([0, np.nan]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("columns", "expected"), [(None, 3), (2, 2), (7, 7), (99, 7)])
def test_every_image_is_in_its_place(channels, columns, expected):
    x = images(7, channels, 5, 6)
    picture = pictures.grid(x, columns, scale=3, padding=2)
    assert picture.mode == {1: "L", 3: "RGB"}[channels]
    assert picture.size == (expected * 20 + 2, -(-7 // expected) * 17 + 2)
    seen = np.asarray(picture).reshape(*picture.size[::-1], channels)
    covered = np.zeros(seen.shape[:2], bool)
    for i, image in enumerate(pictures.to_uint8(x)):
        top, left = 2 + i // expected * 17, 2 + i % expected * 20
        tile = seen[top : top + 15, left : left + 18]
        np.testing.assert_array_equal(tile, np.kron(np.moveaxis(image, 0, 2), np.ones((3, 3, 1), np.uint8)))
        covered[top : top + 15, left : left + 18] = True
    assert (seen[~covered] == 255).all()


@pytest.mark.parametrize(("side", "scale"), [(8, 8), (28, 2), (32, 2), (64, 1), (256, 1)])
def test_small_images_are_enlarged(side, scale):
    assert pictures.grid(images(1, 1, side, side), padding=0).size == (side * scale,) * 2


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((5, 2)), r"got \(5, 2\); save points"),
        (np.zeros((0, 3, 8, 8)), "Only images of shape"),
        (np.zeros((5, 2, 8, 8)), "1 channel .* or 3 .* got 2"),
        (np.full((5, 3, 8, 8), np.nan), "hold NaN"),
    ],
)
def test_what_cannot_be_shown(x, sentence):
    with pytest.raises(ValueError, match=sentence):
        pictures.grid(x)
    with pytest.raises(ValueError, match=sentence):
        pictures.rows([("caption", x)])
    with pytest.raises(ValueError, match=sentence):
        pictures.as_pixels(x)


@pytest.mark.parametrize("option", [{"columns": 0}, {"scale": 0}, {"padding": -1}])
def test_bad_layout(option):
    with pytest.raises(ValueError, match="A grid needs"):
        pictures.grid(images(2), **option)


def test_rows_stack_grids_under_captions():
    first, second = images(20, 1), images(3, 3)
    picture = pictures.rows([("first", first), ("a caption wider than its images" * 3, second)], columns=4, scale=2)
    seen, place = np.asarray(picture), 0
    for x in (first, second):
        block = np.asarray(pictures.grid(x, 4, 2).convert("RGB"))
        height, width = block.shape[:2]
        tops = [t for t in range(len(seen) - height + 1) if (seen[t : t + height, :width] == block).all()]
        assert len(tops) == 1
        caption = seen[place : tops[0]]
        assert (caption < 128).any()  # ink
        assert (caption[:, -2:] > 200).all()  # the text is not cut off
        place = tops[0] + height
    with pytest.raises(ValueError, match="at least one"):
        pictures.rows([])


def test_save_png(tmp_path):
    picture = pictures.grid(images(4))
    pictures.save_png(picture, tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), np.asarray(picture))
    assert files(tmp_path) == ["a.png"]


def test_a_failing_save_leaves_the_old_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="F"):
        pictures.save_png(Image.new("F", (2, 2)), path)
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == ["a.png"]
