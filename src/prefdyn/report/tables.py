"""The verdict per group as text: the table for the terminal and the sentence of counts."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn.planning.group_row import GroupRow
from prefdyn.planning.verdicts import Thresholds
from prefdyn.report.folders import side_of
from prefdyn.report.palette import ATTENTION, VERDICTS
from prefdyn.report.text import cells, cut, padded, shorten, visible, wrapped

_MINUS = re.compile(r"(?<![\w.)\]-])-(?=\d)")
STABLE = Thresholds().stable
"""Share of resamples with the same verdict under which it is said with "could be"."""
_WRAP_UP_TO = 30
_LISTED = 200
"""Groups that a table for the terminal lists."""
_GIVEN_AWAY = "given away"
_LEAST_REASON = 24
"""Columns that the reasons need; with less, the column of what is given away makes room for them."""
_Column = tuple[str, list[str], bool]
"""A title, entries and whether they stand to the right."""


def verdict_sentence(summary: Mapping[str, Any]) -> str:
    """How many groups have which verdict, in one sentence; empty where the command gives no verdicts.

    Example:
        >>> verdict_sentence({"groups": [{"verdict": "late"}, {"verdict": "early"}, {"verdict": "late"}]})
        'Of 3 groups: 1 early, 2 late.'
        >>> verdict_sentence({"groups": [{"name": "all", "verdict": "learned"}]})
        'The one group, all, is learned.'
    """
    groups = [row for row in summary.get("groups") or [] if row.get("verdict")]
    if not groups:
        return ""
    if len(groups) == 1:
        return f"The one group, {visible(groups[0].get('name', ''))}, is {visible(groups[0]['verdict'])}."
    counts = Counter(visible(row["verdict"]) for row in groups)
    known = [*VERDICTS, *sorted(set(counts) - set(VERDICTS))]
    return f"Of {len(groups)} groups: " + ", ".join(f"{counts[name]} {name}" for name in known if counts[name]) + "."


def by_attention(verdict: str | None, rank: float) -> tuple[int, float]:
    """Sort key of a group: what asks most of the reader first, then first learned first."""
    return (
        ATTENTION.index(verdict) if verdict in ATTENTION else len(ATTENTION),
        math.inf if math.isnan(rank) else rank,
    )


def shown(value: Any, digits: int = 3) -> str:
    """A number for people: three digits that matter, an en dash where it is not known.

    Example:
        >>> shown(0.123456), shown(None), shown(12345.6), shown(-2.5e-7), shown(0)
        ('0.123', '–', '12346', '-2.5e-07', '0')
    """
    value = number(value)
    if math.isnan(value):
        return "–"
    if 10**digits <= abs(value) < 1e7:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def minus(value: Any, digits: int = 3) -> str:
    """As `shown`, with a true minus sign."""
    return shown(value, digits).replace("-", "−")


def minus_signs(text: str) -> str:
    """The text with a true minus sign for every hyphen that stands for one.

    Example:
        >>> minus_signs("held-out loss -0.3, from 2-3")
        'held-out loss −0.3, from 2-3'
    """
    return _MINUS.sub("−", text)


def verdict_table(summary: Mapping[str, Any], *, width: int = 110) -> str:
    """The verdict per group as aligned plain text, groups in the order in which they are learned.

    Args:
        summary: The content of summary.json.
        width: Columns to fit into, at least 80. Up to 30 groups show their whole reason, on more lines where needed;
            with more groups reasons are cut, since groups.csv holds them whole.

    Returns:
        Lines joined by newlines, the sentence of counts last; of very many groups the first learned. Names are shown
        without control characters.
    """
    width = max(width, 80)
    groups = sorted(
        map(GroupRow.read, summary.get("groups") or []),
        key=lambda row: (math.isnan(row.predicted_rank), row.predicted_rank),
    )
    if not groups:
        return "No groups."
    left = len(groups) - _LISTED
    groups = groups[:_LISTED]
    names = [visible(row.name) for row in groups]
    responses = side_of(summary) == "response"
    columns: list[_Column] = [
        ("group", [shorten(name, 30) for name in names], False),
        ("verdict", [said(row) or "–" for row in groups], False),
        ("disting.", [shown(row.distinguishability) for row in groups], True),
        ("probe", [f"{row.probe_accuracy:.2f}".replace("nan", "–") for row in groups], True),
        (_GIVEN_AWAY, [_given_away(row) if responses else "–" for row in groups], True),
        ("priority", [f"{row.priority:.2f}".replace("nan", "–") for row in groups], True),
        ("loss", [f"{row.judged_loss:.3f}".replace("nan", "–") for row in groups], True),
    ]
    columns = [column for column in columns if any(cell != "–" for cell in column[1])]
    reasons = [visible(row.verdict_because) if row.verdict_because else "" for row in groups]
    if any(reasons) and width - sum(_sizes(columns)) - 2 * len(columns) < _LEAST_REASON:
        columns = [column for column in columns if column[0] != _GIVEN_AWAY]
    sizes = _sizes(columns)
    room = width - sum(sizes) - 2 * len(sizes)
    lines = []
    header = [padded(title, size, right=right) for (title, _, right), size in zip(columns, sizes, strict=True)]
    lines.append("  ".join([*header, "because"] if any(reasons) else header).rstrip())
    lines.append("  ".join("─" * size for size in sizes) + (f"  {'─' * room}" if any(reasons) else ""))
    for place, reason in enumerate(reasons):
        row = [
            padded(entries[place], size, right=right) for (_, entries, right), size in zip(columns, sizes, strict=True)
        ]
        parts = wrapped(reason, room) if len(groups) <= _WRAP_UP_TO else [cut(reason, room)]
        lines.append("  ".join([*row, parts[0]]).rstrip())
        lines += [" " * (width - room) + part for part in parts[1:]]
    crossed = any(not math.isnan(row.cross_fitted_loss) for row in groups)
    notes = ["disting.: distinguishability · probe: held-out accuracy · loss: held-out, at the end of the joint run"]
    if crossed:
        notes.append("(of five joint runs, each without a fifth of the prompts: every pair in the one without it)")
    if responses:
        notes = [
            "disting.: distinguishability, between different pairs · probe: held-out accuracy on mean states",
            "loss: held-out, at the end of the joint run, first order in the head's movement",
        ]
        if any(title == _GIVEN_AWAY for title, _, _ in columns):
            notes.append("given away: the best held-out accuracy of words, length or reference log-probability alone")
    sentence = verdict_sentence(summary)
    if left > 0:
        lines.append(f"… and {left:,} more; groups.csv lists all {left + _LISTED:,}")
    return "\n".join([*lines, "", *notes, *([sentence] if sentence else [])])


def said(row: GroupRow) -> str:
    """A group's verdict as it is said: with "could be" where resamples often give another; empty where there is none.

    Example:
        >>> said(GroupRow(name="a", verdict="early", stability=0.95)), said(GroupRow(name="a"))
        ('early', '')
        >>> said(GroupRow(name="a", verdict="early", stability=0.7))
        'could be early'
    """
    verdict = visible(row.verdict) if row.verdict else ""
    return f"could be {verdict}" if verdict and row.stability < STABLE else verdict


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose first column stands to the left and the others to the right.

    Example:
        >>> aligned([["group", "pairs"], ["a", "12"]])
        ['group  pairs', 'a         12']
    """
    sizes = [max(cells(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(padded(entry, sizes[place], right=place > 0) for place, entry in enumerate(row)).rstrip()
        for row in rows
    ]


def _sizes(columns: Sequence[_Column]) -> list[int]:
    return [max(cells(title), *map(cells, entries)) for title, entries, _ in columns]


def _given_away(row: GroupRow) -> str:
    """What tells chosen from rejected best without the model's states, and how often it is right.

    Example:
        >>> _given_away(GroupRow(name="a", words_accuracy=0.61, length_accuracy=0.9349))
        'length 0.93'
    """
    named = (("words", row.words_accuracy), ("length", row.length_accuracy), ("reference", row.reference_accuracy))
    known = [(value, name) for name, value in named if not math.isnan(value)]
    if not known:
        return "–"
    best, name = max(known, key=lambda found: found[0])
    return f"{name} {best:.2f}"


def trained_table(summary: Mapping[str, Any], *, width: int = 110) -> str:
    """What a training run did to each group, as aligned plain text, first learned first.

    Args:
        summary: The content of summary.json of `prefdyn train`.
        width: Columns to fit into; names are cut to what is left.
    """
    groups = sorted(
        summary.get("groups") or [], key=lambda row: (math.isnan(number(row.get("rank"))), number(row.get("rank")))
    )
    if not groups:
        return "No groups."
    columns: list[tuple[str, str, str]] = [
        ("pairs", "pairs", ".0f"),
        ("loss", "final_loss", ".3f"),
        ("margin", "final_margin", ".3f"),
        ("reward acc.", "reward_accuracy", ".2f"),
        ("held-out loss", "held_out_final_loss", ".3f"),
        ("held-out acc.", "held_out_reward_accuracy", ".2f"),
        ("chosen", "chosen_change", "+.2f"),
        ("rejected", "rejected_change", "+.2f"),
        ("falling", "chosen_falling", ".0%"),
    ]
    lines = _aligned(groups, columns, width)
    settings = summary.get("settings") or {}
    note = (
        "chosen, rejected: change of the mean log-probability, nats · falling: share of pairs whose chosen "
        f"{side_of(summary)} lost"
    )
    start = settings.get("start_margin")
    told = [] if start is None else [f"Before the first step the largest margin was {shown(start)} (it should be 0)."]
    return "\n".join([*lines, "", note, *told])


def score_table(summary: Mapping[str, Any], *, width: int = 110) -> str:
    """What a model gives to each group's responses, as aligned plain text, in the order of the data.

    Args:
        summary: The content of summary.json of `prefdyn score`.
        width: Columns to fit into; names are cut to what is left.
    """
    columns = [
        ("pairs", "pairs", ".0f"),
        ("tokens", "chosen_tokens", ".1f"),
        ("rejected", "rejected_tokens", ".1f"),
        ("log p chosen", "chosen_logps", ".2f"),
        ("rejected", "rejected_logps", ".2f"),
        ("per token", "chosen_logps_per_token", ".3f"),
        ("rejected", "rejected_logps_per_token", ".3f"),
        ("chosen first", "policy_accuracy", ".0%"),
    ]
    note = "means over the pairs of a group, nats · chosen first: share of pairs whose chosen response is more likely"
    return "\n".join([*_aligned(summary["groups"], columns, width), "", note])


def _aligned(groups: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]], width: int) -> list[str]:
    """Lines of a table: a name per group, then columns of (title, key, format), those without a number left out."""
    known = [
        (title, [format(number(row.get(key)), form).replace("nan%", "–").replace("nan", "–") for row in groups])
        for title, key, form in columns
    ]
    known = [column for column in known if any("–" not in cell for cell in column[1])]
    sizes = [max(cells(title), *map(cells, entries)) for title, entries in known]
    room = max(12, min(40, width - sum(sizes) - 2 * len(sizes)))
    names = [shorten(visible(row.get("name", "")), room) for row in groups]
    first = max(cells("group"), *map(cells, names))
    titles = (padded(title, size, right=True) for (title, _), size in zip(known, sizes, strict=True))
    lines = ["  ".join([padded("group", first), *titles]), "  ".join("─" * size for size in [first, *sizes])]
    for place, name in enumerate(names):
        entries = (padded(column[1][place], size, right=True) for column, size in zip(known, sizes, strict=True))
        lines.append("  ".join([padded(name, first), *entries]))
    return lines


def number_rows(rows: Sequence[Sequence[Any]] | None) -> np.ndarray:
    """Rows of numbers as a summary holds them, NaN where there is none.

    Example:
        >>> number_rows([[1, None], [2, 3]]).tolist()
        [[1.0, nan], [2.0, 3.0]]
    """
    found = rows or []
    return np.array([[number(each) for each in row] for row in found], dtype=np.float64).reshape(len(found), -1)
