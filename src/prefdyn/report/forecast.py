"""The page of a forecast, and of a run held against one: what comes first and how sure, groups by progress, the clock.

Progress and steps are never mixed: curves stand against the fall of the mean held-out loss, and the clock has a
picture of its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn.dynamics.foretold import Foretold
from prefdyn.picture import Line, Picture, Plot
from prefdyn.report.folders import RunFolder
from prefdyn.report.forecast_map import map_drawings, map_words
from prefdyn.report.forecast_modules import modules_drawings, modules_words
from prefdyn.report.forecast_sides import sides_columns, sides_drawing, sides_words
from prefdyn.report.tables import minus
from prefdyn.report.text import cells, cut, padded, visible, wrapped

_FORECAST, _RUN, _GREY = "#2a78d6", "#d9691a", "#9a9a9a"
_ACROSS = 4
_MOST_CURVES = 12
_SMALL = 0.05
"""Falls of fewer nats are drawn in thousandths, whose numbers are short."""
_SHARES = (25, 50, 75, 100)


def forecast_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of a forecast; None where the folder holds none."""
    part = run.part("forecast")
    if not isinstance(part, Mapping):
        return None
    check = run.part("forecast_check")
    return {
        "heading": "Forecast against run" if check else "The forecast",
        "points": points(run, part),
        "columns": [title for title, *_ in _columns(run)],
        "rows": [(visible(row.get("name", "")), _entries(run, row)) for row in run.groups],
        "check_columns": ["Off by", "Worst group", "All groups equal", "Rank correlation", "Inside the band"],
        "check": [_checked(row) for row in (check or {}).get("shares") or []],
    }


