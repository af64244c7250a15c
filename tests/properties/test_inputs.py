"""Strange inputs to every public function on every backend: the answer is NumPy's in float64, or a sentence."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import test_public_functions as tables
from conftest import CHOSEN
from hypothesis import given, settings
from hypothesis import strategies as st

import cmcore as cm
from cmcore import distances, flow_maps, grids, losses, oracles, parametrization, posterior, sampling, solvers, tangents

MIXTURE = oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5)
LAWS = {
    "Gaussian": oracles.Gaussian(0.1, 0.5),
    "Mixture": MIXTURE,
    "Empirical": oracles.Empirical([[-1.0], [0.25], [1.0]]),
    "Product": oracles.Product([MIXTURE]),
    "Rotated": oracles.Rotated(oracles.Gaussian(0.1, 0.5), [[-1.0]]),
    "Along": oracles.Along(oracles.Gaussian(0.1, 0.5), cm.paths.Linear()),
}
PATHS = {type(p).__name__: p for p in (cm.paths.VE(), cm.paths.VP(), cm.paths.Cosine(), cm.paths.Linear(), cm.paths.TrigFlow())}


def net(x, c_noise, **cond):
    return 0.5 * x


def pair(t):
    return grids.TimePair(t, 0.5 * t, 0.5 * t)


F = cm.ConsistencyFunction(net, parametrization.Boundary())
MAP = flow_maps.AverageVelocity(net)

# Functions of a batch at a time, as call(x, t), t a number or an array.
AT_TIMES = {
    "denoising": lambda x, t: losses.denoising(F, x, 0.5 * x, t),
    "consistency": lambda x, t: losses.consistency(F, F, x, 0.5 * x, t, 0.5 * t),
    "distillation": lambda x, t: losses.consistency(F, F, x, 0.5 * x, t, 0.5 * t, denoiser=F, step=solvers.euler),
    "posterior_mean": lambda x, t: posterior.posterior_mean(x[:1], x, t),
    "AverageVelocity": lambda x, t: MAP(x, t, 0.5 * t),
    "AverageVelocity.velocity": lambda x, t: MAP.velocity(x, t, 0.5 * t),
    "TowardDenoiser": lambda x, t: flow_maps.TowardDenoiser(net)(x, t, 0.5 * t),
    "semigroup": lambda x, t: flow_maps.semigroup(MAP, x, t, 0.5 * t, 0.25 * t),
    "trigflow_tangent": lambda x, t: tangents.trigflow_tangent(net, x, t, x, 0.5, 1.0, tangents.derivative(0.01))[1],
    "converted": lambda x, t: cm.paths.converted(x, t, cm.paths.VE(), cm.paths.TrigFlow())[0],
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
    **{f"{n}.perturb": lambda x, t, p=p: p.perturb(x, 0.5 * x, t) for n, p in PATHS.items()},
    **{
        f"{n}.{m}": lambda x, t, p=p, m=m: getattr(p, m)(x, t, 0.5 * x)
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
    "uniform": grids.uniform,
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
ROOM = {"float32": (1e-36, 1e36, 3e-3), "float64": (1e-280, 1e280, 1e-6)}
"""The range in which results and what they are made of surely are, and what may be lost of digits near a cancellation."""


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


def backends():
    return [name for name in CHOSEN]


def placed(backend, host, dtype):
    return backend.asarray(np.asarray(host, dtype), dtype)


def near(got, exact, dtype, name):
    """Assert a result to be NumPy's in float64 wherever that is in the dtype's room, and a number wherever that is one."""
    low, high, tolerance = ROOM[dtype]
    assert got.shape == exact.shape, name
    sure = np.isfinite(exact) & (np.abs(exact) < high)
    wrong = sure & ~(np.abs(got - exact) <= tolerance * np.maximum(np.abs(exact), 1.0))
    assert not wrong.any(), f"{name}: {got[wrong]} instead of {exact[wrong]}"


ROWS = np.array([[0.3], [-1.0], [0.0]])


@pytest.mark.parametrize("name", AT_TIMES)
@settings(max_examples=30, derandomize=True)
@given(t=TIMES, kind=NUMBERS)
def test_every_number_is_a_time_or_refused(name, t, kind):
    with np.errstate(all="ignore"):
        t = kind(t)
    for dtype in ("float32", "float64"):
        got = answer(lambda dtype=dtype: AT_TIMES[name](ROWS.astype(dtype), t))
        if got is None:
            continue
        assert got.dtype == dtype
        assert not np.isnan(got).any(), f"{name} is not a number at t = {t!r}"
        # Of times below that a quotient leaves the range of float32, and comes back: infinite, but never wrong.
        if t == 0 or t > 1e-30 or np.isfinite(got).all():
            near(got, AT_TIMES[name](ROWS, float(t)), dtype, f"{name} at {t!r}")
