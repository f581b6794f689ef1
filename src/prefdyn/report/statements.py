"""What the theorems say here: one line per statement, over all groups it was checked on (`bounds` of summary.json)."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefdyn._json import number
from prefdyn._shape import of_many
from prefdyn.report.tables import shown
from prefdyn.report.text import cells, cut, padded, sentence, visible, wrapped

STANDINGS: dict[str, str] = {
    "broken": "is false here",
    "informative": "applies",
    "empty": "says nothing",
    "outside": "does not apply",
}
"""How a statement can stand, in the order in which a reader needs it, and the word for it."""

_STEPS = re.compile(r" after (\d+) steps?")
_NAMED = 3
"""How many groups a sentence names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionCount:
    """One condition of a statement over the groups it was measured on."""

    says: str
    holds: int
    fails: int
    measured: Any
    """Where the statement speaks of one thing: what was measured. Otherwise the worst that a group shows."""
    limit: Any

    @property
    def word(self) -> str:
        """`holds`, `fails`, `fails in 3 of 8` or `taken` (nothing in the data can tell)."""
        of = self.holds + self.fails
        if of == 0:
            return "taken"
        if self.fails == 0:
            return "holds"
        return "fails" if self.holds == 0 else f"fails in {self.fails} of {of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement of a paper as it stands for this run: for the dataset, or over all groups."""

    name: str
    """Paper and number."""
    form: str
    quantity: str
    standing: str
    """The best standing it has anywhere: a key of `STANDINGS`."""
    sentence: str
    note: str
    parts: tuple[Mapping[str, Any], ...]
    """The entries of `bounds` it was made from."""
    conditions: tuple[ConditionCount, ...]

    @property
    def title(self) -> str:
        """Name and form, such as `2403.18742, Theorem 4.1 (repaired)`."""
        return self.name if self.form == "published" else f"{self.name} ({self.form})"


def statements(bounds: Sequence[Mapping[str, Any]]) -> list[Statement]:
    """One Statement per theorem and form, what says something first, each with one sentence for the reader.

    Args:
        bounds: As in summary.json.

    Example:
        >>> common = {"statement": "T", "form": "published", "quantity": "q", "direction": "at most"}
        >>> one = {**common, "group": "a", "standing": "empty", "meaning": "true but says nothing"}
        >>> statements([one])[0].sentence
        'True but says nothing.'
        >>> two = {**one, "group": "b", "standing": "informative", "value": 3.0, "measured": 2.0, "looseness": 1.5}
        >>> statements([one, two])[0].sentence
        'Applies in 1 of 2 groups (at most 3, measured 2, 1.5 times apart); true but says nothing in 1 of 2.'
    """
    grouped: dict[tuple[str, str, str, bool], list[Mapping[str, Any]]] = {}
    for row in bounds:
        words = [str(row.get(key, "")) for key in ("statement", "form", "direction")]
        grouped.setdefault((words[0], words[1], words[2], row.get("group") is None), []).append(row)
    order = list(STANDINGS)
    found = []
    for (name, form, direction, _), rows in grouped.items():
        quantities = {str(row.get("quantity", "")) for row in rows}
        quantity = min(quantities) if len(quantities) == 1 else _over_steps(quantities)
        standing = min((str(row.get("standing")) for row in rows), key=lambda word: _place(order, word))
        told = visible(rows[0].get("meaning", "")) if len(rows) == 1 else _over_groups(rows)
        if direction == "equal to":
            told = f"an identity: {told}"
        if rows[0].get("group") is not None:
            quantity += (
                ", each group trained alone" if len(rows) > 1 else f", {visible(rows[0]['group'])} trained alone"
            )
        found.append(
            Statement(
                name=visible(name),
                form=visible(form),
                quantity=visible(quantity),
                standing=standing,
                sentence=sentence(told),
                note=visible(rows[0]["note"]) if rows[0].get("note") else "",
                parts=tuple(rows),
                conditions=_conditions(rows),
            )
        )
    return sorted(found, key=lambda item: _place(order, item.standing))


def statement_table(summary: Mapping[str, Any], *, width: int = 110, each: bool = False) -> str:
    """The statements as plain text: standing, name, and the sentence below it, what says something first.

    Args:
        summary: The content of summary.json.
        width: Columns to fit into, at least 80.
        each: Also one line per group below each statement that was checked per group.

    Returns:
        Lines joined by newlines, the counts last.
    """
    width = max(width, 80)
    found = statements(summary.get("bounds") or [])
    if not found:
        return "No statements."
    size = max(len(word) for word in STANDINGS.values())
    lines = []
    for item in found:
        lines.append(f"{STANDINGS.get(item.standing, item.standing):<{size}}  {item.title}: {item.quantity}")
        lines += [" " * (size + 2) + part for part in wrapped(item.sentence, width - size - 2)]
        if each and len(item.parts) > 1:
            lines += _per_group(item, size + 4, width)
    covered = guarantee(found)
    return "\n".join([*lines, "", *(wrapped(covered, width) if covered else []), counted(found)])


