"""Units: what is drawn for a null. Whole units trade labels; near-equal states are found, independent ones are not."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.diagnostics.units import near_equal, relabelled, units
from prefdyn.features import FeatureSet
from prefdyn.maths.units import in_order, joined, sums

quick = settings(max_examples=40, deadline=None)


def rng(seed=0):
    return np.random.default_rng(seed)


# relabelling --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(0, 10_000))
@quick
def test_both_classes_keep_their_numbers_and_units_may_be_of_any_size(sizes, seed):
    unit = rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    positive = rng(seed + 1).random(len(unit)) < 0.4
    drawn = relabelled(positive, unit, 30, rng(seed))
    assert drawn.shape == (30, len(unit))
    assert (drawn.sum(axis=1) == positive.sum()).all()


@given(st.integers(5, 9), st.integers(1, 4), st.integers(0, 10_000))
@quick
def test_units_of_one_size_trade_labels_whole(count, size, seed):
    """Every drawn row is a permutation of the units' own label patterns, each in its order."""
    unit = rng(seed).permutation(np.repeat(np.arange(count), size))
    positive = rng(seed + 1).random(len(unit)) < 0.5
    members = [np.flatnonzero(unit == name) for name in range(count)]
    own = Counter(tuple(positive[rows]) for rows in members)
    for row in relabelled(positive, unit, 20, rng(seed)):
        assert Counter(tuple(row[rows]) for rows in members) == own


@pytest.mark.parametrize("sizes", [[2] * 5, [1] * 6, [1, 2, 2], [1, 3]])
def test_every_permutation_of_blocks_is_drawn_and_equally_often(sizes):
    """Tiny cases by enumeration. Of one size: patterns over units. Of several: one row of units laid over another."""
    unit = np.repeat(np.arange(len(sizes)), sizes)
    labels = [True, False, True, True, False, False, True, False, False, True]
    positive = np.array(labels[: len(unit)])
    blocks = [positive[unit == name].tolist() for name in range(len(sizes))]
    expected = Counter(tuple(itertools.chain.from_iterable(order)) for order in itertools.permutations(blocks))
    total = sum(expected.values())
    draws = 20_000
    found = Counter(tuple(row) for row in relabelled(positive, unit, draws, rng(3)).tolist())
    assert set(found) == set(expected)
    for row, times in expected.items():
        share = times / total
        assert abs(found[row] / draws - share) < 5 * np.sqrt(share * (1 - share) / draws)


def test_labels_of_one_per_unit_stay_one_per_unit():
    """Copies of a prompt with one label: no draw gives two labels to one unit, as drawing pairs would."""
    unit = np.repeat(np.arange(20), 5)
    positive = np.repeat(rng(1).permutation(np.arange(20) % 2 == 0), 5)
    for row in relabelled(positive, unit, 50, rng(0)):
        assert all(len(set(row[unit == name].tolist())) == 1 for name in range(20))


# near-equal states --------------------------------------------------------------------------------------------------


def states(kind, n, d, seed):
    return rng(seed).standard_t(2, size=(n, d)) if kind == "heavy" else rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize("d", [3, 64])
def test_nothing_is_found_among_independent_rows(kind, d):
    """Twenty seeds of 200 rows. By chance 1 % of such groups hold a couple; heavy tails crowd the middle."""
    found = [len(near_equal(states(kind, 200, d, seed))) for seed in range(20)]
    assert sum(count > 0 for count in found) <= 1, found


@pytest.mark.parametrize("d", [64, 300])
def test_copies_with_a_little_noise_are_found_and_nothing_else(d):
    """Every couple of five copies of a row, noise of a tenth; none between different rows."""
    for seed in range(20):
        of = np.arange(200) % 40
        x = states("normal", 40, d, seed)[of] + 0.1 * rng(seed + 100).normal(size=(200, d))
        couples = {tuple(couple) for couple in near_equal(x).tolist()}
        expected = {(i, j) for i in range(200) for j in range(i + 1, 200) if of[i] == of[j]}
        assert couples == expected


def test_rows_that_are_all_one_have_no_couples():
    assert near_equal(np.ones((8, 3))).shape == (0, 2)


def test_near_equal_couples_equal_a_loop_over_all_couples():
    """In blocks as in one: 1,100 rows, of which a few are copies."""
    x = states("normal", 1100, 20, 0)
    x[1050:1060], x[30:35] = x[:10] + 0.01, x[1090:1095] - 0.01
    expected = {(i, 1050 + i) for i in range(10)} | {(30 + i, 1090 + i) for i in range(5)}
    assert {tuple(couple) for couple in near_equal(x).tolist()} == expected


# units --------------------------------------------------------------------------------------------------------------


def two_answers(x, **more):
    n = len(x)
    return FeatureSet.from_arrays(x, chosen=np.arange(n) % 2, rejected=1 - np.arange(n) % 2, **more)


def test_units_chain_clusters_and_near_equal_states_within_groups_only():
    """Pairs 0 and 1 share a prompt, 1 and 2 near-equal states: one unit. Copies in another group are another unit."""
    x = states("normal", 40, 64, 0)
    x[2] = x[1] + 0.01
    x[20:] = x[:20]  # the other group holds the same states
    text = np.arange(40)
    text[1] = 0
    found = units(two_answers(x, text=text, group=["a"] * 20 + ["b"] * 20))
    assert found[0] == found[1] == found[2]
    assert found[21] == found[22]
    assert len(np.unique(found)) == 40 - 2 - 1


def test_units_of_longer_responses_are_the_clusters():
    x = np.repeat(states("normal", 10, 64, 0), 2, axis=0)
    feats = FeatureSet.from_arrays(chosen_features=x, rejected_features=0 * x, text=np.arange(20) // 4)
    np.testing.assert_array_equal(units(feats), feats.cluster)


@given(st.integers(0, 10_000))
@quick
def test_joined_equals_closing_over_both_by_hand(seed):
    first, second = rng(seed).integers(0, 12, 20), rng(seed + 1).integers(0, 12, 20)
    found = joined(first, second)
    linked = (first[:, None] == first) | (second[:, None] == second)
    for _ in range(20):
        linked = linked @ linked
    np.testing.assert_array_equal(found[:, None] == found, linked)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=15))
@quick
def test_dense_numbers_by_first_appearance(names):
    seen: dict[int, int] = {}
    assert in_order(np.array(names)).tolist() == [seen.setdefault(name, len(seen)) for name in names]


@given(st.integers(0, 10_000), st.sampled_from([(), (3,)]))
@quick
def test_sums_equal_the_loop(seed, shape):
    unit = in_order(rng(seed).integers(0, 6, 15))
    values = rng(seed + 1).normal(size=(15, *shape))
    expected = [sum(values[i] for i in range(15) if unit[i] == name) for name in range(unit.max() + 1)]
    np.testing.assert_allclose(sums(values, unit), expected)
    np.testing.assert_array_equal(sums(values, np.arange(15)), values)
