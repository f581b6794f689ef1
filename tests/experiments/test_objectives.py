"""The recipe end to end on built-in data, its rules on both sides, and its numbers against other ways to get them."""

from dataclasses import replace

import numpy as np
import pytest

from prefdyn.data.loaders import load_dataset
from prefdyn.dynamics.order import spearman
from prefdyn.dynamics.sweep import sweep
from prefdyn.experiments import objectives as recipe
from prefdyn.experiments import presets, value_scaling
from prefdyn.experiments.claims import rank
from prefdyn.experiments.context import MODEL, TWIN, Context
from prefdyn.experiments.launch import launch
from prefdyn.experiments.reproduce import _Landed, run_recipe
from prefdyn.experiments.rows import Rows
from prefdyn.experiments.values import mean_curve
from prefdyn.features import FeatureSet
from prefdyn.maths.closed_form import single_flow
from prefdyn.report.reproduce import reproduced_figure
from prefdyn.synthetic import gaussian_groups
from tests.experiments.conftest import learned, measured, ordered

START = "2408.03459-experiment07-"
CLAIMS = {claim.id.removeprefix(START): claim for claim in recipe.CLAIMS}
OTHERS = {"slic": "hinge", "ipo": "gpo_ipo"}
LEARNED = {MODEL: [0.8, 0.81, 0.82], TWIN: [0.6, 0.61, 0.62]}


def beyond_twin(found):
    assert found.control is not None
    return found.control.beyond


def judged(id, rows=(), **facts):
    return CLAIMS[id].judge(Rows(rows, facts=facts))


# rules ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "holds"), [(1.05, True), (0.93, True), (1.2, False), (0.8, False)])
@pytest.mark.parametrize(("short", "loss"), [("dpo", "sigmoid"), *OTHERS.items()])
def test_data_departs_where_one_number_of_values_is_a_tenth_off(short, loss, end, holds):
    each = [{1: (1.0, 1.0), 2: (3.0, end)}] * 3
    found = judged(f"{short}-data", departure={loss: each})
    assert found.holds is holds
    assert found.evidence["K = 2, first step"]["value"] == 3.0
    assert judged(f"{short}-data", departure={loss: each[:2]}).holds is None


@pytest.mark.parametrize(("off", "holds"), [(1e-9, True), (1e-3, False)])
def test_printed_rates_are_held_to_rounding(off, holds):
    for id in ("responses", "tokens"):
        assert judged(id, **{id: {"printed": off, "repaired": 1e-9}}).holds is holds


@pytest.mark.parametrize(
    ("model", "twin", "accuracies", "holds", "beyond"),
    [
        ([1.0, 1.0, 1.0], [-0.9, -1.0, -0.9], LEARNED, True, True),
        ([1.0, 1.0, 1.0], [1.0] * 3, LEARNED, True, False),
        ([1.0, 1.0, 1.0], [-0.9, -1.0, -0.9], {MODEL: [0.5, 0.49, 0.51], TWIN: [0.5] * 3}, True, False),
        ([0.8, 0.9, 0.9], [-0.9, -1.0, -0.9], LEARNED, False, True),
    ],
)
@pytest.mark.parametrize(("short", "loss"), list(OTHERS.items()))
def test_orders_are_one_above_nine_tenths(short, loss, model, twin, accuracies, holds, beyond):
    rows = [
        *ordered("DPO's area", "area", model, figure=loss),
        *ordered("DPO's area", "area", twin, figure=loss, source=TWIN),
        *learned(loss, accuracies[MODEL], accuracies[TWIN]),
    ]
    found = judged(f"{short}-order", rows)
    assert (found.holds, beyond_twin(found)) == (holds, beyond)


def margins(loss, power, source=MODEL, counts=(1, 2, 4, 8)):
    rows = measured("K", [{count: float(count) for count in counts}] * 3, figure=loss, source=source)
    values = [{count: 0.3 * count**power for count in counts}] * 3
    return [*rows, *measured("margin", values, figure=loss, source=source)]