def guarantee(found: Sequence[Statement]) -> str:
    """Which published statement about what is learned covers this run, and what is proved of it all the same.

    Statements about outcomes are those about accuracy, held-out error or pairs that end on the wrong side.

    Example:
        >>> row = {"statement": "T", "form": "published", "quantity": "held-out error", "direction": "at most"}
        >>> fails = {**row, "standing": "outside", "conditions": [{"says": "n > 9", "holds": False}]}
        >>> guarantee(statements([fails]))
        'No published guarantee about what is learned covers this run: T asks for n > 9.'
        >>> guarantee(statements([{**row, "standing": "informative", "value": 0.2, "measured": 0.1}]))
        'A published guarantee about what is learned covers this run: T, held-out error at most 0.2, measured 0.1.'
    """
    outcomes = [item for item in found if item.quantity.startswith(_OUTCOMES)]
    published = [item for item in outcomes if item.form == "published"]
    covering = [item for item in published if _everywhere(item, "informative")]
    if covering:
        told = "; ".join(f"{item.name}, {_promise(item)}" for item in covering)
        return f"A published guarantee about what is learned covers this run: {told}."
    if not published:
        return ""
    why = "; ".join(f"{item.name} {_lacks(item)}" for item in published[:_NAMED])
    repaired = [item for item in outcomes if item.form != "published" and item.standing == "informative"]
    more = f" In repaired form {repaired[0].name} gives {_promise(repaired[0])}." if repaired else ""
    return f"No published guarantee about what is learned covers this run: {why}.{more}"


_OUTCOMES = ("policy accuracy", "held-out error", "share of pairs ranked wrong")


def _everywhere(item: Statement, standing: str) -> bool:
    return all(row.get("standing") == standing for row in item.parts)


def _promise(item: Statement) -> str:
    """What a statement says of its quantity, where it says something, and what was measured there."""
    rows = [row for row in item.parts if row.get("standing") == "informative"]
    values, measured = (sorted(map(number, (row.get(key) for row in rows))) for key in ("value", "measured"))
    where = f" in {len(rows)} of {len(item.parts)} groups" if len(rows) < len(item.parts) else ""
    quantity = item.quantity.split(",")[0]
    return f"{quantity} {rows[0].get('direction', '')} {_span(values)}, measured {_span(measured)}{where}"


def _lacks(item: Statement) -> str:
    """The condition that fails most often, or that the statement says nothing."""
    failing = sorted((condition for condition in item.conditions if condition.fails), key=lambda each: -each.fails)
    if not failing:
        return "says nothing"
    often = f" (fails in {failing[0].fails} of {len(item.parts)} groups)" if len(item.parts) > 1 else ""
    return f"asks for {failing[0].says}{often}"


def counted(found: Sequence[Statement]) -> str:
    """How many statements stand how, in one sentence."""
    counts = Counter(item.standing for item in found)
    told = ", ".join(f"{counts[key]} {word}" for key, word in _PLURAL.items() if counts[key])
    return f"Of {len(found)} statements: {told}."


_PLURAL = {
    "broken": "false here although their conditions hold",
    "informative": "apply and say something",
    "empty": "true but empty",
    "outside": "outside their conditions",
}


def _per_group(item: Statement, indent: int, width: int) -> list[str]:
    names = [visible(row.get("group") or "all") for row in item.parts]
    size = min(max(map(cells, names)), 40)
    lines = []
    for name, row in zip(names, item.parts, strict=True):
        value, measured = shown(row.get("value")), shown(row.get("measured"))
        failed = [str(c.get("says")) for c in row.get("conditions") or [] if c.get("holds") is False]
        why = f"  fails: {'; '.join(map(visible, failed))}" if failed else ""
        text = f"{padded(cut(name, size), size)}  {row.get('direction', '')} {value}, measured {measured}{why}"
        lines.append(" " * indent + cut(text, width - indent))
    return lines


def _place(order: Sequence[str], word: str) -> int:
    return order.index(word) if word in order else len(order)


