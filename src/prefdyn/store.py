"""Nouns ↔ disk. Atomic writes and checksums.

Nothing here is believed because it exists: every file is checked against the checksum that was written with it, and a
flipped byte is an error that names the file and what to do.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy

from prefdyn._files import atomic_write
from prefdyn._json import NotJSON, read_json
from prefdyn._shape import Shape, misfit
from prefdyn._stored import FEATURES, PROVENANCE, not_features
from prefdyn.data.pairs import Intake, LeftOut, PreferenceDataset
from prefdyn.errors import DataError, StoreError
from prefdyn.features import FeatureSet
from prefdyn.provenance import Provenance
from prefdyn.trajectory import MODULES, Trajectory
from prefdyn.trajectory import SCHEMA as TRAJECTORY

SCHEMA = 1
"""Number of the layout on disk. A file of another number is refused, never guessed at."""

_ZEROS = "0" * 64


# files ---------------------------------------------------------------------------------------------------------------


def pack(arrays: Mapping[str, np.ndarray], *, place: str = "") -> bytes:
    """Arrays as a safetensors file that holds the sha256 of its own bytes (computed with zeros in its place).

    Args:
        arrays: What to pack.
        place: Where the file belongs; part of the checksum, so that it is not believed anywhere else.

    Example:
        >>> sorted(unpack(pack({"a": np.arange(3), "b": np.eye(2)}), name="x"))
        ['a', 'b']
    """
    plain = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    raw = safetensors.numpy.save(plain, metadata={"sha256": _ZEROS})
    return raw.replace(_ZEROS.encode(), hashlib.sha256(raw + place.encode()).hexdigest().encode(), 1)


def unpack(raw: bytes, *, name: str, place: str = "") -> dict[str, np.ndarray]:
    """Arrays of a file that `pack` made.

    Args:
        raw: The whole file.
        name: What to call the file in an error.
        place: Where the file must belong.

    Raises:
        StoreError: A byte differs from what was written, or it was written for another place.
    """
    mark = b'"sha256":"'
    start = raw.find(mark) + len(mark)
    kept = raw[start : start + 64]
    whole = start >= len(mark) and len(kept) == 64
    bare = raw[:start] + _ZEROS.encode() + raw[start + 64 :]
    if not whole or hashlib.sha256(bare + place.encode()).hexdigest().encode() != kept:
        other = " for this place" if place else ""
        raise StoreError(
            f"{name} is damaged: its bytes do not have the sha256 they were written with{other}; delete it"
        )
    try:
        return safetensors.numpy.load(raw)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{name} holds no arrays ({' '.join(str(error).split())}); delete it") from error


def read_packed(path: Path, *, place: str = "") -> dict[str, np.ndarray] | None:
    """Arrays of a packed file; None where there is no such file.

    Raises:
        StoreError: The file is damaged, belongs elsewhere or cannot be read.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); check its permissions or delete it") from error
    return unpack(raw, name=str(path), place=place)


def file_sha256(path: Path) -> str:
    """sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _canonical(content: Any) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with the sha256 of each file beside it, and its own; written last, so it vouches for them.

    Args:
        path: Of the JSON file, in the folder of the files that it vouches for.
        content: What it holds; `kind` says what the folder is, `files` names the files.

    Raises:
        StoreError: It cannot be written.
    """
    digests = {name: file_sha256(path.parent / name) for name in content["files"]}
    body = {**content, "schema": SCHEMA, "files": digests}
    body["sha256"] = hashlib.sha256(_canonical(body)).hexdigest()
    atomic_write(path, _canonical(body))


_MANIFEST = {"kind": str, "schema": int, "files": {"*": str}}


def fits(held: Any, shape: Shape, path: Path, *, fix: str) -> None:
    """Refuse a value from a file that does not have a shape (see `prefdyn._shape`).

    Raises:
        StoreError: Names the file, the place in it and what stands there.
    """
    found = misfit(held, shape)
    if found is not None:
        raise StoreError(f"{path}: {found}; {fix}")


