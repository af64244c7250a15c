"""Inpainting draws from the exact conditional law, of a Gaussian with a full covariance and of a mixture with two modes."""

from functools import cache

import numpy as np
import pytest

from cmcore.editing import Known, conditional, edit
from cmcore.grids import karras_host
from cmcore.oracles import Gaussian, Mixture, Product, Rotated

TIMES = (80.0, *karras_host(19, 0.02, 1.0)[::-1])
"""20 of them."""

TURN = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
MIXED = Product([Mixture([0.4, 0.6], [-0.6, 0.4], [0.25, 0.2]), Mixture([0.7, 0.3], [-0.3, 0.5], [0.2, 0.15])])


@cache
def table(t):
    """The flow maps of the two factors to time 0 at many points, since they are increasing functions."""
    points = np.sinh(np.linspace(-8, 8, 4001)) / np.sinh(8) * (6 * t + 3)
    return points, MIXED.flow(np.stack([points, points], 1), t, 0.0)


def mixed(x, t):
    """The exact consistency function of the mixture, turned, by interpolation: 1e-5 off."""
    points, ends = table(float(t[0]))
    own = x @ TURN
    return np.stack([np.interp(own[:, i], points, ends[:, i]) for i in (0, 1)], 1) @ TURN.T


def test_the_table_is_the_flow():
    oracle = Rotated(MIXED, TURN)
    for t in (0.05, 1.0, 80.0):
        x = (0.5 + t) * np.random.default_rng(0).normal(size=(50, 2))
        assert np.abs(mixed(x, np.full(50, t)) - oracle.consistency(x, t, 0.0)).max() < 1e-4


def line(y):
    """Mean and standard deviation of the second coordinate given the first, by quadrature of the density along the line."""
    u = np.linspace(-3, 3, 20001)
    own = np.stack([np.full_like(u, y), u], 1) @ TURN
    density = np.ones_like(u)
    for factor, w in zip(MIXED.factors, own.T, strict=True):
        density *= sum(
            p / s * np.exp(-((w - m) ** 2) / (2 * s * s))
            for p, m, s in zip(factor.weights, factor.means, factor.stds, strict=True)
        )
    density /= density.sum()
    mean = (density * u).sum()
    return mean, np.sqrt((density * (u - mean) ** 2).sum())


def draws(f, known, size, populations, count=2000):
    found = []
    for seed in range(populations):
        rng = np.random.default_rng(seed)

        def noise(i, rng=rng):
            return rng.standard_normal((count, size))

        found.append(conditional(f, known, noise(0), TIMES, noise, lambda i, rng=rng: rng.random(), 0.0))
    return np.concatenate(found)


def test_of_a_mixture():
    y = -0.3
    mean, std = line(y)
    known = Known(np.array([[y, 0.0]]), np.array([[1.0, 0.0]]))
    x = draws(mixed, known, 2, 20)
    assert (x[:, 0] == y).all()
    assert abs(x[:, 1].mean() - mean) < 0.02 * std
    assert abs(x[:, 1].std() / std - 1) < 0.02

    # Algorithm 4 itself is not exact, with as many evaluations: its docstring says so.
    rng = np.random.default_rng(0)
    plain = edit(mixed, known, rng.standard_normal((4000, 2)), TIMES, lambda i: rng.standard_normal((4000, 2)), 0.0)
    assert abs(plain[:, 1].mean() - mean) > 0.3 * std


def test_of_a_gaussian():
    rng = np.random.default_rng(3)
    a = rng.normal(size=(4, 4))
    covariance = 0.25 * (a @ a.T / 4 + 0.2 * np.eye(4))
    y = np.array([0.3, -0.2])
    gain = covariance[2:, :2] @ np.linalg.inv(covariance[:2, :2])
    mean, left = gain @ y, covariance[2:, 2:] - gain @ covariance[:2, 2:]
    stds = np.sqrt(np.diag(left))
    oracle = Gaussian(0.0, covariance=covariance)
    known = Known(np.array([[*y, 0.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 0.0]]))
    x = draws(lambda x, t: oracle.consistency(x, t, 0.0), known, 4, 20)
    assert (x[:, :2] == y).all()
    assert np.abs((x[:, 2:].mean(0) - mean) / stds).max() < 0.02
    assert np.abs(x[:, 2:].std(0) / stds - 1).max() < 0.02
    assert np.corrcoef(x[:, 2:].T)[0, 1] == pytest.approx(left[0, 1] / stds.prod(), abs=0.02)


@pytest.mark.spares_tinygrad
def test_every_library_draws_the_same(lib):
    oracle = Gaussian(0.0, covariance=[[0.25, 0.2], [0.2, 0.25]])
    rng = np.random.default_rng(5)
    noises, numbers = rng.standard_normal((3, 6, 2)), rng.random(3)

    def run(asarray):
        known = Known(asarray([[0.3, 0.0]]), asarray([[1.0, 0.0]]))
        drawn = [asarray(n) for n in noises]
        return conditional(
            lambda x, t: oracle.consistency(x, t, 0.0), known, drawn[0], (5.0, 1.0, 0.2), lambda i: drawn[i + 1],
            lambda i: float(numbers[i]), 0.0,
        )  # fmt: skip

    got = lib.to_numpy(run(lambda a: lib.asarray(np.array(a), "float64")))
    assert np.abs(got - run(np.array)).max() < 1e-9
