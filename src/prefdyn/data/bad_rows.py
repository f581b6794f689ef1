"""What happens to a row that cannot be used: an error that names the place, or an entry in a list."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from prefdyn.data.pairs import LeftOut
from prefdyn.errors import DataError

_SHOWN = 60


class BadRow(Exception):
    """Raised inside the room by whoever finds that a row cannot be used. Callers see a `DataError` or a `LeftOut`."""

    def __init__(self, field: str | None, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = field, reason


@dataclass(kw_only=True)
class Rejects:
    """Collects bad rows where the user said to skip them, and raises at the first where not."""

    skip: bool
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, source: str, line: int | None, bad: BadRow) -> None:
        """Note one bad row.

        Raises:
            DataError: Bad rows are not skipped.
        """
        item = LeftOut(source=source, line=line, field=bad.field, reason=bad.reason)
        if not self.skip:
            raise DataError(f"{says(item)}; or leave bad rows out with --skip-bad-rows (skip_bad_rows=True)")
        self.left_out.append(item)


def says(item: LeftOut) -> str:
    """One bad row as one line: place, field and reason."""
    line = "" if item.line is None else f", line {item.line}"
    return f"{item.source}{line}{'' if item.field is None else f', field {item.field!r}'}: {item.reason}"


def shown(value: object) -> str:
    """A value on one line, cut to a readable length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists in lists without end
        return f"{kind(value)} too long to show"
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def listed(names: Iterable[object], most: int = 8) -> str:
    """Names of fields or columns, each as `shown`, of many the first.

    Example:
        >>> listed(["a", "b"]), listed([])
        ("'a', 'b'", '(none)')
    """
    every = list(names)
    return (", ".join(map(shown, every[:most])) + (", …" if len(every) > most else "")) or "(none)"


def kind(value: object) -> str:
    """What a value is, in the words of JSON."""
    if value is None or (isinstance(value, float) and value != value):
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
