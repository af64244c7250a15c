"""Probability paths: how data turn into noise, and what one quantity at a point says about the others.

A path is ``x_t = a(t) x_0 + b(t) z`` with ``z ~ N(0, noise_std^2 I)``. Its probability-flow ODE ``dx/dt = v(x, t)``
carries the distribution of x_t along. Four quantities describe it at a point (x, t), each of which gives the others exactly:

- denoiser ``D = E[x_0 | x_t = x]``;
- noise ``E[z | x_t = x] = (x - a D) / b``;
- score ``grad_x log p_t(x) = (a D - x) / (b noise_std)^2`` (Tweedie);
- velocity ``v = a' D + b' E[z | x_t = x]``.

The conversions go through the denoiser: ``velocity_from_score`` is ``velocity(x, t, denoiser_from_score(x, t, s))``.
Times are an array (B,), an array () or a number; the state x is (B, ...); results have x's shape, dtype and device.
A number is looked at: where a quantity is not defined, as noise, score and velocity are not at t = 0, it is a `ValueError`. An array,
which may be traced, is not: there the result is infinite or NaN.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

from cmcore._annotations import AboveZero, Condition, Rule, Together
from cmcore._arrays import check_real, is_number, per_sample
from cmcore._door import check_arguments
from cmcore.backend import Array, namespace
from cmcore.options import SigmaData
from cmcore.types import Denoiser as Denoiser
from cmcore.types import Number, PerSample, Samples, Time

PathTime = Annotated[Number, lambda value: functions(value)]
"""A time of a path: a number, or an array of any shape."""
OnPath = Annotated[Time, lambda self, value: self.check(value)]
"""A time of samples, which a path has."""
DataLeft = Annotated[Time, lambda self, value: self.check_data_left(value)]
"""The same, at which something of the data is left."""
Ratio = Annotated[
    PathTime,
    Rule(
        lambda sigma: 0 <= sigma < math.inf, "A noise-to-signal ratio sigma must be finite and at least 0, got {sigma}."
    ),
]
"""A noise-to-signal ratio."""
Later = Annotated[
    Number,
    lambda self, t: self.check(t),
    Rule(
        lambda s, t: 0 <= s <= t < math.inf,
        "A path leads from a time s of at least 0 to a finite time t of at least s, got s = {s} and t = {t}.",
    ),
    lambda self, s: self.check_data_left(s),
]
"""A time t of a path that is not before s, at which something of the data is left."""
LastBeta = Annotated[
    float,
    Rule(
        lambda beta_min, beta_max: 0 < beta_min <= beta_max < math.inf,
        "The betas must be positive, finite and in order, got beta_min = {beta_min}, beta_max = {beta_max}.",
    ),
]
"""The greatest beta of a variance-preserving path, at least the smallest."""
Quantity = Annotated[Samples, Together("x and the other quantity")]
"""One of the four quantities at the points x."""

_QUARTER_TURN = math.pi / 2
_ROUNDING = 1 + 1e-6
"""By how much the end of a path may be passed, as float32's nearest number to pi / 2 does."""
_NOTHING = 1e-15
"""An a(t) below this is the rounding error of 0."""
_NUMBERS = SimpleNamespace(
    **{name: getattr(math, name) for name in ("atan", "exp", "expm1", "log1p", "sqrt")},
    cos=lambda t: math.cos(t) if math.isfinite(t) else math.nan,
    sin=lambda t: math.sin(t) if math.isfinite(t) else math.nan,
    ones_like=lambda t: 1.0,
    zeros_like=lambda t: 0.0,
)


def functions(t: Array | float) -> Any:
    """Return the namespace of an array, or for a Python number what a path needs of one: compilers see a constant there.

    `TypeError` for what is neither a number nor an array of real floating-point numbers.
    """
    if not is_number(t):
        return check_real(t, "A path's time")
    return _NUMBERS if isinstance(t, (int, float)) else namespace(t)


def check_end(t: Number, end: float, of: str, what: str = "") -> None:
    """Raise `ValueError` if a time, given as a number, is beyond the end of a path, or of what is defined on one."""
    if is_number(t) and not float(t) <= end * _ROUNDING:
        raise ValueError(f"Times {of} are at most {end}, got {t}{what}.")


