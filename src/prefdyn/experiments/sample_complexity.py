r"""How many pairs does each of K values need? 2408.03459, Figure 4: what the bound asks for, and what data shows.

Figure 4 solves $2KQ^2e^{-Q/45} \le 0.05$ for Q. The same is done here, beside what else the theorem asks for at that Q:
a guarantee that holds with some probability, and room for K directions. Then the error itself: the head after the first
steps of joint training, on Q pairs per cluster of the states of a model, counted on held-out pairs; beside it the law
$\Phi\big(-1/(v\sqrt{K(1+dv^2/2Q)})\big)$ of THEORY 3.6 for values that share their answers, at the measured v and d,
and clusters drawn by the paper's own model with the same v, d and offset.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, distance, greatest, single
from prefdyn.experiments.context import MODEL, SOURCES, TWIN, Context
from prefdyn.experiments.early import Geometry, law, simulated, values_measured
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line, shades
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.run import RecipeRun
from prefdyn.experiments.statistics import straight_line
from prefdyn.experiments.values import members, ring, value_sets
from prefdyn.theory.value_scaling import (
    ClusterModel,
    feasible_values,
    log_mean_early_error,
    pairs_at_error,
    required_pairs,
    required_pairs_for_event,
    simplified_error,
    stated_failure,
)

_B = "2408.03459"
_FIGURE = f"{_B}-fig04"
_DRAWN, _LARGEST_K, _ENOUGH = f"{_FIGURE}, clusters drawn", f"{_FIGURE}, largest K", f"{_FIGURE}, as many as asked for"
_EXTREMES = (_LARGEST_K, _ENOUGH)
_ERROR = 0.05
"""Of Figure 4."""
_TEN, _HUNDRED = 10, 100
_STATED, _STATED_RATIO = 875, 1.5
"""Pairs per value for ten values, and for a hundred over those for ten, as told."""
_CLOSE, _CLOSE_RATIO = 0.01, 0.05
"""How far, relatively, and absolutely, our numbers may be from those."""
_STRAIGHT = 0.99
"""R² from which on Q counts as linear in log K."""
_MOST = 1024
_LARGEST = 2**20
"""Values up to which the growth of Q is fitted, and up to which it is held against its own conditions."""
_GEOMETRY = ("noise", "width", "shared norm", "effective rank")
_FEWEST_PAIRS = 40
"""Of Theorem 4.3."""
_WITHIN, _EXACT_WITHIN = 0.05, 0.01
"""Mean difference of two errors under which a law counts as telling them: on real data, and on its own model."""
_LEVELS = 5
"""Numbers of pairs per cluster that the error is measured at, each twice the one before."""


# what is run ---------------------------------------------------------------------------------------------------------


def _runs(context: Context) -> Plan:
    setup = context.setup("values-last-layer")
    names = members(value_sets(context))
    plan: dict[Any, RecipeRun] = {}
    for seed in context.seeds:
        pairs = context.pairs(names, seed, template=setup.template)
        for source in SOURCES:
            plan["features", source, seed] = context.features(pairs, context.source(source, seed, "values-last-layer"))
    return plan


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    sets = value_sets(context)
    companies, values = ring(sets), sets[max(sets)]
    feats = {
        (source, seed): done["features", source, seed].features for source in SOURCES for seed in context.seeds
    }  # fmt: skip
    found = {key: values_measured(each, values, seed=key[1]) for key, each in feats.items()}
    levels = _levels(min(each.pairs for each in found.values()))
    errors: dict[str, Any] = {
        source: {
            count: {
                pairs: [found[source, seed].error(groups, pairs) for seed in context.seeds] for pairs in levels
            }
            for count, groups in companies.items()
        }
        for source in SOURCES
    }  # fmt: skip
    geometry = {source: [found[source, seed].geometry for seed in context.seeds] for source in SOURCES}
    drawn = {
        count: {
            pairs: [
                simulated(each, count, pairs, seed=seed)
                for each, seed in zip(geometry[MODEL], context.seeds, strict=True)
            ]
            for pairs in levels
        }
        for count in companies
    }  # fmt: skip
    curves = {
        "errors": errors[MODEL],
        "law": _laws(geometry[MODEL], companies, levels),
        "drawn": drawn,
    }
    rows = _cells(curves["errors"], curves["law"], _FIGURE)
    rows += _cells(errors[TWIN], _laws(geometry[TWIN], companies, levels), _FIGURE, source=TWIN)
    few = _laws([each.along_few() for each in geometry[MODEL]], companies, levels)
    rows += [row._replace(quantity="law in few") for row in _cells({}, few, _FIGURE)]
    rows += _cells(drawn, curves["law"], _DRAWN)
    bound, (failing, conditions) = _bound(), _conditions(geometry[MODEL], max(companies), max(levels))
    rows += [Row(quantity=name, value=value, figure=_FIGURE) for name, value in {**bound, **failing}.items()]
    rows += [
        Row(quantity=name, value=getattr(each, name.replace(" ", "_")), figure=_FIGURE, seed=seed)
        for seed, each in enumerate(geometry[MODEL])
        for name in _GEOMETRY
    ]
    extremes, lacking = _extremes(errors, list(companies), levels)
    facts = {_FIGURE: bound | conditions, **{name: {"K": max(companies), "Q": levels[-1]} for name in _EXTREMES}}
    return Results(
        measured=Rows(rows + extremes, lacking=lacking, facts=facts),
        figures=(_published_figure(), _data_figure(list(companies), levels, curves)),
    )


def _cells(errors: Mapping[int, Any], laws: Mapping[int, Any], figure: str, *, source: str = MODEL) -> list[Row]:
    """Errors and laws at every number of values and of pairs, of what is known."""
    return [
        Row(quantity=name, value=value, figure=figure, source=source, seed=seed, group=f"K = {count}, Q = {pairs}")
        for name, found in (("early error", errors), ("law", laws))
        for count, each in found.items()
        for pairs, values in each.items()
        for seed, value in enumerate(values)
        if math.isfinite(value)
    ]


def _extremes(errors: Mapping[str, Any], counts: list[int], levels: list[int]) -> tuple[list[Row], dict[str, str]]:
    """Errors with the most and with the fewest pairs, and with as many as the bound asks for; why there are none."""
    lacking = {}
    if len(levels) < 2:
        lacking[_LARGEST_K] = f"the data has {levels[-1]} pairs per cluster, too few to halve"
    enough = [count for count in counts if required_pairs(count, _ERROR) <= levels[-1]]
    if not enough:
        lacking[_ENOUGH] = (
            f"there are {levels[-1]} pairs per cluster to train on, and the bound asks for "
            f"{required_pairs(counts[0], _ERROR)} and more"
        )
    rows = []
    for source, found in errors.items():
        most = found[max(counts)]
        told = {"most pairs": most[levels[-1]], "fewest pairs": most[levels[0]]}
        places = [(_LARGEST_K, name, each, "early error") for name, each in told.items()]
        places.append((_LARGEST_K, "", [1 - error for error in told["most pairs"]], "accuracy"))
        places.append((_ENOUGH, "", found[max(enough, default=counts[0])][levels[-1]], "early error"))
        rows += [
            Row(quantity=quantity, value=value, figure=figure, source=source, seed=seed, group=group)
            for figure, group, values, quantity in places
            for seed, value in enumerate(values)
        ]
    return rows, lacking


def _levels(most: int) -> list[int]:
    """Numbers of pairs per cluster: what there is, and halves of it down to 2.

    Example:
        >>> _levels(80), _levels(5)
        ([5, 10, 20, 40, 80], [2, 5])
    """
    found = [most // 2**place for place in range(_LEVELS)]
    return sorted(pairs for pairs in found if pairs >= 2)


def _laws(geometry: Sequence[Geometry], counts: Mapping[int, Any], levels: Sequence[int]) -> dict[int, Any]:
    return {count: {pairs: [law(each, count, pairs) for each in geometry] for pairs in levels} for count in counts}


def _bound() -> dict[str, float]:
    """What follows from the bound alone, whatever the data."""
    counts = [2**power for power in range(math.ceil(math.log2(_MOST)) + 1)]
    pairs = [pairs_at_error(count, _ERROR) for count in counts]
    _, _, straight = straight_line(np.log(counts).tolist(), pairs)
    every = [2**power for power in range(math.ceil(math.log2(_LARGEST)) + 1)]
    least = ClusterModel.at_the_limits(_TEN, _FEWEST_PAIRS)
    needed = required_pairs(_TEN, _ERROR)
    return {
        "ten": pairs_at_error(_TEN, _ERROR),
        "hundred": pairs_at_error(_HUNDRED, _ERROR),
        "times": pairs_at_error(_HUNDRED, _ERROR) / pairs_at_error(_TEN, _ERROR),
        "at the stated": float(simplified_error(_TEN, _STATED)),
        "straight": straight,
        "failure": stated_failure(_TEN, needed),
        "pairs for the event": required_pairs_for_event(_TEN, form="stated"),
        "pairs with known constants": required_pairs_for_event(_TEN, shared_norm=0.5),
        "crowded": sum((count + 1) / 5 > pairs_at_error(count, _ERROR) for count in every),
        "feasible": feasible_values(_ERROR),
        "log10 error at the fewest": log_mean_early_error(
            noise=least.noise, width=least.width, per_cluster=least.per_cluster, shared_norm=least.shared_norm
        )
        / math.log(10),
    }


def _conditions(geometry: Sequence[Geometry], values: int, pairs: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Conditions of Theorem 4.2 on the measured clusters: how many fail in some seed, and which; none without a gap."""
    measured: dict[str, list[float]] = {}
    broken: dict[str, float] = {}
    if any(math.isinf(each.noise) for each in geometry):
        return {}, {}
    for each in geometry:
        model = ClusterModel(
            values=values, per_cluster=pairs, width=each.width, noise=each.noise, shared_norm=each.shared_norm,
            sharing=values, distinct=values == 1,
        )  # fmt: skip
        for condition in model.conditions():
            if condition.holds is None:
                continue
            measured.setdefault(condition.says, []).append(float(condition.measured))
            if not condition.holds:
                broken[condition.says] = float(condition.limit)
    told = [f"{says}: {np.mean(measured[says]):.3g} against {limit:.3g}" for says, limit in broken.items()]
    facts = {"conditions": len(measured), "which": "; ".join(told) or "all hold in every seed", "measured": measured}
    return {"failing": len(broken)}, facts


