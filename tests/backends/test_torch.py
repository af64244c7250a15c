import dataclasses
import os
import re
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest

import cmcore as cm
from cmcore.networks import ResidualConv, ResidualMLP
from cmcore.optimization import Optimizer

torch = pytest.importorskip("torch")

from cmcore_torch import BACKEND, compiling  # noqa: E402
from cmcore_torch.streams import _mix  # noqa: E402

MLP = ResidualMLP((4,), width=8, blocks=1, features=6)
CONV = ResidualConv((2, 4, 4), width=4, multipliers=(1, 2), blocks=1, groups=2, features=4)
ARCHITECTURES = [
    MLP,
    ResidualMLP((2, 3), width=8, blocks=2, classes=3),
    CONV,
    ResidualConv((1, 4, 4), width=4, multipliers=(2, 1, 3), blocks=2, groups=2, classes=5),
    ResidualMLP((4,), width=8, blocks=1, features=6, classes=3, two_times=True, log_weight=True),
    ResidualConv((2, 4, 4), width=4, multipliers=(1, 2), blocks=1, groups=2, features=4, two_times=True),
]


def weights_without_zeros(architecture, seed=0):
    rng = np.random.default_rng(seed)
    return {name: 0.3 * rng.standard_normal(shape) for name, shape in architecture.layout().items()}


def data(architecture=MLP, batch=6, dtype="float32"):
    return np.random.default_rng(1).standard_normal((batch, *architecture.shape)).astype(dtype)


def regression(nets, x0, z, tau, scalars, cond):
    noisy = x0 + (tau * scalars["scale"])[:, None] * z
    target = nets["target"](x0, tau, **cond).detach()
    return ((nets["online"](noisy, tau, **cond) - 0.5 * target - x0) ** 2).mean(dim=1)


def scalars_at(i):
    return {"lr": 1e-2 * (i + 1), "ema_decay": i / (i + 5), "target_decay": 0.6, "scale": 1.0 + 0.1 * i}


def make_trainer(algorithm="adam", dtype="float32", loss=regression, net=None, clip=0.0, **settings):
    net = net or BACKEND.network(MLP, weights_without_zeros(MLP), dtype=dtype)
    settings = {"compiled": False, "seed": 3} | settings
    frozen = settings.pop("frozen", None)
    return cm.Trainer(BACKEND, net, cm.TrainSpec(loss, Optimizer(algorithm, clip=clip), **settings), frozen)


def take_steps(trainer, steps, dtype="float32"):
    return [float(trainer.step(i, data(dtype=dtype), scalars_at(i))) for i in steps]


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# Networks


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_state_dict_is_the_layout(architecture):
    net = BACKEND.network(architecture, seed=2)
    assert {name: tuple(w.shape) for name, w in net.state_dict().items()} == architecture.layout()
    assert_equal(BACKEND.weights(net), architecture.init(2))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_output_has_the_shape_and_dtype_of_x(architecture, dtype):
    net = BACKEND.network(architecture, dtype=dtype)
    x = BACKEND.asarray(data(architecture), dtype)
    cond = {"label": torch.zeros(6, dtype=torch.int64)} if architecture.classes else {}
    cond |= {"c_end": x.new_zeros(6)} if architecture.two_times else {}
    y = net(x, x.new_ones(6), **cond)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)


def silu(x):
    return x / (1 + np.exp(-x))


