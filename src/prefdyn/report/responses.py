"""What an audit on long responses shows beside all others: first step, exact training, displacement, pairs to read."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from prefdyn._json import number
from prefdyn.picture import Layer, Marker, Picture
from prefdyn.planning.group_row import GroupRow
from prefdyn.report.curves import over_steps
from prefdyn.report.folders import RunFolder
from prefdyn.report.shown_groups import for_groups, measured, rank_orders
from prefdyn.report.tables import shown
from prefdyn.report.text import readable

EXACT = ("loss", "margin", "chosen_change", "rejected_change")
"""What is known of exact training and of the first-order curve of the same pairs."""
HOLDS, ROUGHLY = 0.1, 0.25
"""Up to this share of exact training's own movement a first-order curve holds up, or does so roughly."""


# panels -------------------------------------------------------------------------------------------------------------


def first_step(run: RunFolder) -> Picture | None:
    """What the first joint step does to chosen and rejected responses."""
    keys = {"chosen": "chosen_push", "rejected": "rejected_push", "falls": "chosen_falls_first", "ches": "ches"}
    arrays = {name: run.column(key) for name, key in keys.items()}
    known = measured(arrays, arrays)
    if not run.responses or "chosen" not in known:
        return None
    series: tuple[tuple[str, str, Marker, str], ...] = (
        ("chosen", "chosen", "dot", ""),
        ("rejected", "rejected", "ring", ""),
        ("falls", "pairs whose chosen response starts by falling", "share", "chosen falls"),
        ("ches", "CHES, mean", "number", "CHES"),
    )
    words = [
        "Mean change of log-probability by the joint first step, all pairs of a group. Where the dot is left of 0, the "
        "step makes the wanted responses themselves less likely."
    ]
    if "falls" in known:
        words.append("At the end of a row: the share of its pairs whose chosen response starts by falling.")
    if "ches" in known:
        words.append(
            "CHES, normalised by length, compares the mean states of the two responses; the higher, the more "
            "displacement it predicts. Its unit is the states', so it compares groups of this run only."
        )
    return Picture(
        id="first-step",
        title="First step on chosen and rejected log-probability",
        kind="dots",
        caption=" ".join([*words, displacement_words(run)]).strip(),
        x_label="Change of log-probability in the first step (nats)",
        y_label="",
        arrays={name: arrays[name] for name in known},
        layers=tuple(
            Layer(label=label, values=name, marker=marker, axis=axis)
            for name, label, marker, axis in series
            if name in known
        ),
        orders=rank_orders(run, "chosen falls most first", -arrays["chosen"]),
        lines=(("0", 0.0),),
        options={"zero": True},
        **for_groups(run),
    )


def exact_training(run: RunFolder) -> Picture | None:
    """Loss and margin of the pairs that were trained exactly, with their first-order curves."""
    return _beside_exact(
        run,
        "exact-curves",
        "Exact training of the head against first order",
        "Solid: the whole head trained exactly, on a sample of the pairs. Dashed: the first-order curve of "
        f"the same pairs, as in all other curves here. {exact_words(run)} {exact_sample(run)}",
        (("loss", "Loss", "Mean loss (nats)"), ("margin", "Margin", "Mean reward margin (beta × nats)")),
        (),
    )


def exact_log_probs(run: RunFolder) -> Picture | None:
    """Chosen and rejected log-probabilities of the pairs that were trained exactly, with their first-order curves."""
    return _beside_exact(
        run,
        "exact-log-probs",
        "Chosen and rejected apart: exact training against first order",
        "The same sample: change of log-probability since the start, solid as exact training has it, dashed by first "
        "order. Where the two part, believe the solid line, and read no likelihood displacement from the dashed one.",
        (
            ("chosen_change", "Chosen", "Change of chosen log-probability (nats)"),
            ("rejected_change", "Rejected", "Change of rejected log-probability (nats)"),
        ),
        (("0", 0.0),),
    )


