"""Argument checks: name the argument, its value, where it came from, and the fix."""

import difflib
import math
from collections.abc import Iterable

import numpy as np

from prefdyn.errors import ConfigError, DataError


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


def finite(values: np.ndarray, *, name: str, fix: str) -> np.ndarray:
    """Return `values` if all are finite, else raise a `DataError` that names the first row that is not."""
    step = max(1, _CELLS * len(values) // max(values.size, 1))  # rows at a time: what is read may be larger than memory
    parts = [np.isfinite(values[start : start + step]) for start in range(0, len(values), step)]
    rows = np.concatenate([part.reshape(len(part), -1).all(axis=1) for part in parts] or [np.ones(0, dtype=bool)])
    if not rows.all():
        bad = int(np.flatnonzero(~rows)[0])
        raise DataError(f"{name} has {int((~rows).sum())} rows with NaN or infinity, the first is row {bad}; {fix}")
    return values


_CELLS = 2**24
"""Numbers that `finite` looks at together."""
