"""Networks, each written once and run by every framework.

`Architecture` is a network's settings, `Part` the network itself, made of the layers here; a backend makes it its own with
``backend.network(architecture)``. Names, shapes and initial values of the weights are decided here, so that weights trained
in one framework load in every other.
"""

from cmcore.networks import generic
from cmcore.networks.adapted import Adapted
from cmcore.networks.architecture import Architecture, check_weights, extend_weights
from cmcore.networks.dit import DiT
from cmcore.networks.layers import (
    GELU,
    Attention,
    Conv,
    Dropout,
    Embedding,
    Fourier,
    GroupNorm,
    Layer,
    LayerNorm,
    Layout,
    Linear,
    LogWeight,
    PatchEmbedding,
    Resample,
    SiLU,
    SineCosine,
    Weight,
)
from cmcore.networks.mlp import ResidualMLP
from cmcore.networks.part import Part, leaves, methods, picklable, realised
from cmcore.networks.presets import PRESETS, Preset
from cmcore.networks.registry import from_config, get, names, to_config
from cmcore.networks.residual import ResidualConv
from cmcore.networks.unet import UNet

__all__ = [
    "GELU",
    "PRESETS",
    "Adapted",
    "Architecture",
    "Attention",
    "Conv",
    "DiT",
    "Dropout",
    "Embedding",
    "Fourier",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "Layout",
    "Linear",
    "LogWeight",
    "Part",
    "PatchEmbedding",
    "Preset",
    "Resample",
    "ResidualConv",
    "ResidualMLP",
    "SiLU",
    "SineCosine",
    "UNet",
    "Weight",
    "check_weights",
    "extend_weights",
    "from_config",
    "generic",
    "get",
    "leaves",
    "methods",
    "names",
    "picklable",
    "realised",
    "to_config",
]
