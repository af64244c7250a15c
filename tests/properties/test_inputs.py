"""Strange inputs to every public function on every backend: the answer is NumPy's in float64, or a sentence."""

from __future__ import annotations

import inspect
import math
import re
from contextlib import contextmanager

import numpy as np
import pytest
import test_public_functions as tables
from conftest import LIBRARIES, strictest
from hypothesis import given, settings
from hypothesis import strategies as st

import cmcore as cm
from cmcore import flow_maps, grids, losses, oracles, parametrization, posterior, sampling, solvers, tangents

MIXTURE = oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5)
LAWS = {
    "Gaussian": oracles.Gaussian(0.1, 0.5),
    "Mixture": MIXTURE,
    "Empirical": oracles.Empirical([[-1.0], [0.25], [1.0]]),
    "Product": oracles.Product([MIXTURE]),
    "Rotated": oracles.Rotated(oracles.Gaussian(0.1, 0.5), [[-1.0]]),
    "Along": oracles.Along(oracles.Gaussian(0.1, 0.5), cm.paths.Linear()),
}
PATHS = {
    type(p).__name__: p
    for p in (cm.paths.VE(), cm.paths.VP(), cm.paths.Cosine(), cm.paths.Linear(), cm.paths.Trigonometric())
}


def net(x, c_noise, **cond):
    return 0.5 * x


def pair(t):
    return grids.TimePair(t, 0.5 * t, 0.5 * t)


def half(x):
    """Half of x; what is no floating-point number stays as it is, for the function to refuse rather than the namespace."""
    return 0.5 * x if cm.namespace(x).isdtype(x.dtype, "real floating") else x


F = cm.ConsistencyFunction(net, parametrization.Boundary())
MAP = flow_maps.AverageVelocity(net)

# Functions of a batch at a time, as call(x, t), t a number or an array.
AT_TIMES = {
    "denoising": lambda x, t: losses.denoising(F, x, half(x), t),
    "consistency": lambda x, t: losses.consistency(F, F, x, half(x), t, 0.5 * t),
    "distillation": lambda x, t: losses.consistency(F, F, x, half(x), t, 0.5 * t, denoiser=F, step=solvers.euler),
    "posterior_mean": lambda x, t: posterior.posterior_mean(x[:1, ...], x, t),
    "AverageVelocity": lambda x, t: MAP(x, t, 0.5 * t),
    "AverageVelocity.velocity": lambda x, t: MAP.velocity(x, t, 0.5 * t),
    "TowardDenoiser": lambda x, t: flow_maps.TowardDenoiser(net)(x, t, 0.5 * t),
    "semigroup": lambda x, t: flow_maps.semigroup(MAP, x, t, 0.5 * t, 0.25 * t),
    "trigflow_tangent": lambda x, t: tangents.trigflow_tangent(net, x, t, x, 0.5, 1.0, tangents.derivative(0.01))[1],
    "converted": lambda x, t: cm.paths.converted(x, t, cm.paths.VE(), cm.paths.Trigonometric())[0],
    "onestep": lambda x, t: sampling.onestep(F, x, t),
    "multistep": lambda x, t: sampling.multistep(F, x, (t, 0.5 * t), lambda i: x),
    "flow_map": lambda x, t: sampling.flow_map(MAP, x, (t, 0.5 * t)),
    "gamma": lambda x, t: sampling.gamma(MAP, x, (t, 0.5 * t, 0.25 * t), lambda i: x, 0.5, 0.0),
    "ode": lambda x, t: sampling.ode(F, x, (t, 0.5 * t)),
    **{n: lambda x, t, n=n: getattr(solvers, n)(F, x, t, 0.5 * t) for n in ("euler", "heun", "dpm2", "dpmpp_2s")},
    **{f"solve, {n}": lambda x, t, n=n: solvers.solve(getattr(solvers, n), F, x, (t, 0.5 * t)) for n in ("dpmpp_2m", "lms")},
    **{
        f"{type(p).__name__} scalings": lambda x, t, p=p: cm.ConsistencyFunction(net, p)(x, t)
        for p in (parametrization.Boundary(), parametrization.EDM(), parametrization.TrigFlow())
    },
    **{
        f"Prediction, {q}": lambda x, t, q=q: cm.ConsistencyFunction(net, parametrization.Prediction(cm.paths.VP(), q))(x, t)
        for q in ("noise", "velocity", "denoiser")
    },
    **{f"{n}.{m}": lambda x, t, law=law, m=m: getattr(law, m)(x, t) for n, law in LAWS.items() for m in ("score", "denoiser")},
    "Gaussian.flow": lambda x, t: LAWS["Gaussian"].flow(x, t, 0.5 * t),
    **{f"{n}.perturb": lambda x, t, p=p: p.perturb(x, half(x), t) for n, p in PATHS.items()},
    **{
        f"{n}.{m}": lambda x, t, p=p, m=m: getattr(p, m)(x, t, half(x))
        for n, p in PATHS.items()
        for m in ("noise", "score", "velocity", "denoiser_from_noise", "denoiser_from_score", "denoiser_from_velocity")
    },
}  # fmt: skip

