"""A picture in numbers, drawn elsewhere: what a recipe shows, and what a page shows beside its charts of groups."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from prefdyn.errors import DataError

Scale = Literal["linear", "log", "step"]
"""Of an axis; "step" is logarithmic in 1 + step, so that the start has a place on it."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One part of a picture.

    | kind | holds |
    |---|---|
    | `lines` | `lines` |
    | `heat` | `matrix` with `names` of its rows, and of its columns the same |
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
    limit: float | None = None
    """Largest size that the colours of a heat map, or the axes of clouds, show."""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What one sees: plots of one kind, side by side and in rows."""

    id: str
    """Fixed, never from data; also the name of its files."""
    title: str
    caption: str
    plots: tuple[Plot, ...] = ()
    size: tuple[float, float] = (3.6, 2.6)
    """Inches of one of its plots of lines."""
    across: int = 2
    """So many plots stand side by side."""
    draw: Callable[[], Any] | None = None
    """What draws it, where it is none of plots: a function of this package with its arguments bound."""

    def __post_init__(self) -> None:
        if not self.plots and self.draw is None:
            raise DataError(f"the picture {self.id!r} has no plot; give at least one")
