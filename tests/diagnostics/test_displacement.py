"""CHES against the printed definition and its laws; pushes and shares per group against explicit loops."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from prefdyn.diagnostics.displacement import band, bands, ches, displacement
from prefdyn.diagnostics.prioritization import pair_pushes
from prefdyn.errors import DataError
from prefdyn.features import FeatureSet

quick = settings(max_examples=20, deadline=None)


def naive_ches(chosen_tokens, rejected_tokens):
    """The definition, token by token: sums of inner products over all pairs of tokens, divided by their number."""
    between = sum(sum(a * b for a, b in zip(h, g, strict=True)) for h in chosen_tokens for g in rejected_tokens)
    within = sum(sum(a * b for a, b in zip(h, g, strict=True)) for h in chosen_tokens for g in chosen_tokens)
    return between / (len(chosen_tokens) * len(rejected_tokens)) - within / len(chosen_tokens) ** 2


def mean_states(seed, n=7, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + 1, rng.normal(size=(n, d)) + 1


def responses(seed, n=12, d=5, f=6, groups=3, states=True):
    rng = np.random.default_rng(seed)
    won, lost = rng.normal(size=(2, n, f))
    high, low = rng.normal(size=(2, n, d)).astype(np.float32)
    return FeatureSet.from_arrays(
        high - low if states else None,
        chosen_features=won,
        rejected_features=lost,
        chosen_states=high if states else None,
        group=np.arange(n) % groups,
        held_out=np.arange(n) >= n - 3,
    )


# CHES ---------------------------------------------------------------------------------------------------------------


def test_a_score_computed_by_hand():
    """Chosen: tokens (1, 2) and (3, 0), mean (2, 1). Rejected: (4, -1). 8 - 1 - (4 + 1) = 2."""
    assert ches(np.array([[2.0, 1.0]]), np.array([[2.0 - 4, 1.0 + 1]])).tolist() == [2.0]
    assert naive_ches([(1, 2), (3, 0)], [(4, -1)]) == 2.0


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_the_definition_token_by_token(seed):
    rng = np.random.default_rng(seed)
    tokens = [(rng.normal(size=(a, 6)) + 1, rng.normal(size=(b, 6)) + 1) for a, b in rng.integers(1, 9, (5, 2))]
    high = np.array([won.mean(axis=0) for won, _ in tokens])
    low = np.array([lost.mean(axis=0) for _, lost in tokens])
    expected = [naive_ches(won, lost) for won, lost in tokens]
    np.testing.assert_allclose(ches(high, high - low), expected, rtol=1e-10)


@given(st.integers(0, 5000), st.floats(0.01, 100))
@quick
def test_scores_ignore_rotation_and_scale_with_the_square(seed, scale):
    high, low = mean_states(seed)
    found = ches(high, high - low)
    rotation = ortho_group.rvs(5, random_state=seed)
    np.testing.assert_allclose(ches(high @ rotation, (high - low) @ rotation), found, atol=1e-10)
    np.testing.assert_allclose(ches(scale * high, scale * (high - low)), scale**2 * found, rtol=1e-10)


@given(st.integers(0, 5000))
@quick
def test_swapping_sides_mirrors_the_score_about_half_the_distance(seed):
    """<a, b> - |a|² and <b, a> - |b|² add up to -|a - b|²."""
    high, low = mean_states(seed)
    both = ches(high, high - low) + ches(low, low - high)
    np.testing.assert_allclose(both, -(np.linalg.norm(high - low, axis=1) ** 2), rtol=1e-10)


def test_the_same_state_on_both_sides_scores_zero_and_a_longer_rejected_one_more():
    high = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    low = np.array([1.0, 3.0, 0.5])[:, None] * high
    np.testing.assert_allclose(ches(high, high - low), [0.0, 10.0, -2.5])


def test_scores_of_float32_states_are_summed_in_float64():
    """2^13 squared is 2^26, to which float32 cannot add 1; states of 2^70 overflow it."""
    states = np.array([[2.0**13, 1.0], [2.0**70, 1.0]], dtype=np.float32)
    found = ches(states, states)
    assert found.dtype == np.float64
    assert found.tolist() == [-(2.0**26) - 1, -(2.0**140)]


# displacement -------------------------------------------------------------------------------------------------------


def test_rows_equal_explicit_means_over_each_group():
    feats = responses(0)
    pushes = pair_pushes(feats, beta=0.1, learning_rate=1.0)
    found = displacement(feats, pushes)
    assert feats.chosen_states is not None
    scores = [
        naive_ches([won], [won - gap])
        for won, gap in zip(feats.chosen_states.astype(float), feats.states.astype(float), strict=True)
    ]
    assert found.ches is not None
    np.testing.assert_allclose(found.ches, scores, atol=1e-12)
    for code, row in enumerate(found.rows()):
        rows = [i for i in range(12) if i % 3 == code]
        assert row["name"] == str(code)
        assert pushes.chosen_push is not None
        assert pushes.rejected_push is not None
        assert row["chosen_push"] == pytest.approx(sum(pushes.chosen_push[i] for i in rows) / 4)
        assert row["rejected_push"] == pytest.approx(sum(pushes.rejected_push[i] for i in rows) / 4)
        assert row["chosen_falls_first"] == sum(pushes.chosen_push[i] < 0 for i in rows) / 4
        assert row["ches"] == pytest.approx(sum(scores[i] for i in rows) / 4)


def test_responses_that_share_their_gradient_fall_together_and_others_do_not():
    """ψ(rejected) = 3 ψ(chosen): what lowers the one lowers the other. ψ(rejected) = -ψ(chosen): it raises it."""
    won = np.tile(np.eye(2), (4, 1))
    lost = np.tile([[3.0, 0], [0, -1]], (4, 1))
    feats = FeatureSet.from_arrays(
        won - lost, chosen_features=won, rejected_features=lost, chosen_states=won, group=["falls", "rises"] * 4
    )
    falls, rises = displacement(feats, pair_pushes(feats, beta=1.0, learning_rate=1.0)).rows()
    assert (falls["chosen_falls_first"], rises["chosen_falls_first"]) == (1.0, 0.0)
    assert falls["rejected_push"] == pytest.approx(3 * falls["chosen_push"])
    assert rises["rejected_push"] == pytest.approx(-rises["chosen_push"])
    assert falls["ches"] > 0 > rises["ches"]


# the band -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(-3, 3))
@quick
def test_the_band_tells_which_side_rises_under_any_slopes(seed, log_slopes):
    """One step on a group's mean gradients, and what both mean log-probabilities do, to first order."""
    rng = np.random.default_rng(seed)
    chosen, rejected = rng.normal(size=4) + 1, np.exp(rng.normal()) * (rng.normal(size=4) + 1)
    step = np.exp(log_slopes) * chosen - rejected
    rises, falls = chosen @ step > 0, rejected @ step < 0
    expected = {(True, True): "apart", (False, True): "chosen falls", (True, False): "rejected rises"}[rises, falls]
    assert band(chosen, rejected).says(log_slopes) == expected


