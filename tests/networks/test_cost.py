"""The counted products of an evaluation, against torch's own counter."""

import math

import numpy as np
import pytest
from conftest import CHOSEN

import cmcore as cm
from cmcore.networks import DiT, ResidualConv, ResidualMLP, UNet
from cmcore.networks.cost import activations, multiply_adds, parameters

UNETS = {"width": 4, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head_channels": 4}
NETWORKS = {
    "mlp": ResidualMLP((3, 2), width=8, blocks=1, features=6, classes=2),
    "conv": ResidualConv((2, 4, 6), width=4, multipliers=(1, 2), blocks=1, groups=2, features=4, two_times=True),
    "dit": DiT((2, 4, 4), width=8, blocks=2, heads=2, features=4, classes=2),
    "unet": UNet((2, 4, 6), **UNETS, classes=2, two_times=True, log_weight=True),
    "unet-residual": UNet(
        (2, 8, 4), **UNETS, residual=True, taps=(1.0, 3.0, 3.0, 1.0), skip_conv=True, label_early=True, classes=2
    ),
    "unet-conv": UNet((2, 8, 8), **UNETS, patch=2, resize="conv-end"),
}


@pytest.mark.skipif("torch" not in CHOSEN, reason="torch does not take part")
@pytest.mark.parametrize("kind", NETWORKS)
def test_products_are_those_that_torch_counts(kind):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    architecture, backend, batch = NETWORKS[kind], cm.load("torch"), 3
    net = backend.network(architecture, seed=0)
    x, times = np.zeros((batch, *architecture.shape), np.float32), np.zeros(batch, np.float32)
    cond = {"label": backend.asarray(np.zeros(batch, np.int32))} if architecture.classes else {}
    if architecture.two_times:
        cond["c_end"] = backend.asarray(times)
    # Of its fused kernels torch does not count all.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(backend.asarray(x), backend.asarray(times), **cond)
    # A label's row is a product with a matrix of ones and zeros in torch.
    rows = [s for n, s in architecture.layout().items() if "label" in n or "embedding_table" in n]
    looked_up = sum(math.prod(shape) for shape in rows if len(shape) == 2)
    assert counter.get_total_flops() == 2 * batch * (multiply_adds(architecture) + looked_up)


def test_published_costs():
    """DiT-S/2 and DiT-XL/2 take 6.06 and 118.64 billion (Peebles & Xie, 2023, table 1, whose Gflops are multiply-adds)."""
    small, large = (cm.networks.PRESETS[name]((4, 32, 32), 1000) for name in ("dit-s/2", "dit-xl/2"))
    assert multiply_adds(small) / 1e9 == pytest.approx(6.06, abs=0.01)
    assert multiply_adds(large) / 1e9 == pytest.approx(118.64, abs=0.05)
    assert parameters(small) == 32_858_896


OF_A_KIND = {
    "mlp": (ResidualMLP((1, 8, 8), width=64, blocks=2), 0.4),
    "conv": (ResidualConv((3, 16, 16), width=8, blocks=1, groups=4), 0.15),
    "unet": (cm.networks.PRESETS["unet-tiny"]((3, 16, 16)), 0.15),
    "dit": (cm.networks.PRESETS["dit-tiny"]((3, 16, 16)), 0.15),
}
"""Networks, and how far the estimate of what their gradient keeps may be off; a perceptron's are few and its modulations count."""


@pytest.mark.skipif("torch" not in CHOSEN, reason="torch does not take part")
@pytest.mark.parametrize("kind", OF_A_KIND)
def test_a_gradient_keeps_about_as_much_as_torch_does(kind):
    import torch

    architecture, off = OF_A_KIND[kind]
    net, batch, kept = cm.load("torch").network(architecture, seed=0), 8, {}
    weights = {weight.requires_grad_(True).untyped_storage().data_ptr() for weight in net.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            # The tensor too, or its place would be given to another.
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.randn(batch, *architecture.shape), torch.rand(batch))
    assert 4 * batch * activations(architecture) == pytest.approx(sum(n for n, _ in kept.values()), rel=off)
