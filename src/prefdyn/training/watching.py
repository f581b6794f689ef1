"""A run watched against its forecast: a line when a group leaves its band by progress, or the clock is off."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefdyn.dynamics.foretold import Foretold
from prefdyn.dynamics.progress import at_levels, out_of_band, progress
from prefdyn.errors import ConfigError, StoreError
from prefdyn.store import read_json_file

_CAUSES = "labels turned round or missing in this group, another reference, or other data than foretold"
_PACE = "learning rate, schedule or batch size are others than foretold, or the clock was off, as it often is"


def foretold_in(folder: Path) -> Foretold:
    """What a forecast's folder says.

    Raises:
        ConfigError: `prefdyn forecast` did not write this folder.
        StoreError: Its summary.json cannot be read or is not whole.
    """
    source = folder / "summary.json"
    if not source.is_file():
        raise ConfigError(f"{folder} holds no summary.json; give a folder that `prefdyn forecast` wrote")
    summary = read_json_file(source, fix="make the forecast again")
    if not isinstance(summary, Mapping) or summary.get("command") != "forecast":
        raise ConfigError(f"{folder} is no folder that `prefdyn forecast` wrote")
    try:
        return Foretold.read(summary)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{source} is not whole ({error!r}); make the forecast again") from error


class Watch:
    """Told of every record of a run; tells, once each, of what is not as foretold."""

    def __init__(self, foretold: Foretold, tell: Callable[[str], None], *, seed: int | None = None) -> None:
        """Take a forecast, whom to tell, and the seed of the run; None: it draws its batches in another way."""
        own = seed is not None and seed == (foretold.summary.get("settings") or {}).get("seed")
        self.foretold, self.tell = foretold, tell
        if not own and not foretold.seeds:
            tell(
                "Watch: this run has other batches than the one foretold, and a forecast without two rehearsals does "
                "not know how far runs with other seeds are apart: its bands are too narrow here."
            )
        elif not self.foretold.band.vouched.any():
            tell("Watch: nothing that this forecast says of groups is sure enough to be watched; only the clock is.")
        self.steps: list[int] = []
        self.loss: list[list[float]] = []
        self.told: set[str] = set()
        """Of the run as a whole: lost, pairs, clock."""
        self.out: set[str] = set()
        """Groups that were told."""
        rows = foretold.summary.get("groups") or ()
        self.measured = {str(row.get("name")): row.get("held_out_pairs") for row in rows}
        """Held-out pairs of each group that the forecast looked at, where it says so."""

    def track(self, step: int, rows: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> None:
        """One record: its step and the run's rows, as `Loop` hands them to who asks."""
        held_out = {str(row["group"]): row for row in rows if row["split"] == "held_out"}
        found = {name: float(row["loss"]) for name, row in held_out.items()}
        lost = [name for name in self.foretold.names if name not in found]
        if lost:
            if "lost" not in self.told:
                self.told.add("lost")
                self.tell(
                    f"Watch: group {lost[0]!r} of the forecast has no held-out pairs in this run, so nothing is "
                    "watched; its data are missing, or named otherwise."
                )
            return
        self._same_pairs({name: row.get("pairs") for name, row in held_out.items()})
        self.steps.append(step)
        self.loss.append([found[name] for name in self.foretold.names])
        self._groups()
        self._clock()

    def _same_pairs(self, counts: Mapping[str, Any]) -> None:
        others = [
            name for name in self.foretold.names
            if None not in (counts[name], self.measured.get(name)) and counts[name] != self.measured[name]
        ]  # fmt: skip
        if others and "pairs" not in self.told:
            self.told.add("pairs")
            name = others[0]
            self.tell(
                f"Watch: group {name!r} has {counts[name]} held-out pairs here and {self.measured[name]} in the "
                "forecast; other pairs alone move group losses. Give both the same pairs (`--probe-pairs all`: all)."
            )

    def _groups(self) -> None:
        loss, band = np.array(self.loss), self.foretold.band
        reached = progress(loss)
        out = out_of_band(band, reached, loss)[-1]
        for code in np.flatnonzero(out).tolist():
            name = self.foretold.names[code]
            if name in self.out:
                continue
            self.out.add(name)
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