# figures -------------------------------------------------------------------------------------------------------------


def _published_figure() -> Figure:
    counts = np.arange(1, _HUNDRED + 1)
    line = Line(
        label=f"bound at most {_ERROR:g}", x=counts.astype(float), shade=0.1,
        y=np.array([pairs_at_error(int(count), _ERROR) for count in counts]),
    )  # fmt: skip
    return Figure(
        spec=spec_of(_FIGURE),
        panels=(
            Panel(
                kind="lines", x_label="Values K", y_label="Pairs per cluster Q", lines=(line,),
                marks=((f"“more than {_STATED}”, K = {_TEN}", float(_STATED)),),
            ),
        ),
        caption="Pairs per cluster from which on the bound 2 K Q² exp(−Q/45) on the held-out error is at most "
        f"{_ERROR:g}.",
    )  # fmt: skip


def _asked() -> tuple[Line, ...]:
    """What the theorem asks for at K values, decimal logarithms of both."""
    counts = [round(10 ** (place / 4)) for place in range(21)]
    asked: dict[str, Callable[[int], float]] = {
        f"bound at most {_ERROR:g}": lambda count: pairs_at_error(count, _ERROR),
        "guarantee likely, as stated": lambda count: required_pairs_for_event(count, form="stated"),
        "guarantee likely, known constants": lambda count: required_pairs_for_event(count, shared_norm=0.5),
        "room for K directions": lambda count: (count + 1) / 5,
    }
    x = np.log10(counts)
    return tuple(
        Line(label=f"(b) {label}", x=x, y=np.log10([number(count) for count in counts]), shade=shade, style=style)
        for (label, number), shade, style in zip(
            asked.items(), (0.1, 0.3, 0.5, 0.7), ("solid", "solid", "solid", "dashed"), strict=True
        )
    )


