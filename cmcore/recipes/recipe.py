"""What all methods share: a declaration of what is trained, at which times, and what is minimised."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from cmcore import distances, grids, sampling, solvers, weightings
from cmcore._arrays import check_real, check_same, check_state
from cmcore._options import check_kind
from cmcore.backend import Array, Network, namespace
from cmcore.ema import Average
from cmcore.grids import TimePair
from cmcore.losses import ConsistencyFn
from cmcore.optimization import Optimizer
from cmcore.options import Limit, check_options, option
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction, Parametrization
from cmcore.paths import VE, VP, Cosine, Linear, Path
from cmcore.recipes import given
from cmcore.sampling import Noise
from cmcore.training import TrainSpec

Nets = Mapping[str, Network]
"""The networks of a train step: "online", "target" and, for distillation, "teacher"."""

DISTANCES: dict[str, distances.Distance] = {
    "l1": distances.l1,
    "squared_l2": distances.squared_l2,
    "pseudo_huber": distances.PseudoHuber(),
    "norm": distances.PseudoHuber(1e-8),
}
WEIGHTINGS: dict[str, weightings.Weighting] = {
    "uniform": weightings.uniform,
    "snr": weightings.snr,
    "snr_plus_one": weightings.snr_plus_one,
    "truncated_snr": weightings.truncated_snr,
    "karras": weightings.karras,
    "inverse_gap": weightings.inverse_gap,
}
STEPS: dict[str, solvers.Step] = {"euler": solvers.euler, "heun": solvers.heun}
PATHS: dict[str, Path] = {"ve": VE(), "vp": VP(), "cosine": Cosine(), "linear": Linear()}

WELL_BELOW = 10.0
"""How far the data's scale should be below t_max, and above t_min, as a factor."""


class Batch(NamedTuple):
    """What a train step is given besides networks and times.

    ``x0``, ``z`` are (B, ...), data and standard normal noise; ``tau`` the recipe's random numbers, (B,) or (B, draws);
    ``scalars`` the curriculum's values, each (); ``cond`` what the networks are conditioned on, by argument name.
    """

    x0: Array
    z: Array
    tau: Array
    scalars: Mapping[str, Array]
    cond: Mapping[str, Array]