class Path(ABC):
    """The conversions, in terms of a, b, their derivatives and the standard deviation of the noise.

    A path of your own supplies the five methods, for arrays and, but for the derivatives, Python numbers (`functions`).
    """

    noise_std: float = 1.0
    end: float = math.inf
    """The last time, that of the most noise."""

    @abstractmethod
    def a(self, t: Array) -> Array:
        """Return the factor of the data at time t."""

    @abstractmethod
    def b(self, t: Array) -> Array:
        """Return the factor of the noise at time t."""

    @abstractmethod
    def da(self, t: Array) -> Array:
        """Return the derivative of `a`."""

    @abstractmethod
    def db(self, t: Array) -> Array:
        """Return the derivative of `b`."""

    @abstractmethod
    def time(self, sigma: Array) -> Array:
        """Return the time at which the noise-to-signal ratio is sigma; the inverse of `sigma`."""

    def sigma(self, t: Annotated[Number, lambda self, t: self.check(t)]) -> Array:
        """Return the noise-to-signal ratio ``b(t) noise_std / a(t)``: the time of the same point on `VE`."""
        a = self.a(t)
        return math.inf if is_number(a) and a == 0 else self.b(t) * self.noise_std / a

    def transition(self, s: Number, t: Later) -> tuple[Array, Array]:
        """Return c and std, shaped like the times: ``c x_s + std z``, z standard normal, has the distribution at t where x_s has that at s.

        The forward process from s to t > s: ``c = a(t) / a(s)``, ``std = noise_std sqrt(b(t)^2 - (c b(s))^2)``. Numbers that are
        no such times are a `ValueError`.
        """
        c = self.a(t) / self.a(s)
        before, after = c * self.b(s), self.b(t)
        # By the factors of the difference of squares, which lose no digits and do not overflow.
        return c, self.noise_std * functions(t).sqrt(after - before) * functions(t).sqrt(after + before)

    def check(self, t: Number, what: str = "") -> None:
        """Raise `ValueError` if a time, given as a number, is beyond the path's end."""
        check_end(t, self.end, f"on the path {type(self).__name__}", what)

    def perturb(self, x0: Samples, z: Samples, t: OnPath) -> Samples:
        """Return ``x_t = a(t) x_0 + b(t) z``; z must have `noise_std` as its standard deviation."""
        return per_sample(self.a(t), x0) * x0 + per_sample(self.b(t), x0) * z

    def noise(
        self, x: Samples, t: Annotated[OnPath, AboveZero("The noise that a point holds")], denoised: Quantity
    ) -> Samples:
        """Return ``E[z | x_t = x]`` from the denoiser's value."""
        return self._noise(x, t, denoised)

    def score(self, x: Samples, t: Annotated[OnPath, AboveZero("The score")], denoised: Quantity) -> Samples:
        """Return ``grad_x log p_t(x)`` from the denoiser's value."""
        return self._score(x, t, denoised)

    def velocity(self, x: Samples, t: Annotated[OnPath, AboveZero("The velocity")], denoised: Quantity) -> Samples:
        """Return ``dx/dt`` of the probability-flow ODE from the denoiser's value."""
        noise = self._noise(x, t, denoised)
        return per_sample(self.da(t), x) * denoised + per_sample(self.db(t), x) * noise

    def denoiser_from_noise(self, x: Samples, t: DataLeft, noise: Quantity) -> Samples:
        """Return the denoiser's value from ``E[z | x_t = x]``."""
        a, b = self._coefficients(t, x)
        return (x - b * noise) / a

    def denoiser_from_score(self, x: Samples, t: DataLeft, score: Quantity) -> Samples:
        """Return the denoiser's value from the score (Tweedie's formula; for `VE`: ``D = x + t^2 score``)."""
        a, b = self._coefficients(t, x)
        std = b * self.noise_std
        return (x + std * (std * score)) / a

    def denoiser_from_velocity(
        self, x: Samples, t: OnPath, velocity: Annotated[Samples, Together("x and the velocity")]
    ) -> Samples:
        """Return the denoiser's value from the velocity of the probability-flow ODE."""
        of_x, of_velocity = self.from_velocity(t)
        return per_sample(of_x, x) * x + per_sample(of_velocity, x) * velocity

    def from_velocity(self, t: Array) -> tuple[Array, Array]:
        """Return the factors of x and of the velocity in the denoiser's value, ``D = (b v - b' x) / (a' b - b' a)``."""
        a, b, da, db = self.a(t), self.b(t), self.da(t), self.db(t)
        return -db / (da * b - db * a), b / (da * b - db * a)

    def check_data_left(self, t: Number) -> None:
        """Raise `ValueError` where, at a time given as a number, x holds nothing of the data."""
        self.check(t)
        if is_number(t) and t >= 0 and abs(self.a(float(t))) < _NOTHING:
            raise ValueError(
                f"Nothing of the data is left at the end of the path {type(self).__name__}: t must be below {self.end}, got {t}."
            )

    def _noise(self, x: Array, t: Array, denoised: Array) -> Array:
        a, b = self._coefficients(t, x)
        return (x - a * denoised) / b

    def _score(self, x: Array, t: Array, denoised: Array) -> Array:
        a, b = self._coefficients(t, x)
        std = b * self.noise_std
        # Divided twice, for the square may leave the range of the dtype where the quotient does not.
        return (a * denoised - x) / std / std

    def _coefficients(self, t: Array, x: Array) -> tuple[Array, Array]:
        return per_sample(self.a(t), x), per_sample(self.b(t), x)