def layer_norm(w, name, h):
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    return h * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w, name, h):
    return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def features_by_hand(architecture, c):
    angles = c[:, None] * np.geomspace(1, architecture.max_frequency, architecture.features // 2)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def mlp_by_hand(architecture, w, x, c_noise, label, c_end=None):
    e = linear(w, "time_out", silu(linear(w, "time_in", features_by_hand(architecture, c_noise))))
    if c_end is not None:
        e = e + linear(w, "end_out", silu(linear(w, "end_in", features_by_hand(architecture, c_end))))
    e = silu(e + w["label.weight"][label] * (label >= 0)[:, None])
    h = linear(w, "stem", x.reshape(len(x), -1))
    for i in range(architecture.blocks):
        scale, shift = np.split(linear(w, f"blocks.{i}.modulation", e), 2, axis=1)
        r = linear(w, f"blocks.{i}.first", layer_norm(w, f"blocks.{i}.norm", h))
        h = h + linear(w, f"blocks.{i}.second", silu(r * (1 + scale) + shift))
    return linear(w, "head", layer_norm(w, "norm", h)).reshape(x.shape)


def test_the_mlp_computes_what_the_architecture_says():
    architecture = ResidualMLP((2, 3), width=8, blocks=2, classes=4, features=10)
    w = weights_without_zeros(architecture)
    x, c_noise, label = data(architecture, dtype="float64"), np.linspace(-1, 2, 6), np.array([0, 1, 2, 3, 1, 0])
    net = BACKEND.network(architecture, w, dtype="float64")
    got = net(*(torch.from_numpy(a) for a in (x, c_noise, label)))
    np.testing.assert_allclose(BACKEND.to_numpy(got), mlp_by_hand(architecture, w, x, c_noise, label), rtol=1e-12)


def test_the_mlp_of_two_times_computes_what_the_architecture_says():
    architecture = ResidualMLP((2, 3), width=8, blocks=2, classes=4, features=10, two_times=True, log_weight=True)
    w = weights_without_zeros(architecture)
    x, label = data(architecture, dtype="float64"), np.array([0, -1, 2, 3, -4, 0])
    c_noise, c_end = np.linspace(-1, 2, 6), np.linspace(1, -3, 6)
    net = BACKEND.network(architecture, w, dtype="float64")
    got = net(*(torch.from_numpy(a) for a in (x, c_noise, label, c_end)))
    expected = mlp_by_hand(architecture, w, x, c_noise, label, c_end)
    np.testing.assert_allclose(BACKEND.to_numpy(got), expected, rtol=1e-12)
    phi = np.concatenate([features_by_hand(architecture, c) for c in (c_noise, c_end)], axis=1)
    got = net.log_weight(torch.from_numpy(c_noise), torch.from_numpy(c_end))
    np.testing.assert_allclose(BACKEND.to_numpy(got), linear(w, "log_weight", phi)[:, 0], rtol=1e-12)


def test_the_network_keeps_no_memory_of_the_arrays_it_was_given():
    w = {name: value.astype("float32") for name, value in weights_without_zeros(MLP).items()}
    net = BACKEND.network(MLP, w)
    w["head.bias"][:] = 7.0
    assert not (net.head.bias == 7.0).any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("head.bias"), "lack 'head.bias'"),
        (lambda w: w.update(more=np.zeros(1)), "no weight named 'more'"),
        (lambda w: w.update({"head.bias": np.zeros(3)}), "'head.bias' has shape"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, sentence):
    w = weights_without_zeros(MLP)
    change(w)
    with pytest.raises(ValueError, match=sentence):
        BACKEND.network(MLP, w)


def test_the_network_says_what_it_expects():
    net, x = BACKEND.network(MLP), torch.zeros(2, 4)
    labelled = BACKEND.network(ResidualMLP((4,), width=8, blocks=1, classes=3))
    with pytest.raises(ValueError, match="takes no label"):
        net(x, torch.zeros(2), label=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="needs a label"):
        labelled(x, torch.zeros(2))
    with pytest.raises(ValueError, match=r"x of shape \(B, 4,\)"):
        net(torch.zeros(2, 5), torch.zeros(2))
    with pytest.raises(ValueError, match=r"c_noise of shape \(2,\)"):
        net(x, torch.zeros(()))


# Placement, randomness, derivatives


def test_an_unknown_device_is_a_sentence():
    with pytest.raises(ValueError, match="no device 'gpu7' for torch here; choose one of cpu"):
        BACKEND.on("gpu7")
    assert BACKEND.on("cpu") == BACKEND.on(None) == BACKEND


