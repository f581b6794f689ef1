"""The recipe end to end on built-in data, each rule on both sides, and labels drawn by lot."""

from dataclasses import replace

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.diagnostics.prioritization import prioritization
from prefdyn.errors import DataError
from prefdyn.experiments import prioritization as recipe
from prefdyn.experiments.context import MODEL, SOURCES, TWIN
from prefdyn.experiments.falls import PHASES
from prefdyn.experiments.launch import launch
from prefdyn.experiments.published import PRIORITY_PAIRS, persona
from prefdyn.experiments.reproduce import _Landed
from prefdyn.maths.objectives import LOG2
from tests.experiments.conftest import twin_of

CLAIMS = {claim.id: claim for claim in recipe.CLAIMS}
A = "2403.18742"
GOOD, POOR = [0.9, 0.91, 0.92], [0.6, 0.61, 0.62]


def judged(id, measured):
    return CLAIMS[f"{A}-{id}"].judge(measured)


def phased(values):
    return {phase: list(values) for phase in PHASES}


def pace(values, twin=(0.001, 0.002, 0.0), accuracy=GOOD, twin_accuracy=POOR):
    """What `_pace` gives, the same numbers everywhere."""
    return {
        source: {
            "faster": phased(each), "more": phased(each),
            "similar": list(each), "accuracy": list(learned), "gaps": [[0.5, 0.6, 0.55], [0.1, 0.2, 0.15]],
            "higher": ["a", "b"],
        }
        for source, each, learned in ((MODEL, values, accuracy), (TWIN, twin, twin_accuracy))
    }  # fmt: skip


def many(values=(0.8, 0.85, 0.9), twin=(0.1, 0.0, 0.2), step=(0.95, 0.96, 0.97), **change):
    """What `_many` gives, of both sources."""
    return {
        "many": {
            source: {
                "couples": [100] * len(each), "order": phased(each),
                "step order": phased(step), "share": phased(each),
                "accuracy": learned[: len(each)], "first step": [1e-12], "equation 24": [99.0], "identity": [1e-13],
                "beta": 0.01, **change,
            }
            for source, each, learned in ((MODEL, values, GOOD), (TWIN, twin, POOR))
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "holds"), [([0.1, 0.12, 0.11], True), ([0.1, -0.05, 0.02], False), ([0.1, 0.12, float("nan")], None)]
)
@pytest.mark.parametrize("claim", ["faster-early", "more-late"])
@pytest.mark.parametrize(("key", "figure"), [("whole", "fig07"), ("other", "fig12")])
def test_leads_are_held_where_the_interval_is_above_zero(key, figure, claim, values, holds):
    found = judged(f"{figure}-{claim}", {key: pace(values)})
    assert found.holds is holds
    assert found.evidence.get("of_higher_priority", ["a", "b"]) == ["a", "b"]


def test_the_head_is_judged_by_the_text_and_tells_the_code():
    measured = {"last-layer": {"text": pace([0.1, 0.12, 0.11]), "code": pace([0.3, 0.5, 0.4])}}
    found = judged("fig05-more-area", measured)
    assert (found.holds, twin_of(found).beyond) == (True, True)
    assert found.evidence["as the published code does"]["value"] == pytest.approx(0.4)
    assert found.evidence["priority_gaps"]["a"]["value"] == pytest.approx(0.55)
    assert judged("fig05-faster-area", {"last-layer": {"text": pace([-0.1, -0.2, -0.1])}}).holds is False


def test_what_one_model_cannot_tell_is_not_told():
    for claim in ("faster-area", "more-area", "similar"):
        assert judged(f"fig12-{claim}", {}).because == "one model was given; give a second --model"


@pytest.mark.parametrize(
    ("values", "holds"), [([0.1, 0.12, 0.11], True), ([0.1, 0.4, 0.2], False), ([0.1, float("nan"), 0.1], None)]
)
def test_curves_are_similar_below_a_quarter(values, holds):
    assert judged("fig07-similar", {"whole": pace(values)}).holds is holds


def test_the_published_pairs_are_in_the_published_order_or_not_in_the_data():
    measured = {"published": True, "last-layer": {"text": pace([0.1] * 3)}}
    found = judged("fig05-pairs", measured)
    assert found.holds is True
    assert found.evidence["statistic"]["value"] == pytest.approx(0.4)
    measured["last-layer"]["text"][MODEL]["gaps"].reverse()
    assert judged("fig05-pairs", measured).holds is False
    assert judged("fig05-pairs", {"published": False}).because == "the data lacks the published pairs"


@pytest.mark.parametrize(("values", "holds"), [([0.8, 0.85, 0.9], True), ([0.3, -0.9, 0.1], False), ([0.8, 0.9], None)])
def test_many_couples_are_judged_by_their_order(values, holds):
    measured = many(values, values if holds is None else (0.1, 0.0, 0.2))
    for phase in PHASES:
        assert judged(f"fig05-many-{phase}", measured).holds is holds
    assert judged("fig05-many-share", measured).holds is holds
    few = many(couples=[9, 9, 9])
    for id in ("fig05-many-area", "fig05-many-share", "fig05-lengths"):
        assert judged(id, few).because == "an order over couples takes 10, and the data has 9"


def test_an_order_without_learning_is_not_beyond_the_twin():
    measured = many()
    for source in SOURCES:
        measured["many"][source]["accuracy"] = [0.5, 0.52, 0.48]
    found = judged("fig05-many-area", measured)
    assert (found.holds, twin_of(found).beyond) == (True, False)


def test_the_first_step_orders_better_or_not():
    assert judged("fig05-lengths", many()).holds is True
    assert judged("fig05-lengths", many(step=(0.7, 0.96, 0.8))).holds is False


