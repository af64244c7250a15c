"""Inductive moment matching: what jumps from two neighbouring times lead to must have one distribution, not pair by pair."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from cmcore.backend import Array, namespace, stop_gradient
from cmcore.ema import Average
from cmcore.grids import TimePair
from cmcore.optimization import Optimizer
from cmcore.options import AT_LEAST_ONE, FINITE, NOT_NEGATIVE, Limit, option
from cmcore.recipes import given
from cmcore.recipes.part import Part
from cmcore.recipes.recipe import Batch, Nets
from cmcore.recipes.straight import PATH, StraightFlowMap

LEAST = 1e-8
"""The least distance that the kernel tells from 0, where a norm has no gradient."""


def laplace_discrepancy(x: Array, y: Array, width: Array) -> Array:
    """Return the squared maximum mean discrepancy of two groups of M samples, (G,), with a Laplace kernel (Zhou et al. 2025, sec. 4).

    x and y are (G, M, ...), width (G,); ``k(a, b) = exp(-|a - b| / (D width))`` for D coordinates. All pairs count, a sample with
    itself too.
    """
    xp, size = namespace(x), math.prod(x.shape[2:])

    def mean_kernel(a: Array, b: Array) -> Array:
        pairs = xp.expand_dims(a, axis=2) - xp.expand_dims(b, axis=1)
        squared = xp.sum(xp.reshape(pairs, (*a.shape[:2], b.shape[1], size)) ** 2, axis=-1)
        distance = xp.sqrt(xp.maximum(squared, xp.full_like(squared, LEAST**2)))
        return xp.mean(xp.exp(-distance / (size * xp.reshape(width, (-1, 1, 1)))), axis=(1, 2))

    return mean_kernel(x, x) + mean_kernel(y, y) - 2.0 * mean_kernel(x, y)


@dataclass(frozen=True)
class Grouped(Part):
    """Groups of ``particles`` samples share their times t and s, uniform in [``edge``, 1 - ``edge``], s below t.

    A third time r lies between: its ratio of noise to signal, ``r / (1 - r)``, is below that of t by ``2^-gap_exponent`` of the whole range.
    """

    particles: int = option(4, "samples that share their times; they divide the batch", AT_LEAST_ONE)
    gap_exponent: float = option(12.0, "r lies below t by 2^-this of the range of noise-to-signal ratios", NOT_NEGATIVE)
    edge: float = option(
        0.006, "the times' distance from 0 and 1", Limit(lambda v: 0 < v < 0.5, "above 0, below a half")
    )

    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Draw t and s, uniform below it, for each group."""
        u, v = (self._shared(draws[name]) for name in ("t", "s"))
        t = self.edge + (1.0 - 2.0 * self.edge) * u
        gap = (t - self.edge) * (1.0 - v)
        return TimePair(t, t - gap, gap)

    def between(self, times: TimePair) -> Array:
        """Return r, (B,)."""
        least, most = self.edge / (1.0 - self.edge), (1.0 - self.edge) / self.edge
        ratio = namespace(times.t).maximum(
            times.t / (1.0 - times.t) - (most - least) / 2.0**self.gap_exponent, times.r / (1.0 - times.r)
        )
        return ratio / (1.0 + ratio)

    def groups(self, x: Array) -> Array:
        """Return (B, ...) as (B / particles, particles, ...); `ValueError` for a batch that cannot be divided so."""
        if x.shape[0] % self.particles:
            raise ValueError(
                f"The samples are taken in groups of {self.particles} (the option particles), and the batch has {x.shape[0]}, which is "
                "no multiple of it."
            )
        return namespace(x).reshape(x, (x.shape[0] // self.particles, self.particles, *x.shape[1:]))

    def _shared(self, values: Array) -> Array:
        """The first of each group's values for all of the group."""
        groups = self.groups(values)
        xp = namespace(groups)
        return xp.reshape(xp.broadcast_to(groups[:, :1], groups.shape), values.shape)


@final
@dataclass(frozen=True)
class InductiveMomentMatching(Grouped, StraightFlowMap):
    """IMM: the jumps to s from times t and r, neighbours, lead to one distribution; they need not lead to the same points.

    What they lead to is compared within groups of samples, by a Laplace kernel whose width is the length of the jump.
    """

    weight_a: float = option(1.0, "a of the weight's factor (1 - t)^a", NOT_NEGATIVE)
    weight_b: float = option(5.0, "b of the weight's factor sigmoid(b - ln SNR)", FINITE)
    optimizer: Optimizer = Optimizer("radam", lr=1e-4)
    average: Average = Average(0.9999)

    name = "imm"
    summary = "Jumps by matching distributions, from data alone: steady without tuning, wants large batches."
    citation = "zhou2025"
    draws = {"t": "uniform", "s": "uniform"}

    def weight(self, times: TimePair) -> Array:
        """Return ``sigmoid(b - ln SNR) (1 - t)^a / (t (1 - t) (t^2 + (1 - t)^2))``, (B,) (Zhou et al. 2025, equation 13)."""
        t, signal = times.t, 1.0 - times.t
        return (
            t * signal ** (self.weight_a - 1.0) / ((t**2 + math.exp(-self.weight_b) * signal**2) * (t**2 + signal**2))
        )

    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return each sample's group's discrepancy, (B,) (Zhou et al. 2025, algorithm 1)."""
        r, ends = self.between(times), []
        for name, start in (("online", times.t), ("target", r)):
            x = PATH.perturb(batch.x0, batch.z, start)
            ends.append(self.groups(self.function(given.network(nets, name))(x, start, times.r, **batch.cond)))
        width = self.sigma_data * self.groups(times.gap)[:, 0]
        found = laplace_discrepancy(
            ends[0], stop_gradient(ends[1]), namespace(width).maximum(width, 0.0 * width + 1e-6)
        )
        return namespace(found).reshape(
            0.0 * self.groups(times.t) + namespace(found).expand_dims(found, axis=1), r.shape
        )
