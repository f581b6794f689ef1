"""Paths in the plane: closed forms, both sides of each rule, and the recipe end to end."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prefdyn.experiments import gradient_field as recipe
from prefdyn.experiments.claims import single
from prefdyn.experiments.context import MODEL, TWIN
from prefdyn.experiments.gradient_field import COORDINATES, STARTS, WAYS, leads
from prefdyn.experiments.launch import launch
from prefdyn.experiments.reproduce import _Landed
from prefdyn.experiments.rows import Row, Rows
from prefdyn.theory.gradient_field import flow_point
from prefdyn.theory.measured import PlanePath
from tests.experiments.conftest import measured as rows_of
from tests.experiments.conftest import twin_of

CLAIMS = {claim.id: claim for claim in recipe.CLAIMS}
C = "2404.04626"
FIGURE, EXPERIMENT = f"{C}-fig01", f"{C}-experiment01"


def path(x1, x2, ref_chosen=0.1, ref_rejected=0.1):
    return PlanePath(np.arange(2), np.array([1.0, x1]), np.array([1.0, x2]), ref_chosen, ref_rejected)


def test_leads_of_the_four_flows_are_those_of_theory():
    """At x1/x2 = 9: the flow in ratios ends at (1.4056, 0.1562), that in logarithms at (3, 1/3) (THEORY 4.5)."""
    ratios, logs = (path(*map(float, flow_point(name, ratio=9.0))) for name in ("ratios", "log-ratios"))
    assert leads(ratios)["ratios"] == pytest.approx((1 - 0.1562) - (1.4056 - 1), abs=1e-4)
    assert leads(ratios)["ratios"] > 0
    assert leads(logs)["logs"] == pytest.approx(0.0, abs=1e-12)
    assert leads(logs)["ratios"] == pytest.approx(2 / 3 - 2)
    assert leads(path(2.0, 0.5, 0.1, 0.4))["probabilities"] == pytest.approx(0.4 * 0.5 - 0.1)
    assert leads(path(1.0, 1.0)) == dict.fromkeys(COORDINATES, 0.0)


def test_the_circle_is_kept_by_the_flow_in_ratios_alone():
    kept = path(*map(float, flow_point("ratios", ratio=9.0)))
    left = path(*map(float, flow_point("log-ratios", ratio=9.0)))
    assert recipe._circle(kept) == pytest.approx(1.0)
    assert recipe._circle(left) == pytest.approx((9 + 1 / 9) / 2)


def test_the_derivatives_agree_with_differences_and_a_wrong_formula_would_not(monkeypatch):
    found = recipe._theorem(0.1)
    assert found["derivatives"] < 1e-6
    assert found["ratio"] < 1e-6
    right = recipe.field_gradient
    monkeypatch.setattr(recipe, "field_gradient", lambda x1, x2, *, beta: (2 * right(x1, x2, beta=beta)[0], 1.0 / x2))
    assert recipe._theorem(0.1)["derivatives"] > 0.5


def measured(values=(0.5, 0.6, 0.55), *, off=1e-9, ratio: float | None = 1e-15, **change):
    """Every lead the same, three seeds; `change`: those of a coordinate and start, or the circle, joined by a dash."""
    rows = [Row(quantity="derivatives", value=off, figure=FIGURE)]
    rows += [] if ratio is None else [Row(quantity="ratio", value=ratio, figure=FIGURE)]
    for way, (start, words), name in itertools.product(WAYS, STARTS.items(), (*COORDINATES, "circle")):
        usual = [1.0, 1.01, 0.99][: len(values)] if name == "circle" else values
        found = change.get(f"{name}_{start}", usual) if way == "whole" else usual
        rows += rows_of(name, [{words: each} for each in found], figure=EXPERIMENT, split=way)
    beside = [(name, TWIN, [0.1, 0.12, 0.11]) for name in COORDINATES]
    for name, source, usual in [*beside, ("falling", MODEL, [0.1] * 3)]:
        found = [{STARTS["base"]: each} for each in usual[: len(values)]]
        rows += rows_of(name, found, figure=EXPERIMENT, split="whole", source=source)
    return Rows(rows, facts={FIGURE: {"points": 10, "harder": 10, "beta": 0.1}})


def judge(id, found):
    return CLAIMS[f"{C}-{id}"].judge(found)


def test_formulas_on_both_sides():
    assert judge("fig01-derivatives", measured()).holds is True
    assert judge("fig01-derivatives", measured(off=1e-3)).holds is False
    assert judge("fig01-ratio", measured()).holds is True
    assert "harder at 10 of 10" in judge("fig01-ratio", measured()).measured
    assert judge("fig01-ratio", measured(ratio=1e-3)).holds is False
    assert judge("fig01-ratio", measured(ratio=None)).because == "no run came to a point with x1 above x2"


@pytest.mark.parametrize("name", list(COORDINATES))
def test_leads_on_both_sides(name):
    id = f"experiment01-{name}"
    found = judge(id, measured())
    assert (found.holds, twin_of(found).beyond) == (True, True)
    assert found.evidence["head, chosen"]["seeds"] == 3
    assert judge(id, measured([0.5, -0.2, 0.4])).holds is False
    assert judge(id, measured([0.5, 0.6])).holds is None


def test_the_answer_depends_on_the_coordinates_where_both_signs_are_sure():
    assert judge("experiment01-coordinates", measured()).holds is False
    both = judge("experiment01-coordinates", measured(ratios_base=[-0.5, -0.6, -0.55]))
    assert both.holds is True
    assert both.measured == "rejected moved further in 8 of 9, chosen in 1"
    assert judge("experiment01-coordinates", measured(ratios_base=[-0.5, 0.6, -0.55])).holds is False
    assert judge("experiment01-coordinates", measured([0.5])).holds is None


def test_the_start_decides_where_the_paired_difference_is_sure():
    assert judge("experiment01-start", measured()).holds is False
    assert judge("experiment01-start", measured(logs_chosen=[3.0, 3.2, 3.1])).holds is True
    assert judge("experiment01-start", measured(logs_chosen=[3.0, -9.0, 3.1])).holds is False
    assert judge("experiment01-start", measured([0.5, 0.6])).holds is None


def test_a_path_is_a_circle_within_a_tenth():
    assert judge("experiment01-circle", measured()).holds is True
    assert judge("experiment01-circle", measured(circle_base=[1.0, 1.15, 1.05])).holds is False
    assert judge("experiment01-circle", measured([0.5])).holds is None


@pytest.mark.thorough
def test_the_recipe_end_to_end(context):
    """Both fine-tunings move their side of the start; DPO's reference is its start; figures are the paper's parts."""
    setups = dict(context.preset.setups)
    setups["sft-start"] = replace(setups["sft-start"], learning_rate=3e-3, steps=6)
    context = replace(context, preset=replace(context.preset, setups=setups))
    plan = recipe.RECIPE.runs(context)
    landed: Any = launch(list(plan.values()), progress=False)[0]
    results = recipe.RECIPE.results(context, _Landed(plan, landed))
    assert [figure.id for figure in results.figures] == [f"{C}-fig01a", f"{C}-fig01b", f"{C}-experiment01"]
    assert all(claim.judge(results.measured).holds in (None, True, False) for claim in recipe.CLAIMS)
    assert judge("fig01-derivatives", results.measured).holds is True
    facts = results.measured.facts[EXPERIMENT]
    chances = {start: np.array(found[0]) for start, found in facts["reference_probabilities"].items()}
    assert chances["chosen"].sum() > 5 * chances["base"].sum()  # both answers are learned to be answers
    assert chances["chosen"][0] / chances["chosen"][1] > chances["rejected"][0] / chances["rejected"][1]
    place = {"figure": EXPERIMENT, "split": "whole", "group": STARTS["chosen"]}
    run = landed[plan["whole", "chosen", 0].key].trajectory
    (logs,) = single("logs")(results.measured, place, MODEL)
    (ratios,) = single("ratios")(results.measured, place, MODEL)
    rows = run.where(split="train").to_pylist()
    final = [row for row in rows if row["step"] == max(each["step"] for each in rows)]
    weights = [row["pairs"] for row in final]
    up, down = (
        np.average([row[f"{side}_change"] for row in final], weights=weights) for side in ("chosen", "rejected")
    )
    assert logs == pytest.approx(-up - down)
    assert ratios == pytest.approx(2 - np.exp(up) - np.exp(down))
    assert len(results.figures[2].panels) == 4


def test_the_line_of_several_paths_is_their_geometric_mean_step_by_step():
    line = recipe._line([path(1.0, 4.0), path(4.0, 1.0)], next(iter(STARTS)))
    np.testing.assert_allclose(line.x, [1.0, 2.0])
    np.testing.assert_allclose(line.y, [1.0, 2.0])
