"""Plots of lines, points, matrices, tables and texts as matplotlib figures: figures of recipes, and of a page."""

import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from prefdyn.picture import Line, Picture, Plot
from prefdyn.report.field_figures import field_plane, field_surface
from prefdyn.report.sheet import (
    DIVERGING,
    DPI,
    FAINT,
    INK,
    SOFT,
    Drawing,
    axes_at,
    fitting,
    heading,
    legend,
    plain,
    plain_log,
    step_axis,
    widest,
)
from prefdyn.report.text import readable

_GREY = "#77756e"
_DASHES: Mapping[str, Any] = {"solid": "-", "dashed": (0, (5, 2.5)), "dotted": (0, (1.2, 1.8))}
_WIDE, _STRIDE, _LEFT = 3.6, 4.75, 0.92
_CELL = (0.56, 0.34)
"""Inches of a cell with words in it."""
_BEST = "#d9691a"
_DARK = LinearSegmentedColormap.from_list("dark", ["#e6eef8", "#8fb5e0", "#2f68ad", "#173a66"])
_SMALL = 2.8
"""Inches of a plot up to which its letters are small."""
_SMALLEST = 4.5
"""Points of the smallest letters on a heat map."""


def _sheet(picture: Picture, width: float, height: float) -> Figure:
    drawn = Drawing(figsize=(max(width, 0.3 + widest([picture.title], 12.8)), height), dpi=DPI, facecolor="white")
    heading(drawn, plain(picture.title))
    return drawn


def _colour(line: Line) -> Any:
    if line.colour is not None:
        return line.colour
    return _GREY if line.shade is None else colormaps["plasma"](line.shade)


def _key(picture: Picture) -> tuple[list[Line2D], list[str]]:
    """A handle and a name for every label of the plots, in the order in which they come."""
    named = {line.label: line for plot in picture.plots for line in plot.lines if line.label}
    handles = [
        Line2D([], [], color=_colour(line), linewidth=2, linestyle=_DASHES[line.style])
        if line.style != "points"
        else Line2D([], [], color=_colour(line), linestyle="none", marker="o")
        for line in named.values()
    ]
    return handles, [plain(label, 46) for label in named]


def _lines(picture: Picture) -> Figure:
    plots, (wide, high) = picture.plots, picture.size
    handles, labels = _key(picture)
    columns = min(picture.across, len(plots))
    rows = -(-len(plots) // columns)
    high = max(high, 0.2 * len(labels) / rows)
    above = (0.45 if any(plot.title for plot in plots) else 0.15) + (0.16 if any(plot.note for plot in plots) else 0)
    foot = 0.6 + max(widest([plain(name, 30) for name in plot.names], 8) for plot in plots)
    stride, tall = wide + (1.15 if wide > _SMALL else 0.8), high + above + foot
    drawn = _sheet(picture, stride * columns + (_LEFT + widest(labels, 8) if labels else 0.4), tall * rows + 0.45)
    for place, plot in enumerate(plots):
        row, column = divmod(place, columns)
        axes = axes_at(drawn, _LEFT + stride * column, tall * (rows - 1 - row) + foot, wide, high)
        _curves(axes, plot, wide)
    if labels:
        legend(drawn, handles, labels, 0.2 + stride * columns, tall * rows - above)
    return drawn


def _curves(axes: Axes, plot: Plot, wide: float) -> None:
    ends = plot.x_range or _ends(plot)
    for line in plot.lines:
        colour, x = _colour(line), np.log10(1 + line.x) if plot.x_scale == "step" else line.x
        if line.style == "points":
            axes.plot(x, line.y, linestyle="none", marker="o", markersize=4.5, color=colour, zorder=3)
            continue
        if line.low is not None and line.high is not None:
            axes.fill_between(x, line.low, line.high, color=colour, alpha=0.16, linewidth=0, zorder=1)
        marks: dict[str, Any] = {"marker": "o", "markersize": 3.5 if line.width > 1 else 1.5} if line.marked else {}
        axes.plot(x, line.y, color=colour, linewidth=line.width, linestyle=_DASHES[line.style], zorder=3, **marks)
    for label, height in plot.marks:
        axes.axhline(height, color=SOFT, linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            plain(label), (1, height), (0, 2), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            ha="right", fontsize=7.5, color=SOFT,
        )  # fmt: skip
    small = wide <= _SMALL
    if small:
        axes.set_title(fitting(plot.title, 8, wide + 0.3), fontsize=8, color=INK, pad=13 if plot.note else 4)
        axes.tick_params(labelsize=7.5)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    else:
        axes.set_title(plain(plot.title))
    if plot.note:
        axes.text(0, 1.025, plain(plot.note), transform=axes.transAxes, fontsize=7, color=SOFT, va="bottom")
    axes.set_xlabel(plot.x_label, fontsize=8 if small else None)
    axes.set_ylabel(plot.y_label, fontsize=8 if small else None)
    axes.grid(True, axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
    if plot.y_scale == "log":
        axes.set_yscale("log")
        plain_log(axes.yaxis, *axes.get_ylim())
    else:
        axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_ylim(*plot.y_range)
    if plot.x_scale == "step":
        axes.set_xlim(0, float(np.log10(1 + ends[1])) or 1.0)
        step_axis(axes, ends[1], wide)
    elif plot.x_scale == "log":
        axes.set_xscale("log")
        plain_log(axes.xaxis, *axes.get_xlim())
    else:
        if plot.names:
            thin = max(1, math.ceil(0.19 * len(plot.names) / wide))
            names = [plain(name, 30) for name in plot.names]
            axes.set_xticks(range(0, len(names), thin), names[::thin], rotation=90, fontsize=8)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if plot.x_range:
            axes.set_xlim(*plot.x_range)
        if plot.x_label == "Step":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5 if small else "auto"))


