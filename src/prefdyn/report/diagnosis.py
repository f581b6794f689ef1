"""Pictures of what is known before training: groups apart, first steps, groups and each other, single pairs."""

import math
from collections.abc import Mapping

import numpy as np

from prefdyn._json import number
from prefdyn.dynamics.order import rank_correlation
from prefdyn.picture import Layer, Marker, Picture
from prefdyn.report.folders import RunFolder
from prefdyn.report.shown_groups import for_groups, measured, rank_orders, similar_together, sorted_codes
from prefdyn.report.tables import minus_signs
from prefdyn.report.text import visible


def distinguishability(run: RunFolder) -> Picture | None:
    """How far apart the two classes of each group are, beside its null and the untrained twin."""
    keys = {"debiased": "debiased", "low": "debiased_low", "high": "debiased_high"}
    keys |= {"raw": "raw_mean_norm" if run.responses else "distinguishability", "null": "null_rms"}
    keys |= {"untrained": "untrained_distinguishability"}
    arrays = {name: run.column(key) for name, key in keys.items()}
    known = measured(arrays, arrays)
    if not {"debiased", "raw"} & set(known):
        return None
    layers = []
    if "debiased" in known:
        interval = {"low", "high"} <= set(known)
        layers.append(
            Layer(
                label="debiased" + (", 95 % interval" if interval else ""),
                values="debiased",
                low="low" if interval else None,
                high="high" if interval else None,
            )
        )
    others: tuple[tuple[str, str, Marker], ...] = (
        ("raw", "raw, own noise included" if run.responses else "as measured", "ring"),
        ("untrained", "untrained twin", "diamond"),
        ("null", f"typical under {'swapped sides' if run.responses else 'shuffled labels'}", "tick"),
    )
    for name, label, marker in others:
        if name in known:
            layers.append(Layer(label=label, values=name, marker=marker))
    order = arrays["debiased"] if "debiased" in known else arrays["raw"]
    words = _swapped_words if run.responses else _distinguishability_words
    return Picture(
        id="distinguishability",
        title="Distinguishability",
        kind="dots",
        caption=words({layer.values for layer in layers}, "low" in known and "high" in known),
        x_label="Distinguishability (feature units)",
        y_label="",
        arrays={name: arrays[name] for name in known},
        layers=tuple(layers),
        orders=rank_orders(run, "largest first", order),
        options={"low": 0.0},
        **for_groups(run),
    )


def _distinguishability_words(drawn: set[str], interval: bool) -> str:
    """What the marks mean and when they say nothing, for those marks that are drawn."""
    words = ["How far apart the model holds the two classes of a group's pairs."]
    if "debiased" in drawn:
        words.append(
            "The dot has the part taken off that chance adds"
            + (", with a 95 % bootstrap interval; where that reaches 0, nothing was found." if interval else ".")
        )
    if {"raw", "null"} <= drawn:
        words.append(
            "A ring near its upright tick is as far apart as shuffled labels are: the group looks like noise to this "
            "model."
        )
    return " ".join(words)


def _swapped_words(drawn: set[str], interval: bool) -> str:
    """The same for long responses, whose distance is measured between pairs and whose null swaps the two sides."""
    words = ["How strongly a group's pairs pull the head the same way, as a distance in the unit of their gradients."]
    if "debiased" in drawn:
        words.append(
            "The dot compares different pairs only, so that no pair's own noise or length counts"
            + (", with a 95 % bootstrap interval; where that reaches 0, nothing was found." if interval else ".")
        )
    if {"debiased", "null"} <= drawn:
        words.append("A dot near its upright tick is what chosen and rejected swapped at random give: noise.")
    if "raw" in drawn:
        words.append("The ring is the length of the mean gradient; as far as it lies beyond the dot, it is noise.")
    return " ".join(words)


