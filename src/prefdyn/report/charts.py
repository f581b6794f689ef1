"""Charts of groups as matplotlib figures, by its objects alone: no pyplot, no settings left behind."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from prefdyn.picture import Layer, Line, Picture, Plot
from prefdyn.report.palette import AGAINST, GROUPS, TOWARDS, VERDICTS, look
from prefdyn.report.plots import PLOTS
from prefdyn.report.sheet import (
    DPI,
    FAINT,
    INK,
    SOFT,
    Drawing,
    axes_at,
    grid,
    heading,
    legend,
    plain,
    plain_log,
    wide,
    widest,
)

_REST = "#c4c3bc"
_NONE = np.zeros(0)
_MARKERS = {"dot": "o", "ring": "o", "tick": "|", "cross": "x", "diamond": "D", "triangle": "^"}
_WRITTEN = {"share": lambda value: f"{100 * value:.0f} %", "number": lambda value: f"{value:.3g}".replace("-", "−")}
"""Series that are written at the end of each row, and how."""
_SHAPES = {"round": "o", "diamond": "D", "down": "v", "square": "s", "up": "^"}
_SERIES = {
    "dot": "#2a78d6",
    "ring": "#d9691a",
    "diamond": "#6145b0",
    "cross": "#5d7d4d",
    "triangle": "#00727a",
    "tick": "#1f1f1d",
}


def _figure(panel: Picture, width: float, height: float) -> Figure:
    """An empty figure of that size in inches with the panel's title. Places are computed here, once, not searched."""
    figure = Drawing(figsize=(width, height), dpi=DPI, facecolor="white")
    heading(figure, plain(panel.title))
    return figure


def _names(panel: Picture, codes: Sequence[int], width: int = 34) -> list[str]:
    return [plain(panel.groups[code], width) for code in codes]


def _coloured(panel: Picture) -> list[int]:
    """Codes of the groups with a colour, in the order of the palette."""
    codes = [code for code, place in enumerate(panel.colours) if place >= 0]
    return sorted(codes, key=lambda code: panel.colours[code])


def _colour(panel: Picture, code: int) -> str:
    place = panel.colours[code]
    return GROUPS[place].light if place >= 0 else _REST


def _draw_lines(panel: Picture) -> Figure:
    """A plot per view: the telling groups in colour, the others grey, and dashed what each has beside its curve."""
    drawn = np.any([np.isfinite(panel.arrays[layer.values]).any(axis=1) for layer in panel.layers], axis=0)
    coloured = [code for code in _coloured(panel) if drawn[code]]
    grey = [code for code in range(len(panel.groups)) if panel.colours[code] < 0 and drawn[code]]
    dashed = panel.options.get("dashed")
    alone = (bool(dashed) or len(coloured) <= 5) and any(layer.alone for layer in panel.layers)
    key = [Line(label=f"{len(grey)} other groups", x=_NONE, y=_NONE, colour=_REST)] if grey else []
    key += [Line(label=dashed or "trained alone", x=_NONE, y=_NONE, colour=SOFT, style="dashed")] if alone else []
    plots = []
    for layer in panel.layers:
        x, values = panel.arrays["step"], panel.arrays[layer.values]
        lines = [Line(label="", x=x, y=values[code], colour=_REST, width=0.7) for code in grey]
        for code in coloured if alone and layer.alone else []:
            other = panel.arrays[str(layer.alone)][code]
            lines.append(Line(label="", x=x, y=other, colour=_colour(panel, code), style="dashed", width=1))
        lines += [Line(label=panel.groups[code], x=x, y=values[code], colour=_colour(panel, code)) for code in coloured]
        plots.append(
            Plot(
                title=layer.label,
                x_label=panel.x_label,
                y_label=layer.axis or panel.y_label,
                x_scale="step",
                lines=(*lines, *key),
                marks=panel.lines,
            )
        )
    return _plotted(panel, plots)


def _plotted(panel: Picture, plots: Sequence[Plot]) -> Figure:
    """The chart as plots side by side."""
    picture = Picture(
        id=panel.id, title=panel.title, caption="", plots=tuple(plots), size=(3.7, 2.7), across=len(plots)
    )
    return PLOTS[plots[0].kind](picture)


