r"""How sure a priority level is: what other units of the same kind would show.

Levels of the pairs at hand are exact, and say more than is there: a mean of n noisy pulls is longer than the true one
by the noise that is left in it, and goes along itself. So the interval is that of the debiased level: what units differ
by, within group and class, is taken off $\langle \bar\phi, \bar\phi_i \rangle$, $\lVert \bar\phi \rVert^2$ and
$\lVert \bar\phi_i \rVert^2$, as it is of distances.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student

from prefdyn.features import FeatureSet
from prefdyn.maths.units import in_order, sums

_CELLS = 2**26
"""Numbers of pull vectors that are held at once."""


def level_intervals(
    feats: FeatureSet, unit: Int[np.ndarray, " n"], shown: Int[np.ndarray, " k"]
) -> Float[np.ndarray, "k 2"]:
    r"""95 % interval of each group's priority level, without unit.

    The debiased level, and what each unit adds to it by the delta method (the jackknife of its three inner products);
    units are drawn within group and class. Which group's mean is the longest is taken as known.

    Args:
        feats: Features of either kind; only pairs that are not held out count, by their weight.
        unit: Equal integers for pairs that hang together.
        shown: Codes of the groups whose interval is asked for.

    Returns:
        Lower and upper ends in [-1, 1], which need not hold the level of the pairs at hand. From -1 to 1 where the
        joint step or every group's own is no longer than noise; NaN for a group of fewer than three units.

    Reference:
        2403.18742, Eq. 5, weighted as in THEORY 2.6; Efron and Stein (1981), "The jackknife estimate of variance".

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(80, 3)) + np.repeat([[3.0, 0, 0], [0, 0, 0]], 40, axis=0)
        >>> feats = FeatureSet.from_arrays(x, chosen=["a"] * 80, rejected=["b"] * 80, group=["one"] * 40 + ["two"] * 40)
        >>> level_intervals(feats, np.arange(80), np.array([0, 1])).round(1).tolist()
        [[0.9, 1.0], [-0.2, 0.1]]
    """
    cells = _Cells.of(feats, unit)
    whole, mass = float(cells.mass.sum()), np.bincount(cells.group, weights=cells.mass, minlength=len(feats.groups))
    counts = np.bincount(cells.group, minlength=len(mass))
    ends = np.full((len(shown), 2), np.nan)
    fine = counts[shown] > 2
    ends[fine] = -1.0, 1.0
    found, inverse = _products(feats, cells, mass, shown), np.divide(1, mass, out=np.zeros(len(mass)), where=mass > 0)
    each = inverse[cells.group]
    along = found.group_mean - np.bincount(cells.group, found.with_unit * each / whole, len(mass))
    square = found.square - float(found.with_unit.sum()) / whole**2
    squares = found.squares - np.bincount(cells.group, found.alone * each**2, len(mass))
    largest = int(np.argmax(np.where(counts > 2, squares, -np.inf)))
    if counts[largest] < 3 or not (square > 0 and squares[largest] > 0):
        return ends
    length = math.sqrt(square * squares[largest])
    level = along[shown] / length
    moved = found.unit_group / whole  # what a unit adds to each inner product
    place = np.full(len(mass), -1)
    place[shown] = np.arange(len(shown))
    inside = np.flatnonzero(place[cells.group] >= 0)
    add = (found.with_mean - 2 * found.with_unit / whole) * each
    np.add.at(moved, (cells.unit[inside], place[cells.group[inside]]), add[inside])
    longer = 2 * np.bincount(cells.unit, found.with_mean / whole - found.with_unit / whole**2)
    there = np.flatnonzero(cells.group == largest)
    longest = np.zeros(len(longer))
    longest[cells.unit[there]] = 2 * (found.with_group * each - found.alone * each**2)[there]
    scale = longer / (2 * square) + longest / (2 * squares[largest])
    moved = moved / length - scale[:, None] * level
    moved -= (sums(moved, cells.stratum) / np.bincount(cells.stratum)[:, None])[cells.stratum]
    error = np.sqrt(np.einsum("ij,ij->j", moved, moved))
    reach = student.ppf(0.975, np.maximum(1, counts[shown] - 2)) * error
    ends[fine] = np.clip(np.stack([level - reach, level + reach], axis=1), -1.0, 1.0)[fine]
    return ends


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cells:
    """What each unit has in each group, those of one unit after another."""

    rows: Int[np.ndarray, " size"]
    """Training pairs, by cell."""
    cell: Int[np.ndarray, " size"]
    """Of each of these."""
    unit: Int[np.ndarray, " cells"]
    group: Int[np.ndarray, " cells"]
    mass: Float[np.ndarray, " cells"]
    stratum: Int[np.ndarray, " units"]
    """Units among which a draw goes: of one group and class, or those of several."""
    layer: Int[np.ndarray, " cells"]
    """Stratum and group."""

    @staticmethod
    def of(feats: FeatureSet, unit: Int[np.ndarray, " n"]) -> "_Cells":
        train = np.flatnonzero(~feats.held_out)
        code = in_order(unit[train])
        rows = train[np.lexsort((feats.group[train], code))]
        code = np.sort(code)
        group = feats.group[rows]
        begins = np.diff(code, prepend=-1) != 0
        new = begins | (np.diff(group, prepend=-1) != 0)
        cell, first, starts = np.cumsum(new) - 1, np.flatnonzero(new), np.flatnonzero(begins)
        least, most = (way.reduceat(group, starts) for way in (np.minimum, np.maximum))
        low, high = (way.reduceat(_sides(feats)[rows], starts) for way in (np.minimum, np.maximum))
        kind = np.where(least == most, 3 * least + np.where(low == high, low, 2), -1)
        stratum, unit_of, group_of = in_order(kind), code[first], group[first]
        return _Cells(
            rows=rows, cell=cell, unit=unit_of, group=group_of, mass=np.bincount(cell, weights=feats.weight[rows]),
            stratum=stratum, layer=in_order(stratum[unit_of] * len(feats.groups) + group_of),
        )  # fmt: skip


def _sides(feats: FeatureSet) -> Int[np.ndarray, " n"]:
    """1 where the first of a group's two answers is chosen, 0 where the second is; 0 in groups of other kinds."""
    side = np.zeros(len(feats), dtype=np.int64)
    for rows in feats.by_group():
        if (answers := feats.two_answers(rows)) is not None:
            side[rows] = answers.positive
    return side


