"""Which backends there are, and which is the default.

Backends are found through the entry-point group ``cmcore.backends``. An entry point is named after the framework's import
name (``torch = "cmcore_torch:BACKEND"``), so that whether it can run here is known without importing it.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, metadata
from importlib.util import find_spec

from cmcore._words import choice
from cmcore.backend.protocol import Backend
from cmcore.errors import Error

PREFERENCE = ("torch", "jax", "tinygrad", "numpy")
"""The order in which `use()` without a name looks for an installed backend."""


class _Owners:
    """The backend of each type of array seen so far, as attributes rather than entries of a dict.

    A compiler that traces the look-up of an attribute compiles anew when that attribute changes; of a dict it guards all
    keys, so that one more type of array would compile everything anew.
    """

    @staticmethod
    def key(kind: type) -> str:
        """Return the name under which a type's backend is remembered."""
        return f"{kind.__module__}_{kind.__qualname__}".replace(".", "_")

    def remember(self, kind: type, backend: Backend) -> None:
        """Keep (kind, backend): two types may have the same name."""
        setattr(self, self.key(kind), (kind, backend))

    def forget(self) -> None:
        """Forget all of them."""
        vars(self).clear()


owners = _Owners()
_registered: dict[str, Backend] = {}
_process_default: Backend | None = None
_scoped_default: ContextVar[Backend | None] = ContextVar("cmcore_default_backend", default=None)


def register(backend: Backend) -> None:
    """Add a backend that has no entry point, or replace the one of that name; it must have every member of `Backend`."""
    _registered[backend.name] = _complete(backend)
    owners.forget()


def registered() -> tuple[Backend, ...]:
    """Return the backends that were registered or loaded."""
    return tuple(_registered.values())


def is_registered(name: str) -> bool:
    """Tell whether a backend of that name was registered or loaded."""
    return name in _registered


def unregister(name: str) -> None:
    """Take a backend away again; one that has an entry point is loaded anew when it is next asked for."""
    _registered.pop(name, None)
    owners.forget()


def names() -> tuple[str, ...]:
    """Return the names of all known backends, installed frameworks or not, in order of preference."""
    known = {*_entry_points(), *_registered}
    return tuple(n for n in PREFERENCE if n in known) + tuple(sorted(known - set(PREFERENCE)))


def may_train() -> tuple[str, ...]:
    """Return the names of the known backends but those that are loaded and have no gradients; loads no framework."""
    return tuple(n for n in names() if n not in _registered or _registered[n].trainable)


def available() -> tuple[str, ...]:
    """Return the names of the backends that can run here, in order of preference; loads no framework.

    What a backend needs is the framework that it is named after and what its distribution lists under the extra of that name.
    """
    return tuple(n for n in names() if n in _registered or (find_spec(n) is not None and not _lacks_a_package(n)))


def load(name: str) -> Backend:
    """Return the backend of that name, importing its framework; an unknown name is a `ValueError`.

    Raises `cmcore.Error`, which says what to install, if the framework is missing.
    """
    if name in _registered:
        return _registered[name]
    points = _entry_points()
    if name not in points:
        raise ValueError(f"There is no backend named {name!r}; {choice(name, names())}")
    try:
        backend = points[name].load()
    except ModuleNotFoundError as missing:
        raise Error(
            f"The backend {name!r} needs the package {missing.name!r}, which is not installed: "
            f"pip install {_to_install(points[name], missing.name)}."
        ) from missing
    register(backend)
    return _registered[name]


def use(name: str | None = None, *, device: str | None = None) -> Backend:
    """Set the process-wide default backend (and device) and return it.

    Without a name, the first installed of torch, jax, tinygrad and numpy is taken, and a line on stderr says which. The
    default matters only to calls that take no array; arrays always bring their own backend.
    """
    global _process_default
    chosen = load(name or available()[0]).on(device)
    if name is None:
        # Who has closed stderr does not want to know.
        with contextlib.suppress(OSError, ValueError):
            print(f"cmcore: using {describe(chosen)}", file=sys.stderr)
    _process_default = chosen
    return chosen


@contextlib.contextmanager
def using(name: str, *, device: str | None = None) -> Iterator[Backend]:
    """Make a backend the default inside a ``with`` block, for this thread or task only."""
    token = _scoped_default.set(load(name).on(device))
    try:
        yield default()
    finally:
        _scoped_default.reset(token)


def default() -> Backend:
    """Return the backend that calls without an array use: `using`'s, else `use`'s, else the first installed one."""
    return _scoped_default.get() or _process_default or load(available()[0])


def chosen_backend(given: Backend | str | None) -> Backend:
    """Return the backend that is given, by itself or by name, or the default one for None; `TypeError` for anything else."""
    if given is None:
        return default()
    if isinstance(given, str):
        return load(given)
    if not hasattr(given, "network"):
        raise TypeError(f'A backend is given by name, such as "numpy", or as cmcore.load returns it, got {given!r}.')
    return given


def describe(backend: Backend) -> str:
    """Return a backend in words, such as "torch 2.13.0 on cpu"."""
    return f"{backend.name} {backend.version()} on {backend.device}"


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="cmcore.backends")}


def _to_install(point: EntryPoint, package: str | None) -> str:
    """What pip is asked for: the extra named after the backend, where its distribution has one, else the package."""
    extras = [] if point.dist is None else point.dist.metadata.get_all("Provides-Extra") or []
    return f'"{point.dist.name}[{point.name}]"' if point.dist and point.name in extras else str(package)


def _lacks_a_package(name: str) -> bool:
    distribution = _entry_points()[name].dist
    extra = re.compile(rf"""extra *== *['"]{name.replace("_", "[-_.]")}['"]""")
    listed = [line for line in (distribution and distribution.requires) or () if extra.search(line)]
    return not all(_is_installed(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in listed)


def _is_installed(package: str) -> bool:
    # By its module first, for a framework in a folder on the path has no metadata.
    if find_spec(re.sub(r"[-.]", "_", package)) is not None:
        return True
    try:
        return bool(metadata(package))
    except PackageNotFoundError:
        return False


def _complete(backend: Backend) -> Backend:
    members = {*Backend.__annotations__, *(m for m in vars(Backend) if not m.startswith("_"))}
    if missing := sorted(m for m in members if not _has(backend, m)):
        raise TypeError(f"The backend {backend!r} lacks these members of cmcore.Backend: {', '.join(missing)}.")
    return backend


def _has(backend: Backend, member: str) -> bool:
    # Statically first, for reading a property such as `device` may start the framework's devices.
    return inspect.getattr_static(backend, member, None) is not None or hasattr(backend, member)
