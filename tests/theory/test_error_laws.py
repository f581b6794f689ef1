"""The exact held-out error against simulated heads, integrals and printed numbers; its floor against every head."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate
from scipy.optimize import minimize
from scipy.stats import ncx2, norm

from prefdyn.dynamics.descent import descent
from prefdyn.errors import ConfigError, DataError
from prefdyn.maths.objectives import DPO
from prefdyn.synthetic import gaussian_groups
from prefdyn.theory.value_scaling.generalization import simplified_error
from prefdyn.theory.value_scaling.held_out_error import (
    crowding,
    early_error,
    early_error_small_sample,
    head_error,
    irreducible_error,
    irreducible_error_bound,
    log_head_error,
    log_mean_early_error,
    mean_early_error,
    pairs_needed_for_error,
)
from tests.naive import heads, margin_flow

# values, pairs per cluster, width, noise, offset, pattern, draws
SETTINGS = [
    (1, 1, 200, 0.2, 0.5, "distinct", 300),
    (1, 2, 20, 0.6, 0.3, "distinct", 400),
    (2, 5, 50, 0.5, 0.5, "distinct", 200),
    (4, 20, 200, 0.5, 0.0, "distinct", 40),
    (3, 3, 10, 0.8, 0.25, "distinct", 300),
    (1, 40, 400, 0.7, 0.5, "distinct", 60),
    (2, 1, 12, 0.4, 0.4, "shared", 400),
    (4, 1, 50, 0.3, 0.5, "shared", 300),
    (4, 20, 200, 0.5, 0.0, "shared", 40),
    (8, 20, 200, 0.5, 0.25, "shared", 25),
    (16, 6, 60, 0.4, 0.0, "shared", 60),
    (5, 2, 30, 0.5, 0.0, "common", 250),
    (8, 4, 40, 0.4, 0.25, "common", 80),
    (4, 2, 30, 0.5, 0.3, "ring", 250),
    (7, 5, 60, 0.6, 0.0, "ring", 60),
]


def laws(values, per_cluster, width, noise, offset, pattern) -> dict[str, Any]:
    """The settings of the three laws: `crowding` in place of K covers every pattern."""
    kappa = crowding(margin_flow.answers(pattern, values))
    assert np.ptp(kappa) < 1e-12
    return {"values": float(kappa[0]), "noise": noise, "width": width, "per_cluster": per_cluster, "shared": True}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"K{s[0]} Q{s[1]} d{s[2]} v{s[3]} {s[5]}")
def test_the_mean_error_of_simulated_early_heads_is_the_exact_law(setting):
    """Interval from the spread over training sets; half the pairs, or one answer pattern for another, fall outside."""
    values, per_cluster, width, noise, offset, pattern, draws = setting
    found = heads.early_errors(
        draws, values=values, per_cluster=per_cluster, width=width, noise=noise, shared_norm=offset, pattern=pattern
    )
    room = 3.5 * found.std(ddof=1) / math.sqrt(draws)
    law = laws(*setting[:-1])
    expected = mean_early_error(shared_norm=offset, **law)
    assert abs(found.mean() - expected) < room
    halved: dict[str, Any] = law | {"per_cluster": per_cluster / 2}
    spoiled = [mean_early_error(shared_norm=offset, **halved)]
    if values > 1:
        other = law["values"] * 1.5 if pattern == "distinct" else 1.0
        mistaken: dict[str, Any] = law | {"values": other}
        spoiled.append(mean_early_error(shared_norm=offset, **mistaken))
    assert all(abs(found.mean() - wrong) > room for wrong in spoiled)
    assert early_error_small_sample(shared_norm=offset, **law) == pytest.approx(expected, rel=0.04)


def test_the_settings_differ_enough_to_prove_something():
    assert len({setting[5] for setting in SETTINGS}) == 4
    assert len(SETTINGS) >= 12
    errors = [mean_early_error(shared_norm=s[4], **laws(*s[:-1])) for s in SETTINGS]
    assert min(errors) < 0.02
    assert max(errors) > 0.3


def test_simulations_of_theory_3_6_at_printed_precision():
    """The plain and the small-Q law as printed, and the exact mean within the printed simulations' error."""
    one = {"noise": 0.2, "width": 200, "per_cluster": 1}
    four = {"values": 4, "noise": 0.3, "width": 50, "per_cluster": 1, "shared": True}
    assert early_error(**one) == pytest.approx(0.01267, abs=5e-6)
    assert early_error_small_sample(**one, shared_norm=0.5) == pytest.approx(0.01607, abs=5e-6)
    assert mean_early_error(**one, shared_norm=0.5) == pytest.approx(0.01635, abs=3e-4)
    assert early_error(**four) == pytest.approx(0.1776, abs=5e-5)
    assert early_error_small_sample(**four, shared_norm=0.5) == pytest.approx(0.1966, abs=5e-5)
    assert mean_early_error(**four, shared_norm=0.5) == pytest.approx(0.1970, abs=5e-4)
    wide = {"noise": 0.5, "width": 200}
    assert early_error(np.array([1, 4]), **wide, per_cluster=20) == pytest.approx([0.0912, 0.0912], abs=5e-5)
    assert early_error(np.array([4, 8, 16]), **wide, per_cluster=20, shared=True) == pytest.approx(
        [0.2525, 0.3187, 0.3694], abs=5e-5
    )
    assert early_error(8, **wide, per_cluster=np.array([80, 320]), shared=True) == pytest.approx(
        [0.2685, 0.2479], abs=5e-5
    )


