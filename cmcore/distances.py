"""How far two batches are apart, sample by sample: ``distance(x, y) -> (B,)`` for x and y of shape (B, ...).

``l1`` and ``squared_l2`` are means over the coordinates of a sample, so that a learning rate does not depend on the
size of the data; the paper's norms are D times as large, D being the number of coordinates. `PseudoHuber` is of the
norm of the whole sample, as in the papers that use it. A perceptual distance is any function of this signature.

Only ``squared_l2`` leaves consistency *training* unbiased: its target is random given x_t, and a robust distance pulls
it from the conditional mean towards the median. Distillation's target is not random and takes any distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from cmcore._annotations import Called, Together
from cmcore._arrays import mean_samples, sum_samples
from cmcore._door import check_arguments
from cmcore.backend import namespace
from cmcore.options import FINITE, POSITIVE
from cmcore.types import Distance as Distance
from cmcore.types import PerSample, Samples

Others = Annotated[Samples, Together("The two batches")]
"""What a batch is compared with."""
Constant = Annotated[float, Called("The constant c of the pseudo-Huber distance"), POSITIVE, FINITE]


def l1(x: Samples, y: Others) -> PerSample:
    """Return the mean absolute difference of each sample, (B,)."""
    return mean_samples(namespace(x).abs(x - y))


def squared_l2(x: Samples, y: Others) -> PerSample:
    """Return the mean squared difference of each sample, (B,)."""
    return mean_samples((x - y) ** 2)


@dataclass(frozen=True)
class PseudoHuber:
    """``sqrt(||x - y||^2 + c^2) - c`` of each sample, (B,) (Song & Dhariwal 2023, section 3.3).

    ``c=None`` takes iCT's ``0.00054 sqrt(D)`` for D coordinates. As c goes to 0 this becomes ECT's norm ``||x - y||``;
    c must stay positive, for the norm has no gradient at 0.
    """

    c: Constant | None = None

    def __call__(self, x: Samples, y: Others) -> PerSample:
        """Return the distance of each sample, (B,)."""
        squared = sum_samples((x - y) ** 2)
        c = 0.00054 * math.sqrt(math.prod(x.shape[1:])) if self.c is None else self.c
        # squared / (root + c) is root - c without its cancellation at small distances.
        return squared / (namespace(x).sqrt(squared + c**2) + c)


@dataclass(frozen=True)
class ElementwisePseudoHuber:
    """The mean over coordinates of ``sqrt(d^2 + c^2) - c``, (B,): the form that several public programs use.

    It is another loss than `PseudoHuber`: for ``|d| << c`` it is ``d^2 / (2 c)`` whatever the rest of the sample does.
    """

    c: Constant = 0.03

    def __call__(self, x: Samples, y: Others) -> PerSample:
        """Return the distance of each sample, (B,)."""
        squared = (x - y) ** 2
        return mean_samples(squared / (namespace(x).sqrt(squared + self.c**2) + self.c))


check_arguments(__name__)
