"""Figure 4's numbers as printed, each rule on both sides, and the recipe end to end on built-in data."""

import math
from dataclasses import replace

import numpy as np
import pytest

from prefdyn.experiments import sample_complexity as recipe
from prefdyn.experiments.context import MODEL, TWIN
from prefdyn.experiments.early import Geometry, law, values_measured
from prefdyn.experiments.launch import launch
from prefdyn.experiments.reproduce import _Landed
from prefdyn.experiments.rows import Row, Rows
from prefdyn.experiments.values import ring, value_sets
from tests.experiments.conftest import twin_of

CLAIMS = {claim.id: claim for claim in recipe.CLAIMS}
FIGURE = "2408.03459-fig04"
BOUND = recipe._bound()


def judged(claim, rows):
    return CLAIMS[f"{FIGURE}-{claim}"].judge(rows)


def bound(**change):
    found = BOUND | {name.replace("_", " "): value for name, value in change.items()}
    return Rows(
        [Row(quantity=name, value=value, figure=FIGURE) for name, value in found.items()], facts={FIGURE: found}
    )


def test_numbers_of_the_bound_are_those_of_theory():
    """THEORY 3.5: T14, X-9, X-10 and X-11."""
    assert BOUND["ten"] == pytest.approx(879.787, abs=1e-3)
    assert BOUND["hundred"] == pytest.approx(994.427, abs=1e-3)
    assert BOUND["at the stated"] == pytest.approx(0.05500867394049734)
    assert BOUND["pairs for the event"] == pytest.approx(1.84e5, rel=0.01)
    assert BOUND["pairs with known constants"] == 278
    assert BOUND["feasible"] == 5974
    assert BOUND["crowded"] == len([8192 * 2**place for place in range(8)])
    q = 880
    assert BOUND["failure"] == pytest.approx(8 * 10 * q**2.25 * math.exp(-(q**0.75) / 256))
    assert BOUND["log10 error at the fewest"] == pytest.approx(-8868, abs=30)


def test_the_bound_is_005_where_it_is_solved():
    for name, values in (("ten", 10), ("hundred", 100)):
        q = BOUND[name]
        assert 2 * values * q**2 * math.exp(-q / 45) == pytest.approx(0.05, rel=1e-9)


def test_what_is_told_of_the_bound_is_judged_by_it():
    verdicts = {claim: judged(claim, bound()).holds for claim in ("ten", "hundred", "logarithm", "event", "feasible")}
    assert verdicts == {"ten": True, "hundred": False, "logarithm": True, "event": False, "feasible": False}
    assert judged("needed", bound()).holds is False
    assert "1.130" in judged("hundred", bound()).measured


def test_the_other_side_of_each_rule():
    assert judged("ten", bound(ten=900.0)).holds is False
    assert judged("ten", bound(ten=874.0)).holds is False
    assert judged("hundred", bound(times=1.47)).holds is True
    assert judged("logarithm", bound(straight=0.98)).holds is False
    assert judged("event", bound(failure=0.04)).holds is True
    assert judged("feasible", bound(crowded=0)).holds is True
    assert judged("needed", bound(log10_error_at_the_fewest=-1.0)).holds is True


def test_levels_halve_what_there_is():
    assert recipe._levels(76) == [4, 9, 19, 38, 76]
    assert recipe._levels(3) == [3]


def cells(values, counts=(1, 4), levels=(4, 8)):
    return {count: {pairs: list(values) for pairs in levels} for count in counts}


def data(error=(0.3, 0.31, 0.32), law=(0.31, 0.32, 0.33), levels=(4, 8), drawn=None, errors=None):
    usual = {MODEL: cells(error, levels=levels), TWIN: cells([0.5] * len(error), levels=levels)}
    rows, laws = [], cells(law, levels=levels)
    for source, found in usual.items():
        rows += recipe._cells(found, laws, FIGURE, source=source)
    rows += recipe._cells(drawn or laws, laws, recipe._DRAWN)
    extremes, lacking = recipe._extremes(errors or usual, [1, 4], list(levels))
    facts = {name: {"K": 4, "Q": levels[-1]} for name in recipe._EXTREMES}
    return Rows(rows + extremes, lacking=lacking, facts=facts)


def test_a_law_tells_the_error_within_a_twentieth():
    found = judged("law", data())
    assert (found.holds, found.evidence["untrained_twin"]["value"]) == (True, pytest.approx(0.18))
    assert judged("law", data(law=(0.4, 0.41, 0.42))).holds is False
    assert judged("law", data(error=(0.3, 0.31), law=(0.3, 0.31))).holds is None


def test_on_its_own_model_it_does_so_within_a_hundredth():
    assert judged("law-drawn", data()).holds is True
    assert judged("law-drawn", data(drawn=cells((0.33, 0.34, 0.36)))).holds is False
    nan = [float("nan")] * 3
    unknown = judged("law-drawn", data(drawn=cells(nan)))
    assert unknown.because == "no clusters of this width have room for the values"
    one_known = {1: {4: [0.31, 0.32, 0.33], 8: nan}, 4: {4: nan, 8: nan}}
    assert judged("law-drawn", data(drawn=one_known)).holds is True


