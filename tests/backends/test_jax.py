"""The JAX backend: networks, streams, devices, dtypes, and the train step against optax and the formulas."""

import math
import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax")
eqx = pytest.importorskip("equinox")
optax = pytest.importorskip("optax")
jnp = jax.numpy

from cmcore_jax import BACKEND  # noqa: E402
from cmcore_jax.parameters import split  # noqa: E402

import cmcore as cm  # noqa: E402
from cmcore.backend import Backend  # noqa: E402
from cmcore.networks import ResidualConv, ResidualMLP  # noqa: E402
from cmcore.optimization import Optimizer  # noqa: E402

MLP = ResidualMLP((2, 3), width=16, blocks=2, features=8)
ARCHITECTURES = [
    MLP,
    ResidualMLP((5,), width=8, blocks=1, classes=3, features=4),
    ResidualConv((2, 8, 4), width=4, multipliers=(1, 2), groups=2, features=8),
    ResidualConv((1, 4, 8), width=4, multipliers=(2, 1, 1), blocks=1, classes=2, groups=4, features=8),
]
TWO_TIMES = [
    ResidualMLP((2, 3), width=8, blocks=1, classes=3, features=4, two_times=True, log_weight=True),
    ResidualConv(
        (1, 4, 4), width=4, multipliers=(1, 2), blocks=1, groups=2, features=4, two_times=True, log_weight=True
    ),
]
SCALARS = {"lr": 1e-2, "ema_decay": 0.9, "target_decay": 0.5}


def random_weights(architecture, seed=0):
    """Weights without a zero or a one among them, so that no layer goes unnoticed."""
    rng = np.random.default_rng(seed)
    layout = architecture.layout().items()
    return {n: (rng.standard_normal(s) / math.sqrt(s[-1])).astype(np.float32) for n, s in layout}


def denoising(nets, x0, z, tau, scalars, cond):
    t = 0.1 + tau
    return jnp.mean((nets["online"](x0 + t[:, None, None] * z, t, **cond) - x0) ** 2, axis=(1, 2))


def bootstrap(nets, x0, z, tau, scalars, cond):
    wanted = jax.lax.stop_gradient(nets["target"](x0, tau)) + nets["teacher"](x0, tau)
    return jnp.mean((nets["online"](x0 + z, tau) - wanted) ** 2, axis=(1, 2))


def towards_the_tangent(nets, x0, z, tau, scalars, cond):
    """F moved towards F - dF, weighted by a learned weight: what continuous-time methods have in common."""
    net = nets["online"]
    x = x0 + tau.reshape(-1, *(1 for _ in x0.shape[1:])) * z
    out, tangent = cm.jvp(lambda x, c: net(x, c, c_end=0.5 * tau), (x, tau), (z, jnp.ones_like(tau)))
    error = jnp.mean((out - jax.lax.stop_gradient(out - tangent)) ** 2, axis=tuple(range(1, x0.ndim)))
    w = net.log_weight(tau, 0.5 * tau)
    return jnp.exp(w) * error - w


class Tiny(eqx.Module):
    """A network that compiles quickly."""

    layer: eqx.nn.Linear

    def __init__(self, seed=0):
        self.layer = eqx.nn.Linear(6, 6, key=jax.random.key(seed))

    def __call__(self, x, c_noise):
        return jnp.tanh(jax.vmap(self.layer)(x.reshape(len(x), 6)) * c_noise[:, None]).reshape(x.shape)


def make(loss=denoising, net=None, **settings):
    frozen = settings.pop("frozen", None)
    return cm.Trainer(BACKEND, net or Tiny(), cm.TrainSpec(loss, **settings), frozen)


def batch(seed=0):
    return np.random.default_rng(seed).standard_normal((4, 2, 3)).astype(np.float32)