def _data_figure(counts: list[int], levels: list[int], curves: Mapping[str, Any]) -> Figure:
    shown = list(dict.fromkeys((counts[0], counts[len(counts) // 2], counts[-1])))
    lines = []
    for count, shade in zip(shown, shades(len(shown)), strict=True):
        for words, found, style in (
            ("", curves["errors"], "solid"),
            (", law", curves["law"], "dashed"),
            (", clusters drawn", curves["drawn"], "dotted"),
        ):
            each = np.array([found[count][pairs] for pairs in levels]).T
            kept = each[np.isfinite(each).all(axis=1)]
            if len(kept):
                lines.append(mean_line(f"(c) K = {count}{words}", levels, kept.tolist(), shade=shade, style=style))
    return Figure(
        spec=spec_of(_FIGURE),
        part="b",
        panels=(
            Panel(
                kind="lines", title="(b) what the theorem asks for", x_label="log10 of the values K",
                y_label="log10 of the pairs per cluster Q", lines=_asked(),
            ),
            Panel(
                kind="lines", title="(c) measured on this model", x_label="Pairs per cluster Q",
                y_label="Held-out error", lines=tuple(lines), marks=((f"{_ERROR:g}", _ERROR),),
            ),
        ),
        caption="(b) Pairs per cluster that the theorem asks for: for a bound of 0.05, for a guarantee that fails in "
        "one of twenty cases, as stated and with known constants (Z = 1), and so that K directions find room. (c) "
        "Error of the early head on held-out pairs, beside the law for shared answers at the measured noise and width, "
        "and clusters of the paper's model drawn with the same. Lines: mean of the seeds; bands: their range.",
    )  # fmt: skip


# claims --------------------------------------------------------------------------------------------------------------


def _algebra(name: str, quantity: str, **rest: Any) -> Claim:
    """What follows from the bound alone."""
    common: dict[str, Any] = {"kind": "algebra", "unit": "run", "figure": _FIGURE, "twin": "", "place": "Section 4.2"}
    return Claim(id=f"{_FIGURE}-{name}", statistic=single(quantity), **{**common, "evidence": quantity, **rest})


_DATA: dict[str, Any] = {"figure": _FIGURE, "unit": "run", "setting": "Early head on the states"}
_OFF = distance("early error", "law", short="off")

CLAIMS = (
    _algebra(
        "ten",
        "ten",
        statement=f"Ten values take more than {_STATED} pairs each for a bound of {_ERROR:g}.",
        test="between",
        threshold=(_STATED, _STATED * (1 + _CLOSE)),
        told=f"{{0:.2f}}; at {_STATED} the bound is {{at the stated:.4f}}",
        because="the larger root Q of 2 K Q² exp(−Q/45) = 0.05, to a hundredth",
        facts=("at the stated",),
        paper_value="more than 875",
    ),
    _algebra(
        "hundred",
        "times",
        place="Summary of the paper, source error X-9",
        statement=f"A hundred values take about {_STATED_RATIO:g} times the pairs per value of ten.",
        test="between",
        threshold=(_STATED_RATIO - _CLOSE_RATIO, _STATED_RATIO + _CLOSE_RATIO),
        told="{hundred:.1f} / {ten:.1f} = {0:.3f} times per value",
        because=f"ratio of the two roots at {_ERROR:g}",
        paper_value="approximately 1.5×",
    ),
    _algebra(
        "logarithm",
        "straight",
        statement="The pairs per value that the bound asks for grow with the logarithm of the number of values.",
        test="at least",
        threshold=_STRAIGHT,
        told="R² {0:.5f}",
        because=f"of the line on log K, K from 1 to {_MOST} by doubling",
        paper_value="Q = Θ(log K)",
    ),
    _algebra(
        "event",
        "failure",
        place="Theorems 4.2 and 4.3, source error X-10",
        statement="At the Q of Figure 4 the guarantee holds with high probability.",
        test="at most",
        threshold=_ERROR,
        told="stated probability of failure {0:.2e}; it takes {pairs for the event} pairs, or {pairs with known "
        "constants} with known constants and Z = 1",
        because=f"at K = {_TEN} and the Q of Figure 4, with the unknown constant c infinite, which favours the paper",
        facts=("pairs for the event",),
        paper_value="8 K Q^(9/4) exp(−min(c √Q / 5, Q^(3/4)/256))",
    ),
    _algebra(
        "feasible",
        "crowded",
        place="Section 4.2, source error X-11",
        statement="The law Q = Θ(log K) holds for any number of values.",
        test="at most",
        threshold=0,
        told="up to K = {feasible}",
        because=f"beyond, (K + 1)/5 is more than the law asks for; K up to {_LARGEST} by doubling",
        note="K + 1 orthogonal directions need d ≥ K + 1, and the theorem needs d ≤ 5 Q.",
        facts=("feasible",),
        paper_value="Q = Θ(log K)",
    ),
    _algebra(
        "needed",
        "log10 error at the fewest",
        place="Summary of the paper",
        statement="So many pairs are required for the error to go to zero.",
        test="at least",
        threshold=math.log10(_ERROR),
        told=f"held-out error 10^{{0:.0f}} with {_FEWEST_PAIRS} pairs per cluster",
        because="exact for the early head on the theorem's own data: v = 1/(32 √Q), d = 5 Q, answers of their own",
        paper_value="“required to approach zero generalization error”",
    ),
    Claim(
        id=f"{_FIGURE}-conditions",
        figure=_FIGURE,
        unit="number of values",
        place="Theorem 4.2",
        statement="States of a model meet the conditions of the theorem.",
        statistic=greatest("failing"),
        test="at most",
        threshold=0,
        twin="",
        told="{0:.0f} of {conditions} conditions fail",
        because="{which}",
        evidence="failing",
        facts=("measured",),
        note="Clusters are as measured on all values together.",
        unknown="the values have no gap beyond noise in some seed, so there is nothing to scale by",
    ),
    Claim(
        id=f"{_FIGURE}-enough",
        place="Theorem 4.3",
        statement=f"With the pairs that the bound asks for, the held-out error is at most {_ERROR:g}.",
        statistic=single("early error", least=0, most=1),
        select={"figure": _ENOUGH},
        test="under",
        threshold=_ERROR,
        twin="",
        told="error {0} at the largest K for which there are as many pairs, or the smallest, and Q = {Q}",
        **_DATA,
    ),
    Claim(
        id=f"{_FIGURE}-falls",
        place="Theorem 4.3",
        statement="The held-out error falls as pairs per value are added.",
        statistic=single("early error", least=0, most=1),
        select={"figure": _LARGEST_K, "group": "most pairs"},
        less={"group": "fewest pairs"},
        test="below",
        told="error with the most pairs less error with the fewest, K = {K}: {0}",
        beside={"error": {"statistic": single("early error")}},
        **_DATA,
    ),
    Claim(
        id=f"{_FIGURE}-law",
        kind="ours",
        place="THEORY 3.6 (ours)",
        statement="The law for shared answers, at the measured noise and width, tells the held-out error.",
        statistic=_OFF,
        test="under",
        threshold=_WITHIN,
        twin="",
        told="off by {0} on average",
        beside={
            "in_as_many_directions_as_the_effective_rank": {"statistic": distance("early error", "law in few")},
            "untrained_twin": {"source": TWIN},
            **{name.replace(" ", "_"): {"statistic": single(name)} for name in _GEOMETRY},
        },
        **_DATA,
    ),
    Claim(
        id=f"{_FIGURE}-law-drawn",
        kind="ours",
        place="THEORY 3.6 (ours)",
        statement="It does so on clusters drawn by the paper's model with the same noise, width and offset.",
        statistic=_OFF,
        select={"figure": _DRAWN},
        test="under",
        threshold=_EXACT_WITHIN,
        twin="",
        told="off by {0} on average",
        unknown="no clusters of this width have room for the values",
        **{**_DATA, "setting": "Clusters drawn, the error of each head exact"},
    ),
)

RECIPE = Recipe(
    name="sample-complexity",
    summary="How many pairs does each of K values need: by the bound, by a law of the error, and on this model?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("values-last-layer",),
)
