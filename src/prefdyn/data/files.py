"""Parts of a dataset from paths: plain files in TRL's format, Persona evaluations, HH-RLHF dialogues."""

import re
from pathlib import Path

from prefdyn._checks import nearest
from prefdyn.data import hh, persona, rows
from prefdyn.data.assemble import Part, trl_part, wanted
from prefdyn.data.bad_rows import Rejects
from prefdyn.data.readers import Source, data_files, missing, opened, read_file, stem, written
from prefdyn.errors import DataError

SCHEMES = ("builtin", "persona", "hh", "hf")
_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def plain_files(body: str, group_column: str | None, rejects: Rejects) -> Part:
    """A file or a folder of files in TRL's preference format.

    Raises:
        DataError: The path does not exist (names near ones), or holds nothing that can be read.
    """
    path = opened(body)
    if not path.exists():
        scheme, colon, _ = body.partition(":")
        if colon and "/" not in scheme:
            raise DataError(f"{body!r} begins with {scheme!r}, which is no kind of data{nearest(scheme, SCHEMES)}")
        hint = ""
        if re.fullmatch(r"[\w.-]+/[\w.-]+", body) and not path.name.endswith(_SUFFIXES):
            hint = f"; for a dataset of the Hugging Face hub write hf:{body}"
        raise DataError(missing(path) + hint)
    if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
        raise DataError(f"folder {written(path)} was saved by datasets; write hf:{written(path)}")
    files = data_files(path)
    if not files:
        raise DataError(f"folder {written(path)} holds no {', '.join(_SUFFIXES)} file; give a folder of such files")
    fields = wanted(rows.USED, group_column)
    sources = [read_file(item, rejects, wanted=fields) for item in files]
    return trl_part(stem(path) if path.is_file() else file_name(path), sources)


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
        sources = [read_file(item, rejects, wanted=fields) for item in files]
    else:
        folders = sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))
        for folder in folders:
            for item in _json_lines(folder):
                read = read_file(item, rejects, wanted=fields)
                sources.append(
                    Source(label=read.label, stem=written(folder.name), rows=read.rows, columns=read.columns)
                )
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
