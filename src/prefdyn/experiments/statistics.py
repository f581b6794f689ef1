"""Numbers over seeds: mean and interval, what a twin leaves of them, and how one order follows another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from prefdyn.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over seeds with its 95 % interval (Student's t)."""

    value: float
    """NaN where no seed gave a number."""
    low: float
    """NaN under two seeds: one run has no interval."""
    high: float
    seeds: int
    """Seeds that gave a number."""

    def __str__(self) -> str:
        if self.seeds == 0:
            return "not measured"
        many = f"{self.seeds} seeds" if self.seeds > 1 else "1 seed"
        ends = "no interval" if math.isnan(self.low) else f"{_shown(self.low)} to {_shown(self.high)}"
        return f"{_shown(self.value)} ({ends}, {many})"

    def to_json(self) -> dict[str, float | int | None]:
        """The same as a plain dictionary; NaN becomes None."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {**{name: None if math.isnan(end) else end for name, end in ends.items()}, "seeds": self.seeds}


def over_seeds(values: Sequence[float], *, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """Mean of one number per seed, with the interval that holds the true mean in 95 of 100 repetitions.

    The seeds draw rows, splits, batches and fresh weights, so the interval is about those and not about other groups,
    models or data.

    Args:
        values: One number per seed; NaN: that seed has none, and is left out.
        least: Smallest value that the number can have; the interval ends there.
        most: Largest.

    Example:
        >>> print(over_seeds([0.7, 0.9, 0.8]))
        0.800 (0.552 to 1.05, 3 seeds)
        >>> print(over_seeds([0.7, 0.9, 0.8], most=1.0))
        0.800 (0.552 to 1.00, 3 seeds)
        >>> print(over_seeds([0.5]))
        0.500 (no interval, 1 seed)
    """
    known = np.asarray([value for value in values if math.isfinite(value)], dtype=np.float64)
    if not len(known):
        return Estimate(value=math.nan, low=math.nan, high=math.nan, seeds=0)
    mean = float(known.mean())
    if len(known) == 1:
        return Estimate(value=mean, low=math.nan, high=math.nan, seeds=1)
    reach = float(stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    return Estimate(value=mean, low=max(least, mean - reach), high=min(most, mean + reach), seeds=len(known))


def difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Mean of first minus second, seed by seed.

    Raises:
        DataError: The two have not the same number of seeds.

    Example:
        >>> print(difference([1.0, 2.0], [0.5, 1.5]))
        0.500 (0.500 to 0.500, 2 seeds)
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} seeds cannot be compared one by one; give as many of both")
    return over_seeds([one - other for one, other in zip(first, second, strict=True)])


def at_step(steps: np.ndarray, values: np.ndarray, step: float) -> float:
    """A curve's value at a step, on the straight line between its recorded steps.

    Raises:
        DataError: The curve was not recorded so far.

    Example:
        >>> at_step(np.array([0, 2, 4]), np.array([1.0, 0.5, 0.25]), 1.0)
        0.75
    """
    if not steps[0] <= step <= steps[-1]:
        raise DataError(f"step {step:g} is outside the recorded steps {steps[0]} to {steps[-1]}; record further")
    return float(np.interp(step, steps, values))


def exponent(counts: Sequence[float], values: Sequence[float]) -> float:
    """The a of the power law values ~ counts^a, by least squares of the logarithms; NaN where a value is not above 0.

    Example:
        >>> round(exponent([1, 2, 4], [8.0, 4.0, 2.0]), 12)
        -1.0
    """
    if len(counts) < 2 or not all(value > 0 for value in values):
        return math.nan
    return float(np.polyfit(np.log(counts), np.log(values), 1)[0])


def straight_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Slope, intercept and R² of the least-squares line; R² is NaN where y does not vary.

    Example:
        >>> [round(number, 12) for number in straight_line([1, 2, 3], [3.0, 5.0, 7.0])]
        [2.0, 1.0, 1.0]
    """
    one, other = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    slope, start = np.polyfit(one, other, 1)
    total = float(np.sum((other - other.mean()) ** 2))
    left = float(np.sum((other - slope * one - start) ** 2))
    return float(slope), float(start), 1 - left / total if total > 0 else math.nan


def _shown(value: float) -> str:
    """Three digits, and never an exponent for what has a place before the point.

    Example:
        >>> _shown(0.8), _shown(12345.6), _shown(0.00002)
        ('0.800', '12346', '2e-05')
    """
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:.0f}"
    return f"{value:#.3g}" if size >= 1e-3 else f"{value:.3g}"