@dataclass(frozen=True)
class Recipe(ABC):
    """What all methods share: the data's standard deviation, the range of times, distance, weighting, optimiser, average.

    Data should have a mean near 0 and a standard deviation, ``sigma_data``, of about 0.5, as pixels in [-1, 1] have: the times
    reach from t_min to t_max whatever the data. Where sigma_data, or the root mean square of a trainer's first batch, is
    more than a tenth of t_max, or sigma_data less than ten times t_min, a warning says so.

    ``learned_weight`` multiplies each sample's loss L by ``e^w`` and subtracts w, a function of the time that the network
    learns (its method ``log_weight``): at the optimum every time's weighted loss is 1 (Karras et al. 2024; Lu & Song 2024).
    """

    sigma_data: float = option(
        0.5,
        "the data's standard deviation",
        Limit(lambda v: 0 < v < math.inf, "positive and finite: it is the data's standard deviation"),
    )
    t_min: float = option(grids.T_MIN, "the time at which the function is the identity")
    t_max: float = option(grids.T_MAX, "the time at which sampling starts")
    distance: str = option("squared_l2", "the distance of an answer to its target", DISTANCES)
    weighting: str = option("uniform", "how much each pair of times counts", WEIGHTINGS)
    learned_weight: bool = option(False, "learn how much each time counts (Karras et al. 2024)")
    optimizer: Optimizer = Optimizer()
    average: Average = Average()

    name: ClassVar[str]
    summary: ClassVar[str]
    citation: ClassVar[str]
    tau: ClassVar[Literal["uniform", "normal"]] = "uniform"
    teachers: ClassVar[tuple[str, ...]] = ()
    """The recipes that a teacher may have been trained with; none: the method takes no teacher."""
    starts_as_teacher: ClassVar[bool] = False
    """Whether the teacher is known to the method by nothing but the weights that the network starts from."""
    needs_jvp: ClassVar[bool] = False
    """Whether the loss takes a Jacobian-vector product of the network."""
    default_steps: ClassVar[int] = 1
    """How many steps a sampler takes where nothing else is asked for."""
    two_times: ClassVar[bool] = False
    """Whether the network is told, besides the time of its input, a second one: where to go (``c_end``)."""
    ends_at_zero: ClassVar[bool] = False
    """Whether the function is the identity at t = 0, as under EDM's scalings, rather than at t_min."""
    fixed: ClassVar[tuple[str, ...]] = ()
    """The options that the method leaves no choice of: changing one would do nothing, or nothing that makes sense."""

    def __init_subclass__(cls, **settings: Any) -> None:
        """Let the nearest declaration of an option count, as for any attribute.

        Of several bases a dataclass would take each field as the first one has it, be it declared there or inherited.
        """
        super().__init_subclass__(**settings)
        inherited = {f.name: f for base in reversed(cls.__mro__[1:]) if is_dataclass(base) for f in fields(base)}
        for name, field in inherited.items():
            if name not in cls.__annotations__ and (nearest := getattr(cls, name)) is not field.default:
                cls.__annotations__[name] = field.type
                setattr(cls, name, nearest)

    def __post_init__(self) -> None:
        if "__dataclass_fields__" not in vars(type(self)):
            raise TypeError(f"A recipe must be a dataclass: write @dataclass(frozen=True) above {type(self).__name__}.")
        check_options(self)
        self._check_fixed()
        grids.check_range(self.t_min, self.t_max)
        if self.sigma_data > self.t_max / WELL_BELOW:
            warnings.warn(
                f"sigma_data={self.sigma_data:g} is not well below t_max={self.t_max:g}: samples start from noise in which such "
                "data can still be seen. Scale the data to a standard deviation of about 0.5 (or raise t_max).",
                stacklevel=3,
            )
        if self.sigma_data < self.t_min * WELL_BELOW:
            warnings.warn(
                f"sigma_data={self.sigma_data:g} is not well above t_min={self.t_min:g}: the least noise hides what such data hold. "
                "Scale the data to a standard deviation of about 0.5 (or lower t_min).",
                stacklevel=3,
            )

    def _check_fixed(self) -> None:
        """Raise `ValueError` if an option is changed that the recipe leaves no choice of."""
        defaults = {option.name: option.default for option in fields(self)}
        for name in self.fixed:
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"The recipe {self.name!r} leaves no choice of {name}: it stays {defaults[name]}, "
                    f"got {getattr(self, name)}."
                )

    @property
    def needs_teacher(self) -> bool:
        """Whether the method distils a teacher."""
        return bool(self.teachers)

    @property
    def draws(self) -> int:
        """How many random numbers, of the kind `tau`, each sample of a batch needs."""
        return 1

    @property
    def keep_target(self) -> bool:
        """Whether the target is an averaged copy of the network rather than the network itself."""
        return False

    def parametrization(self) -> Parametrization:
        """Return the scalings under which the trained network is used."""
        return EDM(self.sigma_data) if self.ends_at_zero else Boundary(self.sigma_data, self.t_min)

    def function(self, net: Network) -> ConsistencyFunction:
        """Return the network as the function this recipe trains: a consistency function, or EDM's denoiser."""
        return ConsistencyFunction(net, self.parametrization())

    @property
    def path(self) -> Path:
        """Return the path whose points and times the network is given."""
        return VE()

    @property
    def family(self) -> str:
        """Return the kind of network: the weights of one recipe can start another of the same family."""
        return "edm"

    @property
    def form(self) -> dict[str, Any]:
        """Return, as plain data, what makes the network's output a function to the data or a flow map."""
        scalings = self.parametrization()
        return {"kind": type(scalings).__name__, **asdict(scalings)}  # type: ignore[call-overload]

    def curriculum(self, step: int, total: int) -> dict[str, float]:
        """Return the values that change during training (N, mu, stage) at a step of a run of ``total`` steps."""
        return {}

    def scalars(self, step: int, total: int) -> dict[str, float]:
        """Return all that a train step must be told at a step: the curriculum's values, the optimiser's and the average's."""
        check_kind("The step", step, int)
        check_kind("The total number of training steps", total, int)
        return self.curriculum(step, total) | self.optimizer.scalars(step, total) | self.average.scalars(step)

    @abstractmethod
    def pair(self, tau: Array, scalars: Mapping[str, Array]) -> TimePair:
        """Turn random numbers, (B,) or (B, draws), into the batch's times; the field `tau` names their law."""

    @abstractmethod
    def per_sample(self, nets: Nets, batch: Batch, times: TimePair) -> Array:
        """Return the unweighted loss of each sample, (B,)."""

    def loss(
        self, nets: Nets, x0: Array, z: Array, tau: Array, scalars: Mapping[str, Array], cond: Mapping[str, Array]
    ) -> Array:
        """Return the weighted loss of each sample, (B,); what `train_spec` is made of."""
        check_state(x0, "x0")
        check_same(x0, z, "x0 and z")
        check_real(tau, "tau")
        expected = tuple(x0.shape[:1]) + (() if self.draws == 1 else (self.draws,))
        if tuple(tau.shape) != expected:
            raise ValueError(
                f"The recipe {self.name!r} draws {self.draws} random numbers for each sample: "
                f"tau must have the shape {expected}, got {tuple(tau.shape)}."
            )
        times = self.pair(tau, scalars)
        if not isinstance(times, TimePair):
            raise TypeError(f"The recipe {self.name!r} must draw a cmcore.grids.TimePair, got {type(times).__name__}.")
        value = self.per_sample(nets, Batch(x0, z, tau, scalars, cond), times)
        if tuple(value.shape) != tuple(times.t.shape):
            raise ValueError(
                f"The recipe {self.name!r} must have one loss per sample, of shape {tuple(times.t.shape)}, "
                f"got {tuple(value.shape)}."
            )
        value = WEIGHTINGS[self.weighting](times, self.sigma_data) * value
        if not self.learned_weight:
            return value
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
            self.tau,
            self.draws,
            self.keep_target,
            dropout,
            seed=seed,
            compiled=compiled,
            accumulate=accumulate,
            largest=self.t_max / WELL_BELOW,
        )

    def time_inputs(self, times: TimePair) -> tuple[Array, ...]:
        """Return the network's time inputs, c_noise and, with `two_times`, c_end, for a batch's times."""
        return (self.parametrization().scalings(times.t).c_noise,)

    def times(self, steps: int) -> tuple[float, ...]:
        """Return the default times of a sampler with that many steps: down from t_max on a Karras grid.

        The last of several is sigma_data, where signal and noise are equally strong: below it there is little left to
        mend, and above it an evaluation undoes more than it mends.
        """
        return down_to(steps, self.sigma_data, self.t_max)

    @property
    def lowest_time(self) -> float:
        """Return the lowest time that the network is trained to start from."""
        return self.t_min

    def sample(
        self,
        net: Network,
        z: Array,
        times: Sequence[float],
        noise: Noise,
        cond: Mapping[str, Array] | None = None,
    ) -> Array:
        """Turn standard normal z into samples by way of the given decreasing times."""
        return sampling.multistep(self.function(net), z, times, noise, self.arrival, cond=cond)

    def consistency(self, net: Network) -> ConsistencyFn:
        """Return the network as a consistency function f(x, t) on `cmcore.paths.VE`, whichever path and form it was trained in.

        It leads from points ``x_0 + t z`` to data at the time `arrival`.
        """
        return self.function(net)

    @property
    def arrival(self) -> float:
        """Return the time to which `consistency` leads, on `cmcore.paths.VE`."""
        return 0.0 if self.ends_at_zero else self.t_min

    def evaluations(self, steps: int) -> int:
        """Return the number of network evaluations (NFE) that a sampler with that many steps makes."""
        return steps


def down_to(steps: int, last: float, t_max: float) -> tuple[float, ...]:
    """Return the Karras grid of ``steps`` points from t_max down to ``last``; for one step, t_max alone."""
    if steps < 1:
        raise ValueError(f"Sampling needs at least one step, got {steps}.")
    if steps == 1:
        return (t_max,)
    if not last < t_max:
        raise ValueError(f"By default the last of several steps is at t = {last}, which is not below t_max = {t_max}.")
    return tuple(float(t) for t in grids.karras_host(steps, last, t_max)[::-1])
