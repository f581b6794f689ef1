"""Output folders: whose they are, who may write into them, and when they are whole. All of it is decided here.

A folder is ours by the marker in it, `.prefdyn.json`, which names the command and lists every file that was written,
with its size and sha256. What is not on the list, or no longer as it was written, is somebody's, and is never touched:
a folder that holds such a file is not replaced, and the file is named. Results are written under a hidden name beside
their place and renamed when they are whole, so an old result goes only when the new one stands beside it. One process
at a time writes to a place; a dead one does not count.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from prefdyn._cache import beside, cache_root, hidden_beside, hold
from prefdyn._files import atomic_write
from prefdyn._shape import of_many
from prefdyn._stopping import Stopped
from prefdyn.errors import StoreError

MARKER = ".prefdyn.json"
_SCHEMA = 1
_CHECKPOINTS = "checkpoints"
_CHECKPOINT = "checkpoint.json"
_EVENTS = "events"
_DEFAULT = Path("prefdyn-out")
_SHOWN = 3
"""Files of somebody's that an error names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What makes a folder ours."""

    command: str
    """Name of the command that wrote the folder."""
    finished: bool
    """Whether all of it is there. An unfinished run of `train` goes on with --resume."""
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Size and sha256 of each file by its path below the folder. Checkpoints vouch for their own files."""

    def write(self, folder: Path) -> None:
        """Write the marker into a folder. Equal files give equal bytes."""
        body = {"schema": _SCHEMA, "command": self.command, "finished": self.finished}
        body["files"] = {name: list(self.files[name]) for name in sorted(self.files)}
        atomic_write(folder / MARKER, (json.dumps({**body, "sha256": _digest(body)}, indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> "Marker | None":
        """The marker in a folder; None where there is none that we wrote."""
        try:
            body = json.loads((folder / MARKER).read_bytes())
            if body.pop("sha256") != _digest(body) or body["schema"] != _SCHEMA:
                return None
            files = {str(name): (int(size), str(digest)) for name, (size, digest) in body["files"].items()}
            return cls(command=str(body["command"]), finished=bool(body["finished"]), files=files)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFolder:
    """Where a command writes (`path`) and where that will stand when it is done (`final`)."""

    path: Path
    final: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFolder:
    """Where a training run writes while it goes on."""

    path: Path
    """The run's folder, with its checkpoints. A hidden one beside `final` while an older result stands there."""
    results: Path
    """Where results go that are to appear in `path` together, at the end."""
    final: Path

    @property
    def step(self) -> int | None:
        """The step of the newest checkpoint; None before the first."""
        return _newest(self.path)


# whole results -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def output_folder(out: Path | None, *, command: str, force: bool = False) -> Iterator[OutputFolder]:
    """A folder to write results into. It appears under its name when the block ends without an error, whole; or never.

    Args:
        out: Where to; without it, the first free `prefdyn-out/COMMAND-N`.
        command: Name of the command, for the default folder and the marker.
        force: Replace a folder of ours that stands there.

    Raises:
        StoreError: The place is taken (without `force`), holds files that are not ours, is being written to by another
            process, or cannot be written.
    """
    with _claimed(out, command) as final:
        _replaceable(final, force=force)
        partial = _hidden_folder(final, command)
        try:
            yield OutputFolder(path=partial, final=final)
            _seal(partial, command)
            _put_in_place(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def output_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """A name with the same ending to write a file to, which goes to `path` when the block ends without an error.

    What was written is remembered in the cache, so that `force` replaces a file of ours alone.

    Raises:
        StoreError: Something stands there that must not be replaced, or it cannot be written.
    """
    path = Path(path)
    with _claimed(path, "file") as final:
        _replaceable_file(final, force=force)
        folder = _hidden_folder(final, "file")
        try:
            partial = folder / final.name
            yield partial
            _replaceable_file(final, force=force)
            digest = _file(partial)
            os.replace(partial, final)
            _remember(final, digest)
        except OSError as error:
            raise StoreError(f"{final} cannot be written ({error.strerror or error})") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


# training runs -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def run_folder(
    out: Path | None, *, command: str, force: bool = False, resume: bool = False
) -> Iterator[TrainingFolder]:
    """The folder of a run that writes checkpoints as it goes on.

    A new run is in its place from the start. With `force`, a run that replaces another goes on under a hidden name
    beside it and takes its place at the end; `resume` finds it there. An error before the first checkpoint leaves no
    new folder; an interruption leaves one that the same command takes up. Nothing is ever deleted by `resume`.

    Args:
        out: Where to; without it, the first free `prefdyn-out/COMMAND-N`.
        command: Name of the command.
        force: Start anew where a folder of ours stands, and replace it at the end.
        resume: Go on with the run that is there, if one is.

    Raises:
        StoreError: As `output_folder`; or the folder holds an unfinished run and neither was asked for; or something of
            somebody's stands where results are to go.
    """
    with _claimed(out, command) as final:
        path, new = _begin(final, command, force=force, resume=resume)
        try:
            results = beside(path / "results", "partial")
            results.mkdir()
        except OSError as error:
            raise _unwritable(final, error) from error
        try:
            yield TrainingFolder(path=path, results=results, final=final)
            _install(results, path, command)
        except BaseException as error:
            shutil.rmtree(results, ignore_errors=True)
            if new and _newest(path) is None and (path != final or not isinstance(error, Stopped)):
                discard(path)
            raise
        shutil.rmtree(results, ignore_errors=True)
        if path != final:
            _put_in_place(path, final)
            for older in _unfinished(final, command):
                discard(older)


