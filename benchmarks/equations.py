"""Where each numbered equation and algorithm of Song et al. (2023, arXiv:2303.01469) is in the code, as a table.

python benchmarks/equations.py            # print it
python benchmarks/equations.py --write    # put it into docs/methods.md, where a test wants it as it is printed
"""

from __future__ import annotations

import argparse
import inspect
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import cmcore

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "methods.md"
BEGIN, END = "<!-- equations: python benchmarks/equations.py --write -->", "<!-- end of equations -->"

PLACES = (
    ("equation 1", "the forward SDE: its marginals `x_t = x_0 + t z`", "cmcore.paths.Path.perturb"),
    ("equation 1", "its diffusion coefficient, `sqrt(2 t)`", "cmcore.paths.VE.diffusion"),
    ("equation 2", "the probability-flow ODE on any path", "cmcore.paths.Path.velocity"),
    ("equation 3", "the empirical PF ODE, `dx/dt = -t s(x, t)`: its slope, of a denoiser", "cmcore.solvers.onestep.slope"),
    ("equation 3", "the score of a denoiser", "cmcore.paths.Path.score"),
    ("equations 4, 5", "`f(x, t) = c_skip(t) x + c_out(t) F(x, t)`, the identity at t_min", "cmcore.parametrization.ConsistencyFunction.__call__"),
    ("equation 5", "its c_skip and c_out (appendix C)", "cmcore.parametrization.Boundary.scalings"),
    ("equation 6", "one step of an ODE solver: Euler's", "cmcore.solvers.onestep.euler"),
    ("equation 6", "Heun's, of the paper's experiments", "cmcore.solvers.onestep.heun"),
    ("equation 7", "the consistency distillation loss", "cmcore.losses.consistency"),
    ("equation 8", "the target network, an exponential moving average", "cmcore.ema.Constant"),
    ("equation 9", "the unbiased estimate of the score", "cmcore.paths.VE.score_estimate"),
    ("equation 10", "the consistency training loss: the same, with that estimate in the teacher's place", "cmcore.losses.consistency"),
    ("algorithm 1", "multistep consistency sampling", "cmcore.sampling.multistep"),
    ("algorithm 2", "consistency distillation", "cmcore.recipes.distillation.ConsistencyDistillation"),
    ("algorithm 3", "consistency training", "cmcore.recipes.training.ConsistencyTraining"),
    ("algorithm 4", "zero-shot editing", "cmcore.editing.edit"),
    ("section 3", "one-step generation", "cmcore.sampling.onestep"),
    ("section 3", "searching for the times of several steps: ternary search", "cmcore.search.ternary"),
    ("section 4", "the grid of times (Karras et al., 2022, equation 5)", "cmcore.grids.karras_host"),
    ("section 4", "two neighbours of it, all equally likely", "cmcore.grids.uniform_pair"),
    ("theorem 5 and 6", "the limits without a grid: distillation", "cmcore.recipes.continuous.ContinuousDistillation"),
    ("theorem 5 and 6", "and training", "cmcore.recipes.continuous.ContinuousTraining"),
    ("appendix C", "the schedules N(k) and mu(k) of training", "cmcore.grids.Progressive"),
    ("appendix D", "the times of editing", "cmcore.editing.edit_times"),
)  # fmt: skip
"""The place in the paper, what is there, and the function or class that is it."""


def found(name: str) -> Any:
    """Return the object of a dotted name."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            thing: Any = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing.func if isinstance(thing, cached_property) else thing
    raise LookupError(name)


def table() -> str:
    """Return the table as Markdown."""
    lines = ["| in the paper | what | in the code | where |", "|---|---|---|---|"]
    for place, what, name in PLACES:
        thing = inspect.unwrap(found(name))
        # As the repository has it, be the package used from there or installed.
        file = Path(cmcore.__name__, Path(str(inspect.getsourcefile(thing))).relative_to(Path(cmcore.__file__).parent))
        lines.append(f"| {place} | {what} | `{name}` | {file}:{inspect.getsourcelines(thing)[1]} |")
    return "\n".join(lines)


def parted(page: str) -> tuple[str, str, str]:
    """Return what is before the page's table, the table, and what is after."""
    before, _, rest = page.partition(BEGIN)
    inside, _, after = rest.partition(END)
    return before, inside.strip(), after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if not parser.parse_args().write:
        print(table())
        return
    before, _, after = parted(PAGE.read_text())
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
