"""Chosen and rejected responses apart, on the page of a forecast: which groups' chosen ones become less likely."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn._shape import of_many
from prefdyn.picture import Line, Picture, Plot
from prefdyn.report.tables import minus, number_rows
from prefdyn.report.text import visible

_FAR = 4.0
"""A group that moves so many times as far as the median one has an axis of its own."""
_CHOSEN, _REJECTED = "#2a78d6", "#d9691a"


def sides_words(part: Mapping[str, Any]) -> str | None:
    """How far both have moved, and where the chosen response fares worst; None where nothing is told of it."""
    found = part.get("sides")
    if not isinstance(found, Mapping):
        return None
    names, at = [visible(name) for name in part.get("names") or []], _place(part)
    chosen, rejected, error = (number_rows(found.get(key))[at] for key in ("chosen", "rejected", "error_apart"))
    falls, behind = (np.flatnonzero([number(each) > 0 for each in found.get(key) or []]) for key in ("falls", "behind"))
    mean, other = (minus(each.mean(), 2) for each in (chosen, rejected))
    said = (
        f"At a mean held-out loss of {minus(found.get('level'), 4)} log-probabilities of chosen responses have moved "
        f"by {mean} nats on average over groups, those of rejected ones by {other}."
    )
    if not np.isfinite(error).any():
        said += " Without two rehearsals it is not known what another seed would change."
    elif len(behind):
        most = behind[np.argmin(chosen[behind])]
        said += (
            f" Chosen responses fare worse than in the median group ({minus(np.median(chosen), 2)}) by more than seeds "
            f"and held-out pairs explain in {len(behind)} of {len(names)} groups, worst in {names[most]} "
            f"({minus(chosen[most], 2)})."
        )
    else:
        said += (
            " No group's chosen responses fare worse than the median group's by more than seeds and held-out pairs "
            "explain."
        )
    if len(falls):
        said += f" They become less likely in {of_many([names[code] for code in falls], 4)}."
    return f"{said} These are off by much the same in all groups: trust how groups differ before the numbers."


def sides_drawing(
    part: Mapping[str, Any], order: Sequence[int], fall: np.ndarray, label: str, across: int
) -> list[Picture]:
    """Chosen and rejected responses of each group by progress.

    Args:
        part: The forecast's part of summary.json.
        order: Groups that are drawn, the first learned first.
        fall: How far the mean has fallen at each level.
        label: What stands below that axis.
        across: Plots side by side.
    """
    found = part.get("sides")
    if not isinstance(found, Mapping):
        return []
    chosen, rejected = (number_rows(found.get(key)) for key in ("chosen", "rejected"))
    inside = np.arange(len(chosen)) <= _place(part)
    chosen, rejected = (np.where(inside[:, None], each, np.nan) for each in (chosen, rejected))
    both = np.stack([chosen, rejected])
    extent = np.nanmax(np.abs(both), axis=(0, 1))
    usual = [code for code in order if extent[code] <= _FAR * np.median(extent[list(order)])]
    plots = [
        Plot(
            title=visible(str((part.get("names") or [])[code])),
            x_label=label,
            y_label="" if place % across else "Change (nats)",
            y_range=_limits(both[:, :, usual if code in usual else [code]]),
            marks=(("", 0.0),),
            lines=(
                Line(label="chosen", x=fall, y=chosen[:, code], colour=_CHOSEN, width=1.9),
                Line(label="rejected", x=fall, y=rejected[:, code], colour=_REJECTED, width=1.9),
            ),
        )
        for place, code in enumerate(order)
    ]  # fmt: skip
    return [
        Picture(
            id="forecast-sides",
            title="Chosen and rejected apart",
            caption="How far the log-probabilities of chosen and rejected held-out responses will have moved since the "
            "reference, against how far the mean held-out loss has fallen, down to what is vouched for. A margin "
            "grows where both fall, too, as long as the rejected one falls further. Beyond what was really run both "
            "may be off, by much the same in all groups: how groups differ is told better. A group that moves by far "
            "more than the others has an axis of its own.",
            plots=tuple(plots),
            size=(2.15, 1.6),
            across=across,
        )
    ]


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = min(float(np.nanmin(values)), 0.0), max(float(np.nanmax(values)), 0.0)
    room = 0.06 * (high - low or 1.0)
    return low - room, high + room


def _place(part: Mapping[str, Any]) -> int:
    """Of the lowest level that is vouched for."""
    levels = np.array([number(each) for each in part.get("levels") or []])
    return int(np.nanargmin(np.abs(levels - number(part["sides"].get("level")))))


def sides_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, ...], int]]:
    """Columns of the table by group, where a forecast has them."""
    if not any("chosen_change_100" in row for row in rows):
        return []
    return [("Chosen by", ("chosen_change_100",), 3), ("Rejected by", ("rejected_change_100",), 3)]
