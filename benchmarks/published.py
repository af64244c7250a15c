"""Small checkpoints of other programs' kinds, valid ones, and how each is spoilt: for fuzz.py."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import cmcore as cm
from cmcore.interchange.torch_file import write_state_dict
from cmcore.model import DataFacts, Model
from cmcore.networks import Adapted, UNet

Spoil = Callable[[bytes, random.Random], bytes]

FILES = ("torch.zip", "torch.old", "torch.pkl", "flax", "safetensors")
FOLDERS = ("diffusers", "shards", "edm")
SHARDS = "diffusion_pytorch_model.safetensors.index.json"


def write(place: Path) -> None:
    """Write one of each: files of a few numbers, so that most of their bytes are structure, and folders of a whole network."""
    import safetensors.numpy
    import torch

    arrays = {"model.a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "model.a.bias": np.ones(2, np.float32)}
    write_state_dict(place / "torch.zip", arrays)
    tensors = {name: torch.from_numpy(a) for name, a in arrays.items()}
    torch.save({"ema": tensors, "step": 3}, place / "torch.old", _use_new_zipfile_serialization=False)
    # As NVlabs/edm pickles a module: its source code, and its state.
    state = {"sigma_data": 0.5, "_parameters": tensors, "_buffers": {}, "_modules": {}}
    meta = {"type": "class", "version": 6, "module_src": "x = 1", "class_name": "EDMPrecond", "state": state}
    name = b"\x80\x03ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    (place / "torch.pkl").write_bytes(name + pickle.dumps(meta, 3)[2:-1] + b"\x85R.")
    (place / "flax").write_bytes(_packed({"params": arrays, "step": 3, "more": [1, 2.5, "x"]}))
    safetensors.numpy.save_file(arrays, place / "safetensors")
    network = UNet(
        (3, 8, 8), width=32, multipliers=(1, 2), blocks=1, attention=(2,), head_channels=16, times="sinusoidal",
        group_channels=1,
    )  # fmt: skip
    facts = DataFacts("toy", network.shape, True)
    free, edm = Adapted(network, "free", "log", (250.0, 0.0)), UNet(
        (3, 8, 8), width=64, multipliers=(1,), blocks=1, attention=(), times="sinusoidal"
    )  # fmt: skip
    cm.export_model(Model(cm.recipes.get("cd"), free, free.init(0), facts), "diffusers", place / "diffusers")
    cm.export_model(Model(cm.recipes.get("edm"), edm, edm.init(0), facts), "edm", place / "edm")
    shutil.copytree(place / "diffusers", place / "shards")
    unet = place / "shards" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "a.safetensors")
    with safetensors.safe_open(unet / "a.safetensors", "np") as weights:
        index = {"weight_map": {key: "a.safetensors" for key in weights.keys()}}
    (unet / SHARDS).write_text(json.dumps(index))


def _packed(value: Any) -> bytes:
    if isinstance(value, dict):
        return bytes([0x80 | len(value)]) + b"".join(_packed(k) + _packed(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return bytes([0x90 | len(value)]) + b"".join(map(_packed, value))
    if isinstance(value, str):
        return bytes([0xA0 | len(value)]) + value.encode()
    if isinstance(value, bytes):
        return b"\xc4" + bytes([len(value)]) + value
    if isinstance(value, np.ndarray):
        raw = _packed([list(value.shape), str(value.dtype), value.tobytes()])
        return b"\xc7" + bytes([len(raw), 1]) + raw
    return b"\xcb" + struct.pack(">d", value) if isinstance(value, float) else bytes([value])


def spoilt_zip(data: bytes, chance: random.Random, spoil: Spoil) -> bytes:
    """A zip with some of its bytes spoilt, or of which a member was before it was zipped: its checksum is right."""
    if chance.random() < 0.4:
        return spoil(data, chance)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as archive:
        members = {name: source.read(name) for name in source.namelist()}
        chosen = "archive/data.pkl" if chance.random() < 0.7 else chance.choice(list(members))
        for name, content in (members | {chosen: spoil(members[chosen], chance)}).items():
            method = zipfile.ZIP_STORED if chance.random() < 0.95 else zipfile.ZIP_DEFLATED
            archive.writestr(name, content, method)
    return out.getvalue()


def spoilt_folder(source: Path, place: Path, chance: random.Random, spoil: Callable[[bytes, str], bytes]) -> int:
    """Fill a folder with links to another's files but for one, which is spoilt; return how large that is."""
    files = [path for path in source.rglob("*") if path.is_file() and path.suffix in (".json", ".safetensors")]
    chosen = chance.choice([path for path in files if path.suffix == ".json"] * 3 + files)
    for path in files:
        target = place / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path == chosen:
            target.write_bytes(spoil(path.read_bytes(), path.suffix))
        else:
            target.symlink_to(path)
    return sum(path.stat().st_size for path in files)
