"""How good a forecast was: a run that was made, held against what was foretold of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from prefdyn._csv import write_csv
from prefdyn._json import SCHEMA_VERSION, number, plain, write_json
from prefdyn.dynamics.foretold import Foretold
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.progress import apart, at_levels, out_of_band, progress
from prefdyn.errors import DataError
from prefdyn.provenance import versions
from prefdyn.trajectory import Trajectory

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the vouched fall that tables show, and at which errors are told as far as a run went."""
_SETTINGS = (
    "tune", "objective", "beta", "learning_rate", "optimizer", "schedule", "batch_size", "steps", "lora_rank", "seed",
    "flip",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForecastCheck:
    """A forecast and a run of it. `rows()` for tables, `write(folder)` for files."""

    foretold: Foretold
    folders: tuple[str, str]
    steps: np.ndarray
    loss: Float[np.ndarray, "s g"]
    """Held-out losses of the run's groups, in the forecast's order."""
    notes: tuple[str, ...]

    @property
    def run(self) -> Float[np.ndarray, "l g"]:
        """The run at each level; NaN where it never was."""
        return at_levels(progress(self.loss), self.loss, self.foretold.band.levels)

    @property
    def compared(self) -> np.ndarray:
        """Places of the levels that are vouched for and that the run reached, the start left out."""
        use = self.foretold.band.vouched & np.isfinite(self.run).all(axis=1)
        use[0] = False
        return np.flatnonzero(use)

    def at_shares(self) -> list[dict[str, float]]:
        """Errors at `SHARES` of the compared fall: of the forecast, and of taking all groups to be equal."""
        places, band, run = self.compared, self.foretold.band, self.run
        found = []
        for share in SHARES if len(places) else ():
            at = places[max(0, round(share * len(places)) - 1)]
            equal = np.abs(run[at] - run[at].mean()).mean()
            found.append(
                {
                    "share": share,
                    "level": float(band.levels[at]),
                    "error": float(apart(band.centre[at : at + 1], run[at : at + 1])[0]),
                    "worst": float(np.abs(band.centre[at] - run[at]).max()),
                    "all_equal": float(equal),
                    "rank_correlation": _correlation(band.centre[at], run[at]),
                    "inside": float((np.abs(band.centre[at] - run[at]) <= band.half_width[at]).mean()),
                }
            )
        return found

    def clock(self) -> dict[str, float] | None:
        """Foretold and real step at the last compared level that the clock knows; None where there is none."""
        known = self.compared[np.isfinite(self.foretold.clock[0, self.compared])]
        if not len(known):
            return None
        at = int(known[-1])
        levels = self.foretold.band.levels
        real = at_levels(progress(self.loss), self.steps.astype(float), levels[at : at + 1])[0]
        step, low, high = self.foretold.clock[:, at]
        return {
            "level": float(levels[at]),
            "step": float(step),
            "low": float(low),
            "high": float(high),
            "real": float(real),
        }

    def says(self) -> str:
        """How good the forecast was, in a sentence."""
        shares, clock = self.at_shares(), self.clock()
        if not shares:
            return "The run reached no level that the forecast vouches for, so nothing is compared."
        half, last = shares[1], shares[-1]
        inside = round(last["inside"] * len(self.foretold.names))
        when = "and no step was foretold for it"
        if clock is not None:
            interval = "" if np.isnan(clock["low"]) else f" ({clock['low']:.0f} to {clock['high']:.0f})"
            when = (
                f"and a mean of {clock['level']:.4g} was foretold for step {clock['step']:.0f}{interval} and came at "
                f"step {clock['real']:.0f}"
            )
        return (
            f"By progress, group losses are off by {half['error']:.2g} nats half way and {last['error']:.2g} at the "
            f"end of what is compared, where taking all groups to be equal is off by {half['all_equal']:.2g} and "
            f"{last['all_equal']:.2g}; the order of groups agrees to a rank correlation of "
            f"{half['rank_correlation']:.2f} and {last['rank_correlation']:.2f}, {inside} of "
            f"{len(self.foretold.names)} groups are inside their 90 % bands, {when}."
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group at the last compared level, the lowest foretold loss first."""
        places, band, run = self.compared, self.foretold.band, self.run
        left = out_of_band(band, progress(self.loss), self.loss)
        found = []
        for code, name in enumerate(self.foretold.names):
            row: dict[str, Any] = {"name": name}
            if len(places):
                at, half = int(places[-1]), band.half_width[:, code]
                row |= {"foretold": band.centre[at, code], "low": band.centre[at, code] - half[at]}
                row |= {"high": band.centre[at, code] + half[at], "run": run[at, code]}
                row["mean_error"] = float(np.abs(band.centre[places, code] - run[places, code]).mean())
            first = np.flatnonzero(left[:, code])
            row["left_band_at_step"] = int(self.steps[first[0]]) if len(first) else None
            found.append(plain(row))
        return sorted(found, key=lambda row: number(row.get("foretold")))

    def summary(self) -> dict[str, Any]:
        """The content of summary.json: the forecast's own, with the run beside it."""
        told = self.foretold.summary
        part = dict(told["forecast"])
        part["curves"] = {**(part.get("curves") or {}), "run": self.run}
        origin = {**(told.get("provenance") or {}), "versions": versions()}
        levels = self.foretold.band.levels
        clock = at_levels(progress(self.loss), self.steps.astype(float), levels)
        return plain(
            {
                "schema": SCHEMA_VERSION,
                "command": "compare",
                "provenance": origin,
                "dataset": told.get("dataset"),
                "model": told.get("model"),
                "features": {},
                "settings": told.get("settings"),
                "groups": self.rows(),
                "forecast": {**part, "says": self.says()},
                "forecast_check": {
                    "folders": list(self.folders),
                    "shares": self.at_shares(),
                    "clock": self.clock(),
                    "run_steps": clock,
                },
                "bounds": [],
                "warnings": list(self.notes),
                "timings": {},
            }
        )

    def write(self, folder: Path) -> None:
        """Write summary.json and groups.csv into an existing folder."""
        write_json(folder / "summary.json", self.summary())
        write_csv(pa.Table.from_pylist(self.rows()), folder / "groups.csv")


def check_forecast(
    summary: Mapping[str, Any], run: Trajectory, *, folders: Sequence[str] = ("forecast", "run")
) -> ForecastCheck:
    """Hold a run against a forecast.

    Args:
        summary: The content of the forecast's summary.json.
        run: What was made.
        folders: Where the two were read from.

    Raises:
        DataError: The summary is of no forecast, or the run measured not all of its groups on held-out pairs.
    """
    foretold = Foretold.read(summary)
    curves, measured = [], set()
    for name in foretold.names:
        cell = run.cell(run="joint", group=name, split="held_out")
        if not cell.num_rows:
            raise DataError(f"the run has no held-out pairs of group {name!r}, of which the forecast is")
        curves.append(run.curve("loss", group=name, split="held_out"))
        measured.add((name, cell["pairs"][0].as_py()))
    steps = curves[0][0]
    if any(len(each) != len(steps) or (each != steps).any() for each, _ in curves):
        raise DataError("the run did not measure all groups at the same steps, so it has no mean loss to go by")
    return ForecastCheck(
        foretold=foretold,
        folders=(str(folders[0]), str(folders[1])),
        steps=steps,
        loss=np.stack([values for _, values in curves], axis=1),
        notes=tuple(_notes(foretold, run, measured)),
    )


def _notes(foretold: Foretold, run: Trajectory, measured: set[tuple[str, int]]) -> list[str]:
    told, found = foretold.summary, []
    for part, word in (("data", "pairs"), ("model", "model")):
        one, other = ((told.get("provenance") or {}).get(part) or {}).get("sha256"), getattr(run.provenance, part)
        if None not in (one, other.get("sha256")) and one != other.get("sha256"):
            found.append(f"The run has not the {word} of the forecast ({other.get('name')}).")
    settings = told.get("settings") or {}
    other = [
        f"{name} {settings[name]} foretold, {run.settings[name]} made" for name in _SETTINGS
        if name in settings and name in run.settings and settings[name] != run.settings[name]
    ]  # fmt: skip
    if other:
        found.append(f"The run has not the settings of the forecast: {'; '.join(other)}.")
    here = {(str(row.get("name")), row.get("held_out_pairs")) for row in told.get("groups") or []}
    if any(each not in here for each in measured):
        found.append(
            "The run measured other held-out pairs than the forecast looked at, which alone moves group losses; give "
            "both the same --probe-pairs."
        )
    return found


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return spearman(first, second)
