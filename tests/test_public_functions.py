"""The public functions take what looks right, and say in a sentence what does not; nothing else happens."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest

import cmcore as cm
from cmcore import distances, flow_maps, grids, losses, posterior, recipes, sampling, solvers, tangents, weightings

X = np.array([[0.3], [-1.0]])
TIMES = (80.0, 2.0, 0.5)


def refused(call, *words):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    sentence = str(caught.value)
    assert re.fullmatch(r"\S.* .*[.]", sentence, re.DOTALL), f"not a sentence: {sentence!r}"
    for word in words:
        assert word in sentence


def strict(x, *times, **cond):
    """A network, written by hand, that needs its times as an array (B,) of x's dtype."""
    for t in (*times, *cond.values()):
        assert t.shape == (x.shape[0],)
        assert t.dtype == x.dtype
        x = x * cm.namespace(t).reshape(1.0 / (1.0 + t), (x.shape[0], 1))
    return x


# Every public function that calls a function of the user's with times, as call(x).
CALLERS = {
    "onestep": lambda x: sampling.onestep(strict, x),
    "multistep": lambda x: sampling.multistep(strict, x, TIMES, lambda i: x),
    "flow_map": lambda x: sampling.flow_map(strict, x, TIMES),
    "gamma": lambda x: sampling.gamma(strict, x, TIMES, lambda i: x, 0.5),
    "ode": lambda x: sampling.ode(strict, x, TIMES),
    "ode, remembering": lambda x: sampling.ode(strict, x, TIMES, solvers.dpmpp_2m),
    **{
        f"solve, {name}": lambda x, method=method: solvers.solve(method, strict, x, TIMES)
        for name, method in {**recipes.STEPS, "dpm2": solvers.dpm2, "lms": solvers.lms}.items()
    },
    "denoising": lambda x: losses.denoising(strict, x, x, 2.0),
    "consistency": lambda x: losses.consistency(strict, strict, x, x, 2.0, 0.5),
    "distillation": lambda x: losses.consistency(strict, strict, x, x, 2.0, 0.5, denoiser=strict),
    "semigroup": lambda x: flow_maps.semigroup(strict, x, 2.0, 1.0, 0.5),
    "AverageVelocity": lambda x: flow_maps.AverageVelocity(strict)(x, 2.0, 0.5),
    "trigflow_tangent": lambda x: tangents.trigflow_tangent(strict, x, 0.5, x, 0.5, 1.0, tangents.derivative(0.01))[0],
    **{
        f"{name}.sample": lambda x, name=name: recipes.get(name).sample(
            strict, x, recipes.get(name).times(3), lambda i: x
        )
        for name in recipes.names()
    },
}


@pytest.mark.parametrize("name", CALLERS)
def test_a_function_of_the_users_is_given_times_as_arrays(lib, name):
    if lib.name == "tinygrad" and name not in ("onestep", "gamma", "denoising"):
        pytest.skip("one of each kind shows it where each operation is slow")
    out = lib.to_numpy(CALLERS[name](lib.asarray(X, "float32")))
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


def law(x, t):
    return 0.25 / (0.25 + t[:, None] ** 2) * x


@pytest.mark.parametrize("times", [grids.karras_host(18), (0.5, 80.0), (2.0, 1.0, 3.0), (0.0, 1.0)], ids=str)
@pytest.mark.parametrize("method", [solvers.heun, solvers.euler, solvers.dpmpp_2m])
def test_solving_the_wrong_way_is_told(method, times):
    refused(lambda: solvers.solve(method, law, 80.0 * X, times), "must decrease", "times[::-1]", "towards_noise=True")


def test_solving_towards_noise_is_asked_for():
    times = grids.karras_host(60)
    noise = solvers.solve(solvers.heun, law, X, times, towards_noise=True)
    np.testing.assert_allclose(noise, math.sqrt((0.25 + 80**2) / (0.25 + 0.002**2)) * X, rtol=0.01)
    refused(lambda: solvers.solve(solvers.heun, law, noise, times[::-1], towards_noise=True), "must increase")


@pytest.mark.parametrize("path", [cm.paths.VE(), cm.paths.Linear(), cm.paths.Trigonometric()], ids=str)
def test_the_ode_from_unit_noise_is_solve_from_the_paths(path):
    times = (0.9, 0.5, 0.1)
    start = path.b(0.9) * path.noise_std * X
    expected = solvers.solve(solvers.heun, law, start, times, path=path)
    np.testing.assert_allclose(sampling.ode(law, X, times, path=path), expected, rtol=1e-12)


