"""Our metrics and those of torchmetrics on the same features: ``python benchmarks/metrics_against_others.py`` (pip install torchmetrics).

The features are random, of unequal distributions, and given to both as they are, in float64: what is compared is the metrics' arithmetic.
Nearest-neighbour metrics are compared with scikit-learn's neighbours in tests/test_metrics.py.
"""

from __future__ import annotations

import numpy as np
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import maximum_mean_discrepancy

from cmcore import metrics


def main() -> None:
    rng = np.random.default_rng(0)
    for n, d in ((500, 8), (1000, 64), (4000, 256)):
        x = rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) / d**0.5
        y = 0.9 * rng.standard_normal((n, d)) + 0.1
        both = [torch.from_numpy(a) for a in (x, y)]
        theirs = float(_compute_fid(*(part for a in both for part in (a.mean(0), torch.cov(a.T)))))
        ours = metrics.frechet_distance(x, y)
        print(
            f"{n} x {d}: Frechet distance {ours:.8f}, torchmetrics {theirs:.8f}, relative difference {abs(ours / theirs - 1):.1e}"
        )
        a, b = both
        kernel = [(p @ q.T / d + 1.0) ** 3 for p, q in ((a, a), (a, b), (b, b))]
        theirs = float(maximum_mean_discrepancy(*kernel))
        ours = metrics.kid(x, y)
        print(f"{n} x {d}: KID {ours:.8f}, torchmetrics {theirs:.8f}, relative difference {abs(ours / theirs - 1):.1e}")


if __name__ == "__main__":
    main()
