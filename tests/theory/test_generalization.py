"""The held-out error and the pairs it asks for: every printed number, the laws, and the count of what matters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.kernel import preference_sharing
from prefdyn.theory.value_scaling.concentration import explicit_failure, kernel_deviation
from prefdyn.theory.value_scaling.generalization import (
    LEAST_PAIRS,
    PEAK_PER_VALUE,
    counted_error,
    counted_error_bound,
    error_bound,
    feasible_values,
    pairs_at_error,
    refined_error,
    refined_error_bound,
    required_pairs,
    required_pairs_for_event,
    simplified_error,
    stray_exponent,
)
from prefdyn.theory.value_scaling.model import ClusterModel, token_sharing
from prefdyn.theory.value_scaling.training import margin_rates, sharp_constants, sharp_horizon
from tests.naive import margin_flow as naive

quick = settings(max_examples=100, deadline=None)


# printed numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "pairs"),
    [
        (1, 763.400),
        (2, 798.655),
        (4, 833.713),
        (8, 868.593),
        (10, 879.787),
        (16, 903.312),
        (100, 994.427),
        (1000, 1107.757),
    ],
)
def test_pairs_for_an_error_of_one_in_twenty_of_theory_t14(values, pairs):
    assert pairs_at_error(values, 0.05) == pytest.approx(pairs, abs=5e-4)
    assert required_pairs(values, 0.05) == math.ceil(pairs)


@pytest.mark.parametrize(("values", "pairs"), [(1, 608.126), (10, 727.926), (100, 844.960)])
def test_pairs_for_any_error_at_all_of_theory_t14(values, pairs):
    assert pairs_at_error(values, 1.0) == pytest.approx(pairs, abs=5e-4)


def test_bounds_of_theory_t14():
    for pairs, expected in ((875, 0.05500867394049734), (880, 0.04978809065339297), (450, 183.86971553806356)):
        assert float(simplified_error(10, pairs)) == pytest.approx(expected, rel=1e-12)
    assert float(simplified_error(1, 40)) == pytest.approx(1316, abs=0.5)
    assert pytest.approx(2192.43, abs=0.005) == PEAK_PER_VALUE
    assert float(simplified_error(3, 90)) == pytest.approx(3 * PEAK_PER_VALUE)


def test_a_hundred_values_need_an_eighth_more_and_not_half_as_much_again_x_9():
    ratio = pairs_at_error(100, 0.05) / pairs_at_error(10, 0.05)
    assert ratio == pytest.approx(1.130, abs=5e-4)
    assert 10 * ratio == pytest.approx(11.3, abs=0.05)
    assert abs(ratio - 1.5) > 0.3
    slope = (pairs_at_error(11, 0.05) - pairs_at_error(10, 0.05)) / math.log(1.1)
    assert slope == pytest.approx(45 / (1 - 90 / pairs_at_error(10, 0.05)), rel=0.01)
    assert slope == pytest.approx(50, abs=0.5)


@pytest.mark.parametrize(
    ("form", "options", "pairs"),
    [
        ("stated", {}, {1: 165_961, 10: 183_616, 100: 201_581}),
        ("refined", {"sharing": 1}, {10: 758}),
        ("refined", {"sharing": 4}, {10: 3641}),
        ("explicit", {"sharing": 1, "shared_norm": 0.5}, {1: 221, 10: 278, 100: 333}),
        ("explicit", {"sharing": 4, "shared_norm": 0.25}, {1: 860, 10: 1044, 100: 1233}),
    ],
)
def test_pairs_for_the_event_of_theory_3_5_x_10(form, options, pairs):
    assert {k: required_pairs_for_event(k, form=form, **options) for k in pairs} == pairs
    rounded = {1: 1.66e5, 10: 1.84e5, 100: 2.02e5}
    if form == "stated":
        assert pairs == pytest.approx(rounded, rel=0.003)
        assert required_pairs_for_event(1, form="stated", constant=0.1) == pytest.approx(4e6, rel=0.1)


def test_beyond_six_thousand_values_the_law_contradicts_its_conditions_x_11():
    most = feasible_values(0.05)
    assert most == 5974
    assert pairs_at_error(most, 0.05) == pytest.approx(1195, abs=0.5)
    for values, fits in ((most, True), (most + 1, False)):
        assert ((values + 1) / 5 <= pairs_at_error(values, 0.05)) == fits
    model = ClusterModel.at_the_limits(20_000, required_pairs(20_000, 0.05))
    assert [c.says for c in error_bound(model).failed] == ["d >= K + 1"]
    assert feasible_values(1e7) == 199  # with Q = 40, the least the theorem allows


@pytest.mark.parametrize(("sharing", "shared_norm", "rate"), [(1, 0.5, 5.83), (2, 0.35, 9.27), (4, 0.25, 19.6)])
def test_the_true_exponents_of_theory_3_5(sharing, shared_norm, rate):
    model = ClusterModel.at_the_limits(1, 880, sharing=sharing, shared_norm=shared_norm)
    assert 880 / stray_exponent(model) == pytest.approx(rate, rel=1e-3)
    eps = model.largest_eps
    spread = 2 * (1 + shared_norm**2 + model.total_variance + 2 * eps * model.noise)
    assert refined_error(model) == pytest.approx(2 * 880**2 * math.exp(-(eps**2) / spread))


# laws ---------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**6), st.floats(-30, 3.0))
@quick
def test_required_pairs_invert_the_bound(values, log_error):
    error = math.exp(log_error)
    root = pairs_at_error(values, error)
    assert root >= 90
    assert float(simplified_error(values, root)) == pytest.approx(error, rel=1e-9)
    whole = required_pairs(values, error)
    assert float(simplified_error(values, whole)) <= error * (1 + 1e-12)
    assert whole == LEAST_PAIRS or float(simplified_error(values, whole - 1)) > error
    assert float(simplified_error(values, whole + 100)) < error


@given(st.integers(1, 10**5), st.floats(0.001, 1000))
@quick
def test_required_pairs_grow_with_values_and_shrink_with_the_error(values, error):
    assert required_pairs(values, error) <= required_pairs(values + 1, error)
    assert required_pairs(values, error) >= required_pairs(values, 2 * error)


@given(st.integers(1, 50), st.integers(40, 3000), st.integers(1, 4), st.floats(0.0, 1.0))
@quick
def test_on_its_conditions_the_simplified_bound_is_above_the_refined_and_that_above_the_counted(k, q, z, place):
    shared_norm = 0.25 + place * (min(0.5, 1 / (2 * math.sqrt(z))) - 0.25)
    model = ClusterModel.at_the_limits(k, q, sharing=z, shared_norm=shared_norm)
    assert all(c.holds is not False for c in model.conditions() if c.says != "d >= K + 1")
    assert counted_error(model) <= refined_error(model) <= float(simplified_error(k, q)) * (1 + 1e-12)


@given(st.integers(1, 1000), st.integers(1, 1000), st.floats(0.05, 0.9))
@quick
def test_refined_errors_fall_with_less_noise_and_less_sharing(k, q, share):
    model = ClusterModel.at_the_limits(k, q, sharing=2)
    calmer = ClusterModel(values=k, per_cluster=q, width=5 * q, noise=share * model.noise, shared_norm=0.25, sharing=2)
    alone = ClusterModel.at_the_limits(k, q, sharing=1)
    for error in (refined_error, counted_error):
        assert error(calmer) <= error(model)
        assert error(alone) <= error(model)
        assert error(model, 0.5 * model.largest_eps) >= error(model)


def test_a_simplified_bound_with_a_smaller_divisor_would_be_below_the_refined_one():
    model = ClusterModel.at_the_limits(1, 880, sharing=4)
    assert refined_error(model) < float(simplified_error(1, 880))
    assert refined_error(model) > 2 * 880**2 * math.exp(-880 / 19)


# what is true of held-out pairs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sharing", "pairs"), [(1, 100), (2, 200), (4, 400)])
def test_the_counted_bound_may_fail_where_a_feature_strays_along_a_centre_that_it_moves(sharing, pairs):
    """2KQ features, 4Z - 2 clusters that each moves, two tails of N(0, 1 + l_b²): by Chernoff, above the exact tail."""
    values = 10
    model = ClusterModel.at_the_limits(values, pairs, sharing=sharing)
    events = 2 * values * pairs * (4 * sharing - 2)
    deviations = model.largest_eps / math.sqrt(1 + model.shared_norm**2)
    added = counted_error_bound(model).failure - explicit_failure(model)
    assert added == pytest.approx(events * 2 * math.exp(-(deviations**2) / 2), rel=1e-6, abs=1e-15)
    assert added >= events * math.erfc(deviations / math.sqrt(2)) - 1e-15


def test_the_counted_union_bounds_what_strays_and_twice_the_exponent_does_not():
    """One training draw with tokens of its own, many held-out noises: how often any of 2Q inner products strays."""
    rng = np.random.default_rng(0)
    pairs, width, noise, shared_norm = 1, 30, 0.05, 0.4
    states = naive.clusters(
        1, values=1, per_cluster=pairs, width=width, noise=noise, shared_norm=shared_norm, tokens=[(0, 1)]
    )[0]
    products = rng.normal(size=(200_000, width)) @ states.T
    for eps in (3.0, 3.5):
        model = ClusterModel(values=1, per_cluster=pairs, width=width, noise=noise, shared_norm=shared_norm)
        assert np.square(states).sum(axis=1).max() <= 1 + shared_norm**2 + model.total_variance + 2 * eps * noise
        strays = float(np.mean((np.abs(products) > eps).any(axis=1)))
        assert strays <= counted_error(model, eps)
        assert counted_error(model, eps) == pytest.approx(4 * pairs * math.exp(-stray_exponent(model, eps)))
        assert strays > 4 * pairs * math.exp(-2 * stray_exponent(model, eps))


@pytest.mark.parametrize("pattern", ["distinct", "common", "ring"])
def test_held_out_margins_rise_at_the_lower_line_while_nothing_strays(pattern):
    """The proof behind `counted_error`: entries within the radii keep held-out margins above the sharper lower line."""
    values, pairs = 3, 6
    tokens = naive.answers(pattern, values)
    sharing = token_sharing(tokens).sharing
    model = ClusterModel(
        values=values,
        per_cluster=pairs,
        width=30,
        noise=1 / (500 * math.sqrt(pairs)),
        shared_norm=0.28,
        sharing=sharing,
    )
    options = {
        "values": values,
        "per_cluster": pairs,
        "width": 30,
        "noise": model.noise,
        "shared_norm": 0.28,
        "tokens": tokens,
    }
    states, chosen, rejected = naive.clusters(0, **options)
    answers = preference_sharing(chosen, rejected, chosen, rejected)
    assert kernel_deviation(answers * (states @ states.T), answers, model) <= 1
    fresh, fresh_chosen, fresh_rejected = naive.clusters(1, **options)
    cross = preference_sharing(fresh_chosen, fresh_rejected, chosen, rejected) * (fresh @ states.T)
    steps = 30
    end = sharp_horizon(values, sharing=sharing, beta=1.0, learning_rate=1.0) / values
    margins, held_out, line = np.zeros(len(states)), np.zeros(len(fresh)), 0.0
    for step in range(1, steps + 1):
        held_out = held_out + margin_rates(cross, margins, beta=1.0, time_constant=steps / (end * values))
        margins = margins + margin_rates(
            answers * (states @ states.T), margins, beta=1.0, time_constant=steps / (end * values)
        )
        line = sharp_constants(sharing)[0] * end * step / steps / 2
        assert held_out.min() >= line
    assert held_out.min() < 2.5 * line
    bound = counted_error_bound(model, steps=1, last_step=2, measured=float(np.mean(held_out <= 0)))
    assert bound.standing == "informative"


# statements ---------------------------------------------------------------------------------------------------------


def test_the_published_statement_is_empty_where_the_repaired_one_speaks():
    model = ClusterModel.at_the_limits(10, 880, shared_norm=0.5)
    published, refined, repaired = error_bound(model), refined_error_bound(model), counted_error_bound(model)
    assert published.applies
    assert published.value == pytest.approx(0.0498, abs=5e-5)
    assert published.is_vacuous
    assert "no probability" in published.meaning()
    assert refined.value == pytest.approx(4e-59, rel=0.2)
    assert not refined.is_vacuous
    assert repaired.standing == "informative"
    assert repaired.failure < 1e-10
    assert repaired.failure >= explicit_failure(model)
    small = ClusterModel.at_the_limits(10, 278, shared_norm=0.5)
    assert max(counted_error_bound(small).value, counted_error_bound(small).failure) <= 0.05
    assert error_bound(small).is_vacuous


def test_the_repaired_error_does_not_know_how_many_values_there_are():
    errors = {counted_error(ClusterModel.at_the_limits(k, 300, sharing=2)) for k in (1, 10, 1000)}
    assert len(errors) == 1
    published = [float(simplified_error(k, 300)) for k in (1, 10, 1000)]
    assert published == pytest.approx([published[0], 10 * published[0], 1000 * published[0]])


def test_conditions_that_fail_are_named():
    model = ClusterModel(values=2, per_cluster=30, width=4096, noise=0.1, shared_norm=0.2, sharing=2, distinct=False)
    failed = {c.says for c in error_bound(model, steps=3, last_step=2, measured=0.2, group="pair").failed}
    assert failed == {
        "l_b >= 1/4",
        "d <= 5 Q",
        "v <= 1/(32 sqrt Q)",
        "no two values have the same two tokens",
        "Q >= 40",
        "0 < t <= K tau log 3/(5 beta^2)",
    }
    bound = refined_error_bound(model, 2 * model.largest_eps)
    assert "eps <= 1/(16 v (Z + 2))" in {c.says for c in bound.failed}
    repaired = {c.says for c in counted_error_bound(model).failed}
    assert repaired == {"d <= 5 Q", "v <= 1/(32 sqrt Q)", "no two values have the same two tokens"}


@pytest.mark.parametrize("pairs", [1, 40, 10**12])
@pytest.mark.parametrize("values", [1, 10**9])
def test_extreme_sizes(values, pairs):
    model = ClusterModel(values=values, per_cluster=pairs, width=1, noise=1e-3, shared_norm=0.0)
    for statement in (error_bound, refined_error_bound, counted_error_bound):
        bound = statement(model)
        assert bound.value >= 0
        assert bound.failure >= 0
        assert bound.as_dict()["standing"] in {"outside", "empty", "informative"}
    assert float(simplified_error(values, pairs)) >= 0
    assert np.shape(simplified_error(np.array([1, 2]), np.array([[40.0], [90.0], [1e12]]))) == (3, 2)


def test_the_largest_and_smallest_errors_one_can_ask_for():
    assert math.isnan(pairs_at_error(1, 2192.44))
    assert required_pairs(1, 2192.44) == LEAST_PAIRS
    assert pairs_at_error(1, PEAK_PER_VALUE) == pytest.approx(90, abs=1e-4)
    assert float(simplified_error(1, pairs_at_error(1, 1e-290))) == pytest.approx(1e-290)
    assert required_pairs(10**12, 1e-290) < 10**5


def test_what_is_no_setting_is_refused():
    with pytest.raises(DataError, match="values and pairs must be at least 1 and not NaN"):
        simplified_error(1, math.nan)
    with pytest.raises(ConfigError, match="values is 0, but must be a whole number of at least 1"):
        pairs_at_error(0, 0.05)
    with pytest.raises(ConfigError, match="error is 0, but must be a finite number above 0"):
        required_pairs(1, 0)
    with pytest.raises(ConfigError, match="probability is 1, but must lie between 0 and 1, ends excluded"):
        required_pairs_for_event(1, probability=1)
    with pytest.raises(ConfigError, match="no number of pairs below"):
        required_pairs_for_event(1, form="stated", constant=1e-40)
