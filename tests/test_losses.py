"""The losses against expectations known in closed form; gradients are taken along single parameters by `Backend.jvp`.

Expectations over Gaussian data and noise are exact: the losses here are quadratic in both, and the mean over the four
points x_0 = +-s, z = +-1 equals the Gaussian's for any quadratic.
"""

import numpy as np
import pytest
from exact import close, dtypes, gaussian_denoiser

from cmcore import distances, losses, oracles, solvers
from cmcore.paths import VE, VP, Cosine, Linear, Trigonometric

STD = 0.5


def four_points(lib, dtype="float64", std=STD, repeats=1):
    """Data and noise, (4 repeats, 1), whose mean of any quadratic is the expectation."""
    x0 = np.repeat(std * np.array([[1.0], [1.0], [-1.0], [-1.0]]), repeats, axis=0)
    z = np.repeat(np.array([[1.0], [-1.0], [1.0], [-1.0]]), repeats, axis=0)
    return lib.asarray(x0, dtype), lib.asarray(z, dtype)


def derivative(backend, function, at):
    """Return d function / d parameter at a number, on the host."""
    theta = backend.asarray(at, "float64")
    return float(backend.to_numpy(backend.jvp(function, (theta,), (backend.xp.ones_like(theta),))[1]))


@dtypes
def test_denoising_loss(lib, dtype):
    x0, z, t = np.array([[0.3, -1.0], [2.0, 0.4]]), np.array([[1.0, 0.5], [-0.3, 0.2]]), np.array([0.5, 3.0])
    got = losses.denoising(lambda x, s: 0.5 * x, *(lib.asarray(v, dtype) for v in (x0, z, t)))
    close(lib, got, ((0.5 * (x0 + t[:, None] * z) - x0) ** 2).mean(1), dtype)


def test_denoising_loss_is_least_for_the_posterior_mean():
    from conftest import Library

    import cmcore as cm

    lib = Library("numpy", cm.load("numpy"))
    x0, z = four_points(lib)
    best = STD**2 / (STD**2 + 1.7**2)
    values = {a: losses.denoising(lambda x, t, a=a: a * x, x0, z, 1.7).mean() for a in (best - 0.01, best, best + 0.01)}
    assert min(values, key=values.get) == best


@dtypes
@pytest.mark.parametrize("step", [solvers.euler, solvers.heun])
def test_consistency_losses_as_printed(lib, dtype, step):
    x0, z = np.array([[0.3, -1.0], [2.0, 0.4]]), np.array([[1.0, 0.5], [-0.3, 0.2]])
    t, r = np.array([3.0, 0.8]), np.array([2.0, 0.5])
    denoiser = gaussian_denoiser(0.1, 0.6)
    given = [lib.asarray(v, dtype) for v in (x0, z, t, r)]

    def f(x, s):
        return x / (1.0 + s[:, None])

    def f_target(x, s):
        return x / (2.0 + s[:, None])

    x_t = x0 + t[:, None] * z
    first = (x_t - denoiser(x_t, t)) / t[:, None]
    x_r = x_t + (r - t)[:, None] * first
    if step is solvers.heun:
        x_r = x_t + (r - t)[:, None] * (first + (x_r - denoiser(x_r, r)) / r[:, None]) / 2
    distilled = losses.consistency(f, f_target, *given, denoiser=denoiser, step=step)
    close(lib, distilled, ((f(x_t, t) - f_target(x_r, r)) ** 2).mean(1), dtype, scale=1.0)

    trained = losses.consistency(f, f_target, *given, distance=distances.l1)
    close(lib, trained, np.abs(f(x_t, t) - f_target(x0 + r[:, None] * z, r)).mean(1), dtype, scale=1.0)


def test_conditions_reach_both_networks(lib):
    seen = []

    def f(x, t, label):
        seen.append(label)
        return x

    x = lib.asarray([[0.5]], "float32")
    losses.consistency(f, f, x, x, 2.0, 1.0, cond={"label": "seven"})
    losses.denoising(f, x, x, 2.0, cond={"label": "seven"})
    assert seen == ["seven"] * 3


# --- gradients: T6 and T9 of the theory ---------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("noise", [-1.3, 0.4, 2.0])
def test_gradient_for_data_of_one_point(trainable, noise):
    """T6: for f = (m / s) x + (1 - m / s) theta the gradient is known, and it does not depend on the noise."""
    xi, m, t, r, theta = 0.7, 0.05, 1.5, 1.2, 0.2
    x0, z = trainable.asarray([[xi]], "float64"), trainable.asarray([[noise]], "float64")

    def loss(p):
        def f(x, s):
            return m / s * x + (1 - m / s) * p

        return 0.5 * losses.consistency(f, f, x0, z, t, r)[0]

    expected = (1 - m / t) * m * (t - r) / (t * r) * (theta - xi)
    assert derivative(trainable, loss, theta) == pytest.approx(expected, rel=1e-10)


