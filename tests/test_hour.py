"""The page for newcomers names files and things that there are, and its examples apply and work."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import REPO

PAGE = (REPO / "docs" / "hour.md").read_text(encoding="utf-8")
FILES = re.findall(r"^\d+\. `([^`]+)`: (.*)$", PAGE, re.M)
EXAMPLES = dict(re.findall(r"### A new (\w+)\n.*?```diff\n(.*?)\n```", PAGE, re.S))
USES = {
    "objective": """
from prefdyn.dynamics.descent import descent
from prefdyn.maths.objectives import objective
from prefdyn.synthetic import gaussian_groups
run = descent(gaussian_groups(40, groups=2, width=6), objective("squared_hinge", beta=0.1), steps=3)
assert run.final("loss", group="group 0") < 1
""",
    "diagnostic": """
from prefdyn.planning.audit import audit
from prefdyn.synthetic import gaussian_groups
found = audit(gaussian_groups(40, groups=2, width=6), steps=3, progress=False)
assert [row["chosen_longer"] for row in found.rows()] == [0.5, 0.5]
""",
    "recipe": """
from prefdyn.experiments.recipes import recipe_named
(claim,) = recipe_named("gaps").claims
assert "0.5" in claim.rule
assert claim.where == "Check 4"
""",
    "command": """
from prefdyn.cli import main
sys.argv = ["prefdyn", "groups", "--data", "builtin:responses"]
main()
""",
}


@pytest.mark.parametrize(("file", "sentence"), FILES, ids=[name for name, _ in FILES])
def test_each_of_the_twelve_files_holds_what_its_sentence_names(file, sentence):
    text = (REPO / file).read_text(encoding="utf-8")
    names = re.findall(r"`([^`]+)`", sentence)
    assert all(re.search(rf"^(class|def) {name}\b|^{name}\b", text, re.M) for name in names), names
    assert len(FILES) == 12


@pytest.mark.parametrize("what", USES)
def test_each_example_applies_to_the_sources_and_works(tmp_path, what):
    shutil.copytree(REPO / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    command = ["git", "apply", "--unidiff-zero", "-"]
    subprocess.run(command, input=EXAMPLES[what] + "\n", cwd=tmp_path, text=True, check=True)
    start = f"import sys\nsys.path.insert(0, {str(tmp_path / 'src')!r})\nimport prefdyn\n"
    start += f"assert prefdyn.__file__.startswith({str(tmp_path)!r})\n"
    done = subprocess.run([sys.executable, "-c", start + USES[what]], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