def test_asarray_takes_any_host_array():
    read_only = np.arange(3.0)
    read_only.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for host in (read_only, np.arange(3.0)[::-1][::-1], np.arange(3.0).astype(">f8"), [0.0, 1.0, 2.0]):
            np.testing.assert_array_equal(BACKEND.to_numpy(BACKEND.asarray(host)), [0, 1, 2])
    assert BACKEND.asarray(np.arange(3)[::-1]).tolist() == [2, 1, 0]
    assert BACKEND.asarray(1.5).dtype == torch.float32
    assert BACKEND.asarray([1, 2], "float64").dtype == torch.float64
    with pytest.raises(ValueError, match="no dtype 'float33'"):
        BACKEND.asarray(1.0, "float33")


def test_to_numpy_is_a_copy():
    x = torch.zeros(2)
    BACKEND.to_numpy(x)[:] = 1
    assert x.tolist() == [0, 0]


def test_streams_are_reproducible_and_distinct():
    def numbers(seed, index):
        stream = BACKEND.stream(seed, index)
        return (*stream.normal((3,)).tolist(), *stream.uniform((3,), "float64").tolist())

    assert numbers(1, 2) == numbers(1, 2)
    assert len({numbers(seed, index) for seed in range(20) for index in range(20)}) == 400
    first = BACKEND.stream(1).normal((1000,))
    assert abs(float(torch.corrcoef(torch.stack([first, BACKEND.stream(2).normal((1000,))]))[0, 1])) < 0.15
    with pytest.raises(ValueError, match="cannot be negative"):
        BACKEND.stream(-1)


def test_a_long_run_never_repeats_its_noise():
    # torch's CPU generator keeps 32 bits of its seed: random ones would collide about ten times here.
    assert len({_mix(5, index) & 0xFFFFFFFF for index in range(300_000)}) == 300_000
    assert _mix(5, 0) != _mix(5, 2**32)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    take_steps(make_trainer(), range(2))
    BACKEND.stream(0).normal((3,))
    assert torch.equal(before, torch.get_rng_state())


def test_value_and_grad_names_every_parameter():
    net = torch.nn.ModuleDict({"used": torch.nn.Linear(2, 1), "idle": torch.nn.Linear(2, 1)})
    x = torch.tensor([[1.0, 2.0]])
    value, gradients = BACKEND.value_and_grad(lambda net, x: net["used"](x).sum() * 3)(net, x)
    assert not value.requires_grad
    assert gradients["used.weight"].tolist() == [[3.0, 6.0]]
    assert gradients["idle.weight"].tolist() == [[0.0, 0.0]]
    assert gradients.keys() == dict(net.named_parameters()).keys()
    constant, none = BACKEND.value_and_grad(lambda net, x: x.sum())(net, x)
    assert (float(constant), float(none["used.bias"])) == (3.0, 0.0)
    with pytest.raises(ValueError, match="0-d"):
        BACKEND.value_and_grad(lambda net, x: net["used"](x))(net, x)


def test_the_derivative_along_a_tangent_can_be_differentiated():
    x, v = torch.tensor([0.3], dtype=torch.float64, requires_grad=True), torch.ones(1, dtype=torch.float64)
    y, dy = BACKEND.jvp(torch.sin, (x,), (v,))
    (second,) = torch.autograd.grad(dy.sum(), x)
    np.testing.assert_allclose([y.item(), dy.item(), second.item()], [np.sin(0.3), np.cos(0.3), -np.sin(0.3)])