@dataclass(frozen=True)
class VE(Path):
    """Variance exploding, ``x_t = x_0 + t z``: the paper's path; t is the standard deviation of the noise, "sigma".

    It is the forward SDE ``dx = sqrt(2 t) dw`` (Song et al. 2023, section 2; Karras et al. 2022), whose
    probability-flow ODE is ``dx/dt = -t score(x, t) = (x - D(x, t)) / t``.
    """

    def a(self, t: Array) -> Array:
        """Return 1."""
        return functions(t).ones_like(t)

    def b(self, t: PathTime) -> Array:
        """Return t."""
        return t

    def da(self, t: Array) -> Array:
        """Return 0."""
        return functions(t).zeros_like(t)

    def db(self, t: Array) -> Array:
        """Return 1."""
        return functions(t).ones_like(t)

    def time(self, sigma: Ratio) -> Array:
        """Return sigma."""
        return sigma

    def diffusion(self, t: Array) -> Array:
        """Return the diffusion coefficient ``sigma(t) = sqrt(2 t)`` of the forward SDE."""
        return functions(t).sqrt(2.0 * t)

    def score_estimate(self, x0: Samples, x: Samples, t: Annotated[OnPath, AboveZero("The score")]) -> Samples:
        """Return ``-(x_t - x_0) / t^2``, unbiased for the score given x_t (Song et al. 2023, equation 9)."""
        return self._score(x, t, x0)


@dataclass(frozen=True)
class Trigonometric(Path):
    """TrigFlow's path, ``x_t = cos(t) x_0 + sin(t) z`` with ``z ~ N(0, sigma_data^2 I)``, t in [0, pi/2] (Lu & Song 2024, section 3)."""

    sigma_data: SigmaData = 0.5

    end = math.pi / 2

    @property
    def noise_std(self) -> float:  # type: ignore[override]
        """The standard deviation of z, which is the data's."""
        return self.sigma_data

    def time(self, sigma: Ratio) -> Array:
        """Return ``arctan(sigma / sigma_data)``."""
        return functions(sigma).atan(sigma / self.sigma_data)

    def a(self, t: Array) -> Array:
        """Return cos t."""
        return functions(t).cos(t)

    def b(self, t: Array) -> Array:
        """Return sin t."""
        return functions(t).sin(t)

    def da(self, t: Array) -> Array:
        """Return -sin t."""
        return -functions(t).sin(t)

    def db(self, t: Array) -> Array:
        """Return cos t."""
        return functions(t).cos(t)


@dataclass(frozen=True)
class Linear(Path):
    """``x_t = (1 - t) x_0 + t z``, t in [0, 1]: flow matching's and MeanFlow's straight path."""

    end = 1.0

    def time(self, sigma: Ratio) -> Array:
        """Return ``sigma / (1 + sigma)``."""
        return sigma / (1.0 + sigma)

    def a(self, t: PathTime) -> Array:
        """Return 1 - t."""
        return 1.0 - t

    def b(self, t: PathTime) -> Array:
        """Return t."""
        return t

    def da(self, t: Array) -> Array:
        """Return -1."""
        return -functions(t).ones_like(t)

    def db(self, t: Array) -> Array:
        """Return 1."""
        return functions(t).ones_like(t)


