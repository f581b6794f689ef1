"""The closed forms of the last layer against the whole matrix, trained the slow way, and printed numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError
from prefdyn.theory.learning_dynamics import (
    departure_from_line,
    descent_direction,
    largest_stable_step,
    linearised_weights,
    loss_after_first_step,
    published_step_limit,
)
from tests.naive import last_layer as naive

seeds = st.integers(0, 2**16)
STATES = np.array([[1.0, 0], [2, 1], [-1, 0], [0, -1]])
SIGNS = np.array([1, 1, -1, -1])


def problem(seed):
    """States of random shape, class balance, scale and anisotropy."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 14)), int(rng.integers(1, 9))
    signs = np.where(np.arange(n) < rng.integers(1, n), 1, -1)
    scale = 10.0 ** rng.uniform(-3, 4)
    states = scale * (rng.normal(size=(n, d)) * rng.uniform(0.01, 3, d) + rng.normal(size=d) * rng.uniform(0, 3))
    beta = 10.0 ** rng.uniform(-4, 1)
    limit = largest_stable_step(float(np.linalg.eigvalsh(states.T @ states / n)[-1]), beta=beta)
    return states, signs, beta, limit, rng


def descend(states, signs, beta, rate, steps):
    path = [np.zeros(states.shape[1])]
    for _ in range(steps):
        path.append(path[-1] + rate * descent_direction(states, signs, path[-1], beta=beta))
    return np.array(path)


# direction ----------------------------------------------------------------------------------------------------------