# Functions of times alone, as call(t), t an array (B,).
OF_TIMES = {
    "karras_time": lambda t: grids.karras_time(t, 18),
    "karras_slope": grids.karras_slope,
    "karras_midpoint": lambda t: grids.karras_midpoint(t, 0.5 * t),
    "uniform_pair": lambda t: grids.uniform_pair(t, 18).t,
    "lognormal_index_pair": lambda t: grids.lognormal_index_pair(t, 18, 18).t,
    "logistic_time": grids.logistic_time,
    "lognormal_time": grids.lognormal_time,
    "heavy_tailed_time": lambda t: grids.heavy_tailed_time(t, 0.002, 80.0),
    "ect_pair": lambda t: grids.ect_pair(t, 2.0).r,
    **{f"weighting {n}": lambda t, w=w: w(pair(t), 0.5) for n, w in cm.recipes.WEIGHTINGS.items()},
    **{
        f"{n}.{m}": lambda t, p=p, m=m: getattr(p, m)(t)
        for n, p in PATHS.items()
        for m in ("a", "b", "da", "db", "sigma", "time")
    },
}  # fmt: skip

TIMES = st.one_of(
    st.sampled_from([0.0, 0, 5e-324, 1e-45, 1e-38, 2e-38, 1e-20, 0.002, 0.5, 1, 1.0, 80.0, 1e18, 1e19, 1e38, 1e200, math.inf, -1.0, math.nan]),
    st.floats(0.001, 100.0),
)  # fmt: skip
NUMBERS = st.sampled_from([float, np.float64, np.float32])
STATES = st.lists(st.sampled_from([0.3, -1.0, 0.0, 2.0, 1e-30, -1e15, math.nan, math.inf, -math.inf]), max_size=3)
ROOM = {"float32": (1e36, 3e-3), "float64": (1e280, 1e-6)}
"""The size up to which results and what they are made of surely are, and what may be lost of digits near a cancellation."""


def answer(call):
    """What a call returns, or None where it refuses in a sentence; all else fails."""
    try:
        with np.errstate(all="ignore"):
            return call()
    except (ValueError, TypeError, cm.Error) as refusal:
        sentence = str(refusal)
        assert re.fullmatch(r"\S.* .*[.]", sentence, re.DOTALL), f"not a sentence: {sentence!r}"
        assert re.search(r"\bgot\b|must|expect", sentence), f"it does not say what is wrong: {sentence!r}"
        return None


def near(got, exact, dtype, name):
    """Assert a result to be NumPy's in float64 wherever that is in the dtype's room, and a number wherever that is one."""
    high, tolerance = ROOM[dtype]
    assert got.shape == exact.shape, name
    sure = np.isfinite(exact) & (np.abs(exact) < high)
    wrong = sure & ~(np.abs(got - exact) <= tolerance * np.maximum(np.abs(exact), 1.0))
    assert not wrong.any(), f"{name}: {got[wrong]} instead of {exact[wrong]}"


