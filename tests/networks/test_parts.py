"""What a part may be made of, and what it becomes: mistakes are sentences, frameworks find their own kinds of modules."""

import copy
import pickle
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conftest import CHOSEN
from networks.own import EveryLayer

import cmcore as cm
from cmcore.networks import Architecture, LayerNorm, Linear, Part
from cmcore.networks.part import RESERVED

every = pytest.mark.parametrize("name", CHOSEN)
X, T, LABEL = np.zeros((2, 2, 4, 4), np.float32), np.zeros(2, np.float32), np.zeros(2, np.int32)


class Plain(Part):
    def __init__(self, **attributes):
        self.linear = Linear(2, 2)
        vars(self).update(attributes)

    def __call__(self, x, c_noise):
        return self.linear(x)

    def helper(self):
        return 1


class WithSuper(Plain):
    def helper(self):
        return super().helper()


class WithSuperProperty(Plain):
    @property
    def wide(self):
        return super().helper()


class WithReservedMethod(Plain):
    def train(self):
        return 1


class Uncallable(Part):
    def __init__(self):
        self.linear = Linear(2, 2)


@dataclass(frozen=True)
class Made(Architecture):
    make: Any
    shape: tuple[int, ...] = (2,)

    kind = "made"

    def part(self):
        return self.make()


@every
def test_one_object_in_two_places_is_refused(name):
    block, linear = Uncallable(), Linear(2, 2)
    for shared in ({"blocks": [block] * 2}, {"one": linear, "other": {"a": linear}}):
        with pytest.raises(
            TypeError, match=r"is the same object as '(blocks\.0|one)'; give each place a part of its own"
        ):
            cm.load(name).network(Made(lambda shared=shared: Plain(**shared)))


@every
@pytest.mark.parametrize(
    "reserved", ["half", "double", "type", "train", "forward", "training", "parameters", "_modules"]
)
def test_reserved_names_are_refused(name, reserved):
    with pytest.raises(TypeError, match=rf"'{reserved}' has a name of frameworks' modules; choose another"):
        cm.load(name).network(Made(lambda: Plain(**{reserved: 1})))


@every
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Plain(a=np.zeros(2)), r"'a' of a part is of type ndarray.*belongs into a Weight"),
        (lambda: Plain(a=abs), "is of type builtin_function_or_method.*a function into a method"),
        (lambda: Plain(a={1.0, 2.0}), "is of type set"),
        (lambda: Plain(a={"b.c": Linear(2, 2)}), r"the key 'b\.c'; keys are names without dots"),
        (lambda: Plain(a={0: Linear(2, 2)}), "the key 0; keys are names"),
        (lambda: Plain(a={"keys": Linear(2, 2)}), "'keys' of the dict 'a' is a name of frameworks' modules"),
        (lambda: Plain(a=[Linear(2, 2), [np.zeros(1)]]), r"'a\.1' of a part"),
        (lambda: Plain(helper=3), "'helper' has a name of Plain's methods"),
        (lambda: Plain(halves=3), "'halves' has a name of Plain's methods"),
        (WithSuper, r"WithSuper\.helper uses super\(\)"),
        (WithSuperProperty, r"WithSuperProperty\.wide uses super\(\)"),
        (WithReservedMethod, r"WithReservedMethod\.train has a name of frameworks' modules"),
        (Uncallable, "Part with a method __call__, got Uncallable"),
        (lambda: LayerNorm(2), "Part with a method __call__, got LayerNorm"),
    ],
)
def test_mistakes_are_sentences_when_the_network_is_built(name, make, sentence):
    with pytest.raises(TypeError, match=sentence):
        cm.load(name).network(Made(make))


def test_all_of_torchs_names_are_reserved():
    torch = pytest.importorskip("torch")
    assert {n for n in dir(torch.nn.Module()) if not n.startswith("__")} <= RESERVED


