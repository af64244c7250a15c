"""What a model knows of the data it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DataFacts:
    """What a model must know of the data it was trained on; ``shape`` is one sample's, ``fingerprint`` a digest.

    ``center`` and ``scale``, of one number or one for each index of a sample's first axis, say how the data were standardised;
    empty, they were not. Else the network knows ``(x - center) / scale``, and samples are brought back.
    """

    name: str
    shape: tuple[int, ...]
    images: bool = False
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("center", "scale"):
            numbers = tuple(float(v) for v in getattr(self, name))
            object.__setattr__(self, name, numbers)
            if len(numbers) not in (0, 1, *self.shape[:1]) or not np.isfinite(numbers).all():
                raise ValueError(f"The {name} of data of shape {tuple(self.shape)} cannot be {numbers}.")
        if bool(self.center) != bool(self.scale) or any(v < 0 for v in self.scale):
            raise ValueError("Data have a center and a scale of at least 0, or neither.")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "classes", tuple(str(c) for c in self.classes))

    def standardized(self, x: np.ndarray) -> np.ndarray:
        """Return data (N, \\*shape) as the network knows them, float32."""
        if not self.scale:
            return x
        center, scale = self._columns()
        # What is constant has the scale 0.
        return np.asarray((x - center) / np.where(scale > 0, scale, 1.0), np.float32)

    def restored(self, x: np.ndarray) -> np.ndarray:
        """Return samples (N, \\*shape) of a network in the data's units, float32."""
        if not self.scale:
            return x
        center, scale = self._columns()
        return np.asarray(x * scale + center, np.float32)

    def _columns(self) -> tuple[np.ndarray, np.ndarray]:
        """Center and scale in float64, to be broadcast against samples."""
        center, scale = (np.reshape(v, (-1, *(1,) * (len(self.shape) - 1))) for v in (self.center, self.scale))
        return center, scale
