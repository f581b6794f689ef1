"""Pairs of which at most one can be right: the same two responses, or nearly the same, preferred both ways.

Exact ones have the same prompt and the same two responses, in one group or in two. Near ones have near-equal prompts
and near-equal responses (`prefdyn.data.near`), both longer than an answer: short answers to near-equal questions may
well differ ("I like X", "I dislike X").
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from prefdyn.data.codes import Codes
from prefdyn.data.near import near_duplicates
from prefdyn.data.pairs import PreferenceDataset

ANSWER_LENGTH = 40
"""Characters up to which a response counts as an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Couple:
    """Two pairs that contradict each other, by row."""

    first: int
    second: int
    near: bool
    """Whether their texts are near-equal, and not equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradictions:
    """All pairs of a dataset that another one contradicts."""

    couples: tuple[Couple, ...]
    """Exact ones first, in the order of the data; every such pair stands in one or more."""
    near: Int[np.ndarray, " k"]
    """Rows that only near-equal pairs contradict."""
    both_ways: Int[np.ndarray, " m"]
    """Rows with a longer response that is chosen for one prompt and rejected for another."""

    def rows(self, data: PreferenceDataset, most: int = 10) -> list[dict[str, Any]]:
        """The first couples with their texts, as plain dictionaries."""
        named = ("id", "group", "prompt", "chosen", "rejected")
        taken = self.couples[:most]
        columns = {name: data.table[name].to_pylist() for name in named} if taken else {}

        def pair(row: int) -> dict[str, Any]:
            return {name: columns[name][row] for name in named}

        return [{"near": each.near, "first": pair(each.first), "second": pair(each.second)} for each in taken]


def contradictions(data: PreferenceDataset, codes: Codes | None = None) -> Contradictions:
    """Everything in a dataset that contradicts something else in it.

    Args:
        data: The pairs.
        codes: Of their texts, where they are known.

    Example:
        >>> rows = [{"prompt": "a", "chosen": "x", "rejected": "y"}, {"prompt": "a", "chosen": "y", "rejected": "x"}]
        >>> contradictions(PreferenceDataset.from_rows(rows)).couples
        (Couple(first=0, second=1, near=False),)
    """
    codes = Codes.of(data.table) if codes is None else codes
    exact = list(_couples(codes.prompt, codes.chosen, codes.rejected, near=False))
    long = np.array([len(text) > ANSWER_LENGTH for text in codes.responses], dtype=bool)
    couples, rows = exact, np.zeros(0, dtype=np.int64)
    some = long[codes.chosen] & long[codes.rejected] if len(data) else np.zeros(0, dtype=bool)
    if some.any():
        alike = near_duplicates(codes.responses)
        told = {row for each in exact for row in (each.first, each.second)}
        found = [
            each
            for each in _couples(data.clusters.near, alike[codes.chosen], alike[codes.rejected], near=True, among=some)
            if not {each.first, each.second} <= told
        ]
        couples = [*exact, *found]
        both = {row for each in found for row in (each.first, each.second)} - told
        rows = np.array(sorted(both), dtype=np.int64)
    return Contradictions(couples=tuple(couples), near=rows, both_ways=_both_ways(data, codes, long))


def _couples(
    prompt: Int[np.ndarray, " n"],
    chosen: Int[np.ndarray, " n"],
    rejected: Int[np.ndarray, " n"],
    *,
    near: bool,
    among: Bool[np.ndarray, " n"] | None = None,
) -> Iterator[Couple]:
    """Rows of one prompt with the same two responses, preferred both ways, each next to an opposite."""
    by_way: dict[tuple[int, int, int], tuple[list[int], list[int]]] = {}
    rows = np.flatnonzero(chosen != rejected if among is None else (chosen != rejected) & among)
    for row in rows.tolist():
        won, lost = int(chosen[row]), int(rejected[row])
        key = int(prompt[row]), min(won, lost), max(won, lost)
        by_way.setdefault(key, ([], []))[won > lost].append(row)
    found = []
    for ways in by_way.values():
        if ways[0] and ways[1]:
            for place in range(max(map(len, ways))):
                one, other = (way[min(place, len(way) - 1)] for way in ways)
                found.append(Couple(first=min(one, other), second=max(one, other), near=near))
    yield from sorted(found, key=lambda each: (each.first, each.second))


def _both_ways(data: PreferenceDataset, codes: Codes, long: Bool[np.ndarray, " k"]) -> Int[np.ndarray, " m"]:
    """Rows of longer texts that are chosen for one prompt and rejected for another one, not near-equal."""
    if not len(data):
        return np.zeros(0, dtype=np.int64)
    near = data.clusters.near
    homes: dict[int, tuple[set[int], set[int]]] = {}
    for side, texts in enumerate((codes.chosen, codes.rejected)):
        for row in np.flatnonzero(long[texts]).tolist():
            homes.setdefault(int(texts[row]), (set(), set()))[side].add(int(near[row]))
    turned = {text for text, (won, lost) in homes.items() if won and lost and len(won | lost) > 1}
    mask = np.isin(codes.chosen, list(turned)) | np.isin(codes.rejected, list(turned))
    return np.flatnonzero(mask)
