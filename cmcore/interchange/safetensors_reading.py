"""Safetensors that other programs wrote, in one file or in several; the library checks each header against its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmcore.errors import Error


def tensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors in a file, bfloat16 as float32; `ValueError` for a broken one, `Error` for one of our own."""
    import safetensors

    # The library would wait for a pipe.
    if not path.is_file():
        raise ValueError(f"{path.name} is no regular file")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            if "cmcore" in (file.metadata() or {}):
                raise Error(f"{path} is a model of cmcore's own: use it as it is.")
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            if "BF16" not in types.values():
                return {name: np.array(file.get_tensor(name)) for name in types}
        # It has no types.
        described: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        return {name: _array(said) for name, said in described}
    except safetensors.SafetensorError as broken:
        raise ValueError(str(broken)) from broken


def _array(said: Mapping[str, Any]) -> np.ndarray:
    """A tensor that the library describes, for NumPy knows no bfloat16."""
    if said["dtype"] == "BF16":
        return widened(np.frombuffer(said["data"], "<u2")).reshape(said["shape"])
    kind, bits = said["dtype"][0], said["dtype"][1:]
    if said["dtype"] != "BOOL" and (kind not in "FIU" or not bits.isdecimal()):
        raise ValueError(f"a tensor is of the type {said['dtype']}, which is not known here")
    name = "?" if said["dtype"] == "BOOL" else f"<{kind.lower()}{int(bits) // 8}"
    return np.frombuffer(said["data"], name).reshape(said["shape"])


def widened(halves: np.ndarray) -> np.ndarray:
    """Return bfloat16 numbers, given as unsigned integers of 16 bits, as float32: the same numbers."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def in_shards(index: Mapping[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the files in a folder that an index names, by name; `ValueError` if it does not fit them.

    A file is named without a path. Links are followed, for the hub's cache is made of them; only tensors are read.
    """
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError("the index of its weights names no files")
    found = {file: tensors(_shard(folder, file)) for file in dict.fromkeys(map(str, places.values()))}
    if lacking := [name for name, file in places.items() if name not in found[str(file)]]:
        raise ValueError(f"the weight {lacking[0]} is not in {places[lacking[0]]}, where the index has it")
    return {name: found[file][name] for name, file in places.items()}


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
        raise ValueError(f"the index of its weights names {name!r}, which is no safetensors file in its folder")
    return folder / name
