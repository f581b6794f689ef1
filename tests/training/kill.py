"""Break a command off with `kill -9` at random moments, resume it until it is done, and compare what it leaves."""

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_PAUSE = 0.002
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A run that was let be."""

    files: Mapping[str, bytes]
    started: float
    """Seconds to the first sign of progress."""
    took: float


@dataclass(slots=True, kw_only=True)
class Broken:
    """A run that was killed and resumed until it was done."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    kills: list[float] = field(default_factory=list)
    """Seconds after each start."""
    progressed: int = 0
    """Kills before which the process had shown progress; the others hit it while it started."""


def run_whole(
    command: Sequence[str],
    out: Path,
    *,
    files: Sequence[str],
    watch: str = "checkpoints",
    timeout: float = 600,
    **rest: Any,
) -> Whole:
    """Run a command to its end.

    Args:
        command: Program and arguments; it writes into `out`.
        out: Its output folder.
        files: Paths in it whose bytes are wanted.
        watch: Path in it whose change is a sign of progress.
        timeout: Seconds that it may take.
        rest: For `subprocess.Popen`.
    """
    before, began, started = _look(out / watch), time.monotonic(), None
    with _started(command, rest) as child:
        while child.poll() is None:
            if started is None and _look(out / watch) != before:
                started = time.monotonic() - began
            child.patience(began, timeout)
        took = time.monotonic() - began
        child.refuse_failed()
    assert started is not None, f"{out / watch} never changed, so no moment to kill could be chosen"
    return Whole(files=_read(out, files), started=started, took=took)


def run_broken(
    command: Sequence[str],
    out: Path,
    *,
    whole: Whole,
    kills: int,
    seed: int = 0,
    resume: Sequence[str] = ("--resume",),
    watch: str = "checkpoints",
    early: float = 0.2,
    after: Callable[[int], None] | None = None,
    timeout: float = 600,
    **rest: Any,
) -> Broken:
    """Run a command, kill it at random moments, and start it again with `resume` until it is done.

    A kill falls either while the process starts, or, after it has made some progress, within an equal share of the time
    that an unbroken run took: about half of the run is left for a machine that is busier than it was then.

    Args:
        command: Program and arguments of the first start.
        out: Its output folder.
        whole: The same command unbroken, in another folder.
        kills: How many.
        seed: Of the moments.
        resume: Further arguments of every later start.
        watch: Path in `out` whose change is a sign of progress.
        early: Share of the kills that fall while it starts.
        after: Called after every kill with how many there have been.
        timeout: Seconds that one start may take.
        rest: For `subprocess.Popen`.

    Raises:
        AssertionError: It failed by itself, or was done before it had been killed so often.
    """
    draw, found = random.Random(seed), Broken()
    span = max(0.0, whole.took - whole.started) / (kills + 1)
    while True:
        again = list(resume) if found.kills else []
        last = len(found.kills) == kills
        wait_for_progress = draw.random() >= early
        delay = draw.uniform(0, span if wait_for_progress else whole.started)
        before, began, seen, killed = _look(out / watch), time.monotonic(), None, False
        with _started([*command, *again], rest) as child:
            while child.poll() is None:
                if seen is None and _look(out / watch) != before:
                    seen = time.monotonic()
                origin = seen if wait_for_progress else began
                if not last and origin is not None and time.monotonic() - origin >= delay:
                    killed = child.kill()
                    break
                child.patience(began, timeout)
            if not killed:
                child.refuse_failed()
                assert last, f"it was done after {len(found.kills)} of {kills} kills; give it more steps"
                found.files = _read(out, list(whole.files))
                return found
        found.kills.append(time.monotonic() - began)
        found.progressed += seen is not None
        if after is not None:
            after(len(found.kills))


def differences(one: Mapping[str, bytes], two: Mapping[str, bytes]) -> list[str]:
    """Names whose bytes differ, or that one of them lacks."""
    return sorted(name for name in {*one, *two} if one.get(name) != two.get(name))


@contextlib.contextmanager
def _started(command: Sequence[str], rest: Mapping[str, Any]) -> Iterator["_Child"]:
    """A process in a group of its own; what it says goes to a file, so that it never waits for a reader."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(list(command), start_new_session=True, stdout=said, stderr=subprocess.STDOUT, **rest)
        try:
            yield _Child(process, said)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@dataclass(frozen=True)
class _Child:
    process: "subprocess.Popen[Any]"
    said: IO[bytes]

    def poll(self) -> int | None:
        return self.process.poll()

    def kill(self) -> bool:
        """Whether the signal was what ended it, rather than its own end just before."""
        os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL

    def patience(self, began: float, timeout: float) -> None:
        if time.monotonic() - began > timeout:
            raise AssertionError(f"{self.process.args} took more than {timeout:.0f} s; it said: {self._words()}")
        time.sleep(_PAUSE)

    def refuse_failed(self) -> None:
        code = self.process.wait()
        assert code == 0, f"{self.process.args} ended with {code}; it said: {self._words()}"

    def _words(self) -> str:
        self.said.seek(0)
        return self.said.read().decode(errors="replace")


def _look(path: Path) -> frozenset[tuple[str, int]]:
    """Names and times in a folder, hidden ones aside; empty where it is not there."""
    try:
        with os.scandir(path) as entries:
            return frozenset((each.name, each.stat().st_mtime_ns) for each in entries if not each.name.startswith("."))
    except OSError:
        return frozenset()


def _read(out: Path, files: Sequence[str]) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in files}
