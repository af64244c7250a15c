"""Does compiling the train step pay? Seconds to compile, step times eager and compiled, and the step from which it has paid.

    python benchmarks/compiling.py --backend torch [--device cuda] [--net mlp conv] [--recipe ect sct]

The networks are those that ``cmcore train`` chooses by default: ``mlp`` for 8 x 8 grey pixels, ``conv`` for 32 x 32 RGB. Both
steps take turns in one process; times are medians.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import cmcore as cm

CASES = {"mlp": (cm.networks.ResidualMLP((1, 8, 8)), 256), "conv": (cm.networks.ResidualConv((3, 32, 32)), 32)}
"""Each network with the batch of a step."""


def trainer(backend, architecture, recipe, compiled):
    """Return a function of the step's number that takes a step and waits for it."""
    spec = recipe.train_spec(compiled=compiled, dropout=architecture.drops)
    made = cm.Trainer(backend, backend.network(architecture, seed=0), spec)

    def step(index, x):
        return float(backend.to_numpy(made.step(index, x, recipe.scalars(index, 1000))))

    return step


def timed(step, *args):
    start = time.perf_counter()
    step(*args)
    return time.perf_counter() - start


def measure(backend, architecture, recipe, batch, rounds, seconds):
    """Return (seconds of the first compiled step, of an eager one, of a compiled one)."""
    rng = np.random.default_rng(0)
    x = backend.asarray(rng.uniform(-1, 1, (batch, *architecture.shape)).astype(np.float32))
    eager, compiled = (trainer(backend, architecture, recipe, c) for c in (False, True))
    timed(eager, 0, x)
    first = sum(timed(compiled, index, x) for index in range(4))  # what records or specialises on its first calls
    times = {eager: [], compiled: []}
    steps = {step: max(1, min(50, round(seconds / timed(step, 4, x)))) for step in times}
    for index in range(5, 5 + rounds):
        for step, found in times.items():
            found.append(min(timed(step, index, x) for _ in range(steps[step])))
    return first, *(float(np.median(found)) for found in times.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--device")
    parser.add_argument("--net", nargs="+", choices=CASES, default=tuple(CASES))
    parser.add_argument("--recipe", nargs="+", default=("ect", "sct"))
    parser.add_argument("--batch", type=int, help="instead of 256 (mlp) and 32 (conv)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each kind in a round (%(default)s)")
    args = parser.parse_args()
    backend = cm.use(args.backend, device=args.device)
    print(f"{cm.backend.describe(backend)}\n")
    print(
        "| backend | network | recipe | to compile, s | eager, ms | compiled, ms | eager / compiled | pays from step |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for net in args.net:
        plain, batch = CASES[net]
        for name in args.recipe:
            recipe = cm.recipes.get(name)
            architecture = plain.with_options(recipe.two_times, recipe.learned_weight)
            first, eager, compiled = measure(
                backend, architecture, recipe, args.batch or batch, args.rounds, args.seconds
            )
            gain = eager - compiled
            pays = f"{max(0.0, first - 4 * compiled) / gain:,.0f}" if gain > 0 else "never"
            print(
                f"| {backend.name} | {net} | {name} | {first:.1f} | {1e3 * eager:.2f} | {1e3 * compiled:.2f} | "
                f"{eager / compiled:.2f} | {pays} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