def test_the_printed_gradient_is_minus_the_gradient():
    """THEORY X-1: Eq. 9 points downhill."""
    rng = np.random.default_rng(0)
    states, matrix, reference = rng.normal(size=(6, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    chosen = rng.integers(0, 5, 6)
    rejected = (chosen + rng.integers(1, 5, 6)) % 5
    slope = naive.gradient(matrix, reference, states, chosen, rejected, 0.7)
    printed = naive.printed_gradient(matrix, reference, states, chosen, rejected, 0.7)
    np.testing.assert_allclose(printed, -slope, atol=1e-9)
    assert np.abs(printed - slope).max() > 0.1


def test_the_direction_of_two_answers_is_downhill_in_the_whole_matrix():
    rng = np.random.default_rng(1)
    states, signs = rng.normal(size=(7, 3)), np.array([1, 1, 1, 1, 1, -1, -1])
    reference, weights = rng.normal(size=(4, 3)), rng.normal(size=3)
    matrix = reference + np.outer([1, -1, 0, 0], weights)
    slope = naive.gradient(matrix, reference, states, np.where(signs > 0, 0, 1), np.where(signs > 0, 1, 0), 0.6)
    direction = descent_direction(states, signs, weights, beta=0.6)
    np.testing.assert_allclose(slope, -np.outer([1, -1, 0, 0], direction), atol=1e-9)
    assert np.abs(slope[0] - direction).max() > 0.01  # the sign as printed


def test_descent_of_theory_t1():
    whole = naive.descend(STATES, SIGNS, 0.5, 0.4, 3)
    path = descend(STATES, SIGNS, 0.5, 0.4, 3)
    weights = [[0, 0], [0.1, 0.05], [0.19128443, 0.09626631], [0.27476957, 0.13919027]]
    drift = [0, 0.158113883008419, 0.3028429794769058, 0.43559671044164894]
    loss = [0.6931471805599453, 0.6332980970098179, 0.5831089317109237, 0.5408129992939306]
    for step in range(4):
        np.testing.assert_allclose(path[step], weights[step], atol=5e-9)
        np.testing.assert_allclose(whole[step]["weights"], path[step], rtol=1e-12)
        assert math.sqrt(2) * np.linalg.norm(path[step]) == pytest.approx(drift[step], rel=1e-12)
        assert whole[step]["drift"] == pytest.approx(drift[step], rel=1e-12)
        assert whole[step]["loss"] == pytest.approx(loss[step], rel=1e-12)
    np.testing.assert_allclose(whole[3]["margins"], [0.27476957, 0.68872941, 0.27476957, 0.13919027], atol=5e-9)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_flipping_every_label_turns_the_path_round(seed):
    states, signs, beta, limit, _ = problem(seed)
    np.testing.assert_array_equal(
        descend(states, -signs, beta, limit / 3, 5), -descend(states, signs, beta, limit / 3, 5)
    )


@given(seeds, st.floats(0.01, 100))
@settings(max_examples=25, deadline=None)
def test_margins_know_only_the_step_times_beta_squared_times_the_kernel(seed, k):
    states, signs, beta, limit, _ = problem(seed)

    def margins(states, beta, rate):
        return 2 * beta * signs * (states @ descend(states, signs, beta, rate, 6)[-1])

    base = margins(states, beta, limit / 2)
    np.testing.assert_allclose(margins(k * states, beta, limit / 2 / k**2), base, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(margins(states, k * beta, limit / 2 / k**2), base, rtol=1e-9, atol=1e-12)


def test_extreme_margins_neither_overflow_nor_warn():
    for far in (1e4, -1e4):
        states = np.array([[1.0], [-1.0]])
        direction = descent_direction(states, np.array([1, -1]), np.array([far / 2]), beta=1.0)
        assert direction[0] == pytest.approx(0.0 if far > 0 else 1.0)


# steps --------------------------------------------------------------------------------------------------------------


def test_step_limits_of_theory_t8():
    assert published_step_limit(64.0, beta=0.64 / 64) == pytest.approx(0.6103515625, rel=1e-12)
    assert published_step_limit(0.0, beta=0.1) == math.inf
    assert largest_stable_step(0.0, beta=0.1) == math.inf
    assert largest_stable_step(1.70710678, beta=0.5) == pytest.approx(4 / (0.25 * 1.70710678))


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_increments_never_grow_up_to_the_limit(seed):
    states, signs, beta, limit, _ = problem(seed)
    lengths = np.linalg.norm(np.diff(descend(states, signs, beta, limit, 12), axis=0), axis=1)
    assert (lengths[1:] <= lengths[:-1] * (1 + 1e-9)).all()


def test_beyond_the_limit_they_do_grow():
    """Control: a balanced pair of equal states is purely quadratic at 0, and 1.5 limits overshoot."""
    states, signs = np.array([[1.0], [1.0]]), np.array([1, -1])
    states = np.concatenate([states] * 50)
    signs = np.concatenate([signs] * 50)
    signs[1] = 1
    limit = largest_stable_step(1.0, beta=1.0)
    lengths = np.linalg.norm(np.diff(descend(states, signs, 1.0, 1.5 * limit, 3), axis=0), axis=1)
    assert lengths[1] > 1.5 * lengths[0]


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_published_step_is_a_quarter_of_the_stable_one_or_less(seed):
    states, _, beta, limit, _ = problem(seed)
    radius = np.linalg.norm(states, axis=1).max() / 2  # the longest state on the event of the proof
    assert published_step_limit(float(radius), beta=beta) * (1 - 1e-9) <= limit / 4


# linear phase -------------------------------------------------------------------------------------------------------


def test_the_linear_closed_form_of_theory_t5():
    formula = linearised_weights(STATES, SIGNS, beta=0.05, learning_rate=0.4, steps=50)
    np.testing.assert_allclose(formula, [0.48942679, 0.24546689], atol=5e-9)
    exact = descend(STATES, SIGNS, 0.05, 0.4, 50)[-1]
    np.testing.assert_allclose(exact, [0.48943169, 0.24546922], atol=5e-9)
    assert np.abs(formula - exact).max() > 1e-6  # an approximation, and seen to be one


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_linear_closed_form_solves_its_recursion(seed):
    states, signs, beta, limit, rng = problem(seed)
    rate, steps = limit * rng.uniform(0.001, 1), int(rng.integers(0, 40))
    n = len(states)
    w, b, moment = np.zeros(states.shape[1]), 2 / n * signs @ states, states.T @ states / n
    for _ in range(steps):
        w = w + rate * beta * (b / 4 - beta / 2 * moment @ w)
    found = linearised_weights(states, signs, beta=beta, learning_rate=rate, steps=steps)
    np.testing.assert_allclose(found, w, atol=1e-9 * (1e-300 + np.abs(w).max()))


def test_the_linear_closed_form_is_the_limit_of_small_margins():
    errors = []
    for beta in (0.1, 0.01):
        exact = descend(STATES, SIGNS, beta, 0.4, 20)[-1]
        found = linearised_weights(STATES, SIGNS, beta=beta, learning_rate=0.4, steps=20)
        errors.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    assert errors[1] < 1e-3 * errors[0]  # margins fall by 100 and the error of the odd series by their square


def test_bad_settings_of_the_linear_form_are_refused():
    with pytest.raises(ConfigError, match=r"learning_rate is 10, but the linear recursion runs away above 9\.37258"):
        linearised_weights(STATES, SIGNS, beta=0.5, learning_rate=10, steps=3)
    with pytest.raises(ConfigError, match="steps is -1"):
        linearised_weights(STATES, SIGNS, beta=0.5, learning_rate=0.1, steps=-1)
    assert not linearised_weights(np.zeros((4, 2)), SIGNS, beta=0.5, learning_rate=5.0, steps=3).any()


def test_the_path_leaves_its_line_no_faster_than_allowed_in_300_problems():
    half_is_enough = True
    for seed in range(300):
        states, signs, beta, limit, rng = problem(seed)
        rate = limit * 10.0 ** rng.uniform(-3, 0)
        path = descend(states, signs, beta, rate, 9)
        smoothness = 4 / (beta**2 * limit)
        for step in (2, 5, 9):
            allowed = departure_from_line(smoothness, beta=beta, learning_rate=rate, steps=step)
            left = np.linalg.norm(path[step] - step * path[1])
            line = step * np.linalg.norm(path[1])
            assert left <= allowed * line * (1 + 1e-9) + 1e-13 * line
            half_is_enough &= bool(left <= 0.5 * allowed * line)
    assert not half_is_enough
    assert departure_from_line(3.0, beta=0.1, learning_rate=1.0, steps=1) == 0
    assert departure_from_line(3.0, beta=0.1, learning_rate=1.0, steps=0) == 0


# loss ---------------------------------------------------------------------------------------------------------------


def test_the_first_drop_of_the_loss_of_theory_t1():
    predicted = math.log(2) - loss_after_first_step(math.sqrt(5), beta=0.5, learning_rate=0.4)
    assert predicted == pytest.approx(0.0625, rel=1e-12)
    assert math.log(2) - naive.descend(STATES, SIGNS, 0.5, 0.4, 1)[1]["loss"] == pytest.approx(0.0598, abs=1e-4)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_the_predicted_loss_is_a_lower_bound_that_small_steps_reach(seed):
    states, signs, beta, limit, _ = problem(seed)
    gap = float(np.linalg.norm(2 / len(states) * signs @ states))
    for share in (1.0, 1e-4):
        w = descend(states, signs, beta, share * limit, 1)[1]
        loss = float(np.mean(np.logaddexp(0, -2 * beta * signs * (states @ w))))
        predicted = loss_after_first_step(gap, beta=beta, learning_rate=share * limit)
        assert loss >= predicted - 1e-12
        drop = math.log(2) - predicted
        if share < 1e-3 and drop > 1e-9:
            assert math.log(2) - loss == pytest.approx(drop, rel=1e-3, abs=1e-12)
