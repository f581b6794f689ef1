"""Integer codes of repeated text: equal codes mean equal texts, so that the rest is arithmetic on small arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from prefdyn._checks import nearest, positive
from prefdyn.errors import ConfigError, DataError


def encode(column: pa.ChunkedArray) -> tuple[Int[np.ndarray, " n"], list[str]]:
    """Code of every text, and the distinct texts in order of first appearance.

    Args:
        column: Texts without nulls.

    Example:
        >>> code, texts = encode(pa.chunked_array([["b", "a"], ["b"]]))
        >>> code.tolist(), texts
        ([0, 1, 0], ['b', 'a'])
    """
    if len(column) == 0:
        return np.zeros(0, dtype=np.int64), []
    encoded = column.dictionary_encode().unify_dictionaries()
    code = np.concatenate([np.asarray(chunk.indices, dtype=np.int64) for chunk in encoded.chunks])
    return code, encoded.chunk(0).dictionary.to_pylist()


HEAVIEST = 1e50
"""Largest weight of a pair, and of a group; the smallest is one over it. What they are multiplied by stays finite."""


def factors(groups: Sequence[str], given: Mapping[str, float]) -> Float[np.ndarray, " groups"]:
    """A factor above 0 for every group, 1 where none is given.

    Raises:
        DataError: A name is no group.
        ConfigError: A factor is not above 0, or too large or small to be squared.

    Example:
        >>> factors(["a", "b"], {"b": 2.5}).tolist()
        [1.0, 2.5]
    """
    for name, value in given.items():
        if name not in groups:
            raise DataError(f"group weights name {name!r}, which is no group{nearest(name, groups)}")
        positive(value, name=f"the weight of group {name!r}", fix="give a number above 0, or leave its pairs out")
        if not 1 / HEAVIEST <= value <= HEAVIEST:
            raise ConfigError(
                f"the weight of group {name!r} is {value:g}, and must lie between {1 / HEAVIEST:g} and {HEAVIEST:g}"
            )
    return np.array([float(given.get(name, 1.0)) for name in groups])


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAnswers:
    """The two answers of a two-answer group, in reverse alphabetical order: " Yes" comes before " No"."""

    first: str
    second: str
    first_chosen: int
    """Pairs whose chosen answer is the first."""
    second_chosen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """Codes of the groups, prompts and responses of a dataset; chosen and rejected share one list of texts."""

    group: Int[np.ndarray, " n"]
    groups: list[str]
    prompt: Int[np.ndarray, " n"]
    prompts: list[str]
    chosen: Int[np.ndarray, " n"]
    rejected: Int[np.ndarray, " n"]
    responses: list[str]

    @classmethod
    def of(cls, table: pa.Table) -> "Codes":
        """The codes of a table with the columns of `prefdyn.data.pairs.SCHEMA`."""
        n = table.num_rows
        group, groups = encode(table["group"])
        prompt, prompts = encode(table["prompt"])
        both, responses = encode(pa.chunked_array([*table["chosen"].chunks, *table["rejected"].chunks], pa.string()))
        return cls(
            group=group,
            groups=groups,
            prompt=prompt,
            prompts=prompts,
            chosen=both[:n],
            rejected=both[n:],
            responses=responses,
        )

    def members(self) -> list[Int[np.ndarray, " size"]]:
        """Row numbers of every group, in order."""
        order = np.argsort(self.group, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.group, minlength=len(self.groups)))[:-1])

    def answers(self, rows: Int[np.ndarray, " size"]) -> GroupAnswers | None:
        """The two answers of these rows and how often each is chosen; None where there are more than two."""
        chosen, rejected = self.chosen[rows], self.rejected[rows]
        low, high = np.minimum(chosen, rejected), np.maximum(chosen, rejected)
        if len(rows) == 0 or (low != low[0]).any() or (high != high[0]).any() or low[0] == high[0]:
            return None
        first, second = sorted((int(low[0]), int(high[0])), key=lambda code: self.responses[code], reverse=True)
        count = int((chosen == first).sum())
        return GroupAnswers(
            first=self.responses[first],
            second=self.responses[second],
            first_chosen=count,
            second_chosen=len(rows) - count,
        )
