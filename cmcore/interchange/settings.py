"""The settings of a published U-Net, made out of its weights' names and shapes, or of a companion file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from cmcore.errors import Error
from cmcore.networks import UNet

Tensors = Mapping[str, np.ndarray]


def openai(tensors: Tensors, options: Mapping[str, Any]) -> UNet:
    """Return what the weights of ``cm.unet.UNetModel`` say; the options ``side`` and ``head_width`` say the rest."""
    lifts = sorted(
        {(int(m[1]), m[2]) for n in tensors if (m := re.match(r"output_blocks\.(\d+)\.[12]\.(in_layers|conv)\.", n))}
    )
    outputs = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"output_blocks\.(\d+)\.", n)))
    blocks, levels = (lifts[0][0] if lifts else outputs - 1), len(lifts) + 1
    if any(kind == "conv" for _, kind in lifts):
        raise Error(
            "The network halves and doubles its images by convolutions (resblock_updown=False), which is not known here."
        )
    firsts = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
    channels = tuple(_rows(tensors, f"{first}.0.out_layers.0.weight") for first in firsts)
    width, side = _shape(tensors, "time_embed.0.weight")[1], options["side"]
    return UNet(
        (_shape(tensors, "input_blocks.0.0.weight")[1], side, side),
        width,
        _multipliers(channels, width, _rows(tensors, "input_blocks.0.0.weight")),
        blocks,
        tuple(2**level for level, first in enumerate(firsts) if f"{first}.1.qkv.weight" in tensors),
        head_channels=options["head_width"],
        classes=_rows(tensors, "label_emb.weight") if "label_emb.weight" in tensors else 0,
        scale_shift=_rows(tensors, "input_blocks.1.0.emb_layers.1.weight") == 2 * channels[0],
        group_channels=1,
        times="sinusoidal",
    )


def edm(tensors: Tensors) -> UNet:
    """Return what the weights of NVlabs/edm's SongUNet or DhariwalUNet say, which is all."""
    sides = sorted({int(m[1]) for n in tensors if (m := re.match(r"enc\.(\d+)x\d+_block0\.", n))}, reverse=True)
    if not sides:
        raise Error("The weights have no residual blocks enc.*_block0, so they are none of NVlabs/edm's networks.")
    stem = f"enc.{sides[0]}x{sides[0]}"
    blocks = len({n.split(".")[1] for n in tensors if n.startswith(f"{stem}_block")})
    song, fourier = any(n.endswith("_aux_conv.weight") for n in tensors), "map_noise.freqs" in tensors
    residual = any("_aux_residual." in n for n in tensors)
    if (song and fourier != residual) or any("_aux_skip." in n or "_aux_up." in n for n in tensors):
        raise Error(
            "The network is neither DDPM++ nor NCSN++ as published: its embedding and its paths past the levels are mixed."
        )
    width = _shape(tensors, "map_layer0.weight")[1] // (2 if fourier else 1)
    channels = tuple(_rows(tensors, f"enc.{s}x{s}_block0.norm1.weight") for s in sides)
    network: dict[str, Any] = {
        "shape": (_shape(tensors, f"{stem}_conv.weight")[1], sides[0], sides[0]),
        "width": width,
        "multipliers": _multipliers(channels, width, _rows(tensors, f"{stem}_conv.weight")),
        "blocks": blocks,
        "attention": tuple(2**level for level, s in enumerate(sides) if f"enc.{s}x{s}_block0.qkv.weight" in tensors),
        "classes": _shape(tensors, "map_label.weight")[1] if "map_label.weight" in tensors else 0,
        "augment": _shape(tensors, "map_augment.weight")[1] if "map_augment.weight" in tensors else 0,
    }
    if not song:
        return UNet(**network, times="sinusoidal")
    if fourier:
        network |= _NCSNPP | {"fourier": tuple(float(f) for f in tensors["map_noise.freqs"])}
    return UNet(**{**_SONG, **network})


_SONG: dict[str, Any] = {
    "attend_last": True, "head_channels": 0, "label_early": True, "scale_shift": False, "skip_conv": True,
    "skip_scale": 0.5**0.5, "eps": 1e-6, "times": "sinusoidal-end", "sine_first": True,
}  # fmt: skip
_NCSNPP: dict[str, Any] = {"times": "fourier", "features": 2, "taps": (1.0, 3.0, 3.0, 1.0), "residual": True}


def flax(tensors: Tensors, options: Mapping[str, Any]) -> UNet:
    """Return what the parameters of ``jcm.models.ncsnpp.NCSNpp`` say; the options ``side`` and ``attention`` say the rest."""
    side = options["side"]
    attention = options["attention"]
    levels = 1 + len({n.split("/")[0] for n in tensors if n.startswith("Downsample_")})
    residual = len({n.split("/")[0] for n in tensors if n.startswith("ResnetBlockBigGANpp_")})
    blocks, rest = divmod(residual - 3 * levels, 2 * levels)
    if rest:
        raise Error(f"{residual} residual blocks in {levels} levels are not those of an NCSN++ as published.")
    channels = tuple(
        _rows(tensors, f"ResnetBlockBigGANpp_{level * (blocks + 1)}/GroupNorm_1/scale") for level in range(levels)
    )
    frequencies = tensors["GaussianFourierProjection_0/W"]
    width = len(frequencies)
    network = {
        "shape": (_shape(tensors, "Conv_0/kernel")[2], side, side),
        "width": width,
        "multipliers": _multipliers(channels, width, _shape(tensors, "Conv_0/kernel")[3]),
        "blocks": blocks,
        "attention": tuple(2**level for level in range(levels) if side >> level == attention),
        "fourier": tuple(float(f) for f in frequencies),
    }
    return UNet(**{**_SONG, **_NCSNPP, **network})


