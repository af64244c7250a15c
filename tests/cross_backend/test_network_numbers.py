"""Outputs, derivatives and gradients of every kind of network, on every backend, against NumPy in float64.

NumPy has no derivatives, but its networks compute in complex numbers too, and for an analytic f the imaginary part of
``f(x + i h v) / h`` is the derivative along v with an error of order h^2: for h = 1e-20, exact to rounding.
"""

from functools import cache

import numpy as np
import pytest
from conftest import CHOSEN
from networks.own import EveryLayer, Patches

import cmcore as cm
from cmcore.networks import DiT, ResidualConv, ResidualMLP, UNet

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
OPTIONS = {"classes": 3, "two_times": True, "log_weight": True}
NETWORKS = {
    "mlp": ResidualMLP((3, 2), width=8, blocks=1, features=6, **OPTIONS),
    "conv": ResidualConv((2, 4, 4), width=4, multipliers=(1, 2), blocks=1, groups=2, features=4, **OPTIONS),
    "dit": DiT((2, 2, 4), width=6, blocks=1, heads=3, features=4, dropout=0.25, learned_positions=True, **OPTIONS),
    "dit-plain": DiT((1, 4, 6), width=8, blocks=1, heads=2, mlp_ratio=1.5, features=4, qkv_bias=False),
    "unet-adm": UNet(
        (2, 4, 2),
        width=4,
        multipliers=(1, 2),
        blocks=1,
        attention=(2,),
        head_channels=4,
        group_channels=1,
        times="sinusoidal",
        **OPTIONS,
    ),
    "unet-ncsnpp": UNet(
        (1, 4, 4),
        width=4,
        multipliers=(2, 1, 1),
        blocks=1,
        attention=(2,),
        attend_last=True,
        head_channels=0,
        classes=3,
        label_early=True,
        scale_shift=False,
        taps=(1.0, 3.0, 3.0, 1.0),
        residual=True,
        skip_conv=True,
        skip_scale=0.5**0.5,
        times="fourier",
        features=2,
        fourier_std=1.0,
        sine_first=True,
        dropout=0.25,
    ),
    "unet-ddpm": UNet(
        (1, 8, 8),
        patch=2,
        width=4,
        multipliers=(1, 2),
        blocks=1,
        attention=(1,),
        scale_shift=False,
        resize="conv-end",
        times="sinusoidal-end",
        sine_first=True,
    ),
    "example": Patches((1, 4, 4), width=8, blocks=1, heads=2, dropout=0.25),
    "every-layer": EveryLayer(),
}
BATCH, STEP = 3, 1e-20


def given(kind, dtype):
    """Weights, times and images, conditions, and the directions of the derivatives: numbers of the dtype, as float64."""
    architecture, rng = NETWORKS[kind], np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype).astype("float64")

    weights = {
        name: (1.0 * (name.endswith("weight") and len(shape) == 1) + 0.4 * normal(*shape))
        .astype(dtype)
        .astype("float64")
        for name, shape in architecture.layout().items()
    }
    moving = {"x": normal(BATCH, *architecture.shape), "c_noise": normal(BATCH)}
    if architecture.two_times:
        moving["c_end"] = normal(BATCH)
    cond = {"label": np.array([2, -1, 0], "int32")} if architecture.classes else {}
    if architecture.drops:
        cond["dropout"] = np.array(12345, "int32")
    along = {name: normal(*value.shape) for name, value in moving.items()}
    directions = [{name: normal(*w.shape)} for name, w in weights.items()]
    directions += [{name: normal(*w.shape) for name, w in weights.items()} for _ in range(4)]
    size = moving["x"].size + BATCH * has_log_weight(kind)
    return weights, moving, cond, along, directions, normal(size)


def has_log_weight(kind):
    return NETWORKS[kind].log_weight or kind == "every-layer"


def numbers(kind, net, moving, cond):
    """All that the network gives, as one row."""
    xp = cm.namespace(moving["x"])
    rows = [xp.reshape(net(**moving, **cond), (-1,))]
    if has_log_weight(kind):
        rows.append(net.log_weight(*(moving[name] for name in ("c_noise", "c_end") if name in moving)))
    return xp.concat(rows, axis=0)


