"""The recipe end to end on built-in data, its rules on both sides, and its numbers against other ways to get them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prefdyn.diagnostics.separation import separation
from prefdyn.dynamics.order import spearman
from prefdyn.experiments import distinguishability as recipe
from prefdyn.experiments.claims import numbers
from prefdyn.experiments.context import MODEL, TWIN, Context
from prefdyn.experiments.falls import falls
from prefdyn.experiments.launch import launch
from prefdyn.experiments.presets import preset_named
from prefdyn.experiments.reproduce import _Landed
from prefdyn.experiments.rows import CODE, Rows
from prefdyn.maths.objectives import LOG2
from prefdyn.trajectory import Trajectory
from tests.experiments.conftest import beside_twin, learned, measured, ordered, spread, twin_of

CLAIMS = {claim.id: claim for claim in recipe.CLAIMS}
A = "2403.18742"


def order(figure, model, twin, second="fall", first="distinguishability", **rest):
    """Rows in which a quantity follows distinguishability so far, on the model and on its twin."""
    return [
        *ordered(first, second, model, figure=figure, **rest),
        *ordered(first, second, twin, figure=figure, source=TWIN, **rest),
    ]


def judged(id, *rows, **rest):
    return CLAIMS[f"{A}-{id}"].judge(Rows([row for each in rows for row in each], **rest))


@pytest.mark.parametrize(
    ("values", "holds"), [([0.9, 1.0, 0.8], True), ([0.9, -0.3, 0.8], False), ([0.9, 1.0, float("nan")], None)]
)
@pytest.mark.parametrize(
    "id",
    [
        "fig06-training-area", "fig06-test-late", "fig10-training-area", "fig17-test-area", "fig18-training-area",
        "fig19-test-area",
    ],
)  # fmt: skip
def test_an_order_is_held_where_its_interval_is_above_zero(id, values, holds):
    figure = f"{A}-{id[:5]}"
    found = judged(id, order(figure, values, [0.1, 0.0, 0.2]), learned(figure))
    assert found.holds is holds


def test_the_last_layer_is_judged_by_the_text_and_tells_the_code():
    figure = f"{A}-fig03"
    code = ordered("distinguishability", "fall", [0.5, 0.5, 0.2], figure=figure, source=CODE)
    found = judged("fig03-training-early", order(figure, [1.0, 0.9, 0.8], [-0.9] * 3), learned(figure), code)
    assert (found.holds, twin_of(found).beyond) == (True, True)
    assert found.evidence["as the published code does"]["value"] == pytest.approx(0.4)


def test_what_one_model_or_two_behaviours_cannot_tell_is_not_told():
    one = Rows(lacking={f"{A}-fig10": "one model was given; give a second --model"})
    assert CLAIMS[f"{A}-fig10-training-area"].judge(one).because == "one model was given; give a second --model"
    rows = [row for row in order(f"{A}-fig06", [1.0] * 3, [0.0] * 3) if row.group in "ab"]
    few = judged("fig06-test-area", rows)
    assert (few.holds, few.because) == (None, "an order of behaviours takes 4, and there are 2")


@pytest.mark.parametrize(
    ("late", "lasts"), [([0.9, 0.9, 0.9], True), ([0.3, 0.4, 0.3], False), ([0.9, 0.5, 0.9], False)]
)
def test_an_order_over_many_behaviours_lasts_or_fades(late, lasts):
    many = f"{A}-fig03b"
    rows = [
        *(row for row in order(many, [0.9] * 3, [0.9] * 3, step="early")),
        *(
            row
            for row in order(many, late, [0.9] * 3, step="late")
            if row.quantity == "fall"
        ),
    ]  # fmt: skip
    rows = [row._replace(step="") if row.quantity == "distinguishability" else row for row in rows]
    for word in ("training", "test"):
        assert judged(f"fig03-many-{word}-early", rows, learned(many)).holds is True
        assert judged(f"fig03-many-{word}-lasts", rows, learned(many)).holds is lasts
    none = [judged(f"fig03-many-training-{what}", lacking={many: "no more"}) for what in ("lasts", "early")]
    assert [(each.holds, each.because) for each in none] == [(None, "no more")] * 2


@pytest.mark.parametrize(("straight", "holds"), [([0.97, 0.98, 0.99], True), ([0.85, 0.9, 0.88], False)])
def test_growth_is_linear_above_nine_tenths(straight, holds):
    figure = f"{A}-fig04"
    rest = [*spread(beside_twin("straightness", straight, [0.9] * 3, figure=figure)), *learned(figure)]
    assert judged("fig04-linear", rest).holds is holds
    assert judged("fig04-order", rest, order(figure, [1.0] * 3, [1.0] * 3, "drift")).holds is True
    assert judged("fig04-order", rest, order(figure, [0.9, -0.9, 0.1], [1.0] * 3, "drift")).holds is False


THEOREM = {"published": 0.06, "repaired": 1.0, "applies": True, "failing": []}


@pytest.mark.parametrize(
    ("change", "holds"),
    [({}, True), ({"published": 1.2}, False), ({"applies": False, "failing": ["Delta <= 1/2"]}, None)],
)
def test_the_theorem_is_judged_where_it_speaks_and_its_repair_stands_beside(change, holds):
    found = judged("fig04-theorem", facts={"theorem": THEOREM | change})
    assert found.holds is holds
    assert found.evidence["largest_share_of_the_repaired_bound"] == 1.0


@pytest.mark.parametrize(
    ("z", "share", "holds"), [([9, 8, 10], [1, 1, 0.8], True), ([9, 8, 10], [0.4, 0.5, 0.4], False),
                              ([1, 3, 2], [1, 1, 1], False)],
)  # fmt: skip
def test_labels_are_beside_random_ones_by_z_and_by_p(z, share, holds):
    figure = f"{A}-experiment01"
    rows = [
        *spread(beside_twin("z", z, [1.0, 1.2, 1.1], figure=figure)),
        *measured("significant", share, figure=figure),
    ]
    assert judged("experiment01-null", rows, learned(figure)).holds is holds


@pytest.mark.parametrize(("bent", "holds"), [(0.1, True), (2.0, False)])
def test_updates_are_proportional_by_r_squared(bent, holds):
    figure = f"{A}-experiment02"
    gaps = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    updates = [{**gaps, "d": 4.0 - bent * (1 + seed / 10)} for seed in range(3)]
    rows = [
        row
        for source in (MODEL, TWIN)
        for row in (
            *measured("gap", [gaps] * 3, figure=figure, source=source),
            *measured("weighted gap", updates, figure=figure, source=source),
            *measured("update", updates, figure=figure, source=source),
        )
    ]
    found = judged("experiment02-proportional", rows, learned(figure))
    assert found.holds is holds
    assert found.evidence["slope_on_weighted_gap"]["value"] == pytest.approx(1.0)


def test_falls_are_below_log_two():
    rows = [
        {"run": "joint", "step": step, "group": "g", "split": "train", "pairs": 1, "loss": LOG2 - fall}
        for step, fall in ((0, 0.0), (10, 0.1), (20, 0.4))
    ]
    fallen = falls(*Trajectory.from_rows(rows, settings={}).curve("loss", group="g", split="train"))
    assert fallen == pytest.approx({"early": 0.02, "area": (10 * 0.05 + 10 * 0.25) / 20, "late": 0.4})


@pytest.fixture(scope="module")
def found(builtin_model, tmp_path_factory):
    """The recipe on built-in data, its whole-model runs cut to one beta."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFDYN_CACHE", str(tmp_path_factory.mktemp("cache")))
        context = Context(preset=preset_named("smoke"), data=("builtin",), models=(builtin_model,), compat=True)
        plan = recipe._runs(context)
        landed, _ = launch(list(plan.values()), progress=False)
        return context, plan, _Landed(plan, landed), recipe._results(context, _Landed(plan, landed))