def _beside_exact(
    run: RunFolder,
    name: str,
    title: str,
    caption: str,
    views: Sequence[tuple[str, str, str]],
    lines: tuple[tuple[str, float], ...],
) -> Picture | None:
    """Exact curves with the first-order curves of the same pairs dashed; a view is (quantity, label, axis label)."""
    steps, curves = exact_curves(run)
    arrays: dict[str, np.ndarray] = {"step": steps}
    layers = []
    for quantity, label, axis in views:
        exact, first_order = f"exact_{quantity}", f"first_order_{quantity}"
        if len(steps) < 2 or not np.isfinite(curves[exact]).any():
            continue
        arrays |= {exact: curves[exact], first_order: curves[first_order]}
        layers.append(Layer(label=label, values=exact, axis=axis, alone=first_order))
    words = " ".join(caption.split())
    return over_steps(run, name, title, words, arrays, layers, lines=lines, dashed="first order")


# what they say ------------------------------------------------------------------------------------------------------


def exact_curves(run: RunFolder) -> tuple[Float[np.ndarray, " s"], dict[str, Float[np.ndarray, "m s"]]]:
    """Curves of the pairs that were trained exactly: the recorded steps, and `exact_*` and `first_order_*` by name.

    Groups without a pair in that sample, and what was not measured, are NaN. No step where nothing was trained exactly.
    """
    steps = np.array([number(step) for step in run.part("exact", "recorded") or []], dtype=np.float64)
    rows = {str(row.get("name", "")): row for row in run.part("exact", "groups") or []}
    curves = {}
    for key in (f"{kind}_{what}" for what in EXACT for kind in ("exact", "first_order")):
        found = [[number(value) for value in rows.get(name, {}).get(key) or []] for name in run.names]
        empty = [math.nan] * len(steps)
        curves[key] = np.array([line if len(line) == len(steps) else empty for line in found])
        curves[key] = curves[key].reshape(len(run.names), len(steps))
    return steps, curves


def exact_words(run: RunFolder) -> str:
    """What of the first-order curves holds up beside exact training, and what does not; empty where not known."""
    _, curves = exact_curves(run)
    named = (
        ("Group losses", "loss", " nats"),
        ("Mean margins", "margin", ""),
        ("Chosen log-probabilities, taken apart,", "chosen_change", " nats"),
        ("Rejected log-probabilities, taken apart,", "rejected_change", " nats"),
    )
    gaps = [(what, number(run.part("exact", "gap", key)), curves[f"exact_{key}"], unit) for what, key, unit in named]
    words = [f"{what} {_standing(gap, exact, unit)}." for what, gap, exact, unit in gaps if not math.isnan(gap)]
    if words:
        words.append(
            "These are the largest gaps over groups and recorded steps. Holding up means a gap of at most a tenth of "
            "the largest movement, roughly of at most a quarter."
        )
    return " ".join(words)


def _standing(gap: float, exact: Float[np.ndarray, "m s"], unit: str) -> str:
    """What to say of a gap, beside how far exact training moves the same curves where that is known."""
    moved = np.abs(exact - exact[:, :1])
    moved = float(moved[np.isfinite(moved)].max(initial=0.0))
    if moved == 0.0:
        return f"are off by up to {shown(gap, 2)}{unit}"
    word = "hold up" if gap <= HOLDS * moved else "hold up roughly" if gap <= ROUGHLY * moved else "do not hold up"
    return f"{word}: off by up to {shown(gap, 2)}{unit} where exact training moves them by up to {shown(moved, 2)}"


def trust_words(run: RunFolder) -> str:
    """What first order is good for with long responses: as measured in this run, else as a rule."""
    known = exact_words(run)
    rule = "group losses and margins hold up, chosen and rejected log-probabilities taken apart drift soon."
    start = "With longer responses it is first order in the head's movement"
    return f"{start}. Beside exact training of a sample: {known}" if known else f"{start}: {rule}"


def exact_sample(run: RunFolder) -> str:
    """Which pairs were trained exactly, how, and why; empty where none were."""
    pairs, steps = run.part("exact", "pairs"), run.part("exact", "steps")
    if not isinstance(pairs, int):
        return ""
    rate = number(run.part("exact", "learning_rate"))
    setting = "" if math.isnan(rate) else f", learning rate {shown(rate)}"
    why = readable(str(run.part("exact", "why") or ""))
    what = f"{pairs:,} {'pair' if pairs == 1 else 'pairs'}" + (f" ({why})" if why else "")
    what += f", {steps:,} steps" if isinstance(steps, int) else ""
    names = {str(row.get("name", "")) for row in run.part("exact", "groups") or []}
    groups = sum(name in names for name in run.names)
    of = "" if groups == len(run.names) else f", from {groups} of {len(run.names)} groups"
    return f"Sample: {what}{of}{setting}."


