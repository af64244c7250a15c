"""What all methods share: a declaration of what is trained, at which times, and what is minimised."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from cmcore import grids, solvers
from cmcore._arrays import check_real, check_same, check_state
from cmcore._options import check_kind
from cmcore.backend import Array, Network, namespace
from cmcore.ema import Average
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.optimization import Optimizer
from cmcore.options import Limit, check_options, option
from cmcore.paths import VE, VP, Cosine, Linear, Path
from cmcore.recipes import given
from cmcore.recipes.part import Part
from cmcore.sampling import Noise
from cmcore.training import TrainSpec

Nets = Mapping[str, Network]
"""The networks of a train step: "online", "target" and, for distillation, "teacher"."""

STEPS: dict[str, solvers.Step] = {"euler": solvers.euler, "heun": solvers.heun}
PATHS: dict[str, Path] = {"ve": VE(), "vp": VP(), "cosine": Cosine(), "linear": Linear()}

WELL_BELOW = 10.0
"""How far the data's scale should be below t_max, and above t_min, as a factor."""


class Batch(NamedTuple):
    """What a train step is given besides networks and times.

    ``x0``, ``z`` are (B, ...), data and standard normal noise; ``draws`` the recipe's random numbers by name, each (B,);
    ``scalars`` the curriculum's values, each (); ``cond`` what the networks are conditioned on, by argument name.
    """

    x0: Array
    z: Array
    draws: Mapping[str, Array]
    scalars: Mapping[str, Array]
    cond: Mapping[str, Array]


