"""Equal integers that mark what hangs together: numbering and joining such marks, and sums and means over them."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Z95 = 1.96
"""Standard errors to each side that the 95 % intervals of sentences and tables span, and the rules that follow them."""


def in_order(code: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The same classes, numbered from 0 in order of first appearance.

    Example:
        >>> in_order(np.array([7, 2, 7])).tolist()
        [0, 1, 0]
    """
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def joined(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Equal integers for pairs that either of two ways to put them together, or both in turn, hold together.

    Example:
        >>> joined(np.array([7, 7, 3, 4, 5]), np.array([0, 1, 1, 2, 3])).tolist()
        [0, 0, 0, 1, 2]
    """
    (_, one), (_, other) = (np.unique(names, return_inverse=True) for names in (first, second))
    count = int(one.max(initial=-1)) + 1
    size = count + int(other.max(initial=-1)) + 1
    return in_order(linked(one, other + count, size)[one])


def linked(
    first: Int[np.ndarray, " steps"], second: Int[np.ndarray, " steps"], count: int
) -> Int[np.ndarray, " count"]:
    """Equal integers for nodes that steps from one to another connect.

    Args:
        first: Where each step begins.
        second: Where it ends.
        count: How many nodes there are.

    Example:
        >>> linked(np.array([0, 3]), np.array([2, 2]), 5).tolist()
        [0, 1, 0, 0, 2]
    """
    from scipy.sparse import coo_array  # a slow import, which what is refused at once does not wait for
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def sums(values: np.ndarray, unit: Int[np.ndarray, " n"], count: int | None = None) -> np.ndarray:
    """Sums of the rows of each unit, which are numbered from 0; (n,) or (n, d) → one row per unit.

    Args:
        values: One number or row per pair.
        unit: Number of each pair's unit.
        count: How many units there are; those that occur, if not given.

    Example:
        >>> sums(np.array([1.0, 2.0, 4.0]), np.array([0, 1, 0])).tolist()
        [5.0, 2.0]
    """
    count = int(unit.max(initial=-1)) + 1 if count is None else count
    if count == len(unit) and (unit == np.arange(count)).all():
        return values
    if values.ndim == 1:
        return np.bincount(unit, weights=values, minlength=count)
    from scipy.sparse import csr_array

    by = csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))), shape=(count, len(unit)))
    return by @ values


def redrawn(count: int, draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draws count"]:
    """How often each of some units is in as many drawn with replacement, draw by draw.

    Example:
        >>> redrawn(3, 2, np.random.default_rng(0)).sum(axis=1).tolist()
        [3, 3]
    """
    return rng.multinomial(count, np.full(count, 1 / count), size=draws)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over the pairs of one group with its standard error over units."""

    value: float
    error: float
    units: int


def mean_of(values: Float[np.ndarray, " n"], unit: Int[np.ndarray, " n"], *, wider: float = 1.0) -> Mean:
    """Mean of what is known, its error from the sums over units, so many times as wide; NaN under two units.

    Example:
        >>> mean_of(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1])).error  # both units are alike
        0.0
    """
    known = np.isfinite(values)
    if not known.any():
        return Mean(value=math.nan, error=math.nan, units=0)
    value = float(values[known].mean())
    _, code = np.unique(unit[known], return_inverse=True)
    count = int(code.max()) + 1
    if count < 2:
        return Mean(value=value, error=math.nan, units=count)
    each = np.bincount(code, weights=values[known] - value)
    return Mean(
        value=value, error=wider * math.sqrt(count / (count - 1) * float(each @ each)) / int(known.sum()), units=count
    )
