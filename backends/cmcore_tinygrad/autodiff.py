"""Gradients by name, and Jacobian-vector products by differentiating backward twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad import Tensor
from tinygrad.nn.state import get_state_dict

from cmcore_tinygrad.functions.dtypes import is_floating


def parameters(net: Any) -> dict[str, Tensor]:
    """Return by name a network's floating-point tensors that are parameters, not running statistics."""
    return {name: t for name, t in get_state_dict(net).items() if t.is_param and is_floating(t)}


def value_and_grad(loss: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
    """Return ``g(net, *args) -> (loss, gradients by parameter name)``; unused parameters get zeros."""

    def value_and_gradients(net: Any, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        weights = parameters(net)
        value = loss(net, *args)
        if value.shape != ():
            raise ValueError(f"The loss must be a 0-d tensor to have a gradient, got shape {value.shape}.")
        gradients = value.gradient(*weights.values())
        value.realize(*gradients)
        return value, dict(zip(weights, gradients, strict=True))

    return value_and_gradients


def jvp(f: Callable[..., Tensor], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return f(*primals) and its derivative along the tangents, by reverse mode over reverse mode.

    The gradient of <u, f> is linear in u, and its derivative with respect to u along the tangents is J v.
    """
    if [p.shape for p in primals] != [t.shape for t in tangents]:
        raise ValueError(
            f"The tangents must be shaped like the primals {[p.shape for p in primals]}, "
            f"got {[t.shape for t in tangents]}."
        )
    inputs = [_own_node(p, i) for i, p in enumerate(primals)]
    value = f(*inputs)
    u = value.detach()  # any node of the right shape will do: it drops out
    pulled = value.gradient(*inputs, gradient=u)
    along: Any = sum((g * v).sum() for g, v in zip(pulled, tangents, strict=True))
    return value, along.gradient(u)[0]


def _own_node(x: Tensor, position: int) -> Tensor:
    """Return x as a node of its own, that no other input passes through, even one computed from x or equal to it.

    Gradients still flow back to x; the shape in between keeps tinygrad from sharing equal nodes.
    """
    return x.reshape((1,) * (position + 1) + x.shape).contiguous_backward().reshape(x.shape)
