"""Thousands of groups on one page: which of them are drawn and listed, and the words that say so."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of pyarrow.compute at import, where a type checker does not see them)

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefdyn.diagnostics.many import SHOWN_GROUPS
from prefdyn.report.folders import RunFolder


def drawn(run: RunFolder, most: int = SHOWN_GROUPS) -> RunFolder:
    """The run with the groups that its page draws and lists: all, or of more than `most` those that the run itself
    held against each other, else those with most pairs.

    Everything that goes by groups follows: rows, curves, statements and the points of the picture. Pairs stay.
    """
    if len(run.groups) <= most:
        return run
    names = run.names
    listed = run.part("diagnostics", "shown_groups")
    known = {name: code for code, name in reversed(list(enumerate(names)))}
    codes = [known[name] for name in listed if name in known] if isinstance(listed, list) else []
    if not codes:
        largest = np.argsort(-run.column("pairs"), kind="stable")  # what is not known comes last
        codes = np.sort(largest[:most]).tolist()
    return only(run, codes)


def only(run: RunFolder, codes: Sequence[int]) -> RunFolder:
    """The run with some of its groups, by their codes; everything that goes by groups follows, pairs stay."""
    kept = [run.names[code] for code in codes]
    summary = {**run.summary, "groups": [run.groups[code] for code in codes]}
    rows = run.part("bounds")
    if isinstance(rows, list):
        inside = {*kept, None}
        summary["bounds"] = [row for row in rows if row.get("group") in inside]
    cloud = run.part("diagnostics", "embedding", "group")
    if isinstance(cloud, list):
        place: Mapping[Any, int] = {code: place for place, code in enumerate(codes)}
        points = {**run.part("diagnostics", "embedding"), "group": [place.get(code, -1) for code in cloud]}
        summary["diagnostics"] = {**run.part("diagnostics"), "embedding": points}
    table = run.trajectory
    if table is not None:
        table = table.filter(pc.is_in(table["group"], value_set=pa.array(kept, pa.string())))
    return replace(run, summary=summary, trajectory=table, all_groups=run.all_groups or run.names)


def drawn_words(run: RunFolder, most: int = SHOWN_GROUPS) -> str:
    """What the page leaves out of a run of so many groups, and where it is; empty where it leaves nothing out."""
    if len(run.groups) <= most:
        return ""
    where = ["groups.csv has a row for every group", "trajectory.parquet every curve", "pairs.parquet every pair"]
    if run.part("command") in ("audit", "simulate"):
        return (
            f"This page lists and draws {len(drawn(run, most).groups):,} of {len(run.groups):,} groups, those with "
            f"most pairs; counts of verdicts are of all. {where[0]}, {where[1]} and {where[2]}."
        )
    return (
        f"This page lists and draws {len(drawn(run, most).groups):,} of {len(run.groups):,} groups, those with most "
        "pairs; the files beside it hold all."
    )
