"""From rows of any source to one PreferenceDataset: layouts, groups, ids, weights, and what cannot be used."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefdyn._checks import nearest
from prefdyn.data import forms
from prefdyn.data.bad_rows import BadRow, Rejects, listed, says, shown
from prefdyn.data.columns import MISSING, Columns, Rows, columns, lookup
from prefdyn.data.exports import Export, is_export, laid_out
from prefdyn.data.layouts import TRL, holds_one_response, misspelt, recognise, suggest
from prefdyn.data.mapping import Drawn, Mapper, by_function
from prefdyn.data.pairs import HELD_OUT, SCHEMA, TRAIN, Intake, PreferenceDataset, table_from_columns
from prefdyn.data.readers import RowSource, Wanted
from prefdyn.data.rows import (
    GROUP_NAMES,
    SCORES,
    USED,
    Parser,
    Texts,
    check_pair,
    cluster_name,
    group_name,
    identifier,
    is_null,
    trl_texts,
    weight,
)
from prefdyn.data.votes import number
from prefdyn.errors import ConfigError, DataError

_TRAIN_NAMES = ("train",)
_HELD_OUT_NAMES = ("held", "test", "val", "dev", "eval")
_UNREAD = ("system", "system_prompt")
"""Columns that other layouts have for what comes before the prompt, and TRL does not read."""
_TRIED = 20
"""Rows that are looked at to see whether a layout's columns hold what it says."""
_BLANK = 0.5
"""Share of pairs without a prompt from which a file that has no prompt column is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One `--data` entry: its sources, how their rows are read, and the group of rows that name none."""

    name: str
    sources: Sequence[RowSource]
    parse: Parser
    needs: tuple[str, ...]
    """Fields without which no row can be read; empty where the layout of each source is found from its columns."""
    group_names: tuple[str, ...]
    """Group columns to look for, in this order."""
    default_group: str | None
    """Group of rows where there is no group column; None: the stem of their source."""
    columns: Columns | Rows | None = None
    """The mapping that the user gave."""


def trl_part(name: str, sources: Sequence[RowSource], columns: Columns | Rows | None = None) -> Part:
    """Sources in TRL's preference format, in another known layout, or as the mapping says, in one group unless they say
    otherwise."""
    return Part(
        name=name,
        sources=sources,
        parse=trl_texts,
        needs=(),
        group_names=GROUP_NAMES,
        default_group="all",
        columns=columns,
    )


def wanted(used: Iterable[str], group_column: str | None) -> Wanted:
    """These columns, and that of the group, where a format can leave columns unread."""
    every = {*used} if group_column is None else {*used, group_column}
    return lambda names: every


def wanted_by_layout(given: Columns | Rows | None, group_column: str | None) -> Wanted:
    """The columns that a layout reads; all of them where a function reads rows, or no layout is known."""

    def choose(names: Sequence[str]) -> Iterable[str]:
        layout = recognise(names)
        mapping = given if given is not None else None if layout is None else layout.columns
        if not isinstance(mapping, Columns) or is_export(names):
            return names
        return {*USED, *_UNREAD, *mapping.read, *(name for two in SCORES for name in two), group_column or ""}

    return lambda names: set(choose(names))


def assemble(parts: Sequence[Part], *, group_column: str | None, rejects: Rejects) -> PreferenceDataset:
    """Read every row of every part.

    Rows keep their order. Ids are the rows' own, or `STEM:LINE`, with `/PART` where a row makes several pairs; an id
    that is used already is preceded by its source's stem, and numbered where that is not enough. A `split` column
    counts where all of its values name a side (train…; held…, test…, val…, dev…, eval…) and both sides occur; so do the
    names of files.

    Args:
        parts: What to read.
        group_column: Column that holds the group; None: one of the usual names, or none.
        rejects: Where bad rows go.

    Raises:
        DataError: A column is missing, a row is bad and bad rows are not skipped, or no row can be used.
        ConfigError: Both the mapping and `group_column` name the group.
    """
    taken = _Taken(rejects, several=len(parts) > 1)
    for part in parts:
        if isinstance(part.columns, Columns) and part.columns.group and group_column is not None:
            raise ConfigError(
                f"--columns names group={part.columns.group[0]}, and --group-column {group_column}; keep one"
            )
        readers = [_reading(part, source) for source in part.sources]
        group_field = _group_field(part, readers, group_column)
        for reader in readers:
            taken.source(part, reader, group_field)
    return taken.dataset(parts)


