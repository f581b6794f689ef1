"""Which rankings a short run cannot turn round, and how each response of a pair moves, against trained heads."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.dynamics.descent import descent
from prefdyn.errors import ConfigError, DataError
from prefdyn.features import FeatureSet
from prefdyn.maths.objectives import DPO
from prefdyn.theory.value_scaling.failure_modes import flip_statement, flip_threshold, flips, response_rates
from prefdyn.theory.value_scaling.training import LOG3, noiseless_margin, noiseless_time
from tests.naive import heads

quick = settings(max_examples=50, deadline=None)


def test_thresholds_of_theory_3_8():
    """3^(1/beta) as powers of ten at .01, 59049 at .1, 9 at .5; nothing overflows where 3^(1/beta) would."""
    assert flip_threshold(beta=0.01) / math.log(10) == pytest.approx(47.712, abs=5e-4)
    assert math.exp(flip_threshold(beta=0.1)) == pytest.approx(59049)
    assert math.exp(flip_threshold(beta=0.5)) == pytest.approx(9)
    assert flip_threshold(beta=1e-4) == pytest.approx(10986.1229)
    with pytest.raises(OverflowError):
        math.exp(flip_threshold(beta=0.0015478))
    assert math.isfinite(math.exp(flip_threshold(beta=0.00154785)))


def test_the_margin_at_the_horizon_moves_far_less_than_log_3():
    """At s_1 = log 3/5 the margin is .208: e^20.8 = 1.1e9 at beta .01, 8.0 at .1; log 3 comes 7.05 times later."""
    real = float(noiseless_margin(LOG3 / 5))
    assert flip_threshold(real, beta=0.01) == pytest.approx(20.81, abs=0.005)
    assert math.exp(flip_threshold(real, beta=0.01)) == pytest.approx(1.1e9, rel=0.02)
    assert math.exp(flip_threshold(real, beta=0.1)) == pytest.approx(8.0, abs=0.02)
    assert float(noiseless_time(LOG3)) / (LOG3 / 5) == pytest.approx(7.051, abs=5e-4)
    assert 1 - real / LOG3 == pytest.approx(0.81, abs=0.002)  # of leads spread evenly up to log 3/beta


def trained(seed, steps=30, beta=0.2, rate=0.5):
    """A head trained by whole gradient steps; log-probabilities of each pair before and after."""
    rng = np.random.default_rng(seed)
    n, d, k = 24, 5, 4
    states, head = rng.normal(size=(n, d)), rng.normal(size=(k, d))
    chosen = rng.integers(k, size=n)
    rejected = (chosen + rng.integers(1, k, size=n)) % k
    rows = np.arange(n)

    def log_probs(weights):
        logits = states @ weights.T
        return logits - np.logaddexp.reduce(logits, axis=1)[:, None]

    reference = log_probs(head)
    for _ in range(steps):
        now = log_probs(head)
        lead = now[rows, chosen] - now[rows, rejected] - reference[rows, chosen] + reference[rows, rejected]
        for j in range(n):
            pull = rate * beta / n / (1 + math.exp(beta * lead[j]))
            head[chosen[j]] += pull * states[j]
            head[rejected[j]] -= pull * states[j]
    now = log_probs(head)
    sides = [array[rows, side] for array in (reference, now) for side in (chosen, rejected)]
    margins = beta * (sides[2] - sides[3] - sides[0] + sides[1])
    return states, chosen, rejected, sides, margins


@given(st.integers(0, 2**16), st.sampled_from([0.05, 0.2, 1.0]))
@quick
def test_flips_are_the_rankings_that_a_trained_head_turned_round(seed, beta):
    _, _, _, (ref_won, ref_lost, won, lost), margins = trained(seed, beta=beta, rate=0.3 / beta)
    expected = [a <= b and c > d for a, b, c, d in zip(ref_won, ref_lost, won, lost, strict=True)]
    assert flips(ref_won, ref_lost, margins, beta=beta).tolist() == expected
    wrong = float(np.mean(won <= lost))
    largest = float(margins.max())
    statement = flip_statement(
        ref_won, ref_lost, beta=beta, margin=max(largest, 0.0), largest_margin=largest, measured=wrong
    )
    assert statement.applies
    assert statement.kept


def test_the_statement_is_kept_at_the_horizon_and_a_smaller_threshold_breaks_it():
    """Pairs led by 0.9 r/beta flip: a threshold of half the true margin counts them, and is broken by the run."""
    n, beta = 400, 0.1
    rng = np.random.default_rng(0)
    real = float(noiseless_margin(LOG3 / 5))
    lead = rng.uniform(0, LOG3 / beta, n)
    ref_won, ref_lost = -lead - 5.0, np.full(n, -5.0)
    wrong = float(np.mean(~flips(ref_won, ref_lost, real, beta=beta)))
    assert wrong == pytest.approx(0.81, abs=0.05)
    stated = flip_statement(ref_won, ref_lost, beta=beta, largest_margin=real, measured=wrong)
    assert (stated.kept, stated.value) == (True, 0.0)  # log 3 counts none of them
    assert stated.is_vacuous
    sharp = flip_statement(ref_won, ref_lost, beta=beta, margin=real, largest_margin=real, measured=wrong)
    assert sharp.kept
    assert sharp.value == wrong
    spoiled = flip_statement(ref_won, ref_lost, beta=beta, margin=real / 2, largest_margin=real, measured=wrong)
    assert spoiled.kept is False
    assert not spoiled.applies  # and its own condition says so


def test_the_statement_names_what_it_rests_on():
    ref: dict[str, Any] = {"ref_chosen_logps": np.array([-30.0, -3.0]), "ref_rejected_logps": np.array([-2.0, -2.0])}
    late = flip_statement(**ref, beta=0.1, time=500.0, horizon=219.7)
    assert [condition.holds for condition in late.conditions] == [None, False]
    assert late.standing == "outside"
    assert flip_statement(**ref, beta=0.1, time=100.0, horizon=219.7).applies
    assert not flip_statement(**ref, beta=0.1, largest_margin=1.2).applies
    assert flip_statement(**ref, beta=1e-4).value == 0.0
    assert flip_statement(**ref, beta=0.1, group="a").group == "a"


def test_a_real_run_keeps_the_statement_at_its_policy_accuracy():
    """The same number as descent's policy accuracy, from features and reference alone."""
    rng = np.random.default_rng(3)
    states = rng.normal(size=(60, 6))
    won = np.where(states[:, 0] > 0, 1, 0)
    feats = FeatureSet.from_arrays(
        states, chosen=won, rejected=1 - won,
        ref_chosen_logps=-np.abs(rng.normal(4, 3, 60)), ref_rejected_logps=-np.abs(rng.normal(2, 1, 60)),
    )  # fmt: skip
    run = descent(feats, DPO(beta=0.3), learning_rate=0.3, steps=15, margins_at=[15], alone=False)
    assert feats.ref_chosen_logps is not None
    assert feats.ref_rejected_logps is not None
    ref = feats.ref_chosen_logps, feats.ref_rejected_logps
    wrong = 1 - run.final("policy_accuracy", group="all")
    right_before = float(np.mean(ref[0] > ref[1]))
    turned = flips(*ref, run.margins[15], beta=0.3)
    kept = (ref[0] > ref[1]) & (0.3 * (ref[1] - ref[0]) < run.margins[15])
    assert turned.any()
    assert wrong == pytest.approx(1 - turned.mean() - kept.mean())
    largest = float(run.margins[15].max())
    found = flip_statement(*ref, beta=0.3, largest_margin=largest, measured=wrong)
    assert found.applies
    assert found.kept
    assert 0 < found.value < wrong < 1 - right_before


