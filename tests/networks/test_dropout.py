"""Dropout: which numbers it keeps, that every framework keeps the same, and when there is none."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import CHOSEN, TRAINABLE
from networks.own import EveryLayer, Patches
from networks.test_layers import One

import cmcore as cm
from cmcore.networks import Dropout
from cmcore.networks.dropout import kept
from cmcore.training import dropout_key

NETWORK = Patches((1, 4, 4), width=8, blocks=1, heads=2, dropout=0.5)
SHAPES = {"images": (3, 4, 6, 2), "rows": (3, 40), "tokens": (3, 5, 8)}
every = pytest.mark.parametrize("name", CHOSEN)


def mask(key=0, layer=0, samples=1, elements=10**6, rate=0.5, first=0):
    sample = np.arange(first, first + samples, dtype=np.int32)[:, None]
    return kept(np.array(key, np.int32), layer, sample, np.arange(elements, dtype=np.int32)[None], rate)


@every
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_masks_are_the_same_bits_everywhere_compiled_or_not(name, shape):
    backend, rate, key = cm.load(name), 0.4, 0x7FFFFFFE
    net = backend.network(One(Dropout(rate), images=len(shape) == 4))
    expected = mask(key, 0, shape[0], int(np.prod(shape[1:])), rate).reshape(shape)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    given = backend.asarray(x), backend.asarray(np.array(key, np.int32))
    # torch compiles long.
    compiled = net if name == "torch" and len(shape) != 2 else backend.compile(lambda x, key: net(x, key))
    outs = [f(*given) for f in (net, compiled, compiled)]
    for out in map(backend.to_numpy, outs):
        np.testing.assert_array_equal(out != 0, expected)
        np.testing.assert_allclose(out, np.where(expected, x / np.float32(1 - rate), 0), rtol=1e-6)
    np.testing.assert_array_equal(backend.to_numpy(net(given[0])), x)


def test_the_share_kept_is_one_minus_the_rate_and_the_mean_is_kept():
    n = 10**6
    for rate in (0.01, 0.1, 0.3, 0.5, 0.9):
        for key in (0, 1, 2**31 - 1):
            share = mask(key, 3, 1, n, rate).mean()
            assert abs(share - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)
    net = cm.load("numpy").network(One(Dropout(0.3)))
    out = net(np.ones((10, 10**5)), np.array(5, np.int32))
    assert abs(out.mean() - 1) < 5 * np.sqrt(0.3 / 0.7 / n)


def test_masks_of_neighbours_layers_samples_and_steps_are_uncorrelated():
    n, one = 10**6, 1.0 * mask() - 0.5
    keys = [int(dropout_key(0, i)) for i in range(2)]
    others = {
        "a neighbour": np.roll(one, 1),
        "a row below": np.roll(one, 32),
        "half way": np.roll(one, n // 2),
        "2^16 on": np.roll(one, 2**16),
        "another layer": mask(layer=1) - 0.5,
        "the layer after next": mask(layer=2) - 0.5,
        "another sample": mask(first=1) - 0.5,
        "another key": mask(key=1) - 0.5,
        "a far key": mask(key=2**16) - 0.5,
    }
    for what, other in others.items():
        assert abs(4 * np.mean(one * other)) < 5 / np.sqrt(n), what
    assert abs(4 * np.mean((mask(keys[0]) - 0.5) * (mask(keys[1]) - 0.5))) < 5 / np.sqrt(n)
    # Blocks of 8 neighbours take all 256 values equally often.
    blocks = np.packbits(mask()[0]).astype(int)
    chi = np.sum((np.bincount(blocks, minlength=256) - len(blocks) / 256) ** 2) / (len(blocks) / 256)
    assert abs(chi - 255) < 5 * np.sqrt(2 * 255)


def test_the_hash_never_leaves_31_bits():
    largest = 2**31 - 1
    rng, limits = np.random.default_rng(0), np.array([0, 1, 0xFFFF, 0x10000, largest - 1, largest])
    values = np.concatenate([limits, rng.integers(0, largest, 2000)])
    for layer in (0, 1, 7, 1000, largest):
        for key in (*limits, 123456789):
            wide = kept(np.array(key, np.int64), layer, values[:, None], values[None, :50], 0.5)
            with np.errstate(all="raise"):
                narrow = kept(
                    np.array(key, np.int32),
                    layer,
                    values.astype(np.int32)[:, None],
                    values[None, :50].astype(np.int32),
                    0.5,
                )
            np.testing.assert_array_equal(wide, narrow)
    factors, constants = (np.array(getattr(cm.networks.dropout, name), np.int64) for name in ("_FACTORS", "_CONSTANTS"))
    assert (0xFFFF * factors + constants).max() <= largest


def test_keys_are_int32_and_new_at_each_step_and_seed():
    keys = [dropout_key(seed, index) for seed in range(10) for index in range(1000)]
    assert all(key.dtype == np.int32 and key.shape == () and key >= 0 for key in keys)
    assert len({int(key) for key in keys}) > 9995


def test_each_layer_of_a_network_has_a_mask_of_its_own():
    natives = cm.load("numpy").network(EveryLayer()).drops
    assert [natives[n].layer.number for n in ("rows", "images", "before")] == [0, 1, 2]
    assert EveryLayer().drops
    assert not replace(EveryLayer(), rate=0.0).drops


def trainer(backend, **changes):
    recipe = cm.recipes.get("ect", sigma_data=0.5)
    spec = recipe.train_spec(seed=1, compiled=backend.name != "torch", dropout=True)
    rng = np.random.default_rng(0)
    weights = {n: 0.3 * rng.standard_normal(s) for n, s in NETWORK.layout().items()}
    return recipe, cm.Trainer(backend, backend.network(NETWORK, weights), replace(spec, **changes))


def pairs_loss(backend, gap, same):
    """ect's loss where r is t but for a gap, with one mask for both evaluations or with two."""
    recipe = cm.recipes.get("ect", sigma_data=0.5)
    rng = np.random.default_rng(0)
    net = backend.network(
        NETWORK, {n: 0.5 * rng.standard_normal(s) for n, s in NETWORK.layout().items()}, dtype="float64"
    )
    x0, z = (backend.asarray(rng.standard_normal((64, 1, 4, 4))) for _ in range(2))
    key, other = (backend.asarray(np.array(k, np.int32)) for k in (7, 7 if same else 8))
    t = backend.asarray(rng.uniform(0.5, 2.0, 64))
    times = cm.grids.TimePair(t, t - gap, t * 0 + gap)

    def target(x, c, **cond):
        return net(x, c, **cond | {"dropout": other})

    batch = cm.recipes.Batch(x0, z, {}, {}, {"dropout": key})
    return float(backend.to_numpy(recipe.per_sample({"online": net, "target": target}, batch, times)).mean())


