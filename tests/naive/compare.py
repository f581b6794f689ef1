"""Two runs side by side, the slow way: every figure from very many points of both curves, one group after the other."""

import math

import numpy as np

POINTS = 100_000


def curve(run, group, split, quantity):
    """Steps and finite values, row by row."""
    steps, values = [], []
    for row in run.rows():
        if (row["run"], row["group"], row["split"]) == ("joint", group, split):
            value = row[quantity]
            if value is not None and math.isfinite(value):
                steps.append(row["step"])
                values.append(value)
    return steps, values


def sampled(first, second, factor=1.0):
    """Both curves at the middles of equal stretches of what both cover, in steps of the first."""
    low = max(first[0][0], second[0][0] / factor)
    high = min(first[0][-1], second[0][-1] / factor)
    at = low + (np.arange(POINTS) + 0.5) / POINTS * (high - low)
    return (
        np.interp(at, *first),
        np.interp(at * factor, *second),
        np.interp(low, *first),
        np.interp(low * factor, *second),
    )


def error(first, second, factor=1.0):
    """Root mean square difference, and over the largest distance of the first from its start."""
    one, other, start, _ = sampled(first, second, factor)
    rms = math.sqrt(np.mean((one - other) ** 2))
    moved = np.abs(one - start).max()
    return rms, rms / moved if moved else math.nan


def misfit(pairs, factor):
    """What a factor leaves, over all groups."""
    apart = moved = 0.0
    for first, second in pairs:
        one, other, start, its_start = sampled(first, second, factor)
        apart += np.mean((one - other) ** 2)
        moved += np.mean((one - start) ** 2) + np.mean((other - its_start) ** 2)
    return apart / moved


def spearman(first, second):
    """One minus six times the squared differences of ranks; no ties."""
    n = len(first)
    ranks = [[sum(other < value for other in values) for value in values] for values in (first, second)]
    return 1 - 6 * sum((a - b) ** 2 for a, b in zip(*ranks, strict=True)) / (n * (n * n - 1))
