"""The cache folder, who is at work in it or beside it, and what the dead left behind.

Whatever takes longer than a moment is written under a hidden name and renamed when it is whole. The hidden name carries
the sign of the process that writes it, and a file in the cache, locked for as long as that process lives, lists the
folders in which it did so. So every later command can tell what a killed process left from what a living one writes.
"""

import atexit
import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from prefdyn.errors import StoreError

CACHE_VARIABLE = "PREFDYN_CACHE"
_SIGN = 8
"""Hexadecimal digits of a process's sign; as many as half of them number its hidden names."""
_HIDDEN = re.compile(r"\.(?P<name>.+)\.(?P<sign>[0-9a-f]{8})(?P<number>[0-9a-f]{4})\.(?P<what>partial|old)")
KEPT = "checkpoints"
"""A hidden folder with this in it is a training run that --resume goes on with, and is not cleaned away."""


def cache_root() -> Path:
    """The folder for what can be computed again: `$PREFDYN_CACHE`, `$XDG_CACHE_HOME/prefdyn` or `~/.cache/prefdyn`.

    Raises:
        StoreError: The folder cannot be made or written.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        root = Path(named).expanduser()
    elif shared := os.environ.get("XDG_CACHE_HOME"):
        root = Path(shared) / "prefdyn"
    else:
        root = Path("~/.cache/prefdyn").expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except (OSError, RuntimeError) as error:
        raise StoreError(
            f"the cache folder {root} cannot be written ({getattr(error, 'strerror', None) or error}); "
            f"set {CACHE_VARIABLE} to a folder that can be, or extract with cache=False"
        ) from error
    return root


# one writer ----------------------------------------------------------------------------------------------------------


class Held:
    """A file that one process at a time can hold, and that nobody holds once its process is dead."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path, self._lock = path, lock

    def release(self) -> None:
        """Let go of the file, and remove it."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._lock.release()


def hold(path: Path) -> Held | None:
    """Hold an empty file; None where a living process holds it.

    Args:
        path: Made if absent, in a folder that exists.

    Raises:
        OSError: It cannot be made.
        StoreError: A file with something in it stands there, which is not ours.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file() or path.stat().st_size):
        raise StoreError(f"{path} is in the way: prefdyn locks a place with a file of this name; move it away")
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return Held(path, lock)


# hidden names --------------------------------------------------------------------------------------------------------


class _Process:
    """This process as others see it: its sign, and the file that lists where it writes under hidden names."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.number = 0
        self.listed: set[str] = set()
        self.held: Held | None = None
        self.sign = secrets.token_hex(_SIGN // 2)
        self.list = Path()
        with contextlib.suppress(StoreError, OSError):
            folder = cache_root() / "alive"
            folder.mkdir(exist_ok=True)
            while self.held is None:
                self.sign = secrets.token_hex(_SIGN // 2)
                self.list = folder / self.sign
                self.held = _begin(self.list)
            atexit.register(leave)

    def hidden(self, path: Path, what: str) -> Path:
        place = str(path.absolute().parent)
        if self.held is not None and place not in self.listed:
            with contextlib.suppress(OSError), self.list.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(place.replace("\n", "\0") + "\n")
                self.listed.add(place)
        self.number += 1
        return path.parent / f".{path.name}.{self.sign}{self.number % 0x10000:04x}.{what}"


def _begin(path: Path) -> Held | None:
    """Make the list and hold its lock; None where another process has it, or swept it away in between."""
    held = hold(_lock_of(path))
    if held is None:
        return None
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        held.release()
        return None
    return held


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


_process: _Process | None = None


def beside(path: Path, what: str) -> Path:
    """A hidden name of its own in the same folder, so that a rename is all it takes.

    Args:
        path: What it will be renamed to ("partial"), or was renamed from ("old").
        what: "partial" or "old".
    """
    global _process
    if _process is None or _process.pid != os.getpid():  # a fork is a process of its own
        _process = _Process()
    return _process.hidden(path, what)


def hidden_beside(path: Path, what: str) -> list[Path]:
    """The hidden names that `beside` gave to any process for this path, and that are there."""
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return []
    matches = [match for name in names if (match := _HIDDEN.fullmatch(name))]
    return [path.parent / match[0] for match in matches if match["name"] == path.name and match["what"] == what]


def leave() -> None:
    """Say that this process writes nothing more. A process that does not say so is found dead by the next."""
    if _process is not None and _process.held is not None and _process.pid == os.getpid():
        with contextlib.suppress(OSError):
            _process.list.unlink()
        _process.held.release()
        _process.held = None


def sweep(discard: Callable[[Path], object]) -> None:
    """Remove what dead processes left under hidden names, in the cache and wherever results were written.

    Living processes are spared: they hold their file. A result that was being replaced gets its name back. What cannot
    be removed stays for the next time.

    Args:
        discard: Removes an old result, which nobody else may have put a file into.
    """
    try:
        alive = cache_root() / "alive"
        signs = sorted(name.removesuffix(".lock") for name in os.listdir(alive))
    except (StoreError, OSError):
        return
    for sign in dict.fromkeys(signs):
        with contextlib.suppress(OSError, StoreError):
            held = hold(_lock_of(alive / sign))
            if held is None:
                continue
            try:
                places = (alive / sign).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
                for place in places:
                    _sweep_folder(Path(place.replace("\0", "\n")), sign, discard)
                (alive / sign).unlink()
            finally:
                held.release()


def _sweep_folder(folder: Path, sign: str, discard: Callable[[Path], object]) -> None:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        match = _HIDDEN.fullmatch(name)
        if match is None or match["sign"] != sign:
            continue
        path = folder / name
        with contextlib.suppress(OSError):
            if match["what"] == "old" and not os.path.lexists(folder / match["name"]):
                os.rename(path, folder / match["name"])
            elif path.is_symlink() or not path.is_dir():
                path.unlink()
            elif match["what"] == "old" and (path / ".prefdyn.json").exists():
                discard(path)
            elif not any((path / KEPT).glob("step-*")):
                shutil.rmtree(path)
