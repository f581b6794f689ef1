"""The page of a grid: which setting to take and why, what each does, and whether the order of learning holds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn.picture import Picture
from prefdyn.report.folders import RunFolder
from prefdyn.report.grid_figures import (
    counts_words,
    learning_order_plot,
    most_moving,
    order_stability_plot,
    stability_words,
    steps_plot,
)
from prefdyn.report.tables import minus, shown
from prefdyn.report.text import cells, cut, padded, sentence, visible

_MOST_MAPS = 8
_MOST_SETTINGS = 40
"""Beyond it only the settings with the best held-out accuracy are compared by their order of learning."""
_FIXED = ("objective", "label_smoothing", "optimizer", "schedule", "batch_size", "steps")
"""What one heat map holds fixed; it spans beta and the learning rate."""


def grid_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of a grid of settings; None where the folder holds none."""
    rows = _cells(run)
    if not rows:
        return None
    best = run.part("grid", "best")
    told = grid_chapter_rows(run)
    return {
        "because": _verdict(run, rows),
        "rows": [
            {"name": name, "best": best is not None and place == 0, "numbers": numbers}
            for place, (name, numbers) in enumerate(told)
        ],
        "columns": [label for _, label in COLUMNS],
    }


def grid_chapter_rows(run: RunFolder) -> list[tuple[str, list[str]]]:
    """Name and numbers of every setting, the proposed one first, then by held-out accuracy."""
    found, best = _cells(run), run.part("grid", "best")
    order = sorted(found, key=lambda row: (row.get("cell") != best, -_or(number(row.get("held_out_accuracy")), -1)))
    return [(setting_name(row, found), [_entry(row, key) for key, _ in COLUMNS]) for row in order]


COLUMNS = (
    ("held_out_accuracy", "Held-out accuracy"),
    ("held_out_loss", "Held-out loss"),
    ("steps_to_target", "Steps to target"),
    ("order_agreement", "Order agrees"),
    ("same_as", "Same run as"),
)


def grid_drawings(run: RunFolder) -> list[Picture]:
    """Heat maps over beta and learning rate, and the order of learning over settings."""
    rows = _cells(run)
    if not rows:
        return []
    found = []
    kinds = list(dict.fromkeys(tuple(str(row.get(key, "")) for key in _FIXED) for row in rows))
    best = run.part("grid", "best")
    for place, kind in enumerate(kinds[:_MOST_MAPS]):
        inside = [row for row in rows if tuple(str(row.get(key, "")) for key in _FIXED) == kind]
        picture = _map(inside, place, best, kinds, str(run.part("grid", "because") or ""))
        if picture is not None:
            found.append(picture)
    return [*found, *_orders(run, rows)]


