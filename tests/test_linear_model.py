"""What perfect training on N points ends at, in closed form, for Gaussian data and a model that is linear at each time (T23).

With ``f(x, t_n) = A_n x`` and data N(0, s^2) each loss is quadratic in A_n, so its minimum is found exactly from three values
of the library's own loss; the product of these minima is the trained model's answer at t_max.
"""

import numpy as np
import pytest

import cmcore as cm
from cmcore import grids, losses, solvers

STD = 0.5
TRAINED = {
    3: 0.1953,
    11: 0.7528,
    18: 0.8461,
    41: 0.9314,
    81: 0.9651,
    161: 0.9824,
    321: 0.9912,
    641: 0.9956,
    1281: 0.9978,
}
HEUN = {3: 4.095, 11: 1.1746, 18: 1.0553, 41: 1.0093, 81: 1.0023, 161: 1.0006, 321: 1.0001, 641: 1.0, 1281: 1.0}
ECT = (0.597, 0.678, 0.862, 0.937, 0.969, 0.985, 0.9926, 0.9963, 0.9982)


def best_factors(t, r, **teacher):
    """The minimiser over a of ``E |a x_t - x_r|^2`` for each pair of times, by the library's loss."""
    numpy = cm.load("numpy")
    x0 = numpy.asarray(np.tile(STD * np.array([1.0, 1.0, -1.0, -1.0]), len(t))[:, None])
    z = numpy.asarray(np.tile(np.array([1.0, -1.0, 1.0, -1.0]), len(t))[:, None])
    t, r = np.repeat(t, 4), np.repeat(r, 4)

    def loss(a):
        each = losses.consistency(lambda x, s: a * x, lambda x, s: x, x0, z, t, r, **teacher)
        return each.reshape(-1, 4).mean(1)

    low, middle, high = loss(0.0), loss(1.0), loss(2.0)
    return 1.0 + (low - high) / (2.0 * (low - 2.0 * middle + high))


def ratio(product, t_min=grids.T_MIN, t_max=grids.T_MAX):
    """The model's answer at t_max over the exact one."""
    return product / np.sqrt((STD**2 + t_min**2) / (STD**2 + t_max**2))


@pytest.mark.parametrize("n", TRAINED)
def test_consistency_training_and_euler_distillation(n):
    grid = grids.karras_host(n)
    trained = ratio(np.prod(best_factors(grid[1:], grid[:-1])))
    assert round(trained, 4) == TRAINED[n]
    oracle = cm.oracles.Gaussian(0.0, STD)
    distilled = ratio(np.prod(best_factors(grid[1:], grid[:-1], denoiser=oracle.denoiser, step=solvers.euler)))
    assert distilled == pytest.approx(trained, rel=1e-9)


@pytest.mark.parametrize("n", HEUN)
def test_heun_distillation(n):
    grid = grids.karras_host(n)
    oracle = cm.oracles.Gaussian(0.0, STD)
    distilled = ratio(np.prod(best_factors(grid[1:], grid[:-1], denoiser=oracle.denoiser, step=solvers.heun)))
    assert distilled == pytest.approx(HEUN[n], abs=0.5 * 10.0 ** -(3 if n == 3 else 4))


@pytest.mark.parametrize("stage", range(9))
def test_easy_consistency_tuning(stage):
    """From t_max the pairs lead down by ECT's own rule, below t_min, where nothing is left to change."""
    times, t = [], np.array([80.0])
    while t[0] > grids.T_MIN:
        times.append(t[0])
        t = grids.ect_pair(t, float(stage)).r
    pairs = grids.ect_pair(np.array(times), float(stage))
    got = ratio(np.prod(best_factors(pairs.t, pairs.r)), t_min=0.0)
    assert round(got, 3 if stage < 6 else 4) == ECT[stage]


def test_the_first_stage_of_easy_consistency_tuning_ends_at_the_data():
    times = [80.0]
    while times[-1] > 0:
        times.append(float(grids.ect_pair(np.array([times[-1]]), 0.0).r[0]))
    assert len(times) == 8
