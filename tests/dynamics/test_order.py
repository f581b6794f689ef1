"""The order of learning: areas, places, and correlations that say what chance would give."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from prefdyn.dynamics.order import learning_area, places, rank_correlation
from prefdyn.errors import ConfigError, DataError
from prefdyn.trajectory import Trajectory
from tests.naive.compare import spearman


def run_of(steps, losses, **change):
    row = {"run": "joint", "group": "a", "split": "train"} | change
    return Trajectory.from_rows(
        [row | {"step": step, "loss": loss} for step, loss in zip(steps, losses, strict=True)], settings={}
    )


def test_the_area_is_the_mean_loss_over_all_steps_however_they_were_recorded():
    steps = [0, 1, 2, 5, 20, 100]
    losses = [0.7, 0.6, 0.65, 0.4, 0.1, 0.3]
    every = np.interp(np.linspace(0, 100, 1_000_001), steps, losses).mean()
    assert learning_area(run_of(steps, losses), "a") == pytest.approx(every, abs=1e-6)
    assert learning_area(run_of(range(101), np.interp(range(101), steps, losses)), "a") == pytest.approx(
        every, abs=1e-6
    )


def test_an_area_needs_two_measured_steps_of_that_group_split_and_run():
    assert math.isnan(learning_area(run_of([0], [0.7]), "a"))
    assert math.isnan(learning_area(run_of([0, 1], [0.7, None]), "a"))
    found = run_of([0, 4], [1.0, 0.0], run="alone", split="held_out")
    assert math.isnan(learning_area(found, "a"))
    assert math.isnan(learning_area(found, "b", split="held_out", which="alone"))
    assert learning_area(found, "a", split="held_out", which="alone") == 0.5


@given(st.lists(st.one_of(st.just(math.nan), st.integers(-3, 3).map(float)), max_size=9))
def test_places_are_ranks_with_ties_at_the_better_one(values):
    values = np.array(values)
    known = ~np.isnan(values)
    found = places(values)
    assert (np.isnan(found) == ~known).all()
    np.testing.assert_array_equal(found[known], rankdata(values[known], method="min"))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12))
@settings(max_examples=50, deadline=None)
def test_the_correlation_is_spearmans_with_ties(pairs):
    first, second = np.array(pairs, dtype=float).T
    found = rank_correlation(first, second, resamples=20, permutations=20)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        assert math.isnan(found.value)
        assert f"all {len(pairs)} groups have the same value in one of the two" in found.because
    else:
        assert found.value == pytest.approx(spearmanr(first, second)[0], abs=1e-12)


def test_without_ties_it_is_the_formula_of_squared_differences():
    rng = np.random.default_rng(0)
    for size in (3, 5, 9):
        first, second = rng.random((2, size))
        assert rank_correlation(first, second).value == pytest.approx(spearman(first, second), abs=1e-12)


def test_p_counts_every_permutation_of_few_groups():
    rng = np.random.default_rng(1)
    for size in (3, 4, 5, 6):
        first, second = rng.random((2, size))
        value = abs(spearman(first, second)) - 1e-9
        every = [abs(spearman(first, order)) >= value for order in itertools.permutations(second)]
        assert rank_correlation(first, second).p_value == pytest.approx(np.mean(every), abs=1e-12)
    assert rank_correlation(np.arange(5.0), np.arange(5.0)).p_value == pytest.approx(2 / 120)


def test_p_of_more_groups_is_a_sample_of_them():
    """Critical value of the two-sided test at 5 % for 10 groups: 0.648 (Zar 1972, table of Spearman's coefficient)."""
    first = np.arange(10.0)
    over, under = np.array([0, 3, 4, 1, 2, 9, 5, 6, 8, 7.0]), np.array([3, 4, 0, 1, 2, 9, 8, 5, 6, 7.0])
    assert rank_correlation(first, over).value > 0.7
    assert rank_correlation(first, over, permutations=20_000).p_value < 0.05
    at = [rank_correlation(first, np.array(order, dtype=float)) for order in ([0, 1, 2, 6, 7, 8, 3, 4, 9, 5], under)]
    for found in at:
        assert (found.p_value < 0.05) == (found.value >= 0.648), found


@pytest.mark.thorough
def test_the_interval_is_the_middle_95_of_100_of_correlations_of_groups_drawn_anew():
    """Against an interval of draws made here: its ends are far from those of 90 or 98 of 100."""
    rng = np.random.default_rng(6)
    first = rng.normal(size=14)
    second = first + rng.normal(size=14)
    drawn = [spearmanr(first[rows], second[rows])[0] for rows in rng.integers(0, 14, (4000, 14))]
    found = rank_correlation(first, second, resamples=20_000)
    ends = {share: np.quantile(drawn, [(1 - share) / 2, (1 + share) / 2]) for share in (0.9, 0.95, 0.98)}
    assert [found.low, found.high] == pytest.approx(ends[0.95], abs=0.03)
    assert ends[0.98][0] + 0.06 < found.low < ends[0.9][0] - 0.06


def test_a_sampled_p_counts_the_order_found_among_those_that_chance_gives():
    """Of 99 shuffles of 20 groups none is as far as two equal orders, and yet p is 1 of 100: never 0."""
    first = np.arange(20.0)
    assert rank_correlation(first, first, permutations=99).p_value == 1 / 100
    assert rank_correlation(first, -first, permutations=99).p_value == 1 / 100
    assert rank_correlation(first, first[::-1].copy(), permutations=9).p_value == 1 / 10


@pytest.mark.thorough
def test_shuffled_groups_are_told_as_chance_and_a_real_order_is_not():
    """The control: of 200 random orders the interval misses 0 in about 10, and p is under 0.05 in about 10."""
    rng = np.random.default_rng(2)
    misses = small = found_it = 0
    for _ in range(200):
        first = rng.random(12)
        chance = rank_correlation(first, rng.permutation(first), resamples=400, permutations=400)
        misses += not chance.low <= 0 <= chance.high
        small += chance.p_value < 0.05
        real = rank_correlation(first, first + 0.15 * rng.random(12), resamples=400, permutations=400)
        found_it += (real.low > 0 or real.value == 1) and real.p_value < 0.05
    assert misses <= 20
    assert small <= 20
    assert found_it == 200


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ([], [], "no group is known in both runs, and an order takes 3"),
        ([1.0], [1.0], "1 group is known in both"),
        ([1.0, 2.0], [1.0, 2.0], "2 groups are known in both"),
        ([1.0, 2.0, math.nan, 4.0], [1.0, 2.0, 3.0, math.nan], "2 groups are known in both"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "all 3 groups have the same value"),
    ],
)
def test_too_few_groups_give_no_correlation_and_say_why(first, second, says):
    found = rank_correlation(np.array(first), np.array(second))
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert math.isnan(found.p_value)
    assert says in found.because
    assert str(found).startswith("none: ")


