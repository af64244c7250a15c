"""The conformance kit: what any backend, ours or a third party's, must pass.

Each check is a plain function ``check(backend, dtype="float32")`` that raises `AssertionError` with a sentence. In a
test suite of your own::

    @pytest.mark.parametrize("check", cmcore.testing.CHECKS, ids=lambda check: check.__name__)
    def test_my_backend(check):
        check(cmcore.load("mine"))

or all of them at once with `check_backend`. A backend whose ``trainable`` is False is asked for no gradients, only that
it says so in a sentence. Networks are compared with the NumPy backend's. In float32 train steps are compiled, in any
other dtype they run eagerly, so that two runs see both ways. The namespace's functions are called with the keywords that
the core uses, and `check_program` and its like do what `cmcore train` and `cmcore sample` do, so that a backend that passes
trains and samples; they need the packages of the program and, for a while, register the backend under its name.
"""

from __future__ import annotations

from cmcore.backend import Backend
from cmcore.testing._tools import ARCHITECTURES, CONDITIONED, CONV, FLOW_MAP, MLP, Check, network_input, random_weights
from cmcore.testing.arrays import (
    check_compile,
    check_float_types,
    check_members,
    check_namespace,
    check_placement,
    check_streams,
)
from cmcore.testing.gradients import (
    check_gradient_beside_jvp,
    check_gradient_of_jvp,
    check_gradient_of_log_weight,
    check_jvp,
    check_refusals,
    check_stop_gradient,
    check_stop_gradient_value,
    check_value_and_grad,
)
from cmcore.testing.networks import (
    check_network_errors,
    check_network_layers,
    check_network_log_weight,
    check_network_null_label,
    check_network_two_times,
    check_networks,
)
from cmcore.testing.program import check_program, check_program_jvp, check_program_samples
from cmcore.testing.training import (
    check_trainer_average,
    check_trainer_draws,
    check_trainer_dropout,
    check_trainer_frozen,
    check_trainer_learns,
    check_trainer_log_weight,
    check_trainer_loss_shape,
    check_trainer_parts,
    check_trainer_random_numbers,
    check_trainer_resumes,
    check_trainer_scalars,
    check_trainer_target,
)

CHECKS: tuple[Check, ...] = (
    check_members,
    check_float_types,
    check_namespace,
    check_placement,
    check_streams,
    check_compile,
    check_networks,
    check_network_layers,
    check_network_errors,
    check_network_null_label,
    check_network_two_times,
    check_network_log_weight,
    check_refusals,
    check_stop_gradient_value,
    check_stop_gradient,
    check_value_and_grad,
    check_jvp,
    check_gradient_of_jvp,
    check_gradient_beside_jvp,
    check_gradient_of_log_weight,
    check_trainer_learns,
    check_trainer_scalars,
    check_trainer_random_numbers,
    check_trainer_draws,
    check_trainer_log_weight,
    check_trainer_average,
    check_trainer_target,
    check_trainer_frozen,
    check_trainer_dropout,
    check_trainer_loss_shape,
    check_trainer_parts,
    check_trainer_resumes,
    check_program_samples,
    check_program,
    check_program_jvp,
)
"""Every check; parametrise a test with them."""


def check_backend(backend: Backend, dtype: str = "float32") -> None:
    """Run every check on a backend; `AssertionError` tells the first thing that is wrong."""
    for check in CHECKS:
        check(backend, dtype)


__all__ = [
    "ARCHITECTURES",
    "CHECKS",
    "CONDITIONED",
    "CONV",
    "FLOW_MAP",
    "MLP",
    "Check",
    "check_backend",
    "network_input",
    "random_weights",
]
