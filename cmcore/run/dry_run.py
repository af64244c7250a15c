"""``cmcore train --dry-run``: what would be trained, the memory that it takes by an estimate, and its time by some steps."""

from __future__ import annotations

import sys
from statistics import median
from typing import TYPE_CHECKING

from cmcore._words import counted
from cmcore.model import Model
from cmcore.networks.cost import activations, multiply_adds, parameters
from cmcore.run import memory, methods
from cmcore.run.config import Config
from cmcore.run.plan import Plan
from cmcore.run.report import Progress, duration, facts, size
from cmcore.run.train import prepared, resolved

if TYPE_CHECKING:
    from cmcore.run.data import Dataset

SECONDS = 3.0
"""For how long steps are timed, at most."""


def tell(
    config: Config,
    data: Dataset,
    progress: Progress,
    teacher: Model | None = None,
    init: Model | None = None,
    then: str = "",
) -> None:
    """Print the plan of a run, take some of its steps, and print how long all would take. Nothing is written or kept.

    ``then`` says what is trained after it by the same command.
    """
    config, backend = resolved(config)
    plan, run, weights = prepared(config, data, backend, None, teacher, init, progress)
    parts = bytes_needed(plan, config, teacher)
    total, machine = sum(parts.values()), memory.of_machine()
    each = ", ".join(f"{what} {size(count)}" for what, count in parts.items() if count)
    net = plan.architecture
    products, seen = multiply_adds(net), config.steps * config.batch / len(data.samples)
    compiled = ", the step compiled" if config.compiled else ""
    computes = "" if config.precision == "float32" else f", layers in {config.precision}"
    described = {
        "data": described_data(plan, len(data.samples)),
        "recipe": f"{plan.recipe.name}: {plan.recipe.summary} Needs {methods.needs(plan.recipe)}.",
        "network": f"{net.kind}, {counted(parameters(net), 'parameter')}"
        + (f", {products:,} multiply-adds an evaluation of a sample" if products else ""),
        "steps": f"{config.steps:,} of {counted(config.batch, 'sample')}, each sample about "
        f"{seen:,.{0 if seen >= 10 else 1}f} times; saved every {counted(config.save_interval(), 'step')}",
        "backend": f"{backend.name} on {backend.device}{compiled}{computes}",
        "memory": f"about {size(total)} by an estimate, besides the framework's own: {each}",
    }
    print(facts(described), flush=True)
    if getattr(backend, "memory", lambda: None)() is None and machine is not None and total > machine:
        print(facts({"time   ": f"not measured, for this machine has {size(machine)} of memory.", "then   ": then}))
        return
    with progress.phase("Taking some steps to time them", quiet=not sys.stderr.isatty()):
        first, steps = run.rehearse(weights, SECONDS)
    one = median(steps)
    used = memory.used(backend)
    print(
        facts(
            {
                "time   ": f"about {duration(first + one * max(config.steps - 1, 0))}, by {counted(len(steps), 'step')} taken here, "
                f"{one:.3g} s each, after {first:.1f} s to begin; saves and pictures come on top",
                "then   ": then,
                "taken  ": f"{size(used)} of memory by these steps, the program included" if used else "",
            }
        )
    )
    print("Nothing was written; to train, type the same without --dry-run.")


def bytes_needed(plan: Plan, config: Config, teacher: Model | None = None) -> dict[str, int]:
    """Return about how many bytes a run holds at once, by what they are for.

    Activations are those of one evaluation with a gradient of a part of the batch, twice where the method takes a derivative along
    a trajectory, whose tangents go the same way. Networks without a layer description have none that can be counted.
    """
    spec = plan.recipe.train_spec(seed=0, compiled=False)
    weights = 4 * parameters(plan.architecture)
    number = 4 if config.precision == "float32" else 2
    kept = activations(plan.architecture) * config.batch // config.accumulate * number
    return {
        "weights": weights,
        "gradient": weights,
        "optimiser (two moments)": 2 * weights,
        "averages": len(spec.averages) * weights,
        "teacher": 4 * parameters(teacher.architecture) if teacher else 0,
        "activations": kept * (2 if plan.recipe.needs_jvp else 1),
    }


def described_data(plan: Plan, count: int | None = None) -> str:
    """Return in words what data a plan is for, with their number where it is known."""
    about = plan.data
    what = "image" if about.images else "point" if len(about.shape) == 1 else "latent"
    several = f"{count:,} {what}s" if count is not None else f"{what}s"
    classes = f", {counted(len(about.classes), 'class', 'classes')}" if about.classes else ""
    return f"{about.name}: {several} of {' x '.join(map(str, about.shape))}{classes}"
