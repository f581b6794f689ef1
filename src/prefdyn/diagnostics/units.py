r"""What is drawn for a null, an interval or a fold: the unit, one pair or several that hang together.

Pairs of one prompt, of near-equal prompts, or of one row of the data are one unit (`FeatureSet.cluster`), and so are
one-token pairs whose states are so near each other that independent ones would not be. Drawing pairs in place of units
makes random labels pass: five framings of a question with one label are one observation, not five.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import chi2

from prefdyn._threads import small_work
from prefdyn.features import FeatureSet
from prefdyn.maths.units import joined

NEAR = 0.1
"""Squared distance, as a share of the median one in the group, up to which two states are near-equal."""
_BY_CHANCE = 0.01
"""Near-equal couples that a group of independent states may be expected to have, at most."""
_MOST = 8192
"""Groups of more pairs are not looked through for near-equal states."""


def units(feats: FeatureSet) -> Int[np.ndarray, " n"]:
    """Equal integers for pairs that are one unit: of one cluster, or with near-equal states in one group.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = np.repeat(rng.normal(size=(30, 64)), 2, axis=0) + 0.1 * rng.normal(size=(60, 64))
        >>> feats = FeatureSet.from_arrays(x, chosen=[1, 0] * 30, rejected=[0, 1] * 30)
        >>> len(np.unique(feats.cluster)), len(np.unique(units(feats)))
        (60, 30)
    """
    if feats.kind == "responses":
        return feats.cluster
    couples = [np.zeros((0, 2), dtype=np.int64)]
    for rows in feats.by_group():
        if 4 <= len(rows) <= _MOST:
            with small_work(len(rows) * feats.states.shape[1]):
                couples.append(rows[near_equal(feats.states[rows])])
    linked = np.concatenate(couples)
    if len(linked) == 0:
        return feats.cluster
    graph = coo_array((np.ones(len(linked), dtype=np.int8), (linked[:, 0], linked[:, 1])), shape=(len(feats),) * 2)
    return joined(feats.cluster, connected_components(graph, directed=False)[1])


def near_equal(states: Float[np.ndarray, "n d"]) -> Int[np.ndarray, "couples 2"]:
    r"""Couples of rows nearer each other than independent rows would be.

    Independent rows with an effective number of directions k have squared distances like $\chi^2_k$; the limit is
    `NEAR` of the median, or less where as near a couple would be expected by chance.
    """
    n = len(states)
    rows = states.astype(np.float32) - states.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.einsum("ij,ij->i", rows, rows)
    gram = rows @ rows.T if n <= rows.shape[1] else rows.T @ rows
    square = float(np.vdot(gram, gram))
    if square == 0:
        return np.zeros((0, 2), dtype=np.int64)
    directions = max(1.0, float(lengths.sum()) ** 2 / square)
    middle = float(chi2.median(directions))
    limit = min(NEAR, float(chi2.ppf(2 * _BY_CHANCE / (n * (n - 1)), directions)) / middle)
    sample = np.linspace(0, n - 1, min(n, 512)).astype(int)
    apart = lengths[sample, None] + lengths[sample] - 2 * rows[sample] @ rows[sample].T
    typical = float(np.median(apart[np.triu_indices(len(sample), 1)]))
    found = []
    for start in range(0, n, 1024):
        block = slice(start, min(start + 1024, n))
        squared = lengths[block, None] + lengths - 2 * rows[block] @ rows.T
        first, second = np.nonzero(squared <= limit * typical)
        later = second > first + start
        found.append(np.stack([first[later] + start, second[later]], axis=1))
    return np.concatenate(found)


def relabelled(
    positive: Bool[np.ndarray, " n"], unit: Int[np.ndarray, " n"], draws: int, rng: np.random.Generator
) -> Bool[np.ndarray, "draws n"]:
    """Labels as they could have fallen if they meant nothing: whole units trade theirs.

    Units of equal size trade the labels of their pairs, each in its order. Where few units have a size, those of all
    such sizes lay the labels of one row of units, drawn anew, over another. Both classes keep their numbers.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> drawn = relabelled(np.array([True, True, False, False]), np.array([0, 0, 1, 1]), 20, rng)
        >>> sorted({tuple(map(bool, row)) for row in drawn})
        [(False, False, True, True), (True, True, False, False)]
    """
    n = len(positive)
    order = np.argsort(unit, kind="stable")
    starts = np.flatnonzero(np.diff(unit[order], prepend=unit[order][0] - 1 if n else 0))
    sizes = np.diff(np.append(starts, n))
    drawn = np.broadcast_to(positive, (draws, n)).copy()
    rest = []
    for size in np.unique(sizes):
        members = order[starts[sizes == size][:, None] + np.arange(size)]
        if len(members) < _OF_A_SIZE:
            rest.append(members)
        elif size == 1:
            labels = positive[members[:, 0]].astype(np.int64)  # half as fast again to shuffle as bytes are
            drawn[:, members[:, 0]] = rng.permuted(np.broadcast_to(labels, (draws, len(labels))), axis=1)
        else:
            turns = rng.permuted(np.broadcast_to(np.arange(len(members)), (draws, len(members))), axis=1)
            drawn[:, members.ravel()] = positive[members][turns].reshape(draws, -1)
    if rest:
        flat = np.concatenate([members.ravel() for members in rest])
        owner = np.repeat(np.arange(sum(map(len, rest))), np.concatenate([[m.shape[1]] * len(m) for m in rest]))
        keys = rng.random((draws, int(owner[-1]) + 1))[:, owner]
        drawn[:, flat] = positive[flat][np.argsort(keys, axis=1, kind="stable")]
    return drawn


_OF_A_SIZE = 5
"""Under so many units of one size, they trade labels with units of other sizes."""
