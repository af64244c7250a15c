"""Probability paths: how data turn into noise, and what one quantity at a point says about the others.

A path is ``x_t = a(t) x_0 + b(t) z`` with ``z ~ N(0, noise_std^2 I)``. Its probability-flow ODE ``dx/dt = v(x, t)``
carries the law of x_t along. Four quantities describe it at a point (x, t), each of which gives the others exactly:

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
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from cmcore._arrays import Time, as_times, check_above_zero, check_real, check_same, check_state, is_number, per_sample
from cmcore._options import check_positive
from cmcore.backend import Array, namespace

Denoiser = Callable[..., Array]
"""``denoiser(x, t) -> E[x_0 | x_t = x]``, shaped like x; t is (B,)."""


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


def check_end(t: Time, end: float, of: str, what: str = "") -> None:
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

    def sigma(self, t: Array) -> Array:
        """Return the noise-to-signal ratio ``b(t) noise_std / a(t)``: the time of the same point on `VE`."""
        self.check(t)
        a = self.a(t)
        return math.inf if is_number(a) and a == 0 else self.b(t) * self.noise_std / a

    def transition(self, s: Array, t: Array) -> tuple[Array, Array]:
        """Return c and std, shaped like the times: ``c x_s + std z``, z standard normal, has the law at t where x_s has that at s.

        The forward process from s to t > s: ``c = a(t) / a(s)``, ``std = noise_std sqrt(b(t)^2 - (c b(s))^2)``. Numbers that are
        no such times are a `ValueError`.
        """
        self.check(t)
        if is_number(s) and is_number(t) and not 0 <= s <= t < math.inf:
            raise ValueError(
                f"A path leads from a time s of at least 0 to a finite time t of at least s, got s = {s} and t = {t}."
            )
        self.check_data_left(s)
        c = self.a(t) / self.a(s)
        before, after = c * self.b(s), self.b(t)
        # By the factors of the difference of squares, which lose no digits and do not overflow.
        return c, self.noise_std * functions(t).sqrt(after - before) * functions(t).sqrt(after + before)

    def check(self, t: Time, what: str = "") -> None:
        """Raise `ValueError` if a time, given as a number, is beyond the path's end."""
        check_end(t, self.end, f"on the path {type(self).__name__}", what)

    def perturb(self, x0: Array, z: Array, t: Time) -> Array:
        """Return ``x_t = a(t) x_0 + b(t) z``; z must have `noise_std` as its standard deviation."""
        check_state(x0, "x0")
        check_same(x0, z, "x0 and z")
        self.check(t)
        t = as_times(t, x0)
        return per_sample(self.a(t), x0) * x0 + per_sample(self.b(t), x0) * z

    def noise(self, x: Array, t: Time, denoised: Array) -> Array:
        """Return ``E[z | x_t = x]`` from the denoiser's value."""
        check_above_zero(t, x, "The noise that a point holds")
        a, b = self._coefficients(x, t, denoised)
        return (x - a * denoised) / b

    def score(self, x: Array, t: Time, denoised: Array) -> Array:
        """Return ``grad_x log p_t(x)`` from the denoiser's value."""
        check_above_zero(t, x, "The score")
        a, b = self._coefficients(x, t, denoised)
        std = b * self.noise_std
        # Divided twice, for the square may leave the range of the dtype where the quotient does not.
        return (a * denoised - x) / std / std

    def velocity(self, x: Array, t: Time, denoised: Array) -> Array:
        """Return ``dx/dt`` of the probability-flow ODE from the denoiser's value."""
        check_above_zero(t, x, "The velocity")
        noise = self.noise(x, t, denoised)
        times = as_times(t, x)
        return per_sample(self.da(times), x) * denoised + per_sample(self.db(times), x) * noise

    def denoiser_from_noise(self, x: Array, t: Time, noise: Array) -> Array:
        """Return the denoiser's value from ``E[z | x_t = x]``."""
        self.check_data_left(t)
        a, b = self._coefficients(x, t, noise)
        return (x - b * noise) / a

    def denoiser_from_score(self, x: Array, t: Time, score: Array) -> Array:
        """Return the denoiser's value from the score (Tweedie's formula; for `VE`: ``D = x + t^2 score``)."""
        self.check_data_left(t)
        a, b = self._coefficients(x, t, score)
        std = b * self.noise_std
        return (x + std * (std * score)) / a

    def denoiser_from_velocity(self, x: Array, t: Time, velocity: Array) -> Array:
        """Return the denoiser's value from the velocity of the probability-flow ODE."""
        check_state(x)
        check_same(x, velocity, "x and the velocity")
        self.check(t)
        of_x, of_velocity = self.from_velocity(as_times(t, x))
        return per_sample(of_x, x) * x + per_sample(of_velocity, x) * velocity

    def from_velocity(self, t: Array) -> tuple[Array, Array]:
        """Return the factors of x and of the velocity in the denoiser's value, ``D = (b v - b' x) / (a' b - b' a)``."""
        a, b, da, db = self.a(t), self.b(t), self.da(t), self.db(t)
        return -db / (da * b - db * a), b / (da * b - db * a)

    def check_data_left(self, t: Time) -> None:
        """Raise `ValueError` where, at a time given as a number, x holds nothing of the data."""
        self.check(t)
        if is_number(t) and t >= 0 and abs(self.a(float(t))) < _NOTHING:
            raise ValueError(
                f"Nothing of the data is left at the end of the path {type(self).__name__}: t must be below {self.end}, got {t}."
            )

    def _coefficients(self, x: Array, t: Time, other: Array) -> tuple[Array, Array]:
        check_state(x)
        check_same(x, other, "x and the other quantity")
        self.check(t)
        times = as_times(t, x)
        return per_sample(self.a(times), x), per_sample(self.b(times), x)


