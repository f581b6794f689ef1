"""What is drawn: the papers' arrangement, with what stands beside it here as further files of the same figure."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.context import MODEL, TWIN, Context
from prefdyn.experiments.published import STATED_EXAMPLES, VALUE_TABLES, VALUES
from prefdyn.experiments.recipe import Figure, Line, Panel, mean_line, shades
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.statistics import over_seeds, straight_line
from prefdyn.experiments.value_scaling.measures import LAWS, SPLITS, Landed, Runs, ring_of
from prefdyn.experiments.values import Sets, mean_curve
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import LOG2
from prefdyn.theory.value_scaling import LOG3, margin_lines, noiseless_margin, noiseless_time, scaled_time

_B = "2408.03459"
_FIGURE, _FIT = f"{_B}-fig05", f"{_B}-fit01"
_BAND = "Lines: mean of the seeds; bands: their range. Purple is the smallest number of values, yellow the largest."
_SHOWN = {"margin": "Reward margin", "loss": "Loss (nats)", "reward_accuracy": "Reward accuracy"}
_PICTURED = 4
"""Values of the picture of clusters."""


def figures_of(context: Context, landed: Landed, measured: Rows) -> tuple[Figure, ...]:
    """All figures and tables, in the order of the catalogue."""
    wholes, counts = landed.wholes, list(landed.sets)
    other = wholes.get("other", wholes["whole"])
    tables = (wholes["table"], wholes.get("other table", wholes["table"]))
    first = landed.feats[landed.seeds[0]]
    drawn = {
        "fig07": (wholes["whole"], "loss"), "fig08": (wholes["whole"], "reward_accuracy"), "fig09": (other, "margin"),
        "fig10": (other, "loss"), "fig11": (other, "reward_accuracy"),
    }  # fmt: skip
    return (
        _statements(context, landed.sets),
        _clouds(first, landed.sets),
        _plane(first, landed.sets),
        _margins(landed),
        _lines(landed),
        _conditions(landed, measured.facts["theorem"]),
        _powers(measured, counts),
        *(_whole(f"{_B}-{id}", runs, quantity, counts, landed.seeds) for id, (runs, quantity) in drawn.items()),
        *(_table(number, runs, landed.seeds) for number, runs in zip(VALUE_TABLES, tables, strict=True)),
        _fit(measured, counts),
        _laws(measured, counts),
    )


def notes_of(context: Context, landed: Landed) -> tuple[str, ...]:
    """What the reader must know: what stood in for what, and what was left out."""
    notes = ["Figures 1 and 2 are illustrations in the paper; here they show statements and states of this data."]
    numbers = list(landed.sets)
    if numbers[-1] < max(VALUES):
        notes.append(f"There are groups for K up to {numbers[-1]}, so the figures end there.")
    if all(set(landed.sets[few]) <= set(landed.sets[more]) for few, more in pairwise(numbers)):
        notes.append("The published sets of values are not used: each set is a part of the next, drawn from this data.")
    if "other" not in landed.wholes:
        notes.append("One model was given: Figures 9 to 11 and Table 2 are drawn from it, their claims not tested.")
    if context.compat:
        notes.append(
            "The published plots read runs at half a power of ten under the rate that the paper states (X-21)."
        )
        if "adam, code" not in landed.heads:
            notes.append("The final norm of this model is no RMSNorm, so the code's second norm does not apply to it.")
    return tuple(notes)


# illustrations -------------------------------------------------------------------------------------------------------


def _statements(context: Context, sets: Sets) -> Figure:
    data = context.answers()
    name = STATED_EXAMPLES if STATED_EXAMPLES in data.groups else sets[1][0]
    rows = data.select([name]).table.select(["prompt", "chosen"]).to_pylist()
    answers = sorted({row["chosen"] for row in rows}, reverse=True)
    texts = [
        (f"chosen: {answer.strip()}", row["prompt"])
        for answer in answers
        for row in [row for row in rows if row["chosen"] == answer][:2]
    ]
    return Figure(
        spec=spec_of(f"{_B}-fig01"),
        part="a",
        panels=(Panel(kind="texts", title=name, rows=tuple(texts)),),
        caption=f"Statements of the value “{name}”, as the model reads them.",
    )


def _clouds(feats: FeatureSet, sets: Sets) -> Figure:
    """Where the states of some values lie, in the plane of their largest variance."""
    names = sets[min(_PICTURED, max(sets))]
    part = feats.select(np.concatenate([feats.members(name) for name in names]))
    states = part.states.astype(np.float64) - part.states.mean(axis=0, dtype=np.float64)
    plane = states @ np.linalg.svd(states, full_matrices=False)[2][:2].T
    panels = []
    for title, sign in (("(a) statements that fit", 1), ("(b) statements that do not", -1)):
        lines = []
        for name, shade in zip(names, shades(len(names)), strict=True):
            signs = part.signs(name)
            assert signs is not None
            points = plane[part.members(name)[signs == sign]]
            lines.append(Line(label=name, x=points[:, 0], y=points[:, 1], shade=shade, style="points"))
        panels.append(
            Panel(
                kind="clouds", title=title, x_label="First principal component", y_label="Second principal component",
                lines=tuple(lines),
            )
        )  # fmt: skip
    return Figure(
        spec=spec_of(f"{_B}-fig01"),
        part="b",
        panels=tuple(panels),
        caption="An illustration in the paper. Here: final states of the statements of four values, or as many as "
        "there are, in the plane of their largest variance; one seed.",
    )


def _plane(feats: FeatureSet, sets: Sets) -> Figure:
    """Two values along the directions of their own: where the paper's model has four clusters on two axes."""
    names = sets[2]
    states = {name: feats.states[feats.members(name)].astype(np.float64) for name in names}
    signs = {name: feats.signs(name) for name in names}
    axes, middles = [], []
    for name in names:
        up, down = (states[name][signs[name] == side].mean(axis=0) for side in (1, -1))
        axes.append((up - down) / np.linalg.norm(up - down))
        middles.append((up + down) / 2)
    lines = []
    for name, shade in zip(names, (0.1, 0.7), strict=True):
        points = (states[name] - np.mean(middles, axis=0)) @ np.stack(axes).T
        for side, word, lighter in ((1, "fits", 0.0), (-1, "does not", 0.2)):
            chosen = points[signs[name] == side]
            lines.append(
                Line(label=f"{word}: {name}", x=chosen[:, 0], y=chosen[:, 1], shade=shade + lighter, style="points")
            )
    cosine = float(axes[0] @ axes[1])
    return Figure(
        spec=spec_of(f"{_B}-fig02"),
        panels=(
            Panel(
                kind="clouds", x_label="Along the gap of the first value", y_label="Along the gap of the second",
                lines=tuple(lines),
            ),
        ),
        caption="An illustration in the paper. Here: final states of two values, less their common middle, along the "
        f"directions between the two classes of each, whose cosine is {cosine:.2f}; the paper's model has it 0. One "
        "seed.",
    )  # fmt: skip


