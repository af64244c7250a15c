"""The command ``cmcore``: what can be typed, and how it ends.

Exit status 0, 2 after a sentence on stderr for what the user can mend, or 1 after one for what nobody foresaw. Ctrl-C, status 130,
is left to `cmcore.__main__`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from cmcore import backend, networks, recipes
from cmcore._words import choice, nearest, printable
from cmcore.errors import Error, sentence
from cmcore.interchange import FORMATS, LAYOUTS, OPTIONS
from cmcore.run import commands, completion, overview
from cmcore.run.config import LOGS, PRECISIONS
from cmcore.run.data.load import FITS
from cmcore.run.edit import TASKS, task
from cmcore.run.failures import out_of_memory, unexpected
from cmcore.run.launch import signed
from cmcore.run.plan import CONV_FROM
from cmcore.run.report import either, say


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (by default the process's) and return its exit status."""
    _mend_streams()
    parser = _parser()
    completion.offer(parser)
    args = parser.parse_args(argv)
    warnings.showwarning = _say_warning
    if args.command is None:
        parser.print_help()
        return 0
    try:
        args.command(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        if args.debug:
            raise
        said, status = _told(problem, args.thrift)
        say("\n".join([f"cmcore: {signed(said)}", *getattr(problem, "__notes__", ())]))
        return status
    return 0


def _told(problem: Exception, thrift: str) -> tuple[str, int]:
    """What to say of a problem, and the exit status."""
    if out_of_memory(problem):
        kept = f" {sentence(problem)}" if isinstance(problem, Error) else ""
        return f"There is not enough memory for this; use a smaller {thrift}.{kept}", 2
    if isinstance(problem, (Error, ValueError, TypeError, OSError)):
        return sentence(problem), 2
    return unexpected(problem), 1


def _mend_streams() -> None:
    """Let anything be printed, in whatever encoding the terminal has, and print nowhere where there is none.

    What the encoding lacks is written as an escape: nothing that was computed may be lost in how it is printed.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


_THRIFT = "--batch, --width, --blocks or --size, or take the batch in parts with --accumulate"
"""How a training run is made to need less memory."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage before it, and the nearest name to one that is unknown."""

    def error(self, message: str) -> NoReturn:
        said = printable(message[:1].upper() + message[1:]).removesuffix(".")
        self.exit(2, f"cmcore: {said}; see {self.prog} --help.\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # Before anything else is missed: an option that is mistyped may be the one that is required.
        given = list(sys.argv[1:] if args is None else args)
        for flag in self._flags(given):
            if not any(known.startswith(flag) for known in self._option_string_actions):
                near = nearest(flag, self._option_string_actions)
                self.error(f"there is no option {flag}" + (f" (did you mean {near}?)" if near else ""))
        return super().parse_known_args(args, namespace)

    def _flags(self, given: Sequence[str]) -> list[str]:
        """What looks like an option among the arguments: all that may not be a number or a text."""
        return [flag for text in given if _FLAG.match(flag := text.partition("=")[0])]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(
                action, f"invalid choice: {value!r}; {choice(value, map(str, action.choices))}"
            )


class _Program(_Parser):
    """The whole program, whose help is a page of its own."""

    def format_help(self) -> str:
        (sub,) = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return overview.page({a.dest: str(a.help) for a in sub._choices_actions})

    def _flags(self, given: Sequence[str]) -> list[str]:
        # What comes after a command is the command's.
        return super()._flags(list(takewhile(lambda text: text.startswith("-"), given)))


_FLAG = re.compile(r"--?[A-Za-z][\w-]*$")


def _parser() -> argparse.ArgumentParser:
    parser = _Program(prog="cmcore")
    parser.add_argument("--version", action="version", version=f"cmcore {version('cmcore')}")
    parser.set_defaults(command=None, debug=False)
    sub = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    _add_demo(sub)
    _add_train(sub)
    _add_sample(sub)
    _add_edit(sub)
    _add_play(sub)
    _add_eval(sub)
    _add_classifier(sub)
    _add_report(sub)
    _add_info(sub)
    _add_average(sub)
    _add_import(sub)
    _add_export(sub)
    _add(sub, "backends", commands.backends, "show what is installed, and what is missing")
    methods = _add(sub, "recipes", commands.list_recipes, "list the methods, or the needs and options of one")
    methods.add_argument("name", metavar="NAME", nargs="?", help="a recipe, whose options are shown")
    methods.add_argument("--markdown", action="store_true", help="all of them with their options, as a page")
    listing = _add(sub, "networks", commands.networks, "list networks with their sizes, or the settings of one")
    listing.add_argument(
        "name", metavar="NAME", nargs="?", help="a kind of network or a preset, whose settings are shown"
    )
    return parser


def _add(sub: Any, name: str, command: Any, summary: str, thrift: str = "--batch") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = sub.add_parser(
        name, help=summary, description=summary[:1].upper() + summary[1:] + "."
    )
    parser.set_defaults(command=command, thrift=thrift)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", help=f"{either(backend.names())}; by default the first that is installed")
    parser.add_argument("--device", help="such as cpu or cuda; by default the backend's own default")


def _add_demo(sub: Any) -> None:
    parser = _add(
        sub,
        "demo",
        commands.demo,
        "train a teacher and a student on digits, and compare them",
        "network (--small)",
    )
    _add_backend(parser)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random (%(default)s)")
    parser.add_argument("--out", type=_place, default="demo", help="folder for the runs and the picture (%(default)s)")
    parser.add_argument("--steps", type=int, help="training steps of each of the two runs")
    parser.add_argument("--small", action="store_true", help="a smaller network and fewer steps, for slow machines")


def _add_train(sub: Any) -> None:
    parser = _add(sub, "train", commands.train, "train a model and write a run folder", _THRIFT)
    # Only what is typed appears in the result, so that what contradicts a run to be resumed can be told from defaults.
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument(
        "--data",
        type=_place,
        help="digits, fashion-mnist, emoji, a folder, .zip, .tar, .csv or .parquet of images, or an .npz, .npy or IDX file",
    )
    parser.add_argument(
        "--recipe",
        help=f"the method: {', '.join(recipes.names())}; without it pictures of at least {CONV_FROM} pixels a side get two runs, a "
        "teacher (edm) in RUN-teacher, then its student (cd) in RUN, with settings of their own, and other data ect",
    )
    _add_backend(parser)
    parser.add_argument(
        "--steps",
        type=int,
        help="number of training steps (10000; without --recipe, the teacher's, by the size of the data; the student takes a quarter)",
    )
    parser.add_argument("--out", type=_place, required=True, help="the run's folder, which must be new or empty")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, exactly")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be trained, its memory and time, and write nothing"
    )
    parser.add_argument(
        "--teacher", type=_place, help="a run of the recipe edm (for tcm: ect), for recipes that distil"
    )
    parser.add_argument("--init", type=_place, help="a run with the same network whose weights to start from")
    parser.add_argument("--seed", type=int, help="of everything that is random (0)")
    parser.add_argument("--batch", type=int, help="samples in a step (256; 64 for pictures without --recipe)")
    parser.add_argument(
        "--accumulate", type=int, metavar="K", help="take a batch in K parts, with a K-th of the memory (1)"
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="devices that share each batch, where one process has them all (all accelerators there are)",
    )
    parser.add_argument("--shard", action="store_true", help="spread weights and optimiser over the devices too")
    parser.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="an option of the recipe or optimiser; without --recipe, of the teacher's, the student's, or both where both have it",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        help=f"{either((*networks.names(), 'a preset'))} (see cmcore networks); by default conv for images of at least {CONV_FROM} pixels a side, without --recipe unet-patches",
    )
    parser.add_argument(
        "--set-network",
        action="append",
        metavar="KEY=VALUE",
        help="a setting of the network (see cmcore networks NAME)",
    )
    parser.add_argument("--width", type=int, help="the network's width")
    parser.add_argument("--blocks", type=int, help="the network's number of residual blocks (conv: in each level)")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="N",
        help="resize images to this many pixels a side, or to HEIGHTxWIDTH, such as 32x48",
    )
    parser.add_argument("--fit", choices=FITS, help="what is done where the aspect differs: crop, pad or squash (crop)")
    parser.add_argument(
        "--whole-jpegs",
        dest="fast_jpegs",
        action="store_false",
        help="decode large JPEGs whole: slower, and hardly different",
    )
    parser.add_argument("--skip-broken", action="store_true", help="go on without pictures that cannot be read")
    _add_cache(parser)
    parser.add_argument(
        "--held-out",
        type=_place,
        metavar="SHARE",
        help="keep a share, such as 0.1, or a folder of pictures from training; cmcore eval compares with them",
    )
    parser.add_argument("--flip", action="store_true", help="turn half of the pictures left to right, at random")
    parser.add_argument(
        "--augment",
        type=float,
        metavar="P",
        help="do each of EDM's augmentations with this probability and tell the network, a unet (0; 0.12 for few pictures)",
    )
    parser.add_argument("--channels", type=int, help="1 for grey, 3 for RGB")
    parser.add_argument("--classes", action="store_true", help="condition on the data's classes")
    _add_range(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--kind",
        dest="latents",
        type=_is_latents,
        metavar="KIND",
        help="what arrays (N, C, H, W) are: images, or latents of any scale and number of channels (images)",
    )
    kind.add_argument("--latents", action="store_true", help="the same as --kind latents")
    parser.add_argument("--per-column", action="store_true", help="bring each column of points to the same scale")
    parser.add_argument("--save-every", type=int, metavar="N", help="steps between saves (a tenth, at most 1000)")
    parser.add_argument("--save-minutes", type=float, metavar="M", help="save after so many minutes as well (10)")
    parser.add_argument("--sample-every", type=int, metavar="N", help="steps between pictures of samples (a tenth)")
    parser.add_argument(
        "--log", choices=LOGS, help="write numbers and pictures for TensorBoard too, into the run's folder"
    )
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        help="what the networks' layers compute in; weights, averages and losses are float32 (float32; for pictures without --recipe bfloat16 where "
        "the device has instructions for it)",
    )
    parser.add_argument(
        "--compile",
        dest="compiled",
        action=argparse.BooleanOptionalAction,
        help="compile the train step, or run it eagerly; by default compile where that pays within the run",
    )


