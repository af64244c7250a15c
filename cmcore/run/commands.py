"""What each command does with its parsed arguments."""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cmcore import backend as backends_of
from cmcore.backend import Backend
from cmcore.ema import check_one_average
from cmcore.errors import Error
from cmcore.model import Model, load_model, save_model
from cmcore.run import averaging, generate, pictures
from cmcore.run import data as datasets
from cmcore.run import evaluate as evaluation
from cmcore.run import train as training
from cmcore.run.config import Config, check_options_act, parse_options
from cmcore.run.data import Dataset
from cmcore.run.data.labels import named
from cmcore.run.data.load import NAMED
from cmcore.run.folder import RunFolder
from cmcore.run.report import table, terminal_progress


def train(args: Namespace) -> None:
    """Start or resume a run."""
    folder = RunFolder(Path(args.out))
    resume = getattr(args, "resume", False)
    given = {f.name: getattr(args, f.name) for f in fields(Config) if hasattr(args, f.name)}
    for source in ("data", "teacher", "init"):
        if source in given:
            given[source] = _settled_path(given[source])
    base = folder.read()[0] if resume else Config()
    if not resume:
        folder.check_free()
        if "data" not in given:
            raise Error(f"Training needs --data: {', '.join(NAMED)}, a folder of images or a file.")
    if hasattr(args, "set"):
        given["options"] = parse_options(given.get("recipe", base.recipe), args.set)
        check_one_average(given["options"])
    config = replace(base, **given)
    check_options_act(config)
    if not config.backend:
        # The choice of a default, and the line that tells it, belong to `use`.
        config = replace(config, backend=backends_of.use(device=config.device).name)
    progress = terminal_progress()
    try:
        config, _ = training.settle(config)
        data = _load_data(config, progress.note)
    except (Error, ValueError) as lacking:
        if resume and (named := [f"--{name}" for name in ("device", "data") if name not in given]):
            raise Error(
                f"{lacking} What has changed since the run began can be told with {' or '.join(named)}."
            ) from lacking
        raise
    model = training.train(config, data, out=folder.path, resume=resume, progress=progress)
    kind = "png" if model.data.images else "npz"
    print(
        f"The model is in {folder.model}. To sample: cmcore sample {folder.path} --out samples.{kind}", file=sys.stderr
    )


def sample(args: Namespace) -> None:
    """Generate and write a picture, an .npz or a folder of PNGs."""
    out = Path(args.out)
    model = load_model(args.run)
    write = _writer(out, model)
    labels = _labels(args, model)
    backend = _backend(args)
    x = generate.generate(
        model,
        args.n,
        steps=args.steps,
        times=args.times,
        seed=args.seed,
        backend=backend,
        batch=args.batch,
        labels=labels,
    )
    write(x, labels)
    print(f"Wrote {args.n} samples to {out}.", file=sys.stderr)


def evaluate(args: Namespace) -> None:
    """Print the table of distances and times."""
    model = load_model(args.run)
    folder = RunFolder(Path(args.run))
    trained = folder.read()[0] if folder.config.is_file() else Config()
    source = args.data or trained.data
    if source is None:
        raise Error(f"{args.run} does not say what data it was trained on; give --data.")
    shape = model.data.shape
    size, channels = (shape[1], shape[0]) if model.data.images else (None, None)
    data = datasets.load(
        source,
        size=size,
        channels=channels,
        value_range=args.range or trained.range,
        latents=len(shape) == 3 and not model.data.images,
        note=terminal_progress().note,
    )
    backend = _backend(args)
    steps = args.steps or ([18] if generate.default_steps(model) > 1 else [1, 2])
    settings: dict[str, Any] = {"n": args.n, "seed": args.seed, "backend": backend, "batch": args.batch}
    found = None
    if args.search is not None:
        found = evaluation.search_times(model, data, args.search, **settings)
        times = " ".join(f"{t:g}" for t in found.times)
        print(f"Best times for {args.search} steps: {times} (Frechet distance to the training data {found.value:.3f})")
    rows = evaluation.evaluate(model, data, steps=steps, times=found and found.times, **settings)
    real = "all of the data" if data.held_out is None else f"{len(data.held_out):,} held-out samples"
    print(f"{args.n:,} samples of {args.run} against {real} of {data.name}, {backends_of.describe(backend)}")
    print(evaluation.to_table(rows))


