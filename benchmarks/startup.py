"""What a newcomer waits for: help, errors, imports and `prefdyn audit`, as whole processes, beside another checkout.

Seconds of the clock, processor seconds and memory, each of the quickest of some runs. Where a checkout of before is
named, runs of the two take turns, so that both meet the same machine.

Run: uv run python benchmarks/startup.py [--before CHECKOUT] [--times 5] [--audits 3]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

IMPORTS = """
import os
from prefdyn._progress import frameworks
with frameworks():
    import prefdyn.models.extract, prefdyn.planning.audit
import prefdyn.report.figures
os._exit(0)
"""
"""As an audit does them: no garbage is looked for meanwhile, and nothing is taken down after."""
CASES = {
    "empty Python": (["-c", "pass"], ""),
    "import prefdyn": (["-c", "import prefdyn"], "0.1 s"),
    "prefdyn --help": (["-m", "prefdyn", "--help"], "0.4 s"),
    "a path that is not": (["-m", "prefdyn", "audit", "--data", "nothere.jsonl"], "0.7 s"),
    "a model that is not": (["-m", "prefdyn", "audit", "--model", "./nothere"], "0.7 s"),
    "a flag that is not": (["-m", "prefdyn", "audit", "--nope"], "0.7 s"),
    "a setting that is not": (["-m", "prefdyn", "audit", "--dtype", "int8"], "0.7 s"),
    "a group that is not": (["-m", "prefdyn", "audit", "--groups", "nope"], "0.7 s"),
    "a folder that is not": (["-m", "prefdyn", "report", "nothere"], "0.7 s"),
    "imports of an audit": (["-c", IMPORTS], "5 s"),
}
AUDIT = ("prefdyn audit", "12 s, 1.2 GB")


class Took(NamedTuple):
    """Of one process."""

    wall: float
    cpu: float
    memory: float
    """Largest resident size, GB."""


def run(python: Path, arguments: list[str], folder: str) -> Took:
    """One process from its start to its end."""
    start = time.perf_counter()
    with subprocess.Popen(
        [python, *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
    return Took(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9)


def best(pythons: list[Path], arguments: list[str], times: int) -> list[Took]:
    """The least of each figure of so many runs of each, which take turns."""
    found: list[list[Took]] = [[] for _ in pythons]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(times):
            for python, runs in zip(pythons, found, strict=True):
                runs.append(run(python, [*arguments, "--force"] if "--out" in arguments else arguments, folder))
    return [Took(*map(min, zip(*runs, strict=True))) for runs in found]


def main() -> None:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout, with its .venv")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--audits", type=int, default=3)
    given = parser.parse_args()
    pythons = (
        [Path(sys.executable)] if given.before is None else [given.before / ".venv/bin/python", Path(sys.executable)]
    )
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None) is not None:
        print("PYTHONDONTWRITEBYTECODE is left out: without compiled files every run compiles all libraries again.")
    heads = ["now"] if len(pythons) == 1 else ["before", "now"]
    print(f"{'':24}" + "".join(f"{head + ': clock':>16}{'processor':>12}{'memory':>10}" for head in heads) + "   goal")
    for python in pythons:
        run(python, ["-m", "prefdyn", "audit", "--out", "warm"], tempfile.mkdtemp())  # compiles what is not compiled
    audit = (["-m", "prefdyn", "audit", "--out", "audit"], AUDIT[1])
    for name, (arguments, goal) in {**CASES, AUDIT[0]: audit}.items():
        times = given.audits if name == AUDIT[0] else given.times
        columns = "".join(
            f"{each.wall:>14.2f} s{each.cpu:>10.2f} s{each.memory:>7.2f} GB" for each in best(pythons, arguments, times)
        )
        print(f"{name:24}{columns}   {goal}", flush=True)


if __name__ == "__main__":
    main()
