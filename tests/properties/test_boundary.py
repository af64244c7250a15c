"""``f(x, t_min) = x``: exactly, for any network, data, sigma_data and t_min, interpreted and compiled."""

import numpy as np
import pytest
from exact import dtypes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cmcore.parametrization import EDM, Boundary, ConsistencyFunction, TrigFlow

SIGMAS = st.floats(1e-3, 1e3)
SHAPES = [(1,), (3, 1), (2, 3), (1, 2, 2), (2, 1, 3, 2)]


def batches(lib, dtype):
    # JAX compiles a program for every shape, so it sees only a few.
    if lib.name == "jax":
        shapes = st.sampled_from(SHAPES)
    else:
        shapes = npst.array_shapes(min_dims=1, max_dims=4, max_side=4)
    width = int(dtype[-2:])
    floats = st.floats(-(2.0**80), 2.0**80, width=width, allow_subnormal=False)
    return shapes.flatmap(lambda shape: npst.arrays(dtype, shape, elements=floats))


# It compiles a program for every shape and number; the tests below have it in both dtypes.
@pytest.mark.spares_tinygrad
@dtypes
@given(data=st.data())
def test_the_boundary_condition_is_exact(lib, dtype, data):
    x = data.draw(batches(lib, dtype))
    sigma_data, t_min = data.draw(SIGMAS), data.draw(st.floats(0.0, 2.0))
    size, shift = data.draw(st.floats(-1e6, 1e6)), data.draw(st.floats(-1e30, 1e30))

    def net(y, c_noise):
        return size * y + shift

    placed = lib.asarray(x)
    for parametrization, start in (
        (Boundary(sigma_data, t_min), t_min),
        (EDM(sigma_data), 0.0),
        (TrigFlow(sigma_data), 0.0),
    ):
        f = ConsistencyFunction(net, parametrization)
        for t in (start, lib.asarray(start, dtype), lib.asarray([start] * x.shape[0], dtype)):
            assert np.array_equal(lib.to_numpy(f(placed, t)), x)


@dtypes
@settings(max_examples=3)
@given(sigma_data=SIGMAS, t_min=st.floats(0.0, 2.0), size=st.floats(-1e6, 1e6))
def test_the_boundary_condition_is_exact_when_compiled(lib, dtype, sigma_data, t_min, size):
    if lib.name == "torch" and dtype == "float64":
        pytest.skip("torch.compile takes seconds for each example; it gets its turn in float32")
    x = np.linspace(-3.0, 1e6, 6).reshape(2, 3).astype(dtype)
    f = lib.backend.compile(ConsistencyFunction(lambda y, c_noise: size * y + 7.0, Boundary(sigma_data, t_min)))
    for _ in range(3):  # TinyJit replays its program from the third call on
        assert np.array_equal(lib.to_numpy(f(lib.asarray(x), lib.asarray([t_min] * 2, dtype))), x)


@dtypes
def test_away_from_the_boundary_the_network_matters(lib, dtype):
    x = lib.asarray([[0.5, -1.0]], dtype)
    for parametrization in (Boundary(), EDM(), TrigFlow()):
        one, two = (
            lib.to_numpy(ConsistencyFunction(lambda y, c_noise, a=a: a * y, parametrization)(x, 0.01))
            for a in (1.0, 2.0)
        )
        assert (one != two).all()


@dtypes
def test_the_boundary_condition_holds_for_real_networks(lib, dtype):
    from cmcore.testing import CONV, MLP, network_input, random_weights

    if lib.name == "strict":
        pytest.skip("the networks are NumPy's")
    for architecture in (MLP, CONV):
        net = lib.backend.network(architecture, random_weights(architecture), dtype=dtype)
        x = lib.asarray(network_input(architecture)[0], dtype)
        f = ConsistencyFunction(net, Boundary(0.5, 0.002))
        assert np.array_equal(lib.to_numpy(f(x, 0.002)), lib.to_numpy(x))
        assert not np.array_equal(lib.to_numpy(f(x, 0.01)), lib.to_numpy(x))
