"""A published checkpoint opened: its weights by the published names, and what its companions say."""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cmcore._files import placed
from cmcore.errors import Error
from cmcore.interchange import msgpack, safetensors_reading, torch_reading
from cmcore.interchange.bounds import NAME, VISITS
from cmcore.interchange.torch_reading import Made, Tensor


@dataclass(frozen=True)
class Opened:
    """A checkpoint's weights by name and, by layout, what else it says.

    ``companion`` of diffusers' folders has config.json as "unet" and scheduler_config.json as "scheduler"; of EDM's the class
    that uses the network as "preconditioning" and its arguments as "init".
    """

    path: Path
    tensors: Mapping[str, np.ndarray]
    companion: Mapping[str, Any] = field(default_factory=dict)


CONFIG, SCHEDULER, WEIGHTS = "config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"
"""The files of a network and its scheduler in a diffusers folder."""

INDEX = f"{WEIGHTS}.index.json"
"""Which of several files has which weight."""

SETTINGS = "network.json"
"""What makes a folder one of ours with EDM's names."""


def opened(path: Path, chosen: str | None = None) -> Opened:
    """Return a checkpoint's weights and what it says besides; ``chosen`` names the weights where it has several sets.

    What cannot be read is an `Error`, and nothing in it is executed.
    """
    if not path.exists():
        raise Error(f"There is no file or folder {path} to import.")
    try:
        with placed(path):
            return _alone(_folder(path) if path.is_dir() else _file(path, chosen))
    except _BROKEN as broken:
        said = str(broken).strip("'").rstrip(".")
        said = said if len(said) < 200 else f"{said[:200]}..."
        raise Error(
            f"{path} cannot be read: it is truncated or damaged, or no checkpoint of a kind known here ({said})."
        ) from broken


def _alone(found: Opened) -> Opened:
    """The weights without the prefix that torch's DataParallel gives to all of their names."""
    prefix = "module."
    if not all(name.startswith(prefix) for name in found.tensors):
        return found
    return replace(found, tensors={name.removeprefix(prefix): a for name, a in found.tensors.items()})


_BROKEN = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, RecursionError, NotImplementedError,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading files that are no good, or no files of their kind, ends with."""


def _folder(path: Path) -> Opened:
    if (path / "model.safetensors").is_file():
        raise Error(f"{path} is a run of cmcore's own: use it as it is.")
    if (path / SETTINGS).is_file():
        companion = _json(path / SETTINGS)
        if not isinstance(companion.get("init", {}), dict):
            raise ValueError(f"in {SETTINGS}, init holds no settings")
        return Opened(path, safetensors_reading.tensors(path / "network.safetensors"), companion)
    unet = path / "unet" if (path / "unet").is_dir() else path
    if not (unet / CONFIG).is_file():
        raise Error(
            f"{path} holds no checkpoint known here: neither a diffusers {CONFIG} nor {SETTINGS}; give the file itself."
        )
    companion = {"unet": _json(unet / CONFIG)}
    # Early pipelines of one network have all their files in one place.
    for scheduler in (path / "scheduler" / SCHEDULER, path / SCHEDULER):
        if scheduler.is_file():
            companion["scheduler"] = _json(scheduler)
            break
    return Opened(path, {_today(name): a for name, a in _weights_of(unet).items()}, companion)


def _weights_of(unet: Path) -> Mapping[str, np.ndarray]:
    for weights in (unet / WEIGHTS, unet / "diffusion_pytorch_model.bin"):
        if weights.is_file():
            return _file(weights, None).tensors
    if (unet / INDEX).is_file():
        return safetensors_reading.in_shards(_json(unet / INDEX), unet)
    # Such as diffusion_pytorch_model.fp16.safetensors, where a variant is all that was fetched.
    variants = sorted(unet.glob(WEIGHTS.replace(".", ".*.", 1)))
    if len(variants) == 1:
        return _file(variants[0], None).tensors
    raise Error(f"{unet} has a {CONFIG} but no weights: neither {WEIGHTS} nor diffusion_pytorch_model.bin.")


_EARLY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _today(name: str) -> str:
    """diffusers' name of today for one that it has had for an attention's weight before."""
    if ".attentions." not in name:
        return name
    path, _, leaf = name.rpartition(".")
    before, _, part = path.rpartition(".")
    return f"{before}.{_EARLY.get(part, part)}.{leaf}"


def _file(path: Path, chosen: str | None) -> Opened:
    if not path.is_file():
        raise Error(f"{path} is no regular file.")
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return Opened(path, safetensors_reading.tensors(path))
    if head[:2] == b"PK":
        return Opened(path, *_chosen(path, torch_reading.zipped(path), chosen))
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        with path.open("rb") as file:
            content = torch_reading.older(file) if _is_older(head) else torch_reading.pickled(file)
        return Opened(path, *_chosen(path, content, chosen))
    # Flax's files are maps with something in them.
    if head[:1] in (b"\xde", b"\xdf") or b"\x81" <= head[:1] <= b"\x8f":
        return Opened(path, *_chosen(path, msgpack.read(path.read_bytes()), chosen))
    raise ValueError("it begins as no file of weights does")


def _is_older(head: bytes) -> bool:
    # A pickle of torch.save's magic number.
    return head[2:4] == b"\x8a\n"


def _json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > SETTINGS_UP_TO:
        raise ValueError(f"{path.name} is larger than settings are")
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} does not hold settings")
    return content


def _chosen(path: Path, content: Any, name: str | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The weights and what is said of their use: all of a file, or of several sets of weights the one that was chosen."""
    if not isinstance(content, (dict, Made)):
        raise ValueError("it holds no weights by name")
    walk = _Walk()
    named = {} if isinstance(content, Made) else content
    sets = {str(k)[:NAME]: v for k, v in named.items() if k not in _NO_SETS and walk.holds(v)}
    if not sets and walk.holds(content):
        sets = {"": content}
    some = ", ".join(list(sets)[:20])[:400]
    if (name is not None and name not in sets) or not sets:
        asked = "" if name is None else f" {name!r}"
        raise Error(f"{path} has no weights{asked}; it has {some or 'none'}.")
    if name is None and len(sets) > 1:
        raise Error(f"{path} has several sets of weights: choose one with --set weights=NAME, of {some}.")
    one = sets[next(iter(sets)) if name is None else name]
    weights, companion = _weights(walk.found(one), GROWTH * path.stat().st_size), _use(one)
    inner = {k.removeprefix("model."): v for k, v in weights.items() if k.startswith("model.")}
    return inner if inner and (companion or len(inner) == len(weights)) else weights, companion


