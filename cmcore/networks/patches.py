"""Images as smaller images of patches, whose pixels become channels, and back."""

from __future__ import annotations

from cmcore.backend import namespace
from cmcore.types import Array


def to_patches(x: Array, side: int) -> Array:
    """Return images (B, C, H, W) as (B, C side^2, H / side, W / side); channel ``(c side + i) side + j`` is pixel (i, j) of a patch."""
    if side == 1:
        return x
    xp, (b, c, rows, columns) = namespace(x), x.shape
    cut = xp.reshape(x, (b, c, rows // side, side, columns // side, side))
    return xp.reshape(xp.permute_dims(cut, (0, 1, 3, 5, 2, 4)), (b, c * side**2, rows // side, columns // side))


def from_patches(h: Array, side: int) -> Array:
    """Return the images that `to_patches` made patches of."""
    if side == 1:
        return h
    xp, (b, channels, rows, columns) = namespace(h), h.shape
    c = channels // side**2
    cut = xp.reshape(h, (b, c, side, side, rows, columns))
    return xp.reshape(xp.permute_dims(cut, (0, 1, 4, 2, 5, 3)), (b, c, rows * side, columns * side))
