"""Arrays, devices, random numbers and compiled functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from cmcore._arrays import device_of, from_host
from cmcore.backend import Array, Backend, load, namespace, of
from cmcore.testing._tools import (
    POINTS,
    POSITIVE,
    close,
    refuses,
    require,
)

# What the core calls, with the keywords that it uses; each must give what NumPy gives, in the dtype of x. A test of ours
# compares this table with the core's source.
_FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "abs": lambda xp, x, p: xp.abs(x),
    "arange": lambda xp, x, p: xp.astype(xp.arange(4, dtype=xp.int32, device=device_of(x)), x.dtype),
    "asarray": lambda xp, x, p: xp.asarray([0.5, 2.0], dtype=x.dtype, device=device_of(x)),
    "asarray of an array": lambda xp, x, p: (
        xp.asarray(np.ones((2, 3)), dtype=x.dtype, device=device_of(x)) * xp.asarray(x)
    ),
    "astype": lambda xp, x, p: xp.astype(x > 0.0, x.dtype) - xp.astype(xp.astype(p, xp.int32), x.dtype),
    "atan": lambda xp, x, p: xp.atan(x),
    "broadcast_to": lambda xp, x, p: xp.broadcast_to(x, (4, 2, 3)),
    "clip": lambda xp, x, p: xp.clip(x, -0.5, 1.0),
    "concat": lambda xp, x, p: xp.concat([x, p], axis=1),
    "cos": lambda xp, x, p: xp.cos(x),
    "cumulative_sum": lambda xp, x, p: xp.cumulative_sum(x[:, 0]),
    "exp": lambda xp, x, p: xp.exp(x),
    "expand_dims": lambda xp, x, p: xp.expand_dims(x, axis=1),
    "expm1": lambda xp, x, p: xp.expm1(x),
    "floor": lambda xp, x, p: xp.floor(x),
    "full_like": lambda xp, x, p: xp.full_like(x, 0.25),
    "log": lambda xp, x, p: xp.log(p),
    "log1p": lambda xp, x, p: xp.log1p(p),
    "matmul": lambda xp, x, p: xp.matmul(x, xp.matrix_transpose(p)),
    "matmul of stacks": lambda xp, x, p: xp.matmul(x, p[:, :, None]) @ xp.ones_like(x)[:, None, :],
    "max": lambda xp, x, p: xp.max(x, axis=1, keepdims=True),
    "max of all": lambda xp, x, p: x - xp.max(x),
    "maximum": lambda xp, x, p: xp.maximum(x, p),
    "mean": lambda xp, x, p: xp.mean(x, axis=(0, 1)),
    "mean of all": lambda xp, x, p: xp.mean(x) + xp.mean(p, axis=-1, keepdims=True),
    "min": lambda xp, x, p: xp.min(x, axis=0, keepdims=True),
    "minimum": lambda xp, x, p: xp.minimum(x, p),
    "moveaxis": lambda xp, x, p: xp.moveaxis(x[:, None, :], 1, -1),
    "ones_like": lambda xp, x, p: xp.ones_like(x),
    "permute_dims": lambda xp, x, p: xp.permute_dims(x[:, None, :], (2, 0, 1)),
    "reshape": lambda xp, x, p: xp.reshape(x, (3, 1, 2)) * xp.reshape(p, (-1, 2))[:, None, :],
    "sin": lambda xp, x, p: xp.sin(x),
    "sqrt": lambda xp, x, p: xp.sqrt(p),
    "squeeze": lambda xp, x, p: xp.squeeze(xp.expand_dims(x, axis=0), axis=0),
    "stack": lambda xp, x, p: xp.stack([x, p], axis=1) + xp.stack([p[:, 0], x[:, 1], p[:, 2]], axis=-1)[:, None, :],
    "sum": lambda xp, x, p: xp.sum(x, axis=(1,)),
    "sum of rows": lambda xp, x, p: x / xp.sum(p, axis=1, keepdims=True),
    "take": lambda xp, x, p: xp.take(x, xp.astype(xp.clip(p[:, 0], 0.0, 2.0), xp.int64), axis=0),
    "tan": lambda xp, x, p: xp.tan(p),
    "tanh": lambda xp, x, p: xp.tanh(x),
    "where": lambda xp, x, p: xp.where((x <= 0.3) | (x > 2.0), x, p),
    "zeros": lambda xp, x, p: x + xp.zeros((2, 3), dtype=x.dtype, device=device_of(x)),
    "zeros_like": lambda xp, x, p: xp.zeros_like(x),
    "arithmetic": lambda xp, x, p: (2.0 * x - p / 3.0 + 1.0) ** 2 + p**-2 + 0.5**p + 1 / p,
    "indexing": lambda xp, x, p: x[:, None, :] - p[None, :, :] + x[..., 1:2] * p[(slice(None), 0)][:, None, None],
}


def check_members(backend: Backend, dtype: str = "float32") -> None:
    """It has all members of the protocol, and describes itself and its devices."""
    require(isinstance(backend, Backend), f"{backend!r} lacks members of cmcore.Backend.")
    require(bool(backend.name and backend.version()), f"{backend!r} does not say its name and version.")
    require(backend.device in backend.devices(), f"The device {backend.device!r} is not among {backend.devices()}.")
    require(backend.on(None).name == backend.name, "on(None) must return a backend of the same framework.")
    require(backend.on(backend.device).device == backend.device, f"on({backend.device!r}) is bound to another device.")
    require(
        all(map(str.strip, [*backend.programs, *backend.programs.values()])), "A program needs a name and a purpose."
    )
    require(backend.compile_from >= 1, f"compile_from must be at least 1, got {backend.compile_from}.")
    refuses(ValueError, lambda: backend.on("no such device"), "on() with an unknown device")


def check_float_types(backend: Backend, dtype: str = "float32") -> None:
    """It has the floating types that it names, each another one, and the one it is asked about is among them."""
    names = backend.float_types()
    require("float32" in names and dtype in names, f"float_types() must name float32 and {dtype}, got {names}.")
    kinds = set()
    for name in names:
        x, drawn = backend.asarray(POINTS, name), backend.stream(0).normal((2, 3), name)
        require(namespace(x).isdtype(x.dtype, "real floating"), f"asarray() in {name} gives {x.dtype}.")
        require(drawn.dtype == x.dtype, f"A stream asked for {name} drew {drawn.dtype}.")
        kinds.add(x.dtype)
    require(len(kinds) == len(names), f"The types {', '.join(names)} are but {len(kinds)} different ones.")


def check_namespace(backend: Backend, dtype: str = "float32") -> None:
    """Its namespace has the functions of the standard that the mathematics calls, and they give what NumPy's give."""
    x, p = backend.asarray(POINTS, dtype), backend.asarray(POSITIVE, dtype)
    require(namespace(x) is namespace(p), "cmcore.namespace must find one namespace for two arrays of the backend.")
    for name, call in _FUNCTIONS.items():
        try:
            got = call(namespace(x), x, p)
        except (AttributeError, TypeError) as lacking:
            raise AssertionError(
                f"The namespace's {name} cannot be called as the core calls it: {lacking}"
            ) from lacking
        close(backend, got, call(load("numpy").xp, POINTS, POSITIVE), dtype, f"The namespace's {name}")
        require(got.dtype == x.dtype, f"The namespace's {name} turned {x.dtype} into {got.dtype}.")
    require(namespace(x).isdtype(x.dtype, "real floating"), f"isdtype does not know {x.dtype} as real floating.")
    for name in ("bits", "eps", "smallest_normal"):
        found, expected = (float(getattr(xp.finfo(t), name)) for xp, t in ((namespace(x), x.dtype), (np, dtype)))
        require(found == expected, f"finfo({x.dtype}).{name} is {found}, not {expected}.")
    beside = from_host(POINTS, like=x)
    require(beside.dtype == x.dtype and of(beside).name == backend.name, "Host values do not become the backend's.")
    close(backend, beside, POINTS, dtype, "Host values placed beside an array")


