"""Data to train on: named sets, folders of images and files of arrays, as bytes or floats, mapped where they can be.

======================  ================================================================================================
``digits``              scikit-learn's 8x8 digits, values / 8 - 1; 900 to train on, 897 held out
``fashion-mnist``       Debian's dataset-fashion-mnist (or the folder in ``CMCORE_FASHION_MNIST``); 60,000 and 10,000
``emoji``               the bitmaps of Debian's fonts-noto-color-emoji (or the font file in ``CMCORE_EMOJI_FONT``) on
                        white, RGB; a tenth held out
a folder                every image in it and below, first frame, cut to its central square
a ``.zip``/``.tar``     the same of an archive, which is not unpacked
a ``.csv``/``.tsv``     images by their paths in a column ``path``, with labels in a column ``label``
``.parquet``/``.arrow`` a file, or a folder as Hugging Face's datasets have it, with a column ``image``
an ``.npz``/``.npy``    images (N, H, W), (N, H, W, C) or (N, C, H, W), or points (N, D)
an IDX file             images as in MNIST, gzipped or not, with labels from the file beside it
======================  ================================================================================================

A name wins over a folder of the same name; write ``./digits`` for the folder.
"""

from __future__ import annotations

from cmcore.run.data.dataset import Dataset
from cmcore.run.data.load import load

__all__ = ["Dataset", "load"]
