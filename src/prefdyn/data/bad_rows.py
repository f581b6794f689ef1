"""What happens to a row that cannot be used: an error that names the place, or an entry in a list."""

from dataclasses import dataclass, field

from prefdyn._shape import kind, listed, shown
from prefdyn.data.pairs import LeftOut
from prefdyn.errors import DataError

__all__ = ["BadRow", "Rejects", "kind", "listed", "says", "shown"]


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
            raise DataError(f"{says(item)}; or leave bad rows out with --skip-bad-rows")
        self.left_out.append(item)


def says(item: LeftOut) -> str:
    """One bad row as one line: place, field and reason."""
    line = "" if item.line is None else f", line {item.line}"
    return f"{item.source}{line}{'' if item.field is None else f', field {item.field!r}'}: {item.reason}"
