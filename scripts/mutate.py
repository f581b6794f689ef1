"""Change the code on purpose, one small thing at a time, and look whether a test notices.

`just mutate` draws 165 changes of meaning from all rooms of `src/prefdyn` (a comparison, a sign, a constant, a square
root left out, a mean for a sum, an axis, a condition turned round; never a text or a type), makes each in a copy of the
project, runs the tests that lie nearest to the changed module, and prints the changes that none of them noticed. It
ends with 1 if one of them is not in `mutate_equivalent.toml`, which says why it changes nothing that a test should see.

A change is drawn by a hash of what it is, so edits elsewhere leave the draw as it is. What was found is kept in
`.mutate/` and not tried again while the source and the tests that judged it stay the same.

Written by hand because neither kept tool does it: mutmut makes every change of the whole source, texts included, and
first runs every test; Cosmic Ray changes the checkout itself and knows one test command for all modules. Neither draws
a sample. Forking from a process that has the libraries loaded saves most of the time that a change takes.
"""

import argparse
import ast
import contextlib
import copy
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, zip_longest
from multiprocessing import get_context
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "src" / "prefdyn"
KEPT = REPO / ".mutate" / "noticed.json"
SECONDS = KEPT.with_name("seconds.json")
EQUIVALENT = Path(__file__).with_name("mutate_equivalent.toml")
ROOMS = (
    "maths", "data", "diagnostics", "theory", "dynamics", "models", "training", "experiments", "planning", "report",
    "hallway",
)  # fmt: skip

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
COMBINED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip
CALLED = {
    "mean": "sum", "max": "min", "min": "max", "maximum": "minimum", "minimum": "maximum", "argmax": "argmin",
    "argmin": "argmax", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor",
}  # fmt: skip
DROPPED = {"sqrt", "abs"}
UNSEEN = (ast.JoinedStr, ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)
"""Texts, and what a reader sees of an error; what a `raise` depends on is changed."""
TYPES = {"annotation", "returns", "decorator_list"}
_NAMED, _ENOUGH = 8, 300.0
"""So many budgets are given to the tests named like a module; seconds that any one test may take."""
_MOST = 7
"""So many test files are tried against one change."""
_TESTED_BY = {
    "features": "nouns", "trajectory": "nouns", "_checks": "nouns", "_json": "bad_input", "_stored": "store",
    "measure": "engine", "run_curves": "reading", "remarks": "reading",
}  # fmt: skip
"""Modules whose tests have another name."""
_BY_TIME = {"test_chaos", "test_interrupted", "test_kill", "test_orphans", "test_processes"}
"""Tests of several processes, which a busy machine may fail."""
_FAR = 3
"""Imports from a test to the module, the test's own among them."""
_LIBRARIES = (
    "pytest",
    "hypothesis",
    "beartype",
    "scipy.stats",
    "sklearn",
    "pyarrow.parquet",
    "matplotlib.figure",
    "torch",
)
TOLERANCE = 1e-5
"""Constants below it are roundings: no test should know them."""