def aligned(value):
    """A copy that starts on a cache line, which is what JAX would share instead of copying."""
    room = np.empty(value.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


class TestNetworks:
    @pytest.mark.parametrize("architecture", ARCHITECTURES + TWO_TIMES)
    def test_tree_has_exactly_the_layout(self, architecture):
        weights = BACKEND.weights(BACKEND.network(architecture, seed=3))
        assert {name: w.shape for name, w in weights.items()} == architecture.layout()
        assert equal(weights, architecture.init(3))

    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_every_weight_matters(self, architecture):
        net = BACKEND.network(architecture, random_weights(architecture))
        x = jnp.asarray(np.random.default_rng(1).standard_normal((3, *architecture.shape)), jnp.float32)
        cond = {"label": jnp.arange(3) % architecture.classes} if architecture.classes else {}
        loss = BACKEND.value_and_grad(lambda n: jnp.mean(n(x, x.reshape(3, -1)[:, 0], **cond) ** 2))
        value, gradients = jax.jit(loss)(net)
        assert value.shape == ()
        assert {n: g.shape for n, g in gradients.items()} == architecture.layout()
        assert [n for n, g in gradients.items() if not np.any(np.asarray(g))] == []

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("architecture", ARCHITECTURES[:2])
    def test_mlp_follows_its_docstring(self, architecture, dtype):
        rng = np.random.default_rng(2)
        weights = random_weights(architecture)
        x, c_noise = rng.standard_normal((6, *architecture.shape)), rng.uniform(-2, 2, 6)
        label = rng.integers(0, 3, 6) if architecture.classes else None
        with jax.enable_x64(dtype == "float64"):
            net = BACKEND.network(architecture, weights, dtype=dtype)
            cond = {} if label is None else {"label": BACKEND.asarray(label)}
            got = BACKEND.compile(net)(BACKEND.asarray(x, dtype), BACKEND.asarray(c_noise, dtype), **cond)
            assert got.dtype == dtype
            assert got.shape == x.shape
            tolerance = 1e-12 if dtype == "float64" else 2e-5
            np.testing.assert_allclose(got, mlp(architecture, weights, x, c_noise, label), tolerance, tolerance)

    @pytest.mark.parametrize("architecture", ARCHITECTURES[2:])
    def test_conv_follows_its_docstring(self, architecture):
        rng = np.random.default_rng(2)
        weights = random_weights(architecture)
        x, c_noise = rng.standard_normal((3, *architecture.shape)), rng.uniform(-2, 2, 3)
        label = rng.integers(0, 2, 3) if architecture.classes else None
        with jax.enable_x64(True):
            net = BACKEND.network(architecture, weights, dtype="float64")
            cond = {} if label is None else {"label": BACKEND.asarray(label)}
            got = BACKEND.compile(net)(BACKEND.asarray(x), BACKEND.asarray(c_noise), **cond)
            np.testing.assert_allclose(got, conv(architecture, weights, x, c_noise, label), 1e-12, 1e-12)

    def test_two_times_and_null_labels_follow_the_docstring(self):
        architecture, rng = TWO_TIMES[0], np.random.default_rng(2)
        weights, x = random_weights(architecture), rng.standard_normal((4, 2, 3))
        c_noise, c_end, label = rng.uniform(-2, 2, 4), rng.uniform(-2, 2, 4), np.array([2, -1, 0, -3])
        with jax.enable_x64(True):
            net = BACKEND.network(architecture, weights, dtype="float64")
            got = net(*(BACKEND.asarray(a) for a in (x, c_noise, label, c_end)))
            np.testing.assert_allclose(got, mlp(architecture, weights, x, c_noise, label, c_end), 1e-12, 1e-12)
            w, phi = Weights(weights), np.concatenate([features(architecture, c) for c in (c_noise, c_end)], axis=1)
            got = net.log_weight(BACKEND.asarray(c_noise), BACKEND.asarray(c_end))
            np.testing.assert_allclose(got, w.linear("log_weight", phi)[:, 0], 1e-12, 1e-12)

    def test_wrong_weights(self):
        weights = random_weights(MLP)
        with pytest.raises(ValueError, match=r"lack 'head\.bias'"):
            BACKEND.network(MLP, {n: w for n, w in weights.items() if n != "head.bias"})
        with pytest.raises(ValueError, match="has shape"):
            BACKEND.network(MLP, weights | {"head.bias": np.zeros(7)})

    def test_wrong_inputs(self):
        plain, labelled = (BACKEND.network(a) for a in ARCHITECTURES[:2])
        with pytest.raises(ValueError, match="takes no label"):
            plain(jnp.ones((2, 2, 3)), jnp.ones(2), label=jnp.zeros(2, int))
        with pytest.raises(ValueError, match="has 3 classes"):
            labelled(jnp.ones((2, 5)), jnp.ones(2))
        with pytest.raises(ValueError, match=r"\(B, 2, 3\)"):
            plain(jnp.ones((2, 3, 2)), jnp.ones(2))
        with pytest.raises(ValueError, match=r"c_noise of shape \(2,\)"):
            plain(jnp.ones((2, 2, 3)), jnp.ones(()))

    @pytest.mark.parametrize("architecture", [ResidualMLP((3,)), ResidualConv((1, 8, 8), width=8)], ids=["mlp", "conv"])
    def test_products_are_float32s_unless_the_user_says_otherwise(self, architecture):
        # On a GPU JAX's default is TF32: 3e-3 off on an H100.
        net = BACKEND.network(architecture)
        x, t = jnp.zeros((2, *architecture.shape)), jnp.zeros(2)

        def loss(net):
            return (net(x, t) ** 2).sum()

        def products():
            text = str(jax.make_jaxpr(jax.grad(loss))(net))
            return text.count("dot_general[") + text.count("conv_general_dilated["), text.count("Precision.HIGHEST,")

        assert products()[0] == products()[1] > 0
        with jax.default_matmul_precision("tensorfloat32"):
            assert products()[1] == 0


def silu(h):
    return h / (1 + np.exp(-h))


class Weights:
    """The architectures' docstrings in NumPy, float64."""

    def __init__(self, weights):
        self.of = {n: w.astype(np.float64) for n, w in weights.items()}

    def linear(self, name, h):
        return h @ self.of[f"{name}.weight"].T + self.of[f"{name}.bias"]

    def layer_norm(self, name, h):
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
        return h * self.of[f"{name}.weight"] + self.of[f"{name}.bias"]

    def group_norm(self, name, h, groups):
        g = h.reshape(h.shape[0], groups, -1)
        g = (g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + 1e-5)
        return g.reshape(h.shape) * self.of[f"{name}.weight"][:, None, None] + self.of[f"{name}.bias"][:, None, None]

    def conv(self, name, h):
        kernel = self.of[f"{name}.weight"]
        k = kernel.shape[-1]
        padded = np.pad(h, [(0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))
        return np.einsum("bchwij,ocij->bohw", windows, kernel) + self.of[f"{name}.bias"][:, None, None]

    def embedding(self, architecture, c_noise, label, c_end=None):
        e = self.linear("time_out", silu(self.linear("time_in", features(architecture, c_noise))))
        if c_end is not None:
            e = e + self.linear("end_out", silu(self.linear("end_in", features(architecture, c_end))))
        return silu(e if label is None else e + self.of["label.weight"][label] * (label >= 0)[:, None])


def features(architecture, c):
    angles = c[:, None] * np.geomspace(1, architecture.max_frequency, architecture.features // 2)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def mlp(architecture, weights, x, c_noise, label, c_end=None):
    w = Weights(weights)
    e = w.embedding(architecture, c_noise, label, c_end)
    h = w.linear("stem", x.reshape(len(x), -1))
    for block in (f"blocks.{i}" for i in range(architecture.blocks)):
        scale, shift = np.split(w.linear(f"{block}.modulation", e), 2, axis=1)
        r = w.linear(f"{block}.first", w.layer_norm(f"{block}.norm", h)) * (1 + scale) + shift
        h = h + w.linear(f"{block}.second", silu(r))
    return w.linear("head", w.layer_norm("norm", h)).reshape(x.shape)


def conv(architecture, weights, x, c_noise, label):
    w, groups = Weights(weights), architecture.groups
    e = w.embedding(architecture, c_noise, label)

    def block(name, h):
        scale, shift = np.split(w.linear(f"{name}.modulation", e)[:, :, None, None], 2, axis=1)
        r = w.conv(f"{name}.first", silu(w.group_norm(f"{name}.norm1", h, groups)))
        r = w.conv(f"{name}.second", silu(w.group_norm(f"{name}.norm2", r, groups) * (1 + scale) + shift))
        return (w.conv(f"{name}.skip", h) if f"{name}.skip.weight" in weights else h) + r

    levels, skips = range(len(architecture.multipliers)), {}
    h = w.conv("stem", x)
    for level in levels:
        for b in range(architecture.blocks):
            h = block(f"down.{level}.{b}", h)
        skips[level] = h
        if level != levels[-1]:
            h = (h[:, :, ::2, ::2] + h[:, :, 1::2, ::2] + h[:, :, ::2, 1::2] + h[:, :, 1::2, 1::2]) / 4
    for level in reversed(levels[:-1]):
        h = np.concatenate([np.kron(h, np.ones((1, 1, 2, 2))), skips[level]], axis=1)
        for b in range(architecture.blocks):
            h = block(f"up.{level}.{b}", h)
    return w.conv("head", silu(w.group_norm("norm", h, groups)))


class TestStreams:
    def draws(self, seed, index=0):
        stream = BACKEND.stream(seed, index)
        return np.stack([stream.normal((1000,)), stream.normal((1000,)), stream.uniform((1000,))])

    def test_equal_seeds_give_equal_numbers(self):
        assert np.array_equal(self.draws(5, 7), self.draws(5, 7))

    def test_distinct_streams_and_draws_are_independent(self):
        seeds = [(0, 0), (0, 1), (1, 0), (1, 1), (2**32, 0), (2**64, 0), (2**32 + 1, 0)]
        rows = np.concatenate([self.draws(*pair) for pair in seeds])
        correlation = np.corrcoef(rows) - np.eye(len(rows))
        assert np.abs(correlation).max() < 0.2  # Six standard deviations of 1000 independent pairs.

    def test_distributions(self):
        normal, _, uniform = self.draws(3)
        assert abs(normal.mean()) < 0.15
        assert abs(normal.std() - 1) < 0.1
        assert 0 <= uniform.min() < 0.02 < 0.98 < uniform.max() < 1

    def test_traced_index_equals_a_concrete_one(self):
        traced = jax.jit(lambda i: BACKEND.stream(9, i).normal((8,)))
        for index in (0, 1, 4_000_000_000):
            assert np.array_equal(traced(np.uint32(index)), BACKEND.stream(9, index).normal((8,)))

    def test_wrong_seed_and_dtype(self):
        with pytest.raises(ValueError, match="must not be negative"):
            BACKEND.stream(-1)
        with pytest.raises(ValueError, match="64-bit mode is off"):
            BACKEND.stream(0).normal((2,), "float64")

    def test_double_precision(self):
        with jax.enable_x64(True):
            assert BACKEND.stream(0).normal((2,), "float64").dtype == "float64"


class TestPlacement:
    def test_has_every_member(self):
        assert isinstance(BACKEND, Backend)
        assert BACKEND.device == BACKEND.devices()[0]

    def test_unknown_device(self):
        with pytest.raises(ValueError, match=r"no device named 'abacus' here; the devices are: .*cpu"):
            BACKEND.on("abacus")

    def test_bound_to_a_device(self):
        bound = BACKEND.on("cpu")
        assert bound.device == BACKEND.on("cpu:0").device == "cpu"
        assert bound.on(None) == BACKEND
        assert bound.stream(0).normal((2,)).device.platform == "cpu"
        assert bound.network(MLP).head.weight.committed

    def test_asarray(self):
        assert BACKEND.asarray(1.5).dtype == "float32"
        assert not BACKEND.asarray(1.5).weak_type
        assert BACKEND.asarray(np.arange(3, dtype=np.uint8)).dtype == "uint8"
        assert BACKEND.asarray([1, 2], "float32").dtype == "float32"
        host = aligned(np.zeros(1000, np.float32))
        copy = BACKEND.asarray(host, "float32")
        host[:] = 1
        assert not np.any(copy)

    def test_unavailable_dtypes(self):
        with pytest.raises(ValueError, match=r"jax\.enable_x64"):
            BACKEND.network(MLP, dtype="float64")
        with pytest.raises(ValueError, match="no dtype named 'float31'"):
            BACKEND.asarray(1.0, "float31")

    def test_owns(self):
        seen = []
        jax.jit(lambda x: seen.append(BACKEND.owns(x)) or x)(1.0)
        assert seen == [True]
        assert BACKEND.owns(jnp.ones(1))
        assert not BACKEND.owns(np.ones(1))

    def test_to_numpy_copies(self):
        host = BACKEND.to_numpy(jnp.zeros(2))
        host[0] = 1

    def test_importing_changes_nothing(self):
        code = """
import jax
before = dict(jax.config.values)
import cmcore_jax
from jax._src import xla_bridge
assert dict(jax.config.values) == before
assert not xla_bridge.backends_are_initialized()
cmcore_jax.BACKEND.device
assert xla_bridge.backends_are_initialized()
"""
        subprocess.run([sys.executable, "-c", code], check=True)


class TestDerivatives:
    def test_jvp_can_be_differentiated(self):
        value, tangent = BACKEND.jvp(jnp.sin, (jnp.float32(0.3),), (jnp.float32(2.0),))
        np.testing.assert_allclose([value, tangent], [math.sin(0.3), 2 * math.cos(0.3)], 1e-6)
        slope = jax.grad(lambda x: BACKEND.jvp(jnp.sin, (x,), (jnp.float32(2.0),))[1])
        np.testing.assert_allclose(slope(jnp.float32(0.3)), -2 * math.sin(0.3), 1e-6)

    def test_stop_gradient(self):
        assert jax.grad(lambda x: x * BACKEND.stop_gradient(x))(3.0) == 3.0

    def test_networks_of_others(self):
        net = eqx.nn.Linear(2, 2, key=jax.random.key(0))
        _, gradients = BACKEND.value_and_grad(lambda n, x: jnp.sum(n(x)))(net, jnp.array([1.0, 2.0]))
        assert equal(gradients, {"weight": np.array([[1.0, 2.0], [1.0, 2.0]]), "bias": np.ones(2)})

    def test_plain_function_has_no_parameters(self):
        with pytest.raises(TypeError, match="got function with 0 parameters"):
            BACKEND.value_and_grad(lambda n: n(1.0))(lambda x: x)


class TestTrainer:
    @pytest.mark.parametrize("keep_target", [False, True])
    @pytest.mark.parametrize("algorithm", ["radam", "adam", "adamw"])
    def test_resuming_is_exact(self, algorithm, keep_target):
        def fresh():
            optimizer = Optimizer(algorithm, clip=1.0)
            return make(bootstrap, optimizer=optimizer, frozen={"teacher": Tiny(1)}, keep_target=keep_target)

        def run(trainer, steps):
            return [float(trainer.step(i, batch(i), SCALARS | {"lr": 0.01 / (1 + i)})) for i in steps]

        straight, resumed = fresh(), fresh()
        run(straight, range(5))
        half_way = straight.state()
        losses = run(straight, range(5, 10))
        resumed.restore(half_way)
        assert run(resumed, range(5, 10)) == losses
        assert equal(straight.state(), resumed.state())
        assert ("target/layer.bias" in straight.state()) == keep_target

    def test_restore_refuses_what_does_not_fit(self):
        trainer = make()
        state = trainer.state()
        with pytest.raises(ValueError, match="is missing from it"):
            trainer.restore({n: v for n, v in state.items() if n != "ema/layer.bias"})
        with pytest.raises(ValueError, match="is unknown here"):
            trainer.restore(state | {"target/layer.bias": np.zeros(6)})
        with pytest.raises(ValueError, match="expected float32 of shape"):
            trainer.restore(state | {"ema/layer.bias": np.zeros(7, np.float32)})
        assert equal(trainer.state(), state)

    def test_state_and_weights_are_copies(self):
        trainer = make()
        state, weights = trainer.state(), trainer.weights("online")
        kept = {n: v.copy() for n, v in state.items()}
        trainer.step(0, batch(), SCALARS)
        assert equal(state, kept)
        assert equal(weights, BACKEND.weights(Tiny()))
        assert not equal(trainer.weights("online"), weights)
        state = {n: aligned(v) for n, v in state.items()}
        trainer.restore(state)
        for value in state.values():
            value[...] = 0
        assert equal(trainer.state(), kept)

    def test_the_network_handed_in_survives(self):
        net = Tiny()
        make(net=net).step(0, batch(), SCALARS)
        assert equal(BACKEND.weights(net), BACKEND.weights(Tiny()))

    def test_the_batch_may_be_overwritten_after_the_call(self):
        def slow(nets, x0, z, tau, scalars, cond):
            delay = jax.lax.fori_loop(0, 30, lambda _, m: m @ m / 1e4, jnp.ones((500, 500)) + tau[0])[0, 0]
            return jnp.sum(nets["online"](x0 + 0 * delay, tau) * 0 + x0, axis=(1, 2))

        trainer, x0 = make(slow), np.zeros((20_000, 2, 3), np.float32)
        for i in range(4):
            x0[:] = i
            mean = trainer.step(i, x0, SCALARS)
            x0[:] = -1
            assert mean == 6 * i

    def test_one_trace_whatever_the_scalars(self):
        traces = []

        def counted(*arguments):
            traces.append(1)
            return denoising(*arguments)

        trainer = make(counted, keep_target=True)
        for i in range(4):
            scalars = {"N": i, "lr": 0.1 / (1 + i), "ema_decay": i / 10, "target_decay": 1.0}
            trainer.step(i, batch(i), dict(reversed(scalars.items())) if i % 2 else scalars)
        trainer.restore(trainer.state())
        trainer.step(5, batch(), scalars)
        assert len(traces) == 1

    def test_draws_come_from_the_stream(self):
        seen = {}

        def spy(nets, x0, z, tau, scalars, cond):
            seen.update(z=z, tau=tau, scalars=scalars, cond=cond)
            return denoising(nets, x0, z, tau, scalars, {})

        label = np.arange(4)
        trainer = make(spy, tau="normal", seed=2**40, compiled=False)
        trainer.step(3, batch(), SCALARS, {"label": label})
        stream = BACKEND.stream(2**40, 3)
        assert np.array_equal(seen["z"], stream.normal((4, 2, 3)))
        assert np.array_equal(seen["tau"], stream.normal((4,)))
        assert np.array_equal(seen["cond"]["label"], label)
        assert {n: float(v) for n, v in seen["scalars"].items()} == pytest.approx(SCALARS)
        assert all(BACKEND.owns(v) and v.shape == () for v in seen["scalars"].values())

    @pytest.mark.parametrize("tau", ["uniform", "normal"])
    def test_times_by_name(self, tau):
        def mean_of_tau(nets, x0, z, t, scalars, cond):
            return t + 0 * jnp.sum(nets["online"](x0, t), axis=(1, 2))

        mean = make(mean_of_tau, tau=tau, seed=4).step(6, batch(), SCALARS)
        stream = BACKEND.stream(4, 6)
        stream.normal((4, 2, 3))
        np.testing.assert_allclose(mean, np.mean(getattr(stream, tau)((4,))), 1e-6)

    @pytest.mark.parametrize(
        ("optimizer", "reference"),
        [
            (Optimizer("radam"), optax.radam(1e-2)),
            (Optimizer("adam", betas=(0.8, 0.9), eps=1e-3), optax.adam(1e-2, 0.8, 0.9, 1e-3)),
            (Optimizer("adamw", weight_decay=0.3), optax.adamw(1e-2, weight_decay=0.3)),
            (
                Optimizer("adam", clip=0.05),
                optax.chain(optax.clip_by_global_norm(0.05), optax.adam(1e-2)),
            ),
        ],
    )
    def test_optimiser_and_averages_step_by_step(self, optimizer, reference):
        trainer = make(optimizer=optimizer, keep_target=True)
        weights, rebuild = split(Tiny())
        ema = target = weights
        memory = reference.init(weights)

        @jax.jit
        def gradient(weights, index):
            stream = BACKEND.stream(0, index)
            z, tau = stream.normal((4, 2, 3)), stream.uniform((4,))
            loss = BACKEND.value_and_grad(lambda n: jnp.mean(denoising({"online": n}, batch(), z, tau, {}, {})))
            return loss(rebuild(weights))

        for i in range(8):
            expected, gradients = gradient(weights, i)
            updates, memory = reference.update(gradients, memory, weights)
            weights = optax.apply_updates(weights, updates)
            ema = jax.tree.map(lambda a, w: 0.9 * a + 0.1 * w, ema, weights)
            target = jax.tree.map(lambda a, w: 0.5 * a + 0.5 * w, target, weights)
            np.testing.assert_allclose(trainer.step(i, batch(), SCALARS), expected, 1e-4)
        state = trainer.state()
        for name in weights:
            np.testing.assert_allclose(trainer.weights("online")[name], weights[name], 1e-3, 2e-5)
            np.testing.assert_allclose(trainer.weights()[name], ema[name], 1e-3, 2e-5)
            np.testing.assert_allclose(state[f"target/{name}"], target[name], 1e-3, 2e-5)

    @pytest.mark.parametrize("keep_target", [False, True])
    def test_target_is_the_average_only_if_kept(self, keep_target):
        def gap(nets, x0, z, tau, scalars, cond):
            return jnp.sum((nets["online"](x0, tau) - nets["target"](x0, tau)) ** 2, axis=(1, 2)) - tau

        trainer = make(gap, keep_target=keep_target)
        state = trainer.state()
        averages = {n: np.zeros_like(v) for n, v in state.items() if n.startswith("target/")}
        trainer.restore(state | averages)
        mean = trainer.step(0, batch(), SCALARS)
        assert (float(mean) > 0) == keep_target

    def test_frozen_networks_are_arguments_not_constants(self):
        trainer = make(bootstrap, frozen={"teacher": BACKEND.network(MLP, random_weights(MLP))})
        assert sorted(np.shape(a) for a in trainer._step._frozen) == sorted(MLP.layout().values())
        assert trainer.step(0, batch(), SCALARS).shape == ()

    def test_frozen_networks_may_be_functions(self):
        assert np.isfinite(make(bootstrap, frozen={"teacher": lambda x, c: x}).step(0, batch(), SCALARS))

    def test_eager_equals_compiled(self):
        eager, compiled = make(compiled=False), make()
        for i in range(2):
            np.testing.assert_allclose(eager.step(i, batch(), SCALARS), compiled.step(i, batch(), SCALARS), 1e-5)
        for name, w in eager.weights("online").items():
            np.testing.assert_allclose(w, compiled.weights("online")[name], 1e-4, 1e-5)

    @pytest.mark.parametrize("architecture", [pytest.param(TWO_TIMES[1], marks=pytest.mark.slow)])
    def test_a_loss_with_a_derivative_compiles(self, architecture):
        traces = []

        def counted(*arguments):
            traces.append(1)
            return towards_the_tangent(*arguments)

        x0 = np.random.default_rng(1).standard_normal((3, *architecture.shape))
        with jax.enable_x64(True):
            net = BACKEND.network(architecture, random_weights(architecture), dtype="float64")
            optimizer = Optimizer("adam")
            compiled, eager = (make(counted, net, optimizer=optimizer, compiled=c) for c in (True, False))
            np.testing.assert_allclose(compiled.step(0, x0, SCALARS), eager.step(0, x0, SCALARS), 1e-9)
            one, two = compiled.weights("online"), eager.weights("online")
            losses = [float(compiled.step(i, x0, SCALARS)) for i in range(1, 4)]
        assert len(traces) == 1 + 1
        assert np.isfinite(losses).all()
        for name in one:
            np.testing.assert_allclose(one[name], two[name], 1e-6, 1e-9, err_msg=name)
            assert not np.array_equal(one[name], random_weights(architecture)[name]), name

    def test_double_precision_throughout(self):
        seen = []

        def spy(nets, x0, z, tau, scalars, cond):
            seen.extend(v.dtype for v in (x0, z, tau, *scalars.values()))
            return denoising(nets, x0, z, tau, scalars, cond)

        with jax.enable_x64(True):
            net = BACKEND.network(ResidualMLP((2, 3), width=4, blocks=1, features=2), dtype="float64")
            trainer = make(spy, net)
            trainer.step(0, batch().astype(np.float64), SCALARS)
            assert {w.dtype for w in trainer.weights().values()} == {np.dtype("float64")}
        assert set(seen) == {np.dtype("float64")}

    def test_an_architecture_learns(self):
        trainer = make(net=BACKEND.network(MLP), tau="uniform")
        losses = [float(trainer.step(i, np.ones((32, 2, 3), np.float32), SCALARS)) for i in range(40)]
        assert losses[0] == pytest.approx(1)
        assert losses[-1] < 0.2
        assert {n: w.shape for n, w in trainer.weights().items()} == MLP.layout()

    def test_flax_modules(self):
        nnx = pytest.importorskip("flax.nnx")

        class Mine(nnx.Module):
            def __init__(self):
                self.inner = nnx.Linear(6, 6, rngs=nnx.Rngs(0))

            def __call__(self, x, c_noise):
                return self.inner(x.reshape(len(x), -1)).reshape(x.shape)

        trainer = make(net=Mine())
        before = trainer.weights("online")
        assert np.isfinite(trainer.step(0, batch(), SCALARS))
        assert not equal(before, trainer.weights("online"))

    def test_wrong_settings(self):
        with pytest.raises(ValueError, match="Unknown distribution of tau 'cauchy'"):
            make(tau="cauchy")
        with pytest.raises(ValueError, match="cannot be named 'target'"):
            make(frozen={"target": lambda x, c: x})
        with pytest.raises(ValueError, match="Unknown kind of weights 'best'"):
            make().weights("best")
        with pytest.raises(ValueError, match="needs the scalar 'ema_decay'"):
            make().step(0, batch(), {"lr": 1.0})
        with pytest.raises(ValueError, match="one number per sample"):
            make(lambda *_: jnp.float32(0)).step(0, batch(), SCALARS)
        with pytest.raises(TypeError, match="callable pytree with parameters"):
            make(net=lambda x, c: x)
