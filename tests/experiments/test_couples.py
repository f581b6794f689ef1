"""Priority of two behaviours and the first joint step, against a head trained as a matrix."""

from typing import Any

import numpy as np
import pytest

from prefdyn.dynamics.descent import descent
from prefdyn.errors import DataError
from prefdyn.experiments.couples import (
    MANY,
    drawn,
    first_step,
    gaps_of,
    higher_first,
    lead,
    pulls_of,
)
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO, LOG2
from prefdyn.theory.learning_dynamics import pairwise_priority_gap
from prefdyn.trajectory import Trajectory


def feats(sizes=(6, 6, 4), width=5, seed=0):
    """Groups a, b, c with unequal classes, reference log-probabilities, and one pair of each held out."""
    rng = np.random.default_rng(seed)
    group = np.repeat(["a", "b", "c"][: len(sizes)], sizes)
    n = len(group)
    chosen = np.where(rng.random(n) < 0.6, "Yes", "No")
    chosen[0], chosen[1] = "Yes", "No"
    held_out = np.zeros(n, dtype=bool)
    held_out[np.cumsum(sizes) - 1] = True
    logits = rng.normal(size=(n, 2))
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True) + 3.0)
    first = chosen == "Yes"
    return FeatureSet.from_arrays(
        rng.normal(size=(n, width)), chosen=chosen, rejected=np.where(first, "No", "Yes"), group=group,
        held_out=held_out, tokens=["Yes", "No"], ref_chosen_logps=np.where(first, *log_probs.T),
        ref_rejected_logps=np.where(first, *log_probs.T[::-1]),
    )  # fmt: skip


def test_the_first_step_is_that_of_a_head_trained_as_a_matrix():
    """One step of gradient descent on all V rows of a head, and the mean margin that it gives each behaviour."""
    beta, rate = 0.3, 0.7
    both: Any = feats((6, 6))
    run = descent(both, DPO(beta=beta), learning_rate=rate, steps=2, alone=False)
    found = first_step(pulls_of(both), run)
    train = np.flatnonzero(~both.held_out)
    head = np.zeros((2, both.states.shape[1]))
    for row in train:
        sign = np.zeros(2)
        sign[both.chosen[row]], sign[both.rejected[row]] = 1.0, -1.0
        head += rate * beta / len(train) * 0.5 * np.outer(sign, both.states[row].astype(np.float64))
    for code, name in enumerate(("a", "b")):
        rows = train[both.group[train] == code]
        margins = [beta * (head[both.chosen[row]] - head[both.rejected[row]]) @ both.states[row] for row in rows]
        assert found.margins[name] == pytest.approx(np.mean(margins), rel=1e-9)
    assert found.off < 1e-9
    assert found.off_printed == pytest.approx(1 / beta - 1, rel=1e-6)  # Eq. 24 has margins and calls them logits


def test_another_rate_than_the_runs_own_is_seen():
    both: Any = feats((6, 6))
    run = descent(both, DPO(beta=0.3), learning_rate=0.7, steps=2, alone=False)
    wrong = Trajectory(table=run.table, settings={**run.settings, "learning_rate": 1.4})
    pulls = pulls_of(both)
    assert first_step(pulls, wrong).off == pytest.approx(0.5, rel=1e-6)


def test_without_log_probabilities_the_first_step_is_not_known():
    bare = FeatureSet.from_arrays(np.eye(4), chosen=[1, 0, 1, 0], rejected=[0, 1, 0, 1], group=["a", "a", "b", "b"])
    run = descent(bare, DPO(beta=0.3), learning_rate=0.7, steps=2, alone=False)
    found = first_step(pulls_of(bare), run)
    assert np.isnan(found.off)
    assert np.isnan(found.off_printed)


def test_a_behaviour_without_training_pairs_is_named():
    bare = FeatureSet.from_arrays(np.eye(2), chosen=[1, 0], rejected=[0, 1], group=["a", "b"], held_out=[False, True])
    with pytest.raises(DataError, match="b has no training pairs with two answers"):
        pulls_of(bare)


def test_gaps_are_levels_of_the_two_alone():
    """Equation 5 by hand, on unequal groups: weighted mean, weighted gaps."""
    found = feats()
    pulls = pulls_of(found)
    for couple, gap in gaps_of(found, [("a", "b"), ("c", "a")]).items():
        vectors = [pulls[name].vector for name in couple]
        sizes = np.array([pulls[name].pairs for name in couple])
        mean = (sizes[:, None] * vectors).sum(axis=0) / sizes.sum()
        longest = max(np.linalg.norm(vector) for vector in vectors)
        levels = [mean @ vector / np.linalg.norm(mean) / longest for vector in vectors]
        assert gap == pytest.approx(levels[0] - levels[1], rel=1e-9)


def test_the_gap_of_behaviours_of_equal_size_is_a_matter_of_three_lengths():
    """THEORY 2.6: the angle between two behaviours enters through the length of their mean alone."""
    found = feats()
    pulls = pulls_of(found)
    assert [pulls[name].pairs for name in "abc"] == [5, 5, 3]
    gaps = gaps_of(found, [("a", "b"), ("a", "c")])

    def of_lengths(one, other):
        vectors = (pulls[one].vector, pulls[other].vector, (pulls[one].vector + pulls[other].vector) / 2)
        return pairwise_priority_gap(*(float(np.linalg.norm(vector)) for vector in vectors))

    assert gaps["a", "b"] == pytest.approx(of_lengths("a", "b"), rel=1e-9)
    assert gaps["a", "c"] != pytest.approx(of_lengths("a", "c"), rel=1e-3)


def test_the_lead_is_how_much_further_the_first_has_fallen():
    rows = [
        {"run": "joint", "step": step, "group": name, "split": "train", "pairs": 1, "loss": LOG2 - fall}
        for name, end in (("a", 0.4), ("b", 0.2))
        for step, fall in ((0, 0.0), (20, end))
    ]
    found = lead(Trajectory.from_rows(rows, settings={}), ("a", "b"))
    assert found == pytest.approx({"early": 0.02, "area": 0.1, "late": 0.2, "fall": 0.15})
    assert higher_first(("a", "b"), 0.0) == ("a", "b")


def test_couples_are_drawn_once_each_by_the_seed():
    names = [f"n{place}" for place in range(20)]
    one, other = drawn(names, 0), drawn(names, 1)
    assert len(set(one)) == len(one) == MANY
    assert one == drawn(names, 0)
    assert one != other
    assert all(names.index(first) < names.index(second) for first, second in one)
