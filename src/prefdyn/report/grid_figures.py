"""Pictures of grids of settings: steps to a target over beta and learning rate, and learning order over settings."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import rankdata

from prefdyn.errors import DataError
from prefdyn.report.palette import AGAINST, GROUPS, MOST_COLOURED, TOWARDS
from prefdyn.report.sheet import DPI, FAINT, INK, SETTINGS, SOFT, axes_at, heading, plain, widest

_FEW_IS_DARK = LinearSegmentedColormap.from_list("steps", ["#2f68ad", "#8fb5e0", "#e6eef8"])
_AGREEMENT = LinearSegmentedColormap.from_list("agreement", [AGAINST.light, "#f4f3ef", TOWARDS.light], N=41)
_EMPTY, _DIVERGED, _BEST = "#fbfbf9", "#f2e2df", "#d9691a"
_CELL = (0.56, 0.34)
_WIDEST_NAME = 30
_LABELLED = 26
"""So many settings can be named along an axis of a matrix."""


def steps_figure(
    steps: Float[np.ndarray, "b r"],
    betas: Sequence[float],
    learning_rates: Sequence[float],
    *,
    target: str,
    diverged: Bool[np.ndarray, "b r"] | None = None,
    best: tuple[int, int] | None = None,
    reason: str = "",
    title: str = "How long each setting takes",
    unit: str = "steps",
) -> Figure:
    """How long each beta and learning rate takes to a target, the settings that diverge, and the best one.

    Args:
        steps: Steps to the target, above 0; NaN where it is not reached.
        betas: One per row, in the order to show from the bottom.
        learning_rates: One per column.
        target: What is reached, such as "held-out loss 0.35 nats".
        diverged: True where the run diverged; its steps are not shown.
        best: Row and column of the predicted best setting, marked by a frame; None for no mark.
        reason: Why it is the best, told below.
        title: Above the picture.
        unit: Of the values, on the colour bar.

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
    names, columns = [f"{beta:g}" for beta in betas], [f"{rate:.3g}" for rate in learning_rates]
    caption = _grid_caption(steps, known, lost, target)
    if best is not None:
        why = f": {reason}" if reason else ""
        caption += f" Framed: the predicted best, β = {names[best[0]]}, learning rate {columns[best[1]]}{why}."

    with matplotlib.rc_context(SETTINGS):
        left, width, height = 0.62 + _room(names), _CELL[0] * shape[1], _CELL[1] * shape[0]
        figure, bottom = _sheet(title, caption, max(left + width + 1.95, 6.2), height + 0.54)
        axes = axes_at(figure, left, bottom + 0.5, width, height)
        few, many = (float(steps[known].min()), float(steps[known].max())) if known.any() else (1.0, 10.0)
        spread = many >= 10 * few
        norm: Any = LogNorm(few, many) if spread else Normalize(few, many if many > few else few + 1)
        for row, column in np.ndindex(shape):
            value = float(steps[row, column])
            colour: Any = _FEW_IS_DARK(norm(value)) if known[row, column] else _EMPTY
            _cell(axes, row, column, _DIVERGED if lost[row, column] else colour, hatched=bool(lost[row, column]))
            words, ink = _short(value), _ink(colour) if known[row, column] else SOFT
            if lost[row, column]:
                words, ink = "div.", AGAINST.light
            axes.text(column, row, words, ha="center", va="center", fontsize=7.5, color=ink)
        if best is not None:
            axes.add_patch(Rectangle((best[1] - 0.5, best[0] - 0.5), 1, 1, fill=False, edgecolor=_BEST, linewidth=2.6,
                                     zorder=5, clip_on=False))  # fmt: skip
        _squares(axes, names, columns)
        axes.set_xlabel("Learning rate", fontsize=8.5)
        axes.set_ylabel("β", fontsize=9, rotation=0, labelpad=8, va="center")
        if known.any():
            _bar(figure, norm, _FEW_IS_DARK, (left + width + 0.3, bottom + 0.5, 0.12, min(height, 2.4)),
                 f"{unit}{' (logarithmic)' if spread else ''}", _ticks(few, many, spread))  # fmt: skip
        return figure