def probe(run: RunFolder) -> Picture | None:
    """What a held-out probe reaches, beside what tells the sides apart without the model."""
    keys = {"probe": "probe_accuracy", "low": "probe_low", "high": "probe_high", "chance": "probe_chance"}
    for name, key in (("untrained", "untrained_probe"), ("words", "words"), ("length", "length")):
        keys |= {name: f"{key}_accuracy", f"{name}_low": f"{key}_low", f"{name}_high": f"{key}_high"}
    keys |= {"reference": "reference_accuracy", "reference_low": "reference_low", "reference_high": "reference_high"}
    arrays = {name: run.column(key) for name, key in keys.items()}
    known = measured(arrays, arrays)
    if "probe" not in known:
        return None
    layers = []
    series: tuple[tuple[str, str, Marker, str], ...] = (
        ("probe", "probe on the model's states", "dot", ""),
        ("untrained", "probe on the untrained twin", "diamond", "untrained_"),
        ("words", "word counts alone", "ring", "words_"),
        ("length", "length alone", "cross", "length_"),
        ("reference", "reference log-probability alone", "triangle", "reference_"),
        ("chance", "chance", "tick", "chance_"),
    )
    for name, label, marker, ends in series:
        if name in known:
            interval = {f"{ends}low", f"{ends}high"} <= set(known)
            drawn = interval and name == "probe"
            layers.append(
                Layer(
                    label=f"{label}, 95 % interval" if drawn else label,
                    values=name,
                    marker=marker,
                    low=f"{ends}low" if interval else None,
                    high=f"{ends}high" if interval else None,
                    told=interval and not drawn,
                )
            )
    rest = "words, length, reference and chance" if "reference" in known else "words, length and chance"
    return Picture(
        id="probe",
        title=f"Held-out probe against {rest}",
        kind="dots",
        caption=_probe_words(run, set(known)),
        x_label="Held-out accuracy (share of pairs)" if run.responses else "Held-out accuracy (both answers alike)",
        y_label="",
        arrays={name: arrays[name] for name in known},
        layers=tuple(layers),
        orders=rank_orders(run, "most accurate first", arrays["probe"]),
        options={"high": 1.0},
        **for_groups(run),
    )


def _probe_words(run: RunFolder, known: set[str]) -> str:
    words = ["Accuracy on pairs the probe was not fitted to."]
    if run.responses:
        words.append("It reads the mean state of the chosen response minus that of the rejected one.")
    else:
        words.append(
            "Both answers count alike, however unequal their numbers (balanced accuracy): to name the commoner one "
            "always is right on half."
        )
    words.append(
        "What the model adds is the distance from the ring (word counts alone) to the dot. Where the two agree, the "
        "words decide and the model's states add little; where the interval reaches chance, nothing was found."
    )
    if "reference" in known:
        words.append(
            "A cross near 1: the longer or the shorter response wins. A triangle near 1: the reference already tells "
            "them apart, by probability alone."
        )
    if "untrained" in known:
        words.append("The untrained twin has the same architecture and fresh weights: what it reaches was not learned.")
    return " ".join(words)


_OTHER_PAIRS = (
    " The interval is of what other pairs of the same kind would show. The dot may lie outside: noise in the mean of "
    "these pairs goes along itself."
)


def priority(run: RunFolder) -> Picture | None:
    """How much of the first joint step serves each group."""
    keys = {"priority": "priority", "low": "priority_low", "high": "priority_high"}
    arrays = {name: run.column(key) for name, key in keys.items()}
    values, known = arrays["priority"], measured(arrays, arrays)
    if len(values) < 2 or "priority" not in known:
        return None
    interval = {"low", "high"} <= set(known)
    return Picture(
        id="priority",
        title="Priority in the first joint step",
        kind="dots",
        caption="How far the first joint step goes along each group's own direction, 1 at most. The larger, the faster "
        "the group starts; below 0 the shared step raises the group's loss."
        + (_OTHER_PAIRS if interval else "")
        + " The first step is not the whole run: a group that starts slowly can end well, and the other way round.",
        x_label="Priority level (from −1 to 1)",
        y_label="",
        arrays={name: arrays[name] for name in known},
        layers=(
            Layer(
                label="priority" + (", 95 % interval" if interval else ""),
                values="priority",
                low="low" if interval else None,
                high="high" if interval else None,
            ),
        ),
        orders=rank_orders(run, "largest first", values),
        lines=(("0", 0.0),),
        options={"zero": True},
        **for_groups(run),
    )


