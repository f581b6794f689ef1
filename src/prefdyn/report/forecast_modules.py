"""Which layers learn which group, on the page of a forecast: what the linear run says of it, in words and pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn.dynamics.module_shares import overall, placed
from prefdyn.picture import Picture, Plot
from prefdyn.report.folders import RunFolder
from prefdyn.report.tables import minus, number_rows
from prefdyn.report.text import visible

_MOST_ROWS = 30


def modules_words(part: Mapping[str, Any]) -> str | None:
    """What is learned where, and where groups differ in it; None where no linear run was made."""
    found = part.get("by_module")
    if not isinstance(found, Mapping):
        return None
    share, told = (
        number_rows((found.get("layers") or {}).get("share")),
        number_rows((found.get("layers") or {}).get("told")) > 0,
    )
    rows, names = _names(found, "layers"), [visible(name) for name in found.get("names") or []]
    typical = overall(share)
    span = (
        f"The change of margins from step {number(found.get('since')):.0f} to "
        f"{number(found.get('step')):.0f} of the linear run is a sum over modules"
    )
    if not np.isfinite(typical).all():
        return f"{span}, but no group's margin moves by more than its held-out pairs can tell."
    top = np.argsort(-typical, kind="stable")[: min(2, len(rows))]
    first = " and ".join(f"{rows[at]} ({100 * typical[at]:.0f} %)" for at in top)
    said = f"{span}. Most of it is of {'layers' if len(top) > 1 else 'layer'} {first}, on average over groups."
    if not number(found.get("seeds")):
        return f"{said} Without rehearsals it is not known how much of this another seed would change."
    cells = [(at, code) for at, code in np.argwhere(told).tolist()]
    if not cells:
        return f"{said} No group differs from the others by more than seeds and held-out pairs explain."
    off = np.abs(share - typical[:, None])
    at, code = max(cells, key=lambda cell: off[cell])
    return (
        f"{said} {len({code for _, code in cells})} of {len(names)} groups differ from that by more than seeds and "
        f"held-out pairs explain, most of all {names[code]}: {minus(round(100 * share[at, code]))} % from layer "
        f"{rows[at]}."
    )


def modules_drawings(run: RunFolder, order: Sequence[int]) -> list[Picture]:
    """Groups against layers and kinds, and layers against kinds.

    Args:
        run: A forecast's folder.
        order: Groups, the first learned first.
    """
    part = run.part("forecast", "by_module")
    if not isinstance(part, Mapping) or not np.isfinite(number_rows((part.get("layers") or {}).get("share"))).any():
        return []
    shown = [code for code in order if np.isfinite(number_rows((part.get("layers") or {}).get("share"))[:, code]).all()]
    if len(shown) > _MOST_ROWS:
        shown = [shown[at] for at in np.linspace(0, len(shown) - 1, _MOST_ROWS).round().astype(int)]
    found = []
    if len(shown) > 1:
        found += [
            _differences(part, what, title, label, shown)
            for what, title, label in (
                ("layers", "Which layers learn which group", "Layer: share of all groups together"),
                ("kinds", "The same by kind of module", "Kind: share of all groups together"),
            )
            if len(_names(part, what)) > 1
        ]
    return [*found, *_map(part)]


def _differences(part: Mapping[str, Any], what: str, title: str, label: str, shown: Sequence[int]) -> Picture:
    share, told = number_rows((part.get(what) or {}).get("share")), number_rows((part.get(what) or {}).get("told")) > 0
    typical = overall(share)
    off = 100 * (share - typical[:, None])
    names = [visible(str(name)) for name in part.get("names") or []]
    cells = [[f"{off[at, code]:+.0f}" if told[at, code] else "" for at in range(len(off))] for code in shown]
    seeds = int(number(part.get("seeds")))
    return Picture(
        id=f"forecast-{what}",
        title=title,
        caption="What each adds to a group's mean held-out margin, as a share of the group's whole change, up or down, "
        "less the mean of that share over groups (beside its name below), in points of percent. "
        + (
            "Numbers stand where the difference is more than "
            f"{seeds} other {'seed' if seeds == 1 else 'seeds'} and other held-out pairs would make; of 20 such "
            "pictures without any difference 19 have none."
            if seeds
            else "Without rehearsals it is not known how much another seed would change, so nothing is marked."
        )
        + f" Groups from top to bottom: first learned first{_left_out(part, share)}. To first order where the run was "
        "made linear: that later layers read what earlier ones have changed is no part of it.",
        plots=(
            Plot(
                kind="heat",
                matrix=off[:, shown].T,
                names=tuple(names[code] for code in shown),
                columns=tuple(
                    f"{_brief(name)}: {100 * mean:.0f} %".replace("-", "−")
                    for name, mean in zip(_names(part, what), typical, strict=True)
                ),
                cells=tuple(tuple(text.replace("-", "−") for text in row) for row in cells),
                x_label=label,
                unit="Points of percent",
            ),
        ),
    )


def _map(part: Mapping[str, Any]) -> list[Picture]:
    """Kinds down, layers across: shares of all groups together."""
    names, share = _names(part, "modules"), number_rows((part.get("modules") or {}).get("share"))
    typical = overall(share)
    places = [placed(name) for name in names]
    layers = sorted({layer for layer, _ in places if layer is not None})
    kinds = list(dict.fromkeys(kind for layer, kind in places if layer is not None))
    if len(layers) < 2 or not np.isfinite(typical).all():
        return []
    matrix = np.full((len(kinds), len(layers)), np.nan)
    for (layer, kind), mean in zip(places, typical, strict=True):
        if layer is not None:
            matrix[kinds.index(kind), layers.index(layer)] = 100 * mean
    return [
        Picture(
            id="forecast-modules",
            title="Which modules do it, all groups together",
            caption="Shares of the change of the mean held-out margin, averaged over groups. A module below 0 works "
            "against the others. modules.csv has each module's part in each group, in nats.",
            plots=(
                Plot(
                    kind="heat", matrix=matrix, names=tuple(_brief(visible(kind)) for kind in kinds),
                    columns=tuple(f"{layer}" for layer in layers), x_label="Layer", unit="%",
                ),
            ),
        )
    ]  # fmt: skip


def _left_out(part: Mapping[str, Any], share: np.ndarray) -> str:
    count = int((~np.isfinite(share).all(axis=0)).sum())
    if not count:
        return ""
    if count == 1:
        return "; left out: a group whose margin moves by no more than its held-out pairs can tell"
    return f"; left out: {count} groups whose margins move by no more than their held-out pairs can tell"


def _brief(kind: str) -> str:
    """A kind of module without what stands before the number of its layer."""
    return kind.split("*.", 1)[-1]


def _names(part: Mapping[str, Any], what: str) -> list[str]:
    return [visible(str(name)) for name in (part.get(what) or {}).get("rows") or []]