@pytest.mark.parametrize(("count", "least"), [(3, "0.33"), (4, "0.083")])
def test_three_or_four_groups_give_a_correlation_without_an_interval(count, least):
    found = rank_correlation(np.arange(float(count)), np.arange(float(count)))
    assert found.value == 1
    assert found.p_value == pytest.approx(2 / math.factorial(count))
    assert math.isnan(found.low)
    assert found.because == f"{count} groups are too few for an interval: even two equal orders have p = {least}"
    assert "no interval, p = " in str(found)


def test_two_equal_orders_give_no_interval_of_zero_width():
    found = rank_correlation(np.arange(8.0), np.exp(np.arange(8.0)))
    assert found.value == 1
    assert math.isnan(found.low)
    assert "every draw of groups gives 1.00" in found.because


def test_the_same_seed_gives_the_same_and_bad_counts_are_refused():
    first, second = np.random.default_rng(3).random((2, 9))
    assert rank_correlation(first, second, seed=4) == rank_correlation(first, second, seed=4)
    assert rank_correlation(first, second, seed=4) != rank_correlation(first, second, seed=5)
    with pytest.raises(DataError, match="two orders have 3 and 2 groups"):
        rank_correlation(np.arange(3.0), np.arange(2.0))
    with pytest.raises(ConfigError, match="resamples is 0"):
        rank_correlation(first, second, resamples=0)
    with pytest.raises(ConfigError, match="permutations is 0"):
        rank_correlation(first, second, permutations=0)
