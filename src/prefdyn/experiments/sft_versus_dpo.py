r"""Does DPO separate a behaviour's two sides more than fine-tuning does? The third first experiment for 2403.18742.

The same body is trained on the same pairs by DPO, and by fine-tuning on the chosen answers (SFT): equal steps, batches
and learning rate, under an optimizer whose steps do not depend on the scale of the loss. What it then holds apart is
told by seven measures, on the pairs trained on and on held-out ones.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from prefdyn.experiments.catalogue import spec_of
from prefdyn.experiments.claims import Claim, mean, unbounded
from prefdyn.experiments.context import MODEL, SOURCES, Context
from prefdyn.experiments.recipe import Done, Figure, Line, Panel, Plan, Recipe, Results
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.separability import (
    CLOUDS,
    FALLING,
    MEASURES,
    RATIOS,
    READERS,
    SPLITS,
    change,
    farther,
    moved,
    separability,
)

_FIGURE = "2403.18742-experiment03"
WAYS: Mapping[str, str] = {"dpo": "DPO", "sft": "SFT on the chosen"}
_SHADES = {"dpo": 0.1, "sft": 0.7}
_MEASURES: Mapping[str, str] = {name: says for name, says in MEASURES.items() if name != "along"}


# what is run ---------------------------------------------------------------------------------------------------------


def _runs(context: Context) -> Plan:
    setup = context.setup("full")
    setups = {"dpo": setup, "sft": replace(setup, objective="sft")}
    plan: dict[Any, Any] = {}
    for seed in context.seeds:
        for source in SOURCES:
            model = context.source(source, seed, "last-layer")
            for name in context.behaviours():
                pairs = context.pairs([name], seed, template=setup.template)
                plan["before", source, seed, name] = context.features(pairs, model)
                for way, told in WAYS.items():
                    trained = context.train(pairs, model, setups[way], seed=seed, title=told, keep_model=True)
                    plan["trained", way, source, seed, name] = trained
                    plan["after", way, source, seed, name] = context.features(pairs, model, start=trained)
    return plan


# what is measured ----------------------------------------------------------------------------------------------------


def _results(context: Context, done: Done) -> Results:
    names, seeds = context.behaviours(), context.seeds
    found: dict[Any, dict[str, dict[str, float]]] = {}
    for source in SOURCES:
        for seed in seeds:
            for name in names:
                found["before", source, seed, name] = separability(done["before", source, seed, name].features)
                for way in WAYS:
                    feats = done["after", way, source, seed, name].features
                    found[way, source, seed, name] = separability(feats)
    rows: list[Row] = []
    for source, seed, name in itertools.product(SOURCES, seeds, names):
        mine = {"figure": _FIGURE, "source": source, "seed": seed, "group": name}
        for step, (first, second) in _COMPARED.items():
            one, other = (found[stage, source, seed, name] for stage in (first, second))
            rows += [
                Row(
                    quantity=measure,
                    value=change(measure, value, other[split][measure]),
                    split=split,
                    step=step,
                    **mine,
                )
                for split in SPLITS
                for measure, value in one[split].items()
            ]
        for way, quantity in (("dpo", "accuracy"), ("sft", "accuracy after SFT")):
            learned = done["trained", way, source, seed, name].trajectory
            accuracy = learned.final("reward_accuracy", group=name, split="held_out")
            rows.append(Row(quantity=quantity, value=accuracy, **mine))
    facts = {_FIGURE: {"overfit": {way: _overfit(found, way, seeds, names) for way in WAYS}}}
    figures = (_table(found, seeds, names), _points(found, seeds, names))
    return Results(measured=Rows(rows, facts=facts), figures=figures)


_COMPARED = {"against": ("sft", "dpo"), "dpo": ("before", "dpo"), "sft": ("before", "sft")}
"""What is held against what."""


def _overfit(
    found: Mapping[Any, Mapping[str, Mapping[str, float]]], way: str, seeds: Sequence[int], names: Sequence[str]
) -> float:
    """Share of runs that separate their training pairs more than before, and read held-out pairs no better."""
    flagged = [
        found[way, MODEL, seed, name]["train"]["trace_ratio"]
        < found["before", MODEL, seed, name]["train"]["trace_ratio"]
        and found[way, MODEL, seed, name]["held_out"]["probe"]
        <= found["before", MODEL, seed, name]["held_out"]["probe"]
        for seed in seeds
        for name in names
    ]
    return float(np.mean(flagged))


# figures -------------------------------------------------------------------------------------------------------------

_STAGES = {"before": "before", **WAYS}


def _table(
    found: Mapping[Any, Mapping[str, Mapping[str, float]]], seeds: Sequence[int], names: Sequence[str]
) -> Figure:
    rows = []
    for split in ("train", "held_out"):
        for measure, says in _MEASURES.items():
            if measure in READERS and split == "train":
                continue
            cells = [f"{says}, {SPLITS[split]}"]
            for source in SOURCES:
                for stage in _STAGES:
                    values = [found[stage, source, seed, name][split][measure] for seed in seeds for name in names]
                    cells.append(f"{_average(measure, values):.3g}")
            rows.append(tuple(cells))
    return Figure(
        spec=spec_of(_FIGURE),
        part="a",
        panels=(
            Panel(
                kind="table",
                columns=("measure", *_STAGES.values(), *(f"twin: {stage}" for stage in _STAGES.values())),
                rows=tuple(rows),
            ),
        ),
        caption="Separability of the states before and after training, means over behaviours and seeds (geometric ones "
        "of the first four measures). Variance over distance is smaller, and all other measures larger, where the "
        "sides are farther apart. Readers are fitted on the training pairs.",
    )


def _average(measure: str, values: Sequence[float]) -> float:
    """Geometric mean of measures of one sign, else the plain one; of what was measured."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return math.nan
    return float(np.exp(np.mean(np.log(known)))) if measure in RATIOS else float(np.mean(known))


