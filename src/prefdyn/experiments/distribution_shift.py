r"""Does DPO drive the two sides of a behaviour apart? 2403.18742, Figures 2, 8, 13, 14 and 20 to 26.

Pictures of final states before and after the whole model was trained, and in numbers what the paper sees in them:
distinguishability up, the ratio of variance to distinguishability down. A body can pull apart the very pairs that it
was trained on, whatever their labels; so the same is measured on held-out pairs, and on an untrained twin trained
alike.
"""

import importlib.util
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.diagnostics.orthogonality import embedding, principal_axes
from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, single, unbounded
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.published import CONTRASTED, FIVE, PICTURED, UMAP, persona
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results
from prefdyn.experiments.rows import CODE, Row, Rows
from prefdyn.experiments.run import ModelChoice
from prefdyn.experiments.separability import (
    CLOUDS,
    MEASURES,
    RATIOS,
    SPLITS,
    change,
    farther,
    moved,
    separability,
)
from prefdyn.experiments.shared_rules import Judged, untestable
from prefdyn.experiments.sides import distance
from prefdyn.features import FeatureSet

_A = "2403.18742"
_SETUPS: Mapping[str, str] = {"20": "full-beta-0.001", "21": "full-beta-0.1", "22": "full-beta-1"}
"""Setup of each picture that has one of its own; the others have that of Figure 8."""
_OTHER: Mapping[str, str] = {"13": "full-other", "14": "full-other"}
"""Pictures of the other model."""
_BEHAVIOURS = ("08", "23", "24", "25", "26")
"""The five behaviours at one beta."""
_BETAS = ("20", "08", "21", "22")
"""One behaviour at four betas."""
_STATES, _ALL, _EVERY_BETA = f"{_A}-fig02", f"{_A}-fig08 all behaviours", f"{_A}-fig22 every beta"
_ALIKE = 1e-3
"""Relative distance up to which two log-probability differences count as equal."""


# what is run ---------------------------------------------------------------------------------------------------------


def _runs(context: Context) -> Plan:
    plan: dict[Any, Any] = {}
    for seed in context.seeds:
        for source in SOURCES:
            for number, name in _pictured(context).items():
                key, model = _trained_with(context, number, source, seed)
                setup = context.setup(key)
                pairs = context.pairs([name], seed, template=setup.template)
                trained = context.train(pairs, model, setup, seed=seed, title="whole-model", keep_model=True)
                plan["trained", number, source, seed] = trained
                for variant in _variants(context, number):
                    for when, start in (("before", None), ("after", trained)):
                        plan[when, variant, number, source, seed] = context.features(
                            pairs, model, start=start, double_norm=variant == "code"
                        )
            for place, name in enumerate(_contrasted(context) or ()):
                pairs = context.pairs([name], seed, template=context.setup("full").template)
                plan["contrast", place, source, seed] = context.features(pairs, context.source(source, seed))
    model = context.model()
    if model.rms_norm:
        pairs = plan["before", "text", "08", MODEL, context.seeds[0]].pairs
        plan["twice"] = context.features(pairs, model, double_norm=True)
    return plan


