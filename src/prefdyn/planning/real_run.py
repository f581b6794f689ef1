"""What a forecast of the real run says beside the verdicts of the head: order, and what is still open at its end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from prefdyn._json import number, plain
from prefdyn.dynamics.foretold import Foretold
from prefdyn.dynamics.order import RankCorrelation, places, rank_correlation
from prefdyn.errors import ConfigError
from prefdyn.planning.answers import named


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RealRun:
    """A forecast of the run that will be made, beside the order in which the head learns its groups."""

    foretold: Foretold
    folder: str
    verdicts: Sequence[str]
    """Of the head, for each group of the forecast."""
    head: Float[np.ndarray, " g"]
    """Area under the held-out loss of the head's run, for each group of the forecast; NaN where it is not known."""
    correlation: RankCorrelation
    """Of the two orders."""

    @classmethod
    def of(cls, foretold: Foretold, folder: str, areas: Mapping[str, float], verdicts: Mapping[str, str]) -> "RealRun":
        """Put the two side by side.

        Args:
            foretold: The forecast.
            folder: Where it was read from.
            areas: Area under the held-out loss of the head's run, by group.
            verdicts: By group.
        """
        head = np.array([areas.get(name, math.nan) for name in foretold.names])
        return cls(
            foretold=foretold,
            folder=folder,
            verdicts=tuple(verdicts.get(name, "") for name in foretold.names),
            head=head,
            correlation=rank_correlation(head, foretold.band.area),
        )

    @property
    def end(self) -> int | None:
        """Place of the lowest mean loss that is vouched for and that the clock has within the run; None: of none."""
        planned = number((self.foretold.summary.get("settings") or {}).get("steps"))
        step = self.foretold.clock[0]
        within = ~(step > planned)  # a step that is not known rules nothing out
        known = np.flatnonzero(self.foretold.band.vouched & within)
        return int(known[-1]) if len(known) and known[-1] > 0 else None

    @property
    def open(self) -> list[str]:
        """Groups whose band at the end still holds the loss that they began with."""
        return [row["name"] for row in self.rows() if row["open"]]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per group, in the order of the forecast."""
        band, at = self.foretold.band, self.end
        began = {str(row.get("name")): row.get("start_loss") for row in self.foretold.summary.get("groups") or []}
        of_head, of_run = (np.where(np.isfinite(each), places(each), math.nan) for each in (self.head, band.area))
        found = []
        for code in np.argsort(band.area, kind="stable").tolist():
            name = self.foretold.names[code]
            row: dict[str, Any] = {"name": name, "verdict": self.verdicts[code]}
            row |= {"head_rank": of_head[code], "run_rank": of_run[code], "start_loss": number(began.get(name))}
            loss = high = math.nan
            if at is not None:
                loss, half = float(band.centre[at, code]), float(band.half_width[at, code])
                high = loss + half
                row |= {"loss": loss, "low": loss - half, "high": high}
            row["open"] = None if math.isnan(high) or math.isnan(row["start_loss"]) else high >= row["start_loss"]
            found.append(plain(row))
        return found

    def says(self) -> str:
        """How far the head's order is that of the run, and which groups are still open, in two or three sentences."""
        settings = self.foretold.summary.get("settings") or {}
        tune = tune_name(settings.get("tune"))
        run = f"the {tune} run of {settings.get('steps')} steps that {self.folder} foretells"
        rank = self.correlation
        if math.isnan(rank.value):
            first = f"The head's order is not compared with that of {run}: {rank.because or 'no order is known'}."
        else:
            known = not math.isnan(rank.low)
            interval = f" (95 % interval {rank.low:.2f} to {rank.high:.2f})" if known else ""
            first = (
                f"The order in which the head learns {rank.groups} groups agrees with that of {run} to a rank "
                f"correlation of {rank.value:.2f}{interval}."
            )
            if known and rank.low <= 0:
                first += " So early, middle and late, which are of the head, may be otherwise in that run."
        return f"{first} {self._open_words()}"

    def _open_words(self) -> str:
        at = self.end
        if at is None:
            return "The forecast vouches for no loss of a group."
        where = f"At a mean held-out loss of {self.foretold.band.levels[at]:.3g}, the last that is vouched for,"
        names = self.open
        if not names:
            return f"{where} every group is foretold to be below the loss that it began with."
        verb = "is" if len(names) == 1 else "are"
        return f"{where} {named(names, 4)} {verb} still open: the 90 % band holds the loss at the start."

    def to_json(self) -> dict[str, Any]:
        """The part `real_run` of summary.json."""
        at, rank = self.end, self.correlation
        return plain(
            {
                "folder": self.folder,
                "says": self.says(),
                "level": None if at is None else float(self.foretold.band.levels[at]),
                "correlation": {
                    "spearman": rank.value, "low": rank.low, "high": rank.high, "p": rank.p_value,
                    "groups": rank.groups,
                },
                "rows": self.rows(),
            }
        )  # fmt: skip


def tune_name(tune: object) -> str:
    """A way to tune, as a sentence has it."""
    return {"lora": "LoRA"}.get(str(tune), str(tune))


def refuse_other_data(foretold: Foretold, folder: str, data: Mapping[str, Any]) -> None:
    """Refuse a forecast of other pairs.

    Args:
        foretold: The forecast.
        folder: Where it was read from.
        data: `name` and `sha256` of the pairs at hand.

    Raises:
        ConfigError: The fingerprints differ, or the forecast has none.
    """
    told = (foretold.summary.get("provenance") or {}).get("data") or {}
    theirs, ours = str(told.get("sha256") or "none"), str(data.get("sha256") or "none")
    if theirs != ours or ours == "none":
        raise ConfigError(
            f"the forecast in {folder} is of other pairs ({told.get('name')}, fingerprint {theirs[:12]}) than these "
            f"({data.get('name')}, {ours[:12]}); make it on the same data, with the same --limit and --seed"
        )