@dataclass(slots=True)
class _Reader:
    """One source and how its rows become pairs."""

    source: RowSource
    draw: Callable[[int, Mapping[str, Any]], Sequence[Drawn | BadRow]]
    counts: Counter[str]
    layout: str | None
    mapping: Columns | None
    implicit: bool
    """There is no prompt column: the prompt is what both responses begin with."""
    notes: tuple[str, ...] = ()
    """What the pairs do not show of how they were read."""


def _reading(part: Part, source: RowSource) -> _Reader:
    """How a source is read: as its part says, by the user's mapping, or by the layout that its columns tell.

    Raises:
        DataError: Its columns are of no known layout, or lack what the mapping names.
    """
    export = None if part.needs else laid_out(source)
    source = source if export is None else export.source
    names = source.names()
    given, layout = part.columns, None
    if part.needs:
        if source.rows or source.columns is not None:
            _check_columns(source.label, names, part.needs)
        return _Reader(source, lambda line, row: (Drawn(row),), Counter(), None, None, False)
    if given is not None and not isinstance(given, Columns):
        return _Reader(source, lambda line, row: by_function(given, row), Counter(), "a function", None, False)
    if given is None and export is not None:
        if export.says is None:
            raise DataError(_untold(source.label, export))
        given, layout = columns(export.says), export.tool
    elif given is None:
        found = recognise(names)
        if found is None:
            if not source.rows and source.columns is None:
                return _Reader(source, lambda line, row: (), Counter(), None, None, False)
            raise DataError(_unknown(source.label, names))
        if found.name == TRL.name:
            return _plain(source, names)
        given, layout = found.columns, found.name
        if given.chosen and all(lookup(row, given.chosen[0]) is MISSING for _, row in source.rows[:_TRIED]):
            raise DataError(_unknown(source.label, names))  # the columns alone misled, such as one output for a list
    else:
        layout = "--columns"
        if source.rows or source.columns is not None:
            _check_columns(source.label, names, tuple(sorted(given.needed)))
    mapper = Mapper(given=given, source=source)
    return _Reader(source, mapper.pairs, mapper.counts, layout, given, False)


def _plain(source: RowSource, names: Sequence[str]) -> _Reader:
    """TRL's own columns. Rows that stand in another form, such as messages written as text, go through the mapping."""
    mapper = Mapper(given=TRL.columns, source=source)

    def draw(line: int, row: Mapping[str, Any]) -> Sequence[Drawn | BadRow]:
        odd = forms.is_odd(row.get("prompt"), several=False) or any(
            forms.is_odd(row.get(side), several=True) for side in ("chosen", "rejected")
        )
        return mapper.pairs(line, row) if odd else (Drawn(row),)

    if "prompt" not in names and "prompt" in (near := misspelt(names)):
        raise DataError(
            f"{source.label} has no column 'prompt' but {shown(near['prompt'])}; rename it to 'prompt', or drop it if "
            "chosen and rejected hold the prompt themselves"
        )
    unread = [name for name in _UNREAD if name in names and any(not is_null(row.get(name)) for _, row in source.rows)]
    mapping = f"{TRL.says.replace('?', '')},system={unread[0]}" if unread else ""
    notes = tuple(
        f"The column {name!r} is not read, as TRL does not read it; to have it as system text: --columns {mapping}."
        for name in unread[:1]
    )
    return _Reader(source, draw, mapper.counts, None, None, "prompt" not in names, notes)


