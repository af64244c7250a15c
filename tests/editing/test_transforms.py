"""Orthogonal transforms against dense matrices, and what is put in its place."""

import math

import numpy as np
import pytest

from cmcore import editing
from cmcore.editing import Basis, Channels, Identity, Known, Patches

TURN = np.array([[0.6, -0.8], [0.8, 0.6]])
CASES = [
    (Identity(), (2, 3, 4)),
    (Channels(), (3, 2, 4)),
    (Channels((1.0, 0.0, 0.0, 0.0)), (4, 2)),
    (Patches(2), (2, 4, 6)),
    (Patches(1), (1, 2, 2)),
    (Patches(3), (1, 3, 3)),
    (Basis(TURN), (2,)),
]
EXACT = 1e-12


def matrix(lib, transform, shape):
    """The transform as a matrix: the coordinates of the unit vectors, a row each."""
    size = math.prod(shape)
    units = lib.asarray(np.eye(size).reshape(size, *shape), "float64")
    return lib.to_numpy(transform.forward(units)).reshape(size, size)


@pytest.mark.spares_tinygrad
@pytest.mark.parametrize(("transform", "shape"), CASES, ids=str)
def test_transforms_are_orthogonal(lib, transform, shape):
    dense = matrix(lib, transform, shape)
    assert np.abs(dense @ dense.T - np.eye(len(dense))).max() < EXACT
    x = np.random.default_rng(0).normal(size=(3, *shape))
    there = transform.forward(lib.asarray(x, "float64"))
    back = transform.inverse(there)
    assert back.dtype == there.dtype
    assert np.abs(lib.to_numpy(back) - x).max() < EXACT
    assert np.abs(lib.to_numpy(there).reshape(3, -1) - x.reshape(3, -1) @ dense).max() < EXACT


def test_the_first_direction_of_colours_is_grey(lib):
    dense = matrix(lib, Channels(), (3, 1, 1))
    assert np.abs(dense[:, 0] - np.array(editing.LUMA) / np.linalg.norm(editing.LUMA)).max() < EXACT
    assert sum(editing.LUMA) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.spares_tinygrad
@pytest.mark.parametrize("p", [2, 4])
def test_the_first_direction_of_a_patch_is_its_mean(lib, p):
    x = np.random.default_rng(1).normal(size=(2, 3, 2 * p, p))
    means = x.reshape(2, 3, 2, p, 1, p).mean((3, 5))
    first = lib.to_numpy(Patches(p).forward(lib.asarray(x, "float64")))[..., 0]
    assert np.abs(first - p * means).max() < EXACT
    assert np.abs(lib.to_numpy(editing.downsampled(lib.asarray(x, "float64"), p)) - means).max() < EXACT


def test_known_pixels_are_put_back_to_the_bit(lib):
    rng = np.random.default_rng(2)
    image, x = (rng.normal(size=(2, 1, 4, 4)).astype(np.float32) for _ in range(2))
    mask = (rng.random((1, 1, 4, 4)) < 0.5).astype(np.float32)
    known = editing.inpainting(*(lib.asarray(a, "float32") for a in (image, mask)))
    assert np.array_equal(lib.to_numpy(known.put(lib.asarray(x, "float32"))), np.where(mask > 0, image, x))
    assert np.array_equal(lib.to_numpy(known.start()), np.where(mask > 0, image, 0))


def test_grey_is_kept_and_the_rest_is_not_touched(lib):
    rng = np.random.default_rng(3)
    grey, x = rng.uniform(-1, 1, (2, 1, 3, 2)), rng.normal(size=(2, 3, 3, 2))
    luma = np.array(editing.LUMA)
    known = editing.colourising(lib.asarray(grey, "float64"))
    out = lib.to_numpy(known.put(lib.asarray(x, "float64")))
    assert np.abs(np.tensordot(luma, out, axes=([0], [1])) - grey[:, 0]).max() < EXACT
    across = np.array([[0.587, -0.299, 0.0], [0.114, 0.0, -0.299]])  # the plane that grey is perpendicular to
    assert np.abs(np.tensordot(across, out - x, axes=([1], [1]))).max() < EXACT


@pytest.mark.spares_tinygrad
def test_the_means_of_patches_are_kept_and_the_rest_is_not_touched(lib):
    rng = np.random.default_rng(4)
    small, x = rng.uniform(-1, 1, (1, 2, 2, 3)), rng.normal(size=(3, 2, 8, 12))
    known = editing.upscaling(lib.asarray(small, "float64"), 4)
    out = lib.to_numpy(known.put(lib.asarray(x, "float64")))
    patches, before = (a.reshape(3, 2, 2, 4, 3, 4) for a in (out, x))
    assert np.abs(patches.mean((3, 5)) - small).max() < EXACT
    detail, old = (a - a.mean((3, 5), keepdims=True) for a in (patches, before))
    assert np.abs(detail - old).max() < EXACT


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: Patches(0), "1 or more"),
        (lambda: Channels((0.0, 0.0)), "not all 0"),
        (lambda: Basis(np.ones((2, 2))), "orthogonal"),
        (lambda: Basis(TURN).forward(np.ones((1, 3))), "shape"),
        (lambda: Patches(2).forward(np.ones((1, 1, 3, 4))), "must fill"),
        (lambda: Channels().forward(np.ones((1, 2, 4))), "3 channels"),
        (lambda: Known(np.ones((1, 2)), np.ones((1, 3))), "broadcast"),
        (lambda: Known(np.ones((1, 2)), np.ones(2)), "broadcast"),
        (lambda: Known(np.ones((1, 2)), np.ones((1, 2)), "patches"), "transform must be"),
        (lambda: editing.colourising(np.ones((1, 2, 2, 2))), "grey or RGB"),
        (lambda: editing.upscaling(np.ones((1, 2)), 2), "must have the shape"),
    ],
)
def test_what_does_not_fit_is_told(made, match):
    with pytest.raises((ValueError, TypeError), match=match):
        made()
