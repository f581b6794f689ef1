r"""Tables as CSV that a spreadsheet shows and does not run.

A text that begins with `=`, `+`, `-`, `@`, a tab or a line break is a formula to a spreadsheet (OWASP: CSV injection),
and group names come from whoever wrote the data. Such a text gets an apostrophe in front, which `unguarded` takes off
again; a text that is a number stays, and so does every number.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of pyarrow.compute at import, where a type checker does not see them)

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

_RISKY = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_FORMULA = re.compile(f"'*{_RISKY}")
_GUARDED = re.compile(f"'+{_RISKY}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def is_formula(text: str) -> bool:
    """Whether a spreadsheet would take a text for a formula.

    Example:
        >>> is_formula("=1+1"), is_formula("-0.5"), is_formula("a=b")
        (True, False, False)
    """
    return text[:1] != "'" and _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


def guarded(text: str) -> str:
    """The text as it stands in a table: with an apostrophe in front where it would be a formula.

    Example:
        >>> guarded("=1+1"), guarded("plain"), guarded("-0.5"), guarded("'=1")
        ("'=1+1", 'plain', '-0.5', "''=1")
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(text: str) -> str:
    """The text that `guarded` was given.

    Example:
        >>> unguarded("'=1+1"), unguarded("'tis")
        ('=1+1', "'tis")
    """
    return text[1:] if _GUARDED.match(text) else text


def write_csv(table: pa.Table, sink: Path | pa.NativeFile) -> None:
    """Write a table; texts and the names of columns are `guarded`, numbers as they are."""
    csv.write_csv(_mapped(table, guarded), sink)


def read_csv(source: Path | pa.Buffer | pa.NativeFile) -> pa.Table:
    """A table that `write_csv` wrote.

    Raises:
        pyarrow.ArrowException: It is no CSV.
        OSError: It cannot be read.
    """
    return _mapped(csv.read_csv(source), unguarded)


def _mapped(table: pa.Table, change: Callable[[str], str]) -> pa.Table:
    columns = []
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            texts = [None if text is None else change(text) for text in column.to_pylist()]
            column = pa.chunked_array([pa.array(texts, column.type)])
        columns.append(column)
    return pa.Table.from_arrays(columns, names=[change(name) for name in table.schema.names])
