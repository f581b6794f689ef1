"""Chosen and rejected responses apart: which groups' chosen responses a run will make less likely (displacement).

Margins are differences, from which the normaliser of a softmax cancels; in log-probabilities it stays, and it bends
where a linear network does not. That is much the same for all groups, so how groups differ is told better than where
they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import chi2

from prefdyn.dynamics.progress import ProgressBand
from prefdyn.maths.units import Z95
from prefdyn.training.rehearse import RunPart, run_at

_DRAWN = 4.0
"""Each group's variance between seeds is drawn to that of all, as if so many more runs had said that."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sides:
    """How far log-probabilities will have moved since the reference at each level of progress, nats."""

    levels: Float[np.ndarray, " l"]
    at: int
    """Place of the lowest level that is vouched for: what is said is said of it."""
    chosen: Float[np.ndarray, "l g"]
    """Mean over a group's held-out pairs of the change of the chosen response's log-probability."""
    rejected: Float[np.ndarray, "l g"]
    error: Float[np.ndarray, "l g"]
    """Standard error of the chosen one, over held-out units and seeds; NaN under two rehearsals."""
    error_apart: Float[np.ndarray, "l g"]
    """The same of its distance from the median over groups."""

    @property
    def falls(self) -> Bool[np.ndarray, " g"]:
        """Where the chosen response becomes less likely by more than seeds and held-out units explain (2.5 %)."""
        return self.chosen[self.at] + Z95 * self.error[self.at] < 0

    @property
    def behind(self) -> Bool[np.ndarray, " g"]:
        """Where it fares worse than the median over groups by more than that."""
        chosen = self.chosen[self.at]
        return chosen - np.median(chosen) + Z95 * self.error_apart[self.at] < 0

    @classmethod
    def of(
        cls,
        band: ProgressBand,
        values: Mapping[str, Float[np.ndarray, "l g"]],
        rehearsals: Sequence[RunPart],
        own: RunPart,
    ) -> "Sides | None":
        """From what a forecast is made of; None where nothing is vouched for.

        Args:
            band: Of the losses.
            values: `chosen_change` and `rejected_change` at its levels.
            rehearsals: Runs with other seeds.
            own: The run's own first steps with its linear run, or its probe alone.
        """
        told, levels = np.flatnonzero(band.vouched), band.levels
        if len(told) < 2:
            return None
        of_units = _mean([run_at(run, levels, "chosen_error") for run in (*rehearsals, own)])
        runs = np.stack(
            [run_at(run, levels, "chosen_change") for run in rehearsals] or [np.full(of_units.shape, np.nan)]
        )
        errors = [
            np.sqrt(
                of_units**2 + 2 * _between(each, levels[0] - levels)
            )  # twice at most: what is foretold has a luck of its own
            for each in (runs, runs - np.median(runs, axis=2, keepdims=True))
        ]
        return cls(
            levels=levels, at=int(told[-1]), chosen=values["chosen_change"], rejected=values["rejected_change"],
            error=errors[0], error_apart=errors[1],
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """What summary.json says of it."""
        return {
            "level": self.levels[self.at], "chosen": self.chosen, "rejected": self.rejected, "error": self.error,
            "error_apart": self.error_apart, "falls": self.falls.astype(int), "behind": self.behind.astype(int),
        }  # fmt: skip


def _between(runs: Float[np.ndarray, "r l g"], fall: Float[np.ndarray, " l"]) -> Float[np.ndarray, "l g"]:
    """Variance between seeds of each group, drawn to the median over groups; NaN under two runs.

    The median, as the few groups whose answers are hardly ever said move by much more than the others. Below the last
    level that all runs reach the standard deviation is taken to grow as the fall does.
    """
    if len(runs) < 2:
        return np.full(runs.shape[1:], np.nan)
    free = len(runs) - 1
    own = runs.var(axis=0, ddof=1)
    typical = np.median(own, axis=1, keepdims=True) * free / chi2.ppf(0.5, free)
    found = (_DRAWN * typical + free * own) / (_DRAWN + free)
    known = np.flatnonzero(np.isfinite(found).all(axis=1) & (fall > 0))
    if len(known):
        last = known[-1]
        found[last + 1 :] = found[last] * ((fall[last + 1 :] / fall[last]) ** 2)[:, None]
    return found


def _mean(found: list[np.ndarray]) -> np.ndarray:
    """Mean of what is known; NaN where nothing is."""
    values = np.stack(found)
    known = np.isfinite(values)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