def put(folder: Path, name: str, content: bytes) -> None:
    """Write a file into an unfinished run's folder, whose marker knows of it before it is there.

    Raises:
        StoreError: A file of somebody's has its name.
    """
    marker = Marker.read(folder)
    assert marker is not None
    if os.path.lexists(folder / name) and name not in _ours(folder, marker):
        raise StoreError(
            f"{folder / name} was not written by prefdyn, or was changed since; move it away, or name another folder "
            "with --out"
        )
    files = {**marker.files, name: (len(content), hashlib.sha256(content).hexdigest())}
    Marker(command=marker.command, finished=False, files=files).write(folder)
    atomic_write(folder / name, content)


def run_path(out: Path, *, command: str, resume: bool) -> Path:
    """Where a run in `out` goes on, as a process sees it that decides nothing about folders."""
    hidden = _unfinished(Path(out), command) if resume else []
    return hidden[-1] if hidden else Path(out)


def _begin(final: Path, command: str, *, force: bool, resume: bool) -> tuple[Path, bool]:
    """Where a run goes on, or begins, and whether this process made the folder."""
    hidden = _unfinished(final, command)
    if resume and hidden:
        return hidden[-1], False
    if not os.path.lexists(final):
        _make_marked(final, command)
        return final, True
    marker = None if final.is_symlink() or not final.is_dir() else Marker.read(final)
    mine = marker is not None and marker.command == command
    if resume:
        if not mine:
            raise StoreError(
                f"{final} is no run of `prefdyn {command}` (it has no {MARKER} of one), so --resume cannot go on with "
                "it; name the run's folder with --out"
            )
        return final, False
    if mine and marker is not None and not marker.finished and not force:
        step = _newest(final)
        if step is not None:
            raise StoreError(
                f"{final} holds a run that stopped after its checkpoint of step {step}; add --resume to go on with it, "
                "--force to start anew, or name another folder with --out"
            )
        return final, False
    _replaceable(final, force=force)
    return _hidden_folder(final, command), True


def _unfinished(final: Path, command: str) -> list[Path]:
    """Runs under hidden names that were to replace what stands in their place, and have a checkpoint."""
    found = [path for path in hidden_beside(final, "partial") if _newest(path) is not None]
    return [path for path in found if (marker := Marker.read(path)) is not None and marker.command == command]


def _newest(folder: Path) -> int | None:
    steps = [path.name.removeprefix("step-").partition(".")[0] for path in (folder / _CHECKPOINTS).glob("step-*")]
    return max((int(step) for step in steps if step.isdigit()), default=None)


def _install(results: Path, folder: Path, command: str) -> None:
    """Move results into the run's folder, once none of them would replace somebody's file."""
    names = _below(results)
    marker = Marker.read(folder)
    ours = set(_ours(folder, marker)) if marker is not None else set()
    taken = [name for name in names if os.path.lexists(folder / name) and name not in ours]
    taken += [part for name in names for part in _parents(name) if (folder / part).is_symlink()]
    if taken:
        raise StoreError(
            f"{folder / taken[0]} was not written by prefdyn, or was changed since, so the results are not put in its "
            "place; move it away and go on with --resume"
        )
    digests = {name: _file(results / name) for name in names}
    before = {} if marker is None else dict(marker.files)
    Marker(command=command, finished=False, files={**before, **digests}).write(folder)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(results / name, folder / name)
    kept = {name: _file(folder / name) for name in before if name not in digests and (folder / name).is_file()}
    events = {name: _file(folder / name) for name in _below(folder / _EVENTS, _EVENTS)}
    Marker(command=command, finished=True, files={**kept, **events, **digests}).write(folder)


# whose it is ---------------------------------------------------------------------------------------------------------


