"""Networks, each written once and run by every framework.

`Architecture` is a network's settings, `Part` the network itself, made of the layers here; a backend makes it its own with
``backend.network(architecture)``. Names, shapes and initial values of the weights are decided here, so that weights trained
in one framework load in every other.
"""

from cmcore.networks import generic
from cmcore.networks.adapted import Adapted
from cmcore.networks.architecture import Architecture, check_weights, grown
from cmcore.networks.layers import (
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
    Resample,
    SiLU,
    Weight,
)
from cmcore.networks.mlp import ResidualMLP
from cmcore.networks.part import Part, leaves, methods, picklable, realised
from cmcore.networks.registry import from_config, get, names, to_config
from cmcore.networks.residual import ResidualConv
from cmcore.networks.unet import UNet

__all__ = [
    "Adapted",
    "Architecture",
    "Attention",
    "Conv",
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
    "Resample",
    "ResidualConv",
    "ResidualMLP",
    "SiLU",
    "UNet",
    "Weight",
    "check_weights",
    "from_config",
    "generic",
    "get",
    "grown",
    "leaves",
    "methods",
    "names",
    "picklable",
    "realised",
    "to_config",
]
