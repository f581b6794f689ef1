"""FeatureSet and Trajectory: what they refuse, what they select, and what they never do."""

from dataclasses import fields

import numpy as np
import pytest

from prefdyn.errors import DataError
from prefdyn.features import FeatureSet, describe
from prefdyn.synthetic import gaussian_groups
from prefdyn.trajectory import SCHEMA, Trajectory

GOOD = {"features": np.eye(3), "chosen": ["a", "b", "a"], "rejected": ["b", "a", "c"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": None}, "was given no features"),
        ({"features": np.zeros((0, 3)), "chosen": [], "rejected": []}, "was given 0 pairs"),
        ({"chosen": ["a", "b"]}, "chosen has 2 values for 3 pairs"),
        ({"rejected": None}, "rejected is missing"),
        ({"rejected": ["a", "a", "c"]}, "row 0: chosen and rejected are both 'a'"),
        ({"features": np.full((3, 2), np.nan)}, "features has 3 rows with NaN or infinity, the first is row 0"),
        ({"features": np.zeros(3)}, r"features has shape \(3,\)"),
        ({"id": ["x", "x", "y"]}, "ids repeat: 3 pairs have 2 different ids"),
        ({"weight": [1, 0, 1]}, "weights must be finite and above 0, the smallest is 0.0"),
        ({"tokens": ["a", "b"]}, r"answer 'c' is not among tokens=\['a', 'b'\]"),
        ({"group": ["one"]}, "group has 1 values for 3 pairs"),
    ],
)
def test_arrays_that_cannot_mean_pairs_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        FeatureSet.from_arrays(**(GOOD | change))


def test_responses_need_both_sides():
    with pytest.raises(DataError, match="must both be given, with the same shape"):
        FeatureSet.from_arrays(chosen_features=np.eye(2), rejected_features=np.eye(3)[:2])


def test_states_of_responses_are_chosen_minus_rejected_and_turn_with_the_labels():
    psi, own = np.random.default_rng(0).normal(size=(2, 4, 3)), np.arange(12.0).reshape(4, 3)
    feats = FeatureSet.from_arrays(chosen_features=psi[0], rejected_features=psi[1])
    np.testing.assert_allclose(feats.states, psi[0] - psi[1], rtol=1e-5)
    given = FeatureSet.from_arrays(own, chosen_features=psi[0], rejected_features=psi[1], chosen_states=2 * own + 1)
    np.testing.assert_array_equal(given.states, own)
    turned = given.flipped()
    np.testing.assert_array_equal(turned.states, -own)
    assert turned.chosen_states is not None
    np.testing.assert_array_equal(turned.chosen_states, own + 1)  # what was the rejected one's
    assert turned.chosen_features is given.rejected_features
    np.testing.assert_array_equal(turned.flipped().chosen_states, 2 * own + 1)


@pytest.mark.parametrize("kind", ["answers", "responses"])
def test_some_pairs_change_sides_and_the_others_stay(kind):
    """Every array is that of the whole set changed over where it was asked for, and as before elsewhere."""
    rng, turn = np.random.default_rng(1), np.array([True, False, True])
    lengths = {"chosen_length": [1, 2, 3], "rejected_length": [4, 5, 6], "ref_chosen_logps": [-1.0, -2, -3]}
    if kind == "responses":
        psi = rng.normal(size=(2, 3, 4)).astype(np.float32)
        feats = FeatureSet.from_arrays(
            rng.normal(size=(3, 2)), chosen_features=psi[0], rejected_features=psi[1],
            chosen_states=rng.normal(size=(3, 2)), ref_rejected_logps=[-4.0, -5, -6], **lengths,
        )  # fmt: skip
    else:
        feats = FeatureSet.from_arrays(**GOOD, ref_rejected_logps=[-4.0, -5, -6], **lengths)
    some, every = feats.flipped(turn), feats.flipped()
    for item in fields(feats):
        before, after = getattr(feats, item.name), getattr(every, item.name)
        if isinstance(before, np.ndarray):
            expected = [(after if turned else before)[row] for row, turned in enumerate(turn)]
            np.testing.assert_array_equal(getattr(some, item.name), expected, err_msg=item.name)
    assert not np.array_equal(some.chosen_length, feats.chosen_length)
    np.testing.assert_array_equal(some.flipped(turn).states, feats.states)


