"""Every function that the tinygrad namespace claims, against NumPy: one row each, and no claim without a row.

A row is a call written once and made in both namespaces, on arrays drawn from a seed of its own. Elementwise functions
are also given the values that go wrong: NaN, infinities, signed zeros, halves and large numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as reference
import numpy as np
import pytest

import cmcore as cm

pytest.importorskip("tinygrad")

from cmcore_tinygrad import namespace
from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType

FLOATING = ("float32", "float64")
INTEGRAL = ("int32", "int64")
NUMERIC = FLOATING + INTEGRAL
ALL = (*NUMERIC, "bool")
ULPS = 4
_SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0)
AWKWARD = (*_SPECIAL, 0.5, -0.5, 1.5, 2.5, -2.5, 1.0, -1.0, 1e-3, -0.3, 50.5, 77.7, -29.0, -3e3, 1e5, 1e30)
SHAPES = ((3,), (2, 3), (2, 1, 4), ())

Call = Callable[..., Any]


def elementwise(*types: str, arguments: int = 1) -> tuple[str, tuple[str, ...], list[Call]]:
    return "elementwise", types, [None] * arguments


def calls(*made: Call, types: tuple[str, ...] = NUMERIC) -> tuple[str, tuple[str, ...], list[Call]]:
    """Calls ``f(xp, x)`` with x of shape (2, 3, 4)."""
    return "calls", types, list(made)


def reduction(name: str, types: tuple[str, ...] = NUMERIC, **options: Any) -> tuple[str, tuple[str, ...], list[Call]]:
    def with_axis(**axes: Any) -> Call:
        return lambda xp, x: getattr(xp, name)(x, **axes, **options)

    return calls(with_axis(), with_axis(axis=1), with_axis(axis=(0, -1), keepdims=True), types=types)


def search(name: str) -> tuple[str, tuple[str, ...], list[Call]]:
    return calls(
        lambda xp, x: getattr(xp, name)(x),
        lambda xp, x: getattr(xp, name)(x, axis=1),
        lambda xp, x: getattr(xp, name)(x, axis=-1, keepdims=True),
    )


_UNARY_FLOATING = "atan cos cosh exp expm1 log log1p log2 reciprocal sin sinh sqrt tan tanh".split()
_UNARY_NUMERIC = "abs ceil floor isfinite isinf isnan negative positive round sign square trunc".split()
_BINARY_NUMERIC = "add subtract multiply maximum minimum less less_equal greater greater_equal".split()

ROWS: dict[str, tuple[str, tuple[str, ...], list[Call]]] = {
    **{name: elementwise(*FLOATING) for name in _UNARY_FLOATING},
    **{name: elementwise(*NUMERIC) for name in _UNARY_NUMERIC},
    **{name: elementwise(*NUMERIC, arguments=2) for name in _BINARY_NUMERIC},
    **{name: elementwise(*ALL, arguments=2) for name in ("equal", "not_equal")},
    **{name: elementwise(*FLOATING, arguments=2) for name in ("divide", "hypot", "logaddexp")},
    **{name: elementwise("bool", arguments=2) for name in ("logical_and", "logical_or", "logical_xor")},
    "logical_not": elementwise("bool"),
    "pow": calls(
        lambda xp, x: xp.pow(xp.abs(x), 3),
        lambda xp, x: xp.pow(x, xp.asarray([0, 1, 2, 3], dtype=x.dtype)),
    ),
    "clip": calls(
        lambda xp, x: xp.clip(x, -1, 2),
        lambda xp, x: xp.clip(x, max=xp.asarray([0, 1, 2, 3], dtype=x.dtype)),
    ),
    "where": calls(lambda xp, x: xp.where(x > 0, x, -x), lambda xp, x: xp.where(x > 0, x, 1), types=NUMERIC),
    **{name: reduction(name) for name in ("max", "min", "prod", "sum")},
    **{name: reduction(name, FLOATING) for name in ("mean", "std", "var")},
    **{name: reduction(name, ALL) for name in ("all", "any")},
    "argmax": search("argmax"),
    "argmin": search("argmin"),
    "cumulative_sum": calls(
        lambda xp, x: xp.cumulative_sum(x, axis=1),
        lambda xp, x: xp.cumulative_sum(x, axis=-1, include_initial=True),
    ),
    "reshape": calls(lambda xp, x: xp.reshape(x, (4, -1)), types=ALL),
    "broadcast_to": calls(lambda xp, x: xp.broadcast_to(x, (5, 2, 3, 4))),
    "broadcast_arrays": calls(lambda xp, x: xp.broadcast_arrays(x, x[0, :, :1])[1]),
    "concat": calls(lambda xp, x: xp.concat([x, x[:, :1]], axis=1), lambda xp, x: xp.concat([x, x[0]], axis=None)),
    "stack": calls(lambda xp, x: xp.stack([x, -x], axis=-1)),
    "unstack": calls(lambda xp, x: xp.unstack(x, axis=1)[2]),
    "expand_dims": calls(lambda xp, x: xp.expand_dims(x, axis=-2)),
    "squeeze": calls(lambda xp, x: xp.squeeze(x[:, :1], axis=1)),
    "permute_dims": calls(lambda xp, x: xp.permute_dims(x, (2, 0, 1))),
    "moveaxis": calls(lambda xp, x: xp.moveaxis(x, 0, -1), lambda xp, x: xp.moveaxis(x, (0, 1), (2, 0))),
    "flip": calls(lambda xp, x: xp.flip(x), lambda xp, x: xp.flip(x, axis=(0, 2))),
    "roll": calls(lambda xp, x: xp.roll(x, 5), lambda xp, x: xp.roll(x, (1, -2), axis=(0, 2))),
    "tile": calls(lambda xp, x: xp.tile(x, (2, 1, 3)), lambda xp, x: xp.tile(x, (2,))),
    "take": calls(lambda xp, x: xp.take(x, xp.asarray([2, 0, -1]), axis=1)),
    "take_along_axis": calls(lambda xp, x: xp.take_along_axis(x, xp.asarray([[[0], [2], [-1]]]), axis=2)),
    "matmul": calls(lambda xp, x: xp.matmul(x, xp.permute_dims(x, (0, 2, 1))), lambda xp, x: xp.matmul(x, x[0, 0])),
    "matrix_transpose": calls(lambda xp, x: xp.matrix_transpose(x)),
    "tensordot": calls(
        lambda xp, x: xp.tensordot(x, x, axes=((1, 2), (1, 2))),
        lambda xp, x: xp.tensordot(x, xp.permute_dims(x, (2, 1, 0)), axes=1),
        lambda xp, x: xp.tensordot(x[0], x[0, 0], axes=0),
    ),
    "vecdot": calls(lambda xp, x: xp.vecdot(x, x[0]), lambda xp, x: xp.vecdot(x, x, axis=-2)),
    "asarray": calls(lambda xp, x: xp.asarray([[1, 2], [3, 4]], dtype=x.dtype), lambda xp, x: xp.asarray(x, copy=True)),
    "astype": calls(
        lambda xp, x: xp.astype(x, xp.float64),
        lambda xp, x: xp.astype(x, xp.int32),
        lambda xp, x: xp.astype(x, xp.bool),
    ),
    "arange": calls(lambda xp, x: xp.arange(5, dtype=x.dtype), lambda xp, x: xp.arange(9, -3, -2, dtype=x.dtype)),
    "linspace": calls(
        lambda xp, x: xp.linspace(0.1, 3, 7, dtype=x.dtype),
        lambda xp, x: xp.linspace(1, 2, 4, dtype=x.dtype, endpoint=False),
        types=FLOATING,
    ),
    "eye": calls(lambda xp, x: xp.eye(3, dtype=x.dtype), lambda xp, x: xp.eye(2, 4, k=1, dtype=x.dtype)),
    "full": calls(lambda xp, x: xp.full((2, 3), 7, dtype=x.dtype), lambda xp, x: xp.full((), True), types=ALL),
    "full_like": calls(lambda xp, x: xp.full_like(x, 3)),
    "ones": calls(lambda xp, x: xp.ones((2, 3), dtype=x.dtype), types=ALL),
    "ones_like": calls(lambda xp, x: xp.ones_like(x), types=ALL),
    "zeros": calls(lambda xp, x: xp.zeros(3, dtype=x.dtype), types=ALL),
    "zeros_like": calls(lambda xp, x: xp.zeros_like(x), types=ALL),
    # What an empty array holds is anyone's guess, so it is compared as a whole with itself.
    "empty": calls(lambda xp, x: xp.isnan(xp.empty((2, 3), dtype=x.dtype)) & False, types=FLOATING),
    "empty_like": calls(lambda xp, x: xp.isnan(xp.empty_like(x)) & False, types=FLOATING),
    "finfo": calls(
        lambda xp, x: [getattr(xp.finfo(x.dtype), n) for n in ("bits", "eps", "max", "min", "smallest_normal")],
        types=FLOATING,
    ),
    "iinfo": calls(lambda xp, x: [getattr(xp.iinfo(x.dtype), n) for n in ("bits", "max", "min")], types=INTEGRAL),
    "isdtype": calls(
        lambda xp, x: [xp.isdtype(x.dtype, k) for k in ("bool", "integral", "real floating", "numeric", xp.int32)],
        lambda xp, x: xp.isdtype(x.dtype, ("bool", "signed integer")),
        types=ALL,
    ),
    "can_cast": calls(
        lambda xp, x: [xp.can_cast(x.dtype, xp.float64), xp.can_cast(xp.float64, x.dtype), xp.can_cast(x, x.dtype)],
        types=FLOATING,
    ),
    "result_type": calls(lambda xp, x: [xp.result_type(x, xp.float64), xp.result_type(x, 2.0)], types=FLOATING),
}


def test_every_claim_has_a_row() -> None:
    assert set(ROWS) == set(namespace.CLAIMED)


def test_claims_are_of_the_standard() -> None:
    missing = [name for name in namespace.CLAIMED if not hasattr(reference, name)]
    assert missing == []
    assert all(hasattr(namespace, name) for name in namespace.__all__)


@pytest.mark.parametrize(("name", "dtype"), [(name, t) for name, (_, types, _) in ROWS.items() for t in types])
def test_agrees_with_numpy(name: str, dtype: str) -> None:
    kind, _, made = ROWS[name]
    draw = np.random.default_rng(zlib.crc32(f"{name} {dtype}".encode()))
    if kind == "calls":
        x = drawn(draw, dtype, (2, 3, 4))
        for call in made:
            assert_same(call(namespace, tensor(x)), call(reference, x))
        return
    for arguments in ([*cases] for cases in elementwise_cases(draw, dtype, len(made))):
        with np.errstate(all="ignore"):
            expected = getattr(reference, name)(*arguments)
        actual = getattr(namespace, name)(*(tensor(a) for a in arguments))
        assert_same(actual, expected, signed_zeros=name not in ("maximum", "minimum"))


def drawn(draw: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Small integers, or quarters, whose sums and products are exact in any order."""
    return np.asarray(draw.integers(-5, 6, shape) if dtype not in FLOATING else draw.integers(-9, 10, shape) / 4, dtype)