def test_two_values_are_no_order_and_two_numbers_no_trend():
    rows = [row for row in ordered("DPO's area", "area", [1.0], figure="gpo_ipo") if row.group in "ab"]
    found = judged("ipo-order", rows)
    assert (found.holds, found.because) == (None, "an order of values takes 4, and there are 2")
    found = judged("ipo-scaling", [row for loss in recipe.LOSSES for row in margins(loss, -0.75, counts=(1, 2))])
    assert found.because == "a trend over K takes 4, and there are 2"


@pytest.mark.parametrize(("power", "holds"), [(-0.75, True), (-0.6, False), (-0.9, False)])
@pytest.mark.parametrize(("short", "loss"), list(OTHERS.items()))
def test_exponents_are_held_against_that_of_dpo(short, loss, power, holds):
    rows = [*margins("sigmoid", -0.75), *margins(loss, power)]
    rows += [*margins("sigmoid", -0.5, TWIN), *margins(loss, -0.5, TWIN)]
    found = judged(f"{short}-scaling", rows)
    assert found.holds is holds
    assert found.evidence["DPO"]["value"] == pytest.approx(-0.75)
    assert found.evidence["statistic"]["value"] == pytest.approx(power + 0.75)


@pytest.mark.parametrize(
    ("first", "last", "smaller", "larger"), [(0.4, 0.2, True, False), (0.2, 0.4, False, True), (0.3, 0.3, False, False)]
)
@pytest.mark.parametrize(("short", "loss"), list(OTHERS.items()))
def test_whole_models_are_held_from_one_value_to_many(short, loss, first, last, smaller, larger):
    rows = []
    for each in ("sigmoid", loss):
        figure = f"{each}, whole model"
        for source, ends in ((MODEL, (first, last)), (TWIN, (0.3, 0.3))):
            column = [dict(zip((recipe._ONE, recipe._MANY), ends, strict=True))] * 3
            for quantity in ("end margin", "end error"):
                rows += measured(quantity, column, figure=figure, source=source)
        rows += learned(figure, (0.7,) * 3, (0.5,) * 3)
    margin, error = (judged(f"{short}-whole-{key}", rows) for key in ("margin", "error"))
    assert (margin.holds, error.holds) == (smaller, larger)
    assert (beyond_twin(margin), beyond_twin(error)) == (smaller, larger)
    assert margin.evidence["DPO"]["value"] == pytest.approx(first - last)


# numbers -------------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_on_the_papers_clusters_each_loss_has_its_closed_form():
    """Without noise, one step after another, against the three formulas written out."""
    feats = gaussian_groups(8, groups=3, width=6, noise=1e-9, shared_norm=0.4, held_out=0.0)
    beta, rate, steps = 0.2, 0.3, 400
    time = beta**2 * rate * np.arange(steps + 1) / 3
    forms = {"sigmoid": single_flow(2.0, time), "hinge": np.minimum(2 * time, 1), "gpo_ipo": 1 - np.exp(-4 * time)}
    for loss, form in forms.items():
        run = sweep(feats, objective=loss, beta=beta, learning_rate=rate, steps=steps, record="all")[0]
        for name in feats.groups:
            assert run.curve("margin", group=name)[1][1:] == pytest.approx(form[1:], rel=0.01), (loss, name)
    for loss in recipe.LOSSES:
        for count in (1, 4, 16):
            found = recipe.on_clusters(loss, count, 0)
            assert (found.time[0], found.time[-1]) == (0, pytest.approx(0.5))
            assert found.margin[1:] == pytest.approx(found.closed[1:], rel=0.02)


