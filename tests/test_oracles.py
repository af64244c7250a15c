"""Closed forms against independent ones (T1, T2, T3, T4, T5, T25) and against an ODE solver, on every array library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import log_ndtr, ndtr

import cmcore as cm
from cmcore._normal import log_cdf
from cmcore.oracles import Along, Empirical, Gaussian, Mixture, Product, Rotated
from cmcore.posterior import posterior_mean

B = 8
EXAMPLES = settings(max_examples=4)
SEEDS = st.integers(0, 2**31)
TWO_MODES = ((0.8, 0.2), (-1.0, 1.0), (0.3, 0.1))
THREE_MODES = ((0.5, 0.2, 0.3), (-2.0, 0.3, 1.5), (0.4, 0.2, 0.7))


def rotation(d: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(d).normal(size=(d, d)))[0]


def covariance() -> np.ndarray:
    r = rotation(4)
    return (r * np.array([0.0, 0.09, 1.0, 4.0])) @ r.T


def planar() -> Rotated:
    return Rotated(Product([Mixture(*TWO_MODES), Gaussian(0.3, 0.6), Gaussian(-1.0, 0.2)]), rotation(3))


SPACES = Mixture((0.3, 0.5, 0.2), [[0.0, 1.0, 2.0], [-1.0, 0.5, 0.0], [1.0, 1.0, -3.0]], (0.2, 0.5, 0.1))
POINTS = Empirical(np.random.default_rng(5).normal(size=(11, 3)))
WITH_FLOW = {
    "scalar": (Gaussian(0.4, 0.5), (3,)),
    "diagonal": (Gaussian([[1.0, 2.0], [0.0, -1.0]], [[0.5, 1.0], [0.1, 0.0]]), (2, 2)),
    "covariance": (Gaussian([1.0, 0.0, -1.0, 2.0], covariance=covariance()), (4,)),
    "line": (Mixture(*TWO_MODES), ()),
    "coordinates": (Mixture(*THREE_MODES), (1, 2)),
    "rotated product": (planar(), (3,)),
    "trigflow": (Along(planar(), cm.paths.Trigonometric(0.5)), (3,)),
    "linear": (Along(Mixture(*TWO_MODES), cm.paths.Linear()), ()),
}
GAUSSIANS = ("scalar", "diagonal", "covariance")
ALL = WITH_FLOW | {"space": (SPACES, (3,)), "data": (POINTS, (3,))}


def times(rng: np.random.Generator, name: str) -> np.ndarray:
    """Draw (B,) times: all of the VE path's range, or the middle of a bounded path's."""
    return rng.uniform(0.05, 0.95, B) if name in ("trigflow", "linear") else np.exp(rng.uniform(np.log(0.01), 4.3, B))


def noisy(rng: np.random.Generator, name: str, t: np.ndarray) -> np.ndarray:
    """Draw points of about the size that x_t has."""
    z = rng.normal(size=(B, *ALL[name][1]))
    return z * np.sqrt(1.0 + t**2).reshape((B,) + (1,) * (z.ndim - 1))


def spare(library: str) -> None:
    """Leave out a mixture's flow on tinygrad, save for one comparison with the ODE."""
    if library == "tinygrad":
        pytest.skip("Mixture.flow takes tinygrad seconds a call and half a minute to compile; the ODE test covers it.")


def close(actual: np.ndarray, expected: np.ndarray, tol: float) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tol, atol=tol)


@pytest.mark.parametrize("name", ALL)
@given(seed=SEEDS)
def test_score_and_denoiser_agree_by_tweedie(lib, name, seed):
    """T25: D = x + t^2 score, and on any path D = (x + (b noise_std)^2 score) / a."""
    if lib.name == "tinygrad" and name in ("trigflow", "rotated product"):
        pytest.skip("is made of the others' operations, and each of them compiles there")
    rng, oracle = np.random.default_rng(seed), ALL[name][0]
    t = times(rng, name)
    x = noisy(rng, name, t)
    path = getattr(oracle, "path", cm.paths.VE())
    xs, ts = lib.asarray(x), lib.asarray(t)
    through_score = path.denoiser_from_score(xs, ts, oracle.score(xs, ts))
    close(lib.to_numpy(oracle.denoiser(xs, ts)), lib.to_numpy(through_score), 1e-9)


