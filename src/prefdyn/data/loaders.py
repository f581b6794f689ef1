"""`load_dataset`: preference pairs from wherever they lie.

| spec | reads |
|---|---|
| `builtin` | the data that the package ships |
| `builtin:responses` | the data with whole replies that the package ships |
| `PATH` | a JSON, CSV or Parquet file, or a folder of them, in TRL's preference format or another known layout |
| `persona:PATH` | Persona evaluations: a folder of the original files (the file names the group), or one packed file |
| `hh:PATH` | HH-RLHF dialogues: a file, a folder of files, or a folder of such folders (their names are the groups) |
| `hf:OWNER/NAME[/CONFIG][:SPLIT]` | of the hub; the split is `train` unless given, and `train+test` reads both |
| `hf:PATH[:SPLIT]` | a folder that `datasets` saved with `save_to_disk` |
| `NAME=SPEC` | any of them under a name, which is the group of rows without a group column |
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefdyn._checks import at_least, nearest
from prefdyn.data import persona
from prefdyn.data.assemble import Part, assemble, trl_part
from prefdyn.data.bad_rows import Rejects, shown
from prefdyn.data.columns import Columns, Rows
from prefdyn.data.columns import columns as as_columns
from prefdyn.data.files import file_name, hh_files, persona_files, plain_files, saved
from prefdyn.data.memory import datasets_source, from_object
from prefdyn.data.pairs import PreferenceDataset
from prefdyn.data.readers import RowSource, missing, opened, written
from prefdyn.errors import ConfigError, DataError


def load_dataset(
    data: Any,
    *,
    groups: Sequence[str] | None = None,
    limit: int | None = None,
    group_column: str | None = None,
    template: str | None = None,
    columns: str | Path | Mapping[str, Any] | Columns | Rows | None = None,
    skip_bad_rows: bool = False,
    seed: int = 0,
) -> PreferenceDataset:
    """Preference pairs from a spec, several specs, or an object in memory.

    The group of a pair is in `group_column`, or in the first of the usual columns that there is (group, behavior,
    behaviour, persona, subset, source, category, channel, dataset). Without such a column every pair of a single source
    is in the group `all`, and with several sources each is a group. Columns `id` and `weight` are used if present, and
    so is `split` where it tells train from held_out (or test, validation).

    Args:
        data: A spec (see the module), a list of specs, a `datasets.Dataset`, a DataFrame, an Arrow table, a list of
            dictionaries, or a PreferenceDataset.
        groups: Only these groups.
        limit: At most this many pairs of every group, a sample drawn by the seed (see `PreferenceDataset.sample`).
        group_column: Column that holds the group.
        columns: Which fields mean what, where the layout is none of those known from their columns: `role=field,…`, a
            YAML file or a dictionary of roles (see `prefdyn.data.columns`), or a function from a row to a row with
            prompt, chosen and rejected, a list of such, or None to leave it out.
        template: Text of Persona prompts: `question` (as it is without this), `question+newline` or `statement`.
        skip_bad_rows: Leave bad rows out and list them in `left_out`, instead of an error at the first.
        seed: Of the sample.

    Raises:
        DataError: Something cannot be found or read, or a row is bad; names file, line, field and fix.
        ConfigError: A setting makes no sense here.

    Example:
        >>> data = load_dataset([{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5", "category": "sums"}])
        >>> data.groups
        ('sums',)
    """
    if limit is not None:
        at_least(limit, 1, name="limit (pairs per group)")
    if isinstance(data, PreferenceDataset):
        found = data
    else:
        rejects = Rejects(skip=skip_bad_rows)
        given = columns if columns is None or callable(columns) else as_columns(columns)
        specs = _specs(data)
        if specs is None:
            parts = [from_object(data, group_column, rejects, given)]
        else:
            parts = [_from_spec(spec, len(specs) > 1, group_column, template, rejects, given) for spec in specs]
            _check_names(parts, specs, group_column)
        if template is not None and not any(_is_persona(part) for part in parts):
            raise ConfigError(f"template {template!r} is for persona:PATH data, and none of the data is; leave it out")
        found = assemble(parts, group_column=group_column, rejects=rejects)
    if groups is not None:
        found = found.select(groups)
    return found if limit is None else found.sample(limit, seed=seed)


def _specs(data: Any) -> list[str] | None:
    """The specs as text, or None where the data is an object."""
    if isinstance(data, (str, os.PathLike)):
        return [os.fspath(data)]
    if isinstance(data, (list, tuple)) and any(isinstance(item, (str, os.PathLike)) for item in data):
        for item in data:
            if not isinstance(item, (str, os.PathLike)):
                raise DataError(
                    f"a list of data must hold specs only or rows only, but holds {shown(item)} beside specs"
                )
        return [os.fspath(item) for item in data]
    return None


def _is_persona(part: Part) -> bool:
    return persona.CHOSEN in part.needs


def _check_names(parts: Sequence[Part], specs: Sequence[str], group_column: str | None) -> None:
    """Two unnamed sources that would fall into one group by the accident of equal file names."""
    seen: dict[str, str] = {}
    for part, spec in zip(parts, specs, strict=True):
        names = {name for source in part.sources for name in source.names()}
        if part.default_group in (None, "all") or group_column is not None or names & set(part.group_names):
            continue
        if part.default_group in seen and _named(spec)[0] is None:
            raise DataError(
                f"{seen[part.default_group]} and {spec} would both be the group {part.default_group!r}; "
                "name them, such as --data first=PATH --data second=PATH"
            )
        seen[part.default_group] = spec


def _named(spec: str) -> tuple[str | None, str]:
    """NAME=SPEC apart; a path that holds `=` is no name."""
    match = re.match(r"([^=/\\:~.][^=/\\:]*)=(.+)", spec, flags=re.DOTALL)
    if match is None or os.path.exists(spec):
        return None, spec
    return match[1].strip(), match[2]


def _from_spec(
    spec: str,
    several: bool,
    group_column: str | None,
    template: str | None,
    rejects: Rejects,
    given: Columns | Rows | None,
) -> Part:
    name, body = _named(spec)
    scheme, colon, rest = body.partition(":")
    if given is not None and (scheme == "builtin" or (colon and scheme in {"persona", "hh"})):
        raise ConfigError(f"--columns is for files and hf:, but {body!r} has its own layout; leave one of them out")
    if scheme == "builtin":
        part = _builtin(rest if colon else None)
    elif colon and scheme in {"persona", "hh", "hf"}:
        if not rest:
            raise DataError(f"{body!r} names no path; write {scheme}:PATH")
        if scheme == "persona":
            part = persona_files(opened(rest), group_column, template, rejects)
        elif scheme == "hh":
            part = hh_files(opened(rest), group_column, rejects)
        else:
            part = _hf(rest, group_column, rejects, given)
    elif saved(opened(body)):
        part = _hf(body, group_column, rejects, given)
    else:
        part = plain_files(body, group_column, rejects, given)
    default = part.default_group
    if default == "all" and (name is not None or several):
        default = name or part.name
    return replace(part, name=name or part.name, default_group=default)


def _builtin(kind: str | None) -> Part:
    if kind == "responses":
        from prefdyn.data.builtin_responses import builtin_responses

        name, made = "builtin:responses", builtin_responses()
    elif kind is None:
        from prefdyn.data.builtin import builtin_rows

        name, made = "builtin", builtin_rows()
    else:
        raise DataError(f"'builtin:{kind}' is unknown; the built-in data is --data builtin or builtin:responses")
    return trl_part(name, [RowSource(label=name, stem=kind or name, rows=list(enumerate(made, start=1)))])


def _hf(rest: str, group_column: str | None, rejects: Rejects, given: Columns | Rows | None) -> Part:
    """A dataset of the hub, or one saved to a local folder. Of several splits each keeps its side of the data."""
    path, split = opened(rest), ""
    if not path.exists() and ":" in rest:
        head, _, split = rest.rpartition(":")
        path = opened(head)
    if path.exists():
        found, where = _open_hf(rest, local=saved(path) or path), written(path)
    elif rest.startswith(("/", "~", ".")):
        raise DataError(missing(path))
    else:
        where, _, split = rest.partition(":")
        found = _open_hf(rest, hub=where, splits=_splits(split))
    asked = _splits(split)
    if isinstance(found, Mapping):
        names = [str(name) for name in found]
        asked = asked or ("train" if "train" in names else names[0] if len(names) == 1 else "",)
        for name in asked:
            if name not in names:
                what = f"has no split {name!r}{nearest(name, names)}" if name else f"needs one of the splits {names}"
                raise DataError(f"'hf:{rest}' {what}; write hf:{where}:{names[0]} or hf:{where}:{'+'.join(names)}")
        parts = {name: found[name] for name in asked}
    elif isinstance(found, list):
        parts = dict(zip(asked, found, strict=True))
    elif asked:
        raise DataError(f"{where} holds one dataset without splits, so :{split} names nothing; write hf:{where}")
    else:
        parts = {"": found}
    stem = file_name(Path(where))
    if len(parts) == 1:
        (only,) = parts.values()
        return trl_part(stem, [datasets_source(only, f"hf:{written(rest)}", stem, group_column, rejects, given)], given)
    sources = []
    for name, part in parts.items():
        label = f"hf:{written(where)}:{name}"
        source = datasets_source(part, label, f"{stem}/{name}", group_column, rejects, given)
        sources.append(replace(source, side=name))
    return trl_part(stem, sources, given)


def _splits(text: str) -> tuple[str, ...]:
    """What `train+test[:10%]` names, each once.

    Example:
        >>> _splits("train+test[:10%]"), _splits("")
        (('train', 'test[:10%]'), ())
    """
    return tuple(dict.fromkeys(part for part in text.split("+") if part))


def _open_hf(rest: str, *, local: Path | None = None, hub: str = "", splits: Sequence[str] = ()) -> Any:
    """What `datasets` makes of it: one dataset, a list of one per split asked of a hub, or a mapping from split."""
    import datasets

    parts = hub.split("/")
    if local is None and (len(parts) not in {2, 3} or not all(parts)):
        raise DataError(f"'hf:{rest}' is no hub dataset; write hf:OWNER/NAME, hf:OWNER/NAME/CONFIG or add :SPLIT")
    try:
        if local is not None:
            return datasets.load_from_disk(str(local))
        chosen = {"split": list(splits)} if splits else {}
        return datasets.load_dataset("/".join(parts[:2]), *parts[2:], **chosen)  # pyright: ignore[reportCallIssue, reportArgumentType]
    except Exception as error:  # errors of many libraries arrive here; each means that the data is not to be had
        why = " ".join(str(error).split())[:300] or type(error).__name__
        fix = "give a folder saved by save_to_disk, or its files without hf:"
        if local is None:
            fix = "check the name and the network"
        raise DataError(f"'hf:{rest}' cannot be loaded: {why}; {fix}") from error
