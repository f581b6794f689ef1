"""Every example runs as it stands and says what it claims."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

EXAMPLES = {
    "adam_exponent.py": ["-0.997", "exponent", "Gradient descent learns K values"],
    "audit_a_list.py": ["steady: ", "fickle: conflicting", "report: "],
    "counterexample_theorem_4_1.py": ["broken in 3 of 5 problems"],
    "empty_theorem_4_3.py": ["at least 0%", "97.8%"],
    "field_coordinates.py": ["the two probability ratios", "a property of the coordinates, not of DPO"],
    "more_values.py": ["1.13x", "not 1.5x", "5974"],
    "trl_groups.py": ["the same bytes", "TRL says: margin 0.8", "under 1e-4"],
}


def test_every_example_is_listed():
    assert {path.name for path in (REPO / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "says"), EXAMPLES.items())
def test_the_example_runs(name, says, tmp_path):
    environment = os.environ | {"PREFDYN_CACHE": str(tmp_path), "TMPDIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, Path("examples") / name], cwd=REPO, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    for line in says:
        assert line in result.stdout
