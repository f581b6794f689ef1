"""The reward rate of tokens in long responses against automatic differentiation and finite differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError, DataError
from prefdyn.theory.value_scaling.failure_modes import response_rates
from prefdyn.theory.value_scaling.multi_token import TokenContexts, token_influence, token_reward_rate
from tests.naive import heads


def problem(seed, *, vocabulary=6, width=4, pairs=3, longest=3):
    """Random responses of 1 to `longest` tokens, as lists of (state, token) and as one row per token."""
    rng = np.random.default_rng(seed)
    head, reference = rng.normal(size=(2, vocabulary, width))

    def response():
        return [(rng.normal(size=width), int(rng.integers(vocabulary))) for _ in range(rng.integers(1, longest + 1))]

    listed = [(response(), response()) for _ in range(pairs)]
    rows = [
        (state, token, pair, side)
        for pair, both in enumerate(listed)
        for side, one in zip((1, -1), both, strict=True)
        for state, token in one
    ]
    states, tokens, pair, side = (np.array(column) for column in zip(*rows, strict=True))
    return head, reference, listed, TokenContexts(states=states, tokens=tokens, pair=pair, side=side), rng


def softmax(logits):
    return np.exp(logits - np.logaddexp.reduce(logits))


def rate_by_loops(head, trained, margins, state, token, *, beta, sign):
    """The rate term by term; sign +1 is the sum of probabilities, -1 the difference that the text has."""
    total, here = 0.0, softmax(head @ state)
    for g, other, pair, side in zip(trained.states, trained.tokens, trained.pair, trained.side, strict=True):
        there = softmax(head @ g)
        p = there[token] + sign * here[other]
        total += side / (1 + np.exp(margins[pair])) * (g @ state) * ((token == other) - p + there @ here)
    return beta**2 / len(margins) * total


@given(st.integers(0, 2**16), st.floats(0.05, 2), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_the_rate_equals_automatic_differentiation_and_the_difference_form_does_not(seed, beta, tau):
    head, reference, listed, trained, rng = problem(seed)
    asked = [(rng.normal(size=4), int(rng.integers(6))) for _ in range(5)]
    expected, margins = heads.sequence_rates(head, listed, asked, beta=beta, reference=reference)
    states, tokens = np.array([state for state, _ in asked]), np.array([token for _, token in asked])
    found = tau * token_reward_rate(head, trained, margins, states, tokens, beta=beta, time_constant=tau)
    scale = np.abs(expected).max() + beta**2
    np.testing.assert_allclose(found, expected, atol=1e-11 * scale)
    by_loops = [rate_by_loops(head, trained, margins, *at, beta=beta, sign=1) for at in asked]
    np.testing.assert_allclose(by_loops, expected, atol=1e-11 * scale)
    published = [rate_by_loops(head, trained, margins, *at, beta=beta, sign=-1) for at in asked]
    assert np.abs(np.array(published) - expected).max() > 1e-4 * beta**2


def test_the_rate_equals_finite_differences_to_nine_digits():
    """Six-point differences along the flow, on a problem of the printed size; the text's form is off by the rate."""
    head, reference, listed, trained, rng = problem(0, longest=2)
    beta = 0.7
    state, token = rng.normal(size=4), 2
    _, margins = heads.sequence_rates(head, listed, [], beta=beta, reference=reference)
    velocity = np.zeros_like(head)
    for g, other, pair, side in zip(trained.states, trained.tokens, trained.pair, trained.side, strict=True):
        pull = beta / 3 * side / (1 + np.exp(margins[pair]))
        velocity += pull * np.outer(np.eye(6)[other] - softmax(head @ g), g)
    step = 5e-3
    weights = {1: 45, 2: -9, 3: 1}
    numeric = sum(
        weight * (heads.reward_after(head, velocity, far * step, state, token, beta=beta)
                  - heads.reward_after(head, velocity, -far * step, state, token, beta=beta))
        for far, weight in weights.items()
    ) / (60 * step)  # fmt: skip
    found = token_reward_rate(head, trained, margins, state[None], np.array([token]), beta=beta)[0]
    assert found == pytest.approx(numeric, abs=1e-9)
    assert abs(rate_by_loops(head, trained, margins, state, token, beta=beta, sign=-1) - numeric) > 0.1 * abs(numeric)


