"""Intervals and adjustments that stand beside a measured number."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import norm
from scipy.stats import t as student

_Z95 = 1.959963984540054


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a share. Half successes (ties) are allowed; NaN for 0 trials.

    Reference:
        Wilson (1927), "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> tuple(round(end, 4) for end in wilson_interval(8, 10))
        (0.4902, 0.9433)
    """
    if trials == 0 or math.isnan(successes):
        return math.nan, math.nan
    share, z2 = successes / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def share_interval(share: float, units: float, error: float) -> tuple[float, float]:
    """95 % interval of a share whose standard error is known: Wilson's, for as many trials as would have that error.

    Args:
        share: 0 to 1.
        units: At most so many trials count, which is what decides where the share is 0 or 1 and shows no spread.
        error: Standard error of the share.

    Example:
        >>> share_interval(0.8, 10, 0.01) == wilson_interval(8, 10)
        True
        >>> tuple(round(end, 3) for end in share_interval(0.8, 100, 0.08))  # as sure as 25 independent pairs
        (0.609, 0.911)
    """
    if math.isnan(share):
        return math.nan, math.nan
    trials = _trials(share, units, error)
    return wilson_interval(share * trials, trials)


def share_p(share: float, units: float, error: float) -> float:
    """Two-sided p of a share of one half: at most 0.05 just where `share_interval` leaves one half out.

    Args:
        share: 0 to 1.
        units: As in `share_interval`.
        error: Standard error of the share.

    Example:
        >>> round(share_p(0.6, 100, 0.01), 4), share_interval(0.6, 100, 0.01)[0] > 0.5
        (0.0455, True)
    """
    return float(2 * norm.sf(2 * abs(share - 0.5) * math.sqrt(_trials(share, units, error))))


def _trials(share: float, units: float, error: float) -> float:
    """As many independent trials as would have that error, and no more than there are units."""
    return min(units, share * (1 - share) / error**2) if error > 0 else units


def area_interval(area: float, counts: tuple[float, float], error: float) -> tuple[float, float]:
    r"""95 % interval of an area under the ROC curve: every area that the measured one does not speak against.

    The variance of a measured area depends on the true one: 0 at 0 and 1, so an interval of fixed width around 1 would
    have no width. Hanley and McNeil's variance says how it depends; it is taken times the ratio of the measured
    variance to it, where that is above 1.

    Args:
        area: Measured, 0 to 1.
        counts: Independent units of both classes.
        error: Standard error of the area.

    Reference:
        Hanley and McNeil (1982), "The meaning and use of the area under a ROC curve"; Newcombe (2006), "Confidence
        intervals for an effect size measure based on the Mann-Whitney statistic", part 2, method 5.

    Example:
        >>> tuple(round(end, 3) for end in area_interval(1.0, (10, 10), 0.0))
        (0.775, 1.0)
    """
    if math.isnan(area) or min(counts) < 1:
        return math.nan, math.nan
    known = _area_variance(np.array([area]), counts)[0]
    times = max(1.0, error**2 / known) if known > 0 else 1.0
    times *= (float(student.ppf(0.975, max(1.0, sum(counts) - 2))) / _Z95) ** 2  # the error is measured, too
    tried = np.linspace(0.0, 1.0, 2001)
    inside = np.flatnonzero(np.abs(tried - area) <= _Z95 * np.sqrt(times * _area_variance(tried, counts)) + 1e-12)
    if len(inside) == 0:
        return area, area
    return float(min(area, tried[inside[0]])), float(max(area, tried[inside[-1]]))


def _area_variance(area: Float[np.ndarray, " k"], counts: tuple[float, float]) -> Float[np.ndarray, " k"]:
    """Of the area of two classes with exponential scores, with both classes at the mean of their numbers."""
    first, second = counts
    more = (first + second) / 2 - 1
    return area * (1 - area) * (1 + more * (1 - area) / (2 - area) + more * area / (1 + area)) / (first * second)


def holm(p_values: Float[np.ndarray, "*draws m"]) -> Float[np.ndarray, "*draws m"]:
    """p-values adjusted so that any false rejection among the m last ones stays below the level. NaN stays NaN.

    Valid however the tests depend on each other.

    Reference:
        Holm (1979), "A simple sequentially rejective multiple test procedure".

    Example:
        >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).round(6).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    order = np.argsort(p_values, axis=-1, kind="stable")  # NaN last
    rising = np.take_along_axis(p_values, order, axis=-1)
    factors = np.sum(~np.isnan(p_values), axis=-1, keepdims=True) - np.arange(p_values.shape[-1])
    adjusted = np.full(p_values.shape, np.nan)
    np.put_along_axis(adjusted, order, np.minimum(1.0, np.maximum.accumulate(rising * factors, axis=-1)), axis=-1)
    return adjusted


def flat(item: Any) -> dict[str, Any]:
    """Fields of a dataclass by name; those that end in `interval` as two, which end in `low` and `high`.

    Fields that are left out of its `repr` are left out here.

    Example:
        >>> from dataclasses import make_dataclass
        >>> flat(make_dataclass("Group", ["pairs", "auc", "auc_interval"])(5, 0.5, (0.4, 0.6)))
        {'pairs': 5, 'auc': 0.5, 'auc_low': 0.4, 'auc_high': 0.6}
    """
    found: dict[str, Any] = {}
    for each in fields(item):
        if each.repr and each.name.endswith("interval"):
            ends = zip(("low", "high"), getattr(item, each.name), strict=True)
            found |= {each.name.removesuffix("interval") + end: value for end, value in ends}
        elif each.repr:
            found[each.name] = getattr(item, each.name)
    return found


def json_number(value: float) -> float | None:
    """The number, or None where it is NaN or infinite, which JSON cannot say.

    Example:
        >>> json_number(0.5), json_number(math.nan), json_number(-math.inf)
        (0.5, None, None)
    """
    return float(value) if math.isfinite(value) else None