@pytest.mark.parametrize("name", WITH_FLOW)
@EXAMPLES
@given(seed=SEEDS)
def test_flow_is_a_semigroup(lib, name, seed):
    if name not in GAUSSIANS:
        spare(lib.name)
    rng, oracle = np.random.default_rng(seed), WITH_FLOW[name][0]
    # Falling times: backwards, the map between modes stretches rounding errors without bound.
    s, u, t = np.sort([times(rng, name) for _ in range(3)], axis=0)
    x, t, u, s = (lib.asarray(v) for v in (noisy(rng, name, t), t, u, s))
    direct = lib.to_numpy(oracle.flow(x, t, s))
    stretch = 1.0 + np.abs(lib.to_numpy(oracle.flow(x * (1 + 1e-9), t, s)) - direct) / 1e-9
    error = np.abs(lib.to_numpy(oracle.flow(oracle.flow(x, t, u), u, s)) - direct)
    assert np.all(error <= 1e-12 * stretch)


@pytest.mark.parametrize("name", WITH_FLOW)
@EXAMPLES
@given(seed=SEEDS)
def test_flow_to_the_same_time_changes_nothing(lib, name, seed):
    if name not in GAUSSIANS:
        spare(lib.name)
    rng, oracle = np.random.default_rng(seed), WITH_FLOW[name][0]
    t = times(rng, name)
    x = noisy(rng, name, t)
    close(lib.to_numpy(oracle.flow(lib.asarray(x), lib.asarray(t), lib.asarray(t))), x, 1e-12)


@pytest.mark.parametrize("name", WITH_FLOW)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_shape_and_consistency(lib, name, dtype):
    if name not in GAUSSIANS:
        spare(lib.name)
    rng, (oracle, event) = np.random.default_rng(1), WITH_FLOW[name]
    t = times(rng, name)
    x = lib.asarray(noisy(rng, name, t), dtype)
    out = oracle.consistency(x, lib.asarray(t, dtype), 0.002)
    assert out.dtype == x.dtype
    assert tuple(out.shape) == (B, *event)
    assert np.array_equal(lib.to_numpy(out), lib.to_numpy(oracle.flow(x, lib.asarray(t, dtype), 0.002)))
    for quantity in (oracle.score, oracle.denoiser):
        assert quantity(x, 0.5).dtype == x.dtype
        assert tuple(quantity(x, 0.5).shape) == (B, *event)


@given(seed=SEEDS)
def test_gaussian_is_t1(lib, seed):
    """T1: per coordinate, with another way of writing each formula; the consistency function at the default t_min."""
    rng = np.random.default_rng(seed)
    m, s = rng.normal(size=3), rng.uniform(0.1, 2.0, 3)
    t = times(rng, "")
    x = rng.normal(size=(B, 3)) * t[:, None]
    oracle, column = Gaussian(m, s), t[:, None]
    gain = 1.0 / (1.0 + (column / s) ** 2)
    xs, ts = lib.asarray(x), lib.asarray(t)
    close(lib.to_numpy(oracle.denoiser(xs, ts)), gain * x + (1 - gain) * m, 1e-11)
    close(lib.to_numpy(oracle.score(xs, ts)), (m - x) / np.hypot(s, column) ** 2, 1e-11)
    close(lib.to_numpy(oracle.flow(xs, ts, 3.0)), m + np.hypot(s, 3.0) / np.hypot(s, column) * (x - m), 1e-11)
    close(lib.to_numpy(oracle.consistency(xs, ts)), m + np.hypot(s, 0.002) / np.hypot(s, column) * (x - m), 1e-11)


