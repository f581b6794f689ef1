r"""Is the behaviour of higher priority learned faster when two are trained at once? 2403.18742, Figures 5, 7 and 12.

Two pairs of behaviours are trained jointly, one with a large and one with a small gap of priority levels: the head on
states read once (Figure 5), and the whole model (7, 12). Where the data lacks the published pairs, those of three
behaviours with the largest and with the smallest measured gap stand in for them. Levels are measured on the training
pairs before the first step.

Two pairs prove little, so the head is also trained on many pairs drawn by lot, each against its gap. There the first
step is known exactly: with $\bar\phi_i$ the mean pair feature of a behaviour, the reward margins of two equal
behaviours part by $\frac{\eta\beta^2}{4}(\lVert\bar\phi_i\rVert^2 - \lVert\bar\phi_j\rVert^2)$, and the published gap
is the same number over lengths that differ from pair to pair.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.errors import DataError
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, greatest, judged, mean, rank, share_above, single
from prefdyn.experiments.context import MODEL, SOURCES, TWIN, Context
from prefdyn.experiments.couples import (
    Couple,
    drawn,
    first_step,
    gaps_of,
    held_out_accuracy,
    higher_first,
    lead,
    pulls_of,
)
from prefdyn.experiments.falls import PHASES
from prefdyn.experiments.published import PRIORITY_PAIRS, persona
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results, mean_line
from prefdyn.experiments.rows import CODE, Row, Rows
from prefdyn.experiments.run import RecipeRun
from prefdyn.experiments.shared_rules import Judged, as_evidence, untestable
from prefdyn.experiments.statistics import over_seeds
from prefdyn.experiments.values import crowd
from prefdyn.maths.objectives import LOG2
from prefdyn.trajectory import Trajectory

Joint = Mapping[tuple[str, int], Mapping[Couple, Trajectory]]
"""By source and seed: the joint run of each couple."""
Gaps = Mapping[tuple[str, int], Mapping[Couple, float]]
"""By source and seed: level of the first behaviour less that of the second, where only these two are trained."""

_A = "2403.18742"
_FIGURES = {"last-layer": f"{_A}-fig05", "whole": f"{_A}-fig07", "other": f"{_A}-fig12"}
_MANY = f"{_A}-fig05b"
_PUBLISHED = {
    "here": ("large gap", "small gap"),
    "other": ("mistral, large gap", "mistral, small gap"),
}
_THREE = 3
"""Behaviours whose pairs are trained where the published ones are not in the data."""
_LARGER, _SMALLER = "couple of the larger gap", "couple of the smaller gap"
_SIMILAR = 0.25
"""Loss gap over the mean fall of the two, under which two curves count as alike."""
_EQUAL = 1e-6
"""Relative difference up to which two numbers count as one."""
_HIGHER, _LOWER = 0.5, 0.1
"""Shades: the paper has the behaviour of higher priority in red."""


# what is run ---------------------------------------------------------------------------------------------------------


def _couples(context: Context, which: str) -> tuple[Couple, ...]:
    """Couples trained jointly: the two published ones, larger gap first, or all of three behaviours."""
    names = context.answers().groups
    published = [tuple(persona(place) for place in PRIORITY_PAIRS[key]) for key in _PUBLISHED[which]]
    if all(name in names for couple in published for name in couple):
        return tuple((first, second) for first, second in published)
    chosen = context.behaviours()[:_THREE]
    if len(chosen) < _THREE:
        raise DataError(
            f"two pairs of behaviours take {_THREE} groups, and there are {len(chosen)}; add --data with more"
        )
    return tuple(itertools.combinations(chosen, 2))


def _all_of(couples: Sequence[Couple]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for couple in couples for name in couple))


def _runs(context: Context) -> Plan:
    setup = context.setup("last-layer")
    couples = _couples(context, "here")
    names = crowd(context)
    plan: dict[Any, RecipeRun] = {}
    for seed in context.seeds:
        together = context.pairs(_all_of(couples), seed, template=setup.template)
        many = context.pairs(names, seed, template=setup.template)
        for source in SOURCES:
            model = context.source(source, seed, "last-layer")
            states = plan["features", "here", source, seed] = context.features(together, model)
            for variant in context.variants:
                if variant == "code" and model.rms_norm:
                    states = context.features(together, model, double_norm=True)
                    plan["features, code", source, seed] = states
                plan["last-layer", variant, source, seed] = context.simulate(
                    states,
                    replace(setup, scheme="replacement" if variant == "code" else "epochs"),
                    seed=seed,
                    subsets=couples,
                )
            plan["features", "many", source, seed] = context.features(many, model)
            plan["many", source, seed] = context.simulate(
                plan["features", "many", source, seed],
                replace(setup, batch_size="full", scheme="epochs"),
                seed=seed,
                subsets=drawn(names, seed),
            )
            for couple in couples:
                plan["whole", source, seed, couple] = _joint(
                    context, couple, context.source(source, seed), "full-long", seed
                )
        if (other := context.other_model("full-long-other")) is not None:
            theirs = _couples(context, "other")
            pairs = context.pairs(_all_of(theirs), seed, template=setup.template)
            for source in SOURCES:
                model = other if source == MODEL else replace(other, untrained=seed)
                plan["features", "other", source, seed] = context.features(pairs, model)
                for couple in theirs:
                    plan["other", source, seed, couple] = _joint(context, couple, model, "full-long-other", seed)
    return plan


def _joint(context: Context, couple: Couple, model: Any, key: str, seed: int) -> RecipeRun:
    setup = context.setup(key)
    return context.train(
        context.pairs(couple, seed, template=setup.template), model, setup, seed=seed, title="whole-model"
    )


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    couples, seeds = _couples(context, "here"), context.seeds
    keys = [(source, seed) for source in SOURCES for seed in seeds]
    gaps: dict[str, Gaps] = {
        "here": {key: gaps_of(done["features", "here", *key].features, couples) for key in keys}
    }  # fmt: skip
    head = {
        variant: {
            key: dict(zip(couples, done["last-layer", variant, *key].trajectories, strict=True)) for key in keys
        }
        for variant in context.variants
    }  # fmt: skip
    if ("features, code", *keys[0]) in done:
        gaps["code"] = {key: gaps_of(done["features, code", *key].features, couples) for key in keys}
    levels = {variant: gaps.get(variant, gaps["here"]) for variant in head}
    whole = {key: {couple: done["whole", *key, couple].trajectory for couple in couples} for key in keys}
    chosen = _chosen(couples, gaps["here"], "here")
    published = len(couples) == len(_PUBLISHED["here"])
    paces = [_pace(runs, levels[variant], chosen, _FIGURES["last-layer"], variant) for variant, runs in head.items()]
    paces.append(_pace(whole, gaps["here"], chosen, _FIGURES["whole"]))
    lacking, notes = {}, []
    figures = [_couple_figure("whole", {"text": whole}, {"text": gaps["here"]}, chosen, seeds)]
    if not published:
        notes.append(
            "The published pairs are not in this data; those of three behaviours with the largest and the smallest "
            "measured gap stand in for them."
        )
    if context.compat and not context.source(MODEL, 0, "last-layer").rms_norm:
        notes.append("The final norm of this model is no RMSNorm, so the code's second norm does not apply to it.")
    if context.other_model("full-long-other") is None:
        notes.append("One model was given, so Figure 12 is drawn from it, and its claims are not testable.")
        lacking[_FIGURES["other"]] = "one model was given; give a second --model"
        figures.append(_couple_figure("other", {"text": whole}, {"text": gaps["here"]}, chosen, seeds))
    else:
        theirs = _couples(context, "other")
        gaps["other"] = {key: gaps_of(done["features", "other", *key].features, theirs) for key in keys}
        runs = {key: {couple: done["other", *key, couple].trajectory for couple in theirs} for key in keys}
        named = _chosen(theirs, gaps["other"], "other")
        paces.append(_pace(runs, gaps["other"], named, _FIGURES["other"]))
        figures.append(_couple_figure("other", {"text": runs}, {"text": gaps["other"]}, named, seeds))
    many, facts = _many(context, done)
    measured = Rows(
        [*(row for rows, _ in paces for row in rows), *many],
        lacking=lacking,
        facts={"couples": chosen, "published": published, _MANY: facts}
        | {figure: told for _, found in reversed(paces) for figure, told in found.items()},
    )
    head_figures = [_couple_figure("last-layer", head, levels, chosen, seeds), _many_figure(measured)]
    return Results(measured=measured, figures=(*head_figures, *figures), notes=tuple(notes))


def _chosen(couples: Sequence[Couple], gaps: Gaps, which: str) -> tuple[Couple, Couple]:
    """The couple of the larger gap and that of the smaller one: as published, or as measured on the model."""
    if len(couples) == len(_PUBLISHED[which]):
        return couples[0], couples[1]
    sizes = {couple: abs(_mean_gap(gaps, couple, MODEL)) for couple in couples}
    ranked = sorted(couples, key=lambda couple: -sizes[couple])
    return ranked[0], ranked[-1]


def _mean_gap(gaps: Gaps, couple: Couple, source: str) -> float:
    return float(np.mean([found[couple] for (whose, _), found in gaps.items() if whose == source]))


def _pace(
    runs: Joint, gaps: Gaps, couples: tuple[Couple, Couple], figure: str, variant: str = "text"
) -> tuple[list[Row], dict[str, Any]]:
    """How far the behaviour of higher priority leads in both couples, and what is told of their gaps.

    Which behaviour is the higher, and which couple has the larger gap, is what the source itself measures, on average
    over the seeds.
    """
    rows: list[Row] = []
    for source, seed in runs:
        size = {couple: _mean_gap(gaps, couple, source) for couple in couples}
        larger = max(couples, key=lambda couple: abs(size[couple]))
        if variant == "code" and source != MODEL:
            continue
        mine = {"figure": figure, "source": CODE if variant == "code" else source, "seed": seed}
        for letter, couple in zip("ab", couples, strict=True):
            run = runs[source, seed][couple]
            leads = lead(run, higher_first(couple, size[couple]))
            group = _LARGER if couple == larger else _SMALLER
            rows += [Row(quantity="lead", value=leads[phase], step=phase, group=group, **mine) for phase in PHASES]
            rows.append(Row(quantity="accuracy", value=held_out_accuracy(run), group=group, **mine))
            level = abs(gaps[source, seed][couple])
            rows.append(Row(quantity="level gap", value=level, group=f"({letter})", **mine))
            if group == _SMALLER:
                alike = abs(leads["area"]) / leads["fall"] if leads["fall"] > 0 else math.nan
                rows.append(Row(quantity="similarity", value=alike, **mine))
    levels = {
        letter: over_seeds([abs(found[couple]) for (source, _), found in gaps.items() if source == MODEL])
        for letter, couple in zip("ab", couples, strict=True)
    }
    higher = [higher_first(couple, _mean_gap(gaps, couple, MODEL))[0] for couple in couples]
    return rows, {figure: {"priority_gaps": as_evidence(levels), "of_higher_priority": higher}}


# many couples --------------------------------------------------------------------------------------------------------


def _many(context: Context, done: Done) -> tuple[list[Row], dict[str, Any]]:
    """Couples drawn by lot, each seed its own: loss gaps, priority gaps, the first step; and what is told of them."""
    rows: list[Row] = []
    names = crowd(context)
    facts: dict[str, Any] = {"couples": sum(len(drawn(names, seed)) for seed in context.seeds)}
    for source, seed in itertools.product(SOURCES, context.seeds):
        mine = {"figure": _MANY, "source": source, "seed": seed}
        couples = drawn(names, seed)
        feats = done["features", "many", source, seed].features
        runs = dict(zip(couples, done["many", source, seed].trajectories, strict=True))
        gaps, pulls = gaps_of(feats, couples), pulls_of(feats)
        for couple, run in runs.items():
            ordered = higher_first(couple, gaps[couple])
            step = first_step({name: pulls[name] for name in couple}, run)
            leads = lead(run, ordered)
            numbers = {
                "priority gap": abs(gaps[couple]),
                "first step gap": step.margins[ordered[0]] - step.margins[ordered[1]],
                "first step": step.off,
                "equation 24": step.off_printed,
                "accuracy": held_out_accuracy(run),
            }
            group = " | ".join(couple)
            rows += [Row(quantity=name, value=value, group=group, **mine) for name, value in numbers.items()]
            rows += [Row(quantity="lead", value=leads[phase], step=phase, group=group, **mine) for phase in PHASES]
        facts["beta"] = float(runs[couples[0]].settings["beta"])
    return rows, facts


# figures -------------------------------------------------------------------------------------------------------------


def _couple_figure(
    key: str,
    variants: Mapping[str, Joint],
    gaps: Mapping[str, Gaps],
    couples: tuple[Couple, Couple],
    seeds: Sequence[int],
) -> Figure:
    panels = []
    for variant, runs in variants.items():
        for letter, couple in zip("ab", couples, strict=True):
            mean = _mean_gap(gaps[variant], couple, MODEL)
            lines = tuple(
                _curve(f"({letter}) {name}", [runs[MODEL, seed][couple] for seed in seeds], name, shade)
                for name, shade in zip(higher_first(couple, mean), (_HIGHER, _LOWER), strict=True)
            )
            code = ", as the code does" if variant == "code" else ""
            panels.append(
                Panel(
                    kind="lines", title=f"({letter}) priority gap {abs(mean):.2g}{code}", x_label="Step",
                    y_label="Training loss (nats)", lines=lines, marks=(("log 2", LOG2),),
                )
            )  # fmt: skip
    settings = next(iter(next(iter(variants.values())).values()))[couples[0]].settings
    what = "SGD on the last layer" if key == "last-layer" else f"whole model, {settings['optimizer']}"
    return Figure(
        spec=spec_of(_FIGURES[key]),
        panels=tuple(panels),
        caption=f"Loss of each behaviour where two are trained at once: {what}, beta {settings['beta']:g}, learning "
        f"rate {settings['learning_rate']:.3g}. Above each panel the gap of the two levels on this model, larger in "
        "(a) as published, or as measured where the data lacks those pairs. Red: higher priority on this model. Lines: "
        "mean of the seeds; bands: their range.",
    )


def _curve(label: str, runs: Sequence[Trajectory], group: str, shade: float) -> Line:
    steps = runs[0].curve("loss", group=group)[0]
    curves = [np.interp(steps, *run.curve("loss", group=group)).tolist() for run in runs]
    return mean_line(label, steps.tolist(), curves, shade=shade)


def _many_figure(measured: Rows) -> Figure:
    panels = []
    there = {"figure": _MANY, "step": "area"}
    labels = {"priority gap": "Priority gap", "first step gap": "Gap of the margins after the first step"}
    for place, (quantity, label) in enumerate(labels.items()):
        lines = []
        for source, name, shade in ((TWIN, "untrained twin", 0.7), (MODEL, "model", 0.1)):
            x, y = (np.array(measured.values(each, there, source)) for each in (quantity, "lead"))
            order = np.argsort(x, kind="stable")
            lines.append(Line(label=name, x=x[order], y=y[order], shade=shade, style="points"))
        panels.append(
            Panel(
                kind="lines", title=f"({'cd'[place]}) couples drawn by lot", x_label=label,
                y_label="Loss gap, mean of the run (nats)", lines=tuple(lines), marks=(("no gap", 0.0),),
            )
        )  # fmt: skip
    return Figure(
        spec=spec_of(_FIGURES["last-layer"]),
        part="b",
        panels=tuple(panels),
        caption="Couples of behaviours drawn by lot, the head trained on each with full batches: how far the behaviour "
        "of higher priority leads, against the published gap and against what the first step gives; one point per "
        "couple and seed.",
    )


# claims --------------------------------------------------------------------------------------------------------------


def _judge_published(claim: Claim, rows: Rows) -> Judged:
    return judged(claim, rows) if rows.facts["published"] else untestable("the data lacks the published pairs")


def _judge_printed(claim: Claim, rows: Rows) -> Judged:
    came = judged(claim, rows)
    if came.holds is not None and rows.facts[_MANY]["beta"] == 1:
        return untestable("at beta 1 logits and margins are one number", measured=came.measured)
    return came


_FIVE = _FIGURES["last-layer"]
_LEAD, _ORDER = mean("lead", short="lead in nats"), rank("priority gap", "lead")
_PULLED = rank("first step gap", "lead")
_TOLD = ("priority_gaps", "of_higher_priority")
_NAMED = {
    "last-layer": "Joint training of two behaviours, head on states read once",
    "whole": "Joint training of two behaviours, whole model",
    "other": "Joint training of two behaviours, whole model, the second one",
}
_DRAWN = "Couples drawn by lot, full-batch head"

CLAIMS = (
    *(
        claim
        for key, figure in _FIGURES.items()
        for claim in (
            *(
                claim
                for phase, when in PHASES.items()
                for claim in (
                    Claim(
                        id=f"{figure}-faster-{phase}",
                        figure=figure,
                        statement=f"The training loss of the behaviour of higher priority falls faster, {when}.",
                        setting=_NAMED[key],
                        statistic=_LEAD,
                        select={"step": phase},
                        beside={"as the published code does": {"source": CODE}},
                        facts=_TOLD,
                        unit="couple",
                        paper_value="the red curve is below in both panels",
                    ),
                    Claim(
                        id=f"{figure}-more-{phase}",
                        figure=figure,
                        statement=f"A larger priority gap gives a larger gap of the training losses, {when}.",
                        setting=_NAMED[key],
                        statistic=single("lead", short="lead in nats"),
                        select={"step": phase, "group": _LARGER},
                        less={"group": _SMALLER},
                        note="The larger gap is that measured on this model.",
                        beside={"as the published code does": {"source": CODE}},
                        facts=_TOLD,
                        unit="couple",
                        paper_value="“a larger priority gap results in a larger discrepancy”",
                    ),
                )
            ),
            *(
                [
                    Claim(
                        id=f"{figure}-similar",
                        figure=figure,
                        statement="Where the priority gap is small, the two losses follow similar paths.",
                        setting="Couple of the smaller gap",
                        statistic=single("similarity", short="loss gap over the mean fall", least=0),
                        test="below",
                        threshold=_SIMILAR,
                        twin="statistic",
                        unit="couple",
                        paper_value="“similar trajectories”" if key == "whole" else "“very close for most of training”",
                    )
                ]
                if key != "last-layer"
                else []
            ),
        )
    ),
    Claim(
        id=f"{_FIVE}-pairs",
        figure=_FIVE,
        statement="The priority gap of the couple in (a) is larger than that in (b).",
        setting="Published pairs alone",
        statistic=single("level gap", short="gap of (a) less gap of (b)", least=0, most=2),
        select={"group": "(a)"},
        less={"group": "(b)"},
        code=_judge_published,
        unit="run",
        paper_value="(a) “larger”, (b) “smaller”",
    ),
    *(
        Claim(
            id=f"{_FIVE}-many-{phase}",
            figure=_FIVE,
            statement=f"Over many couples, a larger priority gap gives a larger loss gap, {when}.",
            setting=_DRAWN,
            statistic=_ORDER,
            select={"figure": _MANY, "step": phase},
            beside={"of_the_first_step": {"statistic": _PULLED}},
            unit="couple",
            paper_value="two couples shown",
        )
        for phase, when in PHASES.items()
    ),
    Claim(
        id=f"{_FIVE}-many-share",
        figure=_FIVE,
        statement="In most couples the behaviour of higher priority is learned faster.",
        setting=_DRAWN,
        statistic=share_above("lead"),
        select={"figure": _MANY, "step": "area"},
        threshold=0.5,
        unit="couple",
    ),
    Claim(
        id=f"{_FIVE}-lengths",
        figure=_FIVE,
        place="Equation 5 (ours)",
        statement="What the first step gives each behaviour orders the loss gaps better than the published gap, which "
        "is the same over lengths that differ from couple to couple.",
        setting=_DRAWN,
        statistic=_PULLED,
        select={"figure": _MANY, "step": "area"},
        less={"statistic": _ORDER},
        short="gain in rank correlation",
        kind="ours",
        unit="couple",
    ),
    Claim(
        id=f"{_FIVE}-equation24",
        figure=_FIVE,
        place="Equation 24",
        statement="The first step improves the logits of a behaviour by η β²/4 b̄·b_j on average (source error X-6).",
        setting=_DRAWN,
        statistic=greatest("equation 24"),
        select={"figure": _MANY},
        test="at most",
        threshold=_EQUAL,
        twin="",
        told="off by at most {0:.2g} of the largest",
        because="over {couples} couples of the model, as many of its twin, and all seeds",
        beside={"repaired": {"statistic": greatest("first step")}},
        unknown="the features carry no log-probabilities",
        facts=("beta",),
        code=_judge_printed,
        sources=SOURCES,
        kind="algebra",
        unit="couple",
        paper_value="η β²/4 b̄·b_j, “logits”",
    ),
)

RECIPE = Recipe(
    name="prioritization",
    summary="Is the behaviour of higher priority learned faster when two are trained at once?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("last-layer", "full-long", "full-long-other"),
)
