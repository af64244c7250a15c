"""The shapes in the signatures of the mathematics are those of real calls: of what comes in, and of what goes out."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import types
from collections.abc import Iterable
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import test_inputs
import test_public_functions as tables
from conftest import CHOSEN

import cmcore as cm
from cmcore import flow_maps, grids, oracles, posterior, sampling, solvers, tangents
from cmcore._annotations import EachSample, Shape
from cmcore.types import Elements, PerSample, Samples

pytestmark = pytest.mark.source

ROOMS = ("paths", "grids", "parametrization", "flow_maps", "tangents", "distances", "weightings", "losses", "sampling", "posterior", "solvers", "oracles")  # fmt: skip


def shapes(hint: Any) -> Any:
    """The dimensions that a type says: text, None where it says none, or a tuple of them for several results."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next((h for h in get_args(hint) if get_origin(h) is Annotated), None)
    if get_origin(hint) is Annotated:
        found = [m for m in hint.__metadata__ if isinstance(m, Shape | EachSample)]
        return ("B" if isinstance(found[0], EachSample) else found[0].dims) if found else None
    if get_origin(hint) is tuple and Ellipsis not in get_args(hint):
        return said(map(shapes, get_args(hint)))
    if hasattr(hint, "_fields"):
        return said(map(shapes, get_type_hints(hint, include_extras=True).values()))
    if get_origin(hint) is list:
        return [shapes(get_args(hint)[0])]
    return None


def said(several: Iterable[Any]) -> Any:
    """What several types say, None if none says anything."""
    all_of_them = tuple(several)
    return None if set(all_of_them) == {None} else all_of_them


class Signature(NamedTuple):
    name: str
    takes: dict[str, Any]
    gives: Any


def signature(f: Any) -> Signature:
    hints = get_type_hints(f, include_extras=True)
    gives = shapes(hints.pop("return", None))
    takes = {n: s for n, h in hints.items() if (s := shapes(h)) is not None}
    for p in inspect.signature(f).parameters.values():
        if p.kind is p.VAR_POSITIONAL and p.name in takes:
            takes[p.name] = [takes[p.name]]
    return Signature(f.__qualname__, takes, gives)


def public() -> dict[Any, Any]:
    """The formulas behind all public functions and methods of the mathematics, by their code."""
    found = {}
    for room in ROOMS:
        package = importlib.import_module(f"cmcore.{room}")
        files = [m.name for m in pkgutil.iter_modules(getattr(package, "__path__", [])) if not m.name.startswith("_")]
        for module in (package, *(importlib.import_module(f"cmcore.{room}.{name}") for name in files)):
            for name, thing in vars(module).items():
                if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__:
                    continue
                members = vars(thing).items() if inspect.isclass(thing) else [(name, thing)]
                for member, f in members:
                    if inspect.isfunction(f) and (member == "__call__" or not member.startswith("_")):
                        bare = inspect.unwrap(f)
                        found[bare.__code__] = bare
    return found


FORMULAS = public()
SIGNATURES = {code: signature(f) for code, f in FORMULAS.items()}


def sizes(dims: str, shape: tuple[int, ...], known: dict[str, Any]) -> bool:
    """Whether a shape is what dimensions say, which ``known`` remembers by name."""
    names = dims.split()
    many = next((i for i, n in enumerate(names) if n.startswith("*")), None)
    if many is None:
        parts = list(shape) if len(shape) == len(names) else None
    else:
        after = len(names) - many - 1
        fits = len(shape) >= many + after
        parts = [*shape[:many], shape[many : len(shape) - after], *shape[len(shape) - after :]] if fits else None
    return parts is not None and all(known.setdefault(n, size) == size for n, size in zip(names, parts, strict=True))


def fits(dims: Any, shape: Any, known: dict[str, Any]) -> bool:
    if isinstance(dims, list):
        return all(fits(dims[0], one, known) for one in shape)
    if isinstance(dims, tuple):
        return len(dims) == len(shape) and all(fits(d, one, known) for d, one in zip(dims, shape, strict=True))
    # A number may stand for an array of a path's times.
    return dims is None or shape is None or sizes(dims, shape, known)


def wrong(signature: Signature, takes: dict[str, Any], gives: Any) -> str:
    """What of a call is not as its signature says, or nothing."""
    known: dict[str, Any] = {}
    for name, dims in signature.takes.items():
        if not fits(dims, takes[name], known):
            return f"{signature.name}: {name} is not {dims} but {takes[name]}, with {known}"
    return "" if fits(signature.gives, gives, known) else f"{signature.name} gives not {signature.gives} but {gives}"


