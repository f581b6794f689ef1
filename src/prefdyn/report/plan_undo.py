"""The page of what undoes a run: which groups are the most fragile, and how many opposite labels bring them back."""

import math
from collections.abc import Mapping
from typing import Any

from prefdyn._json import number
from prefdyn._shape import of_many
from prefdyn.report.folders import RunFolder
from prefdyn.report.plan import PlanTable, part_of, part_table
from prefdyn.report.tables import minus
from prefdyn.report.text import sentence, visible

_LISTED = 3
COLUMNS = ("Pairs", "Loss after", "Steps to undo", "90 % interval", "Of learning", "Pairs for it", "Right then",
           "Harms most")  # fmt: skip


def undo_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of what undoes a run; None where the folder holds none."""
    run, part = part_of(run, "undo")
    if part is None:
        return None
    table = PlanTable(
        heading="Group by group, the most fragile first", first="Group", columns=COLUMNS, rows=_rows(run, part),
        intro="Steps of the group's own pairs with labels turned round, until its mean loss on pairs of neither run is "
        f"what it was before training ({minus(part.get('start'))} nats). Of learning: over the steps that the "
        "head took to learn it. Pairs for it: the fewest that do it within twice those steps. Right after as many "
        "steps: share of margins above 0 after as many opposite steps as training took. Harms most: the other group "
        "whose loss rises most where this one is back. – : not within "
        f"{minus(part.get('most_steps'))} steps, or nothing was learned.",
    )  # fmt: skip
    return {"points": points(run, part), "tables": (table,), "notes": (("What it rests on", _rests(part)),)}


def points(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which are fragile, what undoes them, how sure."""
    rows = [row for row in run.groups if row.get("ease") is not None]
    learned = [row for row in run.groups if row.get("loss_after") is not None]
    told = [
        f"{visible(row.get('name'))} after {_steps(row)}, {_percent(row.get('ease'))} of what learning took"
        for row in rows[:_LISTED]
    ]
    fragile = "; ".join(told) if told else "no group comes back to where it began within the steps that were looked at"
    few = [
        f"{visible(row.get('name'))} by {_pairs(row)} of {minus(row.get('trained_pairs'))} pairs"
        for row in rows[:_LISTED]
        if row.get("needed") is not None
    ]
    last = rows[-1] if len(rows) > _LISTED else None
    hold = f"the longest holds {visible(last.get('name'))}: {_steps(last)}" if last else ""
    stay = [visible(row.get("name")) for row in learned if row.get("ease") is None]
    if stay:
        hold = f"not within {minus(part.get('most_steps'))} steps: {of_many(stay, _LISTED)}"
    sure = "intervals hold 90 %, over units of pairs that took no part; which opposite pairs are drawn is not in them"
    nothing = len(run.groups) - len(learned)
    if nothing:
        sure += f". {nothing} of {len(run.groups)} groups learned nothing that is told from none, or have too few pairs"
    return [
        ("Fragile", sentence(fragile)), ("Undone by", sentence("; ".join(few) or "no number of pairs that was tried")),
        *([("Firm", sentence(hold))] if hold else []), ("How sure", sentence(sure)),
    ]  # fmt: skip


def undo_table(summary: Mapping[str, Any]) -> str:
    """What undoes a run as plain text."""
    return part_table(summary, "undo", points, lambda part, run: ("group", COLUMNS, _rows(run, part)), 11)


def _rests(part: Mapping[str, Any]) -> str:
    end = (
        "Few pairs bring the mean loss back mostly by harm, moving all answers one way; with all of them the group "
        "turns as a whole. As when a trained model is fine-tuned, the reference of the opposite labels is the trained "
        "model itself; margins are told against the first one."
    )
    if part.get("exact"):
        return f"Runs of the last layer, exact for it, at the same rate as the run. {end}"
    kind = visible(part.get("run") or "longer answers")
    return (
        f"Margins after training are those of the run ({kind}); what opposite labels do to them is the last layer's "
        f"path on the states before training, to first order: a forecast, not a bound. Read shares, not steps. {end}"
        if part.get("run")
        else f"Runs of the last layer, to first order in its movement for longer answers. {end}"
    )


def _steps(row: Mapping[str, Any]) -> str:
    value = number(row.get("steps"))
    return "the first step" if value <= 1 else f"{value:.1f} steps" if value < 10 else f"{value:.0f} steps"


def _pairs(row: Mapping[str, Any]) -> str:
    count = math.ceil(number(row.get("needed")) - 1e-9)
    return f"{count} or fewer" if row.get("needed_low") == row.get("needed_high") else f"{count}"


def _percent(value: Any) -> str:
    found = number(value)
    return "–" if found != found else f"{found:.1%}" if found < 0.1 else f"{found:.0%}"


def _span(row: Mapping[str, Any], name: str) -> str:
    low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
    return "–" if low is None else f"{minus(low)} to {minus(high) if high is not None else 'more'}"


def _rows(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    found = []
    for row in run.groups:
        harm = number(row.get("harm"))
        entries = [
            minus(row.get("trained_pairs", row.get("pairs"))), minus(row.get("loss_after")),
            minus(row.get("steps")), _span(row, "steps"), _percent(row.get("ease")),
            "–" if row.get("needed") is None else _pairs(row), _percent(row.get("accuracy_undone")),
            f"{visible(row.get('harmed'))}, {minus(harm)}" if row.get("harmed") else "–",
        ]  # fmt: skip
        found.append((visible(row.get("name")), entries))
    return found
