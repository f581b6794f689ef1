r"""Does what is said of DPO hold for other losses of the margin? 2408.03459, section 7.

There the pull $\sigma(-r)$ is to be replaced by $-f'(r)$: IPO has $f = (r-1)^2$, SLiC $f = \max(0, 1-r)$. The head is
trained under each by gradient descent at one rate, on the same features and in the same company of values, beside the
closed forms of each loss for clusters without noise (THEORY 3.4); and the whole model with one value and with many. The
same section prints how the reward of a single response moves (source error X-12), and section 4.3 the same for longer
ones (X-13): both are held against finite differences.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from prefdyn._random import stream
from prefdyn.dynamics.order import area
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, Statistic, power, rank, single
from prefdyn.experiments.clusters import clusters
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.run import RecipeRun
from prefdyn.experiments.shared_rules import Judged, WithTwin, as_evidence, inside
from prefdyn.experiments.sides import distance, trained_rows
from prefdyn.experiments.statistics import over_seeds
from prefdyn.experiments.values import (
    Company,
    Ring,
    Sets,
    by_count,
    mean_at,
    mean_curve,
    members,
    ring,
    train_values,
    value_sets,
)
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.theory.value_scaling import noiseless_margin, response_rates, scaled_time, token_reward_rate
from prefdyn.theory.value_scaling.multi_token import TokenContexts
from prefdyn.trajectory import Trajectory

_EXPERIMENT = "2408.03459-experiment07"
LOSSES = {"sigmoid": "DPO", "hinge": "SLiC", "gpo_ipo": "IPO"}
_OTHERS = ("hinge", "gpo_ipo")
_SHADES = {"sigmoid": 0.1, "hinge": 0.5, "gpo_ipo": 0.8}
_WHOLE = "values-full"
_DEPARTURE = 0.1
"""Relative distance up to which a margin counts as that of the closed form."""
_EXACT = 1e-6
"""The same where nothing but rounding may differ."""
_ORDER = 0.9
"""Rank correlation above which two orders of learning count as one."""
_POWER = 0.1
"""Difference up to which two exponents of K count as one."""
_STEPS = 500
_END = 0.5
"""Steps, and scaled time at their end, of training on the paper's clusters: SLiC comes to its kink."""
_NEAR = 1e-6
"""Of finite differences."""


# what is run ---------------------------------------------------------------------------------------------------------


def _runs(context: Context) -> Plan:
    sets = value_sets(context)
    companies = ring(sets)
    setup = replace(context.setup("values-last-layer"), optimizer="sgd", learning_rate="auto", rate_of="gpo_ipo")
    plan: dict[Any, RecipeRun] = {}
    for seed in context.seeds:
        together = context.pairs(members(sets), seed, template=setup.template)
        for source in SOURCES:
            states = context.features(together, context.source(source, seed, "values-last-layer"))
            plan["features", source, seed] = states
            for loss in LOSSES:
                plan["head", loss, source, seed] = context.simulate(
                    states,
                    replace(setup, objective=loss),
                    seed=seed,
                    subsets=tuple(names for group in companies.values() for names in group),
                )
                for count in _ends(sets):
                    plan["whole", loss, source, seed, count] = train_values(
                        context,
                        sets[count],
                        context.source(source, seed, _WHOLE),
                        replace(context.setup(_WHOLE), objective=loss),
                        seed=seed,
                    )
    return plan


def _ends(sets: Sets) -> tuple[int, int]:
    """One value, and as many as there are."""
    return min(sets), max(sets)


# what is measured ----------------------------------------------------------------------------------------------------

Heads = Mapping[tuple[str, str, int], Company]
"""Loss, source and seed → heads trained."""


class OnClusters(NamedTuple):
    """Mean margin on the paper's clusters over scaled time, beside the closed form."""

    time: np.ndarray
    margin: np.ndarray
    closed: np.ndarray