def points(run: RunFolder, part: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is told, how far it reaches, when, and what it cost."""
    check = run.part("forecast_check")
    found = [("How good it was" if check else "Order", visible(part.get("says") or ""))]
    found.append(("By progress", _reach(part)))
    found.append(("Clock", _clock_words(run, part)))
    more = {"Chosen and rejected": sides_words(part), "Where it is learned": modules_words(part)}
    more["Other settings"] = map_words(part)
    found += [(label, text) for label, text in more.items() if text is not None and not check]
    found.append(("Made of", _made_of(part)))
    return found


def _reach(part: Mapping[str, Any]) -> str:
    levels = [number(each) for each in part.get("levels") or []]
    horizon = number(part.get("horizon"))
    if not levels or math.isnan(horizon):
        return "Nothing is vouched for: errors are as large as what groups differ by."
    share = (levels[0] - horizon) / (levels[0] - levels[-1])
    beyond = (
        "all that is drawn"
        if share > 0.999
        else f"{100 * share:.0f} % of what is drawn; below that errors may be more than half of what groups differ by, "
        "and lines are grey"
    )
    return (
        f"Groups are told against the mean held-out loss, from {minus(levels[0], 4)} down to {minus(horizon, 4)} "
        f"({beyond}). A band should hold a run nine times of ten on these held-out pairs, whatever its seed."
    )


def _clock_words(run: RunFolder, part: Mapping[str, Any]) -> str:
    clock = part.get("clock") or {}
    steps = [number(each) for each in clock.get("step") or []]
    levels = [number(each) for each in part.get("levels") or []]
    planned = number((run.part("settings") or {}).get("steps"))
    known = [at for at, step in enumerate(steps) if step == step and (math.isnan(planned) or step <= planned)]
    if not known:
        return "Not known."
    at = known[-1]
    low, high = (number((clock.get(key) or [])[at]) for key in ("low", "high"))
    ends = "without an interval" if math.isnan(low) else f"90 % interval {low:.0f} to {high:.0f}"
    late = " A linear run is slower than a real one, so this is late." if clock.get("by") == "linear" else ""
    return (
        f"A mean held-out loss of {minus(levels[at], 4)} is expected at step {steps[at]:.0f} ({ends}). This is a "
        f"second and much less certain forecast.{late}"
    )


def _made_of(part: Mapping[str, Any]) -> str:
    probe, cost = part.get("probe") or {}, part.get("cost") or {}
    count = int(number(part.get("rehearsals") or 0))
    said = []
    if count:
        said.append(
            f"{count} rehearsals with other seeds ({100 * number(cost.get('rehearsals')):.0f} % of the run's pairs)"
        )
    if number(probe.get("steps")):
        said.append(
            f"the run's own first {number(probe.get('steps')):.0f} steps ({100 * number(cost.get('probe')):.0f} %)"
        )
    weights = [number(each) for each in part.get("linear_weight") or []]
    if any(each > 0 for each in weights):
        said.append(
            f"a linear run from there, which counts {100 * np.nanmean(weights[1:]):.0f} % on average by its backtest"
        )
    left = part.get("trained_left_out") or []
    more = f" The linear run leaves out {len(left)} trained weights, such as {visible(left[0])}." if left else ""
    return f"{'; '.join(said) or 'Nothing'}.{more}"


def _columns(run: RunFolder) -> list[tuple[str, tuple[str, ...], int]]:
    """Title, keys and digits of each column."""
    if run.part("forecast_check"):
        return [
            ("Foretold", ("foretold",), 4), ("90 % band", ("low", "high"), 4), ("Run", ("run",), 4),
            ("Off by", ("mean_error",), 2), ("Left its band at step", ("left_band_at_step",), 6),
        ]  # fmt: skip
    found = [("Held out", ("held_out_pairs",), 6), ("Place", ("rank",), 6), ("Tier", ("tier",), 6)]
    found += [(f"Loss at {share} %", (f"loss_{share}",), 4) for share in _SHARES]
    found += [("90 % band", ("loss_100_low", "loss_100_high"), 4), ("Accuracy", ("reward_accuracy_100",), 2)]
    return [*found, *sides_columns(run.groups)]


def _entries(run: RunFolder, row: Mapping[str, Any]) -> list[str]:
    return [" to ".join(minus(row.get(key), digits) for key in keys) for _, keys, digits in _columns(run)]


def _checked(row: Mapping[str, Any]) -> tuple[str, list[str]]:
    entries = [minus(row.get(key)) for key in ("error", "worst", "all_equal", "rank_correlation")]
    inside = number(row.get("inside"))
    return f"{100 * number(row.get('share')):.0f} %", [*entries, f"{100 * inside:.0f} %"]


def forecast_table(summary: Mapping[str, Any]) -> str:
    """The forecast as plain text: what is told, then a line per group."""
    run = RunFolder(path=Path(), summary=summary, trajectory=None, pairs=None)
    part = run.part("forecast")
    if not isinstance(part, Mapping):
        return "No forecast."
    table = [["group", *(title.lower() for title, *_ in _columns(run))]]
    table += [[cut(visible(row.get("name", "")), 40), *_entries(run, row)] for row in run.groups]
    sizes = [max(cells(line[place]) for line in table) for place in range(len(table[0]))]
    lines = [
        "  ".join(padded(entry, sizes[at], right=at > 0) for at, entry in enumerate(line)).rstrip() for line in table
    ]
    said = [line for label, text in points(run, part) for line in wrapped(f"{label}: {text}", 110)]
    return "\n".join([*lines, "", *said])


# beside an audit -----------------------------------------------------------------------------------------------------


def real_run_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What an audit's page shows of a forecast of the real run; None where none was given."""
    part = run.part("real_run")
    if not isinstance(part, Mapping):
        return None
    rows = part.get("rows") or []
    return {
        "points": [("Head and run", visible(part.get("says") or ""))],
        "tables": [
            {
                "heading": "Group by group",
                "intro": "Verdict and place are of the head; the rest is foretold of the real run, in nats of held-out "
                "loss at the last mean loss that is vouched for. Open: the band still holds the loss at the start.",
                "first": "Group",
                "columns": [title for title, _ in _BESIDE],
                "rows": [(visible(row["name"]), [show(row) for _, show in _BESIDE]) for row in rows],
                "fold": 15,
            }
        ],
        "notes": [],
    }


_BESIDE: Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]] = (
    ("Verdict", lambda row: visible(row.get("verdict") or "–")),
    ("Place by head", lambda row: minus(row.get("head_rank"), 6)),
    ("Place in the run", lambda row: minus(row.get("run_rank"), 6)),
    ("Loss at start", lambda row: minus(row.get("start_loss"), 4)),
    ("Loss foretold", lambda row: minus(row.get("loss"), 4)),
    ("90 % band", lambda row: f"{minus(row.get('low'), 4)} to {minus(row.get('high'), 4)}"),
    ("Open", lambda row: {True: "open", False: ""}.get(row.get("open"), "–")),  # type: ignore[call-overload]
)
"""Columns of the table beside the verdicts."""


def real_run_text(summary: Mapping[str, Any]) -> str:
    """The same in a few lines of plain text; empty where no forecast was given."""
    part = summary.get("real_run") or {}
    return "\n".join(wrapped(f"Real run: {visible(part['says'])}", 110)) if part.get("says") else ""


# pictures ------------------------------------------------------------------------------------------------------------


def forecast_drawings(run: RunFolder) -> list[Picture]:
    """Groups by progress, and the clock."""
    if not isinstance(run.part("forecast"), Mapping):
        return []
    told = Foretold.read(run.summary)
    found = [_by_progress(run, told), _clock(run, told)]
    if run.part("forecast_check"):
        return found
    sides = sides_drawing(run.part("forecast"), _shown(run, told)[0], *_fall(told.band.levels), _ACROSS)
    return [*found, *sides, *modules_drawings(run, _order(told).tolist()), *map_drawings(run.part("forecast"))]


