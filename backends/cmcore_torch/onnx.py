"""Functions of tensors as ONNX files, by torch's own exporter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmcore.errors import Error

OPSET = 18
"""The version of ONNX's operators, of 2022, which all runtimes in use read."""


def write(
    function: Callable[..., Any],
    inputs: Mapping[str, torch.Tensor],
    output: str,
    path: Path,
    about: Mapping[str, str],
    parts: Sequence[Any] = (),
) -> None:
    """Write ``function(*inputs)`` as a file, whose inputs have these names and any size along their first axis.

    ``parts`` are the modules whose weights the function uses, ``about`` the file's metadata. `Error` where a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as missing:
        raise Error(f'Writing ONNX files needs {missing.name}: pip install "cmcore[onnx]".') from missing

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))

        def forward(self, *values: torch.Tensor) -> Any:
            return function(*values)

    any_size = torch.export.Dim("batch")
    with torch.no_grad(), _quietly():
        program = torch.onnx.export(
            Exported().eval(),
            tuple(inputs.values()),
            dynamo=True,
            dynamic_shapes={"values": tuple({0: any_size} for _ in inputs)},
            input_names=list(inputs),
            output_names=[output],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(about)
    # Weights of more than two gigabytes go to a file of their own beside it.
    program.save(str(path))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says of packages that are not needed and of its own code."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
