"""Cosines between groups: known geometries, both sides of each rule, and the recipe end to end."""

from typing import Any

import numpy as np
import pytest

from prefdyn.diagnostics.orthogonality import orthogonality
from prefdyn.experiments import cluster_structure as recipe
from prefdyn.experiments.context import MODEL
from prefdyn.experiments.launch import launch
from prefdyn.experiments.reproduce import _Landed
from prefdyn.experiments.rows import Rows
from prefdyn.features import FeatureSet
from tests.experiments.conftest import beside_twin, measured, twin_of

CLAIMS = {claim.id: claim for claim in recipe.CLAIMS}
B = "2408.03459"


def groups(directions, *, shared=0.0, noise=0.0, rows=40, width=40, seed=0):
    """Positive rows around s + c_i, negative ones around s - c_i."""
    rng = np.random.default_rng(seed)
    states, yes, names = [], [], []
    for number, direction in enumerate(directions):
        label = np.arange(rows) % 2 == 0
        centre = np.where(label[:, None], direction, -direction) + shared * np.eye(width)[-1]
        states.append(centre + noise * rng.normal(size=(rows, width)))
        yes += label.tolist()
        names += [f"g{number}"] * rows
    answers = [("Yes", "No") if each else ("No", "Yes") for each in yes]
    return FeatureSet.from_arrays(
        np.concatenate(states), chosen=[pair[0] for pair in answers], rejected=[pair[1] for pair in answers],
        group=names, tokens=["Yes", "No"],
    )  # fmt: skip


def numbers(feats):
    return recipe._numbers(feats, orthogonality(feats, rows="positive"))


def test_orthogonal_directions_beside_a_shared_one():
    """Rows s + c_i with |s| = 3 |c|: raw cosines are 9/10 whoever they belong to; without s the m centred directions
    have cosine -1/(m - 1) to each other and 1 to themselves."""
    found = numbers(groups(np.eye(5, 40), shared=3.0))
    assert found["likeness"] == pytest.approx(0.9)
    assert found["raw_off"] == pytest.approx(0.9)
    assert found["likeness, centred"] == pytest.approx(0.25)
    assert found["directions"] == pytest.approx(0.25)
    assert found["null"] == pytest.approx(np.sqrt(2 / (np.pi * 40)))


def test_groups_that_are_one_direction_are_not_told_apart():
    found = numbers(groups(np.tile(np.eye(1, 40), (5, 1)), noise=0.3))
    assert found["likeness"] == pytest.approx(1.0, abs=0.05)
    assert not found["likeness, centred"] < 1  # noise alone is left: nothing inside is more alike than outside, or nan


def test_noise_makes_rows_unlike_but_not_the_ratio():
    """The published statistic falls with noise alone; the ratio tells what is shared."""
    quiet, loud = (numbers(groups(np.eye(5, 40), shared=3.0, noise=noise, rows=400)) for noise in (0.0, 1.0))
    assert loud["raw_off"] < 0.3 * quiet["raw_off"]
    assert loud["likeness"] == pytest.approx(quiet["likeness"], abs=0.03)


def test_some_groups_keep_their_rows_and_names():
    feats = groups(np.eye(4, 40))
    part = recipe._some(feats, ["g2", "g0"])
    assert part.groups == ("g2", "g0")
    np.testing.assert_array_equal(part.states[part.members("g2")], feats.states[feats.members("g2")])
    whole = recipe._numbers(feats, orthogonality(feats, rows="positive"))
    assert recipe._numbers(part, orthogonality(part, rows="positive")) != whole


def test_ten_are_always_the_same_ten():
    names = [f"p{number:03d}" for number in range(135)]
    ten = recipe._ten(names)
    assert (len(ten), ten, sorted(ten)) == (10, recipe._ten(names), ten)
    assert recipe._ten(names[:4]) == names[:4]


@pytest.mark.parametrize("id", [f"{B}-fig03", f"{B}-fig06"])
def test_the_rules_on_both_sides(id):
    for quantity, name, held, failed in (
        ("likeness", "shared", [0.8, 0.82, 0.81], [0.5, 0.45, 0.55]),
        ("likeness, centred", "orthogonal", [0.1, 0.12, 0.11], [0.24, 0.26, 0.25]),
    ):

        def judged(values, quantity=quantity, name=name, **rest):
            rows = beside_twin(quantity, values, [0.5] * len(values), figure=id)
            return CLAIMS[f"{id}-{name}"].judge(Rows(rows, **rest))

        assert (judged(held).holds, judged(failed).holds, judged(held[:1]).holds) == (True, False, None)
        assert twin_of(judged(held)).beyond is True
        assert judged(held, lacking={id: "2 groups are too few"}).because == "2 groups are too few"


def test_the_condition_of_the_theorem_on_both_sides():
    limit, figure = 1 / 384, f"{B}-fig06"
    for share, holds in ((0.9, True), (1.1, False)):
        rows = [
            *measured("directions", [0.3, share * limit, 0.2], figure=figure),
            *measured("null", [0.1], figure=figure),
        ]
        found = CLAIMS[f"{figure}-condition"].judge(Rows(rows))
        assert (found.holds, found.evidence["limit"]) == (holds, limit)


def test_the_recipe_end_to_end(context):
    plan = recipe.RECIPE.runs(context)
    landed: Any = launch(list(plan.values()), progress=False)[0]
    results = recipe.RECIPE.results(context, _Landed(plan, landed))
    assert {figure.id for figure in results.figures} == {f"{B}-fig03", f"{B}-fig06"}
    assert all(claim.judge(results.measured).holds in (None, True, False) for claim in recipe.CLAIMS)
    feats = landed[plan[MODEL, 0].key].features
    shape = orthogonality(feats, rows="positive")
    figure: Any = results.figures[1]
    assert figure.panels[0].names == tuple(sorted(feats.groups))
    order = np.argsort(feats.groups)
    np.testing.assert_allclose(figure.panels[0].matrix, shape.cosine[np.ix_(order, order)], rtol=1e-6)
    np.testing.assert_allclose(figure.panels[1].matrix, shape.cosine_centred[np.ix_(order, order)], rtol=1e-6)
    assert results.notes[0] == "“All” are 6 of the 20 groups of this data."
