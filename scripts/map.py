"""The house in figures: how much there is of each room, and how often one thing is said.

`just map` prints lines per room, the declarations of a setting, `Mapping[str, Any]`, long functions, names that are
used for everything, and the files that one value crosses in `simulate` and `audit` (run on the built-in data).
"""

import argparse
import ast
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "prefdyn"
SETTINGS = ("beta", "steps", "learning_rate", "seed")
LONG = 50
"""Lines of a function that is called long."""
_MARK = 0.1372846
"""A beta that nobody else would use."""


def room(path: Path) -> str:
    """The folder of a module, or the hallway."""
    inner = path.relative_to(SOURCE)
    return inner.parts[0] if len(inner.parts) > 1 else "hallway"


def trees() -> Iterator[tuple[Path, ast.Module, str]]:
    """Every module, parsed, with its text."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text()
        yield path, ast.parse(text), text


def declared(tree: ast.AST, name: str) -> int:
    """Parameters and class fields of a name."""
    nodes = list(ast.walk(tree))
    fields = [line.target for node in nodes if isinstance(node, ast.ClassDef) for line in node.body
              if isinstance(line, ast.AnnAssign)]  # fmt: skip
    return sum(isinstance(node, ast.arg) and node.arg == name for node in nodes) + sum(
        isinstance(field, ast.Name) and field.id == name for field in fields
    )


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def loose(tree: ast.AST) -> int:
    """`Mapping[str, Any]` and `dict[str, Any]`."""
    return sum(
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("Mapping", "dict")
        and ast.unparse(node.slice) in ("str, Any", "(str, Any)")
        for node in ast.walk(tree)
    )


_FOLLOW = """
import dataclasses, sys
from pathlib import Path
mark, source, files = float(sys.argv[1]), sys.argv[2], set()

def holds(value, depth=0):
    if type(value) in (float, str):
        return value in (mark, str(mark))
    if depth < 3 and type(value) in (dict, list, tuple):
        return any(holds(each, depth + 1) for each in (value.values() if type(value) is dict else value[:50]))
    if depth < 3 and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(holds(getattr(value, each.name, None), depth + 1) for each in dataclasses.fields(value))
    return False

def called(frame, event, argument):
    name = frame.f_code.co_filename
    if event == "call" and name.startswith(source) and name not in files:
        code = frame.f_code
        given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 8)]
        if any(holds(frame.f_locals.get(each)) for each in given):
            files.add(name)

sys.argv = ["prefdyn", *sys.argv[3:]]
from prefdyn.cli import main
sys.setprofile(called)
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    sys.setprofile(None)
print("\\n".join(sorted(files)), file=sys.stderr)
"""


def crossed(command: str) -> list[str]:
    """Files in which some function is handed the beta that a command was given, alone or inside another value."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _FOLLOW, str(_MARK), str(SOURCE), command, "--limit", "20", "--beta", str(_MARK),
             "--steps", "5", "--out", f"{folder}/out"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    return [line.removeprefix(f"{SOURCE}/") for line in done.stderr.splitlines() if line.startswith(f"{SOURCE}/")]


def main() -> None:
    """Print the map."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--follow", action="store_true", help="also run two commands and list the files of one beta")
    wanted = parser.parse_args()
    lines: Counter[str] = Counter()
    says: Counter[str] = Counter()
    files: Counter[str] = Counter()
    functions, classes, names = [], Counter(), Counter()
    untyped = 0
    for path, tree, text in trees():
        lines[room(path)] += text.count("\n")
        untyped += loose(tree)
        for name in SETTINGS:
            count = declared(tree, name)
            says[name] += count
            files[name] += count > 0
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((length(node), f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}"))
            elif isinstance(node, ast.ClassDef):
                classes[node.name] += 1
            elif isinstance(node, ast.Name) and node.id == "found":
                names["found"] += 1
    for name, count in sorted(lines.items(), key=lambda item: -item[1]):
        print(f"{name:14}{count:>8,}")
    print(f"{'in all':14}{sum(lines.values()):>8,}")
    for name in SETTINGS:
        print(f"{name} is declared {says[name]} times in {files[name]} files")
    print(f"Mapping[str, Any] or dict[str, Any]: {untyped}")
    long = sorted((each for each in functions if each[0] > LONG), reverse=True)
    shown = ", ".join(f"{count} {where}" for count, where in long[:5])
    print(f"functions over {LONG} lines: {len(long)}; the longest: {shown}")
    twice = sorted(name for name, count in classes.items() if count > 1)
    print(f"class names given twice: {', '.join(twice) or 'none'}")
    print(f"uses of the variable `found`: {names['found']}")
    if wanted.follow:
        for command in ("simulate", "audit"):
            through = crossed(command)
            print(f"one beta crosses {len(through)} files in {command}: {', '.join(through)}")


if __name__ == "__main__":
    main()
