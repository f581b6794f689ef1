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

from prefdyn.dynamics.order import spearman
from prefdyn.errors import DataError
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.context import MODEL, SOURCES, TWIN, Context
from prefdyn.experiments.couples import (
    Couple,
    drawn,
    first_step,
    gaps_of,
    held_out_accuracy,
    higher_first,
    lead,
    off_identity,
    pulls_of,
)
from prefdyn.experiments.falls import PHASES
from prefdyn.experiments.judging import BEYOND, Measured, above, as_evidence, below
from prefdyn.experiments.published import PRIORITY_PAIRS, persona
from prefdyn.experiments.recipe import (
    Claim,
    Done,
    Figure,
    Judged,
    Line,
    Panel,
    Plan,
    Recipe,
    Results,
    mean_line,
    untestable,
)
from prefdyn.experiments.run import Run
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
_PUBLISHED = {
    "here": ("large gap", "small gap"),
    "other": ("mistral, large gap", "mistral, small gap"),
}
_THREE = 3
"""Behaviours whose pairs are trained where the published ones are not in the data."""
_FEWEST = 10
"""Couples under which no order over couples is judged."""
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
    plan: dict[Any, Run] = {}
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


def _joint(context: Context, couple: Couple, model: Any, key: str, seed: int) -> Run:
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
    measured: dict[str, Any] = {
        "couples": list(chosen),
        "published": len(couples) == len(_PUBLISHED["here"]),
        "last-layer": {variant: _pace(runs, levels[variant], chosen, seeds) for variant, runs in head.items()},
        "whole": _pace(whole, gaps["here"], chosen, seeds),
        "many": {source: _many(context, done, source) for source in SOURCES},
    }
    figures = [
        _couple_figure("last-layer", head, levels, chosen, seeds),
        _many_figure(measured["many"]),
        _couple_figure("whole", {"text": whole}, {"text": gaps["here"]}, chosen, seeds),
    ]
    notes = []
    if not measured["published"]:
        notes.append(
            "The published pairs are not in this data; those of three behaviours with the largest and the smallest "
            "measured gap stand in for them."
        )
    if context.compat and not context.source(MODEL, 0, "last-layer").rms_norm:
        notes.append("The final norm of this model is no RMSNorm, so the code's second norm does not apply to it.")
    if context.other_model("full-long-other") is None:
        notes.append("One model was given, so Figure 12 is drawn from it, and its claims are not testable.")
        figures.append(_couple_figure("other", {"text": whole}, {"text": gaps["here"]}, chosen, seeds))
    else:
        theirs = _couples(context, "other")
        gaps["other"] = {key: gaps_of(done["features", "other", *key].features, theirs) for key in keys}
        runs = {key: {couple: done["other", *key, couple].trajectory for couple in theirs} for key in keys}
        named = _chosen(theirs, gaps["other"], "other")
        measured["other"] = _pace(runs, gaps["other"], named, seeds)
        figures.append(_couple_figure("other", {"text": runs}, {"text": gaps["other"]}, named, seeds))
    return Results(measured=measured, figures=tuple(figures), notes=tuple(notes))


def _chosen(couples: Sequence[Couple], gaps: Gaps, which: str) -> tuple[Couple, Couple]:
    """The couple of the larger gap and that of the smaller one: as published, or as measured on the model."""
    if len(couples) == len(_PUBLISHED[which]):
        return couples[0], couples[1]
    sizes = {couple: abs(_mean_gap(gaps, couple, MODEL)) for couple in couples}
    ranked = sorted(couples, key=lambda couple: -sizes[couple])
    return ranked[0], ranked[-1]


def _mean_gap(gaps: Gaps, couple: Couple, source: str) -> float:
    return float(np.mean([found[couple] for (whose, _), found in gaps.items() if whose == source]))


def _pace(runs: Joint, gaps: Gaps, couples: tuple[Couple, Couple], seeds: Sequence[int]) -> dict[str, Any]:
    """Per source and seed: how far the behaviour of higher priority leads, in both couples and in one beyond the other.

    Which behaviour is the higher, and which couple has the larger gap, is what the source itself measures, on average
    over the seeds.
    """
    found: dict[str, Any] = {}
    for source in SOURCES:
        size = {couple: _mean_gap(gaps, couple, source) for couple in couples}
        larger, smaller = sorted(couples, key=lambda couple: -abs(size[couple]))
        mine: dict[str, Any] = {name: {phase: [] for phase in PHASES} for name in ("faster", "more")}
        mine |= {"similar": [], "accuracy": []}
        for seed in seeds:
            leads = {couple: lead(runs[source, seed][couple], higher_first(couple, size[couple])) for couple in couples}
            for phase in PHASES:
                mine["faster"][phase].append(float(np.mean([leads[couple][phase] for couple in couples])))
                mine["more"][phase].append(leads[larger][phase] - leads[smaller][phase])
            fall = leads[smaller]["fall"]
            mine["similar"].append(abs(leads[smaller]["area"]) / fall if fall > 0 else math.nan)
            mine["accuracy"].append(
                float(np.mean([held_out_accuracy(runs[source, seed][couple]) for couple in couples]))
            )
        mine["gaps"] = [[abs(gaps[source, seed][couple]) for seed in seeds] for couple in couples]
        mine["higher"] = [higher_first(couple, size[couple])[0] for couple in couples]
        found[source] = mine
    return found


