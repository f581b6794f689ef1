"""Charts of groups as what the script of a page draws from."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from prefdyn.picture import Picture


def chart_json(picture: Picture) -> dict[str, Any]:
    """What the page's script draws from: plain lists, numbers to four or five digits, unknown as null."""
    return {
        "id": picture.id,
        "kind": picture.kind,
        "title": picture.title,
        "x": picture.x_label,
        "y": picture.y_label,
        "arrays": {name: rounded(values) for name, values in picture.arrays.items()},
        "layers": [asdict(layer) for layer in picture.layers],
        "orders": [{"label": label, "codes": list(codes)} for label, codes in picture.orders],
        "lines": [{"label": label, "at": at} for label, at in picture.lines],
        "labels": list(picture.labels),
        "options": dict(picture.options),
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
