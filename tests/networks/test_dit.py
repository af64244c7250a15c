"""The diffusion transformer against its authors' counts and names, and a computation of it in torch's functions."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore.networks import PRESETS, DiT, SineCosine, extend_weights

SMALL = DiT((2, 4, 6), width=8, blocks=2, heads=2, features=6, classes=3)
PUBLISHED = {
    "dit-s/2": 32_963_360,
    "dit-s/4": 32_945_024,
    "dit-s/8": 33_148_160,
    "dit-b/2": 130_512_416,
    "dit-b/4": 130_475_648,
    "dit-b/8": 130_881_536,
    "dit-l/2": 458_102_816,
    "dit-l/4": 458_053_760,
    "dit-l/8": 458_594_816,
    "dit-xl/2": 675_129_632,
    "dit-xl/4": 675_074_432,
    "dit-xl/8": 675_683_072,
}
"""Parameters of facebookresearch/DiT's models for latents of 4 x 32 x 32 and 1,000 classes."""


def count(architecture):
    return sum(math.prod(shape) for shape in architecture.layout().values())


def random(architecture, seed=0):
    rng = np.random.default_rng(seed)
    return {n: 0.4 * rng.standard_normal(shape) for n, shape in architecture.layout().items()}


def given(architecture, batch=3):
    rng = np.random.default_rng(1)
    x, c = rng.standard_normal((batch, *architecture.shape)), rng.uniform(-1.5, 1.1, batch)
    return x, c, np.array([2, -1, 0], np.int32)[:batch]


