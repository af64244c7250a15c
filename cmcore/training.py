"""The train step around a backend's own: what is checked, drawn and named once, whatever the framework.

A backend supplies `cmcore.backend.TrainStep`, the compiled step with its optimiser and averages. Everything else is here.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Final, final

import numpy as np

from cmcore._arrays import check_label, conditions
from cmcore._options import check_count, check_kind
from cmcore._words import choice
from cmcore.backend import Backend, Stream, namespace
from cmcore.optimization import Optimizer
from cmcore.types import Array, Loss, Network

DROPOUT: Final = "dropout"
"""The condition by which a network with dropout is given the step's key."""

DISTRIBUTIONS: Final = ("uniform", "normal")
"""The distributions that random numbers of a step may have; "uniform" is in [0, 1)."""


_CALL = re.compile(r"\b(forward|__call__|<lambda>)\(\) (got an unexpected keyword|takes|missing) ")
_DTYPE = re.compile("dtype|float|double|half", re.IGNORECASE)


@dataclass(frozen=True)
class TrainSpec:
    """What a train step minimises and how: the batch mean of ``loss(nets, x0, z, tau, scalars, cond) -> (B,)``.

    It is minimised over the parameters of ``nets["online"]``, where

    - ``nets`` maps "online" and "target" to networks ``net(x, c_noise, **cond)``, and each name of a frozen network (a teacher,
      say) to that. "target" has the online weights (the loss stops its gradient itself) unless ``keep_target``, when it has
      an exponential moving average of them with decay ``scalars["target_decay"]``;
    - ``z`` is standard normal, shaped and typed like x0; ``tau``, (B,), is "uniform" in [0, 1) or "normal", float32 at least;
      both are drawn from ``backend.stream(seed, index)`` in this order: z, tau. If the field ``tau`` maps names to these two, such as
      ``{"t": "normal", "hidden": "uniform"}``, the loss is given a mapping of the names to arrays (B,);
    - ``scalars`` holds 0-d arrays. Those read by the step itself: "lr" (this step's learning rate), "ema_decay" (of the
      average that `Trainer.weights` returns) and, with ``keep_target``, "target_decay";
    - ``cond`` is what the networks are conditioned on. With ``dropout`` it has the key "dropout", () int32, told by (seed,
      index), which "online" and "target" are given and frozen networks are not: both evaluations of a pair drop the same.

    With ``accumulate`` = K the gradient is the mean of those of K equal parts of the batch, taken one after the other, for
    which a K-th of the memory is enough; the numbers are the same but for rounding, dropout (each part has a key of its own) and
    losses that compare the samples of a batch with each other.

    ``largest`` is the root mean square beyond which a first batch is warned of: its data are too far from 0 for the method's times.

    Averages are updated after the optimiser: ``avg <- decay * avg + (1 - decay) * online``. ``compiled=False`` runs eagerly.
    """

    loss: Loss
    optimizer: Optimizer = Optimizer()
    tau: str | Mapping[str, str] = "uniform"
    keep_target: bool = False
    dropout: bool = False
    seed: int = 0
    compiled: bool = True
    accumulate: int = 1
    largest: float = math.inf

    def __post_init__(self) -> None:
        if not callable(self.loss):
            raise TypeError(f"The loss must be a function of nets, x0, z, tau, scalars and cond, got {self.loss!r}.")
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f'The optimizer must be an Optimizer, such as Optimizer("adam"), got {self.optimizer!r}.')
        check_count("seed", self.seed, 0)
        check_kind("compiled", self.compiled, bool)
        check_kind("dropout", self.dropout, bool)
        check_kind("accumulate", self.accumulate, int)
        if not self.tau:
            raise ValueError(f"A train step draws at least one tau for each sample, got tau={self.tau!r}.")
        for distribution in self.tau.values() if isinstance(self.tau, Mapping) else [self.tau]:
            if distribution not in DISTRIBUTIONS:
                raise ValueError(
                    f"Unknown distribution of tau {distribution!r}; {choice(distribution, DISTRIBUTIONS, 'choose one of')}"
                )
        if self.accumulate < 1:
            raise ValueError(f"A batch has at least one part, got accumulate={self.accumulate}.")

    @property
    def averages(self) -> tuple[str, ...]:
        """The names of the averages that the step keeps."""
        return ("ema", "target") if self.keep_target else ("ema",)

    def draw(self, stream: Stream, shape: tuple[int, ...], dtype: Any, wide: Any) -> tuple[Array, Array]:
        """Return z, of the shape and dtype, and tau, of dtype ``wide``; z comes first. Several draws are columns of tau."""
        z = stream.normal(shape, dtype)
        distributions = self.tau if isinstance(self.tau, Mapping) else {"tau": self.tau}
        return z, drawn(distributions, shape[0], lambda distribution, shape: getattr(stream, distribution)(shape, wide))

    def parts(
        self, x0: Array, z: Array, tau: Array, cond: Mapping[str, Array]
    ) -> Iterator[tuple[Array, Array, Array, dict[str, Array]]]:
        """Yield ``x0, z, tau, cond`` of each of the batch's ``accumulate`` parts."""
        if self.accumulate == 1:
            yield x0, z, tau, dict(cond)
            return
        size = x0.shape[0] // self.accumulate
        for k in range(self.accumulate):
            own = slice(k * size, (k + 1) * size)
            yield x0[own], z[own], tau[own], {n: c[k] if n == DROPOUT else c[own] for n, c in cond.items()}

    def mean_loss(
        self,
        nets: Mapping[str, Network],
        x0: Array,
        z: Array,
        tau: Array,
        scalars: Mapping[str, Array],
        cond: Mapping[str, Array],
    ) -> Array:
        """Return the batch's mean loss, (); a loss that is not one number per sample is a `ValueError`."""
        return self.mean_and_each(nets, x0, z, tau, scalars, cond)[0]

    def mean_and_each(
        self,
        nets: Mapping[str, Network],
        x0: Array,
        z: Array,
        tau: Array,
        scalars: Mapping[str, Array],
        cond: Mapping[str, Array],
    ) -> tuple[Array, Array]:
        """Return `mean_loss`, (), and the losses that it is the mean of, (B,)."""
        if self.dropout:
            nets = {n: net if n in ("online", "target") else _without_dropout(net) for n, net in nets.items()}
        losses = self.loss(nets, x0, z, by_name(self.tau, tau) if isinstance(self.tau, Mapping) else tau, scalars, cond)
        if not hasattr(losses, "shape"):
            raise TypeError(f"The loss must be an array, one number per sample, got {type(losses).__name__}.")
        if tuple(losses.shape) != tuple(x0.shape[:1]):
            raise ValueError(
                f"The loss must be one number per sample, {tuple(x0.shape[:1])}, got shape {tuple(losses.shape)}."
            )
        return namespace(losses).mean(losses), losses


