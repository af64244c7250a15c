"""What the methods of two neighbouring times share: the consistency loss, from x at t to x at r."""

from __future__ import annotations

from typing import Protocol

from cmcore import losses, solvers
from cmcore.backend import Array, Network
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.paths import Denoiser
from cmcore.recipes import given
from cmcore.recipes.recipe import Batch, Nets


class Discrete(Protocol):
    """A method that compares the outputs of a consistency function."""

    def function(self, net: Network) -> ConsistencyFn:
        """Return the network as a consistency function."""
        ...

    def compare(self, x: Array, y: Array) -> Array:
        """Return the distance of each sample, (B,)."""
        ...


def neighbours_agree(
    recipe: Discrete,
    nets: Nets,
    batch: Batch,
    times: TimePair,
    denoiser: Denoiser | None = None,
    step: solvers.Step = solvers.euler,
    target: ConsistencyFn | None = None,
) -> Array:
    """Return the distance of the outputs at two points of one trajectory, (B,) (Song et al. 2023, algorithms 2 and 3).

    ``denoiser`` is the one whose ODE a ``step`` follows; None is the unbiased one, which knows the sample's own x_0. ``target``
    is the function at the second point, by default the target network.
    """
    return losses.consistency(
        recipe.function(given.network(nets, "online")),
        target or recipe.function(given.network(nets, "target")),
        batch.x0,
        batch.z,
        times.t,
        times.r,
        denoiser=denoiser,
        step=step,
        distance=recipe.compare,
        cond=batch.cond,
    )
