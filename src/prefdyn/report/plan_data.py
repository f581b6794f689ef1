"""The page of a plan of data: how many pairs of which group, the curves, and what one group does for another."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn._shape import of_many
from prefdyn.picture import Line, Picture, Plot
from prefdyn.report.folders import RunFolder
from prefdyn.report.palette import GROUPS
from prefdyn.report.plan import PlanTable, interval_of, part_of, part_table
from prefdyn.report.tables import minus
from prefdyn.report.text import sentence, visible

_LISTED = 6
"""Groups that one sentence names."""
_DRAWN = 12
_MATRIX = 30
"""Groups up to which what one does for another is drawn as a matrix."""
_ORDER = {"more": 0, "near": 1, "out of reach": 2, "reached": 3}
_SAID = {"near": "not told from now", "out of reach": "out of reach", "reached": "already reached"}
COLUMNS = ("Pairs", "Loss now", "90 % interval", "Target", "Pairs for it", "90 % interval", "At 16 times the pairs",
           "A tenth more does")  # fmt: skip


def data_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of a plan of data; None where the folder holds none."""
    run, part = part_of(run, "data")
    if part is None:
        return None
    growth = _growth_note(run, part)
    table = PlanTable(
        heading="Group by group", first="Group", columns=COLUMNS, rows=_rows(run, part),
        intro="Held-out loss in nats. The groups that need most come first. A tenth more pairs of a group itself, the "
        "others as they are, changes its loss by the last column; below 0 it helps."
        + (f" Between groups: {growth}" if growth else ""),
    )  # fmt: skip
    rests = (
        "Runs of the last layer on frozen states, made again on nested parts of the pairs and judged on pairs that "
        "took no part. Beyond what is at hand, laws go on that foretold the larger parts from the smaller ones best: "
        f"{_laws(part)}. LoRA and full tuning change the states, too, and may come lower."
    )
    return {"points": points(run, part), "tables": (table,), "notes": (("What it rests on", rests),)}


