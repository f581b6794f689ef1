"""Panels as SVG and PNG files, by matplotlib's objects alone: no pyplot, no settings left behind, equal bytes "
"each time."""

import hashlib
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from prefdyn._files import atomic_write
from prefdyn.errors import StoreError
from prefdyn.report.palette import AGAINST, GROUPS, TOWARDS, VERDICTS, look
from prefdyn.report.picture import Layer, Panel
from prefdyn.report.text import shorten

DPI = 110
INK, SOFT, FAINT, _REST = "#1f1f1d", "#5d5c57", "#dddcd6", "#c4c3bc"
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
    "bar": "#2a78d6",
}
_DIVERGING = LinearSegmentedColormap.from_list("against_towards", [AGAINST.light, "#f4f3ef", TOWARDS.light], N=41)
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "prefdyn",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,
    "text.hinting": "none",
    "axes.grid": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "path.simplify": True,
}


def write_figures(
    panels: Iterable[Panel], folder: str | Path, *, formats: Sequence[Literal["svg", "png"]] = ("svg", "png")
) -> list[Path]:
    """Draw every panel into a folder, one file per format, named by the panel's id.

    Args:
        panels: As `panels(read_folder(…))` gives them.
        folder: Made if missing. Names of files never come from data.
        formats: Of the files.

    Returns:
        The paths written, in order.

    Raises:
        StoreError: The folder cannot be made, or a file in it cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made ({error.strerror or error}); give another folder") from error
    written = []
    for panel in panels:
        for kind, raw in figure_bytes(panel, formats=formats).items():
            path = folder / f"{panel.id}.{kind}"
            atomic_write(path, raw)
            written.append(path)
    return written


def figure_bytes(panel: Panel, *, formats: Sequence[Literal["svg", "png"]] = ("svg", "png")) -> dict[str, bytes]:
    """One panel as the bytes of its files, by format."""
    mark = hashlib.sha256(pickle.dumps(panel)).digest()
    found = {}
    with matplotlib.rc_context(SETTINGS):
        figure = None
        for kind in formats:
            if kind == "svg" and (mark, kind) in _KEPT:
                found[kind] = _KEPT[mark, kind]
                continue
            figure = figure or figure_of(panel)
            found[kind] = _svg(figure) if kind == "svg" else _png(figure)
            if kind == "svg":
                _KEPT[mark, kind] = found[kind]
    _forget()
    return found


def drawing_bytes(
    draw: Callable[[], Figure], *, formats: Sequence[Literal["svg", "png"]] = ("svg", "png")
) -> dict[str, bytes]:
    """Any other figure as the bytes of its files, in the style of the panels: `draw` is called under their settings.

    `draw` is a function of this package with its arguments bound, by whose content the drawing is kept.
    """
    mark = hashlib.sha256(pickle.dumps(draw)).digest()
    missing = [kind for kind in formats if (mark, kind) not in _KEPT]
    if missing:
        with matplotlib.rc_context(SETTINGS):
            figure = draw()
            for kind in missing:
                _KEPT[mark, kind] = _svg(figure) if kind == "svg" else _png(figure)
    found = {kind: _KEPT[mark, kind] for kind in formats}
    _forget()
    return found


_KEEP = 32
_KEPT: OrderedDict[tuple[bytes, str], bytes] = OrderedDict()
"""The last drawings by content and format: a page asks for those that were just written as files."""


def _forget() -> None:
    while len(_KEPT) > _KEEP:
        _KEPT.popitem(last=False)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _shorter(buffer.getvalue())


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None}, pil_kwargs={"compress_level": 3})
    return buffer.getvalue()


def _shorter(svg: bytes) -> bytes:
    """The same drawing with two decimals in its paths, which is a hundredth of a point."""
    return re.sub(rb'(?<= d=")[^"<>&]+(?=")', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path.group()), svg)


def figure_of(panel: Panel) -> Figure:
    """One panel as a matplotlib figure."""
    return _DRAW[panel.kind](panel)


def _plain(text: str, width: int = 200) -> str:
    """Text that the font can draw: a character it lacks becomes a box, which is what would be drawn anyway."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in shorten(text, width) if c not in "\u200d\ufe0f")


@lru_cache(maxsize=4096)
def _wide(text: str, size: float) -> float:
    """Width of a text in inches."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    font.set_size(size, 72)
    font.set_text(text)
    return 1.06 * font.get_width_height()[0] / 64 / 72  # hinting may widen it


def _widest(names: Sequence[str], size: float) -> float:
    return max((_wide(name, size) for name in names), default=0.0)


def _figure(panel: Panel, width: float, height: float) -> Figure:
    """An empty figure of that size in inches with the panel's title. Places are computed here, once, not searched."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    heading(figure, _plain(panel.title))
    return figure


