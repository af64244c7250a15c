"""What is known of a picture: some of its coordinates in an orthogonal basis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmcore._arrays import check_real, check_state, from_host
from cmcore._options import check_count
from cmcore.backend import Array, namespace
from cmcore.editing.transforms import Channels, Identity, Patches, Transform


@dataclass(frozen=True, eq=False)
class Known:
    """A picture of which some coordinates are known: algorithm 4's y, A and Omega, the latter turned round.

    ``reference`` is (B, ...), or (1, ...) for all samples; ``mask`` is 1 where a coordinate is known and 0 where it is not, floats
    that broadcast against the coordinates. `TypeError` or `ValueError` for what does not fit.
    """

    reference: Array
    mask: Array
    transform: Transform = Identity()

    def __post_init__(self) -> None:
        check_state(self.reference, "The reference")
        check_real(self.mask, "The mask")
        namespace(self.reference, self.mask)
        if not isinstance(self.transform, Transform):
            raise TypeError(
                f"transform must be a cmcore.editing.Transform, such as cmcore.editing.Identity(), got {self.transform!r}."
            )
        given = tuple(self.transform.forward(self.reference).shape)
        try:
            fits = np.broadcast_shapes(given[1:], tuple(self.mask.shape)[1:]) == given[1:]
        except ValueError:
            fits = False
        if not fits or self.mask.ndim != len(given):
            raise ValueError(
                f"The mask must broadcast against the coordinates, of shape {given}, got {tuple(self.mask.shape)}."
            )

    def put(self, x: Array) -> Array:
        """Return samples with what is known in its place: ``A^-1 [A y where known, else A x]``."""
        return self.transform.inverse(self.among(self.transform.forward(x)))

    def among(self, coordinates: Array) -> Array:
        """Return coordinates with those that are known in their place."""
        known = self.transform.forward(self.reference)
        return namespace(known, coordinates).where(self.mask > 0.5, known, coordinates)

    def start(self) -> Array:
        """Return the picture with 0 in the place of what is not known, algorithm 4's line 2, shaped like ``reference``."""
        known = self.transform.forward(self.reference)
        xp = namespace(known)
        return self.transform.inverse(xp.where(self.mask > 0.5, known, xp.zeros_like(known)))

    def check(self, x: Array) -> None:
        """Raise a sentence unless samples are of the reference's kind."""
        check_state(x, "z")
        namespace(x, self.reference)
        expected, rows = tuple(self.reference.shape), x.shape[0]
        if tuple(x.shape[1:]) != expected[1:] or expected[0] not in (1, rows):
            raise ValueError(
                f"The noise must have the reference's shape, {expected}, or be many of it, got {tuple(x.shape)}."
            )
        if x.dtype != self.reference.dtype:
            raise TypeError(f"The noise must have the reference's dtype, {self.reference.dtype}, got {x.dtype}.")


def inpainting(image: Array, mask: Array) -> Known:
    """Return that the pixels of an image (B, ...) are known where the mask is 1, (B, ...) or what broadcasts against it."""
    return Known(image, mask)


def colourising(grey: Array) -> Known:
    """Return that the grey of RGB images (B, 3, H, W), by `cmcore.editing.LUMA`, is known, and no more of them.

    A grey image (B, 1, H, W) is taken for one whose channels are equal.
    """
    xp = check_state(grey, "The image")
    if grey.ndim != 4 or grey.shape[1] not in (1, 3):
        raise ValueError(f"Images to colour must be grey or RGB, (B, 1 or 3, H, W), got {tuple(grey.shape)}.")
    rgb = xp.broadcast_to(grey, (grey.shape[0], 3, *grey.shape[2:]))
    return Known(rgb, _first(rgb, (1, 1, 1, 3)), Channels())


def upscaling(small: Array, factor: int) -> Known:
    """Return that the means of patches of ``factor`` x ``factor`` pixels are known: small images (B, C, h, w).

    The reference is (B, C, factor h, factor w), each of its patches all alike.
    """
    xp = check_state(small, "The small image")
    check_count("factor", factor, 1)
    if small.ndim != 4:
        raise ValueError(f"Small images must have the shape (B, C, h, w), got {tuple(small.shape)}.")
    b, c, h, w = small.shape
    spread = xp.broadcast_to(xp.reshape(small, (b, c, h, 1, w, 1)), (b, c, h, factor, w, factor))
    large = xp.reshape(spread, (b, c, h * factor, w * factor))
    return Known(large, _first(large, (1, 1, 1, 1, factor * factor)), Patches(factor))


def downsampled(x: Array, factor: int) -> Array:
    """Return the means of the patches of images (B, C, H, W), (B, C, H / factor, W / factor): what `upscaling` starts from."""
    return Patches(factor).forward(x)[..., 0] / factor


def _first(like: Array, shape: tuple[int, ...]) -> Array:
    mask = np.zeros(shape)
    mask[..., 0] = 1.0
    return from_host(mask, like=like)