class _Taken:
    """The pairs that were read so far, column by column."""

    def __init__(self, rejects: Rejects, *, several: bool) -> None:
        self.rejects, self.several = rejects, several
        self.columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        named = ("id", "group", *Texts._fields, "weight", "source", "line", "cluster", "agreement", "slot")
        self.cells = [self.columns[name] for name in named]
        self.sides: list[str | None] = []
        self.stems: dict[str, int] = {}
        self.used: set[str] = set()
        self.known: set[str] = set()
        self.readings: list[Intake] = []
        self.rows = 0

    def source(self, part: Part, reader: _Reader, group_field: str | None) -> None:
        """Read the rows of one source."""
        source, counts = reader.source, reader.counts
        self.stems[source.stem] = self.stems.get(source.stem, 0) + 1
        stem = source.stem if self.stems[source.stem] == 1 else f"{source.stem}~{self.stems[source.stem]}"
        default = source.folder or part.default_group or source.stem
        self.rows += len(source.rows)
        given = {*source.names()}
        mapped = reader.mapping
        told = {name: name in given or reader.layout is not None for name in ("id", "weight", "split", "cluster")}
        scores = next((two for two in SCORES if given.issuperset(two)), None) if reader.layout is None else None
        before, blank = len(self.columns["id"]), 0
        own_group = "group" if mapped is not None and mapped.group else group_field
        given_ids: set[str] = set()
        for line, row in source.rows:
            try:
                drawn = reader.draw(line, row)
            except BadRow as bad:
                self.rejects.add(source.label, line, bad)
                continue
            for one in drawn:
                if isinstance(one, BadRow):
                    self.rejects.add(source.label, line, one)
                    continue
                fields = one.row
                try:
                    texts = part.parse(fields)
                    check_pair(texts)
                    group = default
                    if own_group is not None and (own_group in fields or reader.layout is None):
                        name = fields.get(own_group)
                        group = name if type(name) is str and name in self.known else group_name(fields, own_group)
                        self.known.add(group)
                    own = identifier(fields) if told["id"] else None
                    heavy = weight(fields) if told["weight"] else 1.0
                    cluster = cluster_name(fields) if told["cluster"] else None
                    if scores is not None:
                        _count_scores(fields, scores, counts)
                except BadRow as bad:
                    self.rejects.add(source.label, line, bad)
                    continue
                if cluster is not None:
                    cluster = f"{part.name}:{cluster}" if self.several else cluster
                elif one.part:
                    item = one.part.split("/")[0] if mapped is not None and mapped.each else ""
                    cluster = f"{stem}:{line}" + (f"/{item}" if item else "")
                blank += not texts.prompt
                counts["divided"] += one.agreement is not None and one.agreement < 1
                self.sides.append(_side(fields["split"]) if told["split"] and "split" in fields else _side(source.side))
                base = f"{stem}:{line}" if own is None else own
                name = f"{base}/{one.part}" if one.part else base
                if name in self.used:
                    counts["repeated_ids"] += own is not None and name in given_ids
                    fuller = f"{stem}:{line if own is None else own}"
                    name = _other(f"{fuller}/{one.part}" if one.part else fuller, self.used)
                elif own is not None:
                    given_ids.add(name)
                self.used.add(name)
                values = (name, group, *texts, heavy, source.label, line, cluster, one.agreement, one.slot)
                for cells, value in zip(self.cells, values, strict=True):
                    cells.append(value)
        pairs = len(self.columns["id"]) - before
        if reader.implicit and pairs and blank > _BLANK * pairs:
            raise DataError(_no_prompt(source.label, source.names(), blank, pairs))
        self.readings.append(
            Intake(
                source=source.label,
                layout=reader.layout,
                columns=None if mapped is None else str(mapped),
                pairs=pairs,
                notes=(*source.notes, *reader.notes),
                **counts,
            )
        )

    def dataset(self, parts: Sequence[Part]) -> PreferenceDataset:
        """All of them as one dataset.

        Raises:
            DataError: There are none.
        """
        columns, sides, rejects = self.columns, self.sides, self.rejects
        if not columns["id"]:
            first = f"; the first: {says(rejects.left_out[0])}" if rejects.left_out else ""
            ties = sum(item.ties for item in self.readings)
            first = f"; {ties:,} pairs are ties" if ties and not first else first
            what = " and ".join(dict.fromkeys(part.sources[0].label for part in parts))
            raise DataError(f"none of the {max(self.rows, len(rejects.left_out))} rows of {what} can be used{first}")
        columns["split"] = [side or TRAIN for side in sides] if {*sides} == {TRAIN, HELD_OUT} else [TRAIN] * len(sides)
        return PreferenceDataset(
            table=table_from_columns(columns),
            name="+".join(dict.fromkeys(part.name for part in parts)),
            left_out=tuple(rejects.left_out),
            readings=tuple(self.readings),
        )