def test_no_step_lowers_the_chosen_and_raises_the_rejected():
    """That needs d_w / d_l below the low end and above the high end at once; log rho <= 0 keeps them in order."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        found = band(*rng.normal(size=(2, 3)))
        assert found.low <= found.high


@pytest.mark.parametrize("per_token", [False, True])
def test_bands_of_groups_are_those_of_weighted_training_means(per_token):
    rng = np.random.default_rng(3)
    won, lost = rng.normal(size=(2, 30, 5)) + 0.7
    lengths, weight = rng.integers(1, 9, (2, 30)), rng.uniform(0.5, 2, 30)
    feats = FeatureSet.from_arrays(
        chosen_features=won, rejected_features=lost, group=np.arange(30) % 2, held_out=np.arange(30) > 24,
        weight=weight, chosen_length=lengths[0], rejected_length=lengths[1], cluster=np.arange(30) // 6,
    )  # fmt: skip
    for code, found in enumerate(bands(feats, per_token=per_token)):
        rows = [i for i in range(25) if i % 2 == code]
        chosen, rejected = (
            np.sum([feats.weight[i] * side[i] / (by[i] if per_token else 1) for i in rows], axis=0)
            for side, by in ((feats.chosen_features, lengths[0]), (feats.rejected_features, lengths[1]))
            if side is not None
        )
        expected = band(chosen, rejected)
        assert found is not None
        assert (found.low, found.high, found.cosine) == pytest.approx((expected.low, expected.high, expected.cosine))


def test_a_band_far_from_its_ends_is_stable_and_one_at_an_end_is_not():
    rng = np.random.default_rng(1)
    won = rng.normal(size=(200, 6), loc=np.eye(6)[0] * 4)
    sides = {
        "far": rng.normal(size=(200, 6), loc=np.eye(6)[0] * 12),
        "at an end": won + rng.normal(size=(200, 6)),
    }
    shares = {}
    for name, lost in sides.items():
        feats = FeatureSet.from_arrays(chosen_features=won, rejected_features=lost)
        (found,) = bands(feats)
        assert found is not None
        shares[name] = found.stability
    assert shares["far"] == 1.0
    assert 0.2 < shares["at an end"] < 0.95


def test_the_first_step_of_a_group_alone_does_what_its_band_says():
    """The pushes of a single group leave each pair's own pull in: their mean has the sign of the band."""
    for seed in range(20):
        feats = responses(seed, groups=1, states=False)
        whole = FeatureSet.from_arrays(chosen_features=feats.chosen_features, rejected_features=feats.rejected_features)
        pushed = pair_pushes(whole, beta=1.0, learning_rate=1.0)
        (found,) = bands(whole)
        assert found is not None
        assert pushed.chosen_push is not None
        assert (pushed.chosen_push.mean() < 0) == (found.says() == "chosen falls")


