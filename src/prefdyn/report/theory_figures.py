"""What is proved beside what a run did: drift under its bounds, margins in their fan, data needed against values."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from prefdyn.report.figures import FAINT, SOFT, heading
from prefdyn.theory.value_scaling import (
    ClusterModel,
    horizon,
    margin_lines,
    noiseless_margin,
    required_pairs,
    required_pairs_for_event,
    sharp_horizon,
    sharp_margin_lines,
)

PUBLISHED, REPAIRED, SEEN, NOTHING = "#d9691a", "#2a78d6", "#1f1f1d", "#8c8b84"
"""Colours: a bound as published, as repaired or sharpened, what a run did, and what holds of anything."""


def drift_figure(
    steps: np.ndarray, drifts: np.ndarray, bounds: Mapping[str, np.ndarray], *, joint: np.ndarray | None = None
) -> Figure:
    """How far the head moves against what is proved, for groups trained alone and for the joint run.

    Args:
        steps: (s,) steps measured, ascending, 0 first.
        drifts: (m, s) drift of each group alone; NaN where not measured.
        bounds: Name → (m,) bound at the last step; every one of them is a line through 0. Names: "published",
            "repaired", "nothing" (what holds without a theorem).
        joint: (s,) drift of the joint run and its bound at the last step as last element, (s + 1,); None to leave out.
    """
    figure = Figure(figsize=(9.6, 4.3), facecolor="white")
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1, 1.15)})
    figure.subplots_adjust(left=0.085, right=0.985, bottom=0.14, top=0.84, wspace=0.24)
    heading(figure, "How far the head moves, and how far it may")
    shown = steps[steps > 0].astype(float)
    last = float(steps[-1])

    place = _middle(drifts[:, -1])
    left.set_title("One run: " + ("all groups together" if joint is not None else "the middle group alone"))
    seen = joint[:-1] if joint is not None else drifts[place]
    left.loglog(shown, seen[steps > 0], color=SEEN, linewidth=2.2, label="measured")
    own = {"repaired": joint[-1]} if joint is not None else {name: values[place] for name, values in bounds.items()}
    for name, colour, label in _BOUNDS:
        if name in own and math.isfinite(own[name]):
            left.loglog(shown, own[name] * shown / last, color=colour, linewidth=1.6, dashes=_DASH[name], label=label)
    left.set_xlabel("Step (logarithmic)")
    left.set_ylabel("Drift of the head (Frobenius norm, logarithmic)")
    left.legend(frameon=False, fontsize=8, loc="upper left")

    right.set_title(
        f"Bound over measured, {len(drifts)} groups each trained alone" if len(drifts) > 1 else "Bound over measured"
    )
    for name, colour, label in _BOUNDS:
        if name not in bounds:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = (bounds[name][:, None] * (steps / last))[:, steps > 0] / drifts[:, steps > 0]
        ratio = ratio[np.isfinite(ratio).all(axis=1)]
        if not len(ratio):
            continue
        right.fill_between(shown, ratio.min(axis=0), ratio.max(axis=0), color=colour, alpha=0.18, linewidth=0)
        right.loglog(shown, np.median(ratio, axis=0), color=colour, linewidth=1.8, dashes=_DASH[name], label=label)
    right.axhline(1, color=SEEN, linewidth=1)
    right.annotate("1 = tight; below, the bound is false", (shown[-1], 1), (0, -4), textcoords="offset points",
                   ha="right", va="top", fontsize=7.5, color=SOFT)  # fmt: skip
    low, high = right.get_ylim()
    right.set_ylim(min(low, 0.55), 6 * high)  # room for the legend
    right.set_xlabel("Step (logarithmic)")
    right.set_ylabel("Bound divided by drift (times, logarithmic)")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in (left, right):
        _plain_axes(axes)
    return figure


_BOUNDS = (
    ("nothing", NOTHING, "what holds of anything"),
    ("published", PUBLISHED, "Theorem 4.1 as published"),
    ("repaired", REPAIRED, "Theorem 4.1 repaired"),
)
_DASH: dict[str, Any] = {"nothing": (1, 2), "published": (5, 2.5), "repaired": (1, 0)}


def fan_figure(
    *,
    sharing: int,
    times: np.ndarray | None = None,
    margins: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    r"""The guaranteed fan of reward margins up to $\tau_1$, the sharper one, the exact curve, and a run.

    Args:
        sharing: Z, the number of values in which one token appears.
        times: (s,) scaled times of the run's margins, $s = \beta^2 h^2 \eta t / K$.
        margins: "least", "mean" and "largest" margin of the run's pairs at those times.
    """
    figure = Figure(figsize=(8.4, 4.6), facecolor="white")
    axes = figure.add_axes((0.085, 0.125, 0.62, 0.73))
    heading(figure, "The margins that Theorem 4.2 promises")
    unit: Any = {"values": 1, "beta": 1.0, "learning_rate": 1.0}  # one step is one unit of scaled time
    end, sharp_end = horizon(**unit), sharp_horizon(**unit, sharing=sharing)
    grid, sharp = np.linspace(0, end, 60), np.linspace(0, sharp_end, 160)
    lower, upper = margin_lines(grid)
    sharp_lower, sharp_upper = sharp_margin_lines(sharp, sharing=sharing)
    axes.fill_between(grid, lower, upper, color=PUBLISHED, alpha=0.14, linewidth=0)
    for line in (lower, upper):
        axes.plot(
            grid,
            line,
            color=PUBLISHED,
            linewidth=1.6,
            dashes=(5, 2.5),
            label="published lines, to τ₁" if line is lower else None,
        )
    axes.fill_between(sharp, sharp_lower, sharp_upper, color=REPAIRED, alpha=0.14, linewidth=0)
    for line in (sharp_lower, sharp_upper):
        axes.plot(
            sharp,
            line,
            color=REPAIRED,
            linewidth=1.6,
            label=f"sharper lines (Z = {sharing})" if line is sharp_lower else None,
        )
    axes.plot(
        sharp,
        noiseless_margin(sharp, "sigmoid"),
        color=NOTHING,
        linewidth=1.4,
        dashes=(1, 2),
        label="exact, without noise",
    )
    short = times is not None and len(times) > 1 and times[-1] < 0.3 * end
    last = 1.04 * (times[-1] if short and times is not None else sharp_end)
    if times is not None and margins is not None and len(times) > 1:
        inside = times <= last
        cut = np.count_nonzero(inside) + (not inside.all())
        axes.fill_between(
            times[:cut], margins["least"][:cut], margins["largest"][:cut], color=SEEN, alpha=0.10, linewidth=0
        )
        axes.plot(
            times[:cut],
            margins["mean"][:cut],
            color=SEEN,
            linewidth=2,
            marker="o",
            markersize=3,
            label="this run: mean, and all its pairs",
        )
    if last > end:
        axes.axvline(end, color=SOFT, linewidth=0.8, linestyle=":")
        axes.annotate(
            "τ₁",
            (end, 1),
            (3, -2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=SOFT,
        )
    axes.axhline(math.log(3), color=SOFT, linewidth=0.8, linestyle=":")
    axes.annotate("log 3", (last, math.log(3)), (-2, 2), textcoords="offset points", ha="right", fontsize=8, color=SOFT)
    low = (
        0.0
        if margins is None
        else float(min(0.0, np.nanmin(margins["least"][times <= last])))
        if times is not None
        else 0.0
    )
    high = 1.25 if margins is None or times is None else float(max(1.25, np.nanmax(margins["largest"][times <= last])))
    axes.set_xlim(0, last)
    axes.set_ylim(max(low * 1.05, -2.5), min(high * 1.05, 5))
    axes.set_xlabel("Scaled time β² h² η t / K (no unit)")
    axes.set_ylabel("Reward margin (β × nats)")
    _plain_axes(axes)
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.715, 0.86)
    )
    return figure


def values_figure(*, model: ClusterModel | None = None) -> Figure:
    """Pairs per cluster that the bound asks for against the number of values, and why it cannot be had there.

    Args:
        model: The user's own dataset as clusters, marked by a point; None for the curves alone.
    """
    figure = Figure(figsize=(9.2, 4.6), facecolor="white")
    axes = figure.add_axes((0.095, 0.125, 0.535, 0.73))
    heading(figure, "How much data each value needs, as proved")
    values = np.unique(np.geomspace(1, 20_000, 60).round().astype(int))
    for error, colour, dashes in ((0.05, REPAIRED, (1, 0)), (0.99, REPAIRED, (5, 2.5))):
        label = "error bound below 5 %" if error < 0.5 else "error bound below 1 (says anything)"
        needed = [required_pairs(int(k), error) for k in values]
        axes.loglog(values, needed, color=colour, linewidth=1.8, dashes=dashes, label=label)
    stated = [required_pairs_for_event(int(k), probability=0.05, form="stated") for k in values]
    axes.loglog(values, stated, color=PUBLISHED, linewidth=1.8, label="stated probability at least 95 %")
    axes.loglog(
        values,
        np.maximum((values + 1) / 5, 1),
        color=NOTHING,
        linewidth=1.4,
        dashes=(1, 2),
        label="room for K orthogonal values (K + 1 ≤ 5 Q)",
    )
    if model is not None:
        axes.loglog([model.values], [model.per_cluster], "o", color=SEEN, markersize=7, label="your data")
    axes.set_xlabel("Values K (logarithmic)")
    axes.set_ylabel("Pairs per cluster Q (logarithmic)")
    _plain_axes(axes)
    figure.legend(
        *axes.get_legend_handles_labels(), frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.64, 0.86)
    )
    return figure


def _middle(values: np.ndarray) -> int:
    """Place of the median among the known values."""
    known = np.flatnonzero(np.isfinite(values))
    return int(known[np.argsort(values[known])[len(known) // 2]]) if len(known) else 0


def _tick(value: float, _: Any = None) -> str:
    """A power of ten as people write it: 0.01, 10, 10,000, 1e+09.

    Example:
        >>> _tick(0.01), _tick(10000.0), _tick(1e9)
        ('0.01', '10,000', '1e+09')
    """
    return f"{value:,.0f}" if 1 <= value < 1e6 else f"{value:g}"


def _plain_axes(axes: Any) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(FuncFormatter(_tick))
            axis.set_minor_formatter(NullFormatter())
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
