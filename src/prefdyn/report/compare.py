"""The chapter on two runs side by side: how they agree, group by group, and in which settings they differ."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn.picture import Layer, Line, Marker, Picture, Plot
from prefdyn.planning.compare import Side
from prefdyn.report.curves import AXES
from prefdyn.report.folders import RunFolder, read_folder
from prefdyn.report.shown_groups import for_groups, measured, rank_orders, sorted_codes
from prefdyn.report.tables import minus, shown
from prefdyn.report.text import cells, padded, sentence, shorten, visible, wrapped

FIRST, SECOND = "#2a78d6", "#d9691a"
"""Colours of the two runs."""
_MARKERS: tuple[Marker, ...] = ("ring", "dot", "diamond", "triangle")
"""Before and after, of the first run that was measured and of the other."""
_ACROSS = 4
_TITLES = {"loss": "Loss", "margin": "Reward margin"}
_MOST_CURVES = 12
"""So many groups' curves are drawn; with more, some from the first learned to the last, and those that fit least."""
_WORST = 4
_SPLITS = {"train": "training pairs", "held_out": "held-out pairs"}
_COLUMNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("first_place", "second_place"), "Place"),
    (("first_loss", "second_loss"), "Final loss"),
    (("loss_error",), "Loss error"),
    (("loss_error_rescaled",), "rescaled"),
    (("loss_error_rescaled_relative",), "of the movement"),
    (("margin_error_rescaled",), "Margin error, rescaled"),
    (("first_steps_to_half", "second_steps_to_half"), "Steps half way"),
    (("first_chosen_change", "second_chosen_change"), "Chosen, nats"),
    (("first_rejected_change", "second_rejected_change"), "Rejected, nats"),
    (("steps_to_undo",), "Steps to undo"),
)
"""Keys of a row and the title of their column; two keys stand side by side, the first run's first."""


def side(folder: Path) -> Side:
    """The run in an output folder, as one of two to compare.

    Raises:
        StoreError: The folder cannot be read.
        ConfigError: It holds no run, or several.
    """
    found = read_folder(folder)
    run = found.run()
    sizes = {}
    for row in found.rows:
        if row.pairs is not None:
            sizes[row.name] = row.pairs - (row.held_out_pairs or 0)
    return Side(folder=str(folder), command=str(found.part("command")), run=run, sizes=sizes)