@cache
def reference(kind, dtype):
    """The output, its derivative along the inputs' tangents, and that of its product with a row along each direction."""
    weights, moving, cond, along, directions, row = given(kind, dtype)
    numpy = cm.load("numpy")

    def complexly(of_weights, of_inputs):
        changed = {n: w + 1j * STEP * of_weights[n] if n in of_weights else w for n, w in weights.items()}
        inputs = {n: v + 1j * STEP * of_inputs.get(n, 0.0) for n, v in moving.items()}
        return numbers(kind, numpy.network(NETWORKS[kind], changed, dtype="complex128"), inputs, cond)

    out = numbers(kind, numpy.network(NETWORKS[kind], weights, dtype="float64"), moving, cond)
    jvp = complexly({}, along).imag / STEP
    slopes = [np.sum(row * complexly(direction, {}).imag) / STEP for direction in directions]
    return {"output": out, "jvp": jvp, "gradient": np.array(slopes)}


def found(name, kind, dtype):
    backend = cm.load(name)
    weights, moving, cond, along, directions, row = given(kind, dtype)
    net = backend.network(NETWORKS[kind], weights, dtype=dtype)
    moving, along = ({n: backend.asarray(v, dtype) for n, v in values.items()} for values in (moving, along))
    cond, row = {n: backend.asarray(v) for n, v in cond.items()}, backend.asarray(row, dtype)
    if not backend.trainable:
        return {"output": numbers(kind, net, moving, cond)}

    def derivative():
        def f(*values):
            return numbers(kind, net, dict(zip(moving, values, strict=True)), cond)

        return backend.jvp(f, tuple(moving.values()), tuple(along.values()))

    def gradient_of():
        return backend.value_and_grad(lambda n: backend.xp.sum(row * numbers(kind, n, moving, cond)))(net)[1]

    def all_of_it():
        return *derivative(), gradient_of()

    # Operation by operation JAX compiles each of them, and tinygrad computes each array from the beginning.
    out, jvp, gradient = (backend.compile(all_of_it) if name == "jax" else all_of_it)()
    if name == "tinygrad":
        out.realize(jvp)
    out, jvp = backend.to_numpy(out), backend.to_numpy(jvp)
    gradient = {n: backend.to_numpy(g).astype("float64") for n, g in gradient.items()}
    slopes = [sum(np.sum(gradient[n] * d) for n, d in direction.items()) for direction in directions]
    return {"output": out, "jvp": jvp, "gradient": np.array(slopes)}


def differences(name, kind, dtype):
    """The largest difference of each quantity from the reference, relative to the largest number in it."""
    exact = reference(kind, dtype)
    result = {}
    for what, got in found(name, kind, dtype).items():
        largest = np.abs(exact[what]).max()
        assert largest > 0.1
        result[what] = float(np.abs(got - exact[what]).max() / largest)
    return result


# Compilers take long: of tinygrad there is a network of every layer, somebody else's and a transformer; of JAX, U-Nets in float64.
COMPILED = {
    "tinygrad": ("dit-plain", "example", "every-layer"),
    "jax": tuple(kind for kind in NETWORKS if kind != "unet-ddpm"),
}
CASES = [
    (name, kind, dtype)
    for name in CHOSEN
    for kind in NETWORKS
    for dtype in TOLERANCE
    if kind in COMPILED.get(name, NETWORKS)
    and (dtype == "float64" or (name != "tinygrad" and not (name == "jax" and kind.startswith("unet"))))
]


@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_numbers_are_numpys_in_float64(name, kind, dtype, x64):
    for what, difference in differences(name, kind, dtype).items():
        assert difference <= TOLERANCE[dtype], f"{what} of {kind} differs by {difference:.1e} in {name}"


def test_the_complex_step_is_the_limit_of_differences():
    weights, moving, cond, along, directions, row = given("every-layer", "float64")
    h, numpy, exact = 1e-6, cm.load("numpy"), reference("every-layer", "float64")

    def at(side, of_weights, of_inputs):
        changed = {n: w + side * h * of_weights.get(n, 0.0) for n, w in weights.items()}
        inputs = {n: v + side * h * of_inputs.get(n, 0.0) for n, v in moving.items()}
        return numbers("every-layer", numpy.network(NETWORKS["every-layer"], changed, dtype="float64"), inputs, cond)

    jvp = (at(1, {}, along) - at(-1, {}, along)) / (2 * h)
    assert np.abs(jvp - exact["jvp"]).max() < 1e-7
    slopes = [np.sum(row * (at(1, d, {}) - at(-1, d, {}))) / (2 * h) for d in directions]
    assert np.abs(slopes - exact["gradient"]).max() < 1e-6
