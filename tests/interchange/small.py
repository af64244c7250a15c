"""Small networks of each published style, models of them, and files made by hand."""

import json
import struct

import numpy as np

import cmcore as cm
from cmcore.model import DataFacts, Model
from cmcore.networks import Adapted, UNet
from cmcore.networks.clocks import cosine, linear, ratios
from cmcore.networks.presets import PRESETS

SHAPE = (3, 8, 8)
SIZES = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}
ADM = UNet(SHAPE, **SIZES, head_channels=16, classes=3, times="sinusoidal", group_channels=1)
PLAIN = UNet(SHAPE, **SIZES, head_channels=32, times="sinusoidal", group_channels=1, scale_shift=False)
EDM_ADM = UNet(SHAPE, **SIZES | {"width": 64}, classes=3, times="sinusoidal")
DDPMPP = PRESETS["ddpmpp-cifar10"](SHAPE, 3, **SIZES, augment=9)
NCSNPP = PRESETS["ncsnpp-cifar10"](
    SHAPE, **SIZES, fourier=tuple(float(np.float32(f)) for f in np.linspace(-30, 30, 32))
)
DDPM = UNet(
    SHAPE, **SIZES, head_channels=0, times="sinusoidal-end", group_channels=1, scale_shift=False, resize="conv-end",
    sine_first=True, eps=1e-6,
)  # fmt: skip
STEPS = (1000, 1e-4, 0.02)


def weights_of(architecture, seed=0):
    """Random weights, all of them, none of them large."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in architecture.layout().items():
        size = np.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.2
        found[name] = (size * rng.standard_normal(shape) + (name.endswith("weight") and len(shape) == 1)).astype(
            np.float32
        )
    return found


def model_of(architecture, recipe="edm", seed=0, **options):
    names = tuple(map(str, range(architecture.classes)))
    facts = DataFacts("toy", SHAPE, True, names)
    return Model(cm.recipes.get(recipe, **options), architecture, weights_of(architecture, seed), facts)


MODELS = {
    "openai": lambda: model_of(Adapted(ADM, "free", "log", (250.0, 0.0)), "cd"),
    "openai-plain": lambda: model_of(Adapted(PLAIN, "free", "log", (250.0, 0.0)), "cd", t_min=0.01),
    "diffusers-epsilon": lambda: model_of(
        Adapted(DDPM, "noise", "linear", STEPS), t_min=float(ratios(linear(*STEPS))[0])
    ),
    "diffusers-v": lambda: model_of(
        Adapted(ADM, "velocity", "squaredcos_cap_v2", (100.0,)), t_min=float(ratios(cosine(100))[0])
    ),
    "edm-adm": lambda: model_of(EDM_ADM, sigma_data=0.6),
    "edm-ddpmpp": lambda: model_of(DDPMPP),
    "edm-ncsnpp": lambda: model_of(NCSNPP),
    "edm-vp": lambda: model_of(Adapted(DDPMPP, "noise", "vp", (0.1, 20.0, 999.0))),
    "edm-ve": lambda: model_of(
        Adapted(NCSNPP, "minus_noise", "log", (1.0, -float(np.log(2.0)))), t_min=0.02, t_max=100.0
    ),
    "ect": lambda: model_of(NCSNPP, "cd", t_min=0.003),
    "ect-training": lambda: model_of(NCSNPP, "ect"),
}


def as_msgpack(value):
    """A value as Flax writes it."""
    if isinstance(value, dict):
        return (
            b"\xdf" + struct.pack(">I", len(value)) + b"".join(as_msgpack(k) + as_msgpack(v) for k, v in value.items())
        )
    if isinstance(value, (list, tuple)):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(as_msgpack, value))
    if isinstance(value, str):
        return b"\xdb" + struct.pack(">I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, np.ndarray):
        inner = as_msgpack([list(value.shape), str(value.dtype), value.tobytes()])
        return b"\xc9" + struct.pack(">I", len(inner)) + b"\x01" + inner
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    return b"\xd3" + struct.pack(">q", value)


def nested(tensors):
    """Names with slashes as dicts in dicts."""
    tree = {}
    for name, array in tensors.items():
        *path, last = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = np.ascontiguousarray(array)
    return tree


def rewritten(path, change):
    """Change the weights of a safetensors file, and keep what it says of itself."""
    import safetensors.numpy

    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})


def edited(path, **changes):
    """Change the settings in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