@dataclass(frozen=True)
class VP(Path):
    """Variance preserving, t in (0, 1]: ``a = exp(-t^2 (beta_max - beta_min) / 4 - t beta_min / 2)``, ``b = sqrt(1 - a^2)``.

    The path of DDPM in continuous time (Song et al. 2021, appendix C); at t = 1 a share a = 0.0066 of the data is left.
    """

    beta_min: float = 0.1
    beta_max: LastBeta = 20.0

    end = 1.0

    def time(self, sigma: Ratio) -> Array:
        """Return the t whose ``-2 ln a(t)`` is ``ln(1 + sigma^2)``."""
        xp = functions(sigma)
        # Where the square of a number is infinite, its logarithm is not.
        log = 2.0 * math.log(sigma) if is_number(sigma) and sigma > 1e100 else xp.log1p(sigma * sigma)
        return 2.0 * log / (self.beta_min + xp.sqrt(self.beta_min**2 + 2.0 * (self.beta_max - self.beta_min) * log))

    def a(self, t: Array) -> Array:
        """Return ``exp(-t^2 (beta_max - beta_min) / 4 - t beta_min / 2)``."""
        return functions(t).exp(self._log_a(t))

    def b(self, t: Array) -> Array:
        """Return ``sqrt(1 - a^2)``, exact to rounding at small t too."""
        xp = functions(t)
        return xp.sqrt(-xp.expm1(2.0 * self._log_a(t)))

    def da(self, t: PathTime) -> Array:
        """Return ``-beta(t) a / 2`` with beta linear in t."""
        return -0.5 * (self.beta_min + (self.beta_max - self.beta_min) * t) * self.a(t)

    def db(self, t: Array) -> Array:
        """Return ``-a a' / b``, infinite at t = 0."""
        b = self.b(t)
        return math.inf if is_number(b) and b == 0 else -self.a(t) * self.da(t) / b

    def from_velocity(self, t: Array) -> tuple[Array, Array]:
        """Return ``a`` and ``b^2 / a'``, which at t = 0, where b' is infinite, are 1 and 0."""
        return self.a(t), self.b(t) ** 2 / self.da(t)

    def _log_a(self, t: Array) -> Array:
        return -0.25 * (self.beta_max - self.beta_min) * (t * t) - 0.5 * self.beta_min * t


@dataclass(frozen=True)
class Cosine(Path):
    """``x_t = cos(pi t / 2) x_0 + sin(pi t / 2) z``, t in [0, 1] (Nichol & Dhariwal 2021, without their offset)."""

    end = 1.0

    def time(self, sigma: Ratio) -> Array:
        """Return ``2 arctan(sigma) / pi``."""
        return functions(sigma).atan(sigma) / _QUARTER_TURN

    def a(self, t: Array) -> Array:
        """Return cos(pi t / 2)."""
        return functions(t).cos(_QUARTER_TURN * t)

    def b(self, t: Array) -> Array:
        """Return sin(pi t / 2)."""
        return functions(t).sin(_QUARTER_TURN * t)

    def da(self, t: Array) -> Array:
        """Return ``-pi / 2 sin(pi t / 2)``."""
        return -_QUARTER_TURN * self.b(t)

    def db(self, t: Array) -> Array:
        """Return ``pi / 2 cos(pi t / 2)``."""
        return _QUARTER_TURN * self.a(t)


PathGiven = Annotated[
    Path,
    Condition(
        lambda path: isinstance(path, Path),
        "path must be a cmcore.paths.Path, such as cmcore.paths.VE(), got {path!r}.",
        TypeError,
    ),
]
"""A path, and not its name."""


def check_path(path: PathGiven) -> None:
    """Raise `TypeError` for what is no path, such as its name."""


def converted(
    x: Samples, t: Annotated[Time, lambda source, t: source.check_data_left(t)], source: Path, target: Path
) -> tuple[Samples, PerSample]:
    """Return the point of the target path, (B, ...), and its time, (B,), that (x, t) is on the source path.

    Both have the same noise-to-signal ratio, and the same share of it: ``x / a(t)`` is the same. a(t) must not be 0.
    """
    time = target.time(source.sigma(t))
    return per_sample(target.a(time) / source.a(t), x) * x, time


def rebased(function: Denoiser, source: Path, target: Path) -> Denoiser:
    """Return a function to the data (a denoiser, a consistency function) of one path as that of another path's points."""
    return lambda x, t, **cond: function(*converted(x, t, target, source), **cond)


check_arguments(__name__)
