"""Pictures of 2404.04626's plane: the loss over both probability ratios, its pulls, its flow lines, and other flows.

Every function gives a matplotlib figure, the same each time.
"""

import math
import textwrap
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prefdyn.errors import DataError
from prefdyn.report.palette import AGAINST, GROUPS
from prefdyn.report.sheet import DPI, FAINT, INK, SETTINGS, SOFT, Drawing, axes_at, heading, legend
from prefdyn.theory import gradient_field as field

_LOSS = LinearSegmentedColormap.from_list("loss", ["#f7f9fc", "#cfdff1", "#86afdd"])
_DEEP = LinearSegmentedColormap.from_list("deep", ["#dbe7f5", "#8fb5e0", "#2f68ad"])
_ARROW, _PATH = AGAINST.light, GROUPS[0].light
_FARTHEST = 8.0
"""Where the plane ends however far a run goes: beyond, nothing near the start could be seen."""
_X1, _X2 = "x₁, chosen probability over reference", "x₂, rejected probability over reference"
_FLOWS: dict[field.Coordinates, tuple[str, str, Any]] = {
    "ratios": ("x₁ and x₂ (the paper's plane)", GROUPS[3].light, "-"),
    "probabilities": ("the two probabilities", GROUPS[1].light, (0, (6, 2))),
    "log-ratios": ("log x₁ and log x₂", GROUPS[2].light, (0, (2, 1.5))),
    "logits": ("two logits of a softmax", GROUPS[0].light, (0, (7, 2, 1.5, 2))),
}


def field_plane(
    *,
    beta: float,
    path: Float[np.ndarray, "steps 2"] | None = None,
    ref_chosen: float | None = None,
    ref_rejected: float | None = None,
) -> Figure:
    """The plane from above: loss, arrows of minus its gradient, flow circles, and what probabilities allow.

    Args:
        beta: Temperature of DPO, above 0.
        path: A run's own (x1, x2), one row per recorded step, laid over the plane.
        ref_chosen: Reference probability of the chosen answer; with both, the feasible region is drawn.
        ref_rejected: Reference probability of the rejected answer.

    Raises:
        DataError: The path has a point that is no pair of ratios, or has no point.

    Reference:
        2404.04626, Figure 1 (b); THEORY 4.7.
    """
    path = None if path is None else _checked(path)
    far = 2.0 if path is None else min(max(2.0, 1.12 * float(path.max())), _FARTHEST)
    with matplotlib.rc_context(SETTINGS):
        caption = (
            f"Arrows: downhill, −∇L, in proportion to the strength of the pull ({beta / math.sqrt(2):.3g} at the "
            "start); pale ones are cut to fit, as the pull has no limit towards "
            + ("either edge" if beta < 1 else "x₁\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0")
            + ". Flow of x₁ and x₂ themselves runs along the circles, clockwise, for every β; a model moves its "
            "weights, and leaves them."
        )
        figure, axes = _sheet("Where DPO pulls the two probability ratios of one pair", caption, side=3.1)
        _loss_map(figure, axes, beta, far)
        _circles(axes, far)
        _arrows(axes, beta, far)
        handles: list[Any] = [
            Line2D([], [], color=_ARROW, linewidth=1.3, marker=">", markersize=5),
            Line2D([], [], color=SOFT, linewidth=1, linestyle=(0, (4, 3))),
            Line2D([], [], color=INK, marker="o", markerfacecolor="white", linestyle="none"),
        ]
        names = ["downhill, −∇L", "flow lines, x₁² + x₂² kept", "start: policy = reference"]
        if ref_chosen is not None and ref_rejected is not None and far * (ref_chosen + ref_rejected) > 1:
            _infeasible(axes, far, ref_chosen, ref_rejected)
            handles.append(_impossible())
            names.append(_impossible_name(ref_chosen, ref_rejected))
        axes.plot(1, 1, marker="o", color=INK, markerfacecolor="white", markersize=7, zorder=8)
        if path is not None:
            axes.plot(path[:, 0], path[:, 1], color=_PATH, linewidth=2, zorder=7)
            axes.plot(*path[-1], marker="D", color=_PATH, markeredgecolor="white", markersize=8, zorder=9)
            handles.append(Line2D([], [], color=_PATH, linewidth=2, marker="D", markeredgecolor="white"))
            outside = "\n(beyond the picture)" if path[-1].max() > far else ""
            names.append(f"this run, to ({path[-1, 0]:.3g}, {path[-1, 1]:.3g}){outside}")
        legend(figure, handles, names, 6.75, 5.75, labelspacing=0.7)
        _edges(figure, axes, beta)
        _finish(axes, far)
    return figure


