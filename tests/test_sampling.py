"""The multistep sampler against the variances it must leave, exactly: it is linear for Gaussian data, so unit noises suffice."""

import math
from functools import partial

import numpy as np
import pytest
from exact import close, dtypes

import cmcore as cm
from cmcore import per_sample, sampling
from cmcore.grids import karras_host
from cmcore.oracles import Along, Gaussian
from cmcore.parametrization import Boundary, ConsistencyFunction
from cmcore.paths import VE, VP, Cosine, Linear, Trigonometric

STD, EPS = 0.5, 0.002


def number(t):
    """The one time that all samples of a batch are asked about; samplers give it as (B,)."""
    if isinstance(t, float):
        return t
    host = cm.backend.of(t).to_numpy(t)
    assert host.ndim == 1
    assert (host == host[0]).all()
    return float(host[0])


def consistency(error):
    """The exact consistency function of N(0, STD^2), times 1 + error."""
    return lambda x, t: (1 + error) * math.sqrt((STD**2 + EPS**2) / (STD**2 + number(t) ** 2)) * x


def standard_deviation(lib, error, times):
    # Sample i of this batch is fed the noise number i only; the squares of the answers add up to the variance.
    unit = np.eye(len(times))[:, :, None]
    z, *noises = (lib.asarray(unit[i], "float64") for i in range(len(times)))
    x = sampling.multistep(consistency(error), z, times, lambda i: noises[i], t_min=EPS)
    return math.sqrt((lib.to_numpy(x) ** 2).sum())


@pytest.mark.parametrize("tau", [0.2, 0.821, 5.0])
def test_an_exact_function_keeps_the_variance_of_the_data(lib, tau):
    # Fails if the noise has the standard deviation tau.
    start = math.sqrt(STD**2 + 80**2)  # from here on x is distributed as the process is
    assert standard_deviation(lib, 0.0, (start, tau, tau * 0.999)) == pytest.approx(math.hypot(STD, EPS), rel=5e-5)
    one = standard_deviation(lib, 0.0, (80.0,))
    assert standard_deviation(lib, 0.0, (80.0, tau)) == pytest.approx(
        math.sqrt((one**2 + tau**2 - EPS**2) * (STD**2 + EPS**2) / (STD**2 + tau**2)), rel=1e-12
    )


@pytest.mark.parametrize(
    ("tau", "distances"),
    [
        (0.821, [0.0250, 0.0313, 0.0329, 0.0332]),
        (5.0, [0.0250, 0.0252, 0.0252]),
        (0.2, [0.0250, 0.0454, 0.0619, 0.0752]),
    ],
)
def test_a_relative_error_grows_as_known(tau, distances):
    from conftest import Library

    import cmcore as cm

    numpy = Library("numpy", cm.load("numpy"))
    for steps, expected in enumerate(distances, start=1):
        # The published numbers repeat one time, which a sampler's times may not: shrink it by less than they show.
        times = (80.0, *(tau * (1 - 1e-7) ** i for i in range(steps - 1)))
        w2 = abs(standard_deviation(numpy, -0.05, times) - math.hypot(STD, EPS))
        assert w2 == pytest.approx(expected, abs=5.1e-5)


@dtypes
def test_one_step_is_the_multistep_sampler_with_one_time(lib, dtype):
    z = lib.asarray([[0.3, -1.0], [2.0, 0.4]], dtype)
    one = sampling.onestep(consistency(0.0), z)
    close(lib, one, consistency(0.0)(80.0 * lib.to_numpy(z), 80.0), dtype)
    many = sampling.multistep(consistency(0.0), z, (80.0,), lambda i: pytest.fail("one step adds no noise"))
    assert np.array_equal(lib.to_numpy(one), lib.to_numpy(many))


@dtypes
def test_times_of_numpy_leave_the_dtype_alone(lib, dtype):
    z = lib.asarray([[0.3, -1.0]], dtype)
    times = np.array([80.0, 0.8])

    def jump(x, t, s):
        return per_sample(s / t, x) * x

    samples = [
        sampling.onestep(consistency(0.0), z, times[0]),
        sampling.multistep(consistency(0.0), z, times, lambda i: z),
        sampling.flow_map(jump, z, times),
        sampling.gamma(jump, z, times, lambda i: z),
    ]
    assert [x.dtype for x in samples] == [z.dtype] * 4


