"""Files of rows: JSON lines, JSON, CSV and Parquet, plain or gzipped. What a field means is decided elsewhere."""

import csv
import difflib
import gzip
import io
import os
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefdyn._json import NotJSON, flaw_in, read_json
from prefdyn.data.bad_rows import BadRow, Rejects, kind, listed, shown
from prefdyn.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")
_MARK = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")

Row = tuple[int, Mapping[str, Any]]
"""Line or row number from 1, and the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The rows of one file or object."""

    label: str
    """How messages name it: the path as the user gave it."""
    stem: str
    """What the ids of its rows begin with."""
    rows: list[Row]
    columns: tuple[str, ...] | None = None
    """Every column, where the format has a header; None where each row names its own fields."""


def stem(path: Path) -> str:
    """The file's name without its suffixes.

    Example:
        >>> stem(Path("runs/v1.2.jsonl.gz"))
        'v1.2'
    """
    name = written(path.name)
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return Path(name).stem


def written(path: Path | str) -> str:
    r"""A path as text that any file can hold: bytes of a name that are not UTF-8 are written as escapes.

    Example:
        >>> written("caf\udce9")
        'caf\\xe9'
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def opened(text: str) -> Path:
    """The path that a text names, with `~` for the home folder; it need not exist.

    Raises:
        DataError: It can be no path: too long, without such a user, or with a null character.
    """
    path = Path(text)
    try:
        path = path.expanduser()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (ValueError, RuntimeError, OSError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(text)} names no file or folder: {why}; give a path") from error
    return path


def data_files(path: Path) -> list[Path]:
    """The path itself if it is a file, or the data files directly inside the folder, by name.

    Raises:
        DataError: There is no such path, the folder cannot be listed, or the file's kind is not known.
    """
    if not path.exists():
        raise DataError(missing(path))
    if not path.is_dir():
        if not path.name.endswith(SUFFIXES):
            raise DataError(
                f"{written(path)} is of no kind that can be read; give a file that ends in {', '.join(SUFFIXES)}"
            )
        return [path]
    try:
        return sorted(item for item in path.iterdir() if _is_data(item))
    except OSError as error:
        raise DataError(f"folder {written(path)} cannot be listed: {error.strerror}; check its permissions") from error


def _is_data(path: Path) -> bool:
    return path.is_file() and path.name.endswith(SUFFIXES) and not path.name.startswith(".")


def missing(path: Path) -> str:
    """The message for a path that is not there: names what its folder holds instead."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        path, folder = folder, folder.parent
    try:
        names = sorted(item.name for item in folder.iterdir())
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5) or names[:3]
    held = f"; near names in {written(folder)}: {', '.join(map(written, near))}"
    return f"there is no file or folder {written(path)}{held if near else f'; folder {written(folder)} is empty'}"


def read_file(path: Path, rejects: Rejects, *, wanted: Collection[str] | None = None) -> Source:
    """All rows of one file. Rows that are no rows go to `rejects`; damage to the file as a whole is always an error.

    Args:
        path: A file with one of `SUFFIXES`.
        rejects: Where malformed rows go.
        wanted: Columns to read of a Parquet file; None for all.

    Raises:
        DataError: The file cannot be read, is empty, or is damaged.
    """
    name, label = path.name.removesuffix(".gz"), written(path)
    try:
        if name.endswith(".jsonl"):
            source = Source(label=label, stem=stem(path), rows=list(_json_lines(path, rejects)))
        elif name.endswith(".json"):
            source = Source(label=label, stem=stem(path), rows=list(_json(path, rejects)))
        elif name.endswith(".csv"):
            columns, rows = _csv(path, rejects)
            source = Source(label=label, stem=stem(path), rows=rows, columns=columns)
        else:
            return _parquet(path, rejects, wanted)
    except OSError as error:
        why = " ".join(str(error.strerror or error).split())
        raise DataError(f"{label} cannot be read: {why}; check the file and its permissions") from error
    if not source.rows and not any(item.source == label for item in rejects.left_out):
        raise DataError(f"{label} is empty: it holds no rows; give a file with one pair per row")
    return source


def _parquet(path: Path, rejects: Rejects, wanted: Collection[str] | None) -> Source:
    label = written(path)
    try:
        table = pq.ParquetFile(path)
        names = tuple(table.schema_arrow.names)
        return from_arrow(table.read, names, label=label, stem=stem(path), wanted=wanted, rejects=rejects)
    except UnicodeDecodeError as error:
        name = error.object.decode(errors="backslashreplace")
        raise DataError(f"{label}: the column name {name!r} is not UTF-8; write the file again") from error
    except pa.ArrowException as error:
        why = " ".join(str(error).split())
        raise DataError(f"{label} is not a readable Parquet file: {why}; write it again") from error


def from_arrow(
    read: Any, columns: tuple[str, ...], *, label: str, stem: str, wanted: Collection[str] | None, rejects: Rejects
) -> Source:
    """Rows of an Arrow table, of the wanted columns only.

    Args:
        read: Called with the column names to read; returns the table.
        columns: Every column that there is.
        label: How messages name the source.
        stem: What ids begin with.
        wanted: Columns to read, those that there are; None for all.
        rejects: Where rows go that hold what is not UTF-8, or what Python cannot hold.

    Raises:
        DataError: There are no rows, or two columns of one name.
    """
    chosen = [name for name in columns if wanted is None or name in wanted]
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{label}: column {twice!r} occurs more than once; give every column its own name")
    table = read(chosen)
    if table.num_rows == 0:
        raise DataError(f"{label} is empty: it holds no rows; give a dataset with one pair per row")
    if not chosen:
        rows: list[Row] = [(number, {}) for number in range(1, table.num_rows + 1)]
    else:
        try:
            rows = list(enumerate(table.to_pylist(), start=1))
        except (ValueError, OverflowError):  # one value at least: find it
            rows = list(_one_by_one(table, label, rejects))
    return Source(label=label, stem=stem, rows=rows, columns=columns)


