"""What a training run measured besides its groups: how far each module moved, and its updates."""

import math
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn.diagnostics.many import SHOWN_GROUPS
from prefdyn.dynamics.module_shares import placed, short
from prefdyn.picture import Picture
from prefdyn.report.explained import explained
from prefdyn.report.folders import RunFolder
from prefdyn.report.reading import reading, remark_sentence
from prefdyn.report.text import readable, visible
from prefdyn.report.training_figures import ModuleDrift, drift_plot, modules_plot, updates_plot

_UPDATES = (
    ("loss", "Loss of the batch (nats)"),
    ("grad_norm", "Gradient norm, before clipping"),
    ("learning_rate", "Learning rate"),
)


def reading_chapter(run: RunFolder) -> dict[str, Any] | None:
    """How to read this run's curves; None where the folder holds none."""
    if run.trajectory is None:
        return None
    remarks = reading(run.summary, run.trajectory, updates=run.updates, pairs=run.pairs)
    return {
        "sentence": remark_sentence(remarks),
        "explained": explained(run.summary, run.trajectory),
        "remarks": [
            {
                "severity": remark.severity,
                "title": remark.title,
                "says": readable(remark.says),
                "advice": readable(remark.advice),
                "groups": [visible(name) for name in remark.groups[:SHOWN_GROUPS]],
                "count": len(remark.groups),
            }
            for remark in remarks
        ],
    }


def training_drawings(run: RunFolder) -> list[Picture]:
    """How far each module moved, and the updates one by one, where the folder has them."""
    return [*_modules(run), *_updates(run)]


def module_drifts(run: RunFolder) -> list[ModuleDrift]:
    """Every trained module with its drift along the run, the one that moved most first."""
    if run.modules is None:
        return []
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for row in run.modules.to_pylist():
        if not math.isnan(number(row["drift"])):
            rows.setdefault(str(row["module"]), []).append((row["step"], number(row["drift"]), number(row["norm"])))
    found = []
    for name, measured in rows.items():
        steps, drifts, norms = (np.array(column, dtype=np.float64) for column in zip(*measured, strict=True))
        layer, kind = placed(name)
        found.append(
            ModuleDrift(
                name=visible(short(name)),
                kind=visible(kind),
                layer=layer,
                steps=steps,
                drift=drifts,
                norm=float(norms[-1]),
            )
        )
    return sorted(found, key=lambda item: -float(item.drift[-1]))


def _modules(run: RunFolder) -> list[Picture]:
    found = module_drifts(run)
    if not found or max(len(item.steps) for item in found) < 2:
        return []
    relative = all(item.norm > 0 for item in found)
    what = (
        "over the norm that its weights had at the start"
        if relative
        else "in units of the weights (adapters: of the product that is added)"
    )
    along = Picture(
        id="module-drift",
        title="How far each module moved",
        caption=f"Frobenius norm of the change of every trained module since the start, {what}: along the run, those "
        "that moved most.",
        plots=(drift_plot(found, relative=relative),),
    )
    if len(found) < 2:
        return [along]
    return [
        along,
        Picture(
            id="module-map",
            title="How far each module had moved at the end",
            caption=f"The same of all of them, by kind of module and layer, {what}.",
            plots=(modules_plot(found, relative=relative),),
        ),
    ]


def _updates(run: RunFolder) -> list[Picture]:
    if run.updates is None or "step" not in run.updates.schema.names or run.updates.num_rows < 2:
        return []
    steps = np.array([number(value) for value in run.updates["step"].to_pylist()])
    plots = []
    for key, label in _UPDATES:
        if key in run.updates.schema.names:
            values = np.array([number(value) for value in run.updates[key].to_pylist()])
            if np.isfinite(values).any():
                plots.append(updates_plot(steps, label, values))
    if not plots:
        return []
    picture = Picture(
        id="updates",
        title="Update by update",
        caption="Every update of the run: the loss of its batch before it, the norm of its gradient before "
        "clipping, and the learning rate. Thin: each update; thick: the running mean over a fiftieth of the run. A "
        "batch is a small sample, so its loss jumps; groups are measured on all of their pairs in the curves above.",
        plots=tuple(plots),
        size=(2.6, 1.78),
        across=len(plots),
    )
    return [picture]