def elementwise_cases(draw: np.random.Generator, dtype: str, arguments: int) -> list[list[np.ndarray]]:
    """Arrays of a drawn shape, and for floating types every awkward value (or pair of them)."""
    shape = SHAPES[draw.integers(len(SHAPES))]
    cases = [[drawn(draw, dtype, shape[i:]) for i in range(arguments)]]
    if dtype in FLOATING:
        awkward = np.asarray(AWKWARD, dtype)
        cases.append([awkward] if arguments == 1 else [awkward[:, None], awkward])
    return cases


def tensor(x: np.ndarray) -> Tensor:
    return cm.load("tinygrad").asarray(x)


def assert_same(actual: Any, expected: Any, signed_zeros: bool = True) -> None:
    if isinstance(expected, list):
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)
    elif isinstance(actual, DType):
        assert actual == getattr(dtypes, np.dtype(expected).name)
    elif not isinstance(actual, Tensor):
        assert actual == expected
    else:
        assert actual.shape == np.shape(expected)
        # Python numbers and positions have 32 bits here and 64 in NumPy; of arrays, the type must be the same.
        result = actual.numpy()
        assert result.dtype == expected.dtype or (result.dtype, expected.dtype) == (np.int32, np.int64)
        if result.dtype.kind != "f":
            np.testing.assert_array_equal(result, expected)
            return
        unit = np.finfo(result.dtype).eps
        np.testing.assert_allclose(result, expected, rtol=ULPS * unit, atol=ULPS * unit)
        if signed_zeros:
            zeros = result == 0
            np.testing.assert_array_equal(np.signbit(result[zeros]), np.signbit(np.asarray(expected)[zeros]))


def test_a_nan_stays_one_where_tinygrad_knows_its_value():
    """Of constants tinygrad takes x != x for False and x - x for 0."""
    xp = namespace
    nothing, scalar = xp.asarray([], dtype=xp.float32), xp.asarray(float("nan"))
    for value in (
        scalar,
        xp.mean(nothing),
        *(getattr(xp, name)(scalar) for name in ("max", "min", "mean", "std", "var")),
    ):
        assert xp.isnan(value).item()
    for value in (0.0, -1.5, float("inf"), -float("inf")):
        assert not xp.isnan(xp.asarray(value)).item()
        assert not xp.isnan(xp.asarray([value])).item()