def strangers(folder: Path, marker: Marker) -> list[str]:
    """Files below a folder of ours that we did not write, or that were changed since; and empty folders of others."""
    ours = set(_ours(folder, marker))
    homes = _homes(ours)
    found = []
    for top, folders, names in os.walk(folder):
        below = Path(top).relative_to(folder)
        for name in folders:
            relative, path = (below / name).as_posix(), Path(top) / name
            if path.is_symlink() or (relative not in homes and not os.listdir(path)):
                found.append(f"{relative}/")
        found += [relative for name in names if (relative := (below / name).as_posix()) not in ours]
    return sorted(found)


def discard(folder: Path) -> bool:
    """Remove what is ours of a folder, file by file, and the folder if nothing else is in it.

    Returns:
        Whether the folder is gone.
    """
    marker = Marker.read(folder)
    if marker is None:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return not folder.exists()
    names = _ours(folder, marker)
    for name in names:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    for part in sorted(_homes(names), key=lambda part: -part.count("/")):
        with contextlib.suppress(OSError):
            (folder / part).rmdir()
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def _ours(folder: Path, marker: Marker) -> list[str]:
    """Paths below the folder of the files that are as we wrote them."""
    found = [MARKER]
    for name, (size, digest) in marker.files.items():
        path = folder / name
        if _plain(path) and path.stat().st_size == size and _file(path)[1] == digest:
            found.append(name)
    for path in sorted((folder / _CHECKPOINTS).glob("step-*")):
        if path.is_symlink() or (folder / _CHECKPOINTS).is_symlink():
            continue
        try:
            body = json.loads((path / _CHECKPOINT).read_bytes())
            listed = [str(name) for name in body["files"]] if body["kind"] == "checkpoint" else []
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
        found += [f"{_CHECKPOINTS}/{path.name}/{name}" for name in [*listed, _CHECKPOINT] if _plain(path / name)]
    if not marker.finished:
        events = _below(folder / _EVENTS, _EVENTS)
        found += [name for name in events if PurePosixPath(name).name.startswith("events.out.tfevents.")]
    return list(dict.fromkeys(found))


def _homes(names: Iterable[str]) -> set[str]:
    """Folders that files of ours are in, or were."""
    return {part for name in names for part in _parents(name)} | {_CHECKPOINTS, _EVENTS}


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _replaceable(path: Path, *, force: bool) -> None:
    """Raise unless `path` is free, or `force` is set and all that stands there is ours."""
    if not os.path.lexists(path):
        return
    if path.is_symlink():
        raise StoreError(f"{path} is a symbolic link, which is never replaced; name the folder itself with --out")
    if not path.is_dir():
        raise StoreError(f"{path} is a file, which no folder replaces; name another place with --out")
    marker = Marker.read(path)
    if marker is None:
        content = sorted(os.listdir(path))
        if not content and force:
            return
        shown = f"holds {_counted(len(content))} (such as {content[0]!r}) and has no" if content else "has no"
        raise StoreError(
            f"{path} exists already, {shown} {MARKER} that says prefdyn wrote it, so it is not replaced"
            f"{', not with --force either' if force else ''}; name another folder with --out"
        )
    if not force:
        raise StoreError(f"{path} exists already; add --force to replace it, or name another place with --out")
    if others := strangers(path, marker):
        raise StoreError(
            f"{path} holds {_counted(len(others))} that prefdyn did not write, or that were changed since: "
            f"{of_many(others, _SHOWN)}; --force does not remove them: move them away, or name another folder "
            "with --out"
        )


def _counted(count: int) -> str:
    return "a file" if count == 1 else f"{count} files"


def _replaceable_file(path: Path, *, force: bool) -> None:
    if not os.path.lexists(path):
        return
    if path.is_dir() and not path.is_symlink():
        raise StoreError(f"{path} is a folder; give the name of a file")
    if not force:
        raise StoreError(f"{path} exists already; add --force to replace it, or give another name")
    if path.is_symlink() or not path.is_file():
        raise StoreError(f"{path} is no plain file, so --force does not replace it; give another name")
    if _remembered(path) != _file(path):
        raise StoreError(
            f"{path} was not written by prefdyn, or was changed since, so --force does not replace it; delete it "
            "yourself, or give another name"
        )


