"""The noise that a flow map makes a given picture of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from cmcore._arrays import as_times, check_output, check_state, conditions
from cmcore._options import check_count, check_function, numbers
from cmcore.backend import Array
from cmcore.flow_maps import FlowMap
from cmcore.paths import VE, Path, check_path


def encode(
    flow_map: FlowMap,
    x: Array,
    times: Sequence[float],
    path: Path = VE(),
    *,
    iterations: int = 10,
    cond: Mapping[str, Array] | None = None,
) -> Array:
    """Return the standard normal z of which `cmcore.sampling.flow_map` makes x, (B, ...), by way of the same decreasing times.

    Each jump is inverted as the network knows it, from the later time to the earlier one, by ``iterations`` of the fixed point
    ``y <- y + x - X(y, t, s)``. That converges where the jump's Jacobian is within 1 of the identity, the faster the shorter the
    jump: ways as short as a sixteenth of the straight path do. ``(len(times) - 1) iterations`` evaluations.
    """
    check_state(x)
    check_function("The flow map", flow_map)
    check_path(path)
    check_count("iterations", iterations, 1)
    times = numbers("The times", times)
    if len(times) < 2 or any(a <= b for a, b in pairwise(times)) or times[-1] < 0:
        raise ValueError(f"The times must decrease, two at least, to one of at least 0, got {times}.")
    path.check(times[0], " to encode at")
    given = conditions(cond)
    for s, t in pairwise(times[::-1]):
        y = x
        for _ in range(iterations):
            y = y + x - check_output(flow_map(y, as_times(t, y), as_times(s, y), **given), y, "The flow map")
        x = y
    return x / float(path.b(times[0]) * path.noise_std)
