"""Measures of two classes of states: against plain formulas, what leaves them alone, and what they cannot tell."""

import math

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from prefdyn.experiments.separability import MEASURES, RATIOS, READERS, change, folded, separability
from prefdyn.features import FeatureSet


def classes(count=60, width=5, gap=1.5, seed=0, held_out=0.3, scale=1.0, turn=None):
    """Two Gaussian classes, unequal in spread, a third of the rows held out."""
    rng = np.random.default_rng(seed)
    yes = np.arange(count) % 2 == 0
    states = rng.normal(size=(count, width)) * np.where(yes, 1.0, 1.7)[:, None]
    states[:, 0] += np.where(yes, gap, -gap)
    states = scale * states if turn is None else scale * states @ turn
    answers = [("Yes", "No") if each else ("No", "Yes") for each in yes]
    return FeatureSet.from_arrays(
        states, chosen=[pair[0] for pair in answers], rejected=[pair[1] for pair in answers], tokens=["Yes", "No"],
        held_out=rng.random(count) < held_out,
    )  # fmt: skip


def positive(feats):
    signs = feats.signs(0)
    assert signs is not None
    return signs > 0


@pytest.mark.parametrize("split", ["all", "train", "held_out"])
def test_clouds_are_plain_formulas(split):
    feats = classes()
    kept = {"all": np.ones(60, dtype=bool), "train": ~feats.held_out, "held_out": feats.held_out}[split]
    yes, states = positive(feats)[kept], feats.states[kept].astype(float)
    found = separability(feats)[split]
    covariances = [np.cov(states[side].T) for side in (yes, ~yes)]
    distance = np.linalg.norm(states[yes].mean(axis=0) - states[~yes].mean(axis=0))
    assert found["distinguishability"] == pytest.approx(distance)
    assert found["trace_ratio"] == pytest.approx(max(map(np.trace, covariances)) / distance**2)
    assert found["concentration_ratio"] == pytest.approx(
        max(np.linalg.norm(each, 2) for each in covariances) / distance, rel=1e-5
    )
    assert found["fisher_ratio"] == pytest.approx(distance**2 / sum(map(np.trace, covariances)))
    apart = np.linalg.norm(states[:, None] - states[None], axis=2)
    widths = []
    for row, side in enumerate(yes):
        inside, outside = apart[row, yes == side].sum() / ((yes == side).sum() - 1), apart[row, yes != side].mean()
        widths.append((outside - inside) / max(inside, outside))
    assert found["silhouette"] == pytest.approx(np.mean(widths))
    assert (set(READERS) <= set(found)) is (split == "held_out")


def test_readers_are_fitted_on_training_pairs_and_asked_about_held_out_ones():
    feats = classes(count=200, gap=0.6)
    yes, held, states = positive(feats), feats.held_out, feats.states.astype(float)
    found = separability(feats)["held_out"]
    gap = states[yes & ~held].mean(axis=0) - states[~yes & ~held].mean(axis=0)
    along = states @ gap / np.linalg.norm(gap)
    assert found["along"] == pytest.approx(along[yes & held].mean() - along[~yes & held].mean())
    wins = along[yes & held][:, None] > along[~yes & held][None]
    assert found["auc"] == pytest.approx(wins.mean())
    scale = np.sqrt(np.mean((states[~held] - states[~held].mean(axis=0)) ** 2, axis=0))
    scores = [
        RidgeClassifier(alpha=alpha).fit(states[~held] / scale, yes[~held]).score(states[held] / scale, yes[held])
        for alpha in np.geomspace(1e-3, 1e4, 15)
    ]
    assert min(scores) - 1e-9 <= found["probe"] <= max(scores) + 1e-9
    assert found["probe"] > 0.6


def test_scale_and_rotation_move_only_what_has_a_unit():
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    plain, moved = separability(classes())["held_out"], separability(classes(scale=3.0, turn=turn))["held_out"]
    units = {"distinguishability": 3.0, "concentration_ratio": 3.0, "along": 3.0}
    for measure in set(MEASURES) - {"probe"}:
        assert moved[measure] == pytest.approx(units.get(measure, 1.0) * plain[measure], rel=1e-4)


def test_a_body_that_fits_its_training_pairs_is_seen_through():
    """Training pairs pushed apart by their labels along directions of their own: D of them grows, of the others not."""
    feats = classes(count=80, gap=0.0, width=60, seed=1)
    states = feats.states.copy()
    yes = positive(feats)
    rows = np.flatnonzero(~feats.held_out)
    for place, row in enumerate(rows):
        states[row, place % 60] += 4.0 if yes[row] else -4.0
    after = FeatureSet.from_arrays(
        states, chosen=feats.chosen, rejected=feats.rejected, tokens=[0, 1], held_out=feats.held_out
    )
    before, found = separability(feats), separability(after)
    assert change("distinguishability", before["train"]["distinguishability"], found["train"]["distinguishability"]) > 0
    assert found["train"]["trace_ratio"] < before["train"]["trace_ratio"]
    assert found["held_out"]["distinguishability"] == pytest.approx(before["held_out"]["distinguishability"])
    assert abs(found["held_out"]["auc"] - 0.5) < 0.25


def test_what_has_no_two_rows_in_a_class_is_not_measured():
    feats = classes(count=8, held_out=0.0)
    one = feats.with_held_out(np.arange(8) == 0)
    found = separability(one)
    assert math.isfinite(found["train"]["distinguishability"])
    assert all(math.isnan(value) for value in found["held_out"].values())


def test_changes_are_ratios_of_what_has_one_sign():
    assert change("trace_ratio", 2.0, 1.0) == pytest.approx(-math.log(2))
    assert change("silhouette", -0.5, 0.25) == 0.75
    assert all(math.isnan(change(measure, 0.0, 1.0)) for measure in RATIOS)
    assert math.isnan(change("probe", math.nan, 1.0))


def test_rows_fold_over_what_was_measured():
    rows = [[1.0, 5.0, math.nan], [3.0, math.nan, math.nan]]
    assert folded(rows)[:2] == [2.0, 5.0]
    assert folded(rows, "least")[:2] == [1.0, 5.0]
    assert folded(rows, "greatest")[:2] == [3.0, 5.0]
    assert math.isnan(folded(rows)[2])
