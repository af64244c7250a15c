"""Your own network, optimiser and training loop: cmcore supplies the mathematics and nothing else.

    python examples/bring_your_own.py --backend torch        # or jax, tinygrad; about half a minute on two CPU cores

This page holds what does not depend on the framework: what is minimised (ECT, learnt from data alone) and how samples
are made. The other half, a network and a plain training loop, is the framework's own and is one short page for each:
``own_torch.py`` (an `nn.Module`), ``own_jax.py`` (a flax module; an equinox module works too) and ``own_tinygrad.py``
(a plain class). ``bring_your_own.png`` shows the data, two half moons, beside samples made in one and in two steps;
expect about 15 and 9 per cent of them off the curve.
"""

import argparse
import importlib
from pathlib import Path

import matplotlib
import numpy as np

import cmcore as cm

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIGMA_DATA = 0.6  # the data's standard deviation
BATCH, POINTS, STAGES = 256, 2000, 6


def loss(net, x0, z, normal, stage):
    """What every framework minimises: ``net(x, c_noise)`` is any callable, the rest are arrays of its framework."""
    f = cm.ConsistencyFunction(net, cm.parametrization.EDM(SIGMA_DATA))
    t = cm.grids.lognormal_time(normal, mean=-0.8, std=1.4)
    pair = cm.grids.ect_pair(t, stage, k=0.0)  # t and an earlier time r, ever closer from stage to stage
    distance = cm.losses.consistency(f, f, x0, z, pair.t, pair.r)  # the second f is the target: no gradient reaches it
    return (cm.weightings.inverse_gap(pair, SIGMA_DATA) * distance).mean()


def half_moons(rng, n):
    """Return n points of two half circles of radius 1, thickened by noise."""
    upper = rng.random(n) < 0.5
    angle = np.pi * rng.random(n)
    x = np.where(upper, np.cos(angle) - 0.5, 0.5 - np.cos(angle))
    y = np.where(upper, np.sin(angle) - 0.25, 0.25 - np.sin(angle))
    return np.stack([x, y], axis=1) + 0.05 * rng.standard_normal((n, 2))


def batches(steps):
    """Yield the loss's arguments for every step, on the host: data, noise, random numbers for the times, the stage."""
    curriculum = cm.grids.Stages(STAGES)
    for k in range(steps):
        rng = np.random.default_rng(k)
        x0, z, normal = half_moons(rng, BATCH), rng.standard_normal((BATCH, 2)), rng.standard_normal(BATCH)
        yield tuple(a.astype(np.float32) for a in (x0, z, normal, np.array(curriculum(k, steps)["stage"])))


def off_the_curve(x):
    """Return the share of points further than four standard deviations from both half circles."""
    upper, lower = x - [-0.5, -0.25], x - [0.5, 0.25]
    to_upper = np.where(upper[:, 1] > -0.2, abs(np.linalg.norm(upper, axis=1) - 1), np.inf)
    to_lower = np.where(lower[:, 1] < 0.2, abs(np.linalg.norm(lower, axis=1) - 1), np.inf)
    return np.mean(np.minimum(to_upper, to_lower) > 0.2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="torch", choices=("torch", "jax", "tinygrad"))
    parser.add_argument("--steps", type=int, default=4000, help="training steps (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("bring_your_own.png"))
    args = parser.parse_args()

    own = importlib.import_module(f"own_{args.backend}")
    net = own.train(loss, batches(args.steps), args.steps)

    backend = cm.load(args.backend)
    f = cm.ConsistencyFunction(net, cm.parametrization.EDM(SIGMA_DATA))
    draw = backend.stream(seed=0)
    z = draw.normal((POINTS, 2))
    panels = [("data", half_moons(np.random.default_rng(), POINTS))]
    for times in ((10.0,), (10.0, 0.5)):
        x = cm.sampling.multistep(f, z, times, lambda i: draw.normal((POINTS, 2)), t_min=0.0)
        panels.append((f"{len(times)}-step samples", backend.to_numpy(x)))

    figure, axes = plt.subplots(1, len(panels), figsize=(9.6, 3.4), layout="constrained")
    for axis, (title, x) in zip(axes, panels, strict=True):
        print(f"{title:15} off the curve: {off_the_curve(x):6.1%}")
        axis.scatter(x[:, 0], x[:, 1], s=2, linewidths=0)
        axis.set(title=title, xlim=(-2, 2), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[])
    figure.savefig(args.out, dpi=110)
    print(f"The picture is {args.out}.")


if __name__ == "__main__":
    main()
