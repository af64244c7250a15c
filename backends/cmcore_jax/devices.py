"""Names for JAX's devices: "cpu", "cuda:0", "tpu:1", ..."""

from __future__ import annotations

import contextlib

import jax

from cmcore._words import choice


def table() -> dict[str, jax.Device]:
    """Return this process's devices by name, those of the default platform first, the CPU last."""
    found = list(jax.local_devices())
    with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS may exclude the CPU.
        found += [d for d in jax.local_devices(backend="cpu") if d not in found]
    counts: dict[str, int] = {}
    named = {}
    for device in found:
        kind = _kind(device)
        number = counts[kind] = counts.get(kind, -1) + 1
        named["cpu" if (kind, number) == ("cpu", 0) else f"{kind}:{number}"] = device
    return named


def canonical(name: str) -> str:
    """Return the table's name for a device; "gpu" also stands for "cuda", and a missing number for 0."""
    known = table()
    kind, _, number = name.partition(":")
    if kind == "gpu" and "cuda:0" in known:
        kind = "cuda"
    full = f"{kind}:{number or 0}"
    found = "cpu" if full == "cpu:0" else full
    if found not in known:
        raise ValueError(f"JAX has no device named {name!r} here; {choice(name, known, 'the devices are:')}")
    return found


def alike(name: str) -> list[jax.Device]:
    """Return all devices of the kind of the one named, of all processes, those of a process beside each other."""
    first = table()[name]
    every = jax.devices(first.platform) if jax.process_count() > 1 else jax.local_devices(backend=first.platform)
    return sorted(every, key=lambda device: (device.process_index, device.id))


def _kind(device: jax.Device) -> str:
    on_cuda = device.platform == "gpu" and "cuda" in device.client.platform_version.lower()
    return "cuda" if on_cuda else device.platform
