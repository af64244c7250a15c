"""Editing with a trained model: pictures in, pictures out, on the host and in batches of one size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from cmcore import sampling
from cmcore._options import check_count, check_kind
from cmcore.backend import Array, Backend
from cmcore.backend.registry import chosen_backend
from cmcore.editing import _inputs
from cmcore.editing.denoising import denoise, noise_level
from cmcore.editing.interpolation import spherical
from cmcore.editing.inversion import encode
from cmcore.editing.known import Known, colourising, downsampled, inpainting, upscaling
from cmcore.editing.of_recipe import default_strokes, greatest_noise
from cmcore.editing.replacement import edit, stroke
from cmcore.editing.schedule import POINTS, edit_times
from cmcore.editing.transforms import LUMA
from cmcore.generate import MOST_STEPS, ROUNDING, Sampler, Trained, fitting_batch
from cmcore.losses import ConsistencyFn
from cmcore.recipes import StraightFlowMap
from cmcore.sampling import seeded_noise
from cmcore.solvers import Noise

JUMPS = 16
"""The jumps in which a picture is encoded and decoded."""

Progress = Callable[[int], None]
"""Is told how many pictures are ready."""


class Editor:
    """A model in a backend's framework, ready to edit.

    Pictures are host arrays of the data's shape, in the data's units: images (C, H, W) in [-1, 1], latents and points as they were
    trained on. Results are (n, \\*shape) float32; images are in [-1, 1], what is known of them as it was. Picture i depends on the
    model, what is given, the seed and i alone, to rounding the same on every backend.

    ``times`` are decreasing standard deviations of noise, in which all recipes are told theirs here; ``steps`` is their number where
    they are the default's. ``labels`` are n class numbers; a model with classes takes them in turn where none are given. What cannot be
    asked for is a `ValueError`.
    """

    def __init__(self, model: Trained, backend: Backend | str | None = None, batch: int | None = None) -> None:
        self.model, self._backend = model, chosen_backend(backend)
        self.sampler = Sampler(model, self._backend, fitting_batch(model.data.shape) if batch is None else batch)

    def inpaint(self, image: np.ndarray, mask: np.ndarray, n: int = 1, **settings: Any) -> np.ndarray:
        """Return n pictures that are ``image`` where the mask is False, and drawn anew where it is True.

        The mask broadcasts against the picture: (H, W) for images and latents. ``settings`` are steps, times, rounds, seed, labels and
        progress; see `edit`.
        """
        picture, new = _inputs.picture(self.model.data, image), _inputs.mask(self.model.data, mask)
        known = inpainting(self._host(picture), self._host(1.0 - new))
        return np.where(new > 0, self._edited(known, n, **settings), np.asarray(image, np.float32))

    def colourise(self, image: np.ndarray, n: int = 1, **settings: Any) -> np.ndarray:
        """Return n pictures with the grey of ``image``, (1, H, W) or (3, H, W), and colours of their own.

        Colours that no pixel can have are made paler, so that the grey stays.
        """
        shape = self.model.data.shape
        if not self.model.data.images or shape[0] != 3:
            raise ValueError(
                f"Only a model of RGB images can colour a picture; this one's data have the shape {shape}."
            )
        grey = _inputs.numbers(self.model.data, image)
        if grey.shape not in (shape, (1, *shape[1:])):
            raise ValueError(f"The picture must have the shape {(1, *shape[1:])} or {shape}, got {grey.shape}.")
        if grey.shape[0] == 3:
            grey = np.tensordot(np.asarray(LUMA), grey.astype(np.float64), axes=1)[None].astype(np.float32)
        x = self._edited(colourising(self._host(grey[None])), n, contained=False, **settings)
        return _contained(x, grey[None].clip(-1, 1), axes=(1,))

    def upscale(self, small: np.ndarray, factor: int, n: int = 1, **settings: Any) -> np.ndarray:
        """Return n pictures whose patches of ``factor`` x ``factor`` pixels have the means ``small``, (C, H / factor, W / factor)."""
        shape = self.model.data.shape
        check_count("factor", factor, 1)
        if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
            raise ValueError(f"Patches of {factor} x {factor} do not fill the model's data, of shape {shape}.")
        given, expected = _inputs.numbers(self.model.data, small), (shape[0], shape[1] // factor, shape[2] // factor)
        if given.shape != expected:
            raise ValueError(
                f"To be enlarged {factor} times the picture must have the shape {expected}, got {given.shape}."
            )
        large = _inputs.picture(self.model.data, given.repeat(factor, 1).repeat(factor, 2))
        known = upscaling(self._host(downsampled(large, factor)), factor)
        x = self._edited(known, n, contained=False, **settings)
        if not self.model.data.images:
            return x
        patches = x.reshape(n, shape[0], expected[1], factor, expected[2], factor)
        return _contained(patches, given[None, :, :, None, :, None].clip(-1, 1), axes=(3, 5)).reshape(x.shape)

    def stroke(
        self,
        guide: np.ndarray,
        n: int = 1,
        *,
        mask: np.ndarray | None = None,
        times: Sequence[float] | None = None,
        **settings: Any,
    ) -> np.ndarray:
        """Return n pictures that look like ``guide`` from far, a picture with strokes painted over it.

        With a mask they are the guide itself where it is False. The default times are those of `cmcore.editing.stroke_times`.
        """
        picture, chosen = (
            _inputs.picture(self.model.data, guide),
            self._times(times, default_strokes(self.model.recipe)),
        )
        if mask is None:
            return self._guided(picture, None, n, chosen, **settings)
        new = _inputs.mask(self.model.data, mask)
        known = inpainting(self._host(picture), self._host(1.0 - new))
        x = self._guided(picture, known, n, chosen, **settings)
        return np.where(new > 0, x, np.asarray(guide, np.float32))

    def variations(
        self, image: np.ndarray, n: int = 1, *, times: Sequence[float] | None = None, **settings: Any
    ) -> np.ndarray:
        """Return n pictures like ``image``: `stroke` with the picture as the guide, by default from its second time, 2.24."""
        chosen = self._times(times, default_strokes(self.model.recipe)[-1:])
        return self._guided(_inputs.picture(self.model.data, image), None, n, chosen, **settings)

    def denoise(self, image: np.ndarray, sigma: float | None = None, *, label: int | None = None) -> np.ndarray:
        """Return ``image`` without its noise of standard deviation ``sigma``, in its own units; None: `noise_level` estimates it."""
        picture = _inputs.picture(self.model.data, image, noisy=True)
        if sigma is None:
            sigma = self.noise_level(image)
        check_kind("The noise's standard deviation", sigma, float)
        if not 0 <= sigma < math.inf:
            raise ValueError(f"The noise's standard deviation must be a finite number of at least 0, got {sigma}.")
        level = float(sigma) / _inputs.unit(self.model.data)
        lowest, highest = self.model.recipe.lowest_time, greatest_noise(self.model.recipe)
        if not level <= highest * (1 + ROUNDING):
            raise ValueError(
                f"The network knows noise up to {highest * _inputs.unit(self.model.data):g}; the picture's is {sigma:g}."
            )
        if level < lowest:
            if lowest > 0.01 and level > 0:
                raise ValueError(
                    f"The network knows noise from {lowest * _inputs.unit(self.model.data):g} up; got {sigma:g}."
                )
            return np.asarray(image, np.float32)[None]
        given = [label] if label is not None else None

        def made(f: ConsistencyFn, images: range, noise: Noise, cond: Mapping[str, Array]) -> Array:
            return denoise(f, self._many(picture, len(images)), level, cond=cond)

        return self._made(made, 1, 1, labels=given)

    def noise_level(self, image: np.ndarray) -> float:
        """Return the estimated standard deviation of a picture's noise, in its own units; `ValueError` where it cannot be."""
        if not self.model.data.images:
            raise ValueError("The noise of data that are not images cannot be estimated; say how much there is.")
        return float(noise_level(np.asarray(image, np.float32)[None])[0])

    def interpolate(
        self,
        a: np.ndarray | None = None,
        b: np.ndarray | None = None,
        n: int = 9,
        *,
        times: Sequence[float] | None = None,
        **settings: Any,
    ) -> np.ndarray:
        """Return n pictures from ``a`` to ``b``; without them from the seed's first sample to its second.

        A flow map that can be inverted (`invertible`) encodes both pictures, and what lies between their noises becomes the pictures
        between. Other models give ``f((1 - s) a + s b + t z, t)`` with one z, so that the ends are variations of a and b rather
        than these (as Ho et al. 2020, section 4.3, do with denoisers); t is by default sigma_data, where signal and noise are as strong.
        """
        if n < 2:
            raise ValueError(f"From one picture to the other there are at least 2, got n = {n}.")
        if (a is None) != (b is None):
            raise ValueError("Between two pictures means two, or none for two samples; got one.")
        if a is None or b is None:
            return self._between_samples(n, self._times(times, (greatest_noise(self.model.recipe),)), **settings)
        ends = _inputs.picture(self.model.data, a), _inputs.picture(self.model.data, b)
        if self.invertible:
            return self._between_encoded(ends, n, **settings)
        share = np.linspace(0.0, 1.0, n, dtype=np.float32).reshape(n, *(1,) * (ends[0].ndim - 1))
        guide = (1 - share) * ends[0] + share * ends[1]
        chosen = self._times(times, (max(self.model.recipe.sigma_data, self.model.recipe.lowest_time),))
        return self._guided(guide, None, n, chosen, one_noise=True, **settings)

    @property
    def invertible(self) -> bool:
        """Whether the model is a flow map whose jumps can be inverted: psd, meanflow, ayf and their kin."""
        return isinstance(self.model.recipe, StraightFlowMap)

    def encode(self, x: np.ndarray, labels: Sequence[int] | None = None) -> np.ndarray:
        """Return the standard normal noises of which a flow map makes the pictures x, (n, \\*shape), in 16 jumps."""
        self._check_invertible()
        given = np.concatenate([_inputs.picture(self.model.data, one) for one in x])

        def made(net: Any, rows: np.ndarray, cond: Mapping[str, Array]) -> Array:
            jump, times = self.model.recipe.function(net), self.model.recipe.times(JUMPS)
            return encode(jump, self._host(rows), times, self.model.recipe.path, cond=cond)

        return self._mapped(made, given, 10 * JUMPS, labels)

    def decode(self, z: np.ndarray, labels: Sequence[int] | None = None) -> np.ndarray:
        """Return the pictures that a flow map makes of standard normal noises, (n, \\*shape), by the same jumps as `encode`."""
        self._check_invertible()

        def made(net: Any, rows: np.ndarray, cond: Mapping[str, Array]) -> Array:
            jump, times = self.model.recipe.function(net), self.model.recipe.times(JUMPS)
            return sampling.flow_map(jump, self._host(rows), times, self.model.recipe.path, cond=cond)

        return self._shown(self._mapped(made, np.asarray(z, np.float32), JUMPS, labels))

    def _between_encoded(
        self, ends: Sequence[np.ndarray], n: int, *, labels: Sequence[int] | None = None, **_: Any
    ) -> np.ndarray:
        of_ends = None if labels is None else [labels[0], labels[-1]]
        z = self.encode(self.model.data.restored(np.concatenate(ends)), of_ends)
        share = np.linspace(0.0, 1.0, n, dtype=np.float32)
        first, last = (np.repeat(one[None], n, axis=0) for one in z)
        return self.decode(spherical(first, last, share), labels)

    def _between_samples(self, n: int, times: Sequence[float], **settings: Any) -> np.ndarray:
        first, last = seeded_noise(settings.get("seed", 0), range(2), self.model.data.shape)
        share = np.linspace(0.0, 1.0, n, dtype=np.float32)
        noises = spherical(np.repeat(first[None], n, axis=0), np.repeat(last[None], n, axis=0), share)
        arrival = self.model.recipe.arrival

        def made(f: ConsistencyFn, images: range, noise: Noise, cond: Mapping[str, Array]) -> Array:
            rows = noises[np.minimum(np.asarray(images), n - 1)]
            return sampling.multistep(f, self._host(rows), times, noise, arrival, cond=cond)

        return self._made(made, n, len(times), **settings)

    def _edited(
        self,
        known: Known,
        n: int,
        *,
        steps: int | None = None,
        times: Sequence[float] | None = None,
        rounds: int = 1,
        **settings: Any,
    ) -> np.ndarray:
        chosen, arrival = self._edit_times(steps, times), self.model.recipe.arrival
        check_count("rounds", rounds, 1)

        def made(f: ConsistencyFn, images: range, noise: Noise, cond: Mapping[str, Array]) -> Array:
            return edit(f, known, noise(-1), chosen, noise, arrival, rounds=rounds, cond=cond)

        return self._made(made, n, len(chosen) * rounds, **settings)

    def _guided(
        self,
        guide: np.ndarray,
        known: Known | None,
        n: int,
        times: Sequence[float],
        one_noise: bool = False,
        **settings: Any,
    ) -> np.ndarray:
        def made(f: ConsistencyFn, images: range, noise: Noise, cond: Mapping[str, Array]) -> Array:
            rows = guide if len(guide) == 1 else guide[np.minimum(np.asarray(images), n - 1)]
            return stroke(
                f, self._host(rows), noise(-1), times, noise, self.model.recipe.arrival, known=known, cond=cond
            )

        return self._made(made, n, len(times), one_noise=one_noise, **settings)

    def _made(
        self,
        made: Callable[[ConsistencyFn, range, Noise, Mapping[str, Array]], Array],
        n: int,
        evaluations: int,
        *,
        seed: int = 0,
        labels: Sequence[int] | np.ndarray | None = None,
        progress: Progress | None = None,
        one_noise: bool = False,
        contained: bool = True,
    ) -> np.ndarray:
        """The n pictures that ``made`` makes, a batch at a time."""
        check_count("The number of pictures", n, 1)
        check_count("The seed", seed, 0)
        numbers, shape = self.sampler.labels(n, labels), self.model.data.shape
        size = min(n, self.sampler.batch)
        net = self.sampler.network(math.ceil(n / size) * evaluations)
        f, out = self.model.recipe.consistency(net), np.empty((n, *shape), np.float32)
        for start in range(0, n, size):
            # The last batch is filled up, so that the compiled shapes stay the same.
            images = range(start, start + size)

            def noise(draw: int, images: range = images) -> Array:
                return self._host(seeded_noise(seed, [0] * size if one_noise else images, shape, draw + 1))

            x = self._backend.to_numpy(made(f, images, noise, self._cond(numbers, start, size)))[: n - start]
            out[start : start + size] = self._shown(self.model.data.restored(x), contained)
            if progress is not None:
                progress(min(n, start + size))
        return out

    def _mapped(
        self,
        made: Callable[[Any, np.ndarray, Mapping[str, Array]], Array],
        rows: np.ndarray,
        evaluations: int,
        labels: Sequence[int] | np.ndarray | None,
    ) -> np.ndarray:
        """What ``made`` makes of each of the rows, a batch at a time."""
        n = len(rows)
        numbers, size = self.sampler.labels(n, labels), min(n, self.sampler.batch)
        net = self.sampler.network(math.ceil(n / size) * evaluations)
        parts = []
        for start in range(0, n, size):
            part = rows[np.minimum(np.arange(start, start + size), n - 1)]
            x = self._backend.to_numpy(made(net, part, self._cond(numbers, start, size)))
            parts.append(x[: n - start])
        return np.concatenate(parts)

    def _edit_times(self, steps: int | None, times: Sequence[float] | None) -> tuple[float, ...]:
        """The times of `edit`: those given, checked, or the default's of so many steps."""
        if times is not None:
            if steps is not None:
                raise ValueError("Give the number of steps or the times, not both.")
            return self._times(times, ())
        steps = POINTS - 1 if steps is None else steps
        check_count("The number of steps", steps, 1)
        if steps > MOST_STEPS:
            raise ValueError(f"An edit takes at most {MOST_STEPS:,} steps, got {steps:,}.")
        return edit_times(steps, self.model.recipe.lowest_time, greatest_noise(self.model.recipe))

    def _times(self, times: Sequence[float] | None, by_default: Sequence[float]) -> tuple[float, ...]:
        """The times given, checked, or the default's."""
        if times is None:
            return tuple(by_default)
        recipe, chosen = self.model.recipe, tuple(float(t) for t in times)
        if any(not a > b for a, b in pairwise(chosen)):
            raise ValueError(f"The times must decrease, got {list(chosen)}.")
        lowest, highest = recipe.lowest_time, greatest_noise(self.model.recipe)
        known = chosen and chosen[0] <= highest * (1 + ROUNDING) and chosen[-1] * (1 + ROUNDING) >= lowest
        if not known or chosen[-1] <= recipe.arrival:
            raise ValueError(
                f"The network was trained for noise from {lowest:g} to {highest:g}; the times are {list(chosen)}."
            )
        return chosen

    def _cond(self, numbers: np.ndarray | None, start: int, size: int) -> dict[str, Array]:
        if numbers is None:
            return {}
        return {"label": self._backend.asarray(np.resize(numbers[start : start + size], size))}

    def _check_invertible(self) -> None:
        if not self.invertible:
            raise ValueError(
                f"Pictures are encoded by flow maps such as those of psd, meanflow and ayf; got one of {self.model.recipe.name!r}."
            )

    def _many(self, picture: np.ndarray, count: int) -> Array:
        return self._host(np.repeat(picture, count, axis=0))

    def _host(self, x: np.ndarray) -> Array:
        return self._backend.asarray(np.ascontiguousarray(x, np.float32))

    def _shown(self, x: np.ndarray, contained: bool = True) -> np.ndarray:
        return x.clip(-1, 1) if contained and self.model.data.images else x


def _contained(x: np.ndarray, centre: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Pictures brought into [-1, 1] by moving the values along ``axes`` together towards their centre, which stays."""
    away = x - centre
    bound = np.where(away > 0, 1.0 - centre, -1.0 - centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(np.abs(away) > np.abs(bound), bound / away, 1.0)
    result: np.ndarray = (centre + share.min(axis=axes, keepdims=True) * away).astype(np.float32)
    return result