def drawn(distributions: Mapping[str, str], count: int, draw: Callable[[str, tuple[int, ...]], Array]) -> Array:
    """Return the random numbers of ``count`` samples, (B,), of several names (B, number of names); ``draw(distribution, shape)`` makes them.

    Names of one distribution are drawn at once, and stand beside each other: `by_name` tells them apart.
    """
    several = {
        distribution: sum(other == distribution for other in distributions.values())
        for distribution in dict.fromkeys(distributions.values())
    }
    if len(distributions) == 1:
        return draw(next(iter(several)), (count,))
    columns = [draw(distribution, (count, number)) for distribution, number in several.items()]
    return columns[0] if len(columns) == 1 else namespace(columns[0]).concat(columns, axis=1)


def by_name(distributions: Mapping[str, str], tau: Array) -> dict[str, Array]:
    """Return the numbers that `drawn` made, each (B,), by their names."""
    names = [
        name
        for distribution in dict.fromkeys(distributions.values())
        for name in distributions
        if distributions[name] == distribution
    ]
    return {names[0]: tau} if len(names) == 1 else {name: tau[:, i] for i, name in enumerate(names)}


@final
class Trainer:
    """A copy of a network with its optimiser, averages and compiled train step; the only stateful object of the library.

    The networks given stay as they are. What the backend cannot train is a `TypeError`, a backend without gradients a
    `cmcore.Error`.
    """

    def __init__(
        self, backend: Backend, net: Network, spec: TrainSpec, frozen: Mapping[str, Network] | None = None
    ) -> None:
        if not isinstance(spec, TrainSpec):
            raise TypeError(
                f"A trainer is given a cmcore.TrainSpec, such as TrainSpec(loss), got {type(spec).__name__}."
            )
        if not hasattr(backend, "train_step"):
            raise TypeError(f"A trainer is given a backend, such as cmcore.use() returns, got {backend!r}.")
        if frozen is not None and not isinstance(frozen, Mapping):
            raise TypeError(f'frozen must be a mapping such as {{"teacher": net}}, got {type(frozen).__name__}.')
        if taken := sorted({"online", "target"} & (frozen or {}).keys()):
            raise ValueError(f"A frozen network cannot be named {taken[0]!r}: the trainer's own network is.")
        self._backend, self._spec = backend, spec
        self._needed = ("lr", *(f"{name}_decay" for name in spec.averages))
        self._step = backend.train_step(net, spec, frozen or {})
        self._classes = getattr(net, "classes", 0)
        self._looked = math.isinf(spec.largest)

    def step(
        self, index: int, x0: Array, scalars: Mapping[str, float], cond: Mapping[str, Array] | None = None
    ) -> Array:
        """Take one optimisation step and return the mean loss, a 0-d array that is not yet waited for.

        ``index`` (the step's number) and the seed determine every random number of the step. ``scalars`` are the curriculum's
        values at this step (all of them plain numbers, the same keys at each step); they reach the compiled code as 0-d
        arrays, so that a change of value never recompiles. Of several processes (`cmcore.workers`) each gives its own rows of the batch.
        """
        check_count("The step's number", index, 0)
        if not isinstance(scalars, Mapping):
            raise TypeError(
                f"The scalars must be a mapping, such as recipe.scalars(step, total), got {type(scalars).__name__}."
            )
        for name, value in scalars.items():
            if not isinstance(value, Real) and getattr(value, "shape", None) != ():
                raise TypeError(f"The scalar {name!r} must be a number, got {value!r}.")
        if missing := [name for name in self._needed if name not in scalars]:
            raise ValueError(f"The train step needs the scalar {missing[0]!r}; it got {', '.join(scalars) or 'none'}.")
        if not _is_floating(x0):
            raise ValueError(f"The train step expects floating-point data x0, got {getattr(x0, 'dtype', type(x0))}.")
        if not isinstance(x0, np.ndarray) and not self._backend.owns(x0):
            raise TypeError(
                f"The train step expects x0 as an array of {self._backend.name} or of NumPy, got {type(x0).__module__}.{type(x0).__name__}."
            )
        if not x0.shape or 0 in x0.shape:
            raise ValueError(
                f"The train step expects a batch x0 of at least one sample, (B, ...), got shape {tuple(x0.shape)}."
            )
        if x0.shape[0] % self._spec.accumulate:
            raise ValueError(
                f"A batch of {x0.shape[0]} cannot be taken in {self._spec.accumulate} equal parts; accumulate must divide it."
            )
        if not self._looked:
            self._look(x0)
        cond = dict(conditions(cond))
        if isinstance(label := cond.get("label"), np.ndarray) and isinstance(self._classes, int) and self._classes:
            check_label(label, x0.shape[0], self._classes)
        if self._spec.dropout:
            cond[DROPOUT] = dropout_key(self._spec.seed, index, self._spec.accumulate)
        try:
            return self._step(index, x0, scalars, cond)
        except Exception as problem:
            if said := self._explained(problem, x0, cond):
                raise TypeError(said) from problem
            raise

    @property
    def seen(self) -> Sequence[tuple[Array, Array]]:
        """Each sample's loss, (B,), and its tau at the last step, of one part of the batch after the other; not yet waited for.

        Empty where a backend does not tell.
        """
        return getattr(self._step, "seen", ())

    def weights(self, kind: str = "ema") -> dict[str, np.ndarray]:
        """Return the weights as host arrays in the architecture's layout; ``kind`` is "online" or "ema"."""
        if kind not in ("online", "ema"):
            raise ValueError(f"Unknown kind of weights {kind!r}; {choice(kind, ('online', 'ema'), 'choose one of')}")
        groups = self._step.state()
        # What is not trained, such as running statistics, has no average.
        return {name: self._host(a) for name, a in {**groups["online"], **groups[kind]}.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Return all that resuming needs as host arrays: "online/...", "ema/...", "target/..." and "optimizer/...."""
        return {name: self._host(a) for name, a in _flat(self._step.state()).items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what `state` returned; training then continues bit for bit.

        A state of other names, shapes or types, as another network or another kind of optimiser has them, is a `ValueError`,
        and nothing is changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(
                f"A state is a mapping of names to arrays, as Trainer.state gives it, got {type(state).__name__}."
            )
        groups = self._step.expected(state.keys())
        expected = _flat(groups)
        if odd := sorted(expected.keys() ^ state.keys()):
            where = "missing from it" if odd[0] in expected else "unknown here"
            raise ValueError(
                f"This state belongs to another trainer: {odd[0]!r} is {where}; "
                "restore it into one made with the same network, optimiser and target."
            )
        for name, array in expected.items():
            host = self._host(array)
            if (state[name].shape, state[name].dtype) != (host.shape, host.dtype):
                raise ValueError(
                    f"The state's {name!r} is {state[name].dtype} of shape {state[name].shape}; "
                    f"expected {host.dtype} of shape {host.shape}."
                )
        self._step.restore({group: {n: state[f"{group}/{n}"] for n in arrays} for group, arrays in groups.items()})

    def _look(self, x0: Array) -> None:
        """Warn of data on a scale that the method's times are not made for; once, for it waits for the batch."""
        self._looked = True
        size = math.sqrt(np.mean(np.square(self._host(x0), dtype=np.float64)))
        if size > self._spec.largest:
            warnings.warn(
                f"The data's root mean square is {size:.3g}, and this method's times are made for data well below "
                f"{self._spec.largest:g}: samples start from noise in which such data can still be seen. Subtract the mean and "
                "scale the data to a standard deviation of about 0.5, and undo that after sampling.",
                stacklevel=3,
            )

    def _explained(self, problem: Exception, x0: Array, cond: Mapping[str, Array]) -> str:
        """What a framework's own error means where a network does not fit; empty if it is another's."""
        told = " ".join(str(problem).split()).rstrip(".")
        if isinstance(problem, TypeError) and _CALL.search(told):
            also = "".join(f", {name}={name}" for name in [*cond, *(["c_end"] if "'c_end'" in told else [])])
            return (
                f"The networks of this step are called as net(x, c_noise{also}), and one must be callable so: {told}."
            )
        given = str(self._backend.asarray(x0).dtype).rpartition(".")[2]
        weights = {str(a.dtype).rpartition(".")[2] for a in self._step.state()["ema"].values()}
        if given not in weights and _DTYPE.search(told):
            own = " or ".join(sorted(weights))
            return f"The data x0 must have the dtype of the network's weights, {own}, got {given}: {told}."
        return ""

    def _host(self, array: Any) -> np.ndarray:
        return np.array(array) if isinstance(array, np.ndarray) else self._backend.to_numpy(array)


def pays_to_compile(backend: Backend, steps: int, *, jvp: bool = False) -> bool:
    """Tell whether compiling the train step is worth its time in a run of so many steps; where a backend does not say, it is.

    ``jvp`` tells of losses with a Jacobian-vector product.
    """
    pays = getattr(backend, "pays_to_compile", None)
    return pays is None or bool(pays(steps, jvp))


def dropout_key(seed: int, index: int, parts: int = 1) -> np.ndarray:
    """Return the key of dropout of a step, () int32 of at least 0; of several parts of its batch, (parts,)."""
    keys = (np.random.SeedSequence((seed, index, 0xD0)).generate_state(parts) >> 1).astype(np.int32)
    return keys if parts > 1 else np.array(keys[0])


def _without_dropout(net: Network) -> Network:
    return lambda x, c_noise, **cond: net(x, c_noise, **{n: c for n, c in cond.items() if n != DROPOUT})


def _is_floating(x: Any) -> bool:
    if isinstance(x, np.ndarray):
        return bool(x.dtype.kind == "f")
    return bool(namespace(x).isdtype(x.dtype, "real floating"))


def _flat(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{group}/{name}": array for group, arrays in groups.items() for name, array in arrays.items()}
