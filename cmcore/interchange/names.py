"""Where a weight is in a U-Net, and what the published programs call the place.

A place is a role in the network, its level and its number there, and a part of it:

=========  =====================================================  ==========================================
role       what                                                   parts
=========  =====================================================  ==========================================
embed      the embedding of time and label                        time0, time1, label, label_bias, augment
stem       the first convolution                                  conv
enc, dec   the residual blocks on the way down and up, by level   norm0, conv0, affine, norm1, conv1, skip,
mid        the two in the middle                                  norm2, qkv, proj
down, up   the block that leads into the level                    as those; conv alone where it is no block
aux        the way past the level's blocks (NCSN++)               conv
out        what comes last                                        norm, conv
=========  =====================================================  ==========================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """The place of a layer; see the module's docstring."""

    role: str
    part: str
    level: int = 0
    number: int = 0

    @property
    def attends(self) -> bool:
        """Whether it belongs to the attention that follows a block."""
        return self.part in ("norm2", "qkv", "proj")


@dataclass(frozen=True)
class Frame:
    """What the published names count: the levels, the blocks of each on the way down, the image's height, where attention is."""

    levels: int
    blocks: int
    side: int
    attentions: frozenset[Place]
    """The places of the attentions' projections, ``proj``."""
    song: bool = False
    """Whether EDM's program has the network as a SongUNet, not as a DhariwalUNet."""

    @classmethod
    def of(cls, levels: int, blocks: int, side: int, places: Iterable[Place], song: bool = False) -> Frame:
        """Return the frame of a network with layers in these places."""
        return cls(levels, blocks, side, frozenset(p for p in places if p.part == "proj"), song)


Names = Callable[[Frame, Place], str]
"""A published program's name of a layer, without the last part: weight, bias and the like."""


def openai(frame: Frame, place: Place) -> str:
    """Return the name in ``cm.unet.UNetModel`` (openai/consistency_models)."""
    role, part, level, index = place
    across = frame.blocks + 1
    if role == "embed":
        return {"time0": "time_embed.0", "time1": "time_embed.2", "label": "label_emb"}[part]
    if role == "stem":
        return "input_blocks.0.0"
    if role == "out":
        return {"norm": "out.0", "conv": "out.2"}[part]
    if role == "mid":
        return (
            "middle_block.1." + _OPENAI_ATTENTION[part]
            if place.attends
            else _openai_block(f"middle_block.{2 * index}", part)
        )
    if role in ("enc", "down"):
        block = f"input_blocks.{level * across + (1 + index if role == 'enc' else 0)}"
    else:
        # What leads up to a level is the last child of the last block of the level below.
        below = frame.levels - 1 - level - (role == "up")
        block = f"output_blocks.{below * across + (index if role == 'dec' else frame.blocks)}"
    if place.attends:
        return f"{block}.1.{_OPENAI_ATTENTION[part]}"
    child = 0
    if role == "up":
        child = 2 if Place("dec", "proj", level + 1, frame.blocks) in frame.attentions else 1
    if part == "conv":
        return f"{block}.{child}.{'op' if role == 'down' else 'conv'}"
    return _openai_block(f"{block}.{child}", part)


_OPENAI_ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}
_OPENAI_BLOCK = {
    "norm0": "in_layers.0", "conv0": "in_layers.2", "affine": "emb_layers.1", "norm1": "out_layers.0",
    "conv1": "out_layers.3", "skip": "skip_connection",
}  # fmt: skip


def _openai_block(block: str, part: str) -> str:
    return f"{block}.{_OPENAI_BLOCK[part]}"


