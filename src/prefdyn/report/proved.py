"""The chapter on what is proved: statements with their conditions, and pictures of bounds beside what a run did."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn.picture import Picture
from prefdyn.report.field_figures import field_plane, field_speeds, field_surface
from prefdyn.report.folders import RunFolder
from prefdyn.report.many import drawn
from prefdyn.report.statements import STANDINGS, Statement, counted, guarantee, statements
from prefdyn.report.tables import minus
from prefdyn.report.text import visible
from prefdyn.report.theory_figures import drift_plots, fan_plot, values_plot
from prefdyn.theory.value_scaling import ClusterModel, scaled_time

_LARGE = (5.0, 3.3)
"""Inches of a plot that stands alone."""
LETTERS = (
    ("n, n_+, n_-", "training pairs of the group, and those in which its first or its second answer is chosen"),
    ("d", "width of the features"),
    ("D = d^Delta", "distance between the mean features of the two classes, and its exponent"),
    ("b_w", "that gap with every pair counted once; the same where the classes are of one size"),
    ("c_v, v", "largest variance in any direction, in the units of 2403.18742; v is its exponent in Theorem 4.2"),
    ("c_n, c_n'", "length of a mean feature plus its spread, over the square root of d, and over D"),
    ("beta', gamma", "beta times the square root of d; n over the square root of d"),
    ("eta, t", "learning rate; steps"),
    ("phi, S", "cosine between the head's boundary (first answer's row minus second's) and the gap, before and now"),
    ("C, lambda_max", "inner products of the pairs' gradients in the head, and their largest eigenvalue"),
    ("K, Q", "values, here groups; pairs in each of a value's two clusters, here the smallest"),
    ("l_b, v", "in 2408.03459: length of what all groups share, and noise of one coordinate, in half gaps"),
    ("Z", "the most groups that use one answer token"),
    ("eps, delta", "how far inner products may stray; how far the groups' directions are from orthogonal"),
    ("tau, tau_1", "one over the learning rate; the time for which Theorem 4.2 speaks"),
    ("r", "reward margin, beta included"),
    ("x1, x2", "probability of the chosen and of the rejected answer over their reference"),
)
"""What the statements' symbols stand for, in the order of the papers."""


def proved_chapter(run: RunFolder) -> dict[str, Any] | None:
    """What the page shows of the theorems; None where the folder holds nothing about them."""
    found = statements(run.part("bounds") or [])
    if not found and not drawings(run):
        return None
    return {
        "heading": "What is proved about this run" if found else "The plane of two probability ratios",
        "intro": _intro(found),
        "letters": LETTERS,
        "statements": [_item(item) for item in found],
    }


def drawings(run: RunFolder) -> list[Picture]:
    """Every picture of the theory that this folder has numbers for."""
    run = drawn(run)
    found = (_drift(run), _fan(run), _values(run), *_field(run))
    return [picture for picture in found if picture is not None]


def _intro(found: Sequence[Statement]) -> str:
    if not found:
        return "The third paper's plane: what one pair's loss pulls on."
    return (
        f"{guarantee(found)} {counted(found)} What says something comes first; open a line for its conditions with "
        "what was measured. "
        "The statements of 2403.18742 are about one group: they are checked for each group trained alone. "
        "A statement whose condition fails may still describe what happens: it does not promise it. Constants are "
        "measured from the sample (plug-in), where the papers mean those of the distribution."
    ).strip()


def _item(item: Statement) -> dict[str, Any]:
    return {
        "standing": item.standing if item.standing in STANDINGS else "outside",
        "word": STANDINGS.get(item.standing, visible(item.standing)),
        "title": item.title,
        "quantity": item.quantity,
        "sentence": item.sentence,
        "note": item.note,
        "many": len(item.parts) > 1,
        "conditions": [
            {
                "says": condition.says,
                "word": condition.word,
                "fails": condition.fails > 0,
                "measured": _either(condition.measured),
                "limit": _either(condition.limit),
            }
            for condition in item.conditions
        ],
    }


def _either(value: Any) -> str:
    return visible(value) if isinstance(value, str) else minus(value)


def _drift(run: RunFolder) -> Picture | None:
    steps, alone = run.steps(), run.curves("drift", run="alone")
    names = {name: code for code, name in enumerate(run.names)}
    limits = {key: np.full(len(names), np.nan) for key in ("published", "repaired", "nothing")}
    joint = None
    for row in run.part("bounds") or []:
        if row.get("statement") != "2403.18742, Theorem 4.1":
            continue
        code, form = names.get(row.get("group")), row.get("form")
        if code is not None and form in limits:
            limits[form][code] = number(row.get("value"))
            limits["nothing"][code] = number(row.get("trivial"))
        elif row.get("group") is None and form == "sharper":
            joint = number(row.get("value"))
    if len(steps) < 3 or not np.isfinite(limits["repaired"]).any() or not np.isfinite(alone).any():
        return None
    together = run.curves("drift")[:1]
    both = None
    if joint is not None and np.isfinite(together).all():
        both = np.append(together[0], joint)
    return Picture(
        id="drift",
        title="Drift of the head against its bounds",
        caption="Left: how far the head has moved after each step of one run, and how far it may. Right: the bound "
        "divided by what was measured, for each group trained alone (line: the middle group; shade: all groups). The "
        "repaired bound is exact at the first step and loosens as pulls fade; the published one is loose at once.",
        plots=drift_plots(steps, alone, limits, joint=both),
        size=(3.6, 3.0),
    )


