"""A published checkpoint opened: its weights by the published names, and what its companions say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Opened:
    """A checkpoint's weights by name and, by layout, what else it says.

    ``companion`` of diffusers' folders has config.json as "unet" and scheduler_config.json as "scheduler"; of EDM's the class
    that uses the network as "preconditioning" and its arguments as "init".
    """

    path: Path
    tensors: Mapping[str, np.ndarray]
    companion: Mapping[str, Any] = field(default_factory=dict)
