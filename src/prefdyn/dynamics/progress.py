r"""Runs by progress: every group's curve against the run's mean loss, which tells runs of other lengths alike.

Progress is the mean over groups of the held-out loss, at its lowest so far, so that it never goes back. At equal
progress two runs are compared group by group; which step reaches which progress is another question, the clock
(THEORY 13).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls
from scipy.stats import t as student

from prefdyn._random import stream

TOLD = 0.95
"""Share of runs from which one group is said to come before another: 19 of 20."""
_HALF = 0.5
_EARLY = 0.1
_DRAWN = 4.0
_ROUNDING = 1e-6
"""Nats by which two runs' first mean losses differ that are the same."""


def progress(loss: Float[np.ndarray, "s g"]) -> Float[np.ndarray, " s"]:
    """Mean loss over groups at each recorded step, at its lowest so far.

    Example:
        >>> progress(np.array([[0.7, 0.7], [0.5, 0.7], [0.6, 0.8], [0.5, 0.5]])).round(3).tolist()
        [0.7, 0.6, 0.6, 0.5]
    """
    return np.minimum.accumulate(loss.mean(axis=1))


def at_levels(
    reached: Float[np.ndarray, " s"], values: Float[np.ndarray, "s ..."], levels: Float[np.ndarray, " l"]
) -> Float[np.ndarray, "l ..."]:
    """What a run's values were when its progress was at each level; NaN where it never was.

    Between records that brought progress the values are taken as straight lines; records that brought none are passed
    over, as what a run does there is no progress.

    Args:
        reached: Progress at each record, from `progress`.
        values: What was measured at the records.
        levels: Mean losses.

    Example:
        >>> at_levels(np.array([0.7, 0.6, 0.6, 0.5]), np.array([0.0, 1.0, 9.0, 2.0]), np.array([0.7, 0.55, 0.4]))
        array([0. , 1.5, nan])
    """
    new = np.flatnonzero(np.r_[True, np.diff(reached) < 0])
    levels = np.where(np.abs(levels - reached[0]) <= _ROUNDING, reached[0], levels)
    place = np.interp(-levels, -reached[new], np.arange(len(new)), left=math.nan, right=math.nan)
    found = np.full((len(levels), *values.shape[1:]), math.nan)
    known = np.isfinite(place)
    low = np.floor(place[known]).astype(int)
    share = (place[known] - low).reshape(-1, *[1] * (values.ndim - 1))
    high = np.minimum(low + 1, len(new) - 1)
    found[known] = (1 - share) * values[new[low]] + share * values[new[high]]
    return found


def levels_to(start: float, end: float, count: int = 25) -> Float[np.ndarray, " l"]:
    """Evenly spaced levels from the first mean loss down to the last.

    Example:
        >>> levels_to(0.7, 0.5, 3).round(3).tolist()
        [0.7, 0.6, 0.5]
    """
    return np.linspace(start, end, count)


# how far runs are apart ----------------------------------------------------------------------------------------------


def apart(first: Float[np.ndarray, "l g"], second: Float[np.ndarray, "l g"]) -> Float[np.ndarray, " l"]:
    """Mean absolute difference of groups at each level; NaN where one of the runs was not there.

    Example:
        >>> apart(np.array([[0.5, 0.7]]), np.array([[0.6, 0.6]])).round(3).tolist()
        [0.1]
    """
    return np.abs(first - second).mean(axis=1)


def spread_of_seeds(runs: Float[np.ndarray, "r l g"]) -> Float[np.ndarray, " l"]:
    """Standard deviation between runs at each level, pooled over groups; NaN under two runs.

    Example:
        >>> spread_of_seeds(np.array([[[1.0, 1.0]], [[3.0, 1.0]]])).tolist()  # variances 2 and 0
        [1.0]
    """
    there = np.asarray(np.isfinite(runs).all(axis=2))
    count = there.sum(axis=0)
    sums = np.where(there[:, :, None], runs, 0.0).sum(axis=0)
    centre = sums / np.maximum(count, 1)[:, None]
    squares = np.where(there[:, :, None], (runs - centre) ** 2, 0.0).sum(axis=0).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count > 1, np.sqrt(squares / (count - 1)), math.nan)


