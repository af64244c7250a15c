"""Noise between noises, the noise of a picture, and pictures without their noise, against closed forms."""

import numpy as np
import pytest

from cmcore import sampling
from cmcore.editing import denoise, encode, noise_level, spherical
from cmcore.oracles import Along, Gaussian
from cmcore.paths import Linear

RNG = np.random.default_rng(0)


def test_the_great_circle_is_the_papers_formula_for_each_pair(lib):
    a, b, share = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)), np.array([0.25, 0.5, 1.0])
    got = lib.to_numpy(spherical(*(lib.asarray(v, "float64") for v in (a, b, share))))
    for row, (u, v, s) in enumerate(zip(a, b, share, strict=True)):
        psi = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
        assert np.abs(got[row] - (np.sin((1 - s) * psi) * u + np.sin(s * psi) * v) / np.sin(psi)).max() < 1e-12


def test_the_great_circle_where_there_is_none():
    a = np.array([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    b = np.array([[6.0, 8.0], [-3.0, -4.0], [1.0, 0.0]])
    got = spherical(a, b, 0.25)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[0], 0.75 * a[0] + 0.25 * b[0], rtol=1e-12)


@pytest.mark.spares_tinygrad
def test_encoding_finds_the_noise(lib):
    path, law = Linear(), Gaussian(0.1, covariance=[[0.3, 0.1], [0.1, 0.2]])
    flow = Along(law, path).flow
    times = tuple(1.0 - i / 16 for i in range(17))

    def jump(x, t, s):  # the noise's end is reached, where nothing of the data is left
        return flow(x, t - 1e-9, s)

    z = RNG.normal(size=(3, 2))
    x = sampling.flow_map(jump, lib.asarray(z, "float64"), times, path)
    back = lib.to_numpy(encode(jump, x, times, path, iterations=20))
    assert np.abs(back - z).max() < 1e-5
    rough = lib.to_numpy(encode(jump, x, times, path, iterations=1))
    assert np.abs(rough - z).max() > 1e-2


def test_denoising_asks_for_the_noises_time(lib):
    law = Gaussian(0.0, 0.5)
    x = RNG.normal(size=(2, 3))
    got = lib.to_numpy(denoise(lambda x, t: law.consistency(x, t, 0.0), lib.asarray(x, "float64"), 0.4))
    np.testing.assert_allclose(got, x * 0.5 / np.hypot(0.5, 0.4), rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.05, 0.4])
def test_the_noise_is_estimated_beside_edges(sigma):
    picture = np.where(np.add.outer(np.arange(64), np.arange(64)) < 60, -0.5, 0.5)[None, None]
    picture = picture + 0.1 * np.arange(64)  # a slope, which is no noise either
    noisy = picture + sigma * np.random.default_rng(1).normal(size=(2, 1, 64, 64))
    assert np.abs(noise_level(noisy) / sigma - 1).max() < 0.1


def test_what_cannot_be_is_told():
    with pytest.raises(ValueError, match="at least 2 x 2"):
        noise_level(np.ones((1, 1, 1, 4)))
    with pytest.raises(ValueError, match="must decrease"):
        encode(lambda x, t, s: x, np.ones((1, 2)), (0.0, 1.0))
