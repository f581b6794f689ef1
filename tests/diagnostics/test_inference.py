"""Intervals and adjustments against scipy and a step-down loop."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from prefdyn.diagnostics.inference import holm, wilson_interval
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
