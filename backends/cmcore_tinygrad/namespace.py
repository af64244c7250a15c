"""An Array API namespace over bare tinygrad Tensors: functions, not a wrapper class.

tinygrad has no namespace of its own. This one claims the functions in `CLAIMED`, for float32, float64, int32, int64 and
bool, and leaves out what tinygrad cannot do right (shapes that depend on values, remainders of floats, complex numbers)
rather than claim it. What is claimed passes the standard's official test suite; ``tests/conformance`` says how to run it.
"""

from __future__ import annotations

import math
from typing import Any

from tinygrad import Device

from cmcore_tinygrad.functions import (
    circular,
    creation,
    dtypes,
    elementwise,
    exponential,
    linalg,
    manipulation,
    reductions,
)
from cmcore_tinygrad.functions.circular import *
from cmcore_tinygrad.functions.creation import *
from cmcore_tinygrad.functions.dtypes import *
from cmcore_tinygrad.functions.dtypes import DEFAULT_FLOAT, DEFAULT_INT, isdtype
from cmcore_tinygrad.functions.elementwise import *
from cmcore_tinygrad.functions.exponential import *
from cmcore_tinygrad.functions.linalg import *
from cmcore_tinygrad.functions.manipulation import *
from cmcore_tinygrad.functions.reductions import *

__array_api_version__ = "2024.12"

e, inf, nan, pi, newaxis = math.e, math.inf, math.nan, math.pi, None

CONSTANTS = ("e", "inf", "nan", "newaxis", "pi")
DTYPES = ("bool", "float32", "float64", "int32", "int64")
_TOPICS = (circular, creation, dtypes, elementwise, exponential, linalg, manipulation, reductions)
CLAIMED = tuple(sorted({name for topic in _TOPICS for name in topic.__all__} - set(DTYPES)))
"""The standard's functions that this namespace has, each of them right for all of `DTYPES` that it is defined for."""

__all__ = [*CLAIMED, *CONSTANTS, *DTYPES, "__array_api_version__", "__array_namespace_info__"]


class __array_namespace_info__:
    """What the standard lets a caller ask about the namespace."""

    def capabilities(self) -> dict[str, Any]:
        """Tell that shapes never depend on values."""
        return {"boolean indexing": False, "data-dependent shapes": False, "max dimensions": None}

    def default_device(self) -> str:
        """Return the name of tinygrad's default device."""
        return Device.DEFAULT

    def default_dtypes(self, *, device: str | None = None) -> dict[str, Any]:
        """Return the types of Python numbers and of positions."""
        return {"real floating": DEFAULT_FLOAT, "integral": DEFAULT_INT, "indexing": DEFAULT_INT}

    def devices(self) -> list[str]:
        """Return the names of the devices that can be used here, the default one first."""
        return list(dict.fromkeys([Device.DEFAULT, *Device.get_available_devices()]))

    def dtypes(self, *, device: str | None = None, kind: Any = None) -> dict[str, Any]:
        """Return the types of a kind by name."""
        return {n: globals()[n] for n in DTYPES if kind is None or isdtype(globals()[n], kind)}
