"""tinygrad's layers, with two differences.

They start without values, whose drawing would advance tinygrad's global generator. And what goes into a product, in the
backward pass as well, is computed once beforehand: fused into the product, as tinygrad would have it, an activation is
computed anew for each output.
"""

from __future__ import annotations

from tinygrad import Tensor, nn


class Linear(nn.Linear):
    """A linear layer with a bias, its weights yet to be given."""

    def __init__(self, n_in: int, n_out: int) -> None:
        self.weight, self.bias = Tensor.empty(n_out, n_in), Tensor.empty(n_out)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x W^T + b."""
        return super().__call__(x.contiguous()).contiguous_backward()


class Conv2d(nn.Conv2d):
    """A convolution with a bias that keeps height and width, its weights yet to be given."""

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        self.kernel_size, self.stride, self.dilation, self.groups, self.padding = (kernel, kernel), 1, 1, 1, kernel // 2
        self.weight, self.bias = Tensor.empty(c_out, c_in, kernel, kernel), Tensor.empty(c_out)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the convolution of x, (B, c_in, H, W)."""
        return super().__call__(x.contiguous()).contiguous_backward()


class Embedding(nn.Embedding):
    """A table of rows, yet to be given."""

    def __init__(self, rows: int, width: int) -> None:
        self.weight = Tensor.empty(rows, width)
