"""DPO against fine-tuning: equal runs but for the loss, both sides of each rule, and the recipe end to end."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prefdyn.experiments import distinguishability
from prefdyn.experiments import sft_versus_dpo as recipe
from prefdyn.experiments.context import MODEL, TWIN
from prefdyn.experiments.launch import launch
from prefdyn.experiments.reproduce import _Landed
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.separability import CLOUDS, RATIOS, READERS, SPLITS, moved, separability
from prefdyn.experiments.sft_versus_dpo import WAYS
from prefdyn.report.reproduce import reproduced_figure
from tests.experiments.conftest import measured, spread, twin_of

START = "2403.18742-experiment03-"
CLAIMS = {claim.id.removeprefix(START): claim for claim in recipe.CLAIMS}
MEASURES = {measure.replace("_", "-"): measure for measure in recipe._MEASURES}
LEARNED = {MODEL: [0.9, 0.91, 0.92], TWIN: [0.6, 0.61, 0.62]}


def judged(name, rows=(), facts=None):
    return CLAIMS[name].judge(Rows(rows, facts=facts))


def compared(model, twin, learned=None, seeds=3) -> list[Row]:
    """DPO this far from SFT, in every measure."""
    rows, figure = [], START.removesuffix("-")
    for source, values in ((MODEL, model), (TWIN, twin)):
        for split in SPLITS:
            for name in (*CLOUDS, *(READERS if split == "held_out" else ())):
                rows += measured(name, values[:seeds], figure=figure, source=source, split=split)
        for quantity in ("accuracy", "accuracy after SFT"):
            rows += measured(quantity, (learned or LEARNED)[source][:seeds], figure=figure, source=source)
    return spread(rows)


UP, SOME = [0.3, 0.35, 0.32], [0.05, 0.04, 0.06]


@pytest.mark.parametrize("name", MEASURES)
def test_dpo_must_be_farther_apart_than_fine_tuning(name):
    sign = -1 if name in ("trace-ratio", "concentration-ratio") else 1
    more, less = ([sign * value for value in UP], [sign * value for value in SOME])
    held = judged(name, compared(more, less))
    assert (held.holds, twin_of(held).beyond) == (True, True)
    shown = math.exp(sign * np.mean(UP)) if MEASURES[name] in RATIOS else np.mean(UP)
    assert f"{shown:.2f}" in held.measured
    assert judged(name, compared([-value for value in more], less)).holds is False
    assert judged(name, compared(more, less, seeds=2)).holds is None
    same = judged(name, compared(more, more))
    assert (same.holds, twin_of(same).beyond) == (True, False)


def test_on_labels_drawn_by_lot_nothing_goes_beyond_the_twin():
    rng, beyond = np.random.default_rng(0), []
    for _ in range(12):
        lot = {source: (rng.binomial(200, 0.5, 3) / 200).tolist() for source in LEARNED}
        found = judged("distinguishability", compared(rng.normal(0.5, 0.1, 3), rng.normal(0, 0.1, 3), lot))
        beyond.append(twin_of(found).beyond)
    assert not any(beyond)


def test_the_head_alone_leaves_what_is_measured_as_it_is(context):
    """The control of the measuring: states in float32 come back the same from a model of which the head was trained."""
    setup = replace(context.setup("last-layer"), learning_rate="auto", batch_size="full", scheme="epochs")
    pairs = context.pairs(context.behaviours()[-1:], 0, template=setup.template)
    model = context.source(MODEL, 0, "last-layer")
    plan: dict[str, Any] = {"before": context.features(pairs, model)}
    plan["head"] = context.train(pairs, model, setup, seed=0, title="head", keep_model=True, probes=("drift",))
    plan["after"] = context.features(pairs, model, start=plan["head"])
    done = _Landed(plan, launch(list(plan.values()), progress=False)[0])
    before, after = (separability(done[stage].features)["all"] for stage in ("before", "after"))
    for measure in ("distinguishability", "trace_ratio"):
        assert after[measure] == pytest.approx(before[measure], rel=1e-5)
    assert done["head"].trajectory.final("drift", group=context.behaviours()[-1]) > 0


def test_both_ways_are_equal_but_for_the_loss(context):
    plan: Any = recipe._runs(context)
    name = context.behaviours()[0]
    dpo, sft = (plan["trained", way, MODEL, 0, name] for way in WAYS)
    assert replace(sft.setup, objective="sigmoid") == dpo.setup
    assert (dpo.setup.objective, sft.setup.objective) == ("sigmoid", "sft")
    assert (dpo.pairs, dpo.seed, dpo.record) == (sft.pairs, sft.seed, sft.record)
    theirs = {run.key for run in distinguishability._runs(context).values()}
    assert dpo.key in theirs


def test_means_over_behaviours_are_geometric_for_what_has_one_sign():
    assert recipe._average("distinguishability", [1.0, 4.0]) == pytest.approx(2.0)
    assert recipe._average("silhouette", [-0.5, 1.0, math.nan]) == 0.25
    assert math.isnan(recipe._average("probe", [math.nan]))


def test_overfitting_is_seen():
    def found(trace, probe):
        return {"train": {"trace_ratio": trace}, "held_out": {"probe": probe}}

    after = {"a": found(0.5, 0.6), "b": found(0.5, 0.8), "c": found(2.0, 0.6)}
    runs = {("before", MODEL, 0, name): found(1.0, 0.7) for name in after}
    runs |= {("dpo", MODEL, 0, name): each for name, each in after.items()}
    assert recipe._overfit(runs, "dpo", [0], list(after)) == pytest.approx(1 / 3)


@pytest.mark.slow
def test_the_recipe_end_to_end(context):
    plan: Any = recipe._runs(context)
    landed, _ = launch(list(plan.values()), progress=False)
    done = _Landed(plan, landed)
    results = recipe._results(context, done)
    assert {figure.spec.id for figure in results.figures} == {spec.id for spec in recipe.RECIPE.figures}
    for figure in results.figures:
        assert figure.table().num_rows > 0
        assert reproduced_figure(figure).get_figwidth() > 0
    came = {name: claim.judge(results.measured) for name, claim in CLAIMS.items()}
    assert not [name for name, each in came.items() if each.holds is not None]  # of one seed
    names = context.behaviours()
    shapes = {
        (way, name): separability(done["after", way, MODEL, 0, name].features)["train"]["distinguishability"]
        for way in WAYS
        for name in names
    }
    expected = np.mean([math.log(shapes["dpo", name] / shapes["sft", name]) for name in names])
    against = moved("distinguishability")(results.measured, {"split": "train", "step": "against"}, MODEL)
    assert np.log(against) == [pytest.approx(expected)]
    assert abs(expected) > 1e-3
    cells = results.figures[0].panels[0].rows[0]
    assert cells[0] == "distinguishability D, the pairs trained on"
    assert float(cells[2]) == pytest.approx(
        np.exp(np.mean([math.log(shapes["dpo", name]) for name in names])), rel=0.01
    )