def _one_by_one(table: pa.Table, label: str, rejects: Rejects) -> Iterator[Row]:
    """The rows of a table of which not every value can be read."""
    names = table.schema.names
    for at in range(table.num_rows):
        row, name = {}, ""
        try:
            for name in names:
                row[name] = table[name][at].as_py()
        except UnicodeDecodeError as error:
            byte = f"byte {error.object[error.start]:#04x} at byte {error.start + 1} of the text"
            rejects.add(label, at + 1, BadRow(name, f"is not UTF-8 ({byte}); write it as UTF-8"))
        except (ValueError, OverflowError) as error:
            why = " ".join(str(error).split())
            rejects.add(label, at + 1, BadRow(name, f"is a {table.schema.field(name).type} out of range ({why})"))
        else:
            yield at + 1, row


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines as bytes, numbered from 1, without a byte-order mark. Knows a damaged gzip file from a whole one."""
    number = 0
    with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as handle:
        try:
            for number, raw in enumerate(handle, start=1):
                if number == 1:
                    if raw.startswith(_WIDE):
                        raise DataError(f"{written(path)} is UTF-16, but must be UTF-8; save it again as UTF-8")
                    raw = raw.removeprefix(_MARK)
                yield number, raw
        except gzip.BadGzipFile as error:
            raise DataError(
                f"{written(path)} is no gzip file, or a damaged one ({error}): {number} whole lines could be read; "
                "fetch it again, or drop .gz from its name"
            ) from error
        except (EOFError, zlib.error) as error:
            raise DataError(
                f"{written(path)} is a truncated or damaged gzip file: {number} whole lines could be read; "
                "fetch or copy it again"
            ) from error


def _json_lines(path: Path, rejects: Rejects) -> Iterator[Row]:
    label = written(path)
    for number, raw in _lines(path):
        if raw.isspace() or not raw:
            continue
        try:
            row = read_json(raw)
            if type(row) is not dict:
                fix = "; a JSON array belongs into a .json file" if number == 1 and isinstance(row, list) else ""
                raise BadRow(None, f"holds {kind(row)} ({shown(row)}), but each line must be an object{fix}")
        except NotJSON as error:
            at = "" if error.column is None else f" at column {error.column}"
            hint = "; mend the line" if at else ""
            if number == 1 and raw.lstrip()[:1] == b"[":
                hint = " (a JSON array belongs into a .json file)" + hint
            rejects.add(label, number, BadRow(None, f"{error.reason}{at}{hint}"))
        except BadRow as bad:
            rejects.add(label, number, bad)
        else:
            yield number, row


def _json(path: Path, rejects: Rejects) -> Iterator[Row]:
    label = written(path)
    raw = b"".join(line for _, line in _lines(path))
    if not raw.strip():
        return
    flawed = False
    try:
        try:
            held = read_json(raw)
        except NotJSON as error:
            flawed = error.line is None
            if not flawed:
                raise
            held = read_json(raw, flaws=True)
            if isinstance(held, NotJSON):
                raise held from None
    except NotJSON as error:
        at = "" if error.line is None else f", line {error.line}"
        column = "" if error.column is None else f" at column {error.column}"
        hint = "; mend the file" if at else ""
        if "Extra data" in error.reason:
            hint = "; JSON lines belong into a .jsonl file"
        raise DataError(f"{label}{at}: {error.reason}{column}{hint}") from error
    if isinstance(held, dict) and "data" in held:
        held = held["data"]
    if not isinstance(held, list):
        what = f"an object with the keys {listed(held)}" if isinstance(held, dict) else kind(held)
        raise DataError(f'{label} holds {what}, but must hold a list of objects, or {{"data": [...]}}')
    for number, row in enumerate(held, start=1):
        flaw = flaw_in(row) if flawed else None
        if flaw is not None:
            rejects.add(label, number, BadRow(None, flaw.reason))
        elif isinstance(row, dict):
            yield number, row
        else:
            rejects.add(
                label, number, BadRow(None, f"holds {kind(row)} ({shown(row)}), but each item must be an object")
            )


def _csv(path: Path, rejects: Rejects) -> tuple[tuple[str, ...], list[Row]]:
    """Header and rows; a row's number is the line where it starts. Bytes that are not UTF-8 stay for the row checks."""
    text = io.StringIO("".join(raw.decode(errors="surrogateescape") for _, raw in _lines(path)), newline="")
    label = written(path)
    limit = csv.field_size_limit(2**31 - 1)
    reader, rows, start = csv.reader(text, strict=True), [], 1
    try:
        header = next(reader, [])
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise DataError(
                f"{label}, line 1: column {twice[0]!r} occurs more than once; give every column its own name"
            )
        if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), None)):
            raise DataError(f"{label}, line 1: the columns seem to be separated by {other!r}; separate them by commas")
        start = reader.line_num + 1
        for values in reader:
            line, start = start, reader.line_num + 1
            if not values:
                continue
            if len(values) == len(header):
                rows.append((line, dict(zip(header, values, strict=True))))
            else:
                reason = f"has {len(values)} fields, but the header has {len(header)}; quote fields that hold commas"
                rejects.add(label, line, BadRow(None, reason))
    except csv.Error as error:
        raise DataError(
            f"{label}, line {start}: is not valid CSV ({error}); write a quote inside a quoted field twice"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return tuple(header), rows
