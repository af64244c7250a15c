"""Between two noises: along the great circle, where every point is as likely as the ends."""

from __future__ import annotations

from cmcore._arrays import as_times, check_same, check_state, per_sample, sum_samples
from cmcore.backend import Array


def spherical(a: Array, b: Array, share: Array | float) -> Array:
    """Return ``sin((1 - s) psi) / sin(psi) a + sin(s psi) / sin(psi) b`` for noises (B, ...), each pair by itself.

    psi is the angle between a and b, s the ``share`` of b, a number or (B,) (Song et al. 2023, appendix D). Of noises in the same
    direction this is the straight line; of opposite ones, which lie on no one great circle, a finite answer.
    """
    xp = check_state(a, "a")
    check_same(a, b, "The noises a and b")
    s = as_times(share, a, "share")
    tiny = float(xp.finfo(a.dtype).smallest_normal)
    # The angle by half its tangent, which loses no digits where the cosine does.
    unit_a, unit_b = (v / per_sample(xp.sqrt(xp.maximum(sum_samples(v * v), xp.full_like(s, tiny))), v) for v in (a, b))
    apart, along = xp.sqrt(sum_samples((unit_a - unit_b) ** 2)), xp.sqrt(sum_samples((unit_a + unit_b) ** 2))
    psi = 2.0 * xp.atan(apart / xp.maximum(along, xp.full_like(s, tiny**0.5)))
    sine = xp.sin(psi)
    straight = sine < float(xp.finfo(a.dtype).eps) ** 0.5
    safe = xp.where(straight, xp.ones_like(sine), sine)
    of_a = xp.where(straight, 1.0 - s, xp.sin((1.0 - s) * psi) / safe)
    of_b = xp.where(straight, s, xp.sin(s * psi) / safe)
    return per_sample(of_a, a) * a + per_sample(of_b, b) * b