def test_gaussian_covariance_is_matrix_algebra(lib):
    """T1 with a singular covariance, against inverses; a zero eigenvalue moves x on a straight line to the mean."""
    rng = np.random.default_rng(2)
    mean, sigma, x, t, s = rng.normal(size=4), covariance(), rng.normal(size=(B, 4)), 0.7, 0.1
    oracle = Gaussian(mean, covariance=sigma)
    xs = lib.asarray(x)
    inverse = np.linalg.inv(sigma + t**2 * np.eye(4))
    close(lib.to_numpy(oracle.score(xs, t)), -(x - mean) @ inverse, 1e-11)
    close(lib.to_numpy(oracle.denoiser(xs, t)), mean + (x - mean) @ inverse @ sigma, 1e-11)
    flowed = lib.to_numpy(oracle.flow(xs, t, s)) - mean
    # The map's square is (Sigma + s^2)(Sigma + t^2)^-1: apply it twice.
    twice = lib.to_numpy(oracle.flow(lib.asarray(mean + flowed), t, s)) - mean
    close(twice, (x - mean) @ inverse @ (sigma + s**2 * np.eye(4)), 1e-11)
    null = rotation(4)[:, 0]
    close(flowed @ null, s / t * ((x - mean) @ null), 1e-11)
    images = Gaussian(mean.reshape(2, 2), covariance=sigma).flow(lib.asarray(x.reshape(B, 2, 2)), t, s)
    close(lib.to_numpy(images).reshape(B, 4) - mean, flowed, 1e-12)


@pytest.mark.parametrize(
    "path",
    [cm.paths.Trigonometric(0.5), cm.paths.Linear(), cm.paths.VP(), cm.paths.Cosine()],
    ids=lambda p: type(p).__name__,
)
def test_gaussian_on_other_paths(lib, path):
    """T2 and T3: V = a^2 c^2 + b^2 noise_std^2, X = sqrt(V_s / V_t) x, score = -x / V, D = a c^2 x / V."""
    c, t, s, x = 0.8, 0.6, 0.2, np.linspace(-1.0, 1.0, B)
    oracle, (t_arr, s_arr) = Along(Gaussian(0.0, c), path), np.array([[t], [s]])

    def variance(time):
        return path.a(time) ** 2 * c**2 + path.b(time) ** 2 * path.noise_std**2

    vt, vs, xs = variance(t_arr), variance(s_arr), lib.asarray(x)
    close(lib.to_numpy(oracle.flow(xs, t, s)), np.sqrt(vs / vt) * x, 1e-12)
    close(lib.to_numpy(oracle.score(xs, t)), -x / vt, 1e-12)
    close(lib.to_numpy(oracle.denoiser(xs, t)), path.a(t_arr) * c**2 / vt * x, 1e-12)


def ode(oracle, x, t, s):
    """Follow dx/dt = -t score in log t with an eighth-order solver, a point at a time."""

    def slope(log_t, y):
        time = np.exp(log_t)
        return -(time**2) * np.ravel(oracle.score(y.reshape(1, *x.shape[1:]), time))

    ends = (np.log(t), np.log(s))
    solved = [solve_ivp(slope, ends, np.ravel(p), method="DOP853", rtol=1e-13, atol=1e-14) for p in x]
    return np.stack([r.y[:, -1] for r in solved]).reshape(x.shape)


