"""What is proved beside what a run did: drift under its bounds, margins in their fan, data needed against values."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from prefdyn.picture import Line, Plot
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
_BOUNDS: tuple[tuple[str, str, str, Literal["solid", "dashed", "dotted"]], ...] = (
    ("nothing", NOTHING, "what holds of anything", "dotted"),
    ("published", PUBLISHED, "Theorem 4.1 as published", "dashed"),
    ("repaired", REPAIRED, "Theorem 4.1 repaired", "solid"),
)


def drift_plots(
    steps: np.ndarray, drifts: np.ndarray, bounds: Mapping[str, np.ndarray], *, joint: np.ndarray | None = None
) -> tuple[Plot, Plot]:
    """How far the head moves against what is proved, for groups trained alone and for the joint run.

    Args:
        steps: (s,) steps measured, ascending, 0 first.
        drifts: (m, s) drift of each group alone; NaN where not measured.
        bounds: Name → (m,) bound at the last step; every one of them is a line through 0. Names: "published",
            "repaired", "nothing" (what holds without a theorem).
        joint: (s,) drift of the joint run and its bound at the last step as last element, (s + 1,); None to leave out.
    """
    shown, last, moved = steps[steps > 0].astype(float), float(steps[-1]), steps > 0
    place = _middle(drifts[:, -1])
    seen = joint[:-1] if joint is not None else drifts[place]
    own = {"repaired": joint[-1]} if joint is not None else {name: values[place] for name, values in bounds.items()}
    one = [Line(label="measured", x=shown, y=seen[moved], colour=SEEN, width=2.2)]
    every = []
    for name, colour, label, style in _BOUNDS:
        if name in own and math.isfinite(own[name]):
            one.append(Line(label=label, x=shown, y=own[name] * shown / last, colour=colour, style=style))
        if name not in bounds:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = (bounds[name][:, None] * (steps / last))[:, moved] / drifts[:, moved]
        ratio = ratio[np.isfinite(ratio).all(axis=1)]
        if len(ratio):
            middle, low, high = np.median(ratio, axis=0), ratio.min(axis=0), ratio.max(axis=0)
            every.append(Line(label=label, x=shown, y=middle, low=low, high=high, colour=colour, style=style))
    alone = f", {len(drifts)} groups each trained alone" if len(drifts) > 1 else ""
    axes: dict[str, Any] = {"x_label": "Step (logarithmic)", "x_scale": "log", "y_scale": "log"}
    return (
        Plot(
            title="One run: " + ("all groups together" if joint is not None else "the middle group alone"),
            y_label="Drift of the head (Frobenius norm, logarithmic)",
            lines=tuple(one),
            **axes,
        ),
        Plot(
            title=f"Bound over measured{alone}",
            y_label="Bound divided by drift (times, logarithmic)",
            lines=tuple(every),
            marks=(("1 = tight; below, the bound is false", 1.0),),
            **axes,
        ),
    )


def fan_plot(*, sharing: int, times: np.ndarray | None = None, margins: Mapping[str, np.ndarray] | None = None) -> Plot:
    r"""The guaranteed fan of reward margins up to $\tau_1$, the sharper one, the exact curve, and a run.

    Args:
        sharing: Z, the number of values in which one token appears.
        times: (s,) scaled times of the run's margins, $s = \beta^2 h^2 \eta t / K$.
        margins: "least", "mean" and "largest" margin of the run's pairs at those times.
    """
    unit: Any = {"values": 1, "beta": 1.0, "learning_rate": 1.0}  # one step is one unit of scaled time
    end, sharp_end = horizon(**unit), sharp_horizon(**unit, sharing=sharing)
    grid, sharp = np.linspace(0, end, 60), np.linspace(0, sharp_end, 160)
    lines = []
    for x, (low, high), colour, label in (
        (grid, margin_lines(grid), PUBLISHED, "published lines, to τ₁"),
        (sharp, sharp_margin_lines(sharp, sharing=sharing), REPAIRED, f"sharper lines (Z = {sharing})"),
    ):
        style = "dashed" if colour == PUBLISHED else "solid"
        lines.append(Line(label=label, x=x, y=low, low=low, high=high, colour=colour, style=style, width=1.6))
        lines.append(Line(label="", x=x, y=high, colour=colour, style=style, width=1.6))
    exact = noiseless_margin(sharp, "sigmoid")
    lines.append(Line(label="exact, without noise", x=sharp, y=exact, colour=NOTHING, style="dotted", width=1.4))
    last, low, high = 1.04 * sharp_end, 0.0, 1.25
    if times is not None and margins is not None and len(times) > 1:
        last = 1.04 * times[-1] if times[-1] < 0.3 * end else last
        inside = times <= last
        cut = np.count_nonzero(inside) + (not inside.all())
        least, mean, largest = (margins[key][:cut] for key in ("least", "mean", "largest"))
        label = "this run: mean, and all its pairs"
        ends: Any = {"low": least, "high": largest}
        lines.append(Line(label=label, x=times[:cut], y=mean, **ends, colour=SEEN, width=2, marked=True))
        low = float(min(low, np.nanmin(margins["least"][inside])))
        high = float(max(high, np.nanmax(margins["largest"][inside])))
    if last > end:
        lines.append(Line(label="τ₁", x=np.full(2, end), y=np.array([-9.0, 9.0]), style="dotted", width=0.8))
    return Plot(
        x_label="Scaled time β² h² η t / K (no unit)",
        y_label="Reward margin (β × nats)",
        x_range=(0, last),
        y_range=(max(low * 1.05, -2.5), min(high * 1.05, 5)),
        lines=tuple(lines),
        marks=(("log 3", math.log(3)),),
    )


def values_plot(*, model: ClusterModel | None = None) -> Plot:
    """Pairs per cluster that the bound asks for against the number of values, and why it cannot be had there.

    Args:
        model: The user's own dataset as clusters, marked by a point; None for the curves alone.
    """
    values = np.unique(np.geomspace(1, 20_000, 60).round().astype(int))
    needed = {error: np.array([required_pairs(int(k), error) for k in values]) for error in (0.05, 0.99)}
    stated = np.array([required_pairs_for_event(int(k), probability=0.05, form="stated") for k in values])
    room = np.maximum((values + 1) / 5, 1)
    lines = [
        Line(label="error bound below 5 %", x=values, y=needed[0.05], colour=REPAIRED),
        Line(label="error bound below 1 (says anything)", x=values, y=needed[0.99], colour=REPAIRED, style="dashed"),
        Line(label="stated probability at least 95 %", x=values, y=stated, colour=PUBLISHED),
        Line(label="room for K orthogonal values (K + 1 ≤ 5 Q)", x=values, y=room, colour=NOTHING, style="dotted"),
    ]
    if model is not None:
        point = np.array([model.values]), np.array([model.per_cluster])
        lines.append(Line(label="your data", x=point[0], y=point[1], colour=SEEN, style="points"))
    return Plot(
        x_label="Values K (logarithmic)",
        y_label="Pairs per cluster Q (logarithmic)",
        x_scale="log",
        y_scale="log",
        lines=tuple(lines),
    )


def _middle(values: np.ndarray) -> int:
    """Place of the median among the known values."""
    known = np.flatnonzero(np.isfinite(values))
    return int(known[np.argsort(values[known])[len(known) // 2]]) if len(known) else 0
