"""Appendix A.3 of 2403.18742: what the first step does to each group."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError
from prefdyn.maths import geometry
from prefdyn.theory.learning_dynamics import (
    first_step_logits,
    first_step_margins,
    first_update,
    pairwise_priority_gap,
    priority_of_gaps,
)
from tests.naive import diagnostics
from tests.naive import last_layer as naive

seeds = st.integers(0, 2**16)
quick = settings(max_examples=25, deadline=None)


def groups_of(seed, m=3, d=3):
    """Groups of unequal size with unequal classes: states, signs, group codes, weighted gaps, sizes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 8, m)
    group = np.repeat(np.arange(m), sizes)
    signs = np.where(rng.random(len(group)) < 0.4, 1, -1)
    states = rng.normal(size=(len(group), d)) + signs[:, None] * rng.normal(size=(m, d))[group]
    gaps = np.stack([2 / sizes[k] * signs[group == k] @ states[group == k] for k in range(m)])
    return states, signs, group, gaps, sizes


def test_levels_of_theory_t11():
    two, three = np.array([[3.0, 0], [0, 1]]), np.array([[3.0, 0], [0, 1], [-1, 2]])
    np.testing.assert_allclose(priority_of_gaps(two), [0.9486832980505137, 0.10540925533894598], rtol=1e-12)
    np.testing.assert_allclose(priority_of_gaps(three), [0.5547001962, 0.2773500981, 0.3698001308], atol=1e-10)
    gap = pairwise_priority_gap(3.0, 1.0, math.hypot(1.5, 0.5))
    assert gap == pytest.approx(0.8432740427115677, rel=1e-12)
    assert geometry.priority_gaps(three @ three.T, np.ones(3))[0, 1] == pytest.approx(gap, rel=1e-12)
    assert gap != pytest.approx(priority_of_gaps(three)[0] - priority_of_gaps(three)[1], abs=0.1)  # only two train


def test_both_units_of_theory_t12():
    gaps = np.array([[2.0, 1.0]])
    assert first_step_logits(gaps, beta=0.5, learning_rate=0.4)[0] == pytest.approx(0.25, rel=1e-12)
    assert first_step_margins(gaps, beta=0.5, learning_rate=0.4)[0] == pytest.approx(0.125, rel=1e-12)
    np.testing.assert_allclose(first_update(gaps, beta=0.5, learning_rate=0.4), [0.1, 0.05], rtol=1e-12)
    states, signs = np.array([[1.0, 0], [2, 1], [-1, 0], [0, -1]]), [1, 1, -1, -1]
    assert np.mean(naive.descend(states, signs, 0.5, 0.4, 1)[1]["margins"]) == pytest.approx(0.125)


@pytest.mark.parametrize("seed", range(4))
def test_everything_is_what_one_step_on_the_whole_matrix_does(seed):
    states, signs, group, gaps, sizes = groups_of(seed)
    beta, rate = 0.6, 0.7
    after = naive.descend(states, signs, beta, rate, 1)[1]
    update = first_update(gaps, sizes, beta=beta, learning_rate=rate)
    np.testing.assert_allclose(update, after["weights"], rtol=1e-10)
    assert math.sqrt(2) * np.linalg.norm(update) == pytest.approx(after["drift"])
    margins = np.array([np.mean(np.array(after["margins"])[group == k]) for k in range(3)])
    np.testing.assert_allclose(first_step_margins(gaps, sizes, beta=beta, learning_rate=rate), margins, atol=1e-12)
    np.testing.assert_allclose(
        first_step_logits(gaps, sizes, beta=beta, learning_rate=rate), margins / beta, atol=1e-12
    )
    level = priority_of_gaps(gaps, sizes)
    mean, longest = sizes @ gaps / sizes.sum(), max(np.linalg.norm(b) for b in gaps)
    scale = rate * beta**2 / 4 * np.linalg.norm(mean) * longest
    np.testing.assert_allclose(scale * level, margins, atol=1e-12)
    # Control: plain means of unequal groups, and the unit that the paper prints, are wrong.
    assert np.abs(first_step_margins(gaps, beta=beta, learning_rate=rate) - margins).max() > 1e-3
    assert np.abs(beta * margins - margins).max() > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_levels_and_gaps_equal_the_explicit_twin(seed):
    states, signs, group, gaps, sizes = groups_of(seed)
    level, gap = diagnostics.priority(signs[:, None] * states, np.ones(len(group)), group, 3)
    np.testing.assert_allclose(priority_of_gaps(gaps, sizes), level, atol=1e-12)
    np.testing.assert_allclose(geometry.priority_gaps(gaps @ gaps.T, sizes.astype(float)), gap, atol=1e-12)


@given(seeds)
@quick
def test_the_pairwise_gap_is_an_identity_and_hangs_on_the_angle_through_the_mean_only(seed):
    rng = np.random.default_rng(seed)
    gaps = rng.normal(size=(2, 4)) * 10.0 ** rng.uniform(-3, 3, (2, 1))
    lengths, mean = np.linalg.norm(gaps, axis=1), float(np.linalg.norm(gaps.mean(axis=0)))
    level = priority_of_gaps(gaps)
    found = pairwise_priority_gap(float(lengths[0]), float(lengths[1]), mean)
    assert found == pytest.approx(level[0] - level[1], abs=1e-9)
    aligned = pairwise_priority_gap(float(lengths[0]), float(lengths[1]), float(lengths.mean()))
    assert abs(aligned) <= abs(found) * (1 + 1e-9)
    assert np.sign(found) == np.sign(lengths[0] - lengths[1])


@given(seeds, st.floats(1e-3, 1e3))
@quick
def test_levels_lie_between_minus_one_and_one_and_know_no_unit_or_sign(seed, scale):
    _, _, _, gaps, sizes = groups_of(seed)
    level = priority_of_gaps(gaps, sizes)
    assert (np.abs(level) <= 1).all()
    np.testing.assert_allclose(priority_of_gaps(-scale * gaps, 3 * sizes), level, atol=1e-12)
    order = np.random.default_rng(seed).permutation(3)
    np.testing.assert_allclose(priority_of_gaps(gaps[order], sizes[order]), level[order], atol=1e-12)


def test_gaps_that_cancel_have_no_priority():
    gaps = np.array([[1.3, 0.7], [-1.3, -0.7]])
    assert np.isnan(priority_of_gaps(gaps)).all()
    assert np.isnan(priority_of_gaps(np.zeros((2, 2)))).all()
    assert math.isnan(pairwise_priority_gap(1.0, 1.0, 0.0))
    assert not first_step_margins(gaps, beta=0.1, learning_rate=1.0).any()
    assert np.isfinite(priority_of_gaps(gaps, np.array([2, 1]))).all()
    assert priority_of_gaps(np.array([[5.0]])).tolist() == [1.0]


@pytest.mark.parametrize("function", [first_update, first_step_logits, first_step_margins])
def test_bad_settings_are_refused(function):
    with pytest.raises(ConfigError, match="beta is 0"):
        function(np.eye(2), beta=0, learning_rate=1.0)
    with pytest.raises(ConfigError, match="learning_rate is -1"):
        function(np.eye(2), beta=0.1, learning_rate=-1)
