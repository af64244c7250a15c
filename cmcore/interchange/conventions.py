"""What a published network predicts and how it counts time, and so which recipe and which adapted network make a model of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cmcore import grids, recipes
from cmcore._words import choice
from cmcore.errors import Error
from cmcore.networks import Adapted, Architecture
from cmcore.networks.clocks import SCHEDULES, betas_of, ratios
from cmcore.paths import Linear
from cmcore.recipes import Recipe

KINDS = ("consistency", "score")
"""What a checkpoint may be of: a consistency model, or a score model (a denoiser), which can be a teacher."""


@dataclass(frozen=True)
class Convention:
    """What the file says, or is asked for, beyond the network: what it gives, its clock, its data's scale, its times.

    ``predicts``, ``clock`` and ``numbers`` are those of `cmcore.networks.Adapted`.
    """

    kind: str
    predicts: str = "free"
    clock: str = "log"
    numbers: tuple[float, ...] = (0.25, 0.0)
    sigma_data: float = 0.5
    t_min: float = grids.T_MIN
    t_max: float = grids.T_MAX
    recipe: str = ""
    """The recipe to have it trained with; by default `cd` (or `ect`), whose scalings are the published ones, or `edm`."""

    def changed(self, asked: Mapping[str, Any]) -> Convention:
        """Return it with those of the settings that the user gave."""
        return replace(self, **{name: asked[name] for name in ASKED if name in asked})

    def recipe_of(self) -> Recipe:
        """Return the recipe that the model counts as trained with; `Error` if it has no such options."""
        # The identity is at t_min under the scalings of `cd`, at 0 under those of `ect`.
        consistency = "cd" if self.t_min else "ect"
        name = self.recipe or (consistency if self.kind == "consistency" else "edm")
        recipe = recipes.get(name)
        if recipe.network_kind != "edm" or recipe.two_times:
            raise Error(
                f"A published network is of EDM's kind, and the recipe {name!r} trains another; leave out recipe."
            )
        if (name == "edm") != (self.kind == "score"):
            raise Error(f"The recipe {name!r} does not train a {self.kind} model; leave out recipe, or set kind.")
        times = {"t_min": self.t_min, "t_max": self.t_max}
        own = {option: value for option, value in times.items() if option in recipes.by_name(recipe)}
        return recipes.get(name, sigma_data=self.sigma_data, **own)

    def adapted(self, network: Architecture) -> Architecture:
        """Return the network, adapted where it is not of EDM's kind already."""
        if (self.predicts, self.clock, self.numbers) == ("free", "log", (0.25, 0.0)):
            return network
        return Adapted(network, self.predicts, self.clock, self.numbers, self.sigma_data)


ASKED = ("kind", "sigma_data", "t_min", "t_max", "recipe")
"""What of a convention the user may give, and must where the file does not say it."""

PREDICTIONS = {"epsilon": "noise", "v_prediction": "velocity", "sample": "denoiser"}
"""diffusers' names of what a network predicts."""


def of_scheduler(config: Mapping[str, Any]) -> Convention:
    """Return what a diffusers folder's scheduler_config.json says; `Error` for what is no convention of ours."""
    name = config.get("_class_name")
    if name == "CMStochasticIterativeScheduler":
        times: dict[str, Any] = {"t_min": config.get("sigma_min", 0.002), "t_max": config.get("sigma_max", 80.0)}
        return Convention("consistency", numbers=(250.0, 0.0), sigma_data=config.get("sigma_data", 0.5), **times)
    prediction = config.get("prediction_type", "epsilon")
    if "beta_schedule" not in config or prediction not in PREDICTIONS:
        raise Error(
            f"The scheduler {name} with prediction_type {prediction!r} is not known here; known are CMStochasticIterativeScheduler "
            f"and those with a beta_schedule that predict {', '.join(PREDICTIONS)}."
        )
    if config.get("rescale_betas_zero_snr"):
        raise Error(
            "The scheduler rescales its betas so that the last step is noise alone (rescale_betas_zero_snr), where no "
            "denoiser follows from what the network gives; such a model cannot be imported."
        )
    clock, numbers = _schedule(config)
    sigma = ratios(betas_of(clock, numbers))
    t_max = min(grids.T_MAX, float(sigma[-1]))
    return Convention("score", PREDICTIONS[prediction], clock, numbers, t_min=float(sigma[0]), t_max=t_max)


def _schedule(config: Mapping[str, Any]) -> tuple[str, tuple[float, ...]]:
    if config.get("trained_betas") is not None:
        return "betas", tuple(float(b) for b in config["trained_betas"])
    steps, schedule = float(config.get("num_train_timesteps", 1000)), str(config["beta_schedule"])
    if schedule == "squaredcos_cap_v2":
        return schedule, (steps,)
    return schedule, (steps, float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02)))


PRECONDITIONINGS = ("EDMPrecond", "VPPrecond", "VEPrecond", "ECMPrecond")


