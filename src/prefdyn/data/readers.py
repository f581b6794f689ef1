"""Files of rows: JSON, CSV and Parquet, plain or compressed, known by what they hold where the name says otherwise.

What a field means is decided elsewhere.
"""

import bz2
import csv
import difflib
import gzip
import io
import itertools
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefdyn._json import NotJSON, flaw_in, read_json
from prefdyn.data.bad_rows import BadRow, Rejects, kind, listed, shown
from prefdyn.errors import DataError

_TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_PACKED = {".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".bz2": "bzip2"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}
SUFFIXES = (*_TEXT, ".parquet", *(kind_ + end for end in _PACKED for kind_ in _TEXT))
_ELSE = {
    b"version https://git-lfs": "a pointer of Git LFS, not the data itself; fetch it with `git lfs pull`",
    b"<?xml": "XML, which holds no rows that could be told apart here; write it as JSON lines or CSV",
    b"<!doctype html": "a web page, not the data; fetch the file itself",
    b"<html": "a web page, not the data; fetch the file itself",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV",
    b"%PDF": "a PDF; give the data as JSON lines, CSV or Parquet",
}
"""What files begin with that hold something else than their names say."""
_MARK = b"\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff")

Row = tuple[int, Mapping[str, Any]]
"""Line or row number from 1, and the fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSource:
    """The rows of one file or object."""

    label: str
    """How messages name it: the path as the user gave it."""
    stem: str
    """What the ids of its rows begin with."""
    rows: list[Row]
    columns: tuple[str, ...] | None = None
    """Every column, where the format has a header; None where each row names its own fields."""
    folder: str | None = None
    """Name of the folder that it lies in, where folders are groups."""
    side: str | None = None
    """`train` or `test` and the like, where the file's name says which part of the data it is."""
    notes: tuple[str, ...] = ()
    """What was met in reading it that nobody would see."""

    def names(self) -> list[str]:
        """Every column or field that occurs."""
        return list(self.columns) if self.columns is not None else field_names(self.rows)


Wanted = Callable[[Sequence[str]], Collection[str]]
"""Of the columns that there are, those worth reading where a format can leave columns unread."""


def field_names(rows: Sequence[Row]) -> list[str]:
    """Every field that occurs in any row, in order of first appearance."""
    names: dict[str, None] = {}
    last: Any = None
    for _, row in rows:
        keys = row.keys()
        if keys != last:
            names.update(dict.fromkeys(keys))
            last = keys
    return list(names)


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
            held = _what(path)
            if held is not None:
                raise DataError(f"{written(path)} is {held}")
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


