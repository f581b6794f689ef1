"""Write docs/papers.md from the docstrings of the theory room and the tests that call it (run with `uv run python`)."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "papers.md"
THEORY = ROOT / "src" / "prefdyn" / "theory"
TESTS = ROOT / "tests" / "theory"

PAPERS = {
    "2403.18742": "Understanding the learning dynamics of alignment with human feedback",
    "2408.03459": "Can DPO learn diverse human values? A theoretical scaling law",
    "2404.04626": "Towards analyzing and understanding the limitations of DPO",
}
FINDINGS = ("Confirmed", "Sharper", "Loose", "Wrong", "Empty", "Repaired", "Ours")
"""What the first word of `Found:` may be."""

INTRODUCTION = """# The papers, statement by statement

Every statement of the three papers is a function that returns its value with the conditions it stands on. This page
says where each one lives, which tests hold it to account, and what we found. It is generated from the docstrings.
`prefdyn bounds` applies all of them to your features; `prefdyn field` draws the third paper's plane.

**Confirmed**: holds as printed. **Sharper**: a better constant or an exact form beside it. **Loose**: true, and how far
off. **Wrong**: false as printed, with a counterexample. **Empty**: true of anything, or under conditions nothing meets.
**Repaired**: our corrected form. **Ours**: not in the paper, needed to use it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One function that renders a statement."""

    module: str
    name: str
    paper: str
    place: str
    found: str
    tests: tuple[str, ...]


def entries() -> list[Entry]:
    """Every public function of the theory room that says what was found about a statement, in the source's order.

    Raises:
        ValueError: One cites no paper, begins `Found:` with an unknown word, or is called by no test.
    """
    calls = dict(_calls())
    listed = []
    for path in sorted(THEORY.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for name, text in _documented(ast.parse(path.read_text(encoding="utf-8"))):
            reference, found = _part(text, "Reference"), _part(text, "Found")
            cited = re.search(r"(\d{4}\.\d{5}), ([^;]+)", reference)
            if not found:
                continue
            where = f"{module}.{name}"
            if cited is None or cited[1] not in PAPERS:
                raise ValueError(f"{where}: its Reference must name one of {list(PAPERS)}, but is {reference!r}")
            if not found.startswith(FINDINGS):
                raise ValueError(f"{where}: its Found must begin with one of {FINDINGS}, but is {found[:40]!r}")
            tests = tuple(sorted(test for test, names in calls.items() if name.rpartition(".")[2] in names))
            if not tests:
                raise ValueError(f"{where}: no test in tests/theory calls it")
            listed.append(
                Entry(module=module, name=name, paper=cited[1], place=_place(cited[2]), found=found, tests=tests)
            )
    return listed


def page() -> str:
    """The whole page."""
    listed = entries()
    parts = [INTRODUCTION]
    for paper, title in PAPERS.items():
        rows = [_row(entry) for entry in sorted(listed, key=_order) if entry.paper == paper]
        parts.append(
            f"## {paper}: {title}\n\n| statement | function | what we found | tests |\n|---|---|---|---|\n"
            + "\n".join(rows)
        )
    parts.append((Path(__file__).parent / "papers_register.md").read_text(encoding="utf-8").strip())
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _order(entry: Entry) -> list[tuple[int, str]]:
    """By place in the paper, numbers as numbers; the sort is stable, so one place keeps the order of the source."""
    return [(int(part), "") if part.isdigit() else (0, part.casefold()) for part in re.split(r"(\d+)", entry.place)]


def _row(entry: Entry) -> str:
    link = f"[`{entry.name}`](api/theory.md#{entry.module}.{entry.name})"
    word, _, rest = entry.found.partition(".")
    found = f"**{word}.** {rest.strip()}".strip()
    shown = "<br>".join(f"`{test}`" for test in entry.tests[:3])
    more = f"<br>and {len(entry.tests) - 3} more" if len(entry.tests) > 3 else ""
    cells = (entry.place, link, found, shown + more)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Public functions, and public methods of public classes, with their docstrings."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", ast.get_docstring(inner) or ""


def _part(docstring: str, heading: str) -> str:
    """The text of one Google-style section, on one line."""
    found = re.search(rf"^{heading}:\n((?:[ \t]+.*\n?|\n)+)", docstring + "\n", flags=re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _place(reference: str) -> str:
    """The place in the paper, without our own notes on it."""
    return re.split(r"[;,.]? *THEORY", reference)[0].rstrip(";., ")


def _calls() -> Iterator[tuple[str, set[str]]]:
    """Each test of the theory room and every name that its module's functions use on its behalf."""
    for path in sorted(TESTS.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        helpers = {node.name: _names(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
        for name, used in helpers.items():
            if name.startswith("test_"):
                through = {inner for helper in used if helper in helpers for inner in helpers[helper]}
                yield name, used | through


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} | {
        part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)
    }


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
