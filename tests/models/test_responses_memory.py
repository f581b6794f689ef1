"""Memory of extracting long responses: what real processes took."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPO

LIMIT = 4e9


def measured(pairs):
    """What a process of its own took, and what it read."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.models.measure_responses", str(pairs)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=REPO,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_twice_the_pairs_take_no_more_memory():
    """Responses of 300 tokens under a head of 128,256 rows: 200 and 400 pairs peak within 5 % of each other."""
    few, many = measured(200), measured(400)
    for found, pairs in ((few, 200), (many, 400)):
        assert (found["pairs"], found["lengths"], found["vocabulary"]) == (pairs, [300], 128256)
        assert found["peak"] < LIMIT, found
    assert many["peak"] == pytest.approx(few["peak"], rel=0.05)
