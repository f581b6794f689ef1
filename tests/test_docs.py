"""What the pages show: commands that there are, Python that runs, links that are checked, nothing from elsewhere."""

import ast
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from scripts.check_page import PAGE as CHECKS
from tests.conftest import REPO
from tests.fuzz.flags import COMMANDS

DOCS = REPO / "docs"
MADE = {"commands.md", "checks.md"}
"""Written from the code; tests hold them to it and run what they show."""
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "api")
_FENCE = re.compile(r"^( *)```(?P<kind>\w*)[^\n]*\n(?P<code>.*?)^\1```", re.M | re.S)
FENCES = [
    (path.relative_to(DOCS).as_posix(), found["kind"], found["code"])
    for path in PAGES
    for found in _FENCE.finditer(path.read_text(encoding="utf-8"))
]
SHELL = {
    f"{page}: {line}": line
    for page, kind, code in FENCES
    if kind in ("", "sh", "bash")
    for line in code.replace("\\\n", " ").splitlines()
    if line.strip()
}
PYTHON = {f"{page}:{code.splitlines()[0][:40]}": (page, code) for page, kind, code in FENCES if kind == "python"}
OTHERS = {"pip", "git", "just", "sbatch", "accelerate", "uv", "llamafactory-cli", "python"}
"""Programs of others; where they start prefdyn, what follows its name is held to its commands as everywhere."""

PRELUDE = """
import numpy as np
import prefdyn as pdy
data = pdy.load_dataset("builtin", groups=["keeps promises", "likes company"], limit=60)
feats = pdy.extract(data.with_held_out(0.8), "builtin", progress=False)
sim = pdy.descent(feats, pdy.DPO(beta=0.1), steps=4)
model = "builtin"
"""
"""What a reader has at hand before a block: a small dataset, its features, a simulation, a model."""
SMALLER = {
    'pdy.load_dataset("pairs.jsonl")': "data",
    '"./my-model"': "model",
    'model="…"': "model=model",
    'pdy.audit("builtin")': "pdy.audit(data, steps=20)",
    'pdy.load_dataset("builtin")': "data",
    'pdy.plan_data(feats, {"rare": 0.5})': 'pdy.plan_data(feats, {"keeps promises": 0.5}, steps=5)',
    'pdy.plan_weights(feats, "worst")': 'pdy.plan_weights(feats, "worst", steps=5)',
    "pdy.plan_select(feats)": "pdy.plan_select(feats, steps=5)",
    "pdy.plan_settings(feats)": "pdy.plan_settings(feats, steps=5)",
    "pdy.plan_undo(feats)": "pdy.plan_undo(feats, steps=5)",
    "slice(0, 50)": "slice(0, 10)",
    "steps=200, batch_size=16": "steps=6, batch_size=4",
    "epochs=1": "steps=2",
    "steps=100": "steps=5",
}
"""What is made smaller before a block runs, so that all of them take a minute and not an hour."""
ELSEWHERE = {
    "long_answers.md": "tests/cli/test_filter.py runs it after the commands above it",
    "trl.md": "tests/training/test_trl.py and examples/trl_groups.py run it, with datasets and arguments",
    "files.md": "tests/training/test_references.py and test_trl.py run it, with scores and a model",
    "tutorial_hh.md": "tests/test_tutorial.py runs it where the data are, with one step in place of a run",
    "reproduced/index.md": "a run of a day on data that are not here; examples/notebooks/papers_figures.py is small",
}
"""Python that does not run here, and why."""
KTO = "\n".join(
    f'{{"prompt": "p{k}", "completion": "{word}", "label": {label}}}'
    for k in range(3)
    for word, label in (("good", "true"), ("bad", "false"))
)


@pytest.mark.parametrize("line", SHELL.values(), ids=SHELL)
def test_a_command_is_one_and_has_these_flags(line):
    words = shlex.split(line, comments=True)
    if "prefdyn" not in words:
        assert words[0] in OTHERS or line.lstrip().startswith(("#", "export "))
        return
    start = words.index("prefdyn") + 1
    name, given = words[start], words[start + 1 :]
    assert name in COMMANDS
    flags = {flag for parameter in COMMANDS[name].params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in given if word.startswith("--")} <= flags


def test_all_python_runs_here_or_elsewhere_for_a_reason():
    pages = {page for page, _ in PYTHON.values()}
    assert set(ELSEWHERE) <= pages
    assert len(pages - set(ELSEWHERE) - MADE) >= 6


@pytest.mark.parametrize("page", sorted({page for page, _ in PYTHON.values()} - MADE))
def test_python_can_be_read(page):
    for where, code in PYTHON.values():
        if where == page:
            ast.parse(code.replace("(…, ", "("))


@pytest.mark.thorough
@pytest.mark.parametrize("page", sorted({page for page, _ in PYTHON.values()} - set(ELSEWHERE) - MADE))
def test_python_runs_in_the_order_of_the_page(page, tmp_path):
    code = "".join(code for where, code in PYTHON.values() if where == page)
    for shown, small in SMALLER.items():
        code = code.replace(shown, small)
    (tmp_path / "kto.jsonl").write_text(KTO)
    environment = os.environ | {"PREFDYN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.thorough
def test_python_of_the_checks_runs(tmp_path):
    (code,) = [code for page, code in PYTHON.values() if page == CHECKS.name and code.startswith("found")]
    rows = '{"prompt": "p", "chosen": "x", "rejected": "y"}\n{"prompt": "p", "chosen": "y", "rejected": "x"}\n'
    (tmp_path / "pairs.jsonl").write_text(rows)
    shown = f"import prefdyn as pdy\n{code}\nassert found.failed"
    subprocess.run([sys.executable, "-c", shown], cwd=tmp_path, check=True)


def test_yaml_and_json_can_be_read():
    for _, kind, code in FENCES:
        if kind in ("yaml", "json"):
            for part in code.splitlines() if kind == "json" else [code]:
                assert yaml.safe_load(part)


def test_links_and_anchors_are_checked_by_the_build():
    """`mkdocs build --strict` turns each of these into an error."""
    held = yaml.safe_load(re.sub(r"!!python\S*.*", "", (REPO / "mkdocs.yml").read_text(encoding="utf-8")))
    assert held["strict"] is True
    assert set(held["validation"].values()) == {"warn"}
    assert {"anchors", "absolute_links", "unrecognized_links", "not_found", "omitted_files"} <= set(held["validation"])


def test_the_site_asks_no_other_server():
    held = (REPO / "mkdocs.yml").read_text(encoding="utf-8")
    assert not re.search(r"https?://", held)
    assert "font: false" in held
    assert not any(
        re.search(r"!\[[^\]]*\]\(https?://|<(?:img|script|link)[^>]*https?://", path.read_text()) for path in PAGES
    )