def test_the_rate_of_a_margin_is_that_of_its_tokens():
    """Chosen tokens minus rejected ones: a whole gradient step of 1e-6 moves the margins by that much."""
    head, reference, listed, trained, _ = problem(5)
    beta, step = 0.5, 1e-6
    everywhere = [at for won, lost in listed for at in won + lost]
    rates, margins = heads.sequence_rates(head, listed, everywhere, beta=beta, reference=reference)
    found = token_reward_rate(head, trained, margins, trained.states, trained.tokens, beta=beta)
    np.testing.assert_allclose(found, rates, atol=1e-12)
    per_pair = np.bincount(trained.pair, weights=trained.side * found)
    velocity = np.zeros_like(head)
    for g, other, pair, side in zip(trained.states, trained.tokens, trained.pair, trained.side, strict=True):
        velocity += beta / 3 * side / (1 + np.exp(margins[pair])) * np.outer(np.eye(6)[other] - softmax(head @ g), g)
    _, moved = heads.sequence_rates(head + step * velocity, listed, [], beta=beta, reference=reference)
    np.testing.assert_allclose((moved - margins) / step, per_pair, rtol=1e-4)
    assert not np.allclose((moved - margins) / step, -per_pair, rtol=1e-4)


@given(st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_influence_is_symmetric_and_adds_up_to_the_rate(seed):
    head, _, _, trained, rng = problem(seed)
    state, token = rng.normal(size=4), int(rng.integers(6))
    margins = rng.normal(size=3)
    parts = []
    for g, other, pair, side in zip(trained.states, trained.tokens, trained.pair, trained.side, strict=True):
        one = token_influence(head, g, int(other), state, token)
        assert one == pytest.approx(token_influence(head, state, token, g, int(other)), abs=1e-12)
        parts.append(side * one / (1 + np.exp(margins[pair])))
    rate = token_reward_rate(head, trained, margins, state[None], np.array([token]), beta=0.3)[0]
    assert rate == pytest.approx(0.09 / 3 * sum(parts), abs=1e-12)
    itself = token_influence(head, state, token, state, token)
    assert itself == pytest.approx(state @ state * np.sum((np.eye(6)[token] - softmax(head @ state)) ** 2))


def test_one_token_at_one_context_moves_as_a_single_response_does():
    rng = np.random.default_rng(2)
    states, head = rng.normal(size=(5, 3)), rng.normal(size=(4, 3))
    chosen, rejected, margins = np.array([0, 1, 2, 3, 0]), np.array([1, 2, 3, 0, 2]), rng.normal(size=5)
    trained = TokenContexts(
        states=np.repeat(states, 2, axis=0),
        tokens=np.stack([chosen, rejected], axis=1).ravel(),
        pair=np.repeat(np.arange(5), 2),
        side=np.tile([1, -1], 5),
    )
    probabilities = np.array([softmax(head @ g) for g in states])
    single = response_rates(states, chosen, rejected, probabilities, margins, beta=0.4)
    np.testing.assert_allclose(
        token_reward_rate(head, trained, margins, states, chosen, beta=0.4), single.chosen, atol=1e-14
    )
    np.testing.assert_allclose(
        token_reward_rate(head, trained, margins, states, rejected, beta=0.4), single.rejected, atol=1e-14
    )


def test_extremes_stay_finite():
    head = np.array([[1e3], [-1e3]])
    trained = TokenContexts(states=np.ones((1, 1)), tokens=np.array([0]), pair=np.zeros(1, int), side=np.ones(1, int))
    for margin in (-1e4, 1e4):
        assert np.isfinite(
            token_reward_rate(head, trained, np.array([margin]), np.ones((2, 1)), np.array([0, 1]), beta=1e-4)
        ).all()


def test_what_means_nothing_is_refused():
    head, _, _, trained, _ = problem(0)
    state, token, margins = np.zeros((1, 4)), np.array([0]), np.zeros(3)
    with pytest.raises(ConfigError, match="time_constant is 0"):
        token_reward_rate(head, trained, margins, state, token, beta=0.1, time_constant=0.0)
    with pytest.raises(DataError, match="pairs are numbered up to 2, but there are 2 margins"):
        token_reward_rate(head, trained, margins[:2], state, token, beta=0.1)
    with pytest.raises(DataError, match="tokens must be rows of the head, from 0 to 5"):
        token_reward_rate(head, trained, margins, state, token + 6, beta=0.1)
    with pytest.raises(DataError, match="the head has width 3, but the trained states 4"):
        token_reward_rate(head[:, :3], trained, margins, state[:, :3], token, beta=0.1)
    with pytest.raises(DataError, match=r"side must be \+1"):
        TokenContexts(states=state, tokens=token, pair=token, side=np.array([0]))
    with pytest.raises(DataError, match="there are 0 tokens"):
        TokenContexts(states=state[:0], tokens=token[:0], pair=token[:0], side=token[:0])
