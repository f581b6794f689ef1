"""Parts of a dataset from paths: plain files in TRL's format, Persona evaluations, HH-RLHF dialogues."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prefdyn._checks import nearest
from prefdyn.data import hh, persona, rows
from prefdyn.data.assemble import Part, trl_part, wanted, wanted_by_layout
from prefdyn.data.bad_rows import Rejects
from prefdyn.data.columns import Columns, Rows
from prefdyn.data.readers import SUFFIXES, data_files, missing, opened, read_file, stem, written
from prefdyn.errors import DataError

SCHEMES = ("builtin", "persona", "hh", "hf")
_ABOUT = frozenset({"dataset_info.json", "dataset_infos.json", "config.json"})
"""Files of a repository that tell of the data and hold none."""
_PARTS = frozenset({"train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval", "heldout"})
"""Words in the names of files that tell which part of the data they hold."""


def plain_files(body: str, group_column: str | None, rejects: Rejects, given: Columns | Rows | None = None) -> Part:
    """A file, or a folder of files and folders: TRL's preference format, another known layout, or as the mapping says.

    The files right inside a folder are all of it. Where there are none, those of its folders are read: `data` holds the
    files of a cloned repository, and other folders are groups, by their names. Names such as `train-00000` and `test`
    tell the parts of the data apart; of parts for preferences and for other uses, the first are read.

    Raises:
        DataError: The path does not exist (names near ones), or holds nothing that can be read.
    """
    path = opened(body)
    if not path.exists():
        scheme, colon, _ = body.partition(":")
        if colon and "/" not in scheme:
            raise DataError(f"{body!r} begins with {scheme!r}, which is no kind of data{nearest(scheme, SCHEMES)}")
        hint = ""
        if re.fullmatch(r"[\w.-]+/[\w.-]+", body) and not path.name.endswith(SUFFIXES):
            hint = f"; for a dataset of the Hugging Face hub write hf:{body}"
        raise DataError(missing(path) + hint)
    files = _kept(data_files(path)) or (_inside(path) if path.is_dir() else [])
    if not files:
        kinds = ".jsonl, .json, .csv, .parquet"
        raise DataError(f"folder {written(path)} holds no {kinds} file; give a folder of such files")
    files, notes = _for_preferences(files)
    fields = wanted_by_layout(given, group_column)
    folders = _folders(path, files)
    sources = [
        replace(read_file(item, rejects, wanted=fields), folder=folder, side=side_of(item, path), notes=notes)
        for item, folder in zip(files, folders, strict=True)
    ]
    return trl_part(stem(path) if path.is_file() else file_name(path), sources, given)


def saved(path: Path) -> Path | None:
    """The folder that `datasets` saved with `save_to_disk`: this one, or the only one in a folder without data.

    distilabel writes so: a folder per configuration, which most often is one.

    Raises:
        DataError: There are several in it.
    """
    try:
        if not path.is_dir():
            return None
        if _was_saved(path):
            return path
        inside = [] if _kept(data_files(path)) else sorted(item for item in path.iterdir() if _was_saved(item))
    except OSError:
        return None
    if len(inside) > 1:
        names = ", ".join(item.name for item in inside)
        raise DataError(f"{written(path)} holds several saved datasets ({names}); give one, such as {inside[0]}")
    return inside[0] if inside else None


def _was_saved(path: Path) -> bool:
    return any((path / name).exists() for name in ("state.json", "dataset_dict.json"))


def _kept(files: Sequence[Path]) -> list[Path]:
    return [item for item in files if item.name not in _ABOUT]


def _inside(path: Path) -> list[Path]:
    """The data files of the folders of a folder, and of theirs."""
    found: list[Path] = []
    for folder in sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith(".")):
        found += _kept(data_files(folder)) or _inside(folder)
    return found


def _folders(path: Path, files: Sequence[Path]) -> list[str | None]:
    """The folder that each file's group is called after; None where folders are no groups."""
    if path.is_file():
        return [None]
    inside = []
    for item in files:
        parts = [part for part in item.relative_to(path).parts[:-1] if part != "data" and _part_of(part) is None]
        inside.append(parts)
    names = [parts[-1] if parts else "" for parts in inside]
    whole = {tuple(parts) for parts in inside}
    if len(whole) != len(set(names)):  # folders of one name in different places
        names = ["/".join(parts) for parts in inside]
    return [written(name) if name else None for name in names]


