"""Which groups a picture colours, and in which orders it can show them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from prefdyn.report.folders import RunFolder
from prefdyn.report.palette import MOST_COLOURED, ORDERED

_TELLING = 8


def for_groups(run: RunFolder) -> dict[str, Any]:
    """What every panel of this folder says of its groups: names, verdicts and colours."""
    coloured = telling(run)
    places = {code: place for place, code in enumerate(coloured)}
    return {
        "groups": run.labels,
        "verdicts": run.verdicts,
        "colours": tuple(places.get(code, -1) for code in range(len(run.groups))),
    }


def telling(run: RunFolder, most: int = _TELLING) -> tuple[int, ...]:
    """Codes of the groups worth a colour of their own: all of them while they are few, else by verdict and rank.

    First the first learned and the last, then groups in conflict, left behind, memorised, given away and random,
    strongest first.
    """
    m = len(run.groups)
    if m <= MOST_COLOURED:
        return tuple(range(m))
    rank, loss = run.rank(), run.column("predicted_held_out_loss")
    verdicts = run.verdicts
    known = [int(code) for code in np.argsort(rank, kind="stable") if not math.isnan(rank[code])]
    learned = [code for code in known if verdicts[code] in {*ORDERED, None}]

    def worst(verdict: str, count: int) -> list[int]:
        inside = [code for code in range(m) if verdicts[code] == verdict]
        return sorted(inside, key=lambda code: (math.isnan(loss[code]), -loss[code], code))[:count]

    giveaway = worst("giveaway", 1)
    wanted = [*learned[:2], *learned[-1:], *worst("conflicting", 1 if giveaway else 2), *worst("left behind", 1)]
    wanted += [*worst("memorised", 1), *giveaway, *worst("looks random", 1), *worst("trivial", 1)]
    wanted += [*learned[2:3], *learned[-2:-1]]
    wanted += [*learned, *range(m)]
    return tuple(list(dict.fromkeys(wanted))[:most])


def sorted_codes(values: np.ndarray, *, falling: bool = True) -> tuple[int, ...]:
    """Codes sorted by value, unknown values last, ties in the order of the data.

    Example:
        >>> sorted_codes(np.array([1.0, np.nan, 3.0]))
        (2, 0, 1)
    """
    keys = -values if falling else values
    return tuple(int(code) for code in np.lexsort((np.arange(len(values)), np.where(np.isnan(keys), np.inf, keys))))


def similar_together(matrix: np.ndarray) -> tuple[int, ...]:
    """Codes ordered so that groups with similar rows stand together (average linkage, best order of leaves)."""
    m = len(matrix)
    if m < 3:
        return tuple(range(m))
    distance = np.clip(1 - np.nan_to_num((matrix + matrix.T) / 2), 0, 2)
    np.fill_diagonal(distance, 0)
    flat = squareform(distance, checks=False)
    tree = linkage(flat, "average")
    return tuple(int(code) for code in leaves_list(optimal_leaf_ordering(tree, flat)))


def rank_orders(run: RunFolder, label: str, values: np.ndarray) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Ways to sort the groups: by these values, largest first, by rank where it is known, and as in the data."""
    rank = run.rank()
    orders = [(label, sorted_codes(values))]
    if np.isfinite(rank).any():
        orders.append(("first learned", sorted_codes(rank, falling=False)))
    orders.append(("as in the data", tuple(range(len(values)))))
    return tuple(orders)


def measured(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> list[str]:
    """Those of the names whose array holds a number."""
    return [name for name in names if name in arrays and np.isfinite(arrays[name]).any()]