# The pair is the core's; the tests above have the masks of all backends.
@pytest.mark.parametrize("name", sorted({"numpy", "torch"} & {*CHOSEN}))
def test_both_evaluations_of_a_pair_drop_the_same(name):
    backend = cm.load(name)
    same, apart = (pairs_loss(backend, 1e-6, same) for same in (True, False))
    assert apart > 1e-2
    assert same < 1e-5 * apart


def test_online_and_target_are_given_the_key_and_frozen_networks_are_not():
    backend, key = cm.load("numpy"), np.array(3, np.int32)
    rng = np.random.default_rng(0)
    net = backend.network(NETWORK, {n: 0.3 * rng.standard_normal(s) for n, s in NETWORK.layout().items()})
    x, t = rng.standard_normal((4, 1, 4, 4)), rng.standard_normal(4)
    seen = {}

    def loss(nets, x0, z, tau, scalars, cond):
        seen.update({name: nets[name](x0, tau, **cond) for name in nets})
        return tau

    cm.TrainSpec(loss, dropout=True).mean_loss(
        dict.fromkeys(("online", "target", "teacher"), net), x, x, t, {}, {"dropout": key}
    )
    np.testing.assert_array_equal(seen["online"], net(x, t, dropout=key))
    np.testing.assert_array_equal(seen["target"], seen["online"])
    np.testing.assert_array_equal(seen["teacher"], net(x, t))
    assert not np.allclose(seen["online"], seen["teacher"])


@pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")
def test_another_step_is_another_mask():
    backend, losses = cm.load(TRAINABLE[0]), []

    def loss(nets, x0, z, draws, scalars, cond):
        return backend.xp.mean(nets["online"](x0, 0 * draws["t"], **cond) ** 2, axis=(1, 2, 3))

    _, step = trainer(backend, loss=loss, compiled=False)
    x = backend.asarray(np.ones((4, 1, 4, 4), np.float32))
    for k in (0, 1, 0):
        losses.append(float(step.step(k, x, {"lr": 0.0, "ema_decay": 0.0}).item()))
    assert losses[0] == losses[2] != losses[1]
