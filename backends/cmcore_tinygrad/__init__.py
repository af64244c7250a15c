"""The tinygrad backend: an Array API namespace over bare Tensors, TinyJit train steps, JVPs by double backward."""

from cmcore_tinygrad.backend import BACKEND, TinygradBackend

__all__ = ["BACKEND", "TinygradBackend"]
