r"""Factors on groups by mirror descent: exact slopes say where to go, re-runs say how far.

A round takes the exact slope of the score in every group's log factor, tries a few lengths of that step, each by a
simulated run, and keeps the best if it is better. Nothing linear is ever believed beyond its own step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linprog, root_scalar

from prefdyn.errors import ConfigError
from prefdyn.planning.goals import GoalScore

ROUNDS = 15
_LENGTHS = (2.0, 1.0, 0.5, 0.25)
"""Lengths tried in a round, of the last one that was kept."""
_FIRST, _LAST = 0.5, 0.02
"""First largest change of a log factor, and the one below which there is nothing more to find."""
_SHARP, _SHARPER = 4.0, 1.5
"""Sharpness of the smooth largest, over the spread of the groups at the start; and what each round multiplies it by, up
to the sharpest that the error of a group's mean allows."""
_GAIN, _PATIENCE = 1e-3, 3
"""The search ends where so many rounds gain less than this share of the first score."""

Losses = Callable[[Float[np.ndarray, "m tried"]], Float[np.ndarray, "m tried"]]
"""Losses of the groups at the end of a run with each column of factors; infinite where it diverges."""
Slopes = Callable[[Float[np.ndarray, " m"], Float[np.ndarray, "sums m"]], Float[np.ndarray, "sums m"]]
"""At given factors, the derivative of weighted sums of the groups' losses in the log factor of each group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Factors that a search ended with."""

    factors: Float[np.ndarray, " m"]
    scores: tuple[float, ...]
    """The score as given, of the best start, and of the best factors after every round."""


def mirror(
    losses: Losses,
    slopes: Slopes,
    score: GoalScore,
    shares: Float[np.ndarray, " m"],
    free: Bool[np.ndarray, " m"],
    starts: Float[np.ndarray, "m starts"],
    *,
    error: float,
    floor: float,
    ceiling: float,
    rounds: int = ROUNDS,
) -> Found:
    """Factors of least score.

    Args:
        losses: By simulation.
        slopes: Exact, at given factors.
        score: What is to be small.
        shares: Of each group in the training weight; sums to 1.
        free: Groups whose factor may be moved against the others.
        starts: Factors to begin with, of which the best is taken; the first are those as given.
        error: Standard error of a typical group's part of the score.
        floor: Smallest factor.
        ceiling: Largest factor; both of the mean weight, which stays.
        rounds: At most.
    """
    columns = np.stack([balanced(column, shares, floor, ceiling) for column in starts.T], axis=1)
    found = losses(columns)
    final = score.sharpest(error)
    values, _ = score.smooth(found.T, final)
    place = int(np.argmin(values))
    theta, now = np.log(columns[:, place]), found[:, place]
    known = now[np.isfinite(score.scale)] * score.scale[np.isfinite(score.scale)]
    sharpness = min(final, _SHARP / max(float(np.ptp(known)), 1e-3))
    best, best_score = columns[:, place], float(values[place])
    scores, length = [float(values[0]), best_score], _FIRST
    for _ in range(rounds):
        value, weights = score.smooth(now, sharpness)
        factors = balanced(np.exp(theta), shares, floor, ceiling)
        direction = -np.where(free, np.nan_to_num(slopes(factors, weights[None, :])[0]), 0.0)
        largest = np.abs(direction).max()
        if largest == 0:
            break
        lengths = length * np.array(_LENGTHS)
        tried = np.log(factors)[:, None] + direction[:, None] / largest * lengths
        columns = np.stack([balanced(np.exp(column), shares, floor, ceiling) for column in tried.T], axis=1)
        found = losses(columns)
        values, _ = score.smooth(found.T, sharpness)
        place = int(np.argmin(values))
        if values[place] < value:
            theta, now, length = np.log(columns[:, place]), found[:, place], float(lengths[place])
        else:
            length = float(lengths[-1]) / 2
        last, _ = score.smooth(found.T, final)
        if last.min() < best_score:
            best, best_score = columns[:, int(np.argmin(last))], float(last.min())
        scores.append(best_score)
        sharpness = min(final, sharpness * _SHARPER)
        stale = len(scores) > 1 + _PATIENCE and scores[-1 - _PATIENCE] - scores[-1] < _GAIN * abs(scores[0])
        if length < _LAST or stale:
            break
    return Found(factors=best, scores=tuple(scores))


def balanced(
    factors: Float[np.ndarray, " m"], shares: Float[np.ndarray, " m"], floor: float, ceiling: float
) -> Float[np.ndarray, " m"]:
    r"""Factors times one number, clipped to their bounds, so that their mean over the training weight is 1.

    Example:
        >>> balanced(np.array([4.0, 1.0]), np.array([0.5, 0.5]), 0.1, 10.0).tolist()
        [1.6, 0.4]
    """
    used = shares > 0

    def mean(log: float) -> float:
        return float(shares[used] @ np.clip(np.exp(log) * factors[used], floor, ceiling)) - 1.0

    low = np.log(floor / factors[used].max())
    high = np.log(ceiling / factors[used].min())
    scale = np.exp(root_scalar(mean, bracket=(low, high), xtol=1e-13).root)
    return np.clip(factors * scale, floor, ceiling).round(12)


def linear_programme(
    now: Float[np.ndarray, " m"],
    slopes: Float[np.ndarray, "m m"],
    score: GoalScore,
    shares: Float[np.ndarray, " m"],
    free: Bool[np.ndarray, " m"],
    *,
    floor: float,
    ceiling: float,
) -> Float[np.ndarray, " m"]:
    """Factors that would be best if the losses were linear in them: the usual shortcut, kept to be held against.

    Limits that the linear losses cannot meet are left out.

    Args:
        now: Losses as given; NaN where a group is not in the split.
        slopes: At factors of 1.
        score: What is to be small.
        shares: Of each group in the training weight.
        free: Groups whose factor may move.
        floor: Smallest factor.
        ceiling: Largest.

    Raises:
        ConfigError: The bounds leave no factors of mean 1.
    """
    m = len(shares)
    inside = np.isfinite(score.scale)
    rate = np.nan_to_num(slopes)
    lines = score.scale[inside, None] * rate[inside]
    start = score.scale[inside] * now[inside] + score.offset[inside]
    bounds: list[tuple[float | None, float | None]] = [
        (floor - 1, ceiling - 1) if move and share > 0 else (0.0, 0.0) for move, share in zip(free, shares, strict=True)
    ]
    limited = np.flatnonzero(np.isfinite(score.limit) & np.isfinite(now))
    sides: Sequence[bool] = (True, False) if len(limited) else (False,)
    for with_limits in sides:
        # one more variable per part of the score, or one above all of them
        tops = np.eye(len(lines)) if score.mean else np.ones((len(lines), 1))
        width = tops.shape[1]
        upper, right = np.hstack([lines, -tops]), -start
        if with_limits:
            upper = np.vstack([upper, np.hstack([rate[limited], np.zeros((len(limited), width))])])
            right = np.append(right, score.limit[limited] - now[limited])
        solved = linprog(
            np.append(np.zeros(m), np.full(width, 1 / width)), A_ub=upper, b_ub=right,
            A_eq=np.append(shares, np.zeros(width))[None, :], b_eq=[0.0],
            bounds=[*bounds, *[(score.least if np.isfinite(score.least) else None, None)] * width],
        )  # fmt: skip
        if solved.success:
            return balanced(1 + solved.x[:m], shares, floor, ceiling)
    raise ConfigError(f"no factors between {floor:g} and {ceiling:g} have mean 1; set the floor below 1")