def displacement_words(run: RunFolder) -> str:
    """Rank correlations of what is known before training with what exact training did; empty where not known.

    Example:
        >>> from pathlib import Path
        >>> part = {"pairs": 40, "against": "the change", "first_step": {"spearman": 0.8, "low": 0.64, "high": 0.9}}
        >>> displacement_words(RunFolder(path=Path(), summary={"displacement": part}, trajectory=None, pairs=None))
        'Rank correlation with the change: first step 0.80 [0.64, 0.90], on 40 pairs.'
    """
    told = []
    for key, label in (("first_step", "first step"), ("ches", "CHES")):
        value, low, high, p = (number(run.part("displacement", key, name)) for name in ("spearman", "low", "high", "p"))
        if not math.isnan(value):
            interval = "" if math.isnan(low) or math.isnan(high) else f" [{two_digits(low)}, {two_digits(high)}]"
            told.append(f"{label} {two_digits(value)}{interval}" + ("" if math.isnan(p) else f" (p {p:.2g})"))
    if not told:
        return ""
    against = readable(str(run.part("displacement", "against") or "exact training"))
    pairs = run.part("displacement", "pairs")
    where = f", on {pairs:,} pairs" if isinstance(pairs, int) else ""
    turned = (
        " CHES is taken with its sign turned, so that 1 is perfect foresight for both." if "CHES" in told[-1] else ""
    )
    return f"Rank correlation with {against}: {', '.join(told)}{where}.{turned}"


def two_digits(value: float) -> str:
    """The number with a true minus sign."""
    return f"{value:.2f}".replace("-", "−")


def given_away(row: GroupRow) -> str:
    """The held-out accuracies of a group that its probe is to be read beside; empty where none is known.

    Example:
        >>> given_away(GroupRow(name="a", probe_accuracy=0.78, words_accuracy=0.7, words_low=0.61, words_high=0.78))
        'probe 0.78 · words 0.70 (0.61 to 0.78)'
    """
    told = []
    for label, value, low, high in (
        ("probe", row.probe_accuracy, row.probe_low, row.probe_high),
        ("untrained twin", row.untrained_probe_accuracy, row.untrained_probe_low, row.untrained_probe_high),
        ("words", row.words_accuracy, row.words_low, row.words_high),
        ("length", row.length_accuracy, row.length_low, row.length_high),
        ("reference log-probability", row.reference_accuracy, row.reference_low, row.reference_high),
    ):
        if not math.isnan(value):
            interval = "" if math.isnan(low) or math.isnan(high) else f" ({low:.2f} to {high:.2f})"
            told.append(f"{label} {value:.2f}{interval}")
    return " · ".join(told)


def sketch_fact(run: RunFolder) -> str:
    """Whether the features of long responses are sketched, and with which error, in a few words."""
    width, error = run.part("features", "sketch"), number(run.part("features", "sketch_error", "rms"))
    if not isinstance(width, int):
        return "none, exact features"
    return f"{width:,} numbers" + ("" if math.isnan(error) else f", error {shown(error, 2)}")


def sketch_words(run: RunFolder) -> str:
    """What the sketch may hide, with its error where that was measured; empty where nothing is sketched."""
    if not run.part("features", "sketch"):
        return ""
    words = "Features are sketches of the true gradients, so small differences between groups can be sketch error"
    part = run.part("features", "sketch_error") or {}
    rms, expected, largest = (number(part.get(key)) for key in ("rms", "expected", "largest"))
    if math.isnan(rms):
        return f"{words}."
    where = f", on {part['pairs']:,} pairs" if isinstance(part.get("pairs"), int) else ""
    more = "" if math.isnan(expected) else f", where {shown(expected, 2)} is expected"
    more += "" if math.isnan(largest) else f", and at most {shown(largest, 2)}"
    return (
        f"{words}. Kernel entries between different pairs, in units of both pairs' own lengths, are off by "
        f"{shown(rms, 2)} (root mean square{where}){more}."
    )
