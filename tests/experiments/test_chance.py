"""Tests over units against scipy, and by lot: where nothing is there, one in twenty holds and not one in three."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from prefdyn.experiments.chance import by_leaving_out, by_order, by_repetition, by_sign, ranks
from scripts.claims_by_lot import CASES, beyond, shares

stats: Any = scipy.stats
RNG = np.random.default_rng(0)


def test_signs_are_all_counted_and_by_lot_where_they_are_many():
    values = RNG.normal(0.5, 1.0, 6)
    exact = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert by_sign(values).p == pytest.approx(exact.pvalue)
    many = RNG.normal(0.4, 1.0, 40)
    assert by_sign(many).p == pytest.approx(stats.ttest_1samp(many, 0, alternative="greater").pvalue, abs=0.01)
    assert np.isnan(by_sign(np.array([1.0, np.nan])).p)


def test_orders_are_all_counted_and_by_lot_where_they_are_many():
    x, y = RNG.normal(size=(2, 6))
    exact = stats.permutation_test(
        (y,), lambda each: stats.spearmanr(x, each).statistic, permutation_type="pairings", alternative="greater",
        n_resamples=np.inf,
    )  # fmt: skip
    assert by_order(x[None], y[None]).p == pytest.approx(exact.pvalue)
    assert by_order(x[None], -y[None], sign=-1).p == pytest.approx(exact.pvalue)
    x, y = RNG.normal(size=(2, 40)) + RNG.normal(size=40)
    assert by_order(x[None], y[None]).p == pytest.approx(stats.spearmanr(x, y, alternative="greater").pvalue, abs=0.005)


def test_repetitions_are_one_mean_and_ties_share_a_rank():
    x, y = RNG.normal(size=(2, 5))
    same = by_order(np.tile(x, (3, 1)), np.tile(y, (3, 1)))
    assert same == by_order(x[None], y[None])
    assert ranks(np.array([[1.0, 1.0, 2.0]]))[0] == pytest.approx(np.array([-0.5, -0.5, 1.0]) / np.sqrt(1.5))
    assert ranks(np.array([[1.0, 1.0, 1.0]])).tolist() == [[0.0, 0.0, 0.0]]
    assert by_order(np.ones((1, 5)), y[None, :5]).p == 1.0


def test_a_jackknifed_mean_is_students_t():
    values = RNG.normal(0.3, 1.0, 9)
    found = by_leaving_out(lambda kept: float(np.mean(values[list(kept)])), range(9))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").pvalue)
    assert by_repetition(values.tolist()).p == pytest.approx(found.p)
    assert by_repetition([1.0, 1.0, 1.0]).p == 0
    assert by_repetition([0.0, 0.0]).p == 0.5
    assert np.isnan(by_repetition([1.0]).p)
    assert np.isnan(by_leaving_out(lambda kept: 1.0, range(2)).p)


@pytest.mark.parametrize(("case", "repetitions"), [
    (case, 40 if "couples" in case.says else 150) for case in CASES
    if "28" not in case.says and "mean lead" not in case.says
], ids=lambda each: each.says if hasattr(each, "says") else "")  # fmt: skip
def test_where_nothing_is_there_claims_hold_in_one_case_of_twenty(case, repetitions):
    """0.05 and three standard errors of as many draws; an interval over repetitions alone goes far beyond it."""
    today, old = shares(case, noise=0.05, there=0.0, repetitions=repetitions, seed=1)
    limit = 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
    assert today <= limit
    assert old > limit or case.claim.threshold
    there, _ = shares(case, noise=0.05, there=case.something, repetitions=repetitions // 3, seed=1)
    assert there > 0.4


def test_a_twin_drawn_by_the_same_law_is_seldom_passed():
    assert beyond(CASES[0], noise=0.1, repetitions=150) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