@pytest.mark.thorough
def test_the_recipe_end_to_end(found):
    """Figures as in the catalogue, drawn from runs that were planned; numbers as other routes give them."""
    context, _, done, results = found
    names = context.behaviours()
    assert {figure.id for figure in results.figures} == {spec.id for spec in recipe.RECIPE.figures} | {f"{A}-fig03b"}
    for figure in results.figures:
        assert figure.table().num_rows > 0
    for claim in recipe.CLAIMS:
        assert claim.judge(results.measured).holds in (None, True, False)
    one = CLAIMS[f"{A}-fig06-training-area"].judge(results.measured)
    assert (one.holds, one.because) == (None, "an order of behaviours takes 4, and there are 3")
    assert results.measured.facts["theorem"]["repaired"] == pytest.approx(1.0, abs=1e-6)  # an equality at first

    feats = done["features", MODEL, 0].features
    apart = separation(feats, permutations=9, bootstraps=1, folds=2)
    distances = {group.name: group.distinguishability for group in apart.groups}
    there = {"figure": f"{A}-fig06", "split": "held_out", "step": "late"}
    assert results.measured.pick("distinguishability", there)[0] == pytest.approx(
        {name: distances[name] for name in names}
    )
    run = {name: done["full", MODEL, 0, name].trajectory for name in names}
    falls = [LOG2 - run[name].final("loss", group=name, split="held_out") for name in names]
    expected = spearman([distances[name] for name in names], falls)
    claim = CLAIMS[f"{A}-fig06-test-late"]
    assert numbers(claim, results.measured, MODEL) == [pytest.approx(expected)]

    figure = next(figure for figure in results.figures if figure.id == f"{A}-fig03")
    assert [panel.title for panel in figure.panels] == ["", "as the published code does"]
    assert sorted(line.label for line in figure.panels[0].lines) == sorted(names)
    assert [line.shade for line in figure.panels[0].lines] == pytest.approx([0.1, 0.5, 0.9])
    least = min(names, key=lambda name: distances[name])
    assert figure.panels[0].lines[0].label == least  # purple
    assert "One model was given" in results.notes[0]


