"""Features of any network that is kept as an ONNX file; the extra ``onnx`` reads it, and nothing is executed but its graph."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, final

import numpy as np

from cmcore.errors import Error
from cmcore.run.pictures import to_uint8

BATCH = 64


@final
class OnnxFeatures:
    """The first output, flattened, of an ONNX network with one input of pictures (N, C, H, W), float in [-1, 1] or uint8.

    Grey pictures are given to a network of three channels three times; sides must be the network's where it says them.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            onnxruntime: Any = import_module("onnxruntime")
        except ModuleNotFoundError as missing:
            raise Error(
                'Features of an ONNX file need onnxruntime, which is not installed: pip install "cmcore[metrics]"'
            ) from missing
        self.name = Path(path).name
        if not Path(path).is_file():
            raise Error(f"There is no file {path}.")
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as broken:  # of classes of its own for each kind of fault
            raise Error(
                f"{path} is no ONNX network that can be read ({str(broken).splitlines()[0][:200]})."
            ) from broken
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            said = ", ".join(f"{i.name} {i.shape}" for i in inputs)
            raise Error(f"{self.name} should have one input, of pictures (N, C, H, W); it has {said}.")
        self._input: Any = inputs[0]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the features of pictures, (N, d) float32; pictures of other sides than the network's are a `ValueError`."""
        fixed, channels, *sides = self._input.shape
        if channels == 3 and x.shape[1] == 1:
            x = np.repeat(x, 3, axis=1)
        wanted = [
            x.shape[1] if not isinstance(channels, int) else channels,
            *(s if isinstance(s, int) else g for s, g in zip(sides, x.shape[2:], strict=True)),
        ]
        if list(x.shape[1:]) != wanted:
            raise ValueError(f"{self.name} takes pictures of shape {tuple(wanted)}, got {tuple(x.shape[1:])}.")
        size = fixed if isinstance(fixed, int) and fixed > 0 else BATCH
        return np.concatenate([self._of(x[i : i + size], size) for i in range(0, len(x), size)])

    def _of(self, x: np.ndarray, size: int) -> np.ndarray:
        n = len(x)
        if n < size:
            x = np.concatenate([x, np.zeros((size - n, *x.shape[1:]), x.dtype)])
        given = to_uint8(x) if "uint8" in self._input.type else np.clip(x, -1, 1).astype(np.float32)
        found = self._session.run(None, {self._input.name: given})[0]
        return np.asarray(found, np.float32).reshape(size, -1)[:n]