def _add_sample(sub: Any) -> None:
    parser = _add(sub, "sample", commands.sample, "generate with a trained model")
    parser.add_argument("run", metavar="RUN", type=_place, help="a run folder or a model.safetensors")
    parser.add_argument("--n", type=int, default=64, help="how many (%(default)s)")
    parser.add_argument("--steps", type=int, help="steps of the sampler (1; 18 for edm)")
    parser.add_argument("--times", type=float, nargs="+", metavar="T", help="the sampler's decreasing times instead")
    parser.add_argument("--label", help="the class to make, by name or number; by default all in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (%(default)s)")
    parser.add_argument("--batch", type=int, help="how many at once (256, fewer of large ones)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "uint8"),
        default="float32",
        help="of an .npz: float32 (N, C, H, W) as x, or uint8 (N, H, W, C) as arr_0, for evaluators (%(default)s)",
    )
    _add_decoder(parser)
    parser.add_argument(
        "--out", type=_place, required=True, help="a grid .png, an .npz, or a folder for PNGs; must be new"
    )
    _add_precision(parser)
    _add_backend(parser)


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="float32",
        help="what the network's layers compute in; samples are float32 (%(default)s)",
    )


def _add_edit(sub: Any) -> None:
    parser = _add(sub, "edit", commands.edit, "edit a picture with a model that nobody trained for it")
    parser.add_argument("run", metavar="RUN", type=_place, help="a run folder or a model.safetensors")
    parser.add_argument("--task", type=task, required=True, metavar="TASK", help=either(list(TASKS)))
    parser.add_argument(
        "--image",
        type=_place,
        nargs="+",
        metavar="PICTURE",
        help="the picture, which is cut and resized to the model's size; two to interpolate; an .npy or .npz of latents",
    )
    parser.add_argument("--mask", type=_place, help="a picture that is white where the image is to be drawn anew")
    parser.add_argument("--factor", type=int, help="how many times an upscaled picture is larger, such as 4")
    parser.add_argument(
        "--noise", type=float, metavar="STD", help="the noise's standard deviation, of pixels in [-1, 1] (estimated)"
    )
    parser.add_argument("--n", type=int, help="how many pictures (9; 1 to denoise)")
    parser.add_argument(
        "--steps", type=int, help="evaluations of inpaint, colourise and upscale (39, the paper's grid)"
    )
    parser.add_argument(
        "--times",
        type=float,
        nargs="+",
        metavar="T",
        help="decreasing noise levels instead (stroke 5.38 2.24; variations 2.24; interpolate 0.5): more changes more",
    )
    parser.add_argument("--rounds", type=int, help="how often each time of inpaint, colourise and upscale is taken (1)")
    parser.add_argument("--label", help="the class, by name or number; by default all in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (%(default)s)")
    parser.add_argument("--batch", type=int, help="how many at once (256, fewer of large ones)")
    _add_decoder(parser)
    parser.add_argument(
        "--out",
        type=_place,
        required=True,
        help="a .png, a grid if there are several, an .npz, or a folder; must be new",
    )
    _add_backend(parser)


