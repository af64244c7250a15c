"""``cmcore edit``: pictures brought to the model's size, what each task asks for, and the result written whole."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cmcore._files import atomic_write, placed
from cmcore._words import choice, counted
from cmcore.backend import Backend
from cmcore.editing import Editor
from cmcore.errors import Error
from cmcore.interchange.decoder import Decoder
from cmcore.model import Model
from cmcore.run.data.convert import Size, from_bytes
from cmcore.run.given_picture import opened
from cmcore.run.output import Output, is_folder
from cmcore.run.report import Progress
from cmcore.run.samples import as_png, fingerprint

TASKS = {
    "inpaint": ("mask", "steps", "times", "rounds"),
    "colourise": ("steps", "times", "rounds"),
    "upscale": ("factor", "steps", "times", "rounds"),
    "stroke": ("mask", "times"),
    "denoise": ("noise",),
    "interpolate": ("times",),
    "variations": ("times",),
}
"""The tasks, and the options that each takes."""

NEEDED = {"inpaint": "mask", "upscale": "factor"}
"""The option without which a task cannot be done."""

SPELLINGS = {"colorize": "colourise", "colorise": "colourise", "colourize": "colourise"}

PICTURES = 9
"""How many pictures are made where their number is not asked for."""

Note = Callable[[str], None]


def task(text: str) -> str:
    """Return the task of that name, however it is spelled; `argparse.ArgumentTypeError` for none, with the nearest."""
    name = SPELLINGS.get(text.lower(), text.lower())
    if name in TASKS:
        return name
    raise ArgumentTypeError(f"there is no task {text!r}; {choice(text, TASKS, 'the tasks are').rstrip('.')}")


def run(args: Namespace, model: Model, backend: Backend, decoder: Decoder | None, progress: Progress) -> None:
    """Edit and write; what cannot be is an `Error` or a `ValueError` before anything is computed."""
    _check_options(args)
    n = args.n if args.n is not None else 1 if args.task == "denoise" else PICTURES
    if args.task == "denoise" and n != 1:
        raise Error(f"A picture is denoised in one way; leave --n out, got {n}.")
    shown = decoder.facts(model.data) if decoder else model.data
    labels = _labels(args, model, n, progress.note)
    out = Output(args.out, n, shown, "float32", labels)
    given = _Given(model, args, progress.note)
    told: list[Callable[[int, int], None]] = []
    work = _prepared(Editor(model, backend, args.batch), args, given, n, labels, lambda done: told[0](done, n))
    about = {
        "model": fingerprint(model),
        "seed": args.seed,
        "label": args.label,
        "edit": [args.task, args.image, args.mask, args.factor, args.noise, args.steps, args.times, args.rounds],
        "decoder": decoder.fingerprint() if decoder else None,
    }

    def made() -> np.ndarray:
        with progress.phase(f"Making {counted(n, 'picture')}") as count:
            told.append(count)
            x = work()
            return out.stored(decoder(x) if decoder else x)

    # One picture is written as it is, so that it can be laid over the one that was given.
    if n == 1 and out.path.suffix.lower() == ".png" and not is_folder(args.out):
        out.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out.path, as_png(made()[0]))
    else:
        # Opened first: pictures for a place that takes none would be made in vain.
        with out.sink(about) as sink:
            sink.add(0, made())
            sink.finish()
    progress.note(f"Wrote {counted(n, 'picture')} to {out.path}.")


def _prepared(
    editor: Editor, args: Namespace, given: _Given, n: int, labels: np.ndarray | None, told: Callable[[int], None]
) -> Callable[[], np.ndarray]:
    """What is left to do when all that was named is read."""
    common: dict[str, Any] = {"seed": args.seed, "labels": labels, "times": args.times, "progress": told}
    known = {**common, "steps": args.steps, "rounds": 1 if args.rounds is None else args.rounds}
    if args.task == "inpaint":
        return partial(editor.inpaint, given.picture(), given.mask(), n, **known)
    if args.task == "colourise":
        return partial(editor.colourise, given.picture(channels=1), n, **known)
    if args.task == "upscale":
        return partial(editor.upscale, given.picture(factor=args.factor), args.factor, n, **known)
    if args.task == "stroke":
        return partial(editor.stroke, given.picture(), n, mask=given.mask() if args.mask else None, **common)
    if args.task == "variations":
        return partial(editor.variations, given.picture(), n, **common)
    if args.task == "interpolate":
        if not args.image:
            return partial(editor.interpolate, n=n, **common)
        if not editor.invertible:
            given.note(
                "The model is no flow map that can be inverted, so that the ends are variations of the two pictures and not these."
            )
        return partial(editor.interpolate, given.picture(0), given.picture(1), n, **common)
    picture, noise = given.picture(), args.noise
    if noise is None:
        noise = editor.noise_level(picture)
        given.note(f"The noise is estimated: its standard deviation is {noise:.3g} (--noise), of pixels from -1 to 1.")
    return partial(editor.denoise, picture, noise, label=None if labels is None else int(labels[0]))


def _check_options(args: Namespace) -> None:
    takes = TASKS[args.task]
    every = {option for options in TASKS.values() for option in options}
    if wrong := [option for option in sorted(every) if getattr(args, option) is not None and option not in takes]:
        raise Error(f"The task {args.task} takes no --{wrong[0]}.")
    needed = NEEDED.get(args.task)
    if needed and getattr(args, needed) is None:
        raise Error(f"The task {args.task} needs --{needed}.")
    count = len(args.image or ())
    if args.task == "interpolate":
        if count not in (0, 2):
            raise Error(f"Interpolation takes two pictures, --image A B, or none for two samples; got {count}.")
    elif count != 1:
        raise Error(f"The task {args.task} takes one picture, --image PICTURE; got {count}.")


def _labels(args: Namespace, model: Model, n: int, note: Note) -> np.ndarray | None:
    if args.label is not None:
        return model.label_numbers(args.label, max(n, 1))
    if not model.architecture.classes:
        return None
    if args.task in ("interpolate", "denoise"):
        raise Error("The model has classes; say which one the picture is of with --label.")
    note("The model has classes, which come in turn; choose one with --label.")
    return np.arange(max(n, 1)) % model.architecture.classes


class _Given:
    """The pictures that a command names, as the model knows them; what is done to them is told in a line each."""

    def __init__(self, model: Model, args: Namespace, note: Note) -> None:
        self._shape, self._images = model.data.shape, model.data.images
        self._args, self.note = args, note

    def picture(self, which: int = 0, channels: int | None = None, factor: int = 1) -> np.ndarray:
        """Return a picture, of the model's shape but for the channels asked for and sides shorter by a factor."""
        path, shape = Path(self._args.image[which]), self._shape
        if factor < 1 or (factor > 1 and (len(shape) != 3 or shape[1] % factor or shape[2] % factor)):
            raise Error(f"--factor {factor} does not divide the sides of the model's data, of shape {shape}.")
        if len(shape) == 3:
            shape = (channels or shape[0], shape[1] // factor, shape[2] // factor)
        if path.suffix.lower() in (".npy", ".npz"):
            return _array(path, shape)
        if not self._images:
            raise Error(
                f"The model's data, of shape {self._shape}, are not images: give --image an .npy or .npz of the shape {shape}."
            )
        image, done = _opened(path, (shape[1], shape[2]), "RGB" if shape[0] == 3 else "L", Image.Resampling.LANCZOS)
        if done:
            self.note(f"{path} was {done}.")
        pixels = np.asarray(image)
        return from_bytes(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0))

    def mask(self) -> np.ndarray:
        """Return the mask, (H, W): True where the mask's picture is not black."""
        path = Path(self._args.mask)
        if len(self._shape) != 3:
            raise Error(f"Masks are for images and latents; the model's data have the shape {self._shape}.")
        # What nobody painted, on a layer of strokes, is known.
        image, done = _opened(path, (self._shape[1], self._shape[2]), "L", Image.Resampling.BOX, ground="black")
        if done:
            self.note(f"{path} was {done}.")
        new: np.ndarray = np.asarray(image) > 0
        if not new.any():
            raise Error(f"{path} is black, and white in a mask is what is drawn anew: paint that white.")
        return new


def _array(path: Path, shape: Sequence[int]) -> np.ndarray:
    """One sample of an .npy, or of the only array, or the one named x, of an .npz."""
    try:
        with placed(path):
            content = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as broken:
        raise Error(f"{path} cannot be read as an array ({broken}).") from broken
    if not isinstance(content, np.ndarray):
        with content:
            names = content.files
            name = "x" if "x" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise Error(f"{path} must hold one array, or one named x; it holds {', '.join(names) or 'none'}.")
            content = content[name]
    if content.dtype.kind != "f":
        raise Error(f"{path} must hold floating-point numbers in the data's units, got {content.dtype}.")
    one = content[0] if content.shape == (1, *shape) else content
    if one.shape != tuple(shape):
        raise Error(f"{path} must hold one sample of shape {tuple(shape)}; its array has the shape {content.shape}.")
    return np.asarray(one, np.float32)


def _opened(
    path: Path, size: Size, mode: str, resampling: Image.Resampling, ground: str = "white"
) -> tuple[Image.Image, str]:
    """A picture of a size and mode, and what was done to it."""
    with placed(path), path.open("rb") as content:
        return opened(content, path, size, mode, resampling, ground=ground)
