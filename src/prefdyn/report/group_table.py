"""The table of groups on a page: verdict, reason and advice of each, and its numbers in columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefdyn.report.folders import RunFolder, number
from prefdyn.report.palette import VERDICTS, look
from prefdyn.report.responses import given_away
from prefdyn.report.tables import STABLE, by_attention, judged_loss, minus_signs, said
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
class GroupRow:
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


def group_rows(run: RunFolder) -> list[GroupRow]:
    """Every group, what asks most of the reader first."""
    order = sorted(range(len(run.groups)), key=lambda code: (*by_attention(run.groups[code]), code))
    return [_row(run.groups[code], code, responses=run.responses) for code in order]


def columns(rows: Sequence[GroupRow]) -> list[Column]:
    """Columns with a number in them."""
    return [
        column
        for column in _COLUMNS
        if any(row.numbers[column.key] is not None for row in rows) and (len(rows) > 1 or column.of_one)
    ]


def _row(row: Mapping[str, Any], code: int, *, responses: bool) -> GroupRow:
    verdict, found = row.get("verdict"), {column.key: number(row.get(column.key)) for column in _COLUMNS}
    found["predicted_held_out_loss"] = judged_loss(row)
    return GroupRow(
        code=code,
        name=visible(row.get("name", "")),
        pairs=row.get("pairs"),
        units=row.get("units") if number(row.get("units")) < number(row.get("pairs")) else None,
        held_out_pairs=row.get("held_out_pairs"),
        verdict=said(row) or None,
        look=look(verdict).key,
        because=minus_signs(sentence(row.get("verdict_because"))),
        advice=minus_signs(" ".join(part for part in (sentence(row.get("advice")), _how_sure(row)) if part)),
        numbers={key: None if np.isnan(value) else value for key, value in found.items()},
        ends={column.key: ends for column in _COLUMNS if (ends := _ends(row, column, found[column.key]))},
        attention=by_attention(row)[0],
        given_away=given_away(row) if responses else "",
        tokens=(number(row.get("chosen_tokens")), number(row.get("rejected_tokens"))) if responses else None,
    )


ENDS: Mapping[str, tuple[str, ...]] = {
    "distinguishability": ("debiased_low", "debiased_high"),
    "probe_accuracy": ("probe_low", "probe_high"),
    "priority": ("priority_low", "priority_high"),
    "predicted_held_out_loss": ("cross_fitted_loss_error",),
    "predicted_rank": ("predicted_rank_low", "predicted_rank_high"),
}
"""Columns of estimates: both ends of their interval, or their standard error."""
_Z95 = 1.96


def _ends(row: Mapping[str, Any], column: Column, value: float) -> str:
    """The 95 % interval of a number of a column; empty where there is none.

    Example:
        >>> column = Column(key="probe_accuracy", label="Probe", way="falling", form=".3f")
        >>> _ends({"probe_low": 0.81, "probe_high": 0.9}, column, 0.86)
        '0.810 to 0.900'
    """
    known = [number(row.get(key)) for key in ENDS.get(column.key, ())]
    if len(known) == 1:
        known = [value - _Z95 * known[0], value + _Z95 * known[0]]
    if not known or np.isnan([value, *known]).any():
        return ""
    return minus_signs(" to ".join(format(end, column.form) for end in known))


def _how_sure(row: Mapping[str, Any]) -> str:
    """How often resamples give the verdict, and what else they give, where that is often.

    Example:
        >>> _how_sure({"stability": 0.71, "could_be": "middle, late"})
        'The same in 71 % of resamples; else middle, late.'
    """
    share = number(row.get("stability"))
    if np.isnan(share) or share >= STABLE:
        return ""
    others = visible(row.get("could_be") or "")
    return f"The same in {100 * share:.0f} % of resamples" + (f"; else {others}." if others else ".")


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
    order = sorted(range(len(run.groups)), key=lambda code: by_attention(run.groups[code]))
    labels, verdicts, found, done = run.labels, run.verdicts, [], 0.0
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
