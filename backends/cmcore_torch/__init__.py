"""The PyTorch backend of cmcore."""

from cmcore_torch.backend import TorchBackend

BACKEND = TorchBackend()
"""The backend on the CPU; ``BACKEND.on("cuda")`` is the same on a GPU."""
