"""The config.json of a ``diffusers.UNet2DModel`` for a network of ours; `cmcore.interchange.settings.diffusers` backwards."""

from __future__ import annotations

from typing import Any

from cmcore.networks import UNet
from cmcore.networks.unet import norm_groups


def unet_config(network: UNet) -> dict[str, Any]:
    """Return the settings that come nearest; reading them back tells whether the network is the same."""
    channels, height, width = network.shape
    block = network.resize == "block"
    attends = [factor in network.attention for factor in network.factors]
    down, up = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if block else ("DownBlock2D", "UpBlock2D")
    groups = norm_groups(network, network.width)
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.42.0",
        "sample_size": height if height == width else [height, width],
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": list(network.channels),
        "layers_per_block": network.blocks,
        "down_block_types": ["AttnDownBlock2D" if a else down for a in attends],
        "up_block_types": ["AttnUpBlock2D" if a else up for a in reversed(attends)],
        "add_attention": network.attend_middle,
        "attention_head_dim": network.head_channels or None,
        "attn_norm_num_groups": groups if network.scale_shift else None,
        "norm_num_groups": groups,
        "norm_eps": network.eps,
        "resnet_time_scale_shift": "scale_shift" if network.scale_shift else "default",
        "downsample_type": "resnet" if block else "conv",
        "upsample_type": "resnet" if block else "conv",
        "downsample_padding": 0 if network.resize == "conv-end" else 1,
        "time_embedding_type": "positional",
        "freq_shift": 1 if network.times == "sinusoidal-end" else 0,
        "flip_sin_to_cos": not network.sine_first,
        "num_class_embeds": network.classes or None,
        "dropout": network.dropout,
    }
