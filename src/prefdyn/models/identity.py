"""What files hash to: the identity of a model, under which everything that was read of it is kept.

Small files and code are hashed whenever a model is loaded. What a large file hashed to is remembered together with its
size, its times of change (of content, and of anything about it: the second cannot be set by hand), its inode and its
device, and is believed only while all of these stand.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdyn._cache import cache_root
from prefdyn.errors import ModelError, StoreError
from prefdyn.provenance import content_hash
from prefdyn.store import file_sha256, read_manifest, write_manifest

VERIFY_VARIABLE = "PREFDYN_VERIFY"
"""Environment variable; at 1, nothing that was remembered of a file is believed."""
_SMALL = 1 << 20
"""Bytes under which a file is hashed rather than remembered."""
_SETTLED = 2.0
"""Seconds that a file must have been left alone to be remembered: a clock's tick may hide a change right after."""
_READ = (".safetensors", ".json", ".model", ".jinja", ".tiktoken")
_READ_NAMES = ("vocab.txt", "merges.txt")
_NOT_READ = ("generation_config.json", "README.json", "trainer_state.json")
_CHANGED = "{} was changed while the model was being loaded; load it again once it is whole"
_DYNAMIC = "transformers_modules."
"""Where transformers puts the code that models ship."""


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells a file from any other and from itself before a change, as far as the file system says."""

    size: int
    content_changed: int
    changed: int
    inode: int
    device: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """The state now, of the file that a link leads to."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)

    def is_settled(self) -> bool:
        """Whether it was left alone for so long that its times would show a change."""
        age = time.time_ns() - max(self.content_changed, self.changed)
        return os.name == "posix" and age > _SETTLED * 1e9


def model_files(folder: Path, *, code: bool) -> list[Path]:
    """Files of a model's folder that its numbers may depend on.

    Args:
        folder: Of the model or adapter.
        code: Its own code runs, which may read any file.
    """
    if code:
        found = []
        for place, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".") and name != "__pycache__"]
            found += [Path(place) / name for name in names if not name.startswith(".")]
    else:
        found = [*folder.iterdir(), *folder.glob("additional_chat_templates/*.jinja")]
        found = [path for path in found if _is_read(folder, path)]
    return sorted(path for path in found if path.name not in _NOT_READ and path.is_file())


def _is_read(folder: Path, path: Path) -> bool:
    """Whether a library may read this file of a folder whose own code does not run."""
    if path.parent != folder and path.parent != folder / "additional_chat_templates":
        return False
    return path.name not in _NOT_READ and (path.suffix in _READ or path.name in _READ_NAMES)


def states(folder: Path, *, code: bool) -> dict[Path, FileState]:
    """The state of each of `model_files`."""
    return {path: FileState.of(path) for path in model_files(folder, code=code)}


def folder_sha256(folder: Path, before: Mapping[Path, FileState], *, code: bool) -> str:
    """sha256 over the names and contents of `model_files`.

    Args:
        folder: Of the model or adapter.
        before: States before the model was loaded, of these files at least.
        code: The folder's own code has run.

    Raises:
        ModelError: A file is not what it was before.
    """
    memory = Memory.open()
    kept = model_files(folder, code=code)
    try:
        digests = memory.sha256(kept)
        after = states(folder, code=code)
    except FileNotFoundError as error:
        raise ModelError(_CHANGED.format(error.filename)) from None
    memory.close()
    expected = {path for path in before if code or _is_read(folder, path)}
    for path in sorted(expected | after.keys()):
        if after.get(path) != before.get(path):
            raise ModelError(_CHANGED.format(path))
    return content_hash(part for path in kept for part in (path.relative_to(folder).as_posix(), digests[path]))


def code_that_ran(*parts: Any) -> list[str]:
    """Names and sha256 of the source files behind objects whose classes a model ships; none for classes of libraries.

    Args:
        parts: Such as a model, its configuration and its tokenizer.
    """
    packages = {
        kind.__module__.rpartition(".")[0]
        for part in parts
        for kind in type(part).__mro__
        if kind.__module__.startswith(_DYNAMIC)
    }
    files = {
        Path(found)
        for name, module in list(sys.modules.items())
        if any(name.startswith(f"{package}.") for package in packages) and (found := getattr(module, "__file__", None))
    }
    return sorted(f"{path.name} {file_sha256(path)}" for path in files if path.is_file())


class Memory:
    """What files hashed to before, by path and state. A hint: losing it costs time only."""

    def __init__(self, path: Path | None, known: Mapping[str, Any]) -> None:
        self.path, self.known, self.changed = path, dict(known), False

    @classmethod
    def open(cls) -> "Memory":
        """The memory in the cache; an empty one where it is missing, damaged or not to be believed."""
        try:
            path = cache_root() / "fingerprints.json"
        except StoreError:
            return cls(None, {})
        if os.environ.get(VERIFY_VARIABLE, "0") not in ("", "0"):
            return cls(path, {})
        with contextlib.suppress(StoreError, KeyError, TypeError, ValueError):
            return cls(path, read_manifest(path, kind="fingerprints", fix="")["known"])
        return cls(path, {})

    def sha256(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Digests of files, several at a time: hashed unless they are large and remembered."""
        found: dict[Path, str] = {}
        missing: dict[Path, FileState] = {}
        for path in paths:
            state = FileState.of(path)
            remembered = self.known.get(str(path.resolve()))
            if state.size >= _SMALL and isinstance(remembered, list) and remembered[:-1] == _numbers(state):
                found[path] = remembered[-1]
            else:
                missing[path] = state
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for path, digest in zip(missing, pool.map(file_sha256, missing), strict=True):
                found[path] = digest
                self._remember(path, missing[path], digest)
        return found

    def _remember(self, path: Path, state: FileState, digest: str) -> None:
        if state.size >= _SMALL and state.is_settled() and FileState.of(path) == state:
            self.known[str(path.resolve())] = [*_numbers(state), digest]
            self.changed = True

    def close(self) -> None:
        """Keep what is new, and of files that are still there."""
        if self.changed and self.path is not None:
            known = {path: entry for path, entry in self.known.items() if Path(path).is_file()}
            with contextlib.suppress(StoreError):
                write_manifest(self.path, {"kind": "fingerprints", "files": [], "known": known})


def _numbers(state: FileState) -> list[int]:
    return [state.size, state.content_changed, state.changed, state.inode, state.device]
