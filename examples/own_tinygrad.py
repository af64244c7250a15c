"""The tinygrad half of ``bring_your_own.py``: a plain class with ``nn.optim``; nothing of cmcore is needed here."""

import math
from itertools import pairwise

from tinygrad import Context, Tensor, TinyJit, nn


class Network:
    """A perceptron of a point and a time, (B, 2) and (B,); ``net(x, c_noise)`` returns x's shape."""

    def __init__(self, width=192):
        sizes = (5, width, width, width)
        self.hidden = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        self.last = nn.Linear(width, 2)

    def __call__(self, x, c_noise):
        time = c_noise.unsqueeze(1)
        h = x.cat(time, (3 * time).cos(), (3 * time).sin(), dim=1)
        for layer in self.hidden:
            h = layer(h).silu()
        return self.last(h)


def train(loss, batches, steps):
    """Minimise ``loss(net, *batch)`` and return the network."""
    Tensor.manual_seed(0)
    net = Network()
    optimizer = nn.optim.Adam(nn.state.get_parameters(net), lr=5e-3)

    @TinyJit
    def step(rate, *batch):
        optimizer.lr.assign(rate)
        value = loss(net, *batch)
        optimizer.zero_grad()
        value.backward()
        return value.realize(*optimizer.schedule_step())

    for k, batch in enumerate(batches):
        rate = Tensor([5e-3 * (1 + math.cos(math.pi * k / steps)) / 2]).realize()
        with Context(TRAINING=1):
            value = step(rate, *(Tensor(a).clone().realize() for a in batch))
        if k % max(1, steps // 5) == 0:
            print(f"step {k:5}  loss {value.item():.4f}", flush=True)
    return net
