"""Pictures of two runs side by side: their curves, group by group, and in which order each learned the groups."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator

from prefdyn.errors import DataError
from prefdyn.report.figures import DPI, FAINT, INK, SETTINGS, SOFT, _plain, _widest, axes_at, heading, legend, log_ticks
from prefdyn.report.training_figures import plain_log

FIRST, SECOND = "#2a78d6", "#d9691a"
"""Colours of the two runs."""
_COLUMNS = 4
_PANEL = (2.15, 1.5)
"""Inches of one group's curves."""
_WIDEST_NAME = 34


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePair:
    """One group's curve in both runs, each at its own steps."""

    name: str
    first_steps: Float[np.ndarray, " s"]
    first: Float[np.ndarray, " s"]
    second_steps: Float[np.ndarray, " t"]
    second: Float[np.ndarray, " t"]
    note: str = ""
    """A word below the name, such as the error."""


def curves_figure(
    pairs: Sequence[CurvePair],
    names: tuple[str, str],
    *,
    title: str,
    axis: str,
    factor: float | None = None,
    line: tuple[str, float] | None = None,
) -> Figure:
    """Both runs' curves, a small panel per group, all on the same axes.

    Args:
        pairs: Groups, in the order to show.
        names: Of the two runs.
        title: Above the picture.
        axis: What is drawn, with its unit.
        factor: The second run also with its steps divided by this; None: not.
        line: A level to mark, and its name.

    Raises:
        DataError: There is no group.
    """
    if not pairs:
        raise DataError("no group is given; give at least one")
    rows = -(-len(pairs) // _COLUMNS)
    columns = -(-len(pairs) // rows)
    pitch, drop = _PANEL[0] + 0.3, _PANEL[1] + 0.62
    labels = [names[0], names[1], f"{names[1]}, steps divided by {factor:.3g}" if factor else ""][: 3 if factor else 2]
    with matplotlib.rc_context(SETTINGS):
        labels = [_plain(label, 60) for label in labels]
        width = max(0.78 + pitch * columns, 1.2 + sum(_widest([label], 8) + 0.55 for label in labels))
        height = 0.92 + drop * rows + 0.05
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        heading(figure, _plain(title))
        handles = [Line2D([], [], color=FIRST, linewidth=2), Line2D([], [], color=SECOND, linewidth=2)]
        handles += [Line2D([], [], color=SECOND, linewidth=1.3, dashes=(3, 1.8))] if factor else []
        legend(figure, handles, labels, 0.15, height - 0.45, ncols=len(labels), columnspacing=1.4, handlelength=1.6)
        last = max(float(max(pair.first_steps.max(initial=0), pair.second_steps.max(initial=0))) for pair in pairs)
        low, high = _range(pairs, line)
        for place, pair in enumerate(pairs):
            row, column = divmod(place, columns)
            axes = axes_at(figure, 0.72 + pitch * column, height - 0.92 - drop * (row + 1) + 0.42, *_PANEL)
            _curves(axes, pair, factor, last, (low, high), line, marked=place == 0)
            below = place + columns >= len(pairs)
            _axes(axes, last, labelled=column == 0, below=below, axis=_plain(axis))
        return figure


def order_figure(
    names: Sequence[str], first: Float[np.ndarray, " m"], second: Float[np.ndarray, " n"], runs: tuple[str, str],
    *, note: str = "",
) -> Figure:  # fmt: skip
    """Place of each group in the order of learning of one run against that in the other; each row is a group.

    Args:
        names: Of the groups.
        first: Place in the first run, 1 is learned first; ties share a place.
        second: The same in the second.
        runs: Names of the two runs.
        note: Told below.

    Raises:
        DataError: There is no group, or not one place each.
    """
    count = len(names)
    if not count or len(first) != count or len(second) != count:
        raise DataError(f"{count} groups have {len(first)} and {len(second)} places; give one each, for at least one")
    pitch, size = (0.2, 8.0) if count <= 40 else (0.135, 6.0)
    with matplotlib.rc_context(SETTINGS):
        order = np.lexsort((first, second))
        shown = [_plain(names[code], _WIDEST_NAME) for code in map(int, order)]
        left = 0.5 + _widest(shown, size)
        body = max(1.2, pitch * count)
        across = float(np.clip(body, 2.8, 5.2))
        lines = textwrap.wrap(note, int((left + across) / 0.066))
        foot = 0.72 + 0.165 * len(lines)
        width = max(left + across + 0.3, 4.4)
        figure = Figure(figsize=(width, foot + body + 0.62), dpi=DPI, facecolor="white")
        heading(figure, "Order of learning")
        axes = axes_at(figure, left, foot, across, body)
        places, x = np.arange(count), first[order]
        axes.plot([0.5, count + 0.5], [-0.5, count - 0.5], color=SOFT, linewidth=0.8, linestyle=":", zorder=1)
        for place, value, same in zip(places, x, second[order], strict=True):
            axes.plot([same, value], [place, place], color=SECOND, alpha=0.35, linewidth=1.6, zorder=2)
        axes.plot(x, places, linestyle="none", marker="o", markersize=5 if count <= 40 else 3.5, color=FIRST, zorder=3)
        axes.set_ylim(count - 0.4, -0.6)
        axes.set_xlim(0.4, count + 0.6)
        axes.set_yticks(places, shown, fontsize=size, color=INK)
        axes.xaxis.set_major_locator(MultipleLocator(1) if count <= 12 else MaxNLocator(8, integer=True))
        axes.set_xlabel(f"Place in {_fitting(runs[0], 9, across - 1.7)} (1 is learned first)")
        rows = f"Rows: as in {_fitting(runs[1], 8.5, across - 1.9)}, first learned on top"
        axes.set_title(rows, fontsize=8.5, color=SOFT)
        axes.hlines(places, 0, 1, color=FAINT, linewidth=0.4, transform=axes.get_yaxis_transform(), zorder=0)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        figure.text(0.15 / width, 0.1 / figure.get_figheight(), "\n".join(lines), va="bottom", fontsize=8, color=SOFT,
                    linespacing=1.35)  # fmt: skip
        return figure


def separability_figure(names: Sequence[str], runs: Sequence[tuple[str, Float[np.ndarray, "m 4"]]]) -> Figure:
    """Distinguishability and spread of every group, before and after.

    Args:
        names: Of the groups.
        runs: Name of each run with, per group, distinguishability before and after, spread before and after; NaN where
            not measured.

    Raises:
        DataError: No run measured any of it.
    """
    known = [(name, values) for name, values in runs if np.isfinite(values).any()]
    if not known or not len(names):
        raise DataError("no run measured distinguishability; give one that did")
    with matplotlib.rc_context(SETTINGS):
        shown = [_plain(name, _WIDEST_NAME) for name in names]
        size = 8.0 if len(names) <= 40 else 6.0
        left, body = 0.35 + _widest(shown, size), max(0.9, (0.24 if len(names) <= 40 else 0.15) * len(names))
        width, height = left + 2 * 3.1, body + 1.62
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        heading(figure, "Separability before and after")
        places = np.arange(len(names), dtype=np.float64)
        for column, label in enumerate(("Distinguishability (feature units)", "Spread (trace / distinguishability²)")):
            axes = axes_at(figure, left + 3.1 * column, 0.62, 2.8, body)
            for turn, (name, values) in enumerate(known):
                colour = FIRST if name == runs[0][0] else SECOND
                rows = places + (turn - (len(known) - 1) / 2) * 0.3
                before, after = values[:, 2 * column], values[:, 2 * column + 1]
                axes.hlines(rows, before, after, color=colour, linewidth=1.4, alpha=0.5)
                axes.plot(
                    before, rows, linestyle="none", marker="o", markersize=4.5, color=colour, markerfacecolor="white"
                )
                axes.plot(after, rows, linestyle="none", marker="o", markersize=4.5, color=colour)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_yticks(places, shown if column == 0 else [], fontsize=size, color=INK)
            axes.set_xlabel(label)
            if column == 1 and _spans(known):
                axes.set_xscale("log")
                plain_log(axes.xaxis, *axes.get_xlim())
                axes.set_xlabel("Spread (trace / distinguishability², logarithmic)")
            else:
                axes.set_xlim(left=0)
            axes.hlines(places, 0, 1, color=FAINT, linewidth=0.4, transform=axes.get_yaxis_transform(), zorder=0)
            axes.tick_params(length=0, which="both")
            for spine in axes.spines.values():
                spine.set_visible(False)
        handles = [Line2D([], [], linestyle="none", marker="o", color=INK, markerfacecolor="white"),
                   Line2D([], [], linestyle="none", marker="o", color=INK)]  # fmt: skip
        labels = ["before", "after"]
        if len(known) > 1:
            handles += [Line2D([], [], color=FIRST if name == runs[0][0] else SECOND, linewidth=2) for name, _ in known]
            labels += [_plain(name, 30) for name, _ in known]
        legend(figure, handles, labels, 0.15, height - 0.48, ncols=len(labels), columnspacing=1.2, handletextpad=0.5,
               handlelength=1.5)  # fmt: skip
        return figure


# pieces -------------------------------------------------------------------------------------------------------------


def _range(pairs: Sequence[CurvePair], line: tuple[str, float] | None) -> tuple[float, float]:
    values = np.concatenate([each for pair in pairs for each in (pair.first, pair.second)])
    values = values[np.isfinite(values)]
    if line is not None:
        values = np.append(values, line[1])
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low or abs(high) or 1.0)
    return low - room, high + room


def _curves(
    axes: Axes,
    pair: CurvePair,
    factor: float | None,
    last: float,
    span: tuple[float, float],
    line: tuple[str, float] | None,
    *,
    marked: bool,
) -> None:
    if line is not None:
        axes.axhline(line[1], color=SOFT, linewidth=0.8, linestyle=":", zorder=0)
        if marked and line[0]:
            axes.annotate(_plain(line[0]), (math.log10(1 + last), line[1]), (0, 2), textcoords="offset points",
                          ha="right", fontsize=7, color=SOFT)  # fmt: skip
    if factor:
        steps = pair.second_steps / factor
        inside = steps <= last
        axes.plot(
            np.log10(1 + steps[inside]), pair.second[inside], color=SECOND, linewidth=1.3, dashes=(3, 1.8), zorder=3
        )
    axes.plot(np.log10(1 + pair.second_steps), pair.second, color=SECOND, linewidth=1.6, zorder=2)
    axes.plot(np.log10(1 + pair.first_steps), pair.first, color=FIRST, linewidth=1.9, zorder=4)
    axes.set_xlim(0, math.log10(1 + last) or 1.0)
    axes.set_ylim(*span)
    axes.set_title(_fitting(pair.name, 8, _PANEL[0] + 0.2), fontsize=8, color=INK, pad=13 if pair.note else 4)
    if pair.note:
        axes.text(0, 1.025, pair.note, transform=axes.transAxes, fontsize=7, color=SOFT, va="bottom")


def _fitting(name: str, size: float, room: float) -> str:
    """As much of a name as there is room for, in inches, but for its ends."""
    width = 40
    while width > 8 and _widest([_plain(name, width)], size) > room:
        width -= 1
    return _plain(name, width)


def _axes(axes: Axes, last: float, *, labelled: bool, below: bool, axis: str) -> None:
    ticks = [tick for tick in log_ticks(last) if str(tick)[0] == "1" or tick == 0]
    while len(ticks) > 5:
        ticks = [ticks[0], *ticks[2::2]] if len(ticks) % 2 else ticks[::2]
    axes.set_xticks(np.log10(1 + np.array(ticks)), [f"{tick:,}" if tick < 100_000 else f"{tick:.0e}" for tick in ticks])
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(True, axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=7.5)
    if not labelled:
        axes.set_yticklabels([])
    else:
        axes.set_ylabel(axis, fontsize=7.5)
    if below:
        axes.set_xlabel("Step (logarithmic)", fontsize=8)


def _spans(known: Sequence[tuple[str, np.ndarray]]) -> bool:
    """Whether the spreads span more than a power of ten."""
    values = np.concatenate([each[:, 2:].ravel() for _, each in known])
    values = values[np.isfinite(values) & (values > 0)]
    return bool(len(values) > 0 and values.max() > 10 * values.min())
