"""Almost orthogonal values: the measured delta, its cosines, and the guarantees with the lower line halved."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from prefdyn.errors import ConfigError, DataError
from prefdyn.theory.value_scaling.almost_orthogonal import (
    almost_orthogonal_error_bound,
    almost_orthogonal_failure,
    almost_orthogonal_guarantee,
    delta_orthogonality,
    largest_delta,
    worst_cosine,
)
from prefdyn.theory.value_scaling.concentration import stated_kernel_failure
from prefdyn.theory.value_scaling.generalization import refined_error, stray_exponent
from prefdyn.theory.value_scaling.model import ClusterModel, token_sharing
from prefdyn.theory.value_scaling.training import LOG3, horizon, margin_lines
from tests.naive import margin_flow as naive
from tests.theory.test_training_guarantee import descend, kernel_of

quick = settings(max_examples=50, deadline=None)
RUN: dict[str, Any] = {"beta": 0.1, "learning_rate": 1.0}


def cosines(directions):
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return np.abs(unit @ unit.T)[np.triu_indices(len(unit), 1)]


# delta --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delta", "cosine"), [(0.5, 0.48058), (0.25, 0.24756), (0.1, 0.099844)])
def test_worst_cosines_of_theory_3_9(delta, cosine):
    assert float(worst_cosine(delta)) == pytest.approx(cosine, abs=5e-6)
    assert float(worst_cosine(delta)) == pytest.approx(math.sin(2 * math.acos(1 - delta**2 / 8)))
    assert worst_cosine(delta) <= delta


@given(st.floats(0.01, 1.5))
@quick
def test_two_directions_that_lean_towards_each_other_attain_the_worst_cosine(delta):
    """Each is 1 - delta^2/8 along its own axis, and leans by the rest towards the other."""
    lean = math.acos(1 - delta**2 / 8)
    directions = np.array([[math.cos(lean), math.sin(lean)], [math.sin(lean), math.cos(lean)]])
    assert delta_orthogonality(directions) == pytest.approx(delta, rel=1e-6)
    assert cosines(directions)[0] == pytest.approx(float(worst_cosine(delta)), rel=1e-6)
    assert cosines(directions)[0] > float(worst_cosine(0.9 * delta))


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0, 0.3), st.floats(0.1, 10))
@quick
def test_measured_delta_bounds_every_cosine_and_ignores_length_and_rotation(seed, values, size, length):
    rng = np.random.default_rng(seed)
    directions = np.eye(values, 8) + size * rng.normal(size=(values, 8))
    delta = delta_orthogonality(directions)
    assert (cosines(directions) <= float(worst_cosine(min(delta, 2.0))) + 1e-9).all()
    turned = length * directions @ ortho_group.rvs(8, random_state=seed % 2**31)
    assert delta_orthogonality(turned) == pytest.approx(delta, rel=1e-6, abs=1e-7)


def test_measured_delta_is_the_definition_with_some_orthonormal_axes():
    directions = np.array([[1.0, 0.02, 0], [0, 1, -0.05], [0.01, 0, 1]])
    delta = delta_orthogonality(directions)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    left, _, right = np.linalg.svd(unit)
    axes = left @ right
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    along = np.sum(unit * axes, axis=1)
    assert (along >= 1 - delta**2 / 8 - 1e-12).all()
    assert along.min() == pytest.approx(1 - delta**2 / 8, abs=1e-12)


def test_orthonormal_crowded_and_random_directions():
    assert delta_orthogonality(3.0 * np.eye(2, 5)) == 0.0
    assert delta_orthogonality(np.ones((1, 1))) == 0.0
    assert delta_orthogonality(np.ones((3, 2))) == math.inf
    assert delta_orthogonality(np.ones((2, 2))) > 1  # two times the same direction
    random = np.random.default_rng(0).normal(size=(32, 4096))
    assert np.sqrt(np.mean(cosines(random) ** 2)) == pytest.approx(0.0156, rel=0.05)
    assert delta_orthogonality(random) == pytest.approx(0.106, abs=5e-4)
    assert delta_orthogonality(random) > 40 * largest_delta(1)


def test_the_largest_delta_of_theory_3_9():
    assert largest_delta(1) == pytest.approx(0.0026, abs=5e-5)
    assert largest_delta(4) == pytest.approx(0.0013, abs=5e-5)
    model = ClusterModel.at_the_limits(4, 40, sharing=4)
    condition = almost_orthogonal_guarantee(model, delta=0.0, **RUN, steps=1)[0].conditions[-2]
    assert condition.limit == pytest.approx(largest_delta(4))
    two_random = 1 / math.sqrt(4096)
    assert two_random == pytest.approx(0.0156, abs=5e-5)
    assert two_random > 5 * largest_delta(1)


# the theorems -------------------------------------------------------------------------------------------------------


def test_the_lines_at_the_end_of_their_time():
    model = ClusterModel.at_the_limits(10, 2000)
    steps = horizon(10, **RUN)
    low, high = almost_orthogonal_guarantee(model, delta=0.002, **RUN, steps=steps)
    assert low.value == pytest.approx(0.013732653608351372, rel=1e-12)
    assert high.value == pytest.approx(LOG3)
    assert low.value == pytest.approx(float(margin_lines(LOG3 / 5)[0]) / 2)
    assert low.applies
    assert not almost_orthogonal_guarantee(model, delta=0.003, **RUN, steps=steps)[0].applies


def test_the_failure_counts_the_gaussian_term_twice():
    model = ClusterModel.at_the_limits(3, 50, sharing=2)
    eps = 3.0
    first = 3 * 50**2 * math.exp(-(eps**2) / 16)
    second = 3 * 50**2 * math.exp(-0.2 * eps / model.noise * min(1, eps / (model.width * model.noise)))
    expected = (16 * 2 + 8) * first + (8 * 2 + 4) * second
    assert almost_orthogonal_failure(model, eps, constant=0.2) == pytest.approx(expected)
    assert almost_orthogonal_failure(model, eps) == pytest.approx(2 * stated_kernel_failure(model, eps))


def test_the_lines_hold_in_draws_at_the_limit_of_delta_and_spoiled_lines_do_not():
    closest = np.full(2, np.inf)
    for seed in range(60):
        pattern = ["distinct", "common", "ring"][seed % 3]
        values, pairs = 3, 4 + seed % 5
        tokens = naive.answers(pattern, values)
        sharing = token_sharing(tokens).sharing
        width = 5 * pairs
        rng = np.random.default_rng(seed)
        directions = np.eye(values, width, k=1)
        leaning = rng.normal(size=directions.shape)
        small, large = 0.0, 1.0
        for _ in range(60):  # the largest lean that the condition allows
            middle = (small + large) / 2
            if delta_orthogonality(directions + middle * leaning) <= largest_delta(sharing):
                small = middle
            else:
                large = middle
        directions = directions + small * leaning
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        delta = delta_orthogonality(directions)
        assert delta > 0.99 * largest_delta(sharing)
        model = ClusterModel(
            values=values,
            per_cluster=pairs,
            width=width,
            noise=1 / (32 * math.sqrt(pairs)),
            shared_norm=min(0.5, 1 / (2 * math.sqrt(sharing))),
            sharing=sharing,
            distinct=True,
        )
        kernel, _ = kernel_of(seed, model, tokens, directions)
        margins = descend(kernel, values, LOG3 / 5, 20)
        low, high = almost_orthogonal_guarantee(
            model,
            delta=delta,
            **RUN,
            steps=horizon(values, **RUN),
            measured_least=float(margins.min()),
            measured_largest=float(margins.max()),
        )
        assert low.applies
        assert low.kept
        assert high.kept
        closest = np.minimum(closest, [low.looseness, high.looseness])
    assert closest == pytest.approx([14, 4.9], rel=0.1)
    assert closest[0] < 20  # the lower line times twenty is broken
    assert closest[1] < 10  # a tenth of the upper line is broken


def test_the_error_has_a_larger_variance_term():
    model = ClusterModel.at_the_limits(10, 900, sharing=2, shared_norm=0.3)
    bound = almost_orthogonal_error_bound(model, delta=0.001, measured=0.0, group="g")
    assert bound.value == refined_error(model, share=2.5) > refined_error(model)
    eps = model.largest_eps
    spread = 1 + 0.3**2 + model.total_variance + 2.5 * eps * model.noise
    assert stray_exponent(model, share=2.5) == pytest.approx(eps**2 / (2 * spread))
    assert bound.applies
    assert not almost_orthogonal_error_bound(model, delta=0.0156).applies


def test_extreme_models():
    for pairs in (1, 10**12):
        model = ClusterModel(values=1, per_cluster=pairs, width=1, noise=1e-9, shared_norm=0.3)
        low, high = almost_orthogonal_guarantee(model, delta=0.0, beta=1e-4, learning_rate=1.0, steps=0)
        assert low.value == high.value == 0.0
        assert low.is_vacuous
        assert almost_orthogonal_error_bound(model, delta=math.inf).failed
    np.testing.assert_array_equal(worst_cosine(np.array([0.0, 2.0])), [0.0, 1.0])


def test_what_has_no_delta_is_refused():
    with pytest.raises(DataError, match="delta_orthogonality was given 0 directions"):
        delta_orthogonality(np.zeros((0, 3)))
    with pytest.raises(DataError, match="direction 1 has length 0; leave out values whose class means are equal"):
        delta_orthogonality(np.array([[1.0, 0], [0, 0]]))
    with pytest.raises(DataError, match="directions has 1 rows with NaN or infinity, the first is row 0"):
        delta_orthogonality(np.array([[math.nan, 0], [0, 1]]))
    with pytest.raises(DataError, match="delta must lie between 0 and 2"):
        worst_cosine(-0.1)
    with pytest.raises(ConfigError, match="sharing is 0, but must be at least 1"):
        largest_delta(0)
