"""From a row as people have it to rows as TRL reads them, by a mapping: one function for every layout."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prefdyn.data import forms
from prefdyn.data.bad_rows import BadRow, kind, shown
from prefdyn.data.columns import MISSING, ROLES, Columns, Field, Fields, Rows, lookup
from prefdyn.data.readers import RowSource
from prefdyn.data.votes import FIRST, SECOND, TIE, Reader, Vote, majority, number, reader

_CARRIED = ("id", "weight", "split", "cluster", "tools")
"""Roles that become columns of the same name as they are."""


class Drawn(NamedTuple):
    """One pair out of a row."""

    row: Mapping[str, Any]
    """As TRL reads it."""
    slot: int | None = None
    """1 where the chosen response stood first of the two, 2 where second; None where they had no places."""
    agreement: float | None = None
    """Share of the votes for the chosen response; None where nobody voted twice."""
    part: str = ""
    """Which of the row's pairs it is; empty where it is the only one."""


class Place(NamedTuple):
    """A response and where it stood."""

    name: str
    value: Any


@dataclass(kw_only=True)
class Mapper:
    """A mapping at work on one source."""

    given: Columns
    source: RowSource
    counts: Counter[str] = field(default_factory=Counter)
    """What was met, by the names of `Intake`."""

    def __post_init__(self) -> None:
        self._special = any(each.column.startswith("@") for role in ROLES for each in getattr(self.given, role))
        self._reader = self._winners() if self.given.winner or self.given.comparisons else None

    def pairs(self, line: int, row: Mapping[str, Any]) -> list[Drawn | BadRow]:
        """The pairs of one row, and why one that has no texts cannot be read; ties are counted and left out.

        Raises:
            BadRow: A field is missing or holds something else than its role says.
        """
        items = list(self._items(line, row))
        drawn = [(key, found) for key, item in items for found in self._of_item(item)]
        if len(drawn) == 1 and len(items) == 1:
            return [_as_part(drawn[0][1], "")]
        outer = len(items) > 1
        return [_as_part(one, *([key] if outer else []), getattr(one, "part", "")) for key, one in drawn]

    # rows inside the row ----------------------------------------------------------------------------------------------

    def _items(self, line: int, row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The row itself, or the items of its `each`, each with the outer fields beside its own."""
        if self._special:
            row = {**row, "@file": self.source.stem, "@folder": self.source.folder or "", "@line": str(line)}
        if not self.given.each:
            yield "", row
            return
        held = self._value(row, _lead(self.given.each), "each")
        if isinstance(held, Mapping):
            items: Iterable[tuple[Any, Any]] = held.items()
        elif isinstance(held, (list, tuple)):
            items = enumerate(held, start=1)
        else:
            raise BadRow(_lead(self.given.each).name, f"is {kind(held)} ({shown(held)}), but must hold rows")
        for key, item in items:
            inner = item if isinstance(item, Mapping) else {"value": item}
            yield str(key), {**row, **inner, "@key": str(key)}

    def _of_item(self, row: Mapping[str, Any]) -> Iterator[Drawn | BadRow]:
        given = self.given
        if given.chosen:
            yield from self._one_against_several(row)
        elif given.winner:
            places = [Place(str(role[0]), self._one(row, role, name)) for role, name in _slots(given)]
            votes = _flat([self._value(row, each, "winner") for each in given.winner])
            yield from self._judged(row, places, (0, 1), [self._vote(each) for each in votes], "")
        else:
            places = self._responses(row)
            yield from self._compared(row, places) if given.comparisons else self._rated(row, places)

    def _one_against_several(self, row: Mapping[str, Any]) -> Iterator[Drawn | BadRow]:
        sides = []
        for role in ("chosen", "rejected"):
            found = []
            for each in getattr(self.given, role):
                value = forms.unwrapped(self._value(row, each, role), each.name)
                found += (
                    list(value) if forms.is_list_of_texts(value) else [] if value is None or value == [] else [value]
                )
            if not found:
                raise BadRow(getattr(self.given, role)[0].name, "holds no response; give text")
            sides.append(found if self.given.pairs != "best" else found[:1])
        several = len(sides[0]) * len(sides[1]) > 1
        for number_, (chosen, rejected) in enumerate(itertools.product(*sides), start=1):
            yield self._drawn(row, chosen, rejected, part=str(number_) if several else "")

    # several responses ------------------------------------------------------------------------------------------------

    def _responses(self, row: Mapping[str, Any]) -> list[Place]:
        given, found = self.given.responses, []
        for each in given:
            value = self._value(row, each, "responses")
            if len(given) > 1:
                found.append(Place(each.column, value))
                continue
            value = forms.unwrapped(value, each.name)
            if not isinstance(value, (list, tuple)):
                raise BadRow(each.name, f"is {kind(value)} ({shown(value)}), but must be a list of responses")
            if any(item is MISSING for item in value):
                raise BadRow(each.name, "is missing in an item of the list")
            found += [Place(str(at), item) for at, item in enumerate(value, start=1)]
        if len(found) < 2:
            raise BadRow(_lead(given).name, f"holds {len(found)} responses, but a preference needs two")
        return found

    def _compared(self, row: Mapping[str, Any], places: Sequence[Place]) -> Iterator[Drawn | BadRow]:
        every = list(itertools.combinations(range(len(places)), 2))
        given = self.given.comparisons
        held = _flat([self._value(row, each, "comparisons") for each in given])
        if len(held) != len(every):
            raise BadRow(
                _lead(given).name,
                f"holds {len(held)} comparisons, but {len(places)} responses make {len(every)}: 1 with 2, 1 with 3, …",
            )
        for pair, value in zip(every, held, strict=True):
            yield from self._judged(row, places, pair, [self._vote(value)], f"{pair[0] + 1}v{pair[1] + 1}")

    def _rated(self, row: Mapping[str, Any], places: Sequence[Place]) -> Iterator[Drawn | BadRow]:
        """Pairs by ratings (higher is better) or ranks (lower is better), of one person or of several."""
        role = "ratings" if self.given.ratings else "ranking"
        given: Fields = getattr(self.given, role)
        held = [self._value(row, each, role) for each in given]
        values = held if len(given) > 1 else forms.unwrapped(held[0], _lead(given).name)
        if not isinstance(values, (list, tuple)) or len(values) != len(places):
            count = len(values) if isinstance(values, (list, tuple)) else kind(values)
            raise BadRow(_lead(given).name, f"holds {count} values for {len(places)} responses; give one for each")
        sign = 1.0 if role == "ratings" else -1.0
        by_place = [self._numbers(value, given[min(at, len(given) - 1)].name, sign) for at, value in enumerate(values)]
        raters = max(map(len, by_place))
        if any(len(each) not in (0, raters) for each in by_place):
            raise BadRow(
                _lead(given).name, "holds different numbers of votes for the responses; give one of each person"
            )
        kept = [at for at, each in enumerate(by_place) if any(one is not None for one in each)]
        if len(kept) < 2:
            beside = _keys_beside(row, _lead(given)) if not kept else ""
            raise BadRow(_lead(given).name, f"rates {len(kept)} of the responses, but a preference needs two{beside}")
        every = list(itertools.combinations(kept, 2))
        if self.given.pairs != "all":
            every = [self._extremes(by_place, kept)]
        for first, second in every:
            ratings = zip(by_place[first], by_place[second], strict=True)
            votes = [None if None in two else _better(two[0], two[1]) for two in ratings]
            part = f"{first + 1}v{second + 1}" if len(every) > 1 else ""
            yield from self._judged(row, places, (first, second), votes, part)

    def _numbers(self, value: Any, name: str, sign: float) -> list[float | None]:
        every = value if isinstance(value, (list, tuple)) else [value]
        return [
            None if each is MISSING or kind(each) == "null" or each in ("", "N/A") else sign * number(each, name)
            for each in every
        ]

    def _extremes(self, by_place: Sequence[Sequence[float | None]], kept: Sequence[int]) -> tuple[int, int]:
        means = {}
        for at in kept:
            rated = [each for each in by_place[at] if each is not None]
            means[at] = sum(rated) / len(rated)
        best = max(kept, key=lambda at: means[at])
        worst = min(kept, key=lambda at: means[at])
        if best == worst:
            best, worst = kept[0], kept[1]
        elif sum(means[at] in (means[best], means[worst]) for at in kept) > 2:
            self.counts["shared_best"] += 1
        return min(best, worst), max(best, worst)

    # one pair ---------------------------------------------------------------------------------------------------------

    def _judged(
        self,
        row: Mapping[str, Any],
        places: Sequence[Place],
        pair: tuple[int, int],
        votes: Sequence[Vote],
        part: str,
    ) -> Iterator[Drawn | BadRow]:
        """One pair by what most of the votes say, or one for every vote."""
        apart = self.given.votes == "each"
        name = next(iter((*self.given.winner, *self.given.comparisons, *self.given.ratings, *self.given.ranking))).name
        names = self._raters(row, len(votes)) if apart or self.given.raters else []
        rounds = [([vote], who) for vote, who in zip(votes, names, strict=True)] if apart else [(votes, None)]
        for cast, who in rounds:
            if apart and cast == [None]:
                continue
            verdict = majority(cast, name)
            if verdict.winner == TIE:
                self.counts["ties"] += 1
                continue
            first, second = places[pair[0]], places[pair[1]]
            won, lost = (first, second) if verdict.winner == FIRST else (second, first)
            scope = dict(row)
            if self._special:
                scope |= {"@pair": f"{first.name} or {second.name}", "@votes": verdict.share}
                if who is not None:
                    scope["@rater"] = who
            yield self._drawn(
                scope,
                won.value,
                lost.value,
                part="/".join(each for each in (part, who or "") if each),
                slot=FIRST if verdict.winner == FIRST else SECOND,
                agreement=verdict.share if verdict.votes > 1 else None,
            )

    def _raters(self, row: Mapping[str, Any], votes: int) -> list[str]:
        if not self.given.raters:
            fields_ = self.given.winner
            return [each.name for each in fields_] if len(fields_) == votes else [str(at + 1) for at in range(votes)]
        held = _flat([self._value(row, each, "raters") for each in self.given.raters])
        if len(held) != votes:
            raise BadRow(
                _lead(self.given.raters).name, f"names {len(held)} raters for {votes} votes; give one for each"
            )
        return [str(each) for each in held]

    def _drawn(
        self,
        row: Mapping[str, Any],
        chosen: Any,
        rejected: Any,
        *,
        part: str = "",
        slot: int | None = None,
        agreement: float | None = None,
    ) -> Drawn | BadRow:
        """One pair, or why its texts make none: others of the same row may still do."""
        try:
            return Drawn(self._made(row, chosen, rejected), slot, agreement, part)
        except BadRow as bad:
            return bad

    def _made(self, row: Mapping[str, Any], chosen: Any, rejected: Any) -> Mapping[str, Any]:
        """The row of a pair as TRL reads it, with what else the source's row holds."""
        sides = [
            forms.side(value, name, speaker="assistant") for value, name in ((chosen, "chosen"), (rejected, "rejected"))
        ]
        told = [(each.name, self._value(row, each, "history")) for each in self.given.history]
        history = [turn for name, value in told if value is not MISSING for turn in forms.turns(value, name)]
        made = forms.pair(self._prompt(row), self._system(row), history, *sides)
        used = self.given.read
        beside = {name: value for name, value in row.items() if name not in used and name[:1] != "@"}
        for role in ("prompt", "chosen", "rejected"):
            beside.pop(role, None)
        for role in _CARRIED:
            if found := getattr(self.given, role):
                made[role] = self._value(row, _lead(found), role)
        if self.given.group:
            made["group"] = self._group(row)
        return {**beside, **{key: value for key, value in made.items() if value is not MISSING}}

    def _prompt(self, row: Mapping[str, Any]) -> forms.Side | None:
        parts = []
        for each in self.given.prompt:
            value = self._value(row, each, "prompt")
            if each.optional and (value is MISSING or kind(value) == "null"):
                continue
            if isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            parts.append(forms.side(value, each.name, speaker="user"))
        if not parts:
            return None
        if all(isinstance(part, str) for part in parts):
            return "\n".join(part for part in parts if isinstance(part, str) and part.strip())
        return [
            message
            for part in parts
            if part
            for message in ([{"role": "user", "content": part}] if isinstance(part, str) else part)
        ]

    def _system(self, row: Mapping[str, Any]) -> str:
        texts = []
        for each in self.given.system:
            value = self._value(row, each, "system")
            if value is MISSING or kind(value) == "null":
                continue
            if not isinstance(value, str):
                raise BadRow(each.name, f"is {kind(value)} ({shown(value)}), but must be text")
            texts.append(value)
        return "\n".join(text for text in texts if text.strip())

    def _group(self, row: Mapping[str, Any]) -> Any:
        values = [self._value(row, each, "group") for each in self.given.group]
        values = [value for value in values if value is not MISSING]
        return MISSING if not values else values[0] if len(values) == 1 else "/".join(map(str, values))

    # values -----------------------------------------------------------------------------------------------------------

    def _value(self, row: Mapping[str, Any], each: Field, role: str) -> Any:
        value = lookup(row, each)
        if value is MISSING and not each.optional:
            raise BadRow(
                each.name, f"is missing, but is the {role}; the fields are {', '.join(map(shown, list(row)[:20]))}"
            )
        return value

    def _one(self, row: Mapping[str, Any], role: Fields, name: str) -> Any:
        if len(role) > 1:
            raise BadRow(None, f"{name} names {len(role)} fields, but is one response; use responses= for more")
        return self._value(row, _lead(role), name)

    def _vote(self, value: Any) -> Vote:
        assert self._reader is not None
        return self._reader(value)

    def _winners(self) -> Reader:
        given = self.given
        asked = [*given.winner, *given.comparisons]
        name = asked[0].name
        places = [str(role[0].steps[-1]) for role, _ in _slots(given)] if given.winner else ["1", "2"]
        return reader(
            self._all_winners(asked) if given.values is None else (),
            first=places[0],
            second=places[1],
            asked=given.values,
            label=self.source.label,
            field=name,
        )

    def _all_winners(self, asked: Sequence[Field]) -> Iterator[Any]:
        for line, row in self.source.rows:
            try:
                for _, item in self._items(line, row):
                    yield from _flat([lookup(item, each) for each in asked])
            except BadRow:
                continue  # told when its pairs are drawn


def _slots(given: Columns) -> list[tuple[Fields, str]]:
    return [(given.first, "first"), (given.second, "second")]


def _as_part(one: Drawn | BadRow, *names: str) -> Drawn | BadRow:
    return one if isinstance(one, BadRow) else one._replace(part="/".join(name for name in names if name))


def _lead(given: Sequence[Field]) -> Field:
    return given[0]


def _flat(values: Iterable[Any]) -> list[Any]:
    """Values of several fields, lists among them opened."""
    found: list[Any] = []
    for value in values:
        found += _flat(value) if isinstance(value, (list, tuple)) else [value]
    return found


def _better(first: float | None, second: float | None) -> Vote:
    if first is None or second is None:
        return None
    return TIE if first == second else FIRST if first > second else SECOND


def _keys_beside(row: Mapping[str, Any], field: Field) -> str:
    """What stands where a nested field is not, in words."""
    *outer, last = field.steps
    around = lookup(row, Field(".".join(outer), tuple(outer))) if outer else MISSING
    held = next((each for each in around if isinstance(each, Mapping)), {}) if isinstance(around, (list, tuple)) else {}
    if not held or last in held:
        return ""
    return f"; there is no {shown(last)}, only {', '.join(map(shown, held))}: name the rating with --columns"


def by_function(rows: Rows, row: Mapping[str, Any]) -> list[Drawn]:
    """The pairs that a function makes of a row.

    Raises:
        BadRow: It returned something else than a row, a list of rows, or None, or failed; says how.
    """
    try:
        made = rows(row)
    except Exception as error:  # somebody else's code: whatever it raises is about this row
        why = " ".join(str(error).split()) or "no message"
        raise BadRow(None, f"the function of columns= failed with {type(error).__name__}: {why}") from error
    found = (
        []
        if made is None
        else [made]
        if isinstance(made, Mapping)
        else list(made)
        if isinstance(made, Iterable)
        else [made]
    )
    for each in found:
        if not isinstance(each, Mapping):
            raise BadRow(None, f"the function of columns= returned {kind(each)} ({shown(each)}), but must return rows")
    return [Drawn(each, part=str(at) if len(found) > 1 else "") for at, each in enumerate(found, start=1)]