_DOWN = {"DownBlock2D": False, "ResnetDownsampleBlock2D": False, "AttnDownBlock2D": True}
_UP = {"UpBlock2D": False, "ResnetUpsampleBlock2D": False, "AttnUpBlock2D": True}
_FIXED = {
    "center_input_sample": (False,), "time_embedding_type": ("positional",), "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1, 1.0), "act_fn": ("silu", "swish"), "class_embed_type": (None,), "time_embedding_dim": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"), "downsample_padding": (1, 0),
}  # fmt: skip


def diffusers(config: Mapping[str, Any]) -> UNet:
    """Return what the config.json of a ``diffusers.UNet2DModel`` says; an `Error` names the setting that is not known here."""
    for name, known in _FIXED.items():
        if config.get(name, known[0]) not in known:
            raise Error(f"The UNet2DModel has {name}={config[name]!r}; known here is {' or '.join(map(repr, known))}.")
    channels, down, up = (
        tuple(config.get(k, ())) for k in ("block_out_channels", "down_block_types", "up_block_types")
    )
    if odd := [k for k in down if k not in _DOWN] + [k for k in up if k not in _UP]:
        raise Error(f"The UNet2DModel has blocks of the type {odd[0]}; known here are {', '.join((*_DOWN, *_UP))}.")
    attends = tuple(_DOWN[k] for k in down)
    if len(down) != len(channels) or attends != tuple(_UP[k] for k in reversed(up)):
        raise Error(f"The UNet2DModel's levels differ on the way down ({', '.join(down)}) and up ({', '.join(up)}).")
    scale_shift, attends_middle = (
        config.get("resnet_time_scale_shift") == "scale_shift",
        config.get("add_attention", True),
    )
    if scale_shift and attends_middle and config.get("attn_norm_num_groups") is None:
        raise Error(
            "The UNet2DModel's middle attention has no norm (attn_norm_num_groups is null), which is not known here."
        )
    if config.get("in_channels") != config.get("out_channels"):
        raise Error(
            f"The UNet2DModel takes {config.get('in_channels')} channels and gives {config.get('out_channels')}; a network "
            "that gives a variance besides is not known here."
        )
    side = config.get("sample_size")
    if side is None:
        raise Error("The UNet2DModel's config.json has no sample_size, the images' side in pixels.")
    shift, groups = config.get("freq_shift", 0), config.get("norm_num_groups", 32)
    if shift not in (0, 1):
        raise Error(f"The UNet2DModel has freq_shift={shift}; known here are 0 and 1.")
    if config.get("attn_norm_num_groups") not in (None, groups):
        raise Error(
            "The UNet2DModel's middle attention has a norm of another number of groups, which is not known here."
        )
    return UNet(
        (config["in_channels"], *(side if isinstance(side, (list, tuple)) else (side, side))),
        channels[0],
        _multipliers(channels, channels[0], channels[0]),
        config.get("layers_per_block", 2),
        tuple(2**level for level, attention in enumerate(attends) if attention),
        attend_middle=config.get("add_attention", True),
        head_channels=config.get("attention_head_dim") or 0,
        classes=config.get("num_class_embeds") or 0,
        scale_shift=scale_shift,
        resize=_resize(config, down, up),
        groups=groups,
        group_channels=1,
        eps=config.get("norm_eps", 1e-5),
        times="sinusoidal-end" if shift else "sinusoidal",
        sine_first=not config.get("flip_sin_to_cos", True),
        dropout=config.get("dropout", 0.0),
    )


def _resize(
    config: Mapping[str, Any], down: tuple[str, ...], up: tuple[str, ...]
) -> Literal["block", "conv", "conv-end"]:
    """How images are halved and doubled; an `Error` if in several ways."""
    kinds = {"DownBlock2D": "conv", "UpBlock2D": "conv", "AttnDownBlock2D": config.get("downsample_type", "conv")}
    kinds |= {"AttnUpBlock2D": config.get("upsample_type", "conv")}
    # What the last level's block would do is done by nothing.
    found = {kinds.get(k, "resnet") for k in (*down[:-1], *up[:-1])}
    if len(found) > 1 or not found <= {"conv", "resnet"}:
        raise Error(
            f"The UNet2DModel halves and doubles its images in several ways ({', '.join(sorted(map(str, found)))})."
        )
    if found != {"conv"}:
        return "block"
    return "conv" if config.get("downsample_padding", 1) else "conv-end"


def _multipliers(channels: tuple[int, ...], width: int, stem: int) -> tuple[int, ...]:
    if stem != width or any(c % width for c in channels):
        raise Error(
            f"The levels of the network have {', '.join(map(str, channels))} channels after a first convolution to {stem}; known "
            f"here are multiples of the embedding's {width}, and as many at first."
        )
    return tuple(c // width for c in channels)


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise Error(f"The weights lack {name!r}, without which the network cannot be made out.")
    return tuple(tensors[name].shape)


def _rows(tensors: Tensors, name: str) -> int:
    return _shape(tensors, name)[0]
