"""Draws from the exact conditional distribution by weighted paths: what algorithm 4 approximates, at the price of a population.

The chain ``x -> f(x + t z, t)`` leaves the distribution of the data as it is, whatever its times. A draw from the conditional
distribution is the end of such a chain whose known coordinates end where they are known. The noise of these is drawn so as to
lead there, as in a Brownian bridge, and weights correct the rest: a particle filter with a twisting function (Whiteley & Lee
2014; Wu et al. 2023 for denoisers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from cmcore._arrays import as_times, check_output, check_same, conditions, device_of
from cmcore._options import check_function, check_positive
from cmcore._times import decreasing
from cmcore.backend import Array, namespace
from cmcore.editing.known import Known
from cmcore.editing.replacement import added
from cmcore.grids import T_MIN
from cmcore.losses import ConsistencyFn
from cmcore.solvers import Noise


def conditional(
    f: ConsistencyFn,
    known: Known,
    z: Array,
    times: Sequence[float],
    noise: Noise,
    uniform: Callable[[int], float],
    t_min: float = T_MIN,
    *,
    tolerance: float | None = None,
    cond: Mapping[str, Array] | None = None,
) -> Array:
    """Return draws from the distribution of the data given what is known, shaped like z: exact as the batch, the population, grows.

    The first evaluation is of ``times[0] z``. With ``v_i = tolerance^2 + sum_(j > i) t_j^2``, the variance of what is still to come, the
    noise of step i takes a known coordinate from x to a point with mean ``(v x + t^2 y) / (v + t^2)`` and variance
    ``v t^2 / (v + t^2)``, any other to x + t z; f takes it to x', and the weight is ``N(y; x', v) / N(y; x + noise, v)`` over the
    known coordinates. By these the population is chosen anew (systematic resampling) with ``uniform(i)``, a number in [0, 1), for step
    i. In the end the known coordinates, by then within about ``tolerance``, by default the last time, are put in their place.

    The draws of a population are not quite independent. Its size must grow with the number of known coordinates: this is for
    few of them, and for measuring what `cmcore.editing.edit` leaves; the weights of whole pictures are those of a single winner. What is exact is
    tested: within 2 % of mean and standard deviation for 20 times (tests/editing/test_conditional.py).
    """
    if not isinstance(known, Known):
        raise TypeError(f"known must be a cmcore.editing.Known, as cmcore.editing.inpainting returns, got {known!r}.")
    known.check(z)
    times = decreasing(times, t_min)
    check_function("The consistency function f", f)
    check_function("noise", noise)
    check_function("uniform", uniform)
    tolerance = times[-1] if tolerance is None else tolerance
    check_positive("tolerance", tolerance)
    given, transform, xp = conditions(cond), known.transform, namespace(z)
    ahead = [tolerance**2 + sum(added(t, t_min) ** 2 for t in times[i + 1 :]) for i in range(len(times))]
    x = check_output(f(times[0] * z, as_times(times[0], z), **given), z, "The consistency function")
    score = -_squared_misses(known, transform.forward(x)) / (2.0 * ahead[0])
    for i, (t, v) in enumerate(zip(times[1:], ahead[1:], strict=True)):
        x = _chosen(x, score, uniform(i))
        fresh = noise(i)
        check_same(x, fresh, "The samples and the noise")
        here, turned, variance = transform.forward(x), transform.forward(fresh), added(t, t_min) ** 2
        mean = (v * here + variance * known.among(here)) / (v + variance)
        steered = mean + math.sqrt(v * variance / (v + variance)) * turned
        noisy = xp.where(known.mask > 0.5, steered, here + math.sqrt(variance) * turned)
        point = transform.inverse(noisy)
        x = check_output(f(point, as_times(t, point), **given), point, "The consistency function")
        score = (_squared_misses(known, noisy) - _squared_misses(known, transform.forward(x))) / (2.0 * v)
    return known.put(_chosen(x, score, uniform(len(times) - 1)))


def _squared_misses(known: Known, coordinates: Array) -> Array:
    """The squared distance of the known coordinates from where they are known, (B,)."""
    miss = known.among(coordinates) - coordinates
    return namespace(miss).sum(miss * miss, axis=tuple(range(1, miss.ndim)))


def _chosen(x: Array, score: Array, u: float) -> Array:
    """As many samples as there are, each chosen about as often as its weight, exp(score), says."""
    xp, n = namespace(x), x.shape[0]
    if n == 0:
        return x
    weights = xp.exp(score - xp.max(score))
    ends = xp.cumulative_sum(weights)
    places = (xp.astype(xp.arange(n, dtype=xp.int32, device=device_of(x)), x.dtype) + u) / n * ends[-1]
    before = xp.expand_dims(places, axis=1) >= xp.expand_dims(ends, axis=0)
    index = xp.sum(xp.astype(before, xp.int32), axis=1)
    return xp.take(x, xp.clip(index, 0, n - 1), axis=0)
