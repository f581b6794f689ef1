"""The tutorials do what they say: every command on them, in order, in one folder, and what it prints is on the page."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.conftest import CHAT_3M, REPO, SHARED, needs_shared


def lines_of(page, kind):
    """Lines of a page's blocks of one kind."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", page, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


PAGE, HH = ((REPO / "docs" / name).read_text(encoding="utf-8") for name in ("tutorial.md", "tutorial_hh.md"))
COMMANDS, SHOWN = lines_of(PAGE, "sh"), lines_of(PAGE, "text")
SCRIPTS = {
    code.splitlines()[0].removeprefix("# "): code for code in re.findall(r"^```python\n(.*?)^```", HH, re.M | re.S)
}
"""Of the second page, by the name on its first line."""


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
    held(SHOWN, run(COMMANDS, tmp_path, environment))


def run(commands, folder, environment):
    """What they print; `python` and `prefdyn` are those of this environment."""
    printed = ""
    for line in commands:
        words = shlex.split(line, comments=True)
        command = [sys.executable, *(["-m", "prefdyn"] if words[0] == "prefdyn" else []), *words[1:]]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, (line, ended.stderr)
        printed += ended.stdout
    return printed


def held(shown, printed):
    """Every line shown is among those printed, its numbers nearly so."""
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    for each in shown:
        wanted = " ".join(each.split())
        near = [line for line in lines if words(line) == words(wanted) and len(numbers(line)) == len(numbers(wanted))]
        assert any(numbers(line) == pytest.approx(numbers(wanted), rel=0.05, abs=0.02) for line in near), each


def test_the_page_on_hh_names_its_scripts_and_its_verbs():
    words = [shlex.split(line, comments=True) for line in lines_of(HH, "sh")]
    assert [each[1] for each in words] == ["turns.py", "audit", "plan", "train.py", "compare", "hold.py"]
    assert {each[1] for each in words if each[0] == "python"} == set(SCRIPTS)
    assert "GroupDPOTrainer" in SCRIPTS["train.py"]


@needs_shared
@pytest.mark.thorough
def test_the_page_on_hh_runs_where_its_data_are_with_one_step_for_a_run(tmp_path):
    """Audit and plan say what is shown; TRL takes the script as it is; runs of one step are read by what follows."""
    pytest.importorskip("trl")
    shutil.copyfile(SHARED / "hh" / "harmless-base-part.jsonl.gz", tmp_path / "harmless-base-part.jsonl.gz")
    (tmp_path / "chat-3M").symlink_to(CHAT_3M)
    short = {"num_train_epochs=1": "max_steps=1"}
    ways = ("given", "random")
    for name, code in SCRIPTS.items():
        for old, new in short.items():
            code = code.replace(old, new)
        (tmp_path / name).write_text(code)
    assert all(any(old in code for code in SCRIPTS.values()) for old in short)
    environment = os.environ | {"PREFDYN_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    commands = lines_of(HH, "sh")
    printed = run([*commands[:4], f"python train.py {ways[1]} 0", *commands[4:]], tmp_path, environment)
    told = [line for line in lines_of(HH, "text") if line.startswith(("What to change", "Change:", "Expect:"))]
    assert len(told) == 3
    held(told, printed)
    assert all(f"\n{way} " in f"\n{printed}" for way in ways)