def test_the_first_step_is_exact_and_equation_24_is_not():
    assert judged("fig05-first-step", many()).holds is True
    assert judged("fig05-first-step", many(**{"first step": [1e-3]})).holds is False
    assert judged("fig05-first-step", many(**{"first step": [1e-9, float("nan")]})).holds is None
    assert judged("fig05-equation24", many()).holds is False
    assert judged("fig05-equation24", many(**{"equation 24": [1e-9]})).holds is True
    assert judged("fig05-equation24", many(beta=1.0)).because == "at beta 1 logits and margins are one number"


def test_the_identity_is_judged_on_couples_of_equal_size():
    assert judged("fig05-identity", many()).holds is True
    assert judged("fig05-identity", many(identity=[1e-3])).holds is False
    assert judged("fig05-identity", many(identity=[float("nan")])).holds is None


@pytest.fixture
def found(context):
    context = replace(context, compat=True)
    plan = recipe._runs(context)
    landed, _ = launch(list(plan.values()), progress=False)
    return context, plan, _Landed(plan, landed), recipe._results(context, _Landed(plan, landed))


def test_the_recipe_end_to_end(found):
    """Figures as in the catalogue; what theory says of the first step holds on real states; gaps are as diagnosed."""
    context, _, done, results = found
    names = context.behaviours()
    assert {figure.spec.id for figure in results.figures} == {spec.id for spec in recipe.RECIPE.figures}
    assert [figure.id for figure in results.figures] == [
        f"{A}-{name}" for name in ("fig05", "fig05b", "fig07", "fig12")
    ]
    assert all(figure.table().num_rows > 0 for figure in results.figures)
    verdicts = {id: claim.judge(results.measured).holds for id, claim in CLAIMS.items()}
    assert {id for id, holds in verdicts.items() if holds is True} == {f"{A}-fig05-first-step", f"{A}-fig05-identity"}
    assert {id for id, holds in verdicts.items() if holds is False} == {f"{A}-fig05-equation24"}

    measured = results.measured
    diagnosed = prioritization(done["features", "here", MODEL, 0].features)
    sizes = {
        (one, other): abs(diagnosed.gap[diagnosed.groups.index(one), diagnosed.groups.index(other)])
        for one in names
        for other in names
        if names.index(one) < names.index(other)
    }
    assert measured["couples"] == [max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)]
    assert measured["last-layer"]["text"][MODEL]["gaps"] == [
        [pytest.approx(max(sizes.values()))],
        [pytest.approx(min(sizes.values()))],
    ]
    couple = measured["couples"][0]
    higher = measured["whole"][MODEL]["higher"][0]
    lower = next(name for name in couple if name != higher)
    run = done["whole", MODEL, 0, couple].trajectory
    other = done["whole", MODEL, 0, measured["couples"][1]].trajectory
    ahead = run.final("loss", group=lower) - run.final("loss", group=higher)
    behind = measured["whole"][MODEL]["higher"][1]
    rest = next(name for name in measured["couples"][1] if name != behind)
    small = other.final("loss", group=rest) - other.final("loss", group=behind)
    assert measured["whole"][MODEL]["faster"]["late"] == [pytest.approx((ahead + small) / 2)]
    assert measured["whole"][MODEL]["more"]["late"] == [pytest.approx(ahead - small)]

    figure = results.figures[0]
    assert [panel.title[:17] for panel in figure.panels] == ["(a) priority gap ", "(b) priority gap "] * 2
    assert figure.panels[2].title.endswith(", as the code does")
    assert [line.shade for line in figure.panels[0].lines] == [0.5, 0.1]  # red: higher priority
    assert figure.panels[0].lines[0].y[0] == pytest.approx(LOG2)
    assert len(results.figures[1].panels[0].lines[1].x) == 15  # all couples of six behaviours
    assert "One model was given, so Figure 12" in " ".join(results.notes)


def test_published_couples_are_taken_where_the_data_has_them(context):
    names = [persona(place) for pair in PRIORITY_PAIRS.values() for place in pair]
    rows = [
        {"prompt": f"{name} {place}?", "chosen": answers[0], "rejected": answers[1], "group": name}
        for name in dict.fromkeys(names)
        for place in range(4)
        for answers in [(" Yes", " No")[:: 1 if place % 2 else -1]]
    ]
    theirs = replace(context, data=(load_dataset(rows),), _datasets={}, _stored={})
    assert recipe._couples(theirs, "here") == ((persona(0), persona(96)), (persona(51), persona(104)))
    assert recipe._couples(theirs, "other") == ((persona(123), persona(45)), (persona(66), persona(45)))


def test_two_behaviours_are_too_few(context):
    with pytest.raises(DataError, match="two pairs of behaviours take 3 groups, and there are 2"):
        recipe._runs(replace(context, groups=context.behaviours()[:2], _datasets={}, _stored={}))


def test_labels_drawn_by_lot_are_not_beyond_the_twin(context):
    """The order of loss gaps follows the gaps of the states whatever labels say; what is held out is not learned."""
    shuffled = load_dataset("builtin").with_noise(0.5, seed=3)
    context = replace(
        context, data=(shuffled,), preset=replace(context.preset, seeds=3, rows=None), _datasets={}, _stored={}
    )
    plan = {key: run for key, run in recipe._runs(context).items() if "many" in key}
    done = _Landed(plan, launch(list(plan.values()), progress=False)[0])
    measured = {"many": {source: recipe._many(context, done, source) for source in SOURCES}}
    assert np.mean(measured["many"][MODEL]["order"]["early"]) > 0.5
    for id in ("fig05-many-early", "fig05-many-area", "fig05-many-late", "fig05-many-share", "fig05-lengths"):
        assert twin_of(judged(id, measured)).beyond is False