def read_json_file(path: Path, *, fix: str) -> Any:
    """What a JSON file holds, within the limits of `read_json`.

    Raises:
        StoreError: It is not read as JSON, with what to do about it, or not read at all.
    """
    try:
        return read_json(path.read_bytes())
    except NotJSON as error:
        raise StoreError(f"{path} cannot be read as JSON: it {error}; {fix}") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def read_manifest(path: Path, *, kind: str, fix: str, shape: Shape = dict) -> dict[str, Any]:
    """The manifest, once it and every file that it names have been checked.

    Args:
        path: What `write_manifest` wrote.
        kind: What the folder must be.
        fix: What to do where it is not sound, for the error.
        shape: Of what it holds (see `prefdyn._shape`).

    Raises:
        StoreError: It is missing, of another kind, schema or shape, or a byte of it or of a file that it names has
            changed.
    """
    folder = path.parent
    if not path.is_file():
        what = "holds no" if folder.is_dir() else "is no folder, so there is no"
        raise StoreError(f"{folder} {what} {path.name} (it is missing, or was never finished); {fix}")
    try:
        raw = path.read_bytes()
        body = read_json(raw)
        claimed = {key: value for key, value in body.items() if key != "sha256"}
        sound = _canonical(body) == raw and hashlib.sha256(_canonical(claimed)).hexdigest() == body.get("sha256")
    except (OSError, ValueError, AttributeError):
        sound = False
        body = {}
    if not sound:
        raise StoreError(f"{path} is damaged: it does not have the sha256 it was written with; {fix}")
    fits(body, _MANIFEST, path, fix=fix)
    if body["schema"] != SCHEMA or body["kind"] != kind:
        raise StoreError(
            f"{path} is a {body['kind']} file of schema {body['schema']}, but this version reads {kind} files of "
            f"schema {SCHEMA}; {fix}"
        )
    fits(body, shape, path, fix=fix)
    for name, digest in body["files"].items():
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise StoreError(f"{path} names {name!r}, which is no file beside or below it; {fix}")
        member = folder / name
        if not member.is_file():
            raise StoreError(f"{member} is missing; {fix}")
        if file_sha256(member) != digest:
            raise StoreError(f"{member} is damaged: it does not have the sha256 it was written with; {fix}")
    return body


def _mapped(path: Path, *, fix: str) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file as read-only views of the file itself, not copied into memory.

    Raises:
        StoreError: It is no such file, or an array has no place in it.
    """
    if path.stat().st_size < 8:
        raise StoreError(f"{path} is no safetensors file; {fix}")
    whole = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(whole[:8].tobytes(), "little")
    try:
        header = read_json(whole[8:start].tobytes())
    except NotJSON as error:
        raise StoreError(f"{path} is no safetensors file: its header {error}; {fix}") from error
    fits(header, {"__metadata__?": dict, "*": {"dtype": str, "shape": [int], "data_offsets": [int]}}, path, fix=fix)
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            dtype, size = _DTYPES.get(entry["dtype"]), math.prod(entry["shape"])
            places = [start + at for at in entry["data_offsets"]]
            if dtype is None or min(entry["shape"], default=0) < 0 or len(places) != 2:
                raise StoreError(f"{path}: the array {name!r} is of no known type or shape; {fix}")
            low, high = places
            if not start <= low <= high <= len(whole) or high - low != size * np.dtype(dtype).itemsize:
                raise StoreError(f"{path}: the array {name!r} does not lie where the header says; {fix}")
            found[name] = np.asarray(whole[low:high]).view(dtype).reshape(entry["shape"])
    return found


_DTYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "BOOL": "?", "U8": "u1"}


def read_table(path: Path, *, fix: str) -> pa.Table:
    """A Parquet table whose every text is UTF-8.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:  # not read_table, which makes columns of folders named like x=1
            table = file.read()
        table.validate(full=True)
        table.schema.names  # noqa: B018  (a name that is not UTF-8 is noticed when it is looked at)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise StoreError(f"{path} cannot be read as Parquet ({why}); {fix}") from error
    return table


# features ------------------------------------------------------------------------------------------------------------

_NOT_ARRAYS = ("kind", "groups", "tokens", "token_ids", "per_token", "provenance", "id")
_EXTRACT_AGAIN = "write the features again with `prefdyn extract --force`"


def save_features(feats: FeatureSet, folder: Path) -> Path:
    """Write a FeatureSet into a folder: `features.safetensors`, `features.parquet` (ids) and `features.json`.

    The JSON names the sha256 of the others and is written last. Equal features give equal bytes.

    Returns:
        The folder.

    Raises:
        StoreError: A file cannot be written.
    """
    folder = Path(folder)
    _make(folder)
    (folder / "features.json").unlink(missing_ok=True)
    arrays = {
        item.name: np.ascontiguousarray(value)
        for item in fields(FeatureSet)
        if item.name not in _NOT_ARRAYS and (value := getattr(feats, item.name)) is not None
    }
    atomic_write(folder / "features.safetensors", safetensors.numpy.save(arrays))
    _write_table(folder / "features.parquet", pa.table({"id": pa.array(feats.id.tolist(), pa.string())}))
    content = {
        "kind": "features",
        "files": ["features.safetensors", "features.parquet"],
        "features": {
            "kind": feats.kind,
            "groups": list(feats.groups),
            "tokens": list(feats.tokens),
            "token_ids": [int(token) for token in feats.token_ids],
            "provenance": feats.provenance.to_json(),
        },
    }
    write_manifest(folder / "features.json", content)
    return folder