# what there is to change ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of meaning."""

    file: str
    """Inside the package."""
    scope: str
    """Class and function."""
    line: int
    span: tuple[int, int]
    """Bytes that are replaced."""
    kind: str
    before: str
    after: str
    again: int
    """How often the same change was met before in this scope."""

    @property
    def room(self) -> str:
        """The folder, or "hallway"."""
        return self.file.split("/")[0] if "/" in self.file else "hallway"

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is, wherever the line has moved to."""
        return (self.file, self.scope, self.before, self.after, self.again)

    def place(self, seed: int) -> str:
        """In a draw."""
        return hashlib.sha256(repr((seed, *self.key)).encode()).hexdigest()

    def __str__(self) -> str:
        again = f" (number {self.again + 1})" if self.again else ""
        return f"src/prefdyn/{self.file}:{self.line} {self.scope}{again}: {self.before} → {self.after}"


def changes_of(node: ast.AST) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    """Kinds of change, what is replaced, and by what."""
    match node:
        case ast.Compare(left, ops, comparators):
            for place, op in enumerate(ops):
                if type(op) in COMPARED:
                    other = [*ops[:place], COMPARED[type(op)](), *ops[place + 1 :]]
                    yield "comparison", node, ast.Compare(left, other, comparators)
        case ast.BinOp(left, op, right) if type(op) in COMBINED and not (_listed(left) or _listed(right)):
            yield "operator", node, ast.BinOp(left, COMBINED[type(op)](), right)
        case ast.BoolOp(op, values):
            yield "and/or", node, ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.USub(), operand):
            yield "sign", node, operand
        case ast.UnaryOp(ast.Not(), operand):
            yield "condition", node, operand
        case ast.Constant(value) if type(value) is int:
            yield "constant", node, ast.Constant(value + 1)
        case ast.Constant(value) if type(value) is float and not 0 < value < TOLERANCE:
            yield "constant", node, ast.Constant(2 * value or 1.0)
        case ast.Call(func, args, keywords):
            name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
            if name in DROPPED and len(args) == 1:
                yield "root or size", node, args[0]
            if name in CALLED or (name == "sum" and isinstance(func, ast.Attribute)):
                other: Any = copy.deepcopy(func)
                setattr(other, "attr" if isinstance(func, ast.Attribute) else "id", CALLED.get(name, "mean"))
                yield "mean or extreme", node, ast.Call(other, args, keywords)
            for each in keywords:
                if each.arg in ("axis", "dim") and ast.unparse(each.value) in ("-1", "0", "1", "2"):
                    yield "axis", each.value, ast.Constant(1 if ast.unparse(each.value) == "0" else 0)
        case ast.If(test) | ast.IfExp(test) if not isinstance(test, ast.Compare | ast.UnaryOp):
            yield "condition", test, ast.UnaryOp(ast.Not(), test)
    for test in getattr(node, "ifs", ()):
        yield "condition", test, ast.UnaryOp(ast.Not(), test)


def _listed(node: ast.expr) -> bool:
    return isinstance(node, ast.List | ast.Tuple | ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _seen(node: ast.AST, scope: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.AST]]:
    """Every part that a change may meet, with its scope."""
    if isinstance(node, ast.Expr) and ast.unparse(node).startswith(("warn(", "warnings.warn(")):
        return
    if isinstance(node, UNSEEN) or (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        scope = (*scope, node.name)
    yield ".".join(scope) or "module", node
    for name, value in ast.iter_fields(node):
        if name not in TYPES:
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    yield from _seen(part, scope)


def changes_in(path: Path) -> list[Change]:
    """All changes of one module, in the order of its text."""
    text = path.read_bytes()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found, met, spans = [], Counter[tuple[str, str, str]](), set[tuple[Any, ...]]()
    for scope, node in _seen(ast.parse(text)):
        for kind, old, new in changes_of(node):
            span = (
                starts[old.lineno - 1] + old.col_offset,
                starts[(old.end_lineno or 0) - 1] + (old.end_col_offset or 0),
            )
            before, after = ast.unparse(old), ast.unparse(ast.fix_missing_locations(new))
            if (span, after) in spans:
                continue
            spans.add((span, after))
            again = met[scope, before, after]
            met[scope, before, after] += 1
            told: Any = {"file": path.relative_to(PACKAGE).as_posix(), "scope": scope, "line": old.lineno, "kind": kind}
            found.append(Change(span=span, before=before, after=after, again=again, **told))
    return found


def drawn(every: Sequence[Change], *, count: int, seed: int, rooms: Sequence[str]) -> list[Change]:
    """So many changes: rooms in turn, and in each room the kinds in turn. Fewer are the start of more."""
    queues = []
    for room in rooms:
        kinds: dict[str, list[Change]] = defaultdict(list)
        for change in sorted((each for each in every if each.room == room), key=lambda each: each.place(seed)):
            kinds[change.kind].append(change)
        queues.append([each for turn in zip_longest(*kinds.values()) for each in turn if each is not None])
    return [each for turn in zip_longest(*queues) for each in turn if each is not None][:count]


# tests ---------------------------------------------------------------------------------------------------------------


def _module(path: Path) -> str:
    inside = path.relative_to(REPO / "src" if PACKAGE in path.parents else REPO).with_suffix("")
    return ".".join(inside.parts[:-1] if inside.name == "__init__" else inside.parts)


@cache
def importers() -> dict[str, set[str]]:
    """Module → the modules of the package and the tests that import it, wherever in their text."""
    paths = {_module(path): path for path in chain(PACKAGE.rglob("*.py"), (REPO / "tests").rglob("*.py"))}
    found: dict[str, set[str]] = defaultdict(set)
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for each in node.names:
                    inner = f"{node.module}.{each.name}"
                    found[inner if inner in paths else node.module].add(name)
            elif isinstance(node, ast.Import):
                for each in node.names:
                    found[each.name].add(name)
    return found


def nearest(file: str) -> list[str]:
    """Doctests of a module and the test files that reach it over few imports: the nearest first, its room's before."""
    start = _module(PACKAGE / file)
    distance, front = {start: 0}, [start]
    for step in range(1, _FAR + 1):
        front = [
            name for each in front for name in sorted(importers()[each]) if distance.setdefault(name, step) == step
        ]
    room, stem = list(Path(file).parts[:-1][:1]), Path(file).stem
    found = []
    for name, step in distance.items():
        *folders, last = name.split(".")
        if folders[:1] == ["tests"] and last.startswith("test_") and last not in _BY_TIME:
            named = last.removeprefix("test_") in (stem, *Path(file).parts, _TESTED_BY.get(stem))
            found.append((not named, step, folders[1:2] != room, "/".join([*folders, last]) + ".py"))
    return [f"src/prefdyn/{file}", *(path for *_, path in sorted(found)[:_MOST])]