def test_the_measured_gaps_give_the_closed_form_where_values_are_orthogonal():
    feats = gaussian_groups(40, groups=2, width=8, noise=1e-9, half_gap=[1.0, 3.0], held_out=0.2, seed=4)
    halves = recipe._half_gaps(feats)
    assert halves == {"group 0": pytest.approx(1.0), "group 1": pytest.approx(3.0)}
    sets = {1: (("group 0",), ("group 1",)), 2: (("group 0", "group 1"),)}
    runs = sweep(
        feats, objective="sigmoid", beta=0.1, learning_rate=0.05, steps=20,
        groups=[names for group in sets.values() for names in group],
    )  # fmt: skip
    found = recipe._departure("sigmoid", {1: runs[:2], 2: runs[2:]}, sets, halves)
    assert found[1] == pytest.approx((1.0, 1.0), rel=5e-3)
    shares = [np.sum(~feats.held_out[feats.members(name)]) for name in feats.groups]
    assert shares == [32, 32]
    assert found[2] == pytest.approx((1.0, 1.0), rel=0.1)  # a random split leaves classes of unequal size
    aligned = gaussian_groups(
        40, groups=2, width=8, noise=1e-9, directions=np.tile(np.eye(1, 8, k=1), (2, 1)), held_out=0.0
    )
    runs = sweep(aligned, objective="sigmoid", beta=0.1, learning_rate=0.5, steps=5)
    halves = recipe._half_gaps(aligned)
    found = recipe._departure("sigmoid", {2: runs}, {2: (("group 0", "group 1"),)}, halves)
    assert found[2][0] == pytest.approx(2.0, rel=0.01)  # one direction: each value helps the other as much as itself


def test_first_steps_are_as_the_pulls_and_trls_ipo_is_half_of_the_papers():
    feats = gaussian_groups(20, groups=3, width=8, noise=1.0, shared_norm=2.0, seed=5)
    runs = {loss: sweep(feats, objective=loss, beta=0.1, learning_rate=0.2, steps=10) for loss in recipe.LOSSES}
    curves = {loss: mean_curve(found, "margin", "train")[1] for loss, (found,) in runs.items()}
    assert curves["hinge"][1] == pytest.approx(2 * curves["sigmoid"][1], rel=1e-9)
    assert curves["gpo_ipo"][1] == pytest.approx(4 * curves["sigmoid"][1], rel=1e-9)
    assert curves["gpo_ipo"][-1] != pytest.approx(4 * curves["sigmoid"][-1], rel=1e-3)
    ipo = sweep(feats, objective="ipo", beta=0.1, learning_rate=0.2 * 0.1**2, steps=10)[0]
    assert 2 * mean_curve(ipo, "margin", "train")[1] == pytest.approx(curves["gpo_ipo"], rel=1e-9)


def test_printed_rates_are_wrong_and_repaired_ones_right():
    for found in (recipe._responses(), recipe._tokens()):
        assert found["printed"] > 0.05
        assert found["repaired"] < 1e-6


def test_a_response_that_takes_all_there_is_cannot_rise():
    """Why the printed rate is wrong, in one line: one answer, one probability."""
    feats = FeatureSet.from_arrays(
        [[1.0]], chosen=["a"], rejected=["b"], ref_chosen_logps=[-1e-9], ref_rejected_logps=[-20.7], tokens=["a", "b"]
    )
    run = sweep(feats, beta=1.0, learning_rate=1.0, steps=1)[0]
    assert run.final("margin", group="all") == pytest.approx(1.0)
    assert run.final("chosen_change", group="all") == pytest.approx(0.0, abs=1e-8)


