"""Pictures of a training run: how far its modules moved, and its updates one by one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from prefdyn.errors import DataError
from prefdyn.picture import Line, Plot
from prefdyn.report.palette import GROUPS

_MOST_LINES = 8
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


def drift_plot(modules: Sequence[ModuleDrift], *, relative: bool) -> Plot:
    """How far the modules that moved most have moved, along the run.

    Args:
        modules: Of one run, at least one.
        relative: Over the norm of the weights at the start.

    Raises:
        DataError: There is no module.
    """
    if not modules:
        raise DataError("no module is given; give at least one")
    ends = {item.name: _end(item, relative=relative) for item in modules}
    ranked = sorted(modules, key=lambda item: -ends[item.name])[:_MOST_LINES]
    log = min(ends[item.name] for item in ranked) > 0
    lines = []
    for item, shade in zip(ranked, GROUPS, strict=False):
        values = item.drift / (item.norm if relative else 1.0)
        moved = (item.steps > 0) & (values > 0)
        lines.append(Line(label=item.name, x=item.steps[moved], y=values[moved], colour=shade.light))
    return Plot(
        title=f"The {len(ranked)} that moved most" if len(ranked) < len(modules) else "Along the run",
        x_label="Step (logarithmic)",
        y_label=f"{_unit(relative)} (logarithmic)" if log else _unit(relative),
        x_scale="log",
        y_scale="log" if log else "linear",
        lines=tuple(lines),
    )


def modules_plot(modules: Sequence[ModuleDrift], *, relative: bool) -> Plot:
    """How far every module has moved at the end: kinds down, layers across, those in no layer in a column of their own.

    Args:
        modules: Of one run, at least one.
        relative: Over the norm of the weights at the start.
    """
    kinds = list(dict.fromkeys(item.kind for item in sorted(modules, key=lambda item: (item.layer is None, item.kind))))
    layers: list[int | None] = [*sorted({item.layer for item in modules if item.layer is not None})]
    layers += [None] if any(item.layer is None for item in modules) else []
    values = np.full((len(kinds), len(layers)), math.nan)
    for item in modules:
        values[kinds.index(item.kind), layers.index(item.layer)] = _end(item, relative=relative)
    return Plot(
        kind="heat",
        matrix=values,
        names=tuple(kinds),
        columns=tuple("–" if layer is None else f"{layer}" for layer in layers),
        shades="far",
        unit=_unit(relative),
        x_label="Layer (–: in none)" if None in layers else "Layer",
    )


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


def _end(item: ModuleDrift, *, relative: bool) -> float:
    return float(item.drift[-1]) / (item.norm if relative else 1.0)


def _unit(relative: bool) -> str:
    return "Change over norm at the start" if relative else "Norm of the change"
