"""Pictures of a training run: how far its modules moved, and its updates one by one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure

from prefdyn.errors import DataError
from prefdyn.picture import Line, Plot
from prefdyn.report.palette import GROUPS
from prefdyn.report.sheet import DPI, FAINT, INK, SETTINGS, SOFT, axes_at, heading, log_ticks, plain, plain_log, widest

_MOST_LINES = 8
_FAR_IS_DARK = LinearSegmentedColormap.from_list("drift", ["#e6eef8", "#8fb5e0", "#2f68ad", "#173a66"])
_WIDEST_NAME = 38
_THIN, _THICK = "#a9c7ea", "#1f62b5"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleDrift:
    """One trained module: its place in the model and how far it moved."""

    name: str
    kind: str
    """Its name with a star for the number of its layer."""
    layer: int | None
    """None: it is in no numbered layer."""
    steps: Float[np.ndarray, " s"]
    drift: Float[np.ndarray, " s"]
    """Frobenius norm of its change since the start."""
    norm: float
    """That of its weights at the start; NaN: not known, as of adapters."""


def drift_figure(modules: Sequence[ModuleDrift], *, relative: bool) -> Figure:
    """How far each module moved: along the run the foremost, at the end all of them, by kind and layer.

    Args:
        modules: Of one run, the one that moved most first.
        relative: Over the norm of the weights at the start.

    Raises:
        DataError: There is no module.
    """
    if not modules:
        raise DataError("no module is given; give at least one")
    ends = {item.name: float(item.drift[-1]) / (item.norm if relative else 1.0) for item in modules}
    ranked = sorted(modules, key=lambda item: -ends[item.name])
    kinds = list(dict.fromkeys(item.kind for item in sorted(modules, key=lambda item: (item.layer is None, item.kind))))
    layers = sorted({item.layer for item in modules if item.layer is not None})
    unit = "Change over norm at the start" if relative else "Norm of the change"
    with matplotlib.rc_context(SETTINGS):
        shown = [plain(item.name, _WIDEST_NAME) for item in ranked[:_MOST_LINES]]
        left, across, names = 0.85, 3.3, widest(shown, 7.5) + 0.3
        mapped = len(modules) > 1
        columns = max(1, len(layers)) + any(item.layer is None for item in modules if layers)
        side, drop = min(0.34, 5.0 / columns), 0.24
        rows = widest([plain(kind, _WIDEST_NAME) for kind in kinds], 8) + 0.2
        body = max(2.3, drop * len(kinds), 0.2 * len(shown))
        width = left + across + names + ((rows + side * columns + 1.15) if mapped else 0.1)
        figure = Figure(figsize=(max(width, 5.2), body + 1.35), dpi=DPI, facecolor="white")
        heading(figure, "How far each module moved")
        axes = axes_at(figure, left, 0.6, across, body)
        _lines(axes, ranked[:_MOST_LINES], shown, relative=relative)
        axes.set_ylabel(f"{unit} (logarithmic)" if axes.get_yscale() == "log" else unit, fontsize=8.5)
        axes.set_title(f"The {len(shown)} that moved most" if len(shown) < len(modules) else "Along the run")
        if mapped:
            start = left + across + names + rows
            high = drop * len(kinds)
            _map(figure, (start, 0.6 + body - high, side * columns, high), ranked, kinds, layers, ends, unit)
        return figure


def updates_plot(steps: Float[np.ndarray, " u"], label: str, values: Float[np.ndarray, " u"]) -> Plot:
    """A quantity of every update, with its running mean over a fiftieth of the run.

    Args:
        steps: Of the updates, ascending.
        label: With the unit.
        values: NaN where not measured.
    """
    known = np.isfinite(values)
    label, values = _scaled(label, values)
    at, seen = steps[known], values[known]
    thin = np.unique(np.linspace(0, len(at) - 1, min(len(at), 2000)).astype(int))
    window = max(1, len(at) // 50)
    mean = np.convolve(seen, np.full(window, 1 / window), mode="valid")
    lines = [Line(label="", x=at[(window - 1) // 2 :][: len(mean)], y=mean, colour=_THICK, width=1.6)]
    if window > 1:
        lines.insert(0, Line(label="", x=at[thin], y=seen[thin], colour=_THIN, width=0.8))
    level = len(seen) > 0 and np.ptp(seen) == 0
    return Plot(
        title=label,
        x_label="Step",
        x_range=(float(steps[0]), float(steps[-1])),
        lines=tuple(lines),
        y_range=(0, 1.6 * float(seen[0]) or 1.0) if level else (None, None),
    )


# pieces -------------------------------------------------------------------------------------------------------------


def _scaled(label: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """Small numbers in units of a power of ten, which the label tells."""
    most = float(np.nanmax(np.abs(values), initial=0.0))
    if not 0 < most < 1e-2:
        return label, values
    power = math.floor(math.log10(most))
    return f"{label} (× 1e{power})".replace("-", "−"), values / 10.0**power


def _lines(axes: Axes, modules: Sequence[ModuleDrift], names: Sequence[str], *, relative: bool) -> None:
    last = max(float(item.steps[-1]) for item in modules)
    ends = []
    for item, shade in zip(modules, GROUPS, strict=False):
        values = item.drift / (item.norm if relative else 1.0)
        moved = (item.steps > 0) & (values > 0)
        axes.plot(np.log10(1 + item.steps[moved]), values[moved], color=shade.light, linewidth=1.7)
        ends.append(float(values[-1]))
    if min(ends) > 0:
        axes.set_yscale("log")
        plain_log(axes.yaxis, *axes.get_ylim())
    ticks = [tick for tick in log_ticks(last) if tick > 0]
    ticks = [tick for tick in ticks if str(tick)[0] == "1"] if len(ticks) > 7 else ticks
    axes.set_xticks(np.log10(1 + np.array(ticks)), [f"{tick:,}" for tick in ticks])
    axes.set_xlim(math.log10(2) - 0.03, math.log10(1 + last))
    axes.set_xlabel("Step (logarithmic)")
    axes.grid(True, axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both", labelsize=8)
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"

    def up(value: float) -> float:
        if log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    # names beside the ends of their lines, pushed apart so that none lies on another
    tall = axes.get_position().height * axes.figure.get_figheight()  # pyright: ignore[reportAttributeAccessIssue]
    gap = 0.145 / tall
    at: list[tuple[int, float]] = []
    for place in sorted(range(len(ends)), key=lambda place: ends[place]):
        at.append((place, max(up(ends[place]), at[-1][1] + gap if at else 0.0)))
    over = max(0.0, at[-1][1] - 1.0)
    for place, level in ((place, level - over) for place, level in at):
        shade = GROUPS[place].light
        axes.plot([1, 1.02, 1.05], [up(ends[place]), up(ends[place]), level], color=shade, linewidth=0.7, clip_on=False,
                  transform=axes.transAxes)  # fmt: skip
        axes.text(1.06, level, names[place], transform=axes.transAxes, fontsize=7.5, color=shade, va="center")


def _map(
    figure: Figure,
    box: tuple[float, float, float, float],
    modules: Sequence[ModuleDrift],
    kinds: Sequence[str],
    layers: Sequence[int],
    ends: dict[str, float],
    unit: str,
) -> None:
    """Every module at the end: kinds down, layers across, those in no layer in a column of their own."""
    loose = any(item.layer is None for item in modules) and bool(layers)
    columns = [*layers, *([None] if loose else [])] or [None]
    values = np.full((len(kinds), len(columns)), math.nan)
    for item in modules:
        values[kinds.index(item.kind), columns.index(item.layer)] = ends[item.name]
    axes = axes_at(figure, *box)
    known = values[np.isfinite(values) & (values > 0)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    norm: Normalize = LogNorm(low, high) if len(known) and high > 3 * low else Normalize(0, high or 1.0)
    axes.set_facecolor("#fbfbf9")
    image = axes.pcolormesh(
        np.arange(len(columns) + 1) - 0.5, np.arange(len(kinds) + 1) - 0.5, np.ma.masked_invalid(values),
        cmap=_FAR_IS_DARK, norm=norm, edgecolors="white", linewidth=0.8,
    )  # fmt: skip
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_yticks(range(len(kinds)), [plain(kind, _WIDEST_NAME) for kind in kinds], fontsize=8, color=INK)
    step = max(1, math.ceil(0.22 * len(columns) / box[2]))
    labels = ["–" if layer is None else f"{layer}" for layer in columns]
    if layers:
        axes.set_xticks(range(0, len(columns), step), labels[::step], fontsize=7.5)
        axes.set_xlabel("Layer" + (" (–: in none)" if loose else ""), fontsize=8)
    else:
        axes.set_xticks([])
    axes.set_title("All, at the end")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    high_bar = min(max(box[3], 1.0), 2.2)
    side = axes_at(figure, box[0] + box[2] + 0.16, box[1] + box[3] - high_bar, 0.1, high_bar)
    bar = figure.colorbar(image, cax=side)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.minorticks_off()
    ticks = [low, math.sqrt(low * high), high] if isinstance(norm, LogNorm) else [0.0, (high or 1.0) / 2, high or 1.0]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    side.tick_params(length=0, labelsize=7)
    bar.set_label(unit + (" (logarithmic)" if isinstance(norm, LogNorm) else ""), fontsize=7.5, color=SOFT)
