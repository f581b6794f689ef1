r"""How many pairs does each of K values need? 2408.03459, Figure 4: what the bound asks for, and what data shows.

Figure 4 solves $2KQ^2e^{-Q/45} \le 0.05$ for Q. The same is done here, beside what else the theorem asks for at that Q:
a guarantee that holds with some probability, and room for K directions. Then the error itself: the head after the first
steps of joint training, on Q pairs per cluster of the states of a model, counted on held-out pairs; beside it the law
$\Phi\big(-1/(v\sqrt{K(1+dv^2/2Q)})\big)$ of THEORY 3.6 for values that share their answers, at the measured v and d,
and clusters drawn by the paper's own model with the same v, d and offset.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.early import Geometry, law, simulated, values_measured
from prefdyn.experiments.judging import BEYOND, Judged, Measured, below, unless_few, untestable
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line, shades
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.run import Run
from prefdyn.experiments.statistics import Estimate, over_seeds, straight_line
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
    plan: dict[Any, Run] = {}
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
    measured: dict[str, Any] = {
        "counts": list(companies),
        "levels": levels,
        "bound": _bound(),
        "errors": errors,
        "law": {source: _laws(geometry[source], companies, levels) for source in SOURCES},
        "isotropic law": _laws([each.along_few() for each in geometry[MODEL]], companies, levels),
        "drawn": drawn,
        "conditions": _conditions(geometry[MODEL], max(companies), max(levels)),
        "geometry": {
            source: {
                name: [getattr(each, name) for each in geometry[source]]
                for name in ("noise", "width", "shared_norm", "effective_rank")
            }
            for source in SOURCES
        },
    }
    return Results(measured=Rows(facts=measured), figures=(_published_figure(), _data_figure(measured)))


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


def _bound() -> dict[str, Any]:
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
        "at the stated": float(simplified_error(_TEN, _STATED)),
        "straight": straight,
        "failure": stated_failure(_TEN, needed),
        "pairs for the event": required_pairs_for_event(_TEN, form="stated"),
        "pairs with known constants": required_pairs_for_event(_TEN, shared_norm=0.5),
        "crowded": [count for count in every if (count + 1) / 5 > pairs_at_error(count, _ERROR)],
        "feasible": feasible_values(_ERROR),
        "log10 error at the fewest": log_mean_early_error(
            noise=least.noise, width=least.width, per_cluster=least.per_cluster, shared_norm=least.shared_norm
        )
        / math.log(10),
    }


def _conditions(geometry: Sequence[Geometry], values: int, pairs: int) -> list[dict[str, Any]]:
    """Conditions of Theorem 4.2 on the measured clusters, with what was measured in each seed; none without a gap."""
    rows: dict[str, dict[str, Any]] = {}
    if any(math.isinf(each.noise) for each in geometry):
        return []
    for each in geometry:
        model = ClusterModel(
            values=values, per_cluster=pairs, width=each.width, noise=each.noise, shared_norm=each.shared_norm,
            sharing=values, distinct=values == 1,
        )  # fmt: skip
        for condition in model.conditions():
            if condition.holds is None:
                continue
            row = rows.setdefault(
                condition.says, {"says": condition.says, "measured": [], "limit": condition.limit, "holds": []}
            )
            row["measured"].append(condition.measured)
            row["holds"].append(condition.holds)
    return list(rows.values())


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


def _data_figure(measured: Mapping[str, Any]) -> Figure:
    counts, levels = measured["counts"], measured["levels"]
    shown = list(dict.fromkeys((counts[0], counts[len(counts) // 2], counts[-1])))
    lines = []
    for count, shade in zip(shown, shades(len(shown)), strict=True):
        for words, found, style in (
            ("", measured["errors"][MODEL], "solid"),
            (", law", measured["law"][MODEL], "dashed"),
            (", clusters drawn", measured["drawn"], "dotted"),
        ):
            curves = np.array([found[count][pairs] for pairs in levels]).T
            kept = curves[np.isfinite(curves).all(axis=1)]
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


def _judge_ten(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    found = measured["bound"]
    pairs = found["ten"]
    return Judged(
        holds=pairs > _STATED and pairs / _STATED - 1 <= _CLOSE,
        measured=f"{pairs:.2f}, so {math.ceil(pairs)}; at {_STATED} the bound is {found['at the stated']:.4f}",
        because=f"{pairs / _STATED - 1:+.2%} from {_STATED}",
        evidence={"pairs_per_value": pairs, "bound_at_the_stated": found["at the stated"]},
    )


def _judge_hundred(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    ten, hundred = measured["bound"]["ten"], measured["bound"]["hundred"]
    ratio = hundred / ten
    return Judged(
        holds=abs(ratio - _STATED_RATIO) <= _CLOSE_RATIO,
        measured=f"{hundred:.1f} / {ten:.1f} = {ratio:.3f} times per value, {ratio * _HUNDRED / _TEN:.1f} times in all",
        because=f"{ratio - _STATED_RATIO:+.3f} from {_STATED_RATIO:g}",
        evidence={"ratio": ratio, "ratio_in_all": ratio * _HUNDRED / _TEN},
    )


def _judge_logarithm(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    straight = measured["bound"]["straight"]
    return Judged(
        holds=straight >= _STRAIGHT,
        measured=f"R² {straight:.5f}",
        because=f"of the line on log K, K from 1 to {_MOST} by doubling",
        evidence={"r_squared": straight},
    )


def _judge_event(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    found = measured["bound"]
    return Judged(
        holds=found["failure"] <= _ERROR,
        measured=f"stated probability of failure {found['failure']:.2e}; it takes {found['pairs for the event']} "
        f"pairs, or {found['pairs with known constants']} with known constants and Z = 1",
        because=f"at K = {_TEN} and the Q of Figure 4, with the unknown constant c infinite, which favours the paper",
        evidence={name.replace(" ", "_"): found[name] for name in ("failure", "pairs for the event")},
    )


def _judge_feasible(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    found = measured["bound"]
    return Judged(
        holds=not found["crowded"],
        measured=f"up to K = {found['feasible']}",
        because=f"beyond, (K + 1)/5 is more than the law asks for; K up to {_LARGEST} by doubling",
        evidence={"feasible": found["feasible"], "beyond": found["crowded"]},
    )


def _judge_needed(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    log10 = measured["bound"]["log10 error at the fewest"]
    return Judged(
        holds=log10 > math.log10(_ERROR),
        measured=f"held-out error 10^{log10:.0f} with {_FEWEST_PAIRS} pairs per cluster",
        because="exact for the early head on the theorem's own data: v = 1/(32 √Q), d = 5 Q, answers of their own",
        evidence={"log10_error": log10},
    )


def _judge_conditions(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    found = measured["conditions"]
    if not found:
        return untestable("the values have no gap beyond noise in some seed, so there is nothing to scale by")
    failing = [row for row in found if not all(row["holds"])]
    told = [f"{row['says']}: {np.mean(row['measured']):.3g} against {row['limit']:.3g}" for row in failing]
    return Judged(
        holds=not failing,
        measured=f"{len(failing)} of {len(found)} conditions fail",
        because="; ".join(told) if told else "all hold in every seed",
        evidence={row["says"]: [float(value) for value in row["measured"]] for row in found},
    )


def _judge_enough(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    most, counts = max(measured["levels"]), measured["counts"]
    enough = [count for count in counts if required_pairs(count, _ERROR) <= most]
    if not enough:
        asked, error = (
            required_pairs(counts[0], _ERROR),
            over_seeds(measured["errors"][MODEL][counts[0]][most], least=0),
        )
        return untestable(
            f"there are {most} pairs per cluster to train on, and the bound asks for {asked} and more",
            measured=f"error {error} at K = {counts[0]}, Q = {most}",
        )
    found = over_seeds(measured["errors"][MODEL][max(enough)][most], least=0, most=1)
    judged = Judged(
        holds=found.high <= _ERROR,
        measured=f"error {found} at K = {max(enough)}, Q = {most}",
        because=f"the upper end {found.high:.3g} is {'' if found.high <= _ERROR else 'not '}at most {_ERROR:g}",
        evidence={"error": found.to_json()},
    )
    return unless_few(judged, found.seeds)


def _judge_falls(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    levels, count = measured["levels"], max(measured["counts"])
    if len(levels) < 2:
        return untestable(f"the data has {levels[-1]} pairs per cluster, too few to halve")
    found = {source: measured["errors"][source][count] for source in SOURCES}
    fall = {source: np.subtract(each[levels[-1]], each[levels[0]]).tolist() for source, each in found.items()}
    model, twin = ([1 - error for error in found[source][levels[-1]]] for source in SOURCES)
    judged = below(
        Measured(model=fall[SOURCES[0]], twin=fall[SOURCES[1]], accuracy=model, twin_accuracy=twin), 0.0,
        what=f"error at Q = {levels[-1]} less error at Q = {levels[0]}, K = {count}:", least=-1, most=1,
    )  # fmt: skip
    return replace(judged, evidence={**judged.evidence, "error": over_seeds(found[MODEL][levels[-1]]).to_json()})


def _off(found: Mapping[int, Any], other: Mapping[int, Any]) -> list[float]:
    """Mean difference without sign, over K and Q, seed by seed; what is not known is left out.

    Example:
        >>> _off({1: {2: [0.5, 0.25]}, 4: {2: [0.5, 0.25]}}, {1: {2: [0.25, 0.25]}, 4: {2: [0.5, float("nan")]}})
        [0.125, 0.0]
    """
    off = np.abs(_cells(found) - _cells(other))
    return [float(np.nanmean(seed)) if np.isfinite(seed).any() else math.nan for seed in off.T]


def _cells(found: Mapping[int, Any]) -> np.ndarray:
    return np.array([values for each in found.values() for values in each.values()], dtype=np.float64)


def _judge_law(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    errors, laws = measured["errors"], measured["law"]
    found = over_seeds(_off(errors[MODEL], laws[MODEL]), least=0)
    few = over_seeds(_off(errors[MODEL], measured["isotropic law"]), least=0)
    twin = over_seeds(_off(errors[SOURCES[1]], laws[SOURCES[1]]), least=0)
    return _told_apart(
        found, _WITHIN,
        {"in_as_many_directions_as_the_effective_rank": few.to_json(), "untrained_twin": twin.to_json()}
        | {name: over_seeds(values).to_json() for name, values in measured["geometry"][MODEL].items()},
    )  # fmt: skip


def _judge_drawn(_: Claim, rows: Rows) -> Judged:
    measured = rows.facts
    found = over_seeds(_off(measured["drawn"], measured["law"][MODEL]), least=0)
    return _told_apart(found, _EXACT_WITHIN, {})


def _told_apart(found: Estimate, limit: float, evidence: Mapping[str, Any]) -> Judged:
    if not found.seeds:
        return untestable("no clusters of this width have room for the values")
    judged = Judged(
        holds=found.high < limit,
        measured=f"off by {found} on average",
        because=f"the upper end {found.high:.3g} is {'' if found.high < limit else 'not '}below {limit:g}",
        evidence={"difference": found.to_json(), **evidence},
    )
    return unless_few(judged, found.seeds)


CLAIMS = (
    Claim(
        id=f"{_FIGURE}-ten",
        kind="algebra",
        unit="number of values",
        figure=_FIGURE,
        place="Section 4.2",
        statement=f"Ten values take more than {_STATED} pairs each for a bound of {_ERROR:g}.",
        said=f"Larger root Q of 2 K Q² exp(−Q/45) = {_ERROR:g} at K = {_TEN}: holds where it is above {_STATED} by at "
        f"most {_CLOSE:.0%}.",
        code=_judge_ten,
        paper_value="more than 875",
    ),
    Claim(
        id=f"{_FIGURE}-hundred",
        kind="algebra",
        unit="number of values",
        figure=_FIGURE,
        place="Summary of the paper, source error X-9",
        statement=f"A hundred values take about {_STATED_RATIO:g} times the pairs per value of ten.",
        said=f"Ratio of the two roots at {_ERROR:g}: holds where it is within {_CLOSE_RATIO:g} of {_STATED_RATIO:g}.",
        code=_judge_hundred,
        paper_value="approximately 1.5×",
    ),
    Claim(
        id=f"{_FIGURE}-logarithm",
        kind="algebra",
        unit="number of values",
        figure=_FIGURE,
        place="Section 4.2",
        statement="The pairs per value that the bound asks for grow with the logarithm of the number of values.",
        said=f"R² of the line of Q on log K, K from 1 to {_MOST} by doubling: holds where it is at least "
        f"{_STRAIGHT:g}.",
        code=_judge_logarithm,
        paper_value="Q = Θ(log K)",
    ),
    Claim(
        id=f"{_FIGURE}-event",
        kind="algebra",
        unit="number of values",
        figure=_FIGURE,
        place="Theorems 4.2 and 4.3, source error X-10",
        statement="At the Q of Figure 4 the guarantee holds with high probability.",
        said=f"Stated probability of failure at K = {_TEN} and that Q, c infinite: holds where it is at most "
        f"{_ERROR:g}.",
        code=_judge_event,
        paper_value="8 K Q^(9/4) exp(−min(c √Q / 5, Q^(3/4)/256))",
    ),
    Claim(
        id=f"{_FIGURE}-feasible",
        kind="algebra",
        unit="number of values",
        figure=_FIGURE,
        place="Section 4.2, source error X-11",
        statement="The law Q = Θ(log K) holds for any number of values.",
        said="K + 1 orthogonal directions need d ≥ K + 1, and the theorem needs d ≤ 5 Q: holds where the Q of the law "
        f"is at least (K + 1)/5 for every K up to {_LARGEST} by doubling.",
        code=_judge_feasible,
        paper_value="Q = Θ(log K)",
    ),
    Claim(
        id=f"{_FIGURE}-needed",
        kind="algebra",
        unit="number of values",
        figure=_FIGURE,
        place="Summary of the paper",
        statement="So many pairs are required for the error to go to zero.",
        said="Exact mean error of the early head on the theorem's own data, at the limits of its conditions, with "
        f"{_TEN} values and {_FEWEST_PAIRS} pairs per cluster, the fewest it speaks of: holds where it is above "
        f"{_ERROR:g}.",
        code=_judge_needed,
        paper_value="“required to approach zero generalization error”",
    ),
    Claim(
        id=f"{_FIGURE}-conditions",
        kind="replication",
        unit="number of values",
        figure=_FIGURE,
        place="Theorem 4.2",
        statement="States of a model meet the conditions of the theorem.",
        said="Clusters as measured on all values together: holds where every condition that can be measured holds in "
        "every seed.",
        code=_judge_conditions,
    ),
    Claim(
        id=f"{_FIGURE}-enough",
        kind="replication",
        unit="number of values",
        figure=_FIGURE,
        place="Theorem 4.3",
        statement=f"With the pairs that the bound asks for, the held-out error is at most {_ERROR:g}.",
        said="Early head on the states of the model, largest K for which there are as many pairs per cluster: holds "
        f"where the upper end of the 95 % interval of its error over seeds is at most {_ERROR:g}.",
        code=_judge_enough,
    ),
    Claim(
        id=f"{_FIGURE}-falls",
        kind="replication",
        unit="number of values",
        figure=_FIGURE,
        place="Theorem 4.3",
        statement="The held-out error falls as pairs per value are added.",
        said="Early head on the states of the model, all values together: error with all pairs less that with the "
        "fewest; holds where the upper end of its 95 % interval over seeds is below 0. " + BEYOND,
        code=_judge_falls,
    ),
    Claim(
        id=f"{_FIGURE}-law",
        kind="ours",
        unit="number of values",
        figure=_FIGURE,
        place="THEORY 3.6 (ours)",
        statement="The law for shared answers, at the measured noise and width, tells the held-out error.",
        said="Mean difference without sign of law and measured error of the early head, over K and Q: holds where the "
        f"upper end of its 95 % interval over seeds is below {_WITHIN:g}.",
        code=_judge_law,
    ),
    Claim(
        id=f"{_FIGURE}-law-drawn",
        kind="ours",
        unit="number of values",
        figure=_FIGURE,
        place="THEORY 3.6 (ours)",
        statement="It does so on clusters drawn by the paper's model with the same noise, width and offset.",
        said="The same on clusters drawn, the error of each head exact: holds where the upper end of the 95 % interval "
        f"over seeds is below {_EXACT_WITHIN:g}.",
        code=_judge_drawn,
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