def field_surface(*, beta: float) -> Figure:
    """The loss as a surface over both ratios, with the flow line from the start on it.

    Args:
        beta: Temperature of DPO, above 0.

    Reference:
        2404.04626, Figure 1 (a); THEORY 4.7.
    """
    with matplotlib.rc_context({**SETTINGS, "grid.color": FAINT}):
        figure = Drawing(figsize=(7.2, 5.9), dpi=DPI, facecolor="white")
        heading(figure, "The loss of one pair over its two probability ratios")
        axes: Any = figure.add_axes((0.03, 0.13, 0.94, 0.83), projection="3d")
        side = 2 * np.linspace(0.046, 1, 33) ** 1.5  # finer where the loss bends
        x1, x2 = np.meshgrid(side, side)
        axes.plot_surface(
            x1,
            x2,
            field.field_loss(x1, x2, beta=beta),
            cmap=_DEEP,
            rstride=1,  # faces of equal size: matplotlib leaves memory of others unset, and projects it
            cstride=1,
            linewidth=0.2,
            edgecolor="#ffffff90",
            alpha=0.85,
        )
        first, second = field.flow_point("ratios", ratio=np.geomspace(1, 200, 120))
        axes.plot(first, second, field.field_loss(first, second, beta=beta), color=_ARROW, linewidth=2.2, zorder=10)
        axes.plot([1], [1], [math.log(2)], marker="o", color=INK, markerfacecolor="white", markersize=7, zorder=11)
        axes.view_init(elev=27, azim=-122)
        axes.set_box_aspect((1, 1, 0.72), zoom=1.08)
        axes.set_xlabel("x₁, chosen over reference", labelpad=6)
        axes.set_ylabel("x₂, rejected over reference", labelpad=6)
        axes.set_zlabel("DPO loss (nats)", labelpad=7)
        axes.tick_params(labelsize=8, pad=1)
        for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
            axis.set_pane_color((1, 1, 1, 0))
        caption = (
            f"β = {beta:g}. Ring: the start, policy = reference, loss log 2 = 0.693. Red: the flow of x₁ and x₂ from "
            "there, towards x₂\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0. "
            "The loss is the same along every ray from the origin."
        )
        _caption(figure, caption, 0.42)
    return figure


def field_speeds(*, beta: float, ref_chosen: float = 0.1, ref_rejected: float = 0.4) -> Figure:
    """Where the same loss leads from (1, 1) when four different pairs of numbers are what gradient descent moves.

    Args:
        beta: Temperature of DPO, above 0; it sets the losses on the rays, not the lines.
        ref_chosen: Reference probability of the chosen answer, in (0, 1).
        ref_rejected: Reference probability of the rejected answer, in (0, 1).

    Reference:
        2404.04626, Abstract ("at a faster rate"); THEORY 4.5.
    """
    known: dict[str, Any] = {"ref_chosen": ref_chosen, "ref_rejected": ref_rejected}
    steps = np.geomspace(1, 30, 160)
    with matplotlib.rc_context(SETTINGS):
        caption = (
            f"One pair, reference probabilities {ref_chosen:.3g} and {ref_rejected:.3g}. Dots: x₁/x₂ = 9, where all "
            "four have the same loss. “Rejected falls faster than chosen rises” holds in the paper's plane; elsewhere "
            "it depends on what is trained."
        )
        figure, axes = _sheet("One loss, four answers to “which side moves faster?”", caption, side=2.6)
        lines = {name: field.flow_point(name, ratio=steps, **known) for name in _FLOWS}
        far = 1.08 * max(2.0, *(float(np.max(x1)) for x1, _ in lines.values()))
        high = 1.3
        for ratio in (1, 3, 9, 27):
            end = min(far, high * ratio)
            axes.plot([0, end], [0, end / ratio], color=FAINT, linewidth=0.9, zorder=1)
            loss = float(field.field_loss(ratio, 1.0, beta=beta))
            place = (end, end / ratio)
            beside = ((-14, -3), "right", "top") if ratio <= far / high else ((-3, 5), "right", "bottom")
            axes.annotate(
                f"loss {loss:.3f}",
                place,
                beside[0],
                textcoords="offset points",
                ha=beside[1],
                va=beside[2],
                fontsize=7.5,
                color=SOFT,
            )
        _infeasible(axes, far, ref_chosen, ref_rejected, high=high)
        handles: list[Any] = []
        names = []
        for coordinates, (label, colour, dashes) in _FLOWS.items():
            x1, x2 = lines[coordinates]
            axes.plot(x1, x2, color=colour, linewidth=2.1, linestyle=dashes, zorder=4)
            dot = [float(x) for x in field.flow_point(coordinates, ratio=9.0, **known)]
            axes.plot(*dot, marker="o", color=colour, markeredgecolor="white", markersize=7, zorder=6)
            handles.append(Line2D([], [], color=colour, linewidth=2.1, linestyle=dashes))
            rise, fall = dot[0] - 1, 1 - dot[1]
            how = f"{fall / rise:.2f} per unit that x₁ rises" if rise > 1e-6 else "alone; x₁ stays"
            names.append(f"{label}\nto the dot, x₂ falls {how}")
        axes.plot(1, 1, marker="o", color=INK, markerfacecolor="white", markersize=7, zorder=8)
        handles.append(_impossible())
        names.append(_impossible_name(ref_chosen, ref_rejected))
        axes.annotate("start", (1, 1), (6, 5), textcoords="offset points", fontsize=8)
        figure.text(5.95 / figure.get_figwidth(), 5.82 / figure.get_figheight(), "Gradient descent moves …", fontsize=9)
        legend(figure, handles, names, 5.95, 5.66, labelspacing=0.9, handlelength=3)
        _finish(axes, far)
        axes.set_aspect("auto")
        axes.set_ylim(0, high)
    return figure


