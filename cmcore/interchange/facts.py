"""What a published checkpoint says of its U-Net, whoever wrote it: made out of the weights' names and shapes, or of a companion file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmcore.errors import Error

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Facts:
    """The settings that published U-Nets differ in.

    ``levels`` are the channels of each level from the full size down, ``blocks`` the residual blocks of each on the way down,
    ``attention`` the levels that have attention, ``width`` the number that the time's features and the embedding are
    multiples of. ``style`` is the program's: "adm" (OpenAI's and EDM's), "ddpmpp" or "ncsnpp" (Song's, in EDM's form or in
    Flax) or "ddpm" (diffusers' with convolutions that halve and double).
    """

    style: str
    shape: tuple[int, int, int]
    width: int
    levels: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    head_width: int | None = None
    """Channels of an attention's head; None: one head."""
    classes: int = 0
    augment: int = 0
    scale_shift: bool = True
    interleaved: bool = False
    """Whether queries, keys and values are published in turns."""
    time_scale: float = 1.0
    endpoint: bool = False
    """Whether the lowest frequency of the time's features is the last on the ladder, rather than the one beyond."""
    sin_first: bool = False
    eps: float = 1e-5
    pad: int = 1
    """How the convolutions that halve pad: 1 on each side, or 0: 1 at the end alone."""

    def __post_init__(self) -> None:
        if not self.levels or min(*self.levels, self.blocks, self.width, *self.shape) < 1:
            raise Error(f"No network can be made out: it would have {self.blocks} blocks in levels of {self.levels} channels.")


def openai(tensors: Tensors, options: Mapping[str, Any]) -> Facts:
    """Return what the weights of ``cm.unet.UNetModel`` say; the image's side and the heads' width are asked for."""
    lifts = sorted({(int(m[1]), m[2]) for n in tensors if (m := re.match(r"output_blocks\.(\d+)\.[12]\.(in_layers|conv)\.", n))})
    outputs = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"output_blocks\.(\d+)\.", n)))
    blocks, levels = (lifts[0][0] if lifts else outputs - 1), len(lifts) + 1
    if any(kind == "conv" for _, kind in lifts):
        raise Error("The network halves and doubles its images by convolutions (resblock_updown=False), which is not known here.")
    firsts = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
    channels = tuple(_rows(tensors, f"{first}.0.out_layers.0.weight") for first in firsts)
    embedding = _shape(tensors, "time_embed.0.weight")
    return Facts(
        "adm",
        (_shape(tensors, "input_blocks.0.0.weight")[1], *[asked(options, "side", "the images' side in pixels")] * 2),
        embedding[1],
        channels,
        blocks,
        tuple(level for level, first in enumerate(firsts) if f"{first}.1.qkv.weight" in tensors),
        asked(options, "head_width", "the channels of each head of the attention (64 in OpenAI's own)"),
        classes=_rows(tensors, "label_emb.weight") if "label_emb.weight" in tensors else 0,
        scale_shift=_rows(tensors, "input_blocks.1.0.emb_layers.1.weight") == 2 * channels[0],
        time_scale=1000.0,
    )


def edm(tensors: Tensors, options: Mapping[str, Any]) -> Facts:
    """Return what the weights of NVlabs/edm's SongUNet or DhariwalUNet say; nothing is asked for."""
    sides = sorted({int(m[1]) for n in tensors if (m := re.match(r"enc\.(\d+)x\d+_block0\.", n))}, reverse=True)
    if not sides:
        raise Error("The weights have no residual blocks enc.*_block0, so they are none of NVlabs/edm's networks.")
    stem = f"enc.{sides[0]}x{sides[0]}"
    blocks = len({n.split(".")[1] for n in tensors if n.startswith(f"{stem}_block")})
    song, fourier = any(n.endswith("_aux_conv.weight") for n in tensors), "map_noise.freqs" in tensors
    residual = any("_aux_residual." in n for n in tensors)
    if song and fourier != residual or any("_aux_skip." in n or "_aux_up." in n for n in tensors):
        raise Error("The network is neither DDPM++ nor NCSN++ as published: its embedding and its paths past the levels are mixed.")
    label = "map_label.weight"
    return Facts(
        ("ncsnpp" if fourier else "ddpmpp") if song else "adm",
        (_shape(tensors, f"{stem}_conv.weight")[1], sides[0], sides[0]),
        _shape(tensors, "map_layer0.weight")[1] // (2 if fourier else 1),
        tuple(_rows(tensors, f"enc.{s}x{s}_block0.norm1.weight") for s in sides),
        blocks,
        tuple(level for level, s in enumerate(sides) if f"enc.{s}x{s}_block0.qkv.weight" in tensors),
        None if song else 64,
        classes=_shape(tensors, label)[1] if label in tensors else 0,
        augment=_shape(tensors, "map_augment.weight")[1] if "map_augment.weight" in tensors else 0,
        scale_shift=not song,
        interleaved=True,
        endpoint=song,
        sin_first=song,
        eps=1e-6 if song else 1e-5,
    )


