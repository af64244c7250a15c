"""Exact flow maps: self-consistency along trajectories, the semigroup, and that the solvers follow them."""

import numpy as np
import pytest
from exact import dtypes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cmcore import grids, oracles, solvers

TURN = np.array([[0.6, -0.8], [0.8, 0.6]])
LINE = {"means": [-1.0, 0.8], "stds": [0.3, 0.4], "weights": [0.6, 0.4]}
TOLERANCE = {"float32": 2e-3, "float64": 1e-7}
POINTS = npst.arrays("float64", (3, 2), elements=st.floats(-2, 2))
TIMES = st.lists(st.floats(0.05, 5.0), min_size=3, max_size=3)


def leave_out_slow_mixtures(lib, name, dtype="float64"):
    if dtype == "float32" and name == "rotated mixture":
        pytest.skip("float64 is the sharper; tests/test_oracles.py has its float32")
    if lib.name == "tinygrad" and name == "rotated mixture":
        pytest.skip(
            "a mixture's flow is hundreds of small programs there; tests/test_oracles.py compares one with the ODE"
        )


def laws():
    line = oracles.Mixture(**LINE)
    return {
        "gaussian": oracles.Gaussian(0.3, 0.7),
        "covariance": oracles.Gaussian([0.3, -0.5], covariance=TURN @ np.diag([1.5, 0.1]) @ TURN.T),
        "rotated mixture": oracles.Rotated(oracles.Product((line, line)), TURN),
    }


@pytest.mark.spares_tinygrad("float32")  # float64 is the sharper
@pytest.mark.parametrize("name", ["gaussian", "covariance", "rotated mixture"])
@dtypes
@settings(max_examples=6)
@given(x=POINTS, times=TIMES)
def test_flow_maps_form_a_semigroup(lib, name, dtype, x, times):
    leave_out_slow_mixtures(lib, name, dtype)
    law, (t, u, s) = laws()[name], times
    x = lib.asarray(x, dtype)
    direct = lib.to_numpy(law.flow(x, t, s))
    np.testing.assert_allclose(lib.to_numpy(law.flow(law.flow(x, t, u), u, s)), direct, atol=10 * TOLERANCE[dtype])
    np.testing.assert_allclose(lib.to_numpy(law.flow(x, t, t)), lib.to_numpy(x), atol=TOLERANCE[dtype])


@pytest.mark.spares_tinygrad("float32")  # float64 is the sharper
@pytest.mark.parametrize("name", ["gaussian", "covariance", "rotated mixture"])
@dtypes
@settings(max_examples=6)
@given(x=POINTS, times=TIMES)
def test_a_consistency_function_is_constant_along_a_trajectory(lib, name, dtype, x, times):
    leave_out_slow_mixtures(lib, name, dtype)
    law, (t, u, _) = laws()[name], times
    x = lib.asarray(x, dtype)
    start = lib.to_numpy(law.consistency(x, t, 0.05))
    np.testing.assert_allclose(
        lib.to_numpy(law.consistency(law.flow(x, t, u), u, 0.05)), start, atol=10 * TOLERANCE[dtype]
    )


@pytest.mark.parametrize("name", ["gaussian", "covariance", "rotated mixture"])
def test_the_solvers_follow_the_exact_trajectories(lib, name):
    law = laws()[name]
    if lib.name == "tinygrad" and name != "covariance":
        pytest.skip("32 steps are many small programs there, of one law as of another")
    x, t, s = lib.asarray([[1.0, -0.4], [-2.0, 0.3]], "float64"), 3.0, 0.1
    exact = lib.to_numpy(law.flow(x, t, s))
    coarse, fine = (
        np.abs(
            lib.to_numpy(solvers.solve(solvers.heun, law.denoiser, x, grids.karras_host(n + 1, s, t)[::-1])) - exact
        ).max()
        for n in (16, 32)
    )
    assert 3.0 < coarse / fine < 6.0
    assert fine < 5e-3