@dataclass(frozen=True)
class VE(Path):
    """Variance exploding, ``x_t = x_0 + t z``: the paper's path; t is the standard deviation of the noise, "sigma".

    It is the forward SDE ``dx = sqrt(2 t) dw`` (Song et al. 2023, section 2; Karras et al. 2022), whose
    probability-flow ODE is ``dx/dt = -t score(x, t) = (x - D(x, t)) / t``.
    """

    def a(self, t: Array) -> Array:
        """Return 1."""
        return functions(t).ones_like(t)

    def b(self, t: Array) -> Array:
        """Return t."""
        functions(t)
        return t

    def da(self, t: Array) -> Array:
        """Return 0."""
        return functions(t).zeros_like(t)

    def db(self, t: Array) -> Array:
        """Return 1."""
        return functions(t).ones_like(t)

    def time(self, sigma: Array) -> Array:
        """Return sigma."""
        _check_ratio(sigma)
        return sigma

    def diffusion(self, t: Array) -> Array:
        """Return the diffusion coefficient ``sigma(t) = sqrt(2 t)`` of the forward SDE."""
        return functions(t).sqrt(2.0 * t)

    def score_estimate(self, x0: Array, x: Array, t: Time) -> Array:
        """Return ``-(x_t - x_0) / t^2``, unbiased for the score given x_t (Song et al. 2023, equation 9)."""
        return self.score(x, t, x0)


@dataclass(frozen=True)
class TrigFlow(Path):
    """``x_t = cos(t) x_0 + sin(t) z`` with ``z ~ N(0, sigma_data^2 I)``, t in [0, pi/2] (Lu & Song 2024, section 3)."""

    sigma_data: float = 0.5

    end = math.pi / 2

    def __post_init__(self) -> None:
        check_positive("sigma_data, the data's standard deviation,", self.sigma_data)

    @property
    def noise_std(self) -> float:  # type: ignore[override]
        """The standard deviation of z, which is the data's."""
        return self.sigma_data

    def time(self, sigma: Array) -> Array:
        """Return ``arctan(sigma / sigma_data)``."""
        _check_ratio(sigma)
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

    def time(self, sigma: Array) -> Array:
        """Return ``sigma / (1 + sigma)``."""
        _check_ratio(sigma)
        return sigma / (1.0 + sigma)

    def a(self, t: Array) -> Array:
        """Return 1 - t."""
        functions(t)
        return 1.0 - t

    def b(self, t: Array) -> Array:
        """Return t."""
        functions(t)
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
    beta_max: float = 20.0

    end = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise ValueError(
                f"The betas must be positive, finite and in order, got beta_min = {self.beta_min}, beta_max = {self.beta_max}."
            )

    def time(self, sigma: Array) -> Array:
        """Return the t whose ``-2 ln a(t)`` is ``ln(1 + sigma^2)``."""
        _check_ratio(sigma)
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

    def da(self, t: Array) -> Array:
        """Return ``-beta(t) a / 2`` with beta linear in t."""
        functions(t)
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

    def time(self, sigma: Array) -> Array:
        """Return ``2 arctan(sigma) / pi``."""
        _check_ratio(sigma)
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


def _check_ratio(sigma: Array | float) -> None:
    functions(sigma)
    if is_number(sigma) and not 0 <= sigma < math.inf:
        raise ValueError(f"A noise-to-signal ratio sigma must be finite and at least 0, got {sigma}.")


def check_path(path: Path) -> None:
    """Raise `TypeError` for what is no path, such as its name."""
    if not isinstance(path, Path):
        raise TypeError(f"path must be a cmcore.paths.Path, such as cmcore.paths.VE(), got {path!r}.")


def converted(x: Array, t: Time, source: Path, target: Path) -> tuple[Array, Array]:
    """Return the point of the target path, (B, ...), and its time, (B,), that (x, t) is on the source path.

    Both have the same noise-to-signal ratio, and the same share of it: ``x / a(t)`` is the same. a(t) must not be 0.
    """
    check_state(x)
    source.check_data_left(t)
    t = as_times(t, x)
    time = target.time(source.sigma(t))
    return per_sample(target.a(time) / source.a(t), x) * x, time


def rebased(function: Denoiser, source: Path, target: Path) -> Denoiser:
    """Return a function to the data (a denoiser, a consistency function) of one path as that of another path's points."""
    return lambda x, t, **cond: function(*converted(x, t, target, source), **cond)
