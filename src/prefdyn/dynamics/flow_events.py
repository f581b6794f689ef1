"""When something happens in a continuous run: a pair flips, a group reaches a loss or a margin."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from prefdyn._checks import nearest, one_of
from prefdyn.dynamics.problem import Pairs
from prefdyn.errors import ConfigError

_NODES = 8
_PLACES = (1 - np.cos(np.pi * np.arange(_NODES) / (_NODES - 1))) / 2
_WEIGHTS = np.where(np.arange(_NODES) % (_NODES - 1) == 0, 0.5, 1.0) * (-1.0) ** np.arange(_NODES)
"""Chebyshev points of a step and their barycentric weights: eight fix the solver's interpolant, of degree 7."""

Margins = Callable[[Sequence[np.ndarray]], Float[np.ndarray, "n t"]]
"""Margins of all pairs at some values of the solver."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Numbers to be watched: of margins (n, t) they make (m, t) values, whose sign is what matters."""

    values: Callable[[Float[np.ndarray, "n t"]], Float[np.ndarray, "m t"]]
    linear: bool
    """Whether the values are linear in the margins, row by row, so that the interpolant gives them exactly."""
    rows: Callable[[int], dict[str, Any]]
    """What to say of the value in one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCrosses:
    """The times at which pairs come above a level, or fall back to it.

    Reward margins begin at 0, so at level 0 a pair that rises at once crosses at time 0.
    """

    quantity: Literal["policy", "reward"] = "policy"
    r"""`policy`: $\log\pi(w) - \log\pi(l)$, reference included, nats. `reward`: the margin, beta included."""
    level: float = 0.0

    def watches(self, pairs: Pairs, objective: Any) -> list[Watched]:
        """All pairs as one watch.

        Raises:
            ConfigError: The quantity is unknown, or the features carry no reference log-probabilities.
        """
        one_of(self.quantity, ("policy", "reward"), name="quantity")
        scale, shift = 1.0, np.zeros(len(pairs))
        if self.quantity == "policy":
            if pairs.ref_chosen is None or pairs.ref_rejected is None:
                raise ConfigError(
                    "the features carry no reference log-probabilities, so when the policy's preference flips cannot "
                    "be known; watch PairCrosses(quantity='reward')"
                )
            scale, shift = 1 / float(objective.beta), pairs.ref_chosen - pairs.ref_rejected

        def told(row: int) -> dict[str, Any]:
            return {
                "event": "pair",
                "quantity": self.quantity,
                "level": self.level,
                "group": pairs.groups[pairs.group[row]],
                "split": "held_out" if pairs.held_out[row] else "train",
                "pair": int(pairs.number[row]),
            }

        return [Watched(values=lambda r: scale * r + shift[:, None] - self.level, linear=True, rows=told)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReaches:
    """The times at which a group's mean loss or mean margin passes a level, in either direction."""

    quantity: Literal["loss", "margin"]
    """Mean over the group's pairs of the split; nats, or margins with beta."""
    level: float
    group: str | None = None
    """Name; None for every group."""
    split: Literal["train", "held_out"] = "train"

    def watches(self, pairs: Pairs, objective: Any) -> list[Watched]:
        """One watch per group that has pairs in the split.

        Raises:
            ConfigError: The quantity, split or group is unknown.
        """
        one_of(self.quantity, ("loss", "margin"), name="quantity")
        one_of(self.split, ("train", "held_out"), name="split")
        if self.group is not None and self.group not in pairs.groups:
            raise ConfigError(f"group {self.group!r} is unknown{nearest(self.group, pairs.groups)}")
        found = []
        for code, name in enumerate(pairs.groups):
            members = np.flatnonzero((pairs.group == code) & (pairs.held_out == (self.split == "held_out")))
            if len(members) and self.group in (None, name):
                found.append(self._watch(members, name, objective))
        return found

    def _watch(self, members: np.ndarray, name: str, objective: Any) -> Watched:
        def values(margins: np.ndarray) -> np.ndarray:
            part = margins[members]
            return np.mean(part if self.quantity == "margin" else objective.loss(part), axis=0)[None] - self.level

        row = {"event": "group", "quantity": self.quantity, "level": self.level, "group": name, "split": self.split}
        return Watched(values=values, linear=self.quantity == "margin", rows=lambda _: {**row, "pair": None})


Event = PairCrosses | GroupReaches


def crossings(watched: Sequence[Watched], piece: Any, margins: Margins) -> list[dict[str, Any]]:
    """What crossed its level within one step of the solver, to the accuracy of the step.

    Signs are compared at eight points of the step, so that a value that goes and comes back between is seen, unless
    both happen between two of them.

    Args:
        watched: What to look at.
        piece: The step's interpolant, with its ends `t_old` and `t`.
        margins: Margins of all pairs at values of the solver.

    Returns:
        Rows with `time` and `rising` (whether the value comes above its level).
    """
    times = piece.t_old + _PLACES * (piece.t - piece.t_old)
    times[-1] = piece.t
    seen, found = margins([piece(time) for time in times]), []
    for watch in watched:
        values = watch.values(seen)
        rows, gaps = np.nonzero((values[:, 1:] > 0) != (values[:, :-1] > 0))
        if watch.linear:
            places = _roots(values[rows], _PLACES[gaps], _PLACES[gaps + 1])
            at = piece.t_old + places * (piece.t - piece.t_old)
        else:
            at = [
                _root(watch, row, piece, margins, times[gap], times[gap + 1])
                for row, gap in zip(rows.tolist(), gaps.tolist(), strict=True)
            ]
        found += [
            {**watch.rows(row), "time": float(time), "rising": bool(values[row, gap + 1] > 0)}
            for row, gap, time in zip(rows.tolist(), gaps.tolist(), at, strict=True)
        ]
    return found


def _root(watch: Watched, row: int, piece: Any, margins: Margins, low: float, high: float) -> float:
    """Where one value that is no polynomial changes sign."""
    found: Any = brentq(lambda time: watch.values(margins([piece(time)]))[row, 0], low, high)
    return float(found)


def _roots(
    values: Float[np.ndarray, "m 8"], low: Float[np.ndarray, " m"], high: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Where each row's polynomial changes sign between its ends, by halving."""
    above = _polynomial(values, high) > 0
    for _ in range(52):
        middle = (low + high) / 2
        upper = (_polynomial(values, middle) > 0) == above
        low, high = np.where(upper, low, middle), np.where(upper, middle, high)
    return high


def _polynomial(values: Float[np.ndarray, "m 8"], at: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """The polynomial through each row's values at the Chebyshev points, each at its own place (barycentric form)."""
    gaps = at[:, None] - _PLACES
    met = gaps == 0
    terms = _WEIGHTS / np.where(met, 1.0, gaps)
    found = np.sum(terms * values, axis=1) / np.sum(terms, axis=1)
    return np.where(met.any(axis=1), values[np.arange(len(at)), met.argmax(axis=1)], found)