def _add_play(sub: Any) -> None:
    parser = _add(sub, "play", commands.play, "serve a page to sample, draw, edit and compare with", "model")
    parser.add_argument("run", metavar="RUN", type=_place, nargs="+", help="a run or a model; two, to compare them")
    parser.add_argument(
        "--port", type=int, default=7860, help="of the page's address; 0: any that is free (%(default)s)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="which address of this machine to listen at; another than %(default)s lets others use the model",
    )
    _add_backend(parser)


def _add_decoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decoder",
        type=_place,
        metavar="FOLDER",
        help="a diffusers AutoencoderKL, to make images of a model's latents",
    )
    parser.add_argument(
        "--raw-latents",
        action="store_true",
        help="the data were the autoencoder's own latents, without its scaling_factor and shift_factor",
    )


def _add_eval(sub: Any) -> None:
    parser = _add(sub, "eval", commands.evaluate, "measure samples against held-out data, and time them")
    parser.add_argument("run", metavar="RUN", type=_place, help="a run folder or a model.safetensors")
    parser.add_argument("--steps", type=int, nargs="+", metavar="S", help="numbers of sampler steps (1 2; 18 for edm)")
    parser.add_argument("--search", type=int, metavar="K", help="also find good times for a sampler with K steps")
    parser.add_argument("--n", type=int, default=5000, help="how many samples (%(default)s)")
    parser.add_argument("--data", type=_place, help="the data to compare with; by default the run's own")
    _add_range(parser)
    _add_cache(parser)
    parser.add_argument(
        "--features",
        type=_place,
        metavar="NAME",
        help="what is compared: pixels, classifier (what comes with cmcore for the data), inception, dinov2, or the "
        ".safetensors of a classifier or an .onnx file; by default classifier where there is one, else pixels",
    )
    parser.add_argument("--weights", type=_place, help="the file of inception's weights, or the folder of dinov2's")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="take means over K seeds (%(default)s)")
    parser.add_argument("--batch", type=int, help="how many at once (256, fewer of large ones)")
    parser.add_argument(
        "--out", "--json", type=_place, help="the .json to keep the results in (eval.json in the run's folder)"
    )
    parser.add_argument("--plot", type=_place, help="an .svg to draw quality against network evaluations in")
    _add_precision(parser)
    _add_backend(parser)