def _part_of(name: str) -> str | None:
    """Which part of the data a name of a file or folder says, if any."""
    found = [word for word in re.split(r"[-_. ]", name.lower()) if word in _PARTS]
    return found[0] if len(found) == 1 else None


def side_of(item: Path, path: Path) -> str | None:
    """The part of the data that a file holds, by its name or those of the folders that it lies in.

    Example:
        >>> side_of(Path("set/data/train-00000-of-00001.parquet"), Path("set"))
        'train'
    """
    names = [stem(item), *reversed(item.relative_to(path).parts[:-1] if path != item else ())]
    return next((side for name in names if (side := _part_of(name)) is not None), None)


def _for_preferences(files: list[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Of files such as train_prefs and train_sft, the first, and a sentence about the others."""
    words = {item: re.split(r"[-_. ]", item.name.lower()) for item in files}
    prefs = [item for item in files if {"prefs", "preferences"} & {*words[item]}]
    others = [item for item in files if {"sft", "gen"} & {*words[item]}]
    if not prefs or not others:
        return files, ()
    names = ", ".join(written(item.name) for item in others)
    return [item for item in files if item not in others], (
        f"Files for other uses than preferences are not read: {names}.",
    )


def _json_lines(path: Path) -> list[Path]:
    """The .jsonl[.gz] files at a path; the original data sets have no others, but their folders may."""
    files = data_files(path)
    if path.is_file():
        return files
    return [item for item in files if item.name.endswith((".jsonl", ".jsonl.gz"))]


def persona_files(path: Path, group_column: str | None, template: str | None, rejects: Rejects) -> Part:
    """A folder of the original Persona files, or one packed file. Without a `persona` field the file names the group.

    Raises:
        ConfigError: The template is unknown.
        DataError: The path does not exist or holds no JSON lines.
    """
    parse = persona.persona_parser(template)
    files = _json_lines(path)
    if not files:
        what = "give the folder of the persona files, or one packed file"
        raise DataError(f"folder {written(path)} holds no .jsonl file; {what}")
    fields = wanted(persona.USED, group_column)
    field = persona.TEMPLATES[template or "question"][0]
    return Part(
        name=stem(path) if path.is_file() else file_name(path),
        sources=[read_file(item, rejects, wanted=fields) for item in files],
        parse=parse,
        needs=(field, persona.CHOSEN, persona.REJECTED),
        group_names=("persona",),
        default_group=None,
    )


def hh_files(path: Path, group_column: str | None, rejects: Rejects) -> Part:
    """A file of HH-RLHF, a folder of files, or a folder of such folders, each of which is then a group.

    Raises:
        DataError: The path does not exist or holds no JSON lines.
    """
    files = _json_lines(path)
    sources = []
    group_names = rows.GROUP_NAMES
    default: str | None = "all"
    fields = wanted(hh.USED, group_column)
    if files:
        sources = [replace(read_file(item, rejects, wanted=fields), side=side_of(item, path)) for item in files]
    else:
        folders = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
        for folder in folders:
            for item in _json_lines(folder):
                read = read_file(item, rejects, wanted=fields)
                sources.append(replace(read, stem=written(folder.name), side=side_of(item, folder)))
        default = None
    if not sources:
        what = "give a file of HH-RLHF"
        raise DataError(f"folder {written(path)} holds no .jsonl[.gz] file, nor do its folders; {what}")
    return Part(
        name=stem(path) if path.is_file() else file_name(path),
        sources=sources,
        parse=hh.hh_texts,
        needs=("chosen", "rejected"),
        group_names=group_names,
        default_group=default,
    )


def file_name(path: Path) -> str:
    """Name of a folder or file without its place.

    Example:
        >>> file_name(Path("runs/code/"))
        'code'
    """
    return written(path.name or path.resolve().name or path)
