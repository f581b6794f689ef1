"""PreferenceDataset: preference pairs in groups, held in one Arrow table."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of pyarrow.compute at import, where a type checker does not see them)

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from prefdyn._checks import at_least, nearest
from prefdyn._random import stream
from prefdyn._shape import listed
from prefdyn.data.clusters import Clusters
from prefdyn.data.codes import encode, factors
from prefdyn.data.split import held_out_mask
from prefdyn.errors import ConfigError, DataError
from prefdyn.provenance import content_hash

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("weight", pa.float64()),
        ("cluster", pa.string()),
        ("agreement", pa.float64()),
        ("slot", pa.int8()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("line", pa.int64()),
        ("conversation", pa.string()),
    ]
)
"""`id` is unique. `split`: "train" or "held_out". `line`: line or row of `source`, from 1. `conversation`: what a
chat template reads of a conversational pair, as JSON (see `prefdyn.data.conversation`), null for plain text; its
prompt, chosen and rejected hold a rendering for people and for word counts."""

MAY_BE_NULL = frozenset({"cluster", "agreement", "slot", "conversation"})
"""`cluster`: what the data say that a pair belongs to, such as the row that it came from with others. `agreement`:
share of the votes for the chosen response, where several people voted. `slot`: 1 where the chosen response stood first,
2 where second. Each is null where nothing is known of it."""
TRAIN, HELD_OUT = "train", "held_out"
Conversation = dict[str, Any]
"""`prompt`, `chosen`, `rejected`: lists of messages; `tools` and `chat_template_kwargs` where there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row that could not be used, and why."""

    source: str
    line: int | None
    """Line or row in the source, from 1."""
    field: str | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dictionary."""
        return {"source": self.source, "line": self.line, "field": self.field, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """How the rows of one part of the data became pairs: what nobody would see in the pairs themselves."""

    source: str
    layout: str | None = None
    """The known layout, or `--columns`; None for TRL's own columns."""
    columns: str | None = None
    """The mapping, as `--columns` takes it."""
    pairs: int = 0
    ties: int = 0
    """Pairs left out because neither response was better."""
    divided: int = 0
    """Pairs that were decided by most votes, but not by all."""
    shared_best: int = 0
    """Rows with several best or worst responses, of which the first was taken."""
    repeated_ids: int = 0
    """Pairs whose id another pair had, and that got one of their own."""
    scores_equal: int = 0
    """Pairs whose chosen and rejected response have the same score."""
    scores_against: int = 0
    """Pairs whose rejected response has the higher score."""
    notes: tuple[str, ...] = ()
    """Anything else, in sentences."""

    def to_json(self) -> dict[str, Any]:
        """The same as a plain dictionary."""
        return {**asdict(self), "notes": list(self.notes)}


@dataclass(frozen=True, kw_only=True)
class PreferenceDataset:
    """Pairs of a chosen and a rejected response to a prompt, in named groups. Every method returns a new dataset."""

    table: pa.Table
    name: str
    left_out: tuple[LeftOut, ...] = ()
    readings: tuple[Intake, ...] = ()

    def __post_init__(self) -> None:
        if self.table.schema != SCHEMA:
            raise DataError(
                f"a preference dataset needs the columns {SCHEMA.names} with their types, but got "
                f"{self.table.schema.names}; build it with load_dataset or PreferenceDataset.from_rows"
            )
        for column in SCHEMA.names:
            if column not in MAY_BE_NULL and self.table[column].null_count:
                raise DataError(f"column {column!r} of dataset {self.name!r} holds null; give every pair a value")
        if pc.count_distinct(self.table["id"]).as_py() != len(self):
            counts = pc.value_counts(self.table["id"]).to_pylist()
            twice = next(item["values"] for item in counts if item["counts"] > 1)
            raise DataError(f"id {twice!r} occurs more than once in dataset {self.name!r}; ids must be unique")

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return f"PreferenceDataset({self.name!r}, {len(self)} pairs, {len(self.groups)} groups)"

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], *, name: str = "rows") -> "PreferenceDataset":
        """A dataset from rows that already have the column names of `SCHEMA`; for any other form use `load_dataset`.

        Args:
            rows: `prompt`, `chosen` and `rejected` as text; `group` ("all"), `id` (name:row), `weight` (1), `cluster`,
                `agreement`, `slot` (none), `split` ("train"), `source` (name), `line` (row, from 1) and `conversation`
                (none; a dictionary of messages) where they differ from the default in brackets.
            name: Name of the dataset.

        Raises:
            DataError: A column is unknown or missing, a value has the wrong type, or ids repeat.

        Example:
            >>> PreferenceDataset.from_rows([{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}])
            PreferenceDataset('rows', 1 pairs, 1 groups)
        """
        columns: dict[str, list[Any]] = {column: [] for column in SCHEMA.names}
        for line, row in enumerate(rows, start=1):
            for key in row:
                if key not in columns:
                    raise DataError(f"row {line} of {name!r} has an unknown column {key!r}{nearest(key, SCHEMA.names)}")
            default = {
                "group": "all",
                "id": f"{name}:{line}",
                "weight": 1.0,
                "split": TRAIN,
                "source": name,
                "line": line,
            }
            for column, values in columns.items():
                value = row.get(column)
                if value is None and column in {"prompt", "chosen", "rejected"}:
                    raise DataError(
                        f"row {line} of {name!r} has no {column!r}; give prompt, chosen and rejected as text"
                    )
                values.append(default.get(column) if value is None else value)
        return cls(table=table_from_columns(columns), name=name)

    @classmethod
    def concat(cls, parts: Sequence["PreferenceDataset"], *, name: str | None = None) -> "PreferenceDataset":
        """One dataset from several, in order. Ids must be unique over all of them.

        Raises:
            DataError: There are no parts, or an id occurs in two of them.
        """
        if not parts:
            raise DataError("concat was given no datasets; give at least one")
        return cls(
            table=pa.concat_tables([part.table for part in parts]),
            name=name or "+".join(part.name for part in parts),
            left_out=tuple(item for part in parts for item in part.left_out),
            readings=tuple(item for part in parts for item in part.readings),
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """All pairs as dictionaries, in order, with every column of `SCHEMA`; conversations as dictionaries."""
        rows = self.table.to_pylist()
        for row, talk in zip(rows, self.conversations, strict=True):
            row["conversation"] = talk
        return rows

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Group names in order of first appearance."""
        return tuple(pc.unique(self.table["group"]).to_pylist())

    @property
    def splits(self) -> tuple[str, ...]:
        """Which of "train" and "held_out" occur, in order of first appearance."""
        return tuple(pc.unique(self.table["split"]).to_pylist())

    @property
    def conversational(self) -> int:
        """How many pairs are conversations."""
        return len(self) - self.table["conversation"].null_count

    @cached_property
    def clusters(self) -> Clusters:
        """Which pairs hang together: by prompt, by near duplicates of prompts, and by what the data name."""
        return Clusters.find(self.table)

    @cached_property
    def conversations(self) -> tuple[Conversation | None, ...]:
        """What a chat template reads of each pair; None where it is plain text. Not to be changed."""
        return tuple(None if text is None else json.loads(text) for text in self.table["conversation"].to_pylist())

    def with_conversations(self, talks: Iterable[Conversation | None]) -> "PreferenceDataset":
        """The same pairs with other conversations, one for each."""
        return self._with("conversation", pa.array(_as_json(talks), pa.string()))

    @cached_property
    def sha256(self) -> str:
        """Hash of ids, groups, texts, conversations, weights and named clusters, in order. Of nothing else."""
        parts: list[bytes] = []
        for column in ("id", "group", "prompt", "chosen", "rejected"):
            raw = [text.encode() for text in self.table[column].to_pylist()]
            parts += [np.fromiter(map(len, raw), "<i8", len(raw)).tobytes(), b"".join(raw)]
        parts.append(np.asarray(self.table["weight"], dtype="<f8").tobytes())
        if self.conversational:
            parts.append(repr(list(self.conversations)).encode())
        if self.table["cluster"].null_count < len(self):
            parts.append(repr(self.table["cluster"].to_pylist()).encode())
        return content_hash(parts)

    def split(self, fraction: float = 0.9, *, seed: int = 0) -> "PreferenceDataset":
        """Mark the share `1 - fraction` of every group as held out; a cluster of pairs stays on one side everywhere.

        See `prefdyn.data.split.held_out_mask` for small groups and for clusters that several groups share.

        Raises:
            ConfigError: The fraction is out of range.
            DataError: Nothing can be held out.
        """
        group, names = encode(self.table["group"])
        held = held_out_mask(np.array(names, dtype=object)[group], self.clusters.of, fraction, seed)
        return self._with("split", pa.array(np.where(held, HELD_OUT, TRAIN).tolist(), pa.string()))

    def with_held_out(self, fraction: float = 0.9, *, seed: int = 0) -> "PreferenceDataset":
        """The dataset's own split where it came with one, else `split(fraction, seed=seed)`."""
        return self if HELD_OUT in self.splits else self.split(fraction, seed=seed)

    def select(
        self,
        groups: Iterable[str] | None = None,
        *,
        mask: Sequence[bool] | np.ndarray | None = None,
        ids: Iterable[str] | None = None,
    ) -> "PreferenceDataset":
        """The pairs that meet every condition given, in their order.

        Raises:
            DataError: A group or id is unknown (names the nearest), or the mask has another length.
        """
        table = self.table
        keep = np.ones(len(self), dtype=bool)
        if groups is not None:
            wanted = [groups] if isinstance(groups, str) else list(groups)
            for name in wanted:
                if name not in self.groups:
                    raise DataError(f"group {name!r} is not in dataset {self.name!r}{nearest(name, self.groups)}")
            keep &= np.asarray(pc.is_in(table["group"], pa.array(wanted, pa.string())))
        if mask is not None:
            if len(mask) != len(self):
                raise DataError(f"the mask has {len(mask)} values for {len(self)} pairs; give one per pair")
            keep &= np.asarray(mask, dtype=bool)
        if ids is not None:
            asked = [str(name) for name in ids]
            found = np.asarray(pc.is_in(table["id"], pa.array(asked, pa.string())))
            if int(found.sum()) != len(set(asked)):
                known = set(table["id"].to_pylist())
                lost = next(name for name in asked if name not in known)
                raise DataError(f"id {lost!r} is not in dataset {self.name!r}; ids look like {next(iter(known), '')!r}")
            keep &= found
        return replace(self, table=table.filter(pa.array(keep)))

    def sample(self, per_group: int, *, seed: int = 0) -> "PreferenceDataset":
        """At most `per_group` pairs of every group, drawn by the seed without replacement, in their order.

        The draw of a group depends on the seed, its name and its own pairs alone.

        Raises:
            ConfigError: `per_group` is not a whole number of at least 1.
        """
        per_group = at_least(per_group, 1, name="limit (pairs per group)")
        keep = np.zeros(len(self), dtype=bool)
        for name, rows in self._members():
            chosen = rows if len(rows) <= per_group else stream(seed, "sample", name).permutation(rows)[:per_group]
            keep[chosen] = True
        return replace(self, table=self.table.filter(pa.array(keep)))

    def weighted(self, groups: Mapping[str, float]) -> "PreferenceDataset":
        """The same pairs, the weights of these groups multiplied by a factor each.

        Raises:
            DataError: A group is unknown.
            ConfigError: A factor is not above 0.
        """
        group, names = encode(self.table["group"])
        return self._with("weight", pa.array(factors(names, groups)[group] * np.asarray(self.table["weight"])))

    def reweighted(self, by: Float[np.ndarray, " n"]) -> "PreferenceDataset":
        """The same pairs, the weight of each multiplied by a number above 0."""
        return self._with("weight", pa.array(np.asarray(by, dtype=np.float64) * np.asarray(self.table["weight"])))

    def flipped(
        self, groups: Iterable[str] | None = None, *, rows: Bool[np.ndarray, " n"] | None = None
    ) -> "PreferenceDataset":
        """Chosen and rejected swapped: everywhere, in these groups, or in the pairs that `rows` marks.

        Raises:
            DataError: A group is unknown.
        """
        if groups is None:
            return self._swap(np.ones(len(self), dtype=bool) if rows is None else np.asarray(rows, dtype=bool))
        ids = self.select(groups).table["id"]
        return self._swap(np.asarray(pc.is_in(self.table["id"], ids.combine_chunks())))

    def with_noise(self, rate: float, *, seed: int = 0) -> "PreferenceDataset":
        """Chosen and rejected swapped in `round(rate * pairs)` pairs of every group, drawn by the seed.

        Raises:
            ConfigError: The rate is not from 0 to 1.
        """
        if not 0 <= rate <= 1:
            raise ConfigError(f"noise rate is {rate!r}, but must be from 0 to 1")
        swap = np.zeros(len(self), dtype=bool)
        for name, rows in self._members():
            swap[stream(seed, "noise", name).permutation(rows)[: int(rate * len(rows) + 0.5)]] = True
        return self._swap(swap)

    def _members(self) -> list[tuple[str, np.ndarray]]:
        code, names = encode(self.table["group"])
        order = np.argsort(code, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(code, minlength=len(names)))[:-1])
        return list(zip(names, parts, strict=True)) if names else []

    def _swap(self, mask: np.ndarray) -> "PreferenceDataset":
        swap = pa.array(mask)
        chosen, rejected = self.table["chosen"], self.table["rejected"]
        data = self._with("chosen", pc.if_else(swap, rejected, chosen))
        data = data._with("rejected", pc.if_else(swap, chosen, rejected))
        slot = self.table["slot"]
        if slot.null_count < len(self):
            other = pc.cast(pc.subtract(pa.scalar(3, pa.int8()), slot), pa.int8())
            data = data._with("slot", pc.if_else(swap, other, slot))
        if not self.conversational:
            return data
        return data.with_conversations(
            talk if talk is None or not turn else {**talk, "chosen": talk["rejected"], "rejected": talk["chosen"]}
            for talk, turn in zip(self.conversations, mask.tolist(), strict=True)
        )

    def _with(self, column: str, values: pa.Array | pa.ChunkedArray) -> "PreferenceDataset":
        index = SCHEMA.get_field_index(column)
        made = replace(self, table=self.table.set_column(index, SCHEMA.field(index), values))
        if "clusters" in self.__dict__ and column not in ("prompt", "cluster"):
            made.__dict__["clusters"] = self.clusters  # found once: it takes a while
        return made


def table_from_columns(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """An Arrow table with `SCHEMA` from one list per column, of `conversation` a list of dictionaries and None.

    Raises:
        DataError: A value has the wrong type for its column.
    """
    arrays = []
    for column in SCHEMA:
        values = columns[column.name]
        try:
            if column.name == "conversation":
                values = _as_json(values)
            arrays.append(pa.array(values, column.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
            raise DataError(
                f"column {column.name!r} must hold {column.type}: {' '.join(str(error).split())}"
            ) from error
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _as_json(talks: Iterable[Conversation | None]) -> list[str | None]:
    """Each conversation as it is held.

    Raises:
        DataError: One is no dictionary of prompt, chosen and rejected messages.
    """
    found: list[str | None] = []
    for talk in talks:
        if talk is not None and not all(
            isinstance(talk.get(side), list) and all(isinstance(message, dict) for message in talk[side])
            for side in ("prompt", "chosen", "rejected")
        ):
            raise DataError(
                "column 'conversation' must hold prompt, chosen and rejected, each a list of messages, but one holds "
                f"{listed(talk)}"
            )
        found.append(None if talk is None else json.dumps(talk, ensure_ascii=False))
    return found
