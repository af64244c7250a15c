"""What a backend must supply, member by member: what the Python Array API standard lacks.

Placement on a device, random streams, stop-gradient, gradients, Jacobian-vector products, compilation, networks and a
train step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cmcore._words import choice
from cmcore.errors import Error
from cmcore.types import Array, Network


class Architecture(Protocol):
    """What `Backend.network` builds: `cmcore.networks.Architecture`, or what is like it."""

    def part(self) -> Any:
        """Return the network as a `cmcore.networks.Part`."""
        ...

    def layout(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every weight by name."""
        ...

    def init(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Return initial weights."""
        ...


class Stream(Protocol):
    """An explicit stream of random numbers; successive calls give fresh numbers, equal seeds give equal streams."""

    def normal(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """Draw standard normal numbers of the given shape."""
        ...

    def uniform(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """Draw numbers uniform in [0, 1) of the given shape."""
        ...


class TrainStep(Protocol):
    """A copy of a network with its optimiser and averages, and the step that changes them; see `cmcore.Trainer`.

    The state is arrays by group and name: "online" (all of the network's), "ema" and, if it is kept, "target" (those that
    are trained), "optimizer".

    A step may also have ``seen``, which `cmcore.Trainer.seen` hands on: the samples' losses and tau, as a sequence of pairs of
    arrays; without it runs have no table of the loss by time.
    """

    def __call__(self, index: int, x0: Array, scalars: Mapping[str, float], cond: Mapping[str, Array]) -> Array:
        """Take the step of that number and return the mean loss, a 0-d array that is not yet waited for.

        x0 and the conditions may be host arrays. The random numbers come from `cmcore.TrainSpec.draw`, the loss is the
        mean of its ``mean_loss`` over its ``parts``; the scalars "lr", "ema_decay" and "target_decay" are there.
        """
        ...

    def state(self) -> Mapping[str, Mapping[str, Array]]:
        """Return the state, of this framework's arrays or host arrays."""
        ...

    def expected(self, names: Collection[str]) -> Mapping[str, Mapping[str, Array]]:
        """Return arrays like those that a state with these names, "group/name", must have: `state`, most often."""
        ...

    def restore(self, state: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Put back a state, which has the names, shapes and types of `expected`, into this one."""
        ...


class Computing(Protocol):
    """What a backend says of the types that it computes in."""

    @property
    def name(self) -> str:
        """The entry point's name."""
        ...

    @property
    def device(self) -> str:
        """The device that it is bound to."""
        ...

    def float_types(self) -> tuple[str, ...]:
        """Return the names of its floating dtypes."""
        ...


def check_computes(backend: Computing, dtype: str | None) -> None:
    """Raise `cmcore.Error` unless a backend has a type to compute in, a `Backend.network`'s ``compute``; None is none."""
    if dtype is not None and dtype not in backend.float_types():
        known = choice(dtype, backend.float_types(), "it has")
        raise Error(f"{backend.name} on {backend.device} cannot compute in {dtype!r}; {known}")


def computes_natively(backend: Computing, dtype: str) -> bool:
    """Tell whether a backend's device has instructions for a type; where the backend does not say, it has none.

    ``cmcore train`` without a recipe lets layers compute in "bfloat16" there.
    """
    native = getattr(backend, "computes_natively", None)
    return native is not None and dtype in backend.float_types() and bool(native(dtype))


def without_gradients(backend: Backend, f: Callable[..., Array]) -> Callable[..., Array]:
    """Return f for calls that nobody differentiates, so that a framework need not remember what a gradient would be made from."""
    own: Callable[..., Callable[..., Array]] | None = getattr(backend, "without_gradients", None)
    return own(f) if own else lambda *args, **kwargs: backend.stop_gradient(f(*args, **kwargs))


@runtime_checkable
class Backend(Protocol):
    """What a framework must supply. Instances are immutable and bound to one device; ``on`` gives another one.

    A backend may also have ``memory() -> int | None``: the most bytes of its device that this process has used at once, None where the
    device is the CPU or does not tell; it is shown while training. And ``computes_natively(dtype) -> bool``: whether the device has
    instructions for a type of `float_types`, so that layers are faster in it than in float32; see `computes_natively`. And
    ``without_gradients(f) -> f``: f for calls that nobody differentiates, where the framework remembers what a gradient needs unless it is told so;
    elsewhere `stop_gradient` of the result tells as much.

    One that can train on many devices has ``across(device, devices, shard) -> Backend``, which is ``on`` for a training run: on so many devices (None:
    as many as there are for it), which with ``shard`` share the weights too; and on what that returns, ``workers``, a
    `cmcore.workers.Workers`. The train step of several processes is given each one's rows of the batch, and returns the same mean loss in all of them.
    """

    @property
    def name(self) -> str:
        """The entry point's name, which is the framework's import name."""
        ...

    @property
    def device(self) -> str:
        """Where `asarray`, `stream` and `network` place what they make."""
        ...

    @property
    def trainable(self) -> bool:
        """Whether gradients are available; if not, the gradient members raise `cmcore.Error` with a sentence."""
        ...

    @property
    def xp(self) -> Any:
        """The Array API namespace of the framework's arrays."""
        ...

    @property
    def programs(self) -> Mapping[str, str]:
        """The programs outside Python that it calls, and what for: ``{"clang": "to run on the CPU"}``; empty if there are none."""
        ...

    @property
    def compile_from(self) -> int:
        """From this many evaluations of a network on, compiling it costs less than it saves."""
        ...

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
        compute: str | None = None,
        recompute: bool = False,
    ) -> Network:
        """Build the architecture as a network of the framework; ``architecture.init(seed)`` where no weights are given.

        The weights are kept in ``dtype``. With ``compute``, "bfloat16" for example, the layers compute in that; what goes into
        the network and comes out keeps its own. With ``recompute`` the backward pass computes the activations within a block,
        a part in a list or dict, again instead of keeping them. A backend that cannot says so in a `cmcore.Error`.
        """
        ...

    def weights(self, net: Network) -> dict[str, np.ndarray]:
        """Return a network's weights as host arrays, by the architecture's names and in its shapes."""
        ...

    def train_step(self, net: Network, spec: Any, frozen: Mapping[str, Network]) -> TrainStep:
        """Return the train step of a copy of ``net`` that minimises what ``spec``, a `cmcore.TrainSpec`, says.

        ``frozen`` are networks by the names that the loss knows them by, to which no gradient flows and which stay as they are.
        """
        ...
