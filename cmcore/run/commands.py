"""What each command does with its parsed arguments."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmcore import backend as backends_of
from cmcore import generate
from cmcore._files import atomic_write
from cmcore._words import counted, printable, quoted
from cmcore.backend import Backend
from cmcore.errors import Error, sentence
from cmcore.features import train_classifier
from cmcore.interchange.decoder import Decoder
from cmcore.interchange.export import export_model
from cmcore.interchange.imports import import_run
from cmcore.model import Model, load_model, save_model
from cmcore.run import averaging, catalogue, figures, methods, start
from cmcore.run import data as datasets
from cmcore.run import edit as editing
from cmcore.run import evaluate as evaluation
from cmcore.run.chosen_features import chosen
from cmcore.run.config import PRECISIONS, Config
from cmcore.run.data.testing import kept_for_testing
from cmcore.run.folder import RunFolder
from cmcore.run.info import lines as lines_about
from cmcore.run.launch import one_voice
from cmcore.run.output import Output
from cmcore.run.plan import same_data
from cmcore.run.report import say, table, terminal_progress
from cmcore.run.samples import fingerprint


def train(args: Namespace) -> None:
    """Start or resume a run."""
    with one_voice():
        start.train(args)


def sample(args: Namespace) -> None:
    """Generate and write a picture, an .npz or a folder of PNGs."""
    model = load_model(args.run)
    labels = _labels(args, model)
    backend = _backend(args)
    decoder = _decoder(args, backend)
    out = Output(args.out, args.n, decoder.facts(model.data) if decoder else model.data, args.dtype, labels)
    sampler = generate.Sampler(model, backend, _batch(args, model.data.shape), PRECISIONS[args.precision])
    times = sampler.times(args.steps, args.times)
    about = {"model": fingerprint(model), "times": times, "seed": args.seed, "label": args.label, "dtype": args.dtype}
    if args.precision != "float32":
        about["precision"] = args.precision
    if decoder:
        about["decoder"] = decoder.fingerprint()
    progress = terminal_progress()
    with out.sink(about) as sink:
        if sink.done:
            progress.note(f"Going on after {counted(sink.done, 'sample')}.")
        try:
            with progress.phase(f"Making {counted(args.n, 'sample')}") as count:
                for start, x in sampler.batches(args.n, first=sink.done, times=times, seed=args.seed, labels=labels):
                    sink.add(start, out.stored(decoder(x) if decoder else x))
                    count(sink.done, args.n)
            sink.finish()
        except (KeyboardInterrupt, OSError) as stop:
            kept = f"{sink.done:,} of {args.n:,} samples are kept; the same command goes on after them."
            if isinstance(stop, KeyboardInterrupt):
                progress.note(kept)
                raise
            raise Error(f"{sentence(stop)} {kept}") from stop
    progress.note(f"Wrote {counted(args.n, 'sample')} to {out.path}.")


def edit(args: Namespace) -> None:
    """Edit a picture and write what comes of it."""
    model = load_model(args.run)
    backend = _backend(args)
    editing.run(args, model, backend, _decoder(args, backend), terminal_progress())


def play(args: Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from cmcore.run.play.desk import Desk
    from cmcore.run.play.server import serve

    if len(args.run) > 2:
        raise Error(f"One run is played with, or two are compared; got {len(args.run)}.")
    models = [(run, load_model(run)) for run in args.run]
    serve(Desk(models, _backend(args)), args.host, args.port)


def evaluate(args: Namespace) -> None:
    """Print the table of distances and times."""
    model = load_model(args.run)
    folder = RunFolder(Path(args.run))
    trained = folder.read()[0] if folder.config.is_file() else Config()
    source = args.data or trained.data
    if source is None:
        raise Error(f"{args.run} does not say what data it was trained on; give --data.")
    shape = model.data.shape
    latents = len(shape) == 3 and not model.data.images
    size, channels = ((shape[1], shape[2]), shape[0]) if model.data.images else (None, None)
    # What cannot be is told before the data are read.
    backend = _backend(args)
    steps = args.steps or ([18] if generate.default_steps(model) > 1 else [1, 2])
    settings: dict[str, Any] = {"n": args.n, "seed": args.seed, "batch": _batch(args, shape)}
    evaluation.check(model, steps, seeds=args.seeds, **settings)
    _check_places(args, steps)
    if args.search is not None:
        evaluation.check_search(model, args.search)
    settings["backend"] = backend
    features = chosen(
        args.features, args.weights, model.data.name if args.data is None else Path(source).name, shape, backend
    )
    progress = terminal_progress()
    with progress.phase(f"Reading {source}") as count:
        data = datasets.load(
            source,
            size=size,
            channels=channels,
            fit=trained.fit,
            fast_jpegs=trained.fast_jpegs,
            value_range=args.range or trained.range,
            latents=latents,
            skip_broken=trained.skip_broken,
            cache=args.cache or trained.cache,
            held_out=None if args.data else trained.held_out,
            note=progress.note,
            progress=count,
        )
    found = None
    if args.search is not None:
        with progress.phase(f"Searching for the times of {counted(args.search, 'step')}", quiet=True):
            found = evaluation.search_times(model, data, args.search, **settings)
    with progress.phase(f"Making {args.n:,} samples for each row", quiet=True):
        rows = evaluation.evaluate(
            model,
            data,
            steps=steps,
            times=found and found.times,
            seeds=args.seeds,
            features=features,
            compute=PRECISIONS[args.precision],
            **settings,
        )
    real = "all of the data" if data.held_out is None else f"{len(data.held_out):,} held-out samples"
    what = f"{args.n:,} samples of {args.run} against {real} of {data.name}, {backends_of.describe(backend)}"
    how = f"Compared: {features.name}." + (
        f" Means over {args.seeds} seeds, with the least and the largest." if args.seeds > 1 else ""
    )
    lines = [printable(what), how]
    if latents:
        lines.append(
            "The distances are between latents, in their own units; they say little of images decoded from them."
        )
    if found is not None:
        times = " ".join(f"{t:g}" for t in found.times)
        best = f"Best times for {counted(args.search, 'step')}: {times} (Frechet distance to the training data {found.value:.4g})"
        lines.insert(0, best)
    lines.append(figures.to_table(rows))
    # On disk before it is on the screen, which may be gone.
    place = Path(args.out) if args.out else folder.path / "eval.json" if folder.path.is_dir() else None
    about = {
        "run": args.run,
        "data": data.name,
        "seed": args.seed,
        "seeds": args.seeds,
        "n": args.n,
        "precision": args.precision,
    }
    about |= {"features": features.name, "backend": backend.name}
    if place is not None:
        place = _kept(figures.to_json(rows, found, about), place, bool(args.out))
    if args.plot:
        from cmcore.run.html.quality import figure

        atomic_write(args.plot, figure(rows).encode())
    _print(lines, place)


def _check_places(args: Namespace, steps: Sequence[int]) -> None:
    for option, ending, what in (("out", ".json", "Results are kept"), ("plot", ".svg", "A plot is drawn")):
        place = getattr(args, option)
        if place and (Path(place).suffix != ending or Path(place).exists()):
            raise Error(f"{what} in a new {ending} file, not in {place}; choose another --{option}.")
    if args.plot and len(set(steps)) < 2:
        raise Error("A plot of quality needs at least two numbers of steps, such as --steps 1 2 4.")


def _kept(text: str, place: Path, asked_for: bool) -> Path | None:
    """Write results that were computed for long; where nobody asked for the file, a place that refuses it is only told."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, text.encode())
        return place
    except OSError as refused:
        if asked_for:
            print(text)
            raise
        say(f"The results are not kept: {sentence(refused)}")
        return None