def test_descriptions_compute_nothing_and_settings_are_dataclasses():
    with pytest.raises(TypeError, match=r"describes a layer and computes nothing.*backend\.network\(architecture\)"):
        Plain()(X, T)

    class Forgotten(Architecture):
        def part(self):
            return Plain()

    with pytest.raises(TypeError, match=r"write @dataclass\(frozen=True\) above Forgotten"):
        Forgotten(shape=(2,))
    assert EveryLayer(shape=[2, 4, 4]) == EveryLayer(shape=(2, 4, 4))


@every
def test_a_mistyped_condition_is_a_type_error(name):
    backend = cm.load(name)
    x, t, label = map(backend.asarray, (X, T, LABEL))
    with pytest.raises(TypeError, match="lable"):
        backend.network(EveryLayer())(x, t, lable=label)


def test_torch_has_real_modules():
    torch = pytest.importorskip("torch")
    net = cm.load("torch").network(EveryLayer())
    assert [n for n, _ in net.named_children()][:4] == ["phi", "time", "silu", "log_weight"]
    assert list(net.qkv) == ["q", "k", "v"]
    assert net.state_dict().keys() == EveryLayer().layout().keys()
    args, seen = (torch.randn(2, 2, 4, 4), torch.zeros(2), torch.zeros(2, dtype=torch.int32)), []
    net.qkv["k"].register_forward_hook(lambda module, inputs, out: seen.append(tuple(out.shape)))
    before = net(*args)
    assert seen == [(2, 4, 4)]

    class Twice(torch.nn.Module):
        def forward(self, w):
            return 2 * w

    torch.nn.utils.parametrize.register_parametrization(net.qkv["q"], "weight", Twice())
    assert not torch.equal(net(*args), before)

    class LoRA(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear, n = linear.requires_grad_(False), linear.weight.shape[0]
            self.a, self.b = torch.nn.Parameter(torch.randn(2, n)), torch.nn.Parameter(torch.ones(n, 2))

        def forward(self, x):
            return self.linear(x) + x @ self.a.T @ self.b.T

    other = cm.load("torch").network(EveryLayer())
    other.qkv["v"] = LoRA(other.qkv["v"])
    assert not torch.equal(other(*args), before)
    assert {"qkv.v.a", "qkv.v.linear.weight"} <= other.state_dict().keys()


def test_tinygrads_state_dict_walks():
    pytest.importorskip("tinygrad")
    from tinygrad.nn.state import get_state_dict

    state = get_state_dict(cm.load("tinygrad").network(EveryLayer()))
    assert {n: tuple(t.shape) for n, t in state.items()} == EveryLayer().layout()


def test_jaxs_tree_paths_are_the_layout_in_its_order():
    jax = pytest.importorskip("jax")
    import equinox

    net = cm.load("jax").network(EveryLayer())
    paths = [jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in jax.tree.leaves_with_path(net)]
    assert paths == list(EveryLayer().layout())
    assert isinstance(net, equinox.Module)
    assert list(net.qkv) == list(jax.tree.map(lambda a: a, net).qkv) == ["q", "k", "v"]


@pytest.mark.parametrize("name", [n for n in CHOSEN if n in ("torch", "jax")])
def test_computing_in_bfloat16_keeps_weights_and_outputs_in_float32_and_trains(name):
    backend, architecture = cm.load(name), cm.networks.ResidualMLP((3,), width=16, blocks=1, features=6)
    rng = np.random.default_rng(0)
    weights = {n: 0.3 * rng.standard_normal(s) for n, s in architecture.layout().items()}
    net, plain = backend.network(architecture, weights, compute="bfloat16"), backend.network(architecture, weights)
    x, t = (backend.asarray(rng.standard_normal(s).astype(np.float32)) for s in ((32, 3), (32,)))
    out, expected = net(x, t), plain(x, t)
    assert out.dtype == expected.dtype == x.dtype
    assert all(w.dtype == np.float32 for w in backend.weights(net).values())
    out, expected = map(backend.to_numpy, (backend.stop_gradient(out), backend.stop_gradient(expected)))
    assert 0 < np.abs(out - expected).max() < 2e-2 * np.abs(expected).max()

    def loss(nets, x0, z, tau, scalars, cond):
        return backend.xp.mean((nets["online"](x0, 0 * tau) - x0) ** 2, axis=1)

    trainer = cm.Trainer(backend, net, cm.TrainSpec(loss, compiled=name != "torch"))
    losses = [float(trainer.step(k, x, {"lr": 1e-2, "ema_decay": 0.9})) for k in range(60)]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", [n for n in CHOSEN if n in ("torch", "jax")])
def test_recomputing_gives_the_same_numbers(name):
    backend, architecture = cm.load(name), cm.networks.ResidualMLP((3,), width=8, blocks=2, features=4)
    rng = np.random.default_rng(0)
    weights = {n: 0.3 * rng.standard_normal(s) for n, s in architecture.layout().items()}
    x, t = (backend.asarray(rng.standard_normal(s).astype(np.float32)) for s in ((2, 3), (2,)))
    nets = [backend.network(architecture, weights, recompute=again) for again in (False, True)]
    counts = []
    if name == "torch":
        for net in nets:
            count = []
            net.blocks[0].first.register_forward_hook(lambda *_, count=count: count.append(1))
            counts.append(count)
    found = [backend.value_and_grad(lambda n: backend.xp.mean(n(x, t) ** 2))(net) for net in nets]
    assert float(found[0][0]) == float(found[1][0])
    for n, g in found[0][1].items():
        np.testing.assert_allclose(backend.to_numpy(found[1][1][n]), backend.to_numpy(g), rtol=1e-5, atol=1e-7)
    assert [len(c) for c in counts] == ([1, 2] if name == "torch" else [])


def test_tinygrad_says_that_it_decides_itself_what_to_recompute():
    pytest.importorskip("tinygrad")
    with pytest.raises(cm.Error, match="decides by itself what the backward pass computes again"):
        cm.load("tinygrad").network(EveryLayer(), recompute=True)


class OwnTokens(Plain):
    def tokens(self, x):
        return 2 * x


class OwnLinear(Linear):
    """A layer that no backend knows."""


@every
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (OwnTokens, r"OwnTokens\.tokens has the name of a function of cmcore\.networks\.Part"),
        (lambda: Plain(own=OwnLinear(2, 2)), "'own' is a OwnLinear, which no backend knows"),
        (lambda: Plain(sizes=[1, 2]), r"The list 'sizes' of a part holds a int"),
        (lambda: Plain(mixed=(0.5, Linear(2, 2))), r"The tuple 'mixed' of a part holds a float"),
        (lambda: Plain(settings={"a": 1}), r"The dict 'settings' of a part holds a int"),
    ],
)
def test_what_one_framework_alone_would_take_is_refused_by_all(name, make, sentence):
    with pytest.raises(TypeError, match=sentence):
        cm.load(name).network(Made(make))


