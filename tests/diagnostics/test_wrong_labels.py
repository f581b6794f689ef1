"""The share of wrong labels against labels turned round by lot."""

import numpy as np
import pytest
from scipy.special import expit

from prefdyn.diagnostics.wrong_labels import WrongShare, _profile, wrong_share


def margins(rate, seed, n=800, pace=4.0):
    rng = np.random.default_rng(seed)
    size = np.abs(rng.normal(size=n))
    right = rng.random(n) < expit(pace * size)
    return np.where(right ^ (rng.random(n) < rate), size, -size)


def told(*given) -> WrongShare:
    found = wrong_share(*given)
    assert found is not None
    return found


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.1, 0.2])
def test_intervals_hold_the_share(rate):
    found = [told(margins(rate, seed), [np.arange(800)], np.arange(800)) for seed in range(20)]
    held = np.mean([each.low <= rate + 1e-9 and rate <= each.high + 1e-9 for each in found])
    assert held >= 0.8
    assert np.mean([each.share for each in found]) == pytest.approx(rate, abs=0.02)
    if rate == 0:
        assert np.mean([each.low > 0 for each in found]) <= 0.1


def test_groups_learn_at_their_own_pace():
    slow, fast = margins(0.1, 0, pace=2.0), 50 * margins(0.1, 1, pace=8.0)
    both = np.concatenate([slow, fast])
    members = [np.arange(800), np.arange(800, 1600)]
    found = told(both, members, np.arange(1600))
    assert found.low <= 0.1 <= found.high


def test_the_profile_is_that_of_a_direct_search():
    r = margins(0.1, 3, n=300)
    size = np.abs(r) / np.median(np.abs(r))
    best = max(
        np.where(r > 0, np.log(p), np.log1p(-p)).sum()
        for pace in np.geomspace(0.5, 20, 400)
        for p in [0.1 + 0.8 * expit(pace * size)]
    )
    assert _profile(r)[20] == pytest.approx(best, abs=0.05)


def test_copies_count_once():
    r = margins(0.1, 4, n=300)
    once = wrong_share(r, [np.arange(300)], np.arange(300))
    copied = wrong_share(np.repeat(r, 5), [np.arange(1500)], np.repeat(np.arange(300), 5))
    assert once is not None
    assert copied is not None
    assert (copied.share, copied.low, copied.high) == pytest.approx((once.share, once.low, once.high), abs=1e-12)


def test_a_model_that_knows_nothing_tells_nothing():
    rng = np.random.default_rng(5)
    found = told(rng.normal(size=2000), [np.arange(2000)], np.arange(2000))
    assert found.high >= 0.45 or found.low == 0.0
    assert wrong_share(rng.normal(size=10), [np.arange(10)], np.arange(10)) is None