def test_pairs_needed_and_the_floor_of_theory_t15():
    needed = [pairs_needed_for_error(0.05, noise=v, width=4096) for v in (0.1, 0.3, 0.5, 0.6)]
    assert needed == pytest.approx([0.5695, 59.328, 1070.13, 27614.9], rel=2e-5)
    floors = [irreducible_error(k, 0.25) for k in (1, 2, 4, 8, 16)]
    assert floors == pytest.approx([3.167e-5, 0.0023389, 0.0227501, 0.0786496, 0.1586553], rel=2e-5, abs=5e-9)
    spoiled = [pairs_needed_for_error(0.05, noise=v, width=2048) for v in (0.1, 0.3, 0.5, 0.6)]
    assert spoiled != pytest.approx(needed, rel=0.1)


def test_the_tables_of_the_paper_are_fitted_as_theory_t16_says():
    """Test error against K in Mistral and Qwen; one parameter, v = .385, fits Qwen better than a line does."""
    values = np.array([1.0, 2, 4, 8])
    tables = {"Mistral": np.array([0, 0.008, 0.036, 0.056]), "Qwen": np.array([0, 0.027, 0.098, 0.183])}

    def explained(errors, fit):
        return 1 - np.sum((errors - fit) ** 2) / np.sum((errors - errors.mean()) ** 2)

    def line(x, errors):
        slope, start = np.polyfit(x, errors, 1)
        return slope, start, explained(errors, slope * x + start)

    assert line(values, tables["Mistral"]) == pytest.approx((0.00810435, -0.0053913, 0.9460486), abs=5e-8)
    assert line(values, tables["Qwen"]) == pytest.approx((0.02626087, -0.02147826, 0.9861214), abs=5e-8)
    assert line(np.log(values), tables["Mistral"])[2] == pytest.approx(0.9623, abs=5e-5)
    floors = np.array([irreducible_error(k, 0.385) for k in values])
    assert explained(tables["Qwen"], floors) == pytest.approx(0.996, abs=5e-4)
    assert explained(tables["Qwen"], floors) > line(values, tables["Qwen"])[2]


@pytest.mark.parametrize("tokens", ["distinct", "shared", "common", "ring"])
def test_a_head_from_descent_errs_as_often_as_its_exact_error_says(tokens):
    """60 steps of real training, then 40,000 fresh pairs; the count lies within 3.5 standard errors."""
    model = {"groups": 3, "width": 30, "noise": 0.7, "shared_norm": 0.4, "tokens": tokens}
    feats = gaussian_groups(12, **model, held_out=0.0)
    run = descent(feats, DPO(beta=1.0), steps=60, alone=False)
    assert run.joint_head is not None
    head = feats.coordinates()[1] @ run.joint_head
    start = feats.select([feats.members(k)[0] for k in range(3)])
    first, second = start.chosen, start.rejected
    exact = head_error(head[first] - head[second], np.eye(3, 30, k=1), 0.4 * np.eye(30)[0], 0.7)

    fresh = gaussian_groups(40_000, **model, held_out=0.0, seed=1)
    margins = np.einsum("nd,nd->n", head[fresh.chosen] - head[fresh.rejected], fresh.states.astype(float))
    for k in range(3):
        rows = fresh.members(k)
        for side, mine in enumerate((rows[::2], rows[1::2])):
            wrong, expected = np.mean(margins[mine] <= 0), exact[k, side]
            room = 3.5 * math.sqrt(expected * (1 - expected) / len(mine))
            assert abs(wrong - expected) < room
            assert abs(wrong - expected / 2) > room


