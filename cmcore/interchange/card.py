"""The model card of an exported folder: what the model is, and how it is used; its head is read by the Hugging Face hub."""

from __future__ import annotations

import json

from cmcore import recipes
from cmcore._words import counted, printable
from cmcore.interchange.conventions import is_average_velocity
from cmcore.model import Model
from cmcore.networks.cost import multiply_adds, parameters

_USES = {
    "diffusers": """from diffusers import {pipeline}

pipeline = {pipeline}.from_pretrained("THIS_FOLDER")
pipeline(num_inference_steps={steps}).images[0].save("image.png")""",
    "flow map": """import cmcore as cm, torch
from diffusers import FlowMapEulerDiscreteScheduler

cm.use("torch")
u = cm.load_model("THIS_FOLDER").network()  # the average velocity u(x, t, c_end=t - s)
scheduler = FlowMapEulerDiscreteScheduler.from_pretrained("THIS_FOLDER", subfolder="scheduler")
scheduler.set_timesteps(2)
x, times = torch.randn(4, {shape}), [*scheduler.timesteps / 1000, 0.0]
for k, t in enumerate(scheduler.timesteps):
    start, gap = (torch.full((4,), float(n)) for n in (times[k], times[k] - times[k + 1]))
    x = scheduler.step(u(x, start, c_end=gap{label}), t, x).prev_sample""",
    "edm": """import cmcore as cm

model = cm.import_model("THIS_FOLDER")
x = model.sample(4, steps={steps})""",
    "onnx": """import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("THIS_FOLDER/{file}")
print([(i.name, i.shape, i.type) for i in session.get_inputs()])""",
    "web": """import functools, http.server

# Then open http://localhost:8000/ in a browser; any other server of files does as well.
page = functools.partial(http.server.SimpleHTTPRequestHandler, directory="THIS_FOLDER")
http.server.ThreadingHTTPServer(("localhost", 8000), page).serve_forever()""",
}


def card(model: Model, to: str, license: str | None = None, figures: str = "") -> str:
    """Return the text of README.md for a model exported to a format.

    ``license`` is what its owner says, such as "mit", ``figures`` what was measured, as text.
    """
    recipe, data, network = model.recipe, model.data, model.architecture
    shape = " x ".join(map(str, data.shape))
    listed = f"{', '.join(map(_cell, data.classes[:10]))}{', ...' if data.classes[10:] else ''}"
    classes = f", {counted(len(data.classes), 'class', 'classes')} ({listed})"
    settings = {
        "pipeline": "DDPMPipeline" if recipe.default_steps > 1 else "ConsistencyModelPipeline",
        "steps": recipe.default_steps,
        "shape": ", ".join(map(str, data.shape)),
        "label": f", label=torch.arange(4) % {network.classes}" if network.classes else "",
        "file": "function.onnx" if recipe.default_steps > 1 else "generator.onnx",
    }
    plain = to == "diffusers" and not is_average_velocity(recipe)
    latents = plain and recipe.default_steps == 1 and data.shape[0] != 3
    head = {"license": license or "unknown", "library_name": "diffusers" if to == "diffusers" else "cmcore"}
    kind = "A score model" if recipe.default_steps > 1 else "A generator of one or a few steps"
    lines = [
        "---",
        *(f"{name}: {json.dumps(value)}" for name, value in head.items()),
        "tags: [consistency-models, image-generation]" if data.images else "tags: [consistency-models]",
        "---",
        "",
        f"# {printable(data.name)} by {recipe.name}",
        "",
        f"{kind}, trained by cmcore's recipe `{recipe.name}` for {model.step:,} of {model.steps:,} steps.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {_cell(data.name)}: {shape}{classes if data.classes else ''}, values {_range(model)} |",
        f"| digest of the data | {data.fingerprint or 'not known'} |",
        f"| network | {network.kind}, {parameters(network):,} parameters, {multiply_adds(network):,} multiply-adds an evaluation |",
        f"| times | t from {recipe.lowest_time:g} to {recipe.highest_time:g}, sigma_data {recipe.sigma_data:g} |",
        f"| versions | {model.about.get('versions', 'not known')} |",
        f"| license | {license or 'unknown: its owner has not said (cmcore export --license)'} |",
        "",
        "```python",
        _USES["flow map" if to == "diffusers" and is_average_velocity(recipe) else to].format(**settings),
        "```",
        "",
        *(
            ["The pipeline's argument `latents` takes images of three channels only; without it it draws its own.", ""]
            if latents
            else []
        ),
        *(["Measured:", "", "```", figures.rstrip(), "```", ""] if figures else []),
        "The method's paper:",
        "",
        "```bibtex",
        recipes.cite(recipe.name).strip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _cell(name: str) -> str:
    """A name within a table."""
    return printable(name).replace("|", "\\|")


def _range(model: Model) -> str:
    if model.data.images:
        return "from -1 to 1"
    return "in the data's own units" if model.data.scale else "as given"
