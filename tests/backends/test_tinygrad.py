from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cmcore as cm
from cmcore.networks import ResidualConv, ResidualMLP
from cmcore.optimization import Optimizer

pytest.importorskip("tinygrad")

from cmcore_tinygrad import optimizers
from tinygrad import Tensor, nn
from tinygrad.engine import realize
from tinygrad.helpers import TRAINING

MLP = ResidualMLP((2, 3), width=8, blocks=1, classes=3, features=4)
CONV = ResidualConv((1, 4, 4), width=4, multipliers=(1, 2), blocks=1, groups=2, features=4)
FLAT = ResidualMLP((2,), width=4, blocks=1, features=2)
SCALARS = {"lr": 1e-2, "ema_decay": 0.5, "target_decay": 0.25, "weight": 1.0}


@pytest.fixture(scope="module")
def tg() -> Any:
    return cm.load("tinygrad").on("cpu")


def random_weights(architecture: Any, seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: 0.3 * draw.normal(size=shape).astype("float32") for name, shape in architecture.layout().items()}


def loss(
    nets: Mapping[str, Any], x0: Any, z: Any, tau: Any, scalars: Mapping[str, Any], cond: Mapping[str, Any]
) -> Any:
    x = x0 + (tau + 0.5).reshape(-1, 1) * z
    gap = nets["online"](x, tau) - nets["target"](x, 0 * tau).detach() - x0
    return scalars["weight"] * (gap * gap).sum(1)


def trainer(tg: Any, net: Any = None, **settings: Any) -> Any:
    settings = {"optimizer": Optimizer(lr=1e-2), "keep_target": True, "seed": 3} | settings
    frozen = settings.pop("frozen", None)
    return cm.Trainer(tg, net or tg.network(FLAT, random_weights(FLAT)), cm.TrainSpec(loss, **settings), frozen)


def batches(n: int, size: int = 4) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(n, size, 2)).astype("float32")