def _by_progress(run: RunFolder, told: Foretold) -> Picture:
    band, runs = told.band, _runs(run)
    fall, x_label = _fall(band.levels)
    half, vouched = band.half_width, band.vouched
    order, words = _shown(run, told)
    low, high = _limits(band.centre, runs, np.where(vouched[:, None], half, 0.0), order)  # bands end at the horizon
    plots = []
    for place, code in enumerate(order):
        lines = [
            Line(label="rehearsals" if kind.endswith("-1") else "", x=fall, y=values[:, code], colour=_GREY, width=0.9,
                 style="dotted")
            for kind, values in runs.items() if kind.startswith("rehearsal")
        ]  # fmt: skip
        if "linear" in runs:
            lines.append(
                Line(label="linear run", x=fall, y=runs["linear"][:, code], colour=_GREY, style="dashed", width=1.2)
            )
        centre = band.centre[:, code]
        told_here = np.where(vouched, centre, math.nan)
        beyond = np.where(vouched & np.r_[vouched[1:], False], math.nan, centre)
        lines.append(Line(label="", x=fall, y=beyond, colour=_GREY, width=1.9))
        lines.append(
            Line(label="forecast, 90 % band", x=fall, y=told_here, low=told_here - half[:, code],
                high=told_here + half[:, code],
                 colour=_FORECAST, width=1.9)
        )  # fmt: skip
        if "probe" in runs:
            lines.append(Line(label="the run's first steps", x=fall, y=runs["probe"][:, code], colour=_RUN, width=1.6))
        if "run" in runs:
            lines.append(Line(label="run", x=fall, y=runs["run"][:, code], colour=_RUN, width=1.9))
        plots.append(
            Plot(
                title=visible(told.names[code]),
                x_label=x_label,
                y_label="" if place % _ACROSS else "Held-out loss (nats)",
                y_range=(low, high),
                lines=tuple(lines),
            )
        )
    return Picture(
        id="forecast-curves",
        title="Groups by progress",
        caption=f"{words} Each group's held-out loss against how far the mean over groups has fallen, whichever step "
        "that takes. Blue: the forecast, with its 90 % band; grey: beyond the horizon. Dotted: rehearsals, other "
        "seeds. Dashed: the linear run from the end of the probe. Orange: what was really run.",
        plots=tuple(plots),
        size=(2.15, 1.6),
        across=_ACROSS,
    )


def _clock(run: RunFolder, told: Foretold) -> Picture:
    band = told.band
    fall, x_label = _fall(band.levels)
    step, low, high = told.clock
    lines = [Line(label="foretold, 90 % interval", x=fall, y=step, low=low, high=high, colour=_FORECAST, width=1.9)]
    check = run.part("forecast_check")
    if check:
        real = np.array([number(each) for each in check.get("run_steps") or []])
        lines.append(Line(label="run", x=fall, y=real, colour=_RUN, width=1.9))
    planned = number((run.part("settings") or {}).get("steps"))
    top = np.nanmax(np.r_[step, planned, 1.0])
    return Picture(
        id="forecast-clock",
        title="The clock",
        caption="Which step reaches which fall of the mean held-out loss: a second forecast, much less certain than "
        "that of groups by progress.",
        plots=(
            Plot(
                x_label=x_label,
                y_label="Step",
                y_range=(0.0, float(1.6 * top)),
                lines=tuple(lines),
                marks=() if math.isnan(planned) else (("end of the run", planned),),
            ),
        ),
        size=(5.2, 3.0),
        across=1,
    )


def _fall(levels: np.ndarray) -> tuple[np.ndarray, str]:
    """How far the mean has fallen at each level, and what stands below the axis."""
    fall = levels[0] - levels
    if fall[-1] < _SMALL:
        return 1000 * fall, "Fall of the mean held-out loss (nats / 1000)"
    return fall, "Fall of the mean held-out loss (nats)"


def _runs(run: RunFolder) -> dict[str, np.ndarray]:
    return {
        kind: np.array([[number(each) for each in row] for row in rows])
        for kind, rows in (run.part("forecast", "curves") or {}).items()
    }


def _shown(run: RunFolder, told: Foretold) -> tuple[Sequence[int], str]:
    """Groups that are drawn, the first learned first, and a sentence on which these are."""
    order = _order(told)
    if len(order) <= _MOST_CURVES:
        return order.tolist(), f"All {len(order)} groups, first learned first."
    kept = np.linspace(0, len(order) - 1, _MOST_CURVES).round().astype(int)
    return order[kept].tolist(), f"{_MOST_CURVES} of {len(order)} groups, from the first learned to the last."


def _order(told: Foretold) -> np.ndarray:
    """Groups, the first learned first."""
    use = told.band.vouched
    use = use if use.any() else np.ones(len(use), dtype=bool)
    return np.argsort(np.nanmean(told.band.centre[use], axis=0), kind="stable")


def _limits(
    centre: np.ndarray, runs: Mapping[str, np.ndarray], half: np.ndarray, order: Sequence[int]
) -> tuple[float, float]:
    wide = np.nan_to_num(half)
    every = [centre - wide, centre + wide, *runs.values()]
    values = np.concatenate([each[:, list(order)].ravel() for each in every])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = 0.06 * (high - low or 1.0)
    return low - room, high + room