def diffusers(frame: Frame, place: Place) -> str:
    """Return the name in ``diffusers.UNet2DModel``; queries, keys and values are ``.to_q``, ``.to_k`` and ``.to_v``."""
    role, part, level, index = place
    if role == "embed":
        return {"time0": "time_embedding.linear_1", "time1": "time_embedding.linear_2", "label": "class_embedding"}[
            part
        ]
    if role == "stem":
        return "conv_in"
    if role == "out":
        return {"norm": "conv_norm_out", "conv": "conv_out"}[part]
    last = frame.levels - 1
    where = {
        "mid": "mid_block",
        "enc": f"down_blocks.{level}",
        "down": f"down_blocks.{level - 1}",
        "dec": f"up_blocks.{last - level}",
        "up": f"up_blocks.{last - level - 1}",
    }[role]
    if place.attends:
        number = 0 if role == "mid" else index
        return f"{where}.attentions.{number}" + {"norm2": ".group_norm", "qkv": "", "proj": ".to_out.0"}[part]
    kind = {"down": "downsamplers", "up": "upsamplers"}.get(role, "resnets")
    return f"{where}.{kind}.{index}.{_DIFFUSERS_BLOCK[part]}"


_DIFFUSERS_BLOCK = {
    "norm0": "norm1", "conv0": "conv1", "affine": "time_emb_proj", "norm1": "norm2", "conv1": "conv2",
    "skip": "conv_shortcut", "conv": "conv",
}  # fmt: skip


def edm(frame: Frame, place: Place) -> str:
    """Return the name in ``training.networks.SongUNet`` or ``DhariwalUNet`` (NVlabs/edm)."""
    role, part, level, index = place
    if role == "embed":
        if part.startswith("label"):
            return "map_label"
        return {"time0": "map_layer0", "time1": "map_layer1", "augment": "map_augment"}[part]
    side = frame.side >> (frame.levels - 1 if role == "mid" else level)
    if role == "out":
        return f"dec.{side}x{side}_aux_{part}" if frame.song else f"out_{part}"
    if role == "stem":
        return f"enc.{side}x{side}_conv"
    half = "enc" if role in ("enc", "down", "aux") else "dec"
    block = {"enc": f"block{index}", "dec": f"block{index}", "mid": f"in{index}", "aux": "aux_residual"}.get(role, role)
    return f"{half}.{side}x{side}_{block}" + ("" if role == "aux" else f".{part}")


def flax(frame: Frame, place: Place) -> str:
    """Return the path in ``jcm.models.ncsnpp.NCSNpp`` (openai/consistency_models_cifar10); q, k, v are NIN_0, 1, 2."""
    role, part, level, index = place
    if role == "embed":
        return {"time0": "Dense_0", "time1": "Dense_1"}[part]
    if role == "stem":
        return "Conv_0"
    if role == "out":
        return {"norm": "GroupNorm_0", "conv": "Conv_1"}[part]
    if role == "aux":
        return f"Downsample_{level - 1}/Conv2d_0"
    block = (role, level, index)
    if place.attends:
        attending = [b for b in _in_order(frame) if Place(b[0], "proj", b[1], b[2]) in frame.attentions]
        return f"AttnBlockpp_{attending.index(block)}/" + {"norm2": "GroupNorm_0", "qkv": "NIN", "proj": "NIN_3"}[part]
    return f"ResnetBlockBigGANpp_{_in_order(frame).index(block)}/{_FLAX_BLOCK[part]}"


_FLAX_BLOCK = {
    "norm0": "GroupNorm_0", "conv0": "Conv_0", "affine": "Dense_0", "norm1": "GroupNorm_1", "conv1": "Conv_1",
    "skip": "Conv_2",
}  # fmt: skip


def _in_order(frame: Frame) -> list[tuple[str, int, int]]:
    """Every block as it is evaluated."""
    down = [b for level in range(frame.levels) for b in _level("enc", "down", level, frame.blocks, level > 0)]
    up = [
        b
        for level in reversed(range(frame.levels))
        for b in _level("dec", "up", level, frame.blocks + 1, level < frame.levels - 1)
    ]
    return [*down, ("mid", 0, 0), ("mid", 0, 1), *up]


def _level(role: str, into: str, level: int, blocks: int, led: bool) -> list[tuple[str, int, int]]:
    return [(into, level, 0)] * led + [(role, level, i) for i in range(blocks)]