def _count_scores(row: Mapping[str, Any], names: tuple[str, str], counts: Counter[str]) -> None:
    values = [row.get(name) for name in names]
    if any(map(is_null, values)):
        return
    chosen, rejected = (number(value, name) for value, name in zip(values, names, strict=True))
    counts["scores_equal"] += chosen == rejected
    counts["scores_against"] += chosen < rejected


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


def _group_field(part: Part, readers: Sequence[_Reader], group_column: str | None) -> str | None:
    """The column that holds the group, if any: one that is null everywhere is none."""
    everywhere: dict[str, None] = {}
    for reader in readers:
        everywhere.update(dict.fromkeys(reader.source.names()))
    if group_column is not None:
        if group_column not in everywhere:
            where = part.sources[0].label
            raise DataError(f"group column {group_column!r} is not in {where}{nearest(group_column, everywhere)}")
        return group_column
    rows = [row for reader in readers for _, row in reader.source.rows]
    return next(
        (name for name in part.group_names if name in everywhere and not all(is_null(row.get(name)) for row in rows)),
        None,
    )


def _check_columns(label: str, names: Sequence[str], needs: tuple[str, ...]) -> None:
    for need in needs:
        if need not in names:
            hint = _misspelt_hint(names, need) or nearest(need, names)
            if need in ("chosen", "rejected"):
                hint = _misspelt_hint(names, need)
            raise DataError(f"{label} has no column {need!r}; its columns are {listed(names, most=20)}{hint}")


def _misspelt_hint(names: Sequence[str], need: str) -> str:
    near = misspelt(names).get(need)
    return "" if near is None else f"; rename {shown(near)} to {need!r}"


def _unknown(label: str, names: Sequence[str]) -> str:
    """Why columns of no known layout are not read, and what to write."""
    missing = next((need for need in ("chosen", "rejected") if need not in names), "prompt")
    says_ = f"{label} has no column {missing!r}; its columns are {listed(names, most=20)}"
    if "answer_matching_behavior" in names:
        return f"{says_}; this looks like Persona data: give it as persona:PATH"
    if hint := _misspelt_hint(names, missing):
        return says_ + hint
    mapping = suggest(names)
    if mapping is not None:
        return f"{says_}; say which is which, such as --columns {_shell(mapping)}"
    one = holds_one_response(names)
    if one is not None:
        fix = "" if ":" in one else ": give data with two responses to a prompt"
        return f"{says_}; these look like {one}{fix}"
    return (
        f"{says_}; say which is which with --columns prompt=FIELD,chosen=FIELD,rejected=FIELD, or "
        "prompt=FIELD,first=FIELD,second=FIELD,winner=FIELD, or prompt=FIELD,responses=FIELD,ratings=FIELD"
    )


def _untold(label: str, export: Export) -> str:
    """Why an export of an annotation tool is not read, and what to write."""
    says_ = f"{label} is an export of {export.tool}"
    if export.suggests is None:
        return f"{says_} in which nobody answered, and no model proposed anything; export it again with the answers"
    return (
        f"{says_}, which does not tell which texts were compared; say which is which, such as "
        f"--columns {_shell(export.suggests)}"
    )


def _no_prompt(label: str, names: Sequence[str], blank: int, pairs: int) -> str:
    others = [name for name in names if name not in ("chosen", "rejected")]
    held = f" (there are {listed(others)})" if others else ""
    return (
        f"{label} has no column 'prompt', and in {blank:,} of {pairs:,} pairs chosen and rejected share no beginning, "
        f"so that the prompt would be empty; name its column{held} with --columns prompt=FIELD,chosen=chosen,"
        "rejected=rejected, or say --columns chosen=chosen,rejected=rejected if there is none"
    )


def _shell(mapping: str) -> str:
    """A mapping as a shell takes it."""
    import shlex

    return shlex.quote(mapping)
