"""Panels: what one picture shows, as named arrays with labels and units. Figures and the page draw the same panels."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from prefdyn.dynamics.order import rank_correlation
from prefdyn.report.folders import RunFolder, number
from prefdyn.report.many import drawn
from prefdyn.report.palette import MOST_COLOURED, ORDERED
from prefdyn.report.tables import shown
from prefdyn.report.text import visible

Marker = Literal["dot", "ring", "tick", "cross", "diamond", "triangle", "bar", "share", "number"]
"""How a series is drawn; "share" (a percentage) and "number" are written at the end of each group's row."""
Kind = Literal["lines", "dots", "scatter", "heat", "points", "hist"]
_TELLING = 8
_FROM_THE_FIRST_STEP = {"reward_accuracy", "chosen_falling"}
"""Shares of pairs that moved: 0 before the first step because nothing has moved, which is no point of a curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One thing drawn in a panel: a view of curves or of a matrix, or one series of points. Arrays go by name."""

    label: str
    values: str
    """Name of the array: (m, s) for lines, (m,) for dots and scatter, (m, m) for heat, (bins,) for hist."""
    axis: str = ""
    """Axis label with unit, where it differs from the panel's."""
    low: str | None = None
    high: str | None = None
    """Names of the arrays with the ends of an interval."""
    told: bool = False
    """The interval is told where one points at a row, and not drawn."""
    alone: str | None = None
    """Name of the array with the same groups' other curves, dashed: each trained by itself, unless
    `options["dashed"]` says otherwise."""
    marker: Marker = "dot"
    limit: float | None = None
    """For a heat map: the colours run from -limit to +limit."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture: arrays, how they are to be read, and a caption that says what one sees."""

    id: str
    """Fixed by the kind of panel, never by data; also the name of its figure files."""
    title: str
    kind: Kind
    caption: str
    x_label: str
    y_label: str
    groups: tuple[str, ...]
    """Names, as shown, that group codes refer to."""
    colours: tuple[int, ...]
    """(m,) place in the palette per group, -1 for grey."""
    verdicts: tuple[str | None, ...]
    arrays: Mapping[str, np.ndarray]
    layers: tuple[Layer, ...]
    orders: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Ways to sort the groups: a label, and group codes from first to last."""
    lines: tuple[tuple[str, float], ...] = ()
    """Reference lines across the value axis: label and place."""
    labels: tuple[str, ...] = ()
    """Names of single points, where they have any."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for values in self.arrays.values():
            values.setflags(write=False)


def panels(run: RunFolder) -> list[Panel]:
    """Every panel that this folder has numbers for, in the order of the page.

    Args:
        run: A folder read by `read_folder`.

    Returns:
        Panels. One whose numbers are missing, or that means nothing for a single group, is left out. With very many
        groups they show those that `drawn` keeps.
    """
    from prefdyn.report.responses import exact_panel, first_step_panel, log_probs_panel  # they build on this module

    if not run.groups or run.part("grid") is not None or run.part("comparison") is not None:
        return []
    run = drawn(run)
    diagnosed = (_distinguishability, _probe, _priority, _order, _cosine, _influence, _embedding)
    diagnosed += (first_step_panel, exact_panel, log_probs_panel)
    trained = (_trained_order, _gradients, _states)
    between = trained if run.part("command") == "train" else diagnosed
    found = (_loss_curves, _accuracy_curves, *between, _margins, _log_probs, _falling, _agreement)
    return [panel for draw in found if (panel := draw(run)) is not None]


def telling(run: RunFolder, most: int = _TELLING) -> tuple[int, ...]:
    """Codes of the groups worth a colour of their own: all of them while they are few, else by verdict and rank.

    First the first learned and the last, then groups in conflict, left behind, memorised, given away and random,
    strongest first.
    """
    m = len(run.groups)
    if m <= MOST_COLOURED:
        return tuple(range(m))
    rank, loss = run.rank(), run.column("predicted_held_out_loss")
    verdicts = run.verdicts
    known = [int(code) for code in np.argsort(rank, kind="stable") if not math.isnan(rank[code])]
    learned = [code for code in known if verdicts[code] in {*ORDERED, None}]

    def worst(verdict: str, count: int) -> list[int]:
        inside = [code for code in range(m) if verdicts[code] == verdict]
        return sorted(inside, key=lambda code: (math.isnan(loss[code]), -loss[code], code))[:count]

    giveaway = worst("giveaway", 1)
    wanted = [*learned[:2], *learned[-1:], *worst("conflicting", 1 if giveaway else 2), *worst("left behind", 1)]
    wanted += [*worst("memorised", 1), *giveaway, *worst("looks random", 1), *worst("trivial", 1)]
    wanted += [*learned[2:3], *learned[-2:-1]]
    wanted += [*learned, *range(m)]
    return tuple(list(dict.fromkeys(wanted))[:most])