def order(run: RunFolder) -> Picture | None:
    """What is known before training against how far the simulated loss falls."""
    loss = run.curves("loss")
    if len(run.groups) < 3 or loss.shape[1] < 2:
        return None
    arrays = {
        "decrease": loss[:, 0] - loss[:, -1],
        "distinguishability": run.column("distinguishability"),
        "priority": run.column("priority"),
    }
    known = measured(arrays, arrays)
    if "decrease" not in known or len(known) < 2:
        return None
    axes = {"distinguishability": "Distinguishability (feature units)", "priority": "Priority level (from −1 to 1)"}
    layers = [
        Layer(label=name.capitalize(), values=name, axis=axes[name], note=_agreement_note(run, name))
        for name in ("distinguishability", "priority")
        if name in known
    ]
    return Picture(
        id="order",
        title="Does the diagnosis predict the order?",
        kind="scatter",
        caption=("One mark per group, its shape and colour by verdict" if any(run.verdicts) else "One mark per group")
        + ": what is known before training against how far the group's training loss falls in the simulated joint "
        "run. Both come from the same features, and the first step follows from the priorities: a high correlation "
        "shows that the sum is right, not that the model understands the group.",
        x_label=layers[0].axis,
        y_label="Predicted decrease of training loss (nats)",
        arrays={name: arrays[name] for name in known},
        layers=tuple(layers),
        **for_groups(run),
    )


def trained_order(run: RunFolder) -> Picture | None:
    """What the states were at the start against how far the loss fell."""
    loss = run.curves("loss")
    gap = run.column("distinguishability_before")
    if len(run.groups) < 3 or loss.shape[1] < 2 or not np.isfinite(gap).any():
        return None
    fall = loss[:, 0] - loss[:, -1]
    found = rank_correlation(gap, fall)
    return Picture(
        id="order",
        title="Does distinguishability at the start say what is learned?",
        kind="scatter",
        caption="One mark per group: how far apart the two answers' states were before training, against how far the "
        "group's training loss fell.",
        x_label="Distinguishability at the start (feature units)",
        y_label="Decrease of training loss (nats)",
        arrays={"decrease": fall, "distinguishability": gap},
        layers=(
            Layer(
                label="Distinguishability",
                values="distinguishability",
                axis="Distinguishability at the start (feature units)",
                note=f"Rank correlation {found}.",
            ),
        ),
        **for_groups(run),
    )


def _agreement_note(run: RunFolder, key: str) -> str:
    order = run.part("diagnostics", "order", key)
    if not isinstance(order, Mapping):
        return ""
    spearman, kendall = number(order.get("spearman")), number(order.get("kendall"))
    if math.isnan(spearman):
        return "Rank correlation is not defined here."
    count = order.get("groups", order.get("pairs_of_groups"))
    over = f", over {count} groups" if isinstance(count, int) and "groups" in order else ""
    low, high, p = (number(order.get(key)) for key in ("low", "high", "p"))
    sure = [] if math.isnan(low) else [f"95 % interval {low:.2f} to {high:.2f}"]
    sure += [] if math.isnan(p) else [f"p {p:.2g}"]
    tail = f" ({', '.join(sure)})" if sure else ""
    tail += "" if math.isnan(kendall) else f", Kendall {kendall:.2f}"
    return minus_signs(f"Spearman {spearman:.2f}{tail}{over}.")