@pytest.mark.parametrize("architecture", [MLP, CONV])
def test_the_gradient_of_a_networks_derivative_is_that_of_its_finite_difference(architecture):
    net = BACKEND.network(architecture, weights_without_zeros(architecture), dtype="float64")
    x, v = torch.from_numpy(data(architecture, dtype="float64")).chunk(2)
    t = torch.linspace(-1, 1, 3, dtype=torch.float64)

    def exact(net):
        return (BACKEND.jvp(lambda x: net(x, t), (x,), (v,))[1] ** 2).mean()

    def difference(net, h=1e-4):
        return (((net(x + h * v, t) - net(x - h * v, t)) / (2 * h)) ** 2).mean()

    one, two = (BACKEND.value_and_grad(loss)(net)[1] for loss in (exact, difference))
    scale = float(two["stem.weight"].abs().max())
    for name in architecture.layout():
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=1e-6 * scale, err_msg=name)


# Compilation


def towards_the_tangent(nets, x0, z, tau, scalars, cond):
    """F moved towards F - dF, weighted by a learned weight: what continuous-time methods have in common."""
    net, sides = nets["online"], (1,) * (x0.ndim - 1)
    x = x0 + tau.reshape(-1, *sides) * z
    out, tangent = cm.jvp(lambda x, c: net(x, c, c_end=0.5 * tau), (x, tau), (z, torch.ones_like(tau)))
    error = torch.mean((out - (out - tangent).detach()) ** 2, dim=tuple(range(1, x0.ndim)))
    w = net.log_weight(tau, 0.5 * tau)
    return torch.exp(w) * error - w


@pytest.mark.slow
def test_a_loss_with_a_derivative_compiles_as_one_graph():
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    # One level: each more is half a minute of the compiler.
    architecture = dataclasses.replace(CONV, multipliers=(1,), two_times=True, log_weight=True)
    net = BACKEND.network(architecture, weights_without_zeros(architecture), dtype="float64")
    compiled, eager = (
        cm.Trainer(BACKEND, net, cm.TrainSpec(towards_the_tangent, Optimizer("adam"), seed=3, compiled=c))
        for c in (True, False)
    )
    cm.backend.registry.owners.forget()  # as in a new process
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # what a fallback to eager execution would give
        for i in range(3):
            batch = data(architecture, dtype="float64")
            one, two = (float(t.step(i, batch, scalars_at(i))) for t in (compiled, eager))
            np.testing.assert_allclose(one, two, rtol=1e-9)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    one, two = compiled.weights("online"), eager.weights("online")
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-6, atol=1e-9, err_msg=name)
        assert not np.array_equal(one[name], BACKEND.weights(net)[name]), name


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning")
def test_the_mathematics_is_traced_as_one_graph():
    @torch.compile(fullgraph=True, backend="eager")
    def f(x):
        return cm.stop_gradient(cm.namespace(x).exp(x)) * x

    x = torch.tensor([0.5], requires_grad=True)
    f(x).sum().backward()
    np.testing.assert_allclose(x.grad, np.exp(0.5), rtol=1e-6)


def test_the_first_failing_compilation_makes_it_eager_and_says_so_once(monkeypatch):
    attempts = []

    def broken(f, **_):
        def run(*args):
            attempts.append(args)
            raise RuntimeError("no compiler")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    compiling._warn_once.cache_clear()
    f = BACKEND.compile(lambda x: x + 1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert [float(f(torch.tensor(1.0))) for _ in range(3)] == [2.0, 2.0, 2.0]
        assert float(BACKEND.compile(lambda x: x + 2)(torch.tensor(1.0))) == 3.0
    (warning,) = said
    assert re.match(r"torch.compile failed \(no compiler\), so this runs eagerly", str(warning.message))
    assert len(attempts) == 2


def test_the_ninth_function_of_one_definition_is_compiled_too(monkeypatch):
    """torch gives up after eight compilations of one code object."""
    real, seen = torch.compile, []

    def spy(graph, inputs):
        seen.append(1)
        return graph

    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend=spy, **options))
    for i in range(12):
        assert float(BACKEND.compile(lambda x, i=i: x + i)(torch.tensor(1.0))) == 1.0 + i
    assert len(seen) == 12