@pytest.mark.parametrize("t_max", [0.0, -1.0, math.inf, math.nan])
def test_one_step_starts_at_a_positive_time(t_max):
    with pytest.raises(ValueError, match="positive, finite time, got t_max = "):
        sampling.onestep(consistency(0.0), np.ones((1, 1)), t_max)


@pytest.mark.parametrize("t_min", [-1.0, math.inf, math.nan])
def test_t_min_is_a_time(t_min):
    with pytest.raises(ValueError, match="t_min must be at least 0 and finite, got "):
        sampling.multistep(consistency(0.0), np.ones((1, 1)), (80.0,), lambda i: None, t_min)


@dtypes
def test_the_function_sees_these_points_and_times(lib, dtype):
    seen = []

    def f(x, t, label):
        seen.append((lib.to_numpy(x), number(lib.to_numpy(t)), label))
        return 0.5 * x

    z = lib.asarray([[1.0], [-2.0]], dtype)
    noises = [lib.asarray([[0.5], [0.25]], dtype), lib.asarray([[-1.0], [3.0]], dtype)]
    got = []
    x = sampling.multistep(
        f, z, (40.0, 2.0, 0.5), noises.__getitem__, 0.1, lambda i, y: got.append((i, y)), cond={"label": "7"}
    )

    points = [40 * np.array([[1.0], [-2.0]])]
    for noise, t in zip(noises, (2.0, 0.5), strict=True):
        points.append(0.5 * points[-1] + math.sqrt(t**2 - 0.01) * lib.to_numpy(noise))
    assert [(t, label) for _, t, label in seen] == [(40.0, "7"), (2.0, "7"), (0.5, "7")]
    for (point, _, _), expected in zip(seen, points, strict=True):
        np.testing.assert_allclose(point, expected, rtol=1e-6)
    assert [i for i, _ in got] == [0, 1, 2]
    for (_, answer), point in zip(got, points, strict=True):
        np.testing.assert_allclose(lib.to_numpy(answer), 0.5 * point, rtol=1e-6)
    assert got[-1][1] is x


def test_the_noise_is_that_above_the_papers_t_min_unless_told_otherwise():
    x = sampling.multistep(
        lambda x, t: 0.0 * x if t[0] == 80.0 else x, np.ones((1, 1)), (80.0, 0.003), lambda i: np.ones((1, 1))
    )
    assert x[0, 0] == pytest.approx(math.sqrt(0.003**2 - 0.002**2), rel=1e-12)


def test_an_image_gets_the_same_noise_in_any_batch():
    shape = (2, 3)
    together = sampling.seeded_noise(5, range(6), shape)
    assert together.shape == (6, 2, 3)
    assert together.dtype == np.float32
    for i in range(6):
        assert np.array_equal(sampling.seeded_noise(5, [i], shape)[0], together[i])
    assert np.array_equal(sampling.seeded_noise(5, [4, 1], shape), together[[4, 1]])
    none = sampling.seeded_noise(5, [], shape)
    assert (none.shape, none.dtype) == ((0, *shape), together.dtype)


def test_seed_image_and_draw_each_change_the_noise():
    noises = [sampling.seeded_noise(s, [i], (4,), d) for s in (0, 1) for i in (0, 1) for d in (0, 1)]
    assert len({n.tobytes() for n in noises}) == 8
    assert np.array_equal(sampling.seeded_noise(1, [1], (4,)), sampling.seeded_noise(1, [1], (4,), draw=0))


