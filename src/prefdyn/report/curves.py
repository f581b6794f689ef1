"""Pictures of curves over the steps of a run: losses, accuracies, margins, probabilities, gradients and states."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefdyn._json import number
from prefdyn.picture import Layer, Line, Picture, Plot
from prefdyn.report.folders import RunFolder
from prefdyn.report.palette import MOST_COLOURED
from prefdyn.report.shown_groups import for_groups, telling
from prefdyn.report.tables import shown
from prefdyn.report.text import visible
from prefdyn.trajectory import Trajectory

_FROM_THE_FIRST_STEP = {"reward_accuracy", "chosen_falling"}
"""Shares of pairs that moved: 0 before the first step because nothing has moved, which is no point of a curve."""


AXES: Mapping[str, str] = {
    "loss": "Mean loss (nats)",
    "margin": "Mean margin (beta × nats)",
    "chosen_log_prob": "Chosen log-probability (nats)",
    "rejected_log_prob": "Rejected log-probability (nats)",
    "chosen_change": "Change of chosen log-probability (nats)",
    "rejected_change": "Change of rejected log-probability (nats)",
}
"""What stands at the axis of a quantity, where its name does not say it all."""


def curves_of(trajectory: Trajectory, quantity: str, *, run: str, split: str) -> Picture:
    """One quantity of one run and split, a line per group."""
    groups = list(dict.fromkeys(trajectory.table["group"].to_pylist()))
    lines = []
    for place, group in enumerate(groups):
        x, y = trajectory.curve(quantity, group=group, run=run, split=split)
        lines.append(Line(label=visible(group), x=x, y=y, shade=place / max(1, len(groups) - 1)))
    words = AXES.get(quantity, quantity.replace("_", " ").capitalize())
    plot = Plot(x_label="Step (logarithmic)", y_label=words, x_scale="step", lines=tuple(lines))
    return Picture(id="curves", title=words, caption="", plots=(plot,), size=(6.4, 4.0))


def loss_curves(run: RunFolder) -> Picture | None:
    """Loss of every group, on held-out and on training pairs."""
    start = run.curves("loss")[:, :1]
    start = start[np.isfinite(start)]
    line = ()
    if len(start) and np.ptp(start) < 1e-9:
        name = "start = log 2" if abs(start[0] - math.log(2)) < 1e-6 else "start"
        line = ((name, float(start[0])),)
    m = len(run.groups)
    caption = (
        "The mean loss" if m == 1 else "One line per group: its mean loss in the joint run"
    ) + ", on pairs that the run never saw and on the pairs it trains on. "
    if m > 1:
        caption += (
            "The sooner a line falls, the sooner the group is learned; where one rises, the others push the group the "
            "wrong way, or the run fits labels that do not carry over. Dashed, where shown: the same group trained by "
            "itself in the same steps, which tells crowding out from being hard."
        )
    else:
        caption += "Where the two part, the run fits its pairs rather than the preference."
    if np.isfinite(run.column("cross_fitted_loss")).any():
        caption += (
            " The curves are of these very pairs; the held-out loss in the table is of every pair, in runs without it, "
            "with its interval."
        )
    if m > MOST_COLOURED:
        some = " and some of each verdict that asks for a look" if any(run.verdicts) else ""
        known = np.isfinite(run.rank()).any()
        which = f": the first and the last learned{some}" if known else ""
        caption += f" Of {m} groups, {len(telling(run))} are coloured{which}."
    return _lines(
        run,
        "loss-curves",
        "Learning curves",
        caption,
        (("held_out", "Held-out pairs", "loss", "held_out"), ("train", "Training pairs", "loss", "train")),
        line,
        axes=AXES,
    )


def accuracy_curves(run: RunFolder) -> Picture | None:
    """Reward and policy accuracy."""
    judged = np.isfinite(run.curves("reward_accuracy", split="held_out")).any()
    split, word = ("held_out", "held out") if judged else ("train", "training pairs")
    return _lines(
        run,
        "accuracy-curves",
        "Accuracy over the run",
        f"Share of pairs whose chosen {run.said} the run prefers. Reward accuracy asks whether training moved the "
        "pair the right way (margin above 0); policy accuracy, whether the model itself now gives the chosen "
        f"{run.said} the higher probability.",
        (
            (f"reward_{split}", f"Reward, {word}", "reward_accuracy", split),
            (f"policy_{split}", f"Policy, {word}", "policy_accuracy", split),
        ),
        (("half", 0.5),),
        axes={
            "reward_accuracy": "Reward accuracy (share of pairs)",
            "policy_accuracy": "Policy accuracy (share of pairs)",
        },
        low=0.0,
        high=1.0,
    )


def margin_curves(run: RunFolder) -> Picture | None:
    """Mean reward margins."""
    return _lines(
        run,
        "margin-curves",
        "Reward margins",
        "Mean reward margin per group: beta times how much more the run raised the log-probability of chosen than of "
        "rejected. It starts at 0; below 0 the group ends up preferring what it was told to reject.",
        (("held_out", "Held-out pairs", "margin", "held_out"), ("train", "Training pairs", "margin", "train")),
        (("0", 0.0),),
        axes={"margin": "Mean reward margin (beta × nats)"},
    )


def log_prob_curves(run: RunFolder) -> Picture | None:
    """Change of the chosen and of the rejected log-probability."""
    return _lines(
        run,
        "log-prob-curves",
        "What happens to chosen and rejected",
        "Mean change of log-probability since the start, training pairs. A margin can grow because chosen rises "
        "or because rejected falls faster; where the chosen line goes below 0, training makes the wanted "
        f"{run.said} itself less likely.{_drift_words(run)}",
        (
            ("chosen", "Chosen", "chosen_change", "train"),
            ("rejected", "Rejected", "rejected_change", "train"),
        ),
        (("0", 0.0),),
        axes=AXES,
    )


def chosen_falling(run: RunFolder) -> Picture | None:
    """Share of pairs whose chosen side became less likely."""
    return _lines(
        run,
        "chosen-falling",
        f"Pairs whose chosen {run.said} falls",
        f"Share of a group's pairs whose chosen {run.said} is less likely than before training (likelihood "
        f"displacement).{_drift_words(run)}",
        (
            ("train", "Training pairs", "chosen_falling", "train"),
            ("held_out", "Held-out pairs", "chosen_falling", "held_out"),
        ),
        (),
        axes={"chosen_falling": f"Pairs with falling chosen {run.said} (share)"},
        low=0.0,
    )


def gradient_norm(run: RunFolder) -> Picture | None:
    """Norm of each group's gradient in the head."""
    return _lines(
        run,
        "gradient-norm",
        "Gradient of each group",
        "Norm of the gradient that a group's mean loss has in the head, whatever else is trained. It is large while "
        f"margins are small and the states of the two {run.said}s lie apart, and fades as pairs are learned; near 0 "
        "from the start, the group pulls on nothing.",
        (
            ("train", "Training pairs", "gradient_norm", "train"),
            ("held_out", "Held-out pairs", "gradient_norm", "held_out"),
        ),
        (),
        axes={"gradient_norm": "Gradient norm in the head"},
        low=0.0,
    )