def run_tests(root: Path, target: str, *options: str, limit: float) -> tuple[int | None, float, str]:
    """Run tests in a copy, in a process of its own: exit code (None: over the limit), processor seconds, first failure.

    Seconds of the processor, not of the clock, so that a busy machine changes nothing.
    """
    told = root / "failed.txt"
    told.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 30))
            code = _child(root, [target, *options], told)
        finally:
            os._exit(code)
    until, done, status, used = time.monotonic() + 60 + 20 * limit, 0, 0, resource.getrusage(resource.RUSAGE_SELF)
    while not done and time.monotonic() < until and os.getppid() == _parent:
        done, status, used = os.wait4(pid, os.WNOHANG)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    if not done:
        os.waitpid(pid, 0)
    if os.getppid() != _parent:
        sys.exit("the command that this works for has ended")
    code = os.waitstatus_to_exitcode(status) if done else -signal.SIGXCPU
    failed = told.read_text() if told.exists() else target
    return None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code, used.ru_utime + used.ru_stime, failed


def _child(root: Path, asked: Sequence[str], told: Path) -> int:
    import pytest

    class First:
        """Keeps the name of the first test that fails."""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                told.write_text(report.nodeid)

    os.setsid()
    log = os.open(root / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(root)
    os.environ |= {"PYTHONPATH": str(root / "src"), "PREFDYN_CACHE": str(root / ".cache"), "HF_HUB_OFFLINE": "1"}
    sys.path.insert(0, str(root / "src"))
    # without the checks of types and shapes of pyproject.toml, which take two thirds as long again
    options = ["-o", "addopts=", "--doctest-modules", "-m", "not slow", "-x", "-q", "-p", "no:cacheprovider"]
    options += ["--hypothesis-seed=0"]
    options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*asked, *options], plugins=[First()]))


