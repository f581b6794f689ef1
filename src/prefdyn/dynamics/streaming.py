"""Features of some pairs, block by block: in memory where they fit, else read from the mapped file each time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from prefdyn._memory import free_bytes
from prefdyn.dynamics.problem import Arrays
from prefdyn.features import FeatureSet

HELD_BYTES = 2 * 2**30
"""Features up to this size are copied into memory once; larger ones, where NumPy computes, if a third of the free
memory takes them. Else they are read from where they are, block by block. The numbers are the same either way."""

_SMALL_BLOCK, _LARGE_BLOCK = 4 * 2**20, 16 * 2**20
"""Bytes of a block: small enough to stay in the cache for the way back, long enough for many columns at full speed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRows:
    """Rows of features in one library and dtype: `first`, or `first - second` where both are there."""

    first: Any
    second: np.ndarray | None
    index: Int[np.ndarray, " n"] | None
    """Sorted rows of `first` that are meant; None where `first` is held and holds just those."""
    dtype: Any
    arrays: Arrays | None
    """None: NumPy."""
    tokens: tuple[np.ndarray, np.ndarray] | None = None
    """What rows of `first` and of `second` are divided by, where log-ratios are averaged over tokens."""

    @classmethod
    def of(
        cls,
        feats: FeatureSet,
        index: Int[np.ndarray, " n"],
        *,
        dtype: Any = np.float64,
        arrays: Arrays | None = None,
        response: str | None = None,
        held_bytes: int | None = None,
    ) -> "FeatureRows":
        """The pair features of some pairs, or the features of their chosen or rejected `response` alone.

        Args:
            feats: Features of either kind, in memory or mapped.
            index: Sorted row numbers.
            dtype: float32 or float64.
            arrays: Where to compute; NumPy if not given.
            response: "chosen" or "rejected" for one response of longer-response features.
            held_bytes: Up to this size the rows are copied into memory once; as `HELD_BYTES` says if not given.
        """
        first, second = feats.states, None
        if feats.chosen_features is not None and feats.rejected_features is not None:
            first, second = feats.chosen_features, feats.rejected_features
            if response is not None:
                first, second = {"chosen": (first, None), "rejected": (second, None)}[response]
        tokens = (feats.chosen_length, feats.rejected_length) if feats.per_token and second is not None else None
        kind = np.dtype(dtype)
        rows = cls(first=first, second=second, index=np.asarray(index), dtype=kind, arrays=arrays, tokens=tokens)
        size = len(index) * first.shape[1] * rows.dtype.itemsize
        if size > (HELD_BYTES if held_bytes is None else held_bytes):
            roomy = held_bytes is None and arrays is None and 3 * size <= free_bytes()
            if not roomy:
                return rows
        whole = rows.whole()
        return cls(first=whole, second=None, index=None, dtype=rows.dtype, arrays=arrays)

    @classmethod
    def held(cls, array: Any) -> "FeatureRows":
        """Rows that are already an array of the library."""
        return cls(first=array, second=None, index=None, dtype=array.dtype, arrays=None)

    def __len__(self) -> int:
        return self.first.shape[0] if self.index is None else len(self.index)

    @property
    def width(self) -> int:
        """Numbers per row."""
        return self.first.shape[1]

    @property
    def streamed(self) -> bool:
        """Whether every pass reads the rows anew from where they are stored."""
        return self.index is not None

    def block(self, start: int, stop: int) -> Any:
        """Rows `start` to `stop`, in the library that computes."""
        if self.index is None:
            return self.first[start:stop, :]
        return self._read(self.index[start:stop])

    def whole(self) -> Any:
        """All rows, in the library that computes, filled block by block: in no more memory than they take."""
        if self.index is None:
            return self.first
        host = FeatureRows(
            first=self.first, second=self.second, index=self.index, dtype=self.dtype, arrays=None, tokens=self.tokens
        )
        found = np.empty((len(self), self.width), dtype=self.dtype)
        for start, stop in host.blocks(1):
            found[start:stop] = host.block(start, stop)
        return found if self.arrays is None else self.arrays(found)

    def take(self, places: Int[np.ndarray, " b"]) -> Any:
        """Some rows, by place, in any order."""
        if self.index is not None:
            return self._read(self.index[places])
        if isinstance(self.first, np.ndarray):
            return self.first[places]
        assert self.arrays is not None
        return self.first[self.arrays(np.asarray(places))]

    def blocks(self, columns: int) -> Iterator[tuple[int, int]]:
        """Starts and ends of blocks that suit a product with so many columns."""
        share = min(1.0, columns / 32)
        size = _SMALL_BLOCK + share * (_LARGE_BLOCK - _SMALL_BLOCK)
        rows = max(16, int(size // (self.width * np.dtype(_name(self.dtype)).itemsize)))
        for start in range(0, len(self), rows):
            yield start, min(start + rows, len(self))

    def _read(self, numbers: np.ndarray) -> Any:
        one_piece = len(numbers) > 0 and numbers[-1] - numbers[0] == len(numbers) - 1 and (np.diff(numbers) == 1).all()
        pick: Any = slice(int(numbers[0]), int(numbers[-1]) + 1) if one_piece else numbers
        found = self.first[pick].astype(self.dtype, copy=self.arrays is not None)
        if self.tokens is not None and self.second is not None:
            chosen, rejected = (lengths[pick, None].astype(self.dtype) for lengths in self.tokens)
            found = found / chosen - self.second[pick] / rejected
        elif self.second is not None:
            found = found - self.second[pick]
        return found if self.arrays is None else self.arrays(found)


def _name(dtype: Any) -> str:
    """`float32` or `float64`, of either library."""
    return str(dtype).rsplit(".", 1)[-1]
