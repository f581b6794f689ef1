"""From rows of any source to one PreferenceDataset: groups, ids, weights, and what cannot be used."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from prefdyn._checks import nearest
from prefdyn.data.bad_rows import BadRow, Rejects, listed, says, shown
from prefdyn.data.pairs import HELD_OUT, SCHEMA, TRAIN, PreferenceDataset, table_from_columns
from prefdyn.data.readers import Source
from prefdyn.data.rows import (
    GROUP_NAMES,
    Parser,
    Texts,
    check_pair,
    field_names,
    group_name,
    identifier,
    trl_texts,
    weight,
)
from prefdyn.errors import DataError

_TRAIN_NAMES = ("train",)
_HELD_OUT_NAMES = ("held", "test", "val", "dev", "eval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One `--data` entry: its sources, how their rows are read, and the group of rows that name none."""

    name: str
    sources: Sequence[Source]
    parse: Parser
    needs: tuple[str, ...]
    """Fields without which no row can be read."""
    group_names: tuple[str, ...]
    """Group columns to look for, in this order."""
    default_group: str | None
    """Group of rows where there is no group column; None: the stem of their source."""


def trl_part(name: str, sources: Sequence[Source]) -> Part:
    """Sources in TRL's preference format, in one group unless they say otherwise."""
    return Part(
        name=name,
        sources=sources,
        parse=trl_texts,
        needs=("chosen", "rejected"),
        group_names=GROUP_NAMES,
        default_group="all",
    )


def wanted(used: Iterable[str], group_column: str | None) -> set[str]:
    """The columns worth reading where a format can leave columns unread."""
    return {*used} if group_column is None else {*used, group_column}


def assemble(parts: Sequence[Part], *, group_column: str | None, rejects: Rejects) -> PreferenceDataset:
    """Read every row of every part.

    Rows keep their order. Ids are the rows' own, or `STEM:LINE`; an id that an earlier source has used already is
    preceded by its own source's stem, and within one source it is a bad row. A `split` column counts where all of its
    values name a side (train…; held…, test…, val…, dev…, eval…) and both sides occur.

    Args:
        parts: What to read.
        group_column: Column that holds the group; None: one of the usual names, or none.
        rejects: Where bad rows go.

    Raises:
        DataError: A column is missing, a row is bad and bad rows are not skipped, or no row can be used.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    sides: list[str | None] = []
    stems: dict[str, int] = {}
    used: set[str] = set()
    known: set[str] = set()
    cells = [columns[name] for name in ("id", "group", *Texts._fields, "weight", "source", "line")]
    total = 0
    for part in parts:
        group_field = _group_field(part, group_column)
        for source in part.sources:
            stems[source.stem] = stems.get(source.stem, 0) + 1
            stem = source.stem if stems[source.stem] == 1 else f"{source.stem}~{stems[source.stem]}"
            default = part.default_group or source.stem
            total += len(source.rows)
            lines: dict[str, int] = {}
            given = field_names(source.rows)
            has_id, has_weight, has_split = ("id" in given, "weight" in given, "split" in given)
            for line, row in source.rows:
                try:
                    texts = part.parse(row)
                    check_pair(texts)
                    group = default
                    if group_field is not None:
                        named = row.get(group_field)
                        group = named if type(named) is str and named in known else group_name(row, group_field)
                        known.add(group)
                    own = identifier(row) if has_id else None
                    heavy = weight(row) if has_weight else 1.0
                    if own is not None and own in lines:
                        said = f"{shown(own)} was used on line {lines[own]} already"
                        raise BadRow("id", f"{said}; give every pair its own id")
                except BadRow as bad:
                    rejects.add(source.label, line, bad)
                    continue
                if own is not None:
                    lines[own] = line
                name = f"{stem}:{line}" if own is None else own
                if name in used:
                    name = _other(f"{stem}:{line if own is None else own}", used)
                used.add(name)
                sides.append(_side(row["split"]) if has_split and "split" in row else None)
                for values, value in zip(cells, (name, group, *texts, heavy, source.label, line), strict=True):
                    values.append(value)
    if not columns["id"]:
        first = f"; the first: {says(rejects.left_out[0])}" if rejects.left_out else ""
        what = " and ".join(dict.fromkeys(part.sources[0].label for part in parts))
        raise DataError(f"none of the {max(total, len(rejects.left_out))} rows of {what} can be used{first}")
    columns["split"] = [side or TRAIN for side in sides] if {*sides} == {TRAIN, HELD_OUT} else [TRAIN] * len(sides)
    name = "+".join(dict.fromkeys(part.name for part in parts))
    return PreferenceDataset(table=table_from_columns(columns), name=name, left_out=tuple(rejects.left_out))


def _other(fuller: str, used: set[str]) -> str:
    """An id that is not used yet, near to one that is."""
    tried, count = fuller, 1
    while tried in used:
        count += 1
        tried = f"{fuller}~{count}"
    return tried


def _side(value: Any) -> str | None:
    if isinstance(value, str):
        if value.lower().startswith(_TRAIN_NAMES):
            return TRAIN
        if value.lower().startswith(_HELD_OUT_NAMES):
            return HELD_OUT
    return None


def _group_field(part: Part, group_column: str | None) -> str | None:
    """Check that the needed columns are there, and find the one that holds the group."""
    everywhere: dict[str, None] = {}
    for source in part.sources:
        names = list(source.columns) if source.columns is not None else field_names(source.rows)
        everywhere.update(dict.fromkeys(names))
        if source.rows or source.columns is not None:
            _check_columns(source.label, names, part.needs)
    if group_column is not None:
        if group_column not in everywhere:
            where = part.sources[0].label
            raise DataError(f"group column {group_column!r} is not in {where}{nearest(group_column, everywhere)}")
        return group_column
    return next((name for name in part.group_names if name in everywhere), None)


def _check_columns(label: str, names: list[str], needs: tuple[str, ...]) -> None:
    folded = {name.lower().strip(): name for name in reversed(names)}
    for need in needs:
        if need in names:
            continue
        near = difflib.get_close_matches(need, folded, n=1, cutoff=0.75)
        hint = f"; rename {shown(folded[near[0]])} to {need!r}" if near else ""
        if not near and "answer_matching_behavior" in names:
            hint = "; this looks like Persona data: give it as persona:PATH"
        raise DataError(f"{label} has no column {need!r}; its columns are {listed(names, most=20)}{hint}")
    if "chosen" in needs and "prompt" not in names:
        near = difflib.get_close_matches("prompt", folded, n=1, cutoff=0.8)
        if near:
            raise DataError(
                f"{label} has no column 'prompt' but {shown(folded[near[0]])}; rename it to 'prompt', "
                "or drop it if chosen and rejected hold the prompt themselves"
            )