def of_preconditioning(name: str, init: Mapping[str, Any]) -> Convention:
    """Return what the class that wraps a network in NVlabs/edm's or locuslab/ect's pickles says, with its arguments."""
    sigma_data = float(init.get("sigma_data", 0.5))
    if name == "EDMPrecond":
        return Convention("score", sigma_data=sigma_data)
    if name == "ECMPrecond":
        return Convention("consistency", sigma_data=sigma_data, t_min=float(init.get("sigma_min", 0.003)))
    if name == "VPPrecond":
        beta_min, beta_d = float(init.get("beta_min", 0.1)), float(init.get("beta_d", 19.9))
        return Convention("score", "noise", "vp", (beta_min, beta_min + beta_d, float(init.get("M", 1000)) - 1.0))
    if name == "VEPrecond":
        times: dict[str, Any] = {
            "t_min": float(init.get("sigma_min", 0.02)),
            "t_max": float(init.get("sigma_max", 100.0)),
        }
        return Convention("score", "minus_noise", "log", (1.0, -math.log(2.0)), **times)
    raise Error(f"The preconditioning {name} is not known here; {choice(name, PRECONDITIONINGS)}")


def of_kind(kind: str, numbers: tuple[float, float] = (0.25, 0.0)) -> Convention:
    """Return the convention of a file under EDM's scalings, of a model of that kind."""
    if kind not in KINDS:
        raise Error(f"There is no model of the kind {kind!r}; {choice(kind, KINDS)}")
    return Convention(kind, numbers=numbers)


def is_average_velocity(recipe: Recipe) -> bool:
    """Whether a model is a flow map by its average velocity on the straight path, as diffusers' FlowMapEulerDiscreteScheduler uses one."""
    return recipe.parametrization_data["kind"] == "AverageVelocity" and isinstance(recipe.path, Linear)


def of_model(recipe: Recipe, architecture: Architecture) -> Convention:
    """Return the convention of a model of ours; an `Error` for one that no published program has the like of."""
    if recipe.two_times or recipe.network_kind != "edm":
        what = "a flow map, whose network has two times" if recipe.two_times else f"of the kind {recipe.network_kind!r}"
        raise Error(
            f"The model, trained with {recipe.name!r}, is {what}; the published programs' networks have one time and EDM's "
            "scalings, so it cannot be exported to them"
            + (" (but to diffusers' flow-map scheduler: --to diffusers)." if is_average_velocity(recipe) else ".")
        )
    kind = "score" if recipe.name in ("edm", "pd") else "consistency"
    t_min = recipe.lowest_time if kind == "score" or recipe.parametrization_data["kind"] == "Boundary" else 0.0
    plain = Convention(kind, sigma_data=recipe.sigma_data, t_min=t_min, t_max=recipe.highest_time)
    if not isinstance(architecture, Adapted):
        return plain
    return replace(plain, predicts=architecture.predicts, clock=architecture.clock, numbers=architecture.numbers)


def to_scheduler(convention: Convention) -> tuple[str, dict[str, Any]]:
    """Return diffusers' pipeline of a model and its scheduler_config.json; `of_scheduler` backwards."""
    c = convention
    if c.kind == "consistency" and (c.predicts, c.clock, c.numbers) == ("free", "log", (250.0, 0.0)):
        times = {"sigma_min": c.t_min, "sigma_max": c.t_max, "sigma_data": c.sigma_data}
        return "ConsistencyModelPipeline", _CONSISTENCY | times
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    if c.kind == "score" and c.predicts in predictions and c.clock in SCHEDULES:
        return "DDPMPipeline", _DDPM | {"prediction_type": predictions[c.predicts]} | _betas(c.clock, c.numbers)
    raise Error(
        "diffusers has pipelines for consistency models whose network is told 250 ln(t), as OpenAI's are, and for score models "
        "that count a DDPM's steps; this model is neither. A model imported from such a one, or trained from it with --init, is."
    )


_CONSISTENCY = {
    "_class_name": "CMStochasticIterativeScheduler", "num_train_timesteps": 40, "rho": 7.0, "s_noise": 1.0,
    "clip_denoised": False,
}  # fmt: skip
_DDPM = {"_class_name": "DDPMScheduler", "clip_sample": True, "variance_type": "fixed_small"}


def _betas(schedule: str, numbers: tuple[float, ...]) -> dict[str, Any]:
    if schedule == "betas":
        return {"num_train_timesteps": len(numbers), "beta_schedule": "linear", "trained_betas": list(numbers)}
    names = ("num_train_timesteps", "beta_start", "beta_end")
    return {"beta_schedule": schedule, **dict(zip(names, (int(numbers[0]), *numbers[1:]), strict=False))}


def to_preconditioning(convention: Convention) -> tuple[str, dict[str, float]]:
    """Return the class of NVlabs/edm or locuslab/ect that uses a network as the model does; `of_preconditioning` backwards."""
    c = convention
    if (c.predicts, c.clock, c.numbers) == ("free", "log", (0.25, 0.0)):
        if c.kind == "score":
            return "EDMPrecond", {"sigma_data": c.sigma_data}
        return "ECMPrecond", {"sigma_data": c.sigma_data, "sigma_min": c.t_min}
    if c.kind == "score" and (c.predicts, c.clock) == ("noise", "vp"):
        beta_min, beta_max, last = c.numbers
        return "VPPrecond", {"beta_min": beta_min, "beta_d": beta_max - beta_min, "M": last + 1.0}
    if c.kind == "score" and (c.predicts, c.clock, c.numbers) == ("minus_noise", "log", (1.0, -math.log(2.0))):
        return "VEPrecond", {"sigma_min": c.t_min, "sigma_max": c.t_max}
    raise Error(
        "EDM's and ECT's programs use a network as EDMPrecond, VPPrecond, VEPrecond or ECMPrecond do; this model's network is "
        f"told the time by the clock {c.clock!r}{c.numbers[:3]} and predicts {c.predicts!r}, which is none of them."
    )
