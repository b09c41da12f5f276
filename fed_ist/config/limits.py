"""The limits of keys as data: what values a key may have, in words and as a check."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fed_ist.config.toml import Value
from fed_ist.errors import InputError, require_choice

NOUNS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Limit:
    """The values that a key may have.

    words: what is allowed; "{number}" stands for the noun of the key's type.
    require: key, value -> raises `InputError`, which names both, unless the value is allowed.
    choices: all that is allowed, where these are few names.
    """

    words: str
    require: Callable[[str, Value], None]
    choices: tuple[str, ...] = ()

    def allowed(self, kind: type) -> str:
        """What is allowed of a key whose values have this type, in words."""
        return self.words.format(number=NOUNS[kind])


def such_that(words: str, holds: Callable[[Any], bool]) -> Limit:
    """A limit to the values for which `holds` is true; `words` describe them."""

    def require(key: str, value: Value) -> None:
        if not holds(value):
            allowed = limit.allowed(type(value))
            raise InputError(f"{key} = {value!r} is not possible: give {allowed}.")

    limit = Limit(words, require)
    return limit


def at_least(least: float) -> Limit:
    """A limit to finite numbers from `least` on."""
    return such_that(f"{{number}} of at least {least:g}", lambda n: least <= n < math.inf)


def above(bound: float) -> Limit:
    """A limit to finite numbers greater than `bound`."""
    return such_that(f"{{number}} above {bound:g}", lambda n: bound < n < math.inf)


def between(low: float, high: float) -> Limit:
    """A limit to numbers between two others, neither of them included."""
    return such_that(f"{{number}} between {low:g} and {high:g}", lambda n: low < n < high)


def within(interval: str) -> Limit:
    """A limit to numbers of an interval: "(0, 1]" includes 1, but not 0."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    has_low, has_high = interval.startswith("["), interval.endswith("]")
    return such_that(
        f"{{number}} in {interval}",
        lambda n: low < n < high or (n == low and has_low) or (n == high and has_high),
    )


def one_of(names: Iterable[str]) -> Limit:
    """A limit to one of a few names."""
    choices = tuple(sorted(names))

    def require(key: str, value: Value) -> None:
        require_choice(key, str(value), choices)

    return Limit(", ".join(choices), require, choices)


def read_by(read: Callable[[Any], object], words: str) -> Limit:
    """A limit to what `read` accepts, a function of the room that owns the value.

    `read` raises the `InputError` itself; `words` describe what it accepts.
    """

    def require(key: str, value: Value) -> None:
        read(value)

    return Limit(words, require)