@pytest.mark.usefixtures("x64")
def test_gradient_for_data_of_one_point_against_an_averaged_target(trainable):
    """T6: with another theta in the target a term stays that does not shrink with t - r."""
    xi, m, t, theta, averaged = 0.7, 0.05, 1.5, 0.2, 0.15
    x0, z = trainable.asarray([[xi]], "float64"), trainable.asarray([[0.4]], "float64")

    def function(p):
        return lambda x, s: m / s * x + (1 - m / s) * p

    def loss(p, r):
        return 0.5 * losses.consistency(function(p), function(averaged), x0, z, t, r)[0]

    limit = (1 - m / t) ** 2 * (theta - averaged)
    assert derivative(trainable, lambda p: loss(p, t - 1e-7), theta) == pytest.approx(limit, rel=1e-6)


def slope_model(p, x, s):
    """A linear f = A(s) x whose A depends on the parameter p differently at different times."""
    return p / (1.0 + s**p) * x


def slope(p, s):
    return p / (1.0 + s**p)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("t", "r"), [(2.0, 1.5), (2.0, 0.3), (0.4, 0.1)])
def test_training_and_distillation_have_the_same_gradient(trainable, t, r):
    """T9: for Gaussian data and linear f the expected gradients agree for every step, with the known value."""
    p = 1.3
    x0, z = four_points(trainable)
    denoiser = gaussian_denoiser(0.0, STD)

    def f(p):
        return lambda x, s: slope_model(p, x, s)

    def training(p):
        return trainable.xp.mean(losses.consistency(f(p), f(p), x0, z, t, r))

    def distillation(p):
        return trainable.xp.mean(losses.consistency(f(p), f(p), x0, z, t, r, denoiser=denoiser, step=solvers.euler))

    h = 1e-6
    derivative_of_slope = (slope(p + h, t) - slope(p - h, t)) / (2 * h)
    expected = 2 * derivative_of_slope * (slope(p, t) * (STD**2 + t**2) - slope(p, r) * (STD**2 + r * t))
    ct, cd = derivative(trainable, training, p), derivative(trainable, distillation, p)
    assert ct == pytest.approx(expected, rel=1e-7)
    assert cd == pytest.approx(ct, rel=1e-11)


@pytest.mark.parametrize(("t", "r"), [(2.0, 1.5), (2.0, 0.3), (0.4, 0.1)])
def test_training_and_distillation_differ_in_value_as_known(lib, t, r):
    """T9: by (t - r)^2 A(r)^2 s^2 / (s^2 + t^2)."""
    x0, z = four_points(lib)

    def f(x, s):
        return slope_model(1.3, x, s)

    ct = losses.consistency(f, f, x0, z, t, r)
    cd = losses.consistency(f, f, x0, z, t, r, denoiser=gaussian_denoiser(0.0, STD), step=solvers.euler)
    gap = lib.to_numpy(ct).mean() - lib.to_numpy(cd).mean()
    assert gap == pytest.approx((t - r) ** 2 * slope(1.3, r) ** 2 * STD**2 / (STD**2 + t**2), rel=1e-10)


# --- other paths ------------------------------------------------------------------------------------------------------

ELSEWHERE = [VP(), Cosine(), Linear(), Trigonometric(0.7)]
each_path = pytest.mark.parametrize("path", ELSEWHERE, ids=lambda p: type(p).__name__)


@each_path
@dtypes
def test_losses_on_a_path_are_those_of_its_points(lib, dtype, path):
    x0, z = np.array([[0.3, -1.0], [2.0, 0.4]]), np.array([[1.0, 0.5], [-0.3, 0.2]])
    t, r = np.array([0.8, 0.5]), np.array([0.6, 0.1])
    given = [lib.asarray(v, dtype) for v in (x0, z, t, r)]
    x_t, x_r = (path.a(s)[:, None] * x0 + path.b(s)[:, None] * path.noise_std * z for s in (t, r))

    def f(x, s):
        return x / (1.0 + s[:, None])

    close(lib, losses.denoising(f, *given[:3], path=path), ((f(x_t, t) - x0) ** 2).mean(1), dtype, scale=1.0)
    close(lib, losses.consistency(f, f, *given, path=path), ((f(x_t, t) - f(x_r, r)) ** 2).mean(1), dtype, scale=1.0)


@pytest.mark.parametrize("path", [VE(), *ELSEWHERE], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(
    ("step", "order"), [(solvers.euler, 1), (solvers.heun, 2), (solvers.dpm2, 2), (solvers.dpmpp_2s, 2)]
)
@pytest.mark.parametrize("law", [oracles.Gaussian(0.3, 0.6), oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5)])
def test_the_exact_function_has_no_loss_but_the_solvers_error(path, step, order, law):
    """With the exact denoiser and flow map what is left is the error of one step, of order ``order + 1``, on every path."""
    law, x0, z = oracles.Along(law, path), np.array([[0.9], [-1.3], [0.4]]), np.array([[0.4], [-0.9], [1.1]])

    def f(x, t):
        return law.consistency(x, t, 0.01)

    def error(gap):
        return np.sqrt(losses.consistency(f, f, x0, z, 0.5, 0.5 - gap, denoiser=law.denoiser, step=step, path=path))

    coarse, fine = error(0.01), error(0.005)
    assert coarse.max() < 1e-2
    assert np.log2(coarse.max() / fine.max()) == pytest.approx(order + 1, abs=0.2)