# single responses ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**16), st.floats(0.05, 2), st.floats(0.1, 10))
@quick
def test_rates_of_single_responses_equal_automatic_differentiation(seed, beta, tau):
    """Against autograd of the loss, away from the reference; the published rates are another thing."""
    rng = np.random.default_rng(seed)
    n, d, k = 5, 3, 4
    states, head, reference = rng.normal(size=(n, d)), rng.normal(size=(k, d)), rng.normal(size=(k, d))
    chosen = rng.integers(k, size=n)
    rejected = (chosen + rng.integers(1, k, size=n)) % k
    pairs = [([(g, int(w))], [(g, int(lost))]) for g, w, lost in zip(states, chosen, rejected, strict=True)]
    asked = [won[0] for won, _ in pairs] + [lost[0] for _, lost in pairs]
    expected, margins = heads.sequence_rates(head, pairs, asked, beta=beta, reference=reference)
    logits = states @ head.T
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
    found = response_rates(states, chosen, rejected, probabilities, margins, beta=beta, time_constant=tau)
    room = 1e-11 * (1 + np.abs(expected).max())
    np.testing.assert_allclose(tau * np.concatenate([found.chosen, found.rejected]), expected, atol=room)
    published = tau * np.concatenate([found.published_chosen, found.published_rejected])
    assert np.abs(published - expected).max() > 1e-6 * np.abs(expected).max()
    np.testing.assert_allclose(
        found.chosen - found.rejected, found.published_chosen - found.published_rejected, atol=room / tau
    )


