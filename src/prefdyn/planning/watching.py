"""A run watched against its forecast: a line when a group leaves its band by progress, or the clock is off."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prefdyn.dynamics.progress import at_levels, out_of_band, progress
from prefdyn.planning.forecast_check import Foretold

_CAUSES = "labels turned round or missing in this group, another reference, or other data than foretold"
_PACE = "learning rate, schedule or batch size are others than foretold, or the clock was off, as it often is"


class Watch:
    """Told of every record of a run; tells, once each, of what is not as foretold."""

    def __init__(self, foretold: Foretold, tell: Callable[[str], None]) -> None:
        """Take a forecast, and whom to tell."""
        self.foretold, self.tell = foretold, tell
        self.steps: list[int] = []
        self.loss: list[list[float]] = []
        self.told: set[str] = set()

    def track(self, step: int, rows: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> None:
        """One record: its step and the run's rows, as `Loop` hands them to who asks."""
        found = {str(row["group"]): float(row["loss"]) for row in rows if row["split"] == "held_out"}
        lost = [name for name in self.foretold.names if name not in found]
        if lost:
            if "lost" not in self.told:
                self.told.add("lost")
                self.tell(
                    f"Watch: group {lost[0]!r} of the forecast has no held-out pairs in this run, so nothing is "
                    "watched; its data are missing, or named otherwise."
                )
            return
        self.steps.append(step)
        self.loss.append([found[name] for name in self.foretold.names])
        self._groups()
        self._clock()

    def _groups(self) -> None:
        loss, band = np.array(self.loss), self.foretold.band
        reached = progress(loss)
        out = out_of_band(band, reached, loss)[-1]
        for code in np.flatnonzero(out).tolist():
            name = self.foretold.names[code]
            if name in self.told:
                continue
            self.told.add(name)
            centre = at_levels(band.levels, band.centre[:, code], reached[-1:])[0]
            self.tell(
                f"Watch: after step {self.steps[-1]} group {name!r} is out of its band: held-out loss "
                f"{loss[-1, code]:.4g}, foretold {centre:.4g} where the mean is {reached[-1]:.4g}. Usual causes: "
                f"{_CAUSES}."
            )

    def _clock(self) -> None:
        loss, band = np.array(self.loss), self.foretold.band
        reached = progress(loss)[-1:]
        step, low, high = (at_levels(band.levels, each, reached)[0] for each in self.foretold.clock)
        if "clock" in self.told or not np.isfinite([low, high]).all() or low <= self.steps[-1] <= high:
            return
        if band.levels[0] - reached[0] < 0.25 * (band.levels[0] - band.levels[-1]):
            return
        self.told.add("clock")
        self.tell(
            f"Watch: the mean held-out loss is {reached[0]:.4g} after step {self.steps[-1]}, which was foretold for "
            f"step {step:.0f} ({low:.0f} to {high:.0f}): {_PACE}. Groups by progress are another question."
        )
