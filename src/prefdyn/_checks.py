"""Argument checks: name the argument, its value, where it came from, and the fix."""

import difflib
import math
from collections.abc import Iterable

from prefdyn.errors import ConfigError


def nearest(name: str, known: Iterable[str]) -> str:
    """A `; did you mean 'x'?` clause for the known name closest to `name`, or the list of known names.

    Example:
        >>> nearest("sigmiod", ["sigmoid", "hinge"])
        "; did you mean 'sigmoid'?"
        >>> nearest("zzz", ["sigmoid", "hinge"])
        '; known: hinge, sigmoid'
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(known[:12]) + (f", … ({len(known)} in all)" if len(known) > 12 else "")
    return f"; known: {shown}"


def one_of(value: str, known: Iterable[str], *, name: str) -> str:
    """Return `value` if it is known, else raise a `ConfigError` that names the nearest."""
    known = list(known)
    if value not in known:
        raise ConfigError(f"{name} {value!r} is unknown{nearest(value, known)}")
    return value


def positive(value: float, *, name: str, fix: str = "give a number above 0") -> float:
    """Return `value` if it is finite and above 0, else raise a `ConfigError`."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} is {value!r}, but must be a finite number above 0; {fix}")
    return value


def between(value: float, low: float, high: float, *, name: str) -> float:
    """Return `value` if it lies strictly between `low` and `high`, else raise a `ConfigError`."""
    if not low < value < high:
        raise ConfigError(f"{name} is {value!r}, but must lie between {low} and {high}, ends excluded")
    return value


def at_least(value: int, low: int, *, name: str) -> int:
    """Return `value` if it is a whole number of at least `low`, else raise a `ConfigError`."""
    if isinstance(value, bool) or int(value) != value or value < low:
        raise ConfigError(f"{name} is {value!r}, but must be a whole number of at least {low}")
    return int(value)
