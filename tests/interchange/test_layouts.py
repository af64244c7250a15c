"""The tables of names: those of the six published networks, and changes that undo each other."""

import hashlib
import math
import tracemalloc

import numpy as np
import pytest
from small import ADM, DDPM, DDPMPP, EDM_ADM, NCSNPP, weights_of

from cmcore.interchange import LAYOUTS, changes
from cmcore.interchange.table import given, published_shapes, taken
from cmcore.networks.presets import PRESETS

PUBLISHED = [
    ("openai", "adm-imagenet64", (3, 64, 64), {"classes": 1000}, 541, "198c5af55b4d9d04", 295_899_267),
    ("openai", "adm-lsun256", (3, 256, 256), {}, 566, "2917745562bd5f32", 526_304_771),
    ("diffusers", "adm-imagenet64", (3, 64, 64), {"classes": 1000}, 629, "ce7bcea79a7c4654", 295_899_267),
    ("diffusers", "adm-lsun256", (3, 256, 256), {}, 630, "3a634bd040cdd5a2", 526_304_771),
    ("edm", "ddpmpp-cifar10", (3, 32, 32), {"augment": 9}, 425, "18eaf05a14e074bf", 55_733_891),
    ("edm", "ncsnpp-cifar10", (3, 32, 32), {"augment": 9}, 432, "9ecf2bba67a54ecc", 56_397_827),
    ("edm", "adm-imagenet64", (3, 64, 64), {"classes": 1000}, 553, "ddfd20a017722070", 295_899_267),
    ("flax", "ncsnpp-cifar10", (3, 32, 32), {}, 445, "f9a1e4e8f86a10c4", 56_395_523),
]
"""The layout, our network, how many names there are, a digest of them with their shapes as the authors' programs have them,
and the number of trained parameters (Flax counts the 128 random frequencies besides)."""


def digest(shapes):
    lines = (f"{name} {'x'.join(map(str, shape))}\n" for name, shape in sorted(shapes.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("layout", "preset", "shape", "settings", "count", "expected", "parameters"), PUBLISHED)
def test_names_and_shapes_are_the_published_ones(layout, preset, shape, settings, count, expected, parameters):
    tracemalloc.start()
    network = PRESETS[preset](shape, **settings)
    rows, buffers = LAYOUTS[layout].table(network)
    shapes = published_shapes(rows, network)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6, "something of the size of the weights was made"
    assert sum(map(math.prod, shapes.values())) == parameters
    everything = shapes | {b.name: b.value.shape for b in buffers}
    assert len(everything) == count
    assert digest(everything) == expected


@pytest.mark.parametrize(
    ("layout", "network"),
    [
        ("openai", ADM),
        ("diffusers", ADM),
        ("diffusers", DDPM),
        ("edm", EDM_ADM),
        ("edm", DDPMPP),
        ("edm", NCSNPP),
        ("flax", NCSNPP),
    ],
)
def test_a_table_read_both_ways_gives_the_same_bits(layout, network):
    weights = weights_of(network)
    rows, buffers = LAYOUTS[layout].table(network)
    tensors = given(rows, buffers, weights)
    assert {
        name: a.shape for name, a in tensors.items() if not any(b.name == name for b in buffers)
    } == published_shapes(rows, network)
    back = taken(rows, buffers, tensors, network, "a file")
    assert back.keys() == weights.keys()
    assert all(back[name].tobytes() == weights[name].tobytes() for name in weights)


def test_each_change_is_what_it_says():
    a = np.arange(24.0).reshape(6, 4)
    (kernel,) = changes.FROM_1X1.theirs(a)
    assert kernel.shape == (6, 4, 1, 1)
    assert changes.TRANSPOSED.theirs(a)[0][1, 2] == a[2, 1]
    conv = np.arange(2 * 3 * 5 * 7.0).reshape(2, 3, 5, 7)
    assert changes.HWIO.theirs(conv)[0][4, 6, 2, 1] == conv[1, 2, 4, 6]
    assert changes.HWIO.shapes(conv.shape) == [(5, 7, 3, 2)]
    _, k, _ = changes.THIRDS.theirs(a)
    assert (k == a[2:4]).all()
    assert (changes.NINS.theirs(a)[2] == a[4:].T).all()
    # EDM's rows: the query, key and value of the first channel, then those of the second.
    (turns,) = changes.INTERLEAVED.theirs(a)
    assert (turns == a[[0, 2, 4, 1, 3, 5]]).all()


@pytest.mark.parametrize("name", ["SAME", "FROM_1X1", "TRANSPOSED", "HWIO", "THIRDS", "NINS", "INTERLEAVED"])
def test_each_change_undoes_itself_and_tells_its_shapes(name):
    change = getattr(changes, name)
    ours = np.random.default_rng(0).standard_normal((6, 2, 3, 5) if name == "HWIO" else (6, 4))
    theirs = change.theirs(ours)
    assert [a.shape for a in theirs] == list(change.shapes(ours.shape))
    assert (change.ours(theirs) == ours).all()
    both = change.then(changes.INTERLEAVED) if name != "HWIO" else change
    assert (both.ours(both.theirs(ours)) == ours).all()
    assert [a.shape for a in both.theirs(ours)] == list(both.shapes(ours.shape))