def order_stability_figure(ranks: Float[np.ndarray, "m s"], settings: Sequence[str]) -> Figure:
    """Rank correlation of the learning order between every two settings.

    Args:
        ranks: Place of each group in the learning order of each setting, 1 first; NaN where it is not learned.
        settings: Names.

    Raises:
        DataError: There are not as many settings as columns, or no group.
    """
    _check_ranks(ranks, settings)
    found = rank_correlations(ranks)
    off = found[~np.eye(len(found), dtype=bool)]
    off = off[np.isfinite(off)]
    named = len(settings) <= _LABELLED
    caption = "Spearman's ρ over the groups that both settings learn; 1 is the same order, −1 the reverse."
    if len(off):
        caption += f" Between settings: median {_minus(np.median(off))}, lowest {_minus(off.min())}."
    missing = int(np.isnan(found[np.triu_indices(len(found), 1)]).sum())
    if missing:
        pairs = "1 pair" if missing == 1 else f"{missing} pairs"
        caption += f" Empty: {pairs} of settings with fewer than 3 groups in common, or all tied."
    if not named:
        caption += f" The {len(settings)} settings are in the order of the table."
    with matplotlib.rc_context(SETTINGS):
        names = [plain(name, _WIDEST_NAME) for name in settings] if named else []
        size = 0.4 if named and len(settings) <= 14 else max(0.1, min(0.3, 6 / len(settings)))
        side, room = size * len(settings), 0.3 + _room(names)
        figure, bottom = _sheet(
            "How stable the learning order is", caption, max(room + side + 1.3, 6.2), side + room + 0.1
        )
        axes = axes_at(figure, room, bottom + room, side, side)
        norm = Normalize(-1, 1)
        shown = np.ma.masked_invalid(found)
        axes.set_facecolor(_EMPTY)
        axes.pcolormesh(
            np.arange(len(found) + 1) - 0.5, np.arange(len(found) + 1) - 0.5, shown, cmap=_AGREEMENT, norm=norm
        )
        if size >= 0.4:
            for row, column in np.ndindex(found.shape):
                value = float(found[row, column])
                words, ink = ("–", SOFT) if math.isnan(value) else (_minus(value), _ink(_AGREEMENT(norm(value))))
                axes.text(column, row, words, ha="center", va="center", fontsize=7, color=ink)
        _squares(axes, names, names, upright=True)
        axes.invert_yaxis()
        bar_height = min(max(side, 1.0), 2.4)
        _bar(figure, norm, _AGREEMENT, (room + side + 0.25, bottom + room + side - bar_height, 0.12, bar_height),
             "rank correlation ρ", [-1, 0, 1])  # fmt: skip
        return figure


def learning_order_figure(ranks: Float[np.ndarray, "m s"], groups: Sequence[str], settings: Sequence[str]) -> Figure:
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
    count = ranks.shape[1]
    named = _most_moving(ranks)
    caption = "Place 1 is learned first. A line breaks where a group is not learned."
    if len(named) < len(groups):
        caption += f" Coloured: the {len(named)} of {len(groups)} groups whose place varies most."
    with matplotlib.rc_context(SETTINGS):
        pitch = max(0.16, min(0.9, 6 / count))
        thin = math.ceil(0.19 / pitch)
        labels = [plain(name, _WIDEST_NAME) for name in settings]
        names = [plain(groups[row], _WIDEST_NAME) for row in named]
        width, height = pitch * max(count - 1, 1) + 0.4, max(1.4, min(5.0, 0.26 * len(ranks)), 0.21 * len(named))
        foot, right = 0.15 + _room(labels), _room(names)
        figure, bottom = _sheet(
            "Learning order per setting", caption, max(0.75 + width + 0.45 + right + 0.2, 6.2), height + foot + 0.1
        )
        axes = axes_at(figure, 0.75, bottom + foot, width, height)
        last = float(np.nanmax(ranks)) if np.isfinite(ranks).any() else 1.0
        axes.set_ylim(last + 0.5, 0.5)
        margin = 0.2 / pitch
        axes.set_xlim(-margin, max(count - 1, 1) + margin)
        places = np.arange(count)
        for row in range(len(ranks)):
            if row not in named:
                axes.plot(places, ranks[row], color="#c4c3bc", linewidth=0.8, marker="o", markersize=1.5)
        ends = [_end(ranks[row]) for row in named]
        at = _spread([end[1] for end in ends], gap=0.2 * last / height, high=last + 0.4)
        for row, name, end, y, shade in zip(named, names, ends, at, GROUPS, strict=False):
            colour = shade.light
            axes.plot(places, ranks[row], color=colour, linewidth=1.8, marker="o", markersize=4.5, zorder=4)
            edge = axes.get_xlim()[1]
            axes.plot([end[0], edge, edge + 0.3 / pitch], [end[1], end[1], y], color=colour, linewidth=0.7,
                      linestyle=":", clip_on=False)  # fmt: skip
            axes.text(edge + 0.36 / pitch, y, name, ha="left", va="center", fontsize=8, color=colour)
        axes.set_xticks(places[::thin], labels[::thin], rotation=90, fontsize=8)
        step = max(1, math.ceil(last * 0.2 / height))
        axes.set_yticks(np.arange(1, last + 0.5, step))
        axes.set_yticklabels([f"{place:.0f}" for place in np.arange(1, last + 0.5, step)])
        axes.set_ylabel("Place in the learning order", fontsize=8.5)
        axes.grid(True, axis="x", color=FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return figure


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


def _sheet(title: str, caption: str, width: float, height: float) -> tuple[Figure, float]:
    """A figure with a heading and a caption below, and the height in inches at which the picture begins."""
    lines = textwrap.wrap(caption, int((width - 0.3) / 0.069))
    bottom = 0.2 + 0.165 * len(lines)
    figure = Figure(figsize=(width, bottom + height + 0.5), dpi=DPI, facecolor="white")
    tall = figure.get_figheight()
    heading(figure, title)
    figure.text(0.15 / width, 0.1 / tall, "\n".join(lines), va="bottom", fontsize=8, color=SOFT, linespacing=1.35)
    return figure, bottom


def _cell(axes: Axes, row: int, column: int, colour: Any, *, hatched: bool) -> None:
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=1))
    if hatched:
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="none", edgecolor="#e3c5bf", hatch="////",
                                 linewidth=0))  # fmt: skip