def flat(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([weights[name].ravel() for name in sorted(weights)])


# Devices


def test_device_names_ignore_case_and_unknown_ones_are_refused(tg: Any) -> None:
    assert tg.device == "CPU"
    assert tg.on(None) is tg
    assert cm.load("tinygrad").device in tg.devices()
    with pytest.raises(ValueError, match=r"no device 'abacus' for tinygrad here; choose one of .*CPU"):
        tg.on("abacus")


@pytest.mark.parametrize("use", ["asarray([1.0])", "network(architecture)", "compile(abs)"])
@pytest.mark.parametrize("cached", [False, True], ids=["nothing cached", "cached"])
def test_without_clang_the_first_use_says_how_to_get_it(use: str, cached: bool, tmp_path: Path) -> None:
    code = (
        "import cmcore as cm\n"
        "from cmcore.networks import ResidualMLP\n"
        "architecture = ResidualMLP((2,), width=4, blocks=1, features=2)\n"
        "backend = cm.use('tinygrad', device='cpu')\n"
        "try:\n"
        f"    backend.{use}\n"
        "except cm.Error as error:\n"
        "    print(error)\n"
    )
    environment = os.environ | {"CACHEDB": str(tmp_path / "cache.db"), "DEV": "CPU"}
    if cached:
        # tinygrad then opens the device without compiling anything, and lacks clang at the first new kernel only.
        assert _output(code, environment) == ""
    assert "apt install clang" in _output(code, environment | {"PATH": str(tmp_path)})


def _output(code: str, environment: Mapping[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Arrays and random numbers


def test_asarray_copies_and_keeps_types(tg: Any) -> None:
    host = np.array([1.0, 2.0])
    x = tg.asarray(host)
    host[0] = 7.0
    assert (x.dtype, x.device) == (tg.xp.float64, "CPU")
    np.testing.assert_array_equal(tg.to_numpy(x), [1.0, 2.0])
    assert tg.asarray(1.5).dtype == tg.asarray([1.5]).dtype == tg.xp.float32
    assert tg.asarray(np.float64(1.5)).shape == ()
    assert tg.asarray(x, "float32").dtype == tg.xp.float32
    with pytest.raises(ValueError, match="no data type 'float31'"):
        tg.asarray(host, "float31")
    with pytest.raises(OverflowError, match="does not fit int32"):
        tg.asarray([2**40])
    with pytest.raises(TypeError, match="complex128"):
        tg.asarray(np.array([1j]))


def test_scalars_do_not_change_types(tg: Any) -> None:
    for dtype in ("float32", "float64"):
        x = tg.asarray([1.0, 2.0], dtype)
        assert all(y.dtype == x.dtype for y in (2 * x, x / 3.0, x**2, 1 - x, x[0] * 2.0))


def test_streams_repeat_and_differ(tg: Any) -> None:
    def draw(seed: int, index: int) -> np.ndarray:
        stream = tg.stream(seed, index)
        return np.stack([tg.to_numpy(stream.normal((4,))), tg.to_numpy(stream.normal((4,)))])

    np.testing.assert_array_equal(draw(1, 2), draw(1, 2))
    numbers = np.concatenate([draw(1, 2), draw(1, 3), draw(2, 2), draw(2, 1)]).ravel()
    assert len(np.unique(numbers)) == numbers.size
    many = tg.to_numpy(tg.stream(0).uniform((4000,), "float64"))
    assert many.dtype == np.float64
    assert 0 <= many.min() < many.max() < 1
    assert abs(many.mean() - 0.5) < 0.02
    with pytest.raises(ValueError, match="cannot be negative"):
        tg.stream(-1)


# Networks


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [(MLP, "float32"), (MLP, "float64"), (CONV, "float64")],
    ids=["mlp-float32", "mlp-float64", "conv-float64"],
)
def test_networks_have_the_layout_and_compute_what_it_says(tg: Any, architecture: Any, dtype: str) -> None:
    weights = random_weights(architecture)
    net = tg.network(architecture, weights, dtype=dtype)
    kept = tg.weights(net)
    assert {name: w.shape for name, w in kept.items()} == architecture.layout()
    assert all(w.dtype == dtype and np.array_equal(w, weights[name]) for name, w in kept.items())

    draw = np.random.default_rng(1)
    x, c_noise = draw.normal(size=(3, *architecture.shape)).astype(dtype), draw.normal(size=3).astype(dtype)
    label = (np.array([2, 0, 1]),) if architecture.classes else ()
    expected = cm.load("numpy").network(architecture, weights, dtype=dtype)(x, c_noise, *label)
    actual = tg.to_numpy(net(*(tg.asarray(a) for a in (x, c_noise, *label))))
    assert actual.dtype == dtype
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_networks_refuse_what_does_not_fit(tg: Any) -> None:
    net = tg.network(MLP)
    x, c_noise = tg.asarray(np.zeros((2, 2, 3), "float32")), tg.asarray(np.zeros(2, "float32"))
    with pytest.raises(ValueError, match=r"x of shape \(B, 2, 3\)"):
        net(x.reshape(2, 6), c_noise)
    with pytest.raises(ValueError, match=r"c_noise of shape \(2,\)"):
        net(x, c_noise[:1])
    with pytest.raises(ValueError, match="needs a label"):
        net(x, c_noise)
    with pytest.raises(ValueError, match="takes no label"):
        tg.network(FLAT)(x[:, 0, :2], c_noise, c_noise)
    with pytest.raises(ValueError, match="lack"):
        tg.network(MLP, {})


def test_making_a_network_draws_nothing_from_the_global_generator(tg: Any) -> None:
    Tensor.manual_seed(0)
    expected = Tensor.rand(3).numpy()
    Tensor.manual_seed(0)
    tg.network(FLAT)
    np.testing.assert_array_equal(Tensor.rand(3).numpy(), expected)


# Derivatives


def function(xp: Any, x: Any, t: Any) -> Any:
    return xp.tanh(x) * t[:, None] + xp.sin(t)[:, None] * x**2


def test_jvp_is_forward_modes(tg: Any) -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(2)
    hosts = [draw.normal(size=shape) for shape in ((3, 2), (3,), (3, 2), (3,))]
    x, t, dx, dt = (torch.tensor(h) for h in hosts)
    expected = torch.func.jvp(lambda x, t: function(torch, x, t), (x * t[:, None], t), (dx, dt))
    x, t, dx, dt = (tg.asarray(h) for h in hosts)
    # The first input is computed from the second, and yet they are varied independently.
    actual = tg.jvp(lambda x, t: function(tg.xp, x, t), (x * t[:, None], t), (dx, dt))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(tg.to_numpy(a), e.numpy(), rtol=1e-13, atol=1e-13)


def test_jvp_of_a_network_is_the_limit_of_differences(tg: Any) -> None:
    net = tg.network(FLAT, random_weights(FLAT), dtype="float64")
    draw = np.random.default_rng(3)
    x, t, dx, dt = (tg.asarray(draw.normal(size=shape)) for shape in ((3, 2), (3,), (3, 2), (3,)))
    value, tangent = tg.jvp(net, (x, t), (dx, dt))
    h = 1e-5
    difference = (net(x + h * dx, t + h * dt) - net(x - h * dx, t - h * dt)) / (2 * h)
    np.testing.assert_allclose(tg.to_numpy(value), tg.to_numpy(net(x, t)), rtol=1e-13)
    np.testing.assert_allclose(tg.to_numpy(tangent), tg.to_numpy(difference), rtol=1e-7, atol=1e-8)


def test_jvp_can_be_differentiated_again_and_its_inputs_may_be_equal(tg: Any) -> None:
    t = tg.asarray(np.array([0.5, 2.0]))
    _, tangent = tg.jvp(lambda a, b: a * a * b, (t, t), (t, 0 * t))
    np.testing.assert_allclose(tg.to_numpy(tangent), 2 * tg.to_numpy(t) ** 3)
    (again,) = tangent.sum().gradient(t)
    np.testing.assert_allclose(tg.to_numpy(again), 6 * tg.to_numpy(t) ** 2)
    _, none = tg.jvp(lambda a: tg.xp.ones_like(a), (t,), (t,))
    np.testing.assert_array_equal(tg.to_numpy(none), [0, 0])
    with pytest.raises(ValueError, match="shaped like the primals"):
        tg.jvp(lambda a: a, (t,), (t[:1],))


def test_value_and_grad_names_gradients_and_stops_where_told(tg: Any) -> None:
    net = tg.network(FLAT, random_weights(FLAT), dtype="float64")
    x, t = tg.asarray(np.ones((2, 2))), tg.asarray(np.zeros(2))

    def half_stopped(net: Any, x: Any) -> Any:
        y = net(x, t)
        return (y * tg.stop_gradient(y)).sum()

    value, gradients = tg.value_and_grad(half_stopped)(net, x)
    assert gradients.keys() == FLAT.layout().keys()
    bias = tg.to_numpy(net(x, t)).sum(axis=0)  # d/d bias of y sg(y), not of y^2
    np.testing.assert_allclose(tg.to_numpy(gradients["head.bias"]), bias)
    np.testing.assert_allclose(tg.to_numpy(value), (tg.to_numpy(net(x, t)) ** 2).sum())
    _, none = tg.value_and_grad(lambda net, x: x.sum())(net, x)
    assert all(not tg.to_numpy(g).any() for g in none.values())
    with pytest.raises(ValueError, match="0-d"):
        tg.value_and_grad(lambda net, x: net(x, t))(net, x)


# Compilation


def test_compiled_functions_keep_their_results_and_notice_new_numbers(tg: Any) -> None:
    traces = []

    def scaled(x: Any, by: float, more: dict[str, Any]) -> dict[str, Any]:
        traces.append(by)
        return {"y": by * x + more["shift"]}

    run = tg.compile(scaled)
    results = [run(tg.asarray(np.array([n, 1.0])), 2.0, {"shift": np.array([n])})["y"] for n in range(5)]
    assert len(traces) == 2
    for n, y in enumerate(results):
        np.testing.assert_array_equal(tg.to_numpy(y), [3 * n, 2 + n])
    np.testing.assert_array_equal(tg.to_numpy(run(results[1], 3.0, {"shift": np.array([0.0])})["y"]), [9, 9])


def test_compiled_functions_take_equal_inputs_constants_and_their_own_results(tg: Any) -> None:
    run = tg.compile(lambda a, b: a + b)
    x = tg.asarray(np.ones(3))
    for _ in range(4):
        np.testing.assert_array_equal(tg.to_numpy(run(x, x)), [2, 2, 2])
    for _ in range(4):
        x = run(x, tg.xp.ones_like(x))
    np.testing.assert_array_equal(tg.to_numpy(x), [5, 5, 5])


def test_what_a_compiled_function_is_given_a_multiple_of_is_computed_once(tg: Any) -> None:
    f = tg.compile(lambda x: x + 1.0)
    x = Tensor.ones(3).contiguous().realize()
    for _ in range(3):
        x = 3.0 * x + 1.0
        y = f(2.0 * x)
        assert x.uop.has_buffer_identity()
    assert np.array_equal(y.numpy(), 2 * x.numpy() + 1)
    assert np.array_equal(x.numpy(), np.full(3, 40.0, np.float32))


def test_sampling_at_other_times_compiles_nothing_new(tg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[Any] = []
    compiled = realize._compile_kernel

    def counted(*args: Any, **kwargs: Any) -> Any:
        programs.append(args)
        return compiled(*args, **kwargs)

    monkeypatch.setattr(realize, "_compile_kernel", counted)
    net = tg.compile(lambda x, c_noise: 0.5 * x + c_noise[:, None])
    denoiser = cm.parametrization.ConsistencyFunction(net, cm.parametrization.EDM())
    z = tg.stream(0).normal((5, 7))
    first, again = (
        (tg.to_numpy(cm.sampling.ode(denoiser, z, times)), len(programs))
        for times in ((80.0, 20.0, 5.0, 1.0, 0.0), (80.0, 21.0, 9.0, 4.0, 0.5, 0.1, 0.0))
    )
    assert again[1] == first[1] > 0
    assert not np.allclose(first[0], again[0])


# Training


def towards_the_tangent(nets: Mapping[str, Any], x0: Any, z: Any, tau: Any, *_: Any) -> Any:
    """F moved towards F - dF, weighted by a learned weight: what continuous-time methods have in common."""
    net = nets["online"]
    x = x0 + tau.reshape(-1, *(1 for _ in x0.shape[1:])) * z
    out, tangent = cm.jvp(lambda x, c: net(x, c, c_end=0.5 * tau), (x, tau), (z, tau.ones_like()))
    error = ((out - (out - tangent).detach()) ** 2).flatten(1).mean(1)
    w = net.log_weight(tau, 0.5 * tau)
    return w.exp() * error - w


@pytest.mark.slow
def test_a_loss_with_a_derivative_compiles(tg: Any) -> None:
    traces = []

    def counted(*args: Any) -> Any:
        traces.append(1)
        return towards_the_tangent(*args)

    # One level: each more is some ten seconds of clang.
    architecture = replace(CONV, multipliers=(1,), two_times=True, log_weight=True)
    net = tg.network(architecture, random_weights(architecture), dtype="float64")
    x0 = np.random.default_rng(5).normal(size=(3, *architecture.shape))
    scalars = {"lr": 1e-2, "ema_decay": 0.5}
    specs = [cm.TrainSpec(counted, Optimizer("adam"), seed=3, compiled=c) for c in (True, False)]
    compiled, eager = (cm.Trainer(tg, net, spec) for spec in specs)
    for i in range(3):
        one, two = (tg.to_numpy(t.step(i, x0, scalars)) for t in (compiled, eager))
        np.testing.assert_allclose(one, two, rtol=1e-9)
    assert len(traces) == 2 + 3
    one, two = compiled.weights("online"), eager.weights("online")
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-6, atol=1e-9, err_msg=name)
        assert not np.array_equal(one[name], random_weights(architecture)[name]), name


def test_beside_a_stopped_derivative_gradients_are_those_of_forward_mode(tg: Any) -> None:
    torch_backend = pytest.importorskip("cmcore_torch").BACKEND
    architecture = replace(CONV, two_times=True, log_weight=True)
    draw = np.random.default_rng(4)
    hosts = [draw.normal(size=(3, *architecture.shape)) for _ in range(2)] + [draw.uniform(size=3)]

    def gradient(backend: Any) -> dict[str, np.ndarray]:
        net = backend.network(architecture, random_weights(architecture), dtype="float64")
        x0, z, tau = (backend.asarray(a) for a in hosts)

        def mean(n: Any) -> Any:
            x = x0 + tau.reshape(-1, 1, 1, 1) * z
            one = backend.asarray(np.ones(3))
            out, tangent = cm.jvp(lambda x, c: n(x, c, c_end=0.5 * tau), (x, tau), (z, one))
            return ((out - (out - tangent).detach()) ** 2).mean()

        return {name: backend.to_numpy(g) for name, g in backend.value_and_grad(mean)(net)[1].items()}

    ours, expected = gradient(tg), gradient(torch_backend)
    for name in expected:
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(ours[name], expected[name], rtol=0, atol=1e-11 * scale, err_msg=name)


@pytest.mark.parametrize("algorithm", ["radam", "adam", "adamw"])
def test_optimizers_are_torchs(tg: Any, algorithm: str) -> None:
    torch = pytest.importorskip("torch")
    decay = 0.1 if algorithm == "adamw" else 0.0
    start = np.random.default_rng(0).normal(size=(3,))
    weight = torch.tensor(start, requires_grad=True)
    kind = {"radam": torch.optim.RAdam, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[algorithm]
    theirs = kind([weight], lr=0.05, betas=(0.9, 0.99), weight_decay=decay)

    class Net:
        def __init__(self) -> None:
            self.weight = tg.asarray(start)

    def quartic(nets: Any, x0: Any, *rest: Any) -> Any:
        return ((nets["online"].weight - x0) ** 4).sum(1)

    settings = Optimizer(algorithm, lr=0.05, betas=(0.9, 0.99), weight_decay=decay)
    ours = cm.Trainer(tg, Net(), cm.TrainSpec(quartic, settings))
    for i in range(20):
        x0 = np.random.default_rng(i).normal(size=(2, 3))
        ours.step(i, x0, {"lr": 0.05 / (1 + i % 3), "ema_decay": 0.0})
        theirs.param_groups[0]["lr"] = 0.05 / (1 + i % 3)
        theirs.zero_grad()
        ((weight - torch.tensor(x0)) ** 4).sum(1).mean().backward()
        theirs.step()
    np.testing.assert_allclose(ours.weights("online")["weight"], weight.detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "eager"])
def test_averages_follow_their_formula(tg: Any, compiled: bool) -> None:
    train = trainer(tg, compiled=compiled)
    average = target = flat(train.weights("online"))
    for i, x0 in enumerate(batches(4)):
        scalars = SCALARS | {"ema_decay": 0.1 * i, "target_decay": 1 - 0.2 * i}
        train.step(i, x0, scalars)
        online = flat(train.weights("online"))
        average = scalars["ema_decay"] * average + (1 - scalars["ema_decay"]) * online
        target = scalars["target_decay"] * target + (1 - scalars["target_decay"]) * online
        state = train.state()
        kept = flat({n: w for n, w in state.items() if n.startswith("target/")})
        np.testing.assert_allclose(flat(train.weights("ema")), average, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(kept, target, rtol=1e-6, atol=1e-7)


def test_steps_compile_once_and_give_losses_that_last(tg: Any) -> None:
    traces = []

    def counted(*args: Any) -> Any:
        traces.append(1)
        return loss(*args)

    train = cm.Trainer(tg, tg.network(FLAT, random_weights(FLAT)), cm.TrainSpec(counted, Optimizer(lr=1e-2), seed=3))
    eager = trainer(tg, keep_target=False, compiled=False)
    scalars = [SCALARS | {"weight": float(1 + i), "lr": 1e-2 / (1 + i)} for i in range(5)]
    losses = [train.step(i, x0, scalars[i]) for i, x0 in enumerate(batches(5))]
    expected = [tg.to_numpy(eager.step(i, x0, scalars[i])) for i, x0 in enumerate(batches(5))]
    assert len(traces) == 2
    np.testing.assert_array_equal([tg.to_numpy(value) for value in losses], expected)
    assert len(set(map(float, expected))) == 5
    np.testing.assert_array_equal(flat(train.weights("online")), flat(eager.weights("online")))


def test_training_resumes_bit_for_bit(tg: Any) -> None:
    whole, first, second = trainer(tg), trainer(tg), trainer(tg, tg.network(FLAT, seed=9))
    for i, x0 in enumerate(batches(6)):
        whole.step(i, x0, SCALARS)
        if i == 3:
            second.restore(first.state())
        (first if i < 3 else second).step(i, x0, SCALARS)
    one, two = whole.state(), second.state()
    assert one.keys() == two.keys()
    assert {name.partition("/")[0] for name in one} == {"online", "ema", "target", "optimizer"}
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_gradients_are_clipped_together(tg: Any) -> None:
    start, bound = tg.network(FLAT, random_weights(FLAT)), 1e-3
    train = trainer(tg, start, optimizer=Optimizer(lr=1.0, clip=bound))
    train.step(0, batches(1)[0], SCALARS | {"lr": 1.0})
    # RAdam's first step is plain gradient descent.
    moved = flat(tg.weights(start)) - flat(train.weights("online"))
    np.testing.assert_allclose(np.linalg.norm(moved), bound, rtol=1e-3)
    free = optimizers.clipped([tg.asarray([3.0]), tg.asarray([4.0])], 10.0)
    np.testing.assert_array_equal([tg.to_numpy(g)[0] for g in free], [3, 4])


def test_networks_given_stay_as_they_are(tg: Any) -> None:
    net = tg.network(FLAT, random_weights(FLAT))
    train = trainer(tg, net)
    train.step(0, batches(1)[0], SCALARS)
    assert not np.array_equal(flat(train.weights("online")), flat(tg.weights(net)))
    np.testing.assert_array_equal(flat(tg.weights(net)), flat(random_weights(FLAT)))


def test_frozen_networks_and_conditions_reach_the_loss(tg: Any) -> None:
    teacher = tg.network(FLAT, random_weights(FLAT, seed=1))
    seen = []

    def distil(nets: Any, x0: Any, z: Any, tau: Any, scalars: Any, cond: Any) -> Any:
        seen.append((nets["target"] is nets["online"], z.shape, tau.shape, sorted(scalars)))
        return ((nets["online"](x0, tau) - nets["teacher"](x0, tau)) ** 2).sum(1) * cond["w"]

    spec = cm.TrainSpec(distil, Optimizer(lr=1e-2), tau="normal")
    train = cm.Trainer(tg, tg.network(FLAT, random_weights(FLAT)), spec, {"teacher": teacher})
    scalars = {"lr": 1e-2, "ema_decay": 0.5}
    value = train.step(7, batches(1)[0], scalars, {"w": np.arange(4, dtype="float32")})
    assert seen[0] == (True, (4, 2), (4,), ["ema_decay", "lr"])
    stream = tg.stream(0, 7)
    stream.normal((4, 2))
    x0, tau = tg.asarray(batches(1)[0]), stream.normal((4,))
    gap = tg.to_numpy(tg.network(FLAT, random_weights(FLAT))(x0, tau) - teacher(x0, tau))
    np.testing.assert_allclose(tg.to_numpy(value), ((gap**2).sum(1) * np.arange(4)).mean(), rtol=1e-5)
    np.testing.assert_array_equal(flat(tg.weights(teacher)), flat(random_weights(FLAT, seed=1)))
    # Another batch size is another program, not an error.
    train.step(8, batches(1, size=2)[0], scalars, {"w": np.ones(2, "float32")})


def test_only_the_trained_network_is_in_training_and_its_statistics_are_no_weights(tg: Any) -> None:
    class Net:
        def __init__(self) -> None:
            self.norm = nn.BatchNorm(2)
            self.modes: list[bool] = []

        def __call__(self, x: Any) -> Any:
            self.modes.append(bool(TRAINING))
            return self.norm(x.reshape(-1, 2, 1)).reshape(-1, 2)

    net, teacher = Net(), Net()
    spec = cm.TrainSpec(lambda nets, x0, *rest: ((nets["online"](x0) - nets["teacher"](x0)) ** 2).sum(1))
    train = cm.Trainer(tg, net, spec, {"teacher": teacher})
    for i, x0 in enumerate(batches(4)):
        train.step(i, x0 + 5, {"lr": 1e-2, "ema_decay": 0.5})
    assert teacher.modes == [False, False]
    assert not TRAINING
    assert {name for name in train.state() if name.startswith("ema/")} == {"ema/norm.weight", "ema/norm.bias"}
    expected = np.zeros(2)
    for x0 in batches(4):
        expected = 0.9 * expected + 0.1 * (x0 + 5).mean(axis=0)
    np.testing.assert_allclose(train.weights()["norm.running_mean"], expected, rtol=1e-5)
    np.testing.assert_array_equal(tg.to_numpy(net.norm.running_mean), [0, 0])


def test_batches_may_be_slices_of_one_tensor(tg: Any) -> None:
    data, hosts = tg.asarray(batches(5).reshape(20, 2)), batches(5)
    run = tg.compile(lambda x: 2 * x)
    one, two = trainer(tg), trainer(tg)
    for i in range(5):
        part = data[4 * i : 4 * i + 4]
        np.testing.assert_array_equal(tg.to_numpy(run(part)), 2 * hosts[i])
        np.testing.assert_array_equal(
            tg.to_numpy(one.step(i, part, SCALARS)), tg.to_numpy(two.step(i, hosts[i], SCALARS))
        )


def test_bad_input_is_told_in_sentences(tg: Any) -> None:
    with pytest.raises(ValueError, match="Unknown distribution of tau 'cauchy'"):
        trainer(tg, tau="cauchy")
    with pytest.raises(ValueError, match="cannot be named 'online'"):
        trainer(tg, frozen={"online": tg.network(FLAT)})
    train = trainer(tg)
    with pytest.raises(ValueError, match="needs the scalar 'target_decay'"):
        train.step(0, batches(1)[0], {"lr": 1.0, "ema_decay": 0.5})
    with pytest.raises(ValueError, match="floating-point data x0"):
        train.step(0, np.zeros((2, 2), "int32"), SCALARS)
    with pytest.raises(ValueError, match="choose one of online, ema"):
        train.weights("mean")
    with pytest.raises(ValueError, match=r"belongs to another trainer: 'ema/head.bias' is missing"):
        train.restore({n: w for n, w in train.state().items() if n != "ema/head.bias"})
    with pytest.raises(ValueError, match=r"'online/head.bias' is float64 of shape \(7,\)"):
        train.restore(train.state() | {"online/head.bias": np.zeros(7)})
    summed = cm.Trainer(tg, tg.network(FLAT), cm.TrainSpec(lambda nets, x0, *rest: x0.sum()))
    with pytest.raises(ValueError, match="one number per sample"):
        summed.step(0, batches(1)[0], SCALARS)