def points(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Change this, expect that, how sure."""
    rows = _sorted(run)
    more = [row for row in rows if row.get("state") == "more"]
    beyond = [visible(row.get("name")) for row in rows if row.get("state") == "out of reach"]
    there, near = (sum(row.get("state") == state for row in rows) for state in ("reached", "near"))
    told = [f"{visible(row.get('name'))}: {_needed(row)} pairs in place of {minus(row.get('pairs'))}" for row in more]
    change = "; ".join(told[:_LISTED]) + (f"; and {len(told) - _LISTED} more in data.csv" if told[_LISTED:] else "")
    if beyond:
        names = of_many(beyond, _LISTED)
        change += ("; " if change else "") + (
            f"no number of pairs for {names}: with these features {'they stay' if len(beyond) > 1 else 'it stays'} "
            f"over the target even with {minus(part.get('farthest'))} times the pairs"
        )
    middle = number(run.part("settings", "median_loss"))
    what = f"the {minus(middle)} nats that the median group has now" if part.get("default_target") else "its target"
    if len(run.groups) == 1 and part.get("default_target"):
        what = f"{minus(middle)} nats, nine tenths of what it has now"
    expect = f"Held-out loss of {what}, or less. " + (
        f"{there} of {len(rows)} groups {'is' if there == 1 else 'are'} there already with the whole interval"
        + (f"; of {near} it is not told, for the interval holds the target." if near else ".")
    )
    sure = (
        "Intervals hold 90 %: the luck of the pairs at hand, and what such laws missed where they could be tested, "
        f"{minus(part.get('miss_per_doubling'), 2)} nats per doubling. All groups are taken to grow in their mix, at "
        "the same steps and learning rate."
    )
    return [("Collect", sentence(change or "nothing")), ("Expect", expect), ("How sure", sure)]


def data_table(summary: Mapping[str, Any]) -> str:
    """The plan of data as plain text."""
    return part_table(summary, "data", points, lambda part, run: ("group", COLUMNS, _rows(run, part)), 10)


def data_drawings(run: RunFolder) -> list[Picture]:
    """Curves of the groups that need most, and what a tenth more pairs of one group does to the others."""
    run, part = part_of(run, "data")
    if part is None:
        return []
    found = []
    shown = [row for row in _sorted(run) if row.get("target") is not None][:_DRAWN]
    if shown:
        rest = len([row for row in run.groups if row.get("target") is not None]) - len(shown)
        left = f" The other {rest} are in curves.csv." if rest else ""
        caption = (
            "Points: measured on pairs that took no part, mean over four draws of parts of the data (the last: all of "
            "them). Line and band: the forecast with its 90 % interval. Dotted: the target." + left
        )
        curves = tuple(_curve(row, part) for row in shown)
        title = "Held-out loss over pairs of the group"
        found.append(
            Picture(id="plan-data-curves", title=title, caption=caption, size=(2.5, 1.9), across=3, plots=curves)
        )
    return found + _matrix(run, part)


# pieces -------------------------------------------------------------------------------------------------------------


def _sorted(run: RunFolder) -> list[Mapping[str, Any]]:
    """Groups that need most pairs first, then those out of reach, then those that are there; unknown ones last."""

    def key(row: Mapping[str, Any]) -> tuple[int, float]:
        needed, pairs = number(row.get("needed")), number(row.get("pairs"))
        return _ORDER.get(str(row.get("state")), 4), -needed / pairs if pairs and not math.isnan(needed) else -math.inf

    return sorted(run.groups, key=key)


def _needed(row: Mapping[str, Any]) -> str:
    """Pairs with their interval, in words."""
    many = f"over {16 * number(row.get('pairs')):.0f}"
    middle, low, high = (row.get(key) for key in ("needed", "needed_low", "needed_high"))
    return f"{many if middle is None else minus(middle)} ({minus(low)} to {many if high is None else minus(high)})"


def _rows(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for row in _sorted(run):
        if row.get("target") is None:
            found.append((visible(row.get("name")), [minus(row.get("pairs")), *["–"] * (len(COLUMNS) - 1)]))
            continue
        many, state = f"over {16 * number(row.get('pairs')):.0f}", str(row.get("state"))
        high = many if row.get("needed_high") is None else minus(row.get("needed_high"))
        span = {"near": f"up to {high}", "out of reach": many, "reached": ""}
        middle = many if row.get("needed") is None else minus(row.get("needed"))
        needed = [_SAID.get(state, middle), span.get(state, f"{minus(row.get('needed_low'))} to {high}")]
        entries = [
            minus(row.get("pairs")), minus(row.get("loss")), interval_of(row, "loss"),
            minus(row.get("target")), *needed,
            f"{minus(row.get('loss_farthest'))} "
            f"({minus(row.get('low_farthest'))} to {minus(row.get('high_farthest'))})",
            minus(row.get("ten_percent_more"), 2),
        ]  # fmt: skip
        found.append((visible(row.get("name")), entries))
    return found


def _laws(part: Mapping[str, Any]) -> str:
    laws = [row for row in part.get("laws") or [] if isinstance(row, Mapping)][:4]
    return ", ".join(f"{visible(row.get('name'))} ({number(row.get('share')):.0%})" for row in laws)


def _growth_note(run: RunFolder, part: Mapping[str, Any]) -> str:
    """The couple of groups of which one hurts the other most, and the one that helps most, where folds agree."""
    rows = [
        row
        for row in part.get("growth") or []
        if isinstance(row, Mapping) and row.get("more_of") != row.get("group") and number(row.get("folds_agree")) >= 5
    ]
    if not rows:
        return ""
    told = []
    worst = max(rows, key=lambda row: number(row.get("ten_percent_more")))
    best = min(rows, key=lambda row: number(row.get("ten_percent_more")))
    for row, word in ((worst, "raises"), (best, "lowers")):
        value = number(row.get("ten_percent_more"))
        if (value > 0) == (word == "raises") and value:
            told.append(
                f"a tenth more pairs of {visible(row.get('more_of'))} {word} the loss of {visible(row.get('group'))} "
                f"by {minus(abs(value), 2)}"
            )
    return "; ".join(told) + (", in all five folds." if told else "")


def _curve(row: Mapping[str, Any], part: Mapping[str, Any]) -> Plot:
    points = [one for one in part.get("curves") or [] if isinstance(one, Mapping) and one.get("group") == row["name"]]

    def column(kind: str, key: str) -> np.ndarray:
        return np.array([number(one.get(key)) for one in points if one.get("kind") == kind])

    colour = GROUPS[0].light
    target = number(row.get("target"))
    lines = (
        Line(label="", x=column("forecast", "pairs"), y=column("forecast", "loss"), colour=colour,
             low=column("forecast", "low"), high=column("forecast", "high")),
        Line(label="", x=column("measured", "pairs"), y=column("measured", "loss"), colour=colour, style="points"),
    )  # fmt: skip
    note = _SAID.get(str(row.get("state")), f"{_needed(row)} pairs")
    return Plot(
        title=visible(row["name"]), note=note, x_label="pairs", y_label="loss (nats)", x_scale="log", lines=lines,
        marks=((f"{target:.3g}", target),),
    )  # fmt: skip


def _matrix(run: RunFolder, part: Mapping[str, Any]) -> list[Picture]:
    names = run.names
    rows = [row for row in part.get("growth") or [] if isinstance(row, Mapping)]
    if not rows or not 1 < len(names) <= _MATRIX:
        return []
    matrix = np.full((len(names), len(names)), np.nan)
    place = {name: code for code, name in enumerate(names)}
    for row in rows:
        one, other = place.get(str(row.get("group"))), place.get(str(row.get("more_of")))
        if one is not None and other is not None:
            matrix[one, other] = number(row.get("ten_percent_more"))
    caption = (
        "What a tenth more pairs of the column's group does to the held-out loss of the row's group, nats, to first "
        "order and by the exact derivative of the run; below 0 it helps. More pairs of one group are also less weight "
        "for every other, which is part of it. growth.csv says in how many of the five folds the sign holds."
    )
    labels = tuple(map(str, run.labels))
    plot = Plot(kind="heat", matrix=matrix, names=labels, unit="nats", limit=float(np.nanmax(np.abs(matrix))) or 1.0)
    title = "What a tenth more pairs of one group does for another"
    return [Picture(id="plan-data-growth", title=title, caption=caption, plots=(plot,))]