@pytest.mark.thorough
def test_the_order_over_many_behaviours_is_that_of_the_features(found):
    """At the first step of full-batch descent the loss falls by the squared weighted gap."""
    context, _, done, results = found
    many = context.many()
    feats = done["features, many", MODEL, 0].features
    line = next(figure for figure in results.figures if figure.id == f"{A}-fig03b").panels[0].lines[0]
    assert feats.groups == tuple(many)
    gaps, distances = [], []
    for name in many:
        rows = feats.members(name)
        answers, trained = feats.two_answers(rows), ~feats.held_out[rows]
        assert answers is not None
        signs, states = np.where(answers.positive, 1.0, -1.0), feats.states[rows].astype(float)
        gaps.append(np.linalg.norm((signs[trained] @ states[trained]) / trained.sum()))
        means = [states[signs == sign].mean(axis=0) for sign in (1, -1)]
        distances.append(float(np.linalg.norm(means[0] - means[1])))
    assert (line.label, line.x[0]) == ("model, training loss", 1)
    assert line.y[0] == pytest.approx(spearman(distances, [float(gap) for gap in gaps]), abs=0.1)
    assert line.y[-1] == pytest.approx(numbers(CLAIMS[f"{A}-fig03-many-training-late"], results.measured, MODEL)[0])


def test_the_published_code_has_two_norms_and_batches_drawn_afresh(context):
    plan: Any = recipe._runs(replace(context, compat=True))
    text, code = (plan["last-layer", variant, MODEL, 0] for variant in ("text", "code"))
    assert (text.setup.scheme, code.setup.scheme) == ("epochs", "replacement")
    assert (text.start.double_norm, code.start.double_norm) == (False, True)
    without = recipe._runs(context)
    assert not any("code" in key for key in without)
    assert set(without) < set(plan)


def test_another_model_has_runs_and_features_of_its_own(context, builtin_model):
    other = replace(builtin_model, fingerprint="f" * 64)
    plan = recipe._runs(replace(context, models=(builtin_model, other)))
    keys = {key for key in plan if key[0] == "full-other"}
    assert len(keys) == 2 * len(context.behaviours())
    assert all(plan[key].model.fingerprint == "f" * 64 for key in keys)
    assert not any(key[0] == "full-other" for key in recipe._runs(context))