def average(args: Namespace) -> None:
    """Write a model whose weights are another average of a run's."""
    out = Path(args.out)
    if out.suffix != ".safetensors":
        raise Error(f"An average is written to a .safetensors file, not to {out.name}.")
    if out.exists():
        raise Error(f"{out} exists already and is not overwritten; choose another --out.")
    model, error = averaging.average(RunFolder(Path(args.run)), args.std, args.at)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, out)
    print(f"Wrote the average of width {args.std:g} to {out}; its profile is {error:.1%} off.", file=sys.stderr)


def backends(args: Namespace) -> None:
    """Print the table of backends."""
    rows = [_describe(name) for name in backends_of.names()]
    print(table(("backend", "version", "devices", "gradients", "missing"), rows))


def demo(args: Namespace) -> None:
    """Run the demonstration."""
    from cmcore.run import demo as demonstration

    demonstration.main(args)


def _backend(args: Namespace) -> Backend:
    return backends_of.use(args.backend, device=args.device)


def _load_data(config: Config, note: Callable[[str], None]) -> Dataset:
    if config.data is None:
        raise Error("The run does not say where its data is, for a program started it; resume it in that program.")
    return datasets.load(
        config.data,
        size=config.size,
        channels=config.channels,
        classes=config.classes,
        value_range=config.range,
        latents=config.latents,
        note=note,
    )


def _settled_path(source: str) -> str:
    # Absolute, so that a run can be resumed from any folder; names of data sets stay as they are.
    return source if source in NAMED or not Path(source).exists() else str(Path(source).resolve())


def _writer(out: Path, model: Model) -> Callable[[np.ndarray, np.ndarray | None], Any]:
    """Return the function that writes samples to ``out``; `Error`, before anything is computed, if it could not."""
    kind = out.suffix.lower()
    if kind not in (".png", ".npz", ""):
        raise Error(f"Samples are written to a .png, an .npz or a folder, not to {out.name}.")
    if kind != ".npz" and not model.data.images:
        raise Error(f"The model's samples, of shape {model.data.shape}, are not images: give --out NAME.npz.")
    if out.exists() and (kind or not out.is_dir() or any(out.iterdir())):
        raise Error(f"{out} exists already and is not overwritten; choose another --out.")
    if kind:
        out.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".png":
        return lambda x, labels: pictures.save_png(pictures.grid(x), out)
    if kind == ".npz":
        return lambda x, labels: pictures.save_npz(
            x, out, None if labels is None else named(labels, model.data.classes)
        )
    return lambda x, labels: pictures.save_folder(x, out)


def _labels(args: Namespace, model: Model) -> np.ndarray | None:
    """The class number of each sample: the one asked for, or all in turn; none for a model without classes."""
    if args.label is not None:
        return np.full(max(args.n, 1), _label(args.label, model))
    return np.arange(max(args.n, 1)) % len(model.data.classes) if model.data.classes else None


def _label(text: str, model: Model) -> int:
    if text in model.data.classes:
        return model.data.classes.index(text)
    if not model.data.classes:
        raise Error("The model was trained without classes; leave out --label.")
    if text.isdecimal() and int(text) < len(model.data.classes):
        return int(text)
    raise Error(f"There is no class {text!r}; the model's classes are {', '.join(model.data.classes)}.")


def _describe(name: str) -> list[str]:
    try:
        backend = backends_of.load(name)
    except (Error, ImportError, AttributeError) as problem:
        return [name, "-", "-", "-", str(problem)]
    missing = "; ".join(
        f"{program}, {purpose}: apt install {program}"
        for program, purpose in backend.programs.items()
        if not shutil.which(program)
    )
    gradients = "yes" if backend.trainable else "no"
    return [name, backend.version(), ", ".join(backend.devices()), gradients, missing]