def compare_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of two runs; None where the folder compares none."""
    part = run.part("comparison")
    if not isinstance(part, Mapping):
        return None
    names = _names(run)
    rows = _rows(run)
    columns = _columns(rows)
    return {
        "heading": _heading(part),
        "lead": lead(run),
        "intro": _intro(part, names),
        "columns": [label for _, label in columns],
        "rows": [(visible(row.get("group", "")), [_entries(row, keys) for keys, _ in columns]) for row in rows],
        "errors": _errors(part),
        "settings": [
            (visible(item.get("name", "")).replace("_", " "), _setting(item.get("first")), _setting(item.get("second")))
            for item in part.get("settings") or []
        ],
        "names": names,
        "folders": [visible(name) for name in part.get("folders") or []],
    }


def lead(run: RunFolder) -> str:
    """The answer in two or three sentences: order, pace, what is left."""
    part = run.part("comparison") or {}
    one, two = _names(run)
    order, size = part.get("order") or {}, part.get("order_by_size") or {}
    pace = part.get("rescaling") or {}
    said = [f"Order of learning, {one} against {two}: {_correlation(order)}"]
    if not math.isnan(number(order.get("value"))):
        said.append(f"The number of pairs alone, in place of {one}, gives {_correlation(size)}")
    factor = number(pace.get("factor"))
    if math.isnan(factor):
        said.append(f"No rescaling of time was fitted: {sentence(pace.get('because'))}")
    else:
        edge = " (an end of what was tried, so no estimate)" if pace.get("at_edge") else ""
        error = ((part.get("errors") or {}).get(part.get("split")) or {}).get("loss_rescaled") or {}
        plain = ((part.get("errors") or {}).get(part.get("split")) or {}).get("loss") or {}
        said.append(
            f"One step of {one} is as much as {shown(factor)} of {two}{edge}; so rescaled, the {_split(part)} losses "
            f"are {shown(error.get('rms'))} nats apart{_percent(error, one)}, and {shown(plain.get('rms'))} step for "
            f"step{_percent(plain, None)}."
        )
    return " ".join(said)


def compare_drawings(run: RunFolder) -> list[Picture]:
    """Curves of both runs, group by group."""
    if run.trajectory is None or "side" not in run.trajectory.schema.names:
        return []
    found = [_curves(run, run.part("comparison"), quantity) for quantity in ("loss", "margin")]
    return [picture for picture in found if picture is not None]


def compare_table(summary: Mapping[str, Any], *, most: int = 40, width: int = 110) -> str:
    """Two runs side by side as plain text: a line per group, then what all of them say together."""
    run = RunFolder(path=Path(), summary=summary, trajectory=None, pairs=None)
    names, rows = _names(run), _rows(run)
    keys = ("first_place", "second_place", "first_loss", "second_loss", "loss_error", "loss_error_rescaled")
    titles = ["group", "place", "place", "loss", "loss", "error", "rescaled"]
    above = ["", *([shorten(names[0], 14), shorten(names[1], 14)] * 2), "", ""]
    table = [above, titles]
    table += [[shorten(visible(row.get("group", "")), 40), *(_entry(row, key) for key in keys)] for row in rows[:most]]
    sizes = [max(cells(line[place]) for line in table) for place in range(len(titles))]
    lines = [
        "  ".join(padded(cell, sizes[at], right=at > 0) for at, cell in enumerate(line)).rstrip() for line in table
    ]
    if len(rows) > most:
        lines.append(f"… and {len(rows) - most} more; groups.csv has all {len(rows)}")
    part = run.part("comparison") or {}
    told = [f"place: in the order of learning · loss: at the end, {_split(part)} pairs · error: root mean square, nats"]
    differing = [visible(item.get("name", "")) for item in part.get("settings") or []]
    settings = [f"Settings that differ: {', '.join(differing)}."] if differing else []
    words = [line for text in (lead(run).replace("−", "-"), *settings) for line in wrapped(text, width)]
    return "\n".join([*lines, "", *told, *words])


# pieces -------------------------------------------------------------------------------------------------------------


def _names(run: RunFolder) -> tuple[str, str]:
    found = run.part("comparison", "names") or ["first", "second"]
    return visible(found[0]), visible(found[1])


def _split(part: Mapping[str, Any]) -> str:
    return str(part.get("split") or "train").replace("_", "-").replace("train", "training")


def _heading(part: Mapping[str, Any]) -> str:
    commands = part.get("commands") or []
    return "Prediction against training" if "train" in commands and len(set(commands)) > 1 else "Two runs side by side"


def _rows(run: RunFolder) -> list[Mapping[str, Any]]:
    """The judged rows, first learned in the second run on top."""
    split = run.part("comparison", "split")
    rows = [row for row in run.part("comparison", "rows") or [] if row.get("split") == split]
    return sorted(rows, key=lambda row: (math.isnan(number(row.get("second_place"))), number(row.get("second_place"))))


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[tuple[str, ...], str]]:
    """Columns with a number in them; those of losses asked for come last."""
    asked = dict.fromkeys(loss for key in (rows[0] if rows else {}) if (loss := key.partition("_steps_to_")[2]))
    every = [
        *_COLUMNS,
        *(
            ((f"first_steps_to_{loss}", f"second_steps_to_{loss}"), f"Steps to {loss}")
            for loss in asked
            if loss != "half"
        ),
    ]
    return [
        (keys, label)
        for keys, label in every
        if any(not math.isnan(number(row.get(key))) for row in rows for key in keys)
    ]


def _entries(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    return " / ".join(_entry(row, key) for key in keys)


def _entry(row: Mapping[str, Any], key: str) -> str:
    value = number(row.get(key))
    if key.endswith("_relative"):
        return "–" if math.isnan(value) else f"{100 * value:.0f} %"
    if key.endswith("_place"):
        return "–" if math.isnan(value) else f"{value:.0f}"
    return minus(row.get(key))


def _percent(error: Mapping[str, Any], name: str | None) -> str:
    value = number(error.get("relative"))
    of = "" if name is None else f" of how far those of {name} move"
    return "" if math.isnan(value) else f" ({100 * value:.0f} %{of})"


def _correlation(found: Mapping[str, Any]) -> str:
    value = number(found.get("value"))
    if math.isnan(value):
        return f"none ({visible(found.get('because') or 'not measured')})."
    low, high = number(found.get("low")), number(found.get("high"))
    p_value, groups = number(found.get("p_value")), found.get("groups")
    if math.isnan(low):
        ends = f"without an interval: {visible(found.get('because') or '')}"
        return f"rank correlation {value:.2f} (p = {p_value:.2g}, {groups} groups; {ends}).".replace("-", "−")
    return (
        f"rank correlation {value:.2f} (95 % interval {low:.2f} to {high:.2f}, p = {p_value:.2g}, {groups} groups)."
    ).replace("-", "−")


def _intro(part: Mapping[str, Any], names: tuple[str, str]) -> str:
    one, two = names
    said = (
        "Curves are compared over the steps that both runs cover; between the steps that a run recorded, its curve "
        "is the straight line. A run may simply be slower, so errors stand as they are and with time rescaled by "
        f"one factor for all groups, the one that brings the {_split(part)} losses closest (least squares). Order: "
        f"area under a group's {_split(part)} loss, smallest first."
    )
    pace = part.get("rescaling") or {}
    share = number(pace.get("share_first"))
    if not math.isnan(share):
        said += (
            f" Rescaled, {100 * share:.0f} % of the steps of {one} and {100 * number(pace.get('share_second')):.0f} "
            f"% of those of {two} are compared."
        )
    return said


def _errors(part: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """One line per split and quantity: as it is, rescaled, each in units and as a share."""
    found = []
    for split, kinds in (part.get("errors") or {}).items():
        for quantity in ("loss", "margin"):
            cells = []
            for kind in (quantity, f"{quantity}_rescaled"):
                error = kinds.get(kind) or {}
                share = number(error.get("relative"))
                cells += [shown(error.get("rms")), "–" if math.isnan(share) else f"{100 * share:.3g} %"]
            found.append((f"{quantity.capitalize()}, {_SPLITS.get(split, split)}", cells))
    return found


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return minus(value, 4) if isinstance(value, float) else visible(value)


def _curves(run: RunFolder, part: Mapping[str, Any], quantity: str) -> Picture | None:
    rows, (one, two) = _rows(run), _names(run)
    chosen, words = _selected(rows)
    table = _sides(run, str(part.get("split")), quantity)
    chosen = [row for row in chosen if all((str(row.get("group")), side) in table for side in ("first", "second"))]
    if not chosen:
        return None
    factor = number(part.get("rescaling", {}).get("factor"))
    rescaled = None if math.isnan(factor) or part.get("rescaling", {}).get("at_edge") else factor
    pairs = [tuple(table[str(row.get("group")), side] for side in ("first", "second")) for row in chosen]
    last = max(float(steps.max()) for pair in pairs for steps, _ in pair)
    marks = _level(quantity, [float(first[1][0]) for first, _ in pairs])
    values = [*(values for pair in pairs for _, values in pair), np.array([height for _, height in marks])]
    low, high = (float(limit(np.concatenate(values))) for limit in (np.min, np.max))
    room = 0.06 * (high - low or abs(high) or 1.0)
    plots = []
    for place, (row, (first, second)) in enumerate(zip(chosen, pairs, strict=True)):
        error = number(row.get(f"{quantity}_error_rescaled_relative"))
        lines = [Line(label=two, x=second[0], y=second[1], colour=SECOND, width=1.6)]
        if rescaled:
            inside = second[0] / rescaled <= last
            label = f"{two}, steps divided by {rescaled:.3g}"
            x, y = second[0][inside] / rescaled, second[1][inside]
            lines.append(Line(label=label, x=x, y=y, colour=SECOND, style="dashed", width=1.3))
        lines.append(Line(label=one, x=first[0], y=first[1], colour=FIRST, width=1.9))
        plots.append(
            Plot(
                title=visible(row.get("group", "")),
                note="" if math.isnan(error) else f"error {100 * error:.0f} % rescaled",
                x_label="Step (logarithmic)",
                y_label="" if place % _ACROSS else AXES[quantity],
                x_scale="step",
                x_range=(0, last),
                y_range=(low - room, high + room),
                lines=tuple(lines),
                marks=marks,
            )
        )
    return Picture(
        id=f"compare-{quantity}",
        title=f"{_TITLES[quantity]} of both runs, {_SPLITS.get(str(part.get('split')), '')}",
        caption=f"{words} Solid: {one} and {two}, each at its own steps. Dashed: {two} with its steps divided by the "
        "one factor that brings all groups' losses closest. Below each name: what is then left, over how far the "
        f"curve of {one} moves.",
        plots=tuple(plots),
        size=(2.15, 1.5),
        across=_ACROSS,
    )


def _level(quantity: str, starts: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """A level to mark: 0 for margins, and for losses log 2 where all start there."""
    if quantity == "margin":
        return (("", 0.0),)
    return (("log 2", math.log(2)),) if max(abs(start - math.log(2)) for start in starts) < 1e-6 else ()


def _selected(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], str]:
    """The groups whose curves are drawn, in their order of learning, and a sentence on which these are."""
    if len(rows) <= _MOST_CURVES:
        return list(rows), f"{'All' if len(rows) > 1 else 'The'} {len(rows)} groups, first learned first."[:60]
    error = [number(row.get("loss_error_rescaled_relative")) for row in rows]
    worst = sorted(
        range(len(rows)), key=lambda at: (math.isnan(error[at]), -error[at] if error[at] == error[at] else 0)
    )
    spread = np.linspace(0, len(rows) - 1, _MOST_CURVES - _WORST).round().astype(int).tolist()
    kept = list(dict.fromkeys([*spread, *worst]))[:_MOST_CURVES]
    return (
        [rows[at] for at in sorted(kept)],
        f"{len(kept)} of {len(rows)} groups, from the first learned to the last, with those whose curves fit least.",
    )


def _sides(run: RunFolder, split: str, quantity: str) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Steps and values of each group and side in its joint run."""
    assert run.trajectory is not None
    names = ("side", "run", "split", "group", "step", quantity)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for side, which, part, group, step, value in zip(
        *(run.trajectory[name].to_pylist() for name in names), strict=True
    ):
        if which == "joint" and part == split and not math.isnan(number(value)):
            found.setdefault((group, side), []).append((float(step), number(value)))
    return {key: (np.array([at for at, _ in rows]), np.array([to for _, to in rows])) for key, rows in found.items()}


