"""The tutorial does what it says: every command on it, in order, in one folder, and what it prints is on the page."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import REPO

PAGE = (REPO / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    for line in block.splitlines()
    if line and not line.startswith("#")
]
SHOWN = [line for block in re.findall(r"^```text\n(.*?)^```", PAGE, re.M | re.S) for line in block.splitlines() if line]


def words(text):
    """Words without their numbers, whose last digits hang on the machine, and without what aligns them."""
    return re.findall(r"[^\W\d_]+", text)


def numbers(text):
    return [float(found) for found in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text.replace("−", "-"))]


def test_the_page_goes_from_an_audit_to_a_comparison():
    verbs = [shlex.split(line)[1] for line in COMMANDS]
    assert verbs[:4] == ["audit", "plan", "train", "compare"]
    assert all(line.startswith("prefdyn ") for line in COMMANDS)
    assert len(SHOWN) > 10


@pytest.mark.thorough
def test_every_command_runs_and_prints_what_is_shown(tmp_path):
    environment = os.environ | {"PREFDYN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    printed = ""
    for line in COMMANDS:
        ended = subprocess.run(
            [sys.executable, "-m", "prefdyn", *shlex.split(line)[1:]],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, (line, ended.stderr)
        printed += ended.stdout
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for shown in SHOWN:
        wanted = " ".join(shown.split())
        near = [line for line in lines if words(line) == words(wanted) and len(numbers(line)) == len(numbers(wanted))]
        assert any(numbers(line) == pytest.approx(numbers(wanted), rel=0.05, abs=0.02) for line in near), shown
