"""Messages name flags at the command line, and in Python what a caller passes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import prefdyn as pdy
from prefdyn import errors
from prefdyn.errors import ConfigError, DataError, MissingExtra, PrefdynError, StoreError, in_python
from tests.conftest import REPO

SOURCES = REPO / "src" / "prefdyn"
BELOW = [path for path in sorted(SOURCES.rglob("*.py")) if path.relative_to(SOURCES).parts[0] != "cli"]
OURS = {name for name in vars(errors) if name.endswith("Error")} | {"MissingExtra"}
TYPED = re.compile(r"(?<![\w\-])--[a-z]")
COMMAND_LINE_ALONE = {"card", "config", "json", "local_dir", "report_to", "space", "tensorboard", "write_for"}
"""Flags whose messages only a command's own work can raise, or that are not ours."""


def walk() -> Iterator[tuple[Path, ast.AST]]:
    for path in BELOW:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield path, node


def keywords() -> dict[str, set[str]]:
    """Every parameter and every annotated field below the commands: name → annotations."""
    found: dict[str, set[str]] = {}
    for _, node in walk():
        if isinstance(node, ast.FunctionDef):
            for each in (*node.args.args, *node.args.kwonlyargs):
                found.setdefault(each.arg, set()).add(ast.unparse(each.annotation) if each.annotation else "")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.setdefault(node.target.id, set()).add(ast.unparse(node.annotation))
    return found


def flags() -> set[str]:
    """Every flag that a text below the commands names, docstrings and command lines in backticks aside."""
    found: set[str] = set()
    for _, node in walk():
        inside = ast.iter_child_nodes(node) if not isinstance(node, ast.Expr) else ()  # a lone text is a docstring
        for each in inside:
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                bare = re.sub(r"`(?!--)[^`]*`", "", each.value)
                found |= {name.rstrip("-") for name in re.findall(r"(?<![\w\-({.])--([a-z][a-z-]+)", bare)}
    return found


def test_what_a_message_names_in_python_can_be_passed():
    known, named = keywords(), flags()
    assert {"batch-size", "split", "force", "eos", "no-eos", "goal"} <= named
    wrong = {}
    for flag in named - {name.replace("_", "-") for name in COMMAND_LINE_ALONE}:
        keyword = in_python(f"--{flag}")
        assert "--" not in keyword
        name = keyword.partition("=")[0]
        there = hasattr(pdy.PreferenceDataset, "split") if name == "data.split()" else name in known
        kinds = known.get(name, set())
        switches = {kind for kind in kinds if re.match(r"(Annotated\[)?bool\b", kind)}
        if not there or ("=" in keyword and not switches) or ("=" not in keyword and switches == kinds != set()):
            wrong[flag] = keyword
    assert wrong == {}


def test_an_error_that_quotes_another_quotes_its_flags():
    """`f"{error}"` would give the keywords, and the command line would print them."""
    quoted = []
    for path, node in walk():
        if not isinstance(node, ast.ExceptHandler) or node.name is None or node.type is None:
            continue
        if not OURS & {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)}:
            continue
        warned = {
            id(part)
            for call in ast.walk(node)
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "warnings.warn"
            for part in ast.walk(call)
        }
        quoted += [
            f"{path.relative_to(SOURCES)}:{part.lineno}"
            for part in ast.walk(node)
            if isinstance(part, ast.FormattedValue) and id(part) not in warned and ast.unparse(part.value) == node.name
        ]
    assert quoted == []


@pytest.mark.parametrize(
    ("typed", "python"),
    [
        ("take a smaller --batch-size, or --max-length 512", "take a smaller batch_size, or max_length 512"),
        ("add --force to replace it", "add force=True to replace it"),
        ("read them with --no-eos", "read them with eos=False"),
        ("--gradient-checkpointing True changes nothing here", "gradient_checkpointing True changes nothing here"),
        ("leave --gradient-checkpointing out", "leave gradient_checkpointing out"),
        ("hold some out with --split", "hold some out with data.split()"),
        ("--no-worse -1.0 is below 0", "slack -1.0 is below 0"),
        ("run `prefdyn score --eos`, or --eos", "run `prefdyn score --eos`, or eos=True"),
        ("give both the same (`--probe-pairs all`: all)", "give both the same (`probe_pairs all`: all)"),
        ("a--b, --- and x --> y stay", "a--b, --- and x --> y stay"),
    ],
)
def test_flags_become_keywords(typed, python):
    assert in_python(typed) == python
    assert in_python(python) == python


def test_every_error_of_ours_tells_both():
    for kind in (PrefdynError, DataError, ConfigError, StoreError, MissingExtra):
        error = kind("x: add --force")
        assert (str(error), error.typed) == ("x: add force=True", "x: add --force")
        assert error._render_traceback_() == [f"{kind.__name__}: x: add force=True"]


def test_a_forecast_without_held_out_pairs_says_how_to_hold_some_out():
    data = pdy.load_dataset("builtin", groups=["is tidy"], limit=4)
    with pytest.raises(DataError, match=r"hold some out with data\.split\(\)$") as told:
        pdy.forecast(data, steps=2, batch_size=2, progress=False)
    assert not TYPED.search(str(told.value))
    assert told.value.typed.endswith("hold some out with --split")
