"""The conformance kit: what any backend, ours or a third party's, must pass.

Each check is a plain function ``check(backend, dtype="float32")`` that raises `AssertionError` with a sentence. In a
test suite of your own::

    @pytest.mark.parametrize("check", cmcore.testing.CHECKS, ids=lambda check: check.__name__)
    def test_my_backend(check):
        check(cmcore.load("mine"))

or all of them at once with `check_backend`. A backend whose ``trainable`` is False is asked for no gradients, only that
it says so in a sentence. Networks are compared with the NumPy backend's. In float32 train steps are compiled, in any
other dtype they run eagerly, so that two runs see both ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from cmcore.architectures import Architecture, ResidualConv, ResidualMLP
from cmcore.backend import Array, Backend, Loss, Network, Trainer, load, namespace, of
from cmcore.errors import Error
from cmcore.optimization import Optimizer

Check = Callable[..., None]
"""``check(backend, dtype="float32")``; raises `AssertionError`."""

MLP = ResidualMLP(shape=(3,), width=8, blocks=2, features=8)
CONDITIONED = ResidualMLP(shape=(3,), width=8, blocks=1, features=8, classes=4)
CONV = ResidualConv(shape=(2, 4, 4), width=4, multipliers=(1, 2), blocks=1, groups=2, features=8)
ARCHITECTURES: tuple[Architecture, ...] = (MLP, CONDITIONED, CONV)

_ROUNDING = {"float32": 2e-5, "float64": 1e-11}

# What the mathematics calls, with arguments for which NumPy gives the expected answer.
_POINTS = np.array([[0.3, -1.7, 2.2], [0.9, 0.0, -0.4]])
_POSITIVE = np.array([[0.3, 1.7, 2.2], [0.9, 1.0, 0.4]])
_FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "abs": lambda xp, x, p: xp.abs(x),
    "asarray": lambda xp, x, p: xp.asarray(x),
    "broadcast_to": lambda xp, x, p: xp.broadcast_to(x, (4, 2, 3)),
    "cos": lambda xp, x, p: xp.cos(x),
    "exp": lambda xp, x, p: xp.exp(x),
    "expand_dims": lambda xp, x, p: xp.expand_dims(x, axis=1),
    "floor": lambda xp, x, p: xp.floor(x),
    "full": lambda xp, x, p: xp.full((2, 3), 0.25, dtype=x.dtype),
    "full_like": lambda xp, x, p: xp.full_like(x, 0.25),
    "log": lambda xp, x, p: xp.log(p),
    "log1p": lambda xp, x, p: xp.log1p(p),
    "matmul": lambda xp, x, p: xp.matmul(x, xp.matrix_transpose(p)),
    "max": lambda xp, x, p: xp.max(x, axis=1, keepdims=True),
    "maximum": lambda xp, x, p: xp.maximum(x, p),
    "mean": lambda xp, x, p: xp.mean(x, axis=(0, 1)),
    "min": lambda xp, x, p: xp.min(x, axis=0),
    "minimum": lambda xp, x, p: xp.minimum(x, p),
    "ones_like": lambda xp, x, p: xp.ones_like(x),
    "reshape": lambda xp, x, p: xp.reshape(x, (3, 1, 2)),
    "sin": lambda xp, x, p: xp.sin(x),
    "sqrt": lambda xp, x, p: xp.sqrt(p),
    "squeeze": lambda xp, x, p: xp.squeeze(xp.expand_dims(x, axis=0), axis=0),
    "sum": lambda xp, x, p: xp.sum(x, axis=(1,)),
    "where": lambda xp, x, p: xp.where(x <= 0.3, x, p),
    "zeros_like": lambda xp, x, p: xp.zeros_like(x),
    "arithmetic": lambda xp, x, p: (2.0 * x - p / 3.0 + 1.0) ** 2 + p**-2 + 0.5**p + 1 / p,
    "indexing": lambda xp, x, p: x[:, None, :] - p[None, :, :],
}


def check_backend(backend: Backend, dtype: str = "float32") -> None:
    """Run every check on a backend; `AssertionError` tells the first thing that is wrong."""
    for check in CHECKS:
        check(backend, dtype)


def random_weights(architecture: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    """Return weights, float32, none of which is zero, so that every layer shows in the network's output."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(1.0 if name.endswith("norm.weight") else 0.0, 0.3, shape)).astype(np.float32)
        for name, shape in architecture.layout().items()
    }