# end to end ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(builtin_model, tmp_path_factory):
    """The recipe on four built-in behaviours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFDYN_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = load_dataset("builtin", groups=list(load_dataset("builtin").groups[:4]), limit=20)
        context = Context(preset=presets.preset_named("smoke"), data=(data,), models=(builtin_model,))
        plan = recipe._runs(context)
        done = _Landed(plan, launch(list(plan.values()), progress=False)[0])
        return context, done, recipe._results(context, done)


@pytest.mark.thorough
def test_figures_are_whole_and_can_be_drawn(found):
    results = found[2]
    assert [figure.id for figure in results.figures] == [START[:-1], START[:-1] + "e"]
    assert {figure.spec for figure in results.figures} == set(recipe.RECIPE.figures)
    for figure in results.figures:
        assert figure.table().num_rows > 0
        assert reproduced_figure(figure).get_figwidth() < 20
    curves, table = results.figures
    assert [panel.title for panel in curves.panels] == [
        "(a) the paper's clusters, K = 2", "(b) this data, each value alone", "(c) this data, 4 values",
        "(d) this data, by number of values",
    ]  # fmt: skip
    assert [row[0] for row in table.panels[0].rows] == [
        f"{name}, K = {count}" for name in ("DPO", "SLiC", "IPO") for count in (1, 4)
    ]


@pytest.mark.thorough
def test_claims_are_judged_and_one_seed_gives_no_verdict(found):
    verdicts = {id: claim.judge(found[2].measured) for id, claim in CLAIMS.items()}
    told = {id: verdict.holds for id, verdict in verdicts.items() if verdict.holds is not None}
    assert told == {"responses": False, "tokens": False}


@pytest.mark.thorough
def test_numbers_are_those_of_the_trajectories(found):
    context, done, results = found
    del context
    runs = {loss: done["head", loss, MODEL, 0].trajectories[:4] for loss in recipe.LOSSES}
    assert len({run.settings["learning_rate"] for group in runs.values() for run in group}) == 1
    curves = {
        loss: [run.curve("margin", group=run.groups[0]) for run in group] for loss, group in runs.items()
    }  # fmt: skip
    areas = {
        loss: [np.trapezoid(values, steps) / steps[-1] for steps, values in group] for loss, group in curves.items()
    }
    rows = results.measured
    order = rank("DPO's area", "area")(rows, {"figure": "hinge"}, MODEL)[0]
    assert order == pytest.approx(spearman(areas["sigmoid"], areas["hinge"]))
    whole = done["whole", "gpo_ipo", TWIN, 0, 1].trajectory
    name = whole.groups[0]
    there = {"figure": "gpo_ipo, whole model", "group": recipe._ONE}
    margin, error = (rows.values(f"end {quantity}", there, TWIN)[0] for quantity in ("margin", "error"))
    assert margin == pytest.approx(whole.final("margin", group=name))
    assert error == pytest.approx(1 - whole.final("reward_accuracy", group=name, split="held_out"))
    first = rows.facts["departure"]["sigmoid"][0][1][0]
    margins = [values[1] for _, values in curves["sigmoid"]]
    beta, rate = (runs["sigmoid"][0].settings[key] for key in ("beta", "learning_rate"))
    halves = recipe._half_gaps(done["features", MODEL, 0].features)
    slow = [beta**2 * rate * halves[run.groups[0]] ** 2 for run in runs["sigmoid"]]
    assert first == pytest.approx(np.mean(margins) / np.mean(slow), rel=0.05)  # dr/ds is 1 at the start


def test_runs_of_dpo_are_those_of_value_scaling(context):
    mine, theirs = recipe._runs(context), value_scaling.RECIPE.runs(context)
    assert mine["features", MODEL, 0].key == theirs["features", MODEL, 0].key
    for source in (MODEL, TWIN):
        for count in (1, 4):
            assert mine["whole", "sigmoid", source, 0, count].key == theirs["whole", source, 0, count].key
            assert mine["whole", "hinge", source, 0, count].key != theirs["whole", source, 0, count].key


@pytest.mark.thorough
def test_a_rate_of_another_loss_is_half_of_its_largest_stable_step(found):
    done = found[1]
    rates = {loss: done["head", loss, MODEL, 0].settings["learning_rate"] for loss in recipe.LOSSES}
    assert set(rates.values()) == {rates["gpo_ipo"]}
    run = done["head", "hinge", MODEL, 0].run
    assert run.key != replace(run, setup=replace(run.setup, rate_of="sigmoid")).key


@pytest.mark.slow
def test_on_shuffled_labels_nothing_is_held_beyond_the_twin(monkeypatch):
    """The built-in data with every label drawn by lot, under the rules and seeds of `small` at a smaller size."""
    small = presets.PRESETS["small"]
    monkeypatch.setitem(presets.PRESETS, "small", replace(small, rows=60, measured_pairs=10, jobs=1))
    data = load_dataset("builtin").with_noise(0.5, seed=11)
    found = run_recipe("objectives", preset="small", data=data)
    assert [row["id"] for row in found.claims if row["control"] and row["holds"] and row["control"]["beyond"]] == []
