"""What every drawing shares: settings, colours, places in inches, letters that fit, and axes in plain numbers."""

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from prefdyn.report.palette import AGAINST, TOWARDS
from prefdyn.report.text import shorten

DPI = 110
INK, SOFT, FAINT = "#1f1f1d", "#5d5c57", "#dddcd6"
DIVERGING = LinearSegmentedColormap.from_list("against_towards", [AGAINST.light, "#f4f3ef", TOWARDS.light], N=41)
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


def plain(text: str, width: int = 200) -> str:
    """Text that the font can draw: a character it lacks becomes a box, which is what would be drawn anyway."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in shorten(text, width) if c not in "\u200d\ufe0f")


@lru_cache(maxsize=4096)
def wide(text: str, size: float) -> float:
    """Width of a text in inches."""
    font = get_font(findfont(FontProperties(family="DejaVu Sans")))
    font.set_size(size, 72)
    font.set_text(text)
    return 1.06 * font.get_width_height()[0] / 64 / 72  # hinting may widen it


def widest(names: Sequence[str], size: float) -> float:
    """Inches of the widest of the texts."""
    return max((wide(name, size) for name in names), default=0.0)


class Drawing(Figure):
    """A figure that a notebook shows: one of matplotlib's own is shown only after `%matplotlib inline` or pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(SETTINGS):
            self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def heading(figure: Figure, title: str) -> None:
    """The title of a picture, in its upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(0.15 / width, 1 - 0.16 / height, title, va="top", fontsize=12, fontweight="bold", label=_HEADING)


def untitled(figure: Figure) -> None:
    """Take a picture's title away, if it has one: a paper has its own below."""
    for text in figure.texts:
        if text.get_label() == _HEADING:
            text.set_text("")


_HEADING = "heading"


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


def grid(axes: Axes, axis: Literal["x", "y", "both"]) -> None:
    """Faint lines behind what is drawn."""
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


def step_axis(axes: Axes, last: float, inches: float) -> None:
    """Ticks of an axis that is logarithmic in 1 + step, as many as have room."""
    ticks = log_ticks(last)
    if len(ticks) > inches / 0.42:
        ticks = [tick for tick in ticks if str(tick)[0] == "1" or tick == 0]
    while len(ticks) > max(2, inches / 0.42):
        ticks = [ticks[0], *ticks[2::2]] if len(ticks) % 2 else ticks[::2]
    axes.set_xticks(np.log10(1 + np.array(ticks)), [f"{tick:,}" if tick < 100_000 else f"{tick:.0e}" for tick in ticks])


def plain_log(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis in plain numbers, the denser the less it spans."""
    subs = (1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if 1e-3 <= value < 1e6 else f"{value:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def fitting(name: str, size: float, room: float) -> str:
    """As much of a name as there is room for, in inches, but for its ends."""
    width = 40
    while width > 8 and widest([plain(name, width)], size) > room:
        width -= 1
    return plain(name, width)
