"""Intervals and adjustments that stand beside a measured number."""

import math

import numpy as np
from jaxtyping import Float

_Z95 = 1.959963984540054


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
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


def holm(p_values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """p-values adjusted so that any false rejection among all of them stays below the level. NaN stays NaN.

    Valid however the tests depend on each other.

    Reference:
        Holm (1979), "A simple sequentially rejective multiple test procedure".

    Example:
        >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).round(6).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors)) if len(order) else []
    return adjusted


def json_number(value: float) -> float | None:
    """The number, or None where it is NaN or infinite, which JSON cannot say.

    Example:
        >>> json_number(0.5), json_number(math.nan), json_number(-math.inf)
        (0.5, None, None)
    """
    return float(value) if math.isfinite(value) else None
