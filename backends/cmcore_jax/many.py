"""Training on many devices: a mesh of all of them, on which each train step is one program."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cmcore.errors import Error
from cmcore.training import DROPOUT
from cmcore.workers import Workers

AXIS = "batch"
"""The mesh's axis."""


def join() -> None:
    """Meet the other processes where JAX_COORDINATOR_ADDRESS says that there are any.

    Their number and this one's are JAX_NUM_PROCESSES and JAX_PROCESS_ID, where a cluster that JAX knows (SLURM, Open MPI, TPUs) does
    not tell.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if not address or jax.distributed.is_initialized():
        return
    told = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
    numbers: dict[str, Any] = {name: int(os.environ[key]) for name, key in told.items() if key in os.environ}
    try:
        jax.distributed.initialize(address, **numbers)
    except (RuntimeError, ValueError) as problem:
        said = str(problem).strip().partition("\n")[0].rstrip(".")
        raise Error(
            f"The processes did not find each other at JAX_COORDINATOR_ADDRESS={address}: {said}. Set JAX_NUM_PROCESSES and "
            "JAX_PROCESS_ID, and start cmcore before anything else uses JAX."
        ) from problem


@dataclass(frozen=True)
class JaxWorkers(Workers):
    """JAX's processes, each with some of the mesh's devices."""

    def rows(self, batch: int, parts: int = 1) -> np.ndarray:
        """Return which samples of a batch are this process's, (batch / count,): a run; each program sees the whole batch."""
        own = batch // self.count
        return np.arange(self.rank * own, (self.rank + 1) * own)

    def agreed(self, values: Sequence[int]) -> list[int]:
        """Return the largest of each number over all processes."""
        if self.count == 1:
            return list(values)
        told = multihost_utils.process_allgather(np.asarray(values, np.int32))
        return [int(value) for value in np.max(told, axis=0)]

    def lost(self, failure: BaseException) -> bool:
        """Tell whether an operation of all processes failed."""
        said = str(failure)
        return self.count > 1 and isinstance(failure, RuntimeError) and any(words in said for words in _BROKEN)


_BROKEN = ("closed by peer", "reset by peer", "Connection refused", "UNAVAILABLE", "DEADLINE_EXCEEDED", "Gloo", "NCCL")


@dataclass(frozen=True)
class Spread:
    """Where the arrays of a train step are: samples over the mesh, weights on all of it or, with ``shard``, over it too."""

    mesh: Mesh
    shard: bool = False

    def batch(self, x: Any) -> jax.Array:
        """Return this process's samples, (B / processes, ...), as those of the whole batch, (B, ...)."""
        return jax.make_array_from_process_local_data(self._of(AXIS), np.asarray(x))

    def cond(self, cond: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Return conditions of the whole batch."""
        return {name: self.same(c) if name == DROPOUT else self.batch(c) for name, c in cond.items()}

    def same(self, x: Any) -> jax.Array:
        """Return an array, the same in each process, on every device."""
        return self._made(x, self._of())

    def weights(self, tree: Any) -> Any:
        """Return weights, or what is shaped like them, the same in each process, where weights are."""
        return jax.tree.map(lambda a: self._made(a, self._weight(np.shape(a))), tree)

    def kept(self, tree: Any) -> Any:
        """Keep what is traced where weights are."""
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self._weight(a.shape)), tree)

    def divided(self, tree: Any) -> Any:
        """Divide what is traced, which has a number for each sample, over the mesh."""
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self._of(AXIS)), tree)

    def everywhere(self, tree: Any) -> Any:
        """Bring what is traced to every device."""
        return jax.tree.map(lambda a: jax.lax.with_sharding_constraint(a, self._of()), tree)

    def whole(self, tree: Any) -> Any:
        """Return arrays that this process can read; every process has to ask for those that are divided over several."""
        return jax.tree.map(self._read, tree)

    def _read(self, a: jax.Array) -> jax.Array:
        if a.is_fully_addressable or a.is_fully_replicated:
            return a
        return jax.jit(jnp.copy, out_shardings=self._of())(a)

    def _of(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def _weight(self, shape: tuple[int, ...]) -> NamedSharding:
        """Along the largest axis that the devices divide, where weights are divided at all."""
        count = self.mesh.size
        fitting = [i for i, n in enumerate(shape) if n and n % count == 0] if self.shard else []
        if not fitting:
            return self._of()
        axis = max(fitting, key=lambda i: shape[i])
        return self._of(*(AXIS if i == axis else None for i in range(axis + 1)))

    def _made(self, x: Any, where: NamedSharding) -> jax.Array:
        host = np.asarray(x)
        return jax.make_array_from_callback(host.shape, where, partial(_at, host))


def _at(host: np.ndarray, place: Any) -> np.ndarray:
    return host[place]
