"""What the library costs: our train step against the same step written by hand in the framework.

    python benchmarks/overhead.py --backend torch --net mlp --recipe ct --rounds 40

Both steps use the same network, optimiser, compile setting, averages and amount of random numbers; the other's is the
one screen of ``by_hand_*.py`` beside this file. First both take a few steps with the same draws and must agree in loss
and averaged weights, so that like is compared with like. Then two copies of each, built in the order ours, theirs, theirs,
ours, take turns in one process, a block of steps each, in reversed order from round to round; the ratio is the median over
rounds of (our time) / (their time), with its quartiles. Give several recipes or nets, or leave them out, for a table of all.
"""

import argparse
import importlib
import itertools
import math
from dataclasses import dataclass

import numpy as np
from turns import take_turns

import cmcore as cm

SEED, STEPS, LR, EMA = 0, 100_000, 1e-3, 0.999
RECIPES = {
    "ct": ("ct", {"mu0": 0.0}),  # no target network
    "ct-target": ("ct", {}),
    "cd": ("cd", {}),  # Heun steps of the teacher
}


@dataclass(frozen=True)
class Case:
    """A network and a batch of data for it."""

    architecture: cm.networks.Architecture
    batch: int


def case(net, backend_name):
    """The case of that name; tinygrad's convolutions are slow on a CPU, so its net is smaller."""
    if net == "tiny":
        return Case(cm.networks.ResidualMLP((3,), width=8, blocks=1), 4)
    if net == "mlp":
        return Case(cm.networks.ResidualMLP((1, 8, 8), width=256, blocks=3), 256)
    width = 16 if backend_name == "tinygrad" else 32
    return Case(cm.networks.ResidualConv((1, 8, 8), width=width, multipliers=(1, 2), blocks=1), 64)


class Ours:
    """The library's train step."""

    def __init__(self, backend, recipe, net, teacher):
        frozen = {"teacher": teacher} if recipe.needs_teacher else None
        self.backend, self.recipe = backend, recipe
        self.trainer = cm.Trainer(backend, net, recipe.train_spec(seed=SEED), frozen)

    def step(self, k, x0):
        return self.trainer.step(k, x0, self.recipe.scalars(k, STEPS))

    def averaged(self):
        return self.trainer.weights("ema")


class ByHand:
    """The step written directly, and the paper's curriculum inlined."""

    def __init__(self, backend, recipe, net, teacher):
        module = importlib.import_module(f"by_hand_{backend.name}")
        self.backend, self.recipe = backend, recipe
        self.training = module.Training(
            net,
            teacher if recipe.needs_teacher else None,
            recipe.keep_target,
            recipe.sigma_data,
            recipe.optimizer.algorithm,
            LR,
            SEED,
        )

    def step(self, k, x0, draws=None):
        n, mu = 18.0, 0.0
        if not self.recipe.needs_teacher:
            n = math.ceil(math.sqrt(k / STEPS * (151**2 - 2**2) + 2**2) - 1) + 1.0
            mu = math.exp(2 * math.log(0.9) / n)
        return self.training.step(x0, n, mu, min(EMA, (1 + k) / (10 + k)), draws)

    def averaged(self):
        return self.training.averaged()


def setting(backend, net, recipe_name, optimizer):
    """Return the recipe, the online network, the teacher and a few batches of data."""
    chosen, optimizer = case(net, backend.name), cm.Optimizer(optimizer, lr=LR)
    name, options = RECIPES[recipe_name]
    recipe = cm.recipes.get(name, optimizer=optimizer, ema=EMA, **options)
    rng = np.random.default_rng(SEED)
    data = [rng.uniform(-1, 1, (chosen.batch, *chosen.architecture.shape)).astype(np.float32) for _ in range(8)]

    def network(seed):
        # Away from the zeros of a fresh network, every part of it matters to the loss.
        weights = chosen.architecture.init(seed)
        noise = np.random.default_rng(seed)
        jiggled = {n: w + 0.02 * noise.standard_normal(w.shape).astype(np.float32) for n, w in weights.items()}
        return backend.network(chosen.architecture, jiggled)

    return recipe, network(0), network(1), [backend.asarray(x) for x in data]


def check_equal(backend, recipe, net, teacher, data, steps=4):
    """Take a few steps both ways with the same draws; raise if losses or averaged weights differ."""
    ours, theirs = Ours(backend, recipe, net, teacher), ByHand(backend, recipe, net, teacher)
    for k in range(steps):
        x0, stream = data[k % len(data)], backend.stream(SEED, k)
        draws = stream.normal(tuple(x0.shape)), stream.uniform((x0.shape[0],))
        mine, other = (float(backend.to_numpy(v)) for v in (ours.step(k, x0), theirs.step(k, x0, draws)))
        if not math.isclose(mine, other, rel_tol=1e-3):
            raise SystemExit(f"The two steps differ: at step {k} our loss is {mine}, by hand it is {other}.")
    mine, other = ours.averaged(), theirs.averaged()
    for name, weight in mine.items():
        worst = np.abs(weight - np.asarray(other[name]).reshape(weight.shape)).max()
        if worst > 1e-2 * LR * steps:
            raise SystemExit(f"The two steps differ: after {steps} steps the weight {name} does, by {worst}.")


def measure(backend, recipe, net, teacher, data, rounds, seconds):
    """Return the time of one step, (rounds, 2) in seconds: ours and by hand, each the mean of two copies.

    A copy can be faster than its twin by some per cent, for where its memory lies; which is built first matters, too.
    """
    kinds = {"ours": Ours, "by hand": ByHand, "by hand, again": ByHand, "ours, again": Ours}
    ways = {name: stepping(kind(backend, recipe, net, teacher), data) for name, kind in kinds.items()}
    for way in ways.values():
        for _ in range(5):  # compiles
            loss = way()
        backend.to_numpy(loss)
    times = take_turns(ways, rounds, seconds, wait=backend.to_numpy)
    return np.stack([np.mean([times[name], times[f"{name}, again"]], axis=0) for name in ("ours", "by hand")], axis=1)


def stepping(trainer, data):
    """Return a function that takes the trainer's next step, with the next batch."""
    numbers = itertools.count()

    def step():
        k = next(numbers)
        return trainer.step(k, data[k % len(data)])

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", required=True, choices=("torch", "jax", "tinygrad"))
    parser.add_argument("--device", default=None)
    parser.add_argument("--net", nargs="+", choices=("tiny", "mlp", "conv"), default=("mlp", "conv"))
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=tuple(RECIPES))
    parser.add_argument("--optimizer", choices=("adam", "radam"), default="adam", help="no radam on tinygrad")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one block (default %(default)s)")
    args = parser.parse_args()

    backend = cm.use(args.backend, device=args.device)
    print(f"{cm.backend.describe(backend)}, {args.optimizer}, {args.rounds} rounds\n")
    print("| net | recipe | ours / by hand | quartiles | ours, steps/s | by hand, steps/s |")
    print("|---|---|---|---|---|---|", flush=True)
    for net, recipe_name in itertools.product(args.net, args.recipe):
        recipe, online, teacher, data = setting(backend, net, recipe_name, args.optimizer)
        check_equal(backend, recipe, online, teacher, data)
        times = measure(backend, recipe, online, teacher, data, args.rounds, args.seconds)
        low, ratio, high = np.quantile(times[:, 0] / times[:, 1], (0.25, 0.5, 0.75))
        speed = 1 / np.median(times, axis=0)
        print(
            f"| {net} | {recipe_name} | **{ratio:.3f}** | {low:.3f} - {high:.3f} | {speed[0]:.1f} | {speed[1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
