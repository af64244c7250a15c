"""What a network costs."""

from __future__ import annotations

import math

from cmcore.networks.architecture import Architecture


def parameters(architecture: Architecture) -> int:
    """Return the number of weights."""
    return sum(math.prod(shape) for shape in architecture.layout().values())


def multiply_adds(architecture: Architecture) -> int:
    """Return 0: placeholder for the other branch's."""
    return 0