def cosine(run: RunFolder) -> Picture | None:
    """Cosines between the groups' states."""
    raw = _matrix(run, "diagnostics", "cosine", "raw")
    centred = _matrix(run, "diagnostics", "cosine", "centred")
    structure = raw if centred is None else centred
    if len(run.groups) < 2 or structure is None:
        return None
    arrays, layers = {}, []
    part = run.part("diagnostics", "cosine") or {}

    def note(kind: str) -> str:
        mean, most = number(part.get(f"{kind}_mean")), number(part.get(f"{kind}_max"))
        return (
            "" if math.isnan(mean) else f"Between different groups, without sign: mean {mean:.2f}, largest {most:.2f}."
        )

    null = number(part.get("null"))
    for name, label, matrix in (
        ("centred", "Shared part removed", centred),
        ("raw", "Raw", raw),
    ):
        if matrix is not None:
            arrays[name] = matrix
            limit = 1.0 if name == "raw" else min(1.0, _limit(matrix))
            layers.append(Layer(label=label, values=name, limit=limit, note=note(name)))
    level = "" if math.isnan(null) else f" Two random directions have about ±{null:.2g}."
    geometry = run.part("diagnostics", "geometry") or {}
    rank = number(geometry.get("effective_rank"))
    tail = "" if math.isnan(rank) else f" All pairs' states spread over about {rank:.1f} directions (effective rank)."
    return Picture(
        id="cosine",
        title="Which groups the model holds alike",
        kind="heat",
        caption=f"Mean cosine between {_rows_words(run)}. Raw values are mostly what all "
        f"{'pairs' if run.responses else 'prompts'} share; with the shared part removed, structure shows: blocks of "
        f"one colour are groups that look alike to the model.{level}{tail}",
        x_label="Group",
        y_label="Group",
        arrays=arrays,
        layers=tuple(layers),
        orders=_heat_orders(run, structure),
        options={"unit": "cosine"},
        **for_groups(run),
    )


def influence(run: RunFolder) -> Picture | None:
    """What a step on one group does to the margin of another."""
    matrix = _matrix(run, "diagnostics", "influence", "matrix")
    if matrix is None or len(matrix) < 2:
        return None
    unit = visible(run.part("diagnostics", "influence", "unit") or "reward margin")
    centred = _matrix(run, "diagnostics", "cosine", "centred")
    return Picture(
        id="influence",
        title="Who pushes whom",
        kind="heat",
        caption="What the first step on the pairs of one group (row) does to the mean margin of another "
        "(column). Above 0 it helps; below 0 the row works against the column. A column with much below 0 belongs to "
        "a group that the others hold back.",
        x_label="Group whose margin moves",
        y_label="Group whose pairs push",
        arrays={"influence": matrix},
        layers=(Layer(label="Influence", values="influence", limit=_limit(matrix)),),
        orders=_heat_orders(run, matrix if centred is None else centred),
        options={"unit": unit},
        **for_groups(run),
    )


def _rows_words(run: RunFolder) -> str:
    """Between which states the cosines of two groups are."""
    if run.responses:
        return "two groups' pairs: each pair's mean chosen state minus its mean rejected state"
    first = run.part("diagnostics", "cosine", "rows") == "positive"
    return "the states of two groups' pairs" + (", of those whose first answer is chosen" if first else "")


def _matrix(run: RunFolder, *keys: str) -> np.ndarray | None:
    found = run.part(*keys)
    m = len(run.groups)
    if not isinstance(found, list) or len(found) != m or any(not isinstance(r, list) or len(r) != m for r in found):
        return None
    matrix = np.array([[number(value) for value in row] for row in found]).reshape(m, m)
    return matrix if np.isfinite(matrix).any() else None


def _limit(matrix: np.ndarray) -> float:
    """Where colours saturate: the 98th percentile of the absolute values off the diagonal."""
    off = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
    off = off[np.isfinite(off)]
    limit = float(np.quantile(off, 0.98)) if len(off) else 0.0
    return float(f"{limit:.2g}") or 1.0


def _heat_orders(run: RunFolder, structure: np.ndarray) -> tuple[tuple[str, tuple[int, ...]], ...]:
    orders = [("similar together", similar_together(structure))]
    rank = run.rank()
    if np.isfinite(rank).any():
        orders.append(("first learned", sorted_codes(rank, falling=False)))
    orders.append(("as in the data", tuple(range(len(structure)))))
    return tuple(orders)