def flax(tensors: Tensors, options: Mapping[str, Any]) -> Facts:
    """Return what the parameters of ``jcm.models.ncsnpp.NCSNpp`` say; the image's side and where attention is are asked for."""
    side = asked(options, "side", "the images' side in pixels (32 in OpenAI's own)")
    attention = asked(options, "attention", "the side at which there is attention (16 in OpenAI's own)")
    levels = 1 + len({n.split("/")[0] for n in tensors if n.startswith("Downsample_")})
    residual = len({n.split("/")[0] for n in tensors if n.startswith("ResnetBlockBigGANpp_")})
    blocks, rest = divmod(residual - 3 * levels, 2 * levels)
    if rest:
        raise Error(f"{residual} residual blocks in {levels} levels are not those of an NCSN++ as published.")
    channels = tuple(
        _rows(tensors, f"ResnetBlockBigGANpp_{level * (blocks + 1)}/GroupNorm_1/scale") for level in range(levels)
    )
    return Facts(
        "ncsnpp",
        (_shape(tensors, "Conv_0/kernel")[2], side, side),
        _rows(tensors, "GaussianFourierProjection_0/W"),
        channels,
        blocks,
        tuple(level for level in range(levels) if side >> level == attention),
        scale_shift=False,
        endpoint=True,
        sin_first=True,
        eps=1e-6,
    )


_DOWN = {"DownBlock2D": False, "ResnetDownsampleBlock2D": False, "AttnDownBlock2D": True}
_UP = {"UpBlock2D": False, "ResnetUpsampleBlock2D": False, "AttnUpBlock2D": True}
_FIXED = {
    "center_input_sample": (False,), "time_embedding_type": ("positional",), "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1, 1.0), "act_fn": ("silu", "swish"), "add_attention": (True,), "class_embed_type": (None,),
    "norm_num_groups": (32,), "time_embedding_dim": (None,),
}  # fmt: skip


def diffusers(config: Mapping[str, Any]) -> Facts:
    """Return what the config.json of a ``diffusers.UNet2DModel`` says; an `Error` names the setting that is not known here."""
    for name, known in _FIXED.items():
        if config.get(name, known[0]) not in known:
            raise Error(f"The UNet2DModel has {name}={config[name]!r}; known here is {' or '.join(map(repr, known))}.")
    channels, down, up = (tuple(config.get(k, ())) for k in ("block_out_channels", "down_block_types", "up_block_types"))
    if odd := [k for k in down if k not in _DOWN] + [k for k in up if k not in _UP]:
        raise Error(f"The UNet2DModel has blocks of the type {odd[0]}; known here are {', '.join((*_DOWN, *_UP))}.")
    attends = tuple(_DOWN[k] for k in down)
    if len(down) != len(channels) or attends != tuple(_UP[k] for k in reversed(up)):
        raise Error(f"The UNet2DModel's levels differ on the way down ({', '.join(down)}) and up ({', '.join(up)}).")
    shift = config.get("resnet_time_scale_shift", "default")
    if shift == "scale_shift" and config.get("attn_norm_num_groups") is None:
        raise Error("The UNet2DModel's middle attention has no norm (attn_norm_num_groups is null), which is not known here.")
    if config.get("in_channels") != config.get("out_channels"):
        raise Error(
            f"The UNet2DModel takes {config.get('in_channels')} channels and gives {config.get('out_channels')}; a network "
            "that gives a variance besides is not known here."
        )
    plain = _plain(config, down, up)
    side = config.get("sample_size")
    if side is None:
        raise Error("The UNet2DModel's config.json has no sample_size, the images' side in pixels.")
    return Facts(
        "ddpm" if plain else "adm",
        (config.get("in_channels", 3), *(side if isinstance(side, (list, tuple)) else (side, side))),
        channels[0],
        channels,
        config.get("layers_per_block", 2),
        tuple(level for level, attention in enumerate(attends) if attention),
        config.get("attention_head_dim"),
        classes=config.get("num_class_embeds") or 0,
        scale_shift=shift == "scale_shift",
        endpoint=bool(config.get("freq_shift", 0)),
        sin_first=not config.get("flip_sin_to_cos", True),
        eps=config.get("norm_eps", 1e-5),
        pad=config.get("downsample_padding", 1),
    )


def _plain(config: Mapping[str, Any], down: tuple[str, ...], up: tuple[str, ...]) -> bool:
    """Whether images are halved and doubled by convolutions rather than by residual blocks; an `Error` if by both."""
    # The last level is not left, so what its block would do is told by nothing.
    kinds = {"DownBlock2D": "conv", "UpBlock2D": "conv", "AttnDownBlock2D": config.get("downsample_type", "conv")}
    kinds |= {"AttnUpBlock2D": config.get("upsample_type", "conv")}
    found = {kinds.get(k, "resnet") for k in (*down[:-1], *up[:-1])}
    if len(found) > 1 or not found <= {"conv", "resnet"}:
        raise Error(f"The UNet2DModel halves and doubles its images in several ways ({', '.join(sorted(map(str, found)))}).")
    return found == {"conv"}


def asked(options: Mapping[str, Any], name: str, what: str) -> int:
    """Return a setting that the file does not say; without it, an `Error` that says how to give it."""
    if name not in options:
        raise Error(f"The file does not say {what}: give it with --set {name}=NUMBER.")
    return int(options[name])


def _shape(tensors: Tensors, name: str) -> tuple[int, ...]:
    if name not in tensors:
        raise Error(f"The weights lack {name!r}, without which the network cannot be made out.")
    return tuple(tensors[name].shape)


def _rows(tensors: Tensors, name: str) -> int:
    return _shape(tensors, name)[0]
