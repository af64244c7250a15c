"""Which devices torch has here, and which of them is this process's where a launcher has started several."""

from __future__ import annotations

import os

import torch


def names() -> tuple[str, ...]:
    """Return "cpu" and the accelerators there are, such as "cuda:0" and "cuda:1", or "mps:0"."""
    if not torch.accelerator.is_available():
        return ("cpu",)
    return ("cpu", *(f"{_accelerator()}:{i}" for i in range(torch.accelerator.device_count())))


def launched() -> int:
    """Return how many processes a launcher such as torchrun has started; 1 where there was none."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def own(device: str | None) -> str:
    """Return this process's device among those of the kind asked for, by default the accelerator's where there is one."""
    kind = (device or "").partition(":")[0] or (_accelerator() if torch.accelerator.is_available() else "cpu")
    return kind if kind == "cpu" else f"{kind}:{os.environ.get('LOCAL_RANK', '0')}"


def computes_natively(device: str, dtype: str) -> bool:
    """Tell whether a device has instructions for a type; of bfloat16 GPUs from compute capability 8 on, CPUs with AMX or AVX512-BF16."""
    kind = device.partition(":")[0]
    if dtype != "bfloat16":
        return dtype == "float32"
    if kind == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    # Torch tells under names that are its own, which may go.
    tells = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return kind == "cpu" and any(tell() for tell in tells if tell)


def _accelerator() -> str:
    found = torch.accelerator.current_accelerator()
    assert found is not None
    return str(found.type)
