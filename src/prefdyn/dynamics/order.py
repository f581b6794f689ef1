"""The order in which a run learns its groups, and how far two orders agree: correlation, interval, chance."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Real
from scipy.stats import norm, rankdata

from prefdyn._checks import at_least
from prefdyn._random import stream
from prefdyn.errors import DataError
from prefdyn.maths.units import Mean
from prefdyn.trajectory import Trajectory

_LEAST = 3
"""Under this many groups two orders can only be the same or reversed."""
_LEAST_FOR_INTERVAL = 5
"""Under this many groups even a perfect agreement has a two-sided p above 0.05."""
_EXACT = 7
"""Up to this many groups every permutation is counted."""


def learning_area(run: Trajectory, group: str, *, split: str = "train", which: str = "joint") -> float:
    """Mean loss of a group over the steps of a run, nats: the area under its curve over its length.

    The smaller, the earlier the group is learned. Between recorded steps the loss is taken as a straight line.

    Args:
        run: Simulated or trained.
        group: Name.
        split: "train" or "held_out".
        which: "joint", or "alone" for the group trained by itself.

    Returns:
        NaN where the run measured the group at fewer than two steps, or a loss is missing.

    Example:
        >>> rows = [{"run": "joint", "group": "a", "split": "train", "step": s, "loss": 1 - s / 4} for s in (0, 1, 4)]
        >>> learning_area(Trajectory.from_rows(rows, settings={}), "a")
        0.5
    """
    found = run.cell(run=which, group=group, split=split)
    return area(found["step"].to_numpy(), np.asarray(found["loss"].to_numpy(zero_copy_only=False), dtype=np.float64))


def area(steps: Real[np.ndarray, " s"], losses: Float[np.ndarray, " s"]) -> float:
    """The same from a curve; NaN under two steps, or where a loss is NaN.

    Example:
        >>> area(np.array([0, 1, 4]), np.array([1.0, 0.75, 0.0]))
        0.5
    """
    if len(steps) < 2:
        return math.nan
    return float(np.trapezoid(losses, steps) / (steps[-1] - steps[0]))


def places(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Place of each value in rising order, 1 first; ties share the better place, NaN stays NaN.

    Example:
        >>> places(np.array([0.5, 0.2, np.nan, 0.5])).tolist()
        [2.0, 1.0, nan, 2.0]
    """
    known = np.sort(values[~np.isnan(values)])
    below = np.searchsorted(known, values, side="left").astype(np.float64)
    return np.where(np.isnan(values), math.nan, 1 + below)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCorrelation:
    """How far two orders of the same groups agree, with what chance alone would give."""

    value: float
    """Spearman's correlation, -1 to 1; NaN where it is not defined."""
    low: float
    """Lower end of the 95 % interval; NaN where there is none."""
    high: float
    p_value: float
    """Two-sided, by permuting the groups; NaN where there is no correlation."""
    groups: int
    because: str = ""
    """Why there is no correlation or no interval; empty where there are both."""

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"none: {self.because}"
        ends = "no interval" if math.isnan(self.low) else f"95 % interval {self.low:.2f} to {self.high:.2f}"
        return f"{self.value:.2f} ({ends}, p = {self.p_value:.2g}, {self.groups} groups)"