def test_layers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="8 channels cannot be divided into 32 groups"):
        cm.networks.GroupNorm(8)
    with pytest.raises(ValueError, match="odd size, got 2"):
        cm.networks.Conv(1, 1, kernel=2)


@every
@pytest.mark.parametrize("norm", [LayerNorm(1), cm.networks.GroupNorm(1, groups=1)], ids=["layer", "group"])
def test_a_norm_of_other_channels_is_refused(name, norm):
    backend = cm.load(name)
    net = backend.network(Made(lambda: Normed(norm)))
    x = backend.asarray(np.zeros((2, 2) if isinstance(norm, LayerNorm) else (2, 2, 4, 4), np.float32))
    with pytest.raises(ValueError, match="A norm of 1 channels was given 2"):
        net(x, backend.asarray(T))


class Normed(Part):
    def __init__(self, norm):
        self.norm = norm

    def __call__(self, x, c_noise):
        return self.leave(self.norm(self.enter(x))) if x.ndim == 4 else self.norm(x)


@every
@pytest.mark.parametrize(
    "settings", [{}, {"recompute": True}, {"compute": "float32"}], ids=["plain", "again", "compute"]
)
def test_native_networks_are_pickled_and_copied(name, settings):
    backend = cm.load(name)
    if name == "tinygrad" and "recompute" in settings:
        pytest.skip("tinygrad has no recompute")
    architecture = cm.networks.ResidualMLP((2,), width=8, blocks=1, classes=2, log_weight=True)
    net = backend.network(architecture, seed=1, **settings)
    args = [backend.asarray(a) for a in (np.ones((2, 2), np.float32), T, np.array([0, 1], np.int32))]
    expected = backend.to_numpy(net(*args))
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert type(other) is type(net)
        np.testing.assert_array_equal(backend.to_numpy(other(*args)), expected)
        assert backend.weights(other).keys() == architecture.layout().keys()


