"""Rates of log-probabilities (2404.04626; THEORY 4.6): a chosen answer that falls while its margin grows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError, DataError
from prefdyn.theory import gradient_field as field
from tests.naive import field as naive

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**16)


def pairs(seed, n=4, vocabulary=5, d=3):
    """A head, states and tokens of n pairs; states lean the same way, so that pairs move each other."""
    rng = np.random.default_rng(seed)
    head, states = rng.normal(size=(vocabulary, d)), rng.normal(size=(n, d)) + 1.5
    chosen = rng.integers(0, vocabulary, n)
    rejected = (chosen + rng.integers(1, vocabulary, n)) % vocabulary
    return head, states, chosen, rejected


def softmax(head, states):
    return np.exp([naive.log_softmax(head @ state) for state in states])


@pytest.fixture
def t19():
    """Pair A prefers 0 to 1, pair B prefers 2 to 1; A hears four times as much of B as of itself."""
    pi = np.array([0.05, 0.05, 0.85, 0.05])
    states = np.array([[1.0, 0.0], [4.0, 1.0]])
    head = np.stack([np.log(pi), np.zeros(4)], axis=1)
    return head, states, np.array([0, 2]), np.array([1, 1])


def test_chosen_falls_while_the_margin_grows_of_theory_t19(t19):
    head, states, chosen, rejected = t19
    step = naive.head_step(head, states, chosen, rejected, 0.1, 0.1)
    assert step[0] == pytest.approx((-0.005514486, -0.020514486), abs=6e-10)
    assert 0.1 * (step[0, 0] - step[0, 1]) == pytest.approx(0.0015, abs=1e-9)
    found = field.log_prob_rates(
        softmax(head, states), chosen, rejected, states @ states.T, np.zeros(2), beta=0.1, tau=10.0
    )
    assert found.chosen[0] == pytest.approx(-0.0055, abs=1e-12)
    assert found.rejected[0] == pytest.approx(-0.0205, abs=1e-12)
    assert found.displaced.tolist() == [True, False]
    assert field.chosen_falls(softmax(head, states), chosen, rejected, states @ states.T, np.zeros(2))[0]
    alone = field.log_prob_rates(
        softmax(head, states)[:1], chosen[:1], rejected[:1], np.ones((1, 1)), np.zeros(1), beta=0.1
    )
    assert alone.chosen[0] > 0  # the control: without the other pair


@given(seeds, st.sampled_from([0.1, 1.0]))
@quick
def test_rates_are_those_of_a_trained_head(seed, beta):
    head, states, chosen, rejected = pairs(seed)
    similarity = states @ states.T
    found = field.log_prob_rates(softmax(head, states), chosen, rejected, similarity, np.zeros(4), beta=beta)
    size = 1e-6
    up, down = (naive.head_step(head, states, chosen, rejected, beta, sign * size) for sign in (1, -1))
    exact = (up - down) / (2 * size)
    np.testing.assert_allclose(found.chosen, exact[:, 0], atol=1e-8)
    np.testing.assert_allclose(found.rejected, exact[:, 1], atol=1e-8)
    spoiled = field.log_prob_rates(
        softmax(head, states), rejected, chosen, similarity, np.zeros(4), beta=beta
    )  # the control: answers swapped
    assert not np.allclose(spoiled.chosen, exact[:, 0], atol=1e-3)


def test_a_share_of_pairs_that_fall_is_forecast_exactly():
    shares = []
    for seed in range(24):
        head, states, chosen, rejected = pairs(seed, n=8)
        rates = field.log_prob_rates(softmax(head, states), chosen, rejected, states @ states.T, np.zeros(8), beta=0.5)
        step = naive.head_step(head, states, chosen, rejected, 0.5, 1e-7)
        found = field.displacement_forecast(rates, measured=float(np.mean(step[:, 0] < 0)))
        assert found.kept
        plane = field.displacement_statement(pairs=8, measured=found.measured)
        assert plane.standing == "outside"
        assert plane.kept == (found.measured == 0)
        shares.append(found.value)
    assert max(shares) > 0.25  # the plane says 0


def test_one_pair_of_theory_4_6_a():
    found = field.own_rates(0.3231, 0.0913)
    assert (found.chosen, found.rejected, found.other) == pytest.approx((0.7682, -1.2318, -0.2318), abs=5e-5)
    logits = np.log([0.32307, 0.0913, 0.3, 1 - 0.32307 - 0.0913 - 0.3])
    direction, size = np.array([1.0, -1.0, 0, 0]), 1e-6
    up, down = (naive.log_softmax(logits + sign * size * direction) for sign in (1, -1))
    rates = (up - down) / (2 * size)
    own = field.own_rates(0.32307, 0.0913)
    assert rates == pytest.approx([own.chosen, own.rejected, own.other, own.other], abs=1e-9)


@given(st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 1 - 1e-6))
@quick
def test_a_pair_alone_never_displaces_its_own_chosen_answer(first, second):
    chosen, rejected = first, second * (1 - first)
    found = field.own_rates(chosen, rejected, pull=0.7)
    assert found.chosen > 0
    assert found.rejected < 0
    assert not found.displaced
    assert found.difference == pytest.approx(1.4)
    faster = -found.rejected / found.chosen
    statement = field.own_speed_statement(chosen, rejected, measured=float(faster))
    assert statement.kept
    if abs(chosen - rejected) > 1e-9:
        assert (faster > 1) == (chosen > rejected)
    if abs(chosen - rejected) > 1e-2:
        assert field.own_speed_statement(rejected, chosen, measured=float(faster)).kept is False  # turned round
    assert faster == pytest.approx(
        field.speed_ratio("logits", 1.0, 1.0, unit="log-ratios", ref_chosen=chosen, ref_rejected=rejected)
    )


@given(seeds)
@quick
def test_rates_of_one_pair_are_the_general_ones(seed):
    head, states, chosen, rejected = pairs(seed, n=1)
    pi = softmax(head, states)
    norm = states @ states.T
    margin = 0.4
    many = field.log_prob_rates(pi, chosen, rejected, norm, np.array([margin]), beta=0.3, tau=2.0)
    pull = 0.3 / (1 + math.exp(margin)) * norm[0, 0] / 2
    own = field.own_rates(pi[0, chosen[0]], pi[0, rejected[0]], pull=pull)
    assert many.chosen[0] == pytest.approx(own.chosen)
    assert many.rejected[0] == pytest.approx(own.rejected)


def test_a_trained_state_of_theory_t20():
    head, state = np.array([[1.0, 0.0], [0.8, 1.0], [2.0, -2.0]]), np.array([0.3, 0.1])
    found = field.hidden_state_rates(head, state, 0, 1)
    assert (found.chosen, found.rejected) == pytest.approx((-0.42878, -1.46878), abs=5e-6)
    assert found.difference == pytest.approx(1.04)
    assert found.displaced
    assert not field.hidden_state_rates(head[:2], state, 0, 1).displaced  # the control: no third token


@given(seeds)
@quick
def test_rates_of_a_trained_state_are_differences_of_log_softmax(seed):
    head, states, chosen, rejected = pairs(seed, n=1)
    w, lost = int(chosen[0]), int(rejected[0])
    found = field.hidden_state_rates(head, states[0], w, lost, pull=2.0)
    exact = 2 * naive.state_rates(head, states[0], w, lost)
    assert (found.chosen, found.rejected) == pytest.approx(tuple(exact), abs=1e-6)
    assert found.difference == pytest.approx(2 * np.sum((head[w] - head[lost]) ** 2))


def test_extreme_margins_and_sizes_give_numbers():
    head, states, chosen, rejected = pairs(0)
    margins = np.array([1e4, -1e4, 0.0, 750.0])
    found = field.log_prob_rates(softmax(head, states), chosen, rejected, 1e8 * states @ states.T, margins, beta=1e-4)
    assert np.isfinite(found.chosen).all()
    assert np.isfinite(found.rejected).all()
    far = field.hidden_state_rates(1e3 * head, 1e2 * states[0], 0, 1)
    assert math.isfinite(far.chosen)
    assert field.own_rates(1.0, 0.0).chosen == 0.0
    assert field.own_speed_statement(1.0, 0.0).value == math.inf


def test_what_is_no_probability_or_token_is_refused():
    pi, tokens = np.full((1, 3), 1 / 3), np.array([0])
    with pytest.raises(DataError, match=r"probabilities: 1 rows are no probabilities, the first sums to 3"):
        field.log_prob_rates(np.ones((1, 3)), tokens, np.array([1]), np.ones((1, 1)), np.zeros(1), beta=1.0)
    with pytest.raises(DataError, match="rejected has tokens from 3 to 3, but probabilities have 3 columns"):
        field.log_prob_rates(pi, tokens, np.array([3]), np.ones((1, 1)), np.zeros(1), beta=1.0)
    empty = np.zeros(0, dtype=np.int64)
    with pytest.raises(DataError, match="log_prob_rates was given 0 pairs"):
        field.log_prob_rates(np.zeros((0, 3)), empty, empty, np.zeros((0, 0)), np.zeros(0), beta=1.0)
    with pytest.raises(DataError, match="margins has 1 rows with NaN"):
        field.log_prob_rates(pi, tokens, np.array([1]), np.ones((1, 1)), np.array([math.nan]), beta=1.0)
    with pytest.raises(DataError, match="pi_w and pi_l: 1 rows are no probabilities"):
        field.own_rates(0.8, 0.7)
    with pytest.raises(DataError, match="tokens 0 and 5 must lie between 0 and 2"):
        field.hidden_state_rates(np.ones((3, 2)), np.ones(2), 0, 5)
    with pytest.raises(ConfigError, match="pairs is 0"):
        field.displacement_statement(pairs=0)