def test_an_infinite_rho_is_the_geometric_grid(lib):
    geometric = np.geomspace(0.002, 80.0, 5)
    np.testing.assert_allclose(grids.karras_host(5, rho=math.inf), geometric, rtol=1e-12)
    np.testing.assert_allclose(grids.karras_host(5, rho=1e9), geometric, rtol=1e-7)
    np.testing.assert_allclose(grids.karras_host(5, rho=1e15), geometric, rtol=1e-12)
    index = lib.asarray(np.arange(5.0), "float32")
    for rho in (math.inf, 1e9):
        np.testing.assert_allclose(lib.to_numpy(grids.karras_time(index, 5, rho=rho)), geometric, rtol=1e-5)
        t = lib.asarray([1.0, 2.0], "float32")
        way = math.log(80.0 / 0.002)
        np.testing.assert_allclose(lib.to_numpy(grids.karras_slope(t, rho=rho)), [way, 2 * way], rtol=1e-5)
    middle = grids.karras_midpoint(lib.asarray([8.0], "float32"), lib.asarray([2.0], "float32"), math.inf)
    np.testing.assert_allclose(lib.to_numpy(middle), [4.0], rtol=1e-6)


@pytest.mark.parametrize("rho", [99.0, 101.0, 1e4])
def test_the_grid_of_a_large_rho_is_the_same_by_roots_and_by_logarithms(rho):
    low, high = 0.002 ** (1 / rho), 80.0 ** (1 / rho)
    u = np.linspace(0, 1, 7)
    np.testing.assert_allclose(grids.karras_host(7, rho=rho), (low + u * (high - low)) ** rho, rtol=1e-9)
    slope = rho * 3.0 ** (1 - 1 / rho) * (high - low)
    np.testing.assert_allclose(grids.karras_slope(np.array([3.0]), rho=rho), [slope], rtol=1e-9)