def test_seeded_noise_is_standard_normal():
    noise = sampling.seeded_noise(0, range(2000), (10,))
    assert noise.mean() == pytest.approx(0, abs=4 / math.sqrt(noise.size))
    assert noise.var() == pytest.approx(1, abs=4 * math.sqrt(2 / noise.size))
    assert np.abs(np.corrcoef(noise[:1000].ravel(), noise[1000:].ravel())[0, 1]) < 0.04


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ((), "at least one time"),
        ((80.0, 80.0), "must decrease"),
        ((1.0, 2.0), "must decrease"),
        ((80.0, 0.002), "greater than t_min"),
        ((80.0, -1.0), "greater than t_min"),
        ((math.nan,), "greater than t_min"),
        ((math.inf, 1.0), "greater than t_min"),
    ],
)
def test_times_that_cannot_be_are_a_sentence(times, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampling.multistep(consistency(0.0), np.zeros((1, 1)), times, lambda i: np.zeros((1, 1)))


def test_noise_that_does_not_fit_is_an_error(lib):
    z = lib.asarray(np.zeros((2, 3)), "float32")
    with pytest.raises(ValueError, match="must have the same shape"):
        sampling.multistep(consistency(0.0), z, (80.0, 1.0), lambda i: lib.asarray(np.zeros((1, 3)), "float32"))


def gaussian_jump(path=None):
    """The exact flow map of N(0, STD^2) on a path, from the standard deviations of x at the two times."""
    path = path or VE()

    def std(t):
        t = t if isinstance(t, float) else number(t)
        return np.sqrt(path.a(t) ** 2 * STD**2 + (path.b(t) * path.noise_std) ** 2)

    return lambda x, t, s: float(std(s) / std(t)) * x


@pytest.mark.parametrize(
    ("path", "times"), [(VE(), (80.0, 3.0, 0.0)), (Trigonometric(0.4), (1.5, 0.7, 0.0)), (Linear(), (0.9, 0.5, 0.0))]
)
@dtypes
def test_few_jumps_along_a_path(lib, dtype, path, times):
    """The standard deviation at the start is the path's noise, so it is what one jump, or many, leave of it."""
    z = lib.asarray([[0.3, -1.0], [2.0, 0.4]], dtype)
    points = []
    x = sampling.flow_map(gaussian_jump(path), z, times, path, lambda i, y: points.append((i, y)))
    start = float(path.b(np.asarray(times[0]))) * path.noise_std
    for (i, point), s in zip(points, times[1:], strict=True):
        expected = gaussian_jump(path)(start * lib.to_numpy(z).astype(np.float64), times[0], s)
        close(lib, point, expected, dtype, scale=1.0)
        assert i == times[1:].index(s)
    assert x is points[-1][1]


def test_straight_and_noise_level_paths_start_alike():
    z = np.array([[0.3], [-1.0]])
    for t in (1.0, 0.7):
        ends = [sampling.flow_map(lambda x, t, s: x, z, (t, 0.0), *path) for path in ((), (Linear(),))]
        assert np.array_equal(*ends)
        assert np.array_equal(ends[0], t * z)


@dtypes
def test_gamma_sampling_lies_between_jumps_and_consistency_sampling(lib, dtype):
    z = lib.asarray([[0.3, -1.0], [2.0, 0.4]], dtype)
    noises = [lib.asarray([[0.5, 1.0], [0.25, -2.0]], dtype), lib.asarray([[-1.0, 0.1], [3.0, 0.7]], dtype)]
    times = (80.0, 3.0, 0.4, EPS)
    jump = gaussian_jump()
    deterministic = sampling.gamma(jump, z, times, lambda i: pytest.fail("no noise is due"), 0.0, EPS)
    close(lib, deterministic, lib.to_numpy(sampling.flow_map(jump, z, times)), dtype, scale=1.0)
    stochastic = sampling.gamma(jump, z, times, noises.__getitem__, 1.0, EPS)
    consistent = sampling.multistep(lambda x, t: jump(x, t, EPS), z, times[:-1], noises.__getitem__, EPS)
    close(lib, stochastic, lib.to_numpy(consistent), dtype, scale=1.0)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.8, 1.0])
def test_gamma_sampling_keeps_the_law(gamma):
    """The exact flow map leaves the data's variance whatever gamma: the noise is what a jump went too far, no more."""
    start = math.sqrt(STD**2 + 80**2)
    unit = np.eye(4)[:, :, None]
    x = sampling.gamma(gaussian_jump(), start / 80 * unit[0], (80.0, 3.0, 0.4, 0.1), lambda i: unit[i + 1], gamma, EPS)
    assert math.sqrt((x**2).sum()) == pytest.approx(math.hypot(STD, 0.1), rel=1e-12)


def test_gamma_sampling_jumps_to_these_times():
    jumps, noise = [], np.array([[2.0]])

    def jump(x, t, s):
        jumps.append((x.item(), t.item(), s.item()))
        return 0.5 * x

    seen = []
    end = sampling.gamma(
        jump, np.array([[0.1]]), (80.0, 2.0, 0.5), lambda i: noise, 0.6, 0.1, lambda *a: seen.append(a)
    )
    # sqrt(1 - 0.6^2) = 0.8; the last jump goes all the way, to a time above t_min here.
    s = 0.1 + 0.8 * 1.9
    between = 0.5 * 8.0 + math.sqrt(4.0 - s**2) * 2.0
    np.testing.assert_allclose(jumps, [(8.0, 80.0, s), (between, 2.0, 0.5)], rtol=1e-12)
    assert [i for i, _ in seen] == [0, 1]
    assert seen[0][1].item() == pytest.approx(between, rel=1e-12)
    assert end.item() == pytest.approx(0.5 * between, rel=1e-12)


