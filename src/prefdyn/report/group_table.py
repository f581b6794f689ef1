"""The table of groups on a page: verdict, reason and advice of each, and its numbers in columns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefdyn.maths.units import Z95
from prefdyn.planning.group_row import GroupRow
from prefdyn.report.folders import RunFolder
from prefdyn.report.palette import VERDICTS, look
from prefdyn.report.responses import given_away
from prefdyn.report.tables import STABLE, by_attention, minus_signs, said
from prefdyn.report.text import sentence, visible

_NAMES_SHOWN = 6
"""Groups named beside each verdict on top of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A number of every group."""

    key: str
    label: str
    """With a place where it may be broken."""
    way: str
    """How one sorts by it: `rising` or `falling`."""
    form: str
    """Of its numbers."""
    of_one: bool = True
    """Whether it says something of a single group."""

    @property
    def plain(self) -> str:
        """The label as a word."""
        return self.label.replace("\u00ad", "")


_COLUMNS = tuple(
    Column(key=key, label=label, way=way, form=form, of_one=key not in {"priority", "predicted_rank", "rank"})
    for key, label, way, form in (
        ("distinguishability", "Distinguish\u00adability", "falling", "#.3g"),
        ("probe_accuracy", "Held-out probe", "falling", ".3f"),
        ("priority", "Priority", "falling", ".3f"),
        ("predicted_held_out_loss", "Held-out loss", "rising", ".3f"),
        ("predicted_rank", "Rank", "rising", ".0f"),
        ("final_loss", "Training loss", "rising", ".3f"),
        ("held_out_final_loss", "Held-out loss", "rising", ".3f"),
        ("final_margin", "Margin", "falling", ".3f"),
        ("held_out_reward_accuracy", "Reward accuracy", "falling", ".3f"),
        ("held_out_policy_accuracy", "Policy accuracy", "falling", ".3f"),
        ("chosen_change", "Chosen, nats", "falling", ".2f"),
        ("rank", "Rank", "rising", ".0f"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One group."""

    code: int
    name: str
    pairs: Any
    units: Any
    """Prompts, or clusters of near-equal ones, where they are fewer than the pairs; else None."""
    held_out_pairs: Any
    verdict: str | None
    look: str
    because: str
    advice: str
    numbers: Mapping[str, float | None]
    """By the key of their column; None where not known."""
    ends: Mapping[str, str]
    """What stands under a number: its 95 % interval, by the key of the column; absent where there is none."""
    attention: int
    given_away: str
    tokens: tuple[float, float] | None
    """Mean lengths of the chosen and the rejected responses, where these are longer than one token."""


def group_rows(run: RunFolder) -> list[TableRow]:
    """Every group, what asks most of the reader first."""
    rows, ranks = run.rows, run.rank()
    order = sorted(range(len(rows)), key=lambda code: (*by_attention(rows[code].verdict, ranks[code]), code))
    numbers = {column.key: run.column(column.key) for column in _COLUMNS}
    numbers["predicted_held_out_loss"] = np.array([row.judged_loss for row in rows])
    return [
        _row(rows[code], code, {key: values[code] for key, values in numbers.items()}, responses=run.responses)
        for code in order
    ]


def columns(rows: Sequence[TableRow], *, one: bool) -> list[Column]:
    """Columns with a number in them; where there is one group, those that say something of it by itself."""
    return [
        column
        for column in _COLUMNS
        if any(row.numbers[column.key] is not None for row in rows) and (column.of_one or not one)
    ]


def _row(row: GroupRow, code: int, found: Mapping[str, float], *, responses: bool) -> TableRow:
    fewer = row.pairs is not None and row.units < row.pairs
    return TableRow(
        code=code,
        name=visible(row.name),
        pairs=row.pairs,
        units=row.units if fewer else None,
        held_out_pairs=row.held_out_pairs,
        verdict=said(row) or None,
        look=look(row.verdict or None).key,
        because=minus_signs(sentence(row.verdict_because)),
        advice=minus_signs(" ".join(part for part in (sentence(row.advice), _how_sure(row)) if part)),
        numbers={key: None if np.isnan(value) else value for key, value in found.items()},
        ends={column.key: ends for column in _COLUMNS if (ends := _ends(row, column, found[column.key]))},
        attention=by_attention(row.verdict, math.nan)[0],
        given_away=given_away(row) if responses else "",
        tokens=(row.chosen_tokens, row.rejected_tokens) if responses else None,
    )


ENDS: Mapping[str, tuple[str, ...]] = {
    "distinguishability": ("debiased_low", "debiased_high"),
    "probe_accuracy": ("probe_low", "probe_high"),
    "priority": ("priority_low", "priority_high"),
    "predicted_held_out_loss": ("cross_fitted_loss_error",),
    "predicted_rank": ("predicted_rank_low", "predicted_rank_high"),
}
"""Columns of estimates: both ends of their interval, or their standard error."""


def _ends(row: GroupRow, column: Column, value: float) -> str:
    """The 95 % interval of a number of a column; empty where there is none.

    Example:
        >>> column = Column(key="probe_accuracy", label="Probe", way="falling", form=".3f")
        >>> _ends(GroupRow(name="a", probe_low=0.81, probe_high=0.9), column, 0.86)
        '0.810 to 0.900'
    """
    known = [getattr(row, key) for key in ENDS.get(column.key, ())]
    if len(known) == 1:
        known = [value - Z95 * known[0], value + Z95 * known[0]]
    if not known or np.isnan([value, *known]).any():
        return ""
    return minus_signs(" to ".join(format(end, column.form) for end in known))


def _how_sure(row: GroupRow) -> str:
    """How often resamples give the verdict, and what else they give, where that is often.

    Example:
        >>> _how_sure(GroupRow(name="a", stability=0.71, could_be="middle, late"))
        'The same in 71 % of resamples; else middle, late.'
    """
    if not row.stability < STABLE:
        return ""
    others = visible(row.could_be)
    return f"The same in {100 * row.stability:.0f} % of resamples" + (f"; else {others}." if others else ".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One verdict of those that occur: how many groups have it, and which."""

    verdict: str
    look: str
    means: str
    count: int
    start: float
    share: float
    """Where it begins on the bar, and how wide it is, in per cent."""
    names: tuple[str, ...]
    """First learned first."""


def verdict_shares(run: RunFolder) -> list[Share]:
    """One part per verdict that occurs, in the order in which counts are told."""
    labels, verdicts, ranks, found, done = run.labels, run.verdicts, run.rank(), [], 0.0
    order = sorted(range(len(labels)), key=lambda code: by_attention(verdicts[code], ranks[code]))
    for verdict in [*VERDICTS, *sorted({v for v in verdicts if v} - set(VERDICTS))]:
        inside = [code for code in order if verdicts[code] == verdict]
        if inside:
            seen, share = look(verdict), 100 * len(inside) / len(labels)
            found.append(
                Share(
                    verdict=visible(verdict),
                    look=seen.key,
                    means=seen.means,
                    count=len(inside),
                    start=done,
                    share=share,
                    names=tuple(labels[code] for code in inside[:_NAMES_SHOWN]),
                )
            )
            done += share
    return found