# many couples --------------------------------------------------------------------------------------------------------


def _many(context: Context, done: Done, source: str) -> dict[str, Any]:
    """Couples drawn by lot, each seed its own: how loss gaps follow the priority gap and the first step."""
    found: dict[str, Any] = {
        "couples": [], "order": {phase: [] for phase in PHASES}, "step order": {phase: [] for phase in PHASES},
        "share": {phase: [] for phase in PHASES}, "accuracy": [], "points": [], "first step": [], "equation 24": [],
        "identity": [],
    }  # fmt: skip
    names = crowd(context)
    for seed in context.seeds:
        couples = drawn(names, seed)
        feats = done["features", "many", source, seed].features
        runs = dict(zip(couples, done["many", source, seed].trajectories, strict=True))
        gaps, pulls = gaps_of(feats, couples), pulls_of(feats)
        leads, pushes = [], []
        for couple, run in runs.items():
            ordered = higher_first(couple, gaps[couple])
            step = first_step({name: pulls[name] for name in couple}, run)
            leads.append(lead(run, ordered))
            pushes.append(step.margins[ordered[0]] - step.margins[ordered[1]])
            found["first step"].append(step.off)
            found["equation 24"].append(step.off_printed)
        sizes = [abs(gaps[couple]) for couple in couples]
        for phase in PHASES:
            ahead = [each[phase] for each in leads]
            found["order"][phase].append(spearman(sizes, ahead))
            found["step order"][phase].append(spearman(pushes, ahead))
            found["share"][phase].append(float(np.mean([value > 0 for value in ahead])))
        found["couples"].append(len(couples))
        found["accuracy"].append(float(np.mean([held_out_accuracy(run) for run in runs.values()])))
        found["points"] += [(size, push, each["area"]) for size, push, each in zip(sizes, pushes, leads, strict=True)]
        found["identity"].append(off_identity(pulls, gaps))
        found["beta"] = float(runs[couples[0]].settings["beta"])
    return found


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


def _many_figure(many: Mapping[str, Mapping[str, Any]]) -> Figure:
    panels = []
    for place, label in enumerate(("Priority gap", "Gap of the margins after the first step")):
        lines = []
        for source, name, shade in ((TWIN, "untrained twin", 0.7), (MODEL, "model", 0.1)):
            points = sorted(many[source]["points"], key=lambda point: point[place])
            lines.append(
                Line(
                    label=name, x=np.array([point[place] for point in points]),
                    y=np.array([point[2] for point in points]), shade=shade, style="points",
                )
            )  # fmt: skip
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