def _results(context: Context, done: Done) -> Results:
    sets, seeds = value_sets(context), context.seeds
    companies = ring(sets)
    heads: Heads = {
        (loss, source, seed): by_count(done["head", loss, source, seed].trajectories, companies)
        for loss in LOSSES
        for source in SOURCES
        for seed in seeds
    }
    halves = {seed: _half_gaps(done["features", MODEL, seed].features) for seed in seeds}
    middle = sorted(sets)[len(sets) // 2]
    ideal = {loss: [on_clusters(loss, middle, seed) for seed in seeds] for loss in LOSSES}

    rows: list[Row] = []
    for (loss, source, seed), company in heads.items():
        mine = {"figure": loss, "source": source, "seed": seed}
        areas = zip(companies[1], _areas(heads["sigmoid", source, seed]), _areas(company), strict=True)
        for (name,), theirs, ours in areas:
            rows += [
                Row(quantity="DPO's area", value=theirs, group=name, **mine),
                Row(quantity="area", value=ours, group=name, **mine),
            ]
        for count, runs in company.items():
            numbers = {
                "K": float(count), "margin": mean_at(runs, "margin", "train", 0.1),
                "accuracy": mean_at(runs, "reward_accuracy", "held_out", 1.0),
            }  # fmt: skip
            rows += [Row(quantity=name, value=number, group=str(count), **mine) for name, number in numbers.items()]
        ends = [done["whole", loss, source, seed, count].trajectory for count in _ends(sets)]
        rows += _whole(ends, loss, source, seed)
    facts: dict[str, Any] = {
        "departure": {
            loss: [_departure(loss, heads[loss, MODEL, seed], companies, halves[seed]) for seed in seeds]
            for loss in LOSSES
        },
        "responses": _responses(),
        "tokens": _tokens(),
    }
    measured = Rows(rows, facts=facts)
    figures = (_curves(ideal, heads, companies, halves, sets, middle), _table(measured, _ends(sets)))
    return Results(measured=measured, figures=figures)


_ONE, _MANY = "one value", "many values"


def _whole(runs: Sequence[Trajectory], loss: str, source: str, seed: int) -> list[Row]:
    """Whole models at the end, with one value and with many."""
    mine = {"figure": f"{loss}, whole model", "source": source, "seed": seed}
    margins = [mean_at([run], "margin", "train", 1.0) for run in runs]
    errors = [1 - mean_at([run], "reward_accuracy", "held_out", 1.0) for run in runs]
    return [Row(quantity="accuracy", value=1 - float(np.mean(errors)), **mine)] + [
        Row(quantity=quantity, value=value, group=group, **mine)
        for quantity, values in (("end margin", margins), ("end error", errors))
        for group, value in zip((_ONE, _MANY), values, strict=True)
    ]


def _half_gaps(feats: FeatureSet) -> dict[str, float]:
    """Half the gap between the two classes of each value, of the pairs trained on."""
    return {name: distance(feats, trained_rows(feats, name)) / 2 for name in feats.groups}


def on_clusters(loss: str, count: int, seed: int) -> OnClusters:
    """Train on the paper's clusters under a loss.

    Args:
        loss: One of `LOSSES`.
        count: K; all values share their two answers.
        seed: Of the clusters.

    Example:
        >>> run = on_clusters("sigmoid", 1, 0)
        >>> bool(np.allclose(run.margin, run.closed, rtol=0.01))
        True
    """
    beta = 0.1
    rate = _END * count / (beta * beta * _STEPS)
    run = sweep(clusters(count, seed=seed), objective=loss, beta=beta, learning_rate=rate, steps=_STEPS)[0]
    steps, margin = mean_curve(run, "margin", "train")
    time = scaled_time(count, beta=beta, learning_rate=rate, steps=steps)
    return OnClusters(time, margin, noiseless_margin(time, loss))


def _closed(loss: str, run: Trajectory, names: Sequence[str], halves: Mapping[str, float]) -> np.ndarray:
    """Mean margin of a run, were its values the paper's clusters with the half gaps that are measured."""
    steps, _ = mean_curve(run, "margin", "train")
    setting = {"beta": run.settings["beta"], "learning_rate": run.settings["learning_rate"], "steps": steps}
    alone = [noiseless_margin(scaled_time(len(names), half_gap=halves[name], **setting), loss) for name in names]
    return np.mean(alone, axis=0)


def _departure(
    loss: str, runs: Company, companies: Ring, halves: Mapping[str, float]
) -> dict[int, tuple[float, float]]:
    """For each K, mean margin over its closed form after the first step and at the end."""
    found = {}
    for count, group in runs.items():
        margins = np.mean([mean_curve(run, "margin", "train")[1] for run in group], axis=0)
        closed = np.mean(
            [_closed(loss, run, names, halves) for run, names in zip(group, companies[count], strict=True)], axis=0
        )
        found[count] = (float(margins[1] / closed[1]), float(margins[-1] / closed[-1]))
    return found


def _areas(company: Company) -> list[float]:
    """How much of its margin each value, trained alone, has over the run."""
    return [area(*mean_curve(run, "margin", "train")) for run in company[1]]


# rates of single responses -------------------------------------------------------------------------------------------


def _responses() -> dict[str, float]:
    """Distance of a response's rate from finite differences: as printed, and with the softmax's share taken off."""
    rng = stream(0, "objectives", "responses")
    n, width, vocabulary, beta = 8, 4, 6, 0.5
    states, head, change = (
        rng.normal(size=(n, width)),
        rng.normal(size=(vocabulary, width)),
        rng.normal(size=(vocabulary, width)),
    )
    answers = np.array([rng.permutation(vocabulary)[:2] for _ in range(n)])
    rows, chosen, rejected = np.arange(n), answers[:, 0], answers[:, 1]
    logits = beta * states @ change.T
    margins = logits[rows, chosen] - logits[rows, rejected]
    now = head + change
    velocity = np.zeros_like(now)
    pulls = beta / n * DPO(beta=beta).push(margins)
    np.add.at(velocity, chosen, pulls[:, None] * states)
    np.add.at(velocity, rejected, -pulls[:, None] * states)

    def rewards(weights: np.ndarray) -> np.ndarray:
        return beta * np.log(softmax(states @ weights.T, axis=1)[rows, chosen])

    numeric = (rewards(now + _NEAR * velocity) - rewards(now - _NEAR * velocity)) / (2 * _NEAR)
    found = response_rates(states, chosen, rejected, softmax(states @ now.T, axis=1), margins, beta=beta)
    return {"printed": _relative(found.published_chosen, numeric), "repaired": _relative(found.chosen, numeric)}


def _tokens() -> dict[str, float]:
    """The same for tokens of longer responses: with the printed difference of two probabilities, and with their sum."""
    rng = stream(0, "objectives", "tokens")
    n, length, width, vocabulary, beta = 3, 2, 4, 6, 0.5
    count = 2 * n * length
    head, states = rng.normal(size=(vocabulary, width)), rng.normal(size=(count, width))
    tokens = rng.integers(vocabulary, size=count)
    pair, side = np.repeat(np.arange(n), 2 * length), np.tile(np.repeat([1, -1], length), n)
    margins = rng.normal(size=n)
    asked, wanted = rng.normal(size=(5, width)), rng.integers(vocabulary, size=5)
    pulls = beta / n * DPO(beta=beta).push(margins)[pair] * side
    there, here = softmax(states @ head.T, axis=1), softmax(asked @ head.T, axis=1)
    velocity = (pulls[:, None] * (np.eye(vocabulary)[tokens] - there)).T @ states

    def rewards(weights: np.ndarray) -> np.ndarray:
        return beta * np.log(softmax(asked @ weights.T, axis=1)[np.arange(5), wanted])

    numeric = (rewards(head + _NEAR * velocity) - rewards(head - _NEAR * velocity)) / (2 * _NEAR)
    trained = TokenContexts(states=states, tokens=tokens, pair=pair, side=side)
    repaired = token_reward_rate(head, trained, margins, asked, wanted, beta=beta)
    printed = repaired + 2 * beta * ((asked @ states.T) * here[:, tokens]) @ pulls
    return {"printed": _relative(printed, numeric), "repaired": _relative(repaired, numeric)}


def _relative(found: np.ndarray, numeric: np.ndarray) -> float:
    return float(np.abs(found - numeric).max() / np.abs(numeric).max())


# figures -------------------------------------------------------------------------------------------------------------


def _curves(
    ideal: Mapping[str, Sequence[OnClusters]],
    heads: Heads,
    companies: Ring,
    halves: Mapping[int, Mapping[str, float]],
    sets: Sets,
    middle: int,
) -> Figure:
    seeds = list(halves)
    panels = [
        Panel(
            kind="lines",
            title=f"(a) the paper's clusters, K = {middle}",
            x_label="Scaled time β²h²ηt/K",
            y_label="Mean training margin",
            lines=tuple(
                line
                for loss in LOSSES
                for line in _pair(
                    loss,
                    ideal[loss][0].time,
                    [run.margin for run in ideal[loss]],
                    ideal[loss][0].closed,
                )
            ),
        )
    ]
    for letter, count in zip("bc", _ends(sets), strict=True):
        lines = []
        for loss in LOSSES:
            runs = [heads[loss, MODEL, seed][count] for seed in seeds]
            margins = [np.mean([mean_curve(run, "margin", "train")[1] for run in group], axis=0) for group in runs]
            closed = np.mean(
                [
                    _closed(loss, run, names, halves[seed])
                    for group, seed in zip(runs, seeds, strict=True)
                    for run, names in zip(group, companies[count], strict=True)
                ],
                axis=0,
            )
            lines += _pair(loss, mean_curve(runs[0][0], "margin", "train")[0], margins, closed)
        title = f"({letter}) this data, " + ("each value alone" if count == 1 else f"{count} values")
        panels.append(
            Panel(kind="lines", title=title, x_label="Step", y_label="Mean training margin", lines=tuple(lines))
        )
    counts = list(sets)
    lines = []
    for loss, name in LOSSES.items():
        rows = [
            [mean_at(group, "margin", "train", 0.1) for group in heads[loss, MODEL, seed].values()] for seed in seeds
        ]
        if all(value > 0 for row in rows for value in row):
            curves = [np.log2(np.array(row) / row[0]).tolist() for row in rows]
            lines.append(mean_line(name, np.log2(counts).tolist(), curves, shade=_SHADES[loss]))
    lines.append(Line(label="1/K", x=np.log2(counts), y=-np.log2(counts), style="dotted"))
    panels.append(
        Panel(
            kind="lines",
            title="(d) this data, by number of values",
            x_label="log2 K",
            y_label="log2 of margin, over that of K = 1",
            lines=tuple(lines),
        )
    )
    return Figure(
        spec=spec_of(_EXPERIMENT),
        panels=tuple(panels),
        caption="Last layer by gradient descent, one rate for all losses; mean of the seeds and, on this data, of all "
        "sets of neighbours. Dashed: what clusters without noise would do, on this data with the half gaps that are "
        "measured.",
    )


def _pair(loss: str, x: np.ndarray, curves: Sequence[np.ndarray], closed: np.ndarray) -> list[Line]:
    """A loss's margins, and its closed form."""
    return [
        mean_line(LOSSES[loss], x.tolist(), [curve.tolist() for curve in curves], shade=_SHADES[loss]),
        Line(label=f"{LOSSES[loss]}, closed form", x=x, y=closed, shade=_SHADES[loss], style="dashed"),
    ]


def _table(measured: Rows, ends: Sequence[int]) -> Figure:
    rows = []
    for loss, name in LOSSES.items():
        for group, count in zip((_ONE, _MANY), ends, strict=True):
            there = {"figure": f"{loss}, whole model", "group": group}
            cells = [
                f"{np.mean(measured.values(quantity, there, source)):.3f}"
                for source in SOURCES
                for quantity in ("end margin", "end error")
            ]
            rows.append((f"{name}, K = {count}", *cells))
    columns = ("whole model", "training margin", "test error", "twin: training margin", "test error ")
    return Figure(
        spec=spec_of(_EXPERIMENT),
        part="e",
        panels=(Panel(kind="table", columns=columns, rows=tuple(rows)),),
        caption="Whole models at the end of training, with one value and with as many as there are; mean of the seeds.",
    )


# claims --------------------------------------------------------------------------------------------------------------


def _judge_departure(claim: Claim, rows: Rows) -> Judged:
    found = rows.facts["departure"][claim.chosen["figure"]]
    worst = [max(abs(end - 1) for _, end in row.values()) for row in found]
    came = inside(WithTwin(model=worst, twin=[]), -1.0, _DEPARTURE, what="")
    ends = {
        f"K = {count}, {when}": over_seeds([row[count][place] for row in found])
        for count in found[0]
        for place, when in enumerate(("first step", "end"))
    }
    return replace(
        came,
        measured=f"largest distance over K {over_seeds(worst, least=0)} of the margin",
        evidence={"largest_by_seed": worst, **as_evidence(ends)},
    )


def _judge_rates(claim: Claim, rows: Rows) -> Judged:
    found = rows.facts[claim.chosen["group"]]
    return Judged(
        holds=found["printed"] <= _EXACT,
        measured=f"off by {found['printed']:.2g} of the largest rate; repaired {found['repaired']:.2g}",
        because="against central differences on a random problem",
        evidence=found,
    )


def _row(id: str, says: str, statistic: Statistic | None = None, /, **rest: Any) -> Claim:
    common: dict[str, Any] = {"figure": _EXPERIMENT, "statement": says, "statistic": statistic}
    unit = "run" if statistic is not None and statistic.kind == "whole" else "number of values"
    return Claim(**{"id": f"{_EXPERIMENT}-{id}", "unit": unit, "kind": "ours", **common, **rest})


def _of_loss(loss: str) -> Iterator[Claim]:
    name = LOSSES[loss]
    yield _row(
        f"{name.lower()}-data",
        f"On this data margins under {name} follow the closed form of the measured gaps.",
        place="Section 7, THEORY 3.4",
        said="Last layer, gradient descent, every K over the same values: largest distance over K of the mean training "
        "margin at the end from its closed form, over that form; holds where the upper end of its 95 % interval over "
        "seeds is below {0:g}.",
        threshold=_DEPARTURE,
        select={"figure": loss},
        twin="",
        code=_judge_departure,
    )


def _of_other(loss: str) -> Iterator[Claim]:
    name, powers = LOSSES[loss], power("K", "margin")
    implied = "“similar implications should be expected”"
    yield _row(
        f"{name.lower()}-order",
        f"Under {name} values are learned in the order in which DPO learns them.",
        rank("DPO's area", "area"),
        threshold=_ORDER,
        setting="Last layer, each value alone",
        select={"figure": loss},
        short="rank correlation with DPO's order",
        unit="value",
    )
    yield _row(
        f"{name.lower()}-scaling",
        f"Under {name} margins fall with the number of values as under DPO.",
        powers,
        less={"figure": "sigmoid", "says": "that under DPO"},
        test="inside",
        threshold=(-_POWER, _POWER),
        twin="",
        setting="Last layer, every K over the same values",
        select={"figure": loss, "split": "train", "step": "early"},
        short="exponent less DPO's",
        beside={LOSSES[each]: {"figure": each, "statistic": powers} for each in ("sigmoid", loss)},
        kind="replication",
        paper_value=implied,
    )
    for quantity, groups, word, verb, short in (
        ("margin", (_ONE, _MANY), "training margin", "smaller", "fall of the margin"),
        ("error", (_MANY, _ONE), "test error", "larger", "rise of the error"),
    ):
        yield _row(
            f"{name.lower()}-whole-{quantity}",
            f"Whole model under {name}: the {word} is {verb} with many values than with one.",
            single(f"end {quantity}", short=short),
            select={"figure": f"{loss}, whole model", "group": groups[0]},
            less={"group": groups[1]},
            beside={"DPO": {"figure": "sigmoid, whole model"}},
            kind="replication",
            paper_value=implied,
        )


_RATE = "Random problem: holds where the rate is within {0:g} of central differences, over the largest rate."
CLAIMS = (
    *(claim for loss in LOSSES for claim in _of_loss(loss)),
    *(claim for loss in _OTHERS for claim in _of_other(loss)),
    _row(
        "responses",
        "The reward of a single response moves at the printed rate, without a share for the softmax.",
        said=_RATE,
        threshold=_EXACT,
        twin="",
        select={"group": "responses"},
        code=_judge_rates,
        place="Section 7, source error X-12",
        kind="algebra",
    ),
    _row(
        "tokens",
        "In the rate of a token's reward the probability factor is the difference of two probabilities.",
        said=_RATE,
        threshold=_EXACT,
        twin="",
        select={"group": "tokens"},
        code=_judge_rates,
        place="Section 4.3, source error X-13",
        kind="algebra",
    ),
)

RECIPE = Recipe(
    name="objectives",
    summary="Does what is said of DPO hold for other losses of the margin?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("values-last-layer", _WHOLE),
)