def _print(lines: Sequence[str], place: Path | None = None) -> None:
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:
        raise
    except OSError as refused:
        kept = f" The results are in {place}." if place else ""
        raise Error(f"The results cannot be printed ({refused.strerror}).{kept}") from refused


def train_a_classifier(args: Namespace) -> None:
    """Train a classifier and write it."""
    place = Path(args.out)
    if place.suffix != ".safetensors" or place.exists():
        raise Error(f"A classifier is written to a new .safetensors file, not to {place}; choose another --out.")
    backend, progress = _backend(args), terminal_progress()
    settings: dict[str, Any] = {"size": args.size, "channels": args.channels, "cache": args.cache, "classes": True}
    with progress.phase(f"Reading {args.data}") as count:
        data = datasets.load(args.data, note=progress.note, progress=count, **settings)
    data, tested = kept_for_testing(data, args.test, settings)
    with progress.phase(f"Training a classifier of {counted(len(data.classes), 'class', 'classes')}") as count:
        found = train_classifier(
            data,
            backend,
            tested=tested,
            epochs=args.epochs,
            batch=args.batch,
            seed=args.seed,
            flip=args.flip,
            compute=PRECISIONS[args.precision],
            progress=count,
        )
    found.save(place)
    say(
        f"{found.accuracy:.2%} of {counted(found.tested, 'picture')} that it was not trained on get their class. It is in {place}."
    )
    say(f"To judge a run by its features: cmcore eval RUN --features {quoted(place)}")