def check_placement(backend: Backend, dtype: str = "float32") -> None:
    """Host data arrive as they are, on its device, and come back as a copy."""
    host = np.arange(6, dtype=dtype).reshape(2, 3)[::-1]
    x = backend.asarray(host)
    require(backend.owns(x), "owns() must know what asarray() made.")
    require(not backend.owns(object()), "owns() must not claim any object.")
    require(of(x).name == backend.name, f"cmcore.backend.of() finds {of(x).name!r} for arrays of {backend.name!r}.")
    require(tuple(x.shape) == (2, 3), f"asarray() turned shape (2, 3) into {tuple(x.shape)}.")
    back = backend.to_numpy(x)
    require(isinstance(back, np.ndarray), f"to_numpy() must return a NumPy array, got {type(back).__name__}.")
    require(back.dtype == host.dtype and np.array_equal(back, host), "asarray() and to_numpy() must not change values.")
    back[0, 0] = 99.0
    require(float(backend.to_numpy(x)[0, 0]) == float(host[0, 0]), "to_numpy() must return a copy.")
    require(backend.to_numpy(backend.asarray(x, dtype)).dtype == host.dtype, "asarray() must take its own arrays.")
    require(backend.to_numpy(backend.asarray(host, "int32")).dtype == np.int32, "asarray() must convert to its dtype.")
    number = backend.asarray(0.5)
    require(tuple(number.shape) == (), "asarray() of a Python float must have shape ().")
    require(namespace(number).isdtype(number.dtype, "real floating"), "A Python float must become a float.")


