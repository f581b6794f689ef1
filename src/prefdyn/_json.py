"""JSON: what results can hold of it, files of it, and one reader with limits. One schema version for summary.json."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA_VERSION = 1
"""Of summary.json, whichever command wrote it."""
DEPTH = 100
"""Lists and objects inside each other, up to which JSON is read."""
DIGITS = 4000
"""Digits up to which a whole number is read; Python itself refuses to write out longer ones."""


class NotJSON(ValueError):
    """Why a text is not read as JSON, in one line without its place; a line and column where they are known."""

    def __init__(self, reason: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.line, self.column = reason, line, column

    def __str__(self) -> str:
        at = f" at line {self.line}, column {self.column}" if self.line is not None else ""
        return f"{self.reason}{at}"


def read_json(raw: bytes, *, flaws: bool = False) -> Any:
    """What a JSON text holds, within limits: UTF-8, no key twice in one object, no depth or number without end.

    Args:
        raw: The whole text.
        flaws: Put a `NotJSON` where an object has a key twice or a number has no end, instead of raising it.

    Raises:
        NotJSON: It is anything else.

    Example:
        >>> read_json(b'{"a": [1, null]}')
        {'a': [1, None]}
        >>> read_json(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        prefdyn._json.NotJSON: holds the key 'a' twice in one object; keep one
    """
    try:
        held = (_FORGIVING if flaws else _STRICT).decode(raw.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        byte = f"is not UTF-8 (byte {raw[error.start]:#04x})"
        start = raw.rfind(b"\n", 0, error.start) + 1
        raise NotJSON(byte, line=raw.count(b"\n", 0, error.start) + 1, column=error.start - start + 1) from error
    except json.JSONDecodeError as error:
        raise NotJSON(f"is not valid JSON: {error.msg}", line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise NotJSON(f"is nested more than {DEPTH} deep; make it flatter") from error
    if raw.count(b"[") + raw.count(b"{") > DEPTH and _deeper(held, DEPTH):
        raise NotJSON(f"is nested more than {DEPTH} deep; make it flatter")
    return held


def flaw_in(held: Any) -> NotJSON | None:
    """The first flaw inside of what `read_json` read with `flaws`; None where there is none."""
    if isinstance(held, dict | list):
        inner = held.values() if isinstance(held, dict) else held
        return next((flaw for item in inner if (flaw := flaw_in(item)) is not None), None)
    return held if isinstance(held, NotJSON) else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | NotJSON:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    twice = next(name for name, _ in pairs if name in seen or seen.add(name))
    return NotJSON(f"holds the key {twice if len(twice) < 60 else twice[:59] + '…'!r} twice in one object; keep one")


def _whole(text: str) -> int | NotJSON:
    if len(text) <= DIGITS:
        return int(text)
    return NotJSON(f"holds a number of {len(text.lstrip('-')):,} digits; write it as text, or shorter")


def _raised(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def strict(given: Any) -> Any:
        made = make(given)
        if type(made) is NotJSON:
            raise made
        return made

    return strict


_FORGIVING = json.JSONDecoder(object_pairs_hook=_object, parse_int=_whole)
_STRICT = json.JSONDecoder(object_pairs_hook=_raised(_object), parse_int=_raised(_whole))


def _deeper(held: Any, limit: int) -> bool:
    """Whether lists and objects lie more than `limit` deep inside each other."""
    level = [held]
    for _ in range(limit):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def write_json(path: Path, content: Any) -> None:
    """Write a file of `content` as `plain` has it."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def number(value: Any) -> float:
    """The value as a float; NaN where it is no finite number.

    Example:
        >>> number(2), number(None), number("x")
        (2.0, nan, nan)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        found = float(value)
    except OverflowError:
        return math.nan
    return found if math.isfinite(found) else math.nan


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
