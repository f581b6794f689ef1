"""Files of every kind that a loader reads, and their mutated forms; the same seed gives the same bytes."""

import csv
import gzip
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.mutate import changed, json_text, spoilt

GROUPS = ["a", "b", "ä b", "a, b"]


def plain(rng: Random) -> list[dict]:
    rows = [
        {"prompt": f"Is it {k}?\n", "chosen": " Yes" if k % 2 else " No", "rejected": " No" if k % 2 else " Yes"}
        for k in range(rng.randrange(1, 9))
    ]
    extra = rng.choice(
        [{}, {"group": GROUPS}, {"subset": GROUPS}, {"weight": [1, 0.5, 2]}, {"split": ["train", "test"]}]
    )
    for name, values in extra.items():
        rows = [row | {name: values[k % len(values)]} for k, row in enumerate(rows)]
    if rng.random() < 0.3:
        rows = [row | {"id": f"i{k}"} for k, row in enumerate(rows)]
    if rng.random() < 0.2:
        rows = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in rows]
    return rows


def talks(rng: Random) -> list[dict]:
    def turn(role: str, text: str) -> dict:
        return {"role": role, "content": text}

    return [
        {
            "prompt": [turn("system", "Be kind."), turn("user", f"Is it {k}?")],
            "chosen": [turn("assistant", f"Yes, {k}.")],
            "rejected": [turn("assistant", "No.")],
        }
        for k in range(rng.randrange(1, 6))
    ]


def dialogues(rng: Random) -> list[dict]:
    return [
        {
            "chosen": f"\n\nHuman: Is it {k}?\n\nAssistant: Yes, {k}.",
            "rejected": f"\n\nHuman: Is it {k}?\n\nAssistant: No.",
        }
        for k in range(rng.randrange(1, 6))
    ]


def statements(rng: Random, *, packed: bool) -> list[dict]:
    return [
        {
            "question": f"Is it {k}?",
            "statement": f"It is {k}",
            "answer_matching_behavior": " Yes" if k % 2 else " No",
            "answer_not_matching_behavior": " No" if k % 2 else " Yes",
            **({"persona": GROUPS[k % 3]} if packed else {}),
        }
        for k in range(rng.randrange(1, 6))
    ]


def _lines(rows: list[Any], rng: Random) -> bytes:
    text = "".join(json_text(row, rng) + "\n" for row in rows)
    return text.encode(errors="surrogatepass")


def _array(rows: list[Any], rng: Random) -> bytes:
    held: Any = {"data": rows} if rng.random() < 0.3 else rows
    return json_text(held, rng).encode(errors="surrogatepass")


def _table(rows: list[Any]) -> bytes:
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(str(name) for row in rows if isinstance(row, dict) for name in row))
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([row.get(name, "") for name in names] for row in rows if isinstance(row, dict))
    return text.getvalue().encode(errors="surrogatepass")


def _parquet(rows: list[Any]) -> bytes | None:
    """None where Arrow cannot hold the rows in one table."""
    sink = pa.BufferOutputStream()
    try:
        table = pa.Table.from_pylist([row if isinstance(row, dict) else {"x": row} for row in rows])
        pq.write_table(table, sink, compression="none", use_dictionary=False, write_statistics=False)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return None
    return sink.getvalue().to_pybytes()


KINDS = ("jsonl", "jsonl.gz", "json", "csv", "parquet", "folder", "persona", "packed", "hh", "hh.gz")


def spoilt_source(folder: Path, rng: Random) -> tuple[str, str, list[Path]]:
    """Write a mutated source of some kind.

    Returns:
        Its kind, its spec, and its files.
    """
    kind = rng.choice(KINDS)
    if kind in {"persona", "packed"}:
        rows = statements(rng, packed=kind == "packed")
    elif kind.startswith("hh"):
        rows = dialogues(rng)
    else:
        rows = talks(rng) if rng.random() < 0.3 and kind != "csv" else plain(rng)
    bytewise = rng.random() < 0.5
    if not bytewise:
        for _ in range(rng.choice((1, 1, 2))):
            held = changed(rows, rng)
            rows = held if isinstance(held, list) else [held]
    end = {"folder": rng.choice(("jsonl", "csv")), "persona": "jsonl", "packed": "jsonl", "hh": "jsonl"}.get(kind, kind)
    end = "jsonl.gz" if end == "hh.gz" else end
    raw = {"json": lambda: _array(rows, rng), "csv": lambda: _table(rows), "parquet": lambda: _parquet(rows)}.get(
        end, lambda: _lines(rows, rng)
    )()
    if raw is None:
        raw = b"PAR1"
    if bytewise and (end != "jsonl.gz" or rng.random() < 0.5):
        raw = spoilt(raw, rng)
        bytewise = False
    if end == "jsonl.gz":
        raw = gzip.compress(raw, mtime=0)
        raw = spoilt(raw, rng) if bytewise else raw
    place = folder
    if kind in {"folder", "persona"}:
        place = folder / "data"
        place.mkdir()
        (place / f"first.{end}").write_bytes(_table(plain(rng)) if end == "csv" else _good(kind, rng))
    path = place / f"d.{end}"
    path.write_bytes(raw)
    files = sorted(place.iterdir()) if place != folder else [path]
    spec = str(place if place != folder else path)
    if kind in {"persona", "packed"}:
        spec = f"persona:{spec}"
    elif kind.startswith("hh"):
        spec = f"hh:{spec}"
    return kind, spec, files


def _good(kind: str, rng: Random) -> bytes:
    rows = statements(rng, packed=False) if kind == "persona" else plain(rng)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
