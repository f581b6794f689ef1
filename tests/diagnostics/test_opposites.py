"""Opposite pairs: planted ones are found, noise has none, and neither blocks nor order nor scale changes the answer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.diagnostics.opposites import opposite_rows, opposites
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet

quick = settings(max_examples=20, deadline=None)


def of_rows(phi, seed=0, **more):
    """Responses whose pair features are `phi`."""
    lost = np.random.default_rng(seed).normal(size=np.shape(phi))
    return FeatureSet.from_arrays(chosen_features=lost + phi, rejected_features=lost, **more)


def noise(n, f=64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, f))


def naive_matches(rows, threshold):
    """Every pair of rows, one by one."""
    found = []
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            size = math.sqrt(sum(a * a for a in rows[i])) * math.sqrt(sum(b * b for b in rows[j]))
            cosine = sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) / size if size else 0.0
            if cosine <= threshold:
                found.append((cosine, i, j))
    return sorted(found)


def test_planted_opposites_are_found_most_opposite_first():
    phi = noise(60)
    phi[41] = -2.0 * phi[7]  # the swapped pair, with a larger gradient
    phi[12] = -phi[50] + 0.2 * noise(1, seed=1)[0]  # nearly
    phi[30] = phi[8]  # a copy with the same label is no opposite
    found = opposites(of_rows(phi))
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(7, 41), (12, 50)]
    assert found.cosine[0] == pytest.approx(-1.0, abs=1e-6)
    assert -0.999 < found.cosine[1] < -0.95
    assert (len(found), found.looked_at, found.of, found.threshold) == (2, 60, 60, -0.9)


def test_rows_name_the_ids():
    phi = noise(5)
    phi[3] = -phi[1]
    row = opposites(of_rows(phi, id=list("abcde"))).rows()[0]
    assert (row["first"], row["second"]) == ("b", "d")
    assert row["cosine"] == pytest.approx(-1.0, abs=1e-6)


def test_a_dataset_and_its_flipped_copy_are_opposites_pair_by_pair():
    feats = of_rows(noise(30))
    won, lost = feats.chosen_features, feats.rejected_features
    assert won is not None
    assert lost is not None
    found = opposites(
        FeatureSet.from_arrays(
            chosen_features=np.concatenate([won, lost]), rejected_features=np.concatenate([lost, won])
        )
    )
    assert sorted(found.first.tolist()) == list(range(30))
    np.testing.assert_array_equal(found.second - found.first, 30)


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_none(seed):
    """In 64 dimensions the cosine of two random rows has standard deviation 1/8."""
    found = opposites(of_rows(noise(500, seed=seed)))
    assert (len(found), found.looked_at) == (0, 500)
    assert found.rows() == []


@given(st.integers(0, 5000), st.integers(1, 40))
@quick
def test_blocks_are_one_block_and_the_loop_over_all_pairs(seed, block):
    rows = noise(37, f=3, seed=seed)
    rows[seed % 37] = 0.0
    whole = opposite_rows(rows, cosine=-0.8, block=100)
    parts = opposite_rows(rows, cosine=-0.8, block=block)
    expected = naive_matches(rows, -0.8)
    assert len(expected) > 5
    for first, second, values in (whole, parts):
        assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(i, j) for _, i, j in expected]
        np.testing.assert_allclose(values, [cosine for cosine, _, _ in expected], atol=1e-12)


def test_pairs_that_fill_several_blocks_equal_the_whole_matrix():
    phi = noise(2500, f=8)
    unit = phi / np.linalg.norm(phi, axis=1, keepdims=True)
    expected = np.argwhere(np.triu(unit @ unit.T, 1) <= -0.95)
    found = opposites(of_rows(phi), cosine=-0.95)
    assert len(expected) > 100
    assert sorted(zip(found.first, found.second, strict=True)) == [tuple(pair) for pair in expected]
    assert (np.diff(found.cosine) >= 0).all()


def test_pairs_without_a_feature_match_none():
    phi = noise(6)
    phi[:3] = 0.0
    phi[5] = -phi[4]
    found = opposites(of_rows(np.float32(phi), seed=3), cosine=-0.5)
    assert found.first.tolist() == [4]


def test_beyond_the_limit_a_seeded_sample_is_compared_and_says_so():
    phi = noise(200)
    phi[100:] = -phi[:100]
    feats = of_rows(phi)
    found = opposites(feats, limit=80)
    assert (found.looked_at, found.of) == (80, 200)
    assert 5 < len(found) < 40  # of 100, about 0.4² are in the sample
    np.testing.assert_array_equal(found.second - found.first, 100)
    np.testing.assert_array_equal(found.first, opposites(feats, limit=80).first)
    assert sorted(found.first.tolist()) != sorted(opposites(feats, limit=80, seed=1).first.tolist())
    assert len(opposites(feats, limit=200)) == 100


def test_settings_out_of_range_and_one_token_answers_are_refused():
    feats = of_rows(noise(4))
    with pytest.raises(ConfigError, match=r"cosine is 0\.5, but must lie between -1 and 0, ends excluded"):
        opposites(feats, cosine=0.5)
    with pytest.raises(ConfigError, match="limit is 1, but must be a whole number of at least 2"):
        opposites(feats, limit=1)
    answers = FeatureSet.from_arrays(np.eye(2), chosen=[0, 1], rejected=[1, 0])
    with pytest.raises(DataError, match="these features are of one-token answers"):
        opposites(answers)
