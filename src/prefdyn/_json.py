"""Results as JSON: what it can hold, and files of it. One schema version for every summary.json."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
"""Of summary.json, whichever command wrote it."""


def write_json(path: Path, content: Any) -> None:
    """Write a file of `content` as `plain` has it."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """The same value as JSON can hold it: NaN and infinity become None, arrays lists, NumPy scalars Python ones.

    Example:
        >>> plain({"a": np.float64("nan"), "b": np.arange(2), "c": (1.5, None)})
        {'a': None, 'b': [0, 1], 'c': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
