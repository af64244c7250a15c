"""A model as a page that samples and edits in its visitor's browser: static files, for any server of files, offline too."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from cmcore._files import atomic_write
from cmcore.editing.of_recipe import default_strokes, greatest_noise
from cmcore.errors import Error
from cmcore.interchange.onnx import GENERATOR, write_evaluation, write_generator
from cmcore.model import Model
from cmcore.run.page import FILES, PAGE, check_shown, facts

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
"""The version of the npm package that is fetched, the one that the page is tested with."""

RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What the page needs of the package's folder ``dist``."""

ENGINE = ("engine.js", "editing.js", "noise.js")

MOST_STEPS = 20
"""The most steps of a sampler in a browser."""

EVALUATION = "evaluation.onnx"

TASKS = ("sample", "interpolate", "inpaint", "stroke", "variations")
"""What the page can do; the others' changes of basis are the program's alone."""

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


def write_web(model: Model, out: Path, runtime: str | PathLike[str] | None = None) -> None:
    """Write the page's files into a new folder; ``runtime`` is that of the unpacked npm package, by default fetched by npm.

    `Error` for models of many steps or of data that are no grey or colour images, and where a package is missing.
    """
    check_shown("the model", model)
    recipe = model.recipe
    if recipe.default_steps > 1:
        raise Error(
            f"A page in a browser generates in one step, and the sampler of {recipe.name!r} takes {recipe.default_steps}; distil the "
            "model first, for instance by cmcore train --recipe cd --teacher RUN."
        )
    if model.data.scale:
        raise Error("The model's data were standardised, which images for a page are not.")
    with _runtime(runtime) as dist:
        files = {name: (dist / name).read_bytes() for name in RUNTIME}
    out.mkdir(parents=True, exist_ok=True)
    write_generator(model, out / GENERATOR)
    write_evaluation(model, out / EVALUATION)
    for name in FILES:
        files[name] = (PAGE / name).read_bytes()
    for name in ENGINE:
        files[name] = (PAGE / "browser" / name).read_bytes()
    files["index.html"] = _own_page(files["index.html"].decode()).encode()
    files["about.json"] = json.dumps(about(model), indent=1).encode()
    for name, content in files.items():
        atomic_write(out / name, content)


def about(model: Model) -> dict[str, Any]:
    """Return what the page has to know of the model, as plain JSON data."""
    recipe, told = model.recipe, facts(model.data.name, model)
    # Times without an end are those of multistep consistency sampling, which the page has; others are one step there.
    several = len(recipe.times(2)) == 2
    told |= {
        "tasks": [task for task in told["tasks"] if task in TASKS],
        "times": [recipe.times(k) for k in range(1, MOST_STEPS + 1)] if several else [recipe.times(1)],
        "t_min": recipe.lowest_time,
        "t_max": greatest_noise(recipe),
        "arrival": recipe.arrival,
        "stroke_times": default_strokes(recipe),
    }
    return {
        "models": [told],
        "where": "computed in this browser, and nothing is sent anywhere",
        "most_steps": MOST_STEPS,
    }


def _own_page(text: str) -> str:
    """The page with its policy, for no server sends it, and with what to do where it was opened as a file."""
    charset, loading = '<meta charset="utf-8">', "Loading the model"
    if text.count(charset) != 1 or text.count(loading) != 1:
        raise AssertionError("The page has no place for its policy or for what it says while it loads.")
    policy = f'{charset}\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    as_file = f"{loading}. If nothing comes: a browser that opened this as a file lets it load nothing; have a server serve the folder."
    return text.replace(charset, policy).replace(loading, as_file)


@contextmanager
def _runtime(given: str | PathLike[str] | None) -> Iterator[Path]:
    """The package's files that run the model."""
    if given is not None:
        places = [Path(given), Path(given) / "dist", Path(given) / "package" / "dist"]
        yield _complete(next((p for p in places if (p / RUNTIME[0]).is_file()), places[0]), str(given))
        return
    npm = shutil.which("npm")
    how = f"fetch and unpack it where there is npm (npm pack {PACKAGE}@{VERSION}), and name the folder with --onnxruntime-web."
    if npm is None:
        raise Error(f"The page needs the npm package {PACKAGE}, and there is no npm here; {how}")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        packed = next(Path(folder).glob("*.tgz"), None)
        if done.returncode or packed is None:
            said = (done.stderr.strip().splitlines() or ["no reason is given"])[-1]
            raise Error(f"npm does not fetch {PACKAGE} ({said}); {how}")
        with tarfile.open(packed) as archive:
            members = [m for m in archive if m.isfile() and m.name in {f"package/dist/{name}" for name in RUNTIME}]
            archive.extractall(folder, members, filter="data")
        yield _complete(Path(folder) / "package" / "dist", f"{PACKAGE} {VERSION}")


def _complete(folder: Path, name: str) -> Path:
    if missing := [file for file in RUNTIME if not (folder / file).is_file()]:
        raise Error(
            f"{name} has no dist/{missing[0]}; give the folder of the unpacked npm package {PACKAGE} {VERSION}."
        )
    return folder