def _what(path: Path) -> str | None:
    """What a file holds that can be no rows, by its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(64).removeprefix(_MARK).lstrip().lower()
    except OSError:
        return None
    return next((what for begin, what in _ELSE.items() if head.startswith(begin.lower())), None)


def read_file(path: Path, rejects: Rejects, *, wanted: Wanted | None = None) -> RowSource:
    """All rows of one file. Rows that are no rows go to `rejects`; damage to the file as a whole is always an error.

    Args:
        path: A file with one of `SUFFIXES`.
        rejects: Where malformed rows go.
        wanted: Which columns to read of a Parquet file; None for all.

    Raises:
        DataError: The file cannot be read, is empty, is damaged, or holds something else than rows.
    """
    label = written(path)
    name = next((path.name.removesuffix(end) for end in _PACKED if path.name.endswith(end)), path.name)
    held = _what(path)
    if held is not None:
        raise DataError(f"{label} is {held}")
    try:
        if name.endswith(".parquet"):
            return _parquet(path, rejects, wanted)
        columns = None
        if name.endswith((".csv", ".tsv")):
            columns, rows = _csv(path, rejects, tabs=name.endswith(".tsv"))
        else:
            rows = list(_json(path, rejects, lines=not name.endswith(".json")))
    except OSError as error:
        why = " ".join(str(error.strerror or error).split())
        raise DataError(f"{label} cannot be read: {why}; check the file and its permissions") from error
    if not rows and not any(item.source == label for item in rejects.left_out):
        raise DataError(f"{label} is empty: it holds no rows; give a file with one pair per row")
    return RowSource(label=label, stem=stem(path), rows=rows, columns=columns)


def _parquet(path: Path, rejects: Rejects, wanted: Wanted | None) -> RowSource:
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
    read: Any, columns: tuple[str, ...], *, label: str, stem: str, wanted: Wanted | None, rejects: Rejects
) -> RowSource:
    """Rows of an Arrow table, of the wanted columns only. Labels that `datasets` holds as numbers become their names.

    Args:
        read: Called with the column names to read; returns the table.
        columns: Every column that there is.
        label: How messages name the source.
        stem: What ids begin with.
        wanted: Which columns to read; None for all.
        rejects: Where rows go that hold what is not UTF-8, or what Python cannot hold.

    Raises:
        DataError: There are no rows, or two columns of one name.
    """
    asked = None if wanted is None else wanted(columns)
    chosen = [name for name in columns if asked is None or name in asked]
    twice = next((name for name in chosen if chosen.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{label}: column {twice!r} occurs more than once; give every column its own name")
    table = named_labels(read(chosen))
    if table.num_rows == 0:
        raise DataError(f"{label} is empty: it holds no rows; give a dataset with one pair per row")
    if not chosen:
        rows: list[Row] = [(number, {}) for number in range(1, table.num_rows + 1)]
    else:
        try:
            rows = list(enumerate(table.to_pylist(), start=1))
        except (ValueError, OverflowError):  # one value at least: find it
            rows = list(_one_by_one(table, label, rejects))
    return RowSource(label=label, stem=stem, rows=rows, columns=columns)


def named_labels(table: pa.Table) -> pa.Table:
    """A table with the names of every `ClassLabel` of `datasets` instead of its numbers; -1 and null become null."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return table
    for name, feature in features.items():
        at = table.schema.get_field_index(name)
        if at < 0 or not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
            continue
        names = feature.get("names")
        if isinstance(names, list) and pa.types.is_integer(table.schema.field(at).type):
            known = dict(enumerate(names))
            values = [known.get(code) for code in table.column(at).to_pylist()]
            table = table.set_column(at, name, pa.array(values, pa.string()))
    return table


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
    """Lines as bytes, numbered from 1, without a byte-order mark. Knows a damaged compressed file from a whole one."""
    named = next((packed for end, packed in _PACKED.items() if path.name.endswith(end)), None)
    with path.open("rb") as raw_file:
        head = raw_file.read(6)
    packed = next((kind_ for magic, kind_ in _MAGIC.items() if head.startswith(magic)), None)
    if named is not None and packed is None and head:
        raise DataError(
            f"{written(path)} is no {named} file, or a damaged one (it begins with {head[:4]!r}): 0 whole lines could "
            f"be read; fetch it again, or drop {path.suffix} from its name"
        )
    number = 0
    try:
        with _OPEN[packed](path, "rb") as handle:
            for number, raw in enumerate(handle, start=1):
                if number == 1:
                    if raw.startswith(_WIDE):
                        raise DataError(f"{written(path)} is UTF-16, but must be UTF-8; save it again as UTF-8")
                    raw = raw.removeprefix(_MARK)
                yield number, raw
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, OSError) as error:
        if packed is None:
            raise
        raise DataError(
            f"{written(path)} is a truncated or damaged {packed} file: {number} whole lines could be read; "
            "fetch or copy it again"
        ) from error


def _zstd(path: Path, mode: str) -> io.BufferedReader:
    return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))  # type: ignore[arg-type]


_OPEN: Mapping[str | None, Any] = {
    None: Path.open,
    "gzip": gzip.GzipFile,
    "xz": lzma.LZMAFile,
    "bzip2": bz2.BZ2File,
    "zstd": _zstd,
}


# JSON ----------------------------------------------------------------------------------------------------------------


def _json(path: Path, rejects: Rejects, *, lines: bool) -> Iterator[Row]:
    """Rows of one JSON text, of JSON lines, or of objects one after another, told by how the file begins.

    Args:
        path: The file.
        rejects: Where malformed rows go.
        lines: The name says that it holds JSON lines, for what begins as neither.
    """
    every = _lines(path)
    head: list[tuple[int, bytes]] = []
    for number, raw in every:
        head.append((number, raw))
        if not raw.isspace():
            break
    first = head[-1][1].strip() if head else b""
    if lines and first[:1] != b"[":
        if first[:1] == b"{" and _fails(first):  # perhaps spread over several lines
            head += list(every)
            whole = list(_one_after_another(head))
            if whole:
                yield from whole
                return
        yield from _json_lines(itertools.chain(head, every), written(path), rejects)
        return
    second = next((entry for entry in every if not entry[1].isspace()), None)
    head += [second] if second is not None else []
    if second is not None and second[1].lstrip()[:1] == b"{" and first[:1] == b"{" and not _fails(first):
        yield from _json_lines(itertools.chain(head, every), written(path), rejects)
        return
    head += list(every)
    yield from _json_text(b"".join(raw for _, raw in head), written(path), rejects, head)