def _pictured(context: Context) -> dict[str, str]:
    """Figure number to behaviour: the published one where it is among those run, else one that stands in for it."""
    names = context.behaviours()
    found = {}
    for number, (place,) in sorted(PICTURED.items()):
        if place not in FIVE:
            there = persona(place) in context.answers().groups
            found[number] = persona(place) if there else names[-1]
        elif persona(place) in names:
            found[number] = persona(place)
        else:
            found[number] = names[FIVE.index(place) * len(names) // len(FIVE)]
    return found


def _trained_with(context: Context, number: str, source: str, seed: int) -> tuple[str, ModelChoice]:
    """Setup and model of a picture. With one model the pictures of the other are drawn from it."""
    other = context.other_model(_OTHER[number]) if number in _OTHER else None
    if other is None:
        return _SETUPS.get(number, "full"), context.source(source, seed, "last-layer")
    return _OTHER[number], other if source == MODEL else replace(other, untrained=seed)


def _variants(context: Context, number: str) -> tuple[str, ...]:
    """The published code normalises twice where the final norm is an RMSNorm."""
    _, model = _trained_with(context, number, MODEL, context.seeds[0])
    return context.variants if model.rms_norm else ("text",)


def _contrasted(context: Context) -> tuple[str, str, str] | None:
    """Behaviours of Figure 2, top to bottom; None where the data lacks one that is named."""
    top, bottom = CONTRASTED
    if not {top, bottom} <= set(context.answers().groups):
        return None
    names = context.behaviours()
    return top, names[len(names) // 2], bottom


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    drawn, seeds = _pictured(context), context.seeds
    contrasted = _contrasted(context)
    lacking, rows = {}, _contrast(done, seeds) if contrasted else []
    if contrasted is None:
        lacking[_STATES] = f"the data lacks {' or '.join(CONTRASTED)}"
    shifts = {number: _shift(done, number, _variants(context, number), seeds) for number in drawn}
    together = ((_ALL, _BEHAVIOURS), (_EVERY_BETA, _BETAS), *((f"{_A}-fig{number}", (number,)) for number in drawn))
    for figure, numbers in together:
        mine = [row._replace(figure=figure, group=number) for number in numbers for row in shifts[number]]
        coded = all("code" in _variants(context, number) for number in numbers)
        rows += [row for row in mine if coded or row.source != CODE]
    one_model = context.other_model() is None
    if one_model:
        lacking |= {f"{_A}-fig{number}": "one model was given; give a second --model" for number in _OTHER}
    measured = Rows(rows, lacking=lacking, facts={"twice": _norm_twice(done) if "twice" in done else None})
    figures = [_states_figure(context, done, contrasted)]
    figures += [_before_and_after(context, done, number, name, measured) for number, name in drawn.items()]
    notes = [_WAYS[_way()]]
    stand_ins = {number: name for number, name in drawn.items() if name != persona(PICTURED[number][0])}
    if stand_ins:
        told = ", ".join(f"Figure {int(number)}: {name}" for number, name in stand_ins.items())
        notes.append(f"Behaviours that stand in for those of the paper: {told}.")
    if one_model:
        notes.append("One model was given, so Figures 13 and 14 are drawn from it, and their claims are not testable.")
    if context.compat and not context.model().rms_norm:
        notes.append("The final norm of this model is no RMSNorm, so the code's second norm does not apply to it.")
    return Results(measured=measured, figures=tuple(figures), notes=tuple(notes))


def _shift(done: Done, number: str, variants: Sequence[str], seeds: Sequence[int]) -> list[Row]:
    """How far every measure moved on every split, and what was learned."""
    rows: list[Row] = []
    for variant, source, seed in itertools.product(variants, SOURCES, seeds):
        if variant == "code" and source != MODEL:
            continue
        mine = {"source": CODE if variant == "code" else source, "seed": seed}
        before, after = (
            separability(done[when, variant, number, source, seed].features) for when in ("before", "after")
        )
        rows += [
            Row(
                quantity=measure,
                value=change(measure, before[split][measure], after[split][measure]),
                split=split,
                **mine,
            )
            for split in SPLITS
            for measure in before[split]
        ]
        trained = done["trained", number, source, seed]
        learned = trained.trajectory.final("reward_accuracy", group=trained.run.pairs.groups[0], split="held_out")
        rows.append(Row(quantity="accuracy", value=learned, **mine))
    return rows


def _contrast(done: Done, seeds: Sequence[int]) -> list[Row]:
    """Distinguishability of the top less that of the bottom behaviour, and how well both can be read."""
    rows: list[Row] = []
    for source, seed in itertools.product(SOURCES, seeds):
        top, bottom = (separability(done["contrast", place, source, seed].features) for place in (0, 2))
        apart = top["all"]["distinguishability"] - bottom["all"]["distinguishability"]
        read = (top["held_out"]["probe"] + bottom["held_out"]["probe"]) / 2
        for quantity, value in (("contrast", apart), ("accuracy", read)):
            rows.append(Row(quantity=quantity, value=value, figure=_STATES, source=source, seed=seed))
    return rows


def _norm_twice(done: Done) -> dict[str, float]:
    """How far the head's reading of each kind of state is from the model's own log-probabilities, relatively."""
    found = {}
    once = next(done[key].features for key in done if key[:4] == ("before", "text", "08", MODEL))
    assert once.ref_chosen_logps is not None
    assert once.ref_rejected_logps is not None
    theirs = once.ref_chosen_logps.astype(np.float64) - once.ref_rejected_logps
    for name, feats in (("once", once), ("twice", done["twice"].features)):
        found[name] = float(np.linalg.norm(_read_by_head(feats) - theirs) / np.linalg.norm(theirs))
    return found


def _read_by_head(feats: FeatureSet) -> np.ndarray:
    """Log-probability of the chosen less that of the rejected answer, as the head has it from the states."""
    assert feats.head is not None
    assert feats.chosen is not None
    assert feats.rejected is not None
    rows = feats.head.astype(np.float64)
    bias = np.zeros(len(rows)) if feats.head_bias is None else feats.head_bias.astype(np.float64)
    found = np.einsum("ij,ij->i", feats.states.astype(np.float64), rows[feats.chosen] - rows[feats.rejected])
    return found + bias[feats.chosen] - bias[feats.rejected]


# figures -------------------------------------------------------------------------------------------------------------

_WAYS = {
    "umap": "Pictures are UMAP with the published settings, each panel fitted by itself: distances between points of "
    "different panels mean nothing.",
    "pca": "Pictures are principal axes, because umap-learn is not installed; the paper's are UMAP.",
}
_ANSWERS = (("Yes", "yellowgreen"), ("No", "dimgrey"))


def _way() -> str:
    return "umap" if importlib.util.find_spec("umap") else "pca"


def _states_figure(context: Context, done: Done, contrasted: Sequence[str] | None) -> Figure:
    seed = context.seeds[0]
    if contrasted is None:
        by_distance = sorted(
            {done["before", "text", number, MODEL, seed].run.pairs.groups[0]: number for number in _BEHAVIOURS}.items(),
            key=lambda item: -distance(done["before", "text", item[1], MODEL, seed].features),
        )
        chosen = [by_distance[place] for place in (0, len(by_distance) // 2, -1)]
        shown = {name: done["before", "text", number, MODEL, seed].features for name, number in chosen}
        which = "The most, a middling and the least distinguishable of the behaviours run here"
    else:
        shown = {name: done["contrast", place, MODEL, seed].features for place, name in enumerate(contrasted)}
        which = "The paper does not name its middle one"
    return Figure(
        spec=spec_of(_STATES),
        panels=tuple(
            panel for name, feats in shown.items() for panel in _clouds([feats], [f"{name}: D = {distance(feats):.3g}"])
        ),
        caption=f"States of the model at the end of each statement, one point per pair, first seed. {which}. {_told()}",
    )


def _before_and_after(context: Context, done: Done, number: str, name: str, measured: Rows) -> Figure:
    seed = context.seeds[0]
    panels: list[Panel] = []
    for variant in _variants(context, number):
        states = [done[when, variant, number, MODEL, seed].features for when in ("before", "after")]
        more = {"text": "", "code": ", normalised twice"}[variant]
        if name != persona(PICTURED[number][0]):
            more += f": {name}"
        panels += _clouds(states, [f"Before DPO{more}", f"After DPO{more}"])
    trained = done["trained", number, MODEL, seed]
    there = {"figure": f"{_A}-fig{number}", "split": "all"}
    distance, spread = (moved(name)(measured, there, MODEL)[0] for name in ("distinguishability", "trace_ratio"))
    return Figure(
        spec=spec_of(f"{_A}-fig{number}"),
        panels=tuple(panels),
        caption=f"{name}, {trained.run.model.shown}: states of all pairs before and after the whole model was trained, "
        f"beta {trained.settings['beta']:g}, learning rate {trained.settings['learning_rate']:.3g}, "
        f"{trained.settings['steps']} steps; first seed. After over before: D {distance:.3g}, total variance over D² "
        f"{spread:.3g}. {_told()}",
    )


def _told() -> str:
    if _way() == "umap":
        return f"UMAP, random state {UMAP['random_state']}, each panel by itself."
    return (
        "Principal axes of what is shown, each panel less its mean; panels side by side have the same axes and scale."
    )


def _clouds(sets: Sequence[FeatureSet], titles: Sequence[str]) -> list[Panel]:
    """One panel per set of states, all in one plane where that is a linear one."""
    if _way() == "umap":
        found = [embedding(feats, method="umap", seed=int(UMAP["random_state"])) for feats in sets]
        placed = [np.column_stack([one.x, one.y]) for one in found]
        positive = [np.array(one.positive, dtype=bool) for one in found]
        labels, limit = ("UMAP 1", "UMAP 2"), None
    else:
        centred = [feats.states.astype(np.float64) - feats.states.mean(axis=0, dtype=np.float64) for feats in sets]
        points, explained = principal_axes(np.concatenate(centred))
        placed = np.split(points, np.cumsum([len(one) for one in centred])[:-1])
        positive = [np.asarray(feats.signs(0)) > 0 for feats in sets]
        labels = tuple(f"Axis {place + 1} ({share:.0%} of the variance)" for place, share in enumerate(explained))
        limit = 1.05 * float(np.abs(points).max())
    return [
        Panel(
            kind="clouds", title=title, x_label=labels[0], y_label=labels[1], limit=limit,
            lines=tuple(
                Line(label=answer, x=where[side, 0], y=where[side, 1], style="points", colour=colour)
                for (answer, colour), side in zip(_ANSWERS, (first, ~first), strict=True)
            ),
        )
        for title, where, first in zip(titles, placed, positive, strict=True)
    ]  # fmt: skip


# claims --------------------------------------------------------------------------------------------------------------


def _judge_twice(_: Claim, rows: Rows) -> Judged:
    found = rows.facts["twice"]
    if found is None:
        return untestable("the final norm of this model is no RMSNorm, so the code's second norm does not apply to it")
    return Judged(
        holds=found["twice"] <= _ALIKE,
        measured=f"states normalised twice: off by {found['twice']:.3g} of the log-probability differences; once: "
        f"{found['once']:.3g}",
        because=f"equal up to {_ALIKE:g}, over the pairs of one behaviour",
        evidence=found,
    )


_WORDS = {
    "distinguishability": "The two sides are more distinguishable after DPO",
    "trace_ratio": "The two sides are more concentrated after DPO: total variance over D² falls",
    "concentration_ratio": "The two sides are more concentrated after DPO: largest variance over D falls",
}
_SHORT = {"distinguishability": "distinguishable", "trace_ratio": "trace", "concentration_ratio": "variance"}


def _claim(
    id: str, figure: str, measure: str, statement: str, *, split: str = "all", fold: str = "mean", **rest: Any
) -> Claim:
    """That the two sides are farther apart, on some pairs of what is drawn under a figure."""
    others = (("train", measure), ("held_out", measure), ("held_out", "along"), ("held_out", "probe"))
    beside: dict[str, Any] = {
        f"{SPLITS[other]}: {MEASURES[name]}": {"split": other, "statistic": unbounded(moved(name, fold=fold))}
        for other, name in others
        if (other, name) != (split, measure) and (other == "held_out" or name in CLOUDS)
    }
    if measure in RATIOS:
        beside["as the published code does"] = {"source": CODE, "statistic": unbounded(moved(measure, fold=fold))}
    return Claim(
        id=id,
        figure=id[: len(f"{_A}-fig00")],
        statement=statement,
        statistic=moved(measure, fold=fold),
        select={"figure": figure, "split": split},
        beside=beside,
        **farther(measure),
        **rest,
    )


def _pictures(number: str) -> Iterator[Claim]:
    """What the paper sees in one picture, and what it says of several under it."""
    figure = f"{_A}-fig{number}"
    for measure, says in _WORDS.items():
        id = f"{figure}-{_SHORT[measure]}"
        yield _claim(id, figure, measure, f"{says}.", paper_value="seen in the picture", unit="run")
    for measure, says in _WORDS.items() if number == "08" else ():
        yield _claim(
            f"{figure}-all-{_SHORT[measure]}",
            _ALL,
            measure,
            f"{says}, across all behaviours.",
            note="Those of Figures 8 and 23 to 26.",
            place="Section 5.2",
            paper_value="“across all behaviors”",
        )
    for name, measure, statement in _HELD_OUT if number == "08" else ():
        id = f"{figure}-held-out-{name}"
        yield _claim(id, _ALL, measure, statement, split="held_out", place="Section 5.2")
    for measure, says in _WORDS.items() if number == "22" else ():
        yield _claim(
            f"{figure}-betas-{_SHORT[measure]}",
            _EVERY_BETA,
            measure,
            f"{says}, at every beta.",
            fold="least" if measure == "distinguishability" else "greatest",
            unit="setting",
            note="Four betas (Figures 8 and 20 to 22).",
            place="Appendix D.2",
            paper_value="“across β = 0.001, 0.1, 1”",
        )


_HELD_OUT = (
    ("gap", "along", "Held-out pairs come apart too, along the direction of the training pairs."),
    ("trace", "trace_ratio", "Held-out pairs are more concentrated after DPO too: total variance over D² falls."),
    ("probe", "probe", "A linear reader tells the two sides of held-out pairs better after DPO."),
)

CLAIMS = (
    Claim(
        id=f"{_STATES}-contrast",
        figure=_STATES,
        statement="“agreeableness” is more distinguishable than “subscribes to total utilitarianism”.",
        unit="run",
        statistic=single("contrast", short="distinguishability of the first less that of the second:"),
        note="The held-out accuracy is that of a linear probe, mean of the two.",
        paper_value="“a higher degree of distinguishability”",
    ),
    Claim(
        id=f"{_STATES}-states",
        figure=_STATES,
        place="Section 3 and its code, source error X-19",
        statement="The states that are shown and measured are those that the model's head reads.",
        said="The published code normalises states that are normalised already. Head rows of the chosen less the "
        "rejected answer, times such states: holds where they are the model's own differences of log-probabilities, "
        "within {0:g} of their length.",
        threshold=_ALIKE,
        twin="",
        code=_judge_twice,
        unit="run",
    ),
    *(claim for number in sorted(PICTURED) for claim in _pictures(number)),
)

RECIPE = Recipe(
    name="distribution-shift",
    summary="Does DPO drive the two sides of a behaviour apart, and those of held-out pairs too?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("full", *_SETUPS.values(), *dict.fromkeys(_OTHER.values())),
)