def rank_correlation(
    first: Float[np.ndarray, " m"],
    second: Float[np.ndarray, " other"],
    *,
    seed: int = 0,
    resamples: int = 2000,
    permutations: int = 10_000,
) -> RankCorrelation:
    """Spearman's rank correlation over groups, with a bootstrap interval and a permutation p.

    The interval holds the middle 95 % of the correlations of groups drawn anew with replacement. For Gaussian pairs it
    holds the true value in 95 to 98 of 100 samples from 8 groups on; with 5 or 6 groups and a true correlation near 1
    in 80 to 90, so look at p as well. Where every draw gives the same correlation (the two orders are the same), the
    draws say nothing about how sure it is, and there is no interval. p counts the permutations whose correlation is at
    least as far from 0: all of them up to 7 groups, else a sample.

    Args:
        first: (m,) one number per group; NaN: not known.
        second: (m,) the same of the other.
        seed: Of the draws and the permutations.
        resamples: Draws of the interval.
        permutations: Sample of the p-value.

    Returns:
        A RankCorrelation over the groups known in both. Under 3 groups, or with all values equal, it is none; under 5
        there is no interval.

    Raises:
        DataError: The two differ in length.
        ConfigError: A count is below 1.

    Reference:
        Spearman (1904); Efron and Tibshirani (1993), "An introduction to the bootstrap", sections 13.3 and 15.

    Example:
        >>> found = rank_correlation(np.arange(6.0), np.array([0.0, 1, 2, 3, 5, 4]))
        >>> round(found.value, 6), round(found.p_value, 6)
        (0.942857, 0.016667)
    """
    at_least(resamples, 1, name="resamples")
    at_least(permutations, 1, name="permutations")
    if len(first) != len(second):
        raise DataError(f"two orders have {len(first)} and {len(second)} groups; give one number per group in both")
    known = np.isfinite(first) & np.isfinite(second)
    one, other = first[known], second[known]
    count = len(one)
    if count < _LEAST:
        return _none(count, f"{_counted(count)} known in both runs, and an order takes {_LEAST}")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return _none(count, f"all {count} groups have the same value in one of the two")
    value = float(_spearman(one, other))
    p_value = _p_value(one, other, value, seed, permutations)
    low = high = math.nan
    if count < _LEAST_FOR_INTERVAL:
        because = f"{count} groups are too few for an interval: even two equal orders have p = {_least_p(count):.2g}"
    else:
        drawn = stream(seed, "order", "bootstrap").integers(0, count, (resamples, count))
        found = _spearman(one[drawn], other[drawn])
        found = found[np.isfinite(found)]
        ends = np.quantile(found, [0.025, 0.975]) if len(found) else np.array([math.nan, math.nan])
        because = ""
        if len(found) and ends[0] < ends[1]:
            low, high = float(ends[0]), float(ends[1])
        else:
            because = f"every draw of groups gives {value:.2f}, so drawing says nothing about how sure it is: look at p"
    return RankCorrelation(value=value, low=low, high=high, p_value=p_value, groups=count, because=because)


def _none(count: int, because: str) -> RankCorrelation:
    return RankCorrelation(value=math.nan, low=math.nan, high=math.nan, p_value=math.nan, groups=count, because=because)


def _counted(count: int) -> str:
    return {0: "no group is", 1: "1 group is"}.get(count, f"{count} groups are")


def _least_p(count: int) -> float:
    """Least p that so many groups allow: two equal orders without ties: they and the reverse, of all permutations."""
    return 2 / math.factorial(count)


def spearman(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation of two numbers per group, where both are known; NaN where there is none.

    Example:
        >>> spearman([1.0, 2.0, 3.0, math.nan], [10.0, 30.0, 20.0, 5.0])
        0.5
    """
    one, other = (np.asarray(values, dtype=np.float64) for values in (first, second))
    known = np.isfinite(one) & np.isfinite(other)
    return math.nan if known.sum() < _LEAST else float(_spearman(one[known], other[known]))


def _spearman(first: Float[np.ndarray, "*draws m"], second: Float[np.ndarray, "*draws m"]) -> Any:
    """Correlation of ranks along the last axis, ties at their mean rank; NaN where one side is all tied."""
    ranks = [rankdata(values, axis=-1) for values in (first, second)]
    one, other = (each - each.mean(axis=-1, keepdims=True) for each in ranks)
    size = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(np.where(size > 0, (one * other).sum(axis=-1) / size, math.nan), -1, 1)


def _p_value(first: np.ndarray, second: np.ndarray, value: float, seed: int, permutations: int) -> float:
    count = len(first)
    if count <= _EXACT:
        orders = np.array(list(itertools.permutations(range(count))))
        added: Literal[0, 1] = 0
    else:
        orders = stream(seed, "order", "permutation").permuted(np.tile(np.arange(count), (permutations, 1)), axis=1)
        added = 1  # the order found is one of those that chance could give
    found = _spearman(np.broadcast_to(first, orders.shape), second[orders])
    as_far = int(np.sum(np.abs(found) >= abs(value) - 1e-9))
    return (as_far + added) / (len(orders) + added)


# ranks that errors leave open -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Order of the groups by their means, smallest first, and the ranks that the errors leave open."""

    rank: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]


