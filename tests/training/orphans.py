"""A first process with others that work for it, to be killed by the tests. Arguments: how many, and at what."""

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from prefdyn.experiments.launch import _over_processes

MARK = "PREFDYN_TEST_ORPHANS"
"""Variable by which all processes of one test are found, whoever started them."""


class Endless:
    """A run that is never done. Its key is asked for where it is worked on."""

    start = None

    def __init__(self, kind: str, place: str) -> None:
        self.kind, self.place = kind, place

    @property
    def key(self) -> str:
        """Work for ever: in Python, or where no signal is heard until it is done."""
        Path(self.place, f"at-work-{os.getpid()}").touch()
        if self.kind == "deaf":
            hashlib.pbkdf2_hmac("sha512", b"", b"", 1 << 30)
        time.sleep(1000)
        return ""


def living(mark: str) -> list[int]:
    """Processes that carry a mark, and run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            dead = "\nState:\tZ" in (path / "status").read_text()
            marked = f"{MARK}={mark}".encode() in (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if marked and not dead:
            found.append(int(path.name))
    return found


if __name__ == "__main__":
    jobs, kind, place = sys.argv[1:]
    # under its own name, so that the others find the class
    from tests.training import orphans

    work: Any = {str(at): orphans.Endless(kind, place) for at in range(int(jobs))}
    for _ in _over_processes(work, {}, int(jobs)):
        pass