@pytest.mark.spares_tinygrad  # properties/test_dtype_and_device.py compares its numbers with NumPy's
@pytest.mark.parametrize(("t", "s"), [(80.0, 0.002), (80.0, 1.0), (1.0, 0.002), (0.3, 5.0)])
@pytest.mark.parametrize("modes", [TWO_MODES, THREE_MODES], ids=["two", "three"])
def test_mixture_flow_is_the_odes(lib, modes, t, s):
    """T4: CDF matching against an ODE solve, from T = 80 too and five standard deviations into the tails."""
    if (modes, t, s) != (TWO_MODES, 80.0, 0.002):
        spare(lib.name)
    x = np.array([-5.0, -2.0, -0.7, 0.1, 0.6, 1.5, 5.0]) * max(t, 1.0)
    oracle = Mixture(*modes)
    ends = (lib.asarray(np.full(x.shape, time)) for time in (t, s))
    close(lib.to_numpy(oracle.flow(lib.asarray(x), *ends)), ode(oracle, x, t, s), 1e-10)


def test_rotated_product_flow_is_the_odes(lib):
    spare(lib.name)
    x = np.random.default_rng(4).normal(size=(3, 3)) * 80.0
    close(lib.to_numpy(planar().consistency(lib.asarray(x), 80.0)), ode(planar(), x, 80.0, 0.002), 1e-10)


@pytest.mark.parametrize("name", ["line", "space", "rotated product"])
def test_mixture_score_is_the_density_gradient(name):
    """Against a finite difference of log p_t, which the score is not computed from: weights, log det and all."""
    oracle, event = ALL[name]
    rng, t, h = np.random.default_rng(3), 0.4, 1e-5
    x = rng.normal(size=(B, *event))

    def log_p(x):
        def line(parts, y):
            w, m, s = (np.array(p) for p in parts)
            v = s**2 + t**2
            return np.log(np.sum(w * np.exp(-((y[:, None] - m) ** 2) / (2 * v)) / np.sqrt(v), axis=1))

        if name == "line":
            return line(TWO_MODES, x)
        if name == "space":
            v = np.array(SPACES.stds) ** 2 + t**2
            squares = np.sum((x[:, None, :] - np.array(SPACES.means)) ** 2, axis=2)
            return np.log(np.sum(np.array(SPACES.weights) * np.exp(-squares / (2 * v)) / v**1.5, axis=1))
        y = x @ rotation(3)
        gaussians = ((1.0,), (0.3,), (0.6,)), ((1.0,), (-1.0,), (0.2,))
        return line(TWO_MODES, y[:, 0]) + line(gaussians[0], y[:, 1]) + line(gaussians[1], y[:, 2])

    steps = np.eye(3)[:, None, :] if event else np.ones((1, 1))
    gradient = np.stack([(log_p(x + h * e) - log_p(x - h * e)) / (2 * h) for e in steps], axis=-1)
    close(oracle.score(x, t), gradient.reshape(x.shape), 1e-8)


def test_far_modes_keep_the_gap(lib):
    """Between modes a hundred deviations apart the distribution function is flat in float64, but the map is not lost."""
    spare(lib.name)
    oracle = Mixture((0.5, 0.5), (-1.0, 1.0), 0.01)
    x = lib.asarray(np.array([-0.6, -0.2, 0.0, 0.2, 0.6]))
    close(lib.to_numpy(oracle.flow(oracle.flow(x, 0.05, 0.01), 0.01, 0.05)), lib.to_numpy(x), 1e-9)


def test_flow_in_the_far_tails_is_the_outer_components(lib):
    spare(lib.name)
    x = np.array([-400.0, 400.0])
    far = Mixture(*TWO_MODES).flow(lib.asarray(x), 0.002, 0.001)
    ratio = np.sqrt((0.3**2 + 0.001**2) / (0.3**2 + 0.002**2))
    close(lib.to_numpy(far), -1.0 + ratio * (x + 1.0), 1e-9)


