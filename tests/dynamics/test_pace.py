"""Curves over common steps, their distance, and the one factor between two runs' time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.dynamics.pace import Curve, curve_error, mean_square, on_common_steps, rescaling
from tests.naive import compare as naive

LOG = np.array([0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 13, 16, 19, 23, 28, 33, 40, 48, 58, 69, 83, 100.0])


def falling(rate, steps=LOG, start=0.7, floor=0.1):
    return Curve(steps, floor + (start - floor) * np.exp(-rate * steps))


curves = st.lists(st.tuples(st.integers(1, 9), st.floats(-2, 2)), min_size=2, max_size=8).map(
    lambda rows: Curve(
        np.cumsum([row[0] for row in rows]).astype(float) - rows[0][0], np.array([row[1] for row in rows])
    )
)


@given(curves, curves, st.sampled_from([1.0, 0.3, 2.5]))
@settings(max_examples=40, deadline=None)
def test_errors_are_those_of_very_many_points(first, second, factor):
    found = curve_error([(first, second)], factor)
    rms, relative = naive.error(first, second, factor)
    assert found.rms == pytest.approx(rms, abs=1e-4)
    if not math.isnan(found.relative) and relative < 1e3:
        assert found.relative == pytest.approx(relative, rel=1e-3, abs=1e-3)


def test_the_mean_square_of_a_straight_line_is_a_third_of_its_end_squared():
    assert mean_square(np.array([0.0, 7.0]), np.array([0.0, 3.0])) == pytest.approx(3.0)
    assert mean_square(np.array([2.0, 3.0, 6.0]), np.array([2.0, 2.0, 2.0])) == pytest.approx(4.0)


def test_how_densely_a_straight_curve_was_recorded_changes_nothing():
    dense, sparse = np.arange(101.0), np.array([0.0, 100.0])
    other = Curve(dense, 0.5 - dense / 400)
    one = curve_error([(Curve(dense, 1 - dense / 200), other)])
    two = curve_error([(Curve(sparse, 1 - sparse / 200), other)])
    assert one.rms == pytest.approx(two.rms, abs=1e-12)
    assert one.relative == pytest.approx(two.relative, abs=1e-12)


def test_common_steps_are_those_of_both_within_what_both_cover():
    first, second = Curve(np.array([0.0, 5, 10]), np.zeros(3)), Curve(np.array([0.0, 4, 30]), np.arange(3.0))
    assert on_common_steps(first, second)[0].tolist() == [0, 4, 5, 10]
    assert on_common_steps(first, second, 2.0)[0].tolist() == [0, 2, 5, 10]
    assert on_common_steps(first, second, 10.0)[0].tolist() == [0, 0.4, 3]
    for none in (
        on_common_steps(first, second, math.nan),
        on_common_steps(first, Curve(np.zeros(0), np.zeros(0))),
        on_common_steps(first, Curve(np.array([10.0, 12]), np.zeros(2))),
    ):
        assert [len(part) for part in none] == [0, 0, 0]


def test_where_nothing_is_common_or_moves_the_error_says_so():
    still = Curve(LOG, np.full(len(LOG), 0.5))
    assert math.isnan(curve_error([(still, Curve(LOG + 200, LOG))]).rms)
    assert math.isnan(curve_error([]).rms)
    found = curve_error([(still, falling(0.1))])
    assert found.rms > 0
    assert math.isnan(found.relative)


def test_several_groups_count_the_same():
    pairs = [(falling(0.01), falling(0.02)), (falling(0.1), falling(0.3))]
    each = [curve_error([pair]).rms for pair in pairs]
    assert curve_error(pairs).rms == pytest.approx(math.sqrt((each[0] ** 2 + each[1] ** 2) / 2))


@given(st.lists(st.floats(0.003, 1.0), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_a_run_and_itself_have_factor_one_exactly(rates):
    found = rescaling([(falling(rate), falling(rate)) for rate in rates])
    assert found.factor == 1.0
    assert found.misfit == found.misfit_without == 0.0
    assert (found.share_first, found.share_second, found.at_edge) == (1.0, 1.0, False)


@pytest.mark.parametrize("stretch", [0.1, 0.37, 3.0, 12.5])
def test_a_copy_stretched_in_time_gives_back_the_stretch(stretch):
    pairs = [(falling(rate), Curve(LOG * stretch, falling(rate).values)) for rate in (0.02, 0.1, 0.3)]
    found = rescaling(pairs)
    assert found.factor == pytest.approx(stretch, rel=1e-6)
    assert found.misfit < 1e-10 < found.misfit_without
    assert found.share_first == pytest.approx(1, rel=1e-5)
    assert found.share_second == pytest.approx(1, rel=1e-5)
    assert not found.at_edge
    assert curve_error(pairs, found.factor).rms < 1e-6


@pytest.mark.parametrize("stretch", [0.25, 4.0])
def test_a_stretched_copy_recorded_at_its_own_steps_gives_it_back_nearly(stretch):
    """What straight lines between log-spaced steps cost: under two per cent of the factor."""
    pairs = [(falling(rate), falling(rate / stretch)) for rate in (0.02, 0.1, 0.3)]
    found = rescaling(pairs)
    assert found.factor == pytest.approx(stretch, rel=2e-2)
    assert found.share_first == pytest.approx(min(1, 1 / stretch), rel=1e-2)


def test_no_factor_on_a_fine_grid_has_a_smaller_misfit():
    """The naive twin, from very many points of every curve."""
    pairs = [(falling(0.05), falling(0.01, floor=0.3)), (falling(0.2), falling(0.08)), (falling(0.02), falling(0.02))]
    found = rescaling(pairs)
    assert found.misfit == pytest.approx(naive.misfit(pairs, found.factor), rel=1e-4)
    assert found.misfit_without == pytest.approx(naive.misfit(pairs, 1.0), rel=1e-4)
    tried = np.geomspace(0.1, 20, 60)
    misfits = [naive.misfit(pairs, factor) for factor in tried]
    assert found.misfit <= min(misfits) + 1e-6
    assert abs(math.log(found.factor / tried[int(np.argmin(misfits))])) < 2 * math.log(tried[1] / tried[0])


def test_a_run_that_stands_still_beside_the_other_is_flagged():
    assert rescaling([(falling(0.1), falling(0.00001))]).at_edge
    assert not rescaling([(falling(0.1), falling(0.02))]).at_edge


def test_without_steps_or_movement_there_is_no_factor_and_it_says_why():
    still = Curve(LOG, np.full(len(LOG), 0.7))
    short = Curve(np.array([0.0, 1.0]), np.array([0.7, 0.6]))
    assert rescaling([(still, still)]).because == "no loss moves in either run"
    assert rescaling([(falling(0.1), still)]).because == "no loss moves in the second run"
    assert rescaling([(still, falling(0.1))]).because == "no loss moves in the first run"
    assert rescaling([(short, falling(0.1))]).because == "no group was measured at 3 steps or more in both runs"
    assert rescaling([]).because == "no group was measured at 3 steps or more in both runs"
    late = Curve(np.array([0.0, 99, 100]), np.array([0.7, 0.5, 0.4]))
    assert rescaling([(late, late)]).factor == 1.0
    assert all(math.isnan(getattr(rescaling([]), name)) for name in ("factor", "misfit", "share_first"))
