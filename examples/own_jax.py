"""The JAX half of ``bring_your_own.py``: a flax module with optax; nothing of cmcore is needed here.

An equinox module serves as well: cmcore only calls ``net(x, c_noise)``. Write the class as an `eqx.Module` whose
``__call__`` maps its layers over the batch with `jax.vmap`, and take the step by `eqx.filter_jit`,
`eqx.filter_value_and_grad`, ``optimizer.update`` and `eqx.apply_updates`; cmcore's own networks are equinox modules.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class Network(nnx.Module):
    """A perceptron of a point and a time, (B, 2) and (B,); ``net(x, c_noise)`` returns x's shape."""

    def __init__(self, rngs, width=192):
        sizes = (5, width, width, width)
        self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        self.last = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x, c_noise):
        time = c_noise[:, None]
        h = jnp.concatenate([x, time, jnp.cos(3 * time), jnp.sin(3 * time)], axis=1)
        for layer in self.hidden:
            h = jax.nn.silu(layer(h))
        return self.last(h)


def train(loss, batches, steps):
    """Minimise ``loss(net, *batch)`` and return the network."""
    net = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, optax.adam(optax.cosine_decay_schedule(5e-3, steps)), wrt=nnx.Param)

    @nnx.jit
    def step(net, optimizer, *batch):
        value, gradients = nnx.value_and_grad(loss)(net, *batch)
        optimizer.update(net, gradients)
        return value

    for k, batch in enumerate(batches):
        value = step(net, optimizer, *batch)
        if k % max(1, steps // 5) == 0:
            print(f"step {k:5}  loss {value:.4f}", flush=True)
    return net