# training ------------------------------------------------------------------------------------------------------------


def _curves(runs: Runs, quantity: str, split: str, counts: Sequence[int], seeds: Sequence[int]) -> tuple[Line, ...]:
    lines = []
    for place, (count, shade) in enumerate(zip(counts, shades(len(counts)), strict=True)):
        curves = [mean_curve(runs[MODEL, seed][place], quantity, split) for seed in seeds]
        steps = curves[0][0]
        lines.append(
            mean_line(
                f"K = {count}", steps.tolist(), [np.interp(steps, *curve).tolist() for curve in curves], shade=shade
            )
        )
    return tuple(lines)


def _margins(landed: Landed) -> Figure:
    kinds = {
        "last layer": landed.heads["adam"],
        "whole model": landed.wholes["whole"],
        "last layer, norm twice as in the code": landed.heads.get("adam, code"),
        "whole model, rate of the plots": landed.wholes.get("whole, code"),
    }
    known = [(name, runs) for name, runs in kinds.items() if runs is not None]
    panels = []
    for name, runs in known:
        for split, word in SPLITS.items():
            panels.append(
                Panel(
                    kind="lines",
                    title=f"({'abcdefgh'[len(panels)]}) {name}, {word}",
                    x_label="Step",
                    y_label="Reward margin",
                    lines=_curves(runs, "margin", split, list(landed.sets), landed.seeds),
                )
            )
    head, whole = (runs[MODEL, landed.seeds[0]][0].settings for _, runs in known[:2])
    return Figure(
        spec=spec_of(_FIGURE),
        panels=tuple(panels),
        caption=f"Mean reward margin of K values trained together, beta {head['beta']:g}. Last layer: Adam, rate "
        f"{head['learning_rate']:.3g}, full batch. {_told(whole)} {_BAND}",
    )