def _draw_dots(panel: Picture) -> Figure:
    codes = list(panel.orders[0][1])
    series = [layer for layer in panel.layers if layer.marker not in _WRITTEN]
    written = [_column(panel, layer, codes) for layer in panel.layers if layer.marker in _WRITTEN]
    names, labels = _names(panel, codes), [plain(layer.label) for layer in series]
    left, body = 0.3 + widest(names, 9), 0.185 * max(len(codes), 2)
    foot, head = 0.55 + (0.3 if len(labels) > 1 else 0), 0.75 if written else 0.55
    rooms = [0.2 + widest(column, 8.5) for column in written]
    full = max(left + 5.6 + sum(rooms), 1.0 + sum(0.45 + wide(label, 8) for label in labels) if len(labels) > 1 else 0)
    figure = _figure(panel, full, body + foot + head)
    across = full - left - 0.25 - sum(rooms)
    axes = axes_at(figure, left, foot, across, body)
    places = np.arange(len(codes))[::-1]
    for place, column in enumerate(written):
        end, beside = 1 + sum(rooms[: place + 1]) / across, axes.get_yaxis_transform()
        axes.text(end, len(codes) + 0.1, column[0], transform=beside, ha="right", va="center", fontsize=8.5, color=SOFT)
        for height, text in zip(places, column[1:], strict=True):
            axes.text(end, height, text, transform=beside, ha="right", va="center", fontsize=8.5)
    handles = []
    for layer in series:
        values, colour = panel.arrays[layer.values][codes], _SERIES[layer.marker]
        if layer.low and layer.high and not layer.told:
            low, high = panel.arrays[layer.low][codes], panel.arrays[layer.high][codes]
            axes.hlines(places, low, high, color=colour, linewidth=2.2, alpha=0.35)
        line = layer.marker in {"tick", "cross"}
        (handle,) = axes.plot(
            values,
            places,
            linestyle="none",
            marker=_MARKERS[layer.marker],
            markersize=7 if layer.marker == "tick" else 4.6,
            color=colour,
            markerfacecolor="none" if layer.marker == "ring" else colour,
            markeredgewidth=1.3 if line or layer.marker == "ring" else 0,
            zorder=3,
        )
        handles.append(handle)
    for _, at in panel.lines:
        axes.axvline(at, color=SOFT, linewidth=0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.hlines(places, 0, 1, color=FAINT, linewidth=0.35, transform=axes.get_yaxis_transform(), zorder=0)
    for place, name in zip(places, names, strict=True):
        axes.text(-0.012, place, name, transform=axes.get_yaxis_transform(), ha="right", va="center", color=INK)
    axes.set_ylim(-0.7, len(codes) - 0.3)
    if "low" in panel.options:
        axes.set_xlim(left=panel.options["low"])
    if "high" in panel.options:
        axes.set_xlim(right=panel.options["high"] + 0.005)
    if panel.options.get("log"):
        axes.set_xscale("log")
        plain_log(axes.xaxis, *axes.get_xlim())
    if panel.options.get("whole"):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(panel.x_label)
    grid(axes, "x")
    if len(handles) > 1:
        legend(figure, handles, labels, 0.15, 0.24, ncols=len(handles), columnspacing=1.2, handletextpad=0.2)
    return figure


def _column(panel: Picture, layer: Layer, codes: Sequence[int]) -> list[str]:
    """A heading and one entry per row."""
    values, form = panel.arrays[layer.values][list(codes)], _WRITTEN[layer.marker]
    return [plain(layer.axis), *("–" if np.isnan(value) else form(value) for value in values.tolist())]


def _draw_scatter(panel: Picture) -> Figure:
    height = panel.arrays["decrease"]
    known = [*VERDICTS, *{verdict for verdict in panel.verdicts if verdict not in VERDICTS}]
    verdicts = [verdict for verdict in known if verdict in panel.verdicts]
    columns = len(panel.layers)
    figure = _figure(panel, 4.5 * columns + 1.5, 4.3)
    for place, layer in enumerate(panel.layers):
        axes = axes_at(figure, 0.72 + 4.5 * place, 0.6, 3.7, 2.9)
        x = panel.arrays[layer.values]
        for verdict in verdicts:
            inside = np.array([found == verdict for found in panel.verdicts])
            seen = look(verdict)
            edge = "white" if seen.filled else seen.shade.light
            face = seen.shade.light if seen.filled else "white"
            axes.scatter(
                x[inside],
                height[inside],
                s=30,
                marker=_SHAPES[seen.shape],
                facecolors=face,
                edgecolors=edge,
                linewidths=0.5 if seen.filled else 1.3,
            )
        axes.set_title(plain(layer.note))
        axes.set_xlabel(layer.axis)
        axes.set_ylabel(panel.y_label)
        grid(axes, "both")
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=_SHAPES[look(verdict).shape],
            color=look(verdict).shade.light,
            markerfacecolor=look(verdict).shade.light if look(verdict).filled else "white",
        )
        for verdict in verdicts
    ]
    legend(figure, handles, [plain(verdict or "no verdict") for verdict in verdicts], 4.5 * columns + 0.1, 3.5)
    return figure


