"""Intervals and adjustments against scipy and a step-down loop."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t

from prefdyn.diagnostics.inference import area_interval, holm, share_interval, wilson_interval
from tests.naive import diagnostics as naive


@given(st.integers(1, 500), st.data())
def test_wilson_equals_scipy(trials, data):
    successes = data.draw(st.integers(0, trials))
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_nothing_is_unknown():
    assert all(map(math.isnan, wilson_interval(0, 0)))
    assert all(map(math.isnan, wilson_interval(math.nan, 5)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_equals_the_step_down_loop_and_never_lowers_a_p(values):
    p = np.array(values)
    np.testing.assert_allclose(holm(p), naive.holm(values))
    assert (holm(p) >= p - 1e-15).all()


def test_holm_counts_known_values_only():
    np.testing.assert_array_equal(holm(np.array([np.nan, 0.02, np.nan])), [np.nan, 0.02, np.nan])
    assert len(holm(np.array([]))) == 0


# shares -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(0, 300))
def test_an_error_of_independent_pairs_gives_wilsons_interval(trials, successes):
    share = min(successes, trials) / trials
    error = math.sqrt(share * (1 - share) / trials)
    expected = wilson_interval(share * trials, trials)
    assert share_interval(share, trials, error) == pytest.approx(expected, abs=1e-9)
    assert share_interval(share, trials, 0.0) == pytest.approx(expected, abs=1e-9)


def test_twice_the_error_is_a_quarter_of_the_trials():
    assert share_interval(0.7, 400, 2 * math.sqrt(0.21 / 400)) == pytest.approx(wilson_interval(70, 100))
    assert all(map(math.isnan, share_interval(math.nan, 10, 0.1)))


@pytest.mark.parametrize("n", [20, 60, 200])
@pytest.mark.parametrize("truth", [0.5, 0.8, 0.95])
def test_the_interval_of_a_share_holds_it(n, truth):
    """Five copies of every pair in one unit: n units. Without the units' error the interval would be far too short."""
    rng = np.random.default_rng(n)
    held, short = 0, 0
    for _ in range(1000):
        right = (rng.random(n) < truth).astype(float)
        share = right.mean()
        low, high = share_interval(share, n, math.sqrt(share * (1 - share) / (n - 1)))
        held += low <= truth <= high
        low, high = wilson_interval(5 * right.sum(), 5 * n)
        short += low <= truth <= high
    assert 0.9 <= held / 1000 <= 0.985  # 0.924 is what Wilson's has at 20 and 0.95
    assert short / 1000 < 0.8


# areas --------------------------------------------------------------------------------------------------------------


def hanley_mcneil(area, counts):
    """Variance of an area with exponential scores, term by term; both classes at the mean of their numbers."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    size = (counts[0] + counts[1]) / 2
    top = area * (1 - area) + (size - 1) * (one - area**2) + (size - 1) * (two - area**2)
    return top / (counts[0] * counts[1])


@given(st.floats(0, 1), st.integers(2, 200), st.integers(2, 200), st.floats(0, 0.2))
@settings(max_examples=60, deadline=None)
def test_the_interval_of_an_area_holds_what_the_measured_one_does_not_speak_against(share, first, second, error):
    """Inversion: just inside either end the measured area is within its errors of the tried one, just outside not."""
    area = round(share * 2 * first * second) / (2 * first * second)  # as contests and draws give it
    low, high = area_interval(area, (first, second), error)
    own = hanley_mcneil(area, (first, second))
    times = (t.ppf(0.975, first + second - 2) / norm.ppf(0.975)) ** 2 * (max(1.0, error**2 / own) if own > 0 else 1)
    assert 0 <= low <= area <= high <= 1

    def spoken_against(tried):
        return abs(tried - area) > norm.ppf(0.975) * math.sqrt(times * hanley_mcneil(tried, (first, second)))

    step = 1 / 2000
    for end, outwards in ((low, -1), (high, 1)):
        outside = end + outwards * 1.01 * step
        if 0 < outside < 1:
            assert spoken_against(outside)
        inside = end - outwards * 1e-9
        if abs(end - area) > step:
            assert not spoken_against(inside)


def delong_error(up, down):
    """Standard error of an area from its placements."""
    wins = (up[:, None] > down).astype(float)
    return math.sqrt(wins.mean(axis=1).var(ddof=1) / len(up) + wins.mean(axis=0).var(ddof=1) / len(down))


@pytest.mark.parametrize(("n", "share"), [(20, 0.5), (60, 0.5), (200, 0.5), (200, 0.1)])
@pytest.mark.parametrize("truth", [0.5, 0.6, 0.8, 0.95])
def test_the_interval_of_an_area_holds_it(n, share, truth):
    """Binormal scores, classes equal and unequal: 95 % promised. Area ± 1.96 errors holds 0.95 far too rarely."""
    rng, gap = np.random.default_rng(n), math.sqrt(2) * norm.ppf(truth)
    first = round(share * n)
    held = 0
    for _ in range(600):
        up, down = rng.normal(gap, 1, first), rng.normal(0, 1, n - first)
        low, high = area_interval(float((up[:, None] > down).mean()), (first, n - first), delong_error(up, down))
        held += low <= truth <= high
    assert held / 600 >= 0.93


def test_an_area_of_one_has_a_lower_end_and_nothing_has_none():
    assert area_interval(1.0, (10, 10), 0.0)[0] < 0.9
    assert area_interval(0.0, (10, 10), 0.0)[1] > 0.1
    assert all(map(math.isnan, area_interval(math.nan, (10, 10), 0.1)))
    assert all(map(math.isnan, area_interval(0.7, (0, 10), 0.1)))