@dtypes
def test_trigflows_two_steps_are_the_multistep_sampler_without_a_smallest_time(lib, dtype):
    """x_t there is cos t times x_sigma here, sigma = sigma_data tan t, and noise has the data's standard deviation."""
    sd, t0, t1 = 0.4, math.atan(80 / 0.4), 1.1
    path, z, fresh = Trigonometric(sd), np.array([[0.3, -1.0], [2.0, 0.4]]), np.array([[0.5, 1.0], [0.25, -2.0]])

    def f(x, sigma):
        sigma = sigma if isinstance(sigma, float) else number(lib.to_numpy(sigma))
        return 0.2 * x / (1 + sigma) + 0.1 * sigma

    def f_trig(x, t):
        return f(x / math.cos(t), sd * math.tan(t))

    x = f_trig(math.sin(t0) * sd * z, t0)
    x = f_trig(path.perturb(x, sd * fresh, t1), t1)
    sigmas = (sd * math.tan(t0), sd * math.tan(t1))
    got = sampling.multistep(f, lib.asarray(z, dtype), sigmas, lambda i: lib.asarray(fresh, dtype), t_min=0.0)
    close(lib, got, x, dtype, scale=10.0)


@pytest.mark.parametrize("sampler", [sampling.flow_map, partial(sampling.gamma, noise=None)])
@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        ((80.0,), "at least two times"),
        ((80.0, 80.0), "must decrease"),
        ((1.0, 2.0, 0.5), "must decrease"),
        ((80.0, 0.0, 0.0), "greater than"),
        ((80.0, -1.0), "at least 0"),
        ((math.nan, 0.0), "greater than"),
        ((80.0, math.nan), "must decrease"),
    ],
)
def test_a_way_that_cannot_be_is_a_sentence(sampler, times, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampler(gaussian_jump(), np.zeros((1, 1)), times)


def test_gamma_sampling_adds_no_noise_unless_told_to():
    def no_noise(i):
        raise AssertionError("noise was asked for")

    x = sampling.gamma(gaussian_jump(), np.ones((1, 1)), (80.0, 1.0, 0.002), no_noise)
    np.testing.assert_allclose(x, sampling.flow_map(gaussian_jump(), np.ones((1, 1)), (80.0, 1.0, 0.002)))


def test_gamma_sampling_ends_at_the_smallest_time_at_the_earliest():
    times, noise = (80.0, 1.0, 0.001), lambda i: np.zeros((1, 1))
    with pytest.raises(ValueError, match=r"t_min = 0\.002"):
        sampling.gamma(gaussian_jump(), np.ones((1, 1)), times, noise, t_min=0.002)


@pytest.mark.parametrize(("settings", "sentence"), [({"gamma": 1.1}, "gamma must be"), ({"t_min": 0.5}, "t_min = 0.5")])
def test_gamma_sampling_out_of_range_is_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        sampling.gamma(gaussian_jump(), np.zeros((1, 1)), (80.0, 0.1), lambda i: np.zeros((1, 1)), **settings)


def test_conditions_reach_the_flow_map():
    z, seen = np.zeros((1, 1)), []

    def jump(x, t, s, label):
        seen.append(label)
        return x

    sampling.flow_map(jump, z, (1.0, 0.0), cond={"label": "7"})
    sampling.gamma(jump, z, (1.0, 0.1), lambda i: z, cond={"label": "8"})
    assert seen == ["7", "8"]


@pytest.mark.parametrize(
    ("steps", "total", "mean"), [((), 192.7613, 0.25099), ((106,), 347.63565, 0.45265)], ids=["one step", "two steps"]
)
def test_sums_of_another_implementation(steps, total, mean):
    """Those in the tests of diffusers' CMStochasticIterativeScheduler: N = 201, answers clipped, their network and input."""
    torch = pytest.importorskip("torch", reason="the noise is of its generator")

    def net(x, c_noise):
        t = 1000 * c_noise[:, None, None, None]
        return x * t / (t + 1)

    def f(x, t):
        return ConsistencyFunction(net, Boundary(0.5, EPS))(x, t).clip(-1, 1)

    z = np.moveaxis(np.arange(768).reshape(3, 8, 8, 4) / 768, 3, 0)
    noise = torch.randn(4, 3, 8, 8, generator=torch.manual_seed(0)).numpy().astype(np.float64)
    times = [float(t) for t in karras_host(201)[::-1][[0, *steps]]]
    x = sampling.multistep(f, z, times, lambda i: noise, t_min=EPS)
    assert np.abs(x).sum() == pytest.approx(total, rel=2e-6)
    assert np.abs(x).mean() == pytest.approx(mean, rel=2e-5)


ELSEWHERE = [VP(), Cosine(), Linear(), Trigonometric(0.7)]
each_path = pytest.mark.parametrize("path", ELSEWHERE, ids=lambda p: type(p).__name__)
Z, FRESH = np.array([[0.3, -1.0], [2.0, 0.4]]), np.array([[0.5, 1.0], [0.25, -2.0]])
LAW = Gaussian(0.4, 0.7)


@each_path
def test_samplers_on_a_path_are_those_on_noise_levels(path):
    """With the exact functions every path's sampler is the same: its points are ``a(t)`` times those of `VE`."""
    along, times, t_min = Along(LAW, path), (0.9, 0.6, 0.3), 0.1
    levels, low, scale = [path.sigma(t) for t in times], path.sigma(t_min), path.a(t_min)

    def here(x, t):
        return along.consistency(x, t, t_min)

    def there(x, t):
        return LAW.consistency(x, t, low)

    one = sampling.onestep(here, Z, 0.9, path=path)
    np.testing.assert_allclose(one, scale * sampling.onestep(there, Z, levels[0]), rtol=1e-10)
    seen = []
    many = sampling.multistep(here, Z, times, lambda i: FRESH, t_min, lambda i, x: seen.append(x), path=path)
    np.testing.assert_allclose(seen[0], one)
    np.testing.assert_allclose(many, scale * sampling.multistep(there, Z, levels, lambda i: FRESH, low), rtol=1e-10)
    for share in (0.0, 0.4, 1.0):
        way = [(*times, t_min), (*levels, low)]
        got = sampling.gamma(along.flow, Z, way[0], lambda i: FRESH, share, t_min, path=path)
        expected = sampling.gamma(LAW.flow, Z, way[1], lambda i: FRESH, share, low)
        np.testing.assert_allclose(got, scale * expected, rtol=1e-10)
    np.testing.assert_allclose(got, many, rtol=1e-10)


@each_path
def test_an_exact_function_keeps_the_law_on_every_path(path):
    """From a start with the law of x_t, as VP's noise alone is not, to the law at t_min, in its mean and its variance."""
    along, t_min, unit = Along(LAW, path), 0.1, np.array([[0.0, 1.0, 0.0, 0.0]])

    def f(x, t):
        if t == 0.9:  # the mean and the data's share of the start, in a coordinate of its own each
            x = x + path.a(t) * np.array([[0.4, 0.4, 0.4, 0.4 + 0.7]])
        return along.consistency(x, t, t_min)

    x = sampling.multistep(f, unit, (0.9, 0.5), lambda i: np.array([[0.0, 0.0, 1.0, 0.0]]), t_min, path=path)
    mean = path.a(t_min) * 0.4
    assert x[0, 0] == pytest.approx(mean, rel=1e-12)
    variance = (path.a(t_min) * 0.7) ** 2 + (path.b(t_min) * path.noise_std) ** 2
    assert ((x[0, 1:] - mean) ** 2).sum() == pytest.approx(variance, rel=1e-12)


def test_a_path_may_start_where_no_data_are_left():
    z = np.ones((1, 1))
    assert sampling.onestep(lambda x, t: x, z, 1.0, path=Linear()) == 1.0
    assert sampling.multistep(lambda x, t: x, z, (1.0, 0.5), lambda i: 0.0 * z, 0.0, path=Linear()) == 0.5
    vp = sampling.onestep(lambda x, t: x, z, 1.0, path=VP())
    assert vp.item() == pytest.approx(math.sqrt(1 - math.exp(-10.05)), rel=1e-6)


def test_a_path_is_not_sampled_from_beyond_its_end():
    z = np.ones((1, 1))
    for call in (
        lambda: sampling.onestep(lambda x, t: x, z, path=Linear()),
        lambda: sampling.multistep(lambda x, t: x, z, (80.0,), lambda i: z, path=VP()),
        lambda: sampling.flow_map(lambda x, t, s: x, z, (80.0, 0.0), Cosine()),
        lambda: sampling.gamma(lambda x, t, s: x, z, (2.0, 0.1), lambda i: z, path=Trigonometric()),
    ):
        with pytest.raises(ValueError, match=r"Times on the path \w+ are at most 1\.\d+, got "):
            call()
