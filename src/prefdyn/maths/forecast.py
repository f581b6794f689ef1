r"""Forecasts of learning curves with intervals: laws pooled by how well they foretold larger sizes from smaller ones.

Every law of `prefdyn.maths.laws` is fitted to the smaller sizes of every group and asked for the larger ones that were
measured. Laws count as one over the mean square of what they missed there, over all groups, times a prior. A forecast
is then a fixed weighted sum of measured losses, so that its error over units is that of one number per pair.

Half the width of an interval is the root of two squares: the error over units, and the quantile of the backtests'
residuals, per $\sqrt{\log}$ of how far they went, times that of how far this forecast goes (conformal, save that sizes
of one curve are no independent draws).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from prefdyn.maths.laws import SHAPES, rows_of

_FITTED = 3
"""Points that the shortest backtest is fitted to."""
POINTS = _FITTED + 1
"""That a curve needs."""
_LATE = 4
"""Backtests that count are fitted up to one of so many points before the last: far below, curves are rougher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Weights of the laws, and how far their pooled forecasts missed."""

    share: Float[np.ndarray, " laws"]
    """Of each of `SHAPES`; they sum to 1."""
    residual: Float[np.ndarray, " tests"]
    """Forecast minus what was measured, of every backtest of every group."""
    distance: Float[np.ndarray, " tests"]
    """Logarithm of the forecast size over the largest fitted one."""

    def rows(self, sizes: Float[np.ndarray, " s"], at: Float[np.ndarray, " k"]) -> Float[np.ndarray, "k s"]:
        """Coefficients of the measured losses in the forecasts."""
        each = np.stack([rows_of(shape, sizes, at) for shape in SHAPES])
        return np.einsum("l,lks->ks", self.share, each)

    def misses(self, level: float) -> float:
        """Quantile of the backtests' absolute residuals, per root of the distance."""
        scaled = np.sort(np.abs(self.residual) / np.sqrt(self.distance))
        return float(scaled[min(len(scaled) - 1, int(np.ceil(level * (len(scaled) + 1))) - 1)])


def pooled(sizes: Sequence[Float[np.ndarray, " s"]], losses: Sequence[Float[np.ndarray, " s"]]) -> Pool:
    """Backtest every law on every group's curve.

    Args:
        sizes: Pairs at each point of each group's curve, ascending; at least `POINTS`.
        losses: Mean losses there.

    Example:
        >>> n = np.array([8.0, 16, 32, 64, 128])
        >>> pool = pooled([n], [0.3 + 2 / n])
        >>> round(float((pool.rows(n, np.array([512.0])) @ (0.3 + 2 / n))[0]), 4)
        0.3039
    """
    missed, distance = [], []
    for n, y in zip(sizes, losses, strict=True):
        for fitted in range(max(_FITTED, len(n) - _LATE), len(n)):
            rows = np.stack([rows_of(shape, n[:fitted], n[fitted:]) for shape in SHAPES])
            missed.append(rows @ y[:fitted] - y[fitted:])
            distance.append(np.log(n[fitted:] / n[fitted - 1]))
    errors, far = np.concatenate(missed, axis=1), np.concatenate(distance)
    mean_square = np.mean(errors**2, axis=1)
    counts = np.array([shape.prior for shape in SHAPES]) / (mean_square + 1e-18)
    share = counts / counts.sum()
    return Pool(share=share, residual=share @ errors, distance=far)


def half_width(
    error: Float[np.ndarray, " k"], units: int, miss: float, distance: Float[np.ndarray, " k"], level: float = 0.9
) -> Float[np.ndarray, " k"]:
    """Half the interval of a forecast.

    Args:
        error: Of the forecast over units.
        units: How many.
        miss: Of the backtests, as `Pool.misses` gives it at the same level.
        distance: Logarithm of the forecast size over the largest measured one; what is nearer counts as 0.
        level: Share of the truths that the interval is to hold.

    Example:
        >>> half_width(np.array([0.01]), 10**6, 0.0, np.array([1.0])).round(5).tolist()
        [0.01645]
    """
    sampled = student.ppf((1 + level) / 2, max(1, units - 1)) * error
    return np.hypot(sampled, miss * np.sqrt(np.maximum(distance, 0.0)))


def crossing(at: Float[np.ndarray, " k"], losses: Float[np.ndarray, " k"], target: float) -> float:
    """The first `at`, ascending, at which a curve comes down to a target, between points on a log scale; else infinite.

    Example:
        >>> crossing(np.array([1.0, 4.0]), np.array([0.6, 0.4]), 0.5), crossing(np.array([1.0]), np.array([0.6]), 0.5)
        (2.0, inf)
    """
    below = np.flatnonzero(losses <= target)
    if not len(below):
        return float("inf")
    place = int(below[0])
    if place == 0:
        return float(at[0])
    part = (losses[place - 1] - target) / (losses[place - 1] - losses[place])
    return float(at[place - 1] * (at[place] / at[place - 1]) ** part)