def load_features(folder: Path) -> FeatureSet:
    """Read a FeatureSet that `save_features` wrote. Its arrays are views of the file, not copies in memory.

    Raises:
        StoreError: The folder is missing, unfinished, of another schema, a byte has changed, or what it holds cannot be
            features.
    """
    folder = Path(folder)
    manifest = read_manifest(
        folder / "features.json", kind="features", fix=_EXTRACT_AGAIN, shape={"features": FEATURES}
    )
    body = manifest["features"]
    for name in ("features.safetensors", "features.parquet"):
        if name not in manifest["files"]:
            raise StoreError(f"{folder / 'features.json'}: files.{name} is missing; {_EXTRACT_AGAIN}")
    arrays = _mapped(folder / "features.safetensors", fix=_EXTRACT_AGAIN)
    ids = _ids(folder / "features.parquet")
    found = not_features(body, arrays, ids)
    if found is not None:
        raise StoreError(f"{folder / 'features.safetensors'}: {found}; {_EXTRACT_AGAIN}")
    arrays.setdefault("cluster", arrays["text"])  # features from before there were clusters
    return FeatureSet(
        kind=body["kind"],
        groups=tuple(body["groups"]),
        tokens=tuple(body["tokens"]),
        token_ids=tuple(body["token_ids"]),
        provenance=_provenance(body["provenance"]),
        id=np.asarray(ids, dtype=np.str_),
        **dict[str, Any](arrays),
    )


def _ids(path: Path) -> list[str]:
    table = read_table(path, fix=_EXTRACT_AGAIN)
    column = table["id"] if table.schema.names == ["id"] else None
    if column is None or column.type != pa.string() or column.null_count:
        raise StoreError(f"{path} does not hold the column id, a text for every pair, alone; {_EXTRACT_AGAIN}")
    return column.to_pylist()


# datasets ------------------------------------------------------------------------------------------------------------


def save_dataset(data: PreferenceDataset, folder: Path) -> Path:
    """Write the texts of a dataset into a folder: `dataset.parquet` and `dataset.json`."""
    folder = Path(folder)
    _make(folder)
    (folder / "dataset.json").unlink(missing_ok=True)
    _write_table(folder / "dataset.parquet", data.table)
    content = {
        "kind": "dataset",
        "files": ["dataset.parquet"],
        "dataset": {
            "name": data.name,
            "left_out": [item.to_json() for item in data.left_out],
            "readings": [item.to_json() for item in data.readings],
        },
    }
    write_manifest(folder / "dataset.json", content)
    return folder


def load_dataset_beside(folder: Path) -> PreferenceDataset | None:
    """The dataset in a folder; None where the folder holds none.

    Raises:
        StoreError: A byte has changed since it was written, or what it holds can be no dataset.
    """
    folder = Path(folder)
    if not (folder / "dataset.json").exists():
        return None
    shape = {"dataset": _DATASET, "files": {"dataset.parquet": str}}
    body = read_manifest(folder / "dataset.json", kind="dataset", fix=_EXTRACT_AGAIN, shape=shape)["dataset"]
    table = read_table(folder / "dataset.parquet", fix=_EXTRACT_AGAIN)
    left_out = tuple(LeftOut(**{name: item[name] for name in _LEFT_OUT}) for item in body["left_out"])
    readings = tuple(
        Intake(**{**{name: item[name] for name in _READING}, "notes": tuple(item["notes"])})
        for item in body["readings"]
    )
    try:
        return PreferenceDataset(table=table, name=body["name"], left_out=left_out, readings=readings)
    except DataError as error:
        raise StoreError(f"{folder / 'dataset.parquet'}: {error.typed}; {_EXTRACT_AGAIN}") from error


_LEFT_OUT = {"source": str, "line": (int, None), "field": (str, None), "reason": str}
_READING = {
    item.name: [str] if item.name == "notes" else str if item.name == "source" else (str, None) if item.default is None
    else int
    for item in fields(Intake)
}  # fmt: skip
_DATASET = {"name": str, "left_out": [_LEFT_OUT], "readings": [_READING]}


# trajectories --------------------------------------------------------------------------------------------------------

_RUN_AGAIN = "run the command that made it again"


