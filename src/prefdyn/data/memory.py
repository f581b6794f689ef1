"""Parts of a dataset from objects in memory: datasets.Dataset, DataFrame, Arrow table, list of dictionaries."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from prefdyn.data.assemble import Part, trl_part, wanted_by_layout
from prefdyn.data.bad_rows import Rejects, shown
from prefdyn.data.columns import Columns, Rows
from prefdyn.data.readers import Row, RowSource, from_arrow
from prefdyn.errors import DataError


def datasets_source(
    dataset: Any, label: str, stem: str, group_column: str | None, rejects: Rejects, given: Columns | Rows | None = None
) -> RowSource:
    """The rows of a `datasets.Dataset`, whose indices and formats are honoured."""

    def read(names: list[str]) -> pa.Table:
        chosen = dataset.select_columns(names)
        return chosen.with_format("arrow")[:].replace_schema_metadata(chosen.features.arrow_schema.metadata)

    columns = tuple(dataset.column_names)
    fields = wanted_by_layout(given, group_column)
    return from_arrow(read, columns, label=label, stem=stem, wanted=fields, rejects=rejects)


def from_object(data: Any, group_column: str | None, rejects: Rejects, given: Columns | Rows | None = None) -> Part:
    """Pairs in memory, told apart by what they can do, so that neither datasets nor pandas need be imported.

    Raises:
        DataError: It is nothing that holds rows, or holds none.
    """
    what = f"{type(data).__module__}.{type(data).__qualname__}"
    if isinstance(data, pa.Table):
        fields = wanted_by_layout(given, group_column)
        names = tuple(data.schema.names)
        source = from_arrow(data.select, names, label="table", stem="row", wanted=fields, rejects=rejects)
        return trl_part("table", [source], given)
    if hasattr(data, "column_names") and hasattr(data, "select_columns") and hasattr(data, "__len__"):
        if isinstance(data, Mapping):
            raise DataError(
                f"a DatasetDict holds the splits {', '.join(data)}; give one of them, such as d[{next(iter(data))!r}]"
            )
        return trl_part("dataset", [datasets_source(data, "dataset", "row", group_column, rejects, given)], given)
    if hasattr(data, "column_names") and hasattr(data, "__iter__"):
        raise DataError(f"a streaming dataset ({what}) cannot be split or hashed; load it without streaming=True")
    if hasattr(data, "columns") and hasattr(data, "to_dict"):
        return trl_part("frame", [_frame(data)], given)
    if isinstance(data, Iterable) and not isinstance(data, (Mapping, str, bytes)):
        return trl_part("rows", [_records(list(data))], given)
    raise DataError(
        f"cannot read pairs from {what}; give a spec, a datasets.Dataset, a DataFrame or a list of dictionaries"
    )


def _frame(frame: Any) -> RowSource:
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"the DataFrame has two columns {twice[0]!r}; give every column its own name")
    if len(frame) == 0:
        raise DataError("the DataFrame is empty; give a row per pair")
    held = [{str(key): _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]
    return RowSource(label="DataFrame", stem="row", rows=list(enumerate(held, start=1)), columns=tuple(names))


def _plain(value: Any) -> Any:
    """Messages as pandas reads them from Parquet are arrays; the rest is as it should be."""
    return value.tolist() if type(value).__name__ == "ndarray" else value


def _records(data: list[Any]) -> RowSource:
    held: list[Row] = []
    for number, row in enumerate(data, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"row {number} of the list is {shown(row)}, but must be a dictionary with chosen and rejected"
            )
        odd = next((key for key in row if not isinstance(key, str)), None)
        if odd is not None:
            raise DataError(f"row {number} of the list has the key {shown(odd)}, but every key must be text")
        held.append((number, row))
    if not held:
        raise DataError("the list of rows is empty; give at least one pair")
    return RowSource(label="rows", stem="row", rows=held)