def output(name, architecture, weights, x, c, label=None, c_end=None, dtype="float64"):
    backend = cm.load(name)
    net = backend.network(architecture, weights, dtype=dtype)
    if name == "jax":  # which compiles each operation by itself otherwise
        net = backend.compile(net)
    cond = {} if label is None else {"label": backend.asarray(label)}
    cond |= {} if c_end is None else {"c_end": backend.asarray(c_end, dtype)}
    return backend.to_numpy(net(backend.asarray(x, dtype), backend.asarray(c, dtype), **cond))


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_authors(name):
    architecture = PRESETS[name](PRESETS[name].shape, PRESETS[name].classes)
    patch, width = architecture.patch, architecture.width
    # Theirs keep the fixed table of positions among the parameters and give a variance to each channel.
    positions, variances = (32 // patch) ** 2 * width, 4 * patch**2 * (width + 1)
    assert count(architecture) + positions + variances == PUBLISHED[name]
    assert count(replace(architecture, learned_positions=True)) + variances == PUBLISHED[name]


def test_names_and_shapes_are_the_authors():
    d = 1152
    expected = {
        "x_embedder.proj": (d, 4, 2, 2),
        "t_embedder.mlp.0": (d, 256),
        "t_embedder.mlp.2": (d, d),
        "final_layer.linear": (16, d),
        "final_layer.adaLN_modulation.1": (2 * d, d),
    }
    for i in range(28):
        expected |= {
            f"blocks.{i}.attn.qkv": (3 * d, d),
            f"blocks.{i}.attn.proj": (d, d),
            f"blocks.{i}.mlp.fc1": (4 * d, d),
            f"blocks.{i}.mlp.fc2": (d, 4 * d),
            f"blocks.{i}.adaLN_modulation.1": (6 * d, d),
        }
    both = {f"{n}.weight": shape for n, shape in expected.items()}
    both |= {f"{n}.bias": shape[:1] for n, shape in expected.items()}
    both["y_embedder.embedding_table.weight"] = (1001, d)
    assert PRESETS["dit-xl/2"]((4, 32, 32), 1000).layout() == both


def test_initial_values_are_the_authors():
    weights = DiT((4, 8, 8), width=256, blocks=1, heads=4, classes=100, learned_positions=True).init(0)
    deviation = {
        "x_embedder.proj.weight": math.sqrt(2 / (16 + 256)),
        "t_embedder.mlp.0.weight": 0.02,
        "t_embedder.mlp.2.weight": 0.02,
        "y_embedder.embedding_table.weight": 0.02,
        "pos_embed.weight": 0.02,
        "blocks.0.attn.qkv.weight": math.sqrt(2 / (4 * 256)),
        "blocks.0.attn.proj.weight": math.sqrt(2 / (2 * 256)),
        "blocks.0.mlp.fc1.weight": math.sqrt(2 / (5 * 256)),
        "blocks.0.mlp.fc2.weight": math.sqrt(2 / (5 * 256)),
    }
    for name, w in weights.items():
        if name in deviation:
            assert abs(w.std() / deviation[name] - 1) < 0.05, name
        else:
            assert not w.any(), name


def test_a_new_network_gives_0():
    x, c, label = given(SMALL)
    assert not output("numpy", SMALL, None, x, c, label).any()
    # Not for want of anything within: the last layer alone makes it 0.
    weights = SMALL.init(0) | {"final_layer.linear.weight": random(SMALL)["final_layer.linear.weight"]}
    assert output("numpy", SMALL, weights, x, c, label).std() > 1e-3


def test_positions_are_sines_and_cosines_column_first():
    table = SineCosine(3, 5, 8).table()
    assert table.shape == (15, 8)
    for i in range(3):
        for j in range(5):
            of = [f(w * at) for at in (j, i) for f in (math.sin, math.cos) for w in (1.0, 0.01)]
            assert table[5 * i + j] == pytest.approx(of, abs=1e-15)
    with pytest.raises(ValueError, match="divisible by 4, got 6"):
        SineCosine(3, 5, 6)


def authors(weights, settings, x, c, label, c_end=None):
    """The network as the authors' code computes it, in torch's functions."""
    torch = pytest.importorskip("torch")
    F, w = torch.nn.functional, {n: torch.tensor(np.asarray(v, np.float64)) for n, v in weights.items()}
    x, c = torch.tensor(x), torch.tensor(c)
    (b, channels, rows, columns), p, d = x.shape, settings.patch, settings.width

    def linear(name, h):
        return F.linear(h, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def embedded(name, c):
        half = settings.features // 2
        ladder = torch.exp(-math.log(settings.max_period) * torch.arange(half, dtype=torch.float64) / half)
        angles = c[:, None] * ladder * settings.max_frequency
        return linear(f"{name}.mlp.2", F.silu(linear(f"{name}.mlp.0", torch.cat([angles.cos(), angles.sin()], 1))))

    def modulated(h, shift, scale):
        return F.layer_norm(h, (d,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    e = embedded("t_embedder", c)
    if label is not None:
        e = e + w["y_embedder.embedding_table.weight"][torch.tensor(np.where(label < 0, settings.classes, label))]
    if c_end is not None:
        e = e + embedded("end_embedder", torch.tensor(c_end))
    h = F.conv2d(x, w["x_embedder.proj.weight"], w["x_embedder.proj.bias"], stride=p).flatten(2).transpose(1, 2)
    table = SineCosine(rows // p, columns // p, d).table() if not settings.learned_positions else None
    h = h + (w["pos_embed.weight"] if table is None else torch.tensor(table))
    for i in range(settings.blocks):
        of = f"blocks.{i}"
        m = linear(f"{of}.adaLN_modulation.1", F.silu(e)).chunk(6, dim=1)
        qkv = linear(f"{of}.attn.qkv", modulated(h, m[0], m[1]))
        q, k, v = qkv.reshape(b, -1, 3, settings.heads, d // settings.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, d)
        h = h + m[2][:, None] * linear(f"{of}.attn.proj", attended)
        r = F.gelu(linear(f"{of}.mlp.fc1", modulated(h, m[3], m[4])), approximate="tanh")
        h = h + m[5][:, None] * linear(f"{of}.mlp.fc2", r)
    shift, scale = linear("final_layer.adaLN_modulation.1", F.silu(e)).chunk(2, dim=1)
    h = linear("final_layer.linear", modulated(h, shift, scale))
    image = torch.einsum("nhwpqc->nchpwq", h.reshape(b, rows // p, columns // p, p, p, channels))
    return image.reshape(b, channels, rows, columns).numpy()


LIMITS = {"float64": 1e-10, "float32": 1e-5}


# tinygrad compiles long.
@pytest.mark.parametrize(
    ("name", "dtype"), [(n, dtype) for n in CHOSEN for dtype in LIMITS if n != "tinygrad" or dtype == "float64"]
)
def test_outputs_are_the_authors(name, dtype, x64):
    settings = replace(SMALL, blocks=1, two_times=True, max_frequency=4.0, max_period=10000.0)
    weights, (x, c, label) = random(settings), given(settings)
    rounded = {n: w.astype(dtype) for n, w in weights.items()}
    x, c, c_end = (v.astype(dtype).astype("float64") for v in (x, c, 0.3 - c))
    expected = authors(rounded, settings, x, c, label, c_end)
    got = output(name, settings, rounded, x, c, label, c_end, dtype)
    assert np.abs(expected).max() > 0.5
    assert np.abs(got - expected).max() <= LIMITS[dtype] * np.abs(expected).max()


@pytest.mark.parametrize(
    "options", [{"learned_positions": True}, {"qkv_bias": False}, {"mlp_ratio": 1.7}, {"patch": 1}]
)
def test_outputs_with_other_settings_are_the_authors(options):
    settings = replace(SMALL, classes=0, **options)
    weights, (x, c, _) = random(settings), given(settings)
    expected = authors(weights, settings, x, c, None)
    np.testing.assert_allclose(output("numpy", settings, weights, x, c), expected, rtol=0, atol=1e-12)


def test_no_label_has_the_last_row():
    weights, (x, c, _) = random(SMALL), given(SMALL)
    none = output("numpy", SMALL, weights, x, c, np.array([-1, -5, -1], np.int32))
    table = weights["y_embedder.embedding_table.weight"]
    moved = weights | {"y_embedder.embedding_table.weight": table[[3, 1, 2, 0]]}
    np.testing.assert_array_equal(output("numpy", SMALL, moved, x, c, np.zeros(3, np.int32)), none)
    assert np.abs(output("numpy", SMALL, weights, x, c, np.zeros(3, np.int32)) - none).max() > 1e-3


def test_two_times_start_as_one():
    weights, (x, c, label) = random(SMALL), given(SMALL)
    two = SMALL.with_options(two_times=True, log_weight=True)
    complete = extend_weights(weights, two)
    one = output("numpy", SMALL, weights, x, c, label)
    np.testing.assert_array_equal(output("numpy", two, complete, x, c, label, c_end=c - 0.3), one)
    # The same initial values, but for what is added.
    assert all(np.array_equal(w, two.init(4)[n]) for n, w in SMALL.init(4).items())
    complete["end_embedder.mlp.2.weight"] = complete["end_embedder.mlp.2.weight"] + 1.0
    assert np.abs(output("numpy", two, complete, x, c, label, c_end=c - 0.3) - one).max() > 1e-3


def test_dropout_is_asked_for():
    assert not SMALL.drops
    dropping = replace(SMALL, dropout=0.5)
    assert dropping.drops
    assert dropping.layout() == SMALL.layout()
    weights, (x, c, label) = random(SMALL), given(SMALL)
    net = cm.load("numpy").network(dropping, weights, dtype="float64")
    np.testing.assert_array_equal(net(x, c, label), output("numpy", SMALL, weights, x, c, label))
    assert np.abs(net(x, c, label, dropout=np.array(3, np.int32)) - net(x, c, label)).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"shape": (1, 6, 9)},
            "6 x 9 cannot be cut into patches of 2 x 2; use sides divisible by 2, or .* both: 1, 3.",
        ),
        ({"shape": (3,)}, r"needs data of shape \(C, H, W\), got \(3,\)"),
        ({"width": 12, "heads": 5}, "width 12 is not divisible into 5 heads; choose a multiple of 5"),
        ({"width": 6}, "width divisible by 4, got 6; choose another, or learned_positions=true"),
        ({"dropout": 1.0}, "rate of dropout must be at least 0 and less than 1, got 1.0"),
        ({"mlp_ratio": 0.01}, "needs a channel at least, got mlp_ratio=0.01"),
        ({"max_period": 1.0}, "max_period must be above 1, got 1.0"),
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"features": 3}, "time features must be even and positive, got 3"),
    ],
)
def test_settings_that_do_not_fit_are_a_sentence(settings, said):
    with pytest.raises(ValueError, match=said) as refused:
        replace(SMALL, **settings)
    assert str(refused.value).endswith(".")


def test_inputs_that_do_not_fit_are_a_sentence():
    net, (x, c, label) = cm.load("numpy").network(SMALL, dtype="float64"), given(SMALL)
    for wrong, said in [
        ((x[:, :1], c, label), r"expects x of shape \(B, 2, 4, 6\), got \(3, 1, 4, 6\)"),
        ((x, c[:1], label), r"expects c_noise of shape \(3,\)"),
        ((x, c), "has 3 classes and needs a label"),
        ((x, c, label, c), "has one time, so it takes no c_end"),
    ]:
        with pytest.raises(ValueError, match=said):
            net(*wrong)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_and_take_settings(name):
    preset = PRESETS[name]
    whole, fewer = preset(preset.shape, preset.classes), preset(preset.shape, blocks=1)
    # With a clock of its own the network is inside what adapts it.
    made, fewer = (getattr(m, "network", m) for m in (whole, fewer))
    assert (preset.clock is None) == (made is whole)
    assert (made.shape, made.classes) == (preset.shape, preset.classes)
    assert all(getattr(made, key) == value for key, value in preset.settings.items())
    assert fewer.blocks == 1


def test_sizes_are_the_papers():
    table = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
    for name in PUBLISHED:
        size, patch = re.fullmatch(r"dit-(\w+)/(\d)", name).groups()
        of = PRESETS[name].settings
        assert (of["width"], of["blocks"], of["heads"], of["patch"]) == (*table[size], int(patch))
