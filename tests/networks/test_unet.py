"""The U-Net's settings: the published counts of parameters, what each setting does, and what is refused."""

import hashlib
import math

import numpy as np
import pytest

import cmcore as cm
from cmcore.networks import UNet, from_config, to_config
from cmcore.networks.presets import PRESETS
from cmcore.networks.unet import time_frequencies

SMALL = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head_channels": 4}

INITIAL = "fc93cda14a693476"


def parameters(architecture):
    return sum(math.prod(shape) for shape in architecture.layout().values())


@pytest.mark.parametrize(
    ("name", "shape", "settings", "count"),
    [
        ("adm-imagenet64", (3, 64, 64), {"classes": 1000}, 295_899_267),
        ("adm-lsun256", (3, 256, 256), {}, 526_304_771),
        ("ddpmpp-cifar10", (3, 32, 32), {}, 55_732_739),
        ("ddpmpp-cifar10", (3, 32, 32), {"augment": 9}, 55_733_891),
        ("ncsnpp-cifar10", (3, 32, 32), {}, 56_395_523),
        ("ncsnpp-cifar10", (3, 32, 32), {"augment": 9}, 56_397_827),
    ],
)
def test_published_numbers_of_parameters(name, shape, settings, count):
    assert parameters(PRESETS[name](shape, **settings)) == count


def numpy_net(architecture, seed=0):
    rng = np.random.default_rng(seed)
    weights = {n: 0.3 * rng.standard_normal(shape) for n, shape in architecture.layout().items()}
    return cm.load("numpy").network(architecture, weights, dtype="float64")


def inputs(architecture, batch=2):
    rng = np.random.default_rng(1)
    return rng.standard_normal((batch, *architecture.shape)), np.linspace(-0.5, 0.7, batch)


@pytest.mark.parametrize("shape", [(1, 4, 6), (2, 8, 4), (4, 2, 2)])
def test_any_sides_that_the_levels_divide(shape):
    architecture = UNet(shape, **SMALL)
    x, c = inputs(architecture)
    assert numpy_net(architecture)(x, c).shape == x.shape


