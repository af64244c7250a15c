"""All our backends against the public conformance kit, in both precisions."""

import pytest
from exact import dtypes

from cmcore import testing


def spared(check):
    """Trainers do not look at the dtype, and cross_backend/test_network_numbers.py has tinygrad's gradients in float64."""
    trains = check.__name__.startswith("check_trainer") or check is testing.check_value_and_grad
    return pytest.param(check, id=check.__name__, marks=pytest.mark.spares_tinygrad("float64") if trains else ())


@pytest.mark.usefixtures("x64")
@dtypes
@pytest.mark.parametrize("check", [spared(check) for check in testing.CHECKS])
def test_backend(backend, check, dtype):
    check(backend, dtype)