def _judge_pace(key: str, what: str, phase: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if key not in measured:
            return untestable("one model was given; give a second --model")
        variants = measured[key] if key == "last-layer" else {"text": measured[key]}
        found = variants["text"]
        judged = above(
            Measured(
                model=found[MODEL][what][phase], twin=found[TWIN][what][phase], accuracy=found[MODEL]["accuracy"],
                twin_accuracy=found[TWIN]["accuracy"],
            ),
            0.0, what="lead in nats",
        )  # fmt: skip
        evidence = {
            "priority_gaps": as_evidence(
                {label: over_seeds(each) for label, each in zip("ab", found[MODEL]["gaps"], strict=True)}
            ),
            "of_higher_priority": found[MODEL]["higher"],
        }
        if "code" in variants:
            evidence |= as_evidence({"as the published code does": over_seeds(variants["code"][MODEL][what][phase])})
        return replace(judged, evidence={**judged.evidence, **evidence})

    return judge


def _judge_similar(key: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        if key not in measured:
            return untestable("one model was given; give a second --model")
        found = measured[key]["text"] if key == "last-layer" else measured[key]
        return below(
            Measured(model=found[MODEL]["similar"], twin=found[TWIN]["similar"]), _SIMILAR,
            what="loss gap over the mean fall", least=0,
        )  # fmt: skip

    return judge


def _judge_published(measured: Mapping[str, Any]) -> Judged:
    if not measured["published"]:
        return untestable("the data lacks the published pairs")
    found = measured["last-layer"]["text"]
    return above(_gap_of_gaps(found), 0.0, what="gap of (a) less gap of (b)", least=-2, most=2)


def _gap_of_gaps(found: Mapping[str, Mapping[str, Any]]) -> Measured:
    sizes = {source: np.subtract(*found[source]["gaps"]).tolist() for source in SOURCES}
    return Measured(
        model=sizes[MODEL], twin=sizes[TWIN], accuracy=found[MODEL]["accuracy"], twin_accuracy=found[TWIN]["accuracy"]
    )


def _of_many(measured: Mapping[str, Any], values: Mapping[str, Sequence[float]]) -> Measured:
    many = measured["many"]
    return Measured(
        model=values[MODEL], twin=values[TWIN], accuracy=many[MODEL]["accuracy"], twin_accuracy=many[TWIN]["accuracy"]
    )


def _too_few(measured: Mapping[str, Any]) -> Judged | None:
    fewest = min(measured["many"][MODEL]["couples"])
    if fewest >= _FEWEST:
        return None
    return untestable(f"an order over couples takes {_FEWEST}, and the data has {fewest}")


def _judge_many(phase: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        many = measured["many"]
        judged = _too_few(measured) or above(
            _of_many(measured, {source: many[source]["order"][phase] for source in SOURCES}),
            0.0, what="rank correlation", least=-1, most=1,
        )  # fmt: skip
        step = {"of_the_first_step": over_seeds(many[MODEL]["step order"][phase], least=-1, most=1)}
        return replace(judged, evidence={**judged.evidence, **as_evidence(step)})

    return judge


def _judge_share(measured: Mapping[str, Any]) -> Judged:
    many = measured["many"]
    return _too_few(measured) or above(
        _of_many(measured, {source: many[source]["share"]["area"] for source in SOURCES}),
        0.5, what="share of couples", least=0, most=1,
    )  # fmt: skip


def _judge_lengths(measured: Mapping[str, Any]) -> Judged:
    many = measured["many"]
    gain = {
        source: np.subtract(many[source]["step order"]["area"], many[source]["order"]["area"]).tolist()
        for source in SOURCES
    }
    return _too_few(measured) or above(_of_many(measured, gain), 0.0, what="gain in rank correlation", least=-2, most=2)


def _judge_exact(key: str) -> Any:
    def judge(measured: Mapping[str, Any]) -> Judged:
        many = measured["many"]
        worst = float(np.max([off for source in SOURCES for off in many[source][key]]))
        told = f"off by at most {worst:.2g} of the largest"
        if math.isnan(worst):
            return untestable("the features carry no log-probabilities", measured=told)
        if key == "equation 24" and many[MODEL]["beta"] == 1:
            return untestable("at beta 1 logits and margins are one number", measured=told)
        return Judged(
            holds=worst <= _EQUAL,
            measured=told,
            because=f"over {sum(many[MODEL]['couples'])} couples of the model, as many of its twin, and all seeds",
            evidence={"largest_difference": worst, "beta": many[MODEL]["beta"]},
        )

    return judge


def _judge_identity(measured: Mapping[str, Any]) -> Judged:
    off = [value for source in SOURCES for value in measured["many"][source]["identity"]]
    known = [value for value in off if math.isfinite(value)]
    if not known:
        return untestable("no two behaviours have as many training pairs")
    return Judged(
        holds=max(known) <= _EQUAL,
        measured=f"off by at most {max(known):.2g} of the largest gap",
        because="over all couples of equal size, seeds, the model and its twin",
        evidence={"largest_difference": max(known)},
    )


_NAMED = {
    "last-layer": "head on states read once",
    "whole": "whole model",
    "other": "whole model, the second one",
}


def _pace_claims() -> list[Claim]:
    found = []
    for key, id in _FIGURES.items():
        for phase, when in PHASES.items():
            found += [
                Claim(
                    id=f"{id}-faster-{phase}",
                    figure=id,
                    statement=f"The training loss of the behaviour of higher priority falls faster, {when}.",
                    rule=f"Joint training of two behaviours, {_NAMED[key]}: how much further the loss of the higher "
                    f"priority (mean of the seeds) has fallen {when}, mean of both couples; holds where the lower end "
                    "of its 95 % interval over seeds is above 0. " + BEYOND,
                    judge=_judge_pace(key, "faster", phase),
                    paper_value="the red curve is below in both panels",
                ),
                Claim(
                    id=f"{id}-more-{phase}",
                    figure=id,
                    statement=f"A larger priority gap gives a larger gap of the training losses, {when}.",
                    rule=f"Joint training of two behaviours, {_NAMED[key]}: the lead of the higher priority {when} in "
                    "the couple of the larger gap, as measured on this model, less that in the other; holds where the "
                    "lower end of its 95 % interval over seeds is above 0. " + BEYOND,
                    judge=_judge_pace(key, "more", phase),
                    paper_value="“a larger priority gap results in a larger discrepancy”",
                ),
            ]
        if key != "last-layer":
            found.append(
                Claim(
                    id=f"{id}-similar",
                    figure=id,
                    statement="Where the priority gap is small, the two losses follow similar paths.",
                    rule="Couple of the smaller gap: distance of the two areas above the loss curves over their mean; "
                    f"holds where the upper end of its 95 % interval over seeds is below {_SIMILAR:g}.",
                    judge=_judge_similar(key),
                    paper_value="“similar trajectories”" if key == "whole" else "“very close for most of training”",
                )
            )
    return found


_FIVE = _FIGURES["last-layer"]

CLAIMS = (
    *_pace_claims(),
    Claim(
        id=f"{_FIVE}-pairs",
        figure=_FIVE,
        statement="The priority gap of the couple in (a) is larger than that in (b).",
        rule="Published pairs alone: gap of the levels in (a) less that in (b), both without sign; holds where the "
        "lower end of its 95 % interval over seeds is above 0. " + BEYOND,
        judge=_judge_published,
        paper_value="(a) “larger”, (b) “smaller”",
    ),
    *(
        Claim(
            id=f"{_FIVE}-many-{phase}",
            figure=_FIVE,
            statement=f"Over many couples, a larger priority gap gives a larger loss gap, {when}.",
            rule="Couples drawn by lot, full-batch head: Spearman's rank correlation, over couples, of the priority "
            f"gap with the lead of the higher priority {when}; holds where the lower end of its 95 % interval over "
            "seeds is above 0. " + BEYOND,
            judge=_judge_many(phase),
            paper_value="two couples shown",
        )
        for phase, when in PHASES.items()
    ),
    Claim(
        id=f"{_FIVE}-many-share",
        figure=_FIVE,
        statement="In most couples the behaviour of higher priority is learned faster.",
        rule="Couples drawn by lot, full-batch head: share of couples in which the area above the loss curve is larger "
        "for the higher priority; holds where the lower end of its 95 % interval over seeds is above one half. "
        + BEYOND,
        judge=_judge_share,
    ),
    Claim(
        id=f"{_FIVE}-lengths",
        figure=_FIVE,
        place="Equation 5 (ours)",
        statement="What the first step gives each behaviour orders the loss gaps better than the published gap, which "
        "is the same over lengths that differ from couple to couple.",
        rule="Couples drawn by lot, full-batch head: rank correlation with the lead over the whole run, of the gap of "
        "the first step's margins less that of the priority gap, seed by seed; holds where the lower end of its 95 % "
        "interval is above 0. " + BEYOND,
        judge=_judge_lengths,
    ),
    Claim(
        id=f"{_FIVE}-equation24",
        figure=_FIVE,
        place="Equation 24",
        statement="The first step improves the logits of a behaviour by η β²/4 b̄·b_j on average (source error X-6).",
        rule="Couples drawn by lot: largest difference of the measured change of the log-ratio from this, as a share "
        f"of the largest value of the couple; holds where it is at most {_EQUAL:g} for all couples and seeds.",
        judge=_judge_exact("equation 24"),
        paper_value="η β²/4 b̄·b_j, “logits”",
    ),
    Claim(
        id=f"{_FIVE}-first-step",
        figure=_FIVE,
        place="Equation 24, repaired (source error X-6)",
        statement="The first step improves the reward margins by η β²/4 b̄·b_j, and the logits by η β/4 b̄·b_j.",
        rule="Couples drawn by lot: the same differences, of margins and of log-ratios, the larger of the two; holds "
        f"where it is at most {_EQUAL:g} for all couples and seeds.",
        judge=_judge_exact("first step"),
    ),
    Claim(
        id=f"{_FIVE}-identity",
        figure=_FIVE,
        place="Equation 5 (ours)",
        statement="The gap is (‖b_i‖² − ‖b_j‖²) / (2 ‖b̄‖ max ‖b‖): the angle between two behaviours enters through "
        "the length of their mean alone.",
        rule="Couples of equal size: holds where the largest difference, as a share of the largest gap, is at most "
        f"{_EQUAL:g}.",
        judge=_judge_identity,
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