def test_the_chosen_response_of_theory_t19_falls_where_the_published_rate_has_it_rise():
    """A = (w0, l1), B = (w2, l1), Sigma_AA = 1, Sigma_AB = 4, pi_A = (.05, .05, .85, .05), beta = eta = .1, N = 2."""
    states = np.array([[1.0, 0.0], [4.0, 1.0]])
    probabilities = np.array([[0.05, 0.05, 0.85, 0.05], [0.25, 0.25, 0.25, 0.25]])
    found = response_rates(
        states, np.array([0, 2]), np.array([1, 1]), probabilities, np.zeros(2), beta=0.1, time_constant=10.0
    )
    in_log = found.chosen[0] / 0.1, found.rejected[0] / 0.1
    assert in_log == pytest.approx((-0.0055, -0.0205), abs=1e-12)
    assert found.published_chosen[0] / 0.1 == pytest.approx(0.0025)
    assert found.chosen[0] - found.rejected[0] == pytest.approx(0.0015)


def test_rates_stay_finite_at_the_ends():
    states, answers = np.array([[1e3]]), np.array([0])
    for margin in (-1e4, 1e4):
        found = response_rates(states, answers, answers + 1, np.array([[1.0, 0.0]]), np.array([margin]), beta=1e-4)
        assert np.isfinite(found.chosen).all()
        assert np.isfinite(found.rejected).all()


def test_what_means_nothing_is_refused():
    one = np.zeros(1)
    with pytest.raises(ConfigError, match="beta is 0"):
        flip_threshold(beta=0.0)
    with pytest.raises(ConfigError, match="margin is nan"):
        flip_threshold(math.nan, beta=0.1)
    with pytest.raises(DataError, match="ref_chosen_logps has 1 rows with NaN"):
        flips(np.array([math.nan]), one, 0.1, beta=0.1)
    with pytest.raises(DataError, match="margin has 1 rows with NaN or infinity"):
        flips(one, one, math.inf, beta=0.1)
    with pytest.raises(DataError, match="flip_statement was given 0 pairs"):
        flip_statement(np.zeros(0), np.zeros(0), beta=0.1)
    with pytest.raises(DataError, match="chosen and rejected must be columns of probabilities, from 0 to 1"):
        response_rates(np.ones((1, 1)), np.array([0]), np.array([2]), np.ones((1, 2)) / 2, one, beta=0.1)
