"""The score model as a teacher: what the methods that distil one share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from cmcore.backend import Array, stop_gradient
from cmcore.options import Limit, option
from cmcore.parametrization import EDM, ConsistencyFunction, Parametrization, Prediction, TrigFlow
from cmcore.paths import VE, Denoiser, Path, Trigonometric, rebased
from cmcore.recipes.guidance import Guided
from cmcore.recipes.recipe import PATHS, Batch, Nets


@dataclass(frozen=True)
class Distils(Guided):
    """A method with a score model for a teacher, which is asked with ``guidance``, at noise levels in its interval.

    ``teacher_predicts`` says what the teacher's network gives: under "edm" it is one of `edm`'s kind, under "trigflow" one whose
    ``sd F(x / sd, t)`` is the velocity on the path `cmcore.paths.Trigonometric` (Lu & Song 2024), else ``net(x, teacher_time_scale t)`` is
    the "noise", the "velocity" or the "denoiser" itself on the path ``teacher_path``, with x and t the path's
    (`cmcore.parametrization.Prediction`). The student keeps its own path.
    """

    teacher_predicts: Literal["edm", "trigflow", "noise", "velocity", "denoiser"] = option(
        "edm", "what the teacher's network gives", ("edm", "trigflow", "noise", "velocity", "denoiser")
    )
    teacher_path: str = option("ve", "the path that the teacher was trained on", PATHS)
    teacher_time_scale: float = option(
        1.0, "the teacher is told this times its path's t", Limit(lambda v: 0 < v < math.inf, "positive and finite")
    )

    teachers: ClassVar[tuple[str, ...]] = ("edm",)

    def check(self) -> None:
        """Raise `ValueError` for a teacher with a path of its own elsewhere."""
        if self.teacher_predicts in ("edm", "trigflow") and (self.teacher_path, self.teacher_time_scale) != ("ve", 1.0):
            own = {"edm": 'EDM\'s own path, "ve",', "trigflow": "TrigFlow's own path"}[self.teacher_predicts]
            raise ValueError(
                f'A teacher of the kind teacher_predicts="{self.teacher_predicts}" has {own} and time, with a scale of 1; '
                f"got teacher_path={self.teacher_path!r} and teacher_time_scale={self.teacher_time_scale}. "
                'For a network on another path, set teacher_predicts to "noise", "velocity" or "denoiser".'
            )

    def teacher_parametrization(self) -> Parametrization:
        """Return the scalings under which the teacher's network is the denoiser of its path."""
        if self.teacher_predicts == "edm":
            return EDM(self.sigma_data)
        if self.teacher_predicts == "trigflow":
            return TrigFlow(self.sigma_data)
        return Prediction(PATHS[self.teacher_path], self.teacher_predicts, self.teacher_time_scale)

    def denoiser(self, nets: Nets, batch: Batch) -> Denoiser:
        """Return the teacher as ``D(x, t)`` on the path ``x_0 + t z``, for the batch's classes."""
        if "teacher" not in nets:
            raise ValueError(
                f'The recipe {self.name!r} needs a teacher: give the trainer frozen={{"teacher": network}}.'
            )
        function: Denoiser = ConsistencyFunction(nets["teacher"], self.teacher_parametrization())
        own = Trigonometric(self.sigma_data) if self.teacher_predicts == "trigflow" else PATHS[self.teacher_path]
        if own != VE():
            function = rebased(function, own, VE())
        denoiser = self.guided(function)
        return lambda x, t: denoiser(x, t, **batch.cond)


def velocity_on(path: Path, denoiser: Denoiser, x: Array, t: Array) -> Array:
    """Return dx/dt at points of ``path`` for a denoiser on ``x_0 + t z``; no gradient flows through it."""
    return stop_gradient(path.velocity(x, t, rebased(denoiser, VE(), path)(x, t)))
