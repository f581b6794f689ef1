"""How many rows a file holds, counted the slow and obvious way; None where it is no file of its kind."""

import csv
import gzip
import io
import json
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def rows_in(path: Path) -> int | None:
    """Rows of one file."""
    raw = path.read_bytes()
    if path.name.endswith(".gz"):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error):
            return None
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        try:
            return pq.ParquetFile(io.BytesIO(raw)).metadata.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            return None
    if name.endswith(".jsonl"):
        if raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")[0].strip() in (b"{", b"["):  # objects over several lines
            return None
        return sum(1 for line in raw.split(b"\n") if line.strip(b" \t\r\x0b\x0c"))
    try:
        if name.endswith(".csv"):
            rows = csv.reader(io.StringIO(raw.decode("utf-8-sig", "surrogateescape"), newline=""), strict=True)
            return sum(1 for row in rows if row) - 1
        held = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError, csv.Error):
        return None
    held = held.get("data") if isinstance(held, dict) else held
    return len(held) if isinstance(held, list) else None


def texts_in(path: Path) -> dict[int, tuple[str, str, str]]:
    """Line → prompt, chosen and rejected, of the lines of a .jsonl file that hold all three as text."""
    found = {}
    for line, raw in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            row = json.loads(raw.decode())
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and all(isinstance(row.get(name), str) for name in ("prompt", "chosen", "rejected")):
            found[line] = (row["prompt"], row["chosen"], row["rejected"])
    return found