def shape_of(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(map(shape_of, value))
    shape = getattr(value, "shape", None)
    return tuple(shape) if isinstance(shape, tuple) else None


@contextmanager
def watched(signatures):
    """The shapes of all calls of these formulas meanwhile, however deep: (signature, what they took, what they gave)."""
    calls, open_frames = [], {}

    def watch(frame, event, result):
        told = signatures.get(frame.f_code)
        if told is None:
            return
        if event == "call":
            open_frames[frame] = {name: shape_of(frame.f_locals[name]) for name in told.takes}
        elif event == "return" and result is not None:
            calls.append((told, open_frames.pop(frame), shape_of(result)))

    sys.setprofile(watch)
    try:
        yield calls
    finally:
        sys.setprofile(None)


X = np.array([[0.3], [-1.0], [0.7]])
IMAGES = np.linspace(-1, 1, 12).reshape(3, 2, 2)
T = np.array([0.5, 0.9, 0.7])
NOISE = lambda i: X  # noqa: E731


def net(x, *times, **cond):
    return 0.5 * x


MORE = {
    "score_estimate": lambda: cm.paths.VE().score_estimate(X, X, T),
    "diffusion": lambda: cm.paths.VE().diffusion(T),
    "transition": lambda: cm.paths.VP().transition(0.5 * T, T),
    "rebased": lambda: cm.paths.rebased(net, cm.paths.VE(), cm.paths.Linear())(X, 0.5),
    "inner": lambda: flow_maps.TowardDenoiser(net).inner(X, T, 0.5 * T),
    "posterior_mean": lambda: posterior.posterior_mean(IMAGES[:2], IMAGES, T),
    "labels": lambda: posterior.posterior_mean(IMAGES, IMAGES, T, np.arange(3)),
    "trajectory": lambda: solvers.trajectory(solvers.heun, net, X, (2.0, 1.0, 0.5)),
    "clipped": lambda: sampling.clipped(net)(X, T),
    "central_difference": lambda: tangents.central_difference(0.1)(net, (X,), (X,)),
    **{
        type(m).__name__: lambda m=m: solvers.solve(m, net, X, (2.0, 1.0, 0.5, 0.0))
        for m in (
            solvers.LMS(),
            solvers.DPMpp2M(),
            solvers.Ancestral(NOISE),
            solvers.Churn(NOISE),
            solvers.DPMppSDE(NOISE),
            solvers.DPMppMSDE(NOISE),
        )
    },
    "Gaussian": lambda: oracles.Gaussian(0.1, 0.5).sample(IMAGES),
    "Mixture, samples": lambda: oracles.Mixture([0.4, 0.6], np.zeros((2, 2, 2)), 0.5).sample(IMAGES, T),
    "Mixture": lambda: oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5).sample(X, 0.5 + 0.1 * X),
    "Empirical": lambda: oracles.Empirical(IMAGES).sample(T),
    "consistency": lambda: oracles.Along(oracles.Gaussian(0.1, 0.5), cm.paths.Linear()).consistency(X, T),
    "Mixture.flow": lambda: oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5).flow(X, T, 0.5 * T),
    "Product": lambda: oracles.Product([oracles.Gaussian(0.1, 0.5)]).flow(X, T, 0.5 * T),
    "Rotated": lambda: oracles.Rotated(oracles.Gaussian(0.1, 0.5), [[-1.0]]).flow(X, T, 0.5 * T),
    **{f"{type(o).__name__}.sample": lambda o=o: o.sample(X) for o in (
        oracles.Product([oracles.Gaussian(0.1, 0.5)]),
        oracles.Rotated(oracles.Gaussian(0.1, 0.5), [[-1.0]]),
        oracles.Along(oracles.Gaussian(0.1, 0.5), cm.paths.Linear()),
    )},
    "karras": lambda: grids.karras(18, like=X),
    "uniform_pair": lambda: grids.uniform_pair(T, np.asarray(18.0)),
}  # fmt: skip


@pytest.fixture(scope="module")
def calls():
    """The shapes of the calls that all the tables of public functions make."""
    with watched(SIGNATURES) as found:
        for call in tables.OF_SAMPLES.values():
            call(X)
        for call in tables.CALLERS.values():
            call(X)
        for name, call in test_inputs.AT_TIMES.items():
            call(X, 0.5 if name.split(",")[0] in test_inputs.HOST_TIMES else T)
        for call in test_inputs.OF_TIMES.values():
            call(T)
        for call in MORE.values():
            call()
    return found