def report(args: Namespace) -> None:
    """Write the page of a run."""
    from cmcore.run import html

    folder = RunFolder(Path(args.run))
    config = folder.read()[0]
    place = html.place(Path(args.out) if args.out else folder.report)
    progress = terminal_progress()
    data = None
    try:
        if args.data or config.data:
            with progress.phase(f"Reading {args.data or config.data}", quiet=True) as count:
                data = start.load_data(
                    replace(config, data=args.data or config.data), note=progress.note, progress=count
                )
            if not same_data(folder.read()[1].data.fingerprint, data):
                raise Error(f"{data.name} is not what the run was trained on.")
    except (Error, ValueError, OSError) as missing:
        if args.data:
            raise
        data = None
        progress.note(f"{sentence(missing)} The report is made without neighbours; name the data with --data.")
    atomic_write(place, html.page(folder, data).encode())
    say(f"The report is in {place}.")


def info(args: Namespace) -> None:
    """Print what a run or a model is."""
    _print(lines_about(args.run))


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
    say(f"Wrote the average of width {args.std:g} to {out}; its profile is {error:.1%} off.")


def bring(args: Namespace) -> None:
    """Write another program's checkpoint as a run folder."""
    model = import_run(args.path, args.out, args.layout, args.set)
    kind = "score model" if model.recipe.name == "edm" else "consistency model"
    count = sum(weight.size for weight in model.weights.values())
    say(f"Imported a {kind} of {count:,} parameters for data of shape {model.data.shape} to {args.out}.")
    say(f"To sample: cmcore sample {quoted(args.out)} --out samples.{'png' if model.data.images else 'npz'}")


def export(args: Namespace) -> None:
    """Write a model as another program's."""
    model, found = load_model(args.run), ""
    if (kept := Path(args.run) / "eval.json").is_file():
        found = figures.rows_of_json(kept.read_text())
    export_model(model, args.to, args.out, license=args.license, figures=found, onnxruntime_web=args.onnxruntime_web)
    say(f"Wrote {args.run} for {args.to} to {args.out}.")
    if args.to == "web":
        say(
            f"To look at it: python -m http.server -d {quoted(args.out)}, then open http://localhost:8000/ in a browser."
        )


def backends(args: Namespace) -> None:
    """Print the table of backends."""
    rows = [_describe(name) for name in backends_of.names()]
    _print([table(("backend", "version", "devices", "gradients", "missing"), rows)])


def networks(args: Namespace) -> None:
    """Print the table of networks, or of the settings of one."""
    _print(catalogue.one(args.name) if args.name else catalogue.every())


def list_recipes(args: Namespace) -> None:
    """Print the table of methods, or the options of one."""
    if args.markdown:
        _print([methods.to_markdown().rstrip()])
    else:
        _print(methods.one(args.name) if args.name else methods.every())


def demo(args: Namespace) -> None:
    """Run the demonstration."""
    from cmcore.run import demo as demonstration

    demonstration.main(args)


def _decoder(args: Namespace, backend: Backend) -> Decoder | None:
    if args.decoder is None:
        if args.raw_latents:
            raise Error("--raw-latents says how a decoder takes latents; give --decoder too.")
        return None
    return Decoder(args.decoder, raw=args.raw_latents, backend=backend)


def _backend(args: Namespace) -> Backend:
    return backends_of.use(args.backend, device=args.device)


def _batch(args: Namespace, shape: Sequence[int]) -> int:
    return generate.fitting_batch(shape) if args.batch is None else int(args.batch)


def _labels(args: Namespace, model: Model) -> np.ndarray | None:
    """The class number of each sample: the one asked for, or all in turn; none for a model without classes."""
    if args.label is not None:
        return model.label_numbers(args.label, max(args.n, 1))
    return np.arange(max(args.n, 1)) % len(model.data.classes) if model.data.classes else None


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