def heading(figure: Figure, title: str) -> None:
    """The title of a picture, in its upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(0.15 / width, 1 - 0.16 / height, title, va="top", fontsize=12, fontweight="bold")


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at that place, in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str], left: float, top: float, **rest: Any) -> None:
    """A legend at that place, in inches from the lower left corner."""
    across, up = figure.get_size_inches()
    figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(left / across, top / up),
        frameon=False,
        fontsize=8,
        borderaxespad=0,
        **rest,
    )


def _names(panel: Panel, codes: Sequence[int], width: int = 34) -> list[str]:
    return [_plain(panel.groups[code], width) for code in codes]


def _coloured(panel: Panel) -> list[int]:
    """Codes of the groups with a colour, in the order of the palette."""
    codes = [code for code, place in enumerate(panel.colours) if place >= 0]
    return sorted(codes, key=lambda code: panel.colours[code])


def _colour(panel: Panel, code: int) -> str:
    place = panel.colours[code]
    return GROUPS[place].light if place >= 0 else _REST


def _grid(axes: Axes, axis: Literal["x", "y", "both"]) -> None:
    axes.grid(True, axis=axis, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def log_ticks(last: float) -> list[int]:
    """Steps to mark on an axis that is logarithmic in 1 + step.

    Example:
        >>> log_ticks(100)
        [0, 1, 2, 5, 10, 20, 50, 100]
        >>> log_ticks(100_000)
        [0, 1, 10, 100, 1000, 10000, 100000]
    """
    scales = (1, 2, 5) if last <= 2000 else (1,)
    ticks, power = [0], 1
    while power <= last:
        ticks += [scale * power for scale in scales if scale * power <= last]
        power *= 10
    return ticks


def _draw_lines(panel: Panel) -> Figure:
    steps = panel.arrays["step"]
    drawn = np.any([np.isfinite(panel.arrays[layer.values]).any(axis=1) for layer in panel.layers], axis=0)
    coloured = [code for code in _coloured(panel) if drawn[code]]
    grey = [code for code in range(len(panel.groups)) if panel.colours[code] < 0 and drawn[code]]
    names = _names(panel, coloured, 30) + ([f"{len(grey)} other groups"] if grey else [])
    dashed = panel.options.get("dashed")
    alone = (bool(dashed) or len(coloured) <= 5) and any(layer.alone for layer in panel.layers)
    names += [_plain(dashed or "trained alone")] if alone else []
    columns, wide, height = len(panel.layers), 3.7, max(4.1, 0.9 + 0.19 * len(names))
    figure = _figure(panel, 4.5 * columns + 0.55 + _widest(names, 8), height)
    x = np.log10(1 + steps)
    ticks = log_ticks(float(steps[-1]))
    axes = None
    for place, layer in enumerate(panel.layers):
        axes = axes_at(figure, 0.72 + 4.5 * place, 0.6, wide, height - 1.4)
        values = panel.arrays[layer.values]
        rest = [np.column_stack((x, values[code])) for code in grey]
        axes.add_collection(LineCollection(rest, colors=_REST, linewidths=0.7, zorder=1))
        for code in coloured:
            axes.plot(x, values[code], color=_colour(panel, code), linewidth=1.7, zorder=3)
            if alone and layer.alone:
                other = panel.arrays[layer.alone][code]
                axes.plot(x, other, color=_colour(panel, code), linewidth=1, dashes=(4, 2.5), zorder=2)
        axes.autoscale_view()
        for label, at in panel.lines:
            axes.axhline(at, color=SOFT, linewidth=0.8, linestyle=":", zorder=0)
            axes.annotate(
                _plain(label), (x[-1], at), (0, 2), textcoords="offset points", ha="right", fontsize=7.5, color=SOFT
            )
        axes.set_xticks(np.log10(1 + np.array(ticks)), [f"{tick:,}" for tick in ticks])
        axes.set_title(_plain(layer.label))
        axes.set_xlabel(panel.x_label)
        axes.set_ylabel(layer.axis or panel.y_label)
        _grid(axes, "y")
    handles: list[Any] = [Line2D([], [], color=_colour(panel, code), linewidth=2) for code in coloured]
    handles += [Line2D([], [], color=_REST, linewidth=1)] if grey else []
    handles += [Line2D([], [], color=SOFT, linewidth=1, dashes=(4, 2.5))] if alone else []
    legend(figure, handles, names, 4.5 * columns, height - 0.8)
    return figure


def _draw_dots(panel: Panel) -> Figure:
    codes = list(panel.orders[0][1])
    series = [layer for layer in panel.layers if layer.marker not in _WRITTEN]
    written = [_column(panel, layer, codes) for layer in panel.layers if layer.marker in _WRITTEN]
    names, labels = _names(panel, codes), [_plain(layer.label) for layer in series]
    left, body = 0.3 + _widest(names, 9), 0.185 * max(len(codes), 2)
    foot, head = 0.55 + (0.3 if len(labels) > 1 else 0), 0.75 if written else 0.55
    rooms = [0.2 + _widest(column, 8.5) for column in written]
    full = max(left + 5.6 + sum(rooms), 1.0 + sum(0.45 + _wide(label, 8) for label in labels) if len(labels) > 1 else 0)
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
        if layer.marker == "bar":
            colours = np.where(values < 0, AGAINST.light, colour)
            axes.barh(places, np.nan_to_num(values), height=0.62, color=colours.tolist())
            continue
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
    axes.set_xlabel(panel.x_label)
    _grid(axes, "x")
    if len(handles) > 1:
        legend(figure, handles, labels, 0.15, 0.24, ncols=len(handles), columnspacing=1.2, handletextpad=0.2)
    return figure


def _column(panel: Panel, layer: Layer, codes: Sequence[int]) -> list[str]:
    """A heading and one entry per row."""
    values, form = panel.arrays[layer.values][list(codes)], _WRITTEN[layer.marker]
    return [_plain(layer.axis), *("–" if np.isnan(value) else form(value) for value in values.tolist())]


def _draw_scatter(panel: Panel) -> Figure:
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
        axes.set_title(_plain(layer.note))
        axes.set_xlabel(layer.axis)
        axes.set_ylabel(panel.y_label)
        _grid(axes, "both")
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
    legend(figure, handles, [_plain(verdict or "no verdict") for verdict in verdicts], 4.5 * columns + 0.1, 3.5)
    return figure


def _draw_heat(panel: Panel) -> Figure:
    codes = list(panel.orders[0][1])
    m, columns = len(codes), len(panel.layers)
    size = min(9.0, max(1.8, 0.13 * m))
    font = min(8.0, 0.86 * 72 * size / m)
    names = _names(panel, codes, 30)
    room = _widest(names, font) + 0.42
    stride = room + size + 1.15
    height = 0.85 + size + room
    figure = _figure(panel, stride * columns + 0.1, height)
    for column, layer in enumerate(panel.layers):
        axes = axes_at(figure, room + stride * column, room, size, size)
        matrix, limit = panel.arrays[layer.values][np.ix_(codes, codes)], layer.limit or 1.0
        image = axes.imshow(matrix, cmap=_DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_axis_off()
        gap = 0.05 / size * m
        for place, name in enumerate(names):
            axes.text(-0.5 - gap, place, name, ha="right", va="center", fontsize=font)
            axes.text(place, m - 0.5 + gap, name, ha="center", va="top", rotation=90, fontsize=font)
        figure.text(
            (room + stride * column) / figure.get_figwidth(), (room + size + 0.08) / height, _plain(layer.label)
        )
        if panel.x_label != panel.y_label:
            middle = 0.5 * (m - 1)
            far = (room - 0.14) / size * m
            axes.text(middle, m - 0.5 + far, panel.x_label, ha="center", va="center", color=SOFT)
            axes.text(-0.5 - far, middle, panel.y_label, ha="center", va="center", rotation=90, color=SOFT)
        side = axes_at(figure, room + stride * column + size + 0.14, room + 0.2 * size, 0.1, 0.6 * size)
        bar = figure.colorbar(image, cax=side, extend="both")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        side.tick_params(length=0, labelsize=7.5)
        bar.set_label(_plain(str(panel.options.get("unit", ""))), fontsize=8)
    return figure


def _draw_points(panel: Panel) -> Figure:
    coloured = _coloured(panel)
    rest = len(panel.groups) - len(coloured)
    names = _names(panel, coloured, 30) + ([f"{rest} other groups"] if rest else [])
    figure = _figure(panel, 7.4 + _widest(names, 8), 5.4)
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
    axes.set_xlabel(_plain(panel.x_label))
    axes.set_ylabel(_plain(panel.y_label))
    _grid(axes, "both")
    return figure


def _draw_hist(panel: Panel) -> Figure:
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
    _grid(axes, "y")
    return figure


_DRAW: dict[str, Callable[[Panel], Figure]] = {
    "lines": _draw_lines,
    "dots": _draw_dots,
    "scatter": _draw_scatter,
    "heat": _draw_heat,
    "points": _draw_points,
    "hist": _draw_hist,
}