ROWS = np.array([[0.3], [-1.0], [0.0]])


@contextmanager
def library(name):
    """A backend, or array-api-strict, which has nothing but what the standard says."""
    if name == "strict":
        with strictest() as strict:
            yield strict
    else:
        yield cm.load(name)


# NumPy, and the namespace that refuses what the standard does not promise.
ON_THE_HOST = pytest.mark.parametrize("namespace", [n for n in LIBRARIES if n in ("numpy", "strict")])


@ON_THE_HOST
@pytest.mark.parametrize("name", AT_TIMES)
@settings(max_examples=30, derandomize=True)
@given(t=TIMES, kind=NUMBERS)
def test_every_number_is_a_time_or_refused(name, namespace, t, kind):
    with np.errstate(all="ignore"):
        t = kind(t)
    for dtype in ("float32", "float64"):
        with library(namespace) as lib:
            x = lib.asarray(ROWS, dtype)
            got = answer(lambda x=x: AT_TIMES[name](x, t))
            if got is None:
                continue
            assert got.dtype == x.dtype
            got = lib.to_numpy(got)
        assert not np.isnan(got).any(), f"{name} is not a number at t = {t!r}"
        if float(0.25 * t) != 0.25 * float(t):
            continue  # the entries' own other times are rounded
        # Of times below that a quotient leaves the range of float32, and comes back: infinite, but never wrong.
        if t == 0 or t > 1e-30 or np.isfinite(got).all():
            near(got, AT_TIMES[name](ROWS, float(t)), dtype, f"{name} at {t!r}")


@ON_THE_HOST
@pytest.mark.parametrize("name", AT_TIMES)
@settings(max_examples=15, derandomize=True)
@given(values=STATES, t=st.floats(0.01, 0.9))
def test_only_what_is_spoilt_is_not_a_number(name, namespace, values, t):
    x = np.reshape(np.array(values), (len(values), 1))
    if name == "posterior_mean" and not np.isfinite(x).all():
        return  # its data are among the points
    if name == "posterior_mean" and not len(x):
        x = ROWS[:1]
    with library(namespace) as lib, np.errstate(all="ignore"):
        got = lib.to_numpy(AT_TIMES[name](lib.asarray(x, "float64"), t))
    assert got.shape[0] == len(x)
    fine = np.isfinite(x[:, 0])
    assert np.isfinite(got[fine]).all(), f"{name}: {got} of {x}"


STRANGE = st.sampled_from(["float16", "int32", "int64", "bool", "complex64", "0-d"])


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_backend_gives_numpys_numbers(name):
    """All functions in one batch, of ordinary, huge, tiny and spoilt times and points, so that each backend is asked once."""
    with library(name) as backend:
        times = np.array([0.5, 0.01, 0.9, 0.3, 1e-3, 0.7])
        points = np.array([[0.3], [-1.0], [np.nan], [0.0], [2.0], [np.inf]])
        chosen = {n: c for n, c in AT_TIMES.items() if n.split(".")[0].split(",")[0] not in HOST_TIMES}
        x, t = backend.asarray(points, "float32"), backend.asarray(times, "float32")
        exact_x, exact_t = points.astype(np.float32).astype(float), times.astype(np.float32).astype(float)
        for n, call in list(chosen.items())[:: SPARES.get(name, 1)]:
            if n in ("posterior_mean", "trigflow_tangent"):
                continue  # of the first point as the data; of a difference, which float32 has not the digits for
            got = backend.to_numpy(call(x, t))
            with np.errstate(all="ignore"):
                exact = call(exact_x, exact_t)
            assert got.dtype == np.float32
            near(got, exact, "float32", f"{n} by {name}")
            assert not np.isfinite(got[2]).any(), n
        for n, call in list(OF_TIMES.items())[:: SPARES.get(name, 1)]:
            got = backend.to_numpy(call(t))
            with np.errstate(all="ignore"):
                near(got, call(exact_t), "float32", f"{n} by {name}")