# places --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _claimed(out: Path | None, command: str) -> Iterator[Path]:
    """The place to write to, held by this process alone. Folders made on the way go again if nothing was put there."""
    number = 0
    while True:
        number += 1
        final = _DEFAULT / f"{command}-{number}" if out is None else _named(out)
        if out is None and not _free(final, command):
            continue
        made = _make_parents(final)
        try:
            held = hold(_lock_of(final))
        except OSError as error:
            _unmake(made)
            raise _unwritable(final, error) from error
        if held is None and out is not None:
            _unmake(made)
            raise StoreError(f"another prefdyn is writing to {out}; wait for it, or name another place with --out")
        if held is not None and (out is not None or _free(final, command)):
            break
        if held is not None:
            held.release()
    try:
        for left in hidden_beside(final, "partial"):  # its process is dead, for this one holds the place
            marker = Marker.read(left)
            if marker is not None and _newest(left) is None:
                shutil.rmtree(left, ignore_errors=True)
        yield final
    finally:
        held.release()
        _unmake(made)


def _free(final: Path, command: str) -> bool:
    """Whether a default place can be taken: nothing is there, or a run of ours that was killed at its start."""
    if not os.path.lexists(final):
        return True
    marker = None if final.is_symlink() else Marker.read(final)
    return (
        marker is not None and not marker.finished and marker.command == command == "train" and _newest(final) is None
    )


def _named(out: Path) -> Path:
    """The place by its own name: `..` and the like as the folder that they are."""
    out = Path(out)
    final = out.resolve() if out.name in ("", "..") else out
    if not final.name:
        raise StoreError(f"{out} is no place for results; name a folder with --out")
    return final


def _lock_of(final: Path) -> Path:
    return final.parent / f".{final.name}.prefdyn-lock"


def _make_parents(final: Path) -> list[Path]:
    """Make the folder that `final` is to be in; returns those that were not there, the innermost first."""
    missing = [parent for parent in final.absolute().parents if not parent.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _unmake(missing)
        raise _unwritable(final, error) from error
    return missing


def _unwritable(final: Path, error: OSError) -> StoreError:
    return StoreError(f"{final} cannot be written ({error.strerror}); name another place with --out")


def _unmake(made: Sequence[Path]) -> None:
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _hidden_folder(final: Path, command: str) -> Path:
    try:
        partial = beside(final, "partial")
        _make_marked(partial, command)
    except OSError as error:
        raise _unwritable(final, error) from error
    return partial


def _make_marked(folder: Path, command: str) -> None:
    folder.mkdir()
    Marker(command=command, finished=False).write(folder)


def _seal(folder: Path, command: str) -> None:
    """List what a hidden folder holds, all of which is ours."""
    files = {name: _file(folder / name) for name in _below(folder) if name != MARKER}
    Marker(command=command, finished=True, files=files).write(folder)


def _put_in_place(partial: Path, final: Path) -> None:
    """Rename a whole result to its place. What stood there goes when that is done, and not before."""
    try:
        try:
            _replaceable(final, force=True)
        except StoreError as error:
            spare = next(path for number in range(1, 1 << 16) if not os.path.lexists(path := _numbered(final, number)))
            os.rename(partial, spare)
            raise StoreError(f"{error.typed} (the new results are in {spare})") from None
        if not os.path.lexists(final):
            os.rename(partial, final)
            return
        old = beside(final, "old")
        os.rename(final, old)
        try:
            os.rename(partial, final)
        except BaseException:
            os.rename(old, final)
            raise
    except OSError as error:
        raise StoreError(f"the results cannot be moved to {final} ({error.strerror})") from error
    discard(old)


def _numbered(final: Path, number: int) -> Path:
    return final.parent / f"{final.name}-{number}"


# bytes ---------------------------------------------------------------------------------------------------------------


def _digest(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _file(path: Path) -> tuple[int, str]:
    """Size and sha256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _below(folder: Path, prefix: str = "") -> list[str]:
    """Paths of the files below a folder, without following links."""
    found = []
    for top, folders, names in os.walk(folder):
        folders.sort()
        below = PurePosixPath(prefix, Path(top).relative_to(folder).as_posix())
        found += [(below / name).as_posix() for name in names]
    return sorted(found)


def _parents(name: str) -> list[str]:
    return [part.as_posix() for part in PurePosixPath(name).parents if part.name]


def _memory_of(path: Path) -> Path:
    return cache_root() / "written" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"


def _remember(path: Path, file: tuple[int, str]) -> None:
    with contextlib.suppress(StoreError, OSError):
        place = _memory_of(path)
        place.parent.mkdir(exist_ok=True)
        atomic_write(place, json.dumps({"path": str(path.resolve()), "size": file[0], "sha256": file[1]}).encode())


def _remembered(path: Path) -> tuple[int, str] | None:
    try:
        body = json.loads(_memory_of(path).read_bytes())
        return int(body["size"]), str(body["sha256"])
    except (StoreError, OSError, ValueError, TypeError, KeyError):
        return None
