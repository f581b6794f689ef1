"""From a claim and the rows of its recipe to the chance that nothing is there, over the units that it speaks of."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prefdyn.experiments.chance import LEVEL, Chance, by_leaving_out, by_order, by_repetition, by_sign
from prefdyn.experiments.context import MODEL, TWIN
from prefdyn.experiments.rows import Rows

if TYPE_CHECKING:
    from prefdyn.experiments.claims import Claim

Cell = dict[str, tuple[float, ...]]
"""Unit → its numbers, one per quantity."""
_UNITS = ("behaviour", "couple", "value", "number of values")


def over_units(claim: "Claim") -> bool:
    """Whether a claim is tested over its units; else over repetitions, which are all that it speaks of."""
    kind = None if claim.statistic is None else claim.statistic.kind
    return claim.over in _UNITS and kind in ("order", "mean", "fit") and claim.test in ("above", "below", "inside")


def places(claim: "Claim", rows: Rows, select: Mapping[str, str]) -> list[dict[str, str]]:
    """The rows that a claim takes, figure by figure."""
    columns = {name: value for name, value in select.items() if name != "across"}
    across = select.get("across", claim.across)
    if not across:
        return [columns]
    return [{**columns, "figure": figure} for figure in rows.figures if figure.startswith(across)]


def chance_of(claim: "Claim", rows: Rows) -> Chance:
    """How often chance does as well as the model; the largest, where every figure must pass."""
    every = (_chance(claim, cells) for cells in _figures(claim, rows, MODEL))
    return max(every, key=lambda each: _known(each.p), default=Chance(math.nan, 0))


def beyond_twin(claim: "Claim", rows: Rows) -> float:
    """The same for the difference of a statistic from the twin's."""
    pairs = zip(_figures(claim, rows, MODEL), _figures(claim, rows, TWIN), strict=True)
    return max((_difference(claim, ours, theirs) for ours, theirs in pairs), key=_known, default=math.nan)


def learned_more(claim: "Claim", rows: Rows) -> tuple[float, float]:
    """Chances of the held-out accuracy above one half, and above the twin's, over the units that have one."""
    select = {"figure": claim.chosen["figure"]}
    ours, theirs = (_cells(rows, ("accuracy",), select, source) for source in (MODEL, TWIN))
    every = dict.fromkeys(name for cell in [*ours, *theirs] for name in cell)  # couples are drawn seed by seed
    names = list(every) if claim.unit == "couple" else _common([*ours, *theirs])
    if len(names) < FEWEST["mean"]:
        first, second = (np.array([_mean([cell], list(cell)) for cell in each]) for each in (ours, theirs))
        half, difference = (by_repetition(each.tolist()).p for each in (first - 0.5, first - second))
        return 2 * half, 2 * difference  # of one end of an interval of 95 %
    if claim.unit == "couple":

        def more(kept: Sequence[str]) -> float:
            return _mean(ours, _kept(names, kept)) - _mean(theirs, _kept(names, kept))

        members = _members(names)
        half = by_leaving_out(lambda kept: _mean(ours, _kept(names, kept)) - 0.5, members)
        return half.p, by_leaving_out(more, members).p
    mine, others = (np.array([_mean(each, [name]) for name in names]) for each in (ours, theirs))
    return by_sign(mine - 0.5).p, by_sign(mine - others).p


FEWEST: Mapping[str, int] = {"order": 4, "mean": 5, "fit": 4}
"""Units under which no test can come out at 5 %: 1/4! and 1/2⁵ are the first that are below it."""


def _known(p: float) -> float:
    return 2.0 if math.isnan(p) else p


def _side(claim: "Claim") -> int:
    return -1 if claim.test == "below" else 1


def _threshold(claim: "Claim") -> float:
    assert not isinstance(claim.threshold, tuple)
    return float(claim.threshold)


def _figures(claim: "Claim", rows: Rows, source: str) -> list[list[tuple[Cell, Cell | None]]]:
    """Cells, and what is taken off each: figure by figure where each must pass, else all together."""
    assert claim.statistic is not None
    found = []
    for select in places(claim, rows, claim.chosen):
        cells = _cells(rows, claim.statistic.quantities, select, source)
        others: list[Any] = [None] * len(cells)
        if claim.less:
            other = claim.less.get("statistic", claim.statistic)
            changed = {**select, **{k: v for k, v in claim.less.items() if k not in ("statistic", "says")}}
            others = _cells(rows, other.quantities, changed, source)
        found.append(list(zip(cells, others, strict=True)))
    return found if claim.fold[0] == "least" else [[cell for cells in found for cell in cells]]