def network_input(architecture: Architecture, batch: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return x, c_noise and labels, where there are classes, in float64 on the host."""
    rng = np.random.default_rng(1)
    label = np.arange(batch) % architecture.classes if architecture.classes else None
    return rng.standard_normal((batch, *architecture.shape)), np.linspace(-1.5, 1.0, batch), label


def check_members(backend: Backend, dtype: str = "float32") -> None:
    """It has all members of the protocol, and describes itself and its devices."""
    _require(isinstance(backend, Backend), f"{backend!r} lacks members of cmcore.Backend.")
    _require(bool(backend.name and backend.version()), f"{backend!r} does not say its name and version.")
    _require(backend.device in backend.devices(), f"The device {backend.device!r} is not among {backend.devices()}.")
    _require(backend.on(None).name == backend.name, "on(None) must return a backend of the same framework.")
    _require(
        backend.on(backend.device).device == backend.device, f"on({backend.device!r}) is bound to another device."
    )
    _refuses(ValueError, lambda: backend.on("no such device"), "on() with an unknown device")


def check_namespace(backend: Backend, dtype: str = "float32") -> None:
    """Its namespace has the functions of the standard that the mathematics calls, and they give what NumPy's give."""
    x, p = backend.asarray(_POINTS, dtype), backend.asarray(_POSITIVE, dtype)
    _require(namespace(x) is namespace(p), "cmcore.namespace must find one namespace for two arrays of the backend.")
    for name, call in _FUNCTIONS.items():
        got = call(namespace(x), x, p)
        _close(backend, got, call(np, _POINTS, _POSITIVE), dtype, f"The namespace's {name}")
        _require(got.dtype == x.dtype, f"The namespace's {name} turned {x.dtype} into {got.dtype}.")
    _require(namespace(x).isdtype(x.dtype, "real floating"), f"isdtype does not know {x.dtype} as real floating.")
    _require(
        float(namespace(x).finfo(x.dtype).smallest_normal) == float(np.finfo(dtype).smallest_normal),
        f"finfo({x.dtype}).smallest_normal is wrong.",
    )


def check_placement(backend: Backend, dtype: str = "float32") -> None:
    """Host data arrive as they are, on its device, and come back as a copy."""
    host = np.arange(6, dtype=dtype).reshape(2, 3)[::-1]
    x = backend.asarray(host)
    _require(backend.owns(x), "owns() must know what asarray() made.")
    _require(not backend.owns(object()), "owns() must not claim any object.")
    _require(of(x).name == backend.name, f"cmcore.of() finds {of(x).name!r} for arrays of {backend.name!r}.")
    _require(tuple(x.shape) == (2, 3), f"asarray() turned shape (2, 3) into {tuple(x.shape)}.")
    back = backend.to_numpy(x)
    _require(isinstance(back, np.ndarray), f"to_numpy() must return a NumPy array, got {type(back).__name__}.")
    _require(back.dtype == host.dtype and np.array_equal(back, host), "asarray() and to_numpy() must not change values.")
    back[0, 0] = 99.0
    _require(float(backend.to_numpy(x)[0, 0]) == float(host[0, 0]), "to_numpy() must return a copy.")
    _require(backend.to_numpy(backend.asarray(x, dtype)).dtype == host.dtype, "asarray() must take its own arrays.")
    _require(backend.to_numpy(backend.asarray(host, "int32")).dtype == np.int32, "asarray() must convert to its dtype.")
    number = backend.asarray(0.5)
    _require(tuple(number.shape) == (), "asarray() of a Python float must have shape ().")
    _require(namespace(number).isdtype(number.dtype, "real floating"), "A Python float must become a float.")


def check_streams(backend: Backend, dtype: str = "float32") -> None:
    """Equal seeds give equal streams, anything else other numbers, and these have the law they should have."""

    def draw(seed: int, index: int) -> list[np.ndarray]:
        stream = backend.stream(seed, index)
        return [
            backend.to_numpy(d) for d in (stream.normal((5, 2), dtype), stream.normal((5, 2), dtype), stream.uniform((10,), dtype))
        ]

    first, again = draw(3, 1), draw(3, 1)
    _require([d.shape for d in first] == [(5, 2), (5, 2), (10,)], "A stream must draw the shape that it is asked for.")
    _require(all(str(d.dtype) == dtype for d in first), f"A stream asked for {dtype} drew {first[0].dtype}.")
    _require(all(map(np.array_equal, first, again)), "Equal seeds and indices must give equal streams.")
    seen = {d.tobytes() for seed, index in ((3, 1), (3, 2), (4, 1), (1, 3), (3, 0)) for d in draw(seed, index)}
    _require(len(seen) == 15, "Streams of different seeds or indices, and draws of one stream, must differ.")

    size = 20_000
    stream = backend.stream(7)
    normal, uniform = (backend.to_numpy(d).astype(np.float64) for d in (stream.normal((size,), dtype), stream.uniform((size,), dtype)))
    other = backend.to_numpy(backend.stream(7, 1).normal((size,), dtype)).astype(np.float64)
    # Five standard errors of each moment.
    for what, moment, expected, spread in (
        ("mean of the normal numbers", normal.mean(), 0.0, 1.0),
        ("variance of the normal numbers", normal.var(), 1.0, math.sqrt(2)),
        ("kurtosis of the normal numbers", (normal**4).mean(), 3.0, math.sqrt(96)),
        ("correlation of two streams", (normal * other).mean(), 0.0, 1.0),
        ("mean of the uniform numbers", uniform.mean(), 0.5, math.sqrt(1 / 12)),
        ("variance of the uniform numbers", uniform.var(), 1 / 12, math.sqrt(1 / 180)),
    ):
        _require(abs(moment - expected) < 5 * spread / math.sqrt(size), f"The {what} is {moment}, not {expected}.")
    _require(bool(((uniform >= 0) & (uniform < 1)).all()), "Uniform numbers must lie in [0, 1).")


def check_compile(backend: Backend, dtype: str = "float32") -> None:
    """A compiled function gives what the function gives, at every call, for new values of all its arrays."""

    def f(x: Array, n: Array) -> Array:
        return namespace(x).sin(x) * n

    fast, results = backend.compile(f), []
    for i in range(4):
        x, n = _POINTS + i, float(i)
        results.append((fast(backend.asarray(x, dtype), backend.asarray(n, dtype)), np.sin(x) * n))
    for got, expected in results:  # looked at only now, for no call may overwrite what an earlier one returned
        _close(backend, got, expected, dtype, "A compiled function")


def check_networks(backend: Backend, dtype: str = "float32") -> None:
    """Networks have the architecture's weights, bit for bit, and compute what the NumPy backend's compute."""
    for architecture in ARCHITECTURES:
        weights = random_weights(architecture)
        net = backend.network(architecture, weights, dtype=dtype)
        _same_weights(backend.weights(net), weights, f"The weights put into {architecture}")
        _same_weights(
            backend.weights(backend.network(architecture, seed=5)), architecture.init(5), f"The initial weights of {architecture}"
        )
        x, c_noise, label = network_input(architecture)
        got = _evaluate(backend, net, x, c_noise, label, dtype)
        reference = load("numpy")
        expected = _evaluate(reference, reference.network(architecture, weights, dtype="float64"), x, c_noise, label, "float64")
        _close(backend, got, expected, dtype, f"The network {architecture}", scale=10.0)
        _require(got.dtype == backend.asarray(x, dtype).dtype, f"The network {architecture} changed the dtype to {got.dtype}.")


def check_network_errors(backend: Backend, dtype: str = "float32") -> None:
    """Weights that do not fit, and labels missing or too many, are a `ValueError` with a sentence."""
    lacking = dict(random_weights(MLP))
    del lacking["head.bias"]
    _refuses(ValueError, lambda: backend.network(MLP, lacking), "network() with a weight missing")
    transposed = random_weights(MLP) | {"stem.weight": np.zeros((3, 8), np.float32)}
    _refuses(ValueError, lambda: backend.network(MLP, transposed), "network() with a weight of the wrong shape")
    x, c_noise, label = network_input(CONDITIONED)
    conditioned, plain = backend.network(CONDITIONED, dtype=dtype), backend.network(MLP, dtype=dtype)
    _refuses(
        ValueError, lambda: _evaluate(backend, conditioned, x, c_noise, None, dtype), "a conditioned network without label"
    )
    _refuses(ValueError, lambda: _evaluate(backend, plain, x, c_noise, label, dtype), "an unconditioned network with label")


def check_refusals(backend: Backend, dtype: str = "float32") -> None:
    """A backend without gradients says so in a sentence, as `cmcore.Error`."""
    if backend.trainable:
        return
    x, net = backend.asarray(_POINTS, dtype), backend.network(MLP)
    _refuses(Error, lambda: backend.value_and_grad(lambda n: n)(net), "value_and_grad() of a backend without gradients")
    _refuses(Error, lambda: backend.jvp(lambda y: y, (x,), (x,)), "jvp() of a backend without gradients")
    _refuses(
        Error, lambda: backend.trainer(net, _error, optimizer=Optimizer()), "trainer() of a backend without gradients"
    )


def _if_trainable(check: Check) -> Check:
    @wraps(check)
    def run(backend: Backend, dtype: str = "float32") -> None:
        if backend.trainable:
            check(backend, dtype)

    return run


def check_stop_gradient_value(backend: Backend, dtype: str = "float32") -> None:
    """stop_gradient() does not change a value."""
    x = backend.asarray(_POINTS, dtype)
    _require(np.array_equal(backend.to_numpy(backend.stop_gradient(x)), backend.to_numpy(x)), "stop_gradient() changed a value.")


@_if_trainable
def check_stop_gradient(backend: Backend, dtype: str = "float32") -> None:
    """No gradient flows through stop_gradient(): that of f * stop(f) is half that of f * f."""
    net, args = backend.network(MLP, random_weights(MLP), dtype=dtype), _arguments(backend, MLP, dtype)

    def whole(n: Network, *a: Array) -> Array:
        return namespace(a[0]).sum(n(*a) ** 2)

    def half(n: Network, *a: Array) -> Array:
        return namespace(a[0]).sum(n(*a) * backend.stop_gradient(n(*a)))

    full, stopped = (backend.value_and_grad(loss)(net, *args)[1] for loss in (whole, half))
    for name in full:
        _close(backend, stopped[name], 0.5 * backend.to_numpy(full[name]), dtype, f"The half-stopped gradient of {name}", 10.0)


@_if_trainable
def check_value_and_grad(backend: Backend, dtype: str = "float32") -> None:
    """Gradients carry the architecture's names and shapes and agree with finite differences."""
    for architecture in ARCHITECTURES:
        weights, args = random_weights(architecture), _arguments(backend, architecture, dtype)

        def loss(net: Network, *a: Array) -> Array:
            return namespace(a[0]).mean(net(*a) ** 2)

        def at(shifted: Mapping[str, np.ndarray], architecture: Architecture = architecture, a: Any = args) -> float:
            return float(backend.to_numpy(loss(backend.network(architecture, shifted, dtype=dtype), *a)))

        value, gradients = backend.value_and_grad(loss)(backend.network(architecture, weights, dtype=dtype), *args)
        _close(backend, value, at(weights), dtype, "The value that value_and_grad() returns")
        shapes = {name: tuple(g.shape) for name, g in gradients.items()}
        _require(shapes == architecture.layout(), f"The gradients' names or shapes are not the layout of {architecture}.")
        host = {name: backend.to_numpy(g).astype(np.float64) for name, g in gradients.items()}
        rng, h = np.random.default_rng(2), 3e-3
        along = {name: rng.standard_normal(g.shape) for name, g in host.items()}
        up, down = ({n: weights[n] + sign * h * along[n] for n in weights} for sign in (1, -1))
        slope = sum(float((host[n] * along[n]).sum()) for n in host)
        size = math.sqrt(sum(float((g**2).sum()) for g in host.values()))
        error = abs((at(up) - at(down)) / (2 * h) - slope)
        _require(error < 2e-2 * size, f"A gradient of {architecture} differs from the finite difference by {error}.")


@_if_trainable
def check_jvp(backend: Backend, dtype: str = "float32") -> None:
    """Derivatives along tangents agree with the analytic ones, for several arguments, and can be taken twice."""
    xp, p = backend.xp, _POSITIVE

    def f(x: Array, t: Array) -> Array:
        return xp.sin(x) * t**2

    x, t, dx, dt = (backend.asarray(v, dtype) for v in (p, p + 1.0, p - 2.0, 0.5 * p))
    value, slope = backend.jvp(f, (x, t), (dx, dt))
    _close(backend, value, np.sin(p) * (p + 1) ** 2, dtype, "The value that jvp() returns")
    expected = np.cos(p) * (p - 2) * (p + 1) ** 2 + np.sin(p) * 2 * (p + 1) * 0.5 * p
    _close(backend, slope, expected, dtype, "The derivative that jvp() returns", scale=10.0)

    one = backend.asarray(np.ones_like(p), dtype)
    second = backend.jvp(lambda y: backend.jvp(xp.sin, (y,), (one,))[1], (x,), (one,))[1]
    _close(backend, second, -np.sin(p), dtype, "The derivative of a derivative by jvp()")
    stopped = backend.jvp(lambda y: y * backend.stop_gradient(y), (x,), (one,))[1]
    _close(backend, stopped, p, dtype, "The derivative through stop_gradient()")


@_if_trainable
def check_gradient_of_jvp(backend: Backend, dtype: str = "float32") -> None:
    """The gradient of a derivative with respect to the weights agrees with that of its finite difference."""
    net, (x, c_noise) = backend.network(MLP, random_weights(MLP), dtype=dtype), _arguments(backend, MLP, dtype)
    tangent, h = namespace(x).ones_like(x), 1e-2

    def exact(n: Network) -> Array:
        return namespace(x).mean(backend.jvp(lambda y: n(y, c_noise), (x,), (tangent,))[1] ** 2)

    def difference(n: Network) -> Array:
        return namespace(x).mean(((n(x + h, c_noise) - n(x - h, c_noise)) / (2 * h)) ** 2)

    one, two = (backend.value_and_grad(loss)(net)[1] for loss in (exact, difference))
    for name in ("stem.weight", "blocks.0.first.weight", "head.weight"):
        a, b = backend.to_numpy(one[name]), backend.to_numpy(two[name])
        error = float(np.abs(a - b).max() / np.abs(b).max())
        _require(error < 2e-2, f"The gradient of a jvp() is off by a relative {error} for {name}.")


@_if_trainable
def check_trainer_learns(backend: Backend, dtype: str = "float32") -> None:
    """Each optimiser lowers the loss and leaves the network it was given alone."""
    for algorithm in ("radam", "adam", "adamw"):
        net = backend.network(MLP, random_weights(MLP), dtype=dtype)
        settings = Optimizer(algorithm, clip=1.0, weight_decay=0.01 if algorithm == "adamw" else 0.0)
        trainer = backend.trainer(net, _error, optimizer=settings, compiled=_compiled(dtype))
        losses = [_step(backend, trainer, i, dtype, lr=1e-2) for i in range(30)]
        late, early = np.mean(losses[-4:]), np.mean(losses[:4])
        _require(bool(late < 0.7 * early), f"{algorithm}: the loss only went from {early} to {late}.")
        _same_weights(backend.weights(net), random_weights(MLP), "The weights of the network given to trainer()")


@_if_trainable
def check_trainer_scalars(backend: Backend, dtype: str = "float32") -> None:
    """The learning rate, and scalars of the caller's own, reach the step at every call."""
    trainer = _trainer(backend, lambda nets, x0, z, tau, s, cond: s["mine"] * _error(nets, x0, z, tau, s, cond), dtype)
    for i in range(4):
        before = trainer.weights("online")
        _step(backend, trainer, i, dtype, lr=0.0, mine=1.0)
        _same_weights(trainer.weights("online"), before, "The weights after a step with a learning rate of 0")
    before = trainer.weights("online")
    _step(backend, trainer, 4, dtype, lr=1e-2, mine=1.0)
    _require(any((before[n] != w).any() for n, w in trainer.weights("online").items()), "The learning rate has no effect.")
    one, two = (_step(backend, trainer, 5, dtype, lr=0.0, mine=m) for m in (1.0, 2.0))
    _require(math.isclose(two, 2 * one, rel_tol=1e-5), "A scalar of the caller's own does not reach the loss.")


@_if_trainable
def check_trainer_random_numbers(backend: Backend, dtype: str = "float32") -> None:
    """Step i draws z, then tau, from stream(seed, i): uniform or normal as asked for, afresh at each step."""
    x0, _, _ = network_input(MLP)
    for tau_law in ("uniform", "normal"):

        def loss(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
            return 0.0 * _error(nets, x0, z, tau, s, cond) + namespace(z).sum(z**2, axis=1) + 10.0 * tau

        net = backend.network(MLP, dtype=dtype)
        trainer = backend.trainer(
            net, loss, optimizer=Optimizer(), tau=tau_law, seed=11, compiled=_compiled(dtype)
        )
        for index in (0, 1, 2, 3, 7):
            stream = backend.stream(11, index)
            z = backend.to_numpy(stream.normal(x0.shape, dtype))
            tau = backend.to_numpy(getattr(stream, tau_law)(x0.shape[:1], dtype))
            expected = float(np.mean((z**2).sum(1) + 10.0 * tau))
            got = _step(backend, trainer, index, dtype, lr=1e-3)
            _require(math.isclose(got, expected, rel_tol=1e-4), f"Step {index} did not draw its z and {tau_law} tau from stream(11, {index}).")


@_if_trainable
def check_trainer_average(backend: Backend, dtype: str = "float32") -> None:
    """weights("ema") is ``decay * average + (1 - decay) * online``, after each step, with that step's decay."""
    trainer = _trainer(backend, _error, dtype)
    average = {n: w.astype(np.float64) for n, w in random_weights(MLP).items()}
    _same_weights(trainer.weights("ema"), random_weights(MLP), "The average before the first step")
    for i, decay in enumerate((0.9, 0.5, 0.0, 0.99, 1.0)):
        _step(backend, trainer, i, dtype, lr=1e-2, ema_decay=decay)
        online, got = trainer.weights("online"), trainer.weights("ema")
        average = {n: decay * a + (1 - decay) * online[n] for n, a in average.items()}
        for name, a in average.items():
            error = np.abs(got[name] - a).max()
            _require(bool(error < 1e-6), f"After step {i} with decay {decay} the average of {name} is off by {error}.")


@_if_trainable
def check_trainer_target(backend: Backend, dtype: str = "float32") -> None:
    """The target network is the online one, or its average with decay "target_decay" if that is kept."""

    def outputs(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
        target = backend.stop_gradient(nets["target"](0.1 * x0, 0.0 * tau))
        probe = namespace(x0).mean(target**2, axis=1)
        return s["train"] * _error(nets, x0, z, tau, s, cond) + (1.0 - s["train"]) * probe

    x0, _, _ = network_input(MLP)

    def expected(weights: Mapping[str, np.ndarray]) -> float:
        net = backend.network(MLP, weights, dtype=dtype)
        out = net(backend.asarray(0.1 * x0, dtype), backend.asarray(np.zeros(len(x0)), dtype))
        return float((backend.to_numpy(out) ** 2).mean())

    for keep_target, decays in ((False, (0.5,)), (True, (1.0, 0.75, 0.0))):
        trainer = _trainer(backend, outputs, dtype, keep_target=keep_target)
        average = {n: w.astype(np.float64) for n, w in random_weights(MLP).items()}
        for i, decay in enumerate(decays):
            _step(backend, trainer, 2 * i, dtype, lr=3e-2, train=1.0, target_decay=decay)
            online = trainer.weights("online")
            average = {n: decay * a + (1 - decay) * online[n] for n, a in average.items()}
            seen = _step(backend, trainer, 2 * i + 1, dtype, lr=0.0, train=0.0, target_decay=1.0)
            wanted = expected(average if keep_target else online)
            _require(math.isclose(seen, wanted, rel_tol=1e-4), f"With keep_target={keep_target} and decay {decay}, the target network is not what it should be.")


@_if_trainable
def check_trainer_frozen(backend: Backend, dtype: str = "float32") -> None:
    """A frozen network reaches the loss under its name and stays as it is; conditions reach the loss."""

    def probe(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
        return namespace(x0).mean((nets["online"](x0, 0.0 * tau) - nets["teacher"](x0, 0.0 * tau, **cond)) ** 2, axis=1)

    teacher = backend.network(CONDITIONED, random_weights(CONDITIONED, 1), dtype=dtype)
    trainer = _trainer(backend, probe, dtype, frozen={"teacher": teacher})
    x0, _, label = network_input(CONDITIONED)
    cond = {"label": backend.asarray(label, "int32")}
    pictures = backend.asarray(x0, dtype), backend.asarray(np.zeros(len(x0)), dtype)
    online = backend.network(MLP, random_weights(MLP), dtype=dtype)
    difference = backend.to_numpy(online(*pictures)) - backend.to_numpy(teacher(*pictures, **cond))
    losses = [_step(backend, trainer, i, dtype, lr=1e-2, cond=cond) for i in range(30)]
    _require(math.isclose(losses[0], float((difference**2).mean()), rel_tol=1e-4), "The frozen network or the condition does not reach the loss as it is.")
    _require(losses[-1] < 0.9 * losses[0], "Training against a frozen network does not lower the loss.")
    _same_weights(backend.weights(teacher), random_weights(CONDITIONED, 1), "The weights of a frozen network after training")


@_if_trainable
def check_trainer_resumes(backend: Backend, dtype: str = "float32") -> None:
    """What `state` returned, put into a new trainer, continues bit for bit."""
    # RAdam counts its steps: the seventh is of another kind than the first ones.
    one, two = (_trainer(backend, _error, dtype, keep_target=True, algorithm="radam") for _ in range(2))
    for i in range(7):
        _step(backend, one, i, dtype, lr=1e-2, ema_decay=0.9, target_decay=0.5)
    state = one.state()
    _require(all(isinstance(v, np.ndarray) for v in state.values()), "state() must return NumPy arrays.")
    kept = {name: value.copy() for name, value in state.items()}
    two.restore(state)
    for i in range(7, 10):
        values = [_step(backend, t, i, dtype, lr=1e-2, ema_decay=0.9, target_decay=0.5) for t in (one, two)]
        _require(values[0] == values[1], f"The loss of step {i} differs after restore().")
    other = two.state()
    for name, value in one.state().items():
        _require(np.array_equal(value, other[name]), f"{name} differs after restore() and three steps.")
    _require(all(np.array_equal(kept[n], v) for n, v in state.items()), "Training changed what state() had returned.")
    del kept[next(iter(kept))]
    _refuses(ValueError, lambda: two.restore(kept), "restore() with an entry missing")


CHECKS: tuple[Check, ...] = (
    check_members,
    check_namespace,
    check_placement,
    check_streams,
    check_compile,
    check_networks,
    check_network_errors,
    check_refusals,
    check_stop_gradient_value,
    check_stop_gradient,
    check_value_and_grad,
    check_jvp,
    check_gradient_of_jvp,
    check_trainer_learns,
    check_trainer_scalars,
    check_trainer_random_numbers,
    check_trainer_average,
    check_trainer_target,
    check_trainer_frozen,
    check_trainer_resumes,
)
"""Every check; parametrise a test with them."""


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


def _refuses(kind: type[Exception], call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except kind as error:
        sentence = str(error)
        _require(sentence.endswith(".") and " " in sentence, f"{what} must explain itself in a sentence, got: {sentence!r}")
    else:
        raise AssertionError(f"{what} must raise {kind.__name__}, but raised nothing.")


def _close(backend: Backend, got: Array, expected: Any, dtype: str, what: str, scale: float = 1.0) -> None:
    host, expected = backend.to_numpy(got), np.asarray(expected, np.float64)
    _require(host.shape == expected.shape, f"{what} has shape {host.shape}, expected {expected.shape}.")
    error = float(np.abs(host - expected).max(initial=0.0))
    limit = _ROUNDING[dtype] * max(scale, float(np.abs(expected).max(initial=0.0)))
    _require(error <= limit, f"{what} is off by {error}, which rounding does not explain.")


def _same_weights(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], what: str) -> None:
    _require(got.keys() == expected.keys(), f"{what}: the names differ by {sorted(got.keys() ^ expected.keys())}.")
    for name, value in expected.items():
        _require(np.array_equal(got[name], value), f"{what}: {name} has changed.")


def _evaluate(
    backend: Backend, net: Network, x: np.ndarray, c_noise: np.ndarray, label: np.ndarray | None, dtype: str
) -> Array:
    cond = {} if label is None else {"label": backend.asarray(label, "int32")}
    return net(backend.asarray(x, dtype), backend.asarray(c_noise, dtype), **cond)


def _arguments(backend: Backend, architecture: Architecture, dtype: str) -> tuple[Array, ...]:
    x, c_noise, label = network_input(architecture)
    args = backend.asarray(x, dtype), backend.asarray(c_noise, dtype)
    return args if label is None else (*args, backend.asarray(label, "int32"))


def _error(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
    """How badly the network tells 0.3 x0 from x0, (B,)."""
    return namespace(x0).mean((nets["online"](x0, tau) - 0.3 * x0) ** 2, axis=1)


def _trainer(
    backend: Backend,
    loss: Loss,
    dtype: str,
    *,
    keep_target: bool = False,
    frozen: Mapping[str, Network] | None = None,
    algorithm: str = "adam",
) -> Trainer:
    net = backend.network(MLP, random_weights(MLP), dtype=dtype)
    return backend.trainer(
        net,
        loss,
        optimizer=Optimizer(algorithm),
        keep_target=keep_target,
        frozen=frozen,
        compiled=_compiled(dtype),
    )


def _compiled(dtype: str) -> bool:
    return dtype == "float32"


def _step(
    backend: Backend, trainer: Trainer, index: int, dtype: str, cond: Mapping[str, Array] | None = None, **scalars: float
) -> float:
    x0 = backend.asarray(network_input(MLP)[0], dtype)
    return float(backend.to_numpy(trainer.step(index, x0, {"ema_decay": 0.9, **scalars}, cond)))
