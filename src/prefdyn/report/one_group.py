"""One group of a finished folder, on a page of its own: the folder with what is about this group, and its pairs."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from prefdyn._checks import nearest
from prefdyn._json import number
from prefdyn.data.names import told_apart
from prefdyn.data.preflight import CONTRADICTING, NEARLY
from prefdyn.diagnostics.labels import LISTED
from prefdyn.errors import ConfigError
from prefdyn.report.folders import RunFolder
from prefdyn.report.many import only
from prefdyn.report.plan import PlanTable
from prefdyn.report.tables import minus
from prefdyn.report.text import visible

_CLOSE = 5
"""Names that are offered for one that there is not,"""
_ALIKE = 0.5
"""each at least so alike, as `difflib` has it."""
_EXAMPLES = 20
_LISTS = {"at_odds": "agreement", "costly": "value_all", "chosen_falls": "chosen_push"}
"""Lists of single pairs, and the column of pairs that each is sorted by."""
_SHOWN, _FOLD = 500, 15
"""Pairs that a page lists, and that are open."""
_NEIGHBOURS = 5
KINDS = ("audit", "simulate", "bounds", "train")
"""Folders whose groups have pages of their own."""


def one_group(run: RunFolder, name: str) -> RunFolder:
    """The folder with one group: its row, curves, findings, statements, pairs, and its labels to check.

    Args:
        run: A folder of audit, simulate, bounds or train.
        name: Of the group, as the data has it.

    Raises:
        ConfigError: The folder is of another kind, or has no such group; the error names those that are close.
    """
    if run.kind not in KINDS:
        raise ConfigError(
            f"{run.path} holds {run.kind}, whose groups have no pages of their own; give a folder of "
            f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"
        )
    if name not in run.names:
        raise ConfigError(f"{run.path} has no group {told_apart([name])[0]}{_close(name, run.names)}")
    found = only(run, [run.names.index(name)])
    pairs = None if run.pairs is None else run.pairs.filter(pc.equal(run.pairs["group"], name))  # pyright: ignore
    rows = [] if pairs is None else pairs.to_pylist()
    codes = {code for row in rows for code in row.get("findings") or ()}
    summary = {key: value for key, value in found.summary.items() if key not in ("answers", "slices", "warnings")}
    if isinstance(findings := run.part("findings"), list):
        summary["findings"] = [each for each in findings if _about(each, name, codes)]
    if isinstance(examples := run.part("examples"), Mapping):
        summary["examples"] = _examples(examples, rows, name, worth=bool(run.part("labels", "worth")))
    return replace(found, summary=summary, pairs=pairs, group=name)


def _close(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=_CLOSE, cutoff=_ALIKE)
    return f"; close: {', '.join(told_apart(near))}" if near else nearest(name, known)


def _about(finding: Mapping[str, Any], name: str, codes: set[str]) -> bool:
    """Whether a finding is about the group, or about the whole data and one that its pairs have."""
    group = finding.get("group")
    return group == name or (group is None and finding.get("code") in codes)


def _examples(
    examples: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], name: str, *, worth: bool
) -> dict[str, Any]:
    """The lists of pairs to look at, from the group's own pairs, with the texts that the folder holds."""
    texts = {row["id"]: row for key in (*_LISTS, "labels") for row in examples.get(key) or [] if "id" in row}

    def shown(chosen: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [{**row, **texts.get(row["id"], {})} for row in chosen]

    found: dict[str, Any] = {}
    for key, column in _LISTS.items():
        if key in examples:
            found[key] = shown(_lowest(rows, column)[:_EXAMPLES])
    if "labels" in examples:
        told = [row for row in rows if {*CONTRADICTING, NEARLY} & set(row.get("findings") or ())]
        doubted = [row for row in _lowest(rows, "label_score") if row not in told] if worth else []
        found["labels"] = shown([*told, *doubted][:LISTED])
    if "opposites" in examples:
        found["opposites"] = [
            each
            for each in examples["opposites"]
            if name in [(each.get(side) or {}).get("group") for side in ("first", "second")]
        ]
        looked_at = examples.get("looked_at") or {}
        found["looked_at"] = {key: value for key, value in looked_at.items() if key != "found"}
    return found


def _lowest(rows: Sequence[Mapping[str, Any]], column: str) -> list[Mapping[str, Any]]:
    """Rows whose number is below 0, the lowest first."""
    below = [row for row in rows if number(row.get(column)) < 0]
    return sorted(below, key=lambda row: (number(row.get(column)), str(row.get("id"))))


def group_sentence(run: RunFolder) -> str:
    """The group's verdict, and how often resamples give it; empty where the command gives none.

    Example:
        >>> from pathlib import Path
        >>> row = {"name": "a", "verdict": "late", "stability": 0.6, "could_be": "middle"}
        >>> group_sentence(RunFolder(path=Path(), summary={"groups": [row]}, trajectory=None, pairs=None))
        'It is late, the same in 60 % of resamples; else middle.'
    """
    (row,) = run.rows
    if not row.verdict:
        return ""
    again = "" if np.isnan(row.stability) else f", the same in {100 * row.stability:.0f} % of resamples"
    return f"It is {visible(row.verdict)}{again}{f'; else {visible(row.could_be)}' if row.could_be and again else ''}."


# what the page has of its own ---------------------------------------------------------------------------------------


def group_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What a pair more does, who pushes the group, and all its pairs; None on a page of all groups."""
    if run.group is None:
        return None
    rows = [] if run.pairs is None else run.pairs.to_pylist()
    points = [("A pair more", text)] if (text := _pair_more(rows)) else []
    tables = [table for table in (_neighbours(run), _pairs(rows)) if table is not None]
    if not points and not tables:
        return None
    return {"points": points, "tables": tables, "notes": []}


def _pair_more(rows: Sequence[Mapping[str, Any]]) -> str:
    """What one more pair like those that the group trains on does, as far as leaving one out tells it."""
    parts = []
    for column, whose in (("value_own", "the group's own held-out loss"), ("value_all", "that of all pairs")):
        values = np.array([number(row.get(column)) for row in rows])
        values = values[np.isfinite(values)]
        if len(values):
            low, high = np.quantile(values, [0.05, 0.95])
            mean = float(values.mean())
            way = "lowers" if mean > 0 else "raises"
            parts.append(
                f"{way} {whose} by {minus(abs(mean))} nats on average (a fall of {minus(low)} to {minus(high)} for "
                "nine of ten of its pairs)"
            )
    if not parts:
        return ""
    return (
        f"One more pair like those that it trains on {', and '.join(parts)}: first order, from what leaving each of "
        "them out adds. Below 0 the loss rises."
    )


def _neighbours(run: RunFolder) -> PlanTable | None:
    """Groups whose pairs push this one's margin most in the first step, and what it does to theirs."""
    matrix = run.part("diagnostics", "influence", "matrix")
    names = run.part("diagnostics", "shown_groups") or run.all_groups
    if run.group is None or not isinstance(matrix, list) or run.group not in names or len(matrix) != len(names):
        return None
    here = list(names).index(run.group)
    by = [number(line[here]) if here < len(line) else np.nan for line in matrix]
    to = [number(value) for value in matrix[here]]
    others = [place for place in range(len(names)) if place != here and np.isfinite(by[place])]
    others.sort(key=lambda place: -abs(by[place]))
    own = [(f"{visible(run.group)} (itself)", [minus(by[here]), minus(to[here])])]
    return PlanTable(
        heading="Who pushes it",
        first="Group",
        columns=("Pushes it by", "Is pushed by it"),
        intro="Changes of the reward margin in the first joint step, the strongest pushes first; below 0: against it.",
        rows=own + [(visible(names[place]), [minus(by[place]), minus(to[place])]) for place in others[:_NEIGHBOURS]],
    )


_COLUMNS = (
    ("split", "Split"), ("label_score", "Reader of the others"), ("agreement", "Push by all others"),
    ("group_agreement", "By its own group"), ("margin", "Final margin"), ("value_own", "Worth to its group, nats"),
    ("chosen_tokens", "Chosen tokens"), ("rejected_tokens", "Rejected tokens"),
)  # fmt: skip


def _pairs(rows: Sequence[Mapping[str, Any]]) -> PlanTable | None:
    """All pairs of the group, those that the others speak against most first."""
    shown = [(key, label) for key, label in _COLUMNS if any(row.get(key) is not None for row in rows)]
    if not rows:
        return None
    by = next((key for key in ("label_score", "agreement") if any(row.get(key) is not None for row in rows)), None)
    known = sorted(rows, key=lambda row: _last(number(row.get(by)))) if by else list(rows)
    more = "" if len(rows) <= _SHOWN else f" {_SHOWN:,} of {len(rows):,} are listed; pairs.parquet has all."
    return PlanTable(
        heading=f"Its {len(rows):,} pairs" if len(rows) > 1 else "Its one pair",
        first="Pair",
        columns=tuple(label for _, label in shown),
        intro=f"Those that other pairs speak against most first; texts are in the data, by id.{more}",
        rows=[
            (visible(row.get("id")), [visible(row[key]) if key == "split" else minus(row.get(key)) for key, _ in shown])
            for row in known[:_SHOWN]
        ],
        fold=_FOLD,
    )


def _last(value: float) -> tuple[bool, float]:
    return bool(np.isnan(value)), 0.0 if np.isnan(value) else value