def _fan(run: RunFolder) -> Picture | None:
    model, half_gap = _model(run), number(run.part("theory", "values", "half_gap"))
    beta, rate = number(run.part("settings", "beta")), number(run.part("settings", "learning_rate"))
    steps = _numbers(run, "margins", "step")
    seen = {key: _numbers(run, "margins", key) for key in ("least", "mean", "largest")}
    margins = {key: array for key, array in seen.items() if array is not None}
    if model is None or steps is None or len(margins) < 3 or {len(array) for array in margins.values()} != {len(steps)}:
        return None
    if not (beta > 0 and rate > 0 and half_gap > 0):
        return None
    times = scaled_time(model.values, beta=beta, learning_rate=rate, steps=steps, half_gap=half_gap)
    return Picture(
        id="margin-fan",
        title="Margins against the lines of Theorem 4.2",
        caption=f"{_standing(run)} Between the orange lines every pair's margin must lie until τ₁ where the conditions "
        "hold; between the blue ones with sharper constants, and longer. Dotted: the exact course without noise. "
        "Black: the margins of this run's training pairs, their mean and their range. Where the run ends long before "
        "τ₁, only the time that it covers is drawn.",
        plots=(fan_plot(sharing=model.sharing, times=times, margins=margins),),
        size=_LARGE,
    )


def _values(run: RunFolder) -> Picture | None:
    model = _model(run)
    if model is None:
        return None
    return Picture(
        id="values-needed",
        title="Pairs per cluster that the bound asks for",
        caption=f"{_standing(run)} The error bound of Theorem 4.3 asks for a number of pairs that grows slowly with "
        "the number of values. The probability with which it is stated to hold asks for far more, and beyond the "
        "dotted line its own conditions leave no room for more values. It is about the theorem, no advice on data "
        "that fail its conditions.",
        plots=(values_plot(model=model),),
        size=_LARGE,
    )


def _standing(run: RunFolder) -> str:
    """Whether Theorem 4.2, whose conditions Theorem 4.3 shares, applies to this run."""
    rows = [row for row in run.part("bounds") or [] if str(row.get("statement")).startswith("2408.03459, Theorem 4.2")]
    failed = max((sum(c.get("holds") is False for c in row.get("conditions") or []) for row in rows), default=0)
    if not failed:
        return "Its conditions hold here as far as data can show."
    return f"It does not apply here: up to {failed} of its conditions fail."


def _model(run: RunFolder) -> ClusterModel | None:
    """The dataset as clusters; None where the folder does not hold them, or something else in their place."""

    def read(name: str) -> float:
        return number(run.part("theory", "values", name))

    counts = [read(name) for name in ("values", "per_cluster", "width", "sharing")]
    if not (all(value >= 1 and value.is_integer() for value in counts) and read("noise") > 0 <= read("shared_norm")):
        return None
    values, per_cluster, width, sharing = map(int, counts)
    return ClusterModel(
        values=values,
        per_cluster=per_cluster,
        width=width,
        noise=read("noise"),
        shared_norm=read("shared_norm"),
        sharing=sharing,
    )


def _numbers(run: RunFolder, *keys: str) -> np.ndarray | None:
    """A list of finite numbers in the `theory` part; None where it is anything else, or empty."""
    found = run.part("theory", *keys)
    values = np.array([number(value) for value in found]) if isinstance(found, list) else np.zeros(0)
    return values if len(values) and np.isfinite(values).all() else None


def _field(run: RunFolder) -> list[Picture]:
    if run.responses:  # ratios of whole responses go beyond any plane, and are first order only
        return []
    beta = number(run.part("settings", "beta"))
    first, second = _numbers(run, "path", "x1"), _numbers(run, "path", "x2")
    points = None
    if first is not None and second is not None and len(first) == len(second) > 1 and min(*first, *second) > 0:
        points = np.column_stack((first, second))
    if not beta > 0 or (points is None and run.part("command") != "field"):
        return []
    refs = [number(run.part("settings", key)) for key in ("ref_chosen", "ref_rejected")]
    if any(map(math.isnan, refs)):
        refs = [number(run.part("theory", "path", key)) for key in ("ref_chosen", "ref_rejected")]
    possible = min(refs) > 0 and sum(refs) <= 1
    known: dict[str, Any] = {"ref_chosen": refs[0], "ref_rejected": refs[1]} if possible else {}
    found = [
        Picture(
            id="field-plane",
            title="The plane of probability ratios",
            caption="Across: how much more likely the chosen answer has become; up: the rejected one. Shade: the loss. "
            "Arrows: where it pulls, long ones cut short. Training that moved these two ratios themselves would follow "
            "the circles. "
            + ("The violet line is what this run's pairs did on average. " if points is not None else "")
            + ("Where it is hatched the two probabilities would exceed 1 together." if known else ""),
            draw=partial(field_plane, beta=beta, path=points, **known),
        ),
        Picture(
            id="field-surface",
            title="The loss over the plane",
            caption="The same loss as a surface; "
            + ("steep towards both edges." if beta < 1 else "steep where the chosen answer is nearly gone."),
            draw=partial(field_surface, beta=beta),
        ),
    ]
    if run.part("command") == "field":
        found.append(
            Picture(
                id="field-speeds",
                title="The same flow in four coordinate systems",
                caption="All start at (1, 1). Which of the two probabilities moves faster depends on what training "
                "moves: ratios, probabilities, their logarithms, or logits"
                + ("." if known else ", here from reference probabilities of 0.1 and 0.4, since none were given."),
                draw=partial(field_speeds, beta=beta, **known),
            )
        )
    return found
