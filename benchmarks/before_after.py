"""Step times of two checkouts, side by side: two processes take turns, so that both meet the same machine.

    python benchmarks/before_after.py BEFORE AFTER --backend torch

BEFORE and AFTER are folders of checkouts, of cmcore from commit 577df90 on. For each network the median over rounds of (time
after) / (time before) is printed with its quartiles. ``--copies 2`` runs two processes of each: a process differs from its
twin by some per cent for as long as it lives.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

WORKER = """
import dataclasses, sys, time
import numpy as np
root, name, network, recipe = sys.argv[1:]
sys.path[:0] = [root, root + "/backends"]
import cmcore as cm
assert cm.__file__.startswith(root), cm.__file__
networks = cm.networks if hasattr(cm, "networks") else cm.architectures
backend, recipe = cm.load(name), cm.recipes.get(recipe)
if network == "mlp":
    architecture = networks.ResidualMLP((1, 8, 8), width=256, blocks=3)
else:
    architecture = networks.ResidualConv((1, 8, 8), width=16 if name == "tinygrad" else 32, multipliers=(1, 2), blocks=1)
if recipe.two_times:
    architecture = dataclasses.replace(architecture, two_times=True)
net = backend.network(architecture)
if hasattr(cm, "Trainer"):
    trainer = cm.Trainer(backend, net, recipe.train_spec(seed=1))
else:
    trainer = backend.trainer(net, recipe.loss, optimizer=recipe.optimizer, tau=recipe.tau, draws=recipe.draws,
                              keep_target=recipe.keep_target, seed=1)
data = np.random.default_rng(0).uniform(-1, 1, (256 if network == "mlp" else 64, 1, 8, 8)).astype(np.float32)
k = 0
for line in sys.stdin:
    limit, steps, start = float(line), 0, time.perf_counter()
    while time.perf_counter() - start < limit or not steps:
        loss = trainer.step(k, data, recipe.scalars(k, 100_000))
        k, steps = k + 1, steps + 1
        if name == "jax" or steps % 8 == 0:
            backend.to_numpy(loss)
    backend.to_numpy(loss)
    print((time.perf_counter() - start) / steps, flush=True)
"""


class Worker:
    """A process that trains with one checkout for as long as it is told to."""

    def __init__(self, root: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", WORKER, str(root.resolve()), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, seconds: float) -> float:
        """Return the mean time of a step."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """Let the process go."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--networks", nargs="+", default=["mlp", "conv"])
    parser.add_argument("--recipe", default="ect")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each turn")
    parser.add_argument("--copies", type=int, default=2)
    args = parser.parse_args()
    for network in args.networks:
        # In the order before, after, after, before, ...: what a place in the order does meets both.
        places = [args.before, args.after, args.after, args.before][: 2 * args.copies]
        workers = [(root, Worker(root, args.backend, network, args.recipe)) for root in places]
        for _, worker in workers:
            worker.run(3.0)
        ratios = []
        for _ in range(args.rounds):
            times = [(root, worker.run(args.seconds)) for root, worker in workers]
            mean = {r: median(t for root, t in times if root == r) for r in (args.before, args.after)}
            ratios.append(mean[args.after] / mean[args.before])
        low, _, high = quantiles(ratios, n=4)
        print(f"{args.backend:9} {network:5} {median(ratios):.3f} ({low:.3f} - {high:.3f})", flush=True)
        for _, worker in workers:
            worker.end()


if __name__ == "__main__":
    main()
