"""Pictures of grids of settings: steps to a target over beta and learning rate, and learning order over settings."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from prefdyn.errors import DataError
from prefdyn.picture import Line, Plot
from prefdyn.report.palette import GROUPS, MOST_COLOURED

_LABELLED = 26
"""So many settings can be named along an axis of a matrix."""
_WORDED = 14
"""So many settings have room for words in the cells of a matrix."""


def steps_plot(
    steps: Float[np.ndarray, "b r"],
    betas: Sequence[float],
    learning_rates: Sequence[float],
    *,
    diverged: Bool[np.ndarray, "b r"] | None = None,
    best: tuple[int, int] | None = None,
) -> Plot:
    """How long each beta and learning rate takes to a target, the settings that diverge, and the best one.

    Args:
        steps: Steps to the target, above 0; NaN where it is not reached.
        betas: One per row, in the order to show from the bottom.
        learning_rates: One per column.
        diverged: True where the run diverged; its steps are not shown.
        best: Row and column of the predicted best setting, marked by a frame; None for no mark.

    Raises:
        DataError: The shapes differ, a value is not above 0, or the best setting lies outside the grid.
    """
    shape = (len(betas), len(learning_rates))
    lost = np.zeros(shape, dtype=bool) if diverged is None else diverged
    if steps.shape != shape or lost.shape != shape or not steps.size:
        raise DataError(
            f"steps has shape {steps.shape}, diverged {lost.shape}; give one value per beta and rate {shape}"
        )
    known = np.isfinite(steps) & ~lost
    if (steps[known] <= 0).any():
        raise DataError(
            f"steps holds {steps[known].min():g}, but a target is reached after more than 0; give NaN if never"
        )
    if best is not None and not (0 <= best[0] < shape[0] and 0 <= best[1] < shape[1]):
        raise DataError(f"best is {best}, outside a grid of {shape[0]} betas and {shape[1]} learning rates")
    words = np.where(lost, "div.", [[_short(value) for value in row] for row in steps.tolist()])
    return Plot(
        kind="heat",
        matrix=np.where(known, steps, np.nan)[::-1],
        names=tuple(f"{beta:g}" for beta in betas)[::-1],
        columns=tuple(f"{rate:.3g}" for rate in learning_rates),
        cells=tuple(map(tuple, words[::-1].tolist())),
        framed=None if best is None else (shape[0] - 1 - best[0], best[1]),
        shades="few",
        unit="steps",
        x_label="Learning rate",
        y_label="β",
    )


def counts_words(steps: Float[np.ndarray, "b r"], diverged: Bool[np.ndarray, "b r"], *, target: str) -> str:
    """What the cells say, and how many settings diverge or never get there."""
    known = np.isfinite(steps) & ~diverged
    parts = [f"Until {target}; darker is sooner." if known.any() else f"No setting reaches {target}."]
    if diverged.any():
        parts.append(f"div.: diverged ({int(diverged.sum())} of {steps.size}).")
    never = int((~known & ~diverged).sum())
    return " ".join([*parts, *([f"–: not reached within the run ({never})."] if never else [])])


def order_stability_plot(ranks: Float[np.ndarray, "m s"], settings: Sequence[str]) -> Plot:
    """Rank correlation of the learning order between every two settings.

    Args:
        ranks: Place of each group in the learning order of each setting, 1 first; NaN where it is not learned.
        settings: Names.

    Raises:
        DataError: There are not as many settings as columns, or no group.
    """
    _check_ranks(ranks, settings)
    found = rank_correlations(ranks)
    return Plot(
        kind="heat",
        matrix=found,
        names=tuple(settings) if len(settings) <= _LABELLED else ("",) * len(settings),
        cells=tuple(tuple(map(_two_digits, row)) for row in found.tolist()) if len(settings) <= _WORDED else (),
        limit=1.0,
        unit="rank correlation ρ",
    )


def stability_words(ranks: Float[np.ndarray, "m s"]) -> str:
    """The middle and the lowest of the rank correlations, and how many there are not."""
    found = rank_correlations(ranks)
    off = found[~np.eye(len(found), dtype=bool)]
    off, words = off[np.isfinite(off)], "Spearman's ρ over the groups that both settings learn."
    if len(off):
        words += f" Between settings: median {_two_digits(np.median(off))}, lowest {_two_digits(off.min())}."
    missing = int(np.isnan(found[np.triu_indices(len(found), 1)]).sum())
    if missing:
        pairs = "1 pair" if missing == 1 else f"{missing} pairs"
        words += f" Empty: {pairs} of settings with fewer than 3 groups in common, or all tied."
    if len(found) > _LABELLED:
        words += f" The {len(found)} settings are in the order of the table."
    return words


def learning_order_plot(ranks: Float[np.ndarray, "m s"], groups: Sequence[str], settings: Sequence[str]) -> Plot:
    """Place of each group in the learning order, setting by setting (a bump chart).

    With more than 12 groups, the 12 whose place varies most are coloured and named, the others grey.

    Args:
        ranks: Place of each group in the learning order of each setting, 1 first; NaN where it is not learned.
        groups: Names.
        settings: Names, in the order to show from the left.

    Raises:
        DataError: The names do not match the ranks.
    """
    _check_ranks(ranks, settings)
    if len(groups) != len(ranks):
        raise DataError(f"groups has {len(groups)} names for {len(ranks)} rows of ranks; give one each")
    places, named = np.arange(ranks.shape[1]), most_moving(ranks)
    grey = [row for row in range(len(ranks)) if row not in named]
    lines = [Line(label="", x=places, y=ranks[row], colour="#c4c3bc", width=0.8, marked=True) for row in grey]
    shades = dict(zip(named, GROUPS, strict=False))
    lines += [
        Line(label=groups[row], x=places, y=ranks[row], colour=shades[row].light, width=1.8, marked=True)
        for row in sorted(named, key=lambda row: ranks[row][np.isfinite(ranks[row])][-1])
    ]
    last = float(np.nanmax(ranks)) if np.isfinite(ranks).any() else 1.0
    return Plot(
        lines=tuple(lines), names=tuple(settings), y_range=(last + 0.5, 0.5), y_label="Place in the learning order"
    )


def most_moving(ranks: Float[np.ndarray, "m s"]) -> list[int]:
    """Rows to colour, in order: those whose place varies most, up to as many as there are colours."""
    known = np.isfinite(ranks)
    spread = np.where(known, ranks, -np.inf).max(axis=1) - np.where(known, ranks, np.inf).min(axis=1)
    order = np.argsort(-np.where(known.any(axis=1), spread, -1.0), kind="stable")[:MOST_COLOURED]
    return sorted(int(row) for row in order if known[row].any())


def rank_correlations(ranks: Float[np.ndarray, "m s"]) -> Float[np.ndarray, "s s"]:
    """Spearman's rank correlation between columns, over the rows known in both; NaN below 3 such rows or all tied.

    Example:
        >>> rank_correlations(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """
    count = ranks.shape[1]
    found = np.full((count, count), np.nan)
    for one in range(count):
        for other in range(one, count):
            both = np.isfinite(ranks[:, one]) & np.isfinite(ranks[:, other])
            first, second = (rankdata(ranks[both, column]) for column in (one, other))
            if both.sum() >= 3 and np.ptp(first) > 0 and np.ptp(second) > 0:
                first, second = first - first.mean(), second - second.mean()
                value = float(first @ second / math.sqrt((first @ first) * (second @ second)))
                found[one, other] = found[other, one] = min(1.0, max(-1.0, value))
    return found


# pieces -------------------------------------------------------------------------------------------------------------


def _short(value: float) -> str:
    """A number in at most five characters, as cells have room for.

    Example:
        >>> [_short(v) for v in (0.25, 7.0, 1234.0, 45600.0, 2.5e6, math.nan)]
        ['0.25', '7', '1,234', '45.6k', '2.5M', '–']
    """
    if math.isnan(value):
        return "–"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scale = 1e3 if letter == "k" else size
            return f"{value / scale:.3g}{letter}"
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def _two_digits(value: float) -> str:
    return "–" if math.isnan(value) else f"{value + 0.0:.2f}".replace("-", "−")


def _check_ranks(ranks: np.ndarray, settings: Sequence[str]) -> None:
    if ranks.shape[1] != len(settings) or not ranks.size:
        raise DataError(
            f"ranks has shape {ranks.shape} for {len(settings)} settings; give groups × settings, at least one"
        )
