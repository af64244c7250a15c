"""All our backends against the public conformance kit, in both precisions."""

from functools import partial

import pytest
from exact import dtypes

from cmcore import testing


def spared(check):
    """Trainers do not look at the dtype, and cross_backend/test_network_numbers.py has tinygrad's gradients in float64."""
    trains = check.__name__.startswith("check_trainer") or check is testing.check_value_and_grad
    twice = "float64" if trains else "float32" if check is testing.check_networks else None
    return pytest.param(check, id=check.__name__, marks=pytest.mark.spares_tinygrad(twice) if twice else ())


@pytest.fixture(autouse=True)
def traced_by_torch(request, monkeypatch):
    """torch's trainers are traced and differentiated as they are to be compiled; C++ is generated for one of them.

    The generated code's numbers are a matter of tests/backends/test_torch.py, and it takes ten seconds a trainer.
    """
    given = request.node.callspec.params
    check = given["check"]
    trains = check.__name__.startswith("check_trainer")
    if given["backend"] == "torch" and trains and check is not testing.check_trainer_target:
        import torch

        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.mark.usefixtures("x64")
@dtypes
@pytest.mark.parametrize("check", [spared(check) for check in testing.CHECKS])
def test_backend(backend, check, dtype):
    check(backend, dtype)