def test_the_error_falls_as_pairs_are_added():
    def both(first, last):
        found = {MODEL: {4: list(first), 8: list(last)}, TWIN: {4: [0.45, 0.46, 0.44], 8: [0.44, 0.45, 0.44]}}
        return {source: {1: cells([0.5] * 3)[1], 4: each} for source, each in found.items()}

    found = judged("falls", data(errors=both((0.4, 0.41, 0.42), (0.3, 0.31, 0.31))))
    assert (found.holds, twin_of(found).beyond) == (True, True)
    assert judged("falls", data(errors=both((0.4, 0.3, 0.4), (0.3, 0.4, 0.3)))).holds is False
    few = judged("falls", data(levels=(8,)))
    assert few.because == "the data has 8 pairs per cluster, too few to halve"
    by_lot = judged("falls", data(errors=both((0.52, 0.53, 0.54), (0.5, 0.51, 0.49))))
    assert twin_of(by_lot).beyond is False


def test_as_many_pairs_as_the_bound_asks_for_are_needed_to_test_it():
    few = judged("enough", data())
    assert few.because == "there are 8 pairs per cluster to train on, and the bound asks for 764 and more"
    many = data(error=(0.01, 0.02, 0.015), levels=(800, 900))
    assert judged("enough", many).holds is True
    assert judged("enough", data(levels=(800, 900))).holds is False


def clusters(noise):
    return Geometry(noise=noise, width=100, shared_norm=0.3, effective_rank=50.0)


def test_conditions_hold_where_all_do_in_every_seed():
    def of(*noises):
        failing, told = recipe._conditions([clusters(noise) for noise in noises], 1, 40)
        rows = [Row(quantity=name, value=value, figure=FIGURE) for name, value in failing.items()]
        return judged("conditions", Rows(rows, facts={FIGURE: told}))

    small, large = 1e-4, 0.5
    assert (of(small, small).holds, of(small, small).because) == (True, "all hold in every seed")
    assert of(small, large).holds is False
    limit = 1 / (32 * math.sqrt(40))
    assert of(small, large).because == f"v <= 1/(32 sqrt Q): {(small + large) / 2:.3g} against {limit:.3g}"
    assert of(small, math.inf).because.startswith("the values have no gap beyond noise")


def test_the_recipe_end_to_end(context):
    """Errors are those of a head summed up pair by pair; laws and conditions those of theory; figures are drawn."""
    plan = recipe._runs(context)
    landed, _ = launch(list(plan.values()), progress=False)
    done = _Landed(plan, landed)
    results = recipe._results(context, done)
    assert [figure.id for figure in results.figures] == [FIGURE, f"{FIGURE}b"]
    verdicts = {claim.id.removeprefix(f"{FIGURE}-"): claim.judge(results.measured).holds for claim in recipe.CLAIMS}
    assert {id for id, holds in verdicts.items() if holds} == {"ten", "logarithm"}
    assert {id for id, holds in verdicts.items() if holds is None} == {"enough", "falls", "law", "law-drawn"}

    feats = done["features", MODEL, 0].features
    sets = value_sets(context)
    alone = values_measured(feats, sets[4], seed=0)
    most = max(int(row.group.rpartition(" ")[2]) for row in results.measured if row.quantity == "law")
    cells = results.measured.pick("early error", {"figure": FIGURE})[0]
    errors = [alone.error([(name,)], most) for name in sets[4]]
    assert cells[f"K = 1, Q = {most}"] == pytest.approx(np.mean(errors))
    assert {group.partition(",")[0] for group in cells} == {"K = 1", "K = 2", "K = 4"}
    assert results.measured.values("noise", {"figure": FIGURE}) == [alone.geometry.noise]
    laws = results.measured.pick("law", {"figure": FIGURE})[0]
    assert laws[f"K = 4, Q = {most}"] == law(alone.geometry, 4, most)
    assert len(ring(sets)[2]) == 4
    asked, data_panel = results.figures[1].panels
    stated = next(line for line in asked.lines if line.label == "(b) bound at most 0.05")
    assert 10 ** stated.y[stated.x == 1.0][0] == pytest.approx(879.787, abs=1e-3)
    assert [line.label for line in data_panel.lines][:3] == ["(c) K = 1", "(c) K = 1, law", "(c) K = 1, clusters drawn"]


def test_features_are_those_of_value_scaling(context):
    """One run for both recipes."""
    from prefdyn.experiments.value_scaling import RECIPE

    theirs = {run.key for run in RECIPE.runs(context).values()}
    assert {run.key for run in recipe._runs(replace(context, compat=True)).values()} <= theirs