def _add_classifier(sub: Any) -> None:
    parser = _add(
        sub, "classifier", commands.train_a_classifier, "train a small classifier, whose features judge samples"
    )
    parser.add_argument(
        "--data", type=_place, required=True, help="pictures with labels, as for cmcore train --classes"
    )
    parser.add_argument("--out", type=_place, required=True, help="the .safetensors to write, which must be new")
    parser.add_argument(
        "--test", type=_place, default="0.1", metavar="SHARE", help="a share kept for testing, or other pictures (0.1)"
    )
    parser.add_argument("--epochs", type=int, default=12, help="how often each picture is seen (%(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="pictures in a step (%(default)s)")
    parser.add_argument(
        "--size", type=_size, metavar="N", help="resize pictures to this many pixels a side, divisible by 4"
    )
    parser.add_argument("--channels", type=int, help="1 for grey, 3 for RGB")
    parser.add_argument("--flip", action="store_true", help="turn half of the pictures left to right, at random")
    parser.add_argument(
        "--precision", choices=tuple(PRECISIONS), default="float32", help="as for cmcore train (float32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random (%(default)s)")
    _add_cache(parser)
    _add_backend(parser)


def _add_report(sub: Any) -> None:
    parser = _add(sub, "report", commands.report, "write a run's course, pictures and settings as one HTML page")
    parser.add_argument("run", metavar="RUN", type=_place, help="a run folder")
    parser.add_argument(
        "--data", type=_place, help="the training data, for neighbours of samples; by default the run's"
    )
    parser.add_argument("--out", type=_place, help="the .html to write (report.html in the run's folder)")


def _add_info(sub: Any) -> None:
    parser = _add(sub, "info", commands.info, "say what a run or model is, how far, and what to type next")
    parser.add_argument(
        "run", metavar="RUN", type=_place, help="a run folder, a model.safetensors, or the name of a model of cmcore's"
    )


def _add_average(sub: Any) -> None:
    parser = _add(
        sub,
        "average",
        commands.average,
        "make a longer or shorter average of a run's weights",
    )
    parser.add_argument("run", metavar="RUN", type=_place, help="a run folder, trained with --set ema_std=...")
    parser.add_argument(
        "--std", type=float, required=True, help="how long the new average is, as a share of the training: 0.05, say"
    )
    parser.add_argument("--at", type=int, metavar="STEP", help="as if training had ended after this step (the last)")
    parser.add_argument("--out", type=_place, required=True, help="the model's file, a .safetensors, which must be new")


def _add_import(sub: Any) -> None:
    parser = _add(sub, "import", commands.bring, "make a run folder of another program's checkpoint")
    parser.add_argument("path", metavar="CHECKPOINT", type=_place, help="a file or folder of one of the layouts below")
    parser.add_argument("--out", type=_place, required=True, help="the run's folder, which must be new or empty")
    parser.add_argument("--layout", choices=LAYOUTS, help="whose names the weights have; by default found out")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"what the file does not say: {', '.join(OPTIONS)}",
    )