@dataclass(frozen=True, slots=True, kw_only=True)
class _Products:
    """Inner products of means over groups and over all, and of how far cells and units lie from those like them.

    A cell lies from its stratum by what its pairs add up to less what as much weight of the stratum does, widened by
    the root of m/(m - 1) for m cells; a unit by the sum over its cells.
    """

    alone: Float[np.ndarray, " cells"]
    """Of a cell's with itself."""
    with_unit: Float[np.ndarray, " cells"]
    """With its whole unit's."""
    with_group: Float[np.ndarray, " cells"]
    """With its group's mean."""
    with_mean: Float[np.ndarray, " cells"]
    """With the mean over all."""
    unit_group: Float[np.ndarray, "units k"]
    """Of each unit's with the mean of each group that is shown."""
    group_mean: Float[np.ndarray, " m"]
    squares: Float[np.ndarray, " m"]
    square: float


def _products(
    feats: FeatureSet, cells: _Cells, mass: Float[np.ndarray, " m"], shown: Int[np.ndarray, " k"]
) -> _Products:
    count, units, groups = len(cells.unit), len(cells.stratum), len(mass)
    alone, with_unit, with_group, with_mean = (np.zeros(count) for _ in range(4))
    unit_group, group_mean, squares, square = np.zeros((units, len(shown))), np.zeros(groups), np.zeros(groups), 0.0
    size, weight = np.bincount(cells.layer), np.bincount(cells.layer, weights=cells.mass)
    wider = np.where(size > 1, np.sqrt(size / np.maximum(1, size - 1)), 0.0)
    layer_group = np.zeros(len(size), dtype=np.int64)
    layer_group[cells.layer] = cells.group
    for column in range(feats.coordinates()[0].shape[1]):
        layers = np.zeros((len(size), feats.kernel_width))
        for part, vectors in _vectors(feats, cells, column):
            layers += sums(vectors, cells.layer[part], len(size))
        means = sums(layers, layer_group, groups)
        mean = means.sum(axis=0) / mass.sum()
        means = np.divide(means, mass[:, None], out=means, where=mass[:, None] > 0)
        group_mean += means @ mean
        squares += np.einsum("ij,ij->i", means, means)
        square += float(mean @ mean)
        layers /= weight[:, None]
        for part, vectors in _vectors(feats, cells, column):
            first, layer = int(cells.unit[part.start]), cells.layer[part]
            apart = (vectors - cells.mass[part][:, None] * layers[layer]) * wider[layer, None]
            of = cells.unit[part] - first
            whole = sums(apart, of)
            alone[part] += np.einsum("ij,ij->i", apart, apart)
            with_unit[part] += np.einsum("ij,ij->i", apart, whole[of])
            with_group[part] += np.einsum("ij,ij->i", apart, means[cells.group[part]])
            with_mean[part] += apart @ mean
            unit_group[first : first + len(whole)] += whole @ means[shown].T
    return _Products(
        alone=alone, with_unit=with_unit, with_group=with_group, with_mean=with_mean, unit_group=unit_group,
        group_mean=group_mean, squares=squares, square=square,
    )  # fmt: skip


def _vectors(feats: FeatureSet, cells: _Cells, column: int) -> Iterator[tuple[slice, Float[np.ndarray, "part d"]]]:
    """What the pairs of some cells add up to along one token coordinate; no unit is in two parts."""
    most = max(1, _CELLS // feats.kernel_width)
    starts = np.flatnonzero(np.diff(cells.unit, prepend=-1))  # cells where a unit begins
    first_row = np.searchsorted(cells.cell, starts)
    bounds = [0]
    for place in range(1, len(starts)):
        after = first_row[place + 1] if place + 1 < len(starts) else len(cells.rows)
        if after - first_row[bounds[-1]] > most:
            bounds.append(place)
    ends = [*bounds[1:], len(starts)]
    for begin, end in zip(bounds, ends, strict=True):
        part = slice(int(starts[begin]), int(starts[end]) if end < len(starts) else len(cells.unit))
        stop = int(first_row[end]) if end < len(starts) else len(cells.rows)
        rows = slice(int(first_row[begin]), stop)
        vectors = np.zeros((part.stop - part.start, feats.kernel_width))
        for where, kernel in feats.kernel_blocks(cells.rows[rows]):
            some = cells.rows[rows][where]
            values = (kernel.answers[:, column] * feats.weight[some])[:, None] * kernel.features
            vectors += sums(values.astype(np.float64), cells.cell[rows][where] - part.start, len(vectors))
        yield part, vectors
