r"""Does what is said of DPO hold for other losses of the margin? 2408.03459, section 7.

There the pull $\sigma(-r)$ is to be replaced by $-f'(r)$: IPO has $f = (r-1)^2$, SLiC $f = \max(0, 1-r)$. The head is
trained under each by gradient descent at one rate, on the same features and in the same company of values, beside the
closed forms of each loss for clusters without noise (THEORY 3.4); and the whole model with one value and with many. The
same section prints how the reward of a single response moves (source error X-12), and section 4.3 the same for longer
ones (X-13): both are held against finite differences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from prefdyn._random import stream
from prefdyn.dynamics.order import area, spearman
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim
from prefdyn.experiments.clusters import clusters
from prefdyn.experiments.context import MODEL, SOURCES, TWIN, Context
from prefdyn.experiments.judging import BEYOND, Judged, Measured, above, as_evidence, inside, untestable
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line
from prefdyn.experiments.run import Run
from prefdyn.experiments.sides import distance, trained_rows
from prefdyn.experiments.statistics import over_seeds
from prefdyn.experiments.values import (
    Company,
    Ring,
    Sets,
    by_count,
    exponent,
    mean_at,
    mean_curve,
    members,
    ring,
    too_few,
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
_PULLS = {"sigmoid": 0.5, "hinge": 1.0, "gpo_ipo": 2.0}
"""-f'(0)."""
_SHADES = {"sigmoid": 0.1, "hinge": 0.5, "gpo_ipo": 0.8}
_WHOLE = "values-full"
_CLOSE = 0.02
"""Relative distance up to which a margin counts as that of the closed form, on the paper's clusters."""
_DEPARTURE = 0.1
"""The same on real data."""
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
    plan: dict[Any, Run] = {}
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
        plan["ipo", seed] = context.simulate(
            plan["features", MODEL, seed],
            replace(setup, objective="ipo", rate_of=None),
            seed=seed,
            subsets=companies[max(sets)],
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

    @property
    def off(self) -> float:
        """Largest relative distance, from the first step on."""
        return float(np.abs(self.margin[1:] / self.closed[1:] - 1).max())


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
    ideal = {(loss, count): [on_clusters(loss, count, seed) for seed in seeds] for loss in LOSSES for count in sets}

    def each(statistic: Callable[[str, str, int], Any]) -> dict[str, dict[str, list[Any]]]:
        return {
            loss: {source: [statistic(loss, source, seed) for seed in seeds] for source in SOURCES} for loss in LOSSES
        }

    def order(loss: str, source: str, seed: int) -> float:
        return spearman(_areas(heads["sigmoid", source, seed]), _areas(heads[loss, source, seed]))

    def power(loss: str, source: str, seed: int) -> float:
        return exponent(
            list(sets), [mean_at(runs, "margin", "train", 0.1) for runs in heads[loss, source, seed].values()]
        )

    def accuracy(loss: str, source: str, seed: int) -> float:
        runs = heads[loss, source, seed].values()
        return float(np.mean([mean_at(group, "reward_accuracy", "held_out", 1.0) for group in runs]))

    def whole(loss: str, source: str, seed: int) -> dict[str, list[float]]:
        runs = [done["whole", loss, source, seed, count].trajectory for count in _ends(sets)]
        return {
            "margin": [mean_at([run], "margin", "train", 1.0) for run in runs],
            "error": [1 - mean_at([run], "reward_accuracy", "held_out", 1.0) for run in runs],
        }

    measured: dict[str, Any] = {
        "values": list(sets),
        "clusters": {loss: max(run.off for count in sets for run in ideal[loss, count]) for loss in LOSSES},
        "departure": {
            loss: [_departure(loss, heads[loss, MODEL, seed], companies, halves[seed]) for seed in seeds]
            for loss in LOSSES
        },
        "first": {loss: _first_ratio(heads, loss) for loss in _OTHERS},
        "order": each(order),
        "powers": each(power),
        "accuracy": each(accuracy),
        "whole": each(whole),
        "ipo": max(
            _off_half(done["ipo", seed].trajectory, heads["gpo_ipo", MODEL, seed][max(sets)][0]) for seed in seeds
        ),
        "responses": _responses(),
        "tokens": _tokens(),
    }
    figures = (_curves(ideal, heads, companies, halves, sets), _table(measured))
    return Results(measured=measured, figures=figures)


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
        >>> on_clusters("sigmoid", 1, 0).off < 0.01
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


def _first_ratio(heads: Heads, loss: str) -> float:
    """Largest relative distance of the first steps' ratio to DPO's from that of the pulls, over the model's runs."""
    wanted = _PULLS[loss] / _PULLS["sigmoid"]
    found = []
    for (name, source, seed), company in heads.items():
        if name == loss and source == MODEL:
            for count, group in company.items():
                for run, base in zip(group, heads["sigmoid", source, seed][count], strict=True):
                    first, other = (float(mean_curve(each, "margin", "train")[1][1]) for each in (base, run))
                    found.append(abs(other / first / wanted - 1))
    return max(found)


def _areas(company: Company) -> list[float]:
    """How much of its margin each value, trained alone, has over the run."""
    return [area(*mean_curve(run, "margin", "train")) for run in company[1]]


def _off_half(ipo: Trajectory, paper: Trajectory) -> float:
    """Largest distance of TRL's IPO from half of the paper's, over the largest margin."""
    half, whole = (mean_curve(run, "margin", "train")[1] for run in (ipo, paper))
    return float(np.abs(2 * half - whole).max() / np.abs(whole).max())


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
    ideal: Mapping[tuple[str, int], Sequence[OnClusters]],
    heads: Heads,
    companies: Ring,
    halves: Mapping[int, Mapping[str, float]],
    sets: Sets,
) -> Figure:
    middle = sorted(sets)[len(sets) // 2]
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
                    ideal[loss, middle][0].time,
                    [run.margin for run in ideal[loss, middle]],
                    ideal[loss, middle][0].closed,
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


def _table(measured: Mapping[str, Any]) -> Figure:
    ends = (measured["values"][0], measured["values"][-1])
    rows = []
    for loss, name in LOSSES.items():
        for place, count in enumerate(ends):
            cells = []
            for source in SOURCES:
                found = measured["whole"][loss][source]
                cells += [f"{np.mean([seed[key][place] for seed in found]):.3f}" for key in ("margin", "error")]
            rows.append((f"{name}, K = {count}", *cells))
    columns = ("whole model", "training margin", "test error", "twin: training margin", "test error ")
    return Figure(
        spec=spec_of(_EXPERIMENT),
        part="e",
        panels=(Panel(kind="table", columns=columns, rows=tuple(rows)),),
        caption="Whole models at the end of training, with one value and with as many as there are; mean of the seeds.",
    )


# claims --------------------------------------------------------------------------------------------------------------


def _judge_clusters(loss: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        off = measured["clusters"][loss]
        return Judged(
            holds=off <= _CLOSE,
            measured=f"off by at most {off:.2g} of the margin",
            because=f"up to a scaled time of {_END:g}, over all K and seeds; {_CLOSE:g} is allowed",
            evidence={"largest_relative_difference": off},
        )

    return judge


def _judge_departure(loss: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        rows = measured["departure"][loss]
        worst = [max(abs(end - 1) for _, end in row.values()) for row in rows]
        judged = inside(Measured(model=worst, twin=[]), -1.0, _DEPARTURE, what="")
        ends = {
            f"K = {count}, {when}": over_seeds([row[count][place] for row in rows])
            for count in rows[0]
            for place, when in enumerate(("first step", "end"))
        }
        return replace(
            judged,
            measured=f"largest distance over K {over_seeds(worst, least=0)} of the margin",
            evidence={"largest_by_seed": worst, **as_evidence(ends)},
        )

    return judge


def _judge_first(measured: Mapping[str, Any]) -> Judged:
    off = max(measured["first"].values())
    return Judged(
        holds=off <= _EXACT,
        measured=f"off by at most {off:.2g}",
        because="every run of the model: all sets of neighbours and seeds",
        evidence={LOSSES[loss]: value for loss, value in measured["first"].items()},
    )


def _judge_order(loss: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if (many := measured["values"][-1]) < 3:
            return untestable(f"an order takes 3 values, and there are {many}")
        found, accuracy = measured["order"][loss], measured["accuracy"][loss]
        return above(
            Measured(
                model=found[MODEL], twin=found[TWIN], accuracy=accuracy[MODEL], twin_accuracy=accuracy[TWIN]
            ),
            _ORDER, what="rank correlation with DPO's order", least=-1, most=1,
        )  # fmt: skip

    return judge


def _judge_power(loss: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if (why := too_few(measured["values"])) is not None:
            return untestable(why)
        powers = measured["powers"]
        gaps = {
            source: [one - other for one, other in zip(powers[loss][source], powers["sigmoid"][source], strict=True)]
            for source in SOURCES
        }
        judged = inside(Measured(model=gaps[MODEL], twin=gaps[TWIN]), -_POWER, _POWER, what="exponent less DPO's")
        rest = {LOSSES[each]: over_seeds(powers[each][MODEL]) for each in ("sigmoid", loss)}
        return replace(judged, evidence={**judged.evidence, **as_evidence(rest)})

    return judge


def _judge_whole(loss: str, key: str) -> Any:
    sign = {"margin": -1, "error": 1}[key]

    def judge(measured: Mapping[str, Any]) -> Judged:
        def changes(which: str, source: str) -> list[float]:
            return [sign * (found[key][1] - found[key][0]) for found in measured["whole"][which][source]]

        def accuracies(source: str) -> list[float]:
            return [1 - float(np.mean(found["error"])) for found in measured["whole"][loss][source]]

        judged = above(
            Measured(
                model=changes(loss, MODEL), twin=changes(loss, TWIN), accuracy=accuracies(MODEL),
                twin_accuracy=accuracies(TWIN),
            ),
            0.0, what={"margin": "fall of the margin", "error": "rise of the error"}[key],
        )  # fmt: skip
        return replace(
            judged, evidence={**judged.evidence, **as_evidence({"DPO": over_seeds(changes("sigmoid", MODEL))})}
        )

    return judge


def _judge_ipo(measured: Mapping[str, Any]) -> Judged:
    off = measured["ipo"]
    return Judged(
        holds=off <= _EXACT,
        measured=f"off by at most {off:.2g} of the largest margin",
        because="the largest set of values, all recorded steps and seeds",
        evidence={"largest_difference": off},
    )


def _judge_rates(key: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        found = measured[key]
        return Judged(
            holds=found["printed"] <= _EXACT,
            measured=f"off by {found['printed']:.2g} of the largest rate; repaired {found['repaired']:.2g}",
            because="against central differences on a random problem",
            evidence=found,
        )

    return judge


def _loss_claims(loss: str) -> list[Claim]:
    name, short = LOSSES[loss], LOSSES[loss].lower()
    return [
        Claim(
            id=f"{_EXPERIMENT}-{short}-clusters",
            figure=_EXPERIMENT,
            place="Section 7, THEORY 3.4",
            statement=f"On the paper's clusters margins under {name} follow its closed form.",
            said="Clusters at the limits of Theorem 4.2, shared answers, gradient descent: holds where no mean margin "
            f"is further than {_CLOSE:g} of itself from the solution without noise, over K, seeds and steps.",
            judge_measured=_judge_clusters(loss),
        ),
        Claim(
            id=f"{_EXPERIMENT}-{short}-data",
            figure=_EXPERIMENT,
            place="Section 7, THEORY 3.4",
            statement=f"On this data margins under {name} follow the closed form of the measured gaps.",
            said="Last layer, gradient descent, every K over the same values: largest distance over K of the mean "
            "training margin at the end from its closed form, over that form; holds where the upper end of its 95 % "
            f"interval over seeds is below {_DEPARTURE:g}.",
            judge_measured=_judge_departure(loss),
        ),
    ]


def _other_claims(loss: str) -> list[Claim]:
    name, short = LOSSES[loss], LOSSES[loss].lower()
    found = [
        Claim(
            id=f"{_EXPERIMENT}-{short}-order",
            figure=_EXPERIMENT,
            statement=f"Under {name} values are learned in the order in which DPO learns them.",
            said="Last layer, each value alone: Spearman's rank correlation, over values, of the area under the "
            "training margin with DPO's; holds where the lower end of its 95 % interval over seeds is above "
            f"{_ORDER:g}. " + BEYOND,
            judge_measured=_judge_order(loss),
        ),
        Claim(
            id=f"{_EXPERIMENT}-{short}-scaling",
            figure=_EXPERIMENT,
            statement=f"Under {name} margins fall with the number of values as under DPO.",
            said="Last layer, every K over the same values: exponent of K in the mean training margin at a tenth of "
            f"the steps, less DPO's; holds where its 95 % interval over seeds lies within {_POWER:g} of 0.",
            judge_measured=_judge_power(loss),
            paper_value="“similar implications should be expected”",
        ),
    ]
    for key, word, verb in (("margin", "training margin", "smaller"), ("error", "test error", "larger")):
        found.append(
            Claim(
                id=f"{_EXPERIMENT}-{short}-whole-{key}",
                figure=_EXPERIMENT,
                statement=f"Whole model under {name}: the {word} is {verb} with many values than with one.",
                said=f"Difference of the {word} at the end between one value and the largest number of them: holds "
                "where the lower end of its 95 % interval over seeds is above 0. " + BEYOND,
                judge_measured=_judge_whole(loss, key),
                paper_value="“similar implications should be expected”",
            )
        )
    return found


CLAIMS = (
    *(claim for loss in LOSSES for claim in _loss_claims(loss)),
    Claim(
        id=f"{_EXPERIMENT}-pull",
        figure=_EXPERIMENT,
        statement="The pull is all that changes: first steps of DPO, SLiC and IPO are as 1 to 2 to 4.",
        said=f"Last layer at one rate: holds where every ratio of first mean margins is within {_EXACT:g} of that, "
        "relatively, over all runs of the model.",
        judge_measured=_judge_first,
        paper_value="“replacing the σ(−r) factor with −f′(r)”",
    ),
    *(claim for loss in _OTHERS for claim in _other_claims(loss)),
    Claim(
        id=f"{_EXPERIMENT}-trl",
        figure=_EXPERIMENT,
        place="Section 7, THEORY 1.6",
        statement="TRL's IPO is the paper's at another scale: half the margin, at beta² times the rate.",
        said="Last layer, the largest set of values: holds where twice its mean margin is within "
        f"{_EXACT:g} of the paper's, over the largest margin.",
        judge_measured=_judge_ipo,
    ),
    Claim(
        id=f"{_EXPERIMENT}-responses",
        figure=_EXPERIMENT,
        place="Section 7, source error X-12",
        statement="The reward of a single response moves at the printed rate, without a share for the softmax.",
        said=f"Random problem: holds where the rate is within {_EXACT:g} of central differences, over the largest "
        "rate.",
        judge_measured=_judge_rates("responses"),
    ),
    Claim(
        id=f"{_EXPERIMENT}-tokens",
        figure=_EXPERIMENT,
        place="Section 4.3, source error X-13",
        statement="In the rate of a token's reward the probability factor is the difference of two probabilities.",
        said=f"Random problem: holds where the rate is within {_EXACT:g} of central differences, over the largest "
        "rate.",
        judge_measured=_judge_rates("tokens"),
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