def test_a_head_that_has_not_moved_errs_always_and_tails_do_not_underflow():
    c, b = np.eye(2, 4, k=1), np.zeros(4)
    assert head_error(np.zeros((2, 4)), c, b, 0.5).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    for scale in (1e-300, 1e300):
        np.testing.assert_allclose(head_error(scale * c, c, b, 0.5), head_error(c, c, b, 0.5), rtol=1e-12)
    far = log_head_error(c, c, b, 1e-4)
    np.testing.assert_allclose(far, -5e7, rtol=1e-5)
    assert head_error(-c, c, b, 1e-4).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    with pytest.raises(ConfigError, match="noise is 0"):
        head_error(c, c, b, 0.0)


@pytest.mark.parametrize(("width", "values", "noise", "per_cluster", "offset"), [
    (1, 1, 1.5, 1, 0.0), (3, 2, 0.7, 1, 0.5), (8, 4, 0.5, 3, 0.2), (30, 1, 0.3, 2, 0.0), (2, 1, 5.0, 0.5, 0.0),
])  # fmt: skip
def test_the_contour_integral_is_the_integral_over_two_chi_squares(width, values, noise, per_cluster, offset):
    """P(X <= Y) by brute quadrature of densities; the reference is SciPy's non-central chi-square."""
    own, cross = 2 * per_cluster + 1 + offset**2, 2 * math.sqrt(2 * per_cluster / values)
    first, second = (own + cross) / (2 * noise**2), max(own - cross, 0.0) / (2 * noise**2)
    top = width + second + 40 * math.sqrt(2 * width + 4 * second) + 60

    def density(root):  # x = root^2, so that width 1 has no pole
        x = root * root
        return 2 * root * ncx2.pdf(x, width, max(second, 1e-300)) * ncx2.cdf(x, width, first)

    expected, _ = integrate.quad(density, 0, math.sqrt(top), epsabs=1e-15, epsrel=1e-11, limit=400)
    law: dict[str, Any] = {"noise": noise, "per_cluster": per_cluster, "shared_norm": offset, "shared": True}
    assert mean_early_error(values, width=width, **law) == pytest.approx(expected, rel=1e-8)
    assert mean_early_error(values, width=width + 1, **law) != pytest.approx(expected, rel=1e-3)