def sorted_codes(values: np.ndarray, *, falling: bool = True) -> tuple[int, ...]:
    """Codes sorted by value, unknown values last, ties in the order of the data.

    Example:
        >>> sorted_codes(np.array([1.0, np.nan, 3.0]))
        (2, 0, 1)
    """
    keys = -values if falling else values
    return tuple(int(code) for code in np.lexsort((np.arange(len(values)), np.where(np.isnan(keys), np.inf, keys))))


def similar_together(matrix: np.ndarray) -> tuple[int, ...]:
    """Codes ordered so that groups with similar rows stand together (average linkage, best order of leaves)."""
    m = len(matrix)
    if m < 3:
        return tuple(range(m))
    distance = np.clip(1 - np.nan_to_num((matrix + matrix.T) / 2), 0, 2)
    np.fill_diagonal(distance, 0)
    flat = squareform(distance, checks=False)
    tree = linkage(flat, "average")
    return tuple(int(code) for code in leaves_list(optimal_leaf_ordering(tree, flat)))


def panel_json(panel: Panel) -> dict[str, Any]:
    """What the page's script draws from: plain lists, numbers to four or five digits, unknown as null."""
    return {
        "id": panel.id,
        "kind": panel.kind,
        "title": panel.title,
        "x": panel.x_label,
        "y": panel.y_label,
        "arrays": {name: rounded(values) for name, values in panel.arrays.items()},
        "layers": [
            {
                "label": layer.label,
                "values": layer.values,
                "axis": layer.axis,
                "low": layer.low,
                "high": layer.high,
                "told": layer.told,
                "alone": layer.alone,
                "marker": layer.marker,
                "limit": layer.limit,
                "note": layer.note,
            }
            for layer in panel.layers
        ],
        "orders": [{"label": label, "codes": list(codes)} for label, codes in panel.orders],
        "lines": [{"label": label, "at": at} for label, at in panel.lines],
        "labels": list(panel.labels),
        "options": dict(panel.options),
    }


def rounded(values: np.ndarray) -> list[Any]:
    """Nested lists with four or five digits that matter; NaN becomes None.

    Example:
        >>> rounded(np.array([[1.0, np.nan], [0.00123456789, 2.0]]))
        [[1, None], [0.0012346, 2]]
    """
    if values.ndim > 1:
        return [rounded(row) for row in values]
    return [_short(float(value)) for value in values]


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e9 else short


def for_groups(run: RunFolder) -> dict[str, Any]:
    """What every panel of this folder says of its groups: names, verdicts and colours."""
    coloured = telling(run)
    places = {code: place for place, code in enumerate(coloured)}
    return {
        "groups": run.labels,
        "verdicts": run.verdicts,
        "colours": tuple(places.get(code, -1) for code in range(len(run.groups))),
    }


def measured(arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> list[str]:
    """Those of the names whose array holds a number."""
    return [name for name in names if name in arrays and np.isfinite(arrays[name]).any()]


def _lines(
    run: RunFolder,
    name: str,
    title: str,
    caption: str,
    views: Sequence[tuple[str, str, str, str]],
    lines: tuple[tuple[str, float], ...] = (),
    **options: Any,
) -> Panel | None:
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
    if not layers:
        return None
    return Panel(
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


def _loss_curves(run: RunFolder) -> Panel | None:
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
        axes={"loss": "Mean loss (nats)"},
    )


def _accuracy_curves(run: RunFolder) -> Panel | None:
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


def _margins(run: RunFolder) -> Panel | None:
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


def _log_probs(run: RunFolder) -> Panel | None:
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
        axes={
            "chosen_change": "Change of chosen log-probability (nats)",
            "rejected_change": "Change of rejected log-probability (nats)",
        },
    )