SPARES = {"jax": 3, "tinygrad": 12}
"""Of how many functions one is tried where each is a program to compile; tests/test_dtype_and_device.py has the rest."""
HOST_TIMES = ("onestep", "multistep", "flow_map", "gamma", "ode", "solve")
"""Functions whose times are numbers."""


@pytest.mark.parametrize("name", LIBRARIES)
@settings(max_examples=4, derandomize=True)
@given(kind=STRANGE, data=st.data())
def test_every_backend_refuses_what_is_no_batch(name, kind, data):
    with library(name) as backend:
        host = (
            np.array(1.5, np.float32) if kind == "0-d" else np.ones((2, 1), "float32" if kind == "complex64" else kind)
        )
        if (kind, name) in (("complex64", "tinygrad"), ("float16", "strict")):
            return  # it has none
        x = backend.asarray(host) if kind != "complex64" else backend.xp.asarray(host.astype(kind))
        for n, call in AT_TIMES.items():
            if n == "posterior_mean":
                continue  # its entry takes the data from x
            if kind == "float16":
                got = answer(lambda call=call: call(x, 0.5))
                assert got is None or got.dtype == x.dtype, n
                if name in ("jax", "tinygrad"):
                    return  # each function of each dtype is a program of its own: one will do
            else:
                assert answer(lambda call=call: call(x, 0.5)) is None, f"{n} takes {kind}"


@pytest.mark.parametrize("name", LIBRARIES)
def test_no_samples_are_no_results_on_every_backend(name):
    with library(name) as backend:
        x = backend.asarray(np.zeros((0, 1)), "float32")
        for n, call in AT_TIMES.items():
            if n != "posterior_mean":  # of no data
                out = call(x, 0.5)
                assert out.shape[0] == 0, n
                assert out.dtype == x.dtype, n


@pytest.mark.parametrize("name", LIBRARIES)
def test_numbers_beyond_what_a_dtype_squares_are_refused_on_every_backend(name):
    with library(name) as backend:
        x = backend.asarray(ROWS, "float32")
        for t in (1e20, 1e38, math.inf, math.nan, -1.0):
            for n, call in AT_TIMES.items():
                assert answer(lambda call=call, t=t: call(x, t)) is None, f"{n} takes t = {t}"


@pytest.mark.parametrize("path", PATHS.values(), ids=str)
@settings(max_examples=100, derandomize=True)
@given(s=TIMES, t=TIMES)
def test_coefficients_of_numbers(path, s, t):
    for of in (path.a, path.b, path.da, path.db, path.sigma, path.time, path.check, path.check_data_left):
        answer(lambda of=of: of(t))
    if (way := answer(lambda: path.transition(s, t))) is not None:
        assert 0 <= way[0] <= 1 + 1e-12
        assert 0 <= way[1] < math.inf


NO_TIMES = st.sampled_from(
    ["a", b"a", None, [0.5], (0.5,), {}, 1j, True, np.True_, np.str_("a"), *map(np.array, (["a"], [1], [True], [1j])),
     np.array([0.5], object)]
)  # fmt: skip
COEFFICIENTS = ("a", "b", "da", "db", "sigma", "time", "from_velocity", "diffusion")


@pytest.mark.parametrize("path", PATHS.values(), ids=str)
@settings(max_examples=20, derandomize=True)
@given(t=NO_TIMES)
def test_coefficients_of_what_is_no_number(path, t):
    for name in COEFFICIENTS:
        if of := getattr(path, name, None):
            assert answer(lambda of=of: of(t)) is None, f"{name} of {t!r}"


@pytest.mark.parametrize("name", LIBRARIES)
def test_coefficients_of_integers_are_refused_on_every_backend(name):
    with library(name) as backend:
        t = backend.asarray(np.array([0, 1], np.int32))
        for path in PATHS.values():
            for of in (path.a, path.b, path.da, path.db, path.time):
                assert answer(lambda of=of: of(t)) is None


