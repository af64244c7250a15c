"""Autoencoders of diffusers, which show latents as images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cmcore.errors import Error
from cmcore_torch.arrays import to_numpy, to_tensor

DECODES = ("decoder.", "post_quant_conv.")
"""Where the weights are that decoding needs."""


def decoder(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the decoder of an AutoencoderKL's folder: its own latents (B, c, h, w) to images (B, C, H, W), both float32.

    Only safetensors are read. `Error` where diffusers is missing, or weights are missing or misshapen.
    """
    try:
        from diffusers import AutoencoderKL
    except ImportError as missing:
        raise Error('To decode latents cmcore needs diffusers: pip install "cmcore[latents]".') from missing
    try:
        network, told = AutoencoderKL.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    # Damaged files make safetensors and diffusers raise nearly anything.
    except Exception as failure:
        said = (str(failure).strip().splitlines() or [type(failure).__name__])[0].rstrip(".")
        raise Error(f"The autoencoder {folder} cannot be read: {said}.") from failure
    if lacking := [name for name in told["missing_keys"] if name.startswith(DECODES)]:
        # diffusers itself would draw them at random.
        raise Error(f"The autoencoder {folder} lacks {len(lacking)} of its decoder's weights, {lacking[0]} among them.")
    network.to(device, torch.float32).eval().requires_grad_(False)

    def decode(z: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return to_numpy(network.decode(to_tensor(z, device, torch.float32), return_dict=False)[0])

    return decode