def test_data_denoiser_is_a_softmax(lib):
    """T5, and its limits: the nearest point as t falls to 0, the mean as t grows."""
    data, x = np.asarray(POINTS.data), np.random.default_rng(6).normal(size=(B, 3))
    squares = np.sum((x[:, None] - data) ** 2, axis=2)
    weights = np.exp(-squares / (2 * 0.5**2))
    xs = lib.asarray(x)
    expected = weights @ data / weights.sum(axis=1, keepdims=True)
    close(lib.to_numpy(POINTS.denoiser(xs, 0.5)), expected, 1e-11)
    close(lib.to_numpy(POINTS.score(xs, 0.5)), (expected - x) / 0.25, 1e-10)
    close(lib.to_numpy(POINTS.denoiser(xs, 0.002)), data[squares.argmin(axis=1)], 1e-12)
    close(lib.to_numpy(POINTS.denoiser(xs, 1e5)), np.broadcast_to(data.mean(axis=0), x.shape), 1e-4)
    close(lib.to_numpy(Mixture(np.ones(11), data, 0.0).denoiser(xs, 0.5)), expected, 1e-11)


def test_each_class_has_a_posterior_mean_of_its_own(lib):
    rng = np.random.default_rng(8)
    data, x, label = rng.normal(size=(7, 3)), rng.normal(size=(7, 3)), np.array([0, 1, 1, 0, 2, 1, 0])
    found = posterior_mean(*(lib.asarray(v, "float64") for v in (data, x)), 0.7, lib.asarray(label))
    for each in range(3):
        of_class = Empirical(data[label == each]).denoiser(x[label == each], 0.7)
        close(lib.to_numpy(found)[label == each], of_class, 1e-12)


@pytest.mark.parametrize("name", ["scalar", "covariance", "line", "space", "data", "rotated product"])
def test_samples_have_the_laws_moments(lib, name):
    """Mean and covariance from the denoiser far out: D = mean + C x / t^2 + O(t^-4)."""
    n, t, (oracle, event) = 20_000, 3e3, ALL[name]
    rng = np.random.default_rng(7)
    z, u = lib.asarray(rng.normal(size=(n, *event))), lib.asarray(rng.random((n, *event)))
    if name in ("space", "data"):
        u = lib.asarray(rng.random(n))
    if name == "rotated product":
        oracle = Rotated(
            Product([Mixture(*TWO_MODES), Mixture((1,), (0.3,), (0.6,)), Mixture((1,), (-1.0,), (0.2,))]), rotation(3)
        )
    gaussian = isinstance(oracle, Gaussian)
    samples = lib.to_numpy(
        oracle.sample(z) if gaussian else oracle.sample(u) if name == "data" else oracle.sample(z, u)
    )
    d = max(1, int(np.prod(event)))
    middle = oracle.denoiser(np.zeros((1, *event)), t).reshape(d)
    slopes = (oracle.denoiser(np.reshape(np.eye(d) * t, (d, *event)), t).reshape(d, d) - middle) * t
    flat = samples.reshape(n, d)
    scale = np.sqrt(np.diag(slopes).max())
    np.testing.assert_allclose(flat.mean(axis=0), middle, atol=5 * scale / np.sqrt(n))
    np.testing.assert_allclose(np.cov(flat, rowvar=False).reshape(d, d), slopes, atol=10 * scale**2 / np.sqrt(n))


def test_a_law_on_the_line_is_sampled_coordinate_by_coordinate(lib):
    z, u = np.array([[0.5, -1.0], [2.0, 0.0]]), np.array([[0.1, 0.79], [0.81, 0.99]])
    got = Mixture([0.8, 0.2], [-1.0, 1.0], [0.1, 0.3]).sample(lib.asarray(z), lib.asarray(u))
    np.testing.assert_allclose(lib.to_numpy(got), [[-0.95, -1.1], [1.6, 1.0]], rtol=1e-6)
    with pytest.raises(ValueError, match="u must have shape"):
        Mixture([0.8, 0.2], [-1.0, 1.0], 0.1).sample(lib.asarray(z), lib.asarray(u[:, 0]))


