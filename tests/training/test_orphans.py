"""Processes that work for `reproduce` end with the first one, however and whenever it is killed."""

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.training.orphans import MARK, living

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
AT_WORK = "at work"
"""The moment when all others have begun."""


def kill_first(place: Path, how: int, moment: float | str, *, jobs: int, kind: str = "plain") -> float:
    """Start, wait for a moment after the others appear, and kill the first; seconds until nobody is left."""
    mark = secrets.token_hex(8)
    first = subprocess.Popen(
        [sys.executable, "-m", "tests.training.orphans", str(jobs), kind, str(place)],
        cwd=REPO, env={**os.environ, MARK: mark, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while len(living(mark)) < 2 or (moment == AT_WORK and len(list(place.glob("at-work-*"))) < jobs):
            assert time.monotonic() < deadline
            assert first.poll() is None
            time.sleep(0.02)
        if not isinstance(moment, str):
            time.sleep(moment)
        assert len(living(mark)) >= 2
        first.send_signal(how)
        began = time.monotonic()
        first.wait(60)
        while left := living(mark):
            assert time.monotonic() - began < 100, f"{len(left)} processes are left"
            time.sleep(0.1)
        return time.monotonic() - began
    finally:
        for pid in living(mark):
            os.kill(pid, signal.SIGKILL)
        first.wait(60)


@pytest.mark.thorough
@needs_proc
@pytest.mark.parametrize("moment", [0.3, AT_WORK])
def test_nobody_works_on_after_the_first_process_was_killed(tmp_path, moment):
    """While libraries are imported, and at work."""
    kill_first(tmp_path, signal.SIGKILL, moment, jobs=1)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", [0.0, 0.1, 0.5, 1.0, 2.0, 4.0, AT_WORK])
def test_at_whichever_moment_and_by_whichever_signal(tmp_path, how, moment):
    kill_first(tmp_path, how, moment, jobs=2)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_who_hears_no_signal_ends_too(tmp_path, how):
    """A long call into C, where Python answers nothing."""
    assert kill_first(tmp_path, how, AT_WORK, jobs=2, kind="deaf") < 60
