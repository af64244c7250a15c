"""A method of your own: one declaration, and it trains, compiled, in PyTorch, JAX and tinygrad.

    python examples/new_method.py --backend torch        # or jax, tinygrad; one to two minutes on two CPU cores

Eulerian self-distillation (Boffi et al., 2025) is not among the recipes of cmcore. It learns the flow map X(x, t, s) of
the straight path from data alone, by what must hold as the start of a jump moves along the ODE: its end does not move. With
``X = x - (t - s) u(x, t, s)``, u the network, that is ``u = v - (t - s) du/dt``, the derivative taken along the velocity v, which is
the network itself where the jump has no length, ``v(x, t) = u(x, t, t)``, as flow matching learns it. The class below says this and
when; everything else is there.

The data are a mixture of two Gaussians whose flow map is known exactly. ``new_method.png`` shows where noise goes in one,
two and four steps beside the exact answer; expect an RMS error of about 0.2, most of it where the map is steep.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

import cmcore as cm
from cmcore.recipes import SelfDistilled, StraightFlowMap

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@dataclass(frozen=True)
class EulerianSelfDistillation(SelfDistilled, StraightFlowMap):
    """The end of a jump stays as its start moves along the ODE. A share ``diagonal`` of the samples are flow matching."""

    optimizer: cm.Optimizer = cm.Optimizer("radam", lr=5e-3, decay=True)
    average: cm.ema.Average = cm.ema.Average(0.99)

    name = "esd"
    summary = "A flow map from data alone, by the Eulerian identity."
    citation = "boffi2025"
    draws = {"t": "uniform", "s": "uniform", "diagonal": "uniform"}

    def pair(self, draws, scalars):
        """Draw the times t > s of a batch of jumps, or t = s."""
        return self.uniform_times(draws)

    def per_sample(self, nets, batch, times):
        """Return the loss of each sample, (B,)."""
        xp, flow_map, gap = cm.namespace(batch.x0), self.function(nets["online"]), cm.per_sample(times.gap, batch.x0)
        x = self.path.perturb(batch.x0, batch.z, times.t)
        v = cm.stop_gradient(flow_map.velocity(x, times.t, times.t, **batch.cond))
        u, du_dt = cm.tangents.exact(
            lambda x, t: flow_map.velocity(x, t, times.r, **batch.cond), (x, times.t), (v, xp.ones_like(times.t))
        )
        goal = xp.where(gap > 0, v - gap * du_dt, batch.z - batch.x0)
        return cm.distances.squared_l2(u, cm.stop_gradient(goal))


LAW = cm.oracles.Mixture(weights=[0.7, 0.3], means=[-1.0, 1.0], stds=0.2)
NETWORK = cm.networks.ResidualMLP(shape=(1,), width=64, blocks=2, two_times=True)
BATCH, POINTS = 512, 2000


def data(seed):
    rng = np.random.default_rng(seed)
    return LAW.sample(rng.standard_normal((BATCH, 1)), rng.random((BATCH, 1))).astype(np.float32)


def train(backend, recipe, steps):
    """Return the network, trained."""
    trainer = cm.Trainer(backend, backend.network(NETWORK), recipe.train_spec())
    for k in range(steps):
        trainer.step(k, backend.asarray(data(seed=k)), recipe.scalars(k, steps))
    return backend.network(NETWORK, trainer.weights("ema"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("torch", "jax", "tinygrad"), help="default: the first one installed")
    parser.add_argument("--steps", type=int, default=4000, help="training steps (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("new_method.png"))
    args = parser.parse_args()

    backend, recipe = cm.use(args.backend), EulerianSelfDistillation()
    net = train(backend, recipe, args.steps)

    z = np.sort(np.random.default_rng(0).standard_normal((POINTS, 1)), axis=0).astype(np.float32)
    # The straight path's start, noise alone, is infinite time on the path x0 + t z that the law's flow is given for.
    exact = LAW.flow(1e6 * z.astype(np.float64), 1e6, 0.0)
    figure, axis = plt.subplots(figsize=(5, 3.6), layout="constrained")
    axis.plot(z, exact, "k", linewidth=3, alpha=0.3, label="exact")
    for steps in (1, 2, 4):
        x = backend.to_numpy(recipe.sample(net, backend.asarray(z), recipe.times(steps), noise=lambda i: None))
        error = np.sqrt(np.mean((x - exact) ** 2))
        print(f"in {steps}: RMS distance to the exact answer {error:.4f}")
        axis.plot(z, x, linewidth=1, label=f"in {steps}, RMS error {error:.3f}")
    axis.set(xlabel="noise", ylabel="sample")
    axis.legend()
    figure.savefig(args.out, dpi=110)
    print(f"The picture is {args.out}.")


if __name__ == "__main__":
    main()