def check_streams(backend: Backend, dtype: str = "float32") -> None:
    """Equal seeds give equal streams, anything else other numbers, and these have the distribution they should have."""

    def draw(seed: int, index: int) -> list[np.ndarray]:
        stream = backend.stream(seed, index)
        return [
            backend.to_numpy(d)
            for d in (stream.normal((5, 2), dtype), stream.normal((5, 2), dtype), stream.uniform((10,), dtype))
        ]

    first, again = draw(3, 1), draw(3, 1)
    require([d.shape for d in first] == [(5, 2), (5, 2), (10,)], "A stream must draw the shape that it is asked for.")
    require(all(str(d.dtype) == dtype for d in first), f"A stream asked for {dtype} drew {first[0].dtype}.")
    require(all(map(np.array_equal, first, again)), "Equal seeds and indices must give equal streams.")
    seen = {d.tobytes() for seed, index in ((3, 1), (3, 2), (4, 1), (1, 3), (3, 0)) for d in draw(seed, index)}
    require(len(seen) == 15, "Streams of different seeds or indices, and draws of one stream, must differ.")

    size = 20_000
    stream = backend.stream(7)
    normal, uniform = (
        backend.to_numpy(d).astype(np.float64) for d in (stream.normal((size,), dtype), stream.uniform((size,), dtype))
    )
    other = backend.to_numpy(backend.stream(7, 1).normal((size,), dtype)).astype(np.float64)
    # Five standard errors of each moment.
    for what, moment, expected, spread in (
        ("mean of the normal numbers", normal.mean(), 0.0, 1.0),
        ("variance of the normal numbers", normal.var(), 1.0, math.sqrt(2)),
        ("kurtosis of the normal numbers", (normal**4).mean(), 3.0, math.sqrt(96)),
        ("correlation of two streams", (normal * other).mean(), 0.0, 1.0),
        ("mean of the uniform numbers", uniform.mean(), 0.5, math.sqrt(1 / 12)),
        ("variance of the uniform numbers", uniform.var(), 1 / 12, math.sqrt(1 / 180)),
    ):
        require(abs(moment - expected) < 5 * spread / math.sqrt(size), f"The {what} is {moment}, not {expected}.")
    require(bool(((uniform >= 0) & (uniform < 1)).all()), "Uniform numbers must lie in [0, 1).")


def check_compile(backend: Backend, dtype: str = "float32") -> None:
    """A compiled function gives what the function gives, at every call, for new values of all its arrays."""

    def f(x: Array, n: Array) -> Array:
        return namespace(x).sin(x) * n

    fast, results = backend.compile(f), []
    for i in range(4):
        x, n = POINTS + i, float(i)
        results.append((fast(backend.asarray(x, dtype), backend.asarray(n, dtype)), np.sin(x) * n))
    for got, expected in results:  # looked at only now, for no call may overwrite what an earlier one returned
        close(backend, got, expected, dtype, "A compiled function")