def _ends(plot: Plot) -> tuple[float, float]:
    """The least and the largest place across."""
    places = [line.x for line in plot.lines if len(line.x)]
    return (min(float(x.min()) for x in places), max(float(x.max()) for x in places)) if places else (0.0, 1.0)


def _clouds(picture: Picture) -> Figure:
    panels = picture.plots
    handles, labels = _key(picture)
    drawn = _sheet(picture, _STRIDE * len(panels) + _LEFT + widest(labels, 8), 4.9)
    for place, panel in enumerate(panels):
        axes = axes_at(drawn, _LEFT + _STRIDE * place, 0.6, _WIDE, _WIDE)
        for line in panel.lines:
            axes.plot(
                line.x, line.y, linestyle="none", marker="o", markersize=3, alpha=0.7, markeredgewidth=0,
                color=_colour(line), rasterized=True,
            )  # fmt: skip
        if panel.limit is not None:
            axes.set_xlim(-panel.limit, panel.limit)
            axes.set_ylim(-panel.limit, panel.limit)
        axes.set_title(plain(panel.title))
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(panel.y_label)
        axes.tick_params(length=0)
    legend(drawn, handles, labels, 0.2 + _STRIDE * len(panels), 4.2)
    return drawn


def _heat(picture: Picture) -> Figure:
    first = picture.plots[0]
    rows, columns = ([plain(name, 34) for name in names] for names in (first.names, first.columns or first.names))
    many = max(len(rows), len(columns))
    side = min(9.0, max(2.2, 0.12 * many))
    wide, high = side * len(columns) / many, side * len(rows) / many
    if first.cells:
        wide, high = _CELL[0] * len(columns), _CELL[1] * len(rows)
    elif first.columns:
        high = max(high, 0.2 * len(rows))
    font = max(_SMALLEST, min(8.0, 0.8 * 72 * min(wide / len(columns), high / len(rows))))
    room = widest(rows, font) + (0.5 if first.y_label else 0.2)
    foot = widest(columns, font) + (0.5 if first.x_label else 0.2)
    stride, above = wide + 1.05, 0.95 if any(plot.title for plot in picture.plots) else 0.6
    drawn = _sheet(picture, room + stride * len(picture.plots) + 0.3, high + foot + above)
    for place, plot in enumerate(picture.plots):
        assert plot.matrix is not None
        axes = axes_at(drawn, room + stride * place, foot, wide, high)
        colours, norm = _shades(plot)
        image = axes.imshow(plot.matrix, cmap=colours, norm=norm, interpolation="nearest", aspect="auto")
        across, down = 0.05 * len(columns) / wide, 0.05 * len(rows) / high
        axes.set_axis_off()
        axes.text(-0.5, -0.5 - 2.8 * down, plain(plot.title), ha="left", va="bottom", fontsize=9.5)
        for at, name in enumerate(rows if place == 0 else []):
            axes.text(-0.5 - across, at, name, ha="right", va="center", fontsize=font)
        for at, name in enumerate(columns):
            axes.text(at, len(rows) - 0.5 + down, name, ha="center", va="top", rotation=90, fontsize=font)
        for at in np.ndindex(plot.matrix.shape) if plot.cells else ():
            value = plot.matrix[at]
            ink = SOFT if np.isnan(value) else _ink(colours(norm(value)))
            axes.text(at[1], at[0], plot.cells[at[0]][at[1]], ha="center", va="center", fontsize=7.5, color=ink)
        if plot.framed is not None:
            corner = plot.framed[1] - 0.5, plot.framed[0] - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=_BEST, linewidth=2.6, clip_on=False))
        centred: dict[str, Any] = {"ha": "center", "va": "center", "color": SOFT}
        below, beside = (foot - 0.15) / 0.05 * down, (room - 0.15) / 0.05 * across
        axes.text(0.5 * len(columns) - 0.5, len(rows) - 0.5 + below, plot.x_label, **centred)
        turned = 90 if len(plot.y_label) > 1 else 0
        axes.text(-0.5 - beside, 0.5 * len(rows) - 0.5, plot.y_label, rotation=turned, **centred)
        if np.isfinite(plot.matrix).any():
            bar = drawn.colorbar(
                image, cax=axes_at(drawn, room + stride * place + wide + 0.14, foot + 0.2 * high, 0.1, 0.6 * high)
            )
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
            bar.ax.tick_params(length=0, labelsize=7.5)
            if plot.unit:
                bar.set_label(plot.unit + (" (logarithmic)" if isinstance(norm, LogNorm) else ""), fontsize=8)
            if isinstance(norm, LogNorm):
                bar.minorticks_off()
                ends = float(norm.vmin or 1), float(norm.vmax or 1)
                bar.set_ticks([ends[0], math.sqrt(ends[0] * ends[1]), ends[1]])
                bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    return drawn