def test_where_torch_cannot_compile_at_all_it_is_eager(monkeypatch):
    def unsupported(f, **_):
        raise RuntimeError("torch.compile is not supported on this platform")

    monkeypatch.setattr(torch, "compile", unsupported)
    compiling._warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="not supported on this platform"):
        f = BACKEND.compile(lambda x: x + 1)
    assert float(f(torch.tensor(1.0))) == 2.0


def test_a_mistake_in_the_callers_code_passes_through_and_compilation_goes_on(monkeypatch):
    def f(x):
        if x.shape[0] == 3:
            raise ValueError("three is too many")
        return x @ torch.ones(2)

    real, compiled_calls = torch.compile, []

    def counting(f, **settings):
        compiled = real(f, **settings)
        return lambda x: compiled_calls.append(len(x)) or compiled(x)

    monkeypatch.setattr(torch, "compile", counting)
    compiled = BACKEND.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(ValueError, match="three is too many"):
            compiled(torch.ones(3))
        with pytest.raises(RuntimeError, match=r"size|shape"):
            compiled(torch.ones(5))
        assert float(compiled(torch.ones(2))) == 2.0
    assert compiled_calls == [3, 5, 2]


MISSING_COMPILER = """
    import warnings, numpy as np
    from cmcore.networks import ResidualMLP
    from cmcore import Trainer, TrainSpec
    from cmcore_torch import BACKEND

    def loss(nets, x0, z, tau, scalars, cond):
        return ((nets["online"](x0 + z, tau) - x0) ** 2).mean(1)

    net = BACKEND.network(ResidualMLP((4,), width=8, blocks=1))
    trainers = [Trainer(BACKEND, net, TrainSpec(loss, compiled=c)) for c in (True, False)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for trainer in trainers:
            for i in range(3):
                trainer.step(i, np.ones((2, 4), np.float32), {"lr": 0.1, "ema_decay": 0.5})
    assert [w.category for w in said] == [RuntimeWarning], [str(w.message) for w in said]
    assert "C++ compiler" in str(said[0].message)
    a, b = (trainer.weights() for trainer in trainers)
    assert all((a[name] == b[name]).all() for name in a)
"""


@pytest.mark.slow
def test_training_works_without_a_compiler(tmp_path):
    env = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(MISSING_COMPILER)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


# Training


# The optimiser is not part of what is compiled: of the compiled ones, one is enough.
@pytest.mark.parametrize(
    ("algorithm", "keep_target", "compiled"),
    [(a, target, False) for a in ("radam", "adam", "adamw") for target in (False, True)]
    + [pytest.param("adamw", True, True, marks=pytest.mark.slow)],
)
def test_a_restored_trainer_continues_bit_for_bit(algorithm, keep_target, compiled):
    def new():
        return make_trainer(algorithm, keep_target=keep_target, compiled=compiled, clip=1.0)

    straight, before, after = new(), new(), new()
    losses = take_steps(straight, range(10))
    assert take_steps(before, range(5)) == losses[:5]
    take_steps(after, range(2))
    state = before.state()
    after.restore(state)
    kept = {name: value.copy() for name, value in state.items()}
    assert take_steps(after, range(5, 10)) == losses[5:]
    assert_equal(after.state(), straight.state())
    assert_equal(state, kept)
    assert losses[9] != losses[8]