def _cells(rows: Rows, quantities: Sequence[str], select: Mapping[str, str], source: str) -> list[Cell]:
    """Seed by seed; units lacking a number are left out."""
    picked = [rows.pick(quantity, select, source) for quantity in quantities]
    found = []
    for seed in picked[0]:
        each = [one.get(seed, {}) for one in picked]
        cell = {
            group: tuple(one[group] for one in each)
            for group in each[0]
            if all(math.isfinite(one.get(group, math.nan)) for one in each)
        }
        found += [cell] if cell else []
    return found


def _common(cells: Sequence[Cell]) -> list[str]:
    """Units that all cells have."""
    return [group for group in cells[0] if all(group in cell for cell in cells)] if cells else []


def _members(couples: Sequence[str]) -> list[str]:
    """Behaviours of couples, each once."""
    return list(dict.fromkeys(name for couple in couples for name in couple.split(" | ")))


def _kept(couples: Sequence[str], names: Sequence[str]) -> list[str]:
    """Couples of which both are there."""
    there = set(names)
    return [couple for couple in couples if there.issuperset(couple.split(" | "))]


def _mean(cells: Sequence[Cell], names: Sequence[str]) -> float:
    return float(np.mean([cell[name][0] for cell in cells for name in names if name in cell]))


def _chance(claim: "Claim", cells: list[tuple[Cell, Cell | None]]) -> Chance:
    statistic, side = claim.statistic, _side(claim)
    assert statistic is not None
    names = _common([cell for cell, _ in cells])
    if claim.unit == "couple" or statistic.kind == "fit" or claim.less:
        whole = _whole(claim, cells)
        if isinstance(claim.threshold, tuple):
            low, high = claim.threshold
            ends = (_left_out(claim, cells, lambda kept: whole(kept) - low),
                    _left_out(claim, cells, lambda kept: high - whole(kept)))  # fmt: skip
            return max(ends, key=lambda each: _known(each.p))
        found = _left_out(claim, cells, lambda kept: side * (whole(kept) - _threshold(claim)))
        if claim.less and claim.threshold and statistic.kind == "order":  # what is not there cannot last
            found = Chance(max(found.p, by_order(*_columns(cells, names), sign=side).p), found.units)
        return found
    if statistic.kind == "mean":
        return by_sign(side * (_by_unit(claim, cells, names) - statistic.scaled(_threshold(claim))))
    return by_order(*_columns(cells, names), sign=side)


def _difference(claim: "Claim", ours: list[tuple[Cell, Cell | None]], theirs: list[tuple[Cell, Cell | None]]) -> float:
    statistic, side = claim.statistic, _side(claim)
    assert statistic is not None
    names = _common([cell for cell, _ in [*ours, *theirs]])
    if statistic.kind == "mean" and claim.unit != "couple" and not claim.less:
        return by_sign(side * (_by_unit(claim, ours, names) - _by_unit(claim, theirs, names))).p
    mine, others = _whole(claim, ours), _whole(claim, theirs)
    return _left_out(claim, [*ours, *theirs], lambda kept: side * (mine(kept) - others(kept))).p


def _columns(cells: list[tuple[Cell, Cell | None]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    found = np.array([[cell[name] for name in names] for cell, _ in cells])
    return found[:, :, 0], found[:, :, 1]


def _by_unit(claim: "Claim", cells: list[tuple[Cell, Cell | None]], names: Sequence[str]) -> np.ndarray:
    assert claim.statistic is not None
    of = claim.statistic.of_one
    return np.array([np.mean([of(cell[name][0]) for cell, _ in cells]) for name in names])


def _whole(claim: "Claim", cells: list[tuple[Cell, Cell | None]]) -> Callable[[Sequence[str]], float]:
    """The statistic of some units, mean over the cells, less what is taken off."""
    assert claim.statistic is not None
    statistic, other = claim.statistic, claim.less.get("statistic", claim.statistic)

    def of(kept: Sequence[str]) -> float:
        found = []
        for cell, less in cells:
            names = _kept(list(cell), kept) if claim.unit == "couple" else [name for name in kept if name in cell]
            value = statistic.of(*zip(*(cell[name] for name in names), strict=True))
            if less is not None:
                value -= other.of(*zip(*(less[name] for name in names if name in less), strict=True))
            found.append(value)
        return float(np.mean(found))

    return of


def _left_out(claim: "Claim", cells: list[tuple[Cell, Cell | None]], of: Callable[[Sequence[str]], float]) -> Chance:
    every = list(dict.fromkeys(name for cell, _ in cells for name in cell))
    if claim.unit == "couple":
        return by_leaving_out(of, _members(every))
    return by_leaving_out(of, _common([cell for cell, _ in cells]))


def passes(p: float) -> bool:
    """Whether a chance is small enough."""
    return p <= LEVEL + 1e-12