def order_places(run: RunFolder) -> Picture | None:
    """Place of each group in the order of learning of both runs."""
    places = {side: _of_rows(run, f"{side}_place") for side in ("first", "second")}
    both = np.isfinite(places["first"]) & np.isfinite(places["second"])
    if both.sum() < 2:
        return None
    one, two = _names(run)
    part = run.part("comparison")
    arrays = {side: np.where(both, values, math.nan) for side, values in places.items()}
    arrays |= {"low": np.fmin(*arrays.values()), "high": np.fmax(*arrays.values())}
    return Picture(
        id="compare-order",
        title="Order of learning",
        kind="dots",
        caption=f"Each row is a group, first learned by {two} on top; a line shows how far the two runs' places of it "
        f"are apart. {sentence(_correlation(part.get('order') or {}))} By the number of pairs alone: "
        f"{_correlation(part.get('order_by_size') or {})}",
        x_label="Place in the order of learning (1 is learned first)",
        y_label="",
        arrays=arrays,
        layers=(
            Layer(label=one, values="first", low="low", high="high"),
            Layer(label=two, values="second", marker="tick"),
        ),
        orders=(
            (f"as in {two}", sorted_codes(arrays["second"], falling=False)),
            (f"as in {one}", sorted_codes(arrays["first"], falling=False)),
            ("as in the data", tuple(range(len(run.groups)))),
        ),
        options={"whole": True},
        **for_groups(run),
    )


