"""What a backend is, and how one is chosen.

A backend supplies only what the Python Array API standard lacks: placement on a device, random streams, stop-gradient,
gradients, Jacobian-vector products, compilation, networks and a train step. The mathematics never asks for a backend by
name: it infers everything from the arrays it is given (`namespace`, `of`). `use` and `using` set the default for the few
calls that take no array, such as making a time grid or a network.
"""

from cmcore.backend.arrays import jvp, namespace, of, stop_gradient
from cmcore.backend.protocol import Backend, Stream, TrainStep, check_computes, computes_natively, without_gradients
from cmcore.backend.registry import (
    PREFERENCE,
    available,
    default,
    describe,
    load,
    may_train,
    names,
    register,
    unregister,
    use,
    using,
)
from cmcore.types import Array, Loss, Network

__all__ = [
    "PREFERENCE",
    "Array",
    "Backend",
    "Loss",
    "Network",
    "Stream",
    "TrainStep",
    "available",
    "check_computes",
    "computes_natively",
    "default",
    "describe",
    "jvp",
    "load",
    "may_train",
    "names",
    "namespace",
    "of",
    "register",
    "stop_gradient",
    "unregister",
    "use",
    "using",
    "without_gradients",
]
