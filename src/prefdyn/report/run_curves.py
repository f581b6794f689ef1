"""A joint run as the rules of its reading look at it, and words for its numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from prefdyn._json import number
from prefdyn.diagnostics.inference import wilson_interval
from prefdyn.dynamics.pace import Cell, Curve, cells
from prefdyn.report.text import visible
from prefdyn.trajectory import SCHEMA, Trajectory

_NAMED = 4
"""So many groups are named with their numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCurves:
    """One group of a joint run."""

    name: str
    train: Cell | None
    held_out: Cell | None
    tokens: float
    """Mean length of the chosen responses; NaN: not known."""

    @property
    def judge(self) -> Cell:
        """Held-out pairs where there are any, else those that were trained on."""
        return self.held_out or self.seen

    @property
    def which(self) -> str:
        """What `judge` is."""
        return "held-out" if self.held_out else "training"

    @property
    def seen(self) -> Cell:
        """Training pairs where they were measured."""
        found = self.train or self.held_out
        assert found is not None
        return found

    def moved(self, quantity: str) -> float:
        """From the first measured step to the last, on training pairs."""
        return self.seen.last(quantity) - self.seen.first(quantity)

    def distance(self, quantity: str) -> float:
        """How far the quantity goes from its first value at most, on training pairs; NaN under two measured steps."""
        values = self.seen.curve(quantity).values
        return float(np.abs(values - values[0]).max()) if len(values) > 1 else math.nan

    @property
    def falling(self) -> float:
        """Share of training pairs whose chosen response is less likely than under the reference, at the end."""
        return self.seen.last("chosen_falling")

    @property
    def log_ratio(self) -> float:
        """How far the log-ratio of chosen to rejected has moved, nats."""
        return self.moved("chosen_change") - self.moved("rejected_change")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCurves:
    """A joint run, as the rules look at it."""

    table: pa.Table
    groups: tuple[GroupCurves, ...]
    settings: Mapping[str, Any]
    updates: pa.Table | None
    answers: bool
    """Every response is one token."""

    @classmethod
    def of(
        cls, summary: Mapping[str, Any], trajectory: pa.Table, updates: pa.Table | None, pairs: pa.Table | None
    ) -> "RunCurves":
        """Read from the parts of an output folder."""
        table = trajectory.select(SCHEMA.names)
        found, lengths = cells(Trajectory(table=table, settings={})), _lengths(pairs)
        groups = tuple(
            GroupCurves(
                name=name,
                train=found.get((name, "train")),
                held_out=found.get((name, "held_out")),
                tokens=lengths.get(name, math.nan),
            )
            for name in dict.fromkeys(name for name, _ in found)
        )
        answers = (summary.get("features") or {}).get("kind") == "answers"
        return cls(table=table, groups=groups, settings=summary.get("settings") or {}, updates=updates, answers=answers)

    @property
    def beta(self) -> float:
        """NaN where it is not known."""
        return number(self.settings.get("beta"))

    @property
    def objective(self) -> str:
        """By TRL's name."""
        return str(self.settings.get("objective", "sigmoid"))

    @property
    def last(self) -> float:
        """The last step measured."""
        return max((float(group.seen.steps[-1]) for group in self.groups), default=0.0)


def _lengths(pairs: pa.Table | None) -> dict[str, float]:
    """Mean number of tokens of the chosen responses of each group."""
    if pairs is None or "chosen_tokens" not in pairs.schema.names:
        return {}
    found: dict[str, list[float]] = {}
    for name, tokens in zip(pairs["group"].to_pylist(), pairs["chosen_tokens"].to_pylist(), strict=True):
        if tokens is not None:
            found.setdefault(name, []).append(tokens)
    return {name: float(np.mean(values)) for name, values in found.items()}


# words --------------------------------------------------------------------------------------------------------------


Row = tuple[float, str, str]
"""A group with its numbers, and how far down the list it belongs: the least come first."""


def told(rows: Sequence[Row]) -> str:
    """Groups with their numbers, the worst few of them.

    Example:
        >>> told([(2.0, "b", "30 of 40"), (1.0, "a", "2 of 40")])
        'a (2 of 40); b (30 of 40)'
    """
    more = f"; and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return "; ".join(f"{visible(name)} ({text})" for _, name, text in sorted(rows)[:_NAMED]) + more


def names(rows: Sequence[Row]) -> tuple[str, ...]:
    """All groups of these rows, the worst first."""
    return tuple(name for _, name, _ in sorted(rows))


def shares(chosen: float, rejected: float) -> str:
    """A change of two log-probabilities as what both share and half of what is between them."""
    return f"{signed((chosen + rejected) / 2)} shared, {signed((chosen - rejected) / 2)} apart"


def counted(share: float, pairs: int) -> str:
    """A share of pairs as a count, with its 95 % interval.

    Example:
        >>> counted(0.8, 10)
        '8 of 10 (95 % interval 49 to 94 %)'
    """
    low, high = wilson_interval(share * pairs, pairs)
    return f"{share * pairs:.0f} of {pairs:,} (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"


def percent(share: float) -> str:
    """Three digits of a share, in per cent."""
    return "–" if math.isnan(share) else f"{100 * share:.3g} %"


def signed(value: float) -> str:
    """A change, with its sign."""
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def largest(values: np.ndarray) -> float:
    """The largest absolute value of those that are finite; 0 without any."""
    known = np.abs(values[np.isfinite(values)])
    return float(known.max()) if len(known) else 0.0


def since(curve: Curve, limit: float) -> float:
    """The first step from which on the curve stays below the limit."""
    above = np.flatnonzero(curve.values >= limit)
    return float(curve.steps[int(above[-1]) + 1]) if len(above) else float(curve.steps[0])
