"""Training in bfloat16 against training in float32: the same seed, network and data; do the losses agree?

    python benchmarks/precision.py --backend torch
    python benchmarks/precision.py --backend jax

``ect`` and ``scd``, which takes Jacobian-vector products, train a small U-Net on digits (8 x 8) with both; the teacher is one of as
many steps of ``edm`` in float32. Weights, averages and losses are float32 in both; in bfloat16 the network's layers compute in that.
Printed are the mean losses of the last 100 steps, and how far apart they are. Exit status 1 if they are further than 2 % apart, or
if a loss is not a finite number.
"""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.datasets import load_digits

import cmcore as cm
from cmcore.backend import Backend

LIMIT, LAST = 0.02, 100
PLAIN = cm.networks.UNet((1, 8, 8), width=16, multipliers=(1, 2), blocks=1, attention=(2,))
Weights = dict[str, np.ndarray]


def trained(
    backend: Backend,
    data: np.ndarray,
    name: str,
    compute: str | None,
    steps: int,
    batch: int,
    teacher: Weights | None = None,
) -> tuple[np.ndarray, Weights]:
    """Return the loss of each step, (steps,), and the weights at the end."""
    recipe = cm.recipes.get(name)
    architecture = PLAIN.with_options(recipe.two_times, recipe.learned_weight)
    net = backend.network(architecture, seed=0, compute=compute)
    frozen = {"teacher": backend.network(PLAIN, teacher, compute=compute)} if recipe.needs_teacher else None
    trainer = cm.Trainer(backend, net, recipe.train_spec(seed=0, compiled=backend.name == "jax"), frozen)
    rng = np.random.default_rng(0)
    found = []
    for k in range(steps):
        x = backend.asarray(data[rng.integers(len(data), size=batch)])
        found.append(float(backend.to_numpy(trainer.step(k, x, recipe.scalars(k, steps)))))
    return np.array(found), trainer.weights("online")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--recipes", nargs="+", default=["ect", "scd"])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    backend = cm.use(args.backend)
    print(cm.backend.describe(backend))
    print("\n| recipe | float32 | bfloat16 | apart |\n|---|---|---|---|", flush=True)
    data = (load_digits().images[:, None] / 8 - 1).astype(np.float32)
    missed, teacher = False, trained(backend, data, "edm", None, args.steps, args.batch)[1]
    for name in args.recipes:
        wide, narrow = (
            trained(backend, data, name, compute, args.steps, args.batch, teacher)[0] for compute in (None, "bfloat16")
        )
        means = [float(found[-LAST:].mean()) for found in (wide, narrow)]
        apart = abs(means[1] / means[0] - 1)
        missed |= not (apart < LIMIT and np.isfinite(wide).all() and np.isfinite(narrow).all())
        print(f"| {name} | {means[0]:.5g} | {means[1]:.5g} | {apart:.2%} |", flush=True)
    if missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