GROWTH = 16
"""How many times larger than the file its weights may be in memory: of bytes, float32, and those that are shared twice."""

SETTINGS_UP_TO = 2**20
"""The size in bytes of a file of settings that is read."""

_NO_SETS = ("opt_state", "optimizer_state", "rng_state")
"""What training alone needs, in a file that has its state."""


def _weights(named: Iterator[tuple[str, Tensor | np.ndarray]], most: int) -> dict[str, np.ndarray]:
    """The tensors as arrays, by name; `ValueError` if they need more memory than ``most`` bytes."""
    found = list(named)
    if sum(4 * math.prod(tensor.shape) for _, tensor in found) > most:
        raise ValueError("its tensors share their numbers so often that they are larger than the file by far")
    return {name: tensor.array() if isinstance(tensor, Tensor) else tensor for name, tensor in found}


class _Walk:
    """A walk through dicts and records of modules, which has an end where they hold each other again and again."""

    def __init__(self) -> None:
        self._visits = 0

    def holds(self, value: Any) -> bool:
        """Whether it holds weights by name, rather than being one itself."""
        return not isinstance(value, (Tensor, np.ndarray)) and next(self.found(value), None) is not None

    def found(self, value: Any, path: str = "") -> Iterator[tuple[str, Tensor | np.ndarray]]:
        """Yield the tensors by name."""
        self._visits += 1
        if self._visits > VISITS or len(path) > NAME:
            raise ValueError("its values hold each other again and again, or have names that are too long")
        if isinstance(value, (Tensor, np.ndarray)):
            yield path, value
            return
        state, named = _state(value), value if isinstance(value, dict) else {}
        if state is not None:
            groups = ("_parameters", "_buffers", "_modules")
            named = {k: v for group in groups for k, v in (state.get(group) or {}).items()}
        # Flax's names are paths.
        joint = "." if state is not None or any(isinstance(v, Tensor) for v in named.values()) else "/"
        for name, child in named.items():
            yield from self.found(child, f"{path}{joint}{name}" if path else str(name))


def _state(value: Any) -> dict[str, Any] | None:
    """The attributes of a module that was pickled, by itself or with EDM's source code, which is not executed."""
    if not isinstance(value, Made):
        return None
    if isinstance(value.state, dict):
        return value.state
    meta = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
    return meta["state"] if isinstance(meta, dict) and isinstance(meta.get("state"), dict) else None


def _use(value: Any) -> dict[str, Any]:
    state = _state(value)
    if state is None:
        return {}
    meta = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
    name = meta.get("class_name") if isinstance(meta, dict) else getattr(value.function, "name", None)
    plain = {k: v for k, v in state.items() if isinstance(v, (int, float, str))}
    if name == "ECMPrecond" and _begins_at_zero(meta):
        plain["sigma_min"] = 0.0
    return {"preconditioning": name, "init": plain}


def _begins_at_zero(meta: Any) -> bool:
    """Whether the source in a pickle is of TCM's ECMPrecond, whose function is the identity at 0, and not of ECT's, at sigma_min.

    The text is looked at, never executed; where there is none, the class is ECT's, whose name it is.
    """
    text = meta.get("module_src") if isinstance(meta, dict) else None
    return isinstance(text, str) and "class ECMPrecond" in text and not _FROM_SIGMA_MIN.search(text)


_FROM_SIGMA_MIN = re.compile(r"-\s*self\.sigma_min\b")
