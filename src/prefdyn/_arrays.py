"""Checks of arrays, which stand apart from `_checks` so that a command that shows its help loads no numpy."""

import numpy as np

from prefdyn.errors import DataError


def finite(values: np.ndarray, *, name: str, fix: str) -> np.ndarray:
    """Return `values` if all are finite, else raise a `DataError` that names the first row that is not."""
    step = max(1, _CELLS * len(values) // max(values.size, 1))  # rows at a time: what is read may be larger than memory
    parts = [np.isfinite(values[start : start + step]) for start in range(0, len(values), step)]
    rows = np.concatenate([part.reshape(len(part), -1).all(axis=1) for part in parts] or [np.ones(0, dtype=bool)])
    if not rows.all():
        bad = int(np.flatnonzero(~rows)[0])
        raise DataError(f"{name} has {int((~rows).sum())} rows with NaN or infinity, the first is row {bad}; {fix}")
    return values


_CELLS = 2**24
"""Numbers that `finite` looks at together."""