def test_what_is_not_known_is_none():
    feats = responses(1, states=False)
    found = displacement(feats, pair_pushes(feats, beta=0.1, learning_rate=1.0))
    assert found.ches is None
    assert [row["ches"] for row in found.rows()] == [None] * 3
    assert all(isinstance(row["chosen_push"], float) for row in found.rows())
    answers = FeatureSet.from_arrays(np.eye(3), chosen=[0, 1, 2], rejected=[1, 2, 0])
    row = displacement(answers, pair_pushes(answers, beta=0.1, learning_rate=1.0)).rows()[0]
    assert row.pop("name") == "all"
    assert len(row) == 14
    assert set(row.values()) == {None}


def test_a_group_without_pairs_has_no_means():
    feats = responses(2)
    part = feats.select(feats.group != 1)
    rows = displacement(part, pair_pushes(part, beta=0.1, learning_rate=1.0)).rows()
    assert [row["name"] for row in rows] == ["0", "1", "2"]
    assert [value for key, value in rows[1].items() if key != "name"] == [None] * 14
    assert rows[2]["ches"] is not None
    json.dumps(rows, allow_nan=False)


def test_swapping_sides_swaps_the_scores():
    feats = responses(3)
    first, second = (displacement(f, pair_pushes(f, beta=0.1, learning_rate=1.0)) for f in (feats, feats.flipped()))
    assert first.ches is not None
    assert second.ches is not None
    np.testing.assert_allclose(first.ches + second.ches, -(np.linalg.norm(feats.states, axis=1) ** 2), rtol=1e-5)


def test_pushes_of_other_pairs_are_refused():
    feats = responses(4)
    pushes = pair_pushes(feats, beta=0.1, learning_rate=1.0)
    with pytest.raises(
        DataError, match=r"the pushes are of 12 pairs and the features of 5; give the pushes that pair_"
    ):
        displacement(feats.select(slice(5)), pushes)


def test_two_opposed_units_are_two():
    """Resamples that hold one of them twice say the other thing."""
    won, lost = np.array([[1.0, 0.0], [4.0, 0.0]]), np.array([[4.0, 0.0], [1.0, 0.5]])
    (found,) = bands(FeatureSet.from_arrays(chosen_features=won, rejected_features=lost))
    assert found is not None
    assert 0 < found.stability < 1