def _add_export(sub: Any) -> None:
    parser = _add(sub, "export", commands.export, "write a model as another program's file or folder")
    parser.add_argument("run", metavar="RUN", type=_place, help="a run folder or a model.safetensors")
    parser.add_argument(
        "--to",
        choices=FORMATS,
        required=True,
        help="whose: a folder for diffusers, edm, onnx and web, a page that samples in a browser; a file for openai",
    )
    parser.add_argument("out", metavar="OUT", type=_place, help="the file or folder, which must be new")
    parser.add_argument(
        "--license", help="under which the model may be used, such as mit, for the model card of a folder"
    )
    parser.add_argument(
        "--onnxruntime-web",
        type=_place,
        metavar="FOLDER",
        help="for web: the unpacked npm package; by default npm fetches it",
    )


def _add_range(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--range",
        type=_numbers,
        metavar="LOW,HIGH",
        help="the values of black and white; by default 0,255 for uint8 and -1,1 for floats",
    )


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache",
        type=_place,
        metavar="FOLDER",
        help="where decoded pictures are kept for the next start, or none (cmcore in the user's cache folder)",
    )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas between, such as 0,255") from None


def _is_latents(text: str) -> bool:
    if text not in ("images", "latents"):
        raise argparse.ArgumentTypeError(f"there is no kind {text!r}; {choice(text, ('images', 'latents'))}")
    return text == "latents"


def _size(text: str) -> int | tuple[int, ...]:
    try:
        sides = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels nor HEIGHTxWIDTH, such as 32x48")
    return sides[0] if len(sides) == 1 else sides


def _place(text: str) -> str:
    # An empty path would be the current folder.
    if not text:
        raise argparse.ArgumentTypeError("an empty text names no file or folder")
    return text


def _say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"cmcore: {message}")