@given(
    st.floats(1, 1e4), st.floats(-8, 3), st.integers(1, 10**6), st.floats(0.5, 1e6), st.floats(0, 5),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_the_exact_error_behaves_everywhere(values, log_noise, width, per_cluster, offset):
    """Between 0 and 1/2, larger with K and with d, smaller with Q, never below the floor; no overflow anywhere."""
    law: dict[str, Any] = {
        "noise": 10**log_noise,
        "width": width,
        "per_cluster": per_cluster,
        "shared_norm": offset,
        "shared": True,
    }
    found = log_mean_early_error(values, **law)
    assert -math.inf < found <= math.log(0.5) + 1e-9
    room = 1e-9 * max(1.0, abs(found)) + 1e-7
    assert log_mean_early_error(2 * values, **law) >= found - room
    assert log_mean_early_error(values, **(law | {"width": 2 * width})) >= found - room
    assert log_mean_early_error(values, **(law | {"per_cluster": 2 * per_cluster})) <= found + room
    floor = norm.logcdf(-1 / (law["noise"] * math.sqrt(values)))
    assert found >= floor - room


def test_at_the_theorems_own_limits_the_error_is_beyond_every_float_and_the_bound_above_one():
    """Q = 40, v = 1/(32 sqrt Q), d = 5Q, K = 1: a simulated head has 10^-8885, the exact mean over heads 10^-8868."""
    exact = log_mean_early_error(noise=1 / (32 * math.sqrt(40)), width=200, per_cluster=40, shared_norm=0.5)
    assert exact / math.log(10) == pytest.approx(-8868.5, abs=0.1)
    assert exact / math.log(10) == pytest.approx(-8885, rel=0.01)
    assert simplified_error(1, 40) == pytest.approx(1316, abs=0.5)
    assert simplified_error(1, 20) > 1 > 10 * early_error(noise=0.5, width=200, per_cluster=20)


def test_the_plain_law_is_low_for_few_pairs_and_right_for_many():
    few = {"noise": 0.2, "width": 200, "per_cluster": 1}
    assert early_error(**few) / mean_early_error(**few, shared_norm=0.5) == pytest.approx(1 - 0.233, abs=0.001)
    for per_cluster in (1e4, 1e6):
        many = {"values": 8, "noise": 0.5, "width": 200, "per_cluster": per_cluster, "shared": True}
        assert early_error(**many) == pytest.approx(mean_early_error(**many), rel=10 / per_cluster)
    assert early_error(8, noise=0.5, width=200, per_cluster=math.inf, shared=True) == irreducible_error(8, 0.5)


@given(st.floats(0.001, 0.49), st.floats(0.02, 3), st.integers(1, 10**5), st.integers(1, 50), st.booleans())
@settings(max_examples=100, deadline=None)
def test_pairs_needed_is_the_inverse_of_the_law(error, noise, width, values, shared):
    needed = pairs_needed_for_error(error, noise=noise, width=width, values=values, shared=shared)
    law = {"noise": noise, "width": width, "shared": shared}
    floor = irreducible_error(values if shared else 1, noise)
    if math.isinf(needed):
        assert floor >= error * (1 - 1e-9)
    elif needed > 1e-12:
        assert early_error(values, per_cluster=needed, **law) == pytest.approx(error, rel=1e-6)
        assert early_error(values, per_cluster=needed / 2, **law) > error
        assert floor <= error


def test_no_pairs_are_needed_for_half_and_none_suffice_below_the_floor():
    assert pairs_needed_for_error(0.5, noise=3.0, width=10) == 0.0
    assert pairs_needed_for_error(1e-300, noise=0.5, width=10) == math.inf
    assert pairs_needed_for_error(0.05, noise=0.3, width=4096, values=4, shared=True) < math.inf
    assert pairs_needed_for_error(0.05, noise=0.3, width=4096, values=5, shared=True) == math.inf
    with pytest.raises(ConfigError, match=r"error is 1\.5"):
        pairs_needed_for_error(1.5, noise=1.0, width=3)


# the floor ----------------------------------------------------------------------------------------------------------


def mean_error(w, values, noise, offset):
    """Mean over all clusters of K values that share one head difference w."""
    width = len(w)
    return head_error(np.tile(w, (values, 1)), np.eye(values, width, k=1), offset * np.eye(width)[0], noise).mean()


@pytest.mark.parametrize(("values", "noise", "offset"), [(2, 0.3, 0.5), (4, 1.0, 0.0), (8, 0.5, 0.25), (16, 3.0, 1.0)])
def test_no_head_errs_less_than_the_floor_and_one_attains_it(values, noise, offset):
    """Random heads, sparse heads and an optimiser stay above; the floor of one value fewer would be broken."""
    rng = np.random.default_rng(values)
    width = values + 3
    best = np.zeros(width)
    best[1 : values + 1] = 1.0
    attained = mean_error(best, values, noise, offset)
    bound = irreducible_error_bound(values, noise, measured=attained)
    assert attained == pytest.approx(bound.value, rel=1e-12)
    assert bound.kept
    assert bound.standing == "informative"
    tried = rng.normal(size=(750, width)) + best * rng.exponential(2, (750, 1))
    tried[::2] *= rng.random((375, width)) < 0.5
    for w in tried:
        assert irreducible_error_bound(values, noise, measured=mean_error(w, values, noise, offset)).kept
    found = minimize(lambda w: mean_error(w, values, noise, offset), rng.normal(size=width) + best, method="BFGS")
    assert irreducible_error_bound(values, noise, measured=float(found.fun)).kept
    assert found.fun == pytest.approx(bound.value, rel=1e-4)
    spoiled = irreducible_error_bound(values + 1, noise, measured=attained)
    assert spoiled.standing == "broken"


def test_a_long_run_on_shared_answers_comes_down_to_the_floor_but_not_below():
    """K = 8, v = .5: with Q = 4, 16, 64 the trained head's error falls towards .2398, the published bound to 0."""
    errors = []
    for pairs in (8, 32, 128):
        feats = gaussian_groups(pairs, groups=8, width=20, noise=0.5, held_out=0.0)
        run = descent(feats, DPO(beta=1.0), steps=200, alone=False)
        assert run.joint_head is not None
        head = feats.coordinates()[1] @ run.joint_head
        errors.append(mean_error(head[0] - head[1], 8, 0.5, 0.0))
        assert irreducible_error_bound(8, 0.5, measured=errors[-1]).kept
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1.04 * irreducible_error(8, 0.5)
    own = gaussian_groups(128, groups=8, width=20, noise=0.5, held_out=0.0, tokens="distinct")
    run = descent(own, DPO(beta=1.0), steps=200, alone=False)
    assert run.joint_head is not None
    head = own.coordinates()[1] @ run.joint_head
    alone = head_error(head[::2] - head[1::2], np.eye(8, 20, k=1), np.zeros(20), 0.5).mean()
    assert alone < 0.2 * irreducible_error(8, 0.5)  # the floor is that of sharing, not of eight values
    assert irreducible_error_bound(1, 0.5, measured=float(alone)).kept


def test_the_floor_leaves_room_for_counting_only_where_it_was_counted():
    plain, counted = irreducible_error_bound(4, 0.5), irreducible_error_bound(4, 0.5, held_out_pairs=1000)
    assert counted.value == pytest.approx(plain.value - math.sqrt(math.log(1000) / 2000))
    assert (plain.failure, counted.failure) == (0.0, 1e-3)
    assert irreducible_error_bound(4, 0.5, held_out_pairs=3).is_vacuous
    rng = np.random.default_rng(0)
    shares = rng.binomial(1000, plain.value, 4000) / 1000
    assert np.mean(shares < counted.value) <= 1e-3
    assert np.mean(shares < plain.value) > 0.4


# what is shared -----------------------------------------------------------------------------------------------------


def test_crowding_of_the_patterns():
    assert crowding(margin_flow.answers("distinct", 5)).tolist() == [1.0] * 5
    assert crowding(margin_flow.answers("shared", 5)).tolist() == [5.0] * 5
    assert crowding(margin_flow.answers("common", 5)).tolist() == [2.0] * 5
    assert crowding(margin_flow.answers("ring", 5)).tolist() == [1.5] * 5
    assert crowding([("a", "b"), ("b", "a"), ("c", "a")]).tolist() == [2.25, 2.25, 1.5]
    with pytest.raises(DataError, match="value 0 has the same answer 'a' twice"):
        crowding([("a", "a")])
    with pytest.raises(DataError, match="crowding was given 0 values"):
        crowding([])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"noise": 0.0}, "noise must be finite and above 0"),
        ({"noise": math.nan}, "noise must be finite"),
        ({"values": 0.5}, "values must be finite and at least 1"),
        ({"width": 0}, "width must be finite and at least 1"),
        ({"per_cluster": 0}, "per_cluster must be above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change, says):
    law: dict[str, Any] = {"values": 2, "noise": 0.5, "width": 10, "per_cluster": 4} | change
    with pytest.raises(DataError, match=says):
        early_error(**law)
    with pytest.raises(ConfigError):
        mean_early_error(**law, shared=True)
    with pytest.raises(DataError, match="shared_norm must be finite, 0 or above"):
        early_error_small_sample(noise=1.0, width=1, per_cluster=1, shared_norm=-1.0)
    with pytest.raises(ConfigError, match="shared_norm is -1"):
        mean_early_error(noise=1.0, width=1, per_cluster=1, shared_norm=-1.0)
    with pytest.raises(ConfigError, match="values is nan"):
        irreducible_error(math.nan, 0.5)