def test_a_fresh_state_restores_a_used_trainer():
    fresh, used = make_trainer(), make_trainer()
    take_steps(used, range(3))
    used.restore(fresh.state())
    assert take_steps(used, range(3)) == take_steps(fresh, range(3))
    assert_equal(used.state(), fresh.state())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("ema/head.bias"), "'ema/head.bias' is missing"),
        (lambda s: s.pop("optimizer/head.bias/exp_avg"), "'optimizer/head.bias/exp_avg' is missing"),
        (lambda s: s.update({"target/head.bias": np.zeros(4)}), "'target/head.bias' is unknown"),
        (lambda s: s.update({"optimizer/head.bias/exp_avg": np.zeros(5)}), "shape"),
        (lambda s: s.update({"online/head.bias": np.zeros(5)}), "shape"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(change, sentence):
    trainer = make_trainer()
    take_steps(trainer, range(2))
    state, before = trainer.state(), trainer.state()
    change(state)
    with pytest.raises(ValueError, match=sentence):
        trainer.restore(state)
    assert_equal(trainer.state(), before)


@pytest.mark.slow
def test_changing_scalars_never_recompile():
    torch._dynamo.reset()
    trainer = make_trainer(compiled=True, keep_target=True)
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    take_steps(trainer, range(1))
    assert not graphs["unique_graphs"]  # the first step, which shows what fails, is taken as it is
    take_steps(trainer, range(1, 2))
    assert graphs["unique_graphs"] == 1
    with torch.compiler.set_stance("fail_on_recompile"):
        take_steps(trainer, range(2, 6))
    assert graphs["unique_graphs"] == 1


BY_HAND = {
    "radam": lambda p: torch.optim.RAdam(p, lr=0.0, foreach=False),
    "adam": lambda p: torch.optim.Adam(p, lr=0.0, foreach=False, fused=False),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.0, weight_decay=0.0, foreach=False, fused=False),
}


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("algorithm", BY_HAND)
def test_a_step_is_the_step_by_hand(algorithm, clip):
    trainer = make_trainer(algorithm, "float64", keep_target=True, clip=clip)
    net, target = (BACKEND.network(MLP, weights_without_zeros(MLP), dtype="float64") for _ in range(2))
    ema = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = BY_HAND[algorithm](list(net.parameters()))
    x0 = torch.from_numpy(data(dtype="float64"))
    for i in range(8):
        s = scalars_at(i)
        stream = BACKEND.stream(3, i)
        z, tau = stream.normal(x0.shape, "float64"), stream.uniform((6,), "float64")
        value = regression({"online": net, "target": target}, x0, z, tau, s, {}).mean()
        gradients = torch.autograd.grad(value, list(net.parameters()))
        norm = float(torch.sqrt(sum((g**2).sum() for g in gradients)))
        assert norm > 0.05
        factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        for p, g in zip(net.parameters(), gradients, strict=True):
            p.grad = factor * g
        optimizer.param_groups[0]["lr"] = s["lr"]
        optimizer.step()
        with torch.no_grad():
            for name, p in net.named_parameters():
                ema[name] = s["ema_decay"] * ema[name] + (1 - s["ema_decay"]) * p
                old = target.get_parameter(name)
                old.copy_(s["target_decay"] * old + (1 - s["target_decay"]) * p)
        np.testing.assert_allclose(float(trainer.step(i, data(dtype="float64"), s)), float(value.detach()), rtol=1e-10)
    state = trainer.state()
    for name, p in net.named_parameters():
        for kind, expected in (("online", p), ("ema", ema[name]), ("target", target.get_parameter(name))):
            np.testing.assert_allclose(state[f"{kind}/{name}"], expected.detach(), rtol=1e-9, atol=1e-12)
    assert_equal(trainer.weights("online"), {n: state[f"online/{n}"] for n in MLP.layout()})
    assert_equal(trainer.weights(), {n: state[f"ema/{n}"] for n in MLP.layout()})


def test_weight_decay_reaches_adamw():
    net = BACKEND.network(MLP, weights_without_zeros(MLP))
    settings = Optimizer("adamw", weight_decay=0.5)
    spec = cm.TrainSpec(lambda nets, x0, *_: 0 * nets["online"](x0, x0[:, 0]).mean(1), settings, compiled=False)
    trainer = cm.Trainer(BACKEND, net, spec)
    trainer.step(0, data(), {"lr": 0.1, "ema_decay": 0.0})
    np.testing.assert_allclose(trainer.weights("online")["stem.weight"], 0.95 * net.stem.weight.detach(), rtol=1e-6)


