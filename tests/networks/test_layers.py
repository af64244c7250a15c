"""Layers against sources that cmcore has no part in: torch's functions, scipy's softmax, EDM's filters."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conftest import CHOSEN
from scipy.special import softmax

import cmcore as cm
from cmcore.networks import Architecture, Attention, Conv, GroupNorm, LayerNorm, Part, Resample

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
IMAGES, TOKENS = RNG.standard_normal((2, 4, 6, 4)), RNG.standard_normal((2, 5, 4))


@dataclass(frozen=True)
class One(Architecture):
    """A network of one layer, given images or tokens."""

    layer: Any
    shape: tuple[int, ...] = (4,)
    images: bool = False

    kind = "one"

    def part(self):
        return OneLayer(self.layer, self.images or isinstance(self.layer, (Conv, GroupNorm, Resample)))


class OneLayer(Part):
    def __init__(self, layer, images):
        self.layer, self.images = layer, images

    def __call__(self, x, *more):
        return self.leave(self.layer(self.enter(x), *more)) if self.images else self.layer(x, *more)


def made(layer, name, dtype="float64"):
    """The layer as a backend's network, and its weights."""
    rng = np.random.default_rng(1)
    weights = {n: rng.standard_normal(shape) for n, shape in One(layer).layout().items()}
    return cm.load(name).network(One(layer), weights, dtype=dtype), {
        n.removeprefix("layer."): w for n, w in weights.items()
    }


def same(layer, name, *inputs, expected):
    backend, (net, _) = cm.load(name), made(layer, name)
    got = backend.to_numpy(net(*(backend.asarray(x) for x in inputs)))
    np.testing.assert_allclose(got, np.asarray(expected), rtol=0, atol=1e-12 * np.abs(np.asarray(expected)).max())


every = pytest.mark.parametrize("name", CHOSEN)


@every
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_softmax_by_hand_and_torchs(name, heads):
    q, k, v = (t * 3 for t in RNG.standard_normal((3, 2, 5, 4)))
    by_hand = np.empty_like(v)
    for h in range(heads):
        own = slice(h * 4 // heads, (h + 1) * 4 // heads)
        scores = np.einsum("bqc,bkc->bqk", q[..., own], k[..., own]) / np.sqrt(4 // heads)
        by_hand[..., own] = softmax(scores, axis=-1) @ v[..., own]
    split = (torch.from_numpy(t).unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    torchs = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
    np.testing.assert_allclose(torchs, by_hand, rtol=1e-12, atol=1e-13)
    same(Attention(heads), name, q, k, v, expected=by_hand)


@every
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1), (1, 2, 5, 3, 2, 1), (1, 3)])
def test_resampling_is_edms_convolution(name, up, taps):
    kernel = np.outer(taps, taps) / np.sum(taps) ** 2
    weight = torch.from_numpy(kernel * (4 if up else 1)).expand(4, 1, -1, -1)
    pad, function = (len(taps) - 1) // 2, F.conv_transpose2d if up else F.conv2d
    expected = function(torch.from_numpy(IMAGES), weight, stride=2, padding=pad, groups=4)
    assert expected.shape[2:] == ((12, 8) if up else (3, 2))
    same(Resample(up, taps), name, IMAGES, expected=expected)


@every
@pytest.mark.parametrize(
    "layer", [Conv(4, 3), Conv(4, 2, kernel=1), Conv(4, 3, kernel=5), GroupNorm(4, 2), GroupNorm(4, 4)]
)
def test_layers_of_images_are_torchs(name, layer):
    w = {n: torch.from_numpy(value) for n, value in made(layer, name)[1].items()}
    x = torch.from_numpy(IMAGES)
    if isinstance(layer, Conv):
        expected = F.conv2d(x, w["weight"], w["bias"], padding=layer.kernel // 2)
    else:
        expected = F.group_norm(x, layer.groups, w["weight"], w["bias"], layer.eps)
    same(layer, name, IMAGES, expected=expected)


@every
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("x", [TOKENS, TOKENS[:, 0]], ids=["tokens", "rows"])
def test_layer_norm_is_torchs(name, affine, x):
    layer = LayerNorm(4, affine=affine)
    w = {n: torch.from_numpy(value) for n, value in made(layer, name)[1].items()}
    same(layer, name, x, expected=F.layer_norm(torch.from_numpy(x), (4,), w.get("weight"), w.get("bias"), layer.eps))


@pytest.mark.parametrize("channels", [4, 64])
def test_attentions_derivative_is_that_without_forward_mode(channels):
    (net, _), t = (
        made(Attention(2), "torch"),
        torch.from_numpy(np.random.default_rng(2).standard_normal((7, 2, 5, channels))),
    )
    primals, tangents, row = tuple(t[:3].requires_grad_()), tuple(t[3:6]), t[6]
    value, forward = torch.func.jvp(net, primals, tangents)
    fused = net(*primals)
    np.testing.assert_allclose(value.detach(), fused.detach(), rtol=1e-12, atol=1e-13)
    # The product of a row and the derivative, from the other side.
    gradients = torch.autograd.grad(torch.sum(row * fused), primals)
    reverse = sum(torch.sum(g * v) for g, v in zip(gradients, tangents, strict=True))
    np.testing.assert_allclose(torch.sum(row * forward).item(), reverse.item(), rtol=1e-11)


class Joined(Part):
    """What a part's functions of the order of axes say of images, rows and tokens."""

    def __call__(self, x, v, rows, tokens):
        h = self.enter(x)
        one, two = self.halves(h)
        first, second = self.halves(tokens)
        top, bottom = self.halves(rows)
        return (
            self.leave(self.concat(two, one)),
            self.leave(h * self.per_channel(v, h)),
            self.leave(self.untokens(2 * self.tokens(h), h)),
            self.tokens(h),
            self.concat(second, first),
            tokens * self.per_channel(v, tokens),
            self.concat(bottom, top),
        )


@dataclass(frozen=True)
class Joining(Architecture):
    shape: tuple[int, ...] = (4,)

    kind = "joining"

    def part(self):
        return Joined()


@every
def test_a_parts_functions_know_channels(name):
    backend, x, v, rows = cm.load(name), IMAGES, RNG.standard_normal((2, 4)), RNG.standard_normal((2, 6))
    net = backend.network(Joining(), dtype="float64")
    got = [backend.to_numpy(a) for a in net(*map(backend.asarray, (x, v, rows, TOKENS)))]
    expected = (
        np.roll(x, 2, axis=1),
        x * v[:, :, None, None],
        2 * x,
        x.reshape(2, 4, 24).transpose(0, 2, 1),
        np.roll(TOKENS, 2, axis=2),
        TOKENS * v[:, None, :],
        np.roll(rows, 3, axis=1),
    )
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif("jax" not in CHOSEN, reason="JAX does not take part")
def test_jax_computes_with_channels_last():
    import jax

    backend, (net, _) = cm.load("jax"), made(Conv(4, 3), "jax")
    (convolution,) = (
        e for e in jax.make_jaxpr(net)(backend.asarray(IMAGES)).eqns if e.primitive.name == "conv_general_dilated"
    )
    assert convolution.invars[0].aval.shape == (2, 6, 4, 4)
    assert convolution.params["dimension_numbers"].lhs_spec == (0, 3, 1, 2)
