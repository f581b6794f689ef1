r"""Curves of two runs over the steps that both cover, how far apart they are, and how much faster one run is.

Between the steps that a run recorded, its curve is the straight line; the difference of two such curves is integrated
exactly, so no figure depends on how densely a run was recorded. One run may simply be slower than another, which one
factor f for all groups takes out,

$$ f = \arg\min_f \frac{\sum_g \int (\ell^1_g(s) - \ell^2_g(f s))^2 \, ds}
                       {\sum_g \int (\ell^1_g(s) - \ell^1_g(0))^2 + (\ell^2_g(f s) - \ell^2_g(0))^2 \, ds}, $$

over the steps s that both cover once rescaled. The denominator, how far the losses move there, puts factors on one
scale that leave different stretches of the runs to compare.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from prefdyn._checks import one_of
from prefdyn.trajectory import SCHEMA, Trajectory

_PER_DECADE = 40
"""Grid points of the factor per power of ten, before it is refined between two of them."""
_LEAST = 3
"""Recorded steps of each run that a factor must leave to compare."""
_STILL = 1e-12
"""A curve that moves by less has not moved."""
_KEYS = ("run", "group", "split", "step", "time", "pairs")


class Curve(NamedTuple):
    """Steps, ascending, and finite values."""

    steps: Float[np.ndarray, " s"]
    values: Float[np.ndarray, "*groups s"]
    """Of one group, or of several that were recorded at the same steps."""

    def first_at_most(self, limit: float) -> float:
        """The first step at which the curve of one group is at most this; NaN if never.

        Example:
            >>> Curve(np.array([0.0, 2.0, 4.0]), np.array([1.0, 0.75, 0.5])).first_at_most(0.625)
            3.0
        """
        reached = np.flatnonzero(self.values <= limit)
        if not len(reached):
            return math.nan
        place = int(reached[0])
        if place == 0:
            return float(self.steps[0])
        before, after = self.values[place - 1], self.values[place]
        share = (before - limit) / (before - after)
        return float(self.steps[place - 1] + share * (self.steps[place] - self.steps[place - 1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One group and split of one joint run."""

    pairs: int
    steps: Float[np.ndarray, " s"]
    columns: Mapping[str, Float[np.ndarray, " s"]]
    """Quantity → value at each step; NaN where it was not measured."""

    def curve(self, quantity: str) -> Curve:
        """Where the quantity is a finite number."""
        values = self.columns[one_of(quantity, tuple(self.columns), name="quantity")]
        known = np.isfinite(values)
        return Curve(self.steps[known], values[known])

    def first(self, quantity: str) -> float:
        """The first finite value; NaN if none."""
        values = self.curve(quantity).values
        return float(values[0]) if len(values) else math.nan

    def last(self, quantity: str) -> float:
        """The last finite value; NaN if none."""
        values = self.curve(quantity).values
        return float(values[-1]) if len(values) else math.nan

    def lost(self, quantity: str) -> int:
        """Steps at which the quantity is no finite number, where it is at others."""
        known = np.isfinite(self.columns[quantity])
        return int((~known).sum()) if known.any() else 0


def cells(run: Trajectory) -> dict[tuple[str, str], Cell]:
    """Every group and split of the joint run, in order of appearance."""
    rows = run.where(run="joint")
    inside: dict[tuple[str, str], list[int]] = {}
    for place, key in enumerate(zip(rows["group"].to_pylist(), rows["split"].to_pylist(), strict=True)):
        inside.setdefault(key, []).append(place)
    names = [entry.name for entry in SCHEMA if entry.name not in _KEYS]
    columns = {name: np.asarray(rows[name].to_numpy(zero_copy_only=False), dtype=np.float64) for name in names}
    steps, pairs = rows["step"].to_numpy().astype(np.float64), rows["pairs"].to_pylist()
    return {
        key: Cell(
            pairs=int(pairs[own[-1]] or 0),
            steps=steps[own],
            columns={name: values[own] for name, values in columns.items()},
        )
        for key, own in inside.items()
    }