# one change after the other ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bench:
    """A worker's copy of the project."""

    root: Path
    seconds: dict[str, float]
    """What files of tests take; infinite: more than the budget."""
    seconds_file: Path
    budget: float
    sound: set[str] = field(default_factory=set)
    """Tests that are known to pass while nothing is changed."""
    writes: int = 0

    def write(self, path: Path, content: bytes) -> None:
        """With a time of its own: compiled files are told apart by seconds."""
        self.writes += 1
        path.write_bytes(content)
        os.utime(path, (10**9 + self.writes, 10**9 + self.writes))

    def noticed(self, change: Change) -> dict[str, Any]:
        """Which test notices a change, if one does; those that took part."""
        path, ran, unfinished = self.root / "src" / "prefdyn" / change.file, [], []
        text, (start, stop) = path.read_bytes(), change.span
        for target in nearest(change.file):
            known = self.seconds.get(target, math.inf)
            named = Path(target).stem in (Path(change.file).stem, f"test_{Path(change.file).stem}")
            limit = 10 + 4 * known if known < math.inf else self.budget * (_NAMED if named else 1)
            self.write(path, text[:start] + f"({change.after})".encode() + text[stop:])
            code, used, failed = run_tests(self.root, target, limit=limit)
            self.write(path, text)
            ran.append(target)
            if code in (0, 5):
                self._took(target, used)
            elif code is None:
                unfinished.append((target, limit))
            elif self._passes(target, failed):
                return {"by": failed, "how": "fails", "ran": ran}
        for target, limit in unfinished:
            if target not in self.seconds:
                code, used, _ = run_tests(self.root, target, limit=limit)
                self._took(target, used if code in (0, 5) else math.inf)
            if self.seconds[target] < limit / 2:
                return {"by": target, "how": "too slow", "ran": ran}
        return {"by": None, "how": "unnoticed", "ran": ran}

    def _passes(self, target: str, failed: str) -> bool:
        """Whether the test that failed passes while nothing is changed."""
        if failed not in self.sound:
            some = ["--collect-only"] if failed == target else []  # not even collected
            if run_tests(self.root, failed, *some, limit=_ENOUGH)[0] in (0, 5):
                self.sound.add(failed)
        return failed in self.sound

    def _took(self, target: str, seconds: float) -> None:
        """Written down at once: it is what takes longest to find out."""
        self.seconds[target] = seconds
        if self.seconds_file.parent.is_dir():
            self.seconds_file.write_text(json.dumps(self.seconds, indent=1))


_bench: Bench
_parent = os.getppid()


def _begin(work: str, budget: float) -> None:
    """Called once in every worker: its own copy, and the libraries loaded before anything is forked."""
    global _bench, _parent
    _parent = os.getppid()
    root = Path(tempfile.mkdtemp(dir=work)) / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=REPO, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPO / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, root / name)
    if (REPO.parent / "shared").exists():
        (root.parent / "shared").symlink_to(REPO.parent / "shared")
    for name in _LIBRARIES:
        __import__(name)
    _bench = Bench(root, json.loads(SECONDS.read_text()) if SECONDS.exists() else {}, SECONDS, budget)


def _try(change: Change) -> dict[str, Any]:
    return _bench.noticed(change)


def _digest(paths: Sequence[Path]) -> str:
    content = hashlib.sha256()
    for path in sorted(paths):
        content.update(path.read_bytes() if path.exists() else b"")
    return content.hexdigest()


def _judges(change: Change, found: dict[str, Any]) -> str:
    """What a result rests on, as it is now: the changed module, and the test that noticed or those that did not."""
    tests = [found["by"].split("::")[0]] if found["by"] else found["ran"]
    return _digest([PACKAGE / change.file, *(REPO / file for file in tests)])