def _falling(run: RunFolder) -> Panel | None:
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


def _drift_words(run: RunFolder) -> str:
    """What a first-order curve of a log-probability is worth; empty where the curve is exact, or was trained."""
    if not run.responses or run.part("command") == "train":
        return ""
    gap = number(run.part("exact", "gap", "chosen_change"))
    known = "" if math.isnan(gap) else f": by up to {shown(gap, 2)} nats on the pairs that were trained exactly"
    return f" These curves are first order in the head's movement, and with long responses they soon drift{known}."


def _gradients(run: RunFolder) -> Panel | None:
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


def _states(run: RunFolder) -> Panel | None:
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
    return Panel(
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


def _trained_order(run: RunFolder) -> Panel | None:
    """What the states were at the start against how far the loss fell."""
    loss = run.curves("loss")
    gap = run.column("distinguishability_before")
    if len(run.groups) < 3 or loss.shape[1] < 2 or not np.isfinite(gap).any():
        return None
    fall = loss[:, 0] - loss[:, -1]
    found = rank_correlation(gap, fall)
    return Panel(
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


def rank_orders(run: RunFolder, label: str, values: np.ndarray) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Ways to sort the groups: by these values, largest first, by rank where it is known, and as in the data."""
    rank = run.rank()
    orders = [(label, sorted_codes(values))]
    if np.isfinite(rank).any():
        orders.append(("first learned", sorted_codes(rank, falling=False)))
    orders.append(("as in the data", tuple(range(len(values)))))
    return tuple(orders)


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


def _distinguishability(run: RunFolder) -> Panel | None:
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
    return Panel(
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


def _probe(run: RunFolder) -> Panel | None:
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
    return Panel(
        id="probe",
        title=f"Held-out probe against {rest}",
        kind="dots",
        caption=_probe_words(run, set(known)),
        x_label="Held-out accuracy (share of pairs)",
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


def _priority(run: RunFolder) -> Panel | None:
    values = run.column("priority")
    if len(values) < 2 or not np.isfinite(values).any():
        return None
    return Panel(
        id="priority",
        title="Priority in the first joint step",
        kind="dots",
        caption="How far the first joint step goes along each group's own direction, 1 at most. The larger, the faster "
        "the group starts; below 0 the shared step raises the group's loss. The first step is not the whole run: a "
        "group that starts slowly can end well, and the other way round.",
        x_label="Priority level (from −1 to 1)",
        y_label="",
        arrays={"priority": values},
        layers=(Layer(label="priority", values="priority", marker="bar"),),
        orders=rank_orders(run, "largest first", values),
        lines=(("0", 0.0),),
        options={"zero": True},
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
    tail = "" if math.isnan(kendall) else f", Kendall {kendall:.2f}"
    return f"Spearman {spearman:.2f}{tail}{over}."


def _order(run: RunFolder) -> Panel | None:
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
    return Panel(
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


def _cosine(run: RunFolder) -> Panel | None:
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
    return Panel(
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


def _rows_words(run: RunFolder) -> str:
    """Between which states the cosines of two groups are."""
    if run.responses:
        return "two groups' pairs: each pair's mean chosen state minus its mean rejected state"
    first = run.part("diagnostics", "cosine", "rows") == "positive"
    return "the states of two groups' pairs" + (", of those whose first answer is chosen" if first else "")


def _influence(run: RunFolder) -> Panel | None:
    matrix = _matrix(run, "diagnostics", "influence", "matrix")
    if matrix is None or len(matrix) < 2:
        return None
    unit = visible(run.part("diagnostics", "influence", "unit") or "reward margin")
    centred = _matrix(run, "diagnostics", "cosine", "centred")
    return Panel(
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


def _embedding(run: RunFolder) -> Panel | None:
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
    fine = np.isfinite(x) & np.isfinite(y) & (owner >= 0) & (owner < len(run.groups))
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
    return Panel(
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


def _agreement(run: RunFolder) -> Panel | None:
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
    return Panel(
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