def test_the_loss_is_given_what_the_contract_says():
    seen = {}

    def loss(nets, x0, z, tau, scalars, cond):
        seen.update(nets=nets, z=z, tau=tau, scalars=scalars, cond=cond)
        return nets["online"](x0, tau).mean(1)

    teacher = BACKEND.network(MLP).train()
    trainer = make_trainer(loss=loss, tau="normal", frozen={"teacher": teacher, "oracle": torch.sin})
    value = trainer.step(4, data(), scalars_at(4), {"label": np.arange(6)})
    assert value.ndim == 0
    assert not value.requires_grad
    stream = BACKEND.stream(3, 4)
    assert torch.equal(seen["z"], stream.normal((6, 4)))
    assert torch.equal(seen["tau"], stream.normal((6,)))
    assert {name: (s.ndim, s.dtype) for name, s in seen["scalars"].items()} == dict.fromkeys(
        scalars_at(4), (0, torch.float32)
    )
    assert seen["cond"]["label"].tolist() == list(range(6))
    nets = seen["nets"]
    assert nets["target"] is nets["online"]
    assert nets["online"].training
    assert nets["oracle"] is torch.sin
    assert not nets["teacher"].training
    assert not any(p.requires_grad for p in nets["teacher"].parameters())
    assert teacher.training
    assert all(p.requires_grad for p in teacher.parameters())


def test_training_leaves_the_given_networks_alone_even_if_they_are_one():
    net = BACKEND.network(MLP, weights_without_zeros(MLP))
    before = BACKEND.weights(net)

    def loss(nets, x0, z, tau, scalars, cond):
        return (nets["teacher"](nets["online"](x0, tau), tau) ** 2).mean(1)

    trainer = make_trainer(loss=loss, net=net, frozen={"teacher": net})
    take_steps(trainer, range(2))
    assert_equal(BACKEND.weights(net), before)
    assert all(p.grad is None for p in net.parameters())
    # The gradient has come through the frozen teacher.
    assert not np.array_equal(trainer.weights("online")["stem.weight"], before["stem.weight"])


def test_bad_settings_and_data_are_sentences():
    with pytest.raises(ValueError, match="Unknown distribution of tau 'cauchy'"):
        make_trainer(tau="cauchy")
    with pytest.raises(ValueError, match="cannot be named 'target'"):
        make_trainer(frozen={"target": torch.sin})
    with pytest.raises(TypeError, match=r"trains an nn\.Module"):
        make_trainer(net=torch.sin)
    trainer = make_trainer(keep_target=True)
    with pytest.raises(ValueError, match="needs the scalar 'target_decay'; it got lr, ema_decay"):
        trainer.step(0, data(), {"lr": 0.1, "ema_decay": 0.9})
    with pytest.raises(ValueError, match="floating-point"):
        trainer.step(0, np.zeros((2, 4), np.uint8), scalars_at(0))
    with pytest.raises(ValueError, match="Unknown kind of weights 'best'"):
        trainer.weights("best")


@pytest.mark.parametrize("compute", [None, "bfloat16"])
def test_without_gradients_numbers_are_the_same_from_weights_laid_out_anew(compute):
    weights = weights_without_zeros(CONV)
    net, plain = (BACKEND.network(CONV, weights, compute=compute) for _ in range(2))
    f = BACKEND.without_gradients(net)
    x, t = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.2, 0.3])
    found = f(x, t)
    assert not found.requires_grad
    torch.testing.assert_close(found, plain(x, t).detach(), rtol=1e-5, atol=1e-5)
    laid_out = [p.is_contiguous(memory_format=torch.channels_last) for p in net.parameters() if p.ndim == 4]
    assert all(laid_out) if compute is None else not all(laid_out)
    assert_equal(BACKEND.weights(net), BACKEND.weights(plain))