def _told(settings: Mapping[str, Any]) -> str:
    """How whole models were trained."""
    return (
        f"Whole model: {settings['optimizer']}, rate {settings['learning_rate']:.3g}, batches of "
        f"{settings['batch_size']}."
    )


def _lines(landed: Landed) -> Figure:
    """Margins by gradient descent over the theorem's own time, between its lines, beside the solution without noise."""
    seed, grid = landed.seeds[0], np.linspace(0, float(noiseless_time(LOG3)), 60)
    lines = []
    for place, (count, shade) in enumerate(zip(landed.sets, shades(len(landed.sets)), strict=True)):
        if (shape := landed.shapes[seed][count]) is None:
            continue
        run = landed.heads["descent"][MODEL, seed][place]
        steps, margins = mean_curve(run, "margin", "train")
        setting = {name: run.settings[name] for name in ("beta", "learning_rate")}
        time = scaled_time(count, steps=steps, half_gap=shape.half_gap, **setting)
        there = grid[grid <= time[-1]]
        lines.append(Line(label=f"K = {count}", x=there, y=np.interp(there, time, margins), shade=shade))
    short = np.linspace(0, LOG3 / 5, 2)
    lower, upper = margin_lines(short)
    lines += [
        Line(label="without noise", x=grid, y=noiseless_margin(grid), style="dotted"),
        Line(label="r_U and r_L, up to tau_1", x=short, y=upper, style="dashed"),
        Line(label="r_U and r_L, up to tau_1", x=short, y=lower, style="dashed"),
    ]
    return Figure(
        spec=spec_of(_FIGURE),
        part="e",
        panels=(
            Panel(
                kind="lines", x_label="Scaled time β²h²ηt/K", y_label="Mean training margin", lines=tuple(lines),
                marks=(("log 3", LOG3),),
            ),
        ),
        caption="Last layer by plain gradient descent, in the time of Theorem 4.2: all K would follow the dotted line "
        "if values were the paper's clusters without noise. h is half the mean gap between the two classes of a "
        "value. One seed.",
    )  # fmt: skip


def _conditions(landed: Landed, theorem: Mapping[str, Any]) -> Figure:
    """What Theorem 4.2 asks, as measured for each K, and how single margins lie to its lines."""
    counts = list(landed.sets)
    told: dict[str, dict[int, str]] = {}
    for count, shape in landed.shapes[landed.seeds[0]].items():
        for condition in () if shape is None else (*shape.model.conditions(), *shape.conditions):
            if condition.comparison:
                word = "holds" if condition.holds else "fails"
                told.setdefault(condition.says, {})[count] = f"{condition.comparison}: {word}"
    rows = [(says, *(cells.get(count, "–") for count in counts)) for says, cells in told.items()]
    for label, key in (("tau_1, steps", "horizon"), ("smallest margin / r_L", "low"), ("r_U / largest margin", "high")):
        values = [theorem[key].get(count, math.nan) for count in counts]
        rows.append((label, *("–" if math.isnan(value) else f"{value:.3g}" for value in values)))
    return Figure(
        spec=spec_of(_FIGURE),
        part="f",
        panels=(Panel(kind="table", columns=("", *(f"K = {count}" for count in counts)), rows=tuple(rows)),),
        caption="What Theorem 4.2 asks of the data, with what is measured and its limit, for the first seed. Below, "
        "single training margins over its lines up to tau_1, over all seeds: 1 or more where a line holds; none where "
        "tau_1 is under one step.",
    )


def _powers(measured: Rows, counts: Sequence[int]) -> Figure:
    x = np.log2(counts)
    lines = []
    for way, source, label, shade in (
        ("descent", MODEL, "gradient descent", 0.1), ("descent", TWIN, "gradient descent, untrained twin", 0.35),
        ("adam", MODEL, "Adam", 0.6), ("adam", TWIN, "Adam, untrained twin", 0.85),
    ):  # fmt: skip
        there = {"figure": ring_of(way), "split": "train", "step": "early"}
        rows = [np.array(row) for row in measured.by_seed("margin", there, source)]
        if all((row > 0).all() for row in rows):
            lines.append(mean_line(label, x.tolist(), [np.log2(row / row[0]).tolist() for row in rows], shade=shade))
    lines += [Line(label="1/K", x=x, y=-x, style="dashed"), Line(label="1/√K", x=x, y=-x / 2, style="dotted")]
    return Figure(
        spec=spec_of(_FIGURE),
        part="g",
        panels=(
            Panel(kind="lines", x_label="log2 K", y_label="log2 of margin over that of K = 1", lines=tuple(lines)),
        ),
        caption="Mean training margin at a tenth of the steps, last layer; every K has the same values, each in the "
        f"company of its neighbours on a ring. {_BAND.partition(' Purple')[0]}",
    )


