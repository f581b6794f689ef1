"""What one picture shows, as named arrays with labels and units. Figures and the page draw the same pictures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Marker = Literal["dot", "ring", "tick", "cross", "diamond", "triangle", "bar", "share", "number"]
"""How a series is drawn; "share" (a percentage) and "number" are written at the end of each group's row."""
Kind = Literal["lines", "dots", "scatter", "heat", "points", "hist"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One thing drawn in a panel: a view of curves or of a matrix, or one series of points. Arrays go by name."""

    label: str
    values: str
    """Name of the array: (m, s) for lines, (m,) for dots and scatter, (m, m) for heat, (bins,) for hist."""
    axis: str = ""
    """Axis label with unit, where it differs from the panel's."""
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
class Panel:
    """One picture: arrays, how they are to be read, and a caption that says what one sees."""

    id: str
    """Fixed by the kind of panel, never by data; also the name of its figure files."""
    title: str
    kind: Kind
    caption: str
    x_label: str
    y_label: str
    groups: tuple[str, ...]
    """Names, as shown, that group codes refer to."""
    colours: tuple[int, ...]
    """(m,) place in the palette per group, -1 for grey."""
    verdicts: tuple[str | None, ...]
    arrays: Mapping[str, np.ndarray]
    layers: tuple[Layer, ...]
    orders: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Ways to sort the groups: a label, and group codes from first to last."""
    lines: tuple[tuple[str, float], ...] = ()
    """Reference lines across the value axis: label and place."""
    labels: tuple[str, ...] = ()
    """Names of single points, where they have any."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for values in self.arrays.values():
            values.setflags(write=False)


def panel_json(panel: Panel) -> dict[str, Any]:
    """What the page's script draws from: plain lists, numbers to four or five digits, unknown as null."""
    return {
        "id": panel.id,
        "kind": panel.kind,
        "title": panel.title,
        "x": panel.x_label,
        "y": panel.y_label,
        "arrays": {name: rounded(values) for name, values in panel.arrays.items()},
        "layers": [
            {
                "label": layer.label,
                "values": layer.values,
                "axis": layer.axis,
                "low": layer.low,
                "high": layer.high,
                "told": layer.told,
                "alone": layer.alone,
                "marker": layer.marker,
                "limit": layer.limit,
                "note": layer.note,
            }
            for layer in panel.layers
        ],
        "orders": [{"label": label, "codes": list(codes)} for label, codes in panel.orders],
        "lines": [{"label": label, "at": at} for label, at in panel.lines],
        "labels": list(panel.labels),
        "options": dict(panel.options),
    }


def rounded(values: np.ndarray) -> list[Any]:
    """Nested lists with four or five digits that matter; NaN becomes None.

    Example:
        >>> rounded(np.array([[1.0, np.nan], [0.00123456789, 2.0]]))
        [[1, None], [0.0012346, 2]]
    """
    if values.ndim > 1:
        return [rounded(row) for row in values]
    return [_short(float(value)) for value in values]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e9 else short
