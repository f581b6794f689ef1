"""Numbers over seeds: the interval is Student's, holds the truth as often as it says, and is not there for one."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from prefdyn.dynamics.order import spearman
from prefdyn.errors import DataError
from prefdyn.experiments.statistics import at_step, difference, over_seeds


def test_the_interval_is_that_of_students_t():
    values = [0.3, 0.9, 0.4, 0.7]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    found = over_seeds(values)
    assert (found.value, found.seeds) == (pytest.approx(0.575), 4)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_three_seeds_hold_the_true_mean_in_95_of_100_draws():
    rng = np.random.default_rng(0)
    inside = [
        found.low <= 2.0 <= found.high for found in (over_seeds(rng.normal(2, 5, 3).tolist()) for _ in range(4000))
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.012)  # three standard errors of the share


def test_a_seed_without_a_number_is_left_out_and_one_alone_has_no_interval():
    assert over_seeds([0.5, math.nan, 0.7]).seeds == 2
    alone = over_seeds([math.nan, 0.7])
    assert (alone.value, alone.seeds, math.isnan(alone.low)) == (0.7, 1, True)
    assert str(over_seeds([math.nan])) == "not measured"
    assert over_seeds([]).to_json() == {"value": None, "low": None, "high": None, "seeds": 0}


def test_ends_stop_at_what_the_number_can_be():
    found = over_seeds([0.9, 1.0, 0.7], least=-1, most=1)
    assert found.high == 1.0
    assert found.low > -1


def test_pairing_takes_out_what_seeds_share():
    """Two columns that differ by a constant differ by it exactly, however far apart the seeds are."""
    one = [1.0, 50.0, -3.0]
    found = difference([value + 0.25 for value in one], one)
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(DataError, match="2 and 1 seeds cannot be compared"):
        difference([1.0, 2.0], [1.0])


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(1)
    for count in (3, 5, 9):
        one, other = rng.normal(size=(2, count))
        theirs: Any = stats.spearmanr(one, other)
        assert spearman(one.tolist(), other.tolist()) == pytest.approx(theirs.statistic)
    assert math.isnan(spearman([1.0, 2.0], [2.0, 1.0]))


def test_a_curve_is_straight_between_its_recorded_steps():
    steps, values = np.array([0, 4, 10]), np.array([1.0, 0.0, 3.0])
    assert [at_step(steps, values, step) for step in (0, 2, 7, 10)] == [1.0, 0.5, 1.5, 3.0]
    with pytest.raises(DataError, match="step 11 is outside the recorded steps 0 to 10"):
        at_step(steps, values, 11)