def _squares(axes: Axes, rows: Sequence[str], columns: Sequence[str], *, upright: bool = False) -> None:
    """Ticks in the middle of cells, nothing else around them."""
    if not upright:
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xticks(range(len(columns)), columns, fontsize=8 if upright else 7.5, rotation=90 if upright else 0)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bar(figure: Figure, norm: Any, colours: Any, place: tuple[float, ...], label: str, ticks: Sequence[float]) -> None:
    left, low, width, height = place
    side = axes_at(figure, left, low, width, height)
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=side)
    bar.set_ticks(list(ticks), labels=[_short(tick) if tick > 0 else _minus(tick, 0) for tick in ticks])
    bar.minorticks_off()
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    side.tick_params(length=0, labelsize=7.5)
    bar.set_label(label, fontsize=8)


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    """Both ends, and round values between that keep away from them."""
    if high <= low:
        return [low]
    if logarithmic:
        inside = [10.0**k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        gap = 0.12 * math.log(high / low)
        return [low, *(v for v in inside if math.log(v / low) > gap and math.log(high / v) > gap), high]
    return [low, (low + high) / 2, high]


def _grid_caption(steps: Float[np.ndarray, "b r"], known: np.ndarray, lost: np.ndarray, target: str) -> str:
    parts = [f"Until {target}; darker is sooner." if known.any() else f"No setting reaches {target}."]
    if lost.any():
        parts.append(f"div.: diverged ({int(lost.sum())} of {steps.size}).")
    never = int((~known & ~lost).sum())
    if never:
        parts.append(f"–: not reached within the run ({never}).")
    return " ".join(parts)


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


def _minus(value: float, digits: int = 2) -> str:
    return f"{value + 0.0:.{digits}f}".replace("-", "−")


def _ink(colour: Any) -> str:
    """White or dark, whichever can be read on the colour."""
    red, green, blue = colour[:3]
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.62 else INK


def _room(names: Sequence[str]) -> float:
    """Inches that the widest of the names takes."""
    return widest(names, 8) + 0.06


def _check_ranks(ranks: np.ndarray, settings: Sequence[str]) -> None:
    if ranks.shape[1] != len(settings) or not ranks.size:
        raise DataError(
            f"ranks has shape {ranks.shape} for {len(settings)} settings; give groups × settings, at least one"
        )


def _most_moving(ranks: Float[np.ndarray, "m s"]) -> list[int]:
    """Rows to colour, in order: those whose place varies most, up to as many as there are colours."""
    known = np.isfinite(ranks)
    spread = np.where(known, ranks, -np.inf).max(axis=1) - np.where(known, ranks, np.inf).min(axis=1)
    order = np.argsort(-np.where(known.any(axis=1), spread, -1.0), kind="stable")[:MOST_COLOURED]
    return sorted(int(row) for row in order if known[row].any())


def _end(ranks: Float[np.ndarray, " s"]) -> tuple[float, float]:
    """Last setting in which the group has a place, and the place."""
    last = int(np.flatnonzero(np.isfinite(ranks))[-1])
    return float(last), float(ranks[last])


def _spread(values: Sequence[float], *, gap: float, high: float) -> list[float]:
    """The values moved apart to at least `gap`, in their order, ending at `high` at most."""
    order = np.argsort(values, kind="stable")
    found = np.array(values, dtype=np.float64)[order]
    for place in range(1, len(found)):
        found[place] = max(found[place], found[place - 1] + gap)
    for place in range(len(found) - 1, -1, -1):
        found[place] = min(found[place], high - gap * (len(found) - 1 - place))
    moved = np.empty(len(found))
    moved[order] = found
    return moved.tolist()