@dataclass(frozen=True)
class Recipe(Part, ABC):
    """What all methods share: the data's standard deviation, optimiser, average; how a loss is put together.

    Data should have a mean near 0 and a standard deviation, ``sigma_data``, of about 0.5, as pixels in [-1, 1] have.

    A method is a final class of one of the abstract ones, such as `cmcore.recipes.NoiseLevel` or
    `cmcore.recipes.StraightFlowMap`, and of the parts (`cmcore.recipes.part`) whose options it has. Where it has ``learned_weight``, that multiplies each sample's loss L by
    ``e^w`` and subtracts w, a function of the time that the network learns (its method ``log_weight``): at the optimum every
    time's weighted loss is 1 (Karras et al. 2024; Lu & Song 2024).
    """

    sigma_data: float = option(
        0.5,
        "the data's standard deviation",
        Limit(lambda v: 0 < v < math.inf, "positive and finite: it is the data's standard deviation"),
    )
    optimizer: Optimizer = Optimizer()
    average: Average = Average()

    summary: ClassVar[str]
    citation: ClassVar[str]
    draws: ClassVar[Mapping[str, str]] = {"t": "uniform"}
    """The random numbers that each sample needs, by name: "uniform" in [0, 1) or "normal"."""
    starts_as_teacher: ClassVar[bool] = False
    """Whether the teacher is known to the method by nothing but the weights that the network starts from."""
    needs_jvp: ClassVar[bool] = False
    """Whether the loss takes a Jacobian-vector product of the network."""
    default_steps: ClassVar[int] = 1
    """How many steps a sampler takes where nothing else is asked for."""
    two_times: ClassVar[bool] = False
    """Whether the network is told, besides the time of its input, a second one: where to go (``c_end``)."""

    def __post_init__(self) -> None:
        if "__dataclass_fields__" not in vars(type(self)):
            raise TypeError(f"A recipe must be a dataclass: write @dataclass(frozen=True) above {type(self).__name__}.")
        check_options(self)
        for cls in reversed(type(self).__mro__):
            if check := vars(cls).get("check"):
                check(self)

    @property
    def needs_teacher(self) -> bool:
        """Whether the method distils a teacher."""
        return bool(self.teachers)

    @property
    @abstractmethod
    def path(self) -> Path:
        """Return the path whose points and times the network is given."""

    @property
    @abstractmethod
    def network_kind(self) -> str:
        """Return the kind of network: the weights of one recipe can start another of the same family."""

    @property
    @abstractmethod
    def parametrization_data(self) -> dict[str, Any]:
        """Return, as plain data, what makes the network's output a function to the data or a flow map."""

    @abstractmethod
    def function(self, net: Network) -> Any:
        """Return the network as the function that the recipe trains: a consistency function, a denoiser, a flow map."""

    @abstractmethod
    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return the network's time inputs, c_noise and, with `two_times`, c_end, for a batch's times."""

    @property
    @abstractmethod
    def highest_time(self) -> float:
        """Return the time at which sampling starts."""

    @property
    def largest(self) -> float:
        """Return the root mean square up to which a batch is well below the noise that sampling starts from."""
        return grids.T_MAX / WELL_BELOW

    @abstractmethod
    def pair(self, draws: Mapping[str, Array], scalars: Mapping[str, Array]) -> TimePair:
        """Turn the random numbers `draws`, each (B,), into the batch's times."""

    @abstractmethod
    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the unweighted loss of each sample, (B,)."""

    def scalars(self, step: int, total: int) -> dict[str, float]:
        """Return all that a train step must be told at a step: the curriculum's values, the optimiser's and the average's."""
        check_kind("The step", step, int)
        check_kind("The total number of training steps", total, int)
        return self.curriculum(step, total) | self.optimizer.scalars(step, total) | self.average.scalars(step)

    def loss(
        self,
        nets: Nets,
        x0: Array,
        z: Array,
        draws: Mapping[str, Array],
        scalars: Mapping[str, Array],
        cond: Mapping[str, Array],
    ) -> Array:
        """Return the weighted loss of each sample, (B,); what `train_spec` is made of."""
        check_state(x0, "x0")
        check_same(x0, z, "x0 and z")
        self._check_draws(draws, tuple(x0.shape[:1]))
        times = self.pair(draws, scalars)
        if not isinstance(times, TimePair):
            raise TypeError(f"The recipe {self.name!r} must draw a cmcore.grids.TimePair, got {type(times).__name__}.")
        value = self.per_sample(nets, Batch(x0, z, draws, scalars, cond), times)
        if tuple(value.shape) != tuple(times.t.shape):
            raise ValueError(
                f"The recipe {self.name!r} must have one loss per sample, of shape {tuple(times.t.shape)}, "
                f"got {tuple(value.shape)}."
            )
        value = self.weight(times) * value
        return self._levelled(nets, times, value) if self.learned_weight else value

    def _check_draws(self, draws: Mapping[str, Array], expected: tuple[int, ...]) -> None:
        if not isinstance(draws, Mapping) or draws.keys() != self.draws.keys():
            found = ", ".join(draws) if isinstance(draws, Mapping) else type(draws).__name__
            raise ValueError(f"The recipe {self.name!r} draws {', '.join(self.draws)} for each sample, got {found}.")
        for name, values in draws.items():
            check_real(values, f"The draw {name!r}")
            if tuple(values.shape) != expected:
                raise ValueError(
                    f"The recipe {self.name!r} draws a number {name!r} for each sample: it must have the shape {expected}, "
                    f"got {tuple(values.shape)}."
                )

    def _levelled(self, nets: Nets, times: TimePair, value: Array) -> Array:
        """The losses under the weight that the network learns, ``e^w L - w``."""
        net = given.network(nets, "online")
        if not hasattr(net, "log_weight"):
            raise ValueError(
                f"The recipe {self.name!r} learns how much each time counts, and the network given has no method "
                "log_weight(c_noise) for it: give it one (as networks built with log_weight=True have), or set learned_weight=False."
            )
        w = net.log_weight(*self.time_inputs(times))
        return namespace(w).exp(w) * value - w

    def train_spec(
        self, *, seed: int = 0, compiled: bool = True, dropout: bool = False, accumulate: int = 1
    ) -> TrainSpec:
        """Return what `cmcore.Trainer` minimises by this method; ``dropout`` where the network has any.

        ``accumulate`` is the number of parts in which a batch is taken, see `cmcore.TrainSpec`.
        """
        return TrainSpec(
            self.loss,
            self.optimizer,
            self.draws,
            self.keep_target,
            dropout,
            seed=seed,
            compiled=compiled,
            accumulate=accumulate,
            largest=self.largest,
        )

    @abstractmethod
    def times(self, steps: int) -> tuple[float, ...]:
        """Return the default times of a sampler with that many steps, from noise to data."""

    @abstractmethod
    def sample(
        self, net: Network, z: Array, times: Sequence[float], noise: Noise, cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Turn standard normal z into samples by way of the given decreasing times."""

    @abstractmethod
    def consistency(self, net: Network) -> ConsistencyFn:
        """Return the network as a consistency function f(x, t) on `cmcore.paths.VE`, whichever path and form it was trained in.

        It leads from points ``x_0 + t z`` to data at the time `arrival`.
        """

    @property
    @abstractmethod
    def arrival(self) -> float:
        """Return the time to which `consistency` leads, on `cmcore.paths.VE`."""

    def evaluations(self, steps: int) -> int:
        """Return the number of network evaluations (NFE) that a sampler with that many steps makes."""
        return steps