def test_patches_are_an_image_of_their_pixels():
    """A network of patches is the network of the smaller image, whose channel 4 c + 2 i + j is pixel (i, j) of each patch."""
    whole, small = UNet((2, 8, 12), **SMALL, patch=2), UNet((8, 4, 6), **SMALL)
    assert whole.layout() == small.layout()
    (x, c), smaller = inputs(whole), np.empty((2, 8, 4, 6))
    for k in range(8):
        smaller[:, k] = x[:, k // 4, k % 4 // 2 :: 2, k % 2 :: 2]
    out, expected = numpy_net(whole)(x, c), numpy_net(small)(smaller, c)
    for k in range(8):
        np.testing.assert_allclose(out[:, k // 4, k % 4 // 2 :: 2, k % 2 :: 2], expected[:, k], rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"shape": (1, 6, 5)}, "use sides divisible by 2, or shorter multipliers"),
        ({"shape": (1, 9, 4), "patch": 2}, "cannot be cut into patches of 2 x 2; use sides divisible by 2, or patch=1"),
        ({"shape": (1, 6, 4), "patch": 2}, "in patches of 2 x 2 cannot be halved 1 times; use sides divisible by 4"),
        ({"shape": (4,)}, r"needs data of shape \(C, H, W\)"),
        ({"attention": (3,)}, "levels are 1, 2 times smaller"),
        ({"resize": "stride"}, "resize cannot be 'stride'; choose one of block, conv, conv-end"),
        ({"times": "sine"}, "times cannot be 'sine'; "),
        ({"width": 0}, "width must be at least 1"),
        ({"classes": -1}, "classes cannot be negative"),
        ({"multipliers": ()}, "multipliers must be positive"),
        ({"head_channels": 3}, "cannot be divided into heads of 3; use head_channels=8, or 0 for one head of all"),
        ({"width": 5, "head_channels": 0}, "time features must be even"),
        ({"times": "fourier", "fourier": (1.0,)}, "8 time features need 4 frequencies, got 1"),
    ],
)
def test_settings_that_make_no_network_are_sentences(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        UNet(**{"shape": (1, 4, 4), **SMALL, **settings})


def test_settings_travel_as_plain_data():
    architecture = UNet((1, 4, 4), **SMALL, times="fourier", fourier=(0.1, 0.25, 1 / 3, 7.0))
    assert from_config(to_config(architecture)) == architecture


def test_two_times_start_as_one():
    one = UNet((1, 4, 4), **SMALL)
    two = one.with_options(True, True)
    weights = cm.networks.extend_weights(one.init(0), two)
    x, c = inputs(one)
    numpy = cm.load("numpy")
    alone = numpy.network(one, one.init(0), dtype="float64")(x, c)
    for end in (0.0, 1.0):
        np.testing.assert_array_equal(numpy.network(two, weights, dtype="float64")(x, c, c_end=end + 0 * c), alone)


def test_initial_weights_give_nothing_and_are_the_same_for_ever():
    architecture = UNet((1, 4, 4), **SMALL)
    x, c = inputs(architecture)
    assert not cm.load("numpy").network(architecture, architecture.init(0), dtype="float64")(x, c).any()
    drawn = b"".join(w.tobytes() for w in architecture.init(0).values())
    assert hashlib.sha256(drawn).hexdigest()[:16] == INITIAL


def test_labels_and_augmentation_act_and_may_be_absent():
    settings = SMALL | {"classes": 3, "augment": 2, "label_early": True}
    architecture = UNet((1, 4, 4), **settings)
    net, (x, c) = numpy_net(architecture), inputs(architecture)
    none = np.array([-1, -1])
    plain = net(x, c, label=none)
    assert np.abs(net(x, c, label=np.array([0, 2])) - plain).max() > 1e-3
    np.testing.assert_array_equal(net(x, c, label=none, augment=np.zeros((2, 2))), plain)
    assert np.abs(net(x, c, label=none, augment=np.ones((2, 2))) - plain).max() > 1e-3
    with pytest.raises(ValueError, match="told of augmentation by 2 numbers a sample"):
        net(x, c, label=none, augment=np.ones((2, 3)))


def test_the_paths_of_frequencies():
    def of(**settings):
        return np.array(time_frequencies(UNet((1, 4, 4), **SMALL, **settings)))

    np.testing.assert_allclose(of(times="sinusoidal"), 1e4 ** (-np.arange(4) / 4))
    np.testing.assert_allclose(of(times="sinusoidal-end"), 1e4 ** (-np.arange(4) / 3))
    np.testing.assert_allclose(of(times="fourier", fourier=(1.0, 2.0, 0.5, 0.0)), 2 * np.pi * np.array([1, 2, 0.5, 0]))
    np.testing.assert_allclose(of(), np.geomspace(1, 16, 4))


def test_a_convolution_that_halves_takes_the_pixels_it_should():
    """Against a strided convolution by hand: from the first pixel on, or, with the zeros at the end alone, from the second."""
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((1, 1, 4, 4)), rng.standard_normal((3, 3))
    for resize, before in (("conv", 1), ("conv-end", 0)):
        padded = np.pad(x[0, 0], ((before, 1), (before, 1)))
        expected = [[np.sum(kernel * padded[i : i + 3, j : j + 3]) for j in (0, 2)] for i in (0, 2)]
        architecture = UNet((1, 4, 4), **SMALL | {"width": 2, "head_channels": 0}, resize=resize)
        lead = numpy_net(architecture).enc[1].lead
        vars(lead.conv).update(weight=np.stack([np.stack([kernel, 0 * kernel])] * 2), bias=np.zeros(2))
        h = np.concatenate([x, x], axis=1)
        np.testing.assert_allclose(lead(h, None, None)[0, 0], expected)


def test_what_leads_past_the_levels_is_taken_beyond_the_edges():
    """Against the convolution and the filter of the infinite image, zero outside: NCSN++'s conv_downsample_2d."""
    taps = np.array([1.0, 3.0, 3.0, 1.0]) / 8
    architecture = UNet((1, 6, 4), **SMALL | {"width": 2, "head_channels": 0}, taps=(1.0, 3.0, 3.0, 1.0), residual=True)
    aux = numpy_net(architecture).enc[1].aux
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((6, 4)), rng.standard_normal((3, 3))
    vars(aux.conv).update(weight=np.stack([kernel[None]] * 2), bias=np.full(2, 0.5))
    wide = np.pad(x, 4)
    rows, columns = wide.shape
    convolved = np.array(
        [[np.sum(kernel * wide[i : i + 3, j : j + 3]) for j in range(columns - 2)] for i in range(rows - 2)]
    )
    square = np.outer(taps, taps)
    # Pixel (0, 0) of the image is (3, 3) of ``convolved``; the taps begin one before it.
    expected = [
        [np.sum(square * convolved[2 * i + 2 : 2 * i + 6, 2 * j + 2 : 2 * j + 6]) + 0.5 for j in range(2)]
        for i in range(3)
    ]
    np.testing.assert_allclose(aux(x[None, None])[0, 1], expected)