def distinguishability(run: RunFolder) -> Picture | None:
    """How far apart both runs hold the two answers of each group, before and after."""
    return _separability(
        run,
        "distinguishability",
        "Distinguishability before and after",
        "How far apart the model holds the two answers of each group, on the states of its training pairs, before the "
        "first step and after the last.",
        "Distinguishability (feature units)",
    )


def spread(run: RunFolder) -> Picture | None:
    """The spread of each group before and after."""
    return _separability(
        run,
        "spread",
        "Spread before and after",
        "The variance of a class over the squared distance of the two answers: where it falls, training has pulled "
        "them apart.",
        "Spread (trace / distinguishability²)",
    )


def _separability(run: RunFolder, what: str, title: str, caption: str, axis: str) -> Picture | None:
    keys = [f"{side}_{what}_{when}" for side in ("first", "second") for when in ("before", "after")]
    # states of training pairs where both splits were measured: there are more of them
    arrays = {key: _of_rows(run, key, split="train") for key in keys}
    known = measured(arrays, keys)
    if not known:
        return None
    labels = {f"{side}_{what}": name for side, name in zip(("first", "second"), _names(run), strict=True)}
    layers = [
        Layer(label=f"{labels[key.rpartition('_')[0]]}, {key.rpartition('_')[2]}", values=key, marker=marker)
        for key, marker in zip(known, _MARKERS, strict=False)
    ]
    values = np.concatenate([arrays[key] for key in known])
    values = values[np.isfinite(values)]
    log = what == "spread" and values.min() > 0 and values.max() > 10 * values.min()
    return Picture(
        id=f"compare-{what}",
        title=title,
        kind="dots",
        caption=caption,
        x_label=f"{axis.removesuffix(')')}, logarithmic)" if log else axis,
        y_label="",
        arrays={key: arrays[key] for key in known},
        layers=tuple(layers),
        orders=rank_orders(run, "largest at the end first", arrays[known[-1]]),
        options={"log": True} if log else {"low": 0.0},
        **for_groups(run),
    )


def _of_rows(run: RunFolder, key: str, *, split: str | None = None) -> np.ndarray:
    """(m,) one number of every group, of these pairs where they were measured, else of those that are judged."""
    found = {row.get("group"): row for row in _rows(run)}
    rows = run.part("comparison", "rows") or []
    found |= {row.get("group"): row for row in rows if split is not None and row.get("split") == split}
    return np.array([number(found.get(name, {}).get(key)) for name in run.names])