def test_log_cdf_is_accurate_in_both_tails(lib):
    left, right = -np.geomspace(1e-12, 1e6, 400), np.geomspace(1e-12, 6.0, 200)
    np.testing.assert_allclose(lib.to_numpy(log_cdf(lib.asarray(left))), log_ndtr(left), rtol=1e-14)
    # XLA's log1p is itself 1e-14 off.
    np.testing.assert_allclose(lib.to_numpy(log_cdf(lib.asarray(right))), np.log1p(-ndtr(-right)), rtol=2e-14)


def test_flow_is_differentiable(trainable, x64):
    """The map's derivative is p_t(x) / p_s(y); the last Newton step carries it, whatever came before."""
    spare(trainable.name)
    oracle, x, h = Mixture(*TWO_MODES), np.array([-60.0, -1.0, 20.0, 70.0]), 1e-4
    xs = trainable.asarray(x, "float64")
    _, slope = trainable.jvp(lambda v: oracle.consistency(v, 80.0), (xs,), (trainable.asarray(np.ones(4), "float64"),))
    numeric = (oracle.consistency(x + h, 80.0) - oracle.consistency(x - h, 80.0)) / (2 * h)
    close(trainable.to_numpy(slope), numeric, 1e-7)


@pytest.mark.parametrize("name", ["covariance", "line", "space", "data"])
def test_oracles_compile(trainable, x64, name):
    """As a teacher in a compiled loss. (Mixture's flow compiles too, but its unrolled steps take compilers minutes.)"""
    oracle, event = ALL[name]
    rng = np.random.default_rng(8)
    x, t = trainable.asarray(rng.normal(size=(B, *event)), "float64"), trainable.asarray(np.full(B, 0.7), "float64")

    def call(x, t):
        return oracle.flow(x, t, 0.1) if name == "covariance" else oracle.denoiser(x, t)

    compiled = trainable.compile(call)
    for _ in range(3):
        close(trainable.to_numpy(compiled(x, t)), trainable.to_numpy(call(x, t)), 1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(0.0), "needs one of std and covariance"),
        (lambda: Gaussian(0.0, -1.0), "at least 0"),
        (lambda: Gaussian(0.0, np.nan), "must be finite"),
        (lambda: Gaussian(0.0, covariance=[[1.0, 2.0]]), "square matrix"),
        (lambda: Gaussian(0.0, covariance=[[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (lambda: Gaussian(0.0, covariance=[[1.0, 0.0], [0.0, -1.0]]), "negative eigenvalue"),
        (lambda: Gaussian([0.0] * 3, covariance=np.eye(2)), "coordinates"),
        (lambda: Mixture((0.5, -0.5), (0.0, 1.0), 1.0), "positive numbers"),
        (lambda: Mixture((0.5, 0.5), (0.0,), 1.0), "means must have shape"),
        (lambda: Mixture((0.5, 0.5), (0.0, 1.0), (1.0, 1.0, 1.0)), "stds must be"),
        (lambda: Empirical([1.0, 2.0]), "data must have shape"),
        (lambda: Product([]), "at least one factor"),
        (lambda: Rotated(Gaussian(0.0, 1.0), [[1.0, 1.0], [0.0, 1.0]]), "orthogonal"),
        (lambda: POINTS.denoiser(np.zeros((2, 4)), 1.0), "samples of shape"),
        (lambda: planar().score(np.zeros((2, 4)), 1.0), "must have shape"),
        (lambda: Product([POINTS]).score(np.zeros((2, 4)), 1.0), "must have shape"),
        (lambda: Gaussian(0.0, 1.0).flow(np.zeros(2), 1.0, -1.0), "s must be a finite time"),
    ],
)
def test_bad_arguments_are_sentences(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("oracle", [SPACES, POINTS])
def test_flows_without_a_closed_form_say_so(oracle):
    with pytest.raises(cm.Error, match="no closed form"):
        oracle.flow(np.zeros((2, 3)), 1.0, 0.5)