def _shades(plot: Plot) -> tuple[Colormap, Normalize]:
    """The colours of a matrix, and where on them a number lies: by its logarithm where numbers lie far apart."""
    assert plot.matrix is not None
    known = plot.matrix[np.isfinite(plot.matrix)]
    if plot.shades == "against":
        limit = plot.limit or float(np.abs(known).max(initial=0.0))
        return DIVERGING, Normalize(-limit, limit)
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    norm = LogNorm(low, high) if 0 < 3 * low <= high else Normalize(min(low, high - 1e-12), high)
    return _DARK if plot.shades == "far" else _DARK.reversed(), norm


def _ink(colour: Any) -> str:
    """White or dark, whichever can be read on the colour."""
    red, green, blue = colour[:3]
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.62 else INK


def _table(picture: Picture) -> Figure:
    panel = picture.plots[0]
    cells = [[plain(cell, 60) for cell in row] for row in (panel.columns, *panel.rows)]
    widths = [widest([row[column] for row in cells], 8.5) + 0.3 for column in range(len(panel.columns))]
    height = 0.7 + 0.24 * len(cells)
    drawn = _sheet(picture, 0.3 + sum(widths), height)
    across = drawn.get_figwidth()
    for number, row in enumerate(cells):
        left = 0.15
        for column, cell in enumerate(row):
            right = column > 0
            drawn.text(
                (left + (widths[column] - 0.2 if right else 0)) / across, 1 - (0.62 + 0.24 * number) / height, cell,
                ha="right" if right else "left", va="center", fontsize=8.5, color=SOFT if number == 0 else INK,
            )  # fmt: skip
            left += widths[column]
    return drawn


def _texts(picture: Picture) -> Figure:
    panel = picture.plots[0]
    blocks = [
        (head, [line for part in readable(text).splitlines() for line in textwrap.wrap(part, 96) or [""]][:6])
        for head, text in panel.rows
    ]
    height = 0.75 + sum(0.34 + 0.19 * len(lines) for _, lines in blocks)
    drawn = _sheet(picture, 8.6, height)
    drawn.text(0.15 / drawn.get_figwidth(), 1 - 0.52 / height, plain(panel.title), fontsize=9.5, va="center")
    top = 0.85
    for head, lines in blocks:
        drawn.text(0.15 / drawn.get_figwidth(), 1 - top / height, plain(head), fontsize=8.5, color=SOFT, va="center")
        for line in lines:
            top += 0.19
            drawn.text(0.35 / drawn.get_figwidth(), 1 - top / height, plain(line), fontsize=8.5, va="center")
        top += 0.34
    return drawn


def _surface(picture: Picture) -> Figure:
    return field_surface(beta=picture.plots[0].options["beta"])


def _plane(picture: Picture) -> Figure:
    panel = picture.plots[0]
    path = np.column_stack([panel.lines[0].x, panel.lines[0].y]) if panel.lines else None
    return field_plane(beta=panel.options["beta"], path=path)


PLOTS: Mapping[str, Callable[[Picture], Figure]] = {
    "lines": _lines,
    "clouds": _clouds,
    "heat": _heat,
    "table": _table,
    "texts": _texts,
    "surface": _surface,
    "plane": _plane,
}