# apart --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveError:
    """How far the second run's curve is from the first's, root mean square over the steps that both cover."""

    rms: float
    """In the units of the curve; NaN where they cover no step in common."""
    relative: float
    """Over how far the first run's curve goes from its start, at most, in those steps; NaN where it stands still."""


def on_common_steps(first: Curve, second: Curve, factor: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both curves at every step that either recorded, within what both cover, and at the ends of that.

    Args:
        first: Curve of the first run.
        second: Of the second, which at step `factor` × s is where the first is at s.
        factor: Above 0; NaN: there is none.

    Returns:
        Steps of the first run, its values, the second's. Empty where they cover less than a stretch in common.

    Example:
        >>> one = Curve(np.array([0.0, 4.0]), np.array([1.0, 0.0]))
        >>> two = Curve(np.array([0.0, 2.0]), np.array([1.0, 0.0]))
        >>> [each.tolist() for each in on_common_steps(one, two)]
        [[0.0, 2.0], [1.0, 0.5], [1.0, 0.0]]
        >>> [each.tolist() for each in on_common_steps(one, two, 0.5)]
        [[0.0, 4.0], [1.0, 0.0], [1.0, 0.0]]
    """
    nothing = (np.zeros(0), np.zeros(0), np.zeros(0))
    if math.isnan(factor) or not len(first.steps) or not len(second.steps):
        return nothing
    scaled = second.steps / factor
    low, high = max(first.steps[0], scaled[0]), min(first.steps[-1], scaled[-1])
    if high <= low:
        return nothing
    knots = np.union1d(first.steps, scaled)
    knots = np.union1d(knots[(knots > low) & (knots < high)], [low, high])
    return knots, _at(knots, first.steps, first.values), _at(knots, scaled, second.values)


def _at(knots: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values on the straight lines between steps; exactly the given ones at the steps themselves."""
    left = np.clip(np.searchsorted(steps, knots, side="right") - 1, 0, max(len(steps) - 2, 0))
    share = (knots - steps[left]) / (steps[left + 1] - steps[left])
    return values[..., left] * (1 - share) + values[..., left + 1] * share


def mean_square(steps: Float[np.ndarray, " s"], values: Float[np.ndarray, "*groups s"]) -> Any:
    """Mean over the steps of the square of a curve of straight lines, exactly; of each group, for several.

    Example:
        >>> float(mean_square(np.array([0.0, 3.0]), np.array([-1.0, 2.0])))
        1.0
    """
    left, right = values[..., :-1], values[..., 1:]
    return (left**2 + left * right + right**2) @ np.diff(steps) / 3 / (steps[-1] - steps[0])


def curve_error(pairs: Sequence[tuple[Curve, Curve]], factor: float = 1.0) -> CurveError:
    """The error over one or several groups together, each of which counts the same.

    Args:
        pairs: The two runs' curves of each group.
        factor: See `on_common_steps`.
    """
    squares, moves = [], []
    for first, second in pairs:
        steps, one, other = on_common_steps(first, second, factor)
        if len(steps):
            squares.append(float(mean_square(steps, one - other)))
            moves.append(float(np.abs(one - one[0]).max()) ** 2)
    rms = math.sqrt(np.mean(squares)) if squares else math.nan
    moved = math.sqrt(np.mean(moves)) if moves else math.nan
    return CurveError(rms=rms, relative=rms / moved if moved > _STILL else math.nan)


# pace ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescaling:
    """The one factor that brings the second run's time closest to the first's."""

    factor: float = math.nan
    """The second run is at step `factor` × s where the first is at s: above 1, the second is slower. NaN: none."""
    at_edge: bool = False
    """The best factor is an end of those tried: the true one may lie beyond, or there is none."""
    tried: tuple[float, float] = (math.nan, math.nan)
    """Ends of the grid: beyond, under three recorded steps of one of the runs would be compared."""
    misfit: float = math.nan
    """What the best factor leaves: mean square difference over mean square movement of both, 0 at best."""
    misfit_without: float = math.nan
    """The same at factor 1."""
    share_first: float = math.nan
    """Share of the first run's steps that is compared after rescaling."""
    share_second: float = math.nan
    because: str = ""
    """Why there is no factor; empty where there is one."""


def rescaling(pairs: Sequence[tuple[Curve, Curve]]) -> Rescaling:
    """The factor with the least misfit, on a logarithmic grid of 40 per power of ten, then refined between two points.

    Args:
        pairs: The two runs' losses of each group; those under three steps in one of the runs are not looked at.

    Example:
        >>> steps = np.arange(21.0)
        >>> found = rescaling([(Curve(steps, 1 - steps / 30), Curve(steps, 1 - steps / 60))])
        >>> round(found.factor, 6), found.at_edge, round(found.share_first, 6)
        (2.0, False, 0.5)
    """
    usable = [(one, other) for one, other in pairs if min(len(one.steps), len(other.steps)) >= _LEAST]
    if not usable:
        return Rescaling(because=f"no group was measured at {_LEAST} steps or more in both runs")
    still = [side for side in (0, 1) if all(np.ptp(curve[side].values) <= _STILL for curve in usable)]
    if still:
        which = "either run" if len(still) == 2 else f"the {('first', 'second')[still[0]]} run"
        return Rescaling(because=f"no loss moves in {which}")
    last = [min(float(curve[side].steps[-1]) for curve in usable) for side in (0, 1)]
    third = [max(float(curve[side].steps[_LEAST - 1]) for curve in usable) for side in (0, 1)]
    low, high = third[1] / last[0], last[1] / third[0]
    if low > high:
        return Rescaling(because=f"no factor leaves {_LEAST} recorded steps of both runs to compare")
    usable = _stacked(usable)
    places = np.arange(math.ceil(math.log10(low) * _PER_DECADE), math.floor(math.log10(high) * _PER_DECADE) + 1)
    logs = np.unique(np.concatenate([[math.log(low)], places * math.log(10) / _PER_DECADE, [math.log(high)]]))
    misfits = np.array([_misfit(usable, math.exp(log)) for log in logs])
    best = int(np.nanargmin(misfits))
    log, misfit = float(logs[best]), float(misfits[best])
    at_edge = best in (0, len(logs) - 1)
    if not at_edge and misfit > 0:
        ends = (float(logs[best - 1]), float(logs[best + 1]))
        finer: Any = minimize_scalar(lambda log: _misfit(usable, math.exp(log)), bounds=ends, method="bounded",
                                     options={"xatol": 1e-9})  # fmt: skip
        if finer.fun < misfit:
            log, misfit = float(finer.x), float(finer.fun)
    factor = math.exp(log)
    return Rescaling(
        factor=factor,
        at_edge=at_edge,
        tried=(low, high),
        misfit=misfit,
        misfit_without=_misfit(usable, 1.0),
        share_first=min(1.0, last[1] / factor / last[0]),
        share_second=min(1.0, last[0] * factor / last[1]),
    )


def _stacked(pairs: Sequence[tuple[Curve, Curve]]) -> list[tuple[Curve, Curve]]:
    """Groups that were recorded at the same steps taken together, so that they are worked through at once."""
    alike: dict[tuple[bytes, bytes], list[tuple[Curve, Curve]]] = {}
    for pair in pairs:
        alike.setdefault((pair[0].steps.tobytes(), pair[1].steps.tobytes()), []).append(pair)

    def stack(curves: Sequence[Curve]) -> Curve:
        return Curve(curves[0].steps, np.stack([curve.values for curve in curves]))

    return [(stack([one for one, _ in some]), stack([other for _, other in some])) for some in alike.values()]


def _misfit(pairs: Sequence[tuple[Curve, Curve]], factor: float) -> float:
    """Mean square difference over mean square movement of both runs, over all groups; NaN where nothing moves."""
    apart = moved = 0.0
    for first, second in pairs:
        steps, one, other = on_common_steps(first, second, factor)
        if len(steps):
            apart += float(np.sum(mean_square(steps, one - other)))
            for values in (one, other):
                moved += float(np.sum(mean_square(steps, values - values[..., :1])))
    return apart / moved if moved > _STILL**2 else math.nan
