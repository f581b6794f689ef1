"""How time, memory and the page grow with pairs and with groups: `data`, `audit` and `simulate`, a process each.

    uv run python benchmarks/growth.py [groups|many|pairs|responses|data …] [--limit N] [--folder DIR] [--keep]

Inputs are synthetic and seeded: features as an extraction would store them, written without a model. Each line is one
command in its own process: wall time, the peak of its resident memory, what of that peak is not pages of the mapped
feature file (`own`), and the size of report.html. The cases:

    groups     100 to 10,000 groups of 2 pairs, one-token answers, width 64
    many       100 to 5,000 groups of 40 pairs, the same
    pairs      10,000 to 1,000,000 one-token pairs in 20 groups
    responses  5,000 to 270,000 pairs of longer responses in 20 groups, sketches of 4,096 numbers
    data       10,000 to 1,000,000 rows of text in a .jsonl file, and 10,000 groups of 2

`read` is the time that reading the feature file once takes, in blocks, right before the command; `--limit` leaves out
the sizes above it.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from prefdyn.features import FeatureSet
from prefdyn.provenance import Provenance
from prefdyn.store import save_features, write_manifest

SKETCH = 4096
GROUPS = 20
CASES = ("groups", "many", "pairs", "responses", "data")


class Cost(NamedTuple):
    """What one command took."""

    seconds: float
    cpu: float
    """Seconds of the processor, of all its threads: other programs on the machine disturb it less than the clock."""
    peak: int
    """Bytes of resident memory at most."""
    own: int
    """Bytes of anonymous memory at most, looked at every 20 ms."""
    page: int
    """Bytes of report.html; 0 where there is none."""
    ended: str
    """Empty, or the last line of a command that failed."""


def answers(pairs: int, groups: int, folder: Path, *, width: int = 64) -> None:
    """One-token answers: every second group is told apart along a direction of its own, the others are noise."""
    rng = np.random.default_rng(pairs + groups)
    group = np.arange(pairs) % groups
    yes = rng.random(pairs) < 0.5
    states = rng.normal(size=(pairs, width)).astype(np.float32)
    ways = rng.normal(size=(groups, width)).astype(np.float32) / np.sqrt(width)
    ways[1::2] = 0
    states += 3 * ways[group] * np.where(yes, 1, -1)[:, None].astype(np.float32)
    save_features(
        FeatureSet.from_arrays(
            states,
            chosen=np.where(yes, 0, 1).tolist(),
            rejected=np.where(yes, 1, 0).tolist(),
            tokens=[0, 1],
            group=[f"group {code}" for code in group],
        ),
        folder,
    )


def responses(pairs: int, folder: Path, *, width: int = 64) -> None:
    """Longer responses, written piece by piece: the features are larger than memory."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(pairs)
    small = {
        "states": rng.normal(size=(pairs, width)).astype(np.float32),
        "chosen_states": rng.normal(size=(pairs, width)).astype(np.float32),
        "group": (np.arange(pairs) % GROUPS).astype(np.int32),
        "held_out": np.zeros(pairs, dtype=bool),
        "weight": np.ones(pairs),
        "text": np.arange(pairs),
        "ref_chosen_logps": -100 * rng.random(pairs) - 1,
        "ref_rejected_logps": -100 * rng.random(pairs) - 1,
        "chosen_length": rng.integers(20, 200, pairs).astype(np.int32),
        "rejected_length": rng.integers(20, 200, pairs).astype(np.int32),
    }
    kinds = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "bool": "BOOL"}
    header, place = {}, 0
    large = {name: {"dtype": "F32", "shape": [pairs, SKETCH]} for name in ("chosen_features", "rejected_features")}
    told = {name: {"dtype": kinds[str(value.dtype)], "shape": list(value.shape)} for name, value in small.items()}
    for name, entry in {**large, **{n: told[n] for n in sorted(told, key=lambda n: -small[n].itemsize)}}.items():
        size = 4 * pairs * SKETCH if name in large else small[name].nbytes
        header[name] = entry | {"data_offsets": [place, place + size]}
        place += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    way = rng.normal(size=SKETCH).astype(np.float32) / SKETCH
    with (folder / "features.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for side in (1, -1):
            for start in range(0, pairs, 2048):
                rows = min(2048, pairs - start)
                file.write((rng.standard_normal((rows, SKETCH), dtype=np.float32) + side * way).tobytes())
        for name in list(header)[2:]:
            file.write(small[name].tobytes())
    parquet.write_table(pa.table({"id": [str(row) for row in range(pairs)]}), folder / "features.parquet")
    origin = Provenance(data={"name": "growth", "sha256": "0"}, model={"name": "none"}, settings={"sketch": SKETCH})
    content = {
        "kind": "features",
        "files": ["features.safetensors", "features.parquet"],
        "features": {
            "kind": "responses",
            "groups": [f"group {code}" for code in range(GROUPS)],
            "tokens": [],
            "token_ids": [],
            "provenance": origin.to_json(),
        },
    }
    write_manifest(folder / "features.json", content)


def texts(pairs: int, groups: int, path: Path) -> None:
    """Rows of text."""
    rng = np.random.default_rng(pairs)
    words = [f"word{number}" for number in range(5000)]
    with path.open("w", encoding="utf-8") as file:
        for row in range(pairs):
            said = [words[place] for place in rng.integers(0, 5000, 60)]
            entry = {"prompt": " ".join(said[:20]) + f" {row}", "chosen": " ".join(said[20:40])}
            file.write(json.dumps(entry | {"rejected": " ".join(said[40:]), "group": f"group {row % groups}"}) + "\n")


def measured(arguments: list[str], out: Path | None) -> Cost:
    """One command in a process of its own."""
    with tempfile.TemporaryFile("w+") as told:
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-m", "prefdyn", *arguments], stdout=told, stderr=told)
        own = 0
        ended, status, usage = 0, 0, None
        while not ended:
            ended, status, usage = os.wait4(child.pid, os.WNOHANG)
            try:
                (found,) = re.findall(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
                own = max(own, 1024 * int(found))
            except (OSError, ValueError):
                pass
            time.sleep(0.02)
        took = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        lines = told.read().strip().splitlines()
    page = 0 if out is None or not (out / "report.html").exists() else (out / "report.html").stat().st_size
    assert usage is not None
    why = "" if child.returncode == 0 else f"exit {child.returncode}: {lines[-1] if lines else ''}"
    return Cost(took, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss, own, page, why)


def reading(path: Path) -> float:
    """Seconds to read a file once."""
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        block = bytearray(2**24)
        while file.readinto(block):
            pass
    return time.perf_counter() - start


def features_of(case: str, limit: float) -> Iterator[tuple[str, int, int, bool]]:
    """Label, pairs, groups, and whether responses are long, of every size of a case."""
    if case in ("groups", "many"):
        each = 2 if case == "groups" else 40
        for groups in (100, 1000, 5000, *((10_000,) if case == "groups" else ())):
            if groups <= limit:
                yield f"{groups:,} groups × {each}", groups * each, groups, False
    elif case == "pairs":
        for pairs in (10_000, 100_000, 1_000_000):
            if pairs <= limit:
                yield f"{pairs:,} one-token pairs", pairs, GROUPS, False
    else:
        for pairs in (5000, 20_000, 270_000):
            if pairs <= limit:
                yield f"{pairs:,} reply pairs × {SKETCH:,}", pairs, GROUPS, True


def main() -> None:
    """Print one line per command and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="which cases, all if none is named")
    parser.add_argument("--limit", type=float, default=float("inf"), help="leave out larger sizes")
    parser.add_argument("--commands", default="audit,simulate", help="of the cases with features")
    parser.add_argument("--folder", type=Path, help="where inputs and results go; a temporary folder if not given")
    parser.add_argument("--keep", action="store_true", help="leave inputs and results where they are")
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"unknown cases: {', '.join(sorted(unknown))}; known: {', '.join(CASES)}")
    root = Path(tempfile.mkdtemp(prefix="growth-", dir=given.folder))
    line = "{:<32} {:<9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}  {}".format
    print(line("input", "command", "read s", "wall s", "cpu s", "peak MB", "own MB", "page MB", ""), flush=True)

    def told(label: str, command: str, read: float, cost: Cost) -> None:
        sizes = [f"{size / 1e6:,.0f}" for size in (cost.peak, cost.own)]
        shown = (f"{read:.1f}", f"{cost.seconds:.1f}", f"{cost.cpu:.1f}", *sizes, f"{cost.page / 1e6:.2f}")
        print(line(label, command, *shown, cost.ended), flush=True)

    try:
        for case in given.cases or CASES:
            if case == "data":
                for pairs, groups in ((10_000, GROUPS), (100_000, GROUPS), (1_000_000, GROUPS), (20_000, 10_000)):
                    if pairs <= given.limit:
                        path = root / f"{pairs}-{groups}.jsonl"
                        texts(pairs, groups, path)
                        cost = measured(["data", "--data", str(path)], None)
                        told(f"{pairs:,} rows in {groups:,} groups", "data", reading(path), cost)
                        if not given.keep:
                            path.unlink()
                continue
            for label, pairs, groups, long in features_of(case, given.limit):
                folder = root / f"{case}-{pairs}-{groups}"
                if long:
                    responses(pairs, folder)
                else:
                    answers(pairs, groups, folder)
                for command in given.commands.split(","):
                    out = root / f"{folder.name}-{command}"
                    read = reading(folder / "features.safetensors")
                    told(label, command, read, measured([command, "--features", str(folder), "--out", str(out)], out))
                    if not given.keep:
                        shutil.rmtree(out, ignore_errors=True)
                if not given.keep:
                    shutil.rmtree(folder)
    finally:
        if given.keep:
            print(f"Left in {root}")
        else:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
