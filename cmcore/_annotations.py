"""What a signature can say of a parameter beside its type, as ``Annotated[type, ...]``; `cmcore._door` has it checked.

Everything here is data. A function among them is called with the arguments that its parameters name, ``value`` and ``name`` being this
parameter's, and raises. Names of dimensions are jaxtyping's: ``"B *D"`` is an axis B and any number of others, and the same
name is the same size throughout a call, in its arguments and its result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Shape(NamedTuple):
    """An array's shape: names of axes, and ``*name`` for any number of them, such as ``"B *D"`` for (B, ...).

    An array of real floating-point numbers is asked for, and one like the first wherever the same shape comes again.
    """

    dims: str


class EachSample(NamedTuple):
    """A number for all samples, or an array () or (B,) of one each: it reaches the formula as (B,), in the dtype of the samples.

    With ``own``, each has a place of its own in memory, to be differentiated along.
    """

    own: bool = False


class AboveZero(NamedTuple):
    """A time, given as a number, at which ``what`` is defined: above 0 as the samples' dtype has it."""

    what: str


class Rule(NamedTuple):
    """A condition on arguments, which its parameters name, and the sentence where it does not hold, which names them in braces.

    Arrays, which may be traced, are not looked at: it is asked of numbers alone.
    """

    holds: Callable[..., bool]
    sentence: str | Callable[..., str]


class Condition(NamedTuple):
    """The same of any arguments, such as their kinds, and what is raised."""

    holds: Callable[..., Any]
    sentence: str | Callable[..., str]
    error: type[Exception] = ValueError


class OnHost(NamedTuple):
    """The same of numbers in sequences or arrays, which are looked at as float64 arrays on the host."""

    holds: Callable[..., Any]
    sentence: str | Callable[..., str]


class Converted(NamedTuple):
    """What the formula has in a parameter's place: what a function, which may raise, makes of the arguments that its parameters name."""

    by: Callable[..., Any]


class Counts(NamedTuple):
    """Whole numbers of at least 0, what sentences call one of them; the formula has a list."""

    name: str


class Within(NamedTuple):
    """The bounds of an array's numbers, which are looked at if they are on the host."""

    low: float
    high: float


class Function(NamedTuple):
    """A function of the user's, what sentences call it, and what they call what it returns, which must be like its first argument.

    ``returned`` asks for its framework and shape; ``same``, the words for the two, also for its dtype.
    """

    name: str
    returned: str = ""
    same: str = ""

    @property
    def checks_results(self) -> bool:
        """Whether the formula has a function in its place that checks."""
        return bool(self.returned or self.same)


class Called(NamedTuple):
    """What sentences call a parameter, where its name will not do."""

    name: str


class Together(NamedTuple):
    """What sentences call the first array of a shape and this one, which must be alike: by default, both names."""

    names: str