# parts --------------------------------------------------------------------------------------------------------------


def _checked(path: Float[np.ndarray, "steps 2"]) -> Float[np.ndarray, "steps 2"]:
    bad = ~(np.isfinite(path) & (path > 0)).all(axis=1)
    if len(path) == 0 or bad.any():
        first = "no points" if len(path) == 0 else f"point {int(np.flatnonzero(bad)[0])} with a ratio not above 0"
        raise DataError(f"path has {first}; give finite (x1, x2) above 0, one row per step")
    return path


def _sheet(title: str, caption: str, *, side: float) -> tuple[Figure, Axes]:
    """A figure with a square plot on the left, room for a key on the right, and a caption below."""
    figure = Drawing(figsize=(6.6 + side, 6.6), dpi=DPI, facecolor="white")
    heading(figure, title)
    _caption(figure, caption, 0.55)
    return figure, axes_at(figure, 0.75, 1.2, 4.8, 4.8)


def _caption(figure: Figure, text: str, top: float) -> None:
    width, height = figure.get_size_inches()
    wrapped = "\n".join(textwrap.wrap(text, int(15.2 * width)))
    figure.text(0.15 / width, top / height, wrapped, va="top", fontsize=8.5, color=SOFT, linespacing=1.35)


def _finish(axes: Axes, far: float) -> None:
    axes.set_xlim(0, far)
    axes.set_ylim(0, far)
    axes.set_xlabel(_X1)
    axes.set_ylabel(_X2)
    axes.tick_params(length=0, pad=6)


def _loss_map(figure: Figure, axes: Axes, beta: float, far: float) -> None:
    side = np.linspace(far / 400, far, 240)
    x1, x2 = np.meshgrid(side, side)
    loss = field.field_loss(x1, x2, beta=beta)
    levels = np.unique(field.field_loss(2.0 ** np.arange(-5.0, 5.5), 1.0, beta=beta))
    span = levels[-1] - levels[0]
    digits = 0 if span >= 100 else max(3, 2 - math.floor(math.log10(span)))
    drawn = axes.contourf(x1, x2, loss, levels=levels, cmap=_LOSS, extend="both")
    axes.contour(x1, x2, loss, levels=levels, colors="white", linewidths=0.6)
    bar = figure.colorbar(drawn, cax=axes_at(figure, 5.7, 1.2, 0.12, 4.8), ticks=levels[::2])
    bar.ax.tick_params(length=0, labelsize=7.5)
    bar.ax.set_yticklabels([f"{level:.{digits}f}" for level in levels[::2]])
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.set_label(f"DPO loss (nats), β = {beta:g}", fontsize=8)


