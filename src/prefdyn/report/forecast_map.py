"""Other betas and learning rates, on the page of a forecast: where linear runs with them go."""

from collections.abc import Mapping
from typing import Any

from prefdyn._json import number
from prefdyn.picture import Picture, Plot
from prefdyn.report.tables import minus, number_rows
from prefdyn.report.text import visible


def map_words(part: Mapping[str, Any]) -> str | None:
    """The run's own place on the map, and the beta with which the worst group is lowest; None without a map."""
    found = part.get("map")
    if not isinstance(found, Mapping):
        return None
    mean, worst = number_rows(found.get("mean")), number_rows(found.get("worst"))
    own, names = _own(found), found.get("worst_group") or []
    worst_name = visible(names[own[0]][own[1]])
    said = (
        f"In linear runs from the start to step {number(found.get('steps')):.0f} the mean held-out loss comes to "
        f"{minus(mean[own], 4)} with the settings as given, that of the worst group to {minus(worst[own], 4)} "
        f"({worst_name})."
    )
    best = int(worst[:, own[1]].argmin())
    if best == own[0]:
        return f"{said} No other beta on the map makes the worst group's lower."
    return (
        f"{said} The worst group's is lowest with a beta of {number(found['betas'][best]):g}: "
        f"{minus(worst[best, own[1]], 4)} (mean {minus(mean[best, own[1]], 4)}). No real step has checked other "
        "settings."
    )


def map_drawings(part: Mapping[str, Any]) -> list[Picture]:
    """Mean loss and the worst group's by beta and learning rate."""
    found = part.get("map")
    if not isinstance(found, Mapping):
        return []
    betas, rates = ([f"{number(each):g}" for each in found.get(key) or []] for key in ("betas", "rates"))
    plots = [
        Plot(
            kind="heat", title=title, matrix=matrix, names=tuple(betas), columns=tuple(f"{rate} ×" for rate in rates),
            cells=tuple(tuple(f"{value:.3f}" for value in row) for row in matrix.tolist()), framed=_own(found),
            shades="far", x_label="Learning rate, of the run's", y_label="" if place else "β",
            unit="Held-out loss (nats)",
        )
        for place, (title, matrix) in enumerate(
            (("Mean over groups", number_rows(found.get("mean"))), ("Worst group", number_rows(found.get("worst"))))
        )
    ]  # fmt: skip
    return [
        Picture(
            id="forecast-map",
            title="Other betas and learning rates",
            caption=f"Held-out losses of linear runs from the start to step {number(found.get('steps')):.0f}, with "
            "gradients from the end of the probe; framed: the run as it is given. All losses are of the run's own β, "
            "since a larger one makes every loss of a learned pair smaller, whatever was learned. A linear run does "
            "not overshoot as a real one does where its learning rate is too large: believe the rows before the "
            "columns to the right. Settings far from the run's own were not checked by any real step.",
            plots=tuple(plots),
        )
    ]


def _own(found: Mapping[str, Any]) -> tuple[int, int]:
    first, second = (int(number(each)) for each in found["own"])
    return first, second