def test_a_side_that_is_known_of_no_pair_stays_unknown_where_some_change_over():
    feats = FeatureSet.from_arrays(**GOOD, ref_chosen_logps=[-1.0, -2, -3])
    assert feats.flipped(np.array([True, False, False])).ref_rejected_logps is None
    np.testing.assert_array_equal(feats.flipped().ref_rejected_logps, [-1.0, -2, -3])


def test_selection_keeps_codes_and_arrays_are_read_only():
    feats = FeatureSet.from_arrays(**GOOD, group=["u", "v", "u"])
    part = feats.select(feats.members("v"))
    assert (part.groups, part.group.tolist(), part.id.tolist()) == (("u", "v"), [1], ["1"])
    assert part.tokens == ("a", "b", "c")
    with pytest.raises(ValueError, match="read-only"):
        feats.states[0, 0] = 1.0


def test_signs_exist_only_where_a_group_has_two_answers():
    feats = FeatureSet.from_arrays(
        np.eye(5), chosen=["a", "b", "a", "b", "c"], rejected=["b", "a", "c", "c", "b"], group=["x", "x", "y", "y", "y"]
    )
    signs = feats.signs("x")
    assert signs is not None
    assert signs.tolist() == [1, -1]
    assert feats.signs("y") is None


def test_answer_log_probs_come_from_the_head_rows():
    """log-softmax over the whole vocabulary, restricted to the tokens that occur, with a bias."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(4, 3)).astype(np.float32)
    head, bias = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    logits = states.astype(float) @ head.T.astype(float) + bias
    log_probs = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    chosen, rejected = np.array([0, 2, 4, 0]), np.array([2, 4, 0, 4])
    rows = np.arange(4)
    feats = FeatureSet.from_arrays(
        states, chosen=chosen, rejected=rejected, tokens=[0, 2, 4], head=head[[0, 2, 4]], head_bias=bias[[0, 2, 4]],
        ref_chosen_logps=log_probs[rows, chosen], ref_rejected_logps=log_probs[rows, rejected],
    )  # fmt: skip
    found = feats.answer_log_probs()
    assert found is not None
    np.testing.assert_allclose(found, log_probs[:, [0, 2, 4]], atol=1e-6)
    assert describe(feats)["answers"] == ["0", "2", "4"]


def test_synthetic_groups_have_the_gaps_they_were_asked_for():
    """Class means of a group lie 2 h apart along its own direction, the offset is shared, the noise has its size."""
    feats = gaussian_groups([4000, 2000], groups=2, width=6, noise=0.5, half_gap=[1.0, 2.0], shared_norm=3.0)
    for code, gap in enumerate((1.0, 2.0)):
        rows, signs = feats.members(code), feats.signs(code)
        assert signs is not None
        states = feats.states[rows].astype(float)
        difference = states[signs > 0].mean(axis=0) - states[signs < 0].mean(axis=0)
        np.testing.assert_allclose(difference, 2 * gap * np.eye(2, 6, k=1)[code], atol=0.1)
        np.testing.assert_allclose(states.mean(axis=0)[0], 3.0, atol=0.05)
        assert np.std(states[signs > 0], axis=0) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(DataError, match="width 2 holds no 2 directions"):
        gaussian_groups(10, groups=2, width=2)
    with pytest.raises(DataError, match=r"directions has shape \(1, 2\)"):
        gaussian_groups(10, groups=2, width=2, directions=np.eye(1, 2))


def test_a_trajectory_knows_its_columns_and_its_missing_groups():
    rows = [
        {"run": "joint", "step": step, "group": "g", "split": "train", "pairs": 2, "loss": 0.5 - step}
        for step in (0, 1)
    ]
    run = Trajectory.from_rows(rows, settings={})
    assert run.table.schema == SCHEMA
    steps, losses = run.curve("loss", group="g")
    assert (steps.tolist(), losses.tolist()) == ([0, 1], [0.5, -0.5])
    assert np.isnan(run.curve("margin", group="g")[1]).all()  # never measured: null, not 0
    assert np.isnan(run.final("loss", group="g", split="held_out"))
    with pytest.raises(DataError, match="no rows for run 'joint', group 'h'"):
        run.curve("loss", group="h")
    with pytest.raises(DataError, match="a trajectory needs the columns"):
        Trajectory(table=run.table.select(["run"]), settings={})