_FARTHEST = 1e300
"""Coordinates beyond are of a damaged folder, and no axis can be drawn for them."""


def embedding(run: RunFolder) -> Picture | None:
    """The pairs in two dimensions."""
    part = run.part("diagnostics", "embedding")
    if not isinstance(part, Mapping) or not part.get("x"):
        return None
    x = np.array([number(value) for value in part["x"]])
    y = np.array([number(value) for value in part.get("y") or []])
    owner = np.array([number(value) for value in part.get("group") or []])
    sign = [math.nan if value is None else float(bool(value)) for value in part.get("positive") or [None] * len(x)]
    names = [visible(value) for value in part.get("id") or []]
    if not len(x) == len(y) == len(owner) == len(sign):
        return None
    fine = (np.abs(x) < _FARTHEST) & (np.abs(y) < _FARTHEST) & (owner >= 0) & (owner < len(run.groups))
    method = visible(part.get("method") or "").upper()
    explained = [number(value) for value in part.get("explained") or []]
    explained += [math.nan] * (2 - len(explained))
    axes = []
    for place in range(2):
        share = explained[place]
        name = f"{'Principal component' if method == 'PCA' else method} {place + 1}"
        axes.append(name if math.isnan(share) else f"{name} ({100 * share:.0f} % of the variance)")
    of = part.get("of")
    size = f"{fine.sum():,} of {of:,} pairs" if isinstance(of, int) else f"{fine.sum():,} pairs"
    signs = np.array(sign)[fine]
    classes = bool(np.isfinite(signs).any())
    return Picture(
        id="embedding",
        title="A picture of the pairs",
        kind="points",
        caption=f"{size}, each one dot, in two dimensions ({method}). {_cloud_words(run, classes=classes)}",
        x_label=axes[0],
        y_label=axes[1],
        arrays={"x": x[fine], "y": y[fine], "group": owner[fine], "positive": signs},
        layers=(Layer(label="pairs", values="x"),),
        labels=tuple(name for name, keep in zip(names, fine, strict=True) if keep) if len(names) == len(x) else (),
        **for_groups(run),
    )


def _cloud_words(run: RunFolder, *, classes: bool) -> str:
    if classes:
        return (
            "Filled and hollow are the two classes of a group. Where filled and hollow lie apart, the model tells a "
            "group's classes apart along the directions that vary most; where they mix here, they may still differ in "
            "directions that the picture leaves out."
        )
    seen = "A dot is a pair's mean chosen state minus its mean rejected state. " if run.responses else ""
    return (
        f"{seen}Where two groups lie apart, they differ along the directions that vary most; where they mix here, they "
        "may still differ in directions that the picture leaves out."
    )


def agreement(run: RunFolder) -> Picture | None:
    """How far the pairs agree with all the others."""
    if run.pairs is None or "agreement" not in run.pairs.schema.names:
        return None
    values = np.array([number(value) for value in run.pairs["agreement"].to_pylist()])
    values = values[np.isfinite(values)]
    if len(values) < 10 or np.ptp(values) == 0:
        return None
    low, high = np.quantile(values, [0.002, 0.998])
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return None
    width = (high - low) / 40
    edges = width * np.arange(math.floor(low / width), math.ceil(high / width) + 1)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    against = float((values < 0).mean())
    return Picture(
        id="agreement",
        title="How far the pairs agree with the rest",
        kind="hist",
        caption="Every pair by what the first step of all the other pairs does to its margin. "
        f"{100 * against:.1f} % of {len(values):,} pairs are pushed the wrong way (left of 0); the outermost bars hold "
        "all that lies beyond.",
        x_label="Push by all other pairs (reward margin)",
        y_label="Share of pairs",
        arrays={"edges": edges, "share": counts / len(values)},
        layers=(Layer(label="pairs", values="share"),),
        lines=(("0", 0.0),),
        **for_groups(run),
    )