def _whole(id: str, runs: Runs, quantity: str, counts: Sequence[int], seeds: Sequence[int]) -> Figure:
    marks = (("log 2", LOG2),) if quantity == "loss" else ()
    panels = tuple(
        Panel(
            kind="lines", title=title, x_label="Step", y_label=_SHOWN[quantity],
            lines=_curves(runs, quantity, split, counts, seeds), marks=marks,
        )
        for split, title in (("train", "(a) training"), ("held_out", "(b) test"))
    )  # fmt: skip
    return Figure(
        spec=spec_of(id),
        panels=panels,
        caption=f"K values trained together. {_told(runs[MODEL, seeds[0]][0].settings)} {_BAND}",
    )


# tables and fit ------------------------------------------------------------------------------------------------------


def _table(number: int, runs: Runs, seeds: Sequence[int]) -> Figure:
    printed = VALUE_TABLES[number]
    rows = []
    for place, count in enumerate(printed.values[: len(runs[MODEL, seeds[0]])]):
        error, margin = (
            over_seeds([float(mean_curve(runs[MODEL, seed][place], *key)[1][-1]) for seed in seeds]).value
            for key in (("reward_accuracy", "held_out"), ("margin", "train"))
        )
        rows.append(
            (
                str(count), f"{1 - error:.3f}", f"{printed.test_error[place]:.3f}", f"{margin:.3f}",
                f"{printed.train_margin[place]:.3f}",
            )
        )  # fmt: skip
    columns = ("K", "test error", "printed", "training margin", "printed ")
    return Figure(
        spec=spec_of(f"{_B}-table{number:02d}"),
        panels=(Panel(kind="table", columns=columns, rows=tuple(rows)),),
        caption=f"At the end of training, mean of the seeds, beside the numbers printed for {printed.model}. "
        f"{_told(runs[MODEL, seeds[0]][0].settings)}",
    )


def _fit(measured: Rows, counts: Sequence[int]) -> Figure:
    errors = np.array(measured.by_seed("error", {"figure": "whole"}))
    mean, fine = errors.mean(axis=0).tolist(), np.linspace(counts[0], counts[-1], 60)
    lines = [
        Line(
            label="a seed", x=np.tile(np.array(counts, float), len(errors)), y=errors.ravel(), shade=0.5, style="points"
        )
    ]
    if len(counts) > 1:
        slope, start, straight = straight_line(counts, mean)
        bend, base, bent = straight_line(np.log(counts).tolist(), mean)
        log = base + bend * np.log(fine)
        lines += [
            Line(label=f"line in K, R² {straight:.2f}", x=fine, y=start + slope * fine, shade=0.1),
            Line(label=f"line in log K, R² {bent:.2f}", x=fine, y=log, shade=0.8, style="dashed"),
        ]
    return Figure(
        spec=spec_of(_FIT),
        panels=(Panel(kind="lines", x_label="Number of values K", y_label="Test error", lines=tuple(lines)),),
        caption="Test error at the end of training the whole model, and lines fitted to the mean of the seeds.",
    )


def _laws(measured: Rows, counts: Sequence[int]) -> Figure:
    names = {
        "measured": ("measured", 0.1, "solid"), "shared": ("law, shared answers", 0.5, "dashed"),
        "own": ("law, answers of their own", 0.8, "dashed"),
        "floor": ("law, shared, ever so many pairs", None, "dotted"),
    }  # fmt: skip
    lines = tuple(
        mean_line(label, list(counts), rows, shade=shade, style=style)
        for key, (label, shade, style) in names.items()
        if np.isfinite(rows := measured.by_seed(key, {"figure": LAWS})).all()
    )
    return Figure(
        spec=spec_of(_FIT),
        part="b",
        panels=(Panel(kind="lines", x_label="Number of values K", y_label="Test error", lines=lines),),
        caption="Test error of the head early in training by gradient descent, and what the paper's clusters would "
        "have at the gaps and spreads of these values.",
    )
