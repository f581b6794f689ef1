"""A dataset as a file in TRL's columns."""

import csv
import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prefdyn._checks import nearest
from prefdyn._csv import is_formula
from prefdyn._files import atomic_write
from prefdyn.data.conversation import ARGUMENTS, SIDES, TOOLS, Conversation
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.readers import opened
from prefdyn.errors import ConfigError, DataError, StoreError

_SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
_COLUMNS = (*SIDES, "group", "id", "weight")
_PLAIN = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_JSON = pa.json_(pa.utf8())


def write(data: PreferenceDataset, path: str | Path, *, force: bool = False) -> None:
    """Write prompt, chosen, rejected, group, id, weight, cluster where any is named, split where pairs are held out.

    Conversational pairs keep their messages with every key, their tools and their template arguments. The file
    appears whole or not at all, and equal data leaves equal bytes. `load_dataset` reads it back to the same content.

    Args:
        data: What to write.
        path: A .jsonl, .jsonl.gz, .csv or .parquet file.
        force: Replace the file if it exists.

    Raises:
        ConfigError: The ending is unknown.
        DataError: The path can be none, or the format cannot hold the data: conversations in CSV, or both forms in one
            Parquet file.
        StoreError: The file exists, or cannot be written.
    """
    path = opened(str(path))
    suffix = next((end for end in reversed(_SUFFIXES) if path.name.endswith(end)), None)
    if suffix is None:
        raise ConfigError(f"{path} ends in no format that can be written{nearest(path.suffix or path.name, _SUFFIXES)}")
    if path.is_dir():
        raise StoreError(f"{path} is a folder; give the name of a file")
    if path.exists() and not force:
        raise StoreError(f"{path} exists already; give another name, or --force (force=True) to replace it")
    named = data.table["cluster"].null_count < len(data)
    table = data.table.select([
        *_COLUMNS, *(["cluster"] if named else []), *(["split"] if "held_out" in data.splits else []),
    ])  # fmt: skip
    if suffix == ".csv":
        content = _csv(data, table, path)
    elif suffix == ".parquet":
        content = _parquet(data, table, path)
    else:
        content = _json_lines(data, table)
        if suffix == ".jsonl.gz":
            content = gzip.compress(content, compresslevel=6, mtime=0)
    atomic_write(path, content)


def unwritten(data: PreferenceDataset) -> tuple[str, ...]:
    """What the pairs hold that no column of a written file keeps: votes and places, which findings were made from.

    Example:
        >>> unwritten(PreferenceDataset.from_rows([{"prompt": "1 + 1", "chosen": "2", "rejected": "3"}]))
        ()
    """
    return tuple(name for name in ("agreement", "slot") if data.table[name].null_count < len(data))


def formula_cells(data: PreferenceDataset) -> int:
    """How many texts a spreadsheet would run as a formula. They are written as they are, since other tools read them.

    Example:
        >>> formula_cells(PreferenceDataset.from_rows([{"prompt": "1 + 1", "chosen": "=2", "rejected": "-3"}]))
        1
    """
    texts = (text for name in (*SIDES, "group", "id") for text in data.table[name].to_pylist())
    return sum(map(is_formula, texts))


def _json_lines(data: PreferenceDataset, table: pa.Table) -> bytes:
    rows = table.to_pylist()
    if data.conversational:
        further = _further(data.conversations)
        for row, talk in zip(rows, data.conversations, strict=True):
            if talk is not None:
                row.update({side: talk[side] for side in SIDES})
                row.update({key: talk.get(key, default) for key, default in further.items()})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(data: PreferenceDataset, table: pa.Table, path: Path) -> bytes:
    if data.conversational:
        raise DataError(
            f"{path}: CSV cannot hold {data.conversational} conversational pairs, because a message list is not one "
            "text; write .jsonl or .parquet"
        )
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(table.schema.names)
    writer.writerows(zip(*(table[name].to_pylist() for name in table.schema.names), strict=True))
    return text.getvalue().encode()


def _parquet(data: PreferenceDataset, table: pa.Table, path: Path) -> bytes:
    if data.conversational and data.conversational < len(data):
        raise DataError(
            f"{path}: Parquet cannot hold {data.conversational} conversational and "
            f"{len(data) - data.conversational} plain pairs in one column; write .jsonl"
        )
    if data.conversational:
        for name, values in conversation_columns(data).items():
            at = table.schema.get_field_index(name)
            table = table.append_column(name, values) if at < 0 else table.set_column(at, name, values)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def conversation_columns(data: PreferenceDataset) -> dict[str, pa.Array]:
    """The columns that TRL reads of a dataset of conversations, as `datasets` reads them from Parquet.

    Messages of role and text alone are structures; with any other key, and so tools and template arguments, they are
    JSON, which `datasets` and `load_dataset` take back as it was. A null template argument column would stop TRL, so
    that rows without arguments get an empty object where others have some.

    Args:
        data: Conversations only.
    """
    talks = [talk for talk in data.conversations if talk is not None]
    found = {}
    for side in SIDES:
        messages = [message for talk in talks for message in talk[side]]
        if all(message.keys() == {"role", "content"} and isinstance(message["content"], str) for message in messages):
            found[side] = pa.array([talk[side] for talk in talks], _PLAIN)
        else:
            ends = np.cumsum([0, *(len(talk[side]) for talk in talks)])
            found[side] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _json_array(messages))
    for key, default in _further(talks).items():
        found[key] = _json_array([talk.get(key, default) for talk in talks])
    return found


def _further(talks: Iterable[Conversation | None]) -> dict[str, Any]:
    """Columns beside the messages that any conversation needs, with what a row holds that has none."""
    held = {key for talk in talks if talk is not None for key in (TOOLS, ARGUMENTS) if key in talk}
    return {key: default for key, default in ((TOOLS, None), (ARGUMENTS, {})) if key in held}


def _json_array(values: Iterable[Any]) -> pa.Array:
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pa.ExtensionArray.from_storage(_JSON, pa.array(texts, pa.utf8()))