def _circles(axes: Axes, far: float) -> None:
    ratio = np.geomspace(1e-4, 1e4, 400)
    for radius in (0.5, 1.0, math.sqrt(2), 2.0):
        scale = radius * far / 2 / math.sqrt(2)
        scale = 1.0 if radius == math.sqrt(2) else scale
        x1, x2 = field.flow_point("ratios", ratio=ratio, start=(scale, scale))
        axes.plot(x1, x2, color=SOFT, linewidth=1.5 if scale == 1 else 0.9, linestyle=(0, (4, 3)), zorder=3)


def _arrows(axes: Axes, beta: float, far: float) -> None:
    gap = far / 14
    side = gap * (np.arange(14) + 0.5)
    x1, x2 = np.meshgrid(side, side)
    d1, d2 = field.field_gradient(x1, x2, beta=beta)
    norm = np.hypot(d1, d2)
    across, up = np.divide(-np.array([d1, d2]), norm, out=np.zeros((2, *norm.shape)), where=norm > 0)
    unit = gap * 0.75 / float(field.gradient_norm(1.0, 1.0, beta=beta))
    length = np.clip(norm * unit, 0, 1.7 * gap)
    cut = norm * unit > 1.7 * gap
    for rows, alpha in ((~cut, 1.0), (cut, 0.45)):
        axes.quiver(
            x1[rows],
            x2[rows],
            (across * length)[rows],
            (up * length)[rows],
            angles="xy",
            scale_units="xy",
            scale=1,
            color=_ARROW,
            alpha=alpha,
            width=0.0032,
            headwidth=4,
            headlength=4.5,
            headaxislength=4,
            zorder=5,
        )


def _infeasible(axes: Axes, far: float, ref_chosen: float, ref_rejected: float, *, high: float | None = None) -> None:
    high = far if high is None else high
    first = np.linspace(0, far, 400)
    edge = np.nan_to_num(field.feasible_boundary(first, ref_chosen=ref_chosen, ref_rejected=ref_rejected))
    beyond = edge < high
    axes.fill_between(
        first[beyond],
        edge[beyond],
        high,
        facecolor="#8b8a84",
        alpha=0.35,
        hatch="////",
        edgecolor="#ffffff",
        linewidth=0,
        zorder=2,
    )
    axes.plot(first[beyond & (edge > 0)], edge[beyond & (edge > 0)], color=INK, linewidth=1.2, zorder=6)


def _impossible() -> Patch:
    return Patch(facecolor="#8b8a84", alpha=0.45, edgecolor=INK, hatch="////")


def _impossible_name(ref_chosen: float, ref_rejected: float) -> str:
    return f"impossible: both together\nabove probability 1 (reference\n{ref_chosen:g} and {ref_rejected:g})"


def _edges(figure: Figure, axes: Axes, beta: float) -> None:
    """Letters on the four sides, and what both pulls tend to there, in words beside the plane."""
    places = {"A": (0.026, 0.57), "B": (0.57, 0.026), "C": (0.974, 0.57), "D": (0.57, 0.974)}
    lines = []
    for (letter, place), edge in zip(places.items(), field.edge_limits(beta), strict=True):
        axes.text(
            *place,
            letter,
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=8.5,
            fontweight="bold",
            bbox={"boxstyle": "circle,pad=0.22", "facecolor": "white", "edgecolor": SOFT, "linewidth": 0.8},
            zorder=12,
        )
        where = edge.edge.replace("x1", "x₁").replace("x2", "x₂").replace("->", "→").replace("inf", "∞")
        pulls = _strength(edge.chosen, where, beta), _strength(edge.rejected, where, beta)
        lines.append(f"{letter}  {where}:  chosen {pulls[0]}, rejected {pulls[1]}")
    left = 6.75 / figure.get_figwidth()
    height = figure.get_figheight()
    figure.text(left, 3.1 / height, "How hard each side is pulled at the edges", fontsize=9, va="top")
    figure.text(left, 2.85 / height, "\n".join(lines), fontsize=8, va="top", linespacing=1.7, color=SOFT)


def _strength(limit: float, edge: str, beta: float) -> str:
    """The limit of a pull in words, or as a multiple of one over the ratio that stays."""
    if math.isinf(limit):
        return "without limit"
    return "not at all" if limit == 0 else f"{beta:g}/{'x₂' if edge.startswith('x₁') else 'x₁'}"
