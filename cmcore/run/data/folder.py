"""A folder of images of any size and kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cmcore.errors import Error
from cmcore.run.data.convert import Raw, central_square

SIZE = 32
# Formats Pillow recognises but cannot decode by itself.
UNDECODABLE = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})


def read(folder: Path, size: int | None = None, classes: bool = False) -> Raw:
    """Return all images in a folder and below, sorted by path, cut to their central square and resized (default 32).

    The first frame of an animation, turned as its EXIF says, transparent parts on white. The images are RGB, or grey
    if no pixel of any has a colour. Hidden files and files without an image format's ending are skipped; a file with
    such an ending that cannot be decoded is an error. With ``classes`` the sub-folder directly below is the label.
    """
    extensions = _extensions()
    files = sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix())
    paths = [path for path in files if path.suffix.lower() in extensions]
    if not paths:
        raise Error(
            f"The folder {folder} holds no images: none of its {len(files)} files ends like an image format "
            "(.png, .jpg, .webp, ...)."
        )
    labels, names = _classes(folder, paths) if classes else (None, ())
    side = SIZE if size is None else size
    pixels = np.empty((len(paths), side, side, 3), np.uint8)

    def fill(index: int) -> None:
        pixels[index] = _decoded(paths[index], side)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(fill, range(len(paths))):
            pass
    grey = all((image == image[..., :1]).all() for image in pixels)
    x = np.moveaxis(pixels[..., :1] if grey else pixels, 3, 1)
    return Raw(np.ascontiguousarray(x), labels=labels, names=names)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into RGB: 16-bit grey scaled to 8, transparent parts on white."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values to 255.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its integer pixels do not fit into 16 bits; convert it to 8 or 16 bits")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range; convert it to 8 bits, or use .npz")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def _decoded(path: Path, side: int) -> np.ndarray:
    # Damaged files make Pillow's decoders raise nearly anything.
    try:
        with Image.open(path) as file:
            image = to_rgb(ImageOps.exif_transpose(file))
        square = image.resize((side, side), Image.Resampling.LANCZOS, central_square(*image.size))
    except Exception as error:
        raise Error(f"{path} cannot be read as an image ({error}); repair it or move it out of the folder.") from error
    return np.asarray(square)


def _extensions() -> frozenset[str]:
    known = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in known if kind in Image.OPEN and kind not in UNDECODABLE)


def _files(folder: Path) -> Iterator[Path]:
    # Linked folders are followed, each real folder once.
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in files if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise Error(f"The folder {error.filename} cannot be read ({error.strerror}).") from error


def _classes(folder: Path, paths: list[Path]) -> tuple[np.ndarray, tuple[str, ...]]:
    relative = [path.relative_to(folder) for path in paths]
    loose = next((path for path in relative if len(path.parts) == 1), None)
    if loose is not None:
        raise Error(
            f"With classes every image must lie in a sub-folder of {folder}, one for each class, but {loose} does not."
        )
    names, labels = np.unique([path.parts[0] for path in relative], return_inverse=True)
    return labels.astype(np.int64), tuple(str(name) for name in names)
