"""What every room's tests share."""

import gc
import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one worker per core: more threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.checked import check_calls

# The tests start many processes, and without byte code each of them would compile all its libraries anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

gc.disable()  # until all is imported, none of which is garbage
check_calls()  # before anything imports the package
settings.register_profile("patient", deadline=None)  # how long an example takes says something about the machine alone
settings.load_profile("patient")

REPO = Path(__file__).resolve().parent.parent
SHARED = REPO.parent / "shared" / "data"
"""Real data and models that are no part of the project; tests that need them skip where they are absent."""

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"real test data is absent: no folder {SHARED}")
PERSONA = SHARED / "persona" / "persona.jsonl.gz"
CHAT_3M = SHARED / "models" / "tinystories-chat-3M-gptneo"
STORIES_3M = SHARED / "models" / "stories3M-llama"


def pytest_collection_finish():
    """From here on garbage is collected, without a look through what stays to the end: modules and tests."""
    gc.freeze()
    gc.enable()