def _over_groups(rows: Sequence[Mapping[str, Any]]) -> str:
    by = {key: [row for row in rows if row.get("standing") == key] for key in STANDINGS}
    of = len(rows)
    parts = []
    if by["broken"]:
        names = [visible(row.get("group") or "all") for row in by["broken"]]
        where = of_many(names, _NAMED)
        parts.append(f"false in {len(names)} of {of} groups although its conditions hold there ({where})")
    if by["informative"]:
        parts.append(f"applies in {len(by['informative'])} of {of} groups{_looseness(by['informative'])}")
    if by["empty"]:
        parts.append(f"true but says nothing in {len(by['empty'])} of {of}{_looseness(by['empty'])}")
    if by["outside"]:
        failed = Counter(
            str(condition.get("says"))
            for row in by["outside"]
            for condition in row.get("conditions") or []
            if condition.get("holds") is False
        )
        why = "; ".join(f"{says} fails in {count}" for says, count in failed.most_common(_NAMED))
        parts.append(f"does not apply in {len(by['outside'])} of {of}{_looseness(by['outside'])}: {why}")
    return "; ".join(parts)


def _looseness(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bounds, what was measured, and how far they are apart, each from the least to the largest."""
    bounds, measured, ratios = (
        sorted(value for row in rows if not math.isnan(value := number(row.get(key))))
        for key in ("value", "measured", "looseness")
    )
    if not bounds:
        return ""
    told = [f"{visible(rows[0].get('direction', ''))} {_span(bounds)}".strip()]
    told += [f"measured {_span(measured)}"] if measured else []
    told += [f"{_span(ratios)} times apart"] if ratios else []
    return f" ({', '.join(told)})"


def _span(values: Sequence[float]) -> str:
    low, high = f"{values[0]:.3g}", f"{values[-1]:.3g}"
    return low if low == high else f"{low} to {high}"


def _over_steps(quantities: Collection[str]) -> str:
    """One name for quantities that differ in their step alone: `drift after 1 to 2 steps`."""
    steps = sorted({int(step) for text in quantities for step in _STEPS.findall(text)})
    first = min(quantities)
    if not steps:
        return first
    return _STEPS.sub(f" after {steps[0]} to {steps[-1]} steps", first)


def _conditions(rows: Sequence[Mapping[str, Any]]) -> tuple[ConditionCount, ...]:
    seen: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for condition in row.get("conditions") or []:
            seen.setdefault(str(condition.get("says")), []).append(condition)
    counted = []
    for says, each in seen.items():
        failing = [condition for condition in each if condition.get("holds") is False]
        telling = (failing or each)[0]
        counted.append(
            ConditionCount(
                says=visible(says),
                holds=sum(condition.get("holds") is True for condition in each),
                fails=len(failing),
                measured=telling.get("measured"),
                limit=telling.get("limit"),
            )
        )
    return tuple(counted)


def field_table(summary: Mapping[str, Any]) -> str:
    """The plane of the third paper as plain text: along its circle from (1, 1), and at its edges."""
    titles = ("x1/x2", "x1", "x2", "loss", "pull on x1", "pull on x2", "flow time")
    keys = ("ratio", "x1", "x2", "loss", "pull_chosen", "pull_rejected", "time")
    field = summary.get("field") or {}
    lines = ["  ".join(f"{title:>10}" for title in titles)]
    lines += ["  ".join(f"{shown(row.get(key)):>10}" for key in keys) for row in field.get("rows") or []]
    lines += ["", f"{'edge':<10}  {'dL/dx1 tends to':<36}  dL/dx2 tends to"]
    for row in field.get("edges") or []:
        cell = [visible(row.get(key, "")) for key in ("edge", "dx1", "dx2")]
        lines.append(f"{cell[0]:<10}  {cell[1]:<36}  {cell[2]}")
    time = field.get("extinction_time")
    end = f"brings x2 to 0 in time {shown(time)}" if time is not None else "never brings x2 to 0"
    settings = summary.get("settings") or {}
    lines += ["", f"beta {shown(settings.get('beta'))}: from (1, 1) the flow raises x1 to 1.41 and {end}."]
    if field.get("leaves") is not None:
        way = "leaves" if field["leaves"] else "stays within"
        refs = f"{shown(settings.get('ref_chosen'))} and {shown(settings.get('ref_rejected'))}"
        lines.append(f"With reference probabilities {refs} that path {way} what two probabilities allow.")
    path = (summary.get("theory") or {}).get("path")
    if path:
        ends = f"({shown(path['x1'][-1])}, {shown(path['x2'][-1])})"
        lines.append(f"The run's average pair (geometric mean) went from (1, 1) to {ends} in {path['step'][-1]} steps.")
    return "\n".join(lines)