# Public functions and classes that none of the tables above or of tests/test_public_functions.py calls, and why not.
ELSEWHERE = {
    **dict.fromkeys(("check_path", "check_end", "functions", "check_range", "interval"), "part of the checks"),
    **dict.fromkeys(("Path", "Oracle", "Solver", "Parametrization", "Schedule"), "abstract"),
    **dict.fromkeys(("Scalings", "Fit", "Found", "Snapshot", "Profile", "Statistics", "PrecisionRecall", "DensityCoverage", "KID"), "results, not checked"),
    **dict.fromkeys(("exact", "eulerian", "lagrangian", "jvp"), "of a derivative: tests/test_tangents.py, test_flow_maps.py"),
    **dict.fromkeys(("central_difference", "derivative"), "settings: tests/test_tangents.py"),
    **dict.fromkeys(("trajectory", "rebased", "seeded_noise"), "a loop or a wrapper around what is tried"),
    **dict.fromkeys(("Ancestral", "Churn", "LMS", "DPMpp2M"), "tests/test_multistep_solvers.py"),
    **dict.fromkeys(("DPMppSDE", "DPMppMSDE", "clipped"), "tests/test_reverse_sde.py"),
    **dict.fromkeys(("Trainer", "TrainSpec"), "tests/test_training.py"),
    **dict.fromkeys(("Model", "load_model"), "tests/run/test_model_object.py"),
    **dict.fromkeys(("export_model", "import_model"), "tests/interchange"),
    **dict.fromkeys(("Optimizer", "radam_factors"), "tests/test_optimization.py"),
    **dict.fromkeys(
        ("available", "load", "namespace", "register", "stop_gradient", "use", "using"),
        "the registry: tests/test_backend.py",
    ),
    **dict.fromkeys(("Error",), "an exception"),
    **dict.fromkeys(("Average", "check_one_average", "fit", "reconstruct"), "tests/test_ema.py"),
    **dict.fromkeys(("statistics", "frechet_distance_from_statistics", "Moments"), "tests/test_metrics.py"),
    **dict.fromkeys(
        ("Basis", "Channels", "Editor", "Identity", "Known", "Patches", "Transform", "colourising", "conditional", "denoise",
         "downsampled", "edit", "edit_times", "encode", "inpainting", "noise_level", "spherical", "stroke", "stroke_times",
         "upscaling"),
        "tests/editing",
    ),
}  # fmt: skip


def public():
    """All public functions and classes by name, of `cmcore` and of its rooms."""
    rooms = ALL_ROOMS
    found = {
        name
        for room in rooms
        for name, it in vars(room).items()
        if not name.startswith("_")
        and (inspect.isfunction(it) or inspect.isclass(it))
        and it.__module__.startswith(room.__name__)
    }
    return found | {name for name in cm.__all__ if not inspect.ismodule(getattr(cm, name))}


@pytest.mark.source
def test_every_public_function_is_in_a_table():
    sources = [tables.OF_SAMPLES, tables.CALLERS, tables.SPOILT, tables.GRIDS, tables.LAWS, AT_TIMES, OF_TIMES]
    said = " ".join(name for table in sources for name in table)
    said = {*re.findall(r"\w+", said), *(w.__name__ for w in cm.recipes.WEIGHTINGS.values())}
    missing = sorted(public() - said - tables.ELSEWHERE - ELSEWHERE.keys())
    assert not missing, f"not tried: {missing}"
    stale = sorted(ELSEWHERE.keys() - public() - {"interval"})
    assert not stale, f"not there any more: {stale}"


def test_no_default_is_shared():
    """A default that can be changed in place would be changed for every call."""
    for name in public() - {"Error"}:
        it = getattr(cm, name, None) or next(getattr(r, name) for r in ALL_ROOMS if hasattr(r, name))
        members = [it, *(v for k, v in vars(it).items() if inspect.isfunction(v))] if inspect.isclass(it) else [it]
        for member in members:
            for p in inspect.signature(member).parameters.values():
                if p.default is not p.empty and "FACTORY" not in type(p.default).__name__:
                    hash(p.default)


ALL_ROOMS = (
    *tables.ROOMS,
    cm.paths,
    parametrization,
    cm.search,
    cm.ema,
    cm.metrics,
    cm.optimization,
    oracles,
    cm.editing,
)
