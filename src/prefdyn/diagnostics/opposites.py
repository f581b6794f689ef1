r"""Near duplicates with opposite labels among pairs of longer responses: what one pair teaches, the other unteaches.

The pair feature of a swapped pair is $-\phi$, so two pairs that say the opposite of each other have a cosine near -1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from prefdyn._checks import at_least, between
from prefdyn._random import stream
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet

_BLOCK = 1024
"""Rows on either side of one product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opposites:
    """Pairs of pairs whose features point against each other, most opposite first."""

    first: Int[np.ndarray, " k"]
    """Row of one pair."""
    second: Int[np.ndarray, " k"]
    """Row of the other, above `first`."""
    cosine: Float[np.ndarray, " k"]
    r"""Cosine of their $\phi$, at most `threshold`."""
    id: np.ndarray
    """Id of every row."""
    threshold: float
    looked_at: int
    """Pairs that were compared with each other: all, or a sample."""
    of: int
    """Pairs in all."""

    def __len__(self) -> int:
        return len(self.cosine)

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary per match: the two ids and their cosine."""
        return [
            {"first": str(self.id[i]), "second": str(self.id[j]), "cosine": float(cosine)}
            for i, j, cosine in zip(self.first, self.second, self.cosine, strict=True)
        ]


def opposites(feats: FeatureSet, *, cosine: float = -0.9, limit: int = 4096, seed: int = 0) -> Opposites:
    r"""Every two pairs whose features $\phi$ have at most this cosine, in or across groups.

    A pair whose $\phi$ is zero matches none. Sketched features blur a cosine by about one over the square root of their
    width.

    Args:
        feats: Features of `responses`.
        cosine: Two pairs match at or below this, between -1 and 0.
        limit: With more pairs than this, a sample of this many is compared; two pairs are then both in it with
            probability $(\mathrm{limit} / n)^2$ only.
        seed: Decides the sample.

    Returns:
        The matches, and how many pairs were looked at.

    Raises:
        ConfigError: The cosine or the limit is out of range.
        DataError: The features are of one-token answers.

    Example:
        >>> feats = FeatureSet.from_arrays(chosen_features=[[2.0, 0], [0, 1], [0, 0]],
        ...                                rejected_features=[[0.0, 0], [0, 0], [1, 0]], id=["a", "b", "c"])
        >>> opposites(feats).rows()
        [{'first': 'a', 'second': 'c', 'cosine': -1.0}]
    """
    between(cosine, -1, 0, name="cosine")
    at_least(limit, 2, name="limit")
    if feats.kind != "responses":
        raise DataError(
            "opposites are looked for among longer responses, but these features are of one-token answers, where every "
            "pair is against all those that choose the other answer; see `agreement` of pair_pushes for pairs at odds"
        )
    n = len(feats)
    used = np.arange(n) if n <= limit else np.sort(stream(seed, "opposites").permutation(n)[:limit])
    first, second, values = opposite_rows(feats.select(used).working_kernel().features, cosine=cosine)
    return Opposites(
        first=used[first],
        second=used[second],
        cosine=values,
        id=feats.id,
        threshold=cosine,
        looked_at=len(used),
        of=n,
    )


def opposite_rows(
    features: Float[np.ndarray, "n f"], *, cosine: float, block: int = _BLOCK
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Row numbers i < j and cosine of every two rows with at most this cosine, most opposite first.

    Args:
        features: One row per pair. Rows of zeros match none.
        cosine: Below 0.
        block: Rows on either side of one product; only its square is ever held.

    Example:
        >>> i, j, values = opposite_rows(np.array([[1.0, 0], [-3, 0], [-1, 1]]), cosine=-0.7)
        >>> i.tolist(), j.tolist(), values.round(4).tolist()
        ([0, 0], [1, 2], [-1.0, -0.7071])
    """
    lengths = np.sqrt(np.einsum("ij,ij->i", features, features))
    unit = features / np.where(lengths > 0, lengths, 1.0)[:, None]
    firsts, seconds, found = [], [], []
    for top in range(0, len(unit), block):
        for left in range(top, len(unit), block):
            products = unit[top : top + block] @ unit[left : left + block].T
            i, j = np.nonzero(products <= cosine)
            above = top + i < left + j
            firsts.append(top + i[above])
            seconds.append(left + j[above])
            found.append(np.maximum(products[i[above], j[above]].astype(np.float64), -1.0))
    first, second, values = np.concatenate(firsts), np.concatenate(seconds), np.concatenate(found)
    order = np.lexsort((second, first, values))
    return first[order], second[order], values[order]
