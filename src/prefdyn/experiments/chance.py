r"""Tests over the units that a sentence speaks of: behaviours, values, numbers of values, couples of behaviours.

Repetitions lie inside: what is tested is a mean over them. They redraw rows and weights and leave the units as they
are, so that an interval over repetitions of five behaviours says nothing of a sixth. All p are one-sided.

| test | of | where nothing is there |
|---|---|---|
| `by_order` | a mean rank correlation | the units of one quantity in any order |
| `by_sign` | a mean over the units | the numbers of the units with any signs |
| `by_leaving_out` | whatever is made of all units | Student's t of its jackknife over the units |
| `by_repetition` | one number per repetition | Student's t |
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from prefdyn._random import stream

LEVEL = 0.05
"""Of every test over units."""
_EVERY_ORDER, _EVERY_SIGN = 7, 14
"""Units up to which all orders, and all signs, are counted."""
_DRAWS = 9_999
_SAME = 1e-9
"""Difference under which two statistics count as one."""


class Chance(NamedTuple):
    """How often chance does as well."""

    p: float
    """NaN where there is too little for a test."""
    units: int


def ranks(values: Float[np.ndarray, "cells n"]) -> Float[np.ndarray, "cells n"]:
    """Mid-ranks of every row, centred and of length 1; zeros where all values are alike."""
    found = stats.rankdata(values, axis=1)
    found = found - found.mean(axis=1, keepdims=True)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, length, out=np.zeros_like(found), where=length > 0)


def by_order(first: Float[np.ndarray, "cells n"], second: Float[np.ndarray, "cells n"], *, sign: int = 1) -> Chance:
    """Share of the orders of the units in which the mean rank correlation of two quantities is as large.

    The same order stands in every cell, a repetition or setting. All orders up to 7 units; else 9,999 by lot and the
    one that was found.

    Args:
        first: One row per cell.
        second: The same units.
        sign: 1 for a correlation above 0, -1 for one below.

    Example:
        >>> by_order(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1.0, 2.0, 3.0, 4.0]])).p == 1 / 24
        True
    """
    count = first.shape[1]
    pairs = sign * ranks(first).T @ ranks(second)  # [i, j]: what unit i adds where it has the second number of j
    found = pairs[np.arange(count), _orders(count)].sum(axis=1)
    return Chance(_share(found, float(np.trace(pairs)), every=count <= _EVERY_ORDER), count)


def by_sign(values: Float[np.ndarray, " n"]) -> Chance:
    """Share of the signs of the units with which their sum is as large.

    All signs up to 14 units; else 9,999 by lot and those that were found.

    Example:
        >>> by_sign(np.array([1.0, 2.0, 1.5, 0.5, 1.0])).p == 1 / 32
        True
    """
    count = len(values)
    if not np.isfinite(values).all():
        return Chance(math.nan, count)
    return Chance(_share(_signs(count) @ values, float(values.sum()), every=count <= _EVERY_SIGN), count)


def _share(found: np.ndarray, ours: float, *, every: bool) -> float:
    """Of those at least as large; ours is one of them."""
    as_large = int(np.sum(found >= ours - _SAME * max(1.0, abs(ours))))
    return as_large / len(found) if every else (as_large + 1) / (len(found) + 1)


@functools.lru_cache(maxsize=4)
def _orders(count: int) -> np.ndarray:
    """All orders of so many units, or some by lot."""
    if count <= _EVERY_ORDER:
        return np.array(list(itertools.permutations(range(count))))
    return stream(0, "claims", "orders").permuted(np.tile(np.arange(count), (_DRAWS, 1)), axis=1)


@functools.lru_cache(maxsize=4)
def _signs(count: int) -> np.ndarray:
    """All signs, or some by lot."""
    if count <= _EVERY_SIGN:
        return 1 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    return stream(0, "claims", "signs").choice((-1.0, 1.0), size=(_DRAWS, count))


def by_leaving_out(of: Callable[[Sequence[Any]], float], units: Sequence[Any]) -> Chance:
    r"""Chance of a statistic that is not above 0 to come out so far above it, by leaving out one unit after another.

    Student's t with $n-1$ degrees of the statistic over its jackknife error
    $\sqrt{\frac{n-1}{n} \sum (T_{-i} - \bar T)^2}$. Where the statistic is taken over couples of the units, each is
    left out with all its couples: right where what a couple does is made of its two units, and too wide where it is
    not.

    Args:
        of: From the units that are kept to the statistic; NaN where it has none.
        units: All of them.

    Reference:
        Efron and Stein (1981), The jackknife estimate of variance; Arvesen (1969) for couples.

    Example:
        >>> values = {"a": 1.0, "b": 2.0, "c": 1.5}
        >>> found = by_leaving_out(lambda kept: float(np.mean([values[name] for name in kept])), "abc")
        >>> bool(np.isclose(found.p, stats.ttest_1samp([1.0, 2.0, 1.5], 0, alternative="greater").pvalue))
        True
    """
    count, ours = len(units), of(units)
    without = np.array([of([*units[:place], *units[place + 1 :]]) for place in range(count)])
    if count < 3 or not (math.isfinite(ours) and np.isfinite(without).all()):
        return Chance(math.nan, count)
    error = math.sqrt((count - 1) / count * float(np.sum((without - without.mean()) ** 2)))
    return Chance(_above(ours, error, count - 1), count)


def by_repetition(values: Sequence[float]) -> Chance:
    """Chance of numbers whose true mean is not above 0 to be so far above it.

    Example:
        >>> round(by_repetition([0.1, 0.2, 0.3]).p, 4)
        0.0371
    """
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < 2:
        return Chance(math.nan, len(known))
    error = float(known.std(ddof=1)) / math.sqrt(len(known))
    return Chance(_above(float(known.mean()), error, len(known) - 1), len(known))


def _above(value: float, error: float, degrees: int) -> float:
    if error == 0:
        return 0.5 if value == 0 else 0.0 if value > 0 else 1.0
    return float(stats.t.sf(value / error, degrees))
