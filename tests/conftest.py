"""What every test can ask for: the array libraries (`lib`), the backends (`backend`, `trainable`) and 64-bit JAX (`x64`).

``CMCORE_TEST_BACKENDS=torch,jax`` runs the tests of those backends only; by default all that are installed take part.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import cmcore as cm

settings.register_profile(
    "cmcore",
    deadline=None,
    max_examples=15,
    derandomize="CI" in os.environ,
    # `lib` gives the same arrays whatever the example, so that it need not be made anew for each.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("cmcore")

BACKENDS = ("numpy", "torch", "jax", "tinygrad")


def _chosen() -> tuple[str, ...]:
    asked = os.environ.get("CMCORE_TEST_BACKENDS")
    if asked is None:
        return tuple(name for name in BACKENDS if name in cm.available())
    chosen = tuple(name.strip() for name in asked.split(",") if name.strip())
    if not chosen or not set(chosen) <= set(BACKENDS):
        raise pytest.UsageError(f"CMCORE_TEST_BACKENDS must list some of {', '.join(BACKENDS)}, got {asked!r}.")
    return chosen


CHOSEN = _chosen()
LIBRARIES = tuple(lib for name in CHOSEN for lib in ((name, "strict") if name == "numpy" else (name,)))
TRAINABLE = tuple(name for name in CHOSEN if name != "numpy")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `spares_tinygrad` spares."""
    spared = [item for item in items if _is_spared(item)]
    config.hook.pytest_deselected(items=spared)
    items[:] = [item for item in items if item not in set(spared)]


def _is_spared(item: pytest.Item) -> bool:
    params = getattr(item, "callspec", None) and item.callspec.params
    mark = item.get_closest_marker("spares_tinygrad")
    if not mark or not params or "tinygrad" not in (params.get("lib"), params.get("backend"), params.get("name")):
        return False
    return not mark.args or params.get("dtype") in mark.args


@dataclass(frozen=True)
class Library:
    """An array library as a test of the mathematics sees it; ``backend`` is the cmcore backend behind it."""

    name: str
    backend: Any

    @property
    def xp(self) -> Any:
        return self.backend.xp

    def asarray(self, host: Any, dtype: str | None = None) -> Any:
        return self.backend.asarray(host, dtype)

    def to_numpy(self, x: Any) -> np.ndarray:
        return self.backend.to_numpy(x)


class StrictBackend:
    """array-api-strict as far as the mathematics needs one; all else is the NumPy backend's."""

    name = "array_api_strict"
    xp = array_api_strict

    def __init__(self, numpy_backend: Any) -> None:
        self._numpy = numpy_backend

    def __getattr__(self, member: str) -> Any:
        return getattr(self._numpy, member)

    def on(self, device: str | None) -> StrictBackend:
        return self

    def owns(self, x: object) -> bool:
        return isinstance(x, type(array_api_strict.zeros(())))

    def asarray(self, host: Any, dtype: str | None = None) -> Any:
        return array_api_strict.asarray(self._numpy.asarray(self.to_numpy(host), dtype))

    def to_numpy(self, x: Any) -> np.ndarray:
        return np.asarray(x)

    def stop_gradient(self, x: Any) -> Any:
        return x


@contextmanager
def strictest() -> Iterator[StrictBackend]:
    """array-api-strict, registered with cmcore, without anything that a compiler could not trace."""
    strict = StrictBackend(cm.load("numpy"))
    cm.register(strict)
    flags = array_api_strict.ArrayAPIStrictFlags(
        api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=()
    )
    try:
        with flags:
            yield strict
    finally:
        cm.backend.unregister(strict.name)


@contextmanager
def jax_x64() -> Iterator[None]:
    """JAX's 64-bit types, which are off by default."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded pictures are not kept where the user's own are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def as_we_found_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the program changes for its process, how warnings are shown and the default backend, is put back after the test."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(cm.backend.registry, "_process_default", None)


@pytest.fixture(params=LIBRARIES)
def lib(request: pytest.FixtureRequest) -> Iterator[Library]:
    """Each array library in turn, float64 included."""
    with ExitStack() as stack:
        if request.param == "strict":
            yield Library("strict", stack.enter_context(strictest()))
        else:
            if request.param == "jax":
                stack.enter_context(jax_x64())
            yield Library(request.param, cm.load(request.param))


@pytest.fixture(params=CHOSEN)
def backend(request: pytest.FixtureRequest) -> Any:
    """Each cmcore backend in turn, as a user finds it (JAX without 64-bit types; see `x64`)."""
    return cm.load(request.param)


@pytest.fixture(params=TRAINABLE)
def trainable(request: pytest.FixtureRequest) -> Any:
    """Each backend with gradients in turn, as a user finds it (JAX without 64-bit types; see `x64`)."""
    return cm.load(request.param)


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 in every backend for the length of a test: JAX needs to be told."""
    if "jax" not in CHOSEN:
        yield
        return
    with jax_x64():
        yield


def write_distribution(place, name, entry_points, module, code):
    """Write somebody else's distribution as it looks when installed in the folder ``place``: one module, entry points."""
    info = place / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    (place / f"{module}.py").write_text(code)