def mean_run(runs: Float[np.ndarray, "r l g"]) -> tuple[Float[np.ndarray, "l g"], Int[np.ndarray, " l"]]:
    """Mean of the runs that were at each level, NaN where none was, and how many were."""
    there = np.asarray(np.isfinite(runs).all(axis=2))
    count = there.sum(axis=0)
    sums = np.where(there[:, :, None], runs, 0.0).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count[:, None] > 0, sums / count[:, None], math.nan), count


def growth(residual: Float[np.ndarray, "l g"], fallen: Float[np.ndarray, " l"]) -> tuple[float, float]:
    r"""A and k of the law that errors of a linear run follow, $a\,d + k\,d^2$ at d nats of fall from where it began.

    A linearisation is exact to first order, hence k; a is what pairs that stand in for others change. Both are the
    least squares ones of root mean squares over groups that are not negative; NaN where nothing lies beyond.

    Args:
        residual: What a linear run foretold less what a real one did, group by group, at each level.
        fallen: Progress of each level beyond the linearisation, nats; those of 0 and below are passed over.

    Example:
        >>> a, k = growth(np.array([[0.0, 0.0], [0.1, -0.1], [0.4, -0.4]]), np.array([0.0, 0.1, 0.2]))
        >>> round(a, 6), round(k, 6)
        (0.0, 10.0)
    """
    size = np.sqrt((residual**2).mean(axis=1))
    known = np.isfinite(size) & (fallen > 0)
    if not known.any():
        return math.nan, math.nan
    whole = fallen[known].max()
    share = fallen[known] / whole
    (first, second), _ = nnls(np.stack([share, share**2], axis=1), size[known])
    return float(first / whole), float(second / whole**2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProgressBand:
    """Where one real run's groups will be at each level."""

    levels: Float[np.ndarray, " l"]
    centre: Float[np.ndarray, "l g"]
    """NaN where nothing is foretold."""
    error: Float[np.ndarray, " l"]
    """Standard error of one run about it, root mean square over groups; NaN where it is not known."""
    scale: Float[np.ndarray, " g"]
    """How much larger each group's error is than that."""
    linear: Float[np.ndarray, " l"]
    """Weight of the linear run in the centre, 0 to 1; the rest is the rehearsals'."""
    freedom: float
    """Degrees of freedom of the error."""

    @property
    def errors(self) -> Float[np.ndarray, "l g"]:
        """Standard error of each group."""
        return self.error[:, None] * self.scale

    @property
    def half_width(self) -> Float[np.ndarray, "l g"]:
        """Half of the width of the 90 % band."""
        return float(student.ppf(0.95, self.freedom)) * self.errors

    @property
    def area(self) -> Float[np.ndarray, " g"]:
        """Mean loss of each group over the vouched levels, or over all that are foretold where none is vouched for."""
        use = self.vouched
        use = use if use.any() else np.isfinite(self.centre).all(axis=1)
        return self.centre[use].mean(axis=0) if use.any() else np.full(self.centre.shape[1], math.nan)

    @property
    def vouched(self) -> Bool[np.ndarray, " l"]:
        """Levels up to the horizon: the last one whose error is at most half of how far its groups are apart.

        How far they are apart is the root mean square of the groups about their mean: what one is off by who takes all
        groups to be equal.
        """
        centre = self.centre - self.centre.mean(axis=1, keepdims=True)
        told = self.error <= _HALF * np.sqrt((centre**2).mean(axis=1))
        told[0] = False  # where all runs begin there is nothing to tell
        last = np.flatnonzero(told)
        found = np.zeros(len(told), dtype=bool)
        found[: last[-1] + 1 if len(last) else 0] = True
        return found & np.isfinite(self.centre).all(axis=1)


def combined(
    levels: Float[np.ndarray, " l"],
    linear: Float[np.ndarray, "l g"] | None,
    linear_error: Float[np.ndarray, " l"],
    runs: Float[np.ndarray, "r l g"],
) -> ProgressBand:
    r"""A run's own linear run and rehearsals, each weighted by one over its squared error.

    With two rehearsals or more it is known by how much s runs with other seeds are apart, and what is foretold is a run
    of any seed: the own run is one draw of several, so its error is $\sqrt{e^2 + s^2}$ with e that of its linear run.
    Else it is the run that was begun. Below the last level of the rehearsals the linear run goes on alone from where
    the mixture was.

    Args:
        levels: Mean losses.
        linear: Groups of the linear run; None or NaN where there is none.
        linear_error: What it is off by, e, from `growth`.
        runs: Groups of the rehearsals. The spread s between them is smoothed by the law $a\,d + k\,d^2$ of the fall d;
            one more run is off the mixture by s besides the mixture's own error.
    """
    centre, count = mean_run(runs)
    spread = _smooth(spread_of_seeds(runs), levels[0] - levels) if len(runs) > 1 else np.zeros(len(levels))
    spread = np.where(np.isfinite(spread), spread, 0.0)
    of_runs = np.where((count > 0) & (spread > 0), count / np.where(spread > 0, spread, 1.0) ** 2, 0.0)
    if linear is None:
        linear = np.full(centre.shape, math.nan)
    there = np.isfinite(linear).all(axis=1) & np.isfinite(linear_error)
    own = np.where(there, linear_error, 1.0) ** 2 + spread**2
    of_linear = np.where(there, 1 / np.maximum(own, 1e-18), 0.0)
    only = (of_runs == 0) & (of_linear == 0)
    whole = np.where(only, 1.0, of_runs + of_linear)
    share = np.where(only, np.where(np.isfinite(linear).all(axis=1) & (count == 0), 1.0, 0.0), of_linear / whole)
    mixed = np.where(share[:, None] > 0, share[:, None] * linear, 0.0)
    mixed = mixed + np.where(share[:, None] < 1, (1 - share[:, None]) * centre, 0.0)
    error = np.where(only, math.nan, np.sqrt(1 / whole + spread**2))
    error[0] = 0.0 if math.isnan(error[0]) else error[0]
    rehearsed = np.flatnonzero(count > 0)
    if len(rehearsed) and there[rehearsed[-1]]:
        last = rehearsed[-1]
        alone = np.flatnonzero(there & (np.arange(len(levels)) > last))
        mixed[alone] = linear[alone] + (mixed[last] - linear[last])
        share[alone] = 1.0
    return ProgressBand(
        levels=levels,
        centre=mixed,
        error=error,
        scale=scale_of_groups(runs),
        linear=share,
        freedom=max(len(runs) - 1, 1) * max((centre.shape[1] - 1) / 2, 1.0),
    )


def scale_of_groups(runs: Float[np.ndarray, "r l g"]) -> Float[np.ndarray, " g"]:
    """How much further apart runs are in each group than in all: some groups are a matter of luck more than others.

    A few runs hardly say it, so each group's variance is drawn to that of all, as if four more runs had said that.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> runs = rng.normal(size=(20, 5, 3)) * np.array([1.0, 1.0, 3.0])
        >>> scale_of_groups(runs).round(1).tolist()
        [0.7, 0.6, 1.5]
    """
    groups = runs.shape[2]
    there = np.isfinite(runs).all(axis=(0, 2)) if len(runs) > 1 else np.zeros(0, dtype=bool)
    if not there.any():
        return np.ones(groups)
    variance = runs[:, there].var(axis=0, ddof=1)
    whole = variance.mean(axis=1, keepdims=True)
    known = whole[:, 0] > 0
    if not known.any():
        return np.ones(groups)
    own = (variance[known] / whole[known]).mean(axis=0)
    return np.sqrt((_DRAWN + (len(runs) - 1) * own) / (_DRAWN + len(runs) - 1))


def _smooth(spread: Float[np.ndarray, " l"], fallen: Float[np.ndarray, " l"]) -> Float[np.ndarray, " l"]:
    """The spread by `growth`, since that of a few runs at one level is hardly known."""
    first, second = growth(spread[:, None], fallen)
    return first * fallen + second * fallen**2


# the order of groups, and how much of it is luck ---------------------------------------------------------------------


def before(
    band: ProgressBand, held_out_error: Float[np.ndarray, " g"], *, seed: int, draws: int = 2000
) -> Float[np.ndarray, "g g"]:
    """Share of runs in which the row's group is learned before the column's.

    A group is learned before another where its mean loss over the vouched levels is lower. A run differs from the
    centre by what seeds, the linearisation and other held-out units would change: a draw per group, in proportion to
    the errors.

    Args:
        band: From `combined`.
        held_out_error: Standard error of each group's mean loss over its held-out units, at the horizon.
        seed: Of the draws.
        draws: Runs.
    """
    use = band.vouched
    groups = band.centre.shape[1]
    if not use.any():
        return np.full((groups, groups), math.nan)
    area = band.centre[use].mean(axis=0)
    error = float(np.nanmean(band.error[use]))
    rng = stream(seed, "forecast", "order")
    luck = error * band.scale * rng.standard_t(band.freedom, size=(draws, groups))
    sampled = np.nan_to_num(held_out_error) * rng.standard_normal((draws, groups))
    drawn = area + luck + sampled
    return (drawn[:, :, None] < drawn[:, None, :]).mean(axis=0)


def tiers(area: Float[np.ndarray, " g"], shares: Float[np.ndarray, "g g"]) -> list[list[int]]:
    """Groups from the first learned to the last; those of a tier are not told apart from the tier's first.

    Example:
        >>> shares = np.array([[0.0, 0.7, 0.99], [0.3, 0.0, 0.96], [0.01, 0.04, 0.0]])
        >>> tiers(np.array([0.1, 0.2, 0.6]), shares)
        [[0, 1], [2]]
    """
    found: list[list[int]] = []
    for group in np.argsort(area, kind="stable").tolist():
        if found and not shares[found[-1][0], group] >= TOLD:
            found[-1].append(group)
        else:
            found.append([group])
    return found


# watching a run ------------------------------------------------------------------------------------------------------


def alarm_limit(groups: int, freedom: float, *, false_alarms: float = 0.02) -> float:
    """How many errors off a group must be, twice running, to be told.

    One run in fifty has such a group by chance where all groups are a matter of luck alike; in simulations one in
    twenty where the luck of some is four times that of others.

    Example:
        >>> round(alarm_limit(8, 10.0), 2)
        4.0
    """
    return float(student.ppf(1 - false_alarms / (2 * groups), freedom))


def out_of_band(
    band: ProgressBand, reached: Float[np.ndarray, " s"], loss: Float[np.ndarray, "s g"]
) -> Bool[np.ndarray, "s g"]:
    """At which records a group has left its band: beyond `alarm_limit` at this one and at the one before.

    Only records past a tenth of the vouched fall are looked at: before, all is within the rounding of few records.

    Args:
        band: What was foretold.
        reached: Progress at each record.
        loss: Groups at each record.
    """
    use = band.vouched
    fall = band.levels[0] - band.levels[use]
    new = np.r_[False, np.diff(reached) < 0] & (band.levels[0] - reached > _EARLY * fall.max(initial=0.0))
    far = np.zeros(loss.shape, dtype=bool)
    if use.sum() < 2:
        return far
    centre = at_levels(band.levels[use], band.centre[use], reached)
    error = at_levels(band.levels[use], band.errors[use], reached)
    limit = alarm_limit(loss.shape[1], band.freedom)
    with np.errstate(invalid="ignore"):
        far = (np.abs(loss - centre) > limit * error) & new[:, None]
    places = np.flatnonzero(new)
    told = np.zeros_like(far)
    told[places[1:]] = far[places[1:]] & far[places[:-1]]
    return told