def _draw_heat(panel: Picture) -> Figure:
    """A matrix per view, in the first of the orders."""
    codes, sides = list(panel.orders[0][1]), panel.x_label != panel.y_label
    return _plotted(
        panel,
        [
            Plot(
                kind="heat",
                title=layer.label,
                matrix=panel.arrays[layer.values][np.ix_(codes, codes)],
                names=tuple(panel.groups[code] for code in codes),
                limit=layer.limit or 1.0,
                unit=plain(str(panel.options.get("unit", ""))),
                x_label=panel.x_label if sides else "",
                y_label=panel.y_label if sides else "",
            )
            for layer in panel.layers
        ],
    )


def _draw_points(panel: Picture) -> Figure:
    coloured = _coloured(panel)
    rest = len(panel.groups) - len(coloured)
    names = _names(panel, coloured, 30) + ([f"{rest} other groups"] if rest else [])
    figure = _figure(panel, 7.4 + widest(names, 8), 5.4)
    axes = axes_at(figure, 0.7, 0.6, 6.1, 4.2)
    owner, sign = panel.arrays["group"].astype(int), panel.arrays["positive"]
    places = np.array(panel.colours)[owner]
    for place in sorted(set(places.tolist())):
        colour = GROUPS[place].light if place >= 0 else _REST
        for hollow in (False, True):
            inside = (places == place) & ((sign == 0) == hollow)
            axes.plot(
                panel.arrays["x"][inside],
                panel.arrays["y"][inside],
                linestyle="none",
                marker="o",
                markersize=3.2,
                markerfacecolor="none" if hollow else colour,
                markeredgecolor=colour,
                markeredgewidth=0.6 if hollow else 0,
                zorder=1 if place < 0 else 2,
                rasterized=True,
            )
    handles = [Line2D([], [], linestyle="none", marker="o", color=_colour(panel, code)) for code in coloured]
    handles += [Line2D([], [], linestyle="none", marker="o", color=_REST)] if rest else []
    legend(figure, handles, names, 6.9, 4.8, handletextpad=0.2)
    axes.set_xlabel(plain(panel.x_label))
    axes.set_ylabel(plain(panel.y_label))
    grid(axes, "both")
    return figure


def _draw_hist(panel: Picture) -> Figure:
    figure = _figure(panel, 7.2, 3.4)
    axes = axes_at(figure, 0.8, 0.6, 6.2, 2.3)
    edges, share = panel.arrays["edges"], panel.arrays["share"]
    middle = (edges[1:] + edges[:-1]) / 2
    colours = np.where(middle < 0, AGAINST.light, TOWARDS.light).tolist()
    axes.bar(middle, share, width=0.92 * np.diff(edges), color=colours)
    axes.axvline(0, color=SOFT, linewidth=0.8)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    grid(axes, "y")
    return figure


CHARTS: Mapping[str, Callable[[Picture], Figure]] = {
    "lines": _draw_lines,
    "dots": _draw_dots,
    "scatter": _draw_scatter,
    "heat": _draw_heat,
    "points": _draw_points,
    "hist": _draw_hist,
}