def save_trajectory(run: Trajectory, folder: Path) -> Path:
    """Write a Trajectory into a folder: `trajectory.parquet`, `trajectory.json`, and per-pair values if it has any."""
    folder = Path(folder)
    _make(folder)
    (folder / "trajectory.json").unlink(missing_ok=True)
    _write_table(folder / "trajectory.parquet", run.table)
    names = ["trajectory.parquet"]
    arrays = {f"margins/{step}": np.ascontiguousarray(values) for step, values in run.margins.items()}
    arrays |= {f"chosen_changes/{step}": np.ascontiguousarray(values) for step, values in run.chosen_changes.items()}
    arrays |= {f"alone_heads/{name}": np.ascontiguousarray(values) for name, values in run.alone_heads.items()}
    if run.joint_head is not None:
        arrays["joint_head/"] = np.ascontiguousarray(run.joint_head)
    if run.modules is not None:
        _write_table(folder / "modules.parquet", run.modules)
        names.append("modules.parquet")
    if arrays:
        atomic_write(folder / "trajectory.safetensors", safetensors.numpy.save(arrays))
        names.append("trajectory.safetensors")
    body = {"settings": dict(run.settings), "provenance": run.provenance.to_json()}
    write_manifest(folder / "trajectory.json", {"kind": "trajectory", "files": names, "trajectory": body})
    return folder


def load_trajectory(folder: Path) -> Trajectory:
    """Read a Trajectory that `save_trajectory` wrote.

    Raises:
        StoreError: The folder is missing, unfinished, of another schema, a byte has changed, or what it holds can be no
            trajectory.
    """
    folder = Path(folder)
    shape = {
        "trajectory": {"settings": dict, "provenance": PROVENANCE},
        "files": {"trajectory.parquet": str},
    }
    manifest = read_manifest(folder / "trajectory.json", kind="trajectory", fix=_RUN_AGAIN, shape=shape)
    body = manifest["trajectory"]
    kept: dict[str, dict[str, np.ndarray]] = {"margins": {}, "chosen_changes": {}, "joint_head": {}, "alone_heads": {}}
    if "trajectory.safetensors" in manifest["files"]:
        path = folder / "trajectory.safetensors"
        for name, values in _mapped(path, fix=_RUN_AGAIN).items():
            kind, _, key = name.partition("/")
            heads = kind in {"joint_head", "alone_heads"}
            sound = kind in kept and (heads or (key.isascii() and key.isdigit() and len(key) < _DIGITS))
            if not sound or values.dtype.kind != "f" or values.ndim != (2 if heads else 1):
                raise StoreError(f"{path}: the array {name!r} is none of those that a trajectory has; {_RUN_AGAIN}")
            kept[kind][key] = values

    def by_step(kind: str) -> dict[int, np.ndarray]:
        return dict(sorted((int(step), values) for step, values in kept[kind].items()))

    return Trajectory(
        table=steps_table(folder / "trajectory.parquet", TRAJECTORY, fix=_RUN_AGAIN).select(TRAJECTORY.names),
        settings=body["settings"],
        provenance=_provenance(body["provenance"]),
        margins=by_step("margins"),
        chosen_changes=by_step("chosen_changes"),
        joint_head=kept["joint_head"].get(""),
        alone_heads=kept["alone_heads"],
        modules=steps_table(folder / "modules.parquet", MODULES, fix=_RUN_AGAIN).select(MODULES.names)
        if "modules.parquet" in manifest["files"]
        else None,
    )


_DIGITS = 19
_NAMES = ("run", "step", "group", "split", "module")
"""Columns of a trajectory's tables that say what a row is about, and so are never null."""


def steps_table(path: Path, schema: pa.Schema, *, fix: str) -> pa.Table:
    """A table of a run, such as trajectory.parquet, with the columns of `schema` first, and then any others.

    Raises:
        StoreError: It cannot be read, lacks a column, or a column has another type or a null where none can be.
    """
    table = read_table(path, fix=fix)
    missing = [name for name in schema.names if name not in table.schema.names]
    if missing:
        raise StoreError(f"{path} lacks the columns {missing}; {fix}")
    for field in schema:
        if table.schema.names.count(field.name) > 1:
            raise StoreError(f"{path} has two columns {field.name!r}; {fix}")
        column = table[field.name]
        if column.type != field.type:
            raise StoreError(f"{path}: the column {field.name!r} is {column.type}, but must be {field.type}; {fix}")
        if field.name in _NAMES and column.null_count:
            raise StoreError(f"{path}: the column {field.name!r} holds null; {fix}")
    others = [name for name in table.schema.names if name not in schema.names and table.schema.names.count(name) == 1]
    return table.select([*schema.names, *others])


def _provenance(held: Mapping[str, Any]) -> Provenance:
    return Provenance(**{name: held[name] for name in PROVENANCE})


def _write_table(path: Path, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    atomic_write(path, sink.getvalue().to_pybytes())


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be made ({error.strerror}); choose another place") from error
