"""What is published: looked over by `scripts/release.py`, and installed where nothing else is."""

import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from scripts.release import ROOT, amiss, build

PROJECT = """[project]
name = "prefdyn"
version = "1.2.3"
license = "Apache-2.0"
"""
META = """Metadata-Version: 2.4
Name: prefdyn
Version: 1.2.3
Summary: x
License-Expression: Apache-2.0
Requires-Python: >=3.11
Description-Content-Type: text/markdown

# prefdyn
"""


def tree(root: Path, changes: dict[str, str | None]) -> list[str]:
    """A small tree that is fit to be published, with changes to it (None: not there), and what is amiss with it."""
    files: dict[str, str | None] = {
        "pyproject.toml": PROJECT, "README.md": "# prefdyn", "LICENSE": "Apache License",
        "CHANGELOG.md": "## Unreleased\n\n## 1.2.3 - 2026-01-01\n", "CITATION.cff": "version: 1.2.3\n",
        "src/prefdyn/__init__.py": "x", "src/prefdyn/py.typed": "", "src/prefdyn/data.bin": "y",
    }  # fmt: skip
    wheel_only = {name.removeprefix("wheel:"): text for name, text in changes.items() if name.startswith("wheel:")}
    sdist_only = {name.removeprefix("sdist:"): text for name, text in changes.items() if name.startswith("sdist:")}
    for name, text in (files | {name: text for name, text in changes.items() if ":" not in name}).items():
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    wheel, sdist = root / "prefdyn-1.2.3-py3-none-any.whl", root / "prefdyn-1.2.3.tar.gz"
    inside = {name.removeprefix("src/"): text for name, text in files.items() if name.startswith("src/")}
    inside |= {"prefdyn-1.2.3.dist-info/METADATA": META, "prefdyn-1.2.3.dist-info/licenses/LICENSE": "Apache"}
    with zipfile.ZipFile(wheel, "w") as held:
        for name, text in (inside | wheel_only).items():
            if text is not None:
                held.writestr(name, text)
    packed_tree = root / "packed" / "prefdyn-1.2.3"
    for name, text in (files | sdist_only).items():
        if text is not None:
            (packed_tree / name).parent.mkdir(parents=True, exist_ok=True)
            (packed_tree / name).write_text(text)
    with tarfile.open(sdist, "w:gz") as packed:
        packed.add(packed_tree, "prefdyn-1.2.3")
    return amiss(root, wheel, sdist)


def test_a_tree_that_is_fit_has_nothing_amiss(tmp_path):
    assert tree(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"CHANGELOG.md": "## Unreleased\n"}, "no heading for 1.2.3"),
        ({"CHANGELOG.md": "## 1.2.30\n"}, "no heading for 1.2.3"),
        ({"CITATION.cff": "version: 1.2.2\n"}, "CITATION.cff says version 1.2.2"),
        ({"pyproject.toml": PROJECT.replace("Apache-2.0", "MIT")}, "licence of pyproject.toml"),
        ({"pyproject.toml": PROJECT.replace("1.2.3", "1.2.4"), "CHANGELOG.md": "## 1.2.4", "CITATION.cff":
          "version: 1.2.4\n"}, "is not of version 1.2.4"),
        ({"wheel:prefdyn/data.bin": None}, "the wheel lacks prefdyn/data.bin"),
        ({"wheel:prefdyn-1.2.3.dist-info/licenses/LICENSE": None}, "lacks its licence"),
        ({"wheel:prefdyn-1.2.3.dist-info/METADATA": META.replace("text/markdown", "text/plain")}, "README"),
        ({"wheel:prefdyn/__pycache__/x.pyc": "z"}, "the wheel holds prefdyn/__pycache__/x.pyc"),
        ({"sdist:shared/notes.md": "z"}, "the sdist holds shared/notes.md"),
        ({"sdist:LICENSE": None}, "the sdist lacks LICENSE"),
    ],
)  # fmt: skip
def test_every_flaw_is_named(tmp_path, changes, says):
    told = tree(tmp_path, changes)
    assert any(says in line for line in told), told


def test_a_file_that_is_too_large_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.release.LARGEST", 500)
    assert sum("bytes, but at most 500" in line for line in tree(tmp_path, {})) == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds and installs")
def test_what_is_built_installs_where_nothing_is_and_does_the_main_job(tmp_path):
    """Wheel from sdist, into an empty environment with the locked releases of what it needs, away from the tree."""
    wheel, sdist = build(ROOT, tmp_path / "dist")
    assert [line for line in amiss(ROOT, wheel, sdist) if "CHANGELOG" not in line] == []
    run = {"check": True, "cwd": tmp_path, "text": True, "capture_output": True, "timeout": 1200}
    locked = tmp_path / "locked.txt"
    exported = subprocess.run(
        ["uv", "export", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "--quiet"],
        check=True, cwd=ROOT, text=True, capture_output=True,
    )  # fmt: skip
    locked.write_text(exported.stdout)
    subprocess.run(["uv", "venv", "--quiet", "env"], **run)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", str(python), "-c", str(locked), str(wheel)], **run)
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL", "UV_"))}
    alone["HF_HUB_OFFLINE"] = "1"
    command = str(tmp_path / "env" / "bin" / "prefdyn")
    told = subprocess.run([str(python), "-c", "import prefdyn; print(prefdyn.__file__)"], env=alone, **run)
    assert Path(told.stdout.strip()).is_relative_to(tmp_path)
    audit = subprocess.run([command, "audit", "--limit", "60", "--out", "audit"], env=alone, **run)
    assert "Traceback" not in audit.stderr
    assert {"report.html", "summary.json", "pairs.parquet"} <= {path.name for path in (tmp_path / "audit").iterdir()}
    checked = subprocess.run([command, "check", "--data-only", "--fail-on", "none"], env=alone, **run)
    assert checked.returncode == 0