def ranks(means: Sequence[Mean], *, level: float = 0.05, seed: int = 0, limit: float | None = None) -> Ranks:
    r"""Simultaneous intervals for ranks: groups equal in law get one that is not whole in a share `level` at most.

    Two groups are told apart where their means differ by more than c times the error of the difference, c the
    1 - level quantile of the largest such ratio over all couples when all means are equal, from Gaussian draws with
    errors that are themselves known from so many units. A group's interval counts those that are told apart from it.

    Args:
        means: One per group; those without an error have no rank.
        level: Share of draws in which any couple is told apart though all are equal.
        seed: Of the draws.
        limit: c, where it is known already (see `critical`).

    Reference:
        Mogstad, Romano, Shaikh and Wilhelm (2024), "Inference for Ranks with Applications to Mobility across
        Neighbourhoods and Academic Achievement across Countries", section 3.

    Example:
        >>> found = ranks([Mean(value=v, error=0.01, units=100) for v in (0.3, 0.5, 0.51)])
        >>> found.rank.tolist(), found.low.tolist(), found.high.tolist()
        ([1.0, 2.0, 3.0], [1.0, 2.0, 2.0], [1.0, 3.0, 3.0])
    """
    value, error = (np.array([getattr(each, name) for each in means], dtype=np.float64) for name in ("value", "error"))
    known = np.isfinite(value) & np.isfinite(error)
    low, high = np.full((2, len(means)), math.nan)
    if known.any():
        limit = critical(means, level=level, seed=seed) if limit is None else limit
        low[known], high[known] = open_ranks(value[None, known], error[known], limit)[:, 0]
    return Ranks(rank=places(np.where(known, value, math.nan)), low=low, high=high)


def open_ranks(
    value: Float[np.ndarray, "draws m"], error: Float[np.ndarray, " m"], limit: float
) -> Float[np.ndarray, "2 draws m"]:
    """Lowest and highest rank of each of m values that a critical ratio leaves open, draw by draw.

    Example:
        >>> open_ranks(np.array([[0.3, 0.5, 0.51]]), np.full(3, 0.01), 2.0)[:, 0].tolist()
        [[1.0, 2.0, 2.0], [1.0, 3.0, 3.0]]
    """
    draws, m = value.shape
    found = np.empty((2, draws, m))
    size = max(1, 2**22 // max(1, m * draws))
    for start in range(0, m, size):
        block = slice(start, start + size)
        gaps = value[:, block, None] - value[:, None, :]
        apart = np.abs(gaps) > limit * np.hypot(error[block, None], error)
        found[0, :, block] = 1 + np.sum(apart & (gaps > 0), axis=-1)
        found[1, :, block] = m - np.sum(apart & (gaps < 0), axis=-1)
    return found


def critical(means: Sequence[Mean], *, level: float = 0.05, seed: int = 0, draws: int = 2000) -> float:
    """Quantile of the largest ratio of difference to error over all couples of groups whose means are equal.

    Args:
        means: One per group; those without an error take no part.
        level: Share of draws with a larger ratio.
        seed: Of the draws.
        draws: How many; fewer with many groups.
    """
    known = [each for each in means if math.isfinite(each.value) and math.isfinite(each.error)]
    m = len(known)
    if m < 2:
        return math.inf
    error, free = np.array([each.error for each in known]), np.array([max(each.units - 1, 1) for each in known])
    if m > _FEW:  # each couple at its share of the level
        return float(norm.isf(level / (m * (m - 1))))
    rng = stream(seed, "ranks")
    draws = max(200, min(draws, _COUPLES // (m * m)))
    largest = np.zeros(draws)
    size = max(1, 2**22 // (m * m))
    for start in range(0, draws, size):
        shape = (min(start + size, draws) - start, m)
        off = rng.normal(size=shape) * error
        seen = error * np.sqrt(rng.chisquare(free, size=shape) / free)
        gap = np.abs(off[:, :, None] - off[:, None, :])
        scale = np.hypot(seen[:, :, None], seen[:, None, :])
        with np.errstate(invalid="ignore", divide="ignore"):
            largest[start : start + size] = np.nan_to_num(gap / scale, nan=0.0).max(axis=(1, 2))
    return float(np.quantile(largest, 1 - level))


_FEW = 300
"""Groups up to which the ratio is drawn."""
_COUPLES = 2**26
"""Couples of groups that are drawn for the critical ratio, in about."""
