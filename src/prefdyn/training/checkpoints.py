"""Checkpoints of a run: whole or not there, checked before they are believed, the last good one never at risk.

`FOLDER/step-000100/` holds `tensors.safetensors`, one Parquet file per table and `checkpoint.json`, which names the
sha256 of the others and is written last. All of it is written and synced under a hidden name and then renamed, so a
process that dies at any moment leaves the finished checkpoints as they were.
"""

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.torch
import torch

from prefdyn._cache import beside
from prefdyn._checks import at_least
from prefdyn._files import shown_bytes
from prefdyn.errors import ConfigError, StoreError
from prefdyn.store import read_manifest, write_manifest

_MANIFEST = "checkpoint.json"
_FINISHED = re.compile(r"step-(\d{6,})(?:\.(\d+))?")
"""Step, and a number that tells apart two checkpoints of one step, where the first is damaged or differs."""
_HIDDEN = re.compile(r"\.step-\d{6,}(?:\.\d+)?\.[0-9a-f]{12}\.(?:partial|old)")
_TABLE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_FILE_BYTES = 2 << 30
"""Tensors beyond this go to a further file, because those of a GPU are copied to the host file by file."""
_NO_TABLES: Mapping[str, pa.Table] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose every byte has been checked."""

    path: Path
    step: int
    state: Mapping[str, Any]
    """Plain JSON, as it was handed to `save_checkpoint`."""
    files: tuple[str, ...]
    """Names of the files beside the manifest."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors on the CPU, read now, in memory of their own: changing them leaves the files as they are."""
        found: dict[str, torch.Tensor] = {}
        for name in self._named(".safetensors"):
            with safetensors.safe_open(self.path / name, framework="pt", device="cpu") as file:
                # a copy, because a mapped tensor starts anywhere, and sums may round by where the memory starts
                found |= {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        return found

    def tables(self) -> dict[str, pa.Table]:
        """The tables by name, read now."""
        suffix = ".parquet"
        return {name.removesuffix(suffix): pq.read_table(self.path / name) for name in self._named(suffix)}

    def _named(self, suffix: str) -> list[str]:
        return [name for name in self.files if name.endswith(suffix)]


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    tables: Mapping[str, pa.Table] = _NO_TABLES,
    keep: int = 2,
) -> Path:
    """Write a checkpoint, and when it is whole and on the disk, delete those older than the newest `keep`.

    Equal content gives equal bytes. Saving the same content again at the same step changes nothing.

    Args:
        folder: Of all checkpoints of the run; made if absent.
        step: Steps done, at least 0.
        tensors: By name, on any device and of any type that safetensors has. Tied tensors: each once.
        state: Plain JSON: mappings with string keys, lists (a tuple comes back as one), strings, numbers, booleans,
            None.
        tables: By name (small letters, digits, - and _).
        keep: Checkpoints that stay, the new one among them.

    Returns:
        The folder of the new checkpoint.

    Raises:
        StoreError: It cannot be written, such as on a full disk, or a sound checkpoint of a later step stands there.
            What was finished before is left as it was.
        ConfigError: `step`, `keep`, a table's name, a tensor or the state is none that can be saved.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> _ = save_checkpoint(folder, step=100, tensors={"head": torch.ones(2)}, state={"epoch": 3})
        >>> found = latest_checkpoint(folder)
        >>> found.step, found.state, found.tensors()
        (100, {'epoch': 3}, {'head': tensor([1., 1.])})
    """
    at_least(step, 0, name="step")
    at_least(keep, 1, name="keep")
    for name in tables:
        if not _TABLE_NAME.fullmatch(name):
            raise ConfigError(f"table name {name!r} cannot be saved; use small letters, digits, - and _")
    plain = _plain(state, "state")
    folder = Path(folder)
    size = sum(part.numel() * part.element_size() for part in tensors.values()) + sum(
        table.nbytes for table in tables.values()
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_hidden(folder)
        _refuse_sound_later(folder, step)
        partial = beside(folder / f"step-{step:06d}", "partial")
        partial.mkdir()
        try:
            _write(partial, step, tensors, plain, tables)
            path = _put_in_place(partial, folder, step)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except (OSError, safetensors.SafetensorError) as error:
        raise _cannot_write(folder, step, size, error) from error
    finished = _finished(folder)
    superseded = [place for place, at in finished if at == step and place != path]
    for old in superseded + [place for place, at in finished if at < step][keep - 1 :]:
        _remove(old)
    return path


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose bytes are those that were written; None where there is none.

    A damaged one is told in a `RuntimeWarning` and the one before it is taken. Nothing is changed on the disk.
    """
    for place, _ in _finished(Path(folder)):
        try:
            body = _checked(place)
        except StoreError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
            continue
        return Checkpoint(path=place, files=tuple(sorted(body["files"])), **body["checkpoint"])
    return None


# writing -------------------------------------------------------------------------------------------------------------


def _write(
    partial: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    tables: Mapping[str, pa.Table],
) -> None:
    names = []
    for number, part in enumerate(_parts(tensors)):
        names.append("tensors.safetensors" if number == 0 else f"tensors-{number + 1}.safetensors")
        try:
            safetensors.torch.save_file(part, partial / names[-1])
        except (KeyError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:240]
            raise ConfigError(
                f"tensors of the checkpoint of step {step} cannot be saved ({said}); hand over each tensor once, dense "
                "and of a type that safetensors has"
            ) from error
    for name, table in tables.items():
        names.append(f"{name}.parquet")
        pq.write_table(table.combine_chunks(), partial / names[-1])
    for name in names:
        sync(partial / name)
    content = {"kind": "checkpoint", "files": names, "checkpoint": {"step": step, "state": state}}
    try:
        write_manifest(partial / _MANIFEST, content)
    except StoreError as error:
        raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None
    for name in names:  # safetensors makes files that only their owner reads
        shutil.copymode(partial / _MANIFEST, partial / name)
    sync(partial)


def _parts(tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """The tensors in the order of their names, cut into files. At least one."""
    part: dict[str, torch.Tensor] = {}
    held = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        size = tensor.numel() * tensor.element_size()
        if part and held + size > _FILE_BYTES:
            yield part
            part, held = {}, 0
        part[name] = tensor.contiguous() if tensor.layout == torch.strided else tensor
        held += size
    yield part


def _put_in_place(partial: Path, folder: Path, step: int) -> Path:
    """Rename to a name that is free, so that no finished checkpoint is ever replaced."""
    number = 1
    while os.path.lexists(path := folder / (f"step-{step:06d}" + (f".{number}" if number > 1 else ""))):
        if _same(path, partial):
            shutil.rmtree(partial)
            return path
        number += 1
    os.rename(partial, path)
    sync(folder)
    return path


def _same(finished: Path, partial: Path) -> bool:
    try:
        _checked(finished)
        return (finished / _MANIFEST).read_bytes() == (partial / _MANIFEST).read_bytes()
    except StoreError:
        return False


def sync(path: Path) -> None:
    """See that a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open a folder
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Delete a folder so that no half of it is ever found under its name."""
    hidden = beside(path, "old")
    try:
        os.rename(path, hidden)
    except OSError as error:
        warnings.warn(f"the old checkpoint {path} cannot be deleted ({error.strerror})", RuntimeWarning, stacklevel=3)
        return
    shutil.rmtree(hidden, ignore_errors=True)


def _remove_hidden(folder: Path) -> None:
    """What a killed process left."""
    for place in folder.iterdir():
        if _HIDDEN.fullmatch(place.name):
            shutil.rmtree(place, ignore_errors=True)


# finding -------------------------------------------------------------------------------------------------------------


def _finished(folder: Path) -> list[tuple[Path, int]]:
    """Checkpoints, newest first, with their steps; checked by name only."""
    if not folder.is_dir():
        return []
    found = [(place, match) for place in folder.iterdir() if (match := _FINISHED.fullmatch(place.name))]
    found.sort(key=lambda item: (int(item[1][1]), int(item[1][2] or 1)), reverse=True)
    return [(place, int(match[1])) for place, match in found]


def _checked(place: Path) -> dict[str, Any]:
    return read_manifest(place / _MANIFEST, kind="checkpoint", fix="this checkpoint is passed over; delete it")


# refusals ------------------------------------------------------------------------------------------------------------


def _plain(value: Any, where: str) -> Any:
    """The value as the types that JSON gives back."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{where} has the key {key!r}, but keys must be strings in JSON; use {str(key)!r}")
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{at}]") for at, item in enumerate(value)]
    if not isinstance(value, str | int | float | bool | None):
        raise ConfigError(
            f"{where} is a {type(value).__name__}, which JSON does not hold; save it as a number, a string, a list or "
            "a tensor"
        )
    return value


def _refuse_sound_later(folder: Path, step: int) -> None:
    """A damaged later one is what the run was resumed before; a sound one is of another run."""
    for place in [place for place, at in _finished(folder) if at > step]:
        with contextlib.suppress(StoreError):
            _checked(place)
            break
    else:
        return
    raise StoreError(
        f"{place} is a checkpoint of a later step than {step}, so it is of another run; continue that one with "
        "--resume, or choose another folder"
    )


def _cannot_write(folder: Path, step: int, size: int, error: Exception) -> StoreError:
    said = getattr(error, "strerror", None) or " ".join(str(error).split())
    room = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    free = shutil.disk_usage(room).free
    rest = [at for _, at in _finished(folder) if at < step]
    left = f"; the checkpoint of step {rest[0]} is untouched, so --resume continues from it" if rest else ""
    return StoreError(
        f"the checkpoint of step {step} cannot be written to {folder} ({said}): it needs {shown_bytes(size)} and "
        f"{shown_bytes(free)} are free; free space there or choose another folder{left}"
    )
