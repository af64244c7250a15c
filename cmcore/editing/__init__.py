"""Editing with a consistency function that nobody trained for it (Song et al. 2023, section 6, algorithm 4, appendix D).

Some coordinates of a picture are `Known`, in an orthogonal basis: pixels themselves (`inpainting`), grey (`colourising`), means of
patches (`upscaling`). `edit` draws the others; `stroke` starts from a guide instead, `denoise` from noise of known level, `spherical`
mixes noises, `encode` finds the noise of a picture where a flow map can be inverted, and `conditional` draws from the exact conditional
distribution, for which algorithm 4 is an approximation. All of it is on the path ``x_t = x_0 + t z``, times being standard deviations
of noise; `cmcore.paths.rebased` brings functions of other paths there. `Editor` does it with a trained model and pictures on the host.
"""

from cmcore.editing.denoising import denoise, noise_level
from cmcore.editing.editor import Editor
from cmcore.editing.interpolation import spherical
from cmcore.editing.inversion import encode
from cmcore.editing.known import Known, colourising, downsampled, inpainting, upscaling
from cmcore.editing.population import conditional
from cmcore.editing.replacement import edit, stroke
from cmcore.editing.schedule import edit_times, stroke_times
from cmcore.editing.transforms import LUMA, Basis, Channels, Identity, Patches, Transform

__all__ = [
    "LUMA",
    "Basis",
    "Channels",
    "Editor",
    "Identity",
    "Known",
    "Patches",
    "Transform",
    "colourising",
    "conditional",
    "denoise",
    "downsampled",
    "edit",
    "edit_times",
    "encode",
    "inpainting",
    "noise_level",
    "spherical",
    "stroke",
    "stroke_times",
    "upscaling",
]
