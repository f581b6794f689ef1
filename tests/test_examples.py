"""Every example runs as it stands and says what it claims."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

EXAMPLES = {"audit_a_list.py": ["steady: ", "fickle: conflicting", "report: "]}


def test_every_example_is_listed():
    assert {path.name for path in (REPO / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize(("name", "says"), EXAMPLES.items())
def test_the_example_runs(name, says, tmp_path):
    environment = os.environ | {"PREFDYN_CACHE": str(tmp_path), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, Path("examples") / name], cwd=REPO, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for line in says:
        assert line in result.stdout
