"""The kernel's centres and radii against drawn clusters, the tails against counted ones, and every printed number."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.kernel import preference_sharing
from prefdyn.theory.value_scaling.concentration import (
    GAUSSIAN_CONSTANT,
    concentration_radii,
    explicit_failure,
    explicit_kernel_failure,
    kernel_concentration,
    kernel_deviation,
    kernel_tails,
    refined_failure,
    stated_failure,
    stated_kernel_failure,
)
from prefdyn.theory.value_scaling.model import ClusterModel, token_sharing
from tests.naive import margin_flow as naive

quick = settings(max_examples=60, deadline=None)


def drawn(seed, model, pattern):
    tokens = naive.answers(pattern, model.values)
    states, chosen, rejected = naive.clusters(
        seed,
        values=model.values,
        per_cluster=model.per_cluster,
        width=model.width,
        noise=model.noise,
        shared_norm=model.shared_norm,
        tokens=tokens,
    )
    sharing = preference_sharing(chosen, rejected, chosen, rejected)
    return sharing * (states @ states.T), sharing


def model_of(values, per_cluster, noise, pattern, *, shared_norm=0.25, width=None):
    return ClusterModel(
        values=values,
        per_cluster=per_cluster,
        width=width or 5 * per_cluster,
        noise=noise,
        shared_norm=shared_norm,
        sharing=token_sharing(naive.answers(pattern, values)).sharing,
        distinct=True,
    )


# Lemma B.1 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["distinct", "common", "ring"])
def test_the_centres_are_the_kernel_without_noise(pattern):
    model = model_of(3, 4, 1e-9, pattern)
    kernel, sharing = drawn(0, model, pattern)
    balls = concentration_radii(model)
    for value, kind in ((2, "same cluster"), (-2, "opposite cluster")):
        np.testing.assert_allclose(kernel[sharing == value], balls[kind].centre, atol=1e-7)
    np.testing.assert_allclose(np.abs(kernel[np.abs(sharing) == 1]), balls["one shared token"].centre, atol=1e-7)
    assert not kernel[sharing == 0].any()
    assert kernel_deviation(kernel, sharing, model) < 1e-6


@pytest.mark.parametrize("pattern", ["distinct", "common", "ring"])
def test_the_lemma_holds_where_its_explicit_failure_is_small_and_a_tenth_of_the_radius_does_not(pattern):
    model = model_of(3, 6, 1 / (500 * math.sqrt(6)), pattern)
    assert explicit_kernel_failure(model) < 1e-6
    deviations = [kernel_deviation(*drawn(seed, model, pattern), model) for seed in range(40)]
    assert all(kernel_concentration(model, measured=deviation).kept for deviation in deviations)
    assert max(deviations) > 0.1
    spoiled = [kernel_deviation(*drawn(seed, model, pattern), model, model.largest_eps / 10) for seed in range(40)]
    assert any(not kernel_concentration(model, measured=deviation).kept for deviation in spoiled)


def test_at_the_limit_of_noise_few_pairs_leave_the_radii():
    model = model_of(3, 12, 1 / (32 * math.sqrt(12)), "ring")
    assert explicit_kernel_failure(model) > 1
    bound = kernel_concentration(model, measured=kernel_deviation(*drawn(0, model, "ring"), model))
    assert bound.applies
    assert bound.kept is False
    assert bound.is_vacuous


@pytest.mark.parametrize("eps", [2.5, 3.5])
def test_the_drawn_kernel_leaves_its_radii_no_more_often_than_the_explicit_probability(eps):
    """The union bound is loose, so the control counts single tails: see the next test."""
    model = model_of(2, 2, 0.05, "ring", width=6)
    failure = explicit_kernel_failure(model, eps)
    counted = np.mean([kernel_deviation(*drawn(seed, model, "ring"), model, eps) > 1 for seed in range(400)])
    assert counted <= failure


def test_every_tail_holds_and_is_broken_with_twice_its_exponent():
    """20,000 draws of each random part, as defined, in 300 coordinates; thresholds at 3 standard deviations."""
    rng = np.random.default_rng(0)
    shared_norm, noise, width, many = 0.5, 0.2, 300, 20_000
    a, b = rng.normal(size=(2, many, width))
    centre = shared_norm * np.eye(width)[0] + np.eye(width)[1]
    parts = {
        "linear": (a + b) @ centre,
        "quadratic": noise * np.sum(a * b, axis=1),
        "own_linear": 2 * a @ centre,
        "own_quadratic": noise * (np.sum(a * a, axis=1) - width),
    }
    for name, part in parts.items():
        eps = 3 * float(part.std())
        model = ClusterModel(values=1, per_cluster=1, width=width, noise=noise, shared_norm=shared_norm)
        tail = getattr(kernel_tails(model, eps), name)
        counted = float(np.mean(np.abs(part) > eps))
        assert counted <= math.exp(tail)
        assert counted > math.exp(math.log(2) + 2 * (tail - math.log(2)))


def test_the_union_counts_are_no_smaller_than_the_pairs_there_are():
    """4ZKQ^2 pairs share one token at most; 4(Z-1)KQ^2 would do, and with tokens of its own no value shares any."""
    for pattern, values in (("distinct", 4), ("common", 4), ("ring", 4)):
        pairs = 3
        chosen, rejected = naive.clusters(
            0, values=values, per_cluster=pairs, width=6, noise=0.1, shared_norm=0.2, tokens=naive.answers(pattern, 4)
        )[1:]
        sharing = np.triu(preference_sharing(chosen, rejected, chosen, rejected), 1)
        z = token_sharing(naive.answers(pattern, values)).sharing
        assert np.sum(sharing == 2) == values * pairs * (pairs - 1)
        assert np.sum(sharing == -2) == values * pairs**2
        shared = np.sum(np.abs(sharing) == 1)
        assert shared <= 4 * (z - 1) * values * pairs**2 <= 4 * z * values * pairs**2
        model = ClusterModel(values=values, per_cluster=pairs, width=6, noise=0.1, shared_norm=0.2, sharing=z)
        tails, count = kernel_tails(model, 3.0), values * pairs * ((2 + 4 * z) * pairs - 1)
        expected = count * (math.exp(tails.linear) + math.exp(tails.quadratic)) + 2 * values * pairs * (
            math.exp(tails.own_linear) + math.exp(tails.own_quadratic)
        )
        assert explicit_kernel_failure(model, 3.0) == pytest.approx(expected)


@given(
    st.integers(1, 100),
    st.integers(1, 2000),
    st.integers(1, 5000),
    st.floats(1e-3, 0.5),
    st.integers(1, 5),
    st.floats(0.1, 200),
    st.floats(0, 0.5),
)
@quick
def test_the_stated_failure_with_one_eighth_is_never_below_the_explicit_one(k, q, d, v, z, eps, shared_norm):
    model = ClusterModel(values=k, per_cluster=q, width=d, noise=v, shared_norm=shared_norm, sharing=z)
    stated = stated_kernel_failure(model, eps, constant=GAUSSIAN_CONSTANT)
    assert min(stated, 1.0) >= explicit_kernel_failure(model, eps) or stated >= 1


def test_a_constant_four_times_as_large_would_state_too_little():
    model = ClusterModel(values=1, per_cluster=1, width=1, noise=0.5, shared_norm=0.25)
    eps = 40.0
    assert stated_kernel_failure(model, eps, constant=GAUSSIAN_CONSTANT) >= explicit_kernel_failure(model, eps)
    assert stated_kernel_failure(model, eps, constant=4 * GAUSSIAN_CONSTANT) < explicit_kernel_failure(model, eps)


@given(st.integers(1, 50), st.integers(1, 500), st.floats(0.5, 20))
@quick
def test_failures_fall_with_the_deviation_and_grow_with_values(k, q, eps):
    model = ClusterModel.at_the_limits(k, q)
    more = ClusterModel.at_the_limits(k + 1, q)
    for failure in (explicit_kernel_failure, stated_kernel_failure):
        assert failure(model, 1.1 * eps) <= failure(model, eps) <= failure(more, eps)
    assert stated_failure(k, q) <= stated_failure(k + 1, q)
    assert stated_failure(k, q) <= stated_failure(k, q, constant=0.1)


# printed numbers ----------------------------------------------------------------------------------------------------


def test_the_stated_probability_is_no_probability_x_10():
    assert stated_failure(10, 875) == pytest.approx(1.78e8, rel=0.005)
    assert stated_failure(16, 450) == pytest.approx(8.2e7, rel=0.01)
    for values, pairs in ((1, 165_961), (10, 183_616), (100, 201_581)):
        assert stated_failure(values, pairs) <= 0.05 < stated_failure(values, pairs - 1)
    assert stated_failure(10, 875) == pytest.approx(8 * 10 * 875**2.25 * math.exp(-(875**0.75) / 256))


@pytest.mark.parametrize(("sharing", "pairs"), [(1, 758), (4, 3641)])
def test_the_refined_probability_of_theory_3_5(sharing, pairs):
    now, before = (ClusterModel.at_the_limits(10, q, sharing=sharing) for q in (pairs, pairs - 1))
    assert refined_failure(now) <= 0.05 < refined_failure(before)
    expected = (8 * sharing + 4) * 10 * pairs**2 * math.exp(-pairs / (4 * (sharing + 2) ** 2))
    assert refined_failure(now) == pytest.approx(expected)


@pytest.mark.parametrize(("sharing", "shared_norm", "pairs"), [(1, 0.5, (221, 278, 333)), (4, 0.25, (860, 1044, 1233))])
def test_the_explicit_probability_of_theory_3_5(sharing, shared_norm, pairs):
    for values, least in zip((1, 10, 100), pairs, strict=True):
        now, before = (
            ClusterModel.at_the_limits(values, q, sharing=sharing, shared_norm=shared_norm) for q in (least, least - 1)
        )
        assert explicit_failure(now) <= 0.05 < explicit_failure(before)


# edges --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [1e-300, 1e-6, 1e6])
@pytest.mark.parametrize("per_cluster", [1, 10**12])
def test_extreme_models_give_probabilities_without_warnings(per_cluster, noise):
    model = ClusterModel(values=1, per_cluster=per_cluster, width=1, noise=noise, shared_norm=0.0)
    for failure in (explicit_failure(model), refined_failure(model), refined_failure(model, constant=1.0)):
        assert failure >= 0
    assert stated_failure(1, per_cluster) >= 0
    assert kernel_concentration(model).failure >= 0
    assert kernel_concentration(model, constant=1.0, group="one").form == "published"


def test_what_is_no_setting_is_refused():
    model = ClusterModel.at_the_limits(1, 1)
    with pytest.raises(ConfigError, match="eps is 0, but must be a finite number above 0"):
        concentration_radii(model, 0)
    for refused in (lambda: stated_failure(1, 1, constant=0.0), lambda: stated_kernel_failure(model, constant=-1.0)):
        with pytest.raises(ConfigError, match=r"constant is .*, but must be above 0; math.inf leaves the term out"):
            refused()
    with pytest.raises(ConfigError, match="values is 0 and pairs 1, but both must be at least 1"):
        stated_failure(0, 1)
    with pytest.raises(DataError, match="the kernel has entries with NaN or infinity"):
        kernel_deviation(np.full((2, 2), np.nan), np.eye(2, dtype=int), model)