def _fails(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return True
    return False


def _one_after_another(numbered: Sequence[tuple[int, bytes]]) -> Iterator[Row]:
    """Objects spread over lines, with the line where each begins; nothing where any of it is something else."""
    found: list[Row] = []
    held: list[bytes] = []
    start, depth = 0, 0
    for number, raw in numbered:
        if not held and raw.isspace():
            continue
        start = start if held else number
        held.append(raw)
        depth += raw.count(b"{") - raw.count(b"}")
        if depth <= 0:  # braces inside of texts can mislead, so that the object itself decides
            try:
                row = read_json(b"".join(held))
            except NotJSON:
                continue
            if not isinstance(row, dict):
                return
            found.append((start, row))
            held, depth = [], 0
    if not held:
        yield from found


def _json_lines(numbered: Iterable[tuple[int, bytes]], label: str, rejects: Rejects) -> Iterator[Row]:
    for number, raw in numbered:
        if raw.isspace() or not raw:
            continue
        try:
            row = read_json(raw)
            if type(row) is not dict:
                raise BadRow(None, f"holds {kind(row)} ({shown(row)}), but each line must be an object")
        except NotJSON as error:
            at = "" if error.column is None else f" at column {error.column}"
            rejects.add(label, number, BadRow(None, f"{error.reason}{at}{'; mend the line' if at else ''}"))
        except BadRow as bad:
            rejects.add(label, number, bad)
        else:
            yield number, row


def _json_text(raw: bytes, label: str, rejects: Rejects, numbered: Sequence[tuple[int, bytes]]) -> Iterator[Row]:
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
        if "Extra data" in error.reason:
            rows = list(_one_after_another(numbered))
            if rows:
                yield from rows
                return
        at = "" if error.line is None else f", line {error.line}"
        column = "" if error.column is None else f" at column {error.column}"
        hint = "; mend the file" if at else ""
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


# CSV -----------------------------------------------------------------------------------------------------------------


def _csv(path: Path, rejects: Rejects, *, tabs: bool) -> tuple[tuple[str, ...], list[Row]]:
    """Header and rows; a row's number is the line where it starts. Bytes that are not UTF-8 stay for the row checks.

    The separator is a tab where the header has one, and else a comma, a semicolon or a bar. A file with tabs is read
    without quoting where its double quotes are no quoting. A `#` before the first column's name is not part of it.
    """
    lines = [raw.decode(errors="surrogateescape") for _, raw in _lines(path)]
    label, skipped = written(path), 0
    while len(lines) > skipped + 1 and lines[skipped].startswith("#") and not re.search(r"[\t,;|]", lines[skipped]):
        skipped += 1
    if len(lines) > skipped and lines[skipped].startswith("#"):
        lines[skipped] = lines[skipped].lstrip("#").lstrip(" ")
    head = lines[skipped] if len(lines) > skipped else ""
    mark = "\t" if tabs or "\t" in head else next((one for one in ",;|" if one in head), ",")
    del lines[:skipped]
    if mark == "\t" and not _quoted(lines):
        cells = (line.rstrip("\r\n").split(mark) for line in lines)
        every = [(number, values) for number, values in enumerate(cells, start=skipped + 1) if values != [""]]
    else:
        every = _parsed_csv(lines, mark, label, skipped)
    if not every:
        return (), []
    header, rows = every[0][1], []
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"{label}, line {skipped + 1}: column {twice[0]!r} occurs more than once; give every column its own name"
        )
    for line, values in every[1:]:
        if len(values) == len(header):
            rows.append((line, dict(zip(header, values, strict=True))))
        else:
            named = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}[mark]
            reason = f"has {len(values)} fields, but the header has {len(header)}; quote fields that hold {named}"
            rejects.add(label, line, BadRow(None, reason))
    return tuple(header), rows


def _quoted(lines: Sequence[str]) -> bool:
    """Whether the double quotes of a file with tabs are quoting: they enclose fields, and are written twice inside."""
    if not any('"' in line for line in lines):
        return False
    width = lines[0].count("\t")
    for line in lines:
        fields = line.rstrip("\r\n").split("\t")
        if any('"' in field and not re.fullmatch(r'"(?:[^"]|"")*"', field) for field in fields):
            return any(each.count("\t") != width for each in lines if not each.isspace())
    return True


def _parsed_csv(lines: Sequence[str], mark: str, label: str, skipped: int) -> list[tuple[int, list[str]]]:
    limit = csv.field_size_limit(2**31 - 1)
    text = io.StringIO("".join(lines), newline="")
    reader, found, start = csv.reader(text, strict=True, delimiter=mark), [], 1
    try:
        for values in reader:
            line, start = start, reader.line_num + 1
            if values:
                found.append((line + skipped, values))
    except csv.Error as error:
        raise DataError(
            f"{label}, line {start + skipped}: is not valid CSV ({error}); write a quote inside a quoted field twice"
        ) from error
    finally:
        csv.field_size_limit(limit)
    return found