def test_what_comes_in_and_goes_out_is_as_the_signatures_say(calls):
    problems = {problem for told, takes, gives in calls if (problem := wrong(told, takes, gives))}
    assert not problems, "\n".join(sorted(problems))


ABSTRACT = {"Parametrization.scalings", "Solver.step", *(f"Path.{n}" for n in ("a", "b", "da", "db", "time")), "Oracle.score", "Oracle.denoiser", "Oracle.flow"}  # fmt: skip
OF_DERIVATIVES = {"eulerian", "lagrangian"}
"""NumPy has none: below."""


def test_every_formula_with_shapes_is_called(calls):
    called = {told.name for told, _, _ in calls}
    assert called >= {s.name for s in SIGNATURES.values() if s.takes or s.gives} - ABSTRACT - OF_DERIVATIVES


@pytest.mark.skipif("torch" not in CHOSEN, reason="torch does not take part")
def test_the_identities_of_derivatives():
    import torch

    x, t = torch.tensor(X), torch.tensor(T)
    with watched(SIGNATURES) as calls:
        flow_maps.eulerian(lambda x, t, s: x * (s / t)[:, None], lambda x, t: x, x, t, 0.5 * t)
        flow_maps.lagrangian(lambda x, t, s: x * (s / t)[:, None], lambda x, t: x, x, t, 0.5 * t)
    assert {told.name for told, _, _ in calls} >= OF_DERIVATIVES
    assert not [problem for call in calls if (problem := wrong(*call))]


SHAPELESS = {
    # Of numbers or arrays of any shape, and of another shape than what they are given.
    "Path", "VE", "VP", "Linear", "Cosine", "Trigonometric", "functions", "check_end", "check_path", "check_range",
}  # fmt: skip


def test_every_array_has_a_shape():
    """Of the public functions of batches no parameter, and no result, is just an array."""
    bare = set()
    for f in FORMULAS.values():
        if f.__qualname__.split(".")[0] not in SHAPELESS:
            for name, hint in get_type_hints(f, include_extras=True).items():
                if hint is Any and name != "cond":
                    bare.add(f"{f.__qualname__}: {name}")
    assert not bare - ALLOWED, sorted(bare - ALLOWED)
    assert not ALLOWED - bare, sorted(ALLOWED - bare)


ALLOWED = {
    # Bare formulas, whose callers have looked at what they are given.
    "slope: x", "slope: t", "slope: return", "interval: x",
    # Whatever another oracle takes; anything at all.
    "Rotated.sample: random", "Along.sample: random", "Parametrization.scalings: t",
}  # fmt: skip


def test_each_shape_that_is_said_is_compared(calls):
    """A shape that is changed, in whatever place of whatever signature, is noticed."""
    by_signature = {}
    for told, takes, gives in calls:
        by_signature.setdefault((told.name, *told.takes), []).append((told, takes, gives))
    for (name, *_), made in by_signature.items():
        for place in (*made[0][0].takes, "return"):
            noticed = []
            for told, takes, gives in made:
                changed = told._replace(gives=other(told.gives)) if place == "return" else told._replace(takes={**told.takes, place: other(told.takes[place])})  # fmt: skip
                noticed.append(wrong(changed, takes, gives))
            assert any(noticed) or (place == "return" and told.gives is None), f"{name}: {place}"


def other(dims: Any) -> Any:
    if isinstance(dims, tuple | list):
        return type(dims)(map(other, dims))
    return None if dims is None else "an array of no shape that there is"


def test_a_wrong_shape_is_told():
    def of_each(x: Samples) -> PerSample:
        return x

    def of_all(x: Samples, t: PerSample) -> Elements:
        return t[:1]

    watch = {f.__code__: signature(f) for f in (of_each, of_all)}
    with watched(watch) as calls:
        of_each(X)
        of_all(X, T)
        of_all(X, T[:2])
    assert [wrong(*call) for call in calls] == [
        "test_a_wrong_shape_is_told.<locals>.of_each gives not B but (3, 1)",
        "",
        "test_a_wrong_shape_is_told.<locals>.of_all: t is not B but (2,), with {'B': 3, '*D': (1,)}",
    ]