@every
def test_a_label_beyond_the_classes_is_no_class(name):
    backend = cm.load(name)
    net = backend.network(cm.networks.ResidualMLP((2,), width=8, blocks=1, classes=2), dtype="float32")
    row = backend.to_numpy(net.label(backend.asarray(np.array([1, 2, 7, -1], np.int32))))
    assert row[0].any()
    assert not row[1:].any()


@every
def test_what_a_backend_cannot_compute_in_is_a_sentence(name):
    backend = cm.load(name)
    architecture = cm.networks.ResidualMLP((2,), width=8, blocks=1)
    with pytest.raises(cm.Error, match=r"cannot compute in 'float33'; did you mean 'float32'. It has .*float32"):
        backend.network(architecture, compute="float33")


CLASSY = {
    "mlp": cm.networks.ResidualMLP((1, 4, 4), width=8, blocks=1, features=2, classes=3),
    "conv": cm.networks.ResidualConv((1, 4, 4), width=8, blocks=1, features=2, multipliers=(1,), classes=3),
    "unet": cm.networks.UNet((1, 4, 4), width=8, blocks=1, multipliers=(1,), attention=(), classes=3),
    "dit": cm.networks.DiT((1, 4, 4), width=8, blocks=1, heads=1, patch=2, classes=3),
}
WRONG_LABELS = {
    "floats": (np.zeros(2, np.float32), "label, (B,) integers below 3, got"),
    "booleans": (np.zeros(2, bool), "label, (B,) integers below 3, got"),
    "a column": (np.zeros((2, 1), np.int32), "label of shape (2,), one a sample, got (2, 1)"),
    "one-hot": (np.eye(3, dtype=np.int32)[:2], "label of shape (2,), one a sample, got (2, 3)"),
    "too many": (np.zeros(3, np.int32), "label of shape (2,), one a sample, got (3,)"),
    "a single one": (np.array(1, np.int32), "label of shape (2,), one a sample, got ()"),
    "beyond": (np.array([0, 3], np.int32), "classes are 0 to 2, or negative for none; got the label 3"),
}


@every
@pytest.mark.parametrize("kind", CLASSY)
def test_labels_that_are_no_classes_are_told(name, kind):
    if name == "tinygrad" and kind != "mlp":
        pytest.skip("the check is the same for each network")
    backend = cm.load(name)
    net = backend.network(CLASSY[kind])
    x, t = map(backend.asarray, (np.zeros((2, 1, 4, 4), np.float32), np.zeros(2, np.float32)))
    for label, told in WRONG_LABELS.values():
        if told.startswith("classes") and name != "numpy":
            continue  # not looked at
        with pytest.raises((TypeError, ValueError), match=re.escape(told)):
            net(x, t, label=backend.asarray(label))
    for dtype in ("int32", "int64", "uint8") if name == "numpy" else ("int32",):
        got = net(x, t, label=backend.asarray(np.array([2, 0], dtype)))
        assert tuple(got.shape) == (2, 1, 4, 4)
    assert tuple(net(x, t, label=backend.asarray(np.array([-1, -1], np.int32))).shape) == (2, 1, 4, 4)