def equivalents(every: Sequence[Change]) -> dict[tuple[Any, ...], str]:
    """Changes that no test should see, and why; one that no longer exists is an error."""
    there, found = {each.key for each in every}, {}
    for entry in tomllib.loads(EQUIVALENT.read_text())["equivalent"] if EQUIVALENT.exists() else ():
        key = (entry["file"], entry["scope"], entry["before"], entry["after"], entry.get("again", 0))
        if key not in there:
            sys.exit(f"{EQUIVALENT.name}: no such change any more, delete it: {key}")
        found[key] = entry["because"]
    return found


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=165, help="changes in all")
    parser.add_argument("--only", choices=ROOMS, action="append", help="rooms; all if not given")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget", type=float, default=25, help="processor seconds for a file of tests")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so many")
    parser.add_argument("--list", action="store_true", help="show the draw, try nothing")
    parser.add_argument("--fresh", action="store_true", help="forget what was found before")
    asked = parser.parse_args()

    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    sources = sorted(
        path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ("cli", "__main__.py")
    )
    every = [change for path in sources for change in changes_in(path)]
    same = equivalents(every)
    draw = drawn(every, count=asked.count, seed=asked.seed, rooms=asked.only or ROOMS)
    if asked.list:
        print(*draw, f"{len(draw)} of {len(every):,} changes", sep="\n")
        return 0
    KEPT.parent.mkdir(exist_ok=True)
    kept = {} if asked.fresh or not KEPT.exists() else json.loads(KEPT.read_text())
    results = {each: kept[each.place(0)] for each in draw if each.place(0) in kept and each.key not in same}
    results = {each: found for each, found in results.items() if found["judges"] == _judges(each, found)}
    queue = [each for each in draw if each not in results and each.key not in same]
    until, running = time.monotonic() + 60 * asked.minutes, dict[Future[Any], Change]()
    with (
        tempfile.TemporaryDirectory() as work,
        ProcessPoolExecutor(asked.jobs, get_context("fork"), initializer=_begin, initargs=(work, asked.budget)) as pool,
    ):
        while running or (queue and time.monotonic() < until):
            while queue and len(running) < asked.jobs and time.monotonic() < until:
                change = queue.pop(0)
                running[pool.submit(_try, change)] = change
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                change, found = running.pop(future), future.result()
                print(f"{found['how']:>9}  {change}  [{found['by'] or ', '.join(found['ran'])}]", flush=True)
                results[change] = found
                kept[change.place(0)] = found | {"judges": _judges(change, found)}
                KEPT.write_text(json.dumps(kept, indent=1))
    return report(draw, results, same)


def report(draw: Sequence[Change], results: dict[Change, dict[str, Any]], same: dict[tuple[Any, ...], str]) -> int:
    """The table by room, and what nobody noticed."""
    unnoticed = [each for each, found in results.items() if not found["by"]]
    print(f"\n{'room':<12}{'tried':>6}{'noticed':>9}{'equivalent':>12}{'not tried':>11}")
    totals = Counter[str]()
    for room in [*(room for room in ROOMS if any(each.room == room for each in draw)), "all"]:
        inside = [each for each in draw if room in ("all", each.room)]
        tried = [each for each in inside if each in results]
        equal = sum(each.key in same for each in inside)
        told = sum(each not in unnoticed for each in tried)
        print(f"{room:<12}{len(tried):>6}{told:>9}{equal:>12}{len(inside) - len(tried) - equal:>11}")
        totals = Counter(tried=len(tried), told=told)
    print(f"{totals['told']} of {totals['tried']} noticed ({100 * totals['told'] / max(totals['tried'], 1):.1f} %)")
    for each in draw:
        if each.key in same:
            print(f"equivalent: {each}: {same[each.key]}")
    for each in unnoticed:
        print(f"UNNOTICED: {each}")
    return int(bool(unnoticed))


if __name__ == "__main__":
    sys.exit(main())
