"""The weightings against their formulas in NumPy, at the pair's larger time."""

import numpy as np
import pytest
from exact import close, dtypes

from cmcore import weightings
from cmcore.grids import TimePair

T, R = np.array([0.002, 0.5, 1.0, 80.0]), np.array([0.001, 0.3, 0.9, 40.0])
SD = 0.5


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        (weightings.uniform, np.ones(4)),
        (weightings.snr, [250_000, 4, 1, 0.00015625]),
        (weightings.snr_plus_one, [250_001, 5, 2, 1.00015625]),
        (weightings.truncated_snr, [250_000, 4, 1, 1]),
        (weightings.karras, (T**2 + SD**2) / (T * SD) ** 2),
        (weightings.inverse_gap, 1 / (T - R)),
    ],
)
@dtypes
def test_weight(lib, dtype, weighting, expected):
    pair = TimePair(*(lib.asarray(v, dtype) for v in (T, R, T - R)))
    close(lib, weighting(pair, SD), expected, dtype)


def test_karras_weight_undoes_edms_output_scaling(lib):
    from cmcore.parametrization import EDM

    t = lib.asarray(T, "float64")
    c_out = lib.to_numpy(EDM(0.7).scalings(t).c_out)
    np.testing.assert_allclose(lib.to_numpy(weightings.karras(TimePair(t, t, t), 0.7)) * c_out**2, 1.0, rtol=1e-12)
