"""A picture in numbers, drawn elsewhere: figures of recipes, charts that a page's script draws, and all others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from prefdyn.errors import DataError

Scale = Literal["linear", "log", "step"]
"""Of an axis; "step" is logarithmic in 1 + step, so that the start has a place on it."""
Marker = Literal["dot", "ring", "tick", "cross", "diamond", "triangle", "share", "number"]
"""How a series is drawn; "share" (a percentage) and "number" are written at the end of each group's row."""
Kind = Literal["plots", "lines", "dots", "scatter", "heat", "points", "hist"]
"""Plots, or a chart of groups, whose arrays the script of a page draws as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve, with the range of its seeds."""

    label: str
    """Lines of one label stand once in the key; one without a label not at all."""
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    shade: float | None = None
    """Place in the papers' colour map plasma, 0 to 1; None: grey."""
    colour: str | None = None
    """Name of a colour, where the papers have one that is not of that map."""
    style: Literal["solid", "dashed", "dotted", "points"] = "solid"
    width: float = 1.7
    marked: bool = False
    """A dot at every place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One part of a picture.

    | kind | holds |
    |---|---|
    | `lines` | `lines` |
    | `heat` | `matrix` with `names` of its rows and `columns`, or of both the same; words in its `cells` |
    | `clouds` | `lines` of style "points": x and y of points |
    | `table` | `columns` and `rows` of text |
    | `texts` | `rows` of a heading and a text each |
    | `surface`, `plane` | `options["beta"]`; a plane may have one of `lines` for a path |
    """

    kind: Literal["lines", "heat", "clouds", "table", "texts", "surface", "plane"] = "lines"
    title: str = ""
    note: str = ""
    """A few words below the title."""
    x_label: str = ""
    y_label: str = ""
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    x_range: tuple[float, float] | None = None
    y_range: tuple[float | None, float | None] = (None, None)
    lines: tuple[Line, ...] = ()
    marks: tuple[tuple[str, float], ...] = ()
    """Level lines: a name and a height."""
    matrix: np.ndarray | None = None
    names: tuple[str, ...] = ()
    """Of the rows of a matrix; of the places 0, 1, … across, where lines go from name to name."""
    cells: tuple[tuple[str, ...], ...] = ()
    framed: tuple[int, int] | None = None
    """Row and column of the cell that is framed."""
    shades: Literal["against", "few", "far"] = "against"
    """Colours of a matrix: below 0 against above 0, or dark where there is little, or where there is much."""
    unit: str = ""
    """Of a matrix, beside its colours."""
    limit: float | None = None
    """Largest size that the colours of a heat map, or the axes of clouds, show."""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One thing in a chart of groups: a view of curves or of a matrix, or a series of points. Arrays go by name."""

    label: str
    values: str
    """Name of the array: (m, s) for lines, (m,) for dots and scatter, (m, m) for heat, (bins,) for hist."""
    axis: str = ""
    """Axis label with unit, where it differs from the picture's."""
    low: str | None = None
    high: str | None = None
    """Names of the arrays with the ends of an interval."""
    told: bool = False
    """The interval is told where one points at a row, and not drawn."""
    alone: str | None = None
    """Name of the array with the same groups' other curves, dashed: each trained by itself, unless
    `options["dashed"]` says otherwise."""
    marker: Marker = "dot"
    limit: float | None = None
    """For a heat map: the colours run from -limit to +limit."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What one sees: a chart of groups, or plots of one kind, side by side and in rows."""

    id: str
    """Fixed, never from data; also the name of its files."""
    title: str
    caption: str
    kind: Kind = "plots"

    # of plots
    plots: tuple[Plot, ...] = ()
    size: tuple[float, float] = (3.6, 2.6)
    """Inches of one of its plots of lines."""
    across: int = 2
    """So many plots stand side by side."""
    draw: Callable[[], Any] | None = None
    """What draws it, where it is none of plots: a function of this package with its arguments bound."""

    # of a chart of groups
    x_label: str = ""
    y_label: str = ""
    groups: tuple[str, ...] = ()
    """Names, as shown, that group codes refer to."""
    colours: tuple[int, ...] = ()
    """(m,) place in the palette per group, -1 for grey."""
    verdicts: tuple[str | None, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()
    orders: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Ways to sort the groups: a label, and group codes from first to last."""
    lines: tuple[tuple[str, float], ...] = ()
    """Reference lines across the value axis: label and place."""
    labels: tuple[str, ...] = ()
    """Names of single points, where they have any."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.plots or self.layers or self.draw):
            raise DataError(f"the picture {self.id!r} has no plot; give at least one")
        for values in self.arrays.values():
            values.setflags(write=False)