U = np.array([0.25, 0.75])
GRIDS = {
    "karras_host": grids.karras_host,
    "karras": grids.karras,
    "karras_time": lambda n, *a: grids.karras_time(U, n, *a),
    "uniform_pair": lambda n, *a: grids.uniform_pair(U, n, *a),
    "karras_slope": lambda n, *a: grids.karras_slope(U, *a),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(
    "given",
    [
        (5, 0.0, 80.0),
        (5, -1.0, 80.0),
        (5, 80.0, 80.0),
        (5, 80.0, 0.002),
        (5, math.nan, 80.0),
        (5, 0.002, math.inf),
        (5, 0.002, 80.0, 0.0),
        (5, 0.002, 80.0, -7.0),
        (5, 0.002, 80.0, math.nan),
        (5, 0.002, 80.0, 1e-3),
    ],
    ids=str,
)
def test_grids_that_cannot_be(name, given):
    refused(lambda: GRIDS[name](*given), "got")


@pytest.mark.parametrize("name", [n for n in GRIDS if n != "karras_slope"])
@pytest.mark.parametrize("n", [1, 0, -3, 1.0, math.nan, math.inf], ids=str)
def test_grids_of_too_few_points(name, n):
    refused(lambda: GRIDS[name](n), "n")


DRAWN = {
    "uniform_pair": lambda u: grids.uniform_pair(u, 10).t,
    "lognormal_index_pair": lambda u: grids.lognormal_index_pair(u, 10, 10).t,
    "heavy_tailed_time": lambda u: grids.heavy_tailed_time(u, 0.002, 80.0),
    "karras_time": lambda u: grids.karras_time(9.0 * u, 10),
}


@pytest.mark.parametrize("name", DRAWN)
def test_numbers_that_are_not_uniform_are_refused_where_they_can_be_looked_at(name):
    for dtype in (np.float32, np.float64):
        for wrong in (1.01, 2.0, -0.01, -1e-30, math.nan, math.inf):
            refused(
                lambda wrong=wrong, dtype=dtype: DRAWN[name](np.array([0.5, wrong, 0.1], dtype)), "from 0 to", "got"
            )
        edges = DRAWN[name](np.array([0.0, np.nextafter(dtype(1), dtype(0)), 1.0], dtype))
        assert np.isfinite(edges).all()
        assert edges.dtype == dtype
        assert DRAWN[name](np.zeros(0, dtype)).shape == (0,)


def test_the_curriculum_of_an_array_is_left_alone():
    assert np.isfinite(grids.karras_time(np.array([0.0, 4.0]), np.array(3.0))).all()
    refused(lambda: grids.karras_time(np.array([0.0, 4.0]), 3), "index must be from 0 to 2, got 4.0")
    refused(lambda: grids.karras_time(np.array(4.0), np.float32(3)), "index must be from 0 to 2, got 4.0")


LAWS = {
    "lognormal_index_pmf": lambda m, s: grids.lognormal_index_pmf(10, m, s),
    "lognormal_index_pair": lambda m, s: grids.lognormal_index_pair(U, 10, 10, m, s),
    "logistic_time": lambda m, s: grids.logistic_time(U, m, s),
    "lognormal_time": lambda m, s: grids.lognormal_time(U, m, s),
    "heavy_tailed_time": lambda m, s: grids.heavy_tailed_time(U, 1.0, 80.0, m, s),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("given", [(0.0, 0.0), (0.0, -1.0), (0.0, math.nan), (math.inf, 1.0), (math.nan, 1.0)], ids=str)
def test_laws_of_times_that_cannot_be(name, given):
    refused(lambda: LAWS[name](*given), "positive", "got")


@pytest.mark.parametrize(
    "given", [{"q": 1.0}, {"k": -1.0}, {"b": math.nan}, {"min_gap": 2.0}, {"stage": -1.0}], ids=str
)
def test_gaps_that_cannot_be(given):
    refused(lambda: grids.ect_pair(U, **{"stage": 0.0, **given}), "got")


@pytest.mark.parametrize("name", recipes.WEIGHTINGS)
@pytest.mark.parametrize(
    "pair", [U, (U, U, U), None, 1.0, grids.TimePair(1.0, 0.5, 0.5)], ids=lambda p: type(p).__name__
)
def test_a_weighting_is_given_a_pair(name, pair):
    refused(lambda: recipes.WEIGHTINGS[name](pair, 0.5), "xpected" if type(pair) is grids.TimePair else "TimePair")


@pytest.mark.parametrize("sigma_data", [0.0, -0.5, math.nan, math.inf])
def test_a_weighting_is_given_the_datas_scale(sigma_data):
    refused(lambda: weightings.karras(grids.TimePair(U, 0 * U, U), sigma_data), "sigma_data")


def raised(call):
    """What a call raises, or None."""
    try:
        call()
    except Exception as problem:
        return problem
    return None


def given_to(recipe):
    """What a recipe's loss is given, right in every respect, for a network with every feature."""

    class Net:
        def __call__(self, x, *times, **cond):
            return 0.5 * x

        def log_weight(self, *times):
            return 0.0 * times[0]

    nets = dict.fromkeys(("online", "target", *(["teacher"] if recipe.needs_teacher else [])), Net())
    draws = {name: np.full(2, 0.4) for name in recipe.draws}
    scalars = {name: np.asarray(value) for name, value in recipe.scalars(0, 10).items()}
    return {"nets": nets, "x0": X, "z": X[::-1], "draws": draws, "scalars": scalars, "cond": {}}


def by_differences(name):
    other = {"difference": 1e-3, "particles": 2}  # without derivatives, and for batches of two
    return recipes.get(name, **{k: v for k, v in other.items() if k in recipes.by_name(recipes.get(name))})


LOSSES = [n for n in recipes.names() if not recipes.get(n).needs_jvp or "difference" in recipes.by_name(recipes.get(n))]


@pytest.mark.parametrize("name", LOSSES)
def test_each_missing_network_or_scalar_is_named(name):
    recipe = by_differences(name)
    good = given_to(recipe)
    assert np.isfinite(recipe.loss(**good)).all()
    needed = set()
    for kind in ("nets", "scalars"):
        for missing in good[kind]:
            less = {k: v for k, v in good[kind].items() if k != missing}
            problem = raised(lambda less=less, kind=kind: recipe.loss(**{**good, kind: less}))
            if problem is not None:
                needed.add(missing)
                assert isinstance(problem, ValueError)
                assert re.search(rf"""['"]{missing}['"].*[.]$""", str(problem)) or f'{{"{missing}"' in str(problem)
    assert "online" in needed
    assert needed >= recipe.curriculum(0, 10).keys() - {"target_decay"}


@pytest.mark.parametrize("name", LOSSES)
def test_random_numbers_of_the_wrong_shape_are_told(name):
    recipe = by_differences(name)
    good = given_to(recipe)

    def loss(**changed):
        return lambda: recipe.loss(**{**good, "draws": {**good["draws"], **changed}})

    for name, right in good["draws"].items():
        for wrong in (*map(np.ones, ((2, 1), (2, 7), (3,), (), (1,))), np.array([0, 1])):
            refused(loss(**{name: wrong}), name, "got")
        for wrong in (None, [0.4, 0.4], 0.4, "x"):
            refused(loss(**{name: wrong}))
        less = {other: right for other in good["draws"] if other != name}
        refused(lambda less=less: recipe.loss(**{**good, "draws": less}), "draws", name)
        refused(loss(more=right), "draws", "more")
    for draws in (None, [0.4, 0.4], 0.4, np.array([0.1, 1]), "x"):
        refused(lambda draws=draws: recipe.loss(**{**good, "draws": draws}), "draws")
    for z in (X[:1], X[:, 0], X.astype(np.float32), None):
        refused(lambda z=z: recipe.loss(**{**good, "z": z}))


@pytest.mark.parametrize("name", LOSSES)
def test_a_network_without_a_log_weight_is_told(name):
    recipe = by_differences(name)
    if "learned_weight" not in recipes.by_name(recipe):
        return
    if not recipe.learned_weight:
        recipe = recipes.get(name, **{**recipes.by_name(recipe), "learned_weight": True})
    good = given_to(recipe)
    good["nets"] = dict.fromkeys(good["nets"], lambda x, *times, **cond: 0.5 * x)
    refused(lambda: recipe.loss(**good), "log_weight", "learned_weight=False")


def net(x, c_noise, **cond):
    return 0.5 * x


F = cm.ConsistencyFunction(net, cm.parametrization.Boundary())
MAP = flow_maps.AverageVelocity(net)
BY = tangents.derivative(0.01)

# Every public function of a batch whose samples do not depend on each other, as call(x); the result is (B, ...).
OF_SAMPLES = {
    "l1": lambda x: distances.l1(x, 0.5 * x),
    "squared_l2": lambda x: distances.squared_l2(x, 0.5 * x),
    "PseudoHuber": lambda x: distances.PseudoHuber()(x, 0.5 * x),
    "ElementwisePseudoHuber": lambda x: distances.ElementwisePseudoHuber()(x, 0.5 * x),
    "ConsistencyFunction": lambda x: F(x, 2.0),
    "AverageVelocity": lambda x: MAP(x, 2.0, 0.5),
    "TowardDenoiser": lambda x: flow_maps.TowardDenoiser(net)(x, 2.0, 0.5),
    "average_velocity_by": lambda x: flow_maps.average_velocity_by(
        MAP, x, grids.TimePair(0 * x[:, 0] + 1, 0 * x[:, 0], 0 * x[:, 0] + 1), 0 * x[:, 0] + 0.5
    ),
    "semigroup": lambda x: flow_maps.semigroup(MAP, x, 2.0, 1.0, 0.5),
    "denoising": lambda x: losses.denoising(F, x, x, 2.0),
    "consistency": lambda x: losses.consistency(F, F, x, x, 2.0, 0.5),
    "onestep": lambda x: sampling.onestep(F, x),
    "multistep": lambda x: sampling.multistep(F, x, TIMES, lambda i: x),
    "flow_map": lambda x: sampling.flow_map(MAP, x, TIMES),
    "gamma": lambda x: sampling.gamma(MAP, x, TIMES, lambda i: x, 0.5),
    "ode": lambda x: sampling.ode(F, x, TIMES),
    "normalized": lambda x: tangents.normalized(x, 0.1),
    "rcm_warmup": lambda x: tangents.rcm_warmup(x, x, 0.5, x, 0.5, 0.5),
    "loss_along": lambda x: tangents.loss_along(x, x),
    "trigflow_tangent": lambda x: tangents.trigflow_tangent(net, x, 0.5, x, 0.5, 1.0, BY)[1],
    "posterior_mean": lambda x: posterior.posterior_mean(0 * X + 0.5, x, 1.0),
    "converted": lambda x: cm.paths.converted(x, 0.5, cm.paths.Linear(), cm.paths.VE())[0],
    **{f"solve, {n}": lambda x, m=m: solvers.solve(m, F, x, TIMES) for n, m in recipes.STEPS.items()},
    **{n: lambda x, n=n: getattr(solvers, n)(F, x, 2.0, 0.5) for n in ("euler", "heun", "dpm2", "dpmpp_2s")},
    **{
        f"{type(o).__name__}.{n}": lambda x, o=o, n=n: getattr(o, n)(x, 2.0)
        for o in (cm.oracles.Gaussian(0.1, 0.5), cm.oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5))
        for n in ("denoiser", "score")
    },
    **{
        f"{type(p).__name__}.{n}": lambda x, p=p, n=n: getattr(p, n)(x, 0.5, x)
        for p in (cm.paths.VE(), cm.paths.VP(), cm.paths.Cosine(), cm.paths.Linear(), cm.paths.Trigonometric())
        for n in ("noise", "score", "velocity", "denoiser_from_noise", "denoiser_from_score", "denoiser_from_velocity")
    },
}
BATCH = np.array([[0.3], [-1.0], [0.7], [2.0]])


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_memory_that_is_foreign_changes_nothing(name):
    expected = np.array(OF_SAMPLES[name](BATCH))
    readonly = BATCH.copy()
    readonly.setflags(write=False)
    sparse = np.zeros((8, 3))
    sparse[::2, 1:2] = BATCH
    backwards = np.ascontiguousarray(BATCH[::-1])[::-1]
    for x in (readonly, sparse[::2, 1:2], backwards, np.asfortranarray(BATCH)):
        np.testing.assert_allclose(OF_SAMPLES[name](x), expected, rtol=1e-12)
        np.testing.assert_array_equal(x, BATCH)


@pytest.mark.parametrize("name", OF_SAMPLES)
@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_a_spoilt_sample_spoils_no_other(name, spoilt):
    expected = np.array(OF_SAMPLES[name](BATCH))
    x = BATCH.copy()
    x[1] = spoilt
    with np.errstate(all="ignore"):
        got = np.array(OF_SAMPLES[name](x))
    np.testing.assert_allclose(got[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-12)
    assert name == "loss_along" or not np.isfinite(got[1]).all() or math.isinf(spoilt)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_no_samples_give_no_results(name):
    assert np.array(OF_SAMPLES[name](BATCH[:0])).shape[0] == 0


@pytest.mark.parametrize("name", OF_SAMPLES)
@pytest.mark.parametrize(
    "x",
    [
        np.ones((2, 1), int),
        np.ones((2, 1), bool),
        np.ones((2, 1), complex),
        np.array([["a"], ["b"]]),
        np.array(1.5),
        None,
        1.5,
        [[1.0]],
    ],
    ids=lambda x: getattr(x, "dtype", type(x).__name__).__str__(),
)
def test_what_is_no_batch_is_told(name, x):
    if name == "average_velocity_by" and not isinstance(x, np.ndarray | None):
        pytest.skip("its entry reads x before the function does")
    if (
        x is None
        or isinstance(x, (float, list))
        or getattr(x, "dtype", None) == np.dtype("<U1")
        or getattr(x, "ndim", 1) == 0
    ):
        call = WITHOUT_ARITHMETIC.get(name)
        if call is None:
            pytest.skip("its entry computes with x before the function does")
        return refused(lambda: call(x))
    refused(lambda: OF_SAMPLES[name](x))


ARITHMETIC = ("l1", "squared_l2", "PseudoHuber", "ElementwisePseudoHuber", "average_velocity_by")
WITHOUT_ARITHMETIC = {name: call for name, call in OF_SAMPLES.items() if name not in ARITHMETIC}

ROOMS = (distances, flow_maps, grids, losses, posterior, sampling, solvers, tangents, weightings)
ELSEWHERE = {
    # Of numbers or times, not of a batch: above, or in the tests of their rooms.
    "karras_host", "karras", "karras_time", "karras_slope", "karras_midpoint", "uniform_pair", "lognormal_index_pmf",
    "lognormal_index_pair", "uniform", "logistic_time", "heavy_tailed_time", "lognormal_time", "ect_pair", "check_range",
    "snr", "snr_plus_one", "truncated_snr", "inverse_gap", "inverse_root_gap", "inverse_c_out", "seeded_noise",
    "derivative", "central_difference", "backward_difference",
    # Of a function: tests/test_reverse_sde.py.
    "clipped",
    # Of a Jacobian-vector product, which NumPy has not; of many points.
    "exact", "eulerian", "lagrangian", "trajectory", "solve",
}  # fmt: skip


def test_every_public_function_is_tried():
    for room in ROOMS:
        for name, function in vars(room).items():
            mine = inspect.isfunction(function) and function.__module__.startswith(room.__name__)
            if mine and not name.startswith("_"):
                assert name in OF_SAMPLES or name in ELSEWHERE, (
                    f"{room.__name__}.{name} is not among the functions tried"
                )


def seen(x, *times, **cond):
    return x


ROWS = np.random.default_rng(0).normal(size=(6, 2))
PROFILE = cm.ema.Profile(1, 1.0)

# Settings and host functions with one argument spoilt.
SPOILT = {
    "ternary, float": lambda: cm.search.ternary(lambda i: 1.0, 0.5, 3.2),
    "ternary, metric": lambda: cm.search.ternary(lambda i: None, 0, 3),
    "greedy, None": lambda: cm.search.greedy(lambda t: 1.0, 2, None),
    "greedy, words": lambda: cm.search.greedy(lambda t: 1.0, 2, ["a", "b", "c"]),
    "greedy, infinity": lambda: cm.search.greedy(lambda t: 1.0, 2, [1.0, 2.0, math.inf]),
    "greedy, metric": lambda: cm.search.greedy(3, 2, [1.0, 2.0, 3.0]),
    **{
        f"{f.__name__}, {name}": lambda f=f, x=x: f(x, ROWS)
        for f in (
            cm.metrics.frechet_distance,
            cm.metrics.kid,
            cm.metrics.sliced_wasserstein,
            cm.metrics.precision_recall,
            cm.metrics.density_coverage,
            cm.metrics.memorization,
            cm.metrics.kid_of_subsets,
        )
        for name, x in {
            "complex": ROWS * 1j,
            "words": np.array([["a"]]),
            "NaN": ROWS * math.nan,
            "none": ROWS[:0],
            "0-d": np.array(1.0),
            "None": None,
            "ragged": [[1.0], [1.0, 2.0]],
        }.items()
    },
    "kid, degree 0": lambda: cm.metrics.kid(ROWS, ROWS, 0),
    "kid, degree NaN": lambda: cm.metrics.kid(ROWS, ROWS, math.nan),
    "kid_of_subsets, subsets": lambda: cm.metrics.kid_of_subsets(ROWS, ROWS, subsets=0),
    "class_deviation, a class too many": lambda: cm.metrics.class_deviation(np.array([3]), np.array([0]), 3),
    "class_deviation, floats": lambda: cm.metrics.class_deviation(np.array([0.5]), np.array([0]), 3),
    "class_deviation, words": lambda: cm.metrics.class_deviation(["a"], [0], 3),
    "precision_recall, k": lambda: cm.metrics.precision_recall(ROWS, ROWS, 1.5),
    **{
        f"{type(s).__name__}.decay({step})": lambda s=s, step=step: s.decay(step)
        for s in (cm.ema.Constant(), cm.ema.HalfLife(10.0), cm.ema.WarmupPower(), cm.ema.PowerFunction(1.0))
        for step in (-1, -10, 0.5, None)
    },
    "Constant, word": lambda: cm.ema.Constant("a"),
    "HalfLife, word": lambda: cm.ema.HalfLife("a"),
    "PowerFunction, word": lambda: cm.ema.PowerFunction("a"),
    "gamma_of, list": lambda: cm.ema.gamma_of([0.1]),
    "combine, NaN": lambda: cm.ema.combine([math.nan], [{"a": ROWS}]),
    "combine, list": lambda: cm.ema.combine([1.0], [{"a": [1.0]}]),
    "combine, None": lambda: cm.ema.combine(None, [{"a": ROWS}]),
    "Gaussian, empty": lambda: cm.oracles.Gaussian(0.0, covariance=np.zeros((0, 0))),
    "Mixture, words": lambda: cm.oracles.Mixture(["a"], [0.0], 1.0),
    "posterior_mean, None": lambda: posterior.posterior_mean(None, ROWS, 1.0),
    "posterior_mean, list": lambda: posterior.posterior_mean(ROWS.tolist(), ROWS, 1.0),
    "posterior_mean, 0-d": lambda: posterior.posterior_mean(np.array(1.0), ROWS, 1.0),
    "posterior_mean, empty": lambda: posterior.posterior_mean(ROWS[:0], ROWS, 1.0),
    "posterior_mean, integers": lambda: posterior.posterior_mean(np.ones((3, 2), int), ROWS, 1.0),
    "posterior_mean, float32": lambda: posterior.posterior_mean(ROWS.astype(np.float32), ROWS, 1.0),
    "posterior_mean, time 0": lambda: posterior.posterior_mean(ROWS, ROWS, 0.0),
    "posterior_mean, labels": lambda: posterior.posterior_mean(ROWS, ROWS, 1.0, np.zeros(3, int)),
    "posterior_mean, list of labels": lambda: posterior.posterior_mean(ROWS, ROWS, 1.0, [0] * 6),
    **{
        f"seeded_noise{args}": lambda args=args: sampling.seeded_noise(*args)
        for args in (
            (0, None, (1,)),
            (0, [-1], (1,)),
            (0, [0.5], (1,)),
            (0, [0], (-1,)),
            (0, [0], 3),
            (0, [0], (1,), -1),
        )
    },
    **{
        f"multistep, times {times!r}": lambda times=times: sampling.multistep(seen, X, times, lambda i: X)
        for times in (None, 80.0, ["a"], np.ones((2, 2)))
    },
    "multistep, noise": lambda: sampling.multistep(seen, X, TIMES, X),
    "onestep, f": lambda: sampling.onestep(3, X),
    "onestep, time": lambda: sampling.onestep(seen, X, "80"),
    "onestep, path": lambda: sampling.onestep(seen, X, path="ve"),
    **{
        f"solve, times {times!r}": lambda times=times: solvers.solve(solvers.heun, seen, X, times)
        for times in (None, 3.0, "ab", ("a", "b"), (math.nan, 1.0), (2.0, None))
    },
    "solve, path": lambda: solvers.solve(solvers.heun, seen, X, TIMES, path="ve"),
    "solve, denoiser": lambda: solvers.solve(solvers.heun, None, X, TIMES),
    **{
        f"{name}({sd!r})": lambda of=of, sd=sd: of(sd)
        for name, of in {
            "EDM": cm.parametrization.EDM,
            "Boundary": cm.parametrization.Boundary,
            "TrigFlow": cm.parametrization.TrigFlow,
            "Trigonometric": cm.paths.Trigonometric,
            "PseudoHuber": distances.PseudoHuber,
            "ElementwisePseudoHuber": distances.ElementwisePseudoHuber,
        }.items()
        for sd in (0.0, -1.0, math.nan, math.inf, "x")
    },
    "ConsistencyFunction, network": lambda: cm.ConsistencyFunction(None, cm.parametrization.EDM()),
    "ConsistencyFunction, class": lambda: cm.ConsistencyFunction(seen, cm.parametrization.EDM),
    "ConsistencyFunction, None": lambda: cm.ConsistencyFunction(seen, None),
    "per_sample, matrix": lambda: cm.per_sample(ROWS, ROWS),
    "per_sample, few": lambda: cm.per_sample(np.ones(3), ROWS),
    "per_sample, number": lambda: cm.per_sample(1.0, ROWS),
    "TowardDenoiser, time 0": lambda: flow_maps.TowardDenoiser(net)(X, 0.0, 0.0),
    "average_velocity_by, split": lambda: flow_maps.average_velocity_by(
        MAP, ROWS, grids.TimePair(*[ROWS[:, 0]] * 3), ROWS
    ),
    "Fixed, word": lambda: grids.Fixed("a"),
    "Fixed, 2.5": lambda: grids.Fixed(2.5),
    "Progressive, 2.5": lambda: grids.Progressive(2.5),
    "Doubling, NaN": lambda: grids.Doubling(math.nan),
    "Halving, 4.0": lambda: grids.Halving(4.0),
    "Stages, 2.5": lambda: grids.Stages(2.5),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_spoilt_is_told(name):
    refused(SPOILT[name])


def test_no_images_have_no_noise():
    assert sampling.seeded_noise(0, [], (2, 3)).shape == (0, 2, 3)
