"""From a request to pictures: models held ready, and one thing done at a time. Nothing of a request is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from cmcore.backend import Backend
from cmcore.editing import Editor, spherical
from cmcore.errors import Error
from cmcore.model import Model
from cmcore.run.data.convert import from_bytes
from cmcore.run.given_picture import opened
from cmcore.run.page import EDITS, MOST_PICTURES, check_shown, factors, facts
from cmcore.run.pictures import as_pixels
from cmcore.run.play.request import MOST_STEPS, Request
from cmcore.run.play.tracing import Frame, traced
from cmcore.run.samples import as_png
from cmcore.sampling import seeded_noise

MOST_PIXELS = 2**24
"""The most pixels of a picture that is sent."""

MOST_SHOWN = 2**22
"""The most pixels of the pictures on the way that are sent back."""


@dataclass(frozen=True)
class Answer:
    """PNGs, and those of each step on the way with what it is; ``milliseconds`` are the computation's, nothing else's."""

    pictures: tuple[bytes, ...]
    frames: tuple[tuple[str, tuple[bytes, ...]], ...]
    milliseconds: float
    notes: tuple[str, ...]


class Desk:
    """Some models of one backend, ready to answer; requests of any number of threads are answered one after the other.

    Models of other data than images of one or three channels are an `Error`.
    """

    def __init__(self, models: Sequence[tuple[str, Model]], backend: Backend) -> None:
        for name, model in models:
            check_shown(name, model)
        self.names = tuple(name for name, _ in models)
        self._backend = backend
        self._models = [model for _, model in models]
        self._editors = [Editor(model, backend, MOST_PICTURES) for model in self._models]
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Return what the page has to know of the models, as plain JSON data."""
        return {
            "models": [facts(name, model) for name, model in zip(self.names, self._models, strict=True)],
            "where": f"computed by {self._backend.name} on the machine that serves this page",
            "most_steps": MOST_STEPS,
        }

    def answer(self, request: Request) -> Answer:
        """Return what is asked for; what cannot be is an `Error` or a `ValueError`."""
        editor = self._editor(request.model)
        labels = None
        if request.label is not None and editor.model.architecture.classes:
            labels = self._models[request.model].label_numbers(request.label, request.n)
        notes: list[str] = []
        work = self._work(editor, request, labels)
        with self._lock:
            start = time.perf_counter()
            x, frames = work()
            taken = time.perf_counter() - start
        if len(frames) < 2:
            frames = []
        elif sum(frame.x.size for frame in frames) > MOST_SHOWN:
            frames = []
            notes.append("So many evaluations of so large pictures are not shown one by one; ask for fewer.")
        shown = tuple((frame.said, _pngs(frame.x)) for frame in frames)
        return Answer(_pngs(x), shown, 1000 * taken, tuple(notes))

    def fitted(self, content: bytes, model: int) -> tuple[bytes, str]:
        """Return the PNG of a picture as that model takes it, and what was done to it, a sentence or nothing."""
        image, done = _opened(content, self._editor(model).model.data.shape, "The file")
        out = BytesIO()
        image.save(out, "PNG")
        return out.getvalue(), f"The picture was {done}." if done else ""

    def _editor(self, number: int) -> Editor:
        if not 0 <= number < len(self._editors):
            raise Error(f"There is no run of number {number}; there are {len(self._editors)}.")
        return self._editors[number]

    def _work(
        self, editor: Editor, request: Request, labels: np.ndarray | None
    ) -> Callable[[], tuple[np.ndarray, Sequence[Frame]]]:
        """What is left to do when all that was given is read and checked."""
        if request.task not in EDITS:
            return self._sampling(editor, request, labels)
        many: dict[str, Any] = {"n": request.n, "seed": request.seed, "labels": labels, "times": request.times}
        known = {**many, "steps": request.steps if request.times is None else None}
        picture, shape = self._picture(editor, request), editor.model.data.shape
        if request.task == "inpaint":
            mask = self._mask(editor, request)
            if not mask.any():
                raise Error("The mask is empty: paint over what is to be drawn anew.")
            return lambda: (editor.inpaint(picture, mask, **known), ())
        if request.task == "colourise":
            if shape[0] != 3:
                raise Error("Only a model of colour pictures can colour one; this one's are grey.")
            return lambda: (editor.colourise(picture, **known), ())
        if request.task == "upscale":
            if request.factor not in factors(shape):
                raise Error(f"Pictures of {shape[1]} x {shape[2]} cannot be made {request.factor} times as small.")
            return lambda: (editor.upscale(_means(picture, request.factor), request.factor, **known), ())
        if request.task == "stroke":
            stroked = self._mask(editor, request) if request.mask is not None else None
            # A mask without a stroke would leave everything as it is.
            where = stroked if stroked is not None and stroked.any() else None
            return lambda: (editor.stroke(picture, mask=where, **many), ())
        return lambda: (editor.variations(picture, **many), ())

    def _sampling(
        self, editor: Editor, request: Request, labels: np.ndarray | None
    ) -> Callable[[], tuple[np.ndarray, Sequence[Frame]]]:
        sampler, shape = editor.sampler, editor.model.data.shape
        times = sampler.times(request.steps if request.times is None else None, request.times)
        if request.task == "sample":
            z = seeded_noise(request.seed, range(request.n), shape)
        else:
            first, last = (seeded_noise(seed, range(request.n), shape) for seed in (request.seed, request.seed_b))
            z = spherical(first, last, request.share)
        numbers = sampler.labels(request.n, labels)
        return lambda: traced(sampler, self._backend, z, times, request.seed, numbers)

    def _picture(self, editor: Editor, request: Request) -> np.ndarray:
        image, _ = _opened(request.picture or b"", editor.model.data.shape, "The picture")
        pixels = np.asarray(image)
        return from_bytes(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0))

    def _mask(self, editor: Editor, request: Request) -> np.ndarray:
        size = editor.model.data.shape[1:]
        image, _ = opened(
            BytesIO(request.mask or b""), "The mask", (size[0], size[1]), "L", Image.Resampling.BOX, MOST_PIXELS
        )
        mask: np.ndarray = np.asarray(image) > 0
        return mask


def _opened(content: bytes, shape: tuple[int, ...], name: str) -> tuple[Image.Image, str]:
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"
    return opened(BytesIO(content), name, (height, width), mode, Image.Resampling.LANCZOS, MOST_PIXELS)


def _means(picture: np.ndarray, factor: int) -> np.ndarray:
    """A picture (C, H, W) made smaller: the means of its patches."""
    c, h, w = picture.shape
    means: np.ndarray = picture.reshape(c, h // factor, factor, w // factor, factor).mean(axis=(2, 4))
    return means


def _pngs(x: np.ndarray) -> tuple[bytes, ...]:
    return tuple(as_png(pixels) for pixels in as_pixels(x))