def state_curves(run: RunFolder) -> Picture | None:
    """Distinguishability and spread along the run; in a run of the head alone the states stay as they are."""
    steps, gap = run.steps().astype(np.float64), run.curves("distinguishability")
    known = np.isfinite(gap)
    if len(steps) < 2 or not known.any():
        return None
    first, last = (gap[:, known.any(axis=0)][:, place] for place in (0, -1))
    if np.allclose(first, last, rtol=1e-6, equal_nan=True):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(gap > 0, run.curves("trace") / gap**2, math.nan)
    arrays = {"step": steps, "gap": gap, "spread": spread}
    layers = [Layer(label="Distinguishability", values="gap", axis="Distinguishability (feature units)")]
    if np.isfinite(spread).any():
        layers.append(Layer(label="Spread", values="spread", axis="Spread (trace / distinguishability²)"))
    else:
        del arrays["spread"]
    return Picture(
        id="state-curves",
        title="What training makes of the states",
        kind="lines",
        caption="Distance between the mean final states of the two answers, on training pairs, and the variance of "
        "a class over that distance squared. Where the distance grows and the spread falls, training pulls the "
        "answers apart in the representation, and not in the head alone.",
        x_label="Step (logarithmic)",
        y_label=layers[0].axis,
        arrays=arrays,
        layers=tuple(layers),
        options={"low": 0.0},
        **for_groups(run),
    )


def _drift_words(run: RunFolder) -> str:
    """What a first-order curve of a log-probability is worth; empty where the curve is exact, or was trained."""
    if not run.responses or run.part("command") == "train":
        return ""
    gap = number(run.part("exact", "gap", "chosen_change"))
    known = "" if math.isnan(gap) else f": by up to {shown(gap, 2)} nats on the pairs that were trained exactly"
    return f" These curves are first order in the head's movement, and with long responses they soon drift{known}."


def _lines(
    run: RunFolder,
    name: str,
    title: str,
    caption: str,
    views: Sequence[tuple[str, str, str, str]],
    lines: tuple[tuple[str, float], ...] = (),
    **options: Any,
) -> Picture | None:
    """Curves over steps; a view is (key, label, quantity, split), its axis label stands in `options["axes"]`."""
    steps = run.steps().astype(np.float64)
    if len(steps) < 2:
        return None
    axes = options.pop("axes")
    arrays: dict[str, np.ndarray] = {"step": steps}
    layers = []
    for key, label, quantity, split in views:
        arrays[key] = run.curves(quantity, split=split)
        if not np.isfinite(arrays[key]).any():
            del arrays[key]
            continue
        others = run.curves(quantity, split=split, run="alone")
        if quantity in _FROM_THE_FIRST_STEP:
            arrays[key][:, steps == 0] = np.nan
            others[:, steps == 0] = np.nan
        alone = None
        if len(run.groups) > 1 and np.isfinite(others).any():
            alone = f"{key}_alone"
            arrays[alone] = others
        layers.append(Layer(label=label, values=key, axis=axes[quantity], alone=alone))
    return over_steps(run, name, title, caption, arrays, layers, lines=lines, **options)


def over_steps(
    run: RunFolder,
    name: str,
    title: str,
    caption: str,
    arrays: Mapping[str, np.ndarray],
    layers: Sequence[Layer],
    *,
    lines: tuple[tuple[str, float], ...] = (),
    **options: Any,
) -> Picture | None:
    """A chart of curves over the steps in `arrays`; None where nothing is known of any."""
    if not layers:
        return None
    return Picture(
        id=name,
        title=title,
        kind="lines",
        caption=caption,
        x_label="Step (logarithmic)",
        y_label=layers[0].axis,
        arrays=arrays,
        layers=tuple(layers),
        lines=lines,
        options=options,
        **for_groups(run),
    )
