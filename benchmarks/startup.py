"""Start-up: `import prefdyn`, `prefdyn --help` and a wrong path, whole process, best of five, beside an empty Python.

Run: uv run python benchmarks/startup.py
"""

import subprocess
import sys
import time


def best(command: list[str], times: int = 5, *, fails: bool = False) -> float:
    """Seconds of the quickest of `times` runs, which may fail where that is expected."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=not fails, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Print the four figures."""
    python = sys.executable
    empty = best([python, "-c", "pass"])
    imported = best([python, "-c", "import prefdyn"])
    helped = best([python, "-m", "prefdyn", "--help"])
    refused = best([python, "-m", "prefdyn", "audit", "--data", "nothere.jsonl"], fails=True)
    print(f"empty Python        {empty:.3f} s")
    print(f"import prefdyn      {imported:.3f} s   (goal 0.1)")
    print(f"prefdyn --help      {helped:.3f} s   (goal 0.4)")
    print(f"a path that is not  {refused:.3f} s   (goal 0.7)")


if __name__ == "__main__":
    main()
