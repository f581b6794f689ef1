"""Results that show themselves: a table in a notebook, a data frame, a figure."""

import html
import importlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

from prefdyn._checks import nearest, one_of
from prefdyn.errors import ConfigError, MissingExtra

_ROWS, _COLUMNS = 20, 8
"""A notebook's cell shows so many; the data frame holds all."""


class Tabular:
    """A result that is a table: `rows()` gives it, one dictionary per row."""

    __slots__ = ()
    _FIRST: ClassVar[tuple[str, ...]] = ()
    """Columns that a notebook shows; the first ones of the table where none are named."""

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.__repr__ = Tabular.__repr__  # in place of a dataclass's own, which writes out every number

    def __repr__(self) -> str:
        if type(self).__str__ is not object.__str__:
            return str(self)
        return f"{type(self).__name__} of {len(self.rows()):,} rows"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per row."""
        raise NotImplementedError

    def frame(self, library: str | None = None) -> Any:
        """The same as a data frame.

        Args:
            library: "pandas" or "polars"; the first of them that is installed, if not given.

        Raises:
            MissingExtra: It is not installed.
        """
        known = [name for name in ("pandas", "polars") if find_spec(name) is not None]
        wanted = one_of(library, ("pandas", "polars"), name="library") if library else next(iter(known), "pandas")
        if wanted not in known:
            raise MissingExtra(f"a data frame needs {wanted}: pip install {wanted}; rows() gives plain dictionaries")
        return importlib.import_module(wanted).DataFrame(by_column(self.rows()))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return as_html(self.rows(), first=self._FIRST, title=type(self).__name__)


class Pictured(Tabular):
    """A result of a run: it also has the pictures of its page."""

    __slots__ = ()

    def plot(self, picture: str | None = None) -> Any:
        """One of the pictures of its page, as a matplotlib figure.

        Args:
            picture: Name of the picture, such as "loss-curves"; the first one if not given.

        Raises:
            ConfigError: There is none of this name, or none at all.
        """
        drawn = {each.id: each for each in self._pictures()}
        if not drawn:
            raise ConfigError(f"there is nothing to draw of this {type(self).__name__}; rows() has its numbers")
        if picture is not None and picture not in drawn:
            raise ConfigError(f"plot has no picture {picture!r}{nearest(picture, drawn)}")
        return importlib.import_module("prefdyn.report").figure_of(drawn[picture or next(iter(drawn))])

    def _pictures(self) -> Sequence[Any]:
        report = importlib.import_module("prefdyn.report")  # drawing lies above what is drawn, and takes a second
        return report.pictures(report.run_of(self))


def by_column(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of rows that need not have the same keys; what a row lacks is None.

    Example:
        >>> by_column([{"a": 1}, {"a": 2, "b": 3}])
        {'a': [1, 2], 'b': [None, 3]}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def as_html(rows: Sequence[Mapping[str, Any]], *, first: Sequence[str] = (), title: str = "") -> str:
    """A small table for a notebook, in the notebook's own colours, with what it leaves out named below.

    Example:
        >>> as_html([{"group": "<a>", "loss": 0.123456}], title="Run").count("&lt;a&gt;")
        1
    """
    known = by_column(rows)
    names = [name for name in (first or tuple(known)[:_COLUMNS]) if any(v is not None for v in known.get(name, ()))]
    cell = 'style="text-align:{};padding:0.15em 0.7em;white-space:nowrap"'
    sides = {name: "right" if _numeric(known[name]) else "left" for name in names}
    head = "".join(f"<th {cell.format(sides[name])}>{html.escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td {cell.format(sides[name])}>{_text(row.get(name))}</td>" for name in names) + "</tr>"
        for row in rows[:_ROWS]
    )
    left = [
        *([f"{len(rows) - _ROWS:,} more rows"] if len(rows) > _ROWS else []),
        *([f"{len(known) - len(names)} more columns"] if len(known) > len(names) else []),
    ]
    more = f'<p style="opacity:0.7;margin:0.3em 0">{" and ".join(left)}: <code>.frame()</code></p>' if left else ""
    return (
        f'<div style="overflow-x:auto"><strong>{html.escape(title)}</strong>'
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        f"{more}</div>"
    )


def _numeric(values: Sequence[Any]) -> bool:
    return all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return html.escape(f"{value:.4g}".replace("-", "−"))
    if isinstance(value, int):
        return f"{value:,}"
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in str(value))
    return html.escape(text if len(text) <= 120 else text[:119] + "…")
