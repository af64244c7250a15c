"""What a backend must supply, member by member: what the Python Array API standard lacks.

Placement on a device, random streams, stop-gradient, gradients, Jacobian-vector products, compilation, networks and a
train step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from cmcore.types import Array, Loss, Network

if TYPE_CHECKING:
    from cmcore.architectures import Architecture
    from cmcore.optimization import Optimizer


class Stream(Protocol):
    """An explicit stream of random numbers; successive calls give fresh numbers, equal seeds give equal streams."""

    def normal(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """Draw standard normal numbers of the given shape."""
        ...

    def uniform(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """Draw numbers uniform in [0, 1) of the given shape."""
        ...


class Trainer(Protocol):
    """A network with its optimiser, averages and compiled train step; the only stateful object of the library."""

    def step(
        self, index: int, x0: Array, scalars: Mapping[str, float], cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Take one optimisation step and return the mean loss, a 0-d array that is not yet waited for.

        ``index`` (the step's number) and the trainer's seed determine every random number of the step. ``scalars`` are
        the curriculum's values at this step (all of them plain numbers, the same keys at each step); they reach the
        compiled code as 0-d arrays, so that a change of value never recompiles.
        """
        ...

    def weights(self, kind: str = "ema") -> dict[str, np.ndarray]:
        """Return the weights as host arrays in the architecture's layout; ``kind`` is "online" or "ema"."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return all that resuming needs (weights, averages, target, optimiser) as named host arrays."""
        ...

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what `state` returned; training then continues bit for bit."""
        ...


@runtime_checkable
class Backend(Protocol):
    """What a framework must supply. Instances are immutable and bound to one device; ``on`` gives another one."""

    name: str
    """The entry point's name, which is the framework's import name."""
    device: str
    """Where `asarray`, `stream` and `network` place what they make."""
    trainable: bool
    """Whether gradients are available; if not, the gradient members raise `cmcore.Error` with a sentence."""
    xp: Any
    """The Array API namespace of the framework's arrays."""
    programs: Mapping[str, str]
    """The programs outside Python that it calls, and what for: ``{"clang": "to run on the CPU"}``; empty if there are none."""
    compile_from: int
    """From this many evaluations of a network on, compiling it costs less than it saves."""

    def version(self) -> str:
        """Return the framework's version."""
        ...

    def devices(self) -> tuple[str, ...]:
        """Return the names of the devices that can be used here, the default one first."""
        ...

    def on(self, device: str | None) -> Backend:
        """Return this backend bound to a device; `ValueError` names the devices there are if it is not one of them."""
        ...

    def float_types(self) -> tuple[str, ...]:
        """Return the names of the floating dtypes that it has on its device as it is set up, such as "bfloat16", "float32".

        Arrays, streams and networks can be of any of them; "float32" is always there.
        """
        ...

    def owns(self, x: object) -> bool:
        """Tell whether x is one of this framework's arrays (traced ones included)."""
        ...

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        """Place host data (or this framework's array) on the device, as ``dtype`` or the dtype it has.

        Python floats become the framework's default floating dtype.
        """
        ...

    def to_numpy(self, x: Array) -> np.ndarray:
        """Copy an array to the host."""
        ...

    def stream(self, seed: int, index: int = 0) -> Stream:
        """Return the random stream number ``index`` of ``seed``; distinct pairs give independent streams."""
        ...

    def stop_gradient(self, x: Array) -> Array:
        """Return x, through which no gradient flows."""
        ...

    def value_and_grad(self, loss: Callable[..., Array]) -> Callable[..., tuple[Array, dict[str, Array]]]:
        """Return ``g(net, *args) -> (loss(net, *args), gradients by parameter name)``; ``loss`` must give a 0-d array.

        ``net`` is a network made by `network`. Parameter names are the architecture's.
        """
        ...

    def jvp(
        self, f: Callable[..., Array], primals: tuple[Array, ...], tangents: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """Return ``f(*primals)`` and its derivative along the tangents; both can be differentiated again."""
        ...

    def compile(self, f: Callable[..., Any]) -> Callable[..., Any]:
        """Return f compiled for repeated calls with arrays of the same shapes; eager (said once) if no compiler is here."""
        ...

    def network(
        self,
        architecture: Architecture,
        weights: Mapping[str, np.ndarray] | None = None,
        *,
        seed: int = 0,
        dtype: str = "float32",
    ) -> Network:
        """Build the architecture as a network of the framework; ``architecture.init(seed)`` where no weights are given."""
        ...

    def weights(self, net: Network) -> dict[str, np.ndarray]:
        """Return a network's weights as host arrays, by the architecture's names and in its shapes."""
        ...

    def trainer(
        self,
        net: Network,
        loss: Loss,
        *,
        optimizer: Optimizer,
        tau: str = "uniform",
        draws: int = 1,
        frozen: Mapping[str, Network] | None = None,
        keep_target: bool = False,
        seed: int = 0,
        compiled: bool = True,
    ) -> Trainer:
        """Return a train step that minimises the batch mean of

        ``loss(nets, x0, z, tau, scalars, cond) -> (B,)``

        over the parameters of ``nets["online"]``, where

        - ``nets`` maps "online" and "target" to networks ``net(x, c_noise, **cond)``, and each name in ``frozen`` (a
          teacher, say) to that network. "target" has the online weights (the loss stops its gradient itself) unless
          ``keep_target``, when it has an exponential moving average of them with decay ``scalars["target_decay"]``;
        - ``z`` is standard normal, shaped and typed like x0; ``tau``, (B,), or (B, draws) for more draws than one, is
          "uniform" in [0, 1) or "normal", float32 at least; both are drawn from `stream(seed, index)` in this order: z,
          tau;
        - ``scalars`` holds 0-d arrays. Those read by the step itself: "lr" (this step's learning rate), "ema_decay"
          (of the average that `Trainer.weights` returns) and, with ``keep_target``, "target_decay".

        Averages are updated after the optimiser: ``avg <- decay * avg + (1 - decay) * online``.
        """
        ...


def draws_shape(draws: int) -> tuple[int, ...]:
    """Return the shape of one sample's ``tau`` in a train step: () for one draw, (draws,) for more, else `ValueError`."""
    if draws < 1:
        raise ValueError(f"A train step draws at least one tau for each sample, got draws={draws}.")
    return () if draws == 1 else (draws,)