def _points(
    found: Mapping[Any, Mapping[str, Mapping[str, float]]], seeds: Sequence[int], names: Sequence[str]
) -> Figure:
    panels = []
    for place, measure in enumerate(("distinguishability", "trace_ratio", "silhouette", "probe")):
        lines, ends = [], []
        for way, told in WAYS.items():
            pairs = [
                tuple(found[stage, MODEL, seed, name]["held_out"][measure] for stage in ("before", way))
                for seed in seeds
                for name in names
            ]
            x, y = np.array(pairs).T
            lines.append(Line(label=told, x=x, y=y, shade=_SHADES[way], style="points"))
            ends += [x, y]
        known = np.concatenate(ends)
        known = known[np.isfinite(known)]
        if len(known):
            ends = np.array([known.min(), known.max()])
            lines.append(Line(label="as before", x=ends, y=ends, style="dashed"))
        says = _MEASURES[measure]
        panels.append(
            Panel(
                kind="lines", title=f"({'abcd'[place]}) {says}", x_label="Before training", y_label="After training",
                lines=tuple(lines),
            )
        )  # fmt: skip
    return Figure(
        spec=spec_of(_FIGURE),
        part="b",
        panels=tuple(panels),
        caption="Held-out pairs before and after the whole model was trained; one point per behaviour and seed.",
    )


# claims --------------------------------------------------------------------------------------------------------------


def _claim(measure: str) -> Claim:
    how = "over" if measure in RATIOS else "less"
    against = moved(measure, after="DPO", before="SFT")
    beside: dict[str, Any] = {
        f"{way} {how} before": {"step": key, "statistic": unbounded(moved(measure))} for key, way in WAYS.items()
    }
    if measure in CLOUDS:
        beside[f"DPO {how} SFT, {SPLITS['train']}"] = {"split": "train", "statistic": unbounded(against)}
    beside["held-out reward accuracy after SFT"] = {"statistic": mean("accuracy after SFT")}
    return Claim(
        id=f"{_FIGURE}-{measure.replace('_', '-')}",
        figure=_FIGURE,
        place="First experiments",
        statement="DPO separates the two sides more than fine-tuning on the chosen answers does: "
        f"{_MEASURES[measure]} of held-out pairs is {'smaller' if measure in FALLING else 'larger'}.",
        setting="Equal steps and learning rates",
        statistic=against,
        short=f"{_MEASURES[measure]}, DPO {how} SFT:",
        select={"split": "held_out", "step": "against"},
        beside=beside,
        facts=("overfit",),
        kind="ours",
        **farther(measure),
    )


CLAIMS = tuple(_claim(measure) for measure in _MEASURES)

RECIPE = Recipe(
    name="sft-versus-dpo",
    summary="Does DPO separate a behaviour's two sides more than fine-tuning on the chosen answers does?",
    claims=CLAIMS,
    runs=_runs,
    results=_results,
    setups=("full",),
)