def setting_name(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A setting by what tells it from the others: `sigmoid, beta 0.1, rate 0.01`."""
    words = {"beta": "beta", "learning_rate": "rate", "batch_size": "batch", "steps": "steps"}
    parts = []
    for key in ("objective", "beta", "learning_rate", "optimizer", "schedule", "batch_size", "steps"):
        if len({str(other.get(key)) for other in rows}) > 1:
            value = row.get(key)
            text = f"{value:.3g}" if isinstance(value, float) else visible(value)
            parts.append(f"{words[key]} {text}" if key in words else text)
    return ", ".join(parts) or "the one setting"


def _cells(run: RunFolder) -> list[Mapping[str, Any]]:
    found = run.part("grid", "cells")
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []


def _verdict(run: RunFolder, rows: Sequence[Mapping[str, Any]]) -> str:
    best = run.part("grid", "best")
    because = visible(run.part("grid", "because") or "")
    lost = sum(row.get("diverged_at") is not None for row in rows)
    tail = f" {lost} of {len(rows)} settings diverged." if lost else ""
    name = next((setting_name(row, rows) for row in rows if row.get("cell") == best), None)
    return (f"Take {name}: {because}." if name else sentence(because)) + tail


def _entry(row: Mapping[str, Any], key: str) -> str:
    if key == "steps_to_target" and row.get("diverged_at") is not None:
        return f"diverged at {row['diverged_at']}"
    if key == "same_as":
        return "" if row.get("same_as") == row.get("cell") else f"#{row.get('same_as')}"
    return minus(row.get(key))


def _map(
    inside: Sequence[Mapping[str, Any]], place: int, best: Any, kinds: Sequence[tuple[str, ...]], because: str
) -> Picture | None:
    betas = sorted({number(row.get("beta")) for row in inside})
    rates = sorted({number(row.get("learning_rate")) for row in inside})
    if len(betas) * len(rates) < 2 or any(map(math.isnan, [*betas, *rates])):
        return None
    steps = np.full((len(betas), len(rates)), np.nan)
    lost = np.zeros(steps.shape, dtype=bool)
    mark = None
    for row in inside:
        at = betas.index(number(row.get("beta"))), rates.index(number(row.get("learning_rate")))
        steps[at] = number(row.get("steps_to_target"))
        lost[at] = row.get("diverged_at") is not None
        mark = at if row.get("cell") == best else mark
    targets = sorted({target for row in inside if not math.isnan(target := number(row.get("target")))})
    goal = f"held-out loss {shown(targets[0])}" if len(targets) == 1 else "the target of its beta"
    unlike = [
        entry for entry, column in zip(kinds[place], zip(*kinds, strict=True), strict=True) if len(set(column)) > 1
    ]
    what = ", ".join(
        [str(inside[0].get("objective")), *(word for word in unlike if word != inside[0].get("objective"))]
    )
    framed = "" if mark is None else f" Framed: the setting that is proposed, {visible(because)}."
    return Picture(
        id=f"steps-{place}",
        title=f"Steps to the target: {visible(what)}",
        caption="Every beta and learning rate of this kind of run: how many steps until the loss on held-out pairs is "
        f"at its target. {counts_words(steps, lost, target=goal)}{framed}",
        plots=(steps_plot(steps, betas, rates, diverged=lost, best=mark),),
    )


def _orders(run: RunFolder, rows: Sequence[Mapping[str, Any]]) -> list[Picture]:
    ranks = np.array([[number(value) for value in row.get("ranks") or []] for row in run.groups])
    if ranks.ndim != 2 or ranks.shape[1] != len(rows) or ranks.shape[0] < 3:
        return []
    alive = [place for place, row in enumerate(rows) if row.get("diverged_at") is None and row.get("same_as") == place]
    alive = sorted(alive, key=lambda place: -_or(number(rows[place].get("held_out_accuracy")), -1))[:_MOST_SETTINGS]
    if len(alive) < 2:
        return []
    chosen = sorted(alive)
    names = [setting_name(rows[place], rows) for place in chosen]
    some = ranks[:, chosen]
    cut = f" The {len(chosen)} settings with the best held-out accuracy." if len(chosen) == _MOST_SETTINGS else ""
    coloured = len(most_moving(some))
    words = "" if coloured == len(some) else f" Coloured: the {coloured} of {len(some)} whose place varies most."
    return [
        Picture(
            id="order-stability",
            title="Does the order of learning hold?",
            caption="Rank correlation of the order in which groups are learned, between every two settings that are "
            f"not the same run.{cut} Near 1 everywhere: the order is a property of the data, not of the settings. "
            f"{stability_words(some)}",
            plots=(order_stability_plot(some, names),),
        ),
        Picture(
            id="learning-order",
            title="The order of learning, setting by setting",
            caption=f"Place of each group, 1 is learned first.{cut} Lines that cross are groups whose place the "
            f"settings decide. A line breaks where a group is not learned.{words}",
            plots=(learning_order_plot(some, list(run.labels), names),),
            size=(min(6.0, max(1.4, 0.9 * (len(names) - 1))), max(1.4, min(5.0, 0.26 * len(some)))),
        ),
    ]


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def grid_table(summary: Mapping[str, Any], *, most: int = 30) -> str:
    """The settings as plain text, the proposed one first, then by held-out accuracy; the reason last."""
    run = RunFolder(path=Path(), summary=summary, trajectory=None, pairs=None)
    found = grid_chapter_rows(run)
    if not found:
        return "No settings."
    titles = ["setting", *(label.lower() for _, label in COLUMNS)]
    rows = [[cut(name, 60), *numbers] for name, numbers in found[:most]]
    sizes = [max(cells(row[place]) for row in [titles, *rows]) for place in range(len(titles))]
    lines = []
    for row in [titles, *rows]:
        entries = [padded(entry, sizes[place], right=place > 0) for place, entry in enumerate(row)]
        lines.append("  ".join(entries).rstrip())
    more = [f"… and {len(found) - most} more; cells.csv has all {len(found)}"] if len(found) > most else []
    return "\n".join([*lines, *more, "", _verdict(run, _cells(run))])
