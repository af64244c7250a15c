"""The logarithm of the normal distribution function, which the Array API standard lacks, accurate in both tails."""

from __future__ import annotations

import math

from cmcore.backend import Array, namespace

# (1 + 2 u) exp(u^2) erfc(u) on u >= 0 is smooth in w = (u - 3.75) / (u + 3.75), which maps it to [-1, 1) (Shepherd &
# Laframboise, Math. Comp. 36, 1981). These are the coefficients of its Chebyshev interpolant in powers of w, highest
# first, computed with 50 digits; in float64 the function is within 7e-16 of the truth, relatively, for all u.
_POLYNOMIAL = (
    4.251471551516654e-10,
    3.1114334540810324e-10,
    -5.173990273414043e-09,
    -3.744210120201287e-09,
    3.86753343864766e-08,
    2.3263508800204523e-08,
    -2.586685073621851e-07,
    -5.7218230724096475e-08,
    1.7516376490254237e-06,
    -9.735598966366512e-07,
    -1.144414623780255e-05,
    2.238423915502834e-05,
    5.164909889272162e-05,
    -0.00029015408054082275,
    0.00029371366559133495,
    0.001755625852895291,
    -0.009746579558029274,
    0.028362277418956406,
    -0.05869339858963677,
    0.09230432116037748,
    -0.10880393014174886,
    0.0822767384901452,
    0.0035854154854644293,
    -0.14024059858554697,
    1.2375126308378275,
)


def log_cdf(z: Array) -> Array:
    """Return ``log Phi(z)``, elementwise.

    In float64 its relative error is below 1e-15 for all z < 0, however far, and below 1e-14 up to z = 6; beyond, where
    the value itself is below 1e-9, it grows like that of ``exp(-z^2 / 2)``, to 3e-13 at z = 38.
    """
    xp = namespace(z)
    # Not abs(z), whose derivative at 0 frameworks take to be 0.
    u = xp.where(z < 0, -z, z) / math.sqrt(2.0)
    w = (u - 3.75) / (u + 3.75)
    p = xp.full_like(w, _POLYNOMIAL[0])
    for c in _POLYNOMIAL[1:]:
        p = p * w + c
    log_tail = xp.log(p / (2.0 + 4.0 * u)) - u * u
    return xp.where(z < 0, log_tail, xp.log1p(-xp.exp(log_tail)))


def log_density(z: Array) -> Array:
    """Return ``log phi(z)``, the standard normal density's logarithm, elementwise."""
    return -0.5 * z * z - 0.5 * math.log(2.0 * math.pi)


def log_sum_exp(values: Array, axis: int) -> Array:
    """Return ``log sum exp(values)`` along an axis, which is removed, without overflow."""
    xp = namespace(values)
    top = xp.max(values, axis=axis, keepdims=True)
    return xp.squeeze(top, axis=axis) + xp.log(xp.sum(xp.exp(values - top), axis=axis))


def softmax(values: Array, axis: int) -> Array:
    """Return ``exp(values)`` divided by its sum along an axis."""
    xp = namespace(values)
    e = xp.exp(values - xp.max(values, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)
